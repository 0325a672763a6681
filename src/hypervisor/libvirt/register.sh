#!/bin/sh
# Registers this virtual machine with libvirt. Changes nothing where its name, id or a network address is taken.
#
#   ./register.sh                     define it, with its disks where they lie now
#   ./register.sh /var/lib/libvirt/images
#                                     copy the disks into that folder first
#
# The connection is LIBVIRT_DEFAULT_URI, or qemu:///system.
# A name may look like code, and a list may have one word.
# shellcheck disable=SC1003,SC1112,SC2016,SC2041,SC2043,SC2050,SC2066,SC2317
set -eu

name=@NAME@
uuid=@UUID@
macs=@MACS@
written_for=@FOLDER@

: "${LIBVIRT_DEFAULT_URI:=qemu:///system}"
export LIBVIRT_DEFAULT_URI
here=$(cd "$(dirname "$0")" && pwd)

@STOP@
command -v virsh >/dev/null 2>&1 || stop 'virsh is not here' 'install libvirt-clients (Debian) or libvirt-client (RHEL)'
virsh version >/dev/null 2>&1 || stop "no connection to $LIBVIRT_DEFAULT_URI" \
    'start libvirtd, join the group libvirt, or set LIBVIRT_DEFAULT_URI'

# The source's replica carries the same identity: never define a second machine with it.
if virsh dominfo --domain "$name" >/dev/null 2>&1; then
    stop "a machine with the name $name is here already" "virsh undefine it, or convert again with --name"
fi
if [ -n "$uuid" ] && virsh dominfo --domain "$uuid" >/dev/null 2>&1; then
    stop "a machine with the id $uuid is here already" 'it is another copy of this machine: undefine it first'
fi
for other in $(virsh list --all --uuid); do
    definition=$(virsh dumpxml "$other")
    for mac in $macs; do
        case $definition in
        *"$mac"*) stop "$(virsh domname "$other" | head -n 1) has a network card with the address $mac" \
            'it is another copy of this machine: undefine it first' ;;
        esac
    done
done

folder=$here
if [ $# -gt 0 ]; then
    folder=$(cd "$1" && pwd) || stop "there is no folder $1"
    for file in @FILES@; do
        [ ! -e "$folder/$file" ] || stop "$folder/$file exists already" \
            'choose another folder, or remove it if an earlier try left it'
    done
    for file in @FILES@; do
        cp --sparse=always "$here/$file" "$folder/.$file.partial" || {
            for partial in @FILES@; do rm -f "$folder/.$partial.partial"; done
            stop "cannot copy $file to $folder" 'free space there, or choose another folder'
        }
    done
    for file in @FILES@; do
        mv "$folder/.$file.partial" "$folder/$file"
    done
fi

# The definition names its disks by the folder that it was written for; this one may lie elsewhere by now.
definition=$(mktemp)
trap 'rm -f "$definition"' EXIT
TO=$(printf '%s' "$folder" | sed "s/&/\&amp;/g; s/</\&lt;/g; s/>/\&gt;/g; s/\"/\&quot;/g; s/'/\&apos;/g")
FROM=$written_for TO=$TO awk '
    BEGIN { from = ENVIRON["FROM"] "/"; to = ENVIRON["TO"] "/" }
    /<source file=|<nvram>/ {
        at = index($0, from)
        if (at) $0 = substr($0, 1, at - 1) to substr($0, at + length(from))
    }
    { print }
' "$here/domain.xml" >"$definition"
virsh define "$definition"
printf 'Start it with: virsh --connect %s start "%s"\n' "$LIBVIRT_DEFAULT_URI" "$name"
