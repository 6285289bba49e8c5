"""Scenario files: what they may say, and what is wrong with those that say something else."""

from __future__ import annotations

from datetime import timedelta

import pytest

from local.scenario import SCENARIOS, Rewrite, Scenario, ScenarioError, Update, VaultEnd

SMALLEST = """
title: Small
policy: ""
steps:
  - sweep: true
ends:
  clusters: {}
"""


@pytest.mark.parametrize("file", sorted(SCENARIOS.glob("*.yaml")), ids=lambda file: str(file.stem))
def test_every_scenario_of_ours_can_be_read_and_says_how_every_cluster_ends(file: object) -> None:
    scenario = Scenario.named(str(file))

    created = {step.create.name for step in scenario.steps if step.create}
    assert scenario.title
    assert set(scenario.ends.clusters) == {cluster.name for cluster in scenario.clusters} | created


def test_a_scenario_is_found_by_its_name() -> None:
    assert Scenario.named("main") == Scenario.named(str(SCENARIOS / "main.yaml"))


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ScenarioError, match=r"there is no scenario nowhere; there are: .*main"):
        Scenario.named("nowhere")


@pytest.mark.parametrize(
    ("text", "duration"), [("20s", timedelta(seconds=20)), ("5m", timedelta(minutes=5)), ("2h", timedelta(hours=2))]
)
def test_durations_are_read(text: str, duration: timedelta) -> None:
    scenario = Scenario.read(SMALLEST.replace("sweep: true", f"advance: {text}"))

    assert scenario.steps[0].advance == duration


def test_an_operator_updates_a_cluster_and_rewrites_its_secrets_and_the_end_names_versions() -> None:
    text = SMALLEST.replace(
        "  - sweep: true\n", "  - update: {cluster: aks-old}\n  - rewrite: {cluster: aks-old, by: ada}\n"
    )

    scenario = Scenario.read(text + "  versions: {kv-kms/etcd: {1: candidate, 2: needed}}\n")

    assert [step.update for step in scenario.steps] == [Update(cluster="aks-old", to="newest"), None]
    assert [step.rewrite for step in scenario.steps] == [None, Rewrite(cluster="aks-old", by="ada")]
    assert scenario.ends.versions == {"kv-kms/etcd": {1: "candidate", 2: "needed"}}


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        pytest.param("sweep: true", "update: {cluster: x, to: oldest}", "steps.0.update.to", id="to-no-version"),
        pytest.param("sweep: true", "rewrite: {}", "steps.0.rewrite.cluster", id="a-rewrite-of-nothing"),
        pytest.param("clusters: {}", "{clusters: {}, versions: {kv/etcd: {1: safe}}}", "versions", id="no-standing"),
        pytest.param("title", "titel", "titel", id="unknown key"),
        pytest.param("title: Small\n", "", "title", id="missing key"),
        pytest.param("  - sweep: true", "  []", "steps", id="no steps"),
        pytest.param("sweep: true", "say: Nothing happens", "exactly one thing", id="a step without a deed"),
        pytest.param("sweep: true", "{sweep: true, redeliver: true}", "exactly one thing", id="a step with two"),
        pytest.param("sweep: true", "advance: 3w", "steps.0.advance", id="a duration that is none"),
        pytest.param("sweep: true", "wait: {cluster: x}", "steps.0.wait.reason", id="half a wait"),
        pytest.param("title: Small", "title: [", "not YAML", id="no YAML"),
        pytest.param(SMALLEST, "- a list", "dictionary", id="a list"),
    ],
)
def test_a_scenario_that_cannot_be_read_names_the_fault(old: str, new: str, fault: str) -> None:
    with pytest.raises(ScenarioError, match=fault):
        Scenario.read(SMALLEST.replace(old, new))


def test_a_scenario_names_empty_groups_free_identities_and_how_a_vault_ends() -> None:
    text = (
        SMALLEST
        + """
  vaults:
    kv-kms: {network: trusted, keys: [etcd], roles: {aks-web: [Key Vault Crypto User]}}
resourceGroups:
  - name: rg-keys
  - {name: rg-north, location: northeurope}
identities:
  - {name: id-kms, group: rg-keys}
  - {name: id-other}
"""
    )

    scenario = Scenario.read(text)

    assert [(group.name, group.location) for group in scenario.resource_groups] == [
        ("rg-keys", "westeurope"),
        ("rg-north", "northeurope"),
    ]
    assert [(one.name, one.group) for one in scenario.identities] == [("id-kms", "rg-keys"), ("id-other", "rg-apps")]
    assert scenario.ends.vaults == {
        "kv-kms": VaultEnd(network="trusted", keys=("etcd",), roles={"aks-web": ("Key Vault Crypto User",)})
    }


@pytest.mark.parametrize(
    ("addition", "fault"),
    [
        pytest.param("resourceGroups: [{location: northeurope}]", "resourceGroups.0.name", id="a group without a name"),
        pytest.param("identities: [{name: id-1, vault: kv}]", "identities.0.vault", id="an identity with a vault"),
        pytest.param("  vaults: {kv: {network: shut}}", "ends.vaults.kv.network", id="a network that is none"),
        pytest.param("  vaults: {kv: {keys: [etcd]}}", "ends.vaults.kv.network", id="a vault end without a network"),
    ],
)
def test_what_is_wrong_around_the_clusters_is_named_too(addition: str, fault: str) -> None:
    with pytest.raises(ScenarioError, match=fault):
        Scenario.read(SMALLEST + addition)


def test_every_fault_is_named_at_once() -> None:
    text = SMALLEST.replace("title: Small", "colour: red").replace("sweep: true", "advance: 3w")

    with pytest.raises(ScenarioError) as raised:
        Scenario.read(text)

    assert all(name in str(raised.value) for name in ("colour", "title", "steps.0.advance"))
