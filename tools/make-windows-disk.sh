#!/bin/sh
# Makes a disk that is laid out like one of Windows, once: partitions, boot files, a skeleton of C:, no program of Windows.
#
#   tools/make-windows-disk.sh LAYOUT DISK.raw [PATH=FILE ...]
#
# LAYOUT  bios: MBR with System Reserved (NTFS, active) and C:.  bios-one: MBR with C: alone, boot files on it.
#         uefi: GPT with the EFI system partition, MSR, C: and the recovery partition.
# PATH    a file of C: (Windows/System32/config/SYSTEM), of the EFI system partition (:esp/EFI/Microsoft/Boot/BCD) or of
#         System Reserved (:boot/Boot/BCD), which becomes a copy of FILE, unpacked where that ends in .zst.
#         An empty FILE removes the path.
# ARCH    (environment) x64, x86 or arm64: what the stand-ins of programs are built for.
# SIZE    (environment) MiB of C:, 384 where it is not set.
#
# Needs ntfs-3g with FUSE, attr, mtools, dosfstools, fdisk.  Programs are stand-ins: a PE header and nothing behind it.
set -eu

layout=${1:?usage: tools/make-windows-disk.sh LAYOUT DISK.raw [PATH=FILE ...]}
disk=${2:?usage: tools/make-windows-disk.sh LAYOUT DISK.raw [PATH=FILE ...]}
shift 2
PATH=$PATH:/usr/sbin:/sbin
[ ! -e "$disk" ] || exit 0
arch=${ARCH:-x64}
size=${SIZE:-384}
case $layout in bios | bios-one | uefi) ;; *)
    echo "make-windows-disk.sh: there is no layout $layout; there are: bios bios-one uefi" >&2
    exit 2
    ;;
esac
for tool in mkntfs ntfs-3g setfattr mcopy mkfs.fat sfdisk; do
    if ! command -v "$tool" >/dev/null; then
        echo "make-windows-disk.sh: no $tool here (apt install ntfs-3g attr mtools dosfstools fdisk)" >&2
        exit 1
    fi
done

mkdir -p "$(dirname "$disk")"
work=$(mktemp -d "$disk.XXXXXX")
pid=''
mnt=$work/mnt
clean_up() {
    if mountpoint -q "$mnt"; then umount "$mnt"; fi
    if [ -n "$pid" ]; then wait "$pid" || true; fi
    rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 1' HUP INT TERM
mkdir "$mnt"

# A PE header of the right architecture: DOS stub up to 0x40, then the COFF header without sections.
case $arch in x64) machine='\144\206' magic='\013\002' ;; x86) machine='\114\001' magic='\013\001' ;;
    arm64) machine='\144\252' magic='\013\002' ;;
    *) echo "make-windows-disk.sh: ARCH is x64, x86 or arm64" >&2; exit 2 ;; esac
{
    printf 'MZ'
    head -c 58 /dev/zero
    printf '\100\000\000\000'
    printf 'PE\000\000%b' "$machine"
    head -c 14 /dev/zero
    printf '\360\000\002\000%b' "$magic"
} >"$work/pe"
truncate -s 1024 "$work/pe"

# An NTFS file system of $3 MiB that begins at sector $4, mounted.  FUSE's unmount returns before its process has written.
ntfs() {
    truncate -s "$3M" "$work/$1"
    mkntfs -q -F -f -s 512 -c 4096 -p "$4" -H 255 -S 63 -L "$2" "$work/$1" >"$work/log" 2>&1
    mount_ntfs "$1"
}
mount_ntfs() {
    ntfs-3g -o no_detach,permissions,compression,streams_interface=windows,efs_raw "$work/$1" "$mnt" >"$work/log" 2>&1 &
    pid=$!
    tries=0
    until mountpoint -q "$mnt"; do
        tries=$((tries + 1))
        if [ "$tries" -gt 100 ] || ! kill -0 "$pid" 2>/dev/null; then
            cat "$work/log" >&2
            echo "make-windows-disk.sh: ntfs-3g cannot mount here: it needs root and /dev/fuse" >&2
            exit 1
        fi
        sleep 0.1
    done
}
done_ntfs() {
    umount "$mnt"
    wait "$pid"
    pid=''
}
program() { for path; do mkdir -p "$(dirname "$path")" && cp "$work/pe" "$path"; done; }
text() { mkdir -p "$(dirname "$1")" && printf '%s\r\n' "$2" >"$1"; }
# What the caller wants below the prefix $1 (":esp/" or ":boot/" or none), into the folder $2.
given() {
    prefix=$1 into=$2
    shift 2
    for pair; do
        path=${pair%%=*} file=${pair#*=}
        case $path in "$prefix"*) ;; *) continue ;; esac
        if [ -z "$prefix" ]; then case $path in :*) continue ;; esac; fi
        path=$into/${path#"$prefix"}
        mkdir -p "$(dirname "$path")"
        case $file in
            '') rm -rf "$path" ;;
            *.zst) zstd -qdcf "$file" >"$path" ;;
            *) cat "$file" >"$path" ;;
        esac
    done
}
boot_files() {
    program "$1/bootmgr" "$1/Boot/memtest.exe"
    text "$1/Boot/BCD" 'stand-in of a boot configuration store'
    text "$1/Boot/Fonts/wgl4_boot.ttf" 'stand-in of a font'
}

system() {
    windows=$mnt/Windows
    for folder in System32/config/RegBack System32/config/systemprofile System32/drivers/etc System32/Recovery \
        System32/Tasks System32/winevt/Logs System32/spool SysWOW64 INF Fonts Help Logs Temp Prefetch SoftwareDistribution \
        Setup/Scripts Panther System32/DriverStore/FileRepository System32/catroot/\{F750E6C3-38EE-11D1-85E5-00C04FC295EE\} \
        WinSxS servicing Boot/EFI Boot/PCAT; do
        mkdir -p "$windows/$folder"
    done
    mkdir -p "$mnt/Users/Public/Desktop" "$mnt/Users/Administrator/AppData/Local" "$mnt/Program Files/Common Files" \
        "$mnt/Program Files (x86)" "$mnt/ProgramData/Microsoft" "$mnt/PerfLogs" "$mnt/\$Recycle.Bin" \
        "$mnt/System Volume Information" "$mnt/Recovery"
    program "$windows/explorer.exe" "$windows/System32/ntoskrnl.exe" "$windows/System32/hal.dll" \
        "$windows/System32/winload.exe" "$windows/System32/winload.efi" "$windows/System32/winresume.exe" \
        "$windows/System32/winresume.efi" "$windows/System32/cmd.exe" "$windows/System32/smss.exe" \
        "$windows/System32/ntdll.dll" "$windows/System32/Boot/winload.efi" "$windows/Boot/EFI/bootmgfw.efi" \
        "$windows/Boot/EFI/bootmgr.efi" "$windows/Boot/PCAT/bootmgr" "$windows/System32/WindowsPowerShell/v1.0/powershell.exe"
    # Inbox drivers: the file in drivers, its package in the driver store, its description, all hard links as on Windows.
    for driver in storahci:mshdc stornvme:stornvme pciide:mshdc intelide:mshdc atapi:mshdc lsi_sas:lsi_sas vmbus:wvmbus \
        storvsc:wstorvsc netvsc:wnetvsc e1i65x64:net1ix64 disk:disk partmgr:partmgr volmgr:volmgr; do
        sys=${driver%:*}.sys inf=${driver#*:}
        store=$windows/System32/DriverStore/FileRepository/$inf.inf_amd64_0123456789abcdef
        mkdir -p "$store"
        cp "$work/pe" "$store/$sys"
        ln "$store/$sys" "$windows/System32/drivers/$sys"
        text "$windows/INF/$inf.inf" '[Version]'
        cp "$windows/INF/$inf.inf" "$store/$inf.inf"
    done
    text "$windows/System32/drivers/etc/hosts" '127.0.0.1 localhost'
    text "$windows/win.ini" '[fonts]'
    for hive in SYSTEM SOFTWARE SAM SECURITY DEFAULT; do
        text "$windows/System32/config/$hive" 'stand-in of a hive'
        : >"$windows/System32/config/$hive.LOG1"
        : >"$windows/System32/config/$hive.LOG2"
    done
    truncate -s 16M "$mnt/pagefile.sys"
    # As Windows has them: hidden, system; a junction that old programs follow; the first one's target is a drive letter.
    setfattr -h -n system.ntfs_attrib_be -v 0x00000026 "$mnt/pagefile.sys"
    junction "$mnt/Documents and Settings" 'C:\Users'
    junction "$mnt/Users/All Users" 'C:\ProgramData'
    setfattr -h -n system.ntfs_dos_name -v 'PROGRA~1' "$mnt/Program Files"
    # Owned by SYSTEM, for SYSTEM and Administrators alone.
    setfattr -h -n system.ntfs_acl -v 0x010004801400000020000000000000002c000000010100000000000512000000010100000000000512000000020034000200000000001400ff011f000101000000000005120000000000180\
0ff011f0001020000000000052000000020020000 "$windows/System32/config/SYSTEM" "$windows/System32/config/SOFTWARE"
}
# $1 becomes a junction to $2: a reparse point of a mount point (MS-FSCC 2.1.2.5), names in UTF-16.
junction() {
    mkdir -p "$1"
    real='\??\'$2
    utf16() { printf '%s' "$1" | iconv -f UTF-8 -t UTF-16LE | od -An -v -tx1 | tr -d ' \n'; }
    le16() { printf '%02x%02x' $(($1 & 255)) $(($1 >> 8)); }
    n=$((${#real} * 2)) m=$((${#2} * 2))
    data="$(le16 0)$(le16 $n)$(le16 $((n + 2)))$(le16 $m)$(utf16 "$real")0000$(utf16 "$2")0000"
    setfattr -h -n system.ntfs_reparse_data -v "0x030000a0$(le16 $((${#data} / 2)))0000$data" "$1"
}

place() { dd if="$work/$1" of="$work/disk" bs=1M seek="$2" conv=notrunc,sparse status=none; }

case $layout in
    uefi)
        # 1 MiB: ESP of 100 MiB, 101: MSR of 16, 117: C:, then recovery of 32.
        recovery=$((117 + size))
        truncate -s $((recovery + 34))M "$work/disk"
        sfdisk -q "$work/disk" <<END
label: gpt
label-id: 6E9A2C54-3F1B-4D7A-9C80-112233445566
start=1MiB, size=100MiB, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B, uuid=6E9A2C54-3F1B-4D7A-9C80-000000000001, name="EFI system partition"
start=101MiB, size=16MiB, type=E3C9E316-0B5C-4DB8-817D-F92DF00215AE, uuid=6E9A2C54-3F1B-4D7A-9C80-000000000002, name="Microsoft reserved partition"
start=117MiB, size=${size}MiB, type=EBD0A0A2-B9E5-4433-87C0-68B6B72699C7, uuid=6E9A2C54-3F1B-4D7A-9C80-000000000003, name="Basic data partition"
start=${recovery}MiB, size=32MiB, type=DE94BBA4-06D1-4D40-A16A-BFD50179D6AC, uuid=6E9A2C54-3F1B-4D7A-9C80-000000000004, attrs="RequiredPartition GUID:63"
END
        mkdir "$work/esp"
        program "$work/esp/EFI/Microsoft/Boot/bootmgfw.efi" "$work/esp/EFI/Microsoft/Boot/bootmgr.efi" \
            "$work/esp/EFI/Microsoft/Boot/memtest.efi" "$work/esp/EFI/Boot/bootx64.efi"
        text "$work/esp/EFI/Microsoft/Boot/BCD" 'stand-in of a boot configuration store'
        given :esp/ "$work/esp" "$@"
        truncate -s 100M "$work/p1"
        mkfs.fat -F 32 -s 1 -h 2048 -i 1A2B3C4D "$work/p1" >/dev/null
        mcopy -s -i "$work/p1" "$work"/esp/* ::
        place p1 1
        ntfs p3 '' "$size" $((117 * 2048))
        system
        given '' "$mnt" "$@"
        done_ntfs
        place p3 117
        ntfs p4 Recovery 32 $((recovery * 2048))
        text "$mnt/Recovery/WindowsRE/winre.wim" 'stand-in'
        done_ntfs
        place p4 "$recovery"
        ;;
    *)
        # 1 MiB: System Reserved of 50 MiB, 51: C:.
        at=51
        [ "$layout" = bios ] || at=1
        truncate -s $((at + size + 1))M "$work/disk"
        {
            printf 'label: dos\nlabel-id: 0x1234abcd\n'
            [ "$layout" != bios ] || echo 'start=1MiB, size=50MiB, type=7, bootable'
            [ "$layout" = bios ] || printf 'bootable, '
            echo "start=${at}MiB, size=${size}MiB, type=7"
        } | sfdisk -q "$work/disk"
        # The boot code of Windows begins so; the rest of it is not needed.
        printf '\063\300\216\320\274\000\174' | dd of="$work/disk" conv=notrunc status=none
        if [ "$layout" = bios ]; then
            ntfs p1 'System Reserved' 50 2048
            boot_files "$mnt"
            given :boot/ "$mnt" "$@"
            done_ntfs
            place p1 1
        fi
        ntfs p2 '' "$size" $((at * 2048))
        system
        [ "$layout" = bios ] || boot_files "$mnt"
        given '' "$mnt" "$@"
        done_ntfs
        place p2 "$at"
        ;;
esac
mv "$work/disk" "$disk"
