"""Roles: what an identity may do with a vault's keys, and the one grant that the app makes: a role on a vault.

Effective permission is looked for: any role assignment at the key, its vault, group or subscription that holds the
data actions, directly or through a group. Sources: Azure RBAC docs, role-assignments-list-rest; Key Vault docs,
rbac-guide.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from itertools import batched
from typing import Any
from uuid import UUID, uuid5

from azure.core.credentials_async import AsyncTokenCredential
from azure.core.pipeline.transport import AsyncHttpTransport
from azure.mgmt.authorization.v2022_04_01.aio import AuthorizationManagementClient
from azure.mgmt.authorization.v2022_04_01.models import Permission, RoleAssignment, RoleAssignmentCreateParameters

from shared.calls import ONE_TRY, arm_clients, some_at_once, translated
from shared.errors import Conflict, Refused, Unreadable
from shared.keys import Access, Grant, Vault, VaultId
from shared.preparations import Role

ENCRYPT = "microsoft.keyvault/vaults/keys/encrypt/action"
DECRYPT = "microsoft.keyvault/vaults/keys/decrypt/action"
WRAP = "microsoft.keyvault/vaults/keys/wrap/action"
UNWRAP = "microsoft.keyvault/vaults/keys/unwrap/action"
DEFINITIONS_LAST = timedelta(hours=1)
"""Somebody may mend a custom role."""

_AT_ONCE = 8
_A_BATCH = 100
"""So many identities are asked about before it is seen whether Azure asks to come back later."""

_GOES_ON = timedelta(minutes=30)
"""So long the answers of a look that Azure cut short count for the one that goes on."""

READ_VAULT = "microsoft.keyvault/vaults/read"


@dataclass(frozen=True, slots=True)
class Permissions:
    """One block of a role: what it allows but for what it takes out again. Patterns, in lower case."""

    actions: frozenset[str] = frozenset()
    not_actions: frozenset[str] = frozenset()
    data_actions: frozenset[str] = frozenset()
    not_data_actions: frozenset[str] = frozenset()

    def allows(self, action: str) -> bool:
        """Return whether this block allows an action of the control plane."""
        return _is_any(self.actions, action) and not _is_any(self.not_actions, action)

    def allows_data(self, action: str) -> bool:
        """Return whether this block allows an action of the data plane."""
        return _is_any(self.data_actions, action) and not _is_any(self.not_data_actions, action)


@dataclass(frozen=True, slots=True)
class Assigned:
    """A role that somebody holds; `conditional` if it does so only under a condition, which nobody evaluates here."""

    permissions: tuple[Permissions, ...]
    conditional: bool = False
    since: datetime | None = None


def crypto_by_roles(held: Iterable[Assigned]) -> Grant:
    """Return whether these roles allow to encrypt and decrypt. Pure."""
    roles = tuple(held)
    needed = {_data_grant(roles, ENCRYPT), _data_grant(roles, DECRYPT)}
    if needed == {Grant.GRANTED}:
        return Grant.GRANTED
    if Grant.MISSING not in needed:
        return Grant.UNKNOWN
    wraps = {_data_grant(roles, WRAP), _data_grant(roles, UNWRAP)} == {Grant.GRANTED}
    return Grant.WRAP_ONLY if wraps else Grant.MISSING


def reading_by_roles(held: Iterable[Assigned]) -> Grant:
    """Return whether these roles allow to read the vault itself. Pure."""
    return _grant([role for role in held if any(one.allows(READ_VAULT) for one in role.permissions)])


def granted_at(held: Iterable[Assigned]) -> datetime | None:
    """Return when the newest of these roles that allow to encrypt or decrypt was assigned. Pure."""
    allowing = [role for role in held if _data_grant([role], ENCRYPT) is not Grant.MISSING]
    return max((role.since for role in allowing if role.since is not None), default=None)


def crypto_by_policies(vault: Vault, principal: str) -> Grant:
    """Return whether a vault's access policies allow to encrypt and decrypt. Pure."""
    allowed = next((keys for who, keys in vault.policies.items() if who.lower() == principal.lower()), frozenset())
    if "all" in allowed or {"encrypt", "decrypt"} <= allowed:
        return Grant.GRANTED
    return Grant.WRAP_ONLY if {"wrapkey", "unwrapkey"} <= allowed else Grant.MISSING


def access_by(held: Iterable[Assigned] | None, vault: Vault, principal: str) -> Access:
    """Return what these roles, None if nobody can tell them, and a vault's access policies come to. Pure."""
    if held is None:
        return Access(Grant.UNKNOWN if vault.rbac else crypto_by_policies(vault, principal), Grant.UNKNOWN)
    roles = tuple(held)
    if not vault.rbac:
        return Access(crypto_by_policies(vault, principal), reading_by_roles(roles))
    return Access(crypto_by_roles(roles), reading_by_roles(roles), granted_at(roles))


ROLE_IDS = {
    Role.CRYPTO_USER: "12338af0-0e69-4776-bea7-57ae8d297424",
    Role.READER: "21090545-7ca7-4776-b22c-e363652d74d2",
    Role.CONTRIBUTOR: "f25e0fa2-a7c8-4377-a976-54943a77a395",
}
"""Source: Azure RBAC docs, built-in-roles, security."""

_GRANTS = UUID("4c0e3f0e-2f8b-5a53-9d5e-7a5f6d1f1c11")
"""What the names of the app's grants are derived from: the same grant has the same name, for ever."""

_ARM = "https://management.azure.com/.default"


class Roles:
    """Role assignments and definitions, as the app's identity may read them; and the grants it makes."""

    def __init__(self, credential: AsyncTokenCredential, transport: AsyncHttpTransport[Any, Any]) -> None:
        self._credential = credential
        self._client = arm_clients(AuthorizationManagementClient, credential, transport)
        self._definitions: dict[str, tuple[datetime, tuple[Permissions, ...]]] = {}
        self._cut_short: dict[tuple[VaultId, str], dict[str, tuple[datetime, Grant]]] = {}

    async def access(self, principal: str, vault: Vault, key: str | None, *, now: datetime) -> Access:
        """Return what an identity may do with a key, or with all of the vault's. What can't be read is unknown, never
        an error."""
        return access_by(await self.held(principal, vault.id, key, now=now), vault, principal)

    async def held(
        self, principal: str, vault: VaultId, key: str | None, *, now: datetime
    ) -> tuple[Assigned, ...] | None:
        """Return the roles that an identity holds at a key, or else the vault, and above it; None if nobody can tell.

        Needs no more than the vault's name, so it can be asked while the vault is read.
        """
        try:
            return tuple([await self._assigned(one, now) for one in await self._assignments(principal, vault, key)])
        except Unreadable:
            return None

    async def crypto_of(
        self, principals: AbstractSet[str], vault: Vault, key: str, *, now: datetime
    ) -> dict[str, Grant]:
        """Return what each of these identities may do with a key. One listing tells of all who hold a role themselves;
        who may hold one through a group is asked about alone.
        """
        if not vault.rbac:
            return {principal: crypto_by_policies(vault, principal) for principal in principals}
        try:
            held = await self._held_at(vault, key, now)
        except Unreadable:
            return dict.fromkeys(principals, Grant.UNKNOWN)
        may = {principal: crypto_by_roles(held.get(principal.lower(), ())) for principal in principals}
        unclear = [principal for principal, grant in may.items() if grant is not Grant.GRANTED]
        return may | await self._crypto_one_by_one(unclear, vault, key, now)

    async def _crypto_one_by_one(
        self, principals: Iterable[str], vault: Vault, key: str, now: datetime
    ) -> dict[str, Grant]:
        """Ask about each of these identities alone. Throttled half-way, the next try goes on from there: two thousand
        who hold their roles through a group are more than Azure answers at a time.
        """
        answers = self._cut_short.setdefault((vault.id, key), {})
        for principal in [one for one, (at, _) in answers.items() if abs(now - at) >= _GOES_ON]:
            del answers[principal]

        async def ask(principal: str) -> None:
            answers[principal] = now, (await self.access(principal, vault, key, now=now)).crypto

        wanted = list(principals)
        for batch in batched([one for one in wanted if one not in answers], _A_BATCH, strict=False):
            await some_at_once(ask, batch, _AT_ONCE)
        found = {principal: answers[principal][1] for principal in wanted}
        self._cut_short.pop((vault.id, key), None)
        return found

    async def _held_at(self, vault: Vault, key: str, now: datetime) -> dict[str, list[Assigned]]:
        """The roles at a key and above it, by the identity that holds them itself."""
        operations = self._client(vault.id.subscription).role_assignments
        held: dict[str, list[Assigned]] = {}
        with translated():
            rows = [one async for one in operations.list_for_scope(f"{vault.id}/keys/{key}", filter="atScope()")]
        for row in rows:
            held.setdefault(str(row.principal_id).lower(), []).append(await self._assigned(row, now))
        return held

    async def grant(self, role: Role, principal: str, vault: VaultId) -> None:
        """Grant an identity a role on a vault. Granted already, under whatever name: nothing changes.

        Refused where the identity is the app's own: who may grant must not be led to grant to itself.
        """
        if principal.lower() == (await self._own_object_id()).lower():
            raise Refused("OwnIdentity", "the cluster has the app's own identity, to which the app grants nothing")
        definition = f"/subscriptions/{vault.subscription}/providers/Microsoft.Authorization/roleDefinitions"
        asked = RoleAssignmentCreateParameters(
            role_definition_id=f"{definition}/{ROLE_IDS[role]}",
            principal_id=principal,
            principal_type="ServicePrincipal",
        )
        name = str(uuid5(_GRANTS, f"{vault}|{principal}|{role}".lower()))
        operations = self._client(vault.subscription).role_assignments
        try:
            with translated(writing=True):
                await operations.create(str(vault), name, asked, **ONE_TRY)
        except Conflict as error:
            if error.code != "RoleAssignmentExists":
                raise

    async def _own_object_id(self) -> str:
        """The app's own object id, as its token for Azure Resource Manager says; Refused if it says none."""
        with translated():
            token = await self._credential.get_token(_ARM)
        own = _claims(token.token).get("oid")
        if not isinstance(own, str) or not own:
            raise Refused("OwnIdentity", "the app can't tell its own identity from the cluster's")
        return own

    async def _assignments(self, principal: str, vault: VaultId, key: str | None) -> list[RoleAssignment]:
        """List what the principal holds at the key, or else the vault, and above it, through groups too."""
        operations = self._client(vault.subscription).role_assignments
        scope = str(vault) if key is None else f"{vault}/keys/{key}"
        where = f"atScope() and assignedTo('{principal}')"
        with translated():
            return [one async for one in operations.list_for_scope(scope, filter=where)]

    async def _assigned(self, assignment: RoleAssignment, now: datetime) -> Assigned:
        role = str(assignment.role_definition_id)
        read_at, permissions = self._definitions.get(role.lower(), (None, ()))
        if read_at is None or now - read_at >= DEFINITIONS_LAST:
            subscription = role.split("/")[2] if role.lower().startswith("/subscriptions/") else ""
            with translated():
                definition = await self._client(subscription).role_definitions.get_by_id(role)
            permissions = tuple(map(_permissions, definition.permissions or []))
            self._definitions[role.lower()] = now, permissions
        return Assigned(permissions, conditional=bool(assignment.condition), since=assignment.created_on)


def _claims(token: str) -> dict[str, Any]:
    """What a token says of its bearer; empty if that can't be read."""
    try:
        _, claims, _ = token.split(".")
        said = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _data_grant(held: Iterable[Assigned], action: str) -> Grant:
    return _grant([role for role in held if any(one.allows_data(action) for one in role.permissions)])


def _grant(allowing: list[Assigned]) -> Grant:
    if not allowing:
        return Grant.MISSING
    return Grant.UNKNOWN if all(role.conditional for role in allowing) else Grant.GRANTED


def _permissions(block: Permission) -> Permissions:
    return Permissions(
        _lower(block.actions), _lower(block.not_actions), _lower(block.data_actions), _lower(block.not_data_actions)
    )


def _lower(patterns: Iterable[str] | None) -> frozenset[str]:
    return frozenset(pattern.lower() for pattern in patterns or ())


def _is_any(patterns: frozenset[str], action: str) -> bool:
    """A star stands for any text, and `/*/` for a lone slash too: Managed Identity Operator reads identities by
    `userAssignedIdentities/*/read`, Key Vault Reader reads vaults by `vaults/*/read`.

    Source: Azure RBAC docs, built-in-roles.
    """
    return any(fnmatchcase(action, one) for pattern in patterns for one in (pattern, pattern.replace("/*/", "/")))
