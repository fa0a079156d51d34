"""Nobody hands out rights he does not have: roles and bindings are checked against the writer's own rules.

An admission check the server gives to the registry (`RegistrySettings.checks`), so that create, update and every kind
of patch pass it. Reads RBAC's cached rules. Invariant: a user without `escalate` (or `bind`) on a role can neither
create a rule he lacks nor bind anybody to one.
Rules: https://kubernetes.io/docs/reference/access-authn-authz/rbac/ (privilege escalation prevention).
"""

from __future__ import annotations

from collections.abc import Iterable

from controller.admission.attributes import Attributes as Write
from controller.admission.types import MASTERS_GROUP
from controller.server.authorization import Attributes, Chain, forbidden_resource
from controller.server.rbac import GROUP, Rbac, Rule

_ROLES = ("roles", "clusterroles")


class EscalationCheck:
    """Called by the admission chain for every write."""

    def __init__(self, rbac: Rbac, authorizer: Chain) -> None:
        self._rbac = rbac
        self._authorizer = authorizer

    def __call__(self, write: Write) -> None:
        """Raises Forbidden when the written role or binding grants more than its writer has."""
        if write.kind.group != GROUP or write.obj is None or MASTERS_GROUP in write.request.user.groups:
            return
        if write.kind.plural in _ROLES:
            if not self._may(write, "escalate", write.kind.plural, write.name):
                self._require(write, (Rule.of(rule) for rule in write.obj.get("rules") or ()))
            return
        reference = write.obj.get("roleRef") or {}
        plural = "clusterroles" if reference.get("kind") == "ClusterRole" else "roles"
        if not self._may(write, "bind", plural, reference.get("name") or ""):
            self._require(write, self._rbac.rules_of_role(reference, write.namespace))

    def _may(self, write: Write, verb: str, plural: str, name: str) -> bool:
        wanted = Attributes(write.request.user, verb, GROUP, plural, namespace=write.namespace, name=name)
        return self._authorizer.authorize(wanted).allowed

    def _require(self, write: Write, granted: Iterable[Rule]) -> None:
        user = write.request.user
        held = self._rbac.rules_of(user, write.namespace)
        missing = [part for rule in granted for part in rule.split() if not any(mine.covers(part) for mine in held)]
        if missing:
            why = (
                f'user "{user.name}" (groups={list(user.groups)}) is attempting to grant RBAC permissions not currently'
            )
            why += " held:\n" + "\n".join(sorted(map(_shown, missing)))
            raise forbidden_resource(write.kind.group, write.kind.plural, write.name, why)


def _shown(rule: Rule) -> str:
    fields = (
        ("APIGroups", rule.groups),
        ("Resources", rule.resources),
        ("ResourceNames", rule.names),
        ("NonResourceURLs", rule.urls),
        ("Verbs", rule.verbs),
    )
    listed = (f"{name}:[{', '.join(repr(value) for value in sorted(values))}]" for name, values in fields if values)
    return "{" + ", ".join(listed) + "}"
