"""Vaults, keys and their versions: what their names say. Pure: no I/O, no clock, no environment."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Self

from shared.errors import Malformed

KEY_VAULT_SUFFIX = ".vault.azure.net"
"""Hosts of the public cloud's vaults end so. A key id with another host is never asked for with a token."""

_KEY_URL = re.compile(
    r"https://(?P<vault>[a-z](?:[a-z0-9-]{1,22})[a-z0-9])"
    + re.escape(KEY_VAULT_SUFFIX)
    + r"(?::443)?/keys/(?P<name>[a-z0-9-]{1,127})(?:/(?P<version>[0-9a-f]{32}))?/?",
    re.IGNORECASE | re.ASCII,
)
_VAULT_ID = re.compile(
    r"/subscriptions/(?P<subscription>[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})"
    r"/resourcegroups/(?P<group>[\w.()-]{0,89}[\w()-])"  # Azure lets none end with a dot
    r"/providers/microsoft\.keyvault/vaults/(?P<name>[a-z][a-z0-9-]{1,22}[a-z0-9])",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class KeyId:
    """One key. Vault and key names are compared without case, so both are kept in lower case."""

    vault: str
    name: str

    def __str__(self) -> str:
        return f"{self.vault}/{self.name}"


@dataclass(frozen=True, slots=True)
class KeyReference:
    """What a key URL names: a key, and one version of it (32 hex digits) where the URL is versioned."""

    key: KeyId
    version: str | None

    @classmethod
    def parse(cls, url: str) -> Self:
        """Read `https://{vault}.vault.azure.net/keys/{name}[/{version}]`; anything else is Malformed.

        The host is checked here, before any token could be sent to it. A Managed HSM's key is Malformed too: AKS
        documents no such key. Source: AKS docs, kms-data-encryption-concepts.
        """
        match = _KEY_URL.fullmatch(url)
        if match is None:
            raise Malformed(f"not a key of a vault under {KEY_VAULT_SUFFIX}: {url[:200]!r}")
        version = match["version"]
        return cls(KeyId(match["vault"].lower(), match["name"].lower()), version.lower() if version else None)

    @property
    def url(self) -> str:
        """The key's URL, versioned if this names a version."""
        url = f"https://{self.key.vault}{KEY_VAULT_SUFFIX}/keys/{self.key.name}"
        return f"{url}/{self.version}" if self.version else url


@dataclass(frozen=True, slots=True)
class VaultId:
    """A vault's ARM id, in lower case."""

    subscription: str
    group: str
    name: str

    @classmethod
    def parse(cls, resource_id: str) -> Self:
        """Read a vault's ARM id in any casing; anything else is Malformed."""
        match = _VAULT_ID.fullmatch(resource_id)
        if match is None:
            raise Malformed(f"not the resource id of a key vault: {resource_id[:200]!r}")
        return cls(match["subscription"].lower(), match["group"].lower(), match["name"].lower())

    def __str__(self) -> str:
        return (
            f"/subscriptions/{self.subscription}/resourceGroups/{self.group}"
            f"/providers/Microsoft.KeyVault/vaults/{self.name}"
        )


@dataclass(frozen=True, slots=True)
class KeyVersion:
    """One version of a key as ARM shows it. Times are aware UTC; None where the service says nothing.

    `updated` is when its attributes were changed last; `enabled_since` when it was seen enabled again, which Azure does
    not tell: None if it was never seen disabled before.
    """

    version: str
    enabled: bool | None = None
    created: datetime | None = None
    not_before: datetime | None = None
    expires: datetime | None = None
    updated: datetime | None = None
    enabled_since: datetime | None = field(default=None, compare=False)

    @property
    def is_only_named(self) -> bool:
        """Whether an event alone, or a cluster, named it: nobody has seen that it is there."""
        return self == KeyVersion(self.version)


class VaultNetwork(StrEnum):
    """Who reaches a vault over the network. Source: Key Vault docs, network-security."""

    OPEN = "open"
    """All networks."""
    TRUSTED = "trusted"
    """Azure's trusted services, and besides them at most some networks or addresses."""
    CLOSED = "closed"
    """No network, and no trusted service either."""
    SELECTED = "selected"
    """Some networks or addresses, and no trusted service."""
    PERIMETER = "perimeter"
    """What a network security perimeter lets in: it overrides the bypass for trusted services."""


@dataclass(frozen=True, slots=True)
class Vault:
    """A vault as ARM shows it.

    `policies` are the access policies: key permissions in lower case by object id. They count where `rbac` is off.
    `ready` is False while Azure is still making it.
    """

    id: VaultId
    uri: str
    tenant: str | None
    network: VaultNetwork
    rbac: bool = True
    purge_protection: bool = True
    policies: Mapping[str, frozenset[str]] = field(default_factory=dict)
    ready: bool = True


@dataclass(frozen=True, slots=True)
class RotationPolicy:
    """When Key Vault makes a new version by itself, and how long each version lasts. Durations are ISO 8601."""

    rotates_after_creation: str | None = None
    rotates_before_expiry: str | None = None
    expires_in: str | None = None


@dataclass(frozen=True, slots=True)
class Key:
    """A key as ARM shows it: its current version's attributes. Times are aware UTC.

    `version` names it; `rotation_policy` is None where ARM does not show it.
    """

    id: KeyId
    kind: str
    operations: frozenset[str]
    enabled: bool = True
    not_before: datetime | None = None
    expires: datetime | None = None
    rotation_policy: RotationPolicy | None = None
    version: str | None = None


class Grant(StrEnum):
    """Whether somebody may do something."""

    GRANTED = "granted"
    MISSING = "missing"
    WRAP_ONLY = "wrap-only"
    """May wrap and unwrap keys, which looks alike and is not enough: AKS encrypts and decrypts."""
    UNKNOWN = "unknown"
    """It hangs on a condition, or can't be read."""


@dataclass(frozen=True, slots=True)
class Access:
    """What an identity may do with a vault's keys: encrypt and decrypt; and whether it may read the vault itself.

    `granted_at` is when the newest assignment that allows to encrypt or decrypt was made; None where nobody tells.
    """

    crypto: Grant
    reading: Grant
    granted_at: datetime | None = None
