"""What encrypts the secrets of each cluster: the truth that ARM does not show.

Two experiences. Legacy: an API server knows two versions of a key, the current and the previous one; a PUT of another
one moves them on, and secrets stay as they were written until somebody rewrites them. Customer-managed: a controller
looks at the vault every six hours, takes the newest version and re-encrypts by itself.
Sources: AKS docs, use-kms-etcd-encryption, update-kms-key-vault, kms-data-encryption and
migrate-key-management-service-platform-managed-key-customer-managed-key; Azure/kubernetes-kms issue 291 (two rotations
without a rewrite); Azure/AKS issue 4926 (the previous version does not show, and stops the API server when it ends).

No source says these, here they are so:
* An operation that fails leaves the versions in use as they were.
* A move into the new experience, or within it, fails when a secret can't be read: what can't be read can't be
  rewritten.
* Legacy KMS turned off moves the versions on like a rotation: the last one stays as the previous one.
* The controller never takes an older version than the one in use, and none before the last re-encryption is over.
* What the controller does with the version in use at each look is to encrypt and decrypt.
* A stuck cluster stays stuck.
* A cluster that is seeded was in order until then; while nobody makes its vault and key, they are taken to be in order.
* With a key that has expired or is not valid yet, an API server is down in either experience, because it can't encrypt.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import Enum, auto
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from local.simulator.aks.documents import is_versioned_key
from local.simulator.aks.rules import KEY_URL, Kms
from local.simulator.aks.vault_access import NEEDED, Fault, KeyUse

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from local.simulator.aks.state import SimulatedCluster
    from local.simulator.clock import Clock
    from local.simulator.keyvault import KeyVault, SimulatedKey, SimulatedVersion

AUDITED = {"encrypt": "KeyEncrypt", "decrypt": "KeyDecrypt"}
DEFAULT_NAMESPACE = "default"
NOT_FOUND = frozenset({Fault.KEY_GONE, Fault.VERSION_GONE})


class Kek(NamedTuple):
    """One version of a key in a vault, by their names; it wraps what a secret is encrypted with."""

    vault: str
    key: str
    version: str

    @classmethod
    def of(cls, key_id: str) -> Kek:
        """Read it from a versioned key's URL."""
        host, _, key, version = key_id.removeprefix("https://").split("/")
        return cls(host.partition(".")[0], key, version)


@dataclass(frozen=True, slots=True)
class Secret:
    """One secret as it lies in etcd. `kek` None: no key of a customer's is needed for it."""

    name: str
    kek: Kek | None
    written: datetime
    namespace: str = DEFAULT_NAMESPACE


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A secret that nobody can read now, and why; `kek`: the version on which that lies."""

    secret: Secret
    kek: Kek
    why: Fault


@dataclass(frozen=True, slots=True)
class AuditLine:
    """One use of a key as the vault's audit log has it. `status`: the HTTP status that the cluster got.

    Source: Key Vault docs, logging; Azure Monitor docs, AZKVAuditLogs.
    """

    time: datetime
    operation: str  # KeyEncrypt or KeyDecrypt
    kek: Kek
    identity: str  # object id
    status: int


class SecretsUnreadable(Exception):
    """The API server does not give out, or take, secrets."""


class Ending(Enum):
    """What comes of an operation once it reaches the API server."""

    DONE = auto()
    BROKEN = auto()
    STUCK = auto()


@dataclass(frozen=True, slots=True)
class Slot:
    """A version of a key that an API server is set up with, and how it gets there: `kms` with a versioned key.

    `is_known`: somebody made the key here. One that nobody made can't be looked at and is taken to be in order.
    """

    kms: Kms
    is_known: bool

    @property
    def kek(self) -> Kek | None:
        """None as long as the newest version of a key that nobody made is meant."""
        return Kek.of(self.kms.key_id) if is_versioned_key(self.kms.key_id) else None


@dataclass(slots=True)
class Wrapping:
    """What a cluster's API server is set up with, and its secrets.

    `asked`: the KMS part that is in effect, since `since`. `previous`: legacy, the other of two keys; customer-managed,
    the version from which it is being re-encrypted, until `reencryption_due` at the earliest. `next_look`: when the
    plugin or the controller uses the key again.
    """

    asked: Kms
    since: datetime
    current: Slot | None = None
    previous: Slot | None = None
    secrets: list[Secret] = field(default_factory=list)
    is_stuck: bool = False
    reencryption_due: datetime | None = None
    next_look: datetime | None = None

    @property
    def is_followed(self) -> bool:
        """True when a controller follows the key's newest version: the form of the key's id decides."""
        return self.asked.enabled and not is_versioned_key(self.asked.key_id)

    @property
    def slots(self) -> list[Slot]:
        return [slot for slot in (self.current, self.previous) if slot is not None]

    def slot_of(self, kek: Kek) -> Slot | None:
        return next((slot for slot in self.slots if slot.kek == kek), None)

    def write_all(self, at: datetime) -> None:
        """Read every secret and write it back."""
        self.write_back({(secret.namespace, secret.name) for secret in self.secrets}, at)

    def write_back(self, chosen: Collection[tuple[str, str]], at: datetime) -> None:
        """Read these secrets, by namespace and name, and write them back."""
        kek = self.current.kek if self.current is not None else None
        self.secrets = [
            replace(secret, kek=kek, written=at) if (secret.namespace, secret.name) in chosen else secret
            for secret in self.secrets
        ]


class Secrets:
    """The clusters' secrets, and how their API servers use keys. Not locked: its caller is.

    `poll_interval`: how often the controller looks at the vault. `reencryption_duration`: what it then takes; no source
    says how long. `probe_interval`: how often a legacy plugin tries its key; really each minute, which is a long log.
    All three count from the next look on.
    """

    def __init__(self, clock: Clock, vaults: KeyVault) -> None:
        self.poll_interval = timedelta(hours=6)
        self.reencryption_duration = timedelta(minutes=10)
        self.probe_interval = timedelta(hours=1)
        self.audit: list[AuditLine] = []
        self._clock = clock
        self._vaults = vaults
        self._wrappings: dict[str, Wrapping] = {}

    def seed(self, cluster: SimulatedCluster, kms: Kms, at: datetime) -> None:
        """A cluster that is there, with one secret. One that was there by this name is forgotten."""
        wrapping = Wrapping(kms, at)
        if kms.enabled and KEY_URL.fullmatch(kms.key_id):
            wrapping.current = Slot(kms, is_known=False)
        wrapping.secrets = [Secret("first", None, at)]
        wrapping.write_all(at)
        self._recognise(wrapping)
        self._wrappings[cluster.id.lower()] = wrapping
        self._plan(cluster, wrapping, at)

    def forget(self, cluster: SimulatedCluster) -> None:
        """The cluster is gone with all its secrets."""
        del self._wrappings[cluster.id.lower()]

    def apply(self, cluster: SimulatedCluster, kms: Kms, at: datetime) -> Ending:
        """An operation has come through: what its document says of KMS takes effect."""
        wrapping = self._of(cluster)
        if wrapping.is_stuck:
            return Ending.STUCK
        if _asked(kms) == _asked(wrapping.asked):
            return Ending.DONE
        ending = self._migrate(cluster, wrapping, kms, at) if kms.is_new else self._move(wrapping, kms, at)
        if ending is Ending.DONE:
            self._try_key(cluster, wrapping, at)
            self._plan(cluster, wrapping, at)
        return ending

    def write(
        self, cluster: SimulatedCluster, name: str, at: datetime, *, namespace: str = DEFAULT_NAMESPACE
    ) -> Secret:
        """Somebody writes a secret. SecretsUnreadable when the API server is down, or can't read what it replaces.

        Source: kubernetes issue 86489: what can't be decrypted can't be written or deleted either.
        """
        wrapping = self._of(cluster)
        unreadable = {(one.secret.namespace, one.secret.name) for one in self.unreadable(cluster, at)}
        if not cluster.is_running or (namespace, name) in unreadable or self.outage(cluster, at) is not None:
            raise SecretsUnreadable(f"the API server of {cluster.name} can't write {name}")
        kek = wrapping.current.kek if wrapping.current is not None else None
        secret = Secret(name, kek, at, namespace)
        others = [one for one in wrapping.secrets if (one.namespace, one.name) != (namespace, name)]
        wrapping.secrets = [*others, secret]
        return secret

    def rewrite(self, cluster: SimulatedCluster, at: datetime) -> None:
        """Somebody reads all secrets and writes them back: all or none, as a list with one that can't be read fails.

        Source: AKS docs, use-kms-etcd-encryption (`kubectl get secrets --all-namespaces -o json | kubectl replace`).
        """
        unreadable = self.unreadable(cluster, at)
        if not cluster.is_running or unreadable:
            raise SecretsUnreadable(f"secrets of {cluster.name} can't be read: {[str(one.why) for one in unreadable]}")
        self._rewrite(cluster, self._of(cluster), at)

    def write_back(self, cluster: SimulatedCluster, chosen: Collection[tuple[str, str]], at: datetime) -> None:
        """Somebody reads these secrets, by namespace and name, and writes them back. All of them can be read."""
        self._of(cluster).write_back(chosen, at)

    def unreadable(self, cluster: SimulatedCluster, at: datetime) -> list[Unreadable]:
        """The secrets that nobody can read. Of a stopped cluster: once it is started."""
        wrapping = self._of(cluster)
        outage = self.outage(cluster, at)
        if outage is not None:
            return [Unreadable(secret, *outage) for secret in wrapping.secrets]
        found = ((secret, secret.kek) for secret in wrapping.secrets if secret.kek is not None)
        faults = ((secret, kek, self._unwrapping_fault(cluster, wrapping, kek, at)) for secret, kek in found)
        return [Unreadable(secret, kek, fault) for secret, kek, fault in faults if fault is not None]

    def outage(self, cluster: SimulatedCluster, at: datetime) -> tuple[Kek, Fault] | None:
        """What keeps the API server down: a version that it is set up with and can't encrypt and decrypt with.

        Both versions of legacy KMS, used or not. Source: AKS docs, use-kms-etcd-encryption.
        """
        wrapping = self._of(cluster)
        slots = wrapping.slots[:1] if wrapping.is_followed else wrapping.slots
        for slot in slots:
            fault = self._fault(cluster, slot, NEEDED, at)
            if slot.kek is not None and fault is not None:
                return slot.kek, fault
        return None

    def versions_in_use(self, cluster: SimulatedCluster) -> set[Kek]:
        """Every version without which the cluster's API server, or one of its secrets, would be lost."""
        wrapping = self._of(cluster)
        keks = [slot.kek for slot in wrapping.slots] + [secret.kek for secret in wrapping.secrets]
        return {kek for kek in keks if kek is not None}

    def secrets_of(self, cluster: SimulatedCluster) -> list[Secret]:
        """The secrets as they lie in etcd."""
        return list(self._of(cluster).secrets)

    def _of(self, cluster: SimulatedCluster) -> Wrapping:
        """What the cluster of this id has; LookupError when it is deleted."""
        wrapping = self._wrappings[cluster.id.lower()]
        self._recognise(wrapping)
        return wrapping

    # what an operation changes

    def _migrate(self, cluster: SimulatedCluster, wrapping: Wrapping, kms: Kms, at: datetime) -> Ending:
        """Into the new experience or within it: every secret is rewritten as a part of the operation.

        Source: AKS docs, migrate-key-management-service-platform-managed-key-customer-managed-key.
        """
        if self.unreadable(cluster, at):
            return Ending.BROKEN
        for slot in wrapping.slots:
            self._log(cluster, slot, "decrypt", at)
        wrapping.asked, wrapping.since = kms, at
        wrapping.current = self._slot(kms, at) if kms.enabled else None
        wrapping.previous = wrapping.reencryption_due = None
        wrapping.write_all(at)
        return Ending.DONE

    def _move(self, wrapping: Wrapping, kms: Kms, at: datetime) -> Ending:
        """Legacy: current becomes previous. What lies on neither of the two then is lost, and the cluster is stuck.

        Secrets stay as they are. Sources: AKS docs, use-kms-etcd-encryption; Azure/kubernetes-kms issue 291.
        """
        current = self._slot(kms, at) if kms.enabled else None
        if current is None or wrapping.current is None or current.kek != wrapping.current.kek:
            wrapping.previous = wrapping.current
        wrapping.current = current
        wrapping.asked, wrapping.since, wrapping.reencryption_due = kms, at, None
        keks = {secret.kek for secret in wrapping.secrets if secret.kek is not None}
        wrapping.is_stuck = any(wrapping.slot_of(kek) is None for kek in keks)
        return Ending.STUCK if wrapping.is_stuck else Ending.DONE

    def _slot(self, kms: Kms, at: datetime) -> Slot:
        """Of the version that a document means at that time: the one it names, else the newest that can be used."""
        key = self._key(kms)
        if key is None:
            return Slot(kms, is_known=False)
        if is_versioned_key(kms.key_id):
            return Slot(kms, is_known=True)
        return _slot_of(kms, key, _newest_usable(key, at) or key.current)

    def _recognise(self, wrapping: Wrapping) -> None:
        """A seeded cluster's key came after it, or was not looked at yet: it had the version that was the newest."""
        slot = wrapping.current
        if slot is None or slot.is_known:
            return
        key = self._key(slot.kms)
        if key is None:
            return
        if slot.kek is not None:
            wrapping.current = replace(slot, is_known=slot.kek.version in key.versions)
            return
        versions = sorted(key.versions.values(), key=lambda version: version.created)
        before = [version for version in versions if version.created <= wrapping.since]
        wrapping.current = _slot_of(slot.kms, key, (before or versions[:1])[-1])
        kek = wrapping.current.kek
        wrapping.secrets = [replace(secret, kek=kek) for secret in wrapping.secrets]

    # what happens by itself

    def _plan(self, cluster: SimulatedCluster, wrapping: Wrapping, at: datetime) -> None:
        """Look at the vault again after a while, as long as there is a key in one."""
        if wrapping.current is None:
            wrapping.next_look = None
            return
        wrapping.next_look = at + (self.poll_interval if wrapping.is_followed else self.probe_interval)
        self._clock.at(wrapping.next_look, partial(self._look, cluster, wrapping))

    def _look(self, cluster: SimulatedCluster, wrapping: Wrapping, when: datetime) -> None:
        """The plugin tries its key, the controller also looks for a new version. A stopped cluster does neither."""
        if self._wrappings.get(cluster.id.lower()) is not wrapping or wrapping.next_look != when:
            return
        self._plan(cluster, wrapping, when)
        self._recognise(wrapping)
        if not cluster.is_running:
            return
        self._try_key(cluster, wrapping, when)
        if wrapping.is_followed:
            self._follow(cluster, wrapping, when)

    def _follow(self, cluster: SimulatedCluster, wrapping: Wrapping, when: datetime) -> None:
        """Adopt the newest version that can be used, and start to re-encrypt; or go on with what could not be ended."""
        if wrapping.reencryption_due is not None:
            self._reencrypt(cluster, wrapping, when)
            return
        current, key = wrapping.current, self._key(wrapping.asked)
        if current is None or current.kek is None or key is None:
            return
        newest, used = _newest_usable(key, when), key.versions.get(current.kek.version)
        if newest is None or (used is not None and newest.created <= used.created):
            return
        adopted = _slot_of(wrapping.asked, key, newest)
        if adopted == current or self._fault(cluster, adopted, NEEDED, when) is not None:
            return
        wrapping.current, wrapping.previous = adopted, current
        wrapping.reencryption_due = when + self.reencryption_duration
        self._try_key(cluster, wrapping, when)
        self._clock.at(wrapping.reencryption_due, partial(self._end_reencryption, cluster, wrapping))

    def _end_reencryption(self, cluster: SimulatedCluster, wrapping: Wrapping, when: datetime) -> None:
        if self._wrappings.get(cluster.id.lower()) is wrapping and wrapping.reencryption_due == when:
            self._reencrypt(cluster, wrapping, when)

    def _reencrypt(self, cluster: SimulatedCluster, wrapping: Wrapping, when: datetime) -> None:
        """Let go of the previous version, once that is due and every secret could be read; else at the next look."""
        is_due = wrapping.reencryption_due is not None and wrapping.reencryption_due <= when
        if not is_due or not cluster.is_running or self.unreadable(cluster, when):
            return
        self._rewrite(cluster, wrapping, when)
        wrapping.previous = wrapping.reencryption_due = None

    def _rewrite(self, cluster: SimulatedCluster, wrapping: Wrapping, at: datetime) -> None:
        read = {secret.kek for secret in wrapping.secrets}
        for slot in wrapping.slots:
            if slot.kek in read:
                self._log(cluster, slot, "decrypt", at)
        if wrapping.current is not None:
            self._log(cluster, wrapping.current, "encrypt", at)
        wrapping.write_all(at)

    def _try_key(self, cluster: SimulatedCluster, wrapping: Wrapping, at: datetime) -> None:
        """Encrypt and decrypt with the current version. Source: Azure/kubernetes-kms, its status call."""
        if wrapping.current is not None:
            for operation in NEEDED:
                self._log(cluster, wrapping.current, operation, at)

    # what a key can be used for

    def _key(self, kms: Kms) -> SimulatedKey | None:
        vault = self._vaults.vault_at(kms.vault_host)
        return None if vault is None else vault.keys.get(kms.key_id.split("/")[4].lower())

    def _fault(self, cluster: SimulatedCluster, slot: Slot, operations: Sequence[str], at: datetime) -> Fault | None:
        if not slot.is_known:
            return None
        return KeyUse(slot.kms, cluster.principals).fault(self._vaults, at, operations)

    def _unwrapping_fault(self, cluster: SimulatedCluster, wrapping: Wrapping, kek: Kek, at: datetime) -> Fault | None:
        """Reading needs to decrypt only, and a version that the API server is set up with."""
        slot = wrapping.slot_of(kek)
        return Fault.NO_SLOT if slot is None else self._fault(cluster, slot, ("decrypt",), at)

    def _log(self, cluster: SimulatedCluster, slot: Slot, operation: str, at: datetime) -> None:
        """What the vault writes down. A vault that is gone writes nothing."""
        fault = self._fault(cluster, slot, (operation,), at)
        if slot.kek is None or not slot.is_known or fault is Fault.VAULT_GONE:
            return
        status = 200 if fault is None else 404 if fault in NOT_FOUND else 403
        self.audit.append(AuditLine(at, AUDITED[operation], slot.kek, cluster.principal_id, status))


def _asked(kms: Kms) -> tuple[object, ...]:
    """What of a document is about keys."""
    return kms.is_new, kms.enabled, kms.key_id, kms.network_access, kms.vault_id.lower()


def _slot_of(kms: Kms, key: SimulatedKey, version: SimulatedVersion) -> Slot:
    return Slot(replace(kms, key_id=key.uri_of(version.version)), is_known=True)


def _newest_usable(key: SimulatedKey, at: datetime) -> SimulatedVersion | None:
    """The newest version that is enabled and valid."""
    usable = [
        version for version in key.versions.values() if not any(version.refusal(operation, at) for operation in NEEDED)
    ]
    return max(usable, key=lambda version: version.created, default=None)
