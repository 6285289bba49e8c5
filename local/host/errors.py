"""The one error of the local host."""

from __future__ import annotations


class HostError(Exception):
    """The app can't be run as it is; the text says what to change."""
