"""The templates can be read, and say what the code says: names, settings, functions, rights. Nothing with a key in it.

The real compiler does not run here: `az bicep build` and its linter are for where Azure's tools are.
"""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pathspec import PathSpec

from infra.hooks.deployment import OUTPUTS
from infra.hooks.postdeploy import FUNCTIONS, KEY_ROW, LEDGER_TABLE
from local.references import ENFORCE, REFERENCES
from local.simulator.roles import BUILT_IN
from shared.events import CLUSTER_EVENTS, KEY_EVENTS, VAULT_EVENT
from shared.queues import QUEUES
from shared.tables import TABLES
from tests.bicep import REQUIRED, BrokenTemplate, Expr, Resource, Template, names, parse, read
from tests.tracked import tracked_names

ROOT = Path(__file__).parent.parent
INFRA = ROOT / "infra"
FILES = sorted(INFRA.rglob("*.bicep"))
TEMPLATES = {str(file.relative_to(INFRA)): read(file) for file in FILES}
MAIN, EVENTS, KMS = (TEMPLATES[name] for name in ("main.bicep", "events.bicep", "kms.bicep"))
PERMISSIONS: dict[str, Any] = json.loads((INFRA / "permissions.json").read_text(encoding="utf-8"))
SAMPLE: dict[str, str] = json.loads((ROOT / "local.settings.sample.json").read_text(encoding="utf-8"))["Values"]
PAGE = ROOT / "docs" / "deployment.md"


def only(name: str, kind: str) -> Resource:
    """The one resource of a type in a template."""
    (found,) = TEMPLATES[name].of_type(kind)
    return found


def made(kind: str) -> list[Resource]:
    """The resources of a type in all templates."""
    return [one for template in TEMPLATES.values() for one in template.of_type(kind)]


# syntax


def test_there_are_templates() -> None:
    assert {"main.bicep", "events.bicep", "kms.bicep", "app/function.bicep"} <= set(TEMPLATES)


@pytest.mark.parametrize(
    "broken",
    [
        "param location string =",
        "resource x 'A/b@2025-01-01' = {\n  name 'x'\n}",
        "resource x 'A/b@2025-01-01' = {\n  name: 'x'\n",
        'var x = "double"',
        "output x string = a.\n",
    ],
)
def test_a_broken_template_is_found(broken: str) -> None:
    with pytest.raises(BrokenTemplate):
        parse(Path("broken.bicep"), f"{MAIN.text}\n{broken}\n")


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES.keys())
def test_every_parameter_and_output_is_described(template: Template) -> None:
    assert {*template.params, *template.outputs} - template.described == set()


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES.keys())
def test_every_name_that_is_used_is_declared_and_every_parameter_used(template: Template) -> None:
    given, used = names(template)

    assert used - given == set()
    assert {*template.params, *template.vars} - used == set()


def test_a_name_that_nobody_declared_is_found() -> None:
    text = "param a string\nvar b = map(['x'], one => { a: '${one}${a}', c: c ? d.a : a })\noutput e string = b[f]\n"

    given, used = names(parse(Path("names.bicep"), text))

    assert used - given == {"c", "d", "f"}


def callers() -> list[tuple[Template, Resource, Template]]:
    """Each module that is called: by whom, the call, and what it calls."""
    return [
        (template, module, TEMPLATES[str((template.file.parent / module.type).resolve().relative_to(INFRA))])
        for template in TEMPLATES.values()
        for module in template.modules
    ]


def test_every_module_gets_the_parameters_that_it_takes() -> None:
    wrong = []
    for _, call, called in callers():
        given = set(call.body["params"])
        required = {name for name, default in called.params.items() if default is REQUIRED}
        if not required <= given <= set(called.params):
            wrong.append(call.name)

    assert wrong == []


def test_every_module_says_where_it_is_deployed() -> None:
    assert [
        call.name for caller, call, _ in callers() if caller.scope == "subscription" and "scope" not in call.body
    ] == []


def test_a_module_is_deployed_to_the_kind_of_scope_that_it_is_for() -> None:
    wrong = []
    for _, call, called in callers():
        scope = call.body["scope"].text
        to_subscription = scope.startswith("subscription(")
        if to_subscription != (called.scope == "subscription"):
            wrong.append(f"{call.name} to {scope}")

    assert wrong == []


API_VERSIONS = {
    "Microsoft.Authorization": "2022-04-01",
    "Microsoft.EventGrid": "2025-02-15",
    "Microsoft.Insights": "2020-02-02",
    "Microsoft.KeyVault": "2026-02-01",
    "Microsoft.ManagedIdentity": "2024-11-30",
    "Microsoft.OperationalInsights": "2025-07-01",
    "Microsoft.Resources": "2025-04-01",
    "Microsoft.Storage": "2025-06-01",
    "Microsoft.Web": "2025-03-01",
}


OTHER_VERSIONS = {
    "Microsoft.Insights/metricAlerts": "2018-03-01",
    "Microsoft.Insights/scheduledQueryRules": "2026-03-01",
    "Microsoft.Insights/workbooks": "2023-06-01",
}
"""Of the types that have versions of their own within their provider."""


def test_each_provider_is_spoken_to_in_one_version() -> None:
    found = {tuple(one.type.split("@")) for template in TEMPLATES.values() for one in template.resources}
    own = {kind: version for kind, version in found if kind in OTHER_VERSIONS}
    shared = {(kind.split("/")[0], version) for kind, version in found if kind not in OTHER_VERSIONS}

    assert own == OTHER_VERSIONS
    assert shared == set(API_VERSIONS.items())


# names that the code knows


def test_the_tables_and_queues_are_the_code_s() -> None:
    made_there = TEMPLATES["app/storage.bicep"].vars

    assert sorted(made_there["tableNames"]) == sorted(TABLES)
    assert sorted(made_there["queueNames"]) == sorted([*QUEUES, *(f"{queue}-poison" for queue in QUEUES)])
    assert LEDGER_TABLE in TABLES


def test_the_hook_looks_for_vaults_in_the_ledger_s_own_row() -> None:
    ledger = (ROOT / "shared" / "keyledger.py").read_text(encoding="utf-8")

    assert f'_KEY_ROW = "{KEY_ROW}"' in ledger
    assert '"RowKey": _KEY_ROW, "vaultId": str(vault)' in ledger


def test_the_outputs_that_the_commands_read_are_there() -> None:
    assert set(OUTPUTS) | {"ENFORCER_VAULTS", "ENFORCER_ACTION_GROUPS"} <= set(MAIN.outputs)


def settings() -> dict[str, Any]:
    found = only("app/function.bicep", "Microsoft.Web/sites/config")
    assert found.body["name"] == "appsettings"
    properties: dict[str, Any] = found.body["properties"]
    return properties


OF_THE_PLATFORM = {"APPLICATIONINSIGHTS_CONNECTION_STRING", "APPLICATIONINSIGHTS_AUTHENTICATION_STRING"}
REFUSED_BY_FLEX = {
    *("ENABLE_ORYX_BUILD", "FUNCTIONS_EXTENSION_VERSION", "FUNCTIONS_WORKER_RUNTIME", "SCM_DO_BUILD_DURING_DEPLOYMENT"),
    *("TZ", "WEBSITE_CONTENTAZUREFILECONNECTIONSTRING", "WEBSITE_CONTENTSHARE", "WEBSITE_RUN_FROM_PACKAGE"),
    *("WEBSITE_MAX_DYNAMIC_APPLICATION_SCALE_OUT", "WEBSITE_TIME_ZONE"),
}


def test_the_app_gets_every_setting_that_it_reads_and_no_other() -> None:
    expected = set(SAMPLE) - REFUSED_BY_FLEX | OF_THE_PLATFORM

    assert set(settings()) == expected


def test_the_policy_that_the_app_is_told_of_ships() -> None:
    assert settings()["POLICY_FILE"] in shipped()


def test_the_defaults_are_those_of_the_sample() -> None:
    assert MAIN.params["sweepSchedule"] == SAMPLE["SWEEP_SCHEDULE"]
    assert str(MAIN.params["lookAgainSeconds"]) == SAMPLE["LOOK_AGAIN_SECONDS"]
    assert MAIN.params["customFeatures"] == SAMPLE["AKS_CUSTOM_FEATURES"]


# events


def event_grid_triggers() -> set[str]:
    module = ast.parse((ROOT / "function_app.py").read_text(encoding="utf-8"))
    return {
        node.name
        for node in module.body
        if isinstance(node, ast.AsyncFunctionDef)
        and any("event_grid_trigger" in ast.unparse(decorator) for decorator in node.decorator_list)
    }


KINDS: dict[str, Any] = EVENTS.vars["kinds"]


def test_events_go_to_the_event_grid_triggers() -> None:
    assert {kind["functionName"] for kind in KINDS.values()} == event_grid_triggers() == set(FUNCTIONS)


def test_the_events_that_are_served_are_asked_for() -> None:
    clusters, keys = KINDS["clusters"]["filter"], KINDS["keys"]["filter"]
    (operations,) = clusters["advancedFilters"]

    assert {one.lower() for one in clusters["includedEventTypes"]} == set(CLUSTER_EVENTS)
    assert {one.lower() for one in operations["values"]} == set(CLUSTER_EVENTS.values())
    assert operations["key"] == "data.operationName"
    assert {one.lower() for one in keys["includedEventTypes"]} == {*KEY_EVENTS, VAULT_EVENT}


def test_the_sources_are_of_known_types() -> None:
    assert {kind["topicType"] for kind in KINDS.values()} == {
        "Microsoft.Resources.Subscriptions",
        "Microsoft.KeyVault.vaults",
    }


def test_no_event_is_lost_without_a_dead_letter() -> None:
    events = only("app/source.bicep", "Microsoft.EventGrid/systemTopics/eventSubscriptions").body["properties"]

    assert events["retryPolicy"] == {"maxDeliveryAttempts": 30, "eventTimeToLiveInMinutes": 1440}
    assert events["deadLetterWithResourceIdentity"]["identity"]["type"] == "UserAssigned"
    assert events["destination"]["endpointType"] == "AzureFunction"
    assert events["destination"]["properties"]["maxEventsPerBatch"] == 1


def test_events_are_subscribed_to_after_the_code_is_there() -> None:
    (caller,) = {caller.file.name for caller, _, called in callers() if called.file.name == "source.bicep"}

    assert caller == "events.bicep"
    assert len(made("Microsoft.EventGrid/systemTopics/eventSubscriptions")) == 1
    assert "events.bicep" not in [call.type for _, call, _ in callers()]


def test_somebody_is_told_of_events_that_could_not_be_delivered() -> None:
    losses = only("app/source.bicep", "Microsoft.Insights/metricAlerts")
    (criterion,) = losses.body["properties"]["criteria"]["allOf"]

    assert losses.over == ["DeadLetteredCount", "DroppedEventCount"]
    assert losses.body["properties"]["scopes"] == [Expr("topic.id")]
    assert (criterion["operator"], criterion["threshold"], criterion["timeAggregation"]) == ("GreaterThan", 0, "Total")
    assert criterion["metricNamespace"] == "Microsoft.EventGrid/systemTopics"
    assert criterion["dimensions"][0]["values"] == [Expr("subscriptionName")], "a topic may have other subscriptions"


def test_what_was_swept_is_waited_for_as_long_as_two_sweeps_take() -> None:
    (alerts,) = [call for _, call, called in callers() if called.file.name == "alerts.bicep"]

    assert alerts.body["params"]["sweepWindow"] == Expr("sweepWindow")
    assert MAIN.params["sweepSchedule"].split()[2:] == ["*", "*", "*", "*"], "hourly"
    assert MAIN.params["sweepWindow"] == MAIN.allowed["sweepWindow"][0] == "PT2H"


# the app


def test_flex_consumption_gets_nothing_that_it_refuses() -> None:
    site = only("app/function.bicep", "Microsoft.Web/sites").body["properties"]

    assert set(site["siteConfig"]) <= {"minTlsVersion", "cors"}
    assert not REFUSED_BY_FLEX & set(settings())
    assert "appSettings" not in site["siteConfig"]


def test_the_app_runs_on_the_python_of_this_repository() -> None:
    runtime = only("app/function.bicep", "Microsoft.Web/sites").body["properties"]["functionAppConfig"]["runtime"]

    assert runtime == {"name": "python", "version": (ROOT / ".python-version").read_text(encoding="utf-8").strip()}


def test_nothing_takes_a_key() -> None:
    account = only("app/storage.bicep", "Microsoft.Storage/storageAccounts").body["properties"]
    (publishing,) = made("Microsoft.Web/sites/basicPublishingCredentialsPolicies")

    assert account["allowSharedKeyAccess"] is False
    assert account["allowBlobPublicAccess"] is False
    assert account["defaultToOAuthAuthentication"] is True
    assert [one.body["properties"]["disableLocalAuth"] for one in made("Microsoft.EventGrid/topics")] == [True]
    assert [one.body["properties"]["DisableLocalAuth"] for one in made("Microsoft.Insights/components")] == [True]
    assert publishing.over == ["ftp", "scm"]
    assert publishing.body["properties"] == {"allow": False}


def test_nothing_is_sent_without_tls() -> None:
    account = only("app/storage.bicep", "Microsoft.Storage/storageAccounts").body["properties"]
    site = only("app/function.bicep", "Microsoft.Web/sites").body["properties"]
    (topic,) = made("Microsoft.EventGrid/topics")

    assert account["minimumTlsVersion"] == "TLS1_2"
    assert account["supportsHttpsTrafficOnly"] is True
    assert site["httpsOnly"] is True
    assert site["siteConfig"]["minTlsVersion"] == "1.2"
    assert topic.body["properties"]["minimumTlsVersionAllowed"] == "1.2"


# Put together from parts, so that no scanner takes this line for what it looks for.
SECRETS = re.compile(
    "|".join(["Account" + "Key=", "SharedAccess" + "(Key|Signature)", "-----" + "BEGIN", r"list\w*\("])
)


def test_no_template_or_hook_reads_or_holds_a_secret() -> None:
    files = [*FILES, *INFRA.rglob("*.json"), *INFRA.rglob("hooks/*.py"), ROOT / "azure.yaml"]

    found = [
        (file.name, match[0])
        for file in files
        for match in SECRETS.finditer(file.read_text(encoding="utf-8"))
        if file.suffix == ".bicep" or "(" not in match[0]  # list() is a function of Bicep, and of Python
    ]

    assert found == []


# roles

ROLES = {
    "eventGridDataSender": "d5a91429-5739-47e2-a06b-3470a27159e7",
    "keyVaultContributor": "f25e0fa2-a7c8-4377-a976-54943a77a395",
    "keyVaultCryptoUser": "12338af0-0e69-4776-bea7-57ae8d297424",
    "keyVaultReader": "21090545-7ca7-4776-b22c-e363652d74d2",
    "logAnalyticsReader": "73c42c96-874c-492b-b04d-ab87d138a893",
    "monitoringMetricsPublisher": "3913510d-42f4-4e42-8a64-420c390055eb",
    "storageBlobDataContributor": "ba92f5b4-2d11-453d-a403-e96b0029c9fe",
    "storageBlobDataOwner": "b7e6dc6d-f1e8-4753-8033-0f276bb0955b",
    "storageQueueDataContributor": "974c5e8b-45b9-4653-ba55-5f855dd0fb88",
    "storageQueueDataMessageSender": "c6a89b2d-59bc-44d0-9896-0f6e12d7b80a",
    "storageTableDataContributor": "0a9a7e1f-b9d0-4cc4-a60d-0319b160aaa3",
    "storageTableDataReader": "76199698-9eea-4c19-bc75-cec21354c6b6",
}
"""Source: Azure RBAC docs, built-in-roles."""

GUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES.keys())
def test_every_role_has_its_right_id(template: Template) -> None:
    roles: dict[str, str] = template.vars.get("roles", {})

    assert roles.items() <= ROLES.items()
    assert set(GUID.findall(template.text)) == set(roles.values())


def test_the_roles_are_those_that_the_simulated_azure_has() -> None:
    there = {"".join((role.name[0].lower() + role.name[1:]).split()): role.id for role in BUILT_IN}
    shared = set(there) & set(ROLES)

    assert shared >= {"keyVaultCryptoUser", "keyVaultReader", "keyVaultContributor"}
    assert {name: there[name] for name in shared} == {name: ROLES[name] for name in shared}


def test_every_assignment_says_what_its_principal_is() -> None:
    assignments = made("Microsoft.Authorization/roleAssignments")

    assert len(assignments) >= 10
    assert [one.name for one in assignments if "principalType" not in one.body["properties"]] == []


HELD = {
    "appOnStorage": ("account", "appPrincipalId"),
    "appOnOutcomes": ("outcomes", "appPrincipalId"),
    "appOnInsights": ("insights", "appPrincipalId"),
    "topicOnDeadLetters": ("deadLetters", "topicPrincipalId"),
    "operatorOnStorage": ("account", "operatorId"),
    "operatorOnDeadLetters": ("deadLetters", "operatorId"),
    "watching": ("", "principalId"),
    "onVault": ("vault", "principalId"),
    "onGroup": ("", "principalId"),
    "reading": ("workspace", "principalId"),
    "access": ("vault", "identity.properties.principalId"),
}
"""Where each assignment holds, empty for what its template is deployed to, and for whom: a scope that is left out makes
a right on one vault a right on its whole group."""


@pytest.mark.parametrize(
    "one", made("Microsoft.Authorization/roleAssignments"), ids=lambda one: f"{one.name}-{one.body['name'].text}"
)
def test_every_assignment_holds_where_it_should_and_for_whom(one: Resource) -> None:
    scope, principal = HELD[one.name]

    assert one.body.get("scope", Expr("")) == Expr(scope)
    assert one.body["properties"]["principalId"] == Expr(principal)
    assert ("condition" in one.body["properties"]) == ("conditionVersion" in one.body["properties"])


def test_an_assignment_is_the_same_in_whatever_case_its_vault_or_workspace_was_listed() -> None:
    """Azure refuses a second assignment of the same role at the same place, under whatever name."""
    named = {
        one.body["name"].text
        for name in ("assign", "grants", "workspace")
        for one in TEMPLATES[f"app/{name}.bicep"].of_type("Microsoft.Authorization/roleAssignments")
    }

    assert named == {
        "guid(resourceGroup().id, principalId, role)",
        "guid(resourceGroup().id, toLower(vaultName), principalId, role)",
        "guid(resourceGroup().id, toLower(workspaceName), principalId, roles.logAnalyticsReader)",
    }


def test_outside_its_own_group_the_app_gets_no_built_in_role_but_to_read_logs() -> None:
    outside = {name: TEMPLATES[f"app/{name}.bicep"] for name in ("watch", "assign", "grants", "workspace")}
    assigned = {
        name: [one.body["properties"]["roleDefinitionId"].text for one in template.of_type(kind)]
        for name, template in outside.items()
        if (kind := "Microsoft.Authorization/roleAssignments")
    }

    assert assigned == {
        "watch": ["watcher.id"],
        "assign": ["role", "role"],
        "grants": ["role", "role"],
        "workspace": ["subscriptionResourceId('Microsoft.Authorization/roleDefinitions', roles.logAnalyticsReader)"],
    }


def test_the_custom_roles_are_found_where_they_are_assigned() -> None:
    assign = TEMPLATES["app/assign.bicep"]
    defined = {
        one.body["name"].text for one in TEMPLATES["app/watch.bicep"].of_type("Microsoft.Authorization/roleDefinitions")
    }
    rights = {call.body["params"]["right"] for _, call, called in callers() if called is assign}

    assert rights == set(assign.allowed["right"]) == {"enforce", "ensure", "rotate"}
    one = "guid(subscription().id, toLower(appGroupId), "
    assert {f"{one}'{name}')" for name in {"watch", "grants", *rights}} == defined
    assert f"{one}right)" in assign.vars["role"].text
    assert f"{one}'grants')" in TEMPLATES["app/grants.bicep"].vars["role"].text


def test_two_deployments_of_one_name_never_share_a_role() -> None:
    """The role decides what the app may do: one that only audits must not get what the other enforces with."""
    calls = [call for _, call, called in callers() if called.file.stem in {"watch", "assign", "grants"}]

    assert len(calls) == 5
    assert {call.body["params"]["appGroupId"] for call in calls} == {Expr("group.id")}


ON_VAULTS_AND_GROUPS = {"rotate": "concat(rotateVaults, rotateGroups)", "grants": "concat(grantVaults, grantGroups)"}


def test_each_right_is_given_where_its_lists_say_and_nowhere_else() -> None:
    calls = {call.name: call for _, call, _ in callers()}
    here = "resourceGroup(split(id, '/')[2], split(id, '/')[4])"
    everywhere = {**ON_VAULTS_AND_GROUPS, "updates": "enforceGroups", "ensure": "ensureGroups"}

    assert {name: calls[name].over.text for name in everywhere} == everywhere
    assert {calls[name].body["scope"].text for name in (*ON_VAULTS_AND_GROUPS, "workspaces")} == {here}
    # The id of a cluster must not give a right on all that is in its group.
    exactly = "resourceGroup(split(id, '/')[2], join(skip(split(id, '/'), 4), '/'))"
    assert {calls[name].body["scope"].text for name in ("updates", "ensure")} == {exactly}
    # A slash too many at the end of a vault's id must not make its whole group of it.
    vaults = {calls[name].body["params"]["vaultName"].text for name in ON_VAULTS_AND_GROUPS}
    assert vaults == {"join(take(skip(split(id, '/'), 8), 1), '')"}


def test_a_workspace_that_is_listed_is_read_and_the_right_to_it_given() -> None:
    calls = {call.name: call for _, call, _ in callers()}
    told = calls["function"].body["params"]["readWorkspaces"]

    assert calls["workspaces"].over == Expr("readWorkspaces")
    assert (told.over, told.body) == (
        Expr("range(0, length(readWorkspaces))"),
        Expr("workspaces[i].outputs.customerId"),
    )
    assert settings()["LOG_WORKSPACES"] == Expr("join(union(logWorkspaces, readWorkspaces), ',')")


def test_every_action_is_named_in_full_and_none_deletes() -> None:
    linked = [action for actions in PERMISSIONS["linkedFeatures"].values() for action in actions]
    actions = linked + [action for name, some in PERMISSIONS.items() if name != "linkedFeatures" for action in some]

    assert [one for one in actions if not re.fullmatch(r"Microsoft\.\w+(/\w+)+", one)] == []
    assert [one for one in actions if one.endswith("/delete") or "purge" in one] == []


def test_audit_reads_and_does_nothing_else() -> None:
    assert [action for action in PERMISSIONS["audit"] if not action.endswith("/read")] == []


def test_the_rights_of_audit_are_those_of_the_page_on_operations() -> None:
    page = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    section = page.split("## Identity and rights")[1].split("To enforce")[0]

    assert set(re.findall(r"`(Microsoft\.[\w./]+)`", section)) <= set(PERMISSIONS["audit"])


def test_without_a_switch_the_app_can_only_read() -> None:
    watcher = only_named("watcher").body["properties"]["permissions"][0]

    assert watcher["actions"].text == "union(permissions.audit, inGroupsAlone ? readsOfUpdates : changes)"
    assert TEMPLATES["app/watch.bicep"].vars["changes"].text == (
        "union(enforce ? updates : [], runCommand ? permissions.runCommand : [])"
    )
    assert watcher["dataActions"].text == "askVaults ? permissions.askVaults : []"
    assert {name: MAIN.params[name] for name in ("enforce", "runCommand", "askVaults")} == {
        "enforce": False,
        "runCommand": False,
        "askVaults": False,
    }
    lists = ("enforceGroups", "ensureGroups", "grantVaults", "grantGroups", "rotateVaults", "rotateGroups")
    assert [MAIN.params[name] for name in (*lists, "linkedFeatures", "readWorkspaces")] == [[]] * 8


def test_what_changes_clusters_is_held_in_groups_alone_where_some_are_listed() -> None:
    watch = TEMPLATES["app/watch.bicep"]
    calls = {call.name: call.body["params"] for _, call, _ in callers()}

    assert calls["watch"]["inGroupsAlone"] == Expr("!empty(enforceGroups)")
    assert watch.vars["readsOfUpdates"].text == (
        "enforce ? filter(permissions.enforce, action => endsWith(action, '/read')) : []"
    )
    assert [action for action in PERMISSIONS["enforce"] if action.endswith("/read")] == [
        "Microsoft.ContainerService/locations/operations/read"
    ]


def test_a_switch_that_is_off_leaves_its_role_with_what_audit_may() -> None:
    assert {
        name: only_named(name).body["properties"]["permissions"][0]["actions"].text
        for name in ("updater", "maker", "granter", "rotator")
    } == {
        "updater": "inGroupsAlone && !empty(changes) ? changes : permissions.audit",
        "rotator": "rotate ? [] : permissions.audit",
        "maker": "ensure ? permissions.ensure : permissions.audit",
        "granter": "grants ? permissions.grants : permissions.audit",
    }
    assert only_named("rotator").body["properties"]["permissions"][0]["dataActions"].text == (
        "rotate ? permissions.rotate : []"
    )


def only_named(name: str) -> Resource:
    (found,) = [one for one in TEMPLATES["app/watch.bicep"].resources if one.name == name]
    return found


def filled(template: Template, name: str) -> str:
    """The text of a variable with the other variables in it; what only Azure knows stays `${...}`."""

    def value(found: re.Match[str]) -> str:
        if found[1].startswith("roles."):
            return str(template.vars["roles"][found[1].removeprefix("roles.")])
        inner = template.vars.get(found[1])
        return filled(template, found[1]) if isinstance(inner, str) else found[0]

    return re.sub(r"\$\{([\w.]+)\}", value, template.vars[name])


def test_roles_are_given_under_a_condition_alone() -> None:
    grants = TEMPLATES["app/grants.bicep"]
    assignments = grants.of_type("Microsoft.Authorization/roleAssignments")
    attribute = "@Request[Microsoft.Authorization/roleAssignments:"

    assert PERMISSIONS["grants"] == ["Microsoft.Authorization/roleAssignments/write"]
    assert {one.body["properties"]["condition"].text for one in assignments} == {"condition"}
    assert {one.body["properties"]["conditionVersion"] for one in assignments} == {"2.0"}
    assert filled(grants, "condition") == (
        "((!(ActionMatches{'Microsoft.Authorization/roleAssignments/write'})) OR ("
        f"{attribute}RoleDefinitionId] ForAnyOfAnyValues:GuidEquals {{{ROLES['keyVaultCryptoUser']}, ${{second}}}}"
        f" AND {attribute}PrincipalType] ForAnyOfAnyValues:StringEqualsIgnoreCase {{'ServicePrincipal'}}"
        f" AND {attribute}PrincipalId] ForAnyOfAllValues:GuidNotEquals {{${{principalId}}}}))"
    )


def test_one_parameter_decides_the_second_role_for_the_app_and_for_the_condition() -> None:
    calls = {call.name: call.body["params"] for _, call, _ in callers()}

    assert MAIN.allowed["secondRole"] == ["reader", "contributor"]
    assert calls["function"]["secondRole"] == calls["grants"]["secondRole"] == Expr("secondRole")
    assert settings()["SECOND_ROLE"] == Expr("secondRole")
    assert KMS.vars["second"] == TEMPLATES["app/grants.bicep"].vars["second"]


def test_one_parameter_gives_the_right_to_run_commands_and_tells_the_app_to() -> None:
    calls = {call.name: call.body["params"] for _, call, _ in callers()}

    assert calls["function"]["runCommand"] == calls["watch"]["runCommand"] == Expr("runCommand")
    assert settings()["RUN_COMMAND"] == Expr("runCommand ? 'on' : 'off'")


def test_there_is_a_switch_for_every_linked_permission_that_the_fleet_may_need() -> None:
    linked = PERMISSIONS["linkedFeatures"]
    known = {"enforce": PERMISSIONS["enforce"], **linked}

    assert MAIN.allowed["linkedFeatures"] == list(linked)
    assert {switch for switch, _ in REFERENCES.values()} - {ENFORCE} == set(linked)
    assert [where for where, (switch, actions) in REFERENCES.items() if not set(actions) <= set(known[switch])] == []


# keys of one region


def test_the_key_can_be_used_and_can_not_be_lost() -> None:
    vault = only("kms.bicep", "Microsoft.KeyVault/vaults").body["properties"]
    key = only("kms.bicep", "Microsoft.KeyVault/vaults/keys").body["properties"]

    assert vault["enableRbacAuthorization"] is True
    assert vault["enablePurgeProtection"] is True
    assert vault["networkAcls"]["bypass"] == "AzureServices"
    assert key["kty"] == "RSA"
    assert set(key["keyOps"]) == {"encrypt", "decrypt"}
    assert key["rotationPolicy"]["lifetimeActions"][0]["action"] == {"type": "rotate"}
    assert KMS.params["versionsExpireIn"] == ""


# azd


def azure_yaml() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "azure.yaml").read_text(encoding="utf-8"))
    return found


def test_azd_finds_the_app_and_the_hooks() -> None:
    (service,) = azure_yaml()["services"].values()
    hooks = [service["hooks"]["prepackage"]["run"], *(one["run"] for one in azure_yaml()["hooks"].values())]

    assert f"'azd-service-name': '{next(iter(azure_yaml()['services']))}'" in TEMPLATES["app/function.bicep"].text
    assert (service["project"], service["language"], service["host"]) == (".", "python", "function")
    assert [hook for hook in hooks if not (ROOT / hook).is_file()] == []


def test_azd_deletes_nothing_before_it_is_known_what_else_would_go() -> None:
    """A service's hook would run for `azd deploy` too, and one that may fail would keep nothing back."""
    assert azure_yaml()["hooks"]["predown"] == {"run": "./infra/hooks/predown.py", "continueOnError": False}


def test_azd_installs_nothing_for_the_hooks() -> None:
    """Without a file of their own azd would take the app's pyproject.toml for them, and install that."""
    lines = (INFRA / "hooks" / "requirements.txt").read_text(encoding="utf-8").splitlines()
    hooks = {file.name: ast.parse(file.read_text(encoding="utf-8")) for file in (INFRA / "hooks").glob("*.py")}
    imports_shared = {
        name
        for name, module in hooks.items()
        for node in ast.walk(module)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("shared")
    }

    assert [line for line in lines if not line.startswith("#")] == []
    assert imports_shared == {"redeliver.py"}, "azd runs the others without the app's packages"


def test_the_parameters_are_those_of_the_template() -> None:
    values = json.loads((INFRA / "main.parameters.json").read_text(encoding="utf-8"))["parameters"]
    required = {name for name, default in MAIN.params.items() if default is REQUIRED}

    assert required <= set(values) <= set(MAIN.params)
    assert {name: one["value"] for name, one in values.items() if "${" not in str(one["value"])}.items() <= (
        MAIN.params.items()
    )


def test_the_linter_s_rules_can_be_read() -> None:
    rules = json.loads((ROOT / "bicepconfig.json").read_text(encoding="utf-8"))["analyzers"]["core"]["rules"]

    assert {rule["level"] for rule in rules.values()} <= {"error", "warning"}


# the package


def shipped() -> set[str]:
    """What azd would pack of the files that git tracks or would."""
    return {name for name in tracked_names() if not ignored().match_file(name)}


def ignored() -> PathSpec[Any]:
    return PathSpec.from_lines("gitignore", (ROOT / ".funcignore").read_text(encoding="utf-8").splitlines())


def test_the_app_ships_and_nothing_else() -> None:
    code = {str(file.relative_to(ROOT)) for file in (ROOT / "shared").rglob("*.py")}

    assert shipped() == {"function_app.py", "host.json", "requirements.txt", "kms-policy.yaml", *code}


def test_bytecode_ships_and_what_a_working_copy_holds_besides_does_not() -> None:
    ships = [
        "__pycache__/function_app.cpython-313.pyc",
        "shared/__pycache__/ledger.cpython-313.pyc",
        ".python_packages/lib/site-packages/build/tests/x.py",
    ]
    stays = [
        *(".venv/bin/python", ".git/HEAD", ".azure/dev/.env", "local.settings.json", "infra/hooks/hooks_env/x.py"),
        *("hooks_env/x.py", ".mypy_cache/x", "out.json", "__azurite_db_table__.json", "node_modules/x.js"),
    ]

    page = PAGE.read_text(encoding="utf-8")
    stays += re.findall(r"zip -r (\S+)", page) + re.findall(r"> (\S+\.json)\n", page)  # what the page tells to make
    assert {"app.zip", "clusters.json"} <= set(stays)
    assert [name for name in ships if ignored().match_file(name)] == []
    assert [name for name in stays if not ignored().match_file(name)] == []


# the page


def named(heading: str) -> set[str]:
    text = PAGE.read_text(encoding="utf-8").split(f"\n### {heading}\n")[1].split("\n#")[0]
    return set(re.findall(r"^\| `(\w+)`", text, re.MULTILINE))


@pytest.mark.parametrize(
    ("heading", "template"), [("Parameters of main.bicep", MAIN), ("Parameters of kms.bicep", KMS)]
)
def test_the_page_names_every_parameter(heading: str, template: Template) -> None:
    assert named(heading) == set(template.params)


def test_the_page_names_every_linked_feature() -> None:
    assert named("Linked features") == set(PERMISSIONS["linkedFeatures"])
