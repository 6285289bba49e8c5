"""The documents of managed clusters: what a settled one is like, what no client may write, which encryption it says.

The shapes follow traffic recorded in the tests of the aks-preview CLI extension (PMK on create and on update).
"""

from __future__ import annotations

import uuid
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from local.simulator.identity import TENANT
from local.simulator.wire import Json, merge

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

CLUSTER_TYPE = "Microsoft.ContainerService/managedClusters"
PROVIDER = f"/providers/{CLUSTER_TYPE}"

type Encryption = Literal["none", "platform-managed", "customer-managed", "legacy"]
type IdentityKind = Literal["user-assigned", "system-assigned", "service-principal"]

VERSIONLESS_KEY = "https://kv-kms.vault.azure.net/keys/etcd"
VERSIONED_KEY = f"{VERSIONLESS_KEY}/0123456789abcdef0123456789abcdef"

# Paths that a client may send and the service ignores. `*` is any name; a pool stands under its name.
# Source: azure-mgmt-containerservice 41.8.0, the read-only properties of its models.
READ_ONLY = (
    "id",
    "name",
    "type",
    "systemData",
    "eTag",
    "identity.principalId",
    "identity.tenantId",
    "identity.userAssignedIdentities.*.principalId",
    "identity.userAssignedIdentities.*.clientId",
    "properties.provisioningState",
    "properties.powerState",
    "properties.currentKubernetesVersion",
    "properties.maxAgentPools",
    "properties.fqdn",
    "properties.privateFQDN",
    "properties.azurePortalFQDN",
    "properties.resourceUID",
    "properties.addonProfiles.*.identity",
    "properties.oidcIssuerProfile.issuerURL",
    "properties.ingressProfile.webAppRouting.identity",
    "properties.podIdentityProfile.provisioningState",
    "properties.podIdentityProfile.provisioningInfo",
    "properties.networkProfile.loadBalancerProfile.effectiveOutboundIPs",
    "properties.networkProfile.natGatewayProfile.effectiveOutboundIPs",
    "properties.agentPoolProfiles.*.eTag",
    "properties.agentPoolProfiles.*.provisioningState",
    "properties.agentPoolProfiles.*.currentOrchestratorVersion",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seed:
    """What a cluster to be seeded is like; every default is valid."""

    name: str
    subscription: str
    group: str = "rg-apps"
    location: str = "westeurope"
    kubernetes: str = "1.33.3"
    identity: IdentityKind = "user-assigned"
    principal_id: str | None = None
    encryption: Encryption = "none"
    key_id: str | None = None
    vault_id: str | None = None
    network_access: Literal["Public", "Private"] = "Public"
    state: str = "Succeeded"
    power: Literal["Running", "Stopped"] = "Running"
    pools: Sequence[Mapping[str, Any]] | None = None
    tags: Mapping[str, str] | None = None
    properties: Mapping[str, Any] | None = None

    @property
    def id(self) -> str:
        return cluster_id(self.subscription, self.group, self.name)

    def document(self) -> Json:
        """The cluster in ARM's shape, eTags and read-only properties included."""
        properties = _properties(self)
        merge(properties, deepcopy(dict(self.properties or {})))
        document: Json = {
            "id": self.id,
            "location": self.location,
            "name": self.name,
            "type": "Microsoft.ContainerService/ManagedClusters",
            "tags": dict(self.tags or {}),
            "kind": "Base",
            "properties": properties,
            "sku": {"name": "Base", "tier": "Free"},
            "systemData": {
                "createdBy": "platform-pipeline",
                "createdByType": "Application",
                "createdAt": "2025-10-11T15:55:06.1234567Z",
                "lastModifiedBy": "platform-pipeline",
                "lastModifiedByType": "Application",
                "lastModifiedAt": "2025-10-11T15:55:06.1234567Z",
            },
            "eTag": new_etag(),
        }
        if self.identity != "service-principal":
            document["identity"] = _identity(self)
        return document


def cluster_id(subscription: str, group: str, name: str) -> str:
    """The id as the service writes it: `resourcegroups` in lower case."""
    return f"/subscriptions/{subscription}/resourcegroups/{group}{PROVIDER}/{name}"


def new_etag() -> str:
    """An eTag: an unquoted GUID."""
    return str(uuid.uuid4())


def renew_etags(document: Json) -> None:
    """A cluster operation changes the cluster's eTag and those of its pools. Source: AKS docs, use-etags."""
    document["eTag"] = new_etag()
    for pool in document["properties"].get("agentPoolProfiles") or ():
        pool["eTag"] = new_etag()


def encryption_of(document: Json) -> str:
    """none, platform-managed, customer-managed, legacy; ambiguous where no source says what the service makes of it."""
    profile = document["properties"].get("securityProfile") or {}
    kms = profile.get("azureKeyVaultKms") or {}
    is_new = infrastructure_encryption(profile)
    if not kms.get("enabled"):
        return "platform-managed" if is_new else "none"
    is_versioned = is_versioned_key(str(kms.get("keyId")))
    if is_versioned == is_new:
        return "ambiguous"
    return "legacy" if is_versioned else "customer-managed"


def infrastructure_encryption(security_profile: Json) -> bool:
    """True for the new experience. An older preview API had `Disabled`, which is as good as absent."""
    profile = security_profile.get("kubernetesResourceObjectEncryptionProfile") or {}
    return profile.get("infrastructureEncryption") == "Enabled"


def is_versioned_key(key_id: str) -> bool:
    """True for `https://<vault>/keys/<name>/<version>`."""
    return len(key_id.removeprefix("https://").split("/")) == 4


def written(body: Json, current: Json) -> Json:
    """The document after a PUT: what the client sent, unknown properties too, and the service's own properties kept."""
    document = _pools_by_name(deepcopy(body))
    source = _pools_by_name(deepcopy(current))
    for path in READ_ONLY:
        _carry(document, source, path.split("."))
    return _pools_in_list(document)


def fill_generated(document: Json) -> None:
    """Give identities and pools that are new in a document what the service generates for them."""
    identity = document.get("identity") or {}
    if identity.get("type") == "SystemAssigned":
        identity.setdefault("principalId", str(uuid.uuid4()))
        identity.setdefault("tenantId", TENANT)
    for assigned in (identity.get("userAssignedIdentities") or {}).values():
        assigned.setdefault("clientId", str(uuid.uuid4()))
        assigned.setdefault("principalId", str(uuid.uuid4()))
    properties = document["properties"]
    for pool in properties.get("agentPoolProfiles") or ():
        pool.setdefault("eTag", new_etag())
        pool.setdefault("provisioningState", "Succeeded")
        pool.setdefault("currentOrchestratorVersion", properties["currentKubernetesVersion"])


def _carry(target: Json, source: Json, path: Sequence[str]) -> None:
    """Make `target` say at `path` what `source` says there. An object that the client left out stays left out."""
    head, *rest = path
    if not rest:
        target.pop(head, None)
        if head in source:
            target[head] = source[head]
        return
    for name in list(target) if head == "*" else [head]:
        if isinstance(target.get(name), dict):
            _carry(target[name], source.get(name) or {}, rest)


def _pools_by_name(document: Json) -> Json:
    pools = document["properties"].get("agentPoolProfiles")
    if pools is not None:
        document["properties"]["agentPoolProfiles"] = {pool["name"]: pool for pool in pools}
    return document


def _pools_in_list(document: Json) -> Json:
    pools = document["properties"].get("agentPoolProfiles")
    if pools is not None:
        document["properties"]["agentPoolProfiles"] = list(pools.values())
    return document


def _properties(seed: Seed) -> Json:
    node_group = f"MC_{seed.group}_{seed.name}_{seed.location}"
    prefix = f"{seed.name}-{uuid.uuid4().hex[:8]}"
    domain = f"hcp.{seed.location}.azmk8s.io"
    properties: Json = {
        "provisioningState": seed.state,
        "powerState": {"code": seed.power},
        "kubernetesVersion": seed.kubernetes,
        "currentKubernetesVersion": seed.kubernetes,
        "dnsPrefix": seed.name,
        "fqdn": f"{prefix}.{domain}",
        "azurePortalFQDN": f"{prefix}.portal.{domain}",
        "agentPoolProfiles": [_pool(seed, overrides) for overrides in seed.pools or ({},)],
        "linuxProfile": {
            "adminUsername": "azureuser",
            "ssh": {"publicKeys": [{"keyData": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIsimulated azureuser"}]},
        },
        "windowsProfile": {"adminUsername": "azureuser", "enableCSIProxy": True},
        # "msi" stands on clusters with a managed identity too
        "servicePrincipalProfile": {"clientId": "msi"},
        "nodeResourceGroup": node_group,
        "enableRBAC": True,
        "supportPlan": "KubernetesOfficial",
        "networkProfile": _network(seed, node_group),
        "maxAgentPools": 100,
        "identityProfile": {"kubeletidentity": _kubelet_identity(seed, node_group)},
        "autoUpgradeProfile": {"upgradeChannel": "patch", "nodeOSUpgradeChannel": "NodeImage"},
        "disableLocalAccounts": False,
        "securityProfile": _security_profile(seed),
        "storageProfile": {
            "diskCSIDriver": {"enabled": True},
            "fileCSIDriver": {"enabled": True},
            "snapshotController": {"enabled": True},
        },
        "oidcIssuerProfile": {
            "enabled": True,
            "issuerURL": f"https://{seed.location}.oic.prod-aks.azure.com/{TENANT}/{uuid.uuid4()}/",
        },
        "workloadAutoScalerProfile": {},
        "resourceUID": uuid.uuid4().hex[:24],
        # Known to no SDK so far: a client has to send it back as it came.
        "controlPlanePluginProfiles": {
            "azure-monitor-metrics-ccp": {"enableV2": True},
            "gpu-provisioner": {"enableV2": True},
            "karpenter": {"enableV2": True},
        },
        "metricsProfile": {"costAnalysis": {"enabled": False}},
        "nodeProvisioningProfile": {"mode": "Manual", "defaultNodePools": "Auto"},
        "bootstrapProfile": {"artifactSource": "Direct"},
    }
    if seed.identity == "service-principal":
        properties["servicePrincipalProfile"] = {"clientId": str(uuid.uuid4())}
        del properties["identityProfile"]
    return properties


def _pool(seed: Seed, overrides: Mapping[str, Any]) -> Json:
    pool: Json = {
        "name": "nodepool1",
        "count": 3,
        "vmSize": "Standard_D4ds_v5",
        "osDiskSizeGB": 128,
        "osDiskType": "Ephemeral",
        "kubeletDiskType": "OS",
        "maxPods": 110,
        "type": "VirtualMachineScaleSets",
        "enableAutoScaling": False,
        "scaleDownMode": "Delete",
        "provisioningState": "Succeeded",
        "powerState": {"code": seed.power},
        "orchestratorVersion": seed.kubernetes,
        "currentOrchestratorVersion": seed.kubernetes,
        "enableNodePublicIP": False,
        "mode": "System",
        "osType": "Linux",
        "osSKU": "Ubuntu",
        "nodeImageVersion": "AKSUbuntu-2204gen2containerd-202609.10.0",
        "upgradeSettings": {"maxSurge": "10%", "maxUnavailable": "0"},
        "enableFIPS": False,
        "securityProfile": {"enableVTPM": False, "enableSecureBoot": False},
        "eTag": new_etag(),
    }
    return merge(pool, deepcopy(dict(overrides)))


def _network(seed: Seed, node_group: str) -> Json:
    address = (
        f"/subscriptions/{seed.subscription}/resourceGroups/{node_group}"
        f"/providers/Microsoft.Network/publicIPAddresses/{uuid.uuid4()}"
    )
    return {
        "networkPlugin": "azure",
        "networkPluginMode": "overlay",
        "networkPolicy": "none",
        "networkDataplane": "azure",
        "loadBalancerSku": "standard",
        "loadBalancerProfile": {
            "managedOutboundIPs": {"count": 1},
            "effectiveOutboundIPs": [{"id": address}],
            "backendPoolType": "nodeIPConfiguration",
        },
        "podCidr": "10.244.0.0/16",
        "serviceCidr": "10.0.0.0/16",
        "dnsServiceIP": "10.0.0.10",
        "outboundType": "loadBalancer",
        "podCidrs": ["10.244.0.0/16"],
        "serviceCidrs": ["10.0.0.0/16"],
        "ipFamilies": ["IPv4"],
    }


def _kubelet_identity(seed: Seed, node_group: str) -> Json:
    resource = f"{assigned_identities(seed.subscription, node_group)}/{seed.name}-agentpool"
    return {"resourceId": resource, "clientId": str(uuid.uuid4()), "objectId": str(uuid.uuid4())}


def _identity(seed: Seed) -> Json:
    principal = seed.principal_id or str(uuid.uuid4())
    if seed.identity == "system-assigned":
        return {"type": "SystemAssigned", "principalId": principal, "tenantId": TENANT}
    resource = f"{assigned_identities(seed.subscription, seed.group)}/{seed.name}-identity"
    ids = {"clientId": str(uuid.uuid4()), "principalId": principal}
    return {"type": "UserAssigned", "userAssignedIdentities": {resource: ids}}


def assigned_identities(subscription: str, group: str) -> str:
    """Where the user-assigned identities of a group are."""
    scope = f"/subscriptions/{subscription}/resourceGroups/{group}"
    return f"{scope}/providers/Microsoft.ManagedIdentity/userAssignedIdentities"


def _security_profile(seed: Seed) -> Json:
    """`{}` where no KMS was ever set up."""
    profile: Json = {}
    if seed.encryption in ("platform-managed", "customer-managed"):
        profile["kubernetesResourceObjectEncryptionProfile"] = {"infrastructureEncryption": "Enabled"}
    if seed.encryption in ("customer-managed", "legacy"):
        default = VERSIONED_KEY if seed.encryption == "legacy" else VERSIONLESS_KEY
        kms = {"enabled": True, "keyId": seed.key_id or default, "keyVaultNetworkAccess": seed.network_access}
        profile["azureKeyVaultKms"] = kms | ({"keyVaultResourceId": seed.vault_id} if seed.vault_id else {})
    return profile
