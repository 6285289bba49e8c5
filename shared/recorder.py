"""Writes what a look found, and tells of it. What could not be told stays untold in the row: the sweep tells it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from shared.clusters import ClusterId
from shared.errors import LostRace, ServiceError, Transient
from shared.keyhealth import Finding
from shared.keyrecords import KnownKey, Rotation
from shared.keys import KeyId
from shared.ledger import Ledger
from shared.notices import Notices
from shared.outcomes import Notice, NoticeKind, notice_of, notice_of_event, notice_of_finding, notice_of_rotation
from shared.reasons import Reason
from shared.records import Record
from shared.telemetry import Line, logger, saying

TELL_AGAIN_AFTER = timedelta(minutes=1)

log = logger(__name__)


@dataclass(frozen=True, slots=True)
class Recorder:
    """The ledger and, where a topic is configured, the notices."""

    ledger: Ledger
    notices: Notices | None

    async def record(self, before: Record, after: Record, *, asked_by: str, now: datetime) -> Record:
        """Write a row if it says anything new, then tell of it if that was not told. LostRace as the ledger says.

        Who wrote the row tells; others only once that must have been in vain. Many looks at once tell once.
        """
        written = await self.ledger.record(before, after, asked_by=asked_by, now=now)
        if written is not before and after.decided_otherwise_than(before):
            _log_decision(after)
        if written is before and written.decided_at is not None and now - written.decided_at < TELL_AGAIN_AFTER:
            return written
        return await self.tell(written)

    async def tell(self, record: Record) -> Record:
        """Tell of a row's outcome, once. A topic that is away never fails a look: the row stays untold."""
        notice = notice_of(record)
        if self.notices is None or notice is None or notice.token == record.announced:
            return record
        try:
            await self.notices.publish(notice)
        except ServiceError as error:
            log.warning("%s: the topic did not take a notice: %s", record.cluster_id, error)
            return record
        with suppress(LostRace):  # told twice at worst, under the same id
            told = record.enforced_at if notice.kind is NoticeKind.CLUSTER_ENFORCED else record.enforced_told
            return await self.ledger.write(replace(record, announced=notice.token, enforced_told=told))
        return record

    async def tell_of_finding(self, known: KnownKey, finding: Finding) -> bool:
        """Tell of something that is wrong with a key; return whether it may count as told, as with a rotation."""
        return await self._publish(notice_of_finding(known, finding))

    async def tell_of_event(
        self, key: KeyId, reason: Reason, version: str | None, event_id: str, users: Sequence[ClusterId]
    ) -> bool:
        """Tell of what a vault said of a key, besides a new version; return whether it may count as told."""
        return await self._publish(notice_of_event(key, reason, version, event_id, users))

    async def tell_of_rotation(self, rotation: Rotation) -> bool:
        """Tell of a rotation; return whether it may count as told. A topic that is away makes its look come back.

        A topic that says no is tried again by the next sweep: failing the look would only fill the poison queue.
        """
        return await self._publish(notice_of_rotation(rotation))

    async def _publish(self, notice: Notice) -> bool:
        if self.notices is None:
            return True
        try:
            await self.notices.publish(notice)
        except Transient:
            raise
        except ServiceError as error:
            log.warning("the topic refuses a notice about %s: %s", notice.subject, error)
            return False
        return True


def _log_decision(record: Record) -> None:
    reason = record.reasons[0] if record.reasons else None
    decided = saying(
        Line.CLUSTER_DECIDED,
        action=record.action,
        reason=reason,
        mode=record.mode,
        target=record.target,
        keyManagement=record.encryption.key_management if record.encryption else None,
    )
    log.info("%s: %s, %s", record.cluster_id, record.action, reason, extra=decided)
