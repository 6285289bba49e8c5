"""Rows of Table Storage: how they are read, written and told apart, for those who keep something there.

Every update names the ETag it was read at, always: without one Table Storage overwrites silently.
"""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

from azure.core import MatchConditions
from azure.core.async_paging import AsyncItemPaged
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError
from azure.data.tables import TableEntity, TableTransactionError, TransactionOperation
from azure.data.tables.aio import TableClient, TableServiceClient
from pydantic import TypeAdapter

from shared.calls import ahead, translated
from shared.clusters import ClusterId
from shared.errors import EnforcerError, Malformed
from shared.keys import KeyId

TABLES = ("clusters", "keyusers", "rotations", "activity", "runs", "enforcement")

MOST_AT_ONCE = 100
"""Rows of one transaction. Source: Table Storage docs, performing-entity-group-transactions."""

MOST_ON_A_PAGE = 1000
"""Rows of one answer. Source: Table Storage docs, query-timeout-and-pagination."""

PROPERTY_LIMIT = 32_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LONGEST_TOKEN = 2000
_FOREIGN = "not a continuation token of this listing"

Row = Mapping[str, Any]
Operation = tuple[TransactionOperation, Row] | tuple[TransactionOperation, Row, Row]


class TooLarge(EnforcerError):
    """A property that Table Storage could not hold. It never reaches the service."""


@dataclass(frozen=True, slots=True)
class Page[T]:
    """One page of a listing. `continuation` is None on the last one."""

    items: tuple[T, ...]
    continuation: str | None


class Tables:
    """The tables, by their names. Errors: TooLarge, and those of `shared.errors` for storage that is away."""

    def __init__(self, service: TableServiceClient) -> None:
        self._tables: dict[str, TableClient] = {name: service.get_table_client(name) for name in TABLES}

    def __getitem__(self, name: str) -> TableClient:
        """Return a table's client."""
        return self._tables[name]

    async def get(self, table: str, partition: str, row: str) -> Row | None:
        """Read one row; None if it is not there."""
        with translated():
            try:
                return await self._tables[table].get_entity(partition, row)
            except ResourceNotFoundError:
                return None

    async def transact(self, table: str, operations: list[Operation]) -> bool:
        """Write all of these rows or none; False if one of them was changed meanwhile."""
        with translated(writing=True):
            try:
                await self._tables[table].submit_transaction(operations)
            except TableTransactionError as error:
                if error.status_code not in {404, 409, 412}:
                    raise
                return False
        return True

    async def query(
        self,
        table: str,
        where: str,
        *,
        select: Sequence[str] | None = None,
        **names: Any,
    ) -> AsyncGenerator[Row]:
        """Read the rows that fit a filter, all of them; `select` names the properties, all by default."""
        chosen: dict[str, Any] = {"select": list(select)} if select is not None else {}
        found = self._tables[table].query_entities(where, parameters=names, **chosen)
        async with aclosing(ahead(_pages(found))) as pages:
            async for page in pages:
                async for row in page:
                    yield row

    async def first(self, table: str, where: str, names: dict[str, Any], *, top: int) -> list[Row]:
        """Read the first rows that fit a filter, in the order of their keys; no more than these come over the wire."""
        size = min(top, MOST_ON_A_PAGE)
        found: list[Row] = []
        with translated():
            async for row in self._tables[table].query_entities(where, parameters=names, results_per_page=size):
                found.append(row)
                if len(found) == top:
                    break
        return found

    async def page(self, table: str, where: str, names: dict[str, Any], *, top: int, after: str | None) -> Page[Row]:
        """Read one page of the rows that fit a filter."""
        token = read_token(after, "PartitionKey", "RowKey") if after is not None else None
        found = self._tables[table].query_entities(where, parameters=names, results_per_page=top)
        pages = found.by_page(continuation_token=token)  # type: ignore[arg-type]  # a dict, whatever it says
        with translated():
            try:
                rows = [row async for row in await anext(pages)]
            except StopAsyncIteration:
                return Page((), None)
            except HttpResponseError as error:
                if token is None or error.status_code != 400:
                    raise
                raise Malformed(_FOREIGN) from error
        following = getattr(pages, "continuation_token", None)
        return Page(tuple(rows), write_token(**following) if following else None)


async def _pages(found: AsyncItemPaged[TableEntity]) -> AsyncGenerator[AsyncIterator[Row]]:
    with translated():
        async for page in found.by_page():
            yield page


def write_token(**where: str) -> str:
    """Return the continuation token that says where a listing goes on: opaque, and safe in a URL."""
    return base64.urlsafe_b64encode(json.dumps(where).encode()).decode()


def read_token(text: str, *names: str) -> dict[str, str]:
    """Read a continuation token that a caller gives back; Malformed if it is none, or of another listing."""
    if len(text) > _LONGEST_TOKEN:
        raise Malformed(_FOREIGN)
    try:
        token = json.loads(base64.urlsafe_b64decode(text))
    except (ValueError, RecursionError) as error:
        raise Malformed(_FOREIGN) from error
    if not isinstance(token, dict) or set(token) != set(names):
        raise Malformed(_FOREIGN)
    if not all(isinstance(one, str) and one.isprintable() for one in token.values()):
        raise Malformed(_FOREIGN)
    return token


def only_if(etag: str) -> dict[str, Any]:
    """Return what makes an update hold for one version of a row alone."""
    if not etag:
        raise AssertionError("an update without an ETag would overwrite silently")
    return {"etag": etag, "match_condition": MatchConditions.IfNotModified}


def etag_of(row: Row) -> str:
    """Return the version that a row was read at."""
    return cast("str", cast(Any, row).metadata["etag"])


def guarded(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row as it can be written: nothing that is None, enums as their words; TooLarge if it can't be held."""
    for name, value in row.items():
        if isinstance(value, str) and len(value) > PROPERTY_LIMIT:
            raise TooLarge(f"{name} has {len(value)} characters, and a property holds {PROPERTY_LIMIT}")
    return {name: str(value) if isinstance(value, str) else value for name, value in row.items() if value is not None}


def cluster_row(cluster_id: ClusterId) -> str:
    """Return a cluster's row within its subscription."""
    return f"{cluster_id.group}|{cluster_id.name}"


def user_row(cluster_id: ClusterId) -> str:
    """Return a cluster's name among all clusters, as rows have it."""
    return f"{cluster_id.subscription}|{cluster_id.group}|{cluster_id.name}"


def key_partition(key: KeyId) -> str:
    """Return the partition of all that is known of a key."""
    return f"{key.vault}|{key.name}"


def vault_partition(vault: str) -> str:
    """Return the partition of what is known of a vault itself."""
    return f"{vault}|"


def to_json[T](adapter: TypeAdapter[T], value: T | None) -> str | None:
    """Return a value as a property's text; None stays None."""
    return None if value is None else adapter.dump_json(value).decode()


def from_json[T](adapter: TypeAdapter[T], text: str | None) -> T | None:
    """Read a value from a property's text; None stays None."""
    return None if text is None else adapter.validate_json(text)
