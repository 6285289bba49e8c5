"""What a cluster's document says, and the document that asks for another encryption."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
from azure.mgmt.containerservice.models import ManagedCluster

from shared.clusters import (
    Cluster,
    ClusterId,
    Encryption,
    Identity,
    IdentityKind,
    KeyManagement,
    asking_for,
    parse_subscription,
)
from shared.errors import Malformed
from tests.builders import (
    CLUSTER_ID,
    CMK,
    ETAG,
    IDENTITY_ID,
    KEY,
    KEY_URL,
    LEGACY,
    LEGACY_URL,
    NOT_ENCRYPTED,
    OTHER_IDENTITY_ID,
    PLATFORM_MANAGED,
    PMK,
    PRINCIPAL,
    PRIVATE_CMK,
    PRIVATE_KEY,
    PUBLIC_KEY,
    RESOURCE_UID,
    SUBSCRIPTION,
    VAULT_ID,
    VERSION,
    cluster,
    document,
)

RESOURCE_ID = (
    f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg-apps/providers/Microsoft.ContainerService/managedClusters/aks-1"
)
HSM_URL = "https://kv-kms.managedhsm.azure.net/keys/etcd"


# ids


@pytest.mark.parametrize(
    "resource_id",
    [
        pytest.param(RESOURCE_ID, id="as-documented"),
        pytest.param(RESOURCE_ID.replace("resourceGroups", "resourcegroups"), id="as-events-write-it"),
        pytest.param(RESOURCE_ID.upper(), id="upper-case"),
        pytest.param(RESOURCE_ID.lower(), id="lower-case"),
    ],
)
def test_a_cluster_id_is_read_in_any_casing(resource_id: str) -> None:
    assert ClusterId.parse(resource_id) == CLUSTER_ID


@pytest.mark.parametrize(
    "resource_id",
    [
        pytest.param("", id="empty"),
        pytest.param(f"{RESOURCE_ID}/agentPools/pool", id="a-pool-below-it"),
        pytest.param(f"{RESOURCE_ID}/", id="trailing-slash"),
        pytest.param(f"{RESOURCE_ID}\n", id="trailing-newline"),
        pytest.param(f"{RESOURCE_ID}?api-version=1", id="query"),
        pytest.param(f"https://management.azure.com{RESOURCE_ID}", id="a-url"),
        pytest.param(RESOURCE_ID.replace(SUBSCRIPTION, "sub"), id="no-subscription-id"),
        pytest.param(RESOURCE_ID.replace("rg-apps", "rg apps"), id="a-blank-in-the-group"),
        pytest.param(RESOURCE_ID.replace("rg-apps", "rg|apps"), id="a-bar-in-the-group"),
        pytest.param(RESOURCE_ID.replace("rg-apps", ".."), id="the-group-is-the-parent-folder"),
        pytest.param(RESOURCE_ID.replace("rg-apps", "g" * 91), id="group-too-long"),
        pytest.param(RESOURCE_ID.replace("aks-1", "a" * 64), id="name-too-long"),
        pytest.param(RESOURCE_ID.replace("aks-1", "-aks"), id="name-starts-with-a-hyphen"),
        pytest.param(RESOURCE_ID.replace("managedClusters", "containerServices"), id="another-type"),
    ],
)
def test_another_id_is_no_cluster(resource_id: str) -> None:
    with pytest.raises(Malformed, match="not the resource id of a managed cluster"):
        ClusterId.parse(resource_id)


@pytest.mark.parametrize(
    ("group", "name"),
    [
        pytest.param("rg_apps.(1)-x", "a", id="all-that-a-group-may-hold"),
        pytest.param("g" * 90, "a" * 63, id="longest"),
        pytest.param("gruppe-süd", "aks_1-b", id="a-letter-beyond-ascii"),
    ],
)
def test_a_cluster_id_reads_its_own_text(group: str, name: str) -> None:
    cluster_id = ClusterId(SUBSCRIPTION, group, name)

    assert ClusterId.parse(str(cluster_id)) == cluster_id


def test_a_subscription_is_read_in_any_casing() -> None:
    assert parse_subscription("ABCDEF00-0000-0000-0000-000000000001") == "abcdef00-0000-0000-0000-000000000001"


@pytest.mark.parametrize("text", ["", "sub", SUBSCRIPTION[:-1], f"{SUBSCRIPTION}0", f" {SUBSCRIPTION}"])
def test_another_text_is_no_subscription(text: str) -> None:
    with pytest.raises(Malformed, match="not a subscription id"):
        parse_subscription(text)


# encryption


@pytest.mark.parametrize(
    ("security", "expected"),
    [
        pytest.param({}, KeyManagement.NONE, id="never-set"),
        pytest.param({"azureKeyVaultKms": None}, KeyManagement.NONE, id="null"),
        pytest.param({"azureKeyVaultKms": {}}, KeyManagement.NONE, id="empty"),
        pytest.param({"azureKeyVaultKms": {"enabled": False}}, KeyManagement.NONE, id="turned-off"),
        pytest.param({"azureKeyVaultKms": {"enabled": None}}, KeyManagement.NONE, id="enabled-is-null"),
        pytest.param(
            {"azureKeyVaultKms": {"enabled": False, "keyId": LEGACY_URL}},
            KeyManagement.NONE,
            id="turned-off-by-a-tool-that-leaves-the-key",
        ),
        pytest.param(LEGACY, KeyManagement.LEGACY, id="legacy"),
        pytest.param(PMK, KeyManagement.PLATFORM_MANAGED, id="platform-managed"),
        pytest.param(PMK | {"azureKeyVaultKms": None}, KeyManagement.PLATFORM_MANAGED, id="platform-managed-and-null"),
        pytest.param(
            PMK | {"azureKeyVaultKms": {"enabled": False, "keyId": KEY_URL}},
            KeyManagement.PLATFORM_MANAGED,
            id="platform-managed-and-turned-off",
        ),
        pytest.param(
            {"kubernetesResourceObjectEncryptionProfile": {"infrastructureEncryption": "enabled"}},
            KeyManagement.PLATFORM_MANAGED,
            id="platform-managed-in-another-casing",
        ),
        pytest.param(
            {"kubernetesResourceObjectEncryptionProfile": {"infrastructureEncryption": "Disabled"}},
            KeyManagement.NONE,
            id="disabled-means-absent",
        ),
        pytest.param({"kubernetesResourceObjectEncryptionProfile": None}, KeyManagement.NONE, id="the-profile-is-null"),
        pytest.param(CMK, KeyManagement.CUSTOMER_MANAGED, id="customer-managed"),
        pytest.param(LEGACY | PMK, KeyManagement.AMBIGUOUS, id="a-version-and-the-profile"),
        pytest.param(
            {"azureKeyVaultKms": CMK["azureKeyVaultKms"]}, KeyManagement.AMBIGUOUS, id="no-version-and-no-profile"
        ),
        pytest.param({"azureKeyVaultKms": {"enabled": True}}, KeyManagement.AMBIGUOUS, id="enabled-without-a-key"),
        pytest.param(
            PMK | {"azureKeyVaultKms": {"enabled": True, "keyId": HSM_URL}},
            KeyManagement.AMBIGUOUS,
            id="a-managed-hsm",
        ),
        pytest.param({"azureKeyVaultKms": "yes"}, KeyManagement.NONE, id="no-object"),
    ],
)
def test_the_experiences_are_told_apart(security: dict[str, Any], expected: KeyManagement) -> None:
    encryption = Encryption.read(document(security=security))

    assert encryption.key_management is expected


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param({}, id="no-properties"),
        pytest.param({"properties": None}, id="properties-is-null"),
        pytest.param({"properties": []}, id="properties-is-a-list"),
        pytest.param({"properties": {"securityProfile": None}}, id="security-profile-is-null"),
        pytest.param({"properties": {"securityProfile": "on"}}, id="security-profile-is-text"),
    ],
)
def test_a_document_without_a_security_profile_has_no_encryption(broken: dict[str, Any]) -> None:
    assert Encryption.read(broken) == NOT_ENCRYPTED


def test_the_key_of_a_cluster_is_read() -> None:
    encryption = Encryption.read(document(security=LEGACY))

    assert encryption.key is not None
    assert (encryption.key.key, encryption.key.version) == (KEY, VERSION)
    assert encryption.vault_id == str(VAULT_ID)
    assert encryption.network_access == "Public"


def test_a_key_that_is_turned_off_is_no_key_in_use() -> None:
    security = {"azureKeyVaultKms": {"enabled": False, "keyId": LEGACY_URL}}

    assert Encryption.read(document(security=security)).key is None


@pytest.mark.parametrize(
    ("security", "expected"),
    [
        pytest.param({}, {"azureKeyVaultKms": None, "kubernetesResourceObjectEncryptionProfile": None}, id="none"),
        pytest.param(PMK, {"azureKeyVaultKms": None} | PMK, id="platform-managed"),
        pytest.param(CMK, CMK, id="customer-managed"),
    ],
)
def test_a_view_has_the_fields_as_azure_names_them(security: dict[str, Any], expected: dict[str, Any]) -> None:
    assert Encryption.read(document(security=security)).view() == expected


ELSEWHERE = str(VAULT_ID).replace("kv-kms", "kv-other")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        pytest.param(NOT_ENCRYPTED, NOT_ENCRYPTED, True, id="nothing"),
        pytest.param(NOT_ENCRYPTED, PLATFORM_MANAGED, False, id="nothing-and-platform-managed"),
        pytest.param(PLATFORM_MANAGED, PLATFORM_MANAGED, True, id="platform-managed"),
        pytest.param(PLATFORM_MANAGED, PUBLIC_KEY, False, id="platform-managed-and-a-key"),
        pytest.param(PUBLIC_KEY, PUBLIC_KEY, True, id="a-key"),
        pytest.param(PUBLIC_KEY, PRIVATE_KEY, False, id="public-and-private"),
        pytest.param(PUBLIC_KEY, replace(PUBLIC_KEY, infrastructure=False), False, id="half-of-it"),
        pytest.param(PUBLIC_KEY, replace(PUBLIC_KEY, key_url=LEGACY_URL), False, id="with-a-version"),
        pytest.param(PUBLIC_KEY, replace(PUBLIC_KEY, key_url=f"{KEY_URL}2"), False, id="another-key"),
        pytest.param(PUBLIC_KEY, replace(PUBLIC_KEY, key_url=KEY_URL.upper()), True, id="in-another-casing"),
        pytest.param(PUBLIC_KEY, replace(PUBLIC_KEY, key_url=f"{KEY_URL}/"), True, id="a-slash-at-the-end"),
        pytest.param(PUBLIC_KEY, replace(PUBLIC_KEY, network_access=None), True, id="no-access-means-public"),
        pytest.param(PUBLIC_KEY, replace(PUBLIC_KEY, network_access="PUBLIC"), True, id="public-in-another-casing"),
        pytest.param(PUBLIC_KEY, replace(PUBLIC_KEY, vault_id=str(VAULT_ID)), True, id="public-with-its-vault"),
        pytest.param(PUBLIC_KEY, replace(PUBLIC_KEY, vault_id=ELSEWHERE), True, id="public-with-any-vault"),
        pytest.param(PRIVATE_KEY, replace(PRIVATE_KEY, vault_id=str(VAULT_ID).upper()), True, id="the-vault-in-casing"),
        pytest.param(PRIVATE_KEY, replace(PRIVATE_KEY, vault_id=ELSEWHERE), False, id="private-of-another-vault"),
        pytest.param(PRIVATE_KEY, replace(PRIVATE_KEY, vault_id=None), False, id="private-without-its-vault"),
        pytest.param(
            NOT_ENCRYPTED,
            Encryption(network_access="Private", vault_id=str(VAULT_ID), key_url=None),
            True,
            id="fields-that-are-left-behind-say-nothing",
        ),
    ],
)
def test_two_encryptions_amount_to_the_same_where_azure_does_the_same(
    one: Encryption, other: Encryption, same: bool
) -> None:
    assert one.amounts_to(other) is same
    assert other.amounts_to(one) is same


# the cluster


def test_a_cluster_is_read_from_its_document() -> None:
    read = cluster(tags={"env": "prod"}, location="WestEurope")

    assert read.id == CLUSTER_ID
    assert read.resource_id == RESOURCE_ID
    assert read.location == "westeurope"
    assert read.tags == {"env": "prod"}
    assert read.kubernetes == (1, 33, 3)
    assert read.etag == ETAG
    assert read.resource_uid == RESOURCE_UID
    assert (read.running, read.settled, read.succeeded) == (True, True, True)


@pytest.mark.parametrize("broken", [{}, {"id": None}, {"id": 1}, {"id": "aks-1"}])
def test_a_document_without_a_readable_id_is_malformed(broken: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        Cluster.read(broken, {})


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        pytest.param({"currentKubernetesVersion": "1.33.3", "kubernetesVersion": "1.34"}, (1, 33, 3), id="current"),
        pytest.param({"currentKubernetesVersion": None, "kubernetesVersion": "1.34"}, (1, 34, 0), id="asked-for"),
        pytest.param({"currentKubernetesVersion": "1.33", "kubernetesVersion": "1.33"}, (1, 33, 0), id="two-parts"),
        pytest.param({"currentKubernetesVersion": None, "kubernetesVersion": None}, None, id="null"),
        pytest.param({"currentKubernetesVersion": "1.33.0-beta.1"}, None, id="a-preview"),
        pytest.param({"currentKubernetesVersion": "v1.33.0"}, None, id="with-a-letter"),
        pytest.param({"currentKubernetesVersion": 1.33, "kubernetesVersion": 1.33}, None, id="a-number"),
        pytest.param({"currentKubernetesVersion": "1.33." + "9" * 5000}, None, id="more-digits-than-python-reads"),
    ],
)
def test_the_version_that_runs_counts(changed: dict[str, Any], expected: tuple[int, int, int] | None) -> None:
    read = document()
    read["properties"] |= changed

    assert Cluster.read(read, read).kubernetes == expected


def test_a_version_that_can_not_be_read_is_unknown() -> None:
    assert cluster(kubernetes=None).kubernetes_version == "unknown"
    assert cluster(kubernetes="1.33").kubernetes_version == "1.33.0"


@pytest.mark.parametrize(
    ("state", "pools", "settled"),
    [
        pytest.param("Succeeded", ("Succeeded", "Succeeded"), True, id="all-succeeded"),
        pytest.param("succeeded", ("SUCCEEDED",), True, id="in-any-casing"),
        pytest.param("Failed", ("Failed",), True, id="failed"),
        pytest.param("Canceled", ("Canceled",), True, id="canceled"),
        pytest.param("Succeeded", (), True, id="no-pools"),
        pytest.param("Updating", ("Succeeded",), False, id="updating"),
        pytest.param("Creating", (), False, id="creating"),
        pytest.param("ReconcilingSomethingNew", ("Succeeded",), False, id="a-state-nobody-knows"),
        pytest.param(None, ("Succeeded",), False, id="no-state"),
        pytest.param("Succeeded", ("Succeeded", "Scaling"), False, id="one-pool-scales"),
        pytest.param("Failed", ("Upgrading",), False, id="failed-and-a-pool-upgrades"),
    ],
)
def test_a_cluster_is_settled_when_it_and_all_pools_are(
    state: str | None, pools: tuple[str, ...], settled: bool
) -> None:
    assert cluster(state=state, pools=pools).settled is settled


@pytest.mark.parametrize(
    "pools",
    [
        pytest.param(None, id="null"),
        pytest.param([None], id="a-null-pool"),
        pytest.param([{}], id="a-pool-without-a-state"),
        pytest.param(["pool"], id="text"),
        pytest.param(1, id="a-number"),
        pytest.param({"name": "pool"}, id="an-object"),
    ],
)
def test_pools_that_can_not_be_read_raise_nothing(pools: Any) -> None:
    read = document()
    read["properties"]["agentPoolProfiles"] = pools

    assert Cluster.read(read, read).id == CLUSTER_ID


@pytest.mark.parametrize(
    ("power", "running"),
    [
        pytest.param("Running", True, id="running"),
        pytest.param("running", True, id="in-any-casing"),
        pytest.param(None, True, id="not-said"),
        pytest.param("Stopped", False, id="stopped"),
        pytest.param("Hibernated", False, id="a-state-nobody-knows"),
    ],
)
def test_a_cluster_runs_unless_its_power_state_says_otherwise(power: str | None, running: bool) -> None:
    assert cluster(power=power).running is running


@pytest.mark.parametrize(
    ("identity", "expected"),
    [
        pytest.param("UserAssigned", IdentityKind.USER_ASSIGNED, id="user-assigned"),
        pytest.param("userassigned", IdentityKind.USER_ASSIGNED, id="in-any-casing"),
        pytest.param("SystemAssigned", IdentityKind.SYSTEM_ASSIGNED, id="system-assigned"),
        pytest.param("None", IdentityKind.SERVICE_PRINCIPAL, id="none"),
        pytest.param(None, IdentityKind.SERVICE_PRINCIPAL, id="absent"),
    ],
)
def test_the_identity_is_told_apart(identity: str | None, expected: IdentityKind) -> None:
    assert cluster(identity=identity).identity.kind is expected


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        pytest.param(
            {"type": "UserAssigned", "userAssignedIdentities": {IDENTITY_ID: {"principalId": PRINCIPAL}}},
            Identity(IdentityKind.USER_ASSIGNED, IDENTITY_ID, PRINCIPAL),
            id="user-assigned",
        ),
        pytest.param(
            {"type": "UserAssigned", "userAssignedIdentities": {IDENTITY_ID: {}}},
            Identity(IdentityKind.USER_ASSIGNED, IDENTITY_ID),
            id="whose-principal-is-not-shown",
        ),
        pytest.param(
            {"type": "UserAssigned", "userAssignedIdentities": {IDENTITY_ID: None}},
            Identity(IdentityKind.USER_ASSIGNED, IDENTITY_ID),
            id="of-which-nothing-is-shown",
        ),
        pytest.param(
            {"type": "UserAssigned", "userAssignedIdentities": {IDENTITY_ID: {}, OTHER_IDENTITY_ID: {}}},
            Identity(IdentityKind.USER_ASSIGNED),
            id="two-of-which-nobody-knows-which-one-counts",
        ),
        pytest.param(
            {"type": "UserAssigned", "userAssignedIdentities": None},
            Identity(IdentityKind.USER_ASSIGNED),
            id="none-is-shown",
        ),
        pytest.param(
            {"type": "SystemAssigned", "principalId": PRINCIPAL},
            Identity(IdentityKind.SYSTEM_ASSIGNED, principal=PRINCIPAL),
            id="system-assigned",
        ),
        pytest.param(
            {"type": "SystemAssigned", "principalId": 7, "userAssignedIdentities": {IDENTITY_ID: {}}},
            Identity(IdentityKind.SYSTEM_ASSIGNED),
            id="system-assigned-and-what-does-not-belong-there",
        ),
        pytest.param({"type": 1}, Identity(IdentityKind.SERVICE_PRINCIPAL), id="a-type-that-is-no-text"),
    ],
)
def test_whose_identity_it_is_can_be_read(part: dict[str, Any], expected: Identity) -> None:
    read = document() | {"identity": part}

    assert Cluster.read(read, read).identity == expected


@pytest.mark.parametrize(
    ("identity", "called"),
    [
        pytest.param(Identity(IdentityKind.USER_ASSIGNED, IDENTITY_ID), True, id="the-same"),
        pytest.param(Identity(IdentityKind.USER_ASSIGNED, IDENTITY_ID.upper()), True, id="in-another-casing"),
        pytest.param(Identity(IdentityKind.USER_ASSIGNED, OTHER_IDENTITY_ID), False, id="another"),
        pytest.param(Identity(IdentityKind.USER_ASSIGNED), False, id="none-that-can-be-read"),
        pytest.param(Identity(IdentityKind.SYSTEM_ASSIGNED, principal=PRINCIPAL), False, id="system-assigned"),
    ],
)
def test_an_identity_is_known_by_its_id(identity: Identity, called: bool) -> None:
    assert identity.is_called(IDENTITY_ID) is called


def test_an_empty_etag_is_none() -> None:
    assert cluster(etag="").etag is None
    assert cluster(etag=None).etag is None


def test_the_document_takes_no_part_in_comparisons_and_is_not_shown() -> None:
    read = document()
    one, other = Cluster.read(read, read), Cluster.read(read, {})

    assert one == other
    assert "agentPoolProfiles" not in repr(one)


# the document that asks for another encryption


def without_security(read: dict[str, Any]) -> dict[str, Any]:
    properties = {name: value for name, value in read["properties"].items() if name != "securityProfile"}
    return read | {"properties": properties}


@pytest.mark.parametrize(
    ("security", "expected"),
    [
        pytest.param({}, PMK, id="never-set"),
        pytest.param(None, PMK, id="no-profile-at-all"),
        pytest.param({"azureKeyVaultKms": None}, {"azureKeyVaultKms": None} | PMK, id="kms-is-null"),
        pytest.param(
            {"azureKeyVaultKms": {"enabled": False}}, {"azureKeyVaultKms": {"enabled": False}} | PMK, id="kms-is-off"
        ),
        pytest.param(
            {"kubernetesResourceObjectEncryptionProfile": {"infrastructureEncryption": "Disabled"}}, PMK, id="disabled"
        ),
        pytest.param({"kubernetesResourceObjectEncryptionProfile": None}, PMK, id="profile-is-null"),
        pytest.param(
            {"workloadIdentity": {"enabled": True}, "futureProfile": {"x": [1]}},
            {"workloadIdentity": {"enabled": True}, "futureProfile": {"x": [1]}} | PMK,
            id="other-parts-stay",
        ),
        pytest.param(
            {"kubernetesResourceObjectEncryptionProfile": {"futureField": 1}},
            {"kubernetesResourceObjectEncryptionProfile": {"futureField": 1, "infrastructureEncryption": "Enabled"}},
            id="fields-nobody-knows-stay",
        ),
    ],
)
def test_asking_for_platform_managed_keys_changes_the_profile_alone(
    security: dict[str, Any] | None, expected: dict[str, Any]
) -> None:
    read = document()
    read["properties"]["securityProfile"] = security

    asked = asking_for(read, PLATFORM_MANAGED)

    assert asked["properties"]["securityProfile"] == expected
    assert without_security(asked) == without_security(read)


def test_asking_for_an_encryption_leaves_the_document_that_was_read_unchanged() -> None:
    read = document(security={"azureKeyVaultKms": {"enabled": False}})
    kept = copy.deepcopy(read)

    asked = asking_for(read, PLATFORM_MANAGED)
    asked["properties"]["agentPoolProfiles"][0]["count"] = 99

    assert read == kept


def test_asking_for_what_is_there_changes_nothing() -> None:
    read = document(security=CMK)

    assert asking_for(read, Encryption.read(read)) == read


@pytest.mark.parametrize("security", [{}, LEGACY, PMK, CMK], ids=["none", "legacy", "platform-managed", "customer"])
def test_what_was_asked_for_is_what_is_read_again(security: dict[str, Any]) -> None:
    wanted = Encryption.read(document(security=security))

    asked = asking_for(document(security=LEGACY), wanted)

    assert Encryption.read(asked) == wanted


def test_the_key_is_left_out_where_kms_is_off() -> None:
    """`keyId` must be omitted when KMS is off, and some tools leave it behind. Source: AzureKeyVaultKms.key_id."""
    left_behind = {"azureKeyVaultKms": LEGACY["azureKeyVaultKms"] | {"enabled": False}}

    asked = asking_for(document(security=left_behind), PLATFORM_MANAGED)

    assert asked["properties"]["securityProfile"]["azureKeyVaultKms"] == {"enabled": False}


def test_leaving_a_key_leaves_its_fields_out() -> None:
    asked = asking_for(document(security=CMK), PLATFORM_MANAGED)

    assert asked["properties"]["securityProfile"] == PMK | {"azureKeyVaultKms": {"enabled": False}}


PUBLIC_SENT = CMK | {
    "azureKeyVaultKms": {"enabled": True, "keyId": KEY_URL, "keyVaultNetworkAccess": "Public"},
}


@pytest.mark.parametrize(
    ("security", "wanted", "expected"),
    [
        pytest.param({}, PUBLIC_KEY, PUBLIC_SENT, id="public-without-the-vault"),
        pytest.param({}, PRIVATE_KEY, PRIVATE_CMK, id="private-with-the-vault"),
        pytest.param(PMK, PUBLIC_KEY, PUBLIC_SENT, id="from-a-platform-managed-key"),
        pytest.param(
            {"azureKeyVaultKms": LEGACY["azureKeyVaultKms"] | {"enabled": False}},
            PUBLIC_KEY,
            PUBLIC_SENT,
            id="fields-left-behind-are-not-sent-again",
        ),
        pytest.param(PRIVATE_CMK, PUBLIC_KEY, PUBLIC_SENT, id="no-vault-is-left-from-private"),
        pytest.param(
            {"workloadIdentity": {"enabled": True}},
            PUBLIC_KEY,
            {"workloadIdentity": {"enabled": True}} | PUBLIC_SENT,
            id="other-parts-stay",
        ),
    ],
)
def test_asking_for_a_key_sends_both_objects(
    security: dict[str, Any], wanted: Encryption, expected: dict[str, Any]
) -> None:
    read = document(security=security)

    asked = asking_for(read, wanted)

    assert asked["properties"]["securityProfile"] == expected
    assert without_security(asked) == without_security(read)
    assert Encryption.read(asked) == wanted


@pytest.mark.parametrize("security", [{}, {"workloadIdentity": {"enabled": True}}, PMK, CMK], ids=str)
def test_asking_for_an_identity_changes_the_identity_alone(security: dict[str, Any]) -> None:
    read = document(security=security, identity="SystemAssigned")
    kept = copy.deepcopy(read)

    asked = asking_for(read, Encryption.read(read), IDENTITY_ID)

    assert asked == read | {"identity": {"type": "UserAssigned", "userAssignedIdentities": {IDENTITY_ID: {}}}}
    assert read == kept
    assert Cluster.read(asked, asked).identity.is_called(IDENTITY_ID)


def test_an_identity_that_is_not_asked_for_is_sent_back_as_it_was() -> None:
    read = document()

    assert asking_for(read, PUBLIC_KEY)["identity"] == read["identity"]


# what a write sends back

IDENTITY = (
    f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg-ids/providers"
    "/Microsoft.ManagedIdentity/userAssignedIdentities/cp-1"
)
FULL: dict[str, Any] = {
    "id": RESOURCE_ID.replace("resourceGroups", "resourcegroups"),
    "name": "aks-1",
    "type": "Microsoft.ContainerService/ManagedClusters",
    "location": "westeurope",
    "tags": {"env": "prod"},
    "kind": "Base",
    "sku": {"name": "Base", "tier": "Free"},
    "eTag": ETAG,
    "extendedLocation": {"name": "edge-1", "type": "EdgeZone"},
    "futureRoot": {"deep": [{"down": 1}]},
    "systemData": {"createdBy": "nobody@example.com", "createdAt": "2026-03-02T08:00:00Z", "futureSystem": 1},
    "identity": {
        "type": "UserAssigned",
        "principalId": "00000000-0000-0000-0000-0000000000a1",
        "tenantId": "00000000-0000-0000-0000-0000000000a2",
        "delegatedResources": {"net": {"resourceId": IDENTITY, "tenantId": "00000000-0000-0000-0000-0000000000a2"}},
        "userAssignedIdentities": {
            IDENTITY: {
                "clientId": "00000000-0000-0000-0000-0000000000a3",
                "principalId": "00000000-0000-0000-0000-0000000000a4",
                "futureIdentity": 1,
            }
        },
    },
    "properties": {
        "provisioningState": "Succeeded",
        "powerState": {"code": "Running"},
        "maxAgentPools": 100,
        "kubernetesVersion": "1.33.3",
        "currentKubernetesVersion": "1.33.3",
        "dnsPrefix": "aks-1",
        "fqdn": "aks-1.hcp.westeurope.azmk8s.io",
        "privateFQDN": "aks-1.privatelink.westeurope.azmk8s.io",
        "azurePortalFQDN": "aks-1.portal.hcp.westeurope.azmk8s.io",
        "fqdnSubdomain": "aks-1",
        "resourceUID": RESOURCE_UID,
        "nodeResourceGroup": "MC_rg-apps_aks-1_westeurope",
        "enableRBAC": True,
        "supportPlan": "KubernetesOfficial",
        "disableLocalAccounts": True,
        "agentPoolProfiles": [
            {
                "name": "pool0",
                "count": 3,
                "vmSize": "Standard_D4ds_v5",
                "mode": "System",
                "osType": "Linux",
                "enableAutoScaling": True,
                "minCount": 1,
                "maxCount": 5,
                "eTag": "b8139188-ac06-40b6-ac83-7093c0558ae0",
                "provisioningState": "Succeeded",
                "powerState": {"code": "Running"},
                "orchestratorVersion": "1.33",
                "currentOrchestratorVersion": "1.33.3",
                "nodeImageVersion": "AKSUbuntu-2204gen2containerd-202602.10.0",
                "nodeLabels": {"a": "b"},
                "nodeTaints": ["a=b:NoSchedule"],
                "status": {"provisioningError": {"code": "Oops", "message": "text"}},
                "localDNSProfile": {"mode": "Preferred", "state": "Enabled"},
                "futurePool": {"deep": 1},
            }
        ],
        "linuxProfile": {"adminUsername": "azureuser", "ssh": {"publicKeys": [{"keyData": "ssh-rsa fake"}]}},
        "windowsProfile": {"adminUsername": "azureuser", "enableCSIProxy": True},
        "servicePrincipalProfile": {"clientId": "msi"},
        "addonProfiles": {
            "azurepolicy": {
                "enabled": True,
                "config": None,
                "identity": {
                    "resourceId": IDENTITY,
                    "clientId": "00000000-0000-0000-0000-0000000000a5",
                    "objectId": "00000000-0000-0000-0000-0000000000a6",
                },
            }
        },
        "podIdentityProfile": {
            "enabled": True,
            "userAssignedIdentities": [
                {
                    "name": "one",
                    "namespace": "apps",
                    "identity": {"resourceId": IDENTITY},
                    "provisioningState": "Assigned",
                    "provisioningInfo": {"error": {"error": {"code": "Oops"}}},
                }
            ],
        },
        "oidcIssuerProfile": {"enabled": True, "issuerURL": "https://westeurope.oic.prod-aks.azure.com/a/b/"},
        "networkProfile": {
            "networkPlugin": "azure",
            "loadBalancerSku": "standard",
            "loadBalancerProfile": {
                "managedOutboundIPs": {"count": 1},
                "effectiveOutboundIPs": [{"id": "/subscriptions/x/publicIPAddresses/ip-1"}],
                "backendPoolType": "nodeIPConfiguration",
            },
            "natGatewayProfile": {
                "idleTimeoutInMinutes": 4,
                "effectiveOutboundIPs": [{"id": "/subscriptions/x/publicIPAddresses/ip-2"}],
            },
        },
        "privateLinkResources": [{"id": "/x", "name": "management", "privateLinkServiceID": "/pls"}],
        "ingressProfile": {
            "webAppRouting": {
                "enabled": True,
                "identity": {"resourceId": IDENTITY, "clientId": "00000000-0000-0000-0000-0000000000a7"},
            }
        },
        "identityProfile": {
            "kubeletidentity": {
                "resourceId": IDENTITY,
                "clientId": "00000000-0000-0000-0000-0000000000a8",
                "objectId": "00000000-0000-0000-0000-0000000000a9",
            }
        },
        "autoUpgradeProfile": {"upgradeChannel": "patch", "nodeOSUpgradeChannel": "NodeImage"},
        "storageProfile": {"diskCSIDriver": {"enabled": True}, "futureDriver": {"enabled": False}},
        "securityProfile": {
            "azureKeyVaultKms": None,
            "workloadIdentity": {"enabled": True},
            "customCATrustCertificates": ["ZmFrZQ=="],
            "futureSecurity": {"deep": [1, 2]},
        },
        "workloadAutoScalerProfile": {},
        "metricsProfile": {"costAnalysis": {"enabled": False}},
        "bootstrapProfile": {"artifactSource": "Direct"},
        "controlPlanePluginProfiles": {"karpenter": {"enableV2": True}},
        "futureProperty": {"deep": [{"down": None}]},
    },
}
DROPPED = {
    "/id",
    "/name",
    "/type",
    "/eTag",
    "/systemData/createdBy",
    "/systemData/createdAt",
    "/systemData/futureSystem",
    "/identity/principalId",
    "/identity/tenantId",
    f"/identity/userAssignedIdentities/{IDENTITY}/clientId",
    f"/identity/userAssignedIdentities/{IDENTITY}/principalId",
    "/properties/provisioningState",
    "/properties/powerState/code",
    "/properties/maxAgentPools",
    "/properties/currentKubernetesVersion",
    "/properties/fqdn",
    "/properties/privateFQDN",
    "/properties/azurePortalFQDN",
    "/properties/resourceUID",
    "/properties/agentPoolProfiles/0/eTag",
    "/properties/agentPoolProfiles/0/provisioningState",
    "/properties/agentPoolProfiles/0/currentOrchestratorVersion",
    "/properties/agentPoolProfiles/0/status/provisioningError/code",
    "/properties/agentPoolProfiles/0/status/provisioningError/message",
    "/properties/agentPoolProfiles/0/localDNSProfile/state",
    "/properties/addonProfiles/azurepolicy/identity/resourceId",
    "/properties/addonProfiles/azurepolicy/identity/clientId",
    "/properties/addonProfiles/azurepolicy/identity/objectId",
    "/properties/podIdentityProfile/userAssignedIdentities/0/provisioningState",
    "/properties/podIdentityProfile/userAssignedIdentities/0/provisioningInfo/error/error/code",
    "/properties/oidcIssuerProfile/issuerURL",
    "/properties/networkProfile/loadBalancerProfile/effectiveOutboundIPs/0/id",
    "/properties/networkProfile/natGatewayProfile/effectiveOutboundIPs/0/id",
    "/properties/privateLinkResources/0/privateLinkServiceID",
    "/properties/ingressProfile/webAppRouting/identity/resourceId",
    "/properties/ingressProfile/webAppRouting/identity/clientId",
}
"""Every path that a write does not send back: what the service says of a cluster and nobody may ask for."""


def leaves(value: Any, at: str = "") -> dict[str, Any]:
    """Every path of a JSON value with what stands there; lists by their index, an empty one is a leaf."""
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    below: dict[str, Any] = {}
    for name, child in children:
        below |= leaves(child, f"{at}/{name}")
    return below or {at: value}


def projection(read: dict[str, Any]) -> dict[str, Any]:
    return ManagedCluster(copy.deepcopy(read)).as_dict(exclude_readonly=True)


def test_the_projection_drops_what_only_the_service_says_and_nothing_else() -> None:
    kept = leaves(projection(FULL))

    assert leaves(FULL).keys() - kept.keys() == DROPPED


def test_the_projection_keeps_every_value_as_it_was_read() -> None:
    full, kept = leaves(FULL), leaves(projection(FULL))

    assert {path: kept[path] for path in full.keys() - DROPPED} == {path: full[path] for path in full.keys() - DROPPED}
    assert all(kept[path] == {} for path in kept.keys() - full.keys()), (
        "what lost all its fields stays as an empty object"
    )


def test_a_write_of_a_key_differs_from_what_was_read_in_the_two_objects_alone() -> None:
    read = projection(FULL)

    sent = ManagedCluster(asking_for(read, PRIVATE_KEY)).as_dict(exclude_readonly=True)

    kms = "/properties/securityProfile/azureKeyVaultKms"
    expected = {path: value for path, value in leaves(read).items() if path != kms} | {
        f"{kms}/enabled": True,
        f"{kms}/keyId": KEY_URL,
        f"{kms}/keyVaultNetworkAccess": "Private",
        f"{kms}/keyVaultResourceId": str(VAULT_ID),
        "/properties/securityProfile/kubernetesResourceObjectEncryptionProfile/infrastructureEncryption": "Enabled",
    }
    assert leaves(sent) == expected


def test_a_write_of_an_identity_differs_from_what_was_read_in_the_identity_alone() -> None:
    read = projection(FULL | {"identity": {"type": "SystemAssigned", "principalId": PRINCIPAL}})

    sent = ManagedCluster(asking_for(read, Encryption.read(read), IDENTITY)).as_dict(exclude_readonly=True)

    assert {**leaves(read), "/identity/type": "UserAssigned"} == {
        path: value for path, value in leaves(sent).items() if not path.startswith("/identity/userAssigned")
    }
    assert sent["identity"] == {"type": "UserAssigned", "userAssignedIdentities": {IDENTITY: {}}}


def test_a_write_differs_from_what_was_read_in_the_profile_alone() -> None:
    read = projection(FULL)

    sent = ManagedCluster(asking_for(read, PLATFORM_MANAGED)).as_dict(exclude_readonly=True)

    added = "/properties/securityProfile/kubernetesResourceObjectEncryptionProfile/infrastructureEncryption"
    assert leaves(sent) == leaves(read) | {added: "Enabled"}
