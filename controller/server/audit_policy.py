"""The audit policy: which requests are logged, and how much of each; a file in Kubernetes' format, audit.k8s.io/v1.

Read once at start by `config`, asked by `audit` for every request. Pure. Invariant: the first rule that matches
decides; a policy that cannot be understood in full is refused with the place, never half obeyed.
https://kubernetes.io/docs/tasks/debug/debug-cluster/audit/#audit-policy
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from controller.admission.types import User
from controller.server.target import Target

LEVELS = ("None", "Metadata", "Request", "RequestResponse")
RECEIVED, STARTED, COMPLETE, PANIC = STAGES = ("RequestReceived", "ResponseStarted", "ResponseComplete", "Panic")
"""An event's stage: the user is known; a watch, exec or the like is under way; all is over; we failed."""


class BadPolicy(ValueError):
    """The policy file cannot be used; the message says where it is wrong."""


@dataclass(frozen=True)
class Rule:
    """One rule of a policy; an empty field matches everything. `resources`: (group, resources, names)."""

    level: str
    users: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()
    verbs: frozenset[str] = frozenset()
    resources: tuple[tuple[str, frozenset[str], frozenset[str]], ...] = ()
    namespaces: frozenset[str] = frozenset()
    urls: tuple[str, ...] = ()
    omitted_stages: frozenset[str] = frozenset()
    omits_managed_fields: bool = False

    def matches(self, user: User, verb: str, target: Target | None, path: str) -> bool:
        if self.users and user.name not in self.users:
            return False
        if self.groups and not self.groups.intersection(user.groups):
            return False
        if self.verbs and verb not in self.verbs:
            return False
        if not self.resources and not self.namespaces and not self.urls:
            return True
        if target is None:
            return any(url == path or (url.endswith("*") and path.startswith(url[:-1])) for url in self.urls)
        if self.urls or (self.namespaces and target.namespace not in self.namespaces):
            return False
        return not self.resources or any(_names(each, target) for each in self.resources)


def _names(resource: tuple[str, frozenset[str], frozenset[str]], target: Target) -> bool:
    group, resources, names = resource
    if group != target.group or (names and target.name not in names):
        return False
    if not resources or "*" in resources:
        return True
    if not target.subresource:
        return target.resource in resources
    wanted = (f"{target.resource}/{target.subresource}", f"{target.resource}/*", f"*/{target.subresource}")
    return any(each in resources for each in wanted)


def parse_policy(text: str) -> tuple[Rule, ...]:
    """The rules of a policy file. Raises BadPolicy."""
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise BadPolicy(f"no YAML: {error}") from error
    if not isinstance(document, dict) or document.get("kind") != "Policy":
        raise BadPolicy("kind: must be Policy, of apiVersion audit.k8s.io/v1")
    if document.get("apiVersion") != "audit.k8s.io/v1":
        raise BadPolicy("apiVersion: must be audit.k8s.io/v1")
    _check_names(document, ("apiVersion", "kind", "metadata", "rules", *_OMISSIONS), "")
    everywhere = _omissions(document, "")
    rules = document.get("rules")
    if not isinstance(rules, list) or not rules:
        raise BadPolicy("rules: at least one is needed; the first that matches a request decides")
    return tuple(_rule(each, f"rules[{index}]", everywhere) for index, each in enumerate(rules))


_OMISSIONS = ("omitStages", "omitManagedFields")
_RULE_LISTS = ("users", "userGroups", "verbs", "resources", "namespaces", "nonResourceURLs")


def _rule(wire: Any, path: str, everywhere: tuple[frozenset[str], bool]) -> Rule:
    if not isinstance(wire, dict):
        raise BadPolicy(f"{path}: must be a mapping")
    _check_names(wire, ("level", *_RULE_LISTS, *_OMISSIONS), f"{path}.")
    if wire.get("level") not in LEVELS:
        raise BadPolicy(f"{path}.level: {wire.get('level')!r} is none of {', '.join(LEVELS)}")
    for name in _RULE_LISTS:
        if not isinstance(wire.get(name) or [], list):
            raise BadPolicy(f"{path}.{name}: must be a list")
    resources = []
    for index, each in enumerate(wire.get("resources") or ()):
        if not isinstance(each, dict):
            raise BadPolicy(f"{path}.resources[{index}]: must be a mapping with group and resources")
        _check_names(each, ("group", "resources", "resourceNames"), f"{path}.resources[{index}].")
        names = frozenset(each.get("resourceNames") or ())
        resources.append((each.get("group") or "", frozenset(each.get("resources") or ()), names))
    stages, managed = _omissions(wire, f"{path}.")
    return Rule(
        level=wire["level"],
        users=frozenset(wire.get("users") or ()),
        groups=frozenset(wire.get("userGroups") or ()),
        verbs=frozenset(wire.get("verbs") or ()),
        resources=tuple(resources),
        namespaces=frozenset(wire.get("namespaces") or ()),
        urls=tuple(wire.get("nonResourceURLs") or ()),
        omitted_stages=stages | everywhere[0],
        omits_managed_fields=managed if wire.get("omitManagedFields") is not None else everywhere[1],
    )


def _check_names(wire: Mapping[str, Any], known: tuple[str, ...], path: str) -> None:
    for name in wire:
        if name not in known:
            raise BadPolicy(f"{path}{name}: unknown field; known are {', '.join(known)}")


def _omissions(wire: Mapping[str, Any], path: str) -> tuple[frozenset[str], bool]:
    """(stages that are not logged, whether managedFields are left out), of a policy or a rule."""
    stages, managed = wire.get("omitStages") or [], wire.get("omitManagedFields") or False
    if not isinstance(stages, list) or not set(stages) <= set(STAGES):
        raise BadPolicy(f"{path}omitStages: must be a list of {', '.join(STAGES)}")
    if not isinstance(managed, bool):
        raise BadPolicy(f"{path}omitManagedFields: must be true or false")
    return frozenset(stages), managed
