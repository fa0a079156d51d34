"""Which Services select which pods, kept in step by events: what the reconcilers of this package watch and look at.

`ServicePods` is one reconciler's; `EndpointPods` is shared by them. Imports the loop's vocabulary and the store.
Invariant: one pod's event costs the same however many Services there are: a Service is filed under the one label of its
selector that the fewest others of its namespace are filed under.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import Any

from api.objects import Object
from api.selectors import from_labels
from controller.reconcilers.endpoints.facts import (
    NODES,
    PODS,
    SERVICES,
    ZONE,
    EndpointPod,
    endpoint_pod,
    selector_of,
)
from controller.reconcilers.loop import Watch
from controller.store import Query, Store
from controller.store.types import Event, EventType, Key, Record

_Anchor = tuple[str, str, str]
"""(namespace, label, value)"""


class EndpointPods:
    """The pods that some Service selects, read once a version."""

    def __init__(self) -> None:
        self._known: dict[Key, tuple[int, EndpointPod]] = {}

    def of(self, record: Record) -> EndpointPod:
        known = self._known.get(record.key)
        if known is not None and known[0] == record.version:
            return known[1]
        facts = endpoint_pod(record.parse())
        self._known[record.key] = (record.version, facts)
        return facts

    def differ(self, previous: Record, record: Record) -> bool:
        """Whether a change of a pod is one that endpoints show."""
        known = self._known.get(record.key)
        before = known[1] if known is not None and known[0] == previous.version else endpoint_pod(previous.parse())
        return before != self.of(record)

    def forget(self, key: Key) -> None:
        self._known.pop(key, None)


class ServicePods:
    """Maps events to the Services they concern, and a Service to its pods."""

    def __init__(self, store: Store, pods: EndpointPods) -> None:
        self._store = store
        self._pods = pods
        self._selectors: dict[tuple[str, str], tuple[_Anchor, Mapping[str, str]]] = {}
        self._anchored: dict[_Anchor, dict[str, Mapping[str, str]]] = {}

    def watches(self, *, nodes: bool = False) -> tuple[Watch, ...]:
        """Services last: then what exists at the start makes each of them dirty once, not once a pod and node."""
        on_node = (Watch(NODES.resource, self._on_node),) if nodes else ()
        return (*on_node, Watch(PODS.resource, self._on_pod), Watch(SERVICES.resource, self._on_service))

    def service(self, key: tuple[str, str]) -> Object | None:
        record = self._store.get(Key(*SERVICES.resource, *key))
        return record.parse() if record is not None else None

    def pods_of(self, service: Mapping[str, Any]) -> tuple[EndpointPod, ...]:
        """The pods that a Service selects, in the order of their names."""
        query = Query(namespace=service["metadata"]["namespace"], labels=from_labels(selector_of(service)))
        return tuple(self._pods.of(record) for record in self._store.list(PODS.resource, query).records)

    def zones_of(self, pods: Iterable[EndpointPod]) -> Mapping[str, str]:
        """The zone of each node that these pods are on and that exists."""
        found = {name: self._store.get(Key(*NODES.resource, "", name)) for name in {pod.node for pod in pods}}
        return {name: node.labels.get(ZONE, "") for name, node in found.items() if node is not None}

    def selecting(self, namespace: str, labels: Mapping[str, str]) -> set[tuple[str, str]]:
        """The Services that select a pod with these labels."""
        found: set[tuple[str, str]] = set()
        if not self._anchored:
            return found
        for label in labels.items():
            for name, selector in self._anchored.get((namespace, *label), {}).items():
                if selector.items() <= labels.items():
                    found.add((namespace, name))
        return found

    def _on_service(self, event: Event) -> Iterable[Hashable]:
        key = (event.record.key.namespace, event.record.key.name)
        selector = {} if event.type is EventType.DELETED else dict(selector_of(event.record.parse()))
        filed = self._selectors.pop(key, None)
        if filed is not None:
            anchor, _ = filed
            del self._anchored[anchor][key[1]]
            if not self._anchored[anchor]:
                del self._anchored[anchor]
        if selector:
            anchor = min(((key[0], *label) for label in selector.items()), key=self._crowd)
            self._anchored.setdefault(anchor, {})[key[1]] = selector
            self._selectors[key] = (anchor, selector)
        return (key,)

    def _crowd(self, anchor: _Anchor) -> int:
        return len(self._anchored.get(anchor, ()))

    def _on_pod(self, event: Event) -> Iterable[Hashable]:
        """Events come by thousands: pods that nothing selects are not even parsed."""
        record, previous = event.record, event.previous
        services = self.selecting(record.key.namespace, record.labels)
        if event.type is EventType.DELETED:
            self._pods.forget(record.key)
            return services
        if previous is None:
            return services
        before = services if previous.labels == record.labels else self.selecting(record.key.namespace, previous.labels)
        if not services and not before:
            return ()
        if self._pods.differ(previous, record):
            return services | before
        return services ^ before

    def _on_node(self, event: Event) -> Iterable[Hashable]:
        """A node that comes, goes or moves to another zone concerns the Services of its pods."""
        record, previous = event.record, event.previous
        same = previous is not None and previous.labels.get(ZONE) == record.labels.get(ZONE)
        if same and event.type is EventType.MODIFIED:
            return ()
        pods = self._store.by_node(record.key.name)
        return {key for pod in pods for key in self.selecting(pod.key.namespace, pod.labels)}
