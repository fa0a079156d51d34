"""Does a taint, a node selector term, a pod selector match? The small rules that filters and scores share. Pure.

Sources: kubernetes.io/docs/concepts/scheduling-eviction/taint-and-toleration and .../assign-pod-node.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from api.selectors import LabelSelector, from_object
from controller.scheduler.demand import PodClass
from controller.scheduler.snapshot import NodeView


def tolerates(toleration: Mapping[str, Any], taint: Mapping[str, Any]) -> bool:
    """Key, effect and value must match; an empty key with Exists tolerates everything."""
    if toleration.get("effect") and toleration["effect"] != taint.get("effect"):
        return False
    if toleration.get("key") and toleration["key"] != taint.get("key"):
        return False
    if toleration.get("operator") == "Exists":
        return True
    return bool(toleration.get("key")) and (toleration.get("value") or "") == (taint.get("value") or "")


def is_tolerated(pod_class: PodClass, taint: Mapping[str, Any]) -> bool:
    return any(tolerates(toleration, taint) for toleration in pod_class.tolerations)


def term_matches(term: Mapping[str, Any], node: NodeView) -> bool:
    """A nodeSelectorTerm: all its expressions and fields; an empty term matches nothing."""
    expressions, fields = term.get("matchExpressions") or (), term.get("matchFields") or ()
    if not expressions and not fields:
        return False
    names = {"metadata.name": node.name}
    return all(_requirement_holds(e, node.labels) for e in expressions) and all(
        _requirement_holds(f, names) for f in fields
    )


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


PodMatcher = Callable[[PodClass], bool]


def pod_matcher(
    term: Mapping[str, Any], owner: PodClass, namespace_labels: Mapping[str, Mapping[str, str]]
) -> PodMatcher:
    """Which pods a podAffinityTerm or a spread constraint of `owner` speaks of: by namespace and by labels."""
    if term.get("labelSelector") is None:
        return lambda other: False
    selector = from_object(term["labelSelector"])
    wanted = {key: owner.labels[key] for key in term.get("matchLabelKeys") or () if key in owner.labels}
    unwanted = {key: owner.labels[key] for key in term.get("mismatchLabelKeys") or () if key in owner.labels}
    namespaces = set(term.get("namespaces") or ())
    by_labels = term.get("namespaceSelector")
    namespace_selector: LabelSelector | None = from_object(by_labels) if by_labels is not None else None
    if not namespaces and namespace_selector is None:
        namespaces = {owner.namespace}

    def speaks_of(other: PodClass) -> bool:
        if other.namespace not in namespaces and not (
            namespace_selector is not None and namespace_selector.matches(namespace_labels.get(other.namespace, {}))
        ):
            return False
        labels = other.labels
        return (
            selector.matches(labels)
            and all(labels.get(key) == value for key, value in wanted.items())
            and all(labels.get(key) != value for key, value in unwanted.items())
        )

    return speaks_of
