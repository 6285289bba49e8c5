"""What only a vault itself tells of a key, and Azure Resource Manager does not: its rotation policy, its deletion.

Most vaults that matter are closed to the app, by a firewall or by permissions. A refusal is no failure: it is
remembered for a day, and the app does without. Asked for `afresh`, the vault is asked all the same: somebody may have
mended it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from shared.errors import Missing, Transient, Unreadable
from shared.keyledger import KeyLedger
from shared.keys import KeyId, RotationPolicy
from shared.telemetry import logger
from shared.vaultdoor import VaultDoor

log = logger(__name__)

REFUSAL_LASTS = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class KeyData:
    """Asks vaults that let the app in. None means that it can not be told; no answer of a vault is ever raised."""

    door: VaultDoor
    keys: KeyLedger

    async def rotation_policy(self, key: KeyId, *, now: datetime, afresh: bool = False) -> RotationPolicy | None:
        """Return a key's rotation policy."""
        return await self._ask(key, lambda: self.door.rotation_policy(key), now, afresh=afresh)

    async def is_deleted(self, key: KeyId, *, now: datetime, afresh: bool = False) -> bool | None:
        """Return whether a key of this name is soft-deleted."""
        return await self._ask(key, lambda: self.door.is_deleted(key), now, afresh=afresh)

    async def _ask[T](self, key: KeyId, ask: Callable[[], Awaitable[T]], now: datetime, *, afresh: bool) -> T | None:
        refused_at = await self.keys.refused_at(key.vault)
        refused = refused_at is not None and now - refused_at < REFUSAL_LASTS
        if refused and not afresh:
            return None
        try:
            told = await ask()
        except Missing:
            told = None
        except Unreadable as error:
            log.info("the vault %s does not let the app in, and is not asked for a day: %s", key.vault, error)
            await self.keys.remember_refusal(key.vault, error.code, now)
            return None
        except Transient as error:
            log.info("the vault %s gives no answer: %s", key.vault, error)
            return None
        if refused:
            await self.keys.forget_refusal(key.vault)
        return told
