"""As much of the Kusto Query Language as it takes to read logs: filters, new columns and sums over few tables.

`union`, `where`, `extend`, `project`, `summarize`; `==`, `in`, `<`, `and`; some functions. Whatever is not here is
NotImplementedError, so that no test passes over it. Names are taken as they stand; types are checked nowhere.
Sources: Kusto docs, union-operator (isfuzzy: a table that is not there is passed over, unless none is), datatable,
coalesce, column-ifexists, extract, minif, maxif, binoperators.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

type Row = Mapping[str, Any]
type Value = Callable[[Row], Any]

TOKEN = re.compile(
    r"""\s*(?:(?P<text>@"[^"]*"|"(?:[^"\\]|\\.)*")|(?P<number>\d+(?:\.\d+)?)|(?P<name>[A-Za-z_]\w*)"""
    r"""|(?P<sign>[=!<>]=|[()\[\]<>=,|.:])|(?P<end>$))"""
)
TYPES = {"string", "datetime", "int", "long", "real", "bool", "guid", "dynamic"}


class QueryError(Exception):
    """The query is wrong. `code` is SyntaxError or SemanticError."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(slots=True)
class Table:
    """Rows and their columns: name to type."""

    columns: dict[str, str]
    rows: list[dict[str, Any]] = field(default_factory=list)


def run(text: str, tables: Mapping[str, Table]) -> Table:
    """Answer a query; QueryError when it is wrong."""
    parser = _Parser(text, tables)
    result = parser.pipeline()
    parser.expect("")
    return result


@dataclass(frozen=True, slots=True)
class _Typed:
    type: str
    of: Value


class _Parser:
    """Reads a query from left to right and answers it on the way."""

    def __init__(self, text: str, tables: Mapping[str, Table]) -> None:
        self._tokens = list(_tokens(text))
        self._at = 0
        self._tables = tables

    # tables

    def pipeline(self) -> Table:
        """A source and what is done with it."""
        table = self._union() if self._take("union") else self._source()
        while self._take("|"):
            table = self._step(table)
        return table

    def _source(self) -> Table:
        if self._take("datatable"):
            return self._datatable()
        name = self._name()
        if name not in self._tables:
            raise QueryError("SemanticError", f"'{name}' could not be resolved to a table")
        return self._tables[name]

    def _datatable(self) -> Table:
        """An empty one; rows in it are not known here."""
        self.expect("(")
        columns: dict[str, str] = {}
        while not self._take(")"):
            name = self._name()
            self.expect(":")
            columns[name] = self._name()
            self._take(",")
        if not columns or not set(columns.values()) <= TYPES:
            raise QueryError("SyntaxError", "a datatable needs columns of known types")
        self.expect("[")
        self.expect("]")
        return Table(columns)

    def _union(self) -> Table:
        fuzzy = False
        if self._take("isfuzzy"):
            self.expect("=")
            fuzzy = self._name() == "true"
        legs: list[Table] = []
        missing: list[QueryError] = []
        while True:
            leg = self._leg()
            legs += [leg] if isinstance(leg, Table) else []
            missing += [leg] if isinstance(leg, QueryError) else []
            if not self._take(","):
                break
        if missing and (not fuzzy or not legs):
            raise missing[0]
        columns: dict[str, str] = {}
        for one in legs:
            columns = one.columns | columns
        return Table(columns, [dict.fromkeys(columns) | dict(row) for one in legs for row in one.rows])

    def _leg(self) -> Table | QueryError:
        """One table of a union. One that is not there is passed over, with all that would be done with it."""
        self.expect("(")
        name = self._peek()
        if name not in self._tables and name != "datatable":
            depth = 1
            while depth:
                depth += {"(": 1, ")": -1}.get(self._next(), 0)
            return QueryError("SemanticError", f"'{name}' could not be resolved to a table")
        table = self.pipeline()
        self.expect(")")
        return table

    def _step(self, table: Table) -> Table:
        match self._name():
            case "where":
                keep = self._condition(table).of
                return Table(table.columns, [row for row in table.rows if keep(row)])
            case "extend":
                added = self._columns(table)
                types = {name: one.type for name, one in added.items()}
                rows = [dict(row) | {name: one.of(row) for name, one in added.items()} for row in table.rows]
                return Table(table.columns | types, rows)
            case "project":
                kept = self._columns(table)
                rows = [{name: one.of(row) for name, one in kept.items()} for row in table.rows]
                return Table({name: one.type for name, one in kept.items()}, rows)
            case "summarize":
                return self._summarize(table)
            case other:
                raise NotImplementedError(f"the operator {other}")

    def _columns(self, table: Table) -> dict[str, _Typed]:
        found: dict[str, _Typed] = {}
        while True:
            name = self._peek()
            if self._peek(1) == "=":
                self._next()
                self._next()
            found[name] = self._condition(table)
            if not self._take(","):
                return found

    def _summarize(self, table: Table) -> Table:
        sums: dict[str, tuple[str, Callable[[Sequence[Row]], Any]]] = {}
        while not self._take("by"):
            name = self._name()
            self.expect("=")
            sums[name] = self._aggregate(table)
            self._take(",")
        by = self._columns(table)
        groups: dict[tuple[Any, ...], list[Row]] = {}
        for row in table.rows:
            groups.setdefault(tuple(one.of(row) for one in by.values()), []).append(row)
        columns = {name: one.type for name, one in by.items()} | {name: kind for name, (kind, _) in sums.items()}
        return Table(
            columns,
            [
                dict(zip(by, group, strict=True)) | {name: of(rows) for name, (_, of) in sums.items()}
                for group, rows in groups.items()
            ],
        )

    def _aggregate(self, table: Table) -> tuple[str, Callable[[Sequence[Row]], Any]]:
        function = self._name()
        best = {"min": min, "minif": min, "max": max, "maxif": max}.get(function)
        if best is None:
            raise NotImplementedError(f"the sum {function}")
        self.expect("(")
        what = self._condition(table)
        only = self._condition(table).of if self._take(",") else lambda _: True
        self.expect(")")
        return what.type, lambda rows: best((what.of(row) for row in rows if only(row)), default=None)

    # values

    def _condition(self, table: Table) -> _Typed:
        found = self._comparison(table)
        while self._take("and"):
            left, right = found.of, self._comparison(table).of
            found = _Typed("bool", _both(left, right))
        return found

    def _comparison(self, table: Table) -> _Typed:
        left = self._value(table)
        sign = self._peek()
        if sign == "in":
            self._next()
            among = [one.of for one in self._arguments(table)]
            return _Typed("bool", lambda row: left.of(row) in [one(row) for one in among])
        if sign not in COMPARISONS:
            return left
        self._next()
        compare, right = COMPARISONS[sign], self._value(table)
        return _Typed("bool", lambda row: _compared(compare, left.of(row), right.of(row)))

    def _value(self, table: Table) -> _Typed:
        found = self._simple(table)
        while self._peek() in {".", "["}:
            name = self._name() if self._next() == "." else _unquoted(self._next_then("]"))
            found = _Typed("dynamic", _member(found.of, name))
        return found

    def _simple(self, table: Table) -> _Typed:
        token = self._next()
        if token.startswith(('"', '@"')):
            return _constant("string", _unquoted(token))
        if token[:1].isdigit():
            return _constant("real", float(token)) if "." in token else _constant("long", int(token))
        if self._peek() == "(":
            return _called(token, self._arguments(table), table)
        if token not in table.columns:
            raise QueryError("SemanticError", f"'{token}' could not be resolved to a column")
        return _Typed(table.columns[token], lambda row: row.get(token))

    def _arguments(self, table: Table) -> list[_Typed]:
        self.expect("(")
        found: list[_Typed] = []
        while not self._take(")"):
            found.append(self._condition(table))
            self._take(",")
        return found

    # tokens

    def expect(self, token: str) -> None:
        """Go past this token, which must be the next."""
        found = self._next()
        if found != token:
            raise QueryError("SyntaxError", f"{token or 'the end'!r} was expected at {found!r}")

    def _name(self) -> str:
        token = self._next()
        if not re.fullmatch(r"[A-Za-z_]\w*", token):
            raise QueryError("SyntaxError", f"a name was expected at {token!r}")
        return token

    def _take(self, token: str) -> bool:
        if self._peek() != token:
            return False
        self._at += 1
        return True

    def _next_then(self, token: str) -> str:
        found = self._next()
        self.expect(token)
        return found

    def _next(self) -> str:
        token = self._peek()
        if not token and self._at >= len(self._tokens):
            raise QueryError("SyntaxError", "the query ends too early")
        self._at += 1
        return token

    def _peek(self, ahead: int = 0) -> str:
        number = self._at + ahead
        return self._tokens[number] if number < len(self._tokens) else ""


COMPARISONS: Mapping[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def _tokens(text: str) -> list[str]:
    found: list[str] = []
    at = 0
    while True:
        match = TOKEN.match(text, at)
        if match is None:
            raise QueryError("SyntaxError", f"unexpected {text[at : at + 20]!r}")
        found.append(match[0].strip())
        at = match.end()
        if match["end"] is not None:
            return found


def _called(function: str, arguments: Sequence[_Typed], table: Table) -> _Typed:
    if function == "column_ifexists":
        name = str(arguments[0].of({}))
        return _Typed(table.columns[name], lambda row: row.get(name)) if name in table.columns else arguments[1]
    if function not in FUNCTIONS:
        raise NotImplementedError(f"the function {function}")
    kind, of = FUNCTIONS[function]
    values = [one.of for one in arguments]
    return _Typed(kind, lambda row: of(*(value(row) for value in values)))


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _extract(pattern: str, group: int, text: Any) -> str:
    found = re.search(pattern, _text(text))
    return _text(found[group]) if found else ""


FUNCTIONS: Mapping[str, tuple[str, Callable[..., Any]]] = {
    "strcat": ("string", lambda *parts: "".join(map(_text, parts))),
    "tostring": ("string", _text),
    "toint": ("int", lambda value: None if value is None else int(value)),
    "tolower": ("string", lambda value: _text(value).lower()),
    "coalesce": ("string", lambda *values: next((one for one in values if one not in {None, ""}), "")),
    "extract": ("string", _extract),
    "isnotempty": ("bool", lambda value: value not in {None, ""}),
}


def _constant(kind: str, value: Any) -> _Typed:
    return _Typed(kind, lambda _: value)


def _both(left: Value, right: Value) -> Value:
    return lambda row: left(row) and right(row)


def _member(of: Value, name: str) -> Value:
    return lambda row: found.get(name) if isinstance(found := of(row), Mapping) else None


def _compared(compare: Callable[[Any, Any], bool], left: Any, right: Any) -> bool:
    return left is not None and right is not None and compare(left, right)


def _unquoted(token: str) -> str:
    if token.startswith("@"):
        return token[2:-1]
    return re.sub(r"\\(.)", r"\1", token[1:-1])
