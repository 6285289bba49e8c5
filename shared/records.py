"""What the ledger remembers of clusters and runs, as values, and how a look changes them. Pure: no I/O, no clock."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import datetime, timedelta
from enum import StrEnum
from operator import attrgetter
from typing import Any, Self

from shared.clusters import Cluster, ClusterId, Encryption
from shared.decisions import (
    BLOCKING,
    CONTEST,
    HELD_BACK,
    OPERATION_DEADLINE,
    Change,
    Decision,
    Refusal,
    Waiting,
    subject_of,
)
from shared.keys import KeyId
from shared.policy import Assignment, Mode
from shared.preparations import GrantRole, Preparation, is_in_use
from shared.reasons import Action, Fix, Reason, Subject, fix, fix_in_use
from shared.reencryption import COMMAND_DEADLINE, Ran, Reencryption, Rewrite, fault_of
from shared.rights import missing_rights
from shared.rotation import Succession

_OPERATION = re.compile(r"/(?:operations/([0-9a-f-]{36})|commandResults/(\w{1,64}))", re.IGNORECASE)

EARLY = timedelta(minutes=1)
"""A message that comes earlier than this is sent again for the rest of its time."""

OVERDUE_AFTER = timedelta(minutes=5)
"""A look that is later than this has lost its message: whoever sees that starts a new chain."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A write of ours, to a cluster, what it needs or its secrets: recorded before it is sent, settled by a later look.

    `intent` names it for good. `accepted_at` stays None when the reply never came; it may have arrived all the same.
    `operation` is the address at which Azure tells of it once it was accepted.
    """

    intent: str
    change: Change | Preparation | Reencryption
    asked_by: str
    resource_uid: str | None
    claimed_at: datetime
    accepted_at: datetime | None = None
    operation: str | None = None

    @property
    def optional(self) -> bool:
        """Whether the cluster is updated without it too."""
        return isinstance(self.change, GrantRole) and self.change.optional

    @property
    def operation_id(self) -> str | None:
        """The operation's own id. Its address is signed, so it stays in the claim and goes nowhere else."""
        match = _OPERATION.search(self.operation or "")
        return match[1] or match[2] if match else None


class Settlement(StrEnum):
    """What became of a claim."""

    DONE = "done"
    """The profile is as claimed and the operation succeeded."""
    FAILED = "failed"
    """The operation ended in a failure, or not in time."""
    WITHDRAWN = "withdrawn"
    """The write never arrived, or somebody else's came first."""
    REFUSED = "refused"
    """Azure answered no."""
    GONE = "gone"
    """The cluster was deleted or created anew meanwhile."""


_KEPT = 100
"""So many failures and settled claims are remembered: more can't be under way at the same time."""

_NAMED = 10


@dataclass(frozen=True, slots=True)
class FailedUpdate:
    """A claim whose operation failed or did not end in time."""

    intent: str
    cluster: ClusterId
    at: datetime


@dataclass(frozen=True, slots=True)
class Enforcement:
    """Whether anything may be written: what failed since the last success, and since when all is paused, by whom, why.

    A settlement that is repeated after a crash counts once: `settled` are the intents that were counted, the latest
    last. A success that no failure came before changes nothing and is not among them. `told` says that everybody
    was told of this pause. `version` is the row's ETag, None while there is none.
    """

    failures: tuple[FailedUpdate, ...] = ()
    settled: tuple[str, ...] = ()
    paused_since: datetime | None = None
    paused_by: str | None = None
    why: str | None = None
    told: bool = False
    version: str | None = None

    @property
    def paused(self) -> bool:
        """Whether nothing is written until somebody resumes."""
        return self.paused_since is not None

    @property
    def because(self) -> str | None:
        """Who paused and why, in words; None if nothing is paused."""
        return f"{self.paused_by}: {self.why or 'no reason was given'}" if self.paused else None

    def after_settling(
        self, intent: str, cluster: ClusterId, what: Settlement, *, stop_after: int, now: datetime
    ) -> Self:
        """Count how a claim ended: a failure adds up, a success begins anew. So many failures in a row pause.

        Other ends don't count. A refused write has harmed nothing and its cluster rests already; one that was
        withdrawn or whose cluster is gone says nothing about the next.
        """
        if intent in self.settled:
            return self
        settled = (*self.settled, intent)[-_KEPT:]
        if what is Settlement.DONE and self.failures:
            return replace(self, failures=(), settled=settled)
        if what is not Settlement.FAILED:
            return self
        failures = (*self.failures, FailedUpdate(intent, cluster, now))[-_KEPT:]
        counted = replace(self, failures=failures, settled=settled)
        if len(failures) < min(stop_after, _KEPT):
            return counted
        return counted.after_pausing(by=STOP_AFTER_FAILURES, why=_in_a_row(failures), now=now)

    def after_pausing(self, *, by: str, why: str | None, now: datetime) -> Self:
        """Pause. Paused already, it stays as it is: who was first and why."""
        return self if self.paused else replace(self, paused_since=now, paused_by=by, why=why, told=False)

    def after_resuming(self) -> Self:
        """Go on, and count failures from none."""
        return replace(self, failures=(), paused_since=None, paused_by=None, why=None, told=False)

    def after_telling(self, since: datetime) -> Self:
        """Remember that this pause was told; another one that began meanwhile was not."""
        return replace(self, told=True) if self.paused_since == since else self


STOP_AFTER_FAILURES = "stopAfterFailures"
"""Who pauses enforcement by itself: the policy's limit of this name."""


def _in_a_row(failures: tuple[FailedUpdate, ...]) -> str:
    names = [f"{one.cluster.group}/{one.cluster.name}" for one in failures]
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"updates that failed in a row: {', '.join(names[:_NAMED])}{more}"


@dataclass(frozen=True, slots=True)
class Record:
    """One cluster as the ledger knows it. Facts are None until the cluster was read once.

    `version` is the row's ETag, None while the row does not exist; it takes no part in comparisons, so that
    a look that finds nothing new writes nothing. `use` sums up what was remembered of its use of a key, `past_keys`
    are those that it used before. `rewrite` is how far the rewrite of its secrets is. `reader_refused` is why its
    identity has no second role, though the app was to grant it.
    """

    cluster_id: ClusterId
    version: str | None = None
    resource_id: str | None = None
    resource_uid: str | None = None
    location: str | None = None
    kubernetes: str | None = None
    encryption: Encryption | None = None
    target: str | None = None
    mode: Mode | None = None
    action: Action | None = None
    reasons: tuple[Reason, ...] = ()
    detail: str | None = None
    fix: Fix | None = None
    change: Change | Preparation | Reencryption | None = None
    decided_at: datetime | None = None
    claim: Claim | None = None
    waiting: Waiting | None = None
    refusal: Refusal | None = None
    enforced_at: datetime | None = None
    set_back: tuple[datetime, ...] = ()
    announced: str | None = None
    enforced_told: datetime | None = None
    closed_at: datetime | None = None
    use: str | None = None
    past_keys: tuple[KeyId, ...] = ()
    rewrite: Rewrite | None = None
    reader_refused: Refusal | None = None

    @property
    def named_key(self) -> KeyId | None:
        """The key that the cluster's document names; None where KMS is off, or its id can't be read."""
        reference = self.encryption.key if self.encryption is not None and self.encryption.kms_enabled else None
        return reference.key if reference is not None else None

    @property
    def enforced_untold(self) -> bool:
        """Whether the cluster is as asked by a write of ours that nobody was told of yet."""
        as_asked = self.action is Action.NOTHING and self.reasons == (Reason.AS_ASKED,)
        return as_asked and self.enforced_at is not None and self.enforced_at != self.enforced_told

    def says_the_same_as(self, other: Record) -> bool:
        """Return whether writing this over the other would change nothing that matters."""
        return _MATTERS(self) == _MATTERS(other)

    def decided_otherwise_than(self, other: Record) -> bool:
        """Return whether the decision itself differs: that is what the activity table keeps."""
        return (self.action, self.reasons, self.target, self.mode, self.encryption) != (
            other.action,
            other.reasons,
            other.target,
            other.mode,
            other.encryption,
        )

    def set_back_by(self, now: datetime, succession: Succession | None = None) -> tuple[datetime, ...]:
        """Return when the cluster was set back, if what is decided at this look is to enforce it once more.

        A legacy cluster is so if somebody took a version back, whoever had named it.
        """
        since = self.set_back[-1] if self.set_back else None
        undone = self.enforced_at is not None and (since is None or self.enforced_at > since)
        taken_back_at = succession.taken_back_at if succession is not None else None
        if taken_back_at is not None and (since is None or taken_back_at > since):
            return (*self.set_back, taken_back_at)[-CONTEST:]
        return (*self.set_back, now)[-CONTEST:] if undone else self.set_back

    def rewrite_of(self, cluster: Cluster) -> Rewrite | None:
        """Return how far the rewrite of the cluster's secrets is; None where it begins anew."""
        return self.rewrite if self.rewrite is not None and self.rewrite.is_for(cluster) else None

    def after_reading(self, cluster: Cluster) -> Self:
        """Take over what the cluster's document says."""
        return replace(self, **self._read(cluster))

    def after_assigning(self, assignment: Assignment) -> Self:
        """Take over what the policy asks."""
        return replace(self, **_asked(assignment))

    def after_deciding(self, decision: Decision, *, now: datetime, detail: str | None = None) -> Self:
        """Take over a decision. What no longer waits forgets its wait, unless it was given up: `since` must last."""
        return replace(self, **self._decided(decision, now, detail))

    def after_mending(self) -> Self:
        """Forget what Azure would not do: somebody may have given a right, or taken a lock or a policy away.

        What only passes by itself, a conflict, keeps its deadline.
        """
        blocked = self.refusal is not None and self.refusal.reason in BLOCKING
        return replace(self, refusal=None if blocked else self.refusal, reader_refused=None)

    def after_looking(self, cluster: Cluster, assignment: Assignment, decision: Decision, *, now: datetime) -> Self:
        """Take over a whole look: document, assignment, decision and what an operator can do about it.

        All at once: a sweep does this for each cluster of a fleet.
        """
        said = self._decided(decision, now, self._detail(assignment, decision))
        subject = subject_of(cluster, assignment)
        if said["detail"]:
            subject = replace(subject, rights=missing_rights(said["detail"]))
        said["fix"] = next(filter(None, (_fix(reason, cluster, subject) for reason in decision.reasons)), None)
        if decision.reason is Reason.CONTESTED:
            said["set_back"] = self.set_back_by(now)
        looked = replace(self, **self._read(cluster), **_asked(assignment), **said)
        if looked.announced is None or decision.action is not Action.NOTHING or looked.enforced_untold:
            return looked
        return replace(looked, announced=None)  # what went wrong is over: if it comes back, it is told again

    def _read(self, cluster: Cluster) -> dict[str, Any]:
        return {
            "resource_id": cluster.resource_id,
            "resource_uid": cluster.resource_uid or self.resource_uid,
            "location": cluster.location,
            "kubernetes": cluster.kubernetes_version,
            "encryption": cluster.encryption,
            "closed_at": None,
        }

    def _decided(self, decision: Decision, now: datetime, detail: str | None) -> dict[str, Any]:
        gave_up = decision.reason is Reason.WAITED_TOO_LONG
        return {
            "action": decision.action,
            "reasons": decision.reasons,
            "detail": detail or self._without_reader(decision),
            "fix": None,
            "change": decision.change,
            "decided_at": now,
            "waiting": self.waiting if gave_up or decision.action is Action.WAIT else None,
        }

    def _without_reader(self, decision: Decision) -> str | None:
        refused = self.reader_refused if Reason.READER_MISSING in decision.reasons else None
        return f"{refused.code}: {refused.text}" if refused is not None else None

    def _detail(self, assignment: Assignment, decision: Decision) -> str | None:
        if decision.reason is Reason.EXEMPT:
            return assignment.exempt_because
        if decision.reason is Reason.POLICY_BROKEN:
            return "; ".join(assignment.faults)[:1000]
        if decision.reason in {*BLOCKING, Reason.CONFLICT, Reason.FAILED} and self.refusal:
            return f"{self.refusal.code}: {self.refusal.text}"
        if decision.reason is Reason.REENCRYPTION_FAILED and self.rewrite is not None:
            return self.rewrite.said
        return None


def _asked(assignment: Assignment) -> dict[str, Any]:
    return {"target": assignment.target.name if assignment.target else None, "mode": assignment.mode}


_MATTERS = attrgetter(*(one.name for one in fields(Record) if one.name not in {"version", "decided_at"}))
"""All of a record but its version and when it was decided."""


def _fix(reason: Reason, cluster: Cluster, subject: Subject) -> Fix | None:
    """The fix for a cluster that was read: what it is encrypted with is recovered, and not made anew."""
    if reason not in {Reason.KEY_MISSING, Reason.VAULT_MISSING} or subject.vault is None or subject.key is None:
        return fix(reason, subject)
    in_use = is_in_use(reason, cluster, KeyId(subject.vault.name, subject.key.lower()))
    return fix_in_use(reason, subject) if in_use else fix(reason, subject)


def is_stale(token: str | None, record: Record | None) -> bool:
    """Return whether a message's token belongs to a wait that is over."""
    if token is None:
        return False
    return record is None or record.waiting is None or record.waiting.token != token


def is_to_be_sent(waiting: Waiting, *, message: str, token: str | None, now: datetime) -> bool:
    """Return whether all that a message calls for is to send the wait's message, once more or for the first time.

    The message that set the wait may have died before it sent; one that comes long before its time was delayed as long
    as a message can be.
    """
    return waiting.set_by == message or (waiting.token == token and waiting.look_again_at - now > EARLY)


def is_pending(record: Record, now: datetime) -> bool:
    """Return whether a message for this record's wait is still to come: nobody starts a second chain beside it."""
    return _waits(record) is not None and not is_overdue(record, now)


def is_overdue(record: Record, now: datetime) -> bool:
    """Return whether the record needs a look for which no message is under way any more."""
    if record.claim is not None and record.waiting is None:
        return True
    waiting = _waits(record)
    return waiting is not None and now >= waiting.look_again_at + OVERDUE_AFTER


def overdue_by(record: Record, now: datetime) -> timedelta | None:
    """Return how late the look is that a record needs and for which no message is under way; None if it needs none."""
    if not is_overdue(record, now):
        return None
    waiting = _waits(record)
    if waiting is not None:
        return now - waiting.look_again_at
    return now - record.claim.claimed_at if record.claim is not None else None


def _waits(record: Record) -> Waiting | None:
    """The wait that goes on; one that was given up is kept only for its `since`."""
    return record.waiting if record.action is Action.WAIT or record.claim is not None else None


def settlement_of_change(
    claim: Claim, change: Change, cluster: Cluster, *, now: datetime, patience: timedelta
) -> Settlement | None:
    """Tell from the cluster what became of a claimed change of it; None while that can't be told yet. Pure.

    The desired profile is visible while the operation runs, so only a settled cluster proves anything. An eTag
    that is still the one that was read shows that no write arrived, once the writer had `patience` to send it.
    Source: recorded traffic of the Azure CLI; AKS docs, use-etags.
    """
    if claim.resource_uid and cluster.resource_uid and claim.resource_uid != cluster.resource_uid:
        return Settlement.GONE
    waited = now - claim.claimed_at >= patience
    if cluster.etag == change.etag:
        return Settlement.WITHDRAWN if waited else None
    if cluster.etag is None and not waited:
        return None
    if not change.is_in(cluster):
        return Settlement.WITHDRAWN
    if cluster.settled:
        return Settlement.DONE if cluster.succeeded else Settlement.FAILED
    return Settlement.FAILED if now - claim.claimed_at >= OPERATION_DEADLINE else None


def settlement_of_preparation(
    claim: Claim, in_place: bool | None, *, now: datetime, patience: timedelta
) -> Settlement | None:
    """Tell what became of a claimed preparation; `in_place` None means that it is under way or can't be told. Pure."""
    if in_place is None:
        return Settlement.FAILED if now - claim.claimed_at >= OPERATION_DEADLINE else None
    if in_place:
        return Settlement.DONE
    return Settlement.WITHDRAWN if now - claim.claimed_at >= patience else None


def settlement_of_reencryption(
    claim: Claim, step: Reencryption, cluster: Cluster, ran: Ran | None, *, now: datetime, patience: timedelta
) -> Settlement | None:
    """Tell what became of a claimed step of a rewrite; `ran` None means that it runs or can't be told. Pure.

    A cluster that changed meanwhile begins its rewrite anew, whatever the step came to. So does a step that nobody can
    ask about: its start was never recorded, and rewriting twice harms nobody.
    """
    if claim.resource_uid and cluster.resource_uid and claim.resource_uid != cluster.resource_uid:
        return Settlement.GONE
    if not step.is_for(cluster):
        return Settlement.WITHDRAWN
    if claim.operation is None:
        return Settlement.WITHDRAWN if now - claim.claimed_at >= patience else None
    if ran is None:
        return Settlement.FAILED if now - claim.claimed_at >= COMMAND_DEADLINE else None
    return Settlement.DONE if ran.fault(step) is None else Settlement.FAILED


def rewrite_after(
    record: Record, claim: Claim, step: Reencryption, what: Settlement, ran: Ran | None, *, now: datetime
) -> Rewrite | None:
    """Return how far a rewrite is after a step of it was settled; None if it begins anew."""
    uid = claim.resource_uid or "-"
    known = record.rewrite
    same = known is not None and (known.key, known.version, known.resource_uid) == (step.key, step.version, uid)
    rewrite = known if known is not None and same else Rewrite.of(step, claim.resource_uid)
    if what is Settlement.DONE and ran is not None and ran.tally is not None:
        return rewrite.after_confirming(step, ran.tally, claimed_at=claim.claimed_at)
    if what is Settlement.FAILED:
        return rewrite.after_failing(step, fault_of(step, ran), ran.tally if ran is not None else None, now=now)
    return rewrite if what is Settlement.WITHDRAWN and same else None


@dataclass(frozen=True, slots=True)
class Activity:
    """One line of the record: what happened to a cluster or a key, and who or what asked for it.

    `id` makes it one line however often it is written. `at` never changes, what is known of it may.
    """

    subject: ClusterId | KeyId | str
    id: str
    at: datetime
    kind: str
    said: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Run:
    """One pass over the fleet, by the timer or by an operator."""

    id: str
    asked_by: str
    started_at: datetime
    mode: Mode | None
    shards: int
    scope: Mapping[str, list[str]] = field(default_factory=dict)

    def is_done(self, shards: tuple[Shard, ...]) -> bool:
        """Return whether these shards are all that it has."""
        return len(shards) >= self.shards


@dataclass(frozen=True, slots=True)
class Matched:
    """How many clusters an exemption matched, whether it was in force or not, and the first few of them."""

    count: int
    clusters: tuple[ClusterId, ...] = ()


@dataclass(frozen=True, slots=True)
class Shard:
    """What a run found in one subscription: how many clusters, and how many by action and by reason.

    `exempted` has every exemption of the policy by its id, those that matched nothing too: the policy may have had
    others at another run. `oldest_overdue` is how late the latest look was that the ledger still waited for.
    """

    subscription: str
    finished_at: datetime
    clusters: int
    enqueued: int
    counts: Mapping[str, int]
    failure: str | None = None
    exempted: Mapping[str, Matched] = field(default_factory=dict)
    oldest_overdue: timedelta | None = None


def is_held_back(record: Record) -> bool:
    """Return whether a row waits for what can last for days and end at any time."""
    waiting = _waits(record)
    return waiting is not None and record.claim is None and waiting.reason in HELD_BACK
