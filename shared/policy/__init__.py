"""The policy document: what is asked of which cluster. Pure: no I/O, no clock, no environment."""

from shared.policy.assignment import OPT_OUT, Assignment, PolicyInForce, SecondRole
from shared.policy.document import (
    OWN,
    Exemption,
    ExemptionStatus,
    Keys,
    Legacy,
    LegacyRotation,
    Limits,
    Match,
    Mode,
    NetworkAccess,
    Policy,
    Preparing,
    Target,
)
from shared.policy.windows import Window, is_open, next_opening

__all__ = [
    "OPT_OUT",
    "OWN",
    "Assignment",
    "Exemption",
    "ExemptionStatus",
    "Keys",
    "Legacy",
    "LegacyRotation",
    "Limits",
    "Match",
    "Mode",
    "NetworkAccess",
    "Policy",
    "PolicyInForce",
    "Preparing",
    "SecondRole",
    "Target",
    "Window",
    "is_open",
    "next_opening",
]
