"""A small Functions host on the production worker library; `HostProcess` runs one in a process of its own."""

from __future__ import annotations

from local.host.launcher import Answer, HostProcess

__all__ = ["Answer", "HostProcess"]
