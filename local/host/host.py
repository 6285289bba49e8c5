"""One app, served: what its functions listen to, from the first look at it to the end of its last invocation."""

from __future__ import annotations

import asyncio
import inspect
import logging
import sys
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Self

from aiohttp import web
from azure.core.exceptions import AzureError

from local.host.clock import Clock
from local.host.errors import HostError
from local.host.invocations import Invocations, Send
from local.host.queues import Listener, Queues, create, send_output
from local.host.routes import RouteTable
from local.host.server import Server
from local.host.settings import HostSettings
from local.host.timers import Timer
from local.host.worker import Datum, Function, Worker

ADDRESS = "127.0.0.1"
DRAIN = timedelta(seconds=10)
_TRIGGERS = frozenset({"httpTrigger", "eventGridTrigger", "queueTrigger", "timerTrigger"})
_OUTPUTS = frozenset({"http", "queue"})
_CLOSING_MODULE = "shared.bootstrap"

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Host:
    """An app whose triggers run between `start` and `stop`."""

    settings: HostSettings
    worker: Worker
    clock: Clock
    queues: Queues
    runs: Invocations
    listeners: list[Listener]
    timers: list[Timer]
    runner: web.AppRunner

    @classmethod
    async def load(cls, app: Path, settings: HostSettings) -> Self:
        """Index the app and check everything that it names. HostError says what is wrong; nothing runs yet."""
        worker = await Worker.load(app)
        for function in worker.functions:
            _check_bindings(function)
        clock = Clock()
        if settings.clock_offset:
            clock.advance(settings.clock_offset)
        queues = Queues()
        runs = Invocations(worker, _sender(queues, settings), settings.function_timeout)
        functions = {function.name: function for function in worker.functions}
        server = Server(functions, RouteTable.of(worker.functions, settings.route_prefix), settings.keys, runs)
        return cls(
            settings=settings,
            worker=worker,
            clock=clock,
            queues=queues,
            runs=runs,
            listeners=[
                Listener(function, queues, settings.queues, runs) for function in _of_kind(worker, "queueTrigger")
            ],
            timers=[Timer(function, clock, runs) for function in _of_kind(worker, "timerTrigger")],
            runner=web.AppRunner(server.application(clock), access_log=None, shutdown_timeout=DRAIN.total_seconds()),
        )

    async def start(self, port: int) -> int:
        """Create missing queues, listen, run all triggers, and return the port (0 asked for: a free one)."""
        await self._create_queues()
        await self.runner.setup()
        try:
            await web.TCPSite(self.runner, ADDRESS, port).start()
        except OSError as error:
            raise HostError(f"port {port} can't be used: {error.strerror}") from error
        self.runs.finished.extend(listener.notice for listener in self.listeners)
        for listener in self.listeners:
            listener.start()
        for timer in self.timers:
            timer.start()
        return int(self.runner.addresses[0][1])

    async def stop(self) -> None:
        """Take no more work, finish what runs (at most 10 s), let the app close its clients, and close ours."""
        _log.info("stopping: no more work is taken")
        await asyncio.gather(*(timer.stop() for timer in self.timers))
        await asyncio.gather(*(listener.stop() for listener in self.listeners))
        messages = (listener.drain(DRAIN) for listener in self.listeners)
        await asyncio.gather(self.runner.cleanup(), self.runs.drain(DRAIN), *messages)
        await _close_app()
        await self.close()

    async def close(self) -> None:
        """Close the host's own clients and threads."""
        await self.runner.cleanup()
        await self.queues.close()
        self.worker.close()

    async def _create_queues(self) -> None:
        try:
            await asyncio.gather(*(create(listener.queue) for listener in self.listeners))
        except AzureError as error:
            raise HostError(f"the queues can't be created: {error}") from error


def _of_kind(worker: Worker, kind: str) -> list[Function]:
    return [function for function in worker.functions if function.kind == kind]


def _check_bindings(function: Function) -> None:
    """Refuse what this host does not serve, rather than leave it out in silence."""
    if function.kind not in _TRIGGERS:
        raise HostError(f"{function.name}: this host does not serve {function.kind}")
    for name, binding in function.outputs.items():
        if binding["type"] not in _OUTPUTS:
            raise HostError(f"{function.name}: this host does not serve the output {name} of type {binding['type']}")


def _sender(queues: Queues, settings: HostSettings) -> Send:
    async def send(function: Function, name: str, datum: Datum) -> None:
        binding = function.outputs[name]
        if binding["type"] == "queue":
            await send_output(queues.queue(binding, of=function.name), datum, as_base64=settings.queues.base64)

    return send


async def _close_app() -> None:
    """Let the app close its clients: production has no such moment, the process just ends there."""
    close = getattr(sys.modules.get(_CLOSING_MODULE), "close", None)
    if close is None:
        return
    try:
        closed = close()
        if inspect.isawaitable(closed):
            await closed
    except Exception:  # the app's own affair; the host still closes what is its own
        _log.exception("the app could not close its clients")
