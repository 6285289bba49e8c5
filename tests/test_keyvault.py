"""The adapter of vaults and keys, against the simulated Azure."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from azure.core.pipeline.transport import AioHttpTransport
from azure.identity.aio import ManagedIdentityCredential

from local.simulator import SUBSCRIPTION
from shared.errors import Conflict, Refused, ServiceError, Throttled, Unavailable, Unreadable
from shared.keys import KeyId, VaultId
from shared.keyvault import KeyVault
from shared.preparations import CreateKey, CreateVault

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from local.simulator import Azure
    from local.simulator.keyvault import SimulatedVault

OTHER = "00000000-0000-0000-0000-000000000002"
KEY = KeyId("kv-kms-weu", "etcd")
VAULT_ID = VaultId(SUBSCRIPTION, "rg-keys", "kv-kms-weu")
VAULT_CALL, KEY_CALL = "/vaults/kv-kms-weu$", "/vaults/kv-kms-weu/keys/etcd$"
NEW_KEY = CreateKey(VAULT_ID, "etcd", 370)


@pytest.fixture
async def keyvault(azure: Azure) -> AsyncIterator[KeyVault]:  # noqa: ARG001  the clients reach it
    """The adapter on real clients."""
    async with ManagedIdentityCredential() as credential, AioHttpTransport() as transport:
        yield KeyVault(credential, transport)


async def test_a_version_carries_what_azure_says_of_it(keyvault: KeyVault, azure: Azure) -> None:
    vault = azure.keyvault.add_vault("kv-kms-weu")
    created, expires = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)
    key = azure.keyvault.add_key(vault, "etcd", created=created, expires=expires)

    (version,) = await keyvault.versions(VaultId.parse(vault.id), KEY)

    assert version.version == key.current.version
    assert (version.enabled, version.created, version.expires) == (True, created, expires)


async def test_only_versions_that_are_not_known_are_read(keyvault: KeyVault, azure: Azure) -> None:
    vault = azure.keyvault.add_vault("kv-kms-weu")
    key = azure.keyvault.add_key(vault, "etcd")
    known = key.current.version
    new = azure.keyvault.rotate(vault, key)

    versions = await keyvault.versions(VaultId.parse(vault.id), KEY, but={known})

    assert [version.version for version in versions] == [new]
    assert len(azure.journal.matching("GET", "/versions/[0-9a-f]{32}$")) == 1


async def test_a_vault_is_found_by_its_name_in_any_subscription(keyvault: KeyVault, azure: Azure) -> None:
    azure.keyvault.add_vault("kv-other")
    vault = azure.keyvault.add_vault("KV-KMS-weu", subscription=OTHER)

    assert await keyvault.find("kv-kms-weu", [SUBSCRIPTION, OTHER]) == VaultId.parse(vault.id)
    assert await keyvault.find("kv-none", [SUBSCRIPTION, OTHER]) is None


async def test_a_key_that_is_not_there_is_unreadable(keyvault: KeyVault, azure: Azure) -> None:
    vault = azure.keyvault.add_vault("kv-kms-weu")

    with pytest.raises(Unreadable):
        await keyvault.versions(VaultId.parse(vault.id), KEY)


# vaults that are made


def new_vault(azure: Azure, *, closed: bool = False) -> CreateVault:
    """A vault to make, in a group that is there."""
    azure.add_resource_group("rg-keys")
    return CreateVault(VAULT_ID, "westeurope", azure.identity.tenant_id, closed)


async def test_a_vault_is_made_in_one_write_and_not_waited_for(keyvault: KeyVault, azure: Azure) -> None:
    await keyvault.create(new_vault(azure))

    (call,) = azure.journal.writes()
    assert call.body == {
        "location": "westeurope",
        "properties": {
            "tenantId": azure.identity.tenant_id,
            "sku": {"family": "A", "name": "standard"},
            "accessPolicies": [],
            "enableRbacAuthorization": True,
            "enableSoftDelete": True,
            "softDeleteRetentionInDays": 90,
            "enablePurgeProtection": True,
            "publicNetworkAccess": "Enabled",
        },
    }
    found = await keyvault.vault(VAULT_ID)
    assert found is not None
    assert not found.ready


async def test_a_closed_vault_is_closed_from_its_first_moment_on(keyvault: KeyVault, azure: Azure) -> None:
    await keyvault.create(new_vault(azure, closed=True))

    (call,) = azure.journal.writes()
    assert call.body["properties"]["networkAcls"] == {
        "bypass": "AzureServices",
        "defaultAction": "Deny",
        "ipRules": [],
        "virtualNetworkRules": [],
    }


async def test_a_vault_that_came_meanwhile_is_not_written_over(keyvault: KeyVault, azure: Azure) -> None:
    asked = new_vault(azure)
    vault = azure.keyvault.add_vault("kv-kms-weu", rbac=False, default_action="Deny", tags={"owner": "somebody"})
    before = json.dumps(vault.document)

    await keyvault.create(asked)

    assert azure.journal.writes() == ()
    assert json.dumps(vault.document) == before


async def test_a_vault_is_not_made_where_nobody_can_tell_whether_it_is_there(keyvault: KeyVault, azure: Azure) -> None:
    asked = new_vault(azure)
    azure.permissions.refuse("Microsoft.KeyVault/vaults/read")

    with pytest.raises(Unreadable):
        await keyvault.create(asked)
    assert azure.journal.matching("PUT", VAULT_CALL) == ()


@pytest.mark.parametrize("code", ["ConflictError", "VaultAlreadyExists", "InvalidResourceLocation"])
async def test_a_conflict_over_a_vault_that_somebody_just_made_passes_by_itself(
    keyvault: KeyVault, azure: Azure, code: str
) -> None:
    asked = new_vault(azure)
    azure.keyvault.add_vault("kv-kms-weu")
    azure.faults.fail_next("GET", VAULT_CALL, 404, code="ResourceNotFound", message="")
    azure.faults.fail_next("PUT", VAULT_CALL, 409, code=code, message="")

    with pytest.raises(Conflict) as raised:
        await keyvault.create(asked)
    assert raised.value.code == code


async def test_a_vault_name_that_is_taken_is_refused_in_azures_words(keyvault: KeyVault, azure: Azure) -> None:
    asked = new_vault(azure)
    azure.keyvault.add_vault("kv-kms-weu", group="rg-other")

    with pytest.raises(Refused) as raised:
        await keyvault.create(asked)
    assert raised.value.code == "VaultAlreadyExists"
    assert azure.journal.writes() == ()


# keys that are made


async def test_a_key_is_made_once(keyvault: KeyVault, azure: Azure) -> None:
    vault = azure.keyvault.add_vault("kv-kms-weu")

    await keyvault.create_key(NEW_KEY)
    await keyvault.create_key(CreateKey(VAULT_ID, "ETCD", 7))

    (key,) = vault.keys.values()
    assert len(key.versions) == 1
    assert key.rotation_policy is not None
    assert key.rotation_policy["lifetimeActions"][0]["trigger"] == {"timeAfterCreate": "P370D"}
    assert azure.journal.writes()[0].body == {
        "properties": {
            "kty": "RSA",
            "keySize": 3072,
            "keyOps": ["encrypt", "decrypt"],
            "rotationPolicy": {
                "lifetimeActions": [{"trigger": {"timeAfterCreate": "P370D"}, "action": {"type": "rotate"}}]
            },
        }
    }


async def test_a_conflict_over_a_key_that_somebody_just_made_passes_by_itself(keyvault: KeyVault, azure: Azure) -> None:
    azure.keyvault.add_key(azure.keyvault.add_vault("kv-kms-weu"), "etcd")
    azure.faults.fail_next("PUT", KEY_CALL, 409, code="Conflict", message="")

    with pytest.raises(Conflict):
        await keyvault.create_key(NEW_KEY)


async def test_a_key_whose_name_a_deleted_one_has_is_refused_and_not_brought_back(
    keyvault: KeyVault, azure: Azure
) -> None:
    vault = azure.keyvault.add_vault("kv-kms-weu")
    azure.keyvault.delete_key(azure.keyvault.add_key(vault, "etcd"))

    with pytest.raises(Refused, match="deleted but recoverable"):
        await keyvault.create_key(NEW_KEY)
    assert vault.keys == {}


# the bypass


class Meddling(AioHttpTransport):  # type: ignore[misc]  # for mypy the SDK's lazy name is Any
    """Lets something happen right before a firewall is written."""

    def __init__(self, meddle: Callable[[], None]) -> None:
        super().__init__()
        self._meddle = meddle

    async def send(self, request: Any, **options: Any) -> Any:
        if request.method == "PATCH":
            self._meddle()
        return await super().send(request, **options)


def closed_vault(azure: Azure, **rules: Any) -> SimulatedVault:
    """A vault that lets nobody in; the keywords go over its network rules."""
    vault = azure.keyvault.add_vault("kv-kms-weu", default_action="Deny", bypass="None")
    vault.properties["networkAcls"] |= rules
    return vault


SUBNET = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg/providers/Microsoft.Network/virtualNetworks/v/subnets/s"


async def test_the_bypass_is_sent_with_all_rules_as_they_were_read(keyvault: KeyVault, azure: Azure) -> None:
    addresses = [{"value": "203.0.113.0/24"}, {"value": "198.51.100.7/32"}]
    subnets = [{"id": SUBNET, "ignoreMissingVnetServiceEndpoint": True}]
    vault = closed_vault(azure, ipRules=addresses, virtualNetworkRules=subnets)

    await keyvault.admit_trusted_services(VAULT_ID)

    (call,) = azure.journal.writes()
    rules = {
        "bypass": "AzureServices",
        "defaultAction": "Deny",
        "ipRules": addresses,
        "virtualNetworkRules": subnets,
    }
    assert call.method == "PATCH"
    assert call.body == {"properties": {"networkAcls": rules}}
    assert vault.properties["networkAcls"] == rules


@pytest.mark.parametrize(
    "rules",
    [
        pytest.param({"bypass": "None", "defaultAction": "Deny"}, id="lists-left-out"),
        pytest.param(
            {"bypass": "None", "defaultAction": "Deny", "ipRules": [{"value": "198.51.100.7"}]}, id="a-single-address"
        ),
        pytest.param({"bypass": "None"}, id="nothing-but-the-bypass"),
    ],
)
async def test_what_azure_only_writes_in_another_way_is_no_other_firewall(
    keyvault: KeyVault, azure: Azure, rules: dict[str, Any]
) -> None:
    vault = closed_vault(azure)
    vault.properties["networkAcls"] = rules

    await keyvault.admit_trusted_services(VAULT_ID)

    assert vault.properties["networkAcls"]["bypass"] == "AzureServices"


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"publicNetworkAccess": "Disabled"}, id="public-access"),
        pytest.param({"publicNetworkAccess": "SecuredByPerimeter"}, id="perimeter"),
    ],
)
async def test_a_firewall_that_comes_back_changed_is_told_and_not_changed_again(
    azure: Azure, change: dict[str, Any]
) -> None:
    vault = closed_vault(azure)

    async with ManagedIdentityCredential() as credential, Meddling(lambda: vault.properties.update(change)) as meddling:
        with pytest.raises(Refused) as raised:
            await KeyVault(credential, meddling).admit_trusted_services(VAULT_ID)

    assert raised.value.code == "OtherFirewall"
    assert len(azure.journal.writes()) == 1


async def test_a_vault_without_network_rules_is_left_alone(keyvault: KeyVault, azure: Azure) -> None:
    azure.keyvault.add_vault("kv-kms-weu", public_network_access="Disabled")

    await keyvault.admit_trusted_services(VAULT_ID)

    assert azure.journal.writes() == ()


# patience


@pytest.mark.parametrize(
    ("status", "headers", "expected"),
    [
        pytest.param(429, {"Retry-After": "60"}, Throttled, id="throttled"),
        pytest.param(500, {}, Unavailable, id="server-error"),
        pytest.param(503, {}, Unavailable, id="unavailable"),
        pytest.param(403, {}, Refused, id="refused"),
    ],
)
@pytest.mark.parametrize("step", ["vault", "key", "bypass"])
async def test_a_write_is_tried_once(
    keyvault: KeyVault, azure: Azure, step: str, status: int, headers: dict[str, str], expected: type[ServiceError]
) -> None:
    asked = new_vault(azure)
    if step != "vault":
        closed_vault(azure)
    writes: dict[str, Callable[[], Awaitable[None]]] = {
        "vault": lambda: keyvault.create(asked),
        "key": lambda: keyvault.create_key(NEW_KEY),
        "bypass": lambda: keyvault.admit_trusted_services(VAULT_ID),
    }
    call = {"vault": ("PUT", VAULT_CALL), "key": ("PUT", KEY_CALL), "bypass": ("PATCH", VAULT_CALL)}[step]
    azure.faults.fail_next(*call, status, code="Odd", message="", headers=headers, times=5)

    with pytest.raises(expected):
        await writes[step]()
    assert len(azure.journal.matching(*call)) == 1
