"""What programs read of keys: which there are, which version each cluster still needs, and what rotated.

A version is never called safe to retire. Nothing that can be known proves that: what speaks for it is a `candidate`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from shared.clusters import ClusterId
from shared.errors import Malformed
from shared.keyhealth import Finding, mend
from shared.keyledger import KeyLedger, user_name
from shared.keyrecords import Detection, KeySummary, KnownKey, Rotation, summary_of
from shared.keys import KeyId, KeyReference, KeyVersion, RotationPolicy
from shared.questions import TOP, Json, Query, flag, key, key_named, moment, only, told, top, vault, word
from shared.reasons import Reason
from shared.rotation import Adoption, KeyUser, Need, Standing, picture, standing
from shared.tables import Page, read_token, write_token

ANY = "any"

Picture = Mapping[str, Sequence[Need]]
Incarnation = tuple[ClusterId, str]


@dataclass(frozen=True, slots=True)
class KeyViews:
    """Answers questions about keys. Malformed if a question can't be read."""

    ledger: KeyLedger

    async def all(self, query: Query) -> Json:
        """The keys, page by page, as of the last look at each. `vault`, `finding`, `top`, `continuation`.

        Costs one read of a table a page; with `finding` it may be up to ten, and a page may then be short.
        """
        only(query, "vault", "finding", "top", "continuation")
        page = await self.ledger.keys_page(
            vault=vault(query), keep=_finding(query), top=top(query), after=query.get("continuation")
        )
        return {"keys": [key_view(known) for known in page.items], "continuation": page.continuation}

    async def one(self, vault_name: str, name: str, query: Query, *, now: datetime) -> Json | None:
        """One key: how each version stands with each cluster, and what each cluster has used; None if not known.

        `version` narrows it to one, and pages through all clusters that have to do with that; else each version names
        the first hundred, and the clusters are paged through. `version`, `top`, `continuation`.
        """
        only(query, "version", "top", "continuation")
        asked = key_named(vault_name, name)
        version = _version(asked, query)
        known = await self.ledger.key(asked)
        users = sorted(await self.ledger.users(asked), key=user_name)
        if known.vault_id is None and not known.rotations and not users:
            return None
        adoptions = await self.ledger.adoptions(asked)
        taken_up = _by_incarnation(adoptions)
        found = picture(users, adoptions, known.versions, now)
        if version is not None and version not in found:
            return None
        concerned = users if version is None else _users_of(users, found[version])
        page = _page(concerned, top(query), query.get("continuation"))
        summary = summary_of(known.versions, users, found)
        return _head(known, summary) | {
            "versions": [
                version_view(one, known, found[one], adoptions, page.items if version is not None else None)
                for one in _versions(known, found)
                if version in {None, one}
            ],
            "clusters": [user_view(user, taken_up.get(_incarnation(user), ())) for user in page.items],
            "clusterCount": len(concerned),
            "continuation": page.continuation,
        }

    async def rotations(self, query: Query) -> Json:
        """The rotations, page by page. `key` (its URL), `how`, `since`, `untold`, `top`, `continuation`."""
        only(query, "key", "how", "since", "untold", "top", "continuation")
        page = await self.ledger.rotations_page(
            key(query),
            top=top(query),
            after=query.get("continuation"),
            how=word(query, "how", Detection),
            since=moment(query, "since"),
            untold=flag(query, "untold"),
        )
        return {"rotations": [rotation_view(rotation) for rotation in page.items], "continuation": page.continuation}


def key_view(known: KnownKey) -> Json:
    """A key as the last look at it left it: where it lies, how many versions, who uses it, what is wrong with it."""
    return _head(known, known.summary or KeySummary())


def _head(known: KnownKey, summary: KeySummary) -> Json:
    newest = summary.newest
    return {
        "vault": known.key.vault,
        "key": known.key.name,
        "url": KeyReference(known.key, None).url,
        "vaultId": str(known.vault_id) if known.vault_id else None,
        "versionCount": summary.versions,
        "newest": _version_view(newest) if newest else None,
        "users": dict(sorted(summary.users.items())),
        "standings": {word: summary.standings.get(word, 0) for word in Standing},
        "findings": [finding_view(known, finding) for finding in known.findings],
        "rotationPolicy": _policy(known.rotation_policy) if known.rotation_policy else None,
        "lookedAt": told(known.looked_at),
    }


def finding_view(known: KnownKey, finding: Finding) -> Json:
    """What is wrong with a key or a version, since when, which clusters that stops or will stop, and what to do."""
    to_do = mend(finding, known.vault_id, known.key.name)
    return {
        "reason": finding.reason,
        "version": finding.version,
        "since": told(finding.since),
        "clusterCount": finding.count,
        "clusters": [str(cluster) for cluster in finding.clusters],
        "fix": {"text": to_do.text, "command": to_do.command} if to_do else None,
    }


def version_view(
    version: str,
    known: KnownKey,
    needs: Sequence[Need],
    adoptions: Sequence[Adoption],
    shown: Sequence[KeyUser] | None = None,
) -> Json:
    """One version: how it came to be known, how it stands, and with which clusters; of these only the `shown` ones.

    Where none are named they are the first hundred, those that need it before the others.
    """
    rotation = next((one for one in known.rotations if one.version.version == version), None)
    disabled = rotation is not None and rotation.version.enabled is False
    awaited = [] if disabled else [one for one in adoptions if one.version == version]
    deadlines = [one.expected_by for one in awaited if one.expected_by is not None]
    return _detection(version, rotation) | {
        "expectedBy": told(max(deadlines, default=None)),
        "standing": standing(needs),
        "clusterCount": len(needs),
        "clusters": [need_view(need) for need in _shown(needs, shown)],
    }


def need_view(need: Need) -> Json:
    """How a version stands with one cluster, and why."""
    return {
        "cluster": str(need.cluster),
        "resourceUID": need.resource_uid,
        "standing": need.standing,
        "why": need.why,
        "since": told(need.since),
        "expectedBy": told(need.expected_by),
        "identityShared": need.identity_shared,
    }


def user_view(user: KeyUser, adoptions: Sequence[Adoption]) -> Json:
    """One cluster's time with a key, and the versions that it has used or is expected to use: its own adoptions.

    A cluster that was created anew under its name is there twice.
    """
    return {
        "cluster": str(user.cluster),
        "resourceUID": user.resource_uid,
        "keyManagement": user.key_management,
        "since": told(user.since),
        "begunBefore": user.begun_before,
        "version": user.version,
        "networkAccess": user.network_access,
        "rewrittenAt": told(user.rewritten_at),
        "rewrittenBy": user.rewritten_by,
        "endedAt": told(user.ended_at),
        "gone": user.gone,
        "adoptions": [adoption_view(one) for one in sorted(adoptions, key=lambda one: (one.since, one.version))],
    }


def adoption_view(adoption: Adoption) -> Json:
    """A cluster's move to a version: expected by when, and what shows that it has happened."""
    return {
        "version": adoption.version,
        "how": adoption.how,
        "since": told(adoption.since),
        "expectedBy": told(adoption.expected_by),
        "effectiveAt": told(adoption.effective_at),
        "firstSeen": told(adoption.first_seen),
        "lastSeen": told(adoption.last_seen),
        "lastTried": told(adoption.last_tried),
    }


def rotation_view(rotation: Rotation) -> Json:
    """One version of a key as it was detected: how, when, how long after its creation, and whether all were told."""
    return {
        "vault": rotation.key.vault,
        "key": rotation.key.name,
        **_detection(rotation.version.version, rotation),
        "fannedOutAt": told(rotation.fanned_out_at),
    }


def _detection(version: str, rotation: Rotation | None) -> Json:
    """A version and its detection; of one that only a cluster names, nothing else is known."""
    if rotation is None:
        return _version_view(KeyVersion(version)) | dict.fromkeys(("how", "detectedAt", "latencySeconds", "eventId"))
    latency = rotation.latency
    return _version_view(rotation.version) | {
        "how": rotation.how,
        "detectedAt": told(rotation.detected_at),
        "latencySeconds": round(latency.total_seconds(), 3) if latency is not None else None,
        "eventId": rotation.event_id,
    }


def _version_view(version: KeyVersion) -> Json:
    return {
        "version": version.version,
        "created": told(version.created),
        "notBefore": told(version.not_before),
        "expires": told(version.expires),
        "enabled": version.enabled,
    }


def _policy(policy: RotationPolicy) -> Json:
    return {
        "rotatesAfterCreation": policy.rotates_after_creation,
        "rotatesBeforeExpiry": policy.rotates_before_expiry,
        "expiresIn": policy.expires_in,
    }


def _versions(known: KnownKey, found: Picture) -> list[str]:
    """All versions from the oldest to the newest. One that a cluster names and nobody logged yet comes first."""
    logged = [one.version for one in known.versions]
    return [*sorted(set(found) - set(logged)), *logged]


def _shown(needs: Sequence[Need], users: Sequence[KeyUser] | None) -> list[Need]:
    if users is None:
        weight = {word: number for number, word in enumerate(Standing)}
        return sorted(needs, key=lambda need: (weight[need.standing], need.cluster, need.resource_uid))[:TOP]
    of = {(need.cluster, need.resource_uid): need for need in needs}
    return [of[_incarnation(user)] for user in users]


def _incarnation(user: KeyUser) -> Incarnation:
    return user.cluster, user.resource_uid


def _by_incarnation(adoptions: Sequence[Adoption]) -> Mapping[Incarnation, Sequence[Adoption]]:
    found: dict[Incarnation, list[Adoption]] = {}
    for one in adoptions:
        found.setdefault((one.cluster, one.resource_uid), []).append(one)
    return found


def _users_of(users: Sequence[KeyUser], needs: Sequence[Need]) -> list[KeyUser]:
    concerned = {(need.cluster, need.resource_uid) for need in needs}
    return [user for user in users if _incarnation(user) in concerned]


def _page(users: Sequence[KeyUser], most: int, after: str | None) -> Page[KeyUser]:
    """One page of users in the order of their names: where it ends is a name, so nobody is lost or comes twice."""
    last = read_token(after, "after")["after"] if after is not None else ""
    left = [user for user in users if user_name(user) > last]
    page = tuple(left[:most])
    return Page(page, write_token(after=user_name(page[-1])) if len(left) > most else None)


def _version(asked: KeyId, query: Query) -> str | None:
    if "version" not in query:
        return None
    try:
        reference = KeyReference.parse(f"{KeyReference(asked, None).url}/{query['version']}")
    except Malformed:
        reference = KeyReference(asked, None)
    if reference.version is None:
        raise Malformed("version must be 32 hexadecimal digits")
    return reference.version


def _finding(query: Query) -> Callable[[KnownKey], bool] | None:
    if "finding" not in query:
        return None
    if query["finding"] == ANY:
        return lambda known: bool(known.findings)
    try:
        reason = word(query, "finding", Reason)
    except Malformed as error:
        raise Malformed(f"finding must be {ANY}, or a reason, like {Reason.KEY_DISABLED}") from error
    return lambda known: any(finding.reason is reason for finding in known.findings)
