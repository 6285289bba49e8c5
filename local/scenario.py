"""Scenario files: a fleet, a timeline of steps, and what everything must end as."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import AliasGenerator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from local.simulator import SUBSCRIPTION
from local.simulator.subscriptions import LOCATION

SCENARIOS = Path(__file__).parent / "scenarios"


class ScenarioError(Exception):
    """A scenario file that can't be read; the text names every fault."""


def _duration(value: object) -> object:
    """Read `20s`, `5m` or `2h`."""
    units = {"s": "seconds", "m": "minutes", "h": "hours"}
    if isinstance(value, str) and value[:-1].isdecimal() and value[-1:] in units:
        return timedelta(**{units[value[-1]]: int(value[:-1])})
    return value


Network = Literal["open", "trusted", "closed"]
Standing = Literal["needed", "not-shown-unneeded", "candidate"]
Duration = Annotated[timedelta, BeforeValidator(_duration)]


class _Part(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, alias_generator=AliasGenerator(validation_alias=to_camel), populate_by_name=True
    )


class ResourceGroup(_Part):
    """A resource group with nothing in it."""

    name: str
    location: str = LOCATION


class Identity(_Part):
    """A user-assigned identity that no cluster has yet."""

    name: str
    group: str = "rg-apps"


class Vault(_Part):
    """A vault and the names of its keys. `network`: who reaches it; `logs`: its audit log is there for the app."""

    name: str
    keys: tuple[str, ...] = ()
    network: Network = "open"
    purge_protection: bool = True
    rbac: bool = True
    key_kind: Literal["RSA", "RSA-HSM", "EC"] = "RSA"
    logs: bool = False


class Fleet(_Part):
    """One cluster. `key` is `vault/key`; `about` is what the screen says of it.

    `roles` and `permissions` are its identity's, by vault: the latter where a vault has access policies.
    """

    name: str
    about: str = ""
    subscription: str = SUBSCRIPTION
    group: str = "rg-apps"
    location: str = "westeurope"
    kubernetes: str = "1.33.3"
    identity: Literal["user-assigned", "system-assigned", "service-principal"] = "system-assigned"
    encryption: Literal["none", "platform-managed", "customer-managed", "legacy"] = "none"
    key: str | None = None
    state: str = "Succeeded"
    power: Literal["Running", "Stopped"] = "Running"
    tags: dict[str, str] = {}
    roles: dict[str, tuple[str, ...]] = {}
    permissions: dict[str, tuple[str, ...]] = {}


class Creation(Fleet):
    """A cluster that somebody creates during the play."""

    duration: Duration = timedelta(seconds=4)


class Rotation(_Part):
    """A new version of a key, `vault/key`. `announce: false` means that its event is lost."""

    key: str
    announce: bool = True


class Update(_Part):
    """An operator moves a legacy cluster to the newest version of its key."""

    cluster: str
    to: Literal["newest"] = "newest"


class Rewrite(_Part):
    """An operator rewrites all secrets of a cluster, and tells the app."""

    cluster: str
    by: str = "ops@example.com"


class Wait(_Part):
    """What a cluster must come to before the play goes on."""

    cluster: str
    reason: str


class Step(_Part):
    """One thing that happens. `say` is what the screen says; exactly one of the others does it."""

    say: str = ""
    sweep: bool = False
    create: Creation | None = None
    rotate: Rotation | None = None
    update: Update | None = None
    rewrite: Rewrite | None = None
    wait: Wait | None = None
    redeliver: bool = False
    advance: Duration | None = None

    @model_validator(mode="after")
    def _one_thing(self) -> Self:
        things = [name for name in type(self).model_fields if name != "say"]
        if sum(bool(getattr(self, thing)) for thing in things) != 1:
            raise ValueError(f"a step does exactly one thing: {', '.join(things[:-1])} or {things[-1]}")
        return self


class ClusterEnd(_Part):
    """What a cluster must end as: what it has, what the app says of it, and how many writes Azure took for it.

    `secrets`, where it is given, says in words whether they can be read and which versions of the key they need.
    """

    key_management: str
    reason: str
    writes: int = 0
    secrets: str = ""


class VaultEnd(_Part):
    """What a vault must end as: who reaches it, all its keys, and by cluster the roles of its identity there."""

    network: Network
    keys: tuple[str, ...] = ()
    roles: dict[str, tuple[str, ...]] = {}


class Ends(_Part):
    """What everything must end as. Rotations by `vault/key`: how many versions were detected how.

    Versions by `vault/key`: how each one stands, the oldest being 1.
    """

    clusters: dict[str, ClusterEnd]
    rotations: dict[str, dict[str, int]] = {}
    versions: dict[str, dict[int, Standing]] = {}
    vaults: dict[str, VaultEnd] = {}


class Scenario(_Part):
    """The whole file."""

    title: str
    policy: str
    resource_groups: tuple[ResourceGroup, ...] = ()
    identities: tuple[Identity, ...] = ()
    vaults: tuple[Vault, ...] = ()
    clusters: tuple[Fleet, ...] = ()
    steps: Annotated[tuple[Step, ...], Field(min_length=1)]
    ends: Ends
    update_duration: Duration = timedelta(seconds=3)
    settings: dict[str, str] = {}

    @classmethod
    def named(cls, name: str) -> Self:
        """Read a scenario by its name beside this file, or by its path. ScenarioError names every fault."""
        file = Path(name) if name.endswith((".yaml", ".yml")) else SCENARIOS / f"{name}.yaml"
        if not file.is_file():
            known = ", ".join(sorted(path.stem for path in SCENARIOS.glob("*.yaml")))
            raise ScenarioError(f"there is no scenario {name}; there are: {known}")
        return cls.read(file.read_text(encoding="utf-8"))

    @classmethod
    def read(cls, text: str) -> Self:
        """Read a scenario's text."""
        try:
            document: Any = yaml.safe_load(text)
            return cls.model_validate(document)
        except yaml.YAMLError as error:
            raise ScenarioError(f"the scenario is not YAML: {error}") from error
        except ValidationError as error:
            faults = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()]
            raise ScenarioError("; ".join(faults)) from error
