"""What comes in: Event Grid and CloudEvents payloads, and our own queue messages. Pure: takes text and mappings.

An event is a hint to look, never proof of state. Everything in it is treated as hostile: only what is parsed here
goes on, and `claims` are never read at all.
Sources: Event Grid docs, event-schema-subscriptions, event-schema-key-vault; CloudEvents 1.0.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Self

from shared.clusters import ClusterId, parse_subscription
from shared.errors import Malformed
from shared.keys import KeyId, KeyReference, VaultId
from shared.policy import Mode
from shared.reasons import Reason

CLUSTER_EVENTS = {
    "microsoft.resources.resourcewritesuccess": "microsoft.containerservice/managedclusters/write",
    "microsoft.resources.resourcedeletesuccess": "microsoft.containerservice/managedclusters/delete",
}
"""Event types of a subscription that are served, each with the one operation that matters."""

OPERATOR = "operator"
"""Who asks for what comes in over HTTP. What events and the timer ask for names something else."""

RUN_FIELDS = ("subscriptions", "resourceGroups", "clusters", "mode")
MOST_NAMES = 100
"""As many of each as one message holds with room to spare."""

_FIRST_YEAR = 2015
"""AKS is younger. Table Storage holds no time before 1601."""

KEY_EVENTS: dict[str, Reason | None] = {
    "microsoft.keyvault.keynewversioncreated": None,
    "microsoft.keyvault.keynearexpiry": Reason.KEY_NEAR_EXPIRY,
    "microsoft.keyvault.keyexpired": Reason.KEY_EXPIRED,
}
"""Event types of a vault that name a version of a key, each with what it says of it if that is no news of one."""

VAULT_EVENT = "microsoft.keyvault.vaultaccesspolicychanged"
"""The one event type that is about a vault as a whole."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event, whichever schema carried it. `source` is the topic: a subscription or a vault."""

    id: str
    type: str
    source: str
    subject: str
    time: datetime | None
    data: Mapping[str, Any]

    @classmethod
    def read(cls, text: str) -> Self:
        """Read one event of either schema. What is missing or of another type is empty; no JSON object is Malformed."""
        body = _decode(text)
        cloud = "specversion" in body
        data = body.get("data")
        return cls(
            id=_loose_id(body.get("id")),
            type=_loose(body, "type" if cloud else "eventType"),
            source=_loose(body, "source" if cloud else "topic"),
            subject=_loose(body, "subject"),
            time=_loose_time(body.get("time" if cloud else "eventTime")),
            data=data if isinstance(data, dict) else {},
        )


@dataclass(frozen=True, slots=True)
class ClusterRequest:
    """Look at this cluster.

    `token` belongs to a wait; `since` is when an event said that the cluster was written; `mode` lowers what the
    policy allows, for this look alone. `id` is the queue's own, the same over redeliveries; empty until it was sent.
    `run` is the run that began this chain of looks, for the log.
    """

    cluster: ClusterId
    asked_by: str
    token: str | None = None
    since: datetime | None = None
    mode: Mode | None = None
    id: str = ""
    run: str | None = None

    def encode(self) -> str:
        """Return the queue message."""
        return _encode(
            cluster=str(self.cluster),
            askedBy=self.asked_by,
            token=self.token,
            since=self.since.isoformat() if self.since else None,
            mode=self.mode,
            run=self.run,
        )

    @classmethod
    def decode(cls, text: str | bytes, message_id: str) -> Self:
        """Read a queue message; Malformed if it is none of ours."""
        body = _decode(text)
        return cls(
            cluster=ClusterId.parse(_required(body, "cluster")),
            asked_by=_required(body, "askedBy"),
            token=_optional(body, "token"),
            since=_time(body.get("since")),
            mode=_mode(body),
            id=message_id,
            run=_optional(body, "run"),
        )

    @property
    def by_an_operator(self) -> bool:
        """Whether an operator asks for this look, and not the wait of an earlier one."""
        return self.asked_by == OPERATOR and self.token is None

    def again(self, token: str) -> Self:
        """Return the request for the next look of this wait. The wait is the cluster's: a run's mode ends here."""
        return replace(self, token=token, mode=None, id="")


@dataclass(frozen=True, slots=True)
class KeyRequest:
    """Look at this key. `version` is the one that an event announced; `vault` is None where nobody told its id.

    `cause` is what an event said besides a new version; `run` is the sweep that asks, which looks at a key once.
    """

    key: KeyId
    asked_by: str
    vault: VaultId | None = None
    version: str | None = None
    cause: Reason | None = None
    run: str | None = None

    def encode(self) -> str:
        """Return the queue message."""
        return _encode(
            key=KeyReference(self.key, self.version).url,
            askedBy=self.asked_by,
            vaultId=str(self.vault) if self.vault else None,
            cause=self.cause,
            run=self.run,
        )

    @classmethod
    def decode(cls, text: str | bytes) -> Self:
        """Read a queue message about one key; Malformed if it is none of ours."""
        return cls.read(_decode(text))

    @classmethod
    def read(cls, body: Mapping[str, Any]) -> Self:
        """Read a queue message that was decoded; Malformed if it is none of ours."""
        vault_id = _optional(body, "vaultId")
        reference = KeyReference.parse(_required(body, "key"))
        return cls(
            key=reference.key,
            asked_by=_required(body, "askedBy"),
            vault=VaultId.parse(vault_id) if vault_id else None,
            version=reference.version,
            cause=_cause(body),
            run=_optional(body, "run"),
        )


@dataclass(frozen=True, slots=True)
class VaultRequest:
    """Look at every key of this vault that is known: an event said something of the vault."""

    vault: VaultId
    asked_by: str
    cause: Reason

    def encode(self) -> str:
        """Return the queue message."""
        return _encode(vaultId=str(self.vault), askedBy=self.asked_by, cause=self.cause)

    @classmethod
    def read(cls, body: Mapping[str, Any]) -> Self:
        """Read a queue message; Malformed if it is none of ours."""
        cause = _cause(body)
        if cause is None:
            raise Malformed("the message has no cause")
        return cls(VaultId.parse(_required(body, "vaultId")), _required(body, "askedBy"), cause)


def key_message(text: str | bytes) -> KeyRequest | VaultRequest:
    """Read a message of the queue for keys: about one key, or about a vault. Malformed if it is none of ours."""
    body = _decode(text)
    return KeyRequest.read(body) if "key" in body else VaultRequest.read(body)


@dataclass(frozen=True, slots=True)
class Scope:
    """Which clusters a run is about: those of these subscriptions, groups and ids. An empty list means all."""

    subscriptions: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    clusters: tuple[ClusterId, ...] = ()

    @property
    def named_subscriptions(self) -> frozenset[str]:
        """The subscriptions that the scope names, by themselves or by a cluster's id."""
        return frozenset(self.subscriptions) | {cluster.subscription for cluster in self.clusters}

    def holds(self, cluster: ClusterId) -> bool:
        """Return whether this cluster is meant."""
        return (
            (not self.subscriptions or cluster.subscription in self.subscriptions)
            and (not self.groups or cluster.group in self.groups)
            and (not self.clusters or cluster in self.clusters)
        )

    def touches(self, subscription: str) -> bool:
        """Return whether a cluster of this subscription can be meant."""
        ids = {cluster.subscription for cluster in self.clusters}
        return (not self.subscriptions or subscription in self.subscriptions) and (not ids or subscription in ids)

    def view(self) -> dict[str, list[str]]:
        """Return the scope as JSON, as it was asked for."""
        parts = {
            "subscriptions": list(self.subscriptions),
            "resourceGroups": list(self.groups),
            "clusters": [str(cluster) for cluster in self.clusters],
        }
        return {name: values for name, values in parts.items() if values}

    @classmethod
    def read(cls, body: Mapping[str, Any]) -> Self:
        """Read a scope from JSON; Malformed says what to change."""
        return cls(
            tuple(dict.fromkeys(map(parse_subscription, _texts(body, "subscriptions")))),
            tuple(dict.fromkeys(group.lower() for group in _texts(body, "resourceGroups"))),
            tuple(dict.fromkeys(map(ClusterId.parse, _texts(body, "clusters")))),
        )


@dataclass(frozen=True, slots=True)
class ShardRequest:
    """Sweep this subscription as a part of this run."""

    run: str
    subscription: str
    asked_by: str
    mode: Mode | None = None
    scope: Scope = Scope()

    def encode(self) -> str:
        """Return the queue message."""
        said = {"run": self.run, "subscription": self.subscription, "askedBy": self.asked_by}
        mode = {"mode": self.mode} if self.mode is not None else {}
        return json.dumps({**said, **mode, "scope": self.scope.view()})

    @classmethod
    def decode(cls, text: str | bytes) -> Self:
        """Read a queue message; Malformed if it is none of ours."""
        body = _decode(text)
        return cls(
            run=_required(body, "run"),
            subscription=parse_subscription(_required(body, "subscription")),
            asked_by=_required(body, "askedBy"),
            mode=_mode(body),
            scope=Scope.read(_mapping(body, "scope")),
        )


def cluster_request(event: Event) -> ClusterRequest | None:
    """Return the look that an event of a subscription asks for; None for an event that is not served.

    Malformed if the event is of a served type but names no managed cluster.
    """
    operation = CLUSTER_EVENTS.get(event.type.lower())
    if operation is None or _text(event.data, "operationname").lower() != operation:
        return None
    return ClusterRequest(
        cluster=ClusterId.parse(event.subject),
        asked_by=f"event:{event.id}",
        since=event.time if operation.endswith("/write") else None,
    )


def key_request(event: Event) -> KeyRequest | VaultRequest | None:
    """Return the look that an event of a vault asks for; None for an event that is not served.

    Vault, name and version are taken from the URL in `Id`: the other fields carry stray blanks in Event Grid's own
    samples. Malformed if the URL's host is not the topic's vault: a forged event must not make us ask elsewhere.
    """
    kind, asked_by = event.type.lower(), f"event:{event.id}"
    if kind == VAULT_EVENT:
        return VaultRequest(VaultId.parse(event.source), asked_by, Reason.ACCESS_POLICY_CHANGED)
    if kind not in KEY_EVENTS or _text(event.data, "objecttype").lower() != "key":
        return None
    vault = VaultId.parse(event.source)
    reference = KeyReference.parse(_text(event.data, "id"))
    if reference.key.vault != vault.name:
        raise Malformed(f"the key's host {reference.key.vault!r} is not the topic's vault {vault.name!r}")
    if reference.version is None:
        raise Malformed("the event's key id names no version")
    return KeyRequest(reference.key, asked_by, vault, version=reference.version, cause=KEY_EVENTS[kind])


def _cause(body: Mapping[str, Any]) -> Reason | None:
    value = _optional(body, "cause")
    try:
        return Reason(value) if value is not None else None
    except ValueError as error:
        raise Malformed("the message's cause is no reason") from error


def _loose(body: Mapping[str, Any], name: str) -> str:
    value = body.get(name)
    return value.strip() if isinstance(value, str) else ""


def _loose_id(value: Any) -> str:
    """An event's id without what a row key or a log line could not bear; empty if it has none."""
    if not isinstance(value, str | int):
        return ""
    return "".join(char for char in str(value) if char.isascii() and (char.isalnum() or char in "-_.:"))[:100]


def _loose_time(value: Any) -> datetime | None:
    """An event's time; None for one that can't be read, or that lies before anything here could have happened."""
    try:
        moment = _time(value)
    except Malformed:
        return None
    return moment if moment is not None and moment.year >= _FIRST_YEAR else None


def _text(data: Mapping[str, Any], name: str) -> str:
    """One field of an event's data: names in any case, blanks around names and values dropped."""
    for key, value in data.items():
        if key.strip().lower() == name and isinstance(value, str):
            return value.strip()
    return ""


def _encode(**body: str | None) -> str:
    return json.dumps({name: value for name, value in body.items() if value is not None})


def _decode(text: str | bytes) -> Mapping[str, Any]:
    try:
        body = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Malformed("the message is not JSON") from error
    if not isinstance(body, dict):
        raise Malformed("the message is not a JSON object")
    return body


def _required(body: Mapping[str, Any], name: str) -> str:
    value = _optional(body, name)
    if not value:
        raise Malformed(f"the message has no {name}")
    return value


def _optional(body: Mapping[str, Any], name: str) -> str | None:
    value = body.get(name)
    if value is not None and not isinstance(value, str):
        raise Malformed(f"the message's {name} is not text")
    return value


def _texts(body: Mapping[str, Any], name: str) -> list[str]:
    values = body.get(name, [])
    if not isinstance(values, list) or not all(isinstance(one, str) for one in values):
        raise Malformed(f"{name} must be a list of texts")
    if len(values) > MOST_NAMES:
        raise Malformed(f"{name} may name {MOST_NAMES} at most: start several runs, or one over everything")
    return values


def _mapping(body: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = body.get(name, {})
    if not isinstance(value, dict):
        raise Malformed(f"the message's {name} is not an object")
    return value


def _time(value: Any) -> datetime | None:
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError) as error:
        raise Malformed("the message's time can't be read") from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _mode(body: Mapping[str, Any]) -> Mode | None:
    value = _optional(body, "mode")
    try:
        return Mode(value) if value is not None else None
    except ValueError as error:
        raise Malformed(f"the message's mode is not one of {', '.join(Mode)}") from error


@dataclass(frozen=True, slots=True)
class RunOrder:
    """What an operator asks of a run: which clusters (none named: all), and no further than a mode."""

    scope: Scope = Scope()
    mode: Mode | None = None

    @classmethod
    def decode(cls, text: bytes) -> Self:
        """Read the body of a request; an empty one asks for everything. Malformed says what to change."""
        body = _order(text, RUN_FIELDS, "a run")
        return cls(Scope.read(body), _mode(body))


PAUSE_FIELDS = ("reason",)
REASON_LIMIT = 500


@dataclass(frozen=True, slots=True)
class PauseOrder:
    """What an operator says who pauses enforcement: why, if anything."""

    reason: str | None = None

    @classmethod
    def decode(cls, text: bytes) -> Self:
        """Read the body of a request; an empty one gives no reason. Malformed says what to change.

        The reason goes into the log, the table and every row that waits, so it is one line that all of them can bear.
        """
        body = _order(text, PAUSE_FIELDS, "a pause")
        reason = (_optional(body, "reason") or "").strip()
        if len(reason) > REASON_LIMIT or not reason.isprintable():
            raise Malformed(f"the reason must be one line of {REASON_LIMIT} printable characters at most")
        return cls(reason or None)


REWRITE_FIELDS = ("by", "at")
ROTATE_FIELDS = ("by",)
NAME_LIMIT = 200


@dataclass(frozen=True, slots=True)
class RewriteOrder:
    """What an operator says who rewrote all secrets of a cluster: who it was, and when if not just now."""

    by: str
    at: datetime | None = None

    @classmethod
    def decode(cls, text: bytes) -> Self:
        """Read the body of a request. Malformed says what to change."""
        body = _order(text, REWRITE_FIELDS, "a confirmation")
        by = _name(body)
        if by is None:
            raise Malformed(f"by must say who rewrote the secrets: {_NAME}")
        return cls(by, _moment(body))


@dataclass(frozen=True, slots=True)
class RotateOrder:
    """What an operator says who rotates a key: who it is, if anything."""

    by: str | None = None

    @classmethod
    def decode(cls, text: bytes) -> Self:
        """Read the body of a request; an empty one says nothing. Malformed says what to change."""
        return cls(_name(_order(text, ROTATE_FIELDS, "a rotation")))


_TIME = "at must be a time with its offset from UTC, such as 2026-03-02T09:00:00Z"
_NAME = f"one line of {NAME_LIMIT} printable characters at most"


def _order(text: bytes, fields: tuple[str, ...], what: str) -> Mapping[str, Any]:
    body = _decode(text) if text.strip() else {}
    unknown = sorted(set(body) - set(fields))
    if unknown:
        raise Malformed(f"unknown field {unknown[0][:100]!r}: {what} takes {', '.join(fields)}")
    return body


def _name(body: Mapping[str, Any]) -> str | None:
    """Who gives an order, as the table and the log can bear it; None if that is not said."""
    name = (_optional(body, "by") or "").strip()
    if len(name) > NAME_LIMIT or not name.isprintable():
        raise Malformed(f"by must be {_NAME}")
    return name or None


def _moment(body: Mapping[str, Any]) -> datetime | None:
    """When something happened, in UTC. A time without an offset could be meant anywhere."""
    text = _optional(body, "at")
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
        utc = moment.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise Malformed(_TIME) from error
    if moment.tzinfo is None:
        raise Malformed(_TIME)
    return utc
