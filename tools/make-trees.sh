#!/bin/sh
# Makes the Debian trees that the tests of boot/ read, once:  tools/make-trees.sh FOLDER [SUITE...]
#
#   FOLDER/initramfs-SUITE   a minimal system whose initramfs holds the drivers of VMware and no others
#   FOLDER/selinux-bookworm  SELinux's reference policy with its file contexts
#   FOLDER/files-SUITE       default files and module lists of the packages that landfall edits after; nothing of it ever ran
#
# Needs mmdebstrap and root (or sudo). The tests skip, loudly, what is not here.
set -eu

folder=${1:?usage: tools/make-trees.sh FOLDER [SUITE...]}
shift
[ $# -gt 0 ] || set -- bookworm trixie
PATH=$PATH:/usr/sbin:/sbin
if [ "$(id -u)" = 0 ]; then as_root=''; else as_root=sudo; fi
mkdir -p "$folder"

# make TREE SUITE ARGUMENTS...: a tree has its name when it is complete
make() {
    tree=$folder/$1
    suite=$2
    shift 2
    [ ! -e "$tree" ] || return 0
    echo "Making $tree, once"
    $as_root rm -rf "$tree.partial"
    log=$tree.log
    $as_root mmdebstrap --quiet "$@" "$suite" "$tree.partial" >"$log" 2>&1 || { tail -n 20 "$log" >&2; exit 1; }
    for kernel in "$tree.partial"/lib/modules/*; do
        [ -d "$kernel" ] || continue
        $as_root depmod -b "$tree.partial" "${kernel##*/}"
    done
    # The tests read it as whoever runs them.
    $as_root chmod -R a+rX "$tree.partial"
    $as_root mv "$tree.partial" "$tree"
}

files=base-files,dpkg,dash,linux-image-amd64,initramfs-tools,grub-pc,ifupdown,netplan.io,network-manager,multipath-tools,\
multipath-tools-boot,lvm2,mdadm,open-vm-tools,qemu-guest-agent,cloud-init,systemd-sysv,udev,smartmontools,cryptsetup-initramfs

# The policy is built by its package's own tools when it is installed.
make selinux-bookworm bookworm --variant=minbase --include=selinux-policy-default

for suite in "$@"; do
    case $suite in
    bullseye) compress=gzip ;;
    *) compress=zstd ;;
    esac
    make "initramfs-$suite" "$suite" --variant=minbase \
        --include=linux-image-amd64,initramfs-tools,zstd,xz-utils,kmod,busybox,systemd,udev \
        --customize-hook='printf "MODULES=list\nCOMPRESS='"$compress"'\n" > "$1/etc/initramfs-tools/conf.d/landfall"' \
        --customize-hook='printf "vmw_pvscsi\nvmxnet3\nsd_mod\next4\n" >> "$1/etc/initramfs-tools/modules"' \
        --customize-hook='chroot "$1" update-initramfs -u -k all'
    make "files-$suite" "$suite" --variant=extract --include="$files"
done
