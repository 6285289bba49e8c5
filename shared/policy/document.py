"""The policy document's own shape, read strictly: an unknown key is a fault that names its path."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from fnmatch import fnmatchcase
from hashlib import sha256
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, ValidationError, WithJsonSchema

from shared.clusters import Cluster, KeyManagement, parse_subscription
from shared.errors import Malformed
from shared.keys import VaultId
from shared.policy.faults import sentence
from shared.policy.parts import Part
from shared.policy.reading import read_yaml
from shared.policy.windows import Window


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


class NetworkAccess(StrEnum):
    """How the cluster is to reach the vault."""

    PUBLIC = "public"
    """The vault is open to all networks."""
    PRIVATE = "private"
    """The vault is closed but for Azure's trusted services."""


class Preparing(StrEnum):
    """What the app does about a vault, a key or a role that is not as a target needs it."""

    CHECK = "check"
    """Look and report; change nothing."""
    ENSURE = "ensure"
    """Make what is missing."""


class LegacyRotation(StrEnum):
    """What the app does about a legacy cluster whose key has a newer version than the one it names."""

    REPORT = "report"
    """Say so; change nothing."""
    UPDATE = "update"
    """Name the new version in the cluster; its secrets are rewritten by somebody else."""
    UPDATE_AND_REENCRYPT = "update-and-reencrypt"
    """Name the new version in the cluster, and rewrite its secrets."""


class ExemptionStatus(StrEnum):
    """Where an exemption stands."""

    IN_FORCE = "in-force"
    """It counts."""
    ENDING = "ending"
    """It counts for less than ENDING_WITHIN."""
    ENDED = "ended"
    """It counts no more."""


ENDING_WITHIN = timedelta(days=15)
"""An exemption with less time left than this is told to be ending."""

MOST_FAULTS = 1000
"""As many are told at once: beyond that it is the same one again and again."""

_IDENTITY_ID = re.compile(
    r"/subscriptions/[0-9a-f-]{36}/resourcegroups/[\w.()-]{1,90}"
    r"/providers/microsoft\.managedidentity/userassignedidentities/[a-z0-9_-]{3,128}",
    re.IGNORECASE,
)
_PLACEHOLDERS = ("{region}", "{subscription}", "{name}")


def _subscription(glob: str) -> str:
    if "*" in glob or "?" in glob:
        return glob
    try:
        return parse_subscription(glob)
    except Malformed as error:
        raise ValueError(f"{error}: write its id, or a pattern with * or ?") from error


Glob = Annotated[str, Field(min_length=1, max_length=512)]


class Match(Part):
    """Which clusters. Every field that is given must match; `*` and `?` stand for any text, case does not count."""

    subscriptions: list[Annotated[Glob, AfterValidator(_subscription)]] = Field(
        default_factory=list,
        min_length=1,
        description="Subscription ids.",
        examples=[["11111111-1111-4111-8111-111111111111"]],
    )
    resource_groups: list[Glob] = Field(
        default_factory=list,
        min_length=1,
        description="Names of the clusters' resource groups.",
        examples=[["rg-pay-*"]],
    )
    regions: list[Glob] = Field(
        default_factory=list,
        min_length=1,
        description="Regions by name, `westeurope`, or as the portal shows them, `West Europe`.",
        examples=[["westeurope"]],
    )
    names: list[Glob] = Field(
        default_factory=list, min_length=1, description="Names of clusters.", examples=[["aks-*"]]
    )
    tags: dict[str, Glob] = Field(
        default_factory=dict,
        min_length=1,
        description="Tags by name, each with a value that must match. All of them must.",
        examples=[{"env": "prod"}],
    )

    def matches(self, cluster: Cluster) -> bool:
        """Return whether this cluster is meant."""
        return (
            _is_any(self.subscriptions, cluster.id.subscription)
            and _is_any(self.resource_groups, cluster.id.group)
            and _is_any(list(map(_region, self.regions)), _region(cluster.location))
            and _is_any(self.names, cluster.id.name)
            and all(_has_tag(cluster, name, glob) for name, glob in self.tags.items())
        )


def _is_any(globs: list[str], text: str) -> bool:
    return not globs or any(_fits(glob.lower(), text.lower()) for glob in globs)


def _fits(glob: str, text: str) -> bool:
    """A bracket is a bracket: only `*` and `?` stand for something else."""
    return fnmatchcase(text, glob.replace("[", "[[]"))


def _region(name: str) -> str:
    """Azure's name of a region is its display name without blanks."""
    return name.replace(" ", "")


def _has_tag(cluster: Cluster, name: str, glob: str) -> bool:
    tags = {tag.lower(): value for tag, value in cluster.tags.items()}
    value = tags.get(name.lower())
    return value is not None and _is_any([glob], value)


OWN = "own"
"""A target's identity: the user-assigned one that the cluster has."""


def _vault(text: str) -> str:
    strange = sorted(set(re.findall(r"{[^{}]*}", text)) - set(_PLACEHOLDERS))
    if strange:
        raise ValueError(f"{strange[0][:50]} is no placeholder: {', '.join(_PLACEHOLDERS)} are")
    _filled_in(text, "abc", "00000000-0000-0000-0000-000000000000", "abc")
    return text


def _filled_in(vault: str, region: str, subscription: str, name: str) -> VaultId:
    values = dict(zip(_PLACEHOLDERS, (_region(region), subscription, name), strict=True))
    vault = re.sub("|".join(_PLACEHOLDERS), lambda found: values[found[0]], vault)
    try:
        return VaultId.parse(vault)
    except Malformed as error:
        expected = "/subscriptions/.../resourceGroups/.../providers/Microsoft.KeyVault/vaults/..."
        raise ValueError(f"{error}; it is like {expected}") from error


def _key(name: str) -> str:
    if re.fullmatch("[0-9A-Za-z-]{1,127}", name) is None:
        raise ValueError("write the key's name, without vault and version: 1 to 127 letters, digits and hyphens")
    return name


def _identity(text: str) -> str:
    if text != OWN and _IDENTITY_ID.fullmatch(text) is None:
        raise ValueError("identity is `own` or the resource id of a user-assigned identity")
    return text


class Target(Part):
    """What is asked of the clusters that it matches. Vault, key and identity belong to customer-managed keys."""

    model_config = ConfigDict(
        json_schema_extra={
            "if": {"properties": {"keyManagement": {"const": "customer-managed"}}, "required": ["keyManagement"]},
            "then": {"required": ["vault", "key"]},
        }
    )

    name: Annotated[
        str,
        Field(min_length=1, max_length=100, description="What the rows and the API call it.", examples=["payments"]),
    ] = "default"
    match: Match = Field(default_factory=Match, description="Which clusters.", examples=[{"names": ["aks-*"]}])
    mode: Annotated[
        Mode | None,
        Field(
            strict=False,
            description="`audit` here keeps an enforcing document from writing to these clusters.",
            examples=["audit"],
        ),
    ] = None
    key_management: Annotated[
        Literal["platform-managed", "customer-managed"],
        Field(
            description="`platform-managed`: keys that Azure makes and rotates. `customer-managed`: a key of your own, "
            "in a vault of your own.",
            examples=["platform-managed"],
        ),
    ]
    vault: Annotated[
        Annotated[str, AfterValidator(_vault)] | None,
        Field(
            description="The vault's resource id. Customer-managed keys need it. `{region}`, `{subscription}` and "
            "`{name}` stand for the cluster's own.",
            examples=[
                "/subscriptions/{subscription}/resourceGroups/rg-keys/providers/Microsoft.KeyVault/vaults/kv-{region}"
            ],
        ),
    ] = None
    key: Annotated[
        Annotated[str, AfterValidator(_key)] | None,
        Field(
            description="The key's name in that vault, without version. Customer-managed keys need it.",
            examples=["etcd"],
        ),
    ] = None
    network_access: Annotated[
        NetworkAccess | None,
        Field(
            strict=False,
            description="`public`: the vault must be open to all networks. `private`: it must be closed but for "
            "Azure's trusted services.",
            examples=["private"],
        ),
    ] = None
    identity: Annotated[
        str,
        AfterValidator(_identity),
        Field(
            description="`own`: the user-assigned identity that the cluster has. Or the resource id of the one that "
            "it must have.",
            examples=["own"],
        ),
    ] = OWN
    allow_identity_change: Annotated[
        bool,
        Field(
            description="`true` lets a cluster with a system-assigned identity be moved to the one that `identity` "
            "names. A user-assigned identity is never replaced.",
            examples=[True],
        ),
    ] = False
    prerequisites: Annotated[
        Preparing,
        Field(
            strict=False,
            description="`check`: vault, key and roles are looked at, never changed. `ensure`: what is missing of "
            "them is made.",
            examples=["check"],
        ),
    ] = Preparing.CHECK
    migrate: Annotated[
        bool,
        Field(
            description="`true` lets a cluster that is encrypted otherwise be moved to this target. AKS then rewrites "
            "every secret: turn off policies that block updates of secrets (Gatekeeper, Kyverno, webhooks) until it "
            "is done.",
            examples=[True],
        ),
    ] = False
    allow_unconfirmed: Annotated[
        bool,
        Field(
            description="`true` lets the app make moves whose outcome no document states: to another key, vault or "
            "network access.",
            examples=[True],
        ),
    ] = False

    @classmethod
    def broken_rules(cls, said: Mapping[Any, Any]) -> Iterator[str]:
        """Yield what does not fit the key management that is asked for."""
        asked, identity = said.get("keyManagement"), said.get("identity", OWN)
        given = [name for name in ("vault", "key", "networkAccess") if said.get(name) is not None]
        given += ["identity"] if identity != OWN else []
        given += ["allowIdentityChange"] if said.get("allowIdentityChange") is True else []
        given += ["prerequisites: ensure"] if said.get("prerequisites") == Preparing.ENSURE else []
        if asked == KeyManagement.PLATFORM_MANAGED and given:
            yield (
                f"{' and '.join(given)} belong to keyManagement: customer-managed: write that, "
                f"or leave {'it' if len(given) == 1 else 'them'} out"
            )
        if asked == KeyManagement.CUSTOMER_MANAGED and not (said.get("vault") and said.get("key")):
            yield "keyManagement: customer-managed needs vault (its resource id) and key (its name)"
        if asked != KeyManagement.PLATFORM_MANAGED and said.get("allowIdentityChange") is True and identity == OWN:
            yield "allowIdentityChange needs an identity to change to: name its resource id"

    @property
    def asks_for(self) -> KeyManagement:
        """The key management that this target asks for."""
        return KeyManagement(self.key_management)

    def vault_for(self, region: str, subscription: str, name: str) -> VaultId:
        """Return the vault with its placeholders filled in; ValueError if that is no vault's resource id."""
        return _filled_in(self.vault or "", region, subscription, name)


def _end(value: object) -> date | datetime:
    """Read a day or a moment, as YAML or JSON give it."""
    end = _parsed(value) if isinstance(value, str) else value
    if isinstance(end, datetime) and end.tzinfo is None:
        raise ValueError(f"{end.isoformat()} names no time zone: write {end.isoformat()}Z for UTC")
    if not isinstance(end, date):
        raise ValueError(_END_HINT)  # noqa: TRY004  pydantic collects ValueErrors
    return end


def _parsed(text: str) -> date | datetime:
    try:
        return datetime.fromisoformat(text) if len(text) > len("2027-03-31") else date.fromisoformat(text)
    except ValueError as error:
        raise ValueError(f"{text[:50]!r} is no day: {_END_HINT}") from error


_END_HINT = "write a date, like 2027-03-31, or a moment with its time zone, like 2027-03-31T12:00:00Z"


class Exemption(Part):
    """Leave these clusters alone, for a time."""

    match: Annotated[Match, Field(description="Which clusters, as in a target.", examples=[{"names": ["aks-old"]}])]
    owner: Annotated[
        str,
        Field(min_length=1, max_length=200, description="Who answers for it.", examples=["team@example.com"]),
    ]
    reason: Annotated[
        str,
        Field(
            min_length=1,
            max_length=500,
            description="Why. The API shows it beside the cluster.",
            examples=["is retired in March"],
        ),
    ]
    expires: Annotated[
        date | datetime,
        BeforeValidator(_end),
        WithJsonSchema({"type": "string", "anyOf": [{"format": "date"}, {"format": "date-time"}]}),
        Field(
            description="The last day on which it counts, in UTC. Or the moment, with its time zone, from which on it "
            "counts no more.",
            examples=["2027-03-31"],
        ),
    ]

    @property
    def id(self) -> str:
        """Twelve hexadecimal digits that stay the same as long as the exemption says the same."""
        said = self.model_dump(by_alias=True) | {"expires": self.until}
        return sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def until(self) -> str:
        """When it ends, as text."""
        return self.expires.isoformat().replace("+00:00", "Z")

    def is_in_force(self, now: datetime) -> bool:
        """Return whether it counts at this aware moment: through the last second of its day, or before its moment."""
        if isinstance(self.expires, datetime):
            return now < self.expires
        return now.astimezone(UTC).date() <= self.expires

    def status(self, now: datetime) -> ExemptionStatus:
        """Return where it stands at this aware moment."""
        if not self.is_in_force(now):
            return ExemptionStatus.ENDED
        return ExemptionStatus.IN_FORCE if self.is_in_force(now + ENDING_WITHIN) else ExemptionStatus.ENDING


class Limits(Part):
    """How much the app does at the same time, and when it stops."""

    concurrent_updates: Annotated[
        int, Field(ge=1, le=100, description="As many clusters at the same time.", examples=[5])
    ] = 5
    concurrent_updates_per_subscription: Annotated[
        int, Field(ge=1, le=100, description="As many of one subscription.", examples=[2])
    ] = 2
    stop_after_failures: Annotated[
        int,
        Field(
            ge=1,
            le=100,
            description="After so many updates that failed one after the other, whichever clusters they were of, the "
            "app updates no more.",
            examples=[3],
        ),
    ] = 3


class Keys(Part):
    """What is asked of keys and their versions."""

    warn_before_expiry_days: Annotated[
        int,
        Field(ge=1, le=365, description="A key that expires within so many days is warned of.", examples=[30]),
    ] = 30
    max_age_days: Annotated[
        int,
        Field(
            ge=28,
            le=3650,
            description="A key whose newest version is older than so many days is warned of.",
            examples=[400],
        ),
    ] = 400
    adoption_hours: Annotated[
        int,
        Field(
            ge=6,
            le=168,
            description="So long after a rotation a cluster is expected to use the new version. AKS looks for one "
            "every 6 hours.",
            examples=[6],
        ),
    ] = 6


class Legacy(Part):
    """What is done about clusters with legacy KMS."""

    rotation: Annotated[
        LegacyRotation,
        Field(
            strict=False,
            description="When the key of a legacy cluster has a new version. `report`: say so. `update`: name the new "
            "version in the cluster. `update-and-reencrypt`: also rewrite its secrets.",
            examples=["report"],
        ),
    ] = LegacyRotation.REPORT


def _version(value: object) -> object:
    """True is 1 to Python."""
    if value is True:
        raise ValueError("true is not served: write 1")
    return value


class Policy(Part):
    """What the AKS KMS Enforcer asks of which cluster."""

    model_config = ConfigDict(
        title="AKS KMS Enforcer policy",
        json_schema_extra={
            "if": {"properties": {"mode": {"const": "enforce"}}, "required": ["mode"]},
            "then": {"properties": {"acceptIrreversible": {"const": True}}, "required": ["acceptIrreversible"]},
        },
    )

    version: Annotated[
        Literal[1],
        BeforeValidator(_version),
        Field(description="The version of the document's shape: `1`.", examples=[1]),
    ]
    mode: Annotated[
        Mode,
        Field(
            strict=False,
            description="`audit` decides and records. `enforce` also writes. No target goes further than this.",
            examples=["audit"],
        ),
    ] = Mode.AUDIT
    accept_irreversible: Annotated[
        bool,
        Field(
            description="`mode: enforce` without `true` here is a fault: KMS with platform-managed or customer-managed "
            "keys can't be turned off again.",
            examples=[True],
        ),
    ] = False
    targets: Annotated[
        list[Target],
        Field(
            min_length=1,
            description="At least one. The first that matches a cluster wins. A cluster that none matches is left "
            "alone.",
            examples=[[{"keyManagement": "platform-managed"}]],
        ),
    ]
    opt_out_tag: Annotated[
        str,
        Field(
            min_length=1,
            max_length=512,
            description="The name of a tag. A cluster that carries it is exempt, unless its value is `on`. Misspelt "
            "values exempt too.",
            examples=["kms-enforcer"],
        ),
    ] = "kms-enforcer"
    exemptions: list[Exemption] = Field(
        default_factory=list,
        max_length=1000,  # what a subscription's row of a run holds of them
        description="Clusters to leave alone, each with an end.",
        examples=[
            [{"match": {"names": ["aks-old"]}, "owner": "a@example.com", "reason": "old", "expires": "2027-03-31"}]
        ],
    )
    limits: Limits = Field(
        default_factory=Limits,
        description="How much the app does at the same time, and when it stops.",
        examples=[{"concurrentUpdates": 5}],
    )
    windows: list[Window] = Field(
        default_factory=list,
        max_length=100,
        description="When the app may write. None: always.",
        examples=[[{"days": ["mon"], "from": "08:00", "to": "16:00", "timezone": "Europe/Amsterdam"}]],
    )
    keys: Keys = Field(
        default_factory=Keys,
        description="What is asked of keys and their versions.",
        examples=[{"warnBeforeExpiryDays": 30}],
    )
    legacy: Legacy = Field(
        default_factory=Legacy,
        description="What is done about clusters with legacy KMS.",
        examples=[{"rotation": "report"}],
    )

    @classmethod
    def broken_rules(cls, said: Mapping[Any, Any]) -> Iterator[str]:
        """Yield that what can't be undone is not accepted."""
        if said.get("mode") == Mode.ENFORCE and said.get("acceptIrreversible", False) is False:
            yield "mode: enforce needs acceptIrreversible: true, since the new experience can't be turned off again"

    @classmethod
    def schema_document(cls) -> dict[str, Any]:
        """Return the JSON Schema of a document, for editors: what it refuses is a fault, and of the rest most."""
        return {"$schema": "https://json-schema.org/draft/2020-12/schema", **cls.model_json_schema()}

    @classmethod
    def read(cls, text: str) -> tuple[Self | None, tuple[str, ...]]:
        """Read a document: the policy, or None and every fault at once, each with its path.

        At most MOST_FAULTS are told. Never raises: a broken document must not stop the app, which then writes nothing
        and says so.
        """
        try:
            document, faults = read_yaml(text)
        except Malformed as error:
            return None, (str(error),)
        try:
            policy = cls.model_validate(document)
        except ValidationError as error:
            wrong = error.errors(include_url=False)
            told = (*faults, *(sentence(cls, one) for one in wrong[:MOST_FAULTS]))
            return None, _first(told, len(faults) + len(wrong))
        return (None, _first(faults, len(faults))) if faults else (policy, ())


def _first(told: tuple[str, ...], count: int) -> tuple[str, ...]:
    """The first of so many faults, and how many more there are."""
    more = count - MOST_FAULTS
    return told if more <= 0 else (*told[:MOST_FAULTS], f"and {more} more: mend these first")
