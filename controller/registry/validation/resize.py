"""pods/resize: how much cpu and memory the containers of a pod get may change, and nothing else.

Called by dispatch. Source: k8s.io/kubernetes/pkg/apis/core/validation (ValidatePodResize), and the page "Resize CPU and
Memory Resources assigned to Containers".
"""

from __future__ import annotations

from typing import Any

from api.errors import forbidden, invalid
from controller.registry.strategies.pods import qos_class
from controller.registry.validation.meta import check_updated_metadata
from controller.registry.validation.pods import MIRROR, check_metadata_and_spec, normal
from controller.registry.validation.rules import Errors, Value

_LISTS = ("containers", "initContainers")
_SIDES = ("requests", "limits")
_SCALED = ("cpu", "memory")


def check_pod_resize(errors: Errors, pod: Value, old: Value) -> None:
    """The strategy has taken back all but resources and resize policies, unless containers came, went or moved."""
    check_updated_metadata(errors, pod["metadata"], old["metadata"])
    check_metadata_and_spec(errors, pod)
    spec, before = pod.get("spec") or {}, old["spec"]
    refused = "static" if MIRROR in (old["metadata"].get("annotations") or {}) else _windows(before)
    if refused:
        errors[:] = [forbidden("", f"{refused} pods cannot be resized")]
        return
    status = old.get("status") or {}
    if (status.get("qosClass") or qos_class(before)) != qos_class(spec):
        detail = "Pod QOS Class may not change as a result of resizing"
        errors.append(invalid("spec", (pod.get("status") or {}).get("qosClass") or "", detail))
    if not _is_supported(status):
        errors.append(forbidden("spec", "Pod running on node without support for resize"))
    found = len(errors)
    for field in _LISTS:
        _check_order(errors, field, spec.get(field) or [], before.get(field) or [])
    if len(errors) == found:
        _check_containers(errors, spec, before)


def _windows(spec: Value) -> str:
    return "windows" if (spec.get("os") or {}).get("name") == "windows" else ""


def _is_supported(status: Value) -> bool:
    """Whether the first container that runs has told what it has; before one runs there is nothing to tell."""
    statuses = status.get("containerStatuses") or ()
    running = (entry for entry in statuses if (entry.get("state") or {}).get("running"))
    first = next(running, None)
    return first is None or first.get("resources") is not None


def _check_order(errors: Errors, field: str, containers: list[Value], before: list[Value]) -> None:
    if len(containers) != len(before):
        errors.append(forbidden(f"spec.{field}", f"{field} may not be added or removed on resize"))
        return
    for index, (one, known) in enumerate(zip(containers, before, strict=True)):
        if one.get("name") != known.get("name"):
            path = f"spec.{field}[{index}].name"
            errors.append(forbidden(path, f"{field} may not be renamed or reordered on resize"))


def _check_containers(errors: Errors, spec: Value, before: Value) -> None:
    for field in reversed(_LISTS):
        for index, (one, known) in enumerate(zip(spec.get(field) or (), before.get(field) or (), strict=True)):
            _check_kept(errors, f"spec.{field}[{index}].resources", one, known)
    for one, known in zip(spec.get("containers") or (), before.get("containers") or (), strict=True):
        if _unscaled(one, known) != _unscaled(known, known):
            errors.append(forbidden("spec", "only cpu and memory resources are mutable"))
    for index, (one, known) in enumerate(zip(spec.get(_LISTS[1]) or (), before.get(_LISTS[1]) or (), strict=True)):
        _check_init_container(errors, f"spec.initContainers[{index}]", one, known)


def _check_kept(errors: Errors, path: str, container: Value, known: Value) -> None:
    """What is requested or limited stays so: only the amount may change."""
    for side in _SIDES:
        now = (container.get("resources") or {}).get(side) or {}
        if any(name not in now for name in (known.get("resources") or {}).get(side) or {}):
            errors.append(forbidden(f"{path}.{side}", f"resource {side} cannot be removed"))


def _check_init_container(errors: Errors, path: str, container: Value, known: Value) -> None:
    if _unscaled(container, known) != _unscaled(known, known):
        errors.append(forbidden(path, "only cpu and memory resources for init or sidecar containers are mutable"))
    if container.get("restartPolicy") == "Always" or normal(container) == normal(known):
        return
    if any(policy.get("restartPolicy") == "RestartContainer" for policy in container.get("resizePolicy") or ()):
        detail = "non-sidecar init containers with a resize policy of RestartContainer cannot be resized"
        errors.append(forbidden(path, detail))


def _unscaled(container: Value, known: Value) -> Any:
    """The container with the cpu and memory it had before."""
    resources, had = container.get("resources") or {}, known.get("resources") or {}
    sides = {}
    for side in _SIDES:
        amounts = {name: amount for name, amount in (resources.get(side) or {}).items() if name not in _SCALED}
        amounts |= {name: amount for name, amount in (had.get(side) or {}).items() if name in _SCALED}
        if amounts:
            sides[side] = amounts
    return normal({**container, "resources": {**resources, **dict.fromkeys(_SIDES), **sides}})
