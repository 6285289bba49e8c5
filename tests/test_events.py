"""What comes in: recorded payloads of both schemas with their quirks, hostile ones, and our own messages."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.clusters import ClusterId
from shared.errors import Malformed
from shared.events import (
    MOST_NAMES,
    ClusterRequest,
    Event,
    KeyRequest,
    PauseOrder,
    RunOrder,
    Scope,
    ShardRequest,
    VaultRequest,
    cluster_request,
    key_message,
    key_request,
)
from shared.policy import Mode
from shared.reasons import Reason
from tests.builders import (
    CLUSTER_ID,
    KEY,
    KEY_URL,
    NOW,
    OTHER_SUBSCRIPTION,
    PROPERTY,
    SUBSCRIPTION,
    VAULT_ID,
    VERSION,
    event_text,
)

WRITTEN_AT = datetime(2026, 3, 2, 8, 59, 30, 611735, tzinfo=UTC)
SCHEMAS = ["eventgrid", "cloudevents"]
TOO_DEEP = '{"data":' + "[" * 100_000


# events of a subscription


@pytest.mark.parametrize("schema", SCHEMAS)
def test_a_written_cluster_is_looked_at(schema: str) -> None:
    event = Event.read(event_text(f"cluster-written.{schema}"))

    request = cluster_request(event)

    assert request == ClusterRequest(
        CLUSTER_ID, asked_by="event:4db48cba-50a2-455a-93b4-de41a3b5b7f6", since=WRITTEN_AT
    )


@pytest.mark.parametrize("schema", SCHEMAS)
def test_a_deleted_cluster_is_looked_at_and_not_expected_to_appear(schema: str) -> None:
    """Only a write says that a cluster which nobody knows may still come: waiting for a deleted one is in vain."""
    event = Event.read(event_text(f"cluster-deleted.{schema}"))

    request = cluster_request(event)

    assert request is not None
    assert request.cluster == CLUSTER_ID
    assert request.since is None


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        pytest.param("pool-written.eventgrid", {}, id="a-pool-was-written"),
        pytest.param(
            "cluster-written.eventgrid", {"eventType": "Microsoft.Resources.ResourceWriteFailure"}, id="a-write-failed"
        ),
        pytest.param(
            "cluster-written.eventgrid", {"eventType": "Microsoft.Resources.ResourceActionSuccess"}, id="an-action"
        ),
        pytest.param("cluster-written.eventgrid", {"eventType": ""}, id="no-type"),
        pytest.param("cluster-written.eventgrid", {"eventType": 7}, id="a-type-that-is-no-text"),
        pytest.param(
            "cluster-written.eventgrid",
            {"data": {"operationName": "Microsoft.Storage/storageAccounts/write"}},
            id="something-else-was-written",
        ),
        pytest.param("cluster-written.eventgrid", {"data": {"operationName": None}}, id="no-operation"),
        pytest.param("key-rotated.eventgrid", {}, id="an-event-of-a-vault"),
    ],
)
def test_an_event_that_is_not_served_asks_for_nothing(name: str, changed: dict[str, Any]) -> None:
    event = Event.read(event_text(name, **changed))

    assert cluster_request(event) is None


def test_types_and_operations_are_compared_without_case() -> None:
    text = event_text(
        "cluster-written.eventgrid",
        eventType="MICROSOFT.RESOURCES.RESOURCEWRITESUCCESS",
        data={"operationName": "MICROSOFT.CONTAINERSERVICE/MANAGEDCLUSTERS/WRITE"},
    )

    assert cluster_request(Event.read(text)) is not None


@pytest.mark.parametrize(
    "subject",
    [
        pytest.param("", id="empty"),
        pytest.param(None, id="null"),
        pytest.param(["/subscriptions"], id="a-list"),
        pytest.param(f"/subscriptions/{SUBSCRIPTION}", id="the-subscription"),
        pytest.param(f"{CLUSTER_ID}/agentPools/pool", id="a-pool"),
        pytest.param(f"{CLUSTER_ID}".replace("rg-apps", "rg|apps"), id="a-bar"),
    ],
)
def test_an_event_that_names_no_cluster_is_malformed(subject: Any) -> None:
    event = Event.read(event_text("cluster-written.eventgrid", subject=subject))

    with pytest.raises(Malformed):
        cluster_request(event)


def test_blanks_around_a_subject_do_not_count() -> None:
    event = Event.read(event_text("cluster-written.eventgrid", subject=f" {CLUSTER_ID} "))

    assert cluster_request(event) is not None


@pytest.mark.parametrize("schema", SCHEMAS)
def test_no_claim_of_whoever_wrote_goes_on(schema: str) -> None:
    request = cluster_request(Event.read(event_text(f"cluster-written.{schema}")))

    assert request is not None
    sent = request.encode().lower()
    assert "claims" not in sent
    assert "nobody" not in sent
    assert "192.0.2.1" not in sent


# events of a vault


@pytest.mark.parametrize("schema", SCHEMAS)
def test_a_rotated_key_is_looked_at(schema: str) -> None:
    """The Event Grid sample has stray blanks in its names and values; what counts is the URL."""
    event = Event.read(event_text(f"key-rotated.{schema}"))

    request = key_request(event)

    assert request == KeyRequest(
        KEY, asked_by="event:00eccf70-95a7-4e7c-8299-2eb17ee9ad64", vault=VAULT_ID, version=VERSION
    )


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        pytest.param("secret-rotated.eventgrid", {}, id="a-secret"),
        pytest.param("key-rotated.eventgrid", {"data": {"ObjectType": "Secret"}}, id="a-secret-by-its-type"),
        pytest.param("cluster-written.eventgrid", {}, id="an-event-of-a-subscription"),
    ],
)
def test_another_event_of_a_vault_asks_for_nothing(name: str, changed: dict[str, Any]) -> None:
    assert key_request(Event.read(event_text(name, **changed))) is None


def test_a_vault_that_says_that_a_key_nears_its_expiry_asks_for_a_look_at_it_and_says_why() -> None:
    request = key_request(Event.read(event_text("key-near-expiry.eventgrid")))

    assert isinstance(request, KeyRequest)
    assert (request.key, request.version, request.cause) == (KEY, VERSION, Reason.KEY_NEAR_EXPIRY)
    assert KeyRequest.decode(request.encode()) == request


def test_a_vault_whose_access_policies_changed_asks_for_a_look_at_all_its_keys() -> None:
    changed = {"eventType": "Microsoft.KeyVault.VaultAccessPolicyChanged", "subject": "kv-kms", "data": {}}

    request = key_request(Event.read(event_text("key-rotated.eventgrid", **changed)))

    assert request == VaultRequest(VAULT_ID, "event:00eccf70-95a7-4e7c-8299-2eb17ee9ad64", Reason.ACCESS_POLICY_CHANGED)
    assert key_message(request.encode()) == request


@pytest.mark.parametrize("cause", ["no-reason", 7, {}])
def test_a_message_whose_cause_is_no_reason_is_malformed(cause: Any) -> None:
    body = {"vaultId": str(VAULT_ID), "askedBy": "event:1", "cause": cause}

    with pytest.raises(Malformed):
        key_message(json.dumps(body))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        pytest.param("data", {"Id": f"https://other.vault.azure.net/keys/etcd/{VERSION}"}, id="another-vault"),
        pytest.param("data", {"Id": f"https://evil.example/keys/etcd/{VERSION}"}, id="another-host"),
        pytest.param("data", {"Id": f"http://kv-kms.vault.azure.net/keys/etcd/{VERSION}"}, id="no-tls"),
        pytest.param("data", {"Id": KEY_URL}, id="no-version"),
        pytest.param("data", {"Id": None}, id="no-url"),
        pytest.param("data", {"Id": ["x"]}, id="a-list"),
        pytest.param("topic", f"/subscriptions/{SUBSCRIPTION}", id="no-vault"),
        pytest.param("topic", None, id="no-topic"),
        pytest.param("topic", str(VAULT_ID).replace("kv-kms", "other"), id="the-topic-of-another-vault"),
    ],
)
def test_an_event_of_a_vault_that_does_not_add_up_is_malformed(field: str, value: Any) -> None:
    event = Event.read(event_text("key-rotated.eventgrid", **{field: value}))

    with pytest.raises(Malformed):
        key_request(event)


def test_the_url_counts_and_not_the_other_fields() -> None:
    text = event_text("key-rotated.eventgrid", subject="other", data={"ObjectName ": "other", "Version": "other"})

    request = key_request(Event.read(text))

    assert isinstance(request, KeyRequest)
    assert (request.key, request.version) == (KEY, VERSION)


# the envelope


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("null", id="null"),
        pytest.param("[]", id="a-list"),
        pytest.param('"text"', id="text"),
        pytest.param("{", id="cut-off"),
        pytest.param("1" * 5000, id="more-digits-than-python-reads"),
        pytest.param(TOO_DEEP, id="too-deep"),
    ],
)
def test_what_is_no_object_is_malformed(text: str) -> None:
    with pytest.raises(Malformed):
        Event.read(text)


@pytest.mark.parametrize("text", ["{}", '{"specversion": "1.0"}', '{"data": [], "id": null, "subject": 1}'])
def test_what_is_missing_is_empty(text: str) -> None:
    event = Event.read(text)

    assert event == Event(id="", type="", source="", subject="", time=None, data={})


@pytest.mark.parametrize(
    ("identifier", "expected"),
    [
        pytest.param("4db48cba-50a2", "4db48cba-50a2", id="as-azure-writes-it"),
        pytest.param("a/b\\c#d?e", "abcde", id="what-no-row-key-bears"),
        pytest.param("a\nb\tc|d e", "abcde", id="what-no-log-line-bears"),
        pytest.param("x" * 500, "x" * 100, id="cut-short"),
        pytest.param("é\u2028\ud800", "", id="beyond-ascii"),
        pytest.param(None, "", id="absent"),
        pytest.param(17, "17", id="a-number"),
    ],
)
def test_an_id_is_safe_to_store_and_to_log(identifier: Any, expected: str) -> None:
    event = Event.read(event_text("cluster-written.eventgrid", id=identifier))

    assert event.id == expected


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        pytest.param("2026-03-02T08:59:30.6117357Z", WRITTEN_AT, id="seven-digits"),
        pytest.param("2026-03-02T08:59:30Z", WRITTEN_AT.replace(microsecond=0), id="no-fraction"),
        pytest.param("2026-03-02T08:59:30", WRITTEN_AT.replace(microsecond=0), id="no-zone-means-utc"),
        pytest.param(
            "2026-03-02T10:59:30+02:00",
            datetime(2026, 3, 2, 10, 59, 30, tzinfo=timezone(timedelta(hours=2))),
            id="another-zone",
        ),
        pytest.param("yesterday", None, id="text"),
        pytest.param(1772441970, None, id="a-number"),
        pytest.param(None, None, id="absent"),
        pytest.param({}, None, id="an-object"),
    ],
)
def test_a_time_that_can_not_be_read_is_none(time: Any, expected: datetime | None) -> None:
    assert Event.read(event_text("cluster-written.eventgrid", eventTime=time)).time == expected


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
FIELDS = ["id", "eventType", "type", "topic", "source", "subject", "eventTime", "time", "specversion", "data"]
TYPES = ["Microsoft.Resources.ResourceWriteSuccess", "Microsoft.KeyVault.KeyNewVersionCreated"]


@PROPERTY
@given(
    st.dictionaries(st.sampled_from(FIELDS), JSON),
    st.sampled_from(TYPES),
    st.dictionaries(st.sampled_from(["operationName", "ObjectType", "Id", " id "]), JSON | st.just("Key")),
)
def test_no_event_raises_anything_but_malformed(envelope: dict[str, Any], kind: str, data: dict[str, Any]) -> None:
    event = Event.read(json.dumps(envelope | {"eventType": kind, "type": kind, "data": data}))

    for ask in (cluster_request, key_request):
        with suppress(Malformed):
            ask(event)


@PROPERTY
@given(st.text() | st.binary())
def test_no_text_raises_anything_but_malformed(text: str | bytes) -> None:
    readers: list[Any] = [
        ShardRequest.decode,
        KeyRequest.decode,
        lambda one: ClusterRequest.decode(one, "message-1"),
        lambda one: RunOrder.decode(one if isinstance(one, bytes) else one.encode(errors="replace")),
        lambda one: PauseOrder.decode(one if isinstance(one, bytes) else one.encode(errors="replace")),
    ]
    for read in readers:
        with suppress(Malformed):
            read(text)


# our own messages


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param(ClusterRequest(CLUSTER_ID, "timer"), id="smallest"),
        pytest.param(ClusterRequest(CLUSTER_ID, "event:1", "token-1", NOW, Mode.AUDIT), id="everything"),
    ],
)
def test_a_cluster_request_survives_the_queue(request_: ClusterRequest) -> None:
    decoded = ClusterRequest.decode(request_.encode(), "")

    assert decoded == request_


def test_a_cluster_request_has_the_id_that_the_queue_gave_it() -> None:
    sent = ClusterRequest(CLUSTER_ID, "timer", id="message-0").encode()

    assert ClusterRequest.decode(sent.encode(), "message-1").id == "message-1"


def test_the_next_look_of_a_wait_carries_its_token_and_not_the_mode_of_a_run() -> None:
    request = ClusterRequest(CLUSTER_ID, "operator", "token-1", NOW, Mode.AUDIT, "message-1")

    again = request.again("token-2")

    assert again == ClusterRequest(CLUSTER_ID, "operator", "token-2", NOW, None, "")


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param(KeyRequest(KEY, "timer"), id="smallest"),
        pytest.param(KeyRequest(KEY, "event:1", VAULT_ID, VERSION), id="everything"),
    ],
)
def test_a_key_request_survives_the_queue(request_: KeyRequest) -> None:
    assert KeyRequest.decode(request_.encode()) == request_


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param(ShardRequest("run-1", SUBSCRIPTION, "timer"), id="smallest"),
        pytest.param(ShardRequest("run-1", SUBSCRIPTION, "operator", Mode.ENFORCE), id="a-mode"),
        pytest.param(
            ShardRequest(
                "run-1", SUBSCRIPTION, "operator", Mode.AUDIT, Scope((SUBSCRIPTION,), ("rg-apps",), (CLUSTER_ID,))
            ),
            id="everything",
        ),
    ],
)
def test_a_shard_request_survives_the_queue(request_: ShardRequest) -> None:
    assert ShardRequest.decode(request_.encode()) == request_


def test_a_shard_request_that_was_sent_before_there_were_scopes_is_about_everything() -> None:
    assert ShardRequest.decode(json.dumps(SHARD_MESSAGE)) == ShardRequest("run-1", SUBSCRIPTION, "timer")


SHARD_MESSAGE = {"run": "run-1", "subscription": SUBSCRIPTION, "askedBy": "timer"}
CLUSTER_MESSAGE = {"cluster": str(CLUSTER_ID), "askedBy": "timer"}


@pytest.mark.parametrize(
    "body",
    [
        pytest.param({}, id="empty"),
        pytest.param({"askedBy": "timer"}, id="no-cluster"),
        pytest.param({"cluster": str(CLUSTER_ID)}, id="nobody-asked"),
        pytest.param(CLUSTER_MESSAGE | {"cluster": "aks-1"}, id="a-name-for-an-id"),
        pytest.param(CLUSTER_MESSAGE | {"cluster": 1}, id="a-number"),
        pytest.param(CLUSTER_MESSAGE | {"token": 1}, id="a-token-that-is-no-text"),
        pytest.param(CLUSTER_MESSAGE | {"since": "yesterday"}, id="a-time-that-is-none"),
        pytest.param(CLUSTER_MESSAGE | {"since": 1}, id="a-time-that-is-no-text"),
        pytest.param(CLUSTER_MESSAGE | {"mode": "force"}, id="a-mode-that-is-none"),
        pytest.param(CLUSTER_MESSAGE | {"mode": 1}, id="a-mode-that-is-no-text"),
    ],
)
def test_a_cluster_message_that_is_none_of_ours_is_malformed(body: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        ClusterRequest.decode(json.dumps(body), "message-1")


@pytest.mark.parametrize(
    "body",
    [
        pytest.param({"askedBy": "timer"}, id="no-key"),
        pytest.param({"key": KEY_URL}, id="nobody-asked"),
        pytest.param({"key": "https://evil.example/keys/etcd", "askedBy": "timer"}, id="another-host"),
        pytest.param({"key": KEY_URL, "askedBy": "timer", "vaultId": "kv-kms"}, id="a-name-for-an-id"),
    ],
)
def test_a_key_message_that_is_none_of_ours_is_malformed(body: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        KeyRequest.decode(json.dumps(body))


@pytest.mark.parametrize(
    "body",
    [
        pytest.param({"subscription": SUBSCRIPTION, "askedBy": "timer"}, id="no-run"),
        pytest.param({"run": "run-1", "subscription": "production", "askedBy": "timer"}, id="a-name-for-an-id"),
        pytest.param({"run": "run-1", "subscription": SUBSCRIPTION}, id="nobody-asked"),
        pytest.param(SHARD_MESSAGE | {"mode": "force"}, id="a-mode-that-is-none"),
        pytest.param(SHARD_MESSAGE | {"scope": []}, id="a-scope-that-is-no-object"),
        pytest.param(SHARD_MESSAGE | {"scope": {"clusters": ["aks-1"]}}, id="a-scope-by-names"),
    ],
)
def test_a_shard_message_that_is_none_of_ours_is_malformed(body: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        ShardRequest.decode(json.dumps(body))


# a scope

OTHER = ClusterId(OTHER_SUBSCRIPTION, "rg-other", "aks-2")


@pytest.mark.parametrize(
    ("scope", "held"),
    [
        pytest.param(Scope(), True, id="everything"),
        pytest.param(Scope(subscriptions=(SUBSCRIPTION,)), True, id="its-subscription"),
        pytest.param(Scope(subscriptions=(OTHER_SUBSCRIPTION,)), False, id="another-subscription"),
        pytest.param(Scope(subscriptions=(OTHER_SUBSCRIPTION, SUBSCRIPTION)), True, id="one-of-two-subscriptions"),
        pytest.param(Scope(groups=("rg-apps",)), True, id="its-group"),
        pytest.param(Scope(groups=("rg-app",)), False, id="a-part-of-its-groups-name"),
        pytest.param(Scope(groups=("rg-other", "rg-apps")), True, id="one-of-two-groups"),
        pytest.param(Scope(clusters=(CLUSTER_ID,)), True, id="itself"),
        pytest.param(Scope(clusters=(OTHER,)), False, id="another-cluster"),
        pytest.param(Scope(clusters=(OTHER, CLUSTER_ID)), True, id="one-of-two-clusters"),
        pytest.param(Scope((SUBSCRIPTION,), ("rg-apps",), (CLUSTER_ID,)), True, id="all-three"),
        pytest.param(Scope((SUBSCRIPTION,), ("rg-other",)), False, id="every-part-must-hold"),
        pytest.param(Scope((OTHER_SUBSCRIPTION,), (), (CLUSTER_ID,)), False, id="itself-in-another-subscription"),
    ],
)
def test_a_scope_holds_what_every_part_of_it_means(scope: Scope, held: bool) -> None:
    assert scope.holds(CLUSTER_ID) is held


@pytest.mark.parametrize(
    ("scope", "touched"),
    [
        pytest.param(Scope(), True, id="everything"),
        pytest.param(Scope(subscriptions=(SUBSCRIPTION,)), True, id="by-its-id"),
        pytest.param(Scope(subscriptions=(OTHER_SUBSCRIPTION,)), False, id="another"),
        pytest.param(Scope(groups=("rg-apps",)), True, id="a-group-may-be-in-any"),
        pytest.param(Scope(clusters=(CLUSTER_ID,)), True, id="by-a-cluster"),
        pytest.param(Scope(clusters=(OTHER,)), False, id="by-a-cluster-of-another"),
        pytest.param(Scope(clusters=(OTHER, CLUSTER_ID)), True, id="by-one-of-two-clusters"),
        pytest.param(Scope((SUBSCRIPTION,), (), (OTHER,)), False, id="by-its-id-and-a-cluster-of-another"),
    ],
)
def test_a_scope_touches_the_subscriptions_that_can_hold_what_it_means(scope: Scope, touched: bool) -> None:
    assert scope.touches(SUBSCRIPTION) is touched


IDS = st.builds(
    ClusterId, st.sampled_from([SUBSCRIPTION, OTHER_SUBSCRIPTION]), st.sampled_from(["a", "b"]), st.just("c")
)
SCOPES = st.builds(
    Scope,
    st.lists(st.sampled_from([SUBSCRIPTION, OTHER_SUBSCRIPTION]), unique=True).map(tuple),
    st.lists(st.sampled_from(["a", "b"]), unique=True).map(tuple),
    st.lists(IDS, unique=True).map(tuple),
)


@PROPERTY
@given(SCOPES, IDS)
def test_no_cluster_that_is_meant_lies_in_a_subscription_that_is_not_swept(scope: Scope, cluster: ClusterId) -> None:
    if scope.holds(cluster):
        assert scope.touches(cluster.subscription)


@PROPERTY
@given(SCOPES)
def test_a_scope_reads_its_own_json(scope: Scope) -> None:
    said = json.loads(json.dumps(scope.view()))

    assert Scope.read(said) == scope


def test_a_scope_shows_only_what_it_narrows() -> None:
    assert Scope().view() == {}
    assert Scope((SUBSCRIPTION,), ("rg-apps",), (CLUSTER_ID,)).view() == {
        "subscriptions": [SUBSCRIPTION],
        "resourceGroups": ["rg-apps"],
        "clusters": [str(CLUSTER_ID)],
    }


def test_a_scope_names_subscriptions_by_themselves_and_by_clusters() -> None:
    assert Scope((SUBSCRIPTION,), (), (OTHER,)).named_subscriptions == {SUBSCRIPTION, OTHER_SUBSCRIPTION}
    assert Scope(groups=("rg-apps",)).named_subscriptions == frozenset()


def test_what_a_scope_names_twice_or_in_another_casing_is_one() -> None:
    twice = Scope.read(
        {
            "subscriptions": [SUBSCRIPTION, SUBSCRIPTION.upper()],
            "resourceGroups": ["RG-Apps", "rg-apps"],
            "clusters": [str(CLUSTER_ID), str(CLUSTER_ID).upper()],
        }
    )

    assert twice == Scope((SUBSCRIPTION,), ("rg-apps",), (CLUSTER_ID,))


@pytest.mark.parametrize(("count", "sound"), [(MOST_NAMES, True), (MOST_NAMES + 1, False)])
def test_a_scope_names_no_more_clusters_than_a_message_holds(count: int, sound: bool) -> None:
    longest = [str(ClusterId(SUBSCRIPTION, "g" * 90, f"{number:03d}".ljust(63, "a"))) for number in range(count)]

    if sound:
        scope = Scope.read({"clusters": longest})
        assert len(ShardRequest("r" * 36, SUBSCRIPTION, "operator", Mode.AUDIT, scope).encode()) < 48 * 1024
    else:
        with pytest.raises(Malformed, match="100 at most"):
            Scope.read({"clusters": longest})


# an operator's order


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(b"", RunOrder(), id="nothing"),
        pytest.param(b" \n", RunOrder(), id="blanks"),
        pytest.param(b"{}", RunOrder(), id="empty"),
        pytest.param(b'{"subscriptions": []}', RunOrder(), id="no-subscription-means-all"),
        pytest.param(b'{"mode": "audit"}', RunOrder(mode=Mode.AUDIT), id="a-mode"),
        pytest.param(b'{"mode": null}', RunOrder(), id="no-mode"),
        pytest.param(
            json.dumps({"subscriptions": [SUBSCRIPTION, OTHER_SUBSCRIPTION.upper()]}).encode(),
            RunOrder(Scope((SUBSCRIPTION, OTHER_SUBSCRIPTION))),
            id="subscriptions",
        ),
        pytest.param(b'{"resourceGroups": ["RG-Apps"]}', RunOrder(Scope(groups=("rg-apps",))), id="groups"),
        pytest.param(
            json.dumps({"clusters": [str(CLUSTER_ID).upper()], "mode": "enforce"}).encode(),
            RunOrder(Scope(clusters=(CLUSTER_ID,)), Mode.ENFORCE),
            id="clusters-and-a-mode",
        ),
    ],
)
def test_an_order_is_read(body: bytes, expected: RunOrder) -> None:
    assert RunOrder.decode(body) == expected


@pytest.mark.parametrize(
    ("body", "hint"),
    [
        pytest.param(b"{", "not JSON", id="cut-off"),
        pytest.param(b"\xff", "not JSON", id="not-utf-8"),
        pytest.param(b"[]", "not a JSON object", id="a-list"),
        pytest.param(TOO_DEEP.encode(), "not JSON", id="too-deep"),
        pytest.param(b'{"modes": "audit"}', "unknown field 'modes'", id="unknown-field"),
        pytest.param(b'{"mode": "force"}', "audit, enforce", id="another-mode"),
        pytest.param(b'{"mode": ""}', "audit, enforce", id="an-empty-mode-lowers-nothing"),
        pytest.param(b'{"mode": true}', "mode is not text", id="a-mode-that-is-no-text"),
        pytest.param(b'{"subscriptions": "all"}', "must be a list", id="text-for-a-list"),
        pytest.param(b'{"subscriptions": null}', "must be a list", id="null-for-a-list"),
        pytest.param(b'{"subscriptions": [1]}', "must be a list", id="a-number"),
        pytest.param(b'{"subscriptions": ["production"]}', "not a subscription id", id="a-name-for-an-id"),
        pytest.param(b'{"resourceGroups": "rg"}', "resourceGroups must be a list", id="text-for-a-list-of-groups"),
        pytest.param(b'{"resourceGroups": [null]}', "resourceGroups must be a list", id="a-group-that-is-null"),
        pytest.param(b'{"clusters": {}}', "clusters must be a list", id="an-object-for-a-list"),
        pytest.param(b'{"clusters": ["aks-1"]}', "not the resource id", id="a-name-for-a-clusters-id"),
        pytest.param(b'{"scope": {}}', "a run takes subscriptions, resourceGroups, clusters, mode", id="a-scope"),
    ],
)
def test_an_order_that_can_not_be_read_says_what_to_change(body: bytes, hint: str) -> None:
    with pytest.raises(Malformed, match=hint):
        RunOrder.decode(body)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        pytest.param(b"", None, id="nothing"),
        pytest.param(b"{}", None, id="empty"),
        pytest.param(b'{"reason": null}', None, id="no-reason"),
        pytest.param(b'{"reason": "  "}', None, id="blanks"),
        pytest.param(b'{"reason": " a freeze of all changes "}', "a freeze of all changes", id="a-reason"),
        pytest.param('{"reason": "Umstellung, größer"}'.encode(), "Umstellung, größer", id="of-another-alphabet"),
        pytest.param(json.dumps({"reason": "x" * 500}).encode(), "x" * 500, id="as-long-as-it-may-be"),
    ],
)
def test_a_pause_is_read(body: bytes, reason: str | None) -> None:
    assert PauseOrder.decode(body) == PauseOrder(reason)


@pytest.mark.parametrize(
    ("body", "hint"),
    [
        pytest.param(b"{", "not JSON", id="no-json"),
        pytest.param(b"[]", "not a JSON object", id="a-list"),
        pytest.param(b'{"why": "x"}', "unknown field 'why': a pause takes reason", id="unknown-field"),
        pytest.param(b'{"reason": 1}', "reason is not text", id="a-number"),
        pytest.param(json.dumps({"reason": "x" * 501}).encode(), "500 printable characters", id="too-long"),
        pytest.param(b'{"reason": "x\\nlevel=error"}', "one line", id="a-line-break"),
        pytest.param(b'{"reason": "\\ud800"}', "printable", id="half-a-character"),
        pytest.param(b'{"reason": "\\u202e"}', "printable", id="what-turns-the-line-around"),
    ],
)
def test_a_pause_that_can_not_be_read_says_what_to_change(body: bytes, hint: str) -> None:
    with pytest.raises(Malformed, match=hint):
        PauseOrder.decode(body)
