"""Probes and lifecycle hooks: exactly one handler, sane times.

Called by containers. Source: k8s.io/kubernetes/pkg/apis/core/validation,
https://kubernetes.io/docs/tasks/configure-pod-container/configure-liveness-readiness-startup-probes/.
"""

from __future__ import annotations

from api.errors import forbidden, invalid, not_supported, required
from api.names import is_http_header, is_port_number
from controller.registry.validation.rules import Errors, Value, check_name, check_not_negative, check_port

_PROBE_HANDLERS = ("exec", "httpGet", "tcpSocket", "grpc")
_LIFECYCLE_HANDLERS = ("exec", "httpGet", "tcpSocket", "sleep")
_SCHEMES = frozenset({"HTTP", "HTTPS"})
_TIMES = ("initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold")
PROBES = ("livenessProbe", "readinessProbe", "startupProbe")


def check_probes(errors: Errors, path: str, container: Value, grace_seconds: int | None) -> None:
    """The three probes of a container."""
    for kind in PROBES:
        probe = container.get(kind)
        if probe is not None:
            _check_probe(errors, f"{path}.{kind}", probe, grace_seconds)
            _check_kind(errors, f"{path}.{kind}", kind, probe)


def check_lifecycle(errors: Errors, path: str, lifecycle: Value, grace_seconds: int | None) -> None:
    for hook in ("postStart", "preStop"):
        if lifecycle.get(hook) is not None:
            _check_handler(errors, f"{path}.{hook}", lifecycle[hook], _LIFECYCLE_HANDLERS, grace_seconds)


def _check_probe(errors: Errors, path: str, probe: Value, grace_seconds: int | None) -> None:
    _check_handler(errors, path, probe, _PROBE_HANDLERS, grace_seconds)
    for name in _TIMES:
        check_not_negative(errors, f"{path}.{name}", probe.get(name))
    own = probe.get("terminationGracePeriodSeconds")
    if own is not None and own <= 0:
        errors.append(invalid(f"{path}.terminationGracePeriodSeconds", own, "must be greater than 0"))


def _check_kind(errors: Errors, path: str, kind: str, probe: Value) -> None:
    """A container is live or started after one success; only readiness may ask for more."""
    if kind != "readinessProbe":
        threshold = probe.get("successThreshold", 1)
        if threshold != 1:
            errors.append(invalid(f"{path}.successThreshold", threshold, "must be 1"))
    elif probe.get("terminationGracePeriodSeconds") is not None:
        own = probe["terminationGracePeriodSeconds"]
        errors.append(invalid(f"{path}.terminationGracePeriodSeconds", own, "must not be set for readinessProbes"))


def _check_handler(
    errors: Errors, path: str, handler: Value, kinds: tuple[str, ...], grace_seconds: int | None
) -> None:
    found = [kind for kind in kinds if handler.get(kind) is not None]
    if not found:
        errors.append(required(path, "must specify a handler type"))
        return
    action, here = handler[found[0]], f"{path}.{found[0]}"
    match found[0]:
        case "exec":
            if not action.get("command"):
                errors.append(required(f"{here}.command"))
        case "httpGet":
            _check_http(errors, here, action)
        case "tcpSocket":
            check_port(errors, f"{here}.port", action.get("port"))
        case "grpc":
            check_name(errors, f"{here}.port", action.get("port") or 0, is_port_number)
        case "sleep":
            _check_sleep(errors, here, action.get("seconds") or 0, grace_seconds)
    for kind in found[1:]:
        errors.append(forbidden(f"{path}.{kind}", "may not specify more than 1 handler type"))


def _check_http(errors: Errors, path: str, action: Value) -> None:
    if not action.get("path"):
        errors.append(required(f"{path}.path"))
    check_port(errors, f"{path}.port", action.get("port"))
    scheme = action.get("scheme") or ""
    if scheme not in _SCHEMES:
        errors.append(not_supported(f"{path}.scheme", scheme, _SCHEMES))
    for header in action.get("httpHeaders") or ():
        check_name(errors, f"{path}.httpHeaders", header.get("name") or "", is_http_header)


def _check_sleep(errors: Errors, path: str, seconds: int, grace_seconds: int | None) -> None:
    if grace_seconds is not None and not 0 <= seconds <= grace_seconds:
        detail = f"must be non-negative and less than terminationGracePeriodSeconds ({grace_seconds})"
        errors.append(invalid(path, seconds, detail))
