"""Events as Event Grid delivers them, of names that no other test uses."""

from __future__ import annotations

import uuid
from typing import Any

from local.simulator import SUBSCRIPTION
from local.simulator.activity import PERSON

type Json = dict[str, Any]

WRITE_CLUSTER = "Microsoft.ContainerService/managedClusters/write"
TOPIC = f"/subscriptions/{SUBSCRIPTION}"
VAULT = f"{TOPIC}/resourceGroups/rg-keys/providers/Microsoft.KeyVault/vaults/kv-kms-weu"
VERSION = "0123456789abcdef0123456789abcdef"
KEY_URL = f"https://kv-kms-weu.vault.azure.net/keys/etcd/{VERSION}"


def fresh_name() -> str:
    return f"aks-{uuid.uuid4().hex[:12]}"


def cluster_id(name: str) -> str:
    return f"{TOPIC}/resourcegroups/rg-apps/providers/Microsoft.ContainerService/managedClusters/{name}"


def cluster_event(cluster: str, **changed: Any) -> Json:
    """A cluster was written: the Event Grid schema, with all that Azure says of whoever did it."""
    event = {
        "id": f"event-{uuid.uuid4()}",
        "topic": TOPIC,
        "subject": cluster,
        "eventType": "Microsoft.Resources.ResourceWriteSuccess",
        "eventTime": "2026-03-02T09:00:00.1234567Z",
        "data": {
            "authorization": {"action": WRITE_CLUSTER, "scope": cluster},
            "claims": dict(PERSON.claims) | {"aio": "eyJhbGciOi-token"},
            "httpRequest": {"clientIpAddress": PERSON.claims["ipaddr"], "method": "PUT"},
            "operationName": WRITE_CLUSTER,
            "status": "Succeeded",
        },
        "dataVersion": "2",
        "metadataVersion": "1",
    }
    return event | changed


def key_event(url: str = KEY_URL, *, vault: str = VAULT, **changed: Any) -> Json:
    """A key has a new version, with the odd blanks of the documentation's own sample."""
    event = {
        "id": f"event-{uuid.uuid4()}",
        "topic": vault,
        "subject": "etcd",
        "eventType": "Microsoft.KeyVault.KeyNewVersionCreated",
        "eventTime": "2026-03-02T09:00:00.1234567Z",
        "data": {
            "Id": url,
            "VaultName": "kv-kms-weu",
            "ObjectType": "Key",
            "ObjectName ": "etcd",
            "Version": f" {VERSION}",
            "NBF": "1559081980",
            "EXP": None,
        },
        "dataVersion": "1",
        "metadataVersion": "1",
    }
    return event | changed
