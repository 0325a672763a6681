#!/bin/sh
# Makes a small real guest that boots on VMware's virtual hardware only, with its .vmx, once.
#
#   tools/make-guest.sh LAYOUT FOLDER
#
# Each LAYOUT is a file in tools/guests/ that says at its beginning what it is.
#
# All have systemd, an initramfs with vmw_pvscsi and vmxnet3 but no virtio, a static address on ens192, and open-vm-tools.
# SUITE (default: the host's own release) chooses the release of Debian or Ubuntu (bionic and later).  Needs root, or sudo.
set -eu

layout=${1:?usage: tools/make-guest.sh LAYOUT FOLDER}
folder=${2:?usage: tools/make-guest.sh LAYOUT FOLDER}
name=web01
suite=${SUITE:-$(. /etc/os-release && echo "$VERSION_CODENAME")}
PATH=$PATH:/usr/sbin:/sbin
[ ! -e "$folder/$name.vmx" ] || exit 0

tools=$(cd "$(dirname "$0")" && pwd)
if [ ! -e "$tools/guests/$layout.sh" ]; then
    echo "make-guest.sh: there is no layout $layout; there are: $(cd "$tools/guests" && ls | sed 's/\.sh$//' | tr '\n' ' ')" >&2
    exit 2
fi
if [ "$(id -u)" = 0 ]; then as_root=''; else as_root=sudo; fi
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
work=$(mktemp -d "$folder/.build.XXXXXX")
loop=''
clean_up() {
    if mountpoint -q "$work/mnt"; then $as_root umount "$work/mnt"; fi
    if [ -n "$loop" ]; then $as_root losetup -d "$loop"; fi
    $as_root rm -rf "$work" # holds files of other users
}
trap clean_up EXIT

uuid() { cat /proc/sys/kernel/random/uuid; }
root_uuid=$(uuid)
boot_uuid=$(uuid)
root=$work/root
disk=$work/disk.raw
second=$work/disk1.raw
log=$folder/$name-build.log
. "$tools/guest-parts.sh"

# What a layout may say otherwise.
firmware=bios
generator=initramfs-tools
default=0
nics=1
more=''
subformat=monolithicSparse
distribution
. "$tools/guests/$layout.sh"

echo "Making a small guest ($suite, $layout), once: this takes some minutes"
# An initramfs with a list of modules, from the first kernel on.
cat >"$work/essential" <<END
#!/bin/sh
set -eu
# netplan.io of old releases writes there while it is installed.
mkdir -p "\$1/etc/network"
case $generator in
initramfs-tools)
    mkdir -p "\$1/etc/initramfs-tools/conf.d"
    printf 'MODULES=list\n' >"\$1/etc/initramfs-tools/conf.d/driver-policy"
    ;;
dracut)
    mkdir -p "\$1/etc/dracut.conf.d"
    printf '%s\n' 'hostonly="no"' 'drivers=" $modules "' >"\$1/etc/dracut.conf.d/10-drivers.conf"
    ;;
esac
END
# Runs with the tree as "$1", as root, before mmdebstrap is done with it.
cat >"$work/customize" <<END
#!/bin/sh
set -eu
$(set | grep -E "^(tools|layout|name|suite|work|folder|root_uuid|boot_uuid|array_uuid)=")
root=\$1 as_root='' firmware=$firmware generator=$generator default=$default
. "\$tools/guest-parts.sh"
. "\$tools/guests/\$layout.sh"
customize
END
chmod +x "$work/essential" "$work/customize"
# A mirror may be an old copy.
# shellcheck disable=SC2086 # the keyring's option and the mirror are words
$as_root mmdebstrap --quiet --variant=minbase \
    --include="systemd-sysv,udev,dbus,iproute2,kmod,e2fsprogs,passwd,$kernel,$generator,$packages" \
    --aptopt='APT::Install-Recommends "false"' --aptopt='Acquire::Check-Valid-Until "false"' \
    --essential-hook="$work/essential" --customize-hook="$work/customize" --format=directory \
    $keyring "$suite" "$root" $mirror >"$log" 2>&1 || { tail -n 20 "$log" >&2; exit 1; }

disks
if [ -e "$second" ]; then
    qemu-img convert -f raw -O vmdk -o subformat=twoGbMaxExtentSparse "$second" "$folder/${name}_1.vmdk"
fi
qemu-img convert -f raw -O vmdk -o "subformat=$subformat" "$disk" "$folder/$name.vmdk.partial"
mv "$folder/$name.vmdk.partial" "$folder/$name.vmdk"
definition >"$work/$name.vmx"
mv "$work/$name.vmx" "$folder/$name.vmx"
