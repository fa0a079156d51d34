"""A new pod's matchLabelKeys become requirements of the selectors they stand beside.

Called by the strategy of pods. Rule from k8s.io/kubernetes/pkg/registry/core/pod/strategy.go (KEP-3633, KEP-3243): keys
that the pod has as labels are merged, others are not; a term without a selector is left to validation.
Copies what it changes: a template's terms are shared by its pods.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from api.objects import Object

_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
_PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"
_OPERATORS = {"matchLabelKeys": "In", "mismatchLabelKeys": "NotIn"}


def merge_label_keys(pod: Object) -> None:
    spec, labels = pod["spec"], pod["metadata"].get("labels") or {}
    if spec.get("topologySpreadConstraints"):
        spec["topologySpreadConstraints"] = [_merged(each, labels) for each in spec["topologySpreadConstraints"]]
    for field in ("podAffinity", "podAntiAffinity"):
        if affinity := (spec.get("affinity") or {}).get(field):
            spec["affinity"] = {**spec["affinity"], field: _of_affinity(affinity, labels)}


def _of_affinity(affinity: Mapping[str, Any], labels: Mapping[str, str]) -> Object:
    merged = dict(affinity)
    if affinity.get(_REQUIRED):
        merged[_REQUIRED] = [_merged(term, labels) for term in affinity[_REQUIRED]]
    if affinity.get(_PREFERRED):
        merged[_PREFERRED] = [
            {**each, "podAffinityTerm": _merged(each.get("podAffinityTerm") or {}, labels)}
            for each in affinity[_PREFERRED]
        ]
    return merged


def _merged(term: Object, labels: Mapping[str, str]) -> Object:
    """An affinity term or a spread constraint with its keys in its selector."""
    selector = term.get("labelSelector")
    added = [
        {"key": key, "operator": operator, "values": [labels[key]]}
        for field, operator in _OPERATORS.items()
        for key in term.get(field) or ()
        if key in labels
    ]
    if selector is None or not added:
        return term
    expressions = [*(selector.get("matchExpressions") or ()), *added]
    return {**term, "labelSelector": {**selector, "matchExpressions": expressions}}
