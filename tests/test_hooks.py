"""What runs after a deployment: events, dead letters, bytecode. The Azure CLI is a program that answers from a file."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from infra.hooks.azure_cli import Cli, CliError
from infra.hooks.deployment import OUTPUTS, Deployment, NotDeployed
from infra.hooks.postdeploy import (
    FUNCTIONS,
    TOPIC_TYPES,
    Topic,
    Unusable,
    ledger_vaults,
    plan,
    subscribe,
    wait_for_functions,
)
from infra.hooks.predown import other_groups
from infra.hooks.prepackage import compile_code
from infra.hooks.redeliver import DeadLetters, Message, messages, redeliver
from shared.events import ClusterRequest, KeyRequest
from tests.bicep import REQUIRED, read

ROOT = Path(__file__).parent.parent
HOOKS = ROOT / "infra" / "hooks"
FIXTURES = ROOT / "tests" / "fixtures" / "events"

HOME = "11111111-1111-4111-8111-111111111111"
OTHER = "22222222-2222-4222-8222-222222222222"
GROUP = f"/subscriptions/{HOME}/resourceGroups/rg-kms"
IDENTITY = f"{GROUP}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/id-topics"
VAULT = f"/subscriptions/{HOME}/resourcegroups/rg-keys/providers/microsoft.keyvault/vaults/kv-one"
ACTION_GROUP = f"{GROUP}/providers/Microsoft.Insights/actionGroups/on-call"
VALUES = {
    "ENFORCER_NAME": "dev",
    "ENFORCER_LOCATION": "westeurope",
    "ENFORCER_SUBSCRIPTION": HOME,
    "ENFORCER_RESOURCE_GROUP": "rg-kms",
    "ENFORCER_APP_ID": f"{GROUP}/providers/Microsoft.Web/sites/func-kms",
    "ENFORCER_STORAGE_ID": f"{GROUP}/providers/Microsoft.Storage/storageAccounts/stkms",
    "ENFORCER_DEAD_LETTERS": "dead-letters",
    "ENFORCER_TOPIC_IDENTITY_ID": IDENTITY,
    "ENFORCER_SUBSCRIPTIONS": f"{HOME},{OTHER}",
    "ENFORCER_VAULTS": VAULT,
    "ENFORCER_ACTION_GROUPS": ACTION_GROUP,
}
DEPLOYMENT = Deployment.read(VALUES)

_PROGRAM = """#!{python} -IS
import json, pathlib, sys
folder = pathlib.Path(__file__).parent
arguments = sys.argv[1:]
kept = [pathlib.Path(one[1:]).read_text() for one in arguments if one.startswith("@")]
with (folder / "calls").open("a") as log:
    log.write(json.dumps([arguments, kept]) + "\\n")
answers = json.loads((folder / "answers").read_text())
for number, (words, answer) in enumerate(answers):
    if all(word in " ".join(arguments) for word in words):
        if answer.get("once"):
            (folder / "answers").write_text(json.dumps(answers[:number] + answers[number + 1:]))
        if "file" in answer:
            pathlib.Path(arguments[arguments.index("--file") + 1]).write_text(answer["file"])
        if answer.get("reads") and sys.stdin.read():
            sys.exit("it was given something to read")
        for stream in (sys.stdout, sys.stderr):
            stream.reconfigure(errors="surrogateescape")
        sys.stderr.write(answer.get("warning", "") + answer.get("error", ""))
        sys.stdout.write(answer.get("text", json.dumps(answer.get("json"))))
        sys.exit(1 if "error" in answer else 0)
sys.exit("unknown: " + " ".join(arguments))
"""


@dataclass(frozen=True, slots=True)
class FakeCli:
    """A program in a folder that answers the first of its answers whose words are all in the command."""

    folder: Path

    def answers(self, *pairs: tuple[Sequence[str], Mapping[str, Any]]) -> Cli:
        program = self.folder / "az"
        program.write_text(_PROGRAM.replace("{python}", sys.executable), encoding="utf-8")
        program.chmod(0o700)
        (self.folder / "answers").write_text(json.dumps(pairs), encoding="utf-8")
        return Cli(str(program))

    def calls(self, *words: str) -> list[list[str]]:
        """The commands so far that hold these words."""
        return [arguments for arguments, _ in self._log() if all(word in " ".join(arguments) for word in words)]

    def parameters(self, number: int = 0) -> dict[str, Any]:
        """The parameters of a deployment, the first unless said otherwise."""
        text = [kept for _, files in self._log() for kept in files][number]
        return {name: one["value"] for name, one in json.loads(text)["parameters"].items()}

    def _log(self) -> list[tuple[list[str], list[str]]]:
        log = self.folder / "calls"
        return [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()] if log.exists() else []


@pytest.fixture
def az(tmp_path: Path) -> FakeCli:
    return FakeCli(tmp_path)


# the program


def test_what_the_program_says_no_to_is_an_error_with_its_words(az: FakeCli) -> None:
    cli = az.answers((["account"], {"error": "ERROR: Please run 'az login'"}))

    with pytest.raises(CliError, match="Please run 'az login'"):
        cli.ask("account", "show")


def test_an_answer_that_is_no_json_is_an_error(az: FakeCli) -> None:
    cli = az.answers((["account"], {"text": "<html>"}))

    with pytest.raises(CliError, match="no JSON"):
        cli.ask("account", "show")


def test_what_the_program_prints_in_another_encoding_is_read_all_the_same(az: FakeCli) -> None:
    """On Windows a pipe gets the console's encoding: a vault's tag with an umlaut is no UTF-8 there."""
    cli = az.answers(
        (["resource show"], {"text": '{"location": "westeurope", "tags": {"team": "B\udcfcro"}}'}),
        (["account"], {"error": "ERROR: Anmeldung fehlgeschlagen f\udcfcr x"}),
    )

    assert cli.ask("resource", "show")["location"] == "westeurope"
    with pytest.raises(CliError, match="Anmeldung fehlgeschlagen"):
        cli.ask("account", "show")


def test_a_program_that_is_missing_is_named() -> None:
    with pytest.raises(CliError, match="no-such-program is missing"):
        Cli.find("no-such-program")


# what was deployed


def test_all_outputs_that_are_missing_are_named() -> None:
    with pytest.raises(NotDeployed, match="ENFORCER_APP_ID, ENFORCER_STORAGE_ID"):
        Deployment.read({name: value for name, value in VALUES.items() if name not in OUTPUTS[4:6]})


def test_azd_leaves_an_empty_output_out() -> None:
    values = {name: value for name, value in VALUES.items() if name != "ENFORCER_VAULTS"}

    assert Deployment.read(values).vaults == ()


def test_the_environment_of_an_azd_hook_is_read() -> None:
    assert Deployment.find(None, VALUES) == DEPLOYMENT


# the plan


def topic(name: str, source: str, *identities: str) -> Topic:
    there = f"/subscriptions/{source.split('/')[2]}/resourceGroups/rg-theirs/providers/Microsoft.EventGrid/systemTopics"
    return Topic(f"{there}/{name}", source, frozenset(one.lower() for one in identities))


def test_each_source_gets_a_topic_in_its_own_subscription() -> None:
    planned = plan(DEPLOYMENT, {VAULT: "westeurope"}, [])

    assert [(one.kind, one.source, one.location) for one in planned.sources] == [
        ("clusters", f"/subscriptions/{HOME}", "global"),
        ("clusters", f"/subscriptions/{OTHER}", "global"),
        ("keys", VAULT, "westeurope"),
    ]
    assert [one.topic.split("/")[2] for one in planned.sources] == [HOME, OTHER, HOME]
    assert {one.topic.split("/")[4] for one in planned.sources} == {"rg-kms"}
    assert planned.topic_subscriptions == (OTHER,)
    assert len({one.topic for one in planned.sources}) == 3


def test_a_topic_that_is_there_is_reused() -> None:
    theirs = topic("theirs", f"/subscriptions/{OTHER}", IDENTITY)

    planned = plan(DEPLOYMENT, {}, [theirs])

    assert [(one.topic, one.existing) for one in planned.sources if one.source == theirs.source] == [(theirs.id, True)]
    assert planned.topic_subscriptions == ()


def test_a_second_plan_is_the_same_as_the_first() -> None:
    first = plan(DEPLOYMENT, {VAULT: "westeurope"}, [])
    made = [Topic(one.topic.upper(), one.source.upper(), frozenset({IDENTITY.lower()})) for one in first.sources]

    again = plan(DEPLOYMENT, {VAULT: "westeurope"}, made)

    assert [replace(one, topic=one.topic.lower(), existing=True) for one in first.sources] == [
        replace(one, topic=one.topic.lower()) for one in again.sources
    ]
    assert (again.topic_subscriptions, again.left_out) == ((), ())


def test_a_topic_of_ours_without_its_identity_is_made_again() -> None:
    first = plan(DEPLOYMENT, {}, [])

    assert plan(DEPLOYMENT, {}, [Topic(one.topic, one.source, frozenset()) for one in first.sources]) == first


def test_somebody_else_s_topic_is_not_changed_and_keeps_nobody_from_the_others() -> None:
    planned = plan(DEPLOYMENT, {VAULT: "westeurope"}, [topic("theirs", f"/subscriptions/{OTHER}")])

    assert [one.source for one in planned.sources] == [f"/subscriptions/{HOME}", VAULT]
    (why,) = planned.left_out
    assert re.search(
        r"rg-theirs.*Give it the user-assigned identity .*id-topics.*leave it what others deliver with", why
    )


def test_two_apps_on_one_topic_have_subscriptions_of_their_own() -> None:
    (call,) = [module for module in read(ROOT / "infra" / "events.bicep").modules if module.name == "topics"]

    assert "${uniqueString(appId)}" in call.body["params"]["subscriptionName"]


# waiting


FUNCTION = "/functions/on_"


def test_the_functions_are_waited_for(az: FakeCli) -> None:
    cli = az.answers(
        (["on_key_event"], {"error": "Not Found({})", "once": True}),
        ([FUNCTION], {"json": {"name": "x"}}),
    )

    wait_for_functions(cli, DEPLOYMENT, pauses=(0, 0))

    assert len(az.calls("on_cluster_event")) == 1
    assert len(az.calls("on_key_event")) == 2


def test_functions_that_never_come_are_named(az: FakeCli) -> None:
    cli = az.answers(([FUNCTION], {"error": "Not Found({})"}))

    with pytest.raises(Unusable, match="on_cluster_event"):
        wait_for_functions(cli, DEPLOYMENT, pauses=(0, 0))


def test_who_may_not_look_does_not_wait(az: FakeCli) -> None:
    cli = az.answers(([FUNCTION], {"error": "Forbidden({AuthorizationFailed})"}))

    with pytest.raises(CliError, match="AuthorizationFailed"):
        wait_for_functions(cli, DEPLOYMENT, pauses=(0, 0))

    assert len(az.calls(FUNCTION)) == 1


# the ledger


def test_the_ledger_is_read_to_its_end(az: FakeCli) -> None:
    cli = az.answers(
        (["entity query", "nextpartitionkey=p"], {"json": {"items": [{"vaultId": "b"}, {}], "nextMarker": {}}}),
        (["entity query"], {"json": {"items": [{"vaultId": "a"}], "nextMarker": {"nextpartitionkey": "p"}}}),
    )

    assert ledger_vaults(cli, DEPLOYMENT) == {"a", "b"}


def test_the_ledger_is_read_without_a_key(az: FakeCli) -> None:
    cli = az.answers((["entity query"], {"json": {"items": []}}))

    ledger_vaults(cli, DEPLOYMENT)

    (call,) = az.calls()
    assert call[call.index("--auth-mode") + 1] == "login"
    assert call[call.index("--account-name") + 1] == "stkms"


# all of it


def azure(**more: Any) -> list[tuple[list[str], dict[str, Any]]]:
    """An Azure in which everything is there."""
    return [
        ([FUNCTION], {"json": {"name": "x"}}),
        (["entity query"], more.get("ledger", {"json": {"items": [{"vaultId": VAULT.replace("kv-one", "KV-Two")}]}})),
        (["resource show", "kv-gone"], {"error": "(ResourceNotFound) The Resource was not found."}),
        (["resource show"], {"json": {"location": "westeurope"}}),
        (["system-topic list"], {"json": more.get("topics", [])}),
        (["deployment sub create"], {"json": {"properties": {}}}),
    ]


def test_events_are_deployed_for_parameters_and_ledger(az: FakeCli) -> None:
    subscribe(az.answers(*azure()), DEPLOYMENT, ledger_needed=True, pauses=())

    deployed = az.parameters()
    assert [(one["kind"], one["source"].rsplit("/", 1)[-1]) for one in deployed["sources"]] == [
        ("clusters", HOME),
        ("clusters", OTHER),
        ("keys", "kv-one"),
        ("keys", "kv-two"),
    ]
    assert deployed["topicSubscriptions"] == [OTHER]
    assert deployed["actionGroupIds"] == [ACTION_GROUP]


def test_the_template_gets_the_parameters_that_it_takes(az: FakeCli) -> None:
    template = read(ROOT / "infra" / "events.bicep")

    subscribe(az.answers(*azure()), DEPLOYMENT, ledger_needed=True, pauses=())

    deployed = az.parameters()
    required = {name for name, default in template.params.items() if default is REQUIRED}
    assert required <= set(deployed) <= set(template.params)
    assert {one["kind"] for one in deployed["sources"]} == set(template.vars["kinds"])
    one_source = template.modules[1]
    fields = {field for field in deployed["sources"][0] if f"one.{field}" in one_source_text(template)}
    assert one_source.over.text == "sources"
    assert fields == set(deployed["sources"][0])


def one_source_text(template: Any) -> str:
    text: str = template.text[template.text.index("module topics") :]
    return text


def test_a_vault_that_is_gone_is_left_out_and_named(az: FakeCli, capsys: pytest.CaptureFixture[str]) -> None:
    ledger = {"json": {"items": [{"vaultId": VAULT.replace("kv-one", "kv-gone")}]}}

    subscribe(az.answers(*azure(ledger=ledger)), DEPLOYMENT, ledger_needed=True, pauses=())

    assert "kv-gone" not in json.dumps(az.parameters())
    assert "kv-gone" in capsys.readouterr().out


@pytest.mark.parametrize(
    "row", ["@/etc/hostname", f"{VAULT}=@/etc/hostname", "--debug", f"{VAULT}/keys/etcd", "\x1b[2J", 5]
)
def test_a_row_of_the_ledger_that_names_no_vault_is_never_said_to_the_azure_cli(az: FakeCli, row: object) -> None:
    """The Azure CLI reads a file where a value begins with `@`: who writes a row must not choose one."""
    cli = az.answers(*azure(ledger={"json": {"items": [{"vaultId": row}, {"vaultId": f"{VAULT}/"}]}}))

    with pytest.raises(Unusable, match="is no vault's id"):
        subscribe(cli, DEPLOYMENT, ledger_needed=True, pauses=())

    assert [call[call.index("--ids") + 1] for call in az.calls("resource show")] == [VAULT.lower()]
    assert [one["source"] for one in az.parameters()["sources"]][2:] == [VAULT.lower()]


UNSEEN = "WARNING: Subscription 'x' not recognized.\nERROR: Subscription 'x' not found."


@pytest.mark.parametrize("said", [UNSEEN, "(SubscriptionNotFound) The subscription 'x' could not be found."])
def test_a_vault_that_can_not_be_seen_keeps_nobody_from_the_others_and_is_named(az: FakeCli, said: str) -> None:
    hidden = VAULT.replace(HOME, "33333333-3333-4333-8333-333333333333")
    ledger = {"json": {"items": [{"vaultId": hidden}]}}
    cli = az.answers((["resource show", hidden], {"error": said}), *azure(ledger=ledger))

    with pytest.raises(Unusable, match=f"(?s){hidden}.*Sign in as somebody who sees that subscription"):
        subscribe(cli, DEPLOYMENT, ledger_needed=True, pauses=())

    assert [one["kind"] for one in az.parameters()["sources"]] == ["clusters", "clusters", "keys"]


def theirs(kind: str) -> dict[str, Any]:
    """A system topic of somebody else, as the Azure CLI lists it."""
    return {"id": f"{GROUP}/theirs", "source": f"/subscriptions/{OTHER}", "identity": None, "topicType": kind}


OURS = {"type": "UserAssigned", "userAssignedIdentities": {IDENTITY: {}}}


@pytest.mark.parametrize("kind", ["Microsoft.PolicyInsights.PolicyStates", "microsoft.resourcenotifications.resources"])
def test_a_topic_of_the_same_source_that_tells_of_something_else_is_none_of_ours(az: FakeCli, kind: str) -> None:
    policy = theirs(kind) | {"id": f"{GROUP}/of-policy"}
    clusters = theirs("microsoft.resources.subscriptions") | {"identity": OURS}

    subscribe(az.answers(*azure(topics=[clusters, policy])), DEPLOYMENT, ledger_needed=True, pauses=())

    topics = {one["source"]: (one["topic"], one["existing"]) for one in az.parameters()["sources"]}
    assert topics[f"/subscriptions/{OTHER}"] == (f"{GROUP}/theirs", True)


def test_the_topics_that_are_looked_for_are_those_that_are_made() -> None:
    kinds = read(ROOT / "infra" / "events.bicep").vars["kinds"].values()

    assert {kind["topicType"].lower() for kind in kinds} == TOPIC_TYPES


def test_a_topic_without_the_identity_is_named_once_the_others_are_deployed(az: FakeCli) -> None:
    cli = az.answers(*azure(topics=[theirs("Microsoft.Resources.Subscriptions")]))

    with pytest.raises(Unusable, match=f"{GROUP}/theirs"):
        subscribe(cli, DEPLOYMENT, ledger_needed=True, pauses=())

    assert [one["source"].rsplit("/", 1)[-1] for one in az.parameters()["sources"]] == [HOME, "kv-one", "kv-two"]


def test_a_subscription_that_may_not_be_written_keeps_nobody_from_the_others(
    az: FakeCli, capsys: pytest.CaptureFixture[str]
) -> None:
    """Azure refuses a deployment whole where one of its groups may not be written."""
    no = {"error": "ERROR: (AuthorizationFailed) The client does not have authorization to perform action 'x'"}
    create = "deployment sub create"
    cli = az.answers(([create, "--name dev-events "], no), ([create, f"--name dev-events-{OTHER}"], no), *azure())

    with pytest.raises(Unusable, match=f"(?s){OTHER}: .*AuthorizationFailed.*What you need"):
        subscribe(cli, DEPLOYMENT, ledger_needed=True, pauses=())

    names = [call[call.index("--name") + 1] for call in az.calls(create)]
    assert names == ["dev-events", f"dev-events-{HOME}", f"dev-events-{OTHER}"]
    assert max(map(len, names)) - len("dev") + 20 <= 64, "a name of 20 characters has to fit"
    whole, home, other = (az.parameters(number) for number in range(3))
    assert whole["sources"] == [home["sources"][0], other["sources"][0], *home["sources"][1:]]
    assert (home["topicSubscriptions"], other["topicSubscriptions"]) == ([], [OTHER])
    assert f"/subscriptions/{OTHER}" not in capsys.readouterr().out


def test_a_subscription_whose_topics_can_not_be_listed_keeps_nobody_from_the_others(az: FakeCli) -> None:
    """Somebody else's vault in the ledger, which whoever runs this may read and nothing beside it."""
    no = {"error": "ERROR: (MissingSubscriptionRegistration) The subscription is not registered to use namespace 'x'"}
    hidden = VAULT.replace(HOME, "33333333-3333-4333-8333-333333333333")
    ledger = {"json": {"items": [{"vaultId": hidden}]}}
    lists = [(["system-topic list", one], no) for one in (OTHER, "33333333-3333-4333-8333-333333333333")]

    with pytest.raises(Unusable, match=f"(?s)/subscriptions/{OTHER}: .*az provider register.*/subscriptions/33333333"):
        subscribe(az.answers(*lists, *azure(ledger=ledger)), DEPLOYMENT, ledger_needed=True, pauses=())

    assert [one["source"] for one in az.parameters()["sources"]] == [f"/subscriptions/{HOME}", VAULT]


def test_a_deployment_to_one_subscription_that_is_refused_is_tried_once(az: FakeCli) -> None:
    alone = replace(DEPLOYMENT, subscriptions=(HOME,))
    cli = az.answers((["deployment sub create"], {"error": "ERROR: AADSTS700082: expired"}), *azure())

    with pytest.raises(CliError, match="AADSTS700082"):
        subscribe(cli, alone, ledger_needed=True, pauses=())

    assert len(az.calls("deployment sub create")) == 1


REFUSED = {"error": "You do not have the required permissions needed to perform this operation."}


def test_a_ledger_that_can_not_be_read_yet_does_not_stop_a_first_deployment(
    az: FakeCli, capsys: pytest.CaptureFixture[str]
) -> None:
    subscribe(az.answers(*azure(ledger=REFUSED)), DEPLOYMENT, ledger_needed=False, pauses=())

    assert [one["kind"] for one in az.parameters()["sources"]] == ["clusters", "clusters", "keys"]
    assert "make events" in capsys.readouterr().out


def test_a_ledger_that_is_needed_and_can_not_be_read_deploys_nothing(az: FakeCli) -> None:
    with pytest.raises(CliError, match="required permissions"):
        subscribe(az.answers(*azure(ledger=REFUSED)), DEPLOYMENT, ledger_needed=True, pauses=())

    assert az.calls("deployment sub create") == []


def run(script: str, az: FakeCli, *arguments: str, **values: str) -> subprocess.CompletedProcess[str]:
    """Run a script as azd does: by its path, in its own folder, the values in the environment."""
    environment = {"PATH": f"{az.folder}{os.pathsep}/usr/bin{os.pathsep}/bin", **values}
    command = [sys.executable, str(HOOKS / script), *arguments]
    return subprocess.run(  # noqa: S603  our own script
        command, cwd=HOOKS, env=environment, capture_output=True, text=True, check=False
    )


def test_the_hook_runs_as_azd_runs_it(az: FakeCli) -> None:
    az.answers(*azure())

    done = run("postdeploy.py", az, **VALUES)

    assert (done.returncode, done.stderr) == (0, "")
    assert f"/subscriptions/{OTHER}" in done.stdout
    assert len(az.calls("deployment sub create")) == 1


def test_the_hook_reads_a_deployment_by_its_name(az: FakeCli) -> None:
    outputs = {name[0].lower() + name[1:]: {"type": "String", "value": value} for name, value in VALUES.items()}
    az.answers((["deployment sub show", "kms-1"], {"json": {"properties": {"outputs": outputs}}}), *azure())

    done = run("postdeploy.py", az, "--deployment", "kms-1")

    assert (done.returncode, done.stderr) == (0, "")
    assert len(az.parameters()["sources"]) == 4


@pytest.mark.parametrize("script", ["postdeploy.py", "predown.py", "redeliver.py"])
def test_a_command_without_a_deployment_says_so(az: FakeCli, script: str) -> None:
    az.answers()

    done = run(script, az)

    assert done.returncode == 1
    assert "ENFORCER_NAME" in done.stderr
    assert "DEPLOYMENT=name" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("script", ["postdeploy.py", "redeliver.py"])
@pytest.mark.parametrize(
    ("said", "advice"),
    [
        ("ERROR: (DeploymentNotFound) Deployment 'kms' could not be found.", "az account set --subscription"),
        ("ERROR: AADSTS700082: The refresh token has expired.", "az login"),
        ("ERROR: (AuthorizationFailed) The client does not have authorization", "What you need"),
        ("ERROR: The subscription of 'x' doesn't exist in cloud 'AzureCloud'.", "az login --tenant"),
    ],
)
def test_what_fails_says_what_to_do(az: FakeCli, script: str, said: str, advice: str) -> None:
    az.answers((["deployment sub show"], {"error": f"WARNING: a new Bicep release is there\n{said}"}))

    done = run(script, az, "--deployment", "kms")

    assert done.returncode == 1
    assert said in done.stderr
    assert advice in done.stderr
    assert "Traceback" not in done.stderr


def test_warnings_of_the_azure_cli_are_no_failure(az: FakeCli) -> None:
    answers = [(words, {"warning": "WARNING: this command is in preview\n", **answer}) for words, answer in azure()]
    az.answers(*answers)

    done = run("postdeploy.py", az, **VALUES)

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("dev: resource group rg-kms of subscription")


def test_a_question_of_the_azure_cli_finds_nobody_to_wait_for(az: FakeCli) -> None:
    cli = az.answers((["account"], {"reads": True, "json": {}}))

    assert cli.ask("account", "show") == {}


# before everything is deleted


def deployed(*ids: str, at: str = "2026-11-20T07:00:00.000000+00:00", **more: Any) -> dict[str, Any]:
    """A deployment of azd's environment, as the query of the hook shows it."""
    return {"tags": {"azd-env-name": "dev"}, "state": "Succeeded", "at": at, "ids": [GROUP, *ids], **more}


RIGHT = "providers/Microsoft.Authorization/roleAssignments/x"
ON_VAULT = f"{VAULT}/{RIGHT}"
IN_SUBSCRIPTION = f"/subscriptions/{HOME}/{RIGHT}"


def test_what_lies_in_the_app_s_own_group_alone_may_be_deleted(az: FakeCli) -> None:
    rows = [deployed(IN_SUBSCRIPTION, VALUES["ENFORCER_STORAGE_ID"].replace("rg-kms", "RG-KMS"))]
    az.answers((["deployment sub list", HOME], {"json": rows}))

    done = run("predown.py", az, **VALUES, AZURE_ENV_NAME="dev")

    assert (done.returncode, done.stderr) == (0, "")


def test_groups_in_which_the_app_holds_a_right_are_not_deleted_with_it(az: FakeCli) -> None:
    """azd deletes every group into which the deployment put anything: those of clusters and keys too."""
    az.answers((["deployment sub list", HOME], {"json": [deployed(IN_SUBSCRIPTION, ON_VAULT)]}))

    done = run("predown.py", az, **VALUES, AZURE_ENV_NAME="dev")

    assert done.returncode == 1
    assert re.search(r"(?s)may delete them whole:\n  rg-keys\n.*Taking it away", done.stderr)


@pytest.mark.parametrize(
    ("rows", "others"),
    [
        ([deployed(ON_VAULT), deployed(at="2026-11-21T07:00:00.000000+00:00")], []),
        ([deployed(), deployed(ON_VAULT, at="2026-11-21T07:00:00.000000+00:00")], ["rg-keys"]),
        ([deployed(ON_VAULT), deployed(state="Failed", ids=None, at="2026-11-21T07:00:00.000000+00:00")], ["rg-keys"]),
        ([deployed(), deployed(ON_VAULT, tags={"azd-env-name": "prod"}), deployed(ON_VAULT, tags=None)], []),
    ],
)
def test_the_last_deployment_that_succeeded_decides(rows: list[dict[str, Any]], others: list[str]) -> None:
    assert other_groups(DEPLOYMENT, rows) == others


def test_nothing_is_deleted_by_what_a_shell_holds_of_another_deployment(az: FakeCli) -> None:
    """The page on deployment tells to export the outputs; azd may have another environment selected since."""
    az.answers((["deployment sub list"], {"json": [deployed()]}))

    done = run("predown.py", az, **VALUES, AZURE_ENV_NAME="prod")

    assert done.returncode == 1
    assert "azd's environment is prod" in done.stderr
    assert az.calls() == []


@pytest.mark.parametrize(
    "answer",
    [
        {"json": []},
        {"text": ""},
        {"error": "ERROR: Please run 'az login'"},
        {"json": [deployed(ids=None)]},
        {"json": [deployed(ids=[IN_SUBSCRIPTION])]},
    ],
)
def test_nothing_is_deleted_where_nobody_can_tell_what_would_be(az: FakeCli, answer: dict[str, Any]) -> None:
    az.answers((["deployment sub list"], answer))

    done = run("predown.py", az, **VALUES, AZURE_ENV_NAME="dev")

    assert done.returncode == 1
    assert "not let through" in done.stderr
    assert "Traceback" not in done.stderr


# dead letters


def fixture(name: str) -> dict[str, Any]:
    event: dict[str, Any] = json.loads((FIXTURES / f"{name}.json").read_text(encoding="utf-8"))
    return event


def dead(*events: Any) -> str:
    """A blob of dead letters, with what Event Grid adds to each event."""
    why = {"deadLetterReason": "MaxDeliveryAttemptsExceeded", "deliveryAttempts": 30}
    return json.dumps([event | why for event in events])


@pytest.mark.parametrize("schema", ["cloudevents", "eventgrid"])
def test_an_event_becomes_the_message_that_its_trigger_would_have_sent(schema: str) -> None:
    cluster, key = fixture(f"cluster-written.{schema}"), fixture(f"key-rotated.{schema}")

    (on_cluster, on_key), faults = messages(dead(cluster, key))

    assert faults == []
    assert (on_cluster.queue, on_key.queue) == ("clusters", "keys")
    assert ClusterRequest.decode(on_cluster.text, "").asked_by == f"event:{cluster['id']}"
    assert KeyRequest.decode(on_key.text).asked_by == f"event:{key['id']}"


def test_a_single_event_is_taken_too() -> None:
    assert len(messages(json.dumps(fixture("cluster-deleted.cloudevents")))[0]) == 1


def test_what_the_app_does_not_serve_asks_for_nothing() -> None:
    assert messages(dead(fixture("secret-rotated.eventgrid"), fixture("pool-written.eventgrid"))) == ([], [])


@pytest.mark.parametrize("blob", ["", "nonsense", "[1]", "[" * 100_000, '[{"id": "x"}, null]'])
def test_a_blob_that_can_not_be_read_asks_for_nothing_and_says_why(blob: str) -> None:
    found, faults = messages(blob)

    assert found == []
    assert len(faults) == 1


def letters(az: FakeCli, blobs: Mapping[str, str], *more: tuple[Sequence[str], Mapping[str, Any]]) -> DeadLetters:
    downloads = [(["blob download", f"--name {name} "], {"file": blob, "json": {}}) for name, blob in blobs.items()]
    listed = (["blob list"], {"json": [{"name": name} for name in blobs]})
    sends = ((["message put"], {"json": {"id": "1"}}), (["blob delete"], {"text": ""}))
    return DeadLetters(az.answers(*more, listed, *downloads, *sends), "stkms", "dead-letters")


def test_a_blob_is_deleted_once_all_of_its_events_are_handed_over(az: FakeCli) -> None:
    blob = dead(fixture("cluster-written.cloudevents"), fixture("key-rotated.cloudevents"))

    unreadable = redeliver(letters(az, {"a.json": blob}), only_look=False)

    assert unreadable == 0
    verbs = [" ".join(call[1:3]) for call in az.calls()]
    assert verbs == ["blob list", "blob download", "message put", "message put", "blob delete"]
    queues = [call[call.index("--queue-name") + 1] for call in az.calls("message put")]
    contents = [call[call.index("--content") + 1] for call in az.calls("message put")]
    assert [Message(*pair) for pair in zip(queues, contents, strict=True)] == messages(blob)[0]


def test_a_message_that_is_refused_leaves_its_blob(az: FakeCli) -> None:
    blob = dead(fixture("cluster-written.cloudevents"))
    refused = (["message put"], {"error": "AuthorizationPermissionMismatch"})

    with pytest.raises(CliError, match="AuthorizationPermissionMismatch"):
        redeliver(letters(az, {"a.json": blob}, refused), only_look=False)

    assert az.calls("blob delete") == []


def test_what_can_not_be_read_stays_and_the_rest_goes_on(az: FakeCli, capsys: pytest.CaptureFixture[str]) -> None:
    blobs = {"bad.json": "nonsense", "good.json": dead(fixture("cluster-written.cloudevents"))}

    unreadable = redeliver(letters(az, blobs), only_look=False)

    assert unreadable == 1
    assert [call[call.index("--name") + 1] for call in az.calls("blob delete")] == ["good.json"]
    assert "bad.json" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["@/etc/hostname", "a=@/etc/hostname", "--debug", "\x1b[2J.json"])
def test_a_blob_whose_name_is_not_event_grid_s_is_never_said_to_the_azure_cli(
    az: FakeCli, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """The Azure CLI reads a file where a value begins with `@`: who writes a blob must not choose one."""
    good = "EVGT-KMS-CLUSTERS-1/AKS-KMS-ENFORCER-CLUSTERS-X/2026/11/22/7/4f0c2b1e.json"
    blobs = {name: "[]", good: dead(fixture("cluster-written.cloudevents"))}

    unreadable = redeliver(letters(az, blobs), only_look=False)

    assert unreadable == 1
    assert [call[call.index("--name") + 1] for call in az.calls("--name")] == [good, good]
    assert repr(name) in capsys.readouterr().out


def test_an_event_that_can_not_be_read_keeps_its_blob_and_holds_back_no_other(
    az: FakeCli, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = fixture("cluster-written.cloudevents"), fixture("cluster-written.cloudevents") | {"subject": "x"}

    unreadable = redeliver(letters(az, {"a.json": dead(bad, good)}), only_look=False)

    (put,) = az.calls("message put")
    assert good["id"] in put[put.index("--content") + 1]
    assert (unreadable, az.calls("blob delete")) == (1, [])
    assert "not the resource id" in capsys.readouterr().out


def test_a_look_changes_nothing(az: FakeCli) -> None:
    redeliver(letters(az, {"a.json": dead(fixture("cluster-written.cloudevents"))}), only_look=True)

    assert az.calls("message put") == az.calls("blob delete") == []


def test_dead_letters_are_taken_without_a_key(az: FakeCli) -> None:
    letters(az, {"a.json": dead(fixture("cluster-written.cloudevents"))})

    done = run("redeliver.py", az, **VALUES)

    assert (done.returncode, done.stderr) == (0, "")
    assert [call for call in az.calls() if call[call.index("--auth-mode") + 1] != "login"] == []


# bytecode


def code(root: Path) -> Path:
    (root / "shared").mkdir()
    (root / "shared" / "words.py").write_text("WORD = 1\n", encoding="utf-8")
    (root / "function_app.py").write_text("import shared.words\n", encoding="utf-8")
    return root


def test_bytecode_is_made_of_what_ships(tmp_path: Path) -> None:
    root = code(tmp_path)
    (root / "tests").mkdir()
    (root / "tests" / "test_x.py").write_text("", encoding="utf-8")

    assert compile_code(root)

    made = sorted(str(file.relative_to(root)) for file in root.rglob("*.pyc"))
    assert [name.split(".")[0] for name in made] == ["__pycache__/function_app", "shared/__pycache__/words"]


def test_bytecode_that_is_left_behind_hides_no_change(tmp_path: Path) -> None:
    """The sources' times don't matter: a package has coarse ones, and a working copy goes on being edited."""
    root = code(tmp_path)
    source = root / "shared" / "words.py"
    compile_code(root)
    stamp = source.stat()
    source.write_text("WORD = 2\n", encoding="utf-8")
    os.utime(source, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))

    spec = importlib.util.spec_from_file_location("words", source)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    assert module.WORD == 2


def test_code_that_does_not_compile_is_not_packed(tmp_path: Path) -> None:
    root = code(tmp_path)
    (root / "shared" / "words.py").write_text("WORD =\n", encoding="utf-8")

    assert not compile_code(root)


def test_the_functions_that_are_waited_for_are_two() -> None:
    assert len(FUNCTIONS) == 2
