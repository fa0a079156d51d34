"""Where a cluster says which addresses its pods and services have: the ConfigMap that the controller writes (D32)."""

from __future__ import annotations

NAMESPACE, NAME = "kube-public", "cluster-network"
POD_CIDR, SERVICE_CIDR = "podCIDR", "serviceCIDR"
"""The keys of its data; the value of each is one CIDR a family, with commas between."""
