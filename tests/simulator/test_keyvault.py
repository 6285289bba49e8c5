"""Vaults and keys through ARM."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from azure.core.exceptions import ResourceNotFoundError
from azure.identity.aio import ManagedIdentityCredential as AsyncManagedIdentityCredential
from azure.mgmt.keyvault import KeyVaultManagementClient
from azure.mgmt.keyvault.aio import KeyVaultManagementClient as AsyncKeyVaultManagementClient

from local.simulator import SUBSCRIPTION
from tests.simulator.clients import refusal

if TYPE_CHECKING:
    from local.simulator import Azure
    from tests.simulator.clients import Arm

CREATED = datetime(2026, 3, 2, 9, tzinfo=UTC)


def test_a_vault_says_where_it_is_and_how_it_is_guarded(azure: Azure, vaults: KeyVaultManagementClient) -> None:
    closed = {"publicNetworkAccess": "Disabled", "networkAcls": {"defaultAction": "Deny", "bypass": "AzureServices"}}
    azure.keyvault.add_vault("kv-kms", properties=closed)

    vault = vaults.vaults.get("rg-keys", "kv-kms")

    assert vault.properties.vault_uri == "https://kv-kms.vault.azure.net/"
    assert vault.properties.enable_rbac_authorization is True
    assert vault.properties.public_network_access == "Disabled"
    assert vault.properties.network_acls is not None
    assert vault.properties.network_acls.bypass == "AzureServices"


def test_vaults_are_listed_three_ways_page_by_page(azure: Azure, vaults: KeyVaultManagementClient) -> None:
    azure.keyvault.page_size = 1
    azure.keyvault.add_vault("kv-1")
    azure.keyvault.add_vault("kv-2", group="rg-other")

    of_subscription = [vault.name for vault in vaults.vaults.list_by_subscription()]
    of_group = [vault.name for vault in vaults.vaults.list_by_resource_group("rg-other")]
    as_resources = [vault.name for vault in vaults.vaults.list()]

    assert of_subscription == ["kv-1", "kv-2"]
    assert of_group == ["kv-2"]
    assert as_resources == ["kv-1", "kv-2"]


async def test_a_key_and_its_versions_are_read_without_the_vault_itself(azure: Azure) -> None:
    vault = azure.keyvault.add_vault("kv-kms")
    key = azure.keyvault.add_key(vault, "etcd", created=CREATED)
    first = key.current.version
    second = azure.keyvault.rotate(vault, "etcd")

    async with (
        AsyncManagedIdentityCredential() as credential,
        AsyncKeyVaultManagementClient(credential, SUBSCRIPTION) as client,
    ):
        current = await client.keys.get("rg-keys", "kv-kms", "etcd")
        oldest = await client.keys.get_version("rg-keys", "kv-kms", "etcd", first)
        listed = {row.name async for row in client.keys.list_versions("rg-keys", "kv-kms", "etcd")}

    assert current.key_uri == "https://kv-kms.vault.azure.net/keys/etcd"
    assert current.key_uri_with_version == f"https://kv-kms.vault.azure.net/keys/etcd/{second}"
    assert (current.kty, current.key_size, "encrypt" in (current.key_ops or [])) == ("RSA", 2048, True)
    assert oldest.attributes is not None
    assert oldest.attributes.created == int(CREATED.timestamp())
    assert listed == {first, second}
    assert re.fullmatch("[0-9a-f]{32}", second)


def test_a_row_of_versions_promises_no_attributes_but_enabled(azure: Azure, arm: Arm) -> None:
    vault = azure.keyvault.add_vault("kv-kms")
    key = azure.keyvault.add_key(vault, "etcd")
    azure.keyvault.set_enabled(key, key.current.version, enabled=False)

    [row] = arm.get(f"{key.id}/versions").json()["value"]

    assert set(row) == {"id", "name", "type", "location", "properties"}
    assert row["type"] == "Microsoft.KeyVault/vaults/keys/versions"
    assert row["properties"] == {"attributes": {"enabled": False}}


def test_keys_are_listed(azure: Azure, vaults: KeyVaultManagementClient) -> None:
    vault = azure.keyvault.add_vault("kv-kms")
    azure.keyvault.add_key(vault, "etcd")
    azure.keyvault.add_key(vault, "other", kty="EC", size=None)

    names = [key.name for key in vaults.keys.list("rg-keys", "kv-kms")]

    assert names == ["etcd", "other"]


def test_a_missing_vault_and_a_missing_key_are_not_found(azure: Azure, vaults: KeyVaultManagementClient) -> None:
    azure.keyvault.add_vault("kv-kms")

    with pytest.raises(ResourceNotFoundError, match=r"Microsoft\.KeyVault/vaults/kv-none"):
        vaults.vaults.get("rg-keys", "kv-none")
    with pytest.raises(ResourceNotFoundError):
        vaults.keys.get("rg-keys", "kv-kms", "none")


def test_a_missing_version_is_not_found(azure: Azure, arm: Arm) -> None:
    key = azure.keyvault.add_key(azure.keyvault.add_vault("kv-kms"), "etcd")

    response = arm.get(f"{key.id}/versions/{'0' * 32}")

    assert refusal(response)[0] == 404


def test_only_the_filter_on_vaults_is_known(azure: Azure, arm: Arm) -> None:
    azure.keyvault.add_vault("kv-kms")

    response = arm.get(f"/subscriptions/{SUBSCRIPTION}/resources", {"$filter": "resourceType eq 'Other/things'"})

    assert refusal(response)[:2] == (400, "BadRequest")
