"""The product's rooms on real clients, for tests that give the moment themselves."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import TYPE_CHECKING, Any

from azure.core.pipeline.transport import AioHttpTransport
from azure.data.tables.aio import TableServiceClient
from azure.eventgrid.aio import EventGridPublisherClient
from azure.identity.aio import ManagedIdentityCredential
from azure.storage.queue.aio import QueueServiceClient

from shared.access import Roles
from shared.aks import Aks
from shared.announcements import Announcements
from shared.clusters import ClusterId
from shared.events import ClusterRequest
from shared.evidence import Evidence
from shared.identities import Identities
from shared.inspector import Inspector
from shared.keydata import KeyData
from shared.keyledger import KeyLedger
from shared.keysinuse import KeysInUse
from shared.keyvault import KeyVault
from shared.ledger import Ledger
from shared.notices import Notices
from shared.pauses import Pauses
from shared.policy import Mode, PolicyInForce, SecondRole
from shared.preparer import Preparer
from shared.queues import Queues
from shared.reconciler import Reconciler
from shared.recorder import Recorder
from shared.records import Record
from shared.rewriter import Rewriter
from shared.rotator import Rotator
from shared.surveyor import Surveyor
from shared.sweeper import Sweeper
from shared.tables import Tables
from shared.usage import Usage
from shared.vaultdoor import VaultDoor

if TYPE_CHECKING:
    from azure.core.credentials_async import AsyncTokenCredential

    from local.simulator.aks.state import SimulatedCluster
    from local.storage import Account

NOW = datetime(2026, 3, 2, 9, tzinfo=UTC)
LOOK_AGAIN = timedelta(minutes=1)

ENFORCE = """
version: 1
mode: enforce
acceptIrreversible: true
targets: [{keyManagement: platform-managed}]
"""

_messages = count(1)


@dataclass(frozen=True, slots=True)
class Product:
    """The rooms, and the storage below them to look into."""

    aks: Aks
    keyvault: KeyVault
    ledger: Ledger
    keys: KeyLedger
    queues: Queues
    pauses: Pauses
    reconciler: Reconciler
    inspector: Inspector
    rotator: Rotator
    sweeper: Sweeper
    tables: TableServiceClient
    storage: QueueServiceClient

    async def look(
        self,
        cluster: SimulatedCluster | str,
        *,
        now: datetime = NOW,
        token: str | None = None,
        since: datetime | None = None,
        mode: Mode | None = None,
        message: str | None = None,
        asked_by: str = "test",
    ) -> Record | None:
        """Look at a cluster as one message asks; `message` names it, to send the same one twice."""
        message = message or f"message-{next(_messages)}"
        cluster_id = ClusterId.parse(cluster if isinstance(cluster, str) else cluster.id)
        request = ClusterRequest(cluster_id, asked_by, token=token, since=since, mode=mode, id=message)
        return await self.reconciler.reconcile(request, now=now)

    async def look_again(self, cluster: SimulatedCluster, *, now: datetime) -> Record | None:
        """Look at a cluster as the one pending message of its wait asks."""
        record = await self.record(cluster)
        assert record.waiting is not None, "the cluster does not wait for anything"
        return await self.look(cluster, now=now, token=record.waiting.token)

    async def record(self, cluster: SimulatedCluster) -> Record:
        """The cluster's row."""
        record = await self.ledger.cluster(ClusterId.parse(cluster.id))
        assert record is not None, "the cluster has no row"
        return record

    async def rows(self, table: str) -> list[dict[str, Any]]:
        """All rows of a table, but for the copies by day: each line of activity once."""
        rows = [dict(row) async for row in self.tables.get_table_client(table).list_entities()]
        return [row for row in rows if not row["PartitionKey"].startswith("day|")]

    async def writes_noted(self) -> list[dict[str, Any]]:
        """The lines of activity that stand for writes."""
        return [row for row in await self.rows("activity") if row["kind"] == "write"]

    async def preparations_noted(self) -> list[dict[str, Any]]:
        """The lines of activity that stand for what was put in place, the oldest first."""
        rows = [row for row in await self.rows("activity") if row["kind"] == "preparation"]
        return sorted(rows, key=lambda row: str(row["at"]))

    async def messages(self, queue: str = "clusters") -> int:
        """How many messages a queue holds, visible or not."""
        properties = await self.storage.get_queue_client(queue).get_queue_properties()
        return int(properties.approximate_message_count or 0)

    async def slots_held(self) -> list[str]:
        """Which slots somebody holds."""
        return [row["RowKey"] for row in await self.rows("enforcement") if row.get("holder")]


@asynccontextmanager
async def product(
    account: Account,
    policy: str = ENFORCE,
    *,
    topic: str | None = None,
    features: str = "",
    second_role: SecondRole = SecondRole.READER,
    workspaces: tuple[str, ...] = (),
    run_command: bool = False,
) -> AsyncIterator[Product]:
    """Build the rooms as bootstrap does, for one storage account, one policy text and, if named, a topic."""
    credential, transport = ManagedIdentityCredential(), AioHttpTransport()
    tables = TableServiceClient(account.table_uri, credential=credential, retry_status=0)
    storage = QueueServiceClient(account.queue_uri, credential=credential)
    async with AsyncExitStack() as opened:
        for closable in (credential, transport, tables, storage):
            await opened.enter_async_context(closable)
        in_force = PolicyInForce.read(policy, second_role, run_command=run_command)
        aks, keyvault = Aks(credential, transport, features=features), KeyVault(credential, transport)
        rows, queues = Tables(tables), Queues(storage)
        ledger, keys = Ledger(rows), KeyLedger(rows)
        door = VaultDoor(credential, transport)
        keydata = KeyData(door, keys)
        usage = Usage(in_force, keys, queues)
        announcements = Announcements(credential, transport)
        roles, identities = Roles(credential, transport), Identities(credential, transport)
        surveyor = Surveyor(aks, keyvault, keydata, roles, identities)
        preparer, rewriter = Preparer(keyvault, identities, roles), Rewriter(aks, keys)
        publisher = await opened.enter_async_context(_publisher(topic, credential))
        notices = Notices(publisher) if publisher else None
        recorder, pauses = Recorder(ledger, notices), Pauses(ledger, notices)
        evidence = Evidence(credential, transport, workspaces) if workspaces else None
        yield Product(
            aks,
            keyvault,
            ledger,
            keys,
            queues,
            pauses,
            Reconciler(
                *(in_force, aks, surveyor, preparer, rewriter, ledger, recorder, pauses, usage),
                *(KeysInUse(usage, surveyor), queues, LOOK_AGAIN),
            ),
            Inspector(
                *(in_force, aks, keyvault, keydata, announcements, roles, ledger, keys, recorder, queues, ()),
                evidence=evidence,
            ),
            Rotator(in_force, aks, keyvault, door, ledger, keys, queues),
            Sweeper(in_force, aks, ledger, recorder, usage, pauses, queues, ()),
            tables,
            storage,
        )


@asynccontextmanager
async def _publisher(
    topic: str | None, credential: AsyncTokenCredential
) -> AsyncIterator[EventGridPublisherClient | None]:
    if topic is None:
        yield None
        return
    async with EventGridPublisherClient(topic, credential, retry_total=0) as publisher:
        yield publisher
