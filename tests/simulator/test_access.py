"""Role assignments and role definitions: what ARM lists, and what they come to."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from azure.identity.aio import ManagedIdentityCredential
from azure.mgmt.authorization.v2022_04_01.aio import AuthorizationManagementClient

from local.simulator import SUBSCRIPTION
from tests.simulator.clients import Arm, refusal

if TYPE_CHECKING:
    from local.simulator import Azure

IDENTITY = "11111111-0000-0000-0000-000000000001"
SOMEBODY = "11111111-0000-0000-0000-000000000002"
TEAM = "22222222-0000-0000-0000-000000000001"
EVERYBODY = "22222222-0000-0000-0000-000000000002"

CRYPTO_USER = "Key Vault Crypto User"
CRYPTO_USER_ID = "12338af0-0e69-4776-bea7-57ae8d297424"
TRAP = "Key Vault Crypto Service Encryption User"
ENCRYPT = "Microsoft.KeyVault/vaults/keys/encrypt/action"

IN_SUBSCRIPTION = f"/subscriptions/{SUBSCRIPTION}"
IN_GROUP = f"{IN_SUBSCRIPTION}/resourceGroups/rg-keys"
AT_VAULT = f"{IN_GROUP}/providers/Microsoft.KeyVault/vaults/kv-kms"
AT_KEY = f"{AT_VAULT}/keys/etcd"
SCOPES = {"subscription": IN_SUBSCRIPTION, "group": IN_GROUP, "vault": AT_VAULT, "key": AT_KEY}


@pytest.fixture
def scopes(azure: Azure) -> dict[str, str]:
    """A vault with a key, and one assignment at every scope from the subscription down to the key."""
    azure.keyvault.add_key(azure.keyvault.add_vault("kv-kms"), "etcd")
    azure.keyvault.add_vault("kv-other")
    azure.access.assign(SOMEBODY, "Reader", AT_VAULT.replace("kv-kms", "kv-other"))
    return {name: azure.access.assign(IDENTITY, CRYPTO_USER, scope) for name, scope in SCOPES.items()}


def listed(arm: Arm, scope: str, condition: str | None = None) -> list[str]:
    """The names of the scopes whose assignments a list shows, in order of their length."""
    response = arm.get(
        f"{scope}/providers/Microsoft.Authorization/roleAssignments", {"$filter": condition} if condition else None
    )
    assert response.status_code == 200
    found = {row["properties"]["scope"] for row in response.json()["value"]}
    return [name for name, known in SCOPES.items() if known in found] + ["other"] * any("kv-other" in s for s in found)


# Source: Azure RBAC docs, role-assignments-list-rest.
@pytest.mark.parametrize(
    ("scope", "condition", "expected"),
    [
        pytest.param(AT_VAULT, None, ["subscription", "group", "vault", "key"], id="at-above-and-below"),
        pytest.param(AT_VAULT, "atScope()", ["subscription", "group", "vault"], id="at-and-above"),
        pytest.param(AT_KEY, "atScope()", ["subscription", "group", "vault", "key"], id="a-key"),
        pytest.param(IN_GROUP, "atScope()", ["subscription", "group"], id="a-group"),
        pytest.param(IN_SUBSCRIPTION, None, ["subscription", "group", "vault", "key", "other"], id="everything"),
        pytest.param(
            IN_SUBSCRIPTION,
            f"principalId eq '{IDENTITY}'",
            ["subscription", "group", "vault", "key"],
            id="one-principal",
        ),
        pytest.param(IN_SUBSCRIPTION, f"principalId eq '{SOMEBODY}'", ["other"], id="another"),
        pytest.param(
            AT_VAULT, f"atScope() and assignedTo('{IDENTITY.upper()}')", ["subscription", "group", "vault"], id="both"
        ),
    ],
)
@pytest.mark.usefixtures("scopes")
def test_a_list_has_the_scopes_that_its_filter_asks_for(
    arm: Arm, scope: str, condition: str | None, expected: list[str]
) -> None:
    found = listed(arm, scope, condition)

    assert found == expected


@pytest.mark.usefixtures("scopes")
def test_scopes_are_compared_in_any_case(arm: Arm) -> None:
    found = listed(arm, AT_VAULT.replace("resourceGroups/rg-keys", "resourcegroups/RG-KEYS"), "atScope()")

    assert found == ["subscription", "group", "vault"]


def test_assigned_to_follows_groups_and_principal_id_does_not(azure: Azure, arm: Arm) -> None:
    azure.keyvault.add_vault("kv-kms")
    azure.access.group(TEAM, [IDENTITY])
    azure.access.group(EVERYBODY, [TEAM])
    azure.access.assign(EVERYBODY, CRYPTO_USER, AT_VAULT, principal_type="Group")

    through_groups = listed(arm, AT_VAULT, f"assignedTo('{IDENTITY}')")
    directly = listed(arm, AT_VAULT, f"principalId eq '{IDENTITY}'")

    assert through_groups == ["vault"]
    assert directly == []


def test_an_assignment_names_its_role_by_full_id(azure: Azure, arm: Arm) -> None:
    azure.keyvault.add_vault("kv-kms")
    identity = azure.access.assign(IDENTITY, CRYPTO_USER, AT_VAULT, condition="@Resource[x] StringEquals 'y'")

    [row] = arm.get(f"{AT_VAULT}/providers/Microsoft.Authorization/roleAssignments").json()["value"]
    definition = arm.get(row["properties"]["roleDefinitionId"]).json()

    assert (row["id"], row["type"]) == (identity, "Microsoft.Authorization/roleAssignments")
    assert row["properties"]["principalId"] == IDENTITY
    assert row["properties"]["principalType"] == "ServicePrincipal"
    assert row["properties"]["conditionVersion"] == "2.0"
    assert definition["name"] == CRYPTO_USER_ID
    assert definition["properties"]["roleName"] == CRYPTO_USER
    assert ENCRYPT in definition["properties"]["permissions"][0]["dataActions"]


async def test_the_sdk_reads_assignments_and_their_roles(azure: Azure) -> None:
    azure.access.page_size = 1
    azure.keyvault.add_key(azure.keyvault.add_vault("kv-kms"), "etcd")
    made = [azure.access.assign(IDENTITY, role, AT_KEY) for role in (CRYPTO_USER, TRAP)]

    async with (
        ManagedIdentityCredential() as credential,
        AuthorizationManagementClient(credential, SUBSCRIPTION, retry_total=0) as client,
    ):
        assigned_to = f"atScope() and assignedTo('{IDENTITY}')"
        assignments = client.role_assignments
        at_key = [row async for row in assignments.list_for_scope(AT_KEY, filter=assigned_to)]
        at_vault = [
            row.id async for row in assignments.list_for_resource("rg-keys", "Microsoft.KeyVault", "vaults", "kv-kms")
        ]
        in_group = [row.id async for row in assignments.list_for_resource_group("rg-keys")]
        in_subscription = [row.id async for row in assignments.list_for_subscription()]
        roles = [await client.role_definitions.get_by_id(str(row.role_definition_id)) for row in at_key]
        trap = [role.name async for role in client.role_definitions.list(IN_GROUP, filter=f"roleName eq '{TRAP}'")]

    assert {row.id for row in at_key} == set(at_vault) == set(in_group) == set(in_subscription) == set(made)
    assert {row.principal_type for row in at_key} == {"ServicePrincipal"}
    assert {role.role_name for role in roles} == {CRYPTO_USER, TRAP}
    assert [ENCRYPT in ((role.permissions or [])[0].data_actions or []) for role in roles].count(True) == 1
    assert trap == ["e147488a-f6f5-4113-8e2d-b22465e65bf6"]


def test_assignments_come_page_by_page(azure: Azure, arm: Arm) -> None:
    azure.access.page_size = 2
    assigned = {azure.access.assign(IDENTITY, "Reader", IN_SUBSCRIPTION) for _ in range(5)}

    first = arm.get(f"{IN_SUBSCRIPTION}/providers/Microsoft.Authorization/roleAssignments").json()
    second = arm.get(first["nextLink"]).json()
    third = arm.get(second["nextLink"]).json()

    assert {row["id"] for part in (first, second, third) for row in part["value"]} == assigned
    assert "nextLink" not in third


def test_who_may_not_list_assignments_is_refused(azure: Azure, arm: Arm) -> None:
    azure.access.readable = False
    object_id = azure.identity.default.object_id

    response = arm.get(f"{IN_SUBSCRIPTION}/providers/Microsoft.Authorization/roleAssignments")
    definition = arm.get(f"/providers/Microsoft.Authorization/roleDefinitions/{CRYPTO_USER_ID}")

    status, code, text = refusal(response)
    assert (status, code) == (403, "AuthorizationFailed")
    assert f"object id '{object_id}'" in text
    assert "'Microsoft.Authorization/roleAssignments/read'" in text
    assert f"over scope '{IN_SUBSCRIPTION}'" in text
    assert definition.status_code == 200


def test_who_may_not_read_definitions_is_refused(azure: Azure, arm: Arm) -> None:
    azure.access.definitions_readable = False

    response = arm.get(f"/providers/Microsoft.Authorization/roleDefinitions/{CRYPTO_USER_ID}")

    assert refusal(response)[:2] == (403, "AuthorizationFailed")


@pytest.mark.parametrize(
    "role",
    [
        "Owner",
        "Contributor",
        "Reader",
        "Key Vault Administrator",
        "Key Vault Contributor",
        "Key Vault Reader",
        "Key Vault Crypto Officer",
        CRYPTO_USER,
        TRAP,
        "EventGrid Data Sender",
    ],
)
@pytest.mark.usefixtures("azure")
def test_a_built_in_role_is_found_by_its_name(arm: Arm, role: str) -> None:
    path = f"{IN_SUBSCRIPTION}/providers/Microsoft.Authorization/roleDefinitions"

    [found] = arm.get(path, {"$filter": f"roleName eq '{role}'"}).json()["value"]

    assert found["properties"]["roleName"] == role
    assert found["properties"]["type"] == "BuiltInRole"


def test_a_custom_role_is_shown_like_any_other(azure: Azure, arm: Arm) -> None:
    guid = azure.access.define("KMS", [ENCRYPT, ENCRYPT.replace("encrypt", "decrypt")], actions=["*/read"])

    found = arm.get(f"{IN_SUBSCRIPTION}/providers/Microsoft.Authorization/roleDefinitions/{guid}").json()

    assert found["properties"]["type"] == "CustomRole"
    assert found["properties"]["permissions"][0]["dataActions"][0] == ENCRYPT
    assert found["properties"]["assignableScopes"] == [IN_SUBSCRIPTION]


@pytest.mark.usefixtures("azure")
def test_what_is_not_there_or_not_known_is_refused(arm: Arm) -> None:
    missing = arm.get(f"/providers/Microsoft.Authorization/roleDefinitions/{SOMEBODY}")
    odd = arm.get(f"{IN_SUBSCRIPTION}/providers/Microsoft.Authorization/roleAssignments", {"$filter": "name eq 'x'"})
    odd_role = arm.get(f"{IN_SUBSCRIPTION}/providers/Microsoft.Authorization/roleDefinitions", {"$filter": "x"})

    assert refusal(missing)[:2] == (404, "RoleDefinitionDoesNotExist")
    assert refusal(odd)[:2] == (400, "BadRequest")
    assert refusal(odd_role)[:2] == (400, "BadRequest")


@pytest.mark.parametrize(
    ("role", "allowed"),
    [
        (CRYPTO_USER, True),
        (CRYPTO_USER_ID, True),
        ("Key Vault Crypto Officer", True),
        ("Key Vault Administrator", True),
        (TRAP, False),
        ("Key Vault Reader", False),
        ("Key Vault Contributor", False),
        ("Owner", False),
    ],
)
def test_only_some_roles_let_encrypt(azure: Azure, role: str, *, allowed: bool) -> None:
    azure.access.assign(IDENTITY, role, AT_VAULT)

    assert azure.access.may(IDENTITY, ENCRYPT, AT_KEY) is allowed


@pytest.mark.parametrize(
    ("scope", "allowed"),
    [
        ("/", True),
        (IN_SUBSCRIPTION, True),
        (IN_GROUP.upper(), True),
        (AT_KEY, True),
        (f"{AT_VAULT}-2", False),
        (f"{AT_VAULT}/keys/other", False),
    ],
)
def test_an_assignment_counts_at_its_scope_and_below(azure: Azure, scope: str, *, allowed: bool) -> None:
    azure.access.assign(IDENTITY, CRYPTO_USER, scope)

    assert azure.access.may(IDENTITY, ENCRYPT, AT_KEY) is allowed


def test_an_assignment_counts_only_once_it_has_propagated(azure: Azure) -> None:
    azure.access.propagation = timedelta(minutes=10)
    old = azure.clock.now() - timedelta(days=1)
    azure.access.assign(SOMEBODY, CRYPTO_USER, AT_VAULT, created=old)
    azure.access.assign(IDENTITY, CRYPTO_USER, AT_VAULT)

    before = azure.access.may(IDENTITY, ENCRYPT, AT_KEY)
    azure.clock.advance(timedelta(minutes=10))
    after = azure.access.may(IDENTITY, ENCRYPT, AT_KEY)

    assert (before, after) == (False, True)
    assert azure.access.may(SOMEBODY, ENCRYPT, AT_KEY)


def test_a_group_a_condition_and_a_removal_count(azure: Azure) -> None:
    azure.access.group(TEAM, [IDENTITY])
    through_team = azure.access.assign(TEAM, CRYPTO_USER, AT_VAULT)
    azure.access.assign(SOMEBODY, CRYPTO_USER, AT_VAULT, condition="@Resource[x] StringEquals 'y'", holds=False)

    member = azure.access.may(IDENTITY, ENCRYPT, AT_KEY)
    azure.access.remove(through_team)

    assert member
    assert not azure.access.may(IDENTITY, ENCRYPT, AT_KEY)
    assert not azure.access.may(SOMEBODY, ENCRYPT, AT_KEY)


def test_a_custom_role_takes_away_what_its_not_list_names(azure: Azure) -> None:
    azure.access.define("all but encrypt", ["Microsoft.KeyVault/*"], not_data_actions=[ENCRYPT])
    azure.access.assign(IDENTITY, "All But Encrypt", AT_VAULT)

    assert not azure.access.may(IDENTITY, ENCRYPT, AT_KEY)
    assert azure.access.may(IDENTITY, ENCRYPT.replace("encrypt", "decrypt"), AT_KEY)


def test_a_role_that_nobody_knows_is_not_assigned(azure: Azure) -> None:
    with pytest.raises(LookupError):
        azure.access.assign(IDENTITY, "Key Vault Crypto Reader", AT_VAULT)
