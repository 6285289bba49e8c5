"""`python -m local demo` plays a scenario and ends; `python -m local run` plays it and stays up."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from pathlib import Path

from rich.console import Console

from local.fleet import SETTINGS, FleetError, OutsideFleet, audit
from local.play import Play, Stuck
from local.processes import ProcessError
from local.scenario import Scenario, ScenarioError
from local.screen import Screen, show_fleet
from local.stage import APP, Stage
from local.storage import StorageError

_PIPE_WIDTH = 110
"""Columns where nobody's terminal says how many there are."""


def main() -> int:
    """Play; return 0 if everything ended as the scenario says."""
    parser = argparse.ArgumentParser(prog="python -m local", description=__doc__)
    parser.add_argument("command", choices=("demo", "run"))
    parser.add_argument("--scenario", default="dozen", help="a name below local/scenarios, or a file")
    parser.add_argument("--json", type=Path, help="write the end state to this file")
    parser.add_argument("--fleet", type=Path, help="what would the policy do to these clusters? (az rest's output)")
    parser.add_argument("--policy", type=Path, default=APP / "kms-policy.yaml", help="the policy document for --fleet")
    options = parser.parse_args()
    if options.json and not options.json.absolute().parent.is_dir():
        parser.error(f"--json: there is no folder {options.json.parent}")
    console = Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH)
    try:
        if options.fleet:
            return _audit(options.fleet, options.policy, options.json, console)
        scenario = Scenario.named(options.scenario)
        with Stage(scenario.policy, settings=scenario.settings) as stage:
            play = _perform(scenario, stage, console)
            if options.json:
                options.json.write_text(json.dumps(play.end_state(), indent=2) + "\n", encoding="utf-8")
            if options.command == "run":
                _stay_up(stage, console)
    except (FleetError, OSError, ScenarioError, StorageError, ProcessError, Stuck) as error:
        console.print(str(error), style="red", highlight=False, markup=False)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0 if play.end_state()["ok"] else 1


def _audit(fleet_file: Path, policy_file: Path, json_file: Path | None, console: Console) -> int:
    """Show what a policy would do to a fleet from outside; nothing is written but the JSON that was asked for."""
    fleet = OutsideFleet.read(fleet_file)
    try:
        policy = policy_file.read_text(encoding="utf-8")
    except OSError as error:
        raise FleetError(f"{policy_file} can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise FleetError(f"{policy_file} can't be read: {error}") from error
    with Stage(policy, settings=SETTINGS) as stage, console.status(f"looking at {_clusters(len(fleet.documents))}"):
        rows = audit(fleet, stage)
        faults = stage.ask("/api/health")["policy"]["faults"]
    show_fleet(console, rows)
    for warning in fleet.warnings:
        console.print(warning, style="yellow", highlight=False, markup=False, soft_wrap=True)
    for fault in faults:
        console.print(f"the policy is broken: {fault}", style="red", highlight=False, markup=False, soft_wrap=True)
    if json_file:
        said = {"warnings": list(fleet.warnings), "policyFaults": faults, "clusters": rows}
        json_file.write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")
    return 1 if faults else 0


def _clusters(number: int) -> str:
    return f"{number} cluster{'' if number == 1 else 's'}"


def _perform(scenario: Scenario, stage: Stage, console: Console) -> Play:
    with Screen(console) as screen:
        play = Play(scenario, stage, screen.show)
        play.perform()
    screen.summarise(play)
    end = play.end_state()
    verdict = "everything ended as the scenario says" if end["ok"] else "NOT as the scenario says"
    console.print(f"{end['seconds']} s: {verdict}", highlight=False)
    return play


def _stay_up(stage: Stage, console: Console) -> None:
    """Print where the app answers, and serve until somebody presses Ctrl-C."""
    host = stage.host
    lines = (
        "",
        f"The app answers at {host.url}/api until you press Ctrl-C. Try:",
        f"  curl -H 'x-functions-key: {host.function_key}' {host.url}/api/clusters",
        f"  curl -H 'x-functions-key: {host.function_key}' {host.url}/api/rotations",
        f"  curl -H 'x-functions-key: {host.function_key}' -X POST {host.url}/api/runs",
        f"  curl {host.url}/api/health",
    )
    console.print("\n".join(lines), soft_wrap=True, highlight=False, markup=False)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.pause()


if __name__ == "__main__":
    sys.exit(main())
