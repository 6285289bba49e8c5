"""What a benchmark stands on: a simulated Azure, Azurite, a fleet whose rows are there, and hosts that run the app."""

from __future__ import annotations

import json
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import batched
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from azure.storage.queue import QueueServiceClient

from local.bench.figures import BenchError
from local.certificates import Authority
from local.host.launcher import HostProcess
from local.processes import Child, clean_environment, wait_until
from local.simulator import SUBSCRIPTION, Azure, Simulator
from local.stage import APP, SETTINGS, provide, queues_of, tables_of
from local.storage import Account, Storage

if TYPE_CHECKING:
    from azure.data.tables import TableServiceClient

    from local.simulator.aks.documents import Encryption
    from local.simulator.aks.state import SimulatedCluster

PATIENCE = timedelta(minutes=3)
MODELS = "00000000-0000-0000-0000-00000000beef"
"""The subscription of the clusters whose rows are copied for all others."""

_TOOK = re.compile(r"(succeeded|failed) in (\d+) ms")


@dataclass(frozen=True, slots=True)
class Ran:
    """One invocation of a function, as the host's log has it."""

    began: datetime
    ended: datetime

    @property
    def seconds(self) -> float:
        """How long it took."""
        return (self.ended - self.began).total_seconds()


@dataclass(slots=True)
class Ground:
    """Entering the context starts it. `renew` clears it for the next benchmark: an empty Azure, an empty account."""

    latency: timedelta
    azure: Azure = field(init=False)
    _simulator: Simulator = field(init=False)
    _storage: Storage = field(init=False)
    _authority: Authority = field(init=False)
    _account: Account = field(init=False)
    _directory: Path = field(init=False)
    _open: ExitStack = field(default_factory=ExitStack)
    _tables: TableServiceClient = field(init=False)
    queues: QueueServiceClient = field(init=False)

    def __enter__(self) -> Self:
        """Start the simulated Azure and Azurite."""
        self._directory = Path(self._open.enter_context(tempfile.TemporaryDirectory(prefix="aks-kms-bench-")))
        self._authority = Authority.create(self._directory)
        self._simulator = Simulator(self._authority).start()
        self._open.callback(self._simulator.stop)
        self._storage = self._open.enter_context(Storage(self._authority))
        self.renew()
        return self

    def __exit__(self, *_: object) -> None:
        """End everything."""
        self._open.close()

    def renew(self) -> None:
        """Begin anew, with nothing in it."""
        self._simulator.azure = self.azure = Azure()
        self.azure.latency = self.latency
        self._account = self._storage.account()
        provide(self._account, self._authority)
        self._tables = self._open.enter_context(tables_of(self._account, self._authority))
        self.queues = self._open.enter_context(queues_of(self._account, self._authority))

    def host(self, policy: str) -> HostProcess:
        """Start a host that runs the app under a policy. Whoever asks stops it."""
        file = self._directory / "kms-policy.yaml"
        file.write_text(policy, encoding="utf-8")
        settings = SETTINGS | {"POLICY_FILE": str(file), "LOOK_AGAIN_SECONDS": "60"} | self._account.settings()
        return HostProcess.start(APP, settings=settings, environment=self._simulator.environment(), log_json=True)

    def environment(self) -> dict[str, str]:
        """What a process is spawned with that is to take the simulated Azure for the real one."""
        return clean_environment() | self._simulator.environment()

    def program(self, module: str, *arguments: str) -> str:
        """Run a program of ours to its end and return what it printed."""
        command = [sys.executable, "-m", module, *arguments]
        child = Child.start(command, name=module.rpartition(".")[2], environment=self.environment(), directory=APP)
        if child.wait(within=PATIENCE) != 0:
            raise BenchError(f"{module} failed:\n{child.tail()}")
        return child.log()

    def fleet(self, count: int, subscriptions: Sequence[str]) -> None:
        """Add so many clusters, evenly over subscriptions: every second is as asked, the others have no encryption."""
        for number in range(count):
            subscription = subscriptions[number % len(subscriptions)]
            kind: Encryption = "platform-managed" if number // len(subscriptions) % 2 else "none"
            self.azure.aks.add(f"aks-{number:05}", subscription=subscription, encryption=kind)

    def remember(self, policy: str) -> None:
        """Let the ledger have a row for each cluster, as a sweep would have left it.

        The app sweeps two clusters; their rows are copied with the other names. That they are right shows in the
        sweep that is measured: it must write nothing.
        """
        models = {kind: self._model(kind) for kind in ("platform-managed", "none")}
        with self.host(policy) as host:
            sweep(host, MODELS)
        rows = {kind: self._row(cluster) for kind, cluster in models.items()}
        for cluster in models.values():
            del self.azure.aks.clusters[cluster.id.lower()]
        self.azure.subscriptions.remove(MODELS)
        copies: dict[str, list[dict[str, Any]]] = {}
        for cluster in self.azure.aks.clusters.values():
            model = models["platform-managed" if cluster.encryption == "platform-managed" else "none"]
            row = _copied(rows[model.encryption], model, cluster)
            copies.setdefault(row["PartitionKey"], []).append(row)
        table = self._tables.get_table_client("clusters")
        for copied in copies.values():
            for some in batched(copied, 100, strict=False):
                table.submit_transaction([("create", row) for row in some])

    def _model(self, kind: Any) -> SimulatedCluster:
        return self.azure.aks.add(f"aks-model-{kind}", subscription=MODELS, encryption=kind)

    def _row(self, cluster: SimulatedCluster) -> dict[str, Any]:
        name = f"{cluster.group}|{cluster.name}".lower()
        return dict(self._tables.get_table_client("clusters").get_entity(MODELS, name))

    def written_since(self, moment: datetime) -> int:
        """How many rows of clusters, and lines of activity, were written since."""
        return sum(
            1
            for table in ("clusters", "activity")
            for _ in self._tables.get_table_client(table).query_entities(
                "Timestamp ge @since", parameters={"since": moment}, select=["RowKey"]
            )
        )


def _copied(row: dict[str, Any], model: SimulatedCluster, cluster: SimulatedCluster) -> dict[str, Any]:
    """A row with everything that names one cluster naming another."""
    there, here = json.loads(model.rendered()), json.loads(cluster.rendered())
    names = {
        there["name"]: here["name"],
        MODELS: cluster.id.split("/")[2],
        there["eTag"]: here["eTag"],
        there["properties"]["resourceUID"]: here["properties"]["resourceUID"],
    }

    def renamed(value: Any) -> Any:
        for old, new in names.items() if isinstance(value, str) else ():
            value = value.replace(old, new)
        return value

    return {name: renamed(value) for name, value in row.items()}


def sweep(host: HostProcess, subscription: str) -> Ran:
    """Let the app sweep one subscription, without the way through the queue, and return how that went."""
    before = len(list(invocations(host, "sweep_shard")))
    message = {"run": "run-bench", "subscription": subscription, "askedBy": "bench", "scope": {}}
    host.invoke("sweep_shard", json.dumps(message))
    return ended(host, "sweep_shard", before + 1)[-1]


def ended(host: HostProcess, function: str, count: int) -> list[Ran]:
    """Wait until a function has ended so many times, and return all these invocations."""
    host.wait_for(function, times=count, within=PATIENCE)
    return wait_until(
        lambda: found if len(found := list(invocations(host, function))) >= count else None,
        within=PATIENCE,
        what=f"the log of {function}",
    )


def lines(host: HostProcess) -> Iterator[dict[str, Any]]:
    """What the host and the app have logged, as objects."""
    for line in host.log().splitlines():
        if line.startswith("{"):
            yield json.loads(line)


def invocations(host: HostProcess, function: str) -> Iterator[Ran]:
    """The invocations of a function that have ended, in the order of their ends. BenchError if one failed."""
    for line in lines(host):
        took = _TOOK.match(line["message"]) if line["function"] == function else None
        if took is None:
            continue
        if took[1] == "failed":
            raise BenchError(f"{function} failed: {line['message']}")
        end = datetime.fromisoformat(line["time"])
        yield Ran(end - timedelta(milliseconds=int(took[2])), end)


def subscriptions(count: int) -> list[str]:
    """So many subscriptions, the first of them the one that every simulated Azure has."""
    return [SUBSCRIPTION, *(f"00000000-0000-0000-0001-{number:012}" for number in range(1, count))]


def now() -> datetime:
    """The time of day, on the clock that hosts log by."""
    return datetime.now(UTC)
