"""The table of bad input and faults, row by row in its order: what each gets. Other files go deeper into some."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from local.simulator import SUBSCRIPTION
from local.simulator.activity import PERSON, PERSONAL_DATA
from local.stage import provide
from shared.events import ShardRequest
from shared.reasons import Action, Reason
from tests.e2e.app import ENFORCE, App, app_on
from tests.e2e.events import TOPIC, VAULT, VERSION, cluster_event, cluster_id, fresh_name, key_event
from tests.e2e.gateway import Gateway, gateway_to
from tests.product import LOOK_AGAIN, NOW, Product, product

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from local.certificates import Authority
    from local.host.launcher import Answer
    from local.simulator import Azure, Simulator
    from local.simulator.aks.state import SimulatedCluster
    from local.simulator.keyvault import SimulatedVault
    from local.storage import Account, Storage
    from shared.records import Record

type Json = dict[str, Any]

UPDATE, MINUTE, HOUR = timedelta(minutes=5), timedelta(minutes=1), timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Hosted:
    """The app in a host, and what a test can put between it and its storage."""

    app: App
    tables: Gateway
    queues: Gateway

    def notify(self, function: str, *events: Json) -> Answer:
        return self.app.host.notify(function, list(events))

    def call(self, method: str, path: str, **said: Any) -> Answer:
        return self.app.host.call(method, path, **{"key": self.app.host.function_key} | said)

    def line(self, event: Json) -> Json:
        """The line of the record of a malformed event; empty if there is none."""
        rows = (row for row in self.app.rows("activity") if row["RowKey"].endswith(f"|{event['id']}"))
        return next(rows, {})


@pytest.fixture(scope="module")
def running(
    simulator: Simulator, storage: Storage, authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Hosted]:
    """One host for all rows that are about triggers."""
    account = storage.account()
    provide(account, authority)
    with ExitStack() as opened:
        tables = opened.enter_context(gateway_to(account.table_uri, authority))
        queues = opened.enter_context(gateway_to(account.queue_uri, authority))
        ways = {
            "AzureWebJobsStorage__tableServiceUri": tables.uri,
            "AzureWebJobsStorage__queueServiceUri": queues.uri,
        }
        directory = tmp_path_factory.mktemp("app")
        app = opened.enter_context(app_on(simulator, account, authority, directory, settings=ways))
        app.start()
        yield Hosted(app, tables, queues)


@pytest.fixture
def hosted(running: Hosted, azure: Azure) -> Iterator[Hosted]:
    """That host, with a fresh Azure."""
    running.app.azure = azure
    yield running
    running.tables.forget()
    running.queues.forget()


@pytest.fixture
async def rooms(azure: Azure, account: Account) -> AsyncIterator[Product]:  # noqa: ARG001  the clients reach it
    """The product's rooms, enforcing platform-managed keys."""
    async with product(account) as built:
        yield built


def puts(azure: Azure, cluster: SimulatedCluster) -> int:
    """How often an update of a cluster was sent."""
    return len(azure.journal.matching("PUT", f"{cluster.name}$"))


async def sweep(rooms: Product, *, now: Any) -> None:
    await rooms.sweeper.sweep(ShardRequest("run-1", SUBSCRIPTION, "timer"), now=now)


def first_reason(record: Record | None) -> Reason:
    assert record is not None
    return record.reasons[0]


# events


def test_an_event_of_a_type_that_is_not_served_is_ignored_and_counted_and_never_raised(hosted: Hosted) -> None:
    events = [
        cluster_event(cluster_id(fresh_name()), eventType="Microsoft.Resources.ResourceActionSuccess"),
        key_event(eventType="Microsoft.KeyVault.SecretNearExpiry"),
    ]

    answers = [hosted.notify("on_cluster_event", events[0]), hosted.notify("on_key_event", events[1])]

    assert [answer.status for answer in answers] == [202, 202]
    assert [hosted.line(event) for event in events] == [{}, {}]
    for event in events:
        assert hosted.app.log().count(f"event {event['id']} is of no type that is served") == 1


@pytest.mark.parametrize(
    ("function", "event", "reason"),
    [
        pytest.param("on_cluster_event", cluster_event("", subject=None), "not the resource id", id="no-subject"),
        pytest.param("on_cluster_event", cluster_event(f"{TOPIC}/x"), "not the resource id", id="broken-id"),
        pytest.param("on_cluster_event", cluster_event("", subject=[1]), "not the resource id", id="wrong-type"),
        pytest.param("on_key_event", key_event("", data={"Id": 1, "ObjectType": "Key"}), "not a key", id="no-text"),
        pytest.param("on_key_event", key_event(vault=VAULT + "x"), "not the topic's vault", id="of-another-vault"),
    ],
)
def test_a_malformed_event_is_recorded_with_its_id_and_reason_and_never_raised(
    hosted: Hosted, function: str, event: Json, reason: str
) -> None:
    answer = hosted.notify(function, event)

    assert answer.status == 202
    assert (hosted.line(event)["kind"], reason in hosted.line(event)["detail"]) == ("malformed", True)
    said = hosted.app.log() + json.dumps(hosted.app.rows("activity"), default=str)
    secrets = (*PERSONAL_DATA, *map(str, PERSON.claims.values()), "claims", "eyJ", "Bearer")
    assert [name for name in secrets if name in said] == []


@pytest.mark.parametrize(
    "url",
    [
        f"https://kv-kms-weu.vault.azure.net.evil.example/keys/etcd/{VERSION}",
        f"https://kv-kms-weu.evil.example/keys/etcd/{VERSION}",
        f"https://evil.example/kv-kms-weu.vault.azure.net/keys/etcd/{VERSION}",
        f"https://kv-kms-weu.vault.azure.cn/keys/etcd/{VERSION}",
        f"https://kv-kms-weu.managedhsm.azure.net/keys/etcd/{VERSION}",
    ],
)
def test_a_key_event_of_a_host_without_the_clouds_suffix_is_refused_before_any_token_is_sent(
    hosted: Hosted, azure: Azure, url: str
) -> None:
    event = key_event(url)

    answer = hosted.notify("on_key_event", event)
    hosted.app.wait_quiet()

    assert answer.status == 202
    assert "not a key of a vault" in hosted.line(event)["detail"]
    assert [call for call in azure.journal.calls if "vault" in call.host or "evil" in call.host] == []
    assert [call for call in azure.journal.calls if "vault" in str(call.query.get("resource"))] == []


def test_a_key_event_of_a_key_that_no_cluster_uses_yet_is_logged_all_the_same(hosted: Hosted, azure: Azure) -> None:
    vault = azure.keyvault.add_vault(f"kv-{uuid.uuid4().hex[:12]}")
    key = azure.keyvault.add_key(vault, "etcd")
    event = key_event(key.uri_of(key.current.version), vault=vault.id)

    hosted.notify("on_key_event", event)
    hosted.app.wait_for(lambda: _logged(hosted.app, key.current.version), "the version to be logged")

    row = _logged(hosted.app, key.current.version)
    assert (row["how"], row["eventId"], row["PartitionKey"]) == ("event", event["id"], f"{vault.name}|etcd")


def _logged(app: App, version: str) -> Json:
    return next((row for row in app.rows("rotations") if row["RowKey"] == f"v|{version}"), {})


# what Azure does not show


async def test_a_known_cluster_that_is_not_found_is_gone_and_its_row_closed(rooms: Product, azure: Azure) -> None:
    cluster = azure.aks.add("aks-1", encryption="platform-managed")
    await rooms.look(cluster)
    azure.aks.delete(cluster.id)

    record = await rooms.look(cluster, now=NOW + MINUTE)

    assert first_reason(record) is Reason.GONE
    assert (await rooms.record(cluster)).closed_at == NOW + MINUTE


async def test_an_unknown_cluster_that_is_not_found_is_waited_for_for_fifteen_minutes(
    rooms: Product, azure: Azure
) -> None:
    azure.subscriptions.add(SUBSCRIPTION, group="rg-apps")
    written = NOW - MINUTE  # says the event, which was under way that long

    looks = [
        await rooms.look(cluster_id("aks-ghost"), since=written, now=written + timedelta(seconds=seconds))
        for seconds in (60, 15 * 60 - 1, 15 * 60)
    ]
    without_event = await rooms.look(cluster_id("aks-other"))

    assert [first_reason(record) for record in looks] == [
        Reason.NOT_VISIBLE,
        Reason.NOT_VISIBLE,
        Reason.WAITED_TOO_LONG,
    ]
    assert without_event is None
    assert [row["RowKey"] for row in await rooms.rows("clusters")] == ["rg-apps|aks-ghost"]


@pytest.mark.parametrize(
    ("status", "code"),
    [
        pytest.param(404, "SubscriptionNotFound", id="no-subscription"),
        pytest.param(403, "AuthorizationFailed", id="no-right"),
        pytest.param(401, "InvalidAuthenticationTokenTenant", id="other-tenant"),
    ],
)
async def test_what_may_not_be_read_is_unreadable_and_never_closes_a_row(
    rooms: Product, azure: Azure, status: int, code: str
) -> None:
    cluster = azure.aks.add("aks-1", encryption="platform-managed")
    await rooms.look(cluster)
    azure.faults.fail_next("GET", "managedClusters", status, code=code, message="no", times=2)

    record = await rooms.look(cluster, now=NOW + MINUTE)
    await sweep(rooms, now=NOW + 2 * MINUTE)

    assert first_reason(record) is Reason.UNREADABLE
    assert code in str(record and record.detail)
    assert (await rooms.record(cluster)).closed_at is None
    assert (await rooms.record(cluster)).encryption is not None


async def test_absence_from_a_list_closes_no_row_but_asks_for_a_look(rooms: Product, azure: Azure) -> None:
    cluster = azure.aks.add("aks-1", encryption="platform-managed")
    await sweep(rooms, now=NOW)
    azure.aks.delete(cluster.id)

    await sweep(rooms, now=NOW + HOUR)

    assert (await rooms.record(cluster)).closed_at is None
    assert await rooms.messages() == 1


# what Azure refuses

ACTION = "Microsoft.ContainerService/managedClusters/write"
SCOPE = f"{TOPIC}/resourceGroups/rg-apps/providers/Microsoft.ContainerService/managedClusters/aks-1"


@pytest.mark.parametrize(
    ("status", "code", "reason"),
    [
        pytest.param(409, "ScopeLocked", Reason.BLOCKED, id="locked"),
        pytest.param(403, "AuthorizationFailed", Reason.NOT_PERMITTED, id="no-right"),
        pytest.param(403, "LinkedAuthorizationFailed", Reason.NOT_PERMITTED, id="no-right-on-what-is-linked"),
        pytest.param(403, "RequestDisallowedByPolicy", Reason.BLOCKED, id="policy"),
        pytest.param(400, "BadRequest", Reason.BLOCKED, id="other-400"),
    ],
)
async def test_a_clear_no_is_reported_with_all_that_azure_says_and_tried_again_when_due_or_changed(
    rooms: Product, azure: Azure, status: int, code: str, reason: Reason
) -> None:
    cluster = azure.aks.add("aks-1")
    text = f"The client is not allowed to perform action '{ACTION}' over scope '{SCOPE}'."
    azure.faults.fail_next("PUT", cluster.name, status, code=code, message=text, times=3)

    await rooms.look(cluster)
    for minutes in (1, 30, 54):
        await rooms.look(cluster, now=NOW + minutes * MINUTE)
        await sweep(rooms, now=NOW + minutes * MINUTE)

    record = await rooms.record(cluster)
    assert (record.action, record.reasons) == (Action.REPORT, (reason,))
    assert all(part in (record.detail or "") for part in (code, ACTION, SCOPE))
    (line,) = await rooms.writes_noted()
    assert (line["outcome"], line["code"]) == ("refused", code)
    assert ACTION in line["text"]
    assert puts(azure, cluster) == 1
    assert await rooms.slots_held() == []
    await rooms.look(cluster, now=NOW + HOUR)  # as the next sweep asks
    assert puts(azure, cluster) == 2
    azure.aks.change(cluster.id, lambda document: document.update(tags={"unlocked": "yes"}))
    await rooms.look(cluster, now=NOW + HOUR + MINUTE)
    assert puts(azure, cluster) == 3


@pytest.mark.parametrize(("status", "code"), [(409, "OperationNotAllowed"), (412, "PreConditionFailed")])
async def test_a_conflict_is_read_again_and_the_claimed_state_counts_as_ours(
    rooms: Product, azure: Azure, status: int, code: str
) -> None:
    cluster = azure.aks.add("aks-1")
    azure.faults.fail_next("PUT", cluster.name, status, code=code, message="not now")
    await rooms.look(cluster)
    encrypted = {"kubernetesResourceObjectEncryptionProfile": {"infrastructureEncryption": "Enabled"}}
    azure.aks.change(cluster.id, lambda document: document["properties"].update(securityProfile=encrypted))

    await rooms.look_again(cluster, now=NOW + LOOK_AGAIN)

    assert (await rooms.record(cluster)).reasons == (Reason.AS_ASKED,)
    assert [line["outcome"] for line in await rooms.writes_noted()] == ["done"]
    assert puts(azure, cluster) == 1


@pytest.mark.parametrize(("status", "code"), [(409, "OperationNotAllowed"), (412, "PreConditionFailed")])
async def test_a_conflict_that_never_passes_is_a_bounded_wait(
    rooms: Product, azure: Azure, status: int, code: str
) -> None:
    cluster = azure.aks.add("aks-1")
    azure.faults.fail_next("PUT", cluster.name, status, code=code, message="not now", times=99)
    await rooms.look(cluster)

    reasons = []
    for hours in range(1, 8):
        await rooms.look(cluster, now=NOW + hours * HOUR)
        reasons.append((await rooms.record(cluster)).reasons)

    assert reasons[0] == (Reason.UPDATING,)
    assert reasons[-1] == (Reason.WAITED_TOO_LONG, Reason.CONFLICT)
    sent = puts(azure, cluster)
    await rooms.look(cluster, now=NOW + 7 * HOUR + 30 * LOOK_AGAIN)
    assert puts(azure, cluster) == sent <= 8
    assert await rooms.slots_held() == []

    for minutes in (0, 2, 30):
        await rooms.look(cluster, now=NOW + 12 * HOUR + minutes * LOOK_AGAIN)
    assert (await rooms.record(cluster)).reasons == (Reason.WAITED_TOO_LONG, Reason.CONFLICT)
    assert puts(azure, cluster) == sent + 1
    assert await rooms.slots_held() == []


# what Azure puts off


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("method", ["GET", "PUT"])
async def test_what_azure_puts_off_comes_back_after_that_time_and_no_worker_sleeps(
    rooms: Product, azure: Azure, method: str, status: int
) -> None:
    cluster = azure.aks.add("aks-1")
    later = {"Retry-After": "600"}
    azure.faults.fail_next(method, cluster.name, status, code="Throttled", message="later", headers=later)

    record = await asyncio.wait_for(rooms.look(cluster), timeout=30)
    visible = await rooms.storage.get_queue_client("clusters").peek_messages()
    await rooms.look(cluster, now=NOW + MINUTE)  # an event meanwhile
    meanwhile = len(azure.journal.writes())
    await rooms.look_again(cluster, now=NOW + timedelta(seconds=600))

    assert record is not None
    assert record.reasons == (Reason.THROTTLED,)
    assert record.waiting is not None
    assert record.waiting.look_again_at == NOW + timedelta(seconds=600)
    assert visible == []
    assert await rooms.messages() >= 1
    assert meanwhile == 0
    assert len(azure.journal.writes()) == 1


async def test_a_time_longer_than_a_message_can_be_delayed_is_kept_too(rooms: Product, azure: Azure) -> None:
    cluster = azure.aks.add("aks-1")
    later = {"Retry-After": str(3 * 3600)}
    azure.faults.fail_next("GET", cluster.name, 429, code="Throttled", message="later", headers=later)
    await rooms.look(cluster)
    calls = len(azure.journal.calls)

    for hours in (1, 2):
        await rooms.look_again(cluster, now=NOW + hours * HOUR)

    assert len(azure.journal.calls) == calls
    assert await rooms.messages() == 3
    await rooms.look_again(cluster, now=NOW + 3 * HOUR)
    assert first_reason(await rooms.record(cluster)) is Reason.UPDATING


async def test_a_throttled_list_and_a_throttled_key_come_back_too(rooms: Product, azure: Azure) -> None:
    from shared.events import KeyRequest
    from shared.keys import KeyId, VaultId

    vault = azure.keyvault.add_vault("kv-kms-weu")
    azure.keyvault.add_key(vault, "etcd")
    for path in ("managedClusters$", "/versions$"):
        azure.faults.fail_next("GET", path, 429, code="Throttled", message="later", headers={"Retry-After": "600"})

    async with asyncio.timeout(5):
        await sweep(rooms, now=NOW)
        await rooms.inspector.inspect(KeyRequest(KeyId("kv-kms-weu", "etcd"), "t", VaultId.parse(vault.id)), now=NOW)

    assert (await rooms.messages("shards"), await rooms.messages("keys")) == (1, 1)
    assert await rooms.rows("runs") == []
    assert await rooms.rows("rotations") == []


# somebody else's hand


async def _enforce(rooms: Product, azure: Azure, cluster: SimulatedCluster, *, now: Any) -> None:
    await rooms.look(cluster, now=now)
    azure.clock.advance(UPDATE)
    await rooms.look_again(cluster, now=now + UPDATE)
    assert (await rooms.record(cluster)).reasons == (Reason.AS_ASKED,)


async def test_a_cluster_that_is_set_back_twice_within_a_day_is_contested_until_an_operator_resumes(
    rooms: Product, azure: Azure
) -> None:
    cluster = azure.aks.add("aks-1")
    for hours in (0, 2):
        await _enforce(rooms, azure, cluster, now=NOW + hours * HOUR)
        azure.aks.set_back(cluster.id)

    for hours in (4, 5, 30, 100):
        await rooms.look(cluster, now=NOW + hours * HOUR)
        await sweep(rooms, now=NOW + hours * HOUR)

    record = await rooms.record(cluster)
    assert (record.action, record.reasons) == (Action.REPORT, (Reason.CONTESTED,))
    assert "/resume" in (record.fix.text if record.fix else "")
    assert puts(azure, cluster) == 2
    await rooms.reconciler.resume(record.cluster_id, asked_by="operator", now=NOW + 101 * HOUR)
    await _enforce(rooms, azure, cluster, now=NOW + 101 * HOUR)
    assert puts(azure, cluster) == 3


async def test_a_cluster_that_is_set_back_once_a_day_is_enforced_each_time(rooms: Product, azure: Azure) -> None:
    cluster = azure.aks.add("aks-1")

    for days in range(3):
        await _enforce(rooms, azure, cluster, now=NOW + days * (24 * HOUR + 2 * UPDATE))
        azure.aks.set_back(cluster.id)

    assert puts(azure, cluster) == 3


async def test_a_cluster_that_is_set_back_before_the_app_saw_its_update_in_effect_is_contested_too(
    rooms: Product, azure: Azure
) -> None:
    cluster = azure.aks.add("aks-1")
    await rooms.look(cluster)

    for times in (1, 2):  # a reconciling operator waits for nothing
        azure.clock.advance(UPDATE)
        azure.aks.set_back(cluster.id)
        await rooms.look(cluster, now=NOW + times * UPDATE)
    await rooms.look(cluster, now=NOW + 3 * UPDATE)

    assert (await rooms.record(cluster)).reasons == (Reason.CONTESTED,)
    assert puts(azure, cluster) == 2
    assert await rooms.slots_held() == []


def test_a_contested_cluster_is_resumed_over_http(hosted: Hosted, azure: Azure) -> None:
    azure.aks.update_duration = timedelta(0)
    cluster = azure.aks.add(fresh_name())
    for time in (1, 2):
        hosted.notify("on_cluster_event", cluster_event(cluster.id))
        hosted.app.wait_for(partial(_is_written, hosted.app, cluster, time), "the cluster to be enforced")
        azure.aks.set_back(cluster.id)
    hosted.notify("on_cluster_event", cluster_event(cluster.id))
    hosted.app.wait_for_reason("contested", cluster)

    answer = hosted.call("POST", f"/api/clusters/{SUBSCRIPTION}/rg-apps/{cluster.name}/resume")
    hosted.app.wait_for_reason("as-asked", cluster)

    assert answer.status == 202
    assert len(hosted.app.puts(cluster)) == 3
    assert [row["askedBy"] for row in hosted.app.activity(cluster, "resumed")] == ["operator"]


def _is_written(app: App, cluster: SimulatedCluster, times: int) -> bool:
    return len(app.puts(cluster)) == times and app.row(cluster).get("reason") == "as-asked"


# messages that keep failing, a broken policy, storage that is away


def test_five_failures_of_one_message_are_recorded_as_poison_and_the_sweep_starts_afresh(
    hosted: Hosted, azure: Azure
) -> None:
    azure.aks.update_duration = timedelta(0)
    cluster = azure.aks.add(fresh_name())
    azure.faults.fail_next("GET", cluster.name, 501, code="Broken", message="no retry of the SDK's", times=5)

    hosted.notify("on_cluster_event", cluster_event(cluster.id))
    hosted.app.wait_for_reason("poisoned", cluster)
    hosted.app.wait_quiet()
    looks = len(azure.journal.matching("GET", cluster.name))
    poisoned = [row["reasons"] for row in hosted.app.activity(cluster, "decision")]
    hosted.app.sweep()
    hosted.app.wait_for_reason("as-asked", cluster)

    assert looks == 5
    assert poisoned == ["poisoned"]
    assert len(hosted.app.puts(cluster)) == 1


def test_with_a_broken_policy_the_app_starts_writes_nothing_and_says_so(
    simulator: Simulator, azure: Azure, account: Account, authority: Authority, tmp_path: Path
) -> None:
    cluster = azure.aks.add("aks-1")
    broken = ENFORCE.replace("targets", "targetz")

    with app_on(simulator, account, authority, tmp_path, policy=broken) as app:
        app.start()
        health = app.host.call("GET", "/api/health").json()
        app.sweep()
        app.wait_for_reason("policy-broken", cluster)
        app.wait_quiet()
        log = app.log()

    assert health["status"] == "degraded"
    assert "targetz" in str(health["policy"]["faults"])
    assert "the policy document is broken, nothing is written" in log
    assert azure.journal.writes() == ()


def test_with_the_queues_away_the_trigger_fails_and_the_event_is_delivered_again(hosted: Hosted, azure: Azure) -> None:
    cluster = azure.aks.add(fresh_name(), encryption="platform-managed")
    event = cluster_event(cluster.id)
    hosted.queues.call_at("POST", "/clusters/messages", lambda: True)

    away = hosted.notify("on_cluster_event", event)
    hosted.queues.forget()
    back = hosted.notify("on_cluster_event", event)
    hosted.app.wait_for_reason("as-asked", cluster)

    assert (away.status, back.status) == (500, 202)


def test_with_the_tables_away_the_trigger_fails_and_the_message_comes_back(hosted: Hosted, azure: Azure) -> None:
    cluster = azure.aks.add(fresh_name(), encryption="platform-managed")
    failed = hosted.app.host.count("reconcile_cluster", "failed")
    hosted.tables.call_at(".*", "", lambda: True)

    hosted.notify("on_cluster_event", cluster_event(cluster.id))
    hosted.app.host.wait_for("reconcile_cluster", "failed", times=failed + 1, within=timedelta(seconds=40))
    hosted.tables.forget()
    hosted.app.wait_for_reason("as-asked", cluster)

    assert hosted.app.row(cluster)["action"] == "nothing"


# HTTP


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "words"),
    [
        pytest.param("POST", "/api/runs", {"colour": "red"}, 400, "colour", id="unknown-field"),
        pytest.param("POST", "/api/runs", {"clusters": ["x"]}, 400, "managed cluster", id="bad-cluster-id"),
        pytest.param("GET", "/api/clusters?subscription=x", None, 400, "subscription", id="bad-subscription"),
        pytest.param("POST", "/api/clusters/x/rg/aks/resume", None, 400, "managed cluster", id="bad-id-in-path"),
        pytest.param("GET", "/api/runs/none", None, 404, "nothing by this name", id="unknown-run"),
        pytest.param("GET", "/api/nothing", None, 404, "POST /api/runs", id="unknown-path"),
        pytest.param("DELETE", "/api/clusters", None, 405, "GET", id="wrong-method"),
        pytest.param("GET", "/api/runs", None, 405, "POST", id="wrong-method-of-a-writer"),
    ],
)
def test_a_request_that_can_not_be_served_gets_problem_details_that_say_what_to_change(
    hosted: Hosted, method: str, path: str, body: Json | None, status: int, words: str
) -> None:
    answer = hosted.call(method, path, body=body)

    assert answer.status == status
    assert answer.headers["content-type"].startswith("application/problem+json")
    problem = answer.json()
    assert set(problem) == {"type", "status", "title", "detail"}
    assert problem["status"] == status
    assert words in problem["detail"]
    assert answer.headers.get("allow") == (problem["detail"].rpartition(" ")[2] if status == 405 else None)


@pytest.mark.parametrize("key", [None, "wrong"])
def test_a_request_without_the_right_is_refused(hosted: Hosted, key: str | None) -> None:
    answers = [
        hosted.call("POST", "/api/runs", key=key),
        hosted.call("POST", f"/api/clusters/{SUBSCRIPTION}/rg/aks/resume", key=key),
        hosted.call("GET", "/api/nothing", key=key),
    ]

    assert [answer.status for answer in answers] == [401, 401, 401]


# customer-managed keys: what the service refuses though the app looks first

TARGET = f"""
version: 1
mode: enforce
acceptIrreversible: true
targets: [{{keyManagement: customer-managed, vault: {VAULT}, key: etcd}}]
"""
NOT_PERMITTED = "AzureKeyVaultKmsValidateIdentityPermissionCustomerError"
ROLES = ("Key Vault Crypto User", "Key Vault Reader")
TRUSTED: Json = {"default_action": "Deny", "bypass": "AzureServices"}

type Spoil = Callable[[Azure, SimulatedVault], object]


@pytest.fixture
async def keyed(azure: Azure, account: Account) -> AsyncIterator[Product]:  # noqa: ARG001  the clients reach it
    """The product's rooms, enforcing a customer-managed key."""
    async with product(account, TARGET) as built:
        yield built


def vault_with_key(azure: Azure, **seed: Any) -> SimulatedVault:
    vault = azure.keyvault.add_vault("kv-kms-weu", **seed)
    azure.keyvault.add_key(vault, "etcd")
    return vault


LONG_AGO = NOW - 2 * HOUR


def cluster_of(
    azure: Azure,
    vault: SimulatedVault,
    name: str = "aks-1",
    *,
    roles: tuple[str, ...] = ROLES,
    granted: datetime = LONG_AGO,
) -> SimulatedCluster:
    """A cluster whose identity has had these roles for so long that Azure knows them."""
    cluster = azure.aks.add(name)
    for role in roles:
        azure.access.assign(cluster.principal_id, role, vault.id, created=granted)
    return cluster


async def assert_blocked_and_not_hammered(keyed: Product, azure: Azure, cluster: SimulatedCluster) -> None:
    """Blocked with the service's code and text; one PUT until the next sweep is due; no slot is held."""
    record = await keyed.record(cluster)
    assert (record.action, record.reasons[0]) == (Action.REPORT, Reason.ACCESS_REFUSED)
    assert NOT_PERMITTED in (record.detail or "")
    assert "does not have keys encrypt/decrypt permission" in (record.detail or "")
    for minutes in (1, 30, 54):
        await keyed.look(cluster, now=NOW + minutes * MINUTE)
        await sweep(keyed, now=NOW + minutes * MINUTE)
    assert puts(azure, cluster) == 1
    assert await keyed.slots_held() == []
    assert (await keyed.writes_noted())[-1]["kind"] == "write"


async def test_a_permission_that_is_not_propagated_yet_is_waited_for(keyed: Product, azure: Azure) -> None:
    azure.access.propagation = timedelta(minutes=20)
    now = azure.clock.now()
    vault = vault_with_key(azure)
    cluster = cluster_of(azure, vault, roles=())
    for role in ROLES:
        azure.access.assign(cluster.principal_id, role, vault.id)

    waiting = await keyed.look(cluster, now=now)
    azure.clock.advance(timedelta(minutes=20))
    await keyed.look_again(cluster, now=now + timedelta(minutes=20))

    assert waiting is not None
    assert (waiting.action, waiting.reasons[0]) == (Action.WAIT, Reason.PROPAGATING)
    assert len(azure.journal.writes()) == 1


async def test_a_permission_that_can_not_be_told_is_blocked_and_not_hammered(keyed: Product, azure: Azure) -> None:
    azure.access.readable = False
    cluster = cluster_of(azure, vault_with_key(azure), roles=())

    await keyed.look(cluster)

    await assert_blocked_and_not_hammered(keyed, azure, cluster)


async def test_a_permission_whose_condition_does_not_hold_is_blocked_and_not_hammered(
    keyed: Product, azure: Azure
) -> None:
    vault = vault_with_key(azure)
    cluster = cluster_of(azure, vault, roles=())
    azure.access.assign(
        cluster.principal_id, ROLES[0], vault.id, condition="@Resource[x] == y", holds=False, created=LONG_AGO
    )

    await keyed.look(cluster)

    await assert_blocked_and_not_hammered(keyed, azure, cluster)


async def test_a_vault_of_another_tenant_that_can_not_be_told_is_blocked_and_not_hammered(
    keyed: Product, azure: Azure
) -> None:
    cluster = cluster_of(azure, vault_with_key(azure, tenant="00000000-0000-0000-0000-00000000beef"))
    azure.faults.fail_next("GET", f"^{TOPIC}$", 403, code="AuthorizationFailed", message="no", times=9)

    await keyed.look(cluster)

    await assert_blocked_and_not_hammered(keyed, azure, cluster)


def _disabled(azure: Azure, vault: SimulatedVault) -> None:
    azure.keyvault.set_key(vault.key("etcd"), enabled=False)


def _expired(azure: Azure, vault: SimulatedVault) -> None:
    azure.keyvault.set_key(vault.key("etcd"), expires=NOW)


def _without_decrypt(azure: Azure, vault: SimulatedVault) -> None:
    azure.keyvault.set_key(vault.key("etcd"), operations=("encrypt",))


def _without_key(azure: Azure, vault: SimulatedVault) -> None:
    azure.keyvault.delete_key(vault.key("etcd"))


def _without_vault(azure: Azure, vault: SimulatedVault) -> None:
    azure.keyvault.remove_vault(vault)


def _guarded(_azure: Azure, vault: SimulatedVault) -> None:
    vault.properties["publicNetworkAccess"] = "SecuredByPerimeter"


def _without_roles(azure: Azure, _vault: SimulatedVault) -> None:
    azure.access.assignments.clear()


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        pytest.param(_disabled, Reason.KEY_DISABLED, id="key-disabled"),
        pytest.param(_expired, Reason.KEY_EXPIRED, id="key-expired"),
        pytest.param(_without_decrypt, Reason.KEY_OPERATIONS_MISSING, id="no-decrypt"),
        pytest.param(_without_key, Reason.KEY_MISSING, id="key-deleted"),
        pytest.param(_without_vault, Reason.VAULT_DELETED, id="vault-deleted"),
        pytest.param(_guarded, Reason.VAULT_PERIMETER, id="vault-closed"),
    ],
)
async def test_what_changes_between_the_survey_and_the_put_is_blocked_and_named_at_the_next_survey(
    keyed: Product, azure: Azure, spoil: Spoil, reason: Reason
) -> None:
    vault = vault_with_key(azure)
    first, cluster = cluster_of(azure, vault, "aks-first", roles=()), cluster_of(azure, vault)
    await keyed.look(first)
    spoil(azure, vault)

    await keyed.look(cluster)  # shares the survey of a moment ago

    await assert_blocked_and_not_hammered(keyed, azure, cluster)
    await keyed.look(cluster, now=NOW + HOUR)
    assert first_reason(await keyed.record(cluster)) is reason
    assert puts(azure, cluster) == 1


@pytest.mark.parametrize("network", [pytest.param({}, id="public"), pytest.param(TRUSTED, id="private")])
@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(_without_roles, id="permission-lost"),
        pytest.param(_disabled, id="key-disabled"),
        pytest.param(_without_key, id="key-deleted"),
        pytest.param(_without_vault, id="vault-deleted"),
        pytest.param(_guarded, id="vault-closed"),
    ],
)
async def test_what_is_lost_while_the_operation_runs_makes_it_fail_and_is_reported_and_not_hammered(
    keyed: Product, azure: Azure, spoil: Spoil, network: Json
) -> None:
    vault = vault_with_key(azure, **network)
    cluster = cluster_of(azure, vault)
    await keyed.look(cluster)
    spoil(azure, vault)

    azure.clock.advance(UPDATE)
    await keyed.look_again(cluster, now=NOW + UPDATE)

    record = await keyed.record(cluster)
    assert (record.action, record.reasons[0]) == (Action.REPORT, Reason.FAILED)
    assert record.fix is not None
    assert [line["outcome"] for line in await keyed.writes_noted()] == ["failed"]
    assert await keyed.slots_held() == []
    for hours in (1, 2, 24):
        await keyed.look(cluster, now=NOW + hours * HOUR)
        await sweep(keyed, now=NOW + hours * HOUR)
    assert puts(azure, cluster) == 1
    assert (await keyed.record(cluster)).version == record.version


async def test_a_private_vaults_permission_that_takes_longer_than_its_hour_fails_the_operation(
    keyed: Product, azure: Azure
) -> None:
    azure.access.propagation = timedelta(hours=2)
    now = azure.clock.now()
    cluster = cluster_of(azure, vault_with_key(azure, **TRUSTED), granted=now - timedelta(minutes=61))

    await keyed.look(cluster, now=now)
    azure.clock.advance(UPDATE)
    await keyed.look_again(cluster, now=now + UPDATE)

    assert first_reason(await keyed.record(cluster)) is Reason.FAILED
    assert puts(azure, cluster) == 1


async def test_a_missing_feature_is_named_with_its_fix_and_not_hammered(keyed: Product, azure: Azure) -> None:
    azure.aks.require_feature = True
    cluster = cluster_of(azure, vault_with_key(azure))

    await keyed.look(cluster)
    for minutes in (1, 30, 54):
        await keyed.look(cluster, now=NOW + minutes * MINUTE)
        await sweep(keyed, now=NOW + minutes * MINUTE)

    record = await keyed.record(cluster)
    assert record.reasons[0] is Reason.FEATURE_NOT_REGISTERED
    assert "az feature register" in str(record.fix and record.fix.command)
    assert puts(azure, cluster) == 1
