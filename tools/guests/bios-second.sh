# BIOS, two disks with MBR, of which the second one has GRUB and / on ext4 and the first one has data and no boot code, ifupdown;
# fstab and the kernel's command line name /dev/sdb1 and /dev/sda1.
packages=ifupdown,grub-pc
fstab='/dev/sdb1	/	ext4	errors=remount-ro	0	1
/dev/sda1	/srv	ext4	defaults	0	2'
modules='ext4 sd_mod vmw_pvscsi vmxnet3'
root_device=/dev/sdb1
search=$root_uuid
more='bios.hddOrder = "scsi0:1"'

inside() {
    static_ifupdown
    grub_config /boot 'insmod part_msdos\ninsmod ext2'
    grub_bios '(hd0,msdos1)/boot/grub' part_msdos ext2
}

disks() {
    one_partition
    mv "$disk" "$second"
    truncate -s 64M "$disk" "$work/srv.img"
    echo '2048,,83' | sfdisk --quiet "$disk"
    truncate -s 63M "$work/srv.img"
    mkfs.ext4 -q -F "$work/srv.img"
    put "$work/srv.img" 1
}
