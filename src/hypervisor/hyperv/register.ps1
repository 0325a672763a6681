#Requires -Version 5.1
#Requires -Modules Hyper-V
<#
.SYNOPSIS
Makes this virtual machine in Hyper-V. Changes nothing where its name, its id, a network address or a disk is taken.
.DESCRIPTION
@GENERATION@
Run it in an elevated PowerShell on the Hyper-V host. With -WhatIf it checks everything and makes nothing. A run that
fails takes back what it made, so that it can be run again.
.PARAMETER Name
The machine's name.
.PARAMETER VhdFolder
Copies the disks into this folder first. Without it they are attached where they lie.
.PARAMETER SwitchName
Virtual switch of every card that has none of its own here.
.PARAMETER ConfigurationFolder
Folder for the machine's configuration; the host's own default otherwise.
.EXAMPLE
.\register.ps1 -VhdFolder 'D:\Hyper-V\Virtual Hard Disks' -SwitchName 'LAN'
#>
[CmdletBinding(SupportsShouldProcess = $true)]
param(
    [ValidateNotNullOrEmpty()]
    [string]$Name = @NAME@,
    [string]$VhdFolder = '',
    [string]$SwitchName = @SWITCH@,
    [string]$ConfigurationFolder = @STORAGE@
)

Set-StrictMode -Version 2.0
$ErrorActionPreference = 'Stop'

# The machine.
$machine = @{
    Generation      = @NUMBER@
    MemoryBytes     = @MEMORY@
    Processors      = @PROCESSORS@
    ThreadsPerCore  = @THREADS@
    SecureBoot      = @SECURE_BOOT@
    Template        = @TEMPLATE@
    Tpm             = @TPM@
    Guid            = @GUID@
    Serial          = @SERIAL@
    BootDisk        = @BOOT_DISK@
    Notes           = @NOTES@
}
# What the firmware tries, in this order.
$startup = @(@STARTUP@)
# Its disks, in the order in which the guest sees them.
$disks = @(
@DISKS@)
# Its network cards. Without a switch here, -SwitchName counts, then the name that the network has at the source.
$cards = @(
@CARDS@)

function Stop-Here([string]$Says, [string]$Hint) {
    throw "register.ps1: $Says`nhint: $Hint"
}

function Test-Parameter([string]$Command, [string]$Parameter) {
    (Get-Command -Name $Command).Parameters.ContainsKey($Parameter)
}

# Serial number and id have no cmdlet: they are settings of the machine in WMI.
function Set-Identity($Machine, [string]$Guid, [string]$Serial) {
    $space = 'root/virtualization/v2'
    $filter = "VirtualSystemIdentifier = '$($Machine.Id)' AND VirtualSystemType = 'Microsoft:Hyper-V:System:Realized'"
    $settings = Get-CimInstance -Namespace $space -ClassName Msvm_VirtualSystemSettingData -Filter $filter
    if ($Guid) { $settings.BIOSGUID = $Guid }
    if ($Serial) {
        $settings.BIOSSerialNumber = $Serial
        $settings.BaseBoardSerialNumber = $Serial
        $settings.ChassisSerialNumber = $Serial
    }
    $serializer = [Microsoft.Management.Infrastructure.Serialization.CimSerializer]::Create()
    $bytes = $serializer.Serialize($settings, [Microsoft.Management.Infrastructure.Serialization.InstanceSerializationOptions]::None)
    $service = Get-CimInstance -Namespace $space -ClassName Msvm_VirtualSystemManagementService
    $text = [System.Text.Encoding]::Unicode.GetString($bytes)
    $result = Invoke-CimMethod -InputObject $service -MethodName ModifySystemSettings -Arguments @{ SystemSettings = $text }
    # 4096: it goes on as a job.
    if ($result.ReturnValue -eq 4096) {
        $job = Get-CimInstance -InputObject $result.Job
        while ($job.JobState -in 2, 3, 4) {
            Start-Sleep -Milliseconds 200
            $job = Get-CimInstance -InputObject $result.Job
        }
    }
    $now = Get-CimInstance -Namespace $space -ClassName Msvm_VirtualSystemSettingData -Filter $filter
    if (($Guid -and $now.BIOSGUID -ne $Guid) -or ($Serial -and $now.BIOSSerialNumber -ne $Serial)) {
        Stop-Here 'Hyper-V did not take the id or the serial number of the machine' 'empty Guid and Serial in this script if nothing in the guest goes by them, and run it again'
    }
}

# All is checked before anything is changed. The source's replica carries the same identity: never make a second machine
# with it.
$all = @(Get-VM)
if ($all | Where-Object { $_.Name -eq $Name }) {
    Stop-Here "a machine with the name $Name is here already" 'remove it (Remove-VM), or choose another name with -Name'
}
if ($machine.Guid) {
    $settings = Get-CimInstance -Namespace root/virtualization/v2 -ClassName Msvm_VirtualSystemSettingData -Filter "VirtualSystemType = 'Microsoft:Hyper-V:System:Realized'"
    $twin = $settings | Where-Object { $_.BIOSGUID -eq $machine.Guid } | Select-Object -First 1
    if ($twin) {
        Stop-Here "the machine $($twin.ElementName) has the id $($machine.Guid) already" 'it is another copy of this machine: remove it first'
    }
}
$adapters = @(Get-VMNetworkAdapter -All)
foreach ($card in $cards) {
    $twin = $adapters | Where-Object { $card.Mac -and $_.MacAddress -eq $card.Mac } | Select-Object -First 1
    if ($twin) {
        Stop-Here "$($twin.VMName) has a network card with the address $($card.Mac)" 'it is another copy of this machine: remove it first'
    }
    $plug = @($card.Switch, $SwitchName, $card.Network) | Where-Object { $_ } | Select-Object -First 1
    if (-not $card.Connected) { $plug = '' }
    elseif (-not $plug) {
        Stop-Here "there is no switch for the card $($card.Name)" 'name one with -SwitchName; Get-VMSwitch lists them'
    }
    elseif (-not (Get-VMSwitch | Where-Object { $_.Name -eq $plug })) {
        Stop-Here "there is no switch with the name $plug" 'name another one with -SwitchName; Get-VMSwitch lists them'
    }
    $card.Plug = $plug
}
$attached = @($all | Get-VMHardDiskDrive | ForEach-Object { $_.Path })
foreach ($disk in $disks) {
    $disk.Here = Join-Path -Path $PSScriptRoot -ChildPath $disk.File
    $disk.Path = $disk.Here
    if (-not (Test-Path -LiteralPath $disk.Here -PathType Leaf)) {
        Stop-Here "$($disk.Here) is not here" 'copy the whole folder of the machine to this host'
    }
    if ($VhdFolder) {
        if (-not (Test-Path -LiteralPath $VhdFolder -PathType Container)) {
            Stop-Here "there is no folder $VhdFolder" 'make it, or choose another one with -VhdFolder'
        }
        $disk.Path = Join-Path -Path (Resolve-Path -LiteralPath $VhdFolder).ProviderPath -ChildPath "$Name-$($disk.File)"
        if (Test-Path -LiteralPath $disk.Path) {
            Stop-Here "$($disk.Path) exists already" 'choose another folder, or remove it if an earlier try left it'
        }
    }
    elseif ((Get-Item -LiteralPath $disk.Here).Attributes -band [System.IO.FileAttributes]::SparseFile) {
        Stop-Here "$($disk.Here) is a sparse file, which Hyper-V does not attach" "make it an ordinary one: fsutil sparse setflag '$($disk.Here)' 0"
    }
    if ($attached -contains $disk.Path) {
        Stop-Here "$($disk.Path) is attached to another machine" 'remove that machine first, or copy the disks with -VhdFolder'
    }
}
if (-not $PSCmdlet.ShouldProcess($Name, "make a machine of generation $($machine.Generation) with $($disks.Count) disks and $($cards.Count) cards")) {
    return
}

$vm = $null
$copied = @()
try {
    if ($VhdFolder) {
        foreach ($disk in $disks) {
            $copied += $disk.Path
            Copy-Item -LiteralPath $disk.Here -Destination $disk.Path
        }
    }
    $new = @{ Name = $Name; Generation = $machine.Generation; MemoryStartupBytes = $machine.MemoryBytes; NoVHD = $true }
    if ($ConfigurationFolder) { $new.Path = $ConfigurationFolder }
    $vm = New-VM @new
    Set-VMMemory -VM $vm -DynamicMemoryEnabled $false -StartupBytes $machine.MemoryBytes
    Set-VMProcessor -VM $vm -Count $machine.Processors
    if ($machine.ThreadsPerCore -gt 1 -and (Test-Parameter 'Set-VMProcessor' 'HwThreadCountPerCore')) {
        Set-VMProcessor -VM $vm -HwThreadCountPerCore $machine.ThreadsPerCore
    }
    # A checkpoint of this kind asks the guest to write down what it holds first; none is made without being asked for.
    if (Test-Parameter 'Set-VM' 'CheckpointType') { Set-VM -VM $vm -CheckpointType Production }
    if (Test-Parameter 'Set-VM' 'AutomaticCheckpointsEnabled') { Set-VM -VM $vm -AutomaticCheckpointsEnabled $false }
    if ($machine.Notes) { Set-VM -VM $vm -Notes $machine.Notes }

    $drives = @()
    foreach ($disk in $disks) {
        while ($disk.Type -eq 'SCSI' -and @(Get-VMScsiController -VM $vm).Count -le $disk.Controller) {
            Add-VMScsiController -VM $vm
        }
        # A new machine of generation 1 has a DVD drive at IDE 1:0.
        Get-VMDvdDrive -VM $vm |
            Where-Object { $disk.Type -eq 'IDE' -and $_.ControllerNumber -eq $disk.Controller -and $_.ControllerLocation -eq $disk.Location } |
            Remove-VMDvdDrive
        $drives += Add-VMHardDiskDrive -VM $vm -ControllerType $disk.Type -ControllerNumber $disk.Controller -ControllerLocation $disk.Location -Path $disk.Path -Passthru
    }

    Get-VMNetworkAdapter -VM $vm | Remove-VMNetworkAdapter
    $adapters = @()
    foreach ($card in $cards) {
        $new = @{ VM = $vm; Name = $card.Name; Passthru = $true }
        if ($card.Plug) { $new.SwitchName = $card.Plug }
        if ($card.Legacy) { $new.IsLegacy = $true }
        if ($card.Mac) { $new.StaticMacAddress = $card.Mac }
        $adapter = Add-VMNetworkAdapter @new
        if ($card.Vlan -gt 0) { Set-VMNetworkAdapterVlan -VMNetworkAdapter $adapter -Access -VlanId $card.Vlan }
        $adapters += $adapter
    }

    if ($machine.Generation -eq 1) {
        Set-VMBios -VM $vm -StartupOrder $startup
    }
    else {
        $order = @($startup | ForEach-Object { if ($_ -eq 'Disk') { $drives[$machine.BootDisk] } else { $adapters[$_] } })
        if ($order.Count -eq 1) { Set-VMFirmware -VM $vm -FirstBootDevice $order[0] }
        else { Set-VMFirmware -VM $vm -BootOrder $order }
        if ($machine.SecureBoot) { Set-VMFirmware -VM $vm -EnableSecureBoot On -SecureBootTemplate $machine.Template }
        else { Set-VMFirmware -VM $vm -EnableSecureBoot Off }
        if ($machine.Tpm) {
            Set-VMKeyProtector -VM $vm -NewLocalKeyProtector
            Enable-VMTPM -VM $vm
        }
    }
    if ($machine.Guid -or $machine.Serial) { Set-Identity $vm $machine.Guid $machine.Serial }
}
catch {
    # The disks stay, but for those that were copied here.
    if ($vm) { Remove-VM -VM $vm -Force -ErrorAction Continue }
    foreach ($path in $copied) { Remove-Item -LiteralPath $path -ErrorAction SilentlyContinue }
    throw
}
Write-Output "Start it with: Start-VM -Name '$($Name.Replace("'", "''"))'"
