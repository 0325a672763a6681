# BIOS, GPT with a BIOS boot partition, /boot on ext4, / and swap on LVM, /srv on a second disk; fstab names /dev/sda2,
# /dev/dm-1 and /dev/sdb1; multipathd takes every disk that says who it is; the second of two kernels is the default; netplan;
# a second network card with DHCP; the first disk is a streamOptimized VMDK, the second one is split.
packages=netplan.io,grub-pc,lvm2,multipath-tools,multipath-tools-boot,linux-image-cloud-amd64
fstab='/dev/mapper/vg0-root	/	ext4	errors=remount-ro	0	1
/dev/sda2	/boot	ext4	defaults	0	2
/dev/sdb1	/srv	ext4	defaults	0	2
/dev/dm-1	none	swap	sw	0	0'
modules='ext4 dm_mod sd_mod vmw_pvscsi vmxnet3'
root_device=/dev/mapper/vg0-root
search=$boot_uuid
default=1
nics=2
subformat=streamOptimized

inside() {
    printf '%s\n' 'network:' '  version: 2' '  renderer: networkd' '  ethernets:' '    ens192:' \
        '      addresses: [10.20.30.40/24]' '    ens224:' '      dhcp4: true' >"$root/etc/netplan/01-netcfg.yaml"
    chmod 600 "$root/etc/netplan/01-netcfg.yaml"
    # Greedy, as before find_multipaths: one path makes a map.
    printf '%s\n' 'defaults {' '	find_multipaths no' '	user_friendly_names yes' '}' >"$root/etc/multipath.conf"
    chroot "$root" systemctl enable systemd-networkd multipathd
    chroot "$root" update-initramfs -u -k all
    grub_config '' 'insmod part_gpt\ninsmod ext2'
    grub_bios '(hd0,gpt2)/grub' part_gpt ext2
}

disks() {
    truncate -s 4G "$disk"
    printf '%s\n' 'label: gpt' '2048,2048,21686148-6449-6E6F-744E-656564454649' ',1048576,L' \
        ',,E6D6D379-F507-44C2-A23C-238F2A3DF928' | sfdisk --quiet "$disk"
    # GRUB's first stage is told where its core image lies (sector 2048), and that where its rest does.
    dd if="$work/boot.img" of="$disk" bs=1 count=440 conv=notrunc status=none
    put "$work/core.img" 1
    printf '\0\010' | dd of="$disk" bs=1 seek=92 conv=notrunc status=none
    printf '\001\010' | dd of="$disk" bs=1 seek=$((2048 * 512 + 500)) conv=notrunc status=none
    slash_boot 512
    put "$work/slash-boot.img" 2
    truncate -s 3G "$work/root.img"
    $as_root mkfs.ext4 -q -F -U "$root_uuid" -d "$root" "$work/root.img"
    group 3580 3072 "$work/root.img"
    put "$work/pv.img" 514
    truncate -s 64M "$second"
    echo '2048,,83' | sfdisk --quiet "$second"
    truncate -s 63M "$work/srv.img"
    mkfs.ext4 -q -F "$work/srv.img"
    dd if="$work/srv.img" of="$second" bs=1M seek=1 conv=notrunc,sparse status=none
}
