"""The vaults with their keys, what happens to them, and the events that tell of it.

Sources: Event Grid docs, event-schema-key-vault; Key Vault docs, rbac-guide and assign-access-policy.
"""

from __future__ import annotations

import uuid
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from local.simulator.errors import resource_not_found
from local.simulator.eventgrid import Event, EventGrid
from local.simulator.identity import TENANT
from local.simulator.keyvault.keys import KEY_OPERATIONS, SimulatedKey, SimulatedVersion, epoch
from local.simulator.keyvault.network import network_properties
from local.simulator.keyvault.vaults import (
    RETENTION_DAYS,
    VAULT_TYPE,
    SimulatedVault,
    vault_document,
    vault_id,
)
from local.simulator.subscriptions import SUBSCRIPTION, Subscriptions
from local.simulator.wire import Json, Request, merge

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from threading import Condition

    from local.simulator.access import Access
    from local.simulator.clock import Clock

NEW_VERSION = "Microsoft.KeyVault.KeyNewVersionCreated"
NEAR_EXPIRY = "Microsoft.KeyVault.KeyNearExpiry"
EXPIRED = "Microsoft.KeyVault.KeyExpired"
ACCESS_POLICY_CHANGED = "Microsoft.KeyVault.VaultAccessPolicyChanged"

# An event for keys is raised this long before they expire, unless a rotation policy says otherwise.
NOTICE = timedelta(days=30)

# A permission of an access policy, and the data action that stands for it where roles decide.
DATA_ACTIONS = {
    "get": f"{VAULT_TYPE}/keys/read",
    "list": f"{VAULT_TYPE}/keys/read",
    "encrypt": f"{VAULT_TYPE}/keys/encrypt/action",
    "decrypt": f"{VAULT_TYPE}/keys/decrypt/action",
    "wrapKey": f"{VAULT_TYPE}/keys/wrap/action",
    "unwrapKey": f"{VAULT_TYPE}/keys/unwrap/action",
    "rotate": f"{VAULT_TYPE}/keys/rotate/action",
    "getrotationpolicy": f"{VAULT_TYPE}/keyrotationpolicies/read",
}


class KeyVault:
    """The vaults by lower-case id. Safe from any thread.

    `client_address` is where the app's calls to a vault come from; a vault's ip rules are held against it.
    `registration`: how long a vault made over the wire is RegisteringDns, on the simulated clock.
    """

    def __init__(
        self, clock: Clock, eventgrid: EventGrid, subscriptions: Subscriptions, access: Access, changed: Condition
    ) -> None:
        self.vaults: dict[str, SimulatedVault] = {}
        self.removed: dict[str, SimulatedVault] = {}
        self.page_size = 25
        self.client_address = "203.0.113.10"
        self.registration = timedelta(seconds=20)
        self._clock = clock
        self._eventgrid = eventgrid
        self._subscriptions = subscriptions
        self._access = access
        self._changed = changed

    def add_vault(
        self,
        name: str,
        *,
        subscription: str = SUBSCRIPTION,
        group: str = "rg-keys",
        location: str = "westeurope",
        tags: Mapping[str, str] | None = None,
        rbac: bool = True,
        access_policies: Sequence[Json] = (),
        purge_protection: bool = True,
        soft_delete: bool = True,
        retention_days: int = RETENTION_DAYS,
        public_network_access: str = "Enabled",
        default_action: str | None = None,
        bypass: str | None = None,
        ip_rules: Iterable[str] = (),
        tenant: str = TENANT,
        properties: Mapping[str, Any] | None = None,
    ) -> SimulatedVault:
        """A vault that exists: roles instead of policies, open to all networks; `properties` go over the defaults."""
        vault = SimulatedVault(vault_document(name, subscription, group, location, tags))
        vault.properties.update(
            tenantId=tenant,
            accessPolicies=list(access_policies),
            enableRbacAuthorization=rbac,
            enableSoftDelete=soft_delete,
            softDeleteRetentionInDays=retention_days,
        )
        if not purge_protection:
            del vault.properties["enablePurgeProtection"]  # it is never false: once on, it stays on
        rules = tuple(ip_rules)
        vault.properties.update(network_properties(public_network_access, default_action, bypass, rules))
        merge(vault.properties, properties or {})
        return self.put_vault(vault)

    def put_vault(self, vault: SimulatedVault) -> SimulatedVault:
        """Take a vault as it is, and its resource group. One that is RegisteringDns is ready after `registration`."""
        with self._changed:
            subscription, group = vault.id.split("/")[2:5:2]
            self._subscriptions.add(subscription, group=group, location=vault.location)
            self.vaults[vault.id.lower()] = vault
            if not vault.is_registered:
                self._clock.at(self._clock.now() + self.registration, lambda _when: self._register(vault))
            self._changed.notify_all()
        return vault

    def remove_vault(self, vault: SimulatedVault) -> None:
        """Delete a vault: soft-deleted unless it has that off. Its name resolves no more; no event of its own tells."""
        with self._changed:
            del self.vaults[vault.id.lower()]
            if vault.properties["enableSoftDelete"]:
                vault.deleted = self._clock.now()
                self.removed[vault.id.lower()] = vault
            self._changed.notify_all()

    def add_key(
        self,
        vault: SimulatedVault,
        name: str,
        *,
        created: datetime | None = None,
        version: str | None = None,
        kty: str = "RSA",
        size: int | None = 2048,
        operations: tuple[str, ...] = KEY_OPERATIONS,
        enabled: bool = True,
        not_before: datetime | None = None,
        expires: datetime | None = None,
        announce: bool = False,
    ) -> SimulatedKey:
        """A key with its first version, made at `created` or now; no event unless `announce`."""
        key = SimulatedKey(name, vault, kty, size, operations)
        moment = created or self._clock.now()
        first = SimulatedVersion(version or uuid.uuid4().hex, moment, moment, enabled, not_before, expires)
        key.versions[first.version] = first
        with self._changed:
            vault.keys[name.lower()] = key
            if announce:
                self._announce(key, NEW_VERSION, first.created, quirks=True)
            self._changed.notify_all()
        return key

    def rotate(
        self,
        vault: SimulatedVault,
        key: SimulatedKey | str,
        *,
        announce: bool = True,
        quirks: bool = True,
    ) -> str:
        """Make a new version; return it. `announce=False`: its event is lost. `quirks`: the event has odd blanks."""
        with self._changed:
            rotated = vault.key(key) if isinstance(key, str) else key
            now = self._clock.now()
            version = SimulatedVersion(uuid.uuid4().hex, now, now)
            rotated.versions[version.version] = version
            if announce:
                self._announce(rotated, NEW_VERSION, now, quirks=quirks)
            self._changed.notify_all()
        return version.version

    def set_enabled(self, key: SimulatedKey, version: str, *, enabled: bool) -> None:
        """Enable or disable one version. No event tells of it, as in Azure."""
        self.set_key(key, version=version, enabled=enabled)

    def set_key(
        self,
        key: SimulatedKey,
        *,
        version: str | None = None,
        enabled: bool | None = None,
        not_before: datetime | None = None,
        expires: datetime | None = None,
        kty: str | None = None,
        size: int | None = None,
        operations: tuple[str, ...] | None = None,
    ) -> None:
        """Change what is given, of one version (the newest) or of the key. No event tells of it, as in Azure."""
        with self._changed:
            found = key.current if version is None else key.version(version)
            found.enabled = found.enabled if enabled is None else enabled
            found.not_before = not_before or found.not_before
            found.expires = expires or found.expires
            found.updated = self._clock.now()
            key.kty = kty or key.kty
            key.size = size or key.size
            key.operations = key.operations if operations is None else operations
            self._changed.notify_all()

    def delete_key(self, key: SimulatedKey) -> None:
        """Delete a key: ARM shows it no more, the vault lists it as deleted. No event tells of it, as in Azure."""
        with self._changed:
            del key.vault.keys[key.name.lower()]
            key.deleted = self._clock.now()
            key.vault.deleted_keys[key.name.lower()] = key
            self._changed.notify_all()

    def near_expiry(self, key: SimulatedKey) -> None:
        """Raise KeyNearExpiry; a key without an end gets one, 30 days ahead."""
        with self._changed:
            now = self._clock.now()
            if key.current.expires is None:
                self.set_key(key, expires=now + NOTICE)
            self._announce(key, NEAR_EXPIRY, now, quirks=True)

    def expire(self, key: SimulatedKey, *, quirks: bool = True) -> None:
        """Let the newest version end now, and raise KeyExpired."""
        with self._changed:
            now = self._clock.now()
            if key.current.expires is None or key.current.expires > now:
                self.set_key(key, expires=now)
            self._announce(key, EXPIRED, now, quirks=quirks)

    def set_access_policies(
        self, vault: SimulatedVault, policies: Sequence[Json] = (), *, rbac: bool | None = None
    ) -> None:
        """Replace a vault's access policies, or its permission model; VaultAccessPolicyChanged tells of either.

        What its data holds beside the vault's name is not documented: here the object is the vault itself.
        """
        with self._changed:
            vault.properties["accessPolicies"] = list(policies)
            if rbac is not None:
                vault.properties["enableRbacAuthorization"] = rbac
            self.announce_access(vault)

    def announce_access(self, vault: SimulatedVault) -> None:
        """Tell of other access policies or another permission model."""
        with self._changed:
            data = _event_data(vault, vault.uri, "Vault", vault.name, quirks=False)
            self._eventgrid.publish(Event((vault.id,), vault.name, ACCESS_POLICY_CHANGED, self._clock.now(), data))
            self._changed.notify_all()

    def now(self) -> datetime:
        """The simulated time."""
        return self._clock.now()

    def find(self, request: Request) -> SimulatedVault:
        """The vault of a request's path; 404 in the service's words when there is none."""
        identity = vault_id(request["subscription"], request["group"], request["vault"])
        found = self.vaults.get(identity.lower())
        if found is None:
            raise resource_not_found(f"{VAULT_TYPE}/{request['vault']}", request["group"])
        return found

    def vault_at(self, host: str) -> SimulatedVault | None:
        """The vault whose data plane has this host name, if there is one and its name is registered."""
        with self._changed:
            registered = (vault for vault in self.vaults.values() if vault.is_registered)
            return next((vault for vault in registered if vault.host == host.lower()), None)

    def named(self, name: str) -> SimulatedVault | None:
        """The vault of this name anywhere, deleted ones included: names are unique in all of Azure."""
        with self._changed:
            every = (*self.vaults.values(), *self.removed.values())
            return next((vault for vault in every if vault.name.lower() == name.lower()), None)

    def below(self, request: Request) -> dict[str, SimulatedVault]:
        """The vaults of a request's subscription or group."""
        prefix = f"/subscriptions/{request['subscription']}/resourcegroups/"
        if "group" in request.parameters:
            prefix += f"{request['group']}/"
        return {key: vault for key, vault in self.vaults.items() if key.startswith(prefix.lower())}

    def deleted_vaults(self, subscription: str) -> dict[str, SimulatedVault]:
        """The soft-deleted vaults of a subscription."""
        prefix = f"/subscriptions/{subscription}/".lower()
        return {key: vault for key, vault in self.removed.items() if key.startswith(prefix)}

    def deleted_vault(self, subscription: str, location: str, name: str) -> SimulatedVault | None:
        """One soft-deleted vault; names are unique, so its group does not matter."""
        wanted = (location.lower(), name.lower())
        deleted = self.deleted_vaults(subscription).values()
        return next((vault for vault in deleted if (vault.location.lower(), vault.name.lower()) == wanted), None)

    def permits(
        self, vault: SimulatedVault, object_id: str, permission: str, key: str | None = None, at: datetime | None = None
    ) -> bool:
        """True when a principal has a permission (of `DATA_ACTIONS`) on a key, by the vault's own permission model.

        A vault of another tenant knows none of our principals.
        """
        if vault.properties["tenantId"] != TENANT:
            return False
        if not vault.is_rbac:
            return vault.policies_permit({object_id} | self._access.groups_of(object_id), permission)
        scope = vault.id if key is None else f"{vault.id}/keys/{key}"
        return self._access.may(object_id, DATA_ACTIONS[permission], scope, at)

    def _register(self, vault: SimulatedVault) -> None:
        vault.properties["provisioningState"] = "Succeeded"
        self._changed.notify_all()

    def _announce(self, key: SimulatedKey, event_type: str, at: datetime, *, quirks: bool) -> None:
        """An event of a key's newest version. The quirks are those of the documentation's own sample."""
        version = key.current
        data = _event_data(key.vault, key.uri_of(version.version), "Key", key.name, version, quirks=quirks)
        self._eventgrid.publish(Event((key.vault.id,), key.name, event_type, at, data))


def _event_data(
    vault: SimulatedVault,
    identity: str,
    object_type: str,
    name: str,
    version: SimulatedVersion | None = None,
    *,
    quirks: bool,
) -> Json:
    not_before = None if version is None or version.not_before is None else epoch(version.not_before)
    expires = None if version is None or version.expires is None else epoch(version.expires)
    named = None if version is None else version.version
    return {
        "Id": identity,
        "VaultName": vault.name,
        "ObjectType": object_type,
        "ObjectName " if quirks else "ObjectName": name,
        "Version": f" {named}" if quirks else named,
        "NBF": _text(not_before) if quirks else not_before,
        "EXP": _text(expires) if quirks else expires,
    }


def _text(number: int | None) -> str | None:
    return None if number is None else str(number)
