"""Clients of the simulated Azure, raw and of the SDK."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from azure.identity import ManagedIdentityCredential
from azure.mgmt.containerservice import ContainerServiceClient
from azure.mgmt.keyvault import KeyVaultManagementClient

from local.simulator import SUBSCRIPTION
from tests.simulator.clients import Arm, Endpoint

if TYPE_CHECKING:
    from collections.abc import Iterator

    from local.simulator import Azure


@pytest.fixture
def arm(azure: Azure) -> Iterator[Arm]:
    """ARM by plain HTTP."""
    client = Arm(azure)
    yield client
    client.session.close()


@pytest.fixture
def clusters(azure: Azure) -> Iterator[ContainerServiceClient]:
    """The synchronous SDK client of AKS. It retries nothing."""
    assert azure.aks.clusters == {}
    with (
        ManagedIdentityCredential() as credential,
        ContainerServiceClient(credential, SUBSCRIPTION, retry_total=0) as client,
    ):
        yield client


@pytest.fixture
def vaults(azure: Azure) -> Iterator[KeyVaultManagementClient]:
    """The synchronous SDK client of Key Vault. It retries nothing."""
    assert azure.keyvault.vaults == {}
    with (
        ManagedIdentityCredential() as credential,
        KeyVaultManagementClient(credential, SUBSCRIPTION, retry_total=0) as client,
    ):
        yield client


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    """A subscriber of Event Grid."""
    subscriber = Endpoint()
    yield subscriber
    subscriber.close()
