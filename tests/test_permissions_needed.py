"""The app with exactly the actions of each mode, and with one action less: what that costs, and that it harms nothing.

`REWRITE_SECURITY_PAGE=1 pytest -n0 tests/test_permissions_needed.py` writes what is observed into docs/security.md.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from local.references import REFERENCES
from local.simulator.wire import merge
from local.stage import APP
from shared.errors import Declined
from shared.events import KeyRequest, RotateOrder
from shared.keys import KeyId, VaultId
from shared.policy import PolicyInForce
from shared.reasons import Action, Reason
from tests import legacy
from tests.product import NOW, Product, product
from tests.stories import ENFORCING, KEYS, PERMISSIONS, STORIES, TOP, VAULTS, Outcomes, play
from tests.test_docs import rows

if TYPE_CHECKING:
    from local.simulator import Azure
    from local.simulator.aks.state import SimulatedCluster
    from local.storage import Account

PAGE = APP / "docs" / "security.md"
REWRITE = os.environ.get("REWRITE_SECURITY_PAGE") == "1"
RESTED = timedelta(minutes=61)
CLUSTERS = f"{TOP}/resourceGroups/rg-apps/providers/Microsoft.ContainerService/managedClusters"

CHECKED: Outcomes = {
    "the sweep": "all clusters",
    "aks-in-use": "`as-asked`",
    "aks-key": "`not-as-asked`",
    "aks-lost-vault": "`vault-deleted`",
    "aks-new-identity": "`identity-to-change`",
    "aks-no-identity": "`identity-missing`",
    "aks-no-role": "`access-missing`",
    "aks-other-tenant": "`vault-other-tenant`",
    "aks-plain": "`not-as-asked`",
    "the key in use": "2 versions",
    "the key elsewhere": "`not-announced`",
    "the key unheard": "`not-announced`",
}
PLANNED: dict[str, Outcomes] = {
    "audit": CHECKED,
    "enforce": CHECKED
    | {
        "aks-failing": "`failed` (QuotaExceeded)",
        **dict.fromkeys(("aks-key", "aks-new-identity", "aks-plain"), "`as-asked`"),
    },
    "ensure": {
        "the sweep": "all clusters",
        "aks-closed-vault": "`as-asked`",
        "aks-empty-group": "`as-asked`",
        "aks-lost-vault": "`vault-deleted`",
    },
}
"""What comes of everything with all rights."""

ONE_LESS = [
    pytest.param(mode, switch, action, id=f"{mode}-{action}")
    for mode, story in STORIES.items()
    for switch, action in story.actions
]


@pytest.mark.parametrize("mode", STORIES)
async def test_the_actions_of_a_mode_are_all_that_it_needs(azure: Azure, account: Account, mode: str) -> None:
    story = STORIES[mode]
    story.seed(azure)
    story.allow(azure)

    async with product(account, story.policy) as app:
        outcomes = await play(app, azure)

        assert outcomes == PLANNED[mode]
        assert [call for call in azure.journal.calls if _is_refused_by_arm(call)] == []
        await assert_nothing_is_half_done(app, azure)


@pytest.mark.parametrize(("mode", "switch", "action"), ONE_LESS)
async def test_with_one_action_less_there_is_a_clear_reason_and_nothing_half_done(
    azure: Azure, account: Account, mode: str, switch: str, action: str
) -> None:
    story = STORIES[mode]
    story.seed(azure)
    story.allow(azure, without=action)

    async with product(account, story.policy) as app:
        outcomes = await play(app, azure)

        said = differences(outcomes, PLANNED[mode])
        if REWRITE:
            rewrite(mode, action, said)
        assert on_the_page(mode).get(action, "") == said
        await assert_every_report_says_what_to_do(app, azure, action)
        await assert_nothing_is_half_done(app, azure)
        if switch != "audit":
            await assert_it_goes_on_with_the_right(app, azure, mode, action)


def differences(outcomes: Outcomes, planned: Outcomes) -> str:
    """What came otherwise than planned, in words: who shares an outcome stands together."""
    shared: defaultdict[str, list[str]] = defaultdict(list)
    for who, outcome in outcomes.items():
        if outcome != planned[who]:
            shared[outcome].append(f"`{who}`" if who.startswith("aks-") else who)
    clusters = {f"`{who}`" for who in outcomes if who.startswith("aks-")}
    return "; ".join(f"{', '.join(_named(whos, clusters))}: {outcome}" for outcome, whos in shared.items())


def _named(whos: list[str], clusters: set[str]) -> list[str]:
    """All of them, or `every cluster` and who is none."""
    return ["every cluster", *(who for who in whos if who not in clusters)] if clusters <= set(whos) else whos


async def assert_every_report_says_what_to_do(app: Product, azure: Azure, action: str) -> None:
    for cluster in azure.aks.clusters.values():
        record = await app.record(cluster)
        if record.action is Action.REPORT:
            assert record.fix is not None, f"{record.reasons} says nothing of a fix"
        if record.reasons[0] is Reason.NOT_PERMITTED:
            assert record.fix is not None
            assert f"{action} on /subscriptions/" in record.fix.text
            assert cluster.encryption == "none"


async def assert_nothing_is_half_done(app: Product, azure: Azure, *which: SimulatedCluster) -> None:
    """No claim, no slot, no message that failed; another look at once writes nothing and does not even try."""
    clusters = which or tuple(azure.aks.clusters.values())
    before = [await app.record(cluster) for cluster in clusters]
    tries = _tries(azure)
    for cluster in clusters:
        await app.look(cluster, now=azure.clock.now() + timedelta(minutes=1))

    after = [await app.record(cluster) for cluster in clusters]
    assert [one.claim or one.waiting for one in after] == [None] * len(clusters)
    assert [one.version for one in after] == [one.version for one in before]
    assert await app.slots_held() == []
    assert _tries(azure) == tries


async def assert_it_goes_on_with_the_right(app: Product, azure: Azure, mode: str, action: str) -> None:
    """What was refused is done at the next sweep; what failed stays as it is, and its line too."""
    STORIES[mode].allow(azure)
    azure.clock.advance(RESTED)

    outcomes = await play(app, azure)

    expected = PLANNED[mode]
    if mode == "enforce" and "operations/read" in action:
        expected = expected | {"aks-failing": "`failed` (Failed)"}
    assert outcomes == expected


def _tries(azure: Azure) -> int:
    return len([call for call in azure.journal.calls if call.method != "GET"])


def _is_refused_by_arm(call: Any) -> bool:
    return bool(call.host == "management.azure.com" and call.status == 403)


@pytest.mark.parametrize("switch", ["audit", "enforce", "ensure", "grants"])
def test_no_action_is_held_that_nobody_misses(switch: str) -> None:
    mode = next(mode for mode, story in STORIES.items() if switch in story.switches)

    assert [action for action in PERMISSIONS[switch] if action not in on_the_page(mode)] == []


# what an update refers to

LINKED = [
    pytest.param(feature, action, id=f"{feature}-{action.partition('/')[2] or 'all'}")
    for feature, actions in PERMISSIONS["linkedFeatures"].items()
    for action in [*actions, ""]
]


@pytest.mark.parametrize(("feature", "action"), LINKED)
async def test_an_update_needs_the_linked_feature_of_all_that_its_cluster_refers_to(
    azure: Azure, account: Account, feature: str, action: str
) -> None:
    cluster = azure.aks.add("aks-plain", identity="system-assigned", properties=referring(feature))
    story = STORIES["enforce"]
    held = {*PERMISSIONS["audit"], *PERMISSIONS["enforce"], *PERMISSIONS["linkedFeatures"][feature]} - {action}
    azure.permissions.allow_only(held, object_id=azure.identity.default.object_id, scope=TOP)

    async with product(account, story.policy) as app:
        record = await app.look(cluster, now=azure.clock.now())

        assert record is not None
        if not action:
            assert (record.reasons[0], len(azure.journal.writes())) == (Reason.UPDATING, 1)
            return
        assert record.reasons == (Reason.NOT_PERMITTED,)
        assert record.fix is not None
        assert f"{action} on {TOP}/resourceGroups/rg-else" in record.fix.text
        assert "LinkedAuthorizationFailed" in (record.detail or "")
        await assert_nothing_is_half_done(app, azure)
        assert azure.journal.writes() == ()


def referring(feature: str) -> dict[str, Any]:
    """A document's properties with each reference that a feature is about."""
    properties: dict[str, Any] = {}
    for where in [where for where, (switch, _) in REFERENCES.items() if switch == feature]:
        inner: Any = f"{TOP}/resourceGroups/rg-else/providers/Microsoft.Some/things/{feature}"
        for name in reversed(where.split(".")):
            inner = {name: inner}
        merge(properties, inner)
    return properties


# groups alone


async def test_with_groups_listed_what_changes_clusters_is_needed_in_them_alone(azure: Azure, account: Account) -> None:
    """As enforceGroups has it: of what `enforce` adds, the subscription keeps the reads."""
    story, me = STORIES["enforce"], azure.identity.default.object_id
    story.seed(azure)
    elsewhere = azure.aks.add("aks-plain", identity="system-assigned", group="rg-else")
    reads = {action for action in PERMISSIONS["enforce"] if action.endswith("/read")}
    azure.permissions.allow_only({*PERMISSIONS["audit"], *reads}, object_id=me, scope=TOP)
    for group in (f"{TOP}/resourceGroups/rg-apps", KEYS):
        azure.permissions.allow_only(PERMISSIONS["enforce"], object_id=me, scope=group)

    async with product(account, story.policy) as app:
        refused = await app.look(elsewhere, now=azure.clock.now())
        await assert_nothing_is_half_done(app, azure, elsewhere)
        azure.aks.delete(elsewhere.id)
        outcomes = await play(app, azure)

        assert refused is not None
        assert refused.reasons == (Reason.NOT_PERMITTED,)
        assert refused.fix is not None
        assert f"managedClusters/write on {TOP}/resourceGroups/rg-else" in refused.fix.text
        assert elsewhere.encryption == "none"
        assert outcomes == PLANNED["enforce"]


# what only vaults tell


@pytest.mark.parametrize(
    ("without", "said"),
    [
        pytest.param("", (True, "`key-deleted`"), id="all"),
        pytest.param(PERMISSIONS["askVaults"][0], (True, "`key-missing`"), id="keys-read"),
        pytest.param(PERMISSIONS["askVaults"][1], (False, "`key-deleted`"), id="keyrotationpolicies-read"),
    ],
)
async def test_a_vault_is_asked_with_data_actions_of_its_own(
    azure: Azure, account: Account, without: str, said: tuple[bool, str]
) -> None:
    """Two vaults: one that says no is not asked again for a day."""
    story, me = STORIES["audit"], azure.identity.default.object_id
    story.allow(azure)
    azure.access.assign(me, azure.access.define("ask", [*set(PERMISSIONS["askVaults"]) - {without}]), KEYS)
    rotating = azure.keyvault.add_vault("kv-good")
    azure.keyvault.add_key(rotating, "etcd")  # without a policy: Azure Resource Manager shows none, the vault its own
    lost = azure.keyvault.add_vault("kv-lost")
    azure.keyvault.delete_key(azure.keyvault.add_key(lost, "etcd"))
    cluster = azure.aks.add("aks-lost-vault")

    async with product(account, story.policy) as app:
        await app.inspector.inspect(KeyRequest(KEY, "test", VaultId.parse(rotating.id)), now=NOW)
        record = await app.look(cluster)

        assert record is not None
        known = await app.keys.key(KEY)
        assert (known.rotation_policy is not None, f"`{record.reasons[0]}`") == said
        await assert_nothing_is_half_done(app, azure)


KEY = KeyId("kv-good", "etcd")


async def test_a_key_is_rotated_with_one_data_action_and_what_audit_reads(azure: Azure, account: Account) -> None:
    story, me = STORIES["audit"], azure.identity.default.object_id
    story.allow(azure)
    vault = azure.keyvault.add_vault("kv-good")
    key = azure.keyvault.add_key(vault, "etcd")

    async with product(account, ROTATES) as app:
        await app.inspector.inspect(KeyRequest(KEY, "test", VaultId.parse(vault.id)), now=azure.clock.now())
        with pytest.raises(Declined, match=PERMISSIONS["rotate"][0]):
            await app.rotator.rotate(KEY, RotateOrder(None), now=azure.clock.now())
        azure.access.assign(me, azure.access.define("rotate", PERMISSIONS["rotate"]), vault.id)
        azure.clock.advance(RESTED)
        made = await app.rotator.rotate(KEY, RotateOrder(None), now=azure.clock.now())

        assert made is not None
        assert [made.version.version] == [key.current.version]
        assert (len(key.versions), len((await app.keys.key(KEY)).rotations)) == (2, 2)


ROTATES = f"{ENFORCING}  - {{match: {{names: [nobody]}}, keyManagement: platform-managed}}\n"

# what is run in clusters


@pytest.mark.parametrize("without", ["", *PERMISSIONS["runCommand"]], ids=lambda action: action or "all")
async def test_secrets_are_rewritten_with_the_actions_of_run_command_and_not_with_one_less(
    azure: Azure, account: Account, without: str, caplog: pytest.LogCaptureFixture
) -> None:
    held = {*PERMISSIONS["audit"], *PERMISSIONS["enforce"], *PERMISSIONS["runCommand"]} - {without}
    azure.permissions.allow_only(held, object_id=azure.identity.default.object_id, scope=TOP)

    async with product(account, legacy.policy("update-and-reencrypt"), run_command=True) as app:
        on = await legacy.set_scene(app, azure)
        for _ in range(15):
            on.later(timedelta(minutes=20))
            record = await on.look()

        if not without:
            assert (await on.user()).rewritten_by == "run-command"
            return
        assert (await on.user()).rewritten_at is None
        assert record.action is Action.REPORT
        assert f"{record.detail} {caplog.text}".count(f"'{without}'") >= 1
        assert await app.slots_held() == []


# what is refused in the midst of it


async def test_a_right_that_is_lost_between_the_survey_and_the_preparation_is_named_too(
    azure: Azure, account: Account
) -> None:
    """A preparation reads once more before it writes: what it may not read, it does not write."""
    story = STORIES["ensure"]
    story.seed(azure)
    story.allow(azure)
    cluster = azure.aks.clusters[f"{CLUSTERS}/aks-closed-vault".lower()]

    def lose() -> None:
        azure.wait_for(lambda: len(azure.journal.matching("GET", "/vaults/kv-closed$")) == 2)  # read at the same time
        azure.permissions.refuse("Microsoft.KeyVault/vaults/read")

    lose_in_second_survey = partial(azure.faults.call_next, "GET", "/roleAssignments$", lose, when="before")
    azure.faults.call_next("GET", f"^{TOP}$", lose_in_second_survey, when="before")  # the first one's last call

    async with product(account, story.policy) as app:
        record = await app.look(cluster, now=azure.clock.now())

        assert record is not None
        assert record.reasons == (Reason.NOT_PERMITTED,)
        assert record.fix is not None
        assert f"Microsoft.KeyVault/vaults/read on {VAULTS}/kv-closed" in record.fix.text
        assert (record.claim, await app.slots_held(), azure.journal.writes()) == (None, [], ())


async def test_the_app_grants_nothing_to_its_own_identity(azure: Azure, account: Account) -> None:
    story = STORIES["ensure"]
    story.seed(azure)
    story.allow(azure)
    closed = azure.keyvault.vaults[f"{VAULTS}/kv-closed".lower()]
    closed.properties["networkAcls"]["bypass"] = "AzureServices"
    own = azure.aks.add("aks-closed-vault", principal_id=azure.identity.default.object_id)

    async with product(account, story.policy) as app:
        record = await app.look(own, now=azure.clock.now())

        assert record is not None
        assert (record.reasons, "OwnIdentity" in str(record.detail)) == ((Reason.BLOCKED,), True)
        assert azure.access.assignments == {}
        await assert_nothing_is_half_done(app, azure, own)


async def test_what_azure_refuses_is_reported_at_once_with_the_fix_that_later_looks_show(
    azure: Azure, account: Account
) -> None:
    story = STORIES["enforce"]
    story.seed(azure)
    story.allow(azure, without="Microsoft.Authorization/roleAssignments/read")
    cluster = azure.aks.clusters[f"{CLUSTERS}/aks-no-role".lower()]

    async with product(account, story.policy) as app:
        record = await app.look(cluster, now=azure.clock.now())

        assert record is not None
        assert record.reasons == (Reason.ACCESS_REFUSED,)
        assert record.fix is not None
        assert f"--scope {VAULTS}/kv-good --assignee-object-id {cluster.principal_id}" in str(record.fix.command)
        await assert_nothing_is_half_done(app, azure, cluster)


# the page


def on_the_page(mode: str) -> dict[str, str]:
    """What the page says of each action that is missing in a mode."""
    return {cells[0].strip("`"): cells[1] for cells in rows(PAGE, f"Without one of them: {mode}")}


def rewrite(mode: str, action: str, said: str) -> None:
    """Put one row into the page's table of a mode, or take it out, in the order of the actions."""
    order = [action for _, action in STORIES[mode].actions]
    table = on_the_page(mode) | {action: said}
    lines = [f"| `{one}` | {table[one]} |" for one in order if table.get(one)]
    text = PAGE.read_text(encoding="utf-8")
    pattern = rf"(^#+ Without one of them: {mode}\n\n(?:\|[^\n]*\n){{2}})((?:\|[^\n]*\n)*)"
    found = re.search(pattern, text, re.MULTILINE)
    assert found is not None
    PAGE.write_text(text[: found.start(2)] + "".join(f"{line}\n" for line in lines) + text[found.end(2) :], "utf-8")


def test_the_page_names_every_action_with_its_switch_and_no_other() -> None:
    said = [(cells[0], cells[1]) for cells in rows(PAGE, "The actions")]
    flat = [
        (f"`{switch}`", f"`{action}`")
        for switch, actions in PERMISSIONS.items()
        if switch != "linkedFeatures"
        for action in actions
    ]

    assert said == flat
    assert [cells for cells in rows(PAGE, "The actions") if not cells[2]] == []


def test_the_page_says_who_plays_and_what_comes_of_each_with_all_rights() -> None:
    expected = [(f"`{name}`" if name.startswith("aks-") else name) for name in everybody()]

    assert [cells[0] for cells in rows(PAGE, "Who plays")] == expected
    for cells, name in zip(rows(PAGE, "Who plays"), everybody(), strict=True):
        assert list(cells[2:]) == [PLANNED[mode].get(name, "") for mode in STORIES]


def test_every_test_that_the_page_names_is_there() -> None:
    named = set(re.findall(r"`(test_\w+)\.py::(test_\w+)`", PAGE.read_text(encoding="utf-8")))
    code = {name: (APP / "tests" / f"{name}.py").read_text(encoding="utf-8") for name, _ in named}

    assert len(named) >= 10
    assert [f"{name}.py::{test}" for name, test in sorted(named) if f"def {test}(" not in code[name]] == []


def everybody() -> list[str]:
    return sorted({name for outcomes in PLANNED.values() for name in outcomes})


def test_the_policies_of_the_stories_have_no_faults() -> None:
    assert [PolicyInForce.read(story.policy).faults for story in STORIES.values()] == [()] * len(STORIES)
