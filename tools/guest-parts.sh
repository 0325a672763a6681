# What the layouts are made of. Read by tools/make-guest.sh, not to be run.
# shellcheck shell=sh disable=SC2034,SC2154

# ---- where it comes from

# The kernel's package and more for "$suite", the mirror, and the keyring for mmdebstrap; Debian's come with the host.
distribution() {
    kernel=linux-image-amd64,zstd,open-vm-tools
    mirror=''
    keyring=''
    case $suite in
    bionic | focal | jammy | noble | plucky | questing)
        # Without the modules and firmware of real machines.
        kernel=linux-image-virtual,open-vm-tools
        mirror=http://archive.ubuntu.com/ubuntu
        ubuntu_keyring
        # The root's own, for the programs inside.
        keyring="--keyring=$work/ubuntu.gpg --components=main,universe"
        ;;
    esac
}

# Ubuntu's keys as Debian packages them, from the first release that has them.
ubuntu_keyring() {
    mkdir -p "$work/apt/lists/partial" "$work/apt/cache/archives/partial" "$work/apt/keyring"
    echo "deb http://deb.debian.org/debian trixie main" >"$work/apt/sources"
    (
        cd "$work/apt"
        set -- -qq -o Dir::Etc::SourceList="$PWD/sources" -o Dir::Etc::SourceParts=- -o Dir::State::Lists="$PWD/lists" \
            -o Dir::Cache="$PWD/cache" -o APT::Sandbox::User=
        apt-get "$@" update
        apt-get "$@" download ubuntu-keyring
        dpkg-deb -x ubuntu-keyring_*.deb keyring
    )
    cp "$work/apt/keyring/usr/share/keyrings/ubuntu-archive-keyring.gpg" "$work/ubuntu.gpg"
}

# ---- inside the guest's tree, "$root", as root

customize() {
    printf '%s\n' "$name" >"$root/etc/hostname"
    printf '127.0.0.1 localhost\n127.0.1.1 %s\n' "$name" >"$root/etc/hosts"
    printf '%s\n' '# <file system> <mount point> <type> <options> <dump> <pass>' "$fstab" >"$root/etc/fstab"
    printf 'root:landfall\n' | chroot "$root" chpasswd
    case $generator in
    initramfs-tools)
        printf '%s\n' $modules >>"$root/etc/initramfs-tools/modules"
        chroot "$root" update-initramfs -u -k all
        ;;
    dracut)
        for version in $(kernels); do
            chroot "$root" dracut --force --kver "$version" "/boot/initrd.img-$version"
        done
        ;;
    esac
    inside
    # Not kept out by dpkg's path-exclude: packages of old releases cannot be installed so.
    rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/* "$root"/usr/share/doc/* "$root"/usr/share/man/* \
        "$root"/usr/share/locale/*
}

# Versions of the installed kernels, the newest first.
kernels() { (cd "$root/boot" && ls -1 vmlinuz-* | sort -rV | sed 's/^vmlinuz-//'); }

static_ifupdown() {
    printf '%s\n' 'auto lo' 'iface lo inet loopback' '' 'auto ens192' 'iface ens192 inet static' \
        '	address 10.20.30.40/24' >"$root/etc/network/interfaces"
}

# grub_config KERNEL-FOLDER MODULES: as GRUB sees the folder; the modules as lines of the configuration.
grub_config() {
    cat >"$root/etc/default/grub" <<END
GRUB_DEFAULT=$default
GRUB_TIMEOUT=1
GRUB_DISTRIBUTOR=Debian
GRUB_CMDLINE_LINUX_DEFAULT=""
GRUB_CMDLINE_LINUX="console=tty0 console=ttyS0,115200"
GRUB_DISABLE_LINUX_UUID=true
END
    mkdir -p "$root/boot/grub"
    {
        printf "set default=$default\nset timeout=1\n$2\n\n"
        for version in $(kernels); do
            printf "menuentry 'Debian GNU/Linux, with Linux %s' --class debian {\n" "$version"
            printf '\tsearch --no-floppy --fs-uuid --set=root %s\n' "$search"
            printf '\tlinux\t%s/vmlinuz-%s root=%s ro console=tty0 console=ttyS0,115200\n' "$1" "$version" "$root_device"
            printf '\tinitrd\t%s/initrd.img-%s\n}\n' "$1" "$version"
        done
    } >"$root/boot/grub/grub.cfg"
}

# grub_bios PREFIX MODULES...: GRUB's stages for a BIOS, in "$work".
grub_bios() {
    prefix=$1
    shift
    cp -r "$root/usr/lib/grub/i386-pc" "$root/boot/grub/"
    chroot "$root" grub-mkimage -O i386-pc -o /tmp/core.img -p "$prefix" biosdisk "$@"
    cp "$root/tmp/core.img" "$root/usr/lib/grub/i386-pc/boot.img" "$work/"
    rm -f "$root/tmp/core.img"
}

# grub_uefi PREFIX: shim and the signed GRUB, in "$work/esp"; the folder as GRUB sees it on the file system "$search".
grub_uefi() {
    mkdir -p "$root/boot/efi" "$work/esp/EFI/debian"
    cp "$root/usr/lib/shim/shimx64.efi.signed" "$work/esp/EFI/debian/shimx64.efi"
    cp "$root/usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed" "$work/esp/EFI/debian/grubx64.efi"
    printf 'search.fs_uuid %s root\nset prefix=($root)%s\nconfigfile $prefix/grub.cfg\n' "$search" "$1" \
        >"$work/esp/EFI/debian/grub.cfg"
}

# ---- its disks, "$disk" and "$second"

# put FILE AT-MIB
put() { $as_root dd if="$1" of="$disk" bs=1M seek="$2" conv=notrunc,sparse status=none; }

# GRUB's first stage into the MBR of a disk, its core image into the gap behind it.
grub_in_gap() {
    dd if="$work/boot.img" of="$1" bs=1 count=440 conv=notrunc status=none
    dd if="$work/core.img" of="$1" bs=512 seek=1 conv=notrunc status=none
}

# One file system on ext4 on a disk with an MBR, GRUB in the gap.
one_partition() {
    truncate -s 4G "$disk"
    echo '2048,,83,*' | sfdisk --quiet "$disk"
    truncate -s 4095M "$work/part.img"
    $as_root mkfs.ext4 -q -F -U "$root_uuid" -d "$root" "$work/part.img"
    grub_in_gap "$disk"
    put "$work/part.img" 1
}

# esp MIB: the EFI system partition with all of "$work/esp".
esp() {
    truncate -s "${1}M" "$work/esp.img"
    mkfs.vfat -F 32 "$work/esp.img" >/dev/null
    for entry in "$work/esp"/*; do mcopy -s -i "$work/esp.img" "$entry" ::; done
}

# slash_boot MIB: a file system of its own for /boot, whose files leave the tree.
slash_boot() {
    truncate -s "${1}M" "$work/slash-boot.img"
    $as_root mkfs.ext4 -q -F -U "$boot_uuid" -d "$root/boot" "$work/slash-boot.img"
    $as_root find "$root/boot" -mindepth 1 -maxdepth 1 -not -name efi -exec rm -rf {} +
}

# mounted IMAGE FUNCTION: calls it with the folder where the image is mounted.
mounted() {
    mkdir -p "$work/mnt"
    $as_root mount -o loop "$1" "$work/mnt"
    "$2" "$work/mnt"
    $as_root umount "$work/mnt"
}

# group FILE-MIB ROOT-MIB ROOT-IMAGE: a file "$work/pv.img" with the volume group vg0 and in it root, from 1 MiB on, and swap
# (256 MiB). Made without device-mapper: the volumes lie one behind the other.
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

# ---- its definition

definition() {
    cat <<END
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
END
    [ ! -e "$second" ] || cat <<END
scsi0:1.present = "TRUE"
scsi0:1.deviceType = "scsi-hardDisk"
scsi0:1.fileName = "${name}_1.vmdk"
END
    [ -z "$more" ] || echo "$more"
    card 0 40 192
    [ "$nics" = 1 ] || card 1 41 224
}

# card NUMBER LAST-OCTET SLOT
card() {
    cat <<END
ethernet$1.present = "TRUE"
ethernet$1.virtualDev = "vmxnet3"
ethernet$1.addressType = "static"
ethernet$1.address = "00:50:56:20:30:$2"
ethernet$1.networkName = "VM Network"
ethernet$1.pciSlotNumber = "$3"
END
}
