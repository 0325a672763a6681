# BIOS, MBR, GRUB, one ext4 partition; netplan with systemd-networkd: two cards in a bond, a VLAN on it with the address; fstab and
# the kernel's command line name /dev/sda1.
packages=netplan.io,grub-pc
fstab='/dev/sda1	/	ext4	errors=remount-ro	0	1'
modules='ext4 sd_mod vmw_pvscsi vmxnet3'
root_device=/dev/sda1
search=$root_uuid
nics=2

inside() {
    cat >"$root/etc/netplan/01-netcfg.yaml" <<END
network:
  version: 2
  renderer: networkd
  ethernets:
    ens192: {}
    ens224: {}
  bonds:
    bond0:
      interfaces: [ens192, ens224]
      parameters: {mode: active-backup, mii-monitor-interval: 100, primary: ens192}
  vlans:
    vlan20:
      id: 20
      link: bond0
      addresses: [10.20.30.40/24]
      nameservers: {addresses: [10.20.30.2], search: [home.example]}
      routes:
        - {to: default, via: 10.20.30.1}
END
    chmod 600 "$root/etc/netplan/01-netcfg.yaml"
    chroot "$root" systemctl enable systemd-networkd
    grub_config /boot 'insmod part_msdos\ninsmod ext2'
    grub_bios '(hd0,msdos1)/boot/grub' part_msdos ext2
}

disks() { one_partition; }
