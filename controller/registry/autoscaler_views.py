"""One store for two views of a HorizontalPodAutoscaler: autoscaling/v2, as it is kept, and autoscaling/v1.

Called by `views`. v1 knows a CPU target only; whatever else a v2 object says it carries in annotations, so that a v1
client that reads and writes back loses nothing. Pure. Rules from pkg/apis/autoscaling/v1/conversion.go of
k8s.io/kubernetes: metrics and conditions lie there as v1 has them, the behavior as Go's internal struct.
"""

from __future__ import annotations

from typing import Any

import orjson

from api.objects import Object
from controller.registry.strategies.extras import ROUND_TRIP, drop_round_trip
from controller.registry.validation.internal import internal

_METRICS, _BEHAVIOR = f"{ROUND_TRIP}metrics", f"{ROUND_TRIP}behavior"
_CURRENT, _CONDITIONS = f"{ROUND_TRIP}current-metrics", f"{ROUND_TRIP}conditions"
_CONDITION = ("type", "status", "lastTransitionTime", "reason", "message")
_RESOURCE = (
    ("name", "name"),
    ("targetAverageUtilization", "target.averageUtilization"),
    ("targetAverageValue", "target.averageValue"),
)
_SOURCES = {
    "object": (
        ("target", "describedObject"),
        ("metricName", "metric.name"),
        ("targetValue", "target.value"),
        ("selector", "metric.selector"),
        ("averageValue", "target.averageValue"),
    ),
    "pods": (
        ("metricName", "metric.name"),
        ("targetAverageValue", "target.averageValue"),
        ("selector", "metric.selector"),
    ),
    "resource": _RESOURCE,
    "containerResource": (*_RESOURCE, ("container", "container")),
    "external": (
        ("metricName", "metric.name"),
        ("metricSelector", "metric.selector"),
        ("targetValue", "target.value"),
        ("targetAverageValue", "target.averageValue"),
    ),
}
"""Per source the fields of v1, in Go's order, and where v2 has them; a status says `current` for `target`."""
_ALWAYS = {("object", "targetValue"), ("pods", "targetAverageValue")}
_ALWAYS_CURRENT = {
    ("object", "currentValue"),
    ("pods", "currentAverageValue"),
    ("resource", "currentAverageValue"),
    ("containerResource", "currentAverageValue"),
    ("external", "currentValue"),
}
"""Quantities that v1 has no way to leave out: absent ones are 0."""
_BEHAVIOR_STRUCT = "autoscaling.v2.HorizontalPodAutoscalerBehavior"
_GO_BEHAVIOR = ("stabilizationWindowSeconds", "selectPolicy", "policies", "tolerance", "type", "value", "periodSeconds")
_FROM_GO = {name.lower(): name for name in ("scaleUp", "scaleDown", *_GO_BEHAVIOR)}


def to_v1(obj: Object) -> Object:
    """A v2 object as v1 shows it; `obj` is not changed."""
    metadata, spec, status = dict(obj["metadata"]), dict(obj.get("spec") or {}), dict(obj.get("status") or {})
    metrics, current = spec.pop("metrics", None) or [], status.pop("currentMetrics", None) or []
    behavior = spec.pop("behavior", None)
    if percents := [
        percent for percent in (_cpu_percent(metric, "target") for metric in metrics) if percent is not None
    ]:
        spec["targetCPUUtilizationPercentage"] = percents[0]
    if used := [percent for percent in (_cpu_percent(metric, "current") for metric in current) if percent is not None]:
        status["currentCPUUtilizationPercentage"] = used[-1]
    hidden: dict[str, Any] = {
        _METRICS: [_flat(metric, "target") for metric in metrics if _cpu_percent(metric, "target") is None],
        _BEHAVIOR: internal(_BEHAVIOR_STRUCT, behavior) if behavior is not None else None,
        _CURRENT: [_flat(metric, "current") for metric in current],
        _CONDITIONS: [_ordered(each, _CONDITION) for each in status.pop("conditions", None) or ()],
    }
    drop_round_trip(metadata)
    told = {name: orjson.dumps(value).decode() for name, value in hidden.items() if value}
    if told:
        metadata["annotations"] = {**(metadata.get("annotations") or {}), **told}
    status.setdefault("currentReplicas", 0)
    return {**obj, "apiVersion": "autoscaling/v1", "metadata": metadata, "spec": spec, "status": status}


def to_v2(obj: Object) -> Object:
    """A v1 object as it is kept; `obj` is not changed."""
    metadata, spec, status = dict(obj["metadata"]), dict(obj.get("spec") or {}), dict(obj.get("status") or {})
    hidden = _read_hidden(metadata)
    drop_round_trip(metadata)
    cpu = _cpu("target", spec.pop("targetCPUUtilizationPercentage", None))
    metrics = [_nested(metric, "target") for metric in hidden.get(_METRICS) or ()] + cpu
    if metrics:
        spec["metrics"] = metrics
    if hidden.get(_BEHAVIOR):
        spec["behavior"] = _from_go(hidden[_BEHAVIOR])
    current = _cpu("current", status.pop("currentCPUUtilizationPercentage", None))
    if _CURRENT in hidden:
        current = [_nested(metric, "current") for metric in hidden[_CURRENT]]
    status["currentMetrics"] = current or None
    if hidden.get(_CONDITIONS):
        status["conditions"] = hidden[_CONDITIONS]
    return {**obj, "apiVersion": "autoscaling/v2", "metadata": metadata, "spec": spec, "status": status}


def _ordered(value: Object, names: tuple[str, ...]) -> Object:
    return {name: value[name] for name in names if value.get(name)}


def _read_hidden(metadata: Object) -> dict[str, Any]:
    """What our annotations say; one that a person broke counts as absent."""
    annotations = metadata.get("annotations") or {}
    found: dict[str, Any] = {}
    for name, shape in ((_METRICS, list), (_BEHAVIOR, dict), (_CURRENT, list), (_CONDITIONS, list)):
        try:
            value = orjson.loads(annotations.get(name, "null"))
        except orjson.JSONDecodeError:
            continue
        if isinstance(value, shape) and all(isinstance(each, dict | None) for each in _items(value)):
            found[name] = value
    return found


def _items(value: Any) -> Any:
    return value.values() if isinstance(value, dict) else value


def _cpu_percent(metric: Object, side: str) -> int | None:
    resource = metric.get("resource") or {}
    if metric.get("type") != "Resource" or resource.get("name") != "cpu":
        return None
    percent: int | None = (resource.get(side) or {}).get("averageUtilization")
    return percent


def _names(kind: str, side: str) -> list[tuple[str, list[str]]]:
    """(field of v1, path in v2) for each field of a source."""
    if side == "target":
        return [(flat, path.split(".")) for flat, path in _SOURCES[kind]]
    return [
        (
            f"current{flat[6:]}" if flat[:7] in ("targetV", "targetA") else flat,
            path.replace("target.", "current.").split("."),
        )
        for flat, path in _SOURCES[kind]
    ]


def _flat(metric: Object, side: str) -> Object:
    """A metric of v2 as v1 has it."""
    always, shown = _ALWAYS if side == "target" else _ALWAYS_CURRENT, {"type": metric.get("type") or ""}
    for kind in _SOURCES:
        if (source := metric.get(kind)) is None:
            continue
        flat: Object = {}
        for name, path in _names(kind, side):
            value: Any = source
            for part in path:
                value = (value or {}).get(part)
            if value is None and (kind, name) in always:
                value = "0"
            if path[-1] == "selector" and value is not None:
                value = internal("meta.v1.LabelSelector", value)
            if path[-1] == "describedObject":
                value = _ordered(value or {}, ("kind", "name", "apiVersion"))
            if value is not None:
                flat[name] = value
        shown[kind] = flat
    return shown


def _nested(metric: Object, side: str) -> Object:
    """A metric of v1 as v2 has it."""
    shown: Object = {"type": metric.get("type") or ""}
    for kind in _SOURCES:
        if not isinstance(source := metric.get(kind), dict):
            continue
        nested: Object = {}
        for name, path in _names(kind, side):
            if (value := source.get(name)) is not None:
                inner = nested.setdefault(path[0], {}) if len(path) == 2 else nested
                inner[path[-1]] = value
        if side == "target":
            _type_target(kind, nested.setdefault("target", {}))
        shown[kind] = nested
    return shown


def _type_target(kind: str, target: Object) -> None:
    """v1 does not say how a value is meant: by which of them there is."""
    average, value = target.get("averageValue"), target.get("value")
    if average is not None and value in ("0", 0):
        del target["value"]
    by_value = value is not None if kind == "external" else kind == "object" and average is None
    other = "Value" if by_value else "AverageValue"
    target["type"] = "Utilization" if target.get("averageUtilization") is not None else other


def _from_go(value: Any) -> Any:
    """A behavior by the names of the wire, without what is not set."""
    if isinstance(value, dict):
        named = {_FROM_GO.get(name.lower(), name): _from_go(item) for name, item in value.items()}
        return {name: item for name, item in named.items() if item is not None}
    return [_from_go(item) for item in value] if isinstance(value, list) else value


def _cpu(side: str, percent: int | None) -> list[Object]:
    if percent is None:
        return []
    amount: Object = {"averageUtilization": percent}
    if side == "target":
        amount["type"] = "Utilization"
    return [{"type": "Resource", "resource": {"name": "cpu", side: amount}}]
