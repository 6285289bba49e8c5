"""The triggers as the production worker library indexes and invokes them, in a process of its own."""

from __future__ import annotations

import base64
import json
import socket
import uuid
from contextlib import ExitStack
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

import function_app
from local.simulator import SUBSCRIPTION
from local.simulator.activity import PERSON, PERSONAL_DATA
from local.stage import provide
from tests.e2e.app import ENFORCE, App, app_on
from tests.e2e.events import TOPIC, VERSION, cluster_event, cluster_id, fresh_name, key_event
from tests.e2e.gateway import gateway_to

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from local.certificates import Authority
    from local.host.launcher import Answer
    from local.simulator import Azure, Simulator
    from local.storage import Account, Storage

type Json = dict[str, Any]

DELETED = "Microsoft.Resources.ResourceDeleteSuccess"
AUDIT = "version: 1\ntargets: [{keyManagement: platform-managed}]\n"

EVENT_GRID, HTTP_KEY, HTTP_OPEN = {"type": "eventGridTrigger"}, {"authLevel": "FUNCTION"}, {"authLevel": "ANONYMOUS"}
ANY_METHOD = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"]
FUNCTIONS: dict[str, Json] = {
    "on_cluster_event": EVENT_GRID,
    "on_key_event": EVENT_GRID,
    "sweep_fleet": {"type": "timerTrigger", "schedule": "%SWEEP_SCHEDULE%"},
    "sweep_shard": {"type": "queueTrigger", "queueName": "shards", "connection": "AzureWebJobsStorage"},
    "reconcile_cluster": {"type": "queueTrigger", "queueName": "clusters", "connection": "AzureWebJobsStorage"},
    "inspect_key": {"type": "queueTrigger", "queueName": "keys", "connection": "AzureWebJobsStorage"},
    "on_poisoned_shard": {"type": "queueTrigger", "queueName": "shards-poison", "connection": "AzureWebJobsStorage"},
    "on_poisoned_cluster": {
        "type": "queueTrigger",
        "queueName": "clusters-poison",
        "connection": "AzureWebJobsStorage",
    },
    "on_poisoned_key": {"type": "queueTrigger", "queueName": "keys-poison", "connection": "AzureWebJobsStorage"},
    "start_run": {"type": "httpTrigger", "methods": ["POST"], "route": "runs"} | HTTP_KEY,
    "get_run": {"type": "httpTrigger", "methods": ["GET"], "route": "runs/{id}"} | HTTP_KEY,
    "list_clusters": {"type": "httpTrigger", "methods": ["GET"], "route": "clusters"} | HTTP_KEY,
    "list_keys": {"type": "httpTrigger", "methods": ["GET"], "route": "keys"} | HTTP_KEY,
    "get_key": {"type": "httpTrigger", "methods": ["GET"], "route": "keys/{vault}/{name}"} | HTTP_KEY,
    "list_rotations": {"type": "httpTrigger", "methods": ["GET"], "route": "rotations"} | HTTP_KEY,
    "list_activity": {"type": "httpTrigger", "methods": ["GET"], "route": "activity"} | HTTP_KEY,
    "list_exemptions": {"type": "httpTrigger", "methods": ["GET"], "route": "exemptions"} | HTTP_KEY,
    "get_enforcement": {"type": "httpTrigger", "methods": ["GET"], "route": "enforcement"} | HTTP_KEY,
    "pause_enforcement": {"type": "httpTrigger", "methods": ["POST"], "route": "enforcement/pause"} | HTTP_KEY,
    "resume_enforcement": {"type": "httpTrigger", "methods": ["POST"], "route": "enforcement/resume"} | HTTP_KEY,
    "health": {"type": "httpTrigger", "methods": ["GET"], "route": "health"} | HTTP_OPEN,
    "get_cluster": {
        "type": "httpTrigger",
        "methods": ["GET"],
        "route": "clusters/{subscription}/{resourceGroup}/{name}",
    }
    | HTTP_KEY,
    "resume_cluster": {
        "type": "httpTrigger",
        "methods": ["POST"],
        "route": "clusters/{subscription}/{resourceGroup}/{name}/resume",
    }
    | HTTP_KEY,
    "confirm_rewrite": {
        "type": "httpTrigger",
        "methods": ["POST"],
        "route": "clusters/{subscription}/{resourceGroup}/{name}/reencrypted",
    }
    | HTTP_KEY,
    "rotate_key": {"type": "httpTrigger", "methods": ["POST"], "route": "keys/{vault}/{name}/rotate"} | HTTP_KEY,
    "answer_anything_else": {"type": "httpTrigger", "methods": ANY_METHOD, "route": "{*path}"} | HTTP_KEY,
}


@pytest.fixture(scope="module")
def running(
    simulator: Simulator, storage: Storage, authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[App]:
    """One app for all tests that leave nothing behind which another would see."""
    account = storage.account()
    provide(account, authority)
    with app_on(simulator, account, authority, tmp_path_factory.mktemp("app")) as app:
        app.start()
        yield app


@pytest.fixture
def app(running: App, azure: Azure) -> App:
    """The app, with a fresh Azure."""
    running.azure = azure
    return running


@pytest.fixture
def start(
    simulator: Simulator,
    azure: Azure,  # noqa: ARG001  it has to outlive the host
    account: Account,
    authority: Authority,
    tmp_path: Path,
) -> Iterator[Callable[..., App]]:
    """Start an app with a policy or settings of the test's own."""
    with ExitStack() as apps:

        def started(*, policy: str = AUDIT, settings: Mapping[str, str] | None = None) -> App:
            app = app_on(simulator, account, authority, tmp_path, policy=policy, settings=settings)
            entered = apps.enter_context(app)
            entered.start()
            return entered

        yield started


@pytest.fixture
def away() -> Iterator[str]:
    """The address of a service that does not listen. Its port is held, so that nobody else comes to listen there."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"https://127.0.0.1:{held.getsockname()[1]}/nobody"


def as_cloud_event(event: Json) -> Json:
    """The same event in the CloudEvents schema."""
    names = {"topic": "source", "eventType": "type", "eventTime": "time"}
    kept = {name: value for name, value in event.items() if name not in {"dataVersion", "metadataVersion"}}
    return {"specversion": "1.0"} | {names.get(name, name): value for name, value in kept.items()}


def row_of(app: App, name: str) -> Json:
    return next((row for row in app.rows("clusters") if row["RowKey"] == f"rg-apps|{name}"), {})


def malformed(app: App) -> list[Json]:
    return [row for row in app.rows("activity") if row["PartitionKey"] == "events"]


def assert_refused(app: App, answer: Answer, event_id: str, reason: str) -> None:
    """Answered with success, so that Event Grid does not send it again, and kept with its id and what is wrong."""
    (line,) = [row for row in malformed(app) if row["RowKey"].endswith(f"|{event_id}")]

    assert answer.status == 202
    assert (line["kind"], line["askedBy"]) == ("malformed", f"event:{event_id}")
    assert reason in line["detail"]


def test_the_worker_indexes_every_function_with_its_trigger(app: App) -> None:
    answer = app.host.call("GET", "/admin/functions", key=app.host.master_key)

    indexed = {one["name"]: one["trigger"] for one in answer.json()}
    shown = {
        name: {part: value for part, value in trigger.items() if part not in {"direction", "name"}}
        for name, trigger in indexed.items()
    }
    assert shown == FUNCTIONS


@pytest.mark.parametrize("schema", ["eventgrid", "cloudevents"])
def test_a_cluster_event_of_either_schema_leads_to_a_look(app: App, azure: Azure, schema: str) -> None:
    cluster = azure.aks.add(fresh_name(), encryption="platform-managed")
    event = cluster_event(cluster.id)

    answer = app.host.notify("on_cluster_event", as_cloud_event(event) if schema == "cloudevents" else [event])
    app.wait_for(lambda: row_of(app, cluster.name), "a look at the cluster")

    assert answer.status == 202
    assert row_of(app, cluster.name)["reason"] == "as-asked"
    app.wait_for(lambda: app.activity(cluster, "decision"), "its line of activity")
    assert app.activity(cluster, "decision")[0]["askedBy"] == f"event:{event['id']}"


def test_an_array_of_events_leads_to_a_look_for_each(app: App, azure: Azure) -> None:
    names = [azure.aks.add(fresh_name(), encryption="platform-managed").name for _ in range(3)]

    answer = app.host.notify("on_cluster_event", [cluster_event(cluster_id(name)) for name in names])
    app.wait_for(lambda: all(row_of(app, name) for name in names), "a look at each cluster")

    assert answer.status == 202


def test_the_event_of_a_deletion_leads_to_a_look(app: App, azure: Azure) -> None:
    cluster = azure.aks.add(fresh_name(), encryption="platform-managed")
    app.host.notify("on_cluster_event", [cluster_event(cluster.id)])
    app.wait_for(lambda: row_of(app, cluster.name), "a look at the cluster")

    azure.aks.delete(cluster.id)
    operation = {"operationName": "Microsoft.ContainerService/managedClusters/delete"}
    app.host.notify("on_cluster_event", [cluster_event(cluster.id, eventType=DELETED, data=operation)])
    app.wait_for_reason("gone", cluster)

    assert row_of(app, cluster.name)["closedAt"]


@pytest.mark.parametrize("schema", ["eventgrid", "cloudevents"])
def test_a_key_event_of_either_schema_is_logged(app: App, azure: Azure, schema: str) -> None:
    vault = azure.keyvault.add_vault(f"kv-{uuid.uuid4().hex[:12]}")
    key = azure.keyvault.add_key(vault, "etcd")
    event = key_event(key.uri_of(key.current.version), vault=vault.id)

    answer = app.host.notify("on_key_event", as_cloud_event(event) if schema == "cloudevents" else [event])
    app.wait_for(lambda: "fannedOutAt" in version_row(app, key.current.version), "the version in the table")

    row = version_row(app, key.current.version)
    assert answer.status == 202
    assert (row["PartitionKey"], row["how"], row["eventId"]) == (f"{vault.name}|etcd", "event", event["id"])
    (listed,) = app.get(f"/api/rotations?key={key.uri}")["rotations"]
    assert (listed["version"], listed["how"], listed["enabled"]) == (key.current.version, "event", True)


def test_an_array_of_key_events_is_logged_each(app: App, azure: Azure) -> None:
    vault = azure.keyvault.add_vault(f"kv-{uuid.uuid4().hex[:12]}")
    keys = [azure.keyvault.add_key(vault, f"etcd-{number}") for number in range(3)]

    answer = app.host.notify(
        "on_key_event", [key_event(key.uri_of(key.current.version), vault=vault.id) for key in keys]
    )
    app.wait_for(lambda: all(version_row(app, key.current.version) for key in keys), "the versions in the table")

    assert answer.status == 202


def test_events_that_are_not_served_are_ignored(app: App) -> None:
    name = fresh_name()
    pools = {"operationName": "Microsoft.ContainerService/managedClusters/agentPools/write"}
    secret = {"Id": "https://kv-kms-weu.vault.azure.net/secrets/etcd/1", "ObjectType": "Secret"}
    before = malformed(app)

    clusters = app.host.notify(
        "on_cluster_event",
        [
            cluster_event(cluster_id(name), eventType="Microsoft.Resources.ResourceActionSuccess"),
            cluster_event(cluster_id(name), data=pools),
            cluster_event(cluster_id(name), eventType=DELETED),
        ],
    )
    keys = app.host.notify(
        "on_key_event", [key_event(eventType="Microsoft.KeyVault.SecretNewVersionCreated"), key_event(data=secret)]
    )
    app.wait_quiet()

    assert (clusters.status, keys.status) == (202, 202)
    assert row_of(app, name) == {}
    assert malformed(app) == before


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        pytest.param({"subject": None}, "not the resource id of a managed cluster", id="no subject"),
        pytest.param({"subject": ""}, "not the resource id of a managed cluster", id="an empty subject"),
        pytest.param({"subject": f"{TOPIC}/resourceGroups/rg"}, "not the resource id", id="another thing's id"),
        pytest.param({"subject": cluster_id("../../aks")}, "not the resource id", id="an id that climbs"),
        pytest.param({"subject": 17}, "not the resource id", id="a number"),
        pytest.param({"subject": ["a", "list"]}, "not the resource id", id="a list"),
    ],
)
def test_a_malformed_cluster_event_is_recorded_and_not_raised(app: App, changed: Json, reason: str) -> None:
    event = cluster_event(cluster_id(fresh_name()), **changed)

    answer = app.host.notify("on_cluster_event", [event])

    assert_refused(app, answer, event["id"], reason)
    assert app.messages("clusters") == 0


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        pytest.param(
            key_event(f"https://kv-other.vault.azure.net/keys/etcd/{VERSION}"), "is not the topic's vault", id="forged"
        ),
        pytest.param(key_event("https://evil.example/keys/etcd/" + VERSION), "not a key of a vault", id="elsewhere"),
        pytest.param(
            key_event(f"https://kv-kms-weu.vault.azure.net.evil.example/keys/etcd/{VERSION}"),
            "not a key of a vault",
            id="a host that only begins well",
        ),
        pytest.param(
            key_event(f"https://x@kv-kms-weu.vault.azure.net/keys/etcd/{VERSION}"), "not a key of", id="a user"
        ),
        pytest.param(key_event(f"http://kv-kms-weu.vault.azure.net/keys/etcd/{VERSION}"), "not a key of", id="http"),
        pytest.param(key_event("https://kv-kms-weu.vault.azure.net/keys/etcd"), "no version", id="no version"),
        pytest.param(key_event(topic=None), "not the resource id of a key vault", id="no topic"),
        pytest.param(key_event(data={"Id": 17, "ObjectType": "Key"}), "not a key of a vault", id="a number"),
    ],
)
def test_a_malformed_key_event_is_recorded_and_not_raised(app: App, azure: Azure, event: Json, reason: str) -> None:
    answer = app.host.notify("on_key_event", [event])

    assert_refused(app, answer, event["id"], reason)
    assert app.messages("keys") == 0
    assert azure.journal.matching("GET", "vaults") == ()


def test_a_malformed_event_without_an_id_gets_one_of_its_own(app: App) -> None:
    before = len(malformed(app))
    events = [cluster_event(cluster_id("x"), id=None, subject=""), cluster_event(cluster_id("x"), id=None, subject="")]

    answer = app.host.notify("on_cluster_event", events)

    ids = {row["RowKey"].partition("|")[2] for row in malformed(app)}
    assert answer.status == 202
    assert len(malformed(app)) == before + 2
    assert "None" not in ids


@pytest.mark.parametrize("data", [None, "text", [1], {}, {"operationName": 3}])
def test_an_event_with_data_of_another_type_is_answered_with_success(app: App, data: Any) -> None:
    answers = [
        app.host.notify("on_cluster_event", [cluster_event(cluster_id("x"), data=data)]),
        app.host.notify("on_key_event", as_cloud_event(key_event(data=data))),
    ]

    assert [answer.status for answer in answers] == [202, 202]


def test_events_with_an_odd_time_spoil_no_row(start: Callable[..., App]) -> None:
    app = start()
    times = ("0001-01-01T00:00:00Z", "1500-01-01T00:00:00+14:00", "9999-12-31T23:59:59Z", "soon")

    answer = app.host.notify(
        "on_cluster_event", [cluster_event(cluster_id(fresh_name()), eventTime=time) for time in times]
    )
    app.host.wait_for("reconcile_cluster", "started", times=len(times) + 1)  # a second look reads what the first wrote
    app.sweep()
    listed = app.get("/api/clusters")["clusters"]

    assert answer.status == 202
    assert app.host.count("reconcile_cluster", "failed") == 0
    assert listed
    assert all(row["waitingSince"].year > 2000 for row in app.rows("clusters") if "waitingSince" in row)


def test_nothing_of_whoever_made_an_event_is_ever_logged(start: Callable[..., App], azure: Azure) -> None:
    app = start()
    app.subscribe()

    cluster = azure.aks.create("aks-checkout", duration=timedelta(0))
    app.wait_for_reason("not-as-asked", cluster)
    app.host.notify(
        "on_cluster_event",
        [cluster_event(cluster_id("x"), subject=""), cluster_event(cluster_id("x"), eventType="other")],
    )
    app.wait_quiet()

    said = app.log() + json.dumps([app.rows(table) for table in ("activity", "clusters", "runs")], default=str)
    names = (*PERSONAL_DATA, *map(str, PERSON.claims.values()), "claims", "eyJ", "Bearer")
    assert "aks-checkout" in said
    assert [name for name in names if name in said] == []


@pytest.mark.parametrize(("queue", "function"), [("shards", "shard"), ("clusters", "cluster"), ("keys", "key")])
def test_a_message_that_is_not_ours_ends_in_poison_and_is_recorded(app: App, queue: str, function: str) -> None:
    before = app.host.count(f"on_poisoned_{function}")

    sent = app.queues.get_queue_client(queue).send_message("not one of ours")
    app.host.wait_for(f"on_poisoned_{function}", times=before + 1)
    app.wait_quiet()

    assert app.host.count(f"on_poisoned_{function}", "failed") == 0
    assert "is malformed" in app.log()
    assert sent.id in app.log()


def test_a_message_of_ours_that_ends_in_poison_is_recorded(app: App, azure: Azure) -> None:
    vault = azure.keyvault.add_vault(f"kv-{uuid.uuid4().hex[:12]}")
    cluster = azure.aks.add(fresh_name())
    messages = {
        "clusters-poison": {"cluster": cluster.id, "askedBy": "test"},
        "keys-poison": {"key": f"{vault.uri}keys/etcd", "askedBy": "test"},
        "shards-poison": {"run": f"run-{vault.name}", "subscription": SUBSCRIPTION, "askedBy": "test"},
    }

    for queue, message in messages.items():
        app.queues.get_queue_client(queue).send_message(json.dumps(message))
    app.wait_quiet()

    assert row_of(app, cluster.name)["reason"] == "poisoned"
    assert [row["kind"] for row in app.rows("activity") if row["PartitionKey"] == f"key|{vault.name}|etcd"] == [
        "failure"
    ]
    assert [row["RowKey"] for row in app.rows("runs") if row["PartitionKey"] == f"run-{vault.name}"] == [
        f"s|{SUBSCRIPTION}"
    ]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        *(("POST", "/api/runs"), ("GET", "/api/runs/x"), ("GET", "/api/clusters"), ("GET", "/api/rotations")),
        *(("GET", "/api/exemptions"), ("GET", "/api/enforcement"), ("GET", "/api/activity")),
        *(("GET", "/api/keys"), ("GET", "/api/keys/kv-kms/etcd")),
        *(("POST", "/api/enforcement/pause"), ("POST", "/api/enforcement/resume")),
    ],
)
def test_every_route_but_health_needs_a_key(app: App, method: str, path: str) -> None:
    answers = [app.host.call(method, path, key=key) for key in (None, "wrong", app.host.eventgrid_key)]

    assert [answer.status for answer in answers] == [401, 401, 401]


LONG = "x" * 5_000


@pytest.mark.parametrize(
    ("path", "wrong"),
    [
        pytest.param("keys?colour=red", "unknown parameter 'colour'", id="unknown"),
        pytest.param("keys?top=0", "top must be", id="top"),
        pytest.param("keys?finding=broken", "finding must be any", id="finding"),
        pytest.param("keys?finding=", "finding must be any", id="empty-finding"),
        pytest.param("keys?vault=", "not a key of a vault", id="empty-vault"),
        pytest.param("keys?vault", "not a key of a vault", id="bare-vault"),
        pytest.param("keys/kv-kms/etcd?version=", "32 hexadecimal digits", id="empty-version"),
        pytest.param("rotations?continuation=", "not a continuation token", id="empty-continuation"),
        pytest.param("clusters?subscription=", "subscription", id="empty-subscription"),
        pytest.param("keys?continuation=e30%3D", "continuation", id="token"),
        pytest.param(f"keys?vault={LONG}", "vault has more than 2000 characters", id="long"),
        pytest.param("keys/kv-kms/etcd?version=1", "32 hexadecimal digits", id="version"),
        pytest.param("keys/k/etcd", "not a key of a vault", id="vault"),
        pytest.param(f"keys/kv-kms/{'x' * 3000}", "not a key of a vault", id="long-name"),
        pytest.param("rotations?since=2026-03-02", "since must be a moment", id="since"),
        pytest.param("rotations?continuation=W1tbW1tbW1tb", "continuation", id="deep-token"),
        pytest.param("activity?day=9999-12-31", "day must be a day", id="day"),
        pytest.param("activity?cluster=aks-1", "not the resource id", id="cluster"),
        pytest.param("activity?kind=x'%20or%20'a'%20eq%20'a", "kind must be a word", id="a-filter-smuggled-in"),
        pytest.param("clusters?continuation=" + LONG, "continuation has more than", id="long-token"),
        pytest.param("runs/run-1?top=1", "unknown parameter 'top'", id="run"),
    ],
)
def test_a_hostile_question_gets_problem_details(app: App, path: str, wrong: str) -> None:
    answer = app.host.call("GET", f"/api/{path}", key=app.host.function_key)

    assert_problem(answer, 400, wrong)


@pytest.mark.parametrize("path", ["keys/kv-nobody/etcd", "runs/run-nobody", "runs/" + "x" * 3000])
def test_what_nobody_knows_is_not_found(app: App, path: str) -> None:
    answer = app.host.call("GET", f"/api/{path}", key=app.host.function_key)

    assert_problem(answer, 404, "nothing by this name")


def test_health_needs_no_key(app: App) -> None:
    answer = app.host.call("GET", "/api/health")

    assert answer.status == 200
    assert answer.json() == {
        "status": "ok",
        "storage": "ok",
        "policy": {"mode": "enforce", "faults": []},
        "enforcement": {"paused": False, "since": None, "by": None, "failures": 0},
    }


EXEMPTING = f"""{AUDIT}
exemptions:
  - {{match: {{names: [aks-old]}}, owner: team@example.com, reason: is retired in March, expires: 2199-03-31}}
  - {{match: {{names: [aks-gone]}}, owner: team@example.com, reason: was retired, expires: 2020-03-31}}
"""


def test_the_exemptions_say_what_the_last_run_over_everything_found(start: Callable[..., App], azure: Azure) -> None:
    app = start(policy=EXEMPTING)
    azure.aks.add("aks-old")
    tagged = azure.aks.add("aks-tagged", tags={"kms-enforcer": "off"})

    before = app.get("/api/exemptions")
    run = app.host.call("POST", "/api/runs", key=app.host.function_key).json()
    app.wait_quiet()
    after = app.get("/api/exemptions")

    assert (before["asOf"], [one["matched"] for one in before["exemptions"]]) == (None, [None, None])
    assert after["asOf"] == app.get(f"/api/runs/{run['id']}")["finishedAt"]
    assert [(one["status"], one["used"], one["matched"]) for one in after["exemptions"]] == [
        ("in-force", True, 1),
        ("ended", False, 0),
    ]
    assert after["optOutTag"]["matched"] == 1
    assert [one.lower() for one in after["optOutTag"]["clusters"]] == [tagged.id.lower()]
    assert azure.journal.writes() == ()


def token(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode()


@pytest.mark.parametrize(
    ("path", "wrong"),
    [
        pytest.param("/api/clusters?colour=red", "colour", id="unknown parameter"),
        pytest.param("/api/clusters?subscription=x", "subscription", id="bad subscription"),
        pytest.param("/api/clusters?top=0", "top", id="too few"),
        pytest.param("/api/clusters?top=1001", "top", id="too many"),
        pytest.param("/api/clusters?top=ten", "top", id="no number"),
        pytest.param("/api/clusters?continuation=x", "continuation", id="no token"),
        pytest.param(f"/api/clusters?continuation={token([])}", "continuation", id="a token of another form"),
        pytest.param(f"/api/clusters?continuation={token('text')}", "continuation", id="a token of text"),
        pytest.param("/api/clusters?continuation=%C3%A9", "continuation", id="a token of another alphabet"),
        pytest.param("/api/exemptions?top=1", "top", id="a parameter of another list"),
        pytest.param("/api/rotations?key=etcd", "key", id="bad key"),
        pytest.param("/api/rotations?key=https://evil.example/keys/etcd", "key", id="a key elsewhere"),
        pytest.param("/api/rotations?continuation=%7B%7D", "continuation", id="no token of rotations"),
    ],
)
def test_a_question_that_cannot_be_read_gets_problem_details(app: App, path: str, wrong: str) -> None:
    answer = app.host.call("GET", path, key=app.host.function_key)

    assert_problem(answer, 400, wrong)


@pytest.mark.parametrize(
    ("body", "wrong"),
    [
        pytest.param(b"{", "JSON", id="no JSON"),
        pytest.param(b"\xff\xfe", "JSON", id="no text"),
        pytest.param(b"[" * 100_000, "JSON", id="too deep"),
        pytest.param(b"[]", "object", id="no object"),
        pytest.param(b'{"colour": "red"}', "colour", id="unknown field"),
        pytest.param(b'{"mode": "destroy"}', "mode", id="unknown mode"),
        pytest.param(b'{"mode": 1}', "mode", id="a number as mode"),
        pytest.param(b'{"subscriptions": "all"}', "subscriptions", id="no list"),
        pytest.param(b'{"subscriptions": [1]}', "subscriptions", id="a list of numbers"),
        pytest.param(b'{"subscriptions": ["x"]}', "subscription", id="bad subscription"),
    ],
)
def test_an_order_that_cannot_be_read_gets_problem_details(app: App, body: bytes, wrong: str) -> None:
    answer = app.host.call("POST", "/api/runs", key=app.host.function_key, body=body)

    assert_problem(answer, 400, wrong)
    assert app.messages("shards") == 0


@pytest.mark.parametrize("name", ["nobody", "it's", "%2e%2e", "a%20b"])
def test_an_unknown_run_is_not_found(app: App, name: str) -> None:
    answer = app.host.call("GET", f"/api/runs/{name}", key=app.host.function_key)

    assert_problem(answer, 404, "nothing by this name")


def assert_problem(answer: Answer, status: int, wrong: str) -> None:
    """Problem details, as RFC 9457 has them, that say what to change."""
    assert answer.status == status
    assert answer.headers["content-type"].startswith("application/problem+json")
    body = answer.json()
    assert set(body) == {"type", "status", "title", "detail"}
    assert body["status"] == status
    assert wrong in body["detail"]


def test_lists_are_shown_page_by_page(app: App, azure: Azure) -> None:
    subscription = str(uuid.uuid4())
    names = {azure.aks.add(fresh_name(), subscription=subscription, kubernetes="1.32.9").name for _ in range(5)}
    app.sweep()
    app.wait_quiet()

    path = f"/api/clusters?subscription={subscription}&top=2"
    page = app.get(path)
    pages = [page]
    while page["continuation"]:
        page = app.get(f"{path}&continuation={page['continuation']}")
        pages.append(page)
    seen = [row["name"] for page in pages for row in page["clusters"]]

    assert [len(page["clusters"]) for page in pages] == [2, 2, 1]
    assert sorted(seen) == sorted(names)


def test_a_cluster_outside_the_subscriptions_of_the_settings_is_looked_at_and_not_written(
    start: Callable[..., App], azure: Azure
) -> None:
    cluster = azure.aks.add("aks-orders")
    app = start(policy=ENFORCE, settings={"SUBSCRIPTIONS": "00000000-0000-0000-0000-00000000ffff"})

    app.host.notify("on_cluster_event", [cluster_event(cluster.id)])
    app.host.wait_for("reconcile_cluster")
    app.wait_quiet()

    row = row_of(app, "aks-orders")
    assert (row["mode"], row["action"], row["reason"]) == ("audit", "write", "not-as-asked")
    resume = f"/api/clusters/{SUBSCRIPTION}/{cluster.group}/{cluster.name}/resume"
    assert app.host.call("POST", resume, key=app.host.function_key).status == 202
    app.wait_quiet()
    assert row_of(app, "aks-orders")["mode"] == "audit"
    assert azure.journal.writes() == ()


def test_with_a_broken_policy_the_app_starts_says_so_and_writes_nothing(
    start: Callable[..., App], azure: Azure
) -> None:
    cluster = azure.aks.add("aks-orders")
    app = start(policy="version: 1\nmode: enforce\nacceptIrreversible: true\ntargetz: []\n")

    health = app.host.call("GET", "/api/health")
    app.sweep()
    app.host.notify("on_cluster_event", [cluster_event(cluster.id)])
    app.host.wait_for("reconcile_cluster")
    app.wait_quiet()

    assert health.status == 200
    assert health.json()["status"] == "degraded"
    assert any("did you mean targets?" in fault for fault in health.json()["policy"]["faults"])
    assert app.row(cluster)["reason"] == "policy-broken"
    assert azure.journal.writes() == ()
    assert "the policy document is broken" in app.log()


def test_without_its_policy_file_the_app_starts_says_so_and_writes_nothing(
    start: Callable[..., App], azure: Azure, tmp_path: Path
) -> None:
    azure.aks.add("aks-orders")
    app = start(settings={"POLICY_FILE": str(tmp_path / "none.yaml")})

    health = app.host.call("GET", "/api/health").json()
    app.sweep()
    app.wait_quiet()

    assert (health["status"], health["policy"]["mode"]) == ("degraded", "audit")
    (fault,) = health["policy"]["faults"]
    assert "none.yaml: can't be read (FileNotFoundError): let POLICY_FILE name a file" in fault
    assert azure.journal.writes() == ()


def test_with_the_tables_away_a_malformed_event_fails_so_that_event_grid_delivers_it_again(
    start: Callable[..., App], away: str
) -> None:
    app = start(settings={"AzureWebJobsStorage__tableServiceUri": away})

    answer = app.host.notify("on_cluster_event", [cluster_event(cluster_id("x"), subject="")])
    listed = app.host.call("GET", "/api/clusters", key=app.host.function_key)

    assert answer.status == 500
    assert_problem(listed, 503, "")


def test_with_the_queues_away_an_event_fails_and_is_delivered_again(
    start: Callable[..., App], azure: Azure, account: Account, authority: Authority
) -> None:
    with gateway_to(account.queue_uri, authority) as gateway:
        app = start(settings={"AzureWebJobsStorage__queueServiceUri": gateway.uri})
        app.subscribe()

        gateway.call_at("POST", "/clusters/messages", lambda: True)
        cluster = azure.aks.create("aks-checkout", duration=timedelta(0))
        azure.wait_for(lambda: any(delivery.statuses for delivery in azure.eventgrid.pending), deadline=60)
        refused = [tuple(delivery.statuses) for delivery in azure.eventgrid.pending if delivery.statuses]
        gateway.forget()
        azure.clock.advance(timedelta(seconds=15))
        app.wait_for_reason("not-as-asked", cluster)
        app.host.stop()

    assert refused[0] == (500,)
    assert azure.eventgrid.dead_letters == []


def version_row(app: App, version: str) -> Json:
    return next((row for row in app.rows("rotations") if row["RowKey"] == f"v|{version}"), {})


@pytest.mark.parametrize(
    ("method", "path", "status", "words"),
    [
        pytest.param("GET", "/api/nothing", 404, "GET /api/clusters", id="unknown-path"),
        pytest.param("GET", "/api/runs", 405, "POST", id="wrong-method"),
        pytest.param("DELETE", "/api/clusters", 405, "GET", id="nothing-is-deleted-here"),
        pytest.param("GET", "/api/clusters/a/b/c/resume", 405, "POST", id="wrong-method-with-parts"),
        pytest.param("POST", "/api/enforcement", 405, "GET", id="state-is-only-read"),
        pytest.param("GET", "/api/enforcement/resume", 405, "POST", id="reading-resumes-nothing"),
    ],
)
def test_an_unknown_path_or_method_is_told_what_there_is(
    app: App, method: str, path: str, status: int, words: str
) -> None:
    answer = app.host.call(method, path, key=app.host.function_key)

    assert answer.status == status
    assert answer.headers["content-type"].startswith("application/problem+json")
    assert words in answer.json()["detail"]


def test_every_path_that_is_told_of_is_there() -> None:
    told = set(function_app.API.items())
    routes = {(one["route"], one["methods"][0]) for one in FUNCTIONS.values() if len(one.get("methods", [])) == 1}

    assert told == routes


@pytest.mark.parametrize(
    ("body", "wrong"),
    [
        pytest.param(b"{", "JSON", id="no JSON"),
        pytest.param(b"[" * 100_000, "JSON", id="too deep"),
        pytest.param(b'{"why": "x"}', "why", id="unknown field"),
        pytest.param(b'{"reason": {}}', "reason", id="no text"),
        pytest.param(json.dumps({"reason": "x" * 501}).encode(), "500", id="too long"),
    ],
)
def test_a_pause_that_cannot_be_read_gets_problem_details_and_pauses_nothing(app: App, body: bytes, wrong: str) -> None:
    answer = app.host.call("POST", "/api/enforcement/pause", key=app.host.function_key, body=body)

    assert_problem(answer, 400, wrong)
    assert app.get("/api/enforcement")["paused"] is False


def test_what_an_operator_pauses_waits_until_he_resumes(start: Callable[..., App], azure: Azure) -> None:
    azure.aks.update_duration = timedelta(0)
    cluster = azure.aks.add("aks-orders")
    app = start(policy=ENFORCE)
    free = app.get("/api/enforcement")

    paused = app.host.call(
        "POST", "/api/enforcement/pause", key=app.host.function_key, body={"reason": "a freeze until Monday"}
    )
    again = app.host.call("POST", "/api/enforcement/pause", key=app.host.function_key)
    app.sweep()
    app.wait_for_reason("paused", cluster)
    health, shown = app.host.call("GET", "/api/health"), app.get("/api/enforcement")
    writes = azure.journal.writes()
    resumed = app.host.call("POST", "/api/enforcement/resume", key=app.host.function_key)
    app.wait_for_reason("as-asked", cluster)
    run = f"/api/runs/{resumed.json()['run']}"
    app.wait_for(lambda: app.get(run)["status"] == "done", "the run that resuming starts")

    assert free == {"paused": False, "since": None, "by": None, "why": None, "failures": []}
    assert (paused.status, again.status, resumed.status) == (200, 200, 202)
    assert shown == paused.json() == again.json()
    assert (shown["paused"], shown["by"], shown["why"]) == (True, "operator", "a freeze until Monday")
    assert (health.status, health.json()["status"]) == (200, "degraded")
    assert b"freeze" not in health.body
    assert writes == ()
    assert resumed.json()["paused"] is False
    assert app.get("/api/health")["status"] == "ok"


def test_with_the_tables_away_health_says_so_within_seconds(start: Callable[..., App], away: str) -> None:
    app = start(settings={"AzureWebJobsStorage__tableServiceUri": away})

    health = app.host.call("GET", "/api/health")
    paused = app.host.call("POST", "/api/enforcement/pause", key=app.host.function_key)

    assert health.status == 200
    assert (health.json()["status"], health.json()["storage"]) == ("degraded", "unavailable")
    assert_problem(paused, 503, "Unavailable")


def test_a_cluster_that_nobody_knows_is_not_resumed_and_a_bad_id_is_told(app: App) -> None:
    unknown = app.host.call("POST", f"/api/clusters/{SUBSCRIPTION}/rg/aks/resume", key=app.host.function_key)
    bad = app.host.call("POST", "/api/clusters/none/rg/aks/resume", key=app.host.function_key)

    assert (unknown.status, bad.status) == (404, 400)


def test_a_key_is_rotated_by_hand_once_its_legacy_cluster_is_rewritten(start: Callable[..., App], azure: Azure) -> None:
    vault = azure.keyvault.add_vault("kv-kms-weu")
    azure.access.assign(azure.identity.default.object_id, "Key Vault Crypto Officer", vault.id)
    key = azure.keyvault.add_key(vault, "etcd")
    azure.clock.advance(timedelta(hours=1))
    azure.keyvault.rotate(vault, key)
    cluster = azure.aks.add("aks-old", encryption="legacy", key_id=key.uri_of(key.current.version))
    azure.access.assign(cluster.principal_id, "Key Vault Crypto User", vault.id)
    app = start(policy=ENFORCE.replace("platform-managed}", "platform-managed, match: {names: [nobody]}}"))
    rewritten, by = (
        f"/api/clusters/{SUBSCRIPTION}/{cluster.group}/{cluster.name}/reencrypted",
        {"by": "ada@example.com"},
    )
    app.sweep()
    app.wait_quiet()

    refused = app.host.call("POST", "/api/keys/kv-kms-weu/etcd/rotate", key=app.host.function_key, body=by)
    azure.aks.rewrite_secrets(cluster)
    confirmed = app.host.call("POST", rewritten, key=app.host.function_key, body=by)
    again = app.host.call("POST", rewritten, key=app.host.function_key, body=by)
    rotated = app.host.call("POST", "/api/keys/KV-KMS-weu/etcd/rotate", key=app.host.function_key, body=by)
    app.wait_for(lambda: version_row(app, key.current.version).get("fannedOutAt"), "every user to be told")

    assert refused.status == 409
    assert refused.headers["content-type"].startswith("application/problem+json")
    assert set(refused.json()) == {"type", "status", "title", "detail", "clusters"}
    (because,) = refused.json()["clusters"]
    assert because["cluster"].lower() == cluster.id.lower()
    assert "no rewrite" in because["why"]
    assert (confirmed.status, confirmed.json()) == (200, again.json())
    assert confirmed.json()["rewrittenBy"] == "ada@example.com"
    assert confirmed.json()["keys"] == [{"vault": "kv-kms-weu", "key": "etcd"}]
    assert rotated.status == 200
    assert (rotated.json()["version"], rotated.json()["how"]) == (key.current.version, "order")
    assert len(key.versions) == 3
    assert version_row(app, key.current.version)["how"] == "order"


@pytest.mark.parametrize(
    ("path", "body", "status", "wrong"),
    [
        pytest.param("keys/kv-kms-weu/nothing/rotate", b"", 404, "nothing by this name", id="unknown-key"),
        pytest.param("keys/kv_kms/etcd/rotate", b"", 400, "not a key of a vault", id="no-vault-s-name"),
        pytest.param("keys/evil.example%23/etcd/rotate", b"", 400, "not a key of a vault", id="another-host"),
        pytest.param(f"keys/kv-kms-weu/etcd%2F{VERSION}/rotate", b"", 400, "not a key's name", id="a-version"),
        pytest.param("keys/kv-kms-weu/etcd/rotate", b'{"force": true}', 400, "unknown field 'force'", id="force"),
        pytest.param(f"clusters/{SUBSCRIPTION}/rg/aks/reencrypted", b'{"by": "ada"}', 404, "nothing by", id="unknown"),
        pytest.param("clusters/none/rg/aks/reencrypted", b'{"by": "ada"}', 400, "not the resource id", id="bad-id"),
        pytest.param(f"clusters/{SUBSCRIPTION}/rg/aks/reencrypted", b"", 400, "by must say who", id="nobody"),
        pytest.param(
            f"clusters/{SUBSCRIPTION}/rg/aks/reencrypted",
            b'{"by": "ada", "at": "9999-01-01T00:00:00Z"}',
            400,
            "future",
            id="to-come",
        ),
    ],
)
def test_an_order_that_names_nothing_or_cannot_be_read_gets_problem_details(
    app: App, azure: Azure, path: str, body: bytes, status: int, wrong: str
) -> None:
    answer = app.host.call("POST", f"/api/{path}", key=app.host.function_key, body=body)

    assert_problem(answer, status, wrong)
    assert azure.journal.writes() == ()


def test_one_cluster_is_shown_with_every_path_that_would_change_and_its_history(app: App, azure: Azure) -> None:
    azure.aks.update_duration = timedelta(0)
    cluster = azure.aks.add(fresh_name())
    app.sweep()
    app.wait_for_reason("as-asked", cluster)
    path = f"/api/clusters/{SUBSCRIPTION}/{cluster.group}/{cluster.name.upper()}"

    shown = app.get(path)
    unknown = app.host.call("GET", f"{path}-none", key=app.host.function_key)
    bad = app.host.call("GET", f"{path}?nothing=1", key=app.host.function_key)

    assert (shown["name"], shown["keyManagement"], shown["reason"]) == (cluster.name, "platform-managed", "as-asked")
    written = next(line for line in shown["history"] if line["kind"] == "write")
    assert (written["outcome"], written["before"]["infrastructure"]) == ("done", False)
    assert [line["at"] for line in shown["history"]] == sorted((line["at"] for line in shown["history"]), reverse=True)
    assert (unknown.status, bad.status) == (404, 400)
