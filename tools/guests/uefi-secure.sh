# UEFI with secure boot enforced, GPT, an ESP without fallback loader, shim and signed GRUB, / on ext4, ifupdown; fstab and the
# kernel's command line name /dev/sda1 and /dev/sda2.
packages=ifupdown,grub-efi-amd64-signed,shim-signed,grub-efi-amd64
firmware=efi
fstab='/dev/sda2	/	ext4	errors=remount-ro	0	1
/dev/sda1	/boot/efi	vfat	umask=0077	0	1'
modules='ext4 sd_mod vmw_pvscsi vmxnet3'
root_device=/dev/sda2
search=$root_uuid
more='uefi.secureBoot.enabled = "TRUE"'

inside() {
    static_ifupdown
    grub_config /boot 'insmod part_gpt\ninsmod ext2'
    grub_uefi /boot/grub
}

disks() {
    truncate -s 3G "$disk"
    printf '%s\n' 'label: gpt' '2048,131072,U' ',,L' | sfdisk --quiet "$disk"
    esp 64
    put "$work/esp.img" 1
    truncate -s 3006M "$work/part.img"
    $as_root mkfs.ext4 -q -F -U "$root_uuid" -d "$root" "$work/part.img"
    put "$work/part.img" 65
}
