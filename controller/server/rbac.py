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
from typing import Any, NamedTuple

from api.objects import Object
from controller.admission.types import User
from controller.server.authorization import NO_OPINION, Attributes, Decision
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


class Grant(NamedTuple):
    """A rule somebody has, as it is written in its role; `decision` says by which binding."""

    rule: Rule
    wire: Object
    decision: Decision


class Held(NamedTuple):
    """All that somebody has; `missing` tells of bindings whose role does not exist."""

    grants: tuple[Grant, ...]
    missing: tuple[str, ...] = ()

    @property
    def refusal(self) -> Decision:
        if not self.missing:
            return NO_OPINION
        shown = self.missing[0] if len(self.missing) == 1 else f"[{', '.join(self.missing)}]"
        return Decision(False, f"RBAC: {shown}")


class Rbac:
    """Answers from the cached roles and bindings of a store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._held: dict[tuple[str, tuple[str, ...], str], Held] = {}
        self._cancel = [store.subscribe(resource, self._changed) for resource in RESOURCES]

    def close(self) -> None:
        for cancel in self._cancel:
            cancel()

    def authorize(self, attributes: Attributes) -> Decision:
        held = self.held_by(attributes.user, attributes.namespace)
        for grant in held.grants:
            if grant.rule.allows(attributes):
                return grant.decision
        return held.refusal

    def held_by(self, user: User, namespace: str) -> Held:
        """What the user is granted at cluster scope and, if given, in `namespace`."""
        key = (user.name, user.groups, namespace)
        found = self._held.get(key)
        if found is None:
            if len(self._held) >= CACHE_USERS:
                self._held.clear()
            found = self._held[key] = self._collect(user, namespace)
        return found

    def rules_of(self, user: User, namespace: str) -> tuple[Rule, ...]:
        """Every rule of `held_by`."""
        return tuple(grant.rule for grant in self.held_by(user, namespace).grants)

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

    def _collect(self, user: User, namespace: str) -> Held:
        places = [("clusterrolebindings", "")] + ([("rolebindings", namespace)] if namespace else [])
        grants: dict[Rule, Grant] = {}
        missing: dict[str, None] = {}
        for plural, where in places:
            for record in self._store.list((GROUP, plural), Query(namespace=where)).records:
                binding = record.parse()
                subject = subject_of(binding.get("subjects") or (), user, where)
                if subject is None:
                    continue
                reference = binding.get("roleRef") or {}
                rules = self.rules_of_role(reference, where)
                if rules is None:
                    missing[f'{str(reference.get("kind")).lower()}.{GROUP} "{reference.get("name")}" not found'] = None
                source = _source(record.key, reference, _described(subject, where))
                for wire in rules or ():
                    rule = Rule.of(wire)
                    grants.setdefault(rule, Grant(rule, wire, Decision(True, f"RBAC: allowed by {source}")))
        return Held(tuple(grants.values()), tuple(missing))

    def _changed(self, event: Event) -> None:
        del event
        self._held.clear()


def subject_of(subjects: Iterable[Mapping[str, Any]], user: User, namespace: str) -> Mapping[str, Any] | None:
    """The first subject of a binding that is this user."""
    for subject in subjects:
        name = subject.get("name") or ""
        match subject.get("kind"):
            case "User" if name == user.name:
                return subject
            case "Group" if name in user.groups:
                return subject
            case "ServiceAccount":
                where = subject.get("namespace") or namespace
                if where and user.name == f"{_SERVICE_ACCOUNT}{where}:{name}":
                    return subject
    return None


def _described(subject: Mapping[str, Any], namespace: str) -> str:
    name = subject.get("name")
    if subject.get("kind") == "ServiceAccount":
        name = f"{name}/{subject.get('namespace') or namespace}"
    return f'{subject.get("kind")} "{name}"'


def _source(key: Key, reference: Mapping[str, Any], subject: str) -> str:
    """A binding as Kubernetes tells of it."""
    binding = f'RoleBinding "{key.name}/{key.namespace}"' if key.namespace else f'ClusterRoleBinding "{key.name}"'
    return f'{binding} of {reference.get("kind")} "{reference.get("name")}" to {subject}'
