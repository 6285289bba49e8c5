"""The simulated Azure's time: real time plus an offset, and what is due on it."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import count
from threading import Condition

type Action = Callable[[datetime], None]


class Clock:
    """A clock that tests move forward. Whatever was planned for the time in between happens, in order, at its own time.

    Safe from any thread. `on_change` is called when something was planned or the clock was moved.
    """

    def __init__(self, changed: Condition) -> None:
        self.offset = timedelta(0)
        self.on_change: Callable[[], None] | None = None
        self._changed = changed
        self._agenda: list[tuple[datetime, int, Action]] = []
        self._order = count()

    def now(self) -> datetime:
        """Real time plus the offset; aware, UTC."""
        return datetime.now(UTC) + self.offset

    def advance(self, by: timedelta) -> None:
        """Move forward; everything due until then has happened when this returns."""
        with self._changed:
            self.offset += by
            self.run_due()
        self._announce()

    def at(self, when: datetime, action: Action) -> None:
        """Plan `action`, called with the time it was planned for. Actions of one time keep their order."""
        with self._changed:
            heapq.heappush(self._agenda, (when, next(self._order), action))
        self._announce()

    def run_due(self) -> None:
        """Run what is due by now, what those actions plan for the past included."""
        with self._changed:
            while self._agenda and self._agenda[0][0] <= self.now():
                when, _, action = heapq.heappop(self._agenda)
                action(when)
            self._changed.notify_all()

    def seconds_to_next(self) -> float | None:
        """Real seconds until something is due, 0 when overdue, None when nothing is planned."""
        with self._changed:
            if not self._agenda:
                return None
            return max(0.0, (self._agenda[0][0] - self.now()).total_seconds())

    def _announce(self) -> None:
        if self.on_change is not None:
            self.on_change()


def timestamp(moment: datetime) -> str:
    """Azure's form of a time: UTC, seven digits after the point."""
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%S}.{moment.microsecond:06d}0Z"
