"""The fleet: what no event announced. Lists, decides without a closer look, and enqueues what needs one.

    start --> one message a subscription --> sweep: list page by page, decide, record or enqueue --> count

A cluster whose row says already what the list says costs no write. What is absent from a list is looked at, never
closed: absence proves nothing.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum

from shared.aks import Aks
from shared.calls import some_at_once
from shared.clusters import Cluster, ClusterId
from shared.decisions import Decision, Facts, changes_something, decide, held_back, vault_of, would_write
from shared.errors import EnforcerError, LostRace, Malformed, Throttled, Unreadable
from shared.events import OPERATOR, ClusterRequest, KeyRequest, Scope, ShardRequest
from shared.keys import KeyId, VaultId
from shared.ledger import Ledger
from shared.pauses import Pauses
from shared.policy import Assignment, Mode, PolicyInForce
from shared.queues import SHARDS, Queues
from shared.reasons import Action, Reason
from shared.recorder import Recorder
from shared.records import Matched, Record, Run, Shard, is_held_back, is_overdue, is_pending, overdue_by
from shared.rotation import KeyUser, user_of
from shared.telemetry import Line, about, about_request, logger, saying
from shared.usage import Books, Usage, keys_of

log = logger(__name__)

_AT_ONCE = 16
_EXEMPTED_SHOWN = 10

EVERYTHING = Scope()


class Attention(StrEnum):
    """What a listed cluster needs."""

    LOOK = "look"
    """A message: it is to be written, waited for, or looked at again."""
    ROW = "row"
    """Its row, if that says anything new."""


@dataclass(slots=True)
class _Tally:
    """What a shard has found so far."""

    seen: set[ClusterId] = field(default_factory=set)
    keys: dict[KeyId, VaultId | None] = field(default_factory=dict)
    users: defaultdict[KeyId, list[tuple[KeyUser, bool]]] = field(default_factory=lambda: defaultdict(list))
    books: dict[KeyId, Books] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    key_management: Counter[str] = field(default_factory=Counter)
    overdue: tuple[timedelta, ...] = ()
    enqueued: int = 0
    paused: bool | None = None
    asking: asyncio.Lock = field(default_factory=asyncio.Lock)
    exempted: defaultdict[str, set[ClusterId]] = field(default_factory=lambda: defaultdict(set))

    def matched(self, exemption: str) -> Matched:
        """How many clusters an exemption matched, and the first of them in alphabetical order."""
        clusters = self.exempted[exemption]
        return Matched(len(clusters), tuple(sorted(clusters)[:_EXEMPTED_SHOWN]))


@dataclass(frozen=True, slots=True)
class Sweeper:
    """Passes over the fleet. `subscriptions` are what is swept; empty means all that are readable."""

    policy: PolicyInForce
    aks: Aks
    ledger: Ledger
    recorder: Recorder
    usage: Usage
    pauses: Pauses
    queues: Queues
    subscriptions: tuple[str, ...]

    async def start(
        self, run_id: str, *, asked_by: str, now: datetime, scope: Scope = EVERYTHING, mode: Mode | None = None
    ) -> Run:
        """Start a run: one message a subscription. `scope` narrows it, `mode` lowers what the policy allows.

        Malformed if it names a subscription that is not swept: a run that silently leaves one out proves nothing.
        A pause that could not be told is told here.
        """
        swept = self.subscriptions or tuple(await self.aks.subscriptions())
        if not swept:
            log.warning("the app can read no subscription, so nothing is swept")
        strangers = sorted(scope.named_subscriptions - set(swept))
        if strangers:
            raise Malformed(f"subscription {strangers[0]} is not one that this app sweeps: see SUBSCRIPTIONS")
        shards = [subscription for subscription in swept if scope.touches(subscription)]
        if not shards and scope != EVERYTHING:
            raise Malformed("no subscription is in this scope: a cluster must lie in one that the scope names")
        await self.pauses.tell(await self.ledger.enforcement())
        run = Run(run_id, asked_by, now, mode, len(shards), scope.view())
        await self.ledger.start_run(run)
        if scope == EVERYTHING:
            await self.ledger.remember_sweep(run_id)
        requests = (ShardRequest(run_id, subscription, asked_by, mode, scope) for subscription in shards)
        await some_at_once(self.queues.ask_for_shard, requests, _AT_ONCE)
        if scope == EVERYTHING:
            for key, vault in self.policy.named_keys().items():
                await self.queues.ask_for_key(KeyRequest(key, asked_by, vault, run=run_id))
        started = saying(Line.RUN_STARTED, everything=scope == EVERYTHING, mode=mode, subscriptions=len(shards))
        log.info("the run %s has %s subscriptions", run_id, len(shards), extra=started)
        return run

    @about_request
    async def sweep(self, request: ShardRequest, *, now: datetime) -> Shard | None:
        """Sweep one subscription; None if Azure asked to come back later. Swept again, it ends the same."""
        tally = _Tally()
        failure = None
        try:
            await self._sweep(request, tally, now)
        except Throttled as error:
            log.info("%s: Azure asks to come back in %s", request.subscription, error.retry_after)
            await self.queues.ask_for_shard(request, after=error.retry_after)
            return None
        except Unreadable as error:
            log.warning("%s: the subscription can't be read: %s", request.subscription, error)
            failure = str(error)
        exempted = {exemption: tally.matched(exemption) for exemption in self.policy.exemption_ids()}
        counts, oldest = dict(tally.counts), max(tally.overdue, default=None)
        seen, enqueued = len(tally.seen), tally.enqueued
        shard = Shard(request.subscription, now, seen, enqueued, counts, failure, exempted, oldest)
        await self.ledger.finish_shard(request.run, shard)
        _log_shard(shard, tally, request.scope)
        await self._log_end(request.run)
        return shard

    @about_request
    async def give_up(self, request: ShardRequest, *, now: datetime) -> None:
        """Record that a shard's message failed too often, so that its run ends."""
        failure = "the sweep of this subscription failed five times in a row"
        log.error("%s: %s", request.subscription, failure, extra=saying(Line.POISONED, queue=SHARDS))
        shard = Shard(request.subscription, now, 0, 0, {}, failure)
        await self.ledger.finish_shard(request.run, shard)
        _log_shard(shard, _Tally(), request.scope)
        await self._log_end(request.run)

    async def _log_end(self, run_id: str) -> None:
        """Sum up a run whose last subscription is done. What can't be read now fails no sweep."""
        try:
            found = await self.ledger.run(run_id) if await self.ledger.is_done(run_id) else None
            if found is None:
                return
            paused = (await self.ledger.enforcement()).paused
            queues = await self.queues.lengths()
        except EnforcerError as error:
            log.warning("the end of the run %s can't be summed up: %s", run_id, error)
            return
        _log_run(*found, queues, paused=paused, policy_faults=len(self.policy.faults))

    async def _sweep(self, request: ShardRequest, tally: _Tally, now: datetime) -> None:
        records = await self.ledger.clusters(request.subscription)
        meant_rows = [record for record in records.values() if request.scope.holds(record.cluster_id)]
        tally.overdue = tuple(late for record in meant_rows if (late := overdue_by(record, now)) is not None)
        async with aclosing(self.aks.pages(request.subscription)) as pages:
            async for page in pages:
                meant = [cluster for cluster in page if request.scope.holds(cluster.id)]
                await self._sweep_page(meant, records, request, tally, now)
        for cluster_id in self._absent(records, request.scope, tally, now):
            await self._enqueue(cluster_id, request, tally)
        for key, vault in tally.keys.items():
            for cluster_id in await self.usage.mend(key, tally.users[key], now=now):
                await self._note_afresh(cluster_id, request, tally)
            await self.queues.ask_for_key(KeyRequest(key, request.asked_by, vault, run=request.run))

    async def _sweep_page(
        self,
        page: Iterable[Cluster],
        records: dict[ClusterId, Record],
        request: ShardRequest,
        tally: _Tally,
        now: datetime,
    ) -> None:
        async def one(cluster: Cluster) -> None:
            record = records.get(cluster.id) or Record(cluster.id)
            with about(cluster=cluster.id):
                await self._sweep_cluster(cluster, record, request, tally, now)

        await some_at_once(one, page, _AT_ONCE)

    async def _sweep_cluster(
        self, cluster: Cluster, record: Record, request: ShardRequest, tally: _Tally, now: datetime
    ) -> None:
        assignment = self.policy.assignment(cluster, now).lowered_to(request.mode)
        by_an_operator = request.asked_by == OPERATOR
        decision = await self._decide(cluster, record, assignment, tally, now, by_an_operator=by_an_operator)
        tally.seen.add(record.cluster_id)
        tally.counts[f"{decision.action}:{decision.reason}"] += 1
        tally.key_management[cluster.encryption.key_management] += 1
        for exemption in self.policy.exemptions_of(cluster):
            tally.exempted[exemption].add(cluster.id)
        self._remember_keys(cluster, assignment, tally, now)
        for key in keys_of(record):  # secrets may still lie on one that it left
            tally.keys.setdefault(key, None)
        otherwise = request.mode is not Mode.AUDIT and _is_held_back_otherwise(record, decision)
        if otherwise or _attention(cluster, record, decision, assignment.mode, now) is Attention.LOOK:
            await self._enqueue(cluster.id, request, tally)
            return
        if record.claim is not None or is_pending(record, now):
            return
        try:
            noted = await self.usage.note(record, cluster, now=now)
            looked = noted.after_looking(cluster, assignment, decision, now=now)
            await self.recorder.record(record, looked, asked_by=request.asked_by, now=now)
        except LostRace:
            log.info("%s: somebody else has just looked at it", cluster.id)

    async def _decide(
        self,
        cluster: Cluster,
        record: Record,
        assignment: Assignment,
        tally: _Tally,
        now: datetime,
        *,
        by_an_operator: bool,
    ) -> Decision:
        """Decide on what a list shows. What was refused is tried again at once where an operator asks.

        A row that is held back was looked at closely already: while it stays held back, another look finds no more.
        """
        afresh = by_an_operator and assignment.mode is Mode.ENFORCE
        known = record.after_mending() if afresh else record
        facts = Facts(
            cluster,
            record.waiting,
            known.refusal,
            set_back=record.set_back_by(now),
            succession=await self.usage.succession(cluster, now=now, shared=tally.books),
            rewrite=record.rewrite_of(cluster),
        )
        decision = decide(facts, assignment, now)
        closer = decision.action is Action.LOOK_CLOSER and is_held_back(record)
        if assignment.mode is not Mode.ENFORCE or not (closer or would_write(decision)):
            return decision
        facts = replace(facts, paused=await self._is_paused(tally))
        if not closer:
            return decide(facts, assignment, now)
        held = held_back(Decision(Action.WRITE, record.reasons[1:]), facts, assignment)
        return held if held.action is Action.WAIT else decision

    async def _is_paused(self, tally: _Tally) -> bool:
        """Whether enforcement is paused, read once a shard and only if anything would be written."""
        async with tally.asking:
            if tally.paused is None:
                tally.paused = (await self.ledger.enforcement()).paused
        return tally.paused

    def _absent(self, records: dict[ClusterId, Record], scope: Scope, tally: _Tally, now: datetime) -> list[ClusterId]:
        """Return the clusters that are known and meant, but were not listed."""
        unseen = [record for record in records.values() if record.cluster_id not in tally.seen]
        due = [one for one in unseen if is_held_back(one) or not is_pending(one, now)]
        open_ones = [one for one in due if one.closed_at is None]
        return [one.cluster_id for one in open_ones if scope.holds(one.cluster_id)]

    async def _note_afresh(self, cluster_id: ClusterId, request: ShardRequest, tally: _Tally) -> None:
        """Let the next look at a cluster note its use of keys, whatever its row says of it."""
        record = await self.ledger.cluster(cluster_id)
        if record is None or record.use is None:
            return
        with suppress(LostRace):  # whoever was first has noted it, or the next sweep finds it again
            await self.ledger.write(replace(record, use=None))
        await self._enqueue(cluster_id, request, tally)

    async def _enqueue(self, cluster_id: ClusterId, request: ShardRequest, tally: _Tally) -> None:
        tally.enqueued += 1
        await self.queues.ask_for_cluster(
            ClusterRequest(cluster_id, request.asked_by, mode=request.mode, run=request.run)
        )

    def _remember_keys(self, cluster: Cluster, assignment: Assignment, tally: _Tally, now: datetime) -> None:
        """Remember the key that a cluster uses and the one that its target names, each with its vault's id if known."""
        asked, target = vault_of(cluster, assignment), assignment.target
        if asked is not None and target is not None and target.key is not None:
            tally.keys[KeyId(asked.name, target.key.lower())] = asked
        reference, vault_id = cluster.encryption.key, cluster.encryption.vault_id
        if reference is not None:
            named = _vault(vault_id, reference.key) if vault_id else None
            own = asked if asked is not None and asked.name == reference.key.vault else None
            tally.keys[reference.key] = tally.keys.get(reference.key) or named or own
        user = user_of(cluster, begun_before=True, now=now)
        if reference is not None and user is not None:
            tally.users[reference.key].append((user, cluster.succeeded and cluster.settled))


def _attention(cluster: Cluster, record: Record, decision: Decision, mode: Mode, now: datetime) -> Attention:
    """A pending wait has its own look coming; a cluster created anew under its name is read afresh.

    So is one without an eTag: nobody states that a list shows it.
    """
    if record.resource_uid and cluster.resource_uid and record.resource_uid != cluster.resource_uid:
        return Attention.LOOK
    if is_overdue(record, now):
        return Attention.LOOK
    if is_pending(record, now):
        return Attention.ROW
    if decision.action in {Action.WAIT, Action.LOOK_CLOSER} or decision.reason is Reason.NO_ETAG:
        return Attention.LOOK
    return Attention.LOOK if changes_something(decision.action) and mode is Mode.ENFORCE else Attention.ROW


def _log_shard(shard: Shard, tally: _Tally, scope: Scope) -> None:
    swept = saying(
        Line.SHARD_SWEPT,
        everything=scope == EVERYTHING,
        clusters=shard.clusters,
        enqueued=shard.enqueued,
        decisions=shard.counts,
        keyManagement=dict(tally.key_management),
        overdue=len(tally.overdue),
        oldestOverdueSeconds=_seconds(shard.oldest_overdue),
        failure=shard.failure,
    )
    log.info("%s: %s clusters swept, %s to look at", shard.subscription, shard.clusters, shard.enqueued, extra=swept)


def _log_run(
    run: Run, shards: tuple[Shard, ...], queues: Mapping[str, int], *, paused: bool, policy_faults: int
) -> None:
    decisions: Counter[str] = Counter()
    for shard in shards:
        decisions.update(shard.counts)
    clusters = sum(shard.clusters for shard in shards)
    ended = saying(
        Line.RUN_ENDED,
        run=run.id,
        everything=not run.scope,
        subscriptions=len(shards),
        clusters=clusters,
        enqueued=sum(shard.enqueued for shard in shards),
        decisions=dict(decisions),
        oldestOverdueSeconds=max(_seconds(shard.oldest_overdue) for shard in shards),
        failures=sum(shard.failure is not None for shard in shards),
        queues=queues,
        paused=paused,
        policyFaults=policy_faults,
    )
    log.info("the run %s is done: %s clusters in %s subscriptions", run.id, clusters, len(shards), extra=ended)


def _seconds(late: timedelta | None) -> int:
    return int(late.total_seconds()) if late is not None else 0


def _is_held_back_otherwise(record: Record, decision: Decision) -> bool:
    """Return whether a row that is held back is so no longer, or for another reason, or for less time.

    Its own look may be days away, and an operator who resumes does not want to wait for it.
    """
    if record.waiting is None or not is_held_back(record):
        return False
    sooner = decision.look_again is not None and decision.look_again < record.waiting.look_again_at
    return sooner or decision.reason is not record.waiting.reason


def _vault(resource_id: str, key: KeyId) -> VaultId | None:
    """The vault that a cluster names, if it can be read and is the key's own."""
    try:
        vault = VaultId.parse(resource_id)
    except Malformed:
        return None
    return vault if vault.name == key.vault else None
