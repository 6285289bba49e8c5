"""What a cluster's document refers to, and which rights its update needs for that. Pure.

Which ones follows the list of what the identity that creates and operates a cluster needs (AKS docs,
aks-service-permissions) and, for the cluster's own identity, an AKS maintainer (github.com/Azure/AKS/issues/4980). No
document lists what an update of an existing cluster checks. A reference that no source speaks of is unknown; nothing is
guessed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

ENFORCE = "enforce"
CLUSTER_WRITE = "Microsoft.ContainerService/managedClusters/write"
_ASSIGN = "Microsoft.ManagedIdentity/userAssignedIdentities/assign/action"

_OWN_SUBNET = ("Microsoft.Network/virtualNetworks/subnets/join/action",)
_ADDRESS = ("Microsoft.Network/publicIPAddresses/join/action",)
_PREFIX = ("Microsoft.Network/publicIPPrefixes/join/action",)
_WORKSPACE = (
    "Microsoft.OperationalInsights/workspaces/read",
    "Microsoft.OperationalInsights/workspaces/sharedkeys/read",
)
_SOLUTIONS = ("Microsoft.OperationsManagement/solutions/read", "Microsoft.OperationsManagement/solutions/write")
_GATEWAY = ("Microsoft.Network/applicationGateways/read", "Microsoft.Network/applicationGateways/write")

REFERENCES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "agentpoolprofiles.vnetsubnetid": ("ownSubnet", _OWN_SUBNET),
    "agentpoolprofiles.podsubnetid": ("ownSubnet", _OWN_SUBNET),
    "apiserveraccessprofile.subnetid": ("ownSubnet", _OWN_SUBNET),
    "agentpoolprofiles.nodepublicipprefixid": ("outboundAddresses", _PREFIX),
    "networkprofile.loadbalancerprofile.outboundips.publicips.id": ("outboundAddresses", _ADDRESS),
    "networkprofile.loadbalancerprofile.outboundipprefixes.publicipprefixes.id": ("outboundAddresses", _PREFIX),
    "addonprofiles.omsagent.config.loganalyticsworkspaceresourceid": ("logAnalytics", _WORKSPACE),
    "securityprofile.defender.loganalyticsworkspaceresourceid": ("logAnalytics", _WORKSPACE),
    "azuremonitorprofile.containerinsights.loganalyticsworkspaceresourceid": ("logAnalytics", _WORKSPACE),
    "diskencryptionsetid": ("diskEncryptionSet", ("Microsoft.Compute/diskEncryptionSets/read",)),
    "agentpoolprofiles.proximityplacementgroupid": (
        "proximityPlacementGroup",
        ("Microsoft.Compute/proximityPlacementGroups/write",),
    ),
    "addonprofiles.ingressapplicationgateway.config.applicationgatewayid": ("applicationGateway", _GATEWAY),
    "addonprofiles.ingressapplicationgateway.config.effectiveapplicationgatewayid": ("applicationGateway", _GATEWAY),
    "addonprofiles.ingressapplicationgateway.config.subnetid": ("applicationGateway", _OWN_SUBNET),
    "apiserveraccessprofile.privatednszone": ("privateDnsZone", ("Microsoft.Network/privateDnsZones/join/action",)),
    "identityprofile.kubeletidentity.resourceid": (ENFORCE, (_ASSIGN,)),
}
"""Where a document refers to something, below `properties` and in lower case: the switch, and the actions there.

Of these the documents name no action for `privateDnsZone` and the kubelet's identity: what stands here is the action
that Azure has for joining the one and for assigning the other.
"""

_NOT_SENT = ("networkprofile.loadbalancerprofile.effectiveoutboundips.", "networkprofile.natgatewayprofile.effective")
"""Read-only: an update leaves them out."""

_RESOURCE_ID = re.compile(
    r"/subscriptions/[0-9a-f-]{36}/resourcegroups/[^/]+/providers/[^/]+(/[^/]+){2,}/?", re.IGNORECASE
)
_GROUP = re.compile(r"(/subscriptions/[^/]+/resourcegroups/[^/]+)/", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class RightNeeded:
    """An action that the update of a cluster needs at a scope, and the switch of infra/main.bicep that gives it."""

    switch: str
    action: str
    scope: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """A reference of which no source says what an update checks there."""

    where: str
    scope: str


def needs(document: Mapping[str, Any]) -> tuple[set[RightNeeded], set[Unknown]]:
    """Return what the update of one cluster needs, and what is not known, from ARM's document of it. Pure.

    What lies in the node resource group is AKS' own: there nothing is needed.
    """
    found = {RightNeeded(ENFORCE, CLUSTER_WRITE, group_of(document["id"]))}
    identity = document.get("identity")
    identities = identity.get("userAssignedIdentities") if isinstance(identity, Mapping) else None
    identities = identities if isinstance(identities, Mapping) else {}
    found |= {RightNeeded(ENFORCE, _ASSIGN, one) for one in identities if _RESOURCE_ID.fullmatch(str(one))}
    properties = document.get("properties")
    properties = properties if isinstance(properties, Mapping) else {}
    unknown: set[Unknown] = set()
    for where, scope in _references(properties):
        if where.lower().startswith(_NOT_SENT) or _is_of_aks(scope, document["id"], properties):
            continue
        if where.lower() not in REFERENCES:
            unknown.add(Unknown(where, scope))
            continue
        switch, actions = REFERENCES[where.lower()]
        found |= {RightNeeded(switch, action, scope) for action in actions}
        if actions is _WORKSPACE:
            found |= {RightNeeded(switch, action, group_of(scope)) for action in _SOLUTIONS}
    return found, unknown


def _references(value: Any, where: str = "") -> Iterator[tuple[str, str]]:
    """All resource ids below a value, as values or as keys, each with the names that lead to it."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            if _RESOURCE_ID.fullmatch(name):
                yield where, name.rstrip("/")
                continue
            yield from _references(inner, f"{where}.{name}".lstrip("."))
    elif isinstance(value, list):
        for inner in value:
            yield from _references(inner, where)
    elif isinstance(value, str) and _RESOURCE_ID.fullmatch(value):
        yield where, value.rstrip("/")


def _is_of_aks(scope: str, cluster: str, properties: Mapping[str, Any]) -> bool:
    subscription = cluster.split("/")[2]
    node_group = f"/subscriptions/{subscription}/resourcegroups/{properties.get('nodeResourceGroup')}"
    return group_of(scope).lower() == node_group.lower()


def group_of(resource_id: str) -> str:
    """The id of the resource group that a resource is in."""
    match = _GROUP.match(resource_id)
    return match[1] if match else resource_id
