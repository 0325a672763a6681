#!/bin/sh
# Makes the Debian guests that the tests of this folder rewrite: a minimal system each, whose initramfs holds the
# drivers of VMware and no others. Needs root, mmdebstrap and a Debian mirror.
#
#   guests.sh FOLDER        usually target/guests of the workspace
set -eu
cd "$1"
for guest in bullseye:gzip bookworm:zstd trixie:zstd; do
    suite=${guest%:*}
    [ -e "$suite" ] && continue
    mmdebstrap --variant=minbase \
        --include=linux-image-amd64,initramfs-tools,zstd,xz-utils,kmod,busybox,systemd,udev \
        --customize-hook='printf "MODULES=list\nCOMPRESS='"${guest#*:}"'\n" > "$1/etc/initramfs-tools/conf.d/landfall"' \
        --customize-hook='printf "vmw_pvscsi\nvmxnet3\nsd_mod\next4\n" >> "$1/etc/initramfs-tools/modules"' \
        --customize-hook='chroot "$1" update-initramfs -u -k all' \
        "$suite" "$suite"
done
