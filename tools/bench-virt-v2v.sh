#!/bin/sh
# Times the whole conversion of one machine, patch included, against virt-v2v on the same machine in the same run.
#   tools/bench-virt-v2v.sh [MACHINE.vmx]      default: the guest of `make demo`
# Without KVM virt-v2v takes many minutes. RUNS=3 takes the median of three (virt-v2v runs once).
set -eu
cd "$(dirname "$0")/.."

landfall=target/landfall
vmx=${1:-target/demo/source/web01.vmx}
runs=${RUNS:-3}
tools/make-guest.sh bios-ext4 target/demo/source
if ! command -v virt-v2v >/dev/null 2>&1; then
    if [ "$(id -u)" = 0 ]; then as_root=''; else as_root=sudo; fi
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=600 install -y --no-install-recommends \
        virt-v2v libguestfs-tools libguestfs-xfs >/dev/null
fi
work=$(mktemp -d "${TMPDIR:-target}/bench.XXXXXX")
trap 'rm -rf "$work"' EXIT

now() { date +%s.%N; }
took() { awk -v a="$1" -v b="$(now)" 'BEGIN { printf "%.2f\n", b - a }'; }

ours=$work/ours
for n in $(seq "$runs"); do
    start=$(now)
    "$landfall" --quiet convert "$vmx" --to kvm -o "$work/$n" >/dev/null
    took "$start" >>"$ours"
    rm -rf "${work:?}/$n"
done
median=$(sort -n "$ours" | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }')

mkdir "$work/v2v"
start=$(now)
LIBGUESTFS_BACKEND=direct LIBGUESTFS_BACKEND_SETTINGS=force_tcg \
    virt-v2v -i vmx "$vmx" -o local -os "$work/v2v" -of qcow2 >"$work/v2v.log" 2>&1 || { tail -n 20 "$work/v2v.log" >&2; exit 1; }
theirs=$(took "$start")

awk -v ours="$median" -v first="$(head -n 1 "$ours")" -v theirs="$theirs" 'BEGIN {
    printf "landfall, first run          %8.2f s\n", first
    printf "landfall, median of the runs %8.2f s\n", ours
    printf "virt-v2v                     %8.2f s\n", theirs
    printf "virt-v2v / landfall          %8.1f\n", theirs / ours
}'
