"""One key: gather its versions, compare with the ledger, record what rotated, tell who uses it. Safe to repeat.

A key whose vault can't be read is logged all the same, from the event alone: a rotation that was announced is never
lost. Its baseline is taken by the first look that can read the vault.
"""

from __future__ import annotations

import logging
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from datetime import datetime

from shared.aks import Aks
from shared.errors import Throttled, Unreadable
from shared.events import ClusterRequest, KeyRequest
from shared.keydata import KeyData
from shared.keys import Key, KeyVersion, VaultId
from shared.keyvault import KeyVault
from shared.ledger import Ledger
from shared.prerequisites import risk_of
from shared.queues import Queues
from shared.reasons import Reason
from shared.recorder import Recorder
from shared.records import Activity, KnownKey, Rotation, detected

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Inspector:
    """Looks at one key at a time. `subscriptions` are where a vault is looked for; empty means all readable ones."""

    aks: Aks
    keyvault: KeyVault
    keydata: KeyData
    ledger: Ledger
    recorder: Recorder
    queues: Queues
    subscriptions: tuple[str, ...]

    async def inspect(self, request: KeyRequest, *, now: datetime) -> tuple[Rotation, ...]:
        """Log the key's new versions, each once, and ask for a look at every cluster that uses the key.

        Returns the versions that were told on. Raises Unavailable where Azure or storage gives no answer.
        """
        known = await self.ledger.key(request.key)
        try:
            await self._log_versions(known, request, now)
            logged = await self.ledger.key(request.key)
            await self._look_at_key(logged, request, now)
            return await self._fan_out(logged, request, now)
        except Throttled as error:
            log.info("%s: Azure asks to come back in %s", request.key, error.retry_after)
            await self.queues.ask_for_key(request, after=error.retry_after)
            return ()

    async def give_up(self, request: KeyRequest, *, now: datetime) -> None:
        """Record that a message failed too often. What was announced is logged all the same, for the sweep to tell."""
        await self.ledger.add_rotations(self._detected(await self.ledger.key(request.key), (), request, now))
        said = {
            "askedBy": request.asked_by,
            "version": request.version,
            "detail": "a look at the key failed five times in a row",
        }
        await self.ledger.note(Activity(request.key, "poisoned", now, "failure", said))

    async def _log_versions(self, known: KnownKey, request: KeyRequest, now: datetime) -> None:
        vault = await self._vault(known, request)
        have = {rotation.version.version for rotation in known.rotations}
        versions = await self._unknown_versions(vault, request, have, now) if vault else None
        await self.ledger.add_rotations(self._detected(known, versions or (), request, now))
        if vault is not None and versions is not None and known.vault_id is None:
            await self.ledger.first_seen(request.key, vault, now)

    def _detected(
        self, known: KnownKey, versions: tuple[KeyVersion, ...], request: KeyRequest, now: datetime
    ) -> tuple[Rotation, ...]:
        event_id = request.asked_by.removeprefix("event:") if request.version else None
        return detected(known, versions, request.version, event_id, now)

    async def _vault(self, known: KnownKey, request: KeyRequest) -> VaultId | None:
        if request.vault or known.vault_id:
            return request.vault or known.vault_id
        subscriptions = self.subscriptions or tuple(await self.aks.subscriptions())
        found = await self.keyvault.find(request.key.vault, subscriptions)
        if found is None:
            log.warning("%s: no readable subscription shows this vault", request.key)
        return found

    async def _unknown_versions(
        self, vault: VaultId, request: KeyRequest, have: AbstractSet[str], now: datetime
    ) -> tuple[KeyVersion, ...] | None:
        """Read the versions that the ledger has not; None where the app may not read them."""
        try:
            return await self.keyvault.unknown_versions(vault, request.key, have)
        except Unreadable as error:
            log.warning("%s: its versions can't be read: %s", request.key, error)
            said = {"askedBy": request.asked_by, "code": error.code, "detail": error.text}
            await self.ledger.note(Activity(request.key, request.version or "unreadable", now, "unreadable", said))
            return None

    async def _look_at_key(self, known: KnownKey, request: KeyRequest, now: datetime) -> None:
        """Look at the key besides its versions: what keeps its users from it, and when it rotates by itself."""
        if known.vault_id is None:
            return
        try:
            key = await self.keyvault.key(known.vault_id, request.key.name)
        except Unreadable:
            return
        policy = await self.keydata.rotation_policy(request.key, now=now) or known.rotation_policy
        risk = await self._risk(request, key, now)
        changes = known.risk_changes + (risk != known.risk)
        seen = replace(known, risk=risk, risk_changes=changes, rotation_policy=policy)
        if seen == known:
            return
        if seen.risk != known.risk:
            users = [user async for user in self.ledger.key_users(request.key)]
            if not await self.recorder.tell_of_risk(seen, len(users)):
                seen = replace(seen, risk=known.risk, risk_changes=known.risk_changes)
        await self.ledger.remember_key_state(seen)

    async def _risk(self, request: KeyRequest, key: Key | None, now: datetime) -> Reason | None:
        risk = risk_of(key, now)
        if risk is Reason.KEY_MISSING and await self.keydata.is_deleted(request.key, now=now):
            return Reason.KEY_DELETED
        return risk

    async def _fan_out(self, logged: KnownKey, request: KeyRequest, now: datetime) -> tuple[Rotation, ...]:
        """Tell every user of the key of each version that was not told yet; a crash half-way is continued here."""
        told = tuple(one for one in logged.rotations if one.fanned_out_at is None)
        if not told:
            return ()
        async for cluster_id in self.ledger.key_users(request.key):
            await self.queues.ask_for_cluster(ClusterRequest(cluster_id, asked_by=f"key:{request.key}"))
        for rotation in told:
            if not await self.recorder.tell_of_rotation(rotation):
                continue
            await self.ledger.fanned_out(rotation, now)
            log.info("%s: version %s was detected by %s", request.key, rotation.version.version, rotation.how)
        return told
