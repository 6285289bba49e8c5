"""Every message that the app sends, at once or later. Messages are plain JSON and never expire."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from azure.storage.queue.aio import QueueClient, QueueServiceClient

from shared.calls import translated
from shared.events import ClusterRequest, KeyRequest, ShardRequest, VaultRequest

CLUSTERS, KEYS, SHARDS = "clusters", "keys", "shards"
QUEUES = (CLUSTERS, KEYS, SHARDS)
POISON = tuple(f"{name}-poison" for name in QUEUES)
"""Where the Functions host puts what failed too often. Source: Azure Functions docs, storage queue trigger."""

LONGEST_DELAY = timedelta(hours=1)
"""A wait that lasts longer is a row, looked at again by then."""


class Queues:
    """The app's own queues. Errors are those of `shared.errors`."""

    def __init__(self, service: QueueServiceClient) -> None:
        self._queues: dict[str, QueueClient] = {name: service.get_queue_client(name) for name in (*QUEUES, *POISON)}

    async def ask_for_cluster(self, request: ClusterRequest, *, after: timedelta = timedelta()) -> None:
        """Ask for a look at a cluster, at once or after a while."""
        await self._send(CLUSTERS, request.encode(), after)

    async def ask_for_key(self, request: KeyRequest | VaultRequest, *, after: timedelta = timedelta()) -> None:
        """Ask for a look at a key, or at a vault's keys, at once or after a while."""
        await self._send(KEYS, request.encode(), after)

    async def ask_for_shard(self, request: ShardRequest, *, after: timedelta = timedelta()) -> None:
        """Ask for the sweep of one subscription, at once or after a while."""
        await self._send(SHARDS, request.encode(), after)

    async def lengths(self) -> dict[str, int]:
        """Return about how many messages each queue and its poison twin hold, those that are delayed too."""
        return dict(zip(self._queues, await asyncio.gather(*map(self._length, self._queues)), strict=True))

    async def _length(self, queue: str) -> int:
        with translated():
            properties = await self._queues[queue].get_queue_properties()
        return properties.approximate_message_count or 0

    async def _send(self, queue: str, text: str, after: timedelta) -> None:
        delay = max(timedelta(), min(after, LONGEST_DELAY))
        with translated(writing=True):
            await self._queues[queue].send_message(text, visibility_timeout=int(delay.total_seconds()), time_to_live=-1)
