"""Keeps `azd down` away from clusters and keys. azd runs this before it deletes anything.

azd deletes each resource group into which the last deployment put anything, and a right that the app was given in a
group, on a vault or on a workspace is such a thing: the groups with the clusters and with their keys would go with the
app's own. Then this says no, and what to do instead. Nothing is deleted here.
Source: github.com/Azure/azure-dev/issues/2916.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

if sys.version_info < (3, 11):  # noqa: UP036  azd takes whichever Python it finds
    sys.exit("This is too old a Python for this hook. Put Python 3.13 first on the PATH, then run `azd down` again.")

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from infra.hooks.azure_cli import Cli, CliError  # noqa: E402  azd runs this file by its path
from infra.hooks.deployment import Deployment, NotDeployed  # noqa: E402  azd runs this file by its path

TAG = "azd-env-name"
ROWS = "[].{tags:tags,state:properties.provisioningState,at:properties.timestamp,ids:properties.outputResources[].id}"
INSTEAD = "docs/deployment.md, Taking it away, says how to delete the app without it."


def other_groups(deployment: Deployment, rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Name the groups beside the app's own that azd would delete; NotDeployed where that can't be told.

    It goes by the environment's last deployment that succeeded. Of one that failed it knows the app's own group alone.
    """
    ended = [row for row in rows if (row.get("tags") or {}).get(TAG) == deployment.name and row["state"] == "Succeeded"]
    ids = max(ended, key=lambda row: str(row["at"]))["ids"] if ended else None
    parts = [one.split("/") for one in ids or ()]
    groups = {part[4].lower() for part in parts if len(part) > 4 and part[3].lower() == "resourcegroups"}
    own = deployment.group.lower()
    if own not in groups:
        raise NotDeployed(f"no deployment of {deployment.name} tells what azd would delete")
    return sorted(groups - {own})


def _of_azd() -> Deployment:
    """Read the outputs of azd's environment; NotDeployed if a shell holds those of another deployment instead."""
    found, name = Deployment.find(None), os.environ.get("AZURE_ENV_NAME")
    if name != found.name:
        raise NotDeployed(f"the outputs are those of {found.name}, and azd's environment is {name}: `azd env refresh`")
    return found


def main() -> int:
    """Let azd go on if it deletes the app's own group alone; else 1 and why."""
    try:
        deployment = _of_azd()
        rows = Cli.find("az").ask(
            *("deployment", "sub", "list", "--subscription", deployment.subscription, "--query", ROWS)
        )
        others = other_groups(deployment, rows or ())
    except (CliError, NotDeployed) as error:
        print(f"{error}\nSo `azd down` is not let through. {INSTEAD}", file=sys.stderr)
        return 1
    if others:
        listed = "\n".join(f"  {group}" for group in others)
        print(f"The app holds rights in these groups, and `azd down` may delete them whole:\n{listed}", file=sys.stderr)
        print(f"It is not let through. {INSTEAD}", file=sys.stderr)
    return 1 if others else 0


if __name__ == "__main__":
    sys.exit(main())
