"""The vocabulary of decisions: what to do, why, and what an operator can do about it. Pure.

The same word stands in the enum, the table's column, the log, the JSON, the pages and the docs.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from enum import StrEnum

from shared.clusters import ClusterId
from shared.keys import VaultId
from shared.rights import Right


class Action(StrEnum):
    """What to do."""

    NOTHING = "nothing"
    """All is well, or it is none of our business."""
    LOOK_CLOSER = "look-closer"
    """Look at the vault, the key and the roles, then decide again."""
    WAIT = "wait"
    """Look again later: something that passes by itself is in the way."""
    REPORT = "report"
    """Somebody has to do something first."""
    ENSURE = "ensure"
    """Put a prerequisite in place; in audit, say that this would be done."""
    REENCRYPT = "reencrypt"
    """Rewrite a legacy cluster's secrets by run command; in audit, say that this would be done."""
    WRITE = "write"
    """Change the cluster; in audit, say that this would be done."""


class Reason(StrEnum):
    """Why."""

    AS_ASKED = "as-asked"
    """The cluster is encrypted as its target asks, and its last operation ended well."""
    NO_TARGET = "no-target"
    """No target of the policy matches the cluster."""
    EXEMPT = "exempt"
    """An exemption or the opt-out tag says: leave it alone."""
    POLICY_BROKEN = "policy-broken"
    """The policy document has faults, so nothing is written."""
    NOT_AS_ASKED = "not-as-asked"
    """The cluster is not encrypted with KMS though its target asks for it, and nothing stands in the way."""
    TO_MIGRATE = "to-migrate"
    """The cluster is encrypted otherwise and the target says migrate: AKS then rewrites every secret."""
    UPDATING = "updating"
    """Our own update is under way."""
    PREPARING = "preparing"
    """Something that the cluster needs is being put in place: the reason that follows says what was missing."""
    BUSY = "busy"
    """AKS works on the cluster or on one of its pools."""
    FAILED = "failed"
    """The cluster's last operation failed or was canceled; another update would meet the same fault."""
    STOPPED = "stopped"
    """The cluster is stopped: AKS then allows only start and delete."""
    KUBERNETES_TOO_OLD = "kubernetes-too-old"
    """Platform-managed and customer-managed keys need Kubernetes 1.33 or newer."""
    IDENTITY_UNSUPPORTED = "identity-unsupported"
    """The cluster runs as a service principal; KMS needs a managed identity."""
    AMBIGUOUS = "ambiguous"
    """The cluster's KMS fields are a combination whose meaning no document states."""
    ENCRYPTED_OTHERWISE = "encrypted-otherwise"
    """The cluster is encrypted with KMS, but not the way its target asks, and the target does not say migrate."""
    LEGACY_V1 = "legacy-v1"
    """The cluster has legacy KMS v1, below Kubernetes 1.27: there is no direct move from there."""
    ROTATION_UNKNOWN = "rotation-unknown"
    """Which versions the key of a legacy cluster has is not known yet."""
    ROTATION_DUE = "rotation-due"
    """The key of a legacy cluster has a newer version than the one that the cluster names."""
    TO_ROTATE = "to-rotate"
    """A legacy cluster is to name its key's newest version; its secrets were rewritten since the last time."""
    NOT_REENCRYPTED = "not-reencrypted"
    """Nobody has confirmed that a legacy cluster's secrets were rewritten since it took its version: it stays on it."""
    REENCRYPTING = "reencrypting"
    """A run command of ours rewrites the legacy cluster's secrets, a chunk of its namespaces at a time."""
    REENCRYPTION_FAILED = "reencryption-failed"
    """The run command that rewrites the secrets failed, left some out, or printed something else than its counts."""
    RUN_COMMAND_DISABLED = "run-command-disabled"
    """The secrets are to be rewritten by run command, and the cluster allows none."""
    NO_READY_POOL = "no-ready-pool"
    """The secrets are to be rewritten by run command, and no node pool of the cluster has a node to run it."""
    NEEDS_OFF_AND_ON = "needs-off-and-on"
    """The move would have to turn KMS off, rewrite all secrets and turn it on again; the app never turns KMS off."""
    UNCONFIRMED_MOVE = "unconfirmed-move"
    """No document states what comes of this move: to another key, vault or network access."""
    IDENTITY_SYSTEM_ASSIGNED = "identity-system-assigned"
    """Customer-managed keys need a user-assigned identity, and the policy allows no change of it."""
    OTHER_IDENTITY = "other-identity"
    """The cluster has another user-assigned identity than the target names; one is never replaced."""
    IDENTITY_TO_CHANGE = "identity-to-change"
    """The cluster is moved from its system-assigned identity to the one that the target names, before anything else."""
    IDENTITY_MISSING = "identity-missing"
    """The user-assigned identity that the target names does not exist."""
    PREREQUISITES_UNKNOWN = "prerequisites-unknown"
    """The vault, the key and the roles that the target asks for have to be looked at first."""
    VAULT_NAME_INVALID = "vault-name-invalid"
    """With the placeholders filled in, the target's vault is no resource id."""
    VAULT_UNREADABLE = "vault-unreadable"
    """The app may not read the vault or the key, or no subscription that it may read shows the vault."""
    VAULT_MISSING = "vault-missing"
    """The target's vault does not exist."""
    VAULT_NOT_READY = "vault-not-ready"
    """The target's vault is being made."""
    VAULT_DELETED = "vault-deleted"
    """The target's vault is soft-deleted."""
    VAULT_OTHER_TENANT = "vault-other-tenant"
    """The target's vault belongs to another tenant than the cluster's subscription."""
    VAULT_PERIMETER = "vault-perimeter"
    """A network security perimeter guards the vault; it overrides the bypass for trusted services."""
    VAULT_SELECTED_NETWORKS = "vault-selected-networks"
    """The vault's firewall lets selected networks in and no trusted service, and AKS comes from none of them."""
    VAULT_CLOSED = "vault-closed"
    """The target says public, but the vault is not open to all networks."""
    VAULT_OPEN = "vault-open"
    """The target says private, but the vault is open to all networks."""
    VAULT_WITHOUT_BYPASS = "vault-without-bypass"
    """The vault is closed, to Azure's trusted services too."""
    KEY_MISSING = "key-missing"
    """The vault has no key of the name that the target asks for, or that the cluster uses."""
    KEY_DELETED = "key-deleted"
    """The target's key is soft-deleted."""
    KEY_DISABLED = "key-disabled"
    """The key's current version is disabled."""
    KEY_NOT_YET_VALID = "key-not-yet-valid"
    """The key's current version is not valid yet."""
    KEY_EXPIRED = "key-expired"
    """The key's current version has expired."""
    KEY_TYPE_UNSUPPORTED = "key-type-unsupported"
    """The key is neither RSA nor RSA-HSM."""
    KEY_OPERATIONS_MISSING = "key-operations-missing"
    """The key does not allow encrypt and decrypt."""
    ACCESS_MISSING = "access-missing"
    """The cluster's identity may not encrypt and decrypt with the key."""
    ACCESS_WRAP_ONLY = "access-wrap-only"
    """The identity may only wrap and unwrap keys, as Key Vault Crypto Service Encryption User does; AKS needs more."""
    ACCESS_UNKNOWN = "access-unknown"
    """Whether the identity may encrypt and decrypt is not known: of a public vault a warning, else it holds up."""
    READER_MISSING = "reader-missing"
    """A warning: the identity may not read the vault itself; the documents name a second role for that."""
    PURGE_PROTECTION_OFF = "purge-protection-off"
    """A warning: the vault's keys can be purged, and a cluster whose key is gone is lost."""
    PROPAGATING = "propagating"
    """Azure still refuses a permission that was granted a short while ago: a grant can take an hour to reach it."""
    ACCESS_REFUSED = "access-refused"
    """Azure says that the identity may not encrypt and decrypt, though its roles say that it may."""
    KEY_NEAR_EXPIRY = "key-near-expiry"
    """The key's current version expires soon."""
    ACCESS_POLICY_CHANGED = "access-policy-changed"
    """Somebody changed who may use the vault's keys."""
    KEY_TOO_OLD = "key-too-old"
    """The key's newest version is older than the policy allows."""
    ROTATION_POLICY_MISSING = "rotation-policy-missing"
    """The key never rotates by itself."""
    EXPIRY_STAMPED = "expiry-stamped"
    """The key's rotation policy makes versions expire, and a legacy cluster still needs this one."""
    VERSION_MISSING = "version-missing"
    """A version of the key that clusters may still need is not in the vault any more: the key was made anew."""
    VERSION_DISABLED = "version-disabled"
    """An old version of the key that clusters still need is disabled."""
    VERSION_EXPIRED = "version-expired"
    """An old version of the key that clusters still need has expired."""
    VERSION_NEAR_EXPIRY = "version-near-expiry"
    """An old version of the key that clusters still need expires soon."""
    NOT_ANNOUNCED = "not-announced"
    """No event subscription tells the app of this vault's rotations: only the sweep finds them."""
    STILL_IN_USE = "still-in-use"
    """The vault's log shows clusters using this version after they should have taken up a newer one."""
    ADOPTION_OVERDUE = "adoption-overdue"
    """The vault's log shows these clusters at work, and not with the version that they should have taken up by now."""
    IDENTITY_SHARED = "identity-shared"
    """Clusters use the key with one identity, so the vault's log can't tell which of them used which version."""
    LOGS_UNREADABLE = "logs-unreadable"
    """A Log Analytics workspace that the settings name may not be read, so it shows nothing."""
    FEATURE_NOT_REGISTERED = "feature-not-registered"
    """Azure refused the update: the subscription lacks the preview feature."""
    NO_ETAG = "no-etag"
    """Azure showed the cluster without an eTag, and without one a write could overwrite somebody else's."""
    NOT_VISIBLE = "not-visible"
    """An event names the cluster, but Azure does not show it yet."""
    GONE = "gone"
    """The cluster does not exist any more."""
    UNREADABLE = "unreadable"
    """The app is not allowed to read the cluster or its subscription."""
    THROTTLED = "throttled"
    """Azure asked to come back later."""
    LIMIT_REACHED = "limit-reached"
    """As many clusters are being updated as the limits allow."""
    PAUSED = "paused"
    """Enforcement is paused, by an operator or after failures in a row: nothing is written until somebody resumes."""
    WINDOW_CLOSED = "window-closed"
    """The policy's windows are closed; the write is made when the next one opens."""
    CONFLICT = "conflict"
    """Azure refuses the update because the cluster changed or is being changed meanwhile."""
    CONTESTED = "contested"
    """Somebody set the cluster back twice within a day after the app had enforced it."""
    NOT_PERMITTED = "not-permitted"
    """Azure refused the update because the app's identity lacks a right, on the thing or on what it refers to."""
    BLOCKED = "blocked"
    """Azure refused the update; another try gives the same answer until something is changed."""
    WAITED_TOO_LONG = "waited-too-long"
    """What stood in the way did not pass in time."""
    POISONED = "poisoned"
    """A look at the cluster failed five times in a row; the sweep starts it afresh."""


@dataclass(frozen=True, slots=True)
class Fix:
    """What an operator can do about a reason: a sentence, and the command that does it where there is one."""

    text: str
    command: str | None = None


@dataclass(frozen=True, slots=True)
class Subject:
    """What a reason is about: the cluster, or a key; where a target asks for a key, its vault and who needs it.

    `rights` are those that Azure says the app lacks.
    """

    cluster: ClusterId | None = None
    vault: VaultId | None = None
    key: str | None = None
    principal: str | None = None
    identity: str | None = None
    version: str | None = None
    rights: tuple[Right, ...] = ()


def fix_in_use(reason: Reason, subject: Subject) -> Fix | None:
    """Return the fix for a vault or key that clusters use: it has to be recovered. Made anew under its name, it could
    not read their secrets.
    """
    recovered = {Reason.KEY_MISSING: Reason.KEY_DELETED, Reason.VAULT_MISSING: Reason.VAULT_DELETED}
    return fix(recovered.get(reason, reason), subject)


def fix(reason: Reason, subject: Subject) -> Fix | None:
    """Return what an operator can do about this reason, or None where there is nothing to do."""
    template = _FIXES.get(reason)
    if template is None:
        return None
    names = {
        "name": subject.cluster.name if subject.cluster else "NAME",
        "group": subject.cluster.group if subject.cluster else "GROUP",
        "subscription": subject.cluster.subscription if subject.cluster else "SUBSCRIPTION",
        "vault": subject.vault.name if subject.vault else "VAULT",
        "vault_id": str(subject.vault or "VAULT_ID"),
        "vault_subscription": subject.vault.subscription if subject.vault else "SUBSCRIPTION",
        "key": subject.key or "KEY",
        "version": subject.version or "VERSION",
        "principal": subject.principal or "PRINCIPAL_ID",
        "identity": subject.identity or "IDENTITY_ID",
        "rights": _listed(subject.rights) or "the right that Azure's answer names",
    }
    quoted = {name: shlex.quote(value) for name, value in names.items()}
    return Fix(template.text.format(**names), template.command and template.command.format(**quoted))


_RIGHTS_SHOWN = 3


def _listed(rights: tuple[Right, ...]) -> str:
    shown = [f"{right.action} on {right.scope}" for right in rights[:_RIGHTS_SHOWN]]
    more = [f"{len(rights) - _RIGHTS_SHOWN} more that Azure's answer names"] if len(rights) > _RIGHTS_SHOWN else []
    return ", and ".join(shown + more)


_AKS = "az aks {verb} --subscription {{subscription}} --resource-group {{group}} --name {{name}}"
_VAULT = "az keyvault {verb} --subscription {{vault_subscription}} --name {{vault}}"
_KEY = "az keyvault key {verb} --subscription {{vault_subscription}} --vault-name {{vault}} --name {{key}}"
_GRANT = (
    "az role assignment create --role 'Key Vault Crypto User' --scope {vault_id}"
    " --assignee-object-id {principal} --assignee-principal-type ServicePrincipal"
)
_EXPIRY = " --expires YYYY-MM-DD"
_ROTATES = (
    "Rotate the key by POST /api/keys/{vault}/{key}/rotate: it refuses while a legacy cluster would lose the version"
    " that its secrets need."
)
_REWRITES = (
    "Moving rewrites every secret: turn off policies that block updates of secrets (Gatekeeper, Kyverno, webhooks)"
    " until it is done."
)
_FIXES = {
    Reason.POLICY_BROKEN: Fix("Mend the faults that GET /api/health lists, and deploy the document again."),
    Reason.TO_MIGRATE: Fix(_REWRITES),
    Reason.FAILED: Fix(
        "Find out what failed in the cluster's activity log, then reconcile the cluster.",
        _AKS.format(verb="update") + " --yes",
    ),
    Reason.STOPPED: Fix("Start the cluster; it is enforced when it runs.", _AKS.format(verb="start")),
    Reason.KUBERNETES_TOO_OLD: Fix(
        "Upgrade the cluster to Kubernetes 1.33 or newer.", _AKS.format(verb="get-upgrades") + " --output table"
    ),
    Reason.IDENTITY_UNSUPPORTED: Fix(
        "Move the cluster from its service principal to a managed identity.",
        _AKS.format(verb="update") + " --enable-managed-identity",
    ),
    Reason.AMBIGUOUS: Fix("Compare the securityProfile with what you meant to have.", _AKS.format(verb="show")),
    Reason.ENCRYPTED_OTHERWISE: Fix(
        f"Give the cluster a target that asks for what it has, or write `migrate: true`. {_REWRITES}"
    ),
    Reason.LEGACY_V1: Fix(
        "Turn KMS off, rewrite all secrets, upgrade to Kubernetes 1.27 or newer, and turn KMS on again.",
        _AKS.format(verb="update") + " --disable-azure-keyvault-kms",
    ),
    Reason.ROTATION_DUE: Fix(
        "Rewrite all secrets, unless that was done since the last update; only then name the key's newest version in"
        " the cluster. Or write `rotation: update` under `legacy`.",
        _AKS.format(verb="update") + " --enable-azure-keyvault-kms --azure-keyvault-kms-key-id KEY_ID"
        " --azure-keyvault-kms-key-vault-network-access ACCESS",
    ),
    Reason.NOT_REENCRYPTED: Fix(
        "Rewrite all secrets, `kubectl get secrets --all-namespaces -o json | kubectl replace -f -`, then say so:"
        " POST /api/clusters/{subscription}/{group}/{name}/reencrypted."
    ),
    Reason.REENCRYPTION_FAILED: Fix(
        "Find out why, `detail` says what is known, then let the app try again: POST"
        " /api/clusters/{subscription}/{group}/{name}/resume. Or rewrite all secrets by hand and say so: POST"
        " /api/clusters/{subscription}/{group}/{name}/reencrypted."
    ),
    Reason.RUN_COMMAND_DISABLED: Fix(
        "Allow run command on the cluster, or rewrite all secrets by hand and say so: POST"
        " /api/clusters/{subscription}/{group}/{name}/reencrypted.",
        _AKS.format(verb="update") + " --enable-run-command",
    ),
    Reason.NO_READY_POOL: Fix(
        "Give the cluster a node pool that runs and has a node, or rewrite all secrets by hand and say so: POST"
        " /api/clusters/{subscription}/{group}/{name}/reencrypted."
    ),
    Reason.NEEDS_OFF_AND_ON: Fix(
        "Turn KMS off by hand, rewrite all secrets, keep the old key, then let the app turn it on again.",
        _AKS.format(verb="update") + " --disable-azure-keyvault-kms",
    ),
    Reason.UNCONFIRMED_MOVE: Fix(
        f"Try it on a cluster that may be lost, then write `allowUnconfirmed: true`. {_REWRITES}"
    ),
    Reason.IDENTITY_SYSTEM_ASSIGNED: Fix(
        "Give the cluster a user-assigned identity, or name one in the target with allowIdentityChange: true.",
        _AKS.format(verb="update") + " --enable-managed-identity --assign-identity {identity}",
    ),
    Reason.OTHER_IDENTITY: Fix("Name the cluster's own identity in the target, or write `identity: own`."),
    Reason.IDENTITY_MISSING: Fix(
        "Create the identity, or mend its id in the target.", "az identity show --ids {identity}"
    ),
    Reason.VAULT_NAME_INVALID: Fix("Mend the target's vault: a name has 3 to 24 letters, digits and hyphens."),
    Reason.VAULT_UNREADABLE: Fix(
        "Give the app's identity the right to read vaults and keys through Azure Resource Manager, in the vault's"
        " subscription."
    ),
    Reason.VAULT_MISSING: Fix("Create the vault, or mend its id in the target.", _VAULT.format(verb="show")),
    Reason.VAULT_NOT_READY: Fix("Wait until Azure has made the vault.", _VAULT.format(verb="show")),
    Reason.VAULT_DELETED: Fix("Recover the vault.", _VAULT.format(verb="recover")),
    Reason.VAULT_OTHER_TENANT: Fix("Use a vault of the cluster's own tenant."),
    Reason.VAULT_PERIMETER: Fix("Use a vault that no network security perimeter guards."),
    Reason.VAULT_SELECTED_NETWORKS: Fix(
        "Let Azure's trusted services bypass the vault's firewall; its rules may stay. A cluster that reaches it as"
        " public needs it open to all networks.",
        _VAULT.format(verb="update") + " --bypass AzureServices",
    ),
    Reason.VAULT_CLOSED: Fix("Write `networkAccess: private`, or open the vault to all networks."),
    Reason.VAULT_OPEN: Fix("Write `networkAccess: public`, or close the vault but for trusted services."),
    Reason.VAULT_WITHOUT_BYPASS: Fix(
        "Let Azure's trusted services bypass the vault's firewall.",
        _VAULT.format(verb="update") + " --bypass AzureServices",
    ),
    Reason.KEY_MISSING: Fix(
        "Create the key, for encrypt and decrypt.",
        _KEY.format(verb="create") + " --kty RSA --ops encrypt decrypt",
    ),
    Reason.KEY_DELETED: Fix("Recover the key.", _KEY.format(verb="recover")),
    Reason.KEY_DISABLED: Fix(
        "Enable the key's current version.", _KEY.format(verb="set-attributes") + " --enabled true"
    ),
    Reason.KEY_NOT_YET_VALID: Fix("Wait until the key is valid, or bring its start forward."),
    Reason.KEY_EXPIRED: Fix(
        f"Move the version's expiry first. {_ROTATES}", _KEY.format(verb="set-attributes") + _EXPIRY
    ),
    Reason.KEY_TYPE_UNSUPPORTED: Fix("Use an RSA or RSA-HSM key."),
    Reason.KEY_OPERATIONS_MISSING: Fix(
        "Allow the key to encrypt and decrypt.",
        _KEY.format(verb="set-attributes") + " --ops encrypt decrypt wrapKey unwrapKey",
    ),
    Reason.ACCESS_MISSING: Fix(
        "Grant the cluster's identity Key Vault Crypto User on the vault; where the vault has access policies,"
        " give it encrypt and decrypt there.",
        _GRANT,
    ),
    Reason.ACCESS_WRAP_ONLY: Fix(
        "Grant Key Vault Crypto User: Key Vault Crypto Service Encryption User is not enough.", _GRANT
    ),
    Reason.ACCESS_UNKNOWN: Fix(
        "Let the app read role assignments and role definitions, and grant the role without a condition: of a private"
        " vault nobody else checks it before it is used.",
        _GRANT,
    ),
    Reason.READER_MISSING: Fix(
        "Grant the cluster's identity Key Vault Reader on the vault.",
        _GRANT.replace("Key Vault Crypto User", "Key Vault Reader"),
    ),
    Reason.PURGE_PROTECTION_OFF: Fix(
        "Turn purge protection on; it can't be turned off again.",
        _VAULT.format(verb="update") + " --enable-purge-protection true",
    ),
    Reason.ACCESS_REFUSED: Fix(
        "Compare the identity's roles with the vault's address and tenant; a new role assignment may help.", _GRANT
    ),
    Reason.KEY_NEAR_EXPIRY: Fix(
        f"Move the version's expiry first. {_ROTATES}", _KEY.format(verb="set-attributes") + _EXPIRY
    ),
    Reason.KEY_TOO_OLD: Fix(_ROTATES),
    Reason.ROTATION_POLICY_MISSING: Fix(
        "Give the key a rotation policy without an expiry.", _KEY.format(verb="rotation-policy show")
    ),
    Reason.EXPIRY_STAMPED: Fix(
        "Move the version's expiry, and take the expiry out of the key's rotation policy.",
        _KEY.format(verb="rotation-policy show"),
    ),
    Reason.VERSION_MISSING: Fix(
        "Find a backup of the former key, and ask Azure support: without that version these clusters may have to be"
        " created anew."
    ),
    Reason.VERSION_DISABLED: Fix(
        "Enable the version.", _KEY.format(verb="set-attributes") + " --version {version} --enabled true"
    ),
    Reason.VERSION_EXPIRED: Fix(
        "Move the version's expiry.", _KEY.format(verb="set-attributes") + " --version {version}" + _EXPIRY
    ),
    Reason.VERSION_NEAR_EXPIRY: Fix(
        "Move the version's expiry.", _KEY.format(verb="set-attributes") + " --version {version}" + _EXPIRY
    ),
    Reason.NOT_ANNOUNCED: Fix(
        "Subscribe the function on_key_event to the vault's events: `make events`. Where that is done, let the app's"
        " identity read Event Grid's system topics in the vault's subscription: a list leaves out what may not be read."
    ),
    Reason.STILL_IN_USE: Fix("Keep the version enabled, and find out what keeps the clusters from the newer one."),
    Reason.ADOPTION_OVERDUE: Fix(
        "Find out whether the clusters may use the version: its state, the vault's network, the identity's role."
    ),
    Reason.IDENTITY_SHARED: Fix("Give each cluster an identity of its own."),
    Reason.LOGS_UNREADABLE: Fix(
        "Grant the app's identity Log Analytics Reader on the workspace, or take it out of LOG_WORKSPACES."
    ),
    Reason.FEATURE_NOT_REGISTERED: Fix(
        "Register the feature, wait until it is Registered, then register the provider again.",
        "az feature register --subscription {subscription} --namespace Microsoft.ContainerService --name KMSPMKPreview"
        " && az provider register --subscription {subscription} --namespace Microsoft.ContainerService",
    ),
    Reason.NO_ETAG: Fix("Look at the cluster again; if the eTag stays missing, ask Azure support."),
    Reason.UNREADABLE: Fix("Give the app's identity the right to read managed clusters in this subscription."),
    Reason.PAUSED: Fix(
        "Find out why with GET /api/enforcement, mend it, then let the app go on: POST /api/enforcement/resume."
    ),
    Reason.CONFLICT: Fix("Find out who keeps changing the cluster, and let that end first."),
    Reason.CONTESTED: Fix(
        "Find out what sets the cluster back, a pipeline for example, then let the app go on:"
        " POST /api/clusters/{subscription}/{group}/{name}/resume."
    ),
    Reason.NOT_PERMITTED: Fix(
        "Give the app's identity {rights}. The page on security says which switch of the templates does that."
    ),
    Reason.BLOCKED: Fix("Mend what Azure's answer names: a lock, a policy, a setting."),
    Reason.WAITED_TOO_LONG: Fix(
        "What stood in the way, the second reason, did not pass by itself: find out why.",
        _AKS.format(verb="operation show-latest"),
    ),
    Reason.POISONED: Fix("Read the failure in the app's log; the next sweep looks at the cluster again."),
}
