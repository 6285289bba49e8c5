"""The conventions of this repository, held by tests: who imports whom, what is named how, what is never tracked."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest
from azure.keyvault.keys.aio import KeyClient
from azure.mgmt.authorization.v2022_04_01.aio.operations import RoleAssignmentsOperations, RoleDefinitionsOperations
from azure.mgmt.containerservice.aio.operations import ManagedClustersOperations
from azure.mgmt.keyvault.aio.operations import KeysOperations, VaultsOperations
from azure.mgmt.msi.v2024_11_30.aio.operations import UserAssignedIdentitiesOperations

from shared.decisions import BLOCKING, CHECKS
from shared.queues import QUEUES
from shared.reasons import Reason, Subject, fix
from shared.settings import Settings
from tests.builders import CLUSTER_ID
from tests.tracked import tracked

ROOT = Path(__file__).parent.parent
FUNCTION_APP = ROOT / "function_app.py"


def below(folder: str) -> list[Path]:
    """The Python files below a folder that are the project's own."""
    return sorted(path for path in (ROOT / folder).rglob("*.py") if "node_modules" not in path.parts)


PRODUCT = [FUNCTION_APP, *below("shared")]


@cache
def tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"), filename=str(file))


def where(file: Path, node: ast.AST) -> str:
    return f"{file.relative_to(ROOT)}:{getattr(node, 'lineno', '?')}"


def imported(file: Path) -> Iterator[str]:
    """The full names of all that a file imports, wherever in it the import stands."""
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"a relative import at {where(file, node)}"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


# one direction of imports

ADAPTERS = {
    *("aks", "announcements", "keyvault", "vaultdoor", "access", "evidence", "identities"),
    *("ledger", "keyledger", "queues", "notices"),
}
LAYERS: list[set[str]] = [
    {"function_app"},
    {"bootstrap"},
    {"reconciler", "inspector", "rotator", "sweeper", "views", "keyviews"},
    {"keysinuse"},
    {"recorder", "pauses", "surveyor", "preparer", "rewriter", "usage"},
    {"keydata"},
    ADAPTERS,
    {"tables"},
    {"calls", "settings", "telemetry"},
    {"outcomes"},
    {"records", "keyrecords"},
    {"decisions", "events", "questions"},
    {"preparations", "reencryption", "keyhealth", "sightings"},
    {"prerequisites", "rotation"},
    {"policy", "reasons"},
    {"clusters"},
    {"keys", "rights"},
    {"errors"},
]
"""From the outside in. A room imports from the layers below its own, never from its own or one above."""

CORE = {
    "errors",
    "keys",
    "rights",
    "clusters",
    "policy",
    "reasons",
    "prerequisites",
    "preparations",
    "reencryption",
    "rotation",
    "keyhealth",
    "sightings",
    "decisions",
    "records",
    "keyrecords",
    "outcomes",
    "events",
    "questions",
}
SPEAKS_TO_AZURE = ADAPTERS | {"tables", "calls", "bootstrap", "function_app"}
NOT_IN_THE_CORE = {
    "aiohttp",
    "asyncio",
    "azure",
    "io",
    "logging",
    "os",
    "pathlib",
    "random",
    "secrets",
    "socket",
    "subprocess",
    "sys",
    "threading",
    "time",
    "urllib",
    "uuid",
}


def room(file: Path) -> str:
    """The room that a file of the product belongs to: a module, or a package with all that is in it."""
    return "function_app" if file == FUNCTION_APP else file.relative_to(ROOT / "shared").parts[0].removesuffix(".py")


def rooms() -> Mapping[str, list[Path]]:
    files = [file for file in PRODUCT if file != ROOT / "shared" / "__init__.py"]
    return {name: [file for file in files if room(file) == name] for name in map(room, files)}


def neighbours(name: str) -> set[str]:
    """The rooms that a room imports from."""
    names = {
        module.split(".")[1] for file in rooms()[name] for module in imported(file) if module.startswith("shared.")
    }
    return names - {name}


def test_every_room_has_its_layer() -> None:
    assert set(rooms()) == set().union(*LAYERS)


def test_the_page_shows_every_room() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    picture = page.split("## The rooms", 1)[1].split("```")[1]

    assert sorted(name for name in rooms() if not re.search(rf"^ *([a-z_]+ \| )*{name}\b", picture, re.MULTILINE)) == []


@pytest.mark.parametrize("name", sorted(set().union(*LAYERS)))
def test_a_room_imports_only_from_the_layers_below(name: str) -> None:
    own = next(number for number, layer in enumerate(LAYERS) if name in layer)

    assert neighbours(name) <= set().union(*LAYERS[own + 1 :])


@pytest.mark.parametrize("name", sorted(CORE))
def test_the_core_is_pure(name: str) -> None:
    files = [file for file in rooms()[name] if file.name != "__main__.py"]  # a command for people reads a file

    used = {module.split(".")[0] for file in files for module in imported(file)}

    assert not used & NOT_IN_THE_CORE


def test_only_the_rooms_that_speak_to_azure_import_its_sdks() -> None:
    speaking = {
        room(file) for file in PRODUCT if any(module.split(".")[0] in {"azure", "msrest"} for module in imported(file))
    }

    assert speaking == SPEAKS_TO_AZURE


def test_the_settings_are_asked_for_by_bootstrap_and_the_triggers_alone() -> None:
    assert {name for name in rooms() if "settings" in neighbours(name)} == {"bootstrap", "function_app"}


def calls(file: Path, *names: str) -> list[str]:
    """Where a file calls a method or function by one of these names."""
    return [
        where(file, node)
        for node in ast.walk(tree(file))
        if isinstance(node, ast.Call)
        and (getattr(node.func, "attr", None) in names or getattr(node.func, "id", None) in names)
    ]


def test_only_the_triggers_take_the_time_of_day() -> None:
    clocks = [
        found for file in below("shared") for found in calls(file, "now", "utcnow", "today", "time_ns", "monotonic")
    ]

    assert clocks == []
    assert calls(FUNCTION_APP, "now")


def test_only_the_settings_read_the_environment() -> None:
    reading = {
        room(file)
        for file in PRODUCT
        for node in ast.walk(tree(file))
        if getattr(node, "attr", None) in {"environ", "getenv"}
    }

    assert reading == {"settings"}


def test_the_product_and_what_plays_azure_do_not_know_each_other() -> None:
    product = {module.split(".")[0] for file in PRODUCT for module in imported(file)}
    local = {module.split(".")[0] for file in below("local") for module in imported(file)}

    assert "local" not in product
    assert not local & {"shared", "function_app"}
    assert not (product | local) & {"tests"}


# settings and triggers

SAMPLE: dict[str, str] = json.loads((ROOT / "local.settings.sample.json").read_text(encoding="utf-8"))["Values"]
NEEDED_BY_THE_HOST = {
    "FUNCTIONS_WORKER_RUNTIME",
    "AzureWebJobsStorage__credential",
    "AzureWebJobsStorage__clientId",
    "AzureWebJobsStorage__blobServiceUri",
}


class Asked(dict[str, str]):
    """An environment that remembers what it was asked for."""

    def __init__(self, values: Mapping[str, str]) -> None:
        super().__init__(values)
        self.names: set[str] = set()

    def get(self, key: str, default: str | None = None) -> str | None:  # type: ignore[override]  # narrower on purpose
        self.names.add(key)
        return super().get(key, default)

    def __getitem__(self, key: str) -> str:
        self.names.add(key)
        return super().__getitem__(key)


def substituted() -> set[str]:
    """The settings that the triggers and host.json name between percent signs."""
    texts = [FUNCTION_APP.read_text(encoding="utf-8"), (ROOT / "host.json").read_text(encoding="utf-8")]
    return {name for text in texts for name in re.findall(r"%([A-Z][A-Z0-9_]{2,})%", text)}


def test_the_sample_settings_are_sound_and_whole_and_hold_nothing_else() -> None:
    environment = Asked(SAMPLE)

    Settings.read(environment)

    assert set(SAMPLE) == environment.names | substituted() | NEEDED_BY_THE_HOST


def decorators(name: str) -> list[ast.Call]:
    """The decorators of the triggers by this name."""
    return [
        decorator
        for function in ast.walk(tree(FUNCTION_APP))
        if isinstance(function, ast.AsyncFunctionDef | ast.FunctionDef)
        for decorator in function.decorator_list
        if isinstance(decorator, ast.Call) and getattr(decorator.func, "attr", None) == name
    ]


def test_every_queue_and_its_poison_twin_has_one_trigger() -> None:
    queues = [
        keyword.value.value
        for decorator in decorators("queue_trigger")
        for keyword in decorator.keywords
        if keyword.arg == "queue_name" and isinstance(keyword.value, ast.Constant)
    ]

    assert sorted(map(str, queues)) == sorted([*QUEUES, *(f"{name}-poison" for name in QUEUES)])


# words

WORDS = [
    ("reasons", "Reason"),
    ("reasons", "Action"),
    ("keyrecords", "Detection"),
    ("records", "Settlement"),
    ("outcomes", "NoticeKind"),
    ("clusters", "KeyManagement"),
    ("keys", "VaultNetwork"),
    ("policy/document", "Mode"),
    ("policy/document", "NetworkAccess"),
    ("policy/document", "Preparing"),
    ("policy/document", "LegacyRotation"),
    ("policy/document", "ExemptionStatus"),
    ("policy/assignment", "SecondRole"),
    ("telemetry", "Line"),
]


def enum_of(module: str, name: str) -> ast.ClassDef:
    tops = tree(ROOT / "shared" / f"{module}.py").body
    return next(node for node in tops if isinstance(node, ast.ClassDef) and node.name == name)


def undocumented(enum: ast.ClassDef) -> list[str]:
    """The members that no docstring follows."""
    after = zip(enum.body, [*enum.body[1:], None], strict=True)
    return [
        ast.unparse(node)
        for node, following in after
        if isinstance(node, ast.Assign)
        and not (
            isinstance(following, ast.Expr)
            and isinstance(following.value, ast.Constant)
            and isinstance(following.value.value, str)
            and "\n" not in following.value.value
        )
    ]


@pytest.mark.parametrize(("module", "name"), WORDS)
def test_every_word_has_a_docstring_of_one_line(module: str, name: str) -> None:
    assert undocumented(enum_of(module, name)) == []


def reported() -> set[Reason]:
    """The reasons with which something is reported: somebody has to do something about each of them."""
    found: set[Reason] = set()
    for node in (node for file in below("shared") for node in ast.walk(tree(file)) if isinstance(node, ast.Call)):
        said = [part for part in ast.walk(node) if isinstance(part, ast.Attribute)]
        reports = "_report" in {getattr(node.func, "id", None), getattr(node.func, "attr", None)} or any(
            ast.unparse(part) == "Action.REPORT" for part in said
        )
        reasons = [Reason[part.attr] for part in said if ast.unparse(part).startswith("Reason.")]
        if reports and reasons:
            found.add(reasons[0])
    return found


WARNINGS = {Reason.ACCESS_UNKNOWN, Reason.READER_MISSING, Reason.PURGE_PROTECTION_OFF}
"""What is said beside a write, and holds nothing up."""


def prerequisites_reported() -> set[Reason]:
    """The reasons that the prerequisites name: each is reported, but for the warnings."""
    nodes = ast.walk(tree(ROOT / "shared" / "prerequisites.py"))
    named = {node.attr for node in nodes if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "Reason"}
    return {Reason[name] for name in named} - WARNINGS


def test_every_reason_that_is_reported_says_how_to_mend_it() -> None:
    found = reported() | prerequisites_reported() | BLOCKING

    assert found >= {Reason.FAILED, Reason.UNREADABLE, Reason.POISONED, Reason.WAITED_TOO_LONG, Reason.CONTESTED}
    assert found >= {Reason.VAULT_MISSING, Reason.KEY_DELETED, Reason.ACCESS_WRAP_ONLY, Reason.BLOCKED}
    assert {reason for reason in found if fix(reason, Subject(CLUSTER_ID)) is None} == set()


IN_A_TABLE = {"rotates_legacy"}
"""Checks that `tests/test_legacy.py` holds to a table of all cases, by what `decide` answers."""


def test_every_check_has_a_test_of_its_own() -> None:
    tests = (ROOT / "tests" / "test_decisions.py").read_text(encoding="utf-8")
    names = {check.__name__ for check in CHECKS} - IN_A_TABLE

    assert sorted(name for name in names if f"decisions.{name}" not in tests) == []


# names

VAGUE = re.compile(r"manager|help(er|s)|util|handler|(^|_)process_|(^|_)do_", re.IGNORECASE)


def defined(file: Path) -> Iterator[tuple[str, ast.AST]]:
    """The names that a file gives: of classes, functions, parameters and variables."""
    for node in ast.walk(tree(file)):
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield name, node
            case ast.arg(arg=name) | ast.Name(id=name, ctx=ast.Store()):
                yield name, node


def test_names_say_what_a_thing_is() -> None:
    files = [*PRODUCT, *below("local")]
    vague = [f"{where(file, node)} {name}" for file in files for name, node in defined(file) if VAGUE.search(name)]
    modules = [str(file.relative_to(ROOT)) for file in files if VAGUE.search(file.stem)]

    assert vague + modules == []


def test_tests_neither_patch_nor_sleep() -> None:
    """What replaces a part of the code in place tests a program that nobody runs; what sleeps is slow or flaky."""
    forbidden = {"mock.patch", "monkeypatch.setattr", "time.sleep", "unittest.mock"}
    found = [
        where(file, node)
        for file in below("tests")
        for node in ast.walk(tree(file))
        if (isinstance(node, ast.Attribute) and ast.unparse(node) in forbidden)
        or (isinstance(node, ast.Import) and any(alias.name in forbidden for alias in node.names))
        or (isinstance(node, ast.ImportFrom) and is_forbidden(node, forbidden))
    ]

    assert found == []


def is_forbidden(node: ast.ImportFrom, forbidden: set[str]) -> bool:
    return node.module in forbidden or any(f"{node.module}.{alias.name}" in forbidden for alias in node.names)


# what the app never does to what is not its own

TAKES_AWAY = re.compile(
    r"(?!purge_protection$)(begin_)?(delete|purge|recover|undelete|restore|remove|disable|revoke|destroy)(_.*)?"
)
"""The SDKs' names are in lower case."""


def taking_away(module: ast.Module) -> Iterator[str]:
    """Yield the names by which something could be deleted, purged, brought back, removed or disabled, called or not."""
    for node in ast.walk(module):
        match node:
            case ast.Attribute(attr=name) | ast.Name(id=name) | ast.alias(name=name) if TAKES_AWAY.fullmatch(name):
                yield name
            case ast.Call(func=ast.Name(id="getattr" | "attrgetter" | "methodcaller"), args=args):
                words = (str(arg.value) for arg in args if isinstance(arg, ast.Constant))
                yield from filter(TAKES_AWAY.fullmatch, words)


SERVICES = (
    *(ManagedClustersOperations, VaultsOperations, KeysOperations, KeyClient),
    *(RoleAssignmentsOperations, RoleDefinitionsOperations, UserAssignedIdentitiesOperations),
)
READS = ("_", "get", "list", "check_", "from_", "close", "models", "send_request", "vault_url")
WRITES = {name for service in SERVICES for name in dir(service) if not name.startswith(READS)}
"""What the services can do besides reading, by the names that their SDKs have for it."""

ALLOWED = {
    "aks": {"begin_create_or_update", "begin_run_command"},
    "announcements": set[str](),
    "calls": set[str](),
    "keyvault": {"begin_create_or_update", "update", "create_if_not_exist"},
    "identities": {"create_or_update"},
    "access": {"create"},
    "vaultdoor": {"rotate_key"},
}
"""What each adapter writes. A new word here is a new thing that the app does to somebody's subscription."""


def writing(module: ast.Module) -> set[str]:
    """Return the write operations of the services that a module names, called or not, and odd HTTP verbs."""
    named = {node.attr for node in ast.walk(module) if isinstance(node, ast.Attribute)} & WRITES
    return named | {
        text
        for node in ast.walk(module)
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("HttpRequest")
        for text in map(ast.unparse, node.args[:1])
        if text != "'GET'"
    }


def sent(module: ast.Module) -> Iterator[tuple[str, str]]:
    """Yield what is put into the services' models: the model and the field, `=` for a field that is set on one."""
    models = {
        alias.asname or alias.name
        for node in ast.walk(module)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("azure.mgmt.")
        for alias in node.names
    }
    for node in ast.walk(module):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in models:
            yield from ((node.func.id, keyword.arg or "**") for keyword in node.keywords)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and ast.unparse(node.value) != "self":
            yield "=", node.attr


GIVES_AN_IDENTITY = {"identity", "identityProfile", "userAssignedIdentities"}


def giving_an_identity(module: ast.Module) -> Iterator[str]:
    """Yield the functions that put an identity into a document, or take one out of it."""
    functions = [node for node in ast.walk(module) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    for function in functions:
        for node in ast.walk(function):
            stored = isinstance(node, ast.Subscript) and not isinstance(node.ctx, ast.Load) and named_in(node.slice)
            taken = (
                isinstance(node, ast.Call)
                and getattr(node.func, "attr", None) in {"pop", "setdefault"}
                and any(map(named_in, node.args[:1]))
            )
            built = isinstance(node, ast.Dict) and any(
                isinstance(key, ast.Constant) and key.value == "userAssignedIdentities" for key in node.keys
            )
            if stored or taken or built:
                yield function.name


def named_in(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value in GIVES_AN_IDENTITY


def test_the_product_has_no_word_for_taking_anything_away() -> None:
    found = [f"{file.name}: {name}" for file in PRODUCT for name in taking_away(tree(file))]

    assert found == []


def test_each_adapter_writes_what_is_listed_and_nothing_else() -> None:
    found = {name: set().union(*(writing(tree(file)) for file in rooms()[name])) for name in ALLOWED}

    assert found == ALLOWED
    assert {"delete", "begin_purge_deleted", "update_access_policy", "create_by_id", "begin_delete"} < WRITES
    assert {"update_key_properties", "delete_key", "recover_deleted_key", "purge_deleted_key"} < WRITES


def test_only_the_rooms_that_are_listed_use_the_management_sdks() -> None:
    using = {
        name for name, files in rooms().items() for file in files if any("azure.mgmt." in one for one in imported(file))
    }

    assert using <= set(ALLOWED)
    asking = {room(file) for file in PRODUCT if list(calls(file, "HttpRequest"))}
    assert asking == {"calls"}


def test_the_permission_model_is_chosen_when_a_vault_is_made_and_nothing_but_the_bypass_after() -> None:
    fields = set(sent(tree(ROOT / "shared" / "keyvault.py")))

    assert {model for model, name in fields if name == "enable_rbac_authorization"} == {"VaultProperties"}
    assert {model for model, name in fields if name == "access_policies"} == {"VaultProperties"}
    assert {name for model, name in fields if model == "VaultPatchParameters"} == {"properties"}
    assert {name for model, name in fields if model == "VaultPatchProperties"} == {"network_acls"}
    assert {name for model, name in fields if model == "="} == {"bypass"}
    assert not {"create_mode", "**", "enabled", "attributes"} & {name for _, name in fields}


def test_a_cluster_gets_an_identity_in_one_place() -> None:
    assert {name for file in PRODUCT for name in giving_an_identity(tree(file))} == {"asking_for"}


@pytest.mark.parametrize(
    "offence",
    [
        "await client.vaults.delete(group, name)",
        "await client.vaults.begin_purge_deleted(name, region)",
        "await client.role_assignments.delete_by_id(one)",
        "poller = keys.begin_recover_deleted_key(name)",
        "ask = client.delete_key",
        "getattr(client, 'purge_deleted_key')(name)",
        "from azure.keyvault.keys import restore_key_backup",
    ],
)
def test_a_word_for_taking_away_is_found(offence: str) -> None:
    assert list(taking_away(ast.parse(offence)))


@pytest.mark.parametrize(
    ("offence", "word"),
    [
        ("await client.vaults.update_access_policy(group, name, kind, policies)", "update_access_policy"),
        ("await door.update_key_properties(name, enabled=False)", "update_key_properties"),
        ("await door.rotate_key(name)", "rotate_key"),
        ("await client.role_assignments.create_by_id(one, asked)", "create_by_id"),
        ("await client.send_request(HttpRequest('DELETE', url))", "'DELETE'"),
        ("await client.send_request(rest.HttpRequest(verb, url))", "verb"),
    ],
)
def test_a_write_that_is_not_listed_is_found(offence: str, word: str) -> None:
    assert writing(ast.parse(offence)) == {word}


@pytest.mark.parametrize(
    ("offence", "expected"),
    [
        ("VaultPatchProperties(enable_rbac_authorization=True)", ("VaultPatchProperties", "enable_rbac_authorization")),
        ("VaultProperties(create_mode='recover')", ("VaultProperties", "create_mode")),
        ("found.properties.enable_rbac_authorization = True", ("=", "enable_rbac_authorization")),
        ("VaultPatchProperties(**said)", ("VaultPatchProperties", "**")),
    ],
)
def test_a_field_that_is_sent_is_found(offence: str, expected: tuple[str, str]) -> None:
    module = ast.parse(f"from azure.mgmt.keyvault.models import VaultPatchProperties, VaultProperties\n{offence}")

    assert expected in set(sent(module))


@pytest.mark.parametrize(
    "offence",
    [
        "document['identity'] = {'type': 'None'}",
        "del document['identity']",
        "document.pop('identity', None)",
        "document['identity']['userAssignedIdentities'] = {}",
        "document |= {'identity': {'userAssignedIdentities': {}}}",
    ],
)
def test_an_identity_that_is_given_or_taken_elsewhere_is_found(offence: str) -> None:
    module = ast.parse(f"def quietly(document):\n    {offence}\n")

    assert set(giving_an_identity(module)) == {"quietly"}


# what is tracked


# Put together from parts, so that this file does not hold what it looks for.
MACHINE_PATH = re.compile(
    r"(?<![\w.:/}-])/(?:" + "|".join(["root", "work", "tmp"]) + r")(?=[/\s\"'`,)]|$)", re.MULTILINE
)
PACKAGE_INDEX = re.compile(
    r"--(?:(?:extra-)?index-url|find-links|trusted-host)|registry\.npmjs|pypi\.org/simple|files\.pythonhosted"
)
RESOLVED = re.compile(r"\"resolved\":\s*\"http")


def lines_with(pattern: re.Pattern[str]) -> list[str]:
    return [
        f"{name}:{text.count('\n', 0, match.start()) + 1} {match[0].strip()}"
        for name, text in tracked().items()
        for match in pattern.finditer(text)
    ]


@pytest.mark.parametrize(
    "pattern",
    [
        pytest.param(MACHINE_PATH, id="a-path-of-one-machine"),
        pytest.param(PACKAGE_INDEX, id="the-address-of-a-package-index"),
        pytest.param(RESOLVED, id="an-address-in-a-lock-file"),
    ],
)
def test_nothing_that_is_tracked_belongs_to_one_machine(pattern: re.Pattern[str]) -> None:
    assert lines_with(pattern) == []


def test_no_settings_of_one_machine_are_tracked() -> None:
    assert [name for name in tracked() if name.endswith(("local.settings.json", ".env"))] == []
    assert "function_app.py" in tracked()


PINNED = re.compile(
    r"[a-z0-9][a-z0-9._-]*(\[[a-z0-9,._-]+\])?==[\w.!+]+( ?; [^\\]+)?( --hash=sha256:[0-9a-f]{64})+", re.IGNORECASE
)


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt"])
def test_requirements_are_pinned_and_hashed_and_name_no_address(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    joined = re.sub(r"\s*\\\n\s*", " ", text).splitlines()
    requirements = [line.strip() for line in joined if line.strip() and not line.strip().startswith("#")]

    assert requirements
    assert [line[:80] for line in requirements if PINNED.fullmatch(line) is None] == []
    assert "://" not in text
