"""Tokens: the App Service endpoint, and what ARM says to those that do not hold."""

from __future__ import annotations

import base64
import json
import time
from typing import TYPE_CHECKING, Any

import pytest
import requests
from azure.core.exceptions import ClientAuthenticationError
from azure.identity import ManagedIdentityCredential
from azure.identity.aio import ManagedIdentityCredential as AsyncManagedIdentityCredential

from local.simulator.identity import TENANT
from tests.simulator.clients import API_VERSION, Arm, cluster_path, refusal

if TYPE_CHECKING:
    from local.simulator import Azure, Simulator

SUBSCRIPTIONS_URL = f"https://management.azure.com/subscriptions?api-version={API_VERSION}"


def test_a_token_has_the_real_shape(azure: Azure) -> None:
    with ManagedIdentityCredential() as credential:
        token = credential.get_token("https://storage.azure.com/.default")

    claims = _claims(token.token)
    assert claims["aud"] == "https://storage.azure.com"
    assert claims["iss"] == f"https://sts.windows.net/{TENANT}/"
    assert claims["nbf"] < time.time() - 240
    assert claims["exp"] == token.expires_on
    assert (claims["tid"], claims["oid"], claims["appid"]) == (
        TENANT,
        azure.identity.default.object_id,
        azure.identity.default.client_id,
    )


async def test_the_asynchronous_credential_gets_one_too(azure: Azure) -> None:
    async with AsyncManagedIdentityCredential() as credential:
        token = await credential.get_token("https://management.azure.com/.default")

    assert _claims(token.token)["oid"] == azure.identity.default.object_id
    assert [call.path for call in azure.journal.calls] == ["/msi/token"]


def test_an_identity_is_chosen_by_its_client_id(azure: Azure) -> None:
    principal = azure.identity.add("9d1f0f33-0c1b-4b53-9d39-000000000001")

    with ManagedIdentityCredential(client_id=principal.client_id) as credential:
        token = credential.get_token("https://management.azure.com/.default")

    assert _claims(token.token)["oid"] == principal.object_id


@pytest.mark.usefixtures("azure")
def test_an_identity_that_the_app_does_not_have_is_refused() -> None:
    with (
        ManagedIdentityCredential(client_id="9d1f0f33-0c1b-4b53-9d39-00000000ffff") as credential,
        pytest.raises(ClientAuthenticationError),
    ):
        credential.get_token("https://management.azure.com/.default")


def test_the_token_endpoint_checks_its_secret(azure: Azure, simulator: Simulator) -> None:
    url = simulator.environment()["IDENTITY_ENDPOINT"]
    query = {"api-version": "2019-08-01", "resource": "https://management.azure.com"}

    response = requests.get(url, params=query, headers={"X-IDENTITY-HEADER": "guessed"}, timeout=60)

    assert response.status_code == 401
    assert "x-identity-header" not in azure.journal.calls[-1].headers


@pytest.mark.usefixtures("azure")
def test_a_call_without_a_token_is_refused() -> None:
    response = requests.get(SUBSCRIPTIONS_URL, timeout=60)

    assert refusal(response) == (
        401,
        "AuthenticationFailed",
        "Authentication failed. The 'Authorization' header is missing.",
    )
    assert response.headers["WWW-Authenticate"].startswith("Bearer authorization_uri=")


@pytest.mark.parametrize(
    ("authorization", "code"),
    [
        pytest.param("Bearer e30.e30.e30", "InvalidAuthenticationToken", id="forged"),
        pytest.param("Basic dXNlcjpwYXNz", "InvalidAuthenticationToken", id="another-scheme"),
    ],
)
@pytest.mark.usefixtures("azure")
def test_a_token_of_nobody_is_refused(authorization: str, code: str) -> None:
    response = requests.get(SUBSCRIPTIONS_URL, headers={"Authorization": authorization}, timeout=60)

    assert refusal(response)[:2] == (401, code)


def test_a_token_for_another_service_is_refused(azure: Azure) -> None:
    token, _ = azure.identity.token("https://vault.azure.net")

    response = requests.get(SUBSCRIPTIONS_URL, headers={"Authorization": f"Bearer {token}"}, timeout=60)

    assert refusal(response)[:2] == (401, "InvalidAuthenticationTokenAudience")


def test_a_token_outlives_the_azure_that_gave_it(azure: Azure, simulator: Simulator, arm: Arm) -> None:
    simulator.azure = type(azure)()

    response = arm.get("/subscriptions")

    assert response.status_code == 200


def test_a_call_without_api_version_is_refused(arm: Arm) -> None:
    response = arm.session.get(f"https://management.azure.com{cluster_path('aks-1')}", timeout=60)

    assert refusal(response)[:2] == (400, "MissingApiVersionParameter")


def _claims(token: str) -> dict[str, Any]:
    payload = token.split(".")[1]
    claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return claims
