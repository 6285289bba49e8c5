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
from shared.clusters import Cluster, ClusterId, Encryption, KeyManagement, asking_for
from shared.decisions import (
    BLOCKED_FOR,
    CHECKS,
    DEADLINES,
    OPERATION_DEADLINE,
    VISIBILITY_DEADLINE,
    Action,
    Change,
    Check,
    Decision,
    Facts,
    Reason,
    decide,
    fix,
    within_deadline,
)
from shared.errors import Malformed
from shared.policy import Assignment, Mode, PolicyInForce
from tests.builders import (
    CLUSTER_ID,
    CMK,
    ETAG,
    LEGACY,
    NOT_ENCRYPTED,
    NOW,
    OTHER_ETAG,
    PLATFORM_MANAGED,
    PMK,
    PROPERTY,
    SECOND,
    assignment,
    cluster,
    document,
    policy,
    refusal,
    waiting,
)

AMBIGUOUS = LEGACY | PMK


def answer(check: Check, *, facts: Facts | None = None, assigned: Assignment | None = None) -> Reason | None:
    """The reason that one check gives, None where it passes."""
    decision = check(facts or Facts(cluster()), assigned or assignment(), NOW)
    return decision.reason if decision else None


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
        "kubernetes_is_too_old",
        "identity_is_unsupported",
        "is_ambiguous",
        "is_encrypted_otherwise",
        "has_no_etag",
        "was_refused",
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
        pytest.param({"security": PMK, "pools": ("Updating",)}, None, id="a-pool-is-worked-on"),
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
    refused = refusal(reason=reason, etag=etag, at=NOW - age, since=NOW - age)

    assert answer(decisions.was_refused, facts=Facts(cluster(), refusal=refused)) is expected


def test_a_refusal_is_no_matter_once_another_try_was_made() -> None:
    """A conflict is judged by when it began, a clear no by when it was said last."""
    blocked = refusal(reason=Reason.BLOCKED, at=NOW - BLOCKED_FOR, since=NOW)
    contested = refusal(reason=Reason.CONFLICT, at=NOW, since=NOW - CONFLICT_DEADLINE)

    assert answer(decisions.was_refused, facts=Facts(cluster(), refusal=blocked)) is None
    assert answer(decisions.was_refused, facts=Facts(cluster(), refusal=contested)) is Reason.WAITED_TOO_LONG


def test_a_contested_cluster_says_also_what_it_waited_for() -> None:
    contested = refusal(reason=Reason.CONFLICT, since=NOW - CONFLICT_DEADLINE)

    decision = decide(Facts(cluster(), refusal=contested), assignment(), NOW)

    assert decision.action is Action.REPORT
    assert decision.reasons == (Reason.WAITED_TOO_LONG, Reason.CONFLICT)


# what is written


@pytest.mark.parametrize("mode", list(Mode))
def test_a_cluster_that_is_not_as_asked_is_written_in_audit_too(mode: Mode) -> None:
    decision = decide(Facts(cluster()), assignment(mode=mode), NOW)

    assert decision.action is Action.WRITE
    assert decision.reasons == (Reason.NOT_AS_ASKED,)
    assert decision.change == Change(NOT_ENCRYPTED, PLATFORM_MANAGED, ETAG)


# waits


@pytest.mark.parametrize(
    ("reason", "deadline"),
    [
        pytest.param(Reason.BUSY, timedelta(hours=6), id="busy"),
        pytest.param(Reason.CONFLICT, timedelta(hours=6), id="conflict"),
        pytest.param(Reason.LIMIT_REACHED, timedelta(hours=6), id="limit"),
        pytest.param(Reason.THROTTLED, timedelta(hours=6), id="throttled"),
        pytest.param(Reason.UPDATING, OPERATION_DEADLINE, id="updating"),
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
        Reason.UPDATING,
        Reason.NOT_VISIBLE,
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
    stopped = fix(Reason.STOPPED, CLUSTER_ID)

    assert stopped is not None
    assert stopped.command == (
        f"az aks start --subscription {CLUSTER_ID.subscription} --resource-group rg-apps --name aks-1"
    )


@pytest.mark.parametrize("reason", list(Reason), ids=str)
def test_no_fix_has_a_hole_in_it(reason: Reason) -> None:
    mended = fix(reason, ClusterId(CLUSTER_ID.subscription, "rg(1)", "aks_1"))

    said = f"{mended.text} {mended.command}" if mended else ""
    assert "{" not in said
    assert "}" not in said


@pytest.mark.parametrize("reason", [Reason.AS_ASKED, Reason.NO_TARGET, Reason.EXEMPT, Reason.UPDATING, Reason.GONE])
def test_what_nobody_can_mend_has_no_fix(reason: Reason) -> None:
    assert fix(reason, CLUSTER_ID) is None


# purity


def test_deciding_twice_gives_the_same_and_leaves_its_inputs_unchanged() -> None:
    read = document(security={"azureKeyVaultKms": {"enabled": False}})
    facts = [
        Facts(Cluster.read(read, read), waited, refused)
        for waited in (None, waiting(), waiting(since=NOW - timedelta(days=1)))
        for refused in (None, refusal(), refusal(etag=OTHER_ETAG), refusal(reason=Reason.CONFLICT))
    ]
    asked = [assignment(), assignment(mode=Mode.AUDIT), assignment(exempt_because="x"), Assignment()]
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
    if decision.change is None:
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
        assert decision.change is not None
        assert decision.change.etag == found.etag


def test_all_facts_are_known_to_these_tests() -> None:
    """A new fact needs a strategy above."""
    assert [field.name for field in fields(Facts)] == ["cluster", "waiting", "refusal"]
