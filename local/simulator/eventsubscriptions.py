"""Who is told of what, as ARM shows it: system topics, and the event subscriptions of each. Nothing is written here.

Sources: Azure REST reference, Event Grid, System Topics - List By Subscription, System Topic Event Subscriptions - List
By System Topic, Event Subscriptions - List By Resource.
"""

from __future__ import annotations

from hashlib import sha256
from urllib.parse import parse_qs, urlsplit

from local.simulator.eventgrid import EventGrid, EventSubscription
from local.simulator.wire import Json, Reply, Request, route

PROVIDER = "Microsoft.EventGrid"
GROUP = "rg-events"
SITE = "Microsoft.Web/sites/func-enforcer"
TOPICS_PATH = f"/subscriptions/{{subscription}}/providers/{PROVIDER}/systemTopics"
OF_TOPIC_PATH = (
    f"/subscriptions/{{subscription}}/resourceGroups/{{group}}/providers/{PROVIDER}/systemTopics/{{topic}}"
    "/eventSubscriptions"
)
OF_VAULT_PATH = (
    "/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.KeyVault/vaults/{vault}"
    f"/providers/{PROVIDER}/eventSubscriptions"
)


def list_topics(eventgrid: EventGrid, request: Request) -> Reply:
    """System Topics - List By Subscription: one for each source in it that somebody listens to."""
    sources = {one.source_id.lower(): one.source_id for one in eventgrid.subscriptions}
    mine = [source for key, source in sources.items() if key.split("/")[2] == request["subscription"].lower()]
    return Reply(200, {"value": [_topic(source) for source in mine]})


def list_of_topic(eventgrid: EventGrid, request: Request) -> Reply:
    """System Topic Event Subscriptions - List By System Topic."""
    mine = [one for one in eventgrid.subscriptions if _name(one.source_id) == request["topic"]]
    return Reply(200, {"value": [_document(one) for one in mine]})


def list_of_vault(_eventgrid: EventGrid, _request: Request) -> Reply:
    """Event Subscriptions - List By Resource: those made on the vault itself, without a topic of their own."""
    return Reply(200, {"value": []})


def _name(source: str) -> str:
    return f"topic-{sha256(source.lower().encode()).hexdigest()[:8]}"


def _topic(source: str) -> Json:
    _, _, subscription, *within = source.split("/")
    group = within[1] if len(within) > 1 else GROUP
    kind = "Microsoft.KeyVault.vaults" if "/vaults/" in source.lower() else "Microsoft.Resources.Subscriptions"
    name = _name(source)
    return {
        "id": f"/subscriptions/{subscription}/resourceGroups/{group}/providers/{PROVIDER}/systemTopics/{name}",
        "name": name,
        "type": f"{PROVIDER}/systemTopics",
        "properties": {"source": source, "topicType": kind, "provisioningState": "Succeeded"},
    }


def _document(subscription: EventSubscription) -> Json:
    """An event subscription whose endpoint is a function. The endpoint's address names which."""
    function = parse_qs(urlsplit(subscription.endpoint_url).query).get("functionName", ["unknown"])[0]
    types = subscription.event_types
    return {
        "name": subscription.name,
        "type": f"{PROVIDER}/systemTopics/eventSubscriptions",
        "properties": {
            "provisioningState": "Succeeded",
            "destination": {
                "endpointType": "AzureFunction",
                "properties": {
                    "resourceId": f"/subscriptions/s/resourceGroups/rg/providers/{SITE}/functions/{function}"
                },
            },
            "filter": {"includedEventTypes": sorted(types) if types is not None else None},
        },
    }


ROUTES = (
    route("GET", TOPICS_PATH, list_topics, f"{PROVIDER}/systemTopics/read", filtered=True),
    route("GET", OF_TOPIC_PATH, list_of_topic, f"{PROVIDER}/systemTopics/eventSubscriptions/read"),
    route("GET", OF_VAULT_PATH, list_of_vault, f"{PROVIDER}/eventSubscriptions/read"),
)
