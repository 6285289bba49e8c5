// One storage account without keys. The app makes no table and no queue: all of them are made here.
@description('What makes names unique.')
param token string

@description('The region.')
param location string

@description('The tags.')
param tags object

var tableNames = ['clusters', 'keyusers', 'rotations', 'activity', 'runs', 'enforcement']
var queueNames = ['clusters', 'keys', 'shards', 'clusters-poison', 'keys-poison', 'shards-poison']
var containerNames = { package: 'app-package', deadLetters: 'dead-letters' }

resource account 'Microsoft.Storage/storageAccounts@2025-06-01' = {
  name: 'stkms${token}'
  location: location
  tags: tags
  kind: 'StorageV2'
  sku: { name: 'Standard_LRS' }
  properties: {
    accessTier: 'Hot'
    allowBlobPublicAccess: false
    allowCrossTenantReplication: false
    allowSharedKeyAccess: false
    defaultToOAuthAuthentication: true
    minimumTlsVersion: 'TLS1_2'
    supportsHttpsTrafficOnly: true
    publicNetworkAccess: 'Enabled'
    networkAcls: { defaultAction: 'Allow', bypass: 'AzureServices' }
  }
}

resource blobs 'Microsoft.Storage/storageAccounts/blobServices@2025-06-01' = {
  parent: account
  name: 'default'
}

resource packages 'Microsoft.Storage/storageAccounts/blobServices/containers@2025-06-01' = {
  parent: blobs
  name: containerNames.package
  properties: { publicAccess: 'None' }
}

resource deadLetters 'Microsoft.Storage/storageAccounts/blobServices/containers@2025-06-01' = {
  parent: blobs
  name: containerNames.deadLetters
  properties: { publicAccess: 'None' }
}

resource queueService 'Microsoft.Storage/storageAccounts/queueServices@2025-06-01' = {
  parent: account
  name: 'default'
}

resource queues 'Microsoft.Storage/storageAccounts/queueServices/queues@2025-06-01' = [
  for name in queueNames: {
    parent: queueService
    name: name
  }
]

resource tableService 'Microsoft.Storage/storageAccounts/tableServices@2025-06-01' = {
  parent: account
  name: 'default'
}

resource tables 'Microsoft.Storage/storageAccounts/tableServices/tables@2025-06-01' = [
  for name in tableNames: {
    parent: tableService
    name: name
  }
]

@description('The name of the account.')
output name string = account.name

@description('Its resource id.')
output id string = account.id

@description('The container that the code is deployed to.')
output packageContainer string = packages.name

@description('The container of what Event Grid could not deliver.')
output deadLetterContainer string = deadLetters.name
