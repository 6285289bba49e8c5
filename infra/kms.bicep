// What customer-managed keys of one region need: a vault, a key that rotates, an identity for clusters, and its roles.
// Optional and apart from the app: az deployment group create --template-file infra/kms.bicep
@description('The region of the clusters.')
param location string = resourceGroup().location

@description('The name of the vault, unique in the world.')
@minLength(3)
@maxLength(24)
param vaultName string

@description('The name of the key.')
param keyName string = 'etcd'

@description('The name of the identity for the control plane of the clusters.')
param identityName string = 'id-aks-kms-${location}'

@description('`private`: the vault is closed but for trusted services.')
@allowed(['public', 'private'])
param networkAccess string = 'public'

@description('The role beside Key Vault Crypto User: the documents name one or the other.')
@allowed(['reader', 'contributor'])
param secondRole string = 'reader'

@description('Size of the RSA key.')
@allowed([2048, 3072, 4096])
param keySize int = 2048

@description('After which time the key gets a new version, as ISO 8601 has it: at least seven days.')
param rotateAfter string = 'P90D'

@description('How long a version lives, as ISO 8601 has it. Empty: for ever. Legacy KMS goes on using a version that nobody replaced, and stops when it expires.')
param versionsExpireIn string = ''

@description('The tags.')
param tags object = {}

var roles = {
  keyVaultCryptoUser: '12338af0-0e69-4776-bea7-57ae8d297424'
  keyVaultReader: '21090545-7ca7-4776-b22c-e363652d74d2'
  keyVaultContributor: 'f25e0fa2-a7c8-4377-a976-54943a77a395'
}
var second = secondRole == 'reader' ? roles.keyVaultReader : roles.keyVaultContributor
var isPrivate = networkAccess == 'private'

resource vault 'Microsoft.KeyVault/vaults@2026-02-01' = {
  name: vaultName
  location: location
  tags: tags
  properties: {
    tenantId: subscription().tenantId
    sku: { family: 'A', name: 'standard' }
    enableRbacAuthorization: true
    enableSoftDelete: true
    softDeleteRetentionInDays: 90
    enablePurgeProtection: true
    publicNetworkAccess: isPrivate ? 'Disabled' : 'Enabled'
    networkAcls: { defaultAction: isPrivate ? 'Deny' : 'Allow', bypass: 'AzureServices' }
  }
}

resource key 'Microsoft.KeyVault/vaults/keys@2026-02-01' = {
  parent: vault
  name: keyName
  properties: {
    kty: 'RSA'
    keySize: keySize
    keyOps: ['encrypt', 'decrypt']
    rotationPolicy: {
      attributes: empty(versionsExpireIn) ? {} : { expiryTime: versionsExpireIn }
      lifetimeActions: [{ action: { type: 'rotate' }, trigger: { timeAfterCreate: rotateAfter } }]
    }
  }
}

resource identity 'Microsoft.ManagedIdentity/userAssignedIdentities@2024-11-30' = {
  name: identityName
  location: location
  tags: tags
}

resource access 'Microsoft.Authorization/roleAssignments@2022-04-01' = [
  for role in [roles.keyVaultCryptoUser, second]: {
    name: guid(vault.id, identity.id, role)
    scope: vault
    properties: {
      principalId: identity.properties.principalId
      principalType: 'ServicePrincipal'
      roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', role)
    }
  }
]

@description('The resource id of the vault, for the policy and for the parameter `vaults`.')
output vaultId string = vault.id

@description('The name of the key, for the policy.')
output keyName string = key.name

@description('The resource id of the identity, for `az aks create --assign-identity`.')
output identityId string = identity.id
