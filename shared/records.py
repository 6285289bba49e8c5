"""What the ledger remembers, as values, and how a look changes them. Pure: no I/O, no clock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Self

from shared.clusters import Cluster, ClusterId, Encryption
from shared.decisions import OPERATION_DEADLINE, Action, Change, Decision, Fix, Reason, Refusal, Waiting, fix
from shared.keys import KeyId, KeyVersion, VaultId
from shared.policy import Assignment, Mode

EARLY = timedelta(minutes=1)
"""A message that comes earlier than this is sent again for the rest of its time."""

OVERDUE_AFTER = timedelta(minutes=5)
"""A look that is later than this has lost its message: whoever sees that starts a new chain."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A write of ours: recorded before it is sent, and settled by a later look.

    `intent` names it for good. `accepted_at` stays None when the reply never came; it may have arrived all the same.
    """

    intent: str
    change: Change
    asked_by: str
    resource_uid: str | None
    claimed_at: datetime
    accepted_at: datetime | None = None
    operation: str | None = None


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


@dataclass(frozen=True, slots=True)
class Record:
    """One cluster as the ledger knows it. Facts are None until the cluster was read once.

    `version` is the row's ETag, None while the row does not exist; it takes no part in comparisons, so that
    a look that finds nothing new writes nothing.
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
    change: Change | None = None
    decided_at: datetime | None = None
    claim: Claim | None = None
    waiting: Waiting | None = None
    refusal: Refusal | None = None
    closed_at: datetime | None = None

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
        return replace(decided, fix=fix(decision.reason, cluster.id))

    def _detail(self, assignment: Assignment, decision: Decision) -> str | None:
        if decision.reason is Reason.EXEMPT:
            return assignment.exempt_because
        if decision.reason is Reason.POLICY_BROKEN:
            return "; ".join(assignment.faults)[:1000]
        if decision.reason in {Reason.BLOCKED, Reason.CONFLICT, Reason.FAILED} and self.refusal:
            return f"{self.refusal.code}: {self.refusal.text}"
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


def _waits(record: Record) -> Waiting | None:
    """The wait that goes on; one that was given up is kept only for its `since`."""
    return record.waiting if record.action is Action.WAIT or record.claim is not None else None


def settlement(claim: Claim, cluster: Cluster, *, now: datetime, patience: timedelta) -> Settlement | None:
    """Tell from the cluster what became of a claim; None while that can't be told yet. Pure.

    The desired profile is visible while the operation runs, so only a settled cluster proves anything. An eTag
    that is still the one that was read shows that no write arrived, once the writer had `patience` to send it.
    Source: recorded traffic of the Azure CLI; AKS docs, use-etags.
    """
    if claim.resource_uid and cluster.resource_uid and claim.resource_uid != cluster.resource_uid:
        return Settlement.GONE
    waited = now - claim.claimed_at >= patience
    if cluster.etag == claim.change.etag:
        return Settlement.WITHDRAWN if waited else None
    if cluster.etag is None and not waited:
        return None
    if cluster.encryption.key_management is not claim.change.after.key_management:
        return Settlement.WITHDRAWN
    if cluster.settled:
        return Settlement.DONE if cluster.succeeded else Settlement.FAILED
    return Settlement.FAILED if now - claim.claimed_at >= OPERATION_DEADLINE else None


class Detection(StrEnum):
    """How a key version came to be known."""

    BASELINE = "baseline"
    """It was there when the key was first seen."""
    EVENT = "event"
    """Key Vault announced it."""
    SWEEP = "sweep"
    """A sweep found it; no event had announced it."""


@dataclass(frozen=True, slots=True)
class Rotation:
    """One version of one key, as it was detected. `fanned_out_at` is None until every user of the key was told."""

    key: KeyId
    version: KeyVersion
    how: Detection
    detected_at: datetime
    event_id: str | None = None
    fanned_out_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class KnownKey:
    """What the ledger knows of a key: the vault it lies in and its versions. `vault_id` is None until first seen."""

    key: KeyId
    vault_id: VaultId | None = None
    rotations: tuple[Rotation, ...] = ()


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


@dataclass(frozen=True, slots=True)
class Shard:
    """What a run found in one subscription: how many clusters, and how many by action and by reason."""

    subscription: str
    finished_at: datetime
    clusters: int
    enqueued: int
    counts: Mapping[str, int]
    failure: str | None = None
