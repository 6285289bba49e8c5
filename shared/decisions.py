"""What to do about one cluster, and why. Pure: no I/O, no clock, no environment.

`decide` asks the checks in their order; the first that has an answer decides. The order is the specification.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from shared.clusters import Cluster, Encryption, IdentityKind, KeyManagement
from shared.errors import Refused
from shared.keys import KeyId, KeyReference, VaultId
from shared.policy import OWN, Assignment, LegacyRotation, Mode, NetworkAccess, Preparing, Target
from shared.preparations import Preparation, preparation_for
from shared.prerequisites import Prerequisites, access_obstacle, obstacle, warnings
from shared.reasons import Action, Reason, Subject
from shared.reencryption import Reencryption, Rewrite, hindrance, next_step
from shared.rights import CODES
from shared.rotation import Succession

OLDEST_KUBERNETES = (1, 33, 0)
"""The new experience's first version. Source: AKS docs, kms-data-encryption."""

KMS_V2 = (1, 27, 0)
"""Legacy KMS below this version is v1. Source: AKS docs, use-kms-v2."""

PROPAGATION = timedelta(minutes=60)
"""How long a role assignment may take to reach a cluster's identity. Source: AKS docs, use-managed-identity."""

OPERATION_DEADLINE = timedelta(minutes=90)
"""An update of ours that has not ended by then has failed. AKS takes 5 to 10 minutes."""

VISIBILITY_DEADLINE = timedelta(minutes=15)
"""How long after a write event its cluster may still be invisible."""

SECOND_ROLE_DEADLINE = timedelta(minutes=15)
"""How long the second role is tried for while its grant gets no clear answer: a warning must not cost hours."""

DEADLINES = {
    Reason.BUSY: timedelta(hours=6),
    Reason.CONFLICT: timedelta(hours=6),
    Reason.LIMIT_REACHED: timedelta(hours=6),
    Reason.THROTTLED: timedelta(hours=6),
    Reason.PROPAGATING: PROPAGATION,
    Reason.VAULT_NOT_READY: OPERATION_DEADLINE,
    Reason.UPDATING: OPERATION_DEADLINE,
    Reason.PREPARING: OPERATION_DEADLINE,
    Reason.REENCRYPTING: OPERATION_DEADLINE,
    Reason.NOT_VISIBLE: VISIBILITY_DEADLINE,
    Reason.ROTATION_UNKNOWN: VISIBILITY_DEADLINE,
}
"""Every reason to wait that passes by itself has an end; after it, waiting is a failure with its reason."""

HELD_BACK = frozenset({Reason.PAUSED, Reason.WINDOW_CLOSED})
"""Why a write waits that could be made now. Somebody wants it so, and it lasts as long as they want: no deadline."""


@dataclass(frozen=True, slots=True)
class Change:
    """What one write changes: the KMS part of a cluster or its identity, and the eTag it was read at.

    `identity` is the user-assigned identity to change to, None where the identity stays; `identity_before` says what
    kind the cluster has.
    """

    before: Encryption
    after: Encryption
    etag: str
    identity: str | None = None
    identity_before: IdentityKind | None = None

    @property
    def rotates(self) -> bool:
        """Whether it only names another version of a legacy cluster's key."""
        legacy = KeyManagement.LEGACY
        stays = self.before.key_management is legacy and self.after.key_management is legacy
        return stays and self.identity is None

    def is_in(self, cluster: Cluster) -> bool:
        """Return whether the cluster's document shows what this change asks for."""
        if self.identity is not None and not cluster.identity.is_called(self.identity):
            return False
        return cluster.encryption.amounts_to(self.after)


@dataclass(frozen=True, slots=True)
class Waiting:
    """A wait that began earlier: why, since when, and the one message that ends it."""

    reason: Reason
    since: datetime
    look_again_at: datetime
    token: str
    set_by: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """A write that Azure did not take: a conflict, or a clear no. `etag` is the cluster's at that time.

    `rewriting`: it was a step of a rewrite, and says nothing of an update.
    """

    reason: Reason
    code: str
    text: str
    etag: str
    at: datetime
    since: datetime
    rewriting: bool = False


@dataclass(frozen=True, slots=True)
class Facts:
    """All that a decision may look at. `prerequisites` None means: not looked at yet.

    `set_back` is when somebody undid what the app had enforced; the last one may be just now. `paused`: enforcement is.
    `rewrite` is how far the rewrite of a legacy cluster's secrets is, as long as it may go on. `reader_refused`: Azure
    did not take the grant of the second role.
    """

    cluster: Cluster
    waiting: Waiting | None = None
    refusal: Refusal | None = None
    prerequisites: Prerequisites | None = None
    set_back: tuple[datetime, ...] = ()
    paused: bool = False
    succession: Succession | None = None
    rewrite: Rewrite | None = None
    reader_refused: Refusal | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do and why. The first reason decides; the change is there in audit too.

    `look_again` is set where a wait has a time of its own; else the app's interval holds.
    """

    action: Action
    reasons: tuple[Reason, ...]
    change: Change | Preparation | Reencryption | None = None
    look_again: datetime | None = None

    @property
    def reason(self) -> Reason:
        """The reason that decided."""
        return self.reasons[0]


Check = Callable[[Facts, Assignment, datetime], Decision | None]


def decide(facts: Facts, assignment: Assignment, now: datetime) -> Decision:
    """Return the first answer of the checks, else the write that the target asks for, if it may be made now. Pure."""
    answers = (check(facts, assignment, now) for check in CHECKS)
    decision = next((answer for answer in answers if answer is not None), None) or _write(facts, assignment)
    return within_deadline(held_back(decision, facts, assignment), facts.waiting, now)


def changes_something(action: Action) -> bool:
    """Return whether this action writes something in Azure, once the mode is enforce."""
    return action in {Action.ENSURE, Action.REENCRYPT, Action.WRITE}


def would_write(decision: Decision) -> bool:
    """Return whether this decision is a write, made now or held back."""
    return changes_something(decision.action) or decision.reason in HELD_BACK


def held_back(decision: Decision, facts: Facts, assignment: Assignment) -> Decision:
    """Return the decision; a write that may not be made now waits, with its change. Audit says what would be done."""
    if assignment.mode is not Mode.ENFORCE or not changes_something(decision.action):
        return decision
    if facts.paused:
        return replace(decision, action=Action.WAIT, reasons=(Reason.PAUSED, *decision.reasons))
    opens = assignment.window_opens
    if opens is None:
        return decision
    reasons = (Reason.WINDOW_CLOSED, *decision.reasons)
    return replace(decision, action=Action.WAIT, reasons=reasons, look_again=opens)


def within_deadline(decision: Decision, waiting: Waiting | None, now: datetime) -> Decision:
    """Return the decision; a wait that lasts longer than its reason's deadline is reported instead."""
    if decision.action is not Action.WAIT or waiting is None or waiting.reason is not decision.reason:
        return decision
    deadline = DEADLINES.get(decision.reason)
    if deadline is None or now - waiting.since < deadline:
        return decision
    return replace(decision, action=Action.REPORT, reasons=(Reason.WAITED_TOO_LONG, *decision.reasons), look_again=None)


def policy_is_broken(_facts: Facts, assignment: Assignment, _now: datetime) -> Decision | None:
    """The policy document has faults: nothing may be concluded from it."""
    return _report(Reason.POLICY_BROKEN) if assignment.faults else None


def has_no_target(_facts: Facts, assignment: Assignment, _now: datetime) -> Decision | None:
    """The policy asks nothing of this cluster."""
    return _nothing(Reason.NO_TARGET) if assignment.target is None else None


def is_exempt(_facts: Facts, assignment: Assignment, _now: datetime) -> Decision | None:
    """An exemption silences everything below."""
    return _nothing(Reason.EXEMPT) if assignment.exempt_because is not None else None


def is_as_asked(facts: Facts, assignment: Assignment, _now: datetime) -> Decision | None:
    """The desired profile is there and in effect: it is visible already while an operation runs, or after it failed.

    A stopped cluster shows Succeeded and is judged by its profile. Source: recorded traffic of the Azure CLI.
    """
    cluster = facts.cluster
    if not (cluster.succeeded and _has_what_is_asked(cluster, assignment)):
        return None
    return _nothing(Reason.AS_ASKED)


def is_busy(facts: Facts, _assignment: Assignment, _now: datetime) -> Decision | None:
    """An operation runs: what the document shows may not be in effect, and a write would meet a conflict."""
    return Decision(Action.WAIT, (Reason.BUSY,)) if not facts.cluster.settled else None


def has_failed(facts: Facts, _assignment: Assignment, _now: datetime) -> Decision | None:
    """A cluster that is left in Failed is reported, never hammered."""
    return _report(Reason.FAILED) if not facts.cluster.succeeded else None


def is_stopped(facts: Facts, _assignment: Assignment, _now: datetime) -> Decision | None:
    """Only start and delete are allowed. Source: AKS docs, start-stop-cluster."""
    return _report(Reason.STOPPED) if not facts.cluster.running else None


def rotates_legacy(facts: Facts, assignment: Assignment, now: datetime) -> Decision | None:
    """A legacy cluster stays on its version until somebody names another, and that only once its secrets are rewritten:
    KMS keeps two keys at once, and a second rotation before the rewrite leaves the cluster stuck.

    Sources: AKS docs, use-kms-etcd-encryption; Azure/kubernetes-kms issue 291.
    """
    if not _stays_legacy(facts.cluster, assignment):
        return None
    found, reference = facts.succession, facts.cluster.encryption.key
    reports = assignment.legacy_rotation is LegacyRotation.REPORT
    if found is None or reference is None:
        return None if reports else Decision(Action.LOOK_CLOSER, (Reason.ROTATION_UNKNOWN,))
    due = found.newest is not None
    if reports:
        return _report(Reason.ROTATION_DUE) if due else None
    if not found.rewritten:
        return _shut(facts, assignment, now, due=due)
    return _rotate(facts, assignment, replace(reference, version=found.newest), now) if due else None


def _rotate(facts: Facts, assignment: Assignment, named: KeyReference, now: datetime) -> Decision:
    """Name this version in the cluster, and change nothing else."""
    before, etag = facts.cluster.encryption, facts.cluster.etag
    if etag is None:
        return _report(Reason.NO_ETAG)
    change = Change(before, replace(before, key_url=named.url), etag)
    kept = was_refused(facts, assignment, now) or is_contested(facts, assignment, now)
    return kept or Decision(Action.WRITE, (Reason.TO_ROTATE,), change)


def _shut(facts: Facts, assignment: Assignment, now: datetime, *, due: bool) -> Decision | None:
    """The guard: nothing is named before the rewrite; the app makes that itself where policy and setting say so."""
    reasons = (Reason.NOT_REENCRYPTED, *([Reason.ROTATION_DUE] if due else []))
    if assignment.legacy_rotation is LegacyRotation.UPDATE_AND_REENCRYPT and assignment.run_command:
        return was_refused(facts, assignment, now, rewriting=True) or _reencrypt(facts, reasons, now)
    return Decision(Action.REPORT, reasons) if due else None


def _reencrypt(facts: Facts, reasons: tuple[Reason, ...], now: datetime) -> Decision:
    """Take the next step of the rewrite, unless the cluster can't run it, or it failed a short while ago or too often.

    A failure of a command is told from one of the cluster: the guard stays shut, and nothing else is held up.
    """
    hindered, rewrite = hindrance(facts.cluster), facts.rewrite
    if hindered is not None:
        return Decision(Action.REPORT, (hindered, *reasons))
    if rewrite is not None and facts.succession is not None:
        rewrite = rewrite.counting_from(facts.succession.counts_from)
    if rewrite is not None and rewrite.is_over:  # the ledger took no note of it: once more would change nothing
        return Decision(Action.REPORT, reasons)
    if rewrite is not None and rewrite.has_failed:
        return Decision(Action.REPORT, (Reason.REENCRYPTION_FAILED, *reasons))
    rests_until = rewrite.rests_until(now) if rewrite is not None else None
    if rests_until is not None:
        return Decision(Action.WAIT, (Reason.REENCRYPTION_FAILED, *reasons), look_again=rests_until)
    rests_until = _rests_until(facts, now)
    if rests_until is not None:
        return Decision(Action.WAIT, (Reason.CONFLICT, *reasons), look_again=rests_until)
    return Decision(Action.REENCRYPT, reasons, next_step(facts.cluster, rewrite))


def _rests_until(facts: Facts, now: datetime) -> datetime | None:
    """Return until when a command waits whose start gets no clear answer; None if it may be started.

    It rests as long as it has been in vain: Azure may have run it each time.
    """
    refusal = facts.refusal
    if refusal is None or not refusal.rewriting or refusal.etag != facts.cluster.etag:
        return None
    until = refusal.at + min(refusal.at - refusal.since, BLOCKED_FOR)
    return until if until > now else None


def is_legacy_v1(facts: Facts, _assignment: Assignment, _now: datetime) -> Decision | None:
    """KMS v1 has no direct move, and keeps the cluster from upgrading to 1.27. Source: AKS docs, use-kms-v2."""
    cluster = facts.cluster
    legacy = cluster.encryption.key_management is KeyManagement.LEGACY
    return (
        _report(Reason.LEGACY_V1) if legacy and cluster.kubernetes is not None and cluster.kubernetes < KMS_V2 else None
    )


def kubernetes_is_too_old(facts: Facts, _assignment: Assignment, _now: datetime) -> Decision | None:
    """A version that can't be read counts as too old: what is not known is not written."""
    version = facts.cluster.kubernetes
    return _report(Reason.KUBERNETES_TOO_OLD) if version is None or version < OLDEST_KUBERNETES else None


def identity_is_unsupported(facts: Facts, _assignment: Assignment, _now: datetime) -> Decision | None:
    """Service principals are not supported. Source: AKS docs, kms-data-encryption."""
    return (
        _report(Reason.IDENTITY_UNSUPPORTED) if facts.cluster.identity.kind is IdentityKind.SERVICE_PRINCIPAL else None
    )


def has_other_identity(facts: Facts, assignment: Assignment, _now: datetime) -> Decision | None:
    """A second user-assigned identity would replace the first, so none is touched.

    Source: AKS docs, use-managed-identity.
    """
    target, identity = assignment.target, facts.cluster.identity
    if target is None or target.identity == OWN or identity.kind is not IdentityKind.USER_ASSIGNED:
        return None
    return None if identity.is_called(target.identity) else _report(Reason.OTHER_IDENTITY)


def identity_is_system_assigned(facts: Facts, assignment: Assignment, _now: datetime) -> Decision | None:
    """The documents of customer-managed keys show and demand a user-assigned identity."""
    target, identity = assignment.target, facts.cluster.identity
    if not _asks_for_a_key(assignment) or identity.kind is not IdentityKind.SYSTEM_ASSIGNED:
        return None
    may_change = target is not None and target.allow_identity_change
    return None if may_change else _report(Reason.IDENTITY_SYSTEM_ASSIGNED)


def is_ambiguous(facts: Facts, _assignment: Assignment, _now: datetime) -> Decision | None:
    """No document states what such a cluster has, so no write may build on it."""
    return _report(Reason.AMBIGUOUS) if facts.cluster.encryption.key_management is KeyManagement.AMBIGUOUS else None


def is_encrypted_otherwise(facts: Facts, assignment: Assignment, _now: datetime) -> Decision | None:
    """Moving between kinds of key management rewrites secrets: not unless the target says so."""
    may_move = assignment.target is not None and assignment.target.migrate
    return _report(Reason.ENCRYPTED_OTHERWISE) if _is_encrypted(facts.cluster) and not may_move else None


def has_no_etag(facts: Facts, _assignment: Assignment, _now: datetime) -> Decision | None:
    """Without an eTag a PUT sends no If-Match: a silent overwrite. Source: AKS docs, use-etags."""
    return _report(Reason.NO_ETAG) if facts.cluster.etag is None else None


def was_refused(facts: Facts, _assignment: Assignment, now: datetime, *, rewriting: bool = False) -> Decision | None:
    """Azure said no to this very state: the same write again gets the same answer, until the row or time moves on.

    What it said of a step of a rewrite keeps no update back, nor the other way round.
    """
    refusal = facts.refusal
    if (
        refusal is None
        or refusal.rewriting is not rewriting
        or refusal.etag != facts.cluster.etag
        or now - refusal.at >= BLOCKED_FOR
    ):
        return None
    if refusal.reason in BLOCKING:
        return _report(refusal.reason)
    if refusal.reason is Reason.CONFLICT and now - refusal.since >= DEADLINES[Reason.CONFLICT]:
        return Decision(Action.REPORT, (Reason.WAITED_TOO_LONG, Reason.CONFLICT))
    return None


PERMISSION_CODE = "AzureKeyVaultKmsValidateIdentityPermissionCustomerError"
"""Azure's word for: the identity may not encrypt and decrypt, or the vault can't be asked."""

BLOCKING = frozenset({Reason.NOT_PERMITTED, Reason.BLOCKED, Reason.FEATURE_NOT_REGISTERED, Reason.ACCESS_REFUSED})
BLOCKED_FOR = timedelta(minutes=55)
"""A refused write rests until the next hourly sweep; so does one that met conflicts for too long, however long ago that
began: a closed window may have come between."""


def vault_has_no_name(facts: Facts, assignment: Assignment, _now: datetime) -> Decision | None:
    """A cluster's name or region can make a vault's id that can't be one."""
    if not _asks_for_a_key(assignment) or vault_of(facts.cluster, assignment) is not None:
        return None
    return _report(Reason.VAULT_NAME_INVALID)


def needs_a_closer_look(facts: Facts, assignment: Assignment, _now: datetime) -> Decision | None:
    """Vault, key and roles are looked at only for a cluster on which everything else is fine."""
    if not _asks_for_a_key(assignment) or facts.prerequisites is not None:
        return None
    return Decision(Action.LOOK_CLOSER, (Reason.PREREQUISITES_UNKNOWN,))


def lacks_vault_or_key(facts: Facts, assignment: Assignment, now: datetime) -> Decision | None:
    """Something about the vault or the key stands in the way."""
    if facts.prerequisites is None or assignment.target is None or not _asks_for_a_key(assignment):
        return None
    reason = obstacle(facts.prerequisites, assignment.target.network_access, now)
    if reason is Reason.VAULT_NOT_READY:
        return Decision(Action.WAIT, (reason,))
    return _mend(reason, facts, assignment) if reason is not None else None


def lacks_identity(facts: Facts, assignment: Assignment, _now: datetime) -> Decision | None:
    """The identity to change to has to be there."""
    found = facts.prerequisites
    missing = found is not None and found.has_identity is False
    return _mend(Reason.IDENTITY_MISSING, facts, assignment) if missing else None


def changes_identity(facts: Facts, assignment: Assignment, _now: datetime) -> Decision | None:
    """A look of its own, before the KMS write: the new identity's permission can be looked at only once it is there."""
    cluster, target = facts.cluster, assignment.target
    if target is None or cluster.etag is None or cluster.identity.kind is not IdentityKind.SYSTEM_ASSIGNED:
        return None
    if not _asks_for_a_key(assignment):
        return None
    encryption, kind = cluster.encryption, cluster.identity.kind
    change = Change(encryption, encryption, cluster.etag, identity=target.identity, identity_before=kind)
    return Decision(Action.WRITE, (Reason.IDENTITY_TO_CHANGE,), change)


def lacks_access(facts: Facts, assignment: Assignment, _now: datetime) -> Decision | None:
    """AKS checks the permission of a public vault only; of a private one a mistake shows when the API server breaks.
    So what can't be told is a warning of the former, and stands in the way of the latter.
    """
    found = facts.prerequisites
    if found is None:
        return None
    reason = access_obstacle(found)
    if reason is not None:
        return _mend(reason, facts, assignment)
    unchecked = Reason.ACCESS_UNKNOWN in warnings(found) and found.network_access is NetworkAccess.PRIVATE
    return _report(Reason.ACCESS_UNKNOWN) if unchecked else None


def lacks_second_role(facts: Facts, assignment: Assignment, now: datetime) -> Decision | None:
    """The documents disagree on which role stands beside Crypto User, so a missing one stops nobody: only `ensure`
    grants it, and where that is refused, or in vain for too long, the write goes on without, as `check` would.

    Source: AKS docs, kms-data-encryption; migrate-key-management-service-platform-managed-key-customer-managed-key.
    """
    if facts.prerequisites is None or Reason.READER_MISSING not in warnings(facts.prerequisites):
        return None
    refused, in_vain, etag = facts.reader_refused, facts.refusal, facts.cluster.etag
    if refused is not None and refused.etag == etag and now - refused.at < BLOCKED_FOR:
        return None
    conflicts = in_vain is not None and in_vain.reason is Reason.CONFLICT and in_vain.etag == etag
    if in_vain is not None and conflicts and now - in_vain.since >= SECOND_ROLE_DEADLINE:
        return None
    decision = _mend(Reason.READER_MISSING, facts, assignment)
    return decision if decision.action is Action.ENSURE else None


def waits_for_its_grant(facts: Facts, assignment: Assignment, now: datetime) -> Decision | None:
    """No document says that AKS checks the permission on a private vault before it is used, and a cluster that can't
    reach its key loses its API server: so a young grant is given the time it may take.
    """
    found = facts.prerequisites
    if found is None or not _asks_for_a_key(assignment) or found.network_access is not NetworkAccess.PRIVATE:
        return None
    granted = found.access.granted_at if found.access is not None else None
    if granted is None or not is_propagating(found, now):
        return None
    return Decision(Action.WAIT, (Reason.PROPAGATING,), look_again=granted + PROPAGATION)


def needs_off_and_on(facts: Facts, assignment: Assignment, _now: datetime) -> Decision | None:
    """Legacy KMS changes how it reaches one vault only by off, rewrite, on. Source: AKS docs, update-kms-key-vault."""
    before, found = facts.cluster.encryption, facts.prerequisites
    asked = _asked_key(facts.cluster, assignment)
    if asked is None or found is None or found.vault is None or not _is_legacy_in(asked.vault, before):
        return None
    return None if before.reaches_its_vault(_access(found)) else _report(Reason.NEEDS_OFF_AND_ON)


def is_unconfirmed(facts: Facts, assignment: Assignment, _now: datetime) -> Decision | None:
    """Documented are moves between kinds of key management; from legacy only with the same vault and key.

    Source: AKS docs, migrate-key-management-service-platform-managed-key-customer-managed-key.
    """
    before, asked = facts.cluster.encryption, _asked_key(facts.cluster, assignment)
    if not before.kms_enabled or asked is None or assignment.target is None:
        return None
    named = assignment.target.network_access
    stays = named is not None and before.reaches_its_vault(named)
    if facts.prerequisites is None and _is_legacy_in(asked.vault, before) and not stays:
        return None  # the look may find that KMS has to be turned off first
    same_key = before.key is not None and before.key.key == asked
    stated = before.key_management is KeyManagement.LEGACY and same_key
    return None if stated or assignment.target.allow_unconfirmed else _report(Reason.UNCONFIRMED_MOVE)


def is_contested(facts: Facts, _assignment: Assignment, _now: datetime) -> Decision | None:
    """Two hands on one cluster: the app lets go first, until an operator says otherwise."""
    if len(facts.set_back) < CONTEST or facts.set_back[-1] - facts.set_back[-CONTEST] > CONTESTED_WITHIN:
        return None
    return _report(Reason.CONTESTED)


CONTEST, CONTESTED_WITHIN = 2, timedelta(days=1)
"""So often within so long."""

CHECKS: tuple[Check, ...] = (
    policy_is_broken,
    has_no_target,
    is_exempt,
    is_as_asked,
    is_busy,
    has_failed,
    is_stopped,
    rotates_legacy,
    is_legacy_v1,
    kubernetes_is_too_old,
    identity_is_unsupported,
    is_ambiguous,
    has_other_identity,
    is_encrypted_otherwise,
    identity_is_system_assigned,
    has_no_etag,
    was_refused,
    vault_has_no_name,
    needs_off_and_on,
    is_unconfirmed,
    is_contested,
    needs_a_closer_look,
    lacks_vault_or_key,
    lacks_identity,
    changes_identity,
    lacks_access,
    lacks_second_role,
    waits_for_its_grant,
)
"""Each check may rely on those above it. What forbids the write in the end stands above what prepares it."""


def reason_of(refused: Refused) -> Reason:
    """Tell from Azure's refusal of a write what it is about. The exact text for a missing feature is unconfirmed."""
    if "KMSPMKPreview".lower() in f"{refused.code} {refused.text}".lower():
        return Reason.FEATURE_NOT_REGISTERED
    if refused.code in CODES:
        return Reason.NOT_PERMITTED
    return Reason.ACCESS_REFUSED if refused.code == PERMISSION_CODE else Reason.BLOCKED


def under_way(decision: Decision) -> Decision:
    """Return the wait for what was decided, once it is claimed. All but an update says what it is for."""
    if isinstance(decision.change, Change):
        return replace(decision, action=Action.WAIT, reasons=(Reason.UPDATING, *decision.reasons[1:]))
    return replace(decision, action=Action.WAIT, reasons=(wait_of(decision.change), *decision.reasons))


def wait_of(change: Change | Preparation | Reencryption | None) -> Reason:
    """Return what a look waits for while this is under way."""
    if isinstance(change, Change):
        return Reason.UPDATING
    return Reason.REENCRYPTING if isinstance(change, Reencryption) else Reason.PREPARING


def is_propagating(found: Prerequisites | None, now: datetime) -> bool:
    """Return whether a grant is so young that Azure may not know it yet."""
    granted = found.access.granted_at if found is not None and found.access is not None else None
    return granted is not None and now - granted < PROPAGATION


def vault_of(cluster: Cluster, assignment: Assignment) -> VaultId | None:
    """Return the vault that the target asks this cluster to use; None if it asks for none, or its id can't be one."""
    target = assignment.target
    if target is None or target.vault is None:
        return None
    try:
        return target.vault_for(cluster.location, cluster.id.subscription, cluster.id.name)
    except ValueError:
        return None


def subject_of(cluster: Cluster, assignment: Assignment) -> Subject:
    """Return what a fix for this cluster speaks of."""
    target = assignment.target
    named = target.identity if target is not None and target.identity != OWN else None
    return Subject(
        cluster.id,
        vault=vault_of(cluster, assignment),
        key=target.key if target is not None else None,
        principal=cluster.identity.principal,
        identity=named,
    )


def _asks_for_a_key(assignment: Assignment) -> bool:
    return assignment.target is not None and assignment.target.asks_for is KeyManagement.CUSTOMER_MANAGED


def _has_what_is_asked(cluster: Cluster, assignment: Assignment) -> bool:
    target = assignment.target
    if target is None or cluster.encryption.key_management is not target.asks_for:
        return False
    return not _asks_for_a_key(assignment) or _has_its_key(cluster, assignment, target)


def _has_its_key(cluster: Cluster, assignment: Assignment, target: Target) -> bool:
    """The target's vault and key, the network access that it names if it names one, and its identity."""
    vault, encryption = vault_of(cluster, assignment), cluster.encryption
    if vault is None or target.key is None or encryption.key is None:
        return False
    access = (encryption.network_access or NetworkAccess.PUBLIC).lower()
    return (
        encryption.key.key == KeyId(vault.name, target.key.lower())
        and target.network_access in {None, access}
        and (access == NetworkAccess.PUBLIC or (encryption.vault_id or "").lower() == str(vault).lower())
        and (target.identity == OWN or cluster.identity.is_called(target.identity))
    )


def _write(facts: Facts, assignment: Assignment) -> Decision:
    cluster, found = facts.cluster, facts.prerequisites if _asks_for_a_key(assignment) else None
    if assignment.target is None or cluster.etag is None:
        raise AssertionError("the checks answer for a cluster without target or eTag")
    reason = Reason.TO_MIGRATE if _is_encrypted(cluster) else Reason.NOT_AS_ASKED
    doubts = warnings(found) if found is not None else ()
    change = Change(cluster.encryption, _asked(facts, assignment), cluster.etag)
    return Decision(Action.WRITE, (reason, *doubts), change)


def _asked(facts: Facts, assignment: Assignment) -> Encryption:
    """What the target asks for, once its prerequisites are in place; platform-managed keys leave no key behind."""
    if not _asks_for_a_key(assignment) or facts.prerequisites is None:
        return Encryption(infrastructure=True)
    return _with_its_key(facts.prerequisites)


def _mend(reason: Reason, facts: Facts, assignment: Assignment) -> Decision:
    """Put the missing prerequisite in place if the target says so and the app can; else report it."""
    target, vault = assignment.target, vault_of(facts.cluster, assignment)
    if target is None or vault is None or facts.prerequisites is None or target.prerequisites is not Preparing.ENSURE:
        return _report(reason)
    preparation = preparation_for(reason, facts.cluster, vault, assignment, facts.prerequisites)
    return Decision(Action.ENSURE, (reason,), preparation) if preparation is not None else _report(reason)


def _stays_legacy(cluster: Cluster, assignment: Assignment) -> bool:
    """Whether the cluster has legacy KMS and its target lets it: one that is to move needs no new version first."""
    legacy = cluster.encryption.key_management is KeyManagement.LEGACY
    return legacy and assignment.target is not None and not assignment.target.migrate


def _is_encrypted(cluster: Cluster) -> bool:
    return cluster.encryption.key_management is not KeyManagement.NONE


def _asked_key(cluster: Cluster, assignment: Assignment) -> KeyId | None:
    """The key that the target asks for; None where it asks for none."""
    vault, target = vault_of(cluster, assignment), assignment.target
    if vault is None or target is None or target.key is None or not _asks_for_a_key(assignment):
        return None
    return KeyId(vault.name, target.key.lower())


def _is_legacy_in(vault: str, encryption: Encryption) -> bool:
    """Whether this is legacy KMS with a key of this vault."""
    key = encryption.key
    return encryption.key_management is KeyManagement.LEGACY and key is not None and key.key.vault == vault


def _access(found: Prerequisites) -> str:
    """How AKS is to reach the vault, in ARM's words."""
    return "Private" if found.network_access is NetworkAccess.PRIVATE else "Public"


def _with_its_key(found: Prerequisites) -> Encryption:
    """Both objects, the versionless URL; the vault's id with Private and, as the SDK says, left out with Public."""
    if found.vault is None:
        raise AssertionError("the checks answer for a vault that is missing")
    private = found.network_access is NetworkAccess.PRIVATE
    return Encryption(
        kms_enabled=True,
        key_url=found.key_url,
        vault_id=str(found.vault.id) if private else None,
        network_access=_access(found),
        infrastructure=True,
    )


def _nothing(reason: Reason) -> Decision:
    return Decision(Action.NOTHING, (reason,))


def _report(reason: Reason) -> Decision:
    return Decision(Action.REPORT, (reason,))
