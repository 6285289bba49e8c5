"""Azure RBAC: who was given which role where, and since when it counts.

Role assignments: list for a subscription, a resource group, a resource, and what lies in a resource (a key).
Role definitions: get, get by id, list. What assigns over the wire stands in grants.py; nothing removes: a call that
tries is loud.
Sources: Azure REST reference, Authorization 2022-04-01; Azure RBAC docs, role-assignments-list-rest (what each filter
includes), scope-overview, troubleshooting (assignments take minutes to take effect).
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from local.simulator.clock import timestamp
from local.simulator.errors import ServiceError, authorization_failed, bad_request
from local.simulator.paging import page
from local.simulator.roles import BUILT_IN, DEFINITION_TYPE, Role
from local.simulator.subscriptions import SUBSCRIPTION
from local.simulator.wire import Json, Reply, Request, rendered, route

if TYPE_CHECKING:
    from threading import Condition

    from local.simulator.clock import Clock

ASSIGNMENT_TYPE = "Microsoft.Authorization/roleAssignments"
ASSIGNMENTS = f"/providers/{ASSIGNMENT_TYPE}"
DEFINITIONS = f"/providers/{DEFINITION_TYPE}"

SUBSCRIPTION_PATH = "/subscriptions/{subscription}"
GROUP_PATH = SUBSCRIPTION_PATH + "/resourceGroups/{group}"
RESOURCE_PATH = GROUP_PATH + "/providers/{namespace}/{type}/{name}"
SCOPE_PATHS = (SUBSCRIPTION_PATH, GROUP_PATH, RESOURCE_PATH, RESOURCE_PATH + "/{child_type}/{child}")

CLAUSE = re.compile(
    r"(?P<at_scope>atScope\(\))|assignedTo\('(?P<assigned_to>[^']+)'\)|principalId eq '(?P<principal>[^']+)'",
    re.IGNORECASE,
)
ROLE_NAME = re.compile(r"roleName eq '(?P<name>[^']+)'", re.IGNORECASE)


def list_assignments(access: Access, request: Request) -> Reply:
    """Role Assignments - List For Subscription, For Resource Group, For Resource, For Scope."""
    scope = scope_of(request)
    if not access.readable:
        raise authorization_failed(_object_id(request), f"{ASSIGNMENT_TYPE}/read", scope)
    wanted = Filter.parse(request.query.get("$filter"))
    rows = {assignment.id.lower(): assignment for assignment in access.listed(scope, wanted)}
    subscription = request["subscription"]
    return page(request, rows, access.page_size, lambda row: rendered(row.document(subscription)))


def list_definitions(access: Access, request: Request) -> Reply:
    """Role Definitions - List, with the one filter that is known."""
    _check_definitions(access, request)
    text = request.query.get("$filter")
    found = None if text is None else ROLE_NAME.fullmatch(text)
    if text is not None and found is None:
        raise bad_request("The filter is not simulated.")
    rows = {role.id: role for role in access.roles if found is None or role.name.lower() == found["name"].lower()}
    return page(request, rows, access.page_size, lambda role: rendered(role.document(request["subscription"])))


def get_definition(access: Access, request: Request) -> Reply:
    """Role Definitions - Get, Get By Id."""
    _check_definitions(access, request)
    role = access.role(request["definition"])
    if role is None:
        text = f"The specified role definition with ID '{request['definition']}' does not exist."
        raise ServiceError(404, "RoleDefinitionDoesNotExist", text)
    return Reply(200, role.document(request.parameters.get("subscription")))


@dataclass(frozen=True, slots=True)
class Assignment:
    """One role given to one principal at one scope. `holds`: what its condition, if it has one, comes to."""

    name: str  # a GUID
    scope: str
    principal_id: str
    principal_type: str
    role: Role
    created: datetime
    condition: str | None = None
    holds: bool = True
    created_by: str | None = None
    updated: datetime | None = None
    description: str | None = None

    @property
    def id(self) -> str:
        return f"{self.scope.rstrip('/')}{ASSIGNMENTS}/{self.name}"

    def covers(self, scope: str) -> bool:
        """True at its scope and everywhere below. The tenant's root and management groups are above everything."""
        own = self.scope.lower().rstrip("/")
        if not own.startswith("/subscriptions/"):
            return True
        return f"{scope.lower()}/".startswith(f"{own}/")

    def is_below(self, scope: str) -> bool:
        """True at a scope and everywhere below it."""
        return f"{self.scope.lower()}/".startswith(f"{scope.lower()}/")

    def document(self, subscription: str) -> Json:
        """As ARM shows it; the role's id is below the subscription through which it was read."""
        return {
            "id": self.id,
            "type": ASSIGNMENT_TYPE,
            "name": self.name,
            "properties": {
                "roleDefinitionId": f"/subscriptions/{subscription}{DEFINITIONS}/{self.role.id}",
                "principalId": self.principal_id,
                "principalType": self.principal_type,
                "scope": self.scope,
                "condition": self.condition,
                "conditionVersion": None if self.condition is None else "2.0",
                "createdOn": timestamp(self.created),
                "updatedOn": timestamp(self.updated or self.created),
                "createdBy": self.created_by,
                "updatedBy": self.created_by,
                "delegatedManagedIdentityResourceId": None,
                "description": self.description,
            },
        }


@dataclass(frozen=True, slots=True)
class Filter:
    """What a list of assignments is asked for. None: of anybody; `assigned_to` follows groups, `principal` does not."""

    at_scope: bool = False
    assigned_to: str | None = None
    principal: str | None = None

    @classmethod
    def parse(cls, text: str | None) -> Filter:
        """Read `$filter`: its clauses joined by `and`. Anything else is 400."""
        found: dict[str, str] = {}
        for clause in re.split(r"\s+and\s+", text, flags=re.IGNORECASE) if text else ():
            match = CLAUSE.fullmatch(clause.strip())
            if match is None:
                raise bad_request("The filter is not simulated.")
            found |= {name: value for name, value in match.groupdict().items() if value is not None}
        return cls("at_scope" in found, found.get("assigned_to"), found.get("principal"))


class Access:
    """The assignments of the tenant. Safe from any thread.

    `propagation`: how long after it was made an assignment takes effect, on the simulated clock; ARM shows it at once.
    `readable`, `definitions_readable`: False lets the app be refused when it lists assignments, or reads definitions.
    `knows_principal` and `knows_resource` tell what else there is in the tenant, by object id and by ARM id.
    """

    def __init__(self, clock: Clock, changed: Condition) -> None:
        self.propagation = timedelta(0)
        self.readable = True
        self.definitions_readable = True
        self.page_size = 100
        self.assignments: dict[str, Assignment] = {}
        self.groups: dict[str, set[str]] = {}
        self.knows_principal: Callable[[str], bool] = lambda _object_id: False
        self.knows_resource: Callable[[str], bool] = lambda _resource_id: False
        self._roles = {role.id: role for role in BUILT_IN}
        self._clock = clock
        self._changed = changed

    @property
    def roles(self) -> tuple[Role, ...]:
        """Every role, built-in and custom."""
        with self._changed:
            return tuple(self._roles.values())

    def define(
        self,
        name: str,
        data_actions: Iterable[str],
        *,
        actions: Iterable[str] = (),
        not_data_actions: Iterable[str] = (),
    ) -> str:
        """Make a custom role; its GUID."""
        role = Role(
            id=str(uuid.uuid4()),
            name=name,
            actions=tuple(actions),
            not_actions=(),
            data_actions=tuple(data_actions),
            not_data_actions=tuple(not_data_actions),
            type="CustomRole",
            scope=f"/subscriptions/{SUBSCRIPTION}",
        )
        with self._changed:
            self._roles[role.id] = role
        return role.id

    def assign(
        self,
        principal_id: str,
        role: str,
        scope: str,
        *,
        created: datetime | None = None,
        condition: str | None = None,
        holds: bool = True,
        principal_type: str = "ServicePrincipal",
    ) -> str:
        """Give a role, by name or GUID, at a scope; the assignment's id. LookupError when there is no such role.

        Nobody evaluates a `condition`: `holds` says what it comes to.
        """
        found = self.role(role)
        if found is None:
            raise LookupError(f"no role is called {role}")
        assignment = Assignment(
            name=str(uuid.uuid4()),
            scope=scope,
            principal_id=principal_id,
            principal_type=principal_type,
            role=found,
            created=created or self._clock.now(),
            condition=condition,
            holds=holds,
        )
        self.put(assignment)
        return assignment.id

    def put(self, assignment: Assignment) -> None:
        """Take an assignment as it is, in the place of the one with its id."""
        with self._changed:
            self.assignments[assignment.id.lower()] = assignment
            self._changed.notify_all()

    def now(self) -> datetime:
        """The simulated time."""
        return self._clock.now()

    def remove(self, assignment_id: str) -> None:
        """Take an assignment away, at once in effect."""
        with self._changed:
            del self.assignments[assignment_id.lower()]
            self._changed.notify_all()

    def group(self, group_id: str, members: Iterable[str]) -> None:
        """Make a group of principals and groups, by object id."""
        with self._changed:
            self.groups[group_id.lower()] = {member.lower() for member in members}

    def groups_of(self, principal_id: str) -> set[str]:
        """The lower-case ids of the groups that a principal is in, groups in groups included."""
        with self._changed:
            found: set[str] = set()
            newly = {principal_id.lower()}
            while newly:
                newly = {group for group, members in self.groups.items() if members & newly} - found
                found |= newly
            return found

    def may(self, principal_id: str, data_action: str, scope: str, at: datetime | None = None) -> bool:
        """True when an assignment in effect at that time (now) allows a data action at a scope."""
        moment = at or self._clock.now()
        return any(
            assignment.role.grants(data_action)
            and assignment.covers(scope)
            and assignment.holds
            and assignment.created + self.propagation <= moment
            for assignment in self._of(self._with_groups(principal_id))
        )

    def role(self, name_or_id: str) -> Role | None:
        """A role by its name or GUID, in any case."""
        wanted = name_or_id.lower()
        return next((role for role in self.roles if wanted in (role.id, role.name.lower())), None)

    def listed(self, scope: str, wanted: Filter) -> list[Assignment]:
        """The assignments at and above a scope, and below it unless the filter has `atScope()`."""
        principals = None
        if wanted.assigned_to is not None:
            principals = self._with_groups(wanted.assigned_to)
        if wanted.principal is not None:
            named = {wanted.principal.lower()}
            principals = named if principals is None else principals & named
        return [
            assignment
            for assignment in self._of(principals)
            if assignment.covers(scope) or (not wanted.at_scope and assignment.is_below(scope))
        ]

    def every(self) -> list[Assignment]:
        """All assignments of the tenant."""
        return self._of(None)

    def _with_groups(self, principal_id: str) -> set[str]:
        return {principal_id.lower()} | self.groups_of(principal_id)

    def _of(self, principals: set[str] | None) -> list[Assignment]:
        with self._changed:
            every = list(self.assignments.values())
        if principals is None:
            return every
        return [assignment for assignment in every if assignment.principal_id.lower() in principals]


def _check_definitions(access: Access, request: Request) -> None:
    if not access.definitions_readable:
        raise authorization_failed(_object_id(request), f"{DEFINITION_TYPE}/read", scope_of(request))


def scope_of(request: Request) -> str:
    """What stands before the provider: the scope that a call is about."""
    end = request.path.lower().rindex("/providers/microsoft.authorization/")
    return request.path[:end] or "/"


def _object_id(request: Request) -> str:
    return "" if request.caller is None else request.caller.object_id


ROUTES = (
    *(route("GET", path + ASSIGNMENTS, list_assignments, f"{ASSIGNMENT_TYPE}/read") for path in SCOPE_PATHS),
    *(route("GET", path + DEFINITIONS, list_definitions, f"{DEFINITION_TYPE}/read") for path in SCOPE_PATHS),
    *(
        route("GET", path + DEFINITIONS + "/{definition}", get_definition, f"{DEFINITION_TYPE}/read")
        for path in ("", *SCOPE_PATHS)
    ),
)
