"""Log Analytics workspaces: what vaults write, when it can be found, and how the service answers a query."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
import requests
from azure.core.exceptions import HttpResponseError
from azure.identity import ManagedIdentityCredential
from azure.monitor.query import LogsQueryClient, LogsQueryPartialResult, LogsQueryResult

from local.simulator.kusto import QueryError, Table, run
from tests.simulator.clients import refusal

if TYPE_CHECKING:
    from local.simulator import Azure
    from local.simulator.aks import SimulatedCluster
    from local.simulator.logs import Workspace

HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)
USES = "AZKVAuditLogs | project TimeGenerated, OperationName, RequestUri, HttpStatusCode, Identity"
SOME = Table({"name": "string", "size": "long"}, [{"name": "a", "size": 1}, {"name": "b", "size": 2}])


@pytest.fixture
def workspace(azure: Azure) -> Workspace:
    """A workspace to which a vault sends its log, and a legacy cluster that uses the vault's key each hour."""
    vault = azure.keyvault.add_vault("kv-kms")
    key = azure.keyvault.add_key(vault, "etcd")
    cluster = azure.aks.add("aks-1", encryption="legacy", key_id=key.uri_of(key.current.version))
    azure.access.assign(cluster.principal_id, "Key Vault Crypto User", vault.id)
    workspace = azure.logs.add()
    azure.logs.send(vault, workspace)
    return workspace


def ask(workspace: Workspace, query: str = USES, **asked: Any) -> LogsQueryResult | LogsQueryPartialResult:
    with ManagedIdentityCredential() as credential, LogsQueryClient(credential, retry_total=0) as client:
        return client.query_workspace(workspace.id, query, **({"timespan": None} | asked))


def rows(workspace: Workspace, query: str = USES, **asked: Any) -> list[list[Any]]:
    found = ask(workspace, query, **asked)
    assert isinstance(found, LogsQueryResult)
    return [list(row) for row in found.tables[0].rows]


def cluster_of(azure: Azure) -> SimulatedCluster:
    return next(iter(azure.aks.clusters.values()))


def test_each_use_of_a_key_is_a_line_with_time_address_status_and_identity(azure: Azure, workspace: Workspace) -> None:
    azure.clock.advance(HOUR)

    encrypt, decrypt = rows(workspace)

    line = azure.aks.secrets.audit[0]
    claim = "http://schemas.microsoft.com/identity/claims/objectidentifier"
    assert encrypt[0] == line.time
    assert (encrypt[1], decrypt[1]) == ("KeyEncrypt", "KeyDecrypt")
    assert f"https://kv-kms.vault.azure.net/keys/etcd/{line.kek.version}/encrypt?" in encrypt[2]
    assert encrypt[3] == 200
    assert encrypt[4]["claim"][claim] == cluster_of(azure).principal_id


def test_lines_go_to_the_older_table_where_the_setting_says_so(azure: Azure, workspace: Workspace) -> None:
    azure.logs.send(azure.keyvault.add_vault("kv-other"), workspace, "AzureDiagnostics")
    vault = next(one for one in azure.keyvault.vaults.values() if one.name == "kv-kms")
    azure.logs.send(vault, workspace, "AzureDiagnostics")
    azure.clock.advance(HOUR)

    (line, _) = rows(workspace, "AzureDiagnostics | project ResourceProvider, Resource, requestUri_s, httpStatusCode_d")

    assert line[:2] == ["MICROSOFT.KEYVAULT", "KV-KMS"]
    assert "/keys/etcd/" in line[2]
    assert line[3] == 200.0


def test_a_line_is_found_once_it_was_taken_in(azure: Azure, workspace: Workspace) -> None:
    workspace.delay = 8 * MINUTE
    azure.clock.advance(HOUR + MINUTE)
    early = rows(workspace)

    azure.clock.advance(8 * MINUTE)

    assert (early, len(rows(workspace))) == ([], 2)


def test_nothing_is_found_from_before_the_setting_nor_outside_the_time_asked_for(
    azure: Azure, workspace: Workspace
) -> None:
    azure.clock.advance(3 * HOUR)
    now = azure.clock.now()
    later = azure.logs.add()
    vault = next(iter(azure.keyvault.vaults.values()))
    azure.logs.send(vault, later)

    assert len(rows(workspace)) == 6
    assert len(rows(workspace, timespan=(now - 90 * MINUTE, now - 30 * MINUTE))) == 2
    assert rows(later) == []


def test_a_workspace_that_may_not_be_read_answers_403(workspace: Workspace) -> None:
    workspace.readable = False

    with pytest.raises(HttpResponseError, match="insufficient access") as raised:
        ask(workspace)

    assert raised.value.status_code == 403


def test_a_workspace_that_is_not_there_answers_404(azure: Azure, workspace: Workspace) -> None:
    del azure.logs.workspaces[workspace.id]

    with pytest.raises(HttpResponseError) as raised:
        ask(workspace)

    assert raised.value.status_code == 404


def test_an_answer_that_is_cut_short_says_so(azure: Azure, workspace: Workspace) -> None:
    azure.clock.advance(HOUR)
    azure.logs.cut_next()

    cut = ask(workspace)

    assert isinstance(cut, LogsQueryPartialResult)
    assert cut.partial_error is not None
    assert cut.partial_error.code == "PartialError"
    assert len(rows(workspace)) == 2


def test_a_caller_without_a_token_for_it_is_refused(azure: Azure, workspace: Workspace) -> None:
    url = f"https://api.loganalytics.io/v1/workspaces/{workspace.id}/query"
    token, _ = azure.identity.token("https://management.azure.com")

    none = requests.post(url, json={"query": USES}, timeout=60)
    other = requests.post(url, json={"query": USES}, headers={"Authorization": f"Bearer {token}"}, timeout=60)

    assert refusal(none)[:2] == (401, "AuthenticationFailed")
    assert refusal(other)[:2] == (403, "InvalidAuthenticationToken")


@pytest.mark.parametrize(
    "query",
    [
        pytest.param("AZKVAuditLogs | where", id="ends-too-early"),
        pytest.param("AZKVAuditLogs | where OperationName ==", id="half-a-comparison"),
        pytest.param("AZKVAuditLogs ; drop", id="a-sign-that-is-none"),
        pytest.param("Heartbeat | project TimeGenerated", id="a-table-that-is-not-there"),
        pytest.param("AZKVAuditLogs | project Colour", id="a-column-that-is-not-there"),
    ],
)
def test_a_query_that_is_wrong_answers_400(workspace: Workspace, query: str) -> None:
    with pytest.raises(HttpResponseError, match="invalid properties") as raised:
        ask(workspace, query)

    assert raised.value.status_code == 400


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        pytest.param("Some | where size >= 2", [{"name": "b", "size": 2}], id="where"),
        pytest.param('Some | where name in ("a", "c") and size < 9', [{"name": "a", "size": 1}], id="in-and"),
        pytest.param('Some | project n = strcat(name, "-", size)', [{"n": "a-1"}, {"n": "b-2"}], id="project"),
        pytest.param('Some | where extract(@"(b)", 1, name) == "b"', [{"name": "b", "size": 2}], id="extract"),
        pytest.param(
            'Some | extend x = column_ifexists("no", "z") | summarize m = max(size), f = minif(size, size > 1) by x',
            [{"x": "z", "m": 2, "f": 2}],
            id="summarize",
        ),
        pytest.param(
            "union isfuzzy=true (None | where a == (1)), (Some | where size == 1)", [{"name": "a", "size": 1}]
        ),
        pytest.param("union isfuzzy=true (datatable(name: string) []), (None | where a == 1)", [], id="an-empty-table"),
    ],
)
def test_what_a_query_comes_to(query: str, expected: list[dict[str, Any]]) -> None:
    assert run(query, {"Some": SOME}).rows == expected


def test_a_union_of_which_no_table_is_there_is_wrong() -> None:
    with pytest.raises(QueryError, match="could not be resolved"):
        run("union isfuzzy=true (None | where a == 1), (Neither)", {"Some": SOME})


@pytest.mark.parametrize(
    "query", ["Some | sort by name", "Some | where rand(1) == 1", "Some | summarize n = dcount(name) by name"]
)
def test_what_is_not_known_here_is_loud(query: str) -> None:
    with pytest.raises(NotImplementedError):
        run(query, {"Some": SOME})
