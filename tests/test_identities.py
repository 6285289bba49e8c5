"""The adapter of user-assigned identities, against the simulated Azure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from azure.core.pipeline.transport import AioHttpTransport
from azure.identity.aio import ManagedIdentityCredential

from local.simulator import SUBSCRIPTION
from shared.errors import Conflict, Refused, Throttled, Unavailable, Unreadable
from shared.identities import Identities

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from local.simulator import Azure

OTHER = "00000000-0000-0000-0000-000000000002"
PROVIDER = "providers/Microsoft.ManagedIdentity/userAssignedIdentities"
WANTED = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg-keys/{PROVIDER}/id-wanted"
PUT = ("PUT", "/userAssignedIdentities/id-wanted$")


@pytest.fixture
async def identities(azure: Azure) -> AsyncIterator[Identities]:
    """The adapter on real clients."""
    azure.add_resource_group("rg-keys")
    async with ManagedIdentityCredential() as credential, AioHttpTransport() as transport:
        yield Identities(credential, transport)


async def test_an_identity_is_told_from_one_that_is_not_there_in_any_subscription(
    identities: Identities, azure: Azure
) -> None:
    here, there = azure.identities.add("id-here"), azure.identities.add("id-there", subscription=OTHER)

    assert await identities.exists(here.id)
    assert await identities.exists(there.id.upper())
    assert not await identities.exists(WANTED)
    assert not await identities.exists(WANTED.replace("rg-keys", "rg-none"))


async def test_an_identity_that_may_not_be_read_is_neither_there_nor_missing(
    identities: Identities, azure: Azure
) -> None:
    azure.permissions.refuse("Microsoft.ManagedIdentity/userAssignedIdentities/read")

    with pytest.raises(Unreadable) as raised:
        await identities.exists(WANTED)
    assert raised.value.code == "AuthorizationFailed"


async def test_an_identity_is_made_with_nothing_but_its_region(identities: Identities, azure: Azure) -> None:
    await identities.create(WANTED, "northeurope")

    made = azure.identities.find(WANTED)
    assert made is not None
    assert (made.name, made.location, made.tags) == ("id-wanted", "northeurope", {})
    (call,) = azure.journal.writes()
    assert call.body == {"location": "northeurope"}


async def test_an_identity_that_is_there_is_not_written_over(identities: Identities, azure: Azure) -> None:
    made = azure.identities.add("id-wanted", group="rg-keys", location="westeurope", tags={"owner": "somebody"})

    await identities.create(WANTED, "northeurope")

    assert azure.journal.writes() == ()
    assert azure.identities.find(WANTED) is made
    assert (made.location, made.tags) == ("westeurope", {"owner": "somebody"})


async def test_an_identity_is_not_made_where_nobody_can_tell_whether_it_is_there(
    identities: Identities, azure: Azure
) -> None:
    azure.permissions.refuse("Microsoft.ManagedIdentity/userAssignedIdentities/read")

    with pytest.raises(Unreadable):
        await identities.create(WANTED, "westeurope")
    assert azure.journal.matching(*PUT) == ()


async def test_an_identity_in_a_group_that_is_not_there_is_refused_in_azures_words(
    identities: Identities, azure: Azure
) -> None:
    with pytest.raises(Refused) as raised:
        await identities.create(WANTED.replace("rg-keys", "rg-none"), "westeurope")
    assert raised.value.code == "ResourceGroupNotFound"
    assert azure.identities.all == {}


@pytest.mark.parametrize(
    ("status", "headers", "expected"),
    [
        pytest.param(429, {"Retry-After": "60"}, Throttled, id="throttled"),
        pytest.param(500, {}, Unavailable, id="server-error"),
        pytest.param(503, {}, Unavailable, id="unavailable"),
        pytest.param(409, {}, Conflict, id="conflict"),
        pytest.param(403, {}, Refused, id="refused"),
    ],
)
async def test_a_write_is_tried_once(
    identities: Identities, azure: Azure, status: int, headers: dict[str, str], expected: type[Exception]
) -> None:
    azure.faults.fail_next(*PUT, status, code="Odd", message="", headers=headers, times=5)

    with pytest.raises(expected):
        await identities.create(WANTED, "westeurope")
    assert len(azure.journal.matching(*PUT)) == 1
