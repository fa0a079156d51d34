"""What pending pods ask for, reduced to classes of pods that are alike to the scheduler.

`class_of(pod)` gives equal classes for equal templates, so that filters and scores are worked out once for all
replicas. Called by `snapshot.py` (placed pods use resources, too) and `loop.py`; imports only `api`. Pure.

Rules: resource sums as in kubernetes.io/docs/concepts/workloads/pods/init-containers (resource sharing within
containers) and sidecar-containers; the non-zero defaults are kube-scheduler's (100m, 200Mi).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache, partial
from typing import Any

import orjson

from api.host_ports import HostPort, host_ports
from api.objects import Object, controller_of, labels_of, metadata, parse_time, uid_of
from api.quantity import millicores, parse_quantity

NONZERO_MILLICORES = 100
NONZERO_MEMORY_BYTES = 200 * 1024 * 1024
DEFAULT_SCHEDULER = "default-scheduler"


@dataclass(frozen=True, eq=False)
class PodClass:
    """All that placement depends on. Two pods of one class are interchangeable; compared by `key`."""

    key: bytes
    namespace: str
    labels: Mapping[str, str]
    owner_uid: str
    requests: Mapping[str, int]
    nonzero: tuple[int, int]
    host_ports: tuple[HostPort, ...]
    images: tuple[str, ...]
    spec: Mapping[str, Any] = field(repr=False)
    """The placement fields of the pod spec: nodeSelector, affinity, tolerations, topologySpreadConstraints."""

    @property
    def tolerations(self) -> list[Object]:
        return self.spec.get("tolerations") or []

    def affinity(self, kind: str) -> Mapping[str, Any]:
        """`nodeAffinity`, `podAffinity` or `podAntiAffinity`, {} when absent."""
        return (self.spec.get("affinity") or {}).get(kind) or {}

    @property
    def anti_affinity_terms(self) -> list[Object]:
        return self.affinity("podAntiAffinity").get("requiredDuringSchedulingIgnoredDuringExecution") or []

    @property
    def affinity_terms(self) -> list[Object]:
        return self.affinity("podAffinity").get("requiredDuringSchedulingIgnoredDuringExecution") or []

    @property
    def spread_constraints(self) -> list[Object]:
        return self.spec.get("topologySpreadConstraints") or []

    @property
    def is_topological(self) -> bool:
        """True when other pods' places matter beyond the spreading of one owner's pods."""
        return bool(self.affinity("podAffinity") or self.affinity("podAntiAffinity") or self.spread_constraints)


@dataclass(frozen=True)
class PendingPod:
    """A pod that waits for a node. Ordered by priority, then age."""

    uid: str
    namespace: str
    name: str
    priority: int
    created: datetime
    pod_class: PodClass

    @property
    def rank(self) -> tuple[int, datetime, str]:
        return (-self.priority, self.created, self.name)


_PLACEMENT_FIELDS = ("nodeSelector", "affinity", "tolerations", "topologySpreadConstraints")
_FINISHED = ("Succeeded", "Failed")


def is_pending(pod: Object) -> bool:
    """True for a pod that this scheduler has to place."""
    spec = pod.get("spec") or {}
    return (
        not spec.get("nodeName")
        and spec.get("schedulerName", DEFAULT_SCHEDULER) == DEFAULT_SCHEDULER
        and not spec.get("schedulingGates")
        and not metadata(pod).get("deletionTimestamp")
        and (pod.get("status") or {}).get("phase") not in _FINISHED
    )


def uses_node(pod: Object) -> bool:
    """True for a pod that holds resources on its node."""
    bound = bool((pod.get("spec") or {}).get("nodeName"))
    return bound and (pod.get("status") or {}).get("phase") not in _FINISHED


def pending_pod(pod: Object) -> PendingPod:
    data = metadata(pod)
    created = parse_time(data["creationTimestamp"])
    priority = (pod.get("spec") or {}).get("priority") or 0
    return PendingPod(uid_of(pod), data.get("namespace", ""), data.get("name", ""), priority, created, class_of(pod))


def class_of(pod: Object) -> PodClass:
    """The class of a pod: the same object for pods that are alike."""
    spec = pod.get("spec") or {}
    owner, held = controller_of(pod), _held_by(pod)
    identity = [
        metadata(pod).get("namespace", ""),
        labels_of(pod),
        owner["uid"] if owner else "",
        {name: spec[name] for name in _PLACEMENT_FIELDS if spec.get(name)},
        [_container_demand(pod, container, held) for container in spec.get("initContainers") or ()],
        [_container_demand(pod, container, held) for container in spec.get("containers") or ()],
        spec.get("overhead"),
        bool(spec.get("hostNetwork")),
    ]
    return _class_from(orjson.dumps(identity, option=orjson.OPT_SORT_KEYS))


def _held_by(pod: Object) -> dict[str, Mapping[str, Any]]:
    """Requests that a node has granted to the containers of a pod whose spec was changed; mostly {}."""
    if metadata(pod).get("generation", 1) == 1:
        return {}
    status = pod.get("status") or {}
    entries = (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ()))
    return {entry["name"]: entry["allocatedResources"] for entry in entries if entry.get("allocatedResources")}


def _is_infeasible(pod: Object) -> bool:
    """Whether its node has said that it will never have what it asks for now."""
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(entry["type"] == "PodResizePending" and entry.get("reason") == "Infeasible" for entry in conditions)


def _requests(pod: Object, container: Mapping[str, Any], held: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any]:
    """What a container takes: of one that is being resized, the larger of what it has and what it asks for."""
    resources = container.get("resources") or {}
    asked: Mapping[str, Any] = resources.get("requests") or resources.get("limits") or {}
    granted = held.get(container["name"])
    if granted is None or granted == asked:
        return asked
    if _is_infeasible(pod):
        return granted
    both = {name: (asked.get(name, 0), granted.get(name, 0)) for name in asked.keys() | granted.keys()}
    return {name: max(amounts, key=partial(amount_of, name)) for name, amounts in both.items()}


def _container_demand(pod: Object, container: Mapping[str, Any], held: Mapping[str, Mapping[str, Any]]) -> list[Any]:
    return [
        _requests(pod, container, held),
        [port for port in container.get("ports") or () if port.get("hostPort") or port.get("containerPort")],
        container.get("image", ""),
        container.get("restartPolicy") == "Always",
    ]


@lru_cache(maxsize=4096)
def _class_from(key: bytes) -> PodClass:
    namespace, labels, owner_uid, spec, init_containers, containers, overhead, host_network = orjson.loads(key)
    requests = _sum_requests(init_containers, containers)
    _add(requests, {name: amount_of(name, value) for name, value in (overhead or {}).items()})
    requests["pods"] = 1
    return PodClass(
        key=key,
        namespace=namespace,
        labels=labels,
        owner_uid=owner_uid,
        requests=requests,
        nonzero=_nonzero(containers),
        host_ports=tuple(_host_ports([*filter(_is_sidecar, init_containers), *containers], host_network)),
        images=tuple(container[2] for container in containers),
        spec=spec,
    )


def _sum_requests(init_containers: list[Any], containers: list[Any]) -> dict[str, int]:
    """The larger of: all long-running containers together, or any init container beside the sidecars before it."""
    sidecars: dict[str, int] = {}
    peak: dict[str, int] = {}
    for requests, _ports, _image, is_sidecar in init_containers:
        own = {name: amount_of(name, value) for name, value in requests.items()}
        _add(own, sidecars)
        _raise_to(peak, own)
        if is_sidecar:
            sidecars = own
    total = dict(sidecars)
    for requests, _ports, _image, _sidecar in containers:
        _add(total, {name: amount_of(name, value) for name, value in requests.items()})
    _raise_to(total, peak)
    return total


def _nonzero(containers: list[Any]) -> tuple[int, int]:
    cpu = sum(amount_of("cpu", c[0]["cpu"]) if "cpu" in c[0] else NONZERO_MILLICORES for c in containers)
    memory = sum(amount_of("memory", c[0]["memory"]) if "memory" in c[0] else NONZERO_MEMORY_BYTES for c in containers)
    return cpu, memory


def _is_sidecar(demand: list[Any]) -> bool:
    return bool(demand[3])


def _host_ports(containers: list[Any], host_network: bool) -> Iterable[HostPort]:
    for _requests, ports, _image, _sidecar in containers:
        yield from host_ports(ports, host_network)


def _add(total: dict[str, int], more: Mapping[str, int]) -> None:
    for name, amount in more.items():
        total[name] = total.get(name, 0) + amount


def _raise_to(total: dict[str, int], floor: Mapping[str, int]) -> None:
    for name, amount in floor.items():
        total[name] = max(total.get(name, 0), amount)


@lru_cache(maxsize=8192)
def amount_of(resource: str, quantity: str | int | float) -> int:
    """A resource amount as an integer: millicores for cpu, whole units (bytes, pieces) for everything else."""
    if resource == "cpu":
        return millicores(quantity)
    return int(parse_quantity(quantity).to_integral_value(rounding="ROUND_CEILING"))
