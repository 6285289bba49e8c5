"""The KMS documents that the service takes, and those that it refuses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from local.simulator.aks.documents import VERSIONED_KEY, VERSIONLESS_KEY
from tests.simulator.clients import ENABLED, Arm, refusal

if TYPE_CHECKING:
    from local.simulator import Azure

VAULT = "/subscriptions/s/resourceGroups/rg-keys/providers/Microsoft.KeyVault/vaults/kv-kms"
DISABLED = {"kubernetesResourceObjectEncryptionProfile": {"infrastructureEncryption": "Disabled"}}
VNET = {"apiServerAccessProfile": {"enableVnetIntegration": True}}


def kms(
    key_id: str | None = VERSIONLESS_KEY, access: str | None = "Public", vault: str | None = None
) -> dict[str, Any]:
    """An azureKeyVaultKms with what is given."""
    fields = {"enabled": True, "keyId": key_id, "keyVaultNetworkAccess": access, "keyVaultResourceId": vault}
    return {"azureKeyVaultKms": {name: value for name, value in fields.items() if value is not None}}


OFF = {"azureKeyVaultKms": {"enabled": False}}
OFF_WITH_KEY = {"azureKeyVaultKms": {"enabled": False, "keyId": VERSIONED_KEY, "keyVaultNetworkAccess": "Public"}}
CMK = {**kms(), **ENABLED}
LEGACY = kms(VERSIONED_KEY)


# Source: AKS docs, the migration page and update-kms-key-vault.
@pytest.mark.parametrize(
    ("seed", "profile", "becomes"),
    [
        pytest.param({}, ENABLED, "platform-managed", id="none-to-platform-managed"),
        pytest.param({"kubernetes": "1.33.0"}, ENABLED, "platform-managed", id="the-oldest-version"),
        pytest.param({"identity": "system-assigned"}, ENABLED, "platform-managed", id="system-identity"),
        pytest.param({}, CMK, "customer-managed", id="none-to-customer-managed"),
        pytest.param({}, {**kms(access=None), **ENABLED}, "customer-managed", id="network-access-by-default"),
        pytest.param({}, {**kms(access="Private", vault=VAULT), **ENABLED}, "customer-managed", id="private"),
        pytest.param({"encryption": "platform-managed"}, CMK, "customer-managed", id="platform-to-customer"),
        pytest.param({"encryption": "customer-managed"}, {**OFF, **ENABLED}, "platform-managed", id="and-back"),
        pytest.param({"encryption": "legacy"}, {**OFF, **ENABLED}, "platform-managed", id="legacy-to-platform"),
        pytest.param({"encryption": "legacy"}, CMK, "customer-managed", id="legacy-to-customer"),
        pytest.param({"encryption": "legacy"}, {**LEGACY, **ENABLED}, "ambiguous", id="legacy-keeps-its-version"),
        pytest.param({"encryption": "legacy"}, OFF_WITH_KEY, "none", id="legacy-off-with-key-id"),
        pytest.param({"kubernetes": "1.30.4"}, LEGACY, "legacy", id="legacy-on-an-old-version"),
        pytest.param(
            {"properties": VNET}, kms(VERSIONED_KEY, "Private", VAULT), "legacy", id="legacy-private-with-vnet"
        ),
    ],
)
def test_a_profile_is_taken(
    azure: Azure, arm: Arm, seed: dict[str, Any], profile: dict[str, Any], becomes: str
) -> None:
    cluster = azure.aks.add("aks-1", **seed)
    vault = azure.keyvault.add_vault("kv-kms")
    azure.keyvault.add_key(vault, "etcd", version=VERSIONED_KEY.rpartition("/")[2])
    azure.access.assign(cluster.principal_id, "Key Vault Crypto User", vault.id)

    response = arm.put_profile("aks-1", profile)

    assert response.status_code == 200
    assert cluster.encryption == becomes
    assert cluster.security_profile == profile


@pytest.mark.parametrize(
    ("seed", "profile", "text"),
    [
        pytest.param({"kubernetes": "1.32.9"}, ENABLED, "requires Kubernetes version 1.33.0", id="too-old"),
        pytest.param({"identity": "service-principal"}, ENABLED, "service principal", id="service-principal"),
        pytest.param(
            {"identity": "system-assigned"},
            LEGACY,
            'Azure Key Vault KMS feature does not support cluster identity type "SystemAssigned"',
            id="legacy-system-identity",
        ),
        pytest.param({"encryption": "platform-managed"}, {}, "cannot be disabled", id="off-by-omission"),
        pytest.param({"encryption": "platform-managed"}, DISABLED, "cannot be disabled", id="off"),
        pytest.param({"encryption": "customer-managed"}, LEGACY, "cannot be disabled", id="new-to-legacy"),
        pytest.param({"encryption": "legacy", "kubernetes": "1.26.3"}, CMK, "KMS v1", id="legacy-v1"),
        pytest.param({}, {**LEGACY, **ENABLED}, "a versionless", id="new-with-a-version"),
        pytest.param({}, kms(), "a versioned", id="legacy-without-a-version"),
        pytest.param({}, {**kms(None), **ENABLED}, "not a valid Key Vault key", id="no-key"),
        pytest.param({}, {**kms(VERSIONLESS_KEY + "/"), **ENABLED}, "not a valid Key Vault key", id="trailing-slash"),
        pytest.param(
            {},
            kms(VERSIONED_KEY, None),
            "KeyVault network access is unspecified for Azure Key Vault KMS.",
            id="no-network-access",
        ),
        pytest.param(
            {},
            {**kms(access="Private"), **ENABLED},
            "KeyVault resource ID is empty when KeyVault network access is Private.",
            id="no-vault-id",
        ),
        pytest.param(
            {},
            kms(VERSIONED_KEY, "Private", VAULT),
            "Vnet integration should be enabled when KeyVault network access is Private.",
            id="no-vnet",
        ),
        pytest.param(
            {"encryption": "legacy", "properties": VNET},
            kms(VERSIONED_KEY, "Private", VAULT),
            "can only be changed after KMS was disabled",
            id="legacy-public-to-private",
        ),
    ],
)
def test_a_profile_is_refused(azure: Azure, arm: Arm, seed: dict[str, Any], profile: dict[str, Any], text: str) -> None:
    cluster = azure.aks.add("aks-1", **seed)
    before = cluster.copy()

    status, code, message = refusal(arm.put_profile("aks-1", profile))

    assert (status, code) == (400, "BadRequest")
    assert text in message
    assert cluster.copy() == before


def test_a_stopped_cluster_takes_no_write_though_it_shows_succeeded(azure: Azure, arm: Arm) -> None:
    cluster = azure.aks.add("aks-1", power="Stopped")

    status, code, message = refusal(arm.put_profile("aks-1", ENABLED))

    assert (status, code) == (409, "OperationNotAllowed")
    assert "stopped" in message
    assert cluster.provisioning_state == "Succeeded"


def test_a_new_cluster_is_held_to_the_same_rules(azure: Azure, arm: Arm) -> None:
    template = azure.aks.add("aks-1", kubernetes="1.32.1", encryption="platform-managed").copy()
    azure.aks.delete(template["id"])

    response = arm.put("aks-1", template)

    assert refusal(response)[:2] == (400, "BadRequest")
    assert azure.aks.clusters == {}
