"""Role assignments made over the wire: what they come to, and what is refused."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from azure.core.exceptions import HttpResponseError, ResourceExistsError
from azure.identity.aio import ManagedIdentityCredential
from azure.mgmt.authorization.v2022_04_01.aio import AuthorizationManagementClient
from azure.mgmt.authorization.v2022_04_01.models import RoleAssignmentCreateParameters

from local.simulator import SUBSCRIPTION
from tests.simulator.clients import Arm, refusal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from azure.mgmt.authorization.v2022_04_01.aio.operations import RoleAssignmentsOperations

    from local.simulator import Azure

CRYPTO_USER = "12338af0-0e69-4776-bea7-57ae8d297424"
READER = "21090545-7ca7-4776-b22c-e363652d74d2"
NAME = "0b8f3d6a-5d0e-4f0e-9a53-0f7a2f6f5c01"
OTHER_NAME = "0b8f3d6a-5d0e-4f0e-9a53-0f7a2f6f5c02"
NOBODY = "11111111-0000-0000-0000-00000000000f"
ENCRYPT = "Microsoft.KeyVault/vaults/keys/encrypt/action"
DEFINITIONS = f"/subscriptions/{SUBSCRIPTION}/providers/Microsoft.Authorization/roleDefinitions"


@pytest.fixture
async def roles(azure: Azure) -> AsyncIterator[RoleAssignmentsOperations]:
    """The asynchronous SDK client. It retries nothing."""
    azure.access.propagation = timedelta(minutes=10)
    async with (
        ManagedIdentityCredential() as credential,
        AuthorizationManagementClient(credential, SUBSCRIPTION, retry_total=0) as client,
    ):
        yield client.role_assignments


def wanted(principal: str, role: str = CRYPTO_USER, **more: Any) -> RoleAssignmentCreateParameters:
    parameters = {"principal_type": "ServicePrincipal"} | more
    return RoleAssignmentCreateParameters(
        role_definition_id=f"{DEFINITIONS}/{role}", principal_id=principal, **parameters
    )


async def test_a_grant_is_listed_at_once_and_counts_once_it_has_propagated(
    azure: Azure, roles: RoleAssignmentsOperations
) -> None:
    vault = azure.keyvault.add_vault("kv-kms")
    _, principal = azure.aks.add_identity("id-kms")

    made = await roles.create(vault.id, NAME, wanted(principal))
    listed = [row.id async for row in roles.list_for_scope(vault.id, filter=f"principalId eq '{principal}'")]
    before = azure.access.may(principal, ENCRYPT, vault.id)
    azure.clock.advance(azure.access.propagation)

    assert listed == [made.id] == [f"{vault.id}/providers/Microsoft.Authorization/roleAssignments/{NAME}"]
    assert (made.principal_id, made.principal_type) == (principal, "ServicePrincipal")
    assert made.as_dict()["scope"] == vault.id
    assert made.role_definition_id == f"{DEFINITIONS}/{CRYPTO_USER}"
    assert made.as_dict()["created_on"] == made.as_dict()["updated_on"]
    assert made.as_dict()["created_by"] == azure.identity.default.object_id
    assert (before, azure.access.may(principal, ENCRYPT, vault.id)) == (False, True)
    assert [(call.method, call.status) for call in azure.journal.writes()] == [("PUT", 201)]


async def test_the_same_grant_again_changes_nothing(azure: Azure, roles: RoleAssignmentsOperations, arm: Arm) -> None:
    vault = azure.keyvault.add_vault("kv-kms")
    _, principal = azure.aks.add_identity("id-kms")
    made = await roles.create(vault.id, NAME, wanted(principal))
    body = {"properties": {"roleDefinitionId": f"{DEFINITIONS}/{CRYPTO_USER}", "principalId": principal.upper()}}

    again = arm.call("PUT", f"{vault.id}/providers/Microsoft.Authorization/roleAssignments/{NAME.upper()}", body=body)

    assert again.status_code == 200
    assert again.json()["properties"]["createdOn"] == again.json()["properties"]["updatedOn"]
    assert (await roles.get(vault.id, NAME)).as_dict() == made.as_dict()
    assert len(azure.access.assignments) == 1


async def test_a_condition_can_be_changed_and_everything_else_cannot(
    azure: Azure, roles: RoleAssignmentsOperations
) -> None:
    vault, other = azure.keyvault.add_vault("kv-kms"), azure.keyvault.add_vault("kv-other")
    _, principal = azure.aks.add_identity("id-kms")
    _, somebody = azure.aks.add_identity("id-other")
    await roles.create(vault.id, NAME, wanted(principal))
    condition = {"condition": "@Resource[x] StringEquals 'y'", "condition_version": "2.0"}

    changed = await roles.create(vault.id, NAME, wanted(principal, **condition))
    refused = []
    for scope, parameters in [
        (vault.id, wanted(somebody)),
        (vault.id, wanted(principal, READER)),
        (other.id, wanted(principal)),
    ]:
        with pytest.raises(HttpResponseError) as raised:
            await roles.create(scope, NAME, parameters)
        refused.append((raised.value.status_code, raised.value.error and raised.value.error.code))

    assert changed.condition == condition["condition"]
    assert changed.as_dict()["updated_on"] != changed.as_dict()["created_on"]
    assert refused == [(400, "RoleAssignmentUpdateNotPermitted")] * 3
    assert len(azure.access.assignments) == 1


async def test_the_same_grant_under_another_name_exists_already(azure: Azure, roles: RoleAssignmentsOperations) -> None:
    vault = azure.keyvault.add_vault("kv-kms")
    _, principal = azure.aks.add_identity("id-kms")
    azure.access.assign(principal, "Key Vault Crypto User", vault.id.upper())

    with pytest.raises(ResourceExistsError) as raised:
        await roles.create(vault.id, OTHER_NAME, wanted(principal))

    assert raised.value.error is not None
    assert raised.value.error.code == "RoleAssignmentExists"
    assert azure.journal.writes() == ()


async def test_a_principal_that_nobody_knows_must_be_named_with_its_type(
    azure: Azure, roles: RoleAssignmentsOperations
) -> None:
    vault = azure.keyvault.add_vault("kv-kms")

    with pytest.raises(HttpResponseError) as raised:
        await roles.create(vault.id, NAME, wanted(NOBODY, principal_type=None))
    made = await roles.create(vault.id, NAME, wanted(NOBODY))

    assert raised.value.error is not None
    assert (raised.value.status_code, raised.value.error.code) == (400, "PrincipalNotFound")
    assert made.principal_id == NOBODY


async def test_a_principal_that_is_known_needs_no_type(azure: Azure, roles: RoleAssignmentsOperations) -> None:
    vault = azure.keyvault.add_vault("kv-kms")
    azure.access.group(NOBODY, [])
    system_assigned = azure.aks.add("aks-1", identity="system-assigned").principal_id
    user_assigned = azure.aks.add("aks-2").principal_id
    known = [NOBODY, system_assigned, user_assigned, azure.identity.default.object_id]

    made = [
        await roles.create(vault.id, str(uuid.uuid4()), wanted(principal, principal_type=None)) for principal in known
    ]

    assert [one.principal_type for one in made] == ["Group", *["ServicePrincipal"] * 3]


def _scopes() -> list[Any]:
    below = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg-keys"
    vault = f"{below}/providers/Microsoft.KeyVault/vaults/kv-kms"
    return [
        pytest.param(f"/subscriptions/{SUBSCRIPTION}", None, id="subscription"),
        pytest.param(below, None, id="group"),
        pytest.param(vault, None, id="vault"),
        pytest.param(f"{vault}/keys/etcd", None, id="key"),
        pytest.param(f"/subscriptions/{NOBODY}", "SubscriptionNotFound", id="no-subscription"),
        pytest.param(below.replace("keys", "none"), "ResourceGroupNotFound", id="no-group"),
        pytest.param(f"{vault}-none", "ResourceNotFound", id="no-vault"),
        pytest.param(f"{vault}/keys/none", "ResourceNotFound", id="no-key"),
    ]


@pytest.mark.parametrize(("scope", "code"), _scopes())
async def test_a_grant_needs_a_scope_that_is_there(
    azure: Azure, roles: RoleAssignmentsOperations, scope: str, code: str | None
) -> None:
    azure.keyvault.add_key(azure.keyvault.add_vault("kv-kms"), "etcd")

    refused = None
    try:
        await roles.create(scope, NAME, wanted(NOBODY))
    except HttpResponseError as error:
        refused = error.status_code, error.error and error.error.code

    assert refused == (None if code is None else (404, code))
    assert len(azure.access.assignments) == (1 if code is None else 0)


@pytest.mark.parametrize(
    ("name", "changes", "expected"),
    [
        pytest.param("mine", {}, (400, "InvalidRoleAssignmentId"), id="a-name-that-is-no-guid"),
        pytest.param(NAME, {"roleDefinitionId": CRYPTO_USER}, (400, "BadRequestFormat"), id="a-bare-role"),
        pytest.param(
            NAME, {"roleDefinitionId": f"{DEFINITIONS}/Owner"}, (400, "InvalidRoleDefinitionId"), id="a-role-by-name"
        ),
        pytest.param(
            NAME, {"roleDefinitionId": f"{DEFINITIONS}/{NOBODY}"}, (404, "RoleDefinitionDoesNotExist"), id="no-role"
        ),
        pytest.param(NAME, {"principalId": "id-kms"}, (400, "BadRequestFormat"), id="a-principal-by-name"),
        pytest.param(NAME, {"principalType": "Robot"}, (400, "BadRequestFormat"), id="a-type-that-is-none"),
        pytest.param(NAME, {"condition": "@Resource[x]"}, (400, "BadRequestFormat"), id="a-condition-alone"),
    ],
)
def test_a_grant_that_is_malformed_is_refused(
    azure: Azure, arm: Arm, name: str, changes: dict[str, str], expected: tuple[int, str]
) -> None:
    vault = azure.keyvault.add_vault("kv-kms")
    properties = {"roleDefinitionId": f"{DEFINITIONS}/{CRYPTO_USER}", "principalId": NOBODY, "principalType": "User"}

    response = arm.call(
        "PUT",
        f"{vault.id}/providers/Microsoft.Authorization/roleAssignments/{name}",
        body={"properties": properties | changes},
    )

    assert refusal(response)[:2] == expected
    assert azure.access.assignments == {}


def test_a_body_that_is_no_object_is_refused(azure: Azure, arm: Arm) -> None:
    vault = azure.keyvault.add_vault("kv-kms")

    response = arm.call("PUT", f"{vault.id}/providers/Microsoft.Authorization/roleAssignments/{NAME}", body=[])

    assert refusal(response)[:2] == (400, "BadRequestFormat")


async def test_an_assignment_that_is_missing_is_not_found(azure: Azure, roles: RoleAssignmentsOperations) -> None:
    vault = azure.keyvault.add_vault("kv-kms")

    with pytest.raises(HttpResponseError) as raised:
        await roles.get(vault.id, NAME)

    assert raised.value.error is not None
    assert (raised.value.status_code, raised.value.error.code) == (404, "RoleAssignmentNotFound")


async def test_an_app_that_may_not_grant_is_told_the_action_and_the_scope(
    azure: Azure, roles: RoleAssignmentsOperations
) -> None:
    vault, other = azure.keyvault.add_vault("kv-kms"), azure.keyvault.add_vault("kv-other")
    azure.permissions.refuse("Microsoft.Authorization/roleAssignments/write", scope=vault.id)

    with pytest.raises(HttpResponseError) as raised:
        await roles.create(vault.id, NAME, wanted(NOBODY))
    elsewhere = await roles.create(other.id, OTHER_NAME, wanted(NOBODY))
    azure.permissions.allow("Microsoft.Authorization/roleAssignments/write", scope=vault.id)
    at_last = await roles.create(vault.id, NAME, wanted(NOBODY))

    assert raised.value.error is not None
    assert (raised.value.status_code, raised.value.error.code) == (403, "AuthorizationFailed")
    assert "'Microsoft.Authorization/roleAssignments/write'" in raised.value.message
    assert f"over scope '{vault.id}/providers/Microsoft.Authorization/roleAssignments/{NAME}'" in raised.value.message
    assert f"object id '{azure.identity.default.object_id}'" in raised.value.message
    assert [made.as_dict()["scope"] for made in (elsewhere, at_last)] == [other.id, vault.id]


async def test_a_fault_on_order_meets_a_grant_too(azure: Azure, roles: RoleAssignmentsOperations) -> None:
    vault = azure.keyvault.add_vault("kv-kms")
    azure.faults.fail_next("PUT", "/roleAssignments/", 403, code="AuthorizationFailed", message="not you")

    with pytest.raises(HttpResponseError):
        await roles.create(vault.id, NAME, wanted(NOBODY))

    assert azure.access.assignments == {}
    assert azure.journal.writes() == ()
