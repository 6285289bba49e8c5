"""An operator's orders about rotations: rotate a key by hand, and take down that a cluster's secrets were rewritten.

    rotate:   read key --> who is not ready for it --> claim --> ask the vault --> log the version --> ask for a look
    confirm:  read cluster --> is what it has in effect --> note on each key that it uses or left --> ask for a look

What a crash leaves behind, and who picks it up:

    after the claim, before the vault was asked     nothing came of it: the claim ends after ten minutes
    after the vault rotated, before it was logged   the version's event, or the sweep; the claim ends with that
    half-way through a confirmation                 whoever confirms again goes on with the keys that are left
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import uuid4

from shared.aks import Aks
from shared.clusters import Cluster, ClusterId
from shared.errors import (
    Conflict,
    Declined,
    LostRace,
    Malformed,
    Missing,
    Refused,
    Throttled,
    Unavailable,
    Unclear,
    Unreadable,
)
from shared.events import OPERATOR, ClusterRequest, KeyRequest, RewriteOrder, RotateOrder
from shared.keyledger import KeyLedger
from shared.keyrecords import Detection, KnownKey, Rotation, RotationClaim, detected
from shared.keys import KeyId, KeyVersion
from shared.keyvault import KeyVault
from shared.ledger import Ledger
from shared.policy import Mode, PolicyInForce
from shared.queues import Queues
from shared.records import Activity, Record
from shared.rotation import Adoption, KeyUser, rewrite_counts_from, unready
from shared.telemetry import about, logger
from shared.vaultdoor import VaultDoor

log = logger(__name__)

_RACES = 5
_SHOWN = 100
"""So many clusters are named that keep a key from being rotated."""


@dataclass(frozen=True, slots=True)
class ConfirmedRewrite:
    """All secrets of a cluster were rewritten: who says so, when it was, and the keys for which it counts."""

    cluster: ClusterId
    by: str | None
    at: datetime
    keys: tuple[KeyId, ...]


@dataclass(frozen=True, slots=True)
class _Use:
    """A cluster's use of one key, and from when on a rewrite counts for it: None where none does yet."""

    key: KeyId
    user: KeyUser
    counts_from: datetime | None

    @property
    def matters(self) -> bool:
        """Whether anything hangs on a rewrite: AKS itself rewrites what a key without a version encrypts.

        That a cluster named versions of the same key before is no different from another key that it left.
        """
        return self.user.is_legacy or self.counts_from is not None

    @property
    def is_rewritten(self) -> bool:
        """Whether a rewrite that counts is confirmed."""
        at = self.user.rewritten_at
        return at is not None and self.counts_from is not None and at >= self.counts_from


@dataclass(frozen=True, slots=True)
class Rotator:
    """Carries out orders about rotations. Declined says why one is not; Unclear that nobody knows yet."""

    policy: PolicyInForce
    aks: Aks
    keyvault: KeyVault
    door: VaultDoor
    ledger: Ledger
    keys: KeyLedger
    queues: Queues

    # a rotation by hand

    async def rotate(self, key: KeyId, order: RotateOrder, *, now: datetime) -> Rotation | None:
        """Make a new version of a key and log it; None if the key is not known.

        Declined in audit, while a legacy cluster is not ready for it, while another order is being carried out, and
        where the vault does not let the app. Unclear if the vault gives no answer.
        """
        seen: KnownKey | None = None
        for _ in range(_RACES):
            known = await self._known(key, now)
            if known is None:
                return None
            if seen is not None and len(known.rotations) != len(seen.rotations):
                raise Declined("the key got a new version while it was to be rotated")
            await self._require_ready(known, now)
            claim = RotationClaim(uuid4().hex, now, len(known.rotations), order.by)
            with suppress(LostRace), about(key=key, askedBy=OPERATOR):
                await self.keys.claim_rotation(known, claim)
                return await self._rotate(known, claim, now)
            seen = known
        raise Unavailable("LostRace", f"the row of {key} keeps changing")

    async def _known(self, key: KeyId, now: datetime) -> KnownKey | None:
        """What is known of a key, with all versions that it has by now; None if it does not exist.

        What an event alone named is read too: whatever the vault shows of it counts, and else it may not be there.
        """
        known = await self.keys.key(key)
        if known.vault_id is None:
            if known.rotations:
                raise Declined("the app has never been able to read this key: let it read the vault, then sweep")
            return None
        have = {one.version for one in known.versions if not one.is_only_named}
        try:
            read = await self.keyvault.versions(known.vault_id, key, but=have)
        except Missing:
            return None
        except Unreadable as error:
            raise Declined(f"the key's versions can't be read: {error}") from error
        if not read:
            return known
        await self.keys.add_rotations(detected(known, read, None, None, now))
        await self._ask_for(known)
        shown = {one.version: one for one in read}
        logged = await self.keys.key(key)
        rotations = (replace(one, version=shown.get(one.version.version, one.version)) for one in logged.rotations)
        return replace(logged, rotations=tuple(rotations))

    async def _require_ready(self, known: KnownKey, now: datetime) -> None:
        if self.policy.faults:
            raise Declined("the policy document is broken, so nothing is written; GET /api/health names its faults")
        if self.policy.mode is not Mode.ENFORCE:
            raise Declined("the policy's mode is audit, so nothing is written: rotate with another tool, or enforce")
        if known.claim is not None and known.is_being_rotated(now):
            by = f" by {known.claim.by}" if known.claim.by else ""
            raise Declined(f"the key is being rotated{by} since {known.claim.at:%Y-%m-%dT%H:%M:%SZ}")
        users, adoptions = await self.keys.users(known.key), await self.keys.adoptions(known.key)
        waiting = unready(users, adoptions, known.versions)
        if waiting:
            because = [(str(cluster), why) for cluster, why in waiting[:_SHOWN]]
            raise Declined(f"{len(waiting)} legacy cluster(s) would fall behind by two versions", because)

    async def _rotate(self, known: KnownKey, claim: RotationClaim, now: datetime) -> Rotation:
        """Ask the vault. Who asked is taken down before: a crash must not lose it."""
        await self._note_rotation(known.key, claim, "asked")
        try:
            version = await self.door.rotate(known.key)
        except (Refused, Conflict, Unreadable, Throttled) as error:
            await self._withdraw(known, claim)
            await self._note_rotation(known.key, claim, "refused", detail=str(error))
            raise Declined(_refused(error)) from error
        except Unavailable as error:
            log.warning("%s: no clear answer to its rotation: %s", known.key, error)
            await self._note_rotation(known.key, claim, "unclear", detail=str(error))
            await self._ask_for(known)
            raise Unclear(
                "the vault gave no answer, so the key may have been rotated or not. A look at it is asked for; until "
                "that finds a new version, or for ten minutes, the key is not rotated again. A vault that is closed "
                "to the app's network never answers: rotate its keys with another tool"
            ) from error
        log.info("%s: version %s was made by an operator's order", known.key, version.version)
        return await self._log(known, claim, version, now)

    async def _log(self, known: KnownKey, claim: RotationClaim, version: KeyVersion, now: datetime) -> Rotation:
        rotation = Rotation(known.key, version, Detection.ORDER, now)
        await self.keys.add_rotations([rotation])
        await self._note_rotation(known.key, claim, "done", version=version.version)
        await self._ask_for(known)
        return rotation

    async def _withdraw(self, known: KnownKey, claim: RotationClaim) -> None:
        """Take a claim back of which nothing came. One that changes hands meanwhile ends by itself."""
        read = await self.keys.key(known.key)
        if read.claim == claim:
            with suppress(LostRace):
                await self.keys.claim_rotation(read, None)

    async def _note_rotation(self, key: KeyId, claim: RotationClaim, outcome: str, **more: str) -> None:
        said = {"askedBy": OPERATOR, "by": claim.by, "outcome": outcome, **more}
        await self.ledger.note(Activity(key, claim.intent, claim.at, "rotated", said))

    async def _ask_for(self, known: KnownKey) -> None:
        await self.queues.ask_for_key(KeyRequest(known.key, OPERATOR, known.vault_id))

    # a rewrite, confirmed

    async def confirm(self, cluster_id: ClusterId, order: RewriteOrder, *, now: datetime) -> ConfirmedRewrite | None:
        """Take down that all secrets of a cluster were rewritten; None if the cluster is not known.

        Confirmed since its last update already, nothing is written, and the answer is the one that counts. Malformed
        for a time to come. Declined while its update is not in effect, and where nothing hangs on a rewrite.
        """
        if order.at is not None and order.at > now:
            raise Malformed("at lies in the future")
        for _ in range(_RACES):
            record = await self.ledger.cluster(cluster_id)
            if record is None:
                return None
            with suppress(LostRace), about(cluster=cluster_id, askedBy=OPERATOR):
                return await self._confirm(record, order, now)
        raise Unavailable("LostRace", f"the rows of {cluster_id} keep changing")

    async def _confirm(self, record: Record, order: RewriteOrder, now: datetime) -> ConfirmedRewrite:
        await self._require_in_effect(record)
        uses = [use for use in await self._uses(record) if use.matters]
        if not uses:
            raise Declined("nothing hangs on a rewrite: the cluster has no legacy KMS, and it has left no key")
        if any(use.counts_from is None for use in uses):
            raise await self._not_seen(record)
        at = _counted(uses, order.at, now)
        keys = tuple(use.key for use in uses)
        if all(use.is_rewritten for use in uses):
            newest = max(uses, key=lambda use: use.user.rewritten_at or at).user
            return ConfirmedRewrite(record.cluster_id, newest.rewritten_by, newest.rewritten_at or at, keys)
        said = {"askedBy": OPERATOR, "by": order.by, "rewrittenAt": at}
        line = f"reencrypted|{int(at.timestamp() * 1000)}"
        await self.ledger.note(Activity(record.cluster_id, line, now, "reencrypted", said))
        for use in uses:
            await self.keys.rewritten(use.key, record.cluster_id, use.user.resource_uid, by=order.by, at=at)
        for key in keys:
            await self.queues.ask_for_key(KeyRequest(key, OPERATOR))
        log.info("%s: its secrets are said to be rewritten since %s", record.cluster_id, at)
        return ConfirmedRewrite(record.cluster_id, order.by, at, keys)

    async def _require_in_effect(self, record: Record) -> None:
        """A rewrite counts for what encrypts at that moment. ARM shows what is asked for long before it encrypts."""
        cluster = await self.aks.get(record.cluster_id)
        if cluster is None:
            raise Declined("Azure does not show the cluster any more")
        if not (cluster.settled and cluster.succeeded):
            state = cluster.provisioning_state
            raise Declined(
                f"the cluster is {state}, so its update is not in effect: rewrite its secrets once it is Succeeded"
            )
        if not _is_looked_at(record, cluster):
            raise await self._not_seen(record)

    async def _not_seen(self, record: Record) -> Declined:
        """What is known of the cluster is older than its last update: let the app look, so that another try holds."""
        await self.queues.ask_for_cluster(ClusterRequest(record.cluster_id, OPERATOR))
        return Declined("the app has not seen the cluster's last update in effect: a look is asked for, then try again")

    async def _uses(self, record: Record) -> list[_Use]:
        """The cluster's uses of keys: of the one that it has now, and of those that it left."""
        uid = record.resource_uid or "-"
        keys = [key for key in dict.fromkeys((record.named_key, *record.past_keys)) if key is not None]
        users = [(key, await self.keys.user(key, record.cluster_id, uid)) for key in keys]
        return [await self._use(key, user) for key, user in users if user is not None]

    async def _use(self, key: KeyId, user: KeyUser) -> _Use:
        return _Use(key, user, rewrite_counts_from(user, await self._adoptions_of(key, user)))

    async def _adoptions_of(self, key: KeyId, user: KeyUser) -> list[Adoption]:
        """What the user took up; of one that names a version, of that version alone: that is all that counts."""
        if user.version is None:
            return await self.keys.adoptions(key)
        adoption = await self.keys.adoption(key, user.version, user.cluster, user.resource_uid)
        return [adoption] if adoption is not None else []


def _counted(uses: list[_Use], at: datetime | None, now: datetime) -> datetime:
    """Return when the rewrite was, if it counts for all of these; Declined with why if it does not.

    When a cluster began to leave a key is known, not when that was in effect: only a version that it names now has
    such a time, and that is the later one.
    """
    if at is None:
        return now
    in_effect = [use.counts_from for use in uses if use.user.ended_at is None and use.counts_from is not None]
    if not in_effect:
        raise Declined("when the cluster's last update took effect is not known: rewrite again, and leave out at")
    since = max(use.counts_from for use in uses if use.counts_from is not None)
    if at < since:
        raise Declined(
            f"the app has seen the cluster's last update in effect since {since:%Y-%m-%dT%H:%M:%SZ}: a rewrite before "
            "that is not known to count"
        )
    return at


def _is_looked_at(record: Record, cluster: Cluster) -> bool:
    """Return whether the row says of the cluster's keys what the cluster says."""
    same = cluster.resource_uid in {None, record.resource_uid} and record.encryption == cluster.encryption
    return same and record.closed_at is None


def _refused(error: Refused | Conflict | Unreadable | Throttled) -> str:
    if isinstance(error, Throttled):
        return f"the vault asks to come back in {int(error.retry_after.total_seconds())} seconds: {error}"
    return (
        "the vault does not let the app rotate: give the app's identity the data action "
        "Microsoft.KeyVault/vaults/keys/rotate/action on the key (Key Vault Crypto Officer has it), and a way through "
        f"the vault's firewall. It says: {error}"
    )
