"""Log Analytics workspaces: what vaults write of the use of their keys, and who may query it.

POST https://api.loganalytics.io/v1/workspaces/{id}/query, by token.
Sources: Azure Monitor docs, logs/api/request-format, response-format and errors; Azure Monitor docs, tables
AZKVAuditLogs and AzureDiagnostics; Key Vault docs, logging (a line is there after ten minutes at the latest, the shape
of `identity`). No source says what is answered for a workspace that is not there: 404, the text is ours.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

from local.simulator.clock import timestamp
from local.simulator.errors import ServiceError, not_simulated
from local.simulator.kusto import QueryError, Table, run
from local.simulator.wire import Json, Reply, Request, route

if TYPE_CHECKING:
    from threading import Condition

    from local.simulator.aks.secrets import AuditLine, Secrets
    from local.simulator.clock import Clock
    from local.simulator.identity import Caller, Identity
    from local.simulator.keyvault import SimulatedVault

HOST = "api.loganalytics.io"
AUDIENCES = ("https://api.loganalytics.io", "https://api.loganalytics.io/")
OBJECT_ID = "http://schemas.microsoft.com/identity/claims/objectidentifier"

TableName = Literal["AZKVAuditLogs", "AzureDiagnostics"]
COLUMNS: dict[TableName, dict[str, str]] = {
    "AZKVAuditLogs": {
        "TimeGenerated": "datetime",
        "OperationName": "string",
        "RequestUri": "string",
        "Id": "string",
        "HttpStatusCode": "int",
        "ResultSignature": "string",
        "Identity": "dynamic",
    },
    "AzureDiagnostics": {
        "TimeGenerated": "datetime",
        "ResourceProvider": "string",
        "Resource": "string",
        "OperationName": "string",
        "requestUri_s": "string",
        "id_s": "string",
        "httpStatusCode_d": "real",
        "identity_claim_http_schemas_microsoft_com_identity_claims_objectidentifier_g": "string",
    },
}


def authenticate(identity: Identity, request: Request) -> Caller:
    """Who asks. 401 without a token, 403 with one for another service."""
    authorization = request.headers.get("authorization")
    if not authorization:
        text = "Authentication failed. The 'Authorization' header is missing."
        raise ServiceError(401, "AuthenticationFailed", text)
    caller = identity.caller(authorization, AUDIENCES)
    if caller is None:
        raise ServiceError(403, "InvalidAuthenticationToken", "The access token is invalid.")
    return caller


def query(logs: Logs, request: Request) -> Reply:
    """Query - Execute. What of the language is not known here is 501."""
    workspace = logs.workspaces.get(request["workspace"].lower())
    if workspace is None:
        raise ServiceError(404, "PathNotFoundError", "The requested path does not exist")
    if not workspace.readable:
        text = "The provided credentials have insufficient access to perform the requested operation"
        raise ServiceError(403, "InsufficientAccessError", text)
    body: Any = request.body
    if not isinstance(body, dict) or not isinstance(body.get("query"), str):
        raise _bad_argument("SyntaxError")
    if body.get("workspaces"):
        return not_simulated(request.method, request.host, request.path).reply()
    try:
        found = run(body["query"], logs.tables(workspace, *_between(body.get("timespan"))))
    except QueryError as error:
        raise _bad_argument(error.code) from error
    except NotImplementedError:
        return not_simulated(request.method, request.host, request.path).reply()
    return Reply(200, _answer(found, cut=logs.is_cut()))


@dataclass(slots=True)
class Workspace:
    """One workspace. `delay`: how long after it was written a line is found; `readable`: the app may query it."""

    id: str  # the GUID that a query names
    delay: timedelta = timedelta(0)
    readable: bool = True
    settings: dict[str, tuple[TableName, datetime]] = field(default_factory=dict)  # by vault: its table, since when


class Logs:
    """The workspaces of the tenant. Safe from any thread, as the secrets' log is read under its lock."""

    def __init__(self, clock: Clock, secrets: Secrets, changed: Condition) -> None:
        self.workspaces: dict[str, Workspace] = {}
        self._clock = clock
        self._secrets = secrets
        self._changed = changed
        self._cuts = 0

    def add(self, workspace_id: str | None = None, *, delay: timedelta = timedelta(0)) -> Workspace:
        """A workspace that exists and has no logs yet."""
        workspace = Workspace((workspace_id or str(uuid.uuid4())).lower(), delay)
        with self._changed:
            self.workspaces[workspace.id] = workspace
        return workspace

    def send(self, vault: SimulatedVault, workspace: Workspace, table: TableName = "AZKVAuditLogs") -> None:
        """Give the vault a diagnostic setting: from now on its audit log goes to the workspace."""
        with self._changed:
            workspace.settings[vault.name.lower()] = (table, self._clock.now())

    def cut_next(self) -> None:
        """Let the next answer lack rows, and say so."""
        with self._changed:
            self._cuts += 1

    def is_cut(self) -> bool:
        """Whether this answer is cut short; counted down."""
        with self._changed:
            cut = self._cuts > 0
            self._cuts -= cut
        return cut

    def tables(self, workspace: Workspace, begin: datetime | None, end: datetime | None) -> dict[str, Table]:
        """The tables that a workspace has, each once something was sent to it, between two moments."""
        with self._changed:
            now = self._clock.now()
            found: dict[str, Table] = {name: Table(COLUMNS[name]) for name, _ in workspace.settings.values()}
            for line in self._secrets.audit:
                table, since = workspace.settings.get(line.kek.vault.lower(), (None, now))
                asked = (begin is None or line.time >= begin) and (end is None or line.time <= end)
                if table is not None and asked and since <= line.time <= now - workspace.delay:
                    found[table].rows.append(_row(table, line))
            return found


def _row(table: TableName, line: AuditLine) -> Json:
    """A line as it lies in a table. The version stands in the address that was called."""
    key = f"https://{line.kek.vault}.vault.azure.net/keys/{line.kek.key}/{line.kek.version}"
    uri = f"{key}/{line.operation.removeprefix('Key').lower()}?api-version=7.4"
    values = [line.time, line.operation, uri, key]
    if table == "AZKVAuditLogs":
        claims = {"claim": {OBJECT_ID: line.identity, "appid": line.identity}}
        signature = "OK" if line.status == 200 else "Forbidden" if line.status == 403 else "Not Found"
        return dict(zip(COLUMNS[table], [*values, line.status, signature, claims], strict=True))
    provider = [line.time, "MICROSOFT.KEYVAULT", line.kek.vault.upper()]
    return dict(zip(COLUMNS[table], [*provider, *values[1:], float(line.status), line.identity], strict=True))


def _between(timespan: object) -> tuple[datetime | None, datetime | None]:
    """Two moments with a slash between; other forms of ISO 8601 intervals are not known here."""
    if timespan is None:
        return None, None
    try:
        begin, end = str(timespan).split("/")
        return datetime.fromisoformat(begin), datetime.fromisoformat(end)
    except ValueError as error:
        raise _bad_argument("InvalidTimespan") from error


def _answer(table: Table, *, cut: bool) -> Json:
    columns = [{"name": name, "type": kind} for name, kind in table.columns.items()]
    rows = [[_rendered(row.get(name)) for name in table.columns] for row in table.rows]
    answer: Json = {"tables": [{"name": "PrimaryResult", "columns": columns, "rows": rows}]}
    if not cut:
        return answer
    answer["tables"][0]["rows"] = rows[1:]
    details = [{"code": "EngineError", "message": "Something went wrong processing your query on the server."}]
    said = "There were some errors when processing your query."
    return answer | {"error": {"code": "PartialError", "message": said, "details": details}}


def _rendered(value: Any) -> Any:
    return timestamp(value) if isinstance(value, datetime) else value


def _bad_argument(inner: str) -> ServiceError:
    return ServiceError(400, "BadArgumentError", "The request had some invalid properties", inner=inner)


ROUTES = (route("POST", "/v1/workspaces/{workspace}/query", query),)
