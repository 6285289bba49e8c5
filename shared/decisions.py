"""What to do about one cluster, and why. Pure: no I/O, no clock, no environment.

`decide` asks the checks in their order; the first that has an answer decides. The order is the specification.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from shared.clusters import Cluster, ClusterId, Encryption, IdentityKind, KeyManagement
from shared.policy import Assignment

OLDEST_KUBERNETES = (1, 33, 0)
"""The new experience's first version. Source: AKS docs, kms-data-encryption."""

OPERATION_DEADLINE = timedelta(minutes=90)
"""An update of ours that has not ended by then has failed. AKS takes 5 to 10 minutes."""

VISIBILITY_DEADLINE = timedelta(minutes=15)
"""How long after a write event its cluster may still be invisible."""


class Action(StrEnum):
    """What to do."""

    NOTHING = "nothing"
    """All is well, or it is none of our business."""
    WAIT = "wait"
    """Look again later: something that passes by itself is in the way."""
    REPORT = "report"
    """Somebody has to do something first."""
    WRITE = "write"
    """Change the cluster; in audit, say that this would be done."""


class Reason(StrEnum):
    """Why."""

    AS_ASKED = "as-asked"
    """The cluster is encrypted as its target asks, and its last operation ended well."""
    NO_TARGET = "no-target"
    """No target of the policy matches the cluster."""
    EXEMPT = "exempt"
    """An exemption or the opt-out tag says: leave it alone."""
    POLICY_BROKEN = "policy-broken"
    """The policy document has faults, so nothing is written."""
    NOT_AS_ASKED = "not-as-asked"
    """The cluster's encryption differs from what its target asks, and nothing stands in the way."""
    UPDATING = "updating"
    """Our own update is under way."""
    BUSY = "busy"
    """AKS works on the cluster or on one of its pools."""
    FAILED = "failed"
    """The cluster's last operation failed or was canceled; another update would meet the same fault."""
    STOPPED = "stopped"
    """The cluster is stopped: AKS then allows only start and delete."""
    KUBERNETES_TOO_OLD = "kubernetes-too-old"
    """Platform-managed and customer-managed keys need Kubernetes 1.33 or newer."""
    IDENTITY_UNSUPPORTED = "identity-unsupported"
    """The cluster runs as a service principal; KMS needs a managed identity."""
    AMBIGUOUS = "ambiguous"
    """The cluster's KMS fields are a combination whose meaning no document states."""
    ENCRYPTED_OTHERWISE = "encrypted-otherwise"
    """The cluster is encrypted with KMS, but not the way its target asks."""
    NO_ETAG = "no-etag"
    """Azure showed the cluster without an eTag, and without one a write could overwrite somebody else's."""
    NOT_VISIBLE = "not-visible"
    """An event names the cluster, but Azure does not show it yet."""
    GONE = "gone"
    """The cluster does not exist any more."""
    UNREADABLE = "unreadable"
    """The app is not allowed to read the cluster or its subscription."""
    THROTTLED = "throttled"
    """Azure asked to come back later."""
    LIMIT_REACHED = "limit-reached"
    """As many clusters are being updated as the limits allow."""
    CONFLICT = "conflict"
    """Azure refuses the update because the cluster changed or is being changed meanwhile."""
    BLOCKED = "blocked"
    """Azure refused the update; another try gives the same answer until something is changed."""
    WAITED_TOO_LONG = "waited-too-long"
    """What stood in the way did not pass in time."""
    POISONED = "poisoned"
    """A look at the cluster failed five times in a row; the sweep starts it afresh."""


DEADLINES = {
    Reason.BUSY: timedelta(hours=6),
    Reason.CONFLICT: timedelta(hours=6),
    Reason.LIMIT_REACHED: timedelta(hours=6),
    Reason.THROTTLED: timedelta(hours=6),
    Reason.UPDATING: OPERATION_DEADLINE,
    Reason.NOT_VISIBLE: VISIBILITY_DEADLINE,
}
"""Every reason to wait has an end; after it, waiting is a failure with its reason."""


@dataclass(frozen=True, slots=True)
class Fix:
    """What an operator can do about a reason: a sentence, and the command that does it where there is one."""

    text: str
    command: str | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """What one write changes: the KMS part of a cluster, before and after, and the eTag it was read at."""

    before: Encryption
    after: Encryption
    etag: str


@dataclass(frozen=True, slots=True)
class Waiting:
    """A wait that began earlier: why, since when, and the one message that ends it."""

    reason: Reason
    since: datetime
    look_again_at: datetime
    token: str
    set_by: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """A write that Azure did not take: a conflict, or a clear no. `etag` is the cluster's at that time."""

    reason: Reason
    code: str
    text: str
    etag: str
    at: datetime
    since: datetime


@dataclass(frozen=True, slots=True)
class Facts:
    """All that a decision may look at."""

    cluster: Cluster
    waiting: Waiting | None = None
    refusal: Refusal | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do and why. The first reason decides; the change is there in audit too.

    `look_again` is set where a wait has a time of its own; else the app's interval holds.
    """

    action: Action
    reasons: tuple[Reason, ...]
    change: Change | None = None
    look_again: datetime | None = None

    @property
    def reason(self) -> Reason:
        """The reason that decided."""
        return self.reasons[0]


Check = Callable[[Facts, Assignment, datetime], Decision | None]


def decide(facts: Facts, assignment: Assignment, now: datetime) -> Decision:
    """Return the first answer of the checks, else the write that the target asks for. Pure."""
    answers = (check(facts, assignment, now) for check in CHECKS)
    decision = next((answer for answer in answers if answer is not None), None) or _write(facts, assignment)
    return within_deadline(decision, facts.waiting, now)


def within_deadline(decision: Decision, waiting: Waiting | None, now: datetime) -> Decision:
    """Return the decision; a wait that lasts longer than its reason's deadline is reported instead."""
    if decision.action is not Action.WAIT or waiting is None or waiting.reason is not decision.reason:
        return decision
    if now - waiting.since < DEADLINES[decision.reason]:
        return decision
    return replace(decision, action=Action.REPORT, reasons=(Reason.WAITED_TOO_LONG, *decision.reasons), look_again=None)


def policy_is_broken(_facts: Facts, assignment: Assignment, _now: datetime) -> Decision | None:
    """The policy document has faults: nothing may be concluded from it."""
    return _report(Reason.POLICY_BROKEN) if assignment.faults else None


def has_no_target(_facts: Facts, assignment: Assignment, _now: datetime) -> Decision | None:
    """The policy asks nothing of this cluster."""
    return _nothing(Reason.NO_TARGET) if assignment.target is None else None


def is_exempt(_facts: Facts, assignment: Assignment, _now: datetime) -> Decision | None:
    """An exemption silences everything below."""
    return _nothing(Reason.EXEMPT) if assignment.exempt_because is not None else None


def is_as_asked(facts: Facts, assignment: Assignment, _now: datetime) -> Decision | None:
    """The desired profile is there and in effect: it is visible already while an operation runs, or after it failed.

    A stopped cluster shows Succeeded and is judged by its profile. Source: recorded traffic of the Azure CLI.
    """
    cluster = facts.cluster
    if not (cluster.succeeded and cluster.settled and _has_what_is_asked(cluster, assignment)):
        return None
    return _nothing(Reason.AS_ASKED)


def is_busy(facts: Facts, _assignment: Assignment, _now: datetime) -> Decision | None:
    """An operation runs: what the document shows may not be in effect, and a write would meet a conflict."""
    return Decision(Action.WAIT, (Reason.BUSY,)) if not facts.cluster.settled else None


def has_failed(facts: Facts, _assignment: Assignment, _now: datetime) -> Decision | None:
    """A cluster that is left in Failed is reported, never hammered."""
    return _report(Reason.FAILED) if not facts.cluster.succeeded else None


def is_stopped(facts: Facts, _assignment: Assignment, _now: datetime) -> Decision | None:
    """Only start and delete are allowed. Source: AKS docs, start-stop-cluster."""
    return _report(Reason.STOPPED) if not facts.cluster.running else None


def kubernetes_is_too_old(facts: Facts, _assignment: Assignment, _now: datetime) -> Decision | None:
    """A version that can't be read counts as too old: what is not known is not written."""
    version = facts.cluster.kubernetes
    return _report(Reason.KUBERNETES_TOO_OLD) if version is None or version < OLDEST_KUBERNETES else None


def identity_is_unsupported(facts: Facts, _assignment: Assignment, _now: datetime) -> Decision | None:
    """Service principals are not supported. Source: AKS docs, kms-data-encryption."""
    return _report(Reason.IDENTITY_UNSUPPORTED) if facts.cluster.identity is IdentityKind.SERVICE_PRINCIPAL else None


def is_ambiguous(facts: Facts, _assignment: Assignment, _now: datetime) -> Decision | None:
    """No document states what such a cluster has, so no write may build on it."""
    return _report(Reason.AMBIGUOUS) if facts.cluster.encryption.key_management is KeyManagement.AMBIGUOUS else None


def is_encrypted_otherwise(facts: Facts, _assignment: Assignment, _now: datetime) -> Decision | None:
    """Moving between kinds of key management rewrites secrets: nobody asked for that."""
    none = facts.cluster.encryption.key_management is KeyManagement.NONE
    return None if none else _report(Reason.ENCRYPTED_OTHERWISE)


def has_no_etag(facts: Facts, _assignment: Assignment, _now: datetime) -> Decision | None:
    """Without an eTag a PUT sends no If-Match: a silent overwrite. Source: AKS docs, use-etags."""
    return _report(Reason.NO_ETAG) if facts.cluster.etag is None else None


def was_refused(facts: Facts, _assignment: Assignment, now: datetime) -> Decision | None:
    """Azure said no to this very state: the same write again gets the same answer, until the row or time moves on."""
    refusal = facts.refusal
    if refusal is None or refusal.etag != facts.cluster.etag:
        return None
    if refusal.reason is Reason.BLOCKED and now - refusal.at < BLOCKED_FOR:
        return _report(Reason.BLOCKED)
    if refusal.reason is Reason.CONFLICT and now - refusal.since >= DEADLINES[Reason.CONFLICT]:
        return Decision(Action.REPORT, (Reason.WAITED_TOO_LONG, Reason.CONFLICT))
    return None


BLOCKED_FOR = timedelta(minutes=55)
"""A refused write rests until the next hourly sweep."""

CHECKS: tuple[Check, ...] = (
    policy_is_broken,
    has_no_target,
    is_exempt,
    is_as_asked,
    is_busy,
    has_failed,
    is_stopped,
    kubernetes_is_too_old,
    identity_is_unsupported,
    is_ambiguous,
    is_encrypted_otherwise,
    has_no_etag,
    was_refused,
)
"""Each check may rely on those above it."""


def fix(reason: Reason, cluster_id: ClusterId) -> Fix | None:
    """Return what an operator can do about this reason, or None where there is nothing to do."""
    template = _FIXES.get(reason)
    if template is None:
        return None
    names = {"name": cluster_id.name, "group": cluster_id.group, "subscription": cluster_id.subscription}
    return Fix(template.text, template.command and template.command.format(**names))


_AKS = "az aks {verb} --subscription {{subscription}} --resource-group {{group}} --name {{name}}"
_FIXES = {
    Reason.POLICY_BROKEN: Fix("Mend the faults that GET /api/health lists, and deploy the document again."),
    Reason.FAILED: Fix(
        "Find out what failed in the cluster's activity log, then reconcile the cluster.",
        _AKS.format(verb="update") + " --yes",
    ),
    Reason.STOPPED: Fix("Start the cluster; it is enforced when it runs.", _AKS.format(verb="start")),
    Reason.KUBERNETES_TOO_OLD: Fix(
        "Upgrade the cluster to Kubernetes 1.33 or newer.", _AKS.format(verb="get-upgrades") + " --output table"
    ),
    Reason.IDENTITY_UNSUPPORTED: Fix(
        "Move the cluster from its service principal to a managed identity.",
        _AKS.format(verb="update") + " --enable-managed-identity",
    ),
    Reason.AMBIGUOUS: Fix("Compare the securityProfile with what you meant to have.", _AKS.format(verb="show")),
    Reason.ENCRYPTED_OTHERWISE: Fix("Give the cluster a target that asks for what it has, or an exemption."),
    Reason.NO_ETAG: Fix("Look at the cluster again; if the eTag stays missing, ask Azure support."),
    Reason.UNREADABLE: Fix("Give the app's identity the right to read managed clusters in this subscription."),
    Reason.CONFLICT: Fix("Find out who keeps changing the cluster, and let that end first."),
    Reason.BLOCKED: Fix("Mend what Azure's answer names: a lock, a policy, a permission."),
    Reason.WAITED_TOO_LONG: Fix(
        "What stood in the way, the second reason, did not pass by itself: find out why.",
        _AKS.format(verb="operation show-latest"),
    ),
    Reason.POISONED: Fix("Read the failure in the app's log; the next sweep looks at the cluster again."),
}


def _has_what_is_asked(cluster: Cluster, assignment: Assignment) -> bool:
    return assignment.target is not None and cluster.encryption.key_management is assignment.target.asks_for


def _write(facts: Facts, assignment: Assignment) -> Decision:
    cluster = facts.cluster
    if assignment.target is None or cluster.etag is None:
        raise AssertionError("the checks answer for a cluster without target or eTag")
    after = replace(cluster.encryption, infrastructure=True)
    return Decision(Action.WRITE, (Reason.NOT_AS_ASKED,), Change(cluster.encryption, after, cluster.etag))


def _nothing(reason: Reason) -> Decision:
    return Decision(Action.NOTHING, (reason,))


def _report(reason: Reason) -> Decision:
    return Decision(Action.REPORT, (reason,))
