"""Roles of Azure RBAC: what each one grants.

Source: Azure docs, built-in-roles (security, containers, integration), with the ids and actions as they stand there;
Azure RBAC docs, role-definitions, for wildcards and what the `not` lists take away.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from local.simulator.wire import Json

DEFINITION_TYPE = "Microsoft.Authorization/roleDefinitions"
LISTED = "2020-05-19T17:52:47.0699268Z"

VAULTS = "Microsoft.KeyVault/vaults"

# What every role for Key Vault's data plane may do through ARM.
_VAULT_METADATA = (
    "Microsoft.Authorization/*/read",
    "Microsoft.Insights/alertRules/*",
    "Microsoft.Resources/deployments/*",
    "Microsoft.Resources/subscriptions/resourceGroups/read",
    "Microsoft.Support/*",
    "Microsoft.KeyVault/checkNameAvailability/read",
    "Microsoft.KeyVault/deletedVaults/read",
    "Microsoft.KeyVault/locations/*/read",
    f"{VAULTS}/*/read",
    "Microsoft.KeyVault/operations/read",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """One role definition. `scope`: where it was defined and may be assigned; built-in roles everywhere."""

    id: str  # a GUID
    name: str
    actions: tuple[str, ...] = ()
    not_actions: tuple[str, ...] = ()
    data_actions: tuple[str, ...] = ()
    not_data_actions: tuple[str, ...] = ()
    type: str = "BuiltInRole"
    scope: str = "/"

    def grants(self, data_action: str) -> bool:
        """True when an assignment of this role allows a data action."""
        return _listed(data_action, self.data_actions) and not _listed(data_action, self.not_data_actions)

    def document(self, subscription: str | None) -> Json:
        """As ARM shows it; its id is below the subscription through which it was read."""
        prefix = "" if subscription is None else f"/subscriptions/{subscription}"
        return {
            "id": f"{prefix}/providers/{DEFINITION_TYPE}/{self.id}",
            "type": DEFINITION_TYPE,
            "name": self.id,
            "properties": {
                "roleName": self.name,
                "type": self.type,
                "description": "",
                "assignableScopes": [self.scope],
                "permissions": [
                    {
                        "actions": list(self.actions),
                        "notActions": list(self.not_actions),
                        "dataActions": list(self.data_actions),
                        "notDataActions": list(self.not_data_actions),
                    }
                ],
                "createdOn": LISTED,
                "updatedOn": LISTED,
                "createdBy": None,
                "updatedBy": None,
            },
        }


BUILT_IN = (
    Role(id="8e3af657-a8ff-443c-a75c-2fe8c4bcb635", name="Owner", actions=("*",)),
    Role(
        id="b24988ac-6180-42a0-ab88-20f7382dd24c",
        name="Contributor",
        actions=("*",),
        not_actions=(
            "Microsoft.Authorization/*/Delete",
            "Microsoft.Authorization/*/Write",
            "Microsoft.Authorization/elevateAccess/Action",
        ),
    ),
    Role(id="acdd72a7-3385-48ef-bd42-f606fba81ae7", name="Reader", actions=("*/read",)),
    Role(
        id="00482a5a-887f-4fb3-b363-3b7fe8e74483",
        name="Key Vault Administrator",
        actions=_VAULT_METADATA,
        data_actions=(f"{VAULTS}/*",),
    ),
    Role(
        id="f25e0fa2-a7c8-4377-a976-54943a77a395",
        name="Key Vault Contributor",
        actions=(*_VAULT_METADATA[:5], "Microsoft.KeyVault/*"),
        not_actions=(
            "Microsoft.KeyVault/locations/deletedVaults/purge/action",
            "Microsoft.KeyVault/hsmPools/*",
            "Microsoft.KeyVault/managedHsms/*",
        ),
    ),
    Role(
        id="21090545-7ca7-4776-b22c-e363652d74d2",
        name="Key Vault Reader",
        actions=_VAULT_METADATA,
        data_actions=(f"{VAULTS}/*/read", f"{VAULTS}/secrets/readMetadata/action"),
    ),
    Role(
        id="14b46e9e-c2b7-41b4-b07b-48a6ebf60603",
        name="Key Vault Crypto Officer",
        actions=_VAULT_METADATA,
        data_actions=(f"{VAULTS}/keys/*", f"{VAULTS}/keyrotationpolicies/*"),
    ),
    Role(
        id="12338af0-0e69-4776-bea7-57ae8d297424",
        name="Key Vault Crypto User",
        data_actions=(
            f"{VAULTS}/keys/read",
            f"{VAULTS}/keys/update/action",
            f"{VAULTS}/keys/backup/action",
            f"{VAULTS}/keys/encrypt/action",
            f"{VAULTS}/keys/decrypt/action",
            f"{VAULTS}/keys/wrap/action",
            f"{VAULTS}/keys/unwrap/action",
            f"{VAULTS}/keys/sign/action",
            f"{VAULTS}/keys/verify/action",
        ),
    ),
    Role(
        # The trap: it wraps and unwraps, AKS encrypts and decrypts.
        id="e147488a-f6f5-4113-8e2d-b22465e65bf6",
        name="Key Vault Crypto Service Encryption User",
        actions=(
            "Microsoft.EventGrid/eventSubscriptions/write",
            "Microsoft.EventGrid/eventSubscriptions/read",
            "Microsoft.EventGrid/eventSubscriptions/delete",
        ),
        data_actions=(f"{VAULTS}/keys/read", f"{VAULTS}/keys/wrap/action", f"{VAULTS}/keys/unwrap/action"),
    ),
    Role(
        id="d5a91429-5739-47e2-a06b-3470a27159e7",
        name="EventGrid Data Sender",
        actions=(
            "Microsoft.Authorization/*/read",
            "Microsoft.EventGrid/topics/read",
            "Microsoft.EventGrid/domains/read",
            "Microsoft.Resources/subscriptions/resourceGroups/read",
        ),
        data_actions=("Microsoft.EventGrid/events/send/action",),
    ),
)


def _listed(action: str, patterns: tuple[str, ...]) -> bool:
    return any(matches(action, pattern) for pattern in patterns)


def matches(action: str, pattern: str) -> bool:
    """True when an action is what a role's list names, `*` standing for anything; in any case."""
    expression = re.escape(pattern).replace(r"\*", ".*")
    return re.fullmatch(expression, action, re.IGNORECASE) is not None
