"""What programs read: the rows as JSON. Pages end with a continuation token where there is more."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from shared.clusters import ClusterId, parse_subscription
from shared.decisions import Change
from shared.errors import EnforcerError, Malformed
from shared.keyledger import KeyLedger
from shared.keys import KeyReference
from shared.ledger import Ledger
from shared.policy import OPT_OUT, Exemption, ExemptionStatus, PolicyInForce
from shared.preparations import view
from shared.records import Claim, Enforcement, Record, Rotation, Run, Shard
from shared.telemetry import logger

log = logger(__name__)

Json = dict[str, Any]

_TOP, _MOST = 100, 1000
_PATIENCE = 5
"""So many seconds may storage take to answer a health call: who asks may not want to wait longer."""


@dataclass(frozen=True, slots=True)
class Views:
    """Answers questions about what the ledger holds. Malformed if a question can't be read."""

    ledger: Ledger
    keys: KeyLedger

    async def clusters(self, query: Mapping[str, str]) -> Json:
        """The clusters, page by page. `subscription`, `top`, `continuation`."""
        _known(query, "subscription", "top", "continuation")
        subscription = parse_subscription(query["subscription"]) if "subscription" in query else None
        page = await self.ledger.clusters_page(subscription, top=_top(query), after=query.get("continuation"))
        return {"clusters": [cluster_view(record) for record in page.items], "continuation": page.continuation}

    async def cluster(self, cluster_id: ClusterId, query: Mapping[str, str]) -> Json | None:
        """One cluster with the change of every path and what happened to it, the newest first; None if not known."""
        _known(query, "top", "continuation")
        record = await self.ledger.cluster(cluster_id)
        if record is None:
            return None
        page = await self.ledger.activity_page(cluster_id, top=_top(query), after=query.get("continuation"))
        return cluster_view(record) | {
            "paths": paths(record),
            "history": list(map(_line, page.items)),
            "continuation": page.continuation,
        }

    async def rotations(self, query: Mapping[str, str]) -> Json:
        """The rotations, page by page. `key` (its URL), `top`, `continuation`."""
        _known(query, "key", "top", "continuation")
        key = KeyReference.parse(query["key"]).key if "key" in query else None
        page = await self.keys.rotations_page(key, top=_top(query), after=query.get("continuation"))
        return {"rotations": [_rotation(rotation) for rotation in page.items], "continuation": page.continuation}

    async def run(self, run_id: str) -> Json | None:
        """One run and how far it is; None if there is no such run."""
        found = await self.ledger.run(run_id)
        return run_view(*found) if found is not None else None

    async def exemptions(self, policy: PolicyInForce, query: Mapping[str, str], *, now: datetime) -> Json:
        """The exemptions of the policy, and what each matched at the last sweep that is done. No parameters."""
        _known(query)
        sweep = await self.ledger.last_sweep()
        return exemptions_view(policy, sweep, now=now)

    async def enforcement(self, query: Mapping[str, str]) -> Json:
        """Whether enforcement is paused, by whom and why, and which updates failed since the last success."""
        _known(query)
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
        "decidedAt": _time(record.decided_at),
        "update": _update(record.claim) if record.claim else None,
        "waitingSince": _time(record.waiting.since) if record.waiting else None,
        "lookAgainAt": _time(record.waiting.look_again_at) if record.waiting else None,
        "enforcedAt": _time(record.enforced_at),
        "setBackAt": [_time(moment) for moment in record.set_back],
        "closedAt": _time(record.closed_at),
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
        "startedAt": _time(run.started_at),
        "mode": run.mode,
        "scope": dict(run.scope),
        "status": "done" if done else "running",
        "finishedAt": _time(_end(run, shards)) if done else None,
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
        "asOf": _time(_end(*sweep)) if sweep is not None else None,
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
        "since": _time(state.paused_since),
        "by": state.paused_by,
        "why": state.why,
        "failures": [{"cluster": str(failure.cluster), "at": _time(failure.at)} for failure in state.failures],
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
    since = _time(state.paused_since)
    return {"paused": state.paused, "since": since, "by": state.paused_by, "failures": len(state.failures)}


def problem(status: int, title: str, detail: str) -> Json:
    """Problem details, as RFC 9457 has them."""
    return {"type": "about:blank", "status": status, "title": title, "detail": detail}


def _change(record: Record) -> Json | None:
    """The change that the decision makes, or in audit would make."""
    if record.change is None:
        return None
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


def _line(row: Mapping[str, Any]) -> Json:
    """One line of activity; what is JSON in the table is JSON here."""
    said = {name: value for name, value in row.items() if name not in {"PartitionKey", "RowKey"}}
    for name in {"before", "after", "preparation"} & said.keys():
        said[name] = json.loads(said[name])
    return {name: _time(value) if isinstance(value, datetime) else value for name, value in said.items()}


def _update(claim: Claim) -> Json:
    return {
        "id": claim.intent,
        "askedBy": claim.asked_by,
        "claimedAt": _time(claim.claimed_at),
        "acceptedAt": _time(claim.accepted_at),
    }


def _rotation(rotation: Rotation) -> Json:
    version = rotation.version
    return {
        "vault": rotation.key.vault,
        "key": rotation.key.name,
        "version": version.version,
        "how": rotation.how,
        "detectedAt": _time(rotation.detected_at),
        "eventId": rotation.event_id,
        "fannedOutAt": _time(rotation.fanned_out_at),
        "enabled": version.enabled,
        "created": _time(version.created),
        "notBefore": _time(version.not_before),
        "expires": _time(version.expires),
    }


def _time(moment: datetime | None) -> str | None:
    return moment.isoformat().replace("+00:00", "Z") if moment else None


def _known(query: Mapping[str, str], *names: str) -> None:
    unknown = sorted(set(query) - {*names, "code"})
    if unknown:
        taken = f"this list takes {', '.join(names)}" if names else "there is none here"
        raise Malformed(f"unknown parameter {unknown[0][:100]!r}: {taken}")


def _top(query: Mapping[str, str]) -> int:
    text = query.get("top", str(_TOP))
    if not text.isdecimal() or len(text) > len(str(_MOST)) or not 1 <= int(text) <= _MOST:
        raise Malformed(f"top must be a whole number, 1 to {_MOST}")
    return int(text)
