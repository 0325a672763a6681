# BIOS, MBR, GRUB, one btrfs partition with / in the subvolume @, /boot with GRUB's files in @boot and a snapshot of each that looks
# like the one in use, ifupdown; fstab and the kernel's command line name /dev/sda1.
packages=ifupdown,grub-pc,btrfs-progs
fstab='/dev/sda1	/	btrfs	subvol=@	0	0
/dev/sda1	/boot	btrfs	subvol=@boot	0	0'
modules='crc32c_generic btrfs sd_mod vmw_pvscsi vmxnet3'
root_device='/dev/sda1 rootflags=subvol=@'
search=$root_uuid

inside() {
    static_ifupdown
    grub_config /@boot 'insmod part_msdos\ninsmod btrfs'
    grub_bios '(hd0,msdos1)/@boot/grub' part_msdos btrfs
}

disks() {
    truncate -s 3G "$disk"
    echo '2048,,83,*' | sfdisk --quiet "$disk"
    truncate -s 3071M "$work/part.img"
    $as_root mkfs.btrfs -q -U "$root_uuid" "$work/part.img"
    mounted "$work/part.img" subvolumes
    grub_in_gap "$disk"
    put "$work/part.img" 1
}

subvolumes() {
    for subvolume in @ @boot @snapshots; do $as_root btrfs -q subvolume create "$1/$subvolume"; done
    $as_root cp -a "$root/boot/." "$1/@boot/"
    $as_root find "$root/boot" -mindepth 1 -maxdepth 1 -exec rm -rf {} +
    $as_root cp -a "$root/." "$1/@/"
    for subvolume in @ @boot; do $as_root btrfs -q subvolume snapshot -r "$1/$subvolume" "$1/@snapshots/$subvolume"; done
}
