"""Key Vault's data plane, at the vault's own address: behind its firewall, with its own permissions.

Keys: get, get by version, list, list versions, rotation policy, rotate, the operations of AKS; deleted keys: get, list.
Sources: Key Vault REST reference, Keys; Key Vault docs, rest-error-codes, common-error-codes and
authentication-requests-and-responses; texts of 403 as they stand in public issues (microsoft/multimodal-ai 171).
"""

from __future__ import annotations

import base64
import hashlib
from datetime import timedelta
from functools import partial

from local.simulator.errors import ServiceError
from local.simulator.identity import TENANT, Caller, Identity
from local.simulator.keyvault.keys import SimulatedKey, SimulatedVersion, epoch, key_not_found
from local.simulator.keyvault.network import Closed
from local.simulator.keyvault.state import DATA_ACTIONS, KeyVault
from local.simulator.keyvault.vaults import SimulatedVault
from local.simulator.paging import page
from local.simulator.wire import Json, Reply, Request, rendered, route

HOST_SUFFIX = ".vault.azure.net"
AUDIENCES = ("https://vault.azure.net", "https://vault.azure.net/")

# The rotation policy of a key for which none was set. Source: Key Vault docs, how-to-configure-key-rotation.
NOTIFY_ONLY: Json = {
    "lifetimeActions": [{"trigger": {"timeBeforeExpiry": "P30D"}, "action": {"type": "Notify"}}],
    "attributes": {"expiryTime": None},
}

OPERATIONS = ("encrypt", "decrypt", "wrapKey", "unwrapKey")


def authenticate(identity: Identity, request: Request) -> Caller:
    """Who calls; without a token for Key Vault 401 with the challenge from which a client learns where to get one."""
    caller = identity.caller(request.headers.get("authorization"), AUDIENCES)
    if caller is None:
        authority = f"https://login.microsoftonline.com/{TENANT}"
        challenge = f'Bearer authorization="{authority}", resource="https://vault.azure.net"'
        text = "AKV10000: Request is missing a Bearer or PoP token."
        raise ServiceError(401, "Unauthorized", text, headers={"WWW-Authenticate": challenge})
    if not request.query.get("api-version"):
        raise ServiceError(400, "BadParameter", "api-version must be specified")
    return caller


def get_key(keyvault: KeyVault, request: Request) -> Reply:
    """Keys - Get Key, the newest version: the SDK leaves a slash where a version would stand."""
    key = _admitted(keyvault, request, "get").key(request["key"])
    return Reply(200, _bundle(key, key.current))


def get_version(keyvault: KeyVault, request: Request) -> Reply:
    """Keys - Get Key, of one version. A disabled or expired one is shown like any other."""
    key = _admitted(keyvault, request, "get").key(request["key"])
    return Reply(200, _bundle(key, key.version(request["version"])))


def list_keys(keyvault: KeyVault, request: Request) -> Reply:
    """Keys - Get Keys."""
    vault = _admitted(keyvault, request, "list")
    return page(request, vault.keys, keyvault.page_size, lambda key: rendered(_item(key, key.current, key.uri)))


def list_versions(keyvault: KeyVault, request: Request) -> Reply:
    """Keys - Get Key Versions."""
    key = _admitted(keyvault, request, "list").key(request["key"])
    return page(
        request,
        key.versions,
        keyvault.page_size,
        lambda version: rendered(_item(key, version, key.uri_of(version.version))),
    )


def get_rotation_policy(keyvault: KeyVault, request: Request) -> Reply:
    """Keys - Get Key Rotation Policy. Every key has one."""
    key = _admitted(keyvault, request, "getrotationpolicy").key(request["key"])
    policy = key.rotation_policy or NOTIFY_ONLY
    return Reply(200, {"id": f"{key.uri}/rotationpolicy", **policy})


def rotate_key(keyvault: KeyVault, request: Request) -> Reply:
    """Keys - Rotate Key."""
    vault = _admitted(keyvault, request, "rotate")
    key = vault.key(request["key"])
    keyvault.rotate(vault, key)
    return Reply(200, _bundle(key, key.current))


def use_key(operation: str, keyvault: KeyVault, request: Request) -> Reply:
    """Keys - Encrypt, Decrypt, Wrap Key, Unwrap Key. Nothing is encrypted here: what counts is whether one may."""
    key = _admitted(keyvault, request, operation).key(request["key"])
    refusal = key.refusal(operation, keyvault.now(), request["version"])
    if refusal is not None:
        raise refusal
    value = request.body.get("value") if isinstance(request.body, dict) else None
    return Reply(200, {"kid": key.uri_of(request["version"]), "value": value})


def get_deleted_key(keyvault: KeyVault, request: Request) -> Reply:
    """Deleted Keys - Get Deleted Key."""
    vault = _admitted(keyvault, request, "get")
    key = vault.deleted_keys.get(request["key"].lower())
    if key is None:
        raise ServiceError(404, "KeyNotFound", f"Deleted Key not found: {request['key']}")
    return Reply(200, _bundle(key, key.current) | _deletion(key))


def list_deleted_keys(keyvault: KeyVault, request: Request) -> Reply:
    """Deleted Keys - Get Deleted Keys."""
    vault = _admitted(keyvault, request, "list")
    return page(
        request,
        vault.deleted_keys,
        keyvault.page_size,
        lambda key: rendered(_item(key, key.current, key.uri) | _deletion(key)),
    )


def _admitted(keyvault: KeyVault, request: Request, permission: str) -> SimulatedVault:
    """The vault, once its firewall and its permissions let the caller through, in this order."""
    vault = keyvault.vault_at(request.host)
    if vault is None:
        raise key_not_found(request.host)
    caller = request.caller or Caller({})
    closed = vault.network.closed_to(keyvault.client_address)
    if closed is not None:
        raise _closed(closed, keyvault.client_address, caller, vault)
    key = request.parameters.get("key")
    if not keyvault.permits(vault, caller.object_id, permission, key):
        raise _not_permitted(vault, caller, permission, key)
    return vault


def _closed(closed: Closed, address: str, caller: Caller, vault: SimulatedVault) -> ServiceError:
    """403 of the firewall. Source: Key Vault docs, common-error-codes; the text for no public access as in issues."""
    if closed is Closed.CONNECTION:
        reason = (
            "Public network access is disabled and request is not from a trusted service "
            "nor via an approved private link."
        )
    else:
        reason = f"Client address is not authorized and caller is not a trusted service.\r\nClient address: {address}"
    text = f"{reason}\r\n{_who(caller)}\r\n{_where(vault)}"
    return ServiceError(403, "Forbidden", text, inner=closed)


def _not_permitted(vault: SimulatedVault, caller: Caller, permission: str, key: str | None) -> ServiceError:
    """403 of the permissions. Source: Key Vault docs, common-error-codes and rbac-guide."""
    if vault.is_rbac:
        resource = vault.id if key is None else f"{vault.id}/keys/{key}"
        text = (
            "Caller is not authorized to perform action on resource.\r\n"
            "If role assignments, deny assignments or role definitions were changed recently, please observe "
            f"propagation time.\r\n{_who(caller)}\r\nAction: '{DATA_ACTIONS[permission]}'\r\n"
            f"Resource: '{resource.lower()}'\r\nAssignment: (not found)\r\nDenyAssignmentId: null\r\n"
            f"DecisionReason: null \r\n{_where(vault)}\r\n"
        )
        return ServiceError(403, "Forbidden", text, inner="ForbiddenByRbac")
    text = (
        f"The user, group or application 'appid={caller.app_id};oid={caller.object_id};"
        f"iss=https://sts.windows.net/{TENANT}/' does not have keys {permission} permission on key vault "
        f"'{vault.name};location={vault.location}'. For help resolving this issue, please see "
        "https://go.microsoft.com/fwlink/?linkid=2125287"
    )
    return ServiceError(403, "Forbidden", text, inner="AccessDenied")


def _who(caller: Caller) -> str:
    return f"Caller: appid={caller.app_id};oid={caller.object_id};iss=https://sts.windows.net/{TENANT}/"


def _where(vault: SimulatedVault) -> str:
    return f"Vault: {vault.name};location={vault.location}"


def _bundle(key: SimulatedKey, version: SimulatedVersion) -> Json:
    """One version in full: the public key and the attributes."""
    public: Json = {"kid": key.uri_of(version.version), "kty": key.kty, "key_ops": list(key.operations)}
    return {"key": public | _public_part(key, version), "attributes": _attributes(key, version), "tags": key.tags}


def _item(key: SimulatedKey, version: SimulatedVersion, identity: str) -> Json:
    return {"kid": identity, "attributes": _attributes(key, version), "tags": key.tags}


def _attributes(key: SimulatedKey, version: SimulatedVersion) -> Json:
    days = {"recoverableDays": key.vault.retention_days}
    return version.attributes(key.vault.recovery_level) | days


def _public_part(key: SimulatedKey, version: SimulatedVersion) -> Json:
    """Bytes of the right length: nobody encrypts with them."""
    if key.kty.startswith("RSA"):
        return {"n": _bytes(version, (key.size or 2048) // 8), "e": "AQAB"}
    if key.kty.startswith("EC"):
        return {"crv": key.curve or "P-256", "x": _bytes(version, 32), "y": _bytes(version, 32)}
    return {}


def _bytes(version: SimulatedVersion, count: int) -> str:
    content = hashlib.shake_256(version.version.encode()).digest(count)
    return base64.urlsafe_b64encode(b"\xc0" + content[1:]).decode().rstrip("=")


def _deletion(key: SimulatedKey) -> Json:
    deleted = key.deleted or key.current.updated
    return {
        "recoveryId": f"{key.vault.uri}deletedkeys/{key.name}",
        "deletedDate": epoch(deleted),
        "scheduledPurgeDate": epoch(deleted + timedelta(days=key.vault.retention_days)),
    }


KEY_PATH = "/keys/{key}"

# Order counts: `versions` and `rotationpolicy` would pass for a version.
ROUTES = (
    route("GET", "/keys", list_keys),
    route("GET", KEY_PATH + "/versions", list_versions),
    route("GET", KEY_PATH + "/rotationpolicy", get_rotation_policy),
    route("POST", KEY_PATH + "/rotate", rotate_key),
    *(route("POST", f"{KEY_PATH}/{{version}}/{name}", partial(use_key, name)) for name in OPERATIONS),
    route("GET", KEY_PATH, get_key),
    route("GET", KEY_PATH + "/", get_key),
    route("GET", KEY_PATH + "/{version}", get_version),
    route("GET", "/deletedkeys", list_deleted_keys),
    route("GET", "/deletedkeys/{key}", get_deleted_key),
)
