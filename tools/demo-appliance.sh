#!/bin/sh
# The second half of the demonstration: the appliance is booted, the disk of a running machine is mirrored into it over NBD with TLS, the
# source is cut off, and the machine is recovered on the target's virtual hardware.
#
# Nobody has to answer anything. Needs the ports 8470 and 10809 of this host; everything it makes is in target/demo.
set -eu
cd "$(dirname "$0")/.."

landfall=$PWD/target/landfall
source=target/demo/source
work=target/demo/appliance
service=https://localhost:8470
say() { printf '\n\033[1m== %s\033[0m\n' "$1"; }
fail() { echo "demo-appliance.sh: $1" >&2; exit 1; }
run() {
    printf '$ landfall %s\n' "$*"
    "$landfall" "$@"
}
# What a console shows, without its movements.
shown() { sed 's/\x1b\[[0-9;?]*[a-zA-Z]/ /g' "$work/console.log" 2>/dev/null | tr -d '\000' | tr '\r\n' '  '; }
# Waits for a pattern on the appliance's console.
wait_for() {
    left=600
    until shown | grep -qE "$1"; do
        kill -0 "$appliance" 2>/dev/null || fail "the appliance ended; its console: $work/console.log"
        left=$((left - 1))
        [ "$left" -gt 0 ] || fail "the appliance's console does not show $1: $work/console.log"
        sleep 1
    done
}

appliance='' machine=''
clean_up() {
    for one in $appliance $machine; do kill "$one" 2>/dev/null || :; done
}
trap clean_up EXIT

# Emulated: slower than KVM, and the same everywhere.
accel=tcg cpu=max,cx16=off

say 'A machine that runs on VMware hardware'
tools/make-guest.sh bios-ext4 "$source"
rm -rf "$work" target/demo/recovered
mkdir -p "$work"
qemu-img create -q -f qcow2 -F vmdk -b "$PWD/$source/web01.vmdk" "$work/web01.qcow2"
qemu-system-x86_64 -accel $accel -cpu $cpu -m 512 -display none -nic none -device pvscsi -device scsi-hd,drive=disk0 \
    -blockdev driver=qcow2,node-name=disk0,file.driver=file,file.filename="$work/web01.qcow2" \
    -serial "file:$work/web01.log" -qmp "unix:$work/web01.qmp,server=on,wait=off" &
machine=$!

say 'The appliance: built, and booted with an empty disk for the vault'
image=target/demo/image/landfall.qcow2
[ "$image" -nt "$landfall" ] || LANDFALL=$landfall tools/appliance.sh target/demo/image qcow2 >/dev/null
qemu-img create -q -f qcow2 -F qcow2 -b "$PWD/$image" "$work/system.qcow2"
truncate -s 16G "$work/vault.raw"
qemu-system-x86_64 -accel $accel -cpu $cpu -m 1024 -smp 2 -display none \
    -drive "file=$work/system.qcow2,format=qcow2,if=virtio" -drive "file=$work/vault.raw,format=raw,if=virtio" \
    -nic user,model=virtio-net-pci,hostfwd=tcp:127.0.0.1:8470-:8470,hostfwd=tcp:127.0.0.1:10809-:10809 \
    -serial "file:$work/console.log" &
appliance=$!
wait_for 'lf_[0-9a-f]{64}'
half='([0-9A-F]{2}:){15}[0-9A-F]{2}'
wait_for "SHA-256 +$half +$half"

say 'What the administrator reads off its console: a token, and the fingerprint of its authority'
LANDFALL_TOKEN=$(shown | grep -oE 'lf_[0-9a-f]{64}' | tail -n 1)
LANDFALL_SERVICE=$service
export LANDFALL_TOKEN LANDFALL_SERVICE
fingerprint=$(shown | grep -oE "SHA-256 +$half +$half" | tail -n 1 | grep -oE "$half" | tr '\n' ':' | sed 's/:$//')
echo "$fingerprint"
cd "$work"
run certificate trust $service --fingerprint "$fingerprint"
run certificate add hypervisor --send --tls-ca ca-cert.pem
run certificate add recovery --recover --tls-ca ca-cert.pem
cd - >/dev/null
ca=$work/ca-cert.pem

say 'Protected: QEMU mirrors the running disk over TLS'
size=$(qemu-img info --output json "$source/web01.vmdk" | sed -n 's/.*"virtual-size": \([0-9]*\).*/\1/p' | head -n 1)
run protect web01 "$source/web01.vmx" --disk "scsi0-0=$size" --tls-ca "$ca"
export_name=$("$landfall" --json status web01 --tls-ca "$ca" | sed -n 's/.*"export": *"\([^"]*\)".*/\1/p' | head -n 1)
tools/qmp.py "$work/web01.qmp" \
    object-add '{"qom-type": "tls-creds-x509", "id": "tls0", "endpoint": "client", "dir": "'"$work"'/hypervisor"}' \
    blockdev-add '{"driver": "nbd", "node-name": "there", "server": {"type": "inet", "host": "localhost", "port": "10809"},
        "export": "'"$export_name"'", "tls-creds": "tls0", "reconnect-delay": 25}' \
    blockdev-mirror '{"job-id": "mirror", "device": "disk0", "target": "there", "sync": "full", "copy-mode": "write-blocking"}' \
    event:BLOCK_JOB_READY
left=300
until "$landfall" -q status web01 --tls-ca "$ca" >/dev/null 2>&1; do
    left=$((left - 1))
    [ "$left" -gt 0 ] || { "$landfall" status web01 --tls-ca "$ca"; fail 'web01 is not protected'; }
    sleep 1
done
# The machine has to be up: what is recovered is a running one.
left=600
until grep -aq 'login:' "$work/web01.log"; do
    left=$((left - 1))
    [ "$left" -gt 0 ] || fail "web01 does not come up: $work/web01.log"
    sleep 1
done
sleep 10
run status --tls-ca "$ca"

say 'The source is gone'
kill -9 "$machine"
wait "$machine" 2>/dev/null || :
machine=''
sleep 2
"$landfall" status --tls-ca "$ca" || :

say 'Its last point, patched for KVM and booted on virtio: the proof'
set -- --tls-ca "$ca" --tls-cert "$work/recovery/client-cert.pem" --tls-key "$work/recovery/client-key.pem"
run prove point:web01@latest --to kvm -o "$work/proof" "$@"
run points evidence web01 --tls-ca "$ca"

say 'Recovered: a machine that is ready to register'
run convert point:web01@latest --to kvm -o target/demo/recovered "$@"
ls -l target/demo/recovered/web01
printf '\nThe picture and the console of the trial: %s/proof\n' "$work"
