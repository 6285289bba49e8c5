"""Vaults as ARM shows them, existing and soft-deleted.

Source: Azure REST reference, Key Vault resource provider, Vaults.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from local.simulator.clock import timestamp
from local.simulator.identity import TENANT
from local.simulator.keyvault.keys import SimulatedKey, key_not_found
from local.simulator.keyvault.network import Network
from local.simulator.wire import Json

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

VAULT_TYPE = "Microsoft.KeyVault/vaults"
DELETED_VAULT_TYPE = "Microsoft.KeyVault/deletedVaults"
RETENTION_DAYS = 90


@dataclass(slots=True)
class SimulatedVault:
    """One vault: its live ARM document, and its keys by lower-case name; the deleted ones apart."""

    document: Json
    keys: dict[str, SimulatedKey] = field(default_factory=dict)
    deleted_keys: dict[str, SimulatedKey] = field(default_factory=dict)
    deleted: datetime | None = None

    @property
    def id(self) -> str:
        return str(self.document["id"])

    @property
    def name(self) -> str:
        return str(self.document["name"])

    @property
    def location(self) -> str:
        return str(self.document["location"])

    @property
    def uri(self) -> str:
        """The data plane's address, with a slash at its end."""
        return str(self.properties["vaultUri"])

    @property
    def host(self) -> str:
        """The data plane's host name, lower case."""
        return self.uri.removeprefix("https://").rstrip("/").lower()

    @property
    def properties(self) -> Json:
        """The live properties of the document."""
        found: Json = self.document["properties"]
        return found

    @property
    def network(self) -> Network:
        """Who gets through to the data plane."""
        return Network.of(self.properties)

    @property
    def is_registered(self) -> bool:
        """False while nobody reaches its data plane, because its name is still being registered."""
        return str(self.properties["provisioningState"]) != "RegisteringDns"

    @property
    def is_rbac(self) -> bool:
        """True when roles decide, False when access policies do."""
        return bool(self.properties.get("enableRbacAuthorization"))

    @property
    def retention_days(self) -> int:
        """How long what was deleted can be recovered."""
        return int(self.properties.get("softDeleteRetentionInDays") or RETENTION_DAYS)

    @property
    def recovery_level(self) -> str:
        """What can become of a deleted key. Source: Key Vault REST reference, DeletionRecoveryLevel."""
        if self.properties.get("enableSoftDelete") is False:
            return "Purgeable"
        return "Recoverable" if self.properties.get("enablePurgeProtection") else "Recoverable+Purgeable"

    def key(self, name: str) -> SimulatedKey:
        """One key; 404 in the service's words when there is none."""
        found = self.keys.get(name.lower())
        if found is None:
            raise key_not_found(name)
        return found

    def policies_permit(self, object_ids: Iterable[str], permission: str) -> bool:
        """True when an access policy gives one of these principals or groups a permission on keys."""
        wanted = {object_id.lower() for object_id in object_ids}
        return any(
            {permission.lower(), "all"} & {str(name).lower() for name in policy["permissions"].get("keys") or ()}
            for policy in self.properties.get("accessPolicies") or ()
            if str(policy["objectId"]).lower() in wanted
        )

    def deleted_document(self) -> Json:
        """A soft-deleted vault, as ARM lists it. LookupError when it is not deleted."""
        if self.deleted is None:
            raise LookupError(f"{self.name} is not deleted")
        document: Json = {
            "id": deleted_vault_id(self.id.split("/")[2], self.location, self.name),
            "name": self.name,
            "type": DELETED_VAULT_TYPE,
            "properties": {
                "vaultId": self.id,
                "location": self.location,
                "tags": self.document["tags"],
                "deletionDate": timestamp(self.deleted),
                "scheduledPurgeDate": timestamp(self.deleted + timedelta(days=self.retention_days)),
            },
        }
        if self.properties.get("enablePurgeProtection"):
            document["properties"]["purgeProtectionEnabled"] = True
        return document


def access_policy(object_id: str, *permissions: str) -> Json:
    """An access policy for keys in ARM's shape; permissions such as `encrypt`, `get`, `getrotationpolicy`, `all`."""
    return {
        "tenantId": TENANT,
        "objectId": object_id,
        "permissions": {"keys": list(permissions), "secrets": [], "certificates": [], "storage": []},
    }


def vault_id(subscription: str, group: str, name: str) -> str:
    """The ARM id of a vault."""
    return f"/subscriptions/{subscription}/resourceGroups/{group}/providers/{VAULT_TYPE}/{name}"


def deleted_vault_id(subscription: str, location: str, name: str) -> str:
    """The ARM id of a soft-deleted vault."""
    provider = "/providers/Microsoft.KeyVault/locations"
    return f"/subscriptions/{subscription}{provider}/{location}/deletedVaults/{name}"


def vault_document(name: str, subscription: str, group: str, location: str, tags: Mapping[str, str] | None) -> Json:
    """A vault as ARM shows it: roles instead of policies, purge protection on, open to all networks."""
    return {
        "id": vault_id(subscription, group, name),
        "name": name,
        "type": VAULT_TYPE,
        "location": location,
        "tags": dict(tags or {}),
        "systemData": {
            "createdBy": "platform-pipeline",
            "createdByType": "Application",
            "createdAt": "2025-03-02T09:00:00.000Z",
            "lastModifiedBy": "platform-pipeline",
            "lastModifiedByType": "Application",
            "lastModifiedAt": "2025-03-02T09:00:00.000Z",
        },
        "properties": {
            "sku": {"family": "A", "name": "standard"},
            "tenantId": TENANT,
            "accessPolicies": [],
            "enabledForDeployment": False,
            "enabledForDiskEncryption": False,
            "enabledForTemplateDeployment": False,
            "enableSoftDelete": True,
            "softDeleteRetentionInDays": RETENTION_DAYS,
            "enableRbacAuthorization": True,
            "enablePurgeProtection": True,
            "vaultUri": f"https://{name}.vault.azure.net/",
            "provisioningState": "Succeeded",
            "publicNetworkAccess": "Enabled",
        },
    }
