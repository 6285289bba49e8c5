"""What is told to the topic, and in which words. Pure: no I/O, no clock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from shared.clusters import ClusterId
from shared.decisions import BLOCKING, changes_something
from shared.keyhealth import SHOWN, Finding, mend
from shared.keyrecords import KnownKey, Rotation
from shared.keys import KeyId
from shared.reasons import Action, Reason
from shared.records import Enforcement, Record


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
        *BLOCKING,
        Reason.CONTESTED,
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


def notice_of_event(
    key: KeyId, reason: Reason, version: str | None, event_id: str, users: Sequence[ClusterId]
) -> Notice:
    """Return what is to be told of an event of a vault that is no new version. `users` are all whom it concerns."""
    said = {
        "vault": key.vault,
        "key": key.name,
        "version": version,
        "reason": reason,
        "users": len(users),
        "clusters": [str(cluster) for cluster in users[:SHOWN]],
    }
    return Notice(NoticeKind.KEY_AT_RISK, str(key), f"{key}|{reason}", f"event|{key}|{event_id}", said)


def notice_of_finding(known: KnownKey, finding: Finding) -> Notice:
    """Return what is to be told of something that is wrong with a key."""
    to_do = mend(finding, known.vault_id, known.key.name)
    said = {
        "vault": known.key.vault,
        "key": known.key.name,
        "version": finding.version,
        "reason": finding.reason,
        "users": finding.count,
        "clusters": [str(cluster) for cluster in finding.clusters],
        "since": finding.since.isoformat(),
        "fix": {"text": to_do.text, "command": to_do.command} if to_do else None,
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


def _kind_of(record: Record) -> NoticeKind | None:
    if record.enforced_untold:
        return NoticeKind.CLUSTER_ENFORCED
    if record.action is not None and changes_something(record.action):
        return NoticeKind.CLUSTER_NOT_COMPLIANT
    if record.action is not Action.REPORT or record.reasons[0] in _NOT_ABOUT_THE_CLUSTER:
        return None
    if record.reasons[0] in _AT_RISK:
        return NoticeKind.KEY_AT_RISK
    return NoticeKind.CLUSTER_BLOCKED if record.reasons[0] in _BLOCKED else NoticeKind.CLUSTER_NOT_COMPLIANT
