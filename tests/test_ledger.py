"""The tables: what is written once, what never overwrites, what never reaches the service."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from shared.clusters import ClusterId, Encryption
from shared.decisions import Change, Refusal, Waiting
from shared.errors import LostRace, Malformed, Unavailable
from shared.keyledger import KeyLedger
from shared.keyrecords import Detection, Rotation
from shared.keys import KeyId, KeyVersion
from shared.ledger import Ledger, subject_of_line
from shared.policy import Limits, Mode
from shared.reasons import Action, Fix, Reason
from shared.records import Activity, Claim, Enforcement, Matched, Record, Run, Settlement, Shard
from shared.tables import TABLES, TooLarge
from tests.builders import SUBSCRIPTION
from tests.product import NOW, Product, product

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from local.simulator import Azure
    from local.storage import Account

CLUSTER = ClusterId(SUBSCRIPTION, "rg-apps", "aks-1")
OPERATION_ID = "a2eade3a-0000-0000-0000-000000000001"
OPERATION = f"https://management.azure.com/subscriptions/s/operations/{OPERATION_ID}?api-version=2025-03-01&s=signed"
BEFORE, AFTER = Encryption(), Encryption(infrastructure=True)
CHANGE = Change(BEFORE, AFTER, etag="etag-1")
WAITING = Waiting(Reason.UPDATING, NOW, NOW + timedelta(minutes=1), "token-1", "message-1")


@pytest.fixture
async def app(azure: Azure, account: Account) -> AsyncIterator[Product]:  # noqa: ARG001  tokens come from there
    """The product, for its ledger."""
    async with product(account) as built:
        yield built


@pytest.fixture
def ledger(app: Product) -> Ledger:
    """The ledger."""
    return app.ledger


@pytest.fixture
def keys(app: Product) -> KeyLedger:
    """The ledger of keys."""
    return app.keys


async def never_in_flight(_cluster: ClusterId) -> bool:
    return False


def claim(intent: str = "intent-1") -> Claim:
    return Claim(intent, CHANGE, "event:1", "uid-1", NOW)


async def test_a_record_comes_back_as_it_was_written(ledger: Ledger) -> None:
    record = Record(
        CLUSTER,
        resource_id=str(CLUSTER),
        resource_uid="uid-1",
        location="westeurope",
        kubernetes="1.33.3",
        encryption=Encryption(True, "https://kv-kms-weu.vault.azure.net/keys/etcd", "id", "Private", True),
        target="default",
        mode=Mode.ENFORCE,
        action=Action.WAIT,
        reasons=(Reason.UPDATING, Reason.BUSY),
        detail="a detail",
        fix=Fix("do this", "az this"),
        change=CHANGE,
        decided_at=NOW,
        claim=claim(),
        waiting=WAITING,
        refusal=Refusal(Reason.BLOCKED, "ScopeLocked", "text", "etag-0", NOW, NOW),
        reader_refused=Refusal(Reason.NOT_PERMITTED, "AuthorizationFailed", "text", "etag-0", NOW, NOW),
        closed_at=NOW,
    )

    written = await ledger.write(record)

    assert await ledger.cluster(CLUSTER) == written
    assert written == replace(record, version=written.version)


async def test_what_many_rows_have_in_common_is_held_once(ledger: Ledger) -> None:
    for number in range(2):
        cluster = ClusterId(SUBSCRIPTION, "rg-apps", f"aks-{number}")
        await ledger.write(Record(cluster, location="westeurope", encryption=BEFORE, decided_at=NOW))

    first, second = (await ledger.clusters(SUBSCRIPTION)).values()

    assert first.location is second.location
    assert first.encryption is second.encryption
    assert first.cluster_id.subscription is second.cluster_id.subscription
    assert type(first.decided_at) is datetime, "not the SDK's, which keeps its text as well"


async def test_a_row_that_changed_meanwhile_is_never_written_over(ledger: Ledger) -> None:
    first = await ledger.write(Record(CLUSTER))
    await ledger.write(replace(first, location="westeurope"))

    with pytest.raises(LostRace):
        await ledger.write(replace(first, location="northeurope"))
    with pytest.raises(LostRace):
        await ledger.write(Record(CLUSTER, location="northeurope"))

    found = await ledger.cluster(CLUSTER)
    assert found is not None
    assert found.location == "westeurope"


async def test_one_of_many_claims_wins(ledger: Ledger) -> None:
    record = await ledger.write(Record(CLUSTER))

    async def try_to_claim(number: int) -> Record | None:
        try:
            return await ledger.claim(
                record, claim(f"intent-{number}"), WAITING, limits=Limits(), in_flight=never_in_flight
            )
        except LostRace:
            return None

    claimed = [one for one in await asyncio.gather(*map(try_to_claim, range(10))) if one is not None]

    assert len(claimed) == 1
    assert await ledger.cluster(CLUSTER) == claimed[0]


async def test_many_claims_at_once_never_take_more_slots_than_there_are(app: Product) -> None:
    limits = Limits.model_validate({"concurrentUpdates": 4, "concurrentUpdatesPerSubscription": 4})

    async def try_to_claim(number: int) -> bool:
        record = Record(ClusterId(SUBSCRIPTION, "rg-apps", f"aks-{number}"))
        taken = await app.ledger.claim(
            record, claim(f"intent-{number}"), WAITING, limits=limits, in_flight=never_in_flight
        )
        return taken is not None and taken.claim is not None

    taken = await asyncio.gather(*map(try_to_claim, range(12)))

    held = await app.slots_held()
    assert 1 <= sum(taken) <= 4
    assert len(held) == 2 * sum(taken)
    claims = [row["RowKey"] for row in await app.rows("clusters") if "claim" in row]
    assert len(claims) == sum(taken)


async def test_a_claim_that_finds_no_slot_leaves_the_row_as_it_was(app: Product) -> None:
    limits = Limits.model_validate({"concurrentUpdates": 1})
    await app.ledger.claim(Record(CLUSTER), claim(), WAITING, limits=limits, in_flight=never_in_flight)
    other = ClusterId(SUBSCRIPTION, "rg-apps", "aks-2")

    taken = await app.ledger.claim(Record(other), claim("two"), WAITING, limits=limits, in_flight=never_in_flight)

    assert taken is None
    assert await app.ledger.cluster(other) is None


async def test_settling_keeps_what_was_there_before_and_gives_the_slots_back(app: Product) -> None:
    claimed = await app.ledger.claim(Record(CLUSTER), claim(), WAITING, limits=Limits(), in_flight=never_in_flight)
    assert claimed is not None
    accepted = await app.ledger.accept(claimed, OPERATION, now=NOW)

    settled = await app.ledger.settle(accepted, Settlement.DONE, now=NOW)

    (line,) = await app.writes_noted()
    assert settled.claim is None
    assert (line["outcome"], line["operation"], line["askedBy"]) == ("done", OPERATION_ID, "event:1")
    assert '"infrastructure":false' in line["before"]
    assert await app.slots_held() == []


async def test_the_state_of_enforcement_comes_back_as_it_was_written_however_much_it_holds(ledger: Ledger) -> None:
    longest = ClusterId(SUBSCRIPTION, "g" * 90, "n" * 63)
    state = Enforcement(paused_since=NOW, paused_by="operator", why="a freeze", told=True)
    for number in range(100):
        failed = f"{number:032d}"
        state = state.after_settling(failed, longest, Settlement.FAILED, stop_after=3, now=NOW)

    written = await ledger.change_enforcement(lambda _none: state)

    assert await ledger.enforcement() == written == replace(state, version=written.version)
    assert len(written.failures) == 100


async def test_a_rotation_is_logged_once_and_keeps_its_first_detection(keys: KeyLedger) -> None:
    key = KeyId("kv-kms-weu", "etcd")
    rotation = Rotation(key, KeyVersion("0" * 32, created=NOW), Detection.SWEEP, NOW)

    await keys.add_rotations([rotation])
    await keys.add_rotations([replace(rotation, how=Detection.EVENT, event_id="late")])

    assert (await keys.key(key)).rotations == (rotation,)


async def test_pages_follow_each_other_to_the_end(ledger: Ledger) -> None:
    for number in range(7):
        await ledger.write(Record(ClusterId(SUBSCRIPTION, "rg-apps", f"aks-{number}")))

    seen, after = [], None
    while True:
        page = await ledger.clusters_page(SUBSCRIPTION, top=3, after=after)
        seen += [record.cluster_id.name for record in page.items]
        after = page.continuation
        if after is None:
            break

    assert seen == [f"aks-{number}" for number in range(7)]


@pytest.mark.parametrize("token", ["nonsense", "e30=", "bnVsbA==", "é"])
async def test_a_token_that_is_none_of_ours_is_malformed(ledger: Ledger, token: str) -> None:
    with pytest.raises(Malformed):
        await ledger.clusters_page(None, top=3, after=token)


async def test_what_table_storage_could_not_hold_never_reaches_it(ledger: Ledger) -> None:
    with pytest.raises(TooLarge):
        await ledger.note(Activity(CLUSTER, "1", NOW, "write", {"text": "x" * 33_000}))


async def test_one_line_of_activity_written_twice_is_one_line(app: Product, ledger: Ledger) -> None:
    await ledger.note(Activity(CLUSTER, "1", NOW, "write", {"before": "x"}))
    await ledger.note(Activity(CLUSTER, "1", NOW, "write", {"outcome": "done"}))

    (line,) = await app.rows("activity")
    (copy,) = (await ledger.activity_of_day(NOW.date(), kind=None, top=10, after="")).items
    assert (line["before"], line["outcome"]) == ("x", "done")
    assert (copy["before"], copy["outcome"]) == ("x", "done")


# what happened

KEY = KeyId("kv-kms", "etcd")
MIDNIGHT = NOW.replace(hour=0)
DAY = timedelta(days=1)


async def happen(ledger: Ledger) -> list[str]:
    """Sixty lines of one day about clusters, a key and enforcement, some at the same moment; and some of other days.

    Returns the ids of the day's lines in the order in which they are to be listed.
    """
    subjects = (CLUSTER, KEY, ClusterId(SUBSCRIPTION, "rg-apps", "aks-2"), "enforcement")
    lines = [
        Activity(
            subjects[n % 4], f"{n:02d}", MIDNIGHT + (n // 2) * timedelta(minutes=5), KINDS[n % 3], {"askedBy": "a"}
        )
        for n in range(60)
    ]
    around = [
        Activity(CLUSTER, "before", MIDNIGHT - timedelta(microseconds=1), "decision", {}),
        Activity(CLUSTER, "after", MIDNIGHT + DAY, "decision", {}),
        Activity(CLUSTER, "last", MIDNIGHT + DAY - timedelta(microseconds=1), "decision", {}),
    ]
    await asyncio.gather(*map(ledger.note, [*lines, *around]))
    partitions = {CLUSTER: 0, subjects[2]: 1, "enforcement": 2, KEY: 3}
    lines.sort(key=lambda line: (-line.at.timestamp(), partitions[line.subject]))
    return ["last", *(line.id for line in lines)]


KINDS = ("decision", "write", "found")


async def day_s_lines(ledger: Ledger, *, size: int, kind: str | None = None) -> list[str]:
    """The ids of a day's lines, page by page."""
    found: list[str] = []
    after: str | None = ""
    while after is not None:
        page = await ledger.activity_of_day(NOW.date(), kind=kind, top=size, after=after)
        assert len(page.items) <= size
        found += [row["RowKey"].rpartition("|")[2] for row in page.items]
        after = page.continuation
    return found


@pytest.mark.parametrize("size", [1, 7, 60, 61, 62, 1000])
async def test_a_day_s_lines_are_listed_newest_first_and_no_page_loses_or_doubles_one(
    ledger: Ledger, size: int
) -> None:
    expected = await happen(ledger)

    assert await day_s_lines(ledger, size=size) == expected


@pytest.mark.parametrize("size", [3, 100])
async def test_a_day_s_lines_of_one_kind_are_picked_out(ledger: Ledger, size: int) -> None:
    written = {f"{n:02d}" for n in range(60) if KINDS[n % 3] == "write"}
    expected = [line for line in await happen(ledger) if line in written]

    assert await day_s_lines(ledger, size=size, kind="write") == expected
    assert await day_s_lines(ledger, size=size, kind="nothing") == []


async def test_what_happens_between_two_pages_neither_moves_nor_repeats_a_line(ledger: Ledger) -> None:
    expected = await happen(ledger)
    first = await ledger.activity_of_day(NOW.date(), kind=None, top=20, after="")
    await ledger.note(Activity(CLUSTER, "late", MIDNIGHT + DAY - timedelta(microseconds=1), "decision", {}))
    await ledger.note(Activity(KEY, "again", MIDNIGHT + DAY - timedelta(microseconds=1), "decision", {}))

    second = await ledger.activity_of_day(NOW.date(), kind=None, top=100, after=first.continuation or "")

    seen = [row["RowKey"].rpartition("|")[2] for page in (first, second) for row in page.items]
    assert seen == expected


async def test_a_day_s_lines_lie_in_many_buckets_and_say_what_they_are_about(app: Product, ledger: Ledger) -> None:
    await happen(ledger)
    table = app.tables.get_table_client("activity")
    copies = [row async for row in table.list_entities() if row["PartitionKey"].startswith(f"day|{NOW.date()}|")]

    assert len({row["PartitionKey"] for row in copies}) > 10
    assert {subject_of_line(row) for row in copies} == {
        CLUSTER,
        ClusterId(SUBSCRIPTION, "rg-apps", "aks-2"),
        KEY,
        None,
    }


async def test_two_lines_of_one_id_at_one_moment_are_two(ledger: Ledger) -> None:
    for subject in (CLUSTER, KEY):
        await ledger.note(Activity(subject, "1", NOW, "decision", {}))

    assert await day_s_lines(ledger, size=10) == ["1", "1"]


async def test_what_happened_to_one_cluster_can_be_of_one_day_and_one_kind(ledger: Ledger) -> None:
    await happen(ledger)

    async def listed(**asked: Any) -> list[str]:
        page = await ledger.activity_page(CLUSTER, top=100, after=None, **asked)
        assert page.continuation is None
        return [row["RowKey"].rpartition("|")[2] for row in page.items]

    own = [f"{n:02d}" for n in range(56, -1, -4)]
    assert await listed() == ["after", "last", *own, "before"]
    assert await listed(day=NOW.date()) == ["last", *own]
    assert await listed(day=NOW.date() + DAY) == ["after"]
    assert await listed(day=NOW.date() - DAY) == ["before"]
    assert await listed(day=NOW.date(), kind="write") == [line for line in own if int(line) % 3 == 1]


async def test_pages_of_what_happened_to_one_cluster_follow_each_other(ledger: Ledger) -> None:
    await happen(ledger)
    seen, after = [], None
    while True:
        page = await ledger.activity_page(CLUSTER, top=4, after=after, day=NOW.date(), kind="decision")
        seen += [row["RowKey"].rpartition("|")[2] for row in page.items]
        after = page.continuation
        if after is None:
            break

    assert seen == ["last", *(f"{n:02d}" for n in range(56, -1, -4) if n % 3 == 0)]


async def test_storage_that_is_away_is_unavailable(account: Account, azure: Azure) -> None:  # noqa: ARG001  tokens
    gone = replace(account, table_uri="https://127.0.0.1:9/gone")

    async with product(gone) as app:
        with pytest.raises(Unavailable):
            await asyncio.wait_for(app.ledger.cluster(CLUSTER), timeout=60)


def test_every_table_is_made_by_the_deployment() -> None:
    from local.stage import TABLES as MADE

    assert set(MADE) == set(TABLES)


# runs


async def test_what_exemptions_matched_comes_back_with_its_shard(ledger: Ledger) -> None:
    shard = Shard(SUBSCRIPTION, NOW, 3, 0, {}, exempted={"tag": Matched(2, (CLUSTER,)), "0123456789ab": Matched(0)})

    await ledger.start_run(Run("sweep-1", "timer", NOW, None, shards=1))
    await ledger.finish_shard("sweep-1", shard)

    found = await ledger.run("sweep-1")
    assert found is not None
    assert found[1] == (shard,)


async def test_as_many_exemptions_as_a_policy_may_have_fit_a_row(ledger: Ledger) -> None:
    """Every one is counted; clusters are named as far as there is room."""
    clusters = tuple(ClusterId(SUBSCRIPTION, "g" * 90, f"{number:063d}") for number in range(10))
    exempted = {f"{number:012x}": Matched(5000, clusters) for number in range(1000)}
    shard = Shard(SUBSCRIPTION, NOW, 5000, 0, {}, exempted=exempted)

    await ledger.start_run(Run("sweep-1", "timer", NOW, None, shards=1))
    await ledger.finish_shard("sweep-1", shard)

    found = await ledger.run("sweep-1")
    assert found is not None
    (read,) = found[1]
    assert {matched.count for matched in read.exempted.values()} == {5000}
    assert len(read.exempted) == 1000
    named = [matched.clusters for matched in read.exempted.values() if matched.clusters]
    assert named
    assert set(named) == {clusters}
