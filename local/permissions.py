"""`python -m local.permissions FLEET`: which rights the updates of a fleet need, and where.

An update sends a cluster's document back as it was read, and Azure checks rights on what the document refers to. Which
ones follows the list of what the identity that creates and operates a cluster needs (AKS docs, aks-service-permissions)
and, for the cluster's own identity, an AKS maintainer (github.com/Azure/AKS/issues/4980). No document lists what an
update of an existing cluster checks. A reference that no source speaks of is shown as unknown; nothing is guessed.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from local.fleet import FleetError, OutsideFleet

ENFORCE = "enforce"
_CLUSTER_WRITE = "Microsoft.ContainerService/managedClusters/write"
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
    r"/subscriptions/[0-9a-f-]{36}/resourcegroups/[^/]+/providers/[^/]+(/[^/]+){2,}", re.IGNORECASE
)
_GROUP = re.compile(r"(/subscriptions/[^/]+/resourcegroups/[^/]+)/", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Need:
    """An action that the update of a cluster needs at a scope, and the switch of infra/main.bicep that gives it."""

    switch: str
    action: str
    scope: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """A reference of which no source says what an update checks there."""

    where: str
    scope: str


def needs(document: Mapping[str, Any]) -> tuple[set[Need], set[Unknown]]:
    """Return what the update of one cluster needs, and what is not known, from ARM's document of it. Pure.

    What lies in the node resource group is AKS' own: there nothing is needed.
    """
    found = {Need(ENFORCE, _CLUSTER_WRITE, _group(document["id"]))}
    identities = (document.get("identity") or {}).get("userAssignedIdentities") or {}
    found |= {Need(ENFORCE, _ASSIGN, identity) for identity in identities}
    properties = document.get("properties") or {}
    unknown: set[Unknown] = set()
    for where, scope in _references(properties):
        if where.lower().startswith(_NOT_SENT) or _is_of_aks(scope, document["id"], properties):
            continue
        if where.lower() not in REFERENCES:
            unknown.add(Unknown(where, scope))
            continue
        switch, actions = REFERENCES[where.lower()]
        found |= {Need(switch, action, scope) for action in actions}
        if actions is _WORKSPACE:
            found |= {Need(switch, action, _group(scope)) for action in _SOLUTIONS}
    return found, unknown


def _references(value: Any, where: str = "") -> Iterator[tuple[str, str]]:
    """All resource ids below a value, as values or as keys, each with the names that lead to it."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            if _RESOURCE_ID.fullmatch(name):
                yield where, name
                continue
            yield from _references(inner, f"{where}.{name}".lstrip("."))
    elif isinstance(value, list):
        for inner in value:
            yield from _references(inner, where)
    elif isinstance(value, str) and _RESOURCE_ID.fullmatch(value):
        yield where, value


def _is_of_aks(scope: str, cluster: str, properties: Mapping[str, Any]) -> bool:
    subscription = cluster.split("/")[2]
    node_group = f"/subscriptions/{subscription}/resourcegroups/{properties.get('nodeResourceGroup')}"
    return _group(scope).lower() == node_group.lower()


def _group(scope: str) -> str:
    match = _GROUP.match(scope)
    return match[1] if match else scope


@dataclass(frozen=True, slots=True)
class FleetNeeds:
    """What the updates of a fleet need. Each with the names of the clusters that it is for."""

    needs: Mapping[Need, tuple[str, ...]]
    unknown: Mapping[Unknown, tuple[str, ...]]

    @classmethod
    def of(cls, documents: Iterable[Mapping[str, Any]]) -> FleetNeeds:
        """Put together what each cluster needs. Azure's ids differ in case: the first spelling stays."""
        needed: defaultdict[Need, list[str]] = defaultdict(list)
        unknown: defaultdict[Unknown, list[str]] = defaultdict(list)
        spelt: dict[str, str] = {}
        for document in documents:
            some_needs, some_unknown = needs(document)
            for need in some_needs:
                scope = spelt.setdefault(need.scope.lower(), need.scope)
                needed[Need(need.switch, need.action, scope)].append(document["name"])
            for one in some_unknown:
                scope = spelt.setdefault(one.scope.lower(), one.scope)
                unknown[Unknown(one.where, scope)].append(document["name"])
        return cls(_sorted(needed), _sorted(unknown))

    @property
    def linked_features(self) -> list[str]:
        """What the parameter `linkedFeatures` of infra/main.bicep has to list."""
        return sorted({need.switch for need in self.needs} - {ENFORCE})

    @property
    def subscriptions(self) -> list[str]:
        """In which subscriptions the rights are needed: `watchedSubscriptions` has to list them all."""
        return sorted({need.scope.split("/")[2].lower() for need in self.needs})


def _sorted[K: (Need, Unknown)](found: Mapping[K, list[str]]) -> dict[K, tuple[str, ...]]:
    return {key: tuple(sorted(set(found[key]))) for key in sorted(found, key=lambda one: str(one).lower())}


def lines(fleet: FleetNeeds) -> Iterator[str]:
    """Say it in words. Pure."""
    yield "To update these clusters, the app needs these actions, each with the switch that gives it:"
    scopes: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for need, names in fleet.needs.items():
        scopes[need.switch, need.action].append(f"    {need.scope}  ({_clusters(names)})")
    for (switch, action), listed in scopes.items():
        yield f"\n{action}  [{switch}]"
        yield from listed
    if fleet.unknown:
        yield "\nUnknown: no source says whether an update checks anything here. Azure's answer would name it."
    for one, names in fleet.unknown.items():
        yield f"    {one.where}: {one.scope}  ({_clusters(names)})"
    yield "\nFor infra/main.parameters.json, if the app is to update all of them:"
    yield f'    "watchedSubscriptions": {{ "value": {json.dumps(fleet.subscriptions)} }}'
    yield f'    "linkedFeatures": {{ "value": {json.dumps(fleet.linked_features)} }}'
    yield '    "enforce": { "value": true }'


def _clusters(names: tuple[str, ...]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def main() -> int:
    """Print what a fleet needs; 1 and a sentence if the file holds no fleet."""
    parser = argparse.ArgumentParser(prog="python -m local.permissions", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("fleet", type=Path, help="what `az rest` printed of your clusters")
    options = parser.parse_args()
    try:
        fleet = OutsideFleet.read(options.fleet)
        text = "\n".join(lines(FleetNeeds.of(fleet.documents)))
    except FleetError as error:
        print(error, file=sys.stderr)
        return 1
    except RecursionError:
        print(f"{options.fleet} is nested too deep for a fleet", file=sys.stderr)
        return 1
    print(text)
    for warning in fleet.warnings:
        print(warning, file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
