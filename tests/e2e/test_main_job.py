"""The main job, edge to edge: what ends up in Azure, what is remembered, and that a second time changes nothing."""

from __future__ import annotations

from copy import deepcopy
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from azure.mgmt.containerservice.models import ManagedCluster

from local.simulator import SUBSCRIPTION

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from local.simulator import Azure
    from local.simulator.aks.state import SimulatedCluster
    from local.simulator.journal import Call
    from tests.e2e.app import App

SECOND = timedelta(seconds=1)
ENCRYPTED = {"infrastructureEncryption": "Enabled"}


def leaves(document: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every value of a document with its path."""
    parts: Iterable[tuple[Any, Any]]
    if isinstance(document, dict):
        parts = document.items()
    elif isinstance(document, list):
        parts = enumerate(document)
    else:
        yield path, document
        return
    for name, value in parts:
        yield from leaves(value, f"{path}.{name}")


def etag_of(put: Call) -> str:
    """The eTag that a PUT depends on; the SDK puts it in quotes, as HTTP asks."""
    return put.headers["if-match"].strip('"')


def assert_written_as_read(app: App, cluster: SimulatedCluster, before: dict[str, Any]) -> None:
    """One PUT, at the eTag that was read, of the document that was read, with only the KMS profile changed."""
    (put,) = app.puts(cluster)
    expected = ManagedCluster(deepcopy(before)).as_dict(exclude_readonly=True)
    expected["properties"]["securityProfile"] = {
        **(expected["properties"].get("securityProfile") or {}),
        "kubernetesResourceObjectEncryptionProfile": ENCRYPTED,
    }
    read = dict(leaves(before))
    new = {path: value for path, value in leaves(put.body) if path not in read or read[path] != value}

    assert put.method == "PUT"
    assert etag_of(put) == before["eTag"]
    assert put.body == expected
    assert new == {
        ".properties.securityProfile.kubernetesResourceObjectEncryptionProfile.infrastructureEncryption": "Enabled"
    }


def assert_a_second_time_changes_nothing(app: App) -> None:
    """Every event delivered once more, and the fleet swept once more: nothing is written, in Azure or in a table."""
    app.wait_quiet()
    writes, versions = len(app.azure.journal.writes()), app.versions()
    app.deliver_again(app.azure.eventgrid.delivered)
    app.sweep()
    app.wait_quiet()

    assert len(app.azure.journal.writes()) == writes
    assert app.versions() == versions


def test_new_and_existing_clusters_are_encrypted_once_and_the_others_left_alone(app: App, azure: Azure) -> None:
    azure.aks.update_duration = SECOND
    orders = azure.aks.add("aks-orders", tags={"env": "prod"}, properties={"disableLocalAccounts": True})
    billing = azure.aks.add("aks-billing", kubernetes="1.32.9")
    search = azure.aks.add("aks-search", encryption="platform-managed")
    before = orders.copy()
    app.start()
    app.subscribe()

    checkout = azure.aks.create("aks-checkout", duration=SECOND, identity="system-assigned")
    app.sweep()
    app.wait_for_reason("as-asked", orders, checkout, search)
    app.wait_quiet()

    assert [cluster.encryption for cluster in (orders, checkout, search)] == ["platform-managed"] * 3
    assert (billing.encryption, app.row(billing)["reason"]) == ("none", "kubernetes-too-old")
    assert [len(app.puts(cluster)) for cluster in (orders, checkout, search, billing)] == [1, 1, 0, 0]
    assert_written_as_read(app, orders, before)
    for cluster in (orders, checkout):
        (line,) = app.activity(cluster, "write")
        assert line["outcome"] == "done"
        assert line["etag"] == etag_of(app.puts(cluster)[0])
    assert all(call.headers.get("if-match") for call in azure.journal.matching("PUT", ""))
    assert {row["holder"] for row in app.rows("enforcement") if "holder" in row} == {""}
    assert_a_second_time_changes_nothing(app)


def test_events_delivered_twice_and_out_of_order_end_in_one_write(app: App, azure: Azure) -> None:
    azure.aks.update_duration = SECOND
    app.start()
    app.subscribe()

    azure.eventgrid.deliver_twice = True
    azure.eventgrid.hold()
    cluster = azure.aks.create("aks-checkout", duration=timedelta(0))
    azure.eventgrid.release(reverse=True)
    app.wait_for_reason("as-asked", cluster)
    app.wait_quiet()

    assert len(azure.eventgrid.delivered) == 8  # creation and our own write, begin and end, each twice
    assert len(azure.journal.matching("PUT", cluster.name)) == len(app.puts(cluster)) == 1
    assert cluster.encryption == "platform-managed"


def test_an_event_that_comes_before_its_cluster_is_visible_waits_for_it(app: App, azure: Azure) -> None:
    azure.aks.update_duration = SECOND
    app.start()
    app.subscribe()

    cluster = azure.aks.create("aks-checkout", duration=timedelta(hours=2), hidden_for=timedelta(hours=1))
    app.wait_for(lambda: len(app.rows("clusters")) == 1, "the event to be looked at")
    first = app.row(cluster)
    app.sweep()  # that Azure does not list it proves nothing
    azure.clock.advance(timedelta(hours=2))
    app.wait_for_reason("as-asked", cluster)
    app.wait_quiet()

    assert (first["reason"], first["action"]) == ("not-visible", "wait")
    assert len(azure.journal.matching("PUT", cluster.name)) == len(app.puts(cluster)) == 1


def test_each_version_of_a_key_is_logged_once_however_it_came_to_be_known(app: App, azure: Azure) -> None:
    vault = azure.keyvault.add_vault("kv-kms-weu")
    key = azure.keyvault.add_key(vault, "etcd")
    unused = azure.keyvault.add_key(vault, "unused")
    user = azure.aks.add("vendor", encryption="customer-managed", key_id=key.uri, vault_id=vault.id)
    first = key.current.version
    app.start()
    app.subscribe()

    app.sweep()
    app.wait_for(lambda: len(logged(app)) == 1, "the baseline")
    app.wait_quiet()  # a look that is still to come would find the next version before its event does
    looks = len(azure.journal.matching("GET", f"{user.name}$"))
    announced = azure.keyvault.rotate(vault, key)
    app.wait_for(lambda: announced in logged(app), "the version that an event announced")
    app.wait_quiet()
    looks_after = len(azure.journal.matching("GET", f"{user.name}$"))
    lost = azure.keyvault.rotate(vault, key, announce=False)
    app.sweep()
    app.wait_for(lambda: lost in logged(app), "the version whose event was lost")
    of_unused = azure.keyvault.rotate(vault, unused)
    app.wait_for(lambda: of_unused in logged(app), "the version of a key that no cluster uses")
    app.wait_quiet()

    rows = logged(app)
    event = next(delivery.payload for delivery in azure.eventgrid.delivered if delivery.payload["subject"] == "etcd")
    assert {version: row["how"] for version, row in rows.items() if row["PartitionKey"] == "kv-kms-weu|etcd"} == {
        first: "baseline",
        announced: "event",
        lost: "sweep",
    }
    assert rows[announced]["eventId"] == event["id"]
    assert all(row["fannedOutAt"] and row["created"] for row in rows.values())
    assert looks_after > looks  # whoever uses the key was looked at
    assert rows[of_unused]["how"] == "event"
    assert azure.journal.writes() == ()
    assert_a_second_time_changes_nothing(app)


def test_a_run_shows_what_it_decided_until_it_is_done(app: App, azure: Azure) -> None:
    azure.aks.update_duration = SECOND
    orders = azure.aks.add("aks-orders")
    azure.aks.add("aks-billing", kubernetes="1.32.9")
    azure.aks.add("aks-search", encryption="platform-managed")
    azure.subscriptions.add("00000000-0000-0000-0000-000000000002")
    app.start()

    audit = run(app, {"mode": "audit"})
    audited, writes = app.row(orders), len(azure.journal.writes())
    narrow = run(app, {"subscriptions": ["00000000-0000-0000-0000-000000000002"]})
    enforced = run(app, {})
    app.wait_for_reason("as-asked", orders)
    app.wait_quiet()
    again = run(app, {})

    found = {"nothing:as-asked": 1, "report:kubernetes-too-old": 1, "write:not-as-asked": 1}
    assert [done["decisions"] for done in (audit, narrow, enforced)] == [found, {}, found]
    assert [done["clusters"] for done in (audit, narrow, enforced)] == [3, 0, 3]
    assert [done["shards"] for done in (audit, narrow)] == [{"total": 2, "done": 2}, {"total": 1, "done": 1}]
    assert [done["enqueued"] for done in (audit, narrow, enforced)] == [0, 0, 1]
    assert (audited["action"], audited["mode"], writes) == ("write", "audit", 0)
    assert again["decisions"] == {"nothing:as-asked": 2, "report:kubernetes-too-old": 1}
    assert len(app.puts(orders)) == 1
    listed = {row["name"]: row["reason"] for row in app.get(f"/api/clusters?subscription={SUBSCRIPTION}")["clusters"]}
    assert listed == {"aks-orders": "as-asked", "aks-billing": "kubernetes-too-old", "aks-search": "as-asked"}


def logged(app: App) -> dict[str, dict[str, Any]]:
    """The versions of keys in the table, by version."""
    rows = {row["RowKey"].removeprefix("v|"): row for row in app.rows("rotations") if row["RowKey"] != "k"}
    return {version: row for version, row in rows.items() if row["RowKey"].startswith("v|")}


def run(app: App, order: dict[str, Any]) -> dict[str, Any]:
    """Start a run as an operator does, and follow it until it is done."""
    answer = app.host.call("POST", "/api/runs", key=app.host.function_key, body=order)
    assert answer.status == 202
    path = f"/api/runs/{answer.json()['id']}"
    app.wait_for(lambda: app.get(path)["status"] == "done", "the run to end")
    done: dict[str, Any] = app.get(path)
    return done
