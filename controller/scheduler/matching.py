"""Does a class tolerate a taint, does a term speak of a pod? The small rules that filters and scores share. Pure.

Source: kubernetes.io/docs/concepts/scheduling-eviction/assign-pod-node.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from api.placement import tolerates
from api.selectors import LabelSelector, from_object
from controller.scheduler.demand import PodClass


def is_tolerated(pod_class: PodClass, taint: Mapping[str, Any]) -> bool:
    return any(tolerates(toleration, taint) for toleration in pod_class.tolerations)


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
