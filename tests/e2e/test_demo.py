"""`python -m local demo` as a person runs it: a program of its own, its exit code, its words and its JSON."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from local.processes import Child, clean_environment
from local.stage import APP

if TYPE_CHECKING:
    from collections.abc import Iterator

WITHIN = timedelta(seconds=180)
WRONG = """
title: Ends that are not so
policy: |
  version: 1
  targets: [{keyManagement: platform-managed}]
clusters:
  - {name: aks-orders}
steps:
  - {sweep: true}
ends:
  clusters:
    aks-orders: {keyManagement: platform-managed, reason: as-asked, writes: 1}
"""


@dataclass(frozen=True, slots=True)
class Demo:
    """A demo that runs, and where it puts its end state."""

    child: Child
    json_file: Path

    def end(self) -> int:
        """Wait for its end; return its exit code."""
        return self.child.wait(within=WITHIN)

    def end_state(self) -> Any:
        """What it wrote."""
        return json.loads(self.json_file.read_text(encoding="utf-8"))


def started(directory: Path, *options: str | Path) -> Demo:
    json_file = directory / "end.json"
    command = [sys.executable, "-m", "local", "demo", "--json", json_file, *options]
    environment = clean_environment() | {"COLUMNS": "200"}
    return Demo(Child.start(command, name="demo", environment=environment, directory=APP), json_file)


@pytest.fixture(scope="module")
def demos(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Demo]]:
    """All demos at once: most of the time they wait."""
    wrong = tmp_path_factory.mktemp("wrong")
    (wrong / "wrong.yaml").write_text(WRONG, encoding="utf-8")
    running = {
        "dozen": started(tmp_path_factory.mktemp("dozen")),
        "main": started(tmp_path_factory.mktemp("main"), "--scenario", "main"),
        "wrong": started(wrong, "--scenario", wrong / "wrong.yaml"),
    }
    yield running
    for demo in running.values():
        demo.child.stop()


def test_without_a_scenario_the_dozen_is_played_and_ends_as_it_says(demos: dict[str, Demo]) -> None:
    demo = demos["dozen"]

    code = demo.end()

    assert code == 0, demo.child.tail()
    state = demo.end_state()
    assert state["ok"]
    assert all(check["ok"] for check in state["checks"])
    assert {one["name"]: (one["keyManagement"], one["ledger"]["reason"]) for one in state["clusters"]} == {
        "pmk-new": ("platform-managed", "as-asked"),
        "pmk-old": ("none", "kubernetes-too-old"),
        "pmk-stopped": ("none", "stopped"),
        "pmk-busy": ("none", "busy"),
        "pmk-compliant": ("platform-managed", "as-asked"),
        "pmk-legacy": ("legacy", "rotation-due"),
        "cmk-new": ("customer-managed", "as-asked"),
        "cmk-existing": ("customer-managed", "as-asked"),
        "cmk-system": ("none", "identity-system-assigned"),
        "cmk-norole": ("none", "access-missing"),
        "cmk-trap": ("none", "access-wrap-only"),
        "prv-new": ("customer-managed", "as-asked"),
        "shut-closed": ("none", "vault-without-bypass"),
    }
    assert {one["name"] for one in state["clusters"] if one["writes"]} == {
        "pmk-new",
        "cmk-new",
        "cmk-existing",
        "prv-new",
    }
    assert state["writes"] == 4
    assert "everything ended as the scenario says" in demo.child.log()


def test_the_main_scenario_ends_as_it_says(demos: dict[str, Demo]) -> None:
    demo = demos["main"]

    code = demo.end()

    assert code == 0, demo.child.tail()
    state = demo.end_state()
    assert state["ok"]
    assert all(check["ok"] for check in state["checks"])
    assert {one["name"]: (one["keyManagement"], one["writes"]) for one in state["clusters"]} == {
        "aks-orders": ("platform-managed", 1),
        "aks-checkout": ("platform-managed", 1),
        "aks-billing": ("none", 0),
        "aks-search": ("platform-managed", 0),
        "vendor-cmk": ("customer-managed", 0),
    }
    assert sorted(one["how"] for one in state["rotations"]) == ["baseline", "event", "sweep"]
    assert state["writes"] == 2
    assert "everything ended as the scenario says" in demo.child.log()


def test_a_scenario_that_does_not_end_as_it_says_fails_and_names_what_differs(demos: dict[str, Demo]) -> None:
    demo = demos["wrong"]

    code = demo.end()

    assert code == 1, demo.child.tail()
    differs = [check for check in demo.end_state()["checks"] if not check["ok"]]
    assert differs == [
        {
            "what": "aks-orders",
            "expected": "platform-managed, as-asked, 1 write",
            "found": "none, not-as-asked, 0 writes",
            "ok": False,
        }
    ]
    assert "aks-orders: none, not-as-asked, 0 writes, not platform-managed, as-asked, 1 write" in demo.child.log()
    assert "NOT as the scenario says" in demo.child.log()


@pytest.mark.parametrize("name", ["nowhere", "nowhere.yaml"])
def test_an_unknown_scenario_lists_the_known_ones(tmp_path: Path, name: str) -> None:
    demo = started(tmp_path, "--scenario", name)

    code = demo.end()

    assert code == 1
    assert f"there is no scenario {name}" in demo.child.log()
    assert "main" in demo.child.log()
    assert "Traceback" not in demo.child.log()


def test_a_scenario_that_cannot_be_read_names_its_faults(tmp_path: Path) -> None:
    file = tmp_path / "odd.yaml"
    file.write_text(WRONG.replace("title", "titel"), encoding="utf-8")

    demo = started(tmp_path, "--scenario", file)
    code = demo.end()

    assert code == 1
    assert "titel" in demo.child.log()
    assert "Traceback" not in demo.child.log()
