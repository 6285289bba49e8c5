"""What an identity may do through ARM: everything, until a test refuses an action or gives it nothing but roles.

Each route says which action it is; `Permissions` says who may do that where. Key Vault's data plane and storage have
permissions of their own.
Sources: Azure permissions reference (how actions are named after type and verb); Azure Resource Manager, common
deployment errors (AuthorizationFailed names action and scope); texts of LinkedAuthorizationFailed in public issues:
Azure/aad-pod-identity 339 and 613, Azure/enterprise-azure-policy-as-code 1339. That a list of resources, which needs
no right, leaves out what one may not read, rather than being refused, is reported of deleted vaults (Azure/azure-cli
14091), of subscriptions (Azure/azure-sdk-for-python 40403) and of a group's machines (Azure/azure-sdk-for-go 14110);
that it is so for each resource type is a conclusion.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from threading import Condition
from typing import TYPE_CHECKING, Any

from local.references import CLUSTER_WRITE, needs
from local.simulator.errors import authorization_failed, linked_authorization_failed
from local.simulator.roles import matches

if TYPE_CHECKING:
    from local.simulator.wire import Request

PROVIDERS = "/providers/"


class Permissions:
    """Who may do which action at a scope and everywhere below. Safe from any thread.

    An identity that was given roles has nothing but them; any other may do everything. What is refused, nobody may.
    """

    def __init__(self, changed: Condition) -> None:
        self._changed = changed
        self._refused: set[tuple[str, str]] = set()
        self._roles: defaultdict[str, dict[str, frozenset[str]]] = defaultdict(dict)

    def refuse(self, action: str, *, scope: str = "") -> None:
        """From now on answer 403 to an action, such as `Microsoft.KeyVault/vaults/write` or `*/write`, lists too."""
        with self._changed:
            self._refused.add((action.lower(), _plain(scope)))

    def allow(self, action: str, *, scope: str = "") -> None:
        """Take a refusal back. KeyError when there is none."""
        with self._changed:
            self._refused.remove((action.lower(), _plain(scope)))

    def allow_only(self, actions: Iterable[str], *, object_id: str, scope: str = "") -> None:
        """Give an identity a role at a scope, everywhere by default, in the place of the one it had just there.

        From the first one on it may do what its roles name and nothing else.
        """
        with self._changed:
            self._roles[object_id.lower()][_plain(scope)] = frozenset(actions)

    def may(self, object_id: str, action: str, scope: str) -> bool:
        """True when an identity may do an action at a scope."""
        with self._changed:
            refused = tuple(self._refused)
            roles = self._roles.get(object_id.lower())
            roles = None if roles is None else dict(roles)
        if any(matches(action, pattern) and _is_at(scope, where) for pattern, where in refused):
            return False
        if roles is None:
            return True
        held = (pattern for where, actions in roles.items() if _is_at(scope, where) for pattern in actions)
        return any(matches(action, pattern) for pattern in held)

    def is_refused(self, action: str, scope: str) -> bool:
        """True when a test has refused this action, to whomever."""
        with self._changed:
            return any(matches(action, pattern) and _is_at(scope, where) for pattern, where in self._refused)

    def check(self, object_id: str, action: str, scope: str, linked: Iterable[tuple[str, str]] = ()) -> None:
        """Refuse a call, as ARM does before the resource provider sees it; `linked`: what else it needs, and where."""
        if not self.may(object_id, action, scope):
            raise authorization_failed(object_id, action, scope)
        lacking = [(needed, where) for needed, where in linked if not self.may(object_id, needed, where)]
        if lacking:
            raise linked_authorization_failed(object_id, action, scope, lacking)


def scope_of_call(path: str) -> str:
    """The scope that a call's path is about: the resource, or for a list what the listed things lie in."""
    before, provider, rest = path.rpartition(PROVIDERS)
    namespace, *parts = rest.split("/") if provider else path.strip("/").split("/")
    if not provider:
        parts.insert(0, namespace)
    if len(parts) % 2 == 0:
        return path
    if provider and len(parts) == 1:
        return before or "/"
    return path.rpartition("/")[0] or "/"


def linked_to_cluster(request: Request) -> list[tuple[str, str]]:
    """What an update or creation of a cluster refers to, as actions and scopes, in the order of their names.

    Source: Azure/AKS issue 4980 for the cluster's identity; for the rest see local/references.py.
    """
    body: Any = request.body
    if not isinstance(body, dict):
        return []
    found, _ = needs({**body, "id": request.path})
    return sorted((need.action, need.scope) for need in found if need.action != CLUSTER_WRITE)


def _plain(scope: str) -> str:
    return scope.lower().rstrip("/")


def _is_at(scope: str, where: str) -> bool:
    """True at a scope and everywhere below it; empty is above everything."""
    return f"{scope.lower()}/".startswith(f"{where}/" if where else "")
