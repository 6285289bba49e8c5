"""Orders about rotations: a key rotated by hand, and secrets that somebody has rewritten."""

from __future__ import annotations

import asyncio
import json
import random
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from shared.clusters import ClusterId, KeyManagement
from shared.errors import Declined, Malformed, Unclear
from shared.events import KeyRequest, RewriteOrder, RotateOrder
from shared.keyrecords import ROTATION_CLAIM_LASTS, ROTATION_REST, Detection, RotationClaim
from shared.keys import KeyId, KeyVersion, VaultId
from shared.rotation import Adoption, How, KeyUser, Standing, in_order, picture, unready
from tests.builders import CLUSTER_ID, NOW
from tests.product import Product, product

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from local.simulator import Azure
    from local.simulator.aks.state import SimulatedCluster
    from local.simulator.journal import Call
    from local.simulator.keyvault import SimulatedKey, SimulatedVault
    from local.storage import Account
    from shared.keyrecords import Rotation
    from shared.rotator import ConfirmedRewrite

KEY = KeyId("kv-kms-weu", "etcd")
BY_ADA = RewriteOrder("ada@example.com")
ROTATE = RotateOrder("ada@example.com")
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
LEAVES_ALONE = """
version: 1
mode: enforce
acceptIrreversible: true
targets: [{keyManagement: platform-managed, match: {names: [nobody]}}]
"""
AUDIT = "version: 1\ntargets: [{keyManagement: platform-managed}]\n"


@pytest.fixture
async def app(azure: Azure, account: Account) -> AsyncIterator[Product]:  # noqa: ARG001  the clients reach it
    """The product."""
    async with product(account, LEAVES_ALONE) as built:
        yield built


@pytest.fixture
def vault(azure: Azure) -> SimulatedVault:
    """A vault whose keys the app may rotate."""
    made = azure.keyvault.add_vault("kv-kms-weu")
    azure.access.assign(azure.identity.default.object_id, "Key Vault Crypto Officer", made.id)
    return made


@pytest.fixture
def key(azure: Azure, vault: SimulatedVault) -> SimulatedKey:
    """A key with one version, made a while ago."""
    made = azure.keyvault.add_key(vault, "etcd")
    azure.clock.advance(HOUR)
    return made


def keyed(azure: Azure, key: SimulatedKey, name: str = "aks-old", *, encryption: Any = "legacy") -> SimulatedCluster:
    """A cluster that uses the key, and may."""
    url = key.uri_of(key.current.version) if encryption == "legacy" else key.uri
    cluster = azure.aks.add(name, encryption=encryption, key_id=url)
    azure.access.assign(cluster.principal_id, "Key Vault Crypto User", key.vault.id)
    return cluster


def name_newest(
    azure: Azure, cluster: SimulatedCluster, key: SimulatedKey, *, duration: timedelta = timedelta()
) -> None:
    """Somebody updates a legacy cluster to the newest version of its key."""
    url = key.uri_of(key.current.version)

    def named(document: dict[str, Any]) -> None:
        document["properties"]["securityProfile"]["azureKeyVaultKms"]["keyId"] = url

    azure.aks.change(cluster.id, named, duration=duration)


def turn_off(azure: Azure, cluster: SimulatedCluster, *, duration: timedelta = timedelta()) -> None:
    """Somebody turns legacy KMS off."""

    def off(document: dict[str, Any]) -> None:
        document["properties"]["securityProfile"]["azureKeyVaultKms"] = {"enabled": False}

    azure.aks.change(cluster.id, off, duration=duration)


async def see(app: Product, azure: Azure, *clusters: SimulatedCluster) -> None:
    """Let the app look at the key and these clusters, as events would make it."""
    for cluster in clusters:
        await app.look(cluster, now=azure.clock.now())
    await app.inspector.inspect(KeyRequest(KEY, "timer", vault_id(azure)), now=azure.clock.now())


def vault_id(azure: Azure) -> VaultId:
    return VaultId.parse(next(iter(azure.keyvault.vaults.values())).id)


async def rotate(app: Product, azure: Azure) -> Rotation | None:
    return await app.rotator.rotate(KEY, ROTATE, now=azure.clock.now())


async def confirm(
    app: Product, azure: Azure, cluster: SimulatedCluster, order: RewriteOrder = BY_ADA
) -> ConfirmedRewrite | None:
    return await app.rotator.confirm(ClusterId.parse(cluster.id), order, now=azure.clock.now())


def rotations_taken(azure: Azure) -> list[Call]:
    """The rotations that the vault carried out for the app."""
    return [call for call in azure.journal.calls if call.path.endswith("/rotate") and call.accepted]


async def how(app: Product) -> dict[str, Detection]:
    return {rotation.version.version: rotation.how for rotation in (await app.keys.key(KEY)).rotations}


async def lines(app: Product, kind: str) -> list[dict[str, Any]]:
    return [row for row in await app.rows("activity") if row["kind"] == kind]


async def everything(app: Product) -> dict[str, list[dict[str, Any]]]:
    """All that the app remembers."""
    return {table: await app.rows(table) for table in ("clusters", "keyusers", "rotations", "activity")}


async def standings(app: Product, azure: Azure) -> list[Standing | None]:
    """How each version stands with the one cluster that uses it, from the oldest version to the newest."""
    known = await app.keys.key(KEY)
    users, adoptions = await app.keys.users(KEY), await app.keys.adoptions(KEY)
    needs = picture(users, adoptions, known.versions, azure.clock.now())
    return [needs[one.version][0].standing if needs[one.version] else None for one in known.versions]


# who is not ready for another version

OLD, MIDDLE, NEW = "a" * 32, "b" * 32, "c" * 32
VERSIONS = [KeyVersion(name, created=NOW + number * HOUR) for number, name in enumerate((OLD, MIDDLE, NEW))]
LEGACY = KeyUser(CLUSTER_ID, "uid", KeyManagement.LEGACY, NOW, version=NEW, rewritten_at=NOW + 5 * HOUR)
NAMED = Adoption(NEW, CLUSTER_ID, "uid", How.UPDATED, NOW + 3 * HOUR, effective_at=NOW + 4 * HOUR)
DISABLED = [*VERSIONS, KeyVersion("d" * 32, enabled=False, created=NOW + 9 * HOUR)]
UNREWRITTEN = replace(LEGACY, rewritten_at=None)
FIRST = [replace(NAMED, version=OLD)]


@pytest.mark.parametrize(
    ("user", "adoptions", "versions", "why"),
    [
        pytest.param(LEGACY, [NAMED], VERSIONS, None, id="rewritten-since"),
        pytest.param(replace(LEGACY, rewritten_at=NAMED.effective_at), [NAMED], VERSIONS, None, id="at-that-moment"),
        pytest.param(UNREWRITTEN, [NAMED], VERSIONS, "no rewrite", id="never-rewritten"),
        pytest.param(replace(LEGACY, rewritten_at=NOW + 3 * HOUR), [NAMED], VERSIONS, "no rewrite", id="before"),
        pytest.param(replace(LEGACY, version=MIDDLE), [NAMED], VERSIONS, "the newest is c", id="behind-by-one"),
        pytest.param(replace(LEGACY, version="e" * 32), [NAMED], VERSIONS, "the newest is c", id="an-unknown-version"),
        pytest.param(LEGACY, [replace(NAMED, effective_at=None)], VERSIONS, "in effect yet", id="not-in-effect"),
        pytest.param(LEGACY, [], VERSIONS, "in effect yet", id="not-known-to-be-in-effect"),
        pytest.param(LEGACY, [replace(NAMED, resource_uid="-")], VERSIONS, "in effect yet", id="of-the-one-before-it"),
        pytest.param(LEGACY, [NAMED], DISABLED, None, id="nobody-can-take-a-disabled-one"),
        pytest.param(replace(UNREWRITTEN, version=OLD), FIRST, VERSIONS[:1], None, id="a-key-that-never-rotated"),
        pytest.param(
            replace(UNREWRITTEN, version=OLD, begun_before=False),
            FIRST,
            VERSIONS[:1],
            "no rewrite",
            id="it-had-something-else-before",
        ),
        pytest.param(replace(UNREWRITTEN, ended_at=NOW + 6 * HOUR), [NAMED], VERSIONS, None, id="it-left"),
        pytest.param(replace(UNREWRITTEN, version=None), [], VERSIONS, None, id="it-follows-the-key-by-itself"),
    ],
)
def test_a_legacy_cluster_is_ready_once_all_that_it_has_lies_on_the_newest_version(
    user: KeyUser, adoptions: list[Adoption], versions: list[KeyVersion], why: str | None
) -> None:
    found = unready([user], adoptions, versions)

    if why is None:
        assert found == []
        return
    ((cluster, said),) = found
    assert cluster == CLUSTER_ID
    assert why in said


def test_all_that_are_not_ready_are_named_in_order() -> None:
    ids = [replace(CLUSTER_ID, name=name) for name in ("aks-c", "aks-a", "aks-b")]

    found = unready([replace(UNREWRITTEN, cluster=one, version=MIDDLE) for one in ids], [], VERSIONS)

    assert [cluster.name for cluster, _ in found] == ["aks-a", "aks-b", "aks-c"]


def test_of_two_versions_made_within_one_second_the_later_detected_is_the_newer() -> None:
    first, second = KeyVersion("f" * 32, created=NOW), KeyVersion("0" * 32, created=NOW)

    assert in_order([(second, NOW + MINUTE), (first, NOW)]) == [first.version, second.version]


# a rotation by hand


async def test_a_key_is_rotated_by_hand_and_logged_at_once(app: Product, azure: Azure, key: SimulatedKey) -> None:
    cluster = keyed(azure, key, encryption="customer-managed")
    await see(app, azure, cluster)
    before = await app.messages("keys")

    rotation = await rotate(app, azure)

    assert rotation is not None
    assert rotation.version.version == key.current.version
    assert rotation.version.created is not None
    assert (await how(app))[key.current.version] is Detection.ORDER
    assert len(rotations_taken(azure)) == 1
    assert await app.messages("keys") == before + 1
    (line,) = await lines(app, "rotated")
    assert (line["by"], line["outcome"], line["version"]) == ("ada@example.com", "done", key.current.version)


async def test_the_event_of_a_rotation_by_hand_changes_nothing_but_who_was_told(
    app: Product, azure: Azure, key: SimulatedKey
) -> None:
    cluster = keyed(azure, key, encryption="customer-managed")
    await see(app, azure, cluster)
    await rotate(app, azure)
    announced = KeyRequest(KEY, "event:1", vault_id(azure), key.current.version)

    told = await app.inspector.inspect(announced, now=azure.clock.now())
    before = await everything(app)
    again = await app.inspector.inspect(announced, now=azure.clock.now())

    assert [one.how for one in told] == [Detection.ORDER]
    assert again == ()
    assert sorted((await how(app)).values()) == [Detection.BASELINE, Detection.ORDER]
    assert await everything(app) == before


async def test_a_key_that_nobody_knows_is_not_rotated(app: Product, azure: Azure, key: SimulatedKey) -> None:
    unknown = await rotate(app, azure)
    await see(app, azure)
    azure.keyvault.delete_key(key)
    deleted = await rotate(app, azure)

    assert (unknown, deleted) == (None, None)
    assert rotations_taken(azure) == []


@pytest.mark.parametrize(
    ("policy", "why"),
    [pytest.param(AUDIT, "mode is audit", id="audit"), pytest.param("version: 2", "broken", id="bad")],
)
async def test_in_audit_and_with_a_broken_policy_no_key_is_rotated(
    azure: Azure, account: Account, key: SimulatedKey, policy: str, why: str
) -> None:
    async with product(account, policy) as app:
        await see(app, azure, keyed(azure, key, encryption="customer-managed"))
        before = await everything(app)

        with pytest.raises(Declined, match=why):
            await rotate(app, azure)

        assert await everything(app) == before
    assert rotations_taken(azure) == []


async def test_a_legacy_cluster_that_is_behind_keeps_the_key_from_rotating_until_it_is_rewritten(
    app: Product, azure: Azure, key: SimulatedKey
) -> None:
    cluster = keyed(azure, key)
    await see(app, azure, cluster)
    await rotate(app, azure)
    azure.clock.advance(HOUR)

    with pytest.raises(Declined, match="1 legacy cluster") as behind:
        await rotate(app, azure)
    name_newest(azure, cluster, key)
    await see(app, azure, cluster)
    with pytest.raises(Declined) as not_rewritten:
        await rotate(app, azure)
    azure.aks.rewrite_secrets(cluster)
    await confirm(app, azure, cluster)
    third = await rotate(app, azure)

    (behind_because,) = behind.value.because
    assert behind_because[0].lower() == cluster.id.lower()
    assert "update it" in behind_because[1]
    assert "no rewrite" in not_rewritten.value.because[0][1]
    assert third is not None
    assert len(rotations_taken(azure)) == 2
    assert azure.aks.readable(cluster)


async def test_what_keeps_a_key_from_rotating_is_written_down_nowhere(
    app: Product, azure: Azure, key: SimulatedKey
) -> None:
    cluster = keyed(azure, key)
    azure.keyvault.rotate(key.vault, key)
    await see(app, azure, cluster)
    before = await everything(app)

    for _ in range(2):
        with pytest.raises(Declined):
            await rotate(app, azure)

    assert await everything(app) == before


async def test_a_version_that_no_event_announced_counts_before_the_app_knew_it(
    app: Product, azure: Azure, key: SimulatedKey
) -> None:
    cluster = keyed(azure, key)
    await see(app, azure, cluster)
    lost = azure.keyvault.rotate(key.vault, key, announce=False)

    with pytest.raises(Declined, match="1 legacy cluster"):
        await rotate(app, azure)

    assert (await how(app))[lost] is Detection.SWEEP
    assert rotations_taken(azure) == []


@pytest.mark.parametrize("there", [True, False])
async def test_a_version_that_an_event_alone_named_counts_only_if_the_vault_shows_it(
    app: Product, azure: Azure, key: SimulatedKey, *, there: bool
) -> None:
    await see(app, azure, keyed(azure, key))
    named = azure.keyvault.rotate(key.vault, key) if there else "0" * 32
    azure.faults.fail_next("GET", "/versions", 403, code="AuthorizationFailed", message="no")
    announced = KeyRequest(KEY, "event:1", vault_id(azure), named)
    await app.inspector.inspect(announced, now=azure.clock.now())

    if there:
        with pytest.raises(Declined, match="1 legacy cluster"):
            await rotate(app, azure)
    else:
        assert await rotate(app, azure) is not None

    assert len(rotations_taken(azure)) == (not there)


CLOSED: list[Any] = [
    pytest.param({}, "ForbiddenByRbac|not authorized", id="no-role"),
    pytest.param({"public_network_access": "Disabled"}, "Public network access is disabled", id="closed"),
]


@pytest.mark.parametrize(("seed", "said"), CLOSED)
async def test_a_vault_that_does_not_let_the_app_in_is_named_with_what_to_change(
    app: Product, azure: Azure, seed: dict[str, Any], said: str
) -> None:
    shut = azure.keyvault.add_vault("kv-kms-weu", **seed)
    azure.keyvault.add_key(shut, "etcd")
    if seed:
        azure.access.assign(azure.identity.default.object_id, "Key Vault Crypto Officer", shut.id)
    await see(app, azure)

    with pytest.raises(Declined, match=said) as declined:
        await rotate(app, azure)

    assert "vaults/keys/rotate/action" in str(declined.value)
    assert [line["outcome"] for line in await lines(app, "rotated")] == ["refused"]
    azure.access.assign(azure.identity.default.object_id, "Key Vault Crypto Officer", shut.id)
    shut.properties["publicNetworkAccess"] = "Enabled"
    assert await rotate(app, azure) is not None


async def test_a_vault_that_asks_for_patience_is_not_waited_for(app: Product, azure: Azure, key: SimulatedKey) -> None:
    await see(app, azure)
    azure.faults.fail_next("POST", "/rotate$", 429, code="Throttled", message="slow", headers={"Retry-After": "600"})

    with pytest.raises(Declined, match="600 seconds"):
        await asyncio.wait_for(rotate(app, azure), timeout=30)

    assert len(key.versions) == 1
    assert await rotate(app, azure) is not None


@pytest.mark.parametrize("arrives", [True, False])
async def test_a_rotation_without_an_answer_is_sent_once_and_what_came_of_it_is_found(
    app: Product, azure: Azure, key: SimulatedKey, *, arrives: bool
) -> None:
    await see(app, azure)
    await rotate(app, azure)  # the connection is open by now
    azure.clock.advance(HOUR)
    azure.faults.drop_next("POST", "/rotate$", accepted=arrives)

    with pytest.raises(Unclear, match="ten minutes"):
        await rotate(app, azure)
    with pytest.raises(Declined, match=r"being rotated by ada@example.com"):
        await rotate(app, azure)

    assert len(key.versions) == 2 + arrives
    azure.clock.advance(2 * MINUTE)
    await see(app, azure)
    assert len(await how(app)) == 2 + arrives
    if not arrives:
        with pytest.raises(Declined):
            await rotate(app, azure)
        azure.clock.advance(ROTATION_CLAIM_LASTS)
    assert await rotate(app, azure) is not None
    assert sorted(line["outcome"] for line in await lines(app, "rotated")) == ["done", "done", "unclear"]


@pytest.mark.parametrize("found_by", ["event", "sweep", "order"])
async def test_what_was_rotated_before_a_crash_is_logged_by_the_event_the_sweep_or_the_next_order(
    app: Product, azure: Azure, key: SimulatedKey, found_by: str
) -> None:
    await see(app, azure)
    known, now = await app.keys.key(KEY), azure.clock.now()
    await app.keys.claim_rotation(known, RotationClaim("intent", now, versions=1, by="ada"))
    made = await app.rotator.door.rotate(KEY)

    if found_by == "order":
        with pytest.raises(Declined, match="being rotated by ada"):
            await rotate(app, azure)
    else:
        event = KeyRequest(KEY, "event:1", vault_id(azure), made.version)
        await app.inspector.inspect(event if found_by == "event" else KeyRequest(KEY, "timer"), now=now)

    expected = Detection.EVENT if found_by == "event" else Detection.SWEEP
    assert (await how(app))[made.version] is expected
    assert set(await how(app)) == set(key.versions)
    azure.clock.advance(ROTATION_REST)
    assert await rotate(app, azure) is not None


async def test_two_orders_at_the_same_moment_rotate_once(
    app: Product, azure: Azure, account: Account, key: SimulatedKey
) -> None:
    await see(app, azure, keyed(azure, key, encryption="customer-managed"))
    async with product(account, LEAVES_ALONE) as other:
        answers = await asyncio.gather(
            *(rotate(one, azure) for one in (app, other, app, other)), return_exceptions=True
        )

    assert sum(isinstance(answer, Declined) for answer in answers) == 3
    assert len(key.versions) == 2
    assert len(rotations_taken(azure)) == 1


async def test_looks_at_the_key_meanwhile_neither_lose_the_claim_nor_stop_the_rotation(
    app: Product, azure: Azure, key: SimulatedKey
) -> None:
    await see(app, azure)
    known, now = await app.keys.key(KEY), azure.clock.now()
    claim = RotationClaim("intent", now, versions=1)

    await app.keys.claim_rotation(known, claim)
    await see(app, azure)
    kept = await app.keys.key(KEY)

    assert kept.claim == claim
    assert (kept.is_being_rotated(now + 9 * MINUTE), kept.is_being_rotated(now + ROTATION_CLAIM_LASTS)) == (True, False)
    assert len(key.versions) == 1


# a rewrite, confirmed


async def updated(app: Product, azure: Azure, key: SimulatedKey) -> SimulatedCluster:
    """A legacy cluster that was updated to the second version of its key, and whose secrets nobody rewrote."""
    cluster = keyed(azure, key)
    await see(app, azure, cluster)
    azure.keyvault.rotate(key.vault, key)
    name_newest(azure, cluster, key)
    azure.clock.advance(HOUR)
    await see(app, azure, cluster)
    return cluster


async def test_a_confirmed_rewrite_is_kept_with_who_and_when_and_once(
    app: Product, azure: Azure, key: SimulatedKey
) -> None:
    cluster = await updated(app, azure, key)
    azure.aks.rewrite_secrets(cluster)
    messages = await app.messages("keys")

    rewrite = await confirm(app, azure, cluster)
    before = await everything(app)
    azure.clock.advance(HOUR)
    again = await confirm(app, azure, cluster, RewriteOrder("somebody else"))

    assert rewrite is not None
    assert (rewrite.by, rewrite.keys) == ("ada@example.com", (KEY,))
    assert again == rewrite
    assert await everything(app) == before
    assert await app.messages("keys") == messages + 1
    (line,) = await lines(app, "reencrypted")
    assert (line["by"], line["askedBy"]) == ("ada@example.com", "operator")
    (user,) = await app.keys.users(KEY)
    assert (user.rewritten_by, user.rewritten_at) == ("ada@example.com", rewrite.at)


async def test_after_another_rotation_a_rewrite_is_to_be_confirmed_anew(
    app: Product, azure: Azure, key: SimulatedKey
) -> None:
    cluster = await updated(app, azure, key)
    azure.aks.rewrite_secrets(cluster)
    await confirm(app, azure, cluster)
    azure.keyvault.rotate(key.vault, key)
    name_newest(azure, cluster, key)
    azure.clock.advance(HOUR)
    await see(app, azure, cluster)
    standing_before = await standings(app, azure)

    azure.aks.rewrite_secrets(cluster)
    await confirm(app, azure, cluster, RewriteOrder("bo"))

    assert standing_before == [Standing.CANDIDATE, Standing.NEEDED, Standing.NEEDED]
    assert await standings(app, azure) == [Standing.CANDIDATE, Standing.NEEDED, Standing.NEEDED]
    (user,) = await app.keys.users(KEY)
    assert user.rewritten_by == "bo"


async def test_the_time_of_a_rewrite_may_be_told(app: Product, azure: Azure, key: SimulatedKey) -> None:
    cluster = await updated(app, azure, key)
    now = azure.clock.now()
    at = now + 5 * MINUTE
    azure.clock.advance(HOUR)

    rewrite = await confirm(app, azure, cluster, RewriteOrder("ada", at))

    assert rewrite is not None
    assert rewrite.at == at


async def test_a_time_to_come_and_one_before_the_update_took_effect_are_not_taken(
    app: Product, azure: Azure, key: SimulatedKey
) -> None:
    cluster = await updated(app, azure, key)
    before, now = await everything(app), azure.clock.now()

    with pytest.raises(Malformed, match="future"):
        await confirm(app, azure, cluster, RewriteOrder("ada", now + HOUR))
    with pytest.raises(Declined, match="in effect since"):
        await confirm(app, azure, cluster, RewriteOrder("ada", now - 30 * MINUTE))

    assert await everything(app) == before


async def test_while_an_update_is_under_way_no_rewrite_counts(app: Product, azure: Azure, key: SimulatedKey) -> None:
    cluster = await updated(app, azure, key)
    azure.aks.rewrite_secrets(cluster)
    await confirm(app, azure, cluster)
    azure.keyvault.rotate(key.vault, key)
    name_newest(azure, cluster, key, duration=5 * MINUTE)
    before = await everything(app)

    with pytest.raises(Declined, match="Updating"):
        await confirm(app, azure, cluster)
    azure.clock.advance(6 * MINUTE)
    messages = await app.messages()
    with pytest.raises(Declined, match="a look is asked for"):
        await confirm(app, azure, cluster)

    assert await everything(app) == before
    assert await app.messages() == messages + 1
    await see(app, azure, cluster)
    assert await confirm(app, azure, cluster) is not None


async def test_a_failed_update_takes_no_confirmation(app: Product, azure: Azure, key: SimulatedKey) -> None:
    cluster = await updated(app, azure, key)
    azure.keyvault.rotate(key.vault, key)
    azure.aks.fail_operation_next("InternalError", "no")
    name_newest(azure, cluster, key)
    await see(app, azure, cluster)

    with pytest.raises(Declined, match="Failed"):
        await confirm(app, azure, cluster)


@pytest.mark.parametrize("encryption", ["none", "platform-managed", "customer-managed"])
async def test_a_cluster_on_which_nothing_hangs_has_nothing_to_confirm(
    app: Product, azure: Azure, key: SimulatedKey, encryption: Any
) -> None:
    cluster = azure.aks.add("aks-other", encryption=encryption, key_id=key.uri)
    await see(app, azure, cluster)
    before = await everything(app)

    with pytest.raises(Declined, match="nothing hangs"):
        await confirm(app, azure, cluster)

    assert await everything(app) == before


async def test_a_cluster_that_nobody_knows_is_none_and_a_gone_one_is_declined(
    app: Product, azure: Azure, key: SimulatedKey
) -> None:
    cluster = keyed(azure, key)

    assert await confirm(app, azure, cluster) is None
    await see(app, azure, cluster)
    azure.aks.delete(cluster.id)
    with pytest.raises(Declined, match="does not show"):
        await confirm(app, azure, cluster)


async def test_a_cluster_made_anew_is_looked_at_before_it_is_believed(
    app: Product, azure: Azure, key: SimulatedKey
) -> None:
    cluster = await updated(app, azure, key)
    azure.aks.delete(cluster.id)
    anew = keyed(azure, key)

    with pytest.raises(Declined, match="a look is asked for"):
        await confirm(app, azure, anew)
    await see(app, azure, anew)
    await confirm(app, azure, anew)

    users = {user.resource_uid: user.rewritten_by for user in await app.keys.users(KEY)}
    assert sorted(map(str, users.values())) == ["None", "ada@example.com"]


async def test_a_key_that_a_cluster_left_is_needed_until_the_rewrite_is_confirmed(
    app: Product, azure: Azure, key: SimulatedKey
) -> None:
    cluster = keyed(azure, key)
    await see(app, azure, cluster)
    turn_off(azure, cluster, duration=5 * MINUTE)
    await see(app, azure, cluster)
    while_it_leaves = await standings(app, azure)
    with pytest.raises(Declined, match="Updating"):
        await confirm(app, azure, cluster)
    azure.clock.advance(10 * MINUTE)
    await see(app, azure, cluster)
    with pytest.raises(Declined, match="leave out at"):
        await confirm(app, azure, cluster, RewriteOrder("ada", azure.clock.now() - MINUTE))
    needed = [one.version for one in azure.aks.versions_in_use(cluster)]

    azure.aks.rewrite_secrets(cluster)
    rewrite = await confirm(app, azure, cluster)

    assert rewrite is not None
    assert rewrite.keys == (KEY,)
    assert needed == [key.current.version]
    assert while_it_leaves == [Standing.NEEDED]
    assert await standings(app, azure) == [Standing.NOT_SHOWN_UNNEEDED], "nobody knows how long its slot is kept"


async def test_a_move_to_another_key_is_confirmed_for_both(app: Product, azure: Azure, key: SimulatedKey) -> None:
    cluster = keyed(azure, key)
    await see(app, azure, cluster)
    other = azure.keyvault.add_key(key.vault, "other")
    name_newest(azure, cluster, other)
    await see(app, azure, cluster)
    await app.inspector.inspect(KeyRequest(KeyId("kv-kms-weu", "other"), "timer", vault_id(azure)), now=NOW)

    with pytest.raises(Declined) as kept:
        await app.rotator.rotate(KeyId("kv-kms-weu", "other"), ROTATE, now=azure.clock.now())
    azure.aks.rewrite_secrets(cluster)
    rewrite = await confirm(app, azure, cluster)

    assert "no rewrite" in kept.value.because[0][1]
    assert rewrite is not None
    assert {one.name for one in rewrite.keys} == {"etcd", "other"}
    assert await app.rotator.rotate(KeyId("kv-kms-weu", "other"), ROTATE, now=azure.clock.now()) is not None


async def test_a_confirmation_that_was_cut_off_goes_on_with_what_is_left(
    app: Product, azure: Azure, key: SimulatedKey
) -> None:
    cluster = keyed(azure, key)
    await see(app, azure, cluster)
    name_newest(azure, cluster, azure.keyvault.add_key(key.vault, "other"))
    await see(app, azure, cluster)
    record, now = await app.record(cluster), azure.clock.now()
    uid = record.resource_uid or ""
    await app.keys.rewritten(KEY, record.cluster_id, uid, by="ada", at=now)

    await confirm(app, azure, cluster)

    other = await app.keys.user(KeyId("kv-kms-weu", "other"), record.cluster_id, uid)
    assert other is not None
    assert other.rewritten_by == "ada@example.com"


# whoever keeps to it


@pytest.mark.parametrize("seed", range(6))
async def test_whoever_rotates_through_the_app_and_confirms_what_is_true_loses_no_secret(
    app: Product, azure: Azure, key: SimulatedKey, seed: int
) -> None:
    """Any order of rotating, updating and rewriting, with events lost and time passing: the guard holds it together."""
    chance = random.Random(seed)  # noqa: S311  not for secrets
    clusters = [keyed(azure, key, f"aks-{number}") for number in range(2)]
    await see(app, azure, *clusters)

    for _ in range(25):
        cluster = chance.choice(clusters)
        deed = chance.choice(["rotate", "rotate", "update", "update", "rewrite", "write", "see", "see"])
        if deed == "rotate":
            await outcome(rotate(app, azure))
        if deed == "update":
            name_newest(azure, cluster, key, duration=chance.choice([timedelta(), 5 * MINUTE]))
        if deed == "rewrite":
            azure.aks.rewrite_secrets(cluster)
            await outcome(confirm(app, azure, cluster))
        if deed == "write":
            azure.aks.write_secret(cluster, chance.choice(["first", "second"]))
        if deed == "see":
            await see(app, azure, cluster)
        azure.clock.advance(chance.choice([timedelta(), 2 * MINUTE, HOUR]))

        assert [one.name for one in clusters if not azure.aks.readable(one)] == []

    assert len(key.versions) > 1


async def outcome(order: Any) -> object:
    """What comes of an order: an operator who is declined lets it be."""
    try:
        return await order
    except Declined as declined:
        return declined


# what an operator may write


@pytest.mark.parametrize(
    ("body", "wrong"),
    [
        pytest.param(b"", "by must say who", id="nothing"),
        pytest.param(b"{}", "by must say who", id="nobody"),
        pytest.param(b"{", "not JSON", id="no-JSON"),
        pytest.param(b"[" * 100_000, "not JSON", id="too-deep"),
        pytest.param(b'["ada"]', "not a JSON object", id="a-list"),
        pytest.param(b'{"by": 17}', "by is not text", id="a-number"),
        pytest.param(b'{"by": "  "}', "by must say who", id="blanks"),
        pytest.param(rb'{"by": "a\nb"}', "printable", id="two-lines"),
        pytest.param(rb'{"by": "\u202egpj.exe"}', "printable", id="a-line-that-runs-backwards"),
        pytest.param(rb'{"by": "\ud800"}', "printable", id="half-a-character"),
        pytest.param(json.dumps({"by": "x" * 201}).encode(), "200", id="too-long"),
        pytest.param(b'{"by": "ada", "who": "ada"}', "unknown field 'who'", id="unknown-field"),
        pytest.param(b'{"by": "ada", "at": 5}', "at is not text", id="a-time-that-is-a-number"),
        pytest.param(b'{"by": "ada", "at": "yesterday"}', "at must be a time", id="no-time"),
        pytest.param(b'{"by": "ada", "at": "2026-03-02T09:00:00"}', "offset", id="anywhere"),
        pytest.param(b'{"by": "ada", "at": "0001-01-01T00:00:00+23:00"}', "at must be", id="before-all-time"),
    ],
)
def test_a_confirmation_that_cannot_be_read_says_what_to_change(body: bytes, wrong: str) -> None:
    with pytest.raises(Malformed, match=wrong):
        RewriteOrder.decode(body)


def test_a_confirmation_is_read_as_it_was_written() -> None:
    order = RewriteOrder.decode(rb'{"by": " Ada L\u00f6f ", "at": "2026-03-02T10:00:00+01:00"}')

    assert order == RewriteOrder("Ada Löf", NOW)
    assert order.at is not None
    assert order.at.utcoffset() == timedelta()


def test_an_order_to_rotate_may_say_nothing_or_who_it_is() -> None:
    assert RotateOrder.decode(b"") == RotateOrder.decode(b" {} ") == RotateOrder()
    assert RotateOrder.decode(b'{"by": "ada"}') == RotateOrder("ada")
    for body in (b'{"by": ["ada"]}', b'{"force": true}', b"1"):
        with pytest.raises(Malformed):
            RotateOrder.decode(body)
