#!/bin/sh
# Imports this virtual machine into XCP-ng or XenServer. Changes nothing where its name, id or a network address is taken.
#
#   ./register.sh                     into the storage that was chosen, or the pool's default one
#   ./register.sh STORAGE             into that storage repository, by its UUID or name
#
# Runs where xe does: on a host of the pool, or elsewhere with XE_EXTRA_ARGS="server=HOST,username=root,password-file=FILE".
# TIMEOFFSET=SECONDS says how far a clock of local time is ahead of UTC; the offset of this host otherwise.
# A name may look like code, and a list may have one word.
# shellcheck disable=SC1003,SC1112,SC2016,SC2041,SC2043,SC2050,SC2066,SC2317
set -eu

name=@NAME@
uuid=@UUID@
macs=@MACS@
file=@FILE@
storage=@STORAGE@
tpm=@TPM@
localtime=@LOCALTIME@

here=$(cd "$(dirname "$0")" && pwd)

@STOP@
command -v xe >/dev/null 2>&1 || stop 'xe is not here' 'run this on a host of the pool, or install xe (package xapi-xe)'
xe pool-list --minimal >/dev/null 2>&1 || stop 'xe cannot reach a pool' \
    'run this as root on a host of the pool, or set XE_EXTRA_ARGS'
[ -f "$here/$file" ] || stop "$here/$file is not there" 'copy the archive beside this script'

# The source's replica carries the same identity: never import a second machine with it. An import that keeps an id would
# replace a machine that has it.
for kind in vm template snapshot; do
    if [ -n "$(xe "$kind-list" uuid="$uuid" params=uuid --minimal)" ]; then
        stop "a machine, template or snapshot with the id $uuid is here already" \
            'it is another copy of this machine: remove it first'
    fi
done
if [ -n "$(xe vm-list name-label="$name" params=uuid --minimal)" ]; then
    stop "a machine with the name $name is here already" 'rename or remove it, or convert again with --name'
fi
for mac in $macs; do
    other=$(xe vif-list MAC="$mac" params=vm-name-label --minimal)
    [ -z "$other" ] || stop "$other has a network card with the address $mac" \
        'it is another copy of this machine: remove it first'
done

# An import makes a new network, which leads nowhere, for a name that is not there.
set -- "${1:-$storage}" @NETWORKS@
storage=$1
shift
for network; do
    case $(xe network-list name-label="$network" params=uuid --minimal) in
    '') stop "there is no network $network" 'convert again with --map-network or --network, or make it first' ;;
    *,*) stop "several networks are called $network" 'rename all but the right one first' ;;
    esac
done

if [ -z "$storage" ]; then
    pool=$(xe pool-list --minimal)
    sr=$(xe pool-param-get uuid="$pool" param-name=default-SR)
    [ -n "$(xe sr-list uuid="$sr" params=uuid --minimal)" ] || stop 'the pool has no default storage' \
        "name one of these: $(xe sr-list content-type=user params=name-label --minimal)"
else
    sr=$(xe sr-list uuid="$storage" params=uuid --minimal)
    [ -n "$sr" ] || sr=$(xe sr-list name-label="$storage" params=uuid --minimal)
    case $sr in
    '') stop "there is no storage $storage" \
        "name one of these: $(xe sr-list content-type=user params=name-label --minimal)" ;;
    *,*) stop "several storages are called $storage" 'name one by its UUID' ;;
    esac
fi
size=$(xe sr-param-get uuid="$sr" param-name=physical-size)
used=$(xe sr-param-get uuid="$sr" param-name=physical-utilisation)
needed=$(wc -c <"$here/$file")
if [ "$size" -gt 0 ] && [ $((size - used)) -lt "$needed" ]; then
    stop "the storage has $((size - used)) bytes free, and the machine needs $needed" 'free space, or name another storage'
fi

machine=$(xe vm-import filename="$here/$file" sr-uuid="$sr" preserve=true)
if [ -n "$localtime" ]; then
    if [ -z "${TIMEOFFSET:-}" ]; then
        # +0530 becomes 19800.
        TIMEOFFSET=$(date +%z | awk '{ s = substr($0, 2, 2) * 3600 + substr($0, 4, 2) * 60
            print substr($0, 1, 1) == "-" ? -s : s }')
    fi
    xe vm-param-set uuid="$machine" platform:timeoffset="$TIMEOFFSET"
fi
if [ -n "$tpm" ]; then
    xe vtpm-create vm-uuid="$machine" >/dev/null || stop "$name is imported as $machine, and got no TPM" \
        "this release may have none: give it one by hand (xe vtpm-create vm-uuid=$machine), or start it without"
fi
printf 'Start it with: xe vm-start uuid=%s\n' "$machine"
