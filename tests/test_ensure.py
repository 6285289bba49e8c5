"""`prerequisites: ensure`, end to end through the rooms: one write a look, nothing that is there, nothing by halves."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from local.simulator import SUBSCRIPTION
from local.simulator.keyvault import access_policy
from shared.clusters import ClusterId
from shared.errors import Unavailable, Unreadable
from shared.events import OPERATOR, ClusterRequest, ShardRequest
from shared.policy import Mode, SecondRole
from shared.preparations import CreateVault
from shared.preparer import Preparer
from shared.reasons import Action, Reason
from tests.product import LOOK_AGAIN, Product, product

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from datetime import datetime

    from local.simulator import Azure
    from local.simulator.aks.state import SimulatedCluster
    from local.simulator.keyvault import SimulatedVault
    from local.storage import Account
    from shared.preparations import Preparation
    from shared.records import Record

HOUR = timedelta(hours=1)
RESTS = timedelta(minutes=55)
GROUP = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg-keys"
VAULT = f"{GROUP}/providers/Microsoft.KeyVault/vaults/kv-kms-weu"
IDENTITY = f"{GROUP}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/id-wanted"
TARGET = f"""
version: 1
mode: enforce
acceptIrreversible: true
targets:
  - keyManagement: customer-managed
    vault: {VAULT}
    key: etcd
    prerequisites: ensure
"""
PUBLIC, PRIVATE = TARGET + "    networkAccess: public\n", TARGET + "    networkAccess: private\n"
CHANGING = PUBLIC + f"    identity: {IDENTITY}\n    allowIdentityChange: true\n"
CLOSED: dict[str, Any] = {"default_action": "Deny", "bypass": "None"}
ROLES = ("Key Vault Crypto User", "Key Vault Reader")
MOST_LOOKS = 40

VAULT_PUT, KEY_PUT = ("PUT", r"/vaults/kv-kms-weu$"), ("PUT", r"/vaults/kv-kms-weu/keys/etcd$")
IDENTITY_PUT, GRANT_PUT = ("PUT", r"/userAssignedIdentities/id-wanted$"), ("PUT", r"/roleAssignments/[0-9a-f-]{36}$")
VAULT_PATCH, CLUSTER_PUT = ("PATCH", r"/vaults/kv-kms-weu$"), ("PUT", r"/managedClusters/aks-1$")
KINDS = (VAULT_PUT, KEY_PUT, IDENTITY_PUT, GRANT_PUT, VAULT_PATCH, CLUSTER_PUT)


@dataclass(frozen=True, slots=True)
class Step:
    """One preparation: where it is written, what it is called, and the right that it needs."""

    call: tuple[str, str]
    name: str
    right: str


STEPS = {
    "vault": Step(VAULT_PUT, "create-vault", "Microsoft.KeyVault/vaults/write"),
    "key": Step(KEY_PUT, "create-key", "Microsoft.KeyVault/vaults/keys/write"),
    "identity": Step(IDENTITY_PUT, "create-identity", "Microsoft.ManagedIdentity/userAssignedIdentities/write"),
    "grant": Step(GRANT_PUT, "grant-role", "Microsoft.Authorization/roleAssignments/write"),
    "bypass": Step(VAULT_PATCH, "admit-trusted-services", "Microsoft.KeyVault/vaults/write"),
}
EACH_STEP = pytest.mark.parametrize("step", [pytest.param(step, id=name) for name, step in STEPS.items()])


def lacking(step: Step, azure: Azure) -> tuple[SimulatedCluster, str]:
    """A cluster that needs this step on its way, and the policy that asks for it."""
    azure.add_resource_group("rg-keys")
    if step is not STEPS["bypass"]:
        return azure.aks.add("aks-1", identity="system-assigned"), CHANGING
    azure.keyvault.add_vault("kv-kms-weu", **CLOSED)
    return azure.aks.add("aks-1"), PRIVATE


@dataclass(frozen=True, slots=True)
class Walk:
    """The app on the simulated Azure's own clock, look by look."""

    app: Product
    azure: Azure

    @property
    def now(self) -> datetime:
        return self.azure.clock.now()

    def writes(self) -> list[str]:
        """What Azure took, in order: which kind of write each was."""
        return [kind_of(call.method, call.path) for call in self.azure.journal.writes()]

    def tries(self) -> int:
        """How many writes were sent to Azure, taken or not."""
        return sum(len(self.azure.journal.matching(method, path)) for method, path in KINDS)

    async def look(self, cluster: SimulatedCluster, **asked: Any) -> Record:
        record = await self.app.look(cluster, now=self.now, **asked)
        assert record is not None
        return record

    async def next_look(self, cluster: SimulatedCluster) -> Record:
        """Let the wait's time pass, and look as its message asks."""
        record = await self.app.record(cluster)
        assert record.waiting is not None, f"it does not wait: {record.action} {record.reasons} {record.detail}"
        self.azure.clock.advance(max(record.waiting.look_again_at - self.now, timedelta(seconds=1)))
        looked = await self.app.look_again(cluster, now=self.now)
        assert looked is not None
        return looked

    async def until(self, reason: Reason, cluster: SimulatedCluster) -> Record:
        """Look again and again until this is why; no look writes more than once."""
        record = await self.app.record(cluster)
        for _ in range(MOST_LOOKS):
            if record.reasons[:1] == (reason,):
                return record
            written = len(self.writes())
            record = await self.next_look(cluster)
            assert len(self.writes()) <= written + 1, "more than one write in one look"
        raise AssertionError(f"never {reason}: {record.action} {record.reasons} {record.detail}")

    async def assert_nothing_more_is_written(self, *clusters: SimulatedCluster) -> None:
        """Two hours later neither a look nor a sweep writes anything, to Azure or to the clusters' rows."""
        tries, before = self.tries(), [(await self.app.record(cluster)).version for cluster in clusters]
        self.azure.clock.advance(2 * HOUR)
        for cluster in clusters:
            await self.look(cluster)
        await self.app.sweeper.sweep(ShardRequest("again", SUBSCRIPTION, "test"), now=self.now)

        assert self.tries() == tries
        assert [(await self.app.record(cluster)).version for cluster in clusters] == before

    async def assert_nothing_is_held(self, cluster: SimulatedCluster) -> None:
        assert (await self.app.record(cluster)).claim is None
        assert await self.app.slots_held() == []


def kind_of(method: str, path: str) -> str:
    names = {VAULT_PUT: "vault", KEY_PUT: "key", IDENTITY_PUT: "identity", GRANT_PUT: "grant", VAULT_PATCH: "bypass"}
    found = (
        name
        for (wanted, pattern), name in names.items()
        if method == wanted and re.search(pattern, path, re.IGNORECASE)
    )
    return next(found, path.rpartition("/")[2])


def roles_of(azure: Azure, principal: str) -> dict[str, str]:
    """The scopes in lower case by the roles that a principal holds."""
    return {
        one.role.name: one.scope.lower()
        for one in azure.access.every()
        if one.principal_id.lower() == principal.lower()
    }


@pytest.fixture
async def walk(azure: Azure, account: Account) -> AsyncIterator[Walk]:
    """The product with a public target that says ensure, and an empty resource group for its vault."""
    azure.add_resource_group("rg-keys")
    async with product(account, PUBLIC) as app:
        yield Walk(app, azure)


# from nothing to encrypted


async def test_from_an_empty_group_to_a_public_vault_one_write_a_look(walk: Walk, azure: Azure) -> None:
    cluster = azure.aks.add("aks-1")

    first = await walk.look(cluster, asked_by="event:1")
    assert (first.action, first.reasons) == (Action.WAIT, (Reason.PREPARING, Reason.VAULT_MISSING))
    assert first.claim is not None
    assert isinstance(first.claim.change, CreateVault)
    assert len(await walk.app.slots_held()) == 2
    await walk.until(Reason.AS_ASKED, cluster)

    assert walk.writes() == ["vault", "key", "grant", "grant", "aks-1"]
    assert cluster.encryption == "customer-managed"
    vault = azure.keyvault.vaults[VAULT.lower()]
    assert vault.location == "westeurope"
    assert vault.is_rbac
    assert vault.network.is_open
    assert vault.properties["enablePurgeProtection"] is True
    assert vault.properties["enableSoftDelete"] is True
    assert vault.properties["softDeleteRetentionInDays"] == 90
    assert roles_of(azure, cluster.principal_id) == dict.fromkeys(ROLES, VAULT.lower())
    await walk.assert_nothing_is_held(cluster)
    await walk.assert_nothing_more_is_written(cluster)


async def test_each_step_has_its_line_with_who_asked_what_was_made_and_what_came_of_it(
    walk: Walk, azure: Azure
) -> None:
    cluster = azure.aks.add("aks-1")

    await walk.look(cluster, asked_by="event:1")
    await walk.until(Reason.AS_ASKED, cluster)

    lines = await walk.app.preparations_noted()
    assert [(line["step"], line["outcome"]) for line in lines] == [
        ("create-vault", "done"),
        ("create-key", "done"),
        ("grant-role", "done"),
        ("grant-role", "done"),
    ]
    assert lines[0]["askedBy"] == "event:1"
    assert all(line["at"] <= line["acceptedAt"] <= line["endedAt"] for line in lines)
    said = [json.loads(line["preparation"]) for line in lines]
    assert all(one["vault"].lower() == VAULT.lower() for one in said)
    assert [one.get("role") for one in said] == [None, None, *ROLES]
    assert {one["principal"] for one in said[2:]} == {cluster.principal_id}
    assert len(await walk.app.writes_noted()) == 1


async def test_a_key_of_the_apps_is_rsa_encrypts_and_decrypts_rotates_and_never_expires(
    walk: Walk, azure: Azure
) -> None:
    cluster = azure.aks.add("aks-1")

    await walk.look(cluster)
    await walk.until(Reason.AS_ASKED, cluster)

    key = azure.keyvault.vaults[VAULT.lower()].keys["etcd"]
    assert (key.kty, key.size, set(key.operations)) == ("RSA", 3072, {"encrypt", "decrypt"})
    assert key.current.expires is None
    assert key.rotation_policy is not None
    assert key.rotation_policy["attributes"]["expiryTime"] is None
    (rotates,) = key.rotation_policy["lifetimeActions"]
    assert rotates == {"trigger": {"timeAfterCreate": "P370D"}, "action": {"type": "Rotate"}}


async def test_from_an_empty_group_to_a_private_vault_the_grant_is_given_its_hour(
    azure: Azure, account: Account
) -> None:
    azure.add_resource_group("rg-keys")
    azure.access.propagation = timedelta(minutes=50)
    cluster = azure.aks.add("aks-1")

    async with product(account, PRIVATE) as app:
        walk = Walk(app, azure)
        await walk.look(cluster)
        waiting = await walk.until(Reason.PROPAGATING, cluster)
        assert walk.writes() == ["vault", "key", "grant", "grant"]
        assert waiting.action is Action.WAIT
        await walk.until(Reason.AS_ASKED, cluster)

        vault = azure.keyvault.vaults[VAULT.lower()]
        assert walk.writes()[4:] == ["aks-1"]
        assert not vault.network.is_open
        assert vault.network.admits_trusted_services
        assert cluster.encryption == "customer-managed"
        await walk.assert_nothing_is_held(cluster)
        await walk.assert_nothing_more_is_written(cluster)


async def test_on_a_public_vault_the_apps_own_grant_is_waited_for_in_steps(walk: Walk, azure: Azure) -> None:
    azure.access.propagation = timedelta(minutes=20)
    cluster = azure.aks.add("aks-1")

    await walk.look(cluster)
    await walk.until(Reason.PROPAGATING, cluster)
    await walk.until(Reason.AS_ASKED, cluster)

    assert walk.writes() == ["vault", "key", "grant", "grant", "aks-1"]
    await walk.assert_nothing_more_is_written(cluster)


async def test_a_system_assigned_cluster_comes_to_an_identity_that_the_app_made(azure: Azure, account: Account) -> None:
    azure.add_resource_group("rg-keys")
    cluster = azure.aks.add("aks-1", identity="system-assigned")
    before = cluster.principal_id

    async with product(account, CHANGING) as app:
        walk = Walk(app, azure)
        await walk.look(cluster)
        await walk.until(Reason.AS_ASKED, cluster)

        assert walk.writes() == ["vault", "key", "identity", "aks-1", "grant", "grant", "aks-1"]
        made = azure.identities.find(IDENTITY)
        assert made is not None
        assert (made.location, made.principal_id) == ("westeurope", cluster.principal_id)
        assert roles_of(azure, made.principal_id) == dict.fromkeys(ROLES, VAULT.lower())
        assert roles_of(azure, before) == {}
        await walk.assert_nothing_is_held(cluster)
        await walk.assert_nothing_more_is_written(cluster)


async def test_the_second_role_is_the_one_that_the_setting_names(azure: Azure, account: Account) -> None:
    azure.add_resource_group("rg-keys")
    cluster = azure.aks.add("aks-1")

    async with product(account, PUBLIC, second_role=SecondRole.CONTRIBUTOR) as app:
        walk = Walk(app, azure)
        await walk.look(cluster)
        await walk.until(Reason.AS_ASKED, cluster)

        assert set(roles_of(azure, cluster.principal_id)) == {"Key Vault Crypto User", "Key Vault Contributor"}
        await walk.assert_nothing_more_is_written(cluster)


async def test_without_a_network_access_a_new_vault_is_open(azure: Azure, account: Account) -> None:
    azure.add_resource_group("rg-keys")
    cluster = azure.aks.add("aks-1")

    async with product(account, TARGET) as app:
        walk = Walk(app, azure)
        await walk.look(cluster)
        await walk.until(Reason.AS_ASKED, cluster)

    assert azure.keyvault.vaults[VAULT.lower()].network.is_open


async def test_in_audit_the_row_names_the_preparation_and_nothing_is_written(azure: Azure, account: Account) -> None:
    azure.add_resource_group("rg-keys")
    cluster = azure.aks.add("aks-1")

    async with product(account, PUBLIC.replace("enforce", "audit")) as app:
        walk = Walk(app, azure)
        record = await walk.look(cluster)

        assert (record.action, record.reasons) == (Action.ENSURE, (Reason.VAULT_MISSING,))
        assert isinstance(record.change, CreateVault)
        assert (record.claim, record.waiting) == (None, None)
        assert await app.preparations_noted() == []
        assert await app.slots_held() == []
        assert walk.tries() == 0
        await walk.assert_nothing_more_is_written(cluster)


async def test_a_run_in_audit_writes_nothing_under_a_policy_that_enforces(walk: Walk, azure: Azure) -> None:
    cluster = azure.aks.add("aks-1")

    record = await walk.look(cluster, mode=Mode.AUDIT)

    assert record.action is Action.ENSURE
    assert record.claim is None
    assert walk.tries() == 0


# what is there stays as it is


def properties_of(vault: SimulatedVault) -> dict[str, Any]:
    """All of a vault's properties but for the bypass."""
    said = json.loads(json.dumps(vault.properties))
    said.get("networkAcls", {}).pop("bypass", None)
    return dict(said)


@pytest.mark.parametrize(
    "network",
    [
        pytest.param(CLOSED, id="denied"),
        pytest.param({"public_network_access": "Disabled", "bypass": "None"}, id="disabled"),
        pytest.param(
            {"public_network_access": "Disabled", "bypass": "None", "ip_rules": ("203.0.113.0/24", "198.51.100.7/32")},
            id="disabled-with-rules",
        ),
    ],
)
async def test_of_an_existing_vault_only_the_bypass_changes(
    azure: Azure, account: Account, network: dict[str, Any]
) -> None:
    vault = azure.keyvault.add_vault("kv-kms-weu", tags={"owner": "vaults"}, **network)
    azure.keyvault.add_key(vault, "etcd")
    before, tags = properties_of(vault), dict(vault.document["tags"])
    cluster = azure.aks.add("aks-1")
    granted(azure, cluster, vault)

    async with product(account, PRIVATE) as app:
        walk = Walk(app, azure)
        await walk.look(cluster)
        await walk.until(Reason.AS_ASKED, cluster)

        assert walk.writes() == ["bypass", "aks-1"]
        patch = azure.journal.writes()[0].body
        assert set(patch) == {"properties"}
        assert set(patch["properties"]) == {"networkAcls"}
        assert patch["properties"]["networkAcls"] == vault.properties["networkAcls"]
        assert vault.properties["networkAcls"]["bypass"] == "AzureServices"
        assert properties_of(vault) == before
        assert vault.document["tags"] == tags
        await walk.assert_nothing_more_is_written(cluster)


def granted(azure: Azure, cluster: SimulatedCluster, vault: SimulatedVault, *roles: str) -> None:
    """Give a cluster's identity its roles since yesterday."""
    for role in roles or ROLES:
        azure.access.assign(cluster.principal_id, role, vault.id, created=azure.clock.now() - 24 * HOUR)


async def test_a_key_that_is_there_is_never_written(walk: Walk, azure: Azure) -> None:
    vault = azure.keyvault.add_vault("kv-kms-weu")
    key = azure.keyvault.add_key(vault, "etcd", size=4096)
    before = (key.current.version, key.size, key.operations, key.rotation_policy)
    cluster = azure.aks.add("aks-1")

    await walk.look(cluster)
    await walk.until(Reason.AS_ASKED, cluster)

    assert walk.writes() == ["grant", "grant", "aks-1"]
    assert (key.current.version, key.size, key.operations, key.rotation_policy) == before


async def test_only_the_role_that_is_missing_is_granted(walk: Walk, azure: Azure) -> None:
    vault = azure.keyvault.add_vault("kv-kms-weu")
    azure.keyvault.add_key(vault, "etcd")
    cluster = azure.aks.add("aks-1")
    granted(azure, cluster, vault, "Key Vault Administrator")

    await walk.look(cluster)
    await walk.until(Reason.AS_ASKED, cluster)

    assert walk.writes() == ["aks-1"]
    assert set(roles_of(azure, cluster.principal_id)) == {"Key Vault Administrator"}


async def test_on_a_vault_with_access_policies_nothing_is_permitted_and_its_model_stays(
    walk: Walk, azure: Azure
) -> None:
    vault = azure.keyvault.add_vault("kv-kms-weu", rbac=False, access_policies=[access_policy("somebody", "all")])
    azure.keyvault.add_key(vault, "etcd")
    before = properties_of(vault)
    cluster = azure.aks.add("aks-1")

    record = await walk.look(cluster)

    assert (record.action, record.reasons) == (Action.REPORT, (Reason.ACCESS_MISSING,))
    assert walk.tries() == 0
    assert properties_of(vault) == before
    await walk.assert_nothing_more_is_written(cluster)


@pytest.mark.parametrize(
    ("vault", "reason"),
    [
        pytest.param({"public_network_access": "SecuredByPerimeter"}, Reason.VAULT_PERIMETER, id="perimeter"),
        pytest.param(
            {"default_action": "Deny", "bypass": "None", "ip_rules": ("203.0.113.0/24",)},
            Reason.VAULT_SELECTED_NETWORKS,
            id="selected-networks",
        ),
        pytest.param({}, Reason.VAULT_OPEN, id="open-though-private"),
        pytest.param({"tenant": "00000000-0000-0000-0000-00000000beef"}, Reason.VAULT_OTHER_TENANT, id="other-tenant"),
    ],
)
async def test_a_vault_that_can_not_serve_is_reported_before_anything_is_made_in_it(
    azure: Azure, account: Account, vault: dict[str, Any], reason: Reason
) -> None:
    made = azure.keyvault.add_vault("kv-kms-weu", **vault)
    before = json.dumps(made.document)
    cluster = azure.aks.add("aks-1")

    async with product(account, PRIVATE) as app:
        walk = Walk(app, azure)
        record = await walk.look(cluster)

        assert (record.action, record.reasons) == (Action.REPORT, (reason,))
        assert walk.tries() == 0
        assert json.dumps(made.document) == before
        await walk.assert_nothing_more_is_written(cluster)


# names that are taken


async def test_a_soft_deleted_vault_is_reported_and_left_to_people(walk: Walk, azure: Azure) -> None:
    vault = azure.keyvault.add_vault("kv-kms-weu")
    azure.keyvault.remove_vault(vault)
    cluster = azure.aks.add("aks-1")

    record = await walk.look(cluster)

    assert (record.action, record.reasons) == (Action.REPORT, (Reason.VAULT_DELETED,))
    assert walk.tries() == 0
    await walk.assert_nothing_more_is_written(cluster)


async def test_a_soft_deleted_vault_that_the_app_can_not_see_is_not_brought_back(walk: Walk, azure: Azure) -> None:
    vault = azure.keyvault.add_vault("kv-kms-weu")
    azure.keyvault.remove_vault(vault)
    azure.permissions.refuse("Microsoft.KeyVault/deletedVaults/read")
    cluster = azure.aks.add("aks-1")

    record = await walk.look(cluster)

    assert (record.action, record.reasons) == (Action.REPORT, (Reason.BLOCKED,))
    assert "ConflictError" in (record.detail or "")
    assert azure.keyvault.vaults == {}
    assert azure.keyvault.removed[VAULT.lower()] is vault
    await walk.assert_nothing_is_held(cluster)


async def test_a_vault_name_that_somebody_else_has_blocks(walk: Walk, azure: Azure) -> None:
    elsewhere = azure.keyvault.add_vault("kv-kms-weu", group="rg-of-somebody-else")
    before = json.dumps(elsewhere.document)
    cluster = azure.aks.add("aks-1")

    record = await walk.look(cluster)
    tries = walk.tries()
    azure.clock.advance(timedelta(minutes=30))
    await walk.look(cluster)

    assert (record.action, record.reasons) == (Action.REPORT, (Reason.BLOCKED,))
    assert "VaultAlreadyExists" in (record.detail or "")
    assert json.dumps(elsewhere.document) == before
    assert walk.tries() == tries
    assert walk.writes() == []
    await walk.assert_nothing_is_held(cluster)


async def test_a_soft_deleted_key_is_reported_where_the_vault_lets_the_app_see_it(walk: Walk, azure: Azure) -> None:
    vault = azure.keyvault.add_vault("kv-kms-weu")
    azure.keyvault.delete_key(azure.keyvault.add_key(vault, "etcd"))
    azure.access.assign(azure.identity.default.object_id, "Key Vault Reader", vault.id)
    cluster = azure.aks.add("aks-1")

    record = await walk.look(cluster)

    assert (record.action, record.reasons) == (Action.REPORT, (Reason.KEY_DELETED,))
    assert walk.tries() == 0


async def test_a_soft_deleted_key_that_the_app_can_not_see_blocks_and_is_not_brought_back(
    walk: Walk, azure: Azure
) -> None:
    vault = azure.keyvault.add_vault("kv-kms-weu")
    azure.keyvault.delete_key(azure.keyvault.add_key(vault, "etcd"))
    cluster = azure.aks.add("aks-1")

    record = await walk.look(cluster)

    assert (record.action, record.reasons) == (Action.REPORT, (Reason.BLOCKED,))
    assert "deleted but recoverable" in (record.detail or "")
    assert vault.keys == {}
    assert set(vault.deleted_keys) == {"etcd"}
    await walk.assert_nothing_is_held(cluster)


# refusals and faults


@EACH_STEP
async def test_a_step_that_the_app_may_not_make_is_reported_rests_and_goes_on_once_it_may(
    azure: Azure, account: Account, step: Step
) -> None:
    cluster, policy = lacking(step, azure)
    azure.permissions.refuse(step.right)

    async with product(account, policy) as app:
        walk = Walk(app, azure)
        record = await walk.look(cluster)
        refused = record
        if record.reasons[0] is not Reason.NOT_PERMITTED:
            refused = await walk.until(Reason.NOT_PERMITTED, cluster)
        assert refused.action is Action.REPORT
        assert "AuthorizationFailed" in (refused.detail or "")
        assert refused.fix is not None
        assert f"{step.right} on /subscriptions/".lower() in refused.fix.text.lower()
        assert (await app.preparations_noted())[-1]["outcome"] == "refused"
        assert (await app.preparations_noted())[-1]["code"] == "AuthorizationFailed"
        await walk.assert_nothing_is_held(cluster)

        tries = walk.tries()
        for _ in range(3):
            azure.clock.advance(timedelta(minutes=10))
            await walk.look(cluster)
        assert walk.tries() == tries

        azure.permissions.allow(step.right)
        azure.clock.advance(RESTS)
        await walk.look(cluster)
        await walk.until(Reason.AS_ASKED, cluster)
        await walk.assert_nothing_is_held(cluster)
        await walk.assert_nothing_more_is_written(cluster)


@EACH_STEP
async def test_a_throttled_step_comes_back_when_azure_says_and_not_before(
    azure: Azure, account: Account, step: Step
) -> None:
    cluster, policy = lacking(step, azure)
    method, path = step.call
    azure.faults.fail_next(method, path, 429, code="TooManyRequests", message="", headers={"Retry-After": "600"})

    async with product(account, policy) as app:
        walk = Walk(app, azure)
        record = await walk.look(cluster)
        record = record if record.reasons == (Reason.THROTTLED,) else await walk.until(Reason.THROTTLED, cluster)
        assert record.waiting is not None
        assert record.waiting.look_again_at - walk.now > timedelta(minutes=9)
        await walk.assert_nothing_is_held(cluster)
        tries = walk.tries()
        azure.clock.advance(timedelta(minutes=5))
        await walk.look(cluster)
        assert walk.tries() == tries
        await walk.until(Reason.AS_ASKED, cluster)

        assert [line["outcome"] for line in await app.preparations_noted()].count("withdrawn") == 1
        await walk.assert_nothing_more_is_written(cluster)


@EACH_STEP
@pytest.mark.parametrize("fault", ["unavailable", "lost-before", "lost-after"])
async def test_a_step_without_a_clear_answer_ends_the_same(
    azure: Azure, account: Account, step: Step, fault: str
) -> None:
    cluster, policy = lacking(step, azure)
    method, path = step.call
    if fault == "unavailable":
        azure.faults.fail_next(method, path, 503, code="ServiceUnavailable", message="")
    else:
        # On a connection that was used before, the client sends a PUT once more by itself.
        azure.faults.drop_next(method, path, accepted=fault == "lost-after", times=2 if method == "PUT" else 1)

    async with product(account, policy) as app:
        walk = Walk(app, azure)
        await walk.look(cluster)
        await walk_past(walk, cluster)

        outcomes = [line["outcome"] for line in await app.preparations_noted()]
        assert set(outcomes) <= {"done", "withdrawn"}
        await walk.assert_nothing_is_held(cluster)
        await walk.assert_nothing_more_is_written(cluster)


async def walk_past(walk: Walk, cluster: SimulatedCluster) -> None:
    """Walk to the end. A PUT that the client sends again by itself is taken twice; what it makes is there once."""
    for _ in range(MOST_LOOKS):
        if (await walk.app.record(cluster)).reasons == (Reason.AS_ASKED,):
            break
        await walk.next_look(cluster)
    assert cluster.encryption == "customer-managed"
    assert len(made_in(walk.azure)) == len(set(made_in(walk.azure)))


def made_in(azure: Azure) -> list[str]:
    """What a step made that it could have made twice: versions of keys, and grants."""
    vault = azure.keyvault.vaults[VAULT.lower()]
    versions = [f"version of {name}" for name, key in vault.keys.items() for _ in key.versions]
    grants = [f"{one.principal_id} {one.role.name} {one.scope}".lower() for one in azure.access.every()]
    return versions + grants


async def test_a_settlement_that_azure_throttles_waits_and_keeps_its_claim(walk: Walk, azure: Azure) -> None:
    cluster = azure.aks.add("aks-1")
    await walk.look(cluster)
    azure.faults.fail_next(
        "GET", r"/vaults/kv-kms-weu$", 429, code="TooManyRequests", message="", headers={"Retry-After": "600"}
    )

    record = await walk.next_look(cluster)

    assert (record.action, record.reasons[0]) == (Action.WAIT, Reason.THROTTLED)
    assert record.claim is not None
    assert record.waiting is not None
    assert record.waiting.look_again_at - walk.now > timedelta(minutes=9)
    await walk.until(Reason.AS_ASKED, cluster)
    assert walk.writes() == ["vault", "key", "grant", "grant", "aks-1"]


class Blind(Preparer):
    """What a step needs to read before it writes is out of sight, which may pass."""

    async def prepare(self, preparation: Preparation) -> None:  # noqa: ARG002  it fails whatever it is to make
        raise Unreadable("SubscriptionNotFound", "no")


async def test_a_step_that_can_not_read_before_it_writes_keeps_its_claim_and_is_tried_again(
    walk: Walk, azure: Azure
) -> None:
    cluster = azure.aks.add("aks-1")
    rooms = walk.app.reconciler
    blind = Blind(rooms.preparer.keyvault, rooms.preparer.identities, rooms.preparer.roles)
    seeing, unseeing = walk.app, replace(walk.app, reconciler=replace(rooms, preparer=blind))

    record = await unseeing.look(cluster, now=walk.now)

    assert record is not None
    assert record.claim is not None
    assert walk.tries() == 0
    await Walk(seeing, azure).until(Reason.AS_ASKED, cluster)
    assert [line["outcome"] for line in await seeing.preparations_noted()].count("withdrawn") == 1


async def test_a_vault_that_is_never_ready_fails_after_its_deadline_and_gives_its_slots_back(
    walk: Walk, azure: Azure
) -> None:
    azure.keyvault.registration = 24 * HOUR
    cluster = azure.aks.add("aks-1")
    await walk.look(cluster)

    still = await walk.next_look(cluster)
    azure.clock.advance(timedelta(minutes=90))
    record = await walk.look(cluster)

    assert (still.action, still.reasons[0]) == (Action.WAIT, Reason.PREPARING)
    assert (record.action, record.reasons) == (Action.WAIT, (Reason.VAULT_NOT_READY,))
    assert record.claim is None
    assert [line["outcome"] for line in await walk.app.preparations_noted()] == ["failed"]
    assert (await walk.app.preparations_noted())[0]["code"] == "NotInPlace"
    assert await walk.app.slots_held() == []
    assert (await walk.app.ledger.enforcement()).failures == ()
    assert walk.writes() == ["vault"]


# whose identity it is


async def test_the_app_grants_nothing_to_its_own_identity(walk: Walk, azure: Azure) -> None:
    vault = azure.keyvault.add_vault("kv-kms-weu")
    azure.keyvault.add_key(vault, "etcd")
    own = azure.identity.default.object_id
    cluster = azure.aks.add("aks-1", principal_id=own)

    record = await walk.look(cluster)

    assert (record.action, record.reasons) == (Action.REPORT, (Reason.BLOCKED,))
    assert record.detail == "OwnIdentity: the cluster has the app's own identity, to which the app grants nothing"
    await walk.assert_nothing_is_held(cluster)
    azure.clock.advance(2 * HOUR)
    await walk.look(cluster)
    assert azure.journal.matching(*GRANT_PUT) == ()
    assert roles_of(azure, own) == {}


async def test_a_system_assigned_identity_that_is_to_go_is_granted_nothing(azure: Azure, account: Account) -> None:
    azure.add_resource_group("rg-keys")
    cluster = azure.aks.add("aks-1", identity="system-assigned")
    before = cluster.principal_id

    async with product(account, CHANGING) as app:
        walk = Walk(app, azure)
        await walk.look(cluster)
        await walk.until(Reason.AS_ASKED, cluster)

    grants = [call.body["properties"]["principalId"] for call in azure.journal.matching(*GRANT_PUT)]
    assert before not in grants


# several at once, and what changes meanwhile


async def test_two_clusters_that_share_a_vault_make_it_once_and_both_come_to_the_end(walk: Walk, azure: Azure) -> None:
    clusters = [azure.aks.add(f"aks-{number}") for number in (1, 2)]

    await asyncio.gather(*(walk.look(cluster) for cluster in clusters))
    for _ in range(MOST_LOOKS):
        azure.clock.advance(LOOK_AGAIN)
        await asyncio.gather(*(walk.app.look_again(cluster, now=walk.now) for cluster in await waiting(walk, clusters)))

    assert [cluster.encryption for cluster in clusters] == ["customer-managed"] * 2
    vault = azure.keyvault.vaults[VAULT.lower()]
    assert list(azure.keyvault.vaults.values()) == [vault]
    assert len(vault.keys["etcd"].versions) == 1
    assert len(made_in(azure)) == len(set(made_in(azure))) == 5
    bodies = [json.dumps(call.body, sort_keys=True) for call in azure.journal.writes() if call.path.endswith("-weu")]
    assert len(set(bodies)) == 1
    outcomes = {line["outcome"] for line in await walk.app.preparations_noted()}
    assert outcomes == {"done"}
    assert await walk.app.slots_held() == []
    await walk.assert_nothing_more_is_written(*clusters)


async def waiting(walk: Walk, clusters: list[SimulatedCluster]) -> list[SimulatedCluster]:
    """Those whose next look is due."""
    records = {cluster.id: (await walk.app.record(cluster)).waiting for cluster in clusters}
    return [one for one in clusters if (wait := records[one.id]) is not None and wait.look_again_at <= walk.now]


async def test_a_second_cluster_finds_all_but_its_own_grants_in_place(walk: Walk, azure: Azure) -> None:
    first, second = azure.aks.add("aks-1"), azure.aks.add("aks-2")
    await walk.look(first)
    await walk.until(Reason.AS_ASKED, first)
    written = len(walk.writes())

    await walk.look(second)
    await walk.until(Reason.AS_ASKED, second)

    assert walk.writes()[written:] == ["grant", "grant", "aks-2"]


async def test_an_event_and_a_redelivery_while_a_step_is_claimed_write_nothing(walk: Walk, azure: Azure) -> None:
    cluster = azure.aks.add("aks-1")

    await walk.look(cluster, message="first")
    for message in ("first", "second", "third"):
        await walk.look(cluster, message=message)
    await asyncio.gather(*(walk.look(cluster) for _ in range(5)))

    assert walk.tries() == 1
    assert len(await walk.app.preparations_noted()) == 1


async def test_looks_at_the_same_moment_claim_once(walk: Walk, azure: Azure) -> None:
    cluster = azure.aks.add("aks-1")

    answers = await asyncio.gather(*(walk.look(cluster) for _ in range(4)), return_exceptions=True)

    assert all(not isinstance(one, BaseException) or isinstance(one, Unavailable) for one in answers)
    assert walk.writes() == ["vault"]
    assert len(await walk.app.preparations_noted()) == 1


async def test_a_claim_is_settled_by_its_own_words_though_the_policy_changed_meanwhile(
    azure: Azure, account: Account
) -> None:
    azure.add_resource_group("rg-keys")
    cluster = azure.aks.add("aks-1")
    async with product(account, PUBLIC) as app:
        await Walk(app, azure).look(cluster)

    other = PUBLIC.replace("kv-kms-weu", "kv-another").replace("prerequisites: ensure", "prerequisites: check")
    async with product(account, other) as app:
        walk = Walk(app, azure)
        record = await walk.next_look(cluster)

        assert (record.action, record.reasons) == (Action.REPORT, (Reason.VAULT_MISSING,))
        assert [line["outcome"] for line in await app.preparations_noted()] == ["done"]
        await walk.assert_nothing_is_held(cluster)
        await walk.assert_nothing_more_is_written(cluster)


async def test_a_cluster_that_is_deleted_half_way_gives_its_slots_back(walk: Walk, azure: Azure) -> None:
    cluster = azure.aks.add("aks-1")
    await walk.look(cluster)

    azure.aks.delete(cluster.id)
    record = await walk.next_look(cluster)

    assert record.reasons == (Reason.GONE,)
    assert [line["outcome"] for line in await walk.app.preparations_noted()] == ["gone"]
    await walk.assert_nothing_is_held(cluster)
    assert walk.writes() == ["vault"]


async def test_what_is_taken_away_again_is_put_in_place_again_by_the_same_name(walk: Walk, azure: Azure) -> None:
    cluster = azure.aks.add("aks-1")
    await walk.look(cluster)
    await walk.until(Reason.AS_ASKED, cluster)
    names = [call.path for call in azure.journal.matching(*GRANT_PUT)]
    for assignment in tuple(azure.access.assignments):
        azure.access.remove(assignment)
    profile = cluster.document["properties"]["securityProfile"]
    profile.clear()
    cluster.document["eTag"] = "another"

    azure.clock.advance(HOUR)
    await walk.look(cluster)
    await walk.until(Reason.AS_ASKED, cluster)

    assert [call.path for call in azure.journal.matching(*GRANT_PUT)] == [*names, *names]
    assert walk.writes()[5:] == ["grant", "grant", "aks-1"]
    assert len((await walk.app.record(cluster)).set_back) == 1


# a second role that is refused


GRANT = "Microsoft.Authorization/roleAssignments/write"


def lacking_the_second_role(azure: Azure) -> tuple[SimulatedCluster, SimulatedVault]:
    """A cluster that lacks nothing but the second role, in an app that may not grant it."""
    vault = azure.keyvault.add_vault("kv-kms-weu")
    azure.keyvault.add_key(vault, "etcd")
    cluster = azure.aks.add("aks-1")
    granted(azure, cluster, vault, "Key Vault Crypto User")
    azure.permissions.refuse(GRANT)
    return cluster, vault


async def test_a_second_role_that_is_refused_is_a_warning_and_the_write_goes_on_without_it(
    walk: Walk, azure: Azure
) -> None:
    cluster, _ = lacking_the_second_role(azure)

    refused = await walk.look(cluster)
    assert (refused.action, refused.reasons) == (Action.WAIT, (Reason.PREPARING, Reason.READER_MISSING))
    assert (refused.claim, walk.writes()) == (None, [])
    await walk.assert_nothing_is_held(cluster)
    updating = await walk.next_look(cluster)
    still = await walk.next_look(cluster)
    await walk.until(Reason.AS_ASKED, cluster)

    for record in (updating, still):
        assert record.reasons == (Reason.UPDATING, Reason.READER_MISSING)
        assert GRANT in (record.detail or "")
        assert (record.detail or "").startswith("AuthorizationFailed: ")
    assert (walk.writes(), walk.tries()) == (["aks-1"], 2)
    assert cluster.encryption == "customer-managed"
    (line,) = await walk.app.preparations_noted()
    assert (line["outcome"], line["code"]) == ("refused", "AuthorizationFailed")
    assert (await walk.app.record(cluster)).reader_refused is None
    await walk.assert_nothing_is_held(cluster)
    await walk.assert_nothing_more_is_written(cluster)


async def test_a_second_role_that_was_refused_is_asked_for_again_with_the_next_update_that_was_refused(
    walk: Walk, azure: Azure
) -> None:
    cluster, _ = lacking_the_second_role(azure)
    update = "Microsoft.ContainerService/managedClusters/write"
    azure.permissions.refuse(update)
    await walk.look(cluster)
    record = await walk.next_look(cluster)
    assert record.reasons == (Reason.NOT_PERMITTED,)
    assert update in (record.detail or "")
    for action in (update, GRANT):
        azure.permissions.allow(action)

    azure.clock.advance(RESTS)
    await walk.look(cluster)
    await walk.until(Reason.AS_ASKED, cluster)

    assert walk.writes() == ["grant", "aks-1"]
    await walk.assert_nothing_more_is_written(cluster)


async def test_a_second_role_that_was_refused_is_not_asked_for_with_each_try_of_an_update_and_keeps_its_deadline(
    walk: Walk, azure: Azure
) -> None:
    cluster, _ = lacking_the_second_role(azure)
    azure.faults.fail_next(*CLUSTER_PUT, 409, code="OperationNotAllowed", message="another operation", times=1000)
    record, began = await walk.look(cluster), walk.now

    while record.reasons[0] is not Reason.WAITED_TOO_LONG:
        assert walk.now - began < 7 * HOUR
        azure.clock.advance(timedelta(minutes=10))
        record = await walk.next_look(cluster)

    assert (record.action, record.reasons) == (Action.REPORT, (Reason.WAITED_TOO_LONG, Reason.CONFLICT))
    assert len(azure.journal.matching(*GRANT_PUT)) <= 8
    assert walk.writes() == []


async def test_a_second_role_whose_grant_gets_no_clear_answer_keeps_nothing_back_for_long(
    walk: Walk, azure: Azure
) -> None:
    cluster, _ = lacking_the_second_role(azure)
    azure.permissions.allow(GRANT)
    azure.faults.fail_next(*GRANT_PUT, 500, code="InternalServerError", message="", times=1000)
    began = walk.now

    await walk.look(cluster)
    updating = await walk.until(Reason.UPDATING, cluster)
    tries = len(azure.journal.matching(*GRANT_PUT))
    await walk.until(Reason.AS_ASKED, cluster)

    assert updating.claim is not None
    assert timedelta(minutes=15) <= updating.claim.claimed_at - began < timedelta(minutes=20)
    assert updating.reasons == (Reason.UPDATING, Reason.READER_MISSING)
    assert 1 < tries == len(azure.journal.matching(*GRANT_PUT))
    assert walk.writes() == ["aks-1"]
    await walk.assert_nothing_is_held(cluster)
    await walk.assert_nothing_more_is_written(cluster)


async def test_an_update_that_met_a_conflict_before_its_window_closed_is_made_when_it_opens_again(
    azure: Azure, account: Account
) -> None:
    vault = azure.keyvault.add_vault("kv-kms-weu")
    azure.keyvault.add_key(vault, "etcd")
    cluster = azure.aks.add("aks-1")
    granted(azure, cluster, vault)
    azure.faults.fail_next(*CLUSTER_PUT, 409, code="OperationNotAllowed", message="another operation")
    opens = azure.clock.now() - timedelta(minutes=59)
    closes = opens + HOUR
    week = "mon, tue, wed, thu, fri, sat, sun"
    window = f'windows: [{{days: [{week}], from: "{opens:%H:%M}", to: "{closes:%H:%M}", timezone: UTC}}]\n'

    async with product(account, PUBLIC + window) as app:
        walk = Walk(app, azure)
        await walk.look(cluster)
        held = await walk.next_look(cluster)
        azure.clock.advance(8 * HOUR)
        await walk.look(cluster)
        record = await walk.until(Reason.AS_ASKED, cluster)

        assert held.reasons == (Reason.WINDOW_CLOSED, Reason.NOT_AS_ASKED)
        assert record.action is Action.NOTHING
        assert walk.writes() == ["aks-1"]
        await walk.assert_nothing_more_is_written(cluster)


async def test_while_a_window_is_closed_the_row_says_that_the_second_role_was_refused(
    walk: Walk, azure: Azure, account: Account
) -> None:
    cluster, _ = lacking_the_second_role(azure)
    await walk.look(cluster)
    tomorrow = f"{walk.now + 24 * HOUR:%a}".lower()
    window = f'windows: [{{days: [{tomorrow}], from: "08:00", to: "09:00", timezone: UTC}}]\n'

    async with product(account, PUBLIC + window) as app:
        record = await Walk(app, azure).look(cluster)

    assert record.reasons == (Reason.WINDOW_CLOSED, Reason.NOT_AS_ASKED, Reason.READER_MISSING)
    assert GRANT in (record.detail or "")
    assert record.fix is not None
    assert "Key Vault Reader" in record.fix.text
    assert walk.writes() == []


# what was refused, and an operator who mended it


async def refused_by_a_missing_right(walk: Walk, azure: Azure) -> SimulatedCluster:
    """A cluster whose role the app could not grant, a minute after it was given the right."""
    vault = azure.keyvault.add_vault("kv-kms-weu")
    azure.keyvault.add_key(vault, "etcd")
    cluster = azure.aks.add("aks-1")
    azure.permissions.refuse(GRANT)
    record = await walk.look(cluster)
    assert record.reasons == (Reason.NOT_PERMITTED,)
    azure.permissions.allow(GRANT)
    azure.clock.advance(timedelta(minutes=1))
    return cluster


async def test_an_operator_who_resumes_a_cluster_sees_a_mended_right_at_once(walk: Walk, azure: Azure) -> None:
    cluster = await refused_by_a_missing_right(walk, azure)

    resumed = await walk.app.reconciler.resume(ClusterId.parse(cluster.id), asked_by=OPERATOR, now=walk.now)
    record = await walk.look(cluster, asked_by=OPERATOR)
    await walk.until(Reason.AS_ASKED, cluster)

    assert resumed is not None
    assert resumed.refusal is None
    assert record.reasons == (Reason.PREPARING, Reason.ACCESS_MISSING)
    assert walk.writes() == ["grant", "grant", "aks-1"]
    await walk.assert_nothing_more_is_written(cluster)


async def test_a_run_of_an_operator_tries_what_was_refused_at_once_and_the_timers_does_not(
    walk: Walk, azure: Azure
) -> None:
    cluster = await refused_by_a_missing_right(walk, azure)

    timers = await walk.app.sweeper.sweep(ShardRequest("sweep-1", SUBSCRIPTION, "sweep"), now=walk.now)
    event = await walk.look(cluster, asked_by="event:operator")
    audit = await walk.app.sweeper.sweep(ShardRequest("run-1", SUBSCRIPTION, OPERATOR, Mode.AUDIT), now=walk.now)
    audited = await walk.look(cluster, asked_by=OPERATOR, mode=Mode.AUDIT)
    run = await walk.app.sweeper.sweep(ShardRequest("run-2", SUBSCRIPTION, OPERATOR), now=walk.now)
    record = await walk.look(cluster, asked_by=OPERATOR)
    await walk.until(Reason.AS_ASKED, cluster)

    assert [shard.enqueued if shard else None for shard in (timers, audit, run)] == [0, 0, 1]
    assert (event.reasons, audited.reasons) == ((Reason.NOT_PERMITTED,), (Reason.NOT_PERMITTED,))
    assert record.reasons == (Reason.PREPARING, Reason.ACCESS_MISSING)
    assert walk.writes() == ["grant", "grant", "aks-1"]
    await walk.assert_nothing_more_is_written(cluster)


async def test_what_is_still_refused_is_tried_once_for_each_time_that_an_operator_asks(
    walk: Walk, azure: Azure
) -> None:
    cluster = await refused_by_a_missing_right(walk, azure)
    azure.permissions.refuse(GRANT)

    before = walk.tries()
    again = await walk.look(cluster, asked_by=OPERATOR)
    await walk.look(cluster)

    assert again.reasons == (Reason.NOT_PERMITTED,)
    assert walk.tries() == before + 1
    await walk.assert_nothing_is_held(cluster)


async def test_a_second_role_that_is_still_refused_is_asked_for_once_though_an_operator_asked_for_the_look(
    walk: Walk, azure: Azure
) -> None:
    cluster, _ = lacking_the_second_role(azure)

    await walk.look(cluster, asked_by=OPERATOR)
    for _ in range(MOST_LOOKS):
        record = await walk.app.record(cluster)
        if record.waiting is None:
            break
        azure.clock.advance(LOOK_AGAIN)
        await walk.look(cluster, asked_by=OPERATOR, token=record.waiting.token)

    assert walk.writes() == ["aks-1"]
    assert len(azure.journal.matching(*GRANT_PUT)) == 1


async def test_what_an_operator_wants_tried_again_waits_for_its_window_and_is_tried_then(
    walk: Walk, azure: Azure, account: Account
) -> None:
    cluster = await refused_by_a_missing_right(walk, azure)
    opens = walk.now.replace(second=0, microsecond=0) + timedelta(minutes=10)
    day = f"{opens:%a}".lower()
    window = f'windows: [{{days: [{day}], from: "{opens:%H:%M}", to: "{opens:%H:%M}", timezone: UTC}}]\n'

    async with product(account, PUBLIC + window) as app:
        narrow = Walk(app, azure)
        held = await narrow.look(cluster, asked_by=OPERATOR)
        record = await narrow.next_look(cluster)

        assert held.reasons == (Reason.WINDOW_CLOSED, Reason.ACCESS_MISSING)
        assert record.reasons == (Reason.PREPARING, Reason.ACCESS_MISSING)
        assert walk.writes() == ["grant"]


@pytest.mark.parametrize("run", [None, "run-1"], ids=["resume", "run"])
async def test_an_operator_who_let_the_app_into_a_vault_sees_its_deleted_key_at_once(
    walk: Walk, azure: Azure, run: str | None
) -> None:
    vault = azure.keyvault.add_vault("kv-kms-weu")
    azure.keyvault.delete_key(azure.keyvault.add_key(vault, "etcd"))
    cluster = azure.aks.add("aks-1")
    blocked = await walk.look(cluster)
    azure.access.assign(azure.identity.default.object_id, "Key Vault Reader", vault.id)
    azure.clock.advance(2 * HOUR)

    unasked = await walk.look(cluster, asked_by="event:1")
    azure.clock.advance(timedelta(minutes=2))
    cluster_id = ClusterId.parse(cluster.id)
    asked = await walk.app.reconciler.reconcile(ClusterRequest(cluster_id, OPERATOR, run=run, id="m"), now=walk.now)

    assert asked is not None
    assert [one.reasons for one in (blocked, unasked)] == [(Reason.BLOCKED,)] * 2
    assert (asked.action, asked.reasons) == (Action.REPORT, (Reason.KEY_DELETED,))


async def test_an_operator_who_resumes_a_cluster_sees_what_was_mended_a_moment_ago(
    azure: Azure, account: Account
) -> None:
    vault = azure.keyvault.add_vault("kv-kms-weu")
    azure.keyvault.add_key(vault, "etcd")
    cluster = azure.aks.add("aks-1")

    async with product(account, PUBLIC.replace("ensure", "check")) as app:
        walk = Walk(app, azure)
        before = await walk.look(cluster)
        granted(azure, cluster, vault)
        await app.reconciler.resume(ClusterId.parse(cluster.id), asked_by=OPERATOR, now=walk.now)
        after = await walk.look(cluster, asked_by=OPERATOR)

        assert before.reasons == (Reason.ACCESS_MISSING,)
        assert after.reasons == (Reason.UPDATING,)
        assert walk.writes() == ["aks-1"]
