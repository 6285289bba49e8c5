"""Vaults made and changed through ARM."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from azure.core.exceptions import ResourceExistsError, ServiceRequestError
from azure.identity.aio import ManagedIdentityCredential
from azure.keyvault.keys.aio import KeyClient
from azure.mgmt.keyvault.aio import KeyVaultManagementClient
from azure.mgmt.keyvault.models import (
    IPRule,
    NetworkRuleSet,
    Sku,
    VaultCreateOrUpdateParameters,
    VaultPatchParameters,
    VaultPatchProperties,
    VaultProperties,
)

from local.simulator import SUBSCRIPTION, Azure
from local.simulator.identity import TENANT
from tests.simulator.clients import Arm, refusal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from azure.mgmt.keyvault.aio.operations import VaultsOperations

    from local.simulator import Simulator

GROUP = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg-keys"
VAULT = f"{GROUP}/providers/Microsoft.KeyVault/vaults/kv-kms"
OTHER_SUBSCRIPTION = SUBSCRIPTION.replace("1", "2")
BODY: dict[str, Any] = {
    "location": "westeurope",
    "properties": {"tenantId": TENANT, "sku": {"family": "A", "name": "standard"}},
}
NEWEST = {"api-version": "2026-05-15"}


@pytest.fixture
async def vaults(azure: Azure) -> AsyncIterator[VaultsOperations]:
    """The asynchronous SDK client, beside an empty resource group. It retries nothing and polls at once."""
    azure.add_resource_group("rg-keys")
    async with (
        ManagedIdentityCredential() as credential,
        KeyVaultManagementClient(credential, SUBSCRIPTION, retry_total=0, polling_interval=0) as client,
    ):
        yield client.vaults


def wanted(**properties: Any) -> VaultCreateOrUpdateParameters:
    given = VaultProperties(tenant_id=TENANT, sku=Sku(family="A", name="standard"), **properties)
    return VaultCreateOrUpdateParameters(location="West Europe", properties=given, tags={"for": "kms"})


def put(arm: Arm, path: str = VAULT, version: str = "2026-05-15", **properties: Any) -> Any:
    body = BODY | {"properties": BODY["properties"] | properties}
    return arm.call("PUT", path, body=body, query={"api-version": version})


async def test_a_new_vault_registers_its_name_for_a_while(azure: Azure, vaults: VaultsOperations) -> None:
    poller = await vaults.begin_create_or_update("rg-keys", "kv-kms", wanted(enable_purge_protection=True))
    before = (await vaults.get("rg-keys", "kv-kms")).properties.provisioning_state
    resolves = azure.resolves("kv-kms.vault.azure.net")
    azure.clock.advance(azure.keyvault.registration)
    made = await poller.result()

    assert (before, made.properties.provisioning_state) == ("RegisteringDns", "Succeeded")
    assert (resolves, azure.resolves("kv-kms.vault.azure.net")) == (False, True)
    assert (made.id, made.location, made.tags) == (VAULT, "westeurope", {"for": "kms"})
    assert made.properties.vault_uri == "https://kv-kms.vault.azure.net/"
    assert [(call.method, call.status) for call in azure.journal.writes()] == [("PUT", 201)]


async def test_a_new_vault_has_the_defaults_of_the_service(azure: Azure, vaults: VaultsOperations) -> None:
    await vaults.begin_create_or_update("rg-keys", "kv-kms", wanted(), polling=False)

    made = azure.keyvault.vaults[VAULT.lower()]

    assert made.is_rbac
    assert made.network.is_open
    assert "networkAcls" not in made.properties
    assert "enablePurgeProtection" not in made.properties
    assert (made.properties["enableSoftDelete"], made.retention_days) == (True, 90)
    assert made.properties["publicNetworkAccess"] == "Enabled"
    assert made.document["systemData"]["createdBy"] == azure.identity.default.object_id


# Source: Key Vault docs, access-control-default.
@pytest.mark.parametrize(("version", "rbac"), [("2024-11-01", False), ("2026-02-01", True), ("2026-05-15", True)])
def test_roles_decide_by_default_since_2026(azure: Azure, arm: Arm, version: str, rbac: bool) -> None:
    azure.add_resource_group("rg-keys")

    response = put(arm, version=version, accessPolicies=[])

    assert response.status_code == 201
    assert response.json()["properties"]["enableRbacAuthorization"] is rbac


async def test_the_data_plane_of_a_new_vault_is_there_once_it_is_registered(
    azure: Azure, vaults: VaultsOperations
) -> None:
    await vaults.begin_create_or_update("rg-keys", "kv-kms", wanted(), polling=False)
    vault = azure.keyvault.vaults[VAULT.lower()]
    azure.keyvault.add_key(vault, "etcd")
    azure.access.assign(azure.identity.default.object_id, "Key Vault Reader", vault.id)

    async with (
        ManagedIdentityCredential() as credential,
        KeyClient("https://kv-kms.vault.azure.net", credential, retry_total=0) as client,
    ):
        with pytest.raises(ServiceRequestError):
            await client.get_key("etcd")
        azure.clock.advance(azure.keyvault.registration)
        key = await client.get_key("etcd")

    assert key.id == vault.key("etcd").uri_of(vault.key("etcd").current.version)


async def test_a_closed_vault_is_made_closed(azure: Azure, vaults: VaultsOperations) -> None:
    rules = NetworkRuleSet(bypass="AzureServices", default_action="Deny")

    await vaults.begin_create_or_update("rg-keys", "kv-kms", wanted(network_acls=rules), polling=False)

    network = azure.keyvault.vaults[VAULT.lower()].network
    assert not network.is_open
    assert network.admits_trusted_services


def test_a_vault_needs_a_group_that_is_there(azure: Azure, arm: Arm) -> None:
    response = put(arm)

    assert refusal(response)[:2] == (404, "ResourceGroupNotFound")
    assert azure.keyvault.vaults == {}


async def test_a_name_that_is_taken_elsewhere_is_refused(azure: Azure, vaults: VaultsOperations) -> None:
    azure.keyvault.add_vault("KV-kms", group="rg-other")

    with pytest.raises(ResourceExistsError) as raised:
        await vaults.begin_create_or_update("rg-keys", "kv-kms", wanted())

    assert raised.value.error is not None
    assert raised.value.error.code == "VaultAlreadyExists"


@pytest.mark.parametrize(
    ("subscription", "code"), [(SUBSCRIPTION, "ConflictError"), (OTHER_SUBSCRIPTION, "VaultAlreadyExists")]
)
def test_the_name_of_a_deleted_vault_is_refused(azure: Azure, arm: Arm, subscription: str, code: str) -> None:
    azure.add_resource_group("rg-keys")
    azure.keyvault.remove_vault(azure.keyvault.add_vault("kv-kms", subscription=subscription, group="rg-old"))

    response = put(arm)

    assert refusal(response)[:2] == (409, code)
    assert azure.keyvault.vaults == {}


@pytest.mark.parametrize("name", ["kv", "1-kms", "kv-kms-", "kv--kms", "kv_kms", "k" * 25])
def test_a_name_that_no_vault_can_have_is_refused(azure: Azure, arm: Arm, name: str) -> None:
    azure.add_resource_group("rg-keys")

    response = put(arm, VAULT.replace("kv-kms", name))

    assert refusal(response)[:2] == (400, "VaultNameNotValid")


@pytest.mark.parametrize("exists", [False, True])
@pytest.mark.parametrize(
    "properties",
    [
        pytest.param({"enablePurgeProtection": False}, id="no-purge-protection"),
        pytest.param({"enableSoftDelete": False}, id="no-soft-delete"),
        pytest.param({"softDeleteRetentionInDays": 6}, id="six-days"),
        pytest.param({"tenantId": OTHER_SUBSCRIPTION}, id="another-tenant"),
        pytest.param({"sku": {"family": "A", "name": "basic"}}, id="no-such-sku"),
        pytest.param({"enableRbacAuthorization": False}, id="no-policies"),
        pytest.param({"publicNetworkAccess": "Sometimes"}, id="no-such-access"),
        pytest.param({"networkAcls": {"bypass": "Everybody"}}, id="no-such-bypass"),
        pytest.param({"networkAcls": {"ipRules": [{"value": "home"}]}}, id="no-address"),
    ],
)
def test_what_no_vault_can_be_is_refused(azure: Azure, arm: Arm, exists: bool, properties: dict[str, Any]) -> None:
    azure.add_resource_group("rg-keys")
    if exists:
        azure.keyvault.add_vault("kv-kms")

    response = put(arm, **properties)

    assert refusal(response)[:2] == (400, "BadRequest")
    assert azure.journal.writes() == ()


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ([], "InvalidRequestContent"),
        ({"properties": BODY["properties"]}, "LocationRequired"),
        ({"location": "westeurope"}, "BadRequest"),
        (BODY | {"properties": {"enablePurgeProtection": "yes"}}, "InvalidRequestContent"),
        (BODY | {"properties": BODY["properties"] | {"networkAcls": []}}, "InvalidRequestContent"),
    ],
)
def test_a_body_that_is_not_whole_is_refused(azure: Azure, arm: Arm, body: Any, code: str) -> None:
    azure.add_resource_group("rg-keys")

    response = arm.call("PUT", VAULT, body=body, query=NEWEST)

    assert refusal(response)[:2] == (400, code)


def test_a_put_on_a_vault_that_is_there_replaces_what_can_be_replaced(azure: Azure, arm: Arm) -> None:
    vault = azure.keyvault.add_vault("kv-kms", tags={"a": "1"}, default_action="Deny", retention_days=30, rbac=False)

    response = put(arm, accessPolicies=[])

    assert response.status_code == 200
    assert vault.network.is_open
    assert vault.document["tags"] == {}
    assert (vault.is_rbac, vault.properties["enablePurgeProtection"], vault.retention_days) == (False, True, 30)
    assert vault.properties["provisioningState"] == "Succeeded"


def test_a_vault_stays_where_it_is(azure: Azure, arm: Arm) -> None:
    azure.keyvault.add_vault("kv-kms", location="northeurope")

    assert refusal(put(arm))[:2] == (409, "InvalidResourceLocation")


async def test_a_patch_changes_what_it_names_and_replaces_the_network_rules_as_a_whole(
    azure: Azure, vaults: VaultsOperations
) -> None:
    vault = azure.keyvault.add_vault("kv-kms", tags={"a": "1"}, default_action="Deny", bypass="None", ip_rules=["::/0"])
    before = dict(vault.properties)
    rules = NetworkRuleSet(default_action="Deny", ip_rules=[IPRule(value="203.0.113.10")])

    changed = await vaults.update(
        "rg-keys", "kv-kms", VaultPatchParameters(properties=VaultPatchProperties(network_acls=rules))
    )

    assert changed.properties.network_acls is not None
    assert vault.properties.pop("networkAcls") == {
        "bypass": "AzureServices",
        "defaultAction": "Deny",
        "ipRules": [{"value": "203.0.113.10/32"}],
        "virtualNetworkRules": [],
    }
    del before["networkAcls"]
    assert vault.properties == before
    assert vault.document["tags"] == {"a": "1"}
    assert [(call.method, call.status) for call in azure.journal.writes()] == [("PATCH", 200)]


def test_a_patch_replaces_tags_and_can_turn_purge_protection_on(azure: Azure, arm: Arm) -> None:
    vault = azure.keyvault.add_vault("kv-kms", tags={"a": "1"}, purge_protection=False)

    response = arm.call("PATCH", VAULT, body={"tags": {"b": "2"}, "properties": {"enablePurgeProtection": True}})

    assert response.status_code == 200
    assert (vault.document["tags"], vault.properties["enablePurgeProtection"]) == ({"b": "2"}, True)
    assert vault.document["systemData"]["lastModifiedBy"] == azure.identity.default.object_id


@pytest.mark.parametrize(
    "properties", [{"enablePurgeProtection": False}, {"enableSoftDelete": False}, {"softDeleteRetentionInDays": 7}]
)
def test_a_patch_takes_nothing_back(azure: Azure, arm: Arm, properties: dict[str, Any]) -> None:
    vault = azure.keyvault.add_vault("kv-kms")
    before = dict(vault.properties)

    response = arm.call("PATCH", VAULT, body={"properties": properties})

    assert refusal(response)[:2] == (400, "BadRequest")
    assert vault.properties == before


def test_a_patch_of_a_missing_vault_is_not_found(azure: Azure, arm: Arm) -> None:
    azure.add_resource_group("rg-keys")

    assert refusal(arm.call("PATCH", VAULT, body={}))[:2] == (404, "ResourceNotFound")


def test_an_app_that_may_not_write_vaults_is_told_so(azure: Azure, arm: Arm) -> None:
    azure.add_resource_group("rg-keys")
    azure.permissions.refuse("Microsoft.KeyVault/vaults/write")

    status, code, text = refusal(put(arm))

    assert (status, code) == (403, "AuthorizationFailed")
    assert f"'Microsoft.KeyVault/vaults/write' over scope '{VAULT}'" in text
    assert arm.get(VAULT.replace("kv-kms", "kv-none")).status_code == 404


def test_what_deletes_or_recovers_is_not_simulated(simulator: Simulator) -> None:
    azure = simulator.azure = Azure()
    vault = azure.keyvault.add_vault("kv-kms")
    key = azure.keyvault.add_key(vault, "etcd")
    assigned = azure.access.assign(OTHER_SUBSCRIPTION, "Reader", vault.id)
    identity = azure.identities.add("id-kms")
    arm = Arm(azure)

    with arm.session:
        answers = [arm.call("DELETE", path).status_code for path in (vault.id, key.id, assigned, identity.id)]
        purge = f"/subscriptions/{SUBSCRIPTION}/providers/Microsoft.KeyVault/locations/x/deletedVaults/kv-kms/purge"
        answers.append(arm.call("POST", purge).status_code)
        answers.append(put(arm, createMode="recover").status_code)
        answers.append(put(arm, hsmPoolResourceId="pool").status_code)

    assert answers == [501] * 7
    assert len(azure.journal.unknown) == 7
    assert azure.journal.writes() == ()
