"""Timer triggers: on the wall clock, in UTC, one run at a time, with the function's retry policy.

The status is kept in memory: what was missed while the process did not run is not made up for, and only a jump of the
clock makes a run past due.
Source: Functions docs, functions-bindings-timer and functions-bindings-error-pages ("Retry policies").
"""

from __future__ import annotations

import asyncio
import logging
from datetime import datetime

from local.host.clock import Clock
from local.host.invocations import Invocations
from local.host.payloads import TimerStatus, timer
from local.host.schedules import Schedule
from local.host.settings import resolve
from local.host.worker import Attempt, Function

_log = logging.getLogger(__name__)


class Timer:
    """Fires one function by its schedule."""

    def __init__(self, function: Function, clock: Clock, runs: Invocations) -> None:
        """Read the schedule. HostError if it is not NCRONTAB or names a setting that is missing."""
        self._function = function
        self._schedule = Schedule.parse(resolve(function.trigger["schedule"], of=function.name))
        self._clock = clock
        self._runs = runs
        self._last: datetime | None = None
        self._firing: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to wait for the schedule; with `runOnStartup` fire at once too."""
        self._firing = asyncio.create_task(self._fire_by_schedule())

    async def stop(self) -> None:
        """Fire no more and give up waiting retries; a run that is under way goes on."""
        if self._firing is not None:
            self._firing.cancel()
            await asyncio.wait([self._firing])

    async def _fire_by_schedule(self) -> None:
        due = self._schedule.after(self._clock.now())
        if self._function.trigger.get("runOnStartup"):
            await self._fire(due, past_due=False)
        while due is not None:
            missed = await self._clock.reach(due)
            upcoming = self._schedule.after(self._clock.now())
            await self._fire(upcoming, past_due=missed)
            due = upcoming

    async def _fire(self, upcoming: datetime | None, *, past_due: bool) -> None:
        """Run the function, again after failures as its retry policy says. A failure never ends the schedule."""
        status = TimerStatus(self._last, upcoming) if self._monitored() else None
        self._last = self._clock.now()
        payload = timer(past_due=past_due, status=status)
        retry = self._function.retry
        most = retry.most if retry else 0
        result = await self._runs.run(self._function, payload, Attempt(0, most))
        number = 0
        while retry and result.error is not None and (number < most or most < 0):
            number += 1
            _log.info("%s is tried again, %s/%s", self._function.name, number, most)
            await asyncio.sleep(retry.delay(number).total_seconds())
            result = await self._runs.run(self._function, payload, Attempt(number, most, result.error))

    def _monitored(self) -> bool:
        return self._function.trigger.get("useMonitor") is not False and self._schedule.monitored(self._clock.now())
