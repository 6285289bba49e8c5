"""`python -m shared.policy check FILE` and `python -m shared.policy schema`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from shared.policy import Policy
from shared.policy.words import summary

SOUND, BROKEN, UNREADABLE = 0, 1, 2


def main(arguments: list[str]) -> int:
    """Run one command and return its exit status: 0 for a sound document, 1 for faults, 2 for no document at all."""
    parser = argparse.ArgumentParser(prog="python -m shared.policy", description=__doc__)
    commands = parser.add_subparsers(required=True, dest="command")
    check = commands.add_parser("check", help="name every fault of a policy document, or say what it asks")
    check.add_argument("file", type=Path)
    commands.add_parser("schema", help="print the JSON Schema of a policy document")
    options = parser.parse_args(arguments)
    if options.command == "schema":
        _say([json.dumps(Policy.schema_document(), indent=2)])
        return SOUND
    return _check(options.file)


def _check(file: Path) -> int:
    try:
        text = file.read_bytes().decode("utf-8")
    except OSError as error:
        print(f"{file} can't be read: {(error.strerror or type(error).__name__).lower()}", file=sys.stderr)
        return UNREADABLE
    except UnicodeDecodeError as error:
        _say([f"{file}: not UTF-8, at byte {error.start}"])
        return BROKEN
    policy, faults = Policy.read(text)
    _say(summary(policy) if policy is not None else faults)
    return SOUND if policy is not None else BROKEN


def _say(lines: Iterable[str]) -> None:
    """Print lines to whoever reads them: `| head` stops reading early, which changes nothing about the document."""
    try:
        print("\n".join(lines), flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left is flushed at the exit


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
