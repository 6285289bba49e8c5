"""Carries Event Grid's calls to the subscribers, in the simulator's event loop."""

from __future__ import annotations

import asyncio
import uuid
from typing import TYPE_CHECKING

import aiohttp

from local.simulator.clock import timestamp
from local.simulator.eventgrid import NO_ANSWER, Delivery, EventSubscription, HandshakeError, Schema
from local.simulator.wire import rendered

if TYPE_CHECKING:
    from collections.abc import Sequence

    from local.simulator.azure import Azure

ANSWER_WITHIN = aiohttp.ClientTimeout(total=30)  # Source: Event Grid docs, delivery-and-retry
ORIGIN = "eventgrid.azure.net"


class HttpCourier:
    """Posts the deliveries of one Azure. Each batch is one task: its deliveries keep their order."""

    def __init__(self, azure: Azure, loop: asyncio.AbstractEventLoop, http: aiohttp.ClientSession) -> None:
        self._azure = azure
        self._loop = loop
        self._http = http
        self._tasks: set[asyncio.Task[None]] = set()

    def shake_hands(self, subscription: EventSubscription) -> None:
        """Validate the endpoint, blocking; HandshakeError when it does not answer as it must."""
        asyncio.run_coroutine_threadsafe(self._shake_hands(subscription), self._loop).result()

    def carry(self, deliveries: Sequence[Delivery]) -> None:
        """Post these, one after the other. Safe from any thread."""
        self._loop.call_soon_threadsafe(self._start, list(deliveries))

    async def close(self) -> None:
        """Drop what is under way."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _start(self, deliveries: list[Delivery]) -> None:
        task = self._loop.create_task(self._post_all(deliveries))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _post_all(self, deliveries: list[Delivery]) -> None:
        for delivery in deliveries:
            self._azure.eventgrid.settle(delivery, await self._post(delivery))

    async def _post(self, delivery: Delivery) -> int:
        subscription = delivery.subscription
        headers = _headers("Notification", subscription) | {"aeg-delivery-count": str(delivery.attempts)}
        is_cloud_event = subscription.schema is Schema.CLOUD_EVENTS
        content = delivery.payload if is_cloud_event else [delivery.payload]
        try:
            async with self._http.post(
                subscription.endpoint_url, data=rendered(content), headers=headers, timeout=ANSWER_WITHIN
            ) as answer:
                await answer.read()
                return answer.status
        except (aiohttp.ClientError, TimeoutError):
            return NO_ANSWER

    async def _shake_hands(self, subscription: EventSubscription) -> None:
        try:
            if subscription.schema is Schema.CLOUD_EVENTS:
                await self._ask_permission(subscription)
            else:
                await self._send_validation(subscription)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise HandshakeError(f"no answer from the endpoint: {type(error).__name__}") from error

    async def _ask_permission(self, subscription: EventSubscription) -> None:
        """Source: CloudEvents spec, HTTP 1.1 Web Hooks for Event Delivery, abuse protection."""
        headers = {"WebHook-Request-Origin": ORIGIN}
        async with self._http.options(subscription.endpoint_url, headers=headers, timeout=ANSWER_WITHIN) as answer:
            allowed = answer.headers.get("WebHook-Allowed-Origin")
            if answer.status != 200 or allowed not in (ORIGIN, "*"):
                raise HandshakeError(f"OPTIONS answered {answer.status}, WebHook-Allowed-Origin {allowed!r}")

    async def _send_validation(self, subscription: EventSubscription) -> None:
        """Source: Event Grid docs, end-point-validation-event-grid-events-schema."""
        code = str(uuid.uuid4()).upper()
        event = {
            "id": str(uuid.uuid4()),
            "topic": subscription.source_id,
            "subject": "",
            "data": {
                "validationCode": code,
                "validationUrl": f"https://rp-westeurope.eventgrid.azure.net/eventsubscriptions/x/validate?id={code}",
            },
            "eventType": "Microsoft.EventGrid.SubscriptionValidationEvent",
            "eventTime": timestamp(self._azure.clock.now()),
            "metadataVersion": "1",
            "dataVersion": "2",
        }
        headers = _headers("SubscriptionValidation", subscription)
        async with self._http.post(
            subscription.endpoint_url, data=rendered([event]), headers=headers, timeout=ANSWER_WITHIN
        ) as answer:
            echoed = await _validation_response(answer)
            if answer.status != 200 or echoed != code:
                raise HandshakeError(f"validation answered {answer.status} without the code")


def _headers(event_type: str, subscription: EventSubscription) -> dict[str, str]:
    is_cloud_event = subscription.schema is Schema.CLOUD_EVENTS and event_type == "Notification"
    kind = "application/cloudevents+json" if is_cloud_event else "application/json"
    return {
        "Content-Type": f"{kind}; charset=utf-8",
        "aeg-event-type": event_type,
        "aeg-subscription-name": subscription.name.upper(),
    }


async def _validation_response(answer: aiohttp.ClientResponse) -> str | None:
    try:
        body = await answer.json(content_type=None)
    except ValueError:
        return None
    return body.get("validationResponse") if isinstance(body, dict) else None
