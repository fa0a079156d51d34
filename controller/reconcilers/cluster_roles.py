"""Aggregated ClusterRoles: their rules are those of the roles their selectors pick.

Run by the loop under one key: ClusterRoles are few and any may be part of any. The decision is pure. A role that is
itself aggregated and picked by another passes its rules on a step later. Rules: k8s.io/kubernetes
pkg/controller/clusterroleaggregation. Invariant: whatever somebody writes into the rules of an aggregated role goes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from api import kinds
from api.objects import Object, is_deleting, labels_of, name_of, uid_of
from api.selectors import from_object
from controller.reconcilers.actions import Write
from controller.reconcilers.loop import Decision, Failure, Source, Watch
from controller.reconcilers.views import Views

ROLES = kinds.by_resource("rbac.authorization.k8s.io", "clusterroles")
_ALL = "all"


@dataclass(frozen=True)
class Observed:
    """Every ClusterRole."""

    roles: tuple[Object, ...]


def aggregated_rules(role: Object, roles: Iterable[Object]) -> list[Object]:
    """The rules an aggregated role should have: by selector, then by the name of the picked role, each once."""
    rules: list[Object] = []
    others = sorted((each for each in roles if name_of(each) != name_of(role)), key=name_of)
    for selector in (role.get("aggregationRule") or {}).get("clusterRoleSelectors") or ():
        picks = from_object(selector)
        for other in others:
            if picks.matches(labels_of(other)):
                rules += [rule for rule in other.get("rules") or () if rule not in rules]
    return rules


def decide(observed: Observed) -> Decision:
    actions = []
    for role in observed.roles:
        if role.get("aggregationRule") is None or is_deleting(role):
            continue
        rules = aggregated_rules(role, observed.roles)
        if rules != (role.get("rules") or []):
            actions.append(Write(ROLES, "", name_of(role), uid_of(role), replace={"rules": rules}))
    return Decision(tuple(actions))


class ClusterRoleAggregation:
    name = "clusterrole-aggregation-controller"
    concurrency = 1

    def __init__(self, views: Views) -> None:
        self._views = views

    def sources(self) -> Sequence[Source]:
        return (Watch(ROLES.resource, lambda event: (_ALL,)),)

    def observe(self, key: str, failure: Failure | None) -> Observed:
        del key, failure
        return Observed(tuple(self._views.object(record) for record in self._views.store.list(ROLES.resource).records))

    def decide(self, observed: Observed) -> Decision:
        return decide(observed)
