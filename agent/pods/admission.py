"""Whether this node can take a pod at all. Pure; asked once for every pod that is new here.

The scheduler asks the same before it binds; this is for pods that name their node themselves, and for races. Reasons
and messages are those of the kubelet's general predicates.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from agent.pods.resizing import Pending
from agent.pods.spec import init_containers, is_sidecar, main_containers
from agent.pods.status import Rejection
from api.host_ports import HostPort, clash, host_ports
from api.objects import Object
from api.placement import selects_node
from api.quantity import bytes_of, millicores

NODE_AFFINITY = "NodeAffinity"
_AFFINITY = "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector"
_SAFE_SYSCTLS = frozenset(
    ("kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.tcp_syncookies", "net.ipv4.ping_group_range")
) | {
    *("net.ipv4.ip_unprivileged_port_start", "net.ipv4.ip_local_reserved_ports", "net.ipv4.tcp_keepalive_time"),
    *("net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_keepalive_intvl", "net.ipv4.tcp_keepalive_probes"),
    *("net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem"),
}
"""Those that change nothing outside the pod: kubernetes.io/docs/tasks/administer-cluster/sysctl-cluster."""
_PORTS = "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports"


@dataclass
class NodeFacts:
    """What the node offers. Mutable: labels follow the Node object."""

    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    allocatable: Mapping[str, str] = field(default_factory=dict)
    read_labels: Callable[[], Awaitable[Mapping[str, str]]] | None = None
    """Reads the Node's labels from the API; waits until the node is registered."""


def admit(pod: Object, others: Iterable[Object], node: NodeFacts) -> Rejection | None:
    """None: the pod may start. `others` are the pods of the node that are not finished."""
    present = list(others)
    if not selects_node(pod["spec"], node.name, node.labels):
        return Rejection(NODE_AFFINITY, _AFFINITY)
    wanted = _ports(pod)
    if wanted and any(clash(one, taken) for other in present for taken in _ports(other) for one in wanted):
        return Rejection("NodePorts", _PORTS)
    return _forbidden_sysctl(pod) or _fits(pod, present, node)


def judge_resize(pod: Object, others: Iterable[Object], node: NodeFacts) -> Pending | None:
    """None: a pod that is here may have what it asks for now. `others` are the other pods of the node, as granted."""
    asked = requests_of(pod)
    for resource in ("memory", "cpu"):
        capacity = _amount(resource, node.allocatable.get(resource, "0"))
        if asked.get(resource, 0) > capacity:
            numbers = f"requested: {asked[resource]}, capacity: {capacity}"
            return Pending("Infeasible", f"Node didn't have enough capacity: {resource}, {numbers}")
    rejection = _fits(pod, list(others), node)
    return Pending("Deferred", rejection.message) if rejection is not None else None


def _forbidden_sysctl(pod: Object) -> Rejection | None:
    """Sysctls that other pods or the node would feel are allowed to nobody."""
    given = (pod["spec"].get("securityContext") or {}).get("sysctls") or ()
    for name in (entry["name"].replace("/", ".") for entry in given):
        if name not in _SAFE_SYSCTLS:
            return Rejection("SysctlForbidden", f'forbidden sysctl: "{name}" not allowlisted')
    return None


def _ports(pod: Object) -> list[HostPort]:
    lasting = (*filter(is_sidecar, init_containers(pod)), *main_containers(pod))
    host_network = bool(pod["spec"].get("hostNetwork"))
    return [taken for container in lasting for taken in host_ports(container.get("ports") or (), host_network)]


def _fits(pod: Object, others: list[Object], node: NodeFacts) -> Rejection | None:
    most_pods = int(node.allocatable.get("pods", "110"))
    if len(others) + 1 > most_pods:
        return _out_of("pods", 1, len(others), most_pods)
    for resource, amount in requests_of(pod).items():
        if resource not in node.allocatable and not amount:
            continue
        capacity = _amount(resource, node.allocatable.get(resource, "0"))
        used = sum(requests_of(other).get(resource, 0) for other in others)
        if amount and amount + used > capacity:
            return _out_of(resource, amount, used, capacity)
    return None


def _out_of(resource: str, requested: int, used: int, capacity: int) -> Rejection:
    numbers = f"requested: {requested}, used: {used}, capacity: {capacity}"
    return Rejection(f"OutOf{resource}", f"Node didn't have enough resource: {resource}, {numbers}")


def requests_of(pod: Object) -> dict[str, int]:
    """What a pod asks of its node: the main containers and sidecars together, or the largest init container."""
    total: dict[str, int] = {}
    peak: dict[str, int] = {}
    for container in init_containers(pod):
        own = _own_requests(container)
        for resource, amount in own.items():
            peak[resource] = max(peak.get(resource, 0), amount + total.get(resource, 0))
            if is_sidecar(container):
                total[resource] = total.get(resource, 0) + amount
    for container in main_containers(pod):
        for resource, amount in _own_requests(container).items():
            total[resource] = total.get(resource, 0) + amount
    overhead = {name: _amount(name, value) for name, value in (pod["spec"].get("overhead") or {}).items()}
    names = total.keys() | peak.keys() | overhead.keys()
    return {name: max(total.get(name, 0), peak.get(name, 0)) + overhead.get(name, 0) for name in names}


def _own_requests(container: Mapping[str, Any]) -> dict[str, int]:
    resources = container.get("resources") or {}
    given = {**(resources.get("limits") or {}), **(resources.get("requests") or {})}
    return {name: _amount(name, value) for name, value in given.items()}


def _amount(resource: str, value: Any) -> int:
    return millicores(value) if resource == "cpu" else bytes_of(value)
