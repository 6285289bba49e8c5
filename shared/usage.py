"""Keeps the record of which cluster uses which key, since when, and which version it names.

Written before the cluster's own row, which then sums it up: so no rotation misses a cluster whose row is there, and a
cluster about which nothing changed costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from shared.clusters import Cluster
from shared.events import KeyRequest
from shared.keyledger import KeyLedger
from shared.keys import KeyId, KeyVersion
from shared.policy import PolicyInForce
from shared.queues import Queues
from shared.records import Record
from shared.rotation import Adoption, KeyUser, Succession, expected, succession, user_of


@dataclass(frozen=True, slots=True)
class Books:
    """All that is remembered of a key and its users. Versions go from the oldest to the newest."""

    users: Sequence[KeyUser]
    adoptions: Sequence[Adoption]
    versions: Sequence[KeyVersion]


@dataclass(frozen=True, slots=True)
class Usage:
    """The users of keys, as looks at clusters find them."""

    policy: PolicyInForce
    keys: KeyLedger
    queues: Queues

    async def note(self, record: Record, cluster: Cluster, *, now: datetime) -> Record:
        """Remember what a cluster that was just read uses; return its row as it is to be. LostRace as the ledger says.

        What the cluster is to take up is remembered with it; a key that nobody looked at yet is asked for a look.
        """
        user = user_of(cluster, begun_before=record.encryption is None, now=now)
        key = cluster.encryption.key.key if user is not None and cluster.encryption.key is not None else None
        in_effect = cluster.succeeded and cluster.settled
        summed_up = _summed_up(key, user, in_effect=in_effect)
        if summed_up == record.use:
            return record
        past = await self._left(record, key, now)
        if key is not None and user is not None and await self.keys.use(key, user, in_effect=in_effect, now=now):
            await self._expect(key, user)
        return replace(record, use=summed_up, past_keys=past)

    async def succession(
        self, cluster: Cluster, *, now: datetime, shared: dict[KeyId, Books] | None = None
    ) -> Succession | None:
        """Return what may come after the version that a cluster names; None if it names none, or nothing is known.

        `shared` keeps what was read of a key for the other clusters of a sweep that use it.
        """
        reference = cluster.encryption.key
        if reference is None or reference.version is None:
            return None
        books = (shared or {}).get(reference.key) or await self._books(reference.key)
        if shared is not None:
            shared[reference.key] = books
        uid = cluster.resource_uid or "-"
        mine = next((one for one in books.users if (one.cluster, one.resource_uid) == (cluster.id, uid)), None)
        if mine is None or not books.versions:
            return None
        return succession(replace(mine, version=reference.version), books.adoptions, books.versions, now)

    async def _books(self, key: KeyId) -> Books:
        users, adoptions = await self.keys.users(key), await self.keys.adoptions(key)
        return Books(users, adoptions, (await self.keys.key(key)).versions)

    async def mend(self, key: KeyId, users: Iterable[tuple[KeyUser, bool]], *, now: datetime) -> None:
        """Add the users of a key that the ledger lacks though their rows are there: a rotation would miss them.

        Each comes with whether its cluster's last operation ended well: else no rewrite would ever count for it.
        """
        known = {(user.cluster, user.resource_uid) for user in await self.keys.users(key)}
        for user, in_effect in users:
            if (user.cluster, user.resource_uid) not in known:
                await self.keys.use(key, user, in_effect=in_effect, now=now)

    async def close(self, record: Record, *, now: datetime) -> None:
        """Remember that a cluster is gone: it needs no key any more."""
        current = _key_of(record)
        for key in {*record.past_keys, *([current] if current is not None else [])}:
            await self.keys.end_use(key, record.cluster_id, record.resource_uid or "-", gone=True, now=now)

    async def _expect(self, key: KeyId, user: KeyUser) -> None:
        """Remember which versions of its key a new user is to take up.

        Its own row is written by now: whoever logs the key's first versions at this moment finds it.
        """
        known = await self.keys.key(key)
        if not known.rotations:
            await self.queues.ask_for_key(KeyRequest(key, asked_by=f"cluster:{user.cluster}"))
            return
        dated = [(one.version, one.detected_at) for one in known.rotations]
        await self.keys.adopt(key, expected([user], (), dated, timedelta(hours=self.policy.keys.adoption_hours)))

    async def _left(self, record: Record, key: KeyId | None, now: datetime) -> tuple[KeyId, ...]:
        """End the use of the key that was used until now, if it is another one; return all that were left."""
        before = _key_of(record)
        if before is None or before == key:
            return record.past_keys
        await self.keys.end_use(before, record.cluster_id, record.resource_uid or "-", gone=False, now=now)
        return tuple(dict.fromkeys((*record.past_keys, before)))


def _key_of(record: Record) -> KeyId | None:
    encryption = record.encryption
    return encryption.key.key if encryption is not None and encryption.kms_enabled and encryption.key else None


def _summed_up(key: KeyId | None, user: KeyUser | None, *, in_effect: bool) -> str:
    """One line that changes whenever there is something new to remember."""
    if key is None or user is None:
        return "none"
    parts = (key, user.resource_uid, user.version, user.network_access, user.principal, in_effect)
    return "|".join(map(str, parts))
