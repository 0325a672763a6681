#!/bin/sh
# Builds the vSphere that tests register machines at: tools/make-vcsim.sh FOLDER
# Everything comes from Debian's packages golang-go and golang-github-vmware-govmomi-dev; nothing is fetched.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
folder=${1:-"$here/../target"}
libraries=/usr/share/gocode

if ! command -v go >/dev/null 2>&1 || [ ! -d "$libraries/src/github.com/vmware/govmomi/simulator" ]; then
    echo 'make-vcsim.sh: golang-go or golang-github-vmware-govmomi-dev is not here (tools/setup.sh test installs them)' >&2
    exit 1
fi
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
if [ -n "$(find "$folder/vcsim" -newer "$here/vcsim/main.go" 2>/dev/null)" ]; then exit 0; fi
cd "$here/vcsim"
GO111MODULE=off GOPATH=$libraries GOFLAGS='' GOCACHE=$folder/vcsim-cache go build -o "$folder/vcsim" .
rm -rf "$folder/vcsim-cache"
echo "Built $folder/vcsim"
