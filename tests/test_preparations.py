"""What the app would put in place for what is missing, what it leaves to people, and where the steps lead."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.clusters import Cluster
from shared.decisions import PROPAGATION, Change, Decision, Facts, decide, under_way
from shared.keys import Access, Grant, VaultNetwork
from shared.policy import Assignment, Keys, Mode, NetworkAccess, SecondRole, Target
from shared.preparations import (
    AdmitTrustedServices,
    CreateIdentity,
    CreateKey,
    CreateVault,
    GrantRole,
    Preparation,
    Role,
    preparation_for,
    rotates_every_days,
    view,
)
from shared.prerequisites import Prerequisites
from shared.reasons import Action, Reason
from tests.builders import (
    CMK,
    IDENTITY_ID,
    LEGACY,
    NOW,
    OTHER_IDENTITY_ID,
    OTHER_TENANT,
    PMK,
    PRINCIPAL,
    PROPERTY,
    SECOND,
    TENANT,
    VAULT_ID,
    access,
    assignment,
    cluster,
    document,
    key,
    key_target,
    prerequisites,
    refusal,
    vault,
)

CHANGING: dict[str, Any] = {"identity": IDENTITY_ID, "allowIdentityChange": True}
NOTHING_THERE: dict[str, Any] = {"vault": None, "key": None, "access": None}
NO_KEY: dict[str, Any] = {"key": None}
NO_ACCESS = Access(Grant.MISSING, Grant.MISSING)
WITH_POLICIES = vault(rbac=False)
CLOSED = vault(network=VaultNetwork.CLOSED)
TRUSTED = vault(network=VaultNetwork.TRUSTED)

MAKE_VAULT = CreateVault(VAULT_ID, "westeurope", TENANT, closed=False)
MAKE_KEY = CreateKey(VAULT_ID, "etcd", 370)
GRANT_CRYPTO = GrantRole(VAULT_ID, PRINCIPAL, Role.CRYPTO_USER)
GRANT_READER = GrantRole(VAULT_ID, PRINCIPAL, Role.READER)


def ensuring(*, mode: Mode = Mode.ENFORCE, second_role: SecondRole = SecondRole.READER, **said: Any) -> Assignment:
    """An assignment whose target says ensure; the other keywords are the target's own."""
    asked = key_target(**{"prerequisites": "ensure"} | said)
    return replace(assignment(asked=asked, mode=mode), second_role=second_role)


def decided(
    found: Prerequisites, assigned: Assignment | None = None, *, of: Cluster | None = None, **facts: Any
) -> Decision:
    """What is decided once the prerequisites were looked at."""
    return decide(Facts(of or cluster(), prerequisites=found, **facts), assigned or ensuring(), NOW)


# what is missing, and what is prepared for it


@pytest.mark.parametrize(
    ("found", "said", "reason", "expected"),
    [
        pytest.param(NOTHING_THERE, {}, Reason.VAULT_MISSING, MAKE_VAULT, id="no-vault"),
        pytest.param(
            NOTHING_THERE, {"networkAccess": "public"}, Reason.VAULT_MISSING, MAKE_VAULT, id="no-vault-public"
        ),
        pytest.param(
            NOTHING_THERE,
            {"networkAccess": "private"},
            Reason.VAULT_MISSING,
            replace(MAKE_VAULT, closed=True),
            id="no-vault-private",
        ),
        pytest.param(
            {"vault": CLOSED}, {}, Reason.VAULT_WITHOUT_BYPASS, AdmitTrustedServices(VAULT_ID), id="no-bypass"
        ),
        pytest.param(
            {"vault": replace(CLOSED, rbac=False)},
            {"networkAccess": "private"},
            Reason.VAULT_WITHOUT_BYPASS,
            AdmitTrustedServices(VAULT_ID),
            id="no-bypass-and-access-policies",
        ),
        pytest.param(NO_KEY, {}, Reason.KEY_MISSING, MAKE_KEY, id="no-key"),
        pytest.param(
            NO_KEY, {"key": "EtcD"}, Reason.KEY_MISSING, replace(MAKE_KEY, key="EtcD"), id="no-key-as-it-is-written"
        ),
        pytest.param({"access": NO_ACCESS}, {}, Reason.ACCESS_MISSING, GRANT_CRYPTO, id="no-access"),
        pytest.param({"access": access(Grant.WRAP_ONLY)}, {}, Reason.ACCESS_WRAP_ONLY, GRANT_CRYPTO, id="the-trap"),
        pytest.param(
            {"access": access(reading=Grant.MISSING)}, {}, Reason.READER_MISSING, GRANT_READER, id="no-second-role"
        ),
        pytest.param(
            {"access": access(reading=Grant.MISSING), "vault": WITH_POLICIES},
            {},
            Reason.READER_MISSING,
            GRANT_READER,
            id="no-second-role-beside-access-policies",
        ),
    ],
)
def test_what_is_missing_is_put_in_place(
    found: dict[str, Any], said: dict[str, Any], reason: Reason, expected: Preparation
) -> None:
    decision = decided(prerequisites(**found), ensuring(**said))

    assert decision == Decision(Action.ENSURE, (reason,), expected)


def test_an_identity_to_change_to_is_made_where_the_cluster_is() -> None:
    found = prerequisites(access=None, has_identity=False)
    elsewhere = cluster(identity="SystemAssigned", location="northeurope")

    decision = decided(found, ensuring(**CHANGING), of=elsewhere)

    assert decision == Decision(Action.ENSURE, (Reason.IDENTITY_MISSING,), CreateIdentity(IDENTITY_ID, "northeurope"))


def test_the_second_role_is_the_one_of_the_setting() -> None:
    found = prerequisites(access=access(reading=Grant.MISSING))

    decision = decided(found, ensuring(second_role=SecondRole.CONTRIBUTOR))

    assert decision.change == GrantRole(VAULT_ID, PRINCIPAL, Role.CONTRIBUTOR)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        pytest.param(NOTHING_THERE, {}, id="vault"),
        pytest.param({"vault": CLOSED}, {}, id="bypass"),
        pytest.param(NO_KEY, {}, id="key"),
        pytest.param({"access": NO_ACCESS}, {}, id="access"),
        pytest.param({"access": access(Grant.WRAP_ONLY)}, {}, id="the-trap"),
    ],
)
def test_a_target_that_says_check_reports_the_same_and_changes_nothing(
    found: dict[str, Any], said: dict[str, Any]
) -> None:
    ensured = decided(prerequisites(**found), ensuring(**said))

    checked = decided(prerequisites(**found), ensuring(prerequisites="check", **said))

    assert checked == Decision(Action.REPORT, ensured.reasons)


def test_a_target_that_says_check_warns_of_a_missing_second_role_and_writes() -> None:
    found = prerequisites(access=access(reading=Grant.MISSING))

    decision = decided(found, ensuring(prerequisites="check"))

    assert (decision.action, decision.reasons) == (Action.WRITE, (Reason.NOT_AS_ASKED, Reason.READER_MISSING))


def test_in_audit_the_same_preparation_is_named() -> None:
    found = prerequisites(**NOTHING_THERE)

    audited = decided(found, ensuring(mode=Mode.AUDIT))

    assert audited == decided(found)
    assert audited.change == MAKE_VAULT


def test_a_preparation_that_is_under_way_still_says_what_was_missing() -> None:
    decision = under_way(decided(prerequisites(**NOTHING_THERE)))

    assert (decision.action, decision.reasons) == (Action.WAIT, (Reason.PREPARING, Reason.VAULT_MISSING))
    assert decision.change == MAKE_VAULT


# what is left to people


@pytest.mark.parametrize(
    ("found", "said", "reason"),
    [
        pytest.param(NOTHING_THERE | {"vault_deleted": True}, {}, Reason.VAULT_DELETED, id="soft-deleted-vault"),
        pytest.param(NOTHING_THERE | {"unreadable": True}, {}, Reason.VAULT_UNREADABLE, id="unreadable"),
        pytest.param(NOTHING_THERE | {"tenant": None}, {}, Reason.VAULT_MISSING, id="a-tenant-that-nobody-tells"),
        pytest.param(NO_KEY | {"key_deleted": True}, {}, Reason.KEY_DELETED, id="soft-deleted-key"),
        pytest.param(NO_KEY | {"unreadable": True}, {}, Reason.VAULT_UNREADABLE, id="unreadable-key"),
        pytest.param({"tenant": OTHER_TENANT}, {}, Reason.VAULT_OTHER_TENANT, id="another-tenant"),
        pytest.param(
            {"vault": vault(network=VaultNetwork.PERIMETER)} | NO_KEY, {}, Reason.VAULT_PERIMETER, id="perimeter"
        ),
        pytest.param(
            {"vault": vault(network=VaultNetwork.SELECTED)} | NO_KEY,
            {},
            Reason.VAULT_SELECTED_NETWORKS,
            id="selected-networks",
        ),
        pytest.param(NO_KEY, {"networkAccess": "private"}, Reason.VAULT_OPEN, id="open-though-private"),
        pytest.param(
            {"vault": TRUSTED} | NO_KEY, {"networkAccess": "public"}, Reason.VAULT_CLOSED, id="closed-though-public"
        ),
        pytest.param(
            {"vault": CLOSED}, {"networkAccess": "public"}, Reason.VAULT_CLOSED, id="without-bypass-though-public"
        ),
        pytest.param({"key": key(enabled=False)}, {}, Reason.KEY_DISABLED, id="disabled-key"),
        pytest.param({"key": key(expires=NOW)}, {}, Reason.KEY_EXPIRED, id="expired-key"),
        pytest.param({"key": key(not_before=NOW + SECOND)}, {}, Reason.KEY_NOT_YET_VALID, id="key-not-yet-valid"),
        pytest.param({"key": key(kind="EC")}, {}, Reason.KEY_TYPE_UNSUPPORTED, id="another-kind-of-key"),
        pytest.param(
            {"key": key(operations=frozenset())}, {}, Reason.KEY_OPERATIONS_MISSING, id="a-key-without-operations"
        ),
        pytest.param({"vault": WITH_POLICIES, "access": NO_ACCESS}, {}, Reason.ACCESS_MISSING, id="access-policies"),
        pytest.param(
            {"vault": WITH_POLICIES, "access": access(Grant.WRAP_ONLY)},
            {},
            Reason.ACCESS_WRAP_ONLY,
            id="access-policies-and-the-trap",
        ),
    ],
)
def test_what_the_app_must_not_mend_is_reported(found: dict[str, Any], said: dict[str, Any], reason: Reason) -> None:
    decision = decided(prerequisites(**found), ensuring(**said))

    assert decision == Decision(Action.REPORT, (reason,))


def test_a_vault_that_is_being_made_is_waited_for() -> None:
    decision = decided(prerequisites(vault=vault(ready=False), key=None, access=NO_ACCESS))

    assert decision == Decision(Action.WAIT, (Reason.VAULT_NOT_READY,))


def test_access_that_hangs_on_a_condition_or_can_not_be_read_is_not_granted_beside() -> None:
    found = prerequisites(access=Access(Grant.UNKNOWN, Grant.UNKNOWN))

    decision = decided(found)

    assert (decision.action, decision.reasons) == (Action.WRITE, (Reason.NOT_AS_ASKED, Reason.ACCESS_UNKNOWN))


def test_access_to_a_private_vault_that_can_not_be_told_is_reported() -> None:
    found = prerequisites(access=Access(Grant.UNKNOWN, Grant.UNKNOWN), vault=TRUSTED)

    decision = decided(found, ensuring(networkAccess="private"))

    assert decision == Decision(Action.REPORT, (Reason.ACCESS_UNKNOWN,))


def test_an_identity_without_a_principal_is_granted_nothing() -> None:
    asked = ensuring()
    nameless = cluster(identity="UserAssigned", assigned=())

    granted = [
        preparation_for(reason, nameless, VAULT_ID, asked, prerequisites(access=NO_ACCESS))
        for reason in (Reason.ACCESS_MISSING, Reason.ACCESS_WRAP_ONLY, Reason.READER_MISSING)
    ]

    assert granted == [None, None, None]


def test_contributor_is_not_granted_where_it_could_write_itself_a_policy() -> None:
    found = prerequisites(vault=WITH_POLICIES, access=access(reading=Grant.MISSING))

    decision = decided(found, ensuring(second_role=SecondRole.CONTRIBUTOR))

    assert (decision.action, decision.reasons) == (Action.WRITE, (Reason.NOT_AS_ASKED, Reason.READER_MISSING))


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        pytest.param(NOTHING_THERE, Reason.VAULT_MISSING, id="vault"),
        pytest.param(NO_KEY, Reason.KEY_MISSING, id="key"),
    ],
)
@pytest.mark.parametrize("security", [pytest.param(LEGACY, id="legacy"), pytest.param(CMK, id="customer-managed")])
def test_what_the_cluster_encrypts_with_by_now_is_never_made_anew(
    security: dict[str, Any], found: dict[str, Any], reason: Reason
) -> None:
    asked = ensuring(migrate=True, allowUnconfirmed=True, networkAccess="private" if security is CMK else "public")
    network = {"vault": TRUSTED} if security is CMK and found == NO_KEY else {}

    decision = decided(prerequisites(**found | network), asked, of=cluster(security=security))

    assert decision == Decision(Action.REPORT, (reason,))


def test_another_key_in_the_vault_in_use_is_made_where_the_policy_allows_the_move() -> None:
    asked = ensuring(migrate=True, allowUnconfirmed=True, key="second")

    decision = decided(prerequisites(key=None), asked, of=cluster(security=LEGACY))

    assert decision.change == replace(MAKE_KEY, key="second")


@pytest.mark.parametrize(
    "reason",
    sorted(
        set(Reason)
        - {
            Reason.VAULT_MISSING,
            Reason.VAULT_WITHOUT_BYPASS,
            Reason.KEY_MISSING,
            Reason.IDENTITY_MISSING,
            Reason.ACCESS_MISSING,
            Reason.ACCESS_WRAP_ONLY,
            Reason.READER_MISSING,
        }
    ),
)
def test_no_other_reason_prepares_anything(reason: Reason) -> None:
    asked = ensuring(**CHANGING)

    assert preparation_for(reason, cluster(), VAULT_ID, asked, prerequisites(access=NO_ACCESS)) is None


def test_no_target_and_no_named_identity_prepare_nothing() -> None:
    own = ensuring()

    assert preparation_for(Reason.VAULT_MISSING, cluster(), VAULT_ID, Assignment(), prerequisites()) is None
    assert preparation_for(Reason.VAULT_MISSING, cluster(), VAULT_ID, assignment(), prerequisites()) is None
    assert preparation_for(Reason.IDENTITY_MISSING, cluster(), VAULT_ID, own, prerequisites()) is None


# nothing is prepared for a cluster that will not be written


@pytest.mark.parametrize(
    ("said", "asked", "facts", "reason"),
    [
        pytest.param({}, {}, {"set_back": (NOW, NOW)}, Reason.CONTESTED, id="contested"),
        pytest.param({"security": PMK}, {}, {}, Reason.ENCRYPTED_OTHERWISE, id="encrypted-otherwise"),
        pytest.param({"security": LEGACY | PMK}, {"migrate": True}, {}, Reason.AMBIGUOUS, id="ambiguous"),
        pytest.param(
            {"security": LEGACY}, {"migrate": True, "key": "other"}, {}, Reason.UNCONFIRMED_MOVE, id="unconfirmed"
        ),
        pytest.param({}, {}, {"refusal": refusal()}, Reason.BLOCKED, id="blocked"),
        pytest.param({"state": "Failed"}, {}, {}, Reason.FAILED, id="failed"),
        pytest.param({"state": "Updating"}, {}, {}, Reason.BUSY, id="busy"),
        pytest.param({"power": "Stopped"}, {}, {}, Reason.STOPPED, id="stopped"),
        pytest.param({"kubernetes": "1.32.9"}, {}, {}, Reason.KUBERNETES_TOO_OLD, id="too-old"),
        pytest.param(
            {"security": LEGACY, "kubernetes": "1.26.0"}, {"migrate": True}, {}, Reason.LEGACY_V1, id="legacy-v1"
        ),
        pytest.param({"identity": None}, {}, {}, Reason.IDENTITY_UNSUPPORTED, id="service-principal"),
        pytest.param({"identity": "SystemAssigned"}, {}, {}, Reason.IDENTITY_SYSTEM_ASSIGNED, id="system-assigned"),
        pytest.param({}, {"identity": OTHER_IDENTITY_ID}, {}, Reason.OTHER_IDENTITY, id="another-identity"),
        pytest.param({"etag": None}, {}, {}, Reason.NO_ETAG, id="no-etag"),
        pytest.param(
            {},
            {"vault": str(VAULT_ID).replace("kv-kms", "a-name-too-long-for-{name}")},
            {},
            Reason.VAULT_NAME_INVALID,
            id="no-vault-name",
        ),
    ],
)
def test_nothing_is_prepared_for_a_cluster_that_is_not_written_anyway(
    said: dict[str, Any], asked: dict[str, Any], facts: dict[str, Any], reason: Reason
) -> None:
    found = prerequisites(**NOTHING_THERE, has_identity=False)

    decision = decided(found, ensuring(**asked), of=cluster(**said), **facts)

    assert decision.reason is reason
    assert decision.action in {Action.REPORT, Action.WAIT}
    assert decision.change is None


def test_nothing_is_prepared_for_a_move_that_needs_kms_turned_off() -> None:
    asked = ensuring(migrate=True, key="other", allowUnconfirmed=True)
    found = prerequisites(vault=TRUSTED, key=None, access=NO_ACCESS)

    decision = decided(found, asked, of=cluster(security=LEGACY))

    assert decision == Decision(Action.REPORT, (Reason.NEEDS_OFF_AND_ON,))


def test_nothing_is_prepared_for_an_exempt_cluster_or_under_a_broken_policy() -> None:
    found = prerequisites(**NOTHING_THERE)

    exempt = decided(found, replace(ensuring(), exempt_because="is retired"))
    broken = decided(found, replace(ensuring(), faults=("a fault",)))
    as_asked = decided(found, of=cluster(security=CMK))

    assert [one.reason for one in (exempt, broken, as_asked)] == [
        Reason.EXEMPT,
        Reason.POLICY_BROKEN,
        Reason.AS_ASKED,
    ]
    assert {one.change for one in (exempt, broken, as_asked)} == {None}


def test_a_preparation_waits_for_its_window_and_for_the_end_of_a_pause() -> None:
    opens = NOW + timedelta(hours=3)
    found = prerequisites(**NOTHING_THERE)

    closed = decided(found, replace(ensuring(), window_opens=opens))
    paused = decided(found, paused=True)

    assert closed == Decision(Action.WAIT, (Reason.WINDOW_CLOSED, Reason.VAULT_MISSING), MAKE_VAULT, opens)
    assert paused == Decision(Action.WAIT, (Reason.PAUSED, Reason.VAULT_MISSING), MAKE_VAULT)


# the values


@pytest.mark.parametrize(
    ("max_age", "expected"),
    [
        pytest.param(400, 370, id="the-default"),
        pytest.param(38, 8, id="just-above-the-least"),
        pytest.param(37, 7, id="at-the-least"),
        pytest.param(28, 7, id="below-it"),
        pytest.param(3650, 3620, id="the-most"),
    ],
)
def test_a_key_of_ours_rotates_before_it_is_too_old_and_not_before_azure_lets_it(max_age: int, expected: int) -> None:
    asked = replace(ensuring(), keys=Keys.model_validate({"maxAgeDays": max_age}))

    made = decided(prerequisites(key=None), asked).change

    assert rotates_every_days(max_age) == expected
    assert made == CreateKey(VAULT_ID, "etcd", expected)
    assert expected < max_age


@pytest.mark.parametrize(
    ("preparation", "expected"),
    [
        pytest.param(
            MAKE_VAULT,
            {"step": "create-vault", "vault": str(VAULT_ID), "region": "westeurope", "tenant": TENANT, "closed": False},
            id="vault",
        ),
        pytest.param(
            AdmitTrustedServices(VAULT_ID), {"step": "admit-trusted-services", "vault": str(VAULT_ID)}, id="bypass"
        ),
        pytest.param(
            MAKE_KEY, {"step": "create-key", "vault": str(VAULT_ID), "key": "etcd", "rotatesEveryDays": 370}, id="key"
        ),
        pytest.param(
            CreateIdentity(IDENTITY_ID, "westeurope"),
            {"step": "create-identity", "identity": IDENTITY_ID, "region": "westeurope"},
            id="identity",
        ),
        pytest.param(
            GRANT_CRYPTO,
            {
                "step": "grant-role",
                "vault": str(VAULT_ID),
                "principal": PRINCIPAL,
                "role": "Key Vault Crypto User",
            },
            id="grant",
        ),
    ],
)
def test_a_preparation_is_shown_with_all_that_it_does(preparation: Preparation, expected: dict[str, Any]) -> None:
    assert view(preparation) == expected
    assert next(iter(view(preparation))) == "step"


# whatever there may be

NETWORKS = st.sampled_from([None, *NetworkAccess])
TARGETS = st.builds(
    lambda network, identity: key_target(prerequisites="ensure", networkAccess=network, migrate=True, **identity),
    NETWORKS,
    st.sampled_from([{}, CHANGING]),
)
ACCESS = st.builds(
    Access,
    st.sampled_from(Grant),
    st.sampled_from(Grant),
    st.sampled_from([None, NOW, NOW - PROPAGATION]),
)
VAULTS = st.builds(
    vault,
    network=st.sampled_from(VaultNetwork),
    rbac=st.booleans(),
    ready=st.sampled_from([True, True, False]),
    purge_protection=st.booleans(),
)
KEYS = st.builds(
    key,
    enabled=st.sampled_from([True, True, False]),
    kind=st.sampled_from(["RSA", "RSA", "EC"]),
    expires=st.sampled_from([None, None, NOW]),
)
FOUND = st.builds(
    prerequisites,
    vault=st.none() | VAULTS,
    key=st.none() | KEYS,
    access=st.none() | ACCESS,
    tenant=st.sampled_from([None, TENANT, TENANT, OTHER_TENANT]),
    vault_deleted=st.sampled_from([False, False, True]),
    key_deleted=st.sampled_from([False, False, True]),
    unreadable=st.sampled_from([False, False, True]),
    has_identity=st.sampled_from([None, True, False]),
)
CLUSTERS = st.builds(
    document,
    identity=st.sampled_from(["UserAssigned", "SystemAssigned"]),
    assigned=st.sampled_from([(IDENTITY_ID,), (IDENTITY_ID,), ()]),
    security=st.sampled_from([{}, {}, PMK, LEGACY]),
)
SECOND_ROLES = st.sampled_from(SecondRole)


def mends(preparation: Preparation, found: Prerequisites) -> bool:
    """Whether a preparation makes what is not there, and nothing that is."""
    held = found.access
    match preparation:
        case CreateVault():
            return found.vault is None and not found.vault_deleted and not found.unreadable
        case AdmitTrustedServices():
            return found.vault is not None and found.vault.network is VaultNetwork.CLOSED
        case CreateKey():
            return found.vault is not None and found.key is None and not found.key_deleted and not found.unreadable
        case CreateIdentity():
            return found.has_identity is False
        case GrantRole(role=Role.CRYPTO_USER):
            return (
                found.vault is not None
                and found.vault.rbac
                and held is not None
                and held.crypto
                not in {
                    Grant.GRANTED,
                    Grant.UNKNOWN,
                }
            )
        case GrantRole():
            return found.vault is not None and held is not None and held.reading is Grant.MISSING


@PROPERTY
@given(CLUSTERS, TARGETS, FOUND, SECOND_ROLES)
def test_nothing_that_exists_is_ever_made(
    read: dict[str, Any], asked: Target, found: Prerequisites, second: SecondRole
) -> None:
    assigned = replace(assignment(asked=asked), second_role=second)

    decision = decide(Facts(Cluster.read(read, read), prerequisites=found), assigned, NOW)

    assert isinstance(decision.change, Preparation) is (decision.action is Action.ENSURE)
    if isinstance(decision.change, Preparation):
        assert mends(decision.change, found)


def applied(preparation: Preparation, found: Prerequisites) -> Prerequisites:
    """What a survey finds once a preparation was made, an hour later."""
    match preparation:
        case CreateVault(closed=closed):
            made = vault(network=VaultNetwork.TRUSTED if closed else VaultNetwork.OPEN)
            return replace(found, vault=made, key=None, access=found.access and NO_ACCESS)
        case AdmitTrustedServices():
            assert found.vault is not None
            return replace(found, vault=replace(found.vault, network=VaultNetwork.TRUSTED))
        case CreateKey():
            return replace(found, key=key())
        case CreateIdentity():
            return replace(found, has_identity=True)
        case GrantRole(role=Role.CRYPTO_USER):
            assert found.access is not None
            return replace(found, access=replace(found.access, crypto=Grant.GRANTED))
        case GrantRole():
            assert found.access is not None
            return replace(found, access=replace(found.access, reading=Grant.GRANTED))


ORDER = (CreateVault, AdmitTrustedServices, CreateKey, CreateIdentity, GrantRole)


def steps_to_the_end(read: Cluster, assigned: Assignment, found: Prerequisites) -> tuple[list[Preparation], Decision]:
    """Apply one preparation after the other, until something else is decided."""
    steps: list[Preparation] = []
    while True:
        decision = decide(Facts(read, prerequisites=found), assigned, NOW)
        if not isinstance(decision.change, Preparation):
            return steps, decision
        steps.append(decision.change)
        assert len(steps) <= 6, f"the steps don't end: {steps}"
        found = applied(decision.change, found)


@PROPERTY
@given(CLUSTERS, TARGETS, FOUND, SECOND_ROLES)
def test_the_steps_end_each_is_made_once_and_in_their_order(
    read: dict[str, Any], asked: Target, found: Prerequisites, second: SecondRole
) -> None:
    assigned = replace(assignment(asked=asked), second_role=second)

    steps, decision = steps_to_the_end(Cluster.read(read, read), assigned, found)

    assert len(set(steps)) == len(steps)
    ranks = [ORDER.index(type(step)) for step in steps]
    assert ranks == sorted(ranks)
    assert decision.action in {Action.WRITE, Action.REPORT, Action.WAIT}
    if isinstance(decision.change, Change) and decision.change.identity is None:
        assert decision.change.after.kms_enabled


MAKEABLE = st.builds(
    prerequisites,
    vault=st.none()
    | st.builds(vault, network=st.sampled_from([VaultNetwork.OPEN, VaultNetwork.TRUSTED, VaultNetwork.CLOSED])),
    key=st.none() | st.just(key()),
    access=st.builds(Access, st.sampled_from([Grant.GRANTED, Grant.MISSING, Grant.WRAP_ONLY]), st.sampled_from(Grant)),
    has_identity=st.sampled_from([True, False]),
)


@PROPERTY
@given(st.sampled_from([{}, PMK]), MAKEABLE, SECOND_ROLES)
def test_from_whatever_the_app_can_mend_the_steps_lead_to_the_write(
    security: dict[str, Any], found: Prerequisites, second: SecondRole
) -> None:
    assigned = replace(ensuring(migrate=True), second_role=second)

    steps, decision = steps_to_the_end(cluster(security=security), assigned, replace(found, has_identity=None))

    assert len(steps) <= 4
    assert decision.action is Action.WRITE
    assert isinstance(decision.change, Change)
    assert decision.change.after.kms_enabled


@PROPERTY
@given(MAKEABLE)
def test_from_whatever_the_app_can_mend_a_system_assigned_cluster_comes_to_its_identity(found: Prerequisites) -> None:
    system_assigned = cluster(identity="SystemAssigned")

    steps, decision = steps_to_the_end(system_assigned, ensuring(**CHANGING), replace(found, access=None))

    assert not any(isinstance(step, GrantRole) for step in steps)
    assert decision.reason is Reason.IDENTITY_TO_CHANGE


def test_from_nothing_the_steps_are_these() -> None:
    found = prerequisites(**NOTHING_THERE | {"access": NO_ACCESS})

    steps, decision = steps_to_the_end(cluster(), ensuring(networkAccess="private"), found)

    assert steps == [replace(MAKE_VAULT, closed=True), MAKE_KEY, GRANT_CRYPTO, GRANT_READER]
    assert decision.action is Action.WRITE
    assert isinstance(decision.change, Change)
    assert decision.change.after.network_access == "Private"
