"""The process killed around each write of `prerequisites: ensure`: the same end each time, and everything made once."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

import pytest

from local.simulator import SUBSCRIPTION
from tests.e2e.app import SOON

if TYPE_CHECKING:
    from local.simulator import Azure
    from local.simulator.aks.state import SimulatedCluster
    from local.simulator.journal import Call
    from tests.e2e.app import App
    from tests.e2e.conftest import Prepare
    from tests.e2e.gateway import Gateway

SECOND = timedelta(seconds=1)
WRITING = "POST|PUT|PATCH|MERGE"
GROUP = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg-keys"
IDENTITY = f"{GROUP}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/id-wanted"
POLICY = f"""
version: 1
mode: enforce
acceptIrreversible: true
targets:
  - keyManagement: customer-managed
    vault: {GROUP}/providers/Microsoft.KeyVault/vaults/kv-kms-weu
    key: etcd
    prerequisites: ensure
"""
FROM_NOTHING = POLICY + f"    networkAccess: public\n    identity: {IDENTITY}\n    allowIdentityChange: true\n"
ROLES = {"Key Vault Crypto User", "Key Vault Reader"}
HELD_LONG_AGO = timedelta(days=1)

CALLS = {
    "create-vault": ("PUT", r"/vaults/kv-kms-weu$"),
    "create-key": ("PUT", r"/keys/etcd$"),
    "create-identity": ("PUT", r"/userAssignedIdentities/id-wanted$"),
    "grant-role": ("PUT", r"/roleAssignments/"),
    "admit-trusted-services": ("PATCH", r"/vaults/kv-kms-weu$"),
}
MADE_FROM_NOTHING = {"create-vault": 1, "create-key": 1, "create-identity": 1, "grant-role": 2}

type Killing = Callable[[App, str | None], None]
"""Lets the app be killed around the next write of a step; None: no more."""


def around_the_write(when: Literal["before", "after"]) -> Killing:
    """Right before Azure takes the write, or once it has and before its reply."""

    def kill(app: App, step: str | None) -> None:
        assert app.azure.faults.pending == (), "it died of something else"
        if step is not None:
            app.azure.faults.call_next(*CALLS[step], app.kill, when=when)

    return kill


def before_the_record(gateway: Gateway) -> Killing:
    """Once Azure's reply is there, and before anything is recorded of it."""

    def kill(app: App, step: str | None) -> None:
        gateway.forget()
        if step is not None:
            gateway.call_at(WRITING, "/activity", lambda: bool(taken(app, step)) and app.kill())

    return kill


def taken(app: App, step: str) -> list[Call]:
    """The writes of a step that Azure took."""
    return [call for call in app.azure.journal.writes() if call.matches(*CALLS[step])]


def killed_around_each(app: App, cluster: SimulatedCluster, steps: Iterable[str], kill: Killing) -> list[str]:
    """Let the app come to its end, killed once around each step; the steps that were claimed when it died."""
    app.start()
    first, *others = steps
    kill(app, first)
    app.host.invoke("sweep_fleet")
    claimed: list[str] = []
    for following in (*others, None):
        app.host.child.wait(within=SOON)
        claimed.append(json.loads(app.row(cluster)["claim"])["change"]["step"])
        kill(app, following)  # ordered before it runs again, so that it can't be too late
        app.restart()
    app.wait_for_reason("as-asked", cluster)
    app.wait_quiet()
    return claimed


def assert_all_is_there_once(app: App, cluster: SimulatedCluster, made: Mapping[str, int]) -> None:
    assert {step: len(taken(app, step)) for step in made} == made
    assert cluster.encryption == "customer-managed"
    vault = next(iter(app.azure.keyvault.vaults.values()))
    assert [len(key.versions) for key in vault.keys.values()] == [1]
    held = [one.role.name for one in app.azure.access.every() if one.principal_id == cluster.principal_id]
    assert sorted(held) == sorted(ROLES)
    assert "claim" not in app.row(cluster)
    assert {row["holder"] for row in app.rows("enforcement") if "holder" in row} == {""}


def assert_swept_again_it_writes_nothing(app: App) -> None:
    """The first sweep logs the key, which is in use by now; the second finds nothing new at all."""
    calls = len(app.azure.journal.writes())
    app.sweep()
    app.wait_quiet()
    versions = app.versions()
    app.sweep()
    app.wait_quiet()

    assert len(app.azure.journal.writes()) == calls
    assert app.versions() == versions


def outcomes(app: App, cluster: SimulatedCluster) -> Counter[tuple[str, Any]]:
    return Counter((line["step"], line["outcome"]) for line in app.activity(cluster, "preparation"))


def done(made: Mapping[str, int]) -> Counter[tuple[str, Any]]:
    return Counter({(step, "done"): count for step, count in made.items()})


@pytest.fixture
def prepared(prepare: Prepare, azure: Azure, table_gateway: Gateway) -> Callable[[str], App]:
    """An app whose tables lie behind a gateway, on an Azure that is quick."""
    azure.aks.update_duration = azure.keyvault.registration = SECOND
    azure.add_resource_group("rg-keys")

    def app_with(policy: str) -> App:
        return prepare(policy=policy, settings={"AzureWebJobsStorage__tableServiceUri": table_gateway.uri})

    return app_with


def closed_vault_with(azure: Azure, cluster: SimulatedCluster) -> None:
    """A vault that lacks nothing but the bypass."""
    vault = azure.keyvault.add_vault("kv-kms-weu", default_action="Deny", bypass="None")
    azure.keyvault.add_key(vault, "etcd")
    for role in ROLES:
        azure.access.assign(cluster.principal_id, role, vault.id, created=azure.clock.now() - HELD_LONG_AGO)


def test_killed_before_each_write_it_makes_each_after_the_restart(prepared: Callable[[str], App], azure: Azure) -> None:
    cluster = azure.aks.add("aks-orders", identity="system-assigned")
    app = prepared(FROM_NOTHING)

    claimed = killed_around_each(app, cluster, MADE_FROM_NOTHING, around_the_write("before"))

    assert claimed == list(MADE_FROM_NOTHING)
    assert_all_is_there_once(app, cluster, MADE_FROM_NOTHING)
    withdrawn = Counter({(step, "withdrawn"): 1 for step in MADE_FROM_NOTHING})
    assert outcomes(app, cluster) == done(MADE_FROM_NOTHING) + withdrawn
    assert_swept_again_it_writes_nothing(app)


def test_killed_between_each_write_and_its_reply_it_finds_what_it_made(
    prepared: Callable[[str], App], azure: Azure
) -> None:
    cluster = azure.aks.add("aks-orders", identity="system-assigned")
    app = prepared(FROM_NOTHING)

    claimed = killed_around_each(app, cluster, MADE_FROM_NOTHING, around_the_write("after"))

    assert claimed == list(MADE_FROM_NOTHING)
    assert_all_is_there_once(app, cluster, MADE_FROM_NOTHING)
    assert outcomes(app, cluster) == done(MADE_FROM_NOTHING)
    assert_swept_again_it_writes_nothing(app)


def test_killed_between_each_reply_and_its_record_it_finds_what_it_made(
    prepared: Callable[[str], App], azure: Azure, table_gateway: Gateway
) -> None:
    cluster = azure.aks.add("aks-orders", identity="system-assigned")
    app = prepared(FROM_NOTHING)

    claimed = killed_around_each(app, cluster, MADE_FROM_NOTHING, before_the_record(table_gateway))

    assert claimed == list(MADE_FROM_NOTHING)
    assert_all_is_there_once(app, cluster, MADE_FROM_NOTHING)
    assert outcomes(app, cluster) == done(MADE_FROM_NOTHING)
    assert_swept_again_it_writes_nothing(app)


@pytest.mark.parametrize("moment", ["before", "after", "record"])
def test_killed_around_the_bypass_of_an_existing_vault_it_ends_the_same(
    prepared: Callable[[str], App], azure: Azure, table_gateway: Gateway, moment: str
) -> None:
    cluster = azure.aks.add("aks-orders")
    closed_vault_with(azure, cluster)
    made, app = {"admit-trusted-services": 1}, prepared(POLICY + "    networkAccess: private\n")
    kill = {
        "before": around_the_write("before"),
        "after": around_the_write("after"),
        "record": before_the_record(table_gateway),
    }[moment]

    claimed = killed_around_each(app, cluster, made, kill)

    assert claimed == list(made)
    assert_all_is_there_once(app, cluster, made)
    withdrawn = Counter({("admit-trusted-services", "withdrawn"): int(moment == "before")})
    assert outcomes(app, cluster) == done(made) + withdrawn
    assert_swept_again_it_writes_nothing(app)
