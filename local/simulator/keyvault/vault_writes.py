"""Vaults made and changed through ARM: create or update, update.

Sources: Azure REST reference, Key Vault resource provider, Vaults - Create Or Update, Update; azure-mgmt-keyvault
14.1.0, docstrings of VaultProperties and VaultPatchProperties; Key Vault docs, access-control-default (roles by default
from 2026-02-01 on, what exists keeps its model), common-error-codes, soft-delete-overview; the texts of
VaultAlreadyExists, ConflictError and of the purge protection stand in public issues and READMEs. Texts without a named
source are ours.
"""

from __future__ import annotations

import re
from copy import deepcopy
from ipaddress import ip_network
from typing import Any

from local.simulator.clock import timestamp
from local.simulator.errors import (
    ServiceError,
    bad_request,
    invalid_request_content,
    location_differs,
    location_required,
)
from local.simulator.identity import TENANT, Caller
from local.simulator.keyvault.state import KeyVault
from local.simulator.keyvault.vaults import RETENTION_DAYS, VAULT_TYPE, SimulatedVault, vault_id
from local.simulator.wire import Json, Reply, Request

NAME = re.compile(r"(?!.*--)[A-Za-z][A-Za-z0-9-]{1,22}[A-Za-z0-9]")
ROLES_BY_DEFAULT_SINCE = "2026-02-01"
PUBLIC_ACCESS = {"enabled": "Enabled", "disabled": "Disabled", "securedbyperimeter": "SecuredByPerimeter"}

DEFAULTS: Json = {
    "accessPolicies": [],
    "enabledForDeployment": False,
    "enabledForDiskEncryption": False,
    "enabledForTemplateDeployment": False,
    "enableSoftDelete": True,
    "softDeleteRetentionInDays": RETENTION_DAYS,
    "publicNetworkAccess": "Enabled",
}
SETTABLE = frozenset(
    {*DEFAULTS, "sku", "tenantId", "enableRbacAuthorization", "enablePurgeProtection", "networkAcls", "createMode"}
)
READ_ONLY = frozenset({"vaultUri", "provisioningState", "privateEndpointConnections"})

# What a PUT that does not name them leaves as they are, like the permission model: they can't be changed or taken back.
KEPT = ("enablePurgeProtection", "softDeleteRetentionInDays", "vaultUri")


def put_vault(keyvault: KeyVault, request: Request) -> Reply:
    """Vaults - Create Or Update: 201 for a new one, which is RegisteringDns for a while; 200 for one that is there.

    A PUT replaces. What it does to network rules that it does not name is not documented: here they are gone.
    """
    body = _document(request)
    if not body.get("location"):
        raise location_required()
    location = str(body["location"]).replace(" ", "").lower()
    sent = _sent(body)
    existing = keyvault.vaults.get(_id(request).lower())
    has_roles = request.query["api-version"] >= ROLES_BY_DEFAULT_SINCE if existing is None else existing.is_rbac
    sent.setdefault("enableRbacAuthorization", has_roles)
    _check_required(sent)
    if existing is None:
        vault = _created(keyvault, request, body, sent, location)
        return Reply(201, vault.document)
    if existing.location != location:
        raise location_differs(existing.name, request["group"], existing.location, location)
    _check_retention(existing, sent)
    kept = {name: existing.properties[name] for name in KEPT if name in existing.properties}
    state = {"provisioningState": existing.properties["provisioningState"]}
    _write(keyvault, existing, request, DEFAULTS | kept | sent | state)
    existing.document["tags"] = dict(body.get("tags") or {})
    return Reply(200, existing.document)


def patch_vault(keyvault: KeyVault, request: Request) -> Reply:
    """Vaults - Update: what is given replaces, networkAcls as a whole; what is not stays."""
    body = _document(request)
    vault = keyvault.find(request)
    sent = _sent(body)
    _check_retention(vault, sent)
    _write(keyvault, vault, request, vault.properties | sent)
    if body.get("tags") is not None:
        vault.document["tags"] = dict(body["tags"])
    return Reply(200, vault.document)


def _created(keyvault: KeyVault, request: Request, body: Json, sent: Json, location: str) -> SimulatedVault:
    name = request["vault"]
    _check_name(keyvault, name, request["subscription"])
    made = timestamp(keyvault.now())
    author = {"By": _caller(request), "ByType": "Application", "At": made}
    document: Json = {
        "id": _id(request),
        "name": name,
        "type": VAULT_TYPE,
        "location": location,
        "tags": dict(body.get("tags") or {}),
        "systemData": {f"{what}{part}": author[part] for what in ("created", "lastModified") for part in author},
        "properties": {
            **deepcopy(DEFAULTS),
            **sent,
            "vaultUri": f"https://{name.lower()}.vault.azure.net/",
            "provisioningState": "RegisteringDns",
        },
    }
    return keyvault.put_vault(SimulatedVault(document))


def _write(keyvault: KeyVault, vault: SimulatedVault, request: Request, properties: Json) -> None:
    """Replace the properties of a vault that is there."""
    before = {name: vault.properties.get(name) for name in ("accessPolicies", "enableRbacAuthorization")}
    vault.document["properties"] = deepcopy(properties)
    modified = {"lastModifiedBy": _caller(request), "lastModifiedByType": "Application"}
    vault.document["systemData"] |= modified | {"lastModifiedAt": timestamp(keyvault.now())}
    if before != {name: vault.properties.get(name) for name in before}:
        keyvault.announce_access(vault)


def _document(request: Request) -> Json:
    body: Any = request.body
    if not isinstance(body, dict) or not isinstance(body.get("properties", {}), dict):
        raise invalid_request_content("The request content was invalid and could not be deserialized.")
    return body


def _sent(body: Json) -> Json:
    """The properties that a client gives, checked and in the service's form. What is null is not given."""
    sent = {name: value for name, value in (body.get("properties") or {}).items() if value is not None}
    sent = {name: value for name, value in sent.items() if name not in READ_ONLY}
    if not set(sent) <= SETTABLE or sent.pop("createMode", "default") != "default":
        raise ServiceError(501, "NotSimulated", f"Not all of {sorted(sent)} is simulated.")
    if any(not isinstance(value, bool) for name, value in sent.items() if name.startswith("enable")):
        raise invalid_request_content("The request content was invalid and could not be deserialized.")
    _check_irreversible(sent)
    if sent.get("tenantId", TENANT).lower() != TENANT:
        raise bad_request("The tenant of a vault must be that of its subscription.")
    if "publicNetworkAccess" in sent:
        sent["publicNetworkAccess"] = _public_access(str(sent["publicNetworkAccess"]))
    if "networkAcls" in sent:
        sent["networkAcls"] = _network_rules(sent["networkAcls"])
    return sent


def _check_irreversible(sent: Json) -> None:
    if sent.get("enablePurgeProtection") is False:
        text = (
            'The property "enablePurgeProtection" cannot be set to false. Enabling the purge protection for a vault '
            "is an irreversible action."
        )
        raise bad_request(text)
    if sent.get("enableSoftDelete") is False:
        raise bad_request('The property "enableSoftDelete" cannot be set to false.')


def _check_required(sent: Json) -> None:
    sku = sent.get("sku") or {}
    if "tenantId" not in sent or sku.get("family") != "A" or sku.get("name") not in ("standard", "premium"):
        raise bad_request("A vault needs a tenantId and a sku: family A, name standard or premium.")
    if "accessPolicies" not in sent and not sent["enableRbacAuthorization"]:
        raise bad_request("A vault without role-based access control needs access policies.")
    days = sent.get("softDeleteRetentionInDays", RETENTION_DAYS)
    if not 7 <= int(days) <= RETENTION_DAYS:
        raise bad_request("The property 'softDeleteRetentionInDays' must be from 7 to 90.")


def _check_retention(vault: SimulatedVault, sent: Json) -> None:
    """Only a new vault can choose. Source: Key Vault docs, soft-delete-overview."""
    if sent.get("softDeleteRetentionInDays", vault.retention_days) != vault.retention_days:
        raise bad_request('The property "softDeleteRetentionInDays" has been set already and it can\'t be modified.')


def _check_name(keyvault: KeyVault, name: str, subscription: str) -> None:
    """A valid name that nobody in all of Azure has, be the vault deleted or not."""
    if NAME.fullmatch(name) is None:
        text = (
            f"The vault name '{name}' is invalid. A vault's name must be between 3-24 alphanumeric characters. The "
            "name must begin with a letter, end with a letter or digit, and not contain consecutive hyphens."
        )
        raise ServiceError(400, "VaultNameNotValid", text)
    taken = keyvault.named(name)
    if taken is None:
        return
    if taken.deleted is not None and taken.id.split("/")[2].lower() == subscription.lower():
        text = (
            "A vault with the same name already exists in deleted state. You need to either recover or purge "
            "existing key vault. Follow this link https://go.microsoft.com/fwlink/?linkid=2149745 for more "
            "information on soft delete."
        )
        raise ServiceError(409, "ConflictError", text)
    text = (
        f"The vault name '{name}' is already in use. Vault names are globally unique so it is possible that the name "
        "is already taken."
    )
    raise ServiceError(409, "VaultAlreadyExists", text)


def _public_access(value: str) -> str:
    if value.lower() not in PUBLIC_ACCESS:
        raise bad_request(f"The property 'publicNetworkAccess' can't be '{value}'.")
    return PUBLIC_ACCESS[value.lower()]


def _network_rules(rules: Any) -> Json:
    """The firewall in full, defaults filled in; a single address comes back as the network of that address.

    Source of the latter: azurerm provider, which takes `203.0.113.10` and `203.0.113.10/32` for the same.
    """
    if not isinstance(rules, dict):
        raise invalid_request_content("The request content was invalid and could not be deserialized.")
    bypass, action = rules.get("bypass") or "AzureServices", rules.get("defaultAction") or "Allow"
    if bypass not in ("AzureServices", "None") or action not in ("Allow", "Deny"):
        raise bad_request("The network rules have no valid bypass or default action.")
    try:
        addresses = [str(ip_network(str(rule["value"]))) for rule in rules.get("ipRules") or ()]
    except (KeyError, ValueError) as error:
        raise bad_request("An ip rule is not a valid address or network.") from error
    return {
        "bypass": bypass,
        "defaultAction": action,
        "ipRules": [{"value": address} for address in addresses],
        "virtualNetworkRules": list(rules.get("virtualNetworkRules") or ()),
    }


def _caller(request: Request) -> str:
    return (request.caller or Caller({})).object_id


def _id(request: Request) -> str:
    return vault_id(request["subscription"], request["group"], request["vault"])
