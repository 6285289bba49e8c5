"""Every run of a function passes here: one task each, logged, counted, bounded by functionTimeout."""

from __future__ import annotations

import asyncio
import logging
import os
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import NoReturn

from azure_functions_runtime import invocation_id_cv

from local.host import logs
from local.host.payloads import Payload
from local.host.worker import Attempt, Datum, Function, Result, Worker

TIMED_OUT_EXIT_CODE = 70
_FIRST_ATTEMPT = Attempt()

_log = logging.getLogger(__name__)

type Send = Callable[[Function, str, Datum], Awaitable[None]]


@dataclass(slots=True)
class Counts:
    """How often one function was started and how that ended."""

    started: int = 0
    succeeded: int = 0
    failed: int = 0


@dataclass(slots=True)
class Invocations:
    """Runs functions. `send` delivers one output after the function returned; `finished` is told of every end."""

    worker: Worker
    send: Send
    timeout: timedelta | None
    finished: list[Callable[[], None]] = field(default_factory=list)
    counts: dict[str, Counts] = field(default_factory=dict)
    _running: set[asyncio.Task[Result]] = field(default_factory=set)

    @property
    def running(self) -> int:
        """How many invocations run now."""
        return len(self._running)

    async def run(self, function: Function, payload: Payload, attempt: Attempt = _FIRST_ATTEMPT) -> Result:
        """Run `function` once and return what it came to; it never raises for what the app does."""
        # A task of its own, shielded: a caller that goes away (a closed connection) must not stop it half-way.
        task = asyncio.create_task(self._run(function, payload, attempt))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return await asyncio.shield(task)

    def announce(self) -> None:
        """Tell everyone in `finished` that something happened which may have made work for them."""
        for listener in self.finished:
            listener()

    async def drain(self, within: timedelta) -> None:
        """Wait until the running invocations have ended, at most for `within`."""
        if self._running:
            await asyncio.wait(self._running, timeout=within.total_seconds())
        if self._running:
            _log.warning("%s invocations still run and are abandoned", len(self._running))

    async def _run(self, function: Function, payload: Payload, attempt: Attempt) -> Result:
        invocation_id = str(uuid.uuid4())
        invocation_id_cv.set(invocation_id)
        logs.running[invocation_id] = function.name
        counts = self.counts.setdefault(function.name, Counts())
        counts.started += 1
        began = time.monotonic()
        alarm = self._set_alarm(function)
        try:
            result = await self._attempt(function, payload, invocation_id, attempt)
        finally:
            if alarm is not None:
                alarm.cancel()
        self._report(result, counts, time.monotonic() - began)
        del logs.running[invocation_id]
        return result

    async def _attempt(self, function: Function, payload: Payload, invocation_id: str, attempt: Attempt) -> Result:
        try:
            result = await self.worker.invoke(
                function, payload.value, payload.metadata, invocation_id=invocation_id, attempt=attempt
            )
        except SystemExit as error:
            return Result(error=f"SystemExit({error.code!r}): this would kill the worker process")
        except asyncio.CancelledError as error:
            if (task := asyncio.current_task()) and task.cancelling():
                raise
            return Result(error=f"{error!r}: the function cancelled itself")
        if result.error is not None:
            return result
        return await self._send_outputs(function, result)

    async def _send_outputs(self, function: Function, result: Result) -> Result:
        """Send what the function left in its output bindings; one that can't be sent makes the invocation fail."""
        outputs = list(result.outputs)
        if result.value is not None:
            outputs.append(("$return", result.value))
        try:
            for name, datum in outputs:
                await self.send(function, name, datum)
        except (
            Exception
        ) as error:  # whatever the service or the data had: the host reports it as the function's failure
            _log.exception("an output could not be sent")
            return Result(error=repr(error))
        return result

    def _report(self, result: Result, counts: Counts, seconds: float) -> None:
        milliseconds = round(seconds * 1000)
        if result.error is None:
            counts.succeeded += 1
            _log.info("succeeded in %s ms", milliseconds)
        else:
            counts.failed += 1
            _log.error("failed in %s ms: %s", milliseconds, result.error)
        self.announce()

    def _set_alarm(self, function: Function) -> asyncio.TimerHandle | None:
        if self.timeout is None:
            return None
        loop = asyncio.get_running_loop()
        return loop.call_later(self.timeout.total_seconds(), _end_process, function.name, self.timeout)


def count_of(counts: dict[str, Counts]) -> dict[str, dict[str, int]]:
    """Return the counts as a JSON object by function name."""
    return {
        name: {"started": each.started, "succeeded": each.succeeded, "failed": each.failed}
        for name, each in counts.items()
    }


def _end_process(name: str, timeout: timedelta) -> NoReturn:
    """End at once with everything that runs, as the real host does when it restarts a worker after functionTimeout."""
    _log.critical("%s ran longer than functionTimeout (%s): the worker process is ended", name, timeout)
    logging.shutdown()
    os._exit(TIMED_OUT_EXIT_CODE)
