"""The triggers: decode, call, return. Everything else is in `shared/`.

Imports inside the functions keep the cold start short. An event is taken as text: the worker's own event types fail
on some malformed events before any line of ours could record them, and what one schema calls a CloudEvent arrives as
another type than what is annotated.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl
from uuid import uuid4

import azure.functions as func

from shared import bootstrap
from shared.telemetry import Line, about, logger, quiet_sdks, saying

if TYPE_CHECKING:
    from shared.clusters import ClusterId
    from shared.events import Event

log = logger(__name__)
quiet_sdks()

STORAGE = "AzureWebJobsStorage"

API = {
    "runs": "POST",
    "runs/{id}": "GET",
    "clusters": "GET",
    "clusters/{subscription}/{resourceGroup}/{name}": "GET",
    "clusters/{subscription}/{resourceGroup}/{name}/resume": "POST",
    "clusters/{subscription}/{resourceGroup}/{name}/reencrypted": "POST",
    "keys/{vault}/{name}/rotate": "POST",
    "keys": "GET",
    "keys/{vault}/{name}": "GET",
    "rotations": "GET",
    "activity": "GET",
    "exemptions": "GET",
    "enforcement": "GET",
    "enforcement/pause": "POST",
    "enforcement/resume": "POST",
    "health": "GET",
}
"""Each path and its method, for whoever asks for another."""

app = func.FunctionApp(http_auth_level=func.AuthLevel.FUNCTION)


@app.event_grid_trigger(arg_name="event")
async def on_cluster_event(event: str) -> None:
    """A subscription says that a managed cluster was written or deleted: ask for a look at it."""
    from shared.events import cluster_request

    await _receive(event, cluster_request, bootstrap.queues().ask_for_cluster)


@app.event_grid_trigger(arg_name="event")
async def on_key_event(event: str) -> None:
    """A vault says something of a key, or of who may use its keys: ask for a look."""
    from shared.events import key_request

    await _receive(event, key_request, bootstrap.queues().ask_for_key)


@app.timer_trigger(arg_name="timer", schedule="%SWEEP_SCHEDULE%")
async def sweep_fleet(timer: func.TimerRequest) -> None:
    """The timer: sweep the whole fleet, one message a subscription."""
    now = datetime.now(UTC)
    run_id = f"sweep-{now:%Y%m%dT%H%M%SZ}"
    with about(run=run_id, askedBy="timer"):
        log.info("the sweep starts%s", " late" if timer.past_due else "")
        await bootstrap.sweeper().start(run_id, asked_by="timer", now=now)


@app.queue_trigger(arg_name="message", queue_name="shards", connection=STORAGE)
async def sweep_shard(message: func.QueueMessage) -> None:
    """Sweep the subscription that one message names."""
    from shared.events import ShardRequest

    await bootstrap.sweeper().sweep(ShardRequest.decode(message.get_body()), now=datetime.now(UTC))


@app.queue_trigger(arg_name="message", queue_name="clusters", connection=STORAGE)
async def reconcile_cluster(message: func.QueueMessage) -> None:
    """Reconcile the cluster that one message names."""
    from shared.events import ClusterRequest

    request = ClusterRequest.decode(message.get_body(), message.id or "")
    await bootstrap.reconciler().reconcile(request, now=datetime.now(UTC))


@app.queue_trigger(arg_name="message", queue_name="keys", connection=STORAGE)
async def inspect_key(message: func.QueueMessage) -> None:
    """Inspect the key that one message names, or ask for a look at each key of a vault."""
    from shared.events import VaultRequest, key_message

    request = key_message(message.get_body())
    if isinstance(request, VaultRequest):
        await bootstrap.inspector().inspect_vault(request)
    else:
        await bootstrap.inspector().inspect(request, now=datetime.now(UTC))


@app.queue_trigger(arg_name="message", queue_name="shards-poison", connection=STORAGE)
async def on_poisoned_shard(message: func.QueueMessage) -> None:
    """A shard's message failed five times: record it. Never raises."""
    from shared.events import ShardRequest

    await _bury(
        message, "shards", lambda text: bootstrap.sweeper().give_up(ShardRequest.decode(text), now=datetime.now(UTC))
    )


@app.queue_trigger(arg_name="message", queue_name="clusters-poison", connection=STORAGE)
async def on_poisoned_cluster(message: func.QueueMessage) -> None:
    """A cluster's message failed five times: record it. Never raises."""
    from shared.events import ClusterRequest

    poisoned = message.id or ""
    await _bury(
        message,
        "clusters",
        lambda text: bootstrap.reconciler().give_up(ClusterRequest.decode(text, poisoned), now=datetime.now(UTC)),
    )


@app.queue_trigger(arg_name="message", queue_name="keys-poison", connection=STORAGE)
async def on_poisoned_key(message: func.QueueMessage) -> None:
    """A key's message failed five times: record it. Never raises."""
    from shared.events import key_message

    await _bury(message, "keys", lambda text: bootstrap.inspector().give_up(key_message(text), now=datetime.now(UTC)))


@app.route("runs", methods=["POST"])
async def start_run(req: func.HttpRequest) -> func.HttpResponse:
    """Start a run over the fleet, or over a part of it."""
    from shared.events import OPERATOR, RunOrder
    from shared.views import run_view

    async def start() -> Any:
        order = RunOrder.decode(req.get_body())
        run_id = f"run-{uuid4().hex}"
        with about(run=run_id, askedBy=OPERATOR):
            run = await bootstrap.sweeper().start(
                run_id, asked_by=OPERATOR, now=datetime.now(UTC), scope=order.scope, mode=order.mode
            )
        return run_view(run)

    return await _answer(start, status=202)


@app.route("runs/{id}", methods=["GET"])
async def get_run(req: func.HttpRequest) -> func.HttpResponse:
    """Show a run and how far it is."""
    return await _answer(lambda: bootstrap.views().run(req.route_params["id"], _query(req)))


@app.route("clusters", methods=["GET"])
async def list_clusters(req: func.HttpRequest) -> func.HttpResponse:
    """List the clusters: what each has, what is asked of it, and why what is done."""
    return await _answer(lambda: bootstrap.views().clusters(_query(req)))


@app.route("clusters/{subscription}/{resourceGroup}/{name}", methods=["GET"])
async def get_cluster(req: func.HttpRequest) -> func.HttpResponse:
    """Show one cluster: its state, the decision with the change of every path, and its history."""

    async def show() -> Any:
        return await bootstrap.views().cluster(_cluster_id(req), _query(req))

    return await _answer(show)


@app.route("clusters/{subscription}/{resourceGroup}/{name}/resume", methods=["POST"])
async def resume_cluster(req: func.HttpRequest) -> func.HttpResponse:
    """Let a cluster be written again: contested, refused, or one whose rewrite failed."""
    from shared.events import OPERATOR
    from shared.views import cluster_view

    async def resume() -> Any:
        record = await bootstrap.reconciler().resume(_cluster_id(req), asked_by=OPERATOR, now=datetime.now(UTC))
        return cluster_view(record) if record is not None else None

    return await _answer(resume, status=202)


@app.route("clusters/{subscription}/{resourceGroup}/{name}/reencrypted", methods=["POST"])
async def confirm_rewrite(req: func.HttpRequest) -> func.HttpResponse:
    """Take down that all secrets of a cluster were rewritten: who says so, and when it was."""
    from shared.events import RewriteOrder
    from shared.views import rewrite_view

    async def confirm() -> Any:
        order = RewriteOrder.decode(req.get_body())
        rewrite = await bootstrap.rotator().confirm(_cluster_id(req), order, now=datetime.now(UTC))
        return rewrite_view(rewrite.cluster, rewrite.by, rewrite.at, rewrite.keys) if rewrite is not None else None

    return await _answer(confirm)


@app.route("keys/{vault}/{name}/rotate", methods=["POST"])
async def rotate_key(req: func.HttpRequest) -> func.HttpResponse:
    """Make a new version of a key, unless a legacy cluster would fall behind by two."""
    from shared.events import RotateOrder
    from shared.keyviews import rotation_view
    from shared.questions import key_named

    async def rotate() -> Any:
        order = RotateOrder.decode(req.get_body())
        key = key_named(req.route_params["vault"], req.route_params["name"])
        rotation = await bootstrap.rotator().rotate(key, order, now=datetime.now(UTC))
        return rotation_view(rotation) if rotation is not None else None

    return await _answer(rotate)


@app.route("keys", methods=["GET"])
async def list_keys(req: func.HttpRequest) -> func.HttpResponse:
    """List the keys: who uses each, how its versions stand, and what is wrong with it."""
    return await _answer(lambda: bootstrap.key_views().all(_query(req)))


@app.route("keys/{vault}/{name}", methods=["GET"])
async def get_key(req: func.HttpRequest) -> func.HttpResponse:
    """Show one key: which cluster still needs which version, and what each has used."""
    vault, name, now = req.route_params["vault"], req.route_params["name"], datetime.now(UTC)
    return await _answer(lambda: bootstrap.key_views().one(vault, name, _query(req), now=now))


@app.route("rotations", methods=["GET"])
async def list_rotations(req: func.HttpRequest) -> func.HttpResponse:
    """List the key versions that were detected, and how."""
    return await _answer(lambda: bootstrap.key_views().rotations(_query(req)))


@app.route("activity", methods=["GET"])
async def list_activity(req: func.HttpRequest) -> func.HttpResponse:
    """List what happened: decisions, writes, rotations, failures, and who or what asked."""
    now = datetime.now(UTC)
    return await _answer(lambda: bootstrap.views().activity(_query(req), now=now))


@app.route("exemptions", methods=["GET"])
async def list_exemptions(req: func.HttpRequest) -> func.HttpResponse:
    """List the exemptions: who answers for each, until when, and which clusters it leaves alone."""
    now = datetime.now(UTC)
    return await _answer(lambda: bootstrap.views().exemptions(bootstrap.policy(), _query(req), now=now))


@app.route("enforcement", methods=["GET"])
async def get_enforcement(req: func.HttpRequest) -> func.HttpResponse:
    """Show whether enforcement is paused, by whom and why, and which updates failed in a row."""
    return await _answer(lambda: bootstrap.views().enforcement(_query(req)))


@app.route("enforcement/pause", methods=["POST"])
async def pause_enforcement(req: func.HttpRequest) -> func.HttpResponse:
    """Keep the app from writing until somebody resumes."""
    from shared.events import OPERATOR, PauseOrder
    from shared.views import enforcement_view

    async def pause() -> Any:
        order = PauseOrder.decode(req.get_body())
        state = await bootstrap.pauses().pause(by=OPERATOR, why=order.reason, now=datetime.now(UTC))
        return enforcement_view(state)

    return await _answer(pause)


@app.route("enforcement/resume", methods=["POST"])
async def resume_enforcement(req: func.HttpRequest) -> func.HttpResponse:  # noqa: ARG001  the worker wants its name
    """Let the app write again, and start a run so that what was held back goes on at once."""
    from shared.events import OPERATOR
    from shared.views import enforcement_view

    async def resume() -> Any:
        now = datetime.now(UTC)
        run_id = f"run-{uuid4().hex}"
        with about(run=run_id, askedBy=OPERATOR):
            state = await bootstrap.pauses().resume(by=OPERATOR, now=now)
            run = await bootstrap.sweeper().start(run_id, asked_by=OPERATOR, now=now)
        return enforcement_view(state) | {"run": run.id}

    return await _answer(resume, status=202)


@app.route("health", methods=["GET"], auth_level=func.AuthLevel.ANONYMOUS)
async def health(req: func.HttpRequest) -> func.HttpResponse:  # noqa: ARG001  the worker wants the trigger's name
    """Say whether the app can do its work."""
    from shared.settings import BadSettings

    try:
        return _json(await bootstrap.views().health(bootstrap.policy()))
    except BadSettings as error:
        return _problem(503, "Settings are missing", str(error))


@app.route("{*path}", methods=["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"])
async def answer_anything_else(req: func.HttpRequest) -> func.HttpResponse:
    """Say that there is nothing at this path, or nothing with this method, and what there is."""
    path = req.route_params.get("path") or ""
    template = next((one for one in API if re.fullmatch(re.sub(r"{\w+}", "[^/]+", one), path)), None)
    if template is not None:
        return _problem(405, "Method not allowed", f"/api/{template} takes {API[template]}", Allow=API[template])
    there_is = ", ".join(f"{method} /api/{one}" for one, method in API.items())
    return _problem(404, "Not found", f"there is nothing at this path; the API has {there_is}")


def _query(req: func.HttpRequest) -> Mapping[str, str]:
    """The query of a URL, with what is empty in it: the host passes that over, and a list would show more than asked.

    Source: Azure/azure-functions-host, GrpcMessageConversionExtensions (ToRpcHttp).
    """
    asked = parse_qsl(req.url.partition("?")[2], keep_blank_values=True)
    return {name: "" for name, value in asked if not value} | dict(req.params)


def _cluster_id(req: func.HttpRequest) -> ClusterId:
    """The cluster that a path names; Malformed if it can't be one."""
    from shared.clusters import ClusterId

    parts = (req.route_params[name] for name in ("subscription", "resourceGroup", "name"))
    return ClusterId.parse(str(ClusterId(*parts)))


async def _receive(text: str, parse: Callable[[Event], Any], ask: Callable[[Any], Awaitable[None]]) -> None:
    """Turn an event into a request for a look. Never raises for what is in it: Event Grid would only send it again."""
    from shared.errors import Malformed
    from shared.events import Event

    event_id = ""
    try:
        event = Event.read(text)
        event_id = event.id
        request = parse(event)
    except Malformed as error:
        await _note_malformed("event", event_id, error)
        return
    with about(event=event_id):
        if request is None:
            log.info("event %s is of no type that is served: %r", event_id, event.type[:100])
            return
        await ask(request)


async def _note_malformed(what: str, name: str, error: Exception) -> None:
    """Record an event or a message that could not be read, by its id and the reason."""
    from shared.records import Activity

    with about(event=name if what == "event" and name else None):
        log.warning("%s %s is malformed: %s", what, name or "without an id", error, extra=saying(Line.MALFORMED))
    said = {"askedBy": f"{what}:{name}", "detail": str(error)}
    await bootstrap.ledger().note(Activity("events", name or uuid4().hex, datetime.now(UTC), "malformed", said))


async def _bury(message: func.QueueMessage, queue: str, give_up: Callable[[bytes], Awaitable[None]]) -> None:
    """Record a poisoned message. The record must not poison it again, so nothing is raised; the log has it all."""
    try:
        await _give_up(message, queue, give_up)
    except Exception:
        poisoned = saying(Line.POISONED, queue=queue)
        log.exception("a poisoned message could not be recorded; its id is %s", message.id, extra=poisoned)


async def _give_up(message: func.QueueMessage, queue: str, give_up: Callable[[bytes], Awaitable[None]]) -> None:
    from shared.errors import Malformed

    try:
        await give_up(message.get_body())
    except Malformed as error:
        poisoned = saying(Line.POISONED, queue=queue)
        log.warning("a poisoned message can't be read; its id is %s", message.id, extra=poisoned)
        await _note_malformed("message", message.id or "", error)


async def _answer(ask: Callable[[], Awaitable[Any]], *, status: int = 200) -> func.HttpResponse:
    """Answer a request in JSON, or with the problem."""
    from shared.errors import Declined, EnforcerError, Malformed, Unclear

    try:
        answer = await ask()
    except Malformed as error:
        return _problem(400, "The request can't be read", str(error))
    except Declined as error:
        because = [{"cluster": cluster, "why": why} for cluster, why in error.because]
        return _problem(409, "Not as things stand", str(error), {"clusters": because} if because else {})
    except Unclear as error:
        return _problem(503, "Nobody knows yet", str(error))
    except EnforcerError as error:
        log.warning("a request could not be answered: %s", error)
        return _problem(503, "The app can't answer now", f"{type(error).__name__}: its log says more")
    return _problem(404, "Not found", "there is nothing by this name") if answer is None else _json(answer, status)


def _json(body: Any, status: int = 200) -> func.HttpResponse:
    return func.HttpResponse(json.dumps(body), status_code=status, mimetype="application/json")


def _problem(
    status: int, title: str, detail: str, more: Mapping[str, Any] | None = None, **headers: str
) -> func.HttpResponse:
    from shared.views import problem

    body = json.dumps(problem(status, title, detail) | dict(more or {}))
    return func.HttpResponse(body, status_code=status, mimetype="application/problem+json", headers=headers)
