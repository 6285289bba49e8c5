"""Azure Kubernetes Service: managed clusters as ARM shows them."""

from local.simulator.aks.documents import cluster_id
from local.simulator.aks.routes import ROUTES
from local.simulator.aks.run_command import ENTRA_SERVER, SimulatedCommand
from local.simulator.aks.secrets import AuditLine, Kek, Secret, SecretsUnreadable, Unreadable
from local.simulator.aks.state import Aks, SimulatedCluster
from local.simulator.aks.vault_access import Fault

__all__ = [
    "ENTRA_SERVER",
    "ROUTES",
    "Aks",
    "AuditLine",
    "Fault",
    "Kek",
    "Secret",
    "SecretsUnreadable",
    "SimulatedCluster",
    "SimulatedCommand",
    "Unreadable",
    "cluster_id",
]
