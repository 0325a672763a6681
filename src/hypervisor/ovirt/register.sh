#!/bin/sh
# Uploads the disks of this virtual machine to oVirt (4.4 or later) and makes it there. Changes nothing where its name, its id or a
# network address is taken. Where something fails, the disks of this run are taken away again.
#
#   ./register.sh CLUSTER [STORAGE_DOMAIN]
#
# STORAGE_DOMAIN takes the disks: the one that was chosen at the conversion where it is not named.
# The engine is named by variables: OVIRT_URL (https://engine.example.org), OVIRT_USERNAME (admin@internal),
# OVIRT_PASSWORD_FILE and OVIRT_CAFILE (the engine's certificate authority).
# A name may look like code, and a list may have one word.
# shellcheck disable=SC1003,SC1112,SC2016,SC2041,SC2043,SC2050,SC2066,SC2317
set -eu

name=@NAME@
uuid=@UUID@
macs=@MACS@
storage=@STORAGE@
has_tpm=@TPM@

here=$(cd "$(dirname "$0")" && pwd)

@STOP@
[ $# -ge 1 ] || stop 'the cluster is not named' './register.sh CLUSTER [STORAGE_DOMAIN]'
cluster=$1
[ $# -lt 2 ] || storage=$2
[ -n "$storage" ] || stop 'the storage domain is not named' './register.sh CLUSTER STORAGE_DOMAIN'
for tool in ovirt-img curl; do
    command -v "$tool" >/dev/null 2>&1 || stop "$tool is not here" 'install ovirt-imageio-client and curl'
done
for variable in OVIRT_URL OVIRT_USERNAME OVIRT_PASSWORD_FILE OVIRT_CAFILE; do
    eval "value=\${$variable:-}"
    [ -n "$value" ] || stop "$variable is not set" 'see the top of this script'
done
[ -r "$OVIRT_PASSWORD_FILE" ] || stop "$OVIRT_PASSWORD_FILE cannot be read"
for file in @FILES@ machine.ovf; do
    [ -f "$here/$file" ] || stop "$here/$file is not here" 'copy the whole output folder'
done
work=$(mktemp -d)

# What this run made.
made=
remove() {
    for disk in $made; do
        api "disks/$disk" -X DELETE >/dev/null || printf 'register.sh: disk %s is left in the engine\n' "$disk" >&2
    done
    rm -rf "$work"
}
trap remove EXIT
trap 'exit 1' HUP INT TERM

# The password goes to curl by a file of its own, not by the command line.
(
    umask 077
    password=$(head -n 1 "$OVIRT_PASSWORD_FILE" | sed 's/[\\"]/\\&/g')
    user=$(printf '%s' "$OVIRT_USERNAME" | sed 's/[\\"]/\\&/g')
    printf 'user = "%s:%s"\n' "$user" "$password" >"$work/curl"
)
# api PATH [OPTIONS OF CURL]
api() {
    path=$1
    shift
    curl --config "$work/curl" --silent --show-error --fail --cacert "$OVIRT_CAFILE" -H 'Version: 4' \
        -H 'Accept: application/xml' "$@" "${OVIRT_URL%/}/ovirt-engine/api/$path"
}
escape() {
    sed 's/&/\&amp;/g; s/</\&lt;/g; s/>/\&gt;/g'
}

api '' >/dev/null || stop "the engine at $OVIRT_URL does not answer" 'look at OVIRT_URL, OVIRT_CAFILE and the password'
# The source's replica carries the same identity: never make a second machine with it.
api 'vms?follow=nics' >"$work/machines" || stop 'the engine does not list its machines' 'its answer stands above'
api disks >"$work/disks" || stop 'the engine does not list its disks' 'its answer stands above'
if grep -qF " id=\"$uuid\"" "$work/machines"; then
    stop "a machine with the id $uuid is here already" 'it is another copy of this machine: remove it first'
fi
if grep -qF "<name>$name</name>" "$work/machines"; then
    stop "a machine (or a part of one) with the name $name is here already" 'remove it, or convert again with --name'
fi
for mac in $macs; do
    if grep -qiF "<address>$mac</address>" "$work/machines"; then
        stop "a machine has a network card with the address $mac" 'it is another copy of this machine: remove it first'
    fi
done
for disk in @DISKS@; do
    if grep -qF " id=\"$disk\"" "$work/disks"; then
        stop "the disk $disk is here already" 'remove it if an earlier try left it'
    fi
done

cp "$here/machine.ovf" "$work/machine.ovf"
# upload DISK IMAGE FILE FORMAT ALIAS
upload() {
    ovirt-img upload-disk --engine-url "$OVIRT_URL" --username "$OVIRT_USERNAME" --password-file "$OVIRT_PASSWORD_FILE" \
        --cafile "$OVIRT_CAFILE" --storage-domain "$storage" --format "$4" --disk-id "$1" --name "$5" "$here/$3" \
        || stop "cannot upload $3" 'its answer stands above'
    made="$1 $made"
    # The engine chose the image's id; the definition names its disks by it.
    image=$(api "disks/$1" | sed -n 's,.*<image_id>\([-0-9a-f]*\)</image_id>.*,\1,p' | head -n 1)
    [ -n "$image" ] || stop "the engine does not say the image of disk $1"
    sed "s/$2/$image/g" "$work/machine.ovf" >"$work/next"
    mv "$work/next" "$work/machine.ovf"
}
@UPLOADS@

{
    printf '<vm><name>%s</name><cluster><name>%s</name></cluster><initialization><configuration><type>ovf</type><data>' \
        "$name" "$(printf '%s' "$cluster" | escape)"
    escape <"$work/machine.ovf"
    printf '</data></configuration></initialization></vm>\n'
} >"$work/vm.xml"
api vms -X POST -H 'Content-Type: application/xml' --data-binary "@$work/vm.xml" >"$work/answer" \
    || stop 'the engine does not take the machine' "look at the engine's events"
made=
if [ "$has_tpm" = yes ]; then
    printf '<vm><tpm_enabled>true</tpm_enabled></vm>' >"$work/tpm.xml"
    api "vms/$uuid" -X PUT -H 'Content-Type: application/xml' --data-binary "@$work/tpm.xml" >/dev/null \
        || printf 'register.sh: the machine is made, but its TPM is not: add it in the machine settings\n' >&2
fi
printf 'The machine is %s: start it in the engine once its disks are unlocked.\n' "$name"
