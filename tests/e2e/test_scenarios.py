"""Every scenario that is shipped, played as a person plays it: by `python -m local demo`."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from local.processes import Child, clean_environment
from local.scenario import SCENARIOS
from local.stage import APP

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Future

WITHIN = timedelta(seconds=180)
AT_ONCE = 3
ELSEWHERE = {"dozen", "main"}
"""Played by test_demo.py."""
ALWAYS = {
    "customer-managed-private-new",
    "legacy-access-policy",
    "legacy-to-customer",
    "migrate-customer-to-platform",
    "prepare-public",
}
"""One of each kind; `make slow` plays the others too."""
NAMES = sorted({file.stem for file in SCENARIOS.glob("*.yaml")} - ELSEWHERE)


def play(name: str) -> tuple[int, str]:
    """Play one scenario; return its exit code and what it printed."""
    command = [sys.executable, "-m", "local", "demo", "--scenario", name]
    child = Child.start(command, name=name, environment=clean_environment(), directory=APP)
    return child.wait(within=WITHIN), child.log()


@pytest.fixture(scope="module")
def plays(request: pytest.FixtureRequest) -> Iterator[dict[str, Future[tuple[int, str]]]]:
    """All that are asked for, a few at a time: a play waits more than it works."""
    asked = [item.callspec.params.get("name") for item in request.session.items if hasattr(item, "callspec")]
    names = [name for name in NAMES if name in asked]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield {name: pool.submit(play, name) for name in names}


@pytest.mark.parametrize(
    "name", [name if name in ALWAYS else pytest.param(name, marks=pytest.mark.slow) for name in NAMES]
)
def test_a_scenario_ends_as_it_says(plays: dict[str, Future[tuple[int, str]]], name: str) -> None:
    code, printed = plays[name].result(timeout=WITHIN.total_seconds() * 2)

    assert code == 0, printed
    assert "everything ended as the scenario says" in printed
