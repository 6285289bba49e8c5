"""What encrypts the secrets of a simulated cluster: two slots, a controller, and the keys that both depend on."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from local.simulator import Azure
from local.simulator.aks import Fault, SecretsUnreadable, SimulatedCluster
from tests.builders import PROPERTY
from tests.simulator.clients import ENABLED, cluster_path, refusal

if TYPE_CHECKING:
    from local.simulator.aks import Kek
    from local.simulator.keyvault import SimulatedKey, SimulatedVersion
    from tests.simulator.clients import Arm

CRYPTO_USER = "Key Vault Crypto User"
DENY: dict[str, Any] = {"publicNetworkAccess": "Disabled"}
ALLOW: dict[str, Any] = {"publicNetworkAccess": "Enabled"}
OFF: dict[str, Any] = {"azureKeyVaultKms": {"enabled": False}}
PLATFORM: dict[str, Any] = OFF | ENABLED
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)


class Stage:
    """A vault with a key of one version, and clusters that may use it."""

    def __init__(self, azure: Azure) -> None:
        self.azure = azure
        self.vault = azure.keyvault.add_vault("kv-kms")
        self.key: SimulatedKey = azure.keyvault.add_key(self.vault, "etcd")
        self.first = self.key.current.version
        self.assignments: dict[str, str] = {}

    def add(self, encryption: Any, name: str = "aks-1", **seed: Any) -> SimulatedCluster:
        key_id = self.key.uri_of(self.key.current.version) if encryption == "legacy" else self.key.uri
        cluster = self.azure.aks.add(name, encryption=encryption, key_id=key_id, **seed)
        self.grant(cluster)
        return cluster

    def grant(self, cluster: SimulatedCluster) -> None:
        self.assignments[cluster.id] = self.azure.access.assign(cluster.principal_id, CRYPTO_USER, self.vault.id)

    def rotate(self) -> str:
        return self.azure.keyvault.rotate(self.vault, self.key)

    def enable(self, version: str, *, enabled: bool) -> None:
        self.azure.keyvault.set_enabled(self.key, version, enabled=enabled)

    def legacy(self, version: str) -> dict[str, Any]:
        """The profile that asks for this version."""
        return {"azureKeyVaultKms": self._kms(self.key.uri_of(version))}

    def customer(self) -> dict[str, Any]:
        return {"azureKeyVaultKms": self._kms(self.key.uri), **ENABLED}

    def write(self, cluster: SimulatedCluster, profile: dict[str, Any]) -> None:
        """Somebody writes the profile; this returns when the operation is over."""
        self.start(cluster, profile)
        self.azure.clock.advance(5 * MINUTE)

    def start(self, cluster: SimulatedCluster, profile: dict[str, Any]) -> None:
        self.azure.aks.change(
            cluster.id, lambda document: document["properties"].update(securityProfile=profile), duration=5 * MINUTE
        )

    def rotate_legacy(self, cluster: SimulatedCluster) -> str:
        version = self.rotate()
        self.write(cluster, self.legacy(version))
        return version

    def kek(self, version: str) -> tuple[str, str, str]:
        return ("kv-kms", "etcd", version)

    def keks(self, *versions: str) -> set[tuple[str, str, str]]:
        return {self.kek(version) for version in versions}

    def wrapped(self, cluster: SimulatedCluster) -> dict[str, str | None]:
        """By name, the version on which each secret lies."""
        secrets = self.azure.aks.secrets.secrets_of(cluster)
        return {secret.name: secret.kek.version if secret.kek else None for secret in secrets}

    def faults(self, cluster: SimulatedCluster) -> set[tuple[Kek, Fault]]:
        return {(one.kek, one.why) for one in self.azure.aks.unreadable(cluster)}

    def _kms(self, key_id: str) -> dict[str, Any]:
        return {"enabled": True, "keyId": key_id, "keyVaultNetworkAccess": "Public"}


@pytest.fixture
def stage(azure: Azure) -> Stage:
    return Stage(azure)


# legacy: two slots


def test_a_legacy_secret_stays_on_the_version_it_was_written_with(stage: Stage) -> None:
    cluster = stage.add("legacy")

    second = stage.rotate_legacy(cluster)
    stage.azure.aks.write_secret(cluster, "later")

    assert stage.wrapped(cluster) == {"first": stage.first, "later": second}
    assert stage.azure.aks.readable(cluster)


def test_a_new_version_changes_nothing_for_a_legacy_cluster(stage: Stage) -> None:
    cluster = stage.add("legacy")

    stage.rotate()
    stage.azure.clock.advance(48 * HOUR)

    assert stage.azure.aks.versions_in_use(cluster) == stage.keks(stage.first)


def test_both_slots_are_in_use_and_arm_shows_one_of_them(stage: Stage, arm: Arm) -> None:
    cluster = stage.add("legacy")
    second = stage.rotate_legacy(cluster)

    stage.azure.aks.rewrite_secrets(cluster)

    assert stage.wrapped(cluster) == {"first": second}
    assert stage.azure.aks.versions_in_use(cluster) == stage.keks(stage.first, second)
    shown = arm.get(cluster_path("aks-1")).text
    assert second in shown
    assert stage.first not in shown


def test_a_put_moves_the_slots_when_its_operation_ends(stage: Stage) -> None:
    cluster = stage.add("legacy")
    second = stage.rotate()

    stage.start(cluster, stage.legacy(second))
    during = stage.azure.aks.versions_in_use(cluster)
    stage.azure.clock.advance(5 * MINUTE)

    assert during == stage.keks(stage.first)
    assert stage.azure.aks.versions_in_use(cluster) == stage.keks(stage.first, second)


def test_after_a_rewrite_the_second_rotation_lets_the_oldest_version_go(stage: Stage) -> None:
    cluster = stage.add("legacy")
    second = stage.rotate_legacy(cluster)
    stage.azure.aks.rewrite_secrets(cluster)

    third = stage.rotate_legacy(cluster)
    stage.enable(stage.first, enabled=False)

    assert stage.azure.aks.versions_in_use(cluster) == stage.keks(second, third)
    assert stage.azure.aks.readable(cluster)
    assert cluster.provisioning_state == "Succeeded"


def test_two_rotations_without_a_rewrite_leave_a_cluster_stuck(stage: Stage, arm: Arm) -> None:
    cluster = stage.add("legacy")
    stage.rotate_legacy(cluster)
    stage.azure.aks.write_secret(cluster, "later")

    operation = arm.put_profile("aks-1", stage.legacy(stage.rotate())).headers["Azure-AsyncOperation"]
    stage.azure.clock.advance(48 * HOUR)

    assert cluster.provisioning_state == "Updating"
    assert arm.get(operation).json()["status"] in ("InProgress", "ReconcilingAddons")
    assert refusal(arm.put_profile("aks-1", stage.legacy(stage.first)))[0] == 409
    assert stage.faults(cluster) == {(stage.kek(stage.first), Fault.NO_SLOT)}
    assert [one.secret.name for one in stage.azure.aks.unreadable(cluster)] == ["first"]
    with pytest.raises(SecretsUnreadable):
        stage.azure.aks.rewrite_secrets(cluster)
    with pytest.raises(SecretsUnreadable):
        stage.azure.aks.write_secret(cluster, "first")
    stage.azure.aks.write_secret(cluster, "another")


def test_nobody_gets_a_stuck_cluster_out(stage: Stage) -> None:
    cluster = stage.add("legacy")
    stage.rotate_legacy(cluster)
    stage.rotate_legacy(cluster)

    stage.write(cluster, stage.legacy(stage.first))

    assert cluster.provisioning_state == "Updating"
    assert not stage.azure.aks.readable(cluster)


def test_going_back_to_the_other_slot_loses_nothing(stage: Stage) -> None:
    cluster = stage.add("legacy")
    second = stage.rotate_legacy(cluster)

    stage.write(cluster, stage.legacy(stage.first))

    assert stage.azure.aks.readable(cluster)
    assert stage.azure.aks.versions_in_use(cluster) == stage.keks(stage.first, second)


def test_secrets_are_plain_until_rewritten_after_legacy_kms_is_turned_on(stage: Stage) -> None:
    cluster = stage.add("none")

    stage.write(cluster, stage.legacy(stage.first))
    before = stage.wrapped(cluster)
    stage.azure.aks.rewrite_secrets(cluster)

    assert before == {"first": None}
    assert stage.wrapped(cluster) == {"first": stage.first}


def test_legacy_kms_turned_off_still_needs_its_key(stage: Stage) -> None:
    cluster = stage.add("legacy")

    stage.write(cluster, OFF)
    before = stage.wrapped(cluster)
    stage.azure.aks.rewrite_secrets(cluster)

    assert before == {"first": stage.first}
    assert stage.wrapped(cluster) == {"first": None}
    assert stage.azure.aks.versions_in_use(cluster) == stage.keks(stage.first)
    stage.azure.keyvault.delete_key(stage.key)
    assert stage.faults(cluster) == {(stage.kek(stage.first), Fault.KEY_GONE)}


def test_another_key_after_legacy_kms_was_off_needs_a_rewrite_in_between(stage: Stage) -> None:
    careful, careless = stage.add("legacy", "aks-1"), stage.add("legacy", "aks-2")
    second = stage.rotate()
    for cluster in (careful, careless):
        stage.write(cluster, OFF)

    stage.azure.aks.rewrite_secrets(careful)
    for cluster in (careful, careless):
        stage.write(cluster, stage.legacy(second))

    assert (careful.provisioning_state, careless.provisioning_state) == ("Succeeded", "Updating")
    assert stage.azure.aks.readable(careful)
    assert not stage.azure.aks.readable(careless)


# what a version depends on


def _disabled(stage: Stage, version: str, _: SimulatedCluster) -> Callable[[], object]:
    stage.enable(version, enabled=False)
    return lambda: stage.enable(version, enabled=True)


def _expired(stage: Stage, version: str, _: SimulatedCluster) -> Callable[[], object]:
    now = stage.azure.keyvault.now()
    stage.azure.keyvault.set_key(stage.key, version=version, expires=now)
    return lambda: stage.azure.keyvault.set_key(stage.key, version=version, expires=now + 1000 * HOUR)


def _deleted(stage: Stage, *_: object) -> Callable[[], object]:
    stage.azure.keyvault.delete_key(stage.key)
    return lambda: _recover(stage)


def _vault_deleted(stage: Stage, *_: object) -> Callable[[], object]:
    stage.azure.keyvault.remove_vault(stage.vault)
    return lambda: stage.azure.keyvault.vaults.update({stage.vault.id.lower(): stage.vault})


def _closed(stage: Stage, *_: object) -> Callable[[], object]:
    stage.vault.properties.update(DENY)
    return lambda: stage.vault.properties.update(ALLOW)


def _no_role(stage: Stage, _: str, cluster: SimulatedCluster) -> Callable[[], object]:
    stage.azure.access.remove(stage.assignments[cluster.id])
    return lambda: stage.grant(cluster)


def _recover(stage: Stage) -> None:
    stage.vault.keys["etcd"] = stage.vault.deleted_keys.pop("etcd")


SPOILT = [
    pytest.param(_disabled, Fault.DISABLED, id="disabled"),
    pytest.param(_expired, Fault.EXPIRED, id="expired"),
    pytest.param(_deleted, Fault.KEY_GONE, id="key-deleted"),
    pytest.param(_vault_deleted, Fault.VAULT_GONE, id="vault-deleted"),
    pytest.param(_closed, Fault.CLOSED, id="vault-closed"),
    pytest.param(_no_role, Fault.NO_PERMISSION, id="role-removed"),
]


@pytest.mark.parametrize(("spoil", "fault"), SPOILT)
@pytest.mark.parametrize("encryption", ["legacy", "customer-managed"])
def test_a_version_that_can_t_be_used_stops_the_api_server_until_it_can(
    stage: Stage, encryption: str, spoil: Callable[..., Callable[[], object]], fault: Fault
) -> None:
    cluster = stage.add(encryption)

    mend = spoil(stage, stage.first, cluster)
    spoilt = stage.faults(cluster)
    with pytest.raises(SecretsUnreadable):
        stage.azure.aks.write_secret(cluster, "later")
    mend()

    assert spoilt == {(stage.kek(stage.first), fault)}
    assert stage.azure.aks.readable(cluster)


@pytest.mark.parametrize(("spoil", "fault"), SPOILT[:2])
def test_the_hidden_slot_stops_the_api_server_even_if_no_secret_lies_on_it(
    stage: Stage, spoil: Callable[..., Callable[[], object]], fault: Fault
) -> None:
    cluster = stage.add("legacy")
    stage.rotate_legacy(cluster)
    stage.azure.aks.rewrite_secrets(cluster)

    spoil(stage, stage.first, cluster)

    assert stage.faults(cluster) == {(stage.kek(stage.first), fault)}


def test_a_version_expires_by_the_clock_alone(stage: Stage) -> None:
    cluster = stage.add("legacy")
    stage.azure.keyvault.set_key(stage.key, expires=stage.azure.keyvault.now() + HOUR)

    before = stage.azure.aks.readable(cluster)
    stage.azure.clock.advance(HOUR)

    assert before
    assert stage.faults(cluster) == {(stage.kek(stage.first), Fault.EXPIRED)}


def test_a_purged_key_is_gone_for_good(stage: Stage) -> None:
    cluster = stage.add("legacy")
    stage.azure.keyvault.delete_key(stage.key)
    stage.vault.deleted_keys.clear()

    stage.azure.keyvault.add_key(stage.vault, "etcd")

    assert stage.faults(cluster) == {(stage.kek(stage.first), Fault.VERSION_GONE)}


# customer-managed: the controller


def test_the_controller_adopts_a_version_at_its_next_look_and_then_re_encrypts(stage: Stage) -> None:
    cluster = stage.add("customer-managed")
    second = stage.rotate()

    stage.azure.clock.advance(6 * HOUR - MINUTE)
    before = stage.azure.aks.versions_in_use(cluster)
    stage.azure.clock.advance(2 * MINUTE)
    stage.azure.aks.write_secret(cluster, "later")
    during = stage.azure.aks.versions_in_use(cluster), stage.wrapped(cluster)
    stage.azure.clock.advance(stage.azure.aks.secrets.reencryption_duration)

    assert before == stage.keks(stage.first)
    assert during == (stage.keks(stage.first, second), {"first": stage.first, "later": second})
    assert stage.azure.aks.versions_in_use(cluster) == stage.keks(second)
    assert stage.wrapped(cluster) == {"first": second, "later": second}
    assert stage.azure.journal.calls == ()


def test_arm_does_not_show_that_a_version_was_adopted(stage: Stage) -> None:
    cluster = stage.add("customer-managed")
    document = cluster.copy()

    stage.rotate()
    stage.azure.clock.advance(24 * HOUR)

    assert cluster.copy() == document


def test_a_long_jump_makes_the_looks_in_order(stage: Stage) -> None:
    cluster = stage.add("customer-managed")
    start = stage.azure.clock.now()
    second = stage.rotate()

    stage.azure.clock.advance(20 * HOUR)

    uses = [(line.time - start, line.operation, line.kek.version) for line in stage.azure.aks.secrets.audit]
    hours = [round(time / HOUR, 1) for time, *_ in uses]
    assert hours == [6.0, 6.0, 6.0, 6.0, 6.2, 6.2, 12.0, 12.0, 18.0, 18.0]
    assert [(operation, version) for _, operation, version in uses[4:6]] == [
        ("KeyDecrypt", stage.first),
        ("KeyEncrypt", second),
    ]
    assert {version for *_, version in uses[6:]} == {second}
    assert stage.azure.aks.readable(cluster)


def test_the_newest_of_several_versions_is_adopted(stage: Stage) -> None:
    cluster = stage.add("customer-managed")
    stage.rotate()
    third = stage.rotate()

    stage.azure.clock.advance(7 * HOUR)

    assert stage.azure.aks.versions_in_use(cluster) == stage.keks(third)


def test_a_disabled_or_not_yet_valid_version_is_not_adopted(stage: Stage) -> None:
    cluster = stage.add("customer-managed")
    second, third = stage.rotate(), stage.rotate()
    stage.enable(second, enabled=False)
    stage.azure.keyvault.set_key(stage.key, version=third, not_before=stage.azure.keyvault.now() + 9 * HOUR)

    stage.azure.clock.advance(7 * HOUR)
    at_seven = stage.azure.aks.versions_in_use(cluster)
    stage.azure.clock.advance(6 * HOUR)

    assert at_seven == stage.keks(stage.first)
    assert stage.azure.aks.versions_in_use(cluster) == stage.keks(third)


def test_the_controller_never_goes_back_to_an_older_version(stage: Stage) -> None:
    cluster = stage.add("customer-managed")
    second = stage.rotate()
    stage.azure.clock.advance(7 * HOUR)

    stage.enable(second, enabled=False)
    stage.azure.clock.advance(12 * HOUR)

    assert stage.azure.aks.versions_in_use(cluster) == stage.keks(second)
    assert stage.faults(cluster) == {(stage.kek(second), Fault.DISABLED)}


def test_the_old_version_is_needed_until_re_encryption_is_over(stage: Stage) -> None:
    cluster = stage.add("customer-managed")
    second = stage.rotate()
    stage.azure.clock.advance(6 * HOUR + MINUTE)

    stage.enable(stage.first, enabled=False)
    too_early = stage.faults(cluster)
    stage.azure.clock.advance(24 * HOUR)
    stalled = stage.azure.aks.versions_in_use(cluster), stage.azure.aks.readable(cluster)
    stage.enable(stage.first, enabled=True)
    mended = stage.azure.aks.readable(cluster)
    stage.azure.clock.advance(6 * HOUR)
    stage.enable(stage.first, enabled=False)

    assert too_early == {(stage.kek(stage.first), Fault.DISABLED)}
    assert stalled == (stage.keks(stage.first, second), False)
    assert mended
    assert stage.azure.aks.versions_in_use(cluster) == stage.keks(second)
    assert stage.azure.aks.readable(cluster)


def test_no_version_is_adopted_before_the_last_re_encryption_is_over(stage: Stage) -> None:
    cluster = stage.add("customer-managed")
    second = stage.rotate()
    stage.azure.clock.advance(6 * HOUR + MINUTE)
    stage.enable(stage.first, enabled=False)

    stage.rotate()
    stage.azure.clock.advance(12 * HOUR)

    assert stage.azure.aks.versions_in_use(cluster) == stage.keks(stage.first, second)


def test_a_vault_that_is_closed_at_the_look_delays_the_adoption(stage: Stage) -> None:
    cluster = stage.add("customer-managed")
    second = stage.rotate()
    stage.vault.properties.update(DENY)

    stage.azure.clock.advance(7 * HOUR)
    closed = stage.azure.aks.versions_in_use(cluster)
    stage.vault.properties.update(ALLOW)
    stage.azure.clock.advance(6 * HOUR)

    assert closed == stage.keks(stage.first)
    assert stage.azure.aks.versions_in_use(cluster) == stage.keks(second)


def test_a_stopped_cluster_adopts_nothing(stage: Stage) -> None:
    cluster = stage.add("customer-managed", power="Stopped")
    stage.rotate()

    stage.azure.clock.advance(24 * HOUR)

    assert stage.azure.aks.versions_in_use(cluster) == stage.keks(stage.first)
    assert stage.azure.aks.secrets.audit == []
    with pytest.raises(SecretsUnreadable):
        stage.azure.aks.rewrite_secrets(cluster)


def test_a_seeded_cluster_has_the_version_that_was_the_newest_then(stage: Stage) -> None:
    second = stage.rotate()
    after = stage.add("customer-managed", "aks-1")
    before = stage.azure.aks.add(
        "aks-2", encryption="customer-managed", key_id="https://kv-late.vault.azure.net/keys/etcd"
    )
    unknown = stage.azure.aks.versions_in_use(before), stage.azure.aks.readable(before)

    late = stage.azure.keyvault.add_vault("kv-late")
    version = stage.azure.keyvault.add_key(late, "etcd").current.version
    stage.azure.keyvault.rotate(late, "etcd")

    assert stage.azure.aks.versions_in_use(after) == stage.keks(second)
    assert unknown == (set(), True)
    assert stage.azure.aks.versions_in_use(before) == {("kv-late", "etcd", version)}


# moves


def test_platform_managed_secrets_are_always_readable(stage: Stage) -> None:
    cluster = stage.add("platform-managed")

    stage.azure.keyvault.remove_vault(stage.vault)
    stage.azure.clock.advance(1000 * HOUR)

    assert stage.azure.aks.readable(cluster)
    assert stage.azure.aks.versions_in_use(cluster) == set()


@pytest.mark.parametrize("start", ["none", "legacy", "customer-managed", "platform-managed"])
@pytest.mark.parametrize("to_platform", [True, False], ids=["to-platform", "to-customer"])
def test_a_move_into_the_new_experience_rewrites_the_secrets_when_it_ends(
    stage: Stage, start: str, *, to_platform: bool
) -> None:
    cluster = stage.add(start)
    before = stage.wrapped(cluster)
    stage.rotate()
    newest = None if to_platform or start == "customer-managed" else stage.key.current.version
    if start == "customer-managed" and not to_platform:
        newest = stage.first

    stage.start(cluster, PLATFORM if to_platform else stage.customer())
    during = stage.wrapped(cluster)
    stage.azure.clock.advance(5 * MINUTE)

    assert during == before
    assert stage.wrapped(cluster) == {"first": newest}
    assert stage.azure.aks.versions_in_use(cluster) == (stage.keks(newest) if newest else set())
    assert stage.azure.aks.readable(cluster)


def test_after_a_move_to_platform_managed_no_key_is_needed(stage: Stage) -> None:
    cluster = stage.add("legacy")
    stage.rotate_legacy(cluster)

    stage.write(cluster, PLATFORM)
    stage.azure.keyvault.remove_vault(stage.vault)

    assert stage.azure.aks.readable(cluster)


def test_what_can_t_be_read_can_t_be_moved(stage: Stage) -> None:
    cluster = stage.add("legacy")
    stage.enable(stage.first, enabled=False)

    stage.write(cluster, PLATFORM)
    broken = cluster.provisioning_state, stage.wrapped(cluster)
    stage.enable(stage.first, enabled=True)
    stage.write(cluster, PLATFORM)

    assert broken == ("Failed", {"first": stage.first})
    assert (cluster.provisioning_state, stage.wrapped(cluster)) == ("Succeeded", {"first": None})


def test_a_failed_operation_leaves_the_slots_as_they_were(stage: Stage) -> None:
    cluster = stage.add("legacy")
    second = stage.rotate()
    stage.azure.aks.fail_operation_next("InternalOperationError", "Internal server error")

    stage.write(cluster, stage.legacy(second))
    failed = stage.azure.aks.versions_in_use(cluster)
    stage.write(cluster, stage.legacy(second))

    assert failed == stage.keks(stage.first)
    assert stage.azure.aks.versions_in_use(cluster) == stage.keks(stage.first, second)


def test_a_cluster_made_again_has_a_history_of_its_own(stage: Stage) -> None:
    old = stage.add("legacy")
    stage.rotate_legacy(old)
    stage.azure.aks.delete(old.id)

    new = stage.add("platform-managed")
    stage.azure.clock.advance(2 * HOUR)

    assert stage.azure.aks.versions_in_use(new) == set()
    assert stage.wrapped(new) == {"first": None}


# the audit log


def test_the_vault_s_log_shows_which_version_a_legacy_cluster_uses(stage: Stage) -> None:
    cluster = stage.add("legacy")
    second = stage.rotate_legacy(cluster)
    stage.azure.clock.advance(HOUR)

    stage.enable(second, enabled=False)
    stage.azure.clock.advance(HOUR)

    lines = stage.azure.aks.secrets.audit
    assert {line.identity for line in lines} == {cluster.principal_id}
    assert [(line.operation, line.kek.version, line.status) for line in lines] == [
        ("KeyEncrypt", second, 200),
        ("KeyDecrypt", second, 200),
        ("KeyEncrypt", second, 200),
        ("KeyDecrypt", second, 200),
        ("KeyEncrypt", second, 403),
        ("KeyDecrypt", second, 403),
    ]


def test_a_rewrite_decrypts_with_each_version_that_it_reads(stage: Stage) -> None:
    cluster = stage.add("legacy")
    second = stage.rotate_legacy(cluster)
    stage.azure.aks.secrets.audit.clear()

    stage.azure.aks.rewrite_secrets(cluster)

    uses = [(line.operation, line.kek.version) for line in stage.azure.aks.secrets.audit]
    assert uses == [("KeyDecrypt", stage.first), ("KeyEncrypt", second)]


def test_a_deleted_key_is_logged_as_not_found_and_a_deleted_vault_logs_nothing(stage: Stage) -> None:
    stage.add("legacy")
    stage.azure.keyvault.delete_key(stage.key)
    stage.azure.clock.advance(HOUR)
    deleted = [line.status for line in stage.azure.aks.secrets.audit]

    stage.azure.keyvault.remove_vault(stage.vault)
    stage.azure.clock.advance(HOUR)

    assert deleted == [404, 404]
    assert len(stage.azure.aks.secrets.audit) == len(deleted)


# any order


BACK = st.integers(0, 3)


class AnyOrder(RuleBasedStateMachine):
    """A legacy and a customer-managed cluster with one key, whatever happens to it in whatever order.

    The legacy cluster's slots and secrets are kept a second time here, by the rules in the documents.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stage = Stage(Azure())
        self.legacy = self.stage.add("legacy", "aks-legacy")
        self.customer = self.stage.add("customer-managed", "aks-customer")
        self.current, self.previous = self.stage.first, ""
        self.written = {"first": self.stage.first}
        self.is_stuck = False

    @initialize(hours=st.integers(0, 5))
    def begin(self, hours: int) -> None:
        self.stage.azure.clock.advance(hours * HOUR)

    @rule()
    def rotate(self) -> None:
        self.stage.rotate()

    @precondition(lambda self: not self.is_stuck)
    @rule(back=BACK)
    def put(self, back: int) -> None:
        version = self._pick(back).version
        self.stage.write(self.legacy, self.stage.legacy(version))
        if version != self.current:
            self.current, self.previous = version, self.current
        self.is_stuck = not set(self.written.values()) <= {self.current, self.previous}

    @rule(name=st.sampled_from(["first", "second"]))
    def write(self, name: str) -> None:
        if self._allowed(self.stage.azure.aks.write_secret, self.legacy, name):
            self.written[name] = self.current
        self._allowed(self.stage.azure.aks.write_secret, self.customer, name)

    @rule()
    def rewrite(self) -> None:
        if self._allowed(self.stage.azure.aks.rewrite_secrets, self.legacy):
            self.written = dict.fromkeys(self.written, self.current)

    @precondition(lambda self: not self.is_stuck)
    @rule()
    def rotate_with_care(self) -> None:
        self.rewrite()
        self.rotate()
        self.put(0)
        self.rewrite()

    @rule(hours=st.integers(1, 30))
    def jump(self, hours: int) -> None:
        """What lies on a disabled version stays there, and the controller never goes back."""
        versions = self.stage.key.versions
        lying = {name: kek for name, kek in self.stage.wrapped(self.customer).items() if kek is not None}
        locked = {(name, kek) for name, kek in lying.items() if not versions[kek].enabled}
        before = max(versions[kek.version].created for kek in self._used_by_customer())

        self.stage.azure.clock.advance(hours * HOUR)

        assert locked <= set(self.stage.wrapped(self.customer).items())
        assert max(versions[kek.version].created for kek in self._used_by_customer()) >= before

    @rule(back=BACK, enabled=st.booleans())
    def enable(self, back: int, *, enabled: bool) -> None:
        self.stage.enable(self._pick(back).version, enabled=enabled)

    @rule(back=BACK, hours=st.integers(0, 20))
    def end(self, back: int, hours: int) -> None:
        expires = self.stage.azure.keyvault.now() + hours * HOUR
        self.stage.azure.keyvault.set_key(self.stage.key, version=self._pick(back).version, expires=expires)

    @rule()
    def extend_all(self) -> None:
        later = self.stage.azure.keyvault.now() + 10_000 * HOUR
        for version in self.stage.key.versions:
            self.stage.azure.keyvault.set_key(self.stage.key, version=version, enabled=True, expires=later)

    @rule()
    def retire_what_nobody_uses(self) -> None:
        clusters = (self.legacy, self.customer)
        before = [self.stage.azure.aks.readable(cluster) for cluster in clusters]
        used = {kek.version for cluster in clusters for kek in self.stage.azure.aks.versions_in_use(cluster)}

        for version in set(self.stage.key.versions) - used:
            self.stage.enable(version, enabled=False)

        assert [self.stage.azure.aks.readable(cluster) for cluster in clusters] == before

    @invariant()
    def the_legacy_cluster_is_as_the_documents_say(self) -> None:
        slots = {self.current, self.previous} - {""}
        assert self.stage.wrapped(self.legacy) == self.written
        used = slots | set(self.written.values())
        assert self.stage.azure.aks.versions_in_use(self.legacy) == self.stage.keks(*used)
        usable = all(self._is_usable(self.stage.key.versions[version]) for version in slots)
        assert self.stage.azure.aks.readable(self.legacy) == (usable and not self.is_stuck)
        assert self.legacy.provisioning_state == ("Updating" if self.is_stuck else "Succeeded")

    @invariant()
    def the_customer_managed_cluster_is_readable_while_all_it_uses_can_be_used(self) -> None:
        used = [self.stage.key.versions[kek.version] for kek in self._used_by_customer()]
        assert 1 <= len(used) <= 2
        if all(self._is_usable(version) for version in used):
            assert self.stage.azure.aks.readable(self.customer)
        if not any(version.enabled for version in used):
            assert not self.stage.azure.aks.readable(self.customer)

    def teardown(self) -> None:
        """With every version in order again, the controller comes to the newest one, and only the stuck stays so."""
        self.extend_all()
        self.stage.azure.clock.advance(20 * HOUR)

        newest = self.stage.key.current.version
        assert self._used_by_customer() == self.stage.keks(newest)
        assert set(self.stage.wrapped(self.customer).values()) == {newest}
        assert self.stage.azure.aks.readable(self.customer)
        assert self.stage.azure.aks.readable(self.legacy) != self.is_stuck

    def _pick(self, back: int) -> SimulatedVersion:
        """So many versions back from the newest, or the oldest."""
        versions = list(self.stage.key.versions.values())
        return versions[max(0, len(versions) - 1 - back)]

    def _is_usable(self, version: SimulatedVersion) -> bool:
        now = self.stage.azure.keyvault.now()
        return version.enabled and (version.expires is None or now < version.expires)

    def _used_by_customer(self) -> set[Kek]:
        return self.stage.azure.aks.versions_in_use(self.customer)

    @staticmethod
    def _allowed(act: Callable[..., object], *given: object) -> bool:
        try:
            act(*given)
        except SecretsUnreadable:
            return False
        return True


AnyOrder.TestCase.settings = settings(PROPERTY, max_examples=80, stateful_step_count=25)
TestAnyOrder = AnyOrder.TestCase
