"""The benchmarks. Each measures one of the numbers to reach, checks what was counted, and returns its figures."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from local.bench.figures import BenchError, Figure, Wanted
from local.bench.ground import PATIENCE, Ground, ended, lines, now, subscriptions, sweep
from local.host.launcher import HostProcess
from local.processes import Child
from local.simulator import SUBSCRIPTION
from local.stage import APP

AUDIT = """
version: 1
mode: audit
targets: [{keyManagement: platform-managed}]
"""
ENFORCE = """
version: 1
mode: enforce
acceptIrreversible: true
limits: {concurrentUpdates: 50, concurrentUpdatesPerSubscription: 50}
targets:
  - keyManagement: %s
"""
VAULT = "/subscriptions/%s/resourceGroups/rg-keys/providers/Microsoft.KeyVault/vaults/kv-{name}"
CUSTOMER_MANAGED = f"customer-managed\n    vault: {VAULT}\n    key: etcd" % "{subscription}"
ROLES = ("Key Vault Crypto User", "Key Vault Reader")
WARM_UP = 2
"""Messages, sweeps and starts that come first and are not counted."""

EMPTY_APP = """
import azure.functions as func

app = func.FunctionApp()


@app.route("health")
def health(req: func.HttpRequest) -> func.HttpResponse:
    return func.HttpResponse("ok")
"""
HOST_JSON = '{"version": "2.0"}'


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured: clusters, how many times each, and from how many clusters to how many memory is told."""

    clusters: int
    times: int
    memory: tuple[int, int]
    messages: int
    looks: int


FULL = Size(clusters=5000, times=3, memory=(1000, 10_000), messages=12, looks=1000)
SMALL = Size(clusters=500, times=2, memory=(100, 1000), messages=4, looks=200)


def one_subscription(ground: Ground, size: Size) -> list[Figure]:
    """A sweep of one subscription beside the bare list of its clusters: one after the other, in turn."""
    ground.fleet(size.clusters, [SUBSCRIPTION])
    ground.remember(AUDIT)
    bare, swept = [], []
    with ground.host(AUDIT) as host:
        sweep(host, SUBSCRIPTION)
        for _ in range(size.times):
            bare.append(_bare_list(ground, size.clusters))
            swept.append(unchanged(ground, host, size.clusters))
    ratios = [ours / theirs for ours, theirs in zip(swept, bare, strict=True)]
    what = f"{size.clusters} clusters in one subscription"
    return [
        Figure(f"bare paged list of {what}", " s", bare),
        Figure(f"sweep of {what}", " s", swept),
        Figure("the sweep, in times of the bare list of the same round", "", ratios, Wanted(1.15)),
    ]


def _bare_list(ground: Ground, count: int) -> float:
    listed = json.loads(ground.program("local.bench.bare", "list", SUBSCRIPTION))
    _expect("the bare list", listed["clusters"], count)
    return float(listed["seconds"])


def unchanged(ground: Ground, host: HostProcess, count: int) -> float:
    """Sweep once more; what it takes, if it counts every cluster and writes nothing."""
    begins = now()
    ran = sweep(host, SUBSCRIPTION)
    _expect("the sweep", _swept(host, 1), count)
    _expect("rows written by a sweep of what is known", ground.written_since(begins), 0)
    return ran.seconds


def _swept(host: HostProcess, shards: int) -> int:
    """How many clusters the last shards counted, as their lines in the log say."""
    said = (line.get("said", {}) for line in lines(host))
    counted = [fields["clusters"] for fields in said if fields.get("line") == "shard-swept"]
    return sum(counted[-shards:])


def fifty_subscriptions(ground: Ground, size: Size) -> list[Figure]:
    """A sweep of many subscriptions, from the timer to the end of the last of them, the queue between included."""
    named = subscriptions(50)
    ground.fleet(size.clusters, named)
    ground.remember(AUDIT)
    taken, shards = [], []
    with ground.host(AUDIT) as host:
        for number in range(WARM_UP + size.times):
            begins = now()
            host.invoke("sweep_fleet")
            timer = ended(host, "sweep_fleet", number + 1)[-1]
            last = ended(host, "sweep_shard", (number + 1) * len(named))[-len(named) :]
            _expect("the sweep", _swept(host, len(named)), size.clusters)
            _expect("rows written by a sweep of what is known", 0 if number == 0 else ground.written_since(begins), 0)
            taken.append((max(ran.ended for ran in last) - timer.began).total_seconds())
            shards.append(median(ran.seconds for ran in last))
    what = f"sweep of {size.clusters} clusters in {len(named)} subscriptions"
    return [
        Figure(what, " s", taken[WARM_UP:], Wanted(1.5)),
        Figure("of it: one subscription", " s", shards[WARM_UP:]),
    ]


def to_the_put(ground: Ground, size: Size) -> list[Figure]:
    """From a message that is received to the answer to the PUT; the way through the queue apart."""
    platform = _to_the_put(ground, size, "platform-managed", trips=2)
    ground.renew()
    return platform + _to_the_put(ground, size, CUSTOMER_MANAGED, trips=3)


def _to_the_put(ground: Ground, size: Size, target: str, *, trips: int) -> list[Figure]:
    name = target.partition("\n")[0]
    clusters = [_in_want(ground, number, name) for number in range(WARM_UP + size.messages)]
    trip = median(json.loads(ground.program("local.bench.bare", "get", clusters[0], "10")))
    hops, seconds = [], []
    with ground.host(ENFORCE % target) as host, ground.queues.get_queue_client("clusters") as queue:
        for number, cluster in enumerate(clusters):
            sent = now()
            queue.send_message(json.dumps({"cluster": cluster, "askedBy": "bench"}))
            path = f"{re.escape(cluster)}$"
            put = ground.azure.journal.wait_for(lambda call, path=path: call.matches("PUT", path), deadline=30)  # type: ignore[misc]  # a default of a lambda
            ran = ended(host, "reconcile_cluster", number + 1)[-1]
            hops.append((ran.began - sent).total_seconds())
            seconds.append((put.at + ground.azure.latency - ran.began).total_seconds())
    _expect("PUTs accepted", sum(call.method == "PUT" for call in ground.azure.journal.writes()), len(clusters))
    return [
        Figure(f"{name}: message received to PUT accepted", " s", seconds[WARM_UP:]),
        Figure(
            f"{name}: the same, in times of {trips} bare round trips",
            "",
            [one / (trips * trip) for one in seconds[WARM_UP:]],
            Wanted(1.3),
        ),
        Figure(f"{name}: the queue before it", " s", hops[WARM_UP:]),
    ]


def _in_want(ground: Ground, number: int, target: str) -> str:
    """A cluster without encryption; for a key of its customer's, with a vault, a key and the roles of its own."""
    name = f"aks-{number:03}"
    cluster = ground.azure.aks.add(name)
    if target == "customer-managed":
        vault = ground.azure.keyvault.add_vault(f"kv-{name}")
        ground.azure.keyvault.add_key(vault, "etcd")
        for role in ROLES:
            ground.azure.access.assign(cluster.principal_id, role, vault.id, created=now() - timedelta(days=1))
    return cluster.id


def looks(ground: Ground, size: Size) -> list[Figure]:
    """How many messages a second one worker turns into looks: first at clusters that it does not know, then again."""
    ground.fleet(size.looks, [SUBSCRIPTION])
    first: list[float] = []
    again: list[float] = []
    with ground.host(AUDIT) as host:
        for number in range(2):
            begins = now()
            rate = _rate(ground, host, size.looks, before=number * size.looks)
            (again if number else first).append(rate)
            if number:
                _expect("rows written by looks at what is known", ground.written_since(begins), 0)
    return [
        Figure("looks at clusters that are known and as before", "/s", again, Wanted(100, at_least=True)),
        Figure("looks at clusters that are new: two rows and more written for each", "/s", first),
    ]


def _rate(ground: Ground, host: HostProcess, count: int, *, before: int) -> float:
    """Fill the queue, then count the looks of the later nine tenths: the first tenth is the warm-up.

    What is sent is invisible until all is there, so that sending takes no time of those who look.
    """
    opens = now() + timedelta(seconds=max(2, count // 60))
    with ground.queues.get_queue_client("clusters") as queue:
        for cluster in list(ground.azure.aks.clusters.values()):
            delay = max(0, round((opens - now()).total_seconds()))
            queue.send_message(json.dumps({"cluster": cluster.id, "askedBy": "bench"}), visibility_timeout=delay)
    ran = sorted(ended(host, "reconcile_cluster", before + count)[before:], key=lambda one: one.ended)
    _expect("looks", len(ran), count)
    counted = ran[count // 10 :]
    return len(counted[1:]) / (counted[-1].ended - counted[0].ended).total_seconds()


def cold_start(ground: Ground, size: Size) -> list[Figure]:
    """From the spawn of a process to the indexed functions: the app and an empty one, in turn."""
    ours, empty = [], []
    with TemporaryDirectory(prefix="empty-app-") as folder:
        (Path(folder) / "function_app.py").write_text(EMPTY_APP, encoding="utf-8")
        (Path(folder) / "host.json").write_text(HOST_JSON, encoding="utf-8")
        for _ in range(WARM_UP + 4 * size.times):
            ours.append(_indexed(ground, APP))
            empty.append(_indexed(ground, Path(folder)))
    ours, empty = ours[WARM_UP:], empty[WARM_UP:]
    ratios = [one / other for one, other in zip(ours, empty, strict=True)]
    return [
        Figure("worker spawned to functions indexed, an empty app", " s", empty),
        Figure("worker spawned to functions indexed, this app", " s", ours),
        Figure("the latter, in times of the former of the same round", "", ratios, Wanted(1.3)),
    ]


def _indexed(ground: Ground, app: Path) -> float:
    """Start a worker process; bytecode is written by the first one, as a deployment ships it."""
    began = now()
    command: list[str | Path] = [sys.executable, "-m", "local.bench.cold", app]
    child = Child.start(command, name="cold", environment=_with_bytecode(ground), directory=APP)
    child.wait_until_ready(lambda: "indexed" in child.log(), within=PATIENCE)
    seconds = (now() - began).total_seconds()
    child.wait(within=PATIENCE)
    return seconds


def _with_bytecode(ground: Ground) -> Mapping[str, str]:
    environment = ground.environment()
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    return environment


def memory(ground: Ground, size: Size) -> list[Figure]:
    """The peak of the worker process over a sweep of few and of many clusters. No latency: it takes no memory."""
    few, many = (_peak(ground, count) for count in size.memory)
    few_count, many_count = size.memory
    if few is None or many is None:
        return []
    growth = many[1] - few[1]
    return [
        Figure("worker process, ready to sweep", " MiB", [few[0], many[0]]),
        Figure(f"its peak over a sweep of {few_count} clusters", " MiB", [few[1]]),
        Figure(f"its peak over a sweep of {many_count} clusters", " MiB", [many[1]], Wanted(150)),
        Figure(f"from {few_count} to {many_count} clusters", " MiB more", [growth]),
        Figure("the same in times (flat: 1)", "", [many[1] / few[1]], Wanted(1.1)),
    ]


def _peak(ground: Ground, count: int) -> tuple[float, float] | None:
    """What a fresh worker takes before and, at most, during sweeps of so many clusters; None off Linux."""
    ground.renew()
    ground.azure.latency = timedelta(0)
    ground.fleet(count, [SUBSCRIPTION])
    _, other = subscriptions(2)
    ground.azure.aks.add("aks-alone", subscription=other, encryption="platform-managed")
    ground.remember(AUDIT)
    with ground.host(AUDIT) as host:
        sweep(host, other)
        before = _resident(host, "VmHWM")
        for _ in range(2):
            sweep(host, SUBSCRIPTION)
            _expect("the sweep", _swept(host, 1), count)
        after = _resident(host, "VmHWM")
    return (before, after) if before is not None and after is not None else None


def _resident(host: HostProcess, what: str) -> float | None:
    """A line of /proc/PID/status in MiB; None where there is none."""
    status = Path(f"/proc/{host.child.pid}/status")
    if not status.exists():
        return None
    found = re.search(rf"^{what}:\s+(\d+) kB$", status.read_text(encoding="utf-8"), re.MULTILINE)
    return int(found[1]) / 1024 if found else None


def _expect(what: str, found: int, wanted: int) -> None:
    if found != wanted:
        raise BenchError(f"{what}: {found}, not {wanted}; a figure of that says nothing")


BENCHMARKS: Mapping[str, Callable[[Ground, Size], list[Figure]]] = {
    "one-subscription": one_subscription,
    "fifty-subscriptions": fifty_subscriptions,
    "to-the-put": to_the_put,
    "looks": looks,
    "cold-start": cold_start,
    "memory": memory,
}
