#!/bin/sh
# Makes this virtual machine on a node of Proxmox VE (7.2 or later), as root. Changes nothing where its id, its name or a
# network address is taken anywhere in the cluster.
#
#   ./register.sh [STORAGE [ID]]
#
# STORAGE takes the disks: the one that was chosen at the conversion, or the node's only one for images. ID is the machine's
# number: the one that was chosen at the conversion, or the next free one.
# A name may look like code, and a list may have one word.
# shellcheck disable=SC1003,SC1112,SC2016,SC2041,SC2043,SC2050,SC2066,SC2317
set -eu

name=@NAME@
uuid=@UUID@
macs=@MACS@
bridges=@BRIDGES@
storage=@STORAGE@
id=@ID@
[ $# -lt 1 ] || storage=$1
[ $# -lt 2 ] || id=$2

: "${PVE_CONFIGURATION:=/etc/pve}" "${SYS_CLASS_NET:=/sys/class/net}"
here=$(cd "$(dirname "$0")" && pwd)

@STOP@
for tool in qm pvesh pvesm; do
    command -v "$tool" >/dev/null 2>&1 || stop "$tool is not here" 'run this on a node of Proxmox VE'
done
[ "$(id -u)" = 0 ] || stop 'only root may import a disk by its path' 'run this as root'
case $here in
*,* | *'
'*) stop "the folder $here has a comma or a line break in its name, which qm does not take" 'rename it' ;;
esac
for file in @FILES@; do
    [ -f "$here/$file" ] || stop "$here/$file is not here" 'copy the whole output folder'
done

# The source's replica carries the same identity: never make a second machine with it. A snapshot's part of a file is no
# machine of its own.
for file in "$PVE_CONFIGURATION"/nodes/*/qemu-server/*.conf "$PVE_CONFIGURATION"/nodes/*/lxc/*.conf; do
    [ -f "$file" ] || continue
    other=$(basename "$file" .conf)
    settings=$(awk '/^\[/ { exit } /^#/ { next } { print }' "$file" | tr '[:upper:]' '[:lower:]')
    wanted=$(printf '%s' "$name" | tr '[:upper:]' '[:lower:]')
    [ "$other" != "$id" ] || stop "a machine with the id $id is here already ($file)" 'name another id as the second word'
    if printf '%s\n' "$settings" | grep -qxF -e "name: $wanted" -e "hostname: $wanted"; then
        stop "a machine with the name $name is here already: $other" 'remove it, or convert again with --name'
    fi
    if [ -n "$uuid" ] && printf '%s\n' "$settings" | grep -q "^smbios1:.*uuid=$uuid"; then
        stop "machine $other has the id $uuid" 'it is another copy of this machine: remove it first'
    fi
    for mac in $macs; do
        if printf '%s\n' "$settings" | grep -q "^net[0-9]*:.*$mac"; then
            stop "machine $other has a network card with the address $mac" \
                'it is another copy of this machine: remove it first'
        fi
    done
done
for bridge in $bridges; do
    [ -e "$SYS_CLASS_NET/$bridge" ] || stop "there is no bridge $bridge on this node" \
        'convert again with --network, or make the bridge'
done
if [ -z "$storage" ]; then
    storage=$(pvesm status --content images --enabled 1 | awk 'NR > 1 && $3 == "active" { print $1 }')
    case $storage in
    '') stop 'no storage of this node takes images' 'add one, or enable the content Disk image on one' ;;
    *'
'*) stop "several storages take images: $(printf '%s' "$storage" | tr '\n' ' ')" "name one: ./register.sh STORAGE" ;;
    esac
fi
case $storage in
*[!A-Za-z0-9._-]*) stop "no storage can have the name $storage" ;;
esac
pvesm status --content images --storage "$storage" >/dev/null || stop "the storage $storage is not here, or takes no images" \
    'pvesm status --content images shows those that do'
if [ -z "$id" ]; then
    id=$(pvesh get /cluster/nextid | tr -d '"')
fi
case $id in
'' | *[!0-9]*) stop "no machine can have the id $id" ;;
esac

printf 'Making machine %s (%s) on the storage %s\n' "$id" "$name" "$storage"
# qm takes away what it made where it fails in the middle.
qm create "$id" \
    @OPTIONS@
printf 'Start it with: qm start %s\n' "$id"
