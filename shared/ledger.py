"""Table Storage: what is remembered of clusters, of what happened, of runs and limits. Keys: `keyledger.py`.

Every update names the ETag it was read at, always: without one Table Storage overwrites silently. A row that somebody
else changed meanwhile raises LostRace, and the caller looks again. Catches SDK errors by class, never by code: the
code is missing in some answers.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from itertools import chain
from sys import intern
from typing import Any
from uuid import uuid4
from zlib import crc32

from azure.core.exceptions import ResourceExistsError, ResourceModifiedError, ResourceNotFoundError
from azure.data.tables import TransactionOperation, UpdateMode
from pydantic import TypeAdapter

from shared.calls import translated
from shared.clusters import ClusterId, Encryption
from shared.decisions import OPERATION_DEADLINE, Change, Refusal, Waiting
from shared.errors import LostRace
from shared.keys import KeyId
from shared.policy import Limits, Mode
from shared.preparations import Preparation, view
from shared.reasons import Action, Fix, Reason
from shared.records import Activity, Claim, Enforcement, FailedUpdate, Matched, Record, Run, Settlement, Shard
from shared.reencryption import Reencryption, Rewrite
from shared.tables import (
    EPOCH,
    PROPERTY_LIMIT,
    Operation,
    Page,
    Row,
    Tables,
    cluster_row,
    etag_of,
    from_json,
    guarded,
    key_partition,
    only_if,
    to_json,
    user_row,
)
from shared.telemetry import Line, logger, saying

log = logger(__name__)

LEASE = timedelta(minutes=15)
"""How long a slot is held unasked: longer than a function may run, so its claim is written or dead by then."""

_ATTEMPTS = 8
_EPOCH_END = 9_999_999_999_999
_BUCKETS = 16
_SLOTS = "limits"
_STATE = "state"
_LAST, _SWEEP_ROW = "last", "sweep"
_COUNTED = ("PartitionKey", "RowKey", "shards")

InFlight = Callable[[ClusterId], Awaitable[bool | None]]
"""Asks Azure whether an operation runs on a cluster; None if that can't be told."""

_CHANGE: TypeAdapter[Change | Preparation | Reencryption] = TypeAdapter(Change | Preparation | Reencryption)
_CLAIM = TypeAdapter(Claim)
_ENCRYPTION = TypeAdapter(Encryption)
_FIX = TypeAdapter(Fix)
_REFUSAL = TypeAdapter(Refusal)
_REWRITE = TypeAdapter(Rewrite)


class Ledger:
    """The tables. Errors: LostRace, TooLarge, and those of `shared.errors` for storage that is away."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    # clusters

    async def cluster(self, cluster_id: ClusterId) -> Record | None:
        """Read what is known of a cluster; None if nothing is."""
        row = await self._tables.get("clusters", cluster_id.subscription, cluster_row(cluster_id))
        return _record(row) if row is not None else None

    async def clusters(self, subscription: str) -> dict[ClusterId, Record]:
        """Read all that is known of a subscription's clusters, but for the archived ones."""
        rows = self._tables.query("clusters", "PartitionKey eq @p", p=subscription)
        records = [_record(row) async for row in rows if not _is_archived(row)]
        return {record.cluster_id: record for record in records}

    async def clusters_page(self, subscription: str | None, *, top: int, after: str | None) -> Page[Record]:
        """Read one page of the clusters, of all subscriptions or of one."""
        where = ("PartitionKey eq @p", {"p": subscription}) if subscription else ("PartitionKey ge @p", {"p": ""})
        page = await self._tables.page("clusters", *where, top=top, after=after)
        return Page(tuple(_record(row) for row in page.items if not _is_archived(row)), page.continuation)

    async def write(self, record: Record) -> Record:
        """Write a cluster's row over the version that was read; LostRace if it is another one by now."""
        table, row = self._tables["clusters"], _row(record)
        with translated(writing=True):
            try:
                if record.version is None:
                    answer = await table.create_entity(row)
                else:
                    answer = await table.update_entity(row, mode=UpdateMode.REPLACE, **only_if(record.version))
            except (ResourceExistsError, ResourceModifiedError, ResourceNotFoundError) as error:
                raise LostRace(str(record.cluster_id)) from error
        return replace(record, version=answer["etag"])

    async def record(self, before: Record, after: Record, *, asked_by: str, now: datetime) -> Record:
        """Write what a look found, if it is anything new, and a line of activity if the decision is another one."""
        if after.says_the_same_as(before):
            return before
        written = await self.write(after)
        if after.decided_otherwise_than(before):
            await self.note(_decision_activity(written, asked_by, now))
        return written

    async def archive(self, record: Record, now: datetime) -> None:
        """Keep the row of a cluster that was deleted and created anew under its name: another incarnation begins."""
        row = _row(replace(record, closed_at=now))
        row["RowKey"] = f"{row['RowKey']}|{record.resource_uid}"
        with translated(writing=True):
            await self._tables["clusters"].upsert_entity(row, mode=UpdateMode.REPLACE)

    # claims and slots

    async def claim(
        self, record: Record, claim: Claim, waiting: Waiting, *, limits: Limits, in_flight: InFlight
    ) -> Record | None:
        """Record the intent to write and the look that will settle it, and take a slot; None if no slot is free.

        A row without a claim comes back if the slot was lost in between. It has no wait any more: the earlier wait's
        message may have come meanwhile and ended as stale, so whoever asked has to wait anew.

        The row comes first: whatever happens after, the next look finds the claim and settles it, and settling gives
        back what slots it took. LostRace if somebody else claimed the cluster first.
        """
        now = claim.claimed_at
        if await self._free_slots(record.cluster_id, limits, in_flight, now) is None:
            return None
        claimed = await self.write(replace(record, claim=claim, waiting=waiting))
        if await self._take_slots(claimed.cluster_id, claim.intent, limits, in_flight, now):
            return claimed
        return await self.write(replace(claimed, claim=None, waiting=None))

    async def accept(self, record: Record, operation: str | None, *, now: datetime) -> Record:
        """Record that Azure took the claimed write."""
        if record.claim is None:
            raise AssertionError("only a claimed write is accepted")
        claim = replace(record.claim, accepted_at=now, operation=operation)
        await self.note(_write_activity(record.cluster_id, claim, ended={}))
        taken = await self.write(replace(record, claim=claim))
        log.info("%s: Azure took the write", record.cluster_id, extra=saying(Line.WRITE_TAKEN, what=_what(claim)))
        return taken

    async def settle(
        self,
        record: Record,
        what: Settlement,
        *,
        now: datetime,
        refusal: Refusal | None = None,
        found: Mapping[str, Any] | None = None,
    ) -> Record:
        """End a claim: keep what was written with before and after, give back its slots, then clear it.

        In this order, so that a crash in between is settled again by the next look. LostRace if another look was first.
        `found` is what else is known of its end, for the line of activity. The refusal of an optional grant is kept
        apart: it stops no write, and says nothing of how those before it ended.
        A write that Azure took and somebody undid before it was seen in effect counts as enforced, and so as set back.
        """
        claim = record.claim
        if claim is None:
            raise AssertionError("only a claim is settled")
        said: dict[str, Any] = {"outcome": what, "endedAt": now, **(found or {})}
        if refusal is not None:
            said |= {"code": refusal.code, "text": refusal.text}
        await self.note(_write_activity(record.cluster_id, claim, ended=said))
        await self._release_slots(claim.intent)
        taken = what is Settlement.DONE or (what is Settlement.WITHDRAWN and claim.accepted_at is not None)
        change = claim.change
        encrypts = isinstance(change, Change) and change.identity is None and not change.rotates
        enforced_at = now if taken and encrypts else record.enforced_at
        after = replace(record, claim=None, refusal=refusal, enforced_at=enforced_at)
        if what is Settlement.DONE:
            after = replace(after, reader_refused=None)
        if what is Settlement.REFUSED and claim.optional:
            after = replace(after, refusal=record.refusal, reader_refused=refusal)
        settled = await self.write(after)
        ended = saying(Line.WRITE_ENDED, what=_what(claim), outcome=what, code=refusal.code if refusal else None)
        log.info("%s: what was claimed is %s", record.cluster_id, what, extra=ended)
        return settled

    async def _free_slots(
        self, cluster_id: ClusterId, limits: Limits, in_flight: InFlight, now: datetime
    ) -> list[Row] | None:
        """Return one free slot of all and one of the subscription, or None. A slot without a row yet is free."""
        wanted = {"all": limits.concurrent_updates, cluster_id.subscription: limits.concurrent_updates_per_subscription}
        free = [await self._free_slot(cluster_id, scope, size, in_flight, now) for scope, size in wanted.items()]
        return [slot for slot in free if slot is not None] if all(free) else None

    async def _free_slot(
        self, cluster_id: ClusterId, scope: str, size: int, in_flight: InFlight, now: datetime
    ) -> Row | None:
        """A taken slot whose lease ended is free only once Azure shows nothing in flight on its cluster.

        Where that can't be told, it is free once any operation must have ended: one cluster out of sight must not
        stop the fleet.
        """
        rows = {row["RowKey"]: row async for row in self._slots(scope)}
        first = crc32(str(cluster_id).encode()) % size  # those who come at the same moment try different ones
        names = [_slot_row(scope, (first + number) % size) for number in range(size)]
        for name in names:
            if name not in rows:
                return {"PartitionKey": _SLOTS, "RowKey": name}
            if not rows[name]["holder"]:
                return rows[name]
        for name in names:
            row = rows[name]
            if row["leaseEnd"] > now:
                continue
            runs = await in_flight(ClusterId.parse(row["holder"]))
            if runs is False or (runs is None and row["takenAt"] + OPERATION_DEADLINE <= now):
                return row
        return None

    async def _take_slots(
        self, cluster_id: ClusterId, intent: str, limits: Limits, in_flight: InFlight, now: datetime
    ) -> bool:
        """Take both slots in one transaction; somebody else's take in between means choosing again."""
        for _ in range(_ATTEMPTS):
            slots = await self._free_slots(cluster_id, limits, in_flight, now)
            if slots is None:
                return False
            taken = {"holder": str(cluster_id), "intent": intent, "leaseEnd": now + LEASE, "takenAt": now}
            if await self._tables.transact("enforcement", [_slot_operation(slot, taken) for slot in slots]):
                return True
        return False

    async def _release_slots(self, intent: str) -> None:
        """Give back the slots that this intent holds. Slots that somebody took over are not touched."""
        rows = self._tables.query("enforcement", "PartitionKey eq @p and intent eq @i", p=_SLOTS, i=intent)
        held = [row async for row in rows]
        for row in held:
            empty = {"PartitionKey": _SLOTS, "RowKey": row["RowKey"], "holder": "", "intent": "", "leaseEnd": EPOCH}
            with translated(writing=True), suppress(ResourceModifiedError):
                await self._tables["enforcement"].update_entity(empty, mode=UpdateMode.REPLACE, **only_if(etag_of(row)))

    def _slots(self, scope: str) -> AsyncIterator[Row]:
        where = "PartitionKey eq @p and RowKey ge @a and RowKey lt @b"
        return self._tables.query("enforcement", where, p=_SLOTS, a=f"{scope}|", b=f"{scope}|~")

    # whether anything may be written

    async def enforcement(self) -> Enforcement:
        """Read whether enforcement is paused, and what failed since the last success."""
        row = await self._tables.get("enforcement", _STATE, _STATE)
        return _enforcement(row) if row is not None else Enforcement()

    async def change_enforcement(self, change: Callable[[Enforcement], Enforcement]) -> Enforcement:
        """Change that state and return it; where somebody else changes it meanwhile, what they made of it is changed.

        A change that changes nothing writes nothing. LostRace if the row never keeps still.
        """
        for _ in range(_ATTEMPTS):
            before = await self.enforcement()
            after = change(before)
            if after == before:
                return before
            with suppress(LostRace):
                return await self._write_enforcement(after)
        raise LostRace("the state of enforcement")

    async def _write_enforcement(self, state: Enforcement) -> Enforcement:
        table, row = self._tables["enforcement"], _enforcement_row(state)
        with translated(writing=True):
            try:
                if state.version is None:
                    answer = await table.create_entity(row)
                else:
                    answer = await table.update_entity(row, mode=UpdateMode.REPLACE, **only_if(state.version))
            except (ResourceExistsError, ResourceModifiedError, ResourceNotFoundError) as error:
                raise LostRace("the state of enforcement") from error
        return replace(state, version=answer["etag"])

    # activity and runs

    async def note(self, activity: Activity) -> None:
        """Write one line of the record; written again, it adds what is new to the same line."""
        moment = _inverted(activity.at)
        row = guarded(
            {
                "PartitionKey": _subject_partition(activity.subject),
                "RowKey": f"{moment}|{activity.id}",
                "at": activity.at,
                "kind": activity.kind,
                **activity.said,
            }
        )
        await asyncio.gather(*(self._write_line(one) for one in (row, _copy_by_day(row, activity, moment))))

    async def _write_line(self, row: Row) -> None:
        with translated(writing=True):
            await self._tables["activity"].upsert_entity(row, mode=UpdateMode.MERGE)

    async def activity_page(
        self,
        subject: ClusterId | KeyId,
        *,
        top: int,
        after: str | None,
        kind: str | None = None,
        day: date | None = None,
    ) -> Page[Row]:
        """Read one page of what happened to a cluster or a key, the newest first: of one kind, of one day."""
        where, names = ["PartitionKey eq @p"], {"p": _subject_partition(subject)}
        if kind is not None:
            where, names = [*where, "kind eq @k"], names | {"k": kind}
        if day is not None:
            begin = datetime(day.year, day.month, day.day, tzinfo=UTC)
            end = begin + timedelta(days=1) - timedelta(milliseconds=1)
            # a row's name goes on after its moment: whatever begins with the day's first moment is before the `~`
            where = [*where, "RowKey ge @a", "RowKey lt @b"]
            names |= {"a": _inverted(end), "b": f"{_inverted(begin)}~"}
        return await self._tables.page("activity", " and ".join(where), names, top=top, after=after)

    async def activity_of_day(self, day: date, *, kind: str | None, top: int, after: str) -> Page[Row]:
        """Read one page of what happened on a day (UTC) to anything, the newest first, after the line of this name.

        The continuation is the name of the page's last line: names stand in one order over all buckets, and what is
        written meanwhile moves none, so no line is lost or comes twice.
        """
        where, names = "PartitionKey eq @p and RowKey gt @a", {"a": after} | ({"k": kind} if kind else {})
        if kind:
            where = f"{where} and kind eq @k"
        found = await asyncio.gather(
            *(
                self._tables.first("activity", where, {"p": _day_partition(day, bucket)} | names, top=top + 1)
                for bucket in range(_BUCKETS)
            )
        )
        lines = sorted(chain.from_iterable(found), key=lambda row: str(row["RowKey"]))
        page = tuple(lines[:top])
        return Page(page, str(page[-1]["RowKey"]) if len(lines) > top else None)

    async def start_run(self, run: Run) -> None:
        """Remember a run and how many shards it has. Started again, it stays as it is."""
        row = {
            "PartitionKey": run.id,
            "RowKey": "run",
            "askedBy": run.asked_by,
            "startedAt": run.started_at,
            "mode": run.mode or "",
            "shards": run.shards,
            "scope": json.dumps(run.scope),
        }
        with translated(writing=True), suppress(ResourceExistsError):
            await self._tables["runs"].create_entity(guarded(row))

    async def finish_shard(self, run: str, shard: Shard) -> None:
        """Remember what a shard found. A shard that is swept again counts once."""
        row = {
            "PartitionKey": run,
            "RowKey": f"s|{shard.subscription}",
            "finishedAt": shard.finished_at,
            "clusters": shard.clusters,
            "enqueued": shard.enqueued,
            "counts": json.dumps(shard.counts),
            "failure": shard.failure or "",
            "oldestOverdueSeconds": shard.oldest_overdue.total_seconds() if shard.oldest_overdue else 0.0,
            "exempted": json.dumps({exemption: matched.count for exemption, matched in shard.exempted.items()}),
            "exemptedClusters": _exempted_clusters(shard),
        }
        with translated(writing=True):
            await self._tables["runs"].upsert_entity(guarded(row), mode=UpdateMode.REPLACE)

    async def run(self, run_id: str) -> tuple[Run, tuple[Shard, ...]] | None:
        """Read a run and the shards that are done; None if there is no such run."""
        rows = [row async for row in self._tables.query("runs", "PartitionKey eq @p", p=run_id)]
        head = next((row for row in rows if row["RowKey"] == "run"), None)
        if head is None:
            return None
        mode, scope = Mode(head["mode"]) if head["mode"] else None, json.loads(head.get("scope", "{}"))
        run = Run(run_id, head["askedBy"], head["startedAt"], mode, head["shards"], scope)
        return run, tuple(_shard(row) for row in rows if row["RowKey"] != "run")

    async def is_done(self, run_id: str) -> bool:
        """Return whether all shards of a run are done. Cheaper than to read what they found: each of them asks."""
        rows = [row async for row in self._tables.query("runs", "PartitionKey eq @p", select=_COUNTED, p=run_id)]
        head = next((row for row in rows if row["RowKey"] == "run"), None)
        return head is not None and len(rows) - 1 >= head["shards"]

    async def remember_sweep(self, run_id: str) -> None:
        """Remember that a run over everything starts, and the last one that is done. Started again, it stays."""
        row = await self._tables.get("runs", _LAST, _SWEEP_ROW)
        if row is not None and row["run"] == run_id:
            return
        before = await self.run(row["run"]) if row is not None else None
        finished = row["finished"] if row is not None else ""
        if row is not None and before is not None and before[0].is_done(before[1]):
            finished = row["run"]
        pointers = {"PartitionKey": _LAST, "RowKey": _SWEEP_ROW, "run": run_id, "finished": finished}
        with translated(writing=True):
            await self._tables["runs"].upsert_entity(pointers, mode=UpdateMode.REPLACE)

    async def last_sweep(self) -> tuple[Run, tuple[Shard, ...]] | None:
        """Read the last run over everything that is done, or the one before it; None if there was none yet."""
        row = await self._tables.get("runs", _LAST, _SWEEP_ROW)
        if row is None:
            return None
        newest = await self.run(row["run"])
        if newest is not None and newest[0].is_done(newest[1]):
            return newest
        return await self.run(row["finished"]) if row["finished"] else None


def _slot_row(scope: str, number: int) -> str:
    return f"{scope}|{number:03d}"


def _inverted(moment: datetime) -> str:
    """A moment as it begins a row's name: the later, the smaller."""
    return f"{_EPOCH_END - (moment - EPOCH) // timedelta(milliseconds=1):013d}"


def _day_partition(day: date, bucket: int) -> str:
    return f"day|{day.isoformat()}|{bucket:02d}"


def _copy_by_day(row: Row, activity: Activity, moment: str) -> Row:
    """The same line among all lines of its day. One bucket a day would be too narrow for all that write to it."""
    subject = row["PartitionKey"]
    name = f"{moment}|{subject}|{activity.id}"
    bucket = crc32(name.encode()) % _BUCKETS
    day = activity.at.astimezone(UTC).date()
    return {**row, "PartitionKey": _day_partition(day, bucket), "RowKey": name, "subject": subject}


def subject_of_line(row: Row) -> ClusterId | KeyId | None:
    """Return what a line among those of its day is about; None if about neither a cluster nor a key."""
    kind, *parts = str(row["subject"]).split("|")
    if kind == "cluster":
        return ClusterId(*parts)
    return KeyId(*parts) if kind == "key" else None


def _subject_partition(subject: ClusterId | KeyId | str) -> str:
    if isinstance(subject, ClusterId):
        return f"cluster|{user_row(subject)}"
    return f"key|{key_partition(subject)}" if isinstance(subject, KeyId) else subject


def _slot_operation(slot: Row, taken: dict[str, Any]) -> Operation:
    row = {"PartitionKey": slot["PartitionKey"], "RowKey": slot["RowKey"], **taken}
    if "holder" not in slot:
        return TransactionOperation.CREATE, row
    return TransactionOperation.UPDATE, row, {"mode": UpdateMode.REPLACE, **only_if(etag_of(slot))}


def _is_archived(row: Row) -> bool:
    return str(row["RowKey"]).count("|") > 1


def _row(record: Record) -> dict[str, Any]:
    waiting, encryption = record.waiting, record.encryption
    return guarded(
        {
            "PartitionKey": record.cluster_id.subscription,
            "RowKey": cluster_row(record.cluster_id),
            "resourceId": record.resource_id,
            "resourceUID": record.resource_uid,
            "location": record.location,
            "kubernetes": record.kubernetes,
            "keyManagement": encryption.key_management if encryption else None,
            "encryption": to_json(_ENCRYPTION, encryption),
            "target": record.target,
            "mode": record.mode,
            "action": record.action,
            "reason": record.reasons[0] if record.reasons else None,
            "reasons": ",".join(record.reasons) or None,
            "detail": record.detail,
            "fix": to_json(_FIX, record.fix),
            "change": to_json(_CHANGE, record.change),
            "decidedAt": record.decided_at,
            "claim": to_json(_CLAIM, record.claim),
            "waitingFor": waiting.reason if waiting else None,
            "waitingSince": waiting.since if waiting else None,
            "lookAgainAt": waiting.look_again_at if waiting else None,
            "token": waiting.token if waiting else None,
            "setBy": waiting.set_by if waiting else None,
            "refusal": to_json(_REFUSAL, record.refusal),
            "readerRefused": to_json(_REFUSAL, record.reader_refused),
            "enforcedAt": record.enforced_at,
            "setBack": ",".join(moment.isoformat() for moment in record.set_back) or None,
            "announced": record.announced,
            "enforcedTold": record.enforced_told,
            "closedAt": record.closed_at,
            "use": record.use,
            "pastKeys": ",".join(map(str, record.past_keys)) or None,
            "rewrite": to_json(_REWRITE, record.rewrite),
        }
    )


def _record(row: Row) -> Record:
    group, name = row["RowKey"].split("|")[:2]
    return Record(
        cluster_id=ClusterId(intern(row["PartitionKey"]), intern(group), name),
        version=etag_of(row),
        resource_id=row.get("resourceId"),
        resource_uid=row.get("resourceUID"),
        location=_word(row, "location"),
        kubernetes=_word(row, "kubernetes"),
        encryption=_encryption(row.get("encryption")),
        target=_word(row, "target"),
        mode=Mode(row["mode"]) if "mode" in row else None,
        action=Action(row["action"]) if "action" in row else None,
        reasons=tuple(Reason(reason) for reason in row.get("reasons", "").split(",") if reason),
        detail=row.get("detail"),
        fix=from_json(_FIX, row.get("fix")),
        change=from_json(_CHANGE, row.get("change")),
        decided_at=_moment(row, "decidedAt"),
        claim=from_json(_CLAIM, row.get("claim")),
        waiting=_waiting(row),
        refusal=from_json(_REFUSAL, row.get("refusal")),
        reader_refused=from_json(_REFUSAL, row.get("readerRefused")),
        enforced_at=_moment(row, "enforcedAt"),
        set_back=tuple(map(datetime.fromisoformat, filter(None, row.get("setBack", "").split(",")))),
        announced=row.get("announced"),
        enforced_told=row.get("enforcedTold"),
        closed_at=_moment(row, "closedAt"),
        use=_word(row, "use"),
        past_keys=tuple(KeyId(*key.split("/")) for key in row.get("pastKeys", "").split(",") if key),
        rewrite=from_json(_REWRITE, row.get("rewrite")),
    )


def _word(row: Row, name: str) -> str | None:
    """Read a text that many rows have in common: a sweep holds thousands of rows, and such a text once."""
    text = row.get(name)
    return intern(text) if text is not None else None


def _moment(row: Row, name: str) -> datetime | None:
    """Read a moment as a plain one: the SDK's own keeps its text as well."""
    moment = row.get(name)
    return datetime.combine(moment.date(), moment.timetz()) if moment is not None else None


@lru_cache(maxsize=1024)
def _encryption(text: str | None) -> Encryption | None:
    """Read an encryption; many clusters share one, and so its value."""
    return from_json(_ENCRYPTION, text)


def _waiting(row: Row) -> Waiting | None:
    if "token" not in row:
        return None
    return Waiting(Reason(row["waitingFor"]), row["waitingSince"], row["lookAgainAt"], row["token"], row["setBy"])


def _write_activity(cluster_id: ClusterId, claim: Claim, *, ended: Mapping[str, Any]) -> Activity:
    """The one line of a write: who asked for what, what was there before, and by and by what came of it."""
    kind, what = _kind_of(claim.change)
    said = {
        "askedBy": claim.asked_by,
        **what,
        "resourceUID": claim.resource_uid,
        "acceptedAt": claim.accepted_at,
        "operation": claim.operation_id,
        **ended,
    }
    return Activity(cluster_id, claim.intent, claim.claimed_at, kind, said)


def _kind_of(change: Change | Preparation | Reencryption) -> tuple[str, dict[str, Any]]:
    if isinstance(change, Change):
        return "write", _changed(change)
    return ("reencryption", change.view()) if isinstance(change, Reencryption) else ("preparation", _prepared(change))


def _changed(change: Change) -> dict[str, Any]:
    return {
        "before": to_json(_ENCRYPTION, change.before),
        "after": to_json(_ENCRYPTION, change.after),
        "etag": change.etag,
        "identityBefore": change.identity_before,
        "identity": change.identity,
    }


def _prepared(preparation: Preparation) -> dict[str, Any]:
    return {"step": preparation.step, "preparation": json.dumps(view(preparation))}


def _decision_activity(record: Record, asked_by: str, now: datetime) -> Activity:
    said = {
        "askedBy": asked_by,
        "action": record.action,
        "reasons": ",".join(record.reasons),
        "detail": record.detail,
        "target": record.target,
        "mode": record.mode,
        "keyManagement": record.encryption.key_management if record.encryption else None,
    }
    return Activity(record.cluster_id, uuid4().hex, now, "decision", said)


def _enforcement_row(state: Enforcement) -> dict[str, Any]:
    failures = [[one.intent, user_row(one.cluster), one.at.isoformat()] for one in state.failures]
    return guarded(
        {
            "PartitionKey": _STATE,
            "RowKey": _STATE,
            "failures": json.dumps(failures),
            "settled": ",".join(state.settled),
            "pausedSince": state.paused_since,
            "pausedBy": state.paused_by,
            "why": state.why,
            "told": state.told,
        }
    )


def _enforcement(row: Row) -> Enforcement:
    failures = (
        FailedUpdate(intent, ClusterId(*cluster.split("|")), datetime.fromisoformat(at))
        for intent, cluster, at in json.loads(row["failures"])
    )
    return Enforcement(
        failures=tuple(failures),
        settled=tuple(filter(None, row["settled"].split(","))),
        paused_since=row.get("pausedSince"),
        paused_by=row.get("pausedBy"),
        why=row.get("why"),
        told=row["told"],
        version=etag_of(row),
    )


def _shard(row: Row) -> Shard:
    return Shard(
        row["RowKey"].removeprefix("s|"),
        row["finishedAt"],
        row["clusters"],
        row["enqueued"],
        json.loads(row["counts"]),
        row["failure"] or None,
        _exempted(row),
        timedelta(seconds=row.get("oldestOverdueSeconds", 0)) or None,
    )


def _what(claim: Claim) -> str:
    """What a claim writes: the cluster, or a step of what it needs."""
    return "cluster" if isinstance(claim.change, Change) else claim.change.step


def _exempted_clusters(shard: Shard) -> str:
    """Name the exempted clusters of a shard, as far as one property holds them: the counts are in another."""
    named: dict[str, list[str]] = {}
    room = PROPERTY_LIMIT - len("{}")
    for exemption, matched in shard.exempted.items():
        rows = [cluster_row(cluster_id) for cluster_id in matched.clusters]
        room -= len(json.dumps({exemption: rows}))
        if rows and room >= 0:
            named[exemption] = rows
    return json.dumps(named)


def _exempted(row: Row) -> dict[str, Matched]:
    """A row of an earlier version of the app has neither."""
    counts, named = json.loads(row.get("exempted", "{}")), json.loads(row.get("exemptedClusters", "{}"))
    subscription = row["RowKey"].removeprefix("s|")
    return {
        exemption: Matched(count, tuple(ClusterId(subscription, *name.split("|")) for name in named.get(exemption, ())))
        for exemption, count in counts.items()
    }
