#!/bin/sh
# Runs the whole test suite and says at its end what was skipped, and why: a skipped test looks like one that passed.
# Everything that the tests printed is in target/test.log.
set -eu
log=target/test.log
# Many tests wait: for time-outs, for sockets, for a machine's place.
threads=$(($(nproc) + 1))
mkdir -p target
rm -f target/test.status
{ ${CARGO:-cargo} test --workspace "$@" -- --show-output --test-threads "$threads" 2>&1 || echo $? >target/test.status; } | tee "$log" |
    awk '/^successes:$/ { quiet = 1 } /^(failures:|test result:)/ { quiet = 0 } !quiet { print; fflush() }'
skips=$(grep -c '^SKIPPED' "$log") || :
if [ "$skips" != 0 ]; then
    printf '\n%s parts of the tests were SKIPPED:\n' "$skips"
    grep '^SKIPPED' "$log" | sort | uniq -c | sort -rn
fi
[ ! -e target/test.status ] || exit "$(cat target/test.status)"
