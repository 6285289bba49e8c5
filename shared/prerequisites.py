"""What a customer-managed key needs before a cluster may use it: vault, key, permission. Pure: no I/O, no clock.

Sources: AKS docs, kms-data-encryption and migrate-key-management-service-platform-managed-key-customer-managed-key;
Key Vault docs, network-security and rbac-guide; Azure/kubernetes-kms for the encryption that needs an RSA key.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from shared.keys import Access, Grant, Key, Vault, VaultNetwork
from shared.policy import NetworkAccess
from shared.reasons import Reason

NEEDED_OPERATIONS = frozenset({"encrypt", "decrypt"})
SUPPORTED_KINDS = frozenset({"rsa", "rsa-hsm"})


@dataclass(frozen=True, slots=True)
class Prerequisites:
    """What a survey found. None means: it is not there. `access` is None where no identity was asked about.

    `unreadable` means that the app may not look, so that nothing can be said. `tenant` is the cluster's.
    `has_identity` says whether the identity that the target names is there; None where that was not asked or not told.
    """

    vault: Vault | None
    key: Key | None
    access: Access | None
    tenant: str | None = None
    vault_deleted: bool = False
    key_deleted: bool = False
    unreadable: bool = False
    has_identity: bool | None = None

    @property
    def key_url(self) -> str:
        """The versionless URL that the cluster is to use: the vault's own address and the key's name."""
        if self.vault is None or self.key is None:
            raise AssertionError("only a key that is there has a URL")
        return f"{self.vault.uri.rstrip('/')}/keys/{self.key.id.name}"

    @property
    def network_access(self) -> NetworkAccess:
        """How the vault's firewall lets a cluster in, once no obstacle is left."""
        is_open = self.vault is not None and self.vault.network is VaultNetwork.OPEN
        return NetworkAccess.PUBLIC if is_open else NetworkAccess.PRIVATE


Obstacle = Callable[[Prerequisites, NetworkAccess | None, datetime], Reason | None]


def obstacle(found: Prerequisites, asked: NetworkAccess | None, now: datetime) -> Reason | None:
    """Return the first thing about vault or key that stands in the way; None if all is in place."""
    answers = (check(found, asked, now) for check in OBSTACLES)
    return next((answer for answer in answers if answer is not None), None)


def version_obstacle(version: Key | None, now: datetime) -> Reason | None:
    """Return what keeps one version of a key from being named in a legacy cluster; None if nothing does."""
    found = Prerequisites(None, version, None)
    answers = (check(found, None, now) for check in OF_THE_KEY)
    return next((answer for answer in answers if answer is not None), None)


def held_obstacle(held: Key | None, *, versioned: bool) -> Reason | None:
    """Return why nothing can be read with what a cluster names, a version or a key; None if it can.

    One that has expired still decrypts. Source: Key Vault docs, about-keys-details (date-time controlled operations).
    """
    if held is None:
        return Reason.VERSION_MISSING if versioned else Reason.KEY_MISSING
    disabled = Reason.VERSION_DISABLED if versioned else Reason.KEY_DISABLED
    return disabled if not held.enabled else None


def access_obstacle(found: Prerequisites) -> Reason | None:
    """Return what the identity lacks; None if it may encrypt and decrypt, or if that can't be told."""
    crypto = found.access.crypto if found.access else Grant.UNKNOWN
    return {Grant.MISSING: Reason.ACCESS_MISSING, Grant.WRAP_ONLY: Reason.ACCESS_WRAP_ONLY}.get(crypto)


def risk_of(key: Key | None, now: datetime) -> Reason | None:
    """Return what keeps a key in use from being used; None if all is well."""
    if key is None:
        return Reason.KEY_MISSING
    found = Prerequisites(None, key, None)
    return key_is_disabled(found, None, now) or key_is_not_valid_now(found, None, now)


def warnings(found: Prerequisites) -> tuple[Reason, ...]:
    """Return what is not as it should be, though nothing documented forbids it."""
    crypto = found.access.crypto if found.access else Grant.UNKNOWN
    reading = found.access.reading if found.access else Grant.UNKNOWN
    doubts = {
        Reason.ACCESS_UNKNOWN: crypto is Grant.UNKNOWN,
        Reason.READER_MISSING: reading is Grant.MISSING,
        Reason.PURGE_PROTECTION_OFF: found.vault is not None and not found.vault.purge_protection,
    }
    return tuple(reason for reason, holds in doubts.items() if holds)


def vault_is_missing(found: Prerequisites, _asked: NetworkAccess | None, _now: datetime) -> Reason | None:
    """No vault: deleted softly, out of the app's sight, or never there."""
    if found.vault is not None:
        return None
    if found.vault_deleted:
        return Reason.VAULT_DELETED
    return Reason.VAULT_UNREADABLE if found.unreadable else Reason.VAULT_MISSING


def vault_is_not_ready(found: Prerequisites, _asked: NetworkAccess | None, _now: datetime) -> Reason | None:
    """Until its name is known everywhere, a new vault takes no key."""
    return Reason.VAULT_NOT_READY if found.vault is not None and not found.vault.ready else None


def vault_is_foreign(found: Prerequisites, _asked: NetworkAccess | None, _now: datetime) -> Reason | None:
    """A vault of another tenant: documented as unsupported for legacy, not stated for the new experience."""
    tenants = (found.vault.tenant if found.vault else None, found.tenant)
    if None in tenants or str(tenants[0]).lower() == str(tenants[1]).lower():
        return None
    return Reason.VAULT_OTHER_TENANT


def vault_is_out_of_reach(found: Prerequisites, asked: NetworkAccess | None, _now: datetime) -> Reason | None:
    """The firewall does not let AKS in as the target asks. Private means: closed but for trusted services."""
    network = found.vault.network if found.vault else None
    if network is VaultNetwork.PERIMETER:
        return Reason.VAULT_PERIMETER
    if network is VaultNetwork.SELECTED:
        return Reason.VAULT_SELECTED_NETWORKS
    if network is VaultNetwork.OPEN:
        return Reason.VAULT_OPEN if asked is NetworkAccess.PRIVATE else None
    if asked is NetworkAccess.PUBLIC:
        return Reason.VAULT_CLOSED
    return Reason.VAULT_WITHOUT_BYPASS if network is VaultNetwork.CLOSED else None


def key_is_missing(found: Prerequisites, _asked: NetworkAccess | None, _now: datetime) -> Reason | None:
    """No key: deleted softly, out of the app's sight, or never there."""
    if found.key is not None:
        return None
    if found.unreadable:
        return Reason.VAULT_UNREADABLE
    return Reason.KEY_DELETED if found.key_deleted else Reason.KEY_MISSING


def key_is_disabled(found: Prerequisites, _asked: NetworkAccess | None, _now: datetime) -> Reason | None:
    """A disabled version does nothing."""
    return Reason.KEY_DISABLED if found.key is not None and not found.key.enabled else None


def key_is_not_valid_now(found: Prerequisites, _asked: NetworkAccess | None, now: datetime) -> Reason | None:
    """Encrypt is refused before the key's start and from its expiry on. Source: Key Vault docs, about-keys-details."""
    if found.key is None:
        return None
    if found.key.not_before is not None and now < found.key.not_before:
        return Reason.KEY_NOT_YET_VALID
    return Reason.KEY_EXPIRED if found.key.expires is not None and now >= found.key.expires else None


def key_is_of_another_kind(found: Prerequisites, _asked: NetworkAccess | None, _now: datetime) -> Reason | None:
    """The KMS plugin encrypts with RSA-OAEP; no document names another kind for the new experience."""
    return (
        Reason.KEY_TYPE_UNSUPPORTED if found.key is not None and found.key.kind.lower() not in SUPPORTED_KINDS else None
    )


def key_lacks_operations(found: Prerequisites, _asked: NetworkAccess | None, _now: datetime) -> Reason | None:
    """The key must allow both."""
    lacks = found.key is not None and not found.key.operations >= NEEDED_OPERATIONS
    return Reason.KEY_OPERATIONS_MISSING if lacks else None


OF_THE_KEY: tuple[Obstacle, ...] = (
    key_is_missing,
    key_is_disabled,
    key_is_not_valid_now,
    key_is_of_another_kind,
    key_lacks_operations,
)

OBSTACLES: tuple[Obstacle, ...] = (
    vault_is_missing,
    vault_is_not_ready,
    vault_is_foreign,
    vault_is_out_of_reach,
    *OF_THE_KEY,
)
"""Each may rely on those above it."""
