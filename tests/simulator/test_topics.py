"""Publishing to Event Grid topics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import requests
from azure.core.exceptions import ClientAuthenticationError, ServiceRequestError
from azure.core.messaging import CloudEvent
from azure.eventgrid import EventGridEvent, EventGridPublisherClient
from azure.eventgrid.aio import EventGridPublisherClient as AsyncEventGridPublisherClient
from azure.identity import ManagedIdentityCredential
from azure.identity.aio import ManagedIdentityCredential as AsyncManagedIdentityCredential

from local.simulator.eventgrid import Schema
from tests.simulator.clients import refusal

if TYPE_CHECKING:
    from local.simulator import Azure

EVENT = {"specversion": "1.0", "id": "1", "source": "/enforcer", "type": "Cluster.Enforced", "data": {"name": "aks-1"}}


def publish(endpoint: str, event: CloudEvent[Any] | EventGridEvent) -> None:
    with (
        ManagedIdentityCredential() as credential,
        EventGridPublisherClient(endpoint, credential, retry_total=0) as client,
    ):
        client.send(event)


def post(
    azure: Azure, endpoint: str, events: Any, kind: str = "application/cloudevents-batch+json", **headers: str
) -> requests.Response:
    token, _ = azure.identity.token("https://eventgrid.azure.net")
    sent = {"Authorization": f"Bearer {token}", "Content-Type": kind} | headers
    return requests.post(f"{endpoint}?api-version=2018-01-01", json=events, headers=sent, timeout=60)


async def test_cloud_events_are_kept_as_they_were_sent(azure: Azure) -> None:
    endpoint = azure.eventgrid.add_topic("egt-kms")
    event = CloudEvent(source="/enforcer", type="Cluster.Enforced", data={"cluster": "aks-1"}, subject="aks-1")

    async with (
        AsyncManagedIdentityCredential() as credential,
        AsyncEventGridPublisherClient(endpoint, credential, retry_total=0) as client,
    ):
        await client.send([event, CloudEvent(source="/enforcer", type="Key.AtRisk")])

    first, second = azure.eventgrid.published
    assert endpoint == "https://egt-kms.westeurope-1.eventgrid.azure.net/api/events"
    assert (first.topic, first.schema) == ("egt-kms", Schema.CLOUD_EVENTS)
    assert first.publisher == azure.identity.default.object_id
    assert first.payload["id"] == event.id
    assert first.payload["data"] == {"cluster": "aks-1"}
    assert second.payload["type"] == "Key.AtRisk"


def test_events_of_event_grids_own_schema_are_kept_too(azure: Azure) -> None:
    endpoint = azure.eventgrid.add_topic("egt-kms", "northeurope-1")

    publish(endpoint, EventGridEvent(subject="aks-1", event_type="Cluster.Enforced", data={}, data_version="1"))

    [published] = azure.eventgrid.published
    assert published.schema is Schema.EVENT_GRID
    assert published.payload["eventType"] == "Cluster.Enforced"


async def test_a_topic_that_is_not_there_is_never_reached(azure: Azure) -> None:
    azure.eventgrid.add_topic("egt-kms")
    nowhere = "https://egt-none.westeurope-1.eventgrid.azure.net/api/events"

    async with (
        AsyncManagedIdentityCredential() as credential,
        AsyncEventGridPublisherClient(nowhere, credential, retry_total=0) as client,
    ):
        with pytest.raises(ServiceRequestError):
            await client.send(CloudEvent(source="/enforcer", type="Test"))

    assert azure.eventgrid.published == []


def test_a_publisher_without_the_role_is_refused(azure: Azure) -> None:
    endpoint = azure.eventgrid.add_topic("egt-kms")
    azure.eventgrid.topics.sender_required = True
    topic = azure.eventgrid.topics.at("egt-kms.westeurope-1.eventgrid.azure.net")
    assert topic is not None

    with pytest.raises(ClientAuthenticationError, match="does not have permission to send data to"):
        publish(endpoint, CloudEvent(source="/enforcer", type="Test"))
    azure.access.assign(azure.identity.default.object_id, "EventGrid Data Sender", topic.id)
    publish(endpoint, CloudEvent(source="/enforcer", type="Test"))

    assert len(azure.eventgrid.published) == 1


def test_a_publisher_without_a_token_for_event_grid_is_refused(azure: Azure) -> None:
    endpoint = azure.eventgrid.add_topic("egt-kms")
    token, _ = azure.identity.token("https://management.azure.com")

    response = post(azure, endpoint, [EVENT], Authorization=f"Bearer {token}")

    assert refusal(response)[:2] == (401, "Unauthorized")


@pytest.mark.parametrize(
    ("events", "kind"),
    [
        pytest.param([EVENT, {"id": "2"}], "application/cloudevents-batch+json", id="one-of-two-is-broken"),
        pytest.param(EVENT, "application/cloudevents-batch+json", id="no-array"),
        pytest.param([EVENT], "application/json", id="a-cloud-event-as-the-other-schema"),
        pytest.param(["text"], "application/json", id="no-object"),
    ],
)
def test_a_broken_batch_is_refused_as_a_whole(azure: Azure, events: Any, kind: str) -> None:
    endpoint = azure.eventgrid.add_topic("egt-kms")

    response = post(azure, endpoint, events, kind)

    assert refusal(response)[:2] == (400, "BadRequest")
    assert azure.eventgrid.published == []


def test_a_single_cloud_event_is_taken(azure: Azure) -> None:
    endpoint = azure.eventgrid.add_topic("egt-kms")

    response = post(azure, endpoint, EVENT, "application/cloudevents+json; charset=utf-8")

    assert (response.status_code, response.content) == (200, b"")
    assert [published.payload for published in azure.eventgrid.published] == [EVENT]


def test_a_topic_of_one_schema_refuses_the_other(azure: Azure) -> None:
    endpoint = azure.eventgrid.add_topic("egt-kms", schema=Schema.EVENT_GRID)

    response = post(azure, endpoint, [EVENT])

    assert refusal(response)[:2] == (400, "BadRequest")
