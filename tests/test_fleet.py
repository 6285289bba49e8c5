"""A fleet from outside: what is read, what is refused in a sentence, and the examples of docs as a person sees them."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from local.fleet import FleetError, OutsideFleet
from local.processes import Child, clean_environment
from local.stage import APP

if TYPE_CHECKING:
    from collections.abc import Iterator


DOCS = APP / "docs"
WITHIN = timedelta(seconds=90)
SUBSCRIPTION = "11111111-1111-4111-8111-111111111111"
OTHER_SUBSCRIPTION = "22222222-2222-4222-8222-222222222222"
CMK_POLICY = DOCS / "fleet.policy.example.yaml"
OLD_API = "Read by an older API, to which platform-managed keys don't show."
LOOK = "Needs a look at vault, key and roles, which are not in this file."


def cluster_id(name: str, subscription: str = SUBSCRIPTION) -> str:
    group = f"/subscriptions/{subscription}/resourcegroups/RG-Apps"
    return f"{group}/providers/Microsoft.ContainerService/managedClusters/{name}"


def arm(name: str = "aks-1", subscription: str = SUBSCRIPTION, **properties: Any) -> dict[str, Any]:
    """A cluster as ARM lists it."""
    defaults = {
        "provisioningState": "Succeeded",
        "currentKubernetesVersion": "1.33.6",
        "powerState": {"code": "Running"},
        "securityProfile": {},
    }
    return {
        "id": cluster_id(name, subscription),
        "name": name,
        "location": "westeurope",
        "identity": {"type": "SystemAssigned"},
        "properties": defaults | properties,
        "eTag": "968f973e-087f-46f8-b70c-ecc754751e80",
    }


def flat(name: str = "aks-1", **fields: Any) -> dict[str, Any]:
    """The same as the CLI prints it."""
    document = arm(name)
    properties: dict[str, Any] = document.pop("properties")
    return document | properties | {"resourceGroup": "RG-Apps", "eTag": None} | fields


def written(directory: Path, content: object) -> Path:
    file = directory / "clusters.json"
    text = content if isinstance(content, str) else json.dumps(content)
    file.write_text(text, encoding="utf-8")
    return file


# reading


@pytest.mark.parametrize(
    "content",
    [
        pytest.param({"value": [arm("aks-1"), arm("aks-2")]}, id="one answer"),
        pytest.param([arm("aks-1"), arm("aks-2")], id="a list"),
        pytest.param([{"value": [arm("aks-1")]}, {"value": [arm("aks-2")]}], id="a list of answers"),
        pytest.param(
            json.dumps({"value": [arm("aks-1")]}) + "\n\n" + json.dumps({"value": [arm("aks-2")]}) + "\n",
            id="one answer after the other",
        ),
    ],
)
def test_what_arm_answers_is_read_as_it_is(tmp_path: Path, content: object) -> None:
    fleet = OutsideFleet.read(written(tmp_path, content))

    assert fleet.documents == (arm("aks-1"), arm("aks-2"))
    assert fleet.by_older_api == frozenset()
    assert fleet.warnings == ()


def test_one_cluster_alone_is_a_fleet(tmp_path: Path) -> None:
    assert OutsideFleet.read(written(tmp_path, arm())).documents == (arm(),)


def test_what_the_cli_prints_becomes_arms_shape_and_is_known_to_come_from_an_older_api(tmp_path: Path) -> None:
    row = flat(resourceUid="68ea7dd910569d000159d5ac", httpProxyConfig=None)

    fleet = OutsideFleet.read(written(tmp_path, [row]))

    (document,) = fleet.documents
    assert re.fullmatch("[0-9a-f-]{36}", document["eTag"])
    assert document | {"eTag": arm()["eTag"]} == arm(resourceUID="68ea7dd910569d000159d5ac")
    assert fleet.by_older_api == {cluster_id("aks-1").lower()}


def test_a_cli_that_knows_the_profile_asks_no_older_api(tmp_path: Path) -> None:
    knows = flat("aks-1", securityProfile={"kubernetesResourceObjectEncryptionProfile": None})
    tells_nothing = flat("aks-2", securityProfile=None)

    fleet = OutsideFleet.read(written(tmp_path, [knows, tells_nothing]))

    assert fleet.by_older_api == frozenset()


def test_both_shapes_in_one_file_are_told_apart(tmp_path: Path) -> None:
    fleet = OutsideFleet.read(written(tmp_path, [arm("aks-1"), flat("aks-2")]))

    assert fleet.by_older_api == {cluster_id("aks-2").lower()}


def test_a_page_that_others_follow_is_warned_of(tmp_path: Path) -> None:
    link = "https://management.azure.com/subscriptions?$skiptoken=x"

    fleet = OutsideFleet.read(written(tmp_path, {"value": [arm()], "nextLink": link}))

    assert len(fleet.documents) == 1
    assert [warning for warning in fleet.warnings if "nextLink" in warning]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_what_a_windows_shell_writes_is_read(tmp_path: Path, encoding: str) -> None:
    file = tmp_path / "clusters.json"
    file.write_text(json.dumps({"value": [arm()]}), encoding=encoding)

    assert OutsideFleet.read(file).documents == (arm(),)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        pytest.param("", "clusters.json is empty", id="empty"),
        pytest.param("Name    Location", "is not JSON: Expecting value", id="a table"),
        pytest.param('{"value": [', "is not JSON", id="cut off"),
        pytest.param("[" * 100_000, "is not JSON", id="brackets without end"),
        pytest.param({"value": []}, "lists no clusters", id="no clusters"),
        pytest.param([], "lists no clusters", id="an empty list"),
        pytest.param({"error": {"code": "AuthorizationFailed"}}, "has no id", id="an error of ARM"),
        pytest.param("17", "has no id", id="a number"),
        pytest.param({"value": "none"}, "has no id", id="a value that is no list"),
        pytest.param([arm(), {"name": "aks-2"}], "row 2 of .*clusters.json has no id", id="a row without id"),
        pytest.param([arm(), "aks-2"], "row 2 of .* has no id", id="a row that is a name"),
        pytest.param([arm() | {"id": 5}], "is not a managed cluster; its id is 5", id="an id that is a number"),
        pytest.param(
            [arm(), arm() | {"id": f"{cluster_id('aks-1')}/agentPools/system"}],
            "row 2 of .* is not a managed cluster; its id is .*agentPools",
            id="the id of a pool",
        ),
        pytest.param([arm() | {"properties": 5}], "properties that are no object", id="properties that are a number"),
        pytest.param(
            [arm(), arm() | {"id": cluster_id("AKS-1")}], "lists a cluster twice: /subscriptions", id="a cluster twice"
        ),
    ],
)
def test_a_file_that_holds_no_fleet_is_refused_in_one_sentence(tmp_path: Path, content: object, said: str) -> None:
    file = written(tmp_path, content)

    with pytest.raises(FleetError, match=said) as raised:
        OutsideFleet.read(file)

    assert "\n" not in str(raised.value)


def test_a_file_that_is_not_there_is_refused_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(FleetError, match=r"nowhere\.json can't be read: no such file"):
        OutsideFleet.read(tmp_path / "nowhere.json")


# the examples, and what a person sees of them


@dataclass(frozen=True, slots=True)
class Look:
    """A look at a fleet that runs, and where it puts its rows."""

    child: Child
    json_file: Path

    def end(self) -> int:
        """Wait for its end; return its exit code."""
        return self.child.wait(within=WITHIN)

    def rows(self) -> dict[str, Any]:
        """What it wrote of each cluster, by name."""
        rows = json.loads(self.json_file.read_text(encoding="utf-8"))["clusters"]
        return {row["name"]: row for row in rows}

    def decisions(self) -> dict[str, tuple[str, str, str]]:
        """What each cluster has, and what would be done about it and why."""
        return {name: (row["keyManagement"], row["action"], row["reason"]) for name, row in self.rows().items()}

    def says(self, text: str) -> bool:
        """Return whether the screen says this, however it is wrapped."""
        return text in " ".join(re.sub(r"[│\s]+", " ", self.child.log()).split())


def started(directory: Path, fleet: Path, *options: str | Path) -> Look:
    json_file = directory / "out.json"
    command = [sys.executable, "-m", "local", "demo", "--json", json_file, "--fleet", fleet, *options]
    return Look(Child.start(command, name="fleet", environment=clean_environment(), directory=APP), json_file)


@pytest.fixture(scope="module")
def looks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Look]]:
    """All of them at once: most of the time they wait."""
    enforcing = tmp_path_factory.mktemp("enforcing")
    policy = enforcing / "policy.yaml"
    policy.write_text(
        "{version: 1, mode: enforce, acceptIrreversible: true, targets: [{keyManagement: platform-managed}]}",
        encoding="utf-8",
    )
    two = written(enforcing, {"value": [arm("aks-1"), arm("aks-2", OTHER_SUBSCRIPTION)]})
    broken = tmp_path_factory.mktemp("broken") / "policy.yaml"
    broken.write_text("{version: 1, targest: []}", encoding="utf-8")
    example = DOCS / "fleet.example.json"
    running = {
        "example": started(tmp_path_factory.mktemp("example"), example, "--policy", CMK_POLICY),
        "cli": started(tmp_path_factory.mktemp("cli"), DOCS / "fleet.cli.example.json"),
        "two": started(enforcing, two, "--policy", policy),
        "broken": started(broken.parent, example, "--policy", broken),
    }
    yield running
    for look in running.values():
        look.child.stop()


def test_the_example_is_judged_as_the_policy_says(looks: dict[str, Look]) -> None:
    look = looks["example"]

    code = look.end()

    assert code == 0, look.child.tail()
    assert look.decisions() == {
        "aks-checkout": ("none", "look-closer", "prerequisites-unknown"),
        "aks-ledger": ("customer-managed", "nothing", "as-asked"),
        "aks-cards": ("customer-managed", "nothing", "as-asked"),
        "aks-billing": ("legacy", "report", "encrypted-otherwise"),
        "aks-reports": ("none", "report", "kubernetes-too-old"),
        "aks-orders": ("platform-managed", "nothing", "as-asked"),
        "aks-batch": ("none", "report", "stopped"),
        "aks-search": ("none", "wait", "busy"),
        "aks-intranet": ("none", "nothing", "exempt"),
        "aks-edge": ("ambiguous", "report", "ambiguous"),
        "aks-sandbox": ("none", "nothing", "exempt"),
    }
    assert {row["mode"] for row in look.rows().values()} == {"audit"}


def test_the_example_s_screen_says_what_to_do_in_words(looks: dict[str, Look]) -> None:
    look = looks["example"]

    look.end()

    assert look.rows()["aks-checkout"]["words"] == LOOK
    assert look.says(f"1 look-closer prerequisites-unknown {LOOK}")
    assert look.says("1 report kubernetes-too-old Upgrade the cluster to Kubernetes 1.33 or newer.")
    assert look.says("2 nothing exempt")
    assert look.says("is retired in March")
    assert look.says("RG-Platform")
    assert OLD_API not in look.child.log()
    assert all(row["remark"] is None for row in look.rows().values())


def test_every_row_of_the_cli_s_output_says_that_an_older_api_was_asked(looks: dict[str, Look]) -> None:
    look = looks["cli"]

    code = look.end()

    assert code == 0, look.child.tail()
    assert look.decisions() == {
        "aks-checkout": ("none", "write", "not-as-asked"),
        "aks-billing": ("legacy", "report", "encrypted-otherwise"),
        "aks-orders": ("none", "write", "not-as-asked"),
        "aks-batch": ("none", "report", "stopped"),
    }
    assert {row["remark"] for row in look.rows().values()} == {OLD_API}
    assert look.says(f"* {OLD_API}")
    assert look.says("none*")
    assert look.says("2 write not-as-asked Would get platform-managed keys.")


def test_all_subscriptions_are_swept_and_an_enforcing_policy_changes_nothing(looks: dict[str, Look]) -> None:
    look = looks["two"]

    code = look.end()

    assert code == 0, look.child.tail()
    assert look.decisions() == {
        "aks-1": ("none", "write", "not-as-asked"),
        "aks-2": ("none", "write", "not-as-asked"),
    }
    assert look.says(f"Subscription {SUBSCRIPTION}")
    assert look.says(f"Subscription {OTHER_SUBSCRIPTION}")


def test_a_broken_policy_is_said_to_be_broken(looks: dict[str, Look]) -> None:
    look = looks["broken"]

    code = look.end()

    assert code == 1
    assert look.says("the policy is broken: targest: unknown key; did you mean targets?")
    assert {row["reason"] for row in look.rows().values()} == {"policy-broken"}


@pytest.mark.parametrize("missing", ["--fleet", "--policy"])
def test_a_file_that_is_missing_ends_the_command_with_a_sentence(tmp_path: Path, missing: str) -> None:
    fleet = tmp_path / "nowhere" if missing == "--fleet" else DOCS / "fleet.example.json"
    policy = tmp_path / "nowhere" if missing == "--policy" else CMK_POLICY

    look = started(tmp_path, fleet, "--policy", policy)
    code = look.end()

    assert code == 1
    assert "can't be read" in look.child.log()
    assert "Traceback" not in look.child.log()
    assert not look.json_file.exists()


def test_a_folder_that_is_missing_is_named_before_anything_is_played(tmp_path: Path) -> None:
    look = started(tmp_path / "nowhere", DOCS / "fleet.example.json")

    code = look.end()

    assert code == 2
    assert "there is no folder" in look.child.log()
