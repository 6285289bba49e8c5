"""Commands that ARM runs in a pod of a cluster, and what becomes of its secrets.

One command is understood: the app's own, which reads a chunk of the secrets and writes them back. It is told by the two
integers with which it begins and by its being made of kubectl's get and replace; any other is a loud 501. What the
shell text really does is tried elsewhere, in a real shell.
Sources: Azure REST reference, AKS, Managed Clusters - Run Command and Get Command Result (202, Location; 200 and the
result where the command has ended);
Azure/azure-rest-api-specs issue 22480 (MissingAADClusterToken); docstring of
ManagedClusterAPIServerAccessProfile.disable_run_command; MicrosoftDocs/SupportArticles-docs, resolve-az-aks-command-
invoke-failures (KubernetesPerformanceError where no pod starts; the caller's rights in the cluster).

No source says these, here they are so:
* A cluster that disables run command, is stopped or is being changed refuses with the codes and texts below.
* Without a node that is ready, or with an API server that is down, the command ends as Failed.
* A token that is good for nothing lets the pod run, and kubectl answer Unauthorized.
* A namespace in which one secret can't be read fails as a whole: its list fails.
"""

from __future__ import annotations

import re
import uuid
import zlib
from collections import defaultdict, deque
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

from local.simulator.clock import timestamp
from local.simulator.errors import ServiceError, bad_request, not_simulated, operation_not_allowed

if TYPE_CHECKING:
    from collections.abc import Callable

    from local.simulator.aks.secrets import Secret, Secrets
    from local.simulator.aks.state import SimulatedCluster
    from local.simulator.clock import Clock
    from local.simulator.wire import Json

ENTRA_SERVER = "6dae42f8-4368-4678-94ff-3960e28e3630"
"""AKS in Entra ID. Source: Azure CLI, aks command invoke."""

SHAPE = re.compile(r"i=(\d{1,3}) n=(\d{1,3})\n(?=.*\bkubectl get secrets\b)(?=.*\bkubectl replace -f -)", re.DOTALL)
LINE = "kms-rewrite chunk={}/{} listed={} rewritten={} conflicts={} failed={} end\n"
MOST_PRINTED = 512 * 1024
"""Source: MicrosoftDocs/azure-docs pull request 115257."""


class Spoiling(StrEnum):
    """What goes wrong with the next command."""

    HANG = "hang"
    """It never ends."""
    HALF = "half"
    """It writes back every second secret and fails at the others."""
    CONFLICTS = "conflicts"
    """Somebody else keeps changing one secret: the app's own command gives up on it."""
    CUT = "cut"
    """All is done, and the end of what it prints is lost."""
    EXIT = "exit"
    """It ends at once, with a failure and without a word."""
    NO_POD = "no-pod"
    """Its pod does not start in time."""
    LOST = "lost"
    """All is done, and nobody knows of it any more."""


@dataclass(slots=True)
class SimulatedCommand:
    """One command. Its exit code and what it printed are None while it runs, and where it could not be run."""

    id: str
    cluster: SimulatedCluster
    chunk: int
    chunks: int
    started: datetime
    ended: datetime | None = None
    exit_code: int | None = None
    printed: str | None = None
    reason: str | None = None

    def document(self) -> Json | None:
        """The result as ARM shows it; None while the command runs."""
        if self.ended is None:
            return None
        times = {"startedAt": timestamp(self.started), "finishedAt": timestamp(self.ended)}
        if self.reason is not None:
            return {"id": self.id, "properties": {"provisioningState": "Failed", "reason": self.reason, **times}}
        said = {"exitCode": self.exit_code, "logs": self.printed}
        return {"id": self.id, "properties": {"provisioningState": "Succeeded", **said, **times}}


class RunCommands:
    """The commands by id. Not locked: its caller is.

    `duration`: what a command takes; one that takes nothing has ended by the time of the answer. `spoil_next` and
    `print_next` go wrong with the next commands, in their order.
    """

    def __init__(self, clock: Clock, secrets: Secrets) -> None:
        self.duration = timedelta(seconds=30)
        self.all: dict[str, SimulatedCommand] = {}
        self.knows_caller: Callable[[str], bool] = lambda _token: True
        self._clock = clock
        self._secrets = secrets
        self._spoilt: deque[Spoiling] = deque()
        self._print: deque[str] = deque()

    def spoil_next(self, *how: Spoiling) -> None:
        """Let the next commands go wrong, one each."""
        self._spoilt.extend(how)

    def print_next(self, text: str) -> None:
        """Let the next command do its work and print this instead of its own line."""
        self._print.append(text)

    def start(self, cluster: SimulatedCluster, text: object, token: object) -> SimulatedCommand:
        """Start a command, or refuse it."""
        properties = cluster.copy()["properties"]
        _check(properties, token)
        shape = SHAPE.match(text) if isinstance(text, str) else None
        if shape is None:
            raise not_simulated("POST", "management.azure.com", f"{cluster.id}/runCommand of another command")
        chunk, chunks = int(shape[1]), int(shape[2])
        command = SimulatedCommand(uuid.uuid4().hex, cluster, chunk, chunks, self._clock.now())
        self.all[command.id] = command
        how = self._spoilt.popleft() if self._spoilt else None
        if how is None and not _has_ready_pool(properties):
            how = Spoiling.NO_POD
        if how is None and isinstance(token, str) and not self.knows_caller(token):
            how = Spoiling.EXIT
        if how is Spoiling.HANG:
            return command
        if not self.duration:
            self._end(command, how, command.started)
        else:
            self._clock.at(command.started + self.duration, lambda when: self._end(command, how, when))
        return command

    def find(self, cluster: SimulatedCluster, command_id: str) -> SimulatedCommand:
        """A command of this cluster; 404 when there is none."""
        command = self.all.get(command_id.lower())
        if command is None or command.cluster is not cluster:
            raise ServiceError(404, "NotFound", f"The command {command_id} was not found.")
        return command

    def _end(self, command: SimulatedCommand, how: Spoiling | None, when: datetime) -> None:
        try:
            outage = self._secrets.outage(command.cluster, when)
        except LookupError:  # the cluster was deleted meanwhile, and its pods with it
            return
        command.ended = when
        if how is Spoiling.NO_POD or outage is not None:
            command.reason = "KubernetesPerformanceError: the command's pod did not start within 30s on your cluster"
            return
        if how is Spoiling.EXIT:
            command.exit_code, command.printed = 3, ""
            return
        counts = self._carry_out(command, how, when)
        line = LINE.format(command.chunk, command.chunks, *counts)
        if how is Spoiling.CUT:
            line = line[: len(line) // 2]
        if self._print:
            line = self._print.popleft()
        command.exit_code = 1 if counts[2] or counts[3] else 0
        command.printed = line[:MOST_PRINTED]
        if how is Spoiling.LOST:
            del self.all[command.id]

    def _carry_out(self, command: SimulatedCommand, how: Spoiling | None, when: datetime) -> tuple[int, int, int, int]:
        """Write a chunk's secrets back; return what was listed, rewritten, in conflict and failed."""
        lost = {one.secret.namespace for one in self._secrets.unreadable(command.cluster, when)}
        by_namespace: dict[str, list[Secret]] = defaultdict(list)
        for secret in self._secrets.secrets_of(command.cluster):
            if command.chunks == 0 or zlib.crc32(secret.namespace.encode()) % command.chunks + 1 == command.chunk:
                by_namespace[secret.namespace].append(secret)
        failed = len(lost & by_namespace.keys())
        fine = [one for namespace, found in by_namespace.items() if namespace not in lost for one in found]
        if command.chunks == 0:
            return len(fine) + failed, 0, 0, failed
        left = 1 if how is Spoiling.CONFLICTS and fine else 0
        broken = len(fine) // 2 + len(fine) % 2 if how is Spoiling.HALF else 0
        done = fine[left + broken :]
        self._secrets.write_back(command.cluster, {(one.namespace, one.name) for one in done}, when)
        return len(fine) + failed, len(done), left, failed + broken


def _check(properties: Json, token: object) -> None:
    """Refuse a command before a pod is made for it."""
    if properties["powerState"]["code"] != "Running":
        raise operation_not_allowed("The managed cluster is stopped, only start and delete are allowed.")
    if (properties.get("apiServerAccessProfile") or {}).get("disableRunCommand"):
        raise bad_request("Run command is disabled on this managed cluster.")
    if (properties.get("aadProfile") or {}).get("managed") and not token:
        text = "This cluster have Azure Active Directory enabled, .clusterToken is required."
        raise ServiceError(400, "MissingAADClusterToken", text)


def _has_ready_pool(properties: Json) -> bool:
    return any(
        pool.get("provisioningState") == "Succeeded"
        and (pool.get("powerState") or {}).get("code", "Running") == "Running"
        and pool.get("count", 0) > 0
        for pool in properties.get("agentPoolProfiles") or []
    )
