#!/bin/sh
# The demonstration: a Debian guest that boots on VMware's hardware only becomes a KVM machine that boots.
set -eu
cd "$(dirname "$0")/.."

landfall=target/landfall
source=target/demo/source
out=target/demo/out
say() { printf '\n\033[1m== %s\033[0m\n' "$1"; }
run() {
    printf '$ %s\n' "$*"
    "$@"
}

say 'A guest that knows VMware only'
tools/make-guest.sh bios-ext4 "$source"
grep -v '^\.encoding' "$source/web01.vmx"
before=$(cat "$source/web01.vmdk" "$source/web01.vmx" | sha256sum)

say 'As it is, it does not boot on virtio'
rm -rf target/demo/before "$out"
run "$landfall" prove "$source/web01.vmx" --to kvm --expect-failure -o target/demo/before

say 'What stands in the way'
run "$landfall" inspect "$source/web01.vmx" --to kvm

say 'Converted'
run "$landfall" convert "$source/web01.vmx" --to kvm -o "$out"

say 'Proved'
run "$landfall" prove "$out/web01"

after=$(cat "$source/web01.vmdk" "$source/web01.vmx" | sha256sum)
[ "$before" = "$after" ] || { echo 'demo.sh: the source was changed' >&2; exit 1; }
printf '\nThe source is byte for byte what it was. The evidence: %s/web01/proof/\n' "$out"
