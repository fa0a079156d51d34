"""Which addresses are in which named set, kept in step with pods and namespaces one change at a time.

Owned by `compiler`. Only sets that a policy of this node looks into are kept. Invariants: a pod's change is compared
with the sets of its own namespace only; an address is in a set while any pod that has it is; what changed since the
last `settle` is known without comparing whole sets, so ten thousand members cost nothing while they stay.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from agent.network.model import Key, PodAddress
from agent.network.policy.records import PodGroup
from agent.network.policy.rules import NamedPort, Source

NAMESPACE_NAME_LABEL = "kubernetes.io/metadata.name"


class Elements:
    """A named set's elements, counted, and what changed since the kernel was told."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._before: dict[str, bool] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(self._counts)

    def count(self, element: str, change: int) -> None:
        self._before.setdefault(element, element in self._counts)
        self._counts[element] += change
        if not self._counts[element]:
            del self._counts[element]

    def changes(self) -> tuple[list[str], list[str]]:
        """(come, gone) since the last `settle`."""
        changed = [(element, was) for element, was in self._before.items() if was != (element in self._counts)]
        return [each for each, was in changed if not was], [each for each, was in changed if was]

    def settle(self) -> None:
        self._before.clear()


class Members:
    """`elements` holds each active set's elements."""

    def __init__(self) -> None:
        self.elements: dict[Source, Elements] = {}
        self.pods: dict[Key, PodAddress] = {}
        self._namespaces: dict[str, Mapping[str, str]] = {}
        self._keys: dict[str, set[Key]] = {}
        self._wide: set[PodGroup] = set()
        """Active groups that select namespaces."""
        self._groups: dict[str, set[PodGroup]] = {}
        """Active groups by each namespace they cover."""
        self._names: dict[NamedPort, Elements] = {}

    def put_namespace(self, name: str, labels: Mapping[str, str] | None) -> None:
        """A namespace came or changed its labels; None: it went."""
        labels = {NAMESPACE_NAME_LABEL: name} if labels is None else labels
        for group in self._wide:
            before, now = self._covers(group, name), group.namespaces.matches(labels)
            if before != now:
                self._cover(group, name, 1 if now else -1)
        self._namespaces[name] = labels

    def put_pod(self, key: Key, pod: PodAddress | None) -> None:
        """A pod came or changed; None: it went."""
        old = self.pods.pop(key, None)
        for change, each in ((1, pod), (-1, old)):  # an address that stays is never out
            if each is not None and not each.host_network and not each.ended:
                self._count(each, change)
        if pod is None:
            self._keys.get(key[0], set()).discard(key)
        else:
            self.pods[key] = pod
            self._keys.setdefault(key[0], set()).add(key)

    def activate(self, wanted: Iterable[Source]) -> None:
        """Keep these sets and no others."""
        wanted = set(wanted)
        for source in self.elements.keys() - wanted:
            self._forget(source)
        for source in wanted - self.elements.keys():
            self._learn(source)

    def settle(self) -> None:
        for elements in self.elements.values():
            elements.settle()

    def _learn(self, source: Source) -> None:
        elements = self.elements[source] = Elements()
        if isinstance(source, NamedPort):
            self._names[source] = elements
            for pod in self.pods.values():
                if not pod.host_network and not pod.ended:
                    _count_port(pod, source, elements, 1)
            return
        if source.namespace:
            self._cover(source, source.namespace, 1)
            return
        self._wide.add(source)
        for namespace in self._keys.keys() | self._namespaces.keys() | self._groups.keys():
            if source.namespaces.matches(self._labels(namespace)):
                self._cover(source, namespace, 1)

    def _forget(self, source: Source) -> None:
        del self.elements[source]
        if isinstance(source, NamedPort):
            del self._names[source]
            return
        self._wide.discard(source)
        for groups in self._groups.values():
            groups.discard(source)

    def _covers(self, group: PodGroup, namespace: str) -> bool:
        return group in self._groups.get(namespace, ())

    def _cover(self, group: PodGroup, namespace: str, change: int) -> None:
        """A group takes in, or leaves, the pods of a namespace."""
        groups = self._groups_in(namespace)
        (groups.add if change > 0 else groups.discard)(group)
        for key in self._keys.get(namespace, ()):
            pod = self.pods[key]
            if not pod.host_network and not pod.ended and group.pods.matches(pod.labels):
                self._count_all(group, pod.ips, change)

    def _groups_in(self, namespace: str) -> set[PodGroup]:
        if namespace not in self._groups:
            self._groups[namespace] = {each for each in self._wide if each.namespaces.matches(self._labels(namespace))}
        return self._groups[namespace]

    def _labels(self, namespace: str) -> Mapping[str, str]:
        return self._namespaces.get(namespace) or {NAMESPACE_NAME_LABEL: namespace}

    def _count(self, pod: PodAddress, change: int) -> None:
        for group in self._groups_in(pod.key[0]):
            if group.pods.matches(pod.labels):
                self._count_all(group, pod.ips, change)
        for name, elements in self._names.items():
            _count_port(pod, name, elements, change)

    def _count_all(self, group: PodGroup, ips: Iterable[str], change: int) -> None:
        for ip in ips:
            self.elements[group].count(ip, change)


def _count_port(pod: PodAddress, wanted: NamedPort, elements: Elements, change: int) -> None:
    for name, protocol, number in pod.ports:
        if name == wanted.name and protocol == wanted.protocol:
            for ip in pod.ips:
                elements.count(f"{ip} . {number}", change)
