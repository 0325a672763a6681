#!/bin/sh
# What runs in the virtual machine of make-arrays.sh, as its first process. The disks come in the order of their
# targets; `disks=` on the command line names them: NAME.0,NAME.1,…
export PATH=/bin DM_DISABLE_UDEV=1
# The shell has lesser ones built in.
mke2fs() { /bin/mke2fs "$@"; }
e2fsck() { /bin/e2fsck "$@"; }
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
trap 'echo "FAILED: $step"; sync; poweroff -f' EXIT
step=modules
for module in virtio_pci virtio_scsi sd_mod ext4 md_mod raid1 raid0 raid10 raid456 linear dm_mod dm_crypt dm_raid dm_mirror dm_snapshot dm_thin_pool dm_cache dm_cache_smq xts aes_generic \
    aesni_intel sha256_generic ecb cbc essiv; do
    modprobe "$module" 2>/dev/null
done
argument() { tr ' ' '\n' < /proc/cmdline | sed -n "s/^$1=//p"; }
job=$(argument job)
names=$(argument disks | tr , ' ')
sleep 2

# node NAME.N: the device of that disk
node() {
    target=0
    for name in $names; do
        [ "$name" != "$1" ] || break
        target=$((target + 1))
    done
    ls /sys/bus/scsi/devices/*:0:"$target":0/block | sed 's|^|/dev/|'
}
has() { case " $names " in *" $1.0 "*) step=$1; return 0 ;; *) return 1 ;; esac; }
quiet() { "$@" > /tmp/log 2>&1 || { echo "FAILED ($step): $*"; cat /tmp/log; exit 1; }; }

# What is on every file system: three files with the fixture's name in them, one of them long.
content() { yes "$1 in the array" | head -c 3000000; }
fill() {
    quiet mke2fs -q -F -t ext4 -b 4096 "$2"
    mount -t ext4 "$2" /mnt || exit 1
    mkdir /mnt/etc
    echo "$1" > /mnt/etc/hostname
    content "$1" > /mnt/etc/data
    umount /mnt
}
# The same files on a file system that is there.
refill() {
    mount -t ext4 "$2" /mnt || exit 1
    echo "$1" > /mnt/etc/hostname
    content "$1" > /mnt/etc/data
    umount /mnt
}
members() {
    for disk in 0 1 2 3 4; do
        case " $names " in *" $1.$disk "*) node "$1.$disk" ;; esac
    done
}
create() {
    device=$1
    shift
    quiet mdadm --create "$device" --run --assume-clean --homehost=guest "$@"
    sleep 1
    mdev -s
}
stop() { sync; quiet mdadm --stop "$1"; }
partition() { echo "2048,,$2" | quiet sfdisk -q --no-reread --no-tell-kernel "$1"; quiet blockdev_reread "$1"; }
blockdev_reread() { busybox blockdev --rereadpt "$1"; sleep 1; mdev -s; }
lvm_() { quiet lvm "$@" --config 'activation{udev_sync=0 udev_rules=0 monitoring=0} global{use_lvmpolld=0 thin_check_executable="/bin/thin_check" cache_check_executable="/bin/cache_check"}'; }
active() { mdev -s; lvm vgmknodes > /dev/null 2>&1; }
format() { printf landfall > /tmp/key; quiet cryptsetup luksFormat -q --key-file /tmp/key --pbkdf pbkdf2 --pbkdf-force-iterations 1000 "$@"; }
unlock() { printf landfall > /tmp/key; quiet cryptsetup open --key-file /tmp/key "$1" "$2"; }
# All of a mirror is known to be alike: as many regions or sectors as there are.
synced() {
    for _ in $(seq 60); do
        dmsetup status "$1" | grep -qE ' ([0-9]+)/\1 ' && return 0
        sleep 1
    done
    dmsetup status
    return 1
}

make() {
    if has r1-12; then
        create /dev/md0 --name=0 --metadata=1.2 --level=1 --raid-devices=2 --bitmap=internal "$(node r1-12.0)" "$(node r1-12.1)"
        fill r1-12 /dev/md0
        stop /dev/md0
    fi
    # Whole disks: the partition table lies in the array.
    if has r1-10-disk; then
        create /dev/md1 --name=whole --metadata=1.0 --level=1 --raid-devices=2 "$(node r1-10-disk.0)" "$(node r1-10-disk.1)"
        partition /dev/md1 83
        fill r1-10-disk /dev/md1p1
        stop /dev/md1
    fi
    if has r1-090; then
        for disk in 0 1; do partition "$(node r1-090.$disk)" fd; done
        create /dev/md2 --metadata=0.90 --level=1 --raid-devices=2 "$(node r1-090.0)1" "$(node r1-090.1)1"
        fill r1-090 /dev/md2
        stop /dev/md2
    fi
    if has r0-12; then
        create /dev/md3 --name=3 --metadata=1.2 --level=0 --chunk=64 --raid-devices=2 "$(node r0-12.0)" "$(node r0-12.1)"
        fill r0-12 /dev/md3
        stop /dev/md3
    fi
    if has linear-090; then
        create /dev/md4 --metadata=0.90 --level=linear --raid-devices=2 "$(node linear-090.0)" "$(node linear-090.1)"
        fill linear-090 /dev/md4
        stop /dev/md4
    fi
    if has r10-12; then
        create /dev/md5 --name=5 --metadata=1.2 --level=10 --chunk=64 --raid-devices=3 "$(node r10-12.0)" "$(node r10-12.1)" "$(node r10-12.2)"
        fill r10-12 /dev/md5
        stop /dev/md5
    fi
    if has r10-four; then
        create /dev/md6 --name=6 --metadata=1.0 --level=10 --chunk=64 --raid-devices=4 \
            "$(node r10-four.0)" "$(node r10-four.1)" "$(node r10-four.2)" "$(node r10-four.3)"
        fill r10-four /dev/md6
        stop /dev/md6
    fi
    if has linear; then
        create /dev/md7 --name=7 --metadata=1.2 --level=linear --raid-devices=2 "$(node linear.0)" "$(node linear.1)"
        fill linear /dev/md7
        stop /dev/md7
    fi
    # The second disk fails, and the first goes on.
    if has stale; then
        create /dev/md8 --name=8 --metadata=1.2 --level=1 --raid-devices=2 --bitmap=internal "$(node stale.0)" "$(node stale.1)"
        fill stale-before /dev/md8
        quiet mdadm /dev/md8 --fail "$(node stale.1)"
        fill stale /dev/md8
        stop /dev/md8
    fi
    # Stopped while the second disk is filled.
    if has rebuilding; then
        echo 100 > /proc/sys/dev/raid/speed_limit_max
        echo 100 > /proc/sys/dev/raid/speed_limit_min
        create /dev/md9 --name=9 --metadata=1.2 --level=1 --raid-devices=2 --bitmap=none "$(node rebuilding.0)" missing
        fill rebuilding /dev/md9
        quiet mdadm /dev/md9 --add "$(node rebuilding.1)"
        sleep 4
        stop /dev/md9
        # The limits are the whole kernel's, and mirrored logical volumes are filled under them, too.
        echo 2000000 > /proc/sys/dev/raid/speed_limit_max
        echo 1000000 > /proc/sys/dev/raid/speed_limit_min
    fi
    for name in r5-ls r5-la r5-rs r5-ra r4 r6 r6-ra; do
        has "$name" || continue
        level=5 layout=''
        case $name in
            r5-ls) layout=--layout=ls ;;
            r5-la) layout=--layout=la ;;
            r5-rs) layout=--layout=rs ;;
            r5-ra) layout=--layout=ra ;;
            r4) level=4 ;;
            r6) level=6 ;;
            r6-ra) level=6 layout=--layout=ra ;;
        esac
        # shellcheck disable=SC2086,SC2046
        set -- $(members "$name")
        # Parity that is assumed to be right is not: the disks are empty, which is a sound stripe of any level.
        # shellcheck disable=SC2086
        create /dev/md20 --name="$name" --metadata=1.2 --level=$level $layout --chunk=64 --raid-devices=$# "$@"
        fill "$name" /dev/md20
        stop /dev/md20
    done
    # A volume with a snapshot that shares part of its blocks, and areas that nothing was written to.
    if has lvm-thin; then
        lvm_ pvcreate -q "$(node lvm-thin.0)"
        lvm_ vgcreate -q vg-thin "$(node lvm-thin.0)"
        lvm_ lvcreate -q -y --noudevsync --type thin-pool -c 64k -L 40M --poolmetadatasize 4M -n pool vg-thin
        lvm_ lvcreate -q -y --noudevsync -V 96M --thinpool pool -n root vg-thin
        active
        fill lvm-thin-before /dev/vg-thin/root
        lvm_ lvcreate -q -y --noudevsync -s -n snap vg-thin/root
        lvm_ lvchange -q -ay -K vg-thin/snap
        active
        refill lvm-thin /dev/vg-thin/root
        # More users of a block than two bits can count.
        for name in second third; do lvm_ lvcreate -q -y --noudevsync -s -n $name vg-thin/root; done
        refill lvm-thin /dev/vg-thin/root
        lvm_ vgchange -q -an vg-thin
    fi
    # Data in stripes, metadata mirrored, and a volume that begins as another one that is no part of the pool.
    if has lvm-thin-two; then
        lvm_ pvcreate -q "$(node lvm-thin-two.0)" "$(node lvm-thin-two.1)"
        lvm_ vgcreate -q vg-two "$(node lvm-thin-two.0)" "$(node lvm-thin-two.1)"
        lvm_ lvcreate -q -y --noudevsync -L 24M -n base vg-two
        active
        fill lvm-thin-two-before /dev/vg-two/base
        lvm_ lvchange -q -pr vg-two/base
        lvm_ lvchange -q -an vg-two/base
        lvm_ lvcreate -q -y --noudevsync --type thin-pool -i 2 -I 64k -c 128k -L 32M --poolmetadatasize 4M -n pool vg-two
        active
        lvm_ lvconvert -q -y --type raid1 -m 1 vg-two/pool_tmeta
        lvm_ lvcreate -q -y --noudevsync -s --thinpool pool -n root vg-two/base
        lvm_ lvchange -q -ay -K vg-two/root
        active
        refill lvm-thin-two /dev/vg-two/root
        synced vg--two-pool_tmeta
        lvm_ vgchange -q -an vg-two
    fi
    for level in 5 6; do
        name=lvm-raid$level
        has "$name" || continue
        # shellcheck disable=SC2046
        set -- $(members "$name")
        lvm_ pvcreate -q "$@"
        lvm_ vgcreate -q "vg-raid$level" "$@"
        lvm_ lvcreate -q -y --noudevsync --type "raid$level" -i $(($# - level + 4)) -I 64k -L 36M -n root "vg-raid$level"
        active
        fill "$name" "/dev/vg-raid$level/root"
        synced "vg--raid$level-root" || exit 1
        lvm_ vgchange -q -an "vg-raid$level"
    done
    # What was written last is in the cache alone.
    for kind in cache cachevol; do
        name=lvm-$kind
        has "$name" || continue
        group=vg-$kind
        lvm_ pvcreate -q "$(node "$name.0")" "$(node "$name.1")"
        lvm_ vgcreate -q "$group" "$(node "$name.0")" "$(node "$name.1")"
        lvm_ lvcreate -q -y --noudevsync -L 32M -n root "$group" "$(node "$name.0")"
        active
        fill "$name-before" "/dev/$group/root"
        if [ "$kind" = cache ]; then
            lvm_ lvcreate -q -y --noudevsync --type cache-pool -c 64k -L 16M --poolmetadatasize 8M -n fast "$group" "$(node "$name.1")"
            lvm_ lvconvert -q -y --type cache --cachemode writeback --cachepool fast "$group/root"
        else
            lvm_ lvcreate -q -y --noudevsync -L 32M -n fast "$group" "$(node "$name.1")"
            lvm_ lvconvert -q -y --type cache --cachemode writeback -c 64k --cachevol fast "$group/root"
        fi
        active
        refill "$name" "/dev/$group/root"
        for _ in 1 2 3; do refill "$name" "/dev/$group/root"; done
        dmsetup status "vg--$kind-root"
        lvm_ vgchange -q -an "$group"
    done
    for type in raid1 mirror; do
        has "lvm-$type" || continue
        lvm_ pvcreate -q "$(node lvm-$type.0)" "$(node lvm-$type.1)"
        lvm_ vgcreate -q "vg-$type" "$(node lvm-$type.0)" "$(node lvm-$type.1)"
        log=''
        [ "$type" != mirror ] || log='--mirrorlog core'
        # shellcheck disable=SC2086
        lvm_ lvcreate -q -y --noudevsync --type "$type" -m 1 $log -L 32M -n root "vg-$type"
        active
        fill "lvm-$type" "/dev/vg-$type/root"
        synced "vg--$type-root" || exit 1
        lvm_ vgchange -q -an "vg-$type"
    done
    if has lvm-on-md; then
        create /dev/md11 --name=root --metadata=1.2 --level=1 --raid-devices=2 "$(node lvm-on-md.0)" "$(node lvm-on-md.1)"
        lvm_ pvcreate -q /dev/md11
        lvm_ vgcreate -q vg-md /dev/md11
        lvm_ lvcreate -q -y --noudevsync -L 32M -n root vg-md
        active
        fill lvm-on-md /dev/vg-md/root
        lvm_ vgchange -q -an vg-md
        stop /dev/md11
    fi
    if has luks-on-lvm; then
        lvm_ pvcreate -q "$(node luks-on-lvm.0)"
        lvm_ vgcreate -q vg-plain "$(node luks-on-lvm.0)"
        lvm_ lvcreate -q -y --noudevsync -L 48M -n secret vg-plain
        active
        format --type luks2 /dev/vg-plain/secret
        unlock /dev/vg-plain/secret inner
        fill luks-on-lvm /dev/mapper/inner
        quiet cryptsetup close inner
        lvm_ vgchange -q -an vg-plain
    fi
    if has lvm-on-luks; then
        partition "$(node lvm-on-luks.0)" 83
        format --type luks2 --sector-size 4096 "$(node lvm-on-luks.0)1"
        unlock "$(node lvm-on-luks.0)1" outer
        lvm_ pvcreate -q /dev/mapper/outer
        lvm_ vgcreate -q vg-luks /dev/mapper/outer
        lvm_ lvcreate -q -y --noudevsync -L 24M -n root vg-luks
        active
        fill lvm-on-luks /dev/vg-luks/root
        lvm_ vgchange -q -an vg-luks
        quiet cryptsetup close outer
    fi
    if has luks1; then
        partition "$(node luks1.0)" 83
        format --type luks1 --cipher aes-cbc-essiv:sha256 --key-size 256 "$(node luks1.0)1"
        unlock "$(node luks1.0)1" old
        fill luks1 /dev/mapper/old
        quiet cryptsetup close old
    fi
}

# result NAME DEVICE [ARRAY]: whether mirrors are alike, the file system's state, and what is in its files
result() {
    differ=-
    if [ -n "${3:-}" ]; then
        action=/sys/block/$3/md/sync_action
        if [ -e "$action" ]; then
            for _ in $(seq 60); do grep -q idle "$action" && break; sleep 1; done
            echo check > "$action"
            sleep 1
            for _ in $(seq 120); do grep -q idle "$action" && break; sleep 1; done
            differ=$(cat "/sys/block/$3/md/mismatch_cnt")
        fi
    fi
    state=clean
    e2fsck -fn "$2" > /tmp/log 2>&1 || state=damaged
    [ "$state" = clean ] || cat /tmp/log
    hostname='' sum=''
    if mount -t ext4 -o ro "$2" /mnt; then
        hostname=$(head -n 1 /mnt/etc/hostname)
        sum=$(sha256sum < /mnt/etc/data | cut -c 1-16)
        umount /mnt
    fi
    echo "RESULT $1 mismatches=$differ fsck=$state hostname=$hostname data=$sum"
}

check() {
    echo 2000000 > /proc/sys/dev/raid/speed_limit_max
    number=100
    for fixture in r1-12: r1-10-disk:p1 r1-090: r0-12: linear-090: r10-12: r10-four: linear: stale: \
        r5-ls: r5-la: r5-rs: r5-ra: r4: r6: r6-ra:; do
        name=${fixture%:*}
        has "$name" || continue
        number=$((number + 1))
        devices=''
        for disk in 0 1 2 3 4; do
            case " $names " in *" $name.$disk "*) ;; *) continue ;; esac
            device=$(node "$name.$disk")
            [ "$name" != r1-090 ] || device=${device}1
            devices="$devices $device"
        done
        # shellcheck disable=SC2086
        quiet mdadm --assemble --run "/dev/md$number" $devices
        sleep 1
        mdev -s
        result "$name" "/dev/md$number${fixture#*:}" "md$number"
        stop "/dev/md$number"
    done
    if has lvm-on-md; then
        quiet mdadm --assemble --run /dev/md99 "$(node lvm-on-md.0)" "$(node lvm-on-md.1)"
        lvm_ vgchange -q -ay vg-md
        active
        result lvm-on-md /dev/vg-md/root md99
    fi
    for fixture in lvm-thin:vg-thin lvm-thin-two:vg-two; do
        name=${fixture%:*} group=${fixture#*:}
        has "$name" || continue
        # As it is, before the kernel has touched it.
        lvm_ lvchange -q -y -ay "$group/pool_tmeta"
        active
        books=clean
        thin_check "/dev/$group/pool_tmeta" > /tmp/log 2>&1 || { books=damaged; cat /tmp/log; }
        lvm_ lvchange -q -an "$group/pool_tmeta"
        echo "RESULT $name-pool books=$books"
        lvm_ vgchange -q -ay "$group"
        [ "$name" != lvm-thin ] || lvm_ lvchange -q -ay -K vg-thin/snap
        active
        result "$name" "/dev/$group/root"
        [ "$name" != lvm-thin ] || result lvm-thin-snap /dev/vg-thin/snap
        [ "$name" != lvm-thin-two ] || result lvm-thin-base /dev/vg-two/base
    done
    for kind in cache cachevol; do
        has "lvm-$kind" || continue
        lvm_ vgchange -q -ay "vg-$kind"
        active
        result "lvm-$kind" "/dev/vg-$kind/root"
    done
    for type in raid1 mirror raid5 raid6; do
        has "lvm-$type" || continue
        lvm_ vgchange -q -ay "vg-$type"
        active
        result "lvm-$type" "/dev/vg-$type/root"
        # The legs, byte by byte, where they can be compared.
        if [ "$type" != mirror ]; then
            synced "vg--$type-root"
            lvm_ lvchange -q --syncaction check "vg-$type/root"
            sleep 5
            echo "RESULT lvm-$type-legs mismatches=$(lvm lvs --noheadings -o raid_mismatch_count "vg-$type/root" 2>/dev/null | tr -d ' ')"
        fi
    done
    if has luks-on-lvm; then
        lvm_ vgchange -q -ay vg-plain
        active
        unlock /dev/vg-plain/secret inner
        result luks-on-lvm /dev/mapper/inner
    fi
    if has lvm-on-luks; then
        unlock "$(node lvm-on-luks.0)1" outer
        lvm_ vgchange -q -ay vg-luks
        active
        result lvm-on-luks /dev/vg-luks/root
    fi
    if has luks1; then
        unlock "$(node luks1.0)1" old
        result luks1 /dev/mapper/old
    fi
}

# Arrays of which some disks were written to and others were not, and now all are there: rejoin-NAME is made as NAME.
# What was left behind is added in the way that copies least, and must be like the rest afterwards; "alone" is what the
# last disk holds without the others.
rejoin() {
    for fixture in r1-12 r1-090 r10-four stale r5-ls r6; do
        name=rejoin-$fixture
        has "$name" || continue
        number=$((number + 1))
        array=/dev/md$number devices='' last=''
        for disk in 0 1 2 3; do
            case " $names " in *" $name.$disk "*) ;; *) continue ;; esac
            last=$(node "$name.$disk")
            [ "$fixture" != r1-090 ] || last=${last}1
            devices="$devices $last"
        done
        # shellcheck disable=SC2086
        quiet mdadm --assemble --run "$array" $devices
        added=none
        for device in $devices; do
            [ ! -e "/sys/block/md$number/md/dev-${device#/dev/}" ] || continue
            added=re-added
            mdadm --manage "$array" --re-add "$device" > /tmp/log 2>&1 ||
                { added=added; quiet mdadm --manage "$array" --add "$device"; }
        done
        sleep 1
        mdev -s
        echo "RESULT $name-way by=$added"
        result "$name" "$array" "md$number"
        stop "$array"
        case $fixture in r10-four | r5-ls | r6) continue ;; esac
        quiet mdadm --assemble --run "$array" "$last"
        result "$name-alone" "$array"
        stop "$array"
    done
    for type in raid1 raid5; do
        has "rejoin-lvm-$type" || continue
        lvm_ vgchange -q -ay "vg-$type"
        active
        synced "vg--$type-root"
        sleep 5
        dmsetup status "vg--$type-root"
        result "rejoin-lvm-$type" "/dev/vg-$type/root"
        lvm_ lvchange -q --syncaction check "vg-$type/root"
        sleep 5
        echo "RESULT rejoin-lvm-$type-legs mismatches=$(lvm lvs --noheadings -o raid_mismatch_count "vg-$type/root" 2>/dev/null | tr -d ' ')"
        lvm_ vgchange -q -an "vg-$type"
    done
}

mdev -s
if [ "$job" = check ]; then check; rejoin; else make; fi
sync
trap - EXIT
echo DONE
poweroff -f
