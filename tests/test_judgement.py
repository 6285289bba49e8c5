"""The product's judgement on one page: `judgement.md`, written by hand, holds the code to every cell.

A word of the page that is not known here fails, so that no row or column is passed over.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from shared.clusters import Cluster, asking_for
from shared.decisions import Change, Decision, Facts, decide
from shared.keys import Grant, VaultId, VaultNetwork
from shared.policy import Assignment
from shared.prerequisites import Prerequisites
from shared.reasons import Action, Reason
from tests.builders import (
    IDENTITY_ID,
    NOW,
    OTHER_IDENTITY_ID,
    OTHER_TENANT,
    PMK,
    PRINCIPAL,
    SECOND,
    SUBSCRIPTION,
    VAULT_ID,
    VERSION,
    access,
    document,
    key,
    policy,
    prerequisites,
    vault,
)

PAGE = Path(__file__).parent / "judgement.md"

# the words of a row: what a cluster's document says

OTHER_VAULT_ID = VaultId(SUBSCRIPTION, "rg-keys", "kv-other")
HSM_URL = "https://kv-kms.managedhsm.azure.net/keys/etcd"
KEYS = {"same key": (VAULT_ID, "etcd"), "other key": (VAULT_ID, "other"), "other vault": (OTHER_VAULT_ID, "etcd")}
ACCESS = {"public": "Public", "private": "Private"}
WITH_A_KEY = {
    "legacy": (f"/{VERSION}", {}),
    "customer-managed": ("", PMK),
    "versioned key with profile": (f"/{VERSION}", PMK),
    "versionless key without profile": ("", {}),
}
"""What stands behind the key's name, and what stands beside the key."""

WITHOUT_A_KEY: dict[str, dict[str, Any]] = {
    "no KMS": {},
    "no KMS (null)": {"azureKeyVaultKms": None},
    "no KMS (empty)": {"azureKeyVaultKms": {}},
    "no KMS (enabled: false)": {"azureKeyVaultKms": {"enabled": False}},
    "no KMS (off with its key left behind)": {"azureKeyVaultKms": {"enabled": False, "keyId": f"https://x/{VERSION}"}},
    "no KMS (profile Disabled)": {
        "kubernetesResourceObjectEncryptionProfile": {"infrastructureEncryption": "Disabled"}
    },
    "platform-managed": PMK,
    "platform-managed (KMS null)": PMK | {"azureKeyVaultKms": None},
    "platform-managed (KMS enabled: false)": PMK | {"azureKeyVaultKms": {"enabled": False}},
    "managed HSM key without profile": {"azureKeyVaultKms": {"enabled": True, "keyId": HSM_URL}},
    "managed HSM key with profile": PMK | {"azureKeyVaultKms": {"enabled": True, "keyId": HSM_URL}},
    "enabled without a key": {"azureKeyVaultKms": {"enabled": True}},
}
CONDITIONS: dict[str, dict[str, Any]] = {
    "1.26.15": {"kubernetes": "1.26.15"},
    "1.27.0": {"kubernetes": "1.27.0"},
    "1.32.9": {"kubernetes": "1.32.9"},
    "1.33.0": {"kubernetes": "1.33.0"},
    "creating": {"state": "Creating"},
    "updating": {"state": "Updating"},
    "pool updating": {"pools": ("Succeeded", "Updating")},
    "failed": {"state": "Failed"},
    "canceled": {"state": "Canceled"},
    "stopped": {"power": "Stopped"},
    "no eTag": {"etag": None},
    "opted out": {"tags": {"kms-enforcer": "off"}},
    "service principal": {"identity": None},
    "system-assigned": {"identity": "SystemAssigned"},
    "the named identity": {"assigned": (IDENTITY_ID,)},
    "another identity": {"assigned": (OTHER_IDENTITY_ID,)},
}
CAPITALS = "ids in capitals"

# the words of a column: what a policy asks

TARGETS: dict[str, dict[str, Any]] = {
    "no target": {"keyManagement": "platform-managed", "match": {"names": ["another-cluster"]}},
    "platform-managed": {"keyManagement": "platform-managed"},
    "customer-managed public": {"keyManagement": "customer-managed", "networkAccess": "public"},
    "customer-managed private": {"keyManagement": "customer-managed", "networkAccess": "private"},
}
ALLOWED: dict[str, dict[str, Any]] = {
    "migrate": {"migrate": True},
    "allowUnconfirmed": {"allowUnconfirmed": True},
    "identity named": {"identity": IDENTITY_ID},
    "allowIdentityChange": {"allowIdentityChange": True},
}

# the words of a prerequisite: fields of what was found, of the vault, the key and the access

PREREQUISITES: dict[str, dict[str, dict[str, Any]]] = {
    "all in place": {},
    "vault open": {"vault": {"network": VaultNetwork.OPEN}},
    "vault closed but for trusted services": {"vault": {"network": VaultNetwork.TRUSTED}},
    "vault closed to trusted services too": {"vault": {"network": VaultNetwork.CLOSED}},
    "vault open to selected networks": {"vault": {"network": VaultNetwork.SELECTED}},
    "vault behind a network security perimeter": {"vault": {"network": VaultNetwork.PERIMETER}},
    "vault missing": {"found": {"vault": None, "key": None}},
    "vault soft-deleted": {"found": {"vault": None, "key": None, "vault_deleted": True}},
    "vault not readable by the app": {"found": {"vault": None, "key": None, "unreadable": True}},
    "vault of another tenant": {"vault": {"tenant": OTHER_TENANT}},
    "vault with access policies that grant it": {
        "vault": {"rbac": False, "policies": {PRINCIPAL: frozenset({"encrypt", "decrypt"})}}
    },
    "vault without purge protection": {"vault": {"purge_protection": False}},
    "key missing": {"found": {"key": None}},
    "key soft-deleted": {"found": {"key": None, "key_deleted": True}},
    "key not readable by the app": {"found": {"key": None, "unreadable": True}},
    "key disabled": {"key": {"enabled": False}},
    "key valid in a second": {"key": {"not_before": NOW + SECOND}},
    "key valid from now on": {"key": {"not_before": NOW}},
    "key expires in a second": {"key": {"expires": NOW + SECOND}},
    "key expires now": {"key": {"expires": NOW}},
    "key of an HSM": {"key": {"kind": "RSA-HSM"}},
    "key of an elliptic curve": {"key": {"kind": "EC"}},
    "key without encrypt": {"key": {"operations": frozenset({"decrypt", "wrapkey", "unwrapkey"})}},
    "key without decrypt": {"key": {"operations": frozenset({"encrypt", "wrapkey", "unwrapkey"})}},
    "encrypt and decrypt not granted": {"access": {"crypto": Grant.MISSING}},
    "only wrap and unwrap granted": {"access": {"crypto": Grant.WRAP_ONLY}},
    "grant can't be told": {"access": {"crypto": Grant.UNKNOWN}},
    "no role that reads the vault": {"access": {"reading": Grant.MISSING}},
}
IN_PLACE = "all in place"
TELLING = (IN_PLACE, "vault missing", "key disabled", "encrypt and decrypt not granted")
"""Findings between which every answer differs that depends on what a survey finds."""


# reading the page

Answer = tuple[str, ...]
"""An action, the reason that decided, and the warnings."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of one table: its cells by their columns."""

    section: str
    label: str
    cells: dict[str, Answer]

    @property
    def name(self) -> str:
        return f"{self.section}: {self.label}"


def cells_of(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


CELL = re.compile(r"(?P<action>[a-z-]+) (?P<reason>[a-z0-9-]+)(?P<warnings>( \+ [a-z0-9-]+)*)")


def answer_in(cell: str) -> Answer:
    """Read `action reason + warning`; every word must be one of the product's."""
    match = CELL.fullmatch(cell)
    assert match is not None, f"{cell!r} is not an action and a reason"
    reasons = [match["reason"], *match["warnings"].split(" + ")[1:]]
    return (Action(match["action"]).value, *(Reason(reason).value for reason in reasons))


def tables() -> Iterator[tuple[str, list[str]]]:
    """The page's tables, each with the section it stands in; the legend is none of them."""
    section, lines = "", list[str]()
    for line in [*PAGE.read_text(encoding="utf-8").splitlines(), ""]:
        if line.startswith("|"):
            lines.append(line)
            continue
        if lines and section:
            yield section, lines
        lines = []
        section = line.removeprefix("## ") if line.startswith("## ") else section


def rows_under(first: str) -> list[Row]:
    """The rows of all tables whose first column is called so."""
    rows: list[Row] = []
    for section, (header, _ruler, *body) in tables():
        head, *columns = cells_of(header)
        assert head in {"Cluster", "Vault, key and permission"}, f"{head!r} is no table that is known here"
        for label, *cells in map(cells_of, body if head == first else ()):
            answers = map(answer_in, cells)
            rows.append(Row(section, label, dict(zip(columns, answers, strict=True))))
    return rows


CLUSTERS = rows_under("Cluster")
FINDINGS = rows_under("Vault, key and permission")

of_clusters = pytest.mark.parametrize("row", [pytest.param(row, id=row.name) for row in CLUSTERS])
of_findings = pytest.mark.parametrize("row", [pytest.param(row, id=row.name) for row in FINDINGS])


# from words to what is decided on


def one_of(words: list[str], known: dict[str, Any]) -> str:
    """Take out the one word that is known."""
    (found,) = [word for word in words if word in known]
    words.remove(found)
    return found


def security_of(words: list[str]) -> dict[str, Any]:
    """Take out the words about encryption, and return the securityProfile that they mean."""
    kind = words.pop(0)
    if kind in WITHOUT_A_KEY:
        return WITHOUT_A_KEY[kind]
    behind, beside = WITH_A_KEY[kind]
    vault_id, name = KEYS[one_of(words, KEYS)]
    url, resource_id = f"https://{vault_id.name}.vault.azure.net/keys/{name}{behind}", str(vault_id)
    if CAPITALS in words:
        words.remove(CAPITALS)
        url, resource_id = url.upper(), resource_id.upper()
    kms = {
        "enabled": True,
        "keyId": url,
        "keyVaultNetworkAccess": ACCESS[one_of(words, ACCESS)],
        "keyVaultResourceId": resource_id,
    }
    return {"azureKeyVaultKms": kms, **beside}


def document_of(label: str) -> dict[str, Any]:
    """The document of the cluster that a row means; a word that is not known is a KeyError."""
    words = label.split(", ")
    said: dict[str, Any] = {"security": security_of(words)}
    for word in words:
        said |= CONDITIONS[word]
    return document(**said)


def assignment_of(column: str, found: Cluster) -> Assignment:
    """What a policy asks of this cluster whose one target is what the column means."""
    kind, *words = column.split(", ")
    asked = TARGETS[kind]
    if asks_for_a_key(column):
        asked = asked | {"vault": str(VAULT_ID), "key": "etcd"}
    for word in words:
        asked = asked | ALLOWED[word]
    text = {"version": 1, "mode": "enforce", "acceptIrreversible": True, "targets": [asked]}
    return policy(json.dumps(text)).assignment(found, NOW)


def asks_for_a_key(column: str) -> bool:
    return column.startswith("customer-managed")


def found_for(column: str, finding: str = IN_PLACE) -> Prerequisites | None:
    """What a survey finds: all as the column asks, but for what the finding says. None where nobody looks."""
    if not asks_for_a_key(column):
        return None
    fits = VaultNetwork.TRUSTED if column.startswith("customer-managed private") else VaultNetwork.OPEN
    said = PREREQUISITES[finding]
    parts: dict[str, Any] = {
        "vault": vault(**{"network": fits, **said.get("vault", {})}),
        "key": key(**said.get("key", {})),
        "access": access(**said.get("access", {})),
    }
    return prerequisites(**parts | said.get("found", {}))


def judged(read: dict[str, Any], column: str, found: Prerequisites | None) -> Decision:
    cluster = Cluster.read(read, read)
    return decide(Facts(cluster, prerequisites=found), assignment_of(column, cluster), NOW)


def answered(label: str, column: str, found: Prerequisites | None) -> Answer:
    decision = judged(document_of(label), column, found)
    return (decision.action.value, *(reason.value for reason in decision.reasons))


# every cell


@of_clusters
def test_the_code_judges_a_cluster_as_the_page_says(row: Row) -> None:
    answers = {column: answered(row.label, column, found_for(column)) for column in row.cells}

    assert answers == row.cells


@of_findings
def test_the_code_judges_vault_key_and_permission_as_the_page_says(row: Row) -> None:
    answers = {column: answered("no KMS", column, found_for(column, row.label)) for column in row.cells}

    assert answers == row.cells


LOOKS_CLOSER: Answer = (Action.LOOK_CLOSER.value, Reason.PREREQUISITES_UNKNOWN.value)


def before_the_look(label: str, column: str) -> Answer:
    """What has to be answered without a survey: the answer, where it is the same whatever a survey finds."""
    answers = {answered(label, column, found_for(column, finding)) for finding in TELLING}
    return answers.pop() if len(answers) == 1 else LOOKS_CLOSER


@of_clusters
def test_a_closer_look_is_asked_for_exactly_where_the_answer_depends_on_it(row: Row) -> None:
    without = {column: answered(row.label, column, None) for column in row.cells}

    assert without == {column: before_the_look(row.label, column) for column in row.cells}


@of_clusters
def test_every_write_on_the_page_ends_as_asked(row: Row) -> None:
    for column, (action, reason, *_) in row.cells.items():
        if action != Action.WRITE:
            continue
        read = document_of(row.label)
        for _ in range(2 if reason == Reason.IDENTITY_TO_CHANGE else 1):
            change = judged(read, column, found_for(column)).change
            assert isinstance(change, Change), column
            read = asking_for(read, change.after, change.identity)

        again = judged(read, column, found_for(column))

        assert again == Decision(Action.NOTHING, (Reason.AS_ASKED,)), column


@of_clusters
def test_a_pause_holds_back_every_write_on_the_page_and_nothing_else(row: Row) -> None:
    read = document_of(row.label)
    cluster = Cluster.read(read, read)

    for column in row.cells:
        free = judged(read, column, found_for(column))
        facts = Facts(cluster, prerequisites=found_for(column), paused=True)
        held = decide(facts, assignment_of(column, cluster), NOW)

        if free.action is Action.WRITE:
            free = replace(free, action=Action.WAIT, reasons=(Reason.PAUSED, *free.reasons))
        assert held == free, column


@of_findings
def test_no_finding_is_asked_about_where_the_look_has_not_been_taken(row: Row) -> None:
    assert {answered("no KMS", column, None) for column in row.cells} == {LOOKS_CLOSER}


# the whole page


def labels(*parts: tuple[str, ...]) -> set[str]:
    """Every combination of one word of each part; an empty word is left out."""
    return {", ".join(filter(None, words)) for words in product(*parts)}


EITHER, ANY_KEY, ITS_KEY = tuple(ACCESS), tuple(KEYS), ("same key",)
DESIRED = labels(("no KMS", "platform-managed")) | labels(("customer-managed",), EITHER, ITS_KEY)
STATES = (
    set(WITHOUT_A_KEY)
    | labels(("no KMS",), ("1.32.9", "1.33.0", "service principal", "system-assigned", "no eTag", "opted out"))
    | labels(("legacy",), ("1.26.15",), EITHER, ITS_KEY)
    | labels(("legacy",), ("1.32.9", "1.33.0"), EITHER, ANY_KEY)
    | labels(("legacy",), ("1.27.0",), ("public",), ITS_KEY)
    | labels(("customer-managed",), EITHER, ANY_KEY)
    | labels(("versioned key with profile", "versionless key without profile"), EITHER, ITS_KEY)
    | labels(tuple(DESIRED), ("updating", "failed", "stopped"))
    | labels(("no KMS", "platform-managed", "customer-managed, public, same key"), ("pool updating",))
    | labels(("legacy, 1.33.0, public, same key",), ("updating", "failed", "stopped"))
)
"""The states that a cluster can be in, as the issue lists them."""

ALL_TARGETS = {
    "no target",
    *(f"{target}{migrate}" for target, migrate in product(TARGETS.keys() - {"no target"}, ["", ", migrate"])),
}


def test_the_page_judges_every_state_against_every_target() -> None:
    whole = {row.label for row in CLUSTERS if row.cells.keys() == ALL_TARGETS}

    assert STATES - whole == set()


def test_the_page_judges_every_move_that_no_document_states() -> None:
    encrypted = labels(("legacy, 1.33.0", "customer-managed"), EITHER, ANY_KEY)
    allowed = {row.label for row in CLUSTERS if all("allowUnconfirmed" in column for column in row.cells)}

    assert encrypted - allowed == set()


def test_the_page_names_every_finding() -> None:
    assert {row.label for row in FINDINGS} == PREREQUISITES.keys()


def test_the_page_says_everything_once() -> None:
    twice = [name for name, times in Counter(row.name for row in [*CLUSTERS, *FINDINGS]).items() if times > 1]

    assert twice == []


def test_the_page_shows_every_reason_that_its_words_can_give() -> None:
    columns = {column for row in CLUSTERS for column in row.cells}
    kinds = (*DESIRED, "legacy, 1.33.0, public, same key", "enabled without a key")
    states = labels(kinds, ("", *CONDITIONS))

    given = {
        reason for label in states for column in columns for reason in answered(label, column, found_for(column))[1:]
    }

    shown = {reason for row in CLUSTERS for _, *reasons in row.cells.values() for reason in reasons}
    assert given - shown == set()


# the reader itself


@pytest.mark.parametrize(
    "label",
    ["no kms", "legacy, public, same key, exploding", "legacy, public", "customer-managed, same key", "platform"],
)
def test_a_row_that_is_not_known_is_refused(label: str) -> None:
    with pytest.raises((KeyError, ValueError)):
        document_of(label)


@pytest.mark.parametrize("column", ["platform managed", "customer-managed public, force", ""])
def test_a_column_that_is_not_known_is_refused(column: str) -> None:
    read = document()

    with pytest.raises(KeyError):
        assignment_of(column, Cluster.read(read, read))


@pytest.mark.parametrize("cell", ["", "write", "write because", "explode as-asked", "write not-as-asked +"])
def test_a_cell_that_is_not_known_is_refused(cell: str) -> None:
    with pytest.raises((AssertionError, ValueError)):
        answer_in(cell)
