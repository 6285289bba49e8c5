"""Legacy clusters through one rotation after the other: named only what may be named, and every secret readable."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from local.simulator.aks.run_command import Spoiling
from shared.decisions import Change, Facts, decide
from shared.events import RewriteOrder, ShardRequest
from shared.policy import Assignment, LegacyRotation, Mode
from shared.reasons import Action, Reason
from shared.records import Record
from shared.reencryption import MOST_FAILURES, Reencryption, Rewrite
from shared.rotation import Standing, Succession, Why, picture
from tests.builders import KEY as BUILT_KEY
from tests.builders import KEY_URL, LEGACY, LEGACY_URL, OTHER_VERSION, RESOURCE_UID, VERSION, assignment, cluster
from tests.builders import NOW as MOMENT
from tests.legacy import KEY, MINUTE, OPERATION, RUN_COMMAND, Scene, policy, set_scene
from tests.product import product

if TYPE_CHECKING:
    from local.simulator import Azure
    from local.storage import Account

REPORT, UPDATE, REENCRYPT = LegacyRotation

# the decision

ANY = (False, True)
NOT_DUE_NOT_TOLD = (Action.REPORT, (Reason.ENCRYPTED_OTHERWISE,))
DUE = (Action.REPORT, (Reason.ROTATION_DUE,))
ROTATES = (Action.WRITE, (Reason.TO_ROTATE,))
SHUT = (Action.REPORT, (Reason.NOT_REENCRYPTED, Reason.ROTATION_DUE))
REWRITES = (Action.REENCRYPT, (Reason.NOT_REENCRYPTED,))
REWRITES_FIRST = (Action.REENCRYPT, (Reason.NOT_REENCRYPTED, Reason.ROTATION_DUE))

type Said = tuple[Action, tuple[Reason, ...]]

TABLE: list[tuple[LegacyRotation, tuple[bool, ...], bool, tuple[bool, ...], Said]] = [
    # rotation, run command, due, rewritten
    (REPORT, ANY, True, ANY, DUE),
    (REPORT, ANY, False, ANY, NOT_DUE_NOT_TOLD),
    (UPDATE, ANY, True, (True,), ROTATES),
    (UPDATE, ANY, True, (False,), SHUT),
    (UPDATE, ANY, False, ANY, NOT_DUE_NOT_TOLD),
    (REENCRYPT, ANY, True, (True,), ROTATES),
    (REENCRYPT, (False,), True, (False,), SHUT),
    (REENCRYPT, (True,), True, (False,), REWRITES_FIRST),
    (REENCRYPT, ANY, False, (True,), NOT_DUE_NOT_TOLD),
    (REENCRYPT, (False,), False, (False,), NOT_DUE_NOT_TOLD),
    (REENCRYPT, (True,), False, (False,), REWRITES),
]
CASES = [
    (rotation, on, due, rewritten, said)
    for rotation, ons, due, rewrittens, said in TABLE
    for on in ons
    for rewritten in rewrittens
]


def assigned(rotation: LegacyRotation, *, on: bool, mode: Mode = Mode.ENFORCE) -> Assignment:
    return replace(assignment(mode=mode), legacy_rotation=rotation, run_command=on)


def facts(*, due: bool = True, rewritten: bool = False, **more: Any) -> Facts:
    succession = Succession(OTHER_VERSION if due else None, rewritten=rewritten)
    return Facts(cluster(security=LEGACY), succession=succession, **more)


def test_the_table_has_every_case_once() -> None:
    assert len({case[:4] for case in CASES}) == len(CASES) == len(LegacyRotation) * 2**3


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize(("rotation", "on", "due", "rewritten", "said"), CASES)
def test_what_is_decided_about_a_legacy_cluster(
    rotation: LegacyRotation, on: bool, due: bool, rewritten: bool, said: Said, mode: Mode
) -> None:
    decision = decide(facts(due=due, rewritten=rewritten), assigned(rotation, on=on, mode=mode), MOMENT)

    assert (decision.action, decision.reasons) == said
    if decision.action is Action.WRITE:
        assert isinstance(decision.change, Change)
        assert decision.change.after == replace(decision.change.before, key_url=f"{KEY_URL}/{OTHER_VERSION}")
        assert decision.change.before.key_url == LEGACY_URL
    if decision.action is Action.REENCRYPT:
        assert decision.change == Reencryption(BUILT_KEY, VERSION)


def rewrite(**said: Any) -> Rewrite:
    return replace(Rewrite(BUILT_KEY, VERSION, RESOURCE_UID), **said)


@pytest.mark.parametrize(
    ("known", "step"),
    [
        pytest.param(None, (0, 0), id="count-first"),
        pytest.param(rewrite(), (0, 0), id="not-counted"),
        pytest.param(rewrite(chunks=3), (1, 3), id="counted"),
        pytest.param(rewrite(chunks=3, done=2), (3, 3), id="the-last"),
        pytest.param(
            rewrite(chunks=3, done=1, failures=1, failed_at=MOMENT - timedelta(minutes=10)), (2, 3), id="rested"
        ),
    ],
)
def test_the_next_step_of_a_rewrite_comes_from_how_far_it_is(known: Rewrite | None, step: tuple[int, int]) -> None:
    decision = decide(facts(rewrite=known), assigned(REENCRYPT, on=True), MOMENT)

    assert isinstance(decision.change, Reencryption)
    assert (decision.change.chunk, decision.change.chunks) == step


def test_a_rewrite_that_failed_rests_and_then_is_reported() -> None:
    failed = rewrite(chunks=3, done=1, failures=1, failed_at=MOMENT - timedelta(minutes=9))
    rests = decide(facts(rewrite=failed), assigned(REENCRYPT, on=True), MOMENT)
    often = replace(failed, failures=MOST_FAILURES)
    ended = decide(facts(rewrite=often), assigned(REENCRYPT, on=True), MOMENT + timedelta(days=30))

    assert (rests.action, rests.reason) == (Action.WAIT, Reason.REENCRYPTION_FAILED)
    assert rests.look_again == MOMENT + timedelta(minutes=1)
    assert (ended.action, ended.reason) == (Action.REPORT, Reason.REENCRYPTION_FAILED)


@pytest.mark.parametrize("reason", [Reason.PAUSED, Reason.WINDOW_CLOSED])
def test_a_rewrite_is_held_back_like_a_write(reason: Reason) -> None:
    opens = MOMENT + timedelta(hours=1) if reason is Reason.WINDOW_CLOSED else None
    on = replace(assigned(REENCRYPT, on=True), window_opens=opens)

    decision = decide(facts(paused=reason is Reason.PAUSED), on, MOMENT)

    assert (decision.action, decision.reason) == (Action.WAIT, reason)
    assert isinstance(decision.change, Reencryption)


# through the rooms


@pytest.fixture
async def opened() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


async def scene(azure: Azure, account: Account, opened: AsyncExitStack, rotation: str, **more: Any) -> Scene:
    return await set_scene(
        await opened.enter_async_context(product(account, policy(rotation), run_command=True)), azure, **more
    )


async def test_a_second_rotation_waits_until_an_operator_confirms_the_rewrite(
    azure: Azure, account: Account, opened: AsyncExitStack
) -> None:
    on = await scene(azure, account, opened, "update")
    await on.confirm()
    second = await on.rotated()
    await on.look_on()
    third = await on.rotated()

    shut = await on.settle()

    assert (on.named, on.writes()) == (second, 1)
    assert (shut.action, shut.reasons) == (Action.REPORT, (Reason.NOT_REENCRYPTED, Reason.ROTATION_DUE))
    on.rewrite_by_hand()
    await on.confirm()
    await on.settle()
    assert (on.named, on.writes(), on.readable()) == (third, 2, True)
    await on.settle()
    assert on.writes() == 2


async def test_a_rewrite_that_was_confirmed_before_the_update_was_in_effect_does_not_count(
    azure: Azure, account: Account, opened: AsyncExitStack
) -> None:
    on = await scene(azure, account, opened, "update")
    await on.confirm()
    second = await on.rotated()
    await on.look()
    await on.confirm()
    on.later(OPERATION)
    await on.settle()
    await on.rotated()

    await on.settle()

    assert (on.named, on.writes()) == (second, 1)


async def test_two_rotations_in_quick_succession_name_the_newest_alone(
    azure: Azure, account: Account, opened: AsyncExitStack
) -> None:
    on = await scene(azure, account, opened, "update-and-reencrypt")
    await on.rotated()
    third = await on.rotated()

    await on.settle()

    assert (on.named, on.writes(), on.readable()) == (third, 1, True)
    assert (await on.user()).rewritten_by == "run-command"


async def test_a_rotation_during_an_update_is_named_after_the_rewrite(
    azure: Azure, account: Account, opened: AsyncExitStack
) -> None:
    on = await scene(azure, account, opened, "update-and-reencrypt")
    await on.settle()
    second = await on.rotated()
    await on.look()
    third = await on.rotated()
    on.later(OPERATION)
    claimed = await on.look()
    assert (on.named, claimed.reasons[0]) == (second, Reason.REENCRYPTING)

    await on.settle()

    assert (on.named, on.writes(), on.readable()) == (third, 2, True)


async def test_a_crash_between_the_update_and_the_rewrite_loses_neither(
    azure: Azure, account: Account, opened: AsyncExitStack
) -> None:
    on = await scene(azure, account, opened, "update-and-reencrypt")
    await on.settle()
    second = await on.rotated()
    azure.faults.drop_next("PUT", "managedClusters", accepted=True)
    await on.look()
    third = await on.rotated()

    await on.settle()

    assert (on.named, on.writes(), on.readable()) == (third, 2, True)
    before = [row["after"] for row in await on.app.writes_noted()]
    assert sorted(version in "".join(before) for version in (second, third)) == [True, True]


@pytest.mark.parametrize("how", [Spoiling.HANG, Spoiling.HALF, Spoiling.CUT])
async def test_a_rewrite_that_is_never_confirmed_never_lets_another_version_be_named(
    azure: Azure, account: Account, opened: AsyncExitStack, how: Spoiling
) -> None:
    on = await scene(azure, account, opened, "update-and-reencrypt")
    await on.settle()
    second = await on.rotated()
    await on.look()
    on.later(OPERATION)
    azure.aks.commands.spoil_next(*[how] * 20)
    await on.rotated()

    for _ in range(8):
        on.later(timedelta(minutes=61))
        stays = await on.look()

    assert (on.named, on.writes(), on.readable()) == (second, 1, True)
    assert (stays.action, stays.reasons[0]) == (Action.REPORT, Reason.REENCRYPTION_FAILED)
    user = await on.user()
    assert user.rewritten_at is not None
    (effective,) = [one.effective_at for one in await on.app.keys.adoptions(KEY) if one.version == second]
    assert effective is not None
    assert user.rewritten_at < effective


async def test_a_user_of_a_key_that_the_ledger_lost_is_mended_and_its_rewrite_counts(
    azure: Azure, account: Account, opened: AsyncExitStack
) -> None:
    on = await scene(azure, account, opened, "update-and-reencrypt")
    for table, lost in (("keyusers", ""), ("rotations", "a|")):
        for row in await on.app.rows(table):
            if row["RowKey"].startswith(lost):
                await on.app.tables.get_table_client(table).delete_entity(row["PartitionKey"], row["RowKey"])

    await on.app.sweeper.sweep(ShardRequest("run-1", on.id.subscription, "timer"), now=on.now)
    await on.settle()

    assert on.commands() == ["i=0 n=0", "i=1 n=1"]
    assert (await on.user()).rewritten_by == "run-command"


async def test_a_rewrite_that_the_ledger_takes_no_note_of_is_not_made_again_and_again(
    azure: Azure, account: Account, opened: AsyncExitStack
) -> None:
    on = await scene(azure, account, opened, "update-and-reencrypt")
    rows = [row for row in await on.app.rows("rotations") if row["RowKey"].startswith("a|")]
    for row in rows:
        await on.app.tables.get_table_client("rotations").delete_entity(row["PartitionKey"], row["RowKey"])

    ended = await on.settle()

    assert (ended.action, ended.reasons) == (Action.REPORT, (Reason.NOT_REENCRYPTED,))
    on.later(timedelta(days=1))
    await on.settle()
    assert on.commands() == ["i=0 n=0", "i=1 n=1"]


async def test_a_sweep_starts_the_rewrite_that_no_event_asks_for(
    azure: Azure, account: Account, opened: AsyncExitStack
) -> None:
    reporting = await scene(azure, account, opened, "report")
    await reporting.settle()
    app = await opened.enter_async_context(product(account, policy("update-and-reencrypt"), run_command=True))
    on = replace(reporting, app=app)
    before = await on.app.messages()

    await on.app.sweeper.sweep(ShardRequest("run-1", on.id.subscription, "timer"), now=on.now)

    assert await on.app.messages() > before


async def test_a_cluster_that_comes_from_another_key_is_rewritten_before_its_key_s_next_version_is_named(
    azure: Azure, account: Account, opened: AsyncExitStack
) -> None:
    on = await scene(azure, account, opened, "update")
    other = azure.keyvault.add_key(on.vault, "other")
    on.name_newest(other)
    on.later()
    await on.look()
    await on.inspect("other")
    came_with = on.named
    on.later(timedelta(seconds=2))
    second = azure.keyvault.rotate(on.vault, other)
    await on.inspect("other")

    shut = await on.settle()

    assert (on.named, on.writes(), on.readable()) == (came_with, 0, True)
    assert (shut.action, shut.reasons) == (Action.REPORT, (Reason.NOT_REENCRYPTED, Reason.ROTATION_DUE))
    on.rewrite_by_hand()
    await on.app.rotator.confirm(on.id, RewriteOrder("ada"), now=on.now)
    await on.settle()
    assert (on.named, on.writes(), on.readable()) == (second, 1, True)
    await on.settle()
    assert on.writes() == 1


async def test_no_older_version_is_named_when_the_one_in_use_is_disabled(
    azure: Azure, account: Account, opened: AsyncExitStack
) -> None:
    on = await scene(azure, account, opened, "update")
    await on.confirm()
    second = await on.rotated()
    await on.settle()
    on.later()
    on.rewrite_by_hand()
    await on.confirm()
    on.key.versions[second].enabled = False
    await on.inspect()

    await on.settle()

    assert (on.named, on.writes()) == (second, 1)


async def test_a_version_that_the_app_does_not_know_yet_is_not_gone_back_from(
    azure: Azure, account: Account, opened: AsyncExitStack
) -> None:
    on = await scene(azure, account, opened, "update")
    second = on.rotate()
    on.name_newest(on.key)
    on.later()
    await on.look()
    on.rewrite_by_hand()
    await on.confirm()

    await on.settle()

    assert (on.named, on.writes()) == (second, 0)


async def test_a_version_that_somebody_takes_back_twice_is_named_no_more_until_an_operator_says_so(
    azure: Azure, account: Account, opened: AsyncExitStack
) -> None:
    on = await scene(azure, account, opened, "update")
    first = azure.aks.clusters[on.cluster.id.lower()].kms.key_id
    second = await on.rotated()

    async def rewrite_and_look() -> Record:
        on.rewrite_by_hand()
        await on.confirm()
        ended = await on.settle()
        on.later()
        return ended

    for _ in range(2):
        await rewrite_and_look()
        assert on.named == second
        await rewrite_and_look()
        on.name(first)
        await on.look()
    contested = await rewrite_and_look()
    still = await rewrite_and_look()

    assert (contested.reasons, still.reasons) == ((Reason.CONTESTED,), (Reason.CONTESTED,))
    assert (on.writes(), on.readable()) == (2, True)
    await on.app.reconciler.resume(on.id, asked_by="operator", now=on.now)
    await on.settle()
    assert (on.named, on.writes()) == (second, 3)


def disable(on: Scene) -> None:
    on.azure.keyvault.set_enabled(on.key, on.key.current.version, enabled=False)


def make_elliptic(on: Scene) -> None:
    on.azure.keyvault.set_key(on.key, kty="EC", operations=("sign", "verify"))


def delete(on: Scene) -> None:
    on.azure.keyvault.delete_key(on.key)


def take_the_right(on: Scene) -> None:
    on.azure.faults.fail_next("GET", "/versions/", 403, code="AuthorizationFailed", message="no", times=2)


@pytest.mark.parametrize(
    ("spoil", "reason", "fix"),
    [
        (disable, Reason.KEY_DISABLED, "az keyvault key set-attributes"),
        (make_elliptic, Reason.KEY_TYPE_UNSUPPORTED, None),
        (take_the_right, Reason.VAULT_UNREADABLE, None),
        (delete, Reason.KEY_MISSING, "az keyvault key recover"),
    ],
)
async def test_a_version_that_can_not_be_used_any_more_is_reported_instead_of_named(
    azure: Azure,
    account: Account,
    opened: AsyncExitStack,
    spoil: Callable[[Scene], None],
    reason: Reason,
    fix: str | None,
) -> None:
    on = await scene(azure, account, opened, "update")
    await on.confirm()
    first = on.named
    await on.rotated()
    spoil(on)

    told = await on.look()
    rows = await on.all_rows()
    again = await on.look()

    assert (on.named, on.writes()) == (first, 0)
    assert (told.action, told.reasons) == (Action.REPORT, (reason, Reason.ROTATION_DUE))
    assert told.fix is not None
    assert fix is None or (f"{fix} " in (told.fix.command or "") and "kv-kms" in (told.fix.command or ""))
    assert again.reasons == told.reasons
    assert await on.all_rows() == rows


MOVES_TO_ITS_KEY = "{keyManagement: customer-managed, vault: VAULT, key: etcd, migrate: true}"


@pytest.mark.parametrize("lost", [True, False])
async def test_a_cluster_whose_own_version_can_not_be_used_any_more_is_moved_to_no_other(
    azure: Azure, account: Account, opened: AsyncExitStack, *, lost: bool
) -> None:
    on = await scene(azure, account, opened, "update")
    await on.confirm()
    first = on.named
    if lost:
        azure.keyvault.delete_key(on.key)
        del on.vault.deleted_keys[on.key.name]
        on.later()
        azure.keyvault.add_key(on.vault, on.key.name)
    else:
        on.rotate()
        on.key.versions[first].enabled = False
    await on.inspect()

    told = await on.look()
    rows = await on.all_rows()
    await on.look()

    reason = Reason.VERSION_MISSING if lost else Reason.VERSION_DISABLED
    assert (on.named, on.writes()) == (first, 0)
    assert (told.action, told.reasons) == (Action.REPORT, (reason, Reason.ROTATION_DUE))
    assert told.fix is not None
    assert lost or f"--version {first} --enabled true" in (told.fix.command or "")
    assert await on.all_rows() == rows
    if not lost:
        on.key.versions[first].enabled = True
        await on.settle()
        assert (on.named != first, on.writes(), on.readable()) == (True, 1, True)


@pytest.mark.parametrize("target", ["{keyManagement: platform-managed, migrate: true}", MOVES_TO_ITS_KEY])
async def test_a_cluster_whose_own_version_is_gone_is_not_moved_to_another_key_management(
    azure: Azure, account: Account, opened: AsyncExitStack, target: str
) -> None:
    on = await scene(azure, account, opened, "report")
    azure.keyvault.delete_key(on.key)
    del on.vault.deleted_keys[on.key.name]
    on.later()
    azure.keyvault.add_key(on.vault, on.key.name)
    moving = policy("report").replace("{keyManagement: platform-managed}", target.replace("VAULT", on.vault.id))
    app = await opened.enter_async_context(product(account, moving))

    told = await app.look(on.cluster, now=on.now)

    assert told is not None
    assert (told.action, told.reasons[:2]) == (Action.REPORT, (Reason.VERSION_MISSING, Reason.TO_MIGRATE))
    assert on.writes() == 0


@pytest.mark.parametrize("target", ["{keyManagement: platform-managed, migrate: true}", MOVES_TO_ITS_KEY])
async def test_a_cluster_whose_previous_version_is_disabled_is_moved_once_it_is_enabled(
    azure: Azure, account: Account, opened: AsyncExitStack, target: str
) -> None:
    on = await scene(azure, account, opened, "report")
    first, second = on.named, await on.rotated()
    on.name_newest(on.key)
    on.later(OPERATION)
    await on.settle()
    on.key.versions[first].enabled = False
    await on.inspect()
    moving = policy("report").replace("{keyManagement: platform-managed}", target.replace("VAULT", on.vault.id))
    app = await opened.enter_async_context(product(account, moving))
    before = on.writes()

    told = await app.look(on.cluster, now=on.now)
    on.key.versions[first].enabled = True
    moved = await replace(on, app=app).settle()

    assert told is not None
    assert (told.action, told.reasons[:2]) == (Action.REPORT, (Reason.VERSION_DISABLED, Reason.TO_MIGRATE))
    assert told.fix is not None
    assert f"--version {first} --enabled true" in (told.fix.command or "")
    assert first != second
    assert (moved.reasons, on.readable(), on.writes()) == ((Reason.AS_ASKED,), True, before + 1)


@pytest.mark.parametrize("confirmed", [False, True], ids=["not-confirmed", "confirmed"])
async def test_a_cluster_whose_earlier_key_is_disabled_is_moved_once_nothing_is_written_with_it(
    azure: Azure, account: Account, opened: AsyncExitStack, *, confirmed: bool
) -> None:
    on = await scene(azure, account, opened, "report")
    first, other = on.named, azure.keyvault.add_key(on.vault, "etcd2")
    on.name_newest(other)
    on.later(OPERATION)
    await on.look()
    await on.inspect("etcd2")
    if confirmed:
        await on.app.rotator.confirm(on.id, RewriteOrder("ops@example.com", on.rewrite_by_hand()), now=on.now)
    on.key.versions[first].enabled = False
    moving = policy("report").replace("platform-managed}", "platform-managed, migrate: true}")
    app = await opened.enter_async_context(product(account, moving))
    before = on.writes()

    told = await app.look(on.cluster, now=on.now)

    assert told is not None
    if confirmed:
        assert (told.reasons[0], on.writes()) == (Reason.UPDATING, before + 1)
        return
    rows = await on.all_rows()
    await app.look(on.cluster, now=on.now)
    assert (told.action, told.reasons) == (Action.REPORT, (Reason.VERSION_DISABLED, Reason.TO_MIGRATE))
    assert told.fix is not None
    assert f"--name {KEY.name} --version {first} --enabled true" in (told.fix.command or "")
    assert (on.writes(), await on.all_rows()) == (before, rows)
    on.key.versions[first].enabled = True
    moved = await replace(on, app=app).settle()
    assert (moved.reasons, on.readable(), on.writes()) == ((Reason.AS_ASKED,), True, before + 1)


@pytest.mark.parametrize("change", [False, True], ids=["its-own-identity", "another-identity"])
async def test_nothing_is_prepared_for_a_cluster_whose_own_version_is_gone(
    azure: Azure, account: Account, opened: AsyncExitStack, *, change: bool
) -> None:
    on = await scene(azure, account, opened, "report")
    azure.keyvault.delete_key(on.key)
    del on.vault.deleted_keys[on.key.name]
    on.later()
    azure.keyvault.add_key(on.vault, on.key.name)
    azure.access.assignments.clear()
    target = MOVES_TO_ITS_KEY.replace("VAULT", on.vault.id).replace("}", ", prerequisites: ensure}")
    if change:
        identity = azure.identities.add("id-kms").id
        on.cluster.document["identity"] = {"type": "SystemAssigned", "principalId": "p", "tenantId": "t"}
        target = target.replace("}", f", identity: {identity}, allowIdentityChange: true}}")
    moving = policy("report").replace("{keyManagement: platform-managed}", target)
    app = await opened.enter_async_context(product(account, moving))
    before = len(azure.journal.writes())

    told = await app.look(on.cluster, now=on.now)

    assert told is not None
    assert (told.action, told.reasons[0]) == (Action.REPORT, Reason.VERSION_MISSING)
    assert len(azure.journal.writes()) == before


async def test_a_version_that_is_taken_back_before_the_app_saw_it_in_effect_asks_for_another_rewrite(
    azure: Azure, account: Account, opened: AsyncExitStack
) -> None:
    on = await scene(azure, account, opened, "update")
    await on.confirm()
    first = on.key.uri_of(on.named)
    await on.rotated()
    await on.look()
    on.later(OPERATION)
    azure.aks.write_secret(on.cluster, "written-in-between")
    on.name(first)
    await on.rotated()

    shut = await on.settle()

    assert (on.named, on.writes(), on.readable()) == (first.rpartition("/")[2], 1, True)
    assert (shut.action, shut.reasons) == (Action.REPORT, (Reason.NOT_REENCRYPTED, Reason.ROTATION_DUE))
    assert [row["outcome"] for row in await on.app.writes_noted()] == ["withdrawn"]
    rows = await on.all_rows()
    await on.settle()
    assert await on.all_rows() == rows
    on.rewrite_by_hand()
    await on.confirm()
    await on.settle()
    assert (on.named, on.readable()) == (on.key.current.version, True)


async def test_an_update_that_never_arrived_asks_for_no_other_rewrite(
    azure: Azure, account: Account, opened: AsyncExitStack
) -> None:
    on = await scene(azure, account, opened, "update")
    await on.confirm()
    second = await on.rotated()
    azure.faults.drop_next("PUT", "managedClusters", accepted=False)

    await on.settle()

    assert (on.named, on.writes()) == (second, 1)


async def test_a_version_that_the_ledger_took_down_and_the_row_did_not_asks_for_another_rewrite(
    azure: Azure, account: Account, opened: AsyncExitStack
) -> None:
    on = await scene(azure, account, opened, "update-and-reencrypt")
    first, second = on.named, await on.rotated()
    await on.settle()
    on.later()
    await on.app.keys.use(KEY, replace(await on.user(), version=first), in_effect=True, now=on.now)
    await on.rotated()

    shut = await on.settle()

    assert (on.named, shut.reasons[0]) == (second, Reason.NOT_REENCRYPTED)
    on.later()
    await on.app.sweeper.sweep(ShardRequest("run-1", on.id.subscription, "timer"), now=on.now)
    await on.settle()
    assert (on.named, on.readable()) == (on.key.current.version, True)


async def test_a_rewrite_that_was_made_before_the_version_was_taken_back_and_named_again_is_made_anew(
    azure: Azure, account: Account, opened: AsyncExitStack
) -> None:
    on = await scene(azure, account, opened, "update-and-reencrypt")
    first, second = on.key.uri_of(on.named), await on.rotated()
    await on.settle()
    audit = await opened.enter_async_context(product(account, policy("update-and-reencrypt", mode="audit")))
    for url in (first, on.key.uri_of(second)):
        on.later()
        on.name(url)
        run = f"run-{url[-32:]}"
        await audit.sweeper.sweep(ShardRequest(run, on.id.subscription, "timer"), now=on.now)
    commands = on.commands()

    on.later()
    await on.settle()

    assert on.commands() == [*commands, "i=0 n=0", "i=1 n=1"]
    rewritten_at = (await on.user()).rewritten_at
    assert rewritten_at is not None
    assert rewritten_at >= on.now - 5 * MINUTE
    commands = on.commands()
    await on.settle()
    assert on.commands() == commands


# what an old version is needed for


async def standing(on: Scene) -> dict[str, tuple[Standing, Why]]:
    """How each version stands with the cluster."""
    users, adoptions = await on.app.keys.users(KEY), await on.app.keys.adoptions(KEY)
    found = picture(users, adoptions, (await on.app.keys.key(KEY)).versions, on.now)
    return {version: (need.standing, need.why) for version, needs in found.items() for need in needs}


async def test_only_the_version_before_the_previous_one_becomes_a_candidate(
    azure: Azure, account: Account, opened: AsyncExitStack
) -> None:
    on = await scene(azure, account, opened, "update-and-reencrypt")
    first = on.named
    second = await on.rotated()
    await on.settle()
    third = await on.rotated()
    await on.settle()

    assert await standing(on) == {
        first: (Standing.CANDIDATE, Why.REWRITTEN),
        second: (Standing.NEEDED, Why.PREVIOUS_SLOT),
        third: (Standing.NEEDED, Why.CURRENT),
    }
    in_use = {kek.version for kek in azure.aks.versions_in_use(on.cluster)}
    assert in_use == {second, third}


LEAVES: dict[str, dict[str, Any]] = {
    "turned-off": {"azureKeyVaultKms": {"enabled": False}},
    "migrated": {
        "azureKeyVaultKms": {"enabled": False},
        "kubernetesResourceObjectEncryptionProfile": {"infrastructureEncryption": "Enabled"},
    },
}


@pytest.mark.parametrize("how", LEAVES)
async def test_what_a_cluster_has_left_is_needed_until_a_rewrite_after_that_is_confirmed(
    azure: Azure, account: Account, opened: AsyncExitStack, how: str
) -> None:
    on = await scene(azure, account, opened, "report")
    first = on.named
    await on.confirm()
    azure.aks.change(on.cluster.id, lambda document: document["properties"].update(securityProfile=LEAVES[how]))
    on.later()
    await on.app.look(on.cluster, now=on.now, mode=Mode.AUDIT)

    assert await standing(on) == {first: (Standing.NEEDED, Why.NOT_REWRITTEN)}
    on.later()
    on.rewrite_by_hand()
    await on.confirm()
    kept = Standing.NOT_SHOWN_UNNEEDED, Why.PREVIOUS_SLOT
    assert await standing(on) == {first: kept if how == "turned-off" else (Standing.CANDIDATE, Why.REWRITTEN)}
    assert on.commands() == []


async def test_a_cluster_that_comes_to_follow_its_key_needs_what_it_named_until_a_rewrite_is_confirmed(
    azure: Azure, account: Account, opened: AsyncExitStack
) -> None:
    on = await scene(azure, account, opened, "report")
    first = on.named
    on.rotate()
    on.name_newest(on.key)
    await on.look()
    follows = {"azureKeyVaultKms": {"enabled": True, "keyId": on.key.uri, "keyVaultNetworkAccess": "Public"}}
    profile = {**follows, "kubernetesResourceObjectEncryptionProfile": {"infrastructureEncryption": "Enabled"}}
    azure.aks.change(on.cluster.id, lambda document: document["properties"].update(securityProfile=profile))
    on.later()
    await on.look()
    on.later(timedelta(days=2))
    await on.inspect()

    needed = await standing(on)
    await on.app.rotator.confirm(on.id, RewriteOrder("ada"), now=on.now)

    assert needed[first] == (Standing.NEEDED, Why.NOT_REWRITTEN)
    assert (await standing(on))[first] == (Standing.NOT_SHOWN_UNNEEDED, Why.NO_EVIDENCE)


async def test_a_rewrite_by_run_command_counts_for_the_key_that_the_cluster_left(
    azure: Azure, account: Account, opened: AsyncExitStack
) -> None:
    on = await scene(azure, account, opened, "update-and-reencrypt")
    left = on.named
    on.name_newest(azure.keyvault.add_key(on.vault, "other"))
    on.later()
    await on.look()
    await on.inspect("other")

    await on.settle()

    assert (await standing(on))[left] == (Standing.NOT_SHOWN_UNNEEDED, Why.PREVIOUS_SLOT)
    assert [user.rewritten_by for user in await on.app.keys.users(KEY)] == ["run-command"]


# any order of all this


class Chance:
    """Things that happen in an order that a seed names."""

    def __init__(self, on: Scene, seed: int) -> None:
        self.on = on
        self.dice = random.Random(seed)  # noqa: S311  an order of steps is no secret
        self.steps: list[str] = []
        self.left: str | None = None

    async def happen(self) -> None:
        """Let one thing happen, and hold the product to what must always be so."""
        on, before, writes = self.on, self.on.named, self.on.writes()
        name = self.dice.choice(list(THINGS))
        self.steps.append(name)
        await THINGS[name](self)
        if on.writes() > writes:
            self.left = before
            keks = {
                secret.kek.version if secret.kek else None for secret in on.azure.aks.secrets.secrets_of(on.cluster)
            }
            assert keks == {before}, f"named too early after {self.steps}"
        assert on.readable(), self.steps
        assert on.cluster.provisioning_state in {"Succeeded", "Updating"}, self.steps
        await self._believes_what_is_so()

    async def _believes_what_is_so(self) -> None:
        """What the ledger says is rewritten since the last update took effect is; an open claim is settled first."""
        on, user = self.on, await self.on.user()
        if (await on.app.record(on.cluster)).claim is not None:
            return
        current = next((one for one in await on.app.keys.adoptions(KEY) if one.version == user.version), None)
        effective = current.effective_at if current is not None else None
        if effective is None or user.rewritten_at is None or user.rewritten_at < effective or on.named != user.version:
            return
        secrets = on.azure.aks.secrets.secrets_of(on.cluster)
        if on.cluster.provisioning_state == "Succeeded":
            assert {secret.kek.version if secret.kek else None for secret in secrets} == {user.version}, self.steps

    async def rotate(self) -> None:
        self.on.rotate()
        await self.on.inspect()

    async def look(self) -> None:
        await self.on.look()

    async def look_later(self) -> None:
        self.on.later(self.dice.choice([MINUTE, OPERATION, timedelta(minutes=61)]))
        await self.on.look()

    async def sweep(self) -> None:
        run = f"run-{len(self.steps)}"
        await self.on.app.sweeper.sweep(ShardRequest(run, self.on.id.subscription, "timer"), now=self.on.now)

    async def write_a_secret(self) -> None:
        self.on.azure.aks.write_secret(
            self.on.cluster, f"s-{self.dice.randrange(5)}", namespace=f"team-{self.dice.randrange(3)}"
        )

    async def rewrite_by_hand(self) -> None:
        self.on.rewrite_by_hand()
        if self.on.cluster.provisioning_state == "Succeeded" and self.dice.random() < 0.7:
            await self.on.confirm()

    async def take_back(self) -> None:
        """Somebody takes the version back that the app named, whether or not the app has seen it in effect."""
        if self.left is not None and self.on.cluster.provisioning_state == "Succeeded":
            self.on.name(self.on.key.uri_of(self.left))
            self.left = None

    async def spoil(self) -> None:
        self.on.azure.aks.commands.spoil_next(self.dice.choice(list(Spoiling)))

    async def crash(self) -> None:
        method, path = self.dice.choice([("PUT", r"/managedClusters/[^/]+$"), ("POST", RUN_COMMAND)])
        self.on.azure.faults.drop_next(method, path, accepted=self.dice.random() < 0.5)

    async def resume(self) -> None:
        await self.on.app.reconciler.resume(self.on.id, asked_by="ops@example.com", now=self.on.now)


THINGS: dict[str, Callable[[Chance], Awaitable[None]]] = {
    "rotate": Chance.rotate,
    "look": Chance.look,
    "look later": Chance.look_later,
    "look later too": Chance.look_later,
    "and again": Chance.look_later,
    "sweep": Chance.sweep,
    "write a secret": Chance.write_a_secret,
    "rewrite by hand": Chance.rewrite_by_hand,
    "take back": Chance.take_back,
    "spoil": Chance.spoil,
    "crash": Chance.crash,
    "resume": Chance.resume,
}


@pytest.mark.parametrize("seed", range(8))
async def test_in_any_order_no_version_is_named_before_the_rewrite_and_every_secret_is_readable(
    azure: Azure, account: Account, opened: AsyncExitStack, seed: int
) -> None:
    on = await scene(azure, account, opened, "update-and-reencrypt")
    chance = Chance(on, seed)

    for _ in range(30):
        await chance.happen()

    newest = on.key.current.version
    for _ in range(6):
        await on.app.reconciler.resume(on.id, asked_by="ops@example.com", now=on.now)
        await on.settle()
        on.later(timedelta(hours=2))
    assert on.named == newest, chance.steps
    assert on.readable(), chance.steps
    assert (await standing(on))[newest] == (Standing.NEEDED, Why.CURRENT)
    commands, writes = on.commands(), on.writes()
    await on.settle()
    assert (on.commands(), on.writes()) == (commands, writes)
