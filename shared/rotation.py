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

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

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
    IN_USE = "in-use"
    """The logs show that the cluster, or another one with its identity, used it or tried to within the last day."""


class How(StrEnum):
    """How an adoption came to be known."""

    EXPECTED = "expected"
    """By the controller's interval; never claimed as seen."""
    UPDATED = "updated"
    """Legacy: the cluster's own document names the version."""
    SEEN = "seen"
    """The vault's log shows the cluster's identity using it."""


@dataclass(frozen=True, slots=True)
class Adoption:
    """A cluster's move to a key version. `resource_uid` is the incarnation: a cluster created anew begins anew.

    `since` is when it became known (legacy: when the cluster last began to name it), `effective_at` when a legacy
    update was first seen to have ended well. `first_seen` and `last_seen` are what the vault's log shows of uses that
    can only have been this cluster's; `last_tried` is the newest line that may have been, a refused one too.
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
    last_tried: datetime | None = None


@dataclass(frozen=True, slots=True)
class KeyUser:
    """A cluster's time with a key: from when to when, how, and as whom.

    `begun_before` says that it was older than the ledger's first sight of it. `version` is the one that a legacy
    cluster names. `rewritten_at` is the newest confirmed rewrite of all its secrets. `gone` says that the cluster
    was deleted; else, once `ended_at` is set, it uses something else: `ended_as` is its key management since.
    `principals_before` are the identities that it had with this key before, each with until when.
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
    ended_as: KeyManagement | None = None
    gone: bool = False
    principals_before: tuple[tuple[str, datetime], ...] = ()

    def with_history_of(self, before: KeyUser, now: datetime) -> KeyUser:
        """Return it with what is known of an earlier time: its last rewrite, and the identities that it had."""
        principals = dict(before.principals_before)
        if before.principal is not None and before.principal != self.principal:
            principals[before.principal] = now
        return replace(
            self,
            rewritten_at=before.rewritten_at,
            rewritten_by=before.rewritten_by,
            principals_before=tuple(principals.items()),
        )

    @property
    def is_legacy(self) -> bool:
        """Whether the cluster names a version: an ambiguous one that does may need it just so."""
        return self.version is not None


@dataclass(frozen=True, slots=True)
class Need:
    """How a version stands with one cluster, why, since when, and when a version is expected to be taken up.

    `identity_shared`: other clusters use the key with the same identity, so no log can tell which of them it was.
    """

    cluster: ClusterId
    resource_uid: str
    standing: Standing
    why: Why
    since: datetime | None = None
    expected_by: datetime | None = None
    identity_shared: bool = False


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

    Counted from the later of its creation and its start, or from when it was seen enabled again: a controller takes up
    no version that is disabled. Source: AKS docs, kms-data-encryption-concepts.
    """
    if version.enabled is False:
        return None
    usable = usable_from(version, detected_at)
    return max(usable, version.enabled_since or usable) + adoption


def usable_from(version: KeyVersion, detected_at: datetime) -> datetime:
    """Return from when a version can be used: the later of its creation and its start."""
    created = version.created or detected_at
    return max(created, version.not_before) if version.not_before is not None else created


def in_order(versions: Iterable[tuple[KeyVersion, datetime]]) -> list[str]:
    """Return the names of versions, each with when it was detected, from the oldest to the newest.

    By their creation, whenever each starts: a vault calls the one current that was made last, and that is what a key
    without a version stands for. It tells a creation to the second: of two within one, the one that was detected later
    is the newer one. Source: Key Vault docs, about-keys-secrets-certificates.
    """
    return [one.version for one, _ in sorted(versions, key=_age)]


def _age(dated: tuple[KeyVersion, datetime]) -> tuple[datetime, datetime, str]:
    version, detected_at = dated
    return version.created or detected_at, detected_at, version.version


def newest_seen(versions: Sequence[KeyVersion]) -> KeyVersion | None:
    """Return the newest version that is more than a name, the newest name if none is. `versions`: oldest to newest."""
    return next((one for one in reversed(versions) if not one.is_only_named), versions[-1] if versions else None)


def adopted_by(user: KeyUser, version: KeyVersion, detected_at: datetime, newest_before: Collection[str]) -> bool:
    """Return whether a customer-managed cluster is to take up a version: the newest one at its start, and later ones.

    `newest_before` is what may have been the newest version that could be used when the cluster began.
    """
    if user.is_legacy or user.ended_at is not None:
        return False
    return version.version in newest_before or usable_from(version, detected_at) > user.since


@dataclass(frozen=True, slots=True)
class Succession:
    """What may come after the version that a legacy cluster names.

    `newest` is the newest version of its key that is newer than that one and can be used now; None if there is none.
    `rewritten` says that all its secrets are known to be rewritten since it took its version, `counts_from` from when
    on a rewrite counts, None where that is not known. `taken_back_at` is when it began to name that, if the newest one
    was in effect before: somebody took it back.
    """

    newest: str | None
    rewritten: bool
    taken_back_at: datetime | None = None
    counts_from: datetime | None = None


def succession(
    user: KeyUser, adoptions: Iterable[Adoption], versions: Sequence[KeyVersion], now: datetime
) -> Succession:
    """Return what may come after the version that a legacy cluster names. `versions` go from oldest to newest.

    Only a confirmed rewrite shows what its secrets are written with, whatever the ledger knows of the cluster: it may
    have come from another key, and two updates may have passed between two looks. A version that the ledger does not
    know yet is older than none: what can't be put in order is not gone back from.
    """
    order = [one.version for one in versions]
    newer = versions[order.index(user.version) + 1 :] if user.version in order else ()
    usable = [one.version for one in newer if _is_usable(one, now)]
    effective = rewrite_counts_from(replace(user, ended_at=None), adoptions)
    confirmed = effective is not None and user.rewritten_at is not None and user.rewritten_at >= effective
    newest = usable[-1] if usable else None
    mine = [one for one in adoptions if (one.cluster, one.resource_uid) == (user.cluster, user.resource_uid)]
    was_there = any(one.version == newest and one.effective_at is not None for one in mine)
    since = next((one.since for one in mine if one.version == user.version), None)
    return Succession(newest, confirmed, since if was_there else None, effective)


def expected(
    users: Iterable[KeyUser],
    known: Iterable[Adoption],
    versions: Iterable[tuple[KeyVersion, datetime]],
    adoption: timedelta,
) -> list[Adoption]:
    """Return the adoptions that are to be expected and not known yet: of each customer-managed user of a key.

    `versions` are the key's, each with when it was detected; `adoption` is how long the controller may take.
    """
    dated = sorted(versions, key=_age)
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
        for newest in [_newest_at(user.since, dated)]
        for version, detected_at in dated
        if (deadline := expected_by(version, detected_at, adoption)) is not None
        and (version.version, user.cluster, user.resource_uid) not in have
        and adopted_by(user, version, detected_at, newest)
    ]


def put_off(
    known: Iterable[Adoption], versions: Iterable[tuple[KeyVersion, datetime]], adoption: timedelta, now: datetime
) -> list[Adoption]:
    """Return the adoptions that are expected later than was thought, and that nothing has shown yet.

    A version that was disabled, or whose start was moved, may not have been taken up by when it was expected.
    """
    due = {version.version: expected_by(version, detected_at, adoption) for version, detected_at in versions}
    unseen = [(one, due.get(one.version)) for one in known if one.first_seen is None]
    return [
        replace(one, expected_by=deadline)
        for one, deadline in unseen
        if deadline is not None and deadline > now and one.expected_by is not None and one.expected_by < deadline
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
    everybody = list(users)
    shared = shared_identities(everybody)
    for user in everybody:
        its = of_user.get((user.cluster, user.resource_uid), [])
        for version, need in needs(user, its, versions, order, now, identity_shared=user.principal in shared).items():
            found.setdefault(version, []).append(need)
    return found


def shared_identities(users: Iterable[KeyUser]) -> frozenset[str]:
    """Return the principals with which more than one cluster uses a key now: a log tells no such clusters apart."""
    counted = Counter(user.principal for user in users if user.ended_at is None and user.principal is not None)
    return frozenset(principal for principal, count in counted.items() if count > 1)


def needs(
    user: KeyUser,
    adoptions: Sequence[Adoption],
    versions: Sequence[KeyVersion],
    order: Sequence[str],
    now: datetime,
    *,
    identity_shared: bool = False,
) -> dict[str, Need]:
    """Return how each version of a key stands with one cluster; versions that it has nothing to do with are left out.

    `adoptions` are the cluster's own, of this incarnation; `order` names all versions from oldest to newest. Where
    the identity is shared, what was seen of it counts against retiring a version and never for it.
    """
    seen = [replace(one, first_seen=None) for one in adoptions] if identity_shared else adoptions
    mine = {one.version: one for one in seen}
    judged = _legacy(user, mine, order) if user.is_legacy else _customer_managed(user, mine, versions, order, now)
    judged |= _named_before(user, mine, judged)
    judged |= _in_use(user, mine, judged, now)
    disabled = {version.version for version in versions if version.enabled is False}
    return {
        version: Need(
            user.cluster,
            user.resource_uid,
            standing,
            why,
            since=mine[version].since if version in mine else None,
            expected_by=mine[version].expected_by if version in mine and version not in disabled else None,
            identity_shared=identity_shared,
        )
        for version, (standing, why) in judged.items()
    }


def _newest_at(moment: datetime, dated: Sequence[tuple[KeyVersion, datetime]]) -> list[str]:
    """What may be the newest version that could be used at a moment: the newest that was seen, and what an event alone
    named since.
    """
    usable = [version for version, at in dated if version.enabled is not False and usable_from(version, at) <= moment]
    shown = [number for number, version in enumerate(usable) if not version.is_only_named]
    return [version.version for version in usable[shown[-1] if shown else -1 :]]


def rewrite_counts_from(user: KeyUser, adoptions: Iterable[Adoption]) -> datetime | None:
    """Return from when on a rewrite of all secrets counts for a cluster's use of a key.

    Of a key that it left, since it left it; of one that it follows and whose versions it named before, since it follows
    it; of the version that it names, since that is in effect: secrets that are written before still get the former
    version. None: not in effect yet, or a version was never named. Source: AKS docs, use-kms-etcd-encryption.
    """
    if user.ended_at is not None:
        return user.ended_at
    mine = [one for one in adoptions if (one.cluster, one.resource_uid) == (user.cluster, user.resource_uid)]
    if not user.is_legacy:
        return user.since if any(one.how is How.UPDATED for one in mine) else None
    return next((one.effective_at for one in mine if one.version == user.version), None)


def unready(
    users: Iterable[KeyUser], adoptions: Iterable[Adoption], versions: Sequence[KeyVersion]
) -> list[tuple[ClusterId, str]]:
    """Return the clusters on account of which a key must not be rotated now, each with why.

    A legacy cluster holds two versions: all that it has must lie on the newest one before there is a newer. So it has
    to name the newest version that is enabled, and its secrets have to be rewritten since. A key that never rotated
    may: unless the cluster came to it under the ledger's eyes, and so may have secrets on what it had before.
    `versions` go from the oldest to the newest, as the vault shows them: one that an event alone named is none of them.
    Source: Azure/kubernetes-kms issue 291.
    """
    versions = [one for one in versions if not one.is_only_named]
    enabled = [one.version for one in versions if one.enabled is not False]
    newest = (enabled or [one.version for one in versions] or [""])[-1]
    known = list(adoptions)
    legacy = [user for user in users if user.is_legacy and user.ended_at is None]
    found = [(user.cluster, _unready(user, known, newest, never_rotated=len(versions) == 1)) for user in legacy]
    return sorted((cluster, why) for cluster, why in found if why is not None)


def _unready(user: KeyUser, adoptions: Iterable[Adoption], newest: str, *, never_rotated: bool) -> str | None:
    if user.version != newest:
        return f"it is on version {user.version}, and the newest is {newest}: update it, then rewrite its secrets"
    if never_rotated and user.begun_before:
        return None
    counts_from = rewrite_counts_from(user, adoptions)
    if counts_from is None:
        return f"its update to version {newest} is not known to be in effect yet"
    if user.rewritten_at is None or user.rewritten_at < counts_from:
        return f"no rewrite of its secrets is confirmed since version {newest} is in effect"
    return None


def standing(of_all: Iterable[Need]) -> Standing:
    """Return how a version stands, given how it stands with each cluster. Nobody known to need it proves nothing."""
    found = {need.standing for need in of_all}
    if Standing.NEEDED in found:
        return Standing.NEEDED
    return Standing.CANDIDATE if found == {Standing.CANDIDATE} else Standing.NOT_SHOWN_UNNEEDED


Judged = dict[str, tuple[Standing, Why]]


def _legacy(user: KeyUser, mine: dict[str, Adoption], order: Sequence[str]) -> Judged:
    """Two slots, and the secrets that were not rewritten. A rewrite counts once the update before it had ended.

    An update that never came into effect left the slots as they were: only those that did push a version out. A
    version that the ledger never saw the cluster name is no version that it never had: two updates may have passed
    between two looks.
    """
    known = sorted((one for one in mine.values() if one.how is not How.SEEN), key=lambda one: one.since)
    if not known:
        return {}
    in_effect = [number for number, one in enumerate(known) if one.effective_at is not None]
    complete = len(in_effect) > 1
    slots = _slots(user, known, in_effect)
    judged: Judged = {}
    for number, one in enumerate(known):
        successor = next((known[later] for later in in_effect if later > number), None)
        judged[one.version] = _legacy_standing(user, one.version, successor, slots, complete=True)
    older = _older(order, known)
    for version in order:
        if version not in mine:
            passed = complete and version in older
            judged[version] = _legacy_standing(
                user, version, known[in_effect[0]] if passed else None, slots, complete=passed
            )
    return judged


def _slots(user: KeyUser, known: Sequence[Adoption], in_effect: Sequence[int]) -> list[str]:
    """The versions that the cluster's API server may be set up with, the one that it names last.

    A cluster that left keeps the last one for nobody knows how long, but for one that legacy KMS does not serve any
    more. Sources: AKS docs, use-kms-etcd-encryption and
    migrate-key-management-service-platform-managed-key-customer-managed-key.
    """
    if user.ended_as in {KeyManagement.PLATFORM_MANAGED, KeyManagement.CUSTOMER_MANAGED}:
        return []
    kept = 1 if user.ended_at is not None else 2
    return [one.version for one in known[in_effect[-kept] if len(in_effect) >= kept else 0 :]]


def _legacy_standing(
    user: KeyUser, version: str, successor: Adoption | None, slots: Sequence[str], *, complete: bool
) -> tuple[Standing, Why]:
    """How one version stands. `successor` was in effect after it; `complete`: nothing else can have been."""
    if user.gone:
        return Standing.NOT_SHOWN_UNNEEDED, Why.GONE
    if not complete:
        return Standing.NOT_SHOWN_UNNEEDED, Why.HISTORY_UNKNOWN
    left = user.ended_at or (successor.effective_at if successor is not None else None)
    rewritten = left is not None and user.rewritten_at is not None and user.rewritten_at >= left
    if user.ended_at is not None and not rewritten:
        return Standing.NEEDED, Why.NOT_REWRITTEN
    if version in slots and user.ended_at is not None:
        return Standing.NOT_SHOWN_UNNEEDED, Why.PREVIOUS_SLOT
    if version in slots:
        return Standing.NEEDED, Why.CURRENT if version == slots[-1] else Why.PREVIOUS_SLOT
    return (Standing.CANDIDATE, Why.REWRITTEN) if rewritten else (Standing.NEEDED, Why.NOT_REWRITTEN)


def _named_before(user: KeyUser, mine: Mapping[str, Adoption], judged: Judged) -> Judged:
    """The versions that a cluster named before it came to follow their key: it left legacy KMS as if for another key.

    The move rewrites every secret, but nothing shows that it did.
    """
    rewritten = user.rewritten_at is not None and user.rewritten_at >= user.since
    if user.is_legacy or user.gone or rewritten:
        return {}
    named = [version for version, one in mine.items() if one.how is How.UPDATED]
    needed = [version for version, (standing, _) in judged.items() if standing is Standing.NEEDED]
    return {version: (Standing.NEEDED, Why.NOT_REWRITTEN) for version in named if version not in needed}


def _older(order: Sequence[str], known: Sequence[Adoption]) -> list[str]:
    """The versions that are older than the first one that the ledger knows this cluster to have used."""
    first = known[0].version
    return list(order[: order.index(first)]) if first in order else []


def _customer_managed(
    user: KeyUser, mine: dict[str, Adoption], versions: Sequence[KeyVersion], order: Sequence[str], now: datetime
) -> Judged:
    """The version expected to be in use, and those before it. The ledger's first sight of a cluster comes late.

    So it may still be on any version before the newest one that it is expected to take up.
    """
    used = [version for version in order if version in mine]
    by_name = {one.version: one for one in versions}
    judged = {version: _standing_of(user, mine, used[number:], by_name, now) for number, version in enumerate(used)}
    for number, version in enumerate(order):
        later = [mine[one] for one in order[number:] if one in mine]
        if later and version not in mine:
            judged[version] = _unseen(user, by_name[version], later, now)
    return judged


def _unseen(user: KeyUser, version: KeyVersion, later: Sequence[Adoption], now: datetime) -> tuple[Standing, Why]:
    """How a version stands that the cluster is not known to have used, and may have before it was seen."""
    if user.gone:
        return Standing.NOT_SHOWN_UNNEEDED, Why.GONE
    if _seen_elsewhere(version, None, later, now):
        return Standing.CANDIDATE, Why.SEEN_ELSEWHERE
    return Standing.NOT_SHOWN_UNNEEDED, Why.HISTORY_UNKNOWN


def _standing_of(
    user: KeyUser,
    mine: dict[str, Adoption],
    from_here: Sequence[str],
    versions: Mapping[str, KeyVersion],
    now: datetime,
) -> tuple[Standing, Why]:
    """How the first of these versions stands, from what is known of it and of those after it."""
    own, later = mine[from_here[0]], [mine[version] for version in from_here[1:]]
    if user.gone:
        return Standing.NOT_SHOWN_UNNEEDED, Why.GONE
    if _seen_elsewhere(versions[own.version], own, later, now):
        return Standing.CANDIDATE, Why.SEEN_ELSEWHERE
    if user.ended_at is not None:
        leaving = now - user.ended_at < EVIDENCE_MARGIN
        return (Standing.NEEDED, Why.LEAVING) if leaving else (Standing.NOT_SHOWN_UNNEEDED, Why.NO_EVIDENCE)
    newer = [one for one in later if _may_overtake(versions[one.version], versions[own.version])]
    if any(_is_past(_due(one), now) for one in newer):
        return Standing.NOT_SHOWN_UNNEEDED, Why.NO_EVIDENCE
    if later:
        return Standing.NEEDED, Why.NOT_LEFT
    return Standing.NEEDED, Why.CURRENT if _is_past(_due(own), now) else Why.ADOPTING


def _may_overtake(newer: KeyVersion, older: KeyVersion) -> bool:
    """Whether a controller can have left a version for a newer one: not for a disabled one.

    Nor for one that an event alone named, where the older one could be read: it may be gone, or never have been there.
    """
    return newer.enabled is not False and (not newer.is_only_named or older.is_only_named)


def _seen_elsewhere(version: KeyVersion, own: Adoption | None, later: Sequence[Adoption], now: datetime) -> bool:
    """The log shows a newer version in use, and this one not since then, for a day and more after it was expected.

    The cluster must have been at work all that day: the silence of one that is stopped shows nothing. Nor does that
    of a version that can't be used, for a re-encryption that it stopped goes on once it can be used again.
    """
    newer = [one for one in later if one.first_seen is not None and one.last_seen is not None]
    if not newer or version.enabled is False or _is_past(version.expires, now):
        return False
    moved = min(one.first_seen for one in newer if one.first_seen is not None)
    of_its_own = (own.last_seen, own.last_tried, own.expected_by) if own is not None else ()
    others = (version.updated, *of_its_own, *(one.expected_by for one in newer))
    quiet_since: datetime = max([moved, *(one for one in others if one is not None)])
    still_looking = max(one.last_seen for one in newer if one.last_seen is not None)
    return still_looking - quiet_since >= EVIDENCE_MARGIN


def _due(adoption: Adoption) -> datetime | None:
    """By when a version is taken up: what a legacy cluster named, when that came into effect."""
    return adoption.expected_by or adoption.effective_at


def _in_use(user: KeyUser, mine: dict[str, Adoption], judged: Judged, now: datetime) -> Judged:
    """What the log of the last day shows otherwise than it was judged: whoever uses a version needs it."""
    if user.gone:
        return {}
    unknown = Standing.NOT_SHOWN_UNNEEDED, Why.HISTORY_UNKNOWN
    return {version: _by_its_use(one, *judged.get(version, unknown), now) for version, one in mine.items()}


def _by_its_use(one: Adoption, standing: Standing, why: Why, now: datetime) -> tuple[Standing, Why]:
    recent = one.last_tried is not None and now - one.last_tried < EVIDENCE_MARGIN
    if recent and standing is not Standing.NEEDED:
        return Standing.NEEDED, Why.IN_USE
    if why is Why.ADOPTING and one.first_seen is not None:
        return standing, Why.CURRENT
    return standing, why


def _is_usable(version: KeyVersion, now: datetime) -> bool:
    """Whether a version can be used now. Of one that an event alone named, nobody has seen that it is there."""
    if version.is_only_named:
        return False
    begun = version.not_before is None or version.not_before <= now
    return version.enabled is not False and begun and not _is_past(version.expires, now)


def _is_past(moment: datetime | None, now: datetime) -> bool:
    return moment is not None and moment <= now
