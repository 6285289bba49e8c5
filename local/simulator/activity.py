"""The activity log's events: who wrote or deleted which resource.

Source: Event Grid docs, event-schema-subscriptions. When AKS raises them, at acceptance or at the end of an operation,
is not documented: here it is both, with one correlation id, so that a reader has to bear either.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

from local.simulator.eventgrid import Event
from local.simulator.identity import TENANT, Caller

if TYPE_CHECKING:
    from datetime import datetime

    from local.simulator.wire import Json

WRITE_SUCCESS = "Microsoft.Resources.ResourceWriteSuccess"
DELETE_SUCCESS = "Microsoft.Resources.ResourceDeleteSuccess"

OBJECT_ID_CLAIM = "http://schemas.microsoft.com/identity/claims/objectidentifier"
TENANT_CLAIM = "http://schemas.microsoft.com/identity/claims/tenantid"
NAME_CLAIM = "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/upn"

# What no log of anybody may ever show: tests look for each of these.
PERSONAL_DATA = ("Robin Example", "robin.example@contoso.example", "203.0.113.77", "10032001F00D5EED")

PERSON = Caller(
    {
        "oid": "a5a0d5c4-7f0e-4a5e-9f4a-3b7f3f6f2a11",
        "appid": "04b07795-8ddb-461a-bbee-02f9e1bf7b46",
        "name": PERSONAL_DATA[0],
        "upn": PERSONAL_DATA[1],
        "ipaddr": PERSONAL_DATA[2],
        "puid": PERSONAL_DATA[3],
    }
)


@dataclass(frozen=True, slots=True)
class Activity:
    """One write or deletion, as the activity log tells it. `method` None: no httpRequest in the event (a creation)."""

    resource_id: str
    operation: str  # such as Microsoft.ContainerService/managedClusters/write
    caller: Caller
    correlation_id: str
    method: str | None = None

    def event(self, event_type: str, at: datetime) -> Event:
        """The Event Grid event, announced by the subscription and by the resource group."""
        _, _, subscription, _, group, *_ = self.resource_id.split("/")
        source = f"/subscriptions/{subscription}"
        sources = (source, f"{source}/resourceGroups/{group}")
        return Event(sources, self.resource_id, event_type, at, self._data(subscription), data_version="2")

    def _data(self, subscription: str) -> Json:
        data: Json = {
            "authorization": {
                "scope": self.resource_id,
                "action": self.operation,
                "evidence": {
                    "role": "Contributor",
                    "roleAssignmentScope": f"/subscriptions/{subscription}",
                    "roleAssignmentId": uuid.uuid4().hex,
                    "roleDefinitionId": "b24988ac618042a0ab8820f7382dd24c",
                    "principalId": self.caller.object_id.replace("-", ""),
                    "principalType": "User" if "upn" in self.caller.claims else "ServicePrincipal",
                },
            },
            "claims": _claims(self.caller),
            "correlationId": self.correlation_id,
            "resourceProvider": self.operation.partition("/")[0],
            "resourceUri": self.resource_id,
            "operationName": self.operation,
            "status": "Succeeded",
            "subscriptionId": subscription,
            "tenantId": TENANT,
        }
        if self.method is not None:
            data["httpRequest"] = {
                "clientRequestId": str(uuid.uuid4()),
                "clientIpAddress": PERSONAL_DATA[2],
                "method": self.method,
                "url": f"https://management.azure.com{self.resource_id}?api-version=2026-08-01",
            }
        return data


def _claims(caller: Caller) -> Json:
    claims: Json = {
        "aud": "https://management.core.windows.net/",
        "iss": f"https://sts.windows.net/{TENANT}/",
        "iat": "1790000000",
        "nbf": "1790000000",
        "exp": "1790005400",
        "aio": "AVQAq/8bAAAAsimulated",
        "appid": caller.app_id,
        "appidacr": "2",
        OBJECT_ID_CLAIM: caller.object_id,
        TENANT_CLAIM: TENANT,
        "uti": "c2ltdWxhdGVkLXV0aQ",
        "ver": "1.0",
    }
    if "upn" in caller.claims:
        claims["http://schemas.microsoft.com/identity/claims/scope"] = "user_impersonation"
        claims["http://schemas.microsoft.com/claims/authnmethodsreferences"] = "rsa,mfa"
        claims[NAME_CLAIM] = caller.claims["upn"]
        claims |= {name: caller.claims[name] for name in ("name", "ipaddr", "puid")}
    return claims
