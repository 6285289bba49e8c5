"""What the ledger remembers of keys, as values: their versions, how each was detected, what is wrong. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum

from shared.clusters import KeyManagement
from shared.keyhealth import Finding
from shared.keys import KeyId, KeyVersion, RotationPolicy, VaultId
from shared.rotation import KeyUser, Need, Standing, in_order, standing

ROTATION_CLAIM_LASTS = timedelta(minutes=10)
"""After this a claimed rotation of which nothing came is given up."""

ROTATION_REST = timedelta(minutes=1)
"""A key that was just rotated through the app is not rotated again."""


class Detection(StrEnum):
    """How a key version came to be known."""

    BASELINE = "baseline"
    """It was there when the key was first seen."""
    EVENT = "event"
    """Key Vault announced it."""
    SWEEP = "sweep"
    """A sweep found it; no event had announced it."""
    ORDER = "order"
    """The app made it itself, by an operator's order."""


@dataclass(frozen=True, slots=True)
class Rotation:
    """One version of one key, as it was detected. `fanned_out_at` is None until every user of the key was told.

    `told_up_to` is the last user who was, while that goes on.
    """

    key: KeyId
    version: KeyVersion
    how: Detection
    detected_at: datetime
    event_id: str | None = None
    fanned_out_at: datetime | None = None
    told_up_to: str | None = None

    @property
    def latency(self) -> timedelta | None:
        """How long after its creation the version was detected; None where Azure does not tell of its creation.

        None for a baseline too: nobody could have detected it any sooner.
        """
        created = self.version.created
        if created is None or self.how is Detection.BASELINE:
            return None
        return max(self.detected_at - created, timedelta())


@dataclass(frozen=True, slots=True)
class KeySummary:
    """What a key came to at the last look: its versions, who uses it now, and how the versions stand with its users.

    `users` counts clusters by their key management, `standings` versions; what there is none of is left out.
    """

    versions: int = 0
    newest: KeyVersion | None = None
    users: Mapping[KeyManagement, int] = field(default_factory=dict)
    standings: Mapping[Standing, int] = field(default_factory=dict)


def summary_of(
    versions: Sequence[KeyVersion], users: Iterable[KeyUser], found: Mapping[str, Sequence[Need]]
) -> KeySummary:
    """Sum up a key: its versions from the oldest to the newest, its users, and how each version stands with them."""
    return KeySummary(
        len(versions),
        versions[-1] if versions else None,
        dict(Counter(user.key_management for user in users if user.ended_at is None)),
        dict(Counter(standing(found.get(one.version, ())) for one in versions)),
    )


@dataclass(frozen=True, slots=True)
class RotationClaim:
    """A rotation of ours, recorded before the vault is asked for it. `versions` is how many were known by then."""

    intent: str
    at: datetime
    versions: int
    by: str | None = None


@dataclass(frozen=True, slots=True)
class KnownKey:
    """What the ledger knows of a key: the vault it lies in, its versions, and what is wrong with it.

    `vault_id` is None until it was first seen; `rotation_policy` is None where nobody tells. `last_run` is the sweep
    that looked at it last. In a list of keys `rotations` are left out: there `summary` stands for them. `etag` is the
    version of its own row; None where it has none.
    """

    key: KeyId
    vault_id: VaultId | None = None
    rotations: tuple[Rotation, ...] = ()
    findings: tuple[Finding, ...] = ()
    rotation_policy: RotationPolicy | None = None
    looked_at: datetime | None = None
    last_run: str | None = None
    summary: KeySummary | None = None
    claim: RotationClaim | None = None
    etag: str | None = field(default=None, compare=False)

    def is_being_rotated(self, now: datetime) -> bool:
        """Return whether the app was told to rotate it, and nobody knows yet what came of that.

        A new version says what came of it. The first minute counts anyway: whoever asks twice means it once.
        """
        if self.claim is None or now - self.claim.at >= ROTATION_CLAIM_LASTS:
            return False
        return now - self.claim.at < ROTATION_REST or len(self.rotations) <= self.claim.versions

    @property
    def versions(self) -> tuple[KeyVersion, ...]:
        """Its versions, from the oldest to the newest."""
        dated = {one.version.version: (one.version, one.detected_at) for one in self.rotations}
        return tuple(dated[name][0] for name in in_order(dated.values()))


def detected(
    known: KnownKey, versions: tuple[KeyVersion, ...], announced: str | None, event_id: str | None, now: datetime
) -> tuple[Rotation, ...]:
    """Return the versions that the ledger has not, each with how it was detected. Pure.

    At first sight of a key everything but the announced version is its baseline. An announced version counts even
    where the vault does not show it (yet), or can't be read.
    """
    have = {rotation.version.version for rotation in known.rotations}
    by_name = {version.version: version for version in versions}
    if announced is not None:
        by_name.setdefault(announced, KeyVersion(announced))
    otherwise = Detection.BASELINE if known.vault_id is None else Detection.SWEEP
    return tuple(
        _rotation(known.key, version, announced=announced, event_id=event_id, otherwise=otherwise, now=now)
        for name, version in sorted(by_name.items(), key=lambda item: (item[1].created or now, item[0]))
        if name not in have
    )


def made_at_once(found: Sequence[Rotation]) -> bool:
    """Return whether some of these versions were made at one moment: Key Vault tells it to the second."""
    return len({one.version.created for one in found}) < len(found)


def current_last(found: Sequence[Rotation], current: str | None) -> tuple[Rotation, ...]:
    """Return versions that one look found; those made with the current one count as detected a moment before it.

    They are logged before it too: a crash in between leaves what is logged later the newer.
    """
    made = {one.version.created for one in found if one.version.version == current}
    moment = timedelta(microseconds=1)
    dated = (
        replace(one, detected_at=one.detected_at - moment)
        if one.version.created in made and one.version.version != current
        else one
        for one in found
    )
    return tuple(sorted(dated, key=lambda one: one.detected_at))


def _rotation(
    key: KeyId, version: KeyVersion, *, announced: str | None, event_id: str | None, otherwise: Detection, now: datetime
) -> Rotation:
    how = Detection.EVENT if version.version == announced else otherwise
    return Rotation(
        key=key,
        version=version,
        how=how,
        detected_at=now,
        event_id=event_id if how is Detection.EVENT else None,
        fanned_out_at=now if how is Detection.BASELINE else None,
    )
