"""Environment variables and what they refer to: fields of the pod, resources, ConfigMap and Secret keys.

Called by containers; volumes uses the reference rules for downward API files. Source:
k8s.io/kubernetes/pkg/apis/core/validation, https://kubernetes.io/docs/concepts/workloads/pods/downward-api/.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from api.errors import invalid, not_supported, required
from api.names import is_config_key, is_dns_subdomain, is_env_name, mask_trailing_dash
from api.quantity import canonical, parse_quantity
from controller.registry.validation.rules import Errors, Value, check_name, check_qualified, check_required_name

ENV_FIELDS = frozenset(
    {
        "metadata.name",
        "metadata.namespace",
        "metadata.uid",
        "spec.nodeName",
        "spec.serviceAccountName",
        "status.hostIP",
        "status.hostIPs",
        "status.podIP",
        "status.podIPs",
    }
)
VOLUME_FIELDS = frozenset(
    {"metadata.name", "metadata.namespace", "metadata.labels", "metadata.annotations", "metadata.uid"}
)
_KNOWN_FIELDS = ENV_FIELDS | VOLUME_FIELDS | {"spec.restartPolicy", "spec.schedulerName", "status.phase", "spec.host"}
_RESOURCES = frozenset(
    f"{kind}.{name}" for kind in ("limits", "requests") for name in ("cpu", "memory", "ephemeral-storage")
)
_HUGE_PAGES = ("limits.hugepages-", "requests.hugepages-")
_CPU_DIVISORS = frozenset({"1m", "1"})
_BYTE_DIVISORS = frozenset({"1"} | {f"1{unit}" for unit in "kMGTPE"} | {f"1{unit}i" for unit in "KMGTPE"})
_BYTE_DETAIL = "only divisor's values 1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei are supported with the"
_SOURCES = ("fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef")


def check_env(errors: Errors, path: str, variables: list[Value]) -> None:
    for index, variable in enumerate(variables):
        check_required_name(errors, f"{path}[{index}].name", variable.get("name"), is_env_name)
        source = variable.get("valueFrom")
        if source is not None:
            _check_source(errors, f"{path}[{index}].valueFrom", source, variable.get("value") or "")


def check_env_from(errors: Errors, path: str, sources: list[Value]) -> None:
    for index, source in enumerate(sources):
        here = f"{path}[{index}]"
        if source.get("prefix"):
            check_name(errors, f"{here}.prefix", source["prefix"], is_env_name)
        found = [kind for kind in ("configMapRef", "secretRef") if source.get(kind) is not None]
        for kind in found:
            name = source[kind].get("name") or ""
            check_required_name(errors, f"{here}.{kind}.name", mask_trailing_dash(name), is_dns_subdomain)
        if not found:
            errors.append(invalid(path, "", "must specify one of: `configMapRef` or `secretRef`"))
        elif len(found) > 1:
            errors.append(invalid(path, "", "may not have more than one field specified at a time"))


def check_field_ref(errors: Errors, path: str, reference: Value, allowed: Collection[str]) -> None:
    """A reference to a field of the pod itself, which must be one of `allowed`."""
    version, field = reference.get("apiVersion") or "", reference.get("fieldPath") or ""
    if not version or not field:
        errors.append(required(f"{path}.fieldPath" if version else f"{path}.apiVersion"))
        return
    base, subscript = _subscripted(field)
    if version != "v1":
        fault = f"unsupported pod version: {version}"
    elif subscript is not None and base not in ("metadata.labels", "metadata.annotations"):
        fault = f"field label does not support subscript: {field}"
    elif subscript is None and field not in _KNOWN_FIELDS:
        fault = f"field label not supported: {field}"
    else:
        fault = ""
    if fault:
        errors.append(invalid(f"{path}.fieldPath", field, f"error converting fieldPath: {fault}"))
    elif subscript is not None:
        check_qualified(errors, path, subscript.lower() if base == "metadata.annotations" else subscript)
    elif field not in allowed and field != "spec.host":
        errors.append(not_supported(f"{path}.fieldPath", field, frozenset(allowed)))


def check_resource_ref(errors: Errors, path: str, reference: Value, *, volume: bool) -> None:
    """A reference to a container's request or limit, divided by `divisor`; volumes must name the container."""
    resource = reference.get("resource") or ""
    if volume and not reference.get("containerName"):
        errors.append(required(f"{path}.containerName"))
    elif not resource:
        errors.append(required(f"{path}.resource"))
    elif resource not in _RESOURCES and not resource.startswith(_HUGE_PAGES):
        errors.append(not_supported(f"{path}.resource", resource, _RESOURCES))
    _check_divisor(errors, f"{path}.divisor", resource, reference.get("divisor"))


def _check_source(errors: Errors, path: str, source: Value, value: str) -> None:
    found = [kind for kind in _SOURCES if source.get(kind) is not None]
    for kind in found:
        here = f"{path}.{kind}"
        if kind == "fieldRef":
            check_field_ref(errors, here, source[kind], ENV_FIELDS)
        elif kind == "resourceFieldRef":
            check_resource_ref(errors, here, source[kind], volume=False)
        elif kind != "fileKeyRef":
            _check_key_ref(errors, here, source[kind])
    if not found:
        listed = "`fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"
        errors.append(invalid(path, "", f"must specify one of: {listed}"))
    elif value:
        errors.append(invalid(path, "", "may not be specified when `value` is not empty"))
    elif len(found) > 1:
        errors.append(invalid(path, "", "may not have more than one field specified at a time"))


def _check_key_ref(errors: Errors, path: str, reference: Value) -> None:
    check_name(errors, f"{path}.name", reference.get("name") or "", is_dns_subdomain)
    check_required_name(errors, f"{path}.key", reference.get("key"), is_config_key)


def _check_divisor(errors: Errors, path: str, resource: str, divisor: Any) -> None:
    if divisor is None or parse_quantity(divisor) == 0:
        return
    shown = canonical(divisor)
    if resource.endswith(".cpu"):
        if shown not in _CPU_DIVISORS:
            detail = "only divisor's values 1m and 1 are supported with the cpu resource"
            errors.append(invalid(path, resource, detail))
        return
    kinds = {".memory": "memory", ".ephemeral-storage": "local ephemeral storage"}
    kind = next((name for suffix, name in kinds.items() if resource.endswith(suffix)), "")
    if resource.startswith(_HUGE_PAGES):
        kind = "hugepages"
    if kind and shown not in _BYTE_DIVISORS:
        errors.append(invalid(path, resource, f"{_BYTE_DETAIL} {kind} resource"))


def _subscripted(field: str) -> tuple[str, str | None]:
    """`metadata.labels['a']` -> ("metadata.labels", "a"); anything else -> (field, None)."""
    base, bracket, rest = field.partition("['")
    if not bracket or not base or not rest.endswith("']"):
        return field, None
    return base, rest[:-2]
