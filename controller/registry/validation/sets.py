"""StatefulSet, DaemonSet and ReplicationController.

Called by dispatch. Source: k8s.io/kubernetes/pkg/apis/apps/validation and .../core/validation.
"""

from __future__ import annotations

from typing import Any

from api.errors import forbidden, invalid, not_supported, required
from api.names import is_dns_label, is_dns_subdomain
from api.selectors import from_labels
from controller.registry.validation.claims import check_claim_template
from controller.registry.validation.internal import internal
from controller.registry.validation.meta import check_metadata, check_updated_metadata
from controller.registry.validation.rules import (
    Errors,
    Value,
    check_count_or_percent,
    check_dns_label,
    check_immutable,
    check_label_selector,
    check_not_negative,
    percent_of,
)
from controller.registry.validation.workloads import (
    check_lasting,
    check_not_above_hundred,
    check_not_decremented,
    check_selected,
    check_selector,
    check_template,
    parse_selector,
    shown_strategy,
)

_CHANGEABLE = (
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
)
_RETENTIONS = ("Delete", "Retain")
_SET_COUNTS = ("readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas")
_DAEMON_COUNTS = (
    "currentNumberScheduled",
    "numberMisscheduled",
    "desiredNumberScheduled",
    "numberReady",
    "observedGeneration",
    "updatedNumberScheduled",
    "numberAvailable",
    "numberUnavailable",
    "collisionCount",
)


def check_stateful_set(errors: Errors, stateful_set: Value) -> None:
    check_metadata(errors, stateful_set["metadata"], is_dns_label, namespaced=True)
    spec = stateful_set.get("spec") or {}
    _check_stateful_spec(errors, spec, service=spec.get("serviceName") or "")


def check_stateful_set_update(errors: Errors, stateful_set: Value, old: Value) -> None:
    check_updated_metadata(errors, stateful_set["metadata"], old["metadata"])
    spec, before = stateful_set.get("spec") or {}, old.get("spec") or {}
    _check_stateful_spec(errors, spec)
    kept = {key: value for key, value in spec.items() if key not in _CHANGEABLE}
    if kept != {key: value for key, value in before.items() if key not in _CHANGEABLE}:
        listed = "', '".join(_CHANGEABLE[:-1])
        detail = f"updates to statefulset spec for fields other than '{listed}' and '{_CHANGEABLE[-1]}' are forbidden"
        errors.append(forbidden("spec", detail))


def check_stateful_set_status(errors: Errors, stateful_set: Value, old: Value) -> None:
    check_updated_metadata(errors, stateful_set["metadata"], old["metadata"])
    status, before = stateful_set.get("status") or {}, old.get("status") or {}
    for field in ("replicas", *_SET_COUNTS, "observedGeneration", "collisionCount"):
        check_not_negative(errors, f"status.{field}", status.get(field))
    for field in _SET_COUNTS:
        if (status.get(field) or 0) > (status.get("replicas") or 0):
            errors.append(invalid(f"status.{field}", status.get(field) or 0, "cannot be greater than status.replicas"))
    if (status.get("availableReplicas") or 0) > (status.get("readyReplicas") or 0):
        detail = "cannot be greater than status.readyReplicas"
        errors.append(invalid("status.availableReplicas", status.get("availableReplicas") or 0, detail))
    check_not_decremented(errors, status, before)


def check_daemon_set(errors: Errors, daemon_set: Value) -> None:
    check_metadata(errors, daemon_set["metadata"], is_dns_subdomain, namespaced=True)
    _check_daemon_spec(errors, daemon_set.get("spec") or {})


def check_daemon_set_update(errors: Errors, daemon_set: Value, old: Value) -> None:
    check_updated_metadata(errors, daemon_set["metadata"], old["metadata"])
    spec = daemon_set.get("spec") or {}
    check_immutable(errors, "spec.selector", spec.get("selector"), (old.get("spec") or {}).get("selector"))
    _check_daemon_spec(errors, spec)


def check_daemon_set_status(errors: Errors, daemon_set: Value, old: Value) -> None:
    check_updated_metadata(errors, daemon_set["metadata"], old["metadata"])
    status, before = daemon_set.get("status") or {}, old.get("status") or {}
    for field in _DAEMON_COUNTS:
        check_not_negative(errors, f"status.{field}", status.get(field))
    check_not_decremented(errors, status, before)


def check_replication_controller(errors: Errors, controller: Value) -> None:
    check_metadata(errors, controller["metadata"], is_dns_subdomain, namespaced=True)
    _check_controller_spec(errors, controller.get("spec") or {})


def check_replication_controller_update(errors: Errors, controller: Value, old: Value) -> None:
    check_updated_metadata(errors, controller["metadata"], old["metadata"])
    _check_controller_spec(errors, controller.get("spec") or {})


def _check_stateful_spec(errors: Errors, spec: Value, *, service: str = "") -> None:
    """`service` is judged when the set is new: older sets may name any."""
    policy = spec.get("podManagementPolicy") or ""
    if policy not in ("OrderedReady", "Parallel"):
        detail = "must be 'OrderedReady' or 'Parallel'"
        errors.append(
            invalid("spec.podManagementPolicy", policy, detail) if policy else required("spec.podManagementPolicy")
        )
    _check_stateful_strategy(errors, "spec.updateStrategy", spec.get("updateStrategy") or {})
    if (retention := spec.get("persistentVolumeClaimRetentionPolicy")) is not None:
        for field in ("whenDeleted", "whenScaled"):
            if retention.get(field) not in _RETENTIONS:
                path = f"spec.persistentVolumeClaimRetentionPolicy.{field}"
                errors.append(not_supported(path, retention.get(field) or "", _RETENTIONS))
    check_not_negative(errors, "spec.replicas", spec.get("replicas"))
    check_not_negative(errors, "spec.minReadySeconds", spec.get("minReadySeconds"))
    check_not_negative(errors, "spec.ordinals.start", (spec.get("ordinals") or {}).get("start"))
    if service:
        check_dns_label(errors, "spec.serviceName", service)
    empty = "empty selector is invalid for statefulset"
    selector = check_selector(errors, "spec.selector", spec.get("selector"), empty=empty)
    template = spec.get("template") or {}
    if selector is not None:
        check_selected(errors, "spec.template", template, selector)
        check_template(errors, "spec.template", _with_claims(template, spec.get("volumeClaimTemplates") or []))
    check_lasting(errors, "spec.template", template, "StatefulSet")
    for index, claim in enumerate(spec.get("volumeClaimTemplates") or ()):
        check_claim_template(errors, f"spec.volumeClaimTemplates[{index}]", claim)


def _with_claims(template: Value, claims: list[Value]) -> Value:
    """The template with the volumes that the set's claims will add, for the mounts that name them."""
    if not claims:
        return template
    spec = template.get("spec") or {}
    known = {volume.get("name") for volume in spec.get("volumes") or ()}
    names = [(claim.get("metadata") or {}).get("name") or "" for claim in claims]
    added = [{"name": name, "persistentVolumeClaim": {"claimName": name}} for name in names if name not in known]
    return {**template, "spec": {**spec, "volumes": [*(spec.get("volumes") or ()), *added]}}


def _check_stateful_strategy(errors: Errors, path: str, strategy: Value) -> None:
    kind, rolling = strategy.get("type") or "", strategy.get("rollingUpdate")
    if not kind:
        errors.append(required(path))
    elif kind == "OnDelete":
        if rolling is not None:
            detail = "only allowed for updateStrategy 'RollingUpdate'"
            shown = internal("apps.v1.RollingUpdateStatefulSetStrategy", rolling)
            errors.append(invalid(f"{path}.rollingUpdate", shown, detail))
    elif kind != "RollingUpdate":
        shown = internal("apps.v1.StatefulSetUpdateStrategy", strategy)
        errors.append(invalid(path, shown, "must be 'RollingUpdate' or 'OnDelete'"))
    elif rolling is not None:
        check_not_negative(errors, f"{path}.rollingUpdate.partition", rolling.get("partition"))
        unavailable = rolling.get("maxUnavailable")
        if unavailable is not None:
            here = f"{path}.rollingUpdate.maxUnavailable"
            check_count_or_percent(errors, here, unavailable)
            if not _count(unavailable):
                errors.append(invalid(here, unavailable, "cannot be 0"))
            check_not_above_hundred(errors, here, unavailable)


def _check_daemon_spec(errors: Errors, spec: Value) -> None:
    given, template = spec.get("selector"), spec.get("template") or {}
    check_label_selector(errors, "spec.selector", given)
    selector = parse_selector([], "spec.selector", given)
    if selector is not None and not selector.matches((template.get("metadata") or {}).get("labels") or {}):
        detail = "`selector` does not match template `labels`"
        labels = (template.get("metadata") or {}).get("labels")
        errors.append(invalid("spec.template.metadata.labels", labels, detail))
    if given is not None and not given.get("matchLabels") and not given.get("matchExpressions"):
        errors.append(invalid("spec.selector", given, "empty selector is invalid for daemonset"))
    check_template(errors, "spec.template", template)
    check_lasting(errors, "spec.template", template, "DaemonSet")
    check_not_negative(errors, "spec.minReadySeconds", spec.get("minReadySeconds"))
    _check_daemon_strategy(errors, "spec.updateStrategy", spec.get("updateStrategy") or {})
    check_not_negative(errors, "spec.revisionHistoryLimit", spec.get("revisionHistoryLimit"))


def _check_daemon_strategy(errors: Errors, path: str, strategy: Value) -> None:
    kind, rolling = strategy.get("type") or "", strategy.get("rollingUpdate")
    if kind == "OnDelete":
        return
    if kind != "RollingUpdate":
        errors.append(not_supported(path, shown_strategy(strategy), ("RollingUpdate", "OnDelete")))
        return
    if rolling is None:
        errors.append(required(f"{path}.rollingUpdate"))
        return
    here, counts = f"{path}.rollingUpdate", {}
    for field in ("maxUnavailable", "maxSurge"):
        value = rolling.get(field, 0)
        counts[field] = _count(value)
        check_count_or_percent(errors, f"{here}.{field}", value)
        check_not_above_hundred(errors, f"{here}.{field}", value)
    if counts["maxUnavailable"] and counts["maxSurge"]:
        detail = "may not be set when maxUnavailable is non-zero"
        errors.append(invalid(f"{here}.maxSurge", rolling.get("maxSurge"), detail))
    elif not counts["maxUnavailable"] and not counts["maxSurge"]:
        errors.append(required(f"{here}.maxUnavailable", "cannot be 0 when maxSurge is 0"))


def _count(value: Any) -> int:
    return value if isinstance(value, int) else percent_of(value) or 0


def _check_controller_spec(errors: Errors, spec: Value) -> None:
    check_not_negative(errors, "spec.minReadySeconds", spec.get("minReadySeconds"))
    labels, template = spec.get("selector") or {}, spec.get("template")
    if not labels:
        errors.append(required("spec.selector"))
    if spec.get("replicas") is None:
        errors.append(required("spec.replicas"))
    check_not_negative(errors, "spec.replicas", spec.get("replicas"))
    if template is None:
        errors.append(required("spec.template"))
        return
    check_selected(errors, "spec.template", template, from_labels(labels))
    check_template(errors, "spec.template", template)
    check_lasting(errors, "spec.template", template, "ReplicationController")
