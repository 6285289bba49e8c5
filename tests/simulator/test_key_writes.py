"""Keys made through ARM: Create If Not Exist."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from azure.core.exceptions import ResourceExistsError
from azure.identity.aio import ManagedIdentityCredential
from azure.keyvault.keys.aio import KeyClient
from azure.mgmt.keyvault.aio import KeyVaultManagementClient
from azure.mgmt.keyvault.models import (
    Action,
    KeyAttributes,
    KeyCreateParameters,
    KeyProperties,
    KeyRotationPolicyAttributes,
    LifetimeAction,
    RotationPolicy,
    Trigger,
)

from local.simulator import SUBSCRIPTION
from tests.simulator.clients import Arm, Endpoint, refusal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from azure.mgmt.keyvault.aio.operations import KeysOperations

    from local.simulator import Azure

EXPIRES = datetime(2030, 1, 1, tzinfo=UTC)
YEARLY = RotationPolicy(
    attributes=KeyRotationPolicyAttributes(expiry_time="P2Y"),
    lifetime_actions=[
        LifetimeAction(trigger=Trigger(time_after_create="P1Y"), action=Action(type="rotate")),
        LifetimeAction(trigger=Trigger(time_before_expiry="P30D"), action=Action(type="notify")),
    ],
)


@pytest.fixture
async def keys(azure: Azure) -> AsyncIterator[KeysOperations]:
    """The asynchronous SDK client. It retries nothing."""
    azure.keyvault.add_vault("kv-kms", default_action="Deny", bypass="None")
    async with (
        ManagedIdentityCredential() as credential,
        KeyVaultManagementClient(credential, SUBSCRIPTION, retry_total=0) as client,
    ):
        yield client.keys


def wanted(**properties: Any) -> KeyCreateParameters:
    return KeyCreateParameters(properties=KeyProperties(**({"kty": "RSA"} | properties)))


def put(arm: Arm, azure: Azure, name: str = "etcd", **properties: Any) -> Any:
    vault = azure.keyvault.named("kv-kms") or azure.keyvault.add_vault("kv-kms")
    return arm.call("PUT", f"{vault.id}/keys/{name}", body={"properties": {"kty": "RSA"} | properties})


async def test_a_key_is_made_as_it_was_asked_for_though_the_vault_is_closed(azure: Azure, keys: KeysOperations) -> None:
    asked = wanted(
        key_size=3072,
        key_ops=["encrypt", "decrypt"],
        attributes=KeyAttributes(expires=int(EXPIRES.timestamp())),
        rotation_policy=YEARLY,
    )

    made = await keys.create_if_not_exist("rg-keys", "kv-kms", "etcd", asked)

    [key] = [key for vault in azure.keyvault.vaults.values() for key in vault.keys.values()]
    assert (made.id, made.key_uri) == (key.id, "https://kv-kms.vault.azure.net/keys/etcd")
    assert made.key_uri_with_version == key.uri_of(key.current.version)
    assert (made.kty, made.key_size, made.key_ops) == ("RSA", 3072, ["encrypt", "decrypt"])
    assert key.current.expires == EXPIRES
    assert made.rotation_policy is not None
    assert made.rotation_policy.as_dict()["lifetimeActions"] == YEARLY.as_dict()["lifetimeActions"]
    assert [row.name async for row in keys.list_versions("rg-keys", "kv-kms", "etcd")] == [key.current.version]
    assert [(call.method, call.status) for call in azure.journal.writes()] == [("PUT", 200)]


async def test_a_key_that_is_there_is_returned_as_it_is(azure: Azure, keys: KeysOperations) -> None:
    made = await keys.create_if_not_exist("rg-keys", "kv-kms", "etcd", wanted())

    again = await keys.create_if_not_exist(
        "rg-keys", "kv-kms", "ETCD", wanted(kty="EC", key_ops=["sign"], rotation_policy=YEARLY)
    )

    assert again.as_dict() == made.as_dict()
    assert again.rotation_policy is None
    assert len(azure.keyvault.vaults[str(made.id).split("/keys/")[0].lower()].key("etcd").versions) == 1


async def test_the_vault_itself_has_the_key_too(azure: Azure, keys: KeysOperations) -> None:
    made = await keys.create_if_not_exist("rg-keys", "kv-kms", "etcd", wanted(rotation_policy=YEARLY))
    [vault] = azure.keyvault.vaults.values()
    vault.properties["networkAcls"]["defaultAction"] = "Allow"
    azure.access.assign(azure.identity.default.object_id, "Key Vault Crypto Officer", vault.id)

    async with (
        ManagedIdentityCredential() as credential,
        KeyClient("https://kv-kms.vault.azure.net", credential, retry_total=0) as client,
    ):
        key = await client.get_key("etcd")
        policy = await client.get_key_rotation_policy("etcd")

    assert key.id == made.key_uri_with_version
    assert policy.expires_in == "P2Y"
    assert [(action.action, action.time_after_create) for action in policy.lifetime_actions] == [
        ("Rotate", "P1Y"),
        ("Notify", None),
    ]


def test_a_new_key_is_announced_where_somebody_listens_and_an_old_one_is_not(
    azure: Azure, arm: Arm, endpoint: Endpoint
) -> None:
    vault = azure.keyvault.add_vault("kv-kms")
    azure.eventgrid.subscribe(vault.id, endpoint.url)

    put(arm, azure)
    put(arm, azure)
    put(arm, azure, "other")
    azure.wait_for(lambda: len(endpoint.notifications) == 2)

    told = [event["subject"] for [event] in endpoint.notifications]
    assert sorted(told) == ["etcd", "other"]
    assert {event["eventType"] for [event] in endpoint.notifications} == {"Microsoft.KeyVault.KeyNewVersionCreated"}


async def test_the_name_of_a_deleted_key_is_refused(azure: Azure, keys: KeysOperations) -> None:
    [vault] = azure.keyvault.vaults.values()
    azure.keyvault.delete_key(azure.keyvault.add_key(vault, "etcd"))

    with pytest.raises(ResourceExistsError) as raised:
        await keys.create_if_not_exist("rg-keys", "kv-kms", "etcd", wanted())

    assert raised.value.error is not None
    assert (raised.value.error.code, raised.value.error.innererror) == (
        "Conflict",
        {"code": "ObjectIsDeletedButRecoverable"},
    )
    assert vault.keys == {}


def test_an_elliptic_curve_has_a_curve_and_no_size(azure: Azure, arm: Arm) -> None:
    properties = put(arm, azure, kty="EC").json()["properties"]
    other = put(arm, azure, "other", kty="EC", curveName="P-521").json()["properties"]

    assert (properties["curveName"], other["curveName"]) == ("P-256", "P-521")
    assert "keySize" not in properties
    assert properties["keyOps"] == ["sign", "verify"]


def test_a_key_in_hardware_needs_a_premium_vault(azure: Azure, arm: Arm) -> None:
    azure.keyvault.add_vault("kv-kms", properties={"sku": {"name": "premium"}})
    azure.keyvault.add_vault("kv-plain")

    made = put(arm, azure, kty="RSA-HSM")
    refused = arm.call("PUT", made.json()["id"].replace("kv-kms", "kv-plain"), body={"properties": {"kty": "RSA-HSM"}})

    assert made.json()["properties"]["kty"] == "RSA-HSM"
    assert refusal(refused)[:2] == (400, "BadRequest")


def test_a_key_can_be_made_disabled_and_for_later(azure: Azure, arm: Arm) -> None:
    later = int(EXPIRES.timestamp())

    attributes = put(arm, azure, attributes={"enabled": False, "nbf": later}).json()["properties"]["attributes"]

    assert (attributes["enabled"], attributes["nbf"]) == (False, later)


@pytest.mark.parametrize(
    ("name", "properties"),
    [
        pytest.param("not_valid", {}, id="a-bad-name"),
        pytest.param("etcd", {"kty": "oct-HSM"}, id="symmetric"),
        pytest.param("etcd", {"kty": None}, id="no-type"),
        pytest.param("etcd", {"keySize": 1024}, id="too-small"),
        pytest.param("etcd", {"kty": "EC", "curveName": "P-1"}, id="no-such-curve"),
        pytest.param("etcd", {"keyOps": ["encrypt", "juggle"]}, id="no-such-operation"),
        pytest.param(
            "etcd",
            {"rotationPolicy": {"lifetimeActions": [{"action": {"type": "burn"}, "trigger": {}}]}},
            id="no-such-action",
        ),
        pytest.param(
            "etcd",
            {
                "rotationPolicy": {
                    "lifetimeActions": [{"action": {"type": "rotate"}, "trigger": {"timeBeforeExpiry": "P9D"}}]
                }
            },
            id="before-an-expiry-that-is-none",
        ),
    ],
)
def test_a_key_that_cannot_be_is_refused(azure: Azure, arm: Arm, name: str, properties: dict[str, Any]) -> None:
    response = put(arm, azure, name, **properties)

    assert refusal(response)[:2] == (400, "BadRequest")
    assert [vault.keys for vault in azure.keyvault.vaults.values()] == [{}]


def test_a_key_needs_a_body_and_a_vault(azure: Azure, arm: Arm) -> None:
    vault = azure.keyvault.add_vault("kv-kms")

    bare = arm.call("PUT", f"{vault.id}/keys/etcd", body={})
    homeless = arm.call("PUT", f"{vault.id}-none/keys/etcd", body={"properties": {"kty": "RSA"}})

    assert refusal(bare)[:2] == (400, "InvalidRequestContent")
    assert refusal(homeless)[:2] == (404, "ResourceNotFound")


def test_an_app_that_may_not_write_keys_is_told_so(azure: Azure, arm: Arm) -> None:
    azure.permissions.refuse("microsoft.keyvault/vaults/keys/write")

    status, code, text = refusal(put(arm, azure))

    assert (status, code) == (403, "AuthorizationFailed")
    assert "'Microsoft.KeyVault/vaults/keys/write'" in text
