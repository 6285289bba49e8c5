"""Builds the object graph, once, lazily, and closes it. No logic.

SDKs are imported where an adapter is built, so that a health call does not pay for them.
"""

from __future__ import annotations

import logging
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from azure.core.credentials_async import AsyncTokenCredential
    from azure.core.pipeline.transport import AsyncHttpTransport

    from shared.aks import Aks
    from shared.inspector import Inspector
    from shared.keyvault import KeyVault
    from shared.ledger import Ledger
    from shared.policy import PolicyInForce
    from shared.queues import Queues
    from shared.reconciler import Reconciler
    from shared.settings import Settings
    from shared.sweeper import Sweeper
    from shared.views import Views

log = logging.getLogger(__name__)

_ROOT = Path(__file__).resolve().parent.parent
_open: list[Any] = []


@cache
def settings() -> Settings:
    """The environment's settings."""
    from shared.settings import Settings

    return Settings.read()


@cache
def policy() -> PolicyInForce:
    """The policy document in force. A broken one is logged; the app runs on and writes nothing."""
    from shared.policy import PolicyInForce

    file = _ROOT / settings().policy_file
    try:
        in_force = PolicyInForce.read(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        in_force = PolicyInForce(None, (f"{settings().policy_file}: {type(error).__name__}",))
    for fault in in_force.faults:
        log.error("the policy document is broken, nothing is written: %s", fault)
    return in_force


@cache
def reconciler() -> Reconciler:
    """Looks at one cluster."""
    from shared.reconciler import Reconciler

    return Reconciler(policy(), aks(), ledger(), queues(), settings().look_again)


@cache
def inspector() -> Inspector:
    """Looks at one key."""
    from shared.inspector import Inspector

    return Inspector(aks(), keyvault(), ledger(), queues(), settings().subscriptions)


@cache
def sweeper() -> Sweeper:
    """Passes over the fleet."""
    from shared.sweeper import Sweeper

    return Sweeper(policy(), aks(), ledger(), queues(), settings().subscriptions)


@cache
def views() -> Views:
    """Answers questions."""
    from shared.views import Views

    return Views(ledger())


@cache
def aks() -> Aks:
    """Managed clusters."""
    from shared.aks import Aks

    return Aks(_credential(), _transport())


@cache
def keyvault() -> KeyVault:
    """Vaults and keys."""
    from shared.keyvault import KeyVault

    return KeyVault(_credential(), _transport())


@cache
def ledger() -> Ledger:
    """The tables. Their client retries broken connections, never a status: Retry-After would be slept through."""
    from azure.data.tables.aio import TableServiceClient

    from shared.ledger import Ledger

    service = TableServiceClient(settings().tables, credential=_credential(), retry_status=0)
    return Ledger(_opened(service))


@cache
def queues() -> Queues:
    """The app's own queues. Their client's own pauses, 15 s and more, would keep a worker waiting."""
    from azure.storage.queue.aio import QueueServiceClient

    from shared.queues import Queues

    patience: dict[str, Any] = {"initial_backoff": 1, "increment_base": 1, "random_jitter_range": 1, "retry_total": 2}
    return Queues(_opened(QueueServiceClient(settings().queues, credential=_credential(), **patience)))


async def close() -> None:
    """Close every connection that was opened. The next call builds anew."""
    while _open:
        await _open.pop().close()
    for built in (settings, policy, reconciler, inspector, sweeper, views, aks, keyvault, ledger, queues):
        built.cache_clear()
    _credential.cache_clear()
    _transport.cache_clear()


@cache
def _credential() -> AsyncTokenCredential:
    """The app's managed identity, and nothing else: no developer's sign-in is ever picked up by accident."""
    from azure.identity.aio import ManagedIdentityCredential

    return _opened(ManagedIdentityCredential(client_id=settings().client_id))


@cache
def _transport() -> AsyncHttpTransport[Any, Any]:
    """One pool of connections for all ARM clients."""
    from azure.core.pipeline.transport import AioHttpTransport

    return _opened(AioHttpTransport())


def _opened[T](closable: T) -> T:
    _open.append(closable)
    return closable
