"""The policy document, and what it asks of one cluster at one moment."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.clusters import KeyManagement
from shared.policy import Assignment, Limits, Mode, PolicyInForce
from tests.builders import (
    ENFORCING_POLICY,
    NOW,
    OTHER_SUBSCRIPTION,
    PROPERTY,
    SECOND,
    SMALLEST_POLICY,
    SUBSCRIPTION,
    assignment,
    cluster,
    policy,
)

SHIPPED = Path(__file__).parent.parent / "kms-policy.yaml"
FULL_DOCUMENT = f"""
version: 1
mode: enforce
acceptIrreversible: true
targets:
  - name: payments
    match:
      subscriptions: [{SUBSCRIPTION}]
      resourceGroups: ["rg-pay-*"]
      regions: [westeurope]
      names: ["aks-*"]
      tags: {{env: prod}}
    mode: audit
    keyManagement: platform-managed
  - keyManagement: platform-managed
optOutTag: leave-me
exemptions:
  - {{match: {{names: [aks-old]}}, owner: team@example.com, reason: legacy app, expires: 2027-03-31}}
limits: {{concurrentUpdates: 7, concurrentUpdatesPerSubscription: 3}}
"""


# reading


def test_the_shipped_document_audits_everything_and_is_sound() -> None:
    shipped = policy(SHIPPED.read_text(encoding="utf-8"))

    assigned = shipped.assignment(cluster(), NOW)

    assert shipped.mode is Mode.AUDIT
    assert assigned.mode is Mode.AUDIT
    assert assigned.target is not None
    assert assigned.target.asks_for is KeyManagement.PLATFORM_MANAGED


def test_the_smallest_document_is_safe() -> None:
    smallest = policy(SMALLEST_POLICY)

    assert smallest.mode is Mode.AUDIT
    assert (smallest.limits.concurrent_updates, smallest.limits.concurrent_updates_per_subscription) == (5, 2)


def test_all_of_the_document_is_read() -> None:
    full = policy(FULL_DOCUMENT).policy

    assert full is not None
    assert [target.name for target in full.targets] == ["payments", "default"]
    assert full.targets[0].match.tags == {"env": "prod"}
    assert (full.limits.concurrent_updates, full.limits.concurrent_updates_per_subscription) == (7, 3)
    assert full.opt_out_tag == "leave-me"
    assert full.exemptions[0].owner == "team@example.com"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        pytest.param("", "the document: Input should be", id="empty"),
        pytest.param("just text", "the document: Input should be", id="text"),
        pytest.param("[1, 2]", "the document: Input should be", id="a-list"),
        pytest.param("a: [", "not YAML", id="not-yaml"),
        pytest.param("a: \x00", "not YAML", id="a-control-character"),
        pytest.param("mode: audit\ntargets: [{keyManagement: platform-managed}]", "version: is missing", id="version"),
        pytest.param(SMALLEST_POLICY.replace("1", "2", 1), "version: ", id="another-version"),
        pytest.param("version: 1", "targets: is missing", id="no-targets"),
        pytest.param("version: 1\ntargets: []", "targets: ", id="empty-targets"),
        pytest.param(
            "version: 1\ntargets:\n  - {name: a}", "targets.0.keyManagement: is missing", id="asks-for-nothing"
        ),
        pytest.param(
            "version: 1\ntargets:\n  - {keyManagement: customer-managed}",
            "targets.0.keyManagement: ",
            id="key-management-that-is-not-there-yet",
        ),
        pytest.param(f"mode: enforced\n{SMALLEST_POLICY}", "mode: ", id="another-mode"),
        pytest.param(f"mode: no\n{SMALLEST_POLICY}", "mode: ", id="no-is-false-in-yaml"),
        pytest.param(f"mode: enforce\n{SMALLEST_POLICY}", "needs acceptIrreversible: true", id="not-accepted"),
        pytest.param(
            f"mode: enforce\nacceptIrreversible: 'true'\n{SMALLEST_POLICY}",
            "acceptIrreversible: ",
            id="accepted-as-text",
        ),
        pytest.param(f"mood: audit\n{SMALLEST_POLICY}", "mood: unknown key; did you mean mode?", id="near-a-known-key"),
        pytest.param(f"zzz: 1\n{SMALLEST_POLICY}", "zzz: unknown key", id="unknown-key"),
        pytest.param(f"opt_out_tag: x\n{SMALLEST_POLICY}", "opt_out_tag: unknown key", id="the-field-by-pythons-name"),
        pytest.param(
            f"{SMALLEST_POLICY}    match: {{resourceGroup: [a]}}",
            "targets.0.match.resourceGroup: unknown key; did you mean resourceGroups?",
            id="unknown-key-below",
        ),
        pytest.param(f"{SMALLEST_POLICY}    match: {{names: aks}}", "targets.0.match.names: ", id="text-for-a-list"),
        pytest.param(f"limits: {{concurrentUpdates: '5'}}\n{SMALLEST_POLICY}", "limits.concurrentUpdates: ", id="text"),
        pytest.param(f"limits: {{concurrentUpdates: 0}}\n{SMALLEST_POLICY}", "limits.concurrentUpdates: ", id="zero"),
        pytest.param(
            f"limits: {{concurrentUpdates: 101}}\n{SMALLEST_POLICY}", "limits.concurrentUpdates: ", id="too-many"
        ),
        pytest.param(
            f"exemptions: [{{match: {{}}, owner: a, reason: b}}]\n{SMALLEST_POLICY}",
            "exemptions.0.expires: is missing",
            id="an-exemption-without-an-end",
        ),
        pytest.param(
            f"exemptions: [{{owner: a, reason: b, expires: 2027-01-01}}]\n{SMALLEST_POLICY}",
            "exemptions.0.match: is missing",
            id="an-exemption-of-nothing",
        ),
        pytest.param(
            f"exemptions: [{{match: {{}}, owner: a, reason: b, expires: soon}}]\n{SMALLEST_POLICY}",
            "exemptions.0.expires: ",
            id="a-date-that-is-none",
        ),
        pytest.param(
            f"exemptions: [{{match: {{}}, owner: a, reason: b, expires: 2027-02-31}}]\n{SMALLEST_POLICY}",
            "day",
            id="a-day-that-no-month-has",
        ),
    ],
)
def test_a_broken_document_names_its_fault(text: str, fault: str) -> None:
    broken = PolicyInForce.read(text)

    assert broken.policy is None
    assert any(fault in one for one in broken.faults), broken.faults


def test_every_fault_is_named_at_once() -> None:
    broken = PolicyInForce.read("version: 2\nmood: audit\ntargets: []\nlimits: {concurrentUpdates: 0}")

    assert len(broken.faults) == 4


@PROPERTY
@given(st.text() | st.text(alphabet="ab1-:[]{}&*!#?|>\"'% \n\t,.0Tz\\"))
def test_reading_a_document_never_raises(text: str) -> None:
    in_force = PolicyInForce.read(text)

    assert in_force.policy is not None or in_force.faults


def test_a_document_that_is_too_deep_is_a_fault() -> None:
    assert PolicyInForce.read("[" * 5000).faults


def test_a_broken_document_writes_nothing() -> None:
    broken = PolicyInForce.read("")

    assigned = broken.assignment(cluster(), NOW)

    assert assigned == Assignment(faults=broken.faults)
    assert (assigned.target, assigned.mode, broken.mode) == (None, Mode.AUDIT, Mode.AUDIT)
    assert broken.limits == Limits()


# targets


@pytest.mark.parametrize(
    ("match", "matches"),
    [
        pytest.param("{}", True, id="nothing-given-matches-all"),
        pytest.param(f"{{subscriptions: [{SUBSCRIPTION}]}}", True, id="subscription"),
        pytest.param(f"{{subscriptions: [{OTHER_SUBSCRIPTION}]}}", False, id="another-subscription"),
        pytest.param(f"{{subscriptions: [{OTHER_SUBSCRIPTION}, {SUBSCRIPTION}]}}", True, id="one-of-several"),
        pytest.param("{resourceGroups: [rg-apps]}", True, id="group"),
        pytest.param("{resourceGroups: [RG-*]}", True, id="case-does-not-count"),
        pytest.param("{resourceGroups: [apps]}", False, id="a-part-of-a-name-is-no-match"),
        pytest.param("{regions: [WestEurope]}", True, id="region"),
        pytest.param("{regions: [northeurope]}", False, id="another-region"),
        pytest.param("{names: ['aks-?']}", True, id="one-character"),
        pytest.param("{names: ['aks-??']}", False, id="one-character-too-many"),
        pytest.param("{tags: {env: prod}}", True, id="tag"),
        pytest.param("{tags: {ENV: PR*}}", True, id="tag-in-another-casing"),
        pytest.param("{tags: {env: dev}}", False, id="another-value"),
        pytest.param("{tags: {team: '*'}}", False, id="a-tag-that-is-not-there"),
        pytest.param("{tags: {env: prod, team: '*'}}", False, id="every-tag-must-match"),
        pytest.param("{names: ['aks-*'], regions: [northeurope]}", False, id="every-field-must-match"),
    ],
)
def test_a_target_matches_by_every_field_that_is_given(match: str, matches: bool) -> None:
    in_force = policy(f"version: 1\ntargets:\n  - keyManagement: platform-managed\n    match: {match}")

    assigned = in_force.assignment(cluster(tags={"Env": "prod"}), NOW)

    assert (assigned.target is not None) is matches


def test_the_first_target_that_matches_wins() -> None:
    in_force = policy(
        "version: 1\ntargets:\n"
        "  - {name: none, keyManagement: platform-managed, match: {names: [other]}}\n"
        "  - {name: first, keyManagement: platform-managed, match: {names: ['aks-*']}}\n"
        "  - {name: second, keyManagement: platform-managed}\n"
    )

    assigned = in_force.assignment(cluster(), NOW)

    assert assigned.target is not None
    assert assigned.target.name == "first"


# mode


@pytest.mark.parametrize(
    ("ceiling", "target", "expected"),
    [
        pytest.param("audit", None, Mode.AUDIT, id="audit"),
        pytest.param("audit", "audit", Mode.AUDIT, id="audit-twice"),
        pytest.param("audit", "enforce", Mode.AUDIT, id="a-target-never-goes-further"),
        pytest.param("enforce", None, Mode.ENFORCE, id="enforce"),
        pytest.param("enforce", "audit", Mode.AUDIT, id="a-target-lowers"),
        pytest.param("enforce", "enforce", Mode.ENFORCE, id="enforce-twice"),
    ],
)
def test_a_target_can_only_lower_the_mode(ceiling: str, target: str | None, expected: Mode) -> None:
    own = f"\n    mode: {target}" if target else ""
    in_force = policy(
        f"version: 1\nmode: {ceiling}\nacceptIrreversible: true\ntargets:\n  - keyManagement: platform-managed{own}"
    )

    assert in_force.assignment(cluster(), NOW).mode is expected


@pytest.mark.parametrize(
    ("mode", "lowered_to", "expected"),
    [
        pytest.param(Mode.ENFORCE, None, Mode.ENFORCE, id="nothing-asked"),
        pytest.param(Mode.ENFORCE, Mode.AUDIT, Mode.AUDIT, id="lowered"),
        pytest.param(Mode.AUDIT, Mode.ENFORCE, Mode.AUDIT, id="never-raised"),
        pytest.param(Mode.AUDIT, None, Mode.AUDIT, id="audit-stays"),
    ],
)
def test_a_run_can_only_lower_the_mode(mode: Mode, lowered_to: Mode | None, expected: Mode) -> None:
    assert assignment(mode=mode).lowered_to(lowered_to).mode is expected


# exemptions


@pytest.mark.parametrize(
    ("tags", "exempt"),
    [
        pytest.param({}, False, id="no-tag"),
        pytest.param({"kms-enforcer": "off"}, True, id="off"),
        pytest.param({"KMS-Enforcer": "OFF"}, True, id="in-another-casing"),
        pytest.param({"kms-enforcer": " off "}, True, id="with-blanks"),
        pytest.param({"kms-enforcer": "of"}, True, id="misspelt-still-means-leave-it-alone"),
        pytest.param({"kms-enforcer": ""}, True, id="empty"),
        pytest.param({"kms-enforcer": "on"}, False, id="on"),
        pytest.param({"kms-enforcer": "On"}, False, id="on-in-another-casing"),
        pytest.param({"kms-enforcers": "off"}, False, id="another-tag"),
    ],
)
def test_the_opt_out_tag_exempts(tags: dict[str, str], exempt: bool) -> None:
    assigned = policy(ENFORCING_POLICY).assignment(cluster(tags=tags), NOW)

    assert (assigned.exempt_because is not None) is exempt


def test_the_opt_out_tag_has_the_name_that_the_document_gives_it() -> None:
    in_force = policy(FULL_DOCUMENT)

    assert in_force.assignment(cluster(tags={"leave-me": "off"}), NOW).exempt_because == "the tag leave-me is off"
    assert in_force.assignment(cluster(tags={"kms-enforcer": "off"}), NOW).exempt_because is None


END_OF_LAST_DAY = datetime(2027, 4, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("now", "exempt"),
    [
        pytest.param(NOW, True, id="long-before"),
        pytest.param(END_OF_LAST_DAY - timedelta(days=1), True, id="the-last-day-begins"),
        pytest.param(END_OF_LAST_DAY - SECOND, True, id="just-before"),
        pytest.param(END_OF_LAST_DAY, False, id="exactly-at"),
        pytest.param(END_OF_LAST_DAY + SECOND, False, id="just-after"),
    ],
)
def test_an_exemption_ends_with_its_last_day(now: datetime, exempt: bool) -> None:
    old = cluster(cluster_id=cluster().resource_id.replace("aks-1", "aks-old"))

    assigned = policy(FULL_DOCUMENT).assignment(old, now)

    assert (assigned.exempt_because is not None) is exempt


def test_an_exemption_says_who_and_why_and_until_when() -> None:
    old = cluster(cluster_id=cluster().resource_id.replace("aks-1", "aks-old"))

    assigned = policy(FULL_DOCUMENT).assignment(old, NOW)

    assert assigned.exempt_because == "legacy app (team@example.com, until 2027-03-31)"


def test_an_exemption_leaves_other_clusters_to_the_policy() -> None:
    assert policy(FULL_DOCUMENT).assignment(cluster(), NOW).exempt_because is None


def test_an_assignment_is_the_same_twice_and_leaves_the_policy_unchanged() -> None:
    in_force, read = policy(FULL_DOCUMENT), cluster(tags={"env": "prod"})
    kept = in_force.policy.model_dump_json() if in_force.policy else ""

    once, twice = in_force.assignment(read, NOW), in_force.assignment(read, NOW)

    assert once == twice
    assert in_force.policy is not None
    assert in_force.policy.model_dump_json() == kept
