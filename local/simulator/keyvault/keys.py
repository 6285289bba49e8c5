"""Keys and their versions, and what they may be used for.

Sources: Azure REST reference, Key Vault resource provider; Key Vault docs, about-keys-details (attributes, operations).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from local.simulator.errors import ServiceError

if TYPE_CHECKING:
    from local.simulator.keyvault.vaults import SimulatedVault
    from local.simulator.wire import Json

KEY_TYPE = "Microsoft.KeyVault/vaults/keys"
KEY_OPERATIONS = ("encrypt", "decrypt", "sign", "verify", "wrapKey", "unwrapKey")


@dataclass(slots=True)
class SimulatedVersion:
    """One version of a key. Times are aware datetimes; the wire has epoch seconds."""

    version: str  # 32 hex digits
    created: datetime
    updated: datetime
    enabled: bool = True
    not_before: datetime | None = None
    expires: datetime | None = None

    def attributes(self, recovery_level: str) -> Json:
        """As ARM and the vault show them."""
        attributes: Json = {"enabled": self.enabled}
        if self.not_before is not None:
            attributes["nbf"] = epoch(self.not_before)
        if self.expires is not None:
            attributes["exp"] = epoch(self.expires)
        return attributes | {
            "created": epoch(self.created),
            "updated": epoch(self.updated),
            "recoveryLevel": recovery_level,
            "exportable": False,
        }

    def refusal(self, operation: str, at: datetime) -> ServiceError | None:
        """Key Vault's 403 for an operation with this version at that time. Disabled or expired, it can still be read.

        Source: the text of an expired key, AKS docs, kms-observability; the others are ours.
        """
        if not self.enabled:
            return _forbidden(f"Operation {operation} is not allowed on a disabled key.", "KeyDisabled")
        if self.not_before is not None and at < self.not_before:
            return _forbidden(f"Operation {operation} is not allowed on a key that is not yet valid.", "KeyNotYetValid")
        if self.expires is not None and at >= self.expires:
            return _forbidden(f"Operation {operation} isn't allowed on an expired key", "KeyExpired")
        return None


@dataclass(slots=True)
class SimulatedKey:
    """One key with its versions, by version, oldest first."""

    name: str
    vault: SimulatedVault
    kty: str = "RSA"
    size: int | None = 2048
    operations: tuple[str, ...] = KEY_OPERATIONS
    versions: dict[str, SimulatedVersion] = field(default_factory=dict)
    rotation_policy: Json | None = None  # in the vault's own shape; None: the one that every key has
    curve: str | None = None
    tags: dict[str, str] = field(default_factory=dict)
    deleted: datetime | None = None

    @property
    def id(self) -> str:
        """The ARM id."""
        return f"{self.vault.id}/keys/{self.name}"

    @property
    def uri(self) -> str:
        """The versionless URL, as a cluster of the new experience names it."""
        return f"{self.vault.uri}keys/{self.name}"

    @property
    def current(self) -> SimulatedVersion:
        """The newest version."""
        return next(reversed(self.versions.values()))

    def uri_of(self, version: str) -> str:
        """The versioned URL, as a legacy cluster names it."""
        return f"{self.uri}/{version}"

    def version(self, version: str) -> SimulatedVersion:
        """One version; 404 in the service's words when there is none."""
        found = self.versions.get(version.lower())
        if found is None:
            raise key_not_found(f"{self.name}/{version}")
        return found

    def refusal(self, operation: str, at: datetime, version: str | None = None) -> ServiceError | None:
        """Key Vault's 403 for an operation with one version (the newest) at that time; None when it is allowed."""
        if operation not in self.operations:
            return _forbidden(f"Operation {operation} is not permitted on this key.", "KeyOperationForbidden")
        return (self.current if version is None else self.version(version)).refusal(operation, at)

    def document(self, version: SimulatedVersion, *, versioned: bool = False) -> Json:
        """The key, or one of its versions, in full."""
        document = self.row(version if versioned else None) | {"tags": self.tags}
        document["properties"] = {
            "attributes": version.attributes(self.vault.recovery_level),
            "kty": self.kty,
            "keyOps": list(self.operations),
            "keyUri": self.uri,
            "keyUriWithVersion": self.uri_of(version.version),
        }
        if self.size is not None:
            document["properties"]["keySize"] = self.size
        if self.curve is not None:
            document["properties"]["curveName"] = self.curve
        if self.rotation_policy is not None and not versioned:
            document["properties"]["rotationPolicy"] = _as_arm_has_it(self.rotation_policy)
        return document

    def row(self, version: SimulatedVersion | None) -> Json:
        """The key, or one of its versions, as it stands in a list."""
        head: Json = {"id": self.id, "name": self.name, "type": KEY_TYPE}
        if version is not None:
            head = {
                "id": f"{self.id}/versions/{version.version}",
                "name": version.version,
                "type": f"{KEY_TYPE}/versions",
            }
        enabled = (version or self.current).enabled
        location = self.vault.document["location"]
        return head | {"location": location, "properties": {"attributes": {"enabled": enabled}}}


def key_not_found(name: str) -> ServiceError:
    """404 of the vault, and of ARM, of which no source shows what it says.

    Source: azure-keyvault-keys, recordings of its tests.
    """
    text = (
        f"A key with (name/id) {name} was not found in this key vault. If you recently deleted this key you may be "
        "able to recover it using the correct recovery command. For help resolving this issue, please see "
        "https://go.microsoft.com/fwlink/?linkid=2125182"
    )
    return ServiceError(404, "KeyNotFound", text)


def epoch(moment: datetime) -> int:
    """Whole seconds, as the wire has them."""
    return int(moment.timestamp())


def _as_arm_has_it(policy: Json) -> Json:
    """The vault says `Rotate` and `Notify`, ARM `rotate` and `notify`. Source: both REST references."""
    actions = [
        {"action": {"type": str(one["action"]["type"]).lower()}, "trigger": one["trigger"]}
        for one in policy.get("lifetimeActions") or ()
    ]
    return {"attributes": policy.get("attributes") or {}, "lifetimeActions": actions}


def _forbidden(message: str, inner: str) -> ServiceError:
    return ServiceError(403, "Forbidden", message, inner=inner)
