#!/bin/sh
# Installs what is missing on Debian 12 and 13 (and relatives): tools/setup.sh build|check|demo|test
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

# Runs apt-get, waiting for another one that is at work (apt-daily, unattended-upgrades); silent when all is well.
# Packages that are installed are never removed for ours.
apt_get() {
    if ! command -v apt-get >/dev/null 2>&1; then
        printf 'setup.sh: there is no apt-get here; install by hand what these Debian packages hold:%s\n' "$missing" >&2
        exit 1
    fi
    if [ -n "$as_root" ] && ! command -v sudo >/dev/null 2>&1; then
        printf 'setup.sh: run as root, or install sudo; these packages are missing:%s\n' "$missing" >&2
        exit 1
    fi
    log=$(mktemp)
    left=60
    until $as_root env DEBIAN_FRONTEND=noninteractive NEEDRESTART_MODE=a LC_ALL=C \
        apt-get -o DPkg::Lock::Timeout=600 -o Dpkg::Use-Pty=0 "$@" >"$log" 2>&1; do
        left=$((left - 1))
        if [ "$left" = 0 ] || ! grep -q 'Could not get lock' "$log"; then
            tail -n 30 "$log" >&2
            rm -f "$log"
            return 1
        fi
        sleep 10
    done
    rm -f "$log"
}

# Once a run. A source that cannot be reached is not the end: the packages may be known already.
refreshed=''
refresh() {
    [ -z "$refreshed" ] || return 0
    refreshed=yes
    apt_get update || echo 'setup.sh: apt-get update failed; going on with the lists that are here' >&2
}

# A qemu-utils that is newer than this release's emulator excludes it (a backport whose source is no longer listed). The
# two come from one source package: the release's own version takes its place, and nothing is removed. Prints what
# apt-get has to be told besides the packages.
own_qemu_utils() {
    case "$missing " in *' qemu-system-x86 '*) ;; *) return 0 ;; esac
    # shellcheck disable=SC2086 # words are wanted
    LC_ALL=C apt-get -s install --no-install-recommends $missing 2>/dev/null | grep -q '^Remv qemu-utils ' || return 0
    own=$(LC_ALL=C apt-cache policy qemu-system-x86 | sed -n 's/^  Candidate: //p')
    echo "setup.sh: the installed qemu-utils does not go with this release's qemu-system-x86; replacing it by $own" >&2
    echo "--allow-downgrades qemu-utils=$own"
}

install_missing() {
    [ -n "$missing" ] || return 0
    printf 'Installing:%s\n' "$missing"
    refresh
    # shellcheck disable=SC2086 # words are wanted
    apt_get install -y --no-remove --no-install-recommends $missing $(own_qemu_utils) || {
        printf 'setup.sh: cannot install:%s\n' "$missing" >&2
        exit 1
    }
    missing=''
}

# at_least OLDEST VERSION
at_least() {
    [ -n "$2" ] && [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1)" = "$1" ]
}

new_enough() {
    command -v cargo >/dev/null 2>&1 && command -v rustc >/dev/null 2>&1 || return 1
    at_least "$oldest" "$(rustc --version 2>/dev/null | cut -d' ' -f2 | cut -d- -f1)"
}

# The version of a package that apt-get would install.
candidate() {
    LC_ALL=C apt-cache policy "$1" 2>/dev/null | sed -n 's/^  Candidate: \([0-9][^+~-]*\).*/\1/p'
}

installed() {
    dpkg-query -W -f '${Status}' "$1" 2>/dev/null | grep -q ' installed$'
}

# A toolchain: the one that is here; Debian's own where it is new enough (rustc, or rustc-web, which follows the browsers'
# needs, of the same release); else rustup's, for this user only.
rust() {
    new_enough && return 0
    if ! command -v rustup >/dev/null 2>&1 && command -v apt-cache >/dev/null 2>&1; then
        refresh
        for kind in '' -web; do
            at_least "$oldest" "$(candidate "rustc$kind")" || continue
            at_least "$oldest" "$(candidate "cargo$kind")" || continue
            # The two kinds exclude each other: an older one that somebody chose stays.
            for other in rustc cargo rustc-web cargo-web; do
                case $other in
                "rustc$kind" | "cargo$kind") ;;
                *) if installed "$other"; then continue 2; fi ;;
                esac
            done
            missing="$missing rustc$kind cargo$kind"
            install_missing
            hash -r
            new_enough && return 0
        done
    fi
    echo "Installing a Rust toolchain (at least $oldest) with rustup, for this user only"
    if command -v rustup >/dev/null 2>&1; then
        rustup toolchain install stable --profile minimal --component clippy --component rustfmt || no_rust
    else
        need curl curl
        need /etc/ssl/certs/ca-certificates.crt ca-certificates
        install_missing
        # The address that rustup's own documentation gives for each platform.
        init=$(mktemp -d)
        if curl --proto '=https' --tlsv1.2 -sSf --retry 2 -o "$init/rustup-init" \
            "${RUSTUP_UPDATE_ROOT:-https://static.rust-lang.org/rustup}/dist/$(uname -m)-unknown-linux-gnu/rustup-init"; then
            chmod +x "$init/rustup-init"
            "$init/rustup-init" -y --quiet --profile minimal --component clippy,rustfmt --default-toolchain stable --no-modify-path || :
        fi
        rm -rf "$init"
    fi
    hash -r
    new_enough || no_rust
}

no_rust() {
    have=$(rustc --version 2>/dev/null || echo none)
    cat >&2 <<END
setup.sh: there is no Rust toolchain of at least $oldest here (found: $have), and rustup cannot supply one.
Any of these helps, then run the same command again:
  - Debian's own: apt-get install rustc-web cargo-web, with the security archive of this release among the package sources
  - rustup: reach https://static.rust-lang.org, or name a mirror in RUSTUP_UPDATE_ROOT and RUSTUP_DIST_SERVER
  - a rustup that is here and prefers an older one: rustup default stable
END
    exit 1
}

# cargo fmt and cargo clippy come apart from the compiler.
lints() {
    cargo fmt --version >/dev/null 2>&1 && cargo clippy --version >/dev/null 2>&1 && return 0
    if command -v rustup >/dev/null 2>&1; then
        rustup component add clippy rustfmt
    elif installed rustc-web; then
        missing="$missing rustfmt-web rust-web-clippy"
    elif installed rustc; then
        missing="$missing rustfmt rust-clippy"
    fi
    install_missing
}

PATH=${CARGO_HOME:-$HOME/.cargo}/bin:$PATH
export PATH

case ${1:-} in
build)
    need cc gcc
    need /usr/include/stdio.h libc6-dev
    install_missing
    rust
    ;;
check)
    "$0" build
    lints
    ;;
demo)
    need qemu-system-x86_64 qemu-system-x86
    need qemu-img qemu-utils
    need bwrap bubblewrap
    need python3 python3
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
    need ntfs-3g ntfs-3g
    need setfattr attr
    need xfs_repair xfsprogs
    need mkfs.vfat dosfstools
    need mcopy mtools
    need sgdisk gdisk
    need blkid util-linux
    need mkswap util-linux
    need cryptsetup cryptsetup-bin
    need mkfs.btrfs btrfs-progs
    need pvcreate lvm2
    need cpio cpio
    need lz4 lz4
    need lzop lzop
    need mksquashfs squashfs-tools
    need shellcheck shellcheck
    need xmllint libxml2-utils
    need virsh libvirt-clients
    need libvirtd libvirt-daemon
    need "/usr/lib/$(uname -m)-linux-gnu/libvirt/connection-driver/libvirt_driver_qemu.so" libvirt-daemon-driver-qemu
    # A libvirt of the system, in namespaces of its own.
    need iptables iptables
    need ip iproute2
    need nsenter util-linux
    need setpriv util-linux
    need strace strace
    # Clients of the NBD receiver, and the server that it is measured beside.
    need qemu-storage-daemon qemu-system-common
    need nbdinfo libnbd-bin
    need nbdkit nbdkit
    # Discs by other readers and writers; SSH into the appliance.
    need xorriso xorriso
    need isoinfo genisoimage
    need ssh-keygen openssh-client
    need openssl openssl
    need fio fio
    # Its merge-diff is the other reader and writer of RBD's streams.
    need rbd ceph-common
    /usr/bin/python3 -c 'import nbd' 2>/dev/null || missing="$missing python3-libnbd"
    need systemd-analyze systemd
    need unmkinitramfs initramfs-tools-core
    need selabel_lookup selinux-utils
    need grub-mkimage grub-common
    need /usr/lib/grub/i386-pc/kernel.img grub-pc-bin
    need objcopy binutils
    need c++ g++
    need python3 python3
    need wixl wixl
    need hivexregedit libwin-hivex-perl
    /usr/bin/python3 -c "import hivex" 2>/dev/null || missing="$missing python3-hivex"
    need shellcheck shellcheck
    /usr/bin/python3 -c "import yaml" 2>/dev/null || missing="$missing python3-yaml"
    for library in qcow vhdi vmdk regf; do
        /usr/bin/python3 -c "import py$library" 2>/dev/null || missing="$missing python3-lib$library"
    done
    # The vSphere that machines are registered at, and a second client of it.
    need go golang-go
    need /usr/share/gocode/src/github.com/vmware/govmomi/simulator golang-github-vmware-govmomi-dev
    /usr/bin/python3 -c 'import pyVmomi' 2>/dev/null || missing="$missing python3-pyvmomi"
    /usr/bin/python3 -c 'import jsonschema' 2>/dev/null || missing="$missing python3-jsonschema"
    install_missing
    ;;
*)
    echo "usage: tools/setup.sh build|check|demo|test" >&2
    exit 2
    ;;
esac
