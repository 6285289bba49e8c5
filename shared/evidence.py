"""What the vaults' audit logs show of who uses which version of a key, asked of Log Analytics workspaces.

Whether or not a workspace answers, everything else goes on: without it there is no evidence, and no harm.
Sources: Azure Monitor docs, logs/api/overview, azurediagnostics and azkvauditlogs; Key Vault docs, logging.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from azure.core.credentials_async import AsyncTokenCredential
from azure.core.pipeline.transport import AsyncHttpTransport
from azure.monitor.query import LogsQueryResult, LogsTable
from azure.monitor.query.aio import LogsQueryClient

from shared.calls import ImpatientRetry, translated
from shared.errors import Malformed, Transient, Unavailable, Unreadable
from shared.keys import KeyId
from shared.sightings import Sighting
from shared.telemetry import logger

log = logger(__name__)

_PATIENCE_SECONDS = 30
_NAME = re.compile(r"[a-z0-9-]{1,127}", re.ASCII)
_VERSION = re.compile(r"[0-9a-f]{32}", re.ASCII)
_PRINCIPAL = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)

_CLAIM = "http://schemas.microsoft.com/identity/claims/objectidentifier"
_COLUMN = "identity_claim_http_schemas_microsoft_com_identity_claims_objectidentifier_g"
_OPERATIONS = '"KeyEncrypt", "KeyDecrypt", "KeyWrap", "KeyUnwrap"'
"""No document says which of them the new controller uses."""

_ADDRESS = r"(?i)(?:^| )https://<vault>\.vault\.azure\.net(?::443)?/keys/<key>/([0-9a-f]{32})"
_QUERY = f"""union isfuzzy=true
  (datatable(TimeGenerated: datetime, Address: string, Status: int, Principal: string) []),
  (AZKVAuditLogs
   | where OperationName in ({_OPERATIONS})
   | project TimeGenerated, Address = strcat(RequestUri, " ", Id), Status = toint(HttpStatusCode),
     Principal = coalesce(tostring(Identity.claim["{_CLAIM}"]), tostring(Identity.claim.oid))),
  (AzureDiagnostics
   | where ResourceProvider == "MICROSOFT.KEYVAULT" and OperationName in ({_OPERATIONS})
   | project TimeGenerated,
     Address = strcat(column_ifexists("requestUri_s", ""), " ", column_ifexists("id_s", "")),
     Status = toint(column_ifexists("httpStatusCode_d", 0.0)),
     Principal = coalesce(tostring(column_ifexists("{_COLUMN}", "")),
       tostring(column_ifexists("identity_claim_oid_g", ""))))
| extend Version = tolower(extract(@"{_ADDRESS}", 1, Address))
| where isnotempty(Version) and isnotempty(Principal)
| extend Succeeded = Status >= 200 and Status < 300
| summarize First = minif(TimeGenerated, Succeeded), Last = maxif(TimeGenerated, Succeeded), Tried = max(TimeGenerated)
  by Principal, Version
"""
"""Both tables that a diagnostic setting may fill; a workspace that lacks one, or a column, answers all the same."""


@dataclass(frozen=True, slots=True)
class Logs:
    """What workspaces show of a key. `refused` are those that may not be read, by id."""

    sightings: tuple[Sighting, ...] = ()
    refused: tuple[str, ...] = ()


class Evidence:
    """The Log Analytics workspaces, by id, to which vaults send their audit logs. The app's identity asks."""

    def __init__(
        self,
        credential: AsyncTokenCredential,
        transport: AsyncHttpTransport[Any, Any],
        workspaces: tuple[str, ...],
    ) -> None:
        retry = ImpatientRetry(retry_total=2)
        self._client = LogsQueryClient(credential, transport=transport, retry_policy=retry)
        self._workspaces = workspaces

    async def of(self, key: KeyId, since: datetime, until: datetime) -> Logs:
        """Read who used which version of a key between two moments. Never raises for a workspace's sake.

        Malformed if the key's names could not be a vault's and a key's: they become a part of the query.
        """
        query = _query(key)
        answers = await asyncio.gather(*(self._ask(one, key, query, (since, until)) for one in self._workspaces))
        refused = [name for name, found in zip(self._workspaces, answers, strict=True) if found is None]
        return Logs(tuple(sighting for found in answers for sighting in found or ()), tuple(refused))

    async def _ask(
        self, workspace: str, key: KeyId, query: str, between: tuple[datetime, datetime]
    ) -> list[Sighting] | None:
        """Ask one workspace; None if it may not be read. One that gives no clear answer shows nothing for now."""
        try:
            return await self._sightings(workspace, query, between)
        except Unreadable as error:
            log.warning("%s: the workspace %s can't be read: %s", key, workspace, error)
            return None
        except Transient as error:
            log.warning("%s: the workspace %s gives no answer: %s", key, workspace, error)
            return []

    async def _sightings(self, workspace: str, query: str, between: tuple[datetime, datetime]) -> list[Sighting]:
        try:
            with translated():
                found = await self._client.query_workspace(
                    workspace, query, timespan=between, server_timeout=_PATIENCE_SECONDS
                )
        except ValueError as error:  # the SDK's, when an error's body is no JSON
            raise Unavailable(type(error).__name__, "an answer that can't be read") from error
        if not isinstance(found, LogsQueryResult):  # what is missing from a part looks like what never was
            raise Unavailable(getattr(found.partial_error, "code", "PartialError"), "only a part of the answer")
        return list(_read(found.tables))


def _query(key: KeyId) -> str:
    if not _NAME.fullmatch(key.vault) or not _NAME.fullmatch(key.name):
        raise Malformed(f"not the names of a vault and a key: {str(key)[:200]!r}")
    return _QUERY.replace("<vault>", key.vault).replace("<key>", key.name)


def _read(tables: Iterable[LogsTable]) -> Iterable[Sighting]:
    """The rows that can be read. Whoever may write to the workspace may have written others."""
    for row in (row for table in tables for row in table.rows):
        principal, version = str(row["Principal"]).lower(), str(row["Version"])
        first, last, tried = (_moment(row[name]) for name in ("First", "Last", "Tried"))
        if tried is not None and _PRINCIPAL.fullmatch(principal) and _VERSION.fullmatch(version):
            yield Sighting(principal, version, first, last, tried)


def _moment(value: object) -> datetime | None:
    return value.astimezone(UTC) if isinstance(value, datetime) and value.tzinfo is not None else None
