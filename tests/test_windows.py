"""When the app may write: in five time zones over a year, and around the days on which clocks are changed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.policy import PolicyInForce, Window, is_open, next_opening
from shared.policy.windows import DAYS
from tests.builders import NOW, PROPERTY, SMALLEST_POLICY, cluster, policy

AMSTERDAM, NEW_YORK, LORD_HOWE, APIA = "Europe/Amsterdam", "America/New_York", "Australia/Lord_Howe", "Pacific/Apia"
ALWAYS = list(DAYS)
INSTANT = timedelta(microseconds=1)


def window(days: str | list[str], opens: str, closes: str, timezone: str = AMSTERDAM) -> Window:
    """A window as the document writes it; `days` may be one text, with blanks between."""
    named = days.split() if isinstance(days, str) else days
    return Window.model_validate({"days": named, "from": opens, "to": closes, "timezone": timezone})


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


# over a year


def clock_says_open(days: str, opens: str, closes: str, local: datetime) -> bool:
    """What somebody sees who looks at a clock and a calendar in that place, and knows nothing of time zones."""
    today, yesterday = DAYS[local.weekday()] in days, DAYS[local.weekday() - 1] in days
    shown = f"{local:%H:%M}"
    if opens < closes:
        return today and opens <= shown < closes
    return (today and shown >= opens) or (yesterday and shown < closes)


@pytest.mark.parametrize(
    ("days", "opens", "closes"),
    [
        pytest.param("mon tue wed thu", "08:00", "16:00", id="by-day"),
        pytest.param("fri sat", "22:00", "06:00", id="across-midnight"),
        pytest.param("sun", "00:00", "24:00", id="a-whole-sunday"),
        pytest.param("sat", "12:00", "12:00", id="a-whole-day-from-noon-on"),
    ],
)
@pytest.mark.parametrize(
    ("timezone", "year"),
    [
        pytest.param(AMSTERDAM, 2026, id="Amsterdam"),
        pytest.param(NEW_YORK, 2026, id="New-York"),
        pytest.param("Asia/Kolkata", 2026, id="Kolkata-no-daylight-saving"),
        pytest.param(LORD_HOWE, 2026, id="Lord-Howe-half-an-hour"),
        pytest.param(APIA, 2011, id="Apia-skips-a-day"),
        pytest.param("America/Sao_Paulo", 2018, id="Sao-Paulo-changes-at-midnight"),
    ],
)
def test_a_window_is_open_when_a_clock_on_the_wall_says_so(
    timezone: str, year: int, days: str, opens: str, closes: str
) -> None:
    """Every half hour of a year. None of these windows opens or closes at a time that comes twice."""
    windows, zone = [window(days, opens, closes, timezone)], ZoneInfo(timezone)
    moments = [datetime(year, 1, 1, tzinfo=UTC) + number * timedelta(minutes=30) for number in range(365 * 48)]

    wrong = [
        moment
        for moment in moments
        if is_open(windows, moment) is not clock_says_open(days, opens, closes, moment.astimezone(zone))
    ]

    assert wrong == []


# around the days on which clocks are changed


@pytest.mark.parametrize(
    ("one", "opens", "closes"),
    [
        pytest.param(window("sun", "02:30", "05:00"), "2026-03-29T01:00", "2026-03-29T03:00", id="opens-in-the-gap"),
        pytest.param(window("sun", "01:00", "02:30"), "2026-03-29T00:00", "2026-03-29T01:00", id="closes-in-the-gap"),
        pytest.param(window("sun", "01:00", "04:00"), "2026-03-29T00:00", "2026-03-29T02:00", id="around-the-gap"),
        pytest.param(window("sat", "22:00", "06:00"), "2026-03-28T21:00", "2026-03-29T04:00", id="a-shorter-night"),
        pytest.param(window("sun", "02:30", "05:00"), "2026-10-25T00:30", "2026-10-25T04:00", id="opens-at-the-first"),
        pytest.param(window("sun", "01:00", "02:30"), "2026-10-24T23:00", "2026-10-25T01:30", id="closes-at-the-last"),
        pytest.param(
            window("sun", "02:15", "02:45"), "2026-10-25T00:15", "2026-10-25T01:45", id="within-what-is-twice"
        ),
        pytest.param(window("sat", "22:00", "06:00"), "2026-10-24T20:00", "2026-10-25T05:00", id="a-longer-night"),
        pytest.param(window("sun", "00:00", "24:00"), "2026-10-24T22:00", "2026-10-25T23:00", id="25-hours"),
        pytest.param(
            window("sun", "02:15", "05:00", LORD_HOWE), "2026-10-03T15:30", "2026-10-03T18:00", id="half-an-hours-gap"
        ),
        pytest.param(
            window("sun", "01:45", "05:00", LORD_HOWE), "2026-04-04T14:45", "2026-04-04T18:30", id="half-an-hour-twice"
        ),
        pytest.param(
            window("sun", "00:00", "04:00", "America/Sao_Paulo"),
            "2018-11-04T03:00",
            "2018-11-04T06:00",
            id="a-day-that-begins-at-one",
        ),
        pytest.param(
            window("fri", "22:00", "06:00", APIA), "2011-12-30T10:00", "2011-12-30T16:00", id="a-day-that-never-was"
        ),
        pytest.param(window("sun", "02:30", "05:00", NEW_YORK), "2026-03-08T07:00", "2026-03-08T09:00", id="New-York"),
    ],
)
def test_a_window_opens_and_closes_on_a_day_on_which_clocks_are_changed(one: Window, opens: str, closes: str) -> None:
    before, opening, closing = utc(opens) - INSTANT, utc(opens), utc(closes)

    assert not is_open([one], before)
    assert next_opening([one], before) == opening
    assert is_open([one], opening)
    assert is_open([one], closing - INSTANT)
    assert not is_open([one], closing)


def test_a_window_that_a_gap_swallows_opens_a_week_later() -> None:
    swallowed = [window("sun", "02:10", "02:40")]

    assert not is_open(swallowed, utc("2026-03-29T01:00"))
    assert next_opening(swallowed, utc("2026-03-28T12:00")) == utc("2026-04-05T00:10")


def test_a_window_of_a_day_that_is_skipped_opens_a_week_later() -> None:
    """Samoa had no 30 December 2011."""
    fridays = [window("fri", "08:00", "16:00", APIA)]

    assert next_opening(fridays, utc("2011-12-29T12:00")) == utc("2012-01-05T18:00")


# several, and none


def test_without_a_window_the_app_may_always_write() -> None:
    assert is_open([], NOW)
    assert next_opening([], NOW) is None


def test_the_first_of_several_windows_counts() -> None:
    windows = [window("wed", "08:00", "16:00"), window("tue", "22:00", "23:00", NEW_YORK)]

    assert next_opening(windows, utc("2026-03-02T09:00")) == utc("2026-03-04T03:00")
    assert next_opening(windows, utc("2026-03-04T03:30")) is None
    assert next_opening(windows, utc("2026-03-04T04:00")) == utc("2026-03-04T07:00")


def test_windows_that_meet_have_no_moment_between_them() -> None:
    windows = [window("mon", "08:00", "24:00"), window("tue", "00:00", "08:00")]

    assert next_opening(windows, utc("2026-03-02T06:59")) == utc("2026-03-02T07:00")
    assert is_open(windows, utc("2026-03-02T23:00") - INSTANT)
    assert is_open(windows, utc("2026-03-02T23:00"))


def test_a_moment_may_be_given_in_any_zone() -> None:
    moment = utc("2026-03-02T12:00")

    assert next_opening([window("wed", "08:00", "16:00")], moment) == next_opening(
        [window("wed", "08:00", "16:00")], moment.astimezone(ZoneInfo("Asia/Kolkata"))
    )


@PROPERTY
@given(
    st.lists(
        st.builds(
            window,
            st.lists(st.sampled_from(DAYS), min_size=1, max_size=7),
            st.times().map(lambda one: f"{one:%H:%M}"),
            st.times().map(lambda one: f"{one:%H:%M}") | st.just("24:00"),
            st.sampled_from([AMSTERDAM, NEW_YORK, "Asia/Kolkata", LORD_HOWE, APIA, "America/Sao_Paulo"]),
        ),
        min_size=1,
        max_size=3,
    ),
    st.datetimes(datetime(2010, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001  given beside
)
def test_the_next_opening_is_later_and_open_and_nothing_is_open_before_it(windows: list[Window], now: datetime) -> None:
    opening = next_opening(windows, now)

    assert (opening is None) is is_open(windows, now)
    if opening is not None:
        assert opening > now
        assert opening.tzinfo is UTC
        assert is_open(windows, opening)
        assert not is_open(windows, opening - INSTANT)
        assert next_opening(windows, opening - INSTANT) == opening


# the document


WINDOW = '{days: [mon, tue], from: "08:00", to: "16:00", timezone: Europe/Amsterdam}'


def faults_of(text: str) -> tuple[str, ...]:
    return PolicyInForce.read(f"windows: [{text}]\n{SMALLEST_POLICY}").faults


def test_a_window_is_part_of_what_is_asked() -> None:
    in_force = policy(f"windows: [{WINDOW}]\n{SMALLEST_POLICY}")

    asked = in_force.assignment(cluster(), NOW)
    asked_by_night = in_force.assignment(cluster(), NOW + timedelta(hours=12))

    assert asked.window_opens is None
    assert asked_by_night.window_opens == utc("2026-03-03T07:00")


def test_no_window_is_open_all_the_time() -> None:
    assert policy().assignment(cluster(), NOW).window_opens is None


@pytest.mark.parametrize(
    ("written", "instead", "fault"),
    [
        pytest.param('"08:00"', "16:00", "windows.0.from: YAML reads 16:00 without quotes as the number 960", id="960"),
        pytest.param('"08:00"', "8:00", 'the number 480: write "08:00", in quotes', id="480"),
        pytest.param('"08:00"', '"8:00"', "windows.0.from: write hours and minutes with two digits", id="one-digit"),
        pytest.param('"08:00"', '"24:00"', "windows.0.from: only `to` may be", id="opens-at-24"),
        pytest.param('"16:00"', '"24:01"', "windows.0.to: write hours", id="after-24"),
        pytest.param('"16:00"', '"16:60"', "windows.0.to: write hours", id="sixty-minutes"),
        pytest.param('"16:00"', '"16:00\\n"', "windows.0.to: write hours", id="a-newline"),
        pytest.param('"16:00"', '"\\u0661\\u0666:00"', "windows.0.to: write hours", id="other-digits"),
        pytest.param('"16:00"', "yes", "windows.0.to: write hours", id="a-boolean"),
        pytest.param('"16:00"', "99999", "windows.0.to: write hours", id="a-number"),
        pytest.param("[mon, tue]", "[]", "windows.0.days: must not be empty", id="no-days"),
        pytest.param("[mon, tue]", "mon", "windows.0.days: 'mon' is no list", id="one-day"),
        pytest.param("tue", "no", "windows.0.days.1: false is not one of mon, tue", id="no-is-false-in-yaml"),
        pytest.param("tue", "tues", "did you mean tue?", id="near-a-day"),
        pytest.param("Europe/Amsterdam", "Europe/Amsterdm", "did you mean Europe/Amsterdam?", id="near-a-zone"),
        pytest.param("Europe/Amsterdam", "europe/amsterdam", "did you mean Europe/Amsterdam?", id="another-casing"),
        pytest.param("Europe/Amsterdam", "Mars/Olympus", "is not a time zone", id="unknown-zone"),
        pytest.param("Europe/Amsterdam", "Europe", "is not a time zone", id="a-folder"),
        pytest.param("Europe/Amsterdam", "../../etc/passwd", "is not a time zone", id="a-path"),
        pytest.param("Europe/Amsterdam", "'+01:00'", "is not a time zone", id="an-offset"),
        pytest.param(", timezone: Europe/Amsterdam", "", "windows.0.timezone: is missing", id="no-zone"),
        pytest.param("from:", "opens:", "windows.0.from: is missing", id="the-field-by-pythons-name"),
    ],
)
def test_a_window_that_can_not_be_read_says_what_to_write(written: str, instead: str, fault: str) -> None:
    assert WINDOW.count(written) == 1

    found = faults_of(WINDOW.replace(written, instead))

    assert any(fault in one for one in found), found


def test_the_window_that_the_others_are_made_of_has_no_faults() -> None:
    assert faults_of(WINDOW) == ()
