"""Vault, key and roles of a target, looked at once for all the clusters that share them.

A survey is shared for a short while: a fleet of clusters on one key costs one look, and what an operator mends is
seen a minute later.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from shared.access import Assigned, Roles, access_by
from shared.aks import Aks
from shared.errors import Unreadable
from shared.identities import Identities
from shared.keydata import KeyData
from shared.keys import Access, Key, KeyId, KeyReference, Vault, VaultId
from shared.keyvault import KeyVault
from shared.prerequisites import Prerequisites, held_obstacle, version_obstacle
from shared.reasons import Reason

SHARED_FOR = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class _Ground:
    """What is the same for every cluster: the vault and the key in it."""

    vault: Vault | None
    key: Key | None
    vault_deleted: bool = False
    key_deleted: bool = False
    unreadable: bool = False


class Surveyor:
    """Surveys what customer-managed keys need. Raises Throttled and Unavailable; what may not be read is a finding."""

    def __init__(self, aks: Aks, keyvault: KeyVault, keydata: KeyData, roles: Roles, identities: Identities) -> None:
        self._aks = aks
        self._identities = identities
        self._keyvault = keyvault
        self._keydata = keydata
        self._roles = roles
        self._shared: dict[Hashable, tuple[datetime, asyncio.Task[Any]]] = {}

    async def survey(
        self,
        vault: VaultId,
        key: str,
        *,
        principal: str | None,
        identity: str | None = None,
        subscription: str,
        now: datetime,
        afresh: bool = False,
    ) -> Prerequisites:
        """Look at a vault, a key in it, and what a cluster's identity may do with it; no principal, no access.

        `identity` is the resource id of one that is to be there; None asks for none. `afresh`: an operator asks.
        """
        ground, access = await self._access(vault, key, principal, now, afresh=afresh)
        return Prerequisites(
            ground.vault,
            ground.key,
            access,
            tenant=await self._aks.tenant(subscription),
            vault_deleted=ground.vault_deleted,
            key_deleted=ground.key_deleted,
            unreadable=ground.unreadable,
            has_identity=await self._has(identity) if identity is not None else None,
        )

    async def version_obstacle(self, vault: VaultId, named: KeyReference, *, now: datetime) -> Reason | None:
        """Look afresh at a version that a legacy cluster is to name; return what keeps it from that."""
        try:
            return version_obstacle(await self._version(vault, named), now)
        except Unreadable:
            return Reason.VAULT_UNREADABLE

    async def held_obstacle(self, vault: VaultId, held: KeyReference) -> Reason | None:
        """Look afresh at what a cluster's secrets are read with, a version or a key; return why they can't be.

        None if they can, or if nobody can tell.
        """
        try:
            return held_obstacle(await self._version(vault, held), versioned=held.version is not None)
        except Unreadable:
            return None

    async def access(self, vault: VaultId, key: str, principal: str, *, now: datetime) -> Prerequisites:
        """Look at what an identity may do with a key, and at nothing else."""
        ground, access = await self._access(vault, key, principal, now, afresh=False)
        return Prerequisites(ground.vault, ground.key, access)

    async def _access(
        self, vault: VaultId, key: str, principal: str | None, now: datetime, *, afresh: bool
    ) -> tuple[_Ground, Access | None]:
        """Look at a vault and a key in it, and at what an identity may do with the key; no principal, no access."""
        ground, held = await asyncio.gather(
            self._once((vault, key), lambda: self._ground(vault, key, now, afresh=afresh), now),
            self._held(vault, key, principal, now),
        )
        if ground.key is None:  # nobody can tell the roles at what is not there: not to be shared once it is
            self._shared.pop((vault, key, principal), None)
        if principal is None or ground.vault is None:
            return ground, None
        return ground, access_by(held, ground.vault, principal)

    async def _version(self, vault: VaultId, named: KeyReference) -> Key | None:
        if named.version is None:
            return await self._keyvault.key(vault, named.key.name)
        return await self._keyvault.version(vault, named.key.name, named.version)

    def forget(self) -> None:
        """Forget what was seen: the next survey looks afresh."""
        self._shared.clear()

    async def _held(
        self, vault: VaultId, key: str, principal: str | None, now: datetime
    ) -> tuple[Assigned, ...] | None:
        if principal is None:
            return None
        return await self._once((vault, key, principal), lambda: self._roles.held(principal, vault, key, now=now), now)

    async def _has(self, identity: str) -> bool | None:
        try:
            return await self._identities.exists(identity)
        except Unreadable:
            return None

    async def _ground(self, vault: VaultId, key: str, now: datetime, *, afresh: bool) -> _Ground:
        try:
            found, named = await asyncio.gather(self._keyvault.vault(vault), self._keyvault.key(vault, key))
        except Unreadable:
            return _Ground(None, None, unreadable=True)
        if found is None:
            return _Ground(None, None, vault_deleted=await self._keyvault.is_deleted(vault))
        lost = KeyId(vault.name, key.lower())
        deleted = named is None and await self._keydata.is_deleted(lost, now=now, afresh=afresh)
        return _Ground(found, named, key_deleted=deleted is True)

    async def _once[T](self, what: Hashable, ask: Callable[[], Awaitable[T]], now: datetime) -> T:
        """Ask, or share the answer of who asked a moment ago, even while it is still to come. Errors are not shared."""
        asked_at, task = self._shared.get(what, (now, None))
        if task is None or abs(now - asked_at) >= SHARED_FOR or (task.done() and task.exception() is not None):
            task = asyncio.ensure_future(ask())
            self._forget_old(now)
            self._shared[what] = now, task
        answer: T = await asyncio.shield(task)
        return answer

    def _forget_old(self, now: datetime) -> None:
        for what in [what for what, (asked_at, _) in self._shared.items() if abs(now - asked_at) >= SHARED_FOR]:
            del self._shared[what]
