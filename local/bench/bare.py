"""`python -m local.bench.bare list SUBSCRIPTION | get CLUSTER TIMES`: what the SDK alone takes, in seconds, as JSON.

In a process of its own, as the app is. Who asks has a token and a connection before the clock starts.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

from azure.core.pipeline.transport import AioHttpTransport
from azure.identity.aio import ManagedIdentityCredential
from azure.mgmt.containerservice.aio import ContainerServiceClient


async def _list(subscription: str) -> dict[str, float]:
    """List the clusters of a subscription, page by page, and do nothing with them but count."""
    async with ManagedIdentityCredential() as credential, AioHttpTransport() as transport:
        clusters = ContainerServiceClient(credential, subscription, transport=transport).managed_clusters
        await anext(clusters.list().by_page())
        began = time.monotonic()
        count = 0
        async for _ in clusters.list():
            count += 1
        return {"seconds": time.monotonic() - began, "clusters": count}


async def _get(cluster: str, times: int) -> list[float]:
    """Read one cluster so many times, one after another."""
    _, _, subscription, _, group, *_, name = cluster.split("/")
    async with ManagedIdentityCredential() as credential, AioHttpTransport() as transport:
        clusters = ContainerServiceClient(credential, subscription, transport=transport).managed_clusters
        await clusters.get(group, name)
        seconds = []
        for _ in range(times):
            began = time.monotonic()
            await clusters.get(group, name)
            seconds.append(time.monotonic() - began)
        return seconds


if __name__ == "__main__":
    what, subject, *more = sys.argv[1:]
    print(json.dumps(asyncio.run(_list(subject) if what == "list" else _get(subject, int(more[0])))))
