#!/bin/sh
# Uploads the disks of this virtual machine to OpenStack and makes it there. Changes nothing where its name or a network address is
# taken. Where something fails, what this run made is taken away again.
#
#   ./register.sh FLAVOR [NETWORK]
#
# FLAVOR has to have the machine's processors and memory. NETWORK takes the cards for which none was chosen at the conversion.
# The cloud is the one of OS_CLOUD or the other OS_* variables. With Heat instead: upload the images by the lines below, then
# openstack stack create -t heat.yaml with their names as parameters.
# A name may look like code, and a list may have one word.
# shellcheck disable=SC1003,SC1112,SC2016,SC2041,SC2043,SC2050,SC2066,SC2317
set -eu

name=@NAME@
macs=@MACS@
cpus=@CPUS@
memory=@MEMORY@
volume_type=@TYPE@
needs_network=@NEEDS_NETWORK@

here=$(cd "$(dirname "$0")" && pwd)
# The client speaks Nova's version 2.1 by itself, in which a machine has no description (2.19), and networks are not left out (2.37).
: "${OS_COMPUTE_API_VERSION:=2.37}"
export OS_COMPUTE_API_VERSION

@STOP@
[ $# -gt 0 ] || stop 'the flavor is not named' './register.sh FLAVOR [NETWORK]; openstack flavor list shows those that are here'
flavor=$1
network=${2:-}
command -v openstack >/dev/null 2>&1 || stop 'openstack is not here' 'install python3-openstackclient'
for file in @FILES@; do
    [ -f "$here/$file" ] || stop "$here/$file is not here" 'copy the whole output folder'
done
[ "$needs_network" = no ] || [ -n "$network" ] || stop 'the network is not named' './register.sh FLAVOR NETWORK'
openstack token issue -f value -c expires >/dev/null || stop 'the cloud does not answer' 'set OS_CLOUD, or look at clouds.yaml'

has=$(openstack flavor show "$flavor" -f value -c vcpus) || stop "there is no flavor $flavor" 'openstack flavor list shows those that are here'
[ "$has" -ge "$cpus" ] || stop "the flavor $flavor has $has processors, the machine $cpus" 'choose a larger one'
has=$(openstack flavor show "$flavor" -f value -c ram) || stop "the cloud does not say the memory of the flavor $flavor"
[ "$has" -ge "$memory" ] || stop "the flavor $flavor has $has MiB of memory, the machine $memory" 'choose a larger one'
for wanted in @NETWORKS@; do
    openstack network show "$wanted" -f value -c id >/dev/null || stop "there is no network $wanted" 'convert again with --network'
done
# The source's replica carries the same identity: never make a second machine with it.
# free KIND NAME HINT: the script ends where there is one, or where that is not known.
free() {
    names=$(openstack "$1" list -f value -c Name) || stop "the cloud does not list each $1" 'the answer of openstack stands above'
    if printf '%s\n' "$names" | grep -qxF -e "$2"; then
        stop "the $1 $2 is here already" "$3"
    fi
}
free server "$name" 'delete it, or convert again with --name'
for wanted in @VOLUMES@; do
    for kind in image volume; do
        free "$kind" "$wanted" 'delete it if an earlier try left it, or convert again with --name'
    done
done
for mac in $macs; do
    ports=$(openstack port list --mac-address "$mac" -f value -c ID) || stop 'the cloud does not list its ports' 'the answer of openstack stands above'
    [ -z "$ports" ] || stop "a port with the address $mac is here already" 'it is of another copy of this machine: delete that first'
done

# What this run made, the newest first: kind:id.
made=
remove() {
    for one in $made; do
        case $one in
        # Its volumes and ports are in use as long as it is there.
        server:*) openstack server delete --wait "${one#*:}" || : ;;
        *) openstack "${one%%:*}" delete "${one#*:}" || : ;;
        esac
    done
}
trap remove EXIT
trap 'exit 1' HUP INT TERM

wait_for() {
    while :; do
        status=$(openstack "$1" show "$2" -f value -c status)
        case $status in
        # A guest may have shut itself down again.
        available | active | ACTIVE | SHUTOFF) return ;;
        error* | ERROR | killed) stop "the $1 $2 is in the state $status" 'look at it in the cloud; this run takes it away' ;;
        esac
        sleep "${LANDFALL_WAIT:-5}"
    done
}

# disk ROLE NAME FILE FORMAT GIBIBYTES BUS
disk() {
    role=$1 title=$2 file=$3 format=$4 size=$5 bus=$6
    image=$(openstack image create "$title" --private --container-format bare --disk-format "$format" --file "$here/$file" \
        @PROPERTIES@ -f value -c id)
    made="image:$image $made"
    wait_for image "$image"
    set -- --image "$image" --size "$size"
    [ -z "$volume_type" ] || set -- "$@" --type "$volume_type"
    [ "$role" = data ] || set -- "$@" --bootable
    volume=$(openstack volume create "$title" "$@" -f value -c id)
    made="volume:$volume $made"
    wait_for volume "$volume"
    index=-1
    [ "$role" = data ] || index=0
    devices="$devices --block-device uuid=$volume,source_type=volume,destination_type=volume,boot_index=$index,disk_bus=$bus"
}

# card NAME NETWORK MAC enable|disable
card() {
    title=$1 where=$2 mac=$3 state=$4
    set -- --network "$where" "--$state"
    [ -z "$mac" ] || set -- "$@" --mac-address "$mac"
    port=$(openstack port create "$title" "$@" -f value -c id)
    made="port:$port $made"
    cards="$cards --port $port"
}

devices=
cards=
@DISKS@
@CARDS@
[ -n "$cards" ] || cards='--no-network'
# shellcheck disable=SC2086 # words are wanted
server=$(openstack server create "$name" --flavor "$flavor" $devices $cards @DETAILS@ -f value -c id)
made="server:$server $made"
wait_for server "$server"
made=
printf 'The machine %s has started: openstack server show %s\n' "$name" "$server"
echo 'Its images are not needed any longer:'
for image in @VOLUMES@; do
    printf '    %s\n' "$image"
done
