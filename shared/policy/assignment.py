"""What the policy asks of one cluster at one moment."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Self

from shared.clusters import Cluster
from shared.policy.document import Exemption, Limits, Mode, Policy, Target

OPT_IN = "on"
"""The one value of the opt-out tag that exempts nothing: any other, misspelt ones too, means leave it alone."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """A target with mode, exemption and window for this moment, or why there is none.

    `window_opens` is when the next window opens; None: one is open now.
    """

    target: Target | None = None
    mode: Mode = Mode.AUDIT
    exempt_because: str | None = None
    faults: tuple[str, ...] = ()
    window_opens: datetime | None = None

    def lowered_to(self, mode: Mode | None) -> Self:
        """Return the same assignment, no further than this mode."""
        return replace(self, mode=Mode.lowest(self.mode, mode))


@dataclass(frozen=True, slots=True)
class PolicyInForce:
    """The policy document as it was read: a policy, or the faults for which nothing is written."""

    policy: Policy | None
    faults: tuple[str, ...] = ()

    @classmethod
    def read(cls, text: str) -> Self:
        """Read the document. Never raises."""
        return cls(*Policy.read(text))

    @property
    def mode(self) -> Mode:
        """The ceiling: no target goes further."""
        return self.policy.mode if self.policy else Mode.AUDIT

    @property
    def limits(self) -> Limits:
        """The limits in force."""
        return self.policy.limits if self.policy else Limits()

    def assignment(self, cluster: Cluster, now: datetime) -> Assignment:
        """Return what is asked of this cluster now. The first target that matches wins."""
        if self.policy is None:
            return Assignment(faults=self.faults)
        target = next((target for target in self.policy.targets if target.match.matches(cluster)), None)
        if target is None:
            return Assignment()
        return Assignment(
            target,
            mode=Mode.lowest(self.policy.mode, target.mode),
            exempt_because=_exempt_because(self.policy, cluster, now),
        )


def _exempt_because(policy: Policy, cluster: Cluster, now: datetime) -> str | None:
    tags = {name.lower(): value.strip().lower() for name, value in cluster.tags.items()}
    choice = tags.get(policy.opt_out_tag.lower(), OPT_IN)
    if choice != OPT_IN:
        return f"the tag {policy.opt_out_tag} is {choice[:50]}"
    exemption = next((one for one in policy.exemptions if _applies(one, cluster, now)), None)
    return f"{exemption.reason} ({exemption.owner}, until {exemption.expires})" if exemption else None


def _applies(exemption: Exemption, cluster: Cluster, now: datetime) -> bool:
    return now.date() <= exemption.expires and exemption.match.matches(cluster)
