#!/bin/sh
# Makes the Debian trees that the tests of boot/ read, once:  tools/make-trees.sh FOLDER [SUITE...]
#
#   FOLDER/initramfs-SUITE   a minimal system whose initramfs holds the drivers of VMware and no others
#   FOLDER/dracut-SUITE      the same with dracut; its boot/NAME.img are made in several of dracut's ways
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
    $as_root env INITRD="${INITRD-}" mmdebstrap --quiet "$@" "$suite" "$tree.partial" >"$log" 2>&1 || { tail -n 20 "$log" >&2; exit 1; }
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

# Makes a dracut tree's images, inside of it; the arguments are dracut's squash modules. The drivers are VMware's and no
# others: the module qemu would add virtio where this runs in a virtual machine.
dracut_images=$(mktemp)
trap 'rm -f "$dracut_images"' EXIT
cat >"$dracut_images" <<'END'
set -eu
kernel=$(ls /lib/modules)
drivers='vmw_pvscsi vmxnet3 sd_mod ext4'
systemd=$(ls /usr/lib/dracut/modules.d | sed -n 's/^[0-9]*\(.*systemd.*\)/\1/p')
depmod "$kernel"
make() {
    image=$1
    shift
    dracut --force --kver "$kernel" --filesystems ext4 "$@" "/boot/$image.img"
}
make systemd-zstd --no-hostonly --drivers "$drivers" --omit 'qemu qemu-net' --zstd
make strict-xz --hostonly --hostonly-mode strict --drivers "$drivers" --omit "qemu qemu-net $systemd" --xz
make no-kernel-gzip --no-hostonly --no-kernel --gzip
for squash in "$@"; do
    make "$squash-gzip" --no-hostonly --drivers "$drivers" --omit 'qemu qemu-net' --add "$squash" --gzip
done
END
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
    case $suite in
    bullseye) squash=squash packages=squashfs-tools ;;
    bookworm) squash=squash packages=dracut-squash ;;
    *) squash='squash-squashfs squash-erofs' packages=dracut-squash,squashfs-tools,erofs-utils ;;
    esac
    # INITRD=No: the packages of kernels make no initramfs of their own.
    INITRD=No make "dracut-$suite" "$suite" --variant=minbase \
        --include="linux-image-amd64,dracut,zstd,xz-utils,kmod,busybox-static,systemd-sysv,udev,$packages" \
        --customize-hook='chroot "$1" sh -s '"$squash"' <'"$dracut_images"
    make "files-$suite" "$suite" --variant=extract --include="$files"
done
