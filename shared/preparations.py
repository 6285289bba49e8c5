"""What the app itself may put in place for a customer-managed key: five steps, each of them one write. Pure.

Each is safe to repeat. What exists is left as it is: a vault that is there is never written but for its bypass, a key
and an identity never; nothing is ever taken away.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal

from pydantic.alias_generators import to_camel

from shared.clusters import Cluster
from shared.keys import KeyId, VaultId
from shared.policy import OWN, Assignment, NetworkAccess, SecondRole
from shared.prerequisites import Prerequisites
from shared.reasons import Reason

_ROTATES_BEFORE_TOO_OLD = 30
_ROTATES_NOT_BEFORE = 7
"""Days. Key Vault rotates no key that is younger. Source: Key Vault docs, how-to-configure-key-rotation."""


class Role(StrEnum):
    """A built-in role that the app may grant on a vault. Source: Azure RBAC docs, built-in-roles, security."""

    CRYPTO_USER = "Key Vault Crypto User"
    READER = "Key Vault Reader"
    CONTRIBUTOR = "Key Vault Contributor"


SECOND_ROLES = {SecondRole.READER: Role.READER, SecondRole.CONTRIBUTOR: Role.CONTRIBUTOR}


@dataclass(frozen=True, slots=True)
class CreateVault:
    """Make the vault, with roles, soft delete and purge protection; `closed` to all but Azure's trusted services."""

    vault: VaultId
    region: str
    tenant: str
    closed: bool
    step: Literal["create-vault"] = "create-vault"


@dataclass(frozen=True, slots=True)
class AdmitTrustedServices:
    """Let Azure's trusted services past an existing vault's firewall. Nothing else of the firewall changes."""

    vault: VaultId
    step: Literal["admit-trusted-services"] = "admit-trusted-services"


@dataclass(frozen=True, slots=True)
class CreateKey:
    """Make the key: RSA, to encrypt and decrypt, rotated by itself every so many days, never expiring."""

    vault: VaultId
    key: str
    rotates_every_days: int
    step: Literal["create-key"] = "create-key"


@dataclass(frozen=True, slots=True)
class CreateIdentity:
    """Make the user-assigned identity, named by its resource id, that the cluster is to change to."""

    identity: str
    region: str
    step: Literal["create-identity"] = "create-identity"


@dataclass(frozen=True, slots=True)
class GrantRole:
    """Grant the cluster's identity a role on the vault. `principal` is the identity's object id."""

    vault: VaultId
    principal: str
    role: Role
    step: Literal["grant-role"] = "grant-role"

    @property
    def optional(self) -> bool:
        """Whether a cluster is updated without it too: the documents disagree on the second role."""
        return self.role is not Role.CRYPTO_USER


Preparation = CreateVault | AdmitTrustedServices | CreateKey | CreateIdentity | GrantRole


def view(preparation: Preparation) -> dict[str, Any]:
    """Return what a preparation does, as programs and people read it."""
    fields = {field.name: getattr(preparation, field.name) for field in dataclasses.fields(preparation)}
    words = {to_camel(name): str(value) if isinstance(value, VaultId) else value for name, value in fields.items()}
    return {"step": words.pop("step"), **words}


def rotates_every_days(max_age_days: int) -> int:
    """Return after how many days a key that the app makes is to rotate: before the policy calls it too old."""
    return max(max_age_days - _ROTATES_BEFORE_TOO_OLD, _ROTATES_NOT_BEFORE)


def preparation_for(
    reason: Reason, cluster: Cluster, vault: VaultId, assignment: Assignment, found: Prerequisites
) -> Preparation | None:
    """Return the write that mends what is missing; None where the app has none for it.

    A vault or key that is soft-deleted is none of them, nor a vault with access policies that lacks one: bringing back
    and permitting there are left to people. So is what the cluster encrypts with by now: another one in its place would
    hide that its secrets can't be read any more.
    """
    target = assignment.target
    if target is None or target.key is None or is_in_use(reason, cluster, KeyId(vault.name, target.key.lower())):
        return None
    match reason:
        case Reason.VAULT_MISSING if found.tenant is not None:
            return CreateVault(vault, cluster.location, found.tenant, target.network_access is NetworkAccess.PRIVATE)
        case Reason.VAULT_WITHOUT_BYPASS:
            return AdmitTrustedServices(vault)
        case Reason.KEY_MISSING:
            return CreateKey(vault, target.key, rotates_every_days(assignment.keys.max_age_days))
        case Reason.IDENTITY_MISSING if target.identity != OWN:
            return CreateIdentity(target.identity, cluster.location)
        case _:
            return _grant_for(reason, cluster, vault, assignment.second_role, found)


def _grant_for(
    reason: Reason, cluster: Cluster, vault: VaultId, second: SecondRole, found: Prerequisites
) -> GrantRole | None:
    """Return the grant that is missing. With access policies, a Contributor could permit itself whatever it likes.

    Source: Key Vault docs, rbac-guide.
    """
    principal, by_roles = cluster.identity.principal, found.vault is not None and found.vault.rbac
    if principal is None:
        return None
    if reason in {Reason.ACCESS_MISSING, Reason.ACCESS_WRAP_ONLY}:
        return GrantRole(vault, principal, Role.CRYPTO_USER) if by_roles else None
    role = SECOND_ROLES[second]
    if reason is not Reason.READER_MISSING or (role is Role.CONTRIBUTOR and not by_roles):
        return None
    return GrantRole(vault, principal, role)


def is_in_use(missing: Reason, cluster: Cluster, key: KeyId) -> bool:
    """Return whether the cluster's own document names what is missing, the key or the vault."""
    used = cluster.encryption.key
    if used is None:
        return False
    return (missing is Reason.KEY_MISSING and used.key == key) or (
        missing is Reason.VAULT_MISSING and used.key.vault == key.vault
    )
