// A resource group for system topics: each has to lie in the subscription of its source.
targetScope = 'subscription'

@description('Its name.')
param name string

@description('Its region.')
param location string

@description('Its tags.')
param tags object

resource group 'Microsoft.Resources/resourceGroups@2025-04-01' = {
  name: name
  location: location
  tags: tags
}
