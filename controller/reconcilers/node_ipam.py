"""Pod networks: every node gets a range of the cluster's CIDR as spec.podCIDR.

Run by the loop under one key, so that no range is given twice. `decide` is pure. Invariant: a range given is never
changed or taken back while the node exists. Rules: k8s.io/kubernetes pkg/controller/nodeipam (RangeAllocator).
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any

from api.objects import Object, name_of, uid_of
from controller.reconcilers.actions import Action, Note, Together, Write
from controller.reconcilers.loop import NOTHING, Decision, Failure, Source, Watch
from controller.reconcilers.node_lifecycle import NODES
from controller.reconcilers.views import Views
from controller.store.types import Event, EventType

Network = IPv4Network | IPv6Network
_ALL = "nodes"
_GIVEN = b'"podCIDR":"'


@dataclass(frozen=True)
class Observed:
    """`used`: the ranges that nodes have. `without`: the nodes that have none, oldest first. `told`: of those, whom we
    have told that nothing is left."""

    cluster: Network
    mask: int
    used: frozenset[str]
    without: tuple[Object, ...]
    told: frozenset[str] = frozenset()


def decide(observed: Observed) -> Decision:
    """The lowest free range for each node that has none."""
    if not observed.without:
        return NOTHING
    odd = [one for text in observed.used if (one := ip_network(text, strict=False)).prefixlen != observed.mask]
    free = (
        str(one)
        for one in observed.cluster.subnets(new_prefix=observed.mask)
        if str(one) not in observed.used and not any(one.version == each.version and one.overlaps(each) for each in odd)
    )
    actions: list[Action] = []
    for node in observed.without:
        cidr = next(free, None)
        if cidr is not None:
            patch = {"spec": {"podCIDR": cidr, "podCIDRs": [cidr]}}
            actions.append(Write(NODES, "", name_of(node), uid_of(node), merge=patch))
        elif uid_of(node) not in observed.told:
            text = f"Node {name_of(node)} status is now: CIDRNotAvailable"
            actions.append(Note(node, "Normal", "CIDRNotAvailable", text))
    return Decision((Together(tuple(actions)),)) if actions else NOTHING


class NodeIpam:
    name = "node-ipam-controller"
    concurrency = 1

    def __init__(self, views: Views, cluster_cidr: str, mask: int) -> None:
        self._views = views
        self._cluster: Network = ip_network(cluster_cidr)
        self._mask = mask
        self._told: set[str] = set()

    def sources(self) -> Sequence[Source]:
        return (Watch(NODES.resource, self._on_node),)

    def observe(self, key: str, failure: Failure | None) -> Observed | None:
        del key, failure
        nodes = [self._views.object(record) for record in self._views.store.list(NODES.resource).records]
        used = {cidr for node in nodes for cidr in _ranges_of(node)}
        without = sorted((node for node in nodes if not _ranges_of(node)), key=_age)
        told = self._told & {uid_of(node) for node in without}
        observed = Observed(self._cluster, self._mask, frozenset(used), tuple(without), frozenset(told))
        room = 2 ** (self._mask - self._cluster.prefixlen) - len(used)
        self._told = told | {uid_of(node) for node in without[max(0, room) :]}
        return observed

    def decide(self, observed: Observed) -> Decision:
        return decide(observed)

    def _on_node(self, event: Event) -> Iterable[Hashable]:
        """Only a node without a range, or one that gives its range back, changes anything."""
        waits = event.type is not EventType.DELETED and _GIVEN not in event.record.raw
        new = event.previous is None or _GIVEN in event.previous.raw
        returned = event.type is EventType.DELETED and _GIVEN in event.record.raw
        return (_ALL,) if (waits and new) or returned else ()


def _ranges_of(node: Object) -> Sequence[str]:
    spec: dict[str, Any] = node.get("spec") or {}
    ranges: list[str] = spec.get("podCIDRs") or ([spec["podCIDR"]] if spec.get("podCIDR") else [])
    return ranges


def _age(node: Object) -> tuple[str, str]:
    return (node["metadata"].get("creationTimestamp") or "", name_of(node))
