"""A key with its clusters on the simulated Azure, the product's rooms around it, and whatever may happen to them.

Messages lie in memory, so that a history can lose, repeat and delay them, and a process can die between two writes.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any

from azure.core.pipeline.transport import AioHttpTransport
from azure.data.tables.aio import TableServiceClient
from azure.identity.aio import ManagedIdentityCredential

from local.simulator.aks import SecretsUnreadable
from shared.clusters import ClusterId
from shared.events import ClusterRequest, Event, KeyRequest, ShardRequest, cluster_request, key_message, key_request
from shared.keyledger import KeyLedger
from shared.keyrecords import Detection
from shared.keys import KeyId
from shared.ledger import Ledger
from shared.queues import CLUSTERS, KEYS, SHARDS, Queues
from shared.recorder import Recorder
from shared.rotation import Adoption, How, Need, Standing, picture, standing
from shared.tables import Tables
from tests.product import Product, product

if TYPE_CHECKING:
    from local.simulator import Azure
    from local.simulator.aks.documents import Encryption
    from local.simulator.aks.state import SimulatedCluster
    from local.simulator.keyvault import SimulatedKey, SimulatedVault, SimulatedVersion
    from local.storage import Account

SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)
UPDATE = 5 * MINUTE
VAULT = "kv-kms"
USED, NAMED = KeyId(VAULT, "etcd"), KeyId(VAULT, "named")
POLICY = """
version: 1
mode: audit
targets:
  - match: {{names: [aks-never]}}
    keyManagement: customer-managed
    vault: {vault}
    key: named
"""
ENABLED: dict[str, Any] = {"kubernetesResourceObjectEncryptionProfile": {"infrastructureEncryption": "Enabled"}}
OFF: dict[str, Any] = {"azureKeyVaultKms": {"enabled": False}}

_letters = count(1)
_runs = count(1)


class Killed(BaseException):
    """The process is gone."""


class Mortal(AioHttpTransport):  # type: ignore[misc]  # azure.core imports it too lazily for a type
    """Once told to, lets so many more writes arrive; then the process is gone, and whatever it still wanted to do."""

    def __init__(self) -> None:
        super().__init__()
        self.writes_left: int | None = None

    async def send(self, request: Any, **options: Any) -> Any:
        """Send a call; the reply to the last write is never read."""
        if self.writes_left is not None and self.writes_left < 0:
            raise Killed
        answer = await super().send(request, **options)
        if self.writes_left is not None and request.method not in {"GET", "HEAD"}:
            self.writes_left -= 1
            if self.writes_left < 0:
                raise Killed
        return answer


@dataclass(frozen=True, slots=True)
class Letter:
    """One message of a queue: the same id over redeliveries."""

    queue: str
    text: str
    due: datetime
    id: str = field(default_factory=lambda: f"letter-{next(_letters)}")


class Post(Queues):
    """The app's queues in memory."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self.letters: list[Letter] = []
        self._now = now

    async def _send(self, queue: str, text: str, after: timedelta) -> None:
        self.letters.append(Letter(queue, text, self._now() + after))

    async def lengths(self) -> dict[str, int]:
        return {}

    def take(self) -> Letter | None:
        """The next letter that is due; None if there is none."""
        due = next((letter for letter in self.letters if letter.due <= self._now()), None)
        if due is not None:
            self.letters.remove(due)
        return due


@dataclass(slots=True)
class World:
    """The simulated Azure with one vault and two keys, one that clusters use and one that only the policy names."""

    azure: Azure
    app: Product
    post: Post
    transport: Mortal
    vault: SimulatedVault
    used: SimulatedKey
    named: SimulatedKey
    events: list[tuple[str, str]] = field(default_factory=list)
    retired: set[str] = field(default_factory=set)
    logged: dict[tuple[KeyId, str], tuple[Detection, datetime]] = field(default_factory=dict)
    owed: dict[tuple[ClusterId, str], set[str]] = field(default_factory=dict)

    @property
    def now(self) -> datetime:
        """The simulated time."""
        return self.azure.clock.now()

    @property
    def clusters(self) -> list[SimulatedCluster]:
        """The clusters that are there, in the order of their names."""
        return sorted(self.azure.aks.clusters.values(), key=lambda one: one.name)

    def cluster(self, number: int) -> SimulatedCluster | None:
        """The cluster of this number, if it is there."""
        return next((one for one in self.clusters if one.name == f"aks-{number}"), None)

    def uid(self, number: int) -> str:
        """The incarnation of a cluster that is there."""
        cluster = self.cluster(number)
        assert cluster is not None
        return str(cluster.document["properties"]["resourceUID"])

    def version(self, back: int) -> SimulatedVersion | None:
        """So many versions back from the newest that can be used and was not retired."""
        usable = [
            one
            for one in self.used.versions.values()
            if one.version not in self.retired and one.refusal("encrypt", self.now) is None
        ]
        return usable[-1 - back] if back < len(usable) else None

    # what comes in

    def announce_version(self, key: SimulatedKey, version: str) -> None:
        """Put the event of a new version among those that are under way."""
        data = {"Id": key.uri_of(version), "ObjectType": "Key", "ObjectName ": key.name, "Version": f" {version}"}
        self._announce("on_key_event", "Microsoft.KeyVault.KeyNewVersionCreated", self.vault.id, key.name, data)

    def announce_cluster(self, cluster: SimulatedCluster, what: str) -> None:
        """Put the event of a cluster that was written or deleted among those that are under way."""
        operation = f"Microsoft.ContainerService/managedClusters/{what}"
        kind = f"Microsoft.Resources.Resource{what.capitalize()}Success"
        self._announce("on_cluster_event", kind, "", cluster.id, {"operationName": operation})

    def _announce(self, function: str, kind: str, topic: str, subject: str, data: dict[str, Any]) -> None:
        event = {
            "id": f"event-{next(_letters)}",
            "eventType": kind,
            "topic": topic,
            "subject": subject,
            "eventTime": self.now.isoformat(),
            "data": data,
        }
        self.events.append((function, json.dumps(event)))

    async def deliver(self, index: int, *, keep: bool) -> None:
        """Let one of the events under way arrive; kept, it will arrive once more."""
        if not self.events:
            return
        function, text = self.events[index % len(self.events)]
        if not keep:
            del self.events[index % len(self.events)]
        if function == "on_key_event":
            asked = key_request(Event.read(text))
            assert asked is not None
            await self.post.ask_for_key(asked)
        else:
            request = cluster_request(Event.read(text))
            assert request is not None
            await self.post.ask_for_cluster(request)
        await self.work()

    async def sweep(self) -> None:
        """Let the timer fire, and do what comes of it."""
        run = f"sweep-{next(_runs)}"
        await self._twice_if_killed(lambda: self.app.sweeper.start(run, asked_by="timer", now=self.now))
        await self.work()

    async def work(self) -> None:
        """Work on every letter that is due, until none is left. What dies on one begins it again."""
        while (letter := self.post.take()) is not None:
            try:
                await self._open(letter)
            except Killed:
                await self._bury()
                self.post.letters.append(letter)

    async def _twice_if_killed(self, act: Callable[[], Awaitable[object]]) -> None:
        """Do something; if the process dies over it, whoever asked asks again."""
        try:
            await act()
        except Killed:
            await self._bury()
            await act()

    async def _bury(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*others, return_exceptions=True)
        self.transport.writes_left = None

    async def _open(self, letter: Letter) -> None:
        match letter.queue:
            case queue if queue == CLUSTERS:
                await self.app.reconciler.reconcile(ClusterRequest.decode(letter.text, letter.id), now=self.now)
            case queue if queue == SHARDS:
                await self.app.sweeper.sweep(ShardRequest.decode(letter.text), now=self.now)
            case queue:
                assert queue == KEYS
                await self._inspect(letter.text)

    async def _inspect(self, text: str) -> None:
        request = key_message(text)
        if not isinstance(request, KeyRequest):
            await self.app.inspector.inspect_vault(request)
            return
        key = self.used if request.key == USED else self.named
        before = await self.app.keys.key(request.key)
        was_seen, there = before.vault_id is not None, set(key.versions)
        try:
            await self.app.inspector.inspect(request, now=self.now)
        finally:
            await self._check_logged(request, was_seen=was_seen, there=there)
        await self._owe(request.key)

    async def _check_logged(self, request: KeyRequest, *, was_seen: bool, there: set[str]) -> None:
        """Each version is logged as it came to be known, and what is logged stays as it is."""
        left, self.transport.writes_left = self.transport.writes_left, None
        known = await self.app.keys.key(request.key)
        self.transport.writes_left = left
        for one in known.rotations:
            name = (request.key, one.version.version)
            if name not in self.logged:
                announced = request.cause is None and one.version.version == request.version
                otherwise = Detection.SWEEP if was_seen else Detection.BASELINE
                assert one.how is (Detection.EVENT if announced else otherwise), (request, one)
                assert (one.event_id is not None) == announced
                assert one.version.version in there
                self.logged[name] = (one.how, one.detected_at)
            assert self.logged[name] == (one.how, one.detected_at), "a version that was logged stays as it was"

    async def _owe(self, key: KeyId) -> None:
        """Keep which versions each customer-managed user is to take up by what Azure shows at this look."""
        if key != USED:
            return
        for user in await self.app.keys.users(key):
            if user.ended_at is not None or user.is_legacy:
                continue
            mine = self.owed.setdefault((user.cluster, user.resource_uid), set())
            enabled = [one for one in self.used.versions.values() if one.enabled]
            mine |= {one.version for one in enabled if _usable_from(one) > user.since}
            mine |= {one.version for one in [one for one in enabled if _usable_from(one) <= user.since][-1:]}

    # what somebody does

    def rotate(self, key: SimulatedKey, *, lost: bool) -> None:
        """Somebody rotates a key. Azure tells of its times in whole seconds."""
        self.azure.clock.advance(2 * SECOND)
        version = self.azure.keyvault.rotate(self.vault, key, announce=False)
        if not lost:
            self.announce_version(key, version)

    def create(self, number: int, kind: Encryption) -> None:
        """Somebody creates a cluster with what is the newest by then."""
        if self.cluster(number) is not None or self.version(0) is not self.used.current:
            return
        key_id = self.used.uri_of(self.used.current.version) if kind == "legacy" else self.used.uri
        cluster = self.azure.aks.add(
            f"aks-{number}", encryption=kind, key_id=key_id if kind in {"legacy", "customer-managed"} else None
        )
        self.azure.access.assign(cluster.principal_id, "Key Vault Crypto User", self.vault.id)
        self.announce_cluster(cluster, "write")

    def delete(self, number: int) -> None:
        """Somebody deletes a cluster."""
        cluster = self.cluster(number)
        if cluster is not None:
            self.azure.aks.delete(cluster.id)
            self.announce_cluster(cluster, "delete")

    async def update(self, number: int, back: int, *, fails: bool) -> None:
        """Somebody lets a legacy cluster name another version. One that goes back is looked at at once."""
        cluster, version = self.cluster(number), self.version(back)
        if cluster is None or cluster.encryption != "legacy" or version is None:
            return
        named = self.used.versions[cluster.kms.key_id.rsplit("/", 1)[-1]]
        goes_back = version.created <= named.created
        if goes_back:
            await self.look(number)
        wrote = self._write(cluster, {"azureKeyVaultKms": self._kms(self.used.uri_of(version.version))}, fails=fails)
        if wrote and goes_back:
            self.azure.clock.advance(UPDATE)
            await self.look(number)

    async def move(self, number: int, kind: str, *, fails: bool) -> None:
        """Somebody moves a cluster to another key management, one way: none comes back from the new experience.

        It was looked at before. What a cluster had that is first seen while it moves, nothing shows.
        """
        await self.look(number)
        cluster = self.cluster(number)
        if cluster is None or (kind == "none" and cluster.encryption != "legacy"):
            return
        if kind == "customer-managed" and self.version(0) is None:
            return
        customer = {"azureKeyVaultKms": self._kms(self.used.uri), **ENABLED}
        self._write(
            cluster, {"customer-managed": customer, "platform-managed": OFF | ENABLED, "none": OFF}[kind], fails=fails
        )

    def _write(self, cluster: SimulatedCluster, profile: dict[str, Any], *, fails: bool) -> bool:
        if cluster.provisioning_state == "Updating" or not cluster.is_running:
            return False
        if fails:
            self.azure.aks.fail_operation_next("InternalOperationError", "Internal server error")
        self.azure.aks.change(
            cluster.id, lambda document: document["properties"].update(securityProfile=profile), duration=UPDATE
        )
        self.announce_cluster(cluster, "write")
        return True

    def write_secret(self, number: int) -> None:
        """Somebody writes a secret, if that can be done."""
        cluster = self.cluster(number)
        if cluster is not None:
            _allowed(lambda: self.azure.aks.write_secret(cluster, "second"))

    async def rewrite(self, number: int) -> None:
        """Somebody rewrites all secrets of a cluster, if that can be done, and says so."""
        cluster = self.cluster(number)
        if cluster is None or not _allowed(lambda: self.azure.aks.rewrite_secrets(cluster)):
            return
        cluster_id = ClusterId.parse(cluster.id)
        uid = str(cluster.document["properties"]["resourceUID"])
        at = self.now
        await self._twice_if_killed(lambda: self.app.keys.rewritten(USED, cluster_id, uid, by="somebody", at=at))

    def switch(self, number: int) -> None:
        """Somebody stops a cluster, or starts it."""
        cluster = self.cluster(number)
        if cluster is None or cluster.provisioning_state == "Updating":
            return
        code = "Stopped" if cluster.is_running else "Running"
        self.azure.aks.change(cluster.id, lambda document: document["properties"].update(powerState={"code": code}))

    def enable(self, back: int, *, enabled: bool) -> None:
        """Somebody disables a version, or enables one that nobody retired."""
        versions = list(self.used.versions)
        version = versions[max(0, len(versions) - 1 - back)]
        if version not in self.retired:
            self.azure.keyvault.set_enabled(self.used, version, enabled=enabled)

    def end(self, back: int, hours: int) -> None:
        """Somebody lets a version end."""
        versions = list(self.used.versions)
        version = versions[max(0, len(versions) - 1 - back)]
        self.azure.keyvault.set_key(self.used, version=version, expires=self.now + hours * HOUR)

    def start_late(self, hours: int, *, lost: bool) -> None:
        """Somebody makes a version that starts later, perhaps after a newer one is made."""
        self.rotate(self.used, lost=lost)
        self.azure.keyvault.set_key(self.used, not_before=self.now.replace(microsecond=0) + hours * HOUR)

    def mend(self) -> None:
        """Somebody enables, starts and extends all that nobody retired, and starts every cluster."""
        ends = self.now + 10_000 * HOUR
        for version in self.used.versions.values():
            if version.version not in self.retired:
                begins = version.not_before and version.created.replace(microsecond=0)
                self.azure.keyvault.set_key(
                    self.used, version=version.version, enabled=True, not_before=begins, expires=ends
                )
        for cluster in self.clusters:
            if not cluster.is_running:
                self.switch(int(cluster.name.removeprefix("aks-")))

    async def look(self, number: int) -> None:
        """An operator asks for a look at a cluster."""
        cluster = self.cluster(number)
        if cluster is not None:
            await self.post.ask_for_cluster(ClusterRequest(ClusterId.parse(cluster.id), "operator"))
            await self.work()

    def _kms(self, key_id: str) -> dict[str, Any]:
        return {"enabled": True, "keyId": key_id, "keyVaultNetworkAccess": "Public"}

    # what the ledger says

    async def needs(self) -> dict[str, list[Need]]:
        """The ledger's picture of the key that clusters use."""
        known = await self.app.keys.key(USED)
        users, adoptions = await self.app.keys.users(USED), await self.app.keys.adoptions(USED)
        return picture(users, adoptions, known.versions, self.now)

    async def read_logs(self) -> None:
        """Fold the vault's log into the ledger: which version each customer-managed cluster was seen with."""
        users = [one for one in await self.app.keys.users(USED) if not one.is_legacy and not one.gone]
        known = {(one.cluster, one.resource_uid, one.version): one for one in await self.app.keys.adoptions(USED)}
        for user in users:
            seen: dict[str, list[datetime]] = {}
            for line in self.azure.aks.secrets.audit:
                if line.identity == user.principal and line.status == 200 and line.kek.key == "etcd":
                    seen.setdefault(line.kek.version, []).append(line.time)
            found = [
                replace(
                    known.get((user.cluster, user.resource_uid, version))
                    or Adoption(version, user.cluster, user.resource_uid, How.EXPECTED, min(times)),
                    first_seen=min(times),
                    last_seen=max(times),
                )
                for version, times in seen.items()
            ]
            await self._twice_if_killed(partial(self.app.keys.adopt, USED, found))

    async def check_picture(self) -> set[str]:
        """No cluster's need is understated; return the candidates."""
        found = await self.needs()
        candidates = {version for version, needs in found.items() if standing(needs) is Standing.CANDIDATE}
        for cluster in self.clusters:
            in_use = {kek.version for kek in self.azure.aks.versions_in_use(cluster)}
            uid = str(cluster.document["properties"]["resourceUID"])
            for version in in_use:
                mine = [one for one in found.get(version, []) if one.resource_uid == uid]
                assert mine, f"{cluster.name} uses {version}, and the ledger has not heard of it"
                assert mine[0].standing is not Standing.CANDIDATE, f"{cluster.name} uses {version}: {mine[0]}"
        return candidates

    async def retire(self) -> None:
        """Somebody sweeps, then disables every candidate. Whatever could be read can be read."""
        await self.sweep()
        candidates = await self.check_picture()
        before = self._unreadable()

        for version in candidates:
            self.azure.keyvault.set_enabled(self.used, version, enabled=False)
        self.retired |= candidates

        assert self._unreadable() == before, f"retired {candidates}"

    def _unreadable(self) -> set[tuple[str, str]]:
        return {
            (cluster.name, one.secret.name) for cluster in self.clusters for one in self.azure.aks.unreadable(cluster)
        }


def _usable_from(version: SimulatedVersion) -> datetime:
    created = version.created.replace(microsecond=0)
    return max(created, version.not_before) if version.not_before is not None else created


def _allowed(act: Callable[[], object]) -> bool:
    try:
        act()
    except SecretsUnreadable:
        return False
    return True


@asynccontextmanager
async def world(azure: Azure, account: Account) -> AsyncIterator[World]:
    """Build the rooms on one account's tables, on queues in memory, and on a process that can die."""
    vault = azure.keyvault.add_vault(VAULT)
    used, named = azure.keyvault.add_key(vault, "etcd"), azure.keyvault.add_key(vault, "named")
    transport, post = Mortal(), Post(azure.clock.now)
    async with (
        product(account, POLICY.format(vault=vault.id)) as app,
        ManagedIdentityCredential() as credential,
        TableServiceClient(account.table_uri, credential=credential, transport=transport) as service,
    ):
        rows = Tables(service)
        ledger, keys = Ledger(rows), KeyLedger(rows)
        recorder = Recorder(ledger, None)
        usage = replace(app.sweeper.usage, keys=keys, queues=post)
        keydata = replace(app.inspector.keydata, keys=keys)
        mortal = replace(
            app,
            ledger=ledger,
            keys=keys,
            queues=post,
            reconciler=replace(app.reconciler, ledger=ledger, recorder=recorder, usage=usage, queues=post),
            inspector=replace(app.inspector, ledger=ledger, keys=keys, keydata=keydata, recorder=recorder, queues=post),
            sweeper=replace(app.sweeper, ledger=ledger, recorder=recorder, usage=usage, queues=post),
        )
        yield World(azure, mortal, post, transport, vault, used, named)
