"""What the app's own roles let it do through ARM: everything, but for the actions that a test refuses.

Source: Azure RBAC docs, resource-provider-operations (how an action is named after the type and the verb);
Azure Resource Manager, common deployment errors (AuthorizationFailed names action and scope).
"""

from __future__ import annotations

from threading import Condition

from local.simulator.errors import authorization_failed
from local.simulator.roles import matches

VERBS = {"GET": "read", "PUT": "write", "PATCH": "write", "DELETE": "delete", "POST": "action"}
PROVIDERS = "/providers/"


class Permissions:
    """The actions that are refused, each at a scope and everywhere below. Safe from any thread."""

    def __init__(self, changed: Condition) -> None:
        self._changed = changed
        self._refused: set[tuple[str, str]] = set()

    def refuse(self, action: str, *, scope: str = "") -> None:
        """From now on answer 403 to an action, such as `Microsoft.KeyVault/vaults/write` or `*/write`."""
        with self._changed:
            self._refused.add((action.lower(), scope.lower().rstrip("/")))

    def allow(self, action: str, *, scope: str = "") -> None:
        """Take a refusal back. KeyError when there is none."""
        with self._changed:
            self._refused.remove((action.lower(), scope.lower().rstrip("/")))

    def check(self, object_id: str, method: str, path: str) -> None:
        """Refuse a call, as ARM does before the resource provider sees it."""
        named = action_of(method, path)
        if named is None:
            return
        action, scope = named
        with self._changed:
            refused = tuple(self._refused)
        for pattern, where in refused:
            if matches(action, pattern) and f"{scope.lower()}/".startswith(f"{where}/" if where else ""):
                raise authorization_failed(object_id, action, scope)


def action_of(method: str, path: str) -> tuple[str, str] | None:
    """The action that a call is, and its scope: the resource, or what is listed. None for what has no provider."""
    verb = VERBS.get(method)
    scope, separator, rest = path.rpartition(PROVIDERS)
    if verb is None or not separator:
        return None
    namespace, *parts = rest.split("/")
    if len(parts) % 2 == 0:
        scope = path
    if method == "POST" and len(parts) > 1:
        scope = path.rpartition("/")[0]  # an action has no name of its own
    return "/".join([namespace, *parts[::2], verb]), scope
