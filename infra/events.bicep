// What Event Grid tells the app, deployed after its code by hooks/postdeploy.py. Safe to run again.
targetScope = 'subscription'

@description('The name of the deployment.')
param environmentName string

@description('The region of the groups that are made for topics.')
param location string

@description('The resource group of the app, and of its topics in other subscriptions.')
param resourceGroupName string

@description('The resource id of the app.')
param appId string

@description('The resource id of the storage account.')
param storageId string

@description('Its container for what could not be delivered.')
param deadLetterContainer string

@description('The resource id of the identity that writes there.')
param topicIdentityId string

@description('Resource ids of the action groups that are told of what Event Grid could not deliver.')
param actionGroupIds array = []

@description('Other subscriptions in which topics are made.')
param topicSubscriptions array = []

@description('What to listen to, each {kind: clusters or keys, source: resource id, topic: resource id, location, existing: is a topic reused that is there}.')
param sources array

var kinds = {
  clusters: {
    topicType: 'Microsoft.Resources.Subscriptions'
    functionName: 'on_cluster_event'
    filter: {
      includedEventTypes: ['Microsoft.Resources.ResourceWriteSuccess', 'Microsoft.Resources.ResourceDeleteSuccess']
      advancedFilters: [
        {
          operatorType: 'StringIn'
          key: 'data.operationName'
          values: [
            'Microsoft.ContainerService/managedClusters/write'
            'Microsoft.ContainerService/managedClusters/delete'
          ]
        }
      ]
    }
  }
  keys: {
    topicType: 'Microsoft.KeyVault.vaults'
    functionName: 'on_key_event'
    filter: {
      includedEventTypes: [
        'Microsoft.KeyVault.KeyNewVersionCreated'
        'Microsoft.KeyVault.KeyNearExpiry'
        'Microsoft.KeyVault.KeyExpired'
        'Microsoft.KeyVault.VaultAccessPolicyChanged'
      ]
    }
  }
}

module groups 'app/topic-group.bicep' = [
  for id in topicSubscriptions: {
    name: 'topic-group-${uniqueString(id, environmentName)}'
    scope: subscription(id)
    params: { name: resourceGroupName, location: location, tags: { 'azd-env-name': environmentName } }
  }
]

module topics 'app/source.bicep' = [
  for one in sources: {
    name: 'source-${uniqueString(one.source, environmentName)}'
    scope: resourceGroup(split(one.topic, '/')[2], split(one.topic, '/')[4])
    params: {
      topicName: last(split(one.topic, '/'))
      existingTopic: one.existing
      location: one.location
      tags: { 'azd-env-name': environmentName }
      source: one.source
      topicType: kinds[one.kind].topicType
      topicIdentityId: topicIdentityId
      // Each app has its own, on a topic that it may share with another.
      subscriptionName: 'aks-kms-enforcer-${one.kind}-${uniqueString(appId)}'
      functionId: '${appId}/functions/${kinds[one.kind].functionName}'
      eventFilter: kinds[one.kind].filter
      storageId: storageId
      deadLetterContainer: deadLetterContainer
      actionGroupIds: actionGroupIds
    }
    dependsOn: [groups]
  }
]
