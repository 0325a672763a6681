#!/bin/sh
# Uploads this virtual machine's disks to Azure and makes the machine. Changes nothing where its name or a disk is taken.
#
#   ./register.sh -g GROUP -a ACCOUNT -s VNET/SUBNET [-c CONTAINER] [-n NAME] [-z SIZE] [-t]
#
#   -g GROUP          resource group, which exists
#   -a ACCOUNT        storage account in which the uploads lie until the managed disks are made
#   -s VNET/SUBNET    existing subnet (or its resource id) of every card that has none here
#   -c CONTAINER      container of the uploads, which exists (landfall)
#   -n NAME           name of the machine
#   -z SIZE           size of the machine (az vm list-sizes -l LOCATION)
#   -t                check only: upload and make nothing
#
# Needs the Azure CLI, logged in (az login), with the role Storage Blob Data Contributor on the account; azcopy is used where
# it is here, since it is faster. Can be run again after a failure: complete uploads of the same data are kept.
# A name may look like code, and a list may have one word.
# shellcheck disable=SC1003,SC1112,SC2016,SC2041,SC2043,SC2050,SC2066,SC2317
set -eu

name=@NAME@
group=
account=
container=landfall
subnet=@SUBNET@
size=
check=

here=$(cd "$(dirname "$0")" && pwd)

@STOP@
while getopts g:a:s:c:n:z:t option; do
    case $option in
    g) group=$OPTARG ;;
    a) account=$OPTARG ;;
    s) subnet=$OPTARG ;;
    c) container=$OPTARG ;;
    n) name=$OPTARG ;;
    z) size=$OPTARG ;;
    t) check=yes ;;
    *) stop 'unknown option' 'the options stand at the top of this script' ;;
    esac
done
[ -n "$group" ] || stop 'no resource group is named' 'name one with -g'
[ -n "$account" ] || stop 'no storage account is named' 'name one with -a'

command -v az >/dev/null 2>&1 || stop 'az is not here' 'install the Azure CLI'
az account show --output none 2>/dev/null || stop 'nobody is logged in' 'az login'
[ "$(az group exists --name "$group")" = true ] || stop "there is no resource group $group" 'az group list --output table'
account_id=$(az storage account show --name "$account" --query id --output tsv 2>/dev/null) ||
    stop "there is no storage account $account" 'az storage account list --output table'
blob() {
    az storage blob "$@" --account-name "$account" --container-name "$container" --auth-mode login
}
[ "$(az storage container exists --account-name "$account" --name "$container" --auth-mode login --query exists --output tsv)" = true ] ||
    stop "there is no container $container in $account" "az storage container create --account-name $account --name $container --auth-mode login"

# The source's replica carries the same name: never make a second machine, or another disk, with it.
for resource in "$name" @RESOURCES@; do
    taken=$(az resource list --resource-group "$group" --name "$resource" --query '[].id' --output tsv) ||
        stop "cannot list the resources in $group" 'the answer of az stands above'
    [ -z "$taken" ] ||
        stop "$resource is in $group already" 'delete it, choose another resource group with -g, or another name with -n'
done

# A subnet by its resource id; VNET/SUBNET is one of this resource group.
subnet_id() {
    case $1 in
    '') stop "there is no subnet for the card $2" 'name one with -s' ;;
    /*) printf '%s' "$1" ;;
    */*)
        az network vnet subnet show --resource-group "$group" --vnet-name "${1%%/*}" --name "${1#*/}" --query id --output tsv 2>/dev/null ||
            stop "there is no subnet $1 in $group" 'name it as VNET/SUBNET, or by its resource id, with -s'
        ;;
    *) stop "$1 is no subnet" 'name it as VNET/SUBNET, or by its resource id, with -s' ;;
    esac
}
subnets=
add_card() {
    id=$(subnet_id "${2:-$subnet}" "$1") || exit 1
    subnets="${subnets:+$subnets,}\"$id\""
}
@CARDS@
for file in @FILES@; do
    [ -f "$here/$file" ] || stop "$here/$file is not here" 'copy the whole folder of the machine'
done

# Sets content, the digest of what a file holds, and state, what is known of its upload. A page blob has its full length from
# the start: only the mark that is set last tells that it is complete, and by the digest of what.
look() {
    content=$(awk -v file="\"file\": \"$1\"" '/"content_digest": / { digest = $2; gsub(/[",]/, "", digest) }
        index($0, file) { print digest; exit }' "$here/manifest.json") || content=
    [ -n "$content" ] || stop "manifest.json does not tell what $1 holds" 'copy the whole folder of the machine'
    state=none
    found=$(blob exists --name "$name/$1" --query exists --output tsv) ||
        stop "cannot look for $container/$name/$1" 'the answer of az stands above'
    case $found in
    false) return ;;
    true) ;;
    *) stop "az says $found where it was asked for $container/$name/$1" ;;
    esac
    state=$(blob show --name "$name/$1" --query 'metadata.landfall || `foreign`' --output tsv) ||
        stop "cannot look at $container/$name/$1" 'the answer of az stands above'
    case $state in
    uploading | "$content") ;;
    *) stop "$container/$name/$1 exists already, and is not of the data here" \
        "if it is of an earlier copy: az storage blob delete --account-name $account --container-name $container --name '$name/$1' --auth-mode login" ;;
    esac
}
for file in @FILES@; do
    look "$file"
done
[ -z "$check" ] || { echo 'All is ready; nothing was made.'; exit 0; }

for file in @FILES@; do
    path=$name/$file
    look "$file"
    if [ "$state" = "$content" ]; then
        echo "$file is uploaded already"
        continue
    fi
    echo "Uploading $file"
    if command -v azcopy >/dev/null 2>&1; then
        AZCOPY_AUTO_LOGIN_TYPE=AZCLI azcopy copy "$here/$file" "https://$account.blob.core.windows.net/$container/$path" \
            --blob-type PageBlob --overwrite=true --metadata landfall=uploading
    else
        blob upload --type page --file "$here/$file" --name "$path" --metadata landfall=uploading --overwrite --output none
    fi
    blob metadata update --name "$path" --metadata "landfall=$content" --output none
done

az deployment group create --resource-group "$group" --name "landfall-$(date +%Y%m%d%H%M%S)" \
    --template-file "$here/machine.bicep" \
    --parameters "name=$name" ${size:+"size=$size"} "storageAccountId=$account_id" \
    "blobs=https://$account.blob.core.windows.net/$container/$name" "subnetIds=[$subnets]" --output none
cat <<END
The machine is made, and Azure starts it. Once it runs as it should, delete the uploads:
az storage blob delete-batch --account-name $account --source $container --pattern '$name/*' --auth-mode login
END
