"""Which key version each cluster still needs: one row per rule."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from shared.clusters import ClusterId, KeyManagement
from shared.keys import KeyVersion
from shared.rotation import (
    Adoption,
    How,
    KeyUser,
    Need,
    Standing,
    Why,
    adopted_by,
    expected,
    expected_by,
    in_order,
    needs,
    picture,
    put_off,
    standing,
    succession,
    usable_from,
    user_of,
)
from tests.builders import (
    CLUSTER_ID,
    CMK,
    LEGACY,
    NOW,
    OTHER_RESOURCE_UID,
    PMK,
    PRINCIPAL,
    RESOURCE_UID,
    SUBSCRIPTION,
    VERSION,
    cluster,
)

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
ADOPTION = 6 * HOUR
OLD, MIDDLE, NEW = (letter * 32 for letter in "abc")
NAMES = {"old": OLD, "middle": MIDDLE, "new": NEW}
CREATED = {OLD: NOW - 30 * DAY, MIDDLE: NOW - 20 * DAY, NEW: NOW - 10 * DAY}
VERSIONS = [KeyVersion(name, enabled=True, created=created) for name, created in CREATED.items()]
OTHER = ClusterId(SUBSCRIPTION, "rg-apps", "aks-2")


def customer(**said: Any) -> KeyUser:
    """A cluster that has followed the key since before its first version."""
    defaults: dict[str, Any] = {"since": NOW - 40 * DAY, "begun_before": False}
    return KeyUser(CLUSTER_ID, RESOURCE_UID, KeyManagement.CUSTOMER_MANAGED, **defaults | said)


def legacy(**said: Any) -> KeyUser:
    """A cluster that names the newest version."""
    defaults: dict[str, Any] = {"since": NOW - 40 * DAY, "begun_before": False, "version": NEW}
    return KeyUser(CLUSTER_ID, RESOURCE_UID, KeyManagement.LEGACY, **defaults | said)


def due(version: str, when: timedelta, **said: Any) -> Adoption:
    """A customer-managed cluster is expected to have taken a version up by a moment, given from now."""
    return Adoption(version, CLUSTER_ID, RESOURCE_UID, How.EXPECTED, CREATED[version], expected_by=NOW + when, **said)


def seen(version: str, first: timedelta | None, last: timedelta, when: timedelta = -9 * DAY) -> Adoption:
    """The same, and the vault's log shows it in use from and until these moments."""
    return due(version, when, first_seen=NOW + first if first is not None else None, last_seen=NOW + last)


def named(version: str, since: timedelta, effective: timedelta | None = None) -> Adoption:
    """A legacy cluster names a version since a moment, and its update had ended by another."""
    return Adoption(
        version,
        CLUSTER_ID,
        RESOURCE_UID,
        How.UPDATED,
        NOW + since,
        effective_at=NOW + effective if effective is not None else None,
    )


def judged(user: KeyUser, adoptions: list[Adoption], versions: list[KeyVersion] | None = None) -> dict[str, str]:
    """How each version stands, in words."""
    known = VERSIONS if versions is None else versions
    found = needs(user, adoptions, known, [one.version for one in known], NOW)
    words = {name: word for word, name in NAMES.items()}
    return {words[version]: f"{need.standing}: {need.why}" for version, need in found.items()}


# customer-managed

A_DAY_AGO = [due(OLD, -29 * DAY), due(MIDDLE, -19 * DAY), due(NEW, -9 * DAY)]


@pytest.mark.parametrize(
    ("user", "adoptions", "expected"),
    [
        pytest.param(customer(), [due(OLD, -DAY)], {"old": "needed: current"}, id="it-has-taken-up-its-only-one"),
        pytest.param(customer(), [due(OLD, HOUR)], {"old": "needed: adopting"}, id="it-is-still-to-take-it-up"),
        pytest.param(customer(), [due(OLD, timedelta())], {"old": "needed: current"}, id="the-moment-it-is-due"),
        pytest.param(
            customer(),
            [due(OLD, -DAY), due(MIDDLE, HOUR)],
            {"old": "needed: not-left", "middle": "needed: adopting"},
            id="both-until-the-newer-one-is-due",
        ),
        pytest.param(
            customer(),
            [due(OLD, -DAY), due(MIDDLE, -HOUR)],
            {"old": "not-shown-unneeded: no-evidence", "middle": "needed: current"},
            id="due-is-no-proof",
        ),
        pytest.param(
            customer(),
            [due(OLD, -9 * DAY), due(MIDDLE, -DAY), due(NEW, HOUR)],
            {"old": "not-shown-unneeded: no-evidence", "middle": "needed: not-left", "new": "needed: adopting"},
            id="three-of-them",
        ),
        pytest.param(
            customer(gone=True, ended_at=NOW - HOUR),
            A_DAY_AGO,
            dict.fromkeys(NAMES, "not-shown-unneeded: gone"),
            id="gone",
        ),
        pytest.param(
            customer(ended_at=NOW - 23 * HOUR),
            A_DAY_AGO,
            dict.fromkeys(NAMES, "needed: leaving"),
            id="it-left-less-than-a-day-ago",
        ),
        pytest.param(
            customer(ended_at=NOW - 24 * HOUR),
            A_DAY_AGO,
            dict.fromkeys(NAMES, "not-shown-unneeded: no-evidence"),
            id="it-left-a-day-ago",
        ),
        pytest.param(
            customer(begun_before=True),
            [due(MIDDLE, -DAY)],
            {"old": "not-shown-unneeded: history-unknown", "middle": "needed: current"},
            id="nobody-knows-what-it-used-before",
        ),
        pytest.param(
            customer(),
            [due(MIDDLE, -DAY)],
            {"old": "not-shown-unneeded: history-unknown", "middle": "needed: current"},
            id="it-was-seen-with-this-one-first",
        ),
        pytest.param(customer(begun_before=True), [], {}, id="nothing-is-expected-of-it-yet"),
    ],
)
def test_how_versions_stand_with_a_cluster_that_follows_its_key(
    user: KeyUser, adoptions: list[Adoption], expected: dict[str, str]
) -> None:
    assert judged(user, adoptions) == expected


def test_a_disabled_version_is_never_taken_up_so_the_one_before_it_is_not_left() -> None:
    versions = [VERSIONS[0], replace(VERSIONS[1], enabled=False)]

    found = judged(customer(), [due(OLD, -9 * DAY), due(MIDDLE, -DAY)], versions)

    assert found["old"] == "needed: not-left"


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        pytest.param(
            due(OLD, -29 * DAY), seen(NEW, -25 * HOUR, -HOUR), "candidate: seen-elsewhere", id="a-day-on-another"
        ),
        pytest.param(due(OLD, -29 * DAY), seen(NEW, -25 * HOUR, -HOUR), "candidate: seen-elsewhere", id="just-a-day"),
        pytest.param(
            due(OLD, -29 * DAY), seen(NEW, -23 * HOUR, -HOUR), "not-shown-unneeded: no-evidence", id="not-a-day-yet"
        ),
        pytest.param(
            seen(OLD, -29 * DAY, -2 * HOUR),
            seen(NEW, -3 * DAY, -HOUR),
            "not-shown-unneeded: no-evidence",
            id="the-old-one-was-seen-since",
        ),
        pytest.param(
            due(OLD, -29 * DAY),
            seen(NEW, -5 * DAY, -4 * DAY, -2 * DAY),
            "not-shown-unneeded: no-evidence",
            id="the-log-went-silent",
        ),
        pytest.param(
            due(OLD, -29 * DAY), seen(NEW, None, -HOUR), "not-shown-unneeded: no-evidence", id="half-of-an-evidence"
        ),
        pytest.param(
            due(OLD, -29 * DAY),
            seen(NEW, -9 * DAY, -HOUR, -23 * HOUR),
            "not-shown-unneeded: no-evidence",
            id="less-than-a-day-since-it-was-due",
        ),
    ],
)
def test_only_a_day_of_the_log_makes_a_candidate(old: Adoption, new: Adoption, expected: str) -> None:
    assert judged(customer(), [old, new])["old"] == expected


def test_the_log_counts_for_a_cluster_that_has_left_too() -> None:
    user = customer(ended_at=NOW - HOUR)

    found = judged(user, [due(OLD, -29 * DAY), seen(NEW, -2 * DAY, -HOUR)])

    assert found == {
        "old": "candidate: seen-elsewhere",
        "middle": "candidate: seen-elsewhere",
        "new": "needed: leaving",
    }


# legacy

TWO = [named(MIDDLE, -20 * DAY, -20 * DAY), named(NEW, -10 * DAY, -10 * DAY)]
THREE = [named(OLD, -30 * DAY, -30 * DAY), *TWO]
BOTH_SLOTS = {"middle": "needed: previous-slot", "new": "needed: current"}


@pytest.mark.parametrize(
    ("user", "adoptions", "expected"),
    [
        pytest.param(legacy(), [], {}, id="nothing-is-known"),
        pytest.param(
            legacy(),
            [named(NEW, -DAY, -DAY)],
            {"new": "needed: current"} | dict.fromkeys(("old", "middle"), "not-shown-unneeded: history-unknown"),
            id="only-what-it-names-is-known",
        ),
        pytest.param(
            legacy(), TWO, {"old": "needed: not-rewritten"} | BOTH_SLOTS, id="a-version-before-what-is-known-of-it"
        ),
        pytest.param(
            legacy(rewritten_at=NOW - 15 * DAY),
            TWO,
            {"old": "candidate: rewritten"} | BOTH_SLOTS,
            id="rewritten-since-it-left-what-came-before",
        ),
        pytest.param(legacy(), THREE, {"old": "needed: not-rewritten"} | BOTH_SLOTS, id="in-no-slot-and-not-rewritten"),
        pytest.param(
            legacy(rewritten_at=NOW - 20 * DAY),
            THREE,
            {"old": "candidate: rewritten"} | BOTH_SLOTS,
            id="in-no-slot-and-rewritten",
        ),
        pytest.param(
            legacy(rewritten_at=NOW - 21 * DAY),
            THREE,
            {"old": "needed: not-rewritten"} | BOTH_SLOTS,
            id="rewritten-before-the-update",
        ),
        pytest.param(
            legacy(rewritten_at=NOW),
            [named(OLD, -30 * DAY, -30 * DAY), named(MIDDLE, -20 * DAY), named(NEW, -10 * DAY)],
            {"old": "needed: previous-slot"} | BOTH_SLOTS,
            id="no-update-was-seen-to-end-well",
        ),
        pytest.param(
            legacy(rewritten_at=NOW, gone=True, ended_at=NOW),
            THREE,
            dict.fromkeys(NAMES, "not-shown-unneeded: gone"),
            id="gone",
        ),
        pytest.param(
            legacy(rewritten_at=NOW - 2 * HOUR, ended_at=NOW - HOUR),
            THREE,
            dict.fromkeys(NAMES, "needed: not-rewritten"),
            id="it-left-and-was-not-rewritten-since",
        ),
        pytest.param(
            legacy(rewritten_at=NOW - HOUR, ended_at=NOW - HOUR),
            THREE,
            dict.fromkeys(NAMES, "candidate: rewritten") | {"new": "not-shown-unneeded: previous-slot"},
            id="it-left-and-was-rewritten",
        ),
    ],
)
def test_how_versions_stand_with_a_legacy_cluster(
    user: KeyUser, adoptions: list[Adoption], expected: dict[str, str]
) -> None:
    assert judged(user, adoptions) == expected


def test_a_legacy_cluster_that_went_back_to_a_version_holds_it_and_the_one_it_left() -> None:
    adoptions = [named(MIDDLE, -20 * DAY, -20 * DAY), named(NEW, -10 * DAY, -10 * DAY), named(OLD, -DAY, -DAY)]

    found = judged(legacy(version=OLD), adoptions)

    assert found == {
        "middle": "needed: not-rewritten",
        "new": "needed: previous-slot",
        "old": "needed: current",
    }


# all clusters of a key


def test_a_cluster_that_was_created_anew_begins_a_new_history_and_the_old_one_stays() -> None:
    old = customer(gone=True, ended_at=NOW - DAY)
    again = replace(customer(since=NOW - DAY), resource_uid=OTHER_RESOURCE_UID)
    adoptions = [due(OLD, -29 * DAY), replace(due(NEW, -DAY), resource_uid=OTHER_RESOURCE_UID)]

    found = picture([old, again], adoptions, VERSIONS, NOW)

    assert found == {
        OLD: [
            Need(CLUSTER_ID, RESOURCE_UID, Standing.NOT_SHOWN_UNNEEDED, Why.GONE, CREATED[OLD], NOW - 29 * DAY),
            Need(CLUSTER_ID, OTHER_RESOURCE_UID, Standing.NOT_SHOWN_UNNEEDED, Why.HISTORY_UNKNOWN),
        ],
        MIDDLE: [Need(CLUSTER_ID, OTHER_RESOURCE_UID, Standing.NOT_SHOWN_UNNEEDED, Why.HISTORY_UNKNOWN)],
        NEW: [Need(CLUSTER_ID, OTHER_RESOURCE_UID, Standing.NEEDED, Why.CURRENT, CREATED[NEW], NOW - DAY)],
    }


def test_a_version_that_only_a_cluster_names_is_in_the_picture() -> None:
    found = picture([legacy()], [named(NEW, -DAY)], VERSIONS[:2], NOW)

    assert [need.why for need in found[NEW]] == [Why.CURRENT]


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        pytest.param([], Standing.NOT_SHOWN_UNNEEDED, id="nobody-is-known-to-use-it"),
        pytest.param([Standing.CANDIDATE, Standing.CANDIDATE], Standing.CANDIDATE, id="all-say-candidate"),
        pytest.param(
            [Standing.CANDIDATE, Standing.NOT_SHOWN_UNNEEDED], Standing.NOT_SHOWN_UNNEEDED, id="one-is-unsure"
        ),
        pytest.param(list(Standing), Standing.NEEDED, id="one-needs-it"),
    ],
)
def test_a_version_stands_as_the_cluster_that_needs_it_most(found: list[Standing], expected: Standing) -> None:
    each = [Need(CLUSTER_ID, RESOURCE_UID, one, Why.CURRENT) for one in found]

    assert standing(each) is expected


def test_no_cluster_is_moved_to_a_version_that_an_event_alone_has_named() -> None:
    announced = KeyVersion("f" * 32)

    found = succession(legacy(version=OLD), [], [*VERSIONS, announced], NOW)

    assert found.newest == NEW


# what is expected


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        pytest.param(KeyVersion(VERSION, True, NOW), NOW + ADOPTION, id="six-hours-from-its-creation"),
        pytest.param(
            KeyVersion(VERSION, True, None), NOW - HOUR + ADOPTION, id="from-its-detection-if-nothing-is-told"
        ),
        pytest.param(KeyVersion(VERSION, None, NOW), NOW + ADOPTION, id="nobody-says-whether-it-is-enabled"),
        pytest.param(KeyVersion(VERSION, True, NOW, NOW + DAY), NOW + DAY + ADOPTION, id="from-its-start"),
        pytest.param(KeyVersion(VERSION, True, NOW, NOW - DAY), NOW + ADOPTION, id="its-start-is-over"),
        pytest.param(KeyVersion(VERSION, False, NOW), None, id="a-disabled-one-never"),
        pytest.param(
            KeyVersion(VERSION, True, NOW - DAY, enabled_since=NOW), NOW + ADOPTION, id="since-it-was-enabled-again"
        ),
        pytest.param(
            KeyVersion(VERSION, True, NOW - DAY, NOW + DAY, enabled_since=NOW), NOW + DAY + ADOPTION, id="starts-later"
        ),
        pytest.param(KeyVersion(VERSION, False, NOW - DAY, enabled_since=NOW), None, id="disabled-anew"),
    ],
)
def test_when_a_version_is_expected_to_be_taken_up(version: KeyVersion, expected: datetime | None) -> None:
    assert expected_by(version, NOW - HOUR, ADOPTION) == expected


def test_versions_are_in_the_order_in_which_they_were_made_whenever_each_starts() -> None:
    later = KeyVersion("d" * 32, True, NOW - 40 * DAY, not_before=NOW)
    same = KeyVersion("0" * 32, True, CREATED[NEW])
    announced = KeyVersion("f" * 32)

    order = in_order([(one, NOW) for one in (announced, later, *reversed(VERSIONS), same)])

    assert order == [later.version, OLD, MIDDLE, same.version, NEW, announced.version]
    assert usable_from(later, NOW - DAY) == NOW


STARTS_LATE = [VERSIONS[0], replace(VERSIONS[1], not_before=NOW - 2 * DAY), VERSIONS[2]]


def test_a_version_whose_start_came_after_a_newer_one_was_made_does_not_overtake_it() -> None:
    user = customer(since=NOW - 40 * DAY)
    adoptions = expected([user], (), [(one, NOW) for one in STARTS_LATE], ADOPTION)

    assert judged(user, adoptions, STARTS_LATE) == {
        "old": "not-shown-unneeded: no-evidence",
        "middle": "not-shown-unneeded: no-evidence",
        "new": "needed: current",
    }


@pytest.mark.parametrize(
    ("last", "standing"),
    [
        pytest.param(-19 * HOUR, "not-shown-unneeded: no-evidence", id="not-a-day-after-it-could-be-taken-up"),
        pytest.param(-18 * HOUR, "candidate: seen-elsewhere", id="a-day-after"),
    ],
)
def test_a_version_is_no_candidate_before_the_logs_go_a_day_beyond_its_own_start(
    last: timedelta, standing: str
) -> None:
    adoptions = [due(MIDDLE, -2 * DAY + ADOPTION), seen(NEW, -9 * DAY, last)]

    assert judged(customer(), adoptions, STARTS_LATE)["middle"] == standing


@pytest.mark.parametrize(
    ("user", "version", "expected"),
    [
        pytest.param(customer(), 0, True, id="made-since-it-uses-the-key"),
        pytest.param(customer(since=NOW - 15 * DAY), 1, True, id="the-newest-when-it-began"),
        pytest.param(customer(since=NOW - 15 * DAY), 0, False, id="an-older-one"),
        pytest.param(customer(since=NOW - 15 * DAY), 2, True, id="a-later-one"),
        pytest.param(customer(ended_at=NOW), 2, False, id="it-has-left"),
        pytest.param(legacy(), 2, False, id="a-legacy-cluster-names-its-own"),
    ],
)
def test_which_versions_a_cluster_is_to_take_up(user: KeyUser, version: int, expected: bool) -> None:
    assert adopted_by(user, VERSIONS[version], NOW, newest_before={MIDDLE}) is expected


def awaited(user: KeyUser, *known: Adoption, versions: list[KeyVersion] | None = None) -> list[tuple[str, ...]]:
    found = expected([user], known, [(one, NOW) for one in versions or VERSIONS], ADOPTION)
    assert {(one.cluster, one.resource_uid, one.how) for one in found} <= {(CLUSTER_ID, RESOURCE_UID, How.EXPECTED)}
    return [(one.version, str(one.since), str(one.expected_by)) for one in found]


def test_a_cluster_is_expected_to_take_up_the_newest_at_its_start_at_once_and_later_ones_within_six_hours() -> None:
    user = customer(since=NOW - 15 * DAY)

    assert awaited(user) == [
        (MIDDLE, str(user.since), str(user.since)),
        (NEW, str(CREATED[NEW]), str(CREATED[NEW] + ADOPTION)),
    ]


def test_what_is_known_is_not_expected_again() -> None:
    user = customer(since=NOW - 15 * DAY)

    assert [version for version, *_ in awaited(user, due(MIDDLE, -DAY))] == [NEW]
    assert awaited(user, due(MIDDLE, -DAY), due(NEW, -DAY)) == []
    assert awaited(user, replace(due(NEW, -DAY), resource_uid=OTHER_RESOURCE_UID)) == awaited(user)
    assert awaited(user, replace(due(NEW, -DAY), cluster=OTHER)) == awaited(user)


def test_nothing_is_expected_of_a_disabled_version_and_the_one_before_it_counts_as_the_newest() -> None:
    versions = [VERSIONS[0], replace(VERSIONS[1], enabled=False)]

    assert [version for version, *_ in awaited(customer(since=NOW - DAY), versions=versions)] == [OLD]


def test_a_cluster_that_begins_after_an_event_named_what_nobody_has_seen_is_expected_on_what_was_seen_too() -> None:
    user, dated = customer(since=NOW), [*((one, NOW - DAY) for one in VERSIONS), (KeyVersion("0" * 32), NOW - DAY)]

    adoptions = expected([user], (), dated, ADOPTION)
    found = needs(user, adoptions, [one for one, _ in dated], in_order(dated), NOW + DAY)

    assert [one.version for one in adoptions] == [NEW, "0" * 32]
    assert (found[NEW].standing, found[NEW].why) == (Standing.NEEDED, Why.NOT_LEFT)


def test_a_version_that_is_enabled_again_is_expected_anew_unless_it_was_seen_in_use() -> None:
    again = KeyVersion(NEW, True, CREATED[NEW], enabled_since=NOW - HOUR)
    known = [due(MIDDLE, -DAY), due(NEW, -DAY), replace(due(NEW, -DAY), cluster=OTHER, first_seen=NOW - DAY)]
    dated = [(VERSIONS[1], NOW), (again, NOW)]

    found = put_off(known, dated, ADOPTION, NOW)

    assert found == [replace(due(NEW, -DAY), expected_by=NOW - HOUR + ADOPTION)]
    assert put_off(found, dated, ADOPTION, NOW) == []
    assert put_off(known, dated, ADOPTION, NOW + ADOPTION) == [], "what is over is over"


def test_a_disabled_version_is_expected_by_no_time_and_stays_needed() -> None:
    versions = [VERSIONS[1], replace(VERSIONS[2], enabled=False)]
    adoptions = [due(MIDDLE, -DAY), due(NEW, HOUR)]

    found = needs(customer(), adoptions, versions, [MIDDLE, NEW], NOW)

    assert (found[NEW].standing, found[NEW].expected_by) == (Standing.NEEDED, None)
    assert found[MIDDLE].standing is Standing.NEEDED


@pytest.mark.parametrize("user", [legacy(), customer(ended_at=NOW)])
def test_nothing_is_expected_of_legacy_clusters_and_of_those_that_left(user: KeyUser) -> None:
    assert awaited(user) == []


# who uses a key


def test_a_customer_managed_cluster_uses_its_key_as_it_is() -> None:
    found = user_of(cluster(security=CMK), begun_before=True, now=NOW)

    assert found == KeyUser(
        CLUSTER_ID,
        RESOURCE_UID,
        KeyManagement.CUSTOMER_MANAGED,
        since=NOW,
        begun_before=True,
        network_access="Public",
        principal=PRINCIPAL,
    )
    assert not found.is_legacy


def test_a_legacy_cluster_uses_the_version_that_it_names() -> None:
    found = user_of(cluster(security=LEGACY), begun_before=False, now=NOW)

    assert found is not None
    assert (found.key_management, found.version, found.begun_before) == (KeyManagement.LEGACY, VERSION, False)
    assert found.is_legacy


@pytest.mark.parametrize(
    "security",
    [
        pytest.param({}, id="none"),
        pytest.param(PMK, id="platform-managed"),
        pytest.param({"azureKeyVaultKms": {"enabled": False, "keyId": None}}, id="turned-off"),
        pytest.param({"azureKeyVaultKms": {"enabled": True, "keyId": "https://evil.example/keys/x"}}, id="no-key"),
    ],
)
def test_a_cluster_without_a_key_that_can_be_read_uses_none(security: dict[str, Any]) -> None:
    assert user_of(cluster(security=security), begun_before=True, now=NOW) is None


def test_a_cluster_without_a_uid_is_one_incarnation() -> None:
    found = user_of(cluster(security=CMK, resource_uid=None), begun_before=True, now=NOW)

    assert found is not None
    assert found.resource_uid == "-"
