"""Who gets through to a vault: its firewall, as ARM's properties set it.

Sources: Key Vault docs, network-security and overview-vnet-service-endpoints (firewall, trusted services), and
network-security-perimeter (`SecuredByPerimeter` overrides the bypass, `Disabled` keeps it).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from local.simulator.wire import Json


class Closed(StrEnum):
    """Why a vault does not let a caller through: the inner code of Key Vault's 403."""

    FIREWALL = "ForbiddenByFirewall"
    CONNECTION = "ForbiddenByConnection"


@dataclass(frozen=True, slots=True)
class Network:
    """The firewall of a vault. What a vault's document leaves out has the defaults of the resource provider."""

    public_access: str = "Enabled"  # Enabled, Disabled, SecuredByPerimeter
    default_action: str = "Allow"
    bypass: str = "AzureServices"
    ip_rules: tuple[str, ...] = ()

    @classmethod
    def of(cls, properties: Json) -> Network:
        """Read it from a vault's properties."""
        rules = properties.get("networkAcls") or {}
        return cls(
            public_access=str(properties.get("publicNetworkAccess") or "Enabled"),
            default_action=str(rules.get("defaultAction") or "Allow"),
            bypass=str(rules.get("bypass") or "AzureServices"),
            ip_rules=tuple(str(rule["value"]) for rule in rules.get("ipRules") or ()),
        )

    @property
    def is_open(self) -> bool:
        """True when every network gets through."""
        return self.public_access == "Enabled" and self.default_action == "Allow"

    @property
    def admits_trusted_services(self) -> bool:
        """True when a trusted service of Microsoft gets through, whatever the firewall says of others.

        A rule of a perimeter could admit it too; there are none here.
        """
        if self.is_open:
            return True
        return self.public_access != "SecuredByPerimeter" and self.bypass == "AzureServices"

    def closed_to(self, address: str) -> Closed | None:
        """Why a caller from this address, who is no trusted service, does not get through; None when it does.

        Which inner code a perimeter's refusal has is not documented; here it is the firewall's.
        """
        if self.public_access == "Disabled":
            return Closed.CONNECTION
        if self.public_access != "Enabled":
            return Closed.FIREWALL
        if self.default_action == "Allow" or any(ip_address(address) in ip_network(rule) for rule in self.ip_rules):
            return None
        return Closed.FIREWALL


def network_properties(
    public_access: str, default_action: str | None, bypass: str | None, ip_rules: tuple[str, ...]
) -> Json:
    """The firewall as it stands in a vault's properties; a vault that never had rules has no networkAcls."""
    properties: Json = {"publicNetworkAccess": public_access}
    if default_action is None and bypass is None and not ip_rules:
        return properties
    return properties | {
        "networkAcls": {
            "bypass": bypass or "AzureServices",
            "defaultAction": default_action or ("Deny" if ip_rules else "Allow"),
            "ipRules": [{"value": rule} for rule in ip_rules],
            "virtualNetworkRules": [],
        }
    }
