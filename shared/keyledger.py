"""Table Storage: what is remembered of keys: their versions, who uses them, and which version each user took up.

A key's versions, adoptions and state lie in one partition, its users in another: whatever is asked of a key reads two.
A partition of its own lists all keys, each with what the last look at it came to, so that a list costs one read a page.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import batched
from typing import Any

from azure.core.exceptions import ResourceExistsError, ResourceModifiedError, ResourceNotFoundError
from azure.data.tables import TransactionOperation, UpdateMode
from pydantic import TypeAdapter

from shared.calls import translated
from shared.clusters import ClusterId, KeyManagement
from shared.errors import LostRace
from shared.keyhealth import SHOWN, Finding
from shared.keyrecords import Detection, KeySummary, KnownKey, Rotation, RotationClaim
from shared.keys import KeyId, KeyVersion, RotationPolicy, VaultId
from shared.rotation import Adoption, How, KeyUser
from shared.tables import (
    EPOCH,
    MOST_AT_ONCE,
    PROPERTY_LIMIT,
    Operation,
    Page,
    Row,
    Tables,
    etag_of,
    from_json,
    guarded,
    key_partition,
    only_if,
    read_token,
    to_json,
    user_row,
    vault_partition,
    write_token,
)

_KEY_ROW = "k"
_REFUSED_ROW = "refused"
_ASKED_ROW = "asked"
_ALL_KEYS = "keys"
_READ, _MOST_READS = 500, 10
_ROTATION_POLICY = TypeAdapter(RotationPolicy)
_SUMMARY = TypeAdapter(KeySummary)
_FINDINGS: TypeAdapter[tuple[Finding, ...]] = TypeAdapter(tuple[Finding, ...])
_REPLACE = {"mode": UpdateMode.REPLACE}
_MERGE = {"mode": UpdateMode.MERGE}
_DEADLINE = ("PartitionKey", "RowKey", "expectedBy")
_NAMED = (SHOWN, 3, 1, 0)
"""So many clusters each finding names, the first of these that lets all findings fit into one property."""

_ASKED_LATELY = timedelta(minutes=5)
"""So long a look that was asked for may take to begin before it is asked for again."""

_MOST_FINDINGS = 200
"""So many fit without naming anybody. Those that stop somebody come first."""


class KeyLedger:
    """The tables of keys. Errors: LostRace, TooLarge, and those of `shared.errors` for storage that is away."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    # who uses a key

    async def users(self, key: KeyId) -> list[KeyUser]:
        """Read the clusters that use a key, or have used it, each incarnation by itself."""
        rows = self._tables.query("keyusers", "PartitionKey eq @p", p=key_partition(key))
        return [_user(row) async for row in rows]

    async def user(self, key: KeyId, cluster: ClusterId, uid: str) -> KeyUser | None:
        """Read one incarnation of a cluster as a user of a key; None if it never used it."""
        row = await self._tables.get("keyusers", key_partition(key), _user_name(cluster, uid))
        return _user(row) if row is not None else None

    async def use(self, key: KeyId, user: KeyUser, *, in_effect: bool, now: datetime) -> bool:
        """Remember that a cluster uses a key, and which version where it names one; return whether that is new.

        What is known of an earlier time stays: since when, and when its secrets were rewritten. `in_effect` says that
        the cluster's last operation ended well: only from then on can a rewrite count for this version, and until then
        a legacy cluster that is to follow the key's newest version needs what it named.

        What it names is remembered first. Died in between, that is done again; the other way round it would look as
        if it had been named all along.
        """
        row = await self._tables.get("keyusers", key_partition(key), _user_name(user.cluster, user.resource_uid))
        before = _user(row) if row is not None else None
        anew = before is None or before.ended_at is not None
        moved = before is not None and before.is_legacy and not user.is_legacy
        if moved and not anew and not in_effect:
            return False
        if before is not None:
            user = user.with_history_of(before, now)
        if before is not None and not moved:
            user = replace(user, since=before.since, begun_before=before.begun_before)
        begins = anew or (before is not None and before.version != user.version)
        if user.version is not None:
            await self._take_up(key, user, user.version, begins=begins, in_effect=in_effect, now=now)
        if user != before:
            await self._write_user(key, user, row)
        return anew or moved

    async def end_use(
        self, key: KeyId, cluster: ClusterId, uid: str, *, to: KeyManagement | None, now: datetime
    ) -> None:
        """Remember that a cluster uses a key no more, but something else; `to` None if it was deleted.

        Unknown or told before: nothing.
        """
        row = await self._tables.get("keyusers", key_partition(key), _user_name(cluster, uid))
        if row is None:
            return
        before = _user(row)
        ended_as = before.ended_as if before.ended_at is not None else to
        after = replace(before, ended_at=before.ended_at or now, ended_as=ended_as, gone=before.gone or to is None)
        if after != before:
            await self._write_user(key, after, row)

    async def rewritten(self, key: KeyId, cluster: ClusterId, uid: str, *, by: str, at: datetime) -> None:
        """Remember that all secrets of a cluster were rewritten. No user of it, or told of a later one: nothing."""
        row = await self._tables.get("keyusers", key_partition(key), _user_name(cluster, uid))
        if row is None:
            return
        before = _user(row)
        if before.rewritten_at is None or before.rewritten_at < at:
            await self._write_user(key, replace(before, rewritten_at=at, rewritten_by=by), row)

    async def _write_user(self, key: KeyId, user: KeyUser, over: Row | None) -> None:
        table, row = self._tables["keyusers"], _user_values(key, user)
        with translated(writing=True):
            try:
                if over is None:
                    await table.create_entity(row)
                else:
                    await table.update_entity(row, mode=UpdateMode.REPLACE, **only_if(etag_of(over)))
            except (ResourceExistsError, ResourceModifiedError, ResourceNotFoundError) as error:
                raise LostRace(f"{key} and {user.cluster}") from error

    async def _take_up(
        self, key: KeyId, user: KeyUser, version: str, *, begins: bool, in_effect: bool, now: datetime
    ) -> None:
        """A legacy cluster names a version: from now on, and since when its update has ended well."""
        name = _adoption_name(version, user.cluster, user.resource_uid)
        row = await self._tables.get("rotations", key_partition(key), name)
        before = _adoption(row) if row is not None else None
        if before is not None and not begins and (before.effective_at is not None or not in_effect):
            return
        named = Adoption(version, user.cluster, user.resource_uid, How.UPDATED, now)
        kept = named if before is None or begins else before
        await self.adopt(key, [replace(kept, effective_at=now if in_effect else None)])

    # which version each took up

    async def adoptions(self, key: KeyId) -> list[Adoption]:
        """Read which versions of a key its users have taken up, or are expected to."""
        where = "PartitionKey eq @p and RowKey ge @a and RowKey lt @b"
        rows = self._tables.query("rotations", where, p=key_partition(key), a="a|", b="a|~")
        return [_adoption(row) async for row in rows]

    async def adoption(self, key: KeyId, version: str, cluster: ClusterId, uid: str) -> Adoption | None:
        """Read how one cluster took up one version; None if it never did."""
        row = await self._tables.get("rotations", key_partition(key), _adoption_name(version, cluster, uid))
        return _adoption(row) if row is not None else None

    async def adopt(self, key: KeyId, adoptions: Iterable[Adoption]) -> None:
        """Remember adoptions, many at once. Written again, a row is the same."""
        await self._upsert(key, (_adoption_values(key, one) for one in adoptions), _REPLACE)

    async def saw(self, key: KeyId, adoptions: Iterable[Adoption]) -> None:
        """Remember what the vault's log showed of adoptions, and of them that alone: the rest may be others' by now."""
        await self._upsert(key, (_seen_values(key, one) for one in adoptions), _MERGE)

    async def put_off(self, key: KeyId, adoptions: Iterable[Adoption]) -> None:
        """Remember when adoptions are expected instead, and of them that alone."""
        rows = (_adoption_values(key, one) for one in adoptions)
        await self._upsert(key, ({name: row[name] for name in _DEADLINE} for row in rows), _MERGE)

    async def _upsert(self, key: KeyId, rows: Iterable[Row], how: Mapping[str, Any]) -> None:
        """Write rows of a key's partition, as many at once as the service takes."""
        for batch in batched(rows, MOST_AT_ONCE, strict=False):
            operations: list[Operation] = [(TransactionOperation.UPSERT, row, how) for row in batch]
            if not await self._tables.transact("rotations", operations):
                raise LostRace(str(key))

    # keys and their versions

    async def key(self, key: KeyId) -> KnownKey:
        """Read what is known of a key and its versions."""
        where = "PartitionKey eq @p and RowKey ge @k"  # the key's own row and its versions; adoptions come before them
        rows = [row async for row in self._tables.query("rotations", where, p=key_partition(key), k=_KEY_ROW)]
        head = next((row for row in rows if row["RowKey"] == _KEY_ROW), None)
        rotations = tuple(_rotation(row) for row in rows if row["RowKey"].startswith("v|"))
        if head is None:
            return KnownKey(key, rotations=rotations)
        return _known(key, head, rotations)

    async def claim_rotation(self, known: KnownKey, claim: RotationClaim | None) -> None:
        """Remember that a key is about to be rotated, or with None that nothing comes of it.

        LostRace if its row was changed since it was read: whoever wants to rotate looks again.
        """
        if known.etag is None:
            raise AssertionError("only a key that was seen first can be rotated")
        row = {
            "PartitionKey": key_partition(known.key),
            "RowKey": _KEY_ROW,
            "rotationIntent": claim.intent if claim else "",
            "rotationBy": (claim.by if claim else None) or "",
            "rotationClaimedAt": claim.at if claim else None,
            "rotationVersions": claim.versions if claim else None,
        }
        with translated(writing=True):
            try:
                await self._tables["rotations"].update_entity(
                    guarded(row), mode=UpdateMode.MERGE, **only_if(known.etag)
                )
            except (ResourceModifiedError, ResourceNotFoundError) as error:
                raise LostRace(str(known.key)) from error

    async def add_rotations(self, rotations: Iterable[Rotation]) -> None:
        """Log versions of keys, each once: a row that is there already stays as it is."""
        for rotation in rotations:
            with translated(writing=True), suppress(ResourceExistsError):
                await self._tables["rotations"].create_entity(_rotation_row(rotation))

    async def lies_in(self, key: KeyId, vault: VaultId, *, first_seen: datetime | None = None) -> None:
        """Remember where a key lies. Written after its baseline: until then, every look is a first one."""
        row = {"PartitionKey": key_partition(key), "RowKey": _KEY_ROW, "vaultId": str(vault), "firstSeenAt": first_seen}
        with translated(writing=True):
            await self._tables["rotations"].upsert_entity(guarded(row), mode=UpdateMode.MERGE)

    async def remember_key_state(self, known: KnownKey) -> KnownKey:
        """Remember what was seen of a key besides its versions, and list it among all keys.

        The list comes first: a look that died in between is taken up again as long as the key's own row lacks its run.
        LostRace if its own row was changed since it was read: of two looks at once, one finds what is new.
        """
        said = {
            "findings": _findings(known.findings),
            "rotationPolicy": to_json(_ROTATION_POLICY, known.rotation_policy) or "",
            "summary": to_json(_SUMMARY, known.summary) or "",
            "lookedAt": known.looked_at,
        }
        vault = {"vaultId": str(known.vault_id)} if known.vault_id is not None else {}
        listed = {"PartitionKey": _ALL_KEYS, "RowKey": key_partition(known.key), **vault, **said}
        row = {"PartitionKey": key_partition(known.key), "RowKey": _KEY_ROW, **said, "lastRun": known.last_run}
        with translated(writing=True):
            await self._tables["rotations"].upsert_entity(guarded(listed), mode=UpdateMode.REPLACE)
            try:
                answer = await self._write_key(guarded(row), known.etag)
            except (ResourceExistsError, ResourceModifiedError, ResourceNotFoundError) as error:
                raise LostRace(str(known.key)) from error
        return replace(known, etag=answer["etag"])

    async def _write_key(self, row: Row, etag: str | None) -> Row:
        """Write a key's own row over the version that was read; None: there was none."""
        if etag is None:
            return await self._tables["rotations"].create_entity(row)
        return await self._tables["rotations"].update_entity(row, mode=UpdateMode.MERGE, **only_if(etag))

    async def changed(self, rotations: Iterable[Rotation]) -> None:
        """Write over the attributes of versions that are others by now; who was told is not touched."""
        for rotation in rotations:
            row = await self._tables.get("rotations", *_rotation_keys(rotation).values())
            if row is None:
                continue
            read = _read_of(rotation)
            kept = {name: value for name, value in row.items() if name not in read}
            with translated(writing=True):
                try:
                    await self._tables["rotations"].update_entity(
                        guarded(kept | read), mode=UpdateMode.REPLACE, **only_if(etag_of(row))
                    )
                except (ResourceModifiedError, ResourceNotFoundError) as error:
                    raise LostRace(str(rotation.key)) from error

    async def of_vault(self, vault: VaultId) -> list[KeyId]:
        """Read which keys of a vault are known."""
        where = "PartitionKey gt @a and PartitionKey lt @b and RowKey eq @k"
        rows = self._tables.query("rotations", where, a=f"{vault.name}|", b=f"{vault.name}|~", k=_KEY_ROW)
        return [KeyId(*row["PartitionKey"].split("|")) async for row in rows]

    async def keys_page(
        self, *, vault: str | None, keep: Callable[[KnownKey], bool] | None = None, top: int, after: str | None
    ) -> Page[KnownKey]:
        """Read one page of the keys, of all vaults or of one, by their names; only those that `keep` keeps.

        So much of the table is read for it and no more: where few keys are kept, a page may be short, or empty, and
        still not be the last one.
        """
        token = read_token(after, "after") if after is not None else {}
        last, end = token.get("after", ""), "~"
        if vault is not None:
            last, end = max(last, vault_partition(vault)), f"{vault_partition(vault)}~"
        found: list[KnownKey] = []
        size = top + 1 if keep is None else _READ
        for _ in range(_MOST_READS):
            where = "PartitionKey eq @p and RowKey gt @a and RowKey lt @b"
            rows = await self._tables.first("rotations", where, {"p": _ALL_KEYS, "a": last, "b": end}, top=size)
            known = [_known(KeyId(*row["RowKey"].split("|")), row) for row in rows]
            found += known if keep is None else filter(keep, known)
            if len(found) > top:
                return Page(tuple(found[:top]), write_token(after=key_partition(found[top - 1].key)))
            if len(rows) < size:
                return Page(tuple(found), None)
            last = key_partition(known[-1].key)
        return Page(tuple(found), write_token(after=last))

    async def refused_at(self, vault: str) -> datetime | None:
        """Return when a vault last refused to let the app in; None if it never did."""
        row = await self._tables.get("rotations", vault_partition(vault), _REFUSED_ROW)
        return row["at"] if row is not None else None

    async def remember_refusal(self, vault: str, code: str, now: datetime) -> None:
        """Remember that a vault does not let the app in."""
        await self._refused(vault, code, now)

    async def forget_refusal(self, vault: str) -> None:
        """Remember that a vault lets the app in again: its refusal counts as long past."""
        await self._refused(vault, "", EPOCH)

    async def _refused(self, vault: str, code: str, at: datetime) -> None:
        row = {"PartitionKey": vault_partition(vault), "RowKey": _REFUSED_ROW, "at": at, "code": code}
        with translated(writing=True):
            await self._tables["rotations"].upsert_entity(guarded(row), mode=UpdateMode.REPLACE)

    async def asks_first(self, key: KeyId, now: datetime) -> bool:
        """Return whether a look at a key that nobody has looked at is to be asked for: nobody did a short while ago.

        Of many who ask at once one is told so. Its message may be lost with it: a while later somebody else asks.
        """
        row = {"PartitionKey": key_partition(key), "RowKey": _ASKED_ROW, "at": now}
        with translated(writing=True):
            try:
                await self._tables["rotations"].create_entity(row)
            except ResourceExistsError:
                pass
            else:
                return True
        known = await self._tables.get("rotations", key_partition(key), _ASKED_ROW)
        if known is None or now - known["at"] < _ASKED_LATELY:
            return False
        with translated(writing=True):
            try:
                await self._tables["rotations"].update_entity(row, mode=UpdateMode.REPLACE, **only_if(etag_of(known)))
            except (ResourceModifiedError, ResourceNotFoundError):
                return False
        return True

    async def heard(self, key: KeyId, event: str, now: datetime) -> datetime | None:
        """Remember that an event said something of a key; return when it first did, None if it was answered since."""
        partition, name = key_partition(key), f"e|{event}"
        with translated(writing=True), suppress(ResourceExistsError):
            await self._tables["rotations"].create_entity({"PartitionKey": partition, "RowKey": name, "heardAt": now})
            return now
        known = await self._tables.get("rotations", partition, name)
        if known is not None and known.get("answered"):
            return None
        return known["heardAt"] if known is not None else now

    async def answered(self, key: KeyId, event: str) -> None:
        """Remember that all was done about an event: it may come again."""
        row = {"PartitionKey": key_partition(key), "RowKey": f"e|{event}", "answered": True}
        with translated(writing=True):
            await self._tables["rotations"].upsert_entity(row, mode=UpdateMode.MERGE)

    async def told_up_to(self, rotations: Sequence[Rotation], user: KeyUser) -> None:
        """Remember how far the users of a key were told of versions: a redelivery goes on there."""
        told = _user_name(user.cluster, user.resource_uid)
        for rotation in rotations:
            row = {**_rotation_keys(rotation), "toldUpTo": told}
            with translated(writing=True):
                await self._tables["rotations"].upsert_entity(row, mode=UpdateMode.MERGE)

    async def fanned_out(self, rotation: Rotation, now: datetime) -> None:
        """Remember that every user of the key was told of this version."""
        row = {**_rotation_keys(rotation), "fannedOutAt": now}
        with translated(writing=True):
            await self._tables["rotations"].upsert_entity(row, mode=UpdateMode.MERGE)

    async def rotations_page(
        self,
        key: KeyId | None,
        *,
        top: int,
        after: str | None,
        how: Detection | None = None,
        since: datetime | None = None,
        untold: bool | None = None,
    ) -> Page[Rotation]:
        """Read one page of the rotations, of all keys or of one: by how they were detected, from when on.

        `untold` picks those whose key's users were not all told yet, or were: a table can't be asked for what a row
        lacks, so such a page may be short, or empty, and still not be the last one.
        """
        where, names = ["RowKey ge @a", "RowKey lt @b"], {"a": "v|", "b": "v|~"} | _given(p=key and key_partition(key))
        names |= _given(h=how and str(how), s=since)
        where += [part for name, part in _ROTATION_FILTERS.items() if name in names]
        found: list[Rotation] = []
        for _ in range(_MOST_READS):
            page = await self._tables.page("rotations", " and ".join(where), names, top=top - len(found), after=after)
            read = map(_rotation, page.items)
            found += [one for one in read if untold is None or untold is (one.fanned_out_at is None)]
            after = page.continuation
            if after is None or len(found) == top:
                break
        return Page(tuple(found), after)


_ROTATION_FILTERS = {"p": "PartitionKey eq @p", "h": "how eq @h", "s": "detectedAt ge @s"}


def _findings(found: Sequence[Finding]) -> str:
    """Findings as a property's text: rather fewer clusters of each than fewer findings."""
    kept = tuple(found[:_MOST_FINDINGS])
    texts = [
        _FINDINGS.dump_json(tuple(replace(one, clusters=one.clusters[:named]) for one in kept)) for named in _NAMED
    ]
    return next(text for text in texts if len(text) <= PROPERTY_LIMIT).decode()


def _given(**names: Any) -> dict[str, Any]:
    return {name: value for name, value in names.items() if value is not None}


def _known(key: KeyId, row: Row, rotations: tuple[Rotation, ...] = ()) -> KnownKey:
    """What a key's own row says, or its row among all keys. A key that could not be looked at yet has no vault."""
    findings, policy, summary = (row.get(name) or None for name in ("findings", "rotationPolicy", "summary"))
    return KnownKey(
        key,
        VaultId.parse(row["vaultId"]) if "vaultId" in row else None,
        rotations,
        findings=from_json(_FINDINGS, findings) or (),
        rotation_policy=from_json(_ROTATION_POLICY, policy),
        looked_at=row.get("lookedAt"),
        last_run=row.get("lastRun"),
        summary=from_json(_SUMMARY, summary),
        claim=_claim(row),
        etag=etag_of(row),
    )


def _rotation_keys(rotation: Rotation) -> dict[str, Any]:
    return {"PartitionKey": key_partition(rotation.key), "RowKey": f"v|{rotation.version.version}"}


def _read_of(rotation: Rotation) -> dict[str, Any]:
    """What a vault says of a version, and what follows from that: of one that only an event named, it comes later."""
    version, latency = rotation.version, rotation.latency
    return {
        "latencySeconds": latency.total_seconds() if latency is not None else None,
        "enabled": version.enabled,
        "created": version.created,
        "notBefore": version.not_before,
        "expires": version.expires,
        "updated": version.updated,
        "enabledSince": version.enabled_since,
    }


def _rotation_row(rotation: Rotation) -> dict[str, Any]:
    return guarded(
        {
            **_rotation_keys(rotation),
            "how": rotation.how,
            "detectedAt": rotation.detected_at,
            "eventId": rotation.event_id,
            "fannedOutAt": rotation.fanned_out_at,
            "toldUpTo": rotation.told_up_to,
            **_read_of(rotation),
        }
    )


def _claim(row: Row) -> RotationClaim | None:
    if not row.get("rotationIntent"):
        return None
    return RotationClaim(
        row["rotationIntent"], row["rotationClaimedAt"], row["rotationVersions"], row.get("rotationBy") or None
    )


def _rotation(row: Row) -> Rotation:
    version = KeyVersion(
        row["RowKey"].removeprefix("v|"),
        enabled=row.get("enabled"),
        created=row.get("created"),
        not_before=row.get("notBefore"),
        expires=row.get("expires"),
        updated=row.get("updated"),
        enabled_since=row.get("enabledSince"),
    )
    return Rotation(
        KeyId(*row["PartitionKey"].split("|")),
        version,
        Detection(row["how"]),
        row["detectedAt"],
        row.get("eventId"),
        row.get("fannedOutAt"),
        row.get("toldUpTo"),
    )


def user_name(user: KeyUser) -> str:
    """Return a user's name among all users of a key: they are told in this order."""
    return _user_name(user.cluster, user.resource_uid)


def _user_name(cluster: ClusterId, uid: str) -> str:
    return f"{user_row(cluster)}|{uid}"


def _adoption_name(version: str, cluster: ClusterId, uid: str) -> str:
    return f"a|{version}|{_user_name(cluster, uid)}"


def _user_values(key: KeyId, user: KeyUser) -> dict[str, Any]:
    return guarded(
        {
            "PartitionKey": key_partition(key),
            "RowKey": _user_name(user.cluster, user.resource_uid),
            "keyManagement": user.key_management,
            "since": user.since,
            "begunBefore": user.begun_before,
            "version": user.version,
            "networkAccess": user.network_access,
            "principal": user.principal,
            "rewrittenAt": user.rewritten_at,
            "rewrittenBy": user.rewritten_by,
            "endedAt": user.ended_at,
            "endedAs": user.ended_as,
            "gone": user.gone,
            "principalsBefore": ",".join(f"{who}|{until.isoformat()}" for who, until in user.principals_before) or None,
        }
    )


def _user(row: Row) -> KeyUser:
    subscription, group, name, uid = row["RowKey"].split("|")
    return KeyUser(
        ClusterId(subscription, group, name),
        uid,
        KeyManagement(row["keyManagement"]),
        row["since"],
        row["begunBefore"],
        version=row.get("version"),
        network_access=row.get("networkAccess"),
        principal=row.get("principal"),
        rewritten_at=row.get("rewrittenAt"),
        rewritten_by=row.get("rewrittenBy"),
        ended_at=row.get("endedAt"),
        ended_as=KeyManagement(row["endedAs"]) if "endedAs" in row else None,
        gone=row["gone"],
        principals_before=tuple(_principal_before(one) for one in row.get("principalsBefore", "").split(",") if one),
    )


def _principal_before(text: str) -> tuple[str, datetime]:
    principal, until = text.split("|")
    return principal, datetime.fromisoformat(until)


def _adoption_values(key: KeyId, adoption: Adoption) -> dict[str, Any]:
    return guarded(
        {
            "PartitionKey": key_partition(key),
            "RowKey": _adoption_name(adoption.version, adoption.cluster, adoption.resource_uid),
            "how": adoption.how,
            "since": adoption.since,
            "expectedBy": adoption.expected_by,
            "effectiveAt": adoption.effective_at,
            "firstSeen": adoption.first_seen,
            "lastSeen": adoption.last_seen,
            "lastTried": adoption.last_tried,
        }
    )


def _seen_values(key: KeyId, adoption: Adoption) -> dict[str, Any]:
    """What the log adds to a row. What a legacy cluster names is never written over."""
    names = {"PartitionKey", "RowKey", "firstSeen", "lastSeen", "lastTried"}
    if adoption.how is not How.UPDATED:
        names |= {"how", "since"}
    return {name: value for name, value in _adoption_values(key, adoption).items() if name in names}


def _adoption(row: Row) -> Adoption:
    _, version, subscription, group, name, uid = row["RowKey"].split("|")
    return Adoption(
        version,
        ClusterId(subscription, group, name),
        uid,
        How(row["how"]),
        row["since"],
        row.get("expectedBy"),
        row.get("effectiveAt"),
        row.get("firstSeen"),
        row.get("lastSeen"),
        row.get("lastTried"),
    )
