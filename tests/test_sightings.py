"""What a log says of clusters: whose line it is, what it makes of an adoption, and how far back to read."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from shared.clusters import ClusterId, KeyManagement
from shared.keys import KeyVersion
from shared.rotation import Adoption, How, KeyUser, Standing, Why, picture
from shared.sightings import LATENESS, REACH, Sighting, log_window, merged, seen
from tests.builders import CLUSTER_ID, NOW, OTHER_VERSION, PRINCIPAL, SUBSCRIPTION, VERSION

HOUR = timedelta(hours=1)
BEGIN = NOW - 10 * HOUR
OLD, NEW = VERSION, OTHER_VERSION
VERSIONS = [KeyVersion(OLD, created=BEGIN), KeyVersion(NEW, created=BEGIN + HOUR)]
NEIGHBOUR = ClusterId(SUBSCRIPTION, "rg-apps", "aks-2")


def user(cluster: ClusterId = CLUSTER_ID, **said: Any) -> KeyUser:
    defaults: dict[str, Any] = {"since": BEGIN, "principal": PRINCIPAL}
    return KeyUser(cluster, "uid-1", KeyManagement.CUSTOMER_MANAGED, **defaults | said)


def expected(version: str = NEW, cluster: ClusterId = CLUSTER_ID, **said: Any) -> Adoption:
    defaults: dict[str, Any] = {"since": BEGIN + HOUR, "expected_by": BEGIN + 7 * HOUR}
    return Adoption(version, cluster, "uid-1", How.EXPECTED, **defaults | said)


def line(version: str = NEW, *, principal: str = PRINCIPAL, first: int | None = 8, last: int | None = 9) -> Sighting:
    """A sighting; times are hours after the beginning, the last of any kind is the ninth."""
    begin, end = (BEGIN + hours * HOUR if hours is not None else None for hours in (first, last))
    return Sighting(principal, version, begin, end, last_tried=BEGIN + 9 * HOUR)


def folded(users: list[KeyUser], adoptions: list[Adoption], *lines: Sighting) -> list[Adoption]:
    return seen(users, adoptions, lines, {OLD, NEW}, NOW - REACH)


def test_what_was_expected_is_seen_with_its_first_and_last_use() -> None:
    (found,) = folded([user()], [expected()], line())

    assert (found.how, found.first_seen, found.last_seen) == (How.SEEN, BEGIN + 8 * HOUR, BEGIN + 9 * HOUR)
    assert (found.expected_by, found.last_tried) == (BEGIN + 7 * HOUR, BEGIN + 9 * HOUR)
    assert folded([user()], [found], line()) == []


def test_the_first_use_stays_the_first_and_the_last_becomes_the_last() -> None:
    (before,) = folded([user()], [expected()], line(first=2, last=3))

    (after,) = folded([user()], [before], line(first=8, last=9))

    assert (after.first_seen, after.last_seen) == (BEGIN + 2 * HOUR, BEGIN + 9 * HOUR)


def test_a_principal_is_the_same_in_any_case() -> None:
    assert folded([user(principal=PRINCIPAL.upper())], [expected()], line()) != []


@pytest.mark.parametrize(
    ("users", "lines"),
    [
        pytest.param([user()], [], id="no-line"),
        pytest.param([user()], [line(principal="00000000-0000-0000-0000-0000000000ff")], id="somebody-else"),
        pytest.param([user()], [line("f" * 32)], id="a-version-that-is-not-known-yet"),
        pytest.param([user(principal=None)], [line()], id="a-cluster-without-an-identity"),
        pytest.param([user(ended_at=NOW, gone=True)], [line()], id="a-cluster-that-is-gone"),
        pytest.param([user(ended_at=NOW - REACH - 2 * HOUR)], [line()], id="a-cluster-that-left-long-ago"),
        pytest.param([user(since=NOW, begun_before=False)], [line()], id="a-use-before-its-time"),
    ],
)
def test_what_says_nothing_of_a_cluster_changes_nothing(users: list[KeyUser], lines: list[Sighting]) -> None:
    assert folded(users, [expected()], *lines) == []


def test_a_refused_use_is_a_try_and_no_sight() -> None:
    (found,) = folded([user()], [expected()], line(first=None, last=None))

    assert (found.how, found.first_seen, found.last_tried) == (How.EXPECTED, None, BEGIN + 9 * HOUR)


def test_of_a_use_that_began_before_the_cluster_only_the_last_is_its_own() -> None:
    (found,) = folded([user(since=BEGIN + 5 * HOUR, begun_before=False)], [expected()], line(first=1, last=9))

    assert found.first_seen == found.last_seen == BEGIN + 9 * HOUR


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(user(NEIGHBOUR), id="both-use-it-now"),
        pytest.param(user(NEIGHBOUR, ended_at=NOW - HOUR), id="one-has-left-since"),
        pytest.param(user(NEIGHBOUR, ended_at=NOW - HOUR, gone=True), id="one-is-gone-since"),
        pytest.param(
            user(NEIGHBOUR, principal="another", principals_before=((PRINCIPAL.upper(), NOW - HOUR),)),
            id="one-has-another-identity-since",
        ),
    ],
)
def test_what_may_have_been_another_cluster_is_no_sight_of_either(other: KeyUser) -> None:
    found = folded([user(), other], [expected()], line())

    (own,) = (one for one in found if one.cluster == CLUSTER_ID)
    assert (own.how, own.first_seen, own.last_tried) == (How.EXPECTED, None, BEGIN + 9 * HOUR)


def test_an_identity_that_another_cluster_had_long_ago_tells_of_its_owner() -> None:
    long_ago = ((PRINCIPAL, NOW - REACH - 26 * HOUR),)
    other = user(NEIGHBOUR, principal="another", principals_before=long_ago)

    (found,) = folded([user(), other], [expected()], line())

    assert (found.cluster, found.how) == (CLUSTER_ID, How.SEEN)


def test_a_version_that_nobody_expected_gets_an_adoption_of_its_own() -> None:
    (found,) = folded([user()], [expected()], line(OLD))

    assert (found.version, found.how, found.since) == (OLD, How.SEEN, BEGIN + 8 * HOUR)
    assert {one.version for one in merged([expected()], [found])} == {OLD, NEW}


def test_what_a_legacy_cluster_names_stays_named() -> None:
    named = Adoption(NEW, CLUSTER_ID, "uid-1", How.UPDATED, BEGIN, effective_at=BEGIN)

    (found,) = folded([user(version=NEW)], [named], line())

    assert (found.how, found.first_seen, found.effective_at) == (How.UPDATED, BEGIN + 8 * HOUR, BEGIN)


def test_a_legacy_cluster_s_slots_don_t_change_with_what_is_seen_and_what_is_in_use_is_needed() -> None:
    """It names the newest version; the log shows what ARM does not, its previous slot."""
    named = Adoption(NEW, CLUSTER_ID, "uid-1", How.UPDATED, NOW - HOUR, effective_at=NOW - HOUR)
    legacy = user(version=NEW)

    both = merged([named], folded([legacy], [named], line(OLD)))
    found = picture([legacy], both, VERSIONS, NOW)

    assert [(need.standing, need.why) for need in found[OLD]] == [(Standing.NEEDED, Why.IN_USE)]
    assert [need.why for need in found[NEW]] == [Why.CURRENT]
    (later,) = picture([legacy], both, VERSIONS, NOW + 30 * HOUR)[OLD]
    assert (later.standing, later.why) == (Standing.NOT_SHOWN_UNNEEDED, Why.HISTORY_UNKNOWN)


def test_a_version_that_is_seen_before_its_deadline_is_current() -> None:
    own = expected(expected_by=NOW + HOUR)

    found = picture([user()], merged([own], folded([user()], [own], line())), VERSIONS, NOW)

    assert [need.why for need in found[NEW]] == [Why.CURRENT]


DAY_AND_HOUR = timedelta(hours=25)


@pytest.mark.parametrize(
    ("adoptions", "begin"),
    [
        pytest.param([], NOW - REACH, id="nothing-was-ever-read"),
        pytest.param([expected()], NOW - REACH, id="nothing-was-seen-yet"),
        pytest.param(
            [expected(last_tried=NOW - HOUR)],
            NOW - DAY_AND_HOUR,
            id="all-is-seen",
        ),
        pytest.param(
            [expected(last_tried=NOW - 3 * DAY_AND_HOUR)],
            NOW - 3 * DAY_AND_HOUR - HOUR,
            id="nobody-has-looked-for-days",
        ),
        pytest.param(
            [expected(OLD, since=NOW - 200 * HOUR, last_tried=NOW - HOUR), expected(since=NOW - 100 * HOUR)],
            NOW - 100 * HOUR,
            id="a-move-is-open",
        ),
        pytest.param(
            [expected(OLD, since=NOW - 200 * HOUR), expected(since=NOW - 100 * HOUR, last_tried=NOW - HOUR)],
            NOW - DAY_AND_HOUR,
            id="a-version-was-skipped",
        ),
        pytest.param(
            [expected(OLD, last_tried=NOW - HOUR), expected(cluster=NEIGHBOUR, since=NOW - 100 * HOUR)],
            NOW - DAY_AND_HOUR,
            id="a-move-of-a-cluster-that-left",
        ),
        pytest.param([expected(last_tried=NOW - 2 * REACH)], NOW - REACH, id="never-further-than-it-reaches"),
    ],
)
def test_a_log_is_read_from_what_is_still_open_until_lines_may_be_late(adoptions: list[Adoption], begin: Any) -> None:
    users = [user(), user(NEIGHBOUR, ended_at=NOW - HOUR)]

    assert log_window(users, adoptions, NOW) == (begin, NOW - LATENESS)
