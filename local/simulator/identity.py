"""Managed identities and their tokens: the App Service token endpoint, and who a token speaks for.

GET <IDENTITY_ENDPOINT>?resource=...&api-version=2019-08-01[&client_id=...], header X-IDENTITY-HEADER.
Source: App Service docs, overview-managed-identity, REST endpoint reference.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
import uuid
from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from local.simulator.errors import authentication_failed
from local.simulator.wire import Json, Reply, Request

TENANT = "6f1b7a52-93f4-4c1d-8a53-2f0f6d1f4a10"
PROTOCOL_VERSION = "2019-08-01"
MANAGEMENT_AUDIENCES = (
    "https://management.core.windows.net/",
    "https://management.core.windows.net",
    "https://management.azure.com/",
    "https://management.azure.com",
)

TOKEN_LIFETIME = timedelta(days=3650)  # far ahead: a test that moves the clock is not about token renewal
CLOCK_SKEW = timedelta(minutes=5)

# One key for all simulated tenants: a token that a process holds stays good when a test takes a fresh Azure.
SIGNING_KEY = b"simulated: signs nothing that anybody else trusts"


@dataclass(frozen=True, slots=True)
class Principal:
    """A managed identity of the app."""

    object_id: str
    client_id: str


@dataclass(frozen=True, slots=True)
class Caller:
    """Whom a call or an event speaks of: the claims of a token."""

    claims: Json

    @property
    def object_id(self) -> str:
        return str(self.claims.get("oid", ""))

    @property
    def app_id(self) -> str:
        return str(self.claims.get("appid", ""))


class Identity:
    """The identities that the app may ask tokens for: the default one, and others by client id."""

    def __init__(self) -> None:
        self.tenant_id = TENANT
        self.default = Principal(str(uuid.uuid4()), str(uuid.uuid4()))
        self.principals = {self.default.client_id: self.default}
        self._verified: dict[str, Caller] = {}

    def add(self, client_id: str) -> Principal:
        """Assign one more identity to the app."""
        self.principals[client_id] = Principal(str(uuid.uuid4()), client_id)
        return self.principals[client_id]

    def token(self, resource: str, principal: Principal | None = None) -> tuple[str, int]:
        """A bearer token for `resource` and its end in epoch seconds. Real time: others check it by their own clock."""
        principal = principal or self.default
        now = int(time.time())
        begin, end = now - int(CLOCK_SKEW.total_seconds()), now + int(TOKEN_LIFETIME.total_seconds())
        claims = {
            "aud": resource,
            "iss": f"https://sts.windows.net/{self.tenant_id}/",
            "iat": begin,
            "nbf": begin,
            "exp": end,
            "aio": base64.b64encode(uuid.uuid4().bytes).decode(),
            "appid": principal.client_id,
            "appidacr": "2",
            "idp": f"https://sts.windows.net/{self.tenant_id}/",
            "idtyp": "app",
            "oid": principal.object_id,
            "sub": principal.object_id,
            "tid": self.tenant_id,
            "uti": base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("="),
            "ver": "1.0",
        }
        return _signed(claims), end

    def authenticate(self, authorization: str | None) -> Caller:
        """The caller that an Authorization header speaks for; ARM's 401 when it does not hold for management calls."""
        if not authorization:
            text = "Authentication failed. The 'Authorization' header is missing."
            raise authentication_failed(self.tenant_id, "AuthenticationFailed", text)
        known = self._verified.get(authorization)
        if known is not None:
            return known
        claims = _claims(authorization)
        self._check(claims)
        return self._verified.setdefault(authorization, Caller(claims or {}))

    def caller(self, authorization: str | None, audiences: Collection[str]) -> Caller | None:
        """The same for a service other than ARM: None when the header does not hold for any of its audiences."""
        claims = _claims(authorization) if authorization else None
        if claims is None or claims["exp"] < time.time() or claims["aud"] not in audiences:
            return None
        return Caller(claims)

    def _check(self, claims: Json | None) -> None:
        if claims is None:
            text = "The access token is invalid."
            raise authentication_failed(self.tenant_id, "InvalidAuthenticationToken", text)
        if claims["exp"] < time.time():
            text = "The access token expiry UTC time is earlier than current UTC time."
            raise authentication_failed(self.tenant_id, "ExpiredAuthenticationToken", text)
        if claims["aud"] not in MANAGEMENT_AUDIENCES:
            allowed = ",".join(f"'{audience}'" for audience in MANAGEMENT_AUDIENCES)
            text = (
                f"The access token has been obtained for wrong audience or resource '{claims['aud']}'. "
                f"It should exactly match with one of the allowed audiences {allowed}."
            )
            raise authentication_failed(self.tenant_id, "InvalidAuthenticationTokenAudience", text)


def get_token(identity: Identity, request: Request, secret: str) -> Reply:
    """The token endpoint. Its errors have a shape of their own: statusCode and message."""
    if request.headers.get("x-identity-header") != secret:
        return _refusal(401, "The X-IDENTITY-HEADER header is missing or wrong.")
    if request.query.get("api-version") != PROTOCOL_VERSION:
        return _refusal(400, f"The api-version is not supported, use {PROTOCOL_VERSION}.")
    resource = request.query.get("resource")
    if not resource:
        return _refusal(400, "The resource query parameter is missing.")
    client_id = request.query.get("client_id", identity.default.client_id)
    principal = identity.principals.get(client_id)
    if principal is None:
        return _refusal(400, "No User Assigned or Delegated Managed Identity found for specified ClientId.")
    token, expires_on = identity.token(resource, principal)
    body = {
        "access_token": token,
        "expires_on": str(expires_on),
        "resource": resource,
        "token_type": "Bearer",
        "client_id": principal.client_id,
    }
    return Reply(200, body)


def _refusal(status: int, message: str) -> Reply:
    return Reply(status, {"statusCode": status, "message": message, "correlationId": str(uuid.uuid4())})


def _signed(claims: Json) -> str:
    head = _encoded(json.dumps({"typ": "JWT", "alg": "HS256", "kid": "simulated"}).encode())
    content = f"{head}.{_encoded(json.dumps(claims).encode())}"
    return f"{content}.{_signature(content)}"


def _claims(authorization: str) -> Json | None:
    """The claims of `Bearer <token>`, None when it is not one of ours."""
    scheme, _, token = authorization.partition(" ")
    content, _, signature = token.rpartition(".")
    if scheme.lower() != "bearer" or not hmac.compare_digest(_signature(content), signature):
        return None
    payload = content.partition(".")[2]
    claims: Any = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return dict(claims)


def _signature(content: str) -> str:
    return _encoded(hmac.digest(SIGNING_KEY, content.encode(), hashlib.sha256))


def _encoded(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")
