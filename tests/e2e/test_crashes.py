"""The process killed at the worst moments: each ends right, with one accepted write and its `before` kept."""

from __future__ import annotations

import json
from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from tests.e2e.app import SOON

if TYPE_CHECKING:
    from local.simulator import Azure
    from local.simulator.aks.state import SimulatedCluster
    from tests.e2e.app import App
    from tests.e2e.conftest import Prepare
    from tests.e2e.gateway import Gateway

SECOND, HOUR = timedelta(seconds=1), timedelta(hours=1)
WRITING = "POST|PUT|PATCH|MERGE|DELETE"


def assert_written_once(app: App, cluster: SimulatedCluster, outcomes: dict[str, int]) -> None:
    """One accepted write; what was there before is kept with every claim; nothing is held any more."""
    lines = app.activity(cluster, "write")

    assert len(app.puts(cluster)) == 1
    assert cluster.encryption == "platform-managed"
    assert Counter(line["outcome"] for line in lines) == outcomes
    for line in lines:
        before, after = json.loads(line["before"]), json.loads(line["after"])
        assert (before["kms_enabled"], before["infrastructure"]) == (False, False)
        assert after == before | {"infrastructure": True}
    assert "claim" not in app.row(cluster)
    assert {row["holder"] for row in app.rows("enforcement") if "holder" in row} == {""}


def restart_and_see_it_updating(app: App, cluster: SimulatedCluster) -> None:
    """Start again, and wait for a look that finds Azure at work: a write that is there, but not in effect."""
    looks = len(app.azure.journal.matching("GET", f"{cluster.name}$"))
    app.restart()
    app.wait_for(lambda: len(app.azure.journal.matching("GET", f"{cluster.name}$")) > looks + 1, "two looks")
    row = app.row(cluster)

    assert (row["action"], row["reason"]) == ("wait", "updating")
    assert "claim" in row


def assert_swept_again_it_writes_nothing(app: App) -> None:
    writes, versions = len(app.azure.journal.writes()), app.versions()
    app.sweep()
    app.wait_quiet()

    assert len(app.azure.journal.writes()) == writes
    assert app.versions() == versions


def test_killed_between_claim_and_put_it_writes_after_the_restart(app: App, azure: Azure) -> None:
    azure.aks.update_duration = SECOND
    cluster = azure.aks.add("aks-orders")
    etag = cluster.etag
    app.start()

    azure.faults.call_next("PUT", cluster.name, app.host.kill, when="before")
    app.host.invoke("sweep_fleet")
    azure.wait_for(lambda: not azure.faults.pending)
    app.host.child.wait(within=SOON)
    claimed = app.row(cluster)
    app.restart()
    app.wait_for_reason("as-asked", cluster)
    app.wait_quiet()

    assert json.loads(claimed["claim"])["change"]["etag"] == etag
    assert len(azure.journal.matching("PUT", cluster.name)) == 2
    assert_written_once(app, cluster, {"withdrawn": 1, "done": 1})
    assert_swept_again_it_writes_nothing(app)


def test_killed_between_claim_and_slots_it_writes_after_the_restart(
    prepare: Prepare, azure: Azure, table_gateway: Gateway
) -> None:
    azure.aks.update_duration = SECOND
    cluster = azure.aks.add("aks-orders")
    app = prepare(settings={"AzureWebJobsStorage__tableServiceUri": table_gateway.uri})
    app.start()

    table_gateway.call_at("POST", "batch", app.kill)
    app.host.invoke("sweep_fleet")
    app.host.child.wait(within=SOON)
    table_gateway.forget()
    claimed = app.row(cluster)
    app.restart()
    app.wait_for_reason("as-asked", cluster)
    app.wait_quiet()

    assert "claim" in claimed
    assert len(azure.journal.matching("PUT", cluster.name)) == 1
    assert_written_once(app, cluster, {"withdrawn": 1, "done": 1})
    assert_swept_again_it_writes_nothing(app)


def test_killed_between_the_row_of_a_wait_and_its_message_it_goes_on_waiting(
    prepare: Prepare, azure: Azure, queue_gateway: Gateway
) -> None:
    azure.aks.update_duration = SECOND
    cluster = azure.aks.create("aks-orders", duration=HOUR)
    app = prepare(settings={"AzureWebJobsStorage__queueServiceUri": queue_gateway.uri})
    app.start()
    app.sweep()
    app.wait_for_reason("busy", cluster)
    first = app.row(cluster)["token"]

    def kill_once_the_row_is_there() -> bool:
        return app.row(cluster)["token"] != first and app.kill()

    queue_gateway.call_at("POST", "/clusters/messages", kill_once_the_row_is_there)
    app.host.child.wait(within=SOON)
    queue_gateway.forget()
    app.restart()
    azure.clock.advance(HOUR)
    app.wait_for_reason("as-asked", cluster)
    app.wait_quiet()

    assert_written_once(app, cluster, {"done": 1})
    assert_swept_again_it_writes_nothing(app)


def test_killed_between_put_and_reply_it_finds_its_own_write(app: App, azure: Azure) -> None:
    azure.aks.update_duration = HOUR
    cluster = azure.aks.add("aks-orders")
    app.start()

    azure.faults.call_next("PUT", cluster.name, app.host.kill, when="after")
    app.host.invoke("sweep_fleet")
    azure.wait_for(lambda: not azure.faults.pending)
    restart_and_see_it_updating(app, cluster)
    azure.clock.advance(HOUR)
    app.wait_for_reason("as-asked", cluster)
    app.wait_quiet()

    assert len(azure.journal.matching("PUT", cluster.name)) == 1
    assert_written_once(app, cluster, {"done": 1})
    assert_swept_again_it_writes_nothing(app)


def test_killed_between_reply_and_record_it_finds_its_own_write(
    prepare: Prepare, azure: Azure, table_gateway: Gateway
) -> None:
    azure.aks.update_duration = HOUR
    cluster = azure.aks.add("aks-orders")
    app = prepare(settings={"AzureWebJobsStorage__tableServiceUri": table_gateway.uri})
    app.start()

    def kill_once_written() -> bool:
        return bool(app.puts(cluster)) and app.kill()

    table_gateway.call_at(WRITING, "/activity", kill_once_written)
    app.host.invoke("sweep_fleet")
    app.host.child.wait(within=SOON)
    table_gateway.forget()
    unrecorded = app.activity(cluster, "write")
    restart_and_see_it_updating(app, cluster)
    azure.clock.advance(HOUR)
    app.wait_for_reason("as-asked", cluster)
    app.wait_quiet()

    assert unrecorded == []
    assert len(azure.journal.matching("PUT", cluster.name)) == 1
    assert_written_once(app, cluster, {"done": 1})
    assert_swept_again_it_writes_nothing(app)


def test_killed_while_it_tells_of_a_rotation_it_goes_on_after_the_restart(
    prepare: Prepare, azure: Azure, queue_gateway: Gateway
) -> None:
    vault = azure.keyvault.add_vault("kv-kms-weu")
    key = azure.keyvault.add_key(vault, "etcd")
    users = [
        azure.aks.add(f"aks-{number}", encryption="customer-managed", key_id=key.uri, vault_id=vault.id)
        for number in range(4)
    ]
    app = prepare(settings={"AzureWebJobsStorage__queueServiceUri": queue_gateway.uri})
    app.start()
    app.subscribe()
    app.sweep()
    app.wait_for(lambda: "k" in {row["RowKey"] for row in app.rows("rotations")}, "the key and its baseline")
    app.wait_quiet()
    sent: list[str] = []

    def kill_at_the_third() -> bool:
        sent.append("message")
        if len(sent) < 3:
            return False
        return app.kill()

    queue_gateway.call_at("POST", "/clusters/messages", kill_at_the_third)
    version = azure.keyvault.rotate(vault, key)
    app.host.child.wait(within=SOON)
    queue_gateway.forget()
    half_way = rotation(app, version)
    calls = len(azure.journal.calls)
    app.restart()
    app.wait_for(lambda: "fannedOutAt" in rotation(app, version), "everybody to be told")
    app.wait_quiet()

    looked_at = {
        call.path.rpartition("/")[2] for call in azure.journal.calls[calls:] if "/managedClusters/" in call.path
    }
    assert half_way["how"] == "event"
    assert "fannedOutAt" not in half_way
    assert looked_at == {cluster.name for cluster in users}
    assert Counter(row["how"] for row in app.rows("rotations") if row["RowKey"].startswith("v|")) == {
        "baseline": 1,
        "event": 1,
    }
    assert azure.journal.writes() == ()


def test_a_hundred_events_and_ten_sweeps_for_a_busy_cluster_leave_one_pending_message(
    prepare: Prepare, azure: Azure
) -> None:
    app = prepare(settings={"LOOK_AGAIN_SECONDS": "600"})
    app.start()
    app.subscribe()
    cluster = azure.aks.create("aks-orders", duration=HOUR)
    app.wait_for_reason("busy", cluster)
    event = azure.eventgrid.delivered[0].payload

    answer = app.host.notify("on_cluster_event", [event | {"id": f"event-{number}"} for number in range(100)])
    for _ in range(10):
        app.sweep()
    app.host.wait_for("reconcile_cluster", times=101)
    app.host.stop()  # whatever is in flight is finished first

    assert answer.status == 202
    assert app.messages("clusters") == 1
    assert app.row(cluster)["reason"] == "busy"
    assert azure.journal.writes() == ()


def rotation(app: App, version: str) -> dict[str, Any]:
    """The row of one version; empty if there is none yet."""
    return next((row for row in app.rows("rotations") if row["RowKey"] == f"v|{version}"), {})
