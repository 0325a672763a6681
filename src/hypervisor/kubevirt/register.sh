#!/bin/sh
# Uploads the disks of this virtual machine and makes it in KubeVirt. Changes nothing where its name, its id or a network address
# is taken. Where an upload fails, the volumes of this run are taken away again.
#
#   ./register.sh [NAMESPACE]
#
# The cluster is kubectl's current one; NAMESPACE is its current one where it is not named. What virtctl needs to reach the
# upload proxy (--uploadproxy-url=..., --insecure) can be set in VIRTCTL_OPTIONS.
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
    namespace=$(kubectl config view --minify -o 'jsonpath={..namespace}')
    namespace=${namespace:-default}
fi
kubectl get namespace "$namespace" >/dev/null || stop "the namespace $namespace is not here, or the cluster does not answer" \
    'kubectl get namespaces shows those that are here'
for kind in virtualmachines.kubevirt.io datavolumes.cdi.kubevirt.io; do
    kubectl get crd "$kind" >/dev/null 2>&1 || stop "the cluster does not know $kind" 'install KubeVirt and CDI'
done

# The source's replica carries the same identity: never make a second machine with it.
if kubectl -n "$namespace" get virtualmachine "$name" >/dev/null 2>&1; then
    stop "a machine with the name $name is here already" 'delete it, or convert again with --name'
fi
for volume in @VOLUMES@; do
    if kubectl -n "$namespace" get datavolume "$volume" >/dev/null 2>&1 \
        || kubectl -n "$namespace" get persistentvolumeclaim "$volume" >/dev/null 2>&1; then
        stop "a volume with the name $volume is here already" 'delete it if an earlier try left it, or convert again with --name'
    fi
done
others=$(kubectl get virtualmachines --all-namespaces -o 'jsonpath={range .items[*]}{.metadata.namespace}/{.metadata.name}{" "}{.spec.template.spec.domain.firmware.uuid}{" "}{.spec.template.spec.domain.devices.interfaces[*].macAddress}{"\n"}{end}' | tr '[:upper:]' '[:lower:]')
for id in $uuid $macs; do
    other=$(printf '%s\n' "$others" | awk -v id="$id" '{ for (n = 2; n <= NF; n++) if ($n == id) { print $1; exit } }')
    [ -z "$other" ] || stop "the machine $other has $id" 'it is another copy of this machine: delete it first'
done
for network in $networks; do
    case $network in
    */*) where=${network%%/*} what=${network#*/} ;;
    *) where=$namespace what=$network ;;
    esac
    kubectl -n "$where" get network-attachment-definition "$what" >/dev/null 2>&1 \
        || stop "there is no network attachment definition $what in $where" 'make it, or convert again with --network'
done
kubectl -n "$namespace" create --dry-run=server -f "$here/virtualmachine.yaml" >/dev/null \
    || stop 'the cluster does not take the machine' 'its answer stands above'

made=
remove() {
    [ -z "$made" ] || kubectl -n "$namespace" delete -f "$here/datavolumes.yaml" --ignore-not-found || :
}
trap remove EXIT
trap 'exit 1' HUP INT TERM

upload() {
    # shellcheck disable=SC2086 # words are wanted
    virtctl image-upload dv "$1" --no-create --namespace "$namespace" --image-path "$here/$2" ${VIRTCTL_OPTIONS:-} \
        || stop "cannot upload $2" 'set VIRTCTL_OPTIONS (see the top of this script) where the proxy cannot be reached'
}

made=yes
kubectl -n "$namespace" create -f "$here/datavolumes.yaml"
@UPLOADS@
kubectl -n "$namespace" create -f "$here/virtualmachine.yaml"
made=
printf 'Start it with: virtctl start --namespace %s %s\n' "$namespace" "$name"
