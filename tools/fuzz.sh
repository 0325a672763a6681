#!/bin/sh
# Fuzzes the parsers: tools/fuzz.sh SECONDS [TARGET…]. Each target (all, if none is named) runs for that long, one
# process at a time. What is learnt stays in fuzz/corpus, what is found in fuzz/artifacts; either makes the script fail:
# a panic, an input that takes longer than TIMEOUT seconds, more memory than fuzz/src/lib.rs allows.
# Works with the compiler that builds the rest: what cargo-fuzz asks a nightly one for is a flag here.
set -eu
cd "$(dirname "$0")/../fuzz"
seconds=${1:?usage: tools/fuzz.sh SECONDS [TARGET...]}
shift
TIMEOUT=${TIMEOUT:-20}
[ $# -gt 0 ] || set -- qcow2 vmdk vhdx vhd vdi luks partitions ova xva xen_definition vmcx nbd_client nbd_server \
    nbd_receiver hive hive_log reg_file inf iso send_frames rbd_stream
if ! command -v c++ >/dev/null 2>&1; then
    echo 'SKIPPED: fuzzing: libFuzzer is built with a C++ compiler, and there is none (apt-get install g++)' >&2
    exit 0
fi
host=$(rustc -vV | sed -n 's/^host: //p')
host=$(echo "$host" | sed 's/-musl$/-gnu/')
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$PWD/../target}/fuzz"

# The seeds, without instrumentation; again when there are new ones.
[ -n "$(find corpus/.seeded -newer src/bin/seeds.rs 2>/dev/null)" ] || {
    corpus=${LANDFALL_CORPUS:-../../shared/corpus}
    [ -f "$corpus/MANIFEST.tsv" ] || { echo "SKIPPED: seeds from real images: no corpus at $corpus" >&2; corpus=; }
    cargo run --quiet --release --bin seeds -- corpus ${corpus:+"$corpus"}
    touch corpus/.seeded
}

# The passes of LLVM that tell libFuzzer where a run went and what was compared.
flags='-Cpasses=sancov-module'
for option in level=4 inline-8bit-counters pc-table trace-compares; do
    flags="$flags -Cllvm-args=-sanitizer-coverage-$option"
done
export RUSTFLAGS="$flags --cfg fuzzing -Ccodegen-units=1"
bins=
for target; do bins="$bins --bin $target"; done
# shellcheck disable=SC2086 # words
if ! nice -n 19 cargo build --quiet --release --target "$host" $bins; then
    echo 'fuzz.sh: the targets cannot be built' >&2
    exit 1
fi

failed=
for target; do
    mkdir -p "corpus/$target" "artifacts/$target"
    echo "== $target, $seconds s, $(find "corpus/$target" -type f | wc -l) inputs"
    log=$(mktemp)
    if nice -n 19 "$CARGO_TARGET_DIR/$host/release/$target" -max_total_time="$seconds" -timeout="$TIMEOUT" \
        -rss_limit_mb=1024 -max_len=196608 -reload=0 -print_final_stats=1 -use_value_profile="${VALUE_PROFILE:-0}" \
        -artifact_prefix="artifacts/$target/" "corpus/$target" >"$log" 2>&1; then
        grep -E '^(stat::number_of_executed|Done|#.*DONE)' "$log" || true
    else
        tail -n 60 "$log" >&2
        failed="$failed $target"
    fi
    rm -f "$log"
done
[ -z "$failed" ] || { echo "fuzz.sh: found something in:$failed (fuzz/artifacts)" >&2; exit 1; }
