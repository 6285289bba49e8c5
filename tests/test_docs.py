"""The pages say what the code says: every field, setting, reason, notice and step, and examples that can be read."""

from __future__ import annotations

import ast
import dataclasses
import json
import re
from enum import StrEnum
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel
from pydantic.alias_generators import to_camel

from local.scenario import (
    SCENARIOS,
    ClusterEnd,
    Creation,
    Ends,
    Fleet,
    Identity,
    ResourceGroup,
    Rewrite,
    Rotation,
    Scenario,
    Step,
    Update,
    Vault,
    VaultEnd,
    Wait,
)
from local.stage import APP, QUEUES, TABLES
from shared.clusters import ClusterId
from shared.events import CLUSTER_EVENTS, KEY_EVENTS, VAULT_EVENT
from shared.keyhealth import Finding
from shared.keyrecords import KnownKey
from shared.keys import VaultId
from shared.outcomes import NoticeKind, notice_of, notice_of_finding, notice_of_pause, notice_of_rotation
from shared.policy.__main__ import main
from shared.policy.document import Exemption, Keys, Legacy, Limits, Match, Policy, Target
from shared.policy.faults import keys_of
from shared.policy.windows import Window
from shared.preparations import Preparation
from shared.reasons import Action, Reason, Subject, fix
from shared.records import Enforcement
from shared.rotation import Standing, Why
from tests.builders import KEY, NOW, SUBSCRIPTION, record, rotation

POLICY, OPERATIONS, SCENARIOS_PAGE, API = (
    APP / "docs" / f"{name}.md" for name in ("policy", "operations", "scenarios", "api")
)
PAGES = sorted([*(APP / "docs").glob("*.md"), APP / "README.md", APP / "CHANGELOG.md"])

Cells = tuple[str, ...]


def section(page: Path, heading: str) -> str:
    """A section's text, without what stands below headings of its own."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    found = re.search(rf"^#+ {re.escape(heading)}$(.*?)(?=^#|\Z)", text, re.MULTILINE | re.DOTALL)
    assert found is not None, f"{page.name} has no section {heading}"
    return found[1]


def rows(page: Path, heading: str) -> list[Cells]:
    """The rows of all tables of a section, but for their heads."""
    found: list[Cells] = []
    for line in section(page, heading).splitlines():
        if not line.startswith("|"):
            continue
        if set(line) <= set("|- "):  # a ruler: what stands above it is a head
            found.pop()
            continue
        cells = re.split(r"(?<!\\)\|", line)[1:-1]
        found.append(tuple(cell.strip().replace(r"\|", "|") for cell in cells))
    return found


def names(page: Path, heading: str) -> list[str]:
    """What the rows of a section's tables are about: the first code of their first cell."""
    return [match[1] for cells in rows(page, heading) if (match := re.match(r"`(\w[^`:]*)", cells[0]))]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def fields(model: type[BaseModel]) -> set[str]:
    return {to_camel(name) for name in model.model_fields}


def docstrings(name: str, room: str = "reasons") -> dict[str, str]:
    """What stands below each member of an enum of a file in shared/."""
    module = ast.parse((APP / "shared" / f"{room}.py").read_text(encoding="utf-8"))
    body = next(node.body for node in module.body if isinstance(node, ast.ClassDef) and node.name == name)
    found: dict[str, str] = {}
    for member, said in pairwise(body):
        if isinstance(member, ast.Assign) and isinstance(said, ast.Expr):
            found[ast.literal_eval(member.value)] = ast.literal_eval(said.value)
    return found


# the policy


@pytest.mark.parametrize(
    ("heading", "model"),
    [
        ("The document", Policy),
        ("A target", Target),
        ("Match", Match),
        ("An exemption", Exemption),
        ("Limits", Limits),
        ("A window", Window),
        ("Keys", Keys),
        ("Legacy", Legacy),
    ],
)
def test_the_page_says_of_every_field_of_the_policy_what_the_schema_says(heading: str, model: type[BaseModel]) -> None:
    expected = [(f"`{name}`", field.description) for name, field in keys_of(model).items()]

    assert [(cells[0], cells[-1]) for cells in rows(POLICY, heading)] == expected


def test_the_page_shows_what_the_check_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sound = blocks(POLICY, "yaml")[1]
    said, broken, faults = blocks(POLICY, "text")
    file = tmp_path / "policy.yaml"

    file.write_text(sound, encoding="utf-8")
    assert (main(["check", str(file)]), capsys.readouterr().out) == (0, said)
    file.write_text(broken, encoding="utf-8")
    assert (main(["check", str(file)]), capsys.readouterr().out) == (1, faults)


def test_the_page_s_policies_have_no_faults() -> None:
    texts = blocks(POLICY, "yaml")

    assert len(texts) == 3
    assert [Policy.read(text)[1] for text in texts] == [(), (), ()]


def test_the_page_s_second_policy_has_every_field() -> None:
    text = blocks(POLICY, "yaml")[1]

    models = (Policy, Target, Match, Exemption, Limits, Window, Keys, Legacy)
    missing = {field for model in models for field in keys_of(model) if not re.search(rf"\b{field}:", text)}
    assert missing == set()


def test_the_example_beside_the_fleet_has_no_faults() -> None:
    text = (APP / "docs" / "fleet.policy.example.yaml").read_text(encoding="utf-8")

    assert Policy.read(text)[1] == ()


def test_the_page_says_of_each_action_what_the_code_says() -> None:
    expected = [(f"`{action}`", docstrings("Action")[action]) for action in Action]

    assert rows(POLICY, "Actions") == expected


def test_the_page_says_of_each_reason_what_the_code_says_and_its_fix() -> None:
    subject = Subject(ClusterId("SUBSCRIPTION", "GROUP", "NAME"))
    fixes = {reason: fix(reason, subject) for reason in Reason}

    expected = [
        (f"`{reason}`", docstrings("Reason")[reason], found.text if (found := fixes[reason]) else "")
        for reason in Reason
    ]

    assert rows(POLICY, "Reasons") == expected


MENDED = (
    *(Reason.VAULT_MISSING, Reason.VAULT_WITHOUT_BYPASS, Reason.KEY_MISSING, Reason.IDENTITY_MISSING),
    *(Reason.ACCESS_MISSING, Reason.ACCESS_WRAP_ONLY, Reason.READER_MISSING),
)


def test_the_page_names_every_step_of_a_preparation_with_the_reasons_that_it_mends() -> None:
    cells = rows(POLICY, "What `ensure` makes")
    steps = {
        field.default for kind in get_args(Preparation) for field in dataclasses.fields(kind) if field.name == "step"
    }

    assert {step.strip("`") for _, step, _ in cells} == steps
    reasons = [reason.strip(" `") for missing, _, _ in cells for reason in missing.split(",")]
    assert sorted(reasons) == sorted(MENDED)


# the API


@pytest.mark.parametrize("words", [Standing, Why])
def test_the_page_says_of_each_standing_and_why_what_the_code_says(words: type[StrEnum]) -> None:
    said = docstrings(words.__name__, "rotation")

    told = rows(API, "`GET /api/keys/{vault}/{name}`")

    assert [row for row in told if row[0].strip("`") in set(words)] == [(f"`{word}`", said[word]) for word in words]


# operations


def test_the_page_names_every_setting_and_no_other() -> None:
    sample = json.loads((APP / "local.settings.sample.json").read_text(encoding="utf-8"))

    assert sorted(names(OPERATIONS, "Settings")) == sorted(sample["Values"])


def test_every_setting_that_the_code_reads_is_in_the_sample() -> None:
    code = (APP / "shared" / "settings.py").read_text(encoding="utf-8")
    sample = json.loads((APP / "local.settings.sample.json").read_text(encoding="utf-8"))

    read = set(re.findall(r'"([A-Z]{2,}[A-Z_]*|AzureWebJobsStorage__\w+)"', code))

    assert read
    assert read <= set(sample["Values"])


def test_the_page_names_every_table_and_queue() -> None:
    assert set(names(OPERATIONS, "Tables")) == set(TABLES)
    assert {f"{name}-poison" for name in names(OPERATIONS, "Queues and poison")} <= set(QUEUES)
    assert all(f"`{queue}`" in section(OPERATIONS, "Queues and poison") for queue in QUEUES)


def test_the_page_shows_one_notice_of_each_kind() -> None:
    said = [json.loads(block) for block in blocks(OPERATIONS, "json")]

    shown = [one["type"] for one in said if "specversion" in one]

    assert names(OPERATIONS, "Notices") == [str(kind) for kind in NoticeKind]
    assert shown == [str(kind) for kind in NoticeKind]


def told_on_the_page() -> dict[str, Any]:
    """What the page shows of each notice's data, by its type."""
    said = [one for block in blocks(OPERATIONS, "json") if "specversion" in (one := json.loads(block))]
    return {one["type"]: one["data"] for one in said}


def test_a_notice_on_the_page_has_the_fields_that_the_code_gives_it() -> None:
    of_a_cluster = notice_of(record(action=Action.REPORT, reasons=(Reason.STOPPED,), decided_at=NOW))
    made = dict.fromkeys(NoticeKind, of_a_cluster) | {
        NoticeKind.ROTATION_DETECTED: notice_of_rotation(rotation()),
        NoticeKind.KEY_AT_RISK: notice_of_finding(KnownKey(KEY), Finding(Reason.KEY_DISABLED, None, (), 0, NOW)),
        NoticeKind.ENFORCEMENT_PAUSED: notice_of_pause(Enforcement(paused_since=NOW)),
    }

    shown = {kind: list(data) for kind, data in told_on_the_page().items()}

    assert shown == {kind: list(notice.said) for kind, notice in made.items() if notice}


@pytest.mark.parametrize("kind", [NoticeKind.CLUSTER_NOT_COMPLIANT, NoticeKind.CLUSTER_BLOCKED, NoticeKind.KEY_AT_RISK])
def test_a_notice_on_the_page_says_the_fix_of_its_reason(kind: NoticeKind) -> None:
    data = told_on_the_page()[kind]
    if kind is NoticeKind.KEY_AT_RISK:
        reason, subject = data["reason"], Subject(vault=VaultId(SUBSCRIPTION, "rg", data["vault"]), key=data["key"])
    else:
        reason, subject = data["reasons"][0], Subject(ClusterId.parse(data["clusterId"]))

    found = fix(Reason(reason), subject)

    assert found is not None
    assert data["fix"] == dataclasses.asdict(found)


def test_the_page_names_every_event_type_that_is_served() -> None:
    named = re.findall(r"`(Microsoft\.\w+\.\w+)`", section(OPERATIONS, "Events to subscribe to"))

    assert sorted(one.lower() for one in named) == sorted([*CLUSTER_EVENTS, *KEY_EVENTS, VAULT_EVENT])


# scenarios


@pytest.mark.parametrize(
    ("heading", "model"),
    [("The file", Scenario), ("A vault", Vault), ("A cluster", Fleet), ("A step", Step), ("The ends", Ends)],
)
def test_the_page_names_every_field_of_a_scenario(heading: str, model: type[BaseModel]) -> None:
    assert set(names(SCENARIOS_PAGE, heading)) == fields(model)


@pytest.mark.parametrize(
    ("heading", "model"),
    [
        ("The file", ResourceGroup),
        ("The file", Identity),
        ("A step", Creation),
        ("A step", Rotation),
        ("A step", Update),
        ("A step", Rewrite),
        ("A step", Wait),
        ("The ends", ClusterEnd),
        ("The ends", VaultEnd),
    ],
)
def test_the_page_names_what_steps_and_ends_take(heading: str, model: type[BaseModel]) -> None:
    text = section(SCENARIOS_PAGE, heading)

    assert [name for name in fields(model) - fields(Fleet) if not re.search(rf"\b{name}\b", text)] == []


def test_the_page_lists_every_scenario() -> None:
    assert names(SCENARIOS_PAGE, "Playing one") == sorted(file.stem for file in SCENARIOS.glob("*.yaml"))


def test_the_page_s_scenario_can_be_played() -> None:
    (text,) = blocks(SCENARIOS_PAGE, "yaml")

    scenario = Scenario.read(text)

    assert Policy.read(scenario.policy)[1] == ()
    assert set(scenario.ends.clusters) == {cluster.name for cluster in scenario.clusters}


# all pages


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.name))
def test_no_row_stands_outside_its_table(page: Path) -> None:
    lines = ["", *re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S).splitlines(), ""]

    heads = [number for number in range(1, len(lines)) if lines[number][:1] == "|" != lines[number - 1][:1]]

    assert [lines[number] for number in heads if not re.fullmatch(r"\|[-| :]+\|", lines[number + 1])] == []
