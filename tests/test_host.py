"""The local host: what the Functions host does around an app, seen from outside its process."""

from __future__ import annotations

import base64
import http.client
import json
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from azure.storage.queue import QueueClient, QueueServiceClient

from local.host import HostProcess
from local.host.errors import HostError
from local.host.schedules import Schedule
from local.host.settings import time_span
from local.host.worker import Retry
from local.processes import ProcessError, wait_until
from local.storage import Account, Storage

if TYPE_CHECKING:
    from local.certificates import Authority
    from local.simulator import Simulator

type Start = Callable[..., HostProcess]

SAMPLE_APP = Path(__file__).parent / "sample_app"
NEVER = "0 0 0 30 2 *"
SAMPLE_SETTINGS = {"MESSAGES_QUEUE": "messages", "TICK_SCHEDULE": NEVER}
SOON = timedelta(seconds=60)
NOW = datetime(2026, 3, 2, 9, tzinfo=UTC)

HTTP_APP = """
import azure.functions as func
app = func.FunctionApp()

@app.route("hello")
async def hello(req: func.HttpRequest) -> str:
    return "hello"
"""
TIMER_APP = """
import azure.functions as func
app = func.FunctionApp()

@app.timer_trigger(arg_name="timer", schedule="%TICK_SCHEDULE%")
async def tick(timer: func.TimerRequest) -> None:
    pass
"""
QUEUE_APP = """
import azure.functions as func
app = func.FunctionApp()

@app.queue_trigger(arg_name="message", queue_name="messages", connection="Elsewhere")
async def on_message(message: func.QueueMessage) -> None:
    pass
"""
CLOSING_APP = """
import azure.functions as func
from shared import bootstrap
app = func.FunctionApp()

@app.route("hello")
async def hello(req: func.HttpRequest) -> str:
    return bootstrap.WORD
"""
CLOSING_BOOTSTRAP = """
WORD = "hello"

async def close():
    print("the clients are closed")
"""


@pytest.fixture(scope="module")
def storage(authority: Authority) -> Iterator[Storage]:
    """A running storage."""
    with Storage(authority) as running:
        yield running


@pytest.fixture
def account(storage: Storage) -> Account:
    """A storage account of the test's own."""
    return storage.account()


@pytest.fixture(scope="module")
def host(simulator: Simulator, storage: Storage) -> Iterator[HostProcess]:
    """The sample app, for tests that leave nothing behind which another would see."""
    settings = storage.account().settings() | SAMPLE_SETTINGS
    with HostProcess.start(
        SAMPLE_APP, settings=settings, environment=simulator.environment(), log_json=True
    ) as running:
        yield running


@pytest.fixture
def start(simulator: Simulator, account: Account) -> Iterator[Start]:
    """Start the sample app on the test's own account."""
    with ExitStack() as hosts:

        def started(
            settings: Mapping[str, str] | None = None, environment: Mapping[str, str] | None = None
        ) -> HostProcess:
            host = HostProcess.start(
                SAMPLE_APP,
                settings=account.settings() | SAMPLE_SETTINGS | dict(settings or {}),
                environment=simulator.environment() | dict(environment or {}),
                log_json=True,
            )
            return hosts.enter_context(host)

        yield started


@pytest.fixture
def start_app(tmp_path: Path) -> Iterator[Start]:
    """Start an app of a few lines, which needs no storage."""
    with ExitStack() as hosts:

        def started(code: str, *, environment: Mapping[str, str] | None = None, **settings: str) -> HostProcess:
            (tmp_path / "function_app.py").write_text(code, encoding="utf-8")
            (tmp_path / "host.json").write_text('{"version": "2.0"}', encoding="utf-8")
            host = HostProcess.start(tmp_path, settings=settings, environment=environment or {})
            return hosts.enter_context(host)

        yield started


@pytest.fixture
def messages(account: Account) -> Iterator[QueueClient]:
    """The sample app's queue, made."""
    with closing(queue_of(account, "messages")) as queue:
        queue.create_queue()
        yield queue


@pytest.fixture
def poison(account: Account) -> Iterator[QueueClient]:
    """The poison queue of the sample app's queue; the host makes it."""
    with closing(queue_of(account, "messages-poison")) as queue:
        yield queue


def queue_of(account: Account, name: str) -> QueueClient:
    return QueueClient.from_connection_string(account.connection_string(), name)


def encoded(text: str | bytes) -> str:
    raw = text.encode() if isinstance(text, str) else text
    return base64.b64encode(raw).decode()


def records(host: HostProcess) -> list[dict[str, Any]]:
    """What the host and the app have logged."""
    return [json.loads(line) for line in host.log().splitlines() if line.startswith("{") and line.endswith("}")]


def seen(host: HostProcess, function: str) -> list[dict[str, Any]]:
    """What the sample app's function reported, run by run."""
    return [record["saw"] for record in records(host) if "saw" in record and record["function"] == function]


def wait_for_log(host: HostProcess, text: str, *, times: int = 1) -> None:
    wait_until(lambda: host.log().count(text) >= times, within=SOON, what=f"{text!r} in the log")


def content_of(queue: QueueClient) -> list[str]:
    """The texts in a queue that some host may still have to make."""
    return [message.content for message in queue.peek_messages(max_messages=32)]


def wait_for_content(queue: QueueClient) -> list[str]:
    def content() -> list[str] | None:
        try:
            return content_of(queue)
        except Exception:  # the queue is not made yet
            return None

    return wait_until(content, within=SOON, what=f"a message in {queue.queue_name}")


def grid_event(id: str, *, fail: bool = False) -> dict[str, Any]:
    return {
        "id": id,
        "topic": "/subscriptions/s",
        "subject": "/a/cluster",
        "eventType": "Microsoft.Resources.ResourceWriteSuccess",
        "eventTime": "2026-03-02T09:00:00.1234567Z",
        "data": {"fail": fail},
        "dataVersion": "2",
    }


def cloud_event(id: str, *, fail: bool = False) -> dict[str, Any]:
    return {
        "specversion": "1.0",
        "id": id,
        "source": "/subscriptions/s",
        "subject": "/a/cluster",
        "type": "Microsoft.Resources.ResourceWriteSuccess",
        "time": "2026-03-02T09:00:00.1234567Z",
        "data": {"fail": fail},
    }


def webhook_path(host: HostProcess) -> str:
    return host.webhook("on_event").removeprefix(host.url)


# Routes and keys


def test_a_route_passes_its_parameters_query_and_body(host: HostProcess) -> None:
    answer = host.call(
        "POST",
        "/api/items/5/a%20part?q=1&q=2&r=%26&s=",
        key=host.function_key,
        body=b"the body",
        headers={"User-Agent": "a test"},
    )

    assert answer.status == 200
    assert answer.headers["x-sample"] == "yes"
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {
        "method": "POST",
        "url": f"{host.url}/api/items/5/a%20part?q=1&q=2&r=%26&s=",
        "route": {"id": "5", "part": "a part"},
        "query": {"q": "1,2", "r": "&"},
        "agent": "a test",
        "body": "the body",
    }


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        pytest.param("/api/items/special", "special", id="literal-first"),
        pytest.param("/api/ITEMS/Special/", "special", id="case-and-trailing-slash"),
        pytest.param("/api/items/other", "named other", id="constraint-not-met"),
        pytest.param("/api/files/a/b%2Fc.txt", "a/b/c.txt", id="catch-all"),
    ],
)
def test_the_most_specific_route_answers(host: HostProcess, path: str, answer: str) -> None:
    assert host.call("GET", path, key=host.function_key).body.decode() == answer


def test_an_optional_route_parameter_may_be_absent(host: HostProcess) -> None:
    assert host.call("GET", "/api/items/5", key=host.function_key).json()["route"] == {"id": "5"}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        pytest.param("GET", "/api/nothing", id="no-route"),
        pytest.param("GET", "/items/special", id="no-prefix"),
        pytest.param("DELETE", "/api/items/special", id="wrong-method"),
        pytest.param("GET", "/api/xitems/special", id="not-anchored"),
    ],
)
def test_what_no_function_serves_is_not_found(host: HostProcess, method: str, path: str) -> None:
    assert host.call(method, path, key=host.function_key).status == 404


def test_a_function_needs_its_key_or_the_master_key(host: HostProcess) -> None:
    path = "/api/items/special"

    answers = {
        "none": host.call("GET", path).status,
        "wrong": host.call("GET", path, key="wrong").status,
        "event grid's": host.call("GET", path, key=host.eventgrid_key).status,
        "function": host.call("GET", path, key=host.function_key).status,
        "in the query": host.call("GET", f"{path}?code={host.function_key}").status,
        "master": host.call("GET", path, key=host.master_key).status,
    }

    assert answers == {
        "none": 401,
        "wrong": 401,
        "event grid's": 401,
        "function": 200,
        "in the query": 200,
        "master": 200,
    }


def test_an_anonymous_function_needs_no_key(host: HostProcess) -> None:
    assert host.call("GET", "/api/files/a").status == 200


def test_an_admin_function_needs_the_master_key(host: HostProcess) -> None:
    assert host.call("GET", "/api/locked", key=host.function_key).status == 401
    assert host.call("GET", "/api/locked", key=host.master_key).status == 200


def test_a_host_without_keys_admits_nobody(start_app: Start) -> None:
    kinds = ("FUNCTION", "MASTER", "EVENTGRID")
    host = start_app(HTTP_APP, environment={f"LOCAL_HOST_{kind}_KEY": "" for kind in kinds})

    statuses = [
        host.call("GET", "/api/hello").status,
        host.call("GET", "/api/hello?code=", key="").status,
        host.call("GET", "/admin/functions", key="").status,
        host.call("POST", webhook_path(host)).status,
    ]

    assert statuses == [401, 401, 401, 401]


def test_a_failing_function_answers_500_without_a_word(host: HostProcess) -> None:
    answer = host.call("POST", "/api/fail", key=host.function_key)

    assert (answer.status, answer.body) == (500, b"")
    wait_for_log(host, "ValueError('told to fail')")


def test_a_function_that_exits_is_reported_and_the_host_goes_on(host: HostProcess) -> None:
    answer = host.call("POST", "/api/fail", key=host.function_key, body=b"exit")

    assert answer.status == 500
    assert "SystemExit(3): this would kill the worker process" in host.log()
    assert host.call("GET", "/api/items/special", key=host.function_key).status == 200


def test_the_records_of_a_synchronous_function_name_it_and_its_invocation(host: HostProcess) -> None:
    host.call("GET", "/api/items/correlated", key=host.function_key)

    (record,) = [each for each in records(host) if each.get("saw") == {"name": "correlated"}]
    same = [each["message"] for each in records(host) if each["invocationId"] == record["invocationId"]]
    assert record["function"] == "named_item"
    assert any(message.startswith("succeeded") for message in same)


# The Event Grid webhook


def test_the_validation_of_an_event_grid_subscription_is_answered(host: HostProcess) -> None:
    answer = host.call(
        "POST",
        webhook_path(host),
        body=[{"id": "1", "data": {"validationCode": "a code"}}],
        headers={"aeg-event-type": "SubscriptionValidation"},
    )

    assert (answer.status, answer.json()) == (200, {"validationResponse": "a code"})


def test_the_validation_in_an_object_is_answered_too(host: HostProcess) -> None:
    answer = host.call(
        "POST",
        webhook_path(host),
        body={"id": "1", "data": json.dumps({"validationCode": "a code"})},
        headers={"aeg-event-type": "SubscriptionValidation"},
    )

    assert (answer.status, answer.json()) == (200, {"validationResponse": "a code"})


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        pytest.param("eventgrid.azure.us", "eventgrid.azure.us", id="a-cloud"),
        pytest.param("example.com", "eventgrid.azure.net", id="somebody"),
    ],
)
def test_the_handshake_of_a_cloud_events_subscription_is_answered(host: HostProcess, origin: str, allowed: str) -> None:
    answer = host.call("OPTIONS", webhook_path(host), headers={"WebHook-Request-Origin": origin})

    assert (answer.status, answer.headers["webhook-allowed-origin"]) == (200, allowed)


def test_a_batch_of_events_runs_the_function_for_each(host: HostProcess) -> None:
    answer = host.notify("on_event", [grid_event("batch-1"), grid_event("batch-2"), grid_event("batch-3")])

    assert answer.status == 202
    ids = {each["id"]: each["kind"] for each in seen(host, "on_event") if each["id"].startswith("batch-")}
    assert ids == {"batch-1": "grid", "batch-2": "grid", "batch-3": "grid"}


def test_one_failing_event_of_three_fails_the_whole_delivery(host: HostProcess) -> None:
    answer = host.notify("on_event", [grid_event("of-3-1"), grid_event("of-3-2", fail=True), grid_event("of-3-3")])

    assert answer.status == 500
    assert b"told to fail by of-3-2" in answer.body
    assert sorted(each["id"] for each in seen(host, "on_event") if each["id"].startswith("of-3")) == [
        "of-3-1",
        "of-3-2",
        "of-3-3",
    ]


def test_a_cloud_event_is_accepted(host: HostProcess) -> None:
    answer = host.notify("on_event", cloud_event("cloud-1"))

    assert answer.status == 202
    assert {"kind": "cloud", "id": "cloud-1", "subject": "/a/cluster"} in seen(host, "on_event")


def test_a_failing_cloud_event_is_answered_500(host: HostProcess) -> None:
    assert host.notify("on_event", cloud_event("cloud-2", fail=True)).status == 500


@pytest.mark.parametrize(
    ("query", "status", "text"),
    [
        pytest.param("functionName=on_event&code=wrong", 401, "", id="wrong-key"),
        pytest.param("functionName=on_event", 401, "", id="no-key"),
        pytest.param("functionName=on_event&code={function}", 401, "", id="function-key"),
        pytest.param("functionName=on_event&code={master}", 202, "", id="master-key"),
        pytest.param("functionName=nobody&code={grid}", 404, "cannot find function: 'nobody'", id="unknown"),
        pytest.param("functionName=locked&code={grid}", 404, "cannot find function: 'locked'", id="other-trigger"),
    ],
)
def test_the_webhook_admits_its_own_key_for_its_own_functions(
    host: HostProcess, query: str, status: int, text: str
) -> None:
    filled = query.format(function=host.function_key, master=host.master_key, grid=host.eventgrid_key)

    answer = host.call(
        "POST",
        f"/runtime/webhooks/eventgrid?{filled}",
        body=[grid_event("keys")],
        headers={"aeg-event-type": "Notification"},
    )

    assert (answer.status, answer.body.decode()) == (status, text)


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        pytest.param({}, b"[]", 400, id="no-type"),
        pytest.param({"aeg-event-type": "Gossip"}, b"[]", 400, id="unknown-type"),
        pytest.param({"aeg-event-type": "Notification"}, b"{", 400, id="not-json"),
        pytest.param({"aeg-event-type": "Notification"}, b'["an event"]', 400, id="not-an-event"),
        pytest.param({"aeg-event-type": "SubscriptionValidation"}, b"[{}]", 400, id="no-code"),
        pytest.param({"aeg-event-type": "Unsubscribe"}, b"[]", 202, id="unsubscribe"),
    ],
)
def test_what_else_comes_to_the_webhook(host: HostProcess, headers: dict[str, str], body: bytes, status: int) -> None:
    assert host.call("POST", webhook_path(host), headers=headers, body=body).status == status


# Queues


def test_a_message_reaches_the_function_decoded_and_is_deleted(start: Start, messages: QueueClient) -> None:
    host = start()

    sent = messages.send_message(encoded("grüße"))
    host.wait_for("on_message")

    (facts,) = seen(host, "on_message")
    assert (facts["body"], facts["utf8"], facts["count"], facts["id"]) == ("grüße", True, 1, sent.id)
    assert facts["inserted"] is not None
    wait_until(lambda: not messages.get_queue_properties().approximate_message_count, within=SOON, what="its deletion")


def test_bytes_that_are_no_text_reach_the_function(start: Start, messages: QueueClient) -> None:
    host = start()

    messages.send_message(encoded(b"\xff\x00"))
    host.wait_for("on_message")

    assert seen(host, "on_message")[0]["utf8"] is False


def test_with_encoding_none_the_text_is_the_body(start: Start, messages: QueueClient) -> None:
    host = start({"AzureFunctionsJobHost__extensions__queues__messageEncoding": "none"})

    messages.send_message("plain <text>")
    host.wait_for("on_message")

    assert seen(host, "on_message")[0]["body"] == "plain <text>"


def test_a_message_that_is_not_base64_goes_to_poison_at_once(
    start: Start, messages: QueueClient, poison: QueueClient
) -> None:
    host = start()

    messages.send_message("not base64!")

    assert wait_for_content(poison) == ["not base64!"]
    assert host.count("on_message", "started") == 0


def test_a_message_that_always_fails_goes_to_poison_after_the_last_attempt(
    start: Start, messages: QueueClient, poison: QueueClient
) -> None:
    host = start()

    messages.send_message(encoded("fail"))

    assert wait_for_content(poison) == [encoded("fail")]
    assert [facts["count"] for facts in seen(host, "on_message")] == [1, 2, 3]


def test_a_message_whose_function_exits_counts_as_failed(
    start: Start, messages: QueueClient, poison: QueueClient
) -> None:
    host = start()

    messages.send_message(encoded("exit"))

    assert wait_for_content(poison) == [encoded("exit")]
    assert host.count("on_message", "failed") == 3


def test_a_message_received_too_often_goes_to_poison_without_a_run(
    start: Start, messages: QueueClient, poison: QueueClient
) -> None:
    messages.send_message(encoded("hello"))
    for _ in range(3):
        received = messages.receive_message()
        assert received is not None
        messages.update_message(received, visibility_timeout=0)

    host = start()

    assert wait_for_content(poison) == [encoded("hello")]
    assert host.count("on_message", "started") == 0


def test_a_failing_message_of_a_poison_queue_stays_there(start: Start, account: Account) -> None:
    host = start()

    with closing(queue_of(account, "sour-poison")) as sour:
        sour.send_message(encoded("sour"))
        wait_for_log(host, "of sour-poison stays invisible")

        assert sour.get_queue_properties().approximate_message_count == 1
    with closing(QueueServiceClient.from_connection_string(account.connection_string())) as queues:
        assert "sour-poison-poison" not in [queue.name for queue in queues.list_queues()]


def test_a_message_taken_by_a_host_that_was_killed_comes_back(start: Start, messages: QueueClient) -> None:
    short = {"LOCAL_HOST_INVISIBILITY_SECONDS": "1"}
    messages.send_message(encoded("hold"))
    first = start(environment=short)
    first.wait_for("on_message", "started")

    first.kill()
    second = start(environment=short)
    second.wait_for("on_message")

    assert seen(second, "on_message")[0]["count"] >= 2


def test_a_message_stays_invisible_while_its_function_runs(start: Start, messages: QueueClient) -> None:
    host = start(environment={"LOCAL_HOST_INVISIBILITY_SECONDS": "1"})

    messages.send_message(encoded("hold"))
    wait_for_log(host, "is kept invisible", times=3)
    host.call("POST", "/api/release", key=host.function_key)
    host.wait_for("on_message")

    assert host.count("on_message", "started") == 1


def test_each_of_many_messages_runs_once_with_its_own_invocation_id(start: Start, messages: QueueClient) -> None:
    host = start()

    for number in range(20):
        messages.send_message(encoded(f"message {number}"))
    host.wait_for("on_message", times=20)

    assert {facts["body"] for facts in seen(host, "on_message")} == {f"message {number}" for number in range(20)}
    assert all(
        record["invocationId"] == record["saw"]["invocation"]
        for record in records(host)
        if record["function"] == "on_message" and "saw" in record
    )


def test_no_more_messages_run_at_a_time_than_the_settings_allow(start: Start, messages: QueueClient) -> None:
    for _ in range(12):
        messages.send_message(encoded("hold"))

    host = start()
    host.wait_for("on_message", "started", times=4)
    host.call("POST", "/api/release", key=host.function_key)
    host.wait_for("on_message", times=12)

    assert 4 <= most_at_a_time(host) <= 6


def most_at_a_time(host: HostProcess) -> int:
    running, most = set[str](), 0
    for record in records(host):
        if record["function"] != "on_message":
            continue
        if "saw" in record:
            running.add(record["invocationId"])
        elif record["message"].startswith("succeeded"):
            running.discard(record["invocationId"])
        most = max(most, len(running))
    return most


def test_a_list_in_an_output_is_sent_message_by_message(start: Start) -> None:
    host = start()

    host.call("POST", "/api/send", key=host.function_key, body=b"one\ntwo\nthree")
    host.wait_for("on_copy", times=3)

    assert sorted(facts["body"] for facts in seen(host, "on_copy")) == ["one", "three", "two"]


def test_a_function_that_fails_sends_no_output(start: Start, account: Account) -> None:
    host = start()

    answer = host.call("POST", "/api/send", key=host.function_key, body=b"one\nfail")

    with closing(queue_of(account, "copies")) as copies:
        assert content_of(copies) == []
    assert answer.status == 500
    assert host.count("on_copy", "started") == 0


# Timers and the clock


def test_a_timer_is_tried_again_as_its_policy_says(start: Start) -> None:
    host = start()
    host.wait_for("flaky")

    attempts = [(facts["attempt"], facts["most"]) for facts in seen(host, "flaky")]
    assert attempts == [(0, 2), (1, 2), (2, 2)]
    assert seen(host, "flaky")[0] == {"attempt": 0, "most": 2, "status": {}, "past_due": False}


def test_a_timer_fires_by_the_wall_clock(start: Start) -> None:
    host = start({"TICK_SCHEDULE": "* * * * * *"})
    host.wait_for("tick", times=2)

    first, second = seen(host, "tick")[:2]
    assert not first["past_due"]
    assert first["status"] == {}
    assert timedelta(0) < moment(second["now"]) - moment(first["now"]) < timedelta(seconds=60)


def test_a_jump_of_the_clock_fires_a_timer_once_and_past_due(start: Start) -> None:
    half_an_hour_away = (datetime.now(UTC).minute + 30) % 60
    host = start({"TICK_SCHEDULE": f"0 {half_an_hour_away} * * * *"})

    host.advance(timedelta(hours=5))
    host.wait_for("tick")
    host.advance(timedelta(hours=1))
    host.wait_for("tick", times=2)

    first, second = seen(host, "tick")
    assert first["past_due"]
    assert moment(second["status"]["Last"]) == pytest.approx(moment(first["now"]), abs=timedelta(seconds=60))
    assert moment(second["now"]) - moment(first["now"]) >= timedelta(hours=1)


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def test_moving_the_clock_moves_no_other_clock(host: HostProcess) -> None:
    before = host.call("GET", "/api/clocks", key=host.function_key).json()

    host.advance(timedelta(days=2))

    after = host.call("GET", "/api/clocks", key=host.function_key).json()
    day = 86400
    assert 2 * day <= after["wall"] - before["wall"] < 2 * day + 60
    assert 0 < after["monotonic"] - before["monotonic"] < 60
    assert 0 < after["loop"] - before["loop"] < 60


def test_a_host_can_start_with_its_clock_moved(start_app: Start) -> None:
    code = HTTP_APP.replace("import azure", "import datetime\nimport azure").replace(
        'return "hello"', "return datetime.datetime.now(datetime.UTC).isoformat()"
    )
    host = start_app(code, environment={"LOCAL_HOST_CLOCK_OFFSET_SECONDS": "86400"})

    told = host.call("GET", "/api/hello", key=host.function_key).body.decode()

    assert moment(told) - datetime.now(UTC) > timedelta(hours=23)


@pytest.mark.parametrize("body", [{}, {"advance": -1}, {"advance": "1"}, []])
def test_the_clock_is_moved_only_on(host: HostProcess, body: Any) -> None:
    assert host.call("POST", "/admin/host/clock", key=host.master_key, body=body).status == 400


# The operator's calls


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/admin/functions"),
        ("POST", "/admin/functions/tick"),
        ("GET", "/admin/host/status"),
        ("POST", "/admin/host/clock"),
    ],
)
def test_the_operators_calls_need_the_master_key(host: HostProcess, method: str, path: str) -> None:
    assert host.call(method, path, key=host.function_key).status == 401


def test_the_functions_are_listed(host: HostProcess) -> None:
    listed = host.call("GET", "/admin/functions", key=host.master_key).json()

    kinds = {each["name"]: each["trigger"]["type"] for each in listed}
    assert kinds["on_event"] == "eventGridTrigger"
    assert kinds["on_message"] == "queueTrigger"
    assert kinds["tick"] == "timerTrigger"
    assert kinds["locked"] == "httpTrigger"


def test_a_timer_runs_when_an_operator_asks(start: Start) -> None:
    host = start()

    host.invoke("tick")
    host.wait_for("tick")

    assert seen(host, "tick")[0]["past_due"] is False


def test_a_queue_function_takes_an_operators_input(host: HostProcess) -> None:
    host.invoke("on_message", "by hand")
    host.wait_for("on_message")

    assert seen(host, "on_message")[0]["body"] == "by hand"


def test_an_event_grid_function_takes_an_operators_input(host: HostProcess) -> None:
    host.invoke("on_event", grid_event("by-hand"))

    wait_until(lambda: "by-hand" in str(seen(host, "on_event")), within=SOON, what="the event")


@pytest.mark.parametrize(
    ("function", "body", "status"),
    [
        pytest.param("nobody", b"{}", 404, id="unknown"),
        pytest.param("locked", b"{}", 400, id="http"),
        pytest.param("tick", b"{", 400, id="not-json"),
    ],
)
def test_what_an_operator_can_not_invoke(host: HostProcess, function: str, body: bytes, status: int) -> None:
    assert host.call("POST", f"/admin/functions/{function}", key=host.master_key, body=body).status == status


# Start and end


def test_a_host_asked_to_stop_finishes_what_runs(start: Start, messages: QueueClient, tmp_path: Path) -> None:
    host, file = start(), tmp_path / "go-on"
    messages.send_message(encoded(f"until {file}"))
    host.wait_for("on_message", "started")

    os.kill(host.child.pid, signal.SIGTERM)
    wait_for_log(host, "no more work is taken")
    file.touch()

    assert host.child.wait(within=SOON) == 0
    assert [record["message"][:9] for record in records(host) if record["function"] == "on_message"][-1] == "succeeded"
    assert messages.get_queue_properties().approximate_message_count == 0


def test_a_host_that_stops_lets_the_app_close_its_clients(start_app: Start, tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "__init__.py").touch()
    (tmp_path / "shared" / "bootstrap.py").write_text(CLOSING_BOOTSTRAP, encoding="utf-8")
    host = start_app(CLOSING_APP)

    code = host.stop()

    assert (code, "the clients are closed" in host.log()) == (0, True)


def test_a_function_that_runs_too_long_ends_the_process(start: Start) -> None:
    host = start({"AzureFunctionsJobHost__functionTimeout": "00:00:00.2"})

    with pytest.raises(http.client.RemoteDisconnected):
        host.call("POST", "/api/fail", key=host.function_key, body=b"hang")

    assert host.child.wait(within=SOON) == 70
    assert "fail ran longer than functionTimeout" in host.log()


def test_the_environment_wins_over_the_settings_file(start_app: Start) -> None:
    host = start_app(TIMER_APP, environment={"TICK_SCHEDULE": NEVER}, TICK_SCHEDULE="nonsense")

    assert host.child.exit_code is None


def test_a_function_that_the_worker_refuses_stops_the_app_with_the_workers_words(start_app: Start) -> None:
    code = HTTP_APP.replace("-> str", "-> dict")

    with pytest.raises(ProcessError, match='return annotation "dict" does not match binding type "http"') as caught:
        start_app(code)

    assert "exit code 1" in str(caught.value)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        pytest.param("import azure.functions as func\napp = func.FunctionApp()", "there are no functions", id="none"),
        pytest.param("import a_missing_module", "a_missing_module", id="import"),
        pytest.param(TIMER_APP, "tick names %TICK_SCHEDULE%, but there is no app setting", id="setting"),
        pytest.param(QUEUE_APP, "neither Elsewhere__queueServiceUri nor Elsewhere is set", id="connection"),
        pytest.param(HTTP_APP.replace('"hello")\nasync', '"admin/x")\nasync'), "the host's own", id="route"),
        pytest.param(HTTP_APP.replace('"hello")\nasync', '"{a:odd}")\nasync'), "'odd' is not served", id="constraint"),
    ],
)
def test_an_app_that_can_not_run_is_refused(start_app: Start, code: str, words: str) -> None:
    with pytest.raises(ProcessError, match=f"(?s)exit code 1.*{words}"):
        start_app(code)


def test_a_schedule_in_a_setting_is_checked_at_the_start(start_app: Start) -> None:
    with pytest.raises(ProcessError, match="schedule '00:05:00' is a TimeSpan"):
        start_app(TIMER_APP, TICK_SCHEDULE="00:05:00")


def test_a_directory_without_host_json_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ProcessError, match=r"host\.json can't be read"):
        HostProcess.start(tmp_path, settings={}, environment={})


# NCRONTAB


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        pytest.param("0 */5 * * * *", "2026-03-02T09:05:00", id="seconds-first"),
        pytest.param("*/5 * * * *", "2026-03-02T09:05:00", id="five-fields"),
        pytest.param("0 0 0 1 * MON", "2026-06-01T00:00:00", id="day-and-weekday"),
        pytest.param("0 0 12 * * 0", "2026-03-08T12:00:00", id="sunday-is-0"),
        pytest.param("0 0 9-17/2 * Jan,mar MON-FRI", "2026-03-02T11:00:00", id="names-and-steps"),
        pytest.param("40/10 * * * * *", "2026-03-02T09:00:40", id="step-from"),
    ],
)
def test_an_ncrontab_schedule_occurs(expression: str, expected: str) -> None:
    occurrence = Schedule.parse(expression).after(NOW)

    assert occurrence == datetime.fromisoformat(expected).replace(tzinfo=UTC)


def test_an_impossible_date_never_occurs() -> None:
    assert Schedule.parse(NEVER).after(NOW) is None


@pytest.mark.parametrize(
    "expression",
    [
        pytest.param("00:05:00", id="time-span"),
        pytest.param("0 5-5 * * * *", id="range-of-one"),
        pytest.param("0 0 0 * * MON-MON", id="range-of-one-name"),
        pytest.param("0 0 22-2 * * *", id="range-downwards"),
        pytest.param("0 0 0 * * 7", id="weekday-7"),
        pytest.param("0 0 0 L * *", id="last"),
        pytest.param("0 0 0 ? * *", id="question-mark"),
        pytest.param("0 0 0 * * MON#1", id="nth"),
        pytest.param("*/0 * * * * *", id="step-0"),
        pytest.param("60 * * * * *", id="out-of-range"),
        pytest.param("0 0 0 * JANUARY *", id="long-name"),
        pytest.param("@daily", id="alias"),
        pytest.param("0 0 0 * * * *", id="seven-fields"),
        pytest.param("* * *", id="three-fields"),
        pytest.param("R * * * * *", id="random"),
        pytest.param("", id="empty"),
        pytest.param("nonsense", id="nonsense"),
    ],
)
def test_what_is_no_ncrontab_is_refused(expression: str) -> None:
    with pytest.raises(HostError, match="schedule"):
        Schedule.parse(expression)


# Values


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("00:00:30", timedelta(seconds=30)),
        ("00:00:00.500", timedelta(milliseconds=500)),
        ("1.02:03:04", timedelta(days=1, hours=2, minutes=3, seconds=4)),
    ],
)
def test_a_time_span_is_read(text: str, expected: timedelta) -> None:
    assert time_span(text, "a setting") == expected


def test_a_growing_delay_doubles_up_to_the_longest() -> None:
    retry = Retry(most=-1, shortest=timedelta(seconds=10), longest=timedelta(seconds=35))

    assert [retry.delay(attempt).total_seconds() for attempt in (1, 2, 3, 99)] == [10, 20, 35, 35]


def test_a_host_whose_clock_nobody_moves_does_not_import_what_moves_the_clock(start_app: Start) -> None:
    code = HTTP_APP.replace("import azure", "import sys\nimport azure").replace(
        'return "hello"', 'return str("time_machine" in sys.modules)'
    )
    host = start_app(code)

    assert host.call("GET", "/api/hello", key=host.function_key).body == b"False"
