// The app may give two roles on this vault, or on the vaults of this group: to service principals, never to itself.
@description('The resource id of the group of the app: what sets its roles apart from those of another deployment.')
param appGroupId string

@description('The object id of the app identity.')
param principalId string

@description('The vault. Empty: the whole group.')
param vaultName string

@description('The second role of a cluster identity on its vault.')
@allowed(['reader', 'contributor'])
param secondRole string

var roles = {
  keyVaultCryptoUser: '12338af0-0e69-4776-bea7-57ae8d297424'
  keyVaultReader: '21090545-7ca7-4776-b22c-e363652d74d2'
  keyVaultContributor: 'f25e0fa2-a7c8-4377-a976-54943a77a395'
}
var second = secondRole == 'reader' ? roles.keyVaultReader : roles.keyVaultContributor

var isOneOfTwoRoles = '@Request[Microsoft.Authorization/roleAssignments:RoleDefinitionId] ForAnyOfAnyValues:GuidEquals {${roles.keyVaultCryptoUser}, ${second}}'
var isToServicePrincipal = '@Request[Microsoft.Authorization/roleAssignments:PrincipalType] ForAnyOfAnyValues:StringEqualsIgnoreCase {\'ServicePrincipal\'}'
var isNotToItself = '@Request[Microsoft.Authorization/roleAssignments:PrincipalId] ForAnyOfAllValues:GuidNotEquals {${principalId}}'
var condition = '((!(ActionMatches{\'Microsoft.Authorization/roleAssignments/write\'})) OR (${isOneOfTwoRoles} AND ${isToServicePrincipal} AND ${isNotToItself}))'

var role = subscriptionResourceId(
  'Microsoft.Authorization/roleDefinitions',
  guid(subscription().id, toLower(appGroupId), 'grants')
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
    condition: condition
    conditionVersion: '2.0'
  }
}

resource onGroup 'Microsoft.Authorization/roleAssignments@2022-04-01' = if (empty(vaultName)) {
  name: guid(resourceGroup().id, principalId, role)
  properties: {
    principalId: principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: role
    condition: condition
    conditionVersion: '2.0'
  }
}
