"""What is wrong with a key, and whom it would stop: one row per finding."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from shared.clusters import ClusterId, KeyManagement
from shared.keyhealth import AT_RISK, SHOWN, Concern, Finding, KeyFacts, concerns, findings, is_found, mend, untold
from shared.keys import Grant, KeyVersion, RotationPolicy, VaultNetwork
from shared.policy import Keys
from shared.reasons import Reason, Subject, fix
from shared.rotation import Adoption, How, KeyUser, Need, Standing, Why
from tests.builders import CLUSTER_ID, NOW, RESOURCE_UID, SUBSCRIPTION, key, vault

DAY = timedelta(days=1)
OLD, NEW = "a" * 32, "b" * 32
OLD_VERSION = KeyVersion(OLD, True, NOW - 20 * DAY)
NEW_VERSION = KeyVersion(NEW, True, NOW - 10 * DAY)
OTHER = ClusterId(SUBSCRIPTION, "rg-apps", "aks-2")
LEFT = ClusterId(SUBSCRIPTION, "rg-apps", "aks-left")
ROTATES = RotationPolicy(rotates_after_creation="P1Y")
STAMPS = RotationPolicy(rotates_after_creation="P1Y", expires_in="P2Y")


def user(cluster: ClusterId = CLUSTER_ID, access: str = "Public", **said: Any) -> KeyUser:
    return KeyUser(cluster, RESOURCE_UID, KeyManagement.CUSTOMER_MANAGED, NOW - 40 * DAY, network_access=access, **said)


def legacy(cluster: ClusterId = CLUSTER_ID, access: str = "Public") -> KeyUser:
    return KeyUser(cluster, RESOURCE_UID, KeyManagement.LEGACY, NOW, version=OLD, network_access=access)


def needing(version: str, *clusters: ClusterId, how: Standing = Standing.NEEDED) -> dict[str, list[Need]]:
    return {version: [Need(cluster, RESOURCE_UID, how, Why.CURRENT) for cluster in clusters]}


NEW_IS_NEEDED = needing(NEW, CLUSTER_ID)


def facts(**said: Any) -> KeyFacts:
    """A key in order that one cluster follows; the keywords are those of KeyFacts."""
    defaults: dict[str, Any] = {
        "key": key(),
        "vault": vault(),
        "versions": [OLD_VERSION, NEW_VERSION],
        "users": [user(), user(LEFT, ended_at=NOW - DAY)],
        "picture": NEW_IS_NEEDED,
        "rotation_policy": ROTATES,
        "announced": True,
    }
    return KeyFacts(**defaults | said)


def found(of: KeyFacts) -> list[tuple[Reason, str | None, list[str]]]:
    """What is wrong by the defaults of the policy: 30 days before an expiry, 400 days of age."""
    return [(why, version, [one.name for one in whom]) for why, version, whom in concerns(of, Keys(), NOW)]


def test_a_key_in_order_has_nothing_wrong() -> None:
    assert found(facts()) == []


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        pytest.param({"vault": None}, (Reason.VAULT_MISSING, None, ["aks-1"]), id="no-vault"),
        pytest.param({"vault": None, "vault_deleted": True}, (Reason.VAULT_DELETED, None, ["aks-1"]), id="vault-gone"),
        pytest.param(
            {"vault": vault(purge_protection=False)}, (Reason.PURGE_PROTECTION_OFF, None, ["aks-1"]), id="purge"
        ),
        pytest.param({"key": None}, (Reason.KEY_MISSING, None, ["aks-1"]), id="no-key"),
        pytest.param({"key": None, "key_deleted": True}, (Reason.KEY_DELETED, None, ["aks-1"]), id="key-gone"),
        pytest.param({"key": key(enabled=False)}, (Reason.KEY_DISABLED, None, ["aks-1"]), id="disabled"),
        pytest.param({"key": key(expires=NOW)}, (Reason.KEY_EXPIRED, None, ["aks-1"]), id="expired"),
        pytest.param({"key": key(not_before=NOW + DAY)}, (Reason.KEY_NOT_YET_VALID, None, ["aks-1"]), id="not-yet"),
        pytest.param(
            {"key": key(expires=NOW + 30 * DAY)}, (Reason.KEY_NEAR_EXPIRY, None, ["aks-1"]), id="expires-in-30-days"
        ),
        pytest.param(
            {"versions": [replace(NEW_VERSION, created=NOW - 401 * DAY)]}, (Reason.KEY_TOO_OLD, None, []), id="too-old"
        ),
        pytest.param({"rotation_policy": RotationPolicy()}, (Reason.ROTATION_POLICY_MISSING, None, []), id="no-policy"),
        pytest.param({"announced": False}, (Reason.NOT_ANNOUNCED, None, []), id="nobody-tells"),
        pytest.param(
            {"access": {CLUSTER_ID: Grant.MISSING, OTHER: Grant.GRANTED}},
            (Reason.ACCESS_MISSING, None, ["aks-1"]),
            id="a-role-is-lost",
        ),
        pytest.param(
            {"access": {CLUSTER_ID: Grant.WRAP_ONLY, OTHER: Grant.UNKNOWN}},
            (Reason.ACCESS_WRAP_ONLY, None, ["aks-1"]),
            id="a-role-that-only-wraps",
        ),
    ],
)
def test_what_is_wrong_with_a_key_or_its_vault(said: dict[str, Any], expected: tuple[Any, ...]) -> None:
    assert found(facts(**said)) == [expected]


@pytest.mark.parametrize(
    ("said", "why"),
    [
        pytest.param({"key": key(expires=NOW + 31 * DAY)}, "it expires in more than 30 days", id="expiry"),
        pytest.param({"versions": [replace(NEW_VERSION, created=NOW - 400 * DAY)]}, "just 400 days old", id="age"),
        pytest.param({"versions": [replace(NEW_VERSION, created=None)]}, "nobody tells how old it is", id="no-age"),
        pytest.param({"rotation_policy": None}, "nobody tells of its rotation policy", id="policy"),
        pytest.param({"rotation_policy": RotationPolicy(rotates_before_expiry="P30D")}, "it rotates", id="before"),
        pytest.param({"announced": None}, "nobody asked who announces it", id="announced"),
        pytest.param({"versions": [], "picture": {}}, "no version is known", id="no-versions"),
        pytest.param({"rotation_policy": STAMPS}, "no version has an expiry", id="stamp-of-the-future"),
    ],
)
def test_what_is_not_wrong_with_a_key(said: dict[str, Any], why: str) -> None:
    assert found(facts(**said)) == [], why


NAMED = KeyVersion("c" * 32)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        pytest.param({}, [(Reason.KEY_NEAR_EXPIRY, None, ["aks-1"])], id="expires-soon"),
        pytest.param({"created": NOW - 401 * DAY, "expires": None}, [(Reason.KEY_TOO_OLD, None, [])], id="too-old"),
        pytest.param({"enabled": False}, [(Reason.KEY_DISABLED, None, ["aks-1"])], id="disabled"),
    ],
)
def test_a_version_that_an_event_alone_named_hides_nothing_of_the_one_that_is_there(
    said: dict[str, Any], expected: list[Any]
) -> None:
    current = replace(NEW_VERSION, **{"expires": NOW + DAY} | said)
    shown = key(enabled=current.enabled is True, expires=current.expires)

    known = facts(key=shown, versions=[OLD_VERSION, current, NAMED])

    assert found(known) == expected


VERSIONS_OF = needing(OLD, CLUSTER_ID) | needing(NEW, CLUSTER_ID)


@pytest.mark.parametrize(
    ("old", "expected"),
    [
        pytest.param({"enabled": False}, [(Reason.VERSION_DISABLED, OLD, ["aks-1"])], id="disabled"),
        pytest.param({"expires": NOW}, [(Reason.VERSION_EXPIRED, OLD, ["aks-1"])], id="expired"),
        pytest.param({"expires": NOW + 30 * DAY}, [(Reason.VERSION_NEAR_EXPIRY, OLD, ["aks-1"])], id="soon"),
        pytest.param({"expires": NOW + 31 * DAY}, [], id="not-soon"),
        pytest.param({"enabled": None}, [], id="nobody-says-whether-it-is-enabled"),
    ],
)
def test_what_is_wrong_with_an_old_version_that_somebody_needs(old: dict[str, Any], expected: list[Any]) -> None:
    versions = [replace(OLD_VERSION, **old), NEW_VERSION]

    assert found(facts(versions=versions, picture=VERSIONS_OF)) == expected


@pytest.mark.parametrize("how", [Standing.NOT_SHOWN_UNNEEDED, Standing.CANDIDATE])
def test_an_old_version_that_nobody_is_known_to_need_may_be_disabled(how: Standing) -> None:
    versions = [replace(OLD_VERSION, enabled=False, expires=NOW), NEW_VERSION]

    assert found(facts(versions=versions, picture=needing(OLD, CLUSTER_ID, how=how))) == []


def test_an_expiry_that_a_rotation_policy_stamps_is_a_finding_where_a_legacy_cluster_needs_the_version() -> None:
    old = replace(OLD_VERSION, expires=NOW + 300 * DAY)
    said: dict[str, Any] = {"versions": [old, NEW_VERSION], "users": [legacy()], "picture": needing(OLD, CLUSTER_ID)}

    assert found(facts(**said, rotation_policy=STAMPS)) == [(Reason.EXPIRY_STAMPED, OLD, ["aks-1"])]
    assert found(facts(**said, rotation_policy=ROTATES)) == []
    assert found(facts(**said | {"users": [user()]}, rotation_policy=STAMPS)) == []


@pytest.mark.parametrize(
    ("who", "network", "expected"),
    [
        pytest.param(user(), VaultNetwork.OPEN, None, id="open"),
        pytest.param(user(), VaultNetwork.SELECTED, Reason.VAULT_SELECTED_NETWORKS, id="public-selected"),
        pytest.param(user(), VaultNetwork.TRUSTED, Reason.VAULT_CLOSED, id="public-trusted"),
        pytest.param(user(), VaultNetwork.CLOSED, Reason.VAULT_CLOSED, id="public-closed"),
        pytest.param(user(), VaultNetwork.PERIMETER, Reason.VAULT_PERIMETER, id="public-perimeter"),
        pytest.param(user(access="Private"), VaultNetwork.TRUSTED, None, id="private-trusted"),
        pytest.param(
            user(access="Private"), VaultNetwork.SELECTED, Reason.VAULT_SELECTED_NETWORKS, id="private-selected"
        ),
        pytest.param(user(access="Private"), VaultNetwork.CLOSED, Reason.VAULT_WITHOUT_BYPASS, id="private-closed"),
        pytest.param(user(access="Private"), VaultNetwork.PERIMETER, Reason.VAULT_PERIMETER, id="private-perimeter"),
        pytest.param(legacy(access="Private"), VaultNetwork.CLOSED, None, id="legacy-by-its-private-endpoint"),
        pytest.param(legacy(), VaultNetwork.CLOSED, Reason.VAULT_CLOSED, id="legacy-public"),
    ],
)
def test_which_firewall_keeps_which_cluster_out(who: KeyUser, network: VaultNetwork, expected: Reason | None) -> None:
    of = facts(users=[who], vault=vault(network=network))

    assert found(of) == ([(expected, None, ["aks-1"])] if expected else [])


def test_a_firewall_may_stop_clusters_for_different_reasons() -> None:
    users = [user(), user(OTHER, access="Private")]

    assert found(facts(users=users, vault=vault(network=VaultNetwork.CLOSED))) == [
        (Reason.VAULT_CLOSED, None, ["aks-1"]),
        (Reason.VAULT_WITHOUT_BYPASS, None, ["aks-2"]),
    ]


def test_a_key_that_is_gone_hides_what_would_be_wrong_with_it_but_not_its_vault_s_faults() -> None:
    of = facts(key=None, vault=vault(purge_protection=False), versions=[replace(NEW_VERSION, created=None)])

    assert [why for why, *_ in found(of)] == [Reason.KEY_MISSING, Reason.PURGE_PROTECTION_OFF]


# findings over time

CONCERN: Concern = (Reason.KEY_DISABLED, None, [OTHER, CLUSTER_ID, OTHER])


def test_a_new_finding_counts_each_cluster_once_and_is_still_to_be_told() -> None:
    (finding,) = findings([CONCERN], [], everything_told=False, now=NOW)

    assert finding == Finding(Reason.KEY_DISABLED, None, (CLUSTER_ID, OTHER), 2, NOW)
    assert untold([finding]) == [finding]


def test_what_was_found_before_goes_on_since_then_and_is_not_told_again() -> None:
    before = Finding(Reason.KEY_DISABLED, None, (LEFT,), 1, NOW - DAY, told=True)

    (finding,) = findings([CONCERN], [before], everything_told=False, now=NOW)

    assert finding == replace(before, clusters=(CLUSTER_ID, OTHER), count=2)
    assert untold([finding]) == []


def test_the_same_fault_of_another_version_is_another_finding() -> None:
    before = Finding(Reason.VERSION_EXPIRED, OLD, (CLUSTER_ID,), 1, NOW - DAY, told=True)

    (finding,) = findings([(Reason.VERSION_EXPIRED, NEW, [CLUSTER_ID])], [before], everything_told=False, now=NOW)

    assert (finding.since, finding.told) == (NOW, False)


def test_a_finding_names_the_first_clusters_and_counts_all() -> None:
    many = [ClusterId(SUBSCRIPTION, "rg", f"aks-{number:02d}") for number in range(SHOWN + 5)]

    (finding,) = findings([(Reason.KEY_DISABLED, None, many[::-1])], [], everything_told=False, now=NOW)

    assert (finding.clusters, finding.count) == (tuple(many[:SHOWN]), SHOWN + 5)


def test_where_nobody_is_told_every_finding_counts_as_told() -> None:
    (finding,) = findings([CONCERN], [], everything_told=True, now=NOW)

    assert untold([finding]) == []


def test_what_stops_nobody_is_shown_and_not_told() -> None:
    harmless = findings(
        [(Reason.KEY_TOO_OLD, None, []), (Reason.KEY_DISABLED, None, []), (Reason.PURGE_PROTECTION_OFF, None, [OTHER])],
        [],
        everything_told=False,
        now=NOW,
    )

    assert untold(harmless) == []


ALL_OF_THEM = [
    *AT_RISK,
    *(Reason.PURGE_PROTECTION_OFF, Reason.KEY_TOO_OLD, Reason.ROTATION_POLICY_MISSING, Reason.NOT_ANNOUNCED),
    Reason.EXPIRY_STAMPED,
]


@pytest.mark.parametrize("reason", sorted(ALL_OF_THEM))
def test_every_finding_says_how_to_mend_it(reason: Reason) -> None:
    assert fix(reason, Subject(key="etcd", version=OLD)) is not None


@pytest.mark.parametrize(
    ("reason", "count", "verb"),
    [
        pytest.param(Reason.KEY_MISSING, 1, "key recover", id="a-key-in-use"),
        pytest.param(Reason.VAULT_MISSING, 1, "keyvault recover", id="a-vault-in-use"),
        pytest.param(Reason.KEY_MISSING, 0, "key create", id="a-key-that-nobody-uses"),
        pytest.param(Reason.KEY_DISABLED, 1, "--enabled true", id="anything-else"),
    ],
)
def test_what_clusters_use_is_to_be_recovered_and_not_made_anew(reason: Reason, count: int, verb: str) -> None:
    found = mend(Finding(reason, None, (), count, NOW), None, "etcd")

    assert found is not None
    assert verb in (found.command or "")


@pytest.mark.parametrize("reason", [Reason.KEY_EXPIRED, Reason.KEY_NEAR_EXPIRY, Reason.KEY_TOO_OLD])
def test_nobody_is_told_to_rotate_a_key_past_the_guard_of_legacy_clusters(reason: Reason) -> None:
    found = fix(reason, Subject(key="etcd"))

    assert found is not None
    assert "POST /api/keys/" in found.text
    assert "key rotate" not in (found.command or "")


@pytest.mark.parametrize(
    ("cause", "version", "found", "expected"),
    [
        (Reason.KEY_EXPIRED, None, (Reason.KEY_EXPIRED, None, 1), True),
        (Reason.KEY_NEAR_EXPIRY, None, (Reason.KEY_EXPIRED, None, 1), True),
        (Reason.KEY_EXPIRED, None, (Reason.KEY_NEAR_EXPIRY, None, 1), False),
        (Reason.KEY_EXPIRED, OLD, (Reason.VERSION_EXPIRED, OLD, 1), True),
        (Reason.KEY_EXPIRED, OLD, (Reason.KEY_EXPIRED, None, 1), False),
        (Reason.KEY_EXPIRED, None, (Reason.KEY_EXPIRED, None, 0), False),
        (Reason.ACCESS_POLICY_CHANGED, None, (Reason.ACCESS_MISSING, None, 1), False),
    ],
)
def test_an_event_is_told_as_a_finding_that_is_told_and_says_as_much(
    cause: Reason, version: str | None, found: tuple[Reason, str | None, int], expected: bool
) -> None:
    reason, of, count = found

    assert is_found([Finding(reason, of, (), count, NOW)], cause, version) is expected


def adopted(version: str, **said: Any) -> Adoption:
    due = NOW - 9 * DAY
    return Adoption(version, CLUSTER_ID, RESOURCE_UID, How.EXPECTED, NOW - 10 * DAY, expected_by=due, **said)


@pytest.mark.parametrize(
    ("newest", "expected"),
    [
        pytest.param(KeyVersion("c" * 32, True, NOW - 10 * DAY), ["still-in-use", "adoption-overdue"], id="read"),
        pytest.param(KeyVersion("c" * 32), [], id="named-by-an-event-alone"),
    ],
)
def test_nobody_is_late_for_a_version_that_may_not_be_there(newest: KeyVersion, expected: list[str]) -> None:
    in_use = adopted(NEW, first_seen=NOW - 9 * DAY, last_seen=NOW, last_tried=NOW)
    adoptions = [in_use, adopted(newest.version)]

    late = facts(versions=[OLD_VERSION, NEW_VERSION, newest], adoptions=adoptions, logs_read=True)

    assert [str(why) for why, *_ in found(late) if why in {Reason.STILL_IN_USE, Reason.ADOPTION_OVERDUE}] == expected
