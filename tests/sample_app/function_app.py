"""A Functions app that does what it is told, so that tests can see what the local host does around it."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time
import typing
from datetime import UTC, datetime
from pathlib import Path

import azure.functions as func
from azure.functions.timer import TimerRequest

app = func.FunctionApp()

_log = logging.getLogger("sample")
_released = asyncio.Event()


def saw(**facts: object) -> None:
    """Leave `facts` in the host's log, where the tests read them."""
    _log.info("saw", extra={"saw": facts})


@app.event_grid_trigger(arg_name="event")
async def on_event(event: func.EventGridEvent) -> None:
    """Report an event of either schema; fail if its data says so."""
    kind = "cloud" if isinstance(event, func.CloudEvent) else "grid"
    saw(kind=kind, id=event.id, subject=event.subject)
    if event.get_json().get("fail"):
        raise ValueError(f"told to fail by {event.id}")


@app.queue_trigger(arg_name="message", queue_name="%MESSAGES_QUEUE%", connection="AzureWebJobsStorage")
async def on_message(message: func.QueueMessage, context: func.Context) -> None:
    """Report a message and do what its text says."""
    body = message.get_body()
    saw(
        body=body.decode(errors="replace"),
        utf8=_is_utf8(body),
        count=message.dequeue_count,
        id=message.id,
        inserted=message.insertion_time,
        invocation=context.invocation_id,
    )
    if body == b"fail":
        raise ValueError("told to fail")
    if body == b"exit":
        sys.exit(3)
    if body == b"hold" and message.dequeue_count == 1:
        await _released.wait()
    if body.startswith(b"until "):
        await _appears(Path(body.decode().removeprefix("until ")))


async def _appears(file: Path) -> None:
    while not file.exists():  # nothing in this process makes the file, so there is no event to wait for
        await asyncio.sleep(0.01)


def _is_utf8(body: bytes) -> bool:
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True


@app.queue_trigger(arg_name="message", queue_name="copies", connection="AzureWebJobsStorage")
def on_copy(message: str) -> None:
    """Report a message, from a synchronous function."""
    saw(body=message)


@app.queue_trigger(arg_name="message", queue_name="sour-poison", connection="AzureWebJobsStorage")
def on_sour(message: str) -> None:
    """Fail at a message of a poison queue."""
    raise ValueError(message)


@app.timer_trigger(arg_name="timer", schedule="%TICK_SCHEDULE%", run_on_startup=False)
async def tick(timer: TimerRequest) -> None:
    """Report when a timer fires."""
    saw(past_due=timer.past_due, status=timer.schedule_status, now=datetime.now(UTC))


@app.timer_trigger(arg_name="timer", schedule="0 0 0 1 1 *", run_on_startup=True, use_monitor=False)
@app.retry(strategy="fixed_delay", max_retry_count="2", delay_interval="00:00:00")
async def flaky(timer: TimerRequest, context: func.Context) -> None:
    """Fail until the last retry."""
    retry = context.retry_context
    saw(attempt=retry.retry_count, most=retry.max_retry_count, status=timer.schedule_status, past_due=timer.past_due)
    if retry.retry_count < retry.max_retry_count:
        raise ValueError("not yet")


@app.route("items/{id:int}/{part?}", methods=["GET", "POST"])
async def item(req: func.HttpRequest) -> func.HttpResponse:
    """Return the request as the app got it."""
    document = {
        "method": req.method,
        "url": req.url,
        "route": dict(req.route_params),
        "query": dict(req.params),
        "agent": req.headers.get("User-Agent"),
        "body": req.get_body().decode(),
    }
    return func.HttpResponse(json.dumps(document), mimetype="application/json", headers={"X-Sample": "yes"})


@app.route("items/{name}", methods=["GET"])
def named_item(req: func.HttpRequest) -> str:
    """Answer where the path is no number, from a synchronous function."""
    saw(name=req.route_params["name"])
    return f"named {req.route_params['name']}"


@app.route("items/special", methods=["GET"])
async def special_item(req: func.HttpRequest) -> str:  # noqa: ARG001  a trigger's parameter can't be left out
    """Answer at a literal route."""
    return "special"


@app.route("files/{*path}", methods=["GET"], auth_level=func.AuthLevel.ANONYMOUS)
async def file(req: func.HttpRequest) -> str:
    """Answer at every path below `files`, without a key."""
    return str(req.route_params["path"])


@app.route(auth_level=func.AuthLevel.ADMIN)
async def locked(req: func.HttpRequest) -> str:  # noqa: ARG001  a trigger's parameter can't be left out
    """Answer to the master key alone."""
    return "open"


@app.route(methods=["POST"])
async def fail(req: func.HttpRequest) -> str:
    """Fail, or end the process, or hang, as the body says."""
    match req.get_body():
        case b"exit":
            sys.exit(3)
        case b"hang":
            await asyncio.Event().wait()
    raise ValueError("told to fail")


@app.route(methods=["POST"])
async def release(req: func.HttpRequest) -> str:  # noqa: ARG001  a trigger's parameter can't be left out
    """Let held messages go on."""
    _released.set()
    return "released"


@app.route(methods=["GET"])
async def clocks(req: func.HttpRequest) -> str:  # noqa: ARG001  a trigger's parameter can't be left out
    """Return the wall clock, the monotonic clock and the loop's, in seconds."""
    loop = asyncio.get_running_loop().time()
    return json.dumps({"wall": datetime.now(UTC).timestamp(), "monotonic": time.monotonic(), "loop": loop})


@app.route(methods=["POST"])
@app.queue_output(arg_name="copies", queue_name="copies", connection="AzureWebJobsStorage")
async def send(req: func.HttpRequest, copies: func.Out[typing.List[str]]) -> str:  # noqa: UP006  the worker refuses list[str]
    """Send each line of the body as a message; fail afterwards if the last line says so."""
    lines = req.get_body().decode().splitlines()
    copies.set(lines)
    if lines[-1] == "fail":
        raise ValueError("told to fail")
    return "sent"
