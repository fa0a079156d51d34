"""ResourceQuota, LimitRange, PodDisruptionBudget and PriorityClass: what bounds others.

Called by dispatch. Sources: k8s.io/kubernetes/pkg/apis/{core,policy,scheduling}/validation.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from api.errors import duplicate, forbidden, invalid, not_supported, required
from api.names import is_dns_subdomain
from api.quantity import canonical, parse_quantity
from controller.registry.validation.internal import internal
from controller.registry.validation.meta import check_any_name, check_metadata, check_updated_metadata
from controller.registry.validation.resources import (
    COUNTED,
    check_container_resource_name,
    check_quantity,
    check_resource_name,
    is_overcommit_allowed,
)
from controller.registry.validation.rules import (
    IMMUTABLE,
    Errors,
    Value,
    check_count_or_percent,
    check_label_selector,
    check_optional_choice,
    check_qualified,
)
from controller.registry.validation.workloads import check_not_above_hundred

_COMPUTE = frozenset(
    f"{prefix}{name}" for prefix in ("", "requests.", "limits.") for name in ("cpu", "memory", "ephemeral-storage")
)
_COUNTS = COUNTED | {"requests.storage"}
_HUGE_PAGES = ("hugepages-", "requests.hugepages-")
_POD_COMPUTE = _COMPUTE - {name for name in _COMPUTE if "ephemeral" in name}
_EXISTS_ONLY = frozenset({"BestEffort", "NotBestEffort", "Terminating", "NotTerminating", "CrossNamespacePodAffinity"})
_SCOPES = _EXISTS_ONLY | {"PriorityClass", "VolumeAttributesClass"}
_PAIRS = ({"BestEffort", "NotBestEffort"}, {"Terminating", "NotTerminating"})
_LIMIT_TYPES = frozenset({"Pod", "Container", "PersistentVolumeClaim"})
# (low, high, the field that is blamed, the field whose value is shown), as Kubernetes compares them
_ORDERED = (
    ("min", "max", "min", "min"),
    ("min", "defaultRequest", "defaultRequest", "defaultRequest"),
    ("defaultRequest", "max", "defaultRequest", "defaultRequest"),
    ("defaultRequest", "default", "defaultRequest", "defaultRequest"),
    ("min", "default", "default", "min"),
    ("default", "max", "default", "max"),
)
_CALLED = {"min": "min", "max": "max", "default": "default", "defaultRequest": "default request"}
_HIGHEST_USER_PRIORITY = 1_000_000_000
_SYSTEM_CLASSES = {"system-node-critical": 2_000_001_000, "system-cluster-critical": 2_000_000_000}


def check_quota(errors: Errors, quota: Value) -> None:
    check_metadata(errors, quota["metadata"], is_dns_subdomain, namespaced=True)
    _check_quota_spec(errors, quota.get("spec") or {})
    _check_quota_status(errors, quota.get("status") or {})


def check_quota_update(errors: Errors, quota: Value, old: Value) -> None:
    check_updated_metadata(errors, quota["metadata"], old["metadata"])
    spec, before = quota.get("spec") or {}, old.get("spec") or {}
    _check_quota_spec(errors, spec)
    if set(spec.get("scopes") or ()) != set(before.get("scopes") or ()):
        errors.append(invalid("spec.scopes", spec.get("scopes"), IMMUTABLE))


def check_quota_status(errors: Errors, quota: Value, old: Value) -> None:
    check_updated_metadata(errors, quota["metadata"], old["metadata"])
    _check_quota_status(errors, quota.get("status") or {})


def check_limit_range(errors: Errors, limit_range: Value) -> None:
    check_metadata(errors, limit_range["metadata"], is_dns_subdomain, namespaced=True)
    types: set[str] = set()
    for index, limit in enumerate((limit_range.get("spec") or {}).get("limits") or ()):
        path, kind = f"spec.limits[{index}]", limit.get("type") or ""
        before = len(errors)
        check_qualified(errors, f"{path}.type", kind)
        if len(errors) == before and "/" not in kind and kind not in _LIMIT_TYPES:
            detail = "must be a standard limit type or fully qualified"
            errors.append(invalid(f"{path}.type", kind, detail))
        if kind in types:
            errors.append(duplicate(f"{path}.type", kind))
        types.add(kind)
        _check_limit(errors, path, kind, limit)


def check_limit_range_update(errors: Errors, limit_range: Value, old: Value) -> None:
    del old
    check_limit_range(errors, limit_range)


def check_budget(errors: Errors, budget: Value) -> None:
    _check_budget_spec(errors, budget.get("spec") or {})
    check_any_name(errors, budget["metadata"])


def check_budget_update(errors: Errors, budget: Value, old: Value) -> None:
    del old
    _check_budget_spec(errors, budget.get("spec") or {})


def check_priority_class(errors: Errors, priority_class: Value) -> None:
    check_metadata(errors, priority_class["metadata"], is_dns_subdomain, namespaced=False)
    name, value = priority_class["metadata"].get("name") or "", priority_class.get("value") or 0
    if name.startswith("system-"):
        if _SYSTEM_CLASSES.get(name) != value:
            why = f"{name} is not a known system priority class"
            if name in _SYSTEM_CLASSES:
                why = f"value of {name} PriorityClass must be {_SYSTEM_CLASSES[name]}"
            detail = "priority class names with 'system-' prefix are reserved for system use only. error: "
            errors.append(forbidden("metadata.name", detail + why))
    elif value > _HIGHEST_USER_PRIORITY:
        detail = f"maximum allowed value of a user defined priority is {_HIGHEST_USER_PRIORITY}"
        errors.append(forbidden("value", detail))
    _check_preemption(errors, priority_class)


def check_priority_class_update(errors: Errors, priority_class: Value, old: Value) -> None:
    check_updated_metadata(errors, priority_class["metadata"], old["metadata"])
    if (priority_class.get("value") or 0) != (old.get("value") or 0):
        errors.append(forbidden("value", "may not be changed in an update."))
    if priority_class.get("preemptionPolicy") != old.get("preemptionPolicy"):
        errors.append(invalid("preemptionPolicy", priority_class.get("preemptionPolicy"), IMMUTABLE))


def _check_preemption(errors: Errors, priority_class: Value) -> None:
    policy = priority_class.get("preemptionPolicy")
    check_optional_choice(errors, "preemptionPolicy", policy, ("PreemptLowerPriority", "Never"))


def _check_quota_spec(errors: Errors, spec: Value) -> None:
    hard = spec.get("hard") or {}
    _check_amounts(errors, "spec.hard", hard)
    scopes = spec.get("scopes") or []
    for scope in scopes:
        if scope not in _SCOPES:
            errors.append(invalid("spec.scopes", scopes, "unsupported scope"))
        for name in sorted(hard):
            if _is_standard(name) and not _fits(scope, name):
                errors.append(invalid("spec.scopes", scopes, "unsupported scope applied to resource"))
    for pair in _PAIRS:
        if pair <= set(scopes):
            errors.append(invalid("spec.scopes", scopes, "conflicting scopes"))
    if (selector := spec.get("scopeSelector")) is not None:
        _check_scope_selector(errors, "spec.scopeSelector.matchExpressions", selector, spec)


def _check_scope_selector(errors: Errors, path: str, selector: Value, spec: Value) -> None:
    named = set()
    for requirement in selector.get("matchExpressions") or ():
        scope, operator = requirement.get("scopeName") or "", requirement.get("operator") or ""
        values = requirement.get("values") or []
        if scope not in _SCOPES:
            errors.append(invalid(f"{path}.scopeName", scope, "unsupported scope"))
        for name in sorted(spec.get("hard") or ()):
            if _is_standard(name) and not _fits(scope, name):
                shown = internal("core.v1.ScopeSelector", selector)
                errors.append(invalid(path, shown, "unsupported scope applied to resource"))
        if scope in _EXISTS_ONLY and operator != "Exists":
            listed = "ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, "
            listed += "ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity"
            errors.append(invalid(f"{path}.operator", operator, f"must be 'Exists' when scope is any of {listed}"))
        if operator in ("In", "NotIn"):
            if not values:
                detail = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector"
                errors.append(required(f"{path}.values", detail))
        elif operator not in ("Exists", "DoesNotExist"):
            errors.append(invalid(f"{path}.operator", operator, "not a valid selector operator"))
        elif values:
            detail = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector"
            errors.append(invalid(f"{path}.values", values, detail))
        named.add(scope)
    for pair in _PAIRS:
        if pair <= named:
            errors.append(invalid(path, spec.get("scopes"), "conflicting scopes"))


def _check_quota_status(errors: Errors, status: Value) -> None:
    for field in ("hard", "used"):
        _check_amounts(errors, f"status.{field}", status.get(field) or {})


def _check_amounts(errors: Errors, path: str, amounts: Mapping[str, Any]) -> None:
    for name in sorted(amounts):
        here = f"{path}[{name}]"
        check_resource_name(errors, here, name)
        if "/" not in name and not _is_standard(name):
            errors.append(invalid(here, name, "must be a standard resource for quota"))
        check_quantity(errors, here, name, amounts[name])


def _is_standard(name: str) -> bool:
    return name in _COMPUTE or name in _COUNTS or name.startswith(_HUGE_PAGES)


def _fits(scope: str, resource: str) -> bool:
    """Whether a scope says anything about a resource: best-effort pods can only be counted."""
    if scope == "BestEffort":
        return resource == "pods"
    if scope == "VolumeAttributesClass":
        return resource in ("persistentvolumeclaims", "requests.storage")
    if scope in _SCOPES:
        return resource == "pods" or resource in _POD_COMPUTE
    return True


def _check_limit(errors: Errors, path: str, kind: str, limit: Value) -> None:
    fields, names = [], set()
    check = check_container_resource_name if kind in ("Pod", "Container") else check_resource_name
    for field in ("max", "min", "default", "defaultRequest", "maxLimitRequestRatio"):
        if field == "maxLimitRequestRatio" and kind == "PersistentVolumeClaim":
            _check_storage_bounds(errors, path, limit)
        if kind == "Pod" and field.startswith("default"):
            if limit.get(field):
                errors.append(forbidden(f"{path}.{field}", "may not be specified when `type` is 'Pod'"))
            continue
        fields.append(field)
        for name in sorted(limit.get(field) or ()):
            check(errors, f"{path}.{field}[{name}]", name)
            names.add(name)
    for name in sorted(names):
        texts = {field: (limit.get(field) or {}).get(name) for field in fields}
        _check_bounds(errors, path, name, {field: text for field, text in texts.items() if text is not None})


def _check_storage_bounds(errors: Errors, path: str, limit: Value) -> None:
    if not any("storage" in (limit.get(field) or {}) for field in ("min", "max")):
        detail = "either minimum or maximum storage value is required, but neither was provided"
        errors.append(required(f"{path}.limits", detail))


def _check_bounds(errors: Errors, path: str, name: str, texts: Mapping[str, Any]) -> None:
    """min <= defaultRequest <= default <= max, wherever two of them are given."""
    amounts = {field: parse_quantity(text) for field, text in texts.items()}
    shown = {field: canonical(text) for field, text in texts.items()}
    for low, high, where, value in _ORDERED:
        if low in amounts and high in amounts and amounts[low] > amounts[high]:
            above = "default limit" if (low, high) == ("defaultRequest", "default") else _CALLED[high]
            detail = f"{_CALLED[low]} value {shown[low]} is greater than {above} value {shown[high]}"
            errors.append(invalid(f"{path}.{where}[{name}]", shown[value], detail))
    ratio = amounts.get("maxLimitRequestRatio")
    if ratio is not None:
        here, text = f"{path}.maxLimitRequestRatio[{name}]", shown["maxLimitRequestRatio"]
        if ratio < 1:
            errors.append(invalid(here, text, f"ratio {text} is less than 1"))
        least, most = amounts.get("min", Decimal(0)), amounts.get("max")
        if least and most is not None and ratio > most / least:
            errors.append(invalid(here, text, f"ratio {text} is greater than max/min = {float(most / least):f}"))
    default, request = amounts.get("default"), amounts.get("defaultRequest")
    if default is not None and request is not None and default != request and not is_overcommit_allowed(name):
        detail = (
            f"default value {shown['default']} must equal to defaultRequest value {shown['defaultRequest']} in {name}"
        )
        errors.append(invalid(f"{path}.defaultRequest[{name}]", shown["defaultRequest"], detail))


def _check_budget_spec(errors: Errors, spec: Value) -> None:
    if spec.get("minAvailable") is not None and spec.get("maxUnavailable") is not None:
        shown = internal("policy.v1.PodDisruptionBudgetSpec", spec)
        errors.append(invalid("spec", shown, "minAvailable and maxUnavailable cannot be both set"))
    for field in ("minAvailable", "maxUnavailable"):
        if spec.get(field) is not None:
            check_count_or_percent(errors, f"spec.{field}", spec[field])
            check_not_above_hundred(errors, f"spec.{field}", spec[field])
    check_label_selector(errors, "spec.selector", spec.get("selector"))
    policy = spec.get("unhealthyPodEvictionPolicy")
    if policy is not None and policy not in ("AlwaysAllow", "IfHealthyBudget"):
        choices = frozenset({"AlwaysAllow", "IfHealthyBudget"})
        errors.append(not_supported("spec.unhealthyPodEvictionPolicy", policy, choices))
