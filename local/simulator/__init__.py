"""A simulated Azure that real clients reach unmodified, through an HTTPS proxy on loopback."""

from local.simulator.azure import Azure
from local.simulator.server import Simulator
from local.simulator.subscriptions import SUBSCRIPTION

__all__ = ["SUBSCRIPTION", "Azure", "Simulator"]
