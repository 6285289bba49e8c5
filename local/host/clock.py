"""The wall clock of this process, which a scenario moves on; durations stay real."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import time_machine

_ASLEEP_AT_MOST = timedelta(hours=1)


class Clock:
    """The time of day as the app sees it too. The event loop and the operating system keep their own clocks."""

    def __init__(self) -> None:
        """Begin at the real time."""
        self._moved: time_machine.Traveller | None = None
        self._jump = asyncio.Event()

    def now(self) -> datetime:
        """Return the moment, aware, in UTC."""
        return datetime.now(UTC)

    def advance(self, by: timedelta) -> datetime:
        """Move the wall clock of the whole process on, wake whoever waits for a moment, and return the new one."""
        if self._moved is None:
            self._moved = _moving_time()
        self._moved.shift(by)
        self._jump.set()
        self._jump = asyncio.Event()
        return self.now()

    async def reach(self, moment: datetime) -> bool:
        """Wait until the wall clock shows `moment` or more. Did a jump bring it there?"""
        jumped = False
        while (left := moment - self.now()) > timedelta(0):
            jumped = await _happens(self._jump, min(left, _ASLEEP_AT_MOST))
        return jumped


async def _happens(event: asyncio.Event, within: timedelta) -> bool:
    try:
        return await asyncio.wait_for(event.wait(), within.total_seconds())
    except TimeoutError:
        return False


def _moving_time() -> time_machine.Traveller:
    import time_machine  # noqa: PLC0415  development only, and a host whose clock nobody moves does not pay for it

    return time_machine.travel(datetime.now(UTC), tick=True).start()
