#!/bin/sh
# Runs this virtual machine with QEMU alone, without libvirt, with its disks where this script lies.
#
#   ./qemu.sh [-n [CARD=]NETWORK]... [--] [ARGUMENT...]
#
# NETWORK is what the network cards, or the one with that number, are plugged into; the last that fits counts:
#   user          out through this host, by address translation; nothing gets in, but for user,hostfwd=tcp::2222-:22
#   bridge:NAME   a bridge of this host, through qemu-bridge-helper (/etc/qemu/bridge.conf has to allow it)
#   tap:NAME      a TAP device that is there already
#   none          nothing
# Every ARGUMENT goes to QEMU, behind the machine's own: -S, -display gtk.
#
# Its screen is on VNC, at this host only, the first console and QEMU's monitor (Ctrl-a c) on the terminal. It is shut down
# from within, or with the monitor's system_powerdown.
# QEMU names the program, ACCEL its accelerators (kvm tcg), OVMF_CODE and OVMF_VARS the firmware and the template of its
# variables.
#
# Its cards:
@NETWORKS@set -eu

name=@NAME@
uefi=@UEFI@
secure_boot=@SECURE_BOOT@
tpm=@TPM@
cards=@CARDS@
networks=

: "${QEMU:=qemu-system-x86_64}" "${ACCEL:=kvm tcg}" "${OVMF_CODE:=}" "${OVMF_VARS:=}"
here=$(cd "$(dirname "$0")" && pwd)

@STOP@
# A value among others that commas part.
commas() {
    printf '%s' "$1" | sed 's/,/,,/g'
}

# What a card is plugged into, as QEMU says it: its number, and what it is without a word of the user's.
card() {
    found=$2
    for choice in $networks; do
        case $choice in
        "$1="*) found=${choice#*=} ;;
        [0-9]*=*) ;;
        *) found=$choice ;;
        esac
    done
    case $found in
    bridge:*) printf 'bridge,br=%s' "${found#bridge:}" ;;
    tap:*) printf 'tap,ifname=%s,script=no,downscript=no' "${found#tap:}" ;;
    none) printf 'hubport,hubid=%s' "$1" ;;
    *) printf '%s' "$found" ;;
    esac
}

while [ $# -gt 0 ]; do
    case $1 in
    -n)
        [ $# -gt 1 ] || stop '-n wants a network' 'user, bridge:NAME, tap:NAME or none'
        number=0
        case $2 in
        [0-9]*=*) number=${2%%=*} network=${2#*=} ;;
        *) network=$2 ;;
        esac
        case $number in
        *[!0-9]*) stop "$number is no number of a card" ;;
        esac
        [ "$network" = "$2" ] || [ "$number" -lt "$cards" ] || stop "there is no card $number" \
            "the machine has $cards of them, and the first has the number 0"
        case $network in
        *[!A-Za-z0-9:.,=_/-]*) stop "$network is no network" 'user, bridge:NAME, tap:NAME or none' ;;
        user | user,?* | none) ;;
        bridge:*,* | tap:*,*) stop "$network is no network" 'the name of a device has no comma' ;;
        bridge:?* | tap:?*) ;;
        *) stop "$network is no network" 'user, bridge:NAME, tap:NAME or none' ;;
        esac
        networks="$networks $2"
        shift 2
        ;;
    --)
        shift
        break
        ;;
    *) break ;;
    esac
done

command -v "$QEMU" >/dev/null 2>&1 || stop "$QEMU is not here" \
    'install qemu-system-x86 (Debian) or qemu-kvm (RHEL: QEMU=/usr/libexec/qemu-kvm)'
for file in @FILES@; do
    [ -f "$here/$file" ] || stop "$here/$file is not here" 'copy the whole output folder'
done

# The firmware's variables are the machine's own: those of the source where they came along, else a copy of the template, made once.
code='' variables=$here/uefi-variables.fd
if [ "$uefi" = yes ]; then
    code=$OVMF_CODE template=$OVMF_VARS
    if [ "$secure_boot" = yes ]; then
        set -- /usr/share/OVMF/OVMF_CODE_4M.ms.fd /usr/share/OVMF/OVMF_VARS_4M.ms.fd \
            /usr/share/edk2/ovmf/OVMF_CODE.secboot.fd /usr/share/edk2/ovmf/OVMF_VARS.secboot.fd \
            /usr/share/qemu/ovmf-x86_64-smm-ms-code.bin /usr/share/qemu/ovmf-x86_64-smm-ms-vars.bin \
            /usr/share/OVMF/OVMF_CODE.secboot.fd /usr/share/OVMF/OVMF_VARS.ms.fd -- "$@"
    else
        set -- /usr/share/OVMF/OVMF_CODE_4M.fd /usr/share/OVMF/OVMF_VARS_4M.fd \
            /usr/share/edk2/ovmf/OVMF_CODE.fd /usr/share/edk2/ovmf/OVMF_VARS.fd \
            /usr/share/edk2/x64/OVMF_CODE.4m.fd /usr/share/edk2/x64/OVMF_VARS.4m.fd \
            /usr/share/qemu/ovmf-x86_64-code.bin /usr/share/qemu/ovmf-x86_64-vars.bin \
            /usr/share/OVMF/OVMF_CODE.fd /usr/share/OVMF/OVMF_VARS.fd -- "$@"
    fi
    while [ "$1" != -- ]; do
        if [ -z "$code" ] && [ -f "$1" ] && [ -f "$2" ]; then
            code=$1
            [ -n "$template" ] || template=$2
        fi
        shift 2
    done
    shift
    [ -f "$code" ] || stop 'there is no UEFI firmware for virtual machines here' \
        'install ovmf (Debian) or edk2-ovmf (RHEL), or name its files in OVMF_CODE and OVMF_VARS'
    if [ ! -e "$variables" ]; then
        [ -f "$template" ] || stop 'there is no template of the UEFI variables' 'name it in OVMF_VARS'
        cp "$template" "$variables.partial"
        chmod u+w "$variables.partial"
        mv "$variables.partial" "$variables"
    fi
    [ ! -f "$template" ] || [ "$(wc -c <"$variables")" -eq "$(wc -c <"$template")" ] ||
        stop "$variables is not as long as this firmware's variables, $template" \
            'name firmware of the other size in OVMF_CODE and OVMF_VARS (OVMF_CODE_4M.fd), or move the file away for new variables'
fi

# Without KVM, QEMU's own emulation runs it, slowly. Its cmpxchg16b is wrong up to version 7.2.
cpu=max,cx16=off
case " $ACCEL " in
*" kvm "*) [ ! -w /dev/kvm ] || cpu=max ;;
esac

run=
end() {
    # It ends with QEMU, but where QEMU never came.
    [ ! -s "$run/pid" ] || kill "$(cat "$run/pid")" 2>/dev/null || :
    rm -rf "$run"
}
if [ "$tpm" = yes ]; then
    command -v swtpm >/dev/null 2>&1 || stop 'the machine has a TPM, and swtpm is not here' 'install swtpm'
    case $here in
    *,*) stop "the folder $here has a comma in its name, which swtpm does not take" 'rename it' ;;
    esac
    # A socket's path has to be short.
    run=$(mktemp -d)
    trap end EXIT
    mkdir -p "$here/tpm"
    swtpm socket --tpm2 --tpmstate "dir=$here/tpm" --ctrl "type=unixio,path=$run/tpm" --pid "file=$run/pid" \
        --terminate --daemon ||
        stop 'swtpm does not start' "if another one uses $here/tpm, the machine is running already"
fi

@CARDS_IN_USE@set -- \
@WORDS@    "$@"
printf 'The screen of %s is at vnc://127.0.0.1:5900, or at the next port that is free.\n' "$name" >&2
# The first of them that works here.
for accelerator in $ACCEL; do
    set -- "$@" -accel "$accelerator"
done
set -- -nodefaults -no-user-config -vnc 127.0.0.1:0,to=99 -serial mon:stdio "$@"
[ "$tpm" = yes ] || exec "$QEMU" "$@"
"$QEMU" "$@" <&0 &
qemu=$!
trap 'kill "$qemu"' HUP INT TERM
status=0
while kill -0 "$qemu" 2>/dev/null; do
    status=0
    wait "$qemu" || status=$?
done
exit "$status"
