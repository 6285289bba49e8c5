"""User-assigned identities, as Azure Resource Manager speaks of them."""

from __future__ import annotations

from typing import Any

from azure.core.credentials_async import AsyncTokenCredential
from azure.core.pipeline.transport import AsyncHttpTransport
from azure.mgmt.msi.v2024_11_30.aio import ManagedServiceIdentityClient
from azure.mgmt.msi.v2024_11_30.models import Identity

from shared.calls import ONE_TRY, arm_clients, translated
from shared.errors import Missing


class Identities:
    """The identities that the app's own can read. Errors are those of `shared.errors`."""

    def __init__(self, credential: AsyncTokenCredential, transport: AsyncHttpTransport[Any, Any]) -> None:
        self._client = arm_clients(ManagedServiceIdentityClient, credential, transport)

    async def exists(self, resource_id: str, **patience: Any) -> bool:
        """Return whether there is such an identity; Unreadable if that can't be told."""
        subscription, group, name = _parts(resource_id)
        try:
            with translated():
                await self._client(subscription).user_assigned_identities.get(group, name, **patience)
        except Missing:
            return False
        return True

    async def create(self, resource_id: str, region: str) -> None:
        """Make an identity that is not there. One that came meanwhile is read first: a write would take its tags."""
        if await self.exists(resource_id, **ONE_TRY):
            return
        subscription, group, name = _parts(resource_id)
        with translated(writing=True):
            await self._client(subscription).user_assigned_identities.create_or_update(
                group, name, Identity(location=region), **ONE_TRY
            )


def _parts(resource_id: str) -> tuple[str, str, str]:
    """Subscription, group and name; the policy document takes no other shape."""
    _, _, subscription, _, group, *_, name = resource_id.split("/")
    return subscription, group, name
