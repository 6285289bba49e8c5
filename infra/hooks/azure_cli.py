"""The Azure CLI, as a program that somebody has signed in to."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from typing import Any, Self

_SIGN_IN = "Sign in again: `az login`."
_OTHER_ACCOUNT = (
    "Sign in as somebody who sees that subscription (`az login --tenant ...`), or refresh what az knows: "
    "`az account list --refresh`."
)
_RIGHT = (
    "Ask for that right, or let somebody run this who has it: docs/deployment.md, What you need. A role that was just "
    "assigned takes some minutes to count."
)
_OTHER_SUBSCRIPTION = (
    "A deployment is looked for in the subscription that az has selected: `az account set --subscription ...`; "
    "`az deployment sub list --query [].name` lists those that are there."
)
_PROVIDER = "Register it there, once: `az provider register --wait --namespace ... --subscription ...`."
_ADVICE = (
    ("DeploymentNotFound", _OTHER_SUBSCRIPTION),
    ("SubscriptionNotFound", _OTHER_ACCOUNT),
    ("doesn't exist in cloud", _OTHER_ACCOUNT),
    ("not recognized", _OTHER_ACCOUNT),
    ("AADSTS", _SIGN_IN),
    ("ExpiredAuthenticationToken", _SIGN_IN),
    ("InvalidAuthenticationToken", _OTHER_ACCOUNT),
    ("AuthorizationFailed", _RIGHT),
    ("AuthorizationPermissionMismatch", _RIGHT),
    ("does not have authorization", _RIGHT),
    ("required permissions", _RIGHT),
    ("MissingSubscriptionRegistration", _PROVIDER),
)
"""What to do where the Azure CLI says a word and not what to do; the first that fits."""


class CliError(Exception):
    """What a command answered instead of doing as asked, and what to do where that is known."""

    @property
    def is_not_found(self) -> bool:
        """Whether what was asked for does not exist, as far as the answer tells. A subscription may be unseen only."""
        said = str(self)
        return "SubscriptionNotFound" not in said and ("NotFound" in said or "Not Found" in said)


@dataclass(frozen=True, slots=True)
class Cli:
    """A program that prints JSON: `az`, or `azd` for the values of its environment. `path` is `az.cmd` on Windows."""

    path: str

    @classmethod
    def find(cls, name: str) -> Self:
        """Find a program; CliError says where to get it."""
        path = shutil.which(name)
        if path is None:
            raise CliError(f"{name} is missing: https://learn.microsoft.com/cli/azure/install-azure-cli")
        return cls(path)

    def ask(self, *arguments: str) -> Any:
        """Run a command and return the JSON that it prints, None if it prints nothing; CliError with what it says.

        It gets nothing to read: a question that nobody sees would be waited for without end. What it prints may be in
        the console's encoding, such as a tag with an umlaut on Windows: ids are plain ASCII.
        """
        command = [self.path, *arguments, "--output", "json"]
        done = subprocess.run(  # noqa: S603  no shell; the program was looked up
            command, stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8", errors="replace", check=False
        )
        if done.returncode != 0:
            said = done.stderr.strip() or done.stdout.strip()
            raise CliError(f"{' '.join(arguments[:3])}: {said}{_advice(said)}")
        try:
            return json.loads(done.stdout) if done.stdout.strip() else None
        except ValueError as error:
            raise CliError(f"{' '.join(arguments[:3])}: answered no JSON") from error


def _advice(said: str) -> str:
    found = next((advice for word, advice in _ADVICE if word in said), None)
    return f"\n{found}" if found else ""
