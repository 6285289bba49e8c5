"""What a vault's log shows of the use of a key, and what that says of the clusters that use it. Pure.

A line names an identity, never a cluster. It is a cluster's own only where no other cluster had that identity and
this key at the time; else it may have been any of them, and then it only ever speaks against retiring a version.
Sources: Key Vault docs, logging; Azure Monitor docs, AZKVAuditLogs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from shared.clusters import ClusterId
from shared.rotation import Adoption, How, KeyUser

REACH = timedelta(days=14)
"""So far back a log is read at most."""

LATENESS = timedelta(minutes=10)
"""How late a line may be. What is younger may not be all there. Source: Key Vault docs, logging."""

_OVERLAP = timedelta(hours=1)
_AT_LEAST = timedelta(hours=25)
"""So far back a log is always read again: what came later than it should is found a day later still."""


@dataclass(frozen=True, slots=True)
class Sighting:
    """What a log shows, between two moments, of one identity and one version of a key. Times are aware UTC.

    `first` and `last` are of uses that succeeded, None if none did; `last_tried` is of any, a refused one too.
    """

    principal: str
    version: str
    first: datetime | None
    last: datetime | None
    last_tried: datetime


def log_window(users: Iterable[KeyUser], adoptions: Iterable[Adoption], now: datetime) -> tuple[datetime, datetime]:
    """Return from when and until when to read a log, so that nothing is missed between one look and the next.

    From the oldest thing that is still open: a version that a cluster is to take up and was not seen with, or the
    newest line that was read. Never more than REACH.
    """
    known = list(adoptions)
    tried = [one.last_tried for one in known if one.last_tried is not None]
    active = {(user.cluster, user.resource_uid) for user in users if user.ended_at is None}
    opened = [one.since for one in _unseen(known) if (one.cluster, one.resource_uid) in active]
    begin = min([*opened, max(tried) - _OVERLAP, now - _AT_LEAST]) if tried else now - REACH
    return max(begin, now - REACH), now - LATENESS


def seen(
    users: Iterable[KeyUser],
    adoptions: Iterable[Adoption],
    sightings: Sequence[Sighting],
    versions: Collection[str],
    since: datetime,
) -> list[Adoption]:
    """Return the adoptions that a log, read from `since` on, makes new or changes. Without news: none.

    `versions` are the key's that are known; a line about any other is left for a later look.
    """
    known = {(one.version, one.cluster, one.resource_uid): one for one in adoptions}
    users = list(users)
    present = [user for user in users if _is_present(user, since)]
    holders = Counter(principal for user in users for principal in _principals(user, since))
    by_principal: dict[str, list[Sighting]] = {}
    for sighting in sightings:
        if sighting.version in versions:
            by_principal.setdefault(_named(sighting.principal), []).append(sighting)
    changed: dict[tuple[str, ClusterId, str], Adoption] = {}
    for user in present:
        for sighting in by_principal.get(_named(user.principal), ()):
            if _is_in_time(sighting, user):
                name = (sighting.version, user.cluster, user.resource_uid)
                before = changed.get(name) or known.get(name) or _unexpected(user, sighting)
                changed[name] = _with(before, sighting, user, alone=holders[_named(user.principal)] == 1)
    return [one for name, one in changed.items() if one != known.get(name)]


def merged(adoptions: Iterable[Adoption], changed: Iterable[Adoption]) -> list[Adoption]:
    """Return all adoptions, those that changed as they are now."""
    every = {(one.version, one.cluster, one.resource_uid): one for one in adoptions}
    every |= {(one.version, one.cluster, one.resource_uid): one for one in changed}
    return list(every.values())


def _unseen(known: Sequence[Adoption]) -> list[Adoption]:
    """The adoptions that are expected and not seen; what a cluster skipped for a newer version is none."""
    newest: dict[object, datetime] = {}
    for one in known:
        if one.last_tried is not None:
            name = (one.cluster, one.resource_uid)
            newest[name] = max(one.since, newest.get(name, one.since))
    expected = [one for one in known if one.how is How.EXPECTED and one.last_tried is None]
    return [one for one in expected if one.since > newest.get((one.cluster, one.resource_uid), one.since - _OVERLAP)]


def _is_in_time(sighting: Sighting, user: KeyUser) -> bool:
    """Whether a line of a cluster's identity may be the cluster's: it fell into its time with the key."""
    return not user.gone and (user.begun_before or sighting.last_tried >= user.since)


def _unexpected(user: KeyUser, sighting: Sighting) -> Adoption:
    since = sighting.first or sighting.last_tried
    if not user.begun_before:
        since = max(since, user.since)
    return Adoption(sighting.version, user.cluster, user.resource_uid, How.SEEN, since)


def _with(before: Adoption, sighting: Sighting, user: KeyUser, *, alone: bool) -> Adoption:
    """An adoption with what a log shows. A use before a cluster's time was somebody else's."""
    tried = replace(before, last_tried=max(before.last_tried or sighting.last_tried, sighting.last_tried))
    first, last = sighting.first, sighting.last
    if not alone or first is None or last is None:
        return tried
    if not user.begun_before and first < user.since:
        first = last
    if not user.begun_before and last < user.since:
        return tried
    return replace(
        tried,
        how=How.SEEN if before.how is How.EXPECTED else before.how,
        first_seen=min(before.first_seen or first, first),
        last_seen=max(before.last_seen or last, last),
    )


def _principals(user: KeyUser, since: datetime) -> set[str]:
    """The identities with which a cluster may have used the key from a moment on.

    It goes on with one that it had until its token ends, hours later. Source: AKS docs, use-managed-identity.
    """
    before = {_named(principal) for principal, until in user.principals_before if until >= since - _AT_LEAST}
    return before | {_named(user.principal)} if _is_present(user, since) else before


def _is_present(user: KeyUser, since: datetime) -> bool:
    return user.ended_at is None or user.ended_at >= since - _OVERLAP


def _named(principal: str | None) -> str:
    return (principal or "").lower()
