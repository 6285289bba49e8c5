"""What the app says of itself: lines that people read and queries count.

    Azure took the update {"line":"write-taken","run":"sweep-1","cluster":"/subscriptions/...","what":"cluster"}

The Functions host takes a worker's lines as text: what `extra` holds never arrives at Application Insights. So every
line ends in one JSON object, with the run, the event, the cluster or the key that it is about. What comes before it
never holds what such an object begins with, nor a line break: nothing that came from outside can pass for a field.
A traceback, if there is one, follows on lines of its own.
Sources: azure-functions-python-worker, dispatcher.py, on_logging (the formatted message is all that is sent) and
issues 694, 1327; Application Insights docs, data-model-trace-telemetry (a message is cut at 32,768 characters).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from enum import StrEnum
from functools import wraps
from typing import Any, Concatenate

LONGEST_TEXT = 4000
"""So many characters of a line's text are kept, so that its fields are never what is cut off."""


class Line(StrEnum):
    """The lines that queries look for: what stands in the field `line`."""

    RUN_STARTED = "run-started"
    """A run was divided into subscriptions."""
    SHARD_SWEPT = "shard-swept"
    """One subscription of a run was swept, or could not be."""
    RUN_ENDED = "run-ended"
    """All subscriptions of a run were swept; two that end together may both say so."""
    CLUSTER_DECIDED = "cluster-decided"
    """A cluster's decision is another one than before."""
    WRITE_TAKEN = "write-taken"
    """Azure took a write."""
    WRITE_ENDED = "write-ended"
    """It is known what became of a write."""
    ROTATION_DETECTED = "rotation-detected"
    """A key has a new version, and everybody was told."""
    KEY_AT_RISK = "key-at-risk"
    """Something stops clusters that use a key, or will; said again at every sweep while it lasts."""
    ENFORCEMENT_PAUSED = "enforcement-paused"
    """Nothing is written any more."""
    ENFORCEMENT_RESUMED = "enforcement-resumed"
    """An operator lets the app write again."""
    POLICY_BROKEN = "policy-broken"
    """The policy document has a fault, so nothing is written; said at the start of each worker."""
    MALFORMED = "malformed"
    """An event or a message can't be read."""
    POISONED = "poisoned"
    """A message failed five times."""


ABOUT = ("run", "event", "askedBy", "subscription", "cluster", "vault", "key")
"""The fields that say what a line is about, as far as that is known where it is logged."""

FIELDS: Mapping[Line, frozenset[str]] = {
    Line.RUN_STARTED: frozenset({"everything", "mode", "subscriptions"}),
    Line.SHARD_SWEPT: frozenset(
        {"everything", "clusters", "enqueued", "decisions", "keyManagement", "overdue", "oldestOverdueSeconds"}
        | {"failure"}
    ),
    Line.RUN_ENDED: frozenset(
        {"everything", "subscriptions", "clusters", "enqueued", "decisions", "oldestOverdueSeconds"}
        | {"failures", "queues", "paused", "policyFaults"}
    ),
    Line.CLUSTER_DECIDED: frozenset({"action", "reason", "mode", "target", "keyManagement"}),
    Line.WRITE_TAKEN: frozenset({"what"}),
    Line.WRITE_ENDED: frozenset({"what", "outcome", "code"}),
    Line.ROTATION_DETECTED: frozenset({"version", "how", "latencySeconds", "users"}),
    Line.KEY_AT_RISK: frozenset({"reason", "version", "users", "since"}),
    Line.ENFORCEMENT_PAUSED: frozenset({"by", "since"}),
    Line.ENFORCEMENT_RESUMED: frozenset({"by"}),
    Line.POLICY_BROKEN: frozenset({"fault"}),
    Line.MALFORMED: frozenset(),
    Line.POISONED: frozenset({"queue"}),
}
"""What each line says besides what it is about. The alerts and the workbook read these names."""

_EVENT = "event:"
_about: ContextVar[Mapping[str, str]] = ContextVar("what the lines of this task are about")


def logger(name: str) -> logging.Logger:
    """Return the logger of this name, whose lines end in their fields."""
    named = logging.getLogger(name)
    named.addFilter(_with_fields)
    return named


def quiet_sdks() -> None:
    """Let the SDKs speak from WARNING up: below that they log every request and every answer."""
    logging.getLogger("azure").setLevel(logging.WARNING)


def saying(kind: Line, **fields: Any) -> dict[str, Any]:
    """Return the `extra` of a line that queries look for. Its fields are those of FIELDS."""
    return {"said": {"line": kind, **fields}}


@contextmanager
def about(**names: object) -> Iterator[None]:
    """Let every line inside say what it is about, by names of ABOUT; None says nothing of it.

    A run or an event that was asked by `event:<id>` is about that event. A task that is begun inside inherits it all.
    """
    said = {name: str(value) for name, value in names.items() if value is not None}
    asked_by = said.get("askedBy", "")
    if asked_by.startswith(_EVENT):
        said["event"] = asked_by.removeprefix(_EVENT)
    before = _about.get({})
    token = _about.set({**before, **said})
    try:
        yield
    finally:
        _about.reset(token)


def about_request[Room, Request, **Rest, Answer](
    look: Callable[Concatenate[Room, Request, Rest], Awaitable[Answer]],
) -> Callable[Concatenate[Room, Request, Rest], Coroutine[Any, Any, Answer]]:
    """Let every line of a look say what its request, the first argument, is about."""

    @wraps(look)
    async def looking(room: Room, request: Request, /, *rest: Rest.args, **named: Rest.kwargs) -> Answer:
        names = {name: getattr(request, name, None) for name in ABOUT}
        with about(**names | {"askedBy": getattr(request, "asked_by", None)}):
            return await look(room, request, *rest, **named)

    return looking


def _with_fields(record: logging.LogRecord) -> logging.LogRecord:
    """Return the record with its fields behind its text; the fields stay on it as `said`, for local logs."""
    fields = {**_about.get({}), **getattr(record, "said", {})}
    text = " ".join(record.getMessage()[:LONGEST_TEXT].splitlines()).replace('{"', "{ ")
    copy = logging.makeLogRecord(vars(record))
    copy.msg, copy.args = f"{text} {_json(fields)}" if fields else text, ()
    return copy


def _json(fields: Mapping[str, Any]) -> str:
    first = {"line": fields["line"]} if "line" in fields else {}
    shown = {name: _short(value) for name, value in {**first, **fields}.items()}
    return json.dumps(shown, separators=(",", ":"), default=str)


def _short(value: Any) -> Any:
    return value[:1000] if isinstance(value, str) else value
