#!/bin/sh
# Makes packaging/appliance/packages.list anew: the newest packages of Debian 13 (with its security updates) that
# packaging/appliance/wanted.txt names, with their digests. Needs apt and the network, no root; installs nothing.
#
#   tools/appliance-packages.sh            writes the list; git diff shows what changed
set -eu
cd "$(dirname "$0")/.."
suite=trixie
folder=packaging/appliance
keys=/usr/share/keyrings/debian-archive-keyring.gpg

mirror_of() {
    found=$(apt-get indextargets --format '$(RELEASE) $(REPO_URI)' | sed -n "s/^[a-z]*$1 //p" | head -n 1)
    printf '%s' "${found:-$2}"
}
main=$(mirror_of '' http://deb.debian.org/debian/)
security=$(mirror_of -security http://deb.debian.org/debian-security/)

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$work/sources" "$work/none"
: >"$work/status"
cat >"$work/sources/debian.list" <<LIST
deb [signed-by=$keys] $main $suite main
deb [signed-by=$keys] $main $suite-updates main
deb [signed-by=$keys] $security $suite-security main
LIST
apt() {
    command=$1
    shift
    "$command" -o Dir::State::lists="$work/lists" -o Dir::Cache="$work/cache" -o Dir::State::status="$work/status" \
        -o Dir::Etc::sourcelist=/dev/null -o Dir::Etc::sourceparts="$work/sources" -o Dir::Etc::parts="$work/none" \
        -o Dir::Etc::preferencesparts="$work/none" -o APT::Sandbox::User= -o APT::Architecture=amd64 "$@"
}
apt apt-get -qq update
wanted=$(sed -n '/^[a-z0-9]/p' "$folder/wanted.txt")
# shellcheck disable=SC2086
apt apt-get install --no-install-recommends --print-uris -qq $wanted | sed "s/^'\([^']*\)' \([^ ]*\) .*/\1/" >"$work/addresses"
moment=$(date -u +%Y%m%dT000000Z)
{
    echo "# Debian 13 packages of the appliance: NAME VERSION ARCHIVE SIZE SHA256 PATH. Made by tools/appliance-packages.sh."
    echo "snapshot $moment"
    apt apt-cache dumpavail | awk -v gone="$(sed -n 's/^-//p' "$folder/wanted.txt" | tr '\n' ' ')" -v addresses="$work/addresses" \
        -v main="$main" -v security="$security" '
        BEGIN {
            n = split(gone, names, " ")
            for (i = 1; i <= n; i++) left_out[names[i]] = 1
            while ((getline line < addresses) > 0) {
                archive = "debian"
                if (index(line, security) == 1) { archive = "debian-security"; path = substr(line, length(security) + 1) }
                else path = substr(line, length(main) + 1)
                gsub(/%3a/, ":", path); gsub(/%2b/, "+", path); gsub(/%7e/, "~", path)
                taken[path] = archive
            }
        }
        /^Package: / { name = $2 } /^Version: / { version = $2 } /^Size: / { size = $2 } /^SHA256: / { sum = $2 }
        /^Filename: / { path = $2 }
        /^$/ { put() } END { put() }
        function put() {
            if ((path in taken) && !(name in left_out)) print name, version, taken[path], size, sum, path
            if (path in taken) delete taken[path]
            path = ""
        }
    ' | LC_ALL=C sort
} >"$work/list"
lines=$(grep -c ' pool/' "$work/list" || true)
if [ "$lines" -lt 50 ]; then
    echo "$0: only $lines packages were found: see the messages above" >&2
    exit 1
fi
mv "$work/list" "$folder/packages.list"
chmod 644 "$folder/packages.list"
echo "$folder/packages.list: $lines packages, $(awk '{ s += $4 } END { printf "%d MB", s / 1e6 }' "$folder/packages.list")"
