#!/bin/sh
# Builds the appliance into DEST (target/appliance): one image for each form, an update, and the key that updates are signed with, made once.
#
#   tools/appliance.sh [DEST [ENDING...]]      ova vhdx qcow2 vmdk raw iso update without endings
set -eu
cd "$(dirname "$0")/.."
dest=${1:-target/appliance}
[ $# -eq 0 ] || shift
[ $# -gt 0 ] || set -- ova vhdx qcow2 vmdk raw iso update
landfall=${LANDFALL:-$(tools/where.sh)}
mkdir -p "$dest"
key=$dest/update-key
[ -e "$key" ] || "$landfall" appliance key "$key" >/dev/null

# Debian's packages from where apt has its own, where it has any; what the list pins is checked by digest.
mirror=$(apt-get indextargets --format '$(REPO_URI)' 2>/dev/null | sed -n 's,/debian/*$,,p' | head -n 1)
set -- "$@" --
while [ "$1" != -- ]; do
    set -- "$@" -o "$dest/landfall.$1"
    shift
done
shift
for other in "${mirror:-}" http://deb.debian.org http://snapshot.debian.org/archive; do
    [ -z "$other" ] || set -- "$@" --mirror "$other"
done
exec "$landfall" appliance build --force --packages target/appliance/packages --update-key "$key.pub" --sign "$key" "$@"
