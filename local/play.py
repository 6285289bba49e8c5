"""Plays a scenario on a stage: sets the scene, does its steps, and checks what everything ended as."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from local.scenario import Creation, Fleet, Scenario, Step, VaultEnd
from local.simulator.access import Filter
from local.simulator.activity import PERSON
from local.simulator.aks.state import SimulatedCluster
from local.simulator.keyvault import SimulatedKey, SimulatedVault, access_policy
from local.stage import Stage

Json = dict[str, Any]
Show = Callable[["Play"], None]

_WITHIN = timedelta(seconds=90)
_PAUSE_SECONDS = 0.2
_HAD_ITS_ROLES_FOR = timedelta(days=1)
_NETWORKS: dict[str, Json] = {
    "open": {},
    "trusted": {"default_action": "Deny", "bypass": "AzureServices"},
    "closed": {"default_action": "Deny", "bypass": "None"},
}
_STILL = 5
"""So many looks in a row at which nothing moves: nothing will."""


class Stuck(Exception):
    """Something did not come about in time; the text says what."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One thing that had to be so, and whether it was."""

    what: str
    expected: str
    found: str

    @property
    def holds(self) -> bool:
        """Whether it ended as the scenario says."""
        return self.expected == self.found


@dataclass(slots=True)
class Play:
    """One performance. `show` is called at every change and many times a second while something is waited for."""

    scenario: Scenario
    stage: Stage
    show: Show
    rows: dict[str, Json] = field(default_factory=dict)
    rotations: list[Json] = field(default_factory=list)
    actors: dict[str, Fleet] = field(default_factory=dict)
    clusters: dict[str, SimulatedCluster] = field(default_factory=dict)
    versions: dict[str, list[Json]] = field(default_factory=dict)
    unreadable: set[str] = field(default_factory=set)
    verdicts: list[Verdict] = field(default_factory=list)
    said: str = ""
    done: int = 0
    started: float = field(default_factory=time.monotonic)
    news: list[str] = field(default_factory=list)

    def perform(self) -> bool:
        """Play the scenario to its end; return whether everything ended as it says. Stuck if a wait is in vain."""
        self._set_the_scene()
        self.stage.raise_curtain()
        for step in self.scenario.steps:
            if step.say:
                self.said = step.say
                self.news.append(step.say)
            self._take(step)
            self.done += 1
            self.look()
        self._check()
        return all(verdict.holds for verdict in self.verdicts)

    def look(self) -> None:
        """Read what the app says now, note what is new, and show it."""
        rows = {row["name"]: row for row in self.stage.all_clusters()}
        self.news += [line for name, row in rows.items() for line in _news(name, self.rows.get(name), row)]
        known = {(one["key"], one["version"]) for one in self.rotations}
        rotations = sorted(self.stage.ask("/api/rotations")["rotations"], key=lambda one: str(one["created"]))
        self.news += [
            f"{one['vault']}/{one['key']}: version {one['version'][:8]} is logged, detected by {one['how']}"
            for one in rotations
            if (one["key"], one["version"]) not in known
        ]
        self.rows, self.rotations = rows, rotations
        self._look_at_versions()
        self.show(self)

    def _look_at_versions(self) -> None:
        """Read how each version stands of the keys that the scenario's end is about."""
        for key in self.scenario.ends.versions:
            before = {one["version"]: one["standing"] for one in self.versions.get(key, [])}
            self.versions[key] = self.stage.versions(key)
            self.news += [
                f"{key}: version {one['version'][:8]} is {one['standing']}{_by(one)}"
                for one in self.versions[key]
                if before.get(one["version"]) != one["standing"]
            ]

    def end_state(self) -> Json:
        """The end as JSON: what each cluster has and what the app says of it, every rotation, every verdict."""
        return {
            "scenario": self.scenario.title,
            "ok": bool(self.verdicts) and all(verdict.holds for verdict in self.verdicts),
            "seconds": round(time.monotonic() - self.started, 1),
            "clusters": [
                {
                    "name": name,
                    "keyManagement": str(self.clusters[name].encryption),
                    "writes": self.writes(name),
                    "ledger": self.rows.get(name),
                }
                for name in self.actors
            ],
            "rotations": self.rotations,
            "versions": self.versions,
            "writes": len(self.stage.azure.journal.writes()),
            "checks": [
                {"what": one.what, "expected": one.expected, "found": one.found, "ok": one.holds}
                for one in self.verdicts
            ],
        }

    def writes(self, name: str) -> int:
        """How many writes Azure took for a cluster."""
        path = self.clusters[name].id.lower()
        return sum(call.path.lower() == path for call in self.stage.azure.journal.writes())

    def _set_the_scene(self) -> None:
        azure = self.stage.azure
        azure.aks.update_duration = azure.keyvault.registration = self.scenario.update_duration
        azure.aks.commands.duration = self.scenario.update_duration
        for group in self.scenario.resource_groups:
            azure.add_resource_group(group.name, location=group.location)
        for identity in self.scenario.identities:
            azure.identities.add(identity.name, group=identity.group)
        for vault in self.scenario.vaults:
            simulated = azure.keyvault.add_vault(
                vault.name,
                purge_protection=vault.purge_protection,
                rbac=vault.rbac,
                **_NETWORKS[vault.network],
            )
            if vault.logs:
                azure.logs.send(simulated, self.stage.workspace())
            for key in vault.keys:
                azure.keyvault.add_key(simulated, key, kty=vault.key_kind)
        for fleet in self.scenario.clusters:
            self.actors[fleet.name] = fleet
            self.clusters[fleet.name] = azure.aks.add(**self._seed(fleet), state=fleet.state)
            self._grant(fleet)
        self.unreadable = self._unreadable()

    def _take(self, step: Step) -> None:
        """Let the one thing happen that a step names."""
        if step.sweep:
            self._sweep()
        if step.create is not None:
            self._create(step.create)
        if step.rotate is not None:
            self._rotate(step.rotate.key, announce=step.rotate.announce)
        if step.wait is not None:
            name, reason = step.wait.cluster, step.wait.reason
            self._wait(lambda: self.rows.get(name, {}).get("reason") == reason, f"{name} to be {reason}")
        if step.redeliver:
            self._redeliver()
        if step.advance is not None:
            self.stage.azure.clock.advance(step.advance)
            self.stage.host.advance(step.advance)
        self._operate(step)

    def _operate(self, step: Step) -> None:
        """Let an operator do what a step says."""
        if step.update is not None:
            self._update(step.update.cluster)
        if step.rewrite is not None:
            self._rewrite(step.rewrite.cluster, by=step.rewrite.by)

    def _sweep(self) -> None:
        """Let the timer fire, and wait until the sweep and the looks that it asked for are through."""
        before = self.stage.host.count("sweep_shard")
        self.stage.host.invoke("sweep_fleet")
        shards = len(self.stage.azure.subscriptions.all)
        self._wait(lambda: self.stage.host.count("sweep_shard") >= before + shards, "the sweep to end")
        self._wait(lambda: not self.stage.waiting_messages(), "the looks that the sweep asked for")

    def _create(self, creation: Creation) -> None:
        self.actors[creation.name] = creation
        seed = self._seed(creation)
        self.clusters[creation.name] = self.stage.azure.aks.create(**seed, duration=creation.duration)
        self._grant(creation)

    def _rotate(self, key: str, *, announce: bool) -> None:
        """Rotate, and wait for the announced version to be logged: what comes next must not overtake it."""
        vault, name = key.split("/")
        simulated = self._vault(vault)
        version = self.stage.azure.keyvault.rotate(simulated, name, announce=announce)
        if announce:
            self._wait(lambda: any(one["version"] == version for one in self.rotations), f"{key} to be logged")

    def _update(self, name: str) -> None:
        """Move a legacy cluster to the newest version of its key, and wait until the app has seen that in effect."""
        azure, cluster = self.stage.azure, self.clusters[name]
        with azure.lock:
            document = cluster.copy()
            kms = document["properties"]["securityProfile"]["azureKeyVaultKms"]
            key = self._key(self.actors[name].key or "")
            kms["keyId"] = key.uri_of(key.current.version)
            azure.aks.update(cluster, document, {}, PERSON)
        self._wait(lambda: self._is_through(name), f"the update of {name}")

    def _is_through(self, name: str) -> bool:
        waits = self.rows.get(name, {}).get("action") == "wait"
        settled = self.clusters[name].provisioning_state == "Succeeded"
        return settled and not waits and not self.stage.waiting_messages() and not self.stage.azure.eventgrid.pending

    def _rewrite(self, name: str, *, by: str) -> None:
        """Rewrite all secrets of a cluster, and tell the app that it is done."""
        cluster = self.clusters[name]
        self.stage.azure.aks.rewrite_secrets(cluster)
        self.stage.order(f"{_path(cluster)}/reencrypted", {"by": by})
        self.news.append(f"{name}: {by} has rewritten all secrets")
        self._wait(lambda: not self.stage.waiting_messages(), "the key to be looked at")

    def _key(self, key: str) -> SimulatedKey:
        vault, name = key.split("/")
        return self._vault(vault).key(name)

    def _vault(self, name: str) -> SimulatedVault:
        return next(one for one in self.stage.azure.keyvault.vaults.values() if one.name == name)

    def _seed(self, fleet: Fleet) -> Json:
        """What the simulated Azure is told of a cluster. A legacy one names its key's version, as it must."""
        seed = fleet.model_dump(include={"name", "subscription", "group", "location", "kubernetes", "identity"})
        seed |= fleet.model_dump(include={"encryption", "power", "tags"})
        if fleet.key is not None:
            key = self._key(fleet.key)
            seed["key_id"] = key.uri_of(key.current.version) if fleet.encryption == "legacy" else key.uri
        return seed

    def _grant(self, fleet: Fleet) -> None:
        """Give the cluster's identity its roles, and its permissions where a vault has access policies.

        It has had them for a while: a young grant on a private vault would be waited for.
        """
        long_ago = self.stage.azure.clock.now() - _HAD_ITS_ROLES_FOR
        identities = self.clusters[fleet.name].document["identity"].get("userAssignedIdentities", {})
        for identity in identities.values():
            for vault, roles in fleet.roles.items():
                for role in roles:
                    scope = self._vault(vault).id
                    self.stage.azure.access.assign(identity["principalId"], role, scope, created=long_ago)
            for vault, permissions in fleet.permissions.items():
                found = self._vault(vault)
                policies = [*found.properties["accessPolicies"], access_policy(identity["principalId"], *permissions)]
                self.stage.azure.keyvault.set_access_policies(found, policies)

    def _redeliver(self) -> None:
        for delivery in list(self.stage.azure.eventgrid.delivered):
            self.stage.deliver_again(delivery)
        self._wait(lambda: not self.stage.waiting_messages(), "the events to be looked at")

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + _WITHIN.total_seconds()
        self.look()
        while not condition():
            if time.monotonic() > end:
                raise Stuck(f"waited {_WITHIN.seconds} s in vain for {what}\n{self.stage.host.child.tail()}")
            time.sleep(_PAUSE_SECONDS)
            self.look()

    def _check(self) -> None:
        """Wait for the end that the scenario names, or until nothing moves; then one more sweep must write nothing."""
        self.said = "Checking the end"
        end = time.monotonic() + _WITHIN.total_seconds()
        still = 0
        while not all(one.holds for one in self._compared()) and still < _STILL and time.monotonic() < end:
            time.sleep(_PAUSE_SECONDS)
            self.look()
            still = still + 1 if self._nothing_moves() else 0
        writes = len(self.stage.azure.journal.writes())
        self._sweep()
        again = len(self.stage.azure.journal.writes()) - writes
        lost = ", ".join(sorted(self._unreadable() - self.unreadable)) or "none"
        self.verdicts = [
            *self._compared(),
            Verdict("clusters that lost a secret", "none", lost),
            Verdict("writes of one more sweep", "0", str(again)),
        ]
        self.look()

    def _unreadable(self) -> set[str]:
        """The clusters with a secret that nobody can read: some are so from the beginning."""
        return {name for name, cluster in self.clusters.items() if not self.stage.azure.aks.readable(cluster)}

    def _nothing_moves(self) -> bool:
        waits = any(row["action"] == "wait" for row in self.rows.values())
        return not waits and not self.stage.waiting_messages() and not self.stage.azure.eventgrid.pending

    def _compared(self) -> Iterator[Verdict]:
        for name, end in self.scenario.ends.clusters.items():
            row = self.rows.get(name, {})
            has = str(self.clusters[name].encryption) if name in self.clusters else "nothing"
            yield Verdict(
                name,
                f"{end.key_management}, {end.reason}, {_count(end.writes, 'write')}",
                f"{has}, {row.get('reason')}, {_count(self.writes(name), 'write')}",
            )
            if end.secrets:
                yield Verdict(f"the secrets of {name}", end.secrets, self._secrets_found(name))
        for key, expected in self.scenario.ends.rotations.items():
            found = Counter(one["how"] for one in self.rotations if f"{one['vault']}/{one['key']}" == key)
            yield Verdict(key, _counts(expected), _counts(found))
        for key, standings in self.scenario.ends.versions.items():
            stand = {number: one["standing"] for number, one in enumerate(self.versions.get(key, []), 1)}
            yield Verdict(f"{key}, its versions", _standings(standings), _standings(stand))
        for name, vault in self.scenario.ends.vaults.items():
            yield Verdict(name, _vault_words(vault.network, vault.keys, vault.roles), self._vault_found(name, vault))

    def _secrets_found(self, name: str) -> str:
        """Whether a cluster's secrets can be read, which version they are written with, and which ones it needs.

        Versions of its key are numbered from the oldest.
        """
        aks, cluster = self.stage.azure.aks, self.clusters[name]
        fleet = self.actors[name]
        if fleet.key is None:
            return "no key"
        vault, key = fleet.key.split("/")
        versions = sorted(self._vault(vault).key(key).versions.values(), key=lambda version: version.created)
        numbers = {version.version: number for number, version in enumerate(versions, start=1)}
        written = {numbers[one.kek.version] for one in aks.secrets.secrets_of(cluster) if one.kek is not None}
        needed = {numbers[kek.version] for kek in aks.versions_in_use(cluster)}
        can = "readable" if aks.readable(cluster) else "unreadable"
        return f"{can}, written with {_numbers(written)}, need {_numbers(needed)} of {len(versions)}"

    def _vault_found(self, name: str, expected: VaultEnd) -> str:
        """What a vault is by now, in the words of its end. Of roles, those of the clusters that the end names."""
        vault = self.stage.azure.keyvault.named(name)
        if vault is None or vault.deleted is not None:
            return "no vault"
        keys = [key.name for key in vault.keys.values()]
        return _vault_words(_network(vault), keys, {cluster: self._roles(cluster, vault) for cluster in expected.roles})

    def _roles(self, cluster: str, vault: SimulatedVault) -> list[str]:
        """The roles that a cluster's identity has at a vault and above it."""
        if cluster not in self.clusters:
            return []
        of_identity = Filter(at_scope=True, principal=self.clusters[cluster].principal_id)
        return [assignment.role.name for assignment in self.stage.azure.access.listed(vault.id, of_identity)]


def _news(name: str, before: Json | None, now: Json) -> Iterator[str]:
    """What is new of a cluster, in a sentence."""
    seen = ("action", "reasons", "keyManagement")
    if before is not None and [before[part] for part in seen] == [now[part] for part in seen]:
        return
    fix = f" -> {now['fix']['text']}" if now["fix"] else ""
    has, why = now["keyManagement"] or "nothing that can be read yet", ", ".join([now["action"], *now["reasons"]])
    yield f"{name}: has {has}; {why}{fix}"


def _path(cluster: SimulatedCluster) -> str:
    parts = cluster.id.split("/")
    return f"/api/clusters/{parts[2]}/{cluster.group}/{cluster.name}"


def _by(version: Json) -> str:
    """Who needs a version, in a sentence."""
    names = needed_by(version)
    return f" by {', '.join(names)}" if names else ""


def needed_by(version: Json) -> list[str]:
    """The names of the clusters that need a version, as the app tells of it."""
    return [str(one["cluster"]).rsplit("/", 1)[-1] for one in version["clusters"] if one["standing"] == "needed"]


def _standings(standings: Mapping[int, str]) -> str:
    return ", ".join(f"{number} {word}" for number, word in sorted(standings.items())) or "none"


def _network(vault: SimulatedVault) -> str:
    if vault.network.is_open:
        return "open"
    return "trusted" if vault.network.admits_trusted_services else "closed"


def _vault_words(network: str, keys: Iterable[str], roles: Mapping[str, Iterable[str]]) -> str:
    """A vault in a line: keys and roles in order, each as often as it is there."""
    named = f"keys {', '.join(sorted(keys)) or 'none'}"
    held = [f"{cluster} has {', '.join(sorted(names)) or 'no role'}" for cluster, names in sorted(roles.items())]
    return "; ".join([network, named, *held])


def _numbers(found: Iterable[int]) -> str:
    return " and ".join(map(str, sorted(found))) or "none"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{number} by {how}" for how, number in sorted(counts.items())) or "none"
