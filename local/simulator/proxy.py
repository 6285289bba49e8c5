"""An HTTPS proxy for which every host is the same one: CONNECT leads to one TLS server, whatever name was asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

CHUNK = 1 << 18
ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"
NOT_A_TUNNEL = b"HTTP/1.1 501 Not Implemented\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Proxy:
    """Splices each tunnel to `target_port` on loopback. Broken off on one side, it breaks off on the other.

    A host that does not resolve gets no tunnel: the connection ends, and an asynchronous client of the SDK raises what
    it raises for a failed lookup (ServiceRequestError); a synchronous one takes it for a lost reply.
    """

    def __init__(self, target_port: int, resolves: Callable[[str], bool]) -> None:
        self._target_port = target_port
        self._resolves = resolves
        self._tunnels: set[asyncio.Task[None]] = set()

    async def start(self) -> asyncio.Server:
        """Listen on an assigned port of 127.0.0.1."""
        return await asyncio.start_server(self._open, "127.0.0.1", 0)

    async def close(self) -> None:
        """Break off every tunnel."""
        for tunnel in self._tunnels:
            tunnel.cancel()
        await asyncio.gather(*self._tunnels, return_exceptions=True)

    def _open(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tunnel = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tunnels.add(tunnel)
        tunnel.add_done_callback(self._tunnels.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"CONNECT "):
                writer.write(NOT_A_TUNNEL)
                await writer.drain()
                return
            if self._resolves(_host(head)):
                await self._splice(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            return
        finally:
            writer.close()

    async def _splice(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        target_reader, target_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
        try:
            writer.write(ESTABLISHED)
            # TLS ends a direction only with the whole connection: the first end of either side is the end of both.
            directions = (_pump(reader, target_writer), _pump(target_reader, writer))
            tasks = [asyncio.ensure_future(direction) for direction in directions]
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            target_writer.close()


def _host(head: bytes) -> str:
    """The host of `CONNECT host:port HTTP/1.1`."""
    return head.split(b" ", 2)[1].rpartition(b":")[0].decode("ascii", "replace")


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while chunk := await reader.read(CHUNK):
            writer.write(chunk)
            await writer.drain()
