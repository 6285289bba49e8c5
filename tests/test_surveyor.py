"""One look at vault, key and roles for all that share them: how long it is shared, and what is not."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from local.simulator import SUBSCRIPTION
from local.simulator.identity import TENANT
from shared.errors import Throttled, Unavailable
from shared.keys import Access, Grant, VaultId
from shared.surveyor import SHARED_FOR
from tests.product import NOW, Product, product

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from datetime import datetime

    from local.simulator import Azure
    from local.simulator.keyvault import SimulatedVault
    from local.storage import Account
    from shared.prerequisites import Prerequisites

SECOND = timedelta(seconds=1)
AT_VAULT, AT_KEY, AT_ROLES = "/vaults/kv-kms-weu$", "/vaults/kv-kms-weu/keys/etcd$", "roleAssignments$"
FULL = Access(Grant.GRANTED, Grant.GRANTED)


@pytest.fixture
async def app(azure: Azure, account: Account) -> AsyncIterator[Product]:  # noqa: ARG001  the clients reach it
    """The product."""
    async with product(account) as built:
        yield built


@pytest.fixture
def vault(azure: Azure) -> SimulatedVault:
    """A vault with a key."""
    made = azure.keyvault.add_vault("kv-kms-weu")
    azure.keyvault.add_key(made, "etcd")
    return made


def principal(azure: Azure, vault: SimulatedVault, *roles: str) -> str:
    """An identity with these roles on the vault."""
    made = str(uuid4())
    for role in roles:
        azure.access.assign(made, role, vault.id)
    return made


def grants(found: Prerequisites) -> Access:
    """What was found of an identity's access, whenever it was granted."""
    assert found.access is not None
    return replace(found.access, granted_at=None)


async def survey(
    app: Product, vault: SimulatedVault, *, principal: str | None = None, key: str = "etcd", now: datetime = NOW
) -> Prerequisites:
    return await app.reconciler.surveyor.survey(
        VaultId.parse(vault.id), key, principal=principal, subscription=SUBSCRIPTION, now=now
    )


def looks(azure: Azure, *paths: str) -> list[int]:
    """How often each of these was read."""
    return [len(azure.journal.matching("GET", path)) for path in paths]


# what is shared


async def test_many_at_once_share_one_look_at_the_vault_and_each_identity_gets_its_own(
    app: Product, azure: Azure, vault: SimulatedVault
) -> None:
    may = principal(azure, vault, "Key Vault Crypto User", "Key Vault Reader")
    may_not = principal(azure, vault)

    found = await asyncio.gather(*(survey(app, vault, principal=one) for one in (may, may_not) * 10))

    assert looks(azure, AT_VAULT, AT_KEY, AT_ROLES) == [1, 1, 2]
    assert [grants(one) for one in found[:2]] == [FULL, Access(Grant.MISSING, Grant.MISSING)]
    assert all(one == found[number % 2] for number, one in enumerate(found))


async def test_a_look_is_shared_for_less_than_a_minute(app: Product, azure: Azure, vault: SimulatedVault) -> None:
    who = principal(azure, vault)
    await survey(app, vault, principal=who)

    await survey(app, vault, principal=who, now=NOW + SHARED_FOR - SECOND)
    within = looks(azure, AT_VAULT, AT_KEY, AT_ROLES)
    await survey(app, vault, principal=who, now=NOW + SHARED_FOR)

    assert within == [1, 1, 1]
    assert looks(azure, AT_VAULT, AT_KEY, AT_ROLES) == [2, 2, 2]


async def test_sharing_a_look_does_not_make_it_younger(app: Product, azure: Azure, vault: SimulatedVault) -> None:
    for seconds in (0, 40, 80):
        await survey(app, vault, now=NOW + timedelta(seconds=seconds))

    assert looks(azure, AT_VAULT) == [2]


async def test_what_an_operator_mends_is_seen_after_a_minute(app: Product, azure: Azure, vault: SimulatedVault) -> None:
    who = principal(azure, vault)
    await survey(app, vault, principal=who)
    azure.access.assign(who, "Key Vault Crypto User", vault.id)
    azure.keyvault.set_key(vault.key("etcd"), enabled=False)

    shared = await survey(app, vault, principal=who, now=NOW + SHARED_FOR - SECOND)
    fresh = await survey(app, vault, principal=who, now=NOW + SHARED_FOR)

    assert grants(shared) == Access(Grant.MISSING, Grant.MISSING)
    assert shared.key is not None
    assert shared.key.enabled
    assert grants(fresh) == Access(Grant.GRANTED, Grant.MISSING)
    assert fresh.key is not None
    assert not fresh.key.enabled


async def test_two_keys_of_one_vault_and_two_vaults_share_nothing(
    app: Product, azure: Azure, vault: SimulatedVault
) -> None:
    azure.keyvault.add_key(vault, "other", kty="EC")
    elsewhere = azure.keyvault.add_vault("kv-kms-neu", default_action="Deny")
    azure.keyvault.add_key(elsewhere, "etcd")

    found = [await survey(app, vault), await survey(app, vault, key="other"), await survey(app, elsewhere)]

    assert [one.key and (one.key.id.vault, one.key.kind) for one in found] == [
        ("kv-kms-weu", "rsa"),
        ("kv-kms-weu", "ec"),
        ("kv-kms-neu", "rsa"),
    ]


async def test_the_tenant_of_a_subscription_is_read_once(app: Product, azure: Azure, vault: SimulatedVault) -> None:
    found = [await survey(app, vault, now=NOW + number * SHARED_FOR) for number in range(3)]

    assert [one.tenant for one in found] == [TENANT] * 3
    assert looks(azure, f"^/subscriptions/{SUBSCRIPTION}$") == [1]


# what is not


async def test_what_nobody_could_tell_of_roles_before_there_was_a_vault_is_asked_again_once_there_is(
    app: Product, azure: Azure, vault: SimulatedVault
) -> None:
    who = principal(azure, vault)
    del azure.keyvault.vaults[vault.id.lower()]
    azure.faults.fail_next("GET", AT_ROLES, 404, code="ResourceNotFound", message="no such vault")
    await survey(app, vault)
    await survey(app, vault, principal=who, now=NOW + SHARED_FOR / 2)
    azure.keyvault.put_vault(vault)

    found = await survey(app, vault, principal=who, now=NOW + SHARED_FOR)

    assert grants(found) == Access(Grant.MISSING, Grant.MISSING)


@pytest.mark.parametrize("path", [AT_VAULT, AT_KEY, AT_ROLES])
async def test_a_failure_is_not_shared_with_who_asks_next(
    app: Product, azure: Azure, vault: SimulatedVault, path: str
) -> None:
    who = principal(azure, vault, "Key Vault Crypto User", "Key Vault Reader")
    azure.faults.fail_next("GET", path, 501, code="Away", message="")

    with pytest.raises(Unavailable):
        await survey(app, vault, principal=who)
    found = await survey(app, vault, principal=who)

    assert grants(found) == FULL


async def test_who_waits_for_one_look_that_fails_fails_with_it_and_the_next_succeed(
    app: Product, azure: Azure, vault: SimulatedVault
) -> None:
    azure.faults.fail_next("GET", AT_VAULT, 501, code="Away", message="")

    ends = await asyncio.gather(*(survey(app, vault) for _ in range(5)), return_exceptions=True)
    again = await asyncio.gather(*(survey(app, vault) for _ in range(5)))

    assert {type(end) for end in ends} == {Unavailable}
    assert all(one.vault is not None for one in again)
    assert looks(azure, AT_VAULT) == [2]


async def test_a_throttled_look_says_when_to_come_back_and_is_not_shared(
    app: Product, azure: Azure, vault: SimulatedVault
) -> None:
    azure.faults.fail_next("GET", AT_VAULT, 429, code="Throttled", message="", headers={"Retry-After": "600"})

    with pytest.raises(Throttled) as caught:
        await asyncio.wait_for(survey(app, vault), timeout=30)

    assert caught.value.retry_after == timedelta(seconds=600)
    assert (await survey(app, vault)).vault is not None


async def test_a_caller_that_goes_away_takes_nobody_with_it(app: Product, azure: Azure, vault: SimulatedVault) -> None:
    azure.latency = timedelta(milliseconds=200)
    first = asyncio.ensure_future(survey(app, vault))
    await azure.until(lambda: azure.journal.matching("GET", AT_VAULT))
    second = asyncio.ensure_future(survey(app, vault))
    await asyncio.sleep(0)  # the second joins in

    first.cancel()

    found = await second
    assert found.vault is not None
    assert first.cancelled()
    assert looks(azure, AT_VAULT, AT_KEY) == [1, 1]


async def test_a_caller_that_goes_away_alone_leaves_its_look_to_the_next(
    app: Product, azure: Azure, vault: SimulatedVault
) -> None:
    azure.latency = timedelta(milliseconds=200)
    first = asyncio.ensure_future(survey(app, vault))
    await azure.until(lambda: azure.journal.matching("GET", AT_VAULT))
    first.cancel()
    await asyncio.wait([first])

    found = await survey(app, vault)

    assert found.vault is not None
    assert looks(azure, AT_VAULT, AT_KEY) == [1, 1]


# what is found


async def test_without_an_identity_nobodys_roles_are_read(app: Product, azure: Azure, vault: SimulatedVault) -> None:
    found = await survey(app, vault, principal=None)

    assert found.access is None
    assert looks(azure, AT_ROLES) == [0]


async def test_what_is_not_there_is_told_from_what_was_deleted(
    app: Product, azure: Azure, vault: SimulatedVault
) -> None:
    azure.access.assign(azure.identity.default.object_id, "Key Vault Reader", vault.id)

    steps: list[dict[str, Any]] = []
    for number, change in enumerate((_nothing, _without_key, _without_vault, _purged)):
        change(azure, vault)
        found = await survey(app, vault, principal=str(uuid4()), now=NOW + number * SHARED_FOR)
        deleted = (found.key_deleted, found.vault_deleted)
        steps.append({"vault": found.vault is not None, "key": found.key is not None, "deleted": deleted})

    assert steps == [
        {"vault": True, "key": True, "deleted": (False, False)},
        {"vault": True, "key": False, "deleted": (True, False)},
        {"vault": False, "key": False, "deleted": (False, True)},
        {"vault": False, "key": False, "deleted": (False, False)},
    ]
    assert looks(azure, AT_ROLES) == [4]  # asked for while the vault is, there or not


def _nothing(azure: Azure, vault: SimulatedVault) -> None:
    """As it was."""


def _without_key(azure: Azure, vault: SimulatedVault) -> None:
    azure.keyvault.delete_key(vault.key("etcd"))


def _without_vault(azure: Azure, vault: SimulatedVault) -> None:
    azure.keyvault.remove_vault(vault)


def _purged(azure: Azure, _vault: SimulatedVault) -> None:
    azure.keyvault.removed.clear()


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        pytest.param(AT_VAULT, 403, "AuthorizationFailed", id="vault"),
        pytest.param(AT_KEY, 403, "AuthorizationFailed", id="key"),
        pytest.param(AT_VAULT, 404, "SubscriptionNotFound", id="subscription-out-of-sight"),
    ],
)
async def test_what_may_not_be_read_is_a_finding_and_no_error(
    app: Product, azure: Azure, vault: SimulatedVault, path: str, status: int, code: str
) -> None:
    azure.faults.fail_next("GET", path, status, code=code, message="no")

    found = await survey(app, vault, principal=str(uuid4()))

    assert found.unreadable
    assert (found.vault, found.key, found.access) == (None, None, None)
    assert not found.vault_deleted


async def test_a_vault_in_a_group_that_does_not_exist_is_missing(app: Product, azure: Azure) -> None:
    vault = azure.keyvault.add_vault("kv-kms-weu")
    azure.keyvault.vaults.clear()
    azure.subscriptions.all[SUBSCRIPTION].groups.clear()

    found = await survey(app, vault)

    assert (found.vault, found.unreadable, found.vault_deleted) == (None, False, False)


async def test_roles_that_may_not_be_read_are_unknown_and_no_error(
    app: Product, azure: Azure, vault: SimulatedVault
) -> None:
    azure.access.readable = False

    found = await survey(app, vault, principal=str(uuid4()))

    assert found.access == Access(Grant.UNKNOWN, Grant.UNKNOWN)


async def test_a_subscription_whose_tenant_can_not_be_read_leaves_it_open(
    app: Product, azure: Azure, vault: SimulatedVault
) -> None:
    azure.faults.fail_next("GET", f"^/subscriptions/{SUBSCRIPTION}$", 403, code="AuthorizationFailed", message="no")

    unread = await survey(app, vault)
    read = await survey(app, vault)

    assert (unread.tenant, read.tenant) == (None, TENANT)
