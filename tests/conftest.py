"""One simulated Azure for the whole run, fresh state for each test."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from local.certificates import Authority

if TYPE_CHECKING:
    from collections.abc import Iterator

    from local.simulator import Azure, Simulator
    from local.storage import Account, Storage

# aiohttp reads the certificate authorities when it is imported: imported before this line, it trusts the wrong ones.
assert "aiohttp" not in sys.modules, "a plugin or a module imported aiohttp before tests/conftest.py"
_directory = tempfile.TemporaryDirectory(prefix="simulated-azure-")
AUTHORITY = Authority.create(Path(_directory.name))
os.environ["SSL_CERT_FILE"] = str(AUTHORITY.ca_file)


def _started() -> Simulator:
    from local.simulator import Simulator

    simulator = Simulator(AUTHORITY).start()
    os.environ.update(simulator.environment())
    return simulator


_simulator = _started()


def pytest_unconfigure() -> None:
    """Take the simulated Azure down after the last test."""
    _simulator.stop()
    _directory.cleanup()


@pytest.fixture(scope="session")
def authority() -> Authority:
    """The certificate authority that this process trusts."""
    return AUTHORITY


@pytest.fixture(scope="session")
def simulator() -> Simulator:
    """The server of the simulated Azure; its `environment()` is already in this process."""
    return _simulator


@pytest.fixture
def azure(simulator: Simulator) -> Iterator[Azure]:
    """A fresh simulated Azure. A call that it does not know fails the test."""
    from local.simulator import Azure

    simulator.azure = Azure()
    yield simulator.azure
    unknown = [f"{call.method} https://{call.host}{call.path}" for call in simulator.azure.journal.unknown]
    assert not unknown, f"calls that the simulated Azure does not know: {unknown}"


@pytest.fixture(scope="session")
def storage() -> Iterator[Storage]:
    """Azurite, once for the whole run."""
    from local.storage import Storage

    with Storage(AUTHORITY) as started:
        yield started


@pytest.fixture
def account(storage: Storage) -> Account:
    """A storage account of the test's own, with the tables and queues that a deployment makes."""
    from local.stage import provide

    fresh = storage.account()
    provide(fresh, AUTHORITY)
    return fresh
