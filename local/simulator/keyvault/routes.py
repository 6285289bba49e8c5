"""Key Vault as ARM shows it: vaults, deleted vaults, keys and versions. No firewall stands before it.

Vaults: get, list by subscription, list by resource group, list as resources; get deleted, list deleted; create or
update, update (vault_writes.py). Keys: get, list, get version, list versions; create if not exist (key_writes.py).
Nothing deletes, recovers or purges: a call that tries is loud.
Source: Azure REST reference, Key Vault resource provider.
"""

from __future__ import annotations

from local.simulator.errors import ServiceError, bad_request
from local.simulator.keyvault.key_writes import create_key
from local.simulator.keyvault.state import KeyVault
from local.simulator.keyvault.vault_writes import patch_vault, put_vault
from local.simulator.keyvault.vaults import VAULT_TYPE
from local.simulator.paging import page
from local.simulator.wire import Reply, Request, rendered, route

SUBSCRIPTION_PATH = "/subscriptions/{subscription}"
GROUP_PATH = SUBSCRIPTION_PATH + "/resourceGroups/{group}"
PROVIDER = f"/providers/{VAULT_TYPE}"
VAULT_PATH = GROUP_PATH + PROVIDER + "/{vault}"
KEY_PATH = VAULT_PATH + "/keys/{key}"
DELETED_VAULTS_PATH = SUBSCRIPTION_PATH + "/providers/Microsoft.KeyVault/deletedVaults"
DELETED_VAULT_PATH = SUBSCRIPTION_PATH + "/providers/Microsoft.KeyVault/locations/{location}/deletedVaults/{vault}"


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


def get_deleted_vault(keyvault: KeyVault, request: Request) -> Reply:
    """Vaults - Get Deleted. The code is the service's; the text is ours."""
    found = keyvault.deleted_vault(request["subscription"], request["location"], request["vault"])
    if found is None:
        text = f"The specified deleted vault '{request['vault']}' does not exist."
        raise ServiceError(404, "DeletedVaultNotFound", text)
    return Reply(200, found.deleted_document())


def list_deleted_vaults(keyvault: KeyVault, request: Request) -> Reply:
    """Vaults - List Deleted."""
    rows = keyvault.deleted_vaults(request["subscription"])
    return page(request, rows, keyvault.page_size, lambda vault: rendered(vault.deleted_document()))


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


READ, WRITE = f"{VAULT_TYPE}/read", f"{VAULT_TYPE}/write"
KEY_READ, KEY_WRITE = f"{VAULT_TYPE}/keys/read", f"{VAULT_TYPE}/keys/write"
VERSION_READ = f"{VAULT_TYPE}/keys/versions/read"

ROUTES = (
    route("GET", VAULT_PATH, get_vault, READ),
    route("PUT", VAULT_PATH, put_vault, WRITE),
    route("PATCH", VAULT_PATH, patch_vault, WRITE),
    route("GET", SUBSCRIPTION_PATH + PROVIDER, list_vaults, READ, filtered=True),
    route("GET", GROUP_PATH + PROVIDER, list_vaults, READ, filtered=True),
    route(
        "GET",
        SUBSCRIPTION_PATH + "/resources",
        list_resources,
        "Microsoft.Resources/subscriptions/resources/read",
        filtered=True,
    ),
    route("GET", DELETED_VAULTS_PATH, list_deleted_vaults, "Microsoft.KeyVault/deletedVaults/read", filtered=True),
    route("GET", DELETED_VAULT_PATH, get_deleted_vault, "Microsoft.KeyVault/locations/deletedVaults/read"),
    route("GET", KEY_PATH, get_key, KEY_READ),
    route("PUT", KEY_PATH, create_key, KEY_WRITE),
    route("GET", VAULT_PATH + "/keys", list_keys, KEY_READ),
    route("GET", KEY_PATH + "/versions/{version}", get_version, VERSION_READ),
    route("GET", KEY_PATH + "/versions", list_versions, VERSION_READ),
)
