"""What was asked of the simulated Azure, call by call."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from threading import Condition
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

MANAGEMENT_HOST = "management.azure.com"
WRITING_METHODS = frozenset({"PUT", "PATCH", "POST", "DELETE"})


@dataclass(frozen=True, slots=True)
class Call:
    """One call. `accepted`: carried out (2xx), even if its reply was then dropped. `status` 0: dropped before that."""

    at: datetime
    method: str
    host: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]  # lower-case names, without credentials
    body: Any  # parsed JSON, else text, else None
    status: int
    accepted: bool

    def matches(self, method: str, path_pattern: str) -> bool:
        """True for this method and a path in which the regular expression is found, in any case."""
        return self.method == method and re.search(path_pattern, self.path, re.IGNORECASE) is not None


class Journal:
    """Every call in the order of their ends. Safe from any thread."""

    def __init__(self, changed: Condition) -> None:
        self._changed = changed
        self._calls: list[Call] = []
        self._unknown: list[Call] = []

    @property
    def calls(self) -> tuple[Call, ...]:
        with self._changed:
            return tuple(self._calls)

    @property
    def unknown(self) -> tuple[Call, ...]:
        """The calls that nothing here knows, answered with 501."""
        with self._changed:
            return tuple(self._unknown)

    def writes(self) -> tuple[Call, ...]:
        """The calls to ARM that changed something, those whose reply was dropped included."""
        return tuple(
            call
            for call in self.calls
            if call.accepted and call.host == MANAGEMENT_HOST and call.method in WRITING_METHODS
        )

    def matching(self, method: str, path_pattern: str) -> tuple[Call, ...]:
        """The calls with this method in whose path the regular expression is found."""
        return tuple(call for call in self.calls if call.matches(method, path_pattern))

    def add(self, call: Call, *, known: bool = True) -> None:
        """Write one call down and wake whoever waits."""
        with self._changed:
            self._calls.append(call)
            if not known:
                self._unknown.append(call)
            self._changed.notify_all()

    def wait_for(self, predicate: Callable[[Call], bool], *, deadline: float = 60.0) -> Call:
        """Block until there is a call for which `predicate` holds, and return it. TimeoutError after `deadline` s."""
        with self._changed:
            self._changed.wait_for(lambda: any(map(predicate, self._calls)), timeout=deadline)
            found = next(filter(predicate, self._calls), None)
        if found is None:
            raise TimeoutError(f"no such call within {deadline} s; the last ones: {self.last()}")
        return found

    def last(self) -> list[str]:
        """The last ten calls, one line each, for messages."""
        return [f"{call.method} {call.path} {call.status}" for call in self.calls[-10:]]
