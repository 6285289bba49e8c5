"""Role assignments made over the wire: create, get.

Sources: Azure REST reference, Authorization 2022-04-01, Role Assignments - Create, Get; Azure RBAC docs,
troubleshooting (names are unique in the tenant, what principalType is for). The texts stand in public issues: azurerm
provider 24045 (RoleAssignmentExists, 409) and 8547 (InvalidRoleDefinitionId, 400), Azure-Landing-Zones 2040
(RoleAssignmentUpdateNotPermitted, BadRequest), HubAndSpokeResearchEnclave 50 (PrincipalNotFound), azure-cli 2458
(BadRequestFormat, 400).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

from local.simulator.access import ASSIGNMENT_TYPE, ASSIGNMENTS, SCOPE_PATHS, Access, Assignment, scope_of
from local.simulator.errors import ServiceError, resource_not_found
from local.simulator.identity import TENANT, Caller
from local.simulator.roles import DEFINITION_TYPE, Role
from local.simulator.wire import Reply, Request, route

GUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
DEFINITION_ID = re.compile(
    rf"(?:/subscriptions/[^/]+)?/providers/{re.escape(DEFINITION_TYPE)}/(?P<role>[^/]+)", re.IGNORECASE
)
PRINCIPAL_TYPES = frozenset({"User", "Group", "ServicePrincipal", "ForeignGroup", "Device"})


def create_assignment(access: Access, request: Request) -> Reply:
    """Role Assignments - Create: 201 for a new one, 200 for the same one again. ARM lists it at once.

    Only the condition and the description of one that is there can change.
    """
    _check_scope(access, request)
    wanted = _assignment(access, request)
    every = access.every()
    named = next((one for one in every if one.name == wanted.name), None)
    if named is not None:
        return _updated(access, named, wanted)
    if any(_is_same(one, wanted) for one in every):
        raise ServiceError(409, "RoleAssignmentExists", "The role assignment already exists.")
    access.put(wanted)
    return Reply(201, wanted.document(request["subscription"]))


def get_assignment(access: Access, request: Request) -> Reply:
    """Role Assignments - Get."""
    key = f"{scope_of(request)}{ASSIGNMENTS}/{request['assignment']}".lower()
    found = access.assignments.get(key)
    if found is None:
        text = f"The role assignment '{request['assignment']}' is not found."
        raise ServiceError(404, "RoleAssignmentNotFound", text)
    return Reply(200, found.document(request["subscription"]))


@dataclass(frozen=True, slots=True)
class Grant:
    """What the body of a Create asks for."""

    definition_id: str
    principal_id: str
    principal_type: str | None
    condition: str | None
    description: str | None

    @classmethod
    def parse(cls, body: Any) -> Grant:
        """Read it; 400 when it is not what the service takes."""
        properties = body.get("properties") if isinstance(body, dict) else None
        if not isinstance(properties, dict):
            raise _malformed()
        grant = cls(
            str(properties.get("roleDefinitionId")),
            str(properties.get("principalId")),
            properties.get("principalType"),
            properties.get("condition"),
            properties.get("description"),
        )
        if re.fullmatch(GUID, grant.principal_id, re.IGNORECASE) is None:
            raise _malformed()
        if grant.principal_type is not None and grant.principal_type not in PRINCIPAL_TYPES:
            raise _malformed()
        if grant.condition is not None and properties.get("conditionVersion") != "2.0":
            raise _malformed()
        return grant


def _assignment(access: Access, request: Request) -> Assignment:
    name = request["assignment"].lower()
    if re.fullmatch(GUID, name) is None:
        text = f"The role assignment ID '{name}' is not valid. The role assignment ID must be a GUID."
        raise ServiceError(400, "InvalidRoleAssignmentId", text)
    grant = Grant.parse(request.body)
    return Assignment(
        name=name,
        scope=scope_of(request),
        principal_id=grant.principal_id,
        principal_type=grant.principal_type or _found_type(access, grant.principal_id),
        role=_role(access, grant.definition_id),
        created=access.now(),
        condition=grant.condition,
        created_by=(request.caller or Caller({})).object_id,
        description=grant.description,
    )


def _updated(access: Access, named: Assignment, wanted: Assignment) -> Reply:
    if not _is_same(named, wanted):
        text = "Tenant ID, application ID, principal ID, and scope are not allowed to be updated."
        raise ServiceError(400, "RoleAssignmentUpdateNotPermitted", text)
    if (named.condition, named.description) != (wanted.condition, wanted.description):
        named = replace(named, condition=wanted.condition, description=wanted.description, updated=wanted.created)
        access.put(named)
    return Reply(200, named.document(named.scope.split("/")[2]))


def _is_same(one: Assignment, other: Assignment) -> bool:
    return _key(one) == _key(other)


def _key(assignment: Assignment) -> tuple[str, str, str]:
    return assignment.principal_id.lower(), assignment.role.id, assignment.scope.lower()


def _check_scope(access: Access, request: Request) -> None:
    """ARM has checked the subscription and the group; the resource, or what lies in it, must be there too."""
    if "name" not in request.parameters or access.knows_resource(scope_of(request)):
        return
    resource = f"{request['namespace']}/{request['type']}/{request['name']}"
    raise resource_not_found(resource, request["group"])


def _role(access: Access, definition_id: str) -> Role:
    """The role of a full id. Which status a missing one gets is not documented; here it is that of reading it."""
    found = DEFINITION_ID.fullmatch(definition_id)
    if found is None:
        raise _malformed()
    if re.fullmatch(GUID, found["role"], re.IGNORECASE) is None:
        text = f"The role definition ID '{found['role']}' is not valid."
        raise ServiceError(400, "InvalidRoleDefinitionId", text)
    role = access.role(found["role"])
    if role is None:
        text = f"The specified role definition with ID '{found['role']}' does not exist."
        raise ServiceError(404, "RoleDefinitionDoesNotExist", text)
    return role


def _found_type(access: Access, principal_id: str) -> str:
    """Who does not say what a principal is has it looked up, which fails for one that is missing or too new."""
    if principal_id.lower() in access.groups:
        return "Group"
    if access.knows_principal(principal_id):
        return "ServicePrincipal"
    text = (
        f"Principal {principal_id.replace('-', '')} does not exist in the directory {TENANT}. Check that you have the "
        "correct principal ID. If you are creating this principal and then immediately assigning a role, this error "
        "might be related to a replication delay. In this case, set the role assignment principalType property to a "
        "value, such as ServicePrincipal, User, or Group.  See https://aka.ms/docs-principaltype"
    )
    raise ServiceError(400, "PrincipalNotFound", text)


def _malformed() -> ServiceError:
    return ServiceError(400, "BadRequestFormat", "The request was incorrectly formatted.")


ROUTES = tuple(
    route(method, path + ASSIGNMENTS + "/{assignment}", answer, f"{ASSIGNMENT_TYPE}/{verb}")
    for path in SCOPE_PATHS
    for method, answer, verb in (("PUT", create_assignment, "write"), ("GET", get_assignment, "read"))
)
