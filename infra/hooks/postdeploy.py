"""Lets Event Grid call the app. azd runs this after the code is there, `make events` whenever vaults came along.

Azure refuses a subscription to a function that it does not know yet, so this waits until it lists both; then it
deploys events.bicep for the watched subscriptions and for each vault that is a parameter or that the ledger names.
Every step may be done again. Nothing here reads or passes a key: Event Grid gets the function's own from Azure.
Source: Event Grid docs, handler-functions, system-topics.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

if sys.version_info < (3, 11):  # noqa: UP036  azd takes whichever Python it finds
    sys.exit("This is too old a Python for this hook. Put Python 3.13 first on the PATH, then run `azd deploy` again.")

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from infra.hooks.azure_cli import Cli, CliError  # noqa: E402  azd runs this file by its path
from infra.hooks.deployment import Deployment, NotDeployed  # noqa: E402  azd runs this file by its path

FUNCTIONS = ("on_cluster_event", "on_key_event")
TEMPLATE = ROOT / "infra" / "events.bicep"
PAUSES = (5, 10, 20, 30, 30, 30, 60, 60, 60, 60, 60)
"""Seconds between looks for the functions: seven minutes in all."""

LEDGER_TABLE, KEY_ROW = "rotations", "k"

VAULT = re.compile(
    r"/subscriptions/[0-9a-f-]{36}/resourcegroups/[\w.()-]+/providers/microsoft\.keyvault/vaults/[a-z0-9-]+"
)
"""What else a row of the ledger holds is not for the Azure CLI, which reads a file where a value begins with `@`."""

TOPIC_TYPES = frozenset({"microsoft.resources.subscriptions", "microsoft.keyvault.vaults"})
"""What the topics of events.bicep are of. A source may have others: that of Azure Policy is a subscription, too."""


class Unusable(Exception):
    """Something in Azure that has to be mended by hand."""


@dataclass(frozen=True, slots=True)
class Topic:
    """A system topic that is there: what it listens to, and the identities that it has."""

    id: str
    source: str
    identities: frozenset[str]


@dataclass(frozen=True, slots=True)
class Source:
    """One source of events. `kind` is `clusters` or `keys`, `existing` whether its topic is there and is left alone."""

    kind: str
    source: str
    topic: str
    location: str
    existing: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """What events.bicep is told: the sources, and the other subscriptions in which topics are made.

    `left_out`: why some source can't be listened to, and what to do.
    """

    sources: tuple[Source, ...]
    topic_subscriptions: tuple[str, ...]
    left_out: tuple[str, ...] = ()


def plan(deployment: Deployment, vaults: Mapping[str, str], topics: Iterable[Topic]) -> Plan:
    """Plan one topic for each watched subscription and each vault (its id and region). Pure.

    Azure allows one system topic a source, so one that is there is reused as it is: it may serve others too. If it is
    somebody else's and lacks the identity that writes dead letters, its source is left out. Source: Event Grid docs,
    enable-identity-system-topics: a topic, that of a subscription too, takes two user-assigned identities at most.
    """
    there = {topic.source.lower(): topic for topic in topics}
    wanted = [("clusters", f"/subscriptions/{one}", "global") for one in deployment.subscriptions]
    wanted += [("keys", vault, region) for vault, region in sorted(vaults.items())]
    planned = [_source(deployment, there, kind, source, region) for kind, source, region in wanted]
    sources = tuple(one for one in planned if isinstance(one, Source))
    made = {one.topic.split("/")[2] for one in sources if not one.existing}
    others = tuple(sorted(made - {deployment.subscription}))
    return Plan(sources, others, tuple(one for one in planned if isinstance(one, str)))


def _source(deployment: Deployment, there: Mapping[str, Topic], kind: str, source: str, region: str) -> Source | str:
    group = f"/subscriptions/{source.split('/')[2]}/resourceGroups/{deployment.group}"
    own = f"{group}/providers/Microsoft.EventGrid/systemTopics/{_topic_name(kind, source)}"
    found = there.get(source.lower())
    if found is None:
        return Source(kind, source, own, region, existing=False)
    if deployment.topic_identity_id.lower() in found.identities:
        return Source(kind, source, found.id, region, existing=True)
    if found.id.lower() == own.lower():
        return Source(kind, source, own, region, existing=False)
    return (
        f"{source}: the system topic {found.id} is there already, and Azure allows one. Give it the user-assigned "
        f"identity {deployment.topic_identity_id} beside what it has. It takes two such at most: leave it what "
        "others deliver with"
    )


def _topic_name(kind: str, source: str) -> str:
    """A name for the topic of a source: 3 to 50 letters, digits and hyphens, the same at every run."""
    digest = hashlib.sha256(source.lower().encode()).hexdigest()[:12]
    return f"evgt-kms-{kind}-{digest}"


def wait_for_functions(az: Cli, deployment: Deployment, pauses: Sequence[float] = PAUSES) -> None:
    """Wait until Azure lists both functions. Unusable if it still does not after all pauses."""
    for name in FUNCTIONS:
        url = f"https://management.azure.com{deployment.app_id}/functions/{name}?api-version=2025-03-01"
        if not any(_is_there(az, url, pause) for pause in (0, *pauses)):
            raise Unusable(
                f"Azure does not list the function {name} of {deployment.app_id}. Deploy the code; if that is done, "
                "see in Application Insights why the app does not start"
            )


def _is_there(az: Cli, url: str, pause: float) -> bool:
    time.sleep(pause)
    try:
        az.ask("rest", "--method", "get", "--url", url)
    except CliError as error:
        if error.is_not_found:
            return False
        raise
    return True


def ledger_vaults(az: Cli, deployment: Deployment) -> set[str]:
    """Read from the ledger the vaults of all keys that clusters use or used."""
    query = ("storage", "entity", "query", "--account-name", deployment.account, "--auth-mode", "login")
    what = ("--table-name", LEDGER_TABLE, "--filter", f"RowKey eq '{KEY_ROW}'")
    found: set[str] = set()
    marker: tuple[str, ...] = ()
    while True:
        page = az.ask(*query, *what, *marker) or {}
        found |= {str(row["vaultId"]) for row in page.get("items", ()) if row.get("vaultId")}
        following = {name: value for name, value in (page.get("nextMarker") or {}).items() if value}
        if not following:
            return found
        marker = ("--marker", *(f"{name}={value}" for name, value in following.items()))


def regions(az: Cli, vaults: Iterable[str]) -> tuple[dict[str, str], list[str], list[str]]:
    """Read where each vault lies, once each whatever its case; then those that are not there any more, and why others
    can't be read: a ledger may name vaults of subscriptions that whoever runs this does not see."""
    found: dict[str, str] = {}
    gone: list[str] = []
    unreadable: list[str] = []
    for vault in sorted({one.lower().rstrip("/") for one in vaults}):
        if not VAULT.fullmatch(vault):
            unreadable.append(f"{vault!r}: is no vault's id")
            continue
        try:
            found[vault] = str(az.ask("resource", "show", "--ids", vault)["location"])
        except CliError as error:
            if error.is_not_found:
                gone.append(vault)
            else:
                unreadable.append(f"{vault}: {error}")
    return found, gone, unreadable


def system_topics(az: Cli, subscriptions: Iterable[str]) -> tuple[list[Topic], dict[str, str]]:
    """List the system topics of these subscriptions that can tell what is asked for; why those of some can't be."""
    rows: list[Mapping[str, Any]] = []
    refused: dict[str, str] = {}
    for subscription in sorted(set(subscriptions)):
        try:
            rows += az.ask("eventgrid", "system-topic", "list", "--subscription", subscription) or ()
        except CliError as error:
            refused[subscription] = str(error)
    wanted = [row for row in rows if str(row.get("topicType")).lower() in TOPIC_TYPES]
    return [Topic(row["id"], row["source"], _identities(row.get("identity"))) for row in wanted], refused


def _identities(identity: Mapping[str, Any] | None) -> frozenset[str]:
    return frozenset(name.lower() for name in (identity or {}).get("userAssignedIdentities") or {})


def deploy(az: Cli, deployment: Deployment, planned: Plan) -> list[Plan]:
    """Deploy events.bicep; what of the plan was not, each part with its reason.

    Azure refuses a deployment whole where whoever runs this may not write in one of its groups. So, if all of it is
    refused, the sources of each subscription are tried by themselves.
    """
    name = f"{deployment.name}-events"
    try:
        _deploy(az, deployment, planned, name)
    except CliError:
        parts = by_subscription(planned)
        if len(parts) < 2:
            raise
        return [
            replace(part, left_out=(f"{subscription}: {why}",))
            for subscription, part in parts.items()
            if (why := _refused(az, deployment, part, f"{name}-{subscription}"))
        ]
    return []


def by_subscription(planned: Plan) -> dict[str, Plan]:
    """Split a plan by the subscriptions that its topics lie in. Pure."""
    parts: dict[str, Plan] = {}
    for source in planned.sources:
        where = source.topic.split("/")[2].lower()
        part = parts.get(where, Plan((), tuple(one for one in planned.topic_subscriptions if one == where)))
        parts[where] = replace(part, sources=(*part.sources, source))
    return parts


def _refused(az: Cli, deployment: Deployment, part: Plan, name: str) -> str:
    """Deploy a part; why it could not be, empty if it was."""
    try:
        _deploy(az, deployment, part, name)
    except CliError as error:
        return str(error)
    return ""


def _deploy(az: Cli, deployment: Deployment, planned: Plan, name: str) -> None:
    values = {
        "environmentName": deployment.name,
        "location": deployment.location,
        "resourceGroupName": deployment.group,
        "appId": deployment.app_id,
        "storageId": deployment.storage_id,
        "deadLetterContainer": deployment.dead_letters,
        "topicIdentityId": deployment.topic_identity_id,
        "topicSubscriptions": planned.topic_subscriptions,
        "actionGroupIds": deployment.action_groups,
        "sources": [asdict(source) for source in planned.sources],
    }
    where = ("--subscription", deployment.subscription, "--location", deployment.location)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "events.parameters.json"
        file.write_text(json.dumps(_parameters(values)), encoding="utf-8")
        what = ("--template-file", str(TEMPLATE), "--parameters", f"@{file}")
        az.ask("deployment", "sub", "create", "--name", name, *where, *what)


def _parameters(values: Mapping[str, Any]) -> dict[str, Any]:
    schema = "https://schema.management.azure.com/schemas/2019-04-01/deploymentParameters.json#"
    parameters = {name: {"value": value} for name, value in values.items()}
    return {"$schema": schema, "contentVersion": "1.0.0.0", "parameters": parameters}


def subscribe(az: Cli, deployment: Deployment, *, ledger_needed: bool, pauses: Sequence[float] = PAUSES) -> None:
    """Do all of it. A ledger that can't be read is an error only where it is needed: a new one is empty anyway.

    Unusable, once the rest is done, if some source can't be listened to.
    """
    wait_for_functions(az, deployment, pauses)
    vaults = set(deployment.vaults)
    try:
        vaults |= ledger_vaults(az, deployment)
    except CliError as error:
        if ledger_needed:
            raise
        print(f"The ledger can't be read, so only the vaults of the parameters are listened to: {error}")
        print("A role that was just assigned takes some minutes to count. Run `make events` then.")
    located, gone, unreadable = regions(az, vaults)
    for vault in gone:
        print(f"Left out, it does not exist: {vault}")
    topics, unlisted = system_topics(az, (*deployment.subscriptions, *(vault.split("/")[2] for vault in located)))
    watched = tuple(one for one in deployment.subscriptions if one not in unlisted)
    vaults_to_ask = {vault: region for vault, region in located.items() if vault.split("/")[2] not in unlisted}
    planned = plan(replace(deployment, subscriptions=watched), vaults_to_ask, topics)
    refused = deploy(az, deployment, planned)
    not_there = {one for part in refused for one in part.sources}
    for one in planned.sources:
        if one not in not_there:
            print(f"{one.kind:<8} {one.source}{'  (existing topic)' if one.existing else ''}")
    left_out = [*unreadable, *(f"/subscriptions/{one}: {why}" for one, why in unlisted.items())]
    left_out += [*planned.left_out, *(why for part in refused for why in part.left_out)]
    if left_out:
        raise Unusable("Not listened to:\n" + "\n".join(left_out))


def main() -> int:
    """Subscribe; 1 and a sentence if that can't be done."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    parser.add_argument("--deployment", help="the name of the deployment of main.bicep, where azd was not used")
    parser.add_argument("--ledger", action="store_true", help="fail if the ledger can't be read")
    options = parser.parse_args()
    try:
        deployment = Deployment.find(options.deployment)
        print(deployment)
        subscribe(Cli.find("az"), deployment, ledger_needed=options.ledger)
    except (CliError, NotDeployed, Unusable) as error:
        print(f"{error}\nThen run `make events`: every step may be done again.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
