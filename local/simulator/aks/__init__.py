"""Azure Kubernetes Service: managed clusters as ARM shows them."""

from local.simulator.aks.documents import cluster_id
from local.simulator.aks.routes import ROUTES
from local.simulator.aks.state import Aks, SimulatedCluster

__all__ = ["ROUTES", "Aks", "SimulatedCluster", "cluster_id"]
