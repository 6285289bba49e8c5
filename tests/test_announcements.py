"""Whether anybody tells the app of a vault's rotations, as ARM shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from azure.core.pipeline.transport import AioHttpTransport
from azure.identity.aio import ManagedIdentityCredential

from local.simulator.eventgrid import EventSubscription, Schema
from shared.announcements import Announcements
from shared.events import KeyRequest
from shared.keys import KeyId, VaultId
from shared.reasons import Reason
from tests.product import NOW, product

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from local.simulator import Azure
    from local.storage import Account

ROTATION = "Microsoft.KeyVault.KeyNewVersionCreated"
KEY = KeyId("kv-kms-weu", "etcd")


@pytest.fixture
async def announcements(azure: Azure) -> AsyncIterator[Announcements]:  # noqa: ARG001  the client reaches it
    async with ManagedIdentityCredential() as credential, AioHttpTransport() as transport:
        yield Announcements(credential, transport)


def listens(azure: Azure, source: str, function: str = "on_key_event", types: frozenset[str] | None = None) -> None:
    """Somebody listens, without the handshake that makes it so over the wire."""
    endpoint = f"https://127.0.0.1/runtime/webhooks/eventgrid?functionName={function}"
    found = EventSubscription(source, endpoint, Schema.EVENT_GRID, types, None, f"subscription-{function}")
    azure.eventgrid.subscriptions.append(found)


@pytest.mark.parametrize(
    ("function", "types", "expected"),
    [
        pytest.param("on_key_event", None, True, id="everything"),
        pytest.param("on_key_event", frozenset({ROTATION}), True, id="rotations"),
        pytest.param("on_key_event", frozenset({"Microsoft.KeyVault.KeyExpired"}), False, id="other-events"),
        pytest.param("on_cluster_event", None, False, id="another-function"),
    ],
)
async def test_a_vault_is_announced_by_a_subscription_of_its_own_to_the_function(
    announcements: Announcements, azure: Azure, function: str, types: frozenset[str] | None, expected: bool
) -> None:
    vault, other = azure.keyvault.add_vault("kv-kms-weu"), azure.keyvault.add_vault("kv-other")
    listens(azure, vault.id, function, types)
    listens(azure, f"/subscriptions/{vault.id.split('/')[2]}")

    assert await announcements.reach(VaultId.parse(vault.id)) is expected
    assert await announcements.reach(VaultId.parse(other.id)) is False


async def test_what_may_not_be_read_is_not_told(announcements: Announcements, azure: Azure) -> None:
    vault = azure.keyvault.add_vault("kv-kms-weu")
    azure.permissions.refuse("Microsoft.EventGrid/systemTopics/read")

    assert await announcements.reach(VaultId.parse(vault.id)) is None


async def test_a_vault_that_nobody_announces_is_found_and_mended(azure: Azure, account: Account) -> None:
    vault = azure.keyvault.add_vault("kv-kms-weu")
    azure.keyvault.add_key(vault, "etcd")
    listens(azure, f"/subscriptions/{vault.id.split('/')[2]}", "on_cluster_event")

    async with product(account) as app:
        await app.inspector.inspect(KeyRequest(KEY, "timer"), now=NOW)
        found = {one.reason for one in (await app.keys.key(KEY)).findings}
        listens(azure, vault.id)
        await app.inspector.inspect(KeyRequest(KEY, "timer"), now=NOW)
        mended = {one.reason for one in (await app.keys.key(KEY)).findings}

    assert (Reason.NOT_ANNOUNCED in found, Reason.NOT_ANNOUNCED in mended) == (True, False)
