# UEFI, GPT, systemd-boot without fallback loader, kernel and initramfs in one image (UKI) on the ESP, / on ext4, systemd-networkd; the
# image's own parameters name the root by UUID, fstab names /dev/sda1 and /dev/sda2.
packages=systemd-boot-efi,systemd-ukify,dosfstools
firmware=efi
fstab='/dev/sda2	/	ext4	errors=remount-ro	0	1
/dev/sda1	/boot/efi	vfat	umask=0077	0	1'
modules='ext4 sd_mod vmw_pvscsi vmxnet3'
alone=''

inside() {
    printf '%s\n' '[Match]' 'Name=ens192' '' '[Network]' 'Address=10.20.30.40/24' >"$root/etc/systemd/network/10-lan.network"
    chroot "$root" systemctl enable systemd-networkd
    mkdir -p "$root/etc/kernel" "$root/boot/efi" "$work/esp/EFI/systemd" "$work/esp/EFI/Linux" "$work/esp/loader"
    echo 'layout=uki' >"$root/etc/kernel/install.conf"
    echo "root=UUID=$root_uuid ro console=tty0 console=ttyS0,115200" >"$root/etc/kernel/cmdline"
    cp "$root/usr/lib/systemd/boot/efi/systemd-bootx64.efi" "$work/esp/EFI/systemd/"
    printf '%s\n' 'timeout 1' 'console-mode keep' >"$work/esp/loader/loader.conf"
    for version in $(kernels); do
        chroot "$root" ukify build --linux="/boot/vmlinuz-$version" --initrd="/boot/initrd.img-$version" --uname="$version" \
            --os-release=@/etc/os-release --cmdline=@/etc/kernel/cmdline --output=/tmp/uki.efi
        mv "$root/tmp/uki.efi" "$work/esp/EFI/Linux/debian-$version.efi"
    done
    [ -z "$alone" ] || {
        mkdir "$work/esp/EFI/BOOT"
        mv "$work/esp/EFI/Linux/debian-$version.efi" "$work/esp/EFI/BOOT/BOOTX64.EFI"
        rm -r "$work/esp/EFI/systemd" "$work/esp/EFI/Linux" "$work/esp/loader"
    }
}

disks() {
    truncate -s 3G "$disk"
    printf '%s\n' 'label: gpt' '2048,524288,U' ',,L' | sfdisk --quiet "$disk"
    esp 256
    put "$work/esp.img" 1
    truncate -s 2814M "$work/part.img"
    $as_root mkfs.ext4 -q -F -U "$root_uuid" -d "$root" "$work/part.img"
    put "$work/part.img" 257
}
