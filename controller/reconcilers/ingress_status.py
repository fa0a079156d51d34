"""The addresses of Ingresses: status.loadBalancer of each one that wherry serves names the nodes that answer for it.

Run by the loop, one key an Ingress. `decide` is pure. The nodes are those that carry the label and are Ready, each by
its ExternalIP, else its InternalIP addresses. An Ingress of another controller's class is left to that one.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from api import kinds
from api.ingress import controller_of_class, is_ingress_node, is_ours
from api.objects import Object, is_ready, labels_of, name_of
from controller.reconcilers.actions import put_status
from controller.reconcilers.loop import NOTHING, Decision, Failure, Source, Watch, own_key
from controller.reconcilers.node_lifecycle import NODES
from controller.reconcilers.views import Views
from controller.store.types import Event, EventType, Key

INGRESSES = kinds.by_resource("networking.k8s.io", "ingresses")
CLASSES = ("networking.k8s.io", "ingressclasses")


@dataclass(frozen=True)
class Observed:
    """`controllers`: spec.controller of each IngressClass. `addresses` of the nodes that serve."""

    ingress: Object
    controllers: Mapping[str, str]
    addresses: tuple[str, ...]


def decide(observed: Observed) -> Decision:
    if not is_ours(observed.ingress, observed.controllers):
        return NOTHING
    shown = (observed.ingress.get("status") or {}).get("loadBalancer") or {}
    wanted = {"ingress": [{"ip": address} for address in observed.addresses]} if observed.addresses else {}
    if shown == wanted:
        return NOTHING
    return Decision(status=put_status(INGRESSES, observed.ingress, {"loadBalancer": wanted}))


def addresses_of(nodes: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    """In the order of the nodes' names, each address once."""
    serving = sorted((node for node in nodes if is_ingress_node(labels_of(node)) and is_ready(node)), key=name_of)
    return tuple(dict.fromkeys(address for node in serving for address in _addresses(node)))


def _addresses(node: Mapping[str, Any]) -> list[str]:
    listed = (node.get("status") or {}).get("addresses") or ()
    by_type = {kind: [each["address"] for each in listed if each["type"] == kind] for kind in _TYPES}
    return by_type["ExternalIP"] or by_type["InternalIP"]


_TYPES = ("ExternalIP", "InternalIP")


class IngressStatus:
    name = "ingress-status-controller"
    concurrency = 4

    def __init__(self, views: Views) -> None:
        self._views = views

    def sources(self) -> Sequence[Source]:
        return (
            Watch(INGRESSES.resource, own_key),
            Watch(CLASSES, self._all),
            Watch(NODES.resource, self._on_node),
        )

    def observe(self, key: tuple[str, str], failure: Failure | None) -> Observed | None:
        del failure
        ingress = self._views.get(Key(*INGRESSES.resource, *key))
        if ingress is None:
            return None
        store = self._views.store
        classes = [self._views.object(record) for record in store.list(CLASSES).records]
        nodes = [record for record in store.list(NODES.resource).records if is_ingress_node(record.labels)]
        controllers = {name_of(each): controller_of_class(each) for each in classes}
        return Observed(ingress, controllers, addresses_of(self._views.object(record) for record in nodes))

    def decide(self, observed: Observed) -> Decision:
        return decide(observed)

    def _on_node(self, event: Event) -> Iterable[Hashable]:
        """Only a node that begins or ends to serve, or moves, changes anything."""
        before = event.previous.parse() if event.previous is not None else None
        now = None if event.type is EventType.DELETED else event.record.parse()
        shown = (addresses_of([node] if node is not None else ()) for node in (before, now))
        return self._all(event) if len(set(shown)) > 1 else ()

    def _all(self, event: Event) -> Iterable[Hashable]:
        del event
        return [
            (record.key.namespace, record.key.name) for record in self._views.store.list(INGRESSES.resource).records
        ]
