"""Which rights a refusal of Azure names, and what is not read as one."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.rights import Right, missing_rights
from tests.builders import IDENTITY_ID, OTHER_IDENTITY_ID, PROPERTY, VAULT_ID

ASSIGN = "Microsoft.ManagedIdentity/userAssignedIdentities/assign/action"
JOIN = "Microsoft.Network/virtualNetworks/subnets/join/action"
WRITE = "Microsoft.KeyVault/vaults/write"
WHO = "The client 'f2' with object id 'f2'"


def refused(action: str = WRITE, scope: str = str(VAULT_ID)) -> str:
    return (
        f"{WHO} does not have authorization to perform action '{action}' over scope '{scope}' or the scope is invalid."
        " If access was recently granted, please refresh your credentials."
    )


def linked(actions: str, scopes: str, *, word: str = "action(s)") -> str:
    return (
        f"{WHO} has permission to perform action 'Microsoft.ContainerService/managedClusters/write' on scope"
        f" '/subscriptions/s/resourcegroups/g'; however, it does not have permission to perform {word} '{actions}' on"
        f" the linked scope(s) '{scopes}' (respectively) or the linked scope(s) are invalid."
    )


@pytest.mark.parametrize(
    ("text", "rights"),
    [
        pytest.param(refused(), (Right(WRITE, str(VAULT_ID)),), id="on-the-thing-itself"),
        pytest.param(f"AuthorizationFailed: {refused()}", (Right(WRITE, str(VAULT_ID)),), id="with-the-code-before"),
        pytest.param(linked(ASSIGN, IDENTITY_ID), (Right(ASSIGN, IDENTITY_ID),), id="on-what-is-linked"),
        pytest.param(
            linked(ASSIGN, f"{IDENTITY_ID},{OTHER_IDENTITY_ID}", word="action"),
            (Right(ASSIGN, IDENTITY_ID), Right(ASSIGN, OTHER_IDENTITY_ID)),
            id="one-action-on-two",
        ),
        pytest.param(
            linked(f"{ASSIGN}, {JOIN}", f"{IDENTITY_ID}, {OTHER_IDENTITY_ID}"),
            (Right(ASSIGN, IDENTITY_ID), Right(JOIN, OTHER_IDENTITY_ID)),
            id="two-actions-respectively",
        ),
        pytest.param(
            linked(f"{ASSIGN},{ASSIGN}", f"{IDENTITY_ID},{IDENTITY_ID}"), (Right(ASSIGN, IDENTITY_ID),), id="twice"
        ),
    ],
)
def test_a_refusal_names_its_rights(text: str, rights: tuple[Right, ...]) -> None:
    assert missing_rights(text) == rights


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="nothing"),
        pytest.param("a policy says no", id="another-text"),
        pytest.param(refused()[:120], id="cut-short"),
        pytest.param(refused(action="rm -rf"), id="no-action"),
        pytest.param(refused(action="Microsoft.KeyVault"), id="a-provider-alone"),
        pytest.param(refused(action=f"{WRITE}\n{WRITE}"), id="an-action-of-two-lines"),
        pytest.param(refused(action=f"{WRITE}/{'a' * 300}"), id="a-long-action"),
        pytest.param(refused(scope="everywhere"), id="no-scope"),
        pytest.param(refused(scope="/subscriptions/<b>bold</b>"), id="markup"),
        pytest.param(refused(scope="/subscriptions/s; az group delete"), id="a-command"),
        pytest.param(refused(scope="/s" * 400), id="a-long-scope"),
        pytest.param(linked(f"{ASSIGN},{JOIN},{WRITE}", f"{IDENTITY_ID},{VAULT_ID}"), id="more-actions-than-scopes"),
        pytest.param(linked(ASSIGN, ",".join(["/s"] * 21)), id="too-many-scopes"),
        pytest.param(" " * 5000 + refused(), id="too-far-down"),
    ],
)
def test_what_is_no_right_is_not_read_as_one(text: str) -> None:
    assert missing_rights(text) == ()


@PROPERTY
@given(st.text(), st.text())
def test_whatever_a_text_says_a_right_looks_like_one(action: str, scope: str) -> None:
    found = [*missing_rights(refused(action, scope)), *missing_rights(linked(action, scope)), *missing_rights(action)]

    assert [one for one in found if not re.fullmatch(r"[A-Za-z.]+(/[A-Za-z]+)+", one.action)] == []
    assert [one for one in found if not re.fullmatch(r"(/[\w.()-]+)+", one.scope)] == []
