"""What a person sees of a play: a live table with progress, the news as they come, and a summary."""

from __future__ import annotations

import time

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from local.play import Play

_COLOURS = {"nothing": "green", "wait": "yellow", "report": "red", "write": "cyan"}


class Screen:
    """Shows a play. Where nobody looks on (a pipe, a CI log) only the news and the summary are printed."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, refresh_per_second=8, transient=True)
        self._printed = 0

    def __enter__(self) -> Screen:
        """Begin to show."""
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Take the live table away; what was printed stays."""
        if self._console.is_terminal:
            self._live.stop()

    def show(self, play: Play) -> None:
        """Print what is new, and draw the table anew."""
        for line in play.news[self._printed :]:
            seconds = time.monotonic() - play.started
            self._console.print(Text(f"{seconds:5.1f} s  {line}"), soft_wrap=True)
        self._printed = len(play.news)
        if self._console.is_terminal:
            self._live.update(Group(_clusters(play), _progress(play)))

    def summarise(self, play: Play) -> None:
        """Print how everything ended."""
        self._console.print(_clusters(play))
        self._console.print(_rotations(play))
        for verdict in play.verdicts:
            mark = "[green]ok[/]  " if verdict.holds else "[red]not[/] "
            expected = "" if verdict.holds else f", not {verdict.expected}"
            self._console.print(f"{mark} {verdict.what}: {verdict.found}{expected}", highlight=False, soft_wrap=True)


def _progress(play: Play) -> Group:
    steps = len(play.scenario.steps)
    return Group(ProgressBar(total=steps, completed=play.done, width=60), Text(f"{play.done}/{steps}  {play.said}"))


def _clusters(play: Play) -> Table:
    table = Table(title=play.scenario.title, title_justify="left")
    for column in ("cluster", "about", "version", "in Azure", "action", "reason", "writes"):
        table.add_column(column, no_wrap=column in {"cluster", "version", "reason"})
    for name, fleet in play.actors.items():
        row = play.rows.get(name, {})
        cluster, action = play.clusters[name], row.get("action") or ""
        table.add_row(
            name,
            fleet.about,
            fleet.kubernetes,
            f"{cluster.encryption}\n{cluster.provisioning_state}",
            Text(action, style=_COLOURS.get(action, "")),
            row.get("reason") or "",
            str(play.writes(name)),
        )
    return table


def _rotations(play: Play) -> Table:
    table = Table(title="Rotations in Table Storage", title_justify="left")
    for column in ("key", "version", "detected by", "at"):
        table.add_column(column, no_wrap=True)
    for one in play.rotations:
        table.add_row(f"{one['vault']}/{one['key']}", one["version"], one["how"], one["detectedAt"][:19] + "Z")
    return table
