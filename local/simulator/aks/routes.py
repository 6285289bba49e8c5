"""The calls of Microsoft.ContainerService that are simulated.

Managed Clusters: get, list, list by resource group, create or update, update tags, run command, get command result.
Operation status. Nothing deletes over the wire: the product never does, and a call that tries is loud.
Sources: Azure REST reference, AKS 2026-08-01; for what happens over time, traffic recorded in the tests of the
aks-preview CLI extension.
"""

from __future__ import annotations

import hashlib
from typing import Any
from urllib.parse import urlencode

from local.simulator.aks.documents import PROVIDER, Seed, cluster_id
from local.simulator.aks.state import Aks, Operation, SimulatedCluster
from local.simulator.errors import ServiceError, bad_request, invalid_request_content
from local.simulator.identity import Caller
from local.simulator.paging import page
from local.simulator.permissions import linked_to_cluster
from local.simulator.wire import Json, Reply, Request, route

SUBSCRIPTION_PATH = "/subscriptions/{subscription}"
GROUP_PATH = SUBSCRIPTION_PATH + "/resourceGroups/{group}"
CLUSTER_PATH = GROUP_PATH + PROVIDER + "/{cluster}"
OPERATION_PATH = SUBSCRIPTION_PATH + "/providers/Microsoft.ContainerService/locations/{location}/operations/{operation}"

TYPE = "Microsoft.ContainerService/managedClusters"
SIGNATURE_LENGTH = 2600


def get_cluster(aks: Aks, request: Request) -> Reply:
    """Managed Clusters - Get."""
    return Reply(200, aks.require(_cluster_id(request)).rendered())


def list_clusters(aks: Aks, request: Request) -> Reply:
    """Managed Clusters - List, List By Resource Group."""
    prefix = f"/subscriptions/{request['subscription']}/resourcegroups/"
    if "group" in request.parameters:
        prefix += f"{request['group']}/"
    return page(request, aks.below(prefix), aks.page_size, SimulatedCluster.rendered)


def put_cluster(aks: Aks, request: Request) -> Reply:
    """Managed Clusters - Create Or Update: 200 for one that exists, 201 for a new one."""
    body = _document(request)
    cluster = aks.find(_cluster_id(request))
    caller = _caller(request)
    if cluster is not None:
        operation = aks.update(cluster, body, request.headers, caller)
        return Reply(200, cluster.rendered(), _operation_headers(request, operation))
    document, operation = aks.insert(_seed(request, body), body, request.headers, caller)
    return Reply(201, document, _operation_headers(request, operation))


def patch_tags(aks: Aks, request: Request) -> Reply:
    """Managed Clusters - Update Tags."""
    cluster = aks.require(_cluster_id(request))
    tags = request.body.get("tags") if isinstance(request.body, dict) else None
    if not isinstance(tags, dict) or len(request.body) != 1:
        raise bad_request("Only tags can be patched.")
    aks.tag(cluster, tags, request.headers, _caller(request))
    return Reply(200, cluster.rendered())


def get_operation(aks: Aks, request: Request) -> Reply:
    """The status of a long-running operation, at the URL that the reply to the PUT gave."""
    operation = aks.operations.get(request["operation"].lower())
    if operation is None:
        raise ServiceError(404, "NotFound", f"The operation {request['operation']} was not found.")
    return Reply(200, operation.document(aks.now()))


def run_command(aks: Aks, request: Request) -> Reply:
    """Managed Clusters - Run Command: 202, and where the result will be; 200 and the result if it has ended."""
    cluster = aks.require(_cluster_id(request))
    body = request.body if isinstance(request.body, dict) else {}
    command = aks.commands.start(cluster, body.get("command"), body.get("clusterToken"))
    document = command.document()
    if document is not None:
        return Reply(200, document)
    address = (
        f"https://{request.host}{cluster.id}/commandResults/{command.id}?api-version={request.query['api-version']}"
    )
    return Reply(202, None, {"Location": address})


def get_command_result(aks: Aks, request: Request) -> Reply:
    """Managed Clusters - Get Command Result: 202 while it runs, then 200."""
    cluster = aks.require(_cluster_id(request))
    command = aks.commands.find(cluster, request["command"])
    document = command.document()
    if document is None:
        address = f"https://{request.host}{request.path}?api-version={request.query['api-version']}"
        return Reply(202, None, {"Location": address})
    return Reply(200, document)


def _cluster_id(request: Request) -> str:
    return cluster_id(request["subscription"], request["group"], request["cluster"])


def _seed(request: Request, body: Json) -> Seed:
    version = str(body["properties"].get("kubernetesVersion") or "1.33.3")
    return Seed(
        name=request["cluster"],
        subscription=request["subscription"],
        group=request["group"],
        location=str(body["location"]),
        kubernetes=version,
        state="Creating",
    )


def _document(request: Request) -> Json:
    body: Any = request.body
    if not isinstance(body, dict) or not isinstance(body.get("properties"), dict):
        raise invalid_request_content("The request content was invalid and could not be deserialized.")
    if not body.get("location"):
        raise ServiceError(400, "LocationRequired", "The location property is required for this definition.")
    return body


def _caller(request: Request) -> Caller:
    return request.caller or Caller({})


def _operation_headers(request: Request, operation: Operation) -> dict[str, str]:
    """About 3 kB, signed: too long for a table's row, as in recorded traffic."""
    path = OPERATION_PATH.format(
        subscription=request["subscription"], location=operation.location, operation=operation.id
    )
    digest = hashlib.sha256(operation.id.encode()).hexdigest()
    query = {
        "api-version": "2025-03-01",
        "t": str(int(operation.started.timestamp() * 10_000_000)),
        "c": (digest * (SIGNATURE_LENGTH // len(digest) + 1))[:SIGNATURE_LENGTH],
        "s": digest[:43] + digest,
        "h": digest[:43],
    }
    return {"Azure-AsyncOperation": f"https://{request.host}{path}?{urlencode(query)}"}


ROUTES = (
    route("GET", CLUSTER_PATH, get_cluster, f"{TYPE}/read"),
    route("PUT", CLUSTER_PATH, put_cluster, f"{TYPE}/write", linked=linked_to_cluster),
    route("PATCH", CLUSTER_PATH, patch_tags, f"{TYPE}/write"),
    route("GET", SUBSCRIPTION_PATH + PROVIDER, list_clusters, f"{TYPE}/read", filtered=True),
    route("GET", GROUP_PATH + PROVIDER, list_clusters, f"{TYPE}/read", filtered=True),
    route("GET", OPERATION_PATH, get_operation, "Microsoft.ContainerService/locations/operations/read"),
    route("POST", CLUSTER_PATH + "/runCommand", run_command, f"{TYPE}/runCommand/action"),
    route("GET", CLUSTER_PATH + "/commandResults/{command}", get_command_result, f"{TYPE}/commandResults/read"),
)
