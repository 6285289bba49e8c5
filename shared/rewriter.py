"""Rewrites a legacy cluster's secrets by run command, one step at a time, and tells what came of a step."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from shared.aks import Aks
from shared.clusters import Cluster, ClusterId
from shared.errors import Throttled, Unavailable, Unreadable
from shared.keyledger import KeyLedger
from shared.keys import KeyId
from shared.records import Settlement
from shared.reencryption import Ran, Reencryption, Rewrite, command, fault_of, read
from shared.telemetry import logger

log = logger(__name__)

BY = "run-command"
"""Who is recorded to have rewritten the secrets."""


@dataclass(frozen=True, slots=True)
class Rewriter:
    """The steps of a rewrite. Each is safe to repeat. Errors are those of `shared.errors`."""

    aks: Aks
    keys: KeyLedger

    async def start(self, cluster: Cluster, step: Reencryption) -> str | None:
        """Start the command of a step; return where its result will be."""
        return await self.aks.run(cluster, command(step))

    async def ran(self, cluster_id: ClusterId, step: Reencryption, operation: str | None) -> Ran | None:
        """Return what came of a step; None while its command runs, or where that can't be told now.

        Of what the command printed nothing leaves this room but the counts. A result that Azure never gives is one of a
        command that took too long: nothing else may wait for it.
        """
        if operation is None:
            return None
        try:
            end = await self.aks.command_end(cluster_id, operation)
        except Throttled:
            return None
        except (Unavailable, Unreadable) as error:
            log.warning("%s: what came of a command can't be read: %s", cluster_id, error)
            return None
        return Ran(end.exit_code, read(step, end.printed)) if end is not None else None

    async def confirm(self, cluster_id: ClusterId, rewrite: Rewrite, past_keys: Iterable[KeyId]) -> None:
        """Remember that all secrets were rewritten, as of the start of the first chunk: of past keys too."""
        if rewrite.begun_at is None:
            raise AssertionError("a rewrite that is over has begun")
        for key in (*past_keys, rewrite.key):
            await self.keys.rewritten(key, cluster_id, rewrite.resource_uid, by=BY, at=rewrite.begun_at)


def end_of(step: Reencryption, ran: Ran | None, what: Settlement) -> dict[str, Any]:
    """Return what the line of activity keeps of a step's end: why it is not confirmed, and what it counted."""
    fault = fault_of(step, ran) if what is Settlement.FAILED else None
    counted = asdict(ran.tally) if ran is not None and ran.tally is not None else {}
    return {"fault": fault, "exitCode": ran.exit_code if ran is not None else None, **counted}
