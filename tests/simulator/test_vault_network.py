"""Vaults through ARM: firewall, permission model, deletion; and who gets through to their data plane."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from azure.mgmt.keyvault import KeyVaultManagementClient

from local.simulator import SUBSCRIPTION
from local.simulator.keyvault import access_policy
from local.simulator.keyvault.network import Network
from tests.simulator.clients import Arm, Endpoint, refusal

if TYPE_CHECKING:
    from local.simulator import Azure

DENIED: dict[str, Any] = {"default_action": "Deny"}
DISABLED: dict[str, Any] = {"public_network_access": "Disabled"}
PERIMETER: dict[str, Any] = {"public_network_access": "SecuredByPerimeter"}
NO_BYPASS: dict[str, Any] = {"bypass": "None"}


def read_key(azure: Azure, arm: Arm) -> tuple[int, str | None, str]:
    """Status, inner code and text when the app, who may, reads a key of the vault."""
    token, _ = azure.identity.token("https://vault.azure.net")
    response = arm.session.get(
        "https://kv-kms.vault.azure.net/keys/etcd?api-version=7.6",
        headers={"Authorization": f"Bearer {token}"},
        timeout=60,
    )
    error = response.json().get("error", {})
    return response.status_code, error.get("innererror", {}).get("code"), error.get("message", "")


def test_a_vault_says_how_it_is_closed(azure: Azure, vaults: KeyVaultManagementClient) -> None:
    azure.keyvault.add_vault("kv-kms", default_action="Deny", bypass="None", ip_rules=["198.51.100.0/24"])

    properties = vaults.vaults.get("rg-keys", "kv-kms").properties

    assert properties.public_network_access == "Enabled"
    assert properties.network_acls is not None
    assert (properties.network_acls.default_action, properties.network_acls.bypass) == ("Deny", "None")
    assert [rule.value for rule in properties.network_acls.ip_rules or ()] == ["198.51.100.0/24"]
    assert properties.network_acls.virtual_network_rules == []


def test_a_vault_without_rules_shows_none(azure: Azure, vaults: KeyVaultManagementClient) -> None:
    azure.keyvault.add_vault("kv-kms", **PERIMETER)

    properties = vaults.vaults.get("rg-keys", "kv-kms").properties

    assert properties.public_network_access == "SecuredByPerimeter"
    assert properties.network_acls is None


def test_a_vault_says_how_it_is_guarded(azure: Azure, vaults: KeyVaultManagementClient) -> None:
    policy = access_policy("11111111-0000-0000-0000-000000000001", "encrypt", "decrypt")
    azure.keyvault.add_vault(
        "kv-kms", rbac=False, access_policies=[policy], purge_protection=False, soft_delete=False, retention_days=7
    )

    properties = vaults.vaults.get("rg-keys", "kv-kms").properties

    assert properties.enable_rbac_authorization is False
    assert properties.enable_purge_protection is None
    assert (properties.enable_soft_delete, properties.soft_delete_retention_in_days) == (False, 7)
    [found] = properties.access_policies or []
    assert (found.object_id, found.permissions.keys_property) == (policy["objectId"], ["encrypt", "decrypt"])


def test_a_removed_vault_is_soft_deleted(azure: Azure, arm: Arm, vaults: KeyVaultManagementClient) -> None:
    vault = azure.keyvault.add_vault("kv-kms")
    azure.keyvault.remove_vault(vault)

    listed = [found.name for found in vaults.vaults.list_deleted()]
    deleted = vaults.vaults.get_deleted("kv-kms", "westeurope").properties

    assert refusal(arm.get(vault.id))[:2] == (404, "ResourceNotFound")
    assert listed == ["kv-kms"]
    assert deleted is not None
    assert (deleted.vault_id, deleted.purge_protection_enabled) == (vault.id, True)
    assert deleted.deletion_date is not None
    assert deleted.scheduled_purge_date == deleted.deletion_date + timedelta(days=90)


def test_a_vault_without_soft_delete_leaves_nothing(azure: Azure, arm: Arm, vaults: KeyVaultManagementClient) -> None:
    azure.keyvault.remove_vault(azure.keyvault.add_vault("kv-kms", soft_delete=False))

    listed = list(vaults.vaults.list_deleted())
    response = arm.get(
        f"/subscriptions/{SUBSCRIPTION}/providers/Microsoft.KeyVault/locations/westeurope/deletedVaults/kv-kms"
    )

    assert listed == []
    assert refusal(response)[:2] == (404, "DeletedVaultNotFound")


def test_the_recovery_level_follows_the_vault(azure: Azure, arm: Arm) -> None:
    protected = azure.keyvault.add_key(azure.keyvault.add_vault("kv-1"), "etcd")
    unprotected = azure.keyvault.add_key(azure.keyvault.add_vault("kv-2", purge_protection=False), "etcd")

    levels = [arm.get(key.id).json()["properties"]["attributes"]["recoveryLevel"] for key in (protected, unprotected)]

    assert levels == ["Recoverable", "Recoverable+Purgeable"]


def test_arm_answers_whatever_the_firewall_says(azure: Azure, arm: Arm) -> None:
    key = azure.keyvault.add_key(azure.keyvault.add_vault("kv-kms", **PERIMETER), "etcd")
    azure.keyvault.set_key(key, kty="RSA-HSM", size=4096, operations=("encrypt",), enabled=False)

    properties = arm.get(key.id).json()["properties"]

    assert (properties["kty"], properties["keySize"], properties["keyOps"]) == ("RSA-HSM", 4096, ["encrypt"])
    assert properties["attributes"]["enabled"] is False


# Source: Key Vault docs, network-security and common-error-codes.
@pytest.mark.parametrize(
    ("firewall", "inner", "text"),
    [
        pytest.param({}, None, "", id="open"),
        pytest.param({"default_action": "Allow", "bypass": "None"}, None, "", id="open-without-bypass"),
        pytest.param(
            DENIED,
            "ForbiddenByFirewall",
            "Client address is not authorized and caller is not a trusted service",
            id="deny",
        ),
        pytest.param(
            DENIED | {"ip_rules": ["198.51.100.7/32"]}, "ForbiddenByFirewall", "203.0.113.10", id="another-address"
        ),
        pytest.param(DENIED | {"ip_rules": ["203.0.113.0/24"]}, None, "", id="our-address"),
        pytest.param(DISABLED, "ForbiddenByConnection", "Public network access is disabled", id="disabled"),
        pytest.param(PERIMETER, "ForbiddenByFirewall", "not a trusted service", id="perimeter"),
    ],
)
def test_the_app_is_no_trusted_service(
    azure: Azure, arm: Arm, firewall: dict[str, Any], inner: str | None, text: str
) -> None:
    vault = azure.keyvault.add_vault("kv-kms", **firewall)
    azure.keyvault.add_key(vault, "etcd")
    azure.access.assign(azure.identity.default.object_id, "Key Vault Administrator", vault.id)

    status, found, message = read_key(azure, arm)

    assert (status, found) == (200 if inner is None else 403, inner)
    assert text in message


# Source: Key Vault docs, network-security-perimeter; AKS docs, kms-data-encryption.
@pytest.mark.parametrize(
    ("firewall", "admitted"),
    [
        pytest.param({}, True, id="open"),
        pytest.param(DENIED, True, id="bypass-by-default"),
        pytest.param(DENIED | {"bypass": "AzureServices"}, True, id="bypass"),
        pytest.param(DENIED | NO_BYPASS, False, id="no-bypass"),
        pytest.param(DISABLED, True, id="disabled-keeps-the-bypass"),
        pytest.param(DISABLED | NO_BYPASS, False, id="disabled-without-bypass"),
        pytest.param(PERIMETER | {"bypass": "AzureServices"}, False, id="a-perimeter-overrides-it"),
    ],
)
def test_a_trusted_service_gets_through_by_the_bypass(
    azure: Azure, firewall: dict[str, Any], *, admitted: bool
) -> None:
    network: Network = azure.keyvault.add_vault("kv-kms", **firewall).network

    assert network.admits_trusted_services is admitted


def test_a_key_near_its_end_and_at_its_end_is_announced(azure: Azure, endpoint: Endpoint) -> None:
    vault = azure.keyvault.add_vault("kv-kms")
    key = azure.keyvault.add_key(vault, "etcd")
    azure.eventgrid.subscribe(vault.id, endpoint.url)

    azure.keyvault.near_expiry(key)
    announced = key.current.expires
    azure.keyvault.expire(key, quirks=False)
    azure.eventgrid.wait_idle()

    assert announced is not None
    [[near], [over]] = sorted(endpoint.notifications, key=lambda body: str(body[0]["eventType"]), reverse=True)
    assert (near["eventType"], near["subject"]) == ("Microsoft.KeyVault.KeyNearExpiry", "etcd")
    assert near["data"]["ObjectName "] == "etcd"
    assert near["data"]["EXP"] == str(int(announced.timestamp()))
    assert over["eventType"] == "Microsoft.KeyVault.KeyExpired"
    assert over["data"]["Id"] == key.uri_of(key.current.version)
    assert isinstance(over["data"]["EXP"], int)
    assert key.current.expires is not None
    assert key.current.expires <= azure.clock.now()


def test_a_change_of_policies_is_announced(azure: Azure, endpoint: Endpoint) -> None:
    vault = azure.keyvault.add_vault("kv-kms")
    azure.eventgrid.subscribe(vault.id, endpoint.url)

    azure.keyvault.set_access_policies(vault, [access_policy("somebody", "encrypt")], rbac=False)
    azure.eventgrid.wait_idle()

    [[event]] = endpoint.notifications
    assert event["eventType"] == "Microsoft.KeyVault.VaultAccessPolicyChanged"
    assert event["topic"] == vault.id
    assert (event["data"]["VaultName"], event["data"]["ObjectType"]) == ("kv-kms", "Vault")
    assert not vault.is_rbac
