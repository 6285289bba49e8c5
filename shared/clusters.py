"""What a managed cluster's document says, and the document that asks for another encryption.

Classifying fields is reading a fact, not deciding. Pure: no I/O, no clock, no environment.
Sources: AKS docs, kms-data-encryption-concepts; docstrings of azure-mgmt-containerservice 41.8.0 (API 2026-08-01).
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Self

from shared.errors import Malformed
from shared.keys import KeyReference

Document = Mapping[str, Any]
"""A managed cluster as ARM's JSON."""

TERMINAL_STATES = frozenset({"succeeded", "failed", "canceled"})
"""Every other provisioning state means that AKS works on the cluster: the list of states is open."""

_CLUSTER_ID = re.compile(
    r"/subscriptions/(?P<subscription>[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})"
    r"/resourcegroups/(?P<group>[\w.()-]{0,89}[\w()-])"  # Azure lets none end with a dot
    r"/providers/microsoft\.containerservice/managedclusters/(?P<name>[a-z0-9][a-z0-9_-]{0,62})",
    re.IGNORECASE,
)
_SUBSCRIPTION = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_VERSION = re.compile(r"(\d{1,9})\.(\d{1,9})(?:\.(\d{1,9}))?")


def parse_subscription(text: str) -> str:
    """Return a subscription's id in lower case; Malformed if it is none."""
    if _SUBSCRIPTION.fullmatch(text) is None:
        raise Malformed(f"not a subscription id: {text[:100]!r}")
    return text.lower()


@dataclass(frozen=True, slots=True, order=True)
class ClusterId:
    """A cluster's ARM id in lower case, since Azure writes one id in several casings."""

    subscription: str
    group: str
    name: str

    @classmethod
    def parse(cls, resource_id: str) -> Self:
        """Read a managed cluster's ARM id in any casing; anything else is Malformed."""
        match = _CLUSTER_ID.fullmatch(resource_id)
        if match is None:
            raise Malformed(f"not the resource id of a managed cluster: {resource_id[:200]!r}")
        return cls(match["subscription"].lower(), match["group"].lower(), match["name"].lower())

    def __str__(self) -> str:
        return (
            f"/subscriptions/{self.subscription}/resourceGroups/{self.group}"
            f"/providers/Microsoft.ContainerService/managedClusters/{self.name}"
        )


class KeyManagement(StrEnum):
    """Who keeps the key that Kubernetes secrets are encrypted with."""

    NONE = "none"
    """KMS is off: secrets lie in etcd as the platform stores them."""
    LEGACY = "legacy"
    """The customer's key by version; rotation and re-encryption are manual."""
    CUSTOMER_MANAGED = "customer-managed"
    """The customer's key without version; the platform follows its rotations."""
    PLATFORM_MANAGED = "platform-managed"
    """The platform's own key."""
    AMBIGUOUS = "ambiguous"
    """A combination whose meaning no document states: reported, never changed."""


@dataclass(frozen=True, slots=True)
class Encryption:
    """The KMS part of a cluster's securityProfile."""

    kms_enabled: bool = False
    key_url: str | None = None
    vault_id: str | None = None
    network_access: str | None = None
    infrastructure: bool = False

    @classmethod
    def read(cls, document: Document) -> Self:
        """Read it from a cluster's document. null, {} and `enabled: false` mean the same; `Disabled` means absent."""
        security = _part(_part(document, "properties"), "securityProfile")
        kms = _part(security, "azureKeyVaultKms")
        profile = _part(security, "kubernetesResourceObjectEncryptionProfile")
        infrastructure = _text(profile, "infrastructureEncryption")
        off = cls(infrastructure=infrastructure is not None and infrastructure.lower() == "enabled")
        if kms.get("enabled") is not True:
            return off
        return replace(
            off,
            kms_enabled=True,
            key_url=_text(kms, "keyId"),
            vault_id=_text(kms, "keyVaultResourceId"),
            network_access=_text(kms, "keyVaultNetworkAccess"),
        )

    @property
    def key(self) -> KeyReference | None:
        """The key in use, or None where there is none or its id can't be read."""
        if self.key_url is None:
            return None
        try:
            return KeyReference.parse(self.key_url)
        except Malformed:
            return None

    @property
    def key_management(self) -> KeyManagement:
        """Tell the experiences apart: the profile, and whether the key id names a version.

        Source: docstring of AzureKeyVaultKms.key_id, API 2026-07-01 and newer.
        """
        if not self.kms_enabled:
            return KeyManagement.PLATFORM_MANAGED if self.infrastructure else KeyManagement.NONE
        if self.key is None:
            return KeyManagement.AMBIGUOUS
        versioned = self.key.version is not None
        if versioned and not self.infrastructure:
            return KeyManagement.LEGACY
        if not versioned and self.infrastructure:
            return KeyManagement.CUSTOMER_MANAGED
        return KeyManagement.AMBIGUOUS

    def reaches_its_vault(self, network_access: str) -> bool:
        """Return whether it reaches its vault this way, `Public` or `Private`; one that is left out means Public."""
        return (self.network_access or "Public").lower() == network_access.lower()

    def amounts_to(self, other: Encryption) -> bool:
        """Return whether both ask for the same thing.

        Ids are compared without case. A vault's id that stands beside `Public` says nothing more, and a network access
        that is left out means Public. Sources: docstring of AzureKeyVaultKms; AKS docs, kms-data-encryption.
        """
        return self._essence() == other._essence()

    def _essence(self) -> tuple[object, ...]:
        access = (self.network_access or "Public").lower() if self.kms_enabled else None
        vault = (self.vault_id or "").lower() if access == "private" else None
        key = self.key or (self.key_url or "").lower()
        return self.kms_enabled, self.infrastructure, key, access, vault

    def view(self) -> dict[str, Any]:
        """Return the fields as ARM names them, below securityProfile; null where there is nothing."""
        return {
            "azureKeyVaultKms": _kms(self) if self.kms_enabled else None,
            "kubernetesResourceObjectEncryptionProfile": (
                {"infrastructureEncryption": "Enabled"} if self.infrastructure else None
            ),
        }


class IdentityKind(StrEnum):
    """Who the control plane is to Azure."""

    SYSTEM_ASSIGNED = "system-assigned"
    USER_ASSIGNED = "user-assigned"
    SERVICE_PRINCIPAL = "service-principal"


@dataclass(frozen=True, slots=True)
class Identity:
    """The control plane's identity. `resource_id` and `principal` are those of the one user-assigned identity."""

    kind: IdentityKind
    resource_id: str | None = None
    principal: str | None = None

    def is_called(self, resource_id: str) -> bool:
        """Return whether this is the user-assigned identity with this id, in any casing."""
        return self.resource_id is not None and self.resource_id.lower() == resource_id.lower()


@dataclass(frozen=True, slots=True)
class Cluster:
    """A managed cluster at one moment, as its document says.

    `document` is what was read: a PUT sends its writable part back, changed in the KMS part alone.
    `entra` says that its API server asks Entra ID who somebody is; `has_ready_pool` that a pod finds a node.
    """

    id: ClusterId
    resource_id: str
    location: str
    tags: Mapping[str, str]
    kubernetes: tuple[int, int, int] | None
    provisioning_state: str
    running: bool
    pools_settled: bool
    identity: Identity
    encryption: Encryption
    etag: str | None
    resource_uid: str | None
    document: Document = field(repr=False, compare=False)
    entra: bool = False
    run_command_disabled: bool = False
    has_ready_pool: bool = False

    @classmethod
    def read(cls, document: Document, kept: Document) -> Self:
        """Read a cluster from ARM's JSON, of which `kept` is there for a write; Malformed if it has no readable id."""
        properties = _part(document, "properties")
        resource_id = _text(document, "id") or ""
        return cls(
            id=ClusterId.parse(resource_id),
            resource_id=resource_id,
            location=(_text(document, "location") or "").lower(),
            tags={str(name): str(value) for name, value in _part(document, "tags").items()},
            kubernetes=_version(properties),
            provisioning_state=_text(properties, "provisioningState") or "",
            running=(_text(_part(properties, "powerState"), "code") or "Running").lower() == "running",
            pools_settled=all(map(_is_settled, _list(properties, "agentPoolProfiles"))),
            identity=_identity(document),
            encryption=Encryption.read(document),
            etag=_text(document, "eTag") or None,
            resource_uid=_text(properties, "resourceUID"),
            document=kept,
            entra=_part(properties, "aadProfile").get("managed") is True,
            run_command_disabled=_part(properties, "apiServerAccessProfile").get("disableRunCommand") is True,
            has_ready_pool=any(map(_is_ready, _list(properties, "agentPoolProfiles"))),
        )

    @property
    def settled(self) -> bool:
        """AKS works on neither the cluster nor one of its pools."""
        return self.provisioning_state.lower() in TERMINAL_STATES and self.pools_settled

    @property
    def succeeded(self) -> bool:
        """The last operation on the cluster ended well. A stopped cluster says so too."""
        return self.provisioning_state.lower() == "succeeded"

    @property
    def kubernetes_version(self) -> str:
        """The version as text, or `unknown`."""
        return ".".join(map(str, self.kubernetes)) if self.kubernetes else "unknown"


def asking_for(document: Document, encryption: Encryption, identity: str | None = None) -> dict[str, Any]:
    """Return a copy of a cluster's document that asks for this encryption, and for this user-assigned identity if one
    is named. Only objects that change are touched.

    The key's own fields are left out when KMS is off, leftover ones too: `keyId` must be omitted then.
    Source: docstring of AzureKeyVaultKms.key_id.
    """
    asked: dict[str, Any] = copy.deepcopy(dict(document))
    if identity is not None:
        asked["identity"] = {"type": "UserAssigned", "userAssignedIdentities": {identity: {}}}
    current = Encryption.read(document)
    if current.amounts_to(encryption):
        return asked
    properties = asked.setdefault("properties", {})
    security = dict(properties.get("securityProfile") or {})
    if encryption.infrastructure and not current.infrastructure:
        security["kubernetesResourceObjectEncryptionProfile"] = {
            **(security.get("kubernetesResourceObjectEncryptionProfile") or {}),
            "infrastructureEncryption": "Enabled",
        }
    turned_off = not encryption.kms_enabled and bool(security.get("azureKeyVaultKms"))
    if turned_off or replace(encryption, infrastructure=False) != replace(current, infrastructure=False):
        kept = {name: value for name, value in _part(security, "azureKeyVaultKms").items() if name not in _KMS_FIELDS}
        security["azureKeyVaultKms"] = kept | _kms(encryption)
    properties["securityProfile"] = security
    return asked


_KMS_FIELDS = frozenset({"enabled", "keyId", "keyVaultNetworkAccess", "keyVaultResourceId"})


def _kms(encryption: Encryption) -> dict[str, Any]:
    if not encryption.kms_enabled:
        return {"enabled": False}
    fields = {
        "keyId": encryption.key_url,
        "keyVaultNetworkAccess": encryption.network_access,
        "keyVaultResourceId": encryption.vault_id,
    }
    return {"enabled": True} | {name: value for name, value in fields.items() if value is not None}


def _part(document: Document, name: str) -> Mapping[str, Any]:
    part = document.get(name)
    return part if isinstance(part, Mapping) else {}


def _text(document: Document, name: str) -> str | None:
    value = document.get(name)
    return value if isinstance(value, str) else None


def _list(document: Document, name: str) -> list[Any]:
    value = document.get(name)
    return value if isinstance(value, list) else []


def _version(properties: Document) -> tuple[int, int, int] | None:
    text = _text(properties, "currentKubernetesVersion") or _text(properties, "kubernetesVersion") or ""
    match = _VERSION.fullmatch(text)
    return (int(match[1]), int(match[2]), int(match[3] or 0)) if match else None


def _is_settled(pool: Any) -> bool:
    state = _text(pool, "provisioningState") if isinstance(pool, Mapping) else None
    return state is None or state.lower() in TERMINAL_STATES


def _is_ready(pool: Any) -> bool:
    """Whether a pool's last operation ended well, it runs, and it has a node."""
    if not isinstance(pool, Mapping):
        return False
    succeeded = (_text(pool, "provisioningState") or "").lower() == "succeeded"
    running = (_text(_part(pool, "powerState"), "code") or "Running").lower() == "running"
    count = pool.get("count")
    return succeeded and running and isinstance(count, int) and count > 0


def _identity(document: Document) -> Identity:
    part = _part(document, "identity")
    kind = (_text(part, "type") or "").lower()
    if kind == "systemassigned":
        return Identity(IdentityKind.SYSTEM_ASSIGNED, principal=_text(part, "principalId"))
    if kind != "userassigned":
        return Identity(IdentityKind.SERVICE_PRINCIPAL)
    assigned = _part(part, "userAssignedIdentities")
    if len(assigned) != 1:
        return Identity(IdentityKind.USER_ASSIGNED)
    resource_id = next(iter(assigned))
    return Identity(IdentityKind.USER_ASSIGNED, resource_id, _text(_part(assigned, resource_id), "principalId"))
