"""The whole way over the wire: from an empty resource group to a cluster that may use its key."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from local.simulator import SUBSCRIPTION
from local.simulator.identity import TENANT
from tests.simulator.clients import ENABLED, Arm, refusal

if TYPE_CHECKING:
    from local.simulator import Azure

PROVIDERS = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg-keys/providers"
VAULT = f"{PROVIDERS}/Microsoft.KeyVault/vaults/kv-kms"
IDENTITY = f"{PROVIDERS}/Microsoft.ManagedIdentity/userAssignedIdentities/id-kms"
CRYPTO_USER = "/providers/Microsoft.Authorization/roleDefinitions/12338af0-0e69-4776-bea7-57ae8d297424"
GRANT = f"{VAULT}/providers/Microsoft.Authorization/roleAssignments/0b8f3d6a-5d0e-4f0e-9a53-0f7a2f6f5c01"
KMS = {"enabled": True, "keyId": "https://kv-kms.vault.azure.net/keys/etcd", "keyVaultNetworkAccess": "Public"}


def prepare(arm: Arm) -> str:
    """Make identity, vault, key and grant; return the principal."""
    made = arm.call("PUT", IDENTITY, body={"location": "westeurope"}).json()
    principal: str = made["properties"]["principalId"]
    properties: dict[str, Any] = {"tenantId": TENANT, "sku": {"family": "A", "name": "standard"}}
    arm.call("PUT", VAULT, body={"location": "westeurope", "properties": properties})
    arm.call("PUT", f"{VAULT}/keys/etcd", body={"properties": {"kty": "RSA"}})
    grant = {"roleDefinitionId": CRYPTO_USER, "principalId": principal, "principalType": "ServicePrincipal"}
    arm.call("PUT", GRANT, body={"properties": grant})
    return principal


def test_a_cluster_may_use_the_key_once_the_name_is_registered_and_the_role_has_propagated(
    azure: Azure, arm: Arm
) -> None:
    azure.access.propagation = timedelta(minutes=10)
    azure.add_resource_group("rg-keys")
    cluster = azure.aks.add("aks-1", identity="system-assigned")
    principal = prepare(arm)
    body = arm.cluster("aks-1")
    body["identity"] = {"type": "UserAssigned", "userAssignedIdentities": {IDENTITY: {}}}
    body["properties"]["securityProfile"] = {"azureKeyVaultKms": KMS, **ENABLED}

    at_once = arm.put("aks-1", body)
    azure.clock.advance(azure.keyvault.registration)
    registered = arm.put("aks-1", body)
    azure.clock.advance(azure.access.propagation)
    propagated = arm.put("aks-1", body)

    code = "AzureKeyVaultKmsValidateIdentityPermissionCustomerError"
    assert [refusal(one)[1] for one in (at_once, registered)] == [code, code]
    assert propagated.status_code == 200
    assert (cluster.principal_id, cluster.encryption) == (principal, "customer-managed")
    assert [(call.method, call.status) for call in azure.journal.writes()] == [
        ("PUT", 201),
        ("PUT", 201),
        ("PUT", 200),
        ("PUT", 201),
        ("PUT", 200),
    ]


def test_preparing_again_finds_everything_as_it_was(azure: Azure, arm: Arm) -> None:
    azure.add_resource_group("rg-keys")
    first = prepare(arm)
    azure.clock.advance(azure.keyvault.registration)
    before = [arm.get(path).json() for path in (IDENTITY, f"{VAULT}/keys/etcd", GRANT)]

    second = prepare(arm)

    assert second == first
    assert [arm.get(path).json() for path in (IDENTITY, f"{VAULT}/keys/etcd", GRANT)] == before
    assert azure.keyvault.vaults[VAULT.lower()].is_registered
