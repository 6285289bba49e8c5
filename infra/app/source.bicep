// One source of events: its system topic, made or reused, and the subscription of one function to it.
@description('The name of the system topic.')
param topicName string

@description('Is it there already? Then it is left as it is: Azure allows one topic a source, and it may serve others.')
param existingTopic bool

@description('The region of the topic: `global` for a subscription, else that of the vault.')
param location string

@description('The tags of a topic that is made.')
param tags object

@description('The resource id of what is listened to.')
param source string

@description('The type of the source.')
param topicType string

@description('The resource id of the identity that writes dead letters.')
param topicIdentityId string

@description('The name of the subscription to the topic.')
param subscriptionName string

@description('The resource id of the function that is called.')
param functionId string

@description('Which events are wanted.')
param eventFilter object

@description('The resource id of the storage account.')
param storageId string

@description('Its container for what could not be delivered.')
param deadLetterContainer string

@description('Resource ids of the action groups that are told of it.')
param actionGroupIds array

resource made 'Microsoft.EventGrid/systemTopics@2025-02-15' = if (!existingTopic) {
  name: topicName
  location: location
  tags: tags
  identity: {
    type: 'UserAssigned'
    userAssignedIdentities: { '${topicIdentityId}': {} }
  }
  properties: { source: source, topicType: topicType }
}

resource topic 'Microsoft.EventGrid/systemTopics@2025-02-15' existing = {
  name: topicName
}

// A function can't be called by identity, Event Grid uses the app's own key for it; dead letters are written by identity.
resource events 'Microsoft.EventGrid/systemTopics/eventSubscriptions@2025-02-15' = {
  parent: topic
  name: subscriptionName
  properties: {
    eventDeliverySchema: 'CloudEventSchemaV1_0'
    destination: {
      endpointType: 'AzureFunction'
      properties: { resourceId: functionId, maxEventsPerBatch: 1 }
    }
    filter: eventFilter
    retryPolicy: { maxDeliveryAttempts: 30, eventTimeToLiveInMinutes: 1440 }
    deadLetterWithResourceIdentity: {
      identity: { type: 'UserAssigned', userAssignedIdentity: topicIdentityId }
      deadLetterDestination: {
        endpointType: 'StorageBlob'
        properties: { resourceId: storageId, blobContainerName: deadLetterContainer }
      }
    }
  }
  dependsOn: [made]
}

// What could not be delivered lies in the container; what could not even be put there is lost.
resource losses 'Microsoft.Insights/metricAlerts@2018-03-01' = [
  for metric in ['DeadLetteredCount', 'DroppedEventCount']: {
    name: '${topicName}-${subscriptionName}-${metric}'
    location: 'global'
    tags: tags
    properties: {
      description: 'Event Grid could not deliver events of ${source}.'
      severity: metric == 'DroppedEventCount' ? 1 : 2
      enabled: true
      scopes: [topic.id]
      evaluationFrequency: 'PT5M'
      windowSize: 'PT15M'
      autoMitigate: true
      criteria: {
        'odata.type': 'Microsoft.Azure.Monitor.SingleResourceMultipleMetricCriteria'
        allOf: [
          {
            criterionType: 'StaticThresholdCriterion'
            name: 'lost'
            metricNamespace: 'Microsoft.EventGrid/systemTopics'
            metricName: metric
            timeAggregation: 'Total'
            operator: 'GreaterThan'
            threshold: 0
            dimensions: [{ name: 'EventSubscriptionName', operator: 'Include', values: [subscriptionName] }]
          }
        ]
      }
      actions: map(actionGroupIds, id => { actionGroupId: id })
    }
    dependsOn: [made, events]
  }
]
