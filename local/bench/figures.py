"""What was measured, what is wanted of it, and the table of both: on a screen and on a page."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import median

BEGIN, END = "<!-- measured -->", "<!-- end of what was measured -->"
_PLACE = re.compile(rf"{re.escape(BEGIN)}.*{re.escape(END)}", re.DOTALL)


class BenchError(Exception):
    """A measurement came to nothing that can be shown; the text says why."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """The bound that the median is to keep."""

    bound: float
    at_least: bool = False

    def is_met(self, value: float) -> bool:
        """Whether a value keeps it."""
        return value >= self.bound if self.at_least else value <= self.bound


@dataclass(frozen=True, slots=True)
class Figure:
    """One number of several runs, in `unit`. `wanted` None: it is there to read the others by."""

    what: str
    unit: str
    runs: Sequence[float]
    wanted: Wanted | None = None

    @property
    def cells(self) -> tuple[str, str, str, str]:
        """What, the median with the least and the most, wanted, met or not."""
        middle = median(self.runs)
        spread = f" ({_number(min(self.runs))} to {_number(max(self.runs))})" if len(self.runs) > 1 else ""
        measured = f"{_number(middle)}{self.unit}{spread}"
        if self.wanted is None:
            return self.what, measured, "", ""
        side = "at least" if self.wanted.at_least else "at most"
        met = "yes" if self.wanted.is_met(middle) else "NO"
        return self.what, measured, f"{side} {self.wanted.bound:g}{self.unit}", met


HEADINGS = ("what", "measured: median (least to most)", "wanted", "met")


def table(figures: Iterable[Figure]) -> str:
    """Return the figures as a Markdown table."""
    rows = [HEADINGS, *(figure.cells for figure in figures)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])


def heading(now: datetime) -> str:
    """Say when and on what kind of machine this was measured."""
    system = f"{platform.system()} on {platform.machine()}, {os.process_cpu_count()} cores"
    return f"{now:%Y-%m-%d}, {system}, Python {platform.python_version()}"


def write_into(page: Path, text: str) -> None:
    """Put a text between the marks of a page, in the place of the former one. BenchError if the marks are not there."""
    former = page.read_text(encoding="utf-8")
    if not _PLACE.search(former):
        raise BenchError(f"{page} has no place for a table: {BEGIN} ... {END}")
    page.write_text(_PLACE.sub(lambda _: f"{BEGIN}\n{text}\n{END}", former), encoding="utf-8")


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"
