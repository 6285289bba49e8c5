"""What a person sees of a play: a live table with progress, the news as they come, and a summary."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from local.play import Play, needed_by

Json = dict[str, Any]

_COLOURS = {"nothing": "green", "wait": "yellow", "report": "red", "write": "cyan", "look-closer": "magenta"}
_STANDINGS = {"needed": "cyan", "not-shown-unneeded": "yellow", "candidate": "green"}
_URGENCY = ("write", "look-closer", "report", "wait", "nothing")
_REMARKED = "*"
_WIDE = 100
"""Columns from which a fleet's table has room for words."""


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
        if play.versions:
            self._console.print(_versions(play))
        for verdict in play.verdicts:
            mark = "[green]ok[/]  " if verdict.holds else "[red]not[/] "
            expected = "" if verdict.holds else f", not {verdict.expected}"
            self._console.print(f"{mark} {verdict.what}: {verdict.found}{expected}", highlight=False, soft_wrap=True)


def show_fleet(console: Console, rows: list[Json]) -> None:
    """Print what the policy would do to each cluster of a fleet, and what that comes to."""
    for subscription in sorted({row["subscription"] for row in rows}):
        console.print(_fleet([row for row in rows if row["subscription"] == subscription], subscription, console.width))
    console.print(_sums(rows))
    for remark in sorted({row["remark"] for row in rows if row["remark"]}):
        console.print(Text(f"{_REMARKED} {remark}"), soft_wrap=True)


def _fleet(rows: list[Json], subscription: str, width: int) -> Table:
    """One subscription's clusters, two lines each. On a narrow screen the words stand only once, with the sums."""
    is_wide = width >= _WIDE
    table = Table(title=f"Subscription {subscription}", title_justify="left")
    table.add_column("cluster", overflow="fold")
    table.add_column("has", no_wrap=True)
    table.add_column("decision", no_wrap=True)
    if is_wide:
        table.add_column("what it comes to")
    for row in rows:
        parts = row["id"].split("/")
        cluster = Text.assemble(parts[-1], "\n", (parts[4], "dim"))
        has = Text.assemble(row["keyManagement"], _REMARKED if row["remark"] else "", "\n", (row["kubernetes"], "dim"))
        decision = Text.assemble(_action(row["action"]), "\n", row["reason"])
        table.add_row(cluster, has, decision, *([row["words"]] if is_wide else []))
    return table


def _sums(rows: list[Json]) -> Table:
    """How many clusters there are of each kind, most urgent first, and what that comes to."""
    words: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    for row in rows:
        words[row["action"], row["reason"]].add(row["words"])
    counts = Counter((row["action"], row["reason"]) for row in rows)
    table = Table(title="What the policy would do", title_justify="left", box=None, show_header=False)
    table.add_column(justify="right")
    for no_wrap in (True, True, False):
        table.add_column(no_wrap=no_wrap)
    for action, reason in sorted(counts, key=lambda kind: (_URGENCY.index(kind[0]), kind[1])):
        said = words[action, reason]
        table.add_row(str(counts[action, reason]), _action(action), reason, said.pop() if len(said) == 1 else "")
    return table


def _action(action: str) -> Text:
    return Text(action, style=_COLOURS.get(action, ""))


def _progress(play: Play) -> Group:
    steps = len(play.scenario.steps)
    return Group(ProgressBar(total=steps, completed=play.done, width=60), Text(f"{play.done}/{steps}  {play.said}"))


def _clusters(play: Play) -> Table:
    """The actors, two lines each where the screen has 80 columns."""
    table = Table(title=play.scenario.title, title_justify="left")
    table.add_column("cluster", overflow="fold")
    for column in ("in Azure", "decision", "writes"):
        table.add_column(column, no_wrap=True)
    for name, fleet in play.actors.items():
        row, cluster = play.rows.get(name, {}), play.clusters[name]
        table.add_row(
            Text.assemble(name, "  ", (f"{fleet.kubernetes}\n{fleet.about}", "dim")),
            f"{cluster.encryption}\n{cluster.provisioning_state}",
            Text.assemble(_action(row.get("action") or ""), "\n", row.get("reason") or ""),
            str(play.writes(name)),
        )
    return table


def _rotations(play: Play) -> Table:
    table = Table(title="Rotations in Table Storage", title_justify="left")
    for column in ("key", "version", "detected by"):
        table.add_column(column, no_wrap=True)
    for one in play.rotations:
        detected = Text.assemble(one["how"], "\n", (one["detectedAt"][:19] + "Z", "dim"))
        table.add_row(f"{one['vault']}/{one['key']}", one["version"], detected)
    return table


def _versions(play: Play) -> Table:
    """Which version of a key is needed by whom, the oldest first."""
    table = Table(title="Key versions", title_justify="left")
    for column in ("key", "version", "standing"):
        table.add_column(column, no_wrap=True)
    table.add_column("needed by", overflow="fold")
    for key, versions in play.versions.items():
        for one in versions:
            standing = Text(one["standing"], style=_STANDINGS.get(one["standing"], ""))
            table.add_row(key, one["version"][:8], standing, ", ".join(needed_by(one)))
    return table
