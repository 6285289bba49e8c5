"""Managed clusters, as Azure Resource Manager speaks of them. The only place that reads or writes a cluster."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from azure.core import MatchConditions
from azure.core.credentials_async import AsyncTokenCredential
from azure.core.pipeline import PipelineResponse
from azure.core.pipeline.transport import AsyncHttpTransport
from azure.mgmt.containerservice.aio import ContainerServiceClient
from azure.mgmt.containerservice.models import ManagedCluster, RunCommandRequest

from shared.calls import ahead, arm_clients, read_json, read_pages, translated
from shared.clusters import TERMINAL_STATES, Cluster, ClusterId, asking_for, parse_subscription
from shared.decisions import Change
from shared.errors import Malformed, Missing, Unavailable, Unreadable
from shared.telemetry import logger

log = logger(__name__)

_ARM = "https://management.azure.com/"
_SUBSCRIPTIONS = "https://management.azure.com/subscriptions?api-version=2022-12-01"
_SUBSCRIPTION = "https://management.azure.com/subscriptions/{}?api-version=2022-12-01"
_TYPE, _VERSION = "providers/Microsoft.ContainerService/managedClusters", "?api-version=2026-08-01"
_CLUSTERS = f"{_ARM}subscriptions/{{}}/{_TYPE}{_VERSION}"
_CLUSTER = f"{_ARM}subscriptions/{{}}/resourceGroups/{{}}/{_TYPE}/{{}}{_VERSION}"
"""Clusters are read as plain JSON, at the API version of the SDK's own calls: its models, which only a write needs,
take longer to build than all the rest of a look.
"""
_CONNECT_SECONDS, _READ_SECONDS = 10, 40
"""Of a PUT. Together under the look-again interval: by then a claimed write has arrived or never will."""


ENTRA_SERVER = "6dae42f8-4368-4678-94ff-3960e28e3630"
"""AKS in Entra ID, the same in every cloud: whom a token for a cluster's API server is for.

Source: Azure CLI, aks command invoke; Azure/azure-rest-api-specs issue 22480 (MissingAADClusterToken).
"""

_COMMAND = re.compile(r"/commandResults/(\w{1,64})(?:\?|$)", re.IGNORECASE)
_COMMAND_ID = re.compile(r"\w{1,64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class CommandEnd:
    """A command that has ended. `exit_code` None: it could not be run. What it `printed` is for whoever started it."""

    exit_code: int | None
    printed: str = field(default="", repr=False)


class Aks:
    """The managed clusters that the app's identity can see. Errors are those of `shared.errors`."""

    def __init__(
        self, credential: AsyncTokenCredential, transport: AsyncHttpTransport[Any, Any], *, features: str = ""
    ) -> None:
        """`features` are preview features that a write names in its header, with commas between; none by default."""
        self._credential = credential
        self._features = {"AKSHTTPCustomFeatures": features} if features else {}
        self._client = arm_clients(ContainerServiceClient, credential, transport)
        self._tenants: dict[str, str | None] = {}

    async def get(self, cluster_id: ClusterId) -> Cluster | None:
        """Read a cluster afresh; None if it does not exist. Unreadable if that can't be told."""
        names = (quote(name, safe="") for name in (cluster_id.group, cluster_id.name))
        try:
            document = await self._fetch(_CLUSTER.format(cluster_id.subscription, *names))
        except Missing:
            return None
        return Cluster.read(document, document)

    async def pages(self, subscription: str) -> AsyncGenerator[Sequence[Cluster]]:
        """List the clusters of a subscription, page by page. They carry no document to write back: read it first.

        The next page is asked for before one is handed out.
        """
        listed = read_pages(self._client(""), _CLUSTERS.format(subscription))
        async with aclosing(ahead(listed)) as pages:
            async for page in pages:
                yield [cluster for cluster in map(_listed, page) if cluster is not None]

    async def put(self, cluster: Cluster, change: Change) -> str | None:
        """Send one change of a cluster that was just read; return its operation's address, without waiting for its end.

        The body is the cluster's own writable projection with the KMS part changed, the condition its eTag, always:
        without one, Azure would overwrite anything and even bring back a deleted cluster. Never sent twice by us.
        Source: AKS docs, use-etags.
        """
        if not change.etag or change.etag != cluster.etag:
            raise AssertionError("a change is only sent at the eTag it was decided at")
        writable = ManagedCluster(dict(cluster.document)).as_dict(exclude_readonly=True)
        with translated(writing=True):
            poller = await self._client(cluster.id.subscription).managed_clusters.begin_create_or_update(
                cluster.id.group,
                cluster.id.name,
                ManagedCluster(asking_for(writable, change.after, change.identity)),
                etag=change.etag,
                match_condition=MatchConditions.IfNotModified,
                polling=False,
                retry_total=0,
                headers=dict(self._features),
                cls=_operation,
                connection_timeout=_CONNECT_SECONDS,
                read_timeout=_READ_SECONDS,
            )
            operation = await poller.result()
        return str(operation) if operation else None

    async def run(self, cluster: Cluster, command: str) -> str | None:
        """Start a shell command in a pod of a cluster; return where its result will be, without waiting for it.

        Where the cluster asks Entra ID, the command runs as the app's own identity: its token is passed on, and never
        kept. A short command may have ended by the time of the answer, which then is its result.
        Sources: AKS docs, access-private-cluster; Azure REST reference, Managed Clusters - Run Command (200 and 202).
        """
        answers: list[PipelineResponse[Any, Any]] = []

        with translated(writing=True):
            token = await self._cluster_token() if cluster.entra else None
            await self._client(cluster.id.subscription).managed_clusters.begin_run_command(
                cluster.id.group,
                cluster.id.name,
                RunCommandRequest(command=command, cluster_token=token),
                polling=False,
                retry_total=0,
                raw_response_hook=answers.append,
                connection_timeout=_CONNECT_SECONDS,
                read_timeout=_READ_SECONDS,
            )
        command_id = _command_id(answers[-1]) if answers else None
        return f"{cluster.id}/commandResults/{command_id}" if command_id else None

    async def command_end(self, cluster_id: ClusterId, operation: str) -> CommandEnd | None:
        """Return how a command ended, given where its result is; None while it runs.

        A result that Azure has no more is one of a command that could not be run: nobody can tell.
        Source: Azure REST reference, Managed Clusters - Get Command Result (202 while it runs).
        """
        found = _COMMAND.search(operation)
        if found is None:
            return CommandEnd(None)
        operations = self._client(cluster_id.subscription).managed_clusters
        try:
            with translated():
                result = await operations.get_command_result(cluster_id.group, cluster_id.name, found[1])
        except Missing:
            return CommandEnd(None)
        except ValueError as error:  # what it is about may hold what the command printed
            raise Unavailable(type(error).__name__, "an answer that can't be read") from None
        if result is None or (result.provisioning_state or "").lower() not in TERMINAL_STATES:
            return None
        ran = (result.provisioning_state or "").lower() == "succeeded"
        return CommandEnd(result.exit_code, result.logs or "") if ran else CommandEnd(None)

    async def _cluster_token(self) -> str:
        return (await self._credential.get_token(f"{ENTRA_SERVER}/.default")).token

    async def failure(self, operation: str) -> tuple[str, str] | None:
        """Return the code and text with which an operation failed; None if it did not, or nobody can tell any more.

        Source: recorded traffic of the Azure CLI: a status body holds `error` once it failed.
        """
        if not operation.startswith(_ARM):
            return None
        try:
            body = await self._fetch(operation)
        except Unreadable:
            return None
        error = body.get("error")
        if not isinstance(error, dict):
            return None
        return str(error.get("code") or "Failed"), str(error.get("message") or "")

    async def subscriptions(self) -> list[str]:
        """List the subscriptions that the app's identity can read."""
        pages = read_pages(self._client(""), _SUBSCRIPTIONS)
        enabled = [one async for page in pages for one in page if one.get("state") != "Disabled"]
        return [parse_subscription(one["subscriptionId"]) for one in enabled]

    async def tenant(self, subscription: str) -> str | None:
        """Return the tenant of a subscription, which never changes; None where it can't be read."""
        if subscription not in self._tenants:
            try:
                body = await self._fetch(_SUBSCRIPTION.format(subscription))
            except Unreadable:
                return None
            self._tenants[subscription] = body.get("tenantId")
        return self._tenants[subscription]

    async def _fetch(self, link: str) -> dict[str, Any]:
        return await read_json(self._client(""), link)


def _listed(document: dict[str, Any]) -> Cluster | None:
    """A list's cluster; None for one whose id can't be read, which is logged: one such row must not end a sweep."""
    try:
        return Cluster.read(document, {})
    except Malformed as error:
        log.warning("a listed cluster was left out: %s", error)
        return None


def _command_id(answer: PipelineResponse[Any, Any]) -> str | None:
    """The id of a command that Azure took; None if its answer names none. Of the answer nothing else is kept."""
    response = answer.http_response
    found = _COMMAND.search(response.headers.get("Location") or "")
    if found is not None:
        return found[1]
    try:
        result = response.json()
    except ValueError:
        return None
    name = result.get("id") if isinstance(result, dict) else None
    return name if isinstance(name, str) and _COMMAND_ID.fullmatch(name) else None


def _operation(response: PipelineResponse[Any, Any], _body: Any, _headers: Any) -> str | None:
    address: str = response.http_response.headers.get("Azure-AsyncOperation") or ""
    return address if address.startswith(_ARM) else None
