"""Deployment and ReplicaSet: replicas, selector, template, strategy, status; and the Scale of both.

Called by dispatch; other workload kinds use `check_template`, `check_selector` and `check_rolling_update`. Source:
k8s.io/kubernetes/pkg/apis/apps/validation, https://kubernetes.io/docs/concepts/workloads/controllers/deployment/.
"""

from __future__ import annotations

from typing import Any

from api.errors import forbidden, invalid, not_supported, required
from api.names import is_dns_subdomain
from api.selectors import NOTHING, LabelSelector, from_object
from controller.registry.validation.meta import check_annotations, check_metadata, check_updated_metadata
from controller.registry.validation.pods import check_pod_annotations
from controller.registry.validation.podspec import check_pod_spec
from controller.registry.validation.rules import (
    Errors,
    Value,
    check_count_or_percent,
    check_immutable,
    check_label_selector,
    check_labels,
    check_not_negative,
    percent_of,
)

_ABOVE_REPLICAS = "cannot be greater than status.replicas"


def check_deployment(errors: Errors, deployment: Value) -> None:
    check_metadata(errors, deployment["metadata"], is_dns_subdomain, namespaced=True)
    _check_deployment_spec(errors, deployment.get("spec") or {})


def check_deployment_update(errors: Errors, deployment: Value, old: Value) -> None:
    check_updated_metadata(errors, deployment["metadata"], old["metadata"])
    spec = deployment.get("spec") or {}
    _check_deployment_spec(errors, spec)
    check_immutable(errors, "spec.selector", spec.get("selector"), (old.get("spec") or {}).get("selector"))


def check_deployment_status(errors: Errors, deployment: Value, old: Value) -> None:
    check_updated_metadata(errors, deployment["metadata"], old["metadata"])
    status, before = deployment.get("status") or {}, old.get("status") or {}
    fields = (
        "replicas",
        "updatedReplicas",
        "readyReplicas",
        "availableReplicas",
        "unavailableReplicas",
        "terminatingReplicas",
    )
    for field in ("observedGeneration", *fields, "collisionCount"):
        check_not_negative(errors, f"status.{field}", status.get(field))
    _check_counts(errors, status, ("updatedReplicas", "readyReplicas", "availableReplicas"))
    check_not_decremented(errors, status, before)


def check_replica_set(errors: Errors, replica_set: Value) -> None:
    check_metadata(errors, replica_set["metadata"], is_dns_subdomain, namespaced=True)
    _check_replica_set_spec(errors, replica_set.get("spec") or {})


def check_replica_set_update(errors: Errors, replica_set: Value, old: Value) -> None:
    check_updated_metadata(errors, replica_set["metadata"], old["metadata"])
    spec = replica_set.get("spec") or {}
    _check_replica_set_spec(errors, spec)
    check_immutable(errors, "spec.selector", spec.get("selector"), (old.get("spec") or {}).get("selector"))


def check_replica_set_status(errors: Errors, replica_set: Value, old: Value) -> None:
    check_updated_metadata(errors, replica_set["metadata"], old["metadata"])
    status = replica_set.get("status") or {}
    fields = ("fullyLabeledReplicas", "readyReplicas", "availableReplicas")
    for field in ("replicas", *fields, "terminatingReplicas", "observedGeneration"):
        check_not_negative(errors, f"status.{field}", status.get(field))
    _check_counts(errors, status, fields)


def check_selector(errors: Errors, path: str, selector: Value | None, *, empty: str) -> LabelSelector | None:
    """A workload's selector; None when it cannot be used. `empty` says what is wrong with one that selects all."""
    if selector is None:
        errors.append(required(path))
        return NOTHING
    check_label_selector(errors, path, selector)
    if not selector.get("matchLabels") and not selector.get("matchExpressions"):
        errors.append(invalid(path, selector, empty))
    return parse_selector(errors, path, selector)


def parse_selector(errors: Errors, path: str, selector: Value | None) -> LabelSelector | None:
    try:
        return from_object(selector)
    except ValueError:
        errors.append(invalid(path, selector, "invalid label selector"))
        return None


def check_selected(errors: Errors, path: str, template: Value, selector: LabelSelector) -> None:
    """The template's labels must be among those selected, or the workload would create pods for ever."""
    labels = (template.get("metadata") or {}).get("labels")
    if not selector.everything and not selector.matches(labels or {}):
        errors.append(invalid(f"{path}.metadata.labels", labels, "`selector` does not match template `labels`"))


def check_template(errors: Errors, path: str, template: Value) -> None:
    """A pod template: its labels, annotations and spec."""
    metadata, spec = template.get("metadata") or {}, template.get("spec") or {}
    check_labels(errors, f"{path}.labels", metadata.get("labels"))
    check_annotations(errors, f"{path}.annotations", metadata.get("annotations"))
    check_pod_annotations(errors, f"{path}.annotations", metadata.get("annotations"), spec)
    check_pod_spec(errors, f"{path}.spec", spec)
    if spec.get("ephemeralContainers"):
        detail = "ephemeral containers not allowed in pod template"
        errors.append(forbidden(f"{path}.spec.ephemeralContainers", detail))


def check_lasting(errors: Errors, path: str, template: Value, owner: str) -> None:
    """The template of a workload whose pods always run."""
    spec = template.get("spec") or {}
    if (policy := spec.get("restartPolicy") or "") != "Always":
        errors.append(not_supported(f"{path}.spec.restartPolicy", policy, ("Always",)))
    if spec.get("activeDeadlineSeconds") is not None:
        detail = f"activeDeadlineSeconds in {owner} is not Supported"
        errors.append(forbidden(f"{path}.spec.activeDeadlineSeconds", detail))


def check_not_above_hundred(errors: Errors, path: str, value: Any) -> None:
    percent = percent_of(value)
    if percent is not None and percent > 100:
        errors.append(invalid(path, value, "must not be greater than 100%"))


def check_not_decremented(errors: Errors, status: Value, before: Value) -> None:
    """`collisionCount` salts names, so it only grows."""
    count, old = status.get("collisionCount"), before.get("collisionCount")
    if old is not None and (count is None or count < old):
        errors.append(invalid("status.collisionCount", count or 0, "cannot be decremented"))


def shown_strategy(strategy: Value) -> Value:
    """A strategy of a Deployment or DaemonSet as Kubernetes shows it: what is not set is 0 there."""
    rolling = strategy.get("rollingUpdate")
    if rolling is not None:
        rolling = {"MaxUnavailable": rolling.get("maxUnavailable", 0), "MaxSurge": rolling.get("maxSurge", 0)}
    return {"Type": strategy.get("type") or "", "RollingUpdate": rolling}


def _check_deployment_spec(errors: Errors, spec: Value) -> None:
    check_not_negative(errors, "spec.replicas", spec.get("replicas"))
    empty = "empty selector is invalid for deployment"
    selector = check_selector(errors, "spec.selector", spec.get("selector"), empty=empty)
    if selector is not None:
        _check_template_of(errors, spec.get("template") or {}, selector)
    _check_strategy(errors, "spec.strategy", spec.get("strategy") or {})
    check_not_negative(errors, "spec.minReadySeconds", spec.get("minReadySeconds"))
    check_not_negative(errors, "spec.revisionHistoryLimit", spec.get("revisionHistoryLimit"))
    deadline = spec.get("progressDeadlineSeconds")
    check_not_negative(errors, "spec.progressDeadlineSeconds", deadline)
    if deadline is not None and deadline <= (spec.get("minReadySeconds") or 0):
        errors.append(invalid("spec.progressDeadlineSeconds", deadline, "must be greater than minReadySeconds"))


def _check_replica_set_spec(errors: Errors, spec: Value) -> None:
    check_not_negative(errors, "spec.replicas", spec.get("replicas"))
    check_not_negative(errors, "spec.minReadySeconds", spec.get("minReadySeconds"))
    empty = "empty selector is invalid for deployment"  # Kubernetes says so for ReplicaSets, too
    selector = check_selector(errors, "spec.selector", spec.get("selector"), empty=empty)
    if selector is not None:
        _check_template_of(errors, spec.get("template") or {}, selector)


def _check_template_of(errors: Errors, template: Value, selector: LabelSelector) -> None:
    check_selected(errors, "spec.template", template, selector)
    check_template(errors, "spec.template", template)
    check_lasting(errors, "spec.template", template, "ReplicaSet")


def _check_strategy(errors: Errors, path: str, strategy: Value) -> None:
    kind, rolling = strategy.get("type") or "", strategy.get("rollingUpdate")
    if kind == "Recreate":
        if rolling is not None:
            detail = "may not be specified when strategy `type` is 'Recreate'"
            errors.append(forbidden(f"{path}.rollingUpdate", detail))
    elif kind != "RollingUpdate":
        errors.append(not_supported(path, shown_strategy(strategy), ("Recreate", "RollingUpdate")))
    elif rolling is None:
        errors.append(required(f"{path}.rollingUpdate", "this should be defaulted and never be nil"))
    else:
        _check_rolling(errors, f"{path}.rollingUpdate", rolling)


def _check_rolling(errors: Errors, path: str, rolling: Value) -> None:
    unavailable, surge = rolling.get("maxUnavailable", 0), rolling.get("maxSurge", 0)
    check_count_or_percent(errors, f"{path}.maxUnavailable", unavailable)
    check_count_or_percent(errors, f"{path}.maxSurge", surge)
    if _is_zero(unavailable) and _is_zero(surge):
        errors.append(invalid(f"{path}.maxUnavailable", unavailable, "may not be 0 when `maxSurge` is 0"))
    check_not_above_hundred(errors, f"{path}.maxUnavailable", unavailable)


def _is_zero(value: Any) -> bool:
    return value == 0 or percent_of(value) == 0


def _check_counts(errors: Errors, status: Value, fields: tuple[str, ...]) -> None:
    for field in fields:
        count = status.get(field) or 0
        if count > (status.get("replicas") or 0):
            errors.append(invalid(f"status.{field}", count, _ABOVE_REPLICAS))
    available = status.get("availableReplicas") or 0
    if available > (status.get("readyReplicas") or 0):
        errors.append(invalid("status.availableReplicas", available, "cannot be greater than readyReplicas"))
