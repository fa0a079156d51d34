"""May a pod be on a node, by the node's own properties? Taints, node selectors, node affinity: one rule for all.

Called by the scheduler, which chooses among many nodes, by DaemonSets, which ask about each, and by the agent, which
admits what comes to its node. Pure; imports nothing. Sources: kubernetes.io/docs/concepts/scheduling-eviction/, pages
"Taints and Tolerations" and "Assigning Pods to Nodes".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_INTEGER = re.compile(r"[+-]?[0-9]+")


def tolerates(toleration: Mapping[str, Any], taint: Mapping[str, Any]) -> bool:
    """Key, effect and value must match; an empty key with Exists tolerates everything."""
    if toleration.get("effect") and toleration["effect"] != taint.get("effect"):
        return False
    if toleration.get("key") and toleration["key"] != taint.get("key"):
        return False
    if toleration.get("operator") == "Exists":
        return True
    return bool(toleration.get("key")) and (toleration.get("value") or "") == (taint.get("value") or "")


def selects_node(spec: Mapping[str, Any], name: str, labels: Mapping[str, str]) -> bool:
    """Whether nodeSelector and required node affinity of a pod spec allow a node of this name and these labels."""
    if not all(labels.get(key) == value for key, value in (spec.get("nodeSelector") or {}).items()):
        return False
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    if required is None:
        return True
    return any(term_matches(term, name, labels) for term in required.get("nodeSelectorTerms") or ())


def term_matches(term: Mapping[str, Any], name: str, labels: Mapping[str, str]) -> bool:
    """A nodeSelectorTerm: all its expressions and fields; an empty term matches nothing."""
    expressions, fields = term.get("matchExpressions") or (), term.get("matchFields") or ()
    if not expressions and not fields:
        return False
    names = {"metadata.name": name}
    return all(_requirement_holds(e, labels) for e in expressions) and all(_requirement_holds(f, names) for f in fields)


def _requirement_holds(requirement: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    value = labels.get(requirement.get("key", ""))
    values: list[str] = requirement.get("values") or []
    match requirement.get("operator"):
        case "In":
            return value is not None and value in values
        case "NotIn":
            return value is None or value not in values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case "Gt" | "Lt" as operator:
            return _compares(operator, value, values)
    return False


def _compares(operator: str, value: str | None, limits: list[str]) -> bool:
    """What is no integer, be it the label or the limit, compares with nothing (Kubernetes takes such a limit, too)."""
    if value is None or len(limits) != 1 or not _INTEGER.fullmatch(value) or not _INTEGER.fullmatch(limits[0]):
        return False
    return int(value) > int(limits[0]) if operator == "Gt" else int(value) < int(limits[0])
