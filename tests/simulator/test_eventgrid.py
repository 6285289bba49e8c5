"""Event Grid calling in: handshakes, both schemas, retries, dead letters, order."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from local.simulator import SUBSCRIPTION, Azure
from local.simulator.activity import PERSONAL_DATA
from local.simulator.eventgrid import HandshakeError
from tests.simulator.clients import ENABLED, Arm, Endpoint, cluster_path

if TYPE_CHECKING:
    from local.simulator import Simulator

SOURCE = f"/subscriptions/{SUBSCRIPTION}"
CLUSTER_WRITE = "Microsoft.ContainerService/managedClusters/write"
WRITE_SUCCESS = "Microsoft.Resources.ResourceWriteSuccess"


def test_a_subscription_begins_with_a_validation(azure: Azure, endpoint: Endpoint) -> None:
    azure.eventgrid.subscribe(SOURCE, endpoint.url)

    [handshake] = endpoint.received
    [event] = handshake.body
    assert handshake.headers["aeg-event-type"] == "SubscriptionValidation"
    assert event["eventType"] == "Microsoft.EventGrid.SubscriptionValidationEvent"
    assert event["topic"] == SOURCE
    assert set(event["data"]) == {"validationCode", "validationUrl"}


def test_a_cloud_events_subscription_begins_with_options(azure: Azure, endpoint: Endpoint) -> None:
    azure.eventgrid.subscribe(SOURCE, endpoint.url, schema="CloudEventSchemaV1_0")

    [handshake] = endpoint.received
    assert handshake.method == "OPTIONS"
    assert handshake.headers["webhook-request-origin"] == "eventgrid.azure.net"


@pytest.mark.parametrize("schema", ["EventGridSchema", "CloudEventSchemaV1_0"])
def test_an_endpoint_that_does_not_shake_hands_gets_nothing(azure: Azure, endpoint: Endpoint, schema: Any) -> None:
    endpoint.shakes_hands = False

    with pytest.raises(HandshakeError):
        azure.eventgrid.subscribe(SOURCE, endpoint.url, schema=schema)

    assert azure.eventgrid.subscriptions == []


def test_an_endpoint_that_is_not_there_fails_the_handshake(azure: Azure) -> None:
    closed = Endpoint()
    closed.close()

    with pytest.raises(HandshakeError):
        azure.eventgrid.subscribe(SOURCE, closed.url)


def test_a_write_is_told_at_acceptance_and_at_the_end(azure: Azure, arm: Arm, endpoint: Endpoint) -> None:
    cluster = azure.aks.add("aks-1")
    azure.eventgrid.subscribe(SOURCE, endpoint.url, event_types=[WRITE_SUCCESS], operation_names=[CLUSTER_WRITE])

    arm.put_profile("aks-1", ENABLED)
    azure.clock.advance(azure.aks.update_duration)
    azure.eventgrid.wait_idle()

    [accepted], [ended] = endpoint.notifications
    data = accepted["data"]
    assert accepted["subject"] == cluster.id
    assert (accepted["topic"], accepted["eventType"], accepted["dataVersion"]) == (SOURCE, WRITE_SUCCESS, "2")
    assert data["operationName"] == CLUSTER_WRITE
    assert data["claims"]["appid"] == azure.identity.default.client_id
    assert data["httpRequest"]["method"] == "PUT"
    assert data["correlationId"] == ended["data"]["correlationId"]
    assert accepted["id"] != ended["id"]


def test_a_creation_carries_no_request_and_somebodys_data(azure: Azure, endpoint: Endpoint) -> None:
    azure.eventgrid.subscribe(SOURCE, endpoint.url)

    azure.aks.create("aks-1")
    azure.eventgrid.wait_idle()

    [[event]] = endpoint.notifications
    text = json.dumps(event)
    assert "httpRequest" not in event["data"]
    assert all(item in text for item in PERSONAL_DATA)


def test_a_deletion_is_told(azure: Azure, endpoint: Endpoint) -> None:
    cluster = azure.aks.add("aks-1")
    azure.eventgrid.subscribe(f"{SOURCE}/resourceGroups/rg-apps", endpoint.url)

    azure.aks.delete(cluster.id)
    azure.eventgrid.wait_idle()

    [[event]] = endpoint.notifications
    assert event["eventType"] == "Microsoft.Resources.ResourceDeleteSuccess"
    assert event["topic"] == f"{SOURCE}/resourceGroups/rg-apps"


def test_a_cloud_event_comes_alone_and_says_so(azure: Azure, endpoint: Endpoint) -> None:
    cluster = azure.aks.add("aks-1")
    azure.eventgrid.subscribe(SOURCE, endpoint.url, schema="CloudEventSchemaV1_0")

    azure.aks.change(cluster.id, lambda document: document["tags"].update(by="somebody"), duration=timedelta(hours=1))
    azure.eventgrid.wait_idle()

    [event] = endpoint.notifications
    assert endpoint.received[-1].headers["content-type"].startswith("application/cloudevents+json")
    assert (event["specversion"], event["source"], event["type"]) == ("1.0", SOURCE, WRITE_SUCCESS)
    assert not {"topic", "eventType", "dataVersion", "metadataVersion"} & set(event)


def test_what_a_subscription_does_not_ask_for_does_not_come(azure: Azure, endpoint: Endpoint) -> None:
    vault = azure.keyvault.add_vault("kv-kms")
    azure.keyvault.add_key(vault, "etcd")
    azure.eventgrid.subscribe(SOURCE, endpoint.url, operation_names=["Microsoft.KeyVault/vaults/write"])

    azure.aks.create("aks-1")
    azure.keyvault.rotate(vault, "etcd")
    azure.eventgrid.wait_idle()

    assert endpoint.notifications == []


def test_a_rotation_has_the_quirks_of_the_documented_sample(azure: Azure, endpoint: Endpoint) -> None:
    vault = azure.keyvault.add_vault("kv-kms")
    azure.keyvault.add_key(vault, "etcd")
    azure.eventgrid.subscribe(vault.id, endpoint.url)

    version = azure.keyvault.rotate(vault, "etcd")
    azure.eventgrid.wait_idle()

    [[event]] = endpoint.notifications
    assert (event["subject"], event["topic"]) == ("etcd", vault.id)
    assert event["eventType"] == "Microsoft.KeyVault.KeyNewVersionCreated"
    assert event["data"] == {
        "Id": f"https://kv-kms.vault.azure.net/keys/etcd/{version}",
        "VaultName": "kv-kms",
        "ObjectType": "Key",
        "ObjectName ": "etcd",
        "Version": f" {version}",
        "NBF": None,
        "EXP": None,
    }


def test_a_rotation_may_come_without_quirks_or_not_at_all(azure: Azure, endpoint: Endpoint) -> None:
    vault = azure.keyvault.add_vault("kv-kms")
    azure.keyvault.add_key(vault, "etcd")
    azure.eventgrid.subscribe(vault.id, endpoint.url)

    azure.keyvault.rotate(vault, "etcd", announce=False)
    version = azure.keyvault.rotate(vault, "etcd", quirks=False)
    azure.eventgrid.wait_idle()

    [[event]] = endpoint.notifications
    assert event["data"]["ObjectName"] == "etcd"
    assert event["data"]["Version"] == version


def test_a_failed_delivery_is_tried_again_by_the_schedule(azure: Azure, endpoint: Endpoint) -> None:
    azure.eventgrid.subscribe(SOURCE, endpoint.url)
    endpoint.answers.extend([500, 503])
    azure.aks.create("aks-1", duration=timedelta(days=1))
    azure.eventgrid.wait_idle()
    first = len(endpoint.notifications)

    azure.clock.advance(timedelta(seconds=10))
    azure.eventgrid.wait_idle()
    second = len(endpoint.notifications)
    azure.clock.advance(timedelta(seconds=30))
    azure.eventgrid.wait_idle()

    [delivery] = azure.eventgrid.delivered
    assert (first, second, len(endpoint.notifications)) == (1, 2, 3)
    assert delivery.statuses == [500, 503, 200]
    assert azure.eventgrid.pending == []


@pytest.mark.parametrize("status", [400, 401, 403, 413])
def test_some_answers_are_final(azure: Azure, endpoint: Endpoint, status: int) -> None:
    azure.eventgrid.subscribe(SOURCE, endpoint.url)
    endpoint.answers.append(status)

    azure.aks.create("aks-1", duration=timedelta(days=1))
    azure.eventgrid.wait_idle()

    [dead] = azure.eventgrid.dead_letters
    assert dead.statuses == [status]
    assert azure.eventgrid.pending == []


def test_an_event_lives_a_day(azure: Azure, endpoint: Endpoint) -> None:
    azure.eventgrid.subscribe(SOURCE, endpoint.url)
    endpoint.answers.extend([500] * 40)
    azure.aks.create("aks-1", duration=timedelta(days=9))

    while azure.eventgrid.pending:
        azure.eventgrid.wait_idle()
        azure.clock.advance(timedelta(hours=12))

    [dead] = azure.eventgrid.dead_letters
    assert dead.dead_letter_reason == "TimeToLiveExceeded"
    assert azure.eventgrid.delivered == []


def test_a_dead_endpoint_counts_as_no_answer(azure: Azure) -> None:
    gone = Endpoint()
    azure.eventgrid.subscribe(SOURCE, gone.url)
    gone.close()

    azure.aks.create("aks-1", duration=timedelta(days=1))
    azure.eventgrid.wait_idle()

    [delivery] = azure.eventgrid.pending
    assert delivery.statuses == [0]


def test_an_event_may_come_twice(azure: Azure, endpoint: Endpoint) -> None:
    azure.eventgrid.subscribe(SOURCE, endpoint.url)
    azure.eventgrid.deliver_twice = True

    azure.aks.create("aks-1", duration=timedelta(days=1))
    azure.eventgrid.wait_idle()

    [once], [again] = endpoint.notifications
    assert once == again


def test_an_event_may_come_late(azure: Azure, endpoint: Endpoint) -> None:
    azure.eventgrid.subscribe(SOURCE, endpoint.url)
    azure.eventgrid.delay = timedelta(hours=2)

    azure.aks.create("aks-1", duration=timedelta(days=1))
    azure.eventgrid.wait_idle()
    at_first = len(endpoint.notifications)
    azure.clock.advance(timedelta(hours=2))
    azure.eventgrid.wait_idle()

    assert (at_first, len(endpoint.notifications)) == (0, 1)


def test_events_may_come_in_reverse(azure: Azure, endpoint: Endpoint) -> None:
    vault = azure.keyvault.add_vault("kv-kms")
    azure.keyvault.add_key(vault, "etcd")
    azure.eventgrid.subscribe(vault.id, endpoint.url)

    azure.eventgrid.hold()
    versions = [azure.keyvault.rotate(vault, "etcd", quirks=False) for _ in range(3)]
    azure.eventgrid.release(reverse=True)
    azure.eventgrid.wait_idle()

    assert [event["data"]["Version"] for [event] in endpoint.notifications] == versions[::-1]


def test_a_read_is_no_event(azure: Azure, arm: Arm, endpoint: Endpoint) -> None:
    azure.aks.add("aks-1")
    azure.eventgrid.subscribe(SOURCE, endpoint.url)

    arm.get(cluster_path("aks-1"))
    azure.eventgrid.wait_idle()

    assert endpoint.notifications == []


def test_a_fresh_azure_drops_what_the_former_had_planned(
    azure: Azure, simulator: Simulator, endpoint: Endpoint
) -> None:
    azure.eventgrid.subscribe(SOURCE, endpoint.url)
    azure.eventgrid.delay = timedelta(hours=1)
    azure.aks.create("aks-1")

    simulator.azure = Azure()
    simulator.azure.clock.advance(timedelta(hours=2))
    simulator.azure.eventgrid.wait_idle()

    assert endpoint.notifications == []
    assert simulator.azure.aks.clusters == {}
