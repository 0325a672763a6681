# UEFI, GPT, an ESP without fallback loader, shim and signed GRUB, /boot on ext4, / on ext4 in LUKS2 (argon2id), opened by a key file in the
# initramfs; systemd-networkd; fstab, crypttab and the kernel's command line name /dev/sda1, sda2, sda3. The passphrase is in
# NAME.key beside the disk.
packages=grub-efi-amd64-signed,shim-signed,grub-efi-amd64,cryptsetup-initramfs,cryptsetup
firmware=efi
fstab='/dev/mapper/root_crypt	/	ext4	errors=remount-ro	0	1
/dev/sda2	/boot	ext4	defaults	0	2
/dev/sda1	/boot/efi	vfat	umask=0077	0	1'
modules='ext4 dm_mod dm_crypt xts aes_generic sha256_generic sd_mod vmw_pvscsi vmxnet3'
root_device='/dev/mapper/root_crypt cryptopts=target=root_crypt,source=/dev/sda3,key=/cryptroot/keyfiles/root_crypt.key'
search=$boot_uuid

inside() {
    printf '%s\n' '[Match]' 'Name=ens192' '' '[Network]' 'Address=10.20.30.40/24' >"$root/etc/systemd/network/10-lan.network"
    chroot "$root" systemctl enable systemd-networkd
    printf 'root_crypt	/dev/sda3	/etc/keys/root_crypt.key	luks,initramfs\n' >"$root/etc/crypttab"
    mkdir -m 700 "$root/etc/keys"
    head -c 30 /dev/urandom | base64 -w0 >"$root/etc/keys/root_crypt.key"
    cp "$root/etc/keys/root_crypt.key" "$work/key"
    echo 'CRYPTSETUP=y' >>"$root/etc/cryptsetup-initramfs/conf-hook"
    echo 'UMASK=0077' >>"$root/etc/initramfs-tools/initramfs.conf"
    printf '%s\n' '#!/bin/sh' '[ "$1" != prereqs ] || exit 0' 'mkdir -m 700 -p "$DESTDIR/cryptroot/keyfiles"' \
        'cp /etc/keys/root_crypt.key "$DESTDIR/cryptroot/keyfiles/"' >"$root/etc/initramfs-tools/hooks/root-key"
    chmod +x "$root/etc/initramfs-tools/hooks/root-key"
    chroot "$root" update-initramfs -u -k all
    grub_config '' 'insmod part_gpt\ninsmod ext2'
    grub_uefi /grub
}

disks() {
    truncate -s 4G "$disk"
    printf '%s\n' 'label: gpt' '2048,131072,U' ',1048576,L' ',,CA7D7CCB-63ED-4C53-861C-1742536059CC' | sfdisk --quiet "$disk"
    esp 64
    put "$work/esp.img" 1
    slash_boot 512
    put "$work/slash-boot.img" 65
    truncate -s 2000M "$work/luks.img"
    $as_root mkfs.ext4 -q -F -U "$root_uuid" -d "$root" "$work/luks.img"
    # Encrypted in its place, without the kernel's dm-crypt; the file system moves by 16 MiB to make room for the header.
    truncate -s 2032M "$work/luks.img"
    cryptsetup reencrypt --encrypt --type luks2 --reduce-device-size 32M --resilience none --key-file "$work/key" -q \
        --pbkdf argon2id --pbkdf-memory 65536 --pbkdf-force-iterations 4 "$work/luks.img"
    put "$work/luks.img" 577
    cp "$work/key" "$folder/$name.key"
}
