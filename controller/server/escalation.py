"""Nobody hands out rights he does not have: roles and bindings are checked against the writer's own rules.

An admission check the server gives to the registry (`RegistrySettings.checks`), so that create, update and every kind
of patch pass it. Reads RBAC's cached rules. Invariant: a user without `escalate` (or `bind`) on a role can neither
create a rule he lacks nor bind anybody to one.
Rules: https://kubernetes.io/docs/reference/access-authn-authz/rbac/ (privilege escalation prevention).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from api.errors import Forbidden, not_found
from api.objects import Object
from controller.admission.attributes import Attributes as Write
from controller.admission.attributes import Operation
from controller.admission.types import MASTERS_GROUP
from controller.server.authorization import Attributes, Chain, forbidden_resource
from controller.server.rbac import GROUP, Rbac, missing_in

_ROLES = ("roles", "clusterroles")
_EVERYTHING = (
    {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]},
    {"nonResourceURLs": ["*"], "verbs": ["*"]},
)
"""An aggregated role can gather anything, so who makes one has to have it all."""
_CLEANED_UP = ("ownerReferences", "finalizers", "managedFields", "resourceVersion")
_GO_NAMES = {"apiGroups": "APIGroups"}


class EscalationCheck:
    """Called by the admission chain for every write."""

    def __init__(self, rbac: Rbac, authorizer: Chain) -> None:
        self._rbac = rbac
        self._authorizer = authorizer

    def __call__(self, write: Write) -> None:
        """Raises Forbidden when the written role or binding grants more than its writer has, NotFound when it binds to
        a role that does not exist."""
        if write.kind.group != GROUP or write.obj is None or MASTERS_GROUP in write.request.user.groups:
            return
        if write.old is not None and _only_cleans_up(write.obj, write.old):
            return
        if write.kind.plural in _ROLES:
            self._check_role(write, write.obj)
        else:
            self._check_binding(write, write.obj.get("roleRef") or {})

    def _check_role(self, write: Write, role: Object) -> None:
        name = write.name if write.operation is not Operation.CREATE else ""  # a POST names nothing
        if self._may(write, "escalate", write.kind.plural, name):
            return
        if missing := self._missing(write, role.get("rules") or ()):
            raise _refused(write, missing)
        aggregates = any((each or {}).get("aggregationRule") is not None for each in (role, write.old))
        if aggregates and self._missing(write, _EVERYTHING):
            why = "must have cluster-admin privileges to use the aggregationRule"
            raise forbidden_resource(write.kind.group, write.kind.plural, write.name, why)

    def _check_binding(self, write: Write, reference: Mapping[str, Any]) -> None:
        plural = "clusterroles" if reference.get("kind") == "ClusterRole" else "roles"
        name = reference.get("name") or ""
        if self._may(write, "bind", plural, name):
            return
        granted = self._rbac.rules_of_role(reference, write.namespace)
        if granted is None:
            raise not_found(GROUP, plural, name)
        if missing := self._missing(write, granted):
            raise _refused(write, missing)

    def _may(self, write: Write, verb: str, plural: str, name: str) -> bool:
        wanted = Attributes(write.request.user, verb, GROUP, plural, namespace=write.namespace, name=name)
        return self._authorizer.authorize(wanted).allowed

    def _missing(self, write: Write, granted: Iterable[Mapping[str, Any]]) -> list[Object]:
        return missing_in(self._rbac.rules_of(write.request.user, write.namespace), granted)


def _only_cleans_up(new: Mapping[str, Any], old: Mapping[str, Any]) -> bool:
    """Whether a write changes nothing, or only what garbage collection changes."""

    def rest(obj: Mapping[str, Any]) -> Object:
        metadata = {name: value for name, value in obj["metadata"].items() if name not in _CLEANED_UP}
        return {**obj, "metadata": metadata}

    return rest(new) == rest(old)


def _refused(write: Write, missing: Iterable[Mapping[str, Any]]) -> Forbidden:
    user = write.request.user
    groups = " ".join(map(_quoted, user.groups))
    why = f"user {_quoted(user.name)} (groups=[{groups}]) is attempting to grant RBAC permissions not currently held:\n"
    why += "\n".join(sorted({_shown(rule) for rule in _compact(missing)}))
    return forbidden_resource(write.kind.group, write.kind.plural, write.name, why)


def _compact(pieces: Iterable[Mapping[str, Any]]) -> list[Object]:
    """Pieces that differ in the verb only are told as one."""
    plain: dict[tuple[str, str], Object] = {}
    rules: list[Object] = []
    for piece in pieces:
        if "resourceNames" in piece or "nonResourceURLs" in piece:
            rules.append(dict(piece))
            continue
        where = piece["apiGroups"][0], piece["resources"][0]
        rule = plain.setdefault(where, {**piece, "verbs": []})
        rule["verbs"] += piece["verbs"]
    return rules + list(plain.values())


def _shown(rule: Mapping[str, Any]) -> str:
    fields = ("apiGroups", "resources", "nonResourceURLs", "resourceNames", "verbs")
    listed = (
        f"{_GO_NAMES.get(name, name[0].upper() + name[1:])}:[{' '.join(map(_quoted, rule[name]))}]"
        for name in fields
        if rule.get(name)
    )
    return "{" + ", ".join(listed) + "}"


def _quoted(text: str) -> str:
    return orjson.dumps(text).decode()
