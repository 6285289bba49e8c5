"""One cluster, one step closer to its target: gather, decide, claim, apply, record. Safe to repeat.

    message --> read row --> read cluster --> settle an open claim --> decide --+--> record
                   |                                                            +--> wait: row, then one message
              stale: end                                                        `--> write: claim, message, PUT, record

What a crash leaves behind, and who picks it up: docs/architecture.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import uuid4

from shared.aks import Aks
from shared.clusters import Cluster, ClusterId, IdentityKind
from shared.decisions import (
    HELD_BACK,
    OPERATION_DEADLINE,
    Change,
    Decision,
    Facts,
    Refusal,
    Waiting,
    decide,
    is_propagating,
    reason_of,
    subject_of,
    under_way,
    vault_of,
    wait_of,
    within_deadline,
    would_write,
)
from shared.errors import Conflict, LostRace, Refused, ServiceError, Throttled, Transient, Unavailable, Unreadable
from shared.events import ClusterRequest
from shared.keys import KeyId
from shared.keysinuse import KeysInUse
from shared.ledger import Ledger
from shared.pauses import Pauses
from shared.policy import OWN, Assignment, Mode, PolicyInForce
from shared.preparations import Preparation
from shared.preparer import Preparer
from shared.prerequisites import Prerequisites
from shared.queues import CLUSTERS, LONGEST_DELAY, Queues
from shared.reasons import Action, Reason, Subject, fix, fix_in_use
from shared.recorder import Recorder
from shared.records import (
    Activity,
    Claim,
    Enforcement,
    Record,
    Settlement,
    is_held_back,
    is_pending,
    is_stale,
    is_to_be_sent,
    rewrite_after,
    settlement_of_change,
    settlement_of_preparation,
    settlement_of_reencryption,
)
from shared.reencryption import Reencryption
from shared.rewriter import Rewriter, end_of
from shared.rights import CODES, missing_rights
from shared.surveyor import Surveyor
from shared.telemetry import Line, about_request, logger, saying
from shared.usage import Usage

log = logger(__name__)

_RACES = 5
_PROPAGATION_STEPS = 5
"""A grant is waited for in longer steps: each of them costs Azure a write that it refuses."""


@dataclass(frozen=True, slots=True)
class Reconciler:
    """Looks at one cluster at a time. `look_again` is how long a wait lasts that names no time of its own."""

    policy: PolicyInForce
    aks: Aks
    surveyor: Surveyor
    preparer: Preparer
    rewriter: Rewriter
    ledger: Ledger
    recorder: Recorder
    pauses: Pauses
    usage: Usage
    keys_in_use: KeysInUse
    queues: Queues
    look_again: timedelta

    @about_request
    async def reconcile(self, request: ClusterRequest, *, now: datetime) -> Record | None:
        """Bring one cluster one step closer to its target; return its row, None if there was nothing to look at.

        Raises Unavailable where storage or Azure gives no answer: the message comes back.
        """
        for _ in range(_RACES):
            try:
                return await self._look(request, now)
            except LostRace:
                log.info("look again at %s: its row was changed meanwhile", request.cluster)
        raise Unavailable("LostRace", f"the row of {request.cluster} keeps changing")

    @about_request
    async def give_up(self, request: ClusterRequest, *, now: datetime) -> None:
        """Record that a message failed too often. The sweep starts the cluster afresh."""
        poisoned = saying(Line.POISONED, queue=CLUSTERS)
        log.error("looks at %s failed five times in a row", request.cluster, extra=poisoned)
        record = await self.ledger.cluster(request.cluster) or Record(request.cluster)
        await self._report(Reason.POISONED, record, request, now=now)

    async def resume(self, cluster_id: ClusterId, *, asked_by: str, now: datetime) -> Record | None:
        """Let a contested cluster be written again, what was refused be tried again, and a rewrite that failed begin
        anew; None if it is not known.
        """
        record = await self.ledger.cluster(cluster_id)
        if record is None:
            return None
        anew = replace(record, set_back=(), enforced_at=None, refusal=None, reader_refused=None, rewrite=None)
        resumed = await self.ledger.write(anew)
        await self.ledger.note(Activity(cluster_id, uuid4().hex, now, "resumed", {"askedBy": asked_by}))
        await self.queues.ask_for_cluster(ClusterRequest(cluster_id, asked_by))
        return resumed

    async def _look(self, request: ClusterRequest, now: datetime) -> Record | None:
        record = await self.ledger.cluster(request.cluster)
        waiting = record.waiting if record is not None else None
        if waiting is not None and is_to_be_sent(waiting, message=request.id, token=request.token, now=now):
            await self._send_for(waiting, request, now=now)
            return record
        if is_stale(request.token, record):
            return record
        return await self._look_at(record or Record(request.cluster), request, now)

    async def _look_at(self, record: Record, request: ClusterRequest, now: datetime) -> Record | None:
        try:
            cluster = await self.aks.get(request.cluster)
        except Throttled as error:
            return await self._wait(Reason.THROTTLED, record, record, request, now=now, after=error.retry_after)
        except Unreadable as error:
            return await self._report(Reason.UNREADABLE, record, request, now=now, detail=str(error))
        if cluster is None:
            return await self._missing(record, request, now=now)
        try:
            record = await self._settled(record, cluster, now=now)
        except Throttled as error:
            return await self._wait(Reason.THROTTLED, record, record, request, now=now, after=error.retry_after)
        return await self._decide(cluster, record, request, now=now)

    async def _settled(self, record: Record, cluster: Cluster, *, now: datetime) -> Record:
        """Settle an open claim before anything is decided, and begin anew with a cluster that was created anew.

        How an update ended is counted first. After a crash it is counted again, which counts once.
        """
        if record.claim is not None:
            record = await self._settled_claim(record, record.claim, cluster, now=now)
        if record.resource_uid and cluster.resource_uid and record.resource_uid != cluster.resource_uid:
            await self.usage.close(record, now=now)
            await self.ledger.archive(record, now)
            record = Record(record.cluster_id, version=record.version)
        return record

    async def _settled_claim(self, record: Record, claim: Claim, cluster: Cluster, *, now: datetime) -> Record:
        change = claim.change
        if isinstance(change, Reencryption):
            return await self._settled_step(record, claim, change, cluster, now=now)
        what = await self._settlement(claim, change, cluster, now)
        if what is None:
            return record
        refusal = await self._refusal_after(record, cluster, claim, what, now)
        if isinstance(change, Change):
            stop_after = self.policy.limits.stop_after_failures
            await self.pauses.count(record.cluster_id, claim.intent, what, stop_after=stop_after, now=now)
            if change.rotates and what is not Settlement.GONE and cluster.etag != change.etag:
                record = await self.usage.note_passed(record, cluster, change.after, now=now)
        return await self.ledger.settle(record, what, now=now, refusal=refusal)

    async def _settled_step(
        self, record: Record, claim: Claim, step: Reencryption, cluster: Cluster, *, now: datetime
    ) -> Record:
        """Settle a step of a rewrite. What the last one confirms is remembered before its claim is cleared."""
        ran = await self.rewriter.ran(cluster.id, step, claim.operation)
        what = settlement_of_reencryption(claim, step, cluster, ran, now=now, patience=self.look_again)
        if what is None:
            return record
        rewrite = rewrite_after(record, claim, step, what, ran, now=now)
        if rewrite is not None and rewrite.is_over:
            await self.rewriter.confirm(cluster.id, rewrite, record.past_keys)
        never_started = what is Settlement.WITHDRAWN and claim.operation is None
        refusal = await self._refusal_after(record, cluster, claim, what, now) if never_started else None
        log.info("%s: step %s of %s of the rewrite is %s", record.cluster_id, step.chunk, step.chunks, what)
        settled, found = replace(record, rewrite=rewrite), end_of(step, ran, what)
        return await self.ledger.settle(settled, what, now=now, refusal=refusal, found=found)

    async def _settlement(
        self, claim: Claim, change: Change | Preparation, cluster: Cluster, now: datetime
    ) -> Settlement | None:
        if isinstance(change, Change):
            return settlement_of_change(claim, change, cluster, now=now, patience=self.look_again)
        in_place = await self.preparer.is_in_place(change, now=now)
        return settlement_of_preparation(claim, in_place, now=now, patience=self.look_again)

    async def _decide(self, cluster: Cluster, record: Record, request: ClusterRequest, *, now: datetime) -> Record:
        assignment = self.policy.assignment(cluster, now).lowered_to(request.mode)
        noted = await self.usage.note(record, cluster, now=now)
        seen = noted.after_reading(cluster).after_assigning(assignment)
        if record.claim is not None:
            waits_for = wait_of(record.claim.change)
            return await self._wait(waits_for, record, seen, request, now=now, after=self.look_again)
        seen = self._tried_anew(replace(seen, rewrite=record.rewrite_of(cluster)), request, assignment)
        facts = await self._facts(cluster, seen, now)
        try:
            facts, decision = await self._look_closer(facts, assignment, now, afresh=request.by_an_operator)
            decision, about = await self._look_at_keys_in_use(cluster, seen.past_keys, decision, assignment, now)
        except Throttled as error:
            return await self._wait(Reason.THROTTLED, record, seen, request, now=now, after=error.retry_after)
        if assignment.mode is Mode.ENFORCE and would_write(decision):
            return await self._enforce(facts, assignment, record, seen, request, now=now)
        if decision.action is Action.WAIT:
            after = decision.look_again - now if decision.look_again else self.look_again
            return await self._wait(decision.reason, record, seen, request, now=now, after=after)
        looked = seen.after_looking(cluster, assignment, decision, now=now)
        if about is not None:
            looked = replace(looked, fix=fix_in_use(decision.reason, about))
        if decision.reason is Reason.CONTESTED:
            looked = replace(looked, set_back=facts.set_back)
        return await self.recorder.record(record, looked, asked_by=request.asked_by, now=now)

    def _tried_anew(self, seen: Record, request: ClusterRequest, assignment: Assignment) -> Record:
        """Let what an operator asks for be tried at once: what was mended a moment ago is to be seen."""
        if not request.by_an_operator:
            return seen
        if request.run is None:
            self.surveyor.forget()
        return seen.after_mending() if assignment.mode is Mode.ENFORCE else seen

    async def _facts(self, cluster: Cluster, seen: Record, now: datetime) -> Facts:
        """What a decision may look at before a closer look."""
        succession = await self.usage.succession(cluster, now=now)
        return Facts(
            cluster,
            seen.waiting,
            seen.refusal,
            set_back=seen.set_back_by(now, succession),
            succession=succession,
            rewrite=seen.rewrite,
            reader_refused=seen.reader_refused,
        )

    async def _look_at_keys_in_use(
        self, cluster: Cluster, past: Sequence[KeyId], decision: Decision, assignment: Assignment, now: datetime
    ) -> tuple[Decision, Subject | None]:
        """Report what can't be used instead of writing, and what the fix is about: the key in use, not the target."""
        if decision.action not in {Action.ENSURE, Action.WRITE} or assignment.mode is not Mode.ENFORCE:
            return decision, None
        found = await self.keys_in_use.unfit(cluster, past, decision, now=now)
        if found is None:
            return decision, None
        rotates = isinstance(decision.change, Change) and decision.change.rotates
        reasons = (found.reason, *((Reason.ROTATION_DUE,) if rotates else decision.reasons))
        if found.reason is Reason.PROPAGATING:
            later = now + self.look_again * _PROPAGATION_STEPS
            return replace(decision, action=Action.WAIT, reasons=reasons, look_again=later), None
        key, principal = found.key, cluster.identity.principal
        subject = Subject(cluster.id, vault=found.vault, key=key.key.name, principal=principal, version=key.version)
        return replace(decision, action=Action.REPORT, reasons=reasons), subject

    async def _look_closer(
        self, facts: Facts, assignment: Assignment, now: datetime, *, afresh: bool
    ) -> tuple[Facts, Decision]:
        """Decide; look at the prerequisites if the decision needs it, and once more before one is put in place."""
        decision = decide(facts, assignment, now)
        if decision.reason is Reason.ROTATION_UNKNOWN:
            return facts, replace(decision, action=Action.WAIT)  # the key was asked for a look when it was first seen
        if decision.action is Action.LOOK_CLOSER:
            facts = replace(facts, prerequisites=await self._survey(facts.cluster, assignment, now, afresh=afresh))
            decision = decide(facts, assignment, now)
        if decision.action is Action.ENSURE and assignment.mode is Mode.ENFORCE:
            self.surveyor.forget()
            facts = replace(facts, prerequisites=await self._survey(facts.cluster, assignment, now, afresh=afresh))
            decision = decide(facts, assignment, now)
        return facts, decision

    async def _enforce(
        self,
        facts: Facts,
        assignment: Assignment,
        record: Record,
        seen: Record,
        request: ClusterRequest,
        *,
        now: datetime,
    ) -> Record:
        """Make the write that is decided, unless Azure, an operator or a window wants none of this cluster now.

        The pause is read last, right before the claim: no look that starts after it writes.
        """
        put_off = _put_off(record, now)
        if record.waiting is not None and put_off:
            return await self._wait(record.waiting.reason, record, seen, request, now=now, after=put_off)
        enforcement = await self.ledger.enforcement()
        decision = decide(replace(facts, paused=enforcement.paused), assignment, now)
        if decision.reason in HELD_BACK:
            looked = seen.after_looking(facts.cluster, assignment, decision, now=now)
            return await self._hold_back(decision, enforcement, record, looked, request, now=now)
        young, seen = is_propagating(facts.prerequisites, now), replace(seen, set_back=facts.set_back)
        return await self._write(facts.cluster, decision, record, seen, request, young_grant=young, now=now)

    async def _survey(self, cluster: Cluster, assignment: Assignment, now: datetime, *, afresh: bool) -> Prerequisites:
        """Look at what the target needs. A system-assigned identity is not asked about: it will be the target's."""
        target, vault = assignment.target, vault_of(cluster, assignment)
        if target is None or target.key is None or vault is None:
            raise AssertionError("only a target with a vault and a key is surveyed")
        identity = cluster.identity
        changes = identity.kind is IdentityKind.SYSTEM_ASSIGNED and target.identity != OWN
        return await self.surveyor.survey(
            vault,
            target.key,
            principal=identity.principal if identity.resource_id else None,
            identity=target.identity if changes else None,
            subscription=cluster.id.subscription,
            now=now,
            afresh=afresh,
        )

    async def _write(
        self,
        cluster: Cluster,
        decision: Decision,
        record: Record,
        seen: Record,
        request: ClusterRequest,
        *,
        young_grant: bool,
        now: datetime,
    ) -> Record:
        """Claim, send for the look that will settle it, then write. Without a claim there is no PUT."""
        change = decision.change
        if change is None:
            raise AssertionError("a write names its change")
        claim = Claim(uuid4().hex, change, request.asked_by, cluster.resource_uid, claimed_at=now)
        wait = under_way(decision)
        updating = seen.after_deciding(wait, now=now)
        waiting = _waiting(None, wait.reason, request, now=now, until=now + self.look_again)
        claimed = await self.ledger.claim(
            updating, claim, waiting, limits=self.policy.limits, in_flight=self._is_in_flight
        )
        if claimed is None:
            return await self._wait(Reason.LIMIT_REACHED, record, seen, request, now=now, after=self.look_again)
        if claimed.claim is None:
            return await self._wait(
                Reason.LIMIT_REACHED, claimed, claimed, request, now=now, after=self.look_again, earlier=record.waiting
            )
        await self._send_for(waiting, request, now=now)
        return await self._put(
            cluster, claimed, claim, request, earlier=record.waiting, young_grant=young_grant, now=now
        )

    async def _put(
        self,
        cluster: Cluster,
        record: Record,
        claim: Claim,
        request: ClusterRequest,
        *,
        earlier: Waiting | None,
        young_grant: bool,
        now: datetime,
    ) -> Record:
        """Send the claimed write. What gets no clear answer stays claimed: the look that was sent for settles it.

        A throttled one goes on with the `earlier` wait, so that its deadline is counted from the first refusal.
        """
        try:
            operation = await self._send(cluster, claim.change)
        except Throttled as error:
            settled = await self.ledger.settle(record, Settlement.WITHDRAWN, now=now)
            record = replace(settled, waiting=earlier)
            return await self._wait(Reason.THROTTLED, record, record, request, now=now, after=error.retry_after)
        except Refused as error:
            if young_grant and reason_of(error) is Reason.ACCESS_REFUSED:
                settled = await self.ledger.settle(record, Settlement.WITHDRAWN, now=now)
                record, after = replace(settled, waiting=earlier), self.look_again * _PROPAGATION_STEPS
                return await self._wait(Reason.PROPAGATING, record, record, request, now=now, after=after)
            refusal = _refusal(reason_of(error), error, record, cluster.etag or "", now)
            settled = await self.ledger.settle(record, Settlement.REFUSED, now=now, refusal=refusal)
            if claim.optional:
                return settled  # the look that was sent for goes on without it
            record = replace(settled, change=None)  # as the looks to come will say it: what was asked is in the line
            subject = subject_of(cluster, self.policy.assignment(cluster, now))
            return await self._report(refusal.reason, record, request, now=now, detail=str(error), subject=subject)
        except (Conflict, Unavailable, Unreadable) as error:
            log.warning("%s: no clear answer to the write: %s", record.cluster_id, error)
            return record
        return await self._accept(record, claim, operation, now=now)

    async def _accept(self, record: Record, claim: Claim, operation: str | None, *, now: datetime) -> Record:
        """Record that Azure took the write; once more where another look wrote the row meanwhile.

        That look may have settled the claim. A command that is not recorded would be started once more.
        """
        with suppress(LostRace):
            return await self.ledger.accept(record, operation, now=now)
        newer = await self.ledger.cluster(record.cluster_id)
        if newer is None or newer.claim is None or newer.claim.intent != claim.intent:
            return record
        with suppress(LostRace):
            return await self.ledger.accept(newer, operation, now=now)
        return record

    async def _send(self, cluster: Cluster, change: Change | Preparation | Reencryption) -> str | None:
        if isinstance(change, Change):
            return await self.aks.put(cluster, change)
        if isinstance(change, Reencryption):
            return await self.rewriter.start(cluster, change)
        try:
            await self.preparer.prepare(change)
        except Unreadable as error:
            if error.code not in CODES:
                raise
            raise Refused(error.code, error.text) from error  # what may not be read before is not written
        return None

    async def _refusal_after(
        self, record: Record, cluster: Cluster, claim: Claim, what: Settlement, now: datetime
    ) -> Refusal | None:
        """What a settled claim leaves behind: why its operation failed, or since when writes have been in vain."""
        if cluster.etag is None:
            return None
        if what is Settlement.FAILED:
            failure = await self._failure(claim, now)
            state = cluster.provisioning_state if isinstance(claim.change, Change) else "NotInPlace"
            code, text = failure or (state, "Azure gives no reason")
            return _refusal(Reason.FAILED, Refused(code, text), record, cluster.etag, now)
        if what is Settlement.WITHDRAWN:
            arrived = Conflict("Withdrawn", "the update did not arrive")
            return _refusal(Reason.CONFLICT, arrived, record, cluster.etag, now)
        return None

    async def _failure(self, claim: Claim, now: datetime) -> tuple[str, str] | None:
        """Return the code and text with which a claimed write failed; None if nobody can tell.

        Nor can anybody once its deadline has passed and Azure still gives no answer: the claim must not stay for ever.
        """
        if claim.operation is None:
            return None
        try:
            return await self.aks.failure(claim.operation)
        except Transient as error:
            if now - claim.claimed_at < OPERATION_DEADLINE:
                raise
            log.warning("%s: Azure does not say why it failed: %s", claim.intent, error)
            return None

    async def _missing(self, record: Record, request: ClusterRequest, *, now: datetime) -> Record | None:
        """A cluster that Azure does not show: known before, so it is gone; just written, so it may still come."""
        if _may_still_come(record, request, now):
            return await self._wait(Reason.NOT_VISIBLE, record, record, request, now=now, after=self.look_again)
        if record.version is None:
            return None
        if record.claim is not None:
            record = await self.ledger.settle(record, Settlement.GONE, now=now)
        await self.usage.close(record, now=now)
        gone = record.after_deciding(Decision(Action.NOTHING, (Reason.GONE,)), now=now)
        gone = replace(gone, closed_at=record.closed_at or now)
        return await self.recorder.record(record, gone, asked_by=request.asked_by, now=now)

    async def _report(
        self,
        reason: Reason,
        record: Record,
        request: ClusterRequest,
        *,
        now: datetime,
        detail: str | None = None,
        subject: Subject | None = None,
    ) -> Record:
        """Report something that is known without another look; `subject` is what its fix speaks of."""
        decision = Decision(Action.REPORT, (reason,), record.change)
        about = replace(subject or Subject(record.cluster_id), rights=missing_rights(detail or ""))
        decided = replace(record.after_deciding(decision, now=now, detail=detail), fix=fix(reason, about))
        return await self.recorder.record(record, decided, asked_by=request.asked_by, now=now)

    async def _wait(
        self,
        reason: Reason,
        record: Record,
        seen: Record,
        request: ClusterRequest,
        *,
        now: datetime,
        after: timedelta,
        earlier: Waiting | None = None,
    ) -> Record:
        """Wait for something that passes by itself. Past its deadline, report it."""
        waiting = _waiting(record.waiting or earlier, reason, request, now=now, until=now + after)
        reasons = record.reasons if record.reasons[:1] == (reason,) else (reason,)
        decision = within_deadline(Decision(Action.WAIT, reasons, record.change), waiting, now)
        decided = seen.after_deciding(decision, now=now)
        if decision.action is not Action.WAIT:
            decided = replace(decided, fix=fix(decision.reason, Subject(record.cluster_id)))
            return await self.recorder.record(record, decided, asked_by=request.asked_by, now=now)
        return await self._wait_until(waiting, record, decided, request, now=now)

    async def _hold_back(
        self,
        decision: Decision,
        enforcement: Enforcement,
        record: Record,
        looked: Record,
        request: ClusterRequest,
        *,
        now: datetime,
    ) -> Record:
        """Let a write wait that may not be made now. The row says what would be done, and why it is not."""
        if decision.reason is Reason.PAUSED:
            looked = replace(looked, detail=f"by {enforcement.because}")
        until = decision.look_again or now + LONGEST_DELAY
        waiting = _waiting(record.waiting, decision.reason, request, now=now, until=until)
        return await self._wait_until(waiting, record, looked, request, now=now)

    async def _wait_until(
        self, waiting: Waiting, record: Record, decided: Record, request: ClusterRequest, *, now: datetime
    ) -> Record:
        """Put a wait into the row, and send its one message once the row is won.

        An event or a sweep always looks, but never starts a second chain beside one whose message is still to come.
        """
        if record.waiting is not None and _joins(record, waiting, request, now):
            joined = replace(record.waiting, reason=waiting.reason, since=waiting.since)
            return await self.recorder.record(
                record, replace(decided, waiting=joined), asked_by=request.asked_by, now=now
            )
        waits = replace(decided, waiting=waiting)
        written = await self.recorder.record(record, waits, asked_by=request.asked_by, now=now)
        await self._send_for(waiting, request, now=now)
        return written

    async def _send_for(self, waiting: Waiting, request: ClusterRequest, *, now: datetime) -> None:
        after = min(waiting.look_again_at - now, LONGEST_DELAY)
        await self.queues.ask_for_cluster(request.again(waiting.token), after=after)

    async def _is_in_flight(self, cluster_id: ClusterId) -> bool | None:
        try:
            cluster = await self.aks.get(cluster_id)
        except (Throttled, Unreadable):
            return None
        return cluster is not None and not cluster.settled


def _may_still_come(record: Record, request: ClusterRequest, now: datetime) -> bool:
    """Return whether a cluster that Azure does not show was written after all that is known of it."""
    if record.resource_id is None:
        return request.since is not None or is_pending(record, now)
    return record.closed_at is not None and request.since is not None and request.since > record.closed_at


def _put_off(record: Record, now: datetime) -> timedelta:
    """How long Azure still wants no write of this cluster, whoever asks for one."""
    waiting = record.waiting
    if waiting is None or waiting.reason not in {Reason.THROTTLED, Reason.PROPAGATING}:
        return timedelta()
    return max(waiting.look_again_at - now, timedelta())


def _joins(record: Record, waiting: Waiting, request: ClusterRequest, now: datetime) -> bool:
    """Return whether a wait joins the chain that is there. A write that Azure puts off must not come back earlier.

    What was held back may have to look again days from now: a wait that is shorter gets a chain of its own.
    """
    if request.token is not None or record.waiting is None or not is_pending(record, now):
        return False
    if is_held_back(record) and record.waiting.look_again_at > waiting.look_again_at:
        return False
    return waiting.reason not in {Reason.THROTTLED, Reason.PROPAGATING} or record.reasons[:1] == (waiting.reason,)


def _waiting(
    earlier: Waiting | None, reason: Reason, request: ClusterRequest, *, now: datetime, until: datetime
) -> Waiting:
    """A wait's next look. It lasts since its reason first held; for a cluster not seen yet, since it was written."""
    begun = min(request.since or now, now) if reason is Reason.NOT_VISIBLE else now
    since = earlier.since if earlier is not None and earlier.reason is reason else begun
    return Waiting(reason, since, until, token=uuid4().hex, set_by=request.id)


def _refusal(reason: Reason, error: ServiceError, record: Record, etag: str, now: datetime) -> Refusal:
    """What Azure did not take of what the row claims."""
    earlier = record.refusal
    rewriting = record.claim is not None and isinstance(record.claim.change, Reencryption)
    refusal = Refusal(reason, error.code, error.text, etag, at=now, since=now, rewriting=rewriting)
    if earlier is None or (earlier.reason, earlier.etag, earlier.rewriting) != (reason, etag, rewriting):
        return refusal
    return replace(refusal, since=earlier.since)
