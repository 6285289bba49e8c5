"""The benchmarks run, count what is there, and say what they measured. How long anything takes is not asserted."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from local.bench.figures import BEGIN, END, BenchError, Figure, Wanted, table, write_into

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from local.bench.ground import Ground

NAMES = ("one-subscription", "fifty-subscriptions", "to-the-put", "looks", "cold-start", "memory")


def test_the_table_has_median_and_spread_what_is_wanted_and_whether_it_is_met() -> None:
    figures = [
        Figure("a sweep", " s", [3.0, 1.0, 2.0], Wanted(2.0)),
        Figure("looks", "/s", [99.0], Wanted(100, at_least=True)),
        Figure("beside it", "", [1.0]),
    ]

    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table(figures).splitlines()]

    assert rows[2:] == [
        ["a sweep", "2.00 s (1.00 to 3.00)", "at most 2 s", "yes"],
        ["looks", "99.0/s", "at least 100/s", "NO"],
        ["beside it", "1.00", "", ""],
    ]


def test_the_table_takes_the_place_of_the_former_one(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n", encoding="utf-8")

    write_into(page, r"new \1")
    write_into(page, r"new \1")

    assert page.read_text(encoding="utf-8") == f"before\n{BEGIN}\nnew \\1\n{END}\nafter\n"


def test_a_page_without_a_place_for_the_table_is_left_alone(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("nothing here", encoding="utf-8")

    with pytest.raises(BenchError):
        write_into(page, "new")

    assert page.read_text(encoding="utf-8") == "nothing here"


@pytest.fixture(scope="module")
def ground() -> Iterator[Ground]:
    """A simulated Azure and an Azurite of the benchmarks' own."""
    from local.bench.ground import Ground

    with Ground(timedelta(milliseconds=1)) as started:
        yield started


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_benchmark_runs_at_a_tiny_size_and_its_counts_are_right(ground: Ground, name: str) -> None:
    from local.bench.measures import BENCHMARKS, Size

    ground.renew()
    ground.azure.latency = timedelta(milliseconds=1)

    figures = BENCHMARKS[name](ground, Size(clusters=100, times=1, memory=(2, 4), messages=1, looks=20))

    assert figures
    assert all(run > 0 for figure in figures for run in figure.runs if "more" not in figure.unit)
    assert any(figure.wanted is not None for figure in figures)
    assert set(BENCHMARKS) == set(NAMES)


@pytest.mark.slow
def test_a_sweep_that_writes_or_counts_otherwise_is_no_figure(ground: Ground) -> None:
    from local.bench import measures
    from local.bench.ground import sweep
    from local.simulator import SUBSCRIPTION

    ground.renew()
    ground.fleet(4, [SUBSCRIPTION])
    with ground.host(measures.AUDIT) as host:
        with pytest.raises(BenchError, match="rows written by a sweep of what is known: "):
            measures.unchanged(ground, host, 4)
        sweep(host, SUBSCRIPTION)

        with pytest.raises(BenchError, match="the sweep: 4, not 5"):
            measures.unchanged(ground, host, 5)
