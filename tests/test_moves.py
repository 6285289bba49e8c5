"""Moves between the kinds of key management: what is sent, and what is never proposed whatever there may be.

What a document means is told here from its raw fields, not with the product's own reading of them.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from azure.mgmt.containerservice.models import ManagedCluster
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.clusters import Cluster, asking_for
from shared.decisions import Change, Decision, Facts, decide
from shared.keys import Access, Grant, VaultId, VaultNetwork
from shared.policy import Target
from shared.prerequisites import Prerequisites
from shared.reasons import Action, Reason
from tests.builders import (
    CMK,
    ETAG,
    IDENTITY_ID,
    KEY_URL,
    LEGACY,
    LEGACY_URL,
    NOW,
    OTHER_ETAG,
    OTHER_IDENTITY_ID,
    PMK,
    PRIVATE_CMK,
    PROPERTY,
    SMALLEST_POLICY,
    SUBSCRIPTION,
    VAULT_ID,
    VERSION,
    assignment,
    document,
    key,
    key_target,
    policy,
    prerequisites,
    target,
    vault,
)

Document = dict[str, Any]

PROFILE, KMS = "kubernetesResourceObjectEncryptionProfile", "azureKeyVaultKms"


# what a document means, told from its raw fields


def kms_of(read: Document) -> Mapping[str, Any]:
    """The KMS object where it is enabled, else nothing."""
    kms = read["properties"]["securityProfile"].get(KMS) or {}
    return kms if kms.get("enabled") is True else {}


def has_profile(read: Document) -> bool:
    profile = read["properties"]["securityProfile"].get(PROFILE) or {}
    return str(profile.get("infrastructureEncryption")).lower() == "enabled"


def kind_of(read: Document) -> str:
    """Source: docstring of AzureKeyVaultKms.key_id, API 2026-07-01: a versioned id means legacy."""
    kms = kms_of(read)
    if not kms:
        return "platform-managed" if has_profile(read) else "none"
    _, _, host, *names = str(kms.get("keyId")).split("/")
    if not host.lower().endswith(".vault.azure.net"):
        return "ambiguous"
    kinds = {(3, False): "legacy", (2, True): "customer-managed"}  # keys, its name, its version
    return kinds.get((len(names), has_profile(read)), "ambiguous")


def way_of(read: Document) -> tuple[str, str, str]:
    """The vault's host, the key's name and the network access of an enabled key, without case."""
    kms = kms_of(read)
    _, _, host, _, name, *_ = str(kms["keyId"]).lower().split("/")
    return host, name, str(kms.get("keyVaultNetworkAccess") or "Public").lower()


# what is sent for each move that is allowed

PUBLIC = {"enabled": True, "keyId": KEY_URL, "keyVaultNetworkAccess": "Public"}
PRIVATE = {
    "enabled": True,
    "keyId": KEY_URL,
    "keyVaultNetworkAccess": "Private",
    "keyVaultResourceId": str(VAULT_ID),
}
PRIVATE_LEGACY = {KMS: LEGACY[KMS] | {"keyVaultNetworkAccess": "Private"}}
LEGACY_ELSEWHERE = {
    KMS: {
        "enabled": True,
        "keyId": f"https://kv-other.vault.azure.net/keys/another/{VERSION}",
        "keyVaultNetworkAccess": "Public",
    }
}
TRUSTED = vault(network=VaultNetwork.TRUSTED)
MIGRATE = {"migrate": True}


def platform_target(**said: Any) -> Target:
    return Target.model_validate({"keyManagement": "platform-managed"} | said)


def sent(read: Document, decision: Decision) -> Document:
    """The body of the PUT: the writable projection of what was read, with the change."""
    assert isinstance(decision.change, Change), decision
    writable = ManagedCluster(copy.deepcopy(read)).as_dict(exclude_readonly=True)
    asked = asking_for(writable, decision.change.after, decision.change.identity)
    body: Document = ManagedCluster(asked).as_dict(exclude_readonly=True)
    return body


@pytest.mark.parametrize(
    ("security", "asked", "found", "expected"),
    [
        pytest.param({}, target(), None, PMK, id="none-to-platform-managed"),
        pytest.param({}, key_target(), prerequisites(), PMK | {KMS: PUBLIC}, id="none-to-customer-managed-public"),
        pytest.param(
            {}, key_target(), prerequisites(vault=TRUSTED), PMK | {KMS: PRIVATE}, id="none-to-customer-managed-private"
        ),
        pytest.param(
            PMK, key_target(**MIGRATE), prerequisites(), PMK | {KMS: PUBLIC}, id="platform-managed-to-customer-managed"
        ),
        pytest.param(
            PMK,
            key_target(**MIGRATE),
            prerequisites(vault=TRUSTED),
            PMK | {KMS: PRIVATE},
            id="platform-managed-to-customer-managed-private",
        ),
        pytest.param(
            CMK,
            platform_target(**MIGRATE),
            None,
            PMK | {KMS: {"enabled": False}},
            id="customer-managed-to-platform-managed",
        ),
        pytest.param(
            PRIVATE_CMK,
            platform_target(**MIGRATE),
            None,
            PMK | {KMS: {"enabled": False}},
            id="customer-managed-private-to-platform-managed",
        ),
        pytest.param(
            LEGACY, platform_target(**MIGRATE), None, PMK | {KMS: {"enabled": False}}, id="legacy-to-platform-managed"
        ),
        pytest.param(
            LEGACY_ELSEWHERE,
            platform_target(**MIGRATE),
            None,
            PMK | {KMS: {"enabled": False}},
            id="legacy-with-any-key-to-platform-managed",
        ),
        pytest.param(
            LEGACY, key_target(**MIGRATE), prerequisites(), PMK | {KMS: PUBLIC}, id="legacy-to-customer-managed"
        ),
        pytest.param(
            PRIVATE_LEGACY,
            key_target(**MIGRATE),
            prerequisites(vault=TRUSTED),
            PMK | {KMS: PRIVATE},
            id="legacy-private-to-customer-managed-private",
        ),
    ],
)
def test_each_move_that_is_allowed_sends_what_the_documents_say(
    security: Document, asked: Target, found: Prerequisites | None, expected: Document
) -> None:
    read = document(security=security)

    decision = judged(read, asked, found)

    assert decision.action is Action.WRITE
    assert decision.reason is (Reason.TO_MIGRATE if security else Reason.NOT_AS_ASKED)
    assert sent(read, decision)["properties"]["securityProfile"] == expected


@pytest.mark.parametrize(
    ("security", "asked", "found"),
    [
        pytest.param(LEGACY, platform_target(**MIGRATE), None, id="off-towards-platform-managed"),
        pytest.param(CMK, platform_target(**MIGRATE), None, id="back-to-platform-managed"),
        pytest.param(LEGACY, key_target(**MIGRATE), prerequisites(), id="legacy-to-customer-managed"),
        pytest.param(PMK, key_target(**MIGRATE), prerequisites(), id="platform-managed-to-customer-managed"),
    ],
)
def test_fields_that_nobody_knows_are_sent_back_whatever_the_move(
    security: Document, asked: Target, found: Prerequisites | None
) -> None:
    kms = {**(security.get(KMS) or {"enabled": False}), "futureField": {"deep": [1, None]}}
    profile = {**security.get(PROFILE, {}), "futureField": "x"}
    read = document(security={KMS: kms, PROFILE: profile, "workloadIdentity": {"enabled": True}, "futureProfile": [1]})

    decision = judged(read, asked, found)

    body = sent(read, decision)["properties"]["securityProfile"]
    assert body[KMS]["futureField"] == {"deep": [1, None]}
    assert body[PROFILE] == {"infrastructureEncryption": "Enabled", "futureField": "x"}
    assert body["workloadIdentity"] == {"enabled": True}
    assert body["futureProfile"] == [1]


# whatever there may be

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=8), inner, max_size=2),
    max_leaves=3,
)
OTHER_VAULT = VaultId(SUBSCRIPTION, "rg-keys", "kv-other")
HSM_URL = "https://kv-kms.managedhsm.azure.net/keys/etcd"
NAMED_KEYS = [KEY_URL, KEY_URL.upper(), f"{KEY_URL}-other", "https://kv-other.vault.azure.net/keys/etcd"]
KEY_URLS = st.sampled_from([HSM_URL, *NAMED_KEYS, *(f"{url}/{VERSION}" for url in NAMED_KEYS)])
ENABLED_KMS = st.fixed_dictionaries(
    {"enabled": st.just(True), "keyId": KEY_URLS},
    optional={
        "keyVaultNetworkAccess": st.sampled_from(["Public", "Private", "private"]),
        "keyVaultResourceId": st.sampled_from([str(VAULT_ID), str(OTHER_VAULT), ""]),
        "futureField": JSON,
    },
)
DISABLED_KMS = st.fixed_dictionaries(
    {}, optional={"enabled": st.sampled_from([False, None]), "keyId": KEY_URLS, "futureField": JSON}
)
PROFILES = st.fixed_dictionaries(
    {}, optional={"infrastructureEncryption": st.sampled_from(["Enabled", "enabled", "Disabled"]), "futureField": JSON}
)
SECURITY = st.fixed_dictionaries(
    {},
    optional={
        KMS: ENABLED_KMS | DISABLED_KMS | st.none(),
        PROFILE: PROFILES | st.none(),
        "workloadIdentity": JSON,
        "futureProfile": JSON,
    },
)
ANY_CLUSTER = st.builds(
    document,
    kubernetes=st.sampled_from(["1.26.15", "1.27.0", "1.32.9", "1.33.0", "1.34.2", None]),
    state=st.sampled_from(["Succeeded", "Failed", "Updating"]),
    power=st.sampled_from(["Running", "Stopped"]),
    pools=st.sampled_from([("Succeeded",), ("Updating",)]),
    identity=st.sampled_from(["UserAssigned", "SystemAssigned", None]),
    assigned=st.sampled_from([(IDENTITY_ID,), (OTHER_IDENTITY_ID,)]),
    security=SECURITY,
    etag=st.sampled_from([ETAG, None]),
)


def a_key(url: str, access: str, beside: Document) -> Document:
    """A securityProfile with this key, as AKS shows it."""
    kms = {"enabled": True, "keyId": url, "keyVaultNetworkAccess": access, "keyVaultResourceId": str(VAULT_ID)}
    return {KMS: kms, **beside}


EVERY_KIND: list[Document] = [
    *({}, {KMS: {"enabled": False, "keyId": LEGACY_URL}}, PMK, PMK | {KMS: {"enabled": False}}),
    *(a_key(f"{url}/{VERSION}", access, {}) for url in NAMED_KEYS for access in ("Public", "Private")),
    *(a_key(url, access, PMK) for url in NAMED_KEYS for access in ("Public", "Private")),
    *(a_key(LEGACY_URL, "Public", PMK), a_key(KEY_URL, "Public", {})),
]


def with_more(security: Document, more: Document, inside: Document) -> Document:
    """The same securityProfile with fields that nobody knows, beside its objects and inside them."""
    return more | {part: {**inside, **value} for part, value in security.items()}


MOVABLE_CLUSTER = st.builds(
    document,
    identity=st.sampled_from(["UserAssigned", "UserAssigned", "SystemAssigned"]),
    security=st.builds(
        with_more,
        st.sampled_from(EVERY_KIND),
        st.just({}) | st.fixed_dictionaries({"futureProfile": JSON}),
        st.just({}) | st.fixed_dictionaries({"futureField": JSON}),
    ),
)
"""A cluster that nothing but its encryption keeps from being written."""

ALL_ALLOWED = {"migrate": True, "allowUnconfirmed": True}
OPTIONS: list[dict[str, bool]] = [*[ALL_ALLOWED] * 4, MIGRATE, MIGRATE, {"allowUnconfirmed": True}, {}]
NETWORKS: list[Document] = [{}, {"networkAccess": "public"}, {"networkAccess": "private"}]
IDENTITIES: list[Document] = [
    *({}, {"identity": IDENTITY_ID}),
    *[{"identity": IDENTITY_ID, "allowIdentityChange": True}] * 2,
]
TARGETS = st.sampled_from(
    [
        *(key_target(**options, **network, **one) for options in OPTIONS for network in NETWORKS for one in IDENTITIES),
        *(platform_target(**options) for options in OPTIONS * 3),
    ]
)
FOUND = st.builds(
    lambda network, kind, crypto: prerequisites(
        vault=vault(network=network), key=key(kind=kind), access=Access(crypto, Grant.GRANTED)
    ),
    st.sampled_from([VaultNetwork.OPEN, VaultNetwork.TRUSTED, VaultNetwork.CLOSED]),
    st.sampled_from(["RSA", "RSA-HSM", "EC"]),
    st.sampled_from([Grant.GRANTED, Grant.UNKNOWN, Grant.MISSING]),
)
USABLE = st.sampled_from([prerequisites(), prerequisites(vault=TRUSTED)])
MOVABLE_CASE = st.tuples(MOVABLE_CLUSTER, TARGETS, USABLE)
CASES = MOVABLE_CASE | st.tuples(ANY_CLUSTER, TARGETS, FOUND)
"""A cluster, what is asked of it, and what a survey of vault, key and roles finds."""

MOVES = settings(PROPERTY, max_examples=600)
"""Examples enough that each move is among them several times."""

Case = tuple[Document, Target, Prerequisites]


@dataclass(frozen=True, slots=True)
class Move:
    """One write that is proposed: the document before, the document that is asked for, and what asks for it."""

    before: Document
    after: Document
    target: Target
    found: Prerequisites | None
    change: Change

    @property
    def kinds(self) -> tuple[str, str]:
        return kind_of(self.before), kind_of(self.after)


def judged(read: Document, asked: Target, found: Prerequisites | None) -> Decision:
    return decide(Facts(Cluster.read(read, read), prerequisites=found), assignment(asked=asked), NOW)


def proposed(case: Case) -> Move | None:
    """The write that `decide` proposes, if it does. Only for a target that asks for a key is there a survey."""
    read, asked, surveyed = case
    found = surveyed if asked.vault else None
    decision = judged(read, asked, found)
    if not isinstance(decision.change, Change):
        assert decision.action is not Action.WRITE
        return None
    assert decision.action is Action.WRITE
    after = asking_for(read, decision.change.after, decision.change.identity)
    return Move(read, after, asked, found, decision.change)


def proposed_for_kms(case: Case) -> Move | None:
    """The same, but for a write that only changes the identity."""
    move = proposed(case)
    return move if move is not None and move.change.identity is None else None


ALLOWED = {
    ("none", "platform-managed"),
    ("none", "customer-managed"),
    ("platform-managed", "customer-managed"),
    ("customer-managed", "platform-managed"),
    ("legacy", "platform-managed"),
    ("legacy", "customer-managed"),
}
UNCONFIRMED = {("customer-managed", "customer-managed")}
"""To another key, vault or network access: only where the target allows what no document states."""


@MOVES
@given(CASES)
def test_no_move_that_is_refused_is_ever_proposed(case: Case) -> None:
    move = proposed_for_kms(case)
    if move is None:
        return

    before, after = move.kinds

    assert after == move.target.key_management
    assert (before, after) in ALLOWED | (UNCONFIRMED if move.target.allow_unconfirmed else set())
    assert before == "none" or move.target.migrate


@MOVES
@given(MOVABLE_CASE)
def test_a_legacy_key_moves_only_where_kms_need_not_be_turned_off(case: Case) -> None:
    """Another access of one vault needs KMS off and on. Source: AKS docs, update-kms-key-vault."""
    move = proposed_for_kms(case)
    if move is None or move.kinds != ("legacy", "customer-managed"):
        return

    host, name, access = way_of(move.before)
    new_host, new_name, new_access = way_of(move.after)

    assert host != new_host or access == new_access
    assert (host, name) == (new_host, new_name) or move.target.allow_unconfirmed


@MOVES
@given(CASES)
def test_no_cluster_is_written_that_could_not_take_it(case: Case) -> None:
    move = proposed(case)
    if move is None:
        return

    properties = move.before["properties"]

    assert properties["provisioningState"] == "Succeeded"
    assert properties["powerState"] == {"code": "Running"}
    assert [pool["provisioningState"] for pool in properties["agentPoolProfiles"]] == ["Succeeded"]
    assert properties["currentKubernetesVersion"] in {"1.33.0", "1.33.3", "1.34.2"}
    assert kind_of(move.before) != "ambiguous"
    assert "identity" in move.before
    assert move.change.etag == move.before["eTag"]


EXEMPTING = "exemptions: [{match: {names: ['aks-*']}, owner: a, reason: b, expires: 9999-12-31}]"
OPTED_OUT = {"kms-enforcer": "off"}


@pytest.mark.parametrize(
    ("tags", "exemptions"),
    [pytest.param(OPTED_OUT, "", id="by-its-tag"), pytest.param({}, EXEMPTING, id="by-the-policy")],
)
@MOVES
@given(CASES)
def test_an_exempt_cluster_is_never_written(tags: dict[str, str], exemptions: str, case: Case) -> None:
    read, asked, found = case
    cluster = Cluster.read(read | {"tags": tags}, read)
    because = policy(f"{SMALLEST_POLICY}{exemptions}").assignment(cluster, NOW).exempt_because

    decision = decide(Facts(cluster, prerequisites=found), assignment(asked=asked, exempt_because=because), NOW)

    assert decision == Decision(Action.NOTHING, (Reason.EXEMPT,))


OURS = {
    (KMS, "enabled"),
    (KMS, "keyId"),
    (KMS, "keyVaultNetworkAccess"),
    (KMS, "keyVaultResourceId"),
    (PROFILE, "infrastructureEncryption"),
}
"""All that a write may touch below securityProfile."""


def leaves(security: Document) -> Iterator[tuple[tuple[str, str | None], Any]]:
    """What stands below securityProfile and is not ours; an object of ours that is null or absent holds nothing."""
    for part, value in security.items():
        if part not in {KMS, PROFILE}:
            yield (part, None), value
            continue
        yield from (((part, name), inner) for name, inner in (value or {}).items() if (part, name) not in OURS)


def without_security(read: Document) -> Document:
    rest = {name: value for name, value in read["properties"].items() if name != "securityProfile"}
    return read | {"properties": rest, "identity": None}


@MOVES
@given(CASES)
def test_a_change_touches_kms_and_identity_alone_and_keeps_what_nobody_knows(case: Case) -> None:
    kept = copy.deepcopy(case[0])
    move = proposed(case)
    if move is None:
        return

    before, after = (one["properties"]["securityProfile"] for one in (move.before, move.after))

    assert move.before == kept
    assert without_security(move.after) == without_security(move.before)
    assert dict(leaves(after)) == dict(leaves(before))


@MOVES
@given(CASES)
def test_a_write_changes_either_kms_or_the_identity(case: Case) -> None:
    move = proposed(case)
    if move is None:
        return

    if move.change.identity is None:
        assert move.after["identity"] == move.before["identity"]
    else:
        assert move.after["identity"] == {"type": "UserAssigned", "userAssignedIdentities": {IDENTITY_ID: {}}}
        assert move.after | {"identity": None} == move.before | {"identity": None}


@MOVES
@given(CASES)
def test_a_write_names_no_version_and_leaves_no_key_behind(case: Case) -> None:
    move = proposed_for_kms(case)
    if move is None:
        return

    kms = move.after["properties"]["securityProfile"].get(KMS) or {}

    assert has_profile(move.after)
    if move.target.key_management == "platform-managed":
        assert not kms.keys() & {"keyId", "keyVaultNetworkAccess", "keyVaultResourceId"}
        assert not kms.get("enabled")
    else:
        assert kms["keyId"] == KEY_URL
        assert ("keyVaultResourceId" in kms) is (kms["keyVaultNetworkAccess"] == "Private")


@MOVES
@given(CASES)
def test_what_was_written_is_not_written_again(case: Case) -> None:
    move = proposed(case)
    if move is None:
        return

    written = move.after | {"eTag": OTHER_ETAG}
    again = judged(written, move.target, move.found)

    assert move.change.is_in(Cluster.read(written, written))
    if move.change.identity is None:
        assert again == Decision(Action.NOTHING, (Reason.AS_ASKED,))
    else:
        assert again.reason not in {Reason.IDENTITY_TO_CHANGE, Reason.IDENTITY_SYSTEM_ASSIGNED}


def test_the_properties_are_not_true_of_nothing() -> None:
    """Each move is proposed for some cluster that the strategies above can make."""
    documents = [{}, PMK, CMK, LEGACY, {KMS: CMK[KMS] | {"keyId": f"{KEY_URL}-other"}, **PMK}]
    moves = [
        proposed((document(security=security), asked, prerequisites()))
        for security in documents
        for asked in (platform_target(**ALL_ALLOWED), key_target(**ALL_ALLOWED))
    ]

    assert {move.kinds for move in moves if move} == ALLOWED | UNCONFIRMED
