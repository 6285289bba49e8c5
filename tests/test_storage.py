"""Azurite as the product meets it: over TLS, by identity, one account per test."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from azure.data.tables import TableServiceClient
from azure.identity import ManagedIdentityCredential
from azure.storage.queue import QueueServiceClient

from local.storage import Storage, StorageError

if TYPE_CHECKING:
    from local.certificates import Authority


@pytest.fixture(scope="module")
def storage(authority: Authority) -> Iterator[Storage]:
    """A running storage."""
    with Storage(authority) as running:
        yield running


def test_tables_are_reached_by_identity(storage: Storage) -> None:
    account = storage.account()

    with (
        ManagedIdentityCredential() as credential,
        TableServiceClient(account.table_uri, credential=credential) as tables,
    ):
        tables.create_table("clusters")
        names = [table.name for table in tables.list_tables()]

    assert names == ["clusters"]


def test_queues_are_reached_by_identity(storage: Storage) -> None:
    account = storage.account()

    with (
        ManagedIdentityCredential() as credential,
        QueueServiceClient(account.queue_uri, credential=credential) as queues,
    ):
        queues.create_queue("clusters")
        names = [queue.name for queue in queues.list_queues()]

    assert names == ["clusters"]


def test_queues_are_reached_by_key(storage: Storage) -> None:
    account = storage.account()

    with QueueServiceClient.from_connection_string(account.connection_string()) as queues:
        queues.create_queue("clusters")
        names = [queue.name for queue in queues.list_queues()]

    assert names == ["clusters"]


def test_each_account_is_handed_out_once_and_empty(storage: Storage) -> None:
    first, second = storage.account(), storage.account()

    with QueueServiceClient.from_connection_string(first.connection_string()) as queues:
        queues.create_queue(f"q-{uuid.uuid4()}")
    with QueueServiceClient.from_connection_string(second.connection_string()) as queues:
        names = [queue.name for queue in queues.list_queues()]

    assert first.name != second.name
    assert names == []


def test_the_settings_name_services_and_no_secret(storage: Storage) -> None:
    account = storage.account()

    settings = account.settings()

    assert settings["AzureWebJobsStorage__queueServiceUri"] == account.queue_uri
    assert settings["AzureWebJobsStorage__credential"] == "managedidentity"
    assert account.key not in str(settings)


def test_a_storage_that_does_not_run_has_no_accounts(authority: Authority) -> None:
    with pytest.raises(StorageError, match="does not run"):
        Storage(authority).account()
