"""What a caller may ask, and what each mistake is told."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone

import pytest

from shared import questions
from shared.errors import Malformed
from shared.keyrecords import Detection
from shared.keys import KeyId
from tests.builders import KEY_URL, VERSION

LONG = "9" * 10_000


def test_a_parameter_that_is_not_taken_is_named_with_those_that_are() -> None:
    with pytest.raises(Malformed, match=r"^unknown parameter 'limit': this list takes top, continuation$"):
        questions.only({"limit": "7"}, "top", "continuation")
    with pytest.raises(Malformed, match=r"^unknown parameter 'limit': there is none here$"):
        questions.only({"limit": "7"})


def test_the_key_of_the_function_may_stand_in_the_query() -> None:
    questions.only({"code": "secret", "top": "7"}, "top")


def test_a_name_or_a_value_without_end_is_cut_short_in_the_answer() -> None:
    with pytest.raises(Malformed) as name:
        questions.only({"x" * 10_000: ""})
    with pytest.raises(Malformed, match=r"^top has more than 2000 characters$"):
        questions.only({"top": LONG}, "top")

    assert len(str(name.value)) < 200


@pytest.mark.parametrize(("text", "expected"), [("1", 1), ("007", 7), ("1000", 1000)])
def test_how_many_rows_a_page_has(text: str, expected: int) -> None:
    assert questions.top({"top": text}) == expected


def test_a_page_has_a_hundred_rows_unless_somebody_says_otherwise() -> None:
    assert questions.top({}) == 100


@pytest.mark.parametrize("text", ["0", "1001", "-1", "ten", "", " 7", "1e2", "0x10", "\u0667", "²", LONG])
def test_what_is_no_number_of_rows(text: str) -> None:
    with pytest.raises(Malformed, match="top must be a whole number, 1 to 1000"):
        questions.top({"top": text})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("2026-03-02T09:00:00Z", datetime(2026, 3, 2, 9, tzinfo=UTC), id="utc"),
        pytest.param("2026-03-02T09:00:00.25+02:00", datetime(2026, 3, 2, 7, 0, 0, 250_000, UTC), id="a-zone"),
    ],
)
def test_a_moment_is_read_in_utc(text: str, expected: datetime) -> None:
    assert questions.moment({"since": text}, "since") == expected


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("2026-03-02T09:00:00", id="no-zone"),
        pytest.param("2026-03-02T09:00:00 02:00", id="a-plus-that-a-url-turned-into-a-blank"),
        pytest.param("2026-03-02", id="a-day"),
        pytest.param("yesterday", id="a-word"),
        pytest.param("", id="empty"),
        pytest.param("0001-01-01T00:00:00+14:00", id="before-all-time"),
        pytest.param("9999-12-31T23:59:59-14:00", id="after-all-time"),
        pytest.param("1601-01-01T00:00:00Z", id="before-what-a-table-holds"),
        pytest.param(LONG, id="long"),
    ],
)
def test_what_is_no_moment(text: str) -> None:
    with pytest.raises(Malformed, match="since must be a moment with its time zone"):
        questions.moment({"since": text}, "since")


@pytest.mark.parametrize(
    "text",
    [
        "2026-02-30",
        "2026-3-2",
        "20260302",
        "2026-W10-1",
        "",
        "1999-12-31",
        "2200-01-01",
        "9999-12-31",
        "٢٠٢٦-03-02",
        LONG,
    ],
)
def test_what_is_no_day(text: str) -> None:
    with pytest.raises(Malformed, match="day must be a day in UTC, like 2026-03-02"):
        questions.day({"day": text})


def test_a_day_is_read() -> None:
    assert questions.day({"day": "2026-03-02"}) == date(2026, 3, 2)


@pytest.mark.parametrize("text", ["", "True", "1", "yes", LONG])
def test_what_is_neither_true_nor_false(text: str) -> None:
    with pytest.raises(Malformed, match="untold must be true or false"):
        questions.flag({"untold": text}, "untold")


def test_true_and_false_are_read() -> None:
    assert questions.flag({"untold": "true"}, "untold") is True
    assert questions.flag({"untold": "false"}, "untold") is False


def test_a_word_is_one_of_its_vocabulary() -> None:
    assert questions.word({"how": "sweep"}, "how", Detection) is Detection.SWEEP
    with pytest.raises(Malformed, match=r"^'guess' is no how: it is one of baseline, event, sweep, order$"):
        questions.word({"how": "guess"}, "how", Detection)


@pytest.mark.parametrize("text", ["", "Decision", "a b", "-a", "é", "x' or 'a' eq 'a", "a" * 51, LONG])
def test_what_is_no_kind_of_activity(text: str) -> None:
    with pytest.raises(Malformed, match="kind must be a word"):
        questions.kind({"kind": text})


@pytest.mark.parametrize("url", [KEY_URL, f"{KEY_URL}/{VERSION}", KEY_URL.upper()])
def test_a_key_is_read_from_its_url(url: str) -> None:
    assert questions.key({"key": url}) == KeyId("kv-kms", "etcd")


@pytest.mark.parametrize("url", ["", "etcd", "https://evil.example/keys/etcd", LONG])
def test_what_is_no_key(url: str) -> None:
    with pytest.raises(Malformed, match="not a key of a vault"):
        questions.key({"key": url})


def test_a_key_and_a_vault_are_read_by_their_names() -> None:
    assert questions.key_named("KV-kms", "Etcd") == KeyId("kv-kms", "etcd")
    assert questions.vault({"vault": "KV-kms"}) == "kv-kms"


@pytest.mark.parametrize(
    ("vault", "name"),
    [
        pytest.param("kv", "etcd", id="short-vault"),
        pytest.param("kv-kms", "", id="no-name"),
        pytest.param("kv-kms", f"etcd/{VERSION}", id="a-version"),
        pytest.param("kv-kms.vault.azure.net:443/keys/x", "etcd", id="a-host"),
        pytest.param("kv-kms", "etcd?x", id="a-query"),
        pytest.param("kv|kms", "etcd", id="a-bar"),
        pytest.param("kv-kms", LONG, id="long"),
    ],
)
def test_what_is_no_key_s_name(vault: str, name: str) -> None:
    with pytest.raises(Malformed):
        questions.key_named(vault, name)


def test_nothing_is_asked_for_where_nothing_is_said() -> None:
    asked = (
        questions.moment({}, "since"),
        questions.day({}),
        questions.flag({}, "untold"),
        questions.word({}, "how", Detection),
        questions.kind({}),
        questions.key({}),
        questions.vault({}),
    )

    assert set(asked) == {None}


def test_a_moment_is_told_with_a_z() -> None:
    assert questions.told(datetime(2026, 3, 2, 9, 0, 0, 250_000, UTC)) == "2026-03-02T09:00:00.250000Z"
    assert questions.told(datetime(2026, 3, 2, 9, tzinfo=timezone(timedelta(0)))) == "2026-03-02T09:00:00Z"
    assert questions.told(None) is None
