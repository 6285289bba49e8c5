"""Faults on order: the next call that matches fails, is dropped, or sets something off."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from threading import Condition
from typing import Literal

from local.simulator.errors import ServiceError


@dataclass(slots=True)
class Fault:
    """What happens to the next `times` calls that match. Without an error the call ends without a reply."""

    method: str
    path: re.Pattern[str]
    times: int
    error: ServiceError | None = None
    accepted: bool = False  # carried out before the reply is dropped
    callback: Callable[[], object] | None = None


class Faults:
    """The faults still to come, first ordered first served. Safe from any thread."""

    def __init__(self, changed: Condition) -> None:
        self._changed = changed
        self._pending: list[Fault] = []

    @property
    def pending(self) -> tuple[Fault, ...]:
        """What was ordered and did not happen yet."""
        with self._changed:
            return tuple(self._pending)

    def fail_next(
        self,
        method: str,
        path_pattern: str,
        status: int,
        *,
        code: str,
        message: str,
        headers: Mapping[str, str] | None = None,
        times: int = 1,
    ) -> None:
        """Refuse the next `times` calls in whose path the regular expression is found; nothing is carried out."""
        self._order(method, path_pattern, times, error=ServiceError(status, code, message, headers=headers))

    def drop_next(self, method: str, path_pattern: str, *, accepted: bool, times: int = 1) -> None:
        """Close the connection without a reply, after the call was carried out (`accepted`) or before."""
        self._order(method, path_pattern, times, accepted=accepted)

    def call_next(
        self, method: str, path_pattern: str, callback: Callable[[], object], *, when: Literal["before", "after"]
    ) -> None:
        """Run `callback` in a thread of the server before or after the next call is carried out, then drop its reply.

        Before: the call is never carried out. After: it was, and is in the journal as accepted.
        """
        self._order(method, path_pattern, 1, accepted=when == "after", callback=callback)

    def take(self, method: str, path: str) -> Fault | None:
        """The fault that this call meets, if any, counted down."""
        with self._changed:
            for fault in self._pending:
                if fault.method == method and fault.path.search(path):
                    return self._count_down(fault)
        return None

    def _order(
        self,
        method: str,
        path_pattern: str,
        times: int,
        *,
        error: ServiceError | None = None,
        accepted: bool = False,
        callback: Callable[[], object] | None = None,
    ) -> None:
        pattern = re.compile(path_pattern, re.IGNORECASE)
        with self._changed:
            self._pending.append(Fault(method, pattern, times, error, accepted, callback))

    def _count_down(self, fault: Fault) -> Fault:
        fault.times -= 1
        if fault.times == 0:
            self._pending.remove(fault)
        return fault
