"""When the app may write: windows by local time, in any time zone, on daylight-saving days too.

A window opens at `from` on each of its days and closes at `to` the same day, or the next day where `to` is not later
than `from`. A local time that does not exist, since the clock is put forward over it, is the first moment after the
gap. Of a local time that comes twice, since the clock is put back, a window opens at the first and closes at the last.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from difflib import get_close_matches
from functools import cache
from typing import Annotated, Literal
from zoneinfo import ZoneInfo, available_timezones

from pydantic import AfterValidator, BeforeValidator, Field

from shared.policy.parts import Part

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
"""The days of the week, as the document writes them."""

_TIME = re.compile(r"(?:[01][0-9]|2[0-3]):[0-5][0-9]|24:00")
_DAY_MINUTES = 24 * 60
_SECOND = timedelta(seconds=1)

_LOOK_BACK = range(-2, 2)
"""The days, counted from today, whose windows may be open: a window lasts a day at most."""
_LOOK_AHEAD = range(-2, 17)
"""The days whose windows may open next: within two weeks, even if a gap swallows one of them whole."""


def _wall_time(value: object) -> object:
    """YAML 1.1 reads 16:00 without quotes as sixty times sixteen."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _DAY_MINUTES:
        meant = f"{value // 60:02d}:{value % 60:02d}"
        raise ValueError(f'YAML reads {meant} without quotes as the number {value}: write "{meant}", in quotes')
    if not isinstance(value, str) or _TIME.fullmatch(value) is None:
        raise ValueError('write hours and minutes with two digits each, in quotes, like "08:00"')
    return value


def _starting_time(value: str) -> str:
    if value == "24:00":
        raise ValueError('only `to` may be "24:00": write "00:00" and the next day')
    return value


def _known_zone(name: str) -> str:
    known = _zones()
    if name in known:
        return name
    by_lower_case = {zone.lower(): zone for zone in known}
    near = get_close_matches(name.lower()[:100], by_lower_case, n=1)
    hint = f"did you mean {by_lower_case[near[0]]}?" if near else "write one like Europe/Amsterdam"
    raise ValueError(f"{name[:50]!r} is not a time zone of the IANA database; {hint}")


@cache
def _zones() -> frozenset[str]:
    """Finding them takes longer than reading a document. Linux names the machine's own among them."""
    return frozenset(available_timezones() - {"localtime"})


Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
WallTime = Annotated[str, BeforeValidator(_wall_time)]


class Window(Part):
    """A time in which the app may write, again every week."""

    days: Annotated[
        list[Day],
        Field(
            min_length=1,
            max_length=7,
            description="The days on which it opens, each of `mon`, `tue`, `wed`, `thu`, `fri`, `sat`, `sun`.",
            examples=[["mon", "tue"]],
        ),
    ]
    opens: Annotated[
        WallTime,
        AfterValidator(_starting_time),
        Field(
            alias="from",
            pattern="^([01][0-9]|2[0-3]):[0-5][0-9]$",
            description="The local time at which it opens. In quotes: without them YAML reads 16:00 as a number.",
            examples=["08:00"],
        ),
    ]
    closes: Annotated[
        WallTime,
        Field(
            alias="to",
            pattern="^(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$",
            description='The local time at which it closes, up to `"24:00"`; on the next day if that is not later '
            "than `from`. In quotes.",
            examples=["16:00"],
        ),
    ]
    timezone: Annotated[
        str,
        AfterValidator(_known_zone),
        Field(description="Whose local time, by its name in the IANA database.", examples=["Europe/Amsterdam"]),
    ]


@dataclass(frozen=True, slots=True)
class _Span:
    """One opening of a window, in UTC: from `opens` on, and before `closes`."""

    opens: datetime
    closes: datetime


def is_open(windows: Sequence[Window], now: datetime) -> bool:
    """Return whether the app may write now, an aware moment. Without any window it always may."""
    return not windows or any(
        span.opens <= now < span.closes for window in windows for span in _spans(window, now, _LOOK_BACK)
    )


def next_opening(windows: Sequence[Window], now: datetime) -> datetime | None:
    """Return the moment, in UTC and later than now, at which the first window opens; None if the app may write now."""
    if is_open(windows, now):
        return None
    openings = (_next_opening(window, now) for window in windows)
    return min((opening for opening in openings if opening is not None), default=None)


def _next_opening(window: Window, now: datetime) -> datetime | None:
    """The days come in order, and so do the openings."""
    return next((span.opens for span in _spans(window, now, _LOOK_AHEAD) if now < span.opens < span.closes), None)


def _spans(window: Window, now: datetime, ahead: Iterable[int]) -> Iterator[_Span]:
    """Yield when a window opens and closes on the days around now."""
    zone = ZoneInfo(window.timezone)
    today = now.astimezone(zone).date()
    opens, closes = _minutes(window.opens), _minutes(window.closes)
    if closes <= opens:
        closes += _DAY_MINUTES
    for day in (today + timedelta(days=number) for number in ahead):
        if DAYS[day.weekday()] in window.days:
            yield _Span(_moment(zone, day, opens, last=False), _moment(zone, day, closes, last=True))


def _minutes(text: str) -> int:
    hours, minutes = text.split(":")
    return int(hours) * 60 + int(minutes)


def _moment(zone: ZoneInfo, day: date, minutes: int, *, last: bool) -> datetime:
    """Return the moment, in UTC, at which clocks in this zone show so many minutes after midnight.

    Source: PEP 495. Of a time that comes twice, `fold` names the first or the second; around a time that never comes
    it names the offsets before and after the gap.
    """
    wall = datetime.combine(day, time(), zone) + timedelta(minutes=minutes)
    first, second = wall.replace(fold=0), wall.replace(fold=1)
    before, after = first.utcoffset(), second.utcoffset()
    if before is not None and after is not None and after > before:
        return _end_of_gap(zone, second.astimezone(UTC), first.astimezone(UTC), after)
    return (second if last else first).astimezone(UTC)


def _end_of_gap(zone: ZoneInfo, before: datetime, after: datetime, offset: timedelta) -> datetime:
    """Return the first second at which the zone has this offset, between a moment before it and one that is not."""
    while after - before > _SECOND:
        middle = before + (after - before) // _SECOND // 2 * _SECOND
        if middle.astimezone(zone).utcoffset() == offset:
            after = middle
        else:
            before = middle
    return after
