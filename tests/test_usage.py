"""What a look at one cluster reads of the key that it shares with many."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import timedelta
from typing import NoReturn, cast

import pytest

from local.simulator import Azure
from local.storage import Account
from shared.clusters import Cluster, ClusterId
from shared.keyledger import KeyLedger
from shared.keyrecords import Detection, KnownKey, Rotation
from shared.keys import KeyId, KeyVersion
from shared.queues import Queues
from shared.rotation import Adoption, How, KeyUser, Succession, user_of
from shared.usage import Usage
from tests.builders import (
    CLUSTER_ID,
    KEY,
    LEGACY,
    NOW,
    OTHER_VERSION,
    RESOURCE_UID,
    VERSION,
    cluster,
    policy,
)
from tests.legacy import Scene, set_scene
from tests.legacy import policy as legacy_policy
from tests.product import product

DAY = timedelta(days=1)
NAMED = cluster(security=LEGACY)


class OneCluster:
    """A key that so many clusters use that nobody should read them all, and what is known of one of them."""

    def __init__(self, user: KeyUser | None, adoptions: Sequence[Adoption], known: KnownKey) -> None:
        self._user, self._adoptions, self._known = user, adoptions, known

    async def users(self, key: KeyId) -> NoReturn:
        raise AssertionError(f"all users of {key} were read for one")

    async def adoptions(self, key: KeyId) -> NoReturn:
        raise AssertionError(f"all adoptions of {key} were read for one")

    async def user(self, _key: KeyId, _cluster: ClusterId, _uid: str) -> KeyUser | None:
        return self._user

    async def adoption(self, _key: KeyId, version: str, name: ClusterId, uid: str) -> Adoption | None:
        found = (one for one in self._adoptions if (one.version, one.cluster, one.resource_uid) == (version, name, uid))
        return next(found, None)

    async def key(self, _key: KeyId) -> KnownKey:
        return self._known


def usage(user: KeyUser | None, adoptions: Sequence[Adoption], versions: Sequence[KeyVersion]) -> Usage:
    known = KnownKey(KEY, rotations=tuple(Rotation(KEY, one, Detection.SWEEP, NOW) for one in versions))
    ledger = cast("KeyLedger", OneCluster(user, adoptions, known))
    return Usage(policy(), ledger, cast("Queues", None))


VERSIONS = (KeyVersion(VERSION, True, NOW - 2 * DAY), KeyVersion(OTHER_VERSION, True, NOW - DAY))
TAKEN = Adoption(VERSION, CLUSTER_ID, RESOURCE_UID, How.UPDATED, NOW - 2 * DAY, effective_at=NOW - 2 * DAY)
LEFT = replace(TAKEN, version=OTHER_VERSION, since=NOW - DAY, effective_at=NOW - DAY)


async def test_a_look_reads_what_is_known_of_its_own_cluster_and_of_no_other() -> None:
    user = user_of(NAMED, begun_before=True, now=NOW - 2 * DAY)
    assert user is not None

    rewritten = await usage(replace(user, rewritten_at=NOW), [TAKEN], VERSIONS).succession(NAMED, now=NOW)
    not_rewritten = await usage(user, [TAKEN], VERSIONS).succession(NAMED, now=NOW)
    taken_back = await usage(user, [TAKEN, LEFT], VERSIONS).succession(NAMED, now=NOW)

    since = TAKEN.effective_at
    assert rewritten == Succession(OTHER_VERSION, rewritten=True, counts_from=since)
    assert not_rewritten == Succession(OTHER_VERSION, rewritten=False, counts_from=since)
    assert taken_back == Succession(OTHER_VERSION, rewritten=False, taken_back_at=TAKEN.since, counts_from=since)
    assert await usage(None, [], VERSIONS).succession(NAMED, now=NOW) is None
    assert await usage(user, [TAKEN], ()).succession(NAMED, now=NOW) is None


@pytest.fixture
async def opened() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


async def test_a_look_and_a_sweep_agree_on_what_may_come_next(
    azure: Azure, account: Account, opened: AsyncExitStack
) -> None:
    on = await set_scene(await opened.enter_async_context(product(account, legacy_policy("update"))), azure)
    await on.confirm()
    found = [await agreed(on)]
    await on.rotated()
    found.append(await agreed(on))
    await on.look()
    found.append(await agreed(on))
    await on.look_on()
    await on.rotated()
    found.append(await agreed(on))

    assert [(one.newest is not None, one.rewritten) for one in found] == [
        (False, True),
        (True, True),
        (False, False),
        (True, False),
    ]


async def agreed(on: Scene) -> Succession:
    """What may come after the version that the cluster names, as both a look and a sweep find it."""
    shown = await on.app.aks.get(on.id)
    assert isinstance(shown, Cluster)
    one = on.app.reconciler.usage

    alone, among_all = await one.succession(shown, now=on.now), await one.succession(shown, now=on.now, shared={})

    assert alone is not None
    assert alone == among_all
    return alone
