"""NCRONTAB schedules: six fields, seconds first; day and weekday must both match; times are UTC.

Source: Functions docs, functions-bindings-timer, "NCRONTAB expressions".
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from croniter import CroniterBadDateError, CroniterError, croniter

from local.host.errors import HostError

_TIME_SPAN = re.compile(r"(\d+\.)?\d{1,2}:\d{2}(:\d{2}(\.\d+)?)?")
_ITEM = re.compile(r"(?:(?P<any>\*)|(?P<first>\w+)(?:-(?P<last>\w+))?)(?:/\d+)?")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_MONITORED_FROM = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    least: int
    most: int
    names: dict[str, int]


_FIELDS = (
    _Field("second", 0, 59, {}),
    _Field("minute", 0, 59, {}),
    _Field("hour", 0, 23, {}),
    _Field("day", 1, 31, {}),
    _Field("month", 1, 12, {name: number for number, name in enumerate(_MONTHS, start=1)}),
    _Field("weekday", 0, 6, {name: number for number, name in enumerate(_WEEKDAYS)}),
)


@dataclass(frozen=True, slots=True)
class Schedule:
    """A schedule that is known to be well-formed."""

    expression: str

    @classmethod
    def parse(cls, text: str) -> Schedule:
        """Read an NCRONTAB expression of six fields, or five with seconds 0. HostError says what is wrong with it."""
        if _TIME_SPAN.fullmatch(text.strip()):
            raise HostError(
                f"schedule {text!r} is a TimeSpan, which only an App Service plan has; write it as NCRONTAB"
            )
        fields = text.split()
        if len(fields) == len(_FIELDS) - 1:
            fields = ["0", *fields]
        if len(fields) != len(_FIELDS):
            raise HostError(f"schedule {text!r} has {len(fields)} fields; NCRONTAB has six, seconds first")
        for field, value in zip(_FIELDS, fields, strict=True):
            _check(field, value, text)
        schedule = cls(" ".join(fields))
        try:
            schedule.after(datetime.now(UTC))
        except CroniterError as error:
            raise HostError(f"schedule {text!r} is not NCRONTAB: {error}") from error
        return schedule

    def after(self, moment: datetime) -> datetime | None:
        """Return the first occurrence later than `moment`, or None if there is none (30 February)."""
        occurrences = croniter(self.expression, moment, second_at_beginning=True, day_or=False)
        try:
            found: datetime = occurrences.get_next(datetime)
        except CroniterBadDateError:
            return None
        return found

    def monitored(self, now: datetime) -> bool:
        """Whether the host would keep this schedule's status: not for occurrences less than a minute apart."""
        first = self.after(now)
        second = self.after(first) if first else None
        return first is None or second is None or second - first >= _MONITORED_FROM


def _check(field: _Field, value: str, text: str) -> None:
    """Refuse what croniter reads in its own way: `7` for Sunday, `5-5` for everything, `22-2`, `L`, `?`, `@daily`."""
    for item in value.split(","):
        match = _ITEM.fullmatch(item)
        if match is None:
            raise HostError(f"schedule {text!r}: {item!r} is not an NCRONTAB {field.name}")
        if match["any"]:
            continue
        first = _number(field, match["first"], text)
        if match["last"] is not None and _number(field, match["last"], text) <= first:
            raise HostError(f"schedule {text!r}: the range {item!r} does not run upwards")


def _number(field: _Field, word: str, text: str) -> int:
    number = int(word) if word.isdecimal() else field.names.get(word.lower())
    if number is None or not field.least <= number <= field.most:
        raise HostError(f"schedule {text!r}: {word!r} is not a {field.name} ({field.least} to {field.most})")
    return number
