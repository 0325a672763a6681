#!/bin/sh
# Puts into DEST what tests check written definitions with, from PyPI and npm: types that are generated of the targets' own
# interfaces, and their command line clients' parsers. Needs no root. Does nothing where DEST holds it already.
#
#   tools/fetch-checkers.sh DEST
#
#   DEST/checkers/proxmox     clientapi-pve: the options of Proxmox VE's API
#   DEST/checkers/nutanix     ntnx-vmm-py-client: the names of Nutanix's API v4
#   DEST/checkers/openstack   python-openstackclient: the client's own parsers
#   DEST/checkers/dissect     dissect.archive: a reader of XVAs
#   DEST/checkers/api         openapi-spec-validator, prometheus-client: readers of what the service's API says of itself
#   DEST/checkers/node        typescript, and the types of KubeVirt and CDI
set -eu

if [ $# -ne 1 ]; then
    echo "usage: $0 DEST" >&2
    exit 2
fi
mkdir -p "$1/checkers"
dest=$(cd "$1/checkers" && pwd)

# install FOLDER PACKAGE...: each in a folder of its own, because their dependencies exclude one another
install() {
    folder=$dest/$1
    shift
    [ ! -e "$folder/complete" ] || return 0
    if ! python3 -m pip --version >/dev/null 2>&1; then
        echo "$0: no pip here (Debian: python3-pip): the tests that need $folder will be skipped" >&2
    elif python3 -m pip install --quiet --disable-pip-version-check --target "$folder" "$@"; then
        touch "$folder/complete"
    else
        echo "$0: pip cannot install $*: the tests that need them will be skipped" >&2
    fi
}
install proxmox clientapi-pve==2026.5.24
install nutanix ntnx-vmm-py-client==4.3.2
install openstack python-openstackclient
install dissect dissect.archive==1.8
install api openapi-spec-validator==0.9.0 prometheus-client==0.26.0
if [ ! -e "$dest/node/complete" ]; then
    if command -v npm >/dev/null 2>&1; then
        npm install --silent --no-audit --no-fund --ignore-scripts --prefix "$dest/node" \
            typescript@5 @kubevirt-ui-ext/kubevirt-api@1.7.0 \
            && touch "$dest/node/complete" \
            || echo "$0: npm cannot install the checkers: the tests that need them will be skipped" >&2
    else
        echo "$0: no npm here: the tests that need $dest/node will be skipped" >&2
    fi
fi
