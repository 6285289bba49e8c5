"""One cluster at a time, against the simulated Azure: what is written, what is remembered, what is not done again."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from azure.mgmt.containerservice.models import ManagedCluster

from local.simulator import SUBSCRIPTION
from shared.clusters import ClusterId, KeyManagement
from shared.decisions import OPERATION_DEADLINE, Change
from shared.errors import Unavailable
from shared.events import ClusterRequest, ShardRequest
from shared.policy import Mode
from shared.reasons import Action, Reason
from tests.product import ENFORCE, LOOK_AGAIN, NOW, Product, product

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from local.simulator import Azure
    from local.simulator.aks.state import SimulatedCluster
    from local.storage import Account

UPDATE = timedelta(minutes=5)
AUDIT = "version: 1\ntargets: [{keyManagement: platform-managed}]\n"


@pytest.fixture
async def app(azure: Azure, account: Account) -> AsyncIterator[Product]:  # noqa: ARG001  the clients reach it
    """The product, enforcing platform-managed keys."""
    async with product(account) as built:
        yield built


async def finish(app: Product, azure: Azure, cluster: SimulatedCluster) -> None:
    """Let Azure end its operation, and the wait its look."""
    azure.clock.advance(UPDATE + LOOK_AGAIN)
    record = await app.look_again(cluster, now=NOW + UPDATE + LOOK_AGAIN)

    assert record is not None
    assert record.reasons == (Reason.AS_ASKED,)


async def assert_nothing_more_is_written(app: Product, azure: Azure, cluster: SimulatedCluster) -> None:
    """A second run at the same state: no write in Azure, no change of the row."""
    writes, before = len(azure.journal.writes()), await app.record(cluster)
    later = NOW + (LOOK_AGAIN if before.waiting else timedelta(hours=2))
    await app.look(cluster, now=later)
    await app.sweeper.sweep(ShardRequest("again", SUBSCRIPTION, "test"), now=later)

    assert len(azure.journal.writes()) == writes
    assert (await app.record(cluster)).version == before.version


def puts(azure: Azure) -> list[Any]:
    return [call for call in azure.journal.writes() if call.method == "PUT"]


async def test_a_cluster_without_kms_gets_platform_managed_keys(app: Product, azure: Azure) -> None:
    cluster = azure.aks.add("aks-1")
    etag = cluster.etag

    record = await app.look(cluster)

    assert record is not None
    assert record.reasons == (Reason.UPDATING,)
    assert record.claim is not None
    assert record.claim.accepted_at == NOW
    assert puts(azure)[0].headers["if-match"] == f'"{etag}"'
    await finish(app, azure, cluster)
    assert cluster.encryption == "platform-managed"
    assert len(puts(azure)) == 1
    assert await app.slots_held() == []
    await assert_nothing_more_is_written(app, azure, cluster)


async def test_the_body_is_the_document_just_read_with_only_the_kms_profile_changed(app: Product, azure: Azure) -> None:
    cluster = azure.aks.add("aks-1", tags={"team": "pay"}, properties={"aFutureField": {"deep": [1, {"er": None}]}})
    before = await _writable(app, cluster)

    await app.look(cluster)

    body = puts(azure)[0].body
    assert body["properties"].pop("securityProfile") == {
        "kubernetesResourceObjectEncryptionProfile": {"infrastructureEncryption": "Enabled"}
    }
    assert before["properties"].pop("securityProfile") == {}
    assert body == before
    assert body["properties"]["aFutureField"] == {"deep": [1, {"er": None}]}


async def _writable(app: Product, cluster: SimulatedCluster) -> dict[str, Any]:
    read = await app.aks.get(ClusterId.parse(cluster.id))
    assert read is not None
    writable: dict[str, Any] = ManagedCluster(dict(read.document)).as_dict(exclude_readonly=True)
    return writable


async def test_what_was_there_before_is_kept_with_who_asked(app: Product, azure: Azure) -> None:
    cluster = azure.aks.add("aks-1")

    await app.look(cluster, asked_by="event:4db48cba")
    await finish(app, azure, cluster)

    (line,) = await app.writes_noted()
    assert json.loads(line["before"])["infrastructure"] is False
    assert json.loads(line["after"])["infrastructure"] is True
    assert line["askedBy"] == "event:4db48cba"
    assert line["outcome"] == "done"


async def test_audit_shows_the_change_and_makes_none(azure: Azure, account: Account) -> None:
    cluster = azure.aks.add("aks-1")

    async with product(account, AUDIT) as app:
        record = await app.look(cluster)

        assert record is not None
        assert (record.action, record.reasons, record.mode) == (Action.WRITE, (Reason.NOT_AS_ASKED,), Mode.AUDIT)
        assert isinstance(record.change, Change)
        assert record.change.after.key_management is KeyManagement.PLATFORM_MANAGED
        assert azure.journal.writes() == ()
        await assert_nothing_more_is_written(app, azure, cluster)


async def test_a_run_in_audit_writes_nothing_though_the_policy_enforces(app: Product, azure: Azure) -> None:
    cluster = azure.aks.add("aks-1")

    record = await app.look(cluster, mode=Mode.AUDIT)

    assert record is not None
    assert record.action is Action.WRITE
    assert azure.journal.writes() == ()


@pytest.mark.parametrize(
    ("seed", "action", "reason"),
    [
        pytest.param({"kubernetes": "1.32.9"}, Action.REPORT, Reason.KUBERNETES_TOO_OLD, id="too-old"),
        pytest.param({"power": "Stopped"}, Action.REPORT, Reason.STOPPED, id="stopped"),
        pytest.param({"state": "Failed"}, Action.REPORT, Reason.FAILED, id="failed"),
        pytest.param({"state": "Canceled"}, Action.REPORT, Reason.FAILED, id="canceled"),
        pytest.param({"state": "Upgrading"}, Action.WAIT, Reason.BUSY, id="busy"),
        pytest.param(
            {"identity": "service-principal"}, Action.REPORT, Reason.IDENTITY_UNSUPPORTED, id="service-principal"
        ),
        pytest.param({"tags": {"KMS-Enforcer": "Off"}}, Action.NOTHING, Reason.EXEMPT, id="opted-out"),
        pytest.param({"tags": {"kms-enforcer": "offf"}}, Action.NOTHING, Reason.EXEMPT, id="opted-out-misspelt"),
        pytest.param({"encryption": "platform-managed"}, Action.NOTHING, Reason.AS_ASKED, id="as-asked"),
        pytest.param(
            {"encryption": "customer-managed", "key_id": "https://kv-kms-weu.vault.azure.net/keys/etcd"},
            Action.REPORT,
            Reason.ENCRYPTED_OTHERWISE,
            id="customer-managed",
        ),
        pytest.param(
            {"encryption": "legacy", "key_id": f"https://kv-kms-weu.vault.azure.net/keys/etcd/{'0' * 32}"},
            Action.REPORT,
            Reason.ENCRYPTED_OTHERWISE,
            id="legacy",
        ),
    ],
)
async def test_what_stands_in_the_way_is_named_and_nothing_is_written(
    app: Product, azure: Azure, seed: dict[str, Any], action: Action, reason: Reason
) -> None:
    cluster = azure.aks.add("aks-1", **seed)

    record = await app.look(cluster)

    assert record is not None
    assert (record.action, record.reasons[0]) == (action, reason)
    assert (record.fix is not None) == (action is Action.REPORT)
    assert azure.journal.writes() == ()
    await assert_nothing_more_is_written(app, azure, cluster)


async def test_a_pool_that_is_being_changed_keeps_the_cluster_waiting(app: Product, azure: Azure) -> None:
    cluster = azure.aks.add("aks-1", pools=[{"name": "nodepool1", "provisioningState": "Scaling"}])

    record = await app.look(cluster)

    assert record is not None
    assert record.reasons == (Reason.BUSY,)
    assert azure.journal.writes() == ()


async def test_a_cluster_that_stays_busy_for_six_hours_is_reported(app: Product, azure: Azure) -> None:
    cluster = azure.aks.add("aks-1", state="Updating")
    await app.look(cluster)

    just_before = await app.look_again(cluster, now=NOW + timedelta(hours=6) - timedelta(seconds=1))
    at = await app.look_again(cluster, now=NOW + timedelta(hours=6))
    later = await app.look(cluster, now=NOW + timedelta(hours=8))

    assert just_before is not None
    assert just_before.reasons == (Reason.BUSY,)
    assert at is not None
    assert at.reasons == (Reason.WAITED_TOO_LONG, Reason.BUSY)
    assert later is not None
    assert later.reasons == (Reason.WAITED_TOO_LONG, Reason.BUSY)


async def test_a_broken_policy_writes_nothing_and_says_so(azure: Azure, account: Account) -> None:
    cluster = azure.aks.add("aks-1")

    async with product(account, ENFORCE.replace("keyManagement", "keyManagment")) as app:
        record = await app.look(cluster)

    assert record is not None
    assert record.reasons == (Reason.POLICY_BROKEN,)
    assert "keyManagement" in (record.detail or "")
    assert azure.journal.writes() == ()


# faults on the way to Azure and back


@pytest.mark.parametrize(
    ("status", "code"),
    [
        pytest.param(409, "OperationNotAllowed", id="409"),
        pytest.param(412, "PreConditionFailed", id="412"),
        pytest.param(500, "InternalOperationError", id="500"),
        pytest.param(504, "GatewayTimeout", id="504"),
    ],
)
async def test_a_put_without_a_clear_answer_is_settled_by_the_next_look(
    app: Product, azure: Azure, status: int, code: str
) -> None:
    cluster = azure.aks.add("aks-1")
    azure.faults.fail_next("PUT", "managedClusters/aks-1", status, code=code, message="not now")

    await app.look(cluster)

    assert (await app.record(cluster)).claim is not None
    await app.look_again(cluster, now=NOW + LOOK_AGAIN)
    await finish(app, azure, cluster)
    assert len(puts(azure)) == 1
    assert [line["outcome"] for line in await app.writes_noted()].count("withdrawn") == 1
    await assert_nothing_more_is_written(app, azure, cluster)


async def test_a_412_because_somebody_wrote_first_is_decided_anew(app: Product, azure: Azure) -> None:
    cluster = azure.aks.add("aks-1")
    tag = {"owner": "somebody"}
    azure.faults.call_next(
        "PUT",
        "managedClusters/aks-1",
        lambda: azure.aks.change(cluster.id, lambda d: d.update(tags=tag)),
        when="before",
    )

    await app.look(cluster)
    await app.look_again(cluster, now=NOW + LOOK_AGAIN)
    await finish(app, azure, cluster)

    assert [put.body["tags"] for put in puts(azure) if "if-match" in put.headers] == [tag]
    await assert_nothing_more_is_written(app, azure, cluster)


async def test_a_lost_reply_counts_as_our_own_write(app: Product, azure: Azure) -> None:
    cluster = azure.aks.add("aks-1")
    azure.faults.drop_next("PUT", "managedClusters/aks-1", accepted=True)

    await app.look(cluster)

    await finish(app, azure, cluster)
    (line,) = await app.writes_noted()
    assert line["outcome"] == "done"
    assert json.loads(line["before"])["infrastructure"] is False
    assert len(puts(azure)) == 1
    await assert_nothing_more_is_written(app, azure, cluster)


async def test_a_put_that_never_arrived_is_sent_again(app: Product, azure: Azure) -> None:
    cluster = azure.aks.add("aks-1")
    azure.faults.drop_next("PUT", "managedClusters/aks-1", accepted=False, times=2)  # aiohttp itself sends one again

    await app.look(cluster)
    assert puts(azure) == []

    await app.look_again(cluster, now=NOW + LOOK_AGAIN)
    await finish(app, azure, cluster)
    assert len(puts(azure)) == 1


async def test_a_throttled_put_comes_back_after_the_time_that_azure_names(app: Product, azure: Azure) -> None:
    cluster = azure.aks.add("aks-1")
    azure.faults.fail_next(
        "PUT", "managedClusters/aks-1", 429, code="Throttled", message="later", headers={"Retry-After": "600"}
    )

    record = await asyncio.wait_for(app.look(cluster), timeout=30)

    assert record is not None
    assert record.reasons == (Reason.THROTTLED,)
    assert record.waiting is not None
    assert record.waiting.look_again_at == NOW + timedelta(seconds=600)
    assert record.claim is None
    assert await app.slots_held() == []
    await app.look_again(cluster, now=NOW + timedelta(seconds=600))
    azure.clock.advance(UPDATE)
    await app.look_again(cluster, now=NOW + timedelta(seconds=600) + UPDATE)
    assert (await app.record(cluster)).reasons == (Reason.AS_ASKED,)
    assert len(puts(azure)) == 1


async def test_the_look_that_was_sent_before_the_throttled_put_ends_at_once(app: Product, azure: Azure) -> None:
    cluster = azure.aks.add("aks-1")
    azure.faults.fail_next(
        "PUT", "managedClusters/aks-1", 429, code="Throttled", message="later", headers={"Retry-After": "600"}
    )
    tokens = await _tokens_of(app, cluster)
    reads = len(azure.journal.matching("GET", "managedClusters/aks-1"))

    await app.look(cluster, token=tokens[0], now=NOW + LOOK_AGAIN)

    assert len(azure.journal.matching("GET", "managedClusters/aks-1")) == reads
    assert len(azure.journal.matching("PUT", "managedClusters/aks-1")) == 1


async def _tokens_of(app: Product, cluster: SimulatedCluster) -> list[str]:
    """Look once; return the tokens of the messages that were sent for it, oldest first."""
    await app.look(cluster)
    latest = (await app.record(cluster)).waiting
    assert latest is not None
    client = app.storage.get_queue_client("clusters")
    assert await app.messages() == 2
    assert [message async for message in client.receive_messages()] == []  # both are delayed
    return ["a-token-of-an-earlier-wait", latest.token]


async def test_a_throttled_read_comes_back_later_and_no_worker_sleeps(app: Product, azure: Azure) -> None:
    cluster = azure.aks.add("aks-1")
    azure.faults.fail_next(
        "GET", "managedClusters/aks-1", 429, code="Throttled", message="later", headers={"Retry-After": "600"}
    )

    record = await asyncio.wait_for(app.look(cluster), timeout=30)

    assert record is not None
    assert record.waiting is not None
    assert record.waiting.look_again_at == NOW + timedelta(seconds=600)
    assert await app.messages() == 1


@pytest.mark.parametrize(
    ("status", "code"),
    [
        pytest.param(409, "ScopeLocked", id="locked"),
        pytest.param(403, "RequestDisallowedByPolicy", id="policy"),
        pytest.param(400, "BadRequest", id="bad-request"),
    ],
)
async def test_a_clear_no_is_blocked_and_not_hammered(app: Product, azure: Azure, status: int, code: str) -> None:
    cluster = azure.aks.add("aks-1")
    azure.faults.fail_next("PUT", "managedClusters/aks-1", status, code=code, message="no", times=9)

    record = await app.look(cluster)

    assert record is not None
    assert record.reasons == (Reason.BLOCKED,)
    assert code in (record.detail or "")
    assert await app.slots_held() == []
    for minutes in (1, 5, 54):
        await app.look(cluster, now=NOW + timedelta(minutes=minutes))
    assert len(azure.journal.matching("PUT", "managedClusters/aks-1")) == 1
    await app.look(cluster, now=NOW + timedelta(hours=1))
    assert len(azure.journal.matching("PUT", "managedClusters/aks-1")) == 2


async def test_a_blocked_cluster_is_tried_again_once_it_changed(app: Product, azure: Azure) -> None:
    cluster = azure.aks.add("aks-1")
    azure.faults.fail_next("PUT", "managedClusters/aks-1", 409, code="ScopeLocked", message="locked")
    await app.look(cluster)

    azure.aks.change(cluster.id, lambda document: document.update(tags={"unlocked": "yes"}))
    record = await app.look(cluster, now=NOW + timedelta(minutes=1))

    assert record is not None
    assert record.reasons == (Reason.UPDATING,)


async def test_an_operation_that_fails_is_reported_and_not_hammered(app: Product, azure: Azure) -> None:
    cluster = azure.aks.add("aks-1")
    azure.aks.fail_operation_next("InternalOperationError", "Internal server error")
    await app.look(cluster)

    azure.clock.advance(UPDATE)
    record = await app.look_again(cluster, now=NOW + UPDATE)

    assert record is not None
    assert record.reasons == (Reason.FAILED,)
    assert record.detail == "InternalOperationError: Internal server error"
    (line,) = await app.writes_noted()
    assert (line["outcome"], line["code"], line["text"]) == (
        "failed",
        "InternalOperationError",
        "Internal server error",
    )
    assert await app.slots_held() == []
    await assert_nothing_more_is_written(app, azure, cluster)


@pytest.mark.parametrize(
    ("status", "headers"), [(500, {}), (503, {"Retry-After": "30"})], ids=["no-answer", "come-back-later"]
)
async def test_an_operation_that_failed_is_settled_though_azure_never_says_why(
    app: Product, azure: Azure, status: int, headers: dict[str, str]
) -> None:
    cluster = azure.aks.add("aks-1")
    azure.aks.fail_operation_next("InternalOperationError", "Internal server error")
    await app.look(cluster)
    azure.clock.advance(UPDATE)
    azure.faults.fail_next("GET", "/operations/", status, code="Broken", message="no", headers=headers, times=1000)

    with suppress(Unavailable):  # who may still hear why comes back
        await app.look(cluster, now=NOW + UPDATE)
    before = await app.record(cluster)
    record = await app.look(cluster, now=NOW + OPERATION_DEADLINE)

    assert before.claim is not None
    assert record is not None
    assert (record.claim, record.reasons) == (None, (Reason.FAILED,))
    assert record.detail == "Failed: Azure gives no reason"
    assert (await app.writes_noted())[0]["outcome"] == "failed"
    assert await app.slots_held() == []
    await assert_nothing_more_is_written(app, azure, cluster)


async def test_a_read_that_is_not_allowed_never_closes_a_row(app: Product, azure: Azure) -> None:
    cluster = azure.aks.add("aks-1", encryption="platform-managed")
    await app.look(cluster)
    azure.faults.fail_next("GET", "managedClusters/aks-1", 403, code="AuthorizationFailed", message="no")

    record = await app.look(cluster)

    assert record is not None
    assert record.reasons == (Reason.UNREADABLE,)
    assert record.closed_at is None
    assert record.encryption is not None
    assert record.encryption.key_management is KeyManagement.PLATFORM_MANAGED


# somebody sets it back


async def enforce(app: Product, azure: Azure, cluster: SimulatedCluster, *, now: datetime) -> None:
    """Let the app write, Azure end, and the wait its look."""
    await app.look(cluster, now=now)
    azure.clock.advance(UPDATE)
    await app.look_again(cluster, now=now + UPDATE)


async def test_a_cluster_that_is_set_back_twice_within_a_day_is_left_alone(app: Product, azure: Azure) -> None:
    cluster = azure.aks.add("aks-1")
    for hours in (0, 3):
        await enforce(app, azure, cluster, now=NOW + timedelta(hours=hours))
        azure.aks.set_back(cluster.id)
    writes = len(puts(azure))

    record = await app.look(cluster, now=NOW + timedelta(hours=27) - timedelta(seconds=1))

    assert record is not None
    assert record.reasons == (Reason.CONTESTED,)
    assert record.fix is not None
    for hours in (28, 60):
        await app.look(cluster, now=NOW + timedelta(hours=hours))
    await app.sweeper.sweep(ShardRequest("again", SUBSCRIPTION, "test"), now=NOW + timedelta(hours=61))
    assert (await app.record(cluster)).reasons == (Reason.CONTESTED,)
    assert len(puts(azure)) == writes


async def test_an_operator_lets_a_contested_cluster_be_written_again(app: Product, azure: Azure) -> None:
    cluster = azure.aks.add("aks-1")
    for hours in (0, 1):
        await enforce(app, azure, cluster, now=NOW + timedelta(hours=hours))
        azure.aks.set_back(cluster.id)
    await app.look(cluster, now=NOW + timedelta(hours=2))

    resumed = await app.reconciler.resume(
        ClusterId.parse(cluster.id), asked_by="operator", now=NOW + timedelta(hours=3)
    )
    await enforce(app, azure, cluster, now=NOW + timedelta(hours=4))

    assert resumed is not None
    assert (await app.record(cluster)).reasons == (Reason.AS_ASKED,)
    assert "resumed" in {row["kind"] for row in await app.rows("activity")}


async def test_set_backs_far_apart_are_enforced_each_time(app: Product, azure: Azure) -> None:
    cluster = azure.aks.add("aks-1")
    for days in (0, 2, 4):
        await enforce(app, azure, cluster, now=NOW + timedelta(days=days))
        assert (await app.record(cluster)).reasons == (Reason.AS_ASKED,)
        azure.aks.set_back(cluster.id)


async def test_a_cluster_that_nobody_knows_can_not_be_resumed(app: Product) -> None:
    unknown = ClusterId(SUBSCRIPTION, "rg-apps", "aks-none")

    assert await app.reconciler.resume(unknown, asked_by="operator", now=NOW) is None


# clusters that come and go


async def test_an_event_before_its_cluster_is_visible_waits_for_it(app: Product, azure: Azure) -> None:
    cluster = azure.aks.create("aks-1", duration=timedelta(minutes=1), hidden_for=timedelta(minutes=2))

    first = await app.look(cluster, since=NOW)

    assert first is not None
    assert first.reasons == (Reason.NOT_VISIBLE,)
    azure.clock.advance(timedelta(minutes=2))
    await app.look_again(cluster, now=NOW + timedelta(minutes=2))
    azure.clock.advance(UPDATE)
    await app.look_again(cluster, now=NOW + timedelta(minutes=2) + UPDATE)
    assert (await app.record(cluster)).reasons == (Reason.AS_ASKED,)
    assert len(puts(azure)) == 1


async def test_a_cluster_that_never_shows_up_is_given_up_after_fifteen_minutes(app: Product, azure: Azure) -> None:
    name = "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/rg-apps/providers"
    name += "/Microsoft.ContainerService/managedClusters/aks-ghost"
    azure.subscriptions.add("00000000-0000-0000-0000-000000000001", group="rg-apps")

    await app.look(name, since=NOW)
    waiting = await app.look(name, since=NOW, now=NOW + timedelta(minutes=15) - timedelta(seconds=1))
    given_up = await app.look(name, since=NOW, now=NOW + timedelta(minutes=15))

    assert waiting is not None
    assert waiting.action is Action.WAIT
    assert given_up is not None
    assert given_up.reasons == (Reason.WAITED_TOO_LONG, Reason.NOT_VISIBLE)


async def test_a_known_cluster_that_is_not_found_is_gone(app: Product, azure: Azure) -> None:
    cluster = azure.aks.add("aks-1", encryption="platform-managed")
    await app.look(cluster)
    azure.aks.delete(cluster.id)

    record = await app.look(cluster, since=NOW)

    assert record is not None
    assert record.reasons == (Reason.GONE,)
    assert record.closed_at == NOW


async def test_a_cluster_deleted_during_its_update_gives_its_slots_back(app: Product, azure: Azure) -> None:
    cluster = azure.aks.add("aks-1")
    await app.look(cluster)
    azure.aks.delete(cluster.id)

    record = await app.look_again(cluster, now=NOW + LOOK_AGAIN)

    assert record is not None
    assert record.reasons == (Reason.GONE,)
    assert record.claim is None
    assert await app.slots_held() == []


async def test_a_cluster_created_anew_begins_a_new_row_and_keeps_the_old_one(app: Product, azure: Azure) -> None:
    first = azure.aks.add("aks-1", encryption="platform-managed")
    await app.look(first)
    azure.aks.delete(first.id)

    second = azure.aks.add("aks-1")
    await app.look(second, now=NOW + LOOK_AGAIN)

    rows = {row["RowKey"]: row for row in await app.rows("clusters")}
    assert set(rows) == {"rg-apps|aks-1", f"rg-apps|aks-1|{first.document['properties']['resourceUID']}"}
    assert rows["rg-apps|aks-1"]["resourceUID"] == second.document["properties"]["resourceUID"]
    assert len(puts(azure)) == 1


# many messages at once


async def test_many_deliveries_at_once_make_one_accepted_put(app: Product, azure: Azure) -> None:
    cluster = azure.aks.add("aks-1")

    await asyncio.gather(*(app.look(cluster) for _ in range(8)))

    assert len(puts(azure)) == 1
    assert await app.messages() == 1
    await finish(app, azure, cluster)
    await assert_nothing_more_is_written(app, azure, cluster)


async def test_a_hundred_events_for_a_waiting_cluster_leave_one_pending_message(app: Product, azure: Azure) -> None:
    cluster = azure.aks.add("aks-1", state="Updating")

    await asyncio.gather(*(app.look(cluster, since=NOW) for _ in range(20)))
    for _ in range(80):
        await app.look(cluster, since=NOW)

    assert await app.messages() == 1


async def test_a_stale_token_ends_without_a_call(app: Product, azure: Azure) -> None:
    cluster = azure.aks.add("aks-1", state="Updating")
    await app.look(cluster)
    calls = len(azure.journal.calls)

    await app.look(cluster, token="of-another-wait")

    assert len(azure.journal.calls) == calls
    assert await app.messages() == 1


async def test_a_redelivered_message_sends_the_look_that_its_first_try_may_not_have_sent(
    app: Product, azure: Azure
) -> None:
    cluster = azure.aks.add("aks-1", state="Updating")
    await app.look(cluster, message="the-same")
    token = (await app.record(cluster)).waiting

    await app.look(cluster, message="the-same")

    assert await app.messages() == 2
    assert (await app.record(cluster)).waiting == token


async def test_an_overdue_wait_gets_a_new_look_from_any_event(app: Product, azure: Azure) -> None:
    cluster = azure.aks.add("aks-1", state="Updating")
    await app.look(cluster)

    await app.look(cluster, now=NOW + LOOK_AGAIN + timedelta(minutes=5))

    assert await app.messages() == 2


# limits

LIMITED = ENFORCE + "limits: {concurrentUpdates: 3, concurrentUpdatesPerSubscription: 2}\n"


async def test_no_more_clusters_are_updated_at_once_than_the_limits_allow(azure: Azure, account: Account) -> None:
    other = "00000000-0000-0000-0000-000000000002"
    clusters = [azure.aks.add(f"aks-{number}") for number in range(4)]
    clusters += [azure.aks.add(f"aks-{number}", subscription=other) for number in range(4)]

    async with product(account, LIMITED) as app:
        await asyncio.gather(*(app.look(cluster) for cluster in clusters))

        updating = [cluster for cluster in clusters if cluster.provisioning_state == "Updating"]
        per_subscription = [sum(name in cluster.id for cluster in updating) for name in ("000001", "000002")]
        assert len(updating) <= 3
        assert max(per_subscription) <= 2
        assert updating
        now = NOW
        while waiting := [cluster for cluster in clusters if (await app.record(cluster)).waiting]:
            azure.clock.advance(UPDATE)
            now += UPDATE
            for cluster in waiting:
                await app.look_again(cluster, now=now)
            in_flight = sum(cluster.provisioning_state == "Updating" for cluster in clusters)
            assert in_flight <= 3
            assert now < NOW + timedelta(hours=2), "some cluster was forgotten"
        assert len(puts(azure)) == 8
        assert await app.slots_held() == []


async def test_who_loses_a_slot_after_claiming_waits_for_one_with_a_message_of_its_own(
    azure: Azure, account: Account
) -> None:
    clusters = [azure.aks.add(f"aks-{number}") for number in range(8)]
    limits = ENFORCE + "limits: {concurrentUpdates: 1, concurrentUpdatesPerSubscription: 1}\n"

    async with product(account, limits) as app:
        await asyncio.gather(*(app.look(cluster) for cluster in clusters))

        records = [await app.record(cluster) for cluster in clusters]
        assert [record.reasons for record in records if record.claim] == [(Reason.UPDATING,)]
        assert {record.reasons for record in records if not record.claim} == {(Reason.LIMIT_REACHED,)}
        assert all(record.waiting for record in records)
        assert await app.messages() == len(clusters)


async def test_a_slot_whose_lease_ended_is_taken_over_only_when_nothing_is_in_flight(
    azure: Azure, account: Account
) -> None:
    azure.aks.update_duration = timedelta(minutes=40)
    one, two = azure.aks.add("aks-1"), azure.aks.add("aks-2")
    limits = ENFORCE + "limits: {concurrentUpdates: 1, concurrentUpdatesPerSubscription: 1}\n"
    async with product(account, limits) as app:
        await app.look(one)
        after_lease = NOW + timedelta(minutes=16)

        still_held = await app.look(two, now=after_lease)
        azure.clock.advance(timedelta(minutes=41))
        taken_over = await app.look(two, now=after_lease + timedelta(minutes=41))

        assert still_held is not None
        assert still_held.reasons == (Reason.LIMIT_REACHED,)
        assert taken_over is not None
        assert taken_over.reasons == (Reason.UPDATING,)
        await app.look_again(one, now=after_lease + timedelta(minutes=42))
        assert len(await app.slots_held()) == 2  # the second cluster's: giving back does not touch what was taken over


async def test_a_poisoned_message_is_recorded_and_the_sweep_starts_the_cluster_afresh(
    app: Product, azure: Azure
) -> None:
    cluster = azure.aks.add("aks-1")

    await app.reconciler.give_up(ClusterRequest(ClusterId.parse(cluster.id), "event:1", id="1"), now=NOW)

    assert (await app.record(cluster)).reasons == (Reason.POISONED,)
    await app.look(cluster, asked_by="sweep")
    await finish(app, azure, cluster)
