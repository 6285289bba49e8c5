"""Whether anything may be written at all: failures in a row are counted, and an operator can pause and resume.

    count --> state row --> line of activity, log, notice --> state row: told

The state comes first. Whatever a crash leaves untold is told by the settlement that is repeated, else by the next run.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import uuid4

from shared.clusters import ClusterId
from shared.errors import ServiceError
from shared.ledger import Ledger
from shared.notices import Notices
from shared.outcomes import notice_of_pause
from shared.records import Activity, Enforcement, Settlement
from shared.telemetry import Line, logger, saying

SUBJECT = "enforcement"
"""The subject of its lines of activity."""

log = logger(__name__)


@dataclass(frozen=True, slots=True)
class Pauses:
    """The ledger's state of enforcement and, where a topic is configured, the notices. Errors are the ledger's."""

    ledger: Ledger
    notices: Notices | None

    async def count(
        self, cluster_id: ClusterId, intent: str, what: Settlement, *, stop_after: int, now: datetime
    ) -> None:
        """Count how a claim ended, once however often it is settled. So many failures in a row pause enforcement."""
        if what not in {Settlement.DONE, Settlement.FAILED}:
            return
        state = await self.ledger.change_enforcement(
            lambda state: state.after_settling(intent, cluster_id, what, stop_after=stop_after, now=now)
        )
        await self.tell(state)

    async def pause(self, *, by: str, why: str | None, now: datetime) -> Enforcement:
        """Pause enforcement: no look that starts from now on writes. Paused already, it stays as it is."""
        state = await self.ledger.change_enforcement(lambda state: state.after_pausing(by=by, why=why, now=now))
        await self.tell(state)
        return state

    async def resume(self, *, by: str, now: datetime) -> Enforcement:
        """End the pause that is there now, and forget what failed. The line of activity comes first: it must not lack.

        Clusters that were held back go on when they are looked at: start a run.
        """
        before = await self.ledger.enforcement()
        if before.paused:
            said = {"askedBy": by, "pausedSince": before.paused_since, "pausedBy": before.paused_by, "why": before.why}
            await self.ledger.note(Activity(SUBJECT, uuid4().hex, now, "resumed", said))
            log.warning("enforcement is resumed by %s", by, extra=saying(Line.ENFORCEMENT_RESUMED, by=by))
        return await self.ledger.change_enforcement(
            lambda state: state.after_resuming() if state.paused_since == before.paused_since else state
        )

    async def tell(self, state: Enforcement) -> None:
        """Tell of a pause that was not told yet. A topic that is away never fails a look: the next run tells it."""
        notice, since = notice_of_pause(state), state.paused_since
        if notice is None or since is None:
            return
        said = {"askedBy": state.paused_by, "why": state.why}
        await self.ledger.note(Activity(SUBJECT, f"paused-{since:%Y%m%dT%H%M%S%f}", since, "paused", said))
        paused = saying(Line.ENFORCEMENT_PAUSED, by=state.paused_by, since=since.isoformat())
        log.error("enforcement is paused by %s", state.because, extra=paused)
        if self.notices is not None:
            try:
                await self.notices.publish(notice)
            except ServiceError as error:
                log.warning("the topic did not take the notice of a pause: %s", error)
                return
        await self.ledger.change_enforcement(lambda state: state.after_telling(since))
