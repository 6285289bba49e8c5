"""Keeps the record of which cluster uses which key, since when, and which version it names.

Written before the cluster's own row, which then sums it up: so no rotation misses a cluster whose row is there, and a
cluster about which nothing changed costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from shared.clusters import Cluster, ClusterId, Encryption
from shared.events import KeyRequest
from shared.keyledger import KeyLedger
from shared.keys import KeyId, KeyReference, KeyVersion, VaultId
from shared.policy import PolicyInForce
from shared.queues import Queues
from shared.records import Record
from shared.rotation import Adoption, How, KeyUser, Standing, Succession, Why, expected, needs, succession, user_of

_STILL_READ = frozenset({Why.PREVIOUS_SLOT, Why.NOT_REWRITTEN, Why.NOT_LEFT, Why.IN_USE})
"""Why a cluster needs a version that is not the one that it names, or that its key stands for."""


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
        if key is not None and user is not None and await self.keys.use(key, user, in_effect=in_effect, now=now):
            await self._expect(key, user, now)
        past = _past(record, key)
        if in_effect:
            await self._leave(past, record, cluster, now)
        return replace(record, use=summed_up, past_keys=past)

    async def note_passed(self, record: Record, cluster: Cluster, named: Encryption, *, now: datetime) -> Record:
        """Remember that an update of ours may have let a cluster name this, whatever it names by now.

        Secrets may have been written with it. So if somebody was faster to take it back than a look was to see it, only
        a rewrite from now on counts.
        """
        return await self.note(record, replace(cluster, encryption=named, provisioning_state="Updating"), now=now)

    async def succession(
        self, cluster: Cluster, *, now: datetime, shared: dict[KeyId, Books] | None = None
    ) -> Succession | None:
        """Return what may come after the version that a cluster names; None if it names none, or nothing is known.

        `shared` keeps what was read of a key for the other clusters of a sweep that use it; a look by itself reads what
        is known of this one alone, for two thousand may use the key.
        """
        reference = cluster.encryption.key
        if reference is None or reference.version is None:
            return None
        uid = cluster.resource_uid or "-"
        if shared is None:
            books = await self._books_of(reference, cluster.id, uid)
        else:
            books = shared[reference.key] = shared.get(reference.key) or await self._books(reference.key)
        mine = next((one for one in books.users if (one.cluster, one.resource_uid) == (cluster.id, uid)), None)
        if mine is None or not books.versions:
            return None
        return succession(_naming(mine, reference), books.adoptions, books.versions, now)

    async def needed_by(self, cluster: Cluster, past: Iterable[KeyId], *, now: datetime) -> tuple[KeyReference, ...]:
        """Return what a cluster may read its secrets with: what it names, and the versions that it has not left yet.

        Of a legacy cluster those of the keys that it had before, too. As far as is known: nobody knows what it used
        before it was first seen. What an event alone named is expected to be taken up, and may never have been there.
        """
        reference, uid = cluster.encryption.key, cluster.resource_uid or "-"
        if reference is None:
            return ()
        books = await self._books_of(reference, cluster.id, uid)
        known = {reference.key: replace(books, users=[_naming(one, reference) for one in books.users])}
        if reference.version is not None:
            known |= {key: await self._books_of(KeyReference(key, None), cluster.id, uid) for key in past}
        before = [KeyReference(key, version) for key, of_it in known.items() for version in _still_read(of_it, now)]
        return (reference, *(one for one in before if one != reference))

    async def vault_of(self, key: KeyId) -> VaultId | None:
        """Return where a key lies; None if the app has never been able to read it."""
        return (await self.keys.key(key)).vault_id

    async def _books(self, key: KeyId) -> Books:
        users, adoptions = await self.keys.users(key), await self.keys.adoptions(key)
        return Books(users, adoptions, (await self.keys.key(key)).versions)

    async def _books_of(self, named: KeyReference, cluster: ClusterId, uid: str) -> Books:
        """The same, but of one cluster alone."""
        user, versions = await self.keys.user(named.key, cluster, uid), (await self.keys.key(named.key)).versions
        names = dict.fromkeys(one for one in (named.version, *(version.version for version in versions)) if one)
        adoptions = [await self.keys.adoption(named.key, name, cluster, uid) for name in names]
        return Books([user] if user else [], [one for one in adoptions if one is not None], versions)

    async def mend(self, key: KeyId, users: Iterable[tuple[KeyUser, bool]], *, now: datetime) -> list[ClusterId]:
        """Add the users of a key that the ledger lacks though their rows are there: a rotation would miss them.

        Each with whether what it names is in effect. Returns those that the ledger knows otherwise: somebody read
        them earlier and wrote later. They are to be read and noted afresh.
        """
        known = {(user.cluster, user.resource_uid): user for user in await self.keys.users(key)}
        amiss = []
        for user, in_effect in users:
            have = known.get((user.cluster, user.resource_uid))
            if have is None:
                await self.keys.use(key, user, in_effect=in_effect, now=now)
            elif in_effect and (have.ended_at is not None or have.version != user.version):
                amiss.append(user.cluster)
        return amiss

    async def close(self, record: Record, *, now: datetime) -> None:
        """Remember that a cluster is gone: it needs no key any more."""
        for key in keys_of(record):
            await self.keys.end_use(key, record.cluster_id, record.resource_uid or "-", to=None, now=now)

    async def _expect(self, key: KeyId, user: KeyUser, now: datetime) -> None:
        """Remember which versions of its key a new user is to take up.

        Its own row is written by now: whoever logs the key's first versions at this moment finds it. So of a fleet
        that is seen for the first time, one cluster asks for a look at its key and not each. A version that it named
        while it had legacy KMS stays as it was: secrets may still be written with it.
        """
        known = await self.keys.key(key)
        if not known.rotations:
            if await self.keys.asks_first(key, now):
                await self.queues.ask_for_key(KeyRequest(key, asked_by=f"cluster:{user.cluster}"))
            return
        dated = [(one.version, one.detected_at) for one in known.rotations]
        found = expected([user], (), dated, timedelta(hours=self.policy.keys.adoption_hours))
        before = [await self.keys.adoption(key, one.version, one.cluster, one.resource_uid) for one in found]
        named = {one.version for one in before if one is not None and one.how is How.UPDATED}
        await self.keys.adopt(key, [one for one in found if one.version not in named])

    async def _leave(self, past: Iterable[KeyId], record: Record, cluster: Cluster, now: datetime) -> None:
        """End the use of the keys that were used until now.

        Only once the update that did so has ended well: its document shows the moment that it is sent, and one that
        fails leaves the cluster with what it had.
        """
        to = cluster.encryption.key_management
        for key in past:
            await self.keys.end_use(key, record.cluster_id, record.resource_uid or "-", to=to, now=now)


def _still_read(books: Books, now: datetime) -> list[str]:
    """The versions of a key that its one user may still read secrets with, beside the one that it names."""
    if not books.users:
        return []
    (mine,) = books.users
    only_named = {one.version for one in books.versions if one.is_only_named}
    taken_up = {one.version for one in books.adoptions if one.how is not How.EXPECTED or one.version not in only_named}
    order = [one.version for one in books.versions]
    found = needs(mine, books.adoptions, books.versions, order, now)
    needed = {version: need for version, need in found.items() if need.standing is Standing.NEEDED}
    return [version for version, need in needed.items() if version in taken_up and need.why in _STILL_READ]


def keys_of(record: Record) -> tuple[KeyId, ...]:
    """Return the keys that a cluster is known to have used, the one that its row names last."""
    return tuple(key for key in dict.fromkeys((*record.past_keys, record.named_key)) if key is not None)


def _naming(known: KeyUser, reference: KeyReference) -> KeyUser:
    """Return a cluster as its document has it.

    Where the ledger knows it with another version, or with none, it named that in between: no rewrite is known to be
    newer.
    """
    if known.version == reference.version and known.ended_at is None:
        return known
    return replace(known, version=reference.version, rewritten_at=None)


def _past(record: Record, key: KeyId | None) -> tuple[KeyId, ...]:
    """The keys that a cluster has used, or is still using until its update has ended, but for the one it names now."""
    return tuple(one for one in keys_of(record) if one != key)


def _summed_up(key: KeyId | None, user: KeyUser | None, *, in_effect: bool) -> str:
    """One line that changes whenever there is something new to remember."""
    if key is None or user is None:
        return "none" if in_effect else "none|False"
    parts = (key, user.resource_uid, user.version, user.network_access, user.principal, in_effect)
    return "|".join(map(str, parts))
