"""Vaults and keys, as Azure Resource Manager speaks of them: readable also where a firewall closes the vault itself."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime
from typing import Any

from azure.core.credentials_async import AsyncTokenCredential
from azure.core.pipeline.transport import AsyncHttpTransport
from azure.mgmt.keyvault.aio import KeyVaultManagementClient
from azure.mgmt.keyvault.models import Key

from shared.calls import ImpatientRetry, translated
from shared.errors import Unreadable
from shared.keys import KeyId, KeyVersion, VaultId

log = logging.getLogger(__name__)

_VERSIONS_AT_ONCE = 8


class KeyVault:
    """The vaults and keys that the app's identity can read. Errors are those of `shared.errors`."""

    def __init__(self, credential: AsyncTokenCredential, transport: AsyncHttpTransport[Any, Any]) -> None:
        self._credential = credential
        self._transport = transport
        self._clients: dict[str, KeyVaultManagementClient] = {}

    async def find(self, vault: str, subscriptions: Iterable[str]) -> VaultId | None:
        """Find a vault by its name, which is unique in the world; None if no readable subscription shows it."""
        for subscription in subscriptions:
            try:
                found = await self._find(vault, subscription)
            except Unreadable as error:
                log.info("the vaults of subscription %s can't be listed: %s", subscription, error)
                continue
            if found is not None:
                return found
        return None

    async def _find(self, vault: str, subscription: str) -> VaultId | None:
        with translated():
            async for found in self._client(subscription).vaults.list_by_subscription():
                if found.name and found.id and found.name.lower() == vault:
                    return VaultId.parse(found.id)
        return None

    async def unknown_versions(self, vault: VaultId, key: KeyId, known: AbstractSet[str]) -> tuple[KeyVersion, ...]:
        """Read the versions of a key that are not known yet, in no order.

        The list's rows are not documented to hold all attributes, so each unknown version is read by itself.
        """
        keys = self._client(vault.subscription).keys
        with translated():
            names = [
                _version_name(row) async for row in keys.list_versions(vault.group, vault.name, key.name) if row.id
            ]
        slots = asyncio.Semaphore(_VERSIONS_AT_ONCE)

        async def read(version: str) -> KeyVersion:
            async with slots:
                with translated():
                    return _version(version, await keys.get_version(vault.group, vault.name, key.name, version))

        return tuple(await asyncio.gather(*(read(name) for name in names if name not in known)))

    def _client(self, subscription: str) -> KeyVaultManagementClient:
        """One client a subscription, as the SDK wants it; all share one transport and so its connections."""
        if subscription not in self._clients:
            self._clients[subscription] = KeyVaultManagementClient(
                self._credential, subscription, transport=self._transport, retry_policy=ImpatientRetry()
            )
        return self._clients[subscription]


def _version_name(row: Key) -> str:
    return str(row.id).rstrip("/").rsplit("/", 1)[-1].lower()


def _version(name: str, key: Key) -> KeyVersion:
    attributes = key.properties.attributes
    if attributes is None:
        return KeyVersion(name)
    return KeyVersion(
        name,
        enabled=attributes.enabled,
        created=_moment(attributes.created),
        not_before=_moment(attributes.not_before),
        expires=_moment(attributes.expires),
    )


def _moment(seconds: int | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
