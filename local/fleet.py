"""A fleet from outside: what would the policy do to my own clusters? Nothing leaves this machine.

Read is the output of `az rest --method get --url ".../managedClusters?api-version=2026-08-01"`, ARM's own shape, of
one subscription or of several, one answer after the other. That of `az aks list -o json` is read too; today's CLI
asks an older API, which can't show platform-managed keys.
"""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from local.play import Stuck
from local.stage import Stage

_WITHIN = timedelta(minutes=5)
_PAUSE_SECONDS = 0.2
_FOR_EVER = 10**9

Json = dict[str, Any]

SETTINGS = {"SWEEP_SCHEDULE": "0 0 0 29 2 *"}
"""The timer must not fire meanwhile: a sweep of its own would go as far as the policy lets it, not audit."""

OLD_API = "Read by an older API, to which platform-managed keys don't show."
NEEDS_A_LOOK = "Needs a look at vault, key and roles, which are not in this file."

_ENVELOPE = frozenset(
    {"eTag", "extendedLocation", "id", "identity", "kind", "location", "name", "sku", "systemData", "tags", "type"}
)
"""What ARM has beside `properties`; the CLI puts everything on one level."""

_RENAMED = {"resourceUid": "resourceUID", "azurePortalFqdn": "azurePortalFQDN", "privateFqdn": "privateFQDN"}
"""What the CLI calls otherwise than ARM does."""

_CLUSTER_ID = re.compile(
    r"/subscriptions/[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}/resourcegroups/[\w.()-]{0,89}[\w()-]"
    r"/providers/microsoft\.containerservice/managedclusters/[a-z0-9][a-z0-9_-]{0,62}",
    re.IGNORECASE,
)

_BLANKS = re.compile(r"\s*")


class FleetError(Exception):
    """A file that holds no fleet; the text says what was expected."""


@dataclass(frozen=True, slots=True)
class OutsideFleet:
    """Clusters as ARM's documents. `by_older_api`: ids, in lower case, of those whose answer can't show everything.

    `warnings` are what has to be said of the file as a whole.
    """

    documents: tuple[Json, ...]
    by_older_api: frozenset[str] = frozenset()
    warnings: tuple[str, ...] = ()

    @classmethod
    def read(cls, file: Path) -> OutsideFleet:
        """Read a file. FleetError says in one sentence why it holds no fleet."""
        answers = _answers(file)
        rows = list(_rows(answers))
        for number, row in enumerate(rows, 1):
            _check(row, f"row {number} of {file}" if len(rows) > 1 else str(file))
        if not rows:
            raise FleetError(f"{file} lists no clusters: nothing to look at")
        _check_once(rows, file)
        old = () if any(map(_shows_everything, rows)) else (row for row in rows if _is_flat(row))
        return cls(tuple(map(_document, rows)), frozenset(row["id"].lower() for row in old), _warnings(answers, file))


def _answers(file: Path) -> list[Any]:
    """Read the JSON values of a file, one after the other: what several calls printed, in any encoding of Unicode."""
    try:
        data = file.read_bytes()
    except OSError as error:
        raise FleetError(f"{file} can't be read: {(error.strerror or str(error)).lower()}") from error
    try:
        text = data.decode(json.detect_encoding(data)).strip()
        values, at = [], 0
        while at < len(text):
            value, at = json.JSONDecoder().raw_decode(text, at)
            values.append(value)
            at = _end_of_blanks(text, at)
    except (ValueError, RecursionError) as error:
        raise FleetError(f"{file} is not JSON: {error or 'too deep'}") from error
    if not values:
        raise FleetError(f"{file} is empty")
    return values


def _end_of_blanks(text: str, at: int) -> int:
    match = _BLANKS.match(text, at)
    return match.end() if match else at


def _rows(body: Any) -> Iterator[Any]:
    """Take lists apart, and the `value` of what ARM answers; all else is a row."""
    if isinstance(body, dict) and isinstance(body.get("value"), list):
        yield from _rows(body["value"])
    elif isinstance(body, list):
        for part in body:
            yield from _rows(part)
    else:
        yield body


def _check(row: Any, where: str) -> None:
    if not isinstance(row, dict) or "id" not in row:
        expected = "a managed cluster as `az rest` or `az aks list -o json` print it"
        raise FleetError(f"{where} has no id: expected is {expected}")
    if not isinstance(row["id"], str) or _CLUSTER_ID.fullmatch(row["id"]) is None:
        raise FleetError(f"{where} is not a managed cluster; its id is {str(row['id'])[:200]}")
    if not isinstance(row.get("properties", {}), dict):
        raise FleetError(f"{where} has properties that are no object")


def _check_once(rows: list[Json], file: Path) -> None:
    seen: set[str] = set()
    for row in rows:
        if row["id"].lower() in seen:
            raise FleetError(f"{file} lists a cluster twice: {row['id']}")
        seen.add(row["id"].lower())


def _warnings(answers: list[Any], file: Path) -> tuple[str, ...]:
    """ARM lists page by page, and `az rest` asks for the first page only."""
    links = sum(isinstance(answer, dict) and bool(answer.get("nextLink")) for answer in answers)
    if not links:
        return ()
    return (f"{file} may not be the whole fleet: it has a nextLink, and what follows there must be added to it",)


def _is_flat(row: Json) -> bool:
    return "properties" not in row


def _shows_everything(row: Json) -> bool:
    """The CLI prints every field that its API has, null where there is nothing: one row tells for all."""
    profile = row.get("securityProfile")
    return isinstance(profile, dict) and "kubernetesResourceObjectEncryptionProfile" in profile


def _document(row: Json) -> Json:
    """Return ARM's shape. An eTag that the file lacks is made up: a fleet is only looked at here."""
    if _is_flat(row):
        inner = {_RENAMED.get(name, name): value for name, value in row.items() if name not in _ENVELOPE}
        inner.pop("resourceGroup", None)
        row = {name: value for name, value in row.items() if name in _ENVELOPE} | {
            "properties": {name: value for name, value in inner.items() if value is not None}
        }
    return row | {"eTag": row.get("eTag") or str(uuid.uuid4()), "name": row["id"].rsplit("/", 1)[-1]}


def audit(fleet: OutsideFleet, stage: Stage) -> list[Json]:
    """Let the app look at the fleet in audit; return its rows, each with `words` (what it comes to) and `remark`
    (what its file could not show).

    The stage must have been set up with these SETTINGS. Stuck if the looks do not end in time.
    """
    azure = stage.azure
    for document in fleet.documents:
        azure.aks.adopt(document)
    azure.faults.fail_next(
        "GET", r"Microsoft\.KeyVault", 403, code="AuthorizationFailed", message="not in this play", times=_FOR_EVER
    )
    stage.raise_curtain()
    run = stage.host.call("POST", "/api/runs", key=stage.host.function_key, body={"mode": "audit"}).json()
    end = time.monotonic() + _WITHIN.total_seconds()
    rows: list[Json] = []
    while len(rows) < len(fleet.documents):
        if time.monotonic() > end:
            raise Stuck(f"not every cluster was looked at within {_WITHIN.seconds} s\n{stage.host.child.tail()}")
        time.sleep(_PAUSE_SECONDS)
        done = stage.ask(f"/api/runs/{run['id']}")["status"] == "done"
        rows = stage.all_clusters() if done else []
    return [_told(row, fleet) for row in rows]


_NOT_TO_BE_SEEN = "vault-unreadable"
"""What the app says of vaults that it may not read. Here there are none at all."""


def _told(row: Json, fleet: OutsideFleet) -> Json:
    """A row as this play can answer for it: in audit, and where the vault would have to be seen, undecided."""
    row = row | {"mode": "audit"}
    if row["reason"] == _NOT_TO_BE_SEEN:
        reason = "prerequisites-unknown"
        row |= {"action": "look-closer", "reason": reason, "reasons": [reason], "detail": None, "fix": None}
    by_older_api = row["id"].lower() in fleet.by_older_api
    return row | {"words": _words(row), "remark": OLD_API if by_older_api else None}


def _words(row: Json) -> str:
    if row["action"] == "look-closer":
        return NEEDS_A_LOOK
    if row["action"] == "write":
        keys = "customer-managed" if row["change"]["after"]["azureKeyVaultKms"] else "platform-managed"
        return f"Would get {keys} keys."
    if row["action"] == "wait":
        return "Passes by itself: the app would look again."
    return row["fix"]["text"] if row["fix"] else row["detail"] or ""
