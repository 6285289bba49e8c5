"""What programs read: the rows as JSON. Pages end with a continuation token where there is more."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from shared.clusters import ClusterId, parse_subscription
from shared.decisions import Change
from shared.errors import EnforcerError, Malformed
from shared.keys import KeyId
from shared.ledger import Ledger, subject_of_line
from shared.policy import OPT_OUT, Exemption, ExemptionStatus, PolicyInForce
from shared.preparations import view
from shared.questions import Json, Query, day, day_of, key, kind, only, told, top
from shared.records import Claim, Enforcement, Record, Run, Shard
from shared.reencryption import Reencryption
from shared.tables import read_token, write_token
from shared.telemetry import logger

log = logger(__name__)

_RUN_ID = re.compile(r"[a-z]+-[0-9A-Za-z]{1,40}")
_PATIENCE = 5
"""So many seconds may storage take to answer a health call: who asks may not want to wait longer."""


@dataclass(frozen=True, slots=True)
class Views:
    """Answers questions about what the ledger holds. Malformed if a question can't be read."""

    ledger: Ledger

    async def clusters(self, query: Query) -> Json:
        """The clusters, page by page. `subscription`, `top`, `continuation`."""
        only(query, "subscription", "top", "continuation")
        subscription = parse_subscription(query["subscription"]) if "subscription" in query else None
        page = await self.ledger.clusters_page(subscription, top=top(query), after=query.get("continuation"))
        return {"clusters": [cluster_view(record) for record in page.items], "continuation": page.continuation}

    async def cluster(self, cluster_id: ClusterId, query: Query) -> Json | None:
        """One cluster with the change of every path and what happened to it, the newest first; None if not known."""
        only(query, "top", "continuation")
        record = await self.ledger.cluster(cluster_id)
        if record is None:
            return None
        page = await self.ledger.activity_page(cluster_id, top=top(query), after=query.get("continuation"))
        return cluster_view(record) | {
            "paths": paths(record),
            "history": list(map(_line, page.items)),
            "continuation": page.continuation,
        }

    async def activity(self, query: Query, *, now: datetime) -> Json:
        """What happened, the newest first, page by page: to everything on one day, or to one cluster or key ever.

        `day` (UTC; without `cluster` and `key` it is today, or the day that a continuation goes on with), `kind`,
        `cluster` (its resource id), `key` (its URL), `top`, `continuation`.
        """
        only(query, "day", "kind", "cluster", "key", "top", "continuation")
        if "cluster" in query and "key" in query:
            raise Malformed("ask for a cluster or for a key, not for both")
        about = ClusterId.parse(query["cluster"]) if "cluster" in query else key(query)
        if about is None:
            return await self._activity_of_day(query, now)
        after = query.get("continuation")
        page = await self.ledger.activity_page(about, top=top(query), after=after, kind=kind(query), day=day(query))
        lines = [activity_view(row, about) for row in page.items]
        return {"day": query.get("day"), "activity": lines, "continuation": page.continuation}

    async def _activity_of_day(self, query: Query, now: datetime) -> Json:
        token = read_token(query["continuation"], "day", "after") if "continuation" in query else None
        asked = day(query) or (day_of(token["day"]) if token else now.date())
        if token is not None and token["day"] != asked.isoformat():
            raise Malformed(f"this continuation goes on with the day {token['day']}")
        page = await self.ledger.activity_of_day(
            asked, kind=kind(query), top=top(query), after=token["after"] if token else ""
        )
        more = write_token(day=asked.isoformat(), after=page.continuation) if page.continuation else None
        lines = [activity_view(row, subject_of_line(row)) for row in page.items]
        return {"day": asked.isoformat(), "activity": lines, "continuation": more}

    async def run(self, run_id: str, query: Query) -> Json | None:
        """One run and how far it is; None if there is no such run. No parameters."""
        only(query)
        found = await self.ledger.run(run_id) if _RUN_ID.fullmatch(run_id) else None
        return run_view(*found) if found is not None else None

    async def exemptions(self, policy: PolicyInForce, query: Query, *, now: datetime) -> Json:
        """The exemptions of the policy, and what each matched at the last sweep that is done. No parameters."""
        only(query)
        sweep = await self.ledger.last_sweep()
        return exemptions_view(policy, sweep, now=now)

    async def enforcement(self, query: Query) -> Json:
        """Whether enforcement is paused, by whom and why, and which updates failed since the last success."""
        only(query)
        return enforcement_view(await self.ledger.enforcement())

    async def health(self, policy: PolicyInForce) -> Json:
        """Whether the app does its work. Costs one read of storage; storage that gives no answer degrades it."""
        try:
            async with asyncio.timeout(_PATIENCE):
                enforcement = await self.ledger.enforcement()
        except (EnforcerError, TimeoutError) as error:
            log.warning("storage gives no answer: %s", error)
            return health_view(policy, None)
        return health_view(policy, enforcement)


def cluster_view(record: Record) -> Json:
    """A cluster: what it has, what is asked of it, what was decided and why, and what to do about it."""
    return {
        "id": record.resource_id or str(record.cluster_id),
        "subscription": record.cluster_id.subscription,
        "resourceGroup": record.cluster_id.group,
        "name": record.cluster_id.name,
        "location": record.location,
        "kubernetes": record.kubernetes,
        "keyManagement": record.encryption.key_management if record.encryption else None,
        "target": record.target,
        "mode": record.mode,
        "action": record.action,
        "reason": record.reasons[0] if record.reasons else None,
        "reasons": list(record.reasons),
        "detail": record.detail,
        "fix": {"text": record.fix.text, "command": record.fix.command} if record.fix else None,
        "change": _change(record),
        "decidedAt": told(record.decided_at),
        "update": _update(record.claim) if record.claim else None,
        "waitingSince": told(record.waiting.since) if record.waiting else None,
        "lookAgainAt": told(record.waiting.look_again_at) if record.waiting else None,
        "enforcedAt": told(record.enforced_at),
        "setBackAt": [told(moment) for moment in record.set_back],
        "closedAt": told(record.closed_at),
    }


def run_view(run: Run, shards: tuple[Shard, ...] = ()) -> Json:
    """A run: what was asked, how many shards are done, and what they found."""
    counts: Counter[str] = Counter()
    for shard in shards:
        counts.update(shard.counts)
    done = run.is_done(shards)
    return {
        "id": run.id,
        "askedBy": run.asked_by,
        "startedAt": told(run.started_at),
        "mode": run.mode,
        "scope": dict(run.scope),
        "status": "done" if done else "running",
        "finishedAt": told(_end(run, shards)) if done else None,
        "shards": {"total": run.shards, "done": len(shards)},
        "clusters": sum(shard.clusters for shard in shards),
        "enqueued": sum(shard.enqueued for shard in shards),
        "decisions": dict(sorted(counts.items())),
        "failures": _failures(shards),
    }


def exemptions_view(policy: PolicyInForce, sweep: tuple[Run, tuple[Shard, ...]] | None, *, now: datetime) -> Json:
    """The exemptions with owner, reason and end, and what each matched; null where no sweep has looked yet.

    One that has ended matches as before: these are the clusters that it leaves to the policy.
    """
    shards = sweep[1] if sweep is not None else ()
    document = policy.policy
    return {
        "asOf": told(_end(*sweep)) if sweep is not None else None,
        "exemptions": [_exemption(one, shards, now) for one in document.exemptions] if document else [],
        "optOutTag": {"tag": document.opt_out_tag} | _matched(OPT_OUT, shards) if document else None,
        "policyFaults": list(policy.faults),
        "failures": _failures(shards),
    }


def _exemption(exemption: Exemption, shards: tuple[Shard, ...], now: datetime) -> Json:
    status, matched = exemption.status(now), _matched(exemption.id, shards)
    known = matched["matched"] is not None
    return {
        "id": exemption.id,
        "match": exemption.match.model_dump(by_alias=True, exclude_unset=True),
        "owner": exemption.owner,
        "reason": exemption.reason,
        "expires": exemption.until,
        "status": status,
        "used": bool(matched["matched"]) and status is not ExemptionStatus.ENDED if known else None,
    } | matched


def _matched(exemption: str, shards: tuple[Shard, ...]) -> Json:
    """What an exemption matched in all subscriptions: how many clusters, and ten of them."""
    found = [shard.exempted[exemption] for shard in shards if exemption in shard.exempted]
    clusters = sorted(cluster_id for matched in found for cluster_id in matched.clusters)
    return {
        "matched": sum(matched.count for matched in found) if found else None,
        "clusters": [str(cluster_id) for cluster_id in clusters[:10]],
    }


def _failures(shards: tuple[Shard, ...]) -> Json:
    return {shard.subscription: shard.failure for shard in shards if shard.failure}


def _end(run: Run, shards: tuple[Shard, ...]) -> datetime:
    """When a run that is done was done."""
    return max((shard.finished_at for shard in shards), default=run.started_at)


def enforcement_view(state: Enforcement) -> Json:
    """Whether enforcement is paused, and the updates that failed in a row."""
    return {
        "paused": state.paused,
        "since": told(state.paused_since),
        "by": state.paused_by,
        "why": state.why,
        "failures": [{"cluster": str(failure.cluster), "at": told(failure.at)} for failure in state.failures],
    }


def health_view(policy: PolicyInForce, enforcement: Enforcement | None) -> Json:
    """Whether the app does its work; `enforcement` None: storage gives no answer. Anybody may ask, so names no cluster.

    A broken policy document, a pause and storage that is away degrade it: it runs on and writes nothing.
    """
    stopped = bool(policy.faults) or enforcement is None or enforcement.paused
    return {
        "status": "degraded" if stopped else "ok",
        "storage": "unavailable" if enforcement is None else "ok",
        "policy": {"mode": policy.mode, "faults": list(policy.faults)},
        "enforcement": _pause(enforcement) if enforcement is not None else None,
    }


def _pause(state: Enforcement) -> Json:
    since = told(state.paused_since)
    return {"paused": state.paused, "since": since, "by": state.paused_by, "failures": len(state.failures)}


def rewrite_view(cluster: ClusterId, by: str | None, at: datetime, keys: Sequence[KeyId]) -> Json:
    """A confirmed rewrite: who says so, since when it counts, and for which keys."""
    named = [{"vault": key.vault, "key": key.name} for key in keys]
    return {"cluster": str(cluster), "rewrittenBy": by, "rewrittenAt": told(at), "keys": named}


def problem(status: int, title: str, detail: str) -> Json:
    """Problem details, as RFC 9457 has them."""
    return {"type": "about:blank", "status": status, "title": title, "detail": detail}


def _change(record: Record) -> Json | None:
    """The change that the decision makes, or in audit would make."""
    if record.change is None:
        return None
    if isinstance(record.change, Reencryption):
        return {"reencryption": record.change.view()}
    if not isinstance(record.change, Change):
        return {"preparation": view(record.change)}
    return {
        "before": record.change.before.view(),
        "after": record.change.after.view(),
        "identity": record.change.identity,
    }


def paths(record: Record) -> list[Json]:
    """Return each path below the cluster's document that the change touches, before and after."""
    if not isinstance(record.change, Change):
        return []
    before, after = _flat(record.change.before.view()), _flat(record.change.after.view())
    changed = [
        {"path": f"properties.securityProfile.{path}", "before": before.get(path), "after": after.get(path)}
        for path in sorted({*before, *after})
        if before.get(path) != after.get(path)
    ]
    if record.change.identity is None:
        return changed
    return [{"path": "identity", "before": record.change.identity_before, "after": record.change.identity}, *changed]


def _flat(view: Mapping[str, Any], prefix: str = "") -> Json:
    flat: Json = {}
    for name, value in view.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return {path: value for path, value in flat.items() if value is not None}


def activity_view(row: Mapping[str, Any], about: ClusterId | KeyId | None) -> Json:
    """One line of activity: when, what kind, about what, and who or what asked; then what a line of its kind says."""
    return {
        "at": None,
        "kind": None,
        "cluster": str(about) if isinstance(about, ClusterId) else None,
        "vault": about.vault if isinstance(about, KeyId) else None,
        "key": about.name if isinstance(about, KeyId) else None,
        "askedBy": None,
    } | _line(row)


def _line(row: Mapping[str, Any]) -> Json:
    """What a line of activity says; what is JSON in the table is JSON here."""
    said = {name: value for name, value in row.items() if name not in {"PartitionKey", "RowKey", "subject"}}
    for name in {"before", "after", "preparation"} & said.keys():
        said[name] = json.loads(said[name])
    return {name: told(value) if isinstance(value, datetime) else value for name, value in said.items()}


def _update(claim: Claim) -> Json:
    return {
        "id": claim.intent,
        "askedBy": claim.asked_by,
        "claimedAt": told(claim.claimed_at),
        "acceptedAt": told(claim.accepted_at),
    }
