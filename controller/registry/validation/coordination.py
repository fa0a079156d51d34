"""Lease and Event: what components tell each other.

Called by dispatch. Sources: k8s.io/kubernetes/pkg/apis/coordination/validation, .../core/validation/events.go.
"""

from __future__ import annotations

from api.errors import forbidden, invalid, required
from api.names import is_dns_subdomain, is_qualified_name
from controller.registry.validation.meta import check_any_name, check_metadata, check_updated_metadata
from controller.registry.validation.rules import Errors, Value, check_name, check_optional_choice

_LONGEST_NAME, _LONGEST_NOTE = 128, 1024
_EVENT_KINDS = ("Normal", "Warning")
_OLD_FIELDS = {
    "deprecatedFirstTimestamp": "firstTimestamp",
    "deprecatedLastTimestamp": "lastTimestamp",
    "deprecatedCount": "count",
    "deprecatedSource": "source",
}


def check_lease(errors: Errors, lease: Value) -> None:
    check_metadata(errors, lease["metadata"], is_dns_subdomain, namespaced=True, finalizers=False)
    _check_lease_spec(errors, lease.get("spec") or {})


def check_lease_update(errors: Errors, lease: Value, old: Value) -> None:
    check_updated_metadata(errors, lease["metadata"], old["metadata"], finalizers=False)
    _check_lease_spec(errors, lease.get("spec") or {})


def check_event(errors: Errors, event: Value) -> None:
    """An Event as either API has it; what comes by core/v1 is judged by the laxer rules of old."""
    _check_event(errors, event)
    if "regarding" in event:
        _check_new_event(errors, event)
    else:
        check_any_name(errors, event["metadata"])


def check_event_update(errors: Errors, event: Value, old: Value) -> None:
    del old
    _check_event(errors, event)


def _check_event(errors: Errors, event: Value) -> None:
    about = event.get("involvedObject") or event.get("regarding") or {}
    namespace, own = about.get("namespace") or "", event["metadata"].get("namespace") or ""
    if event.get("eventTime"):
        matches = bool(namespace) or own in ("default", "kube-system")
    else:
        matches = namespace == own if namespace else own in ("", "default")
    if not matches:
        errors.append(invalid("involvedObject.namespace", namespace, "does not match event.namespace"))
    if event.get("eventTime"):
        _check_reported(errors, event)
    check_name(errors, "namespace", own, is_dns_subdomain)


def _check_reported(errors: Errors, event: Value) -> None:
    """What an event with a time of its own must tell."""
    field = "reportingController" if "regarding" in event else "reportingComponent"
    controller = event.get("reportingComponent") or event.get("reportingController") or ""
    if not controller:
        errors.append(required(field))
    check_name(errors, field, controller, is_qualified_name)
    for field in ("reportingInstance", "action", "reason"):
        value = event.get(field) or ""
        if not value:
            errors.append(required(field))
        if len(value) > _LONGEST_NAME:
            errors.append(invalid(field, "", f"can have at most {_LONGEST_NAME} characters"))
    if len(event.get("note") or event.get("message") or "") > _LONGEST_NOTE:
        errors.append(invalid("message", "", f"can have at most {_LONGEST_NOTE} characters"))


def _check_new_event(errors: Errors, event: Value) -> None:
    """What events.k8s.io/v1 asks beyond that."""
    check_metadata(errors, event["metadata"], is_dns_subdomain, namespaced=True)
    if (series := event.get("series")) is not None:
        if (series.get("count") or 0) < 2:
            errors.append(invalid("series.count", "", "should be at least 2"))
        if not series.get("lastObservedTime"):
            errors.append(required("series.lastObservedTime"))
    if not event.get("eventTime"):
        errors.append(required("eventTime"))
    if event.get("type") not in _EVENT_KINDS:
        errors.append(invalid("type", "", f"has invalid value: {event.get('type') or ''}"))
    for old, field in _OLD_FIELDS.items():
        if any(event[old].values()) if isinstance(event.get(old), dict) else event.get(old):
            errors.append(invalid(field, "", "needs to be unset"))


def _check_lease_spec(errors: Errors, spec: Value) -> None:
    seconds, transitions = spec.get("leaseDurationSeconds"), spec.get("leaseTransitions")
    if seconds is not None and seconds <= 0:
        errors.append(invalid("spec.leaseDurationSeconds", seconds, "must be greater than 0"))
    if transitions is not None and transitions < 0:
        errors.append(invalid("spec.leaseTransitions", transitions, "must be greater than or equal to 0"))
    if (strategy := spec.get("strategy")) is not None:
        if "/" in strategy:
            check_name(errors, "spec.strategy.strategy", strategy, is_qualified_name)
        else:
            check_optional_choice(errors, "spec.strategy.strategy", strategy, ("OldestEmulationVersion",))
    if spec.get("preferredHolder") and not strategy:
        detail = "may only be specified if `strategy` is defined"
        errors.append(forbidden("spec.preferredHolder", detail))
