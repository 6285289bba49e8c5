"""Rights on Azure resources that the app lacks, as Azure's refusals name them. Pure.

A refusal's text comes from outside: what is not an action at a scope is not taken over.
Source: Azure Resource Manager, common deployment errors, for AuthorizationFailed; for LinkedAuthorizationFailed, texts
in public issues: Azure/aad-pod-identity 339 and 613, Azure/enterprise-azure-policy-as-code 1339.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

CODES = frozenset({"AuthorizationFailed", "LinkedAuthorizationFailed"})
"""Azure's words for: whoever asks lacks a right; on the thing itself, or on what it refers to."""

_READ_UP_TO = 4000
_LONGEST_ACTION, _LONGEST_SCOPE, _MOST_SCOPES = 200, 600, 20
_LACKS = re.compile(
    r"to perform action(?:\(s\))? '([^']{1,2000})' (?:over scope|on the linked scope\(s\)) '([^']{1,3000})'"
)
_ACTION = re.compile(r"[A-Za-z]+(?:\.[A-Za-z]+)+(?:/[A-Za-z]+)+")
_SCOPE = re.compile(r"(?:/[\w.()-]+)+")


@dataclass(frozen=True, slots=True)
class Right:
    """An action at a scope, such as Microsoft.KeyVault/vaults/write on a resource group."""

    action: str
    scope: str


def missing_rights(text: str) -> tuple[Right, ...]:
    """Return the rights that a refusal says are missing, in its order; empty where it can't be read as such."""
    found = _LACKS.search(text[:_READ_UP_TO])
    if found is None:
        return ()
    actions, scopes = ([part.strip() for part in listed.split(",")] for listed in found.groups())
    if len(actions) == 1:
        actions *= len(scopes)
    if len(actions) != len(scopes) or len(scopes) > _MOST_SCOPES:
        return ()
    if not all(map(_is_action, actions)) or not all(map(_is_scope, scopes)):
        return ()
    return tuple(dict.fromkeys(map(Right, actions, scopes)))


def _is_action(text: str) -> bool:
    return len(text) <= _LONGEST_ACTION and _ACTION.fullmatch(text) is not None


def _is_scope(text: str) -> bool:
    return len(text) <= _LONGEST_SCOPE and _SCOPE.fullmatch(text) is not None
