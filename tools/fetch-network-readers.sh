#!/bin/sh
# Puts programs that read network configuration into DEST, for tests that ask a second opinion: ifupdown's and ifupdown-ng's
# ifquery, netplan's generator, NetworkManager's nmcli. Debian's packages, unpacked, not installed: an installed one would
# take over the host's network. Needs no root. Does nothing where DEST already holds them.
#
#   tools/fetch-network-readers.sh DEST
set -eu

if [ $# -ne 1 ]; then
    echo "usage: $0 DEST" >&2
    exit 2
fi
dest=$1
packages='netplan.io libnetplan0 ifupdown network-manager libnm0 ifupdown-ng'

if [ -e "$dest/complete" ]; then
    exit 0
fi
for tool in apt-get dpkg-deb; do
    if ! command -v "$tool" >/dev/null; then
        echo "$0: no $tool here: the tests that need $dest will be skipped" >&2
        exit 0
    fi
done
mkdir -p "$dest"
work=$(mktemp -d "$dest/.fetch.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

for package in $packages; do
    # From Debian 13 on netplan's generator and library have other names; what is absent is skipped by its test.
    case $package in
    netplan.io) names='netplan.io netplan-generator' ;;
    libnetplan0) names='libnetplan0 libnetplan1' ;;
    *) names=$package ;;
    esac
    for name in $names; do
        (cd "$work" && apt-get -qq -o APT::Sandbox::User= download "$name" >/dev/null 2>&1) || continue
        # Both packages of ifupdown have the same file names.
        dpkg-deb -x "$work/$name"_*.deb "$dest/$package"
    done
done
touch "$dest/complete"
