"""Random histories of a key and its clusters: no rotation missing, none twice, and only what nobody needs may go.

Rotations, versions that end or are disabled, events that are lost, late, repeated and out of order, sweeps, processes
that die between two writes, clusters created, deleted and created again, updated and moved by somebody, rewritten.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.rotation import How, Why
from tests.builders import PROPERTY
from tests.histories import HOUR, MINUTE, NAMED, USED, World, world

if TYPE_CHECKING:
    from local.certificates import Authority
    from local.simulator import Azure, Simulator
    from local.storage import Account, Storage

Step = tuple[Any, ...]

NUMBER, BACK = st.integers(0, 2), st.integers(0, 3)
FAILS = st.sampled_from([False, False, False, True])
STEPS: st.SearchStrategy[Step] = st.one_of(
    st.tuples(st.just("rotate"), st.booleans()),
    st.tuples(st.just("rotate-with-care"), NUMBER),
    st.tuples(st.just("start-late"), st.integers(1, 20), st.booleans()),
    st.tuples(st.just("rotate-named"), st.booleans()),
    st.tuples(st.just("deliver"), st.integers(0, 9), st.booleans()),
    st.tuples(st.just("sweep")),
    st.tuples(st.just("die"), st.integers(0, 9)),
    st.tuples(st.just("wait"), st.sampled_from([0.02, 0.2, 3, 7, 30])),
    st.tuples(st.just("create"), NUMBER, st.sampled_from(["legacy", "customer-managed", "platform-managed"])),
    st.tuples(st.just("delete"), NUMBER),
    st.tuples(st.just("update"), NUMBER, BACK, FAILS),
    st.tuples(st.just("move"), NUMBER, st.sampled_from(["customer-managed", "platform-managed", "none"]), FAILS),
    st.tuples(st.just("rewrite"), NUMBER),
    st.tuples(st.just("write-secret"), NUMBER),
    st.tuples(st.just("enable"), BACK, st.booleans()),
    st.tuples(st.just("end"), BACK, st.integers(0, 20)),
    st.tuples(st.just("switch"), NUMBER),
    st.tuples(st.just("mend")),
    st.tuples(st.just("read-logs")),
    st.tuples(st.just("retire")),
)
FEW, SHORT = 10, 12
MANY, LONG = 150, 26
HISTORY = settings(PROPERTY, suppress_health_check=list(HealthCheck))


async def play(scene: World, step: Step) -> None:
    """Let one thing happen."""
    match step:
        case ("rotate", lost):
            scene.rotate(scene.used, lost=lost)
        case ("rotate-named", lost):
            scene.rotate(scene.named, lost=lost)
        case ("rotate-with-care", number):
            await rotate_with_care(scene, number)
        case ("deliver", index, keep):
            await scene.deliver(index, keep=keep)
        case ("update", number, back, fails):
            await scene.update(number, back, fails=fails)
        case ("die", writes):
            scene.transport.writes_left = writes
        case ("wait", hours):
            scene.azure.clock.advance(hours * HOUR)
            await scene.work()
        case _:
            await _play_more(scene, step)


async def _play_more(scene: World, step: Step) -> None:
    match step:
        case ("create", number, kind):
            scene.create(number, kind)
        case ("move", number, kind, fails):
            await scene.move(number, kind, fails=fails)
        case ("enable", back, enabled):
            scene.enable(back, enabled=enabled)
        case ("end", back, hours):
            scene.end(back, hours)
        case ("mend",):
            scene.mend()
        case ("start-late", hours, lost):
            scene.start_late(hours, lost=lost)
        case _:
            await _play_the_rest(scene, step)


async def _play_the_rest(scene: World, step: Step) -> None:
    match step:
        case ("delete", number):
            scene.delete(number)
        case ("rewrite", number):
            await scene.rewrite(number)
        case ("write-secret", number):
            scene.write_secret(number)
        case ("switch", number):
            scene.switch(number)
        case _:
            await {"sweep": scene.sweep, "retire": scene.retire, "read-logs": scene.read_logs}[step[0]]()


async def rotate_with_care(scene: World, number: int) -> None:
    """Somebody rotates, updates a legacy cluster, rewrites its secrets and says so: what one is told to do."""
    await scene.rewrite(number)
    scene.rotate(scene.used, lost=True)
    await scene.update(number, 0, fails=False)
    scene.azure.clock.advance(6 * MINUTE)
    await scene.sweep()
    await scene.rewrite(number)


async def play_all(scene: World, steps: list[Step]) -> None:
    """Play a history to its end; then nothing is missing, nothing is there twice, and nobody lost a secret."""
    for step in steps:
        await play(scene, step)
    scene.transport.writes_left = None
    scene.azure.clock.advance(6 * MINUTE)
    await scene.sweep()

    await assert_every_version_is_logged(scene)
    await assert_every_user_has_its_adoptions(scene)
    await assert_every_cluster_is_remembered(scene)
    await scene.retire()
    await assert_nothing_more_is_written(scene)
    assert_all_can_be_read_after_two_more_days(scene)


async def assert_every_version_is_logged(scene: World) -> None:
    named = await scene.app.keys.key(NAMED)
    used = await scene.app.keys.key(USED)

    assert {one.version.version for one in named.rotations} == set(scene.named.versions)
    if any(not user.gone for user in await scene.app.keys.users(USED)):
        assert {one.version.version for one in used.rotations} == set(scene.used.versions)
    assert all(one.fanned_out_at for one in (*named.rotations, *used.rotations))


async def assert_every_user_has_its_adoptions(scene: World) -> None:
    adoptions = await scene.app.keys.adoptions(USED)
    for user in await scene.app.keys.users(USED):
        mine = [
            one.version
            for one in adoptions
            if (one.cluster, one.resource_uid) == (user.cluster, user.resource_uid) and one.how is How.EXPECTED
        ]
        assert len(mine) == len(set(mine))
        if user.ended_at is None and not user.is_legacy:
            owed = scene.owed.get((user.cluster, user.resource_uid), set())
            taken_up = {
                one.version for one in adoptions if (one.cluster, one.resource_uid) == (user.cluster, user.resource_uid)
            }
            assert owed <= taken_up, (user, owed - taken_up)


async def assert_every_cluster_is_remembered(scene: World) -> None:
    users = {(one.cluster.name, one.resource_uid): one for one in await scene.app.keys.users(USED)}
    there = {(one.name, str(one.document["properties"]["resourceUID"])): one for one in scene.clusters}

    for name, cluster in there.items():
        uses = cluster.encryption in {"legacy", "customer-managed"}
        assert not uses or (name in users and users[name].ended_at is None), (name, cluster.encryption)
    for name, user in users.items():
        assert user.gone == (name not in there), user


async def assert_nothing_more_is_written(scene: World) -> None:
    await scene.sweep()
    before = await rows(scene)
    await scene.sweep()

    assert await rows(scene) == before


async def rows(scene: World) -> list[dict[str, Any]]:
    passing = {"lastRun", "lookedAt"}
    found = [row for table in ("clusters", "keyusers", "rotations", "activity") for row in await scene.app.rows(table)]
    return [{name: value for name, value in row.items() if name not in passing} for row in found]


def assert_all_can_be_read_after_two_more_days(scene: World) -> None:
    """Whatever somebody else broke is mended; what is still unreadable then was retired too early, or is stuck."""
    scene.mend()
    scene.azure.clock.advance(48 * HOUR)

    for cluster in scene.clusters:
        stuck = scene.azure.aks.secrets._of(cluster).is_stuck
        assert stuck or scene.azure.aks.readable(cluster), cluster.name


@settings(HISTORY, max_examples=FEW)
@given(steps=st.lists(STEPS, min_size=4, max_size=SHORT))
def test_whatever_happens_nothing_is_missed_or_doubled_and_who_retires_candidates_loses_no_secret(
    simulator: Simulator, storage: Storage, authority: Authority, steps: list[Step]
) -> None:
    asyncio.run(history(simulator, storage, authority, steps))


@pytest.mark.slow
@settings(HISTORY, max_examples=MANY)
@given(steps=st.lists(STEPS, min_size=LONG // 2, max_size=LONG))
def test_the_same_holds_for_many_long_histories(
    simulator: Simulator, storage: Storage, authority: Authority, steps: list[Step]
) -> None:
    asyncio.run(history(simulator, storage, authority, steps))


async def history(simulator: Simulator, storage: Storage, authority: Authority, steps: list[Step]) -> None:
    from local.simulator import Azure
    from local.stage import provide

    simulator.azure = Azure()
    account = storage.account()
    provide(account, authority)
    async with world(simulator.azure, account) as scene:
        await play_all(scene, steps)
    assert not simulator.azure.journal.unknown


LEGACY, CUSTOMER = ("create", 0, "legacy"), ("create", 1, "customer-managed")
ROTATED: list[Step] = [LEGACY, ("sweep",), ("rotate-with-care", 0)]
ADOPTED: list[Step] = [("create", 0, "customer-managed"), ("sweep",), ("rotate", True), ("wait", 7)]


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param([*ROTATED, ("rotate", True), ("update", 0, 0, False), ("retire",)], id="an-update-under-way"),
        pytest.param(
            [*ROTATED, ("rotate", True), ("update", 0, 0, True), ("wait", 0.2), ("retire",)], id="an-update-that-failed"
        ),
        pytest.param(
            [
                *(*ROTATED, ("rotate", True), ("update", 0, 0, True), ("wait", 0.2), ("sweep",)),
                *(("update", 0, 1, False), ("retire",)),
            ],
            id="an-update-that-failed-and-was-taken-back",
        ),
        pytest.param(
            [
                *(*ROTATED, ("rotate", True), ("update", 0, 0, False), ("wait", 0.2), ("rewrite", 0)),
                *(("rotate", True), ("update", 0, 0, False), ("wait", 0.2), ("retire",)),
            ],
            id="an-update-that-nobody-saw",
        ),
        pytest.param(
            [*ROTATED, ("move", 0, "none", False), ("wait", 0.2), ("sweep",), ("rewrite", 0), ("retire",)],
            id="turned-off",
        ),
        pytest.param(
            [*ROTATED, ("move", 0, "platform-managed", False), ("sweep",), ("rewrite", 0), ("retire",)],
            id="a-move-under-way",
        ),
        pytest.param(
            [
                *(*ROTATED, ("move", 0, "platform-managed", True), ("wait", 0.2), ("sweep",), ("rewrite", 0)),
                ("retire",),
            ],
            id="a-move-that-failed",
        ),
        pytest.param(
            [
                *(*ROTATED, ("move", 0, "customer-managed", True), ("wait", 30), ("sweep",), ("rewrite", 0)),
                *(("read-logs",), ("retire",)),
            ],
            id="a-move-to-the-same-key-that-failed",
        ),
        pytest.param(
            [*ROTATED, ("delete", 0), LEGACY, ("wait", 30), ("sweep",), ("rewrite", 0), ("retire",)],
            id="created-anew",
        ),
    ],
)
async def test_a_legacy_version_in_a_slot_is_no_candidate(azure: Azure, account: Account, steps: list[Step]) -> None:
    async with world(azure, account) as scene:
        await play_all(scene, steps)


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param(
            [
                *(("create", 0, "customer-managed"), ("sweep",), ("rotate", True), ("wait", 5.95), ("wait", 0.1)),
                *(("switch", 0), ("wait", 30), ("read-logs",), ("retire",)),
            ],
            id="stopped-while-it-re-encrypts",
        ),
        pytest.param(
            [
                *(("create", 0, "customer-managed"), ("sweep",), ("rotate", True), ("wait", 5.95), ("wait", 0.1)),
                *(("enable", 1, False), ("wait", 40), ("read-logs",), ("retire",), ("enable", 1, True)),
                *(("wait", 1), ("read-logs",), ("retire",)),
            ],
            id="disabled-while-it-re-encrypts",
        ),
        pytest.param(
            [
                *(("create", 1, "customer-managed"), ("sweep",), ("create", 0, "platform-managed"), ("sweep",)),
                *(("wait", 5.5), ("move", 0, "customer-managed", False), ("wait", 0.2), ("rotate", True)),
                *(("wait", 0.5), ("retire",), ("read-logs",), ("retire",)),
            ],
            id="first-seen-after-the-rotation",
        ),
        pytest.param(
            [
                *(("sweep",), ("create", 1, "customer-managed"), ("sweep",), ("rotate", True)),
                *(("create", 0, "customer-managed"), ("rotate", True), ("retire",)),
            ],
            id="first-seen-with-versions-that-nobody-announced",
        ),
    ],
)
async def test_a_version_that_is_not_left_yet_is_no_candidate(
    azure: Azure, account: Account, steps: list[Step]
) -> None:
    async with world(azure, account) as scene:
        await play_all(scene, steps)


async def test_a_rewrite_after_the_second_rotation_makes_the_oldest_version_a_candidate(
    azure: Azure, account: Account
) -> None:
    async with world(azure, account) as scene:
        first = scene.used.current.version
        await play_all(scene, [*ROTATED, ("rotate-with-care", 0)])

        assert scene.retired == {first}


async def test_a_day_in_the_logs_makes_the_version_before_a_candidate(azure: Azure, account: Account) -> None:
    async with world(azure, account) as scene:
        first = scene.used.current.version
        await play_all(scene, [*ADOPTED, ("wait", 31), ("read-logs",)])

        assert scene.retired == {first}


async def test_a_confirmed_rewrite_after_a_move_makes_every_version_that_was_left_a_candidate(
    azure: Azure, account: Account
) -> None:
    async with world(azure, account) as scene:
        versions = await _left(scene)

        assert scene.retired == versions


async def _left(scene: World) -> set[str]:
    moved: list[Step] = [("move", 0, "platform-managed", False), ("wait", 0.2), ("sweep",), ("rewrite", 0)]
    await play_all(scene, [*ROTATED, *moved])
    return set(scene.used.versions)


async def test_what_a_slower_look_wrote_over_a_newer_one_is_mended_by_the_sweep(azure: Azure, account: Account) -> None:
    async with world(azure, account) as scene:
        await play_all(scene, [LEGACY, ("sweep",)])
        (stale,) = await scene.app.keys.users(USED)
        for step in [("rotate-with-care", 0), ("sweep",)]:
            await play(scene, step)
        await scene.app.keys.use(USED, stale, in_effect=True, now=scene.now)

        await scene.sweep()

        (user,) = await scene.app.keys.users(USED)
        assert user.version == scene.used.current.version
        await scene.check_picture()
        await assert_nothing_more_is_written(scene)


async def test_a_cluster_created_anew_begins_anew_and_its_past_needs_are_gone(azure: Azure, account: Account) -> None:
    async with world(azure, account) as scene:
        await play_all(scene, ROTATED)
        old = scene.uid(0)
        before = {user.resource_uid: user for user in await scene.app.keys.users(USED)}
        took_up = [one for one in await scene.app.keys.adoptions(USED) if one.resource_uid == old]

        await play_all(scene, [("delete", 0), LEGACY])

        users = {user.resource_uid: user for user in await scene.app.keys.users(USED)}
        needs = [need for needs in (await scene.needs()).values() for need in needs]
        assert users.keys() == {old, scene.uid(0)}
        assert replace(users[old], ended_at=None, gone=False) == before[old]
        assert users[old].gone
        assert {need.why for need in needs if need.resource_uid == old} == {Why.GONE}
        assert [one for one in await scene.app.keys.adoptions(USED) if one.resource_uid == old] == took_up
        assert {need.why for need in needs if need.resource_uid == scene.uid(0)} == {Why.CURRENT, Why.HISTORY_UNKNOWN}
        assert users[scene.uid(0)].rewritten_at is None
        await assert_nothing_more_is_written(scene)


@pytest.mark.parametrize("writes", range(6))
async def test_a_process_that_dies_as_a_cluster_goes_back_hides_nothing(
    azure: Azure, account: Account, writes: int
) -> None:
    steps: list[Step] = [
        *(*ROTATED, ("die", writes), ("update", 0, 1, False), ("rewrite", 0)),
        *(("rotate", True), ("update", 0, 0, False), ("wait", 0.2), ("retire",)),
    ]
    async with world(azure, account) as scene:
        await play_all(scene, steps)


@pytest.mark.parametrize("meanwhile", [[], [("wait", 0.2), ("sweep",)]], ids=["leaves", "has-left"])
async def test_a_key_that_a_cluster_leaves_is_still_looked_at(
    azure: Azure, account: Account, meanwhile: list[Step]
) -> None:
    async with world(azure, account) as scene:
        await play_all(scene, [*ROTATED, ("move", 0, "platform-managed", False), *meanwhile, ("rotate", True)])

        assert {one.version.version for one in (await scene.app.keys.key(USED)).rotations} == set(scene.used.versions)
