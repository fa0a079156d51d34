"""Which nodes have the ports free that `wherry run -p` publishes, asked before there is a pod; and which node is this.

A port may be taken by a pod, which the API knows, or by a process of the node, which its agent knows.
"""

from __future__ import annotations

import ipaddress
import socket
from typing import Any

from api.client import Selection
from api.errors import ApiError, Forbidden
from api.host_ports import HostPort, clash, host_ports
from api.kinds import by_resource
from api.objects import Object, is_ready, name_of, namespace_of
from cli.cluster import Cluster
from cli.docker_options import spoken_port
from cli.problems import Problem

HOSTNAME_LABEL = "kubernetes.io/hostname"


async def avoid_taken_ports(cluster: Cluster, pod: Object, node: str | None) -> None:
    """Keeps the pod off nodes where a port of it is taken. Raises Problem, naming who has it, when no node is left."""
    wanted = _ports_of(pod)
    if not wanted:
        return
    nodes = [node] if node else await _ready_nodes(cluster)
    takers = {name: found for name in nodes if (found := await _taker(cluster, name, wanted))}
    if takers and len(takers) == len(nodes):
        port, who = next(iter(takers.values()))
        where = (
            f" on node {next(iter(takers))}" if len(nodes) == 1 else f" (and on every other node, {len(nodes)} in all)"
        )
        raise Problem(f"-p: port {spoken_port(port)} is taken by {who}{where}", "Publish another port, or end that.")
    if takers:
        expression = {"key": HOSTNAME_LABEL, "operator": "NotIn", "values": sorted(takers)}
        required = {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}
        pod["spec"]["affinity"] = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}


def _ports_of(pod: Object) -> list[HostPort]:
    network = bool(pod["spec"].get("hostNetwork"))
    return [port for one in pod["spec"]["containers"] for port in host_ports(one.get("ports") or (), network)]


async def _ready_nodes(cluster: Cluster) -> list[str]:
    return [name_of(node) for node in (await cluster.client.list(by_resource("", "nodes")))["items"] if is_ready(node)]


async def _taker(cluster: Cluster, node: str, wanted: list[HostPort]) -> tuple[HostPort, str] | None:
    """(port, who has it) of the first port that is taken on a node."""
    try:
        pods = (await cluster.client.list(by_resource("", "pods"), Selection(fields=f"spec.nodeName={node}")))["items"]
    except Forbidden:
        pods = []  # who may not see others' pods learns of a clash from the scheduler
    present = [(port, pod) for pod in pods if not _has_ended(pod) for port in _ports_of(pod)]
    for port in wanted:
        for other, pod in present:
            if clash(port, other):
                return port, f"pod {namespace_of(pod)}/{name_of(pod)}"
        if listener := await _listener(cluster, node, port):
            return port, listener
    return None


async def _listener(cluster: Cluster, node: str, port: HostPort) -> str:
    address, protocol, number = port
    path = f"/api/v1/nodes/{node}/proxy/wherry/v1/listeners/{protocol.lower()}/{number}"
    try:
        found = (await cluster.client.request("GET", path, {"address": address})).json()
    except ApiError:
        return ""  # a node that cannot be asked is no reason to refuse
    return str(found.get("listener") or "")


def _has_ended(pod: Any) -> bool:
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")


async def this_node(cluster: Cluster) -> str:
    """The node that this machine is, by its addresses. Raises Problem when it is none."""
    for node in (await cluster.client.list(by_resource("", "nodes")))["items"]:
        addresses = [one["address"] for one in (node.get("status") or {}).get("addresses") or ()]
        if any(_is_ours(address) for address in addresses):
            return name_of(node)
    raise Problem("this machine is no node of the cluster, so no container can mount its directories")


def _is_ours(address: str) -> bool:
    """Whether an address is one of this machine's: then, and only then, a socket can be bound to it."""
    try:
        family = socket.AF_INET if ipaddress.ip_address(address).version == 4 else socket.AF_INET6
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
    except (ValueError, OSError):
        return False
    return True
