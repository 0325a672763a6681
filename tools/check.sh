#!/bin/sh
# Formatting, lints and the licences of dependencies. Every warning is an error here.
set -eu
cd "$(dirname "$0")/.."
cargo fmt --all --check
cargo clippy --workspace --all-targets -- -D warnings
if ! command -v cargo-deny >/dev/null 2>&1; then
    # Its own target folder: it survives a clean checkout's build, not a new machine.
    cargo install --quiet --locked --target-dir target/cargo-deny cargo-deny ||
        { echo 'check.sh: cargo-deny cannot be installed' >&2; exit 1; }
fi
# The advisory database is a git repository: it is asked where it can be reached.
cargo deny check licenses bans sources
if timeout 20 git ls-remote -q https://github.com/rustsec/advisory-db HEAD >/dev/null 2>&1; then
    cargo deny check advisories
else
    echo 'SKIPPED: advisories: the advisory database cannot be reached from here' >&2
fi
