"""What programs read."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date, timedelta
from typing import Any, cast

import pytest

from shared.clusters import ClusterId, IdentityKind
from shared.decisions import Facts, decide
from shared.errors import Malformed, Unavailable
from shared.events import Scope
from shared.ledger import Ledger
from shared.policy import Mode, PolicyInForce
from shared.reasons import Action, Reason
from shared.records import Enforcement, FailedUpdate, Matched, Record, Run, Shard
from shared.tables import Page, Row, write_token
from shared.views import Views, health_view, paths, problem, run_view
from tests.builders import (
    CLUSTER_ID,
    IDENTITY_ID,
    KEY_URL,
    MINUTE,
    NOW,
    OTHER_SUBSCRIPTION,
    PMK,
    SMALLEST_POLICY,
    SUBSCRIPTION,
    VERSION,
    assignment,
    change,
    claim,
    cluster,
    key_target,
    policy,
    prerequisites,
    record,
    vault,
    waiting,
)

RUN = Run("run-1", "operator", NOW, Mode.AUDIT, shards=2)
SHARD = Shard(
    SUBSCRIPTION, NOW + MINUTE, clusters=3, enqueued=1, counts={"write:not-as-asked": 1, "nothing:as-asked": 2}
)
OTHER_SHARD = Shard(OTHER_SUBSCRIPTION, NOW + 2 * MINUTE, 1, 0, {"nothing:as-asked": 1}, failure="Forbidden: no")


class Shelf:
    """One page of everything, and what was asked for: as much of a ledger as a view asks."""

    def __init__(
        self,
        enforcement: Enforcement | Unavailable | None = None,
        *,
        continuation: str | None = None,
        clusters: tuple[Record, ...] = (),
        sweep: tuple[Run, tuple[Shard, ...]] | None = None,
        lines: tuple[Row, ...] = (),
    ) -> None:
        self._lines = lines
        self.asked: list[tuple[Any, ...]] = []
        self._enforcement = enforcement
        self._continuation = continuation
        self._clusters = clusters
        self._sweep = sweep

    async def last_sweep(self) -> tuple[Run, tuple[Shard, ...]] | None:
        return self._sweep

    async def clusters_page(self, subscription: str | None, *, top: int, after: str | None) -> Page[Record]:
        self.asked.append((subscription, top, after))
        return Page(self._clusters, self._continuation)

    async def activity_page(self, subject: Any, **asked: Any) -> Page[Row]:
        self.asked.append((str(subject), *asked.values()))
        return Page(self._lines, self._continuation)

    async def activity_of_day(self, day: date, **asked: Any) -> Page[Row]:
        self.asked.append((str(day), *asked.values()))
        return Page(self._lines, self._continuation)

    async def run(self, run_id: str) -> tuple[Run, tuple[Shard, ...]] | None:
        return (RUN, (SHARD,)) if run_id == RUN.id else None

    async def enforcement(self) -> Enforcement:
        if isinstance(self._enforcement, Unavailable):
            raise self._enforcement
        return self._enforcement or Enforcement()


def views(shelf: Shelf) -> Views:
    return Views(cast("Ledger", shelf))


# runs


def test_a_run_that_goes_on_says_how_far_it_is() -> None:
    view = run_view(RUN, (SHARD,))

    assert view == {
        "id": "run-1",
        "askedBy": "operator",
        "startedAt": "2026-03-02T09:00:00Z",
        "mode": "audit",
        "scope": {},
        "status": "running",
        "finishedAt": None,
        "shards": {"total": 2, "done": 1},
        "clusters": 3,
        "enqueued": 1,
        "decisions": {"nothing:as-asked": 2, "write:not-as-asked": 1},
        "failures": {},
    }


def test_a_run_says_what_it_is_about() -> None:
    scope = Scope((SUBSCRIPTION,), ("rg-apps",), (CLUSTER_ID,))

    view = run_view(Run("run-1", "operator", NOW, None, shards=1, scope=scope.view()))

    assert json.loads(json.dumps(view))["scope"] == {
        "subscriptions": [SUBSCRIPTION],
        "resourceGroups": ["rg-apps"],
        "clusters": [str(CLUSTER_ID)],
    }


def test_a_run_is_done_with_its_last_shard() -> None:
    view = run_view(RUN, (SHARD, OTHER_SHARD))

    assert (view["status"], view["finishedAt"]) == ("done", "2026-03-02T09:02:00Z")
    assert (view["clusters"], view["enqueued"]) == (4, 1)
    assert view["decisions"] == {"nothing:as-asked": 3, "write:not-as-asked": 1}
    assert view["failures"] == {OTHER_SUBSCRIPTION: "Forbidden: no"}


def test_a_run_over_nothing_is_done_when_it_starts() -> None:
    view = run_view(Run("run-1", "timer", NOW, None, shards=0))

    assert (view["status"], view["finishedAt"], view["mode"]) == ("done", "2026-03-02T09:00:00Z", None)


async def test_a_run_that_nobody_started_is_none() -> None:
    assert await views(Shelf()).run("run-2", {}) is None
    assert await views(Shelf()).run("run-1", {"code": "secret"}) == run_view(RUN, (SHARD,))


@pytest.mark.parametrize("name", ["", "run-", "run-1/2", "run-1?", "run-1\n", "run-é", "run-" + "1" * 41, "x" * 10_000])
async def test_what_is_no_run_s_id_is_never_looked_for(name: str) -> None:
    class Nobody(Shelf):
        async def run(self, run_id: str) -> tuple[Run, tuple[Shard, ...]] | None:
            raise AssertionError(run_id)

    assert await views(Nobody()).run(name, {}) is None


async def test_a_run_takes_no_parameters() -> None:
    with pytest.raises(Malformed, match="unknown parameter 'top': there is none here"):
        await views(Shelf()).run("run-1", {"top": "1"})


# health and problems


def test_a_sound_policy_is_well() -> None:
    assert health_view(PolicyInForce.read(SMALLEST_POLICY), Enforcement()) == {
        "status": "ok",
        "storage": "ok",
        "policy": {"mode": "audit", "faults": []},
        "enforcement": {"paused": False, "since": None, "by": None, "failures": 0},
    }


def test_a_broken_policy_degrades_the_app_and_says_so() -> None:
    view = health_view(PolicyInForce.read("version: 1"), Enforcement())

    assert view["status"] == "degraded"
    assert view["policy"]["mode"] == "audit"
    assert [fault.partition(";")[0] for fault in view["policy"]["faults"]] == ["targets: is missing"]


STOPPED = Enforcement(
    failures=(FailedUpdate("intent-1", CLUSTER_ID, NOW),),
    paused_since=NOW,
    paused_by="stopAfterFailures",
    why="updates that failed in a row: rg-apps/aks-1",
)


def test_a_pause_degrades_the_app_and_names_no_cluster_to_whoever_asks() -> None:
    view = health_view(PolicyInForce.read(SMALLEST_POLICY), STOPPED)

    assert view["status"] == "degraded"
    assert view["enforcement"] == {
        "paused": True,
        "since": "2026-03-02T09:00:00Z",
        "by": "stopAfterFailures",
        "failures": 1,
    }
    assert "aks-1" not in json.dumps(view)


def test_storage_that_gives_no_answer_degrades_the_app() -> None:
    view = health_view(PolicyInForce.read(SMALLEST_POLICY), None)

    assert (view["status"], view["storage"], view["enforcement"]) == ("degraded", "unavailable", None)


async def test_health_gives_up_on_storage_that_fails() -> None:
    away = views(Shelf(Unavailable("TimedOut", "nobody is there")))

    view = await away.health(PolicyInForce.read(SMALLEST_POLICY))

    assert (view["status"], view["storage"]) == ("degraded", "unavailable")


async def test_the_state_of_enforcement_names_what_failed_and_why() -> None:
    view = await views(Shelf(STOPPED)).enforcement({})

    assert view == {
        "paused": True,
        "since": "2026-03-02T09:00:00Z",
        "by": "stopAfterFailures",
        "why": "updates that failed in a row: rg-apps/aks-1",
        "failures": [{"cluster": str(CLUSTER_ID), "at": "2026-03-02T09:00:00Z"}],
    }


async def test_the_state_of_enforcement_takes_no_parameters() -> None:
    with pytest.raises(Malformed, match="colour"):
        await views(Shelf(STOPPED)).enforcement({"colour": "red"})


def test_a_problem_has_the_members_that_the_standard_names() -> None:
    """Source: RFC 9457."""
    assert problem(400, "title", "detail") == {
        "type": "about:blank",
        "status": 400,
        "title": "title",
        "detail": "detail",
    }


# exemptions

EXEMPTIONS = """
exemptions:
  - {match: {names: [aks-1]}, owner: a@example.com, reason: retires, expires: 2027-03-31}
  - {match: {names: [aks-2]}, owner: b@example.com, reason: ends soon, expires: 2026-03-16T09:00:00Z}
  - {match: {tags: {env: dev}}, owner: c@example.com, reason: is over, expires: 2026-03-01}
  - {match: {}, owner: d@example.com, reason: is new, expires: 2027-03-31}
"""
EXEMPTING = policy(f"{SMALLEST_POLICY}{EXEMPTIONS}")
IN_FORCE, ENDING, ENDED, NEW = EXEMPTING.exemption_ids()[1:]


def swept(subscription: str, **counts: int) -> Shard:
    """What a sweep found in a subscription: so many clusters for each exemption, ten of them by name."""
    exempted = {
        exemption: Matched(count, tuple(ClusterId(subscription, "rg", f"{n:02d}") for n in range(min(count, 10))))
        for exemption, count in counts.items()
    }
    return replace(SHARD, subscription=subscription, exempted=exempted)


async def test_an_exemption_says_whom_to_ask_where_it_stands_and_what_it_matched() -> None:
    tag = {"tag": 1}
    shards = (
        swept(SUBSCRIPTION, **tag, **{IN_FORCE: 0, ENDING: 12, ENDED: 2}),
        swept(OTHER_SUBSCRIPTION, **{IN_FORCE: 0, ENDING: 3, ENDED: 0}),
    )

    view = await views(Shelf(sweep=(RUN, shards))).exemptions(EXEMPTING, {}, now=NOW)

    assert view["asOf"] == "2026-03-02T09:01:00Z"
    assert view["failures"] == {}
    assert view["policyFaults"] == []
    in_force, ending, ended, new = view["exemptions"]
    assert in_force == {
        "id": IN_FORCE,
        "match": {"names": ["aks-1"]},
        "owner": "a@example.com",
        "reason": "retires",
        "expires": "2027-03-31",
        "status": "in-force",
        "used": False,
        "matched": 0,
        "clusters": [],
    }
    assert (ending["status"], ending["used"], ending["matched"]) == ("ending", True, 15)
    assert ending["expires"] == "2026-03-16T09:00:00Z"
    assert ending["clusters"] == [str(ClusterId(SUBSCRIPTION, "rg", f"{n:02d}")) for n in range(10)]
    assert (ended["status"], ended["used"], ended["matched"]) == ("ended", False, 2)
    assert (new["status"], new["used"], new["matched"], new["clusters"]) == ("in-force", None, None, [])
    assert view["optOutTag"] == {
        "tag": "kms-enforcer",
        "matched": 1,
        "clusters": [str(ClusterId(SUBSCRIPTION, "rg", "00"))],
    }


async def test_before_any_sweep_nobody_knows_what_an_exemption_matches() -> None:
    view = await views(Shelf()).exemptions(EXEMPTING, {}, now=NOW)

    assert view["asOf"] is None
    assert [one["matched"] for one in view["exemptions"]] == [None] * 4
    assert view["optOutTag"] == {"tag": "kms-enforcer", "matched": None, "clusters": []}


async def test_a_sweep_that_could_not_read_everything_says_so_beside_the_exemptions() -> None:
    view = await views(Shelf(sweep=(RUN, (SHARD, OTHER_SHARD)))).exemptions(EXEMPTING, {}, now=NOW)

    assert view["failures"] == {OTHER_SUBSCRIPTION: "Forbidden: no"}


async def test_a_broken_policy_has_no_exemptions_and_says_why() -> None:
    broken = PolicyInForce.read("version: 1")

    view = await views(Shelf()).exemptions(broken, {}, now=NOW)

    assert view == {
        "asOf": None,
        "exemptions": [],
        "optOutTag": None,
        "policyFaults": list(broken.faults),
        "failures": {},
    }


async def test_the_exemptions_take_no_parameter() -> None:
    with pytest.raises(Malformed, match="unknown parameter 'top': there is none here"):
        await views(Shelf()).exemptions(EXEMPTING, {"top": "1"}, now=NOW)


# clusters

NOTHING_KNOWN: dict[str, Any] = {
    "id": str(CLUSTER_ID),
    "subscription": SUBSCRIPTION,
    "resourceGroup": "rg-apps",
    "name": "aks-1",
    "location": None,
    "kubernetes": None,
    "keyManagement": None,
    "target": None,
    "mode": None,
    "action": None,
    "reason": None,
    "reasons": [],
    "detail": None,
    "fix": None,
    "change": None,
    "decidedAt": None,
    "update": None,
    "waitingSince": None,
    "lookAgainAt": None,
    "enforcedAt": None,
    "setBackAt": [],
    "closedAt": None,
}


async def shown(of: Record) -> dict[str, Any]:
    listing = await views(Shelf(clusters=(of,))).clusters({})
    found = json.loads(json.dumps(listing))["clusters"]
    assert len(found) == 1
    return cast("dict[str, Any]", found[0])


async def test_a_cluster_of_which_nothing_is_known_has_every_field() -> None:
    assert await shown(Record(CLUSTER_ID)) == NOTHING_KNOWN


async def test_a_cluster_shows_what_it_has_what_is_asked_and_what_would_be_changed() -> None:
    decision = decide(Facts(cluster()), assignment(mode=Mode.AUDIT), NOW)
    looked = record().after_looking(cluster(), assignment(mode=Mode.AUDIT), decision, now=NOW)

    view = await shown(looked)

    assert (view["keyManagement"], view["target"], view["mode"]) == ("none", "default", "audit")
    assert (view["action"], view["reason"], view["reasons"]) == ("write", "not-as-asked", ["not-as-asked"])
    assert view["change"] == {
        "before": {"azureKeyVaultKms": None, "kubernetesResourceObjectEncryptionProfile": None},
        "after": {"azureKeyVaultKms": None} | PMK,
        "identity": None,
    }
    assert view["decidedAt"] == "2026-03-02T09:00:00Z"


async def test_a_cluster_shows_the_key_that_it_would_be_given() -> None:
    asked = assignment(asked=key_target(), mode=Mode.AUDIT)
    decision = decide(Facts(cluster(), prerequisites=prerequisites(vault=vault(purge_protection=False))), asked, NOW)

    view = await shown(record().after_looking(cluster(), asked, decision, now=NOW))

    assert view["reasons"] == ["not-as-asked", "purge-protection-off"]
    assert view["change"]["identity"] is None
    assert view["change"]["after"] == PMK | {
        "azureKeyVaultKms": {"enabled": True, "keyId": KEY_URL, "keyVaultNetworkAccess": "Public"}
    }


async def test_a_cluster_shows_the_identity_that_it_would_be_given() -> None:
    asked = assignment(asked=key_target(identity=IDENTITY_ID, allowIdentityChange=True), mode=Mode.AUDIT)
    found = cluster(identity="SystemAssigned")
    decision = decide(Facts(found, prerequisites=prerequisites()), asked, NOW)

    view = await shown(record().after_looking(found, asked, decision, now=NOW))

    assert view["reason"] == "identity-to-change"
    assert view["change"]["identity"] == IDENTITY_ID
    assert view["change"]["before"] == view["change"]["after"]


async def test_a_contested_cluster_shows_when_it_was_enforced_and_set_back() -> None:
    view = await shown(record(enforced_at=NOW, set_back=(NOW - MINUTE, NOW + MINUTE)))

    assert view["enforcedAt"] == "2026-03-02T09:00:00Z"
    assert view["setBackAt"] == ["2026-03-02T08:59:00Z", "2026-03-02T09:01:00Z"]


async def test_a_cluster_shows_the_update_that_is_under_way() -> None:
    updating = record(
        action=Action.WAIT,
        reasons=(Reason.UPDATING,),
        claim=claim(),
        waiting=waiting(reason=Reason.UPDATING, look_again_at=NOW + timedelta(seconds=90)),
    )

    view = await shown(updating)

    assert view["update"] == {
        "id": "intent-1",
        "askedBy": "event:1",
        "claimedAt": "2026-03-02T09:00:00Z",
        "acceptedAt": None,
    }
    assert (view["waitingSince"], view["lookAgainAt"]) == ("2026-03-02T09:00:00Z", "2026-03-02T09:01:30Z")


async def test_a_cluster_shows_how_to_mend_what_is_reported() -> None:
    stopped = cluster(power="Stopped")
    looked = record().after_looking(stopped, assignment(), decide(Facts(stopped), assignment(), NOW), now=NOW)

    view = await shown(looked)

    assert view["reason"] == "stopped"
    assert view["fix"]["text"].startswith("Start the cluster")
    assert view["fix"]["command"].startswith("az aks start ")


# what happened

WRITTEN = {
    "PartitionKey": "day|2026-03-02|07",
    "RowKey": "1|cluster|x|intent-1",
    "subject": f"cluster|{SUBSCRIPTION}|rg-apps|aks-1",
    "at": NOW,
    "kind": "write",
    "askedBy": "event:1",
    "before": '{"infrastructure":false}',
    "after": '{"infrastructure":true}',
    "endedAt": NOW + MINUTE,
}
FOUND = {
    "PartitionKey": "day|2026-03-02|08",
    "RowKey": "2|key|x|1",
    "subject": "key|kv-kms|etcd",
    "at": NOW,
    "kind": "found",
    "askedBy": "timer",
    "reason": "key-disabled",
}
PAUSED = {"PartitionKey": "day|x", "RowKey": "3", "subject": "enforcement", "at": NOW, "kind": "paused"}


async def test_a_line_says_when_what_about_what_and_who_asked() -> None:
    listing = await views(Shelf(lines=(WRITTEN, FOUND, PAUSED))).activity({}, now=NOW)

    assert json.loads(json.dumps(listing)) == {
        "day": "2026-03-02",
        "activity": [
            {
                "at": "2026-03-02T09:00:00Z",
                "kind": "write",
                "cluster": str(CLUSTER_ID),
                "vault": None,
                "key": None,
                "askedBy": "event:1",
                "before": {"infrastructure": False},
                "after": {"infrastructure": True},
                "endedAt": "2026-03-02T09:01:00Z",
            },
            {
                "at": "2026-03-02T09:00:00Z",
                "kind": "found",
                "cluster": None,
                "vault": "kv-kms",
                "key": "etcd",
                "askedBy": "timer",
                "reason": "key-disabled",
            },
            {
                "at": "2026-03-02T09:00:00Z",
                "kind": "paused",
                "cluster": None,
                "vault": None,
                "key": None,
                "askedBy": None,
            },
        ],
        "continuation": None,
    }


async def test_what_happened_to_one_thing_is_asked_for_by_its_name_and_is_of_all_days() -> None:
    shelf = Shelf(lines=({name: value for name, value in FOUND.items() if name != "subject"},), continuation="more")
    query = {"kind": "found", "day": "2026-03-01", "top": "7", "continuation": "from"}

    about_key = await views(shelf).activity({"key": f"{KEY_URL}/{VERSION}"}, now=NOW)
    await views(shelf).activity({"cluster": str(CLUSTER_ID).upper()} | query, now=NOW)

    assert (about_key["day"], about_key["continuation"]) == (None, "more")
    assert (about_key["activity"][0]["vault"], about_key["activity"][0]["key"]) == ("kv-kms", "etcd")
    assert shelf.asked == [
        ("kv-kms/etcd", 100, None, None, None),
        (str(CLUSTER_ID), 7, "from", "found", date(2026, 3, 1)),
    ]


async def test_without_a_day_it_is_today_and_goes_on_with_the_day_that_it_began_with() -> None:
    shelf = Shelf(continuation="3|x|y")

    first = await views(shelf).activity({}, now=NOW)
    await views(shelf).activity({"continuation": first["continuation"]}, now=NOW + timedelta(days=1))
    await views(shelf).activity({"day": "2026-03-02", "continuation": first["continuation"]}, now=NOW)

    assert shelf.asked == [
        ("2026-03-02", None, 100, ""),
        ("2026-03-02", None, 100, "3|x|y"),
        ("2026-03-02", None, 100, "3|x|y"),
    ]


OF_ANOTHER_DAY = write_token(day="2026-03-01", after="3|x|y")


@pytest.mark.parametrize(
    ("query", "hint"),
    [
        pytest.param({"colour": "red"}, "unknown parameter 'colour'", id="unknown"),
        pytest.param({"day": "today"}, "day must be a day in UTC", id="day"),
        pytest.param({"kind": "No Kind"}, "kind must be a word", id="kind"),
        pytest.param({"cluster": "aks-1"}, "not the resource id of a managed cluster", id="cluster"),
        pytest.param({"key": "etcd"}, "not a key of a vault", id="key"),
        pytest.param({"key": KEY_URL, "cluster": str(CLUSTER_ID)}, "not for both", id="both"),
        pytest.param({"top": "0"}, "top must be", id="top"),
        pytest.param({"continuation": "!"}, "not a continuation token", id="token"),
        pytest.param({"continuation": write_token(after="x")}, "not a continuation token", id="another-s-token"),
        pytest.param({"continuation": write_token(day="x", after="x")}, "day must be a day", id="a-token-of-no-day"),
        pytest.param({"day": "2026-03-02", "continuation": OF_ANOTHER_DAY}, "goes on with the day", id="other-day"),
        pytest.param({"cluster": "x" * 10_000}, "cluster has more than", id="long"),
    ],
)
async def test_what_happened_is_asked_for_strictly(query: dict[str, str], hint: str) -> None:
    with pytest.raises(Malformed, match=hint):
        await views(Shelf()).activity(query, now=NOW)


# questions


async def test_a_listing_says_where_it_goes_on() -> None:
    shelf = Shelf(continuation="more")

    listing = await views(shelf).clusters({"subscription": SUBSCRIPTION.upper(), "top": "7", "continuation": "from"})

    assert listing["continuation"] == "more"
    assert shelf.asked == [(SUBSCRIPTION, 7, "from")]


async def test_a_listing_without_a_question_is_the_first_page_of_everything() -> None:
    shelf = Shelf()

    await views(shelf).clusters({"code": "the-key-of-the-function"})

    assert shelf.asked == [(None, 100, None)]


@pytest.mark.parametrize(
    ("query", "hint"),
    [
        pytest.param({"top": "0"}, "top must be", id="just-below"),
        pytest.param({"top": "1001"}, "top must be", id="just-above"),
        pytest.param({"top": "-1"}, "top must be", id="negative"),
        pytest.param({"top": "ten"}, "top must be", id="text"),
        pytest.param({"top": ""}, "top must be", id="empty"),
        pytest.param({"top": "9" * 5000}, "top has more than 2000", id="more-digits-than-python-reads"),
        pytest.param({"limit": "7"}, "unknown parameter 'limit'", id="unknown"),
    ],
)
async def test_a_question_that_can_not_be_read_says_what_to_change(query: dict[str, str], hint: str) -> None:
    with pytest.raises(Malformed, match=hint):
        await views(Shelf()).clusters(query)
    with pytest.raises(Malformed, match=hint):
        await views(Shelf()).activity(query, now=NOW)


async def test_a_listing_takes_only_its_own_parameters() -> None:
    with pytest.raises(Malformed, match="not a subscription id"):
        await views(Shelf()).clusters({"subscription": "production"})
    with pytest.raises(Malformed, match="unknown parameter 'key'"):
        await views(Shelf()).clusters({"key": KEY_URL})


@pytest.mark.parametrize("top", [1, 1000])
async def test_the_smallest_and_the_largest_page_are_allowed(top: int) -> None:
    shelf = Shelf()

    await views(shelf).clusters({"top": str(top)})

    assert shelf.asked == [(None, top, None)]


async def test_each_path_of_a_change_stands_by_itself() -> None:
    after = replace(change().after, kms_enabled=True, key_url=KEY_URL, network_access="Public")
    moved = record(change=replace(change(), after=after, identity="id-1", identity_before=IdentityKind.SYSTEM_ASSIGNED))

    assert paths(moved) == [
        {"path": "identity", "before": "system-assigned", "after": "id-1"},
        {"path": "properties.securityProfile.azureKeyVaultKms.enabled", "before": None, "after": True},
        {"path": "properties.securityProfile.azureKeyVaultKms.keyId", "before": None, "after": KEY_URL},
        {
            "path": "properties.securityProfile.azureKeyVaultKms.keyVaultNetworkAccess",
            "before": None,
            "after": "Public",
        },
        {
            "path": "properties.securityProfile.kubernetesResourceObjectEncryptionProfile.infrastructureEncryption",
            "before": None,
            "after": "Enabled",
        },
    ]
    assert paths(record(change=None)) == []
