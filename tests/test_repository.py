"""The repository itself: its workflows, its pages for people, what nobody may track, and that its example holds."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import yaml

from tests.tracked import ROOT, tracked, tracked_names

GITHUB = ROOT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
PAGES = sorted(ROOT / name for name in tracked_names() if name.endswith(".md"))

of_workflows = pytest.mark.parametrize("file", [pytest.param(file, id=file.name) for file in WORKFLOWS])
of_pages = pytest.mark.parametrize("page", [pytest.param(page, id=str(page.relative_to(ROOT))) for page in PAGES])


def run(*command: str, cwd: Path = ROOT) -> tuple[int, str]:
    """Run one of the installed tools; its exit code and all that it said."""
    beside = Path(sys.executable).parent / command[0]
    ended = subprocess.run(  # noqa: S603  the tools that the requirements name
        [str(beside) if beside.exists() else command[0], *command[1:]],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    return ended.returncode, ended.stdout + ended.stderr


# workflows


@pytest.mark.parametrize(
    ("schema", "pattern"),
    [
        ("vendor.github-workflows", "workflows/*.yml"),
        ("vendor.dependabot", "dependabot.yml"),
        ("vendor.github-issue-forms", "ISSUE_TEMPLATE/[!c]*.yml"),
        ("vendor.github-issue-config", "ISSUE_TEMPLATE/config.yml"),
    ],
)
def test_what_github_reads_has_the_form_that_it_asks_for(schema: str, pattern: str) -> None:
    files = sorted(map(str, GITHUB.glob(pattern)))

    assert files
    assert run("check-jsonschema", "--builtin-schema", schema, *files) == (0, "ok -- validation done\n")


def test_the_workflows_have_no_weakness_that_zizmor_knows() -> None:
    code, said = run("zizmor", "--offline", "--no-progress", "--persona", "auditor", str(GITHUB))

    assert (code, "No findings" in said) == (0, True), said


def read(file: Path) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
    return document


@of_workflows
def test_a_workflow_may_nothing_and_each_job_what_it_lists_for_a_while(file: Path) -> None:
    document = read(file)

    assert document["permissions"] == {}
    assert "concurrency" in document
    assert all(job["timeout-minutes"] for job in document["jobs"].values())
    rights = {name: job["permissions"] for name, job in document["jobs"].items()}
    writing = {(name, right) for name, held in rights.items() for right, level in held.items() if level == "write"}
    assert writing <= {("code", "security-events"), ("deploy", "id-token")}


PINNED = re.compile(r"[\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+")


def actions(text: str) -> list[str]:
    return re.findall(r"uses: *(.*)", text)


@of_workflows
def test_every_action_is_pinned_by_its_commit_and_says_which_version_that_is(file: Path) -> None:
    used = actions(file.read_text(encoding="utf-8"))

    assert used
    assert [one for one in used if PINNED.fullmatch(one) is None] == []


def test_one_action_has_one_version() -> None:
    used = {one for file in WORKFLOWS for one in actions(file.read_text(encoding="utf-8"))}
    names = [one.split("@")[0] for one in used]

    assert sorted(set(names)) == sorted(names)


def test_a_tag_or_a_bare_commit_is_no_pin() -> None:
    commit = "0" * 40

    assert PINNED.fullmatch(f"actions/checkout@{commit} # v6.0.2")
    assert not [
        one for one in ("actions/checkout@v6", f"actions/checkout@{commit}", "./action") if PINNED.fullmatch(one)
    ]


def test_every_checkout_leaves_no_token_behind() -> None:
    steps = [step for file in WORKFLOWS for job in read(file)["jobs"].values() for step in job["steps"]]
    checkouts = [step for step in steps if step.get("uses", "").startswith("actions/checkout@")]

    assert checkouts
    assert all(step["with"] == {"persist-credentials": False} for step in checkouts)


def test_the_workflows_run_the_commands_that_a_desk_runs() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    called = {
        target for file in WORKFLOWS for target in re.findall(r"\bmake ([a-z]+)", file.read_text(encoding="utf-8"))
    }

    assert called >= {"test", "slow", "sbom"}
    assert [target for target in called if not re.search(rf"^{target}:", makefile, re.MULTILINE)] == []


def test_no_workflow_needs_a_secret() -> None:
    assert [file.name for file in WORKFLOWS if "secrets." in file.read_text(encoding="utf-8")] == []


# secrets

# Put together from parts, so that no scanner takes these lines for what they look for.
SECRETS = {
    "a key of a storage account": "Account" + r"Key=\w{8}",
    "a shared access key": "SharedAccess" + r"Key=\w{8}",
    "a signature of a shared access": r"[?&]si" + r"g=[\w%+/]{30}",
    "a private key": "-----" + r"BEGIN [A-Z ]*PRIVATE KEY-----\s+[\w+/=]{20}",
    "a key of 64 bytes, as Azure has them": r"(?<![\w+/-])[A-Za-z0-9+/]{86}==",
    "a client secret of Entra ID": r"\b[\w~.-]{3}[78]" + r"Q~[\w~.-]{31,34}\b",
    "a token": "ey" + r"J[\w-]{20,}\.ey" + r"J[\w-]{20,}\.[\w-]{20,}",
    "a token of GitHub's": r"\bgh[pousr]_\w{36}|\bgithub" + r"_pat_\w{40}",
    "a code of a function": r"\bcode=[\w-]{40}[\w-]*==",
}


def secrets_in(text: str) -> list[str]:
    """What each place in a text looks like, and where."""
    return [
        f"line {text.count('\n', 0, match.start()) + 1}: {kind}"
        for kind, pattern in SECRETS.items()
        for match in re.finditer(pattern, text)
    ]


def test_no_file_holds_what_looks_like_a_secret() -> None:
    found = {name: secrets for name, text in tracked().items() if (secrets := secrets_in(text))}

    assert found == {}


@pytest.mark.parametrize(
    ("kind", "planted"),
    [
        ("a key of a storage account", "EndpointSuffix=x;Account" + "Key=" + "q" * 86 + "=="),
        ("a shared access key", "SharedAccess" + "Key=abcdefghijk="),
        ("a signature of a shared access", "https://x/?sv=2024&si" + "g=" + "aB3%" * 10),
        ("a private key", "-----" + "BEGIN RSA PRIVATE KEY-----\n" + "MIIE" * 10),
        ("a key of 64 bytes, as Azure has them", '"' + "aZ9+" * 21 + 'qq=="'),
        ("a client secret of Entra ID", "abc8" + "Q~" + "d" * 34),
        ("a token", ".".join(["ey" + "J0eXAiOiJKV1QiLCJhbGciOi", "ey" + "JhdWQiOiJodHRwczovL21h", "c2lnbmF0dXJl" * 3])),
        ("a token of GitHub's", "gh" + "p_" + "a1" * 18),
        ("a code of a function", "https://x/api/runs?code=" + "aB" * 20 + "=="),
    ],
)
def test_a_secret_that_is_planted_is_found(kind: str, planted: str) -> None:
    assert f"line 2: {kind}" in secrets_in(f"harmless\n{planted}\n")


# editors and containers


@pytest.mark.parametrize(
    "name",
    [
        ".devcontainer/devcontainer.json",
        *(f".vscode/{name}.json" for name in ("extensions", "launch", "settings", "tasks")),
    ],
)
def test_what_editors_read_is_json(name: str) -> None:
    assert json.loads((ROOT / name).read_text(encoding="utf-8"))


def test_the_container_brings_what_the_workflows_bring() -> None:
    container = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text(encoding="utf-8"))
    recommended = json.loads((ROOT / ".vscode" / "extensions.json").read_text(encoding="utf-8"))["recommendations"]
    steps = read(GITHUB / "workflows" / "ci.yml")["jobs"]["test"]["steps"]
    asked = {name: value for step in steps for name, value in step.get("with", {}).items()}

    assert container["image"].endswith(f":{asked['python-version']}")
    assert container["features"]["ghcr.io/devcontainers/features/node:1"]["version"] == asked["node-version"]
    assert container["customizations"]["vscode"]["extensions"] == recommended
    assert (ROOT / ".python-version").read_text(encoding="utf-8").strip() == asked["python-version"]


def test_what_a_task_or_a_launch_names_is_there() -> None:
    tasks = json.loads((ROOT / ".vscode" / "tasks.json").read_text(encoding="utf-8"))["tasks"]
    launches = json.loads((ROOT / ".vscode" / "launch.json").read_text(encoding="utf-8"))["configurations"]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")

    before = [one["preLaunchTask"] for one in launches if "preLaunchTask" in one]
    made = [task["command"].removeprefix("make ") for task in tasks if task["command"].startswith("make ")]

    assert set(before) <= {task["label"] for task in tasks}
    assert made
    assert [target for target in made if f"\n{target}:" not in makefile] == []


def test_what_runs_before_a_commit_is_installed() -> None:
    hooks = [hook for repo in read(ROOT / ".pre-commit-config.yaml")["repos"] for hook in repo["hooks"]]
    programs = {hook["entry"].split()[0] for hook in hooks}

    assert {hook["language"] for hook in hooks} == {"system"}
    assert [name for name in programs if not (Path(sys.executable).parent / Path(name).name).exists()] == []


def test_the_bill_of_materials_names_what_ships(tmp_path: Path) -> None:
    file = tmp_path / "sbom.json"

    code, said = run("make", "--old-file", "setup", "sbom", f"SBOM={file}")

    assert code == 0, said
    pinned = re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "requirements.txt").read_text(encoding="utf-8"), re.MULTILINE)
    document = json.loads(file.read_text(encoding="utf-8"))
    assert document["bomFormat"] == "CycloneDX"
    assert sorted((part["name"], part["version"]) for part in document["components"]) == sorted(pinned)


# pages

FOR_PEOPLE = (
    *("README.md", "CONTRIBUTING.md", "SECURITY.md", "CODE_OF_CONDUCT.md", "CHANGELOG.md", "LICENSE", ".editorconfig"),
    *(".github/pull_request_template.md", ".github/CODEOWNERS", ".github/ISSUE_TEMPLATE/bug.yml"),
)


def test_the_repository_has_what_people_look_for() -> None:
    assert set(FOR_PEOPLE) <= set(tracked_names())
    licence = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert licence.startswith("MIT License\n")
    assert "the AKS KMS Enforcer authors" in licence


def test_the_readme_has_the_sections_that_galleries_ask_for_in_their_order() -> None:
    text = without_blocks(ROOT / "README.md")
    sections = re.findall(r"^## (.*)$", text, re.MULTILINE)

    assert [name for name in sections if name in GALLERY] == list(GALLERY)


GALLERY = ("Features", "Getting Started", "Guidance", "Resources")


KINDS = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"]
RELEASE = re.compile(r"(Unreleased|\[?\d+\.\d+\.\d+\]? - \d{4}-\d{2}-\d{2})")


def test_the_changelog_has_the_form_of_keep_a_changelog() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    releases = re.findall(r"^## (.*)$", text, re.MULTILINE)
    kinds = re.findall(r"^### (.*)$", text, re.MULTILINE)

    assert text.startswith("# Changelog\n")
    assert releases[0] == "Unreleased"
    assert [name for name in releases if RELEASE.fullmatch(name) is None] == []
    assert set(kinds) <= set(KINDS)
    assert not re.search(r"^#{4,} ", text, re.MULTILINE)


def without_blocks(page: Path) -> str:
    return re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


@cache
def anchors(page: Path) -> frozenset[str]:
    """The anchors that GitHub makes of a page's headings; a heading that comes again gets a number."""
    found: list[str] = []
    for heading in re.findall(r"^#+ (.*)$", without_blocks(page), re.MULTILINE):
        bare = re.sub(r"[^\w -]", "", heading.strip().lower()).replace(" ", "-")
        found.append(f"{bare}-{found.count(bare)}" if bare in found else bare)
    return frozenset(found)


def links(page: Path) -> Iterator[tuple[str, str]]:
    """The path and the anchor of each link into the repository itself."""
    for target in re.findall(r"\]\(([^)\s]+)\)", without_blocks(page)):
        if not re.match(r"[a-z]+:", target):
            path, _, anchor = target.partition("#")
            yield unquote(path), anchor


@of_pages
def test_every_link_within_the_repository_leads_somewhere(page: Path) -> None:
    broken = []
    for path, anchor in links(page):
        target = (page.parent / path).resolve() if path else page
        inside = target.is_relative_to(ROOT) and target.exists()
        if not inside or (anchor and anchor not in anchors(target)):
            broken.append(f"{path}#{anchor}")

    assert broken == []


def test_the_pages_for_contributors_name_files_that_are_there() -> None:
    text = without_blocks(ROOT / "CONTRIBUTING.md")
    named = re.findall(r"`((?:[\w.-]+/)*[\w.-]+\.(?:py|md|json|bicep|yaml|yml)|(?:[\w.-]+/)+)`", text)

    assert len(named) > 20
    assert [name for name in named if not (ROOT / name).exists()] == []


# the worked example of CONTRIBUTING.md


@dataclass(frozen=True, slots=True)
class Step:
    """One addition of the example: lines that go below a line of a file, which may be shortened."""

    file: str
    below: str
    lines: tuple[str, ...]

    def made_in(self, text: str) -> str:
        """The text with the addition; the line below which it goes must be there once."""
        lines = text.split("\n")
        shown = self.below.removesuffix("...").rstrip() if self.below.endswith("...") else None
        fits = [
            number
            for number, line in enumerate(lines)
            if line == self.below or (shown is not None and line.startswith(shown))
        ]
        assert len(fits) == 1, f"{self.file} has {len(fits)} lines like {self.below!r}"
        return "\n".join([*lines[: fits[0] + 1], *self.lines, *lines[fits[0] + 1 :]])


def steps() -> list[Step]:
    """The diffs of the page, addition by addition."""
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    found: list[Step] = []
    for block in re.findall(r"^```diff\n(.*?)^```$", page, re.MULTILINE | re.DOTALL):
        head, *body = block.splitlines()
        for hunk in "\n".join(body).split("\n@@\n"):
            below, *added = hunk.split("\n")
            assert below.startswith(" "), below
            assert all(line.startswith("+") for line in added), hunk
            found.append(Step(head.removeprefix("--- "), below[1:], tuple(line[1:] for line in added)))
    return found


def copied(folder: Path, example: list[Step]) -> Path:
    """A copy of the repository with the example made in it."""
    for name in tracked_names():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, folder / name)
    for step in example:
        file = folder / step.file
        file.write_text(step.made_in(file.read_text(encoding="utf-8")), encoding="utf-8")
    return folder


CONCERNED = (
    "stand_in_this_order or stands_higher or under_incident or judges_a_cluster or shows_every_reason"
    " or of_each_reason or says_how_to_mend or docstring_of_one_line or has_a_test_of_its_own"
)
"""Of the files that the page names, the tests that look at what the example touches."""
FILES = [f"tests/test_{name}.py" for name in ("decisions", "judgement", "docs", "conventions")]


def outcome_in(folder: Path) -> tuple[int, str]:
    """Run the tests that are concerned, in a copy."""
    return run("python", "-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", "-k", CONCERNED, *FILES, cwd=folder)


def test_the_worked_example_holds(tmp_path: Path) -> None:
    folder = copied(tmp_path, steps())

    assert run("ruff", "check", "shared", "tests", cwd=folder)[0] == 0
    assert run("ruff", "format", "--check", "shared", "tests", cwd=folder)[0] == 0
    code, said = outcome_in(folder)

    assert code == 0, said[-4000:]
    assert "under_incident" in (folder / "shared" / "decisions.py").read_text(encoding="utf-8")


def test_the_worked_example_names_the_command_that_runs_its_tests() -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")

    assert f".venv/bin/python -m pytest -n0 {' '.join(FILES)}\n" in page


LADDER_RUNG = "(Reason.UNDER_INCIDENT,"
"""How the one step begins that only people can ask for."""
TOLD = [
    pytest.param(number, id=f"{number}-{step.file}")
    for number, step in enumerate(steps())
    if not step.lines[0].lstrip().startswith(LADDER_RUNG)
]


@pytest.mark.slow
@pytest.mark.parametrize("left_out", TOLD)
def test_a_step_of_the_worked_example_that_is_left_out_is_told(tmp_path: Path, left_out: int) -> None:
    all_of_it = steps()

    folder = copied(tmp_path, all_of_it[:left_out] + all_of_it[left_out + 1 :])

    assert outcome_in(folder)[0] in {1, 2}  # tests failed, or could not be imported
    assert len(TOLD) == len(all_of_it) - 1
