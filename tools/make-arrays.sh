#!/bin/sh
# Makes the arrays, mirrored logical volumes and encrypted volumes that the tests of boot/ read, once, or checks them:
#
#   tools/make-arrays.sh FOLDER                   FOLDER/NAME.N.raw, disk N of the fixture NAME (see arrays-init.sh)
#   tools/make-arrays.sh --check FOLDER IMAGES    what the kernel, mdadm, lvm2 and e2fsck say of the fixtures in IMAGES
#
# md and device-mapper work in a virtual machine: the distribution's kernel (tools/fetch-sandbox-kernel.sh) with an
# initramfs of this machine's tools and three of Debian's packages. Needs no root; QEMU, lvm2, cryptsetup, e2fsprogs.
set -eu

check=''
if [ "${1:-}" = --check ]; then check=yes; shift; fi
folder=${1:?usage: tools/make-arrays.sh [--check] FOLDER [IMAGES]}
images=${2:-$folder}
here=$(cd "$(dirname "$0")" && pwd)
PATH=$PATH:/usr/sbin:/sbin
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
images=$(cd "$images" && pwd)
# What an older version of this made lacks what a newer one makes.
[ -n "$check${FIXTURES:-}" ] || [ ! "$folder/complete" -nt "$here/make-arrays.sh" ] ||
    [ ! "$folder/complete" -nt "$here/arrays-init.sh" ] || exit 0

# Packages that are not installed here, unpacked.
fetch() {
    [ ! -x "$folder/packages/$2" ] || return 0
    mkdir -p "$folder/packages" "$folder/download"
    if ! (cd "$folder/download" && apt-get -qq -o APT::Sandbox::User= download "$1" >&2); then
        mkdir -p "$folder/lists/partial" "$folder/cache/archives/partial"
        options="-o Dir::State::lists=$folder/lists -o Dir::Cache=$folder/cache -o APT::Sandbox::User="
        # shellcheck disable=SC2086
        apt-get $options -qq update >&2
        # shellcheck disable=SC2086
        (cd "$folder/download" && apt-get $options -qq download "$1" >&2)
    fi
    dpkg-deb -x "$folder"/download/"$1"_*.deb "$folder/packages"
}

# program PATH: into the initramfs, with its libraries
program() {
    install -D -m 755 "$1" "$root/bin/${1##*/}"
    ldd "$1" 2>/dev/null | grep -o '/[^ ]*' | while read -r library; do
        [ -e "$root$library" ] || install -D -m 755 "$library" "$root$library"
    done
}

# Not the sandbox's: md has no linear arrays from 6.8 to 6.13.
"$here/fetch-sandbox-kernel.sh" "$folder/kernel" any
kernel=$(ls "$folder"/kernel/boot/vmlinuz-* | tail -n 1)
version=${kernel##*/vmlinuz-}
# With the modules of that kernel.
initrd=$folder/initrd-$version
if [ ! -s "$initrd" ] || [ "$here/arrays-init.sh" -nt "$initrd" ]; then
    fetch mdadm sbin/mdadm
    fetch busybox-static bin/busybox
    fetch thin-provisioning-tools usr/sbin/pdata_tools
    root=$(mktemp -d "$folder/.root.XXXXXX")
    trap 'rm -rf "$root"' EXIT
    trap 'exit 1' HUP INT TERM
    mkdir -p "$root/bin" "$root/proc" "$root/sys" "$root/dev" "$root/run/lock/lvm" "$root/mnt" "$root/etc/lvm" "$root/tmp"
    install -m 755 "$folder/packages/bin/busybox" "$root/bin/busybox"
    for name in sh mount umount modprobe cat echo sleep mkdir ls grep sed head yes poweroff sync sha256sum seq tr dd mdev blkid expr wc cut readlink; do
        ln -s busybox "$root/bin/$name"
    done
    program "$folder/packages/sbin/mdadm"
    program "$folder/packages/usr/sbin/pdata_tools"
    for name in thin_check cache_check; do ln -s pdata_tools "$root/bin/$name"; done
    for name in lvm dmsetup cryptsetup mke2fs e2fsck sfdisk; do
        program "$(command -v "$name")"
    done
    # The hosts' name goes into names of arrays.
    echo 'HOMEHOST guest' > "$root/etc/mdadm.conf"
    install -m 755 "$here/arrays-init.sh" "$root/init"
    modules=$root/lib/modules/$version
    mkdir -p "$modules/kernel"
    for part in drivers/md drivers/scsi drivers/virtio drivers/dax fs/ext4 fs/jbd2 fs/mbcache.ko fs/mbcache.ko.xz \
        crypto lib arch/x86/crypto; do
        [ ! -e "$folder/kernel/lib/modules/$version/kernel/$part" ] ||
            (cd "$folder/kernel/lib/modules/$version" && cp -r --parents "kernel/$part" "$modules")
    done
    cp "$folder/kernel/lib/modules/$version"/modules.builtin* "$folder/kernel/lib/modules/$version"/modules.order "$modules"
    # busybox loads no compressed ones.
    find "$modules" -name '*.ko.xz' -exec unxz {} +
    sed -i 's/\.ko\.xz$/.ko/' "$modules/modules.order"
    depmod -b "$root" "$version"
    (cd "$root" && find . | cpio --quiet -o -H newc) | gzip -1 > "$initrd.partial"
    mv "$initrd.partial" "$initrd"
fi

# What is made; fewer for a try, by FIXTURES="NAME:DISKS …".
fixtures='r1-12:2 r1-10-disk:2 r1-090:2 r0-12:2 linear-090:2 r10-12:3 r10-four:4 linear:2 stale:2 rebuilding:2
    r5-ls:3 r5-la:3 r5-rs:3 r5-ra:3 r4:3 r6:4 r6-ra:5 lvm-raid1:2 lvm-mirror:2 lvm-on-md:2 luks-on-lvm:1 lvm-on-luks:1 luks1:1
    lvm-thin:1 lvm-thin-two:2 lvm-raid5:3 lvm-raid6:5 lvm-cache:2 lvm-cachevol:2'
disks=''
set --
target=0
if [ -z "$check" ]; then
    for fixture in ${FIXTURES:-$fixtures}; do
        for number in $(seq 0 $((${fixture#*:} - 1))); do
            image=$folder/${fixture%:*}.$number.raw
            rm -f "$image"
            truncate -s 64M "$image"
            # Disks of unequal size make the layout of a linear array visible.
            [ "${image##*/}" != linear.0.raw ] || truncate -s 40M "$image"
            set -- "$@" "$image"
        done
    done
else
    set -- "$images"/*.raw
fi
for image in "$@"; do
    shift
    name=${image##*/}
    disks=$disks,${name%.raw}
    set -- "$@" -drive "file=$image,format=raw,if=none,id=d$target,cache=unsafe,discard=unmap" \
        -device "scsi-hd,drive=d$target,bus=scsi.0,scsi-id=$target,lun=0"
    target=$((target + 1))
done
log=$images/console.log
timeout 1800 qemu-system-x86_64 -nodefaults -no-user-config -display none -no-reboot -m 512 -accel tcg -cpu max,cx16=off \
    -kernel "$kernel" -initrd "$initrd" -serial "file:$log" -device virtio-scsi-pci,id=scsi,max_sectors=2048 "$@" \
    -append "console=ttyS0 panic=-1 quiet mitigations=off job=${check:+check} disks=${disks#,}"
if ! grep -q '^DONE' "$log"; then
    tail -n 60 "$log" >&2
    exit 1
fi
[ -z "$check" ] || sed -n 's/\r$//; /^RESULT /p' "$log"
[ -n "$check${FIXTURES:-}" ] || touch "$folder/complete"
