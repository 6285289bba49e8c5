"""Which rights the updates of a fleet need: what the documents name, and what nobody does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from local.fleet import OutsideFleet
from local.permissions import FleetNeeds, lines
from local.references import REFERENCES, RightNeeded, Unknown, needs

ROOT = Path(__file__).parent.parent
SUBSCRIPTION = "/subscriptions/11111111-1111-4111-8111-111111111111"
GROUP = f"{SUBSCRIPTION}/resourceGroups/rg-apps"
IDENTITY = f"{SUBSCRIPTION}/resourceGroups/rg-ids/providers/Microsoft.ManagedIdentity/userAssignedIdentities/id-aks"
SUBNET = f"{SUBSCRIPTION}/resourceGroups/rg-net/providers/Microsoft.Network/virtualNetworks/vnet/subnets/aks"
JOIN = "Microsoft.Network/virtualNetworks/subnets/join/action"
WRITE = RightNeeded("enforce", "Microsoft.ContainerService/managedClusters/write", GROUP)


def cluster(name: str = "aks", **properties: Any) -> dict[str, Any]:
    return {
        "id": f"{GROUP}/providers/Microsoft.ContainerService/managedClusters/{name}",
        "name": name,
        "properties": {"nodeResourceGroup": "MC_rg-apps_aks_westeurope"} | properties,
    }


def test_a_cluster_that_refers_to_nothing_needs_to_be_written() -> None:
    assert needs(cluster()) == ({WRITE}, set())


def test_a_cluster_s_own_identity_has_to_be_assigned() -> None:
    document = cluster() | {"identity": {"type": "UserAssigned", "userAssignedIdentities": {IDENTITY: {}}}}

    found, unknown = needs(document)

    assign = RightNeeded("enforce", "Microsoft.ManagedIdentity/userAssignedIdentities/assign/action", IDENTITY)
    assert (found, unknown) == ({WRITE, assign}, set())


@pytest.mark.parametrize("identities", ["x", ["x"], {"x": {}}, 1, None])
def test_identities_that_are_none_need_nothing(identities: Any) -> None:
    fleet = FleetNeeds.of([cluster() | {"identity": {"userAssignedIdentities": identities}}])

    assert fleet.needs == {WRITE: ("aks",)}
    assert fleet.groups == [GROUP]


def nested(path: str, value: str) -> dict[str, Any]:
    """A document's properties that refer to something at a path."""
    inner: Any = value
    for name in reversed(path.split(".")):
        inner = {name: [inner] if name in {"agentpoolprofiles", "publicips", "publicipprefixes"} else inner}
    assert isinstance(inner, dict)
    return inner


@pytest.mark.parametrize("path", REFERENCES)
def test_each_reference_needs_its_actions_where_it_leads(path: str) -> None:
    scope = f"{SUBSCRIPTION}/resourceGroups/rg-else/providers/Microsoft.Some/things/thing"
    switch, actions = REFERENCES[path]

    found, unknown = needs(cluster(**nested(path, scope)))

    assert {RightNeeded(switch, action, scope) for action in actions} <= found
    assert unknown == set()


def test_a_workspace_needs_its_group_for_solutions() -> None:
    workspace = f"{SUBSCRIPTION}/resourceGroups/rg-logs/providers/Microsoft.OperationalInsights/workspaces/log"
    document = cluster(addonProfiles={"omsagent": {"config": {"logAnalyticsWorkspaceResourceID": workspace}}})

    found, _ = needs(document)

    assert {need.scope for need in found if "OperationsManagement" in need.action} == {
        f"{SUBSCRIPTION}/resourceGroups/rg-logs"
    }


def test_the_case_of_a_document_s_names_does_not_matter() -> None:
    """ARM says vnetSubnetID, the CLI vnetSubnetId."""
    for name in ("vnetSubnetID", "vnetSubnetId"):
        found, unknown = needs(cluster(agentPoolProfiles=[{"name": "system", name: SUBNET}]))

        assert (found, unknown) == ({WRITE, RightNeeded("ownSubnet", JOIN, SUBNET)}, set())


def test_a_slash_at_the_end_of_a_reference_hides_nothing() -> None:
    found, unknown = needs(cluster(agentPoolProfiles=[{"vnetSubnetID": f"{SUBNET}/"}]))

    assert (found, unknown) == ({WRITE, RightNeeded("ownSubnet", JOIN, SUBNET)}, set())


def test_what_is_aks_own_or_read_only_needs_nothing() -> None:
    node_group = f"{SUBSCRIPTION}/resourcegroups/mc_RG-apps_aks_westeurope"
    kubelet = f"{node_group}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/aks-agentpool"
    address = f"{SUBSCRIPTION}/resourceGroups/rg-net/providers/Microsoft.Network/publicIPAddresses/ip"
    document = cluster(
        identityProfile={"kubeletidentity": {"resourceId": kubelet}},
        networkProfile={"loadBalancerProfile": {"effectiveOutboundIPs": [{"id": address}]}},
    )

    assert needs(document) == ({WRITE}, set())


def test_a_reference_that_no_source_speaks_of_is_unknown() -> None:
    registry = f"{SUBSCRIPTION}/resourceGroups/rg-acr/providers/Microsoft.ContainerRegistry/registries/acr"

    found, unknown = needs(cluster(bootstrapProfile={"containerRegistryId": registry}))

    assert (found, unknown) == ({WRITE}, {Unknown("bootstrapProfile.containerRegistryId", registry)})


def test_a_tag_is_no_reference() -> None:
    assert needs(cluster() | {"tags": {"owner": SUBNET}}) == ({WRITE}, set())


def test_one_scope_in_two_spellings_is_one_scope() -> None:
    documents = [
        cluster("one", agentPoolProfiles=[{"vnetSubnetID": SUBNET}]),
        cluster("two", agentPoolProfiles=[{"vnetSubnetID": SUBNET.upper().replace("SUBSCRIPTIONS", "subscriptions")}]),
    ]

    fleet = FleetNeeds.of(documents)

    assert {need.scope: names for need, names in fleet.needs.items() if need.action == JOIN} == {SUBNET: ("one", "two")}
    assert fleet.linked_features == ["ownSubnet"]


def test_a_scope_in_another_subscription_has_to_be_watched_too() -> None:
    hub = SUBNET.replace("11111111-1111-4111", "22222222-2222-4222")

    fleet = FleetNeeds.of([cluster(agentPoolProfiles=[{"vnetSubnetID": hub}])])

    assert fleet.subscriptions == [
        "11111111-1111-4111-8111-111111111111",
        "22222222-2222-4222-8111-111111111111",
    ]


def test_every_group_in_which_a_right_is_needed_is_named_once() -> None:
    workspace = f"{SUBSCRIPTION}/resourceGroups/rg-logs/providers/Microsoft.OperationalInsights/workspaces/log"
    document = cluster(
        agentPoolProfiles=[{"vnetSubnetID": SUBNET}, {"vnetSubnetID": SUBNET.replace("rg-net", "RG-Net") + "2"}],
        addonProfiles={"omsagent": {"config": {"logAnalyticsWorkspaceResourceID": workspace}}},
    ) | {"identity": {"type": "UserAssigned", "userAssignedIdentities": {IDENTITY: {}}}}

    fleet = FleetNeeds.of([document])

    groups = [f"{SUBSCRIPTION}/resourcegroups/{name}" for name in ("rg-apps", "rg-ids", "rg-logs", "rg-net")]
    assert [group.lower() for group in fleet.groups] == groups
    assert f'"enforceGroups": {{ "value": {json.dumps(fleet.groups)} }}' in "\n".join(lines(fleet))


def test_the_example_fleet_can_be_read() -> None:
    fleet = FleetNeeds.of(OutsideFleet.read(ROOT / "docs" / "fleet.example.json").documents)

    text = "\n".join(lines(fleet))

    assert fleet.linked_features == ["logAnalytics", "ownSubnet"]
    assert {one.where for one in fleet.unknown} == {"securityProfile.azureKeyVaultKms.keyVaultResourceId"}
    assert '"linkedFeatures": { "value": ["logAnalytics", "ownSubnet"] }' in text


def run(file: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "local.permissions", str(file)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S603  our own module


def test_the_command_prints_what_the_fleet_needs() -> None:
    done = run(ROOT / "docs" / "fleet.example.json")

    assert (done.returncode, done.stderr) == (0, "")
    assert f"{JOIN}  [ownSubnet]" in done.stdout


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"value": []}', "[" * 5000 + "]" * 5000])
def test_a_file_without_a_fleet_gets_one_sentence(tmp_path: Path, text: str) -> None:
    file = tmp_path / "fleet.json"
    file.write_text(text, encoding="utf-8")

    done = run(file)

    assert done.returncode == 1
    assert done.stdout == ""
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_deep_document_gets_one_sentence(tmp_path: Path) -> None:
    deep: Any = SUBNET
    for _ in range(600):
        deep = {"inner": deep}
    file = tmp_path / "fleet.json"
    file.write_text(json.dumps([cluster(deep=deep)]), encoding="utf-8")

    done = run(file)

    assert "Traceback" not in done.stderr
    assert len((done.stderr or done.stdout).strip()) > 0
