"""What a deployment of main.bicep told of itself: its outputs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from infra.hooks.azure_cli import Cli, CliError

OUTPUTS = (
    "ENFORCER_NAME",
    "ENFORCER_LOCATION",
    "ENFORCER_SUBSCRIPTION",
    "ENFORCER_RESOURCE_GROUP",
    "ENFORCER_APP_ID",
    "ENFORCER_STORAGE_ID",
    "ENFORCER_DEAD_LETTERS",
    "ENFORCER_TOPIC_IDENTITY_ID",
    "ENFORCER_SUBSCRIPTIONS",
)
"""The outputs that have to be there. ENFORCER_VAULTS and ENFORCER_ACTION_GROUPS may be empty, which azd leaves out."""


_NAME_IT = (
    "With azd: `azd provision`, or `azd env select` the right environment. Without: name the deployment of main.bicep, "
    "`make events DEPLOYMENT=name` or `make redeliver DEPLOYMENT=name`."
)


class NotDeployed(Exception):
    """Outputs that are missing, by name."""


@dataclass(frozen=True, slots=True)
class Deployment:
    """The outputs that the commands of this folder read."""

    name: str
    location: str
    subscription: str
    group: str
    app_id: str
    storage_id: str
    dead_letters: str
    topic_identity_id: str
    subscriptions: tuple[str, ...]
    vaults: tuple[str, ...]
    action_groups: tuple[str, ...] = ()

    @classmethod
    def read(cls, values: Mapping[str, str]) -> Self:
        """Read the outputs; NotDeployed names those that are missing."""
        missing = [name for name in OUTPUTS if not values.get(name)]
        if missing:
            raise NotDeployed(
                f"{', '.join(missing)}: not there. {_NAME_IT} An older one has to be deployed again first"
            )
        return cls(
            name=values["ENFORCER_NAME"],
            location=values["ENFORCER_LOCATION"],
            subscription=values["ENFORCER_SUBSCRIPTION"].lower(),
            group=values["ENFORCER_RESOURCE_GROUP"],
            app_id=values["ENFORCER_APP_ID"],
            storage_id=values["ENFORCER_STORAGE_ID"],
            dead_letters=values["ENFORCER_DEAD_LETTERS"],
            topic_identity_id=values["ENFORCER_TOPIC_IDENTITY_ID"],
            subscriptions=_listed(values["ENFORCER_SUBSCRIPTIONS"].lower()),
            vaults=_listed(values.get("ENFORCER_VAULTS", "")),
            action_groups=_listed(values.get("ENFORCER_ACTION_GROUPS", "")),
        )

    @classmethod
    def find(cls, deployment: str | None, environment: Mapping[str, str] = os.environ) -> Self:
        """Read the outputs of a deployment by its name; else those in the environment, where azd puts them for its
        hooks; else those of azd's selected environment."""
        if deployment:
            answer = Cli.find("az").ask("deployment", "sub", "show", "--name", deployment)
            return cls.read(_outputs(answer))
        if environment.get("ENFORCER_NAME") or shutil.which("azd") is None:
            return cls.read(environment)
        try:
            return cls.read(Cli.find("azd").ask("env", "get-values"))
        except CliError as error:
            raise NotDeployed(
                f"azd has no environment here, and no deployment was named. {_NAME_IT} {error}"
            ) from error

    def __str__(self) -> str:
        """Say which one it is: there may be several, and azd selects one."""
        return f"{self.name}: resource group {self.group} of subscription {self.subscription}"

    @property
    def account(self) -> str:
        """The name of the storage account."""
        return self.storage_id.rsplit("/", 1)[-1]


def _listed(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(one.strip() for one in text.split(",") if one.strip()))


def _outputs(deployment: Any) -> dict[str, str]:
    """Azure gives outputs back with the first letters in lower case; their names are all capitals here."""
    outputs = ((deployment or {}).get("properties") or {}).get("outputs") or {}
    return {name.upper(): str(output["value"]) for name, output in outputs.items()}
