"""HorizontalPodAutoscaler (autoscaling/v2): bounds, target, metrics, behavior.

Called by dispatch. Source: k8s.io/kubernetes/pkg/apis/autoscaling/validation.
"""

from __future__ import annotations

from api.errors import forbidden, invalid, not_supported, required
from api.names import is_dns_subdomain, is_path_segment
from api.quantity import canonical, parse_quantity
from controller.registry.validation.meta import check_metadata, check_updated_metadata
from controller.registry.validation.rules import NEGATIVE, Errors, Value, check_dns_label, check_required_name

_SOURCES = {
    "Object": "object",
    "External": "external",
    "Pods": "pods",
    "Resource": "resource",
    "ContainerResource": "containerResource",
}
_TARGETS = ("Utilization", "Value", "AverageValue")
_LONGEST_WINDOW, _LONGEST_PERIOD = 3600, 1800


def check_autoscaler(errors: Errors, autoscaler: Value) -> None:
    check_metadata(errors, autoscaler["metadata"], is_dns_subdomain, namespaced=True)
    _check_spec(errors, autoscaler.get("spec") or {}, {})


def check_autoscaler_update(errors: Errors, autoscaler: Value, old: Value) -> None:
    check_updated_metadata(errors, autoscaler["metadata"], old["metadata"])
    _check_spec(errors, autoscaler.get("spec") or {}, old.get("spec") or {})


def check_autoscaler_status(errors: Errors, autoscaler: Value, old: Value) -> None:
    check_updated_metadata(errors, autoscaler["metadata"], old["metadata"])
    status = autoscaler.get("status") or {}
    for field in ("currentReplicas", "desiredReplicas"):
        if (status.get(field) or 0) < 0:
            errors.append(invalid(f"status.{field}", status[field], "must be greater than or equal to 0"))


def _check_spec(errors: Errors, spec: Value, before: Value) -> None:
    """What `before` already got away with is let be."""
    least, most = spec.get("minReplicas"), spec.get("maxReplicas") or 0
    if least is not None and least < (0 if before.get("minReplicas") == 0 else 1):
        errors.append(invalid("spec.minReplicas", least, "must be greater than or equal to 1"))
    if most < 1:
        errors.append(required("spec.maxReplicas", "must be set and greater than 0"))
    if least is not None and most < least:
        errors.append(invalid("spec.maxReplicas", most, "must be greater than or equal to `minReplicas`"))
    target, known = spec.get("scaleTargetRef") or {}, before.get("scaleTargetRef")
    grouped = target.get("kind") != "ReplicationController"
    lenient = known is not None and bool(_version_fault(known.get("apiVersion") or "", grouped=grouped))
    _check_reference(errors, "spec.scaleTargetRef", target, grouped=grouped, lenient=lenient)
    metrics = spec.get("metrics") or []
    for index, metric in enumerate(metrics):
        _check_metric(errors, f"spec.metrics[{index}]", metric)
    if least == 0 and not any(metric.get("type") in ("Object", "External") for metric in metrics):
        detail = "must specify at least one Object or External metric to support scaling to zero replicas"
        errors.append(forbidden("spec.metrics", detail))
    for direction in ("scaleUp", "scaleDown"):
        rules = (spec.get("behavior") or {}).get(direction)
        if rules is not None:
            _check_scaling(errors, f"spec.behavior.{direction}", rules)


def _version_fault(version: str, *, grouped: bool) -> str:
    """What is wrong with the apiVersion of what is scaled or measured; only the core group has no name."""
    if version.count("/") > 1:
        return f"unexpected GroupVersion string: {version}"
    return "apiVersion must specify API group" if grouped and not version.rpartition("/")[0] else ""


def _check_reference(
    errors: Errors, path: str, reference: Value, *, grouped: bool = False, lenient: bool = False
) -> None:
    check_required_name(errors, f"{path}.kind", reference.get("kind"), is_path_segment)
    check_required_name(errors, f"{path}.name", reference.get("name"), is_path_segment)
    version = reference.get("apiVersion") or ""
    if not lenient and (fault := _version_fault(version, grouped=grouped)):
        errors.append(invalid(f"{path}.apiVersion", version, fault))


def _check_metric(errors: Errors, path: str, metric: Value) -> None:
    kind = metric.get("type") or ""
    if not kind:
        errors.append(required(f"{path}.type", "must specify a metric source type"))
    if kind not in _SOURCES:
        errors += [not_supported(f"{path}.type", kind, frozenset(_SOURCES))] * 2  # Kubernetes looks twice
    present = [field for field in _SOURCES.values() if metric.get(field) is not None]
    if present:
        _check_source(errors, f"{path}.{present[0]}", present[0], metric[present[0]])
    expected = _SOURCES.get(kind, "")
    if expected and expected not in present:
        errors.append(required(f"{path}.{expected}", "must populate information for the given metric source"))
    if len(present) > 1:
        for field in sorted(set(present) - {expected}):
            errors.append(forbidden(f"{path}.{field}", "must populate the given metric source only"))


def _check_source(errors: Errors, path: str, kind: str, source: Value) -> None:
    target = source.get("target") or {}
    if kind in ("resource", "containerResource"):
        if not source.get("name"):
            errors.append(required(f"{path}.name", "must specify a resource name"))
        if kind == "containerResource" and not source.get("container"):
            errors.append(required(f"{path}.container", "must specify a container"))
        elif kind == "containerResource":
            check_dns_label(errors, f"{path}.container", source["container"])
        _check_target(errors, f"{path}.target", target)
        _check_one_of(errors, path, target, ("averageUtilization", "averageValue"))
        return
    if kind == "object":
        _check_reference(errors, f"{path}.describedObject", source.get("describedObject") or {})
    identifier = source.get("metric") or {}
    if not identifier.get("name"):
        errors.append(required(f"{path}.metric.name", "must specify a metric name"))
    else:
        check_required_name(errors, f"{path}.metric.name", identifier["name"], is_path_segment)
    _check_target(errors, f"{path}.target", target)
    value, average = target.get("value"), target.get("averageValue")
    if kind == "pods":
        if average is None or parse_quantity(average) <= 0:
            errors.append(required(f"{path}.target.averageValue", "must specify a positive target averageValue"))
    elif value is None and average is None:
        detail = "must set either a target value or averageValue"
        detail = "must set either a target value for metric or a per-pod target" if kind == "external" else detail
        errors.append(required(f"{path}.target.averageValue", detail))
    elif kind == "external" and value is not None and average is not None:
        detail = "may not set both a target value for metric and a per-pod target"
        errors.append(forbidden(f"{path}.target.value", detail))


def _check_one_of(errors: Errors, path: str, target: Value, fields: tuple[str, str]) -> None:
    given = [field for field in fields if target.get(field) is not None]
    if not given:
        detail = "must set either a target raw value or a target utilization"
        errors.append(required(f"{path}.target.{fields[0]}", detail))
    elif len(given) > 1:
        detail = "may not set both a target raw value and a target utilization"
        errors.append(forbidden(f"{path}.target.{fields[1]}", detail))


def _check_target(errors: Errors, path: str, target: Value) -> None:
    kind = target.get("type") or ""
    if not kind:
        errors.append(required(f"{path}.type", "must specify a metric target type"))
    if kind not in _TARGETS:
        errors.append(invalid(f"{path}.type", kind, "must be either Utilization, Value, or AverageValue"))
    for field in ("value", "averageValue"):
        if target.get(field) is not None and parse_quantity(target[field]) <= 0:
            errors.append(invalid(f"{path}.{field}", canonical(target[field]), "must be positive"))
    utilization = target.get("averageUtilization")
    if utilization is not None and utilization < 1:
        errors.append(invalid(f"{path}.averageUtilization", utilization, "must be greater than 0"))


def _check_scaling(errors: Errors, path: str, rules: Value) -> None:
    window, select = rules.get("stabilizationWindowSeconds"), rules.get("selectPolicy")
    if window is not None and window < 0:
        detail = "must be greater than or equal to zero"
        errors.append(invalid(f"{path}.stabilizationWindowSeconds", window, detail))
    if window is not None and window > _LONGEST_WINDOW:
        detail = f"must be less than or equal to {_LONGEST_WINDOW}"
        errors.append(invalid(f"{path}.stabilizationWindowSeconds", window, detail))
    if select is not None and select not in ("Max", "Min", "Disabled"):
        errors.append(not_supported(f"{path}.selectPolicy", select, frozenset({"Max", "Min", "Disabled"})))
    policies = rules.get("policies") or []
    if not policies:
        errors.append(required(f"{path}.policies", "must specify at least one Policy"))
    for index, policy in enumerate(policies):
        here, period = f"{path}.policies[{index}]", policy.get("periodSeconds") or 0
        if policy.get("type") not in ("Pods", "Percent"):
            errors.append(not_supported(f"{here}.type", policy.get("type") or "", frozenset({"Pods", "Percent"})))
        if (policy.get("value") or 0) <= 0:
            errors.append(invalid(f"{here}.value", policy.get("value") or 0, "must be greater than zero"))
        if period <= 0:
            errors.append(invalid(f"{here}.periodSeconds", period, "must be greater than zero"))
        if period > _LONGEST_PERIOD:
            detail = f"must be less than or equal to {_LONGEST_PERIOD}"
            errors.append(invalid(f"{here}.periodSeconds", period, detail))
    if (tolerance := rules.get("tolerance")) is not None and parse_quantity(tolerance) < 0:
        errors.append(invalid(f"{path}.tolerance", canonical(tolerance), NEGATIVE))
