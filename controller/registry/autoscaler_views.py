"""One store for two views of a HorizontalPodAutoscaler: autoscaling/v2, as it is kept, and autoscaling/v1.

Called by `views`. v1 knows a CPU target only; whatever else a v2 object says it carries in annotations, so that a v1
client that reads and writes back loses nothing. Pure. Rules from pkg/apis/autoscaling/v1/conversion.go of
k8s.io/kubernetes; the annotations hold v2's own JSON.
"""

from __future__ import annotations

from typing import Any

import orjson

from api.objects import Object

_PREFIX = "autoscaling.alpha.kubernetes.io/"
_METRICS, _BEHAVIOR = f"{_PREFIX}metrics", f"{_PREFIX}behavior"
_CURRENT, _CONDITIONS = f"{_PREFIX}current-metrics", f"{_PREFIX}conditions"


def to_v1(obj: Object) -> Object:
    """A v2 object as v1 shows it; `obj` is not changed."""
    metadata, spec, status = dict(obj["metadata"]), dict(obj.get("spec") or {}), dict(obj.get("status") or {})
    metrics, current = spec.pop("metrics", None) or [], status.pop("currentMetrics", None) or []
    percent, others = _split(metrics, "target")
    used, other_values = _split(current, "current")
    if percent is not None:
        spec["targetCPUUtilizationPercentage"] = percent
    if used is not None:
        status["currentCPUUtilizationPercentage"] = used
    hidden = {
        _METRICS: others,
        _BEHAVIOR: spec.pop("behavior", None),
        _CURRENT: other_values,
        _CONDITIONS: status.pop("conditions", None),
    }
    told = {name: orjson.dumps(value).decode() for name, value in hidden.items() if value}
    if told:
        metadata["annotations"] = {**(metadata.get("annotations") or {}), **told}
    status.setdefault("currentReplicas", 0)
    return {**obj, "apiVersion": "autoscaling/v1", "metadata": metadata, "spec": spec, "status": status}


def to_v2(obj: Object) -> Object:
    """A v1 object as it is kept; `obj` is not changed."""
    metadata, spec, status = dict(obj["metadata"]), dict(obj.get("spec") or {}), dict(obj.get("status") or {})
    hidden = _take_hidden(metadata)
    metrics = _cpu("target", spec.pop("targetCPUUtilizationPercentage", None)) + (hidden.get(_METRICS) or [])
    if metrics:
        spec["metrics"] = metrics
    if hidden.get(_BEHAVIOR):
        spec["behavior"] = hidden[_BEHAVIOR]
    current = _cpu("current", status.pop("currentCPUUtilizationPercentage", None)) + (hidden.get(_CURRENT) or [])
    status["currentMetrics"] = current or None
    if hidden.get(_CONDITIONS):
        status["conditions"] = hidden[_CONDITIONS]
    return {**obj, "apiVersion": "autoscaling/v2", "metadata": metadata, "spec": spec, "status": status}


def _take_hidden(metadata: Object) -> dict[str, Any]:
    """Takes our annotations off; one that a person broke counts as absent."""
    annotations = dict(metadata.get("annotations") or {})
    found: dict[str, Any] = {}
    for name, shape in ((_METRICS, list), (_BEHAVIOR, dict), (_CURRENT, list), (_CONDITIONS, list)):
        try:
            value = orjson.loads(annotations.pop(name, "null"))
        except orjson.JSONDecodeError:
            continue
        if isinstance(value, shape):
            found[name] = value
    if annotations:
        metadata["annotations"] = annotations
    else:
        metadata.pop("annotations", None)
    return found


def _split(metrics: list[Object], side: str) -> tuple[int | None, list[Object]]:
    """The first CPU utilization among the metrics, and the others."""
    percent, others = None, []
    for metric in metrics:
        resource = metric.get("resource") or {}
        value = (resource.get(side) or {}).get("averageUtilization")
        if percent is None and metric.get("type") == "Resource" and resource.get("name") == "cpu" and value is not None:
            percent = value
        else:
            others.append(metric)
    return percent, others


def _cpu(side: str, percent: int | None) -> list[Object]:
    if percent is None:
        return []
    amount: Object = {"averageUtilization": percent}
    if side == "target":
        amount["type"] = "Utilization"
    return [{"type": "Resource", "resource": {"name": "cpu", side: amount}}]
