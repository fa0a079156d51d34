"""How much of a resource the containers of a pod may use together. Pure.

Called by the volumes (how big may memory be?) and by storage eviction. Rules: Kubernetes' PodLimits
(kubernetes.io/docs/concepts/configuration/manage-resources-containers): main containers and sidecars at once, or the
largest init container with the sidecars before it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent.pods.spec import init_containers, is_sidecar, main_containers
from api.objects import Object
from api.quantity import bytes_of


def limit_of(container: Mapping[str, Any], resource: str) -> int:
    """A container's own limit in bytes; 0: none."""
    return bytes_of(((container.get("resources") or {}).get("limits") or {}).get(resource, 0))


def pod_limit(pod: Object, resource: str) -> int:
    """The limit of all containers that have one, in bytes; 0: none has."""
    sidecars = peak = 0
    for container in init_containers(pod):
        own = limit_of(container, resource)
        peak = max(peak, sidecars + own)
        sidecars += own if is_sidecar(container) else 0
    return max(sidecars + sum(limit_of(container, resource) for container in main_containers(pod)), peak)


def bounding_limit(pod: Object, resource: str) -> int:
    """The limit of the pod as a whole: 0 when one container may use what it likes."""
    containers = (*init_containers(pod), *main_containers(pod))
    bounded = all(limit_of(container, resource) for container in containers)
    return pod_limit(pod, resource) if bounded else 0
