"""What the AKS resource provider refuses: preconditions of a request, and documents that it does not take.

Sources: AKS docs, use-etags, kms-data-encryption, update-kms-key-vault and
migrate-key-management-service-platform-managed-key-customer-managed-key; the SDK's docstrings.
Texts without a named source are ours.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from local.simulator.aks.documents import infrastructure_encryption, is_versioned_key
from local.simulator.errors import ServiceError, bad_request, operation_not_allowed, precondition_failed

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from local.simulator.wire import Json

FINAL_STATES = frozenset({"Succeeded", "Failed", "Canceled"})
OLDEST_FOR_NEW_EXPERIENCE = (1, 33)
OLDEST_WITH_KMS_V2 = (1, 27)
FEATURE = "Microsoft.ContainerService/KMSPMKPreview"
FEATURES_HEADER = "akshttpcustomfeatures"
KEY_URL = re.compile(r"https://[a-z0-9.-]+/keys/[0-9A-Za-z-]{1,127}(/[0-9a-f]{32})?")


def check_etag(headers: Mapping[str, str], etag: str | None) -> None:
    """Refuse by If-Match and If-None-Match; `etag` None: the cluster does not exist. Source: AKS docs, use-etags."""
    if_match, if_none_match = _condition(headers, "if-match"), _condition(headers, "if-none-match")
    if if_none_match not in ("", "*"):
        raise bad_request("If-None-Match must be empty or '*'.")
    if if_match and if_none_match:
        raise bad_request("If-Match cannot be used together with If-None-Match '*'.")
    if if_none_match and etag is not None:
        raise precondition_failed("The managed cluster exists already, If-None-Match '*' was sent.")
    if if_match and etag is None:
        raise precondition_failed("The managed cluster does not exist, If-Match was sent.")
    if if_match not in ("", "*", etag):
        raise precondition_failed(f"The eTag of the managed cluster is not the If-Match value '{if_match}'.")


def check_idle(document: Json) -> None:
    """Refuse while an operation runs on the cluster."""
    state = document["properties"]["provisioningState"]
    if state not in FINAL_STATES:
        raise operation_not_allowed(f"Another operation is in progress on the managed cluster ({state}).")


def check_running(document: Json) -> None:
    """A stopped cluster can only be started or deleted. Source: AKS docs, start-stop-cluster."""
    if document["properties"]["powerState"]["code"] != "Running":
        raise operation_not_allowed("The managed cluster is stopped, only start and delete are allowed.")


def check_feature(after: Json, headers: Mapping[str, str], registered: Collection[str]) -> None:
    """Refuse the new experience while its preview feature is neither registered nor asked for by header.

    Code and text are those that AKS has for other preview features (azurerm provider issue 13684); whether KMS is
    refused with them, or today at all, is unconfirmed.
    """
    asked_for = [name.strip() for name in headers.get(FEATURES_HEADER, "").split(",")]
    if not Kms.of(after).is_new or FEATURE in registered or FEATURE in asked_for:
        return
    raise ServiceError(400, "PreviewFeatureNotRegistered", f"Preview feature {FEATURE} not registered.")


def check_encryption(before: Json | None, after: Json) -> None:
    """Refuse a document whose KMS the service does not take; `before` None: the cluster is being created."""
    move = Move(Kms.of(before) if before is not None else None, Kms.of(after))
    for refusal in REFUSALS:
        error = refusal(move)
        if error is not None:
            raise error


@dataclass(frozen=True, slots=True)
class Kms:
    """What a document says about KMS, with what bears on it."""

    is_new: bool
    enabled: bool
    key_id: str
    network_access: str | None
    vault_id: str
    kubernetes: tuple[int, int]
    identity_type: str | None
    vnet_integration: bool

    @property
    def vault_host(self) -> str:
        return self.key_id.removeprefix("https://").partition("/")[0]

    @property
    def is_legacy(self) -> bool:
        return self.enabled and not self.is_new

    @classmethod
    def of(cls, document: Json) -> Kms:
        """Read it from a cluster's document. A keyId sent with `enabled: false` means nothing, the CLI does it."""
        properties = document["properties"]
        security = properties.get("securityProfile") or {}
        kms = security.get("azureKeyVaultKms") or {}
        enabled = bool(kms.get("enabled"))
        major, minor, *_ = (properties.get("kubernetesVersion") or "1.33").split(".")
        return cls(
            is_new=infrastructure_encryption(security),
            enabled=enabled,
            key_id=str(kms.get("keyId") or "") if enabled else "",
            network_access=kms.get("keyVaultNetworkAccess"),
            vault_id=str(kms.get("keyVaultResourceId") or ""),
            kubernetes=(int(major), int(minor)),
            identity_type=(document.get("identity") or {}).get("type"),
            vnet_integration=bool((properties.get("apiServerAccessProfile") or {}).get("enableVnetIntegration")),
        )


@dataclass(frozen=True, slots=True)
class Move:
    """From what KMS was to what a PUT asks for."""

    before: Kms | None
    after: Kms


def leaves_new_experience(move: Move) -> ServiceError | None:
    """The new experience can't be turned off; a document without its profile would do so."""
    if move.before is None or not move.before.is_new or move.after.is_new:
        return None
    return bad_request("Kubernetes resource object encryption cannot be disabled once it is enabled.")


def comes_from_kms_v1(move: Move) -> ServiceError | None:
    """Legacy KMS v1 (below 1.27) has no way into the new experience but over v2."""
    before = move.before
    if before is None or not before.is_legacy or not move.after.is_new or before.kubernetes >= OLDEST_WITH_KMS_V2:
        return None
    return bad_request("A cluster with KMS v1 must move to KMS v2 before it can use platform or customer-managed keys.")


def is_too_old(move: Move) -> ServiceError | None:
    """The new experience needs Kubernetes 1.33."""
    if not move.after.is_new or move.after.kubernetes >= OLDEST_FOR_NEW_EXPERIENCE:
        return None
    return bad_request("Kubernetes resource object encryption requires Kubernetes version 1.33.0 or later.")


def has_no_managed_identity(move: Move) -> ServiceError | None:
    """A service principal cluster can't use KMS."""
    if not (move.after.is_new or move.after.enabled) or move.after.identity_type not in (None, "None"):
        return None
    return bad_request("Kubernetes resource object encryption is not supported for clusters with a service principal.")


def has_system_identity(move: Move) -> ServiceError | None:
    """Keys in a vault need a user-assigned identity. The text is from a third-party Terraform module's live test."""
    if not move.after.enabled or move.after.identity_type != "SystemAssigned":
        return None
    return bad_request('Azure Key Vault KMS feature does not support cluster identity type "SystemAssigned"')


def key_is_malformed(move: Move) -> ServiceError | None:
    """keyId is required when KMS is enabled, and is a key's URL."""
    if not move.after.enabled or KEY_URL.fullmatch(move.after.key_id):
        return None
    return bad_request("The key ID is not a valid Key Vault key identifier for Azure Key Vault KMS.")


def key_form_does_not_fit(move: Move) -> ServiceError | None:
    """Legacy takes a versioned key, the new experience a versionless one.

    One exception: the documented migration from legacy only adds the profile and keeps the versioned key. What the
    service makes of it is not documented; here it stays as sent.
    """
    after, before = move.after, move.before
    if not after.enabled or is_versioned_key(after.key_id) != after.is_new:
        return None
    if after.is_new and before is not None and before.is_legacy and before.key_id == after.key_id:
        return None
    needed = "a versionless" if after.is_new else "a versioned"
    return bad_request(f"The key ID must be {needed} Key Vault key identifier.")


def network_access_is_missing(move: Move) -> ServiceError | None:
    """Required for legacy (azure-docs issue 93886); the new experience takes the default, Public."""
    if not move.after.is_legacy or move.after.network_access:
        return None
    return bad_request("KeyVault network access is unspecified for Azure Key Vault KMS.")


def vault_id_is_missing(move: Move) -> ServiceError | None:
    """A private vault must be named by its resource id. Source: Azure/telescope issue 1121."""
    if not move.after.enabled or move.after.network_access != "Private" or move.after.vault_id:
        return None
    return bad_request("KeyVault resource ID is empty when KeyVault network access is Private.")


def vnet_integration_is_missing(move: Move) -> ServiceError | None:
    """Legacy reaches a private vault through the API server's network. Source: terraform-azurerm-aks issue 599."""
    after = move.after
    if not after.is_legacy or after.network_access != "Private" or after.vnet_integration:
        return None
    return bad_request("Vnet integration should be enabled when KeyVault network access is Private.")


def changes_access_to_the_same_vault(move: Move) -> ServiceError | None:
    """Legacy, one vault, public to private or back: only after disabling. Source: AKS docs, update-kms-key-vault."""
    before, after = move.before, move.after
    if before is None or not before.is_legacy or not after.is_legacy:
        return None
    if before.vault_host != after.vault_host or before.network_access == after.network_access:
        return None
    return bad_request("KeyVault network access of the same vault can only be changed after KMS was disabled.")


# Order is the specification: the first that applies answers. What is checked at the vault itself comes after all of
# these and stands in vault_access.py.
REFUSALS: tuple[Callable[[Move], ServiceError | None], ...] = (
    leaves_new_experience,
    comes_from_kms_v1,
    is_too_old,
    has_no_managed_identity,
    has_system_identity,
    key_is_malformed,
    key_form_does_not_fit,
    network_access_is_missing,
    vault_id_is_missing,
    vnet_integration_is_missing,
    changes_access_to_the_same_vault,
)


def _condition(headers: Mapping[str, str], name: str) -> str:
    return headers.get(name, "").strip().removeprefix("W/").strip('"')
