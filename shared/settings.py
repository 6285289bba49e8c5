"""The environment, read once. Nobody else reads it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Self

from shared.clusters import parse_subscription
from shared.errors import EnforcerError, Malformed
from shared.policy import SecondRole

_GUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)
_SECONDS = re.compile(r"[0-9]{1,9}")


class BadSettings(EnforcerError):
    """Settings that are missing or can't be read: all of them at once, by name."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the app is told. Storage is reached by identity: there is no connection string.

    `subscriptions` empty means all that the identity can read; `client_id` None means the system-assigned identity.
    `log_workspaces` are ids of Log Analytics workspaces; empty: no log is read.
    """

    tables: str
    queues: str
    client_id: str | None
    subscriptions: tuple[str, ...]
    policy_file: Path
    look_again: timedelta
    custom_features: str
    notices_topic: str | None
    run_command: bool
    second_role: SecondRole
    log_workspaces: tuple[str, ...]

    @classmethod
    def read(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """Read the environment; BadSettings names everything that is wrong with it."""
        faults: list[str] = []
        settings = cls(
            tables=_uri(environment, "AzureWebJobsStorage__tableServiceUri", faults),
            queues=_uri(environment, "AzureWebJobsStorage__queueServiceUri", faults),
            client_id=environment.get("AZURE_CLIENT_ID") or None,
            subscriptions=_subscriptions(environment, faults),
            policy_file=Path(environment.get("POLICY_FILE") or "kms-policy.yaml"),
            look_again=_seconds(environment, "LOOK_AGAIN_SECONDS", 60, faults),
            custom_features=environment.get("AKS_CUSTOM_FEATURES", ""),
            notices_topic=_topic(environment, faults),
            run_command=_switch(environment, "RUN_COMMAND", faults),
            second_role=_second_role(environment, faults),
            log_workspaces=_workspaces(environment, faults),
        )
        if faults:
            raise BadSettings("; ".join(faults))
        return settings


def _uri(environment: Mapping[str, str], name: str, faults: list[str]) -> str:
    value = environment.get(name, "")
    if not value.startswith("https://"):
        faults.append(f"{name} must be the https:// address of the storage service")
    return value


def _topic(environment: Mapping[str, str], faults: list[str]) -> str | None:
    value = environment.get("NOTICES_TOPIC") or None
    if value is not None and not value.startswith("https://"):
        faults.append("NOTICES_TOPIC must be the https:// endpoint of an Event Grid topic")
    return value


def _switch(environment: Mapping[str, str], name: str, faults: list[str]) -> bool:
    value = environment.get(name) or "off"
    if value not in {"on", "off"}:
        faults.append(f"{name} must be on or off")
    return value == "on"


def _second_role(environment: Mapping[str, str], faults: list[str]) -> SecondRole:
    value = environment.get("SECOND_ROLE") or SecondRole.READER
    if value not in list(SecondRole):
        faults.append(f"SECOND_ROLE must be {' or '.join(SecondRole)}")
        return SecondRole.READER
    return SecondRole(value)


def _subscriptions(environment: Mapping[str, str], faults: list[str]) -> tuple[str, ...]:
    names = [name.strip() for name in environment.get("SUBSCRIPTIONS", "").split(",") if name.strip()]
    try:
        return tuple(dict.fromkeys(map(parse_subscription, names)))
    except Malformed as error:
        faults.append(f"SUBSCRIPTIONS: {error}")
        return ()


def _workspaces(environment: Mapping[str, str], faults: list[str]) -> tuple[str, ...]:
    names = [name.strip().lower() for name in environment.get("LOG_WORKSPACES", "").split(",") if name.strip()]
    for name in names:
        if not _GUID.fullmatch(name):
            faults.append(f"LOG_WORKSPACES must be ids of workspaces with commas between: {name[:100]!r} is none")
    return tuple(dict.fromkeys(names))


def _seconds(environment: Mapping[str, str], name: str, default: int, faults: list[str]) -> timedelta:
    value = environment.get(name) or str(default)
    if _SECONDS.fullmatch(value) is None or not 1 <= int(value) <= 3600:
        faults.append(f"{name} must be a whole number of seconds, 1 to 3600")
        return timedelta(seconds=default)
    return timedelta(seconds=int(value))
