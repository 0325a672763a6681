#!/bin/sh
# Uploads the disks of this virtual machine and makes it in KubeVirt. Changes nothing where its name, its id or a network address
# is taken. Where something fails, the volumes of this run are taken away again.
#
#   ./register.sh [NAMESPACE]
#
# The cluster is kubectl's current one; NAMESPACE is its current one where it is not named. What virtctl needs to reach the
# upload proxy (--uploadproxy-url=..., --insecure) can be set in VIRTCTL_OPTIONS.
# A name may look like code, and a list may have one word.
# shellcheck disable=SC1003,SC1112,SC2016,SC2041,SC2043,SC2050,SC2066,SC2317
set -eu

name=@NAME@
uuid=@UUID@
macs=@MACS@
networks=@NETWORKS@

here=$(cd "$(dirname "$0")" && pwd)

@STOP@
for tool in kubectl virtctl; do
    command -v "$tool" >/dev/null 2>&1 || stop "$tool is not here" 'install the cluster'"'"'s version of it'
done
for file in @FILES@; do
    [ -f "$here/$file" ] || stop "$here/$file is not here" 'copy the whole output folder'
done
if [ $# -gt 0 ]; then
    namespace=$1
else
    namespace=$(kubectl config view --minify -o 'jsonpath={..namespace}') ||
        stop 'kubectl does not tell its namespace' 'its answer stands above; name a namespace: ./register.sh NAMESPACE'
    namespace=${namespace:-default}
fi
# KubeVirt and CDI are asked for by what a user of the namespace may do, which is not to look at the cluster's definitions.
for kind in virtualmachines.kubevirt.io datavolumes.cdi.kubevirt.io; do
    kubectl -n "$namespace" get "$kind" -o name >/dev/null || stop "the cluster does not answer, does not know $kind, or does not show them" \
        "its answer stands above: install KubeVirt and CDI, or ask for the right to read and create them in $namespace"
    kubectl -n "$namespace" auth can-i create "$kind" >/dev/null || stop "you may not create $kind in $namespace" \
        'ask for that right, or name another namespace'
done

# found KIND NAME: what is there; the script ends where that is not known.
found() {
    kubectl -n "$namespace" get "$1" "$2" --ignore-not-found -o name || stop "cannot look for the $1 $2" 'the answer of kubectl stands above'
}
# The source's replica carries the same identity: never make a second machine with it.
other=$(found virtualmachines.kubevirt.io "$name") || exit 1
[ -z "$other" ] || stop "a machine with the name $name is here already" 'delete it, or convert again with --name'
for volume in @VOLUMES@; do
    for kind in datavolumes.cdi.kubevirt.io persistentvolumeclaims; do
        other=$(found "$kind" "$volume") || exit 1
        [ -z "$other" ] || stop "a volume with the name $volume is here already" \
            'delete it if an earlier try left it, or convert again with --name'
    done
done
where=--all-namespaces
if ! kubectl auth can-i list virtualmachines.kubevirt.io --all-namespaces >/dev/null 2>&1; then
    where=--namespace=$namespace
    echo "The machines of other namespaces cannot be seen: only those of $namespace are searched for another copy of this one."
fi
others=$(kubectl get virtualmachines.kubevirt.io "$where" -o 'jsonpath={range .items[*]}{.metadata.namespace}/{.metadata.name}{" "}{.spec.template.spec.domain.firmware.uuid}{" "}{.spec.template.spec.domain.devices.interfaces[*].macAddress}{"\n"}{end}') \
    || stop 'cannot list the machines' 'the answer of kubectl stands above'
others=$(printf '%s\n' "$others" | tr '[:upper:]' '[:lower:]')
for id in $uuid $macs; do
    other=$(printf '%s\n' "$others" | awk -v id="$id" '{ for (n = 2; n <= NF; n++) if ($n == id) { print $1; exit } }')
    [ -z "$other" ] || stop "the machine $other has $id" 'it is another copy of this machine: delete it first'
done
for network in $networks; do
    case $network in
    */*) where=${network%%/*} what=${network#*/} ;;
    *) where=$namespace what=$network ;;
    esac
    kubectl -n "$where" get network-attachment-definition "$what" >/dev/null \
        || stop "there is no network attachment definition $what in $where, or it is not shown" 'make it, or convert again with --network'
done
kubectl -n "$namespace" create --dry-run=server -f "$here/virtualmachine.yaml" >/dev/null \
    || stop 'the cluster does not take the machine' 'its answer stands above'

# The volumes that this run made, the newest first.
made=
remove() {
    for volume in $made; do
        kubectl -n "$namespace" delete datavolumes.cdi.kubevirt.io "$volume" --ignore-not-found || :
    done
}
trap remove EXIT
trap 'exit 1' HUP INT TERM

# volume NUMBER NAME FILE: makes the volume by its own part of the file, and fills it.
volume() {
    awk -v number="$1" '/^---$/ { at++; next } at == number' "$here/datavolumes.yaml" | kubectl -n "$namespace" create -f - \
        || stop "cannot make the volume $2" 'the answer of kubectl stands above'
    made="$2 $made"
    # shellcheck disable=SC2086 # words are wanted
    virtctl image-upload dv "$2" --no-create --namespace "$namespace" --image-path "$here/$3" ${VIRTCTL_OPTIONS:-} \
        || stop "cannot upload $3" 'set VIRTCTL_OPTIONS (see the top of this script) where the proxy cannot be reached'
}
@UPLOADS@
kubectl -n "$namespace" create -f "$here/virtualmachine.yaml"
made=
printf 'Start it with: virtctl start --namespace %s %s\n' "$namespace" "$name"
