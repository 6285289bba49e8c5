// The topic that the app tells its outcomes to, as CloudEvents. It takes no keys.
@description('What makes names unique.')
param token string

@description('The region.')
param location string

@description('The tags.')
param tags object

resource outcomes 'Microsoft.EventGrid/topics@2025-02-15' = {
  name: 'evgt-kms-outcomes-${token}'
  location: location
  tags: tags
  properties: {
    inputSchema: 'CloudEventSchemaV1_0'
    disableLocalAuth: true
    minimumTlsVersionAllowed: '1.2'
    publicNetworkAccess: 'Enabled'
  }
}

@description('The name of the topic.')
output name string = outcomes.name

@description('Where outcomes are sent to.')
output endpoint string = outcomes.properties.endpoint
