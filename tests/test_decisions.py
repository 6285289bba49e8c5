"""Each check on its own, their order, and what `decide` promises for every document there may be."""

from __future__ import annotations

import copy
from dataclasses import fields, replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared import decisions
from shared.clusters import Cluster, ClusterId, Encryption, IdentityKind, KeyManagement, asking_for
from shared.decisions import (
    BLOCKED_FOR,
    CHECKS,
    CONTESTED_WITHIN,
    DEADLINES,
    HELD_BACK,
    OPERATION_DEADLINE,
    PROPAGATION,
    VISIBILITY_DEADLINE,
    Change,
    Check,
    Decision,
    Facts,
    changes_something,
    decide,
    is_propagating,
    reason_of,
    subject_of,
    vault_of,
    within_deadline,
    would_write,
)
from shared.errors import Malformed, Refused
from shared.keys import Access, Grant, VaultId, VaultNetwork
from shared.policy import OWN, Assignment, Mode, NetworkAccess, PolicyInForce, Target
from shared.prerequisites import access_obstacle, obstacle, warnings
from shared.reasons import Action, Reason, Subject, fix
from shared.rights import Right
from tests.builders import (
    CLUSTER_ID,
    CMK,
    ETAG,
    IDENTITY_ID,
    KEY_URL,
    LEGACY,
    LEGACY_URL,
    NOT_ENCRYPTED,
    NOW,
    OTHER_ETAG,
    OTHER_IDENTITY_ID,
    OTHER_SUBSCRIPTION,
    OTHER_TENANT,
    PLATFORM_MANAGED,
    PMK,
    PRINCIPAL,
    PRIVATE_CMK,
    PRIVATE_KEY,
    PROPERTY,
    PUBLIC_KEY,
    SECOND,
    SUBSCRIPTION,
    VAULT_ID,
    access,
    assignment,
    change,
    cluster,
    document,
    key,
    key_target,
    policy,
    prerequisites,
    refusal,
    vault,
    waiting,
)

AMBIGUOUS = LEGACY | PMK


def answer(check: Check, *, facts: Facts | None = None, assigned: Assignment | None = None) -> Reason | None:
    """The reason that one check gives, None where it passes."""
    decision = check(facts or Facts(cluster()), assigned or assignment(), NOW)
    return decision.reason if decision else None


def keyed(**said: Any) -> Assignment:
    """An assignment that asks for a customer-managed key; the keywords are those of its target."""
    return assignment(asked=key_target(**said))


# order


def test_the_checks_stand_in_this_order() -> None:
    assert [check.__name__ for check in CHECKS] == [
        "policy_is_broken",
        "has_no_target",
        "is_exempt",
        "is_as_asked",
        "is_busy",
        "has_failed",
        "is_stopped",
        "rotates_legacy",
        "is_legacy_v1",
        "kubernetes_is_too_old",
        "identity_is_unsupported",
        "is_ambiguous",
        "has_other_identity",
        "is_encrypted_otherwise",
        "identity_is_system_assigned",
        "has_no_etag",
        "was_refused",
        "vault_has_no_name",
        "needs_off_and_on",
        "is_unconfirmed",
        "is_contested",
        "needs_a_closer_look",
        "lacks_vault_or_key",
        "lacks_identity",
        "changes_identity",
        "lacks_access",
        "lacks_second_role",
        "waits_for_its_grant",
    ]


LADDER: list[tuple[Reason, dict[str, Any], dict[str, Any]]] = [
    (Reason.POLICY_BROKEN, {}, {"faults": ("a fault",), "target": None}),
    (Reason.NO_TARGET, {}, {"target": None}),
    (Reason.EXEMPT, {}, {"exempt_because": "somebody says so"}),
    (Reason.BUSY, {"state": "Updating"}, {}),
    (Reason.FAILED, {"state": "Failed"}, {}),
    (Reason.STOPPED, {"power": "Stopped"}, {}),
    (Reason.KUBERNETES_TOO_OLD, {"kubernetes": "1.32.9"}, {}),
    (Reason.IDENTITY_UNSUPPORTED, {"identity": None}, {}),
    (Reason.AMBIGUOUS, {"security": AMBIGUOUS}, {}),
    (Reason.ENCRYPTED_OTHERWISE, {"security": CMK}, {}),
    (Reason.NO_ETAG, {"etag": None}, {}),
    (Reason.NOT_AS_ASKED, {}, {}),
]


@pytest.mark.parametrize(
    "rung", [pytest.param(number, id=reason.value) for number, (reason, _, _) in enumerate(LADDER)]
)
def test_what_stands_higher_decides_over_all_that_stands_lower(rung: int) -> None:
    said: dict[str, Any] = {}
    asked: dict[str, Any] = {}
    for _, of_the_cluster, of_the_policy in reversed(LADDER[rung:]):
        said |= of_the_cluster
        asked |= of_the_policy

    decision = decide(Facts(cluster(**said)), replace(assignment(), **asked), NOW)

    assert decision.reason is LADDER[rung][0]


KEY_LADDER: list[tuple[Reason, dict[str, Any], dict[str, Any], dict[str, Any]]] = [
    # the reason, and what brings it about: in the cluster, in the target, in the facts
    (Reason.ENCRYPTED_OTHERWISE, {"security": PMK}, {}, {}),
    (Reason.IDENTITY_SYSTEM_ASSIGNED, {"identity": "SystemAssigned"}, {"allowIdentityChange": False}, {}),
    (Reason.NO_ETAG, {"etag": None}, {}, {}),
    (Reason.BLOCKED, {}, {}, {"refusal": refusal()}),
    (Reason.VAULT_NAME_INVALID, {}, {"vault": str(VAULT_ID).replace("kv-kms", "a-name-too-long-for-{name}")}, {}),
    (Reason.CONTESTED, {}, {}, {"set_back": (NOW, NOW)}),
    (Reason.PREREQUISITES_UNKNOWN, {}, {}, {"prerequisites": None}),
    (Reason.VAULT_OTHER_TENANT, {}, {}, {"prerequisites": prerequisites(tenant=OTHER_TENANT)}),
    (Reason.IDENTITY_MISSING, {}, {}, {"prerequisites": prerequisites(has_identity=False)}),
    (
        Reason.IDENTITY_TO_CHANGE,
        {"identity": "SystemAssigned"},
        {},
        {"prerequisites": prerequisites(access=access(Grant.MISSING))},
    ),
    (Reason.ACCESS_MISSING, {}, {}, {"prerequisites": prerequisites(access=access(Grant.MISSING))}),
    (Reason.NOT_AS_ASKED, {}, {}, {"prerequisites": prerequisites()}),
]


@pytest.mark.parametrize(
    "rung", [pytest.param(number, id=reason.value) for number, (reason, *_) in enumerate(KEY_LADDER)]
)
def test_what_stands_higher_decides_for_a_key_of_ones_own_too(rung: int) -> None:
    of_the_cluster: dict[str, Any] = {}
    of_the_target: dict[str, Any] = {"identity": IDENTITY_ID, "allowIdentityChange": True}
    of_the_facts: dict[str, Any] = {}
    for _, in_the_cluster, in_the_target, in_the_facts in reversed(KEY_LADDER[rung:]):
        of_the_cluster |= in_the_cluster
        of_the_target |= in_the_target
        of_the_facts |= in_the_facts

    facts = Facts(cluster(**of_the_cluster), **of_the_facts)

    assert decide(facts, keyed(**of_the_target), NOW).reason is KEY_LADDER[rung][0]


def test_a_cluster_that_is_as_asked_is_left_alone_whatever_else_is_wrong_with_it() -> None:
    wrong = cluster(security=PMK, power="Stopped", kubernetes=None, identity=None, etag=None)

    decision = decide(Facts(wrong, refusal=refusal()), assignment(), NOW)

    assert decision == Decision(Action.NOTHING, (Reason.AS_ASKED,))


# each check


def test_a_broken_policy_is_reported() -> None:
    assert answer(decisions.policy_is_broken, assigned=Assignment(faults=("a fault",))) is Reason.POLICY_BROKEN
    assert answer(decisions.policy_is_broken) is None


def test_a_cluster_without_a_target_is_left_alone() -> None:
    assert answer(decisions.has_no_target, assigned=Assignment()) is Reason.NO_TARGET
    assert answer(decisions.has_no_target) is None


@pytest.mark.parametrize(
    ("because", "expected"),
    [
        pytest.param(None, None, id="not-exempt"),
        pytest.param("somebody says so", Reason.EXEMPT, id="exempt"),
        pytest.param("", Reason.EXEMPT, id="exempt-without-words"),
    ],
)
def test_an_exempt_cluster_is_left_alone(because: str | None, expected: Reason | None) -> None:
    assert answer(decisions.is_exempt, assigned=assignment(exempt_because=because)) is expected


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        pytest.param({"security": PMK}, Reason.AS_ASKED, id="as-asked"),
        pytest.param({"security": PMK, "power": "Stopped"}, Reason.AS_ASKED, id="stopped"),
        pytest.param({"security": PMK, "state": "Updating"}, None, id="visible-but-not-in-effect"),
        pytest.param({"security": PMK, "state": "Failed"}, None, id="visible-but-failed"),
        pytest.param({"security": PMK, "state": "Canceled"}, None, id="visible-but-canceled"),
        pytest.param({"security": PMK, "state": None}, None, id="visible-in-no-state"),
        pytest.param({"security": PMK, "pools": ("Updating",)}, Reason.AS_ASKED, id="a-pool-is-worked-on"),
        pytest.param({"security": CMK}, None, id="customer-managed"),
        pytest.param({"security": LEGACY}, None, id="legacy"),
        pytest.param({"security": AMBIGUOUS}, None, id="ambiguous"),
        pytest.param({}, None, id="not-encrypted"),
    ],
)
def test_a_cluster_is_as_asked_once_the_profile_is_in_effect(said: dict[str, Any], expected: Reason | None) -> None:
    assert answer(decisions.is_as_asked, facts=Facts(cluster(**said))) is expected


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        pytest.param({}, None, id="settled"),
        pytest.param({"state": "Failed"}, None, id="failed-is-settled"),
        pytest.param({"state": "Updating"}, Reason.BUSY, id="updating"),
        pytest.param({"state": "Creating"}, Reason.BUSY, id="creating"),
        pytest.param({"state": "SomethingNew"}, Reason.BUSY, id="a-state-nobody-knows"),
        pytest.param({"state": None}, Reason.BUSY, id="no-state"),
        pytest.param({"pools": ("Succeeded", "Scaling")}, Reason.BUSY, id="a-pool-scales"),
    ],
)
def test_a_busy_cluster_is_waited_for(said: dict[str, Any], expected: Reason | None) -> None:
    assert answer(decisions.is_busy, facts=Facts(cluster(**said))) is expected


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        pytest.param("Succeeded", None, id="succeeded"),
        pytest.param("Failed", Reason.FAILED, id="failed"),
        pytest.param("failed", Reason.FAILED, id="in-any-casing"),
        pytest.param("Canceled", Reason.FAILED, id="canceled"),
    ],
)
def test_a_failed_cluster_is_reported(state: str, expected: Reason | None) -> None:
    assert answer(decisions.has_failed, facts=Facts(cluster(state=state))) is expected


@pytest.mark.parametrize(
    ("power", "expected"),
    [
        pytest.param("Running", None, id="running"),
        pytest.param(None, None, id="not-said"),
        pytest.param("Stopped", Reason.STOPPED, id="stopped"),
        pytest.param("Stopping", Reason.STOPPED, id="anything-else"),
    ],
)
def test_a_stopped_cluster_is_reported(power: str | None, expected: Reason | None) -> None:
    assert answer(decisions.is_stopped, facts=Facts(cluster(power=power))) is expected


@pytest.mark.parametrize(
    ("kubernetes", "expected"),
    [
        pytest.param("1.32.99", Reason.KUBERNETES_TOO_OLD, id="just-before"),
        pytest.param("1.33.0", None, id="exactly-at"),
        pytest.param("1.33", None, id="exactly-at-in-two-parts"),
        pytest.param("1.33.1", None, id="just-after"),
        pytest.param("1.100.0", None, id="numbers-are-not-text"),
        pytest.param("2.0.0", None, id="another-major-version"),
        pytest.param("0.99.0", Reason.KUBERNETES_TOO_OLD, id="an-older-major-version"),
        pytest.param("soon", Reason.KUBERNETES_TOO_OLD, id="malformed"),
        pytest.param(None, Reason.KUBERNETES_TOO_OLD, id="absent"),
    ],
)
def test_a_version_before_the_first_that_can_is_reported(kubernetes: str | None, expected: Reason | None) -> None:
    assert answer(decisions.kubernetes_is_too_old, facts=Facts(cluster(kubernetes=kubernetes))) is expected


@pytest.mark.parametrize(
    ("identity", "expected"),
    [
        pytest.param("UserAssigned", None, id="user-assigned"),
        pytest.param("SystemAssigned", None, id="system-assigned"),
        pytest.param("None", Reason.IDENTITY_UNSUPPORTED, id="none"),
        pytest.param(None, Reason.IDENTITY_UNSUPPORTED, id="absent"),
        pytest.param("Something", Reason.IDENTITY_UNSUPPORTED, id="malformed"),
    ],
)
def test_a_service_principal_is_reported(identity: str | None, expected: Reason | None) -> None:
    assert answer(decisions.identity_is_unsupported, facts=Facts(cluster(identity=identity))) is expected


@pytest.mark.parametrize(
    ("security", "ambiguous", "otherwise"),
    [
        pytest.param({}, None, None, id="not-encrypted"),
        pytest.param(AMBIGUOUS, Reason.AMBIGUOUS, Reason.ENCRYPTED_OTHERWISE, id="a-version-and-the-profile"),
        pytest.param(
            {"azureKeyVaultKms": {"enabled": True}}, Reason.AMBIGUOUS, Reason.ENCRYPTED_OTHERWISE, id="no-key"
        ),
        pytest.param(LEGACY, None, Reason.ENCRYPTED_OTHERWISE, id="legacy"),
        pytest.param(CMK, None, Reason.ENCRYPTED_OTHERWISE, id="customer-managed"),
        pytest.param({"azureKeyVaultKms": "on"}, None, None, id="malformed"),
    ],
)
def test_another_encryption_is_reported(
    security: dict[str, Any], ambiguous: Reason | None, otherwise: Reason | None
) -> None:
    facts = Facts(cluster(security=security))

    assert answer(decisions.is_ambiguous, facts=facts) is ambiguous
    assert answer(decisions.is_encrypted_otherwise, facts=facts) is otherwise


@pytest.mark.parametrize(
    ("etag", "expected"),
    [
        pytest.param(ETAG, None, id="there"),
        pytest.param(None, Reason.NO_ETAG, id="absent"),
        pytest.param("", Reason.NO_ETAG, id="empty"),
    ],
)
def test_a_cluster_without_an_etag_is_reported(etag: str | None, expected: Reason | None) -> None:
    assert answer(decisions.has_no_etag, facts=Facts(cluster(etag=etag))) is expected


CONFLICT_DEADLINE = DEADLINES[Reason.CONFLICT]


@pytest.mark.parametrize(
    ("reason", "age", "etag", "expected"),
    [
        pytest.param(Reason.BLOCKED, timedelta(), ETAG, Reason.BLOCKED, id="blocked-now"),
        pytest.param(Reason.BLOCKED, BLOCKED_FOR - SECOND, ETAG, Reason.BLOCKED, id="blocked-just-before"),
        pytest.param(Reason.BLOCKED, BLOCKED_FOR, ETAG, None, id="blocked-exactly-at"),
        pytest.param(Reason.BLOCKED, BLOCKED_FOR + SECOND, ETAG, None, id="blocked-just-after"),
        pytest.param(Reason.BLOCKED, -SECOND, ETAG, Reason.BLOCKED, id="blocked-by-a-clock-that-is-ahead"),
        pytest.param(Reason.NOT_PERMITTED, timedelta(), ETAG, Reason.NOT_PERMITTED, id="not-permitted-now"),
        pytest.param(Reason.NOT_PERMITTED, BLOCKED_FOR, ETAG, None, id="not-permitted-exactly-at"),
        pytest.param(Reason.BLOCKED, timedelta(), OTHER_ETAG, None, id="blocked-in-another-state"),
        pytest.param(Reason.CONFLICT, timedelta(), ETAG, None, id="conflict-now"),
        pytest.param(Reason.CONFLICT, CONFLICT_DEADLINE - SECOND, ETAG, None, id="conflict-just-before"),
        pytest.param(Reason.CONFLICT, CONFLICT_DEADLINE, ETAG, Reason.WAITED_TOO_LONG, id="conflict-exactly-at"),
        pytest.param(
            Reason.CONFLICT, CONFLICT_DEADLINE + SECOND, ETAG, Reason.WAITED_TOO_LONG, id="conflict-just-after"
        ),
        pytest.param(Reason.CONFLICT, CONFLICT_DEADLINE, OTHER_ETAG, None, id="conflict-in-another-state"),
    ],
)
def test_a_refused_write_rests(reason: Reason, age: timedelta, etag: str, expected: Reason | None) -> None:
    tried = NOW if reason is Reason.CONFLICT else NOW - age
    refused = refusal(reason=reason, etag=etag, at=tried, since=NOW - age)

    assert answer(decisions.was_refused, facts=Facts(cluster(), refusal=refused)) is expected


def test_a_refusal_is_no_matter_once_another_try_was_made() -> None:
    """A conflict is judged by when it began, a clear no by when it was said last."""
    blocked = refusal(reason=Reason.BLOCKED, at=NOW - BLOCKED_FOR, since=NOW)
    contested = refusal(reason=Reason.CONFLICT, at=NOW, since=NOW - CONFLICT_DEADLINE)

    assert answer(decisions.was_refused, facts=Facts(cluster(), refusal=blocked)) is None
    assert answer(decisions.was_refused, facts=Facts(cluster(), refusal=contested)) is Reason.WAITED_TOO_LONG


@pytest.mark.parametrize(
    ("tried", "expected"),
    [
        pytest.param(BLOCKED_FOR - SECOND, Reason.WAITED_TOO_LONG, id="just-before"),
        pytest.param(BLOCKED_FOR, None, id="exactly-at"),
        pytest.param(CONFLICT_DEADLINE, None, id="not-tried-since-it-began"),
    ],
)
def test_a_conflict_that_lasted_too_long_is_tried_again_as_rarely_as_a_clear_no(
    tried: timedelta, expected: Reason | None
) -> None:
    refused = refusal(reason=Reason.CONFLICT, at=NOW - tried, since=NOW - CONFLICT_DEADLINE)

    assert answer(decisions.was_refused, facts=Facts(cluster(), refusal=refused)) is expected


def test_a_contested_cluster_says_also_what_it_waited_for() -> None:
    contested = refusal(reason=Reason.CONFLICT, since=NOW - CONFLICT_DEADLINE)

    decision = decide(Facts(cluster(), refusal=contested), assignment(), NOW)

    assert decision.action is Action.REPORT
    assert decision.reasons == (Reason.WAITED_TOO_LONG, Reason.CONFLICT)


# customer-managed keys


def kms(**changed: Any) -> dict[str, Any]:
    """A security profile with a public key of one's own; None takes a field out."""
    fields = CMK["azureKeyVaultKms"] | changed
    return CMK | {"azureKeyVaultKms": {name: value for name, value in fields.items() if value is not None}}


ELSEWHERE = str(VaultId(SUBSCRIPTION, "rg-keys", "kv-other"))


@pytest.mark.parametrize(
    ("security", "said", "expected"),
    [
        pytest.param(kms(), {}, Reason.AS_ASKED, id="as-asked"),
        pytest.param(kms(keyVaultResourceId=None), {}, Reason.AS_ASKED, id="public-without-the-vault"),
        pytest.param(kms(keyVaultResourceId=ELSEWHERE), {}, Reason.AS_ASKED, id="public-says-nothing-by-its-vault"),
        pytest.param(kms(keyVaultNetworkAccess=None), {}, Reason.AS_ASKED, id="no-access-means-public"),
        pytest.param(kms(keyVaultNetworkAccess="public"), {}, Reason.AS_ASKED, id="public-in-another-casing"),
        pytest.param(kms(keyId=KEY_URL.upper()), {}, Reason.AS_ASKED, id="the-key-in-another-casing"),
        pytest.param(kms(keyId=KEY_URL + "/"), {}, Reason.AS_ASKED, id="a-slash-behind-the-key"),
        pytest.param(kms(), {"key": "ETCD"}, Reason.AS_ASKED, id="the-target-in-another-casing"),
        pytest.param(kms(), {"vault": str(VAULT_ID).upper()}, Reason.AS_ASKED, id="the-vault-in-another-casing"),
        pytest.param(kms(), {"networkAccess": "public"}, Reason.AS_ASKED, id="public-as-asked"),
        pytest.param(kms(), {"networkAccess": "private"}, None, id="public-and-not-private"),
        pytest.param(PRIVATE_CMK, {}, Reason.AS_ASKED, id="private"),
        pytest.param(PRIVATE_CMK, {"networkAccess": "private"}, Reason.AS_ASKED, id="private-as-asked"),
        pytest.param(PRIVATE_CMK, {"networkAccess": "public"}, None, id="private-and-not-public"),
        pytest.param(
            kms(keyVaultNetworkAccess="Private", keyVaultResourceId=str(VAULT_ID).upper()),
            {},
            Reason.AS_ASKED,
            id="private-in-another-casing",
        ),
        pytest.param(
            kms(keyVaultNetworkAccess="Private", keyVaultResourceId=None), {}, None, id="private-without-the-vault"
        ),
        pytest.param(
            kms(keyVaultNetworkAccess="Private", keyVaultResourceId=ELSEWHERE), {}, None, id="private-of-another-vault"
        ),
        pytest.param(kms(), {"key": "other"}, None, id="another-key"),
        pytest.param(kms(), {"vault": ELSEWHERE}, None, id="a-key-of-another-vault"),
        pytest.param(kms(), {"vault": ELSEWHERE.replace("other", "{name}")}, None, id="a-vault-by-a-placeholder"),
        pytest.param(kms(), {"identity": IDENTITY_ID.upper()}, Reason.AS_ASKED, id="its-identity-in-another-casing"),
        pytest.param(kms(), {"identity": OTHER_IDENTITY_ID}, None, id="another-identity"),
        pytest.param(kms(keyId=LEGACY_URL), {}, None, id="ambiguous"),
        pytest.param(LEGACY, {}, None, id="legacy"),
        pytest.param(PMK, {}, None, id="platform-managed"),
        pytest.param({}, {}, None, id="not-encrypted"),
    ],
)
def test_a_cluster_is_as_asked_by_key_network_access_vault_and_identity(
    security: dict[str, Any], said: dict[str, Any], expected: Reason | None
) -> None:
    facts = Facts(cluster(security=security))

    assert answer(decisions.is_as_asked, facts=facts, assigned=keyed(**said)) is expected


@pytest.mark.parametrize("state", ["Updating", "Failed", "Canceled"])
def test_a_key_that_is_visible_is_not_in_effect_before_the_operation_succeeded(state: str) -> None:
    facts = Facts(cluster(security=CMK, state=state))

    assert answer(decisions.is_as_asked, facts=facts, assigned=keyed()) is None


def test_a_cluster_that_is_as_asked_needs_no_closer_look() -> None:
    decision = decide(Facts(cluster(security=CMK)), keyed(), NOW)

    assert decision == Decision(Action.NOTHING, (Reason.AS_ASKED,))


NAMED = {"identity": IDENTITY_ID}
CHANGING = NAMED | {"allowIdentityChange": True}


@pytest.mark.parametrize(
    ("kind", "assigned", "said", "expected"),
    [
        pytest.param("UserAssigned", (IDENTITY_ID,), {}, None, id="its-own"),
        pytest.param("UserAssigned", (IDENTITY_ID,), NAMED, None, id="the-named-one"),
        pytest.param("UserAssigned", (IDENTITY_ID.upper(),), NAMED, None, id="the-named-one-in-another-casing"),
        pytest.param("UserAssigned", (OTHER_IDENTITY_ID,), {}, None, id="whichever-is-its-own"),
        pytest.param("UserAssigned", (OTHER_IDENTITY_ID,), NAMED, Reason.OTHER_IDENTITY, id="another"),
        pytest.param("UserAssigned", (OTHER_IDENTITY_ID,), CHANGING, Reason.OTHER_IDENTITY, id="never-replaced"),
        pytest.param("UserAssigned", (), NAMED, Reason.OTHER_IDENTITY, id="none-that-can-be-read"),
        pytest.param("UserAssigned", (IDENTITY_ID, OTHER_IDENTITY_ID), NAMED, Reason.OTHER_IDENTITY, id="two"),
        pytest.param("SystemAssigned", (), {}, Reason.IDENTITY_SYSTEM_ASSIGNED, id="system-assigned"),
        pytest.param("SystemAssigned", (), NAMED, Reason.IDENTITY_SYSTEM_ASSIGNED, id="system-assigned-and-named"),
        pytest.param("SystemAssigned", (), CHANGING, None, id="system-assigned-and-may-change"),
    ],
)
def test_the_identity_has_to_be_the_one_that_is_asked_for(
    kind: str, assigned: tuple[str, ...], said: dict[str, Any], expected: Reason | None
) -> None:
    facts, asked = Facts(cluster(identity=kind, assigned=assigned)), keyed(**said)

    answers = [answer(check, facts=facts, assigned=asked) for check in IDENTITY_CHECKS]

    assert [one for one in answers if one is not None] == ([expected] if expected else [])


IDENTITY_CHECKS = (decisions.has_other_identity, decisions.identity_is_system_assigned)


@pytest.mark.parametrize("kind", ["UserAssigned", "SystemAssigned"])
def test_a_platform_managed_key_asks_for_no_particular_identity(kind: str) -> None:
    facts = Facts(cluster(identity=kind))

    assert [answer(check, facts=facts) for check in (*IDENTITY_CHECKS, decisions.changes_identity)] == [None] * 3


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        pytest.param({}, None, id="no-placeholder"),
        pytest.param({"vault": f"{ELSEWHERE}-{{name}}"}, None, id="a-name-that-fits"),
        pytest.param({"vault": f"{ELSEWHERE}-{{region}}-{{name}}"}, Reason.VAULT_NAME_INVALID, id="too-long"),
    ],
)
def test_a_vault_has_to_have_a_name_that_one_can_have(said: dict[str, Any], expected: Reason | None) -> None:
    located = cluster(location="uk")
    if expected:
        located = cluster(location="southcentralus")

    facts = Facts(located)

    assert answer(decisions.vault_has_no_name, facts=facts, assigned=keyed(**said)) is expected


def test_a_vault_is_looked_at_only_for_a_cluster_that_asks_for_a_key() -> None:
    assert answer(decisions.needs_a_closer_look, assigned=keyed()) is Reason.PREREQUISITES_UNKNOWN
    assert answer(decisions.needs_a_closer_look) is None
    assert (
        answer(decisions.needs_a_closer_look, facts=Facts(cluster(), prerequisites=prerequisites()), assigned=keyed())
        is None
    )


def test_what_is_not_known_yet_is_looked_at_and_nothing_is_proposed() -> None:
    decision = decide(Facts(cluster()), keyed(), NOW)

    assert decision == Decision(Action.LOOK_CLOSER, (Reason.PREREQUISITES_UNKNOWN,))


@pytest.mark.parametrize(
    ("said", "asked", "expected"),
    [
        pytest.param({}, {}, None, id="all-in-place"),
        pytest.param({"vault": None}, {}, Reason.VAULT_MISSING, id="no-vault"),
        pytest.param({"key": None}, {}, Reason.KEY_MISSING, id="no-key"),
        pytest.param({}, {"networkAccess": "private"}, Reason.VAULT_OPEN, id="as-the-target-asks-and-not-the-vault"),
        pytest.param({"key": key(expires=NOW)}, {}, Reason.KEY_EXPIRED, id="by-this-moment"),
    ],
)
def test_an_obstacle_is_reported(said: dict[str, Any], asked: dict[str, Any], expected: Reason | None) -> None:
    facts = Facts(cluster(), prerequisites=prerequisites(**said))

    assert answer(decisions.lacks_vault_or_key, facts=facts, assigned=keyed(**asked)) is expected


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        pytest.param(access(), None, id="granted"),
        pytest.param(None, None, id="not-asked"),
        pytest.param(access(Grant.UNKNOWN), None, id="unknown"),
        pytest.param(access(Grant.MISSING), Reason.ACCESS_MISSING, id="missing"),
        pytest.param(access(Grant.WRAP_ONLY), Reason.ACCESS_WRAP_ONLY, id="the-trap"),
    ],
)
def test_a_permission_that_is_missing_is_reported(found: Access | None, expected: Reason | None) -> None:
    facts = Facts(cluster(), prerequisites=prerequisites(access=found))

    assert answer(decisions.lacks_access, facts=facts, assigned=keyed()) is expected


@pytest.mark.parametrize(
    ("has_identity", "expected"),
    [
        pytest.param(None, None, id="not-asked-or-not-told"),
        pytest.param(True, None, id="there"),
        pytest.param(False, Reason.IDENTITY_MISSING, id="missing"),
    ],
)
def test_an_identity_that_is_missing_is_reported(has_identity: bool | None, expected: Reason | None) -> None:
    facts = Facts(cluster(), prerequisites=prerequisites(has_identity=has_identity))

    assert answer(decisions.lacks_identity, facts=facts, assigned=keyed()) is expected
    assert answer(decisions.lacks_identity, assigned=keyed()) is None


@pytest.mark.parametrize(
    ("age", "etag", "expected"),
    [
        pytest.param(BLOCKED_FOR - SECOND, ETAG, None, id="just-refused"),
        pytest.param(BLOCKED_FOR, ETAG, Reason.READER_MISSING, id="rested"),
        pytest.param(SECOND, "another", Reason.READER_MISSING, id="the-cluster-changed"),
    ],
)
def test_a_second_role_that_was_refused_stops_nobody(age: timedelta, etag: str, expected: Reason | None) -> None:
    refused = refusal(reason=Reason.NOT_PERMITTED, etag=etag, at=NOW - age)
    found = prerequisites(access=access(reading=Grant.MISSING))
    facts = Facts(cluster(), prerequisites=found, reader_refused=refused)

    decision = decide(facts, keyed(prerequisites="ensure"), NOW)

    assert answer(decisions.lacks_second_role, facts=facts, assigned=keyed(prerequisites="ensure")) is expected
    assert decision.action is (Action.ENSURE if expected else Action.WRITE)


@pytest.mark.parametrize(
    ("reading", "preparing", "expected"),
    [
        pytest.param(Grant.MISSING, "ensure", Reason.READER_MISSING, id="missing-and-ensure"),
        pytest.param(Grant.MISSING, "check", None, id="missing-and-check"),
        pytest.param(Grant.UNKNOWN, "ensure", None, id="nobody-can-tell"),
        pytest.param(Grant.GRANTED, "ensure", None, id="granted"),
    ],
)
def test_a_second_role_that_is_missing_stops_nobody_unless_the_app_grants_it(
    reading: Grant, preparing: str, expected: Reason | None
) -> None:
    facts = Facts(cluster(), prerequisites=prerequisites(access=access(reading=reading)))

    assert answer(decisions.lacks_second_role, facts=facts, assigned=keyed(prerequisites=preparing)) is expected
    assert answer(decisions.lacks_second_role, assigned=keyed(prerequisites=preparing)) is None


@pytest.mark.parametrize(
    ("granted", "network", "expected"),
    [
        pytest.param(NOW - PROPAGATION + SECOND, VaultNetwork.TRUSTED, NOW + SECOND, id="just-before-its-hour"),
        pytest.param(NOW - PROPAGATION, VaultNetwork.TRUSTED, None, id="at-its-hour"),
        pytest.param(NOW, VaultNetwork.TRUSTED, NOW + PROPAGATION, id="just-granted"),
        pytest.param(NOW, VaultNetwork.OPEN, None, id="public-which-azure-checks-itself"),
        pytest.param(None, VaultNetwork.TRUSTED, None, id="nobody-tells-when"),
    ],
)
def test_a_young_grant_on_a_private_vault_is_given_its_hour(
    granted: datetime | None, network: VaultNetwork, expected: datetime | None
) -> None:
    found = prerequisites(vault=vault(network=network), access=replace(access(), granted_at=granted))

    decision = decisions.waits_for_its_grant(Facts(cluster(), prerequisites=found), keyed(), NOW)

    waits = Decision(Action.WAIT, (Reason.PROPAGATING,), look_again=expected)
    assert decision == (waits if expected is not None else None)
    assert answer(decisions.waits_for_its_grant, assigned=keyed()) is None


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        pytest.param(VaultNetwork.OPEN, PUBLIC_KEY, id="open"),
        pytest.param(VaultNetwork.TRUSTED, PRIVATE_KEY, id="trusted"),
    ],
)
@pytest.mark.parametrize("mode", list(Mode))
def test_a_key_is_asked_for_as_the_vaults_firewall_says(
    mode: Mode, network: VaultNetwork, expected: Encryption
) -> None:
    facts = Facts(cluster(), prerequisites=prerequisites(vault=vault(network=network)))

    decision = decide(facts, assignment(asked=key_target(), mode=mode), NOW)

    change = Change(NOT_ENCRYPTED, expected, ETAG)
    assert decision == Decision(Action.WRITE, (Reason.NOT_AS_ASKED,), change)


@pytest.mark.parametrize(
    ("said", "warned"),
    [
        pytest.param({"access": None}, (Reason.ACCESS_UNKNOWN,), id="unknown"),
        pytest.param({"access": access(reading=Grant.MISSING)}, (Reason.READER_MISSING,), id="second-role"),
        pytest.param({"vault": vault(purge_protection=False)}, (Reason.PURGE_PROTECTION_OFF,), id="purge-protection"),
        pytest.param(
            {"access": access(Grant.UNKNOWN, Grant.MISSING), "vault": vault(purge_protection=False)},
            (Reason.ACCESS_UNKNOWN, Reason.READER_MISSING, Reason.PURGE_PROTECTION_OFF),
            id="all",
        ),
    ],
)
def test_warnings_are_said_with_the_write_and_do_not_hold_it_up(
    said: dict[str, Any], warned: tuple[Reason, ...]
) -> None:
    decision = decide(Facts(cluster(), prerequisites=prerequisites(**said)), keyed(), NOW)

    assert decision.action is Action.WRITE
    assert decision.reasons == (Reason.NOT_AS_ASKED, *warned)


SYSTEM_ASSIGNED = cluster(identity="SystemAssigned")
TO_NAMED = Change(
    NOT_ENCRYPTED, NOT_ENCRYPTED, ETAG, identity=IDENTITY_ID, identity_before=IdentityKind.SYSTEM_ASSIGNED
)


@pytest.mark.parametrize("crypto", list(Grant))
def test_the_identity_is_changed_before_the_key_is_asked_for(crypto: Grant) -> None:
    """What the identity of now may do says nothing of the next one."""
    facts = Facts(SYSTEM_ASSIGNED, prerequisites=prerequisites(access=access(crypto)))

    decision = decide(facts, keyed(**CHANGING), NOW)

    assert decision == Decision(Action.WRITE, (Reason.IDENTITY_TO_CHANGE,), TO_NAMED)


def test_no_identity_is_changed_for_a_key_that_can_not_be_used() -> None:
    facts = Facts(SYSTEM_ASSIGNED, prerequisites=prerequisites(key=key(enabled=False)))

    decision = decide(facts, keyed(**CHANGING), NOW)

    assert decision == Decision(Action.REPORT, (Reason.KEY_DISABLED,))


def test_an_identity_that_is_there_is_not_changed() -> None:
    facts = Facts(cluster(), prerequisites=prerequisites())

    assert answer(decisions.changes_identity, facts=facts, assigned=keyed(**CHANGING)) is None


# what a change asks for, and whether it is there

TO_PUBLIC = Change(NOT_ENCRYPTED, PUBLIC_KEY, ETAG)
TO_PRIVATE = Change(NOT_ENCRYPTED, PRIVATE_KEY, ETAG)
TO_PLATFORM = Change(NOT_ENCRYPTED, PLATFORM_MANAGED, ETAG)


@pytest.mark.parametrize(
    ("change", "said", "there"),
    [
        pytest.param(TO_PLATFORM, {"security": PMK}, True, id="platform-managed"),
        pytest.param(TO_PLATFORM, {}, False, id="platform-managed-not-yet"),
        pytest.param(TO_PLATFORM, {"security": CMK}, False, id="platform-managed-and-a-key"),
        pytest.param(TO_PUBLIC, {"security": CMK}, True, id="public-with-the-vault-that-azure-adds"),
        pytest.param(TO_PUBLIC, {"security": kms(keyVaultResourceId=None)}, True, id="public"),
        pytest.param(TO_PUBLIC, {"security": PRIVATE_CMK}, False, id="public-is-not-private"),
        pytest.param(TO_PUBLIC, {"security": kms(keyId=KEY_URL + "2")}, False, id="another-key"),
        pytest.param(TO_PUBLIC, {"security": PMK}, False, id="no-key"),
        pytest.param(TO_PUBLIC, {"security": {"azureKeyVaultKms": CMK["azureKeyVaultKms"]}}, False, id="half-of-it"),
        pytest.param(TO_PRIVATE, {"security": PRIVATE_CMK}, True, id="private"),
        pytest.param(
            TO_PRIVATE,
            {"security": kms(keyVaultNetworkAccess="Private", keyVaultResourceId=str(VAULT_ID).upper())},
            True,
            id="private-in-another-casing",
        ),
        pytest.param(
            TO_PRIVATE,
            {"security": kms(keyVaultNetworkAccess="Private", keyVaultResourceId=ELSEWHERE)},
            False,
            id="private-of-another-vault",
        ),
        pytest.param(TO_NAMED, {}, True, id="identity"),
        pytest.param(TO_NAMED, {"assigned": (IDENTITY_ID.lower(),)}, True, id="identity-in-another-casing"),
        pytest.param(TO_NAMED, {"assigned": (OTHER_IDENTITY_ID,)}, False, id="another-identity"),
        pytest.param(TO_NAMED, {"identity": "SystemAssigned"}, False, id="identity-not-yet"),
        pytest.param(TO_NAMED, {"security": PMK}, False, id="identity-and-somebody-encrypted-it"),
        pytest.param(TO_PUBLIC, {"security": CMK, "assigned": (OTHER_IDENTITY_ID,)}, True, id="whichever-identity"),
    ],
)
def test_a_change_is_in_a_cluster_that_shows_all_of_it(change: Change, said: dict[str, Any], there: bool) -> None:
    assert change.is_in(cluster(**said)) is there


# what a refusal is about


@pytest.mark.parametrize(
    ("code", "text", "expected"),
    [
        pytest.param(
            "FeatureNotRegistered",
            "Feature Microsoft.ContainerService/KMSPMKPreview is not registered",
            Reason.FEATURE_NOT_REGISTERED,
            id="the-feature-by-its-name",
        ),
        pytest.param("BadRequest", "register kmspmkpreview first", Reason.FEATURE_NOT_REGISTERED, id="in-any-casing"),
        pytest.param("KMSPMKPreview", "no", Reason.FEATURE_NOT_REGISTERED, id="in-the-code"),
        pytest.param("FeatureNotRegistered", "OtherPreview is not registered", Reason.BLOCKED, id="another-feature"),
        pytest.param("RequestDisallowedByPolicy", "a policy says no", Reason.BLOCKED, id="a-policy"),
        pytest.param("AuthorizationFailed", "no", Reason.NOT_PERMITTED, id="a-right"),
        pytest.param("LinkedAuthorizationFailed", "no", Reason.NOT_PERMITTED, id="a-right-on-what-is-linked"),
        pytest.param("AuthorizationFailedToo", "no", Reason.BLOCKED, id="another-code"),
        pytest.param("", "", Reason.BLOCKED, id="nothing-said"),
    ],
)
def test_a_missing_feature_is_told_from_other_refusals(code: str, text: str, expected: Reason) -> None:
    assert reason_of(Refused(code, text)) is expected


# what a fix speaks of


def test_a_target_says_which_vault_key_and_identity_a_fix_is_about() -> None:
    asked = keyed(vault=str(VAULT_ID).replace("kms", "{region}"), **NAMED)

    subject = subject_of(cluster(), asked)

    named = VaultId(SUBSCRIPTION, "rg-keys", "kv-westeurope")
    assert subject == Subject(CLUSTER_ID, vault=named, key="etcd", principal=PRINCIPAL, identity=IDENTITY_ID)


def test_a_fix_speaks_of_no_vault_where_none_is_asked_for() -> None:
    assert subject_of(cluster(), assignment()) == Subject(CLUSTER_ID, principal=PRINCIPAL)
    assert subject_of(cluster(), Assignment()) == Subject(CLUSTER_ID, principal=PRINCIPAL)
    assert subject_of(cluster(), keyed()).identity is None


@pytest.mark.parametrize(
    ("assigned", "expected"),
    [
        pytest.param(Assignment(), None, id="no-target"),
        pytest.param(assignment(), None, id="no-vault"),
        pytest.param(keyed(), VAULT_ID, id="a-vault"),
        pytest.param(
            keyed(vault=str(VAULT_ID).replace(SUBSCRIPTION, "{subscription}")),
            VaultId(OTHER_SUBSCRIPTION, "rg-keys", "kv-kms"),
            id="of-the-clusters-subscription",
        ),
        pytest.param(keyed(vault=str(VAULT_ID).replace("kms", "kms-kms-kms-{name}")), None, id="no-name"),
    ],
)
def test_the_vault_of_a_cluster_is_the_targets_with_its_own_names(
    assigned: Assignment, expected: VaultId | None
) -> None:
    found = cluster(cluster_id=str(ClusterId(OTHER_SUBSCRIPTION, "rg-apps", "aks-payments-1")))

    assert vault_of(found, assigned) == expected


# two hands on one cluster


@pytest.mark.parametrize(
    ("ages", "expected"),
    [
        pytest.param([], None, id="never"),
        pytest.param([timedelta()], None, id="once"),
        pytest.param([CONTESTED_WITHIN - SECOND, timedelta()], Reason.CONTESTED, id="twice-just-before"),
        pytest.param([CONTESTED_WITHIN, timedelta()], Reason.CONTESTED, id="twice-exactly-at"),
        pytest.param([CONTESTED_WITHIN + SECOND, timedelta()], None, id="twice-just-after"),
        pytest.param([timedelta(), timedelta()], Reason.CONTESTED, id="twice-at-once"),
        pytest.param([timedelta(days=9), timedelta(days=8, hours=1)], Reason.CONTESTED, id="twice-and-long-ago"),
        pytest.param([timedelta(days=9), timedelta(hours=1), timedelta()], Reason.CONTESTED, id="the-last-two-count"),
        pytest.param([timedelta(days=9), timedelta(days=8, hours=23), timedelta()], None, id="and-only-those"),
    ],
)
def test_a_cluster_that_is_set_back_again_and_again_is_let_go(ages: list[timedelta], expected: Reason | None) -> None:
    """However long ago: it stays let go until an operator says otherwise."""
    facts = Facts(cluster(), set_back=tuple(NOW - age for age in ages))

    assert answer(decisions.is_contested, facts=facts) is expected


def test_a_contested_cluster_is_left_alone_once_it_is_as_asked() -> None:
    facts = Facts(cluster(security=PMK), set_back=(NOW, NOW))

    assert decide(facts, assignment(), NOW) == Decision(Action.NOTHING, (Reason.AS_ASKED,))


@pytest.mark.parametrize("asked", [None, key_target()], ids=["platform-managed", "customer-managed"])
def test_a_contested_cluster_is_reported_and_not_written(asked: Target | None) -> None:
    facts = Facts(cluster(), prerequisites=prerequisites() if asked else None, set_back=(NOW, NOW))

    assert decide(facts, assignment(asked=asked), NOW) == Decision(Action.REPORT, (Reason.CONTESTED,))


# what is written


@pytest.mark.parametrize("mode", list(Mode))
def test_a_cluster_that_is_not_as_asked_is_written_in_audit_too(mode: Mode) -> None:
    decision = decide(Facts(cluster()), assignment(mode=mode), NOW)

    assert decision.action is Action.WRITE
    assert decision.reasons == (Reason.NOT_AS_ASKED,)
    assert decision.change == Change(NOT_ENCRYPTED, PLATFORM_MANAGED, ETAG)


# what is held back

OPENS = NOW + timedelta(hours=3)
WAITS_FOR_OPERATOR = Decision(Action.WAIT, (Reason.PAUSED, Reason.NOT_AS_ASKED), change())
WAITS_FOR_WINDOW = Decision(Action.WAIT, (Reason.WINDOW_CLOSED, Reason.NOT_AS_ASKED), change(), look_again=OPENS)
WRITES = Decision(Action.WRITE, (Reason.NOT_AS_ASKED,), change())


@pytest.mark.parametrize(
    ("mode", "paused", "opens", "expected"),
    [
        pytest.param(Mode.ENFORCE, False, None, WRITES, id="open"),
        pytest.param(Mode.ENFORCE, False, OPENS, WAITS_FOR_WINDOW, id="window-closed"),
        pytest.param(Mode.ENFORCE, True, None, WAITS_FOR_OPERATOR, id="paused"),
        pytest.param(Mode.ENFORCE, True, OPENS, WAITS_FOR_OPERATOR, id="both"),
        pytest.param(Mode.AUDIT, False, OPENS, WRITES, id="audit-while-closed"),
        pytest.param(Mode.AUDIT, True, OPENS, WRITES, id="audit-while-paused"),
    ],
)
def test_a_write_that_may_not_be_made_now_waits_with_its_change(
    mode: Mode, paused: bool, opens: datetime | None, expected: Decision
) -> None:
    assigned = replace(assignment(mode=mode), window_opens=opens)

    assert decide(Facts(cluster(), paused=paused), assigned, NOW) == expected


@pytest.mark.parametrize(
    ("said", "assigned"),
    [
        pytest.param({"security": PMK}, assignment(), id="as-asked"),
        pytest.param({"state": "Updating"}, assignment(), id="busy"),
        pytest.param({"power": "Stopped"}, assignment(), id="stopped"),
        pytest.param({"kubernetes": "1.32.9"}, assignment(), id="too-old"),
        pytest.param({}, assignment(exempt_because="x"), id="exempt"),
        pytest.param({}, assignment(faults=("x",)), id="broken-policy"),
        pytest.param({}, assignment(asked=key_target()), id="look-closer"),
    ],
)
def test_what_is_no_write_is_not_held_back(said: dict[str, Any], assigned: Assignment) -> None:
    free = decide(Facts(cluster(**said)), assigned, NOW)

    held = decide(Facts(cluster(**said), paused=True), replace(assigned, window_opens=OPENS), NOW)

    assert held == free
    assert not would_write(held)


def test_a_write_that_is_held_back_keeps_its_warnings() -> None:
    facts = Facts(cluster(), prerequisites=prerequisites(vault=vault(purge_protection=False)), paused=True)

    decision = decide(facts, assignment(asked=key_target()), NOW)

    assert decision.reasons == (Reason.PAUSED, Reason.NOT_AS_ASKED, Reason.PURGE_PROTECTION_OFF)
    assert would_write(decision)


@pytest.mark.parametrize("paused", [True, False])
def test_what_is_held_back_is_held_back_as_long_as_it_takes(paused: bool) -> None:
    assigned = replace(assignment(), window_opens=OPENS)
    reason = Reason.PAUSED if paused else Reason.WINDOW_CLOSED
    waited = waiting(reason=reason, since=NOW - timedelta(days=90))

    assert decide(Facts(cluster(), waited, paused=paused), assigned, NOW).action is Action.WAIT


def test_exactly_what_is_held_back_has_no_deadline() -> None:
    assert frozenset({Reason.PAUSED, Reason.WINDOW_CLOSED}) == HELD_BACK
    assert not HELD_BACK & DEADLINES.keys()


@pytest.mark.parametrize("action", Action)
def test_only_three_actions_change_something(action: Action) -> None:
    assert changes_something(action) is (action in {Action.ENSURE, Action.REENCRYPT, Action.WRITE})


# waits


@pytest.mark.parametrize(
    ("reason", "deadline"),
    [
        pytest.param(Reason.BUSY, timedelta(hours=6), id="busy"),
        pytest.param(Reason.CONFLICT, timedelta(hours=6), id="conflict"),
        pytest.param(Reason.LIMIT_REACHED, timedelta(hours=6), id="limit"),
        pytest.param(Reason.THROTTLED, timedelta(hours=6), id="throttled"),
        pytest.param(Reason.UPDATING, OPERATION_DEADLINE, id="updating"),
        pytest.param(Reason.PREPARING, OPERATION_DEADLINE, id="preparing"),
        pytest.param(Reason.REENCRYPTING, OPERATION_DEADLINE, id="reencrypting"),
        pytest.param(Reason.NOT_VISIBLE, VISIBILITY_DEADLINE, id="not-visible"),
    ],
)
def test_every_wait_has_an_end(reason: Reason, deadline: timedelta) -> None:
    wait = Decision(Action.WAIT, (reason,))
    given_up = Decision(Action.REPORT, (Reason.WAITED_TOO_LONG, reason))

    def after(age: timedelta) -> Decision:
        return within_deadline(wait, waiting(reason=reason, since=NOW - age), NOW)

    assert after(timedelta()) == wait
    assert after(deadline - SECOND) == wait
    assert after(deadline) == given_up
    assert after(deadline + SECOND) == given_up
    assert after(-SECOND) == wait


def test_no_reason_to_wait_lacks_a_deadline() -> None:
    assert timedelta(minutes=90) == OPERATION_DEADLINE
    assert timedelta(minutes=15) == VISIBILITY_DEADLINE
    assert set(DEADLINES) == {
        Reason.BUSY,
        Reason.CONFLICT,
        Reason.LIMIT_REACHED,
        Reason.THROTTLED,
        Reason.PROPAGATING,
        Reason.UPDATING,
        Reason.NOT_VISIBLE,
        Reason.VAULT_NOT_READY,
        Reason.PREPARING,
        Reason.REENCRYPTING,
        Reason.ROTATION_UNKNOWN,
    }


def test_a_wait_for_something_else_began_at_another_time() -> None:
    wait = Decision(Action.WAIT, (Reason.BUSY,))
    earlier = waiting(reason=Reason.UPDATING, since=NOW - timedelta(days=1))

    assert within_deadline(wait, earlier, NOW) == wait
    assert within_deadline(wait, None, NOW) == wait


def test_only_waits_are_given_up() -> None:
    nothing = Decision(Action.NOTHING, (Reason.BUSY,))

    assert within_deadline(nothing, waiting(since=NOW - timedelta(days=1)), NOW) == nothing


def test_a_wait_that_was_given_up_stays_given_up() -> None:
    facts = Facts(cluster(state="Updating"), waiting(reason=Reason.BUSY, since=NOW - timedelta(days=1)))

    once, again = decide(facts, assignment(), NOW), decide(facts, assignment(), NOW + timedelta(hours=1))

    assert once == again == Decision(Action.REPORT, (Reason.WAITED_TOO_LONG, Reason.BUSY))


# fixes


def test_a_fix_names_the_cluster_in_its_command() -> None:
    stopped = fix(Reason.STOPPED, Subject(CLUSTER_ID))

    assert stopped is not None
    assert stopped.command == (
        f"az aks start --subscription {CLUSTER_ID.subscription} --resource-group rg-apps --name aks-1"
    )


@pytest.mark.parametrize("reason", list(Reason), ids=str)
@pytest.mark.parametrize(
    "subject",
    [
        pytest.param(Subject(ClusterId(CLUSTER_ID.subscription, "rg(1)", "aks_1")), id="nothing-known"),
        pytest.param(Subject(CLUSTER_ID, VAULT_ID, "etcd", PRINCIPAL, IDENTITY_ID), id="all-known"),
    ],
)
def test_no_fix_has_a_hole_in_it(reason: Reason, subject: Subject) -> None:
    mended = fix(reason, subject)

    said = f"{mended.text} {mended.command}" if mended else ""
    assert "{" not in said
    assert "}" not in said


@pytest.mark.parametrize(
    ("reason", "command"),
    [
        pytest.param(
            Reason.ACCESS_MISSING,
            "az role assignment create --role 'Key Vault Crypto User'"
            f" --scope {VAULT_ID} --assignee-object-id {PRINCIPAL} --assignee-principal-type ServicePrincipal",
            id="permission",
        ),
        pytest.param(
            Reason.KEY_DISABLED,
            f"az keyvault key set-attributes --subscription {VAULT_ID.subscription}"
            " --vault-name kv-kms --name etcd --enabled true",
            id="key",
        ),
        pytest.param(
            Reason.VAULT_WITHOUT_BYPASS,
            f"az keyvault update --subscription {VAULT_ID.subscription} --name kv-kms --bypass AzureServices",
            id="vault",
        ),
        pytest.param(
            Reason.IDENTITY_SYSTEM_ASSIGNED,
            f"az aks update --subscription {CLUSTER_ID.subscription} --resource-group rg-apps --name aks-1"
            f" --enable-managed-identity --assign-identity {IDENTITY_ID}",
            id="identity",
        ),
        pytest.param(
            Reason.FEATURE_NOT_REGISTERED,
            f"az feature register --subscription {CLUSTER_ID.subscription}"
            " --namespace Microsoft.ContainerService --name KMSPMKPreview"
            f" && az provider register --subscription {CLUSTER_ID.subscription}"
            " --namespace Microsoft.ContainerService",
            id="feature",
        ),
    ],
)
def test_a_fix_names_what_it_is_about_in_its_command(reason: Reason, command: str) -> None:
    mended = fix(reason, Subject(CLUSTER_ID, VAULT_ID, "etcd", PRINCIPAL, IDENTITY_ID))

    assert mended is not None
    assert mended.command == command


RIGHTS = tuple(Right("Microsoft.KeyVault/vaults/write", f"{VAULT_ID}{number}") for number in range(5))


@pytest.mark.parametrize(
    ("rights", "words"),
    [
        pytest.param((), "Give the app's identity the right that Azure's answer names.", id="none-named"),
        pytest.param(RIGHTS[:1], f"identity {RIGHTS[0].action} on {RIGHTS[0].scope}. The page", id="one"),
        pytest.param(RIGHTS[:2], f"{RIGHTS[0].scope}, and {RIGHTS[1].action} on {RIGHTS[1].scope}. The", id="two"),
        pytest.param(RIGHTS, f"{RIGHTS[2].scope}, and 2 more that Azure's answer names. The page", id="many"),
    ],
)
def test_a_fix_names_the_rights_that_are_missing(rights: tuple[Right, ...], words: str) -> None:
    mended = fix(Reason.NOT_PERMITTED, Subject(CLUSTER_ID, rights=rights))

    assert mended is not None
    assert words in mended.text
    assert mended.command is None


NOBODY_MENDS = {
    Reason.PROPAGATING,
    Reason.AS_ASKED,
    Reason.NO_TARGET,
    Reason.EXEMPT,
    Reason.NOT_AS_ASKED,
    Reason.ACCESS_POLICY_CHANGED,
    Reason.ROTATION_UNKNOWN,
    Reason.TO_ROTATE,
    Reason.PREPARING,
    Reason.REENCRYPTING,
    Reason.UPDATING,
    Reason.BUSY,
    Reason.IDENTITY_TO_CHANGE,
    Reason.PREREQUISITES_UNKNOWN,
    Reason.NOT_VISIBLE,
    Reason.GONE,
    Reason.THROTTLED,
    Reason.LIMIT_REACHED,
    Reason.WINDOW_CLOSED,
}
"""What is well, passes by itself, is mended by the app, or is only warned of."""


def test_all_but_what_nobody_has_to_mend_says_how_to_mend_it() -> None:
    """A new reason has to be put on one side or the other."""
    assert {reason for reason in Reason if fix(reason, Subject(CLUSTER_ID)) is None} == NOBODY_MENDS


# purity


def test_deciding_twice_gives_the_same_and_leaves_its_inputs_unchanged() -> None:
    read = document(security={"azureKeyVaultKms": {"enabled": False}})
    facts = [
        Facts(Cluster.read(read, read), waited, refused, found, set_back, paused)
        for waited in (None, waiting(), waiting(since=NOW - timedelta(days=1)))
        for refused in (None, refusal(), refusal(etag=OTHER_ETAG), refusal(reason=Reason.CONFLICT))
        for found in (None, prerequisites(), prerequisites(access=None))
        for set_back in ((), (NOW, NOW))
        for paused in (False, True)
    ]
    asked = [keyed(), assignment(mode=Mode.AUDIT), assignment(exempt_because="x"), Assignment()]
    kept = copy.deepcopy((read, facts, asked))

    def table() -> list[Decision]:
        return [decide(one, assigned, NOW) for one in facts for assigned in asked]

    assert table() == table()
    assert (read, facts, asked) == kept


# whatever there may be

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=5,
)
STATES = st.sampled_from(["Succeeded", "succeeded", "Failed", "Canceled", "Updating", "Creating", "", "New"])
KEY_URLS = st.sampled_from(
    [
        LEGACY["azureKeyVaultKms"]["keyId"],
        CMK["azureKeyVaultKms"]["keyId"],
        "https://kv.managedhsm.azure.net/keys/k",
        "",
    ]
)


def an_object(**strategies: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """An object with some of these fields, each as it should be or as anything else."""
    return st.fixed_dictionaries({}, optional={name: known | JSON for name, known in strategies.items()})


SECURITY = an_object(
    azureKeyVaultKms=an_object(
        enabled=st.booleans(),
        keyId=KEY_URLS,
        keyVaultNetworkAccess=st.sampled_from(["Public", "Private"]),
        keyVaultResourceId=st.text(max_size=5),
    ),
    kubernetesResourceObjectEncryptionProfile=an_object(
        infrastructureEncryption=st.sampled_from(["Enabled", "enabled", "Disabled"])
    ),
    workloadIdentity=JSON,
)
ANY_DOCUMENT = an_object(
    location=st.sampled_from(["westeurope", "WestEurope"]),
    eTag=st.sampled_from([ETAG, ""]),
    tags=st.dictionaries(st.sampled_from(["env", "kms-enforcer"]), st.sampled_from(["on", "off", "x"])),
    identity=an_object(type=st.sampled_from(["UserAssigned", "SystemAssigned", "None"])),
    properties=an_object(
        provisioningState=STATES,
        powerState=an_object(code=st.sampled_from(["Running", "Stopped"])),
        currentKubernetesVersion=st.sampled_from(["1.32.9", "1.33.0", "1.34.2", "x"]),
        kubernetesVersion=st.sampled_from(["1.33", "1.34"]),
        agentPoolProfiles=st.lists(an_object(provisioningState=STATES, count=st.integers()), max_size=2),
        securityProfile=SECURITY,
        resourceUID=st.text(max_size=5),
    ),
)
SOUND_SECURITY = st.fixed_dictionaries(
    {},
    optional={
        "azureKeyVaultKms": st.none()
        | st.fixed_dictionaries({}, optional={"enabled": st.booleans() | st.none(), "keyId": KEY_URLS}),
        "kubernetesResourceObjectEncryptionProfile": st.none()
        | st.fixed_dictionaries(
            {},
            optional={"infrastructureEncryption": st.sampled_from(["Enabled", "Disabled"]), "futureField": JSON},
        ),
        "workloadIdentity": JSON,
        "futureProfile": JSON,
    },
)
CLUSTERS = st.builds(
    document,
    state=STATES,
    power=st.sampled_from(["Running", "Stopped", None]),
    kubernetes=st.sampled_from(["1.32.9", "1.33.0", "1.34.2", None]),
    identity=st.sampled_from(["UserAssigned", "SystemAssigned", "None", None]),
    pools=st.lists(STATES, max_size=2).map(tuple),
    security=SOUND_SECURITY,
    etag=st.sampled_from([ETAG, None]),
    tags=st.dictionaries(st.sampled_from(["env", "kms-enforcer"]), st.sampled_from(["on", "off"])),
)
MOMENTS = st.datetimes(min_value=datetime(2000, 1, 1), max_value=datetime(2100, 1, 1)).map(  # noqa: DTZ001  made aware
    lambda moment: moment.replace(tzinfo=NOW.tzinfo)
)
REASONS = st.sampled_from(list(Reason))
WAITS = st.none() | st.builds(waiting, reason=REASONS, since=MOMENTS, look_again_at=MOMENTS)
REFUSALS = st.none() | st.builds(
    refusal, reason=REASONS, etag=st.sampled_from([ETAG, OTHER_ETAG]), at=MOMENTS, since=MOMENTS
)
EVERYTHING = "version: 1\nmode: enforce\nacceptIrreversible: true\ntargets:\n  - keyManagement: platform-managed\n"


@PROPERTY
@given(ANY_DOCUMENT, WAITS, REFUSALS, MOMENTS)
def test_no_document_makes_a_look_fail(read: dict[str, Any], waited: Any, refused: Any, now: datetime) -> None:
    read = read | {"id": str(CLUSTER_ID)}
    found = Cluster.read(read, read)

    decision = decide(Facts(found, waited, refused), policy(EVERYTHING).assignment(found, now), now)

    assert decision.reasons


@PROPERTY
@given(JSON.map(lambda value: {"id": value}))
def test_a_document_without_a_readable_id_is_malformed_and_nothing_else(read: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        Cluster.read(read, read)


LEAVE_ALONE = [
    pytest.param(PolicyInForce.read(""), id="broken-policy"),
    pytest.param(policy(EVERYTHING + "    match: {names: [other]}"), id="no-target"),
    pytest.param(
        policy(f"{EVERYTHING}exemptions: [{{match: {{names: ['aks-*']}}, owner: a, reason: b, expires: 9999-12-31}}]"),
        id="exempt",
    ),
]


@pytest.mark.parametrize("in_force", LEAVE_ALONE)
@PROPERTY
@given(CLUSTERS, WAITS, REFUSALS)
def test_a_cluster_that_is_not_ours_is_never_written(
    in_force: PolicyInForce, read: dict[str, Any], waited: Any, refused: Any
) -> None:
    found = Cluster.read(read, read)

    decision = decide(Facts(found, waited, refused), in_force.assignment(found, NOW), NOW)

    assert decision.action in {Action.NOTHING, Action.REPORT}
    assert decision.change is None


@PROPERTY
@given(CLUSTERS, WAITS, REFUSALS)
def test_a_cluster_that_opted_out_is_never_written(read: dict[str, Any], waited: Any, refused: Any) -> None:
    found = Cluster.read(read | {"tags": {"kms-enforcer": "off"}}, read)

    decision = decide(Facts(found, waited, refused), policy(EVERYTHING).assignment(found, NOW), NOW)

    assert decision == Decision(Action.NOTHING, (Reason.EXEMPT,))


def without_kms(read: dict[str, Any]) -> dict[str, Any]:
    """The document without the two objects that a write may touch."""
    security = read["properties"]["securityProfile"]
    rest = {
        name: value
        for name, value in security.items()
        if name not in {"azureKeyVaultKms", "kubernetesResourceObjectEncryptionProfile"}
    }
    return read | {"properties": read["properties"] | {"securityProfile": rest}}


@PROPERTY
@given(CLUSTERS)
def test_a_change_touches_the_kms_paths_alone_and_is_not_asked_for_twice(read: dict[str, Any]) -> None:
    kept = copy.deepcopy(read)
    found = Cluster.read(read, read)
    decision = decide(Facts(found), assignment(), NOW)
    if not isinstance(decision.change, Change):
        assert decision.action is not Action.WRITE
        return

    asked = asking_for(found.document, decision.change.after)

    assert read == kept
    assert without_kms(asked) == without_kms(read)
    assert Encryption.read(asked) == decision.change.after
    written = Cluster.read(asked | {"eTag": OTHER_ETAG}, asked)
    assert decide(Facts(written), assignment(), NOW) == Decision(Action.NOTHING, (Reason.AS_ASKED,))


@PROPERTY
@given(CLUSTERS, WAITS, REFUSALS)
def test_a_write_is_only_proposed_where_every_precondition_holds(
    read: dict[str, Any], waited: Any, refused: Any
) -> None:
    found = Cluster.read(read, read)

    decision = decide(Facts(found, waited, refused), assignment(), NOW)

    assert (decision.change is not None) is (decision.action is Action.WRITE)
    if decision.action is Action.WRITE:
        assert found.settled
        assert found.succeeded
        assert found.running
        assert found.kubernetes is not None
        assert found.kubernetes >= (1, 33, 0)
        assert found.encryption.key_management is KeyManagement.NONE
        assert isinstance(decision.change, Change)
        assert decision.change.etag == found.etag


# whatever there may be, for a key of one's own

IDENTITIES = st.sampled_from([(IDENTITY_ID,), (IDENTITY_ID.lower(),), (OTHER_IDENTITY_ID,), ()])
KEYED_SECURITY = st.sampled_from(
    [{}, {"azureKeyVaultKms": {"enabled": False, "keyId": KEY_URL}}, PMK, CMK, PRIVATE_CMK, LEGACY, AMBIGUOUS]
)
KEYED_CLUSTERS = st.builds(
    document,
    state=st.sampled_from(["Succeeded", "Succeeded", "Failed", "Updating"]),
    power=st.sampled_from(["Running", "Running", "Stopped"]),
    kubernetes=st.sampled_from(["1.33.0", "1.34.2", "1.32.9"]),
    identity=st.sampled_from(["UserAssigned", "SystemAssigned", None]),
    assigned=IDENTITIES,
    security=KEYED_SECURITY | SOUND_SECURITY,
    etag=st.sampled_from([ETAG, ETAG, None]),
    location=st.sampled_from(["westeurope", "", "a-region-with-a-long-name"]),
)
TARGETS = st.builds(
    lambda vault_name, network, identity: key_target(
        vault=str(VAULT_ID).replace("kv-kms", vault_name), networkAccess=network, **identity
    ),
    st.sampled_from(["kv-kms", "kv-kms", "kv-{region}", "kv-{name}"]),
    st.sampled_from([None, "public", "private"]),
    st.sampled_from([{}, NAMED, CHANGING]),
)
TIMES = st.none() | st.sampled_from([NOW - SECOND, NOW, NOW + SECOND])
FOUND = st.builds(
    prerequisites,
    vault=st.none() | st.builds(vault, network=st.sampled_from(VaultNetwork), purge_protection=st.booleans()),
    key=st.none()
    | st.builds(
        key,
        enabled=st.booleans(),
        not_before=TIMES,
        expires=TIMES,
        kind=st.sampled_from(["RSA", "RSA-HSM", "EC", ""]),
        operations=st.sampled_from([frozenset({"encrypt", "decrypt"}), frozenset({"wrapkey"}), frozenset()]),
    ),
    access=st.none() | st.builds(Access, st.sampled_from(Grant), st.sampled_from(Grant)),
    tenant=st.sampled_from([None, OTHER_TENANT, prerequisites().tenant]),
    vault_deleted=st.booleans(),
    key_deleted=st.booleans(),
    unreadable=st.booleans(),
)
SET_BACK = st.lists(st.sampled_from([NOW, NOW - timedelta(days=2)]), max_size=2).map(tuple)
USABLE = st.builds(
    prerequisites,
    vault=st.builds(vault, network=st.sampled_from([VaultNetwork.OPEN, VaultNetwork.TRUSTED])),
    access=st.none() | st.builds(Access, st.just(Grant.GRANTED), st.sampled_from(Grant)),
)


@PROPERTY
@given(ANY_DOCUMENT, TARGETS, FOUND, WAITS, REFUSALS, REFUSALS, MOMENTS)
def test_no_document_and_no_survey_makes_a_look_fail(
    read: dict[str, Any], asked: Target, found: Any, waited: Any, refused: Any, without: Any, now: datetime
) -> None:
    read = read | {"id": str(CLUSTER_ID)}
    facts = Facts(Cluster.read(read, read), waited, refused, found, reader_refused=without)

    decision = decide(facts, assignment(asked=asked), now)

    assert decision.reasons
    assert decision.action is not Action.LOOK_CLOSER


@PROPERTY
@given(KEYED_CLUSTERS, TARGETS, WAITS, REFUSALS)
def test_no_key_is_asked_for_before_its_prerequisites_were_looked_at(
    read: dict[str, Any], asked: Target, waited: Any, refused: Any
) -> None:
    facts = Facts(Cluster.read(read, read), waited, refused)

    decision = decide(facts, assignment(asked=asked), NOW)
    looked = decide(replace(facts, prerequisites=prerequisites()), assignment(asked=asked), NOW)

    assert decision.action is not Action.WRITE
    assert decision.change is None
    if decision.action is not Action.LOOK_CLOSER:
        assert decision == looked, "a closer look changes nothing where another check has answered"


@PROPERTY
@given(KEYED_CLUSTERS, TARGETS, FOUND | USABLE, SET_BACK)
def test_a_write_of_a_key_is_only_proposed_where_every_precondition_holds(
    read: dict[str, Any], asked: Target, found: Any, set_back: Any
) -> None:
    read_cluster = Cluster.read(read, read)

    decision = decide(Facts(read_cluster, prerequisites=found, set_back=set_back), assignment(asked=asked), NOW)

    assert isinstance(decision.change, Change) is (decision.action is Action.WRITE)
    if not isinstance(decision.change, Change):
        return
    assert read_cluster.settled
    assert read_cluster.succeeded
    assert read_cluster.running
    assert read_cluster.encryption.key_management is KeyManagement.NONE
    assert decision.change.etag == read_cluster.etag
    assert set_back not in {(NOW, NOW), (NOW - timedelta(days=2), NOW - timedelta(days=2))}
    assert obstacle(found, asked.network_access, NOW) is None
    if decision.change.identity is None:
        assert access_obstacle(found) is None
        assert found.network_access is NetworkAccess.PUBLIC or Reason.ACCESS_UNKNOWN not in warnings(found)
        assert read_cluster.identity.kind is IdentityKind.USER_ASSIGNED
        assert asked.identity == OWN or read_cluster.identity.is_called(asked.identity)
        assert decision.change.after.key_management is KeyManagement.CUSTOMER_MANAGED
    else:
        assert asked.allow_identity_change
        assert read_cluster.identity.kind is IdentityKind.SYSTEM_ASSIGNED
        assert decision.change.identity == asked.identity
        assert decision.change.after == decision.change.before


def test_the_properties_of_a_key_are_not_true_of_nothing() -> None:
    """Both kinds of write can be reached by the strategies above."""
    written = decide(Facts(cluster(), prerequisites=prerequisites()), keyed(), NOW)
    changed = decide(Facts(SYSTEM_ASSIGNED, prerequisites=prerequisites()), keyed(**CHANGING), NOW)

    assert [written.reason, changed.reason] == [Reason.NOT_AS_ASKED, Reason.IDENTITY_TO_CHANGE]


SETTLED_CLUSTERS = st.builds(
    document,
    identity=st.sampled_from(["UserAssigned", "SystemAssigned"]),
    assigned=st.just((IDENTITY_ID,)),
    security=SOUND_SECURITY,
)
FITTING_TARGETS = st.builds(key_target, **{"identity": st.just(IDENTITY_ID), "allowIdentityChange": st.just(True)})


@PROPERTY
@given(SETTLED_CLUSTERS, FITTING_TARGETS, USABLE)
def test_a_change_to_a_key_touches_kms_and_identity_alone_and_is_not_asked_for_twice(
    read: dict[str, Any], asked: Target, found: Any
) -> None:
    kept = copy.deepcopy(read)
    looked_at = Cluster.read(read, read)
    decision = decide(Facts(looked_at, prerequisites=found), assignment(asked=asked), NOW)
    if not isinstance(decision.change, Change):
        unsure = decision.reason is Reason.ACCESS_UNKNOWN
        assert unsure or looked_at.encryption.key_management is not KeyManagement.NONE
        return

    written_document = asking_for(looked_at.document, decision.change.after, decision.change.identity)

    assert read == kept
    assert without_kms(written_document) | {"identity": None} == without_kms(read) | {"identity": None}
    written = Cluster.read(written_document | {"eTag": OTHER_ETAG}, written_document)
    assert decision.change.is_in(written)
    again = decide(Facts(written, prerequisites=found), assignment(asked=asked), NOW)
    if decision.change.identity is None:
        assert written_document["identity"] == read["identity"]
        assert again == Decision(Action.NOTHING, (Reason.AS_ASKED,))
    else:
        assert written.encryption == looked_at.encryption
        assert written.identity.is_called(IDENTITY_ID)
        assert again.reason is not Reason.IDENTITY_TO_CHANGE


def test_all_facts_are_known_to_these_tests() -> None:
    """A new fact needs a strategy above."""
    known = ["cluster", "waiting", "refusal", "prerequisites", "set_back", "paused", "succession", "rewrite"]
    known += ["reader_refused"]

    assert [field.name for field in fields(Facts)] == known


# moves


@pytest.mark.parametrize(
    ("kubernetes", "security", "expected"),
    [
        pytest.param("1.26.15", LEGACY, Reason.LEGACY_V1, id="just-before-v2"),
        pytest.param("1.27.0", LEGACY, None, id="at-v2"),
        pytest.param("1.27.1", LEGACY, None, id="just-after"),
        pytest.param("1.26.15", PMK, None, id="not-legacy"),
        pytest.param("new", LEGACY, None, id="a-version-nobody-can-read"),
    ],
)
def test_legacy_v1_has_no_direct_move(kubernetes: str, security: dict[str, Any], expected: Reason | None) -> None:
    facts = Facts(cluster(kubernetes=kubernetes, security=security))

    assert answer(decisions.is_legacy_v1, facts=facts) is expected


OTHER_KEY = LEGACY_URL.replace("/etcd/", "/other/")
OTHER_VAULT = LEGACY_URL.replace("kv-kms", "kv-far")


def legacy(url: str, access: str | None) -> dict[str, Any]:
    """A legacy cluster's profile, with this key and this network access."""
    kms = {"enabled": True, "keyId": url} | ({"keyVaultNetworkAccess": access} if access else {})
    return {"azureKeyVaultKms": kms}


@pytest.mark.parametrize(
    ("security", "network", "expected"),
    [
        pytest.param(legacy(LEGACY_URL, "Public"), VaultNetwork.OPEN, None, id="same-access"),
        pytest.param(legacy(LEGACY_URL, None), VaultNetwork.OPEN, None, id="access-left-out-means-public"),
        pytest.param(legacy(LEGACY_URL, "Private"), VaultNetwork.TRUSTED, None, id="private-stays-private"),
        pytest.param(legacy(LEGACY_URL, "Public"), VaultNetwork.TRUSTED, Reason.NEEDS_OFF_AND_ON, id="to-private"),
        pytest.param(legacy(LEGACY_URL, "pRIVATE"), VaultNetwork.OPEN, Reason.NEEDS_OFF_AND_ON, id="to-public"),
        pytest.param(legacy(OTHER_KEY, "Private"), VaultNetwork.OPEN, Reason.NEEDS_OFF_AND_ON, id="other-key"),
        pytest.param(legacy(OTHER_VAULT, "Private"), VaultNetwork.OPEN, None, id="other-vault"),
        pytest.param(PRIVATE_CMK, VaultNetwork.OPEN, None, id="not-legacy"),
    ],
)
def test_the_access_to_one_vault_changes_only_by_off_and_on(
    security: dict[str, Any], network: VaultNetwork, expected: Reason | None
) -> None:
    found = prerequisites(vault=vault(network=network))
    facts = Facts(cluster(security=security), prerequisites=found)

    assert answer(decisions.needs_off_and_on, facts=facts, assigned=keyed(migrate=True)) is expected


@pytest.mark.parametrize(
    ("security", "said", "expected"),
    [
        pytest.param(legacy(LEGACY_URL, "Public"), {}, None, id="legacy-same-key"),
        pytest.param(legacy(OTHER_KEY, "Public"), {}, Reason.UNCONFIRMED_MOVE, id="legacy-other-key"),
        pytest.param(legacy(OTHER_VAULT, "Public"), {}, Reason.UNCONFIRMED_MOVE, id="legacy-other-vault"),
        pytest.param(legacy(OTHER_KEY, "Public"), {"allowUnconfirmed": True}, None, id="allowed"),
        pytest.param(CMK, {"key": "other"}, Reason.UNCONFIRMED_MOVE, id="customer-managed-other-key"),
        pytest.param(PRIVATE_CMK, {}, Reason.UNCONFIRMED_MOVE, id="customer-managed-other-access"),
        pytest.param(PMK, {}, None, id="from-platform-managed"),
        pytest.param({}, {}, None, id="from-nothing"),
    ],
)
def test_a_move_that_no_document_states_is_reported_unless_it_is_allowed(
    security: dict[str, Any], said: dict[str, Any], expected: Reason | None
) -> None:
    facts = Facts(cluster(security=security), prerequisites=prerequisites())

    assert answer(decisions.is_unconfirmed, facts=facts, assigned=keyed(migrate=True, **said)) is expected


@pytest.mark.parametrize(
    ("granted", "expected"),
    [
        pytest.param(NOW - PROPAGATION + SECOND, True, id="just-before-the-hour"),
        pytest.param(NOW - PROPAGATION, False, id="at-the-hour"),
        pytest.param(NOW - PROPAGATION - SECOND, False, id="just-after"),
        pytest.param(None, False, id="nobody-tells-when"),
    ],
)
def test_a_grant_is_young_for_an_hour(granted: datetime | None, expected: bool) -> None:
    found = prerequisites(access=replace(access(), granted_at=granted))

    assert is_propagating(found, NOW) is expected
    assert is_propagating(None, NOW) is False
