"""User-assigned managed identities: those that exist, whoever made them.

Get, create or update, list by resource group. Nothing deletes: a call that tries is loud.
Sources: Azure REST reference, Managed Identity 2024-11-30; Managed identities docs, how-manage-user-assigned-managed-
identities (the CLI's output has `resourcegroups` in lower case, names have 3 to 128 characters).
"""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from local.simulator.errors import (
    bad_request,
    invalid_request_content,
    location_differs,
    location_required,
    resource_not_found,
)
from local.simulator.identity import TENANT
from local.simulator.paging import page
from local.simulator.subscriptions import LOCATION, SUBSCRIPTION, Subscriptions
from local.simulator.wire import Json, Reply, Request, rendered, route

if TYPE_CHECKING:
    from collections.abc import Mapping
    from threading import Condition

IDENTITY_TYPE = "Microsoft.ManagedIdentity/userAssignedIdentities"
GROUP_PATH = f"/subscriptions/{{subscription}}/resourceGroups/{{group}}/providers/{IDENTITY_TYPE}"
IDENTITY_PATH = GROUP_PATH + "/{identity}"

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{2,127}")


def get_identity(identities: Identities, request: Request) -> Reply:
    """User Assigned Identities - Get."""
    found = identities.find(_id(request))
    if found is None:
        raise resource_not_found(f"{IDENTITY_TYPE}/{request['identity']}", request["group"])
    return Reply(200, found.document())


def list_identities(identities: Identities, request: Request) -> Reply:
    """User Assigned Identities - List By Resource Group."""
    prefix = f"{GROUP_PATH.format(subscription=request['subscription'], group=request['group'])}/".lower()
    rows = {key: identity for key, identity in identities.all.items() if key.startswith(prefix)}
    return page(request, rows, identities.page_size, lambda identity: rendered(identity.document()))


def put_identity(identities: Identities, request: Request) -> Reply:
    """User Assigned Identities - Create Or Update: 201 for a new one; one that is there keeps its principal."""
    body: Any = request.body
    if not isinstance(body, dict):
        raise invalid_request_content("The request content was invalid and could not be deserialized.")
    if not body.get("location"):
        raise location_required()
    location = str(body["location"]).replace(" ", "").lower()
    tags = body.get("tags") or {}
    found = identities.find(_id(request))
    if found is None:
        return Reply(201, _created(identities, request, location, tags).document())
    if found.location != location:
        raise location_differs(found.name, request["group"], found.location, location)
    found.tags = dict(tags)
    return Reply(200, found.document())


@dataclass(slots=True)
class ManagedIdentity:
    """One user-assigned identity. `id` is as whoever made it wrote it; ARM shows it in its own way."""

    id: str
    location: str
    principal_id: str
    client_id: str
    tags: dict[str, str]

    @property
    def name(self) -> str:
        return self.id.split("/")[-1]

    def ids(self) -> Json:
        """What a resource that has this identity shows of it."""
        return {"clientId": self.client_id, "principalId": self.principal_id}

    def document(self) -> Json:
        """As ARM shows it, `resourcegroups` in lower case."""
        return {
            "id": re.sub("/resourcegroups/", "/resourcegroups/", self.id, flags=re.IGNORECASE),
            "name": self.name,
            "type": IDENTITY_TYPE,
            "location": self.location,
            "tags": self.tags,
            "properties": {"tenantId": TENANT, **self.ids()},
        }


class Identities:
    """The identities by lower-case id. Safe from any thread."""

    def __init__(self, subscriptions: Subscriptions, changed: Condition) -> None:
        self.all: dict[str, ManagedIdentity] = {}
        self.page_size = 100
        self._subscriptions = subscriptions
        self._changed = changed

    def add(
        self,
        name: str,
        *,
        subscription: str = SUBSCRIPTION,
        group: str = "rg-apps",
        location: str = LOCATION,
        tags: Mapping[str, str] | None = None,
        principal_id: str | None = None,
    ) -> ManagedIdentity:
        """An identity that exists, and its resource group."""
        resource = IDENTITY_PATH.format(subscription=subscription, group=group, identity=name)
        made = ManagedIdentity(
            resource, location, principal_id or str(uuid.uuid4()), str(uuid.uuid4()), dict(tags or {})
        )
        with self._changed:
            self._subscriptions.add(subscription, group=group, location=location)
            self.all[resource.lower()] = made
            self._changed.notify_all()
        return made

    def find(self, resource_id: str) -> ManagedIdentity | None:
        """The identity with this id, in any case."""
        with self._changed:
            return self.all.get(resource_id.lower())

    def knows(self, principal_id: str) -> bool:
        """True when one of them is this principal."""
        wanted = principal_id.lower()
        with self._changed:
            return any(identity.principal_id.lower() == wanted for identity in self.all.values())

    def fill(self, document: Json) -> None:
        """Give the identities that a cluster's document names the ids that they have, where they exist."""
        for resource, assigned in assigned_in(document).items():
            found = self.find(resource)
            if found is not None:
                assigned.update(found.ids())

    def take(self, document: Json) -> None:
        """Let the identities that a cluster's document shows with their ids exist, with just these ids."""
        for resource, assigned in assigned_in(document).items():
            parts = resource.split("/")
            if len(parts) != len(IDENTITY_PATH.split("/")) or not {"principalId", "clientId"} <= set(assigned):
                continue
            with self._changed:
                found = self.all.get(resource.lower())
                location, tags = (found.location, found.tags) if found else (str(document["location"]), {})
                ids = (str(assigned["principalId"]), str(assigned["clientId"]))
                self.all[resource.lower()] = ManagedIdentity(resource, location, *ids, tags)
                self._subscriptions.add(parts[2], group=parts[4], location=location)


def assigned_in(document: Json) -> dict[str, Json]:
    """What a cluster's document says of its user-assigned identities, by resource id; live."""
    assigned = (document.get("identity") or {}).get("userAssignedIdentities") or {}
    return {resource: ids for resource, ids in assigned.items() if isinstance(ids, dict)}


def _id(request: Request) -> str:
    return IDENTITY_PATH.format(
        subscription=request["subscription"], group=request["group"], identity=request["identity"]
    )


def _created(identities: Identities, request: Request, location: str, tags: Mapping[str, str]) -> ManagedIdentity:
    if NAME.fullmatch(request["identity"]) is None:
        raise bad_request(f"The name '{request['identity']}' of the user-assigned identity is not valid.")
    return identities.add(
        request["identity"],
        subscription=request["subscription"],
        group=request["group"],
        location=location,
        tags=tags,
    )


ROUTES = (
    route("GET", IDENTITY_PATH, get_identity, f"{IDENTITY_TYPE}/read"),
    route("GET", GROUP_PATH, list_identities, f"{IDENTITY_TYPE}/read", filtered=True),
    route("PUT", IDENTITY_PATH, put_identity, f"{IDENTITY_TYPE}/write"),
)
