"""Each obstacle on its own, their order, what is only warned of, and what a cluster is to be told."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from shared import prerequisites as rules
from shared.keys import Access, Grant, KeyId, VaultId, VaultNetwork
from shared.policy import NetworkAccess
from shared.prerequisites import OBSTACLES, Obstacle, Prerequisites, access_obstacle, obstacle, risk_of, warnings
from shared.reasons import Reason
from tests.builders import (
    KEY_URL,
    MINUTE,
    NOW,
    OTHER_TENANT,
    SECOND,
    SUBSCRIPTION,
    TENANT,
    access,
    key,
    prerequisites,
    vault,
)

NOTHING_THERE: dict[str, Any] = {"vault": None, "key": None, "access": None}


def answer(check: Obstacle, found: Prerequisites, asked: NetworkAccess | None = None) -> Reason | None:
    return check(found, asked, NOW)


# order


def test_the_obstacles_stand_in_this_order() -> None:
    assert [check.__name__ for check in OBSTACLES] == [
        "vault_is_missing",
        "vault_is_not_ready",
        "vault_is_foreign",
        "vault_is_out_of_reach",
        "key_is_missing",
        "key_is_disabled",
        "key_is_not_valid_now",
        "key_is_of_another_kind",
        "key_lacks_operations",
    ]


LADDER: list[tuple[Reason, dict[str, Any], dict[str, Any], dict[str, Any]]] = [
    # the reason, and what brings it about: in the survey, in the vault, in the key
    (Reason.VAULT_MISSING, {"vault": None}, {}, {}),
    (Reason.VAULT_OTHER_TENANT, {}, {"tenant": OTHER_TENANT}, {}),
    (Reason.VAULT_PERIMETER, {}, {"network": VaultNetwork.PERIMETER}, {}),
    (Reason.KEY_MISSING, {"key": None}, {}, {}),
    (Reason.KEY_DISABLED, {}, {}, {"enabled": False}),
    (Reason.KEY_NOT_YET_VALID, {}, {}, {"not_before": NOW + SECOND}),
    (Reason.KEY_EXPIRED, {}, {}, {"expires": NOW}),
    (Reason.KEY_TYPE_UNSUPPORTED, {}, {}, {"kind": "EC"}),
    (Reason.KEY_OPERATIONS_MISSING, {}, {}, {"operations": frozenset()}),
]


@pytest.mark.parametrize("rung", [pytest.param(number, id=row[0].value) for number, row in enumerate(LADDER)])
def test_what_stands_higher_decides_over_all_that_stands_lower(rung: int) -> None:
    of_the_survey: dict[str, Any] = {}
    of_the_vault: dict[str, Any] = {}
    of_the_key: dict[str, Any] = {}
    for _, surveyed, in_the_vault, in_the_key in reversed(LADDER[rung:]):
        of_the_survey |= surveyed
        of_the_vault |= in_the_vault
        of_the_key |= in_the_key
    there = {"vault": vault(**of_the_vault), "key": key(**of_the_key)}

    found = prerequisites(**there | of_the_survey)

    assert obstacle(found, None, NOW) is LADDER[rung][0]


@pytest.mark.parametrize("asked", [None, NetworkAccess.PUBLIC])
def test_nothing_stands_in_the_way_where_all_is_in_place(asked: NetworkAccess | None) -> None:
    assert obstacle(prerequisites(), asked, NOW) is None
    assert access_obstacle(prerequisites()) is None
    assert warnings(prerequisites()) == ()


# the vault


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        pytest.param({}, None, id="there"),
        pytest.param(NOTHING_THERE, Reason.VAULT_MISSING, id="never-there"),
        pytest.param(NOTHING_THERE | {"vault_deleted": True}, Reason.VAULT_DELETED, id="soft-deleted"),
        pytest.param(NOTHING_THERE | {"unreadable": True}, Reason.VAULT_UNREADABLE, id="out-of-sight"),
        pytest.param({"vault_deleted": True}, None, id="there-again-after-a-deletion"),
    ],
)
def test_a_vault_has_to_be_there(said: dict[str, Any], expected: Reason | None) -> None:
    assert answer(rules.vault_is_missing, prerequisites(**said)) is expected


@pytest.mark.parametrize(
    ("of_the_vault", "of_the_cluster", "expected"),
    [
        pytest.param(TENANT, TENANT, None, id="the-same"),
        pytest.param(TENANT.upper(), TENANT, None, id="the-same-in-another-casing"),
        pytest.param(OTHER_TENANT, TENANT, Reason.VAULT_OTHER_TENANT, id="another"),
        pytest.param(None, TENANT, None, id="the-vault-does-not-say"),
        pytest.param(TENANT, None, None, id="the-subscription-can-not-be-read"),
    ],
)
def test_a_vault_has_to_be_of_the_clusters_tenant(
    of_the_vault: str | None, of_the_cluster: str | None, expected: Reason | None
) -> None:
    found = prerequisites(vault=vault(tenant=of_the_vault), tenant=of_the_cluster)

    assert answer(rules.vault_is_foreign, found) is expected


NOT_ASKED, PUBLIC, PRIVATE = None, NetworkAccess.PUBLIC, NetworkAccess.PRIVATE


@pytest.mark.parametrize(
    ("network", "asked", "expected"),
    [
        (VaultNetwork.OPEN, NOT_ASKED, None),
        (VaultNetwork.OPEN, PUBLIC, None),
        (VaultNetwork.OPEN, PRIVATE, Reason.VAULT_OPEN),
        (VaultNetwork.TRUSTED, NOT_ASKED, None),
        (VaultNetwork.TRUSTED, PUBLIC, Reason.VAULT_CLOSED),
        (VaultNetwork.TRUSTED, PRIVATE, None),
        (VaultNetwork.CLOSED, NOT_ASKED, Reason.VAULT_WITHOUT_BYPASS),
        (VaultNetwork.CLOSED, PUBLIC, Reason.VAULT_CLOSED),
        (VaultNetwork.CLOSED, PRIVATE, Reason.VAULT_WITHOUT_BYPASS),
        (VaultNetwork.SELECTED, NOT_ASKED, Reason.VAULT_SELECTED_NETWORKS),
        (VaultNetwork.SELECTED, PUBLIC, Reason.VAULT_SELECTED_NETWORKS),
        (VaultNetwork.SELECTED, PRIVATE, Reason.VAULT_SELECTED_NETWORKS),
        (VaultNetwork.PERIMETER, NOT_ASKED, Reason.VAULT_PERIMETER),
        (VaultNetwork.PERIMETER, PUBLIC, Reason.VAULT_PERIMETER),
        (VaultNetwork.PERIMETER, PRIVATE, Reason.VAULT_PERIMETER),
    ],
    ids=str,
)
def test_a_vault_has_to_let_aks_in_as_the_target_asks(
    network: VaultNetwork, asked: NetworkAccess | None, expected: Reason | None
) -> None:
    found = prerequisites(vault=vault(network=network))

    assert answer(rules.vault_is_out_of_reach, found, asked) is expected


def test_no_network_is_left_out_of_the_table_above() -> None:
    assert len(VaultNetwork) == 5
    assert len(NetworkAccess) == 2


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        pytest.param(VaultNetwork.OPEN, NetworkAccess.PUBLIC, id="open"),
        pytest.param(VaultNetwork.TRUSTED, NetworkAccess.PRIVATE, id="trusted"),
    ],
)
def test_the_vaults_firewall_says_how_a_cluster_gets_in(network: VaultNetwork, expected: NetworkAccess) -> None:
    assert prerequisites(vault=vault(network=network)).network_access is expected


# the key


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        pytest.param({}, None, id="there"),
        pytest.param({"key": None}, Reason.KEY_MISSING, id="never-there"),
        pytest.param({"key": None, "key_deleted": True}, Reason.KEY_DELETED, id="soft-deleted"),
        pytest.param({"key": None, "unreadable": True}, Reason.VAULT_UNREADABLE, id="out-of-sight"),
        pytest.param({"key": None, "key_deleted": True, "unreadable": True}, Reason.VAULT_UNREADABLE, id="who-knows"),
        pytest.param({"key_deleted": True}, None, id="there-again-after-a-deletion"),
    ],
)
def test_a_key_has_to_be_there(said: dict[str, Any], expected: Reason | None) -> None:
    assert answer(rules.key_is_missing, prerequisites(**said)) is expected


def test_a_disabled_key_is_an_obstacle() -> None:
    assert answer(rules.key_is_disabled, prerequisites(key=key(enabled=False))) is Reason.KEY_DISABLED
    assert answer(rules.key_is_disabled, prerequisites()) is None


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        pytest.param({}, None, id="no-times"),
        pytest.param({"not_before": NOW + SECOND}, Reason.KEY_NOT_YET_VALID, id="just-before-it-is-valid"),
        pytest.param({"not_before": NOW}, None, id="exactly-when-it-becomes-valid"),
        pytest.param({"not_before": NOW - SECOND}, None, id="just-after-it-became-valid"),
        pytest.param({"expires": NOW + SECOND}, None, id="just-before-it-expires"),
        pytest.param({"expires": NOW}, Reason.KEY_EXPIRED, id="exactly-when-it-expires"),
        pytest.param({"expires": NOW - SECOND}, Reason.KEY_EXPIRED, id="just-after-it-expired"),
        pytest.param({"not_before": NOW - MINUTE, "expires": NOW + MINUTE}, None, id="between-both"),
        pytest.param(
            {"not_before": NOW + MINUTE, "expires": NOW - MINUTE}, Reason.KEY_NOT_YET_VALID, id="the-wrong-way-round"
        ),
    ],
)
def test_a_key_has_to_be_valid_now(said: dict[str, Any], expected: Reason | None) -> None:
    assert answer(rules.key_is_not_valid_now, prerequisites(key=key(**said))) is expected


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        pytest.param("RSA", None, id="rsa"),
        pytest.param("RSA-HSM", None, id="rsa-in-hardware"),
        pytest.param("rsa-hsm", None, id="in-another-casing"),
        pytest.param("EC", Reason.KEY_TYPE_UNSUPPORTED, id="ec"),
        pytest.param("EC-HSM", Reason.KEY_TYPE_UNSUPPORTED, id="ec-in-hardware"),
        pytest.param("oct-HSM", Reason.KEY_TYPE_UNSUPPORTED, id="symmetric"),
        pytest.param("RSA-NEW", Reason.KEY_TYPE_UNSUPPORTED, id="a-kind-nobody-knows"),
        pytest.param("", Reason.KEY_TYPE_UNSUPPORTED, id="no-kind"),
    ],
)
def test_a_key_has_to_be_of_rsa(kind: str, expected: Reason | None) -> None:
    assert answer(rules.key_is_of_another_kind, prerequisites(key=key(kind=kind))) is expected


@pytest.mark.parametrize(
    ("operations", "expected"),
    [
        pytest.param({"encrypt", "decrypt"}, None, id="both"),
        pytest.param({"encrypt", "decrypt", "wrapkey", "sign"}, None, id="more"),
        pytest.param({"encrypt"}, Reason.KEY_OPERATIONS_MISSING, id="encrypt-alone"),
        pytest.param({"decrypt"}, Reason.KEY_OPERATIONS_MISSING, id="decrypt-alone"),
        pytest.param({"wrapkey", "unwrapkey"}, Reason.KEY_OPERATIONS_MISSING, id="wrapping-is-another-thing"),
        pytest.param(set(), Reason.KEY_OPERATIONS_MISSING, id="none"),
    ],
)
def test_a_key_has_to_allow_to_encrypt_and_decrypt(operations: set[str], expected: Reason | None) -> None:
    found = prerequisites(key=key(operations=frozenset(operations)))

    assert answer(rules.key_lacks_operations, found) is expected


@pytest.mark.parametrize("check", OBSTACLES[1:], ids=lambda check: check.__name__)
def test_an_obstacle_passes_where_it_has_nothing_to_look_at(check: Obstacle) -> None:
    """So that no order of the obstacles, and no gap in what was found, makes a look fail."""
    found = Prerequisites(None, None, None)

    assert answer(check, found) in {None, Reason.KEY_MISSING}


# permission


@pytest.mark.parametrize(
    ("crypto", "expected"),
    [
        (Grant.GRANTED, None),
        (Grant.UNKNOWN, None),
        (Grant.MISSING, Reason.ACCESS_MISSING),
        (Grant.WRAP_ONLY, Reason.ACCESS_WRAP_ONLY),
    ],
)
@pytest.mark.parametrize("reading", list(Grant))
def test_an_identity_that_may_not_encrypt_is_an_obstacle(
    crypto: Grant, reading: Grant, expected: Reason | None
) -> None:
    assert access_obstacle(prerequisites(access=Access(crypto, reading))) is expected


def test_an_identity_that_nobody_asked_about_is_no_obstacle_but_unknown() -> None:
    found = prerequisites(access=None)

    assert access_obstacle(found) is None
    assert warnings(found) == (Reason.ACCESS_UNKNOWN,)


# warnings


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        pytest.param({"access": access(Grant.UNKNOWN)}, (Reason.ACCESS_UNKNOWN,), id="unknown"),
        pytest.param({"access": access(reading=Grant.MISSING)}, (Reason.READER_MISSING,), id="no-second-role"),
        pytest.param({"access": access(reading=Grant.UNKNOWN)}, (), id="the-second-role-can-not-be-told"),
        pytest.param({"vault": vault(purge_protection=False)}, (Reason.PURGE_PROTECTION_OFF,), id="purge"),
        pytest.param(
            {"access": access(Grant.UNKNOWN, Grant.MISSING), "vault": vault(purge_protection=False)},
            (Reason.ACCESS_UNKNOWN, Reason.READER_MISSING, Reason.PURGE_PROTECTION_OFF),
            id="all-of-them",
        ),
        pytest.param(NOTHING_THERE, (Reason.ACCESS_UNKNOWN,), id="nothing-there"),
    ],
)
def test_what_nothing_forbids_is_only_warned_of(said: dict[str, Any], expected: tuple[Reason, ...]) -> None:
    found = prerequisites(**said)

    assert warnings(found) == expected


def test_no_warning_is_an_obstacle() -> None:
    found = prerequisites(access=access(Grant.UNKNOWN, Grant.MISSING), vault=vault(purge_protection=False))

    assert obstacle(found, None, NOW) is None
    assert access_obstacle(found) is None


# the risk of a key in use


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        pytest.param(key(), None, id="all-is-well"),
        pytest.param(None, Reason.KEY_MISSING, id="gone"),
        pytest.param(key(enabled=False), Reason.KEY_DISABLED, id="disabled"),
        pytest.param(key(enabled=False, expires=NOW), Reason.KEY_DISABLED, id="disabled-and-expired"),
        pytest.param(key(expires=NOW + SECOND), None, id="just-before-it-expires"),
        pytest.param(key(expires=NOW), Reason.KEY_EXPIRED, id="exactly-when-it-expires"),
        pytest.param(key(expires=NOW - timedelta(days=9)), Reason.KEY_EXPIRED, id="long-expired"),
        pytest.param(key(not_before=NOW + SECOND), Reason.KEY_NOT_YET_VALID, id="not-yet-valid"),
        pytest.param(key(kind="EC", operations=frozenset()), None, id="whoever-uses-it-knows-its-kind"),
    ],
)
def test_a_key_in_use_is_at_risk_where_it_can_not_be_used(found: Any, expected: Reason | None) -> None:
    assert risk_of(found, NOW) is expected


# what a cluster is told


@pytest.mark.parametrize("uri", ["https://kv-kms.vault.azure.net/", "https://kv-kms.vault.azure.net"])
def test_a_cluster_is_told_the_vaults_own_address_and_no_version(uri: str) -> None:
    assert prerequisites(vault=vault(uri=uri)).key_url == KEY_URL


def test_the_vaults_address_counts_and_not_its_name() -> None:
    other = VaultId(SUBSCRIPTION, "rg-keys", "kv-other")

    found = prerequisites(vault=vault(id=other), key=key(id=KeyId("kv-other", "etcd")))

    assert found.key_url == KEY_URL


@pytest.mark.parametrize("said", [{"key": None}, {"vault": None}], ids=["no-key", "no-vault"])
def test_a_key_that_is_not_there_has_no_address(said: dict[str, Any]) -> None:
    with pytest.raises(AssertionError):
        _ = prerequisites(**said).key_url
