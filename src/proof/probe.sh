#!/bin/sh
# Part of a boot trial; lives in a throw-away copy only. Tells on the second serial line what this machine sees.
port=/dev/ttyS1
say() { echo "LANDFALL $*" >"$port"; }

tries=0
until systemctl is-active --quiet multi-user.target; do
    tries=$((tries + 1))
    [ "$tries" -lt 1800 ] || exit 1
    sleep 0.5
done
say multi-user
say kernel "$(uname -r)"
while read -r device at type rest; do
    [ "$at" != / ] || root="$device $type"
done </proc/mounts
say root "$root"

# A network that is configured in the background may take a little longer.
tries=0
while [ "$tries" -lt 20 ] && [ -z "$(ip -o addr show scope global 2>/dev/null)" ]; do
    tries=$((tries + 1))
    sleep 0.5
done
for path in /sys/class/net/*; do
    name=${path##*/}
    [ "$name" != lo ] || continue
    driver=none
    [ ! -e "$path/device/driver" ] || driver=$(basename "$(readlink -f "$path/device/driver")")
    say net "$name" "$(cat "$path/address")" "$driver"
    ip -o addr show dev "$name" 2>/dev/null | while read -r number device family address rest; do
        say address "$name" "$address"
    done
done
systemctl --failed --no-legend --plain 2>/dev/null | while read -r unit rest; do
    say failed "$unit"
done
say end
