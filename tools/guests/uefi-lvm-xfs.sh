# UEFI, GPT, an ESP without fallback loader, shim and signed GRUB, /boot on ext4, / on XFS on LVM, swap on LVM, ifupdown;
# fstab names /dev/sda1 and /dev/sda2.
packages=ifupdown,grub-efi-amd64-signed,shim-signed,grub-efi-amd64,lvm2,xfsprogs
firmware=efi
fstab='/dev/mapper/vg0-root	/	xfs	defaults	0	0
/dev/sda2	/boot	ext4	defaults	0	2
/dev/sda1	/boot/efi	vfat	umask=0077	0	1
/dev/mapper/vg0-swap	none	swap	sw	0	0'
modules='xfs ext4 dm_mod sd_mod vmw_pvscsi vmxnet3'
root_device=/dev/mapper/vg0-root
search=$boot_uuid

inside() {
    static_ifupdown
    grub_config '' 'insmod part_gpt\ninsmod ext2'
    grub_uefi /grub
}

disks() {
    truncate -s 6G "$disk"
    printf '%s\n' 'label: gpt' '2048,131072,U' ',1048576,L' ',,E6D6D379-F507-44C2-A23C-238F2A3DF928' | sfdisk --quiet "$disk"
    esp 64
    put "$work/esp.img" 1
    slash_boot 512
    put "$work/slash-boot.img" 65
    truncate -s 4G "$work/xfs.img"
    mkfs.xfs -q -m uuid="$root_uuid" "$work/xfs.img"
    mounted "$work/xfs.img" copy_root
    group 5500 4096 "$work/xfs.img"
    put "$work/pv.img" 577
}

copy_root() { $as_root cp -a "$root/." "$1/"; }
