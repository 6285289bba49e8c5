// What wakes somebody up, and the page to look at then. Both read the lines that the app logs: alerts.json, workbook.json.
@description('The region.')
param location string

@description('The tags.')
param tags object

@description('The Application Insights component.')
param insightsName string

@description('Resource ids of the action groups that are told. Empty: alerts are only shown.')
param actionGroupIds array

@description('Twice the time between two sweeps.')
param sweepWindow string

var rules = loadJsonContent('../alerts.json')

var sweepSeconds = {
  PT2H: 7200
  PT3H: 10800
  PT4H: 14400
  PT5H: 18000
  PT6H: 21600
  P1D: 86400
  P2D: 172800
}

resource insights 'Microsoft.Insights/components@2020-02-02' existing = {
  name: insightsName
}

// Each query gives the rows that somebody has to know of, so one row is enough. An alert ends when there are none left.
resource alerts 'Microsoft.Insights/scheduledQueryRules@2026-03-01' = [
  for rule in rules: {
    name: 'kms-enforcer-${rule.name}'
    location: location
    tags: tags
    kind: 'LogAlert'
    properties: {
      displayName: 'AKS KMS Enforcer: ${rule.title}'
      description: rule.description
      severity: rule.severity
      enabled: true
      scopes: [insights.id]
      evaluationFrequency: 'PT15M'
      windowSize: rule.window == 'sweep' ? sweepWindow : rule.window
      autoMitigate: true
      criteria: {
        allOf: [
          {
            query: replace(rule.query, '{sweepSeconds}', string(sweepSeconds[sweepWindow]))
            timeAggregation: 'Count'
            operator: 'GreaterThan'
            threshold: 0
            failingPeriods: { numberOfEvaluationPeriods: 1, minFailingPeriodsToAlert: 1 }
            dimensions: map(rule.by, column => { name: column, operator: 'Include', values: ['*'] })
          }
        ]
      }
      actions: { actionGroups: actionGroupIds }
    }
  }
]

resource workbook 'Microsoft.Insights/workbooks@2023-06-01' = {
  name: guid(resourceGroup().id, 'kms-enforcer-workbook')
  location: location
  tags: tags
  kind: 'shared'
  properties: {
    displayName: 'AKS KMS Enforcer'
    category: 'workbook'
    sourceId: insights.id
    serializedData: replace(loadTextContent('../workbook.json'), '{insights}', insights.id)
    version: 'Notebook/1.0'
  }
}
