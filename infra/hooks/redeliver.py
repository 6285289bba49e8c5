"""Hands dead letters to the app again: `make redeliver`.

Each event of each blob is read as the app's own triggers read it, and becomes the message that they would have sent,
put into the app's queue by the identity that is signed in. So no function key is needed, and the app needs not be up.
A blob is deleted once all of its events are handed over; a crash in between hands some over twice, which is one more
look. What the app does not serve is dropped, as it drops it. A blob with an event that can't be read stays, and is
named; its other events are handed over all the same.
Source: Event Grid docs, manage-event-delivery.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from infra.hooks.azure_cli import Cli, CliError  # noqa: E402  it is run by its path
from infra.hooks.deployment import Deployment, NotDeployed  # noqa: E402  it is run by its path
from shared.errors import Malformed  # noqa: E402  it is run by its path
from shared.events import Event, cluster_request, key_request  # noqa: E402  it is run by its path
from shared.queues import CLUSTERS, KEYS  # noqa: E402  it is run by its path

NAME = re.compile(r"[\w./][\w./-]*", re.ASCII)
"""As Event Grid names a blob. Another the Azure CLI may take for an option, or for a file to read: `@name`."""


@dataclass(frozen=True, slots=True)
class Message:
    """What one event asks of the app, and where to put it."""

    queue: str
    text: str


def messages(blob: str) -> tuple[list[Message], list[str]]:
    """Return what the events of a blob ask for, none for an event that is not served; and why others can't be read.

    Event Grid writes an array; a single event is taken too.
    """
    found: list[Message] = []
    faults: list[str] = []
    try:
        events = json.loads(blob)
    except (ValueError, RecursionError):
        return [], ["it is not JSON"]
    for event in events if isinstance(events, list) else [events]:
        try:
            message = _message(event)
        except Malformed as error:
            faults.append(str(error))
            continue
        found += [message] if message is not None else []
    return found, faults


def _message(event: Any) -> Message | None:
    read = Event.read(json.dumps(event))
    cluster = cluster_request(read)
    if cluster is not None:
        return Message(CLUSTERS, cluster.encode())
    key = key_request(read)
    return Message(KEYS, key.encode()) if key is not None else None


@dataclass(frozen=True, slots=True)
class DeadLetters:
    """The container of what Event Grid could not deliver, and the queues beside it."""

    az: Cli
    account: str
    container: str

    def names(self) -> list[str]:
        """List the blobs."""
        rows = self.az.ask("storage", "blob", "list", *self._where, "--num-results", "*") or ()
        return [row["name"] for row in rows]

    def read(self, name: str) -> str:
        """Read a blob; Malformed if it is no text, or none of Event Grid's."""
        if not NAME.fullmatch(name):
            raise Malformed("its name is none that Event Grid gives")
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "blob.json"
            self.az.ask("storage", "blob", "download", *self._where, "--name", name, "--file", str(file))
            try:
                return file.read_text(encoding="utf-8-sig")
            except UnicodeDecodeError as error:
                raise Malformed("it is no text") from error

    def put(self, message: Message) -> None:
        """Send a message to the app, one that never expires."""
        what = ("--queue-name", message.queue, "--content", message.text, "--time-to-live", "-1")
        self.az.ask("storage", "message", "put", *self._account, *what)

    def delete(self, name: str) -> None:
        """Delete a blob whose events are handed over."""
        self.az.ask("storage", "blob", "delete", *self._where, "--name", name)

    @property
    def _account(self) -> tuple[str, ...]:
        return ("--account-name", self.account, "--auth-mode", "login")

    @property
    def _where(self) -> tuple[str, ...]:
        return (*self._account, "--container-name", self.container)


def redeliver(letters: DeadLetters, *, only_look: bool) -> int:
    """Hand over everything that can be read; how many blobs could not be."""
    unreadable = 0
    for name in letters.names():
        try:
            found, faults = messages(letters.read(name))
        except Malformed as error:
            found, faults = [], [str(error)]
        for fault in faults:
            print(f"can't be read, left there: {name!r}: {fault}")
        print(f"{len(found)} to hand over: {name!r}")
        unreadable += 1 if faults else 0
        for message in found if not only_look else ():
            letters.put(message)
        if not faults and not only_look:
            letters.delete(name)
    return unreadable


def main() -> int:
    """Redeliver; 1 and a sentence if that can't be done, or not for all."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    parser.add_argument("--deployment", help="the name of the deployment of main.bicep, where azd was not used")
    parser.add_argument("--look", action="store_true", help="only say what would be handed over")
    options = parser.parse_args()
    try:
        deployment = Deployment.find(options.deployment)
        print(deployment)
        letters = DeadLetters(Cli.find("az"), deployment.account, deployment.dead_letters)
        return 1 if redeliver(letters, only_look=options.look) else 0
    except (CliError, NotDeployed) as error:
        print(f"{error}\nThen run this again: what was not handed over is still there.", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
