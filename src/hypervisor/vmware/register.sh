#!/bin/sh
# Uploads this virtual machine to a datastore of vSphere or ESXi and registers it there, with govc. Changes nothing where its
# name, id, folder or a network address is taken.
#
#   ./register.sh                     on the datastore GOVC_DATASTORE, or the one that was chosen at the conversion
#   ./register.sh DATASTORE
#
# The connection is GOVC_URL with GOVC_USERNAME and GOVC_PASSWORD (https://github.com/vmware/govmomi).
# A name may look like code, and a list may have one word.
# shellcheck disable=SC1003,SC1112,SC2016,SC2041,SC2043,SC2050,SC2066,SC2317
set -eu

name=@NAME@
stem=@STEM@
uuid=@UUID@
variables=@VARIABLES@
chosen=@DATASTORE@
here=$(cd "$(dirname "$0")" && pwd)

@STOP@
command -v govc >/dev/null 2>&1 || stop 'govc is not here' 'get it from https://github.com/vmware/govmomi/releases'
govc about >/dev/null || stop 'no connection to vSphere' 'set GOVC_URL, GOVC_USERNAME and GOVC_PASSWORD'

datastore=${1:-${GOVC_DATASTORE:-$chosen}}
[ -n "$datastore" ] || stop 'which datastore?' "./register.sh DATASTORE; govc find / -type s lists them"
govc datastore.info "$datastore" >/dev/null || stop "there is no datastore $datastore" 'govc find / -type s lists them'

# ESXi starts from flat images only; the others have to be unpacked by a host.
set -- @FILES@
for file in "$@"; do
    [ -f "$here/$file" ] || stop "$file is not in $here"
    flat=${file%.vmdk}-flat.vmdk
    [ -f "$here/$flat" ] || stop "$file is no image that ESXi starts from" \
        'convert again with --disk-format vmdk-esxi, or unpack it on a host: vmkfstools -i'
done

# The inventory's spelling of a name in its paths.
escape() {
    printf '%s\n' "$1" | sed 's|%|%25|g; s|/|%2f|g; s|\\|%5c|g'
}
escaped=$(escape "$name")
# The source's replica carries the same identity: never register a second machine with it.
machines=$(govc find / -type m) || stop 'govc does not list the machines' 'its answer stands above'
if printf '%s\n' "$machines" | sed 's|.*/||' | grep -Fqx -e "$escaped"; then
    stop "a machine with the name $name is here already" 'remove it from the inventory, or convert again with --name'
fi
if [ -n "$uuid" ]; then
    other=$(govc find / -type m -config.uuid "$uuid") || stop 'govc does not find machines by their ids' 'its answer stands above'
    [ -z "$other" ] || stop "$other has the id $uuid" 'it is another copy of this machine: remove it from the inventory first'
fi
set -- @MACS@
if [ $# -gt 0 ] && [ -n "$machines" ]; then
    devices=$(govc object.collect -json -type m / config.hardware.device) || stop 'govc does not list the devices of the machines' \
        'its answer stands above'
    for mac in "$@"; do
        if printf '%s\n' "$devices" | grep -Fqi -e "\"$mac\""; then
            stop "another machine has a network card with the address $mac" \
                'it is another copy of this machine: remove it from the inventory first'
        fi
    done
fi
set -- @NETWORKS@
networks=$(govc find / -type n) || stop 'govc does not list the networks' 'its answer stands above'
groups=$(govc find / -type g) || stop 'govc does not list the distributed port groups' 'its answer stands above'
# has PATHS NAME
has() {
    printf '%s\n' "$1" | sed 's|.*/||' | grep -Fqx -e "$(escape "$2")"
}
for network in "$@"; do
    has "$networks" "$network" || has "$groups" "$network" || stop "there is no network $network" \
        'make it, or convert again with --network'
done
folders=$(govc datastore.ls -ds "$datastore") || stop "govc does not list the datastore $datastore" 'its answer stands above'
if printf '%s\n' "$folders" | sed 's|/$||' | grep -Fqx -e "$stem"; then
    stop "[$datastore] $stem exists already" "if an earlier try left it: govc datastore.rm -ds '$datastore' '$stem'"
fi

govc datastore.mkdir -ds "$datastore" "$stem"
set -- @FILES@
for file in "$@"; do
    flat=${file%.vmdk}-flat.vmdk
    printf 'Uploading %s\n' "$file"
    govc datastore.upload -ds "$datastore" "$here/$flat" "$stem/$flat"
    govc datastore.upload -ds "$datastore" "$here/$file" "$stem/$file"
done
[ -z "$variables" ] || govc datastore.upload -ds "$datastore" "$here/$variables" "$stem/$variables"
govc datastore.upload -ds "$datastore" "$here/$stem.vmx" "$stem/$stem.vmx"
govc vm.register -ds "$datastore" "$stem/$stem.vmx"

# A .vmx names networks of standard switches; port groups of distributed ones are connected now.
set -- @NETWORKS@
number=0
for network in "$@"; do
    if has "$groups" "$network"; then
        govc vm.network.change -vm "$escaped" -net "$(escape "$network")" "ethernet-$number"
    fi
    number=$((number + 1))
done
printf 'Start it with: govc vm.power -on "%s"\n' "$name"
