"""Programs that are started: ready or explained, and never left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from datetime import timedelta
from pathlib import Path

import pytest

from local.processes import Child, ProcessError, clean_environment, wait_until

SOON = timedelta(seconds=60)
SLEEPER = "import time; print('ready', flush=True); time.sleep(600)"
PARENT = f"""
import sys, time
from local.processes import Child, clean_environment
child = Child.start([sys.executable, "-c", {SLEEPER!r}], name="sleeper", environment=clean_environment())
print(child.pid, flush=True)
time.sleep(600)
"""


def runs(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def sleeper(code: str = SLEEPER) -> Child:
    return Child.start([sys.executable, "-c", code], name="sleeper", environment=clean_environment())


def test_a_child_that_ends_before_it_is_ready_is_explained_by_its_own_words() -> None:
    child = sleeper("import sys; sys.exit('the disk is full')")

    with pytest.raises(ProcessError, match=r"exit code 1(?s:.*)the disk is full"):
        child.wait_until_ready(lambda: False, within=SOON)


def test_a_child_that_does_not_get_ready_is_ended() -> None:
    child = sleeper()

    with pytest.raises(ProcessError, match="waited 0"):
        child.wait_until_ready(lambda: False, within=timedelta(0))

    assert child.exit_code == -signal.SIGKILL


def test_a_child_that_ignores_the_request_to_stop_is_killed() -> None:
    child = sleeper(f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEPER}")
    child.wait_until_ready(lambda: "ready" in child.log(), within=SOON)

    code = child.stop(grace=timedelta(milliseconds=50))

    assert code == -signal.SIGKILL


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent died")
def test_a_child_dies_with_its_parent_even_if_that_is_killed(tmp_path: Path) -> None:
    # Killed, the parent can't remove its scratch directory, so that lies where pytest removes it.
    ours = {"PYTHONPATH": str(Path(__file__).parents[1]), "TMPDIR": str(tmp_path)}
    environment = clean_environment() | ours
    command = [sys.executable, "-c", PARENT]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment)  # noqa: S603  our own program
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())

    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    parent.stdout.close()

    wait_until(lambda: not runs(pid), within=SOON, what="the orphan to end")


def test_a_child_outlives_the_thread_that_started_it() -> None:
    children = list[Child]()
    thread = threading.Thread(target=lambda: children.append(sleeper()))
    thread.start()
    thread.join()
    (child,) = children

    child.wait_until_ready(lambda: "ready" in child.log(), within=SOON)
    assert child.stop() == -signal.SIGTERM


def test_the_environment_of_a_child_is_not_the_developers_own() -> None:
    assert not any(name.startswith(("AZURE", "IDENTITY", "LOCAL_HOST")) for name in clean_environment())
