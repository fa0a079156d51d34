"""Resource requests and limits of containers and pods: names, quantities, request <= limit, huge pages, claims.

Called by containers, podspec and node. Sources: k8s.io/kubernetes/pkg/apis/core/validation and .../helper,
https://kubernetes.io/docs/concepts/configuration/manage-resources-containers/.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from api.errors import FieldError, duplicate, forbidden, invalid, not_found_value, not_supported, required
from api.names import is_qualified_name
from api.quantity import canonical, is_whole, parse_quantity
from controller.registry.validation.rules import Errors, Value, check_dns_label, check_qualified

NameCheck = Callable[[Errors, str, str], None]
_NEGATIVE = "must be greater than or equal to 0"
_HUGE_PAGES = "hugepages-"
_CONTAINER_RESOURCES = frozenset({"cpu", "memory", "ephemeral-storage"})
_POD_RESOURCES = frozenset({"cpu", "memory"})
COUNTED = frozenset(
    {
        "pods",
        "services",
        "replicationcontrollers",
        "resourcequotas",
        "secrets",
        "configmaps",
        "persistentvolumeclaims",
        "services.nodeports",
        "services.loadbalancers",
    }
)


_STANDARD = frozenset(
    {
        *_CONTAINER_RESOURCES,
        *COUNTED,
        *(f"{prefix}{name}" for prefix in ("requests.", "limits.") for name in _CONTAINER_RESOURCES),
        "storage",
        "requests.storage",
    }
)


def is_native(name: str) -> bool:
    """Kubernetes' own resources: without a domain, or below kubernetes.io."""
    return "/" not in name or "kubernetes.io/" in name


def is_extended(name: str) -> bool:
    """A resource of the cluster's operator, `example.com/gpu`: whole numbers, never overcommitted."""
    return not is_native(name) and not name.startswith("requests.") and not is_qualified_name(f"requests.{name}")


def is_overcommit_allowed(name: str) -> bool:
    return is_native(name) and not name.startswith(_HUGE_PAGES)


def is_integer(name: str) -> bool:
    """Whether fractions make no sense: objects that are counted, and extended resources."""
    return name in COUNTED or is_extended(name)


def check_quantity(errors: Errors, path: str, name: str, value: Any) -> None:
    """The quantity of resource `name`: not negative, whole where only whole ones exist."""
    amount = parse_quantity(value)
    if amount < 0:
        errors.append(invalid(path, canonical(value), _NEGATIVE))
    if not is_whole(amount) and is_integer(name):
        errors.append(invalid(path, canonical(value), "must be an integer"))


def check_container_resources(errors: Errors, path: str, resources: Value, claims: Collection[str] = ()) -> None:
    """`resources` of a container; `claims` are the names in spec.resourceClaims."""
    _check(errors, path, resources, check_container_resource_name)
    if resources.get("claims"):
        _check_claims(errors, f"{path}.claims", resources["claims"], claims)


def check_pod_resources(errors: Errors, path: str, resources: Value) -> None:
    """`spec.resources` of a pod: cpu, memory and huge pages only."""
    if "claims" in resources:
        errors.append(forbidden(f"{path}.claims", "claims cannot be set for Resources at pod-level"))
    _check(errors, path, resources, _check_pod_resource_name)


def _check(errors: Errors, path: str, resources: Value, check_name: NameCheck) -> None:
    limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
    for name in sorted(limits):
        _check_amount(errors, f"{path}.limits[{name}]", name, limits[name], check_name)
    for name in sorted(requests):
        _check_amount(errors, f"{path}.requests[{name}]", name, requests[name], check_name)
        _check_request(errors, path, name, requests[name], limits)
    named = limits.keys() | requests.keys()
    if not named & {"cpu", "memory"} and any(name.startswith(_HUGE_PAGES) for name in named):
        errors.append(forbidden(path, "HugePages require cpu or memory"))


def _check_amount(errors: Errors, path: str, name: str, value: Any, check_name: NameCheck) -> None:
    check_name(errors, path, name)
    check_quantity(errors, path, name, value)
    if name.startswith(_HUGE_PAGES) and not _divisible(name, value):
        shown = canonical(value)
        errors.append(invalid(path, shown, f"{shown} is not positive integer multiple of {name}"))


def check_resource_name(errors: Errors, path: str, name: str) -> None:
    """A resource that Kubernetes knows, or one with a domain."""
    before = len(errors)
    check_qualified(errors, path, name)
    known = "/" in name or name in _STANDARD or name.startswith((_HUGE_PAGES, f"requests.{_HUGE_PAGES}"))
    if len(errors) == before and not known:
        errors.append(invalid(path, name, "must be a standard resource type or fully qualified"))


def check_container_resource_name(errors: Errors, path: str, name: str) -> None:
    """A resource that a container can have."""
    if name in _CONTAINER_RESOURCES:
        return
    check_resource_name(errors, path, name)
    if "/" not in name:
        if not name.startswith(_HUGE_PAGES):
            errors.append(invalid(path, name, "must be a standard resource for containers"))
    elif not is_native(name) and not is_extended(name):
        errors.append(invalid(path, name, "doesn't follow extended resource name standard"))


def _check_pod_resource_name(errors: Errors, path: str, name: str) -> None:
    before = len(errors)
    check_resource_name(errors, path, name)
    if len(errors) == before and name not in _POD_RESOURCES and not name.startswith(_HUGE_PAGES):
        errors.append(not_supported(path, name, _POD_RESOURCES))


def _check_request(errors: Errors, path: str, name: str, value: Any, limits: Mapping[str, Any]) -> None:
    if name not in limits:
        if not is_overcommit_allowed(name):
            errors.append(required(f"{path}.limits", "Limit must be set for non overcommitable resources"))
        return
    amount, limit = parse_quantity(value), parse_quantity(limits[name])
    shown = canonical(limits[name])
    if amount != limit and not is_overcommit_allowed(name):
        errors.append(invalid(f"{path}.requests", canonical(value), f"must be equal to {name} limit of {shown}"))
    elif amount > limit:
        detail = f"must be less than or equal to {name} limit of {shown}"
        errors.append(invalid(f"{path}.requests", canonical(value), detail))


def _divisible(name: str, value: Any) -> bool:
    try:
        page = parse_quantity(name.removeprefix(_HUGE_PAGES))
    except ValueError:
        return False
    return page > 0 and parse_quantity(value) % page == 0


def _check_claims(errors: Errors, path: str, claims: list[Value], known: Collection[str]) -> None:
    seen: set[str] = set()
    for index, claim in enumerate(claims):
        name, request = claim.get("name") or "", claim.get("request") or ""
        if not name:
            errors.append(required(f"{path}[{index}]"))
            continue
        key = f"{name}/{request}" if request else name
        if name in seen or key in seen or (not request and any(other.startswith(f"{name}/") for other in seen)):
            errors.append(duplicate(f"{path}[{index}]", name if name in seen or not request else key))
        if request:
            check_dns_label(errors, f"{path}[{index}].request", request)
        seen.add(key)
        if name not in known:
            listed = f": {', '.join(sorted(known))}" if known else " which is empty"
            found = not_found_value(f"{path}[{index}]", name)
            detail = f"{found.body}: must be one of the names in pod.spec.resourceClaims{listed}"
            errors.append(FieldError(found.field, found.reason, detail))
