"""The policy document: what is asked of which cluster. Pure: no I/O, no clock, no environment."""

from shared.policy.assignment import Assignment, PolicyInForce
from shared.policy.document import Exemption, Limits, Match, Mode, Policy, Target

__all__ = ["Assignment", "Exemption", "Limits", "Match", "Mode", "Policy", "PolicyInForce", "Target"]
