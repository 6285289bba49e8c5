"""What the ledger remembers, and how a look changes it."""

from __future__ import annotations

import copy
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from shared.clusters import Encryption
from shared.decisions import OPERATION_DEADLINE, Action, Decision, Facts, Reason, decide, fix
from shared.keys import KeyVersion
from shared.policy import Assignment, Mode
from shared.records import (
    OVERDUE_AFTER,
    Detection,
    KnownKey,
    Record,
    Rotation,
    Settlement,
    detected,
    is_overdue,
    is_pending,
    is_stale,
    settlement,
)
from tests.builders import (
    CLUSTER_ID,
    ETAG,
    KEY,
    LEGACY,
    MINUTE,
    NOT_ENCRYPTED,
    NOW,
    OTHER_ETAG,
    OTHER_RESOURCE_UID,
    OTHER_VERSION,
    PLATFORM_MANAGED,
    PMK,
    RESOURCE_UID,
    SECOND,
    VAULT_ID,
    VERSION,
    assignment,
    change,
    claim,
    cluster,
    document,
    key_version,
    record,
    refusal,
    rotation,
    waiting,
)

# what became of a claim

PATIENCE = MINUTE
FRESH, PATIENT, LATE, OVER = timedelta(), PATIENCE, OPERATION_DEADLINE - SECOND, OPERATION_DEADLINE
SAME, CHANGED = ETAG, OTHER_ETAG
DONE, FAILED, WITHDRAWN = Settlement.DONE, Settlement.FAILED, Settlement.WITHDRAWN

SETTLEMENTS: list[tuple[str, dict[str, Any], str, tuple[Settlement | None, ...]]] = [
    # the eTag, the profile, the state: what it is when fresh, patient, late, over
    (SAME, {}, "Succeeded", (None, WITHDRAWN, WITHDRAWN, WITHDRAWN)),
    (SAME, {}, "Updating", (None, WITHDRAWN, WITHDRAWN, WITHDRAWN)),
    (SAME, {}, "Failed", (None, WITHDRAWN, WITHDRAWN, WITHDRAWN)),
    (SAME, PMK, "Succeeded", (None, WITHDRAWN, WITHDRAWN, WITHDRAWN)),
    (SAME, PMK, "Updating", (None, WITHDRAWN, WITHDRAWN, WITHDRAWN)),
    (SAME, PMK, "Failed", (None, WITHDRAWN, WITHDRAWN, WITHDRAWN)),
    (CHANGED, {}, "Succeeded", (WITHDRAWN, WITHDRAWN, WITHDRAWN, WITHDRAWN)),
    (CHANGED, {}, "Updating", (WITHDRAWN, WITHDRAWN, WITHDRAWN, WITHDRAWN)),
    (CHANGED, {}, "Failed", (WITHDRAWN, WITHDRAWN, WITHDRAWN, WITHDRAWN)),
    (CHANGED, LEGACY, "Succeeded", (WITHDRAWN, WITHDRAWN, WITHDRAWN, WITHDRAWN)),
    (CHANGED, LEGACY | PMK, "Updating", (WITHDRAWN, WITHDRAWN, WITHDRAWN, WITHDRAWN)),
    (CHANGED, PMK, "Succeeded", (DONE, DONE, DONE, DONE)),
    (CHANGED, PMK, "Updating", (None, None, None, FAILED)),
    (CHANGED, PMK, "ReconcilingAddons", (None, None, None, FAILED)),
    (CHANGED, PMK, "Failed", (FAILED, FAILED, FAILED, FAILED)),
    (CHANGED, PMK, "Canceled", (FAILED, FAILED, FAILED, FAILED)),
]


@pytest.mark.parametrize(
    ("etag", "security", "state", "expected"),
    [
        pytest.param(*row, id=f"{'same' if row[0] == SAME else 'changed'}-{'+'.join(row[1]) or 'none'}-{row[2]}")
        for row in SETTLEMENTS
    ],
)
def test_what_became_of_a_claim_is_told_from_the_cluster(
    etag: str, security: dict[str, Any], state: str, expected: tuple[Settlement | None, ...]
) -> None:
    found = cluster(etag=etag, security=security, state=state)

    told = [settlement(claim(), found, now=NOW + age, patience=PATIENCE) for age in (FRESH, PATIENT, LATE, OVER)]

    assert tuple(told) == expected


@pytest.mark.parametrize(
    ("age", "expected"),
    [
        pytest.param(-SECOND, None, id="claimed-by-a-clock-that-is-ahead"),
        pytest.param(PATIENCE - SECOND, None, id="just-before"),
        pytest.param(PATIENCE, WITHDRAWN, id="exactly-at"),
        pytest.param(PATIENCE + SECOND, WITHDRAWN, id="just-after"),
    ],
)
def test_a_write_has_some_time_to_arrive(age: timedelta, expected: Settlement | None) -> None:
    assert settlement(claim(), cluster(), now=NOW + age, patience=PATIENCE) is expected


def test_a_pool_that_is_worked_on_leaves_a_claim_open() -> None:
    busy = cluster(etag=CHANGED, security=PMK, pools=("Succeeded", "Updating"))

    assert settlement(claim(), busy, now=NOW, patience=PATIENCE) is None


@pytest.mark.parametrize(
    ("claimed", "found", "gone"),
    [
        pytest.param(RESOURCE_UID, RESOURCE_UID, False, id="the-same"),
        pytest.param(RESOURCE_UID, OTHER_RESOURCE_UID, True, id="another"),
        pytest.param(None, OTHER_RESOURCE_UID, False, id="not-known-then"),
        pytest.param(RESOURCE_UID, None, False, id="not-known-now"),
    ],
)
@pytest.mark.parametrize("state", ["Succeeded", "Creating"])
def test_a_cluster_that_was_created_anew_is_not_the_one_that_was_claimed(
    claimed: str | None, found: str | None, gone: bool, state: str
) -> None:
    anew = cluster(resource_uid=found, etag=CHANGED, security=PMK, state=state)

    told = settlement(claim(resource_uid=claimed), anew, now=NOW, patience=PATIENCE)

    assert (told is Settlement.GONE) is gone


def test_telling_twice_gives_the_same_and_changes_nothing() -> None:
    claimed, found = claim(), cluster(etag=CHANGED, security=PMK)
    kept = copy.deepcopy((claimed, found))

    once, twice = (settlement(claimed, found, now=NOW, patience=PATIENCE) for _ in range(2))

    assert once is twice is DONE
    assert (claimed, found) == kept


# waits


@pytest.mark.parametrize(
    ("token", "found", "stale"),
    [
        pytest.param(None, None, False, id="an-event-always-looks"),
        pytest.param(None, record(waiting=waiting()), False, id="an-event-looks-beside-a-wait"),
        pytest.param("token-1", record(waiting=waiting(token="token-1")), False, id="the-token-that-is-awaited"),
        pytest.param("token-0", record(waiting=waiting(token="token-1")), True, id="another-token"),
        pytest.param("token-1", record(), True, id="no-wait-any-more"),
        pytest.param("token-1", None, True, id="no-row"),
        pytest.param("", record(waiting=waiting()), True, id="an-empty-token"),
    ],
)
def test_a_token_of_a_wait_that_is_over_is_stale(token: str | None, found: Record | None, stale: bool) -> None:
    assert is_stale(token, found) is stale


LOOK_AGAIN_AT = NOW + MINUTE
WAITS = waiting(look_again_at=LOOK_AGAIN_AT)


@pytest.mark.parametrize(
    ("said", "now", "pending", "overdue"),
    [
        pytest.param({}, NOW, False, False, id="no-wait"),
        pytest.param({"action": Action.WAIT, "waiting": WAITS}, NOW, True, False, id="waits"),
        pytest.param({"action": Action.WAIT, "waiting": WAITS}, LOOK_AGAIN_AT, True, False, id="due"),
        pytest.param(
            {"action": Action.WAIT, "waiting": WAITS},
            LOOK_AGAIN_AT + OVERDUE_AFTER - SECOND,
            True,
            False,
            id="just-before-it-is-overdue",
        ),
        pytest.param(
            {"action": Action.WAIT, "waiting": WAITS}, LOOK_AGAIN_AT + OVERDUE_AFTER, False, True, id="overdue"
        ),
        pytest.param(
            {"action": Action.WAIT, "waiting": WAITS},
            LOOK_AGAIN_AT + OVERDUE_AFTER + SECOND,
            False,
            True,
            id="long-overdue",
        ),
        pytest.param({"action": Action.REPORT, "waiting": WAITS}, NOW, False, False, id="given-up"),
        pytest.param(
            {"action": Action.REPORT, "waiting": WAITS}, NOW + timedelta(days=9), False, False, id="given-up-long-ago"
        ),
        pytest.param({"action": Action.REPORT, "waiting": WAITS, "claim": claim()}, NOW, True, False, id="claimed"),
        pytest.param(
            {"action": Action.REPORT, "waiting": WAITS, "claim": claim()},
            LOOK_AGAIN_AT + OVERDUE_AFTER,
            False,
            True,
            id="claimed-and-overdue",
        ),
        pytest.param({"action": Action.REPORT, "claim": claim()}, NOW, False, True, id="a-claim-nobody-comes-back-for"),
        pytest.param({"action": Action.WAIT}, NOW, False, False, id="a-wait-that-was-never-set"),
    ],
)
def test_a_wait_is_pending_until_it_is_overdue(
    said: dict[str, Any], now: datetime, pending: bool, overdue: bool
) -> None:
    found = record(**said)

    assert is_pending(found, now) is pending
    assert is_overdue(found, now) is overdue


# what a look changes

LOOKED = record().after_looking(cluster(), assignment(), decide(Facts(cluster()), assignment(), NOW), now=NOW)


def test_a_look_takes_over_what_was_read_asked_and_decided() -> None:
    assert LOOKED.resource_id == cluster().resource_id
    assert LOOKED.resource_uid == RESOURCE_UID
    assert (LOOKED.location, LOOKED.kubernetes) == ("westeurope", "1.33.3")
    assert LOOKED.encryption == NOT_ENCRYPTED
    assert (LOOKED.target, LOOKED.mode) == ("default", Mode.ENFORCE)
    assert (LOOKED.action, LOOKED.reasons) == (Action.WRITE, (Reason.NOT_AS_ASKED,))
    assert LOOKED.change == change()
    assert LOOKED.decided_at == NOW
    assert LOOKED.version == 'W/"1"'


def test_a_second_look_at_the_same_says_the_same() -> None:
    later = NOW + timedelta(hours=1)

    again = LOOKED.after_looking(cluster(), assignment(), decide(Facts(cluster()), assignment(), later), now=later)

    assert again.says_the_same_as(LOOKED)
    assert not again.decided_otherwise_than(LOOKED)


def test_a_new_version_of_the_row_says_the_same() -> None:
    assert replace(LOOKED, version='W/"2"').says_the_same_as(LOOKED)


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({"action": Action.REPORT}, id="action"),
        pytest.param({"reasons": (Reason.BUSY,)}, id="reasons"),
        pytest.param({"target": "payments"}, id="target"),
        pytest.param({"mode": Mode.AUDIT}, id="mode"),
        pytest.param({"encryption": PLATFORM_MANAGED}, id="encryption"),
    ],
)
def test_another_decision_is_an_activity(changed: dict[str, Any]) -> None:
    other = replace(LOOKED, **changed)

    assert other.decided_otherwise_than(LOOKED)
    assert not other.says_the_same_as(LOOKED)


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({"kubernetes": "1.34.0"}, id="version"),
        pytest.param({"waiting": waiting()}, id="wait"),
        pytest.param({"claim": claim()}, id="claim"),
        pytest.param({"refusal": refusal()}, id="refusal"),
        pytest.param({"detail": "text"}, id="detail"),
        pytest.param({"closed_at": NOW}, id="closed"),
        pytest.param({"resource_uid": OTHER_RESOURCE_UID}, id="incarnation"),
    ],
)
def test_another_fact_is_written_but_is_no_activity(changed: dict[str, Any]) -> None:
    other = replace(LOOKED, **changed)

    assert not other.says_the_same_as(LOOKED)
    assert not other.decided_otherwise_than(LOOKED)


def test_a_look_opens_a_closed_row() -> None:
    assert record(closed_at=NOW).after_reading(cluster()).closed_at is None


def test_a_look_keeps_the_incarnation_where_azure_says_none() -> None:
    assert record().after_reading(cluster(resource_uid=None)).resource_uid == RESOURCE_UID


@pytest.mark.parametrize(
    ("decision", "kept"),
    [
        pytest.param(Decision(Action.WAIT, (Reason.BUSY,)), True, id="still-waits"),
        pytest.param(Decision(Action.REPORT, (Reason.WAITED_TOO_LONG, Reason.BUSY)), True, id="given-up"),
        pytest.param(Decision(Action.REPORT, (Reason.FAILED,)), False, id="reported"),
        pytest.param(Decision(Action.NOTHING, (Reason.AS_ASKED,)), False, id="all-is-well"),
    ],
)
def test_a_wait_is_forgotten_once_it_is_over(decision: Decision, kept: bool) -> None:
    decided = record(waiting=waiting()).after_deciding(decision, now=NOW)

    assert (decided.waiting is not None) is kept


def test_a_new_decision_forgets_the_fix_and_detail_of_the_last_one() -> None:
    mended = record(detail="text", fix=fix(Reason.STOPPED, CLUSTER_ID), change=change())

    decided = mended.after_deciding(Decision(Action.NOTHING, (Reason.AS_ASKED,)), now=NOW)

    assert (decided.detail, decided.fix, decided.change) == (None, None, None)


@pytest.mark.parametrize(
    ("said", "assigned", "refused", "detail"),
    [
        pytest.param({}, assignment(exempt_because="somebody says so"), None, "somebody says so", id="exempt"),
        pytest.param({}, Assignment(faults=("one", "two")), None, "one; two", id="broken-policy"),
        pytest.param({}, Assignment(faults=("x" * 5000,)), None, "x" * 1000, id="cut-short"),
        pytest.param(
            {},
            assignment(),
            refusal(),
            "RequestDisallowedByPolicy: a policy says no",
            id="what-azure-said",
        ),
        pytest.param({"power": "Stopped"}, assignment(), None, None, id="no-more-to-say"),
    ],
)
def test_a_row_says_more_where_there_is_more(
    said: dict[str, Any], assigned: Assignment, refused: Any, detail: str | None
) -> None:
    found, before = cluster(**said), record(refusal=refused)

    looked = before.after_looking(found, assigned, decide(Facts(found, None, refused), assigned, NOW), now=NOW)

    assert looked.detail == detail


def test_a_row_says_how_to_mend_what_is_reported() -> None:
    stopped = cluster(power="Stopped")

    looked = record().after_looking(stopped, assignment(), decide(Facts(stopped), assignment(), NOW), now=NOW)

    assert looked.fix == fix(Reason.STOPPED, CLUSTER_ID)
    assert looked.fix is not None


def test_a_row_without_a_target_says_so() -> None:
    looked = record(target="default").after_assigning(Assignment())

    assert (looked.target, looked.mode) == (None, Mode.AUDIT)


def test_a_look_leaves_the_row_that_was_read_unchanged() -> None:
    before, read = record(waiting=waiting()), document()
    kept = copy.deepcopy((before, read))

    before.after_looking(cluster(), assignment(), decide(Facts(cluster()), assignment(), NOW), now=NOW)

    assert (before, read) == kept
    assert Encryption.read(read) == NOT_ENCRYPTED


# rotations


def known(*names: str, seen: bool = True) -> KnownKey:
    """A key with these versions in the ledger; `seen` says whether its vault was ever read."""
    return KnownKey(KEY, VAULT_ID if seen else None, tuple(map(rotation, names)))


def how(rotations: tuple[Rotation, ...]) -> dict[str, Detection]:
    return {one.version.version: one.how for one in rotations}


THIRD_VERSION = "3" * 32


@pytest.mark.parametrize(
    ("before", "versions", "announced", "expected"),
    [
        pytest.param(
            known(seen=False),
            (VERSION, OTHER_VERSION),
            None,
            {VERSION: Detection.BASELINE, OTHER_VERSION: Detection.BASELINE},
            id="at-first-sight-all-is-baseline",
        ),
        pytest.param(
            known(seen=False),
            (VERSION, OTHER_VERSION),
            OTHER_VERSION,
            {VERSION: Detection.BASELINE, OTHER_VERSION: Detection.EVENT},
            id="at-first-sight-but-for-the-announced-one",
        ),
        pytest.param(known(seen=False), (), VERSION, {VERSION: Detection.EVENT}, id="a-vault-that-can-not-be-read"),
        pytest.param(
            known(VERSION, seen=False),
            (VERSION, OTHER_VERSION),
            None,
            {OTHER_VERSION: Detection.BASELINE},
            id="announced-before-the-vault-could-be-read",
        ),
        pytest.param(
            known(VERSION), (OTHER_VERSION,), None, {OTHER_VERSION: Detection.SWEEP}, id="no-event-announced-it"
        ),
        pytest.param(
            known(VERSION),
            (OTHER_VERSION,),
            OTHER_VERSION,
            {OTHER_VERSION: Detection.EVENT},
            id="an-event-announced-it",
        ),
        pytest.param(
            known(VERSION),
            (OTHER_VERSION, THIRD_VERSION),
            THIRD_VERSION,
            {OTHER_VERSION: Detection.SWEEP, THIRD_VERSION: Detection.EVENT},
            id="the-event-before-it-was-lost",
        ),
        pytest.param(
            known(VERSION), (), OTHER_VERSION, {OTHER_VERSION: Detection.EVENT}, id="the-vault-does-not-show-it-yet"
        ),
        pytest.param(known(VERSION), (VERSION,), VERSION, {}, id="delivered-twice"),
        pytest.param(known(VERSION), (), None, {}, id="nothing-new"),
        pytest.param(known(), (), None, {}, id="a-key-without-versions"),
    ],
)
def test_new_versions_are_detected_each_once(
    before: KnownKey, versions: tuple[str, ...], announced: str | None, expected: dict[str, Detection]
) -> None:
    found = detected(before, tuple(map(key_version, versions)), announced, "event-1", NOW)

    assert how(found) == expected


def test_what_is_detected_is_known_the_next_time() -> None:
    versions = (key_version(VERSION), key_version(OTHER_VERSION))
    first = detected(known(seen=False), versions, VERSION, "event-1", NOW)

    second = detected(KnownKey(KEY, VAULT_ID, first), versions, VERSION, "event-1", NOW)

    assert second == ()


def test_versions_are_told_in_the_order_in_which_they_were_made() -> None:
    versions = (key_version("c" * 32, created=NOW - MINUTE), key_version("a" * 32), key_version("b" * 32, created=None))

    found = detected(known(), versions, None, None, NOW)

    assert [one.version.version for one in found] == ["c" * 32, "a" * 32, "b" * 32]


def test_a_detected_version_says_when_it_was_made_and_which_event_announced_it() -> None:
    versions = (key_version(VERSION), key_version(OTHER_VERSION))

    baseline, announced = sorted(
        detected(known(seen=False), versions, OTHER_VERSION, "event-1", NOW), key=lambda one: one.how
    )

    assert baseline == Rotation(KEY, key_version(VERSION), Detection.BASELINE, NOW, None, fanned_out_at=NOW)
    assert announced == Rotation(KEY, key_version(OTHER_VERSION), Detection.EVENT, NOW, "event-1", fanned_out_at=None)


def test_a_version_that_the_vault_does_not_show_is_logged_by_its_name_alone() -> None:
    (found,) = detected(known(), (), VERSION, "event-1", NOW)

    assert found.version == KeyVersion(VERSION)


def test_what_a_sweep_finds_names_no_event() -> None:
    (found,) = detected(known(), (key_version(),), None, "event-1", NOW)

    assert (found.how, found.event_id, found.fanned_out_at) == (Detection.SWEEP, None, None)
