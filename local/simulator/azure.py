"""One simulated Azure: its state, and who answers which call."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from functools import partial
from threading import Condition, RLock
from typing import TYPE_CHECKING, Any

from local.simulator import access, eventsubscriptions, grants, identities, keyvault, logs, subscriptions, topics
from local.simulator import aks as managed_clusters
from local.simulator.clock import Clock
from local.simulator.errors import ServiceError, missing_api_version, not_simulated
from local.simulator.eventgrid import EventGrid
from local.simulator.faults import Faults
from local.simulator.identity import Caller, Identity
from local.simulator.journal import MANAGEMENT_HOST, Call, Journal
from local.simulator.permissions import Permissions, scope_of_call
from local.simulator.wire import Reply, Request

if TYPE_CHECKING:
    from local.simulator.wire import Route

NOT_SIMULATED = 501
CREDENTIALS = frozenset({"authorization", "x-identity-header"})
CLUSTER_TOKEN = "clusterToken"  # noqa: S105  a field's name

type Answer = Callable[[Request], Reply]
type Admission = Callable[[Request], Caller]  # who calls; raises when the service does not let the call in


class Azure:
    """The state of one tenant, seeded and read by tests. Fresh for each test; safe from any thread.

    `latency` is added, in real time, to every reply of ARM.
    """

    def __init__(self) -> None:
        self.lock = RLock()
        self.changed = Condition(self.lock)
        self.latency = timedelta(0)
        self.clock = Clock(self.changed)
        self.journal = Journal(self.changed)
        self.faults = Faults(self.changed)
        self.identity = Identity()
        self.subscriptions = subscriptions.Subscriptions(self.changed)
        self.permissions = Permissions(self.changed)
        self.access = access.Access(self.clock, self.changed)
        self.identities = identities.Identities(self.subscriptions, self.changed)
        self.eventgrid = EventGrid(self.clock, topics.Topics(self.clock, self.access, self.changed), self.changed)
        self.keyvault = keyvault.KeyVault(self.clock, self.eventgrid, self.subscriptions, self.access, self.changed)
        self.aks = managed_clusters.Aks(
            self.clock, self.eventgrid, self.subscriptions, self.keyvault, self.changed, identities=self.identities
        )
        self.logs = logs.Logs(self.clock, self.aks.secrets, self.changed)
        self.aks.commands.knows_caller = self._knows_cluster_token
        self.access.knows_principal = self._knows_principal
        self.access.knows_resource = self._knows_resource

    def add_resource_group(self, name: str, *, location: str = subscriptions.LOCATION) -> None:
        """An empty resource group that exists. One that is there stays as it is."""
        self.subscriptions.add(subscriptions.SUBSCRIPTION, group=name, location=location)

    def wait_for(self, predicate: Callable[[], object], *, deadline: float = 60.0) -> None:
        """Block until `predicate` holds, asked again at every change in here. TimeoutError after `deadline` seconds."""
        with self.changed:
            if not self.changed.wait_for(lambda: bool(predicate()), timeout=deadline):
                raise TimeoutError(f"not so within {deadline} s; the last calls: {self.journal.last()}")

    async def until(self, predicate: Callable[[], object]) -> None:
        """The same for callers with an event loop."""
        await asyncio.to_thread(self.wait_for, predicate)

    def answer(self, request: Request) -> Reply:
        """Carry one call out. Refusals are replies too; what nobody knows is 501. Writes it down in the journal."""
        with self.lock:
            self.clock.run_due()
            answer = self._find(request)
            if answer is None:
                reply = not_simulated(request.method, request.host, request.path).reply()
            else:
                reply = _replied(answer, request)
            self.record(request, reply.status, known=reply.status != NOT_SIMULATED)
            return reply

    def record(self, request: Request, status: int, *, known: bool = True) -> None:
        """Write a call down; `status` 0 when it ends without an answer."""
        call = Call(
            at=self.clock.now(),
            method=request.method,
            host=request.host,
            path=request.path,
            query=request.query,
            headers={name: value for name, value in request.headers.items() if name not in CREDENTIALS},
            body=_without_credentials(request.body),
            status=status,
            accepted=200 <= status < 300,
        )
        self.journal.add(call, known=known)

    def resolves(self, host: str) -> bool:
        """False for the host name of a vault or a topic that is not there: nobody reaches it."""
        with self.lock:
            if host.lower().endswith(keyvault.HOST_SUFFIX):
                return self.keyvault.vault_at(host) is not None
            if host.lower().endswith(topics.HOST_SUFFIX):
                return self.eventgrid.topics.at(host) is not None
            return True

    def _find(self, request: Request) -> Answer | None:
        if request.host == MANAGEMENT_HOST:
            return self._find_in_arm(request)
        if request.host.lower().endswith(keyvault.HOST_SUFFIX):
            admit = partial(keyvault.authenticate, self.identity)
            return _matched(request, self.keyvault, keyvault.DATA_PLANE_ROUTES, admit)
        if request.host.lower().endswith(topics.HOST_SUFFIX):
            return _matched(request, self.eventgrid.topics, topics.ROUTES, partial(topics.authenticate, self.identity))
        if request.host.lower() == logs.HOST:
            return _matched(request, self.logs, logs.ROUTES, partial(logs.authenticate, self.identity))
        return None

    def _find_in_arm(self, request: Request) -> Answer | None:
        return (
            self._matched(request, self.aks, managed_clusters.ROUTES)
            or self._matched(request, self.keyvault, keyvault.ROUTES)
            or self._matched(request, self.access, access.ROUTES)
            or self._matched(request, self.access, grants.ROUTES)
            or self._matched(request, self.identities, identities.ROUTES)
            or self._matched(request, self.eventgrid, eventsubscriptions.ROUTES)
            or self._matched(request, self.subscriptions, subscriptions.ROUTES)
        )

    def _matched[Room](self, request: Request, room: Room, routes: tuple[Route[Room], ...]) -> Answer | None:
        for one in routes:
            parameters = one.match(request.method, request.path)
            if parameters is not None:
                return partial(self._answered, one, room, parameters)
        return None

    def _answered[Room](self, found: Route[Room], room: Room, parameters: dict[str, str], request: Request) -> Reply:
        """One call to ARM: what ARM itself checks, then the resource provider's answer, as far as it may be seen."""
        matched = replace(request, parameters=parameters)
        caller = self._admit(matched)
        reply = partial(found.answer, room, replace(matched, caller=caller))
        scope = scope_of_call(request.path)
        if found.filtered and not self.permissions.is_refused(found.action, scope):
            return self._visible(reply(), caller, found.action, scope)
        self.permissions.check(caller.object_id, found.action, scope, found.linked(matched) if found.linked else ())
        return reply()

    def _visible(self, reply: Reply, caller: Caller, action: str, scope: str) -> Reply:
        """A page of a list without the rows that the caller may not read. It may be empty, and not be the last."""
        if self.permissions.may(caller.object_id, action, scope):
            return reply
        listed = json.loads(reply.rendered())
        listed["value"] = [row for row in listed["value"] if self.permissions.may(caller.object_id, action, row["id"])]
        return replace(reply, body=listed)

    def _admit(self, request: Request) -> Caller:
        """What ARM checks of each call: the token, the API version, and that what the path lies in exists."""
        caller = self.identity.authenticate(request.headers.get("authorization"))
        if not request.query.get("api-version"):
            raise missing_api_version()
        if "subscription" in request.parameters:
            self.subscriptions.require(request["subscription"], request.parameters.get("group"))
        return caller

    def _knows_cluster_token(self, token: str) -> bool:
        return self.identity.caller(f"Bearer {token}", {managed_clusters.ENTRA_SERVER}) is not None

    def _knows_principal(self, object_id: str) -> bool:
        wanted = object_id.lower()
        own = any(principal.object_id.lower() == wanted for principal in self.identity.principals.values())
        return (
            own
            or self.identities.knows(object_id)
            or any(cluster.principal_id.lower() == wanted for cluster in self.aks.clusters.values())
        )

    def _knows_resource(self, resource_id: str) -> bool:
        wanted = resource_id.lower()
        if wanted in self.keyvault.vaults or wanted in self.identities.all or wanted in self.aks.clusters:
            return True
        vault, _, key = wanted.rpartition("/keys/")
        return vault in self.keyvault.vaults and key in self.keyvault.vaults[vault].keys


def _without_credentials(body: Any) -> Any:
    """A body without the token that a run command passes on: that it was there stays."""
    if not isinstance(body, dict) or CLUSTER_TOKEN not in body:
        return body
    return {**body, CLUSTER_TOKEN: "(left out)"}


def _matched[Room](request: Request, room: Room, routes: tuple[Route[Room], ...], admit: Admission) -> Answer | None:
    for route in routes:
        parameters = route.match(request.method, request.path)
        if parameters is not None:
            return partial(_admitted, partial(route.answer, room), admit, parameters)
    return None


def _admitted(answer: Answer, admit: Admission, parameters: dict[str, str], request: Request) -> Reply:
    matched = replace(request, parameters=parameters)
    return answer(replace(matched, caller=admit(matched)))


def _replied(answer: Answer, request: Request) -> Reply:
    try:
        return answer(request)
    except ServiceError as error:
        return error.reply()
