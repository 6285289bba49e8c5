"""The fleet: what a sweep records itself, what it enqueues, and what it leaves alone."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from local.simulator import SUBSCRIPTION
from shared.clusters import ClusterId
from shared.errors import Malformed
from shared.events import Scope, ShardRequest
from shared.keys import KeyId
from shared.policy import Mode, Policy
from shared.reasons import Reason
from shared.sweeper import EVERYTHING
from tests.product import LOOK_AGAIN, NOW, Product, product

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from local.simulator import Azure
    from local.storage import Account
    from shared.records import Shard

OTHER = "00000000-0000-0000-0000-000000000002"
STRANGER = "00000000-0000-0000-0000-00000000dead"
KEY_URL = "https://kv-kms-weu.vault.azure.net/keys/etcd"


@pytest.fixture
async def app(azure: Azure, account: Account) -> AsyncIterator[Product]:  # noqa: ARG001  the clients reach it
    """The product, enforcing platform-managed keys."""
    async with product(account) as built:
        yield built


async def sweep(app: Product, *, hours: int = 0, mode: Mode | None = None, scope: Scope = EVERYTHING) -> Shard:
    shard = await app.sweeper.sweep(
        ShardRequest("run-1", SUBSCRIPTION, "timer", mode, scope), now=NOW + timedelta(hours=hours)
    )
    assert shard is not None
    return shard


async def test_each_cluster_is_counted_once_with_its_decision(app: Product, azure: Azure) -> None:
    azure.aks.page_size = 2
    azure.aks.add("aks-new")
    azure.aks.add("aks-ok", encryption="platform-managed")
    azure.aks.add("aks-old", kubernetes="1.32.1")
    azure.aks.add("aks-busy", state="Updating")
    azure.aks.add("aks-stopped", power="Stopped")

    shard = await sweep(app)

    assert shard.clusters == 5
    assert shard.counts == {
        "write:not-as-asked": 1,
        "nothing:as-asked": 1,
        "report:kubernetes-too-old": 1,
        "wait:busy": 1,
        "report:stopped": 1,
    }


async def test_what_needs_a_write_or_a_wait_is_enqueued_and_the_rest_recorded(app: Product, azure: Azure) -> None:
    azure.aks.add("aks-new")
    azure.aks.add("aks-busy", state="Updating")
    azure.aks.add("aks-ok", encryption="platform-managed")
    azure.aks.add("aks-old", kubernetes="1.32.1")

    shard = await sweep(app)

    assert shard.enqueued == 2
    assert await app.messages() == 2
    assert {row["RowKey"]: row["reason"] for row in await app.rows("clusters")} == {
        "rg-apps|aks-ok": "as-asked",
        "rg-apps|aks-old": "kubernetes-too-old",
    }


async def test_a_second_sweep_writes_no_row(app: Product, azure: Azure) -> None:
    for number in range(12):
        azure.aks.add(f"aks-{number}", encryption="platform-managed")
    await sweep(app)
    before, activity = await app.rows("clusters"), await app.rows("activity")

    await sweep(app, hours=1)

    assert await app.rows("clusters") == before
    assert await app.rows("activity") == activity
    assert azure.journal.writes() == ()


async def test_an_audit_run_records_and_enqueues_no_write(app: Product, azure: Azure) -> None:
    azure.aks.add("aks-new")

    shard = await sweep(app, mode=Mode.AUDIT)

    assert shard.enqueued == 0
    (row,) = await app.rows("clusters")
    assert (row["action"], row["mode"]) == ("write", "audit")


async def test_ten_sweeps_of_a_waiting_cluster_leave_its_one_message(app: Product, azure: Azure) -> None:
    cluster = azure.aks.add("aks-busy", state="Updating")
    await app.look(cluster)

    for _ in range(10):
        await sweep(app)

    assert await app.messages() == 1


async def test_an_overdue_look_is_sent_again(app: Product, azure: Azure) -> None:
    cluster = azure.aks.add("aks-busy", state="Updating")
    await app.look(cluster)

    shard = await sweep(app, hours=1)

    assert shard.enqueued == 1


async def test_a_claim_whose_look_was_lost_is_looked_at_again(app: Product, azure: Azure) -> None:
    cluster = azure.aks.add("aks-new")
    await app.look(cluster)
    azure.clock.advance(timedelta(minutes=10))

    shard = await sweep(app, hours=1)
    assert shard.enqueued == 1

    await app.look(cluster, now=NOW + timedelta(hours=1))
    assert (await app.record(cluster)).reasons == (Reason.AS_ASKED,)


async def test_a_cluster_absent_from_the_list_is_looked_at_and_not_closed(app: Product, azure: Azure) -> None:
    cluster = azure.aks.add("aks-1", encryption="platform-managed")
    await sweep(app)
    azure.aks.delete(cluster.id)

    shard = await sweep(app, hours=1)

    assert shard.enqueued == 1
    assert (await app.record(cluster)).closed_at is None
    await app.look(cluster, now=NOW + timedelta(hours=1))
    assert (await app.record(cluster)).reasons == (Reason.GONE,)
    assert (await sweep(app, hours=2)).enqueued == 0


async def test_a_subscription_that_can_not_be_read_closes_nothing(app: Product, azure: Azure) -> None:
    cluster = azure.aks.add("aks-1", encryption="platform-managed")
    await sweep(app)
    azure.faults.fail_next("GET", "managedClusters$", 403, code="AuthorizationFailed", message="no")

    shard = await sweep(app, hours=1)

    assert "AuthorizationFailed" in (shard.failure or "")
    assert shard.enqueued == 0
    assert (await app.record(cluster)).reasons == (Reason.AS_ASKED,)


async def test_a_throttled_list_comes_back_and_the_shard_is_not_done(app: Product, azure: Azure) -> None:
    azure.faults.fail_next(
        "GET", "managedClusters$", 429, code="Throttled", message="later", headers={"Retry-After": "600"}
    )

    shard = await app.sweeper.sweep(ShardRequest("run-1", SUBSCRIPTION, "timer"), now=NOW)

    assert shard is None
    assert await app.messages("shards") == 1


async def test_each_distinct_key_is_asked_for_once_a_sweep_and_missing_users_are_added(
    app: Product, azure: Azure
) -> None:
    for number in range(3):
        azure.aks.add(f"aks-{number}", encryption="customer-managed", key_id=KEY_URL)
    await sweep(app)
    first = await app.messages("keys")
    users = app.tables.get_table_client("keyusers")
    async for row in users.list_entities():
        await users.delete_entity(row)

    await sweep(app, hours=1)

    assert await app.messages("keys") == first + 1
    found = [user.cluster.name for user in await app.keys.users(KeyId("kv-kms-weu", "etcd"))]
    assert sorted(found) == ["aks-0", "aks-1", "aks-2"]


async def test_a_run_counts_its_shards_and_ends(app: Product, azure: Azure) -> None:
    azure.aks.add("aks-ok", encryption="platform-managed")
    azure.aks.add("aks-old", subscription=OTHER, kubernetes="1.32.1")

    run = await app.sweeper.start("run-1", asked_by="operator", now=NOW)
    assert run.shards == 2
    assert await app.messages("shards") == 2
    for subscription in (SUBSCRIPTION, OTHER, OTHER):
        await app.sweeper.sweep(ShardRequest("run-1", subscription, "operator"), now=NOW + LOOK_AGAIN)

    found = await app.ledger.run("run-1")
    assert found is not None
    _, shards = found
    assert sorted(shard.clusters for shard in shards) == [1, 1]


async def test_a_run_over_one_subscription_has_one_shard(app: Product, azure: Azure) -> None:
    azure.aks.add("aks-1", subscription=OTHER)

    run = await app.sweeper.start("run-1", asked_by="operator", now=NOW, scope=Scope((OTHER,)))

    assert run.shards == 1


async def test_a_run_over_a_subscription_that_is_not_swept_is_refused(app: Product) -> None:
    with pytest.raises(Malformed, match=STRANGER):
        await app.sweeper.start("run-1", asked_by="operator", now=NOW, scope=Scope((STRANGER,)))

    assert await app.messages("shards") == 0


async def test_a_run_over_a_cluster_of_a_subscription_that_is_not_swept_is_refused(app: Product) -> None:
    scope = Scope(clusters=(ClusterId(STRANGER, "rg-apps", "aks-1"),))

    with pytest.raises(Malformed, match=STRANGER):
        await app.sweeper.start("run-1", asked_by="operator", now=NOW, scope=scope)

    assert await app.messages("shards") == 0


async def test_a_run_over_a_cluster_has_the_shard_of_its_subscription_and_says_what_it_is_about(
    app: Product, azure: Azure
) -> None:
    azure.aks.add("aks-1")
    azure.aks.add("aks-2", subscription=OTHER)
    scope = Scope(clusters=(ClusterId(OTHER, "rg-apps", "aks-2"),))

    run = await app.sweeper.start("run-1", asked_by="operator", now=NOW, scope=scope)

    assert run.shards == await app.messages("shards") == 1
    found = await app.ledger.run("run-1")
    assert found is not None
    assert found[0] == run
    assert found[0].scope == {"clusters": [str(scope.clusters[0])]}


async def test_a_scope_leaves_the_other_clusters_of_its_subscription_alone(app: Product, azure: Azure) -> None:
    meant = azure.aks.add("aks-1", encryption="platform-managed")
    azure.aks.add("aks-2", encryption="platform-managed")
    azure.aks.add("aks-3")

    shard = await sweep(app, scope=Scope(clusters=(ClusterId.parse(meant.id),)))

    assert (shard.clusters, shard.enqueued, shard.counts) == (1, 0, {"nothing:as-asked": 1})
    assert [row["RowKey"].split("|")[1] for row in await app.rows("clusters")] == ["aks-1"]


async def test_a_cluster_that_is_gone_and_not_meant_is_not_looked_at(app: Product, azure: Azure) -> None:
    meant = azure.aks.add("aks-1", encryption="platform-managed")
    gone = azure.aks.add("aks-2", encryption="platform-managed")
    await sweep(app)
    azure.aks.delete(gone.id)

    narrow = await sweep(app, hours=1, scope=Scope(clusters=(ClusterId.parse(meant.id),)))
    wide = await sweep(app, hours=1)

    assert (narrow.enqueued, wide.enqueued) == (0, 1)


async def test_a_scope_by_group_holds_its_clusters_in_any_casing(app: Product, azure: Azure) -> None:
    azure.aks.add("aks-1", encryption="platform-managed", group="RG-Payments")
    azure.aks.add("aks-2", encryption="platform-managed")

    shard = await sweep(app, scope=Scope.read({"resourceGroups": ["rg-PAYMENTS"]}))

    assert shard.clusters == 1


# exemptions

EXEMPTING = """
version: 1
targets: [{keyManagement: platform-managed, match: {names: ["aks-*"]}}]
exemptions:
  - {match: {names: ["*-old-*"]}, owner: a@example.com, reason: is retired, expires: 2027-03-31}
  - {match: {names: ["aks-1"]}, owner: b@example.com, reason: is over, expires: 2026-01-31}
  - {match: {names: ["aks-9"]}, owner: c@example.com, reason: matches nothing, expires: 2027-03-31}
"""


async def test_a_shard_counts_what_each_exemption_matches_whatever_else_is_asked(
    azure: Azure, account: Account
) -> None:
    azure.aks.page_size = 5
    for number in range(12):
        azure.aks.add(f"aks-old-{number:02d}")
    azure.aks.add("other-old-1", encryption="platform-managed")
    azure.aks.add("aks-1", tags={"kms-enforcer": "off"})

    async with product(account, EXEMPTING) as app:
        shard = await sweep(app)
        again = await sweep(app)

    in_force, ended, unused = (one.id for one in document().exemptions)
    assert {exemption: matched.count for exemption, matched in shard.exempted.items()} == {
        "tag": 1,
        in_force: 13,
        ended: 1,
        unused: 0,
    }
    names = [cluster_id.name for cluster_id in shard.exempted[in_force].clusters]
    assert names == [f"aks-old-{number:02d}" for number in range(10)]
    assert again.exempted == shard.exempted


def document() -> Policy:
    read, faults = Policy.read(EXEMPTING)
    assert read is not None, faults
    return read


async def run_everything(app: Product, name: str, *, hours: int = 0, end: bool = True) -> None:
    moment = NOW + timedelta(hours=hours)
    await app.sweeper.start(name, asked_by="timer", now=moment)
    if end:
        await app.sweeper.sweep(ShardRequest(name, SUBSCRIPTION, "timer"), now=moment + LOOK_AGAIN)


async def last_sweep(app: Product) -> str | None:
    found = await app.ledger.last_sweep()
    return found[0].id if found is not None else None


async def test_the_last_sweep_is_the_last_one_that_is_done(app: Product, azure: Azure) -> None:
    azure.aks.add("aks-1", encryption="platform-managed")

    found = [await last_sweep(app)]
    await run_everything(app, "sweep-1", end=False)
    found.append(await last_sweep(app))
    await run_everything(app, "sweep-2")
    found.append(await last_sweep(app))
    await run_everything(app, "sweep-3", hours=1, end=False)
    found.append(await last_sweep(app))
    await run_everything(app, "sweep-4", hours=2, end=False)
    found.append(await last_sweep(app))
    await run_everything(app, "sweep-4", hours=2)
    found.append(await last_sweep(app))

    assert found == [None, None, "sweep-2", "sweep-2", "sweep-2", "sweep-4"]


async def test_a_run_over_a_part_of_the_fleet_is_no_sweep(app: Product, azure: Azure) -> None:
    azure.aks.add("aks-1", encryption="platform-managed")
    await run_everything(app, "sweep-1")

    await app.sweeper.start("run-1", asked_by="operator", now=NOW, scope=Scope(groups=("rg-apps",)))
    await app.sweeper.sweep(ShardRequest("run-1", SUBSCRIPTION, "operator"), now=NOW)

    assert await last_sweep(app) == "sweep-1"
    assert await app.ledger.run("last") is None


# customer-managed keys

KEYED = """
version: 1
mode: enforce
acceptIrreversible: true
targets:
  - keyManagement: customer-managed
    vault: /subscriptions/{subscription}/resourceGroups/rg-keys/providers/Microsoft.KeyVault/vaults/kv-kms-weu
    key: etcd
"""


@pytest.mark.parametrize("mode", [None, Mode.AUDIT], ids=["enforce", "audit"])
async def test_what_needs_a_closer_look_is_enqueued_in_audit_too(
    azure: Azure, account: Account, mode: Mode | None
) -> None:
    azure.aks.add("aks-new")
    azure.aks.add("aks-ok", encryption="customer-managed", key_id=KEY_URL)
    azure.aks.add("aks-other", encryption="platform-managed")

    async with product(account, KEYED) as app:
        shard = await sweep(app, mode=mode)

        assert shard.counts == {
            "look-closer:prerequisites-unknown": 1,
            "nothing:as-asked": 1,
            "report:encrypted-otherwise": 1,
        }
        assert shard.enqueued == await app.messages() == 1
    assert azure.journal.matching("GET", "Microsoft.KeyVault") == (), "a sweep looks at no vault"
