<#
.SYNOPSIS
Uploads this virtual machine to a datastore of vSphere or ESXi and registers it there, with PowerCLI. Changes nothing where
its name, id, folder or a network address is taken.

.EXAMPLE
./register.ps1 -Server vcenter.example.org -VMHost esx1.example.org -Datastore datastore1
#>
param(
    # vCenter or ESXi; left out for the connection that is open.
    [string] $Server = '',
    # The host that is to run it.
    [Parameter(Mandatory = $true)] [string] $VMHost,
    # Where its files go; left out for the one that was chosen at the conversion.
    [string] $Datastore = ''
)
Set-StrictMode -Version Latest
$ErrorActionPreference = 'Stop'

$name = @NAME@
$stem = @STEM@
$uuid = @UUID@
$variables = @VARIABLES@
$chosen = @DATASTORE@
$files = @(@FILES@)
$macs = @(@MACS@)
$networks = @(@NETWORKS@)

if (-not (Get-Command Connect-VIServer -ErrorAction SilentlyContinue)) {
    throw 'PowerCLI is not here. Install it: Install-Module VMware.PowerCLI'
}
if ($Server) { Connect-VIServer -Server $Server | Out-Null }
if (-not $Datastore) { $Datastore = $chosen }
if (-not $Datastore) { throw 'Which datastore? Name one with -Datastore; Get-Datastore lists them.' }

$target = Get-VMHost | Where-Object { $_.Name -eq $VMHost } | Select-Object -First 1
if (-not $target) { throw "There is no host $VMHost. Get-VMHost lists them." }
$store = $target | Get-Datastore | Where-Object { $_.Name -eq $Datastore } | Select-Object -First 1
if (-not $store) { throw "The host has no datastore $Datastore. Get-Datastore lists them." }

# ESXi starts from flat images only; the others have to be unpacked by a host.
foreach ($file in $files) {
    foreach ($part in @($file, ($file -replace '\.vmdk$', '-flat.vmdk'))) {
        if (-not (Test-Path -LiteralPath (Join-Path $PSScriptRoot $part))) {
            throw "$part is not here. Convert again with --disk-format vmdk-esxi, or unpack $file on a host: vmkfstools -i"
        }
    }
}

# The source's replica carries the same identity: never register a second machine with it.
foreach ($other in Get-VM) {
    if ($other.Name -eq $name) { throw "A machine with the name $name is here already. Remove it, or convert again with --name." }
    if ($uuid -and $other.ExtensionData.Config.Uuid -eq $uuid) {
        throw "$($other.Name) has the id $uuid. It is another copy of this machine: remove it from the inventory first."
    }
    foreach ($card in $other | Get-NetworkAdapter) {
        if ($macs -contains $card.MacAddress) {
            throw "$($other.Name) has a network card with the address $($card.MacAddress). Remove it from the inventory first."
        }
    }
}
$standard = @($target | Get-VirtualPortGroup -Standard | ForEach-Object { $_.Name })
$distributed = @()
if (Get-Command Get-VDPortgroup -ErrorAction SilentlyContinue) {
    $distributed = @(Get-VDPortgroup | ForEach-Object { $_.Name })
}
foreach ($network in $networks) {
    if (($standard -notcontains $network) -and ($distributed -notcontains $network)) {
        throw "There is no network $network. Make it, or convert again with --network."
    }
}

$drive = 'landfall' + (Get-Random)
New-PSDrive -Name $drive -PSProvider VimDatastore -Root '\' -Location $store | Out-Null
try {
    $folder = "${drive}:\$stem"
    if (Test-Path -LiteralPath $folder) { throw "[$Datastore] $stem exists already. If an earlier try left it, remove it." }
    New-Item -Path $folder -ItemType Directory | Out-Null
    foreach ($file in $files) {
        Write-Host "Uploading $file"
        foreach ($part in @(($file -replace '\.vmdk$', '-flat.vmdk'), $file)) {
            Copy-DatastoreItem -Item (Join-Path $PSScriptRoot $part) -Destination "$folder\$part"
        }
    }
    if ($variables) {
        Copy-DatastoreItem -Item (Join-Path $PSScriptRoot $variables) -Destination "$folder\$variables"
    }
    Copy-DatastoreItem -Item (Join-Path $PSScriptRoot "$stem.vmx") -Destination "$folder\$stem.vmx"
} finally {
    Remove-PSDrive -Name $drive
}
$machine = New-VM -VMFilePath "[$Datastore] $stem/$stem.vmx" -VMHost $target

# A .vmx names networks of standard switches; port groups of distributed ones are connected now.
$cards = @($machine | Get-NetworkAdapter)
for ($number = 0; $number -lt $networks.Count; $number++) {
    if ($standard -notcontains $networks[$number]) {
        $group = Get-VDPortgroup | Where-Object { $_.Name -eq $networks[$number] } | Select-Object -First 1
        Set-NetworkAdapter -NetworkAdapter $cards[$number] -Portgroup $group -Confirm:$false | Out-Null
    }
}
Write-Host "Start it with: Start-VM -VM '$name'"
