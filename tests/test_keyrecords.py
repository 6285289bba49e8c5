"""What the ledger remembers of keys: each version once, with how it was detected."""

from __future__ import annotations

import pytest

from shared.keyrecords import Detection, KnownKey, Rotation, detected
from shared.keys import KeyVersion
from tests.builders import (
    KEY,
    MINUTE,
    NOW,
    OTHER_VERSION,
    VAULT_ID,
    VERSION,
    key_version,
    rotation,
)


def known(*names: str, seen: bool = True) -> KnownKey:
    """A key with these versions in the ledger; `seen` says whether its vault was ever read."""
    return KnownKey(KEY, VAULT_ID if seen else None, tuple(map(rotation, names)))


def how(rotations: tuple[Rotation, ...]) -> dict[str, Detection]:
    return {one.version.version: one.how for one in rotations}


THIRD_VERSION = "3" * 32


@pytest.mark.parametrize(
    ("before", "versions", "announced", "expected"),
    [
        pytest.param(
            known(seen=False),
            (VERSION, OTHER_VERSION),
            None,
            {VERSION: Detection.BASELINE, OTHER_VERSION: Detection.BASELINE},
            id="at-first-sight-all-is-baseline",
        ),
        pytest.param(
            known(seen=False),
            (VERSION, OTHER_VERSION),
            OTHER_VERSION,
            {VERSION: Detection.BASELINE, OTHER_VERSION: Detection.EVENT},
            id="at-first-sight-but-for-the-announced-one",
        ),
        pytest.param(known(seen=False), (), VERSION, {VERSION: Detection.EVENT}, id="a-vault-that-can-not-be-read"),
        pytest.param(
            known(VERSION, seen=False),
            (VERSION, OTHER_VERSION),
            None,
            {OTHER_VERSION: Detection.BASELINE},
            id="announced-before-the-vault-could-be-read",
        ),
        pytest.param(
            known(VERSION), (OTHER_VERSION,), None, {OTHER_VERSION: Detection.SWEEP}, id="no-event-announced-it"
        ),
        pytest.param(
            known(VERSION),
            (OTHER_VERSION,),
            OTHER_VERSION,
            {OTHER_VERSION: Detection.EVENT},
            id="an-event-announced-it",
        ),
        pytest.param(
            known(VERSION),
            (OTHER_VERSION, THIRD_VERSION),
            THIRD_VERSION,
            {OTHER_VERSION: Detection.SWEEP, THIRD_VERSION: Detection.EVENT},
            id="the-event-before-it-was-lost",
        ),
        pytest.param(
            known(VERSION), (), OTHER_VERSION, {OTHER_VERSION: Detection.EVENT}, id="the-vault-does-not-show-it-yet"
        ),
        pytest.param(known(VERSION), (VERSION,), VERSION, {}, id="delivered-twice"),
        pytest.param(known(VERSION), (), None, {}, id="nothing-new"),
        pytest.param(known(), (), None, {}, id="a-key-without-versions"),
    ],
)
def test_new_versions_are_detected_each_once(
    before: KnownKey, versions: tuple[str, ...], announced: str | None, expected: dict[str, Detection]
) -> None:
    found = detected(before, tuple(map(key_version, versions)), announced, "event-1", NOW)

    assert how(found) == expected


def test_what_is_detected_is_known_the_next_time() -> None:
    versions = (key_version(VERSION), key_version(OTHER_VERSION))
    first = detected(known(seen=False), versions, VERSION, "event-1", NOW)

    second = detected(KnownKey(KEY, VAULT_ID, first), versions, VERSION, "event-1", NOW)

    assert second == ()


def test_versions_are_told_in_the_order_in_which_they_were_made() -> None:
    versions = (key_version("c" * 32, created=NOW - MINUTE), key_version("a" * 32), key_version("b" * 32, created=None))

    found = detected(known(), versions, None, None, NOW)

    assert [one.version.version for one in found] == ["c" * 32, "a" * 32, "b" * 32]


def test_a_detected_version_says_when_it_was_made_and_which_event_announced_it() -> None:
    versions = (key_version(VERSION), key_version(OTHER_VERSION))

    baseline, announced = sorted(
        detected(known(seen=False), versions, OTHER_VERSION, "event-1", NOW), key=lambda one: one.how
    )

    assert baseline == Rotation(KEY, key_version(VERSION), Detection.BASELINE, NOW, None, fanned_out_at=NOW)
    assert announced == Rotation(KEY, key_version(OTHER_VERSION), Detection.EVENT, NOW, "event-1", fanned_out_at=None)


def test_a_version_that_the_vault_does_not_show_is_logged_by_its_name_alone() -> None:
    (found,) = detected(known(), (), VERSION, "event-1", NOW)

    assert found.version == KeyVersion(VERSION)


def test_what_a_sweep_finds_names_no_event() -> None:
    (found,) = detected(known(), (key_version(),), None, "event-1", NOW)

    assert (found.how, found.event_id, found.fanned_out_at) == (Detection.SWEEP, None, None)
