"""Outcomes as a topic gets them: each once, never for what did not happen, and never at the price of a look."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from local.simulator import SUBSCRIPTION
from local.simulator.eventgrid import Schema
from shared.errors import ServiceError
from shared.events import ClusterRequest, KeyRequest, ShardRequest
from shared.keys import KeyId, VaultId
from shared.policy import Mode
from shared.reasons import Reason
from tests.product import ENFORCE, LOOK_AGAIN, NOW, Product, product

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from local.simulator import Azure
    from local.simulator.aks.state import SimulatedCluster
    from local.simulator.keyvault import SimulatedKey, SimulatedVault
    from local.storage import Account

UPDATE, HOUR = timedelta(minutes=5), timedelta(hours=1)
AUDIT = "version: 1\ntargets: [{keyManagement: platform-managed}]\n"
VAULT = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg-keys/providers/Microsoft.KeyVault/vaults/kv-kms-weu"
KEY_TARGET = ENFORCE.replace(
    "[{keyManagement: platform-managed}]", f"[{{keyManagement: customer-managed, vault: {VAULT}, key: etcd}}]"
)
KEY = KeyId("kv-kms-weu", "etcd")
SWEPT = KeyRequest(KEY, "timer")

ENFORCED = "AksKmsEnforcer.ClusterEnforced"
NOT_COMPLIANT = "AksKmsEnforcer.ClusterNotCompliant"
BLOCKED = "AksKmsEnforcer.ClusterBlocked"
ROTATED = "AksKmsEnforcer.RotationDetected"
AT_RISK = "AksKmsEnforcer.KeyAtRisk"
TOPIC = "^/api/events$"


@pytest.fixture
def topic(azure: Azure) -> str:
    """A topic's endpoint."""
    return azure.eventgrid.add_topic("outcomes")


@pytest.fixture
async def app(topic: str, account: Account) -> AsyncIterator[Product]:
    """The product, enforcing platform-managed keys, with a topic."""
    async with product(account, topic=topic) as built:
        yield built


def told(azure: Azure) -> list[str]:
    """The types of what the topic took."""
    return [str(published.payload["type"]) for published in azure.eventgrid.published]


def reasons(azure: Azure) -> list[Any]:
    """The first reason of each cluster's notice."""
    return [published.payload["data"]["reasons"][0] for published in azure.eventgrid.published]


def ids(azure: Azure) -> list[str]:
    return [str(published.payload["id"]) for published in azure.eventgrid.published]


async def finish(app: Product, azure: Azure, cluster: SimulatedCluster, *, now: datetime = NOW + UPDATE) -> None:
    """Let Azure end its operation, and the wait its look."""
    azure.clock.advance(UPDATE)
    await app.look_again(cluster, now=now)


async def sweep(app: Product, *, now: datetime) -> None:
    await app.sweeper.sweep(ShardRequest("run-1", SUBSCRIPTION, "timer"), now=now)


# a cluster is enforced


async def test_enforced_is_told_once_and_only_when_the_update_is_in_effect(app: Product, azure: Azure) -> None:
    cluster = azure.aks.add("aks-1")

    await app.look(cluster)
    await app.look_again(cluster, now=NOW + LOOK_AGAIN)
    under_way = told(azure)
    await finish(app, azure, cluster)
    for hours in (1, 2):
        await app.look(cluster, now=NOW + hours * HOUR)
        await sweep(app, now=NOW + hours * HOUR)

    assert under_way == []
    assert told(azure) == [ENFORCED]


async def test_a_write_whose_reply_was_lost_is_told_once_it_is_in_effect(app: Product, azure: Azure) -> None:
    cluster = azure.aks.add("aks-1")
    azure.faults.drop_next("PUT", cluster.name, accepted=True)

    await app.look(cluster)
    await finish(app, azure, cluster)

    assert told(azure) == [ENFORCED]


async def test_a_cluster_that_was_as_asked_without_our_doing_is_not_told(app: Product, azure: Azure) -> None:
    cluster = azure.aks.add("aks-1", encryption="platform-managed")

    await app.look(cluster)
    await sweep(app, now=NOW + HOUR)

    assert told(azure) == []


@pytest.mark.parametrize("mode", [None, Mode.AUDIT])
async def test_an_exempt_cluster_is_not_told(app: Product, azure: Azure, mode: Mode | None) -> None:
    cluster = azure.aks.add("aks-1", tags={"kms-enforcer": "off"})

    await app.look(cluster, mode=mode)

    assert told(azure) == []


@pytest.mark.parametrize(
    ("status", "code"),
    [
        pytest.param(409, "ScopeLocked", id="refused"),
        pytest.param(403, "RequestDisallowedByPolicy", id="disallowed"),
        pytest.param(412, "PreConditionFailed", id="conflict"),
        pytest.param(500, "InternalOperationError", id="no-clear-answer"),
        pytest.param(429, "Throttled", id="throttled"),
    ],
)
async def test_a_write_that_azure_did_not_take_is_never_told_as_enforced(
    app: Product, azure: Azure, status: int, code: str
) -> None:
    cluster = azure.aks.add("aks-1")
    azure.faults.fail_next("PUT", cluster.name, status, code=code, message="no", times=2)

    await app.look(cluster)
    await app.look(cluster, now=NOW + LOOK_AGAIN)

    assert ENFORCED not in told(azure)
    assert told(azure) == ([BLOCKED] if status in {403, 409} else [])


async def test_an_operation_that_failed_is_told_as_blocked_and_not_as_enforced(app: Product, azure: Azure) -> None:
    cluster = azure.aks.add("aks-1")
    azure.aks.fail_operation_next("InternalOperationError", "Internal server error")

    await app.look(cluster)
    await finish(app, azure, cluster)
    await sweep(app, now=NOW + HOUR)

    assert told(azure) == [BLOCKED]
    assert reasons(azure) == ["failed"]


async def test_a_write_that_somebody_else_overtook_is_not_told_as_enforced(app: Product, azure: Azure) -> None:
    cluster = azure.aks.add("aks-1")
    await app.look(cluster)
    azure.clock.advance(UPDATE)
    azure.aks.set_back(cluster.id)

    await app.look_again(cluster, now=NOW + UPDATE)

    assert told(azure) == []
    assert "withdrawn" in {line["outcome"] for line in await app.writes_noted() if "outcome" in line}


async def test_a_change_of_the_identity_alone_is_not_told_as_enforced(
    topic: str, azure: Azure, account: Account
) -> None:
    azure.keyvault.add_key(azure.keyvault.add_vault("kv-kms-weu"), "etcd")
    identity, principal = azure.aks.add_identity("id-wanted")
    azure.access.assign(principal, "Key Vault Crypto User", VAULT)
    cluster = azure.aks.add("aks-1", identity="system-assigned")
    policy = KEY_TARGET.replace("key: etcd", f"key: etcd, identity: {identity}, allowIdentityChange: true")

    async with product(account, policy, topic=topic) as app:
        await app.look(cluster)
        await finish(app, azure, cluster)
        after_identity = told(azure)
        await finish(app, azure, cluster, now=NOW + 2 * UPDATE)

    assert after_identity == []
    assert told(azure) == [ENFORCED]


async def test_a_cluster_that_is_enforced_again_is_told_again(app: Product, azure: Azure) -> None:
    cluster = azure.aks.add("aks-1")
    await app.look(cluster)
    await finish(app, azure, cluster)
    azure.aks.set_back(cluster.id)

    await app.look(cluster, now=NOW + HOUR)
    await finish(app, azure, cluster, now=NOW + HOUR + UPDATE)

    assert told(azure) == [ENFORCED, ENFORCED]
    assert len(set(ids(azure))) == 2


async def test_an_enforced_cluster_that_fails_later_and_is_mended_was_enforced_only_once(
    app: Product, azure: Azure
) -> None:
    cluster = azure.aks.add("aks-1")
    await app.look(cluster)
    await finish(app, azure, cluster)

    cluster.document["properties"]["provisioningState"] = "Failed"
    await app.look(cluster, now=NOW + HOUR)
    cluster.document["properties"]["provisioningState"] = "Succeeded"
    await app.look(cluster, now=NOW + 2 * HOUR)

    assert told(azure) == [ENFORCED, BLOCKED]


# a cluster is not compliant, or blocked


async def test_in_audit_a_cluster_that_would_be_written_is_told_once(
    topic: str, azure: Azure, account: Account
) -> None:
    cluster = azure.aks.add("aks-1")

    async with product(account, AUDIT, topic=topic) as app:
        for hours in range(3):
            await app.look(cluster, now=NOW + hours * HOUR)
            await sweep(app, now=NOW + hours * HOUR)

    assert told(azure) == [NOT_COMPLIANT]
    assert reasons(azure) == ["not-as-asked"]


@pytest.mark.parametrize(
    ("seed", "reason"),
    [
        pytest.param({"kubernetes": "1.32.9"}, "kubernetes-too-old", id="too-old"),
        pytest.param({"power": "Stopped"}, "stopped", id="stopped"),
        pytest.param({"identity": "service-principal"}, "identity-unsupported", id="service-principal"),
        pytest.param({"encryption": "customer-managed"}, "encrypted-otherwise", id="encrypted-otherwise"),
        pytest.param({"encryption": "legacy"}, "encrypted-otherwise", id="legacy"),
    ],
)
async def test_each_kind_of_obstacle_is_told_once(
    app: Product, azure: Azure, seed: dict[str, Any], reason: str
) -> None:
    cluster = azure.aks.add("aks-1", **seed)

    for hours in range(3):
        await app.look(cluster, now=NOW + hours * HOUR)
        await sweep(app, now=NOW + hours * HOUR)

    assert told(azure) == [NOT_COMPLIANT]
    assert reasons(azure) == [reason]


def _no_vault(azure: Azure, vault: SimulatedVault) -> None:
    azure.keyvault.remove_vault(vault)


def _no_key(azure: Azure, vault: SimulatedVault) -> None:
    azure.keyvault.delete_key(vault.key("etcd"))


def _disabled(azure: Azure, vault: SimulatedVault) -> None:
    azure.keyvault.set_key(vault.key("etcd"), enabled=False)


def _expired(azure: Azure, vault: SimulatedVault) -> None:
    azure.keyvault.set_key(vault.key("etcd"), expires=NOW)


def _elliptic(azure: Azure, vault: SimulatedVault) -> None:
    azure.keyvault.set_key(vault.key("etcd"), kty="EC")


def _closed(_azure: Azure, vault: SimulatedVault) -> None:
    vault.properties["publicNetworkAccess"] = "SecuredByPerimeter"


def _no_role(azure: Azure, _vault: SimulatedVault) -> None:
    azure.access.assignments.clear()


@pytest.mark.parametrize(
    ("spoil", "kind", "reason"),
    [
        pytest.param(_no_vault, AT_RISK, "vault-deleted", id="vault-deleted"),
        pytest.param(_disabled, AT_RISK, "key-disabled", id="key-disabled"),
        pytest.param(_expired, AT_RISK, "key-expired", id="key-expired"),
        pytest.param(_no_key, NOT_COMPLIANT, "key-missing", id="key-missing"),
        pytest.param(_elliptic, NOT_COMPLIANT, "key-type-unsupported", id="key-type"),
        pytest.param(_closed, NOT_COMPLIANT, "vault-perimeter", id="perimeter"),
        pytest.param(_no_role, NOT_COMPLIANT, "access-missing", id="no-role"),
    ],
)
async def test_a_prerequisite_that_is_missing_is_told_once(
    topic: str,
    azure: Azure,
    account: Account,
    spoil: Callable[[Azure, SimulatedVault], None],
    kind: str,
    reason: str,
) -> None:
    vault = azure.keyvault.add_vault("kv-kms-weu")
    azure.keyvault.add_key(vault, "etcd")
    cluster = azure.aks.add("aks-1")
    azure.access.assign(cluster.principal_id, "Key Vault Crypto User", vault.id)
    spoil(azure, vault)

    async with product(account, KEY_TARGET, topic=topic) as app:
        for hours in range(3):
            await app.look(cluster, now=NOW + hours * HOUR)
            await sweep(app, now=NOW + hours * HOUR)

    assert told(azure) == [kind]
    assert reasons(azure) == [reason]
    assert azure.journal.writes() == ()


async def test_a_write_that_azure_refuses_is_told_once_with_its_words(app: Product, azure: Azure) -> None:
    cluster = azure.aks.add("aks-1")
    azure.faults.fail_next("PUT", cluster.name, 409, code="ScopeLocked", message="locked by rg-lock", times=9)

    await app.look(cluster)
    for minutes in (1, 30, 60):
        await app.look(cluster, now=NOW + timedelta(minutes=minutes))

    (notice,) = azure.eventgrid.published
    assert notice.payload["type"] == BLOCKED
    assert "ScopeLocked" in notice.payload["data"]["detail"]
    assert "locked by rg-lock" in notice.payload["data"]["detail"]


async def test_what_never_passes_is_told_when_its_deadline_is_over(app: Product, azure: Azure) -> None:
    cluster = azure.aks.add("aks-1", state="Updating")
    await app.look(cluster)

    await app.look_again(cluster, now=NOW + HOUR)
    waiting = told(azure)
    await app.look_again(cluster, now=NOW + 6 * HOUR)
    await app.look(cluster, now=NOW + 8 * HOUR)

    assert waiting == []
    assert told(azure) == [BLOCKED]
    assert azure.eventgrid.published[0].payload["data"]["reasons"] == ["waited-too-long", "busy"]


async def test_a_cluster_whose_looks_keep_failing_is_told(app: Product, azure: Azure) -> None:
    cluster = azure.aks.add("aks-1")

    request = ClusterRequest.decode(json.dumps({"cluster": cluster.id, "askedBy": "timer"}), "message-1")
    for _ in range(2):
        await app.reconciler.give_up(request, now=NOW)

    assert told(azure) == [BLOCKED]
    assert reasons(azure) == ["poisoned"]


async def test_an_obstacle_that_takes_the_place_of_another_is_told(app: Product, azure: Azure) -> None:
    cluster = azure.aks.add("aks-1", kubernetes="1.32.9", power="Stopped")
    await app.look(cluster)
    cluster.document["properties"]["powerState"]["code"] = "Running"

    await app.look(cluster, now=NOW + HOUR)

    assert reasons(azure) == ["stopped", "kubernetes-too-old"]


@pytest.mark.parametrize("by_sweep", [False, True], ids=["look", "sweep"])
async def test_an_obstacle_that_was_mended_and_comes_back_is_told_again(
    app: Product, azure: Azure, *, by_sweep: bool
) -> None:
    cluster = azure.aks.add("aks-1", encryption="platform-managed")
    for hours, state in enumerate(("Failed", "Succeeded", "Failed", "Failed")):
        cluster.document["properties"]["provisioningState"] = state
        now = NOW + hours * HOUR
        await (sweep(app, now=now) if by_sweep else app.look(cluster, now=now))

    assert told(azure) == [BLOCKED, BLOCKED]
    assert len(set(ids(azure))) == 2


async def test_a_wait_in_between_does_not_mend_anything(app: Product, azure: Azure) -> None:
    cluster = azure.aks.add("aks-1", kubernetes="1.32.9")
    await app.look(cluster)

    cluster.document["properties"]["provisioningState"] = "Updating"
    await app.look(cluster, now=NOW + HOUR)
    cluster.document["properties"]["provisioningState"] = "Succeeded"
    await app.look_again(cluster, now=NOW + HOUR + LOOK_AGAIN)

    assert reasons(azure) == ["kubernetes-too-old"]


async def test_many_looks_at_once_tell_once(app: Product, azure: Azure) -> None:
    cluster = azure.aks.add("aks-1", kubernetes="1.32.9")

    await asyncio.gather(*(app.look(cluster) for _ in range(8)))
    await app.look(cluster, now=NOW + HOUR)

    assert len(set(ids(azure))) == 1
    assert told(azure) == [NOT_COMPLIANT]


async def test_the_looks_of_the_event_and_of_the_wait_at_an_updates_end_tell_once(app: Product, azure: Azure) -> None:
    cluster = azure.aks.add("aks-1")
    await app.look(cluster)
    waiting = (await app.record(cluster)).waiting
    assert waiting is not None
    azure.clock.advance(UPDATE)

    looks = [app.look(cluster, now=NOW + UPDATE, token=one) for one in (None, waiting.token, None)]
    await asyncio.gather(*looks)

    assert len(set(ids(azure))) == 1
    assert told(azure) == [ENFORCED]


# a topic that is away

AWAY: list[Any] = [
    pytest.param(401, id="no-right"),
    pytest.param(403, id="forbidden"),
    pytest.param(413, id="too-large"),
    pytest.param(429, id="throttled"),
    pytest.param(500, id="broken"),
    pytest.param(503, id="away"),
]


def refuse(azure: Azure, status: int, *, times: int = 1) -> None:
    headers = {"Retry-After": "600"} if status in {429, 503} else {}
    azure.faults.fail_next("POST", TOPIC, status, code="Away", message="not now", headers=headers, times=times)


@pytest.mark.parametrize("status", AWAY)
@pytest.mark.parametrize("by_sweep", [False, True], ids=["look", "sweep"])
async def test_a_topic_that_refuses_fails_no_look_and_is_told_later_under_the_same_id(
    app: Product, azure: Azure, status: int, *, by_sweep: bool
) -> None:
    cluster = azure.aks.add("aks-1", kubernetes="1.32.9")
    refuse(azure, status)
    first = await asyncio.wait_for(app.look(cluster), timeout=30)
    sent = [call.body for call in azure.journal.matching("POST", TOPIC)]

    await (sweep(app, now=NOW + HOUR) if by_sweep else app.look(cluster, now=NOW + HOUR))
    await sweep(app, now=NOW + 2 * HOUR)

    assert first is not None
    assert first.reasons == (Reason.KUBERNETES_TOO_OLD,)
    assert told(azure) == [NOT_COMPLIANT]
    assert [body[0]["id"] for body in sent] == ids(azure)


async def test_a_topic_that_is_not_there_fails_no_look(azure: Azure, account: Account) -> None:
    cluster = azure.aks.add("aks-1", kubernetes="1.32.9")
    nowhere = "https://gone.westeurope-1.eventgrid.azure.net/api/events"

    async with product(account, topic=nowhere) as app:
        record = await asyncio.wait_for(app.look(cluster), timeout=60)
        await sweep(app, now=NOW + HOUR)

    assert record is not None
    assert record.reasons == (Reason.KUBERNETES_TOO_OLD,)
    assert record.announced is None
    assert told(azure) == []


async def test_an_enforcement_that_could_not_be_told_is_told_by_the_sweep(app: Product, azure: Azure) -> None:
    cluster = azure.aks.add("aks-1")
    refuse(azure, 500)
    await app.look(cluster)
    await finish(app, azure, cluster)
    untold = told(azure)
    (sent,) = azure.journal.matching("POST", TOPIC)

    await sweep(app, now=NOW + HOUR)
    await sweep(app, now=NOW + 2 * HOUR)

    assert untold == []
    assert told(azure) == [ENFORCED]
    assert ids(azure) == [sent.body[0]["id"]]


async def test_a_notice_whose_reply_was_lost_is_told_again_under_the_same_id(app: Product, azure: Azure) -> None:
    cluster = azure.aks.add("aks-1", kubernetes="1.32.9")
    azure.faults.drop_next("POST", TOPIC, accepted=True)
    await app.look(cluster)

    await app.look(cluster, now=NOW + HOUR)
    await app.look(cluster, now=NOW + 2 * HOUR)

    assert told(azure) == [NOT_COMPLIANT, NOT_COMPLIANT]
    assert len(set(ids(azure))) == 1


async def test_what_was_mended_before_it_could_be_told_is_not_told(app: Product, azure: Azure) -> None:
    cluster = azure.aks.add("aks-1", encryption="platform-managed", state="Failed")
    refuse(azure, 500)
    await app.look(cluster)
    cluster.document["properties"]["provisioningState"] = "Succeeded"

    await app.look(cluster, now=NOW + HOUR)

    assert told(azure) == []


async def test_without_a_topic_nothing_is_sent_and_nothing_fails(azure: Azure, account: Account) -> None:
    cluster, old = azure.aks.add("aks-1"), azure.aks.add("aks-2", kubernetes="1.32.9")
    vault = azure.keyvault.add_vault("kv-kms-weu")
    version = azure.keyvault.add_key(vault, "etcd").current.version

    async with product(account) as app:
        await app.look(cluster)
        await finish(app, azure, cluster)
        await app.look(old)
        await app.inspector.inspect(KeyRequest(KEY, "event:1", VaultId.parse(vault.id), version), now=NOW)
        rows = [await app.record(one) for one in (cluster, old)]

    assert [row.reasons[0] for row in rows] == [Reason.AS_ASKED, Reason.KUBERNETES_TOO_OLD]
    assert [row.announced for row in rows] == [None, None]
    assert azure.journal.matching("POST", "") == ()


# rotations, and keys at risk


@pytest.fixture
def vault(azure: Azure) -> SimulatedVault:
    """A vault that lets the app look at its keys."""
    made = azure.keyvault.add_vault("kv-kms-weu")
    azure.access.assign(azure.identity.default.object_id, "Key Vault Reader", made.id)
    return made


@pytest.fixture
def key(azure: Azure, vault: SimulatedVault) -> SimulatedKey:
    """A key with one version."""
    return azure.keyvault.add_key(vault, "etcd")


@pytest.fixture
async def user(app: Product, azure: Azure, vault: SimulatedVault, key: SimulatedKey) -> SimulatedCluster:
    """A cluster that uses the key, and is known to."""
    cluster = azure.aks.add("aks-1", encryption="customer-managed", key_id=key.uri, vault_id=vault.id)
    await app.look(cluster)
    await app.inspector.inspect(SWEPT, now=NOW)
    azure.eventgrid.published.clear()
    return cluster


def announced(vault: SimulatedVault, version: str) -> KeyRequest:
    return KeyRequest(KEY, f"event:{version[:8]}", VaultId.parse(vault.id), version)


@pytest.mark.usefixtures("key")
async def test_what_was_there_when_a_key_was_first_seen_is_no_rotation(app: Product, azure: Azure) -> None:
    await app.inspector.inspect(SWEPT, now=NOW)

    assert told(azure) == []


@pytest.mark.parametrize("by_sweep", [False, True], ids=["event", "sweep"])
async def test_each_version_is_told_once_however_it_came_to_be_known(
    app: Product, azure: Azure, vault: SimulatedVault, key: SimulatedKey, *, by_sweep: bool
) -> None:
    await app.inspector.inspect(SWEPT, now=NOW)
    versions = [azure.keyvault.rotate(vault, key) for _ in range(2)]

    for _ in range(2):
        for version in versions:
            await app.inspector.inspect(SWEPT if by_sweep else announced(vault, version), now=NOW + HOUR)

    assert told(azure) == [ROTATED, ROTATED]
    assert {published.payload["data"]["version"] for published in azure.eventgrid.published} == set(versions)
    assert published_how(azure) <= {"event", "sweep"}


def published_how(azure: Azure) -> set[str]:
    return {published.payload["data"]["how"] for published in azure.eventgrid.published}


@pytest.mark.parametrize("status", AWAY)
async def test_a_rotation_that_could_not_be_told_is_told_by_a_later_look_under_the_same_id(
    app: Product, azure: Azure, vault: SimulatedVault, key: SimulatedKey, status: int
) -> None:
    await app.inspector.inspect(SWEPT, now=NOW)
    version = azure.keyvault.rotate(vault, key)
    refuse(azure, status)

    with suppress(ServiceError):  # what passes by itself fails the look, which comes back; a no waits for the sweep
        await asyncio.wait_for(app.inspector.inspect(announced(vault, version), now=NOW), timeout=30)
    sent = [call.body[0]["id"] for call in azure.journal.matching("POST", TOPIC)]
    await app.inspector.inspect(announced(vault, version), now=NOW + HOUR)
    await app.inspector.inspect(SWEPT, now=NOW + 2 * HOUR)

    assert told(azure) == [ROTATED]
    assert ids(azure) == sent


async def test_the_users_of_a_rotated_key_are_looked_at_though_the_topic_is_away(
    app: Product, azure: Azure, vault: SimulatedVault, key: SimulatedKey, user: SimulatedCluster
) -> None:
    version = azure.keyvault.rotate(vault, key)
    azure.keyvault.set_key(key, enabled=False)
    refuse(azure, 401, times=9)
    before = await app.messages()

    await app.inspector.inspect(announced(vault, version), now=NOW)

    assert await app.messages() == before + 1, f"nobody looks at {user.name}"


async def test_a_second_version_that_could_not_be_told_does_not_tell_the_first_again(
    app: Product, azure: Azure, vault: SimulatedVault, key: SimulatedKey
) -> None:
    await app.inspector.inspect(SWEPT, now=NOW)
    for _ in range(2):
        azure.keyvault.rotate(vault, key)
    posts: list[str] = []

    def remember() -> None:
        posts.append("the first")

    azure.faults.call_next("POST", TOPIC, remember, when="after")  # taken, its reply lost
    with pytest.raises(ServiceError):
        await app.inspector.inspect(SWEPT, now=NOW + HOUR)
    await app.inspector.inspect(SWEPT, now=NOW + 2 * HOUR)

    assert posts == ["the first"]
    assert len(told(azure)) == 3
    assert len(set(ids(azure))) == 2


@pytest.mark.usefixtures("user")
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        pytest.param(_disabled, "key-disabled", id="disabled"),
        pytest.param(_expired, "key-expired", id="expired"),
        pytest.param(_no_key, "key-deleted", id="deleted"),
    ],
)
async def test_a_key_in_use_that_comes_to_risk_is_told_once_with_how_many_use_it(
    app: Product, azure: Azure, vault: SimulatedVault, change: Callable[[Azure, SimulatedVault], None], reason: str
) -> None:
    change(azure, vault)

    for hours in range(1, 4):
        await app.inspector.inspect(SWEPT, now=NOW + hours * HOUR)

    (notice,) = azure.eventgrid.published
    assert notice.payload["type"] == AT_RISK
    assert notice.payload["subject"] == "kv-kms-weu/etcd"
    said = notice.payload["data"]
    assert (said["vault"], said["key"], said["reason"], said["users"]) == ("kv-kms-weu", "etcd", reason, 1)
    assert [cluster.rpartition("/")[2] for cluster in said["clusters"]] == ["aks-1"]
    assert "etcd" in said["fix"]["command"]


@pytest.mark.usefixtures("vault")
async def test_a_key_at_risk_that_nobody_uses_is_not_told(app: Product, azure: Azure, key: SimulatedKey) -> None:
    await app.inspector.inspect(SWEPT, now=NOW)
    azure.keyvault.set_key(key, enabled=False)

    await app.inspector.inspect(SWEPT, now=NOW + HOUR)

    assert told(azure) == []


@pytest.mark.usefixtures("user")
async def test_a_key_that_was_mended_and_comes_to_risk_again_is_told_again(
    app: Product, azure: Azure, key: SimulatedKey
) -> None:
    for hours, enabled in enumerate((False, True, False), start=1):
        azure.keyvault.set_key(key, enabled=enabled)
        await app.inspector.inspect(SWEPT, now=NOW + hours * HOUR)

    assert told(azure) == [AT_RISK, AT_RISK]
    assert len(set(ids(azure))) == 2


@pytest.mark.usefixtures("user")
async def test_a_risk_that_could_not_be_told_is_told_by_the_next_look(
    app: Product, azure: Azure, key: SimulatedKey
) -> None:
    azure.keyvault.set_key(key, enabled=False)
    refuse(azure, 500)

    with pytest.raises(ServiceError):
        await app.inspector.inspect(SWEPT, now=NOW + HOUR)
    for hours in (2, 3):
        await app.inspector.inspect(SWEPT, now=NOW + hours * HOUR)

    assert told(azure) == [AT_RISK]


@pytest.mark.usefixtures("user")
async def test_a_risk_whose_reply_was_lost_is_told_again_under_the_same_id(
    app: Product, azure: Azure, key: SimulatedKey
) -> None:
    azure.keyvault.set_key(key, enabled=False)
    azure.faults.drop_next("POST", TOPIC, accepted=True)

    with pytest.raises(ServiceError):
        await app.inspector.inspect(SWEPT, now=NOW + HOUR)
    await app.inspector.inspect(SWEPT, now=NOW + HOUR + LOOK_AGAIN)

    assert told(azure) == [AT_RISK, AT_RISK]
    assert len(set(ids(azure))) == 1


# what a notice looks like


async def test_a_notice_is_a_cloud_event_with_all_that_its_reader_needs(
    app: Product, azure: Azure, caplog: pytest.LogCaptureFixture
) -> None:
    cluster = azure.aks.add("aks-Orders", kubernetes="1.32.9")

    await app.look(cluster, asked_by="event:4db48cba")

    (published,) = azure.eventgrid.published
    event = published.payload
    assert published.schema is Schema.CLOUD_EVENTS
    assert published.publisher == azure.identity.default.object_id
    assert set(event) == {"specversion", "id", "source", "type", "subject", "time", "data"}
    assert (event["specversion"], event["source"], event["type"]) == ("1.0", "aks-kms-enforcer", NOT_COMPLIANT)
    assert event["subject"].lower() == cluster.id.lower()
    assert datetime.fromisoformat(event["time"]).tzinfo is not None
    data = event["data"]
    command = data.pop("fix")["command"]
    assert data == {
        "clusterId": cluster.id,
        "keyManagement": "none",
        "target": "default",
        "mode": "enforce",
        "action": "report",
        "reasons": ["kubernetes-too-old"],
        "detail": None,
        "decidedAt": NOW.isoformat(),
    }
    assert command.startswith("az aks get-upgrades")
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == []


async def test_a_rotation_is_a_cloud_event_that_names_key_and_version(
    app: Product, azure: Azure, vault: SimulatedVault, key: SimulatedKey
) -> None:
    version = azure.keyvault.rotate(vault, key)

    await app.inspector.inspect(announced(vault, version), now=NOW)

    (published,) = azure.eventgrid.published
    event = published.payload
    created = event["data"].pop("created")
    assert (event["type"], event["subject"], event["source"]) == (ROTATED, "kv-kms-weu/etcd", "aks-kms-enforcer")
    assert event["id"] == f"rotation|kv-kms-weu/etcd/{version}"
    assert event["data"] == {
        "vault": "kv-kms-weu",
        "key": "etcd",
        "version": version,
        "how": "event",
        "detectedAt": NOW.isoformat(),
    }
    assert datetime.fromisoformat(created).tzinfo is not None


async def test_only_who_may_send_is_heard_and_the_rest_comes_later(app: Product, azure: Azure) -> None:
    azure.eventgrid.topics.sender_required = True
    cluster = azure.aks.add("aks-1", kubernetes="1.32.9")
    await app.look(cluster)
    unheard = told(azure)
    scope = f"/subscriptions/{SUBSCRIPTION}"
    azure.access.assign(azure.identity.default.object_id, "EventGrid Data Sender", scope)

    await sweep(app, now=NOW + HOUR)

    assert unheard == []
    assert told(azure) == [NOT_COMPLIANT]
