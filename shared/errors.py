"""The few errors of ours.

    EnforcerError
    |-- Malformed          what came in can't be read: an id, an event, a request
    |-- LostRace           somebody else wrote the row first: look again
    |-- Declined           an order that must not be carried out as things stand
    |-- Unclear            an order of which nobody knows yet whether it was carried out
    `-- ServiceError       what an adapter may raise
        |-- Transient      passes by itself
        |   |-- Throttled      429 or 503, and the service says when to come back
        |   `-- Unavailable    5xx, time-out, broken connection: nobody knows whether the call arrived
        |-- Conflict       409 or 412 on a write: the state is not the one that was read
        |-- Refused        a write that this service will not do: another try gives the same answer
        `-- Unreadable     a read that is not allowed: says nothing about whether the thing exists
            `-- Missing    a read that says: it does not exist

SDK exceptions stop at the adapters. Texts of services are cut short there: they may hold anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

TEXT_LIMIT = 1000


class EnforcerError(Exception):
    """The root of the errors of ours."""


class Malformed(EnforcerError):
    """Something that came in can't be read. The message says what was expected."""


class LostRace(EnforcerError):
    """The row was changed by somebody else since it was read. Nothing was written."""


class Declined(EnforcerError):
    """An order that must not be carried out as things stand. The message says why; nothing was changed.

    `because` names the clusters on account of which, by their ids, each with its own reason.
    """

    def __init__(self, text: str, because: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(text)
        self.because = tuple(because)


class Unclear(EnforcerError):
    """An order of which nobody knows yet whether it was carried out. The message says what comes next."""


class ServiceError(EnforcerError):
    """A service's answer other than success: its code, and its text cut to TEXT_LIMIT characters."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(f"{code}: {text[:TEXT_LIMIT]}")
        self.code = code
        self.text = text[:TEXT_LIMIT]


class Transient(ServiceError):
    """Passes by itself; worth another try later."""


class Throttled(Transient):
    """The service asks to come back later. `retry_after` is never negative."""

    def __init__(self, code: str, text: str, retry_after: timedelta) -> None:
        super().__init__(code, text)
        self.retry_after = max(retry_after, timedelta())


class Unavailable(Transient):
    """No clear answer. A write may or may not have arrived."""


class Conflict(ServiceError):
    """A write met another state than the one that was read, or an operation that is still running."""


class Refused(ServiceError):
    """A write that the service will not do."""


class Unreadable(ServiceError):
    """A read that is not allowed, or a scope that can't be seen."""


class Missing(Unreadable):
    """A read of something that does not exist."""
