#!/bin/sh
# Installs what is missing on Debian 12 and 13 (and relatives): tools/setup.sh build|demo|test
# A package is installed only where its command is absent, so that newer versions which are here stay.
set -eu

# The oldest compiler that builds the workspace: rust-version in Cargo.toml.
root=$(cd "$(dirname "$0")/.." && pwd)
oldest=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$root/Cargo.toml" | head -n 1)

if [ "$(id -u)" = 0 ]; then as_root=''; else as_root=sudo; fi
missing=''

# need COMMAND-or-FILE PACKAGE
need() {
    case $1 in
    /*) [ -e "$1" ] || missing="$missing $2" ;;
    *) PATH=$PATH:/usr/sbin:/sbin command -v "$1" >/dev/null 2>&1 || missing="$missing $2" ;;
    esac
}

install_missing() {
    [ -n "$missing" ] || return 0
    if ! command -v apt-get >/dev/null 2>&1; then
        printf 'setup.sh: these Debian packages are missing, and there is no apt-get here:%s\n' "$missing" >&2
        exit 1
    fi
    if [ -n "$as_root" ] && ! command -v sudo >/dev/null 2>&1; then
        printf 'setup.sh: run as root, or install sudo: these packages are missing:%s\n' "$missing" >&2
        exit 1
    fi
    printf 'Installing:%s\n' "$missing"
    log=$(mktemp)
    # shellcheck disable=SC2086 # words are wanted
    if ! { $as_root apt-get update &&
        $as_root env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=600 install -y --no-install-recommends $missing; } >"$log" 2>&1; then
        tail -n 30 "$log" >&2
        rm -f "$log"
        exit 1
    fi
    rm -f "$log"
    missing=''
}

new_enough() {
    command -v cargo >/dev/null 2>&1 && command -v rustc >/dev/null 2>&1 || return 1
    have=$(rustc --version 2>/dev/null | cut -d' ' -f2 | cut -d- -f1)
    [ -n "$have" ] && [ "$(printf '%s\n%s\n' "$oldest" "$have" | sort -V | head -n 1)" = "$oldest" ]
}

rust() {
    PATH=$HOME/.cargo/bin:$PATH
    export PATH
    new_enough && return 0
    need curl curl
    need /etc/ssl/certs/ca-certificates.crt ca-certificates
    install_missing
    echo "Installing a Rust toolchain (at least $oldest) with rustup, for this user only"
    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --profile minimal \
        --component clippy,rustfmt --default-toolchain stable --no-modify-path
    new_enough || { echo "setup.sh: the toolchain is still older than $oldest" >&2; exit 1; }
}

case ${1:-} in
build)
    need cc gcc
    need /usr/include/stdio.h libc6-dev
    install_missing
    rust
    ;;
demo)
    need qemu-system-x86_64 qemu-system-x86
    need qemu-img qemu-utils
    need bwrap bubblewrap
    need /usr/share/OVMF/OVMF_CODE_4M.fd ovmf
    need mmdebstrap mmdebstrap
    need mkfs.ext4 e2fsprogs
    need sfdisk fdisk
    need zstd zstd
    need xz xz-utils
    need depmod kmod
    install_missing
    ;;
test)
    need mkfs.xfs xfsprogs
    need xfs_repair xfsprogs
    need mkfs.vfat dosfstools
    need mcopy mtools
    need sgdisk gdisk
    need blkid util-linux
    need pvcreate lvm2
    need cpio cpio
    need lz4 lz4
    need xmllint libxml2-utils
    need virsh libvirt-clients
    need libvirtd libvirt-daemon
    need "/usr/lib/$(uname -m)-linux-gnu/libvirt/connection-driver/libvirt_driver_qemu.so" libvirt-daemon-driver-qemu
    need setpriv util-linux
    install_missing
    ;;
*)
    echo "usage: tools/setup.sh build|demo|test" >&2
    exit 2
    ;;
esac
