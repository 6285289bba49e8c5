"""The managed clusters, and the operations that change them over time."""

from __future__ import annotations

import math
import uuid
from copy import deepcopy
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

from local.simulator.activity import DELETE_SUCCESS, PERSON, WRITE_SUCCESS, Activity
from local.simulator.aks.documents import (
    CLUSTER_TYPE,
    Encryption,
    IdentityKind,
    Seed,
    encryption_of,
    fill_generated,
    renew_etags,
    written,
)
from local.simulator.aks.rules import Kms, check_encryption, check_etag, check_feature, check_idle, check_running
from local.simulator.aks.run_command import RunCommands
from local.simulator.aks.secrets import DEFAULT_NAMESPACE, Ending, Kek, Secret, Secrets, Unreadable
from local.simulator.aks.vault_access import BROKEN_OPERATION, breaks, check_permission, is_put_to_use, principals
from local.simulator.clock import timestamp
from local.simulator.errors import failed_identity_operation, resource_not_found, throttled
from local.simulator.identities import assigned_in
from local.simulator.subscriptions import SUBSCRIPTION, Subscriptions
from local.simulator.wire import Json, rendered

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from threading import Condition

    from local.simulator.clock import Clock
    from local.simulator.eventgrid import EventGrid
    from local.simulator.identities import Identities
    from local.simulator.identity import Caller
    from local.simulator.keyvault import KeyVault

WRITE = f"{CLUSTER_TYPE}/write"
DELETE = f"{CLUSTER_TYPE}/delete"

# One PUT per minute and cluster, twenty at once. Source: AKS docs, quotas-skus-regions.
PUT_BURST = 20
PUT_REFILL = timedelta(minutes=1)

# What the service adds to a new cluster when the client leaves it out.
GENERATED_ON_CREATE = ("nodeResourceGroup", "servicePrincipalProfile", "identityProfile", "securityProfile")

# The last part of an operation shows this status, which is not among ARM's own.
RECONCILING_SHARE = 0.8

NEVER = datetime.max.replace(tzinfo=UTC)


@dataclass(slots=True)
class Operation:
    """One long-running operation. `failure`: code and text with which it ends. `uses_key`: it fails without its key."""

    id: str
    location: str
    started: datetime
    ends: datetime
    activity: Activity
    failure: tuple[str, str] | None = None
    uses_key: bool = False

    def document(self, now: datetime) -> Json:
        """Its status: InProgress, ReconcilingAddons, then Succeeded or Failed."""
        document: Json = {"name": self.id, "status": self._status(now), "startTime": timestamp(self.started)}
        if now >= self.ends:
            document["endTime"] = timestamp(self.ends)
            if self.failure is not None:
                document["error"] = {"code": self.failure[0], "message": self.failure[1]}
        return document

    def _status(self, now: datetime) -> str:
        if now >= self.ends:
            return "Succeeded" if self.failure is None else "Failed"
        is_late = now >= self.started + (self.ends - self.started) * RECONCILING_SHARE
        return "ReconcilingAddons" if is_late else "InProgress"


class SimulatedCluster:
    """One managed cluster. `document` is live: what a test changes there, the next GET shows."""

    def __init__(self, document: Json, *, visible_from: datetime | None = None) -> None:
        self.id = str(document["id"])
        self.visible_from = visible_from
        self.operation: Operation | None = None
        self.replaced_profile: Json | None = None
        self._document = document
        self._rendered: bytes | None = None
        self._is_handed_out = False

    @property
    def document(self) -> Json:
        self._is_handed_out = True  # whoever has it may change it at any time: never render from memory again
        return self._document

    @property
    def name(self) -> str:
        return str(self._document["name"])

    @property
    def group(self) -> str:
        return self.id.split("/")[4]

    @property
    def location(self) -> str:
        return str(self._document["location"])

    @property
    def etag(self) -> str:
        return str(self._document["eTag"])

    @property
    def provisioning_state(self) -> str:
        return str(self._document["properties"]["provisioningState"])

    @property
    def security_profile(self) -> Json:
        """A copy of `properties.securityProfile`."""
        return deepcopy(self._document["properties"].get("securityProfile") or {})

    @property
    def principal_id(self) -> str:
        """The object id of the control plane's identity: user-assigned, else system-assigned; empty without one."""
        identity = self._document.get("identity") or {}
        for assigned in (identity.get("userAssignedIdentities") or {}).values():
            return str(assigned["principalId"])
        return str(identity.get("principalId", ""))

    def identity_part(self) -> Json:
        """What its document says of its identity, and where it is."""
        return {name: deepcopy(self._document[name]) for name in ("identity", "location") if name in self._document}

    @property
    def kms(self) -> Kms:
        """What the document says about KMS, in effect or not yet."""
        return Kms.of(self._document)

    @property
    def principals(self) -> frozenset[str]:
        """The object ids with which the control plane may go to a vault."""
        return principals(self._document)

    @property
    def is_running(self) -> bool:
        """False for a stopped cluster, whose provisioning state says Succeeded all the same."""
        return bool(self._document["properties"]["powerState"]["code"] == "Running")

    @property
    def encryption(self) -> str:
        """none, platform-managed, customer-managed, legacy or ambiguous."""
        return encryption_of(self._document)

    def is_visible(self, now: datetime) -> bool:
        """False for a while when the first event comes before the cluster."""
        return self.visible_from is None or self.visible_from <= now

    def copy(self) -> Json:
        """The document as it is now."""
        return deepcopy(self._document)

    def write(self, document: Json, state: str) -> None:
        """Take a new document, with new eTags."""
        document["properties"]["provisioningState"] = state
        renew_etags(document)
        # A test that holds the live document goes on seeing the cluster.
        self._document.clear()
        self._document.update(document)
        self._rendered = None

    def rendered(self) -> bytes:
        """The document as it goes over the wire, rendered once per change."""
        if self._rendered is None or self._is_handed_out:
            self._rendered = rendered(self._document)
        return self._rendered


@dataclass(slots=True)
class Bucket:
    """The PUTs that a cluster still takes."""

    tokens: float
    at: datetime

    def take(self, now: datetime) -> None:
        """Take one token, or refuse with the seconds until there is one."""
        self.tokens = min(PUT_BURST, self.tokens + (now - self.at) / PUT_REFILL)
        self.at = now
        if self.tokens < 1:
            raise throttled(math.ceil((1 - self.tokens) * PUT_REFILL.total_seconds()))
        self.tokens -= 1


class Aks:
    """The clusters by lower-case id. Safe from any thread.

    `update_duration` and `create_duration` are what an operation takes on the simulated clock. `require_feature`: the
    new experience is refused without its preview feature, in `registered_features` or in the request's header.
    `secrets`: what encrypts the clusters' secrets, with the times that this takes and the log of how keys are used.
    `commands`: the commands that ran in the clusters.
    """

    def __init__(
        self,
        clock: Clock,
        eventgrid: EventGrid,
        subscriptions: Subscriptions,
        vaults: KeyVault,
        changed: Condition,
        *,
        identities: Identities,
    ) -> None:
        self.clusters: dict[str, SimulatedCluster] = {}
        self.operations: dict[str, Operation] = {}
        self.page_size = 100
        self.update_duration = timedelta(minutes=5)
        self.create_duration = timedelta(minutes=10)
        self.require_feature = False
        self.registered_features: set[str] = set()
        self.secrets = Secrets(clock, vaults)
        self.commands = RunCommands(clock, self.secrets)
        self._clock = clock
        self._eventgrid = eventgrid
        self._subscriptions = subscriptions
        self._vaults = vaults
        self._identities = identities
        self._changed = changed
        self._buckets: dict[str, Bucket] = {}
        self._next_failure: tuple[str, str] | None = None

    def add(
        self,
        name: str,
        *,
        subscription: str = SUBSCRIPTION,
        group: str = "rg-apps",
        location: str = "westeurope",
        kubernetes: str = "1.33.3",
        identity: IdentityKind = "user-assigned",
        principal_id: str | None = None,
        encryption: Encryption = "none",
        key_id: str | None = None,
        vault_id: str | None = None,
        network_access: Literal["Public", "Private"] = "Public",
        state: str = "Succeeded",
        power: Literal["Running", "Stopped"] = "Running",
        pools: Sequence[Mapping[str, Any]] | None = None,
        tags: Mapping[str, str] | None = None,
        properties: Mapping[str, Any] | None = None,
    ) -> SimulatedCluster:
        """A cluster that exists; no event tells of it. `pools` and `properties` are laid over the defaults."""
        seed = Seed(
            name=name,
            subscription=subscription,
            group=group,
            location=location,
            kubernetes=kubernetes,
            identity=identity,
            principal_id=principal_id,
            encryption=encryption,
            key_id=key_id,
            vault_id=vault_id,
            network_access=network_access,
            state=state,
            power=power,
            pools=pools,
            tags=tags,
            properties=properties,
        )
        return self._put(SimulatedCluster(seed.document()))

    def add_identity(self, name: str, *, group: str = "rg-apps") -> tuple[str, str]:
        """A user-assigned identity that clusters may be given by a write: its resource id and its principal's id."""
        identity = self._identities.add(name, subscription=SUBSCRIPTION, group=group)
        return identity.id, identity.principal_id

    def adopt(self, document: Json) -> SimulatedCluster:
        """A cluster that exists, given as ARM's own document; no event tells of it."""
        return self._put(SimulatedCluster(document))

    def create(
        self, name: str, *, duration: timedelta | None = None, hidden_for: timedelta = timedelta(0), **seed: Any
    ) -> SimulatedCluster:
        """Somebody creates a cluster now: Creating, then Succeeded; an event at both. Takes what `add` takes.

        `hidden_for`: the event comes first, a GET still finds nothing.
        """
        with self._changed:
            cluster = self.add(name, **seed, state="Creating")
            now = self._clock.now()
            cluster.visible_from = now + hidden_for
            activity = Activity(cluster.id, WRITE, PERSON, str(uuid.uuid4()))
            self._start(cluster, activity, self.create_duration if duration is None else duration)
        return cluster

    def change(
        self, cluster_id: str, mutate: Callable[[Json], object], *, duration: timedelta = timedelta(0)
    ) -> SimulatedCluster:
        """Somebody else writes a cluster: new eTags, events. With a `duration` it is Updating until that is over."""
        with self._changed:
            cluster = self.clusters[cluster_id.lower()]
            document = cluster.copy()
            mutate(document)
            self._accept(cluster, document, PERSON, duration, "PUT")
        return cluster

    def set_back(self, cluster_id: str) -> SimulatedCluster:
        """Somebody else (an apply of Terraform) writes the security profile that the last write replaced."""
        profile = deepcopy(self.clusters[cluster_id.lower()].replaced_profile)
        if profile is None:
            raise LookupError(f"nobody wrote {cluster_id} yet")
        return self.change(cluster_id, lambda document: document["properties"].update(securityProfile=profile))

    def delete(self, cluster_id: str) -> None:
        """Somebody deletes a cluster; an event tells of it."""
        with self._changed:
            cluster = self.clusters.pop(cluster_id.lower())
            self.secrets.forget(cluster)
            activity = Activity(cluster.id, DELETE, PERSON, str(uuid.uuid4()), "DELETE")
            self._eventgrid.publish(activity.event(DELETE_SUCCESS, self._clock.now()))
            self._changed.notify_all()

    def fail_operation_next(self, code: str, message: str) -> None:
        """Let the next operation that is accepted end as Failed, with the profile as it was sent."""
        self._next_failure = (code, message)

    def readable(self, cluster: SimulatedCluster) -> bool:
        """True when the cluster's API server runs, or could be started, and every secret can be read."""
        return not self.unreadable(cluster)

    def unreadable(self, cluster: SimulatedCluster) -> list[Unreadable]:
        """The secrets that can't be read, each with the version and the fault on which that lies."""
        with self._changed:
            self._clock.run_due()
            return self.secrets.unreadable(cluster, self._clock.now())

    def versions_in_use(self, cluster: SimulatedCluster) -> set[Kek]:
        """Every version that the cluster needs: in a slot or under a secret. ARM never shows them all."""
        with self._changed:
            self._clock.run_due()
            return self.secrets.versions_in_use(cluster)

    def write_secret(self, cluster: SimulatedCluster, name: str, *, namespace: str = DEFAULT_NAMESPACE) -> Secret:
        """Somebody writes a secret. SecretsUnreadable when the API server is down, or can't read what it replaces."""
        with self._changed:
            self._clock.run_due()
            return self.secrets.write(cluster, name, self._clock.now(), namespace=namespace)

    def rewrite_secrets(self, cluster: SimulatedCluster) -> None:
        """Somebody reads every secret and writes it back. SecretsUnreadable, and nothing done, when one can't be."""
        with self._changed:
            self._clock.run_due()
            self.secrets.rewrite(cluster, self._clock.now())

    def now(self) -> datetime:
        """The simulated time."""
        return self._clock.now()

    def find(self, cluster_id: str) -> SimulatedCluster | None:
        """A cluster that the service shows by now."""
        cluster = self.clusters.get(cluster_id.lower())
        if cluster is None or not cluster.is_visible(self._clock.now()):
            return None
        return cluster

    def require(self, cluster_id: str) -> SimulatedCluster:
        """A cluster that the service shows by now; 404 in its words when there is none."""
        cluster = self.find(cluster_id)
        if cluster is None:
            parts = cluster_id.split("/")
            raise resource_not_found(f"{CLUSTER_TYPE}/{parts[-1]}", parts[4])
        return cluster

    def below(self, prefix: str) -> dict[str, SimulatedCluster]:
        """The visible clusters whose id starts with this."""
        lower, now = prefix.lower(), self._clock.now()
        return {
            key: cluster for key, cluster in self.clusters.items() if key.startswith(lower) and cluster.is_visible(now)
        }

    def update(self, cluster: SimulatedCluster, body: Json, headers: Mapping[str, str], caller: Caller) -> Operation:
        """Managed Clusters - Create Or Update, of one that is there. The profile shows before it is in effect."""
        self._take_put_token(cluster.id)
        check_etag(headers, cluster.etag)
        before = cluster.copy()
        check_idle(before)
        check_running(before)
        after = written(body, before)
        self._check(before, after, headers)
        uses_key = is_put_to_use(before, after)
        return self._accept(cluster, after, caller, self.update_duration, "PUT", uses_key=uses_key)

    def insert(self, seed: Seed, body: Json, headers: Mapping[str, str], caller: Caller) -> tuple[Json, Operation]:
        """Managed Clusters - Create Or Update, of one that is not there. A reply of 201 carries no eTag."""
        self._take_put_token(seed.id)
        check_etag(headers, None)
        defaults = seed.document()
        document = written(body, defaults)
        self._check(None, document, headers)
        for name in GENERATED_ON_CREATE:
            document["properties"].setdefault(name, defaults["properties"][name])
        cluster = self._put(SimulatedCluster(document))
        activity = Activity(cluster.id, WRITE, caller, str(uuid.uuid4()))
        operation = self._start(cluster, activity, self.create_duration, uses_key=is_put_to_use(None, document))
        return {name: value for name, value in cluster.copy().items() if name != "eTag"}, operation

    def tag(
        self, cluster: SimulatedCluster, tags: Mapping[str, str], headers: Mapping[str, str], caller: Caller
    ) -> None:
        """Managed Clusters - Update Tags: refused while an operation runs, done at once otherwise."""
        check_etag(headers, cluster.etag)
        check_idle(cluster.copy())
        self._accept(cluster, cluster.copy() | {"tags": dict(tags)}, caller, timedelta(0), "PATCH")

    def _check(self, before: Json | None, after: Json, headers: Mapping[str, str]) -> None:
        """Refuse a document, or fill in what the service generates. The vault is tried last, with that identity."""
        if self.require_feature:
            check_feature(after, headers, self.registered_features)
        check_encryption(before, after)
        self._check_identities(before, after)
        self._identities.fill(after)
        fill_generated(after)
        check_permission(before, after, self._vaults, self._clock.now())

    def _check_identities(self, before: Json | None, after: Json) -> None:
        """ARM asks for a token of each identity that a cluster newly has, so it has to be there."""
        kept = {resource.lower() for resource in assigned_in(before or {})}
        new = [resource for resource in assigned_in(after) if resource.lower() not in kept]
        if any(self._identities.find(resource) is None for resource in new):
            raise failed_identity_operation(str(after["id"]))

    def _put(self, cluster: SimulatedCluster) -> SimulatedCluster:
        with self._changed:
            self._subscriptions.add(cluster.id.split("/")[2], group=cluster.group, location=cluster.location)
            self._identities.take(cluster.identity_part())
            self.clusters[cluster.id.lower()] = cluster
            self.secrets.seed(cluster, cluster.kms, self._clock.now())
            self._changed.notify_all()
        return cluster

    def _accept(
        self,
        cluster: SimulatedCluster,
        document: Json,
        caller: Caller,
        duration: timedelta,
        method: str,
        *,
        uses_key: bool = False,
    ) -> Operation:
        cluster.replaced_profile = cluster.security_profile
        self._identities.take(document)
        cluster.write(document, "Updating")
        activity = Activity(cluster.id, WRITE, caller, str(uuid.uuid4()), method)
        return self._start(cluster, activity, duration, uses_key=uses_key)

    def _start(
        self, cluster: SimulatedCluster, activity: Activity, duration: timedelta, *, uses_key: bool = False
    ) -> Operation:
        now = self._clock.now()
        failure, self._next_failure = self._next_failure, None
        operation = Operation(str(uuid.uuid4()), cluster.location, now, now + duration, activity, failure, uses_key)
        cluster.operation = operation
        self.operations[operation.id] = operation
        self._eventgrid.publish(activity.event(WRITE_SUCCESS, now))
        if duration > timedelta(0):
            self._clock.at(operation.ends, lambda when: self._end(cluster, operation, when))
        else:
            self._end(cluster, operation, now)
        return operation

    def _end(self, cluster: SimulatedCluster, operation: Operation, when: datetime) -> None:
        """The eTag changes once more: the one that a PUT returned is good for nothing."""
        if self.clusters.get(cluster.id.lower()) is not cluster or cluster.operation is not operation:
            return
        document = cluster.copy()
        if operation.uses_key and operation.failure is None and breaks(document, self._vaults, when):
            operation.failure = BROKEN_OPERATION
        if operation.failure is None and not self._takes_effect(cluster, operation, document, when):
            return
        properties = document["properties"]
        properties["currentKubernetesVersion"] = properties.get(
            "kubernetesVersion", properties["currentKubernetesVersion"]
        )
        cluster.write(document, "Succeeded" if operation.failure is None else "Failed")
        self._eventgrid.publish(operation.activity.event(WRITE_SUCCESS, when))
        self._changed.notify_all()

    def _takes_effect(self, cluster: SimulatedCluster, operation: Operation, document: Json, when: datetime) -> bool:
        """False when the cluster is stuck: its operation never ends. Source: Azure/kubernetes-kms issue 291."""
        ending = self.secrets.apply(cluster, Kms.of(document), when)
        if ending is Ending.STUCK:
            operation.ends = NEVER
            self._changed.notify_all()
            return False
        if ending is Ending.BROKEN:
            operation.failure = BROKEN_OPERATION
        return True

    def _take_put_token(self, cluster_id: str) -> None:
        now = self._clock.now()
        self._buckets.setdefault(cluster_id.lower(), Bucket(PUT_BURST, now)).take(now)
