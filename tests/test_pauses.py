"""Enforcement that is paused, and windows that are closed: what waits, why, and how it goes on."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from azure.core.pipeline.transport import AioHttpTransport
from azure.data.tables.aio import TableServiceClient
from azure.identity.aio import ManagedIdentityCredential

from local.simulator import SUBSCRIPTION
from shared.clusters import Cluster, ClusterId
from shared.events import ShardRequest
from shared.ledger import Ledger
from shared.notices import SOURCE
from shared.pauses import Pauses
from shared.policy import Assignment, Mode, PolicyInForce
from shared.reasons import Action, Reason
from shared.recorder import Recorder
from shared.records import STOP_AFTER_FAILURES, Settlement
from shared.tables import Tables
from tests.product import ENFORCE, LOOK_AGAIN, NOW, Product, product

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from local.simulator import Azure
    from local.simulator.aks.state import SimulatedCluster
    from local.storage import Account
    from shared.records import Shard

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
UPDATE = timedelta(minutes=5)
TOPIC = "^/api/events$"
PAUSED = "AksKmsEnforcer.EnforcementPaused"
VAULT = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg-keys/providers/Microsoft.KeyVault/vaults/kv-kms-weu"
KEY_TARGET = ENFORCE.replace(
    "[{keyManagement: platform-managed}]", f"[{{keyManagement: customer-managed, vault: {VAULT}, key: etcd}}]"
)


@pytest.fixture
async def app(azure: Azure, account: Account) -> AsyncIterator[Product]:
    """The product, enforcing platform-managed keys, with a topic."""
    async with product(account, topic=azure.eventgrid.add_topic("outcomes")) as built:
        yield built


async def update(app: Product, azure: Azure, name: str, *, now: datetime, fails: bool = False) -> SimulatedCluster:
    """Let the app update a new cluster, Azure end it well or not, and the app see it."""
    cluster = azure.aks.add(name)
    if fails:
        azure.aks.fail_operation_next("InternalOperationError", "Internal server error")
    await app.look(cluster, now=now)
    azure.clock.advance(UPDATE)
    await app.look_again(cluster, now=now + UPDATE)
    return cluster


async def fail(app: Product, azure: Azure, *names: str) -> datetime:
    """Let updates fail one after another; return when the last was seen."""
    now = NOW
    for name in names:
        await update(app, azure, name, now=now, fails=True)
        now += UPDATE
    return now


async def sweep(app: Product, *, now: datetime, mode: Mode | None = None) -> Shard:
    shard = await app.sweeper.sweep(ShardRequest("run-1", SUBSCRIPTION, "timer", mode), now=now)
    assert shard is not None
    return shard


def puts(azure: Azure, cluster: SimulatedCluster) -> int:
    return len(azure.journal.matching("PUT", f"{cluster.name}$"))


def told(azure: Azure) -> list[dict[str, Any]]:
    """What the topic was told of pauses."""
    return [one.payload for one in azure.eventgrid.published if one.payload["type"] == PAUSED]


async def lines(app: Product, *kinds: str) -> list[dict[str, Any]]:
    return [row for row in await app.rows("activity") if row["PartitionKey"] == "enforcement" and row["kind"] in kinds]


async def state_row(app: Product) -> dict[str, Any]:
    (row,) = [row for row in await app.rows("enforcement") if row["PartitionKey"] == "state"]
    return row


async def cluster_rows(app: Product) -> list[dict[str, Any]]:
    """The clusters' rows, but for what was told: the first look that finds all well forgets it."""
    return [row | {"announced": None, "decidedAt": None} for row in await app.rows("clusters")]


async def assert_nothing_more_is_written(app: Product, azure: Azure, cluster: SimulatedCluster, now: datetime) -> None:
    """A second run at the same state: no write in Azure, no other row, nothing told."""
    writes, rows, activity = len(azure.journal.writes()), await cluster_rows(app), await app.rows("activity")
    state, notices = await app.rows("enforcement"), len(azure.eventgrid.published)

    await app.look(cluster, now=now)
    await sweep(app, now=now)

    assert len(azure.journal.writes()) == writes
    assert await cluster_rows(app) == rows
    assert await app.rows("activity") == activity
    assert await app.rows("enforcement") == state
    assert len(azure.eventgrid.published) == notices


# failures in a row


async def test_three_failing_updates_in_a_row_pause_and_the_fourth_cluster_waits(
    app: Product, azure: Azure, caplog: pytest.LogCaptureFixture
) -> None:
    now = await fail(app, azure, "aks-1", "aks-2", "aks-3")
    fourth = azure.aks.add("aks-4")

    record = await app.look(fourth, now=now)

    assert record is not None
    assert (record.action, record.reasons) == (Action.WAIT, (Reason.PAUSED, Reason.NOT_AS_ASKED))
    assert record.change is not None
    assert record.waiting is not None
    assert record.waiting.look_again_at == now + HOUR
    assert (
        record.detail == f"by {STOP_AFTER_FAILURES}: updates that failed in a row: {_named('aks-1', 'aks-2', 'aks-3')}"
    )
    assert record.fix is not None
    assert "POST /api/enforcement/resume" in record.fix.text
    assert puts(azure, fourth) == 0
    assert [one.getMessage().split(" {")[0] for one in caplog.records if one.levelname == "ERROR"] == [
        f"enforcement is paused by {STOP_AFTER_FAILURES}: "
        f"updates that failed in a row: {_named('aks-1', 'aks-2', 'aks-3')}"
    ]
    await assert_nothing_more_is_written(app, azure, fourth, now + MINUTE)


def _named(*names: str) -> str:
    return ", ".join(f"rg-apps/{name}" for name in names)


async def test_a_pause_is_told_once_with_who_and_why_and_what_failed(app: Product, azure: Azure) -> None:
    now = await fail(app, azure, "aks-1", "aks-2", "aks-3")
    await app.sweeper.start("run-2", asked_by="timer", now=now)

    (notice,) = told(azure)
    assert (notice["source"], notice["subject"]) == (SOURCE, "enforcement")
    assert notice["data"] == {
        "since": now.isoformat(),
        "by": STOP_AFTER_FAILURES,
        "why": f"updates that failed in a row: {_named('aks-1', 'aks-2', 'aks-3')}",
        "failures": [str(ClusterId(SUBSCRIPTION, "rg-apps", f"aks-{number}")) for number in (1, 2, 3)],
    }
    (line,) = await lines(app, "paused")
    assert (line["at"], line["askedBy"], line["why"]) == (now, STOP_AFTER_FAILURES, notice["data"]["why"])


async def test_a_success_in_between_begins_anew(app: Product, azure: Azure) -> None:
    now = await fail(app, azure, "aks-1", "aks-2")
    await update(app, azure, "aks-good", now=now)
    now += UPDATE

    await update(app, azure, "aks-3", now=now, fails=True)
    fourth = await update(app, azure, "aks-4", now=now + UPDATE)

    assert (await app.record(fourth)).reasons == (Reason.AS_ASKED,)
    assert told(azure) == []


async def test_a_write_that_azure_refuses_does_not_count(app: Product, azure: Azure) -> None:
    azure.faults.fail_next("PUT", "managedClusters/", 409, code="ScopeLocked", message="locked", times=5)
    for number in range(5):
        await app.look(azure.aks.add(f"aks-{number}"))
    sixth = azure.aks.add("aks-5")

    record = await app.look(sixth)

    assert record is not None
    assert record.reasons == (Reason.UPDATING,)
    assert not (await app.ledger.enforcement()).paused


async def test_an_update_that_does_not_end_in_time_counts(azure: Azure, account: Account) -> None:
    azure.aks.update_duration = timedelta(hours=9)
    async with product(account, ENFORCE + "limits: {stopAfterFailures: 1}\n") as app:
        cluster = azure.aks.add("aks-1")
        await app.look(cluster)
        azure.clock.advance(timedelta(minutes=90))

        await app.look_again(cluster, now=NOW + timedelta(minutes=90))

        assert (await app.ledger.enforcement()).paused


async def test_the_policy_says_after_how_many(azure: Azure, account: Account) -> None:
    async with product(account, ENFORCE + "limits: {stopAfterFailures: 2}\n") as app:
        await fail(app, azure, "aks-1")
        one = (await app.ledger.enforcement()).paused
        await update(app, azure, "aks-2", now=NOW + UPDATE, fails=True)

        assert not one
        assert (await app.ledger.enforcement()).paused


async def test_a_fleet_without_failures_has_no_row_of_them_and_a_compliant_cluster_costs_no_read_of_it(
    app: Product, azure: Azure
) -> None:
    cluster = await update(app, azure, "aks-1", now=NOW)

    await app.look(cluster, now=NOW + HOUR)

    assert [row for row in await app.rows("enforcement") if row["PartitionKey"] == "state"] == []


# crashes and races


class Killed(BaseException):
    """The process is gone."""


class DiesAfter(AioHttpTransport):  # type: ignore[misc]  # azure.core imports it too lazily for a type
    """Lets so many writes of tables arrive, then the process is gone."""

    def __init__(self, writes: int) -> None:
        super().__init__()
        self._writes = writes

    async def send(self, request: Any, **options: Any) -> Any:
        """Send a call; the reply to the last write is never read."""
        answer = await super().send(request, **options)
        if request.method not in {"GET", "HEAD"}:
            self._writes -= 1
            if self._writes < 0:
                raise Killed
        return answer


async def settle_and_die(app: Product, account: Account, cluster: SimulatedCluster, now: datetime, after: int) -> bool:
    """Look at a cluster with a process that dies after so many writes; return whether it did."""
    async with (
        ManagedIdentityCredential() as credential,
        TableServiceClient(account.table_uri, credential=credential, transport=DiesAfter(after)) as tables,
    ):
        ledger = Ledger(Tables(tables))
        pauses = Pauses(ledger, app.pauses.notices)
        mortal = replace(app.reconciler, ledger=ledger, recorder=Recorder(ledger, None), pauses=pauses)
        try:
            await replace(app, reconciler=mortal).look_again(cluster, now=now)
        except Killed:
            return True
    return False


@pytest.mark.parametrize("after", range(13))
async def test_a_failure_whose_settlement_died_anywhere_counts_once_and_its_pause_is_told(
    app: Product, azure: Azure, account: Account, after: int
) -> None:
    now = await fail(app, azure, "aks-1", "aks-2")
    third = azure.aks.add("aks-3")
    azure.aks.fail_operation_next("InternalOperationError", "Internal server error")
    await app.look(third, now=now)
    azure.clock.advance(UPDATE)
    now += UPDATE
    died = await settle_and_die(app, account, third, now, after)

    await app.look(third, now=now + MINUTE)  # the message comes back, or an event does
    await app.sweeper.start("run-2", asked_by="timer", now=now + MINUTE)

    assert died is (after < 12), "the number of writes of a settlement has changed: cover them all"
    state = await app.ledger.enforcement()
    assert [failure.cluster.name for failure in state.failures] == ["aks-1", "aks-2", "aks-3"]
    assert (state.paused_since, state.told) == (now, True)
    assert len(await lines(app, "paused")) == 1
    assert len({notice["id"] for notice in told(azure)}) == 1
    assert (await app.record(third)).claim is None
    assert await app.slots_held() == []
    await assert_nothing_more_is_written(app, azure, third, now + 2 * MINUTE)


@pytest.mark.parametrize("after", range(1, 5))
async def test_a_settlement_that_died_between_its_writes_is_not_counted_again_after_a_success(
    app: Product, azure: Azure, account: Account, after: int
) -> None:
    first = azure.aks.add("aks-1")
    azure.aks.fail_operation_next("InternalOperationError", "Internal server error")
    await app.look(first)
    azure.clock.advance(UPDATE)
    assert await settle_and_die(app, account, first, NOW + UPDATE, after - 1)
    await update(app, azure, "aks-2", now=NOW + UPDATE)

    await app.look(first, now=NOW + 3 * UPDATE)

    assert (await app.record(first)).claim is None
    assert (await app.ledger.enforcement()).failures == ()


async def test_workers_that_count_at_the_same_moment_lose_no_failure(app: Product) -> None:
    clusters = [ClusterId(SUBSCRIPTION, "rg-apps", f"aks-{number}") for number in range(6)]

    await asyncio.gather(
        *(
            app.pauses.count(cluster, f"intent-{cluster.name}", Settlement.FAILED, stop_after=6, now=NOW)
            for cluster in clusters
            for _twice in range(2)
        )
    )

    state = await app.ledger.enforcement()
    assert {failure.cluster for failure in state.failures} == set(clusters)
    assert len(state.failures) == len(clusters)
    assert state.paused


async def test_two_clusters_that_fail_at_the_same_moment_both_count(azure: Azure, account: Account) -> None:
    async with product(account, ENFORCE + "limits: {stopAfterFailures: 2}\n") as app:
        clusters = [azure.aks.add(f"aks-{number}") for number in range(2)]
        for cluster in clusters:
            azure.aks.fail_operation_next("InternalOperationError", "Internal server error")
            await app.look(cluster)
        azure.clock.advance(UPDATE)

        await asyncio.gather(*(app.look_again(cluster, now=NOW + UPDATE) for cluster in clusters))

        state = await app.ledger.enforcement()
        assert {failure.cluster.name for failure in state.failures} == {"aks-0", "aks-1"}
        assert state.paused


async def test_a_topic_that_is_away_fails_no_look_and_the_next_run_tells_the_pause(app: Product, azure: Azure) -> None:
    azure.faults.fail_next("POST", TOPIC, 500, code="InternalServerError", message="away", times=4)
    now = await fail(app, azure, "aks-1", "aks-2", "aks-3")
    untold, state = told(azure), await app.ledger.enforcement()

    for number in (1, 2):
        await app.sweeper.start(f"run-{number}", asked_by="timer", now=now + number * HOUR)

    assert untold == []
    assert (state.paused, state.told) == (True, False)
    assert len(told(azure)) == 1
    assert len(await lines(app, "paused")) == 1


# an operator pauses and resumes


async def test_an_operator_s_pause_takes_effect_for_every_look_after_it(app: Product, azure: Azure) -> None:
    under_way = azure.aks.add("aks-1")
    await app.look(under_way)
    await app.pauses.pause(by="operator", why="a freeze", now=NOW + MINUTE)
    cluster = azure.aks.add("aks-2")
    azure.clock.advance(UPDATE)

    record = await app.look(cluster, now=NOW + MINUTE)
    await app.look_again(under_way, now=NOW + UPDATE)

    assert record is not None
    assert (record.reasons[0], record.detail) == (Reason.PAUSED, "by operator: a freeze")
    assert puts(azure, cluster) == 0
    assert (await app.record(under_way)).reasons == (Reason.AS_ASKED,), "what is under way is settled all the same"
    await assert_nothing_more_is_written(app, azure, cluster, NOW + 2 * MINUTE)


async def test_pausing_twice_keeps_who_was_first_and_tells_once(app: Product, azure: Azure) -> None:
    await app.pauses.pause(by="operator", why="a freeze", now=NOW)
    row = await state_row(app)

    again = await app.pauses.pause(by="operator", why="another reason", now=NOW + HOUR)

    assert (again.paused_since, again.why) == (NOW, "a freeze")
    assert await state_row(app) == row
    assert len(told(azure)) == 1
    assert len(await lines(app, "paused")) == 1


async def test_a_run_after_resuming_lets_what_was_held_back_go_on_at_once(app: Product, azure: Azure) -> None:
    now = await fail(app, azure, "aks-1", "aks-2", "aks-3")
    held = [azure.aks.add(f"aks-{number}") for number in (4, 5)]
    for cluster in held:
        await app.look(cluster, now=now)
    before, messages = await sweep(app, now=now + MINUTE), await app.messages()

    resumed = await app.pauses.resume(by="operator", now=now + MINUTE)
    after = await sweep(app, now=now + MINUTE)
    for cluster in held:
        await app.look(cluster, now=now + MINUTE, asked_by="operator")

    assert (before.counts["wait:paused"], before.enqueued) == (2, 0)
    assert (after.counts["write:not-as-asked"], after.enqueued) == (2, 2)
    assert await app.messages() == messages + 4  # the sweep's, and those of the two updates
    assert (resumed.paused, resumed.failures) == (False, ())
    assert [puts(azure, cluster) for cluster in held] == [1, 1]
    azure.clock.advance(UPDATE)
    for cluster in held:
        await app.look_again(cluster, now=now + MINUTE + UPDATE)
        assert (await app.record(cluster)).reasons == (Reason.AS_ASKED,)
    await assert_nothing_more_is_written(app, azure, held[0], now + HOUR)
    (line,) = await lines(app, "resumed")
    assert (line["askedBy"], line["pausedBy"]) == ("operator", STOP_AFTER_FAILURES)


async def test_the_message_of_a_wait_that_was_resumed_ends_at_once(app: Product, azure: Azure) -> None:
    await app.pauses.pause(by="operator", why=None, now=NOW)
    cluster = azure.aks.add("aks-1")
    await app.look(cluster)
    waiting = (await app.record(cluster)).waiting
    await app.pauses.resume(by="operator", now=NOW + MINUTE)
    await app.look(cluster, now=NOW + MINUTE)
    calls = len(azure.journal.calls)

    assert waiting is not None
    await app.look(cluster, token=waiting.token, now=NOW + HOUR)

    assert len(azure.journal.calls) == calls
    assert puts(azure, cluster) == 1


async def test_who_finds_no_room_after_resuming_waits_a_minute_and_not_for_the_pause(
    azure: Azure, account: Account
) -> None:
    async with product(account, ENFORCE + "limits: {concurrentUpdates: 1}\n") as app:
        await app.pauses.pause(by="operator", why=None, now=NOW)
        clusters = [azure.aks.add(f"aks-{number}") for number in range(2)]
        for cluster in clusters:
            await app.look(cluster)
        await app.pauses.resume(by="operator", now=NOW + MINUTE)

        for cluster in clusters:
            await app.look(cluster, now=NOW + MINUTE)

        waits = (await app.record(clusters[1])).waiting
        assert waits is not None
        assert (waits.reason, waits.look_again_at) == (Reason.LIMIT_REACHED, NOW + MINUTE + LOOK_AGAIN)


async def test_resuming_what_is_not_paused_forgets_the_failures_and_notes_nothing(app: Product, azure: Azure) -> None:
    now = await fail(app, azure, "aks-1", "aks-2")

    for _ in range(2):
        await app.pauses.resume(by="operator", now=now)

    assert (await app.ledger.enforcement()).failures == ()
    assert await lines(app, "resumed") == []


async def test_a_pause_holds_back_nothing_in_audit_and_an_audit_run_leaves_its_waits_alone(
    app: Product, azure: Azure
) -> None:
    await app.pauses.pause(by="operator", why=None, now=NOW)
    held, fresh = azure.aks.add("aks-1"), azure.aks.add("aks-2")
    await app.look(held)
    before = await app.record(held)

    shard = await sweep(app, now=NOW + MINUTE, mode=Mode.AUDIT)

    assert shard.counts == {"write:not-as-asked": 2}
    assert shard.enqueued == 0
    assert await app.record(held) == before
    assert (await app.record(fresh)).reasons == (Reason.NOT_AS_ASKED,)


async def test_a_cluster_that_waits_for_a_resume_and_is_deleted_is_gone(app: Product, azure: Azure) -> None:
    await app.pauses.pause(by="operator", why=None, now=NOW)
    cluster = azure.aks.add("aks-1")
    await app.look(cluster)
    azure.aks.delete(cluster.id)

    shard = await sweep(app, now=NOW + MINUTE)
    await app.look(cluster, now=NOW + MINUTE)

    assert shard.enqueued == 1
    assert (await app.record(cluster)).reasons == (Reason.GONE,)


async def test_a_cluster_that_is_encrypted_by_hand_meanwhile_waits_no_longer(app: Product, azure: Azure) -> None:
    await app.pauses.pause(by="operator", why=None, now=NOW)
    cluster = azure.aks.add("aks-1")
    await app.look(cluster)
    profile = {"kubernetesResourceObjectEncryptionProfile": {"infrastructureEncryption": "Enabled"}}
    azure.aks.change(cluster.id, lambda document: document["properties"].update(securityProfile=profile))

    shard = await sweep(app, now=NOW + MINUTE)
    await app.look(cluster, now=NOW + MINUTE)

    assert shard.enqueued == 1
    assert (await app.record(cluster)).reasons == (Reason.AS_ASKED,)


async def test_a_throttled_cluster_keeps_its_time_through_a_pause(app: Product, azure: Azure) -> None:
    cluster = azure.aks.add("aks-1")
    azure.faults.fail_next("PUT", cluster.name, 429, code="Throttled", message="later", headers={"Retry-After": "600"})
    await app.look(cluster)
    await app.pauses.pause(by="operator", why=None, now=NOW + MINUTE)

    during = await app.look(cluster, now=NOW + MINUTE)
    await app.pauses.resume(by="operator", now=NOW + 2 * MINUTE)
    after = await app.look(cluster, now=NOW + 2 * MINUTE)

    assert during is not None
    assert during.reasons == (Reason.THROTTLED,)
    assert after is not None
    assert after.waiting is not None
    assert after.waiting.look_again_at == NOW + timedelta(seconds=600)
    assert len(azure.journal.matching("PUT", cluster.name)) == 1


async def test_a_key_s_cluster_that_is_held_back_is_not_looked_at_closely_again_until_it_may_go_on(
    azure: Azure, account: Account
) -> None:
    vault = azure.keyvault.add_vault("kv-kms-weu")
    azure.keyvault.add_key(vault, "etcd")
    cluster = azure.aks.add("aks-1")
    azure.access.assign(cluster.principal_id, "Key Vault Crypto User", VAULT)
    azure.access.assign(cluster.principal_id, "Key Vault Reader", VAULT)
    async with product(account, KEY_TARGET) as app:
        await app.pauses.pause(by="operator", why=None, now=NOW)
        record = await app.look(cluster)

        held = await sweep(app, now=NOW + MINUTE)
        await app.pauses.resume(by="operator", now=NOW + 2 * MINUTE)
        free = await sweep(app, now=NOW + 2 * MINUTE)
        await app.look(cluster, now=NOW + 2 * MINUTE)

        assert record is not None
        assert record.reasons[:2] == (Reason.PAUSED, Reason.NOT_AS_ASKED)
        assert (held.counts, held.enqueued) == ({"wait:paused": 1}, 0)
        assert (free.counts, free.enqueued) == ({"look-closer:prerequisites-unknown": 1}, 1)
        assert puts(azure, cluster) == 1


# windows


OPENS = NOW + 3 * DAY


@dataclass(frozen=True, slots=True)
class Windowed(PolicyInForce):
    """A policy whose next window opens at a moment that the test names."""

    opens: datetime = OPENS

    def assignment(self, cluster: Cluster, now: datetime) -> Assignment:
        """The assignment; until the window opens it says when."""
        asked = PolicyInForce.assignment(self, cluster, now)
        return replace(asked, window_opens=self.opens if now < self.opens else None)


def windowed(app: Product, opens: datetime = OPENS) -> Product:
    """The same rooms with a window that opens later."""
    policy = Windowed(app.reconciler.policy.policy, opens=opens)
    return replace(app, reconciler=replace(app.reconciler, policy=policy), sweeper=replace(app.sweeper, policy=policy))


async def test_a_write_waits_for_its_window_and_is_made_once_when_it_opens(app: Product, azure: Azure) -> None:
    app = windowed(app)
    cluster = azure.aks.add("aks-1")

    record = await app.look(cluster)

    assert record is not None
    assert (record.action, record.reasons) == (Action.WAIT, (Reason.WINDOW_CLOSED, Reason.NOT_AS_ASKED))
    assert record.change is not None
    assert record.waiting is not None
    assert record.waiting.look_again_at == OPENS
    await assert_nothing_more_is_written(app, azure, cluster, NOW + HOUR)
    assert await app.messages() == 1
    await app.look_again(cluster, now=OPENS)
    azure.clock.advance(UPDATE)
    await app.look_again(cluster, now=OPENS + UPDATE)
    assert (await app.record(cluster)).reasons == (Reason.AS_ASKED,)
    assert puts(azure, cluster) == 1
    await assert_nothing_more_is_written(app, azure, cluster, OPENS + HOUR)


async def test_the_messages_of_a_wait_of_days_follow_each_other_without_a_call(app: Product, azure: Azure) -> None:
    app = windowed(app)
    cluster = azure.aks.add("aks-1")
    await app.look(cluster)
    calls, version = len(azure.journal.calls), (await app.record(cluster)).version

    for hours in range(1, 72):
        await app.look_again(cluster, now=NOW + timedelta(hours=hours))

    assert len(azure.journal.calls) == calls
    assert (await app.record(cluster)).version == version
    assert await app.messages() == 72


async def test_sweeps_of_a_closed_window_count_it_and_ask_for_nothing(app: Product, azure: Azure) -> None:
    app = windowed(app)
    cluster = azure.aks.add("aks-1")
    first = await sweep(app, now=NOW)
    await app.look(cluster, now=NOW)

    later = [await sweep(app, now=NOW + timedelta(hours=hours)) for hours in (1, 30, 71)]

    assert (first.counts, first.enqueued) == ({"wait:window-closed": 1}, 1)
    assert [(shard.counts, shard.enqueued) for shard in later] == [({"wait:window-closed": 1}, 0)] * 3


@pytest.mark.parametrize(
    ("opens", "reasons"),
    [
        pytest.param(NOW, (Reason.UPDATING,), id="open-now"),
        pytest.param(NOW + HOUR, (Reason.WINDOW_CLOSED, Reason.NOT_AS_ASKED), id="opens-sooner"),
    ],
)
async def test_a_policy_with_another_window_is_found_by_the_sweep(
    app: Product, azure: Azure, opens: datetime, reasons: tuple[Reason, ...]
) -> None:
    cluster = azure.aks.add("aks-1")
    await windowed(app).look(cluster)
    changed = windowed(app, opens)

    shard = await sweep(changed, now=NOW + MINUTE)
    record = await changed.look(cluster, now=NOW + MINUTE)

    assert shard.enqueued == 1
    assert record is not None
    assert record.reasons == reasons
    assert record.waiting is not None
    assert record.waiting.look_again_at == max(opens, NOW + MINUTE + LOOK_AGAIN)


async def test_a_pause_comes_before_a_window_and_gives_way_to_it(app: Product, azure: Azure) -> None:
    app = windowed(app)
    cluster = azure.aks.add("aks-1")
    await app.look(cluster)

    await app.pauses.pause(by="operator", why=None, now=NOW + HOUR)
    paused = await _swept_and_looked_at(app, cluster, NOW + HOUR)
    await app.pauses.resume(by="operator", now=NOW + 2 * HOUR)
    closed = await _swept_and_looked_at(app, cluster, NOW + 2 * HOUR - MINUTE)
    await app.look_again(cluster, now=NOW + 2 * HOUR)

    assert paused == (Reason.PAUSED, NOW + 2 * HOUR)
    assert closed == (Reason.WINDOW_CLOSED, NOW + 2 * HOUR), "the message that is under way is the sooner one"
    assert await _waits(app, cluster) == (Reason.WINDOW_CLOSED, OPENS)
    assert puts(azure, cluster) == 0


async def _swept_and_looked_at(app: Product, cluster: SimulatedCluster, now: datetime) -> tuple[Reason, datetime]:
    assert (await sweep(app, now=now)).enqueued == 1
    await app.look(cluster, now=now)
    return await _waits(app, cluster)


async def _waits(app: Product, cluster: SimulatedCluster) -> tuple[Reason, datetime]:
    waiting = (await app.record(cluster)).waiting
    assert waiting is not None
    return waiting.reason, waiting.look_again_at


async def test_a_cluster_that_gets_busy_while_its_window_is_closed_is_looked_at_before_it_opens(
    app: Product, azure: Azure
) -> None:
    app = windowed(app)
    cluster = azure.aks.add("aks-1")
    await app.look(cluster)
    cluster.document["properties"]["provisioningState"] = "Updating"

    record = await app.look(cluster, now=NOW + HOUR)

    assert record is not None
    assert record.waiting is not None
    assert (record.reasons, record.waiting.look_again_at) == ((Reason.BUSY,), NOW + HOUR + LOOK_AGAIN)
