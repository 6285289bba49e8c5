"""Keys, as their own vault speaks of them. Reached only where the vault's firewall and permissions let the app in."""

from __future__ import annotations

from typing import Any

from azure.core.credentials_async import AsyncTokenCredential
from azure.core.pipeline.transport import AsyncHttpTransport
from azure.keyvault.keys import KeyRotationPolicy, KeyRotationPolicyAction
from azure.keyvault.keys.aio import KeyClient

from shared.calls import ImpatientRetry, translated
from shared.errors import Missing
from shared.keys import KEY_VAULT_SUFFIX, KeyId, KeyVersion, RotationPolicy

_TIMEOUTS: dict[str, Any] = {"connection_timeout": 5, "read_timeout": 10}
"""Seconds. A vault that is out of reach must not keep a look waiting."""


class VaultDoor:
    """The data plane of vaults, by their names alone: no token goes to a host that is no vault's.

    Errors are those of `shared.errors`.
    """

    def __init__(self, credential: AsyncTokenCredential, transport: AsyncHttpTransport[Any, Any]) -> None:
        self._credential = credential
        self._transport = transport
        self._clients: dict[str, KeyClient] = {}

    async def rotation_policy(self, key: KeyId) -> RotationPolicy:
        """Read a key's rotation policy. Durations are ISO 8601, as Key Vault has them."""
        with translated():
            return _policy(await self._client(key.vault).get_key_rotation_policy(key.name, **_TIMEOUTS))

    async def is_deleted(self, key: KeyId) -> bool:
        """Return whether a key of this name is soft-deleted."""
        try:
            with translated():
                await self._client(key.vault).get_deleted_key(key.name, **_TIMEOUTS)
        except Missing:
            return False
        return True

    async def rotate(self, key: KeyId) -> KeyVersion:
        """Make a new version of a key, and return it. Sent once: nobody knows what came of one without an answer.

        Source: Key Vault REST reference, Rotate Key (needs the permission keys/rotate).
        """
        with translated(writing=True):
            made = await self._client(key.vault).rotate_key(key.name, **_TIMEOUTS)
        said = made.properties
        return KeyVersion(
            str(said.version).lower(),
            enabled=said.enabled,
            created=said.created_on,
            not_before=said.not_before,
            expires=said.expires_on,
        )

    def _client(self, vault: str) -> KeyClient:
        """One client a vault, as the SDK wants it; all share one transport. A vault that is away is asked once."""
        if vault not in self._clients:
            self._clients[vault] = KeyClient(
                f"https://{vault}{KEY_VAULT_SUFFIX}",
                self._credential,
                transport=self._transport,
                retry_policy=ImpatientRetry(retry_total=0),
            )
        return self._clients[vault]


def _policy(policy: KeyRotationPolicy) -> RotationPolicy:
    rotates = next((one for one in policy.lifetime_actions if one.action == KeyRotationPolicyAction.rotate), None)
    after = rotates.time_after_create if rotates else None
    before = rotates.time_before_expiry if rotates else None
    return RotationPolicy(rotates_after_creation=after, rotates_before_expiry=before, expires_in=policy.expires_in)
