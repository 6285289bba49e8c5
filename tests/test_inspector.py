"""One key at a time: each version is logged once, however it came to be known."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import batched
from typing import TYPE_CHECKING, Any

import pytest

from local.simulator import SUBSCRIPTION
from shared.clusters import ClusterId, KeyManagement
from shared.errors import Unavailable
from shared.events import ClusterRequest, KeyRequest, VaultRequest
from shared.keyrecords import Detection, current_last, detected
from shared.keys import KeyId, VaultId
from shared.queues import Queues
from shared.reasons import Reason
from shared.rotation import KeyUser, Why, picture
from tests.builders import OTHER_SUBSCRIPTION
from tests.product import NOW, Product, product

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from azure.storage.queue.aio import QueueServiceClient

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
    from shared.keyrecords import detected
    from shared.keys import KeyVersion

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


async def test_users_are_told_of_a_version_though_azure_throttles_what_else_is_looked_at(
    app: Product, azure: Azure, vault: SimulatedVault, key: SimulatedKey
) -> None:
    await use(app, azure, key, "aks-1", "aks-2")
    version = azure.keyvault.rotate(vault, key)
    before = await app.messages("keys")
    azure.faults.fail_next("GET", "roleAssignments", 429, code="x", message="x", headers={"Retry-After": "600"})

    await app.inspector.inspect(announced(vault, version), now=NOW)

    told = [json.loads(message)["cluster"].rpartition("/")[2] for message in await taken(app)]
    assert sorted(told) == ["aks-1", "aks-2"]
    assert await app.messages("keys") == before + 1, "the look comes back"
    assert await app.inspector.inspect(announced(vault, version), now=NOW) == ()
    assert await taken(app) == []


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


async def test_of_a_fleet_that_is_seen_for_the_first_time_one_cluster_asks_for_a_look_at_its_key(
    app: Product, azure: Azure, key: SimulatedKey
) -> None:
    fleet = [azure.aks.add(f"aks-{n}", encryption="customer-managed", key_id=key.uri) for n in range(12)]

    await asyncio.gather(*(app.look(one) for one in fleet))
    first = await taken(app, "keys")
    late = azure.aks.add("aks-late", encryption="customer-managed", key_id=key.uri)
    await app.look(late, now=NOW + timedelta(minutes=4))
    meanwhile = await taken(app, "keys")
    later = azure.aks.add("aks-later", encryption="customer-managed", key_id=key.uri)
    await app.look(later, now=NOW + timedelta(minutes=6))

    assert (len(first), meanwhile) == (1, [])
    assert len(await taken(app, "keys")) == 1, "the first message may have been lost with its sender"
    await app.inspector.inspect(KeyRequest.decode(first[0]), now=NOW + timedelta(minutes=7))
    assert len({one.cluster for one in await app.keys.adoptions(KEY)}) == 14


async def test_a_key_whose_vault_is_not_there_yet_is_looked_at_again_and_again(app: Product, azure: Azure) -> None:
    vault_id = VaultId(SUBSCRIPTION, "rg-keys", "kv-kms-weu")
    for run in ("sweep-1", "sweep-2"):
        await app.inspector.inspect(KeyRequest(KEY, "timer", vault_id, run=run), now=NOW)
    azure.keyvault.add_key(azure.keyvault.add_vault("kv-kms-weu"), "etcd")

    await app.inspector.inspect(KeyRequest(KEY, "timer", vault_id, run="sweep-3"), now=NOW)

    assert set((await how(app)).values()) == {Detection.BASELINE}


async def test_of_versions_made_within_one_second_the_newest_is_the_one_that_the_vault_calls_current(
    app: Product, key: SimulatedKey
) -> None:
    first = key.current
    key.versions["0" * 32] = replace(first, version="0" * 32)

    await app.inspector.inspect(SWEPT, now=NOW)

    assert [one.version for one in (await app.keys.key(KEY)).versions] == [first.version, "0" * 32]
    await assert_nothing_more_is_written(app, SWEPT)


async def test_versions_made_within_one_second_keep_their_order_where_a_crash_came_between_their_rows(
    app: Product, vault: SimulatedVault, key: SimulatedKey
) -> None:
    first = key.current
    key.versions["0" * 32] = replace(first, version="0" * 32)
    read = await app.keyvault.versions(VaultId.parse(vault.id), KEY)
    rows = current_last(detected(await app.keys.key(KEY), read, None, None, NOW), "0" * 32)
    await app.keys.add_rotations(rows[:1])

    await app.inspector.inspect(SWEPT, now=NOW + timedelta(minutes=1))

    assert [one.version for one in (await app.keys.key(KEY)).versions] == [first.version, "0" * 32]


async def test_a_version_that_was_disabled_is_expected_six_hours_after_it_was_seen_enabled_again(
    app: Product, azure: Azure, vault: SimulatedVault, key: SimulatedKey
) -> None:
    await use(app, azure, key, "aks-1")
    old, hour = key.current.version, timedelta(hours=1)
    start = azure.clock.now()
    azure.clock.advance(timedelta(minutes=5))
    new = azure.keyvault.rotate(vault, key)
    for after, enabled in ((hour, True), (2 * hour, False), (48 * hour, True)):
        azure.keyvault.set_enabled(key, new, enabled=enabled)
        await app.inspector.inspect(SWEPT, now=start + after)
    again = start + 48 * hour

    assert await deadlines(app, new) == [again + 6 * hour]
    assert await standings(app, again + hour) == {old: Why.NOT_LEFT, new: Why.ADOPTING}
    assert await standings(app, again + 7 * hour) == {old: Why.NO_EVIDENCE, new: Why.CURRENT}
    rows = await app.rows("rotations")
    await app.inspector.inspect(SWEPT, now=again + hour)
    assert await app.rows("rotations") == rows


async def test_a_version_that_starts_after_a_newer_one_was_made_does_not_take_its_place(
    app: Product, azure: Azure, vault: SimulatedVault, key: SimulatedKey
) -> None:
    await use(app, azure, key, "aks-1")
    (cluster,) = azure.aks.clusters.values()
    azure.access.assign(cluster.principal_id, "Key Vault Crypto User", vault.id)
    first, hour = key.current.version, timedelta(hours=1)
    start = azure.clock.now()
    azure.clock.advance(timedelta(minutes=5))
    late = azure.keyvault.rotate(vault, key)
    azure.keyvault.set_key(key, version=late, not_before=start + 24 * hour)
    azure.clock.advance(timedelta(minutes=5))
    newest = azure.keyvault.rotate(vault, key)
    azure.clock.advance(48 * hour)

    await app.inspector.inspect(SWEPT, now=azure.clock.now())

    assert {kek.version for kek in azure.aks.versions_in_use(cluster)} == {newest}
    assert await standings(app, azure.clock.now()) == {
        first: Why.NO_EVIDENCE,
        late: Why.NO_EVIDENCE,
        newest: Why.CURRENT,
    }
    rows = await app.rows("rotations")
    await app.inspector.inspect(SWEPT, now=azure.clock.now())
    assert await app.rows("rotations") == rows


async def deadlines(app: Product, version: str) -> list[datetime | None]:
    return [one.expected_by for one in await app.keys.adoptions(KEY) if one.version == version]


async def standings(app: Product, now: datetime) -> dict[str, Why]:
    """Why each version stands as it does with the one cluster that there is."""
    known = await app.keys.key(KEY)
    found = picture(await app.keys.users(KEY), await app.keys.adoptions(KEY), known.versions, now)
    return {version: need.why for version, (need,) in found.items()}


async def test_a_version_that_is_learned_of_after_its_event_was_changed_by_nobody(
    app: Product, azure: Azure, vault: SimulatedVault, key: SimulatedKey
) -> None:
    version = azure.keyvault.rotate(vault, key)
    azure.faults.fail_next("GET", "/versions", 403, code="AuthorizationFailed", message="no")
    await app.inspector.inspect(announced(vault, version), now=NOW)

    await app.inspector.inspect(SWEPT, now=NOW + timedelta(minutes=1))

    learned = next(one for one in (await app.keys.key(KEY)).rotations if one.version.version == version)
    (row,) = [row for row in await app.rows("rotations") if row["RowKey"] == f"v|{version}"]
    assert learned.latency is not None
    assert row["latencySeconds"] == learned.latency.total_seconds()
    assert [row for row in await app.rows("activity") if row["kind"] == "version-changed"] == []


async def test_a_key_that_was_purged_and_made_anew_stops_all_who_used_its_versions(
    app: Product, azure: Azure, vault: SimulatedVault, key: SimulatedKey
) -> None:
    await use(app, azure, key, "aks-1", "aks-2")
    lost, day = key.current.version, timedelta(days=1)
    azure.keyvault.delete_key(key)
    del vault.deleted_keys[key.name]
    azure.clock.advance(timedelta(minutes=1))
    anew = azure.keyvault.add_key(vault, "etcd")
    await app.inspector.inspect(SWEPT, now=azure.clock.now())
    await app.look(azure.aks.add("aks-3", encryption="customer-managed", key_id=anew.uri), now=azure.clock.now())

    for when in (timedelta(), day):
        await app.inspector.inspect(SWEPT, now=azure.clock.now() + when)
        found = [one for one in (await app.keys.key(KEY)).findings if one.reason is Reason.VERSION_MISSING]
        assert [(one.version, one.count) for one in found] == [(lost, 2)], when


# where a key lies


async def found_with(app: Product) -> dict[Reason, int]:
    """What is wrong with the key, and how many clusters each concerns."""
    return {one.reason: one.count for one in (await app.keys.key(KEY)).findings}


async def test_an_event_that_comes_after_its_version_was_purged_takes_nobody_off_the_current_one(
    app: Product, azure: Azure, vault: SimulatedVault, key: SimulatedKey
) -> None:
    await use(app, azure, key, "aks-1")
    current, later = key.current.version, azure.clock.now() + timedelta(hours=9)
    purged = announced(vault, "0" * 32)

    await app.inspector.inspect(purged, now=later)

    assert await how(app) == {current: Detection.BASELINE, "0" * 32: Detection.EVENT}
    assert (await standings(app, later + timedelta(hours=9)))[current] is Why.NOT_LEFT
    rows = await app.rows("rotations")
    await app.inspector.inspect(purged, now=later)
    assert await app.rows("rotations") == rows


@pytest.mark.parametrize("unreadable", [False, True])
async def test_a_version_that_was_lost_stays_lost_however_often_its_key_rotates_since(
    app: Product, azure: Azure, vault: SimulatedVault, key: SimulatedKey, *, unreadable: bool
) -> None:
    await use(app, azure, key, "aks-1")
    lost = key.current.version
    azure.keyvault.delete_key(key)
    del vault.deleted_keys[key.name]
    azure.clock.advance(timedelta(minutes=1))
    anew = azure.keyvault.add_key(vault, "etcd")
    await app.inspector.inspect(SWEPT, now=azure.clock.now())
    begun = [one for one in (await app.keys.key(KEY)).findings if one.reason is Reason.VERSION_MISSING]
    if unreadable:
        azure.permissions.refuse("Microsoft.KeyVault/vaults/keys/versions/read")

    for _ in range(6):
        azure.clock.advance(timedelta(days=1))
        azure.keyvault.rotate(vault, anew)
        await app.inspector.inspect(SWEPT, now=azure.clock.now())

    found = [one for one in (await app.keys.key(KEY)).findings if one.reason is Reason.VERSION_MISSING]
    assert [one.version for one in begun] == [lost]
    assert found == begun


async def test_a_vault_that_no_list_shows_is_out_of_sight_and_nobody_is_alarmed_until_it_is_seen(
    telling: Product, azure: Azure, vault: SimulatedVault, key: SimulatedKey
) -> None:
    for name in ("aks-1", "aks-2"):
        await telling.look(azure.aks.add(name, encryption="customer-managed", key_id=key.uri))
    before = len(azure.eventgrid.published)
    del azure.keyvault.vaults[vault.id.lower()]

    await telling.inspector.inspect(SWEPT, now=NOW)

    assert await found_with(telling) == {Reason.VAULT_UNREADABLE: 2}
    assert len(azure.eventgrid.published) == before, "absence from a list is no proof of absence"
    await assert_nothing_more_is_written(telling, SWEPT)
    azure.keyvault.put_vault(vault)
    await telling.inspector.inspect(SWEPT, now=NOW)
    assert Reason.VAULT_UNREADABLE not in await found_with(telling)


async def test_a_vault_that_azure_says_is_not_where_its_cluster_names_it_is_missing_and_to_be_recovered(
    telling: Product, azure: Azure, vault: SimulatedVault, key: SimulatedKey
) -> None:
    cluster = azure.aks.add(
        "aks-1", encryption="customer-managed", key_id=key.uri, vault_id=vault.id, network_access="Private"
    )
    await telling.look(cluster)
    del azure.keyvault.vaults[vault.id.lower()]
    asked = replace(SWEPT, vault=VaultId.parse(vault.id))

    await telling.inspector.inspect(asked, now=NOW)

    assert await found_with(telling) == {Reason.VAULT_MISSING: 1}
    (told,) = [one.payload["data"] for one in azure.eventgrid.published if one.payload["id"].startswith("risk|")]
    assert (told["reason"], told["users"]) == (Reason.VAULT_MISSING, 1)
    assert " recover " in told["fix"]["command"], "another vault of its name could not read the secrets"
    await assert_nothing_more_is_written(telling, asked)


async def test_a_key_is_found_where_its_vault_was_moved_to(
    app: Product, azure: Azure, vault: SimulatedVault, key: SimulatedKey
) -> None:
    await use(app, azure, key, "aks-1")
    del azure.keyvault.vaults[vault.id.lower()]
    vault.document["id"] = vault.id.replace("rg-keys", "rg-moved")
    azure.keyvault.put_vault(vault)
    version = azure.keyvault.rotate(vault, key)

    await app.inspector.inspect(SWEPT, now=NOW)

    known = await app.keys.key(KEY)
    assert (known.vault_id, (await how(app))[version]) == (VaultId.parse(vault.id), Detection.SWEEP)
    assert Reason.VAULT_MISSING not in await found_with(app)
    await taken(app)
    await assert_nothing_more_is_written(app, SWEPT)


async def test_a_vault_made_anew_elsewhere_is_found_by_its_event_though_its_old_place_may_not_be_read_any_more(
    app: Product, azure: Azure, vault: SimulatedVault, key: SimulatedKey
) -> None:
    await use(app, azure, key, "aks-1")
    lost = key.current.version
    del azure.keyvault.vaults[vault.id.lower()]
    azure.permissions.refuse("*/read", scope=vault.id)
    anew = azure.keyvault.add_vault(KEY.vault, subscription=OTHER_SUBSCRIPTION)
    version = azure.keyvault.add_key(anew, KEY.name).current.version

    await app.inspector.inspect(announced(anew, version), now=NOW)

    known = await app.keys.key(KEY)
    assert known.vault_id == VaultId.parse(anew.id)
    assert await how(app) == {lost: Detection.BASELINE, version: Detection.EVENT}
    assert (await found_with(app))[Reason.VERSION_MISSING] == 1
    await taken(app)
    await assert_nothing_more_is_written(app, announced(anew, version))


@pytest.mark.parametrize("seen_before", [True, False])
async def test_a_policy_that_names_the_wrong_vault_hides_no_rotation(
    app: Product, azure: Azure, vault: SimulatedVault, key: SimulatedKey, *, seen_before: bool
) -> None:
    wrong = replace(SWEPT, vault=replace(VaultId.parse(vault.id), group="rg-wrong"))
    if seen_before:
        await use(app, azure, key, "aks-1")
    version = azure.keyvault.rotate(vault, key)

    await app.inspector.inspect(wrong, now=NOW)

    assert version in await how(app)
    assert (await app.keys.key(KEY)).vault_id == VaultId.parse(vault.id)


async def test_of_a_vault_that_may_not_be_read_any_more_what_was_found_goes_on_and_it_is_said(
    app: Product, azure: Azure, key: SimulatedKey
) -> None:
    await use(app, azure, key, "aks-1")
    azure.keyvault.set_key(key, enabled=False)
    await app.inspector.inspect(SWEPT, now=NOW)
    found = await found_with(app)
    azure.permissions.refuse("Microsoft.KeyVault/vaults/read")
    azure.permissions.refuse("Microsoft.KeyVault/vaults/keys/versions/read")

    await app.inspector.inspect(SWEPT, now=NOW + timedelta(minutes=1))

    assert await found_with(app) == found | {Reason.VAULT_UNREADABLE: 1}
    azure.permissions.allow("Microsoft.KeyVault/vaults/read")
    azure.permissions.allow("Microsoft.KeyVault/vaults/keys/versions/read")
    await app.inspector.inspect(SWEPT, now=NOW + timedelta(minutes=2))
    assert await found_with(app) == found


@pytest.mark.parametrize("known", [True, False])
async def test_versions_that_may_not_be_read_are_said_so_once_a_day_and_not_at_each_sweep(
    app: Product, azure: Azure, vault: SimulatedVault, key: SimulatedKey, *, known: bool
) -> None:
    if known:
        await use(app, azure, key, "aks-1")
    azure.permissions.refuse("Microsoft.KeyVault/vaults/keys/versions/read")

    async def lines(hours: int) -> int:
        asked = KeyRequest(KEY, "timer", VaultId.parse(vault.id), run=f"sweep-{hours}")
        await app.inspector.inspect(asked, now=NOW + timedelta(hours=hours))
        return len([row for row in await app.rows("activity") if row["kind"] == "unreadable"])

    assert [await lines(hours) for hours in (1, 2, 24, 25, 26)] == [1, 1, 1, 2, 2]


# what a vault says besides a new version


@pytest.mark.parametrize("expired", [False, True])
async def test_an_expiry_that_an_event_and_a_look_find_is_told_once(
    telling: Product, azure: Azure, vault: SimulatedVault, key: SimulatedKey, *, expired: bool
) -> None:
    await use(telling, azure, key, "aks-1")
    now = azure.clock.now()
    (azure.keyvault.expire if expired else azure.keyvault.near_expiry)(key)
    cause = Reason.KEY_EXPIRED if expired else Reason.KEY_NEAR_EXPIRY
    said = KeyRequest(KEY, "event:e-1", VaultId.parse(vault.id), key.current.version, cause=cause)

    await telling.inspector.inspect(said, now=now + timedelta(minutes=1))
    looks = await taken(telling)
    await telling.inspector.inspect(said, now=now + timedelta(minutes=2))

    told = [one.payload["data"].get("reason") for one in azure.eventgrid.published]
    assert Counter(told)[cause] == 1
    assert [row["askedBy"] for row in await telling.rows("activity") if row.get("kind") == cause] == ["event:e-1"]
    assert len(looks) == 1
    assert await taken(telling) == []


async def test_the_expiry_of_a_version_that_nobody_needs_any_more_alarms_no_cluster(
    telling: Product, azure: Azure, vault: SimulatedVault, key: SimulatedKey
) -> None:
    await use(telling, azure, key, "aks-1")
    old, now = key.current, azure.clock.now() + timedelta(days=2)
    azure.clock.advance(timedelta(minutes=1))
    azure.keyvault.rotate(vault, key)
    azure.keyvault.set_key(key, version=old.version, expires=now)
    await telling.inspector.inspect(SWEPT, now=now)
    said = KeyRequest(KEY, "event:e-1", VaultId.parse(vault.id), old.version, cause=Reason.KEY_EXPIRED)

    await telling.inspector.inspect(said, now=now)

    (told,) = [one.payload["data"] for one in azure.eventgrid.published if one.payload["id"].startswith("event|")]
    assert (told["version"], told["users"], told["clusters"]) == (old.version, 0, [])


RISKY = [Reason.KEY_NEAR_EXPIRY, Reason.KEY_EXPIRED, Reason.ACCESS_POLICY_CHANGED]


async def use(app: Product, azure: Azure, key: SimulatedKey, *names: str) -> None:
    """Let clusters use the key, and the app know of it and of the key."""
    for name in names:
        await app.look(azure.aks.add(name, encryption="customer-managed", key_id=key.uri))
    await app.inspector.inspect(SWEPT, now=NOW)
    await taken(app)


async def taken(app: Product, queue: str = "clusters") -> list[str]:
    """Take every message of a queue; return them."""
    client = app.storage.get_queue_client(queue)
    messages = [message async for message in client.receive_messages(messages_per_page=32)]
    for message in messages:
        await client.delete_message(message)
    return [str(message.content) for message in messages]


async def everything(app: Product) -> list[dict[str, Any]]:
    return [row for table in ("clusters", "keyusers", "rotations", "activity") for row in await app.rows(table)]


@pytest.fixture
async def telling(azure: Azure, account: Account) -> AsyncIterator[Product]:
    """The product with a topic."""
    async with product(account, topic=azure.eventgrid.add_topic("outcomes")) as built:
        yield built


@pytest.mark.parametrize("cause", RISKY)
async def test_what_a_vault_says_of_a_key_is_recorded_told_and_has_its_clusters_looked_at_once(
    telling: Product, azure: Azure, vault: SimulatedVault, key: SimulatedKey, cause: Reason
) -> None:
    await use(telling, azure, key, "aks-1", "aks-2")
    azure.aks.add("aks-none")
    said = KeyRequest(KEY, "event:e-1", VaultId.parse(vault.id), key.current.version, cause=cause)

    await telling.inspector.inspect(said, now=NOW)
    looks, rows = await taken(telling), await everything(telling)
    await telling.inspector.inspect(said, now=NOW + timedelta(hours=1))

    assert sorted(name for look in looks for name in ("aks-1", "aks-2", "aks-none") if name in look) == [
        "aks-1",
        "aks-2",
    ]
    assert [row["askedBy"] for row in rows if row.get("kind") == cause] == ["event:e-1"]
    told = [one.payload for one in azure.eventgrid.published if one.payload["id"].startswith("event|")]
    assert [(one["data"]["reason"], one["data"]["users"]) for one in told] == [(cause, 2)]
    assert await everything(telling) == rows
    assert await taken(telling) == []


async def test_an_event_whose_answer_was_cut_short_is_answered_by_its_redelivery_in_one_line(
    telling: Product, azure: Azure, vault: SimulatedVault, key: SimulatedKey
) -> None:
    await use(telling, azure, key, "aks-1")
    said = KeyRequest(KEY, "event:e-1", VaultId.parse(vault.id), key.current.version, cause=Reason.KEY_EXPIRED)
    azure.faults.fail_next("POST", "^/api/events", 503, code="ServiceUnavailable", message="later")
    with pytest.raises(Unavailable):
        await telling.inspector.inspect(said, now=NOW)

    await telling.inspector.inspect(said, now=NOW + timedelta(minutes=1))

    lines = [row for row in await telling.rows("activity") if row.get("kind") == Reason.KEY_EXPIRED]
    told = [one.payload["id"] for one in azure.eventgrid.published if one.payload["id"].startswith("event|")]
    assert (len(lines), len(told)) == (1, 1)


async def test_a_vault_whose_policies_changed_has_each_of_its_keys_looked_at(
    app: Product, azure: Azure, vault: SimulatedVault, key: SimulatedKey
) -> None:
    azure.keyvault.add_key(vault, "other")
    for name in (key.name, "other"):
        await app.inspector.inspect(KeyRequest(KeyId(vault.name, name), "timer", VaultId.parse(vault.id)), now=NOW)

    await app.inspector.inspect_vault(VaultRequest(VaultId.parse(vault.id), "event:e-1", Reason.ACCESS_POLICY_CHANGED))

    asked = [KeyRequest.decode(message) for message in await taken(app, "keys")]
    assert {(one.key.name, one.cause, one.asked_by) for one in asked} == {
        (name, Reason.ACCESS_POLICY_CHANGED, "event:e-1") for name in ("etcd", "other")
    }


async def test_of_many_looks_at_once_one_tells_what_is_wrong_and_each_version_is_logged_once(
    telling: Product, azure: Azure, vault: SimulatedVault, key: SimulatedKey
) -> None:
    await use(telling, azure, key, "aks-1")
    version = azure.keyvault.rotate(vault, key)
    azure.keyvault.set_key(key, version=next(iter(key.versions)), enabled=False)
    before = len(azure.eventgrid.published)

    await asyncio.gather(
        # Later than the baseline: of two versions that appear within one second, the one seen later is the newer one.
        *(telling.inspector.inspect(announced(vault, version), now=NOW + n * timedelta(seconds=1)) for n in range(1, 7))
    )

    told = {one.payload["id"]: one.payload["data"].get("reason") for one in azure.eventgrid.published[before:]}
    assert Counter(told.values())[Reason.VERSION_DISABLED] == 1
    assert (await how(telling))[version] is Detection.EVENT
    known = await telling.keys.key(KEY)
    assert all(one.told for one in known.findings if one.reason is Reason.VERSION_DISABLED)
    assert all(one.fanned_out_at for one in known.rotations)


# two thousand clusters


MANY, PAGE = 2000, 500


class Killed(BaseException):
    """The process is gone."""


class DyingQueues(Queues):
    """Lets so many messages through, then the process is gone."""

    def __init__(self, service: QueueServiceClient, messages: int) -> None:
        super().__init__(service)
        self._left = messages

    async def ask_for_cluster(self, request: ClusterRequest, *, after: timedelta = timedelta()) -> None:
        """Send a message, or die."""
        self._left -= 1
        if self._left < 0:
            raise Killed
        await super().ask_for_cluster(request, after=after)


async def many_users(app: Product, azure: Azure, vault: SimulatedVault, key: SimulatedKey) -> None:
    """Let the ledger know a key with two thousand clusters, each with an identity of its own that may use it."""
    await app.inspector.inspect(SWEPT, now=NOW)
    first = KeyUser(
        ClusterId(SUBSCRIPTION, "rg-apps", "aks-0000"), "uid", KeyManagement.CUSTOMER_MANAGED, NOW, principal="-"
    )
    await app.keys.use(KEY, first, in_effect=True, now=NOW)
    (row,) = await app.rows("keyusers")
    names = [f"{number:04}" for number in range(MANY)]
    table = app.tables.get_table_client("keyusers")
    for some in batched(names, 100, strict=True):
        rows = [
            {**row, "RowKey": row["RowKey"].replace("aks-0000", f"aks-{one}"), "principal": f"{int(one):032x}"}
            for one in some
        ]
        await table.submit_transaction([("upsert", one) for one in rows])
    for one in names:
        azure.access.assign(f"{int(one):032x}", "Key Vault Crypto User", vault.id)
    azure.clock.advance(timedelta(days=1))
    azure.keyvault.rotate(vault, key)


@pytest.mark.slow
async def test_two_thousand_clusters_are_told_page_by_page_and_a_redelivery_goes_on_after_a_crash(
    app: Product, azure: Azure, vault: SimulatedVault, key: SimulatedKey
) -> None:
    await many_users(app, azure, vault, key)
    now = azure.clock.now()
    mortal = replace(app.inspector, queues=DyingQueues(app.storage, PAGE + 100))
    with pytest.raises(Killed):
        await mortal.inspect(SWEPT, now=now)
    await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}), return_exceptions=True)
    half_way = next(one for one in (await app.keys.key(KEY)).rotations if one.how is Detection.SWEEP)

    await app.inspector.inspect(SWEPT, now=now)

    told = Counter([json.loads(message)["cluster"].rpartition("/")[2] for message in await taken(app)])
    assert half_way.fanned_out_at is None
    assert (half_way.told_up_to or "").endswith("|aks-0499|uid")
    assert len(told) == MANY
    assert sum(told.values()) <= MANY + 100
    assert all(one.fanned_out_at for one in (await app.keys.key(KEY)).rotations)
    adopted = Counter(one.cluster for one in await app.keys.adoptions(KEY))
    assert (len(adopted), set(adopted.values())) == (MANY, {2})
    assert await app.inspector.inspect(SWEPT, now=now) == ()
    assert await taken(app) == []
