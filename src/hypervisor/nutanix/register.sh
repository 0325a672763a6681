#!/bin/sh
# Makes images of this virtual machine's disks and the machine itself on a cluster of Nutanix AHV. Runs on a controller VM, as nutanix.
# Changes nothing where its name, an image's name or a network address is taken. Where something fails, what this run made
# is taken away again.
#
#   ./register.sh SOURCE_URL [CONTAINER]
#
# SOURCE_URL is the folder with the disks as the cluster fetches it: https://server/folder, nfs://server/folder.
# CONTAINER takes the images: the one that was chosen at the conversion where it is not named.
set -eu

name=@NAME@
macs=@MACS@
container=@CONTAINER@

@STOP@
[ $# -ge 1 ] || stop 'the address of the disks is not named' './register.sh SOURCE_URL [CONTAINER]'
source=${1%/}
[ $# -lt 2 ] || container=$2
[ -n "$container" ] || stop 'the container is not named' './register.sh SOURCE_URL CONTAINER; ncli container ls shows those that are here'
command -v acli >/dev/null 2>&1 || stop 'acli is not here' 'run this on a controller VM of the cluster'
acli vm.list >/dev/null || stop 'acli does not answer' 'look at the cluster: cluster status'

# The source's replica carries the same identity: never make a second machine with it.
if acli vm.list | awk 'NR > 1 { $NF = ""; sub(/ +$/, ""); print }' | grep -qxF -e "$name"; then
    stop "a machine with the name $name is here already" 'delete it, or convert again with --name'
fi
for image in @IMAGES@; do
    if acli image.list | awk 'NR > 1 { print $1 }' | grep -qxF -e "$image"; then
        stop "an image with the name $image is here already" 'delete it if an earlier try left it, or convert again with --name'
    fi
done
for network in @NETWORKS@; do
    acli net.get "$network" >/dev/null 2>&1 || stop "there is no network $network" 'convert again with --network'
done
for other in $(acli vm.list | awk 'NR > 1 { print $NF }'); do
    [ -n "$macs" ] || break
    settings=$(acli vm.get "$other" | tr '[:upper:]' '[:lower:]')
    for mac in $macs; do
        case $settings in
        *"$mac"*) stop "the machine $other has a network card with the address $mac" 'it is another copy of this machine: delete it first' ;;
        esac
    done
done

made_machine=
made_images=
remove() {
    [ -z "$made_machine" ] || acli -y vm.delete "$name" || :
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
disk() {
    acli vm.disk_create "$name" "clone_from_image=$1" "bus=$2" "index=$3"
}
@STEPS@

made_machine=
made_images=
printf 'Start it with: acli vm.on %s\n' "$name"
echo 'Its images are not needed any longer:'
for image in @IMAGES@; do
    printf '    %s\n' "$image"
done
