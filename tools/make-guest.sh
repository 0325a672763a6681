#!/bin/sh
# Makes a small real guest that boots on VMware's virtual hardware only, with its .vmx, once.
#
#   tools/make-guest.sh LAYOUT FOLDER
#
# Layouts:
#   bios-ext4     BIOS, MBR, GRUB, one ext4 partition; fstab and the kernel's command line name /dev/sda1
#   uefi-lvm-xfs  UEFI, GPT, an ESP without fallback loader, shim and signed GRUB, /boot on ext4, / on XFS on LVM, swap on LVM;
#                 fstab names /dev/sda1 and /dev/sda2
#   bios-lvm      BIOS, GPT with a BIOS boot partition, /boot on ext4, / and swap on LVM, /srv on a second disk; fstab names
#                 /dev/sda2, /dev/dm-1 and /dev/sdb1; multipathd runs; the second of two kernels is the default; netplan; a
#                 second network card with DHCP; the first disk is a streamOptimized VMDK, the second one is split
#
# All have systemd, an initramfs with vmw_pvscsi and vmxnet3 but no virtio, a static address on ens192, and open-vm-tools.
# SUITE (default: the host's own release) chooses the Debian release.  Needs root, or sudo.
set -eu

layout=${1:?usage: tools/make-guest.sh LAYOUT FOLDER}
folder=${2:?usage: tools/make-guest.sh LAYOUT FOLDER}
name=web01
suite=${SUITE:-$(. /etc/os-release && echo "$VERSION_CODENAME")}
PATH=$PATH:/usr/sbin:/sbin
[ ! -e "$folder/$name.vmx" ] || exit 0

case $layout in
bios-ext4) packages=ifupdown,grub-pc firmware=bios ;;
uefi-lvm-xfs) packages=ifupdown,grub-efi-amd64-signed,shim-signed,grub-efi-amd64,lvm2,xfsprogs firmware=efi ;;
bios-lvm) packages=netplan.io,grub-pc,lvm2,multipath-tools,multipath-tools-boot,linux-image-cloud-amd64 firmware=bios ;;
*) echo "make-guest.sh: there is no layout $layout" >&2; exit 2 ;;
esac

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

echo "Making a small Debian guest ($suite, $layout), once: this takes some minutes"
uuid() { cat /proc/sys/kernel/random/uuid; }
root_uuid=$(uuid)
boot_uuid=$(uuid)
default=0

# An initramfs with a list of modules, from the first kernel on.
cat >"$work/essential" <<'END'
#!/bin/sh
set -eu
mkdir -p "$1/etc/initramfs-tools/conf.d"
printf 'MODULES=list\n' >"$1/etc/initramfs-tools/conf.d/driver-policy"
END

case $layout in
bios-ext4)
    fstab='/dev/sda1	/	ext4	errors=remount-ro	0	1'
    modules='ext4 sd_mod vmw_pvscsi vmxnet3'
    root_device=/dev/sda1
    kernel_folder=/boot
    part_modules='insmod part_msdos\ninsmod ext2'
    search=$root_uuid
    ;;
uefi-lvm-xfs)
    fstab='/dev/mapper/vg0-root	/	xfs	defaults	0	0
/dev/sda2	/boot	ext4	defaults	0	2
/dev/sda1	/boot/efi	vfat	umask=0077	0	1
/dev/mapper/vg0-swap	none	swap	sw	0	0'
    modules='xfs ext4 dm_mod sd_mod vmw_pvscsi vmxnet3'
    root_device=/dev/mapper/vg0-root
    kernel_folder=''
    part_modules='insmod part_gpt\ninsmod ext2'
    search=$boot_uuid
    ;;
bios-lvm)
    fstab='/dev/mapper/vg0-root	/	ext4	errors=remount-ro	0	1
/dev/sda2	/boot	ext4	defaults	0	2
/dev/sdb1	/srv	ext4	defaults	0	2
/dev/dm-1	none	swap	sw	0	0'
    modules='ext4 dm_mod sd_mod vmw_pvscsi vmxnet3'
    root_device=/dev/mapper/vg0-root
    kernel_folder=''
    part_modules='insmod part_gpt\ninsmod ext2'
    search=$boot_uuid
    default=1
    ;;
esac

# Runs with the new root as "$1", as root, before it is packed.
cat >"$work/customize" <<END
#!/bin/sh
set -eu
root=\$1
printf '$name\n' >"\$root/etc/hostname"
printf '127.0.0.1 localhost\n127.0.1.1 $name\n' >"\$root/etc/hosts"
printf '%s\n' '# <file system> <mount point> <type> <options> <dump> <pass>' '$fstab' >"\$root/etc/fstab"
case $layout in
bios-lvm)
    printf '%s\n' 'network:' '  version: 2' '  renderer: networkd' '  ethernets:' '    ens192:' \
        '      addresses: [10.20.30.40/24]' '    ens224:' '      dhcp4: true' >"\$root/etc/netplan/01-netcfg.yaml"
    chmod 600 "\$root/etc/netplan/01-netcfg.yaml"
    chroot "\$root" systemctl enable systemd-networkd multipathd
    ;;
*)
    printf '%s\n' 'auto lo' 'iface lo inet loopback' '' 'auto ens192' 'iface ens192 inet static' \
        '	address 10.20.30.40/24' >"\$root/etc/network/interfaces"
    ;;
esac
printf 'root:landfall\n' | chroot "\$root" chpasswd
printf '%s\n' $modules >>"\$root/etc/initramfs-tools/modules"
chroot "\$root" update-initramfs -u -k all
cat >"\$root/etc/default/grub" <<'GRUB'
GRUB_DEFAULT=$default
GRUB_TIMEOUT=1
GRUB_DISTRIBUTOR=Debian
GRUB_CMDLINE_LINUX_DEFAULT=""
GRUB_CMDLINE_LINUX="console=tty0 console=ttyS0,115200"
GRUB_DISABLE_LINUX_UUID=true
GRUB
mkdir -p "\$root/boot/grub"
{
    printf 'set default=$default\nset timeout=1\n$part_modules\n\n'
    for kernel in \$(cd "\$root/boot" && ls -1 vmlinuz-* | sort -rV); do
        version=\${kernel#vmlinuz-}
        printf "menuentry 'Debian GNU/Linux, with Linux %s' --class debian {\n" "\$version"
        printf '\tsearch --no-floppy --fs-uuid --set=root $search\n'
        printf '\tlinux\t$kernel_folder/%s root=$root_device ro console=tty0 console=ttyS0,115200\n' "\$kernel"
        printf '\tinitrd\t$kernel_folder/initrd.img-%s\n}\n' "\$version"
    done
} >"\$root/boot/grub/grub.cfg"
case $layout in
bios-ext4)
    cp -r "\$root/usr/lib/grub/i386-pc" "\$root/boot/grub/"
    chroot "\$root" grub-mkimage -O i386-pc -o /tmp/core.img -p '(hd0,msdos1)/boot/grub' biosdisk part_msdos ext2
    cp "\$root/tmp/core.img" "\$root/usr/lib/grub/i386-pc/boot.img" "$work/"
    rm -f "\$root/tmp/core.img"
    ;;
bios-lvm)
    cp -r "\$root/usr/lib/grub/i386-pc" "\$root/boot/grub/"
    chroot "\$root" grub-mkimage -O i386-pc -o /tmp/core.img -p '(hd0,gpt2)/grub' biosdisk part_gpt ext2
    cp "\$root/tmp/core.img" "\$root/usr/lib/grub/i386-pc/boot.img" "$work/"
    rm -f "\$root/tmp/core.img"
    ;;
uefi-lvm-xfs)
    mkdir -p "\$root/boot/efi" "$work/esp/EFI/debian"
    cp "\$root/usr/lib/shim/shimx64.efi.signed" "$work/esp/EFI/debian/shimx64.efi"
    cp "\$root/usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed" "$work/esp/EFI/debian/grubx64.efi"
    printf 'search.fs_uuid $boot_uuid root\nset prefix=(\$root)/grub\nconfigfile \$prefix/grub.cfg\n' \
        >"$work/esp/EFI/debian/grub.cfg"
    ;;
esac
rm -rf "\$root"/var/cache/apt/archives/*.deb "\$root"/var/lib/apt/lists/*
END
chmod +x "$work/customize" "$work/essential"

log=$folder/$name-build.log
$as_root mmdebstrap --quiet --variant=minbase \
    --include="systemd-sysv,udev,dbus,iproute2,kmod,e2fsprogs,linux-image-amd64,initramfs-tools,zstd,open-vm-tools,$packages" \
    --aptopt='APT::Install-Recommends "false"' \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
    --essential-hook="$work/essential" --customize-hook="$work/customize" --format=directory \
    "$suite" "$work/root" >"$log" 2>&1 || { tail -n 20 "$log" >&2; exit 1; }

disk=$work/disk.raw
subformat=monolithicSparse
# A file with the volume group vg0 and in it root, from 1 MiB on, and swap (256 MiB): group FILE-MIB ROOT-MIB ROOT-IMAGE
# Made without device-mapper: the volumes lie one behind the other.
group() {
    truncate -s "${1}M" "$work/pv.img"
    loop=$($as_root losetup -f --show "$work/pv.img")
    lvm pvcreate -ff -y "$loop"
    lvm vgcreate vg0 "$loop"
    lvm lvcreate -an -Zn -Wn -n root -L "${2}M" vg0
    lvm lvcreate -an -Zn -Wn -n swap -L 256M vg0
    $as_root losetup -d "$loop"
    loop=''
    truncate -s 256M "$work/swap.img"
    mkswap -q "$work/swap.img"
    $as_root dd if="$3" of="$work/pv.img" bs=1M seek=1 conv=notrunc,sparse status=none
    $as_root dd if="$work/swap.img" of="$work/pv.img" bs=1M seek=$((1 + $2)) conv=notrunc,sparse status=none
}
lvm() {
    tool=$1
    shift
    $as_root "$tool" --driverloaded n --devices "$loop" --config 'devices/use_devicesfile=0 activation/udev_sync=0' "$@" \
        >>"$log" 2>&1
}
# put FILE AT-MIB
put() { $as_root dd if="$1" of="$disk" bs=1M seek="$2" conv=notrunc,sparse status=none; }
case $layout in
bios-ext4)
    truncate -s 4G "$disk"
    echo '2048,,83,*' | sfdisk --quiet "$disk"
    truncate -s 4095M "$work/part.img"
    $as_root mkfs.ext4 -q -F -U "$root_uuid" -d "$work/root" "$work/part.img"
    # GRUB's first stage into the MBR, its core image into the gap behind it.
    dd if="$work/boot.img" of="$disk" bs=1 count=440 conv=notrunc status=none
    dd if="$work/core.img" of="$disk" bs=512 seek=1 conv=notrunc status=none
    put "$work/part.img" 1
    ;;
uefi-lvm-xfs)
    truncate -s 6G "$disk"
    printf '%s\n' 'label: gpt' '2048,131072,U' ',1048576,L' ',,E6D6D379-F507-44C2-A23C-238F2A3DF928' | sfdisk --quiet "$disk"
    truncate -s 64M "$work/esp.img"
    mkfs.vfat -F 32 "$work/esp.img" >/dev/null
    mcopy -s -i "$work/esp.img" "$work/esp/EFI" ::
    put "$work/esp.img" 1
    truncate -s 512M "$work/boot.img"
    $as_root mkfs.ext4 -q -F -U "$boot_uuid" -d "$work/root/boot" "$work/boot.img"
    $as_root find "$work/root/boot" -mindepth 1 -maxdepth 1 -not -name efi -exec rm -rf {} +
    put "$work/boot.img" 65
    truncate -s 4G "$work/xfs.img"
    mkfs.xfs -q -m uuid="$root_uuid" "$work/xfs.img"
    mkdir "$work/mnt"
    $as_root mount -o loop "$work/xfs.img" "$work/mnt"
    $as_root cp -a "$work/root/." "$work/mnt/"
    $as_root umount "$work/mnt"
    group 5500 4096 "$work/xfs.img"
    put "$work/pv.img" 577
    ;;
bios-lvm)
    truncate -s 4G "$disk"
    printf '%s\n' 'label: gpt' '2048,2048,21686148-6449-6E6F-744E-656564454649' ',1048576,L' \
        ',,E6D6D379-F507-44C2-A23C-238F2A3DF928' | sfdisk --quiet "$disk"
    # GRUB's first stage is told where its core image lies (sector 2048), and that where its rest does.
    dd if="$work/boot.img" of="$disk" bs=1 count=440 conv=notrunc status=none
    put "$work/core.img" 1
    printf '\0\010' | dd of="$disk" bs=1 seek=92 conv=notrunc status=none
    printf '\001\010' | dd of="$disk" bs=1 seek=$((2048 * 512 + 500)) conv=notrunc status=none
    truncate -s 512M "$work/slash-boot.img"
    $as_root mkfs.ext4 -q -F -U "$boot_uuid" -d "$work/root/boot" "$work/slash-boot.img"
    $as_root find "$work/root/boot" -mindepth 1 -delete
    put "$work/slash-boot.img" 2
    truncate -s 3G "$work/root.img"
    $as_root mkfs.ext4 -q -F -U "$root_uuid" -d "$work/root" "$work/root.img"
    group 3580 3072 "$work/root.img"
    put "$work/pv.img" 514
    # The second disk.
    truncate -s 64M "$work/disk1.raw"
    echo '2048,,83' | sfdisk --quiet "$work/disk1.raw"
    truncate -s 63M "$work/srv.img"
    mkfs.ext4 -q -F "$work/srv.img"
    dd if="$work/srv.img" of="$work/disk1.raw" bs=1M seek=1 conv=notrunc,sparse status=none
    qemu-img convert -f raw -O vmdk -o subformat=twoGbMaxExtentSparse "$work/disk1.raw" "$folder/${name}_1.vmdk"
    subformat=streamOptimized
    ;;
esac
qemu-img convert -f raw -O vmdk -o "subformat=$subformat" "$disk" "$folder/$name.vmdk.partial"
mv "$folder/$name.vmdk.partial" "$folder/$name.vmdk"
cat >"$work/$name.vmx" <<END
.encoding = "UTF-8"
config.version = "8"
virtualHW.version = "19"
displayName = "$name"
guestOS = "debian12-64"
firmware = "$firmware"
memSize = "1024"
numvcpus = "2"
cpuid.coresPerSocket = "2"
uuid.bios = "56 4d 6c 61 6e 64 66 61-6c 6c 64 65 6d 6f 30 31"
scsi0.present = "TRUE"
scsi0.virtualDev = "pvscsi"
scsi0:0.present = "TRUE"
scsi0:0.deviceType = "scsi-hardDisk"
scsi0:0.fileName = "$name.vmdk"
ethernet0.present = "TRUE"
ethernet0.virtualDev = "vmxnet3"
ethernet0.addressType = "static"
ethernet0.address = "00:50:56:20:30:40"
ethernet0.networkName = "VM Network"
ethernet0.pciSlotNumber = "192"
END
[ "$layout" != bios-lvm ] || cat >>"$work/$name.vmx" <<END
scsi0:1.present = "TRUE"
scsi0:1.deviceType = "scsi-hardDisk"
scsi0:1.fileName = "${name}_1.vmdk"
ethernet1.present = "TRUE"
ethernet1.virtualDev = "vmxnet3"
ethernet1.addressType = "static"
ethernet1.address = "00:50:56:20:30:41"
ethernet1.networkName = "VM Network"
ethernet1.pciSlotNumber = "224"
END
mv "$work/$name.vmx" "$folder/$name.vmx"
