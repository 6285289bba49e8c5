"""The simulated Azure on the wire: an HTTPS proxy, the TLS server behind it, and the managed identity endpoint."""

from __future__ import annotations

import asyncio
import json
import secrets
import ssl
from concurrent.futures import Future
from threading import Thread
from typing import TYPE_CHECKING, Any

import aiohttp
from aiohttp import web

from local.simulator.azure import Azure
from local.simulator.courier import HttpCourier
from local.simulator.identity import get_token
from local.simulator.journal import MANAGEMENT_HOST
from local.simulator.proxy import Proxy
from local.simulator.wire import Reply, Request

if TYPE_CHECKING:
    from local.certificates import Authority
    from local.simulator.faults import Fault

TOKEN_PATH = "/msi/token"  # noqa: S105 - a path, not a secret
DROPPED = 0
START_WITHIN = 30.0


class Simulator:
    """Serves one `Azure` at a time from a thread of its own, on assigned ports of 127.0.0.1.

    `azure` may be replaced at any time: what the former one had planned or under way is dropped.
    """

    def __init__(self, authority: Authority, azure: Azure | None = None) -> None:
        self._authority = authority
        self._azure = azure or Azure()
        self._secret = secrets.token_hex(16)
        self._contexts: dict[str, ssl.SSLContext] = {}
        self._thread: Thread | None = None
        self._courier: HttpCourier | None = None
        self._ports: tuple[int, int] | None = None  # the proxy's and the token endpoint's

    @property
    def azure(self) -> Azure:
        return self._azure

    @azure.setter
    def azure(self, azure: Azure) -> None:
        if self._thread is not None:
            asyncio.run_coroutine_threadsafe(self._adopt(azure), self._loop).result(START_WITHIN)
        self._azure = azure

    @property
    def proxy_url(self) -> str:
        return f"http://127.0.0.1:{self._required_ports()[0]}"

    def environment(self) -> dict[str, str]:
        """What a process needs to take the simulated Azure for the real one. It must be spawned with it."""
        proxy, identity = self._required_ports()
        return {
            "HTTPS_PROXY": f"http://127.0.0.1:{proxy}",
            "SSL_CERT_FILE": str(self._authority.ca_file),
            "REQUESTS_CA_BUNDLE": str(self._authority.ca_file),
            "NO_PROXY": "127.0.0.1,localhost",
            "IDENTITY_ENDPOINT": f"http://127.0.0.1:{identity}{TOKEN_PATH}",
            "IDENTITY_HEADER": self._secret,
        }

    def start(self) -> Simulator:
        """Listen; ready when this returns. The thread ends with the process."""
        ready: Future[tuple[int, int]] = Future()
        self._thread = Thread(target=self._run, args=(ready,), name="simulated-azure", daemon=True)
        self._thread.start()
        self._ports = ready.result(START_WITHIN)
        return self

    def stop(self) -> None:
        """Close every connection and end the thread."""
        if self._thread is None:
            return
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(START_WITHIN)
        self._thread = self._ports = None

    def _run(self, ready: Future[tuple[int, int]]) -> None:
        try:
            asyncio.run(self._serve(ready))
        except BaseException as error:
            if ready.done():
                raise
            ready.set_exception(error)

    async def _serve(self, ready: Future[tuple[int, int]]) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        self._clock_moved = asyncio.Event()
        services = web.Server(self._answer_service, access_log=None)
        identity = web.Server(self._answer_identity, access_log=None)
        tls_listener = await self._loop.create_server(services, "127.0.0.1", 0, ssl=self._tls())
        identity_listener = await self._loop.create_server(identity, "127.0.0.1", 0)
        proxy = Proxy(_port(tls_listener), self._resolves)
        proxy_listener = await proxy.start()
        async with aiohttp.ClientSession() as self._http:
            await self._adopt(self._azure)
            timekeeper = self._loop.create_task(self._keep_time())
            ready.set_result((_port(proxy_listener), _port(identity_listener)))
            await self._stopping.wait()
            timekeeper.cancel()
            await self._let_go()
        for listener in (proxy_listener, identity_listener, tls_listener):
            listener.close()
        await proxy.close()
        await services.shutdown(0)
        await identity.shutdown(0)

    async def _adopt(self, azure: Azure) -> None:
        """Let go of the former Azure, take up the new one."""
        await self._let_go()
        self._azure = azure
        self._courier = HttpCourier(azure, self._loop, self._http)
        azure.eventgrid.courier = self._courier
        azure.clock.on_change = self._wake
        self._clock_moved.set()

    async def _let_go(self) -> None:
        self._azure.clock.on_change = None
        self._azure.eventgrid.courier = None
        if self._courier is not None:
            await self._courier.close()

    def _resolves(self, host: str) -> bool:
        return self._azure.resolves(host)

    def _wake(self) -> None:
        self._loop.call_soon_threadsafe(self._clock_moved.set)

    async def _keep_time(self) -> None:
        """Run what is due when it is due, though nobody calls."""
        while True:
            self._clock_moved.clear()
            self._azure.clock.run_due()
            try:
                async with asyncio.timeout(self._azure.clock.seconds_to_next()):
                    await self._clock_moved.wait()
            except TimeoutError:
                continue

    async def _answer_service(self, http: web.BaseRequest) -> web.StreamResponse:
        azure = self._azure
        request = await _request(http)
        if not azure.resolves(request.host):
            azure.record(request, DROPPED)
            return _response(http, None)  # over a connection from before it went away
        fault = azure.faults.take(request.method, request.path)
        reply = azure.answer(request) if fault is None else await _meet(fault, azure, request)
        if request.host == MANAGEMENT_HOST:
            await asyncio.sleep(azure.latency.total_seconds())
        return _response(http, reply)

    async def _answer_identity(self, http: web.BaseRequest) -> web.StreamResponse:
        azure = self._azure
        request = await _request(http)
        if request.method != "GET" or request.path != TOKEN_PATH:
            return _response(http, azure.answer(request))
        reply = get_token(azure.identity, request, self._secret)
        azure.record(request, reply.status)
        return _response(http, reply)

    def _tls(self) -> ssl.SSLContext:
        context = self._context("localhost")
        context.sni_callback = self._choose
        return context

    def _choose(self, connection: ssl.SSLObject, host: str | None, _context: ssl.SSLContext) -> None:
        if host is not None:
            connection.context = self._context(host)

    def _context(self, host: str) -> ssl.SSLContext:
        if host not in self._contexts:
            files = self._authority.issue(host)
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(files.cert_file, files.key_file)
            self._contexts[host] = context
        return self._contexts[host]

    def _required_ports(self) -> tuple[int, int]:
        if self._ports is None:
            raise RuntimeError("the simulator is not started")
        return self._ports


async def _request(http: web.BaseRequest) -> Request:
    return Request(
        method=http.method,
        host=http.host,
        path=http.path,
        query={name.lower(): value for name, value in http.query.items()},
        headers={name.lower(): value for name, value in http.headers.items()},
        body=_parsed(await http.text()),
    )


def _parsed(text: str) -> Any:
    if not text:
        return None
    try:
        return json.loads(text)
    except ValueError:
        return text


async def _meet(fault: Fault, azure: Azure, request: Request) -> Reply | None:
    """Let a fault happen to a call. None: no reply."""
    if fault.error is not None:
        azure.record(request, fault.error.status)
        return fault.error.reply()
    if fault.accepted:
        azure.answer(request)
    else:
        azure.record(request, DROPPED)
    if fault.callback is not None:
        await asyncio.to_thread(fault.callback)
    return None


def _response(http: web.BaseRequest, reply: Reply | None) -> web.Response:
    if reply is None:
        if http.transport is not None:
            http.transport.abort()
        return web.Response()  # goes nowhere
    return web.Response(
        status=reply.status,
        body=reply.rendered(),
        headers=reply.headers,
        content_type="application/json",
        charset="utf-8",
    )


def _port(listener: asyncio.Server) -> int:
    return int(listener.sockets[0].getsockname()[1])
