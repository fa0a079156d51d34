"""Role-based access control: which rules a user has, and whether one of them covers a request.

Called through authorization.Chain, by reviews.py (rules review) and escalation.py. Reads roles and bindings from the
store's cache; what a user may do is computed once and kept until any role or binding changes. Invariant: purely
additive, as in Kubernetes; a binding to a missing role grants nothing.
Rules: https://kubernetes.io/docs/reference/access-authn-authz/rbac/
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

from api.objects import Object
from controller.admission.types import User
from controller.server.authorization import ALLOWED, NO_OPINION, Attributes, Decision
from controller.store import Query, Store
from controller.store.types import Event, Key

GROUP = "rbac.authorization.k8s.io"
RESOURCES = tuple((GROUP, plural) for plural in ("roles", "rolebindings", "clusterroles", "clusterrolebindings"))
CACHE_USERS = 4096
_SERVICE_ACCOUNT = "system:serviceaccount:"


@dataclass(frozen=True)
class Rule:
    """One PolicyRule."""

    verbs: frozenset[str]
    groups: frozenset[str] = frozenset()
    resources: frozenset[str] = frozenset()
    names: frozenset[str] = frozenset()
    urls: frozenset[str] = frozenset()

    @staticmethod
    def of(wire: Mapping[str, Any]) -> Rule:
        return Rule(
            frozenset(wire.get("verbs") or ()),
            frozenset(wire.get("apiGroups") or ()),
            frozenset(wire.get("resources") or ()),
            frozenset(wire.get("resourceNames") or ()),
            frozenset(wire.get("nonResourceURLs") or ()),
        )

    def allows(self, wanted: Attributes) -> bool:
        if wanted.verb not in self.verbs and "*" not in self.verbs:
            return False
        if wanted.path:
            return any(_url_matches(url, wanted.path) for url in self.urls)
        if wanted.group not in self.groups and "*" not in self.groups:
            return False
        if not self._names_resource(wanted.resource, wanted.subresource):
            return False
        return not self.names or wanted.name in self.names

    def _names_resource(self, resource: str, subresource: str) -> bool:
        if "*" in self.resources:
            return True
        if not subresource:
            return resource in self.resources
        return f"{resource}/{subresource}" in self.resources or f"*/{subresource}" in self.resources

    def covers(self, other: Rule) -> bool:
        """Whether holding this rule means holding `other`, a rule of one verb, group and resource (or URL)."""
        if not _holds(self.verbs, other.verbs):
            return False
        if other.urls:
            return all(any(_url_matches(mine, url) for mine in self.urls) for url in other.urls)
        if not _holds(self.groups, other.groups) or not all(self._covers_resource(r) for r in other.resources):
            return False
        return not self.names or (bool(other.names) and other.names <= self.names)

    def _covers_resource(self, resource: str) -> bool:
        if resource in self.resources or "*" in self.resources:
            return True
        _, slash, subresource = resource.partition("/")
        return bool(slash) and f"*/{subresource}" in self.resources


def pieces_of(wire: Mapping[str, Any]) -> Iterator[Object]:
    """A PolicyRule as rules of one verb, group, resource and name each, in Kubernetes' order, for `covers`."""
    verbs, names = wire.get("verbs") or (), wire.get("resourceNames") or ()
    for group, resource, verb in product(wire.get("apiGroups") or (), wire.get("resources") or (), verbs):
        piece: Object = {"apiGroups": [group], "resources": [resource], "verbs": [verb]}
        if not names:
            yield piece
        yield from ({**piece, "resourceNames": [name]} for name in names)
    for url, verb in product(wire.get("nonResourceURLs") or (), verbs):
        yield {"nonResourceURLs": [url], "verbs": [verb]}


def missing_in(held: Iterable[Rule], wanted: Iterable[Mapping[str, Any]]) -> list[Object]:
    """The pieces of `wanted` that none of the rules covers."""
    mine = tuple(held)
    pieces = (piece for rule in wanted for piece in pieces_of(rule))
    return [piece for piece in pieces if not any(rule.covers(Rule.of(piece)) for rule in mine)]


def _holds(mine: frozenset[str], wanted: frozenset[str]) -> bool:
    return "*" in mine or wanted <= mine


def _url_matches(pattern: str, path: str) -> bool:
    if pattern == "*" or pattern == path:
        return True
    return pattern.endswith("*") and path.startswith(pattern.rstrip("*"))


class Rbac:
    """Answers from the cached roles and bindings of a store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._rules: dict[tuple[str, tuple[str, ...], str], tuple[Rule, ...]] = {}
        self._cancel = [store.subscribe(resource, self._changed) for resource in RESOURCES]

    def close(self) -> None:
        for cancel in self._cancel:
            cancel()

    def authorize(self, attributes: Attributes) -> Decision:
        for rule in self.rules_of(attributes.user, attributes.namespace):
            if rule.allows(attributes):
                return ALLOWED
        return NO_OPINION

    def rules_of(self, user: User, namespace: str) -> tuple[Rule, ...]:
        """Every rule the user has at cluster scope and, if given, in `namespace`."""
        key = (user.name, user.groups, namespace)
        found = self._rules.get(key)
        if found is None:
            if len(self._rules) >= CACHE_USERS:
                self._rules.clear()
            found = self._rules[key] = tuple(dict.fromkeys(self._collect(user, namespace)))
        return found

    def rules_of_role(self, role_ref: Mapping[str, Any], namespace: str) -> list[Object] | None:
        """The rules of the role a binding in `namespace` ("" for a cluster one) names; None if it is missing."""
        name = role_ref.get("name") or ""
        if role_ref.get("kind") == "ClusterRole":
            record = self._store.get(Key(GROUP, "clusterroles", "", name))
        else:
            record = self._store.get(Key(GROUP, "roles", namespace, name))
        if record is None:
            return None
        return record.parse().get("rules") or []

    def _collect(self, user: User, namespace: str) -> Iterator[Rule]:
        yield from self._bound(user, ("clusterrolebindings", ""))
        if namespace:
            yield from self._bound(user, ("rolebindings", namespace))

    def _bound(self, user: User, where: tuple[str, str]) -> Iterator[Rule]:
        plural, namespace = where
        for record in self._store.list((GROUP, plural), Query(namespace=namespace)).records:
            binding = record.parse()
            if applies_to(binding.get("subjects") or (), user, namespace):
                rules = self.rules_of_role(binding.get("roleRef") or {}, namespace)
                yield from (Rule.of(rule) for rule in rules or ())

    def _changed(self, event: Event) -> None:
        del event
        self._rules.clear()


def applies_to(subjects: Iterable[Mapping[str, Any]], user: User, namespace: str) -> bool:
    """Whether any subject of a binding is this user."""
    for subject in subjects:
        name = subject.get("name") or ""
        match subject.get("kind"):
            case "User" if name == user.name:
                return True
            case "Group" if name in user.groups:
                return True
            case "ServiceAccount":
                where = subject.get("namespace") or namespace
                if where and user.name == f"{_SERVICE_ACCOUNT}{where}:{name}":
                    return True
    return False
