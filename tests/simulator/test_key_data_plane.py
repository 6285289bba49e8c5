"""Key Vault's data plane by its own SDK: challenge, keys, versions, policies, deleted keys, permissions."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
import requests
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError, ServiceRequestError
from azure.identity import ManagedIdentityCredential
from azure.identity.aio import ManagedIdentityCredential as AsyncManagedIdentityCredential
from azure.keyvault.keys import KeyClient
from azure.keyvault.keys.aio import KeyClient as AsyncKeyClient

from local.simulator.identity import TENANT
from local.simulator.keyvault import access_policy
from tests.simulator.clients import Arm, refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from local.simulator import Azure
    from local.simulator.keyvault import SimulatedKey, SimulatedVault

VAULT_URL = "https://kv-kms.vault.azure.net/"
VERSION = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def key(azure: Azure) -> SimulatedKey:
    """A key in a vault on which the app is a reader."""
    vault = azure.keyvault.add_vault("kv-kms")
    azure.access.assign(azure.identity.default.object_id, "Key Vault Reader", vault.id)
    return azure.keyvault.add_key(vault, "etcd", version=VERSION)


@contextmanager
def keys(url: str = VAULT_URL) -> Iterator[KeyClient]:
    with ManagedIdentityCredential() as credential, KeyClient(url, credential, retry_total=0) as client:
        yield client


def refused(error: HttpResponseError) -> tuple[int | None, str | None, str | None]:
    """Status, code and inner code of a refusal."""
    assert error.error is not None
    inner = error.error.innererror
    return error.status_code, error.error.code, None if inner is None else inner.get("code")


def call(azure: Azure, method: str, path: str, audience: str | None = "https://vault.azure.net") -> requests.Response:
    """Plain HTTP to the vault, with a token for it unless told otherwise."""
    headers = {}
    if audience is not None:
        token, _ = azure.identity.token(audience)
        headers["Authorization"] = f"Bearer {token}"
    return requests.request(
        method, f"{VAULT_URL}{path}", params={"api-version": "7.6"}, headers=headers, json={"value": "c2Vj"}, timeout=60
    )


def test_a_key_is_read_after_the_challenge(azure: Azure) -> None:
    end = azure.clock.now() + timedelta(days=90)
    vault = azure.keyvault.add_vault("kv-challenge")  # no other test's: the SDK remembers challenges by host
    azure.access.assign(azure.identity.default.object_id, "Key Vault Reader", vault.id)
    azure.keyvault.add_key(vault, "etcd", version=VERSION, expires=end)

    with keys(vault.uri) as client:
        found = client.get_key("etcd")

    statuses = [call.status for call in azure.journal.matching("GET", "^/keys/etcd")]
    assert statuses == [401, 200]
    assert (found.id, found.key_type, found.properties.version) == (f"{vault.uri}keys/etcd/{VERSION}", "RSA", VERSION)
    assert found.properties.expires_on is not None
    assert int(found.properties.expires_on.timestamp()) == int(end.timestamp())
    assert (found.properties.recovery_level, found.properties.recoverable_days) == ("Recoverable", 90)
    assert len(vars(found.key)["n"]) == 256


def test_the_challenge_says_where_a_token_is_to_be_had(azure: Azure, key: SimulatedKey) -> None:
    response = call(azure, "GET", f"keys/{key.name}", audience=None)
    wrong_audience = call(azure, "GET", f"keys/{key.name}", audience="https://eventgrid.azure.net")

    assert refusal(response)[:2] == (401, "Unauthorized")
    assert response.headers["WWW-Authenticate"] == (
        f'Bearer authorization="https://login.microsoftonline.com/{TENANT}", resource="https://vault.azure.net"'
    )
    assert wrong_audience.status_code == 401


async def test_versions_keys_and_the_policy_are_read_asynchronously(azure: Azure, key: SimulatedKey) -> None:
    azure.keyvault.page_size = 1
    newest = azure.keyvault.rotate(key.vault, key)
    azure.keyvault.add_key(key.vault, "other", kty="EC", size=None)
    key.rotation_policy = {
        "lifetimeActions": [{"trigger": {"timeAfterCreate": "P90D"}, "action": {"type": "Rotate"}}],
        "attributes": {"expiryTime": "P1Y"},
    }

    async with (
        AsyncManagedIdentityCredential() as credential,
        AsyncKeyClient(VAULT_URL, credential, retry_total=0) as client,
    ):
        versions = {found.version async for found in client.list_properties_of_key_versions("etcd")}
        names = [found.name async for found in client.list_properties_of_keys()]
        oldest = await client.get_key("etcd", VERSION)
        policy = await client.get_key_rotation_policy("etcd")
        default = await client.get_key_rotation_policy("other")

    assert versions == {VERSION, newest}
    assert names == ["etcd", "other"]
    assert oldest.properties.version == VERSION
    assert (policy.expires_in, policy.lifetime_actions[0].action) == ("P1Y", "Rotate")
    assert policy.id == f"{VAULT_URL}keys/etcd/rotationpolicy"
    assert (default.expires_in, default.lifetime_actions[0].time_before_expiry) == (None, "P30D")


def test_a_deleted_key_is_gone_from_arm_and_listed_as_deleted(azure: Azure, arm: Arm, key: SimulatedKey) -> None:
    azure.keyvault.delete_key(key)

    with keys() as client:
        deleted = client.get_deleted_key("etcd")
        listed = [found.name for found in client.list_deleted_keys()]
        with pytest.raises(ResourceNotFoundError) as gone:
            client.get_key("etcd")

    assert refusal(arm.get(key.id))[0] == 404
    assert refused(gone.value)[:2] == (404, "KeyNotFound")
    assert listed == ["etcd"]
    assert deleted.recovery_id == f"{VAULT_URL}deletedkeys/etcd"
    assert deleted.deleted_date is not None
    assert deleted.scheduled_purge_date == deleted.deleted_date + timedelta(days=90)


@pytest.mark.usefixtures("key")
def test_what_is_not_there_is_not_found() -> None:
    with keys() as client:
        with pytest.raises(ResourceNotFoundError, match="A key with \\(name/id\\) none was not found") as key:
            client.get_key("none")
        with pytest.raises(ResourceNotFoundError) as version:
            client.get_key("etcd", "f" * 32)
        with pytest.raises(ResourceNotFoundError) as deleted:
            client.get_deleted_key("etcd")

    assert {refused(error.value)[1] for error in (key, version, deleted)} == {"KeyNotFound"}


def test_a_key_is_rotated_by_who_may(azure: Azure, key: SimulatedKey) -> None:
    with keys() as client:
        with pytest.raises(HttpResponseError) as not_yet:
            client.rotate_key("etcd")
        azure.access.assign(azure.identity.default.object_id, "Key Vault Crypto Officer", key.vault.id)
        rotated = client.rotate_key("etcd")

    assert refused(not_yet.value) == (403, "Forbidden", "ForbiddenByRbac")
    assert rotated.properties.version == key.current.version != VERSION


def test_without_a_role_the_app_is_refused_with_the_action_it_lacks(azure: Azure) -> None:
    vault = azure.keyvault.add_vault("kv-kms")
    azure.keyvault.add_key(vault, "etcd")

    with keys() as client, pytest.raises(HttpResponseError) as error:
        client.get_key("etcd")

    assert refused(error.value) == (403, "Forbidden", "ForbiddenByRbac")
    assert "Caller is not authorized to perform action on resource." in str(error.value)
    assert "Action: 'Microsoft.KeyVault/vaults/keys/read'" in str(error.value)
    assert f"oid={azure.identity.default.object_id}" in str(error.value)


def test_a_role_on_one_key_opens_no_other(azure: Azure) -> None:
    vault = azure.keyvault.add_vault("kv-kms")
    key = azure.keyvault.add_key(vault, "etcd")
    azure.keyvault.add_key(vault, "other")
    azure.access.assign(azure.identity.default.object_id, "Key Vault Crypto User", key.id)

    with keys() as client:
        found = client.get_key("etcd")
        with pytest.raises(HttpResponseError) as error:
            client.get_key("other")

    assert found.name == "etcd"
    assert refused(error.value)[2] == "ForbiddenByRbac"


def test_access_policies_decide_where_roles_do_not(azure: Azure) -> None:
    app = azure.identity.default.object_id
    vault = azure.keyvault.add_vault("kv-kms", rbac=False, access_policies=[access_policy(app, "Get", "List")])
    azure.keyvault.add_key(vault, "etcd")
    azure.access.assign(app, "Key Vault Administrator", vault.id)

    with keys() as client:
        found = client.get_key("etcd")
        with pytest.raises(HttpResponseError) as error:
            client.get_key_rotation_policy("etcd")

    assert found.name == "etcd"
    assert refused(error.value) == (403, "Forbidden", "AccessDenied")
    assert "does not have keys getrotationpolicy permission on key vault 'kv-kms;location=westeurope'" in str(
        error.value
    )


def test_an_access_policy_of_a_group_counts_for_its_members(azure: Azure) -> None:
    azure.access.group("team", [azure.identity.default.object_id])
    vault = azure.keyvault.add_vault("kv-kms", rbac=False, access_policies=[access_policy("team", "all")])
    azure.keyvault.add_key(vault, "etcd")

    with keys() as client:
        policy = client.get_key_rotation_policy("etcd")

    assert policy.lifetime_actions[0].action == "Notify"


def test_a_vault_of_another_tenant_knows_nobody_of_ours(azure: Azure, arm: Arm) -> None:
    other = "6f1b7a52-93f4-4c1d-8a53-ffffffffffff"
    vault = azure.keyvault.add_vault("kv-kms", tenant=other)
    azure.access.assign(azure.identity.default.object_id, "Key Vault Administrator", vault.id)

    response = call(azure, "GET", "keys")

    assert refusal(response)[:2] == (403, "Forbidden")
    assert arm.get(vault.id).json()["properties"]["tenantId"] == other


@pytest.mark.parametrize("gone", ["never there", "deleted"])
async def test_a_vault_that_is_not_there_is_never_reached(azure: Azure, key: SimulatedKey, gone: str) -> None:
    if gone == "deleted":
        azure.keyvault.remove_vault(key.vault)
    url = VAULT_URL if gone == "deleted" else "https://kv-none.vault.azure.net/"

    async with (
        AsyncManagedIdentityCredential() as credential,
        AsyncKeyClient(url, credential, retry_total=0) as client,
    ):
        with pytest.raises(ServiceRequestError):
            await client.get_key("etcd")

    assert not [call for call in azure.journal.calls if call.host.endswith(".vault.azure.net")]


def _disabled(azure: Azure, key: SimulatedKey) -> None:
    azure.keyvault.set_enabled(key, VERSION, enabled=False)


def _expired(azure: Azure, key: SimulatedKey) -> None:
    azure.keyvault.expire(key)


def _not_yet_valid(azure: Azure, key: SimulatedKey) -> None:
    azure.keyvault.set_key(key, not_before=azure.clock.now() + timedelta(days=1))


def _without_the_operation(azure: Azure, key: SimulatedKey) -> None:
    azure.keyvault.set_key(key, operations=("sign", "verify"))


@pytest.mark.parametrize(
    ("spoil", "inner", "text"),
    [
        (_disabled, "KeyDisabled", "disabled key"),
        (_expired, "KeyExpired", "Operation encrypt isn't allowed on an expired key"),
        (_not_yet_valid, "KeyNotYetValid", "not yet valid"),
        (_without_the_operation, "KeyOperationForbidden", "not permitted on this key"),
    ],
)
def test_a_key_that_may_not_be_used_can_still_be_read(
    azure: Azure, key: SimulatedKey, spoil: Callable[[Azure, SimulatedKey], None], inner: str, text: str
) -> None:
    azure.access.assign(azure.identity.default.object_id, "Key Vault Crypto User", key.vault.id)
    used_before = call(azure, "POST", f"keys/etcd/{VERSION}/encrypt")

    spoil(azure, key)
    used = call(azure, "POST", f"keys/etcd/{VERSION}/encrypt")
    read = call(azure, "GET", f"keys/etcd/{VERSION}")

    assert used_before.json() == {"kid": f"{VAULT_URL}keys/etcd/{VERSION}", "value": "c2Vj"}
    assert refusal(used)[:2] == (403, "Forbidden")
    assert used.json()["error"]["innererror"]["code"] == inner
    assert text in refusal(used)[2]
    assert read.status_code == 200


def test_a_call_without_api_version_is_refused(azure: Azure, key: SimulatedKey) -> None:
    token, _ = azure.identity.token("https://vault.azure.net")

    response = requests.get(key.uri, headers={"Authorization": f"Bearer {token}"}, timeout=60)

    assert refusal(response)[:2] == (400, "BadParameter")


def test_a_connection_from_before_a_vault_went_away_breaks_off(azure: Azure, key: SimulatedKey) -> None:
    token, _ = azure.identity.token("https://vault.azure.net")
    url = f"{key.uri}?api-version=7.6"
    vault: SimulatedVault = key.vault

    with requests.Session() as session:
        session.headers["Authorization"] = f"Bearer {token}"
        first = session.get(url, timeout=60)
        azure.keyvault.remove_vault(vault)
        with pytest.raises(requests.ConnectionError):
            session.get(url, timeout=60)

    assert first.status_code == 200
    assert azure.journal.calls[-1].status == 0
