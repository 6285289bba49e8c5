"""What vaults' logs show: asked of simulated workspaces, folded into the ledger, judged; and what goes wrong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from azure.core.pipeline.transport import AioHttpTransport
from azure.identity.aio import ManagedIdentityCredential
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from local.simulator import Azure
from local.stage import provide
from shared.errors import Malformed
from shared.events import KeyRequest
from shared.evidence import Evidence, Logs
from shared.keys import KeyId
from shared.rotation import How, Need, Standing, Why, picture, standing
from shared.sightings import Sighting
from tests.builders import PROPERTY
from tests.product import Product, product

if TYPE_CHECKING:
    from local.certificates import Authority
    from local.simulator import Simulator
    from local.simulator.aks import SimulatedCluster
    from local.simulator.keyvault import SimulatedKey, SimulatedVault
    from local.simulator.logs import TableName, Workspace
    from local.storage import Account, Storage

KEY = KeyId("kv-kms", "etcd")
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
ID = "00000000-0000-0000-0000-0000000000e1"
OTHER_ID = "00000000-0000-0000-0000-0000000000e2"
AUDIT = """
version: 1
mode: audit
targets: [{keyManagement: platform-managed}]
"""


@dataclass(slots=True)
class Scene:
    """A key, clusters that follow it, a workspace that its vault's log goes to, and the app that reads it."""

    azure: Azure
    app: Product
    vault: SimulatedVault
    key: SimulatedKey
    workspace: Workspace

    def add(self, name: str, encryption: Any = "customer-managed", **seed: Any) -> SimulatedCluster:
        key_id = self.key.uri if encryption == "customer-managed" else self.key.uri_of(self.key.current.version)
        cluster = self.azure.aks.add(name, encryption=encryption, key_id=key_id, **seed)
        self.azure.access.assign(cluster.principal_id, "Key Vault Crypto User", self.vault.id)
        return cluster

    def rotate(self) -> str:
        """Rotate the key. Creation is told in whole seconds, and so no two versions are made in the same one."""
        self.azure.clock.advance(MINUTE)
        return self.azure.keyvault.rotate(self.vault, self.key)

    async def look(self) -> None:
        """Look at every cluster and at the key, as a sweep does."""
        for cluster in list(self.azure.aks.clusters.values()):
            await self.app.look(cluster, now=self.azure.clock.now())
        await self.app.inspector.inspect(KeyRequest(KEY, "timer"), now=self.azure.clock.now())

    async def after(self, time: timedelta) -> None:
        self.azure.clock.advance(time)
        await self.look()

    async def needs(self) -> dict[str, list[Need]]:
        known = await self.app.keys.key(KEY)
        users, adoptions = await self.app.keys.users(KEY), await self.app.keys.adoptions(KEY)
        return picture(users, adoptions, known.versions, self.azure.clock.now())

    async def standing(self, version: str) -> Standing:
        return standing((await self.needs())[version])

    async def why(self, version: str) -> set[Why]:
        return {need.why for need in (await self.needs())[version]}

    async def seen(self, version: str) -> dict[str, tuple[How, bool]]:
        """By cluster: how it came to the version, and whether its first use is known."""
        rows = await self.app.keys.adoptions(KEY)
        return {one.cluster.name: (one.how, one.first_seen is not None) for one in rows if one.version == version}

    async def found(self) -> dict[str, tuple[str | None, int]]:
        """What is found of the log: version and how many clusters, by reason."""
        said = {"still-in-use", "adoption-overdue", "identity-shared", "logs-unreadable"}
        findings = (await self.app.keys.key(KEY)).findings
        return {str(one.reason): (one.version, one.count) for one in findings if one.reason in said}

    async def assert_nothing_more_is_written(self) -> None:
        before = await self.app.rows("rotations")
        activity = await self.app.rows("activity")

        await self.look()

        assert await self.app.rows("rotations") == before
        assert await self.app.rows("activity") == activity


@asynccontextmanager
async def staged(azure: Azure, account: Account, table: TableName = "AZKVAuditLogs") -> AsyncIterator[Scene]:
    vault = azure.keyvault.add_vault(KEY.vault)
    key = azure.keyvault.add_key(vault, KEY.name)
    workspace = azure.logs.add(ID, delay=5 * MINUTE)
    azure.logs.send(vault, workspace, table)
    async with product(account, AUDIT, workspaces=(ID,)) as app:
        yield Scene(azure, app, vault, key, workspace)


@pytest.fixture
async def scene(azure: Azure, account: Account) -> AsyncIterator[Scene]:
    """A key that nobody uses yet."""
    async with staged(azure, account) as built:
        yield built


# from expected to seen to candidate


@pytest.mark.parametrize("table", ["AZKVAuditLogs", "AzureDiagnostics"])
async def test_what_is_expected_is_seen_and_a_day_later_the_old_version_is_a_candidate(
    azure: Azure, account: Account, table: TableName
) -> None:
    async with staged(azure, account, table) as scene:
        old = scene.key.current.version
        scene.add("aks-1")
        scene.add("aks-2")
        await scene.look()
        new = scene.rotate()

        await scene.after(HOUR)
        expected = await scene.seen(new)
        await scene.after(6 * HOUR)
        seen = await scene.seen(new)
        too_early = await scene.standing(old)
        await scene.after(30 * HOUR)

        assert expected == dict.fromkeys(("aks-1", "aks-2"), (How.EXPECTED, False))
        assert seen == dict.fromkeys(("aks-1", "aks-2"), (How.SEEN, True))
        assert too_early is Standing.NEEDED
        assert await scene.standing(old) is Standing.CANDIDATE
        assert await scene.why(old) == {Why.SEEN_ELSEWHERE}
        assert await scene.standing(new) is Standing.NEEDED
        assert await scene.found() == {}
        await scene.assert_nothing_more_is_written()


async def test_one_cluster_that_lags_behind_keeps_the_version_needed(scene: Scene) -> None:
    old = scene.key.current.version
    scene.add("aks-1")
    lagging = scene.add("aks-2", power="Stopped")
    await scene.look()
    scene.rotate()

    await scene.after(40 * HOUR)

    needs = {need.cluster.name: need.standing for need in (await scene.needs())[old]}
    assert needs == {"aks-1": Standing.CANDIDATE, lagging.name: Standing.NOT_SHOWN_UNNEEDED}
    await scene.assert_nothing_more_is_written()


async def test_without_any_line_nothing_becomes_a_candidate(scene: Scene) -> None:
    scene.workspace.settings.clear()
    old = scene.key.current.version
    scene.add("aks-1")
    await scene.look()
    new = scene.rotate()

    await scene.after(3 * DAY)

    assert await scene.standing(old) is Standing.NOT_SHOWN_UNNEEDED
    assert await scene.seen(new) == {"aks-1": (How.EXPECTED, False)}
    assert await scene.found() == {}
    await scene.assert_nothing_more_is_written()


async def test_a_log_that_comes_late_is_evidence_when_it_comes(scene: Scene) -> None:
    scene.workspace.delay = 20 * HOUR
    old = scene.key.current.version
    scene.add("aks-1")
    await scene.look()
    new = scene.rotate()

    await scene.after(20 * HOUR)
    early = await scene.seen(new)
    await scene.after(7 * HOUR)
    late = await scene.seen(new)

    assert (early, late) == ({"aks-1": (How.EXPECTED, False)}, {"aks-1": (How.SEEN, True)})
    assert await scene.standing(old) is not Standing.CANDIDATE
    await scene.assert_nothing_more_is_written()


async def test_a_version_that_nobody_expected_is_remembered_when_it_is_seen(scene: Scene) -> None:
    """The ledger comes late: the cluster has used the first version, and what it knows begins with the second."""
    old = scene.key.current.version
    scene.add("aks-1")
    scene.azure.clock.advance(7 * HOUR)
    scene.rotate()
    scene.azure.clock.advance(MINUTE)

    await scene.look()
    await scene.after(HOUR)

    assert await scene.seen(old) == {"aks-1": (How.SEEN, True)}
    assert await scene.why(old) == {Why.NOT_LEFT}
    await scene.assert_nothing_more_is_written()


async def test_a_legacy_cluster_s_uses_are_seen_and_its_slots_stay_as_they_are(scene: Scene) -> None:
    version = scene.key.current.version
    scene.add("aks-1", encryption="legacy")
    await scene.look()

    await scene.after(2 * HOUR)

    assert await scene.seen(version) == {"aks-1": (How.UPDATED, True)}
    assert await scene.why(version) == {Why.CURRENT}
    await scene.assert_nothing_more_is_written()


async def test_the_silence_of_a_cluster_that_stopped_in_between_shows_nothing(scene: Scene) -> None:
    """It has taken up the new version after its deadline, and was stopped before its secrets were re-encrypted."""
    scene.azure.aks.secrets.poll_interval = 12 * HOUR
    old = scene.key.current.version
    cluster = scene.add("aks-1")
    await scene.look()
    scene.azure.clock.advance(4 * HOUR)
    new = scene.rotate()
    await scene.after(8 * HOUR)

    scene.azure.aks.change(cluster.id, power("Stopped"))
    await scene.after(2 * DAY)

    assert await scene.seen(new) == {"aks-1": (How.SEEN, True)}
    assert {kek.version for kek in scene.azure.aks.versions_in_use(cluster)} == {old, new}
    assert await scene.standing(old) is Standing.NOT_SHOWN_UNNEEDED
    await scene.assert_nothing_more_is_written()


# what goes wrong


async def test_a_workspace_that_may_not_be_read_is_found_and_harms_nothing(scene: Scene) -> None:
    scene.workspace.readable = False
    old = scene.key.current.version
    scene.add("aks-1")
    await scene.look()
    new = scene.rotate()

    await scene.after(40 * HOUR)
    refused = await scene.found()
    unknown = await scene.standing(old)
    versions = {one.version for one in (await scene.app.keys.key(KEY)).versions}
    await scene.assert_nothing_more_is_written()
    scene.workspace.readable = True
    await scene.look()

    assert (refused, unknown) == ({"logs-unreadable": (None, 0)}, Standing.NOT_SHOWN_UNNEEDED)
    assert versions == {old, new}
    assert await scene.found() == {}
    assert await scene.standing(old) is Standing.CANDIDATE


def throttled(azure: Azure) -> None:
    headers = {"Retry-After": "60"}
    azure.faults.fail_next("POST", "/query$", 429, code="ThrottledError", message="Too many requests", headers=headers)


def broken(azure: Azure) -> None:
    azure.faults.fail_next("POST", "/query$", 504, code="GatewayTimeout", message="Gateway timeout", times=3)


def dropped(azure: Azure) -> None:
    azure.faults.drop_next("POST", "/query$", accepted=False, times=3)


def cut(azure: Azure) -> None:
    azure.logs.cut_next()


@pytest.mark.parametrize("fault", [throttled, broken, dropped, cut])
async def test_an_answer_that_is_none_shows_nothing_and_is_asked_for_again(
    scene: Scene, fault: Callable[[Azure], None]
) -> None:
    scene.add("aks-1")
    await scene.look()
    new = scene.rotate()
    scene.azure.clock.advance(7 * HOUR)

    messages = await scene.app.messages("keys")
    fault(scene.azure)
    await scene.look()
    unseen = await scene.seen(new)
    while scene.azure.faults.pending:
        scene.azure.faults.take("POST", "/v1/workspaces/x/query")
    await scene.look()

    assert unseen == {"aks-1": (How.EXPECTED, False)}
    assert await scene.seen(new) == {"aks-1": (How.SEEN, True)}
    assert await scene.found() == {}
    assert await scene.app.messages("keys") == messages


async def test_one_workspace_that_says_no_hides_nothing_of_another(scene: Scene) -> None:
    azure = scene.azure
    scene.add("aks-1")
    azure.clock.advance(7 * HOUR)
    now = azure.clock.now()

    async with ManagedIdentityCredential() as credential, AioHttpTransport() as transport:
        found = await Evidence(credential, transport, (OTHER_ID, ID)).of(KEY, now - DAY, now)

    assert found.refused == (OTHER_ID,)
    assert {one.version for one in found.sightings} == {scene.key.current.version}


async def test_a_use_that_is_refused_is_no_use_and_still_counts_against_retiring(scene: Scene) -> None:
    version = scene.key.current.version
    cluster = scene.add("aks-1", encryption="legacy")
    scene.azure.keyvault.set_enabled(scene.key, version, enabled=False)
    scene.azure.clock.advance(2 * HOUR + 10 * MINUTE)
    now = scene.azure.clock.now()

    async with ManagedIdentityCredential() as credential, AioHttpTransport() as transport:
        found = await Evidence(credential, transport, (ID,)).of(KEY, now - DAY, now)

    tried = scene.azure.aks.secrets.audit[-1].time
    assert found == Logs((Sighting(cluster.principal_id, version, None, None, tried),))


@pytest.mark.parametrize("key", [KeyId('kv"; drop', "etcd"), KeyId("kv-kms", "etcd|x"), KeyId("kv-kms", "")])
async def test_a_name_that_is_none_never_becomes_part_of_a_query(azure: Azure, key: KeyId) -> None:
    now = azure.clock.now()

    async with ManagedIdentityCredential() as credential, AioHttpTransport() as transport:
        with pytest.raises(Malformed):
            await Evidence(credential, transport, (ID,)).of(key, now - DAY, now)

    assert azure.journal.matching("POST", "/query$") == ()


async def test_the_keys_of_one_vault_and_others_of_like_names_are_told_apart(scene: Scene) -> None:
    other = scene.azure.keyvault.add_key(scene.vault, "etcd-2")
    cluster = scene.azure.aks.add("aks-9", encryption="customer-managed", key_id=other.uri)
    scene.azure.access.assign(cluster.principal_id, "Key Vault Crypto User", scene.vault.id)
    scene.azure.clock.advance(7 * HOUR)
    now = scene.azure.clock.now()

    async with ManagedIdentityCredential() as credential, AioHttpTransport() as transport:
        evidence = Evidence(credential, transport, (ID,))
        mine = await evidence.of(KEY, now - DAY, now)
        others = await evidence.of(KeyId("kv-kms", "etcd-2"), now - DAY, now)

    assert mine == Logs()
    assert [one.version for one in others.sightings] == [other.current.version]


# who can't be told apart


async def test_clusters_with_one_identity_are_named_and_never_give_a_candidate(scene: Scene) -> None:
    old = scene.key.current.version
    first = scene.add("aks-1")
    scene.add("aks-2", principal_id=first.principal_id)
    await scene.look()
    new = scene.rotate()

    await scene.after(40 * HOUR)

    assert await scene.found() == {"identity-shared": (None, 2)}
    assert await scene.seen(new) == dict.fromkeys(("aks-1", "aks-2"), (How.EXPECTED, False))
    assert {need.identity_shared for need in (await scene.needs())[old]} == {True}
    assert await scene.standing(old) is Standing.NOT_SHOWN_UNNEEDED
    await scene.assert_nothing_more_is_written()


async def test_what_an_identity_did_while_it_was_shared_stays_nobody_s_when_one_cluster_goes(scene: Scene) -> None:
    """The one that moved is deleted; the one that stays was stopped all the time, and is still on the old version."""
    old = scene.key.current.version
    moved = scene.add("aks-1")
    stays = scene.add("aks-2", principal_id=moved.principal_id, power="Stopped")
    await scene.look()
    scene.rotate()
    await scene.after(40 * HOUR)

    scene.azure.aks.delete(moved.id)
    await scene.app.look(moved.id, now=scene.azure.clock.now())
    await scene.after(2 * DAY)

    needs = {need.cluster.name: need.standing for need in (await scene.needs())[old]}
    assert {kek.version for kek in scene.azure.aks.versions_in_use(stays)} == {old}
    assert needs["aks-2"] is not Standing.CANDIDATE


async def test_what_an_identity_did_while_it_was_shared_stays_nobody_s_when_one_cluster_gets_another(
    scene: Scene,
) -> None:
    """The one that moved gets an identity of its own; the other was stopped all the time, on the old version."""
    old = scene.key.current.version
    moved = scene.add("aks-1")
    stays = scene.add("aks-2", principal_id=moved.principal_id, power="Stopped")
    own = scene.add("aks-3")
    await scene.look()
    new = scene.rotate()
    await scene.after(40 * HOUR)

    identity = own.document["identity"]
    scene.azure.aks.change(moved.id, lambda document: document.update(identity=identity))
    await scene.look()
    await scene.after(2 * DAY)

    needs = {need.cluster.name: need.standing for need in (await scene.needs())[old]}
    assert {kek.version for kek in scene.azure.aks.versions_in_use(stays)} == {old}
    assert needs["aks-2"] is not Standing.CANDIDATE
    assert (await scene.seen(new))["aks-2"] == (How.EXPECTED, False)
    await scene.assert_nothing_more_is_written()


# what is found


async def test_a_version_that_is_used_after_its_successor_is_due_is_found(scene: Scene) -> None:
    """This controller looks every twelve hours, and so it comes late."""
    scene.azure.aks.secrets.poll_interval = 12 * HOUR
    old = scene.key.current.version
    scene.add("aks-1")
    await scene.after(13 * HOUR)
    scene.rotate()

    await scene.after(HOUR)
    in_time = await scene.found()
    await scene.after(11 * HOUR)
    late = await scene.found()
    await scene.assert_nothing_more_is_written()
    await scene.after(25 * HOUR)

    assert (in_time, late) == ({}, {"still-in-use": (old, 1)})
    assert await scene.found() == {}, "it was a day ago"


async def test_a_cluster_that_is_at_work_and_never_comes_to_the_new_version_is_found(scene: Scene) -> None:
    """Its first version is disabled while it is being re-encrypted, and so it can't go on to the third."""
    first = scene.key.current.version
    scene.add("aks-1")
    await scene.look()
    second = scene.rotate()
    await scene.after(6 * HOUR + 5 * MINUTE)
    scene.azure.keyvault.set_enabled(scene.key, first, enabled=False)
    third = scene.rotate()

    await scene.after(14 * HOUR)

    assert await scene.found() == {"still-in-use": (second, 1), "adoption-overdue": (third, 1)}
    assert await scene.standing(second) is Standing.NEEDED
    await scene.assert_nothing_more_is_written()


async def test_a_cluster_that_is_stopped_is_not_overdue(scene: Scene) -> None:
    scene.add("aks-1", power="Stopped")
    await scene.look()
    scene.rotate()

    await scene.after(40 * HOUR)

    assert await scene.found() == {}


# nobody who retires candidates harms anybody


STEPS = st.one_of(
    st.just("rotate"),
    st.just("look"),
    st.just("retire"),
    st.just("share"),
    st.tuples(st.sampled_from(["wait"]), st.sampled_from([0.05, 1, 6, 7, 30])),
    st.tuples(st.sampled_from(["stop", "start", "delete"]), st.integers(0, 2)),
    st.tuples(st.sampled_from(["delay"]), st.sampled_from([0, 0.1, 30])),
)


def power(code: str) -> Callable[[Any], None]:
    return lambda document: document["properties"].update(powerState={"code": code})


async def play(scene: Scene, step: Any) -> None:
    """Let one thing happen."""
    azure = scene.azure
    match step:
        case "rotate":
            scene.rotate()
        case "look":
            await scene.look()
        case "retire":
            await retire(scene)
        case ("wait", hours):
            azure.clock.advance(hours * HOUR)
            await scene.look()
        case ("delay", hours):
            scene.workspace.delay = hours * HOUR
        case _:
            await play_on_clusters(scene, step)


async def play_on_clusters(scene: Scene, step: Any) -> None:
    azure = scene.azure
    clusters = sorted(azure.aks.clusters.values(), key=lambda one: one.name)
    match step:
        case "share":
            name = f"aks-{azure.clock.now():%d%H%M%S%f}"
            scene.add(name, principal_id=clusters[0].principal_id)
        case ("delete", number) if len(clusters) > 1:
            azure.aks.delete(clusters[number % len(clusters)].id)
            await scene.app.look(clusters[number % len(clusters)].id, now=azure.clock.now())
        case ("stop" | "start", number):
            azure.aks.change(clusters[number % len(clusters)].id, power("Stopped" if step[0] == "stop" else "Running"))


async def retire(scene: Scene) -> None:
    """Somebody disables every version that is a candidate; whatever could be read can be read."""
    await scene.look()
    now = scene.azure.clock.now()
    candidates = [version for version, needs in (await scene.needs()).items() if standing(needs) is Standing.CANDIDATE]
    clusters = list(scene.azure.aks.clusters.values())
    before = [scene.azure.aks.secrets.unreadable(cluster, now) for cluster in clusters]

    for version in candidates:
        scene.azure.keyvault.set_enabled(scene.key, version, enabled=False)

    assert [scene.azure.aks.secrets.unreadable(cluster, now) for cluster in clusters] == before, candidates


EXAMPLES = settings(PROPERTY, max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])


@EXAMPLES
@given(steps=st.lists(STEPS, min_size=8, max_size=16))
def test_who_disables_candidates_makes_no_secret_unreadable(
    simulator: Simulator, storage: Storage, authority: Authority, steps: list[Any]
) -> None:
    async def perform() -> None:
        simulator.azure = Azure()
        account = storage.account()
        provide(account, authority)
        async with staged(simulator.azure, account) as scene:
            scene.add("aks-1")
            scene.add("aks-2")
            await scene.look()
            for step in ["rotate", *steps, ("wait", 7), ("wait", 30), ("wait", 7), "retire"]:
                await play(scene, step)

    asyncio.run(perform())
