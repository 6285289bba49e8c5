"""Which key version does each cluster still need? Pure: no I/O, no clock, no environment.

Azure does not tell. With a customer-managed key the cluster's controller reads its vault every six hours, and nothing
in Azure Resource Manager shows which version it uses. Legacy KMS keeps two key slots of which only the current one is
visible, and its secrets stay encrypted with the version they were written with until somebody rewrites them. So what
is said here errs on one side: a version is needed until something shows otherwise, and even then it is a candidate
for retirement, no more.

Sources: AKS docs, kms-data-encryption-concepts (six hours), use-kms-etcd-encryption (two keys at once);
Azure/AKS issue 4926 (the slot that nobody sees).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import pairwise

from shared.clusters import Cluster, ClusterId, KeyManagement
from shared.keys import KeyVersion

EVIDENCE_MARGIN = timedelta(hours=24)
"""How long the logs must show nothing of an old version before it is a candidate: services take a day and more."""


class Standing(StrEnum):
    """How a key version stands with the clusters that may need it. The strongest of them holds for the version."""

    NEEDED = "needed"
    """A cluster needs it, or may: without it the cluster's API server stops or secrets become unreadable."""
    NOT_SHOWN_UNNEEDED = "not-shown-unneeded"
    """Nothing says that it is needed, and nothing shows that it is not."""
    CANDIDATE = "candidate"
    """What can be known speaks for retiring it. Absence is no proof: disable it first, and watch."""


class Why(StrEnum):
    """Why a version stands as it does with one cluster."""

    CURRENT = "current"
    """It is the version that the cluster uses, or is expected to use."""
    ADOPTING = "adopting"
    """The cluster's controller is expected to take it up by the time given."""
    NOT_LEFT = "not-left"
    """The cluster is not yet expected to have left it for a newer one."""
    PREVIOUS_SLOT = "previous-slot"
    """Legacy KMS keeps the version before the current one, until the next rotation."""
    NOT_REWRITTEN = "not-rewritten"
    """Secrets may still be encrypted with it: no rewrite is confirmed since the cluster left it."""
    LEAVING = "leaving"
    """The cluster has moved to another key management a short while ago."""
    NO_EVIDENCE = "no-evidence"
    """The cluster is expected to have left it, and no log shows whether it has."""
    HISTORY_UNKNOWN = "history-unknown"
    """It is older than what the ledger knows of the cluster."""
    GONE = "gone"
    """The cluster that used it does not exist any more."""
    REWRITTEN = "rewritten"
    """All secrets were rewritten since the cluster left it, and no slot holds it any more."""
    SEEN_ELSEWHERE = "seen-elsewhere"
    """The logs show the cluster on a newer version, and nothing of this one since, for a day and more."""


class How(StrEnum):
    """How an adoption came to be known."""

    EXPECTED = "expected"
    """By the controller's interval; never claimed as seen."""
    UPDATED = "updated"
    """Legacy: the cluster's own document names the version."""


@dataclass(frozen=True, slots=True)
class Adoption:
    """A cluster's move to a key version. `resource_uid` is the incarnation: a cluster created anew begins anew.

    `since` is when it became known (legacy: when the cluster last began to name it), `effective_at` when a legacy
    update was first seen to have ended well. `first_seen` and `last_seen` are what the vault's log shows.
    """

    version: str
    cluster: ClusterId
    resource_uid: str
    how: How
    since: datetime
    expected_by: datetime | None = None
    effective_at: datetime | None = None
    first_seen: datetime | None = None
    last_seen: datetime | None = None


@dataclass(frozen=True, slots=True)
class KeyUser:
    """A cluster's time with a key: from when to when, how, and as whom.

    `begun_before` says that it was older than the ledger's first sight of it. `version` is the one that a legacy
    cluster names. `rewritten_at` is the newest confirmed rewrite of all its secrets. `gone` says that the cluster
    was deleted; else, once `ended_at` is set, it uses something else.
    """

    cluster: ClusterId
    resource_uid: str
    key_management: KeyManagement
    since: datetime
    begun_before: bool = True
    version: str | None = None
    network_access: str | None = None
    principal: str | None = None
    rewritten_at: datetime | None = None
    rewritten_by: str | None = None
    ended_at: datetime | None = None
    gone: bool = False

    @property
    def is_legacy(self) -> bool:
        """Whether the cluster names a version: an ambiguous one that does may need it just so."""
        return self.version is not None


@dataclass(frozen=True, slots=True)
class Need:
    """How a version stands with one cluster, why, since when, and when a version is expected to be taken up."""

    cluster: ClusterId
    resource_uid: str
    standing: Standing
    why: Why
    since: datetime | None = None
    expected_by: datetime | None = None


def user_of(cluster: Cluster, *, begun_before: bool, now: datetime) -> KeyUser | None:
    """Return the cluster as a user of its key, from now on; None if it has none that can be read."""
    encryption = cluster.encryption
    if not encryption.kms_enabled or encryption.key is None:
        return None
    return KeyUser(
        cluster.id,
        cluster.resource_uid or "-",
        encryption.key_management,
        since=now,
        begun_before=begun_before,
        version=encryption.key.version,
        network_access=encryption.network_access,
        principal=cluster.identity.principal,
    )


def expected_by(version: KeyVersion, detected_at: datetime, adoption: timedelta) -> datetime | None:
    """Return when the controller is expected to have taken up a version; None for a disabled one.

    Counted from the later of its creation and its start. Source: AKS docs, kms-data-encryption-concepts.
    """
    if version.enabled is False:
        return None
    return usable_from(version, detected_at) + adoption


def usable_from(version: KeyVersion, detected_at: datetime) -> datetime:
    """Return from when a version can be used: the later of its creation and its start."""
    created = version.created or detected_at
    return max(created, version.not_before) if version.not_before is not None else created


def in_order(versions: Iterable[tuple[KeyVersion, datetime]]) -> list[str]:
    """Return the names of versions, each with when it was detected, from the oldest to the newest."""
    return [one.version for one, at in sorted(versions, key=lambda pair: (usable_from(*pair), pair[0].version))]


def adopted_by(user: KeyUser, version: KeyVersion, detected_at: datetime, newest_before: str | None) -> bool:
    """Return whether a customer-managed cluster is to take up a version: the newest one at its start, and later ones.

    `newest_before` is the newest version that could be used when the cluster began.
    """
    if user.is_legacy or user.ended_at is not None:
        return False
    return version.version == newest_before or usable_from(version, detected_at) > user.since


@dataclass(frozen=True, slots=True)
class Succession:
    """What may come after the version that a legacy cluster names.

    `newest` is the newest version of its key that can be used now. `rewritten` says that all its secrets are known to
    be rewritten since it took its version; `rotated` that it has named another one before.
    """

    newest: str | None
    rewritten: bool
    rotated: bool


def succession(
    user: KeyUser, adoptions: Iterable[Adoption], versions: Sequence[KeyVersion], now: datetime
) -> Succession:
    """Return what may come after the version that a legacy cluster names. `versions` go from oldest to newest.

    A cluster that the ledger knows from its first version on has nothing else that its secrets could be written with;
    of any other, only a confirmed rewrite shows that.
    """
    mine = [one for one in adoptions if (one.cluster, one.resource_uid) == (user.cluster, user.resource_uid)]
    usable = [one.version for one in versions if _is_usable(one, now)]
    current = next((one for one in mine if one.version == user.version), None)
    effective = current.effective_at if current is not None else None
    confirmed = effective is not None and user.rewritten_at is not None and user.rewritten_at >= effective
    rotated = len({one.version for one in mine}) > 1 or user.begun_before
    return Succession(usable[-1] if usable else None, rewritten=confirmed, rotated=rotated)


def expected(
    users: Iterable[KeyUser],
    known: Iterable[Adoption],
    versions: Iterable[tuple[KeyVersion, datetime]],
    adoption: timedelta,
) -> list[Adoption]:
    """Return the adoptions that are to be expected and not known yet: of each customer-managed user of a key.

    `versions` are the key's, each with when it was detected; `adoption` is how long the controller may take.
    """
    dated = sorted(versions, key=lambda pair: usable_from(*pair))
    have = {(one.version, one.cluster, one.resource_uid) for one in known}
    return [
        Adoption(
            version.version,
            user.cluster,
            user.resource_uid,
            How.EXPECTED,
            since=max(usable_from(version, detected_at), user.since),
            expected_by=max(deadline, user.since),
        )
        for user in users
        for version, detected_at in dated
        if (deadline := expected_by(version, detected_at, adoption)) is not None
        and (version.version, user.cluster, user.resource_uid) not in have
        and adopted_by(user, version, detected_at, _newest_at(user.since, dated))
    ]


def picture(
    users: Iterable[KeyUser], adoptions: Iterable[Adoption], versions: Sequence[KeyVersion], now: datetime
) -> dict[str, list[Need]]:
    """Return, for each version of a key, how it stands with every cluster that has to do with it.

    `versions` go from the oldest to the newest.
    """
    order = [version.version for version in versions]
    found: dict[str, list[Need]] = {version: [] for version in order}
    of_user: dict[tuple[ClusterId, str], list[Adoption]] = {}
    for one in adoptions:
        of_user.setdefault((one.cluster, one.resource_uid), []).append(one)
    for user in users:
        its = of_user.get((user.cluster, user.resource_uid), [])
        for version, need in needs(user, its, versions, order, now).items():
            found.setdefault(version, []).append(need)
    return found


def needs(
    user: KeyUser, adoptions: Sequence[Adoption], versions: Sequence[KeyVersion], order: Sequence[str], now: datetime
) -> dict[str, Need]:
    """Return how each version of a key stands with one cluster; versions that it has nothing to do with are left out.

    `adoptions` are the cluster's own, of this incarnation; `order` names all versions from oldest to newest.
    """
    mine = {one.version: one for one in adoptions}
    judged = _legacy(user, mine, order) if user.is_legacy else _customer_managed(user, mine, versions, order, now)
    return {
        version: Need(
            user.cluster,
            user.resource_uid,
            standing,
            why,
            since=mine[version].since if version in mine else None,
            expected_by=mine[version].expected_by if version in mine else None,
        )
        for version, (standing, why) in judged.items()
    }


def _newest_at(moment: datetime, dated: Sequence[tuple[KeyVersion, datetime]]) -> str | None:
    """The newest version that could be used at a moment."""
    usable = [version for version, at in dated if version.enabled is not False and usable_from(version, at) <= moment]
    return usable[-1].version if usable else None


def standing(of_all: Iterable[Need]) -> Standing:
    """Return how a version stands, given how it stands with each cluster. Nobody known to need it proves nothing."""
    found = {need.standing for need in of_all}
    if Standing.NEEDED in found:
        return Standing.NEEDED
    return Standing.CANDIDATE if found == {Standing.CANDIDATE} else Standing.NOT_SHOWN_UNNEEDED


Judged = dict[str, tuple[Standing, Why]]


def _legacy(user: KeyUser, mine: dict[str, Adoption], order: Sequence[str]) -> Judged:
    """Two slots, and the secrets that were not rewritten. A rewrite counts once the update before it had ended."""
    known = sorted(mine.values(), key=lambda one: one.since)
    if not known:
        return {}
    left_at = {older.version: newer for older, newer in pairwise(known)}
    slots = [one.version for one in known[-2:]]
    judged: Judged = {}
    for version in [one.version for one in known] + _older(order, known):
        successor = left_at.get(version, known[0] if version not in mine else None)
        judged[version] = _legacy_standing(user, version, successor, slots, complete=len(known) > 1)
    return judged


def _legacy_standing(
    user: KeyUser, version: str, successor: Adoption | None, slots: Sequence[str], *, complete: bool
) -> tuple[Standing, Why]:
    if user.gone:
        return Standing.NOT_SHOWN_UNNEEDED, Why.GONE
    if user.ended_at is not None:
        rewritten = user.rewritten_at is not None and user.rewritten_at >= user.ended_at
        return (Standing.CANDIDATE, Why.REWRITTEN) if rewritten else (Standing.NEEDED, Why.NOT_REWRITTEN)
    if version == slots[-1]:
        return Standing.NEEDED, Why.CURRENT
    if version in slots:
        return Standing.NEEDED, Why.PREVIOUS_SLOT
    if not complete:
        return Standing.NOT_SHOWN_UNNEEDED, Why.HISTORY_UNKNOWN
    rewritten = (
        successor is not None
        and successor.effective_at is not None
        and user.rewritten_at is not None
        and user.rewritten_at >= successor.effective_at
    )
    return (Standing.CANDIDATE, Why.REWRITTEN) if rewritten else (Standing.NEEDED, Why.NOT_REWRITTEN)


def _older(order: Sequence[str], known: Sequence[Adoption]) -> list[str]:
    """The versions that are older than the first one that the ledger knows this cluster to have used."""
    first = known[0].version
    return list(order[: order.index(first)]) if first in order else []


def _customer_managed(
    user: KeyUser, mine: dict[str, Adoption], versions: Sequence[KeyVersion], order: Sequence[str], now: datetime
) -> Judged:
    used = [version for version in order if version in mine]
    enabled = {one.version for one in versions if one.enabled is not False}
    judged = {version: _standing_of(user, mine, used[number:], enabled, now) for number, version in enumerate(used)}
    if used and user.begun_before:
        unknown = Standing.NOT_SHOWN_UNNEEDED, Why.HISTORY_UNKNOWN
        judged |= dict.fromkeys(order[: order.index(used[0])], unknown)
    return judged


def _standing_of(
    user: KeyUser, mine: dict[str, Adoption], from_here: Sequence[str], enabled: set[str], now: datetime
) -> tuple[Standing, Why]:
    """How the first of these versions stands, from what is known of it and of those after it."""
    own, later = mine[from_here[0]], [mine[version] for version in from_here[1:]]
    if user.gone:
        return Standing.NOT_SHOWN_UNNEEDED, Why.GONE
    if _seen_elsewhere(own, later, now):
        return Standing.CANDIDATE, Why.SEEN_ELSEWHERE
    if user.ended_at is not None:
        leaving = now - user.ended_at < EVIDENCE_MARGIN
        return (Standing.NEEDED, Why.LEAVING) if leaving else (Standing.NOT_SHOWN_UNNEEDED, Why.NO_EVIDENCE)
    overtaken = any(one.version in enabled and _is_past(one.expected_by, now) for one in later)
    if overtaken:
        return Standing.NOT_SHOWN_UNNEEDED, Why.NO_EVIDENCE
    if later:
        return Standing.NEEDED, Why.NOT_LEFT
    return Standing.NEEDED, Why.CURRENT if _is_past(own.expected_by, now) else Why.ADOPTING


def _seen_elsewhere(own: Adoption, later: Sequence[Adoption], now: datetime) -> bool:
    """The log shows a newer version in use, and this one not since then, for a day and more after it was expected."""
    newer = [one for one in later if one.first_seen is not None and one.last_seen is not None]
    if not newer:
        return False
    moved = min(one.first_seen for one in newer if one.first_seen is not None)
    deadlines = [one.expected_by for one in newer if one.expected_by is not None]
    quiet_since = max([moved, *deadlines, *([own.last_seen] if own.last_seen is not None else [])])
    still_looking = max(one.last_seen for one in newer if one.last_seen is not None)
    return now - quiet_since >= EVIDENCE_MARGIN and still_looking >= quiet_since


def _is_usable(version: KeyVersion, now: datetime) -> bool:
    begun = version.not_before is None or version.not_before <= now
    return version.enabled is not False and begun and not _is_past(version.expires, now)


def _is_past(moment: datetime | None, now: datetime) -> bool:
    return moment is not None and moment <= now
