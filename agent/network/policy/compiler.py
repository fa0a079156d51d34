"""Policies, namespaces and pods in; the node's chains, verdicts and named sets out.

Owned by `part`, fed one change at a time, compiled when the kernel is to be told. No I/O. Only pods of this node get
chains: a chain a policy and direction, a chain a combination of policies that some pod has, shared by all pods that
have the same. A chain's name is the digest of its rules, so a chain is never changed, only replaced: equal names mean
equal rules. Invariant: what `compile` returns depends on the records alone, not on the order in which they came.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from agent.network.model import Key, PodAddress, family_of
from agent.network.policy.members import Elements, Members
from agent.network.policy.records import Allowances, Policy
from agent.network.policy.rules import Rules, Source, digest, render_allowances, set_name, sources_of

INGRESS, EGRESS = True, False


@dataclass(frozen=True)
class Ruleset:
    """One family's desired state. `ingress`, `egress`: address -> chain; `known`: all addresses of this node's pods."""

    chains: Mapping[str, Rules] = field(default_factory=dict)
    ingress: Mapping[str, str] = field(default_factory=dict)
    egress: Mapping[str, str] = field(default_factory=dict)
    known: frozenset[str] = frozenset()
    sets: Mapping[str, tuple[Source, Elements]] = field(default_factory=dict)
    """Shared with the compiler: elements change in place, and know what changed."""


@dataclass(frozen=True)
class _Isolation:
    """The policies that isolate a pod, by direction, in the order of their names."""

    ingress: tuple[Key, ...]
    egress: tuple[Key, ...]


class Compiler:
    """For the node called `node`. Policies' rules are rendered once and only while they isolate a pod of this node."""

    def __init__(self, node: str) -> None:
        self._node = node
        self.members = Members()
        self.policies: dict[Key, Policy] = {}
        self._by_namespace: dict[str, dict[Key, Policy]] = defaultdict(dict)
        self._local: dict[Key, _Isolation] = {}
        self._doubtful: set[Key] = set()
        """Pods of this node whose isolation is to be looked at again."""
        self._rendered: dict[tuple[Key, bool, int], Rules] = {}

    def put_policy(self, key: Key, policy: Policy | None) -> None:
        """A policy came or changed; None: it went."""
        self.policies.pop(key, None)
        self._by_namespace[key[0]].pop(key, None)
        for direction in (INGRESS, EGRESS):
            for family in (4, 6):
                self._rendered.pop((key, direction, family), None)
        if policy is not None:
            self.policies[key] = self._by_namespace[key[0]][key] = policy
        self._doubtful.update(pod for pod in self._local if pod[0] == key[0])

    def put_pod(self, key: Key, pod: PodAddress | None) -> None:
        """A pod came or changed; None: it went."""
        self.members.put_pod(key, pod)
        if key in self._local or (pod is not None and pod.node == self._node):
            self._doubtful.add(key)

    def local(self) -> Iterable[Key]:
        """This node's pods, as of the last `compile`."""
        return self._local.keys()

    def compile(self, families: Iterable[int]) -> dict[int, Ruleset]:
        """What the kernel shall hold, by family."""
        self._judge_doubtful()
        active = {(key, way) for pod in self._local.values() for key, way in _directions(pod)}
        self._rendered = {name: rules for name, rules in self._rendered.items() if name[:2] in active}
        self.members.activate(source for key, way in active for source in sources_of(self._allowances(key, way)))
        return {family: self._ruleset(family) for family in families}

    def _judge_doubtful(self) -> None:
        for key in self._doubtful:
            pod = self.members.pods.get(key)
            if pod is None or pod.node != self._node or pod.host_network or pod.ended or not pod.ips:
                self._local.pop(key, None)
            else:
                self._local[key] = self._isolation(pod)
        self._doubtful.clear()

    def _isolation(self, pod: PodAddress) -> _Isolation:
        chosen = [each for each in self._by_namespace[pod.key[0]].values() if each.pods.matches(pod.labels)]
        return _Isolation(
            tuple(sorted(each.key for each in chosen if each.ingress is not None)),
            tuple(sorted(each.key for each in chosen if each.egress is not None)),
        )

    def _allowances(self, key: Key, ingress: bool) -> Allowances:
        policy = self.policies[key]
        return (policy.ingress if ingress else policy.egress) or ()

    def _ruleset(self, family: int) -> Ruleset:
        chains: dict[str, Rules] = {}
        verdicts: dict[bool, dict[str, str]] = {INGRESS: {}, EGRESS: {}}
        known: set[str] = set()
        for key, isolation in sorted(self._local.items()):
            addresses = [ip for ip in self.members.pods[key].ips if family_of(ip) == family]
            known.update(addresses)
            for way, policies in ((INGRESS, isolation.ingress), (EGRESS, isolation.egress)):
                if policies and addresses:
                    verdicts[way].update(dict.fromkeys(addresses, self._chain(policies, way, family, chains)))
        sets = {set_name(source): (source, elements) for source, elements in self.members.elements.items()}
        return Ruleset(chains, verdicts[INGRESS], verdicts[EGRESS], frozenset(known), sets)

    def _chain(self, policies: tuple[Key, ...], ingress: bool, family: int, chains: dict[str, Rules]) -> str:
        """The chain of a combination of policies; it and those it jumps to are in `chains` afterwards."""
        jumps = []
        for key in policies:
            if rules := self._rules(key, ingress, family):
                name = f"policy_{digest(';'.join(rules))}"
                chains[name] = rules
                jumps.append(f"jump {name}")
        rules = (*dict.fromkeys(jumps), "drop")
        name = f"union_{digest(';'.join(rules))}"
        chains[name] = rules
        return name

    def _rules(self, key: Key, ingress: bool, family: int) -> Rules:
        name = (key, ingress, family)
        if name not in self._rendered:
            self._rendered[name] = render_allowances(self._allowances(key, ingress), ingress=ingress, family=family)
        return self._rendered[name]


def _directions(isolation: _Isolation) -> Iterator[tuple[Key, bool]]:
    yield from ((key, INGRESS) for key in isolation.ingress)
    yield from ((key, EGRESS) for key in isolation.egress)
