// The app on Flex Consumption, with every setting that it reads. Storage and logs are reached by identity.
@description('What makes names unique.')
param token string

@description('The region.')
param location string

@description('The tags.')
param tags object

@description('The resource id of the app identity.')
param identityId string

@description('Its client id.')
param clientId string

@description('The storage account.')
param storageAccountName string

@description('Its container for the code.')
param packageContainer string

@description('The Application Insights component.')
param insightsName string

@description('Where outcomes are sent to.')
param outcomeTopicEndpoint string

@description('Ids of the subscriptions to sweep.')
param subscriptions array

@description('The second role of a cluster identity on its vault.')
param secondRole string

@description('May the app run commands in clusters?')
param runCommand bool

@description('When the timer sweeps.')
param sweepSchedule string

@description('How many seconds a wait lasts that names no time of its own.')
param lookAgainSeconds int

@description('Preview features that an update names.')
param customFeatures string

@description('Ids of the workspaces whose logs are read.')
param logWorkspaces array

@description('Ids of more workspaces, those on which the app was given the right.')
param readWorkspaces array

@description('Memory of an instance, in MB.')
param instanceMemoryMB int

@description('The most instances.')
param maximumInstanceCount int

@description('Instances that never stop.')
param alwaysReady array

resource account 'Microsoft.Storage/storageAccounts@2025-06-01' existing = {
  name: storageAccountName
}

resource insights 'Microsoft.Insights/components@2020-02-02' existing = {
  name: insightsName
}

resource plan 'Microsoft.Web/serverfarms@2025-03-01' = {
  name: 'plan-kms-enforcer-${token}'
  location: location
  tags: tags
  kind: 'functionapp'
  sku: { name: 'FC1', tier: 'FlexConsumption' }
  properties: { reserved: true }
}

resource app 'Microsoft.Web/sites@2025-03-01' = {
  name: 'func-kms-enforcer-${token}'
  location: location
  tags: union(tags, { 'azd-service-name': 'enforcer' })
  kind: 'functionapp,linux'
  identity: {
    type: 'UserAssigned'
    userAssignedIdentities: { '${identityId}': {} }
  }
  properties: {
    serverFarmId: plan.id
    httpsOnly: true
    // Flex refuses most of siteConfig, region by region: nothing else belongs here.
    siteConfig: { minTlsVersion: '1.2' }
    functionAppConfig: {
      deployment: {
        storage: {
          type: 'blobContainer'
          value: '${account.properties.primaryEndpoints.blob}${packageContainer}'
          authentication: {
            type: 'UserAssignedIdentity'
            userAssignedIdentityResourceId: identityId
          }
        }
      }
      runtime: { name: 'python', version: '3.13' }
      scaleAndConcurrency: {
        instanceMemoryMB: instanceMemoryMB
        maximumInstanceCount: maximumInstanceCount
        alwaysReady: alwaysReady
        triggers: { http: { perInstanceConcurrency: 16 } }
      }
    }
  }
}

resource settings 'Microsoft.Web/sites/config@2025-03-01' = {
  parent: app
  name: 'appsettings'
  properties: {
    AzureWebJobsStorage__credential: 'managedidentity'
    AzureWebJobsStorage__clientId: clientId
    AzureWebJobsStorage__blobServiceUri: account.properties.primaryEndpoints.blob
    AzureWebJobsStorage__queueServiceUri: account.properties.primaryEndpoints.queue
    AzureWebJobsStorage__tableServiceUri: account.properties.primaryEndpoints.table
    APPLICATIONINSIGHTS_CONNECTION_STRING: insights.properties.ConnectionString
    APPLICATIONINSIGHTS_AUTHENTICATION_STRING: 'ClientId=${clientId};Authorization=AAD'
    AZURE_CLIENT_ID: clientId
    SWEEP_SCHEDULE: sweepSchedule
    SUBSCRIPTIONS: join(subscriptions, ',')
    POLICY_FILE: 'kms-policy.yaml'
    LOOK_AGAIN_SECONDS: string(lookAgainSeconds)
    AKS_CUSTOM_FEATURES: customFeatures
    NOTICES_TOPIC: outcomeTopicEndpoint
    RUN_COMMAND: runCommand ? 'on' : 'off'
    SECOND_ROLE: secondRole
    LOG_WORKSPACES: join(union(logWorkspaces, readWorkspaces), ',')
  }
}

resource publishing 'Microsoft.Web/sites/basicPublishingCredentialsPolicies@2025-03-01' = [
  for name in ['ftp', 'scm']: {
    parent: app
    name: name
    properties: { allow: false }
  }
]

@description('The resource id of the app.')
output id string = app.id

@description('Where its API answers.')
output url string = 'https://${app.properties.defaultHostName}/api'
