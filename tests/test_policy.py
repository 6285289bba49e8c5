"""The policy document, and what it asks of one cluster at one moment."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator, FormatChecker  # type: ignore[import-untyped]  # it ships no types

from shared.clusters import KeyManagement
from shared.keys import VaultId
from shared.policy import (
    OPT_OUT,
    OWN,
    Assignment,
    ExemptionStatus,
    Keys,
    Legacy,
    LegacyRotation,
    Limits,
    Mode,
    NetworkAccess,
    Policy,
    PolicyInForce,
    Preparing,
    SecondRole,
    Target,
)
from shared.policy.__main__ import main
from shared.policy.document import MOST_FAULTS
from shared.policy.reading import MOST_CHARACTERS, MOST_VALUES
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
ROOT = Path(__file__).parent.parent
SHIPPED = ROOT / "kms-policy.yaml"
EXAMPLE = ROOT / "docs" / "fleet.policy.example.yaml"
SCHEMA = ROOT / "docs" / "kms-policy.schema.json"
DAY = timedelta(days=1)
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
limits: {{concurrentUpdates: 7, concurrentUpdatesPerSubscription: 3, stopAfterFailures: 4}}
windows: [{{days: [mon, sun], from: "22:00", to: "04:00", timezone: Europe/Amsterdam}}]
keys: {{warnBeforeExpiryDays: 14, maxAgeDays: 90, adoptionHours: 24}}
legacy: {{rotation: update-and-reencrypt}}
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
    assert smallest.limits.model_dump() == {
        "concurrent_updates": 5,
        "concurrent_updates_per_subscription": 2,
        "stop_after_failures": 3,
    }
    assert smallest.keys.model_dump() == {"warn_before_expiry_days": 30, "max_age_days": 400, "adoption_hours": 6}
    assert smallest.legacy.rotation is LegacyRotation.REPORT
    assert smallest.policy is not None
    assert smallest.policy.windows == []
    assert smallest.policy.targets[0].prerequisites is Preparing.CHECK


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
    assert full.limits.stop_after_failures == 4
    assert [(one.days, one.opens, one.closes, one.timezone) for one in full.windows] == [
        (["mon", "sun"], "22:00", "04:00", "Europe/Amsterdam")
    ]
    assert (full.keys.warn_before_expiry_days, full.keys.max_age_days, full.keys.adoption_hours) == (14, 90, 24)
    assert full.legacy.rotation is LegacyRotation.UPDATE_AND_REENCRYPT
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
            "exemptions.0.expires: '2027-02-31' is no day: write a date",
            id="a-day-that-no-month-has",
        ),
    ],
)
def test_a_broken_document_names_its_fault(text: str, fault: str) -> None:
    broken = PolicyInForce.read(text)

    assert broken.policy is None
    assert any(fault in one for one in broken.faults), broken.faults


EVERY_KIND = """\
version: 2
mood: audit
mode: enforce
mode: enforce
stopAfterFailures: 3
targets:
  - name: 1
    match: {regions: [], tags: {on: x}, subscriptions: [production]}
    keyManagement: customer-managed
    vault: kv-kms
    prerequisites: enshure
    migrate: "yes"
limits: {concurrentUpdates: 0, stopAfterFailures: 101}
windows:
  - {days: [mon, no], from: 16:00, to: "17:00", timezone: Europe/Amsterdm}
exemptions:
  - {match: , owner: [], reason: 5, expires: 2027-03-31T12:00:00}
keys: {adoptionHours: 5, maxAgeDays: 30.5}
legacy: {rotation: updated}
zzz: 1
"""


def test_every_fault_is_named_at_once_with_its_path_and_what_to_write() -> None:
    found = PolicyInForce.read(EVERY_KIND).faults

    assert found == (
        "mode: stands twice in the mapping of line 1: keep one of them",
        "the document: mode: enforce needs acceptIrreversible: true, since the new experience can't be turned off "
        "again",
        "version: 2 is not served: write 1",
        "targets.0: keyManagement: customer-managed needs vault (its resource id) and key (its name)",
        'targets.0.name: 1 is no text: write it in quotes; for example `name: "payments"`',
        "targets.0.match.subscriptions.0: not a subscription id: 'production': write its id, or a pattern with * or ?",
        'targets.0.match.regions: must not be empty; for example `regions: ["westeurope"]`',
        "targets.0.match.tags.1: a key must be text: write it in quotes; on, off, yes and no are no text without",
        "targets.0.vault: not the resource id of a key vault: 'kv-kms'; it is like "
        "/subscriptions/.../resourceGroups/.../providers/Microsoft.KeyVault/vaults/...",
        "targets.0.prerequisites: 'enshure' is not one of check, ensure; did you mean ensure?",
        "targets.0.migrate: 'yes' is neither true nor false: write one of these, without quotes; "
        "for example `migrate: true`",
        "exemptions.0.match: nothing is no mapping: write `name: value` pairs; "
        'for example `match: {"names": ["aks-old"]}`',
        'exemptions.0.owner: a list is no text: write one; for example `owner: "team@example.com"`',
        'exemptions.0.reason: 5 is no text: write it in quotes; for example `reason: "is retired in March"`',
        "exemptions.0.expires: 2027-03-31T12:00:00 names no time zone: write 2027-03-31T12:00:00Z for UTC",
        "limits.concurrentUpdates: 0 is too little: write 1 or more; for example `concurrentUpdates: 5`",
        "limits.stopAfterFailures: 101 is too much: write 100 or less; for example `stopAfterFailures: 3`",
        "windows.0.days.1: false is not one of mon, tue, wed, thu, fri, sat, sun; YAML reads yes, no, on and off "
        "without quotes as true or false: write them in quotes",
        'windows.0.from: YAML reads 16:00 without quotes as the number 960: write "16:00", in quotes',
        "windows.0.timezone: 'Europe/Amsterdm' is not a time zone of the IANA database; did you mean Europe/Amsterdam?",
        "keys.maxAgeDays: 30.5 is no whole number: write one, without quotes; for example `maxAgeDays: 400`",
        "keys.adoptionHours: 5 is too little: write 6 or more; for example `adoptionHours: 6`",
        "legacy.rotation: 'updated' is not one of report, update, update-and-reencrypt; did you mean update?",
        "mood: unknown key; did you mean mode?",
        "stopAfterFailures: unknown key; it belongs under limits",
        "zzz: unknown key; known here are version, mode, acceptIrreversible, targets, optOutTag, exemptions, limits, "
        "windows, keys, legacy",
    )


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        pytest.param("a: !!int foo", "tags like tag:yaml.org,2002:int are not served", id="a-tag-that-fits-nothing"),
        pytest.param("a: !!python/object/new:os.system [x]", "are not served", id="a-tag-that-runs-code"),
        pytest.param("a: &a [*a]", "stands within what it stands for", id="an-alias-of-itself"),
        pytest.param("a: *b", "undefined alias", id="an-alias-of-nothing"),
        pytest.param("--- 1\n--- 2", "a single document", id="two-documents"),
        pytest.param("? {a: b}\n: c", "unhashable key", id="a-mapping-for-a-key"),
        pytest.param("a:\n\tb: 1", "not with tabs", id="a-tab"),
        pytest.param(f"1: 2\n{SMALLEST_POLICY}", "1: a key must be text", id="a-number-for-a-key"),
        pytest.param(f"~: 2\n{SMALLEST_POLICY}", "a key must be text", id="nothing-for-a-key"),
        pytest.param(f"mode: \ud800\n{SMALLEST_POLICY}", "not YAML", id="half-a-character"),
        pytest.param(f"mode: {'9' * 5000}\n{SMALLEST_POLICY}", "mode: '9999", id="more-digits-than-python-reads"),
        pytest.param(f"mode: 2027-02-30\nmood: 1\n{SMALLEST_POLICY}", "mood: unknown", id="beside-a-day-that-is-none"),
        pytest.param(SMALLEST_POLICY.replace("1", "yes", 1), "version: true is not served: write 1", id="version-yes"),
        pytest.param(
            f'windows: [{{days: [mon], from: "08:00", to: "09:00", timezone: localtime}}]\n{SMALLEST_POLICY}',
            "windows.0.timezone: 'localtime' is not a time zone of the IANA database",
            id="the-time-zone-of-whatever-machine-it-is",
        ),
        pytest.param(f"mode: {'x' * 5000}\n{SMALLEST_POLICY}", "xxx...' is not one of audit", id="a-long-value"),
        pytest.param(f"{'x' * 900}: 1\n{SMALLEST_POLICY}", "xxx: unknown key", id="a-long-key"),
        pytest.param("x" * (MOST_CHARACTERS + 1), f"write {MOST_CHARACTERS} at most", id="too-long"),
        pytest.param("- " * 300_000, "levels deep", id="too-deep-by-lines"),
        pytest.param("{a: " * 100_000, "levels deep", id="too-deep-by-brackets"),
        pytest.param("- 1\n" * (MOST_VALUES + 1), f"more than {MOST_VALUES} values", id="too-many-values"),
    ],
)
def test_a_hostile_document_gets_a_clear_fault(text: str, fault: str) -> None:
    broken = PolicyInForce.read(text)

    assert broken.policy is None
    assert any(fault in one for one in broken.faults), broken.faults
    assert max(map(len, broken.faults)) < 1000


def test_aliases_that_multiply_are_a_fault_and_cost_nothing() -> None:
    bomb = "a: &l0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"b{level}: &l{level} [{', '.join([f'*l{level - 1}'] * 10)}]\n" for level in range(1, 20)
    )

    assert PolicyInForce.read(bomb).faults == (f"line 6: the document holds more than {MOST_VALUES} values",)


def test_an_alias_and_a_merge_are_read_as_what_they_stand_for() -> None:
    in_force = policy(
        "version: 1\ntargets:\n"
        "  - &base {name: first, match: &ours {names: ['aks-*']}, keyManagement: platform-managed}\n"
        "  - {<<: *base, name: second, match: *ours}\n"
    )

    assert in_force.policy is not None
    assert [(one.name, one.match.names) for one in in_force.policy.targets] == [
        ("first", ["aks-*"]),
        ("second", ["aks-*"]),
    ]


def test_a_key_that_stands_twice_is_named_wherever_it_stands() -> None:
    broken = PolicyInForce.read(f"{SMALLEST_POLICY}    match: {{names: [a], names: [b], tags: {{e: x, e: y}}}}")

    assert [fault.partition(":")[0] for fault in broken.faults] == [
        "targets.0.match.names",
        "targets.0.match.tags.e",
    ]


def test_ten_thousand_targets_are_read() -> None:
    targets = "".join(
        f"  - {{match: {{names: ['aks-{n}']}}, keyManagement: platform-managed}}\n" for n in range(10_000)
    )

    in_force = policy(f"version: 1\ntargets:\n{targets}")

    assert in_force.policy is not None
    assert len(in_force.policy.targets) == 10_000


def test_more_faults_than_anybody_reads_are_counted() -> None:
    unknown = "\n".join(f"k{number}: 1" for number in range(5000))

    found = PolicyInForce.read(f"{SMALLEST_POLICY}{unknown}").faults

    assert (len(found), found[-1]) == (MOST_FAULTS + 1, "and 4000 more: mend these first")


def test_more_keys_that_stand_twice_than_anybody_reads_are_counted() -> None:
    twice = "\n".join(f"k{number}: 1\nk{number}: 2" for number in range(1500))

    found = PolicyInForce.read(f"{SMALLEST_POLICY}{twice}").faults

    assert (len(found), found[-1]) == (MOST_FAULTS + 1, "and 2000 more: mend these first")


@PROPERTY
@given(st.text() | st.text(alphabet="ab1-:[]{}&*!#?|>\"'% \n\t,.0Tz\\"))
def test_reading_a_document_never_raises(text: str) -> None:
    in_force = PolicyInForce.read(text)

    assert in_force.policy is not None or in_force.faults


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.dates() | st.datetimes()
ANYTHING = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(SCALARS, inner, max_size=3), max_leaves=6
)


@PROPERTY
@given(st.data())
def test_reading_a_document_with_one_value_changed_never_raises(data: st.DataObject) -> None:
    document = yaml.safe_load(FULL_DOCUMENT)
    place = document
    while isinstance(place, dict | list) and place:
        key = data.draw(st.sampled_from(range(len(place)) if isinstance(place, list) else list(place)))
        if not isinstance(place[key], dict | list) or not place[key] or data.draw(st.booleans()):
            place[key] = data.draw(ANYTHING)
            break
        place = place[key]

    in_force = PolicyInForce.read(yaml.safe_dump(document, allow_unicode=True))

    assert (in_force.policy is not None) is (in_force.faults == ())


@PROPERTY
@given(st.integers(0, len(FULL_DOCUMENT)), st.integers(0, 20), st.text(max_size=5) | st.sampled_from("-:[]{}&*!\t\x00"))
def test_reading_a_document_with_some_text_changed_never_raises(start: int, length: int, text: str) -> None:
    in_force = PolicyInForce.read(FULL_DOCUMENT[:start] + text + FULL_DOCUMENT[start + length :])

    assert (in_force.policy is not None) is (in_force.faults == ())


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
        pytest.param("{regions: [West Europe]}", True, id="region-as-the-portal-shows-it"),
        pytest.param("{regions: ['*europe']}", True, id="region-by-pattern"),
        pytest.param(f"{{subscriptions: [{SUBSCRIPTION.upper()}]}}", True, id="subscription-in-another-casing"),
        pytest.param("{subscriptions: ['00000000-*']}", True, id="subscription-by-pattern"),
        pytest.param("{tags: {odd: '[x]'}}", True, id="a-bracket-is-a-bracket"),
        pytest.param("{tags: {env: '[p]rod'}}", False, id="brackets-hold-no-choices"),
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

    assigned = in_force.assignment(cluster(tags={"Env": "prod", "odd": "[x]"}), NOW)

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
        pytest.param({"prerequisites": "ensure"}, id="prerequisites"),
        pytest.param({"allowIdentityChange": True}, id="identity-change"),
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


def test_a_region_as_the_portal_shows_it_is_filled_in_by_its_name() -> None:
    asked = key_target(vault=f"{VAULTS}/kv-{{region}}")

    assert asked.vault_for("West Europe", SUBSCRIPTION, "aks-1").name == "kv-westeurope"


def test_what_a_placeholder_stands_for_is_not_filled_in_again() -> None:
    asked = key_target(vault=f"{VAULTS}/kv-{{region}}")

    with pytest.raises(ValueError, match="not the resource id of a key vault"):
        asked.vault_for("{name}", SUBSCRIPTION, "aks-1")


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


UNTIL_NOON = f"""
{ENFORCING_POLICY}
exemptions:
  - {{match: {{}}, owner: team@example.com, reason: moves, expires: 2027-03-31T12:00:00+02:00}}
"""


@pytest.mark.parametrize(
    ("seconds", "exempt"),
    [pytest.param(-1, True, id="just-before"), pytest.param(0, False, id="at"), pytest.param(1, False, id="after")],
)
def test_an_exemption_ends_at_the_second_of_its_moment(seconds: int, exempt: bool) -> None:
    ten_o_clock = datetime(2027, 3, 31, 10, tzinfo=UTC)

    assigned = policy(UNTIL_NOON).assignment(cluster(), ten_o_clock + seconds * SECOND)

    assert (assigned.exemption is not None) is exempt
    assert assigned.exempt_because == ("moves (team@example.com, until 2027-03-31T12:00:00+02:00)" if exempt else None)


@pytest.mark.parametrize("expires", ["9999-12-31", "9999-12-31T23:59:59-12:00", "0001-01-01", "0001-01-01T00:00:00Z"])
def test_an_exemption_may_end_at_the_ends_of_time(expires: str) -> None:
    in_force = policy(f"{ENFORCING_POLICY}exemptions: [{{match: {{}}, owner: a, reason: b, expires: {expires}}}]")

    assigned = in_force.assignment(cluster(), NOW)

    assert (assigned.exemption is not None) is expires.startswith("9")


@pytest.mark.parametrize(
    ("now", "status"),
    [
        pytest.param(NOW, ExemptionStatus.IN_FORCE, id="long-before"),
        pytest.param(END_OF_LAST_DAY - 15 * DAY - SECOND, ExemptionStatus.IN_FORCE, id="just-more-than-15-days"),
        pytest.param(END_OF_LAST_DAY - 15 * DAY, ExemptionStatus.ENDING, id="exactly-15-days"),
        pytest.param(END_OF_LAST_DAY - SECOND, ExemptionStatus.ENDING, id="its-last-second"),
        pytest.param(END_OF_LAST_DAY, ExemptionStatus.ENDED, id="over"),
    ],
)
def test_an_exemption_is_ending_fifteen_days_before_it_ends(now: datetime, status: ExemptionStatus) -> None:
    document = policy(FULL_DOCUMENT).policy
    assert document is not None

    assert document.exemptions[0].status(now) is status


def exemption_id(text: str) -> str:
    document = policy(f"{SMALLEST_POLICY}exemptions: [{{{text}}}]").policy
    assert document is not None
    return document.exemptions[0].id


def test_an_exemption_s_id_stays_as_long_as_it_says_the_same() -> None:
    plain = exemption_id("match: {names: [a], regions: [b]}, owner: o, reason: r, expires: 2027-03-31")
    otherwise = exemption_id("expires: '2027-03-31', reason: 'r', owner: \"o\", match: {regions: [b], names: [a]}")
    other = exemption_id("match: {names: [a], regions: [b]}, owner: o, reason: r, expires: 2027-04-01")

    assert re.fullmatch("[0-9a-f]{12}", plain)
    assert plain == otherwise
    assert plain != other
    assert plain == "c26ec5f44592", "a row of the last sweep names it"


def test_an_assignment_names_the_exemption_and_the_tag_comes_first() -> None:
    in_force = policy(FULL_DOCUMENT)
    document = in_force.policy
    assert document is not None
    old = cluster().resource_id.replace("aks-1", "aks-old")

    plain = in_force.assignment(cluster(cluster_id=old), NOW)
    tagged = in_force.assignment(cluster(cluster_id=old, tags={"leave-me": "off"}), NOW)

    assert plain.exemption == document.exemptions[0].id
    assert tagged.exemption == OPT_OUT
    assert in_force.assignment(cluster(), NOW).exemption is None
    assert tuple(in_force.exemptions_of(cluster(cluster_id=old, tags={"leave-me": "off"}))) == (
        OPT_OUT,
        document.exemptions[0].id,
    )
    assert in_force.exemption_ids() == (OPT_OUT, document.exemptions[0].id)


def test_a_broken_document_exempts_nobody_and_asks_for_the_least() -> None:
    broken = PolicyInForce.read("")

    assert (tuple(broken.exemptions_of(cluster())), broken.exemption_ids()) == ((), ())
    assert (broken.keys, broken.legacy) == (Keys(), Legacy())


@pytest.mark.parametrize("text", [SMALLEST_POLICY, "", f"{SMALLEST_POLICY}    match: {{names: [other]}}"])
def test_an_assignment_carries_the_second_role(text: str) -> None:
    in_force = PolicyInForce.read(text, SecondRole.CONTRIBUTOR)

    assert in_force.assignment(cluster(), NOW).second_role is SecondRole.CONTRIBUTOR
    assert PolicyInForce.read(text).assignment(cluster(), NOW).second_role is SecondRole.READER


@pytest.mark.parametrize(
    ("subscriptions", "mode"),
    [((), Mode.ENFORCE), ((SUBSCRIPTION,), Mode.ENFORCE), ((OTHER_SUBSCRIPTION,), Mode.AUDIT)],
    ids=["all", "its own", "another"],
)
def test_a_cluster_outside_the_subscriptions_that_are_swept_is_only_audited(
    subscriptions: tuple[str, ...], mode: Mode
) -> None:
    in_force = PolicyInForce.read(ENFORCING_POLICY, subscriptions=subscriptions)

    assert in_force.assignment(cluster(), NOW).mode is mode


def test_an_exemption_leaves_other_clusters_to_the_policy() -> None:
    assert policy(FULL_DOCUMENT).assignment(cluster(), NOW).exempt_because is None


def test_an_assignment_is_the_same_twice_and_leaves_the_policy_unchanged() -> None:
    in_force, read = policy(FULL_DOCUMENT), cluster(tags={"env": "prod"})
    kept = in_force.policy.model_dump_json() if in_force.policy else ""

    once, twice = in_force.assignment(read, NOW), in_force.assignment(read, NOW)

    assert once == twice
    assert in_force.policy is not None
    assert in_force.policy.model_dump_json() == kept


# the commands


def test_check_says_of_each_target_what_it_asks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(FULL_DOCUMENT, encoding="utf-8")

    status = main(["check", str(file)])

    assert status == 0
    assert capsys.readouterr().out.splitlines() == [
        "1. payments: clusters named aks-*, in resource group rg-pay-*, in westeurope, "
        f"in subscription {SUBSCRIPTION}, tagged env=prod: platform-managed keys; audited, nothing is changed",
        f"2. secrets: clusters named secret-*: customer-managed key etcd in {VAULTS}/kv-{{region}}, "
        f"closed but for trusted services, used by identity {IDENTITY_ID}; a system-assigned identity is changed; "
        "enforced",
        "3. default: every cluster: platform-managed keys; enforced",
    ]


def test_check_names_every_fault(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(EVERY_KIND, encoding="utf-8")

    status = main(["check", str(file)])

    assert status == 1
    assert capsys.readouterr().out.splitlines() == list(PolicyInForce.read(EVERY_KIND).faults)


def test_check_says_what_a_target_may_do_besides(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "policy.yaml"
    allowed = {"prerequisites": "ensure", "migrate": True, "allowUnconfirmed": True, "networkAccess": "public"}
    file.write_text(json.dumps({"version": 1, "targets": [KEYED | allowed]}), encoding="utf-8")

    status = main(["check", str(file)])

    assert status == 0
    assert capsys.readouterr().out.endswith(
        "open to all networks, used by the cluster's own identity; what vault, key and roles lack is made; what is "
        "encrypted otherwise is moved; moves that no document confirms are made; audited, nothing is changed\n"
    )


def test_check_of_what_is_no_text_is_a_fault(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "policy.yaml"
    file.write_bytes(SMALLEST_POLICY.encode("utf-16"))

    assert main(["check", str(file)]) == 1
    assert "not UTF-8, at byte 0" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["nothing.yaml", "."], ids=["a-missing-file", "a-folder"])
def test_check_of_no_file_says_so(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(tmp_path / name)]) == 2
    assert "can't be read: " in capsys.readouterr().err


def test_the_commands_run_as_a_module() -> None:
    ran = subprocess.run(  # noqa: S603  this Python
        [sys.executable, "-m", "shared.policy", "check", str(SHIPPED)],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    )

    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout == "1. default: every cluster: platform-managed keys; audited, nothing is changed\n"


@pytest.mark.parametrize(
    ("command", "status"), [(["check", "policy.yaml"], 1), (["schema"], 0)], ids=["check", "schema"]
)
def test_who_stops_reading_early_changes_nothing_about_the_verdict(
    command: list[str], status: int, tmp_path: Path
) -> None:
    (tmp_path / "policy.yaml").write_text(EVERY_KIND, encoding="utf-8")
    reading, writing = os.pipe()
    os.close(reading)

    ran = subprocess.run(  # noqa: S603  this Python
        [sys.executable, "-m", "shared.policy", *command],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=False,
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(writing)

    assert (ran.returncode, ran.stderr) == (status, "")


# the schema


def test_the_schema_in_the_docs_is_the_one_that_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"]) == 0

    assert capsys.readouterr().out == SCHEMA.read_text(encoding="utf-8")


def schema_faults(document: Any) -> list[str]:
    """What an editor says of a document; dates are text to it."""
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(schema)
    as_json = json.loads(json.dumps(document, default=str))
    validator = Draft202012Validator(schema, format_checker=FormatChecker())
    return [error.message for error in validator.iter_errors(as_json)]


@pytest.mark.parametrize("file", [SHIPPED, EXAMPLE], ids=lambda file: str(file.name))
def test_a_document_that_is_shipped_names_the_schema_and_fits_it(file: Path) -> None:
    text = file.read_text(encoding="utf-8")

    assert schema_faults(yaml.safe_load(text)) == []
    assert PolicyInForce.read(text).faults == ()
    named = re.match(r"# yaml-language-server: \$schema=(\S+)\n", text)
    assert named is not None
    assert (file.parent / named[1]).resolve() == SCHEMA.resolve()


def test_the_whole_document_fits_the_schema() -> None:
    assert schema_faults(yaml.safe_load(FULL_DOCUMENT)) == []


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(f"mood: audit\n{SMALLEST_POLICY}", id="a-misspelt-key"),
        pytest.param(SMALLEST_POLICY.replace("1", "true", 1), id="a-version-that-is-true"),
        pytest.param(f"{SMALLEST_POLICY}    match: {{resourceGroup: [a]}}", id="a-misspelt-key-below"),
        pytest.param(f"{SMALLEST_POLICY}    match: {{names: []}}", id="an-empty-list"),
        pytest.param(SMALLEST_POLICY.replace("platform", "customer"), id="no-vault-and-key"),
        pytest.param(f"mode: enforce\n{SMALLEST_POLICY}", id="not-accepted"),
        pytest.param(f"limits: {{stopAfterFailures: 0}}\n{SMALLEST_POLICY}", id="too-little"),
        pytest.param(
            f"windows: [{{days: [mon], from: 16:00, to: '17:00', timezone: UTC}}]\n{SMALLEST_POLICY}", id="960"
        ),
        pytest.param(f"legacy: {{rotation: never}}\n{SMALLEST_POLICY}", id="another-word"),
        pytest.param(
            f"{SMALLEST_POLICY}exemptions: [{{match: {{}}, owner: a, reason: b, expires: soon}}]", id="no-date"
        ),
    ],
)
def test_what_is_a_fault_to_the_app_is_one_to_an_editor(text: str) -> None:
    assert PolicyInForce.read(text).faults
    assert schema_faults(yaml.safe_load(text))


def test_every_field_of_the_schema_says_what_it_means() -> None:
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    parts = {f"#/$defs/{name}": part for name, part in schema["$defs"].items()}

    silent = [
        name
        for part in [schema, *parts.values()]
        for name, said in part.get("properties", {}).items()
        if not ("description" in said or parts[said["$ref"]]["description"])
    ]

    assert silent == []


def test_every_example_of_the_schema_fits_its_field() -> None:
    """A fault that quotes one tells what to write: it must be no fault itself."""
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    fields = [
        (said, example)
        for part in [schema, *schema["$defs"].values()]
        for said in part.get("properties", {}).values()
        for example in said["examples"]
    ]

    wrong = [
        example
        for said, example in fields
        if not Draft202012Validator(said | {"$defs": schema["$defs"]}).is_valid(example)
    ]

    assert len(fields) > 30
    assert wrong == []


def test_the_schema_is_made_anew_each_time() -> None:
    assert Policy.schema_document() == Policy.schema_document()
