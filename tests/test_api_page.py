"""The page on the API has every path, every parameter, and examples with the fields that the running app answers with.

The examples come from a run. `API_EXAMPLES=write` writes them anew:

    API_EXAMPLES=write .venv/bin/python -m pytest -n0 tests/test_api_page.py
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

import function_app
from local.simulator import SUBSCRIPTION, Azure
from local.stage import APP, provide
from tests.e2e.app import App, app_on

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from local.certificates import Authority
    from local.host.launcher import Answer
    from local.simulator import Simulator
    from local.storage import Storage

PAGE = APP / "docs" / "api.md"
WRITES = os.environ.get("API_EXAMPLES") == "write"
ERRORS = "Errors"
LATER = timedelta(hours=7)
POLICY = """
version: 1
mode: enforce
acceptIrreversible: true
targets:
  - name: payments
    match: {names: ["pay-*"]}
    keyManagement: customer-managed
    vault: /subscriptions/{subscription}/resourceGroups/rg-keys/providers/Microsoft.KeyVault/vaults/kv-payments
    key: etcd
  - name: web
    match: {names: ["web-*"]}
    keyManagement: platform-managed
exemptions:
  - {match: {names: [web-old]}, owner: team@example.com, reason: is retired in March, expires: 2199-03-31}
"""
VARIES = re.compile(r"run-[0-9a-f]{32}|\d{4}-\d{2}-\d{2}")


@dataclass(frozen=True, slots=True)
class Example:
    """One call and its answer."""

    request: str
    answer: Any
    body: str = ""


@dataclass(slots=True)
class Story:
    """What the examples are about: a web shop that the app encrypts, and a key that two clusters use and that rotates
    twice, once unannounced.
    """

    app: App
    told: dict[str, Example] = field(default_factory=dict)

    def play(self) -> None:
        """Let it all happen."""
        azure, app = self.app.azure, self.app
        azure.aks.update_duration = timedelta(0)
        vault = azure.keyvault.add_vault("kv-payments", purge_protection=False)
        key = azure.keyvault.add_key(vault, "etcd")
        modern = azure.aks.add("pay-modern", encryption="customer-managed", key_id=key.uri, vault_id=vault.id)
        legacy = azure.aks.add("pay-legacy", encryption="legacy", key_id=key.uri_of(key.current.version))
        web = azure.aks.add("web-shop")
        azure.aks.add("web-old")
        for cluster in (modern, legacy):
            for role in ("Key Vault Crypto User", "Key Vault Reader"):
                azure.access.assign(cluster.principal_id, role, vault.id)
        app.start()
        app.subscribe()
        self._sweep()
        app.wait_for_reason("as-asked", web, modern)
        self._wait_logged(azure.keyvault.rotate(vault, key))
        self._later()
        unannounced = azure.keyvault.rotate(vault, key, announce=False)
        self._sweep()
        self._wait_logged(unannounced)
        self._later()
        self._sweep()

    def ask(self) -> None:
        """Ask everything that can be asked, in an order in which no answer depends on chance."""
        web = f"/api/clusters/{SUBSCRIPTION}/rg-apps/web-shop"
        self._get("health", key=None)
        self._get("clusters", "?top=1")
        self._get("clusters/{subscription}/{resourceGroup}/{name}", path=web, query="?top=2")
        self._get("keys")
        self._get("keys/{vault}/{name}", path="/api/keys/kv-payments/etcd")
        self._get("rotations", "?how=sweep")
        written = self.app.get(f"/api/activity?kind=write&cluster={quote(self._id('web-shop'))}")["activity"][0]
        self._get("activity", f"?day={written['at'][:10]}&kind=write")
        self._get("exemptions")
        self._post("clusters/{subscription}/{resourceGroup}/{name}/resume", path=f"{web}/resume", status=202)
        legacy = f"/api/clusters/{SUBSCRIPTION}/rg-apps/pay-legacy/reencrypted"
        order = {"by": "ada@example.com"}
        self._post("clusters/{subscription}/{resourceGroup}/{name}/reencrypted", order, path=legacy)
        self._post("keys/{vault}/{name}/rotate", order, path="/api/keys/kv-payments/etcd/rotate", status=409)
        run = self._post("runs", {"resourceGroups": ["rg-apps"], "mode": "audit"}, status=202)["id"]
        self.app.wait_for(lambda: self.app.get(f"/api/runs/{run}")["status"] == "done", "the run")
        self._get("runs/{id}", path=f"/api/runs/{run}")
        self._post("enforcement/pause", {"reason": "a freeze until Monday"})
        self._get("enforcement")
        self._post("enforcement/resume", status=202)
        problem = self.app.host.call("GET", "/api/clusters?limit=7", key=self.app.host.function_key)
        self.told[ERRORS] = Example("GET /api/clusters?limit=7", problem.json())

    def _sweep(self) -> None:
        self.app.sweep()
        self.app.wait_quiet()

    def _later(self) -> None:
        self.app.azure.clock.advance(LATER)
        self.app.host.advance(LATER)

    def _wait_logged(self, version: str) -> None:
        rows = f"v|{version}"
        self.app.wait_for(lambda: rows in {row["RowKey"] for row in self.app.rows("rotations")}, "the new version")
        self.app.wait_quiet()

    def _id(self, name: str) -> str:
        return next(
            str(cluster["id"]) for cluster in self.app.get("/api/clusters")["clusters"] if cluster["name"] == name
        )

    def _get(self, route: str, query: str = "", *, path: str | None = None, key: str | None = "function") -> None:
        path = (path or f"/api/{route}") + query
        answer = self.app.host.call("GET", path, key=self.app.host.function_key if key else None)
        self._tell(route, f"GET {path}", answer, 200)

    def _post(self, route: str, body: Any = None, *, path: str | None = None, status: int = 200) -> Any:
        path = path or f"/api/{route}"
        answer = self.app.host.call("POST", path, key=self.app.host.function_key, body=body)
        self._tell(route, f"POST {path}", answer, status, json.dumps(body) if body else "")
        return answer.json()

    def _tell(self, route: str, request: str, answer: Answer, status: int, body: str = "") -> None:
        assert answer.status == status, f"{request}: {answer.status} {answer.body!r}"
        self.told[f"{request.partition(' ')[0]} /api/{route}"] = Example(request, answer.json(), body)


@pytest.fixture(scope="module")
def story(
    simulator: Simulator, storage: Storage, authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Story]:
    """The app after the story, and its answers; in write mode they are on the page by now."""
    simulator.azure = Azure()
    account = storage.account()
    provide(account, authority)
    with app_on(simulator, account, authority, tmp_path_factory.mktemp("app"), policy=POLICY) as app:
        played = Story(app)
        played.play()
        played.ask()
        assert simulator.azure.journal.unknown == ()
        if WRITES:
            PAGE.write_text(with_examples(PAGE.read_text(encoding="utf-8"), played.told), encoding="utf-8")
        yield played


HEADING = re.compile(r"^## (?:`(\w+ /api/[^`]+)`|(Errors))$", re.MULTILINE)
EXAMPLE = re.compile(r"```http\n(.*?)```\n\n```json\n(.*?)```", re.DOTALL)


def sections(text: str) -> dict[str, str]:
    """The page's sections about calls, by their headings."""
    found = re.split(r"^(?=## )", text, flags=re.MULTILINE)
    named = [(match[1] or match[2], part) for part in found if (match := HEADING.match(part))]
    assert len(named) == len(dict(named)), "two sections about the same call"
    return dict(named)


def blocks(example: Example) -> str:
    request = "\n\n".join(part for part in (example.request, example.body) if part)
    return f"```http\n{request}\n```\n\n```json\n{json.dumps(example.answer, indent=2)}\n```"


def with_examples(text: str, told: Mapping[str, Example]) -> str:
    """The page with these examples in place of its own."""
    for name, section in sections(text).items():
        before, _, rest = section.partition("```http\n")
        after = EXAMPLE.sub("", f"```http\n{rest}", count=1)
        text = text.replace(section, f"{before}{blocks(told[name])}{after}")
    return text


def fields(value: Any, path: str = "") -> set[str]:
    """The paths of all fields: of a list, those of all its elements."""
    match value:
        case dict():
            return {f"{path}.{name}" for name in value} | {
                one for name, part in value.items() for one in fields(part, f"{path}.{name}")
            }
        case list():
            return {one for part in value for one in fields(part, f"{path}[]")}
    return set()


CALLS = sorted(f"{method} /api/{route}" for route, method in function_app.API.items())


def test_the_page_has_every_call_of_the_api() -> None:
    assert sorted(sections(PAGE.read_text(encoding="utf-8"))) == sorted([*CALLS, ERRORS])


def test_the_readme_has_a_row_for_every_call() -> None:
    rows = re.findall(r"^\| `([A-Z]+ /api/\S+)` \|", (APP / "README.md").read_text(encoding="utf-8"), re.MULTILINE)

    assert sorted(rows) == CALLS


@pytest.mark.parametrize("call", [*CALLS, ERRORS])
def test_the_example_of_a_call_has_the_fields_of_a_running_app_s_answer(story: Story, call: str) -> None:
    shown = EXAMPLE.search(sections(PAGE.read_text(encoding="utf-8"))[call])
    assert shown is not None, f"{call} has no example"

    request, body = shown[1].strip().partition("\n")[::2]

    told = story.told[call]
    assert VARIES.sub("", request) == VARIES.sub("", told.request)
    assert body.strip() == told.body
    assert fields(json.loads(shown[2])) == fields(told.answer)


@pytest.mark.parametrize("call", [call for call in CALLS if call.startswith("GET") and call != "GET /api/health"])
def test_the_page_names_the_parameters_that_a_call_takes(story: Story, call: str) -> None:
    path = story.told[call].request.partition(" ")[2].partition("?")[0]

    answer = story.app.host.call("GET", f"{path}?nothing=1", key=story.app.host.function_key)
    section = sections(PAGE.read_text(encoding="utf-8"))[call]

    assert answer.status == 400
    taken = answer.json()["detail"].partition("this list takes ")[2]
    table = section.partition("parameter | meaning")[2].partition("\n\n")[0]
    named = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)
    assert named == (taken.split(", ") if taken else [])
