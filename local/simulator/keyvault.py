"""Key Vault as ARM shows it: vaults, keys and versions. The data plane is not here.

Vaults: get, list by subscription, list by resource group, list as resources.
Keys: get, list, get version, list versions.
Sources: Azure REST reference, Key Vault resource provider; Event Grid docs, event-schema-key-vault.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from local.simulator.errors import ServiceError, bad_request, resource_not_found
from local.simulator.eventgrid import Event, EventGrid
from local.simulator.identity import TENANT
from local.simulator.paging import page
from local.simulator.subscriptions import SUBSCRIPTION, Subscriptions
from local.simulator.wire import Json, Reply, Request, merge, rendered, route

if TYPE_CHECKING:
    from collections.abc import Mapping
    from threading import Condition

    from local.simulator.clock import Clock

VAULT_TYPE = "Microsoft.KeyVault/vaults"
NEW_VERSION = "Microsoft.KeyVault.KeyNewVersionCreated"
KEY_OPERATIONS = ("encrypt", "decrypt", "sign", "verify", "wrapKey", "unwrapKey")

SUBSCRIPTION_PATH = "/subscriptions/{subscription}"
GROUP_PATH = SUBSCRIPTION_PATH + "/resourceGroups/{group}"
PROVIDER = "/providers/Microsoft.KeyVault/vaults"
VAULT_PATH = GROUP_PATH + PROVIDER + "/{vault}"
KEY_PATH = VAULT_PATH + "/keys/{key}"


def get_vault(keyvault: KeyVault, request: Request) -> Reply:
    """Vaults - Get."""
    return Reply(200, keyvault.find(request).document)


def list_vaults(keyvault: KeyVault, request: Request) -> Reply:
    """Vaults - List By Subscription, List By Resource Group."""
    return page(request, keyvault.below(request), keyvault.page_size, lambda vault: rendered(vault.document))


def list_resources(keyvault: KeyVault, request: Request) -> Reply:
    """Vaults - List: the generic list of resources, which knows no properties. Only its filter on vaults is known."""
    if request.query.get("$filter") != f"resourceType eq '{VAULT_TYPE}'":
        raise bad_request("The filter is not simulated.")
    shown = ("id", "name", "type", "location", "tags")
    return page(
        request,
        keyvault.below(request),
        keyvault.page_size,
        lambda vault: rendered({name: vault.document[name] for name in shown}),
    )


def get_key(keyvault: KeyVault, request: Request) -> Reply:
    """Keys - Get: the current version's properties under the key's id."""
    key = keyvault.find(request).key(request["key"])
    return Reply(200, key.document(key.current))


def list_keys(keyvault: KeyVault, request: Request) -> Reply:
    """Keys - List."""
    vault = keyvault.find(request)
    return page(request, vault.keys, keyvault.page_size, lambda key: rendered(key.row(None)))


def get_version(keyvault: KeyVault, request: Request) -> Reply:
    """Keys - Get Version."""
    key = keyvault.find(request).key(request["key"])
    return Reply(200, key.document(key.version(request["version"]), versioned=True))


def list_versions(keyvault: KeyVault, request: Request) -> Reply:
    """Keys - List Versions. No source says that a row has all attributes, so a row has no more than `enabled`."""
    key = keyvault.find(request).key(request["key"])
    return page(request, key.versions, keyvault.page_size, lambda version: rendered(key.row(version)))


@dataclass(slots=True)
class SimulatedVersion:
    """One version of a key. Times are aware datetimes; the wire has epoch seconds."""

    version: str  # 32 hex digits
    created: datetime
    updated: datetime
    enabled: bool = True
    not_before: datetime | None = None
    expires: datetime | None = None

    def attributes(self) -> Json:
        """As ARM shows them."""
        attributes: Json = {"enabled": self.enabled}
        if self.not_before is not None:
            attributes["nbf"] = _epoch(self.not_before)
        if self.expires is not None:
            attributes["exp"] = _epoch(self.expires)
        return attributes | {
            "created": _epoch(self.created),
            "updated": _epoch(self.updated),
            "recoveryLevel": "Recoverable+Purgeable",
            "exportable": False,
        }


@dataclass(slots=True)
class SimulatedKey:
    """One key with its versions, by version, oldest first."""

    name: str
    vault: SimulatedVault
    kty: str = "RSA"
    size: int | None = 2048
    operations: tuple[str, ...] = KEY_OPERATIONS
    versions: dict[str, SimulatedVersion] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """The ARM id."""
        return f"{self.vault.id}/keys/{self.name}"

    @property
    def uri(self) -> str:
        """The versionless URL, as a cluster of the new experience names it."""
        return f"{self.vault.uri}keys/{self.name}"

    @property
    def current(self) -> SimulatedVersion:
        """The newest version."""
        return next(reversed(self.versions.values()))

    def uri_of(self, version: str) -> str:
        """The versioned URL, as a legacy cluster names it."""
        return f"{self.uri}/{version}"

    def version(self, version: str) -> SimulatedVersion:
        """One version; 404 in the service's words when there is none."""
        found = self.versions.get(version.lower())
        if found is None:
            raise _key_not_found(f"{self.name}/{version}")
        return found

    def document(self, version: SimulatedVersion, *, versioned: bool = False) -> Json:
        """The key, or one of its versions, in full."""
        document = self.row(version if versioned else None)
        document["properties"] = {
            "attributes": version.attributes(),
            "kty": self.kty,
            "keyOps": list(self.operations),
            "keyUri": self.uri,
            "keyUriWithVersion": self.uri_of(version.version),
        }
        if self.size is not None:
            document["properties"]["keySize"] = self.size
        return document

    def row(self, version: SimulatedVersion | None) -> Json:
        """The key, or one of its versions, as it stands in a list."""
        head: Json = {"id": self.id, "name": self.name, "type": f"{VAULT_TYPE}/keys"}
        if version is not None:
            head = {
                "id": f"{self.id}/versions/{version.version}",
                "name": version.version,
                "type": f"{VAULT_TYPE}/keys/versions",
            }
        enabled = (version or self.current).enabled
        location = self.vault.document["location"]
        return head | {"location": location, "properties": {"attributes": {"enabled": enabled}}}


@dataclass(slots=True)
class SimulatedVault:
    """One vault: its live ARM document, and its keys by lower-case name."""

    document: Json
    keys: dict[str, SimulatedKey] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return str(self.document["id"])

    @property
    def name(self) -> str:
        return str(self.document["name"])

    @property
    def uri(self) -> str:
        """The data plane's address, with a slash at its end."""
        return str(self.document["properties"]["vaultUri"])

    def key(self, name: str) -> SimulatedKey:
        """One key; 404 in the service's words when there is none."""
        found = self.keys.get(name.lower())
        if found is None:
            raise _key_not_found(name)
        return found


class KeyVault:
    """The vaults by lower-case id. Safe from any thread."""

    def __init__(self, clock: Clock, eventgrid: EventGrid, subscriptions: Subscriptions, changed: Condition) -> None:
        self.vaults: dict[str, SimulatedVault] = {}
        self.page_size = 25
        self._clock = clock
        self._eventgrid = eventgrid
        self._subscriptions = subscriptions
        self._changed = changed

    def add_vault(
        self,
        name: str,
        *,
        subscription: str = SUBSCRIPTION,
        group: str = "rg-keys",
        location: str = "westeurope",
        tags: Mapping[str, str] | None = None,
        properties: Mapping[str, Any] | None = None,
    ) -> SimulatedVault:
        """A vault that exists: roles instead of policies, open to all networks; `properties` go over the defaults."""
        vault = SimulatedVault(_vault_document(name, subscription, group, location, tags))
        merge(vault.document["properties"], properties or {})
        with self._changed:
            self._subscriptions.add(subscription, group=group)
            self.vaults[vault.id.lower()] = vault
        return vault

    def add_key(
        self,
        vault: SimulatedVault,
        name: str,
        *,
        created: datetime | None = None,
        kty: str = "RSA",
        size: int | None = 2048,
        operations: tuple[str, ...] = KEY_OPERATIONS,
        expires: datetime | None = None,
        announce: bool = False,
    ) -> SimulatedKey:
        """A key with its first version, made at `created` or now; no event unless `announce`."""
        key = SimulatedKey(name, vault, kty, size, operations)
        with self._changed:
            vault.keys[name.lower()] = key
            self._new_version(key, created or self._clock.now(), expires)
            if announce:
                self._announce(key, quirks=True)
        return key

    def rotate(
        self,
        vault: SimulatedVault,
        key: SimulatedKey | str,
        *,
        announce: bool = True,
        quirks: bool = True,
        expires: datetime | None = None,
    ) -> str:
        """Make a new version; return it. `announce=False`: its event is lost. `quirks`: the event has odd blanks."""
        with self._changed:
            rotated = vault.key(key) if isinstance(key, str) else key
            version = self._new_version(rotated, self._clock.now(), expires)
            if announce:
                self._announce(rotated, quirks=quirks)
            self._changed.notify_all()
        return version.version

    def set_enabled(self, key: SimulatedKey, version: str, *, enabled: bool) -> None:
        """Enable or disable one version. No event tells of it, as in Azure."""
        with self._changed:
            found = key.version(version)
            found.enabled = enabled
            found.updated = self._clock.now()

    def find(self, request: Request) -> SimulatedVault:
        """The vault of a request's path; 404 in the service's words when there is none."""
        identity = vault_id(request["subscription"], request["group"], request["vault"])
        found = self.vaults.get(identity.lower())
        if found is None:
            raise resource_not_found(f"{VAULT_TYPE}/{request['vault']}", request["group"])
        return found

    def below(self, request: Request) -> dict[str, SimulatedVault]:
        """The vaults of a request's subscription or group."""
        prefix = f"/subscriptions/{request['subscription']}/resourcegroups/"
        if "group" in request.parameters:
            prefix += f"{request['group']}/"
        return {key: vault for key, vault in self.vaults.items() if key.startswith(prefix.lower())}

    def _new_version(self, key: SimulatedKey, created: datetime, expires: datetime | None) -> SimulatedVersion:
        version = SimulatedVersion(uuid.uuid4().hex, created, created, expires=expires)
        key.versions[version.version] = version
        return version

    def _announce(self, key: SimulatedKey, *, quirks: bool) -> None:
        """KeyNewVersionCreated. The quirks are those of the documentation's own sample."""
        version = key.current
        not_before, expires = _optional_epoch(version.not_before), _optional_epoch(version.expires)
        data: Json = {
            "Id": key.uri_of(version.version),
            "VaultName": key.vault.name,
            "ObjectType": "Key",
            "ObjectName " if quirks else "ObjectName": key.name,
            "Version": f" {version.version}" if quirks else version.version,
            "NBF": _text(not_before) if quirks else not_before,
            "EXP": _text(expires) if quirks else expires,
        }
        self._eventgrid.publish(Event((key.vault.id,), key.name, NEW_VERSION, version.created, data))


def vault_id(subscription: str, group: str, name: str) -> str:
    """The ARM id of a vault."""
    return f"/subscriptions/{subscription}/resourceGroups/{group}{PROVIDER}/{name}"


def _vault_document(name: str, subscription: str, group: str, location: str, tags: Mapping[str, str] | None) -> Json:
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
            "softDeleteRetentionInDays": 90,
            "enableRbacAuthorization": True,
            "enablePurgeProtection": True,
            "vaultUri": f"https://{name}.vault.azure.net/",
            "provisioningState": "Succeeded",
            "publicNetworkAccess": "Enabled",
        },
    }


def _key_not_found(name: str) -> ServiceError:
    """404. The code and the text are ours: no source shows what ARM says of a key that a vault does not have."""
    return ServiceError(404, "KeyNotFound", f"A key with (name/id) {name} was not found in this key vault.")


def _epoch(moment: datetime) -> int:
    return int(moment.timestamp())


def _optional_epoch(moment: datetime | None) -> int | None:
    return None if moment is None else _epoch(moment)


def _text(number: int | None) -> str | None:
    return None if number is None else str(number)


ROUTES = (
    route("GET", VAULT_PATH, get_vault),
    route("GET", SUBSCRIPTION_PATH + PROVIDER, list_vaults),
    route("GET", GROUP_PATH + PROVIDER, list_vaults),
    route("GET", SUBSCRIPTION_PATH + "/resources", list_resources),
    route("GET", KEY_PATH, get_key),
    route("GET", VAULT_PATH + "/keys", list_keys),
    route("GET", KEY_PATH + "/versions/{version}", get_version),
    route("GET", KEY_PATH + "/versions", list_versions),
)
