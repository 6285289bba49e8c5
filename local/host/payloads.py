"""What each trigger hands to its function: the payload and the trigger metadata, as the worker expects them."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from local.host.worker import Datum

_FIRST_DELIVERY = 1
_MESSAGE_LIFE = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Payload:
    """The argument of one invocation."""

    value: Datum
    metadata: Mapping[str, Datum] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TimerStatus:
    """When a monitored timer ran last (None: never) and when it will run next."""

    last: datetime | None
    next: datetime | None


def event(document: Mapping[str, Any]) -> Payload:
    """Return the payload of one Event Grid or CloudEvents event."""
    return Payload(_json(document), {"data": _json(document.get("data"))})


def timer(*, past_due: bool, status: TimerStatus | None) -> Payload:
    """Return the payload of a timer; a status of None means that the schedule is not monitored."""
    schedule_status = None
    if status is not None:
        last = (status.last or datetime.min.replace(tzinfo=UTC)).isoformat()
        upcoming = (status.next or datetime.min.replace(tzinfo=UTC)).isoformat()
        schedule_status = {"Last": last, "Next": upcoming, "LastUpdated": last}
    return Payload(
        _json({"Schedule": {"AdjustForDST": True}, "ScheduleStatus": schedule_status, "IsPastDue": past_due})
    )


def message(
    body: bytes,
    *,
    id: str,
    dequeue_count: int,
    pop_receipt: str,
    inserted: datetime | None,
    expires: datetime | None,
    next_visible: datetime | None,
) -> Payload:
    """Return the payload of one queue message: text if the body is UTF-8, else bytes."""
    moments = {"InsertionTime": inserted, "ExpirationTime": expires, "NextVisibleTime": next_visible}
    return Payload(
        _text_or_bytes(body),
        {
            "Id": Datum(id, "string"),
            "PopReceipt": Datum(pop_receipt, "string"),
            "DequeueCount": _json(dequeue_count),
            **{name: _json(_timestamp(moment)) for name, moment in moments.items() if moment is not None},
        },
    )


def manual(kind: str, given: Any) -> Payload:
    """Return the payload of an invocation by an operator, for a trigger of type `kind` other than HTTP."""
    if kind == "timerTrigger":
        return timer(past_due=False, status=None)
    if kind == "eventGridTrigger":
        document = json.loads(given) if isinstance(given, str) else given
        return event(document if isinstance(document, dict) else {})
    now = datetime.now(UTC)
    return message(
        (given if isinstance(given, str) else json.dumps(given)).encode(),
        id=str(uuid.uuid4()),
        dequeue_count=_FIRST_DELIVERY,
        pop_receipt="",
        inserted=now,
        expires=now + _MESSAGE_LIFE,
        next_visible=now,
    )


def request(
    *,
    method: str,
    url: str,
    headers: Mapping[str, str],
    query: Mapping[str, str],
    route: Mapping[str, str],
    body: bytes,
) -> Payload:
    """Return the payload of an HTTP request; the body travels as bytes."""
    return Payload(
        Datum(
            {
                "method": Datum(method, "string"),
                "url": Datum(url, "string"),
                "headers": _strings(headers),
                "query": _strings(query),
                "params": _strings(route),
                "body": Datum(body, "bytes"),
            },
            "http",
        )
    )


def _strings(values: Mapping[str, str]) -> dict[str, Datum]:
    return {name: Datum(value, "string") for name, value in values.items()}


def _json(value: Any) -> Datum:
    return Datum(json.dumps(value), "json")


def _text_or_bytes(body: bytes) -> Datum:
    try:
        return Datum(body.decode(), "string")
    except UnicodeDecodeError:
        return Datum(body, "bytes")


def _timestamp(moment: datetime) -> str:
    """Write a moment as the worker parses it: UTC, to the second, with a Z."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
