"""What the policy asks of one cluster at one moment."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Self

from shared.clusters import Cluster
from shared.keys import KeyId, VaultId
from shared.policy.document import Keys, Legacy, LegacyRotation, Limits, Mode, Policy, Target
from shared.policy.windows import next_opening

_NOTHING_SAID = Keys()

OPT_IN = "on"
"""The one value of the opt-out tag that exempts nothing: any other, misspelt ones too, means leave it alone."""

OPT_OUT = "tag"
"""What stands for the opt-out tag where exemptions are named by their ids."""


class SecondRole(StrEnum):
    """What a cluster's identity needs on the vault besides encrypting and decrypting: two documents disagree.

    Sources: AKS docs, migrate-kms-data-encryption (Reader), kms-data-encryption (Contributor).
    """

    READER = "reader"
    """Key Vault Reader."""
    CONTRIBUTOR = "contributor"
    """Key Vault Contributor."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """A target with mode, exemption and window for this moment, or why there is none.

    `exemption` is the id of the exemption in force, OPT_OUT for the tag, and `exempt_because` its words; both are None
    where there is none. `window_opens` is when the app may write next, in UTC; None if it may now.
    """

    target: Target | None = None
    mode: Mode = Mode.AUDIT
    exempt_because: str | None = None
    faults: tuple[str, ...] = ()
    window_opens: datetime | None = None
    exemption: str | None = None
    second_role: SecondRole = SecondRole.READER
    keys: Keys = _NOTHING_SAID
    legacy_rotation: LegacyRotation = LegacyRotation.REPORT
    run_command: bool = False

    def lowered_to(self, mode: Mode | None) -> Self:
        """Return the same assignment, no further than this mode."""
        return replace(self, mode=Mode.lowest(self.mode, mode)) if mode is not None else self


@dataclass(frozen=True, slots=True)
class PolicyInForce:
    """The policy document as it was read: a policy, or the faults for which nothing is written.

    `subscriptions` are those in which the app may write, as a setting names them; empty means all. An event may tell of
    a cluster in another one.
    """

    policy: Policy | None
    faults: tuple[str, ...] = ()
    second_role: SecondRole = SecondRole.READER
    run_command: bool = False
    subscriptions: tuple[str, ...] = ()

    @classmethod
    def read(
        cls,
        text: str,
        second_role: SecondRole = SecondRole.READER,
        *,
        run_command: bool = False,
        subscriptions: tuple[str, ...] = (),
    ) -> Self:
        """Read the document. Never raises. `run_command` says that a setting lets the app rewrite secrets."""
        return cls(*Policy.read(text), second_role, run_command, subscriptions)

    @property
    def mode(self) -> Mode:
        """The ceiling: no target goes further."""
        return self.policy.mode if self.policy else Mode.AUDIT

    @property
    def limits(self) -> Limits:
        """The limits in force."""
        return self.policy.limits if self.policy else Limits()

    @property
    def keys(self) -> Keys:
        """What is asked of keys."""
        return self.policy.keys if self.policy else Keys()

    @property
    def legacy(self) -> Legacy:
        """What is done about legacy clusters; of a broken document nothing but a report."""
        return self.policy.legacy if self.policy else Legacy()

    def assignment(self, cluster: Cluster, now: datetime) -> Assignment:
        """Return what is asked of this cluster now, an aware moment. The first target that matches wins."""
        if self.policy is None:
            return Assignment(faults=self.faults, second_role=self.second_role)
        target = next((target for target in self.policy.targets if target.match.matches(cluster)), None)
        if target is None:
            return Assignment(second_role=self.second_role)
        exemption, because = _exemption(self.policy, cluster, now)
        return Assignment(
            target,
            mode=Mode.lowest(self.policy.mode, target.mode, self._highest(cluster)),
            exempt_because=because,
            window_opens=next_opening(self.policy.windows, now),
            exemption=exemption,
            second_role=self.second_role,
            keys=self.keys,
            legacy_rotation=self.legacy.rotation,
            run_command=self.run_command,
        )

    def _highest(self, cluster: Cluster) -> Mode:
        swept = not self.subscriptions or cluster.id.subscription in self.subscriptions
        return Mode.ENFORCE if swept else Mode.AUDIT

    def named_keys(self) -> dict[KeyId, VaultId]:
        """Return the keys that targets name without placeholders, each with its vault: looked at though unused."""
        named = (
            [one for one in self.policy.targets if one.vault and one.key and "{" not in one.vault]
            if self.policy
            else []
        )
        found = [(one.vault_for("", "", ""), str(one.key).lower()) for one in named]
        return {KeyId(vault.name, key): vault for vault, key in found}

    def exemption_ids(self) -> tuple[str, ...]:
        """Return the ids of all exemptions, OPT_OUT first, ended ones too."""
        return (OPT_OUT, *(one.id for one in self.policy.exemptions)) if self.policy else ()

    def exemptions_of(self, cluster: Cluster) -> Iterator[str]:
        """Yield the id of every exemption that matches this cluster, ended ones and OPT_OUT too, target or not."""
        if self.policy is None:
            return
        if _opted_out(self.policy, cluster) is not None:
            yield OPT_OUT
        yield from (one.id for one in self.policy.exemptions if one.match.matches(cluster))


def _exemption(policy: Policy, cluster: Cluster, now: datetime) -> tuple[str, str] | tuple[None, None]:
    """Return the exemption that counts now, by its id, and why; the tag first, since it is the nearest."""
    choice = _opted_out(policy, cluster)
    if choice is not None:
        return OPT_OUT, f"the tag {policy.opt_out_tag} is {choice[:50]}"
    exemption = next((one for one in policy.exemptions if one.is_in_force(now) and one.match.matches(cluster)), None)
    if exemption is None:
        return None, None
    return exemption.id, f"{exemption.reason} ({exemption.owner}, until {exemption.until})"


def _opted_out(policy: Policy, cluster: Cluster) -> str | None:
    """Return the value of the opt-out tag; None if the cluster does not opt out."""
    tags = {name.lower(): value.strip().lower() for name, value in cluster.tags.items()}
    choice = tags.get(policy.opt_out_tag.lower(), OPT_IN)
    return choice if choice != OPT_IN else None
