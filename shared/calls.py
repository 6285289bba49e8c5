"""What every adapter shares of calling a service: how patient it is, and what its errors become.

The SDKs sleep through any Retry-After, on 4xx too. Here no worker sleeps: a longer wait becomes an error that says
when to come back, and the message comes back then.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from typing import Any
from urllib.parse import urlsplit

from azure.core.credentials_async import AsyncTokenCredential
from azure.core.exceptions import AzureError, HttpResponseError
from azure.core.pipeline import PipelineRequest, PipelineResponse
from azure.core.pipeline.policies import AsyncRetryPolicy, SansIOHTTPPolicy
from azure.core.pipeline.transport import AsyncHttpTransport
from azure.core.rest import HttpRequest

from shared.errors import Conflict, Missing, Refused, ServiceError, Throttled, Unavailable, Unreadable

PATIENCE = timedelta(seconds=5)
"""The longest Retry-After that is slept through."""

ONE_TRY: dict[str, Any] = {"retry_total": 0, "connection_timeout": 5, "read_timeout": 14}
"""Of a write of a prerequisite, and of the reads right before and after it; seconds. Three of them together are under
the look-again interval: by then a claimed write has arrived or never will.
"""

_ABSENT = frozenset(
    {
        *("ResourceNotFound", "ResourceGroupNotFound", "ParentResourceNotFound"),
        *("NotFound", "VaultNotFound", "KeyNotFound"),
    }
)
"""Codes of a 404 that say: it does not exist. A subscription that is not found may only be out of sight."""

_UNKNOWN_RETRY = timedelta(seconds=60)

_ARM_HOST = "management.azure.com"


async def some_at_once[T, R](ask: Callable[[T], Awaitable[R]], items: Iterable[T], limit: int) -> list[R]:
    """Ask of each item, so many at the same time; return the answers in the order of the items.

    If one fails, the others still end, and then the first failure is raised: nothing goes on unseen.
    """
    slots = asyncio.Semaphore(limit)

    async def one(item: T) -> R:
        async with slots:
            return await ask(item)

    ends = await asyncio.gather(*map(one, items), return_exceptions=True)
    failed = next((end for end in ends if isinstance(end, BaseException)), None)
    if failed is not None:
        raise failed
    return [end for end in ends if not isinstance(end, BaseException)]


class ImpatientRetry(AsyncRetryPolicy[Any, Any]):
    """azure-core's retry policy, except that it gives up at once when the service asks for a long wait."""

    def increment(self, settings: dict[str, Any], response: Any = None, error: Exception | None = None) -> bool:
        """Count an attempt; False ends the attempts and hands the answer to the caller."""
        try:
            asked = self.get_retry_after(response) if isinstance(response, PipelineResponse) else None
        except ValueError:  # a time that can't be read
            return False
        if asked is not None and asked > PATIENCE.total_seconds():
            return False
        return super().increment(settings, response=response, error=error)


@contextmanager
def translated(*, writing: bool = False) -> Iterator[None]:
    """Turn the SDKs' errors into ours. `writing` says whether the call may have changed something."""
    try:
        yield
    except HttpResponseError as error:
        raise _ours(error, writing=writing) from error
    except AzureError as error:
        raise Unavailable(type(error).__name__, str(error)) from error


class OnlyArm(SansIOHTTPPolicy[Any, Any]):
    """Lets a client speak to Azure Resource Manager and nobody else, for whom its token is not.

    A list's answer says where its next page is, and the SDKs go there. Unreadable if it is elsewhere.
    """

    def on_request(self, request: PipelineRequest[Any]) -> None:
        """Refuse a call before it gets a token."""
        link = request.http_request.url
        if not _is_arm(link):
            raise Unreadable("ForeignLink", f"no address of Azure Resource Manager: {link[:100]!r}")


def arm_clients[Client](
    kind: Callable[..., Client], credential: AsyncTokenCredential, transport: AsyncHttpTransport[Any, Any]
) -> Callable[[str], Client]:
    """Return what gives the one client of an SDK for a subscription; all share one transport and so its connections."""

    @cache
    def client(subscription: str) -> Client:
        return kind(
            credential,
            subscription,
            transport=transport,
            retry_policy=ImpatientRetry(),
            per_call_policies=[OnlyArm()],
        )

    return client


async def read_json(client: Any, link: str) -> dict[str, Any]:
    """Read a JSON object from Azure Resource Manager, by an address of ours or one that an answer gave."""
    try:
        with translated():
            response = await client.send_request(HttpRequest("GET", link))
            response.raise_for_status()
        body = response.json()
    except ValueError as error:
        raise Unavailable("InvalidJson", "an answer that is no JSON") from error
    if not isinstance(body, dict):
        raise Unavailable("InvalidJson", "an answer that is no JSON object")
    return body


async def read_pages(client: Any, link: str) -> AsyncGenerator[list[dict[str, Any]]]:
    """Read a list of Azure Resource Manager, page by page. A page without its rows is no empty one: Unavailable."""
    following: str | None = link
    while following:
        body = await read_json(client, following)
        if not isinstance(body.get("value"), list):
            raise Unavailable("InvalidJson", "a page of a list without its rows")
        yield body["value"]
        following = body.get("nextLink")


async def ahead[T](items: AsyncGenerator[T]) -> AsyncGenerator[T]:
    """Yield each of these; the next is asked for before one is handed out. They are closed, read to the end or not."""
    asked = asyncio.ensure_future(_next(items))
    try:
        while found := await asked:
            asked = asyncio.ensure_future(_next(items))
            await asyncio.sleep(0)  # the request leaves before this one is worked on
            yield found[0]
    finally:
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)  # how it ended is nobody's business any more
        await items.aclose()


async def _next[T](items: AsyncGenerator[T]) -> tuple[T] | None:
    async for item in items:
        return (item,)
    return None


def _is_arm(link: str) -> bool:
    try:
        parts = urlsplit(link)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return False
    return parts.scheme == "https" and port in {None, 443} and f".{host}".endswith(f".{_ARM_HOST}")


def _ours(error: HttpResponseError, *, writing: bool) -> ServiceError:
    status = error.status_code
    detail = getattr(error, "error", None)
    code, text = _code(error), getattr(detail, "message", None) or error.message or ""
    if status is None or status == 408:
        return Unavailable(code, text)
    wait = _retry_after(error)
    if status == 429 or (status == 503 and wait is not None):
        return Throttled(code, text, wait if wait is not None else _UNKNOWN_RETRY)
    if status >= 500:
        return Unavailable(code, text)
    if not writing:
        return Missing(code, text) if status == 404 and code in _ABSENT else Unreadable(code, text)
    if status == 412 or (status == 409 and code != "ScopeLocked"):
        return Conflict(code, text)
    return Refused(code, text)


def _code(error: HttpResponseError) -> str:
    detail = getattr(error, "error", None)
    code = getattr(detail, "code", None) or getattr(error, "error_code", None) or f"HTTP {error.status_code}"
    return str(code)[:100]


def _retry_after(error: HttpResponseError) -> timedelta | None:
    header = getattr(error.response, "headers", {}).get("Retry-After")
    if header is None:
        return None
    try:
        return timedelta(seconds=ImpatientRetry().parse_retry_after(header))
    except (TypeError, ValueError, OverflowError):
        return None
