"""The policy document, and what it asks of one cluster at one moment."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.clusters import KeyManagement
from shared.keys import VaultId
from shared.policy import OWN, Assignment, Limits, Mode, NetworkAccess, PolicyInForce, Target
from tests.builders import (
    ENFORCING_POLICY,
    IDENTITY_ID,
    NOW,
    OTHER_SUBSCRIPTION,
    PROPERTY,
    SECOND,
    SMALLEST_POLICY,
    SUBSCRIPTION,
    VAULT_ID,
    assignment,
    cluster,
    key_target,
    policy,
)

VAULTS = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg-keys/providers/Microsoft.KeyVault/vaults"
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
  - name: secrets
    match: {{names: ["secret-*"]}}
    keyManagement: customer-managed
    vault: {VAULTS}/kv-{{region}}
    key: etcd
    networkAccess: private
    identity: {IDENTITY_ID}
    allowIdentityChange: true
    prerequisites: check
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
    assert [target.name for target in full.targets] == ["payments", "secrets", "default"]
    assert full.targets[0].match.tags == {"env": "prod"}
    assert full.targets[1].asks_for is KeyManagement.CUSTOMER_MANAGED
    assert full.targets[1].vault == f"{VAULTS}/kv-{{region}}"
    assert (full.targets[1].key, full.targets[1].network_access) == ("etcd", NetworkAccess.PRIVATE)
    assert (full.targets[1].identity, full.targets[1].allow_identity_change) == (IDENTITY_ID, True)
    assert (full.limits.concurrent_updates, full.limits.concurrent_updates_per_subscription) == (7, 3)
    assert full.opt_out_tag == "leave-me"
    assert full.exemptions[0].owner == "team@example.com"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        pytest.param("", "the document: nothing is no mapping", id="empty"),
        pytest.param("just text", "the document: 'just text' is no mapping", id="text"),
        pytest.param("[1, 2]", "the document: a list is no mapping", id="a-list"),
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
            "version: 1\ntargets:\n  - {keyManagement: legacy}",
            "targets.0.keyManagement: ",
            id="key-management-that-nobody-is-moved-to",
        ),
        pytest.param(
            "version: 1\ntargets:\n  - {keyManagement: customer-managed}",
            "targets.0: keyManagement: customer-managed needs vault (its resource id) and key (its name)",
            id="a-key-without-a-name",
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


# customer-managed keys


def faults(**said: object) -> tuple[str, ...]:
    """The faults of a document with this one target; the fields are the document's own."""
    return PolicyInForce.read(json.dumps({"version": 1, "targets": [said]})).faults


KEYED: dict[str, object] = {"keyManagement": "customer-managed", "vault": f"{VAULTS}/kv-kms", "key": "etcd"}


def test_a_vault_and_a_key_are_all_that_a_customer_managed_key_needs() -> None:
    assert faults(**KEYED) == ()

    asked = key_target()

    assert (asked.network_access, asked.identity, asked.allow_identity_change) == (None, OWN, False)
    assert asked.vault_for("westeurope", SUBSCRIPTION, "aks-1") == VAULT_ID


@pytest.mark.parametrize(
    "said",
    [
        pytest.param({"networkAccess": "public"}, id="public"),
        pytest.param({"networkAccess": "private"}, id="private"),
        pytest.param({"identity": "own"}, id="its-own-identity"),
        pytest.param({"identity": IDENTITY_ID}, id="a-named-identity"),
        pytest.param({"identity": IDENTITY_ID.upper()}, id="a-named-identity-in-another-casing"),
        pytest.param({"identity": IDENTITY_ID, "allowIdentityChange": True}, id="a-change-to-it"),
        pytest.param({"vault": f"{VAULTS}/KV-KMS".upper()}, id="a-vault-in-another-casing"),
        pytest.param({"vault": f"{VAULTS}/kv-{{region}}"}, id="a-placeholder"),
        pytest.param({"key": "E"}, id="the-shortest-key"),
        pytest.param({"key": "k" * 127}, id="the-longest-key"),
        pytest.param({"prerequisites": "check"}, id="prerequisites-are-checked"),
        pytest.param({"prerequisites": "ensure"}, id="prerequisites-are-ensured"),
    ],
)
def test_a_target_may_say_how_its_key_is_reached_and_by_whom(said: dict[str, object]) -> None:
    assert faults(**KEYED | said) == ()


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        pytest.param({"vault": None}, "needs vault", id="no-vault"),
        pytest.param({"vault": ""}, "needs vault", id="an-empty-vault"),
        pytest.param({"key": None}, "needs vault", id="no-key"),
        pytest.param({"vault": "kv-kms"}, "not the resource id of a key vault", id="a-vault-by-its-name"),
        pytest.param({"vault": f"{VAULTS}/kv-kms/keys/etcd"}, "not the resource id", id="a-key-for-a-vault"),
        pytest.param(
            {"vault": f"{VAULTS}/kv-{{cluster}}"}, "{cluster} is no placeholder", id="a-placeholder-nobody-fills-in"
        ),
        pytest.param({"vault": f"{VAULTS}/{'k' * 25}"}, "not the resource id", id="a-vaults-name-too-long"),
        pytest.param(
            {"vault": f"{VAULTS}/kv-kms".replace("vaults", "managedHSMs")}, "not the resource id", id="a-managed-hsm"
        ),
        pytest.param({"key": ""}, "key: ", id="an-empty-key"),
        pytest.param({"key": "k" * 128}, "key: ", id="a-key-too-long"),
        pytest.param({"key": "etcd/0123"}, "key: ", id="a-version-behind-the-key"),
        pytest.param({"key": "etcd\n"}, "key: ", id="a-newline-behind-the-key"),
        pytest.param({"key": "https://kv-kms.vault.azure.net/keys/etcd"}, "key: ", id="a-url-for-a-key"),
        pytest.param({"networkAccess": "Private"}, "networkAccess: ", id="another-casing"),
        pytest.param({"networkAccess": "selected"}, "networkAccess: ", id="another-network-access"),
        pytest.param({"identity": "id-cp-1"}, "identity is `own` or", id="an-identity-by-its-name"),
        pytest.param({"identity": f"{IDENTITY_ID}/x"}, "identity is `own` or", id="more-than-an-identity"),
        pytest.param({"identity": ""}, "identity is `own` or", id="an-empty-identity"),
        pytest.param({"allowIdentityChange": True}, "needs an identity to change to", id="a-change-to-nothing"),
        pytest.param({"allowIdentityChange": "yes"}, "allowIdentityChange: ", id="text-for-a-yes"),
        pytest.param({"prerequisites": "make"}, "is not one of check, ensure", id="other-prerequisites"),
        pytest.param({"valut": "x"}, "valut: unknown key; did you mean vault?", id="near-a-known-key"),
    ],
)
def test_a_target_that_does_not_fit_its_key_names_its_fault(said: dict[str, object], fault: str) -> None:
    found = faults(**KEYED | said)

    assert any(one.startswith("targets.0") and fault in one for one in found), found


@pytest.mark.parametrize(
    "said",
    [
        pytest.param({"vault": f"{VAULTS}/kv-kms"}, id="vault"),
        pytest.param({"key": "etcd"}, id="key"),
        pytest.param({"networkAccess": "public"}, id="network-access"),
        pytest.param({"identity": IDENTITY_ID}, id="identity"),
    ],
)
def test_what_belongs_to_a_key_of_ones_own_is_a_fault_beside_a_platform_managed_one(said: dict[str, object]) -> None:
    """Nobody shall believe that a vault is used which is not."""
    (fault,) = faults(keyManagement="platform-managed", **said)

    assert "belong to keyManagement: customer-managed" in fault


@pytest.mark.parametrize(
    ("vault", "expected"),
    [
        pytest.param(f"{VAULTS}/kv-kms", VAULT_ID, id="no-placeholder"),
        pytest.param(f"{VAULTS}/kv-{{region}}", VaultId(SUBSCRIPTION, "rg-keys", "kv-westeurope"), id="region"),
        pytest.param(f"{VAULTS}/kv-{{name}}", VaultId(SUBSCRIPTION, "rg-keys", "kv-aks-1"), id="name"),
        pytest.param(
            VAULTS.replace(SUBSCRIPTION, "{subscription}") + "/kv-kms",
            VaultId(OTHER_SUBSCRIPTION, "rg-keys", "kv-kms"),
            id="subscription",
        ),
        pytest.param(
            VAULTS.replace("rg-keys", "rg-{region}-{name}") + "/kv-{region}",
            VaultId(SUBSCRIPTION, "rg-westeurope-aks-1", "kv-westeurope"),
            id="several-and-one-twice",
        ),
    ],
)
def test_the_placeholders_of_a_vault_are_filled_in(vault: str, expected: VaultId) -> None:
    assert key_target(vault=vault).vault_for("westeurope", OTHER_SUBSCRIPTION, "aks-1") == expected


@pytest.mark.parametrize(
    ("region", "name"),
    [
        pytest.param("westeurope", "a-name-that-is-too-long", id="too-long"),
        pytest.param("westeurope", "aks_1", id="an-underscore"),
        pytest.param("", "", id="nothing"),
        pytest.param("westeurope", "{region}", id="a-placeholder-for-a-name-is-not-filled-in-again"),
    ],
)
def test_a_name_that_makes_no_vault_is_told(region: str, name: str) -> None:
    asked = key_target(vault=f"{VAULTS}/k-{{name}}")

    with pytest.raises(ValueError, match="not the resource id of a key vault"):
        asked.vault_for(region, SUBSCRIPTION, name)


def test_a_target_without_a_vault_has_none_to_fill_in() -> None:
    asked = Target.model_validate({"keyManagement": "platform-managed"})

    with pytest.raises(ValueError, match="not the resource id of a key vault"):
        asked.vault_for("westeurope", SUBSCRIPTION, "aks-1")


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
