"""PersistentVolumeClaims and the templates they are made of.

Called by dispatch, sets and volumes. Source: k8s.io/kubernetes/pkg/apis/core/validation.
"""

from __future__ import annotations

from decimal import ROUND_CEILING
from typing import Any

from api.errors import forbidden, invalid, not_supported, required
from api.names import is_dns_label, is_dns_subdomain
from api.quantity import canonical, parse_quantity
from controller.registry.validation.internal import difference
from controller.registry.validation.meta import check_metadata, check_updated_metadata
from controller.registry.validation.rules import (
    NOT_POSITIVE,
    Errors,
    Value,
    check_immutable,
    check_label_selector,
    check_name,
    check_optional_choice,
)

VOLUME_MODES = frozenset({"Block", "Filesystem"})
_ACCESS_MODES = frozenset({"ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod"})
_OLD_CLASS = "volume.beta.kubernetes.io/storage-class"
_SPEC = "core.v1.PersistentVolumeClaimSpec"
_FIXED = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims\n"


def check_claim(errors: Errors, claim: Value) -> None:
    check_metadata(errors, claim["metadata"], is_dns_subdomain, namespaced=True)
    check_claim_spec(errors, "spec", claim.get("spec") or {})


def check_claim_update(errors: Errors, claim: Value, old: Value) -> None:
    """A claim's spec stays, but for the volume it is bound to and, once bound, its size (which only grows)."""
    check_claim(errors, claim)
    check_updated_metadata(errors, claim["metadata"], old["metadata"])
    check_claim(errors, claim)
    spec, before = claim.get("spec") or {}, old.get("spec") or {}
    now, was = {**spec}, {**before}
    if not before.get("volumeName"):
        was["volumeName"] = spec.get("volumeName")
    _check_class(errors, claim, old, now)
    now["volumeAttributesClassName"] = attributes = before.get("volumeAttributesClassName")
    size, old_size = _size_of(spec), _size_of(before)
    if (claim.get("status") or {}).get("phase") == "Bound" and size is not None and old_size is not None:
        kept = {**spec["resources"]["requests"], "storage": before["resources"]["requests"]["storage"]}
        now["resources"] = {**spec["resources"], "requests": kept}
    if changed := difference(_SPEC, was, now):
        errors.append(forbidden("spec", f"{_FIXED}{changed}"))
    if (size or 0) < (old_size or 0):
        capacity = ((old.get("status") or {}).get("capacity") or {}).get("storage", "0")
        if (size or 0) <= parse_quantity(capacity):
            errors.append(forbidden("spec.resources.requests.storage", "field can not be less than status.capacity"))
    check_immutable(errors, "volumeMode", spec.get("volumeMode"), before.get("volumeMode"))
    if attributes is not None and not spec.get("volumeAttributesClassName"):
        to = "nil" if spec.get("volumeAttributesClassName") is None else "an empty string"
        errors.append(forbidden("spec.volumeAttributesClassName", f"update from non-nil value to {to} is forbidden"))


def check_claim_status(errors: Errors, claim: Value, old: Value) -> None:
    check_updated_metadata(errors, claim["metadata"], old["metadata"])
    for name, value in sorted(((claim.get("status") or {}).get("capacity") or {}).items()):
        if (amount := parse_quantity(value)) < 0:
            errors.append(
                invalid(
                    f"status.capacity[{name}]",
                    int(amount.to_integral_value(ROUND_CEILING)),
                    "must be a valid resource quantity",
                )
            )


def _check_class(errors: Errors, claim: Value, old: Value, now: dict[str, Any]) -> None:
    """A storage class may be written where there was none, or where only the annotation of old times named it."""
    annotation = (claim["metadata"].get("annotations") or {}).get(_OLD_CLASS)
    old_annotation = (old["metadata"].get("annotations") or {}).get(_OLD_CLASS)
    name, old_name = now.get("storageClassName"), (old.get("spec") or {}).get("storageClassName")
    if old_name is None and name is not None and old_annotation in (None, name):
        now["storageClassName"] = None
        if old_annotation is not None and annotation is None:
            return
    check_immutable(errors, f"metadata.annotations.{_OLD_CLASS}", annotation or "", old_annotation or "")


def check_claim_template(errors: Errors, path: str, claim: Value) -> None:
    """An entry of a StatefulSet's volumeClaimTemplates."""
    name = (claim.get("metadata") or {}).get("name") or ""
    if not name:
        errors.append(required(f"{path}.metadata.name"))
    else:
        check_name(errors, f"{path}.metadata.name", name, is_dns_subdomain)
    check_claim_spec(errors, f"{path}.spec", claim.get("spec") or {})


def check_claim_spec(errors: Errors, path: str, spec: Value) -> None:
    modes = spec.get("accessModes") or []
    if not modes:
        errors.append(required(f"{path}.accessModes", "at least 1 access mode is required"))
    check_label_selector(errors, f"{path}.selector", spec.get("selector"))
    check_access_modes(errors, f"{path}.accessModes", modes)
    size = ((spec.get("resources") or {}).get("requests") or {}).get("storage")
    if size is None:
        errors.append(required(f"{path}.resources[storage]"))
    elif parse_quantity(size) <= 0:
        errors.append(invalid(f"{path}.resources[storage]", canonical(size), NOT_POSITIVE))
    if spec.get("storageClassName"):
        check_name(errors, f"{path}.storageClassName", spec["storageClassName"], is_dns_subdomain)
    check_optional_choice(errors, f"{path}.volumeMode", spec.get("volumeMode"), VOLUME_MODES)
    _check_origins(errors, path, spec.get("dataSource"), spec.get("dataSourceRef"))
    if spec.get("volumeAttributesClassName"):
        check_name(errors, f"{path}.volumeAttributesClassName", spec["volumeAttributesClassName"], is_dns_subdomain)


def _check_origins(errors: Errors, path: str, source: Value | None, reference: Value | None) -> None:
    for field, origin in (("dataSource", source), ("dataSourceRef", reference)):
        if origin is not None:
            _check_origin(errors, f"{path}.{field}", origin)
    if source is None or reference is None:
        return
    if reference.get("namespace"):
        errors.append(invalid(path, {}, "may not be specified when dataSourceRef.namespace is specified"))
    elif any(source.get(field) != reference.get(field) for field in ("apiGroup", "kind", "name")):
        errors.append(invalid(path, {}, "must match dataSourceRef"))


def _check_origin(errors: Errors, path: str, origin: Value) -> None:
    kind, group = origin.get("kind") or "", origin.get("apiGroup") or ""
    errors += [required(f"{path}.{field}") for field in ("name", "kind") if not origin.get(field)]
    if not group and kind != "PersistentVolumeClaim":
        errors.append(invalid(path, kind, "must be 'PersistentVolumeClaim' when referencing the default apiGroup"))
    if group:
        check_name(errors, f"{path}.apiGroup", group, is_dns_subdomain)
    if origin.get("namespace"):
        check_name(errors, f"{path}.namespace", origin["namespace"], is_dns_label)


def check_access_modes(errors: Errors, path: str, modes: list[str]) -> None:
    for mode in modes:
        if mode not in _ACCESS_MODES:
            errors.append(not_supported(path, mode, _ACCESS_MODES))
    if "ReadWriteOncePod" in modes and set(modes) & (_ACCESS_MODES - {"ReadWriteOncePod"}):
        errors.append(forbidden(path, "may not use ReadWriteOncePod with other access modes"))


def _size_of(spec: Value) -> Any:
    size = ((spec.get("resources") or {}).get("requests") or {}).get("storage")
    return parse_quantity(size) if size is not None else None
