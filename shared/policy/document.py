"""The policy document's own shape, read strictly: an unknown key is a fault that names its path."""

from __future__ import annotations

import re
from datetime import date
from difflib import get_close_matches
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import AliasGenerator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel
from pydantic_core import ErrorDetails

from shared.clusters import Cluster, KeyManagement
from shared.errors import Malformed
from shared.keys import VaultId


class Mode(StrEnum):
    """How far the app goes. The lowest one that applies wins."""

    AUDIT = "audit"
    """Decide and record; change nothing."""
    ENFORCE = "enforce"
    """Also write what is decided."""

    @classmethod
    def lowest(cls, *modes: Mode | None) -> Mode:
        """Return the most careful of these modes; None asks for nothing."""
        return cls.AUDIT if cls.AUDIT in modes else cls.ENFORCE


def _no_number(value: object) -> object:
    """A bare number would be read as seconds since 1970."""
    if isinstance(value, int | float):
        raise ValueError("write a date, like 2027-03-31")  # noqa: TRY004  pydantic collects ValueErrors
    return value


_IDENTITY_ID = re.compile(
    r"/subscriptions/[0-9a-f-]{36}/resourcegroups/[\w.()-]{1,90}"
    r"/providers/microsoft\.managedidentity/userassignedidentities/[a-z0-9_-]{3,128}",
    re.IGNORECASE,
)


class _Part(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        alias_generator=AliasGenerator(validation_alias=to_camel, serialization_alias=to_camel),
    )


class Match(_Part):
    """Which clusters. Every field that is given must match; `*` and `?` stand for any text, case does not count."""

    subscriptions: list[str] = []
    resource_groups: list[str] = []
    regions: list[str] = []
    names: list[str] = []
    tags: dict[str, str] = {}

    def matches(self, cluster: Cluster) -> bool:
        """Return whether this cluster is meant."""
        return (
            _is_any(self.subscriptions, cluster.id.subscription)
            and _is_any(self.resource_groups, cluster.id.group)
            and _is_any(self.regions, cluster.location)
            and _is_any(self.names, cluster.id.name)
            and all(_has_tag(cluster, name, glob) for name, glob in self.tags.items())
        )


class NetworkAccess(StrEnum):
    """How the cluster is to reach the vault."""

    PUBLIC = "public"
    """The vault is open to all networks."""
    PRIVATE = "private"
    """The vault is closed but for Azure's trusted services."""


OWN = "own"
"""A target's identity: the user-assigned one that the cluster has."""


class Target(_Part):
    """What is asked of the clusters that it matches. Vault, key and identity belong to customer-managed keys."""

    name: str = "default"
    match: Match = Match()
    mode: Annotated[Mode | None, Field(strict=False)] = None
    key_management: Literal["platform-managed", "customer-managed"]
    vault: str | None = None
    key: Annotated[str | None, Field(pattern="^[0-9A-Za-z-]{1,127}$")] = None
    network_access: Annotated[NetworkAccess | None, Field(strict=False)] = None
    identity: str = OWN
    allow_identity_change: bool = False
    prerequisites: Literal["check"] = "check"
    migrate: bool = False
    allow_unconfirmed: bool = False

    @model_validator(mode="after")
    def _fits_its_key_management(self) -> Self:
        customer_managed = self.asks_for is KeyManagement.CUSTOMER_MANAGED
        given = (self.vault, self.key, self.network_access) != (None, None, None) or self.identity != OWN
        if given and not customer_managed:
            raise ValueError("vault, key, networkAccess and identity belong to keyManagement: customer-managed")
        if customer_managed and not (self.vault and self.key):
            raise ValueError("keyManagement: customer-managed needs vault (its resource id) and key (its name)")
        if self.identity != OWN and _IDENTITY_ID.fullmatch(self.identity) is None:
            raise ValueError("identity is `own` or the resource id of a user-assigned identity")
        if self.allow_identity_change and self.identity == OWN:
            raise ValueError("allowIdentityChange needs an identity to change to: name its resource id")
        if self.vault is not None:
            self.vault_for("abc", "00000000-0000-0000-0000-000000000000", "abc")
        return self

    @property
    def asks_for(self) -> KeyManagement:
        """The key management that this target asks for."""
        return KeyManagement(self.key_management)

    def vault_for(self, region: str, subscription: str, name: str) -> VaultId:
        """Return the vault with its placeholders filled in; ValueError if that is no vault's resource id."""
        filled = self.vault or ""
        for placeholder, value in {"{region}": region, "{subscription}": subscription, "{name}": name}.items():
            filled = filled.replace(placeholder, value)
        try:
            return VaultId.parse(filled)
        except Malformed as error:
            raise ValueError(f"vault: {error}") from error


class Exemption(_Part):
    """Leave these clusters alone, up to and including the day `expires` (UTC)."""

    match: Match
    owner: str
    reason: str
    expires: Annotated[date, BeforeValidator(_no_number), Field(strict=False)]


class Limits(_Part):
    """How many clusters may be updated at the same time, and after how many failures in a row no more are."""

    concurrent_updates: Annotated[int, Field(ge=1, le=100)] = 5
    concurrent_updates_per_subscription: Annotated[int, Field(ge=1, le=100)] = 2
    stop_after_failures: Annotated[int, Field(ge=1, le=100)] = 3


class Policy(_Part):
    """The whole document."""

    version: Literal[1]
    mode: Annotated[Mode, Field(strict=False)] = Mode.AUDIT
    accept_irreversible: bool = False
    targets: Annotated[list[Target], Field(min_length=1)]
    opt_out_tag: Annotated[str, Field(min_length=1)] = "kms-enforcer"
    exemptions: list[Exemption] = []
    limits: Limits = Limits()

    @model_validator(mode="after")
    def _irreversible_is_accepted(self) -> Self:
        if self.mode is Mode.ENFORCE and not self.accept_irreversible:
            raise ValueError(
                "mode: enforce needs acceptIrreversible: true, since the new experience can't be turned off again"
            )
        return self

    @classmethod
    def read(cls, text: str) -> tuple[Self | None, tuple[str, ...]]:
        """Read a document: the policy, or None and every fault at once, each with its path.

        Never raises: a broken document must not stop the app, which then writes nothing and says so.
        """
        try:
            document = yaml.load(text, _StrictLoader)  # noqa: S506  a SafeLoader
        except (yaml.YAMLError, ValueError, RecursionError) as error:  # a date that does not exist; a bomb of brackets
            return None, (f"not YAML: {error}",)
        try:
            return cls.model_validate(document), ()
        except ValidationError as error:
            return None, tuple(map(_sentence, error.errors(include_url=False, include_context=False)))


class _StrictLoader(yaml.SafeLoader):
    """YAML's safe loader, except that a key that stands twice is a fault: the second would win silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Build a mapping, each of whose keys stands once."""
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise yaml.constructor.ConstructorError(None, None, f"{twice} stands twice", node.start_mark)
        return super().construct_mapping(node, deep=deep)


def _is_any(globs: list[str], text: str) -> bool:
    return not globs or any(fnmatchcase(text.lower(), glob.lower()) for glob in globs)


def _has_tag(cluster: Cluster, name: str, glob: str) -> bool:
    tags = {tag.lower(): value for tag, value in cluster.tags.items()}
    value = tags.get(name.lower())
    return value is not None and _is_any([glob], value)


def _sentence(error: ErrorDetails) -> str:
    path = ".".join(map(str, error["loc"])) or "the document"
    if error["type"] == "extra_forbidden":
        return f"{path}: unknown key{_hint(error['loc'])}"
    if error["type"] == "missing":
        return f"{path}: is missing"
    return f"{path}: {error['msg'].removeprefix('Value error, ')}"


def _hint(location: tuple[Any, ...]) -> str:
    models = (Policy, Target, Match, Exemption, Limits)
    known = {to_camel(name) for model in models for name in model.model_fields}
    near = get_close_matches(str(location[-1]), known, n=1)
    return f"; did you mean {near[0]}?" if near else ""
