"""A NetworkPolicy as what acts on packets: which pods it isolates in which direction, and what it lets through.

Made by `feed` out of API objects, read by `compiler` and `rules`. Pure. Invariant: a field that the API leaves out has
here the meaning that the API gives it, so that nobody else has to know defaults.
Source: https://kubernetes.io/docs/reference/kubernetes-api/policy-resources/network-policy-v1/
"""

from __future__ import annotations

from dataclasses import dataclass

from agent.network.model import Key, key_of
from api.objects import Object
from api.selectors import EVERYTHING, LabelSelector, from_object


@dataclass(frozen=True, slots=True)
class Block:
    """An ipBlock: addresses by CIDR, without those of `excepts`."""

    cidr: str
    excepts: tuple[str, ...] = ()


@dataclass(frozen=True)
class PodGroup:
    """Pods by their labels: in the namespace `namespace`, or, where that is "", in those that `namespaces` selects."""

    namespace: str
    namespaces: LabelSelector
    pods: LabelSelector

    def __str__(self) -> str:
        return f"{self.namespace}|{self.namespaces}|{self.pods}"


Peer = Block | PodGroup


@dataclass(frozen=True, slots=True)
class PolicyPort:
    """`first` to `last` of a protocol; a named port has a `name` and 0; all ports of the protocol: "" and 0."""

    protocol: str
    first: int = 0
    last: int = 0
    name: str = ""


@dataclass(frozen=True, slots=True)
class Allowance:
    """One ingress or egress rule. No peers: everybody. No ports: everything, also what has no ports."""

    peers: tuple[Peer, ...] = ()
    ports: tuple[PolicyPort, ...] = ()


Allowances = tuple[Allowance, ...]


@dataclass(frozen=True, slots=True)
class Policy:
    """`ingress`, `egress`: None when the policy does not isolate that direction; () isolates and allows nothing."""

    key: Key
    pods: LabelSelector
    ingress: Allowances | None
    egress: Allowances | None


def parse_policy(obj: Object) -> Policy:
    """ValueError for selectors that the API would not have accepted."""
    key, spec = key_of(obj), obj.get("spec") or {}
    types = spec.get("policyTypes") or ["Ingress", *(["Egress"] if spec.get("egress") else [])]
    return Policy(
        key=key,
        pods=from_object(spec.get("podSelector") or {}),
        ingress=_allowances(key[0], spec.get("ingress"), "from") if "Ingress" in types else None,
        egress=_allowances(key[0], spec.get("egress"), "to") if "Egress" in types else None,
    )


def _allowances(namespace: str, rules: list[Object] | None, peers: str) -> Allowances:
    return tuple(
        Allowance(
            tuple(_peer(namespace, peer) for peer in rule.get(peers) or ()),
            tuple(_port(port) for port in rule.get("ports") or ()),
        )
        for rule in rules or ()
    )


def _peer(namespace: str, peer: Object) -> Peer:
    if (block := peer.get("ipBlock")) is not None:
        return Block(block["cidr"], tuple(block.get("except") or ()))
    pods = from_object(peer["podSelector"]) if peer.get("podSelector") is not None else EVERYTHING
    if peer.get("namespaceSelector") is None:
        return PodGroup(namespace, EVERYTHING, pods)
    return PodGroup("", from_object(peer["namespaceSelector"]), pods)


def _port(port: Object) -> PolicyPort:
    protocol, wanted = port.get("protocol") or "TCP", port.get("port")
    if isinstance(wanted, str) and not wanted.isdigit():
        return PolicyPort(protocol, name=wanted)
    first = int(wanted or 0)
    return PolicyPort(protocol, first, int(port.get("endPort") or first))
