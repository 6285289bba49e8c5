"""Event Grid topics: where programs publish events of their own, and what was published.

POST https://{topic}.{region}.eventgrid.azure.net/api/events, by token; neither access keys nor signatures are known.
Sources: Event Grid docs, post-to-custom-topic, authenticate-with-microsoft-entra-id, cloud-event-schema; for what a
principal without the role is told, azure-sdk-for-net issue 22831.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from local.simulator.errors import ServiceError
from local.simulator.eventgrid import Schema
from local.simulator.identity import Caller, Identity
from local.simulator.subscriptions import SUBSCRIPTION
from local.simulator.wire import Json, Reply, Request, route

if TYPE_CHECKING:
    from threading import Condition

    from local.simulator.access import Access
    from local.simulator.clock import Clock

HOST_SUFFIX = ".eventgrid.azure.net"
AUDIENCES = ("https://eventgrid.azure.net", "https://eventgrid.azure.net/")
SEND = "Microsoft.EventGrid/events/send/action"

CLOUD_EVENTS_BATCH = "application/cloudevents-batch+json"
CLOUD_EVENT = "application/cloudevents+json"

# What an event must have. Sources: CloudEvents spec 1.0; Event Grid docs, event-schema.
REQUIRED: Mapping[Schema, tuple[str, ...]] = {
    Schema.CLOUD_EVENTS: ("id", "source", "type", "specversion"),
    Schema.EVENT_GRID: ("id", "subject", "eventType", "eventTime", "dataVersion"),
}


def authenticate(identity: Identity, request: Request) -> Caller:
    """Who publishes; 401 without a token for Event Grid."""
    caller = identity.caller(request.headers.get("authorization"), AUDIENCES)
    if caller is None:
        raise ServiceError(401, "Unauthorized", "The request authorization token is missing or is not valid.")
    return caller


def publish(topics: Topics, request: Request) -> Reply:
    """Take events, all or none of them; 200 without a body."""
    topic = topics.at(request.host)
    if topic is None:
        raise LookupError(f"no topic has the host {request.host}")
    caller = request.caller or Caller({})
    topics.check_sender(topic, caller)
    schema, events = _events(request)
    if topic.schema not in (None, schema):
        raise ServiceError(400, "BadRequest", f"This resource is configured to receive events in {topic.schema}.")
    for event in events:
        _check(event, schema)
    topics.take(topic, schema, events, caller)
    return Reply(200)


@dataclass(frozen=True, slots=True)
class Topic:
    """One custom topic. `schema`: the only form it takes; None: either."""

    id: str
    name: str
    region: str  # with the number that its address has, such as westeurope-1
    schema: Schema | None = None

    @property
    def host(self) -> str:
        return f"{self.name}.{self.region}{HOST_SUFFIX}".lower()

    @property
    def endpoint(self) -> str:
        """What a client is given."""
        return f"https://{self.host}/api/events"


@dataclass(frozen=True, slots=True)
class Published:
    """One event that a topic took, as it was sent."""

    at: datetime
    topic: str  # its name
    schema: Schema
    payload: Json
    publisher: str  # an object id


class Topics:
    """The custom topics, and everything they took. Safe from any thread.

    `sender_required`: only who has the data action of EventGrid Data Sender on a topic may publish to it.
    """

    def __init__(self, clock: Clock, access: Access, changed: Condition) -> None:
        self.sender_required = False
        self.published: list[Published] = []
        self._topics: dict[str, Topic] = {}
        self._clock = clock
        self._access = access
        self._changed = changed

    def add(
        self,
        name: str,
        region: str = "westeurope-1",
        *,
        subscription: str = SUBSCRIPTION,
        group: str = "rg-events",
        schema: Schema | None = None,
    ) -> Topic:
        """A topic that exists."""
        scope = f"/subscriptions/{subscription}/resourceGroups/{group}"
        topic = Topic(f"{scope}/providers/Microsoft.EventGrid/topics/{name}", name, region, schema)
        with self._changed:
            self._topics[topic.host] = topic
        return topic

    def at(self, host: str) -> Topic | None:
        """The topic with this host name, if there is one."""
        with self._changed:
            return self._topics.get(host.lower())

    def check_sender(self, topic: Topic, caller: Caller) -> None:
        """Refuse who may not send. It is a 401, not a 403."""
        if not self.sender_required or self._access.may(caller.object_id, SEND, topic.id):
            return
        text = (
            "The principal associated with access token presented with the incoming request does not have permission "
            f"to send data to {topic.id}."
        )
        raise ServiceError(401, "Unauthorized", text)

    def take(self, topic: Topic, schema: Schema, events: list[Json], caller: Caller) -> None:
        """Keep what was published."""
        with self._changed:
            now = self._clock.now()
            self.published += [Published(now, topic.name, schema, event, caller.object_id) for event in events]
            self._changed.notify_all()


def _events(request: Request) -> tuple[Schema, list[Any]]:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == CLOUD_EVENT:
        return Schema.CLOUD_EVENTS, [request.body]
    if not isinstance(request.body, list):
        raise ServiceError(400, "BadRequest", "The body must be an array of events.")
    return Schema.CLOUD_EVENTS if kind == CLOUD_EVENTS_BATCH else Schema.EVENT_GRID, request.body


def _check(event: Any, schema: Schema) -> None:
    missing = [name for name in REQUIRED[schema] if not isinstance(event, dict) or not event.get(name)]
    if missing:
        raise ServiceError(400, "BadRequest", f"The event lacks {', '.join(missing)}.")


ROUTES = (route("POST", "/api/events", publish),)
