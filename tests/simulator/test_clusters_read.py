"""Managed clusters, read: documents, absence, pages."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from azure.core.exceptions import ResourceNotFoundError
from azure.identity.aio import ManagedIdentityCredential
from azure.mgmt.containerservice.aio import ContainerServiceClient as AsyncContainerServiceClient

from local.simulator import SUBSCRIPTION
from tests.simulator.clients import CLUSTERS, ENABLED, Arm, cluster_path, refusal

if TYPE_CHECKING:
    from azure.mgmt.containerservice import ContainerServiceClient

    from local.simulator import Azure

GUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def test_a_document_looks_like_recorded_traffic(azure: Azure, arm: Arm) -> None:
    azure.aks.add("aks-1")

    document = arm.cluster("aks-1")

    properties = document["properties"]
    assert "/resourcegroups/rg-apps/" in document["id"]
    assert document["type"] == "Microsoft.ContainerService/ManagedClusters"
    assert GUID.fullmatch(document["eTag"])
    assert GUID.fullmatch(properties["agentPoolProfiles"][0]["eTag"])
    assert properties["securityProfile"] == {}
    assert properties["servicePrincipalProfile"] == {"clientId": "msi"}
    assert re.fullmatch("[0-9a-f]{24}", properties["resourceUID"])
    assert properties["controlPlanePluginProfiles"]["karpenter"] == {"enableV2": True}
    assert properties["powerState"] == {"code": "Running"}


def test_the_sdk_reads_a_cluster_whatever_the_case_of_its_names(azure: Azure, clusters: ContainerServiceClient) -> None:
    seeded = azure.aks.add("AKS-1", group="RG-Apps")

    cluster = clusters.managed_clusters.get("rg-apps", "aks-1")

    assert cluster.e_tag == seeded.etag
    assert cluster.provisioning_state == "Succeeded"


@pytest.mark.parametrize("encryption", ["none", "platform-managed", "customer-managed", "legacy"])
def test_seeded_encryption_is_what_the_document_says(azure: Azure, encryption: str) -> None:
    cluster = azure.aks.add("aks-1", encryption=encryption)  # type: ignore[arg-type]  # parametrized with its members

    assert cluster.encryption == encryption


def test_a_versioned_key_with_the_new_profile_is_ambiguous(azure: Azure) -> None:
    cluster = azure.aks.add("aks-1", encryption="legacy", properties={"securityProfile": ENABLED})

    assert cluster.encryption == "ambiguous"


def test_a_missing_cluster_is_named_as_the_gateway_does(azure: Azure, arm: Arm) -> None:
    azure.subscriptions.add(SUBSCRIPTION, group="rg-apps")

    response = arm.get(cluster_path("aks-none"))

    assert refusal(response) == (
        404,
        "ResourceNotFound",
        "The Resource 'Microsoft.ContainerService/managedClusters/aks-none' under resource group 'rg-apps' was not "
        "found. For more details please go to https://aka.ms/ARMResourceNotFoundFix",
    )
    assert response.headers["x-ms-failure-cause"] == "gateway"


def test_the_sdk_takes_a_missing_cluster_for_not_found(azure: Azure, clusters: ContainerServiceClient) -> None:
    cluster = azure.aks.add("aks-1")
    azure.aks.delete(cluster.id)

    with pytest.raises(ResourceNotFoundError):
        clusters.managed_clusters.get("rg-apps", "aks-1")


def test_a_cluster_may_come_after_its_event(azure: Azure, arm: Arm) -> None:
    azure.aks.create("aks-1", hidden_for=timedelta(minutes=2))
    before = arm.get(cluster_path("aks-1")).status_code
    listed_before = arm.get(CLUSTERS).json()["value"]

    azure.clock.advance(timedelta(minutes=2))

    assert (before, listed_before) == (404, [])
    assert arm.cluster("aks-1")["properties"]["provisioningState"] == "Creating"


async def test_the_sdk_pages_through_a_subscription(azure: Azure) -> None:
    azure.aks.page_size = 3
    names = [f"aks-{number}" for number in range(7)]
    for name in names:
        azure.aks.add(name)

    async with (
        ManagedIdentityCredential() as credential,
        AsyncContainerServiceClient(credential, SUBSCRIPTION) as client,
    ):
        found = [cluster.name async for cluster in client.managed_clusters.list()]

    assert found == names
    assert len(azure.journal.matching("GET", "managedClusters$")) == 3


def test_a_full_last_page_has_no_link(azure: Azure, arm: Arm) -> None:
    azure.aks.page_size = 2
    azure.aks.add("aks-1")
    azure.aks.add("aks-2")

    page = arm.get(CLUSTERS).json()

    assert len(page["value"]) == 2
    assert "nextLink" not in page


def test_a_group_lists_its_own_clusters_only(azure: Azure, clusters: ContainerServiceClient) -> None:
    azure.aks.add("aks-1", group="rg-a")
    azure.aks.add("aks-2", group="rg-ab")

    names = [cluster.name for cluster in clusters.managed_clusters.list_by_resource_group("RG-A")]

    assert names == ["aks-1"]


def test_a_live_document_shows_what_a_test_writes_into_it(azure: Azure, arm: Arm) -> None:
    live = azure.aks.add("aks-1").document
    arm.cluster("aks-1")

    live["tags"]["kms-enforcer"] = "off"

    assert arm.cluster("aks-1")["tags"] == {"kms-enforcer": "off"}
