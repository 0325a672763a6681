# BIOS, MBR, GRUB, one ext4 partition, netplan with systemd-networkd; fstab and the kernel's command line name /dev/sda1.
packages=netplan.io,grub-pc
fstab='/dev/sda1	/	ext4	errors=remount-ro	0	1'
modules='ext4 sd_mod vmw_pvscsi vmxnet3'
root_device=/dev/sda1
search=$root_uuid

inside() {
    printf '%s\n' 'network:' '  version: 2' '  renderer: networkd' '  ethernets:' '    ens192:' \
        '      addresses: [10.20.30.40/24]' >"$root/etc/netplan/01-netcfg.yaml"
    chmod 600 "$root/etc/netplan/01-netcfg.yaml"
    chroot "$root" systemctl enable systemd-networkd
    grub_config /boot 'insmod part_msdos\ninsmod ext2'
    grub_bios '(hd0,msdos1)/boot/grub' part_msdos ext2
}

disks() { one_partition; }
