"""A legacy cluster with its vault and key, and the product that looks after it, for tests of rotation and rewrite."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from local.stage import TABLES
from shared.clusters import ClusterId
from shared.events import KeyRequest
from shared.keys import KeyId
from shared.records import Record
from shared.rotation import KeyUser
from tests.product import Product

if TYPE_CHECKING:
    from local.simulator import Azure
    from local.simulator.aks import SimulatedCluster
    from local.simulator.keyvault import SimulatedKey, SimulatedVault

KEY = KeyId("kv-kms", "etcd")
MINUTE = timedelta(minutes=1)
OPERATION = timedelta(minutes=6)
"""Longer than an update takes."""

RUN_COMMAND = r"/runCommand$"
RESULT = r"/commandResults/"


def policy(rotation: str, *, mode: str = "enforce", more: str = "") -> str:
    """A policy that leaves legacy clusters as they are, and rotates them so."""
    return f"""
version: 1
mode: {mode}
acceptIrreversible: true
targets: [{{keyManagement: platform-managed}}]
legacy: {{rotation: {rotation}}}
{more}
"""


@dataclass(frozen=True, slots=True)
class Scene:
    """What a test plays with."""

    app: Product
    azure: Azure
    vault: SimulatedVault
    key: SimulatedKey
    cluster: SimulatedCluster

    @property
    def now(self) -> datetime:
        """The simulated time."""
        return self.azure.clock.now()

    @property
    def named(self) -> str:
        """The version that the cluster names."""
        key_id: str = self.cluster.security_profile["azureKeyVaultKms"]["keyId"]
        return key_id.rpartition("/")[2]

    @property
    def id(self) -> ClusterId:
        """The cluster's id."""
        return ClusterId.parse(self.cluster.id)

    def later(self, by: timedelta = MINUTE) -> None:
        """Let time pass."""
        self.azure.clock.advance(by)

    def rotate(self) -> str:
        """A new version of the key, at a second of its own: a vault tells no more of when it was made."""
        self.later(timedelta(seconds=2))
        return self.azure.keyvault.rotate(self.vault, self.key)

    def name_newest(self, key: SimulatedKey) -> None:
        """Somebody updates the cluster to the newest version of a key."""
        self.name(key.uri_of(key.current.version))

    def name(self, url: str) -> None:
        """Somebody updates the cluster to a version, by its URL."""

        def named(document: dict[str, Any]) -> None:
            document["properties"]["securityProfile"]["azureKeyVaultKms"]["keyId"] = url

        self.azure.aks.change(self.cluster.id, named)

    def rewrite_by_hand(self) -> datetime:
        """Somebody rewrites the secrets; return when."""
        self.azure.aks.rewrite_secrets(self.cluster)
        return self.now

    def writes(self) -> int:
        """How many updates of the cluster Azure took."""
        path = self.cluster.id.lower()
        return sum(call.path.lower() == path for call in self.azure.journal.writes())

    def commands(self) -> list[str]:
        """With which two integers each command began that Azure took."""
        calls = [call for call in self.azure.journal.matching("POST", RUN_COMMAND) if call.accepted]
        return [call.body["command"].partition("\n")[0] for call in calls]

    def readable(self) -> bool:
        """Whether every secret can be read."""
        return self.azure.aks.readable(self.cluster)

    async def inspect(self, name: str = KEY.name) -> None:
        """Look at the key, or at another one of its vault."""
        await self.app.inspector.inspect(KeyRequest(KeyId(KEY.vault, name), "timer"), now=self.now)

    async def rotated(self) -> str:
        """A new version of the key, which a look at it has found."""
        version = self.rotate()
        await self.inspect()
        return version

    async def look(self) -> Record:
        """Look at the cluster, now."""
        record = await self.app.look(self.cluster, now=self.now)
        assert record is not None
        return record

    async def look_on(self, times: int = 12) -> Record:
        """Look again each minute, until nothing is claimed any more."""
        record = await self.look()
        for _ in range(times):
            if record.claim is None:
                break
            self.later()
            record = await self.look()
        return record

    async def settle(self, times: int = 40) -> Record:
        """Look again each minute until a look ends without a wait."""
        record = await self.look()
        for _ in range(times):
            if record.claim is None and record.waiting is None:
                break
            self.later()
            record = await self.look()
        return record

    async def confirm(self) -> None:
        """An operator says that the secrets were rewritten just now."""
        uid = str(self.cluster.document["properties"]["resourceUID"])
        await self.app.keys.rewritten(KEY, self.id, uid, by="ops@example.com", at=self.now)

    async def user(self) -> KeyUser:
        """What the ledger knows of the cluster as a user of its key."""
        (user,) = await self.app.keys.users(KEY)
        return user

    async def all_rows(self) -> str:
        """All that is kept in tables, as one text."""
        rows = [await self.app.rows(table) for table in TABLES]
        return str(rows)

    async def steps_noted(self) -> list[dict[str, Any]]:
        """The lines of activity that stand for steps of a rewrite, the oldest first."""
        rows = [row for row in await self.app.rows("activity") if row["kind"] == "reencryption"]
        return sorted({row["RowKey"]: row for row in rows}.values(), key=lambda row: row["at"])


async def set_scene(app: Product, azure: Azure, *, name: str = "aks-1", **seed: Any) -> Scene:
    """A legacy cluster on the first version of a key; both were looked at once. The keywords are those of `add`."""
    vault = azure.keyvault.add_vault("kv-kms")
    key = azure.keyvault.add_key(vault, "etcd")
    cluster = azure.aks.add(name, encryption="legacy", key_id=key.uri_of(key.current.version), **seed)
    long_ago = azure.clock.now() - timedelta(days=1)
    azure.access.assign(cluster.principal_id, "Key Vault Crypto User", vault.id, created=long_ago)
    scene = Scene(app, azure, vault, key, cluster)
    await scene.look()
    await scene.inspect()
    return scene
