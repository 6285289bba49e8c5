"""The tables of keys: what comes back as it was written, what is listed, and how pages follow each other."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from shared.clusters import ClusterId, KeyManagement
from shared.errors import LostRace, Malformed
from shared.keyhealth import Finding
from shared.keyrecords import Detection, KeySummary, KnownKey, Rotation
from shared.keys import KeyId, KeyVersion, RotationPolicy, VaultId
from shared.reasons import Reason
from shared.rotation import Adoption, How, KeyUser, Standing
from shared.tables import write_token
from tests.product import NOW, Product, product

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from local.simulator import Azure
    from local.storage import Account
    from shared.keyledger import KeyLedger
    from shared.tables import Page

SUBSCRIPTION = "00000000-0000-0000-0000-000000000001"
CLUSTER = ClusterId(SUBSCRIPTION, "rg-apps", "aks-1")
KEY = KeyId("kv-kms", "etcd")
VAULT = VaultId(SUBSCRIPTION, "rg-keys", "kv-kms")
HOUR = timedelta(hours=1)
FIRST, SECOND = "a" * 32, "b" * 32
USER = KeyUser(CLUSTER, "uid-1", KeyManagement.CUSTOMER_MANAGED, NOW)
FINDING = Finding(Reason.KEY_DISABLED, None, (CLUSTER,), 1, NOW)


@pytest.fixture
async def app(azure: Azure, account: Account) -> AsyncIterator[Product]:  # noqa: ARG001  tokens come from there
    """The product, for its ledger of keys."""
    async with product(account) as built:
        yield built


@pytest.fixture
def keys(app: Product) -> KeyLedger:
    """The ledger of keys."""
    return app.keys


def rotation(version: str = FIRST, *, key: KeyId = KEY, **said: Any) -> Rotation:
    defaults: dict[str, Any] = {"how": Detection.SWEEP, "detected_at": NOW}
    return Rotation(key, KeyVersion(version, created=NOW - HOUR), **defaults | said)


async def all_pages[Item](read: Callable[[str | None], Awaitable[Page[Item]]], *, size: int) -> list[list[Item]]:
    """Every page until the last one."""
    pages: list[list[Item]] = []
    after = None
    while True:
        page = await read(after)
        assert len(page.items) <= size
        pages.append(list(page.items))
        after = page.continuation
        if after is None:
            return pages


# users


async def test_a_user_comes_back_as_it_was_written(keys: KeyLedger) -> None:
    user = replace(USER, begun_before=False, network_access="Private", principal="p-1")

    began = await keys.use(KEY, user, in_effect=True, now=NOW)

    assert began
    assert await keys.users(KEY) == [user]
    assert await keys.adoptions(KEY) == []


async def test_a_user_keeps_since_when_it_uses_the_key_and_when_it_was_rewritten(keys: KeyLedger) -> None:
    await keys.use(KEY, USER, in_effect=True, now=NOW)
    await keys.rewritten(KEY, CLUSTER, "uid-1", by="somebody", at=NOW + HOUR)

    again = await keys.use(KEY, replace(USER, since=NOW + 2 * HOUR, principal="p-2"), in_effect=True, now=NOW)

    assert not again
    assert await keys.users(KEY) == [
        replace(USER, principal="p-2", rewritten_at=NOW + HOUR, rewritten_by="somebody"),
    ]


async def test_a_user_keeps_the_identities_that_it_had_each_with_its_end(keys: KeyLedger) -> None:
    for number, principal in enumerate(("p-1", "p-2", "p-2", "p-1", "p-3")):
        named = replace(USER, principal=principal, network_access=str(number))
        await keys.use(KEY, named, in_effect=True, now=NOW + number * HOUR)

    (found,) = await keys.users(KEY)

    assert found.principal == "p-3"
    assert dict(found.principals_before) == {"p-1": NOW + 4 * HOUR, "p-2": NOW + 3 * HOUR}


async def test_a_use_that_ended_begins_again(keys: KeyLedger) -> None:
    await keys.use(KEY, USER, in_effect=True, now=NOW)
    await keys.end_use(KEY, CLUSTER, "uid-1", to=KeyManagement.PLATFORM_MANAGED, now=NOW + HOUR)
    await keys.end_use(KEY, CLUSTER, "uid-1", to=KeyManagement.PLATFORM_MANAGED, now=NOW + 2 * HOUR)
    (ended,) = await keys.users(KEY)

    began = await keys.use(KEY, USER, in_effect=True, now=NOW + 3 * HOUR)

    assert (ended.ended_at, ended.gone) == (NOW + HOUR, False)
    assert began
    assert [user.ended_at for user in await keys.users(KEY)] == [None]


async def test_the_end_of_an_unknown_use_is_nothing(app: Product, keys: KeyLedger) -> None:
    await keys.end_use(KEY, CLUSTER, "uid-1", to=None, now=NOW)
    await keys.rewritten(KEY, CLUSTER, "uid-1", by="somebody", at=NOW)

    assert await app.rows("keyusers") == []


async def test_each_incarnation_of_a_cluster_is_a_user_of_its_own(keys: KeyLedger) -> None:
    await keys.use(KEY, USER, in_effect=True, now=NOW)
    await keys.end_use(KEY, CLUSTER, "uid-1", to=None, now=NOW)

    await keys.use(KEY, replace(USER, resource_uid="uid-2"), in_effect=True, now=NOW)

    assert [(user.resource_uid, user.gone) for user in await keys.users(KEY)] == [("uid-1", True), ("uid-2", False)]


async def test_an_older_rewrite_never_takes_a_newer_one_s_place(keys: KeyLedger) -> None:
    await keys.use(KEY, USER, in_effect=True, now=NOW)
    await keys.rewritten(KEY, CLUSTER, "uid-1", by="second", at=NOW + HOUR)

    await keys.rewritten(KEY, CLUSTER, "uid-1", by="first", at=NOW)

    (found,) = await keys.users(KEY)
    assert (found.rewritten_at, found.rewritten_by) == (NOW + HOUR, "second")


# adoptions


async def test_a_legacy_cluster_takes_up_a_version_and_its_update_ends_later(keys: KeyLedger) -> None:
    user = replace(USER, key_management=KeyManagement.LEGACY, version=FIRST)

    await keys.use(KEY, user, in_effect=False, now=NOW)
    under_way = await keys.adoptions(KEY)
    await keys.use(KEY, user, in_effect=True, now=NOW + HOUR)
    await keys.use(KEY, user, in_effect=True, now=NOW + 2 * HOUR)

    named = Adoption(FIRST, CLUSTER, "uid-1", How.UPDATED, NOW)
    assert under_way == [named]
    assert await keys.adoptions(KEY) == [replace(named, effective_at=NOW + HOUR)]


async def test_a_legacy_cluster_that_goes_back_takes_the_old_version_up_anew(keys: KeyLedger) -> None:
    user = replace(USER, key_management=KeyManagement.LEGACY, version=FIRST)
    await keys.use(KEY, user, in_effect=True, now=NOW)
    await keys.use(KEY, replace(user, version=SECOND), in_effect=True, now=NOW + HOUR)

    await keys.use(KEY, user, in_effect=True, now=NOW + 2 * HOUR)

    found = {one.version: one.since for one in await keys.adoptions(KEY)}
    assert found == {FIRST: NOW + 2 * HOUR, SECOND: NOW + HOUR}


async def test_more_adoptions_than_a_transaction_holds_are_all_written_and_written_again_the_same(
    keys: KeyLedger,
) -> None:
    adoptions = [
        Adoption(
            FIRST,
            ClusterId(SUBSCRIPTION, "rg-apps", f"aks-{number:03d}"),
            "uid-1",
            How.EXPECTED,
            NOW,
            NOW + HOUR,
            first_seen=NOW,
            last_seen=NOW,
        )
        for number in range(201)
    ]

    await keys.adopt(KEY, adoptions)
    await keys.adopt(KEY, adoptions)

    assert await keys.adoptions(KEY) == adoptions
    assert await keys.adoptions(KeyId("kv-kms", "other")) == []


# keys


async def test_a_key_comes_back_as_it_was_written(keys: KeyLedger) -> None:
    known = KnownKey(
        KEY,
        VAULT,
        (rotation(FIRST), rotation(SECOND, event_id="event-1", how=Detection.EVENT, fanned_out_at=NOW)),
        findings=(FINDING,),
        rotation_policy=RotationPolicy("P1Y", None, "P2Y"),
        looked_at=NOW,
        last_run="sweep-1",
        summary=KeySummary(
            2,
            KeyVersion(SECOND, True, NOW, NOW, NOW + HOUR),
            {KeyManagement.LEGACY: 1},
            {Standing.NEEDED: 1, Standing.CANDIDATE: 1},
        ),
    )

    await keys.lies_in(KEY, VAULT, first_seen=NOW)
    await keys.add_rotations(known.rotations)
    await keys.remember_key_state(replace(known, etag=(await keys.key(KEY)).etag))

    assert await keys.key(KEY) == known
    page = await keys.keys_page(vault=None, top=10, after=None)
    assert page.items == (replace(known, rotations=(), last_run=None),)


async def test_a_key_whose_vault_was_never_found_is_known_without_it(keys: KeyLedger) -> None:
    known = KnownKey(KEY, rotations=(rotation(),), last_run="sweep-1", summary=KeySummary(1))

    await keys.add_rotations(known.rotations)
    await keys.remember_key_state(known)

    assert await keys.key(KEY) == known
    assert [one.vault_id for one in (await keys.keys_page(vault=None, top=1, after=None)).items] == [None]
    await keys.lies_in(KEY, VAULT, first_seen=NOW)
    assert (await keys.key(KEY)).vault_id == VAULT


async def test_a_key_that_nobody_knows_is_known_without_anything(keys: KeyLedger) -> None:
    assert await keys.key(KEY) == KnownKey(KEY)


@pytest.mark.parametrize(
    ("count", "named"),
    [pytest.param(10, 10, id="few"), pytest.param(30, 3, id="more"), pytest.param(200, 0, id="very-many")],
)
async def test_every_finding_is_kept_and_names_as_many_clusters_as_there_is_room_for(
    keys: KeyLedger, count: int, named: int
) -> None:
    longest = tuple(ClusterId(SUBSCRIPTION, "g" * 90, f"{number:063d}") for number in range(10))
    findings = tuple(Finding(Reason.VERSION_NEAR_EXPIRY, f"{n:032x}", longest, 5000, NOW) for n in range(count))

    await keys.remember_key_state(KnownKey(KEY, findings=findings))

    expected = tuple(replace(finding, clusters=longest[:named]) for finding in findings)
    assert (await keys.key(KEY)).findings == expected


async def fill(keys: KeyLedger) -> list[str]:
    """Seven keys in three vaults, whose names are prefixes of each other; every third one has something wrong."""
    known = [KeyId(vault, f"key-{number}") for vault in ("kv-ab", "kv-a", "kv-b") for number in range(3)][:7]
    for number, key in enumerate(known):
        findings = (FINDING,) if number % 3 == 0 else ()
        await keys.remember_key_state(KnownKey(key, VAULT, findings=findings))
    return [str(key) for key in known]


@pytest.mark.parametrize("size", [1, 3, 7, 8])
async def test_pages_of_keys_follow_each_other_to_the_end(keys: KeyLedger, size: int) -> None:
    expected = await fill(keys)

    pages = await all_pages(lambda after: keys.keys_page(vault=None, top=size, after=after), size=size)

    assert [str(known.key) for page in pages for known in page] == expected
    assert len(pages) == -(-len(expected) // size)


@pytest.mark.parametrize("size", [1, 2, 3])
async def test_pages_of_keys_that_are_picked_out_follow_each_other_to_the_end(keys: KeyLedger, size: int) -> None:
    expected = (await fill(keys))[::3]

    pages = await all_pages(
        lambda after: keys.keys_page(vault=None, keep=lambda known: bool(known.findings), top=size, after=after),
        size=size,
    )

    assert [str(known.key) for page in pages for known in page] == expected


async def test_the_keys_of_one_vault_are_only_its_own(keys: KeyLedger) -> None:
    await fill(keys)

    pages = await all_pages(lambda after: keys.keys_page(vault="kv-a", top=2, after=after), size=2)

    assert [[str(known.key) for known in page] for page in pages] == [["kv-a/key-0", "kv-a/key-1"], ["kv-a/key-2"]]


async def test_the_list_of_keys_is_no_key(keys: KeyLedger) -> None:
    await fill(keys)

    assert (await keys.rotations_page(None, top=10, after=None)).items == ()
    assert await keys.of_vault(VAULT) == []
    assert sorted(map(str, await keys.of_vault(replace(VAULT, name="kv-a")))) == [
        "kv-a/key-0",
        "kv-a/key-1",
        "kv-a/key-2",
    ]


@pytest.mark.parametrize(
    "token",
    [
        pytest.param("nonsense", id="no-token"),
        pytest.param("é", id="no-ascii"),
        pytest.param("A" * 10_000, id="too-long"),
        pytest.param("W1tbW1tbW1tbW1tbW1tb" * 90, id="deep"),
        pytest.param(write_token(PartitionKey="p", RowKey="r"), id="of-another-listing"),
        pytest.param(write_token(after="a\nb"), id="unprintable"),
    ],
)
async def test_a_token_that_is_none_of_ours_is_malformed(keys: KeyLedger, token: str) -> None:
    with pytest.raises(Malformed, match="continuation"):
        await keys.keys_page(vault=None, top=3, after=token)
    with pytest.raises(Malformed, match="continuation"):
        await keys.rotations_page(
            None, top=3, after=token if token != write_token(PartitionKey="p", RowKey="r") else ""
        )


# rotations


async def log_rotations(keys: KeyLedger) -> None:
    """Ten versions, one an hour; by turns of a baseline, an event and a sweep; the odd ones are told."""
    hows = (Detection.BASELINE, Detection.EVENT, Detection.SWEEP)
    await keys.add_rotations(
        rotation(
            f"{number:032x}",
            how=hows[number % 3],
            detected_at=NOW + number * HOUR,
            fanned_out_at=NOW if number % 2 else None,
        )
        for number in range(10)
    )
    await keys.add_rotations([rotation(key=KeyId("kv-other", "etcd"), detected_at=NOW)])


@pytest.mark.parametrize("size", [1, 3, 20])
@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        pytest.param({}, [*range(10)], id="all"),
        pytest.param({"how": Detection.SWEEP}, [2, 5, 8], id="how"),
        pytest.param({"since": NOW + 7 * HOUR}, [7, 8, 9], id="since"),
        pytest.param({"untold": True}, [0, 2, 4, 6, 8], id="untold"),
        pytest.param({"untold": False}, [1, 3, 5, 7, 9], id="told"),
        pytest.param({"untold": True, "how": Detection.SWEEP, "since": NOW + HOUR}, [2, 8], id="all-of-it"),
    ],
)
async def test_rotations_are_picked_out_and_no_page_loses_or_doubles_one(
    keys: KeyLedger, asked: dict[str, Any], expected: list[int], size: int
) -> None:
    await log_rotations(keys)

    pages = await all_pages(lambda after: keys.rotations_page(KEY, top=size, after=after, **asked), size=size)

    assert [int(one.version.version, 16) for page in pages for one in page] == expected


async def test_the_rotations_of_all_keys_are_told_of(keys: KeyLedger) -> None:
    await log_rotations(keys)

    pages = await all_pages(lambda after: keys.rotations_page(None, top=4, after=after), size=4)

    assert len([one for page in pages for one in page]) == 11


@pytest.mark.parametrize(
    ("how", "expected"),
    [(Detection.EVENT, HOUR), (Detection.SWEEP, HOUR), (Detection.BASELINE, None)],
)
async def test_how_long_a_detection_took_is_known_of_what_was_new(how: Detection, expected: timedelta | None) -> None:
    assert rotation(how=how).latency == expected


async def test_a_detection_before_the_creation_by_another_clock_took_no_time() -> None:
    assert rotation(detected_at=NOW - 2 * HOUR).latency == timedelta()


# two at once


async def test_a_user_that_somebody_else_changes_at_the_same_moment_is_not_written_over(
    keys: KeyLedger, app: Product
) -> None:
    await keys.use(KEY, USER, in_effect=True, now=NOW)
    table = app.tables.get_table_client("keyusers")
    (before,) = [row async for row in table.list_entities()]
    await table.update_entity(dict(before) | {"principal": "p-2"})

    with pytest.raises(LostRace):
        await keys._write_user(KEY, USER, before)
