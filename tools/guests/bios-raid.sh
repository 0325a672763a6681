# BIOS, two disks with MBR and GRUB on both, / on ext4 on an md RAID1 of their first partitions, ifupdown; fstab and the kernel's
# command line name /dev/md0, mdadm.conf looks at /dev/sda1 and /dev/sdb1 only.
packages=ifupdown,grub-pc,mdadm
fstab='/dev/md0	/	ext4	errors=remount-ro	0	1'
modules='ext4 md_mod raid1 sd_mod vmw_pvscsi vmxnet3'
root_device=/dev/md0
search=$root_uuid
array_uuid=${array_uuid:-$(uuid)}

inside() {
    static_ifupdown
    hex=$(echo "$array_uuid" | tr -d -)
    colons=$(echo "$hex" | sed 's/......../&:/g; s/:$//')
    printf '%s\n' 'DEVICE /dev/sda1 /dev/sdb1' 'HOMEHOST <system>' 'MAILADDR root' \
        "ARRAY /dev/md0 metadata=1.2 UUID=$colons name=$name:0" >"$root/etc/mdadm/mdadm.conf"
    chroot "$root" update-initramfs -u -k all
    grub_config /boot 'insmod part_msdos\ninsmod mdraid1x\ninsmod ext2'
    grub_bios "(mduuid/$hex)/boot/grub" part_msdos mdraid1x ext2
}

# The file system lies 1 MiB into each partition; the superblock (version 1.2) 4 KiB into it. Made without the kernel's md.
disks() {
    size=$((3 * 1024)) # MiB
    truncate -s $((size - 2))M "$work/fs.img"
    $as_root mkfs.ext4 -q -F -U "$root_uuid" -d "$root" "$work/fs.img"
    for number in 0 1; do
        image=$disk
        [ $number = 0 ] || image=$second
        truncate -s ${size}M "$image"
        echo '2048,,fd,*' | sfdisk --quiet "$image"
        grub_in_gap "$image"
        $as_root dd if="$work/fs.img" of="$image" bs=1M seek=2 conv=notrunc,sparse status=none
        python3 - "$image" $number $(((size - 2) * 2048)) "$array_uuid" "$name:0" <<'END'
import struct, sys, time, uuid
image, number, sectors, array, name = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], sys.argv[5]
# struct mdp_superblock_1 of Linux's include/uapi/linux/raid/md_p.h
now = int(time.time())
block = struct.pack('<IIII16s32sQIIQII', 0xa92b4efc, 1, 0, 0, uuid.UUID(array).bytes, name.encode(), now, 1, 0, sectors, 0, 2)
block = block.ljust(128, b'\0')
block += struct.pack('<QQQQII16sBBHI', 2048, sectors, 8, 0, number, 0, uuid.uuid4().bytes, 0, 0, 0, 0)
block = block.ljust(192, b'\0')
block += struct.pack('<QQQII', now, 17, 2**64 - 1, 0, 128)
block = block.ljust(256, b'\0')
block += struct.pack('<128H', 0, 1, *[0xffff] * 126)
total = sum(struct.unpack('<%dI' % (len(block) // 4), block))
total = (total & 0xffffffff) + (total >> 32)
block = block[:216] + struct.pack('<I', total & 0xffffffff) + block[220:]
with open(image, 'r+b') as file:
    file.seek(2048 * 512 + 4096)
    file.write(block)
END
    done
}
