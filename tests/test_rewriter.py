"""Rewriting a legacy cluster's secrets by run command: step by step, recorded, and believed only as a whole."""

from __future__ import annotations

import logging
import os
import re
import stat
import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from local.simulator.aks.run_command import Spoiling
from shared.events import RewriteOrder
from shared.keys import KeyId
from shared.reasons import Action, Reason
from shared.reencryption import (
    MOST_CHUNKS,
    Fault,
    Ran,
    Reencryption,
    Tally,
    chunks_for,
    command,
    read,
)
from tests.builders import VERSION
from tests.legacy import MINUTE, OPERATION, RESULT, RUN_COMMAND, Scene, policy, set_scene
from tests.product import Product, product

if TYPE_CHECKING:
    from local.simulator import Azure
    from local.storage import Account

REENCRYPT = policy("update-and-reencrypt")
STEP = Reencryption(KeyId("kv-kms", "etcd"), VERSION, 1, 2)
COUNT = Reencryption(KeyId("kv-kms", "etcd"), VERSION)
LINE = "kms-rewrite chunk=1/2 listed=7 rewritten=4 conflicts=1 failed=2 end"


@pytest.fixture
async def opened() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


async def scene(
    azure: Azure, account: Account, opened: AsyncExitStack, text: str = REENCRYPT, *, on: bool = True, **seed: Any
) -> Scene:
    app: Product = await opened.enter_async_context(product(account, text, run_command=on))
    return await set_scene(app, azure, **seed)


# what the command prints


def test_a_line_that_is_whole_is_read() -> None:
    assert read(STEP, LINE + "\n") == Tally(7, 4, 1, 2)
    assert read(STEP, LINE) == Tally(7, 4, 1, 2)


@pytest.mark.parametrize(
    "printed",
    [
        pytest.param("", id="nothing"),
        pytest.param(LINE[:-4], id="cut"),
        pytest.param(LINE[:40], id="cut-in-the-middle"),
        pytest.param(LINE + "\n\n", id="more-lines"),
        pytest.param("a warning\n" + LINE, id="a-line-before"),
        pytest.param(LINE + "\n" + LINE, id="twice"),
        pytest.param(LINE.replace("listed=7", "listed=8"), id="counts-that-do-not-add-up"),
        pytest.param(LINE.replace("1/2", "2/2"), id="another-chunk"),
        pytest.param(LINE.replace("1/2", "1/3"), id="of-other-chunks"),
        pytest.param(LINE.replace("listed=7", "listed=-7"), id="negative"),
        pytest.param(LINE.replace("listed=7", "listed=\u0667"), id="digits-of-another-script"),
        pytest.param(LINE.replace("listed=7", "listed=" + "7" * 5000), id="a-number-without-end"),
        pytest.param(LINE.upper(), id="capitals"),
    ],
)
def test_anything_else_is_no_count(printed: str) -> None:
    assert read(STEP, printed) is None


@pytest.mark.parametrize(
    ("step", "ran", "fault"),
    [
        pytest.param(STEP, Ran(0, Tally(7, 7, 0, 0)), None, id="all"),
        pytest.param(STEP, Ran(0, Tally(0, 0, 0, 0)), None, id="a-chunk-without-secrets"),
        pytest.param(STEP, Ran(0, Tally(7, 6, 0, 1)), Fault.NOT_ALL, id="one-failed"),
        pytest.param(STEP, Ran(1, Tally(7, 6, 1, 0)), Fault.NOT_ALL, id="one-conflict"),
        pytest.param(STEP, Ran(1, Tally(7, 7, 0, 0)), Fault.NOT_ALL, id="all-and-an-exit-code"),
        pytest.param(STEP, Ran(3, None), Fault.NOT_ALL, id="an-exit-code-and-nothing-else"),
        pytest.param(STEP, Ran(0, None), Fault.NOT_READABLE, id="not-readable"),
        pytest.param(STEP, Ran(None, None), Fault.NOT_RUN, id="not-run"),
        pytest.param(COUNT, Ran(0, Tally(7, 0, 0, 0)), None, id="counted"),
        pytest.param(COUNT, Ran(1, Tally(7, 0, 0, 1)), Fault.NOT_ALL, id="not-all-counted"),
    ],
)
def test_a_step_is_confirmed_by_its_exit_code_and_by_all_being_rewritten(
    step: Reencryption, ran: Ran, fault: Fault | None
) -> None:
    assert ran.fault(step) is fault


@pytest.mark.parametrize(("secrets", "chunks"), [(0, 1), (1, 1), (500, 1), (501, 2), (10**7, MOST_CHUNKS)])
def test_secrets_are_rewritten_in_so_many_chunks(secrets: int, chunks: int) -> None:
    assert chunks_for(secrets) == chunks


def test_the_command_is_the_same_text_but_for_two_integers() -> None:
    assert command(STEP).partition("\n")[0] == "i=1 n=2"
    assert command(COUNT).partition("\n")[0] == "i=0 n=0"
    assert command(STEP).partition("\n")[2] == command(COUNT).partition("\n")[2]


# the command in a real shell, with a kubectl that keeps namespaces and secrets as files

KUBECTL = """#!/bin/sh
# get namespaces -o name | get namespace NS ... | get secrets -n NS -o name|json | get secret/X -n NS -o json|name
# replace -f -
set -u
printf '%s\\n' "$*" >> "$CLUSTER/calls"
case "$1 $2" in
  "get namespaces")
    [ -e "$CLUSTER/forbidden" ] && { echo "Error from server (Forbidden): MARKER" >&2; exit 1; }
    for n in "$CLUSTER"/ns/*; do echo "namespace/${n##*/}"; done ;;
  "get namespace") [ -d "$CLUSTER/ns/$3" ] && echo "namespace/$3"; exit 0 ;;
  "get secrets")
    d=$CLUSTER/ns/$4
    [ -e "$CLUSTER/gone/$4" ] && rm -rf "$d" "$CLUSTER/gone/$4"
    [ -e "$d/.unreadable" ] || [ ! -d "$d" ] && { echo "Error from server: MARKER" >&2; exit 1; }
    for s in "$d"/*; do
      [ -e "$s" ] || continue
      if [ "$6" = name ]; then echo "secret/${s##*/}"; else echo "$4 ${s##*/} MARKER"; fi
    done ;;
  "get secret/"*)
    s=$CLUSTER/ns/$4/${2#secret/}
    [ -e "$s" ] || exit 0
    if [ "$6" = name ]; then echo "$2"; else echo "$4 ${2#secret/} MARKER"; fi ;;
  "replace -f")
    code=1
    while read -r n x m; do
      s=$CLUSTER/ns/$n/$x
      [ "$code" -eq 1 ] && [ ! -e "$CLUSTER/failed.$$" ] && code=0
      if [ -e "$CLUSTER/deny/$x" ]; then
        echo "Error from server (Forbidden): secrets \\"$x\\" MARKER" >&2; : > "$CLUSTER/failed.$$"; code=1
      elif [ ! -e "$s" ]; then
        echo "Error from server (NotFound): secrets \\"$x\\" not found" >&2; : > "$CLUSTER/failed.$$"; code=1
      elif [ -s "$CLUSTER/conflict/$x" ]; then
        sed -i 1d "$CLUSTER/conflict/$x"
        echo "Error from server (Conflict): Operation cannot be fulfilled on secrets \\"$x\\":" \\
          "the object has been modified; please apply your changes to the latest version" >&2
        : > "$CLUSTER/failed.$$"; code=1
      else
        echo rewritten > "$s"; echo "secret/$x replaced"
      fi
      [ -e "$CLUSTER/delete-after/$x" ] && rm -f "$CLUSTER/ns/$n/$(cat "$CLUSTER/delete-after/$x")"
    done
    [ -s "$CLUSTER/calls" ] || exit 1
    exit "$code" ;;
  *) echo "not a command: $*" >&2; exit 64 ;;
esac
"""


class FakeCluster:
    """Namespaces and secrets in a folder, and a kubectl that works on them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("ns", "deny", "conflict", "gone", "bin", "delete-after"):
            (folder / name).mkdir()
        kubectl = folder / "bin" / "kubectl"
        kubectl.write_text(KUBECTL)
        kubectl.chmod(kubectl.stat().st_mode | stat.S_IXUSR)
        pause = folder / "bin" / "sleep"
        pause.write_text("#!/bin/sh\n")
        pause.chmod(pause.stat().st_mode | stat.S_IXUSR)

    def add(self, namespace: str, *secrets: str) -> None:
        (self.folder / "ns" / namespace).mkdir(exist_ok=True)
        for secret in secrets:
            (self.folder / "ns" / namespace / secret).write_text("old\n")

    def mark(self, kind: str, name: str, text: str = "") -> None:
        (self.folder / kind / name).write_text(text)

    def rewritten(self) -> set[str]:
        files = [file for file in (self.folder / "ns").rglob("*") if file.is_file()]
        return {f"{file.parent.name}/{file.name}" for file in files if file.read_text() == "rewritten\n"}

    def run(self, shell: str, step: Reencryption) -> tuple[int, str, str]:
        environment = {"CLUSTER": str(self.folder), "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}"}
        done = subprocess.run(  # noqa: S603  a shell of this machine and the product's own text
            [shell, "-c", command(step)], env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        return done.returncode, done.stdout, done.stderr


def whole(chunk: int = 1, chunks: int = 1) -> Reencryption:
    return Reencryption(STEP.key, STEP.version, chunk, chunks)


@pytest.fixture(params=["/bin/sh", "/bin/bash"])
def shell(request: pytest.FixtureRequest) -> str:
    path = str(request.param)
    if not Path(path).exists():
        pytest.skip(f"there is no {path} here")
    return path


@pytest.fixture
def pods(tmp_path: Path) -> FakeCluster:
    return FakeCluster(tmp_path)


def test_the_command_rewrites_every_secret_and_prints_counts_alone(shell: str, pods: FakeCluster) -> None:
    pods.add("default", "a", "b", "replaced")
    pods.add("kube-system", "c")
    pods.add("empty")

    code, printed, errors = pods.run(shell, whole())

    assert (code, read(whole(), printed), errors) == (0, Tally(4, 4, 0, 0), "")
    assert pods.rewritten() == {"default/a", "default/b", "default/replaced", "kube-system/c"}


def test_the_count_writes_nothing(shell: str, pods: FakeCluster) -> None:
    pods.add("default", "a", "b")
    pods.add("other", "c")

    code, printed, _ = pods.run(shell, COUNT)

    assert (code, read(COUNT, printed)) == (0, Tally(3, 0, 0, 0))
    assert pods.rewritten() == set()


def test_each_namespace_is_in_one_chunk_whatever_others_are_added(shell: str, pods: FakeCluster) -> None:
    names = [f"team-{number}" for number in range(12)]
    for name in names:
        pods.add(name, "s")
    of_chunk: list[set[str]] = []

    for chunk in (1, 2, 3):
        before = pods.rewritten()
        code, printed, _ = pods.run(shell, whole(chunk, 3))
        of_chunk.append(pods.rewritten() - before)
        tally = read(whole(chunk, 3), printed)
        assert code == 0
        assert tally is not None
        assert tally.rewritten == len(of_chunk[-1])
        pods.add(f"new-{chunk}")

    assert set.union(*of_chunk) == {f"{name}/s" for name in names}
    assert all(of_chunk)


def test_one_secret_that_can_not_be_written_hides_no_other(shell: str, pods: FakeCluster) -> None:
    pods.add("default", "a", "b", "c")
    pods.add("other", "d")
    pods.mark("deny", "b")

    code, printed, errors = pods.run(shell, whole())

    assert (code, read(whole(), printed), errors) == (1, Tally(4, 3, 0, 1), "")
    assert pods.rewritten() == {"default/a", "default/c", "other/d"}
    assert "MARKER" not in printed


def test_a_secret_that_somebody_changes_meanwhile_is_read_again(shell: str, pods: FakeCluster) -> None:
    pods.add("default", "a", "b")
    pods.mark("conflict", "b", "x\nx\n")

    code, printed, _ = pods.run(shell, whole())

    assert (code, read(whole(), printed)) == (0, Tally(2, 2, 0, 0))


def test_a_secret_that_somebody_keeps_changing_is_told_from_one_that_fails(shell: str, pods: FakeCluster) -> None:
    pods.add("default", "a", "b", "c")
    pods.mark("conflict", "b", "x\n" * 50)
    pods.mark("deny", "c")

    code, printed, _ = pods.run(shell, whole())

    assert (code, read(whole(), printed)) == (1, Tally(3, 1, 1, 1))


def test_a_secret_that_is_deleted_meanwhile_harms_nobody(shell: str, pods: FakeCluster) -> None:
    pods.add("default", "a", "b")
    pods.mark("delete-after", "a", "b")

    code, printed, _ = pods.run(shell, whole())

    assert (code, read(whole(), printed)) == (0, Tally(1, 1, 0, 0))


def test_a_namespace_that_is_deleted_meanwhile_harms_nobody(shell: str, pods: FakeCluster) -> None:
    pods.add("default", "a")
    pods.add("short-lived", "b")
    pods.mark("gone", "short-lived")

    code, printed, _ = pods.run(shell, whole())

    assert (code, read(whole(), printed)) == (0, Tally(1, 1, 0, 0))


def test_a_namespace_whose_secrets_can_not_be_read_fails_and_the_others_are_done(shell: str, pods: FakeCluster) -> None:
    pods.add("broken", "a", "b")
    pods.mark("ns/broken", ".unreadable")
    pods.add("default", "c")

    code, printed, _ = pods.run(shell, whole())

    assert (code, read(whole(), printed)) == (1, Tally(2, 1, 0, 1))


def test_who_may_not_list_namespaces_prints_nothing(shell: str, pods: FakeCluster) -> None:
    pods.add("default", "a")
    pods.mark("", "forbidden")

    assert pods.run(shell, whole()) == (3, "", "")


@pytest.mark.parametrize("code", [127, 0], ids=["without", "silent"])
def test_a_pod_without_kubectl_or_with_one_that_says_nothing_prints_nothing(
    shell: str, pods: FakeCluster, code: int
) -> None:
    (pods.folder / "bin" / "kubectl").write_text(f"#!/bin/sh\nexit {code}\n")

    assert pods.run(shell, whole()) == (3, "", "")


# through the rooms


async def test_a_rewrite_counts_then_rewrites_then_is_confirmed_as_of_its_first_chunk(
    azure: Azure, account: Account, opened: AsyncExitStack
) -> None:
    on = await scene(azure, account, opened)
    azure.aks.write_secret(on.cluster, "second", namespace="team-a")

    claimed = await on.look()
    assert (claimed.action, claimed.reasons) == (
        Action.WAIT,
        (Reason.REENCRYPTING, Reason.NOT_REENCRYPTED),
    )
    assert on.commands() == ["i=0 n=0"]
    assert len(await on.app.slots_held()) == 2
    on.later()
    first_chunk = await on.look()
    assert on.commands() == ["i=0 n=0", "i=1 n=1"]
    assert first_chunk.claim is not None
    on.later()
    ended = await on.look()

    assert ended.claim is None
    assert ended.rewrite is not None
    assert ended.rewrite.is_over
    assert await on.app.slots_held() == []
    user = await on.user()
    assert (user.rewritten_by, user.rewritten_at) == ("run-command", first_chunk.claim.claimed_at)
    count, chunk = await on.steps_noted()
    assert [count[name] for name in ("step", "outcome", "listed", "askedBy")] == ["count", "done", 2, "test"]
    assert [chunk[name] for name in ("step", "chunk", "chunks", "outcome", "exitCode")] == ["rewrite", 1, 1, "done", 0]
    assert [chunk[name] for name in ("listed", "rewritten", "conflicts", "failed")] == [2, 2, 0, 0]
    assert chunk["operation"] in azure.aks.commands.all


async def test_a_second_run_starts_no_command(azure: Azure, account: Account, opened: AsyncExitStack) -> None:
    on = await scene(azure, account, opened)
    await on.settle()
    commands, rows = on.commands(), await on.app.rows("clusters")

    on.later()
    await on.look()

    assert on.commands() == commands
    assert await on.app.rows("clusters") == rows
    assert on.writes() == 0


async def test_many_secrets_are_rewritten_chunk_by_chunk(
    azure: Azure, account: Account, opened: AsyncExitStack
) -> None:
    on = await scene(azure, account, opened)
    for number in range(1100):
        azure.aks.write_secret(on.cluster, f"s-{number}", namespace=f"team-{number % 40}")

    await on.settle()

    assert on.commands() == ["i=0 n=0", "i=1 n=3", "i=2 n=3", "i=3 n=3"]
    steps = await on.steps_noted()
    assert sum(step["rewritten"] for step in steps[1:]) == 1101
    assert (await on.user()).rewritten_at == steps[1]["at"]


async def test_audit_shows_the_rewrite_and_starts_nothing(
    azure: Azure, account: Account, opened: AsyncExitStack
) -> None:
    on = await scene(azure, account, opened, policy("update-and-reencrypt", mode="audit"))

    looked = await on.look()

    assert (looked.action, looked.reasons) == (Action.REENCRYPT, (Reason.NOT_REENCRYPTED,))
    assert looked.change == Reencryption(KeyId("kv-kms", "etcd"), on.named)
    assert on.commands() == []


@pytest.mark.parametrize(
    ("rotation", "on"),
    [
        pytest.param("update-and-reencrypt", False, id="the-setting-is-off"),
        pytest.param("update", True, id="the-policy-says-update"),
        pytest.param("report", True, id="the-policy-says-report"),
    ],
)
async def test_policy_and_setting_must_both_say_so(
    azure: Azure, account: Account, opened: AsyncExitStack, rotation: str, on: bool
) -> None:
    playing = await scene(azure, account, opened, policy(rotation), on=on)

    await playing.settle()

    assert playing.commands() == []
    assert (await playing.user()).rewritten_at is None


async def test_a_pause_holds_the_rewrite_back(azure: Azure, account: Account, opened: AsyncExitStack) -> None:
    on = await scene(azure, account, opened)
    await on.app.pauses.pause(by="ops@example.com", why=None, now=on.now)

    held = await on.look()
    assert (held.action, held.reasons) == (Action.WAIT, (Reason.PAUSED, Reason.NOT_REENCRYPTED))
    assert on.commands() == []
    await on.app.pauses.resume(by="ops@example.com", now=on.now)
    await on.settle()

    assert (await on.user()).rewritten_by == "run-command"


async def test_a_closed_window_holds_the_rewrite_back(azure: Azure, account: Account, opened: AsyncExitStack) -> None:
    closed = (azure.clock.now() + timedelta(days=2)).strftime("%a").lower()
    window = f'windows: [{{days: [{closed}], from: "00:00", to: "01:00", timezone: UTC}}]'
    on = await scene(azure, account, opened, policy("update-and-reencrypt", more=window))

    held = await on.look()

    assert held.reasons == (Reason.WINDOW_CLOSED, Reason.NOT_REENCRYPTED)
    assert on.commands() == []


async def test_without_a_free_slot_it_waits(azure: Azure, account: Account, opened: AsyncExitStack) -> None:
    limits = "limits: {concurrentUpdates: 1}"
    on = await scene(azure, account, opened, policy("update-and-reencrypt", more=limits))
    other = azure.aks.add("aks-other")
    await on.app.look(other, now=on.now)

    waits = await on.look()

    assert (waits.reasons[0], on.commands()) == (Reason.LIMIT_REACHED, [])


# what keeps a command from running


@pytest.mark.parametrize(
    ("properties", "pools", "reason"),
    [
        pytest.param(
            {"apiServerAccessProfile": {"disableRunCommand": True}}, None, Reason.RUN_COMMAND_DISABLED, id="disabled"
        ),
        pytest.param({}, [{"count": 0}], Reason.NO_READY_POOL, id="no-nodes"),
        pytest.param({}, [{"provisioningState": "Failed"}], Reason.NO_READY_POOL, id="failed-pool"),
        pytest.param({}, [{"powerState": {"code": "Stopped"}}], Reason.NO_READY_POOL, id="stopped-pool"),
    ],
)
async def test_a_cluster_that_can_run_no_command_is_reported_with_what_to_do(
    azure: Azure,
    account: Account,
    opened: AsyncExitStack,
    properties: dict[str, Any],
    pools: Any,
    reason: Reason,
) -> None:
    on = await scene(azure, account, opened, properties=properties, pools=pools)

    looked = await on.settle()

    assert (looked.action, looked.reasons) == (Action.REPORT, (reason, Reason.NOT_REENCRYPTED))
    assert looked.fix is not None
    assert "/reencrypted" in looked.fix.text
    assert on.commands() == []


ENTRA = {"aadProfile": {"managed": True}}


async def test_a_cluster_that_asks_entra_gets_a_token_of_the_app_that_is_kept_nowhere(
    azure: Azure, account: Account, opened: AsyncExitStack, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    on = await scene(azure, account, opened, properties=ENTRA)

    await on.settle()

    sent = azure.journal.matching("POST", RUN_COMMAND)
    assert all("clusterToken" in call.body for call in sent)
    assert sent
    assert (await on.user()).rewritten_by == "run-command"
    token, _ = azure.identity.token("6dae42f8-4368-4678-94ff-3960e28e3630")
    header = token.partition(".")[0]
    assert header not in await on.all_rows()
    assert header not in caplog.text


async def test_a_cluster_with_local_accounts_gets_no_token(
    azure: Azure, account: Account, opened: AsyncExitStack
) -> None:
    on = await scene(azure, account, opened)

    await on.settle()

    assert not any("clusterToken" in call.body for call in azure.journal.matching("POST", RUN_COMMAND))


async def test_an_app_without_the_right_is_blocked_and_told_which(
    azure: Azure, account: Account, opened: AsyncExitStack
) -> None:
    on = await scene(azure, account, opened)
    azure.permissions.refuse("Microsoft.ContainerService/managedClusters/runCommand/action")

    looked = await on.look()

    assert (looked.action, looked.reasons[0]) == (Action.REPORT, Reason.NOT_PERMITTED)
    assert "Microsoft.ContainerService/managedClusters/runCommand/action" in (looked.detail or "")
    on.later()
    await on.look()
    assert len(azure.journal.matching("POST", RUN_COMMAND)) == 1, "it rests"
    azure.permissions.allow("Microsoft.ContainerService/managedClusters/runCommand/action")
    on.later(timedelta(hours=1))
    await on.settle()
    assert (await on.user()).rewritten_by == "run-command"


async def test_a_rewrite_that_somebody_confirms_lets_the_update_go_on_though_the_command_was_refused(
    azure: Azure, account: Account, opened: AsyncExitStack
) -> None:
    on = await scene(azure, account, opened)
    newest = on.rotate()
    await on.inspect()
    azure.permissions.refuse("Microsoft.ContainerService/managedClusters/runCommand/action")
    refused = await on.look()
    on.rewrite_by_hand()
    on.later()
    await on.app.rotator.confirm(on.id, RewriteOrder("ops@example.com"), now=on.now)

    updated = await on.look()

    assert refused.reasons[0] is Reason.NOT_PERMITTED
    assert (updated.reasons[0], on.named, on.writes()) == (Reason.UPDATING, newest, 1)
    on.later(OPERATION)
    after = await on.look()
    assert (after.reasons[0], on.readable()) == (Reason.NOT_PERMITTED, True)
    rows = await on.all_rows()
    await on.look()
    assert (on.writes(), await on.all_rows()) == (1, rows)


async def test_a_command_that_azure_takes_without_ever_saying_so_is_started_ever_more_rarely(
    azure: Azure, account: Account, opened: AsyncExitStack
) -> None:
    on = await scene(azure, account, opened)
    azure.faults.drop_next("POST", RUN_COMMAND, accepted=True, times=400)
    began = on.now

    looked = await on.look()
    while looked.waiting is not None and looked.reasons[0] is not Reason.WAITED_TOO_LONG:
        on.later(max(looked.waiting.look_again_at - on.now, MINUTE))
        looked = await on.look()

    assert looked.reasons[:2] == (Reason.WAITED_TOO_LONG, Reason.CONFLICT)
    assert timedelta(hours=6) <= on.now - began < timedelta(hours=8)
    assert 5 < len(on.commands()) < 20
    assert await on.app.slots_held() == []
    assert (await on.user()).rewritten_at is None


async def test_an_app_that_may_not_read_results_never_confirms(
    azure: Azure, account: Account, opened: AsyncExitStack
) -> None:
    on = await scene(azure, account, opened)
    azure.permissions.refuse("Microsoft.ContainerService/managedClusters/commandResults/read")

    await on.look()
    for _ in range(4):
        on.later(timedelta(minutes=20))
        looked = await on.look()

    assert (await on.user()).rewritten_at is None
    (step, *_) = await on.steps_noted()
    assert (step["outcome"], step["fault"]) == ("failed", "timed-out")
    assert looked.rewrite is not None


# what goes wrong with a command


@pytest.mark.parametrize(
    ("how", "fault"),
    [
        pytest.param(Spoiling.HALF, Fault.NOT_ALL, id="half-way"),
        pytest.param(Spoiling.CONFLICTS, Fault.NOT_ALL, id="conflicts"),
        pytest.param(Spoiling.CUT, Fault.NOT_READABLE, id="cut"),
        pytest.param(Spoiling.EXIT, Fault.NOT_ALL, id="exit-code"),
        pytest.param(Spoiling.NO_POD, Fault.NOT_RUN, id="no-pod"),
        pytest.param(Spoiling.LOST, Fault.NOT_RUN, id="lost"),
    ],
)
async def test_a_chunk_that_is_not_confirmed_keeps_the_guard_shut_and_is_tried_again(
    azure: Azure, account: Account, opened: AsyncExitStack, how: Spoiling, fault: Fault
) -> None:
    on = await scene(azure, account, opened)
    await on.look()
    on.later()
    azure.aks.commands.spoil_next(how)
    await on.look()

    on.later()
    rests = await on.look()

    assert (rests.action, rests.reasons[0]) == (Action.WAIT, Reason.REENCRYPTION_FAILED)
    assert (await on.user()).rewritten_at is None
    assert (await on.steps_noted())[-1]["fault"] == fault
    assert await on.app.slots_held() == []
    await on.settle()
    assert (await on.user()).rewritten_by == "run-command"
    assert on.readable()


async def test_three_failures_in_a_row_are_reported_until_somebody_lets_it_go_on(
    azure: Azure, account: Account, opened: AsyncExitStack
) -> None:
    on = await scene(azure, account, opened)
    azure.aks.write_secret(on.cluster, "second")
    azure.aks.commands.spoil_next(*[Spoiling.EXIT] * 3)

    failed = await on.settle()

    assert (failed.action, failed.reasons) == (Action.REPORT, (Reason.REENCRYPTION_FAILED, Reason.NOT_REENCRYPTED))
    assert failed.detail == "the count: not-all"
    assert failed.fix is not None
    assert "/resume" in failed.fix.text
    assert on.commands() == ["i=0 n=0"] * 3
    on.later(timedelta(days=1))
    await on.look()
    assert on.commands() == ["i=0 n=0"] * 3
    await on.app.reconciler.resume(on.id, asked_by="ops@example.com", now=on.now)
    await on.settle()
    assert (await on.user()).rewritten_by == "run-command"


async def test_a_failure_says_what_the_command_counted(azure: Azure, account: Account, opened: AsyncExitStack) -> None:
    on = await scene(azure, account, opened)
    await on.look()
    on.later()
    azure.aks.commands.spoil_next(*[Spoiling.HALF] * 3)

    failed = await on.settle()

    assert failed.detail == (
        "chunk 1 of 1: not-all (1 listed, 0 rewritten, 0 changed by somebody else at every attempt, 1 failed)"
    )
    assert (await on.steps_noted())[-1]["failed"] == 1


async def test_a_command_that_never_ends_is_given_up_after_an_hour(
    azure: Azure, account: Account, opened: AsyncExitStack
) -> None:
    on = await scene(azure, account, opened)
    azure.aks.commands.spoil_next(Spoiling.HANG)
    await on.look()

    on.later(timedelta(minutes=59))
    runs = await on.look()
    assert runs.claim is not None
    on.later(timedelta(minutes=1))
    given_up = await on.look()

    assert given_up.reasons[0] is Reason.REENCRYPTION_FAILED
    assert (await on.steps_noted())[0]["fault"] == "timed-out"
    await on.settle()
    assert (await on.user()).rewritten_by == "run-command"


async def test_what_a_command_prints_reaches_no_row_and_no_log(
    azure: Azure, account: Account, opened: AsyncExitStack, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    on = await scene(azure, account, opened)
    marker = "c2VjcmV0LW1hcmtlcg"
    for text in (
        f"{marker}\n",
        f"kms-rewrite chunk=0/0 listed=1 rewritten=0 conflicts=0 failed=0 end {marker}",
        marker,
    ):
        azure.aks.commands.print_next(text)

    failed = await on.settle()

    assert failed.reasons[0] is Reason.REENCRYPTION_FAILED
    assert [command.printed for command in azure.aks.commands.all.values() if marker in str(command.printed)]
    assert marker not in await on.all_rows()
    assert marker not in caplog.text
    assert marker not in repr(
        await on.app.aks.command_end(on.id, f"/commandResults/{next(iter(azure.aks.commands.all))}")
    )


# crashes and changes half way


async def test_a_command_whose_start_was_not_recorded_is_started_again(
    azure: Azure, account: Account, opened: AsyncExitStack
) -> None:
    on = await scene(azure, account, opened)
    azure.faults.drop_next("POST", RUN_COMMAND, accepted=True)

    started = await on.look()
    assert started.claim is not None
    assert started.claim.operation is None
    on.later()
    await on.settle()

    assert on.commands().count("i=0 n=0") == 2
    assert (await on.steps_noted())[0]["outcome"] == "withdrawn"
    assert (await on.user()).rewritten_by == "run-command"


async def test_a_throttled_start_comes_back_when_azure_says(
    azure: Azure, account: Account, opened: AsyncExitStack
) -> None:
    on = await scene(azure, account, opened)
    azure.faults.fail_next("POST", RUN_COMMAND, 429, code="Throttled", message="later", headers={"Retry-After": "120"})

    waits = await on.look()

    assert waits.reasons[0] is Reason.THROTTLED
    assert await on.app.slots_held() == []
    await on.settle()
    assert (await on.user()).rewritten_by == "run-command"


async def test_a_result_that_can_not_be_read_now_is_asked_for_again(
    azure: Azure, account: Account, opened: AsyncExitStack
) -> None:
    on = await scene(azure, account, opened)
    await on.look()
    on.later()
    azure.faults.fail_next("GET", RESULT, 429, code="Throttled", message="later", headers={"Retry-After": "60"})

    waits = await on.look()

    assert waits.claim is not None
    await on.settle()
    assert (await on.user()).rewritten_by == "run-command"


async def test_a_command_that_ends_at_once_is_answered_with_its_result(
    azure: Azure, account: Account, opened: AsyncExitStack
) -> None:
    on = await scene(azure, account, opened)
    azure.aks.commands.duration = timedelta()

    await on.settle()

    assert on.commands() == ["i=0 n=0", "i=1 n=1"]
    assert (await on.user()).rewritten_by == "run-command"


@pytest.mark.parametrize("status", [500, 503])
async def test_a_result_that_azure_never_gives_is_given_up_after_an_hour(
    azure: Azure, account: Account, opened: AsyncExitStack, status: int
) -> None:
    on = await scene(azure, account, opened)
    await on.look()
    azure.faults.fail_next("GET", RESULT, status, code="InternalServerError", message="no", times=100)

    on.later()
    runs = await on.look()
    on.later(timedelta(minutes=59))
    given_up = await on.look()

    assert runs.claim is not None
    assert given_up.reasons[0] is Reason.REENCRYPTION_FAILED
    assert (await on.steps_noted())[0]["fault"] == "timed-out"
    assert await on.app.slots_held() == []
    assert (await on.user()).rewritten_at is None


async def test_a_cluster_that_is_updated_half_way_begins_its_rewrite_anew(
    azure: Azure, account: Account, opened: AsyncExitStack
) -> None:
    on = await scene(azure, account, opened)
    await on.look()
    on.later()
    await on.look()
    azure.aks.change(on.cluster.id, lambda document: document["tags"].update(a="b"), duration=5 * MINUTE)

    on.later()
    busy = await on.look()
    assert (busy.reasons[0], busy.claim, busy.rewrite) == (Reason.BUSY, None, None)
    assert (await on.user()).rewritten_at is None
    await on.settle()

    assert on.commands() == ["i=0 n=0", "i=1 n=1", "i=0 n=0", "i=1 n=1"]
    assert (await on.user()).rewritten_by == "run-command"


async def test_a_cluster_that_is_moved_to_another_version_half_way_begins_anew(
    azure: Azure, account: Account, opened: AsyncExitStack
) -> None:
    on = await scene(azure, account, opened)
    await on.look()
    version = on.rotate()
    await on.inspect()

    def name_it(document: dict[str, Any]) -> None:
        document["properties"]["securityProfile"]["azureKeyVaultKms"]["keyId"] = on.key.uri_of(version)

    azure.aks.change(on.cluster.id, name_it)
    on.later()
    moved = await on.look()

    assert (await on.steps_noted())[0]["outcome"] == "withdrawn"
    assert moved.claim is not None
    assert getattr(moved.claim.change, "version", None) == version
    await on.settle()
    assert (await on.user()).rewritten_by == "run-command"
    assert on.readable()


async def test_a_cluster_that_is_created_anew_half_way_begins_anew(
    azure: Azure, account: Account, opened: AsyncExitStack
) -> None:
    on = await scene(azure, account, opened)
    await on.look()
    azure.aks.delete(on.cluster.id)
    fresh = azure.aks.add("aks-1", encryption="legacy", key_id=on.key.uri_of(on.key.current.version))

    on.later()
    record = await on.app.look(fresh, now=on.now)

    assert record is not None
    assert record.rewrite is None
    assert (await on.steps_noted())[0]["outcome"] == "gone"
    assert all(user.rewritten_at is None for user in await on.app.keys.users(KeyId("kv-kms", "etcd")))


def test_the_command_names_nothing_but_numbers() -> None:
    """Whatever a cluster, a namespace or a key is called: none of it is in the text."""
    first = command(Reencryption(KeyId("kv-a", "etcd"), VERSION, 3, 7)).partition("\n")[0]

    assert re.fullmatch(r"i=\d+ n=\d+", first)
