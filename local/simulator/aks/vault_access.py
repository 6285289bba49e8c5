"""What the AKS resource provider, and then the cluster itself, finds at the vault that a document names.

A public vault is tried when the PUT comes in; a private one is not, and what is wrong with it breaks the operation.
Sources: AKS docs, kms-data-encryption and use-kms-etcd-encryption; azure-docs issues 98954 and 105101, Azure/AKS issue
3575, terraform-azurerm-aks issue 390. Which of these checks the new experience makes at the PUT is not documented: here
they are those of legacy KMS.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING

from local.simulator.aks.documents import is_versioned_key
from local.simulator.aks.rules import Kms
from local.simulator.errors import ServiceError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from local.simulator.keyvault import KeyVault, SimulatedKey, SimulatedVault
    from local.simulator.wire import Json

NEEDED = ("encrypt", "decrypt")
KEY_TYPES = frozenset({"RSA", "RSA-HSM"})  # Source: Azure/kubernetes-kms, which encrypts with RSA-OAEP-256 or RSA1_5

BROKEN_OPERATION = ("InternalOperationError", "Internal server error")


class Fault(StrEnum):
    """Why a cluster can't use a version of a key. What Key Vault has an inner code for has that one."""

    VAULT_GONE = "VaultGone"
    CLOSED = "VaultClosed"
    KEY_GONE = "KeyGone"
    VERSION_GONE = "VersionGone"
    WRONG_TYPE = "WrongKeyType"
    NOT_AN_OPERATION = "KeyOperationForbidden"
    DISABLED = "KeyDisabled"
    NOT_YET_VALID = "KeyNotYetValid"
    EXPIRED = "KeyExpired"
    NO_PERMISSION = "NoPermission"
    NO_SLOT = "NoSlot"


@dataclass(frozen=True, slots=True)
class KeyUse:
    """The key that a cluster's document says it encrypts with, and the principals with which it goes there."""

    kms: Kms
    principals: frozenset[str]

    @classmethod
    def of(cls, document: Json) -> KeyUse | None:
        """None for a cluster without a key in a vault."""
        kms = Kms.of(document)
        return cls(kms, principals(document)) if kms.enabled else None

    @property
    def is_private(self) -> bool:
        return self.kms.network_access == "Private"

    def works(self, vaults: KeyVault, at: datetime) -> bool:
        """True when the cluster reaches its vault, may use the key, and the key can be used, at that time."""
        return self.fault(vaults, at) is None

    def fault(self, vaults: KeyVault, at: datetime, operations: Sequence[str] = NEEDED) -> Fault | None:
        """What keeps the cluster from these operations at that time; a key without a version means the newest."""
        vault = vaults.vault_at(self.kms.vault_host)
        if vault is None:
            return Fault.VAULT_GONE
        if not self._reaches(vault):
            return Fault.CLOSED
        parts = self.kms.key_id.split("/")
        key = vault.keys.get(parts[4].lower())
        if key is None:
            return Fault.KEY_GONE
        fault = _unusable(key, parts[5] if is_versioned_key(self.kms.key_id) else None, at, operations)
        if fault is not None:
            return fault
        may = any(
            all(vaults.permits(vault, principal, permission, key.name, at) for permission in operations)
            for principal in self.principals
        )
        return None if may else Fault.NO_PERMISSION

    def _reaches(self, vault: SimulatedVault) -> bool:
        """Public: only a vault open to all. Private: legacy over a private link of its own, else as a trusted service.

        Source: AKS docs, kms-data-encryption; Key Vault docs, network-security-perimeter.
        """
        if not self.is_private:
            return vault.network.is_open
        if vault.id.lower() != self.kms.vault_id.lower():
            return False
        return self.kms.is_legacy or vault.network.admits_trusted_services


def check_permission(before: Json | None, after: Json, vaults: KeyVault, at: datetime) -> None:
    """Refuse a document whose public vault, key or permission is not as it must be."""
    use = KeyUse.of(after)
    if use is None or use.is_private or not is_put_to_use(before, after) or use.works(vaults, at):
        return
    text = f"The identity does not have keys encrypt/decrypt permission on key vault https://{use.kms.vault_host}/"
    raise ServiceError(400, "AzureKeyVaultKmsValidateIdentityPermissionCustomerError", text)


def is_put_to_use(before: Json | None, after: Json) -> bool:
    """True when a write changes how a cluster uses a key, or tries a failed one again.

    Whether the service also checks a write that is about something else is not documented; here it does not.
    """
    use = KeyUse.of(after)
    if use is None:
        return False
    return before is None or before["properties"]["provisioningState"] == "Failed" or KeyUse.of(before) != use


def breaks(document: Json, vaults: KeyVault, at: datetime) -> bool:
    """True when a cluster can't use the key that its document names: then its operation fails, opaquely."""
    use = KeyUse.of(document)
    return use is not None and not use.works(vaults, at)


def principals(document: Json) -> frozenset[str]:
    """The object ids of the control plane's identity: not the kubelet's."""
    identity = document.get("identity") or {}
    assigned = (identity.get("userAssignedIdentities") or {}).values()
    found = {str(one.get("principalId")) for one in assigned}
    return frozenset(found | ({str(identity["principalId"])} if identity.get("principalId") else set()))


def _unusable(key: SimulatedKey, version: str | None, at: datetime, operations: Sequence[str]) -> Fault | None:
    if version is not None and version not in key.versions:
        return Fault.VERSION_GONE
    if key.kty not in KEY_TYPES:
        return Fault.WRONG_TYPE
    refusals = (key.refusal(operation, at, version) for operation in operations)
    return next((Fault(str(refusal.inner)) for refusal in refusals if refusal is not None), None)
