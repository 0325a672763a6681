#!/bin/sh
# Puts into DEST what tests ask for a second opinion, as Debian's packages, unpacked and not installed: an installed one
# would take over the host's network or its boot loader. Needs no root. Does nothing for what DEST already holds.
#
#   tools/fetch-readers.sh DEST
#
#   DEST/network-readers   ifupdown's and ifupdown-ng's ifquery, netplan's generator, NetworkManager's nmcli, a folder each
#   DEST/loaders           GRUB's modules, the signed GRUB and shim, systemd-boot and its stub, syslinux
set -eu

if [ $# -ne 1 ]; then
    echo "usage: $0 DEST" >&2
    exit 2
fi
mkdir -p "$1/network-readers" "$1/loaders"
dest=$(cd "$1" && pwd)
for tool in apt-get dpkg-deb; do
    if ! command -v "$tool" >/dev/null; then
        echo "$0: no $tool here: the tests that need $dest/network-readers and $dest/loaders will be skipped" >&2
        exit 0
    fi
done
work=$(mktemp -d "$dest/.fetch.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

# unpack PACKAGE FOLDER: false where there is none of that name
unpack() {
    (cd "$work" && apt-get -qq -o APT::Sandbox::User= download "$1" >/dev/null 2>&1) || return 1
    dpkg-deb -x "$work/$1"_*.deb "$2"
}

if [ ! -e "$dest/network-readers/complete" ]; then
    for package in netplan.io libnetplan0 ifupdown network-manager libnm0 ifupdown-ng; do
        # From Debian 13 on netplan's generator and library have other names; what is absent is skipped by its test.
        case $package in
        netplan.io) names='netplan.io netplan-generator' ;;
        libnetplan0) names='libnetplan0 libnetplan1' ;;
        *) names=$package ;;
        esac
        # Both packages of ifupdown have the same file names.
        for name in $names; do unpack "$name" "$dest/network-readers/$package" || :; done
    done
    touch "$dest/network-readers/complete"
fi
if [ ! -e "$dest/loaders/complete" ]; then
    for package in grub-pc-bin grub-efi-amd64-bin grub-efi-amd64-signed shim-signed shim-unsigned systemd-boot-efi extlinux syslinux-common; do
        unpack "$package" "$dest/loaders" || :
    done
    touch "$dest/loaders/complete"
fi
