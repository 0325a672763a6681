// A virtual machine of the disks that register.sh uploaded. @GENERATION@
// Deployed by register.sh; by hand: az deployment group create -g GROUP -f machine.bicep -p blobs=URL storageAccountId=ID subnetIds='["ID"]'
targetScope = 'resourceGroup'

@description('Name of the machine; its disks and cards are called after it.')
@minLength(1)
@maxLength(64)
param name string = @NAME@

@description('Where it is made.')
param location string = resourceGroup().location

@description('Its size. The source has @SOURCE@.')
param size string@SIZE@

@description('Folder of the uploaded disks: https://ACCOUNT.blob.core.windows.net/CONTAINER/NAME')
param blobs string

@description('Resource id of the storage account that holds them.')
param storageAccountId string

@description('Resource id of an existing subnet for each card, in their order.')
@minLength(@CARD_COUNT@)
param subnetIds array@SUBNETS@

@description('Kind of managed disk.')
@allowed([
  'Premium_LRS'
  'Premium_ZRS'
  'StandardSSD_LRS'
  'StandardSSD_ZRS'
  'Standard_LRS'
])
param diskSku string = 'Premium_LRS'

var tags = @TAGS@
var osFile = @OS_FILE@
var dataDisks = @DATA_DISKS@
var cards = @CARDS@

resource osDisk 'Microsoft.Compute/disks@2023-10-02' = {
  name: '${name}-os'
  location: location
  tags: tags
  sku: {
    name: diskSku
  }
  properties: {
    osType: '@OS@'
    hyperVGeneration: '@V@'
@DISK_SECURITY@    creationData: {
      createOption: 'Import'
      sourceUri: '${blobs}/${osFile}'
      storageAccountId: storageAccountId
    }
  }
}

resource data 'Microsoft.Compute/disks@2023-10-02' = [for (file, lun) in dataDisks: {
  name: '${name}-data${lun}'
  location: location
  tags: tags
  sku: {
    name: diskSku
  }
  properties: {
    creationData: {
      createOption: 'Import'
      sourceUri: '${blobs}/${file}'
      storageAccountId: storageAccountId
    }
  }
}]

resource nics 'Microsoft.Network/networkInterfaces@2023-11-01' = [for (card, index) in cards: {
  name: '${name}-nic${index}'
  location: location
  tags: tags
  properties: {
    ipConfigurations: [
      {
        name: 'ipconfig1'
        properties: {
          privateIPAllocationMethod: 'Dynamic'
          subnet: {
            id: subnetIds[index]
          }
        }
      }
    ]
  }
}]

resource vm 'Microsoft.Compute/virtualMachines@2024-03-01' = {
  name: name
  location: location
  tags: tags
  properties: {
    hardwareProfile: {
      vmSize: size
    }
@VM_SECURITY@    storageProfile: {
      osDisk: {
        osType: '@OS@'
        createOption: 'Attach'
        managedDisk: {
          id: osDisk.id
        }
      }
      dataDisks: [for (file, lun) in dataDisks: {
        lun: lun
        createOption: 'Attach'
        managedDisk: {
          id: data[lun].id
        }
      }]
    }
    networkProfile: {
      networkInterfaces: [for (card, index) in cards: {
        id: nics[index].id
        properties: {
          primary: index == 0
        }
      }]
    }
    diagnosticsProfile: {
      bootDiagnostics: {
        enabled: true
      }
    }
  }
}

output id string = vm.id
