"""What a cluster's secrets are read with, looked at right before a write that depends on it.

The ledger knows versions as of the last look at their key, and AKS tries none of a private vault. A move to another key
or key management rewrites every secret, so it has to read them all first.
Source: AKS docs, use-kms-etcd-encryption.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from shared.clusters import Cluster
from shared.decisions import Change, Decision, is_propagating
from shared.keys import KeyId, KeyReference, VaultId
from shared.preparations import CreateIdentity
from shared.prerequisites import access_obstacle
from shared.reasons import Reason
from shared.reencryption import Reencryption
from shared.surveyor import Surveyor
from shared.usage import Usage


@dataclass(frozen=True, slots=True)
class Unfit:
    """A key, or a version of one, that can't be used: where it lies, if that is known, and why."""

    key: KeyReference
    vault: VaultId | None
    reason: Reason


@dataclass(frozen=True, slots=True)
class KeysInUse:
    """Looks at the keys and versions that a write depends on. Raises Throttled and Unavailable."""

    usage: Usage
    surveyor: Surveyor

    async def unfit(
        self, cluster: Cluster, past: Iterable[KeyId], decision: Decision, *, now: datetime
    ) -> Unfit | None:
        """Return what keeps a write from being made; None if nothing does, or if nobody can tell.

        A cluster whose secrets may be written with a key or version that is lost, or that its identity may not use,
        stays as it is, and nothing is made for a move. `past` are the keys that it had before.
        """
        held, change = cluster.encryption.key, decision.change
        if held is None:
            return None
        if isinstance(change, Change) and change.rotates and change.after.key is not None:
            return await self._unfit_to_name(change.after.key, held, now)
        lost = await self._first_lost(await self.usage.needed_by(cluster, past, now=now))
        return lost or await self._out_of_use(cluster, held, decision, now)

    async def _unfit_to_name(self, named: KeyReference, held: KeyReference, now: datetime) -> Unfit | None:
        """Return what keeps a legacy cluster from this version: the version itself, or the one that it has."""
        vault = await self.usage.vault_of(named.key)
        if vault is None:
            return Unfit(named, None, Reason.VAULT_UNREADABLE)
        reason = await self.surveyor.version_obstacle(vault, named, now=now)
        return Unfit(named, vault, reason) if reason is not None else await self._first_lost([held])

    async def _first_lost(self, needed: Iterable[KeyReference]) -> Unfit | None:
        """Return the first of these with which nothing can be read; None if there is none."""
        for one in needed:
            vault = await self.usage.vault_of(one.key)
            lost = await self.surveyor.held_obstacle(vault, one) if vault is not None else None
            if lost is not None:
                return Unfit(one, vault, lost)
        return None

    async def _out_of_use(
        self, cluster: Cluster, held: KeyReference, decision: Decision, now: datetime
    ) -> Unfit | None:
        """Return why a cluster may not use its own key, where a move is to read its secrets with it.

        A grant so young that the cluster may not have it yet is one: nobody tries it before secrets are read. A change
        of its identity reads none, and what is made in the key's own vault may be the grant that it lacks.
        """
        vault, principal = await self.usage.vault_of(held.key), cluster.identity.principal
        if vault is None or principal is None or not _moves(cluster, held, vault, decision):
            return None
        found = await self.surveyor.access(vault, held.key.name, principal, now=now)
        reason = access_obstacle(found) or (Reason.PROPAGATING if is_propagating(found, now) else None)
        return Unfit(held, vault, reason) if reason is not None else None


def _moves(cluster: Cluster, held: KeyReference, vault: VaultId, decision: Decision) -> bool:
    """Return whether this is a move away from a key of a vault, or is made for one outside that vault.

    One that stays with its key is looked at as its target asks.
    """
    change = decision.change
    if isinstance(change, Change):
        asked = change.after.key
        return change.identity is None and (asked is None or asked.key != held.key)
    if change is None or isinstance(change, CreateIdentity | Reencryption) or cluster.identity.resource_id is None:
        return False
    return change.vault != vault
