"""What the app does in each mode, played through its rooms on a simulated Azure that enforces its roles."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from local.simulator import SUBSCRIPTION
from local.simulator.eventgrid import EventSubscription, Schema
from shared.events import KeyRequest, ShardRequest
from shared.keys import KeyId, VaultId
from shared.reasons import Reason
from tests.product import Product

if TYPE_CHECKING:
    from collections.abc import Callable

    from local.simulator import Azure
    from local.simulator.aks.state import SimulatedCluster
    from shared.records import Record

PERMISSIONS: dict[str, Any] = json.loads(
    (Path(__file__).parent.parent / "infra" / "permissions.json").read_text(encoding="utf-8")
)
TOP = f"/subscriptions/{SUBSCRIPTION}"
KEYS = f"{TOP}/resourceGroups/rg-keys"
VAULTS = f"{KEYS}/providers/Microsoft.KeyVault/vaults"
IDENTITIES = f"{KEYS}/providers/Microsoft.ManagedIdentity/userAssignedIdentities"
ROLES = ("Key Vault Crypto User", "Key Vault Reader")
STEP = timedelta(minutes=5)
MOST_STEPS = 30

type Outcomes = dict[str, str]


def _target(cluster: str, vault: str, *lines: str) -> str:
    said = [
        f"match: {{names: [{cluster}]}}",
        "keyManagement: customer-managed",
        f"vault: {VAULTS}/{vault}",
        "key: etcd",
    ]
    return "  - " + "\n    ".join([*said, *lines]) + "\n"


def _public(cluster: str, vault: str, *lines: str) -> str:
    return _target(cluster, vault, *lines, "networkAccess: public", "prerequisites: ensure")


def _identity(name: str) -> tuple[str, str]:
    return f"identity: {IDENTITIES}/{name}", "allowIdentityChange: true"


PLATFORM = "  - {match: {names: [aks-plain, aks-failing]}, keyManagement: platform-managed}\n"
CHECKED = (
    PLATFORM
    + _target("aks-key", "kv-good")
    + _target("aks-in-use", "kv-good")
    + _target("aks-no-role", "kv-good")
    + _target("aks-lost-vault", "kv-lost")
    + _target("aks-other-tenant", "kv-foreign")
    + _target("aks-no-identity", "kv-good", *_identity("id-none"))
    + _target("aks-new-identity", "kv-good", *_identity("id-there"))
)
ENSURED = (
    _public("aks-empty-group", "kv-new", *_identity("id-new"))
    + _public("aks-lost-vault", "kv-lost")
    + _target("aks-closed-vault", "kv-closed", "networkAccess: private", "prerequisites: ensure")
)
ENFORCING = "version: 1\nmode: enforce\nacceptIrreversible: true\nlimits: {stopAfterFailures: 9}\ntargets:\n"


def seed_checked(azure: Azure) -> None:
    """Clusters with and without all that they need, and one that uses a key which has rotated."""
    good = azure.keyvault.add_vault("kv-good")
    azure.keyvault.rotate(good, azure.keyvault.add_key(good, "etcd"), announce=False)
    other = azure.keyvault.add_vault("kv-elsewhere")
    for vault, function in ((good, "on_key_event"), (other, "of_somebody_else")):
        endpoint = f"https://127.0.0.1/runtime/webhooks/eventgrid?functionName={function}"
        found = EventSubscription(vault.id, endpoint, Schema.EVENT_GRID, None, None, function)
        azure.eventgrid.subscriptions.append(found)
    for vault in (other, azure.keyvault.add_vault("kv-quiet")):
        azure.keyvault.add_key(vault, "etcd")
    azure.keyvault.add_key(
        azure.keyvault.add_vault("kv-foreign", tenant="00000000-0000-0000-0000-0000000000d2"), "etcd"
    )
    azure.keyvault.remove_vault(azure.keyvault.add_vault("kv-lost"))
    azure.aks.add("aks-plain", identity="system-assigned")
    azure.aks.add("aks-in-use", encryption="customer-managed", key_id=f"{good.uri.rstrip('/')}/keys/etcd")
    azure.aks.add("aks-no-identity", identity="system-assigned")
    azure.aks.add("aks-new-identity", identity="system-assigned")
    for name in ("aks-key", "aks-no-role", "aks-lost-vault", "aks-other-tenant"):
        azure.aks.add(name)
    _, there = azure.aks.add_identity("id-there", group="rg-keys")
    long_ago = azure.clock.now() - timedelta(days=1)
    for cluster in azure.aks.clusters.values():
        for role in ROLES if cluster.name != "aks-no-role" else ROLES[1:]:
            azure.access.assign(cluster.principal_id, role, KEYS, created=long_ago)
    for role in ROLES:
        azure.access.assign(there, role, KEYS, created=long_ago)


def seed_enforced(azure: Azure) -> None:
    """The same, and a cluster whose update will fail."""
    seed_checked(azure)
    azure.aks.add("aks-failing", identity="system-assigned")


def seed_ensured(azure: Azure) -> None:
    """An empty group, and a vault that is closed to everybody."""
    azure.add_resource_group("rg-keys")
    azure.keyvault.remove_vault(azure.keyvault.add_vault("kv-lost"))
    azure.aks.add("aks-lost-vault")
    azure.aks.add("aks-empty-group", identity="system-assigned")
    azure.aks.add("aks-closed-vault")
    closed = azure.keyvault.add_vault("kv-closed", default_action="Deny", bypass="None")
    azure.keyvault.add_key(closed, "etcd")


@dataclass(frozen=True, slots=True)
class Story:
    """One mode: the switches of the templates that it needs, and what it is played on.

    `below` says at which scope a switch's actions are held; the subscription where it says nothing.
    """

    switches: tuple[str, ...]
    policy: str
    seed: Callable[[Azure], None]
    below: Mapping[str, str]

    @property
    def actions(self) -> list[tuple[str, str]]:
        """Each switch with each of its actions."""
        return [(switch, action) for switch in self.switches for action in PERMISSIONS[switch]]

    def allow(self, azure: Azure, *, without: str | None = None) -> None:
        """Give the app the roles of this mode, but for one action."""
        held: dict[str, set[str]] = {}
        for switch, action in self.actions:
            held.setdefault(self.below.get(switch, TOP), set()).update({action} - {without})
        for scope, actions in held.items():
            azure.permissions.allow_only(actions, object_id=azure.identity.default.object_id, scope=scope)


STORIES = {
    "audit": Story(("audit",), "version: 1\nmode: audit\ntargets:\n" + CHECKED, seed_checked, {}),
    "enforce": Story(("audit", "enforce"), ENFORCING + CHECKED, seed_enforced, {}),
    "ensure": Story(
        ("audit", "enforce", "ensure", "grants"), ENFORCING + ENSURED, seed_ensured, {"ensure": KEYS, "grants": KEYS}
    ),
}


async def play(app: Product, azure: Azure) -> Outcomes:
    """Sweep, look at each cluster until it waits for nothing, inspect the key in use. What each of them came to."""
    outcomes = {"the sweep": await _swept(app, azure)}
    for cluster in sorted(azure.aks.clusters.values(), key=lambda one: one.name):
        outcomes[cluster.name] = _said(await _followed(app, azure, cluster))
    if "kv-good" in {vault.name for vault in azure.keyvault.vaults.values()}:
        outcomes["the key in use"] = await _inspected(app, azure)
        for who, vault in (("the key elsewhere", "kv-elsewhere"), ("the key unheard", "kv-quiet")):
            outcomes[who] = ", ".join(await _found_wrong(app, azure, KeyId(vault, "etcd"))) or "nothing"
    return outcomes


async def _swept(app: Product, azure: Azure) -> str:
    now = azure.clock.now()
    run = await app.sweeper.start(f"run-{now:%H%M}", asked_by="test", now=now)
    if not run.shards:
        return "no subscription"
    shard = await app.sweeper.sweep(ShardRequest(run.id, SUBSCRIPTION, "test"), now=now)
    assert shard is not None, "nobody throttles here"
    return shard.failure or ("all clusters" if shard.clusters == len(azure.aks.clusters) else "no cluster")


async def _followed(app: Product, azure: Azure, cluster: SimulatedCluster) -> Record:
    if cluster.name == "aks-failing" and azure.journal.matching("PUT", "aks-failing$") == ():
        azure.aks.fail_operation_next("QuotaExceeded", "there is no room")
    record = await app.look(cluster, now=azure.clock.now())
    for _ in range(MOST_STEPS):
        assert record is not None, "the cluster is there"
        if record.waiting is None:
            return record
        azure.clock.advance(STEP)
        record = await app.look_again(cluster, now=azure.clock.now())
    raise AssertionError(f"{cluster.name} still waits: {record}")


def _said(record: Record) -> str:
    """The first reason, what else there is to know of it, and the doubts."""
    reason, *doubts = record.reasons
    more = [f"`{doubt}`" for doubt in doubts]
    if reason is Reason.FAILED:
        more.append(str(record.detail).partition(":")[0])
    return f"`{reason}`" + (f" ({', '.join(more)})" if more else "")


async def _inspected(app: Product, azure: Azure) -> str:
    """How many versions are logged where nobody tells the vault's id, and where somebody does; and what is wrong."""
    key = KeyId("kv-good", "etcd")
    await app.inspector.inspect(KeyRequest(key, "timer"), now=azure.clock.now())
    found = len((await app.keys.key(key)).rotations)
    wrong = await _found_wrong(app, azure, key)
    by_id = len((await app.keys.key(key)).rotations)
    unreadable = [row for row in await app.rows("activity") if row["kind"] == "unreadable"]
    said = f"{found} versions" if found == by_id else f"{by_id} versions, if its vault's id is known"
    return ", ".join([said, *(["a line `unreadable`"] if unreadable else []), *wrong])


async def _found_wrong(app: Product, azure: Azure, key: KeyId) -> list[str]:
    vault = VaultId.parse(f"{VAULTS}/{key.vault}")
    await app.inspector.inspect(KeyRequest(key, "test", vault), now=azure.clock.now())
    return [f"`{finding.reason}`" for finding in (await app.keys.key(key)).findings]
