"""Watched in production: each line that an alert or the workbook looks for is one that the app says, fields and all."""

from __future__ import annotations

import ast
import asyncio
import json
import logging
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from local.simulator import SUBSCRIPTION
from local.simulator.activity import PERSONAL_DATA
from shared.clusters import ClusterId
from shared.errors import Throttled
from shared.events import ClusterRequest, KeyRequest, RewriteOrder, RotateOrder, Scope, ShardRequest
from shared.keys import KeyId, VaultId
from shared.queues import POISON, QUEUES
from shared.records import Record, Settlement, overdue_by
from shared.telemetry import ABOUT, FIELDS, LONGEST_TEXT, Line, about, about_request, logger, quiet_sdks, saying
from tests.bicep import Expr, read
from tests.builders import CLUSTER_ID
from tests.e2e.app import app_on
from tests.e2e.events import cluster_event
from tests.product import ENFORCE, LOOK_AGAIN, NOW, Product, product

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from local.certificates import Authority
    from local.simulator import Azure, Simulator
    from local.storage import Account

type Json = dict[str, Any]

ROOT = Path(__file__).parent.parent
INFRA = ROOT / "infra"
ALERTS: list[Json] = json.loads((INFRA / "alerts.json").read_text(encoding="utf-8"))
WORKBOOK: Json = json.loads((INFRA / "workbook.json").read_text(encoding="utf-8"))
OPERATIONS = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
PRODUCT = [ROOT / "function_app.py", *sorted((ROOT / "shared").rglob("*.py"))]
HOUR = timedelta(hours=1)

BEGINS = "traces | extend said = parse_json(extract('([{]\".*[}])', 1, message)) | where tostring(said.line) "
"""How every query finds the lines and reads their fields."""


def fields_of(message: str) -> Json:
    """What the queries read from a message: `.` of their expressions takes no line break either."""
    found = re.search(r'([{]".*[}])', message)
    return json.loads(found[1]) if found else {}


# the form of a line


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> logging.Logger:
    caplog.set_level(logging.INFO, logger="tests.watching")
    return logger("tests.watching")


def test_a_line_ends_in_its_fields(log: logging.Logger, caplog: pytest.LogCaptureFixture) -> None:
    with about(run="run-1", cluster=CLUSTER_ID, key=None):
        log.info("%s%% of %s", 5, "it", extra=saying(Line.POISONED, queue="keys"))

    (message,) = caplog.messages
    assert message == '5% of it {"line":"poisoned","run":"run-1","cluster":"' + str(CLUSTER_ID) + '","queue":"keys"}'
    assert fields_of(message)["line"] == "poisoned"


def test_a_line_about_nothing_is_its_text(log: logging.Logger, caplog: pytest.LogCaptureFixture) -> None:
    log.warning("nothing more than %s", "this")

    assert caplog.messages == ["nothing more than this"]


FORGED = '{"line":"enforcement-resumed","by":"mallory"}'


@pytest.mark.parametrize("hostile", [FORGED, f"\n{FORGED}", f"\r\n\x0b\u2028{FORGED}", f"x {FORGED} y {FORGED}"])
def test_nothing_from_outside_passes_for_a_field(
    log: logging.Logger, caplog: pytest.LogCaptureFixture, hostile: str
) -> None:
    with about(event=hostile):
        log.warning("%s is malformed: %s", hostile, hostile, extra=saying(Line.MALFORMED))

    (message,) = caplog.messages
    assert fields_of(message) == {"line": "malformed", "event": hostile}
    assert len(message.splitlines()) == 1


def test_a_text_without_end_loses_no_field(log: logging.Logger, caplog: pytest.LogCaptureFixture) -> None:
    with about(event="e" * 5000):
        log.info("x" * 100_000, extra=saying(Line.MALFORMED))

    assert fields_of(caplog.messages[0])["line"] == "malformed"
    assert len(caplog.messages[0]) < LONGEST_TEXT + 2000


def test_a_traceback_stands_behind_the_fields(log: logging.Logger, caplog: pytest.LogCaptureFixture) -> None:
    try:
        json.loads(f"?{FORGED}")
    except ValueError:
        log.exception("it failed", extra=saying(Line.POISONED, queue="keys"))

    formatted = logging.Formatter().format(caplog.records[0])
    assert "Traceback" in formatted
    assert fields_of(formatted) == {"line": "poisoned", "queue": "keys"}


def test_an_event_that_asked_is_named(log: logging.Logger, caplog: pytest.LogCaptureFixture) -> None:
    with about(askedBy="event:e-1"):
        log.info("a look")

    assert fields_of(caplog.messages[0]) == {"askedBy": "event:e-1", "event": "e-1"}


async def test_tasks_at_the_same_time_are_about_their_own(
    log: logging.Logger, caplog: pytest.LogCaptureFixture
) -> None:
    async def look(number: int) -> None:
        with about(cluster=f"aks-{number}"):
            await asyncio.sleep(0)
            log.info("%s", number)

    with about(run="run-1"):
        await asyncio.gather(*map(look, range(5)))
    log.info("after")

    said = {message.split(" ")[0]: fields_of(message) for message in caplog.messages}
    assert said == {str(n): {"run": "run-1", "cluster": f"aks-{n}"} for n in range(5)} | {"after": {}}


async def test_what_a_look_raises_and_returns_goes_through(
    log: logging.Logger, caplog: pytest.LogCaptureFixture
) -> None:
    class Room:
        @about_request
        async def look(self, request: ClusterRequest, *, fail: bool) -> str:
            log.info("looking at it")
            if fail:
                raise Throttled("Throttled", "later", retry_after=HOUR)
            return request.asked_by

    request = ClusterRequest(CLUSTER_ID, "operator", run="run-1")

    assert await Room().look(request, fail=False) == "operator"
    with pytest.raises(Throttled):
        await Room().look(request, fail=True)
    log.info("after")

    expected = {"run": "run-1", "askedBy": "operator", "cluster": str(CLUSTER_ID)}
    assert [fields_of(message) for message in caplog.messages] == [expected, expected, {}]


def test_the_sdks_say_nothing_of_what_went_well() -> None:
    before = logging.getLogger("azure").level
    try:
        quiet_sdks()

        assert not logging.getLogger("azure.core.pipeline.policies.http_logging_policy").isEnabledFor(logging.INFO)
        assert logging.getLogger("azure.identity.aio").isEnabledFor(logging.WARNING)
    finally:
        logging.getLogger("azure").setLevel(before)


def test_a_run_s_looks_carry_its_id_through_the_queue() -> None:
    request = ClusterRequest(CLUSTER_ID, "timer", run="sweep-1")

    decoded = ClusterRequest.decode(request.encode(), "m-1")

    assert decoded.run == "sweep-1"
    assert decoded.again("token").run == "sweep-1"
    assert ClusterRequest.decode(ClusterRequest(CLUSTER_ID, "timer").encode(), "m-1").run is None


# what the queries read is what the code says


def said_in(file: Path) -> Iterator[tuple[Line, frozenset[str]]]:
    """Each line that a file says, with the fields that it gives it."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "saying":
            kind = node.args[0]
            assert isinstance(kind, ast.Attribute), f"{file.name}:{node.lineno} names no line"
            yield Line[kind.attr], frozenset(str(keyword.arg) for keyword in node.keywords)


def test_every_line_is_said_with_its_fields_and_no_others() -> None:
    said = [one for file in PRODUCT for one in said_in(file)]

    assert {kind for kind, _ in said} == set(Line) == set(FIELDS)
    assert [(kind, fields) for kind, fields in said if fields - set(ABOUT) != FIELDS[kind]] == []


def test_every_logger_of_the_product_gives_its_lines_their_fields() -> None:
    files = [file for file in PRODUCT if file.name != "telemetry.py"]

    assert [file.name for file in files if "logging.get" in file.read_text(encoding="utf-8")] == []
    assert sum("log = logger(__name__)" in file.read_text(encoding="utf-8") for file in files) >= 12


def workbook_queries() -> dict[str, str]:
    return {item["name"]: item["content"]["query"] for item in WORKBOOK["items"] if item["type"] == 3}


QUERIES = {f"alert {rule['name']}": rule["query"] for rule in ALERTS} | {
    f"workbook {name}": query for name, query in workbook_queries().items()
}


def lines_of(query: str) -> set[str]:
    """The lines that a query looks for: those that it compares with, in every stage."""
    compared = re.findall(r"tostring\(said\.line\) (?:==|in) (\([^)]*\)|'[^']*')", query)
    return {name for text in compared for name in re.findall(r"'([^']*)'", text)}


@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES.keys())
def test_a_query_reads_lines_and_fields_that_the_app_says(query: str) -> None:
    lines = {Line(name) for name in lines_of(query)}
    fields = set(re.findall(r"\bsaid\.(\w+)", query)) - {"line"}

    assert query.startswith(BEGINS)
    assert lines
    assert fields <= set(ABOUT) | {field for line in lines for field in FIELDS[line]}
    assert "said[" not in query, "a field that this test does not see"


@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES.keys())
def test_a_query_is_balanced_and_on_one_line(query: str) -> None:
    bare = re.sub(r"'[^']*'", "", query)

    assert "\n" not in query
    assert query.count("'") % 2 == 0
    assert bare.count("(") == bare.count(")")


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: str(rule["name"]))
def test_an_alert_is_split_by_columns_that_its_query_gives(rule: Json) -> None:
    assert [column for column in rule["by"] if f"{column} = " not in rule["query"]] == []
    assert rule["severity"] in range(4)
    assert rule["window"] in {"PT1H", "sweep"}


def test_outcomes_and_queues_in_queries_are_the_code_s() -> None:
    outcomes = [
        set(re.findall(r"'(\w+)'", one))
        for one in re.findall(r"said\.outcome\) in (\(.*?\))", "\n".join(QUERIES.values()))
    ]

    assert outcomes == [{Settlement.FAILED, Settlement.REFUSED}] * 2
    assert all(name.endswith("-poison") for name in POISON)
    assert not any(name.endswith("-poison") for name in QUEUES)


def test_the_alerts_that_are_asked_for_are_there() -> None:
    names = [rule["name"] for rule in ALERTS]

    assert len(names) == len(set(names))
    assert {"update-failed", "message-poisoned", "key-at-risk", "no-sweep"} <= set(names)
    assert {"enforcement-paused", "policy-broken"} <= set(names)


def test_the_alerts_are_deployed_as_they_stand() -> None:
    template = read(INFRA / "app" / "alerts.bicep")
    (alerts,) = template.of_type("Microsoft.Insights/scheduledQueryRules")
    properties = alerts.body["properties"]
    (criterion,) = properties["criteria"]["allOf"]

    assert template.vars["rules"] == Expr("loadJsonContent('../alerts.json')")
    assert alerts.over == Expr("rules")
    assert criterion["query"] == Expr("replace(rule.query, '{sweepSeconds}', string(sweepSeconds[sweepWindow]))")
    assert (criterion["timeAggregation"], criterion["operator"], criterion["threshold"]) == ("Count", "GreaterThan", 0)
    assert properties["autoMitigate"] is True
    assert properties["actions"]["actionGroups"] == Expr("actionGroupIds")
    used = set(re.findall(r"\brule\.(\w+)", template.text))
    assert used == {key for rule in ALERTS for key in rule}
    assert all(set(rule) == used for rule in ALERTS)


def test_a_look_is_overdue_after_the_time_that_rules_on_sweeps_look_back() -> None:
    allowed = read(INFRA / "main.bicep").allowed["sweepWindow"]
    seconds = read(INFRA / "app" / "alerts.bicep").vars["sweepSeconds"]
    asked = {rule["name"] for rule in ALERTS if "{" in re.sub(r"'[^']*'", "", rule["query"])}

    assert seconds == {window: _seconds(window) for window in allowed}
    assert asked == {"looks-overdue"}


def _seconds(window: str) -> int:
    """A duration of ISO 8601 that has hours or days alone."""
    number, unit = int(window[:-1].lstrip("PT")), window[-1]
    return number * {"H": 3600, "D": 86400}[unit]


def test_the_workbook_shows_what_it_is_for() -> None:
    (book,) = read(INFRA / "app" / "alerts.bicep").of_type("Microsoft.Insights/workbooks")
    (metrics,) = [item["content"]["metrics"] for item in WORKBOOK["items"] if item["type"] == 10]
    names = [item["name"] for item in WORKBOOK["items"]]

    assert WORKBOOK["fallbackResourceIds"] == ["{insights}"]
    assert "'{insights}', insights.id" in book.body["properties"]["serializedData"].text
    assert [one["metric"].split("--")[1] for one in metrics] == ["DeadLetteredCount", "DroppedEventCount"]
    assert {"fleet-by-key-management", "fleet-by-reason", "rotations", "failures", "overdue"} <= set(names)
    assert len(names) == len(set(names))


def test_sampling_drops_no_line() -> None:
    host = json.loads((ROOT / "host.json").read_text(encoding="utf-8"))

    assert "Trace" in host["logging"]["applicationInsights"]["samplingSettings"]["excludedTypes"].split(";")
    assert host["logging"]["logLevel"]["default"] == "Information"


def test_there_is_a_runbook_for_every_alert() -> None:
    headings = set(re.findall(r"^### `([\w-]+)`$", OPERATIONS.split("\n## Alerts\n")[1], re.MULTILINE))

    assert {rule["name"] for rule in ALERTS} | {"dead-letters"} <= headings
    titles = {rule["name"]: rule["title"] for rule in ALERTS}
    rows = dict(re.findall(r"^\| \[`([\w-]+)`\]\(#[\w-]+\) \| [^|]* \| ([^|]*) \|", OPERATIONS, re.MULTILINE))
    assert {name: rows.get(name, "").strip() for name in titles} == titles


def test_the_page_names_every_line_with_its_fields() -> None:
    table = OPERATIONS.split("\n## What it logs\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `([\w-]+)` \| ([^|]*)\| ([^|]*)\|", table, re.MULTILINE)

    assert {name: frozenset(re.findall(r"`(\w+)`", fields)) for name, _, fields in rows} == {
        str(kind): fields for kind, fields in FIELDS.items()
    }


def test_every_command_of_the_page_is_one_of_the_makefile() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))

    assert set(re.findall(r"^make (\w+)|`make (\w+)", OPERATIONS, re.MULTILINE)) <= {
        pair for name in targets for pair in ((name, ""), ("", name))
    }


# what the product says


@pytest.fixture
async def app(azure: Azure, account: Account) -> AsyncIterator[Product]:  # noqa: ARG001  the clients reach it
    """The product, enforcing platform-managed keys."""
    async with product(account) as built:
        yield built


@pytest.fixture(autouse=True)
def information(caplog: pytest.LogCaptureFixture) -> None:
    """All that the app says from INFO up, as in production."""
    caplog.set_level(logging.INFO, logger="shared")


def said(caplog: pytest.LogCaptureFixture, kind: Line) -> list[Json]:
    """The lines of a kind, each with the fields that it must have and none besides but what it is about."""
    found = [fields for message in caplog.messages if (fields := fields_of(message)).get("line") == kind]
    for fields in found:
        assert set(fields) - set(ABOUT) == FIELDS[kind] | {"line"}
    return found


async def run(app: Product, name: str, *, hours: int = 0, scope: Scope | None = None) -> None:
    """Start a run and sweep its one subscription."""
    moment, narrowed = NOW + hours * HOUR, scope or Scope()
    await app.sweeper.start(name, asked_by="timer", now=moment, scope=narrowed)
    await app.sweeper.sweep(ShardRequest(name, SUBSCRIPTION, "timer", scope=narrowed), now=moment)


async def test_a_sweep_sums_up_each_subscription_and_its_end(
    app: Product, azure: Azure, caplog: pytest.LogCaptureFixture
) -> None:
    azure.aks.add("aks-new")
    azure.aks.add("aks-ok", encryption="platform-managed")

    await run(app, "sweep-1")

    (started,), (swept,), (ended,) = (
        said(caplog, kind) for kind in (Line.RUN_STARTED, Line.SHARD_SWEPT, Line.RUN_ENDED)
    )
    decisions = {"write:not-as-asked": 1, "nothing:as-asked": 1}
    assert (started["everything"], started["subscriptions"]) == (True, 1)
    assert (swept["run"], swept["subscription"], swept["askedBy"]) == ("sweep-1", SUBSCRIPTION, "timer")
    assert (swept["clusters"], swept["enqueued"], swept["decisions"]) == (2, 1, decisions)
    assert swept["keyManagement"] == {"none": 1, "platform-managed": 1}
    assert (swept["overdue"], swept["oldestOverdueSeconds"], swept["failure"]) == (0, 0, None)
    assert (ended["run"], ended["everything"], ended["clusters"]) == ("sweep-1", True, 2)
    assert (ended["enqueued"], ended["decisions"], ended["failures"]) == (1, decisions, 0)
    assert (ended["paused"], ended["policyFaults"]) == (False, 0)
    assert ended["queues"] == {"clusters": 1, "keys": 0, "shards": 1} | dict.fromkeys(POISON, 0)


async def test_what_stays_in_a_poison_queue_is_counted(app: Product, caplog: pytest.LogCaptureFixture) -> None:
    await app.storage.get_queue_client("keys-poison").send_message("stuck")

    await run(app, "sweep-1")

    (ended,) = said(caplog, Line.RUN_ENDED)
    assert ended["queues"]["keys-poison"] == 1


async def test_a_run_over_a_part_of_the_fleet_says_so(
    app: Product, azure: Azure, caplog: pytest.LogCaptureFixture
) -> None:
    azure.aks.add("aks-1", encryption="platform-managed")

    await run(app, "run-1", scope=Scope(groups=("rg-apps",)))

    kinds = (Line.RUN_STARTED, Line.SHARD_SWEPT, Line.RUN_ENDED)
    assert [one["everything"] for kind in kinds for one in said(caplog, kind)] == [False] * 3


async def test_the_oldest_overdue_look_is_told_while_it_is_overdue(
    app: Product, azure: Azure, caplog: pytest.LogCaptureFixture
) -> None:
    cluster = azure.aks.add("aks-busy", state="Updating")
    await app.look(cluster)

    await run(app, "sweep-1")
    await run(app, "sweep-2", hours=1)

    waited = int((HOUR - LOOK_AGAIN).total_seconds())
    assert [one["overdue"] for one in said(caplog, Line.SHARD_SWEPT)] == [0, 1]
    assert [one["oldestOverdueSeconds"] for one in said(caplog, Line.SHARD_SWEPT)] == [0, waited]
    assert [one["oldestOverdueSeconds"] for one in said(caplog, Line.RUN_ENDED)] == [0, waited]


def test_what_waits_for_nothing_is_not_overdue() -> None:
    assert overdue_by(Record(CLUSTER_ID), NOW) is None


async def test_a_subscription_that_can_not_be_read_is_told(
    app: Product, azure: Azure, caplog: pytest.LogCaptureFixture
) -> None:
    azure.aks.add("aks-1")
    azure.faults.fail_next("GET", "managedClusters$", 403, code="AuthorizationFailed", message="no")

    await run(app, "sweep-1")

    (swept,), (ended,) = said(caplog, Line.SHARD_SWEPT), said(caplog, Line.RUN_ENDED)
    assert "AuthorizationFailed" in swept["failure"]
    assert ended["failures"] == 1


async def test_an_end_that_can_not_be_summed_up_fails_no_sweep(
    app: Product, azure: Azure, caplog: pytest.LogCaptureFixture
) -> None:
    azure.aks.add("aks-1", encryption="platform-managed")
    await app.storage.get_queue_client("keys-poison").delete_queue()

    await run(app, "sweep-1")

    found = await app.ledger.run("sweep-1")
    assert found is not None
    assert found[0].is_done(found[1])
    assert said(caplog, Line.RUN_ENDED) == []
    assert any("can't be summed up" in message for message in caplog.messages)


async def test_an_update_is_told_from_the_decision_to_its_end(
    app: Product, azure: Azure, caplog: pytest.LogCaptureFixture
) -> None:
    cluster = azure.aks.add("aks-new")

    await app.look(cluster, asked_by="event:e-1")
    azure.clock.advance(10 * LOOK_AGAIN)
    await app.look_again(cluster, now=NOW + 10 * LOOK_AGAIN)

    (taken,), (ended,) = said(caplog, Line.WRITE_TAKEN), said(caplog, Line.WRITE_ENDED)
    assert (taken["what"], taken["cluster"], taken["event"]) == ("cluster", str(ClusterId.parse(cluster.id)), "e-1")
    assert (ended["what"], ended["outcome"], ended["code"]) == ("cluster", "done", None)
    last = said(caplog, Line.CLUSTER_DECIDED)[-1]
    assert (last["action"], last["reason"], last["mode"]) == ("nothing", "as-asked", "enforce")
    assert last["keyManagement"] == "platform-managed"


async def test_a_second_look_at_the_same_state_tells_no_decision(
    app: Product, azure: Azure, caplog: pytest.LogCaptureFixture
) -> None:
    cluster = azure.aks.add("aks-ok", encryption="platform-managed")
    await app.look(cluster)
    caplog.clear()

    await app.look(cluster)

    assert [said(caplog, kind) for kind in Line] == [[]] * len(Line)
    assert azure.journal.writes() == ()


async def test_an_update_that_fails_is_told(app: Product, azure: Azure, caplog: pytest.LogCaptureFixture) -> None:
    cluster = azure.aks.add("aks-1")
    azure.aks.fail_operation_next("InternalOperationError", "Internal server error")

    await app.look(cluster)
    azure.clock.advance(10 * LOOK_AGAIN)
    await app.look_again(cluster, now=NOW + 10 * LOOK_AGAIN)

    (ended,) = said(caplog, Line.WRITE_ENDED)
    assert (ended["outcome"], ended["code"]) == ("failed", "InternalOperationError")
    assert ended["cluster"] == str(ClusterId.parse(cluster.id))


async def test_an_update_that_is_refused_is_told(app: Product, azure: Azure, caplog: pytest.LogCaptureFixture) -> None:
    azure.faults.fail_next("PUT", "managedClusters/aks-1", 409, code="ScopeLocked", message="locked")

    await app.look(azure.aks.add("aks-1"))

    (ended,) = said(caplog, Line.WRITE_ENDED)
    assert (ended["outcome"], ended["code"]) == ("refused", "ScopeLocked")


KEY = KeyId("kv-kms-weu", "etcd")


async def test_a_rotation_is_told_with_its_key_and_event(
    app: Product, azure: Azure, caplog: pytest.LogCaptureFixture
) -> None:
    vault = azure.keyvault.add_vault("kv-kms-weu")
    key = azure.keyvault.add_key(vault, "etcd")
    vault_id = VaultId.parse(vault.id)
    await app.inspector.inspect(KeyRequest(KEY, "timer", vault_id, run="sweep-1"), now=NOW)
    version = azure.keyvault.rotate(vault, key)

    await app.inspector.inspect(KeyRequest(KEY, "event:e-1", vault_id, version), now=NOW + HOUR)

    (rotated,) = said(caplog, Line.ROTATION_DETECTED)
    assert (rotated["version"], rotated["how"], rotated["users"]) == (version, "event", 0)
    assert (rotated["key"], rotated["event"]) == (str(KEY), "e-1")


async def test_what_an_operator_orders_is_told_with_its_key_or_cluster(
    app: Product, azure: Azure, caplog: pytest.LogCaptureFixture
) -> None:
    vault = azure.keyvault.add_vault("kv-kms-weu")
    azure.access.assign(azure.identity.default.object_id, "Key Vault Crypto Officer", vault.id)
    key = azure.keyvault.add_key(vault, "etcd")
    url = key.uri_of(key.current.version)
    cluster = azure.aks.add("aks-1", encryption="legacy", key_id=url, vault_id=vault.id)
    await app.look(cluster)
    await app.inspector.inspect(KeyRequest(KEY, "timer", VaultId.parse(vault.id)), now=NOW)
    caplog.clear()

    await app.rotator.confirm(ClusterId.parse(cluster.id), RewriteOrder("ada@example.com"), now=NOW)
    await app.rotator.rotate(KEY, RotateOrder("ada@example.com"), now=NOW)

    confirmed, made = map(fields_of, caplog.messages)
    assert confirmed == {"cluster": str(ClusterId.parse(cluster.id)), "askedBy": "operator"}
    assert made == {"key": str(KEY), "askedBy": "operator"}


async def test_a_key_at_risk_is_told_at_every_sweep_while_it_lasts(
    app: Product, azure: Azure, caplog: pytest.LogCaptureFixture
) -> None:
    vault = azure.keyvault.add_vault("kv-kms-weu")
    key = azure.keyvault.add_key(vault, "etcd")
    vault_id = VaultId.parse(vault.id)
    await app.look(azure.aks.add("aks-1", encryption="customer-managed", key_id=key.uri, vault_id=vault.id))
    await app.inspector.inspect(KeyRequest(KEY, "timer", vault_id), now=NOW)

    counts = []
    for number, enabled in enumerate([False, False, True]):
        azure.keyvault.set_enabled(key, key.current.version, enabled=enabled)
        caplog.clear()
        request = KeyRequest(KEY, "timer", vault_id, run=f"sweep-{number}")
        await app.inspector.inspect(request, now=NOW + number * HOUR)
        found = [one for one in said(caplog, Line.KEY_AT_RISK) if one["reason"] == "key-disabled"]
        counts.append([(one["run"], one["key"], one["users"]) for one in found])

    assert counts == [[("sweep-0", str(KEY), 1)], [("sweep-1", str(KEY), 1)], []]


async def test_each_poisoned_message_is_told_with_what_it_was_about(
    app: Product, caplog: pytest.LogCaptureFixture
) -> None:
    await app.reconciler.give_up(ClusterRequest(CLUSTER_ID, "timer", run="sweep-1"), now=NOW)
    await app.inspector.give_up(KeyRequest(KEY, "timer", run="sweep-1"), now=NOW)
    await app.sweeper.give_up(ShardRequest("sweep-1", SUBSCRIPTION, "timer"), now=NOW)

    cluster, key, shard = said(caplog, Line.POISONED)
    assert {one["run"] for one in (cluster, key, shard)} == {"sweep-1"}
    assert (cluster["queue"], cluster["cluster"]) == ("clusters", str(CLUSTER_ID))
    assert (key["queue"], key["key"]) == ("keys", str(KEY))
    assert (shard["queue"], shard["subscription"]) == ("shards", SUBSCRIPTION)


async def test_a_run_whose_last_subscription_is_given_up_ends(app: Product, caplog: pytest.LogCaptureFixture) -> None:
    await app.sweeper.start("sweep-1", asked_by="timer", now=NOW)
    await app.sweeper.give_up(ShardRequest("sweep-1", SUBSCRIPTION, "timer"), now=NOW)

    (swept,), (ended,) = said(caplog, Line.SHARD_SWEPT), said(caplog, Line.RUN_ENDED)
    assert (swept["run"], swept["subscription"], swept["clusters"]) == ("sweep-1", SUBSCRIPTION, 0)
    assert "five times" in swept["failure"]
    assert (ended["clusters"], ended["failures"]) == (0, 1)


async def test_a_pause_is_told_once_and_every_sweep_knows_of_it(
    app: Product, azure: Azure, caplog: pytest.LogCaptureFixture
) -> None:
    azure.aks.add("aks-1", encryption="platform-managed")
    await app.pauses.pause(by="operator", why="a freeze", now=NOW)
    await run(app, "sweep-1")
    await app.pauses.resume(by="operator", now=NOW + HOUR)
    await run(app, "sweep-2", hours=1)

    (paused,), (resumed,) = said(caplog, Line.ENFORCEMENT_PAUSED), said(caplog, Line.ENFORCEMENT_RESUMED)
    assert (paused["by"], paused["since"], resumed["by"]) == ("operator", NOW.isoformat(), "operator")
    assert [one["paused"] for one in said(caplog, Line.RUN_ENDED)] == [True, False]


async def test_a_broken_policy_is_known_to_every_sweep(
    azure: Azure, account: Account, caplog: pytest.LogCaptureFixture
) -> None:
    azure.aks.add("aks-1")

    async with product(account, f"{ENFORCE}nonsense: true\n") as app:
        await run(app, "sweep-1")

    (ended,) = said(caplog, Line.RUN_ENDED)
    assert ended["policyFaults"] == 1
    assert azure.journal.writes() == ()


# the app as the host runs it


def test_the_app_s_lines_leave_the_worker_with_their_fields_and_without_a_secret(
    simulator: Simulator, azure: Azure, account: Account, authority: Authority, tmp_path: Path
) -> None:
    cluster = azure.aks.add("aks-1", encryption="platform-managed")

    with app_on(simulator, account, authority, tmp_path, policy="version: 1\nnonsense: true\n") as running:
        running.start()
        running.host.notify("on_cluster_event", [cluster_event(cluster.id, id="event-1")])
        running.host.notify("on_cluster_event", [cluster_event("/subscriptions/x", id="event-2")])
        running.queues.get_queue_client("clusters-poison").send_message('{"claims": "eyJhbGciOi-token"}')
        running.host.wait_for("reconcile_cluster")
        running.host.wait_for("on_poisoned_cluster")
        running.wait_for(lambda: running.row(cluster), "the cluster's row")
        running.sweep()
        told = running.log()
        secrets = [running.host.function_key, running.host.master_key, running.host.eventgrid_key]

    fields = [found for one in told.splitlines() if (found := fields_of(one))]
    by_line = {one["line"]: one for one in fields if "line" in one}
    assert {"policy-broken", "malformed", "poisoned", "cluster-decided", "shard-swept", "run-ended"} <= set(by_line)
    assert all(set(one) - set(ABOUT) == FIELDS[Line(kind)] | {"line"} for kind, one in by_line.items())
    decided = next(one for one in fields if one.get("line") == "cluster-decided" and "event" in one)
    assert (decided["event"], decided["reason"]) == ("event-1", "policy-broken")
    assert "event-2" in {one.get("event") for one in fields if one.get("line") == "malformed"}
    assert by_line["run-ended"]["policyFaults"] > 0
    assert [
        word for word in (*PERSONAL_DATA, *secrets, "eyJ", "Bearer", "claims", "IDENTITY_HEADER") if word in told
    ] == []
