"""One line per log record, each with the function and the invocation that it belongs to."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

from azure_functions_runtime import invocation_id_cv

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "function", "invocation_id", "taskName"}
# What is of use only to those who work on these libraries.
_QUIET = (
    "azure.core.pipeline.policies.http_logging_policy",
    "azure.identity",
    "azure.functions",
    "azure_functions_runtime",
    "msal",
)

running: dict[str, str] = {}
"""Invocation id -> function name, of the invocations that run now."""


def configure(*, as_json: bool) -> None:
    """Send all records from INFO up to stderr; libraries that report every call only from WARNING up."""
    sink = logging.StreamHandler(sys.stderr)
    sink.addFilter(_name_invocation)
    sink.setFormatter(_JsonFormatter() if as_json else _LineFormatter())
    root = logging.getLogger()
    root.handlers[:] = [sink]
    root.setLevel(logging.INFO)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)


def _name_invocation(record: logging.LogRecord) -> bool:
    """Stamp a record. The library's variable is right in synchronous functions too, whose threads copy no context."""
    invocation_id = invocation_id_cv.get() or ""
    vars(record).update(invocation_id=invocation_id, function=running.get(invocation_id, ""))
    return True


def _at(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")


class _LineFormatter(logging.Formatter):
    """`time LEVEL function[invocation] logger: message`."""

    def format(self, record: logging.LogRecord) -> str:
        stamp = vars(record)
        where = f"{stamp['function']}[{stamp['invocation_id'][:8]}] " if stamp["function"] else ""
        line = f"{_at(record)} {record.levelname:<7} {where}{record.name}: {record.getMessage()}"
        return line + (f"\n{self.formatException(record.exc_info)}" if record.exc_info else "")


class _JsonFormatter(logging.Formatter):
    """One object per record, with its `extra` fields."""

    def format(self, record: logging.LogRecord) -> str:
        stamp = vars(record)
        document: dict[str, Any] = {
            "time": _at(record),
            "level": record.levelname,
            "logger": record.name,
            "function": stamp["function"],
            "invocationId": stamp["invocation_id"],
            "message": record.getMessage(),
        }
        document |= {name: value for name, value in stamp.items() if name not in _STANDARD}
        if record.exc_info:
            document["exception"] = self.formatException(record.exc_info)
        return json.dumps(document, default=str)
