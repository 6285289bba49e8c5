"""Who may do what through ARM: the action behind each call, roles that are enforced, what a refusal says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from local.references import REFERENCES
from local.simulator import SUBSCRIPTION, access, aks, eventsubscriptions, grants, identities, keyvault, subscriptions
from local.simulator.permissions import scope_of_call
from tests.simulator.clients import CLUSTERS, ENABLED, Arm, cluster_path, refusal

if TYPE_CHECKING:
    from local.simulator import Azure

READ = "Microsoft.ContainerService/managedClusters/read"
WRITE = "Microsoft.ContainerService/managedClusters/write"
ASSIGN = "Microsoft.ManagedIdentity/userAssignedIdentities/assign/action"
TOP = f"/subscriptions/{SUBSCRIPTION}"
ROUTES: Any = (
    *aks.ROUTES,
    *keyvault.ROUTES,
    *access.ROUTES,
    *grants.ROUTES,
    *identities.ROUTES,
    *eventsubscriptions.ROUTES,
    *subscriptions.ROUTES,
)


def test_every_call_to_arm_has_its_action() -> None:
    verbs = {"GET": "read", "PUT": "write", "PATCH": "write", "POST": "action"}

    assert [one for one in ROUTES if not one.action.endswith(f"/{verbs[one.method]}")] == []
    assert {one.action for one in ROUTES} == {
        "Microsoft.Authorization/roleAssignments/read",
        "Microsoft.Authorization/roleAssignments/write",
        "Microsoft.Authorization/roleDefinitions/read",
        "Microsoft.ContainerService/locations/operations/read",
        "Microsoft.ContainerService/managedClusters/commandResults/read",
        "Microsoft.ContainerService/managedClusters/runCommand/action",
        "Microsoft.ContainerService/managedClusters/read",
        "Microsoft.ContainerService/managedClusters/write",
        "Microsoft.EventGrid/eventSubscriptions/read",
        "Microsoft.EventGrid/systemTopics/eventSubscriptions/read",
        "Microsoft.EventGrid/systemTopics/read",
        "Microsoft.KeyVault/deletedVaults/read",
        "Microsoft.KeyVault/locations/deletedVaults/read",
        "Microsoft.KeyVault/vaults/keys/read",
        "Microsoft.KeyVault/vaults/keys/versions/read",
        "Microsoft.KeyVault/vaults/keys/write",
        "Microsoft.KeyVault/vaults/read",
        "Microsoft.KeyVault/vaults/write",
        "Microsoft.ManagedIdentity/userAssignedIdentities/read",
        "Microsoft.ManagedIdentity/userAssignedIdentities/write",
        "Microsoft.Resources/subscriptions/read",
        "Microsoft.Resources/subscriptions/resourceGroups/read",
        "Microsoft.Resources/subscriptions/resources/read",
    }


def test_only_an_update_of_a_cluster_needs_rights_on_what_it_refers_to() -> None:
    assert [(one.method, one.action) for one in ROUTES if one.linked] == [("PUT", WRITE)]


@pytest.mark.parametrize(
    ("path", "scope"),
    [
        ("/subscriptions", "/"),
        (TOP, TOP),
        (f"{TOP}/resources", TOP),
        (f"{TOP}/resourceGroups/rg", f"{TOP}/resourceGroups/rg"),
        (CLUSTERS, TOP),
        (cluster_path("aks-1"), cluster_path("aks-1")),
        (f"{TOP}/resourceGroups/rg/providers/Microsoft.KeyVault/vaults", f"{TOP}/resourceGroups/rg"),
        (f"{TOP}/providers/Microsoft.KeyVault/vaults/kv/keys", f"{TOP}/providers/Microsoft.KeyVault/vaults/kv"),
        ("/providers/Microsoft.Authorization/roleDefinitions", "/"),
    ],
)
def test_a_call_is_about_what_it_names_or_what_the_listed_lies_in(path: str, scope: str) -> None:
    assert scope_of_call(path) == scope


def me(azure: Azure) -> str:
    return azure.identity.default.object_id


def test_an_identity_with_a_role_may_do_what_that_names_and_nothing_else(azure: Azure, arm: Arm) -> None:
    azure.aks.add("aks-1", identity="system-assigned")
    azure.permissions.allow_only({READ}, object_id=me(azure))

    read = arm.get(cluster_path("aks-1"))
    written = arm.put_profile("aks-1", ENABLED)
    azure.permissions.allow_only({READ, WRITE.upper()}, object_id=me(azure))
    again = arm.put_profile("aks-1", ENABLED)

    assert (read.status_code, again.status_code) == (200, 200)
    assert refusal(written) == (
        403,
        "AuthorizationFailed",
        f"The client '{me(azure)}' with object id '{me(azure)}' does not have authorization to perform action "
        f"'{WRITE}' over scope '{cluster_path('aks-1')}' or the scope is invalid. "
        "If access was recently granted, please refresh your credentials.",
    )
    assert len(azure.journal.writes()) == 1


def test_the_roles_of_one_identity_are_not_another_s(azure: Azure, arm: Arm) -> None:
    azure.aks.add("aks-1")
    azure.permissions.allow_only((), object_id=azure.identity.add("another").object_id)

    assert arm.get(cluster_path("aks-1")).status_code == 200


def test_a_role_holds_at_its_scope_and_below(azure: Azure, arm: Arm) -> None:
    azure.aks.add("aks-1", group="rg-one")
    azure.aks.add("aks-2", group="rg-one-more")
    azure.permissions.allow_only({READ}, object_id=me(azure), scope=f"{TOP}/resourceGroups/RG-One")

    statuses = [arm.get(cluster_path(*where)).status_code for where in (("aks-1", "rg-one"), ("aks-2", "rg-one-more"))]

    assert statuses == [200, 403]


def test_two_roles_add_up(azure: Azure, arm: Arm) -> None:
    azure.aks.add("aks-1", identity="system-assigned")
    azure.permissions.allow_only({READ}, object_id=me(azure))
    azure.permissions.allow_only({WRITE}, object_id=me(azure), scope=f"{TOP}/resourceGroups/rg-apps")

    assert arm.put_profile("aks-1", ENABLED).status_code == 200


def test_a_refusal_on_order_is_stronger_than_a_role(azure: Azure, arm: Arm) -> None:
    azure.aks.add("aks-1")
    azure.permissions.allow_only({READ}, object_id=me(azure))
    azure.permissions.refuse(READ)

    assert refusal(arm.get(CLUSTERS))[:2] == (403, "AuthorizationFailed")


@pytest.mark.parametrize(
    "path",
    [
        "/subscriptions",
        CLUSTERS,
        f"{TOP}/resourceGroups/rg-apps/providers/Microsoft.ContainerService/managedClusters",
        f"{TOP}/providers/Microsoft.KeyVault/vaults",
        f"{TOP}/providers/Microsoft.KeyVault/deletedVaults",
        f"{TOP}/resourceGroups/rg-apps/providers/Microsoft.ManagedIdentity/userAssignedIdentities",
    ],
)
def test_a_list_of_what_one_may_not_read_is_empty_and_not_refused(azure: Azure, arm: Arm, path: str) -> None:
    azure.aks.add("aks-1")
    azure.keyvault.add_vault("kv-there")
    azure.keyvault.remove_vault(azure.keyvault.add_vault("kv-gone"))
    azure.aks.add_identity("id-1")
    whole = arm.get(path).json()["value"]
    azure.permissions.allow_only((), object_id=me(azure))

    response = arm.get(path)

    assert whole != []
    assert (response.status_code, response.json()["value"]) == (200, [])


def test_a_list_shows_what_one_may_read_of_it_page_by_page(azure: Azure, arm: Arm) -> None:
    for number in range(4):
        azure.aks.add(f"aks-{number}", group=f"rg-{number % 2}")
    azure.aks.page_size = 2
    azure.permissions.allow_only({READ}, object_id=me(azure), scope=f"{TOP}/resourceGroups/rg-1")

    first = arm.get(CLUSTERS).json()
    second = arm.get(first["nextLink"]).json()

    assert first["value"] == []
    assert [row["name"] for row in second["value"]] == ["aks-1", "aks-3"]


@pytest.mark.parametrize("kind", ["roleAssignments", "roleDefinitions"])
def test_roles_that_one_may_not_read_are_refused(azure: Azure, arm: Arm, kind: str) -> None:
    azure.permissions.allow_only((), object_id=me(azure))

    status, code, text = refusal(arm.get(f"{TOP}/providers/Microsoft.Authorization/{kind}"))

    assert (status, code) == (403, "AuthorizationFailed")
    assert f"'Microsoft.Authorization/{kind}/read' over scope '{TOP}'" in text


def test_an_update_needs_the_right_to_assign_the_cluster_s_identity(azure: Azure, arm: Arm) -> None:
    azure.aks.add("aks-1")
    (identity,) = arm.cluster("aks-1")["identity"]["userAssignedIdentities"]
    azure.permissions.allow_only({READ, WRITE}, object_id=me(azure))

    status, code, text = refusal(arm.put_profile("aks-1", ENABLED))
    azure.permissions.allow_only({ASSIGN}, object_id=me(azure), scope=identity)
    allowed = arm.put_profile("aks-1", ENABLED)

    assert (status, code) == (403, "LinkedAuthorizationFailed")
    assert f"has permission to perform action '{WRITE}' on scope '{cluster_path('aks-1')}'" in text
    assert f"to perform action(s) '{ASSIGN}' on the linked scope(s) '{identity}' (respectively)" in text
    assert allowed.status_code == 200


@pytest.mark.parametrize("where", REFERENCES)
def test_an_update_needs_rights_on_all_that_the_document_refers_to(azure: Azure, arm: Arm, where: str) -> None:
    azure.aks.add("aks-1", identity="system-assigned")
    scope = f"{TOP}/resourceGroups/rg-else/providers/Microsoft.Some/things/thing"
    azure.permissions.allow_only({READ, WRITE}, object_id=me(azure))
    inner: Any = scope
    for name in reversed(where.split(".")):
        inner = {name: inner}

    body = arm.cluster("aks-1")
    status, code, text = refusal(arm.put("aks-1", body | {"properties": body["properties"] | inner}))

    assert (status, code) == (403, "LinkedAuthorizationFailed")
    assert [action for action in REFERENCES[where][1] if action not in text] == []
    assert scope in text
    assert azure.journal.writes() == ()


@pytest.mark.parametrize("body", [None, [], {"properties": []}, {"properties": {}, "identity": []}, "text"])
def test_a_body_of_an_odd_shape_is_refused_as_before(azure: Azure, arm: Arm, body: Any) -> None:
    azure.aks.add("aks-1")

    assert arm.put("aks-1", body).status_code == 400
