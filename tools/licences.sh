#!/bin/sh
# Writes packaging/appliance/licences.txt.zst: the licences of the libraries in the program, each text once, as it lies in the crates' sources.
# To be run after a change of Cargo.lock; tests/appliance says where it was not.
#
#   tools/licences.sh
set -eu
cd "$(dirname "$0")/.."
out=packaging/appliance/licences.txt.zst
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# What is linked into the program of the appliance, as tests/appliance asks for it, too.
cargo tree --locked -p landfall -e normal --target x86_64-unknown-linux-gnu --prefix none --no-dedupe -f '{p}|{l}' |
    grep -v '(/' | sed 's/ (.*)|/|/; s/ (\*)$//' | LC_ALL=C sort -u >"$work/crates"
cargo metadata --locked --format-version 1 --filter-platform x86_64-unknown-linux-gnu |
    jq -r '.packages[] | select(.source) | "\(.name) v\(.version)\t\(.manifest_path)\t\(.license_file // "")"' >"$work/places"

mkdir "$work/texts"
while IFS='|' read -r crate expression; do
    line=$(awk -F '\t' -v crate="$crate" '$1 == crate { print; exit }' "$work/places")
    [ -n "$line" ] || { echo "cargo metadata does not know $crate" >&2; exit 1; }
    folder=$(dirname "$(printf '%s' "$line" | cut -f 2)")
    named=$(printf '%s' "$line" | cut -f 3)
    found=
    for file in "$folder"/[Ll][Ii][Cc][Ee][Nn][CcSs][Ee]* "$folder"/[Cc][Oo][Pp][Yy][Ii][Nn][Gg]* "$folder"/[Cc][Oo][Pp][Yy][Rr][Ii][Gg][Hh][Tt]* \
        "$folder"/[Nn][Oo][Tt][Ii][Cc][Ee]* "$folder"/[Uu][Nn][Ll][Ii][Cc][Ee][Nn][Ss][Ee]* ${named:+"$folder/$named"}; do
        [ -f "$file" ] || continue
        case $file in *.rs) continue ;; esac
        found=yes
        # Ends of lines differ among copies of one text.
        tr -d '\r' <"$file" | sed 's/[[:space:]]*$//' >"$work/text"
        digest=$(sha256sum "$work/text" | cut -c 1-64)
        [ -e "$work/texts/$digest" ] || cp "$work/text" "$work/texts/$digest"
        printf '    %s\n' "$crate" >>"$work/texts/$digest.of"
    done
    printf '%s  %s%s\n' "$crate" "$expression" "${found:+}$([ -n "$found" ] || printf '  (its sources have no text: see those of that name below)')" >>"$work/list"
done <"$work/crates"

{
    echo 'The libraries in the program landfall, with the licences that they declare. Their sources are on https://crates.io.'
    echo
    cat "$work/list"
    # In the order of the first crate that has it.
    for of in "$work"/texts/*.of; do
        LC_ALL=C sort -u -o "$of" "$of"
        printf '%s\t%s\n' "$(head -n 1 "$of")" "${of%.of}"
    done | LC_ALL=C sort | cut -f 2 | while read -r text; do
        printf '\n%s\nThe text of\n\n' '------------------------------------------------------------------------'
        cat "$text.of"
        echo
        cat "$text"
    done
} >"$work/licences.txt"
zstd -q -19 -f -o "$out" "$work/licences.txt"
wc -l <"$work/list" | xargs printf '%s crates\n'
