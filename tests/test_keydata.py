"""What a vault itself tells of a key: asked where it lets the app in, left alone for a day where it does not."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from local.simulator.keyvault import access_policy
from shared.events import OPERATOR, KeyRequest
from shared.keydata import REFUSAL_LASTS, KeyData
from shared.keys import KeyId, RotationPolicy, VaultId
from shared.reasons import Reason
from tests.product import NOW, Product, product

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from local.simulator import Azure
    from local.simulator.keyvault import SimulatedKey, SimulatedVault
    from local.storage import Account

KEY = KeyId("kv-kms-weu", "etcd")
OTHER_KEY = KeyId("kv-kms-weu", "other")
SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)
YEARLY: dict[str, Any] = {
    "lifetimeActions": [
        {"trigger": {"timeBeforeExpiry": "P30D"}, "action": {"type": "Notify"}},
        {"trigger": {"timeAfterCreate": "P11M"}, "action": {"type": "Rotate"}},
    ],
    "attributes": {"expiryTime": "P1Y"},
}
AS_READ = RotationPolicy(rotates_after_creation="P11M", expires_in="P1Y")


@pytest.fixture
async def app(azure: Azure, account: Account) -> AsyncIterator[Product]:  # noqa: ARG001  the clients reach it
    """The product."""
    async with product(account) as built:
        yield built


@pytest.fixture
def vault(azure: Azure) -> SimulatedVault:
    """A vault whose keys the app may read, rotation policies too."""
    return admitting(azure, azure.keyvault.add_vault("kv-kms-weu"))


@pytest.fixture
def key(azure: Azure, vault: SimulatedVault) -> SimulatedKey:
    """A key that rotates by itself."""
    made = azure.keyvault.add_key(vault, "etcd")
    made.rotation_policy = YEARLY
    return made


def admitting(azure: Azure, vault: SimulatedVault) -> SimulatedVault:
    azure.access.assign(azure.identity.default.object_id, "Key Vault Crypto Officer", vault.id)
    return vault


def keydata(app: Product) -> KeyData:
    return app.inspector.keydata


def asked(azure: Azure) -> int:
    """How often a vault itself was asked, by whatever name."""
    return sum(call.host.endswith(".vault.azure.net") for call in azure.journal.calls)


async def refusals(app: Product) -> list[str]:
    """The vaults whose refusal is remembered."""
    return [row["PartitionKey"].rstrip("|") for row in await app.rows("rotations") if row["RowKey"] == "refused"]


@pytest.mark.usefixtures("key")
async def test_a_rotation_policy_is_read_as_the_vault_has_it(app: Product) -> None:
    policy = await keydata(app).rotation_policy(KEY, now=NOW)

    assert policy == AS_READ
    assert await refusals(app) == []


@pytest.mark.usefixtures("vault")
async def test_a_key_that_nobody_set_a_policy_for_does_not_rotate_by_itself(
    app: Product, azure: Azure, vault: SimulatedVault
) -> None:
    azure.keyvault.add_key(vault, "etcd")

    assert await keydata(app).rotation_policy(KEY, now=NOW) == RotationPolicy()


async def test_a_deleted_key_is_told_from_one_that_is_there_or_never_was(
    app: Product, azure: Azure, key: SimulatedKey
) -> None:
    there = await keydata(app).is_deleted(KEY, now=NOW)
    azure.keyvault.delete_key(key)
    deleted = await keydata(app).is_deleted(KEY, now=NOW)
    never = await keydata(app).is_deleted(OTHER_KEY, now=NOW)

    assert (there, deleted, never) == (False, True, False)
    assert await refusals(app) == []


@pytest.mark.usefixtures("vault")
async def test_what_does_not_exist_is_no_refusal(app: Product, azure: Azure) -> None:
    assert await keydata(app).rotation_policy(OTHER_KEY, now=NOW) is None

    before = asked(azure)
    await keydata(app).rotation_policy(OTHER_KEY, now=NOW)
    assert await refusals(app) == []
    assert asked(azure) == before + 1


# refusals

CLOSED: list[Any] = [
    pytest.param({"default_action": "Deny", "bypass": "AzureServices"}, id="firewall"),
    pytest.param({"public_network_access": "Disabled"}, id="no-public-access"),
    pytest.param({}, id="no-role"),
    pytest.param({"rbac": False, "access_policies": []}, id="no-access-policy"),
]


def refusing(azure: Azure, **seed: Any) -> SimulatedVault:
    """A vault that does not let the app in: by its firewall, or for want of a permission."""
    vault = azure.keyvault.add_vault("kv-kms-weu", **seed)
    azure.keyvault.add_key(vault, "etcd")
    azure.keyvault.add_key(vault, "other")
    return admitting(azure, vault) if "default_action" in seed or "public_network_access" in seed else vault


@pytest.mark.parametrize("seed", CLOSED)
async def test_a_refusal_is_remembered_for_a_day_for_all_keys_of_the_vault(
    app: Product, azure: Azure, seed: dict[str, Any]
) -> None:
    refusing(azure, **seed)
    answers = [await keydata(app).rotation_policy(KEY, now=NOW)]
    before = asked(azure)

    answers += [await keydata(app).rotation_policy(one, now=NOW + MINUTE) for one in (KEY, OTHER_KEY)]
    answers += [await keydata(app).rotation_policy(KEY, now=NOW + REFUSAL_LASTS - SECOND)]
    deleted = await keydata(app).is_deleted(KEY, now=NOW + MINUTE)

    assert before > 0
    assert asked(azure) == before
    assert answers == [None] * 4
    assert deleted is None
    assert await refusals(app) == ["kv-kms-weu"]


async def test_after_a_day_the_vault_is_asked_again_and_believed(app: Product, azure: Azure) -> None:
    vault = refusing(azure)
    vault.key("etcd").rotation_policy = YEARLY
    await keydata(app).rotation_policy(KEY, now=NOW)
    admitting(azure, vault)

    remembered = await keydata(app).rotation_policy(KEY, now=NOW + REFUSAL_LASTS - SECOND)
    asked_again = await keydata(app).rotation_policy(KEY, now=NOW + REFUSAL_LASTS)
    from_then_on = await keydata(app).rotation_policy(KEY, now=NOW + REFUSAL_LASTS + MINUTE)

    assert remembered is None
    assert asked_again == from_then_on == AS_READ


@pytest.mark.parametrize("there", [True, False], ids=["a-key", "no-such-key"])
async def test_a_vault_that_is_asked_afresh_and_answers_is_believed_from_then_on(
    app: Product, azure: Azure, *, there: bool
) -> None:
    vault = refusing(azure)
    vault.key("etcd").rotation_policy = YEARLY
    key = KEY if there else KeyId("kv-kms-weu", "never")
    await keydata(app).rotation_policy(KEY, now=NOW)
    still_refused = await keydata(app).rotation_policy(KEY, now=NOW + MINUTE, afresh=True)
    admitting(azure, vault)

    remembered = await keydata(app).rotation_policy(KEY, now=NOW + 2 * MINUTE)
    await keydata(app).rotation_policy(key, now=NOW + 3 * MINUTE, afresh=True)
    from_then_on = await keydata(app).rotation_policy(KEY, now=NOW + 4 * MINUTE)

    assert (still_refused, remembered) == (None, None)
    assert from_then_on == AS_READ


async def test_a_run_of_an_operator_asks_a_vault_that_refused(app: Product, azure: Azure) -> None:
    vault = refusing(azure)
    await inspect(app, vault)
    azure.keyvault.delete_key(vault.key("etcd"))
    found = []

    for hours, asked_by in enumerate(("timer", "timer", OPERATOR, "timer")):
        await inspect(app, vault, hours=hours, asked_by=asked_by)
        found.append({one.reason for one in (await app.keys.key(KEY)).findings})
        admitting(azure, vault)

    told = [reasons & {Reason.KEY_MISSING, Reason.KEY_DELETED} for reasons in found]
    assert told == [{Reason.KEY_MISSING}] * 2 + [{Reason.KEY_DELETED}] * 2


async def test_a_second_refusal_lasts_a_day_of_its_own(app: Product, azure: Azure) -> None:
    refusing(azure)
    for day in range(2):
        await keydata(app).rotation_policy(KEY, now=NOW + day * REFUSAL_LASTS)
    before = asked(azure)

    await keydata(app).rotation_policy(KEY, now=NOW + 2 * REFUSAL_LASTS - SECOND)

    assert asked(azure) == before


async def test_the_refusal_of_one_vault_says_nothing_of_another(app: Product, azure: Azure) -> None:
    refusing(azure)
    other = admitting(azure, azure.keyvault.add_vault("kv-kms-neu"))
    azure.keyvault.add_key(other, "etcd").rotation_policy = YEARLY
    await keydata(app).rotation_policy(KEY, now=NOW)

    assert await keydata(app).rotation_policy(KeyId("kv-kms-neu", "etcd"), now=NOW) == AS_READ


async def test_another_worker_knows_of_a_refusal_too(app: Product, azure: Azure, account: Account) -> None:
    refusing(azure)
    await keydata(app).rotation_policy(KEY, now=NOW)
    before = asked(azure)

    async with product(account) as another:
        assert await keydata(another).rotation_policy(KEY, now=NOW + MINUTE) is None

    assert asked(azure) == before


async def test_an_access_policy_lets_the_app_in_too(app: Product, azure: Azure) -> None:
    allowed = access_policy(azure.identity.default.object_id, "get", "getrotationpolicy")
    vault = azure.keyvault.add_vault("kv-kms-weu", rbac=False, access_policies=[allowed])
    azure.keyvault.add_key(vault, "etcd").rotation_policy = YEARLY

    assert await keydata(app).rotation_policy(KEY, now=NOW) == AS_READ


# what passes by itself


@pytest.mark.usefixtures("key")
@pytest.mark.parametrize(
    ("status", "headers"),
    [
        pytest.param(500, {}, id="500"),
        pytest.param(503, {}, id="503"),
        pytest.param(429, {"Retry-After": "600"}, id="429-for-long"),
        pytest.param(429, {}, id="429"),
    ],
)
async def test_an_answer_that_passes_by_itself_is_not_remembered(
    app: Product, azure: Azure, status: int, headers: dict[str, str]
) -> None:
    azure.faults.fail_next("GET", "rotationpolicy$", status, code="Away", message="later", headers=headers)

    first = await asyncio.wait_for(keydata(app).rotation_policy(KEY, now=NOW), timeout=30)
    second = await keydata(app).rotation_policy(KEY, now=NOW)

    assert first is None
    assert second == AS_READ
    assert await refusals(app) == []


@pytest.mark.usefixtures("key")
async def test_a_connection_that_breaks_is_not_remembered(app: Product, azure: Azure) -> None:
    azure.faults.drop_next("GET", "rotationpolicy$", accepted=False, times=2)  # aiohttp itself sends one again

    first = await keydata(app).rotation_policy(KEY, now=NOW)
    second = await keydata(app).rotation_policy(KEY, now=NOW)

    assert (first, second) == (None, AS_READ)
    assert await refusals(app) == []


async def test_a_vault_whose_name_does_not_resolve_is_no_failure_and_not_remembered(app: Product) -> None:
    policy = await asyncio.wait_for(keydata(app).rotation_policy(KEY, now=NOW), timeout=30)
    deleted = await asyncio.wait_for(keydata(app).is_deleted(KEY, now=NOW), timeout=30)

    assert (policy, deleted) == (None, None)
    assert await refusals(app) == []


# what is kept of it


async def inspect(
    app: Product, vault: SimulatedVault, *, hours: int = 0, asked_by: str = "timer"
) -> RotationPolicy | None:
    """Look at the key; return the rotation policy that is kept."""
    request = KeyRequest(KEY, asked_by, VaultId.parse(vault.id))
    await app.inspector.inspect(request, now=NOW + timedelta(hours=hours))
    return (await app.keys.key(KEY)).rotation_policy


@pytest.mark.usefixtures("key")
async def test_a_rotation_policy_is_kept_with_its_key(app: Product, vault: SimulatedVault) -> None:
    assert await inspect(app, vault) == AS_READ

    before = await app.rows("rotations")
    await inspect(app, vault, hours=1)
    assert await app.rows("rotations") == before


async def test_another_rotation_policy_takes_the_place_of_the_first(
    app: Product, vault: SimulatedVault, key: SimulatedKey
) -> None:
    await inspect(app, vault)
    key.rotation_policy = YEARLY | {"lifetimeActions": YEARLY["lifetimeActions"][:1]}

    assert await inspect(app, vault, hours=1) == RotationPolicy(expires_in="P1Y")


@pytest.mark.usefixtures("key")
async def test_a_vault_that_closes_leaves_what_was_read_before(
    app: Product, azure: Azure, vault: SimulatedVault
) -> None:
    await inspect(app, vault)
    vault.properties["publicNetworkAccess"] = "Disabled"

    assert await inspect(app, vault, hours=1) == AS_READ
    before = asked(azure)
    assert await inspect(app, vault, hours=2) == AS_READ
    assert asked(azure) == before


async def test_a_vault_that_never_let_the_app_in_fails_no_look(app: Product, azure: Azure) -> None:
    vault = refusing(azure, public_network_access="Disabled")

    assert await inspect(app, vault) is None
    assert [rotation.key for rotation in (await app.keys.key(KEY)).rotations] == [KEY]
