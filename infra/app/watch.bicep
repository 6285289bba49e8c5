// What the app may do in one subscription. Each right is an action of one custom role, so that a switch that is turned
// off takes the right away with the next deployment; an assignment of its own would stay.
targetScope = 'subscription'

@description('The name of the deployment.')
param environmentName string

@description('The resource id of the group of the app: what sets its roles apart from those of another deployment.')
param appGroupId string

@description('The object id of the app identity.')
param principalId string

@description('May the app update clusters?')
param enforce bool

@description('Does it hold what changes clusters in the groups of enforceGroups alone, and not in the whole subscription?')
param inGroupsAlone bool

@description('May it make vaults, keys and identities in the groups of ensureGroups?')
param ensure bool

@description('May it give roles where grants.bicep says?')
param grants bool

@description('May it rotate keys of the vaults that rotateVaults and rotateGroups list?')
param rotate bool

@description('May it run commands in clusters?')
param runCommand bool

@description('May it ask vaults themselves?')
param askVaults bool

@description('What an update of the clusters refers to.')
param linkedFeatures array

var permissions = loadJsonContent('../permissions.json')
var linked = [for feature in linkedFeatures: permissions.linkedFeatures[feature]]
var updates = union(permissions.enforce, flatten(linked))
var changes = union(enforce ? updates : [], runCommand ? permissions.runCommand : [])
// Azure asks the subscription for this one: how an update ended belongs to no group.
var readsOfUpdates = enforce ? filter(permissions.enforce, action => endsWith(action, '/read')) : []
var label = '${environmentName}, ${subscription().subscriptionId}'

// Names of roles are unique in a tenant, and this one is made in each subscription. Azure refuses a second deployment of
// the same name: it must never decide what the first may do.
resource watcher 'Microsoft.Authorization/roleDefinitions@2022-04-01' = {
  name: guid(subscription().id, toLower(appGroupId), 'watch')
  properties: {
    roleName: 'AKS KMS Enforcer (${label})'
    description: 'What the app may do with clusters, vaults and keys of this subscription.'
    type: 'CustomRole'
    assignableScopes: [subscription().id]
    permissions: [
      {
        actions: union(permissions.audit, inGroupsAlone ? readsOfUpdates : changes)
        dataActions: askVaults ? permissions.askVaults : []
      }
    ]
  }
}

resource watching 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(subscription().id, principalId, watcher.id)
  properties: {
    principalId: principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: watcher.id
  }
}

// A role has to hold something: with the switch off it reads what the app may read anyway.
resource updater 'Microsoft.Authorization/roleDefinitions@2022-04-01' = {
  name: guid(subscription().id, toLower(appGroupId), 'enforce')
  properties: {
    roleName: 'AKS KMS Enforcer, updates (${label})'
    description: 'What the app may change in the groups that enforceGroups lists.'
    type: 'CustomRole'
    assignableScopes: [subscription().id]
    permissions: [{ actions: inGroupsAlone && !empty(changes) ? changes : permissions.audit }]
  }
}

resource maker 'Microsoft.Authorization/roleDefinitions@2022-04-01' = {
  name: guid(subscription().id, toLower(appGroupId), 'ensure')
  properties: {
    roleName: 'AKS KMS Enforcer, prerequisites (${label})'
    description: 'What the app may make in the groups that ensureGroups lists.'
    type: 'CustomRole'
    assignableScopes: [subscription().id]
    permissions: [{ actions: ensure ? permissions.ensure : permissions.audit }]
  }
}

resource rotator 'Microsoft.Authorization/roleDefinitions@2022-04-01' = {
  name: guid(subscription().id, toLower(appGroupId), 'rotate')
  properties: {
    roleName: 'AKS KMS Enforcer, rotations (${label})'
    description: 'Which keys the app may rotate when it is told to: those of the vaults that rotateVaults and rotateGroups list.'
    type: 'CustomRole'
    assignableScopes: [subscription().id]
    permissions: [{ actions: rotate ? [] : permissions.audit, dataActions: rotate ? permissions.rotate : [] }]
  }
}

resource granter 'Microsoft.Authorization/roleDefinitions@2022-04-01' = {
  name: guid(subscription().id, toLower(appGroupId), 'grants')
  properties: {
    roleName: 'AKS KMS Enforcer, grants (${label})'
    description: 'Assigned under a condition alone: two roles on keys and vaults, for service principals but the app.'
    type: 'CustomRole'
    assignableScopes: [subscription().id]
    permissions: [{ actions: grants ? permissions.grants : permissions.audit }]
  }
}
