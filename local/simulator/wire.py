"""What passes over the wire, and anchored routes to whoever answers."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from local.simulator.identity import Caller

type Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Request:
    """One call as it came in. Header and query names are lower-case; `body` is parsed JSON, else text, else None."""

    method: str
    host: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: Any
    caller: Caller | None = None
    parameters: Mapping[str, str] = field(default_factory=dict)

    def __getitem__(self, parameter: str) -> str:
        """A part of the path, by the name that the route gives it."""
        return self.parameters[parameter]


@dataclass(frozen=True, slots=True)
class Reply:
    """What goes back: bytes are JSON rendered before."""

    status: int
    body: Json | bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def rendered(self) -> bytes:
        """The body as it goes over the wire."""
        if self.body is None:
            return b""
        return self.body if isinstance(self.body, bytes) else rendered(self.body)


@dataclass(frozen=True, slots=True)
class Route[Room]:
    """One operation of one service. The path must match as a whole, in any case, as ARM's paths do.

    Of ARM's: `action` is what a caller must be allowed; `linked` what else, at which scopes, by what the body refers
    to; `filtered` is a list that leaves out what the caller may not see, in place of a refusal.
    """

    method: str
    pattern: re.Pattern[str]
    answer: Callable[[Room, Request], Reply]
    action: str = ""
    linked: Callable[[Request], Sequence[tuple[str, str]]] | None = None
    filtered: bool = False

    def match(self, method: str, path: str) -> dict[str, str] | None:
        """The named parts of the path, or None when this is not the route."""
        if method != self.method:
            return None
        found = self.pattern.fullmatch(path)
        return None if found is None else found.groupdict()


def route[Room](
    method: str,
    template: str,
    answer: Callable[[Room, Request], Reply],
    action: str = "",
    *,
    linked: Callable[[Request], Sequence[tuple[str, str]]] | None = None,
    filtered: bool = False,
) -> Route[Room]:
    """A route by a template such as `/subscriptions/{subscription}`; a part never spans a slash."""
    literal = re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/]+)", re.escape(template))
    return Route(method, re.compile(literal, re.IGNORECASE), answer, action, linked, filtered)


def rendered(document: Json | list[Json] | str) -> bytes:
    """JSON as compact as the services send it."""
    return json.dumps(document, separators=(",", ":")).encode()


def merge(base: Json, extra: Mapping[str, Any]) -> Json:
    """`base` with `extra` laid over it, object by object; changes and returns `base`."""
    for name, value in extra.items():
        if isinstance(value, Mapping) and isinstance(base.get(name), dict):
            merge(base[name], value)
        else:
            base[name] = value
    return base
