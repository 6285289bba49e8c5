"""The policy document: what is asked of which cluster. Pure: no I/O, no clock, no environment."""

from shared.policy.assignment import Assignment, PolicyInForce
from shared.policy.document import (
    OWN,
    Exemption,
    Limits,
    Match,
    Mode,
    NetworkAccess,
    Policy,
    Preparing,
    SecondRole,
    Target,
)

__all__ = [
    "OWN",
    "Assignment",
    "Exemption",
    "Limits",
    "Match",
    "Mode",
    "NetworkAccess",
    "Policy",
    "PolicyInForce",
    "Preparing",
    "SecondRole",
    "Target",
]
