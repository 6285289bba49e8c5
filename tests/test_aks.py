"""The adapter of managed clusters, against the simulated Azure: what Azure answers and what that becomes."""

from __future__ import annotations

import asyncio
import re
from contextlib import aclosing
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from azure.core.pipeline.transport import AioHttpTransport
from azure.identity.aio import ManagedIdentityCredential

from local.simulator import SUBSCRIPTION
from shared.aks import Aks
from shared.clusters import Cluster, ClusterId, Encryption
from shared.decisions import Change
from shared.errors import Conflict, Refused, ServiceError, Throttled, Unavailable, Unreadable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from local.simulator import Azure
    from local.simulator.aks.state import SimulatedCluster

ON = Encryption(infrastructure=True)


@pytest.fixture
async def aks(azure: Azure) -> AsyncIterator[Aks]:  # noqa: ARG001  the clients reach it
    """The adapter on real clients."""
    async with ManagedIdentityCredential() as credential, AioHttpTransport() as transport:
        yield Aks(credential, transport)


async def read(aks: Aks, cluster: SimulatedCluster) -> tuple[Cluster, Change]:
    found = await aks.get(ClusterId.parse(cluster.id))
    assert found is not None
    assert found.etag is not None
    return found, Change(found.encryption, ON, found.etag)


async def test_a_cluster_is_read_in_whatever_casing_its_id_is_written(aks: Aks, azure: Azure) -> None:
    cluster = azure.aks.add("AKS-Mixed", group="RG-Apps")

    found = await aks.get(ClusterId.parse(cluster.id.upper()))

    assert found is not None
    assert found.id == ClusterId(SUBSCRIPTION, "rg-apps", "aks-mixed")
    assert found.resource_id == cluster.id


async def test_a_missing_cluster_and_a_missing_group_are_none(aks: Aks, azure: Azure) -> None:
    azure.aks.add("aks-1")

    assert await aks.get(ClusterId(SUBSCRIPTION, "rg-apps", "aks-2")) is None
    assert await aks.get(ClusterId(SUBSCRIPTION, "rg-none", "aks-2")) is None


async def test_a_subscription_that_is_not_found_proves_nothing(aks: Aks) -> None:
    with pytest.raises(Unreadable) as caught:
        await aks.get(ClusterId("00000000-0000-0000-0000-00000000dead", "rg", "aks-1"))

    assert caught.value.code == "SubscriptionNotFound"


async def test_the_list_holds_every_page(aks: Aks, azure: Azure) -> None:
    azure.aks.page_size = 3
    for number in range(8):
        azure.aks.add(f"aks-{number}")

    pages = [len(page) async for page in aks.pages(SUBSCRIPTION)]

    assert pages == [3, 3, 2]


async def test_one_that_stops_reading_leaves_no_call_under_way(aks: Aks, azure: Azure) -> None:
    azure.aks.page_size = 1
    for number in range(3):
        azure.aks.add(f"aks-{number}")

    async with aclosing(aks.pages(SUBSCRIPTION)) as pages:
        first = await anext(pages)

    assert len(first) == 1
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task() and not task.cancelling()] == []


async def test_reads_and_writes_are_of_one_api_version(aks: Aks, azure: Azure) -> None:
    found, change = await read(aks, azure.aks.add("aks-1"))
    await aks.put(found, change)
    assert [page async for page in aks.pages(SUBSCRIPTION)]

    calls = [call for call in azure.journal.calls if "managedclusters" in call.path.lower()]

    assert [call.method for call in calls] == ["GET", "PUT", "GET"]
    assert len({call.query["api-version"] for call in calls}) == 1


async def test_an_empty_subscription_has_no_clusters(aks: Aks) -> None:
    assert [cluster async for page in aks.pages(SUBSCRIPTION) for cluster in page] == []


async def test_a_listed_cluster_whose_id_can_not_be_read_is_left_out(aks: Aks, azure: Azure) -> None:
    azure.aks.add("aks-1")
    azure.aks.add("aks-2").document["id"] = "/subscriptions/none"

    assert [cluster.id.name async for page in aks.pages(SUBSCRIPTION) for cluster in page] == ["aks-1"]


async def test_the_subscriptions_are_those_that_can_be_read_and_are_not_disabled(aks: Aks, azure: Azure) -> None:
    azure.subscriptions.add("00000000-0000-0000-0000-000000000002")
    azure.subscriptions.add("00000000-0000-0000-0000-000000000003").state = "Disabled"

    assert await aks.subscriptions() == [SUBSCRIPTION, "00000000-0000-0000-0000-000000000002"]


async def test_a_put_returns_the_operation_and_does_not_wait_for_it(aks: Aks, azure: Azure) -> None:
    cluster = azure.aks.add("aks-1")

    operation = await aks.put(*await read(aks, cluster))

    assert re.search("/operations/[0-9a-f-]{36}", operation or "")
    assert cluster.provisioning_state == "Updating"
    assert azure.journal.matching("GET", "/operations/") == ()


async def test_a_put_is_never_sent_without_the_etag_it_was_decided_at(aks: Aks, azure: Azure) -> None:
    found, change = await read(aks, azure.aks.add("aks-1"))

    for etag in ("", "another"):
        with pytest.raises(AssertionError):
            await aks.put(found, replace(change, etag=etag))

    assert azure.journal.matching("PUT", "") == ()


@pytest.mark.parametrize(
    ("status", "code", "headers", "becomes"),
    [
        pytest.param(400, "BadRequest", None, Refused, id="400"),
        pytest.param(403, "LinkedAuthorizationFailed", None, Refused, id="403"),
        pytest.param(409, "OperationNotAllowed", None, Conflict, id="409"),
        pytest.param(409, "ScopeLocked", None, Refused, id="409-locked"),
        pytest.param(412, "PreConditionFailed", None, Conflict, id="412"),
        pytest.param(429, "Throttled", {"Retry-After": "600"}, Throttled, id="429"),
        pytest.param(429, "Throttled", None, Throttled, id="429-without-a-time"),
        pytest.param(503, "ServerBusy", {"Retry-After": "600"}, Throttled, id="503-with-a-time"),
        pytest.param(503, "ServerBusy", None, Unavailable, id="503"),
        pytest.param(500, "InternalServerError", None, Unavailable, id="500"),
        pytest.param(408, "RequestTimeout", None, Unavailable, id="408"),
    ],
)
async def test_what_azure_answers_to_a_put_becomes_one_of_our_errors_after_one_try(
    aks: Aks, azure: Azure, status: int, code: str, headers: dict[str, str] | None, becomes: type[ServiceError]
) -> None:
    found, change = await read(aks, azure.aks.add("aks-1"))
    azure.faults.fail_next("PUT", "aks-1", status, code=code, message="because", headers=headers, times=9)

    with pytest.raises(ServiceError) as caught:
        await asyncio.wait_for(aks.put(found, change), timeout=30)

    assert type(caught.value) is becomes
    assert caught.value.code == code
    assert len(azure.journal.matching("PUT", "aks-1")) == 1


async def test_the_time_that_azure_asks_for_is_on_the_error(aks: Aks, azure: Azure) -> None:
    cluster = azure.aks.add("aks-1")
    azure.faults.fail_next("GET", "aks-1", 429, code="Throttled", message="", headers={"Retry-After": "600"})

    with pytest.raises(Throttled) as caught:
        await asyncio.wait_for(aks.get(ClusterId.parse(cluster.id)), timeout=30)

    assert caught.value.retry_after == timedelta(seconds=600)
    assert len(azure.journal.matching("GET", "aks-1")) == 1


async def test_a_short_wait_is_slept_through(aks: Aks, azure: Azure) -> None:
    cluster = azure.aks.add("aks-1")
    azure.faults.fail_next("GET", "aks-1", 429, code="Throttled", message="", headers={"Retry-After": "1"})

    assert await aks.get(ClusterId.parse(cluster.id)) is not None


async def test_a_long_text_of_azure_is_cut(aks: Aks, azure: Azure) -> None:
    found, change = await read(aks, azure.aks.add("aks-1"))
    azure.faults.fail_next("PUT", "aks-1", 400, code="BadRequest", message="x" * 9000)

    with pytest.raises(Refused) as caught:
        await aks.put(found, change)

    assert len(str(caught.value)) < 1100
