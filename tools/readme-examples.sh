#!/bin/sh
# Prints the README's examples with their real output, from the guest of `make demo`.  usage: tools/readme-examples.sh
# Paste them between the markers of README.md when something that they show has changed.
set -eu
cd "$(dirname "$0")/.."
root=$PWD
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
ln -s "$root/target/demo/source/web01.vmx" "$root/target/demo/source/web01.vmdk" "$work/"
cp "$root/target/demo/source/web01.vmx" "$work/copy.vmx"
rm "$work/web01.vmx"
mv "$work/copy.vmx" "$work/web01.vmx"
cd "$work"
landfall() { "$root/target/landfall" --allow "$root/target/demo/source" "$@" 2>/dev/null | sed "s|$work|/srv|g"; }

say() { printf '\n%s\n\n' "$*"; }
show() {
    printf '```\n$ %s\n' "$*"
    "$@"
    printf '```\n'
}

say '**What stands between this machine and KVM, and what would be done.** Only reads; where the guest lies on plain ext4 it takes milliseconds.'
show landfall inspect web01.vmx --to kvm
say '**Convert it.** The same report, then what was written and what comes next.'
printf '```\n$ landfall convert web01.vmx --to kvm -o ashore\n…\n'
landfall convert web01.vmx --to kvm -o ashore | sed -n '/^Written to/,$p'
printf '```\n'
say '**Prove that it boots** on the target’s devices, from a throw-away overlay, without a route out. The serial log, a screenshot and `proof.json` are the evidence.'
show landfall prove ashore/web01
say '**One disk image** of any format: what it is, another format, and whether both hold the same.'
show landfall disk info web01.vmdk
show landfall disk convert web01.vmdk web01.qcow2 --compress zstd
show landfall disk compare web01.vmdk web01.qcow2
show landfall disk check web01.qcow2
# A copy that broke off in its last MiB, and has lost one of its two headers.
head -c 5000000 /dev/urandom >files.raw
truncate -s 1G files.raw
landfall disk convert files.raw files.vhdx >files.log
truncate -s -1M files.vhdx
dd if=/dev/zero of=files.vhdx bs=4096 seek=16 count=1 conv=notrunc status=none
show landfall disk check files.vhdx
show landfall disk convert web01.vmdk web01-stream.vmdk -O vmdk-stream
# For the section on JSON.
show landfall disk compare web01.vmdk web01.qcow2 --json
# For the section on images.
show landfall inspect web01.qcow2
show landfall convert web01.qcow2 --to kvm --name image --memory 1G --cpus 2 --nic 00:50:56:20:30:40 -o ashore
say '**What a finding means**, offline.'
show landfall explain linux-agent-inert
