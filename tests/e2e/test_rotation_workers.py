"""Two workers on the same events and the same sweep: one row each, and no update of one is lost to the other."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import ExitStack
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from local.host import HostProcess
from local.processes import wait_until
from local.stage import APP, QUEUES, SETTINGS, queues_of, tables_of
from tests.e2e.app import HOST_SETTINGS, NEVER

if TYPE_CHECKING:
    from pathlib import Path

    from azure.data.tables import TableServiceClient
    from azure.storage.queue import QueueServiceClient

    from local.certificates import Authority
    from local.simulator import Azure, Simulator
    from local.simulator.aks.state import SimulatedCluster
    from local.simulator.keyvault import SimulatedKey, SimulatedVault
    from local.storage import Account

POLICY = "version: 1\nmode: audit\ntargets: [{match: {names: [aks-never]}, keyManagement: platform-managed}]\n"
SHARING = {"LOCAL_HOST_INVISIBILITY_SECONDS": "600", "AzureFunctionsJobHost__extensions__queues__batchSize": "2"}
AT_MOST, HOUR = timedelta(seconds=90), timedelta(hours=1)
CLUSTERS, ROTATIONS = 12, 3


def announced(vault: SimulatedVault, key: SimulatedKey, version: str, number: int) -> str:
    """The message that the event of a new version becomes. Each is delivered twice, with one id."""
    asked = {"key": key.uri_of(version), "askedBy": f"event:rotated-{number}", "vaultId": vault.id}
    return json.dumps(asked)


def rows(tables: TableServiceClient, table: str) -> list[dict[str, Any]]:
    return [dict(row) for row in tables.get_table_client(table).list_entities()]


def wait_quiet(queues: QueueServiceClient) -> None:
    """Wait until no message is left, one that a worker holds included."""
    clients = [queues.get_queue_client(name) for name in QUEUES]
    wait_until(
        lambda: not any(client.get_queue_properties().approximate_message_count for client in clients),
        within=AT_MOST,
        what="the queues to be empty",
    )


def users(azure: Azure, key: SimulatedKey) -> list[SimulatedCluster]:
    """Clusters that use the key: each third of them names a version."""
    return [
        azure.aks.add(f"aks-{number:02}", encryption="customer-managed", key_id=key.uri)
        if number % 3
        else azure.aks.add(f"aks-{number:02}", encryption="legacy", key_id=key.uri_of(key.current.version))
        for number in range(CLUSTERS)
    ]


@pytest.mark.slow
def test_two_workers_log_each_version_once_and_lose_nothing_of_each_other(
    simulator: Simulator, azure: Azure, account: Account, authority: Authority, tmp_path: Path
) -> None:
    vault = azure.keyvault.add_vault("kv-kms-weu", purge_protection=False)
    key = azure.keyvault.add_key(vault, "etcd")
    clusters = users(azure, key)
    policy = tmp_path / "kms-policy.yaml"
    policy.write_text(POLICY, encoding="utf-8")
    settings = SETTINGS | HOST_SETTINGS | SHARING | {"SWEEP_SCHEDULE": NEVER, "POLICY_FILE": str(policy)}

    with (
        tables_of(account, authority) as tables,
        queues_of(account, authority) as queues,
        ExitStack() as opened,
    ):
        hosts = [
            HostProcess.start(APP, settings=settings | account.settings(), environment=simulator.environment())
            for _ in range(2)
        ]
        for host in hosts:
            opened.callback(host.kill)
        for host in hosts:  # the same sweep, twice at once: their runs have one id if they start within one second
            host.invoke("sweep_fleet")
        wait_until(lambda: len(told(tables)) == 1, within=AT_MOST, what="the baseline")
        wait_quiet(queues)
        versions: list[str] = []
        for number in range(ROTATIONS):
            azure.clock.advance(HOUR)
            versions.append(azure.keyvault.rotate(vault, key, announce=False))
            for host in (*hosts, *hosts):
                host.invoke("inspect_key", announced(vault, key, versions[-1], number))
            for host in hosts:
                host.invoke("sweep_fleet")
            wait_until(lambda: versions[-1] in told(tables), within=AT_MOST, what="everybody to be told")
        for host in hosts:
            host.wait_for("inspect_key", times=2 * ROTATIONS, within=AT_MOST)
        wait_quiet(queues)
        found, used = told(tables), rows(tables, "keyusers")
        adopted = [row for row in rows(tables, "rotations") if row["RowKey"].startswith("a|")]
        worked = [host.count("inspect_key") for host in hosts]
        (head,) = [row for row in rows(tables, "rotations") if row["RowKey"] == "k"]

    assert found.keys() == set(key.versions)
    for number, version in enumerate(versions):  # the sweep may have been first
        how, event = found[version]["how"], found[version].get("eventId")
        assert (how, event) in {("event", f"rotated-{number}"), ("sweep", None)}
    following = {one.name for one in clusters if one.encryption == "customer-managed"}
    legacy = {one.name for one in clusters} - following
    taken_up = Counter((row["RowKey"].split("|")[4], row["how"]) for row in adopted)
    assert taken_up == {(name, "expected"): ROTATIONS + 1 for name in following} | {
        (name, "updated"): 1 for name in legacy
    }
    assert len(used) == CLUSTERS
    assert {row.get("version") for row in used} == {None, *list(key.versions)[:1]}
    assert "purge-protection-off" in head["findings"]
    assert all(count > ROTATIONS for count in worked)
    assert azure.journal.writes() == ()


def told(tables: TableServiceClient) -> dict[str, dict[str, Any]]:
    """The versions that everybody was told of, or that were there from the start."""
    versions = [row for row in rows(tables, "rotations") if row["RowKey"].startswith("v|")]
    return {row["RowKey"].removeprefix("v|"): row for row in versions if "fannedOutAt" in row}
