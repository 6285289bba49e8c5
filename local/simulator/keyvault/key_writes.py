"""A key made through ARM: Keys - Create If Not Exist. No firewall stands before it.

Sources: Azure REST reference, Key Vault resource provider, Keys - Create If Not Exist (what is there is returned, and
nothing of it written); azure-mgmt-keyvault 14.1.0, docstrings of KeyProperties (sizes, curves, defaults); Key Vault
docs, about-keys (hardware keys need a premium vault) and key-recovery (a deleted key's name). Texts without a named
source are ours.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from local.simulator.errors import ServiceError, bad_request, invalid_request_content
from local.simulator.keyvault.keys import KEY_OPERATIONS, SimulatedKey, epoch
from local.simulator.keyvault.state import KeyVault
from local.simulator.keyvault.vaults import SimulatedVault
from local.simulator.wire import Json, Reply, Request

NAME = re.compile(r"[A-Za-z0-9-]{1,127}")
RSA_SIZES = (2048, 3072, 4096)
CURVES = ("P-256", "P-384", "P-521", "P-256K")
SIGNING = ("sign", "verify")
KNOWN_OPERATIONS = frozenset({*KEY_OPERATIONS, "import", "release"})


def create_key(keyvault: KeyVault, request: Request) -> Reply:
    """Keys - Create If Not Exist: 200 with the key, new or as it was."""
    vault = keyvault.find(request)
    name = request["key"]
    key = vault.keys.get(name.lower())
    if key is None:
        key = _created(keyvault, vault, name, request.body)
    return Reply(200, key.document(key.current))


@dataclass(frozen=True, slots=True)
class WantedKey:
    """What a body asks for, with the service's defaults."""

    kty: str
    size: int | None
    curve: str | None
    operations: tuple[str, ...]
    enabled: bool
    not_before: datetime | None
    expires: datetime | None

    @classmethod
    def parse(cls, properties: Json, sku: str) -> WantedKey:
        """Read it; 400 for what no key can be."""
        kty = str(properties.get("kty"))
        family, _, hardware = kty.partition("-")
        if family not in ("RSA", "EC") or hardware not in ("", "HSM"):
            raise bad_request(f"Keys of type '{kty}' are not supported in a vault.")
        if hardware and sku != "premium":
            raise bad_request(f"Keys of type '{kty}' need a vault with the premium SKU.")
        is_rsa = family == "RSA"
        operations = properties.get("keyOps") or (KEY_OPERATIONS if is_rsa else SIGNING)
        if not set(operations) <= KNOWN_OPERATIONS:
            raise bad_request("The property 'keyOps' names an operation that does not exist.")
        attributes = properties.get("attributes") or {}
        return cls(
            kty=kty,
            size=_chosen(properties, "keySize", RSA_SIZES) if is_rsa else None,
            curve=None if is_rsa else _chosen(properties, "curveName", CURVES),
            operations=tuple(operations),
            enabled=attributes.get("enabled") is not False,
            not_before=_moment(attributes.get("nbf")),
            expires=_moment(attributes.get("exp")),
        )


def _created(keyvault: KeyVault, vault: SimulatedVault, name: str, body: Any) -> SimulatedKey:
    properties = body.get("properties") if isinstance(body, dict) else None
    if not isinstance(properties, dict):
        raise invalid_request_content("The request content was invalid and could not be deserialized.")
    if NAME.fullmatch(name) is None:
        raise bad_request(f"The key name '{name}' is not valid.")
    if name.lower() in vault.deleted_keys:
        raise _deleted(name)
    if properties.get("releasePolicy") is not None:
        raise ServiceError(501, "NotSimulated", "Release policies are not simulated.")
    wanted = WantedKey.parse(properties, str(vault.properties["sku"]["name"]))
    policy = _rotation_policy(properties.get("rotationPolicy"), keyvault.now())
    key = keyvault.add_key(
        vault,
        name,
        kty=wanted.kty,
        size=wanted.size,
        operations=wanted.operations,
        enabled=wanted.enabled,
        not_before=wanted.not_before,
        expires=wanted.expires,
        announce=True,
    )
    key.curve, key.rotation_policy, key.tags = wanted.curve, policy, dict(body.get("tags") or {})
    return key


def _rotation_policy(policy: Json | None, now: datetime) -> Json | None:
    """A policy in the vault's own shape. Source: Key Vault docs, how-to-configure-key-rotation."""
    if policy is None:
        return None
    expiry = (policy.get("attributes") or {}).get("expiryTime")
    actions = []
    for one in policy.get("lifetimeActions") or ():
        action, trigger = str(one["action"]["type"]).lower(), one["trigger"]
        if action not in ("rotate", "notify"):
            raise bad_request(f"The rotation policy's action '{action}' does not exist.")
        if trigger.get("timeBeforeExpiry") and action == "rotate" and not expiry:
            raise bad_request("A rotation policy that rotates before the expiry must have an expiry time.")
        actions.append({"trigger": dict(trigger), "action": {"type": action.capitalize()}})
    attributes = {"expiryTime": expiry, "created": epoch(now), "updated": epoch(now)}
    return {"lifetimeActions": actions, "attributes": attributes}


def _chosen[Value](properties: Json, name: str, known: tuple[Value, ...]) -> Value:
    """What a body asks for, the first when it says nothing."""
    value = properties.get(name)
    if value is None:
        return known[0]
    if value not in known:
        raise bad_request(f"The property '{name}' has no valid value.")
    return known[known.index(value)]


def _moment(seconds: int | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def _deleted(name: str) -> ServiceError:
    """409, as the vault itself says it. Source: Key Vault docs, key-recovery, and public issues."""
    text = (
        f"Key {name} is currently in a deleted but recoverable state, and its name cannot be reused; in this state, "
        "the key can only be recovered or purged."
    )
    return ServiceError(409, "Conflict", text, inner="ObjectIsDeletedButRecoverable")
