// The app holds one of its custom roles on this vault, or in this whole resource group.
@description('The resource id of the group of the app: what sets its roles apart from those of another deployment.')
param appGroupId string

@description('The object id of the app identity.')
param principalId string

@description('Which of the roles that watch.bicep makes.')
@allowed(['enforce', 'ensure', 'rotate'])
param right string

@description('The vault. Empty: the whole group.')
param vaultName string = ''

var role = subscriptionResourceId(
  'Microsoft.Authorization/roleDefinitions',
  guid(subscription().id, toLower(appGroupId), right)
)

resource vault 'Microsoft.KeyVault/vaults@2026-02-01' existing = {
  name: empty(vaultName) ? 'none' : vaultName
}

resource onVault 'Microsoft.Authorization/roleAssignments@2022-04-01' = if (!empty(vaultName)) {
  name: guid(resourceGroup().id, toLower(vaultName), principalId, role)
  scope: vault
  properties: {
    principalId: principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: role
  }
}

resource onGroup 'Microsoft.Authorization/roleAssignments@2022-04-01' = if (empty(vaultName)) {
  name: guid(resourceGroup().id, principalId, role)
  properties: {
    principalId: principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: role
  }
}
