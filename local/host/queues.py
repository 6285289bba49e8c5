"""Storage queues: what a queue trigger receives, what an output binding sends.

Source: Functions docs, functions-bindings-storage-queue; WebJobs SDK, QueueListener and QueueProcessor.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import logging
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from azure.core.exceptions import AzureError, ResourceExistsError, ResourceNotFoundError
from azure.identity.aio import ManagedIdentityCredential
from azure.storage.queue import QueueMessage
from azure.storage.queue.aio import QueueClient, QueueServiceClient

from local.host import payloads
from local.host.errors import HostError
from local.host.invocations import Invocations
from local.host.settings import QueueSettings, resolve
from local.host.worker import Binding, Datum, Function

POISON_SUFFIX = "-poison"
FIRST_INTERVAL = timedelta(milliseconds=100)
_DEFAULT_CONNECTION = "AzureWebJobsStorage"

# By default a storage client sleeps 15 s and more before a retry; the listener polls again anyway.
_RETRY: dict[str, Any] = {"retry_total": 2, "initial_backoff": 1, "increment_base": 1}

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Queues:
    """The queue services that the bindings name, one client each, made when first asked for."""

    _services: dict[str, QueueServiceClient] = field(default_factory=dict)
    _credentials: dict[str, ManagedIdentityCredential] = field(default_factory=dict)

    def queue(self, binding: Binding, *, of: str, suffix: str = "") -> QueueClient:
        """Return the queue that a binding of function `of` names, plus `suffix`. HostError if a setting is missing."""
        connection = resolve(binding.get("connection") or _DEFAULT_CONNECTION, of=of)
        if connection not in self._services:
            self._services[connection] = self._connect(connection, of)
        return self._services[connection].get_queue_client(resolve(binding["queueName"], of=of) + suffix)

    async def close(self) -> None:
        """Close every client and credential."""
        for service in self._services.values():
            await service.close()
        for credential in self._credentials.values():
            await credential.close()

    def _connect(self, name: str, of: str) -> QueueServiceClient:
        for prefix in (f"AzureWebJobs{name}", name):  # the order in which the real host looks
            if uri := os.environ.get(f"{prefix}__queueServiceUri"):
                return QueueServiceClient(uri, credential=self._credential(prefix), **_RETRY)
            if connection_string := os.environ.get(prefix):
                return QueueServiceClient.from_connection_string(connection_string, **_RETRY)
        raise HostError(f"{of} uses the connection {name}, but neither {name}__queueServiceUri nor {name} is set")

    def _credential(self, prefix: str) -> ManagedIdentityCredential:
        client_id = os.environ.get(f"{prefix}__clientId", "")
        if client_id not in self._credentials:
            self._credentials[client_id] = ManagedIdentityCredential(client_id=client_id or None)
        return self._credentials[client_id]


async def create(queue: QueueClient) -> None:
    """Make the queue unless it exists."""
    try:
        await queue.create_queue()
    except ResourceExistsError:
        return


async def send_output(queue: QueueClient, datum: Datum, *, as_base64: bool) -> None:
    """Send what an output binding holds, a list message by message; the queue is made if it is missing."""
    for content in _contents(datum):
        await _send(queue, _encoded(content, as_base64=as_base64))


async def _send(queue: QueueClient, text: str) -> None:
    try:
        await queue.send_message(text)
    except ResourceNotFoundError:
        await create(queue)
        await queue.send_message(text)


def _contents(datum: Datum) -> list[str | bytes]:
    if datum.type in {"string", "bytes"}:
        return [datum.value]
    document = json.loads(datum.value)
    items = document if isinstance(document, list) else [document]
    return [item if isinstance(item, str) else json.dumps(item) for item in items]


def _encoded(content: str | bytes, *, as_base64: bool) -> str:
    raw = content.encode() if isinstance(content, str) else content
    return base64.b64encode(raw).decode() if as_base64 else raw.decode()


def _decoded(text: str, *, as_base64: bool) -> bytes | None:
    """Return the message's body, or None if it is not base64 where it should be."""
    if not as_base64:
        return text.encode()
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None


class Listener:
    """Polls one queue and runs one function for each of its messages."""

    def __init__(self, function: Function, queues: Queues, settings: QueueSettings, runs: Invocations) -> None:
        """Find the function's queue. HostError if a setting is missing; `start` begins to poll."""
        self.queue = queues.queue(function.trigger, of=function.name)
        self._poison_queue: QueueClient | None = None  # a poison queue has none of its own
        if not self.queue.queue_name.endswith(POISON_SUFFIX):
            self._poison_queue = queues.queue(function.trigger, of=function.name, suffix=POISON_SUFFIX)
        self._function = function
        self._settings = settings
        self._runs = runs
        self._stopping = False
        self._wake = asyncio.Event()
        self._in_flight: set[asyncio.Task[None]] = set()
        self._polling: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to poll."""
        self._polling = asyncio.create_task(self._poll())

    def notice(self) -> None:
        """Look soon: something happened that may have put a message into the queue or made room for one."""
        self._wake.set()

    async def stop(self) -> None:
        """Take no more messages. Those in flight go on; `drain` waits for them."""
        # Not by cancelling: a message received but not yet seen would stay invisible for its whole time.
        self._stopping = True
        self._wake.set()
        if self._polling is not None:
            await self._polling

    async def drain(self, within: timedelta) -> None:
        """Wait for the messages in flight to be settled, at most for `within`."""
        if self._in_flight:
            await asyncio.wait(self._in_flight, timeout=within.total_seconds())

    async def _poll(self) -> None:
        interval = FIRST_INTERVAL
        while not self._stopping:
            if len(self._in_flight) > self._settings.new_batch_threshold:
                await self._woken()
                continue
            polled = time.monotonic()
            if await self._take_batch():
                interval = FIRST_INTERVAL
                continue
            interval = await self._pause(interval, polled)

    async def _woken(self) -> None:
        await self._wake.wait()
        self._wake.clear()

    async def _pause(self, interval: timedelta, polled: float) -> timedelta:
        """Wait before the next poll of an empty queue and return the interval after that."""
        try:
            await asyncio.wait_for(self._woken(), interval.total_seconds())
        except TimeoutError:
            return min(interval * 2, self._settings.max_polling_interval)
        # Woken, but by one invocation of many: poll no oftener than every 100 ms.
        rest = FIRST_INTERVAL.total_seconds() - (time.monotonic() - polled)
        if rest > 0 and not self._stopping:
            await asyncio.sleep(rest)
        return FIRST_INTERVAL

    async def _take_batch(self) -> bool:
        """Receive one batch and start its messages. Was there any?"""
        pages = self.queue.receive_messages(
            messages_per_page=self._settings.batch_size,
            max_messages=self._settings.batch_size,
            visibility_timeout=int(self._settings.invisibility.total_seconds()),
        )
        try:
            received = [message async for message in pages]
        except AzureError as error:
            _log.warning("queue %s can't be read: %s", self.queue.queue_name, _first_line(error))
            return False
        for message in received:
            task = asyncio.create_task(self._settle(message))
            self._in_flight.add(task)
            task.add_done_callback(self._settled)
        return bool(received)

    def _settled(self, task: asyncio.Task[None]) -> None:
        self._in_flight.discard(task)
        self._wake.set()

    async def _settle(self, message: QueueMessage) -> None:
        """Run the function for one message, then delete it, give it back, or put it among the poison."""
        try:
            await self._run(message)
        except AzureError as error:
            _log.warning(
                "message %s of queue %s could not be settled and comes back: %s",
                message.id,
                self.queue.queue_name,
                _first_line(error),
            )

    async def _run(self, message: QueueMessage) -> None:
        body = _decoded(message.content, as_base64=self._settings.base64)
        count = int(message.dequeue_count or 0)
        if body is None:
            await self._poison(message, "it is not base64, which host.json's messageEncoding asks for")
            return
        if count > self._settings.max_dequeue_count:
            await self._poison(message, f"it was received {count} times")
            return
        async with self._kept_invisible(message):
            result = await self._runs.run(self._function, _payload(message, body))
        if result.error is None:
            await self.queue.delete_message(message)
        elif self._poison_queue is None or count >= self._settings.max_dequeue_count:
            await self._poison(message, f"it failed, received {count} times")
        else:
            delay = int(self._settings.retry_delay.total_seconds())
            await self.queue.update_message(message, visibility_timeout=delay)

    @asynccontextmanager
    async def _kept_invisible(self, message: QueueMessage) -> AsyncIterator[None]:
        """Renew the message's invisibility at half time; its pop receipt changes with every renewal."""
        done = asyncio.Event()
        renewing = asyncio.create_task(self._renew(message, done))
        try:
            yield
        finally:
            # Not by cancelling: a renewal on its way would change the receipt behind our back.
            done.set()
            await renewing

    async def _renew(self, message: QueueMessage, done: asyncio.Event) -> None:
        invisibility = self._settings.invisibility.total_seconds()
        while not done.is_set():
            try:
                await asyncio.wait_for(done.wait(), invisibility / 2)
            except TimeoutError:
                await self._renew_once(message, int(invisibility))

    async def _renew_once(self, message: QueueMessage, seconds: int) -> None:
        try:
            renewed = await self.queue.update_message(message, visibility_timeout=seconds)
        except AzureError as error:
            _log.warning("message %s could not be kept invisible: %s", message.id, _first_line(error))
        else:
            message.pop_receipt = renewed.pop_receipt
            _log.info("message %s is kept invisible for another %s s", message.id, seconds)

    async def _poison(self, message: QueueMessage, why: str) -> None:
        """Move a message as it is to the poison queue: sent there first, so that a crash between loses nothing.

        In a poison queue it stays where it is, invisible for its time, which keeps it from failing in a fast loop.
        """
        if self._poison_queue is None:
            _log.error("message %s of %s stays invisible for now: %s", message.id, self.queue.queue_name, why)
            return
        _log.error("message %s goes to %s: %s", message.id, self._poison_queue.queue_name, why)
        await _send(self._poison_queue, message.content)
        await self.queue.delete_message(message)
        self._runs.announce()


def _payload(message: QueueMessage, body: bytes) -> payloads.Payload:
    return payloads.message(
        body,
        id=message.id,
        dequeue_count=int(message.dequeue_count or 0),
        pop_receipt=message.pop_receipt or "",
        inserted=message.inserted_on,
        expires=message.expires_on,
        next_visible=message.next_visible_on,
    )


def _first_line(error: AzureError) -> str:
    return str(error).partition("\n")[0]
