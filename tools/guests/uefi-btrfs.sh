# UEFI, GPT, systemd-boot without fallback loader, its kernel and initramfs on the ESP, btrfs with the subvolumes @ and @home
# and a snapshot that looks like a root, dracut, NetworkManager; fstab and the boot entry name /dev/sda1 and /dev/sda2.
packages=network-manager,dracut,btrfs-progs,systemd-boot-efi,dosfstools
generator=dracut
firmware=efi
fstab='/dev/sda2	/	btrfs	subvol=@	0	0
/dev/sda2	/home	btrfs	subvol=@home	0	0
/dev/sda1	/boot/efi	vfat	umask=0077	0	1'
modules='btrfs sd_mod vmw_pvscsi vmxnet3'
root_device=/dev/sda2

inside() {
    folder=$root/etc/NetworkManager/system-connections
    printf '%s\n' '[connection]' 'id=lan' 'uuid=5a1d3f0a-4f0f-4f53-9a53-5b1a6f7c2c10' 'type=ethernet' 'interface-name=ens192' '' \
        '[ipv4]' 'method=manual' 'address1=10.20.30.40/24' '' '[ipv6]' 'method=ignore' >"$folder/lan.nmconnection"
    chmod 600 "$folder/lan.nmconnection"
    chroot "$root" systemctl enable NetworkManager
    mkdir -p "$work/esp/EFI/systemd" "$work/esp/loader/entries"
    cp "$root/usr/lib/systemd/boot/efi/systemd-bootx64.efi" "$work/esp/EFI/systemd/"
    printf '%s\n' 'timeout 1' 'console-mode keep' 'default debian-*' >"$work/esp/loader/loader.conf"
    for version in $(kernels); do
        mkdir -p "$work/esp/debian/$version"
        cp "$root/boot/vmlinuz-$version" "$work/esp/debian/$version/linux"
        cp "$root/boot/initrd.img-$version" "$work/esp/debian/$version/initrd.img-$version"
        printf '%s\n' 'title      Debian GNU/Linux' "version    $version" \
            "options    root=$root_device rootfstype=btrfs rootflags=subvol=@ ro console=tty0 console=ttyS0,115200" \
            "linux      /debian/$version/linux" "initrd     /debian/$version/initrd.img-$version" \
            >"$work/esp/loader/entries/debian-$version.conf"
    done
    rm -f "$root"/boot/initrd.img-*
    mkdir -p "$root/boot/efi"
}

disks() {
    truncate -s 4G "$disk"
    printf '%s\n' 'label: gpt' '2048,524288,U' ',,L' | sfdisk --quiet "$disk"
    esp 256
    put "$work/esp.img" 1
    truncate -s 3838M "$work/btrfs.img"
    $as_root mkfs.btrfs -q -U "$root_uuid" "$work/btrfs.img"
    mounted "$work/btrfs.img" subvolumes
    put "$work/btrfs.img" 257
}

subvolumes() {
    for subvolume in @ @home; do $as_root btrfs -q subvolume create "$1/$subvolume"; done
    $as_root cp -a "$root/." "$1/@/"
    $as_root mkdir -p "$1/@/.snapshots/1"
    $as_root btrfs -q subvolume snapshot -r "$1/@" "$1/@/.snapshots/1/snapshot"
}
