# BIOS, MBR, GRUB, one ext4 partition, ifupdown; fstab and the kernel's command line name /dev/sda1.
packages=ifupdown,grub-pc
fstab='/dev/sda1	/	ext4	errors=remount-ro	0	1'
modules='ext4 sd_mod vmw_pvscsi vmxnet3'
root_device=/dev/sda1
search=$root_uuid

inside() {
    static_ifupdown
    grub_config /boot 'insmod part_msdos\ninsmod ext2'
    grub_bios '(hd0,msdos1)/boot/grub' part_msdos ext2
}

disks() {
    truncate -s 4G "$disk"
    echo '2048,,83,*' | sfdisk --quiet "$disk"
    truncate -s 4095M "$work/part.img"
    $as_root mkfs.ext4 -q -F -U "$root_uuid" -d "$root" "$work/part.img"
    grub_in_gap "$disk"
    put "$work/part.img" 1
}
