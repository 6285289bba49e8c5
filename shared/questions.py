"""What a caller asks for in the query of a URL, read strictly; and how times are told. Pure: no I/O, no clock.

Whatever is not understood is Malformed and says what to change: a filter that is passed over in silence would show
more than was asked for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, date, datetime
from enum import StrEnum
from typing import Any

from shared.errors import Malformed
from shared.keys import KEY_VAULT_SUFFIX, KeyId, KeyReference

Json = dict[str, Any]
Query = Mapping[str, str]

TOP, MOST = 100, 1000
"""Rows of a page, unless `top` says otherwise; and the most that it may ask for."""

_LONGEST = 2000
_KIND = re.compile(r"[a-z][a-z-]{0,49}")
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_YEARS = range(2000, 2200)
"""A table holds no earlier moment than 1601, and a line's name none after 2286."""


def only(query: Query, *names: str) -> None:
    """Malformed if the query has a parameter by another name, or one that is too long. `code` is the host's own."""
    unknown = sorted(set(query) - {*names, "code"})
    if unknown:
        taken = f"this list takes {', '.join(names)}" if names else "there is none here"
        raise Malformed(f"unknown parameter {unknown[0][:100]!r}: {taken}")
    long = [name for name in names if len(query.get(name, "")) > _LONGEST]
    if long:
        raise Malformed(f"{long[0]} has more than {_LONGEST} characters")


def top(query: Query) -> int:
    """Return how many rows a page is to have: 1 to MOST."""
    text = query.get("top", str(TOP))
    if not (text.isascii() and text.isdecimal()) or len(text) > len(str(MOST)) or not 1 <= int(text) <= MOST:
        raise Malformed(f"top must be a whole number, 1 to {MOST}")
    return int(text)


def moment(query: Query, name: str) -> datetime | None:
    """Return a moment, in UTC; None if it is not asked for. It must say its time zone."""
    if name not in query:
        return None
    try:
        found = datetime.fromisoformat(query[name])
        told = found.astimezone(UTC) if found.tzinfo is not None else None
    except (ValueError, OverflowError):
        told = None
    if told is None or told.year not in _YEARS:
        raise Malformed(f"{name} must be a moment with its time zone, like 2026-03-02T09:00:00Z (a + is %2B in a URL)")
    return told


def day(query: Query) -> date | None:
    """Return the day; None if it is not asked for."""
    return day_of(query["day"]) if "day" in query else None


def day_of(text: str) -> date:
    """Read a day."""
    try:
        found = date.fromisoformat(text) if _DAY.fullmatch(text) else None
    except ValueError:
        found = None
    if found is None or found.year not in _YEARS:
        raise Malformed("day must be a day in UTC, like 2026-03-02")
    return found


def flag(query: Query, name: str) -> bool | None:
    """Return true or false; None if it is not asked for."""
    if name not in query:
        return None
    if query[name] not in {"true", "false"}:
        raise Malformed(f"{name} must be true or false")
    return query[name] == "true"


def word[Word: StrEnum](query: Query, name: str, words: type[Word]) -> Word | None:
    """Return a word of a vocabulary; None if it is not asked for."""
    if name not in query:
        return None
    try:
        return words(query[name])
    except ValueError as error:
        raise Malformed(f"{query[name][:100]!r} is no {name}: it is one of {', '.join(words)}") from error


def kind(query: Query) -> str | None:
    """Return the kind of a line of activity; None if it is not asked for."""
    if "kind" in query and _KIND.fullmatch(query["kind"]) is None:
        raise Malformed("kind must be a word of lower-case letters and hyphens, like decision")
    return query.get("kind")


def key(query: Query) -> KeyId | None:
    """Return the key that a URL names; None if it is not asked for."""
    return KeyReference.parse(query["key"]).key if "key" in query else None


def key_named(vault: str, name: str) -> KeyId:
    """Return the key of these names; Malformed if there can't be one."""
    reference = KeyReference.parse(f"https://{vault}{KEY_VAULT_SUFFIX}/keys/{name}")
    if reference.version is not None:
        raise Malformed(f"not a key's name: {name[:200]!r}")
    return reference.key


def vault(query: Query) -> str | None:
    """Return a vault's name; None if it is not asked for."""
    return key_named(query["vault"], "any").vault if "vault" in query else None


def told(when: datetime | None) -> str | None:
    """Return a moment as answers tell it: ISO 8601 with a Z."""
    return when.isoformat().replace("+00:00", "Z") if when else None
