"""The app in a local host of its own, against the simulated Azure and Azurite, and what a test sees of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from local.host import HostProcess
from local.processes import wait_until
from local.stage import APP, QUEUES, SETTINGS, queues_of, subscribe, tables_of

if TYPE_CHECKING:
    from azure.data.tables import TableServiceClient
    from azure.storage.queue import QueueServiceClient

    from local.certificates import Authority
    from local.simulator import Azure, Simulator
    from local.simulator.aks.state import SimulatedCluster
    from local.simulator.eventgrid import Delivery
    from local.simulator.journal import Call
    from local.storage import Account

type Row = dict[str, Any]

ENFORCE = """
version: 1
mode: enforce
acceptIrreversible: true
targets: [{keyManagement: platform-managed}]
"""
SOON = timedelta(seconds=60)
NEVER = "0 0 0 30 2 *"
HOST_SETTINGS = {
    "AzureFunctionsJobHost__extensions__queues__maxPollingInterval": "00:00:00.200",
    "AzureFunctionsJobHost__extensions__queues__visibilityTimeout": "00:00:00",
    "LOCAL_HOST_INVISIBILITY_SECONDS": "2",
}
"""As shipped, but for what a test would have to wait for: polls, failed messages, and those of a killed host."""


@dataclass(slots=True)
class App:
    """A host that can be killed and started again at the same address under the same keys, and its surroundings."""

    azure: Azure
    simulator: Simulator
    tables: TableServiceClient
    queues: QueueServiceClient
    settings: Mapping[str, str]
    _open: ExitStack
    _host: HostProcess | None = None
    _logs: list[str] = field(default_factory=list)

    @property
    def host(self) -> HostProcess:
        """The host that runs now, or ran last."""
        assert self._host is not None, "the app was not started"
        return self._host

    def start(self) -> None:
        """Start the host; after a crash, as the same one."""
        environment = self.simulator.environment()
        port = 0
        if self._host is not None:
            self._logs.append(self._host.log())
            port = urlsplit(self._host.url).port or 0
            environment |= {
                "LOCAL_HOST_FUNCTION_KEY": self._host.function_key,
                "LOCAL_HOST_MASTER_KEY": self._host.master_key,
                "LOCAL_HOST_EVENTGRID_KEY": self._host.eventgrid_key,
            }
        started = HostProcess.start(APP, settings=self.settings, environment=environment, port=port)
        self._host = self._open.enter_context(started)

    def kill(self) -> bool:
        """End the host at once, as a crash would; True, for a gateway that then drops the call."""
        self.host.kill()
        return True

    def restart(self) -> None:
        """Wait for the killed host's end, then start it again."""
        code = self.host.child.wait(within=SOON)
        assert code == -9, f"the host was not killed, it ended with {code}"
        self.start()

    def subscribe(self) -> None:
        """Let Event Grid call the app for every subscription and vault that is there by now."""
        vaults = [vault.id for vault in self.azure.keyvault.vaults.values()]
        subscribe(self.azure, self.host, subscriptions=tuple(self.azure.subscriptions.all), vaults=vaults)

    def deliver_again(self, deliveries: Iterable[Delivery]) -> None:
        """Deliver events once more, as Event Grid may at any time."""
        for delivery in tuple(deliveries):
            function = parse_qs(urlsplit(delivery.subscription.endpoint_url).query)["functionName"][0]
            assert self.host.notify(function, delivery.payload).status == 202

    def sweep(self) -> None:
        """Let the timer fire, and wait until every subscription was swept."""
        before = self.host.count("sweep_shard")
        self.host.invoke("sweep_fleet")
        self.host.wait_for("sweep_shard", times=before + len(self.azure.subscriptions.all))

    def get(self, path: str) -> Any:
        """Ask the app's API."""
        answer = self.host.call("GET", path, key=self.host.function_key)
        assert answer.status == 200, f"GET {path}: {answer.status} {answer.body!r}"
        return answer.json()

    def rows(self, table: str) -> list[Row]:
        """All rows of a table, read past the app, but for the copies by day: each line of activity once."""
        rows = [dict(row) for row in self.tables.get_table_client(table).list_entities()]
        return [row for row in rows if not row["PartitionKey"].startswith("day|")]

    def versions(self) -> dict[str, list[str | None]]:
        """The ETags of what the app remembers of clusters and keys: no write leaves one as it is.

        But for what says when a key was looked at last: each sweep does.
        """
        names = ("clusters", "keyusers", "rotations", "activity")
        return {
            name: [
                row.metadata["etag"]
                for row in self.tables.get_table_client(name).list_entities()
                if row["RowKey"] != "k" and row["PartitionKey"] != "keys"
            ]
            for name in names
        }

    def row(self, cluster: SimulatedCluster) -> Row:
        """What the app remembers of a cluster; empty if nothing yet."""
        found = (row for row in self.rows("clusters") if row["RowKey"] == f"{cluster.group}|{cluster.name}".lower())
        return next(found, {})

    def activity(self, cluster: SimulatedCluster, kind: str) -> list[Row]:
        """The lines of the record of a cluster, oldest first."""
        mine = f"|{cluster.group}|{cluster.name}".lower()
        rows = [row for row in self.rows("activity") if row["PartitionKey"].endswith(mine) and row["kind"] == kind]
        return sorted(rows, key=lambda row: str(row["at"]))

    def messages(self, queue: str) -> int:
        """How many messages a queue holds, visible or not."""
        return int(self.queues.get_queue_client(queue).get_queue_properties().approximate_message_count or 0)

    def puts(self, cluster: SimulatedCluster) -> list[Call]:
        """The writes of a cluster that Azure took."""
        return [call for call in self.azure.journal.writes() if call.path.lower() == cluster.id.lower()]

    def wait_for(self, condition: Callable[[], object], what: str) -> None:
        """Wait until `condition` holds; else TimeoutError with what the host said last."""
        try:
            wait_until(lambda: bool(condition()), within=SOON, what=what)
        except TimeoutError as error:
            raise TimeoutError(f"{error}\n{self.rows('clusters')}\n{self.host.child.tail()}") from error

    def wait_for_reason(self, reason: str, *clusters: SimulatedCluster) -> None:
        """Wait until the app says this of each of the clusters."""
        names = ", ".join(cluster.name for cluster in clusters)
        self.wait_for(lambda: {self.row(one).get("reason") for one in clusters} == {reason}, f"{names} to be {reason}")

    def wait_quiet(self) -> None:
        """Wait until no event is under way and no message is left, not even a delayed one."""
        self.azure.eventgrid.wait_idle()
        self.wait_for(lambda: not any(map(self.messages, QUEUES)), "the queues to be empty")

    def log(self) -> str:
        """All that the host and the app have written, before and after each crash."""
        return "\n".join([*self._logs, self.host.log()])


@contextmanager
def app_on(
    simulator: Simulator,
    account: Account,
    authority: Authority,
    directory: Path,
    *,
    policy: str = ENFORCE,
    settings: Mapping[str, str] | None = None,
) -> Iterator[App]:
    """Set up everything around an app, which the caller starts. Leaving the block stops it."""
    file = directory / "kms-policy.yaml"
    file.write_text(policy, encoding="utf-8")
    with (
        tables_of(account, authority) as tables,
        queues_of(account, authority) as queues,
        ExitStack() as hosts,
    ):
        defaults = SETTINGS | HOST_SETTINGS | {"SWEEP_SCHEDULE": NEVER, "POLICY_FILE": str(file)} | account.settings()
        yield App(simulator.azure, simulator, tables, queues, defaults | dict(settings or {}), hosts)
