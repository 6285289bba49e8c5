"""Vaults and keys, as Azure Resource Manager speaks of them: readable also where a firewall closes the vault itself."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime
from enum import Enum
from typing import Any

from azure.core.credentials_async import AsyncTokenCredential
from azure.core.pipeline.transport import AsyncHttpTransport
from azure.mgmt.keyvault.aio import KeyVaultManagementClient
from azure.mgmt.keyvault.models import (
    AccessPolicyEntry,
    KeyCreateParameters,
    KeyProperties,
    LifetimeAction,
    NetworkRuleSet,
    RotationPolicy,
    Sku,
    Trigger,
    VaultCreateOrUpdateParameters,
    VaultPatchParameters,
    VaultPatchProperties,
    VaultProperties,
)
from azure.mgmt.keyvault.models import Action as RotateAction
from azure.mgmt.keyvault.models import Key as KeyModel

from shared.calls import ONE_TRY, arm_clients, some_at_once, translated
from shared.errors import Conflict, Missing, Refused, ServiceError, Unreadable
from shared.keys import Key, KeyId, KeyVersion, Vault, VaultId, VaultNetwork
from shared.keys import RotationPolicy as KeyRotation
from shared.preparations import CreateKey, CreateVault
from shared.telemetry import logger

log = logger(__name__)

_VERSIONS_AT_ONCE = 8
_RETENTION_DAYS = 90
_KEY_SIZE = 3072


class KeyVault:
    """The vaults and keys that the app's identity can read. Errors are those of `shared.errors`."""

    def __init__(self, credential: AsyncTokenCredential, transport: AsyncHttpTransport[Any, Any]) -> None:
        self._client = arm_clients(KeyVaultManagementClient, credential, transport)

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

    async def vault(self, vault: VaultId, **patience: Any) -> Vault | None:
        """Read a vault; None if it does not exist. Unreadable if that can't be told."""
        try:
            with translated():
                found = await self._client(vault.subscription).vaults.get(vault.group, vault.name, **patience)
        except Missing:
            return None
        return _vault(vault, found.properties)

    async def is_deleted(self, vault: VaultId) -> bool:
        """Return whether a vault of this name is soft-deleted in its subscription; False where that can't be read."""
        try:
            with translated():
                deleted = [row async for row in self._client(vault.subscription).vaults.list_deleted()]
        except Unreadable:
            return False
        return any((row.name or "").lower() == vault.name for row in deleted)

    async def key(self, vault: VaultId, name: str, **patience: Any) -> Key | None:
        """Read a key with its current version's attributes; None if it does not exist."""
        try:
            with translated():
                found = await self._client(vault.subscription).keys.get(vault.group, vault.name, name, **patience)
        except Missing:
            return None
        return _key(KeyId(vault.name, name.lower()), found.properties)

    async def version(self, vault: VaultId, name: str, version: str) -> Key | None:
        """Read a key with the attributes of one version; None if there is no such version."""
        try:
            with translated():
                keys = self._client(vault.subscription).keys
                found = await keys.get_version(vault.group, vault.name, name, version)
        except Missing:
            return None
        return _key(KeyId(vault.name, name.lower()), found.properties)

    async def create(self, asked: CreateVault) -> None:
        """Make a vault that is not there: with roles, soft delete and purge protection. Started, not waited for.

        One that came meanwhile is read first: a write would take its firewall and tags. Refused if its name is taken
        anywhere, or by a soft-deleted one: neither is brought back nor written over.
        """
        if await self.vault(asked.vault, **ONE_TRY) is not None:
            return
        closed = NetworkRuleSet(bypass="AzureServices", default_action="Deny", ip_rules=[], virtual_network_rules=[])
        properties = VaultProperties(
            tenant_id=asked.tenant,
            sku=Sku(family="A", name="standard"),
            access_policies=[],
            enable_rbac_authorization=True,
            enable_soft_delete=True,
            soft_delete_retention_in_days=_RETENTION_DAYS,
            enable_purge_protection=True,
            public_network_access="Enabled",
            network_acls=closed if asked.closed else None,
        )
        vaults = self._client(asked.vault.subscription).vaults
        try:
            with translated(writing=True):
                await vaults.begin_create_or_update(
                    asked.vault.group,
                    asked.vault.name,
                    VaultCreateOrUpdateParameters(location=asked.region, properties=properties),
                    polling=False,
                    **ONE_TRY,
                )
        except Conflict as error:
            raise _final(error, there=await self.vault(asked.vault, **ONE_TRY) is not None) from error

    async def admit_trusted_services(self, vault: VaultId) -> None:
        """Let Azure's trusted services past a vault's firewall: the whole rules as just read, with another bypass.

        Refused if the answer shows anything else changed. Source: Azure REST reference, Vaults - Update.
        """
        vaults = self._client(vault.subscription).vaults
        with translated():
            before = (await vaults.get(vault.group, vault.name, **ONE_TRY)).properties
        rules = before.network_acls
        if rules is None:
            return
        asked = NetworkRuleSet(rules)
        asked.bypass = "AzureServices"
        patch = VaultPatchParameters(properties=VaultPatchProperties(network_acls=asked))
        with translated(writing=True):
            after = (await vaults.update(vault.group, vault.name, patch, **ONE_TRY)).properties
        if _firewall(after) != _firewall(before):
            raise Refused("OtherFirewall", f"the vault {vault.name} came back with another firewall than it had")

    async def create_key(self, asked: CreateKey) -> None:
        """Make a key that is not there; one that is there stays as it is, its rotation policy too.

        Refused if a soft-deleted key has its name. Source: Azure REST reference, Keys - Create If Not Exist.
        """
        rotates = LifetimeAction(
            trigger=Trigger(time_after_create=f"P{asked.rotates_every_days}D"), action=RotateAction(type="rotate")
        )
        properties = KeyProperties(
            kty="RSA",
            key_size=_KEY_SIZE,
            key_ops=["encrypt", "decrypt"],
            rotation_policy=RotationPolicy(lifetime_actions=[rotates]),
        )
        keys = self._client(asked.vault.subscription).keys
        try:
            with translated(writing=True):
                await keys.create_if_not_exist(
                    asked.vault.group,
                    asked.vault.name,
                    asked.key,
                    KeyCreateParameters(properties=properties),
                    **ONE_TRY,
                )
        except Conflict as error:
            raise _final(error, there=await self.key(asked.vault, asked.key, **ONE_TRY) is not None) from error

    async def versions(
        self, vault: VaultId, key: KeyId, *, but: AbstractSet[str] = frozenset()
    ) -> tuple[KeyVersion, ...]:
        """Read the versions of a key but for those that are named, in no order.

        The list's rows are not documented to hold all attributes, so each version is read by itself.
        """
        keys = self._client(vault.subscription).keys
        with translated():
            names = [
                _version_name(row) async for row in keys.list_versions(vault.group, vault.name, key.name) if row.id
            ]

        async def read(version: str) -> KeyVersion:
            with translated():
                return _version(version, await keys.get_version(vault.group, vault.name, key.name, version))

        return tuple(await some_at_once(read, (name for name in names if name not in but), _VERSIONS_AT_ONCE))


def _final(error: Conflict, *, there: bool) -> ServiceError:
    """Tell what a conflict over something new is: it came meanwhile, or its name is taken and will stay so."""
    return error if there else Refused(error.code, error.text)


def _firewall(properties: VaultProperties) -> tuple[object, ...]:
    """All that decides who reaches a vault, but for the bypass. What is left out has the service's default, and a
    single address may come back as the network of that address.
    """
    rules = properties.network_acls or NetworkRuleSet()
    return (
        _word(properties.public_network_access or "Enabled"),
        _word(rules.default_action or "Allow"),
        {(rule.value or "").removesuffix("/32") for rule in rules.ip_rules or []},
        {(rule.id or "").lower() for rule in rules.virtual_network_rules or []},
    )


def _vault(vault: VaultId, properties: VaultProperties) -> Vault:
    policies = properties.access_policies or []
    return Vault(
        vault,
        uri=properties.vault_uri or "",
        tenant=properties.tenant_id,
        network=_network(properties),
        rbac=properties.enable_rbac_authorization is True,
        purge_protection=properties.enable_purge_protection is True,
        policies={policy.object_id: _permissions(policy) for policy in policies if not policy.application_id},
        ready=_word(properties.provisioning_state or "Succeeded") == "succeeded",
    )


def _permissions(policy: AccessPolicyEntry) -> frozenset[str]:
    return frozenset(_word(permission) for permission in policy.permissions.keys_property or [])


def _network(properties: VaultProperties) -> VaultNetwork:
    """Read the firewall. `Disabled` keeps the bypass for trusted services, a perimeter overrides it.

    Source: Key Vault docs, network-security.
    """
    public = _word(properties.public_network_access or "Enabled")
    rules = properties.network_acls
    if public == "securedbyperimeter":
        return VaultNetwork.PERIMETER
    denied = rules is not None and _word(rules.default_action or "Allow") == "deny"
    if public == "enabled" and not denied:
        return VaultNetwork.OPEN
    if rules is None or _word(rules.bypass or "AzureServices") == "azureservices":
        return VaultNetwork.TRUSTED
    selected = public == "enabled" and (rules.ip_rules or rules.virtual_network_rules)
    return VaultNetwork.SELECTED if selected else VaultNetwork.CLOSED


def _key(key: KeyId, properties: KeyProperties) -> Key:
    attributes = properties.attributes
    return Key(
        key,
        kind=_word(properties.kty or ""),
        operations=frozenset(_word(operation) for operation in properties.key_ops or []),
        enabled=attributes is None or attributes.enabled is not False,
        not_before=_moment(attributes.not_before) if attributes else None,
        expires=_moment(attributes.expires) if attributes else None,
        rotation_policy=_rotation_policy(properties),
        version=(properties.key_uri_with_version or "").rpartition("/")[2].lower() or None,
    )


def _rotation_policy(properties: KeyProperties) -> KeyRotation | None:
    policy = properties.rotation_policy
    if policy is None:
        return None
    actions = policy.lifetime_actions or []
    triggers = [
        one.trigger for one in actions if one.trigger and one.action and _word(one.action.type or "") == "rotate"
    ]
    return KeyRotation(
        rotates_after_creation=next((one.time_after_create for one in triggers if one.time_after_create), None),
        rotates_before_expiry=next((one.time_before_expiry for one in triggers if one.time_before_expiry), None),
        expires_in=policy.attributes.expiry_time if policy.attributes else None,
    )


def _version_name(row: KeyModel) -> str:
    return str(row.id).rstrip("/").rsplit("/", 1)[-1].lower()


def _version(name: str, key: KeyModel) -> KeyVersion:
    attributes = key.properties.attributes
    if attributes is None:
        return KeyVersion(name)
    return KeyVersion(
        name,
        enabled=attributes.enabled,
        created=_moment(attributes.created),
        not_before=_moment(attributes.not_before),
        expires=_moment(attributes.expires),
        updated=_moment(attributes.updated),
    )


def _word(value: str | Enum) -> str:
    """A word of the service in lower case. The SDK gives it as an enum, or as text where it is newer than the SDK."""
    return str(value.value if isinstance(value, Enum) else value).lower()


def _moment(seconds: int | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
