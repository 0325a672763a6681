#!/bin/sh
# Unpacks the packages of three Debian releases into target/guests, without running anything of them: the real default
# files and module lists that the tests of the Debian family plan for. Needs mmdebstrap, kmod and root (or a user
# namespace); some 2 GB.
set -eu
cd "$(dirname "$0")/../.."
mirror=${1:-http://deb.debian.org/debian}
packages=base-files,dpkg,dash,linux-image-amd64,initramfs-tools,grub-pc,ifupdown,netplan.io,network-manager,multipath-tools,multipath-tools-boot,lvm2,mdadm,open-vm-tools,qemu-guest-agent,cloud-init,systemd-sysv,udev,smartmontools,cryptsetup-initramfs
mkdir -p target/guests
for suite in bullseye bookworm trixie; do
    [ -e "target/guests/$suite/.complete" ] && continue
    rm -rf "target/guests/$suite"
    mmdebstrap --variant=extract --include="$packages" "$suite" "target/guests/$suite" "$mirror"
    for kernel in "target/guests/$suite"/lib/modules/*; do
        depmod -b "$PWD/target/guests/$suite" "$(basename "$kernel")"
    done
    touch "target/guests/$suite/.complete"
done
