# BIOS, MBR, extlinux, one ext4 partition, ifupdown; fstab and the kernel's command line name /dev/sda1.
packages=ifupdown,extlinux,syslinux-common
fstab='/dev/sda1	/	ext4	errors=remount-ro	0	1'
modules='ext4 sd_mod vmw_pvscsi vmxnet3'
root_device=/dev/sda1

inside() {
    static_ifupdown
    mkdir -p "$root/boot/extlinux"
    {
        printf '%s\n' 'DEFAULT l0' 'PROMPT 1' 'TIMEOUT 10' 'SERIAL 0 115200'
        number=0
        for version in $(kernels); do
            printf '\nLABEL l%s\n\tMENU LABEL Debian GNU/Linux, kernel %s\n' "$number" "$version"
            printf '\tLINUX /boot/vmlinuz-%s\n\tINITRD /boot/initrd.img-%s\n' "$version" "$version"
            printf '\tAPPEND root=%s ro console=tty0 console=ttyS0,115200\n' "$root_device"
            number=$((number + 1))
        done
    } >"$root/boot/extlinux/extlinux.conf"
}

disks() {
    truncate -s 3G "$disk"
    echo '2048,,83,*' | sfdisk --quiet "$disk"
    truncate -s 3071M "$work/part.img"
    # extlinux reads no ext4 with these.
    $as_root mkfs.ext4 -q -F -U "$root_uuid" -O ^64bit,^metadata_csum -d "$root" "$work/part.img"
    mounted "$work/part.img" extlinux
    dd if="$root/usr/lib/EXTLINUX/mbr.bin" of="$disk" bs=1 count=440 conv=notrunc status=none
    put "$work/part.img" 1
}

# It looks for its device among the mounts of the host; with the guest's own libraries.
extlinux() {
    $as_root "$root/lib64/ld-linux-x86-64.so.2" --library-path "$root/lib/x86_64-linux-gnu" "$root/usr/bin/extlinux" \
        --install "$1/boot/extlinux" >>"$log" 2>&1
}
