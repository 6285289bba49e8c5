"""`python -m local demo` plays a scenario and ends; `python -m local run` plays it and stays up."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from pathlib import Path

from rich.console import Console

from local.play import Play, Stuck
from local.processes import ProcessError
from local.scenario import Scenario, ScenarioError
from local.screen import Screen
from local.stage import Stage
from local.storage import StorageError

_PIPE_WIDTH = 110
"""Columns where nobody's terminal says how many there are."""


def main() -> int:
    """Play; return 0 if everything ended as the scenario says."""
    parser = argparse.ArgumentParser(prog="python -m local", description=__doc__)
    parser.add_argument("command", choices=("demo", "run"))
    parser.add_argument("--scenario", default="main", help="a name below local/scenarios, or a file")
    parser.add_argument("--json", type=Path, help="write the end state to this file")
    options = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH)
    try:
        scenario = Scenario.named(options.scenario)
        with Stage(scenario.policy) as stage:
            play = _perform(scenario, stage, console)
            if options.json:
                options.json.write_text(json.dumps(play.end_state(), indent=2) + "\n", encoding="utf-8")
            if options.command == "run":
                _stay_up(stage, console)
    except (ScenarioError, StorageError, ProcessError, Stuck) as error:
        console.print(str(error), style="red", highlight=False, markup=False)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0 if play.end_state()["ok"] else 1


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
