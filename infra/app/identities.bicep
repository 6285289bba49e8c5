// Two identities: the app, and the one with which system topics write dead letters. The second can do nothing else.
@description('What makes names unique.')
param token string

@description('The region.')
param location string

@description('The tags.')
param tags object

resource app 'Microsoft.ManagedIdentity/userAssignedIdentities@2024-11-30' = {
  name: 'id-kms-enforcer-${token}'
  location: location
  tags: tags
}

resource topic 'Microsoft.ManagedIdentity/userAssignedIdentities@2024-11-30' = {
  name: 'id-kms-topics-${token}'
  location: location
  tags: tags
}

@description('The resource id of the app identity.')
output appId string = app.id

@description('Its client id.')
output appClientId string = app.properties.clientId

@description('Its object id.')
output appPrincipalId string = app.properties.principalId

@description('The resource id of the identity of the topics.')
output topicId string = topic.id

@description('Its object id.')
output topicPrincipalId string = topic.properties.principalId
