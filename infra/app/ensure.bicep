// The app may make vaults, keys and identities in this resource group.
@description('The name of the deployment.')
param environmentName string

@description('The object id of the app identity.')
param principalId string

var role = subscriptionResourceId(
  'Microsoft.Authorization/roleDefinitions',
  guid(subscription().id, environmentName, 'ensure')
)

resource making 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(resourceGroup().id, principalId, role)
  properties: {
    principalId: principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: role
  }
}
