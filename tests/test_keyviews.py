"""What programs read of keys."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, cast

import pytest

from shared.clusters import ClusterId, KeyManagement
from shared.errors import Malformed
from shared.keyhealth import Finding
from shared.keyledger import KeyLedger, user_name
from shared.keyrecords import Detection, KeySummary, KnownKey, Rotation
from shared.keys import KeyId, KeyVersion, RotationPolicy
from shared.keyviews import KeyViews, key_view, rotation_view
from shared.reasons import Reason
from shared.rotation import Adoption, How, KeyUser, Standing
from shared.tables import Page, write_token
from tests.builders import (
    CLUSTER_ID,
    KEY,
    KEY_URL,
    NOW,
    OTHER_RESOURCE_UID,
    OTHER_VERSION,
    RESOURCE_UID,
    SUBSCRIPTION,
    VAULT_ID,
    VERSION,
    key_version,
    rotation,
)

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
LEGACY_CLUSTER = ClusterId(SUBSCRIPTION, "rg-apps", "aks-2")

OLD = Rotation(KEY, KeyVersion(VERSION, True, NOW - 30 * DAY), Detection.BASELINE, NOW - 20 * DAY)
NEW = Rotation(
    KEY,
    KeyVersion(OTHER_VERSION, True, NOW - 2 * HOUR, NOW - HOUR, NOW + 300 * DAY),
    Detection.EVENT,
    NOW - 2 * HOUR + timedelta(seconds=1.25),
    event_id="event-1",
    fanned_out_at=NOW - HOUR,
)
FINDING = Finding(Reason.VERSION_EXPIRED, VERSION, (CLUSTER_ID,), 12, NOW - DAY)
KNOWN = KnownKey(
    KEY, VAULT_ID, (NEW, OLD), findings=(FINDING,), rotation_policy=RotationPolicy("P1Y", None, "P2Y"), looked_at=NOW
)
FOLLOWER = KeyUser(CLUSTER_ID, RESOURCE_UID, KeyManagement.CUSTOMER_MANAGED, NOW - 10 * DAY, network_access="Private")
NAMING = KeyUser(
    LEGACY_CLUSTER,
    OTHER_RESOURCE_UID,
    KeyManagement.LEGACY,
    NOW - 10 * DAY,
    begun_before=False,
    version=VERSION,
    network_access="Public",
    rewritten_at=NOW - 5 * DAY,
    rewritten_by="somebody",
)
ADOPTIONS = [
    Adoption(VERSION, CLUSTER_ID, RESOURCE_UID, How.EXPECTED, NOW - 10 * DAY, NOW - 10 * DAY),
    Adoption(OTHER_VERSION, CLUSTER_ID, RESOURCE_UID, How.EXPECTED, NOW - HOUR, NOW + 5 * HOUR),
    Adoption(
        VERSION, LEGACY_CLUSTER, OTHER_RESOURCE_UID, How.UPDATED, NOW - 10 * DAY, effective_at=NOW - 10 * DAY + HOUR
    ),
]


class Shelf:
    """One key with all that is known of it, and what was asked for: as much of a ledger as a view asks."""

    def __init__(
        self,
        known: KnownKey = KNOWN,
        users: Sequence[KeyUser] = (FOLLOWER, NAMING),
        adoptions: Sequence[Adoption] = ADOPTIONS,
        *,
        listed: Sequence[KnownKey] = (),
        continuation: str | None = None,
    ) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self._known, self._users, self._adoptions = known, users, adoptions
        self._listed, self._continuation = listed, continuation

    async def keys_page(self, *, vault: str | None, keep: Any, top: int, after: str | None) -> Page[KnownKey]:
        self.asked.append((vault, top, after))
        return Page(tuple(one for one in self._listed if keep is None or keep(one)), self._continuation)

    async def key(self, key: KeyId) -> KnownKey:
        return self._known if key == self._known.key else KnownKey(key)

    async def users(self, key: KeyId) -> list[KeyUser]:
        return [*self._users] if key == self._known.key else []

    async def adoptions(self, key: KeyId) -> list[Adoption]:
        return [*self._adoptions] if key == self._known.key else []

    async def rotations_page(self, key: KeyId | None, **asked: Any) -> Page[Rotation]:
        self.asked.append((key, asked))
        return Page((rotation(),), self._continuation)


def views(shelf: Shelf) -> KeyViews:
    return KeyViews(cast("KeyLedger", shelf))


def as_json(answer: Any) -> Any:
    return json.loads(json.dumps(answer))


async def shown(shelf: Shelf | None = None, **query: str) -> Any:
    return as_json(await views(shelf or Shelf()).one("kv-kms", "etcd", query, now=NOW))


# the list

NOTHING_KNOWN: dict[str, Any] = {
    "vault": "kv-kms",
    "key": "etcd",
    "url": KEY_URL,
    "vaultId": None,
    "versionCount": 0,
    "newest": None,
    "users": {},
    "standings": {"needed": 0, "not-shown-unneeded": 0, "candidate": 0},
    "findings": [],
    "rotationPolicy": None,
    "lookedAt": None,
}
FINDING_SHOWN = {
    "reason": "version-expired",
    "version": VERSION,
    "since": "2026-03-01T09:00:00Z",
    "clusterCount": 12,
    "clusters": [str(CLUSTER_ID)],
    "fix": {
        "text": "Move the version's expiry.",
        "command": f"az keyvault key set-attributes --subscription {SUBSCRIPTION} --vault-name kv-kms --name etcd"
        f" --version {VERSION} --expires YYYY-MM-DD",
    },
}


def test_a_key_of_which_nothing_is_known_has_every_field() -> None:
    assert as_json(key_view(KnownKey(KEY))) == NOTHING_KNOWN


def test_a_key_in_the_list_is_as_the_last_look_left_it() -> None:
    summary = KeySummary(
        2,
        NEW.version,
        {KeyManagement.LEGACY: 1, KeyManagement.CUSTOMER_MANAGED: 7},
        {Standing.NEEDED: 1, Standing.CANDIDATE: 1},
    )

    assert as_json(key_view(replace(KNOWN, rotations=(), summary=summary))) == {
        "vault": "kv-kms",
        "key": "etcd",
        "url": KEY_URL,
        "vaultId": str(VAULT_ID),
        "versionCount": 2,
        "newest": {
            "version": OTHER_VERSION,
            "created": "2026-03-02T07:00:00Z",
            "notBefore": "2026-03-02T08:00:00Z",
            "expires": "2026-12-27T09:00:00Z",
            "enabled": True,
        },
        "users": {"customer-managed": 7, "legacy": 1},
        "standings": {"needed": 1, "not-shown-unneeded": 0, "candidate": 1},
        "findings": [FINDING_SHOWN],
        "rotationPolicy": {"rotatesAfterCreation": "P1Y", "rotatesBeforeExpiry": None, "expiresIn": "P2Y"},
        "lookedAt": "2026-03-02T09:00:00Z",
    }


def test_a_finding_that_nobody_can_mend_has_no_fix() -> None:
    odd = replace(KNOWN, findings=(replace(FINDING, reason=Reason.ACCESS_POLICY_CHANGED, version=None),))

    (finding,) = key_view(odd)["findings"]

    assert finding["fix"] is None


async def test_the_list_says_where_it_goes_on() -> None:
    shelf = Shelf(listed=[KNOWN], continuation="more")

    listing = await views(shelf).all({"vault": "KV-kms", "top": "7", "continuation": "from", "code": "secret"})

    assert (len(listing["keys"]), listing["continuation"]) == (1, "more")
    assert shelf.asked == [("kv-kms", 7, "from")]


@pytest.mark.parametrize(
    ("finding", "expected"),
    [("any", ["etcd", "old"]), ("version-expired", ["etcd"]), ("key-too-old", ["old"]), ("key-expired", [])],
)
async def test_the_list_can_be_of_those_keys_that_have_something_wrong(finding: str, expected: list[str]) -> None:
    old = KnownKey(KeyId("kv-kms", "old"), findings=(replace(FINDING, reason=Reason.KEY_TOO_OLD),))
    shelf = Shelf(listed=[KNOWN, old, KnownKey(KeyId("kv-kms", "sound"))])

    listing = await views(shelf).all({"finding": finding})

    assert [one["key"] for one in listing["keys"]] == expected


# one key


async def test_a_key_shows_how_each_version_stands_with_each_cluster_and_what_each_has_used() -> None:
    follower, naming = str(CLUSTER_ID), str(LEGACY_CLUSTER)

    assert await shown() == {
        "vault": "kv-kms",
        "key": "etcd",
        "url": KEY_URL,
        "vaultId": str(VAULT_ID),
        "versionCount": 2,
        "newest": {
            "version": OTHER_VERSION,
            "created": "2026-03-02T07:00:00Z",
            "notBefore": "2026-03-02T08:00:00Z",
            "expires": "2026-12-27T09:00:00Z",
            "enabled": True,
        },
        "users": {"customer-managed": 1, "legacy": 1},
        "standings": {"needed": 2, "not-shown-unneeded": 0, "candidate": 0},
        "findings": [FINDING_SHOWN],
        "rotationPolicy": {"rotatesAfterCreation": "P1Y", "rotatesBeforeExpiry": None, "expiresIn": "P2Y"},
        "lookedAt": "2026-03-02T09:00:00Z",
        "versions": [
            {
                "version": VERSION,
                "created": "2026-01-31T09:00:00Z",
                "notBefore": None,
                "expires": None,
                "enabled": True,
                "how": "baseline",
                "detectedAt": "2026-02-10T09:00:00Z",
                "latencySeconds": None,
                "eventId": None,
                "expectedBy": "2026-02-20T09:00:00Z",
                "standing": "needed",
                "clusterCount": 2,
                "clusters": [
                    {
                        "cluster": follower,
                        "resourceUID": RESOURCE_UID,
                        "standing": "needed",
                        "why": "not-left",
                        "since": "2026-02-20T09:00:00Z",
                        "expectedBy": "2026-02-20T09:00:00Z",
                        "identityShared": False,
                    },
                    {
                        "cluster": naming,
                        "resourceUID": OTHER_RESOURCE_UID,
                        "standing": "needed",
                        "why": "current",
                        "since": "2026-02-20T09:00:00Z",
                        "expectedBy": None,
                        "identityShared": False,
                    },
                ],
            },
            {
                "version": OTHER_VERSION,
                "created": "2026-03-02T07:00:00Z",
                "notBefore": "2026-03-02T08:00:00Z",
                "expires": "2026-12-27T09:00:00Z",
                "enabled": True,
                "how": "event",
                "detectedAt": "2026-03-02T07:00:01.250000Z",
                "latencySeconds": 1.25,
                "eventId": "event-1",
                "expectedBy": "2026-03-02T14:00:00Z",
                "standing": "needed",
                "clusterCount": 2,
                "clusters": [
                    {
                        "cluster": follower,
                        "resourceUID": RESOURCE_UID,
                        "standing": "needed",
                        "why": "adopting",
                        "since": "2026-03-02T08:00:00Z",
                        "expectedBy": "2026-03-02T14:00:00Z",
                        "identityShared": False,
                    },
                    {
                        "cluster": naming,
                        "resourceUID": OTHER_RESOURCE_UID,
                        "standing": "not-shown-unneeded",
                        "why": "history-unknown",
                        "since": None,
                        "expectedBy": None,
                        "identityShared": False,
                    },
                ],
            },
        ],
        "clusters": [
            {
                "cluster": follower,
                "resourceUID": RESOURCE_UID,
                "keyManagement": "customer-managed",
                "since": "2026-02-20T09:00:00Z",
                "begunBefore": True,
                "version": None,
                "networkAccess": "Private",
                "rewrittenAt": None,
                "rewrittenBy": None,
                "endedAt": None,
                "gone": False,
                "adoptions": [
                    {
                        "version": VERSION,
                        "how": "expected",
                        "since": "2026-02-20T09:00:00Z",
                        "expectedBy": "2026-02-20T09:00:00Z",
                        "effectiveAt": None,
                        "firstSeen": None,
                        "lastSeen": None,
                        "lastTried": None,
                    },
                    {
                        "version": OTHER_VERSION,
                        "how": "expected",
                        "since": "2026-03-02T08:00:00Z",
                        "expectedBy": "2026-03-02T14:00:00Z",
                        "effectiveAt": None,
                        "firstSeen": None,
                        "lastSeen": None,
                        "lastTried": None,
                    },
                ],
            },
            {
                "cluster": naming,
                "resourceUID": OTHER_RESOURCE_UID,
                "keyManagement": "legacy",
                "since": "2026-02-20T09:00:00Z",
                "begunBefore": False,
                "version": VERSION,
                "networkAccess": "Public",
                "rewrittenAt": "2026-02-25T09:00:00Z",
                "rewrittenBy": "somebody",
                "endedAt": None,
                "gone": False,
                "adoptions": [
                    {
                        "version": VERSION,
                        "how": "updated",
                        "since": "2026-02-20T09:00:00Z",
                        "expectedBy": None,
                        "effectiveAt": "2026-02-20T10:00:00Z",
                        "firstSeen": None,
                        "lastSeen": None,
                        "lastTried": None,
                    }
                ],
            },
        ],
        "clusterCount": 2,
        "continuation": None,
    }


async def test_how_versions_stand_is_told_of_this_moment_and_not_of_the_last_look() -> None:
    later = await views(Shelf(users=[FOLLOWER])).one("kv-kms", "etcd", {}, now=NOW + DAY)

    assert later is not None
    assert later["standings"] == {"needed": 1, "not-shown-unneeded": 1, "candidate": 0}
    assert [(one["standing"], one["clusters"][0]["why"]) for one in later["versions"]] == [
        ("not-shown-unneeded", "no-evidence"),
        ("needed", "current"),
    ]


async def test_a_cluster_that_was_created_anew_is_there_with_both_its_lives() -> None:
    before = replace(FOLLOWER, gone=True, ended_at=NOW - DAY)
    again = replace(FOLLOWER, resource_uid=OTHER_RESOURCE_UID, since=NOW - HOUR)
    adoptions = [*ADOPTIONS[:1], replace(ADOPTIONS[1], resource_uid=OTHER_RESOURCE_UID)]

    view = await shown(Shelf(users=[before, again], adoptions=adoptions))

    assert view["users"] == {"customer-managed": 1}
    lives = [(one["resourceUID"], one["gone"], one["endedAt"], len(one["adoptions"])) for one in view["clusters"]]
    assert lives == [
        (RESOURCE_UID, True, "2026-03-01T09:00:00Z", 1),
        (OTHER_RESOURCE_UID, False, None, 1),
    ]
    whys = {need["resourceUID"]: need["why"] for need in view["versions"][0]["clusters"]}
    assert whys == {RESOURCE_UID: "gone", OTHER_RESOURCE_UID: "history-unknown"}


async def test_a_version_that_only_a_cluster_names_is_shown_with_nothing_but_its_name() -> None:
    unlogged = "0" * 32
    adoption = replace(ADOPTIONS[2], version=unlogged)

    view = await shown(Shelf(users=[replace(NAMING, version=unlogged)], adoptions=[adoption]))

    assert view["versions"][0] == {
        "version": unlogged,
        "created": None,
        "notBefore": None,
        "expires": None,
        "enabled": None,
        "how": None,
        "detectedAt": None,
        "latencySeconds": None,
        "eventId": None,
        "expectedBy": None,
        "standing": "needed",
        "clusterCount": 1,
        "clusters": [
            {
                "cluster": str(LEGACY_CLUSTER),
                "resourceUID": OTHER_RESOURCE_UID,
                "standing": "needed",
                "why": "current",
                "since": "2026-02-20T09:00:00Z",
                "expectedBy": None,
                "identityShared": False,
            }
        ],
    }


async def test_a_key_that_clusters_use_and_nobody_could_read_is_known() -> None:
    view = await shown(Shelf(KnownKey(KEY), users=[FOLLOWER], adoptions=[]))

    assert (view["vaultId"], view["versions"], view["clusterCount"]) == (None, [], 1)


@pytest.mark.parametrize("name", ["other", "etcd-2"])
async def test_a_key_that_nobody_knows_is_none(name: str) -> None:
    assert await views(Shelf()).one("kv-kms", name, {}, now=NOW) is None


async def test_the_names_of_a_key_may_be_in_any_case() -> None:
    assert await views(Shelf()).one("KV-KMS", "ETCD", {}, now=NOW) is not None


# many clusters


def crowd(count: int) -> tuple[list[KeyUser], list[Adoption]]:
    """So many clusters that follow the key; every tenth is gone."""
    users = [
        replace(
            FOLLOWER,
            cluster=ClusterId(SUBSCRIPTION, "rg-apps", f"aks-{number:04d}"),
            gone=number % 10 == 0,
            ended_at=NOW if number % 10 == 0 else None,
        )
        for number in range(count)
    ]
    return users, [replace(ADOPTIONS[0], cluster=user.cluster) for user in users]


async def test_of_many_clusters_a_version_names_a_hundred_that_need_it_before_the_others_and_counts_all() -> None:
    view = await shown(Shelf(KNOWN, *crowd(250)))

    old = view["versions"][0]
    assert (old["clusterCount"], len(old["clusters"])) == (250, 100)
    assert {need["standing"] for need in old["clusters"]} == {"needed"}
    assert old["clusters"][0]["cluster"].endswith("aks-0001")
    assert (view["clusterCount"], len(view["clusters"])) == (250, 100)


@pytest.mark.parametrize("top", [1, 99, 100, 1000])
@pytest.mark.parametrize("version", [None, VERSION])
async def test_pages_of_clusters_lose_none_and_double_none(top: int, version: str | None) -> None:
    users, adoptions = crowd(200 if top > 1 else 7)
    shelf = Shelf(KNOWN, users[::-1], adoptions)
    query = {"top": str(top)} | ({"version": version} if version else {})
    named: list[str] = []
    listed: list[str] = []
    after = None
    while True:
        view = await shown(shelf, **query, **({"continuation": after} if after else {}))
        listed += [one["cluster"] for one in view["clusters"]]
        named += [need["cluster"] for need in view["versions"][0]["clusters"]]
        after = view["continuation"]
        if after is None:
            break

    everybody = [str(user.cluster) for user in users]
    assert listed == everybody
    assert version is None or named == everybody


async def test_asked_for_a_version_only_it_and_the_clusters_that_have_to_do_with_it_are_shown() -> None:
    view = await shown(version=OTHER_VERSION.upper())

    assert [one["version"] for one in view["versions"]] == [OTHER_VERSION]
    concerned = [str(CLUSTER_ID), str(LEGACY_CLUSTER)]
    assert [one["cluster"] for one in view["versions"][0]["clusters"]] == concerned
    assert [one["cluster"] for one in view["clusters"]] == concerned
    assert (view["clusterCount"], view["versionCount"]) == (2, 2)


async def test_a_version_that_the_key_does_not_have_is_not_found() -> None:
    assert await shown(version="0" * 32) is None


async def test_a_page_goes_on_after_a_cluster_that_is_not_there_any_more() -> None:
    users, adoptions = crowd(4)
    left = [user for user in users if user is not users[1]]

    view = await shown(Shelf(KNOWN, left, adoptions), top="1", continuation=write_token(after=user_name(users[1])))

    assert [one["cluster"] for one in view["clusters"]] == [str(users[2].cluster)]


# rotations


async def test_a_rotation_shows_which_version_how_when_and_how_soon() -> None:
    listing = await views(Shelf(continuation="more")).rotations({})

    assert as_json(listing) == {
        "rotations": [
            {
                "vault": "kv-kms",
                "key": "etcd",
                "version": VERSION,
                "created": "2026-03-02T09:00:00Z",
                "notBefore": None,
                "expires": None,
                "enabled": True,
                "how": "event",
                "detectedAt": "2026-03-02T09:00:00Z",
                "latencySeconds": 0.0,
                "eventId": "event-1",
                "fannedOutAt": None,
            }
        ],
        "continuation": "more",
    }


@pytest.mark.parametrize(
    ("created", "how", "expected"),
    [
        (NOW - timedelta(seconds=90, microseconds=1234), Detection.SWEEP, 90.001),
        (NOW + DAY, Detection.EVENT, 0.0),
        (None, Detection.EVENT, None),
        (NOW - DAY, Detection.BASELINE, None),
    ],
)
def test_how_long_a_detection_took(created: datetime | None, how: Detection, expected: float | None) -> None:
    view = rotation_view(replace(rotation(how=how), version=key_version(created=created)))

    assert view["latencySeconds"] == expected


async def test_rotations_are_asked_for_as_the_question_says() -> None:
    shelf = Shelf()
    query = {
        "key": f"{KEY_URL}/{VERSION}",
        "how": "sweep",
        "since": "2026-03-02T10:00:00+01:00",
        "untold": "true",
        "top": "7",
        "continuation": "from",
    }

    await views(shelf).rotations({"code": "secret"})
    await views(shelf).rotations(query)

    nothing = {"how": None, "since": None, "untold": None}
    assert shelf.asked == [
        (None, {"top": 100, "after": None} | nothing),
        (KEY, {"top": 7, "after": "from", "how": Detection.SWEEP, "since": NOW, "untold": True}),
    ]


# hostile questions

LONG = "x" * 10_000


@pytest.mark.parametrize(
    ("query", "hint"),
    [
        pytest.param({"colour": "red"}, "unknown parameter 'colour'", id="unknown"),
        pytest.param({"top": "0"}, "top must be", id="top"),
        pytest.param({"vault": "k"}, "not a key of a vault", id="vault"),
        pytest.param({"vault": LONG}, "vault has more than", id="long-vault"),
        pytest.param({"finding": "broken"}, "finding must be any, or a reason, like key-disabled", id="finding"),
        pytest.param({"finding": LONG}, "finding has more than", id="long-finding"),
        pytest.param({"continuation": LONG}, "continuation has more than", id="long-continuation"),
    ],
)
async def test_a_list_of_keys_is_asked_for_strictly(query: dict[str, str], hint: str) -> None:
    with pytest.raises(Malformed, match=hint):
        await views(Shelf()).all(query)


@pytest.mark.parametrize(
    ("query", "hint"),
    [
        pytest.param({"finding": "any"}, "unknown parameter 'finding'", id="unknown"),
        pytest.param({"top": "1001"}, "top must be", id="top"),
        pytest.param({"version": "1"}, "version must be 32 hexadecimal digits", id="version"),
        pytest.param({"version": ""}, "version must be 32 hexadecimal digits", id="no-version"),
        pytest.param({"version": f"{VERSION}/{VERSION}"}, "version must be", id="two-versions"),
        pytest.param({"version": LONG}, "version has more than", id="long-version"),
        pytest.param({"continuation": "!"}, "not a continuation token", id="continuation"),
        pytest.param({"continuation": write_token(after="x", day="y")}, "not a continuation token", id="another-s"),
    ],
)
async def test_a_key_is_asked_for_strictly(query: dict[str, str], hint: str) -> None:
    with pytest.raises(Malformed, match=hint):
        await views(Shelf()).one("kv-kms", "etcd", query, now=NOW)


@pytest.mark.parametrize(
    ("query", "hint"),
    [
        pytest.param({"vault": "kv-kms"}, "unknown parameter 'vault'", id="unknown"),
        pytest.param({"key": "etcd"}, "not a key of a vault", id="key"),
        pytest.param({"how": "guess"}, "'guess' is no how", id="how"),
        pytest.param({"since": "yesterday"}, "since must be a moment", id="since"),
        pytest.param({"untold": "maybe"}, "untold must be true or false", id="untold"),
        pytest.param({"key": LONG}, "key has more than", id="long-key"),
    ],
)
async def test_rotations_are_asked_for_strictly(query: dict[str, str], hint: str) -> None:
    with pytest.raises(Malformed, match=hint):
        await views(Shelf()).rotations(query)


@pytest.mark.parametrize("name", ["", "a/b", LONG, "..", "etcd?x=1"])
async def test_what_is_no_key_s_name_is_told(name: str) -> None:
    with pytest.raises(Malformed):
        await views(Shelf()).one("kv-kms", name, {}, now=NOW)


async def test_no_answer_calls_a_version_safe() -> None:
    said = json.dumps([await shown(), key_view(KNOWN)])

    assert "safe" not in said.lower()
