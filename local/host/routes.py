"""HTTP routes as the Functions host reads them: `{name}`, `{name:int}`, `{name?}`, `{*rest}`; literal ones first.

Source: Functions docs, functions-bindings-http-webhook-trigger ("Customize the HTTP endpoint"); ASP.NET Core, routing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import unquote

from local.host.errors import HostError
from local.host.worker import Function

_RESERVED = ("admin", "runtime")
_PARAMETER = re.compile(r"\{(?P<rest>\*{0,2})(?P<name>\w+)(?::(?P<constraint>\w+))?(?P<optional>\?)?\}")
_CONSTRAINTS = {
    None: r"[^/]+",
    "int": r"-?\d+",
    "long": r"-?\d+",
    "bool": r"(?i:true|false)",
    "alpha": r"[A-Za-z]+",
    "decimal": r"-?\d+(?:\.\d+)?",
    "double": r"-?\d+(?:\.\d+)?",
    "float": r"-?\d+(?:\.\d+)?",
    "guid": r"[0-9A-Fa-f]{8}-(?:[0-9A-Fa-f]{4}-){3}[0-9A-Fa-f]{12}",
}
_LITERAL, _CONSTRAINED, _PLAIN, _REST = range(4)


@dataclass(frozen=True, slots=True)
class Route:
    """One HTTP function's address. A route sorts before those that are less specific."""

    function: Function
    pattern: re.Pattern[str]
    methods: frozenset[str]
    rank: tuple[int, ...]

    @classmethod
    def of(cls, function: Function, prefix: str) -> Route:
        """Read a function's route. HostError if it is reserved or not understood."""
        template = str(function.trigger.get("route") or function.name).strip("/")
        if template.split("/")[0].lower() in _RESERVED:
            raise HostError(f"{function.name}: routes that start with admin or runtime are the host's own")
        parts = [*(part for part in prefix.split("/") if part), *(part for part in template.split("/") if part)]
        segments = [_Segment.read(part, function.name) for part in parts]
        return cls(
            function=function,
            pattern=re.compile("".join(segment.pattern for segment in segments) + "/?", re.IGNORECASE),
            methods=frozenset(str(method).upper() for method in function.trigger.get("methods") or ()),
            rank=tuple(segment.rank for segment in segments),
        )

    def match(self, method: str, path: str) -> Mapping[str, str] | None:
        """Return the route parameters, unquoted, or None if this is not the route of `path`, an escaped one."""
        if self.methods and method not in self.methods:
            return None
        found = self.pattern.fullmatch(path)
        if found is None:
            return None
        return {name: unquote(value) for name, value in found.groupdict().items() if value is not None}


@dataclass(frozen=True, slots=True)
class _Segment:
    pattern: str
    rank: int

    @classmethod
    def read(cls, text: str, owner: str) -> _Segment:
        parameters = list(_PARAMETER.finditer(text))
        literals = _PARAMETER.split(text)[:: _PARAMETER.groups + 1]
        if any("{" in literal or "}" in literal for literal in literals):
            raise HostError(f"{owner}: the route segment {text!r} is not understood")
        pattern = re.escape(literals[0])
        for parameter, literal in zip(parameters, literals[1:], strict=True):
            pattern += _capture(parameter, owner) + re.escape(literal)
        optional = len(parameters) == 1 and (parameters[0]["optional"] or parameters[0]["rest"])
        return cls(pattern=f"(?:/{pattern})?" if optional else f"/{pattern}", rank=_rank(parameters))


def _capture(parameter: re.Match[str], owner: str) -> str:
    constraint = parameter["constraint"]
    if constraint not in _CONSTRAINTS:
        raise HostError(f"{owner}: the route constraint {constraint!r} is not served")
    inner = ".*" if parameter["rest"] else _CONSTRAINTS[constraint]
    return f"(?P<{parameter['name']}>{inner})"


def _rank(parameters: Sequence[re.Match[str]]) -> int:
    if not parameters:
        return _LITERAL
    if any(parameter["rest"] for parameter in parameters):
        return _REST
    return _CONSTRAINED if all(parameter["constraint"] for parameter in parameters) else _PLAIN


@dataclass(frozen=True, slots=True)
class RouteTable:
    """All routes of an app, the most specific first."""

    routes: tuple[Route, ...]

    @classmethod
    def of(cls, functions: Iterable[Function], prefix: str) -> RouteTable:
        """Read the routes of the HTTP functions among `functions`."""
        routes = [Route.of(function, prefix) for function in functions if function.kind == "httpTrigger"]
        return cls(tuple(sorted(routes, key=lambda route: (route.rank, -len(route.rank)))))

    def find(self, method: str, path: str) -> tuple[Function, Mapping[str, str]] | None:
        """Return the function that answers, with its route parameters, or None."""
        for route in self.routes:
            parameters = route.match(method, path)
            if parameters is not None:
                return route.function, parameters
        return None
