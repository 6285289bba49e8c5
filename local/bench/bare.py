"""`python -m local.bench.bare list SUBSCRIPTION | get CLUSTER TIMES`: what the calls alone take, in seconds, as JSON.

In a process of its own, as the app is, with the SDK's pipeline (token, retry, connections) but not its models: nothing
is done with an answer but to parse it as JSON. There are a token and a connection before the clock starts.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from azure.core.pipeline.transport import AioHttpTransport
from azure.core.rest import HttpRequest
from azure.identity.aio import ManagedIdentityCredential
from azure.mgmt.containerservice.aio import ContainerServiceClient

ARM = "https://management.azure.com"
TYPE, VERSION = "providers/Microsoft.ContainerService/managedClusters", "api-version=2026-08-01"


@asynccontextmanager
async def _client() -> AsyncIterator[ContainerServiceClient]:
    async with ManagedIdentityCredential() as credential, AioHttpTransport() as transport:
        yield ContainerServiceClient(credential, "", transport=transport)


async def _fetch(client: ContainerServiceClient, link: str) -> dict[str, Any]:
    response = await client.send_request(HttpRequest("GET", link))
    response.raise_for_status()
    body: dict[str, Any] = response.json()
    return body


async def _list(subscription: str) -> dict[str, float]:
    """List the clusters of a subscription, page by page, and do nothing with them but count."""
    first = f"{ARM}/subscriptions/{subscription}/{TYPE}?{VERSION}"
    async with _client() as client:
        await _fetch(client, first)
        began, count, link = time.monotonic(), 0, first
        while link:
            page = await _fetch(client, link)
            count += len(page["value"])
            link = page.get("nextLink") or ""
        return {"seconds": time.monotonic() - began, "clusters": count}


async def _get(cluster: str, times: int) -> list[float]:
    """Read one cluster so many times, one after another."""
    async with _client() as client:
        await _fetch(client, f"{ARM}{cluster}?{VERSION}")
        seconds = []
        for _ in range(times):
            began = time.monotonic()
            await _fetch(client, f"{ARM}{cluster}?{VERSION}")
            seconds.append(time.monotonic() - began)
        return seconds


if __name__ == "__main__":
    what, subject, *more = sys.argv[1:]
    print(json.dumps(asyncio.run(_list(subject) if what == "list" else _get(subject, int(more[0])))))
