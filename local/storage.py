"""Azurite over TLS: tables, queues and blobs on this machine, reached by identity as in production.

Source: Azurite 3.35.0, README ("OAuth Configuration", "Customized Storage Accounts & Keys").
"""

from __future__ import annotations

import base64
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Self

from local.processes import Child, clean_environment

if TYPE_CHECKING:
    from local.certificates import Authority

_AZURITE = Path(__file__).parent / "azurite" / "node_modules" / ".bin" / "azurite"
_START = timedelta(seconds=60)
_LISTENS = re.compile(r"^Azurite (Blob|Queue|Table) service is successfully listening at (https://\S+)\n", re.MULTILINE)
_SERVICES = ("Blob", "Queue", "Table")
_LOOPBACK = "127.0.0.1"
_ANY_PORT = "0"
_POOL = 1000


class StorageError(Exception):
    """There is no local storage; the text says what to do."""


@dataclass(frozen=True, slots=True)
class Account:
    """A storage account that nobody else uses."""

    name: str
    key: str
    blob_uri: str
    queue_uri: str
    table_uri: str

    def settings(self) -> dict[str, str]:
        """Return the app settings that lead to this account by managed identity."""
        return {
            "AzureWebJobsStorage__blobServiceUri": self.blob_uri,
            "AzureWebJobsStorage__queueServiceUri": self.queue_uri,
            "AzureWebJobsStorage__tableServiceUri": self.table_uri,
            "AzureWebJobsStorage__credential": "managedidentity",
        }

    def connection_string(self) -> str:
        """Return the connection string, for what reaches the account by key."""
        parts = {
            "DefaultEndpointsProtocol": "https",
            "AccountName": self.name,
            "AccountKey": self.key,
            "BlobEndpoint": self.blob_uri,
            "QueueEndpoint": self.queue_uri,
            "TableEndpoint": self.table_uri,
        }
        return ";".join(f"{name}={value}" for name, value in parts.items())


class Storage:
    """A running Azurite with a pool of accounts. Everything is in memory and gone with it."""

    def __init__(self, authority: Authority) -> None:
        """Take the authority that vouches for 127.0.0.1; `start`, or entering the context, starts the program."""
        self._authority = authority
        self._keys = {f"local{number:04}": _key() for number in range(1, _POOL + 1)}
        self._unused: Iterator[tuple[str, str]] = iter(self._keys.items())
        self._uris: dict[str, str] = {}
        self._child: Child | None = None

    def start(self) -> Self:
        """Start Azurite and return once its three services answer. StorageError if it is not installed."""
        if not _AZURITE.exists():
            raise StorageError("Azurite is not installed; `make setup` installs it")
        certificate = self._authority.issue(_LOOPBACK)
        accounts = ";".join(f"{name}:{key}" for name, key in self._keys.items())
        command: list[str | Path] = [
            *(_AZURITE, "--inMemoryPersistence", "--silent", "--disableTelemetry", "--skipApiVersionCheck"),
            *("--oauth", "basic", "--cert", certificate.cert_file, "--key", certificate.key_file),
            *("--blobHost", _LOOPBACK, "--blobPort", _ANY_PORT),
            *("--queueHost", _LOOPBACK, "--queuePort", _ANY_PORT),
            *("--tableHost", _LOOPBACK, "--tablePort", _ANY_PORT),
        ]
        environment = clean_environment() | {"AZURITE_ACCOUNTS": accounts}
        self._child = child = Child.start(command, name="azurite", environment=environment)
        self._uris = child.wait_until_ready(lambda: _listening(child.log()), within=_START)
        return self

    def stop(self) -> None:
        """End Azurite; nothing happens if it does not run."""
        if self._child is not None:
            self._child.stop()
            self._child = None

    def __enter__(self) -> Self:
        """Start Azurite; leaving the block ends it."""
        return self.start()

    def __exit__(self, *_: object) -> None:
        """End Azurite."""
        self.stop()

    def account(self) -> Account:
        """Return an account that was never handed out before. StorageError if it does not run or all are used up."""
        if self._child is None:
            raise StorageError("the storage does not run")
        name, key = next(self._unused, ("", ""))
        if not name:
            raise StorageError(f"all {_POOL} accounts are used up")
        blob, queue, table = (f"{self._uris[service]}/{name}" for service in _SERVICES)
        return Account(name=name, key=key, blob_uri=blob, queue_uri=queue, table_uri=table)


def _listening(log: str) -> dict[str, str] | None:
    """Return where each service listens, once all do. The system chooses: a port chosen here may be taken meanwhile."""
    uris = dict(_LISTENS.findall(log))
    return uris if len(uris) == len(_SERVICES) else None


def _key() -> str:
    return base64.b64encode(secrets.token_bytes(32)).decode()
