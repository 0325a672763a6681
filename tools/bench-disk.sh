#!/bin/sh
# Makes what the benchmark of disk conversion needs, once: a real Debian system of about 1 GiB on an ext4 disk, and the
# newest qemu-img at hand.
#   tools/bench-disk.sh FOLDER       writes FOLDER/guest.raw and FOLDER/qemu-img (a script)
set -eu
folder=${1:?usage: tools/bench-disk.sh FOLDER}
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
PATH=$PATH:/usr/sbin:/sbin
if [ "$(id -u)" = 0 ]; then as_root=''; else as_root=sudo; fi
work=''
clean_up() { [ -z "$work" ] || $as_root rm -rf "$work"; }
trap clean_up EXIT

if [ ! -e "$folder/guest.raw" ]; then
    echo "Making a disk with a Debian system of about 1 GiB, once: this takes some minutes"
    work=$(mktemp -d "$folder/.build.XXXXXX")
    $as_root mmdebstrap --quiet --variant=important \
        --include=linux-image-amd64,systemd-sysv,openssh-server,build-essential,python3,git,vim,perl,tcpdump,postgresql,nginx-core \
        "${SUITE:-bookworm}" "$work/root"
    # As the system will be used: package lists and the archives of some packages stay where they are.
    truncate -s 10G "$work/disk"
    $as_root mkfs.ext4 -q -F -d "$work/root" "$work/disk"
    mv "$work/disk" "$folder/guest.raw"
    clean_up
    work=''
fi

if [ ! -x "$folder/qemu-img" ]; then
    work=$(mktemp -d "$folder/.build.XXXXXX")
    newest=''
    # A newer release's package runs with its own libraries.
    if $as_root mmdebstrap --quiet --variant=extract --include=qemu-utils "${QEMU_SUITE:-trixie}" "$work/qemu" 2>"$work/log"; then
        rm -rf "$folder/qemu"
        mv "$work/qemu" "$folder/qemu"
        # Where a release has no links from /lib64 and /lib yet, they lie in /usr all the same.
        libraries=usr/lib/x86_64-linux-gnu
        newest="$folder/qemu/$libraries/ld-linux-x86-64.so.2 --library-path $folder/qemu/$libraries $folder/qemu/usr/bin/qemu-img"
        $newest --version >/dev/null 2>&1 || newest=''
    fi
    [ -n "$newest" ] || newest=$(command -v qemu-img)
    printf '#!/bin/sh\nexec %s "$@"\n' "$newest" >"$folder/qemu-img"
    chmod +x "$folder/qemu-img"
fi
"$folder/qemu-img" --version | head -n 1
