"""What the ledger remembers, as values, and how a look changes them. Pure: no I/O, no clock."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Self

from shared.clusters import Cluster, ClusterId, Encryption, KeyManagement
from shared.decisions import (
    BLOCKING,
    CONTEST,
    HELD_BACK,
    OPERATION_DEADLINE,
    Change,
    Decision,
    Refusal,
    Waiting,
    changes_something,
    subject_of,
)
from shared.keyhealth import SHOWN, Finding
from shared.keys import KeyId, KeyVersion, RotationPolicy, VaultId
from shared.policy import Assignment, Mode
from shared.preparations import Preparation
from shared.reasons import Action, Fix, Reason, Subject, fix
from shared.reencryption import COMMAND_DEADLINE, Ran, Reencryption, Rewrite, fault_of
from shared.rights import missing_rights
from shared.rotation import KeyUser, Need, Standing, in_order, standing

_OPERATION = re.compile(r"/(?:operations/([0-9a-f-]{36})|commandResults/(\w{1,64}))", re.IGNORECASE)

EARLY = timedelta(minutes=1)
"""A message that comes earlier than this is sent again for the rest of its time."""

ROTATION_CLAIM_LASTS = timedelta(minutes=10)
"""After this a claimed rotation of which nothing came is given up."""

ROTATION_REST = timedelta(minutes=1)
"""A key that was just rotated through the app is not rotated again."""

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
    are those that it used before. `rewrite` is how far the rewrite of its secrets is.
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

    def says_the_same_as(self, other: Record) -> bool:
        """Return whether writing this over the other would change nothing that matters."""
        return replace(self, version=None, decided_at=None) == replace(other, version=None, decided_at=None)

    def decided_otherwise_than(self, other: Record) -> bool:
        """Return whether the decision itself differs: that is what the activity table keeps."""
        return (self.action, self.reasons, self.target, self.mode, self.encryption) != (
            other.action,
            other.reasons,
            other.target,
            other.mode,
            other.encryption,
        )

    def set_back_by(self, now: datetime) -> tuple[datetime, ...]:
        """Return when the cluster was set back, if what is decided at this look is to enforce it once more."""
        since = self.set_back[-1] if self.set_back else None
        undone = self.enforced_at is not None and (since is None or self.enforced_at > since)
        return (*self.set_back, now)[-CONTEST:] if undone else self.set_back

    def rewrite_of(self, cluster: Cluster) -> Rewrite | None:
        """Return how far the rewrite of the cluster's secrets is; None where it begins anew."""
        return self.rewrite if self.rewrite is not None and self.rewrite.is_for(cluster) else None

    def after_reading(self, cluster: Cluster) -> Self:
        """Take over what the cluster's document says."""
        return replace(
            self,
            resource_id=cluster.resource_id,
            resource_uid=cluster.resource_uid or self.resource_uid,
            location=cluster.location,
            kubernetes=cluster.kubernetes_version,
            encryption=cluster.encryption,
            closed_at=None,
        )

    def after_deciding(self, decision: Decision, *, now: datetime, detail: str | None = None) -> Self:
        """Take over a decision. What no longer waits forgets its wait, unless it was given up: `since` must last."""
        gave_up = decision.reason is Reason.WAITED_TOO_LONG
        return replace(
            self,
            action=decision.action,
            reasons=decision.reasons,
            detail=detail,
            fix=None,
            change=decision.change,
            decided_at=now,
            waiting=self.waiting if gave_up or decision.action is Action.WAIT else None,
        )

    def after_assigning(self, assignment: Assignment) -> Self:
        """Take over what the policy asks."""
        return replace(
            self,
            target=assignment.target.name if assignment.target else None,
            mode=assignment.mode,
        )

    def after_looking(self, cluster: Cluster, assignment: Assignment, decision: Decision, *, now: datetime) -> Self:
        """Take over a whole look: document, assignment, decision and what an operator can do about it."""
        looked = self.after_reading(cluster).after_assigning(assignment)
        decided = looked.after_deciding(decision, now=now, detail=self._detail(assignment, decision))
        if decision.reason is Reason.CONTESTED:
            decided = replace(decided, set_back=self.set_back_by(now))
        if decision.action is Action.NOTHING and notice_of(decided) is None:
            decided = replace(decided, announced=None)  # what went wrong is over: if it comes back, it is told again
        subject = replace(subject_of(cluster, assignment), rights=missing_rights(decided.detail or ""))
        return replace(decided, fix=next(filter(None, (fix(reason, subject) for reason in decision.reasons)), None))

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


class Detection(StrEnum):
    """How a key version came to be known."""

    BASELINE = "baseline"
    """It was there when the key was first seen."""
    EVENT = "event"
    """Key Vault announced it."""
    SWEEP = "sweep"
    """A sweep found it; no event had announced it."""
    ORDER = "order"
    """The app made it itself, by an operator's order."""


@dataclass(frozen=True, slots=True)
class Rotation:
    """One version of one key, as it was detected. `fanned_out_at` is None until every user of the key was told.

    `told_up_to` is the last user who was, while that goes on.
    """

    key: KeyId
    version: KeyVersion
    how: Detection
    detected_at: datetime
    event_id: str | None = None
    fanned_out_at: datetime | None = None
    told_up_to: str | None = None

    @property
    def latency(self) -> timedelta | None:
        """How long after its creation the version was detected; None where Azure does not tell of its creation.

        None for a baseline too: nobody could have detected it any sooner.
        """
        created = self.version.created
        if created is None or self.how is Detection.BASELINE:
            return None
        return max(self.detected_at - created, timedelta())


@dataclass(frozen=True, slots=True)
class KeySummary:
    """What a key came to at the last look: its versions, who uses it now, and how the versions stand with its users.

    `users` counts clusters by their key management, `standings` versions; what there is none of is left out.
    """

    versions: int = 0
    newest: KeyVersion | None = None
    users: Mapping[KeyManagement, int] = field(default_factory=dict)
    standings: Mapping[Standing, int] = field(default_factory=dict)


def summary_of(
    versions: Sequence[KeyVersion], users: Iterable[KeyUser], found: Mapping[str, Sequence[Need]]
) -> KeySummary:
    """Sum up a key: its versions from the oldest to the newest, its users, and how each version stands with them."""
    return KeySummary(
        len(versions),
        versions[-1] if versions else None,
        dict(Counter(user.key_management for user in users if user.ended_at is None)),
        dict(Counter(standing(found.get(one.version, ())) for one in versions)),
    )


@dataclass(frozen=True, slots=True)
class RotationClaim:
    """A rotation of ours, recorded before the vault is asked for it. `versions` is how many were known by then."""

    intent: str
    at: datetime
    versions: int
    by: str | None = None


@dataclass(frozen=True, slots=True)
class KnownKey:
    """What the ledger knows of a key: the vault it lies in, its versions, and what is wrong with it.

    `vault_id` is None until it was first seen; `rotation_policy` is None where nobody tells. `last_run` is the sweep
    that looked at it last. In a list of keys `rotations` are left out: there `summary` stands for them. `etag` is the
    version of its own row; None where it has none.
    """

    key: KeyId
    vault_id: VaultId | None = None
    rotations: tuple[Rotation, ...] = ()
    findings: tuple[Finding, ...] = ()
    rotation_policy: RotationPolicy | None = None
    looked_at: datetime | None = None
    last_run: str | None = None
    summary: KeySummary | None = None
    claim: RotationClaim | None = None
    etag: str | None = field(default=None, compare=False)

    def is_being_rotated(self, now: datetime) -> bool:
        """Return whether the app was told to rotate it, and nobody knows yet what came of that.

        A new version says what came of it. The first minute counts anyway: whoever asks twice means it once.
        """
        if self.claim is None or now - self.claim.at >= ROTATION_CLAIM_LASTS:
            return False
        return now - self.claim.at < ROTATION_REST or len(self.rotations) <= self.claim.versions

    @property
    def versions(self) -> tuple[KeyVersion, ...]:
        """Its versions, from the oldest to the newest."""
        dated = {one.version.version: (one.version, one.detected_at) for one in self.rotations}
        return tuple(dated[name][0] for name in in_order(dated.values()))


def detected(
    known: KnownKey, versions: tuple[KeyVersion, ...], announced: str | None, event_id: str | None, now: datetime
) -> tuple[Rotation, ...]:
    """Return the versions that the ledger has not, each with how it was detected. Pure.

    At first sight of a key everything but the announced version is its baseline. An announced version counts even
    where the vault does not show it (yet), or can't be read.
    """
    have = {rotation.version.version for rotation in known.rotations}
    by_name = {version.version: version for version in versions}
    if announced is not None:
        by_name.setdefault(announced, KeyVersion(announced))
    otherwise = Detection.BASELINE if known.vault_id is None else Detection.SWEEP
    return tuple(
        _rotation(known.key, version, announced=announced, event_id=event_id, otherwise=otherwise, now=now)
        for name, version in sorted(by_name.items(), key=lambda item: (item[1].created or now, item[0]))
        if name not in have
    )


def _rotation(
    key: KeyId, version: KeyVersion, *, announced: str | None, event_id: str | None, otherwise: Detection, now: datetime
) -> Rotation:
    how = Detection.EVENT if version.version == announced else otherwise
    return Rotation(
        key=key,
        version=version,
        how=how,
        detected_at=now,
        event_id=event_id if how is Detection.EVENT else None,
        fanned_out_at=now if how is Detection.BASELINE else None,
    )


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


class NoticeKind(StrEnum):
    """What is told to the topic. The value is the CloudEvent's type."""

    CLUSTER_ENFORCED = "AksKmsEnforcer.ClusterEnforced"
    """A write of ours is in effect: the cluster is as its target asks."""
    CLUSTER_NOT_COMPLIANT = "AksKmsEnforcer.ClusterNotCompliant"
    """The cluster is not as its target asks, and somebody has to do something; in audit, or because of an obstacle."""
    CLUSTER_BLOCKED = "AksKmsEnforcer.ClusterBlocked"
    """Azure refused the write, the operation failed, or what stood in the way did not pass in time."""
    ROTATION_DETECTED = "AksKmsEnforcer.RotationDetected"
    """A key has a new version."""
    KEY_AT_RISK = "AksKmsEnforcer.KeyAtRisk"
    """A key that clusters use, or are to use, is deleted, disabled or out of its time."""
    ENFORCEMENT_PAUSED = "AksKmsEnforcer.EnforcementPaused"
    """Nothing is written any more until an operator resumes."""


@dataclass(frozen=True, slots=True)
class Notice:
    """Something to tell. `token` is what the row keeps once it is told; `id` is the event's, the same if told twice."""

    kind: NoticeKind
    subject: str
    token: str
    id: str
    said: Mapping[str, Any]


_BLOCKED = frozenset(
    {
        Reason.CONTESTED,
        Reason.NOT_PERMITTED,
        Reason.BLOCKED,
        Reason.FEATURE_NOT_REGISTERED,
        Reason.FAILED,
        Reason.REENCRYPTION_FAILED,
        Reason.WAITED_TOO_LONG,
        Reason.POISONED,
    }
)
_NOT_ABOUT_THE_CLUSTER = frozenset({Reason.POLICY_BROKEN, Reason.UNREADABLE})
_AT_RISK = frozenset({Reason.VAULT_DELETED, Reason.KEY_DELETED, Reason.KEY_DISABLED, Reason.KEY_EXPIRED})


def notice_of(record: Record) -> Notice | None:
    """Return what is to be told of a cluster; None while it waits, is exempt, or was as asked without our doing."""
    kind = _kind_of(record)
    if kind is None or record.decided_at is None:
        return None
    reason = record.reasons[0]
    enforced = record.enforced_at.isoformat() if record.enforced_at else ""
    token = f"{kind}|{reason}|{enforced if kind is NoticeKind.CLUSTER_ENFORCED else ''}"
    said = {
        "clusterId": record.resource_id or str(record.cluster_id),
        "keyManagement": record.encryption.key_management if record.encryption else None,
        "target": record.target,
        "mode": record.mode,
        "action": record.action,
        "reasons": list(record.reasons),
        "detail": record.detail,
        "fix": {"text": record.fix.text, "command": record.fix.command} if record.fix else None,
        "decidedAt": record.decided_at.isoformat(),
    }
    moment = enforced if kind is NoticeKind.CLUSTER_ENFORCED else record.decided_at.isoformat()
    return Notice(kind, str(record.cluster_id), token, f"{record.cluster_id}|{token}|{moment}", said)


def notice_of_rotation(rotation: Rotation) -> Notice:
    """Return what is to be told of a rotation."""
    version = rotation.version
    said = {
        "vault": rotation.key.vault,
        "key": rotation.key.name,
        "version": version.version,
        "how": rotation.how,
        "created": version.created.isoformat() if version.created else None,
        "detectedAt": rotation.detected_at.isoformat(),
    }
    token = f"{rotation.key}/{version.version}"
    return Notice(NoticeKind.ROTATION_DETECTED, str(rotation.key), token, f"rotation|{token}", said)


def notice_of_event(key: KeyId, reason: Reason, event_id: str, users: Sequence[ClusterId]) -> Notice:
    """Return what is to be told of an event of a vault that is no new version. `users` are all that use the key."""
    said = {
        "vault": key.vault,
        "key": key.name,
        "reason": reason,
        "users": len(users),
        "clusters": [str(cluster) for cluster in users[:SHOWN]],
    }
    return Notice(NoticeKind.KEY_AT_RISK, str(key), f"{key}|{reason}", f"event|{key}|{event_id}", said)


def notice_of_finding(known: KnownKey, finding: Finding) -> Notice:
    """Return what is to be told of something that is wrong with a key."""
    subject = Subject(vault=known.vault_id, key=known.key.name, version=finding.version)
    mend = fix(finding.reason, subject)
    said = {
        "vault": known.key.vault,
        "key": known.key.name,
        "version": finding.version,
        "reason": finding.reason,
        "users": finding.count,
        "clusters": [str(cluster) for cluster in finding.clusters],
        "since": finding.since.isoformat(),
        "fix": {"text": mend.text, "command": mend.command} if mend else None,
    }
    token = f"{known.key}|{finding.reason}|{finding.version or ''}"
    return Notice(NoticeKind.KEY_AT_RISK, str(known.key), token, f"risk|{token}|{finding.since.isoformat()}", said)


def notice_of_pause(enforcement: Enforcement) -> Notice | None:
    """Return what is to be told of a pause; None if there is none, or it was told."""
    if enforcement.paused_since is None or enforcement.told:
        return None
    since = enforcement.paused_since.isoformat()
    said = {
        "since": since,
        "by": enforcement.paused_by,
        "why": enforcement.why,
        "failures": [str(failure.cluster) for failure in enforcement.failures],
    }
    return Notice(NoticeKind.ENFORCEMENT_PAUSED, "enforcement", since, f"paused|{since}", said)


def is_held_back(record: Record) -> bool:
    """Return whether a row waits for what can last for days and end at any time."""
    waiting = _waits(record)
    return waiting is not None and record.claim is None and waiting.reason in HELD_BACK


def _kind_of(record: Record) -> NoticeKind | None:
    if record.action is Action.NOTHING and record.reasons == (Reason.AS_ASKED,):
        untold = record.enforced_at is not None and record.enforced_at != record.enforced_told
        return NoticeKind.CLUSTER_ENFORCED if untold else None
    if record.action is not None and changes_something(record.action):
        return NoticeKind.CLUSTER_NOT_COMPLIANT
    if record.action is not Action.REPORT or record.reasons[0] in _NOT_ABOUT_THE_CLUSTER:
        return None
    if record.reasons[0] in _AT_RISK:
        return NoticeKind.KEY_AT_RISK
    return NoticeKind.CLUSTER_BLOCKED if record.reasons[0] in _BLOCKED else NoticeKind.CLUSTER_NOT_COMPLIANT
