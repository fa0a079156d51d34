"""What NetworkPolicy v1 says about a flow, read off the API's documentation, on plain API objects.

https://kubernetes.io/docs/concepts/services-networking/network-policies/ (isolation, union, selectors, ports)
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]


@dataclass
class World:
    """`pods`, `policies`: API objects by (namespace, name); `namespaces`: labels by name."""

    pods: dict[tuple[str, str], Object]
    policies: dict[tuple[str, str], Object]
    namespaces: dict[str, dict[str, str]]

    def owner(self, ip: str) -> Object | None:
        """The pod that has an address; pods in the node's network and ended ones have none."""
        for pod in self.pods.values():
            counts = not pod["spec"].get("hostNetwork") and pod["status"]["phase"] not in ("Succeeded", "Failed")
            if counts and pod["status"].get("podIP") == ip:
                return pod
        return None


def is_allowed(world: World, source: str, destination: str, protocol: str, port: int) -> bool:
    """Both ends have to agree: the egress policies of the source, the ingress policies of the destination."""
    sender, receiver = world.owner(source), world.owner(destination)
    if sender is not None and sender is receiver:
        return True
    flow = (protocol, port)
    leaves = sender is None or _direction_allows(world, sender, "Egress", (destination, receiver, receiver), flow)
    enters = receiver is None or _direction_allows(world, receiver, "Ingress", (source, sender, receiver), flow)
    return leaves and enters


def leaves(world: World, source: str, destination: str, protocol: str, port: int) -> bool:
    """The sender's half only, as where the other end is on another node."""
    sender, receiver = world.owner(source), world.owner(destination)
    flow = (protocol, port)
    return sender is None or _direction_allows(world, sender, "Egress", (destination, receiver, receiver), flow)


def enters(world: World, source: str, destination: str, protocol: str, port: int) -> bool:
    sender, receiver = world.owner(source), world.owner(destination)
    flow = (protocol, port)
    return receiver is None or _direction_allows(world, receiver, "Ingress", (source, sender, receiver), flow)


def _direction_allows(world: World, pod: Object, direction: str, ends: Any, flow: tuple[str, int]) -> bool:
    namespace = pod["metadata"]["namespace"]
    applying = []
    for (home, _), policy in world.policies.items():
        spec = policy["spec"]
        isolates = home == namespace and direction in spec["policyTypes"]
        if isolates and selects(spec["podSelector"], pod["metadata"].get("labels") or {}):
            applying.append(spec)
    if not applying:
        return True
    peer_ip, peer, target = ends
    rules, peers = ("ingress", "from") if direction == "Ingress" else ("egress", "to")
    for spec in applying:
        for rule in spec.get(rules) or []:
            wanted_peers, wanted_ports = rule.get(peers), rule.get("ports")
            if wanted_peers and not any(_is_peer(world, namespace, each, (peer_ip, peer)) for each in wanted_peers):
                continue
            if wanted_ports and not any(_is_port(each, target, flow) for each in wanted_ports):
                continue
            return True
    return False


def _is_peer(world: World, home: str, peer: Object, end: tuple[str, Object | None]) -> bool:
    ip, pod = end
    if "ipBlock" in peer:
        address, block = ipaddress.ip_address(ip), peer["ipBlock"]
        inside = address in ipaddress.ip_network(block["cidr"])
        return inside and not any(address in ipaddress.ip_network(part) for part in block.get("except") or [])
    if pod is None:
        return False
    namespace = pod["metadata"]["namespace"]
    if "namespaceSelector" in peer:
        if not selects(peer["namespaceSelector"], world.namespaces.get(namespace, {})):
            return False
    elif namespace != home:
        return False
    return "podSelector" not in peer or selects(peer["podSelector"], pod["metadata"].get("labels") or {})


def _is_port(wanted: Object, target: Object | None, flow: tuple[str, int]) -> bool:
    protocol, port = flow
    if wanted.get("protocol", "TCP") != protocol:
        return False
    number = wanted.get("port")
    if number is None:
        return True
    if isinstance(number, str):
        containers = target["spec"]["containers"] if target is not None else []
        named = [each for container in containers for each in container.get("ports") or []]
        return any(p.get("name") == number and p["protocol"] == protocol and p["containerPort"] == port for p in named)
    return bool(number <= port <= (wanted.get("endPort") or number))


def selects(selector: Object, labels: dict[str, str]) -> bool:
    for key, value in (selector.get("matchLabels") or {}).items():
        if labels.get(key) != value:
            return False
    for expression in selector.get("matchExpressions") or []:
        key, operator, values = expression["key"], expression["operator"], expression.get("values") or []
        if operator == "In" and labels.get(key) not in values:
            return False
        if operator == "NotIn" and key in labels and labels[key] in values:
            return False
        if operator == "Exists" and key not in labels:
            return False
        if operator == "DoesNotExist" and key in labels:
            return False
    return True
