#!/bin/sh
# Prints where cargo puts the release program: the host's own target triple is a folder of its own.
set -eu
triple=$(rustc -vV | sed -n 's/^host: //p')
folder=${CARGO_TARGET_DIR:-$(cd "$(dirname "$0")/.." && pwd)/target}
printf '%s/%s/release/landfall\n' "$folder" "$triple"
