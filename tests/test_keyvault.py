"""The adapter of vaults and keys, against the simulated Azure."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from azure.core.pipeline.transport import AioHttpTransport
from azure.identity.aio import ManagedIdentityCredential

from local.simulator import SUBSCRIPTION
from shared.errors import Unreadable
from shared.keys import KeyId, VaultId
from shared.keyvault import KeyVault

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from local.simulator import Azure

OTHER = "00000000-0000-0000-0000-000000000002"
KEY = KeyId("kv-kms-weu", "etcd")


@pytest.fixture
async def keyvault(azure: Azure) -> AsyncIterator[KeyVault]:  # noqa: ARG001  the clients reach it
    """The adapter on real clients."""
    async with ManagedIdentityCredential() as credential, AioHttpTransport() as transport:
        yield KeyVault(credential, transport)


async def test_a_version_carries_what_azure_says_of_it(keyvault: KeyVault, azure: Azure) -> None:
    vault = azure.keyvault.add_vault("kv-kms-weu")
    created, expires = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)
    key = azure.keyvault.add_key(vault, "etcd", created=created, expires=expires)

    (version,) = await keyvault.versions(VaultId.parse(vault.id), KEY)

    assert version.version == key.current.version
    assert (version.enabled, version.created, version.expires) == (True, created, expires)


async def test_only_versions_that_are_not_known_are_read(keyvault: KeyVault, azure: Azure) -> None:
    vault = azure.keyvault.add_vault("kv-kms-weu")
    key = azure.keyvault.add_key(vault, "etcd")
    known = key.current.version
    new = azure.keyvault.rotate(vault, key)

    versions = await keyvault.versions(VaultId.parse(vault.id), KEY, but={known})

    assert [version.version for version in versions] == [new]
    assert len(azure.journal.matching("GET", "/versions/[0-9a-f]{32}$")) == 1


async def test_a_vault_is_found_by_its_name_in_any_subscription(keyvault: KeyVault, azure: Azure) -> None:
    azure.keyvault.add_vault("kv-other")
    vault = azure.keyvault.add_vault("KV-KMS-weu", subscription=OTHER)

    assert await keyvault.find("kv-kms-weu", [SUBSCRIPTION, OTHER]) == VaultId.parse(vault.id)
    assert await keyvault.find("kv-none", [SUBSCRIPTION, OTHER]) is None


async def test_a_key_that_is_not_there_is_unreadable(keyvault: KeyVault, azure: Azure) -> None:
    vault = azure.keyvault.add_vault("kv-kms-weu")

    with pytest.raises(Unreadable):
        await keyvault.versions(VaultId.parse(vault.id), KEY)
