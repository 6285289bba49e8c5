"""Twenty workers on one storage account: the limits hold, each cluster is written once, and none is forgotten."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from local.host import HostProcess
from local.processes import wait_until
from local.simulator import SUBSCRIPTION
from local.stage import APP, QUEUES, SETTINGS, queues_of, subscribe, tables_of
from tests.e2e.app import ENFORCE, HOST_SETTINGS, NEVER

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from azure.data.tables import TableServiceClient
    from azure.storage.queue import QueueServiceClient

    from local.certificates import Authority
    from local.simulator import Azure, Simulator
    from local.simulator.aks.state import Operation, SimulatedCluster
    from local.storage import Account
    from tests.e2e.app import Row

WORKERS, CLUSTERS = 20, 50
LIMIT, LIMIT_PER_SUBSCRIPTION = 5, 3
OTHER = "00000000-0000-0000-0000-000000000002"
LIMITS = f"{{concurrentUpdates: {LIMIT}, concurrentUpdatesPerSubscription: {LIMIT_PER_SUBSCRIPTION}}}"
POLICY = f"{ENFORCE}limits: {LIMITS}\n"
UNHURRIED = {
    "AzureFunctionsJobHost__extensions__queues__maxPollingInterval": "00:00:02",
    "LOCAL_HOST_INVISIBILITY_SECONDS": "600",
    "LOOK_AGAIN_SECONDS": "4",
}
"""Twenty workers share few cores: what one takes a while for, no other must take for lost."""

STARTED_AT_ONCE = 4
AT_MOST = timedelta(seconds=120)
HOUR, HALF_A_SECOND = timedelta(hours=1), timedelta(seconds=0.5)


@contextmanager
def workers(simulator: Simulator, account: Account, directory: Path, *, first_look: str) -> Iterator[list[HostProcess]]:
    """Start the hosts, each with one look of its own, so that its SDKs are imported; leaving the block ends them."""
    file = directory / "kms-policy.yaml"
    file.write_text(POLICY, encoding="utf-8")
    shipped = SETTINGS | HOST_SETTINGS | UNHURRIED | {"SWEEP_SCHEDULE": NEVER, "POLICY_FILE": str(file)}
    settings, environment = shipped | account.settings(), simulator.environment()

    with ExitStack() as opened, ThreadPoolExecutor(STARTED_AT_ONCE) as starters:

        def start(_: int) -> HostProcess:
            host = HostProcess.start(APP, settings=settings, environment=environment)
            opened.callback(host.kill)  # nothing is under way any more when it comes to that
            host.invoke("reconcile_cluster", json.dumps({"cluster": first_look, "askedBy": "test"}))
            host.wait_for("reconcile_cluster", within=AT_MOST)
            return host

        yield list(starters.map(start, range(WORKERS)))


def fleet(azure: Azure) -> list[SimulatedCluster]:
    """Clusters without KMS, half of them in either subscription."""
    return [
        azure.aks.add(f"aks-{number:02}", subscription=(SUBSCRIPTION, OTHER)[number % 2]) for number in range(CLUSTERS)
    ]


def overlap(operations: Iterable[Operation]) -> int:
    """The most operations that ran at one time. One that begins as another ends does not meet it."""
    edges = [edge for one in operations for edge in ((one.started, 1), (one.ends, -1))]
    running = most = 0
    for _, step in sorted(edges):
        running += step
        most = max(most, running)
    return most


def have_all_tried(azure: Azure, clusters: Iterable[SimulatedCluster]) -> bool:
    """Whether the slots that there are have been taken, and every cluster was looked at more than once."""
    looks = Counter(call.path.rpartition("/")[2] for call in azure.journal.calls if call.method == "GET")
    return len(azure.journal.writes()) >= LIMIT and all(looks[cluster.name] > 1 for cluster in clusters)


def rows(tables: TableServiceClient, table: str) -> list[Row]:
    return [dict(row) for row in tables.get_table_client(table).list_entities()]


def wait_for_all_writes(azure: Azure, tables: TableServiceClient) -> None:
    """Wait until every cluster was written; TimeoutError shows those that were not."""
    try:
        azure.wait_for(lambda: len(azure.journal.writes()) >= CLUSTERS, deadline=AT_MOST.total_seconds())
    except TimeoutError as error:
        left = [row for row in rows(tables, "clusters") if row["reason"] != "as-asked"]
        held = [row for row in rows(tables, "enforcement") if row.get("holder")]
        raise TimeoutError(f"{error}; left: {left}; held: {held}") from error


def is_quiet(azure: Azure, queues: QueueServiceClient) -> bool:
    """Whether no event is under way and no message is left, not even a delayed one."""
    azure.eventgrid.wait_idle(AT_MOST.total_seconds())
    clients = map(queues.get_queue_client, QUEUES)
    return not any(client.get_queue_properties().approximate_message_count for client in clients)


@pytest.mark.slow
def test_twenty_workers_keep_the_limits_and_encrypt_every_cluster_once(
    simulator: Simulator, azure: Azure, account: Account, authority: Authority, tmp_path: Path
) -> None:
    settled = azure.aks.add("aks-settled", encryption="platform-managed")
    clusters = fleet(azure)

    with (
        tables_of(account, authority) as tables,
        queues_of(account, authority) as queues,
        workers(simulator, account, tmp_path, first_look=settled.id) as hosts,
    ):
        for host, subscription in zip(hosts, (SUBSCRIPTION, OTHER), strict=False):
            subscribe(azure, host, subscriptions=(subscription,), vaults=())
        azure.aks.update_duration = HOUR  # nothing ends while everybody tries
        for host in hosts[-2:]:  # the timer's late sweep meets the next one
            host.invoke("sweep_fleet")
        azure.wait_for(lambda: have_all_tried(azure, clusters), deadline=AT_MOST.total_seconds())
        assert_limits_held(azure)
        azure.aks.update_duration = HALF_A_SECOND
        azure.clock.advance(HOUR)
        wait_for_all_writes(azure, tables)
        wait_until(lambda: is_quiet(azure, queues), within=AT_MOST, what="the queues to be empty")
        worked = sum(host.count("reconcile_cluster") > 1 for host in hosts)
        known, slots, activity = (rows(tables, name) for name in ("clusters", "enforcement", "activity"))

    assert {row["reason"] for row in known} == {"as-asked"}
    assert {cluster.encryption for cluster in clusters} == {"platform-managed"}
    assert Counter(call.path.lower() for call in azure.journal.writes()) == {one.id.lower(): 1 for one in clusters}
    assert len(azure.aks.operations) == CLUSTERS
    assert_limits_held(azure)
    assert {row["holder"] for row in slots if "holder" in row} == {""}
    lines = [line for line in activity if line["kind"] == "write" and line["PartitionKey"].startswith("cluster|")]
    assert Counter(line["outcome"] for line in lines)["done"] == CLUSTERS, "copies by day aside"
    assert worked > WORKERS // 2


def assert_limits_held(azure: Azure) -> None:
    """As many operations at one time as the limits allow, and never more."""
    with azure.lock:
        operations = tuple(azure.aks.operations.values())
    assert overlap(operations) == LIMIT
    for subscription in (SUBSCRIPTION, OTHER):
        mine = [one for one in operations if f"/{subscription}/" in one.activity.resource_id]
        assert overlap(mine) <= LIMIT_PER_SUBSCRIPTION, subscription


def _operation(started: datetime, ends: datetime) -> Operation:
    from local.simulator.activity import PERSON, Activity
    from local.simulator.aks.state import Operation

    return Operation("1", "westeurope", started, ends, Activity("", "", PERSON, ""))


@pytest.mark.parametrize(
    ("times", "most"),
    [
        pytest.param([(0, 2), (2, 4)], 1, id="one-after-the-other"),
        pytest.param([(0, 3), (2, 4), (1, 2)], 2, id="never-three"),
        pytest.param([(0, 9), (1, 8), (2, 7)], 3, id="within-each-other"),
    ],
)
def test_the_overlap_is_counted_right(times: list[tuple[int, int]], most: int) -> None:
    from tests.builders import NOW, SECOND

    operations = [_operation(NOW + start * SECOND, NOW + end * SECOND) for start, end in times]

    assert overlap(operations) == most
