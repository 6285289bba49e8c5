"""What is told to the topic, once, and in which words."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from shared.keyhealth import Finding
from shared.keyrecords import KnownKey
from shared.keys import KeyVersion
from shared.outcomes import NoticeKind, notice_of, notice_of_finding, notice_of_pause, notice_of_rotation
from shared.policy import Mode
from shared.reasons import Action, Fix, Reason
from shared.records import (
    STOP_AFTER_FAILURES,
    Enforcement,
    FailedUpdate,
    Record,
)
from tests.builders import (
    CLUSTER_ID,
    KEY,
    MINUTE,
    NOW,
    OTHER_VERSION,
    PLATFORM_MANAGED,
    PMK,
    VAULT_ID,
    VERSION,
    looked_at,
    record,
    rotation,
)

# what is told of a cluster

TOLD = {"decided_at": NOW, "target": "default", "mode": Mode.ENFORCE}
ENFORCED_AT = NOW - MINUTE


@pytest.mark.parametrize(
    ("action", "reasons", "said", "expected"),
    [
        pytest.param(Action.NOTHING, (Reason.AS_ASKED,), {}, None, id="as-asked-without-our-doing"),
        pytest.param(
            Action.NOTHING,
            (Reason.AS_ASKED,),
            {"enforced_at": ENFORCED_AT},
            NoticeKind.CLUSTER_ENFORCED,
            id="as-asked-by-our-doing",
        ),
        pytest.param(Action.NOTHING, (Reason.EXEMPT,), {"enforced_at": ENFORCED_AT}, None, id="exempt"),
        pytest.param(Action.NOTHING, (Reason.NO_TARGET,), {"enforced_at": ENFORCED_AT}, None, id="no-target"),
        pytest.param(Action.NOTHING, (Reason.GONE,), {"enforced_at": ENFORCED_AT}, None, id="gone"),
        pytest.param(Action.WAIT, (Reason.UPDATING,), {"enforced_at": ENFORCED_AT}, None, id="updating"),
        pytest.param(Action.WAIT, (Reason.BUSY,), {}, None, id="busy"),
        pytest.param(Action.LOOK_CLOSER, (Reason.PREREQUISITES_UNKNOWN,), {}, None, id="not-looked-at-yet"),
        pytest.param(Action.WRITE, (Reason.NOT_AS_ASKED,), {}, NoticeKind.CLUSTER_NOT_COMPLIANT, id="in-audit"),
        pytest.param(
            Action.WRITE,
            (Reason.NOT_AS_ASKED, Reason.PURGE_PROTECTION_OFF),
            {},
            NoticeKind.CLUSTER_NOT_COMPLIANT,
            id="in-audit-with-a-warning",
        ),
        pytest.param(
            Action.WRITE, (Reason.IDENTITY_TO_CHANGE,), {}, NoticeKind.CLUSTER_NOT_COMPLIANT, id="identity-in-audit"
        ),
        pytest.param(Action.REPORT, (Reason.STOPPED,), {}, NoticeKind.CLUSTER_NOT_COMPLIANT, id="stopped"),
        pytest.param(Action.REPORT, (Reason.OTHER_IDENTITY,), {}, NoticeKind.CLUSTER_NOT_COMPLIANT, id="identity"),
        pytest.param(Action.REPORT, (Reason.ACCESS_WRAP_ONLY,), {}, NoticeKind.CLUSTER_NOT_COMPLIANT, id="the-trap"),
        pytest.param(Action.REPORT, (Reason.VAULT_MISSING,), {}, NoticeKind.CLUSTER_NOT_COMPLIANT, id="no-vault"),
        pytest.param(Action.REPORT, (Reason.KEY_MISSING,), {}, NoticeKind.CLUSTER_NOT_COMPLIANT, id="no-key"),
        pytest.param(
            Action.REPORT,
            (Reason.STOPPED,),
            {"enforced_at": ENFORCED_AT},
            NoticeKind.CLUSTER_NOT_COMPLIANT,
            id="enforced-once-is-not-enforced-now",
        ),
        pytest.param(Action.REPORT, (Reason.BLOCKED,), {}, NoticeKind.CLUSTER_BLOCKED, id="blocked"),
        pytest.param(Action.REPORT, (Reason.NOT_PERMITTED,), {}, NoticeKind.CLUSTER_BLOCKED, id="not-permitted"),
        pytest.param(Action.REPORT, (Reason.FEATURE_NOT_REGISTERED,), {}, NoticeKind.CLUSTER_BLOCKED, id="feature"),
        pytest.param(Action.REPORT, (Reason.ACCESS_REFUSED,), {}, NoticeKind.CLUSTER_BLOCKED, id="access-refused"),
        pytest.param(Action.REPORT, (Reason.CONTESTED,), {}, NoticeKind.CLUSTER_BLOCKED, id="contested"),
        pytest.param(Action.REPORT, (Reason.POISONED,), {}, NoticeKind.CLUSTER_BLOCKED, id="poisoned"),
        pytest.param(
            Action.REPORT,
            (Reason.WAITED_TOO_LONG, Reason.BUSY),
            {},
            NoticeKind.CLUSTER_BLOCKED,
            id="waited-too-long",
        ),
        pytest.param(
            Action.REPORT,
            (Reason.FAILED,),
            {"enforced_at": ENFORCED_AT},
            NoticeKind.CLUSTER_BLOCKED,
            id="a-failure-is-never-told-as-done",
        ),
        pytest.param(None, (), {}, None, id="nothing-decided-yet"),
    ],
)
def test_what_is_told_of_a_cluster(
    action: Action | None, reasons: tuple[Reason, ...], said: dict[str, Any], expected: NoticeKind | None
) -> None:
    notice = notice_of(record(**TOLD | said, action=action, reasons=reasons))

    assert (notice.kind if notice else None) is expected


@pytest.mark.parametrize("action", [Action.NOTHING, Action.WAIT, Action.LOOK_CLOSER])
@pytest.mark.parametrize("reason", [reason for reason in Reason if reason is not Reason.AS_ASKED], ids=str)
def test_nothing_but_what_is_as_asked_is_ever_told_as_done(action: Action, reason: Reason) -> None:
    found = record(**TOLD, action=action, reasons=(reason,), enforced_at=ENFORCED_AT)

    assert notice_of(found) is None


def stopped(**said: Any) -> Record:
    """A row that reports a stopped cluster."""
    return record(**TOLD | {"action": Action.REPORT, "reasons": (Reason.STOPPED,)} | said)


def enforced(**said: Any) -> Record:
    """A row of a cluster that the app has enforced."""
    defaults = {"action": Action.NOTHING, "reasons": (Reason.AS_ASKED,), "enforced_at": ENFORCED_AT}
    return record(**TOLD | defaults | said)


def told(found: Record) -> tuple[str, str]:
    """The token and the id of what is told of a cluster."""
    notice = notice_of(found)
    assert notice is not None
    return notice.token, notice.id


@pytest.mark.parametrize(
    ("one", "other", "same_token", "same_id"),
    [
        pytest.param(stopped(), stopped(), True, True, id="the-same-row"),
        pytest.param(stopped(), stopped(version='W/"9"', announced="x"), True, True, id="a-row-that-was-told"),
        pytest.param(stopped(), stopped(decided_at=NOW + MINUTE), True, False, id="decided-anew"),
        pytest.param(stopped(), stopped(reasons=(Reason.BLOCKED,)), False, False, id="another-reason"),
        pytest.param(stopped(), stopped(reasons=(Reason.STOPPED, Reason.BUSY)), True, True, id="one-more-reason"),
        pytest.param(stopped(), stopped(enforced_at=ENFORCED_AT), True, True, id="enforced-once"),
        pytest.param(enforced(), enforced(decided_at=NOW + MINUTE), True, True, id="enforced-and-looked-at-again"),
        pytest.param(enforced(), enforced(enforced_at=NOW), False, False, id="enforced-anew"),
        pytest.param(enforced(), stopped(), False, False, id="another-kind"),
    ],
)
def test_what_is_told_is_known_by_its_token_and_its_id(
    one: Record, other: Record, same_token: bool, same_id: bool
) -> None:
    (token, identifier), (other_token, other_identifier) = told(one), told(other)

    assert (token == other_token) is same_token
    assert (identifier == other_identifier) is same_id


def test_two_clusters_are_never_told_under_one_id() -> None:
    other = replace(stopped(), cluster_id=replace(CLUSTER_ID, name="aks-2"))

    assert told(stopped())[1] != told(other)[1]


def test_a_notice_says_what_the_row_says() -> None:
    found = stopped(
        encryption=PLATFORM_MANAGED, detail="text", fix=Fix("Start it.", "az aks start"), resource_id=str(CLUSTER_ID)
    )

    notice = notice_of(found)

    assert notice is not None
    assert notice.subject == str(CLUSTER_ID)
    assert json.loads(json.dumps(notice.said)) == {
        "clusterId": str(CLUSTER_ID),
        "keyManagement": "platform-managed",
        "target": "default",
        "mode": "enforce",
        "action": "report",
        "reasons": ["stopped"],
        "detail": "text",
        "fix": {"text": "Start it.", "command": "az aks start"},
        "decidedAt": NOW.isoformat(),
    }


def test_a_notice_of_a_cluster_that_was_never_read_names_it_all_the_same() -> None:
    notice = notice_of(Record(CLUSTER_ID, action=Action.REPORT, reasons=(Reason.UNREADABLE,), decided_at=NOW))

    assert notice is None or notice.said["clusterId"] == str(CLUSTER_ID)


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        pytest.param({"security": PMK}, False, id="all-is-well-again"),
        pytest.param({"security": PMK, "power": "Stopped"}, False, id="stopped-and-well"),
        pytest.param({"power": "Stopped"}, True, id="still-wrong"),
        pytest.param({}, True, id="wrong-in-another-way"),
    ],
)
def test_what_was_told_is_forgotten_once_it_is_over(said: dict[str, Any], kept: bool) -> None:
    """If it comes back, it is told again."""
    looked = looked_at(record(announced="token"), now=NOW, **said)

    assert (looked.announced is not None) is kept


def test_what_was_enforced_is_told_once_however_often_it_is_looked_at() -> None:
    first = looked_at(record(enforced_at=ENFORCED_AT), now=NOW, security=PMK)
    notice = notice_of(first)
    assert notice is not None

    again = looked_at(replace(first, announced=notice.token), now=NOW + MINUTE, security=PMK)

    assert told(again) == (notice.token, notice.id)
    assert again.announced == notice.token


# what is told of keys


def test_a_rotation_is_told_once_under_its_version() -> None:
    found = rotation()

    notice = notice_of_rotation(found)

    assert notice.kind is NoticeKind.ROTATION_DETECTED
    assert notice == notice_of_rotation(replace(found, fanned_out_at=NOW, detected_at=NOW)), "the same, if told twice"
    assert notice.id != notice_of_rotation(rotation(OTHER_VERSION)).id
    assert json.loads(json.dumps(notice.said)) == {
        "vault": "kv-kms",
        "key": "etcd",
        "version": VERSION,
        "how": "event",
        "created": NOW.isoformat(),
        "detectedAt": NOW.isoformat(),
    }


def test_a_version_of_which_only_the_name_is_known_is_told_too() -> None:
    notice = notice_of_rotation(replace(rotation(), version=KeyVersion(VERSION)))

    assert notice.said["created"] is None


def test_what_is_wrong_with_a_key_is_told_with_whom_it_stops_and_how_to_mend_it() -> None:
    finding = Finding(Reason.VERSION_EXPIRED, VERSION, (CLUSTER_ID,), 12, NOW)

    notice = notice_of_finding(KnownKey(KEY, VAULT_ID), finding)

    assert (notice.kind, notice.subject) == (NoticeKind.KEY_AT_RISK, "kv-kms/etcd")
    assert notice.id.startswith("risk|")
    assert json.loads(json.dumps(notice.said)) == {
        "vault": "kv-kms",
        "key": "etcd",
        "version": VERSION,
        "reason": "version-expired",
        "users": 12,
        "clusters": [str(CLUSTER_ID)],
        "since": NOW.isoformat(),
        "fix": notice.said["fix"],
    }
    assert VERSION in notice.said["fix"]["command"]
    assert notice == notice_of_finding(KnownKey(KEY, VAULT_ID), replace(finding, told=True)), "the same, if told twice"


# what is told of a pause


def test_a_pause_is_told_until_it_was_told() -> None:
    failed = FailedUpdate("one", CLUSTER_ID, NOW)
    paused = Enforcement(failures=(failed,) * 3).after_pausing(by=STOP_AFTER_FAILURES, why="three in a row", now=NOW)

    notice = notice_of_pause(paused)

    assert notice is not None
    assert (notice.kind, notice.subject, notice.id) == (
        NoticeKind.ENFORCEMENT_PAUSED,
        "enforcement",
        "paused|2026-03-02T09:00:00+00:00",
    )
    assert notice.said["failures"] == [str(CLUSTER_ID)] * 3
    assert notice_of_pause(paused.after_telling(NOW)) is None
    assert notice_of_pause(paused.after_telling(NOW - MINUTE)) == notice
    assert notice_of_pause(Enforcement()) is None
