#!/bin/sh
# Makes images of this virtual machine's disks and the machine itself on a cluster of Nutanix AHV. Runs on a controller VM, as nutanix.
# Changes nothing where its name, an image's name or a network address is taken. Where something fails, what this run made
# is taken away again.
#
#   ./register.sh SOURCE_URL [CONTAINER [NETWORK]]
#
# SOURCE_URL is the folder with the disks as the cluster fetches it: https://server/folder, nfs://server/folder.
# CONTAINER takes the images: the one that was chosen at the conversion where it is not named. NETWORK is the subnet of the network
# cards for which none was chosen.
# A name may look like code, and a list may have one word.
# shellcheck disable=SC1003,SC1112,SC2016,SC2041,SC2043,SC2050,SC2066,SC2317
set -eu

name=@NAME@
macs=@MACS@
container=@CONTAINER@
# yes: a card wants NETWORK.
asked=@ASKED@
network=${3:-}

@STOP@
[ $# -ge 1 ] || stop 'the address of the disks is not named' './register.sh SOURCE_URL [CONTAINER]'
source=${1%/}
[ $# -lt 2 ] || container=$2
[ "$asked" = no ] || [ -n "$network" ] || stop 'the network is not named' \
    './register.sh SOURCE_URL CONTAINER NETWORK; acli net.list shows those that are here'
[ -n "$container" ] || stop 'the container is not named' './register.sh SOURCE_URL CONTAINER; ncli container ls shows those that are here'
command -v acli >/dev/null 2>&1 || stop 'acli is not here' 'run this on a controller VM of the cluster'
machines=$(acli vm.list) || stop 'acli does not list the machines' 'look at the cluster: cluster status'
images=$(acli image.list) || stop 'acli does not list the images' 'look at the cluster: cluster status'

# ids MACHINES: the ids of those with the name, which stand in the last column.
ids() {
    printf '%s\n' "$1" | awk -v name="$name" 'NR > 1 { id = $NF; $NF = ""; sub(/ +$/, ""); if ($0 == name) print id }'
}
# The source's replica carries the same identity: never make a second machine with it.
[ -z "$(ids "$machines")" ] || stop "a machine with the name $name is here already" 'delete it, or convert again with --name'
for image in @IMAGES@; do
    if printf '%s\n' "$images" | awk 'NR > 1 { print $1 }' | grep -qxF -e "$image"; then
        stop "an image with the name $image is here already" 'delete it if an earlier try left it, or convert again with --name'
    fi
done
for network in @NETWORKS@; do
    acli net.get "$network" >/dev/null 2>&1 || stop "there is no network $network" 'convert again with --network'
done
for other in $(printf '%s\n' "$machines" | awk 'NR > 1 { print $NF }'); do
    [ -n "$macs" ] || break
    settings=$(acli vm.get "$other") || stop "acli does not show the machine $other" 'run this again: it may have been removed meanwhile'
    settings=$(printf '%s\n' "$settings" | tr '[:upper:]' '[:lower:]')
    for mac in $macs; do
        case $settings in
        *"$mac"*) stop "the machine $other has a network card with the address $mac" 'it is another copy of this machine: delete it first' ;;
        esac
    done
done

# What this run made: the machine by its id, the images by their names.
machine=
made_images=
remove() {
    [ -z "$machine" ] || acli -y vm.delete "$machine" || :
    for image in $made_images; do
        acli -y image.delete "$image" || :
    done
}
trap remove EXIT
trap 'exit 1' HUP INT TERM

image() {
    acli image.create "$1" "source_url=$source/$2" "container=$container" image_type=kDiskImage
    made_images="$1 $made_images"
}
# machine SETTINGS: makes it, and asks for the id that it got. Another may have got the same name meanwhile, which is not ours.
machine() {
    acli vm.create "$name" "$@"
    machines=$(acli vm.list) || stop "the machine $name is made, but acli does not list it" "look for it, and delete it: acli vm.delete $name"
    made=$(ids "$machines")
    case $made in
    '' | *[!0-9a-f-]*) stop "acli lists no machine, or several, with the name $name after it was made" \
        'look for the one without disks, and delete it' ;;
    esac
    machine=$made
}
disk() {
    acli vm.disk_create "$machine" "clone_from_image=$1" "bus=$2" "index=$3"
}
@STEPS@

made_images=
printf 'Start it with: acli vm.on %s\n' "$machine"
machine=
echo 'Its images are not needed any longer:'
for image in @IMAGES@; do
    printf '    %s\n' "$image"
done
