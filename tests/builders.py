"""Builders with every default valid: a test states only what it is about."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from hypothesis import settings

from shared.clusters import Cluster, ClusterId, Encryption
from shared.decisions import Change, Facts, Refusal, Waiting, decide
from shared.keyrecords import Detection, Rotation
from shared.keys import Access, Grant, Key, KeyId, KeyVersion, Vault, VaultId, VaultNetwork
from shared.policy import Assignment, Mode, PolicyInForce, Target
from shared.prerequisites import Prerequisites
from shared.reasons import Reason
from shared.records import Claim, Record

NOW = datetime(2026, 3, 2, 9, tzinfo=UTC)
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)

SUBSCRIPTION = "00000000-0000-0000-0000-000000000001"
OTHER_SUBSCRIPTION = "00000000-0000-0000-0000-000000000002"
CLUSTER_ID = ClusterId(SUBSCRIPTION, "rg-apps", "aks-1")
ETAG = "968f973e-087f-46f8-b70c-ecc754751e80"
OTHER_ETAG = "8c88f4b7-2e13-4537-b904-d8e670224648"
RESOURCE_UID = "68ea7dd910569d000159d5ac"
OTHER_RESOURCE_UID = "68ea7dd910569d000159d5ad"

_IDENTITY = "/subscriptions/{}/resourceGroups/rg-ids/providers/Microsoft.ManagedIdentity/userAssignedIdentities/{}"
IDENTITY_ID = _IDENTITY.format(SUBSCRIPTION, "id-cp-1")
OTHER_IDENTITY_ID = _IDENTITY.format(SUBSCRIPTION, "id-cp-2")
PRINCIPAL = "00000000-0000-0000-0000-0000000000c1"
TENANT = "00000000-0000-0000-0000-0000000000d1"
OTHER_TENANT = "00000000-0000-0000-0000-0000000000d2"

VAULT_ID = VaultId(SUBSCRIPTION, "rg-keys", "kv-kms")
KEY = KeyId("kv-kms", "etcd")
KEY_URL = "https://kv-kms.vault.azure.net/keys/etcd"
VERSION = "0123456789abcdef0123456789abcdef"
OTHER_VERSION = "fedcba9876543210fedcba9876543210"
LEGACY_URL = f"{KEY_URL}/{VERSION}"

PMK: dict[str, Any] = {"kubernetesResourceObjectEncryptionProfile": {"infrastructureEncryption": "Enabled"}}
LEGACY: dict[str, Any] = {
    "azureKeyVaultKms": {
        "enabled": True,
        "keyId": LEGACY_URL,
        "keyVaultNetworkAccess": "Public",
        "keyVaultResourceId": str(VAULT_ID),
    }
}
CMK: dict[str, Any] = {
    "azureKeyVaultKms": {
        "enabled": True,
        "keyId": KEY_URL,
        "keyVaultNetworkAccess": "Public",
        "keyVaultResourceId": str(VAULT_ID),
    },
    **PMK,
}
PRIVATE_CMK: dict[str, Any] = CMK | {"azureKeyVaultKms": CMK["azureKeyVaultKms"] | {"keyVaultNetworkAccess": "Private"}}

NOT_ENCRYPTED = Encryption()
PLATFORM_MANAGED = Encryption(infrastructure=True)
PUBLIC_KEY = Encryption(kms_enabled=True, key_url=KEY_URL, network_access="Public", infrastructure=True)
PRIVATE_KEY = Encryption(
    kms_enabled=True, key_url=KEY_URL, vault_id=str(VAULT_ID), network_access="Private", infrastructure=True
)

SMALLEST_POLICY = "version: 1\ntargets:\n  - keyManagement: platform-managed\n"
ENFORCING_POLICY = f"mode: enforce\nacceptIrreversible: true\n{SMALLEST_POLICY}"

PROPERTY = settings(max_examples=200, deadline=None, derandomize=True, database=None)
"""How a property is tested: the same examples each time, however slow the machine."""

EVENTS = Path(__file__).parent / "fixtures" / "events"


def document(
    *,
    cluster_id: str = str(CLUSTER_ID),
    location: str = "westeurope",
    tags: dict[str, str] | None = None,
    kubernetes: str | None = "1.33.3",
    state: str | None = "Succeeded",
    power: str | None = "Running",
    pools: tuple[str, ...] = ("Succeeded",),
    identity: str | None = "UserAssigned",
    assigned: tuple[str, ...] = (IDENTITY_ID,),
    security: Any = None,
    etag: str | None = ETAG,
    resource_uid: str | None = RESOURCE_UID,
) -> dict[str, Any]:
    """A managed cluster as ARM's JSON: running, settled, of a version that can be encrypted, not encrypted.

    `identity` is its type; `assigned` are the user-assigned identities of one that is user-assigned.
    """
    properties: dict[str, Any] = {
        "agentPoolProfiles": [
            {"name": f"pool{number}", "count": 3, "provisioningState": pool} for number, pool in enumerate(pools)
        ],
        "securityProfile": {} if security is None else security,
    }
    loose = {
        "provisioningState": state,
        "currentKubernetesVersion": kubernetes,
        "kubernetesVersion": kubernetes,
        "powerState": None if power is None else {"code": power},
        "resourceUID": resource_uid,
    }
    root = {"eTag": etag, "tags": tags, "identity": None if identity is None else _identity(identity, assigned)}
    return {
        "id": cluster_id,
        "location": location,
        "properties": properties | {name: value for name, value in loose.items() if value is not None},
    } | {name: value for name, value in root.items() if value is not None}


def _identity(kind: str, assigned: tuple[str, ...]) -> dict[str, Any]:
    match kind.lower():
        case "systemassigned":
            return {"type": kind, "principalId": PRINCIPAL, "tenantId": TENANT}
        case "userassigned":
            return {"type": kind, "userAssignedIdentities": {one: {"principalId": PRINCIPAL} for one in assigned}}
    return {"type": kind}


def cluster(**said: Any) -> Cluster:
    """A cluster that could be encrypted right now; the keywords are those of `document`."""
    read = document(**said)
    return Cluster.read(read, read)


def policy(text: str = SMALLEST_POLICY) -> PolicyInForce:
    """A policy in force; the document must be sound."""
    in_force = PolicyInForce.read(text)
    assert not in_force.faults, in_force.faults
    return in_force


def target() -> Target:
    """The target that asks for platform-managed keys."""
    return Target.model_validate({"keyManagement": "platform-managed"})


def key_target(**said: Any) -> Target:
    """A target that asks for a customer-managed key; the keywords are the document's own."""
    asked = {"keyManagement": "customer-managed", "vault": str(VAULT_ID), "key": "etcd"}
    return Target.model_validate(asked | said)


def assignment(
    *,
    asked: Target | None = None,
    mode: Mode = Mode.ENFORCE,
    exempt_because: str | None = None,
    faults: tuple[str, ...] = (),
) -> Assignment:
    """An assignment that asks for platform-managed keys, unless `asked` says otherwise, and may write."""
    return Assignment(asked or target(), mode=mode, exempt_because=exempt_because, faults=faults)


def vault(**said: Any) -> Vault:
    """A vault that is open to all networks and as it should be; the keywords are those of Vault."""
    defaults: dict[str, Any] = {
        "id": VAULT_ID,
        "uri": "https://kv-kms.vault.azure.net/",
        "tenant": TENANT,
        "network": VaultNetwork.OPEN,
    }
    return Vault(**defaults | said)


def key(**said: Any) -> Key:
    """A key that encrypts and decrypts now; the keywords are those of Key."""
    defaults: dict[str, Any] = {"id": KEY, "kind": "RSA", "operations": frozenset({"encrypt", "decrypt"})}
    return Key(**defaults | said)


def access(crypto: Grant = Grant.GRANTED, reading: Grant = Grant.GRANTED) -> Access:
    """What an identity may do: all that it needs."""
    return Access(crypto, reading)


def prerequisites(**said: Any) -> Prerequisites:
    """All that a customer-managed key needs, in place; the keywords are those of Prerequisites."""
    defaults: dict[str, Any] = {"vault": vault(), "key": key(), "access": access(), "tenant": TENANT}
    return Prerequisites(**defaults | said)


def change(*, etag: str = ETAG) -> Change:
    """The change from nothing to platform-managed keys."""
    return Change(NOT_ENCRYPTED, PLATFORM_MANAGED, etag)


def claim(
    *, etag: str = ETAG, resource_uid: str | None = RESOURCE_UID, claimed_at: datetime = NOW, intent: str = "intent-1"
) -> Claim:
    """A claim of that change, not answered yet."""
    return Claim(intent, change(etag=etag), "event:1", resource_uid, claimed_at)


def waiting(
    *,
    reason: Reason = Reason.BUSY,
    since: datetime = NOW,
    look_again_at: datetime = NOW + MINUTE,
    token: str = "token-1",  # noqa: S107  a wait's token is no secret
    set_by: str = "message-1",
) -> Waiting:
    """A wait that began now and looks again in a minute."""
    return Waiting(reason, since, look_again_at, token, set_by)


def refusal(*, reason: Reason = Reason.BLOCKED, etag: str = ETAG, at: datetime = NOW, since: datetime = NOW) -> Refusal:
    """A write that was refused now, at the cluster's present eTag."""
    return Refusal(reason, "RequestDisallowedByPolicy", "a policy says no", etag, at, since)


def record(**said: Any) -> Record:
    """A row that exists; the keywords are those of Record."""
    defaults: dict[str, Any] = {"version": 'W/"1"', "resource_id": str(CLUSTER_ID), "resource_uid": RESOURCE_UID}
    return Record(CLUSTER_ID, **defaults | said)


def key_version(name: str = VERSION, *, created: datetime | None = NOW) -> KeyVersion:
    """A version of a key, enabled and made now."""
    return KeyVersion(name, enabled=True, created=created)


def rotation(name: str = VERSION, *, how: Detection = Detection.EVENT, told: datetime | None = None) -> Rotation:
    """A version that was detected now, not told on yet."""
    return Rotation(KEY, key_version(name), how, NOW, event_id="event-1", fanned_out_at=told)


def event_text(name: str, **changed: Any) -> str:
    """One recorded event body as the trigger gets it; keywords replace fields of the envelope, `data` is merged."""
    body = json.loads((EVENTS / f"{name}.json").read_text(encoding="utf-8"))
    data = body["data"] | changed.pop("data", {})
    return json.dumps(body | changed | {"data": data})


def looked_at(before: Record, *, now: datetime, **said: Any) -> Record:
    """The row after a look at the cluster, as a look decides and records it."""
    found = cluster(**said)
    known = Facts(found, before.waiting, before.refusal, set_back=before.set_back_by(now))
    return before.after_looking(found, assignment(), decide(known, assignment(), now), now=now)
