"""Managed clusters, written: preconditions, what happens over time, what is kept."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from azure.core import MatchConditions
from azure.core.exceptions import ResourceExistsError, ResourceModifiedError
from azure.identity.aio import ManagedIdentityCredential
from azure.mgmt.containerservice.aio import ContainerServiceClient as AsyncContainerServiceClient
from azure.mgmt.containerservice.models import (
    KubernetesResourceObjectEncryptionProfile,
    ManagedClusterSecurityProfile,
)

from local.simulator import SUBSCRIPTION
from tests.simulator.clients import ENABLED, Arm, cluster_path, refusal

if TYPE_CHECKING:
    from azure.mgmt.containerservice import ContainerServiceClient

    from local.simulator import Azure

STALE = '"11111111-1111-1111-1111-111111111111"'


# The table of AKS docs, use-etags. "own": the cluster's eTag.
@pytest.mark.parametrize(
    ("exists", "headers", "status", "code"),
    [
        pytest.param(False, {}, 201, None, id="missing-unconditional"),
        pytest.param(False, {"if-match": ""}, 201, None, id="missing-if-match-empty"),
        pytest.param(False, {"if-match": "*"}, 412, "PreConditionFailed", id="missing-if-match-any"),
        pytest.param(False, {"if-match": STALE}, 412, "PreConditionFailed", id="missing-if-match"),
        pytest.param(False, {"if-none-match": "*"}, 201, None, id="missing-if-none-match"),
        pytest.param(True, {}, 200, None, id="unconditional"),
        pytest.param(True, {"if-match": ""}, 200, None, id="if-match-empty"),
        pytest.param(True, {"if-match": "*"}, 200, None, id="if-match-any"),
        pytest.param(True, {"if-match": "own"}, 200, None, id="if-match-own"),
        pytest.param(True, {"if-match": STALE}, 412, "PreConditionFailed", id="if-match-stale"),
        pytest.param(True, {"if-none-match": "*"}, 412, "PreConditionFailed", id="if-none-match-any"),
        pytest.param(True, {"if-none-match": STALE}, 400, "BadRequest", id="if-none-match-etag"),
        pytest.param(True, {"if-match": "own", "if-none-match": "*"}, 400, "BadRequest", id="both"),
    ],
)
def test_a_put_follows_the_table_of_etags(
    azure: Azure, arm: Arm, *, exists: bool, headers: dict[str, str], status: int, code: str | None
) -> None:
    cluster = azure.aks.add("aks-1")
    body = cluster.copy()
    sent = {name: f'"{cluster.etag}"' if value == "own" else value for name, value in headers.items()}
    if not exists:
        azure.aks.delete(cluster.id)

    response = arm.call("PUT", cluster_path("aks-1"), body=body, headers=sent)

    assert response.status_code == status
    assert response.json().get("error", {}).get("code") == code
    assert len(azure.journal.writes()) == (1 if code is None else 0)


async def test_a_put_by_the_sdk_is_accepted_with_an_operation_to_watch(azure: Azure) -> None:
    seeded = azure.aks.add("aks-1")
    async with (
        ManagedIdentityCredential() as credential,
        AsyncContainerServiceClient(credential, SUBSCRIPTION) as client,
    ):
        cluster = await client.managed_clusters.get("rg-apps", "aks-1")
        cluster.security_profile = _platform_managed()
        poller = await client.managed_clusters.begin_create_or_update(
            "rg-apps",
            "aks-1",
            cluster,
            etag=cluster.e_tag,
            match_condition=MatchConditions.IfNotModified,
            polling=False,
            cls=lambda pipeline, *_: pipeline.http_response.headers["azure-asyncoperation"],
        )
        url = await poller.result()

    assert "/locations/westeurope/operations/" in url
    assert len(url) > 2_600
    assert seeded.encryption == "platform-managed"


def test_the_profile_shows_before_it_is_in_effect(azure: Azure, arm: Arm) -> None:
    azure.aks.add("aks-1")

    response = arm.put_profile("aks-1", ENABLED)

    properties = arm.cluster("aks-1")["properties"]
    assert response.status_code == 200
    assert "Retry-After" not in response.headers
    assert properties["securityProfile"] == ENABLED
    assert properties["provisioningState"] == "Updating"


def test_an_etag_changes_at_acceptance_and_once_more_at_the_end(azure: Azure, arm: Arm) -> None:
    before = azure.aks.add("aks-1").copy()

    accepted = arm.put_profile("aks-1", ENABLED).json()
    azure.clock.advance(azure.aks.update_duration)
    ended = arm.cluster("aks-1")

    assert len({before["eTag"], accepted["eTag"], ended["eTag"]}) == 3
    assert len({_pool_etag(before), _pool_etag(accepted), _pool_etag(ended)}) == 3
    assert ended["properties"]["provisioningState"] == "Succeeded"


def test_an_operation_goes_through_a_status_that_is_not_arms(azure: Azure, arm: Arm) -> None:
    azure.aks.add("aks-1")
    url = arm.put_profile("aks-1", ENABLED).headers["Azure-AsyncOperation"]

    statuses = []
    for _ in range(3):
        statuses.append(arm.get(url).json()["status"])
        azure.clock.advance(timedelta(minutes=4, seconds=30))

    assert statuses == ["InProgress", "ReconcilingAddons", "Succeeded"]
    assert set(arm.get(url).json()) == {"name", "status", "startTime", "endTime"}


def test_a_failed_operation_leaves_the_profile_as_it_was_sent(azure: Azure, arm: Arm) -> None:
    azure.aks.add("aks-1")
    azure.aks.fail_operation_next("InternalOperationError", "Internal server error")

    url = arm.put_profile("aks-1", ENABLED).headers["Azure-AsyncOperation"]
    azure.clock.advance(azure.aks.update_duration)

    properties = arm.cluster("aks-1")["properties"]
    operation = arm.get(url).json()
    assert (properties["provisioningState"], properties["securityProfile"]) == ("Failed", ENABLED)
    assert operation["status"] == "Failed"
    assert operation["error"] == {"code": "InternalOperationError", "message": "Internal server error"}


def test_an_operation_of_nobody_is_not_found(azure: Azure, arm: Arm) -> None:
    azure.aks.add("aks-1")
    url = arm.put_profile("aks-1", ENABLED).headers["Azure-AsyncOperation"]

    response = arm.get(url.partition("?")[0][:-1] + "x")

    assert response.status_code == 404


def test_a_put_during_an_operation_is_a_conflict(azure: Azure, arm: Arm) -> None:
    azure.aks.add("aks-1")
    arm.put_profile("aks-1", ENABLED)

    response = arm.put_profile("aks-1", ENABLED)

    assert refusal(response)[:2] == (409, "OperationNotAllowed")
    assert len(azure.journal.writes()) == 1


def test_the_sdk_names_a_conflict_and_a_stale_etag(azure: Azure, clusters: ContainerServiceClient) -> None:
    seeded = azure.aks.add("aks-1")
    cluster = clusters.managed_clusters.get("rg-apps", "aks-1")
    condition: dict[str, Any] = {"match_condition": MatchConditions.IfNotModified, "polling": False}
    azure.aks.change(seeded.id, lambda document: document["tags"].update(by="somebody"), duration=timedelta(minutes=1))

    with pytest.raises(ResourceModifiedError):
        clusters.managed_clusters.begin_create_or_update("rg-apps", "aks-1", cluster, etag=cluster.e_tag, **condition)
    with pytest.raises(ResourceExistsError) as conflict:
        clusters.managed_clusters.begin_create_or_update("rg-apps", "aks-1", cluster, etag=seeded.etag, **condition)

    assert conflict.value.status_code == 409


def test_a_round_trip_through_the_sdk_changes_the_profile_only(azure: Azure, clusters: ContainerServiceClient) -> None:
    before = azure.aks.add("aks-1", pools=[{}, {"name": "pool2", "mode": "User", "count": 7}]).copy()
    cluster = clusters.managed_clusters.get("rg-apps", "aks-1")
    cluster.security_profile = _platform_managed()

    clusters.managed_clusters.begin_create_or_update("rg-apps", "aks-1", cluster, polling=False)
    azure.clock.advance(azure.aks.update_duration)

    after = azure.aks.clusters[before["id"].lower()].copy()
    assert after["properties"]["securityProfile"] == ENABLED
    before["properties"]["securityProfile"] = ENABLED
    assert _without_etags(after) == _without_etags(before)


def test_what_a_client_may_not_write_is_ignored(azure: Azure, arm: Arm) -> None:
    document = azure.aks.add("aks-1").copy()
    sent = {**document, "properties": {**document["properties"], "fqdn": "mine", "provisioningState": "Succeeded"}}
    sent["properties"]["resourceUID"] = "mine"

    arm.put("aks-1", sent)

    properties = arm.cluster("aks-1")["properties"]
    assert properties["fqdn"] == document["properties"]["fqdn"]
    assert properties["resourceUID"] != "mine"
    assert properties["provisioningState"] == "Updating"


def test_what_a_client_drops_is_lost(azure: Azure, arm: Arm) -> None:
    document = azure.aks.add("aks-1").copy()
    del document["properties"]["controlPlanePluginProfiles"]

    arm.put("aks-1", document)

    assert "controlPlanePluginProfiles" not in arm.cluster("aks-1")["properties"]


def test_a_cluster_put_where_none_was_is_created_without_an_etag(azure: Azure, arm: Arm) -> None:
    template = azure.aks.add("aks-1").copy()
    azure.aks.delete(template["id"])

    response = arm.put("aks-1", template)
    azure.clock.advance(azure.aks.create_duration)

    created = arm.cluster("aks-1")
    assert response.status_code == 201
    assert "eTag" not in response.json()
    assert response.json()["properties"]["provisioningState"] == "Creating"
    assert created["properties"]["provisioningState"] == "Succeeded"
    assert created["properties"]["resourceUID"] != template["properties"]["resourceUID"]


def test_a_cluster_created_by_somebody_settles_on_the_clock(azure: Azure, arm: Arm) -> None:
    azure.aks.create("aks-1", duration=timedelta(minutes=3))

    azure.clock.advance(timedelta(minutes=2, seconds=59) - timedelta(seconds=30))
    just_before = arm.cluster("aks-1")["properties"]["provisioningState"]
    azure.clock.advance(timedelta(seconds=31))

    assert just_before == "Creating"
    assert arm.cluster("aks-1")["properties"]["provisioningState"] == "Succeeded"


def test_what_is_due_happens_without_a_call_or_a_jump(azure: Azure) -> None:
    cluster = azure.aks.create("aks-1", duration=timedelta(milliseconds=30))

    azure.wait_for(lambda: cluster.provisioning_state == "Succeeded")

    assert azure.journal.calls == ()


def test_somebody_sets_the_profile_back(azure: Azure, arm: Arm) -> None:
    cluster = azure.aks.add("aks-1")
    arm.put_profile("aks-1", ENABLED)
    azure.clock.advance(azure.aks.update_duration)

    azure.aks.set_back(cluster.id)

    assert cluster.encryption == "none"
    assert cluster.provisioning_state == "Succeeded"


def test_tags_are_patched_at_once(azure: Azure, arm: Arm) -> None:
    cluster = azure.aks.add("aks-1", tags={"env": "prod"})
    etag = cluster.etag

    response = arm.call("PATCH", cluster_path("aks-1"), body={"tags": {"env": "test"}}, headers={"if-match": etag})

    assert response.status_code == 200
    assert response.json()["tags"] == {"env": "test"}
    assert cluster.etag != etag


@pytest.mark.parametrize(
    ("seed", "body", "headers", "expected"),
    [
        pytest.param({}, {"tags": {}}, {"if-match": STALE}, (412, "PreConditionFailed"), id="stale"),
        pytest.param({"state": "Updating"}, {"tags": {}}, {}, (409, "OperationNotAllowed"), id="busy"),
        pytest.param({}, {"properties": {}}, {}, (400, "BadRequest"), id="not-tags"),
    ],
)
def test_a_patch_is_refused(
    azure: Azure,
    arm: Arm,
    *,
    seed: dict[str, Any],
    body: dict[str, Any],
    headers: dict[str, str],
    expected: tuple[int, str],
) -> None:
    azure.aks.add("aks-1", **seed)

    response = arm.call("PATCH", cluster_path("aks-1"), body=body, headers=headers)

    assert refusal(response)[:2] == expected


def test_a_patch_of_a_missing_cluster_is_not_found(azure: Azure, arm: Arm) -> None:
    azure.subscriptions.add(SUBSCRIPTION, group="rg-apps")

    response = arm.call("PATCH", cluster_path("aks-1"), body={"tags": {}}, headers={"if-match": "*"})

    assert refusal(response)[:2] == (404, "ResourceNotFound")


@pytest.mark.parametrize(
    ("body", "code"),
    [
        pytest.param("text", "InvalidRequestContent", id="not-an-object"),
        pytest.param({"location": "westeurope"}, "InvalidRequestContent", id="no-properties"),
        pytest.param({"properties": {}}, "LocationRequired", id="no-location"),
    ],
)
def test_a_body_that_is_no_cluster_is_refused(azure: Azure, arm: Arm, body: Any, code: str) -> None:
    azure.aks.add("aks-1")

    response = arm.put("aks-1", body)

    assert refusal(response)[:2] == (400, code)


def test_a_cluster_takes_twenty_puts_then_one_a_minute(azure: Azure, arm: Arm) -> None:
    cluster = azure.aks.add("aks-1")
    document = cluster.copy()

    statuses = [arm.put("aks-1", document, if_match=STALE).status_code for _ in range(20)]
    throttled = arm.put("aks-1", document, if_match=f'"{cluster.etag}"')
    azure.clock.advance(timedelta(minutes=1))
    after_a_minute = arm.put("aks-1", document, if_match=f'"{cluster.etag}"')

    assert statuses == [412] * 20
    assert refusal(throttled)[:2] == (429, "Throttled")
    assert 0 < int(throttled.headers["Retry-After"]) <= 60
    assert after_a_minute.status_code == 200


def _platform_managed() -> ManagedClusterSecurityProfile:
    profile = KubernetesResourceObjectEncryptionProfile(infrastructure_encryption="Enabled")
    return ManagedClusterSecurityProfile(kubernetes_resource_object_encryption_profile=profile)


def _pool_etag(document: dict[str, Any]) -> str:
    return str(document["properties"]["agentPoolProfiles"][0]["eTag"])


def _without_etags(document: dict[str, Any]) -> dict[str, Any]:
    pools = [
        {name: value for name, value in pool.items() if name != "eTag"}
        for pool in document["properties"]["agentPoolProfiles"]
    ]
    properties = document["properties"] | {"agentPoolProfiles": pools}
    return {name: value for name, value in document.items() if name != "eTag"} | {"properties": properties}
