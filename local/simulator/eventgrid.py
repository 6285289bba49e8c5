"""Event Grid, the part that calls in: subscriptions, the handshake, deliveries, retries, dead letters.

Topics, the part that is called, have a room of their own and are reached from here.

Sources: Event Grid docs, delivery-and-retry, end-point-validation-event-grid-events-schema, cloud-event-schema,
event-schema-subscriptions, event-schema-key-vault.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Literal, Protocol

from local.simulator.clock import timestamp

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from threading import Condition

    from local.simulator.clock import Clock
    from local.simulator.topics import Published, Topics
    from local.simulator.wire import Json

RETRY_AFTER = (
    timedelta(seconds=10),
    timedelta(seconds=30),
    timedelta(minutes=1),
    timedelta(minutes=5),
    timedelta(minutes=10),
    timedelta(minutes=30),
    timedelta(hours=1),
    timedelta(hours=3),
    timedelta(hours=6),
)
RETRY_AFTER_THAT = timedelta(hours=12)
MOST_ATTEMPTS = 30
TIME_TO_LIVE = timedelta(hours=24)
NEVER_RETRIED = frozenset({400, 401, 403, 413})
NO_ANSWER = 0


class Schema(StrEnum):
    """The form in which a subscription wants its events."""

    EVENT_GRID = "EventGridSchema"
    CLOUD_EVENTS = "CloudEventSchemaV1_0"


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened. `sources`: the ids of whoever announces it, e.g. the subscription and the group."""

    sources: tuple[str, ...]
    subject: str
    type: str
    at: datetime
    data: Json
    data_version: str = "1"
    id: str = field(default_factory=lambda: str(uuid.uuid4()))

    def rendered(self, topic: str, schema: Schema) -> Json:
        """The event as a subscriber receives it."""
        if schema is Schema.CLOUD_EVENTS:
            return {
                "specversion": "1.0",
                "id": self.id,
                "source": topic,
                "subject": self.subject,
                "type": self.type,
                "time": timestamp(self.at),
                "data": self.data,
            }
        return {
            "id": self.id,
            "topic": topic,
            "subject": self.subject,
            "eventType": self.type,
            "eventTime": timestamp(self.at),
            "data": self.data,
            "dataVersion": self.data_version,
            "metadataVersion": "1",
        }


@dataclass(frozen=True, slots=True)
class EventSubscription:
    """Who wants which events, and where. None: all of them."""

    source_id: str
    endpoint_url: str
    schema: Schema
    event_types: frozenset[str] | None
    operation_names: frozenset[str] | None  # lower-case
    name: str

    def topic_of(self, event: Event) -> str | None:
        """The source under which this subscription gets the event, None when it does not."""
        if self.event_types is not None and event.type not in self.event_types:
            return None
        operation = str(event.data.get("operationName", "")).lower()
        if self.operation_names is not None and operation not in self.operation_names:
            return None
        return next((source for source in event.sources if source.lower() == self.source_id.lower()), None)


@dataclass(slots=True)
class Delivery:
    """One event on its way to one subscriber. `statuses`: the answers so far, 0 for none."""

    subscription: EventSubscription
    payload: Json
    published: datetime
    due: datetime
    statuses: list[int] = field(default_factory=list)
    repeated: bool = False
    in_flight: bool = False
    dead_letter_reason: str | None = None

    @property
    def attempts(self) -> int:
        return len(self.statuses)


class HandshakeError(Exception):
    """The endpoint did not prove that it wants the events."""


class Courier(Protocol):
    """Whoever makes the HTTP calls; it tells what came of each by `EventGrid.settle`."""

    def shake_hands(self, subscription: EventSubscription) -> None:
        """Validate the endpoint, blocking; HandshakeError when it does not answer as it must."""

    def carry(self, deliveries: Sequence[Delivery]) -> None:
        """Post these, one after the other, without blocking the caller."""


class EventGrid:
    """The hub between what happens in the simulated Azure and who listens. Safe from any thread.

    `delay` holds every new event back, on the simulated clock; `deliver_twice` sends what was taken once more.
    """

    def __init__(self, clock: Clock, topics: Topics, changed: Condition) -> None:
        self.topics = topics
        self.deliver_twice = False
        self.delay = timedelta(0)
        self.courier: Courier | None = None
        self.subscriptions: list[EventSubscription] = []
        self.delivered: list[Delivery] = []
        self.dead_letters: list[Delivery] = []
        self.pending: list[Delivery] = []
        self._clock = clock
        self._changed = changed
        self._held: list[Delivery] | None = None

    @property
    def published(self) -> list[Published]:
        """What programs published to topics, in order."""
        return self.topics.published

    def add_topic(self, name: str, region: str = "westeurope-1", *, schema: Schema | None = None) -> str:
        """A topic that exists; the endpoint to publish to. It takes one `schema`, or either."""
        return self.topics.add(name, region, schema=schema).endpoint

    def subscribe(
        self,
        source_id: str,
        endpoint_url: str,
        *,
        schema: Schema | Literal["EventGridSchema", "CloudEventSchemaV1_0"] = Schema.EVENT_GRID,
        event_types: Collection[str] | None = None,
        operation_names: Collection[str] | None = None,
    ) -> EventSubscription:
        """Validate the endpoint, then deliver to it what `source_id` announces from now on.

        Blocks until the endpoint has answered: an endpoint in the caller's own event loop needs `asyncio.to_thread`.
        """
        subscription = EventSubscription(
            source_id,
            endpoint_url,
            Schema(schema),
            None if event_types is None else frozenset(event_types),
            None if operation_names is None else frozenset(name.lower() for name in operation_names),
            f"subscription-{len(self.subscriptions) + 1}",
        )
        self._required_courier().shake_hands(subscription)
        with self._changed:
            self.subscriptions.append(subscription)
        return subscription

    def publish(self, event: Event) -> None:
        """Send an event to each subscription that wants it."""
        with self._changed:
            for subscription in self.subscriptions:
                topic = subscription.topic_of(event)
                if topic is not None:
                    self._plan(subscription, event.rendered(topic, subscription.schema))

    def hold(self) -> None:
        """Keep back what becomes due until `release`."""
        with self._changed:
            self._clock.run_due()
            self._held = self._held or []

    def release(self, *, reverse: bool = False) -> None:
        """Deliver what was held back, one after the other, the newest first when `reverse`."""
        with self._changed:
            self._clock.run_due()
            held, self._held = self._held or [], None
            if held:
                self._send(held[::-1] if reverse else held)

    def settle(self, delivery: Delivery, status: int) -> None:
        """Note the endpoint's answer (0: none) and decide what comes next."""
        with self._changed:
            delivery.in_flight = False
            delivery.statuses.append(status)
            if 200 <= status <= 204:
                self._taken(delivery)
            else:
                self._refused(delivery, status)
            self._changed.notify_all()

    def wait_idle(self, deadline: float = 60.0) -> None:
        """Block until nothing is under way or due; what is planned for later stays in `pending`. Else TimeoutError."""
        with self._changed:
            if not self._changed.wait_for(self._is_idle, timeout=deadline):
                raise TimeoutError(f"{len(self.pending)} deliveries still under way after {deadline} s")

    def _is_idle(self) -> bool:
        return not any(delivery.in_flight or delivery.due <= self._clock.now() for delivery in self.pending)

    def _plan(self, subscription: EventSubscription, payload: Json) -> None:
        now = self._clock.now()
        delivery = Delivery(subscription, payload, now, now + self.delay)
        self.pending.append(delivery)
        self._send_when_due(delivery)

    def _send_when_due(self, delivery: Delivery) -> None:
        self._clock.at(delivery.due, lambda _when: self._dispatch(delivery))

    def _dispatch(self, delivery: Delivery) -> None:
        if self._held is not None:
            self._held.append(delivery)
            return
        self._send([delivery])

    def _send(self, deliveries: list[Delivery]) -> None:
        for delivery in deliveries:
            delivery.in_flight = True
        self._required_courier().carry(deliveries)

    def _taken(self, delivery: Delivery) -> None:
        self.delivered.append(delivery)
        if self.deliver_twice and not delivery.repeated:
            delivery.repeated = True
            self._send([delivery])
            return
        self.pending.remove(delivery)

    def _refused(self, delivery: Delivery, status: int) -> None:
        if status in NEVER_RETRIED:
            self._bury(delivery, "UndeliverableDueToClientError")
            return
        if delivery.attempts >= MOST_ATTEMPTS:
            self._bury(delivery, "MaxDeliveryAttemptsExceeded")
            return
        nth = delivery.attempts - 1
        delivery.due = self._clock.now() + (RETRY_AFTER[nth] if nth < len(RETRY_AFTER) else RETRY_AFTER_THAT)
        if delivery.due > delivery.published + TIME_TO_LIVE:
            self._bury(delivery, "TimeToLiveExceeded")
            return
        self._send_when_due(delivery)

    def _bury(self, delivery: Delivery, reason: str) -> None:
        delivery.dead_letter_reason = reason
        self.pending.remove(delivery)
        self.dead_letters.append(delivery)

    def _required_courier(self) -> Courier:
        if self.courier is None:
            raise RuntimeError("Event Grid delivers only while a Simulator serves this Azure")
        return self.courier
