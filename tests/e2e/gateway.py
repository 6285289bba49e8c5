"""A TLS reverse proxy before one storage service, in which a test lets something happen between two calls."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Thread
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import aiohttp
from aiohttp import web
from yarl import URL

if TYPE_CHECKING:
    from local.certificates import Authority

HOST = "127.0.0.1"
HOP_BY_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length", "date", "server", "host"})
START_WITHIN = 10.0


@dataclass(slots=True)
class Gateway:
    """Passes every call on as it is, but for what was ordered. `uri` stands for the service's own."""

    upstream: str
    port: int = 0
    _orders: list[tuple[str, re.Pattern[str], Callable[[], bool]]] = field(default_factory=list)

    @property
    def uri(self) -> str:
        """The service's address, by way of the gateway."""
        return f"https://{HOST}:{self.port}{urlsplit(self.upstream).path}"

    def call_at(self, methods: str, path: str, callback: Callable[[], bool]) -> None:
        """Ask `callback` before each call that matches both expressions; when it answers True the call is dropped."""
        self._orders.append((methods, re.compile(path), callback))

    def forget(self) -> None:
        """Forget what was ordered."""
        self._orders.clear()

    def drops(self, method: str, path: str) -> bool:
        """Whether a call is to end without an answer and without being passed on."""
        for methods, pattern, ask in self._orders:
            if re.fullmatch(methods, method) and pattern.search(path) and ask():
                return True
        return False


@contextmanager
def gateway_to(upstream: str, authority: Authority) -> Iterator[Gateway]:
    """Open a gateway before the service at `upstream`, in a thread of its own."""
    gateway = Gateway(upstream)
    ready: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()
    thread = Thread(target=lambda: asyncio.run(_serve(gateway, authority, ready)), name="gateway", daemon=True)
    thread.start()
    loop, closing = ready.result(START_WITHIN)
    try:
        yield gateway
    finally:
        loop.call_soon_threadsafe(closing.set)
        thread.join(START_WITHIN)


async def _serve(
    gateway: Gateway, authority: Authority, ready: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]]
) -> None:
    closing = asyncio.Event()
    async with aiohttp.ClientSession(auto_decompress=False) as http:

        async def answer(request: web.BaseRequest) -> web.StreamResponse:
            return await _answer(gateway, http, request)

        server = web.Server(answer, access_log=None)
        loop = asyncio.get_running_loop()
        listener = await loop.create_server(server, HOST, 0, ssl=_tls(authority))
        gateway.port = listener.sockets[0].getsockname()[1]
        ready.set_result((loop, closing))
        await closing.wait()
        listener.close()
        await server.shutdown(0)


async def _answer(gateway: Gateway, http: aiohttp.ClientSession, request: web.BaseRequest) -> web.StreamResponse:
    body = await request.read()
    if await asyncio.to_thread(gateway.drops, request.method, request.path):
        if request.transport is not None:
            request.transport.abort()
        return web.Response()  # goes nowhere
    url = URL(f"https://{urlsplit(gateway.upstream).netloc}{request.raw_path}", encoded=True)
    headers = {name: value for name, value in request.headers.items() if name.lower() not in HOP_BY_HOP}
    async with http.request(request.method, url, data=body, headers=headers, allow_redirects=False) as answer:
        passed = {name: value for name, value in answer.headers.items() if name.lower() not in HOP_BY_HOP}
        return web.Response(status=answer.status, body=await answer.read(), headers=passed)


def _tls(authority: Authority) -> ssl.SSLContext:
    files = authority.issue(HOST)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.cert_file, files.key_file)
    return context
