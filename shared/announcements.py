"""Whether anybody tells the app of a vault's rotations: its event subscriptions, as Azure Resource Manager shows them.

A vault without one is not lost, for the sweep finds its new versions, but it is found late.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from azure.core.credentials_async import AsyncTokenCredential
from azure.core.pipeline.policies import AsyncBearerTokenCredentialPolicy
from azure.core.pipeline.transport import AsyncHttpTransport
from azure.mgmt.core import AsyncARMPipelineClient

from shared.calls import ImpatientRetry, OnlyArm, read_pages
from shared.errors import Unreadable
from shared.keys import VaultId

FUNCTION = "on_key_event"
"""The function that takes a vault's events."""

_ARM = "https://management.azure.com"
_VERSION = "2025-02-15"
_ROTATION = "microsoft.keyvault.keynewversioncreated"


class Announcements:
    """Event subscriptions that the app's identity may read. Errors are those of `shared.errors`."""

    def __init__(self, credential: AsyncTokenCredential, transport: AsyncHttpTransport[Any, Any]) -> None:
        authentication = AsyncBearerTokenCredentialPolicy(credential, f"{_ARM}/.default")
        policies = [OnlyArm(), ImpatientRetry(), authentication]
        self._client: AsyncARMPipelineClient[Any, Any] = AsyncARMPipelineClient(
            _ARM, policies=policies, transport=transport
        )

    async def reach(self, vault: VaultId) -> bool | None:
        """Return whether some event subscription tells the app of this vault's rotations; None if unreadable.

        Sources: Azure REST reference, Event Grid, System Topics and Event Subscriptions.
        """
        try:
            topics = await self._rows(f"/subscriptions/{vault.subscription}/providers/Microsoft.EventGrid/systemTopics")
            of_vault = [str(one["id"]) for one in topics if _source(one) == str(vault).lower()]
            for path in [*(f"{topic}/eventSubscriptions" for topic in of_vault), _extension(vault)]:
                if any(map(_tells_of_rotations, await self._rows(path))):
                    return True
        except Unreadable:
            return None
        return False

    async def _rows(self, path: str) -> list[Mapping[str, Any]]:
        pages = read_pages(self._client, f"{_ARM}{path}?api-version={_VERSION}")
        return [row async for page in pages for row in page]


def _extension(vault: VaultId) -> str:
    return f"{vault}/providers/Microsoft.EventGrid/eventSubscriptions"


def _source(topic: Mapping[str, Any]) -> str:
    return str((topic.get("properties") or {}).get("source") or "").lower()


def _tells_of_rotations(subscription: Mapping[str, Any]) -> bool:
    """Whether it goes to the app's function and lets new versions through. Which app's can't be told from here."""
    properties = subscription.get("properties") or {}
    by_identity = properties.get("deliveryWithResourceIdentity") or {}
    destination = properties.get("destination") or by_identity.get("destination") or {}
    where = str((destination.get("properties") or {}).get("resourceId") or "").lower()
    types = (properties.get("filter") or {}).get("includedEventTypes")
    wanted = types is None or _ROTATION in {str(one).lower() for one in types}
    settled = str(properties.get("provisioningState") or "Succeeded").lower() == "succeeded"
    return settled and wanted and where.endswith(f"/functions/{FUNCTION}")
