"""One key: gather its versions, compare with the ledger, record what rotated, tell who uses it. Safe to repeat.

    log new versions --> who is to take them up --> what is wrong, and whom it would stop --> tell every user

A key whose vault can't be read is logged all the same, from the event alone: a rotation that was announced is never
lost. Its baseline is taken by the first look that can read the vault.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import batched
from typing import TYPE_CHECKING

from shared.access import Roles
from shared.aks import Aks
from shared.announcements import Announcements
from shared.calls import some_at_once
from shared.clusters import ClusterId
from shared.errors import LostRace, Missing, Throttled, Transient, Unavailable, Unreadable
from shared.events import OPERATOR, ClusterRequest, KeyRequest, VaultRequest
from shared.keydata import KeyData
from shared.keyhealth import AT_RISK, Finding, KeyFacts, concerns, findings, is_found, out_of_sight, untold
from shared.keyledger import KeyLedger, user_name
from shared.keyrecords import KnownKey, Rotation, current_last, detected, made_at_once, summary_of
from shared.keys import Grant, KeyId, KeyVersion, Vault, VaultId
from shared.keyvault import KeyVault
from shared.ledger import Ledger
from shared.policy import PolicyInForce
from shared.queues import KEYS, Queues
from shared.reasons import Reason
from shared.recorder import Recorder
from shared.records import Activity
from shared.rotation import Adoption, How, KeyUser, Need, Standing, expected, newest_seen, picture, put_off
from shared.sightings import log_window, merged, seen
from shared.telemetry import Line, about_request, logger, saying

if TYPE_CHECKING:
    from shared.evidence import Evidence  # brings an SDK that only those pay for who have logs to read

log = logger(__name__)

_SAID_FOR = timedelta(days=1)
_ALWAYS_READ = 5
"""So many of a key's newest versions are read at every look, for somebody may have disabled one."""

_PAGE = 500
_RACES = 8
_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Inspector:
    """Looks at one key at a time. `subscriptions` are where a vault is looked for; empty means all readable ones.

    `evidence` are the vaults' logs, None where nobody says in which workspaces they are.
    """

    policy: PolicyInForce
    aks: Aks
    keyvault: KeyVault
    keydata: KeyData
    announcements: Announcements
    roles: Roles
    ledger: Ledger
    keys: KeyLedger
    recorder: Recorder
    queues: Queues
    subscriptions: tuple[str, ...]
    evidence: Evidence | None = None

    @about_request
    async def inspect(self, request: KeyRequest, *, now: datetime) -> tuple[Rotation, ...]:
        """Log the key's new versions, each once, and ask for a look at every cluster that uses the key.

        Returns the versions that were told on. Raises Unavailable where Azure or storage gives no answer.
        """
        for _ in range(_RACES):
            try:
                return await self._look(request, now)
            except LostRace:
                log.info("look again at %s: somebody else is looking at it", request.key)
        raise Unavailable("LostRace", f"what is known of {request.key} keeps changing")

    async def _look(self, request: KeyRequest, now: datetime) -> tuple[Rotation, ...]:
        known = await self.keys.key(request.key)
        if request.run is not None and known.last_run == request.run and not _not_fanned_out(known):
            return ()
        try:
            return await self._inspect(known, request, now)
        except Throttled as error:
            log.info("%s: Azure asks to come back in %s", request.key, error.retry_after)
            await self.queues.ask_for_key(request, after=error.retry_after)
            return ()

    @about_request
    async def inspect_vault(self, request: VaultRequest) -> None:
        """Ask for a look at every known key of a vault."""
        for key in await self.keys.of_vault(request.vault):
            await self.queues.ask_for_key(KeyRequest(key, request.asked_by, request.vault, cause=request.cause))

    @about_request
    async def give_up(self, request: KeyRequest | VaultRequest, *, now: datetime) -> None:
        """Record that a message failed too often. What was announced is logged all the same, for the sweep to tell.

        Of a vault's keys the next sweep looks at each.
        """
        if isinstance(request, VaultRequest):
            log.error("looks at the keys of %s failed", request.vault, extra=saying(Line.POISONED, queue=KEYS))
            failed = {"askedBy": request.asked_by, "detail": f"the keys of {request.vault} could not be asked for"}
            await self.ledger.note(Activity("events", request.asked_by, now, "failure", failed))
            return
        log.error("looks at %s failed five times in a row", request.key, extra=saying(Line.POISONED, queue=KEYS))
        await self.keys.add_rotations(self._detected(await self.keys.key(request.key), (), request, now))
        said = {
            "askedBy": request.asked_by,
            "version": request.version,
            "detail": "a look at the key failed five times in a row",
        }
        await self.ledger.note(Activity(request.key, "poisoned", now, "failure", said))

    async def _inspect(self, known: KnownKey, request: KeyRequest, now: datetime) -> tuple[Rotation, ...]:
        adoptions = await self.keys.adoptions(request.key)
        vault, missing = await self._log_versions(known, adoptions, request, now)
        logged = await self.keys.key(request.key)
        users = await self.keys.users(request.key)
        adoptions = await self._expect(logged, users, adoptions, now)
        event = await self._hear(request, users, now)
        adoptions, logs_read = await self._see(logged, users, adoptions, now)
        try:
            found = await self._look_at_key(
                logged, users, adoptions, request, now, vault=vault, missing=missing, logs_read=logs_read
            )
        except Transient:  # the clusters need not wait for the rest to hear of a version
            await self._fan_out(logged, users, now)
            raise
        if event is not None:
            standings = picture(users, adoptions, logged.versions, now)
            await self._answer(request, event, logged, found, users, standings=standings)
        return await self._fan_out(logged, users, now)

    async def _log_versions(
        self, known: KnownKey, adoptions: Sequence[Adoption], request: KeyRequest, now: datetime
    ) -> tuple[VaultId | None, frozenset[str]]:
        """Log what is new of the key's versions; return where it lies, or is said to lie, and those that are gone."""
        vault, versions = await self._read(known, adoptions, request, now)
        found = self._detected(known, versions or (), request, now)
        if vault is not None and made_at_once(found):
            found = current_last(found, await self._current(vault, request.key))
        await self.keys.add_rotations(found)
        if versions is None:
            return vault, _lost(known)
        await self._log_changes(known, versions, request, now)
        if vault is not None and vault != known.vault_id:
            await self.keys.lies_in(request.key, vault, first_seen=now if known.vault_id is None else None)
        there = {version.version for version in versions}
        shown = {one.version for one in known.versions if one.created is not None}
        return vault, frozenset(shown & _watched(known, adoptions) - there)

    async def _log_changes(
        self, known: KnownKey, versions: Sequence[KeyVersion], request: KeyRequest, now: datetime
    ) -> None:
        """Take over what somebody changed of versions that were logged: enabled or not, from when, until when."""
        read = {version.version: version for version in versions}
        changed = [
            replace(one, version=_as_seen(one.version, read[one.version.version], now))
            for one in known.rotations
            if read.get(one.version.version, one.version) != one.version
        ]
        await self.keys.changed(changed)
        learned = {one.version for one in known.versions if one.is_only_named}
        for one in changed:
            if one.version.version in learned:  # announced before it could be read: nobody changed it
                continue
            said = {
                "askedBy": request.asked_by,
                "version": one.version.version,
                "enabled": one.version.enabled,
                "notBefore": one.version.not_before,
                "expires": one.version.expires,
            }
            line = f"{one.version.version}|{int(now.timestamp())}"
            await self.ledger.note(Activity(request.key, line, now, "version-changed", said))

    def _detected(
        self, known: KnownKey, versions: tuple[KeyVersion, ...], request: KeyRequest, now: datetime
    ) -> tuple[Rotation, ...]:
        announced = request.version if request.cause is None else None
        event_id = request.asked_by.removeprefix("event:") if announced else None
        return detected(known, versions, announced, event_id, now)

    async def _read(
        self, known: KnownKey, adoptions: Sequence[Adoption], request: KeyRequest, now: datetime
    ) -> tuple[VaultId | None, tuple[KeyVersion, ...] | None]:
        """Read a key's versions where it was seen last, where it is said to lie, or wherever its vault is found.

        A vault may have been moved, and a policy may name another: one that is not there hides none that is, nor does
        one that may not be read, for its group or subscription may be gone. None where the app may not read them, or
        they are not there.
        """
        first: VaultId | None = None
        refused: tuple[VaultId, Unreadable] | None = None
        async with aclosing(self._places(known, request)) as places:
            async for vault in places:
                found = await self._versions(vault, known, adoptions)
                if isinstance(found, tuple):
                    return vault, found
                first = first or vault
                if found is None:
                    continue
                refused = vault, found
                if vault == known.vault_id and request.vault in {None, vault}:
                    break
        if refused is None:
            return first, None
        await self._note_unreadable(request, refused[1], now)
        return known.vault_id or refused[0], None

    async def _places(self, known: KnownKey, request: KeyRequest) -> AsyncGenerator[VaultId]:
        told = [vault for vault in dict.fromkeys((known.vault_id, request.vault)) if vault is not None]
        for vault in told:
            yield vault
        found = await self._find(request)
        if found is not None and found not in told:
            yield found

    async def _find(self, request: KeyRequest) -> VaultId | None:
        subscriptions = self.subscriptions or tuple(await self.aks.subscriptions())
        found = await self.keyvault.find(request.key.vault, subscriptions)
        if found is None:
            log.warning("%s: no readable subscription shows this vault", request.key)
        return found

    async def _note_unreadable(self, request: KeyRequest, error: Unreadable, now: datetime) -> None:
        """Say that versions can't be read: once a day and reason, for each sweep finds the same."""
        log.warning("%s: its versions can't be read: %s", request.key, error)
        lines = await self.ledger.activity_page(request.key, kind="unreadable", top=1, after=None)
        if any(line.get("code") == error.code and now - line["at"] < _SAID_FOR for line in lines.items):
            return
        said = {"askedBy": request.asked_by, "code": error.code, "detail": error.text}
        await self.ledger.note(Activity(request.key, request.version or "unreadable", now, "unreadable", said))

    async def _versions(
        self, vault: VaultId, known: KnownKey, adoptions: Sequence[Adoption]
    ) -> tuple[KeyVersion, ...] | Unreadable | None:
        """Read the versions that are new, new enough, or named by a cluster; None where the key is not there, or why
        the app may not read them.
        """
        passed_over = {version.version for version in known.versions} - _watched(known, adoptions)
        try:
            return await self.keyvault.versions(vault, known.key, but=passed_over)
        except Missing:
            return None
        except Unreadable as error:
            return error

    async def _current(self, vault: VaultId, key: KeyId) -> str | None:
        """Return the version that a vault calls current; None where that can't be told."""
        try:
            found = await self.keyvault.key(vault, key.name)
        except Unreadable:
            return None
        return found.version if found is not None else None

    async def _expect(
        self, logged: KnownKey, users: Sequence[KeyUser], adoptions: Sequence[Adoption], now: datetime
    ) -> list[Adoption]:
        """Remember which users are to take up which versions by when; return all adoptions."""
        dated = [(one.version, one.detected_at) for one in logged.rotations]
        hours = timedelta(hours=self.policy.keys.adoption_hours)
        found = expected(users, adoptions, dated, hours)
        await self.keys.adopt(logged.key, found)
        later = put_off(adoptions, dated, hours, now)
        await self.keys.put_off(logged.key, later)
        return merged(adoptions, [*found, *later])

    async def _see(
        self, logged: KnownKey, users: Sequence[KeyUser], adoptions: list[Adoption], now: datetime
    ) -> tuple[list[Adoption], bool | None]:
        """Remember what the vault's log shows; return all adoptions, and whether every workspace may be read.

        None: there is no log to read, or nobody whom it could show.
        """
        if self.evidence is None or not users:
            return adoptions, None
        since, until = log_window(users, adoptions, now)
        logs = await self.evidence.of(logged.key, since, until)
        versions = {version.version for version in logged.versions}
        changed = seen(users, adoptions, logs.sightings, versions, since)
        await self.keys.saw(logged.key, changed)
        return merged(adoptions, changed), not logs.refused

    async def _hear(self, request: KeyRequest, users: Sequence[KeyUser], now: datetime) -> str | None:
        """Record what an event said besides a new version, and look at the clusters that it concerns: once.

        Returns the event's name until it was answered. An event without an id can't be told from another one.
        """
        if request.cause is None:
            return None
        event_id = request.asked_by.removeprefix("event:")
        event = f"{request.cause}|{event_id}" if event_id else f"{request.cause}|{int(now.timestamp())}"
        heard_at = await self.keys.heard(request.key, event, now)
        if heard_at is None:
            return None
        said = {"askedBy": request.asked_by, "version": request.version}
        await self.ledger.note(Activity(request.key, event_id, heard_at, request.cause, said))
        await self._tell_users(request, [user for user in users if user.ended_at is None])
        return event

    async def _answer(
        self,
        request: KeyRequest,
        event: str,
        known: KnownKey,
        found: Sequence[Finding],
        users: Sequence[KeyUser],
        *,
        standings: Mapping[str, Sequence[Need]],
    ) -> None:
        """Tell of what an event said, unless a finding tells that already.

        An expiry concerns those who need the version, a change of permissions all who use the key.
        """
        if request.cause is None:
            return
        newest = newest_seen(known.versions)
        of_the_key = newest is not None and newest.version == request.version
        if not is_found(found, request.cause, None if of_the_key else request.version):
            concerned = [user.cluster for user in users if user.ended_at is None]
            if request.version is not None and request.version in standings:
                concerned = [one.cluster for one in standings[request.version] if one.standing is Standing.NEEDED]
            event_id = request.asked_by.removeprefix("event:")
            await self.recorder.tell_of_event(request.key, request.cause, request.version, event_id, concerned)
        await self.keys.answered(request.key, event)

    async def _look_at_key(
        self,
        known: KnownKey,
        users: Sequence[KeyUser],
        adoptions: Sequence[Adoption],
        request: KeyRequest,
        now: datetime,
        *,
        vault: VaultId | None,
        missing: frozenset[str],
        logs_read: bool | None,
    ) -> tuple[Finding, ...]:
        """Look at the key besides its versions: what is wrong with it, and which clusters that would stop.

        Where nobody may look, what was found before goes on.
        """
        if known.vault_id is None and not known.rotations and not users:
            return ()
        standings = picture(users, adoptions, known.versions, now)
        facts = await self._facts(known, vault, users, standings, now, afresh=request.asked_by == OPERATOR)
        summary = summary_of(known.versions, users, standings)
        seen = replace(known, last_run=request.run or known.last_run, summary=summary)
        if facts is not None:
            facts = replace(facts, adoptions=adoptions, logs_read=logs_read, missing=missing)
            found = findings(
                concerns(facts, self.policy.keys, now),
                known.findings,
                everything_told=self.recorder.notices is None,
                now=now,
            )
            by_weight = sorted(found, key=lambda one: one.reason not in AT_RISK)
            seen = replace(seen, findings=tuple(by_weight), rotation_policy=facts.rotation_policy, looked_at=now)
        else:
            seen = replace(seen, findings=out_of_sight(known.findings, users, now))
        nothing_new = replace(seen, looked_at=known.looked_at) == known
        if nothing_new and request.run is None and not untold(seen.findings):
            return seen.findings
        _log_risks(seen)
        await self._note_findings(known, seen, request, now)
        seen = await self.keys.remember_key_state(seen)
        if untold(seen.findings):  # remembered first: told again after a crash, it is the same notice
            told = [await self._told(seen, one) for one in seen.findings]
            await self.keys.remember_key_state(replace(seen, findings=tuple(told)))
        return seen.findings

    async def _note_findings(self, before: KnownKey, after: KnownKey, request: KeyRequest, now: datetime) -> None:
        """Keep what began and what ended."""
        had = {(one.reason, one.version) for one in before.findings}
        has = {(one.reason, one.version) for one in after.findings}
        changes = [
            (kind, one) for kind, some in (("found", has - had), ("over", had - has)) for one in sorted(some, key=str)
        ]
        for kind, (reason, version) in changes:
            said = {"askedBy": request.asked_by, "reason": reason, "version": version}
            line = f"{reason}|{version or ''}|{int(now.timestamp())}"
            await self.ledger.note(Activity(before.key, line.strip("|"), now, kind, said))

    async def _told(self, known: KnownKey, finding: Finding) -> Finding:
        if finding not in untold([finding]):
            return finding
        return replace(finding, told=await self.recorder.tell_of_finding(known, finding))

    async def _facts(
        self,
        known: KnownKey,
        vault_id: VaultId | None,
        users: Sequence[KeyUser],
        standings: Mapping[str, Sequence[Need]],
        now: datetime,
        *,
        afresh: bool,
    ) -> KeyFacts | None:
        """Gather what can be known of a key; None where the app may not look, or nobody knows where."""
        if vault_id is None:
            return None
        try:
            vault, key = await asyncio.gather(
                self.keyvault.vault(vault_id), self.keyvault.key(vault_id, known.key.name)
            )
        except Unreadable:
            return None
        shown = key.rotation_policy if key is not None else None
        told = shown or await self.keydata.rotation_policy(known.key, now=now, afresh=afresh)
        return KeyFacts(
            key,
            vault,
            known.versions,
            users,
            standings,
            rotation_policy=told or known.rotation_policy,
            access=await self._access(vault, known, users, now) if vault is not None else {},
            announced=await self.announcements.reach(vault_id) if vault is not None else None,
            vault_deleted=vault is None and await self.keyvault.is_deleted(vault_id),
            key_deleted=key is None and await self.keydata.is_deleted(known.key, now=now, afresh=afresh) is True,
        )

    async def _access(
        self, vault: Vault, known: KnownKey, users: Sequence[KeyUser], now: datetime
    ) -> Mapping[ClusterId, Grant]:
        """Look at what each active user may do with the key."""
        principals = {user.cluster: user.principal for user in users if user.ended_at is None and user.principal}
        may = await self.roles.crypto_of(set(principals.values()), vault, known.key.name, now=now)
        return {cluster: may[principal] for cluster, principal in principals.items()}

    async def _fan_out(self, logged: KnownKey, users: Sequence[KeyUser], now: datetime) -> tuple[Rotation, ...]:
        """Tell every user of the key of each version that was not told yet; a crash half-way is continued here."""
        told = _not_fanned_out(logged)
        if not told:
            return ()
        up_to = min(one.told_up_to or "" for one in told)
        active = sorted((user for user in users if user.ended_at is None), key=user_name)
        request = KeyRequest(logged.key, asked_by=f"key:{logged.key}")
        for page in batched((user for user in active if user_name(user) > up_to), _PAGE, strict=False):
            await self._tell_users(request, page)
            await self.keys.told_up_to(told, page[-1])
        for rotation in told:
            if not await self.recorder.tell_of_rotation(rotation):
                continue
            await self.keys.fanned_out(rotation, now)
            _log_rotation(rotation, len(active))
        return told

    async def _tell_users(self, request: KeyRequest, users: Sequence[KeyUser]) -> None:
        """Ask for a look at each of these clusters, some at a time."""
        requests = (ClusterRequest(user.cluster, asked_by=request.asked_by) for user in users)
        await some_at_once(self.queues.ask_for_cluster, requests, _AT_ONCE)


def _watched(known: KnownKey, adoptions: Sequence[Adoption]) -> set[str]:
    newest = {version.version for version in known.versions[-_ALWAYS_READ:]}
    return newest | _lost(known) | {one.version for one in adoptions if one.how is How.UPDATED}


def _lost(known: KnownKey) -> frozenset[str]:
    """The versions that were missing at the last look: only one that can read them shows that they are back."""
    found = (one.version for one in known.findings if one.reason is Reason.VERSION_MISSING)
    return frozenset(version for version in found if version is not None)


def _as_seen(before: KeyVersion, read: KeyVersion, now: datetime) -> KeyVersion:
    """A version as it was read, with since when it is enabled again."""
    again = before.enabled is False and read.enabled is not False
    return replace(read, enabled_since=now if again else before.enabled_since)


def _log_risks(known: KnownKey) -> None:
    for one in known.findings:
        if one.reason not in AT_RISK or not one.count:
            continue
        risk = saying(
            Line.KEY_AT_RISK, reason=one.reason, version=one.version, users=one.count, since=one.since.isoformat()
        )
        log.error("%s is at risk: %s concerns %s clusters", known.key, one.reason, one.count, extra=risk)


def _log_rotation(rotation: Rotation, users: int) -> None:
    version, latency = rotation.version.version, rotation.latency
    detected_by = saying(
        Line.ROTATION_DETECTED,
        version=version,
        how=rotation.how,
        latencySeconds=latency.total_seconds() if latency is not None else None,
        users=users,
    )
    log.info("%s: version %s was detected by %s", rotation.key, version, rotation.how, extra=detected_by)


def _not_fanned_out(known: KnownKey) -> tuple[Rotation, ...]:
    return tuple(one for one in known.rotations if one.fanned_out_at is None)
