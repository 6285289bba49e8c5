"""What roles and access policies allow, and the one grant that the app makes. The other calls have their tests with
the rooms.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid5

import pytest
from azure.core.credentials import AccessToken
from azure.core.pipeline.transport import AioHttpTransport
from azure.identity.aio import ManagedIdentityCredential

from local.simulator import SUBSCRIPTION
from shared.access import (
    DECRYPT,
    ENCRYPT,
    READ_VAULT,
    UNWRAP,
    WRAP,
    Assigned,
    Permissions,
    Roles,
    crypto_by_policies,
    crypto_by_roles,
    reading_by_roles,
)
from shared.errors import Conflict, Refused, ServiceError, Throttled, Unavailable
from shared.keys import Grant, VaultId
from shared.preparations import Role
from tests.builders import NOW, PRINCIPAL, vault

if TYPE_CHECKING:
    from local.simulator import Azure

SOMEBODY = "00000000-0000-0000-0000-0000000000c9"


def role(
    *data: str,
    without: Iterable[str] = (),
    actions: Iterable[str] = (),
    without_actions: Iterable[str] = (),
    conditional: bool = False,
) -> Assigned:
    """A role of one block: its data actions, its actions, and what it takes out of either."""
    return Assigned((block(*data, without=without, actions=actions, without_actions=without_actions),), conditional)


def block(
    *data: str, without: Iterable[str] = (), actions: Iterable[str] = (), without_actions: Iterable[str] = ()
) -> Permissions:
    def lower(patterns: Iterable[str]) -> frozenset[str]:
        return frozenset(pattern.lower() for pattern in patterns)

    return Permissions(lower(actions), lower(without_actions), lower(data), lower(without))


KEYS = "Microsoft.KeyVault/vaults/keys"
CRYPTO_USER = role(*(f"{KEYS}/{verb}/action" for verb in ("encrypt", "decrypt", "wrap", "unwrap", "sign", "verify")))
CRYPTO_OFFICER = role(f"{KEYS}/*", "Microsoft.KeyVault/vaults/keyrotationpolicies/*")
ADMINISTRATOR = role("Microsoft.KeyVault/vaults/*")
TRAP = role(f"{KEYS}/read", f"{KEYS}/wrap/action", f"{KEYS}/unwrap/action")
OWNER = role(actions=["*"])
CONTRIBUTOR = role(actions=["Microsoft.KeyVault/*"], without_actions=["Microsoft.KeyVault/hsmPools/*"])

KEY_VAULT_READER = role(
    "Microsoft.KeyVault/vaults/*/read",
    "Microsoft.KeyVault/vaults/secrets/readMetadata/action",
    actions=[
        "Microsoft.Authorization/*/read",
        "Microsoft.KeyVault/vaults/*/read",
        "Microsoft.KeyVault/operations/read",
    ],
)
"""The second role that the documents name. Source: Azure RBAC docs, built-in-roles."""

# encrypt and decrypt by roles


@pytest.mark.parametrize(
    ("held", "expected"),
    [
        pytest.param([], Grant.MISSING, id="nothing"),
        pytest.param([CRYPTO_USER], Grant.GRANTED, id="crypto-user"),
        pytest.param([CRYPTO_OFFICER], Grant.GRANTED, id="crypto-officer-by-a-pattern"),
        pytest.param([ADMINISTRATOR], Grant.GRANTED, id="administrator-by-a-pattern"),
        pytest.param([role("*")], Grant.GRANTED, id="everything"),
        pytest.param([role(f"{KEYS}/*/action")], Grant.GRANTED, id="a-pattern-with-an-end"),
        pytest.param([role(f"{KEYS}/ENCRYPT/action", f"{KEYS}/Decrypt/Action")], Grant.GRANTED, id="in-any-casing"),
        pytest.param([OWNER], Grant.MISSING, id="an-owner-has-no-data-actions"),
        pytest.param([CONTRIBUTOR], Grant.MISSING, id="a-contributor-has-no-data-actions"),
        pytest.param([role(actions=[f"{KEYS}/encrypt/action", f"{KEYS}/decrypt/action"])], Grant.MISSING, id="plane"),
        pytest.param([role(f"{KEYS}/read")], Grant.MISSING, id="a-reader-of-keys"),
        pytest.param([role("Microsoft.KeyVault/vaults/secrets/*")], Grant.MISSING, id="secrets"),
        pytest.param([role(f"{KEYS}/encrypt/actions", f"{KEYS}/decrypt/actions")], Grant.MISSING, id="nearly"),
        pytest.param([role(f"{KEYS}/encrypt/action")], Grant.MISSING, id="encrypt-alone"),
        pytest.param([role(f"{KEYS}/decrypt/action")], Grant.MISSING, id="decrypt-alone"),
        pytest.param(
            [role(f"{KEYS}/encrypt/action"), role(f"{KEYS}/decrypt/action")], Grant.GRANTED, id="two-roles-together"
        ),
        pytest.param(
            [Assigned((block(f"{KEYS}/encrypt/action"), block(f"{KEYS}/decrypt/action")))],
            Grant.GRANTED,
            id="two-blocks-of-one-role",
        ),
        pytest.param([role("*", without=[f"{KEYS}/decrypt/action"])], Grant.WRAP_ONLY, id="decrypt-is-taken-out"),
        pytest.param([role("*", without=[f"{KEYS}/*"])], Grant.MISSING, id="taken-out-by-a-pattern"),
        pytest.param([role("*", without=["*"])], Grant.MISSING, id="all-is-taken-out"),
        pytest.param(
            [role("*", without=[f"{KEYS}/decrypt/action"]), CRYPTO_USER], Grant.GRANTED, id="another-role-gives-it-back"
        ),
        pytest.param(
            [Assigned((block("*", without=["*"]), block(f"{KEYS}/*")))], Grant.GRANTED, id="another-block-gives-it-back"
        ),
        pytest.param([TRAP], Grant.WRAP_ONLY, id="the-trap"),
        pytest.param([TRAP, role(f"{KEYS}/encrypt/action")], Grant.WRAP_ONLY, id="the-trap-and-half-of-it"),
        pytest.param([TRAP, CRYPTO_USER], Grant.GRANTED, id="the-trap-does-no-harm-beside-the-right-role"),
        pytest.param([role(f"{KEYS}/wrap/action")], Grant.MISSING, id="wrap-alone"),
        pytest.param(
            [role(f"{KEYS}/wrap/action"), role(f"{KEYS}/unwrap/action")], Grant.WRAP_ONLY, id="the-trap-in-two-roles"
        ),
        pytest.param([Assigned(())], Grant.MISSING, id="a-role-without-permissions"),
    ],
)
def test_roles_are_judged_by_what_they_allow_and_not_by_their_names(held: list[Assigned], expected: Grant) -> None:
    assert crypto_by_roles(held) is expected


MAYBE_CRYPTO_USER = Assigned(CRYPTO_USER.permissions, conditional=True)
MAYBE_TRAP = Assigned(TRAP.permissions, conditional=True)


@pytest.mark.parametrize(
    ("held", "expected"),
    [
        pytest.param([MAYBE_CRYPTO_USER], Grant.UNKNOWN, id="under-a-condition"),
        pytest.param([MAYBE_CRYPTO_USER, CRYPTO_USER], Grant.GRANTED, id="without-one-too"),
        pytest.param([MAYBE_CRYPTO_USER, MAYBE_CRYPTO_USER], Grant.UNKNOWN, id="under-two-conditions"),
        pytest.param(
            [role(f"{KEYS}/encrypt/action"), role(f"{KEYS}/decrypt/action", conditional=True)],
            Grant.UNKNOWN,
            id="half-of-it-under-a-condition",
        ),
        pytest.param([role(f"{KEYS}/encrypt/action", conditional=True)], Grant.MISSING, id="and-half-of-it-nowhere"),
        pytest.param([MAYBE_CRYPTO_USER, TRAP], Grant.UNKNOWN, id="beside-the-trap"),
        pytest.param([MAYBE_TRAP], Grant.MISSING, id="the-trap-under-a-condition-is-nothing"),
        pytest.param([role("*", without=["*"], conditional=True)], Grant.MISSING, id="nothing-under-a-condition"),
    ],
)
def test_what_hangs_on_a_condition_is_unknown(held: list[Assigned], expected: Grant) -> None:
    assert crypto_by_roles(held) is expected


def test_roles_may_come_in_any_order_and_only_once() -> None:
    held = [TRAP, role(f"{KEYS}/encrypt/action"), role(f"{KEYS}/decrypt/action", conditional=True)]

    answers = {crypto_by_roles(iter(held)), crypto_by_roles(reversed(held)), crypto_by_roles(tuple(held))}

    assert answers == {Grant.UNKNOWN}


# reading the vault


@pytest.mark.parametrize(
    ("held", "expected"),
    [
        pytest.param([], Grant.MISSING, id="nothing"),
        pytest.param([CONTRIBUTOR], Grant.GRANTED, id="key-vault-contributor"),
        pytest.param([OWNER], Grant.GRANTED, id="owner"),
        pytest.param([KEY_VAULT_READER], Grant.GRANTED, id="key-vault-reader-by-a-pattern-that-ends-in-read"),
        pytest.param([role(actions=["*/read"])], Grant.GRANTED, id="reader"),
        pytest.param([role(actions=["Microsoft.KeyVault/vaults/read"])], Grant.GRANTED, id="by-its-name"),
        pytest.param([CRYPTO_USER], Grant.MISSING, id="crypto-user-reads-keys-and-not-the-vault"),
        pytest.param([role("*")], Grant.MISSING, id="data-actions-are-another-plane"),
        pytest.param([role(actions=["Microsoft.Compute/*"])], Grant.MISSING, id="another-provider"),
        pytest.param([role(actions=["Microsoft.KeyVault/*/write"])], Grant.MISSING, id="another-verb"),
        pytest.param([role(actions=["Microsoft.KeyVault/vaults/keys/read"])], Grant.MISSING, id="what-lies-below-it"),
        pytest.param(
            [role(actions=["*"], without_actions=["Microsoft.KeyVault/vaults/read"])], Grant.MISSING, id="taken-out"
        ),
        pytest.param([role(actions=["*"], conditional=True)], Grant.UNKNOWN, id="under-a-condition"),
        pytest.param([role(actions=["*"], conditional=True), OWNER], Grant.GRANTED, id="without-one-too"),
    ],
)
def test_who_may_read_the_vault_is_told_by_actions(held: list[Assigned], expected: Grant) -> None:
    assert reading_by_roles(held) is expected


@pytest.mark.parametrize("action", [ENCRYPT, DECRYPT, WRAP, UNWRAP, READ_VAULT])
def test_the_actions_are_written_in_lower_case_as_the_patterns_are(action: str) -> None:
    assert action == action.lower()
    assert action.startswith("microsoft.keyvault/vaults/")


def test_a_block_that_says_nothing_allows_nothing() -> None:
    assert not Permissions().allows(READ_VAULT)
    assert not Permissions().allows_data(ENCRYPT)


# access policies


@pytest.mark.parametrize(
    ("allowed", "expected"),
    [
        pytest.param({"encrypt", "decrypt"}, Grant.GRANTED, id="both"),
        pytest.param({"encrypt", "decrypt", "wrapkey", "get"}, Grant.GRANTED, id="more"),
        pytest.param({"all"}, Grant.GRANTED, id="all"),
        pytest.param({"encrypt"}, Grant.MISSING, id="encrypt-alone"),
        pytest.param({"get", "list"}, Grant.MISSING, id="reading-alone"),
        pytest.param({"wrapkey", "unwrapkey"}, Grant.WRAP_ONLY, id="wrap-only"),
        pytest.param({"wrapkey", "unwrapkey", "encrypt"}, Grant.WRAP_ONLY, id="wrap-only-and-half-of-it"),
        pytest.param({"wrapkey"}, Grant.MISSING, id="wrap-alone"),
        pytest.param(set(), Grant.MISSING, id="nothing"),
    ],
)
def test_an_access_policy_says_what_its_identity_may_do(allowed: set[str], expected: Grant) -> None:
    found = vault(rbac=False, policies={PRINCIPAL: frozenset(allowed)})

    assert crypto_by_policies(found, PRINCIPAL) is expected


def test_an_access_policy_names_its_identity_in_any_casing() -> None:
    found = vault(rbac=False, policies={PRINCIPAL.upper(): frozenset({"all"})})

    assert crypto_by_policies(found, PRINCIPAL) is Grant.GRANTED


def test_an_access_policy_is_for_its_own_identity_alone() -> None:
    found = vault(rbac=False, policies={SOMEBODY: frozenset({"wrapkey", "unwrapkey"})})

    assert crypto_by_policies(found, PRINCIPAL) is Grant.MISSING
    assert crypto_by_policies(vault(rbac=False), PRINCIPAL) is Grant.MISSING


# the grant

VAULT = VaultId(SUBSCRIPTION, "rg-keys", "kv-kms-weu")
GRANTS = UUID("4c0e3f0e-2f8b-5a53-9d5e-7a5f6d1f1c11")
"""Grants that were made by earlier versions of the app have names of this root: it must not change."""

PUT = ("PUT", "/roleAssignments/[0-9a-f-]{36}$")


@pytest.fixture
async def roles(azure: Azure) -> AsyncIterator[Roles]:
    """The adapter on real clients, and a vault."""
    azure.keyvault.add_vault("kv-kms-weu")
    async with ManagedIdentityCredential() as credential, AioHttpTransport() as transport:
        yield Roles(credential, transport)


async def test_a_grant_names_one_role_one_identity_and_the_vault_alone(roles: Roles, azure: Azure) -> None:
    await roles.grant(Role.CRYPTO_USER, SOMEBODY, VAULT)

    (call,) = azure.journal.writes()
    scope, _, name = call.path.partition("/providers/Microsoft.Authorization/roleAssignments/")
    assert scope == str(VAULT)
    assert name == str(uuid5(GRANTS, f"{VAULT}|{SOMEBODY}|Key Vault Crypto User".lower()))
    said = call.body["properties"]
    assert said["roleDefinitionId"].endswith("/roleDefinitions/12338af0-0e69-4776-bea7-57ae8d297424")
    assert (said["principalId"], said["principalType"]) == (SOMEBODY, "ServicePrincipal")


@pytest.mark.parametrize("role", list(Role))
async def test_a_grant_is_of_the_built_in_role_of_its_name(roles: Roles, azure: Azure, role: Role) -> None:
    await roles.grant(role, SOMEBODY, VAULT)

    (made,) = azure.access.every()
    assert (made.role.name, made.role.type, made.condition) == (role.value, "BuiltInRole", None)


async def test_a_grant_is_made_once_however_often_it_is_asked_for(roles: Roles, azure: Azure) -> None:
    for principal in (SOMEBODY, SOMEBODY, SOMEBODY.upper()):
        await roles.grant(Role.READER, principal, VAULT)

    assert [call.status for call in azure.journal.writes()] == [201, 200, 200]
    assert len(azure.access.every()) == 1


async def test_grants_have_names_of_their_own(roles: Roles, azure: Azure) -> None:
    for role in Role:
        for principal in (SOMEBODY, PRINCIPAL):
            await roles.grant(role, principal, VAULT)

    assert len({one.name for one in azure.access.every()}) == 6


async def test_a_grant_that_is_there_under_another_name_counts(roles: Roles, azure: Azure) -> None:
    theirs = azure.access.assign(SOMEBODY, "Key Vault Reader", str(VAULT))

    await roles.grant(Role.READER, SOMEBODY, VAULT)

    assert [one.id for one in azure.access.every()] == [theirs]
    assert [call.status for call in azure.journal.matching(*PUT)] == [409]


@pytest.mark.parametrize("written", [str.lower, str.upper])
async def test_nothing_is_granted_to_the_apps_own_identity(roles: Roles, azure: Azure, written: Any) -> None:
    own = written(azure.identity.default.object_id)

    with pytest.raises(Refused) as raised:
        await roles.grant(Role.READER, own, VAULT)
    assert raised.value.code == "OwnIdentity"
    assert azure.journal.matching(*PUT) == ()


class Opaque:
    """A credential whose tokens say nothing that can be read."""

    def __init__(self, token: str) -> None:
        self._token = token

    async def get_token(self, *_scopes: str, **_options: Any) -> AccessToken:
        return AccessToken(self._token, 9_999_999_999)

    async def close(self) -> None: ...

    async def __aenter__(self) -> Opaque:
        return self

    async def __aexit__(self, *_: object) -> None: ...


@pytest.mark.parametrize(
    "token",
    [
        "",
        "opaque",
        "a.b.c",
        "e30.e30.e30",
        "e30.bnVsbA.e30",
        "e30.W10.e30",
        "e30.eyJvaWQiOm51bGx9.e30",
        "e30.eyJvaWQiOiIifQ.e30",
        "e30.\xff.e30",
    ],
)
async def test_nothing_is_granted_where_the_app_can_not_tell_who_it_is(azure: Azure, token: str) -> None:
    async with AioHttpTransport() as transport:
        with pytest.raises(Refused) as raised:
            await Roles(Opaque(token), transport).grant(Role.READER, SOMEBODY, VAULT)

    assert raised.value.code == "OwnIdentity"
    assert token not in raised.value.text or not token
    assert azure.journal.calls == ()


@pytest.mark.parametrize(
    ("status", "code", "headers", "expected"),
    [
        pytest.param(429, "TooManyRequests", {"Retry-After": "60"}, Throttled, id="throttled"),
        pytest.param(503, "ServiceUnavailable", {}, Unavailable, id="unavailable"),
        pytest.param(409, "AnotherConflict", {}, Conflict, id="another-conflict"),
        pytest.param(400, "PrincipalNotFound", {}, Refused, id="refused"),
    ],
)
async def test_a_grant_is_tried_once(
    roles: Roles, azure: Azure, status: int, code: str, headers: dict[str, str], expected: type[ServiceError]
) -> None:
    azure.faults.fail_next(*PUT, status, code=code, message="", headers=headers, times=5)

    with pytest.raises(expected):
        await roles.grant(Role.READER, SOMEBODY, VAULT)
    assert len(azure.journal.matching(*PUT)) == 1


# many identities that hold their roles through a group

ASSIGNMENTS = r"/roleAssignments$"


async def test_a_look_at_many_who_hold_a_role_through_a_group_goes_on_where_azure_cut_it_short(
    roles: Roles, azure: Azure
) -> None:
    made = azure.keyvault.add_vault("kv-kms-weu")
    found, members = vault(id=VaultId.parse(made.id)), [f"00000000-0000-0000-0001-{one:012d}" for one in range(250)]
    azure.access.group("11111111-0000-0000-0000-000000000001", members)
    azure.access.assign("11111111-0000-0000-0000-000000000001", "Key Vault Crypto User", made.id)
    asking = asyncio.create_task(roles.crypto_of(set(members), found, "etcd", now=NOW))
    async with asyncio.timeout(30):
        while len(azure.journal.matching("GET", ASSIGNMENTS)) < 10:
            await asyncio.sleep(0)
    azure.faults.fail_next("GET", ASSIGNMENTS, 429, code="Throttled", message="no", headers={"Retry-After": "60"})

    with pytest.raises(Throttled):
        await asking
    first = len(azure.journal.matching("GET", ASSIGNMENTS))
    may = await roles.crypto_of(set(members), found, "etcd", now=NOW + timedelta(minutes=1))
    asked = azure.journal.matching("GET", ASSIGNMENTS)
    again = await roles.crypto_of(set(members), found, "etcd", now=NOW + timedelta(minutes=2))

    assert may == again == dict.fromkeys(members, Grant.GRANTED)
    assert first <= 101, "one listing, and no more than a batch"
    assert len(asked) == 2 + 250 + 1, "two listings, each identity once, and the one that was throttled"
    assert len(azure.journal.matching("GET", ASSIGNMENTS)) == len(asked) + 251, "a whole look asks afresh"
