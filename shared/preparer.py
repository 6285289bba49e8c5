"""Puts in place what a customer-managed key needs, one write at a time, and tells whether it is there."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import assert_never

from shared.access import Roles
from shared.errors import Unreadable
from shared.identities import Identities
from shared.keys import Grant, VaultId, VaultNetwork
from shared.keyvault import KeyVault
from shared.preparations import (
    AdmitTrustedServices,
    CreateIdentity,
    CreateKey,
    CreateVault,
    GrantRole,
    Preparation,
    Role,
)


@dataclass(frozen=True, slots=True)
class Preparer:
    """The writes of `prerequisites: ensure`. Each is safe to repeat. Errors are those of `shared.errors`."""

    keyvault: KeyVault
    identities: Identities
    roles: Roles

    async def prepare(self, preparation: Preparation) -> None:
        """Make the one write of a preparation."""
        match preparation:
            case CreateVault():
                await self.keyvault.create(preparation)
            case AdmitTrustedServices(vault):
                await self.keyvault.admit_trusted_services(vault)
            case CreateKey():
                await self.keyvault.create_key(preparation)
            case CreateIdentity(identity, region):
                await self.identities.create(identity, region)
            case GrantRole(vault, principal, role):
                await self.roles.grant(role, principal, vault)
            case _:
                assert_never(preparation)

    async def is_in_place(self, preparation: Preparation, *, now: datetime) -> bool | None:
        """Return whether what was to be put in place is there; None while it comes, or where that can't be told."""
        try:
            match preparation:
                case CreateVault(vault):
                    return await self._is_ready(vault)
                case AdmitTrustedServices(vault):
                    return await self._admits(vault)
                case CreateKey(vault, key):
                    return await self.keyvault.key(vault, key) is not None
                case CreateIdentity(identity):
                    return await self.identities.exists(identity)
                case GrantRole():
                    return await self._is_granted(preparation, now)
                case _:
                    assert_never(preparation)
        except Unreadable:
            return None

    async def _is_ready(self, vault: VaultId) -> bool | None:
        found = await self.keyvault.vault(vault)
        if found is None:
            return False
        return True if found.ready else None

    async def _admits(self, vault: VaultId) -> bool:
        found = await self.keyvault.vault(vault)
        return found is not None and found.network not in {VaultNetwork.CLOSED, VaultNetwork.SELECTED}

    async def _is_granted(self, asked: GrantRole, now: datetime) -> bool | None:
        found = await self.keyvault.vault(asked.vault)
        if found is None:
            return False
        access = await self.roles.access(asked.principal, found, key=None, now=now)
        grant = access.crypto if asked.role is Role.CRYPTO_USER else access.reading
        return None if grant is Grant.UNKNOWN else grant is Grant.GRANTED
