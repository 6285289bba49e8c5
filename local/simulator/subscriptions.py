"""Subscriptions and resource groups: which exist.

Subscriptions: list, get. Resource groups: get.
Source: Azure REST reference, Subscriptions - List, Get; Resource Groups - Get.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from local.simulator.errors import resource_group_not_found, subscription_not_found
from local.simulator.identity import TENANT
from local.simulator.wire import Json, Reply, Request, route

if TYPE_CHECKING:
    from threading import Condition

SUBSCRIPTION = "00000000-0000-0000-0000-000000000001"
LOCATION = "westeurope"
READ = "Microsoft.Resources/subscriptions/read"


def list_subscriptions(subscriptions: Subscriptions, _request: Request) -> Reply:
    """Subscriptions - List: those that the caller can see."""
    rows = [subscription.document() for subscription in subscriptions.all.values()]
    return Reply(200, {"value": rows, "count": {"type": "Total", "value": len(rows)}})


def get_subscription(subscriptions: Subscriptions, request: Request) -> Reply:
    """Subscriptions - Get."""
    name = request["subscription"]
    subscriptions.require(name, None)
    return Reply(200, subscriptions.all[name.lower()].document())


def get_group(subscriptions: Subscriptions, request: Request) -> Reply:
    """Resource Groups - Get."""
    subscription = subscriptions.all[request["subscription"].lower()]
    return Reply(200, subscription.groups[request["group"].lower()].document(subscription.id))


@dataclass(frozen=True, slots=True)
class ResourceGroup:
    """One resource group. What lies in it may be elsewhere."""

    name: str
    location: str

    def document(self, subscription: str) -> Json:
        """As ARM shows it."""
        return {
            "id": f"/subscriptions/{subscription}/resourceGroups/{self.name}",
            "name": self.name,
            "type": "Microsoft.Resources/resourceGroups",
            "location": self.location,
            "tags": {},
            "properties": {"provisioningState": "Succeeded"},
        }


@dataclass(slots=True)
class Subscription:
    """One subscription with its resource groups, by lower-case name."""

    id: str
    name: str
    state: str = "Enabled"
    groups: dict[str, ResourceGroup] = field(default_factory=dict)

    def document(self) -> Json:
        """As ARM lists it."""
        return {
            "id": f"/subscriptions/{self.id}",
            "authorizationSource": "RoleBased",
            "managedByTenants": [],
            "subscriptionId": self.id,
            "tenantId": TENANT,
            "displayName": self.name,
            "state": self.state,
            "subscriptionPolicies": {
                "locationPlacementId": "Public_2014-09-01",
                "quotaId": "EnterpriseAgreement_2014-09-01",
                "spendingLimit": "Off",
            },
        }


class Subscriptions:
    """The subscriptions of the tenant, by lower-case id. A fresh Azure has one."""

    def __init__(self, changed: Condition) -> None:
        self._changed = changed
        self.all: dict[str, Subscription] = {}
        self.add(SUBSCRIPTION)

    def add(
        self, subscription: str, *, name: str | None = None, group: str | None = None, location: str = LOCATION
    ) -> Subscription:
        """Make sure that a subscription, and a group in it, exist. One that is there stays where it is."""
        with self._changed:
            found = self.all.get(subscription.lower())
            if found is None:
                found = Subscription(subscription, name or f"Subscription {len(self.all) + 1}")
                self.all[subscription.lower()] = found
            if group is not None:
                found.groups.setdefault(group.lower(), ResourceGroup(group, location))
            return found

    def remove(self, subscription: str) -> None:
        """Take a subscription away: ARM then says that it could not be found."""
        with self._changed:
            del self.all[subscription.lower()]

    def require(self, subscription: str, group: str | None) -> None:
        """Refuse, as ARM does, a path into a subscription or a group that is not there."""
        with self._changed:
            found = self.all.get(subscription.lower())
            if found is None:
                raise subscription_not_found(subscription)
            if group is not None and group.lower() not in found.groups:
                raise resource_group_not_found(group)


ROUTES = (
    route("GET", "/subscriptions", list_subscriptions, READ, filtered=True),
    route("GET", "/subscriptions/{subscription}", get_subscription, READ),
    route(
        "GET",
        "/subscriptions/{subscription}/resourceGroups/{group}",
        get_group,
        "Microsoft.Resources/subscriptions/resourceGroups/read",
    ),
)
