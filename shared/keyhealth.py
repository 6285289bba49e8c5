"""What is wrong with a key that clusters use, and which of them it would stop. Pure: no I/O, no clock.

Sources: Azure/AKS issue 4926 (an expired or deleted old version stops the API server); Key Vault docs,
how-to-configure-key-rotation (the expiry of a rotation policy is stamped on each new version).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from shared.clusters import ClusterId
from shared.keys import Grant, Key, KeyVersion, RotationPolicy, Vault, VaultId, VaultNetwork
from shared.policy import Keys
from shared.prerequisites import risk_of
from shared.reasons import Fix, Reason, Subject, fix, fix_in_use
from shared.rotation import EVIDENCE_MARGIN, Adoption, KeyUser, Need, Standing, Why, newest_seen, shared_identities

SHOWN = 10
"""So many clusters a finding names; all of them it counts."""

DEADLINE_MARGIN = timedelta(hours=1)
"""So much later than it is expected may a version be taken up before that is a finding."""

AT_RISK = frozenset(
    {
        *(Reason.VAULT_DELETED, Reason.VAULT_MISSING, Reason.KEY_DELETED, Reason.KEY_MISSING),
        *(Reason.KEY_DISABLED, Reason.KEY_EXPIRED, Reason.KEY_NOT_YET_VALID, Reason.KEY_NEAR_EXPIRY),
        *(Reason.VERSION_MISSING, Reason.VERSION_DISABLED, Reason.VERSION_EXPIRED, Reason.VERSION_NEAR_EXPIRY),
        *(Reason.VAULT_CLOSED, Reason.VAULT_WITHOUT_BYPASS, Reason.VAULT_SELECTED_NETWORKS, Reason.VAULT_PERIMETER),
        *(Reason.ACCESS_MISSING, Reason.ACCESS_WRAP_ONLY),
    }
)
"""What stops a cluster, or will: it is told as soon as it is found. The rest is only shown."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong with a key or a version of it, since when, and whom it would stop.

    `clusters` are the first SHOWN of the `count` that it concerns. `told` says whether the topic knows.
    """

    reason: Reason
    version: str | None
    clusters: tuple[ClusterId, ...]
    count: int
    since: datetime
    told: bool = False


@dataclass(frozen=True, slots=True)
class KeyFacts:
    """What a look at a key found. None means: it is not there, or nobody tells.

    `picture` is how each version stands with each cluster; `access` what an active user may do, where that was asked;
    `announced` whether some event subscription tells the app of the vault's rotations; `logs_read` whether the logs
    that are to be read could be, None if there are none, and `adoptions` with what they showed. `missing` are versions
    that the vault once had.
    """

    key: Key | None
    vault: Vault | None
    versions: Sequence[KeyVersion]
    users: Sequence[KeyUser]
    picture: Mapping[str, Sequence[Need]] = field(default_factory=dict)
    rotation_policy: RotationPolicy | None = None
    access: Mapping[ClusterId, Grant] = field(default_factory=dict)
    announced: bool | None = None
    vault_deleted: bool = False
    key_deleted: bool = False
    adoptions: Sequence[Adoption] = ()
    logs_read: bool | None = None
    missing: AbstractSet[str] = frozenset()

    @property
    def active(self) -> list[KeyUser]:
        """The clusters that use the key now."""
        return [user for user in self.users if user.ended_at is None]

    def needing(self, version: str) -> list[ClusterId]:
        """The clusters that need a version."""
        return [need.cluster for need in self.picture.get(version, ()) if need.standing is Standing.NEEDED]


Concern = tuple[Reason, str | None, list[ClusterId]]


def concerns(facts: KeyFacts, asked: Keys, now: datetime) -> list[Concern]:
    """Return all that is wrong with a key: why, with which version, and which clusters it would stop."""
    everybody = [user.cluster for user in facts.active]
    if facts.vault is None:
        return [(Reason.VAULT_DELETED if facts.vault_deleted else Reason.VAULT_MISSING, None, everybody)]
    found = [*_of_the_vault(facts, facts.vault), *_of_access(facts), *_of_the_log(facts, now)]
    if facts.announced is False:
        found.append((Reason.NOT_ANNOUNCED, None, []))
    if facts.key is None:
        return [(Reason.KEY_DELETED if facts.key_deleted else Reason.KEY_MISSING, None, everybody), *found]
    return [*_of_the_key(facts, facts.key, asked, now), *_of_versions(facts, asked, now), *found]


def findings(
    found: Sequence[Concern], before: Sequence[Finding], *, everything_told: bool, now: datetime
) -> tuple[Finding, ...]:
    """Return what was found as findings. What was found before too goes on since then; what is new is still to be told.

    `everything_told`: there is nobody to tell.
    """
    known = {(finding.reason, finding.version): finding for finding in before}
    return tuple(_finding(concern, known.get(concern[:2]), everything_told, now) for concern in found)


def out_of_sight(before: Sequence[Finding], users: Sequence[KeyUser], now: datetime) -> tuple[Finding, ...]:
    """Return the findings about a key at which nobody may look: nothing shows that those from before are over.

    A vault that no list shows is out of sight too: absence from a list is no proof that it is gone.
    """
    concern: Concern = (Reason.VAULT_UNREADABLE, None, [user.cluster for user in users if user.ended_at is None])
    others = tuple(one for one in before if one.reason is not Reason.VAULT_UNREADABLE)
    return (*others, *findings([concern], before, everything_told=False, now=now))


_EXPIRED = frozenset({Reason.KEY_EXPIRED, Reason.VERSION_EXPIRED})
_FOUND_AS: Mapping[Reason, frozenset[Reason]] = {
    Reason.KEY_EXPIRED: _EXPIRED,
    Reason.KEY_NEAR_EXPIRY: _EXPIRED | {Reason.KEY_NEAR_EXPIRY, Reason.VERSION_NEAR_EXPIRY},
}


def is_found(found: Sequence[Finding], cause: Reason, version: str | None) -> bool:
    """Return whether what an event said of a version is told as a finding. `version` is None for the newest one."""
    return any(one.reason in _FOUND_AS.get(cause, ()) and one.version == version and one.count for one in found)


def mend(finding: Finding, vault: VaultId | None, key: str) -> Fix | None:
    """Return what an operator can do about a finding; None where there is nothing to do."""
    of = Subject(vault=vault, key=key, version=finding.version)
    return fix_in_use(finding.reason, of) if finding.count else fix(finding.reason, of)


def untold(found: Sequence[Finding]) -> list[Finding]:
    """Return the findings that are to be told: those that stop somebody."""
    return [one for one in found if one.reason in AT_RISK and one.count and not one.told]


def _finding(concern: Concern, before: Finding | None, everything_told: bool, now: datetime) -> Finding:
    reason, version, clusters = concern
    shown = tuple(sorted(set(clusters))[:SHOWN])
    count = len(set(clusters))
    if before is None:
        return Finding(reason, version, shown, count, now, told=everything_told)
    return Finding(reason, version, shown, count, before.since, told=before.told)


def _of_the_vault(facts: KeyFacts, vault: Vault) -> Iterator[Concern]:
    if not vault.purge_protection:
        yield Reason.PURGE_PROTECTION_OFF, None, [user.cluster for user in facts.active]
    stopped: dict[Reason, list[ClusterId]] = {}
    for user in facts.active:
        reason = _out_of_reach(user, vault.network)
        if reason is not None:
            stopped.setdefault(reason, []).append(user.cluster)
    for reason, clusters in stopped.items():
        yield reason, None, clusters


def _out_of_reach(user: KeyUser, network: VaultNetwork) -> Reason | None:
    """What keeps a cluster from its vault. A private legacy vault is reached by a private endpoint, past its firewall.

    Sources: Key Vault docs, network-security; AKS docs, use-kms-etcd-encryption.
    """
    private = (user.network_access or "").lower() == "private"
    if network is VaultNetwork.OPEN or (private and user.is_legacy):
        return None
    if network is VaultNetwork.PERIMETER:
        return Reason.VAULT_PERIMETER
    if private and network is VaultNetwork.TRUSTED:
        return None
    if private and network is VaultNetwork.CLOSED:
        return Reason.VAULT_WITHOUT_BYPASS
    return Reason.VAULT_SELECTED_NETWORKS if network is VaultNetwork.SELECTED else Reason.VAULT_CLOSED


def _of_access(facts: KeyFacts) -> Iterator[Concern]:
    for grant, reason in {
        Grant.MISSING: Reason.ACCESS_MISSING,
        Grant.WRAP_ONLY: Reason.ACCESS_WRAP_ONLY,
    }.items():
        clusters = [cluster for cluster, may in facts.access.items() if may is grant]
        if clusters:
            yield reason, None, clusters


def _of_the_key(facts: KeyFacts, key: Key, asked: Keys, now: datetime) -> Iterator[Concern]:
    newest = newest_seen(facts.versions)
    followers = facts.needing(newest.version) if newest else []
    risk = risk_of(key, now)
    if risk is not None:
        yield risk, None, followers
    elif key.expires is not None and key.expires - now <= timedelta(days=asked.warn_before_expiry_days):
        yield Reason.KEY_NEAR_EXPIRY, None, followers
    if newest is not None and _is_older(newest, asked.max_age_days, now):
        yield Reason.KEY_TOO_OLD, None, []
    policy = facts.rotation_policy
    if policy is not None and policy.rotates_after_creation is None and policy.rotates_before_expiry is None:
        yield Reason.ROTATION_POLICY_MISSING, None, []


def _of_versions(facts: KeyFacts, asked: Keys, now: datetime) -> Iterator[Concern]:
    """Old versions that somebody still needs. The newest is looked at as the key itself.

    One that is gone may be needed by whoever is only expected to have left it: nothing could be moved off it since.
    """
    for gone in sorted(facts.missing):
        needs = facts.picture.get(gone, ())
        concerned = [one.cluster for one in needs if one.standing is Standing.NEEDED or one.why is Why.NO_EVIDENCE]
        if concerned:
            yield Reason.VERSION_MISSING, gone, concerned
    legacy = {user.cluster for user in facts.users if user.is_legacy}
    stamps = facts.rotation_policy is not None and facts.rotation_policy.expires_in is not None
    newest = newest_seen(facts.versions)
    for version in (one for one in facts.versions if one != newest and one.version not in facts.missing):
        needing = facts.needing(version.version)
        if needing:
            reason = _wrong_with(version, asked, now)
            if reason is not None:
                yield reason, version.version, needing
    for version in facts.versions:
        bound = [cluster for cluster in facts.needing(version.version) if cluster in legacy]
        if stamps and version.expires is not None and bound:
            yield Reason.EXPIRY_STAMPED, version.version, bound


def _of_the_log(facts: KeyFacts, now: datetime) -> Iterator[Concern]:
    """What the vault's log shows, and whom it can't tell apart. Without a log that is to be read: nothing."""
    if facts.logs_read is None:
        return
    if not facts.logs_read:
        yield Reason.LOGS_UNREADABLE, None, []
    shared = shared_identities(facts.users)
    alike = [user.cluster for user in facts.active if user.principal in shared]
    if alike:
        yield Reason.IDENTITY_SHARED, None, alike
    of_user: dict[tuple[ClusterId, str], dict[str, Adoption]] = {}
    for one in facts.adoptions:
        of_user.setdefault((one.cluster, one.resource_uid), {})[one.version] = one
    late: dict[tuple[Reason, str], list[ClusterId]] = {}
    for user in facts.active:
        mine = {} if user.is_legacy else of_user.get((user.cluster, user.resource_uid), {})
        for found in _lateness(facts.versions, mine, now, identity_shared=user.principal in shared):
            late.setdefault(found, []).append(user.cluster)
    for (reason, version), clusters in late.items():
        yield reason, version, clusters


def _lateness(
    versions: Sequence[KeyVersion], mine: Mapping[str, Adoption], now: datetime, *, identity_shared: bool
) -> Iterator[tuple[Reason, str]]:
    """What a cluster still uses and what it has not taken up, by the log of the last day, after it should have."""
    order = [version.version for version in versions if version.version in mine]
    there = {one.version for one in versions if one.enabled is not False and not one.is_only_named}
    overdue = [mine[version] for version in order if version in there and _is_overdue(mine[version], now)]
    if not overdue or overdue[-1].expected_by is None:
        return
    newest, deadline = overdue[-1], overdue[-1].expected_by + DEADLINE_MARGIN
    tried = {version: mine[version].last_tried or deadline for version in order}
    recent = [version for version in order if tried[version] > deadline and now - tried[version] < EVIDENCE_MARGIN]
    for version in recent:
        if order.index(version) < order.index(newest.version):
            yield Reason.STILL_IN_USE, version
    taken_up = newest.last_tried if identity_shared else newest.first_seen
    if recent and taken_up is None:
        yield Reason.ADOPTION_OVERDUE, newest.version


def _is_overdue(adoption: Adoption, now: datetime) -> bool:
    return adoption.expected_by is not None and adoption.expected_by + DEADLINE_MARGIN < now


def _wrong_with(version: KeyVersion, asked: Keys, now: datetime) -> Reason | None:
    if version.enabled is False:
        return Reason.VERSION_DISABLED
    if version.expires is None:
        return None
    if version.expires <= now:
        return Reason.VERSION_EXPIRED
    near = version.expires - now <= timedelta(days=asked.warn_before_expiry_days)
    return Reason.VERSION_NEAR_EXPIRY if near else None


def _is_older(version: KeyVersion, days: int, now: datetime) -> bool:
    return version.created is not None and now - version.created > timedelta(days=days)
