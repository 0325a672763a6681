# BIOS, MBR, GRUB, /boot on ext4, / on a thin logical volume that shares its pool with a snapshot of it, ifupdown; fstab names /dev/sda1
# and /dev/mapper/vg0-root.
packages=ifupdown,grub-pc,lvm2,thin-provisioning-tools
fstab='/dev/mapper/vg0-root	/	ext4	errors=remount-ro	0	1
/dev/sda1	/boot	ext4	defaults	0	2'
modules='ext4 dm_mod dm_thin_pool sd_mod vmw_pvscsi vmxnet3'
root_device=/dev/mapper/vg0-root
search=$boot_uuid

inside() {
    static_ifupdown
    grub_config '' 'insmod part_msdos\ninsmod ext2'
    grub_bios '(hd0,msdos1)/grub' part_msdos ext2
}

disks() {
    truncate -s 4G "$disk"
    printf '%s\n' '2048,1048576,83,*' ',,8e' | sfdisk --quiet "$disk"
    grub_in_gap "$disk"
    slash_boot 512
    put "$work/slash-boot.img" 1
    truncate -s 3G "$work/root.img"
    $as_root mkfs.ext4 -q -F -U "$root_uuid" -d "$root" "$work/root.img"
    pool
    put "$work/pv.img" 513
}

# A file "$work/pv.img" with the volume group vg0: a pool of 3 GiB in chunks of 64 KiB, and in it root (3 GiB) and snap, which has the
# same blocks. Made without device-mapper: the metadata is written as lvm2's backup and as XML of thin-provisioning-tools. Only chunks
# with content are mapped, the last one of the volume to the first one of the pool.
pool() {
    truncate -s 3582M "$work/pv.img"
    loop=$($as_root losetup -f --show "$work/pv.img")
    pv_uuid=$(lvm_uuid)
    python3 - "$work" "$pv_uuid" <<'END'
import sys, uuid
work, pv = sys.argv[1:]
CHUNK, COUNT, EXTENT = 64 << 10, 49152, 4 << 20
# An extent is 4 MiB. Data from the first one on, then metadata and the spare for it.
lv = lambda: '-'.join(part for part in cut(uuid.uuid4().hex))
def cut(text):
    for size in (6, 4, 4, 4, 4, 4, 6):
        yield text[:size]
        text = text[size:]
def volume(name, flags, start, extents, segment):
    return f'''  {name} {{
   id = "{lv()}"
   status = ["READ", {flags}]
   flags = []
   creation_time = 1700000000
   creation_host = "web01"
   segment_count = 1
   segment1 {{
    start_extent = 0
    extent_count = {extents}
    {segment}
   }}
  }}
'''
plain = lambda at: f'type = "striped"\n    stripe_count = 1\n    stripes = ["pv0", {at}]'
pool = '''type = "thin-pool"
    metadata = "pool_tmeta"
    pool = "pool_tdata"
    transaction_id = 2
    chunk_size = 128
    discards = "passdown"
    zero_new_blocks = 1'''
thin = lambda number, more: f'type = "thin"\n    thin_pool = "pool"\n    transaction_id = {number - 1}\n    device_id = {number}{more}'
volumes = (volume('pool', '"VISIBLE", "WRITE"', 0, 768, pool)
    + volume('root', '"VISIBLE", "WRITE"', 0, 768, thin(1, ''))
    + volume('snap', '"VISIBLE", "WRITE"', 0, 768, thin(2, '\n    origin = "root"')).replace('flags = []', 'flags = ["ACTIVATION_SKIP"]')
    + volume('pool_tdata', '"WRITE"', 0, 768, plain(0))
    + volume('pool_tmeta', '"WRITE"', 0, 4, plain(768))
    + volume('lvol0_pmspare', '"WRITE"', 0, 4, plain(772)))
with open(f'{work}/vg0.backup', 'w') as file:
    file.write(f'''contents = "Text Format Volume Group"
version = 1
vg0 {{
 id = "{lv()}"
 seqno = 1
 format = "lvm2"
 status = ["RESIZEABLE", "READ", "WRITE"]
 flags = []
 extent_size = 8192
 max_lv = 0
 max_pv = 0
 metadata_copies = 0
 physical_volumes {{
  pv0 {{
   id = "{pv}"
   device = "/dev/sda2"
   status = ["ALLOCATABLE"]
   flags = []
   dev_size = 7335936
   pe_start = 2048
   pe_count = 895
  }}
 }}
 logical_volumes {{
{volumes} }}
}}
''')
used = []
with open(f'{work}/root.img', 'rb') as image, open(f'{work}/pv.img', 'r+b') as out:
    for chunk in range(COUNT):
        image.seek(chunk * CHUNK)
        if any(image.read(CHUNK)):
            used.append(chunk)
    for place, chunk in enumerate(reversed(used)):
        image.seek(chunk * CHUNK)
        out.seek((1 << 20) + place * CHUNK)
        out.write(image.read(CHUNK))
single = ''.join(f'  <single_mapping origin_block="{chunk}" data_block="{len(used) - 1 - at}" time="0"/>\n' for at, chunk in enumerate(used))
device = lambda number: (f' <device dev_id="{number}" mapped_blocks="{len(used)}" transaction="{number - 1}" creation_time="0" snap_time="1">\n'
    f'{single} </device>\n')
with open(f'{work}/pool.xml', 'w') as file:
    file.write(f'<superblock uuid="" time="1" transaction="2" data_block_size="128" nr_data_blocks="{COUNT}">\n{device(1)}{device(2)}</superblock>\n')
END
    lvm pvcreate -ff -y --uuid "$pv_uuid" --restorefile "$work/vg0.backup" "$loop"
    lvm vgcfgrestore --force -y -f "$work/vg0.backup" vg0
    $as_root losetup -d "$loop"
    loop=''
    truncate -s 16M "$work/root/tmp/pool"
    $as_root mv "$work/pool.xml" "$work/root/tmp/pool.xml"
    $as_root chroot "$root" thin_restore -q -i /tmp/pool.xml -o /tmp/pool
    dd if="$root/tmp/pool" of="$work/pv.img" bs=1M seek=3073 conv=notrunc status=none
}

# An identifier as lvm2 writes it.
lvm_uuid() { uuid | tr -d - | sed 's/^\(.\{6\}\)\(....\)\(....\)\(....\)\(....\)\(....\)\(.*\)$/\1-\2-\3-\4-\5-\6-\7/'; }
