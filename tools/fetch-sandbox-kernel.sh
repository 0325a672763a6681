#!/bin/sh
# Puts the kernel of the patch sandbox into DEST: Debian's linux-image-cloud-amd64, unpacked, not installed
# (DEST/boot/vmlinuz-*, DEST/lib/modules/*). Needs no root. Does nothing where DEST already holds one.
#
# It has to have ntfs3, for Windows. Debian 12's own kernel (6.1) does not: there it comes from the backports.
#
#   tools/fetch-sandbox-kernel.sh DEST [any]     any: the distribution's own kernel, whatever it has
set -eu

if [ $# -lt 1 ] || [ $# -gt 2 ] || [ "${2:-any}" != any ]; then
    echo "usage: $0 DEST [any]" >&2
    exit 2
fi
# apt takes relative paths for paths below /etc/apt.
mkdir -p "$1"
dest=$(cd "$1" && pwd)
any=${2:-}
package=linux-image-cloud-amd64

have() {
    for kernel in "$dest"/boot/vmlinuz-*; do
        [ -s "$kernel" ] || continue
        modules=$dest/lib/modules/${kernel##*/vmlinuz-}/kernel
        [ -z "$any" ] || [ ! -d "$modules" ] || return 0
        set -- "$modules/fs/ntfs3"/ntfs3.ko*
        [ -e "$1" ] && return 0
    done
    return 1
}

if have; then
    exit 0
fi
for tool in apt-get apt-cache dpkg-deb; do
    if ! command -v "$tool" >/dev/null; then
        echo "$0: no $tool here: unpack a distribution kernel into $dest yourself (boot/vmlinuz-*, lib/modules/*)" >&2
        exit 1
    fi
done

work=$(mktemp -d "$dest/.fetch.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

# The package that the metapackage stands for, and a download of it. The second try is with package lists of our
# own: an ordinary user cannot refresh the system's, which may be absent or name a version that is gone. So is the third,
# from the backports of the same mirror.
apt_options=
resolve() {
    # shellcheck disable=SC2086
    apt-cache $apt_options depends --no-recommends --no-suggests "$package" 2>/dev/null |
        sed -n 's/^ *Depends: \(linux-image-[0-9][^ ]*\)$/\1/p' | head -n 1
}
download() {
    image=$(resolve)
    # linux-image-6.12.95+deb12-cloud-amd64
    version=${image#linux-image-}
    [ -n "$image" ] || return 1
    [ -n "$any" ] || dpkg --compare-versions "${version%%[!0-9.]*}" ge 6.2 || return 1
    # shellcheck disable=SC2086
    (cd "$work" && apt-get $apt_options -qq -o APT::Sandbox::User= download "$image" >&2)
}
if ! download; then
    mkdir -p "$work/lists/partial" "$work/cache/archives/partial"
    apt_options="-o Dir::State::lists=$work/lists -o Dir::Cache=$work/cache -o APT::Sandbox::User="
    # shellcheck disable=SC2086
    if ! { apt-get $apt_options -qq update >&2 && download; }; then
        release=$(. /etc/os-release && echo "$VERSION_CODENAME")
        mirror=$(apt-get indextargets --format '$(RELEASE) $(REPO_URI)' | sed -n "s/^$release //p" | head -n 1)
        keys=/usr/share/keyrings/debian-archive-keyring.gpg
        mkdir -p "$work/sources"
        echo "deb [signed-by=$keys] $mirror $release-backports main" >"$work/sources/backports.list"
        apt_options="$apt_options -o Dir::Etc::sourcelist=/dev/null -o Dir::Etc::sourceparts=$work/sources"
        # shellcheck disable=SC2086
        if ! { [ -n "$mirror" ] && apt-get $apt_options -qq update >&2 && download; }; then
            echo "$0: cannot download $package 6.2 or newer: check the network and /etc/apt/sources.list" >&2
            exit 1
        fi
    fi
fi

mkdir "$work/root"
for deb in "$work"/*.deb; do
    dpkg-deb -x "$deb" "$work/root"
done
# Where /usr is merged, newer packages hold their modules there.
modules=$work/root/lib/modules
[ -d "$modules" ] || modules=$work/root/usr/lib/modules
mkdir -p "$dest/boot" "$dest/lib/modules"
for folder in "$modules"/*; do
    version=${folder##*/}
    rm -rf "$dest/lib/modules/$version"
    mv "$folder" "$dest/lib/modules/$version"
    # The kernel comes last: with it the set is complete.
    mv "$work/root/boot/vmlinuz-$version" "$dest/boot/vmlinuz-$version"
    chmod a+r "$dest/boot/vmlinuz-$version"
done
if ! have; then
    echo "$0: the package holds no kernel with the modules that are wanted" >&2
    exit 1
fi
