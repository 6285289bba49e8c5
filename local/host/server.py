"""The host's HTTP side: routes, the Event Grid webhook, and the admin calls.

Source: Functions docs, functions-bindings-http-webhook-trigger, functions-manually-run-non-http; Event Grid docs,
webhook-event-delivery and cloud-event-schema; azure-functions-eventgrid-extension, EventGridExtensionConfigProvider.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import math
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import Any

from aiohttp import web

from local.host import payloads
from local.host.clock import Clock
from local.host.invocations import Invocations, count_of
from local.host.routes import RouteTable
from local.host.settings import Keys
from local.host.worker import Datum, Function

WEBHOOK_PATH = "/runtime/webhooks/eventgrid"
_BODY_LIMIT = 100 * 1024 * 1024
_CLOUDS = ("eventgrid.azure.net", "eventgrid.azure.us", "eventgrid.azure.cn")

type Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Server:
    """Answers HTTP for the functions of one app."""

    def __init__(self, functions: Mapping[str, Function], routes: RouteTable, keys: Keys, runs: Invocations) -> None:
        """Take what it serves; `application` is what an aiohttp runner runs."""
        self._functions = functions
        self._routes = routes
        self._keys = keys
        self._runs = runs
        self._background: set[asyncio.Task[Any]] = set()

    def application(self, clock: Clock) -> web.Application:
        """Return the web application: the host's own addresses first, then everything else by route."""
        application = web.Application(client_max_size=_BODY_LIMIT)
        application.router.add_route("*", WEBHOOK_PATH, self._webhook)
        application.router.add_get("/admin/functions", self._only_master(self._list_functions))
        application.router.add_post("/admin/functions/{name}", self._only_master(self._invoke))
        application.router.add_get("/admin/host/status", self._only_master(self._status))
        application.router.add_post("/admin/host/clock", self._only_master(_clock_answer(clock)))
        application.router.add_route("*", "/{path:.*}", self._route)
        return application

    async def _route(self, request: web.Request) -> web.StreamResponse:
        found = self._routes.find(request.method, request.rel_url.raw_path)
        if found is None:
            return web.Response(status=404)
        function, parameters = found
        if not self._admits(request, str(function.trigger.get("authLevel", "FUNCTION")).upper()):
            return web.Response(status=401)
        result = await self._runs.run(function, await _request_payload(request, parameters))
        if result.error is not None:
            return web.Response(status=500)
        return _response(result.value)

    def _admits(self, request: web.Request, level: str) -> bool:
        if level == "ANONYMOUS":
            return True
        admitted = (self._keys.master,) if level == "ADMIN" else (self._keys.master, self._keys.function)
        return _presents(request, *admitted)

    async def _webhook(self, request: web.Request) -> web.StreamResponse:
        if not _presents(request, self._keys.eventgrid, self._keys.master):
            return web.Response(status=401)
        name = request.query.get("functionName", "")
        function = self._functions.get(name)
        if function is None or function.kind != "eventGridTrigger":
            return web.Response(status=404, text=f"cannot find function: '{name}'")
        return await self._answer_event_grid(function, request)

    async def _answer_event_grid(self, function: Function, request: web.Request) -> web.StreamResponse:
        if request.method == "OPTIONS":
            return _handshake(request.headers.get("WebHook-Request-Origin", ""))
        match request.headers.get("aeg-event-type", ""):
            case "SubscriptionValidation":
                return _validated(await request.read())
            case "Notification":
                return await self._notify(function, await request.read())
            case "Unsubscribe":
                return web.Response(status=202)
            case _:
                return web.Response(status=400)

    async def _notify(self, function: Function, body: bytes) -> web.StreamResponse:
        """Run the function for every event at once. One that fails makes Event Grid deliver all of them again."""
        document = _parsed(body)
        events = document if isinstance(document, list) else [document]
        if not all(isinstance(event, dict) for event in events):
            return web.Response(status=400, text="the body is an event or an array of events")
        results = await asyncio.gather(*(self._runs.run(function, payloads.event(event)) for event in events))
        failure = next((result.error for result in results if result.error is not None), None)
        return web.Response(status=202) if failure is None else web.Response(status=500, text=failure)

    def _only_master(self, answer: Answer) -> Answer:
        async def guarded(request: web.Request) -> web.StreamResponse:
            if not _presents(request, self._keys.master):
                return web.Response(status=401)
            return await answer(request)

        return guarded

    async def _list_functions(self, _: web.Request) -> web.StreamResponse:
        return web.json_response([{"name": each.name, "trigger": each.trigger} for each in self._functions.values()])

    async def _invoke(self, request: web.Request) -> web.StreamResponse:
        """Run a function in the background with the `input` of the body."""
        function = self._functions.get(request.match_info["name"])
        if function is None:
            return web.Response(status=404)
        if function.kind == "httpTrigger":
            return web.Response(status=400, text=f"{function.name} is called by its route")
        body = await request.read()
        document = _parsed(body) if body else {}
        if not isinstance(document, dict):
            return web.Response(status=400, text='the body is an object such as {"input": "..."}')
        payload = payloads.manual(function.kind, document.get("input", ""))
        task = asyncio.create_task(self._runs.run(function, payload))
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return web.Response(status=202)

    async def _status(self, _: web.Request) -> web.StreamResponse:
        return web.json_response(
            {"state": "Running", "running": self._runs.running, "functions": count_of(self._runs.counts)}
        )


def _clock_answer(clock: Clock) -> Answer:
    async def advance(request: web.Request) -> web.StreamResponse:
        """Move the wall clock on by the body's `advance`, in seconds; answer with the new time."""
        document = _parsed(await request.read())
        seconds = document.get("advance") if isinstance(document, dict) else None
        if not isinstance(seconds, int | float) or not math.isfinite(seconds) or seconds < 0:
            return web.Response(status=400, text='the body is {"advance": seconds}, and time only moves on')
        return web.json_response({"now": clock.advance(timedelta(seconds=seconds)).isoformat()})

    return advance


def _presents(request: web.Request, *keys: str) -> bool:
    """Whether the request carries one of `keys`; an empty key is no key."""
    presented = (request.headers.get("x-functions-key") or request.query.get("code", "")).encode()
    return any(key and hmac.compare_digest(presented, key.encode()) for key in keys)


def _handshake(origin: str) -> web.Response:
    """Answer the CloudEvents validation."""
    known = origin if origin in _CLOUDS else _CLOUDS[0]
    return web.Response(headers={"Webhook-Allowed-Origin": known})


def _validated(body: bytes) -> web.Response:
    """Answer the Event Grid validation; in an object (not an array) `data` is JSON within JSON."""
    document = _parsed(body)
    event = document[0] if isinstance(document, list) and document else document
    data = event.get("data") if isinstance(event, dict) else None
    if isinstance(data, str):
        data = _parsed(data.encode())
    code = data.get("validationCode") if isinstance(data, dict) else None
    if code is None:
        return web.Response(status=400, text="there is no validationCode")
    return web.json_response({"validationResponse": code})


def _parsed(body: bytes) -> Any:
    """Return the JSON document, or None if it is none."""
    try:
        return json.loads(body)
    except ValueError:
        return None


async def _request_payload(request: web.Request, parameters: Mapping[str, str]) -> payloads.Payload:
    """A request as the worker gets it: a parameter that is empty stands in the URL alone.

    Source: Azure/azure-functions-host, GrpcMessageConversionExtensions (ToRpcHttp).
    """
    return payloads.request(
        method=request.method,
        url=str(request.url),
        headers={name.lower(): ",".join(request.headers.getall(name)) for name in request.headers},
        query={name: value for name in request.query if (value := ",".join(request.query.getall(name)))},
        route=parameters,
        body=await request.read(),
    )


def _response(value: Datum | None) -> web.Response:
    if value is None:
        return web.Response(status=204)
    if value.type != "http":
        return web.Response(text=str(value.value))
    answer = value.value
    response = web.Response(status=int(answer["status_code"].value), body=answer["body"].value)
    for name, text in answer["headers"].items():
        response.headers[name] = text.value
    for jar in answer["cookies"] or ():
        for cookie in jar.values():
            response.headers.add("Set-Cookie", cookie.OutputString())
    return response
