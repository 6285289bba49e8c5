"""Subscriptions, resource groups, and calls that nobody knows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import requests

from local.simulator import SUBSCRIPTION, Azure
from tests.simulator.clients import CLUSTERS, Arm, cluster_path, refusal

if TYPE_CHECKING:
    from local.simulator import Simulator

OTHER = "00000000-0000-0000-0000-000000000002"


def test_subscriptions_are_listed(azure: Azure, arm: Arm) -> None:
    azure.aks.add("aks-1", subscription=OTHER)

    rows = arm.get("/subscriptions").json()["value"]

    assert [(row["subscriptionId"], row["state"]) for row in rows] == [(SUBSCRIPTION, "Enabled"), (OTHER, "Enabled")]


def test_a_subscription_that_is_gone_is_named(azure: Azure, arm: Arm) -> None:
    azure.aks.add("aks-1")
    azure.subscriptions.remove(SUBSCRIPTION)

    response = arm.get(CLUSTERS)

    assert refusal(response) == (
        404,
        "SubscriptionNotFound",
        f"The subscription '{SUBSCRIPTION}' could not be found.",
    )


def test_a_group_that_never_was_is_named(arm: Arm) -> None:
    response = arm.get(cluster_path("aks-1", group="rg-none"))

    assert refusal(response) == (404, "ResourceGroupNotFound", "Resource group 'rg-none' could not be found.")


def test_an_unknown_call_is_loud(simulator: Simulator) -> None:
    azure = simulator.azure = Azure()
    arm = Arm(azure)

    with arm.session:
        parts_of_a_known_path = arm.get(f"{cluster_path('aks-1')}/agentPools")
        another_host = arm.session.get("https://graph.microsoft.com/v1.0/groups", timeout=60)

    assert refusal(parts_of_a_known_path)[:2] == (501, "NotSimulated")
    assert another_host.status_code == 501
    assert [call.host for call in azure.journal.unknown] == ["management.azure.com", "graph.microsoft.com"]


def test_the_proxy_only_makes_tunnels(simulator: Simulator) -> None:
    proxies = {"http": simulator.proxy_url}

    response = requests.get("http://example.invalid/", proxies=proxies, timeout=60)

    assert response.status_code == 501


def test_the_journal_holds_no_credentials(azure: Azure, arm: Arm) -> None:
    arm.get("/subscriptions")

    assert all("authorization" not in call.headers for call in azure.journal.calls)
