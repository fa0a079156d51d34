"""Lease and Event: what components tell each other.

Called by dispatch. Sources: k8s.io/kubernetes/pkg/apis/coordination/validation, .../core/validation/events.go.
"""

from __future__ import annotations

from api.errors import invalid, required
from api.names import is_dns_subdomain, is_qualified_name
from controller.registry.validation.meta import check_metadata, check_updated_metadata
from controller.registry.validation.rules import IMMUTABLE, Errors, Value, check_name, check_required_name

_LONGEST_NAME, _LONGEST_NOTE = 128, 1024
_EVENT_KINDS = ("Normal", "Warning")


def check_lease(errors: Errors, lease: Value) -> None:
    check_metadata(errors, lease["metadata"], is_dns_subdomain, namespaced=True)
    _check_lease_spec(errors, lease.get("spec") or {})


def check_lease_update(errors: Errors, lease: Value, old: Value) -> None:
    check_updated_metadata(errors, lease["metadata"], old["metadata"])
    _check_lease_spec(errors, lease.get("spec") or {})


def check_event(errors: Errors, event: Value) -> None:
    """A core/v1 Event: its namespace is that of what it is about; with `eventTime` it is of the new style."""
    check_metadata(errors, event["metadata"], is_dns_subdomain, namespaced=True)
    about = event.get("involvedObject") or event.get("regarding") or {}
    path = "regarding" if "regarding" in event else "involvedObject"
    namespace, own = about.get("namespace") or "", event["metadata"].get("namespace") or ""
    if namespace != own and (namespace or own not in ("", "default", "kube-system")):
        errors.append(invalid(f"{path}.namespace", namespace, "does not match event.namespace"))
    if event.get("eventTime"):
        _check_new_style(errors, event)
    elif path == "regarding":
        errors.append(required("eventTime"))


def check_event_update(errors: Errors, event: Value, old: Value) -> None:
    check_updated_metadata(errors, event["metadata"], old["metadata"])
    check_event(errors, event)
    if not (old.get("eventTime") and "regarding" in event):
        return
    for field in ("regarding", "related", "reason", "action", "eventTime", "reportingController", "reportingInstance"):
        if event.get(field) != old.get(field):
            errors.append(invalid(field, event.get(field), IMMUTABLE))


def _check_lease_spec(errors: Errors, spec: Value) -> None:
    seconds, transitions = spec.get("leaseDurationSeconds"), spec.get("leaseTransitions")
    if seconds is not None and seconds <= 0:
        errors.append(invalid("spec.leaseDurationSeconds", seconds, "must be greater than 0"))
    if transitions is not None and transitions < 0:
        errors.append(invalid("spec.leaseTransitions", transitions, "must be greater than or equal to 0"))
    if spec.get("strategy") is not None:
        check_name(errors, "spec.strategy", spec["strategy"], is_qualified_name)


def _check_new_style(errors: Errors, event: Value) -> None:
    old_name = "reportingComponent" in event and "reportingController" not in event
    controller = "reportingComponent" if old_name else "reportingController"
    check_required_name(errors, controller, event.get(controller), is_qualified_name)
    for field in ("reportingInstance", "action", "reason"):
        value = event.get(field) or ""
        if not value:
            errors.append(required(field))
        if len(value) > _LONGEST_NAME:
            errors.append(invalid(field, value, f"can have at most {_LONGEST_NAME} characters"))
    note = "note" if "note" in event else "message"
    if len(event.get(note) or "") > _LONGEST_NOTE:
        errors.append(invalid(note, event[note], f"can have at most {_LONGEST_NOTE} characters"))
    if "regarding" in event and event.get("type") not in _EVENT_KINDS:
        errors.append(invalid("type", event.get("type") or "", "has invalid value: "))
