"""A policy in words: one line for each target."""

from __future__ import annotations

from collections.abc import Iterator

from shared.clusters import KeyManagement
from shared.policy.document import OWN, Match, Mode, NetworkAccess, Policy, Preparing, Target


def summary(policy: Policy) -> Iterator[str]:
    """Yield a line for each target: which clusters, what is asked of them, and how far the app goes."""
    for number, target in enumerate(policy.targets, 1):
        mode = Mode.lowest(policy.mode, target.mode)
        goes = "enforced" if mode is Mode.ENFORCE else "audited, nothing is changed"
        asked = "; ".join([_asked(target), *_allowed(target), goes])
        yield f"{number}. {target.name}: {_which(target.match)}: {asked}"


def _which(match: Match) -> str:
    """The clusters that are meant."""
    fields = {
        "named": match.names,
        "in resource group": match.resource_groups,
        "in": match.regions,
        "in subscription": match.subscriptions,
    }
    said = [f"{words} {' or '.join(globs)}" for words, globs in fields.items() if globs]
    said += [f"tagged {name}={glob}" for name, glob in match.tags.items()]
    return f"clusters {', '.join(said)}" if said else "every cluster"


def _asked(target: Target) -> str:
    if target.asks_for is KeyManagement.PLATFORM_MANAGED:
        return "platform-managed keys"
    access = {
        None: "as the vault's firewall says",
        NetworkAccess.PUBLIC: "open to all networks",
        NetworkAccess.PRIVATE: "closed but for trusted services",
    }[target.network_access]
    identity = "the cluster's own identity" if target.identity == OWN else f"identity {target.identity}"
    return f"customer-managed key {target.key} in {target.vault}, {access}, used by {identity}"


def _allowed(target: Target) -> Iterator[str]:
    """What the target lets the app do besides."""
    if target.prerequisites is Preparing.ENSURE:
        yield "what vault, key and roles lack is made"
    if target.allow_identity_change:
        yield "a system-assigned identity is changed"
    if target.migrate:
        yield "what is encrypted otherwise is moved"
    if target.allow_unconfirmed:
        yield "moves that no document confirms are made"
