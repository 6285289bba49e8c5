"""The Azure CLI, as a program that somebody has signed in to."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from typing import Any, Self


class CliError(Exception):
    """What a command answered instead of doing as asked."""

    @property
    def is_not_found(self) -> bool:
        """Whether what was asked for does not exist, as far as the answer tells."""
        return "NotFound" in str(self) or "Not Found" in str(self)


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
        """Run a command and return the JSON that it prints, None if it prints nothing; CliError with what it says."""
        command = [self.path, *arguments, "--output", "json"]
        done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)  # noqa: S603  no shell; the program was looked up
        if done.returncode != 0:
            raise CliError(f"{' '.join(arguments[:3])}: {done.stderr.strip() or done.stdout.strip()}")
        try:
            return json.loads(done.stdout) if done.stdout.strip() else None
        except ValueError as error:
            raise CliError(f"{' '.join(arguments[:3])}: answered no JSON") from error
