"""User-assigned identities and resource groups: one truth for what clusters have and what is made over the wire."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from azure.core.exceptions import HttpResponseError
from azure.identity.aio import ManagedIdentityCredential
from azure.mgmt.msi.v2024_11_30.aio import ManagedServiceIdentityClient
from azure.mgmt.msi.v2024_11_30.models import Identity

from local.simulator import SUBSCRIPTION
from local.simulator.identity import TENANT
from tests.simulator.clients import Arm, cluster_path, refusal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from azure.mgmt.msi.v2024_11_30.aio.operations import UserAssignedIdentitiesOperations

    from local.simulator import Azure

GROUP = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg-apps"
IDENTITIES = f"{GROUP}/providers/Microsoft.ManagedIdentity/userAssignedIdentities"


@pytest.fixture
async def identities(azure: Azure) -> AsyncIterator[UserAssignedIdentitiesOperations]:
    """The asynchronous SDK client. It retries nothing."""
    assert azure.identities.all == {}
    async with (
        ManagedIdentityCredential() as credential,
        ManagedServiceIdentityClient(credential, SUBSCRIPTION, retry_total=0) as client,
    ):
        yield client.user_assigned_identities


async def test_an_identity_is_made_in_a_group_that_is_there(
    azure: Azure, identities: UserAssignedIdentitiesOperations
) -> None:
    azure.add_resource_group("rg-apps")

    made = await identities.create_or_update("rg-apps", "id-kms", Identity(location="West Europe", tags={"for": "kms"}))

    assert made.id == IDENTITIES.replace("resourceGroups", "resourcegroups") + "/id-kms"
    assert (made.name, made.location, made.tags, made.tenant_id) == ("id-kms", "westeurope", {"for": "kms"}, TENANT)
    assert made.principal_id
    assert made.client_id
    assert (await identities.get("RG-Apps", "ID-kms")).principal_id == made.principal_id
    assert [row.name async for row in identities.list_by_resource_group("rg-apps")] == ["id-kms"]
    assert [(call.method, call.status) for call in azure.journal.writes()] == [("PUT", 201)]


async def test_an_identity_that_is_there_keeps_its_principal_and_gets_other_tags(
    azure: Azure, identities: UserAssignedIdentitiesOperations
) -> None:
    made = azure.identities.add("id-kms", tags={"a": "1", "b": "2"})

    again = await identities.create_or_update("rg-apps", "id-kms", Identity(location="westeurope", tags={"b": "3"}))

    assert (again.principal_id, again.client_id) == (made.principal_id, made.client_id)
    assert again.tags == {"b": "3"}
    assert [call.status for call in azure.journal.writes()] == [200]


async def test_what_is_missing_is_not_found(azure: Azure, identities: UserAssignedIdentitiesOperations) -> None:
    azure.add_resource_group("rg-apps")
    codes = []

    for call in (
        identities.get("rg-apps", "id-none"),
        identities.get("rg-none", "id-none"),
        identities.create_or_update("rg-none", "id-none", Identity(location="westeurope")),
    ):
        with pytest.raises(HttpResponseError) as raised:
            await call
        codes.append((raised.value.status_code, raised.value.error and raised.value.error.code))

    assert codes == [(404, "ResourceNotFound"), (404, "ResourceGroupNotFound"), (404, "ResourceGroupNotFound")]


@pytest.mark.parametrize(
    ("name", "body", "expected"),
    [
        pytest.param("id-new", {}, (400, "LocationRequired"), id="no-location"),
        pytest.param("id-new", [], (400, "InvalidRequestContent"), id="no-object"),
        pytest.param("-x", {"location": "westeurope"}, (400, "BadRequest"), id="a-bad-name"),
        pytest.param("id-kms", {"location": "northeurope"}, (409, "InvalidResourceLocation"), id="elsewhere"),
    ],
)
def test_an_identity_that_cannot_be_is_refused(
    azure: Azure, arm: Arm, name: str, body: object, expected: tuple[int, str]
) -> None:
    azure.identities.add("id-kms")

    response = arm.call("PUT", f"{IDENTITIES}/{name}", body=body)

    assert refusal(response)[:2] == expected
    assert list(azure.identities.all) == [f"{IDENTITIES}/id-kms".lower()]


async def test_the_identity_of_a_cluster_is_there_too(
    azure: Azure, identities: UserAssignedIdentitiesOperations
) -> None:
    cluster = azure.aks.add("aks-1", location="northeurope")
    azure.aks.add("aks-2", identity="system-assigned")

    found = await identities.get("rg-apps", "aks-1-identity")

    assert (found.principal_id, found.location) == (cluster.principal_id, "northeurope")
    assert [row.name async for row in identities.list_by_resource_group("rg-apps")] == ["aks-1-identity"]


async def test_a_cluster_gets_the_principal_of_an_identity_made_over_the_wire(
    azure: Azure, identities: UserAssignedIdentitiesOperations, arm: Arm
) -> None:
    cluster = azure.aks.add("aks-1", identity="system-assigned")
    made = await identities.create_or_update("rg-apps", "id-kms", Identity(location="westeurope"))
    body = arm.cluster("aks-1")
    body["identity"] = {"type": "UserAssigned", "userAssignedIdentities": {str(made.id): {}}}

    response = arm.put("aks-1", body)

    assert response.status_code == 200
    assert cluster.principal_id == made.principal_id


def test_a_cluster_adopted_with_an_identity_of_odd_shape_is_taken_as_it_is(azure: Azure, arm: Arm) -> None:
    document = azure.aks.add("aks-1", identity="system-assigned").copy()
    document["identity"] = {"type": "UserAssigned", "userAssignedIdentities": {"odd": {}, f"{IDENTITIES}/id-1": None}}

    azure.aks.adopt(document)

    assert azure.identities.all == {}
    assert arm.get(cluster_path("aks-1")).status_code == 200


def test_an_app_that_may_not_make_identities_is_told_so(azure: Azure, arm: Arm) -> None:
    azure.add_resource_group("rg-apps")
    azure.permissions.refuse("Microsoft.ManagedIdentity/*/write")

    response = arm.call("PUT", f"{IDENTITIES}/id-kms", body={"location": "westeurope"})
    listed = arm.get(IDENTITIES)

    status, code, text = refusal(response)
    assert (status, code) == (403, "AuthorizationFailed")
    assert "'Microsoft.ManagedIdentity/userAssignedIdentities/write'" in text
    assert listed.json() == {"value": []}
    assert azure.identities.all == {}


def test_a_refusal_that_covers_reads_is_about_what_is_listed(azure: Azure, arm: Arm) -> None:
    azure.add_resource_group("rg-apps")
    azure.permissions.refuse("*/userAssignedIdentities/read", scope=GROUP)

    response = arm.get(IDENTITIES)

    assert f"over scope '{GROUP}'" in refusal(response)[2]


def test_an_empty_group_is_shown_and_a_missing_one_is_not(azure: Azure, arm: Arm) -> None:
    azure.add_resource_group("rg-Apps", location="northeurope")

    found = arm.get(GROUP)
    missing = arm.get(GROUP.replace("rg-apps", "rg-none"))

    assert found.json()["name"] == "rg-Apps"
    assert (found.json()["location"], found.json()["type"]) == ("northeurope", "Microsoft.Resources/resourceGroups")
    assert refusal(missing)[:2] == (404, "ResourceGroupNotFound")
