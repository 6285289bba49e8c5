"""Customer-managed keys, end to end through the rooms: what is asked for, what has to be in place, what is refused."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from local.simulator import SUBSCRIPTION
from local.simulator.keyvault import access_policy
from shared.errors import Unavailable
from shared.events import KeyRequest, ShardRequest
from shared.keys import KeyId, VaultId
from shared.reasons import Action, Reason
from tests.product import LOOK_AGAIN, NOW, Product, product

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from datetime import datetime

    from local.simulator import Azure
    from local.simulator.aks.state import SimulatedCluster
    from local.simulator.keyvault import SimulatedKey, SimulatedVault
    from local.storage import Account

UPDATE = timedelta(minutes=5)
VAULT = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg-keys/providers/Microsoft.KeyVault/vaults/kv-kms-weu"
TARGET = f"""
version: 1
mode: enforce
acceptIrreversible: true
targets:
  - keyManagement: customer-managed
    vault: {VAULT}
    key: etcd
"""
PRIVATE = TARGET + "    networkAccess: private\n"
TRUSTED: dict[str, Any] = {"default_action": "Deny", "bypass": "AzureServices"}


@dataclass(frozen=True, slots=True)
class Scene:
    """A vault with a key, and a cluster whose identity has its roles."""

    azure: Azure
    vault: SimulatedVault
    key: SimulatedKey

    def cluster(
        self,
        name: str = "aks-1",
        *,
        roles: tuple[str, ...] = ("Key Vault Crypto User", "Key Vault Reader"),
        granted: datetime = NOW - timedelta(days=1),
        **seed: Any,
    ) -> SimulatedCluster:
        cluster = self.azure.aks.add(name, **seed)
        for role in roles:
            self.azure.access.assign(cluster.principal_id, role, self.vault.id, created=granted)
        return cluster


def scene(azure: Azure, **vault: Any) -> Scene:
    made = azure.keyvault.add_vault("kv-kms-weu", **vault)
    return Scene(azure, made, azure.keyvault.add_key(made, "etcd"))


@pytest.fixture
async def app(azure: Azure, account: Account) -> AsyncIterator[Product]:  # noqa: ARG001  the clients reach it
    """The product, with a customer-managed target."""
    async with product(account, TARGET) as built:
        yield built


async def finish(app: Product, azure: Azure, cluster: SimulatedCluster) -> None:
    """Let Azure end its operation, and the wait its look."""
    azure.clock.advance(UPDATE + LOOK_AGAIN)
    record = await app.look_again(cluster, now=NOW + UPDATE + LOOK_AGAIN)

    assert record is not None
    assert record.reasons == (Reason.AS_ASKED,)


async def assert_nothing_more_is_written(app: Product, azure: Azure, cluster: SimulatedCluster) -> None:
    writes, before = len(azure.journal.writes()), await app.record(cluster)
    later = NOW + timedelta(hours=2)
    await app.look(cluster, now=later)
    await app.sweeper.sweep(ShardRequest("again", SUBSCRIPTION, "test"), now=later)

    assert len(azure.journal.writes()) == writes
    assert (await app.record(cluster)).version == before.version


async def test_an_open_vault_is_used_without_its_id(app: Product, azure: Azure) -> None:
    cluster = scene(azure).cluster()

    await app.look(cluster)

    (put,) = azure.journal.writes()
    assert put.body["properties"]["securityProfile"] == {
        "azureKeyVaultKms": {
            "enabled": True,
            "keyId": "https://kv-kms-weu.vault.azure.net/keys/etcd",
            "keyVaultNetworkAccess": "Public",
        },
        "kubernetesResourceObjectEncryptionProfile": {"infrastructureEncryption": "Enabled"},
    }
    await finish(app, azure, cluster)
    assert cluster.encryption == "customer-managed"
    await assert_nothing_more_is_written(app, azure, cluster)


@pytest.mark.parametrize("rules", [pytest.param((), id="no-rules"), pytest.param(("203.0.113.0/24",), id="rules")])
async def test_a_closed_vault_is_used_with_its_id_whoever_else_its_rules_let_in(
    azure: Azure, account: Account, rules: tuple[str, ...]
) -> None:
    cluster = scene(azure, **TRUSTED, ip_rules=rules).cluster()

    async with product(account, PRIVATE) as app:
        await app.look(cluster)

        (put,) = azure.journal.writes()
        kms = put.body["properties"]["securityProfile"]["azureKeyVaultKms"]
        assert kms["keyVaultNetworkAccess"] == "Private"
        assert kms["keyVaultResourceId"].lower() == VAULT.lower()
        await finish(app, azure, cluster)
        assert cluster.encryption == "customer-managed"
        await assert_nothing_more_is_written(app, azure, cluster)


async def test_a_young_grant_on_a_private_vault_is_given_its_hour_since_nobody_checks_it(
    azure: Azure, account: Account
) -> None:
    cluster = scene(azure, **TRUSTED).cluster(granted=NOW - timedelta(minutes=20))

    async with product(account, PRIVATE) as app:
        await app.look(cluster)
        waiting = await app.record(cluster)
        assert (waiting.action, waiting.reasons) == (Action.WAIT, (Reason.PROPAGATING,))
        assert waiting.waiting is not None
        assert waiting.waiting.look_again_at == NOW + timedelta(minutes=40)
        assert azure.journal.writes() == ()

        azure.clock.advance(timedelta(minutes=40))
        await app.look_again(cluster, now=NOW + timedelta(minutes=40))

        assert len(azure.journal.writes()) == 1


async def test_without_a_network_access_the_vaults_firewall_decides(app: Product, azure: Azure) -> None:
    cluster = scene(azure, **TRUSTED).cluster()

    await app.look(cluster)

    (put,) = azure.journal.writes()
    assert put.body["properties"]["securityProfile"]["azureKeyVaultKms"]["keyVaultNetworkAccess"] == "Private"


async def test_a_cluster_with_the_vaults_id_beside_public_is_compliant(app: Product, azure: Azure) -> None:
    made = scene(azure)
    cluster = made.cluster(encryption="customer-managed", key_id=made.key.uri, vault_id=made.vault.id)

    record = await app.look(cluster)

    assert record is not None
    assert record.reasons == (Reason.AS_ASKED,)
    assert azure.journal.matching("GET", "Microsoft.KeyVault") == ()


@pytest.mark.parametrize(
    ("vault", "reason"),
    [
        pytest.param({"public_network_access": "SecuredByPerimeter"}, Reason.VAULT_PERIMETER, id="perimeter"),
        pytest.param(
            {**TRUSTED, "bypass": "None", "ip_rules": ("203.0.113.0/24",)},
            Reason.VAULT_SELECTED_NETWORKS,
            id="selected-networks",
        ),
        pytest.param({"default_action": "Deny", "bypass": "None"}, Reason.VAULT_WITHOUT_BYPASS, id="no-bypass"),
        pytest.param({"tenant": "00000000-0000-0000-0000-00000000beef"}, Reason.VAULT_OTHER_TENANT, id="other-tenant"),
    ],
)
async def test_a_vault_that_can_not_serve_is_named(
    app: Product, azure: Azure, vault: dict[str, Any], reason: Reason
) -> None:
    cluster = scene(azure, **vault).cluster()

    record = await app.look(cluster)

    assert record is not None
    assert (record.action, record.reasons[0]) == (Action.REPORT, reason)
    assert record.fix is not None
    assert azure.journal.writes() == ()
    await assert_nothing_more_is_written(app, azure, cluster)


@pytest.mark.parametrize(
    ("network", "asked", "reason"),
    [
        pytest.param({}, "private", Reason.VAULT_OPEN, id="open-though-private"),
        pytest.param(TRUSTED, "public", Reason.VAULT_CLOSED, id="closed-though-public"),
    ],
)
async def test_a_vault_that_is_not_reachable_as_the_target_says_is_named(
    azure: Azure, account: Account, network: dict[str, Any], asked: str, reason: Reason
) -> None:
    cluster = scene(azure, **network).cluster()

    async with product(account, f"{TARGET}    networkAccess: {asked}\n") as app:
        record = await app.look(cluster)

    assert record is not None
    assert record.reasons[0] is reason
    assert azure.journal.writes() == ()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        pytest.param({"enabled": False}, Reason.KEY_DISABLED, id="disabled"),
        pytest.param({"not_before": NOW + timedelta(seconds=1)}, Reason.KEY_NOT_YET_VALID, id="not-yet-valid"),
        pytest.param({"expires": NOW}, Reason.KEY_EXPIRED, id="expired"),
        pytest.param({"kty": "EC"}, Reason.KEY_TYPE_UNSUPPORTED, id="elliptic-curve"),
        pytest.param({"operations": ("sign", "encrypt")}, Reason.KEY_OPERATIONS_MISSING, id="no-decrypt"),
    ],
)
async def test_a_key_that_can_not_serve_is_named(
    app: Product, azure: Azure, change: dict[str, Any], reason: Reason
) -> None:
    made = scene(azure)
    cluster = made.cluster()
    azure.keyvault.set_key(made.key, **change)

    record = await app.look(cluster)

    assert record is not None
    assert (record.action, record.reasons[0]) == (Action.REPORT, reason)
    assert azure.journal.writes() == ()


async def test_a_vault_or_key_that_is_not_there_is_told_from_a_deleted_one(app: Product, azure: Azure) -> None:
    made = scene(azure)
    cluster = made.cluster()
    azure.access.assign(azure.identity.default.object_id, "Key Vault Reader", made.vault.id)

    azure.keyvault.delete_key(made.key)
    deleted_key = await app.look(cluster)
    azure.keyvault.remove_vault(made.vault)
    deleted_vault = await app.look(cluster, now=NOW + timedelta(minutes=2))
    azure.keyvault.removed.clear()
    no_vault = await app.look(cluster, now=NOW + timedelta(minutes=4))

    assert [record and record.reasons[0] for record in (deleted_key, deleted_vault, no_vault)] == [
        Reason.KEY_DELETED,
        Reason.VAULT_DELETED,
        Reason.VAULT_MISSING,
    ]
    assert azure.journal.writes() == ()


async def test_a_vault_that_refuses_the_app_is_not_asked_again_for_a_day(app: Product, azure: Azure) -> None:
    made = scene(azure, **TRUSTED)
    cluster = made.cluster()
    azure.keyvault.delete_key(made.key)

    record = await app.look(cluster)
    await app.look(cluster, now=NOW + timedelta(hours=23))
    asked = len(azure.journal.matching("GET", "^/deletedkeys/"))
    await app.look(cluster, now=NOW + timedelta(hours=25))

    assert record is not None
    assert record.reasons[0] is Reason.KEY_MISSING
    assert len(azure.journal.matching("GET", "^/deletedkeys/")) > asked


# who may


@pytest.mark.parametrize(
    ("roles", "reason"),
    [
        pytest.param((), Reason.ACCESS_MISSING, id="no-role"),
        pytest.param(("Key Vault Reader", "Contributor"), Reason.ACCESS_MISSING, id="control-plane-only"),
        pytest.param(("Key Vault Crypto Service Encryption User",), Reason.ACCESS_WRAP_ONLY, id="trap"),
    ],
)
async def test_an_identity_that_may_not_encrypt_is_named(
    app: Product, azure: Azure, roles: tuple[str, ...], reason: Reason
) -> None:
    cluster = scene(azure).cluster(roles=roles)

    record = await app.look(cluster)

    assert record is not None
    assert (record.action, record.reasons[0]) == (Action.REPORT, reason)
    assert record.fix is not None
    assert cluster.principal_id in (record.fix.command or "")
    assert azure.journal.writes() == ()
    await assert_nothing_more_is_written(app, azure, cluster)


@pytest.mark.parametrize("scope", ["key", "vault", "group", "subscription"])
@pytest.mark.parametrize("role", ["Key Vault Crypto User", "Key Vault Crypto Officer", "Key Vault Administrator"])
async def test_a_role_counts_at_whatever_scope_it_is_assigned(
    app: Product, azure: Azure, scope: str, role: str
) -> None:
    made = scene(azure)
    cluster = made.cluster(roles=())
    scopes = {
        "key": made.key.id,
        "vault": made.vault.id,
        "group": made.vault.id.split("/providers/")[0],
        "subscription": f"/subscriptions/{SUBSCRIPTION}",
    }
    azure.access.assign(cluster.principal_id, role, scopes[scope])

    record = await app.look(cluster)

    assert record is not None
    assert record.reasons[0] is Reason.UPDATING


async def test_a_role_counts_through_a_group_and_a_custom_role_counts_too(app: Product, azure: Azure) -> None:
    made = scene(azure)
    cluster = made.cluster(roles=())
    actions = ["Microsoft.KeyVault/vaults/keys/encrypt/action", "Microsoft.KeyVault/vaults/keys/decrypt/action"]
    role = azure.access.define("Secrets of clusters", actions)
    azure.access.group("00000000-0000-0000-0000-0000000000aa", [cluster.principal_id])
    azure.access.assign("00000000-0000-0000-0000-0000000000aa", role, made.vault.id, principal_type="Group")

    record = await app.look(cluster)

    assert record is not None
    assert record.reasons == (Reason.UPDATING, Reason.READER_MISSING)


async def test_a_condition_and_what_can_not_be_read_are_warnings(app: Product, azure: Azure) -> None:
    made = scene(azure)
    conditional = made.cluster("aks-1", roles=("Key Vault Reader",))
    azure.access.assign(conditional.principal_id, "Key Vault Crypto User", made.vault.id, condition="@Resource[x] == y")
    unreadable = made.cluster("aks-2")

    first = await app.look(conditional)
    azure.access.readable = False
    second = await app.look(unreadable, now=NOW + timedelta(minutes=2))

    assert first is not None
    assert first.reasons == (Reason.UPDATING, Reason.ACCESS_UNKNOWN)
    assert second is not None
    assert second.reasons == (Reason.UPDATING, Reason.ACCESS_UNKNOWN)


async def test_a_vault_without_purge_protection_is_a_warning(app: Product, azure: Azure) -> None:
    cluster = scene(azure, purge_protection=False).cluster()

    record = await app.look(cluster)

    assert record is not None
    assert record.reasons == (Reason.UPDATING, Reason.PURGE_PROTECTION_OFF)


@pytest.mark.parametrize(
    ("permissions", "reason"),
    [
        pytest.param(("encrypt", "decrypt"), Reason.UPDATING, id="both"),
        pytest.param(("all",), Reason.UPDATING, id="all"),
        pytest.param(("encrypt",), Reason.ACCESS_MISSING, id="one"),
        pytest.param(("wrapKey", "unwrapKey", "get"), Reason.ACCESS_WRAP_ONLY, id="wrap"),
    ],
)
async def test_access_policies_count_on_a_vault_of_that_model(
    app: Product, azure: Azure, permissions: tuple[str, ...], reason: Reason
) -> None:
    cluster = azure.aks.add("aks-1")
    made = scene(azure, rbac=False, access_policies=[access_policy(cluster.principal_id, *permissions)])
    azure.access.assign(cluster.principal_id, "Key Vault Reader", made.vault.id)

    record = await app.look(cluster)

    assert record is not None
    assert record.reasons[0] is reason


# identities


async def test_a_system_assigned_cluster_is_reported(app: Product, azure: Azure) -> None:
    scene(azure)
    cluster = azure.aks.add("aks-1", identity="system-assigned")

    record = await app.look(cluster)

    assert record is not None
    assert record.reasons[0] is Reason.IDENTITY_SYSTEM_ASSIGNED
    assert azure.journal.writes() == ()


async def test_another_user_assigned_identity_is_never_replaced(azure: Azure, account: Account) -> None:
    cluster = scene(azure).cluster()
    identity, _ = azure.aks.add_identity("id-wanted")

    policy = f"{TARGET}    identity: {identity}\n    allowIdentityChange: true\n"
    async with product(account, policy) as app:
        record = await app.look(cluster)

        assert record is not None
        assert record.reasons[0] is Reason.OTHER_IDENTITY
        assert azure.journal.writes() == ()
        await assert_nothing_more_is_written(app, azure, cluster)


async def test_a_system_assigned_identity_is_changed_in_a_look_of_its_own(azure: Azure, account: Account) -> None:
    made = scene(azure)
    cluster = azure.aks.add("aks-1", identity="system-assigned")
    identity, principal = azure.aks.add_identity("id-wanted")
    for role in ("Key Vault Crypto User", "Key Vault Reader"):
        azure.access.assign(principal, role, made.vault.id)

    policy = f"{TARGET}    identity: {identity}\n    allowIdentityChange: true\n"
    async with product(account, policy) as app:
        await app.look(cluster)
        (first,) = azure.journal.writes()
        assert first.body["identity"] == {"type": "UserAssigned", "userAssignedIdentities": {identity: {}}}
        assert first.body["properties"]["securityProfile"] == {}

        azure.clock.advance(UPDATE)
        await app.look_again(cluster, now=NOW + UPDATE)
        first, second = azure.journal.writes()
        assert second.body["properties"]["securityProfile"]["azureKeyVaultKms"]["enabled"] is True

        azure.clock.advance(UPDATE)
        await app.look_again(cluster, now=NOW + 2 * UPDATE)
        assert (await app.record(cluster)).reasons == (Reason.AS_ASKED,)
        lines = await app.writes_noted()
        assert sorted((line.get("identityBefore"), line["outcome"]) for line in lines if "identityBefore" in line) == [
            ("system-assigned", "done")
        ]
        assert [json.loads(line["after"])["kms_enabled"] for line in lines].count(True) == 1
        await assert_nothing_more_is_written(app, azure, cluster)


# shared looks, refusals, faults


async def test_vault_and_key_are_looked_at_once_for_all_clusters_that_share_them(app: Product, azure: Azure) -> None:
    made = scene(azure)
    clusters = [made.cluster(f"aks-{number}", roles=()) for number in range(6)]

    await asyncio.gather(*(app.look(cluster) for cluster in clusters))

    assert len(azure.journal.matching("GET", "/vaults/kv-kms-weu$")) == 1
    assert len(azure.journal.matching("GET", "/vaults/kv-kms-weu/keys/etcd$")) == 1


async def test_a_survey_is_made_again_after_a_minute(app: Product, azure: Azure) -> None:
    made = scene(azure)
    cluster = made.cluster(roles=())
    await app.look(cluster)
    azure.access.assign(cluster.principal_id, "Key Vault Crypto User", made.vault.id)

    record = await app.look(cluster, now=NOW + timedelta(minutes=1))

    assert record is not None
    assert record.reasons[0] is Reason.UPDATING


async def test_a_throttled_survey_comes_back_later(app: Product, azure: Azure) -> None:
    cluster = scene(azure).cluster()
    azure.faults.fail_next(
        "GET", "/vaults/kv-kms-weu$", 429, code="TooManyRequests", message="later", headers={"Retry-After": "600"}
    )

    record = await app.look(cluster)

    assert record is not None
    assert record.reasons[0] is Reason.THROTTLED
    assert record.waiting is not None
    assert record.waiting.look_again_at == NOW + timedelta(seconds=600)


async def test_a_failed_survey_is_not_shared(app: Product, azure: Azure) -> None:
    cluster = scene(azure).cluster()
    azure.faults.fail_next("GET", "/vaults/kv-kms-weu$", 500, code="InternalServerError", message="", times=4)

    with pytest.raises(Unavailable):
        await app.look(cluster)
    record = await app.look(cluster)

    assert record is not None
    assert record.reasons[0] is Reason.UPDATING


async def test_a_vault_that_may_not_be_read_is_named(app: Product, azure: Azure) -> None:
    cluster = scene(azure).cluster()
    azure.faults.fail_next("GET", "/vaults/kv-kms-weu$", 403, code="AuthorizationFailed", message="no")

    record = await app.look(cluster)

    assert record is not None
    assert record.reasons[0] is Reason.VAULT_UNREADABLE


async def test_a_permission_that_was_just_granted_is_waited_for(app: Product, azure: Azure) -> None:
    azure.access.propagation = timedelta(minutes=30)
    now = azure.clock.now()
    cluster = scene(azure).cluster(granted=now)

    record = await app.look(cluster, now=now)

    assert record is not None
    assert (record.action, record.reasons[0]) == (Action.WAIT, Reason.PROPAGATING)
    assert record.claim is None
    assert await app.slots_held() == []
    for _ in range(5):
        await app.look(cluster, now=now + LOOK_AGAIN)
    assert len(azure.journal.matching("PUT", "aks-1")) == 1
    azure.clock.advance(timedelta(minutes=30))
    await app.look_again(cluster, now=now + timedelta(minutes=30))
    azure.clock.advance(UPDATE)
    await app.look_again(cluster, now=now + timedelta(minutes=30) + UPDATE)
    assert (await app.record(cluster)).reasons == (Reason.AS_ASKED,)


async def test_a_permission_that_azure_does_not_see_after_an_hour_fails_with_its_reason(
    app: Product, azure: Azure
) -> None:
    azure.access.propagation = timedelta(hours=9)
    now = azure.clock.now()
    cluster = scene(azure).cluster(granted=now)
    await app.look(cluster, now=now)

    azure.clock.advance(timedelta(minutes=61))
    record = await app.look_again(cluster, now=now + timedelta(minutes=61))

    assert record is not None
    assert (record.action, record.reasons[0]) == (Action.REPORT, Reason.ACCESS_REFUSED)
    assert "AzureKeyVaultKmsValidateIdentityPermissionCustomerError" in (record.detail or "")
    assert record.fix is not None
    tries = len(azure.journal.matching("PUT", "aks-1"))
    await app.look(cluster, now=now + timedelta(minutes=70))
    assert len(azure.journal.matching("PUT", "aks-1")) == tries


async def test_a_missing_feature_is_recognised_and_the_header_is_sent_when_it_is_set(
    azure: Azure, account: Account
) -> None:
    azure.aks.require_feature = True
    cluster = scene(azure).cluster()

    async with product(account, TARGET) as app:
        record = await app.look(cluster)
        assert record is not None
        assert record.reasons == (Reason.FEATURE_NOT_REGISTERED,)
        assert record.fix is not None
        assert "az feature register" in (record.fix.command or "")
        assert "az provider register" in (record.fix.command or "")

    feature = "Microsoft.ContainerService/KMSPMKPreview"
    async with product(account, TARGET, features=feature) as app:
        await app.look(cluster, now=NOW + timedelta(hours=1))
        assert azure.journal.writes()[0].headers["akshttpcustomfeatures"] == feature


# what a cluster is to leave

LEAVING = """
version: 1
mode: enforce
acceptIrreversible: true
targets: [{keyManagement: platform-managed, migrate: true}]
"""


@pytest.mark.parametrize(
    ("lost", "reason"), [(True, Reason.KEY_MISSING), (False, Reason.KEY_DISABLED)], ids=["deleted", "disabled"]
)
async def test_a_cluster_whose_own_key_can_not_be_used_is_moved_once_it_can(
    azure: Azure, account: Account, *, lost: bool, reason: Reason
) -> None:
    made = scene(azure)
    cluster = made.cluster(encryption="customer-managed", key_id=made.key.uri, vault_id=made.vault.id)
    async with product(account, LEAVING) as app:
        request = KeyRequest(KeyId("kv-kms-weu", "etcd"), "timer", VaultId.parse(made.vault.id))
        await app.inspector.inspect(request, now=NOW)
        if lost:
            azure.keyvault.delete_key(made.key)
        else:
            made.key.current.enabled = False

        told = await app.look(cluster)

        assert told is not None
        assert (told.action, told.reasons) == (Action.REPORT, (reason, Reason.TO_MIGRATE))
        assert told.fix is not None
        assert ("recover" if lost else "--enabled true") in (told.fix.command or "")
        assert azure.journal.writes() == ()
        await assert_nothing_more_is_written(app, azure, cluster)
        if not lost:
            made.key.current.enabled = True
            await app.look(cluster)
            await finish(app, azure, cluster)
            assert cluster.encryption == "platform-managed"
            assert azure.aks.readable(cluster)


ELSEWHERE = LEAVING.replace(
    "keyManagement: platform-managed",
    f"keyManagement: customer-managed, vault: {VAULT.replace('weu', 'neu')}, key: etcd, allowUnconfirmed: true,"
    " prerequisites: ensure",
)


@pytest.mark.parametrize("legacy", [True, False], ids=["legacy", "customer-managed"])
@pytest.mark.parametrize("target", [LEAVING, ELSEWHERE], ids=["to-platform-managed", "to-another-vault"])
@pytest.mark.parametrize(
    ("roles", "reason"),
    [((), Reason.ACCESS_MISSING), (("Key Vault Crypto Service Encryption User",), Reason.ACCESS_WRAP_ONLY)],
    ids=["no-role", "wraps-only"],
)
async def test_a_cluster_that_may_not_use_its_own_key_is_moved_once_it_may(
    azure: Azure, account: Account, *, roles: tuple[str, ...], reason: Reason, target: str, legacy: bool
) -> None:
    made = scene(azure)
    cluster = own_key(made, roles=roles, legacy=legacy)
    async with product(account, target) as app:
        await app.inspector.inspect(
            KeyRequest(KeyId("kv-kms-weu", "etcd"), "timer", VaultId.parse(made.vault.id)), now=NOW
        )

        told = await app.look(cluster)

        assert told is not None
        assert (told.action, told.reasons[0]) == (Action.REPORT, reason)
        assert told.fix is not None
        command = (told.fix.command or "").lower()
        assert cluster.principal_id.lower() in command
        assert f"--scope {made.vault.id}".lower() in command
        assert azure.journal.writes() == ()
        await assert_nothing_more_is_written(app, azure, cluster)
        granted = NOW + timedelta(hours=3)
        azure.access.assign(cluster.principal_id, "Key Vault Crypto User", made.vault.id, created=granted)
        waits = await app.look(cluster, now=granted + timedelta(minutes=59))
        assert waits is not None
        assert (waits.action, waits.reasons[0]) == (Action.WAIT, Reason.PROPAGATING)
        assert azure.journal.writes() == ()
        await app.look(cluster, now=granted + timedelta(minutes=59) + 5 * LOOK_AGAIN)
        assert len(azure.journal.writes()) == 1


@pytest.mark.parametrize("hidden", ["roles", "vault", "not-seen"])
async def test_where_nobody_can_tell_whether_a_cluster_may_use_its_own_key_it_is_moved(
    azure: Azure, account: Account, hidden: str
) -> None:
    made = scene(azure)
    cluster = own_key(made, roles=())
    async with product(account, LEAVING) as app:
        if hidden != "not-seen":
            request = KeyRequest(KeyId("kv-kms-weu", "etcd"), "timer", VaultId.parse(made.vault.id))
            await app.inspector.inspect(request, now=NOW)
        azure.access.readable = hidden != "roles"
        if hidden == "vault":
            azure.permissions.refuse("Microsoft.KeyVault/vaults/read")

        told = await app.look(cluster)

        assert told is not None
        assert told.reasons == (Reason.UPDATING,)
        assert len(azure.journal.writes()) == 1


async def test_the_grant_that_a_cluster_lacks_on_its_own_key_is_made_where_the_target_says_so(
    azure: Azure, account: Account
) -> None:
    made = scene(azure)
    cluster = own_key(made, roles=("Key Vault Reader",), legacy=True)
    ensuring = LEAVING.replace(
        "keyManagement: platform-managed",
        f"keyManagement: customer-managed, vault: {VAULT}, key: etcd, prerequisites: ensure",
    )
    async with product(account, ensuring) as app:
        request = KeyRequest(KeyId("kv-kms-weu", "etcd"), "timer", VaultId.parse(made.vault.id))
        await app.inspector.inspect(request, now=NOW)

        told = await app.look(cluster)

        assert told is not None
        assert told.reasons == (Reason.PREPARING, Reason.ACCESS_MISSING)
        assert len(azure.journal.writes()) == 1


async def test_a_cluster_that_stays_with_its_key_is_asked_nothing_more(azure: Azure, account: Account) -> None:
    made = scene(azure)
    cluster = own_key(made, roles=())
    async with product(account, TARGET) as app:
        request = KeyRequest(KeyId("kv-kms-weu", "etcd"), "timer", VaultId.parse(made.vault.id))
        await app.inspector.inspect(request, now=NOW)
        before = len(azure.journal.matching("GET", "/providers/"))

        told = await app.look(cluster)

        assert told is not None
        assert told.reasons == (Reason.AS_ASKED,)
        asked = azure.journal.matching("GET", "/providers/")[before:]
        assert [call.path.lower() for call in asked] == [cluster.id.lower()]


def own_key(made: Scene, *, roles: tuple[str, ...], legacy: bool = False) -> SimulatedCluster:
    """A cluster that names the scene's key, with these roles on its vault."""
    url = made.key.uri_of(made.key.current.version) if legacy else made.key.uri
    encryption = "legacy" if legacy else "customer-managed"
    return made.cluster(roles=roles, encryption=encryption, key_id=url, vault_id=made.vault.id)


async def test_a_cluster_that_has_not_left_a_version_that_is_disabled_is_moved_once_that_is_enabled(
    azure: Azure, account: Account
) -> None:
    made = scene(azure)
    cluster = made.cluster(encryption="customer-managed", key_id=made.key.uri, vault_id=made.vault.id)
    first = made.key.current.version
    request = KeyRequest(KeyId("kv-kms-weu", "etcd"), "timer", VaultId.parse(made.vault.id))
    async with product(account, LEAVING.replace("mode: enforce", "mode: audit")) as watching:
        await watching.look(cluster)
        await watching.inspector.inspect(request, now=NOW)
        azure.keyvault.rotate(made.vault, made.key)
        await watching.inspector.inspect(request, now=NOW + LOOK_AGAIN)
    made.key.versions[first].enabled = False
    async with product(account, LEAVING) as app:
        told = await app.look(cluster)

        assert told is not None
        assert (told.action, told.reasons) == (Action.REPORT, (Reason.VERSION_DISABLED, Reason.TO_MIGRATE))
        assert told.fix is not None
        assert f"--version {first} --enabled true" in (told.fix.command or "")
        assert azure.journal.writes() == ()
        made.key.versions[first].enabled = True
        await app.look(cluster)
        await finish(app, azure, cluster)
        assert (cluster.encryption, azure.aks.readable(cluster)) == ("platform-managed", True)


async def test_a_version_that_an_event_alone_named_keeps_no_cluster_from_being_moved(
    azure: Azure, account: Account
) -> None:
    made = scene(azure)
    cluster = made.cluster(encryption="customer-managed", key_id=made.key.uri, vault_id=made.vault.id)
    request = KeyRequest(KeyId("kv-kms-weu", "etcd"), "event:1", VaultId.parse(made.vault.id), "0" * 32)
    async with product(account, LEAVING.replace("mode: enforce", "mode: audit")) as watching:
        await watching.look(cluster)
        await watching.inspector.inspect(request, now=NOW)
        azure.keyvault.rotate(made.vault, made.key)
        await watching.inspector.inspect(replace(request, version=None), now=NOW + LOOK_AGAIN)
    async with product(account, LEAVING) as app:
        await app.look(cluster)
        await finish(app, azure, cluster)

        assert (cluster.encryption, azure.aks.readable(cluster)) == ("platform-managed", True)
