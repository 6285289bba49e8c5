// Everything that the app needs, in one resource group, and its rights on the subscriptions that it watches.
// Events come later, from events.bicep: Azure refuses a subscription to a function that is not there yet.
targetScope = 'subscription'

@description('A short name for this deployment, part of all names.')
@minLength(1)
@maxLength(20)
param environmentName string

@description('The region of the app.')
@metadata({ azd: { type: 'location' } })
param location string

@description('The resource group of the app. It is made.')
param resourceGroupName string = 'rg-${environmentName}'

@description('Who runs the commands of this repository: an object id. Gets to read the tables, send messages and take dead letters. Empty: nobody.')
param principalId string = ''

@description('What principalId is.')
@allowed(['User', 'Group', 'ServicePrincipal'])
param principalType string = 'User'

@description('Ids of the subscriptions whose clusters are watched, all of one tenant. Empty: the one that this is deployed to.')
param watchedSubscriptions array = []

@description('Resource ids of vaults whose key events are wanted from the start. The ledger adds what clusters use.')
param vaults array = []

@description('May the app update clusters? The policy must say so too.')
param enforce bool = false

@description('Resource ids of the groups with the clusters that the app may update, and with what they refer to. What changes clusters is then held there alone. Empty: in the whole of each subscription.')
param enforceGroups array = []

@description('Resource ids of the groups in which the app may make vaults, keys and identities.')
param ensureGroups array = []

@description('Resource ids of the vaults on which the app may give clusters their two roles.')
param grantVaults array = []

@description('Resource ids of the groups on whose vaults the app may do so.')
param grantGroups array = []

@description('Resource ids of the vaults whose keys the app may rotate when it is told to.')
param rotateVaults array = []

@description('Resource ids of the groups on whose vaults it may do so.')
param rotateGroups array = []

@description('The second role of a cluster identity on its vault, beside Key Vault Crypto User: the documents name one or the other.')
@allowed(['reader', 'contributor'])
param secondRole string = 'reader'

@description('May the app run commands in clusters, to write secrets anew after a rotation of legacy KMS?')
param runCommand bool = false

@description('May the app ask vaults themselves for rotation policies and deleted keys?')
param askVaults bool = false

@description('What the clusters refer to, so that an update of them checks a right on it. `make permissions` tells.')
@allowed([
  'ownSubnet'
  'outboundAddresses'
  'logAnalytics'
  'diskEncryptionSet'
  'proximityPlacementGroup'
  'applicationGateway'
  'privateDnsZone'
])
param linkedFeatures array = []

@description('When the timer sweeps: NCRONTAB with seconds first, in UTC.')
param sweepSchedule string = '0 7 * * * *'

@description('How many seconds a wait lasts that names no time of its own.')
@minValue(1)
@maxValue(3600)
param lookAgainSeconds int = 60

@description('Preview features that an update names, with commas between.')
param customFeatures string = ''

@description('Resource ids of the Log Analytics workspaces that vaults send their audit logs to. The app is told to read them, and may.')
param readWorkspaces array = []

@description('Ids (GUIDs) of more such workspaces, on which somebody else gives the right to read.')
param logWorkspaces array = []

@description('Memory of an instance, in MB.')
@allowed([512, 2048, 4096])
param instanceMemoryMB int = 2048

@description('The most instances that the platform may start.')
@minValue(40)
@maxValue(1000)
param maximumInstanceCount int = 40

@description('Instances that never stop, each {name, instanceCount}: the name is `http` or `function:<name>`. They cost while idle.')
param alwaysReady array = []

@description('Resource ids of action groups that are told of alerts. Empty: alerts are only shown.')
param actionGroupIds array = []

@description('Twice the time between two sweeps: so long may no sweep end before somebody is told.')
@allowed(['PT2H', 'PT3H', 'PT4H', 'PT5H', 'PT6H', 'P1D', 'P2D'])
param sweepWindow string = 'PT2H'

@description('How many days logs are kept.')
@minValue(30)
@maxValue(730)
param logRetentionDays int = 30

var token = toLower(uniqueString(subscription().id, environmentName, location))
var tags = { 'azd-env-name': environmentName }
var watched = empty(watchedSubscriptions) ? [subscription().subscriptionId] : watchedSubscriptions

resource group 'Microsoft.Resources/resourceGroups@2025-04-01' = {
  name: resourceGroupName
  location: location
  tags: tags
}

// Who the app is, and who writes dead letters
module identities 'app/identities.bicep' = {
  name: 'identities'
  scope: group
  params: { token: token, location: location, tags: tags }
}

// Tables, queues and containers
module storage 'app/storage.bicep' = {
  name: 'storage'
  scope: group
  params: { token: token, location: location, tags: tags }
}

// The topic that the app tells its outcomes to
module topics 'app/topics.bicep' = {
  name: 'topics'
  scope: group
  params: { token: token, location: location, tags: tags }
}

// Logs
module monitoring 'app/monitoring.bicep' = {
  name: 'monitoring'
  scope: group
  params: { token: token, location: location, tags: tags, retentionDays: logRetentionDays }
}

// What wakes somebody up, and the page to look at then
module alerts 'app/alerts.bicep' = {
  name: 'alerts'
  scope: group
  params: {
    location: location
    tags: tags
    insightsName: monitoring.outputs.insightsName
    actionGroupIds: actionGroupIds
    sweepWindow: sweepWindow
  }
}

// What each of them may do with the others
module rbac 'app/rbac.bicep' = {
  name: 'rbac'
  scope: group
  params: {
    appPrincipalId: identities.outputs.appPrincipalId
    topicPrincipalId: identities.outputs.topicPrincipalId
    operatorId: principalId
    operatorType: principalType
    storageAccountName: storage.outputs.name
    deadLetterContainer: storage.outputs.deadLetterContainer
    outcomeTopicName: topics.outputs.name
    insightsName: monitoring.outputs.insightsName
  }
}

// Whose logs it may read
module workspaces 'app/workspace.bicep' = [
  for id in readWorkspaces: {
    name: 'workspace-${uniqueString(id, environmentName)}'
    scope: resourceGroup(split(id, '/')[2], split(id, '/')[4])
    params: { principalId: identities.outputs.appPrincipalId, workspaceName: split(id, '/')[8] }
  }
]

// The app itself
module function 'app/function.bicep' = {
  name: 'function'
  scope: group
  params: {
    token: token
    location: location
    tags: tags
    identityId: identities.outputs.appId
    clientId: identities.outputs.appClientId
    storageAccountName: storage.outputs.name
    packageContainer: storage.outputs.packageContainer
    insightsName: monitoring.outputs.insightsName
    outcomeTopicEndpoint: topics.outputs.endpoint
    subscriptions: watched
    secondRole: secondRole
    runCommand: runCommand
    sweepSchedule: sweepSchedule
    lookAgainSeconds: lookAgainSeconds
    customFeatures: customFeatures
    logWorkspaces: logWorkspaces
    readWorkspaces: [for i in range(0, length(readWorkspaces)): workspaces[i].outputs.customerId]
    instanceMemoryMB: instanceMemoryMB
    maximumInstanceCount: maximumInstanceCount
    alwaysReady: alwaysReady
  }
  dependsOn: [rbac]
}

// What the app may do in each subscription that it watches
module watch 'app/watch.bicep' = [
  for id in watched: {
    name: 'watch-${uniqueString(id, environmentName)}'
    scope: subscription(id)
    params: {
      environmentName: environmentName
      appGroupId: group.id
      principalId: identities.outputs.appPrincipalId
      enforce: enforce
      inGroupsAlone: !empty(enforceGroups)
      ensure: !empty(ensureGroups)
      grants: !empty(grantVaults) || !empty(grantGroups)
      rotate: !empty(rotateVaults) || !empty(rotateGroups)
      runCommand: runCommand
      askVaults: askVaults
      linkedFeatures: linkedFeatures
    }
  }
]

// Where it may change clusters, if not in whole subscriptions. The id of something within a group names no group: Azure
// refuses it, and no right on the whole group comes of it.
module updates 'app/assign.bicep' = [
  for id in enforceGroups: {
    name: 'enforce-${uniqueString(id, environmentName)}'
    scope: resourceGroup(split(id, '/')[2], join(skip(split(id, '/'), 4), '/'))
    params: { appGroupId: group.id, principalId: identities.outputs.appPrincipalId, right: 'enforce' }
    dependsOn: [watch]
  }
]

// Where it may make vaults, keys and identities
module ensure 'app/assign.bicep' = [
  for id in ensureGroups: {
    name: 'ensure-${uniqueString(id, environmentName)}'
    scope: resourceGroup(split(id, '/')[2], join(skip(split(id, '/'), 4), '/'))
    params: { appGroupId: group.id, principalId: identities.outputs.appPrincipalId, right: 'ensure' }
    dependsOn: [watch]
  }
]

// Whose keys it may rotate
module rotate 'app/assign.bicep' = [
  for id in concat(rotateVaults, rotateGroups): {
    name: 'rotate-${uniqueString(id, environmentName)}'
    scope: resourceGroup(split(id, '/')[2], split(id, '/')[4])
    params: {
      appGroupId: group.id
      principalId: identities.outputs.appPrincipalId
      right: 'rotate'
      vaultName: join(take(skip(split(id, '/'), 8), 1), '')
    }
    dependsOn: [watch]
  }
]

// On which vaults it may give clusters their roles
module grants 'app/grants.bicep' = [
  for id in concat(grantVaults, grantGroups): {
    name: 'grants-${uniqueString(id, environmentName)}'
    scope: resourceGroup(split(id, '/')[2], split(id, '/')[4])
    params: {
      appGroupId: group.id
      principalId: identities.outputs.appPrincipalId
      vaultName: join(take(skip(split(id, '/'), 8), 1), '')
      secondRole: secondRole
    }
    dependsOn: [watch]
  }
]

@description('The name of this deployment.')
output ENFORCER_NAME string = environmentName

@description('The region of the app.')
output ENFORCER_LOCATION string = location

@description('The subscription of the app.')
output ENFORCER_SUBSCRIPTION string = subscription().subscriptionId

@description('The resource group of the app, and of the topics in every subscription.')
output ENFORCER_RESOURCE_GROUP string = group.name

@description('The resource id of the app.')
output ENFORCER_APP_ID string = function.outputs.id

@description('Where the API answers.')
output ENFORCER_URL string = function.outputs.url

@description('The resource id of the storage account.')
output ENFORCER_STORAGE_ID string = storage.outputs.id

@description('The container of what Event Grid could not deliver.')
output ENFORCER_DEAD_LETTERS string = storage.outputs.deadLetterContainer

@description('The resource id of the identity with which system topics write dead letters.')
output ENFORCER_TOPIC_IDENTITY_ID string = identities.outputs.topicId

@description('The object id of the app identity.')
output ENFORCER_PRINCIPAL_ID string = identities.outputs.appPrincipalId

@description('The subscriptions that are watched, with commas between.')
output ENFORCER_SUBSCRIPTIONS string = join(watched, ',')

@description('The action groups that are told of alerts, with commas between.')
output ENFORCER_ACTION_GROUPS string = join(actionGroupIds, ',')

@description('The vaults whose events are wanted from the start, with commas between.')
output ENFORCER_VAULTS string = join(vaults, ',')
