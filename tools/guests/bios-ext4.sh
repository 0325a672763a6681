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

disks() { one_partition; }
