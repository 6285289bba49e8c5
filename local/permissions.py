"""`python -m local.permissions FLEET`: which rights the updates of a fleet need, and where.

An update sends a cluster's document back as it was read, and Azure checks rights on what the document refers to. Which
ones, and after which source, stands in local/references.py.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from local.fleet import FleetError, OutsideFleet
from local.references import ENFORCE, RightNeeded, Unknown, group_of, needs


@dataclass(frozen=True, slots=True)
class FleetNeeds:
    """What the updates of a fleet need. Each with the names of the clusters that it is for."""

    needs: Mapping[RightNeeded, tuple[str, ...]]
    unknown: Mapping[Unknown, tuple[str, ...]]

    @classmethod
    def of(cls, documents: Iterable[Mapping[str, Any]]) -> FleetNeeds:
        """Put together what each cluster needs. Azure's ids differ in case: the first spelling stays."""
        needed: defaultdict[RightNeeded, list[str]] = defaultdict(list)
        unknown: defaultdict[Unknown, list[str]] = defaultdict(list)
        spelt: dict[str, str] = {}
        for document in documents:
            some_needs, some_unknown = needs(document)
            for need in some_needs:
                scope = spelt.setdefault(need.scope.lower(), need.scope)
                needed[RightNeeded(need.switch, need.action, scope)].append(document["name"])
            for one in some_unknown:
                scope = spelt.setdefault(one.scope.lower(), one.scope)
                unknown[Unknown(one.where, scope)].append(document["name"])
        return cls(_sorted(needed), _sorted(unknown))

    @property
    def linked_features(self) -> list[str]:
        """What the parameter `linkedFeatures` of infra/main.bicep has to list."""
        return sorted({need.switch for need in self.needs} - {ENFORCE})

    @property
    def subscriptions(self) -> list[str]:
        """In which subscriptions the rights are needed: `watchedSubscriptions` has to list them all."""
        return sorted({need.scope.split("/")[2].lower() for need in self.needs})

    @property
    def groups(self) -> list[str]:
        """In which resource groups they are needed: `enforceGroups` has to list them all, or none."""
        found = {group_of(need.scope).lower(): group_of(need.scope) for need in self.needs}
        return [found[group] for group in sorted(found)]


def _sorted[K: (RightNeeded, Unknown)](found: Mapping[K, list[str]]) -> dict[K, tuple[str, ...]]:
    return {key: tuple(sorted(set(found[key]))) for key in sorted(found, key=lambda one: str(one).lower())}


def lines(fleet: FleetNeeds) -> Iterator[str]:
    """Say it in words. Pure."""
    yield "To update these clusters, the app needs these actions, each with the switch that gives it:"
    scopes: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for need, names in fleet.needs.items():
        scopes[need.switch, need.action].append(f"    {need.scope}  ({_clusters(names)})")
    for (switch, action), listed in scopes.items():
        yield f"\n{action}  [{switch}]"
        yield from listed
    if fleet.unknown:
        yield "\nUnknown: no source says whether an update checks anything here. Azure's answer would name it."
    for one, names in fleet.unknown.items():
        yield f"    {one.where}: {one.scope}  ({_clusters(names)})"
    yield "\nFor infra/main.parameters.json, if the app is to update all of them:"
    yield f'    "watchedSubscriptions": {{ "value": {json.dumps(fleet.subscriptions)} }}'
    yield f'    "linkedFeatures": {{ "value": {json.dumps(fleet.linked_features)} }}'
    yield '    "enforce": { "value": true }'
    yield "\nAnd for these rights in these groups alone, instead of in whole subscriptions:"
    yield f'    "enforceGroups": {{ "value": {json.dumps(fleet.groups)} }}'


def _clusters(names: tuple[str, ...]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def main() -> int:
    """Print what a fleet needs; 1 and a sentence if the file holds no fleet."""
    parser = argparse.ArgumentParser(prog="python -m local.permissions", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("fleet", type=Path, help="what `az rest` printed of your clusters")
    options = parser.parse_args()
    try:
        fleet = OutsideFleet.read(options.fleet)
        text = "\n".join(lines(FleetNeeds.of(fleet.documents)))
    except FleetError as error:
        print(error, file=sys.stderr)
        return 1
    except RecursionError:
        print(f"{options.fleet} is nested too deep for a fleet", file=sys.stderr)
        return 1
    print(text)
    for warning in fleet.warnings:
        print(warning, file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
