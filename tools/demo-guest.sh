#!/bin/sh
# Builds the guest of the demonstration, once: a minimal Debian of the host's own release that boots on VMware's
# virtual hardware only, with its .vmx.  usage: tools/demo-guest.sh FOLDER
#
# It has systemd, ext4, GRUB on BIOS, an initramfs with vmw_pvscsi and vmxnet3 but no virtio, /dev/sda1 in fstab and on
# the kernel's command line, a static address on ens192, and open-vm-tools.
set -eu

folder=${1:?usage: tools/demo-guest.sh FOLDER}
name=web01
suite=${SUITE:-$(. /etc/os-release && echo "$VERSION_CODENAME")}
size_mib=4096
start_sector=2048
PATH=$PATH:/usr/sbin:/sbin
[ -e "$folder/$name.vmx" ] && exit 0

if [ "$(id -u)" = 0 ]; then as_root=''; else as_root=sudo; fi
mkdir -p "$folder"
work=$(mktemp -d "$folder/.build.XXXXXX")
# The build folder holds files of other users.
trap '$as_root rm -rf "$work"' EXIT

echo "Building a small Debian guest ($suite), once: this takes some minutes"

# Runs in the new root's mount namespace as root; "$1" is that root.
cat >"$work/customize" <<'END'
#!/bin/sh
set -eu
root=$1
work=$(dirname "$0")
printf 'web01\n' >"$root/etc/hostname"
printf '127.0.0.1 localhost\n127.0.1.1 web01\n' >"$root/etc/hosts"
printf '%s\n' '# <file system> <mount point> <type> <options> <dump> <pass>' \
    '/dev/sda1	/	ext4	errors=remount-ro	0	1' >"$root/etc/fstab"
printf '%s\n' 'auto lo' 'iface lo inet loopback' '' 'auto ens192' 'iface ens192 inet static' \
    '	address 10.20.30.40/24' >"$root/etc/network/interfaces"
printf 'root:landfall\n' | chroot "$root" chpasswd
printf '%s\n' ext4 sd_mod vmw_pvscsi vmxnet3 >>"$root/etc/initramfs-tools/modules"
chroot "$root" update-initramfs -u -k all
cat >"$root/etc/default/grub" <<'GRUB'
GRUB_DEFAULT=0
GRUB_TIMEOUT=1
GRUB_DISTRIBUTOR=Debian
GRUB_CMDLINE_LINUX_DEFAULT=""
GRUB_CMDLINE_LINUX="console=tty0 console=ttyS0,115200"
GRUB_DISABLE_LINUX_UUID=true
GRUB
uuid=$(cat "$work/uuid")
mkdir -p "$root/boot/grub"
cp -r "$root/usr/lib/grub/i386-pc" "$root/boot/grub/"
{
    printf '%s\n' 'set default=0' 'set timeout=1' 'insmod part_msdos' 'insmod ext2' ''
    for kernel in $(cd "$root/boot" && ls -1 vmlinuz-* | sort -rV); do
        version=${kernel#vmlinuz-}
        printf "menuentry 'Debian GNU/Linux, with Linux %s' --class debian {\n" "$version"
        printf "\tset root='hd0,msdos1'\n\tsearch --no-floppy --fs-uuid --set=root %s\n" "$uuid"
        printf '\tlinux\t/boot/%s root=/dev/sda1 ro console=tty0 console=ttyS0,115200\n' "$kernel"
        printf '\tinitrd\t/boot/initrd.img-%s\n}\n' "$version"
    done
} >"$root/boot/grub/grub.cfg"
chroot "$root" grub-mkimage -O i386-pc -o /tmp/core.img -p '(hd0,msdos1)/boot/grub' biosdisk part_msdos ext2
cp "$root/tmp/core.img" "$root/usr/lib/grub/i386-pc/boot.img" "$work/"
rm -f "$root/tmp/core.img"
rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/*
END
chmod +x "$work/customize"
cat /proc/sys/kernel/random/uuid >"$work/uuid"
echo $((size_mib * 1024 - start_sector / 2)) >"$work/kib"

# An initramfs with a list of modules, from the first kernel on.
cat >"$work/essential" <<'END'
#!/bin/sh
set -eu
mkdir -p "$1/etc/initramfs-tools/conf.d"
printf 'MODULES=list\n' >"$1/etc/initramfs-tools/conf.d/driver-policy"
END
chmod +x "$work/essential"

log=$folder/$name-build.log
$as_root mmdebstrap --quiet --variant=minbase \
    --include=systemd-sysv,udev,dbus,ifupdown,iproute2,kmod,e2fsprogs,linux-image-amd64,initramfs-tools,zstd,grub-pc,open-vm-tools \
    --aptopt='APT::Install-Recommends "false"' \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
    --essential-hook="$work/essential" --customize-hook="$work/customize" --format=directory \
    "$suite" "$work/root" >"$log" 2>&1 || { tail -n 20 "$log" >&2; exit 1; }
truncate -s "$(cat "$work/kib")K" "$work/part.img"
$as_root mkfs.ext4 -q -F -U "$(cat "$work/uuid")" -d "$work/root" "$work/part.img"
[ -z "$as_root" ] || sudo chown "$(id -u):$(id -g)" "$work"/*.img

# MBR, GRUB's core image in the gap behind it, the partition.
disk=$work/disk.raw
truncate -s "${size_mib}M" "$disk"
echo "$start_sector,,83,*" | sfdisk --quiet "$disk"
dd if="$work/boot.img" of="$disk" bs=1 count=440 conv=notrunc status=none
dd if="$work/core.img" of="$disk" bs=512 seek=1 conv=notrunc status=none
dd if="$work/part.img" of="$disk" bs=1M seek=$((start_sector / 2048)) conv=notrunc,sparse status=none
qemu-img convert -f raw -O vmdk "$disk" "$work/$name.vmdk"
mv "$work/$name.vmdk" "$folder/$name.vmdk"
cat >"$work/$name.vmx" <<'END'
.encoding = "UTF-8"
config.version = "8"
virtualHW.version = "19"
displayName = "web01"
guestOS = "debian12-64"
memSize = "1024"
numvcpus = "2"
cpuid.coresPerSocket = "2"
uuid.bios = "56 4d 6c 61 6e 64 66 61-6c 6c 64 65 6d 6f 30 31"
scsi0.present = "TRUE"
scsi0.virtualDev = "pvscsi"
scsi0:0.present = "TRUE"
scsi0:0.deviceType = "scsi-hardDisk"
scsi0:0.fileName = "web01.vmdk"
ethernet0.present = "TRUE"
ethernet0.virtualDev = "vmxnet3"
ethernet0.addressType = "static"
ethernet0.address = "00:50:56:20:30:40"
ethernet0.networkName = "VM Network"
ethernet0.pciSlotNumber = "192"
END
mv "$work/$name.vmx" "$folder/$name.vmx"
