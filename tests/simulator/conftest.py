"""Clients of the simulated Azure, raw and of the SDK."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from azure.identity import ManagedIdentityCredential
from azure.mgmt.containerservice import ContainerServiceClient
from azure.mgmt.keyvault import KeyVaultManagementClient

from local.simulator import SUBSCRIPTION
from tests.simulator.clients import Arm, Endpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from local.simulator import Azure


@contextmanager
def reaching[Client](kind: Callable[..., AbstractContextManager[Client]]) -> Iterator[Client]:
    """A synchronous SDK client. It retries nothing."""
    with ManagedIdentityCredential() as credential, kind(credential, SUBSCRIPTION, retry_total=0) as client:
        yield client


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
    with reaching(ContainerServiceClient) as client:
        yield client


@pytest.fixture
def vaults(azure: Azure) -> Iterator[KeyVaultManagementClient]:
    """The synchronous SDK client of Key Vault. It retries nothing."""
    assert azure.keyvault.vaults == {}
    with reaching(KeyVaultManagementClient) as client:
        yield client


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    """A subscriber of Event Grid."""
    subscriber = Endpoint()
    yield subscriber
    subscriber.close()
