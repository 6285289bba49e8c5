"""One key at a time: each version is logged once, however it came to be known."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from shared.events import KeyRequest
from shared.keys import KeyId, VaultId
from shared.records import Detection
from tests.product import NOW, Product, product

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from local.simulator import Azure
    from local.simulator.keyvault import SimulatedKey, SimulatedVault
    from local.storage import Account

KEY = KeyId("kv-kms-weu", "etcd")


@pytest.fixture
async def app(azure: Azure, account: Account) -> AsyncIterator[Product]:  # noqa: ARG001  the clients reach it
    """The product."""
    async with product(account) as built:
        yield built


@pytest.fixture
def vault(azure: Azure) -> SimulatedVault:
    """A vault."""
    return azure.keyvault.add_vault("kv-kms-weu")


@pytest.fixture
def key(azure: Azure, vault: SimulatedVault) -> SimulatedKey:
    """A key with one version."""
    return azure.keyvault.add_key(vault, "etcd")


def announced(vault: SimulatedVault, version: str) -> KeyRequest:
    return KeyRequest(KEY, f"event:{version[:8]}", VaultId.parse(vault.id), version)


SWEPT = KeyRequest(KEY, "timer")


async def how(app: Product) -> dict[str, Detection]:
    """How each version that is logged was detected."""
    return {rotation.version.version: rotation.how for rotation in (await app.keys.key(KEY)).rotations}


async def assert_nothing_more_is_written(app: Product, request: KeyRequest) -> None:
    before = await app.rows("rotations")
    messages = await app.messages()

    assert await app.inspector.inspect(request, now=NOW + timedelta(hours=1)) == ()

    assert await app.rows("rotations") == before
    assert await app.messages() == messages


async def test_at_first_sight_every_version_is_the_baseline(
    app: Product, azure: Azure, vault: SimulatedVault, key: SimulatedKey
) -> None:
    second = azure.keyvault.rotate(vault, key)
    first = next(name for name in key.versions if name != second)

    await app.inspector.inspect(SWEPT, now=NOW)

    assert await how(app) == {first: Detection.BASELINE, second: Detection.BASELINE}
    await assert_nothing_more_is_written(app, SWEPT)


async def test_an_announced_version_is_logged_once_with_its_event(
    app: Product, azure: Azure, vault: SimulatedVault, key: SimulatedKey
) -> None:
    await app.inspector.inspect(SWEPT, now=NOW)
    version = azure.keyvault.rotate(vault, key)

    (told,) = await app.inspector.inspect(announced(vault, version), now=NOW)

    assert (told.version.version, told.how, told.event_id) == (version, Detection.EVENT, version[:8])
    assert told.version.created is not None
    assert len(await how(app)) == 2
    await assert_nothing_more_is_written(app, announced(vault, version))


async def test_an_event_for_a_key_never_seen_is_a_rotation_and_the_rest_its_baseline(
    app: Product, azure: Azure, vault: SimulatedVault, key: SimulatedKey
) -> None:
    first = key.current.version
    version = azure.keyvault.rotate(vault, key)

    await app.inspector.inspect(announced(vault, version), now=NOW)

    assert await how(app) == {first: Detection.BASELINE, version: Detection.EVENT}
    await assert_nothing_more_is_written(app, SWEPT)


async def test_the_sweep_finds_a_version_that_no_event_announced(
    app: Product, azure: Azure, vault: SimulatedVault, key: SimulatedKey
) -> None:
    await app.inspector.inspect(SWEPT, now=NOW)
    version = azure.keyvault.rotate(vault, key, announce=False)

    await app.inspector.inspect(SWEPT, now=NOW)

    assert (await how(app))[version] is Detection.SWEEP
    await assert_nothing_more_is_written(app, announced(vault, version))


async def test_every_user_of_the_key_is_told_once(
    app: Product, azure: Azure, vault: SimulatedVault, key: SimulatedKey
) -> None:
    key_url = f"{vault.uri}keys/{key.name}" if vault.uri.endswith("/") else f"{vault.uri}/keys/{key.name}"
    users = [azure.aks.add(f"aks-{n}", encryption="customer-managed", key_id=key_url) for n in range(3)]
    azure.aks.add("aks-none")
    for user in users:
        await app.look(user)
    await app.inspector.inspect(SWEPT, now=NOW)
    version = azure.keyvault.rotate(vault, key)

    await app.inspector.inspect(announced(vault, version), now=NOW)

    assert await app.messages() == 3
    await assert_nothing_more_is_written(app, announced(vault, version))


async def test_a_fan_out_that_ended_half_way_is_done_again(
    app: Product, azure: Azure, vault: SimulatedVault, key: SimulatedKey
) -> None:
    version = azure.keyvault.rotate(vault, key)
    known = await app.keys.key(KEY)
    from shared.keys import KeyVersion
    from shared.records import detected

    rows = detected(known, (KeyVersion(version),), version, "event-1", NOW)
    await app.keys.add_rotations(rows)

    told = await app.inspector.inspect(announced(vault, version), now=NOW)

    assert [one.version.version for one in told] == [version]
    assert all(one.fanned_out_at for one in (await app.keys.key(KEY)).rotations)


async def test_a_baseline_that_was_cut_short_is_still_a_baseline(
    app: Product, azure: Azure, vault: SimulatedVault, key: SimulatedKey
) -> None:
    second = azure.keyvault.rotate(vault, key)
    azure.faults.fail_next("GET", f"/versions/{second}$", 500, code="InternalServerError", message="", times=9)
    from shared.errors import Unavailable

    with pytest.raises(Unavailable):
        await app.inspector.inspect(SWEPT, now=NOW)
    while azure.faults.pending:
        azure.faults.take("GET", f"/versions/{second}")
    await app.inspector.inspect(SWEPT, now=NOW)

    assert set((await how(app)).values()) == {Detection.BASELINE}


async def test_an_announced_version_is_logged_though_its_vault_can_not_be_read(
    app: Product, azure: Azure, vault: SimulatedVault, key: SimulatedKey
) -> None:
    first = key.current.version
    version = azure.keyvault.rotate(vault, key)
    azure.faults.fail_next("GET", "/versions", 403, code="AuthorizationFailed", message="no")

    await app.inspector.inspect(announced(vault, version), now=NOW)

    assert await how(app) == {version: Detection.EVENT}
    await app.inspector.inspect(SWEPT, now=NOW)
    assert await how(app) == {version: Detection.EVENT, first: Detection.BASELINE}


async def test_a_throttled_look_comes_back_and_loses_nothing(
    app: Product, azure: Azure, vault: SimulatedVault, key: SimulatedKey
) -> None:
    version = azure.keyvault.rotate(vault, key)
    azure.faults.fail_next(
        "GET", "/versions", 429, code="TooManyRequests", message="later", headers={"Retry-After": "600"}
    )

    await app.inspector.inspect(announced(vault, version), now=NOW)

    assert await app.messages("keys") == 1
    assert await how(app) == {}


async def test_a_vault_that_no_subscription_shows_is_no_failure(app: Product) -> None:
    assert await app.inspector.inspect(SWEPT, now=NOW) == ()
    assert await app.rows("rotations") == []


async def test_more_versions_than_one_page_holds_are_all_logged(
    app: Product, azure: Azure, vault: SimulatedVault, key: SimulatedKey
) -> None:
    azure.keyvault.page_size = 5
    for _ in range(12):
        azure.keyvault.rotate(vault, key)

    await app.inspector.inspect(SWEPT, now=NOW)

    assert len(await how(app)) == 13
