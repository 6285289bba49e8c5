"""The whole thing on one machine: simulated Azure, Azurite, and the app in a local host. For trying and testing."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import parse_qs, quote, urlsplit

from azure.core.pipeline.transport import RequestsTransport
from azure.data.tables import TableServiceClient
from azure.storage.queue import QueueServiceClient

from local.certificates import Authority
from local.host.launcher import HostProcess
from local.simulator import Simulator
from local.storage import Account, Storage

if TYPE_CHECKING:
    from local.host.launcher import Answer
    from local.simulator import Azure
    from local.simulator.eventgrid import Delivery
    from local.simulator.logs import Workspace

APP = Path(__file__).parent.parent
TABLES = ("activity", "clusters", "enforcement", "keyusers", "rotations", "runs")
QUEUES = ("clusters", "clusters-poison", "keys", "keys-poison", "shards", "shards-poison")

SETTINGS = {
    "SWEEP_SCHEDULE": "0 0 0 30 2 *",  # never: a sweep of its own would come between the steps of a play
    "SUBSCRIPTIONS": "",
    "LOOK_AGAIN_SECONDS": "1",
}
"""As shipped, but for waits that a person at a screen can bear."""

WORKSPACE = "00000000-0000-0000-0000-0000000000e1"
INGESTION = timedelta(minutes=5)
"""How long a line of a vault's log takes to its workspace."""

CLUSTER_EVENTS = ("Microsoft.Resources.ResourceWriteSuccess", "Microsoft.Resources.ResourceDeleteSuccess")
KEY_EVENTS = ("Microsoft.KeyVault.KeyNewVersionCreated",)


def provide(account: Account, authority: Authority) -> None:
    """Make the tables and queues of an account, as the deployment does for a real one."""
    with tables_of(account, authority) as tables, queues_of(account, authority) as queues:
        for table in TABLES:
            tables.create_table(table)
        for queue in QUEUES:
            queues.create_queue(queue)


def tables_of(account: Account, authority: Authority) -> TableServiceClient:
    """A client that reads an account's tables by key, past the app. No proxy of the environment gets in its way."""
    return TableServiceClient.from_connection_string(account.connection_string(), transport=_transport(authority))


def queues_of(account: Account, authority: Authority) -> QueueServiceClient:
    """A client that reads an account's queues by key, past the app."""
    return QueueServiceClient.from_connection_string(account.connection_string(), transport=_transport(authority))


def subscribe(azure: Azure, host: HostProcess, *, subscriptions: Iterable[str], vaults: Iterable[str]) -> None:
    """Let Event Grid call the app. Vaults speak CloudEvents, subscriptions the Event Grid schema: both are served."""
    for subscription in subscriptions:
        azure.eventgrid.subscribe(
            f"/subscriptions/{subscription}", host.webhook("on_cluster_event"), event_types=CLUSTER_EVENTS
        )
    for vault in vaults:
        azure.eventgrid.subscribe(
            vault, host.webhook("on_key_event"), schema="CloudEventSchemaV1_0", event_types=KEY_EVENTS
        )


@dataclass(slots=True)
class Stage:
    """What runs. Entering the context starts it, leaving it ends it; nothing outlives this process."""

    policy: str
    settings: Mapping[str, str] = field(default_factory=dict)
    _open: ExitStack = field(default_factory=ExitStack)
    _simulator: Simulator | None = None
    _account: Account | None = None
    _host: HostProcess | None = None
    _queues: QueueServiceClient = field(init=False)

    def __enter__(self) -> Self:
        """Start the simulated Azure and Azurite. The host follows with `raise_curtain`, once the scene is set."""
        directory = Path(self._open.enter_context(tempfile.TemporaryDirectory(prefix="aks-kms-enforcer-")))
        authority = Authority.create(directory)
        self._simulator = Simulator(authority).start()
        self._open.callback(self._simulator.stop)
        storage = self._open.enter_context(Storage(authority))
        self._account = storage.account()
        provide(self._account, authority)
        self._queues = self._open.enter_context(queues_of(self._account, authority))
        policy = directory / "kms-policy.yaml"
        policy.write_text(self.policy, encoding="utf-8")
        self.settings = SETTINGS | dict(self.settings) | {"POLICY_FILE": str(policy)} | self._account.settings()
        return self

    def __exit__(self, *_: object) -> None:
        """End everything."""
        self._open.close()

    def raise_curtain(self) -> None:
        """Start the app, and let Event Grid call it for all that is there by now."""
        environment = self._simulator_started.environment()
        self._host = self._open.enter_context(HostProcess.start(APP, settings=self.settings, environment=environment))
        azure = self.azure
        subscribe(
            azure,
            self._host,
            subscriptions=tuple(azure.subscriptions.all),
            vaults=[vault.id for vault in azure.keyvault.vaults.values()],
        )

    def workspace(self) -> Workspace:
        """The Log Analytics workspace that the app is told of. Only before the curtain is raised."""
        found = self.azure.logs.workspaces.get(WORKSPACE)
        self.settings = {**self.settings, "LOG_WORKSPACES": WORKSPACE}
        return found or self.azure.logs.add(WORKSPACE, delay=INGESTION)

    @property
    def azure(self) -> Azure:
        """The simulated Azure's state."""
        return self._simulator_started.azure

    @property
    def host(self) -> HostProcess:
        """The app's host."""
        if self._host is None:
            raise RuntimeError("the curtain is still down")
        return self._host

    def ask(self, path: str) -> dict[str, Any]:
        """Ask the app's API for a JSON object."""
        return self._read(self.host.call("GET", path, key=self.host.function_key), "GET", path)

    @staticmethod
    def _read(answer: Answer, method: str, path: str) -> dict[str, Any]:
        if answer.status >= HTTPStatus.BAD_REQUEST:
            raise RuntimeError(f"{method} {path} answers {answer.status}: {answer.body.decode(errors='replace')}")
        body: dict[str, Any] = answer.json()
        return body

    def versions(self, key: str) -> list[dict[str, Any]]:
        """Ask the app how each version of a key, `vault/key`, stands; none of a key that it does not know yet."""
        answer = self.host.call("GET", f"/api/keys/{key}", key=self.host.function_key)
        if answer.status == HTTPStatus.NOT_FOUND:
            return []
        versions: list[dict[str, Any]] = self._read(answer, "GET", f"/api/keys/{key}")["versions"]
        return versions

    def order(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Give the app an order, as an operator does."""
        return self._read(self.host.call("POST", path, key=self.host.function_key, body=dict(body)), "POST", path)

    def all_clusters(self) -> list[dict[str, Any]]:
        """Ask the app for all its clusters, page by page."""
        page = self.ask("/api/clusters?top=1000")
        rows: list[dict[str, Any]] = page["clusters"]
        while page["continuation"]:
            page = self.ask(f"/api/clusters?top=1000&continuation={quote(page['continuation'])}")
            rows += page["clusters"]
        return rows

    def waiting_messages(self) -> int:
        """How many messages are visible or being worked on. Delayed ones are not: nobody waits for those."""
        peeked = [self._queues.get_queue_client(queue).peek_messages(max_messages=32) for queue in QUEUES]
        running = int(self.host.status()["running"])
        return running + sum(map(len, peeked))

    def deliver_again(self, delivery: Delivery) -> None:
        """Deliver an event once more, as Event Grid may at any time."""
        function = parse_qs(urlsplit(delivery.subscription.endpoint_url).query)["functionName"][0]
        self.host.notify(function, delivery.payload)

    @property
    def _simulator_started(self) -> Simulator:
        if self._simulator is None:
            raise RuntimeError("the stage is not set up")
        return self._simulator


def _transport(authority: Authority) -> RequestsTransport:
    return RequestsTransport(use_env_settings=False, connection_verify=str(authority.ca_file))
