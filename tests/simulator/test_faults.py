"""Faults on order, and what the journal says of them."""

from __future__ import annotations

from http.client import HTTPSConnection
from ssl import create_default_context
from threading import Event
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
import requests
from azure.core import MatchConditions
from azure.core.exceptions import HttpResponseError, ResourceModifiedError, ServiceResponseError
from azure.identity.aio import ManagedIdentityCredential
from azure.mgmt.containerservice.aio import ContainerServiceClient

from local.simulator import SUBSCRIPTION
from tests.simulator.clients import ENABLED, Arm, cluster_path, refusal

if TYPE_CHECKING:
    from azure.mgmt.containerservice import ContainerServiceClient as BlockingContainerServiceClient

    from local.simulator import Azure, Simulator


def test_the_next_call_fails_as_told_and_the_one_after_does_not(azure: Azure, arm: Arm) -> None:
    azure.aks.add("aks-1")
    azure.faults.fail_next(
        "GET", "/managedClusters/aks-1$", 429, code="Throttled", message="Slow down.", headers={"Retry-After": "600"}
    )

    failed = arm.get(cluster_path("aks-1"))
    then = arm.get(cluster_path("aks-1"))

    assert refusal(failed) == (429, "Throttled", "Slow down.")
    assert failed.headers["Retry-After"] == "600"
    assert then.status_code == 200
    assert azure.faults.pending == ()


def test_a_fault_meets_its_own_calls_only(azure: Azure, arm: Arm) -> None:
    azure.aks.add("aks-1")
    azure.aks.add("aks-2")
    azure.faults.fail_next("GET", "aks-2$", 500, code="InternalServerError", message="Oops.", times=2)

    other = arm.get(cluster_path("aks-1")).status_code
    own = [arm.get(cluster_path("aks-2")).status_code for _ in range(3)]

    assert (other, own) == (200, [500, 500, 200])


def test_the_sdk_sees_the_services_code(azure: Azure, clusters: BlockingContainerServiceClient) -> None:
    azure.faults.fail_next("GET", "aks-1", 403, code="AuthorizationFailed", message="No right.")

    with pytest.raises(HttpResponseError) as refused:
        clusters.managed_clusters.get("rg-apps", "aks-1")

    assert refused.value.error is not None
    assert refused.value.error.code == "AuthorizationFailed"


def test_a_reply_is_lost_after_the_write_was_taken(azure: Azure, arm: Arm) -> None:
    cluster = azure.aks.add("aks-1")
    azure.faults.drop_next("PUT", "aks-1", accepted=True)

    with pytest.raises(requests.ConnectionError):
        arm.put_profile("aks-1", ENABLED)

    [write] = azure.journal.writes()
    assert (write.status, write.accepted) == (200, True)
    assert cluster.encryption == "platform-managed"


def test_a_call_is_lost_before_anything_happened(azure: Azure, arm: Arm) -> None:
    cluster = azure.aks.add("aks-1")
    azure.faults.drop_next("PUT", "aks-1", accepted=False)

    with pytest.raises(requests.ConnectionError):
        arm.put_profile("aks-1", ENABLED)

    [put] = azure.journal.matching("PUT", "aks-1")
    assert (put.status, put.accepted) == (0, False)
    assert azure.journal.writes() == ()
    assert cluster.encryption == "none"


@pytest.mark.parametrize(("when", "encryption"), [("before", "none"), ("after", "platform-managed")])
def test_a_callback_runs_at_its_moment(azure: Azure, arm: Arm, when: str, encryption: str) -> None:
    cluster = azure.aks.add("aks-1")
    called = Event()
    azure.faults.call_next("PUT", "aks-1", called.set, when=when)  # type: ignore[arg-type]  # parametrized with its two

    with pytest.raises(requests.ConnectionError):
        arm.put_profile("aks-1", ENABLED)

    assert called.is_set()
    assert cluster.encryption == encryption
    assert len(azure.journal.writes()) == (1 if when == "after" else 0)


def test_a_connection_lives_on_after_a_refusal(azure: Azure, simulator: Simulator) -> None:
    token, _ = azure.identity.token("https://management.azure.com")
    proxy = urlsplit(simulator.proxy_url)
    connection = HTTPSConnection(proxy.hostname or "", proxy.port, timeout=60, context=create_default_context())
    connection.set_tunnel("management.azure.com", 443)
    azure.faults.fail_next("GET", "/subscriptions", 503, code="ServerBusy", message="Later.")

    statuses, sockets = [], set()
    for _ in range(3):
        connection.request("GET", "/subscriptions?api-version=1", headers={"Authorization": f"Bearer {token}"})
        response = connection.getresponse()
        response.read()
        statuses.append(response.status)
        sockets.add(connection.sock)
    connection.close()

    assert statuses == [503, 200, 200]
    assert len(sockets) == 1


async def test_a_put_whose_reply_is_lost_changes_the_cluster_once(azure: Azure) -> None:
    """aiohttp sends a PUT again by itself when a reused connection breaks: the eTag stops the second one."""
    seeded = azure.aks.add("aks-1")
    async with (
        ManagedIdentityCredential() as credential,
        ContainerServiceClient(credential, SUBSCRIPTION, retry_total=0) as client,
    ):
        cluster = await client.managed_clusters.get("rg-apps", "aks-1")
        azure.faults.drop_next("PUT", "aks-1", accepted=True)
        with pytest.raises((ResourceModifiedError, ServiceResponseError)):
            await client.managed_clusters.begin_create_or_update(
                "rg-apps",
                "aks-1",
                cluster,
                etag=cluster.e_tag,
                match_condition=MatchConditions.IfNotModified,
                polling=False,
            )

    assert len(azure.journal.writes()) == 1
    assert seeded.provisioning_state == "Updating"


def test_a_wait_for_a_call_ends_with_it(azure: Azure, arm: Arm) -> None:
    azure.aks.add("aks-1")
    arm.get(cluster_path("aks-1"))

    call = azure.journal.wait_for(lambda found: found.matches("GET", "/managedclusters/AKS-1$"))

    assert call.query["api-version"]
    assert call.host == "management.azure.com"


def test_a_wait_in_vain_names_the_last_calls(azure: Azure, arm: Arm) -> None:
    arm.get("/subscriptions")

    with pytest.raises(TimeoutError, match="GET /subscriptions 200"):
        azure.journal.wait_for(lambda found: found.method == "DELETE", deadline=0.01)
    with pytest.raises(TimeoutError, match="GET /subscriptions 200"):
        azure.wait_for(lambda: False, deadline=0.01)


async def test_a_condition_can_be_awaited(azure: Azure) -> None:
    cluster = azure.aks.create("aks-1", duration=azure.aks.update_duration)
    azure.clock.advance(azure.aks.update_duration)

    await azure.until(lambda: cluster.provisioning_state == "Succeeded")

    assert cluster.encryption == "none"
