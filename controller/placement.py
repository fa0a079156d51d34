"""May a pod be on a node, by the node's own properties? Taints, node selectors, node affinity.

Called by the scheduler, which chooses among many nodes, and by DaemonSets, which ask about each. Pure; imports nothing
of the controller. Sources: kubernetes.io/docs/concepts/scheduling-eviction/, pages "Taints and Tolerations" and
"Assigning Pods to Nodes".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


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
        case "Gt":
            return _is_integer(value) and int(value or 0) > int(values[0])
        case "Lt":
            return _is_integer(value) and int(value or 0) < int(values[0])
    return False


def _is_integer(text: str | None) -> bool:
    return text is not None and text.lstrip("+-").isdigit()
