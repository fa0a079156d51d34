"""Which pods took more of the disk than they may, and which have to go when it is nearly full. Pure.

Called by the storage watch. Rules, their order and wording (with its blank at the end) are the kubelet's:
kubernetes.io/docs/concepts/scheduling-eviction/node-pressure-eviction and .../storage/ephemeral-storage.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from agent.pods.admission import requests_of
from agent.pods.limits import limit_of, pod_limit
from agent.pods.spec import all_containers, main_containers
from api.objects import Object
from api.quantity import bytes_of, render_quantity

RESOURCE = "ephemeral-storage"
LEAST_WORTH_BYTES = 1 << 20
"""A pod that takes less is not evicted for a full disk: nothing would be gained."""
SYSTEM_CRITICAL_PRIORITY = 2_000_000_000


@dataclass(frozen=True)
class Use:
    """Bytes that a pod takes: by emptyDir and configMap volume; by container (layer and logs); its other files."""

    volumes: Mapping[str, int] = field(default_factory=dict)
    containers: Mapping[str, int] = field(default_factory=dict)
    other: int = 0


def is_in_memory(volume: Mapping[str, Any]) -> bool:
    """Whether a volume is an emptyDir that takes memory instead of the disk."""
    return (volume.get("emptyDir") or {}).get("medium") == "Memory"


def is_limited(pod: Object) -> bool:
    """Whether anything says how much of the disk the pod may take."""
    return bool(pod_limit(pod, RESOURCE)) or any(_size_limit(volume) for volume in _volumes(pod))


def is_critical(pod: Object) -> bool:
    """Whether the pod is one that its node does not evict."""
    return int(pod["spec"].get("priority") or 0) >= SYSTEM_CRITICAL_PRIORITY


def excess(pod: Object, use: Use) -> str:
    """The message with which the pod is to be evicted; "" when it keeps to its limits."""
    for volume in _volumes(pod):
        limit = _size_limit(volume)
        if limit and use.volumes.get(volume["name"], 0) > limit:
            text = (volume["emptyDir"] or {})["sizeLimit"]
            return f'Usage of EmptyDir volume "{volume["name"]}" exceeds the limit "{text}". '
    whole = pod_limit(pod, RESOURCE)
    if whole and _on_disk(pod, use) > whole:
        shown = render_quantity(Decimal(whole), _notation(pod))
        return f"Pod ephemeral local storage usage exceeds the total limit of containers {shown}. "
    for container in main_containers(pod):
        own = limit_of(container, RESOURCE)
        if own and use.containers.get(container["name"], 0) > own:
            text = container["resources"]["limits"][RESOURCE]
            return f'Container {container["name"]} exceeded its local ephemeral storage limit "{text}". '
    return ""


def first_to_go(uses: Iterable[tuple[Object, Use]]) -> tuple[Object, Use] | None:
    """Whom a nearly full disk costs its place: who exceeds its request, then the least important, then the biggest."""

    def rank(entry: tuple[Object, Use]) -> tuple[bool, int, int]:
        pod, use = entry
        over = _on_disk(pod, use) - requests_of(pod).get(RESOURCE, 0)
        return over <= 0, int(pod["spec"].get("priority") or 0), -over

    worth = [(pod, use) for pod, use in uses if not is_critical(pod) and _on_disk(pod, use) >= LEAST_WORTH_BYTES]
    return min(worth, key=rank, default=None)


def shortage(pod: Object, use: Use, threshold_bytes: int, available_bytes: int) -> str:
    """The message with which a pod is evicted for a nearly full disk."""
    threshold, available = _kibibytes(threshold_bytes), _kibibytes(available_bytes)
    text = f"The node was low on resource: {RESOURCE}. Threshold quantity: {threshold}, available: {available}. "
    for container in main_containers(pod):
        own = use.containers.get(container["name"], 0)
        asked = ((container.get("resources") or {}).get("requests") or {}).get(RESOURCE, "0")
        if own > bytes_of(asked):
            amounts = f"was using {_kibibytes(own)}, request is {asked}"
            text += f"Container {container['name']} {amounts}, has larger consumption of {RESOURCE}. "
    return text


def _kibibytes(amount: int) -> str:
    return f"{amount // 1024}Ki"


def _volumes(pod: Object) -> list[Object]:
    found: list[Object] = pod["spec"].get("volumes") or []
    return found


def _size_limit(volume: Mapping[str, Any]) -> int:
    return bytes_of((volume.get("emptyDir") or {}).get("sizeLimit") or 0)


def _on_disk(pod: Object, use: Use) -> int:
    volumes = sum(use.volumes.get(volume["name"], 0) for volume in _volumes(pod) if not is_in_memory(volume))
    return volumes + sum(use.containers.values()) + use.other


def _notation(pod: Object) -> str:
    """A sum is written as the first of its summands is."""
    limits = ((container.get("resources") or {}).get("limits") or {} for container in all_containers(pod))
    return next((str(given[RESOURCE]) for given in limits if RESOURCE in given), "")
