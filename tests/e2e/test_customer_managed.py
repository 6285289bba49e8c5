"""Customer-managed keys, edge to edge: public and private, new and existing, one rotation; a second time nothing."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from local.simulator import SUBSCRIPTION
from local.simulator.activity import PERSON, PERSONAL_DATA

if TYPE_CHECKING:
    from local.simulator import Azure
    from local.simulator.aks.state import SimulatedCluster
    from local.simulator.keyvault import SimulatedVault
    from tests.e2e.app import App, Row
    from tests.e2e.conftest import Prepare

SECOND, HOUR = timedelta(seconds=1), timedelta(hours=1)
VAULTS = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg-keys/providers/Microsoft.KeyVault/vaults"
POLICY = f"""
version: 1
mode: enforce
acceptIrreversible: true
targets:
  - name: open
    match: {{tags: {{vault: open}}}}
    keyManagement: customer-managed
    vault: {VAULTS}/kv-open
    key: etcd
    networkAccess: public
  - name: closed
    match: {{tags: {{vault: closed}}}}
    keyManagement: customer-managed
    vault: {VAULTS}/kv-closed
    key: etcd
    networkAccess: private
"""
OPEN, CLOSED = {"vault": "open"}, {"vault": "closed"}
ENFORCED, ROTATED = "AksKmsEnforcer.ClusterEnforced", "AksKmsEnforcer.RotationDetected"


def vault_with_key(azure: Azure, name: str, **seed: Any) -> SimulatedVault:
    vault = azure.keyvault.add_vault(name, **seed)
    azure.keyvault.add_key(vault, "etcd")
    return vault


def permit(azure: Azure, cluster: SimulatedCluster, vault: SimulatedVault) -> SimulatedCluster:
    """Give a cluster's identity what it needs."""
    for role in ("Key Vault Crypto User", "Key Vault Reader"):
        azure.access.assign(cluster.principal_id, role, vault.id, created=azure.clock.now() - timedelta(days=1))
    return cluster


def kms_of(app: App, cluster: SimulatedCluster) -> Any:
    """What the one accepted write of a cluster asked for."""
    (put,) = app.puts(cluster)
    assert put.headers.get("if-match")
    profile = put.body["properties"]["securityProfile"]
    assert profile["kubernetesResourceObjectEncryptionProfile"] == {"infrastructureEncryption": "Enabled"}
    return profile["azureKeyVaultKms"]


def told(azure: Azure, kind: str) -> list[str]:
    """The subjects of the notices of one kind, in lower case. What looks at the same moment tell has one id."""
    payloads = {published.payload["id"]: published.payload for published in azure.eventgrid.published}
    return sorted(payload["subject"].lower() for payload in payloads.values() if payload["type"] == kind)


def versions(app: App, how: str) -> dict[str, Row]:
    """The logged versions of keys by their vault."""
    return {row["PartitionKey"]: row for row in app.rows("rotations") if row.get("how") == how}


def test_new_and_existing_clusters_get_the_key_of_a_public_and_of_a_private_vault(
    prepare: Prepare, azure: Azure
) -> None:
    azure.aks.update_duration = SECOND
    topic = azure.eventgrid.add_topic("outcomes")
    public = vault_with_key(azure, "kv-open")
    private = vault_with_key(azure, "kv-closed", default_action="Deny", bypass="AzureServices")
    existing = permit(azure, azure.aks.add("aks-orders", tags=OPEN), public)
    guarded = permit(azure, azure.aks.add("aks-vault", tags=CLOSED), private)
    app = prepare(policy=POLICY, settings={"NOTICES_TOPIC": topic})
    app.start()
    app.subscribe()

    created = permit(azure, azure.aks.create("aks-checkout", duration=SECOND, tags=OPEN), public)
    app.wait_for_reason("as-asked", created)
    by_event_alone = app.row(existing)
    app.sweep()
    app.wait_for_reason("as-asked", existing, guarded)
    app.wait_quiet()

    assert by_event_alone == {}
    for cluster in (created, existing):
        assert kms_of(app, cluster) == {
            "enabled": True,
            "keyId": "https://kv-open.vault.azure.net/keys/etcd",
            "keyVaultNetworkAccess": "Public",
        }
    kms = kms_of(app, guarded)
    assert kms.pop("keyVaultResourceId").lower() == private.id.lower()
    assert kms == {
        "enabled": True,
        "keyId": "https://kv-closed.vault.azure.net/keys/etcd",
        "keyVaultNetworkAccess": "Private",
    }
    clusters = (created, existing, guarded)
    assert {cluster.encryption for cluster in clusters} == {"customer-managed"}
    for cluster in clusters:
        (line,) = app.activity(cluster, "write")
        assert (line["outcome"], json.loads(line["before"])["kms_enabled"]) == ("done", False)
    assert {row["holder"] for row in app.rows("enforcement") if "holder" in row} == {""}
    assert told(azure, ENFORCED) == sorted(cluster.id.lower() for cluster in clusters)
    assert_a_rotation_is_logged_told_and_looked_at(app, azure, public, (created, existing))
    assert_a_second_time_changes_nothing(app, azure)
    assert_nobody_is_named(app, azure)


def assert_a_rotation_is_logged_told_and_looked_at(
    app: App, azure: Azure, vault: SimulatedVault, users: tuple[SimulatedCluster, ...]
) -> None:
    """One rotation: logged by its event, every user of the key looked at, nothing written, told once."""
    app.sweep()  # the keys' baselines are taken by the sweep that finds them in use
    app.wait_for(lambda: len(versions(app, "baseline")) == 2, "the baseline of either key")
    app.wait_quiet()
    writes, before = len(azure.journal.writes()), len(azure.journal.calls)

    version = azure.keyvault.rotate(vault, "etcd")
    app.wait_for(lambda: versions(app, "event").get("kv-open|etcd", {}).get("fannedOutAt"), "everybody to be told")
    app.wait_quiet()

    calls = [call.path for call in azure.journal.calls[before:] if "/managedClusters/" in call.path]
    event = next(one.payload for one in azure.eventgrid.delivered if one.payload["subject"] == "etcd")
    row = versions(app, "event")["kv-open|etcd"]
    assert (row["RowKey"], row["eventId"]) == (f"v|{version}", event["id"])
    assert {path.rpartition("/")[2] for path in calls} == {cluster.name for cluster in users}
    assert len(azure.journal.writes()) == writes
    assert told(azure, ROTATED) == ["kv-open/etcd"]


def assert_a_second_time_changes_nothing(app: App, azure: Azure) -> None:
    """Every event once more, and another sweep: nothing is written, in Azure, in a table or to the topic."""
    writes, rows, notices = len(azure.journal.writes()), app.versions(), len(azure.eventgrid.published)
    app.deliver_again(azure.eventgrid.delivered)
    app.sweep()
    app.wait_quiet()

    assert len(azure.journal.writes()) == writes
    assert app.versions() == rows
    assert len(azure.eventgrid.published) == notices


def assert_nobody_is_named(app: App, azure: Azure) -> None:
    """Nothing of whoever caused an event is in the log, in a table or in a notice."""
    tables = [app.rows(table) for table in ("activity", "clusters", "rotations", "runs")]
    said = app.log() + json.dumps([tables, [one.payload for one in azure.eventgrid.published]], default=str)
    names = (*PERSONAL_DATA, *map(str, PERSON.claims.values()), "claims", "eyJ", "Bearer")

    assert [name for name in names if name in said] == []


def test_a_cluster_that_lacks_its_role_is_enforced_after_it_was_granted(prepare: Prepare, azure: Azure) -> None:
    azure.aks.update_duration = SECOND
    vault = vault_with_key(azure, "kv-open")
    app = prepare(policy=POLICY)
    app.start()
    app.subscribe()

    cluster = azure.aks.create("aks-checkout", duration=timedelta(0), tags=OPEN)
    app.wait_for_reason("access-missing", cluster)
    app.wait_quiet()
    reported, writes = app.row(cluster), len(azure.journal.writes())
    permit(azure, cluster, vault)
    app.host.advance(HOUR)
    azure.clock.advance(HOUR)
    app.sweep()
    app.wait_for_reason("as-asked", cluster)
    app.wait_quiet()

    assert writes == 0
    assert cluster.principal_id in json.loads(reported["fix"])["command"]
    assert len(app.puts(cluster)) == 1
    assert cluster.encryption == "customer-managed"
