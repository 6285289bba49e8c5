"""Programs started for one run: they keep their output, and none outlives the process that started it."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Self

_POLL_SECONDS = 0.01
_SHOWN_LINES = 30
_INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE")

# Runs before the program and then becomes it, so the process id stays. A `preexec_fn` would run Python between fork and
# exec, which deadlocks once the parent has threads. PR_SET_PDEATHSIG is 1; the parent may have died before it is set.
_BECOME = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 9)
if os.getppid() != int(sys.argv[1]):
    sys.exit("the parent is gone")
os.execvp(sys.argv[2], sys.argv[2:])
"""

# Linux sends the parent-death signal when the *thread* that forked ends, so every child is forked by one that stays.
_SPAWNER = ThreadPoolExecutor(max_workers=1, thread_name_prefix="spawner")


class ProcessError(Exception):
    """A program did not start, or ended before it was ready; the text carries the last lines of its output."""


class Deadline:
    """A moment on the monotonic clock, so that moving the wall clock does not move it."""

    def __init__(self, within: timedelta) -> None:
        """Begin to count now; `within` is how long there is."""
        self._end = time.monotonic() + within.total_seconds()

    @property
    def passed(self) -> bool:
        """Whether the time is over."""
        return time.monotonic() >= self._end


def wait_until[T](condition: Callable[[], T | None], *, within: timedelta, what: str) -> T:
    """Return the first truthy answer of `condition`, asked every 10 ms; TimeoutError names `what` did not come."""
    deadline = Deadline(within)
    while not (answer := condition()):
        if deadline.passed:
            raise TimeoutError(f"waited {within.total_seconds():g} s for {what}")
        time.sleep(_POLL_SECONDS)
    return answer


@functools.cache
def scratch() -> Path:
    """Return the directory for this process's logs and settings files; it is removed at exit."""
    directory = Path(tempfile.mkdtemp(prefix="kms-enforcer-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    return directory


def clean_environment() -> dict[str, str]:
    """Return what a program needs of our environment: where things lie, but no Azure settings of the developer's."""
    return {name: os.environ[name] for name in _INHERITED if name in os.environ}


class Child:
    """A running program. It dies with this process, however this process ends (Linux; elsewhere: at a normal exit)."""

    def __init__(self, popen: subprocess.Popen[bytes], log_file: Path) -> None:
        """Take over a program that runs already; `Child.start` is the usual way."""
        self._popen = popen
        self.log_file = log_file
        atexit.register(self.kill)

    @classmethod
    def start(
        cls,
        command: Sequence[str | Path],
        *,
        name: str,
        environment: Mapping[str, str],
        directory: Path | None = None,
    ) -> Self:
        """Start `command` with exactly `environment`; its output goes to a file of its own, named after `name`."""
        handle, path = tempfile.mkstemp(prefix=f"{name}-", suffix=".log", dir=scratch())
        arguments = [str(each) for each in command]
        if sys.platform == "linux":
            arguments = [sys.executable, "-I", "-S", "-c", _BECOME, str(os.getpid()), *arguments]
        try:
            # A process group of its own: Ctrl-C reaches only us, and we stop our children in order.
            popen = _SPAWNER.submit(
                subprocess.Popen[bytes],
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=handle,
                stderr=subprocess.STDOUT,
                env=dict(environment),
                cwd=directory,
                process_group=0,
            ).result()
        except OSError as error:
            raise ProcessError(f"{name} could not be started: {error}") from error
        finally:
            os.close(handle)
        return cls(popen, Path(path))

    @property
    def pid(self) -> int:
        """The operating system's id of the process."""
        return self._popen.pid

    @property
    def exit_code(self) -> int | None:
        """Its exit code (negative: killed by that signal), or None while it runs."""
        return self._popen.poll()

    def log(self) -> str:
        """Return all that it has written to stdout and stderr."""
        return self.log_file.read_text(encoding="utf-8", errors="replace")

    def tail(self) -> str:
        """Return the last lines of its output."""
        return "\n".join(self.log().splitlines()[-_SHOWN_LINES:])

    def wait_until_ready[T](self, condition: Callable[[], T | None], *, within: timedelta) -> T:
        """Return the first truthy answer of `condition`; ProcessError with its output if it ends or takes too long."""

        def ready_or_ended() -> tuple[T | None] | None:
            ended = self.exit_code is not None
            answer = condition()
            return (answer,) if answer or ended else None

        try:
            (answer,) = wait_until(ready_or_ended, within=within, what="the program to be ready")
        except TimeoutError as error:
            self.kill()
            raise ProcessError(f"{error}; its last lines:\n{self.tail()}") from error
        if not answer:
            raise ProcessError(f"it ended with exit code {self.exit_code}; its last lines:\n{self.tail()}")
        return answer

    def wait(self, *, within: timedelta) -> int:
        """Wait for its end and return the exit code; TimeoutError if it still runs by then."""
        wait_until(lambda: self.exit_code is not None, within=within, what="the program to end")
        return self._popen.returncode

    def kill(self) -> None:
        """End it at once (SIGKILL), as a crash would; nothing happens if it has ended."""
        if self.exit_code is None:
            self._popen.kill()
        self._popen.wait()
        atexit.unregister(self.kill)

    def stop(self, *, grace: timedelta = timedelta(seconds=30)) -> int:
        """Ask it to end (SIGTERM), kill it if it has not after `grace`, and return the exit code."""
        if self.exit_code is None:
            self._popen.send_signal(signal.SIGTERM)
        with suppress(TimeoutError):
            self.wait(within=grace)
        self.kill()
        return self._popen.returncode
