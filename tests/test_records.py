"""What the ledger remembers of clusters, and how a look changes it."""

from __future__ import annotations

import copy
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from shared.clusters import Cluster, Encryption, IdentityKind
from shared.decisions import CONTEST, OPERATION_DEADLINE, Change, Decision, Facts, decide
from shared.policy import Assignment, Mode
from shared.reasons import Action, Reason, Subject, fix
from shared.records import (
    OVERDUE_AFTER,
    STOP_AFTER_FAILURES,
    Claim,
    Enforcement,
    Record,
    Settlement,
    is_held_back,
    is_overdue,
    is_pending,
    is_stale,
    settlement_of_change,
)
from tests.builders import (
    CLUSTER_ID,
    CMK,
    ETAG,
    IDENTITY_ID,
    LEGACY,
    MINUTE,
    NOT_ENCRYPTED,
    NOW,
    OTHER_ETAG,
    OTHER_IDENTITY_ID,
    OTHER_RESOURCE_UID,
    PLATFORM_MANAGED,
    PMK,
    PRIVATE_CMK,
    PUBLIC_KEY,
    RESOURCE_UID,
    SECOND,
    assignment,
    change,
    claim,
    cluster,
    document,
    key_target,
    looked_at,
    prerequisites,
    record,
    refusal,
    waiting,
)

# what became of a claim

PATIENCE = MINUTE
FRESH, PATIENT, LATE, OVER = timedelta(), PATIENCE, OPERATION_DEADLINE - SECOND, OPERATION_DEADLINE
SAME, CHANGED = ETAG, OTHER_ETAG
DONE, FAILED, WITHDRAWN = Settlement.DONE, Settlement.FAILED, Settlement.WITHDRAWN


def settlement(claimed: Claim, found: Cluster, *, now: datetime, patience: timedelta) -> Settlement | None:
    assert isinstance(claimed.change, Change)
    return settlement_of_change(claimed, claimed.change, found, now=now, patience=patience)


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


TO_KEY = Change(NOT_ENCRYPTED, PUBLIC_KEY, ETAG)
TO_IDENTITY = Change(
    NOT_ENCRYPTED, NOT_ENCRYPTED, ETAG, identity=IDENTITY_ID, identity_before=IdentityKind.SYSTEM_ASSIGNED
)


@pytest.mark.parametrize(
    ("asked", "said", "expected"),
    [
        pytest.param(TO_KEY, {"security": CMK}, DONE, id="a-key-with-the-vault-that-azure-adds"),
        pytest.param(TO_KEY, {"security": CMK, "state": "Updating"}, None, id="a-key-not-in-effect-yet"),
        pytest.param(TO_KEY, {"security": CMK, "state": "Failed"}, FAILED, id="a-key-that-failed"),
        pytest.param(TO_KEY, {"security": PRIVATE_CMK}, WITHDRAWN, id="a-key-somebody-elses-way"),
        pytest.param(TO_KEY, {"security": PMK}, WITHDRAWN, id="no-key"),
        pytest.param(TO_IDENTITY, {}, DONE, id="an-identity"),
        pytest.param(TO_IDENTITY, {"assigned": (IDENTITY_ID.lower(),)}, DONE, id="an-identity-in-another-casing"),
        pytest.param(TO_IDENTITY, {"state": "Updating"}, None, id="an-identity-not-in-effect-yet"),
        pytest.param(TO_IDENTITY, {"state": "Failed"}, FAILED, id="an-identity-that-failed"),
        pytest.param(TO_IDENTITY, {"identity": "SystemAssigned"}, WITHDRAWN, id="no-identity"),
        pytest.param(TO_IDENTITY, {"assigned": (OTHER_IDENTITY_ID,)}, WITHDRAWN, id="somebody-elses-identity"),
    ],
)
def test_what_became_of_a_key_or_an_identity_is_told_from_the_cluster(
    asked: Change, said: dict[str, Any], expected: Settlement | None
) -> None:
    found = cluster(etag=CHANGED, **said)

    assert settlement(replace(claim(), change=asked), found, now=NOW, patience=PATIENCE) is expected


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
        pytest.param({"enforced_at": NOW}, id="enforced"),
        pytest.param({"set_back": (NOW,)}, id="set-back"),
        pytest.param({"announced": "token"}, id="told"),
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
    mended = record(detail="text", fix=fix(Reason.STOPPED, Subject(CLUSTER_ID)), change=change())

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

    assert looked.fix == fix(Reason.STOPPED, Subject(CLUSTER_ID))


@pytest.mark.parametrize("reason", [Reason.KEY_MISSING, Reason.VAULT_MISSING])
@pytest.mark.parametrize("uses_it", [True, False])
def test_what_a_cluster_is_encrypted_with_is_to_be_recovered_and_not_made_anew(
    reason: Reason, *, uses_it: bool
) -> None:
    found, decision = cluster(security=LEGACY if uses_it else {}), Decision(Action.REPORT, (reason,))

    looked = record().after_looking(found, assignment(asked=key_target(migrate=True)), decision, now=NOW)

    assert looked.fix is not None
    assert (" recover " in (looked.fix.command or "")) is uses_it
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


def test_a_row_says_how_to_mend_what_a_key_lacks_by_the_names_of_its_target() -> None:
    asked, facts = assignment(asked=key_target()), Facts(cluster(), prerequisites=prerequisites(key=None))

    looked = record().after_looking(cluster(), asked, decide(facts, asked, NOW), now=NOW)

    assert looked.reasons == (Reason.KEY_MISSING,)
    assert looked.fix is not None
    assert looked.fix.command is not None
    assert "--vault-name kv-kms --name etcd" in looked.fix.command


# two hands on one cluster

EARLIER, BEFORE_THAT = NOW - timedelta(hours=1), NOW - timedelta(hours=2)


@pytest.mark.parametrize(
    ("enforced_at", "set_back", "expected"),
    [
        pytest.param(None, (), (), id="never-enforced"),
        pytest.param(EARLIER, (), (NOW,), id="enforced-and-undone"),
        pytest.param(EARLIER, (BEFORE_THAT,), (BEFORE_THAT, NOW), id="enforced-again-and-undone-again"),
        pytest.param(BEFORE_THAT, (EARLIER,), (EARLIER,), id="undone-and-known-already"),
        pytest.param(EARLIER, (EARLIER,), (EARLIER,), id="at-the-same-moment"),
        pytest.param(None, (EARLIER,), (EARLIER,), id="undone-and-never-enforced"),
        pytest.param(
            EARLIER,
            (BEFORE_THAT - timedelta(days=9), BEFORE_THAT),
            (BEFORE_THAT, NOW),
            id="only-the-last-ones-are-kept",
        ),
    ],
)
def test_each_time_that_somebody_undoes_what_was_enforced_is_counted_once(
    enforced_at: datetime | None, set_back: tuple[datetime, ...], expected: tuple[datetime, ...]
) -> None:
    found = record(enforced_at=enforced_at, set_back=set_back)

    assert found.set_back_by(NOW) == expected
    assert len(expected) <= CONTEST


def test_a_contested_cluster_keeps_when_it_was_set_back_and_stays_contested() -> None:
    found = record(enforced_at=EARLIER, set_back=(BEFORE_THAT,))

    contested = looked_at(found, now=NOW)
    later = looked_at(contested, now=NOW + timedelta(days=30))

    assert contested.reasons == (Reason.CONTESTED,)
    assert contested.set_back == (BEFORE_THAT, NOW)
    assert later.says_the_same_as(contested)


# failures in a row


def settled(*ends: tuple[str, Settlement], state: Enforcement | None = None, stop_after: int = 3) -> Enforcement:
    """What becomes of the state when these claims are settled, one after another."""
    state = state or Enforcement()
    for intent, what in ends:
        state = state.after_settling(intent, CLUSTER_ID, what, stop_after=stop_after, now=NOW)
    return state


ONE, TWO, THREE = ((intent, Settlement.FAILED) for intent in ("one", "two", "three"))


def intents(state: Enforcement) -> list[str]:
    return [failure.intent for failure in state.failures]


def test_so_many_failures_in_a_row_pause() -> None:
    two, three = settled(ONE, TWO), settled(ONE, TWO, THREE)

    assert not two.paused
    assert three.paused
    assert (three.paused_since, three.paused_by, three.told) == (NOW, STOP_AFTER_FAILURES, False)
    assert three.why == "updates that failed in a row: rg-apps/aks-1, rg-apps/aks-1, rg-apps/aks-1"


def test_one_failure_pauses_where_the_policy_says_one() -> None:
    assert settled(ONE, stop_after=1).paused


def test_a_success_in_between_begins_anew() -> None:
    state = settled(ONE, TWO, ("good", Settlement.DONE), THREE)

    assert not state.paused
    assert intents(state) == ["three"]


@pytest.mark.parametrize("what", [Settlement.REFUSED, Settlement.WITHDRAWN, Settlement.GONE])
def test_what_neither_failed_nor_succeeded_does_not_count(what: Settlement) -> None:
    before = settled(ONE, TWO)

    assert settled(("other", what), state=before) == before


@pytest.mark.parametrize(
    ("ends", "left"),
    [
        pytest.param([ONE, ONE, ONE], ["one"], id="a-failure-three-times"),
        pytest.param([ONE, ("good", Settlement.DONE), ONE], [], id="a-failure-again-after-a-success"),
        pytest.param(
            [ONE, ("good", Settlement.DONE), TWO, ("good", Settlement.DONE)],
            ["two"],
            id="a-success-again-after-failure",
        ),
    ],
)
def test_a_settlement_that_is_repeated_counts_once(ends: list[tuple[str, Settlement]], left: list[str]) -> None:
    assert intents(settled(*ends)) == left


def test_a_success_that_no_failure_came_before_changes_nothing() -> None:
    assert settled(("good", Settlement.DONE)) == Enforcement()


def test_who_paused_first_and_why_stays_and_later_failures_are_kept() -> None:
    paused = Enforcement().after_pausing(by="operator", why="a freeze", now=NOW)

    state = settled(ONE, TWO, THREE, state=paused).after_pausing(by="another", why=None, now=NOW + MINUTE)

    assert (state.paused_since, state.paused_by, state.why) == (NOW, "operator", "a freeze")
    assert intents(state) == ["one", "two", "three"]


def test_resuming_counts_from_none_and_what_was_counted_before_not_again() -> None:
    resumed = settled(ONE, TWO, THREE).after_resuming()

    assert not resumed.paused
    assert settled(THREE, state=resumed) == resumed
    assert intents(settled(("four", Settlement.FAILED), state=resumed)) == ["four"]


def test_however_many_fail_the_state_stays_small() -> None:
    state = settled(*((f"intent-{number}", Settlement.FAILED) for number in range(1000)), stop_after=5000)

    assert len(state.failures) == len(state.settled) == 100
    assert state.paused, "a limit that can't be counted up to must not mean none"
    assert len(state.why or "") < 300


@pytest.mark.parametrize(
    ("reason", "held"),
    [(Reason.PAUSED, True), (Reason.WINDOW_CLOSED, True), (Reason.BUSY, False), (Reason.THROTTLED, False)],
)
def test_a_row_is_held_back_while_it_waits_for_that(reason: Reason, held: bool) -> None:
    waits = record(action=Action.WAIT, waiting=waiting(reason=reason))

    assert is_held_back(waits) is held
    assert not is_held_back(replace(waits, claim=claim()))
    assert not is_held_back(replace(waits, action=Action.REPORT))
