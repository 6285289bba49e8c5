"""Azure Key Vault: vaults and keys as ARM shows them, and the data plane behind its firewall."""

from local.simulator.keyvault.data_plane import HOST_SUFFIX, authenticate
from local.simulator.keyvault.data_plane import ROUTES as DATA_PLANE_ROUTES
from local.simulator.keyvault.keys import KEY_OPERATIONS, SimulatedKey, SimulatedVersion
from local.simulator.keyvault.routes import ROUTES
from local.simulator.keyvault.state import NEW_VERSION, KeyVault
from local.simulator.keyvault.vaults import SimulatedVault, access_policy, vault_id

__all__ = [
    "DATA_PLANE_ROUTES",
    "HOST_SUFFIX",
    "KEY_OPERATIONS",
    "NEW_VERSION",
    "ROUTES",
    "KeyVault",
    "SimulatedKey",
    "SimulatedVault",
    "SimulatedVersion",
    "access_policy",
    "authenticate",
    "vault_id",
]
