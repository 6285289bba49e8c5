"""Builds the object graph, once, lazily, and closes it. No logic.

SDKs are imported where an adapter is built, so that a call pays only for those that it needs.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.telemetry import Line, logger, saying

if TYPE_CHECKING:
    from azure.core.credentials_async import AsyncTokenCredential
    from azure.core.pipeline.transport import AsyncHttpTransport

    from shared.access import Roles
    from shared.aks import Aks
    from shared.announcements import Announcements
    from shared.evidence import Evidence
    from shared.identities import Identities
    from shared.inspector import Inspector
    from shared.keydata import KeyData
    from shared.keyledger import KeyLedger
    from shared.keyvault import KeyVault
    from shared.keyviews import KeyViews
    from shared.ledger import Ledger
    from shared.notices import Notices
    from shared.pauses import Pauses
    from shared.policy import PolicyInForce
    from shared.preparer import Preparer
    from shared.queues import Queues
    from shared.reconciler import Reconciler
    from shared.recorder import Recorder
    from shared.rewriter import Rewriter
    from shared.rotator import Rotator
    from shared.settings import Settings
    from shared.surveyor import Surveyor
    from shared.sweeper import Sweeper
    from shared.tables import Tables
    from shared.usage import Usage
    from shared.vaultdoor import VaultDoor
    from shared.views import Views

log = logger(__name__)

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

    given = settings()
    try:
        text = (_ROOT / given.policy_file).read_text(encoding="utf-8")
        in_force = PolicyInForce.read(
            text, given.second_role, run_command=given.run_command, subscriptions=given.subscriptions
        )
    except (OSError, UnicodeDecodeError) as error:
        wrong = f"{given.policy_file}: can't be read ({type(error).__name__})"
        in_force = PolicyInForce(None, (f"{wrong}: let POLICY_FILE name a file in UTF-8, deployed with the app",))
    for fault in in_force.faults:
        message = "the policy document is broken, nothing is written: %s"
        log.error(message, fault, extra=saying(Line.POLICY_BROKEN, fault=fault))
    return in_force


@cache
def reconciler() -> Reconciler:
    """Looks at one cluster."""
    from shared.keysinuse import KeysInUse
    from shared.reconciler import Reconciler

    return Reconciler(
        policy(),
        aks(),
        surveyor(),
        preparer(),
        rewriter(),
        ledger(),
        recorder(),
        pauses(),
        usage(),
        KeysInUse(usage(), surveyor()),
        queues(),
        settings().look_again,
    )


@cache
def inspector() -> Inspector:
    """Looks at one key."""
    from shared.inspector import Inspector

    return Inspector(
        policy(),
        aks(),
        keyvault(),
        keydata(),
        announcements(),
        roles(),
        ledger(),
        key_ledger(),
        recorder(),
        queues(),
        settings().subscriptions,
        evidence(),
    )


@cache
def rotator() -> Rotator:
    """Carries out orders about rotations."""
    from shared.rotator import Rotator

    return Rotator(policy(), aks(), keyvault(), _vault_door(), ledger(), key_ledger(), queues())


@cache
def sweeper() -> Sweeper:
    """Passes over the fleet."""
    from shared.sweeper import Sweeper

    return Sweeper(policy(), aks(), ledger(), recorder(), usage(), pauses(), queues(), settings().subscriptions)


@cache
def views() -> Views:
    """Answers questions."""
    from shared.views import Views

    return Views(ledger())


@cache
def key_views() -> KeyViews:
    """Answers questions about keys."""
    from shared.keyviews import KeyViews

    return KeyViews(key_ledger())


@cache
def aks() -> Aks:
    """Managed clusters."""
    from shared.aks import Aks

    return Aks(_credential(), _transport(), features=settings().custom_features)


@cache
def keyvault() -> KeyVault:
    """Vaults and keys."""
    from shared.keyvault import KeyVault

    return KeyVault(_credential(), _transport())


@cache
def keydata() -> KeyData:
    """Asks vaults that let the app in."""
    from shared.keydata import KeyData

    return KeyData(_vault_door(), key_ledger())


@cache
def _vault_door() -> VaultDoor:
    """The data plane of vaults."""
    from shared.vaultdoor import VaultDoor

    return VaultDoor(_credential(), _transport())


@cache
def surveyor() -> Surveyor:
    """Looks at vaults, keys and roles for the clusters that share them."""
    from shared.surveyor import Surveyor

    return Surveyor(aks(), keyvault(), keydata(), roles(), identities())


@cache
def preparer() -> Preparer:
    """Puts in place what a customer-managed key needs."""
    from shared.preparer import Preparer

    return Preparer(keyvault(), identities(), roles())


@cache
def rewriter() -> Rewriter:
    """Rewrites the secrets of legacy clusters."""
    from shared.rewriter import Rewriter

    return Rewriter(aks(), key_ledger())


@cache
def roles() -> Roles:
    """Role assignments and definitions."""
    from shared.access import Roles

    return Roles(_credential(), _transport())


@cache
def announcements() -> Announcements:
    """Event subscriptions."""
    from shared.announcements import Announcements

    return Announcements(_credential(), _transport())


@cache
def evidence() -> Evidence | None:
    """The vaults' logs, if the settings say where they are."""
    workspaces = settings().log_workspaces
    if not workspaces:
        return None
    from shared.evidence import Evidence

    return Evidence(_credential(), _transport(), workspaces)


@cache
def identities() -> Identities:
    """User-assigned identities."""
    from shared.identities import Identities

    return Identities(_credential(), _transport())


@cache
def ledger() -> Ledger:
    """The tables of clusters, limits, activity and runs."""
    from shared.ledger import Ledger

    return Ledger(_tables())


@cache
def key_ledger() -> KeyLedger:
    """The tables of keys."""
    from shared.keyledger import KeyLedger

    return KeyLedger(_tables())


@cache
def usage() -> Usage:
    """Which cluster uses which key."""
    from shared.usage import Usage

    return Usage(policy(), key_ledger(), queues())


@cache
def _tables() -> Tables:
    """Table Storage. Its client retries broken connections, never a status: Retry-After would be slept through."""
    from azure.data.tables.aio import TableServiceClient

    from shared.tables import Tables

    return Tables(_opened(TableServiceClient(settings().tables, credential=_credential(), retry_status=0)))


@cache
def recorder() -> Recorder:
    """Writes what a look found, and tells of it."""
    from shared.recorder import Recorder

    return Recorder(ledger(), notices())


@cache
def pauses() -> Pauses:
    """Counts failures, pauses and resumes."""
    from shared.pauses import Pauses

    return Pauses(ledger(), notices())


@cache
def notices() -> Notices | None:
    """The topic for outcomes, if one is configured. One that is out of reach must not keep a look waiting."""
    topic = settings().notices_topic
    if topic is None:
        return None
    from azure.eventgrid.aio import EventGridPublisherClient

    from shared.notices import Notices

    client = EventGridPublisherClient(topic, _credential(), retry_total=0, connection_timeout=5, read_timeout=10)
    return Notices(_opened(client))


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
    for built in _BUILT:
        built.cache_clear()


@cache
def _credential() -> AsyncTokenCredential:
    """The app's managed identity, and nothing else: no developer's sign-in is ever picked up by accident."""
    from azure.identity.aio import ManagedIdentityCredential

    return _opened(ManagedIdentityCredential(client_id=settings().client_id))


@cache
def _transport() -> AsyncHttpTransport[Any, Any]:
    """One pool of connections for all ARM clients. The SDKs' own patience, 300 s, is longer than a function may run."""
    from azure.core.pipeline.transport import AioHttpTransport

    return _opened(AioHttpTransport(connection_timeout=10, read_timeout=60))


def _opened[T](closable: T) -> T:
    _open.append(closable)
    return closable


_BUILT = (
    *(settings, policy, reconciler, inspector, rotator, sweeper, views, key_views),
    *(
        aks,
        keyvault,
        keydata,
        surveyor,
        preparer,
        rewriter,
        roles,
        identities,
        announcements,
        evidence,
        ledger,
        key_ledger,
        usage,
        recorder,
        pauses,
        notices,
        queues,
    ),
    *(_credential, _transport, _tables, _vault_door),
)
