#!/bin/sh
# Makes what the tests need, beside the compiler: both take minutes, and neither needs the other.
# What the makers print is in target/prepare.log.
set -eu
log=target/prepare.log
mkdir -p target
make_all() {
    tools/fetch-readers.sh target
    tools/fetch-checkers.sh target
    tools/make-vcsim.sh target
    tools/make-arrays.sh target/arrays
    tools/make-trees.sh target/guests
    # The guests that are booted. Where one cannot be made, its tests say so.
    SUITE=bookworm tools/make-guest.sh bios-ext4 target/guests/bookworm-bios-ext4 || :
    SUITE=bookworm tools/make-guest.sh bios-lvm target/guests/bookworm-bios-lvm || :
    SUITE=trixie tools/make-guest.sh uefi-lvm-xfs target/guests/trixie-uefi-lvm-xfs || :
}
(set -eu; make_all) >"$log" 2>&1 &
makers=$!
trap 'kill "$makers" 2>/dev/null || :' EXIT
"${CARGO:-cargo}" test --workspace --no-run
echo "Waiting for what the tests need ($log)"
if ! wait "$makers"; then
    tail -n 40 "$log" >&2
    exit 1
fi
trap - EXIT
grep '^SKIPPED' "$log" || :
