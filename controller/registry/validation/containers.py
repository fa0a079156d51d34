"""Containers of a pod: regular, init (and sidecars), ephemeral.

Called by podspec with a `Scope`, what a container may refer to outside itself. Source:
k8s.io/kubernetes/pkg/apis/core/validation; the order of the checks is the order of the causes in the answer.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from api.errors import duplicate, forbidden, invalid, not_found_value, not_supported, required
from api.names import is_dns_label, is_port_name, is_port_number
from controller.registry.validation.env import check_env, check_env_from
from controller.registry.validation.probes import PROBES, check_lifecycle, check_probes
from controller.registry.validation.resources import check_container_resources
from controller.registry.validation.rules import (
    Errors,
    Value,
    check_choice,
    check_descending_path,
    check_name,
    check_required_name,
    check_unique,
)
from controller.registry.validation.security import check_container_security
from controller.registry.validation.volumes import Sources

_PROTOCOLS = frozenset({"TCP", "UDP", "SCTP"})
_PULL_POLICIES = frozenset({"Always", "IfNotPresent", "Never"})
_PROPAGATIONS = frozenset({"Bidirectional", "HostToContainer", "None"})
_RECURSIVE = frozenset({"Disabled", "IfPossible", "Enabled"})
_RESIZED = frozenset({"cpu", "memory"})
_RESIZE_POLICIES = frozenset({"NotRequired", "RestartContainer"})
_RESTART_POLICIES = frozenset({"Always", "OnFailure", "Never"})
_MOST_RULES, _MOST_CODES = 20, 255
_NOT_FOR_INIT = "may not be set for init containers without restartPolicy=Always"
_NOT_EPHEMERAL = "cannot be set for an Ephemeral Container"
_EPHEMERAL_MAY_NOT = (
    "ports",
    "resources",
    "resizePolicy",
    "restartPolicy",
    "restartPolicyRules",
    "livenessProbe",
    "readinessProbe",
    "startupProbe",
    "lifecycle",
)


@dataclass(frozen=True)
class Scope:
    """What the containers of one pod see of it."""

    volumes: Sources
    claims: frozenset[str] = frozenset()
    grace_seconds: int | None = None
    restart_policy: str = ""
    host_users: bool = True
    is_pod: bool = True


def check_containers(errors: Errors, path: str, containers: list[Value], scope: Scope) -> None:
    if not containers:
        errors.append(required(path))
        return
    names: set[str] = set()
    for index, container in enumerate(containers):
        here = f"{path}[{index}]"
        _check_common(errors, here, container, scope)
        check_unique(errors, f"{here}.name", container.get("name") or "", names)
        _check_running(errors, here, container, scope)
        _check_restart(errors, here, container)
    _check_host_ports(errors, path, enumerate(containers))


def check_init_containers(
    errors: Errors, path: str, containers: list[Value], regular: list[Value], scope: Scope
) -> None:
    names = {container.get("name") or "" for container in regular}
    for index, container in enumerate(containers):
        here, name = f"{path}[{index}]", container.get("name") or ""
        _check_common(errors, here, container, scope)
        _check_restart(errors, here, container)
        if name in names:
            errors.append(duplicate(f"{here}.name", name))
        elif name:
            names.add(name)
        _check_host_ports(errors, path, [(index, container)])
        if container.get("restartPolicy") == "Always":
            _check_running(errors, here, container, scope)
            continue
        for field in ("lifecycle", *PROBES):
            if container.get(field) is not None:
                errors.append(forbidden(f"{here}.{field}", _NOT_FOR_INIT))


def check_ephemeral_containers(
    errors: Errors, path: str, containers: list[Value], others: list[Value], scope: Scope
) -> None:
    lasting = {container.get("name") or "" for container in others}
    names = set(lasting)
    for index, container in enumerate(containers):
        here, target = f"{path}[{index}]", container.get("targetContainerName") or ""
        _check_common(errors, here, container, scope)
        check_image_spaces(errors, here, container)
        check_unique(errors, f"{here}.name", container.get("name") or "", names)
        if target and target not in lasting:
            errors.append(not_found_value(f"{here}.targetContainerName", target))
        for field in _EPHEMERAL_MAY_NOT:
            given = container.get(field)
            if given or (given == {} and field != "resources"):
                errors.append(forbidden(f"{here}.{field}", _NOT_EPHEMERAL))
        for place, mount in enumerate(container.get("volumeMounts") or ()):
            for field in ("subPath", "subPathExpr"):
                if mount.get(field):
                    errors.append(forbidden(f"{here}.volumeMounts[{place}].{field}", _NOT_EPHEMERAL))


def check_image_spaces(errors: Errors, path: str, container: Value) -> None:
    """A pod's image (unlike a template's) may not be padded."""
    image = container.get("image") or ""
    if image != image.strip():
        errors.append(invalid(f"{path}.image", image, "must not have leading or trailing whitespace"))


def _check_common(errors: Errors, path: str, container: Value, scope: Scope) -> None:
    """What holds for every container."""
    check_required_name(errors, f"{path}.name", container.get("name"), is_dns_label)
    if not container.get("image"):
        errors.append(required(f"{path}.image"))
    policy = container.get("terminationMessagePolicy")
    check_choice(errors, f"{path}.terminationMessagePolicy", policy, ("File", "FallbackToLogsOnError"))
    if ports := container.get("ports"):
        _check_ports(errors, f"{path}.ports", ports)
    if env := container.get("env"):
        check_env(errors, f"{path}.env", env)
    if sources := container.get("envFrom"):
        check_env_from(errors, f"{path}.envFrom", sources)
    if container.get("volumeMounts"):
        _check_mounts(errors, f"{path}.volumeMounts", container, scope)
    if container.get("volumeDevices"):
        _check_devices(errors, f"{path}.volumeDevices", container, scope)
    check_choice(errors, f"{path}.imagePullPolicy", container.get("imagePullPolicy"), _PULL_POLICIES)
    if resources := container.get("resources"):
        check_container_resources(errors, f"{path}.resources", resources, scope.claims)
    if policies := container.get("resizePolicy"):
        _check_resize_policy(errors, f"{path}.resizePolicy", policies, scope.restart_policy)
    if (context := container.get("securityContext")) is not None:
        check_container_security(errors, f"{path}.securityContext", context, host_users=scope.host_users)


def _check_running(errors: Errors, path: str, container: Value, scope: Scope) -> None:
    """What only containers that keep running may have."""
    if (lifecycle := container.get("lifecycle")) is not None:
        check_lifecycle(errors, f"{path}.lifecycle", lifecycle, scope.grace_seconds)
    check_probes(errors, path, container, scope.grace_seconds)


def _check_ports(errors: Errors, path: str, ports: list[Value]) -> None:
    names: set[str] = set()
    for index, port in enumerate(ports):
        here, name = f"{path}[{index}]", port.get("name") or ""
        if name:
            faults = is_port_name(name)
            errors += [invalid(f"{here}.name", name, fault) for fault in faults]
            if not faults:
                check_unique(errors, f"{here}.name", name, names)
        if not port.get("containerPort"):
            errors.append(required(f"{here}.containerPort"))
        else:
            check_name(errors, f"{here}.containerPort", port["containerPort"], is_port_number)
        if port.get("hostPort"):
            check_name(errors, f"{here}.hostPort", port["hostPort"], is_port_number)
        check_choice(errors, f"{here}.protocol", port.get("protocol"), _PROTOCOLS)


def _check_host_ports(errors: Errors, path: str, containers: Iterable[tuple[int, Value]]) -> None:
    taken: set[str] = set()
    for index, container in containers:
        for place, port in enumerate(container.get("ports") or ()):
            if port.get("hostPort"):
                claim = f"{port.get('protocol') or ''}/{port.get('hostIP') or ''}/{port['hostPort']}"
                check_unique(errors, f"{path}[{index}].ports[{place}].hostPort", claim, taken)


def _check_mounts(errors: Errors, path: str, container: Value, scope: Scope) -> None:
    devices = {device.get("name"): device.get("devicePath") for device in container.get("volumeDevices") or ()}
    points: set[str] = set()
    for index, mount in enumerate(container["volumeMounts"]):
        here, name, point = f"{path}[{index}]", mount.get("name") or "", mount.get("mountPath") or ""
        if not name:
            errors.append(required(f"{here}.name"))
        if name not in scope.volumes:
            errors.append(not_found_value(f"{here}.name", name))
        if not point:
            errors.append(required(f"{here}.mountPath"))
        if point in points:
            errors.append(invalid(f"{here}.mountPath", point, "must be unique"))
        points.add(point)
        if name in devices:
            errors.append(invalid(f"{here}.name", name, "must not already exist in volumeDevices"))
        if point in devices.values():
            errors.append(invalid(f"{here}.mountPath", point, "must not already exist as a path in volumeDevices"))
        image = (scope.volumes.get(name) or {}).get("image") is not None
        _check_sub_path(errors, here, path, mount, image)
        _check_propagation(errors, path, mount, container)


def _check_sub_path(errors: Errors, here: str, path: str, mount: Value, image: bool) -> None:
    plain, expression = mount.get("subPath") or "", mount.get("subPathExpr") or ""
    for field, value in (("subPath", plain), ("subPathExpr", expression)):
        if value and image:
            errors.append(invalid(f"{here}.{field}", value, "not allowed in image volume sources"))
    if plain:
        check_descending_path(errors, f"{path}.subPath", plain)
    if expression:
        if plain:
            errors.append(invalid(f"{here}.subPathExpr", expression, "subPathExpr and subPath are mutually exclusive"))
        check_descending_path(errors, f"{path}.subPathExpr", expression)


def _check_propagation(errors: Errors, path: str, mount: Value, container: Value) -> None:
    mode = mount.get("mountPropagation")
    if mode is not None:
        if mode not in _PROPAGATIONS:
            errors.append(not_supported(f"{path}.mountPropagation", mode, _PROPAGATIONS))
        if mode == "Bidirectional" and not (container.get("securityContext") or {}).get("privileged"):
            detail = "Bidirectional mount propagation is available only to privileged containers"
            errors.append(forbidden(f"{path}.mountPropagation", detail))
    recursive, here = mount.get("recursiveReadOnly"), f"{path}.recursiveReadOnly"
    if recursive is None or recursive == "Disabled":
        return
    if recursive not in _RECURSIVE:
        errors.append(not_supported(here, recursive, _RECURSIVE))
        return
    if not mount.get("readOnly"):
        errors.append(forbidden(here, "may only be specified when readOnly is true"))
    if mode not in (None, "None"):
        detail = "may only be specified when mountPropagation is None or not specified"
        errors.append(forbidden(here, detail))


def _check_devices(errors: Errors, path: str, container: Value, scope: Scope) -> None:
    mounts = {mount.get("name"): mount.get("mountPath") for mount in container.get("volumeMounts") or ()}
    names: set[str] = set()
    paths: set[str] = set()
    for index, device in enumerate(container["volumeDevices"]):
        here, name, point = f"{path}[{index}]", device.get("name") or "", device.get("devicePath") or ""
        volume = scope.volumes.get(name)
        if not name:
            errors.append(required(f"{here}.name"))
        if name in names:
            errors.append(invalid(f"{here}.name", name, "must be unique"))
        if volume is None:
            errors.append(not_found_value(f"{here}.name", name))
        elif volume.get("persistentVolumeClaim") is None and volume.get("ephemeral") is None:
            detail = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode"
            errors.append(invalid(f"{here}.name", name, detail))
        if not point:
            errors.append(required(f"{here}.devicePath"))
        if point in paths:
            errors.append(invalid(f"{here}.devicePath", point, "must be unique"))
        if ".." in point.split("/"):
            errors.append(invalid(f"{here}.devicePath", point, "can not contain backsteps ('..')"))
        else:
            paths.add(point)
        if name in mounts:
            errors.append(invalid(f"{here}.name", name, "must not already exist in volumeMounts"))
        if point in mounts.values():
            errors.append(invalid(f"{here}.devicePath", point, "must not already exist as a path in volumeMounts"))
        names.add(name)


def _check_resize_policy(errors: Errors, path: str, policies: list[Value], restart_policy: str) -> None:
    seen: set[str] = set()
    for index, policy in enumerate(policies):
        resource, restart = policy.get("resourceName") or "", policy.get("restartPolicy") or ""
        check_unique(errors, f"{path}[{index}]", resource, seen)
        check_choice(errors, path, resource, _RESIZED)
        check_choice(errors, path, restart, _RESIZE_POLICIES)
        if restart_policy == "Never" and restart != "NotRequired":
            errors.append(invalid(path, restart, "must be 'NotRequired' when `restartPolicy` is 'Never'"))


def _check_restart(errors: Errors, path: str, container: Value) -> None:
    """A container's own restart policy and its rules by exit code (KEP-5307)."""
    policy, rules = container.get("restartPolicy"), container.get("restartPolicyRules") or []
    if policy is not None and policy not in _RESTART_POLICIES:
        errors.append(not_supported(f"{path}.restartPolicy", policy, _RESTART_POLICIES))
    if rules and policy is None:
        errors.append(required(f"{path}.restartPolicy", "must specify restartPolicy when restart rules are used"))
    if len(rules) > _MOST_RULES:
        errors.append(invalid(f"{path}.restartPolicyRules", len(rules), f"must have at most {_MOST_RULES} items"))
    for index, rule in enumerate(rules):
        here, codes = f"{path}.restartPolicyRules[{index}]", rule.get("exitCodes")
        if rule.get("action") != "Restart":
            errors.append(not_supported(f"{here}.action", rule.get("action") or "", ("Restart",)))
        if codes is None:
            errors.append(required(f"{here}.exitCodes", "must be specified"))
            continue
        if codes.get("operator") not in ("In", "NotIn"):
            errors.append(not_supported(f"{here}.exitCodes.operator", codes.get("operator") or "", ("In", "NotIn")))
        if len(codes.get("values") or ()) > _MOST_CODES:
            errors.append(
                invalid(f"{here}.exitCodes.values", len(codes["values"]), f"must have at most {_MOST_CODES} items")
            )
