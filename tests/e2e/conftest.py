"""The app, set up for one test."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.app import ENFORCE, App, app_on
from tests.e2e.gateway import Gateway, gateway_to

if TYPE_CHECKING:
    from local.certificates import Authority
    from local.simulator import Azure, Simulator
    from local.storage import Account

type Prepare = Callable[..., App]


@pytest.fixture
def gateways() -> Iterator[ExitStack]:
    """The gateways of a test. They outlive its host, which else would wait for its storage while it ends."""
    with ExitStack() as opened:
        yield opened


@pytest.fixture
def table_gateway(gateways: ExitStack, account: Account, authority: Authority) -> Gateway:
    """What a test can put between the app and its tables."""
    return gateways.enter_context(gateway_to(account.table_uri, authority))


@pytest.fixture
def queue_gateway(gateways: ExitStack, account: Account, authority: Authority) -> Gateway:
    """What a test can put between the app and its queues."""
    return gateways.enter_context(gateway_to(account.queue_uri, authority))


@pytest.fixture
def prepare(
    gateways: ExitStack,  # noqa: ARG001  closed after the hosts
    simulator: Simulator,
    azure: Azure,  # noqa: ARG001  each app gets a fresh one, and it has to outlive the host
    account: Account,
    authority: Authority,
    tmp_path: Path,
) -> Iterator[Prepare]:
    """Set up an app with a policy and settings of the test's own; the test starts it."""
    with ExitStack() as apps:

        def prepared(*, policy: str = ENFORCE, settings: Mapping[str, str] | None = None) -> App:
            app = app_on(simulator, account, authority, tmp_path, policy=policy, settings=settings)
            return apps.enter_context(app)

        yield prepared


@pytest.fixture
def app(prepare: Prepare) -> App:
    """The app with a policy that enforces platform-managed keys; the test starts it."""
    return prepare()
