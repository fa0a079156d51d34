"""`metadata` of every kind: names, labels, annotations, owners, finalizers, and what an update may not touch.

Called by dispatch for all kinds. On update Kubernetes judges metadata twice, once for all kinds and once for the kind,
so a broken label has two causes there. Source: apimachinery/pkg/api/validation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from api.errors import forbidden, invalid, not_supported, required, too_long
from api.names import NameRule, byte_length, is_dns_label, is_path_segment, is_qualified_name, mask_trailing_dash
from controller.registry.validation.rules import (
    IMMUTABLE,
    Errors,
    Value,
    check_labels,
    check_name,
    check_not_negative,
)

_PATH = "metadata"
_LARGEST_ANNOTATIONS = 256 * 1024
STANDARD_FINALIZERS = frozenset({"kubernetes", "orphan", "foregroundDeletion"})
_LONGEST_MANAGER = 128
_LONGEST_SUBRESOURCE = 256
_MOST_TOLD = 16
"""Errors that show a whole list each; a thousand of them would take seconds to write."""
_COMMON_FIELDS = ("labels", "annotations", "ownerReferences")
"""Judged when they come in or change; what is stored was."""
_IMMUTABLE_FIELDS = ("name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds")


def check_metadata(
    errors: Errors, metadata: Value, rule: NameRule, *, namespaced: bool, finalizers: bool = True
) -> None:
    """Metadata as a create must have it, after name generation. `finalizers`: also their Kubernetes-only form."""
    generated, name = metadata.get("generateName") or "", metadata.get("name") or ""
    if generated:
        _check_prefix(errors, generated, rule)
    if not name:
        errors.append(required("metadata.name", "name or generateName is required"))
    else:
        check_name(errors, "metadata.name", name, rule)
    _check_namespace(errors, metadata.get("namespace") or "", namespaced)
    check_not_negative(errors, "metadata.generation", metadata.get("generation"))
    _check_common(errors, metadata)
    present = metadata.get("finalizers") or []
    if present:
        _check_finalizers(errors, present)
    _check_managed_fields(errors, metadata.get("managedFields") or [])
    if finalizers and present:
        _check_finalizer_names(errors, present)


def check_updated_metadata(errors: Errors, metadata: Value, old: Value, *, finalizers: bool = True) -> None:
    """Metadata as an update may leave it."""
    if old.get("deletionTimestamp"):
        added = sorted(set(metadata.get("finalizers") or ()) - set(old.get("finalizers") or ()))
        if added:
            listed = ", ".join(f'"{name}"' for name in added)
            detail = "no new finalizers can be added if the object is being deleted, found new finalizers "
            errors.append(forbidden("metadata.finalizers", f"{detail}[]string{{{listed}}}"))
    if "resourceVersion" in metadata and not metadata["resourceVersion"]:
        errors.append(invalid("metadata.resourceVersion", "", "must be specified for an update"))
    generation = metadata.get("generation") or 0
    check_not_negative(errors, "metadata.generation", generation)
    if generation < (old.get("generation") or 0):
        errors.append(invalid("metadata.generation", generation, "must not be decremented"))
    for field in _IMMUTABLE_FIELDS:
        if metadata.get(field) != old.get(field):
            errors.append(invalid(f"{_PATH}.{field}", metadata.get(field), IMMUTABLE))
    if any(metadata.get(field) != old.get(field) for field in _COMMON_FIELDS):
        _check_common(errors, metadata)
    if metadata.get("managedFields") != old.get("managedFields"):
        _check_managed_fields(errors, metadata.get("managedFields") or [])
    if finalizers:
        _check_finalizer_names(errors, metadata.get("finalizers") or [])


def check_any_name(errors: Errors, metadata: Value) -> None:
    """Metadata of a kind that has no name rule of its own: judged last, and only if the rest is right."""
    if not errors:
        check_metadata(errors, metadata, is_path_segment, namespaced=True, finalizers=False)


def path_segment_only(name: str) -> list[str]:
    """The name rule of kinds that allow any name that fits a URL (RBAC)."""
    return is_path_segment(name)


def check_annotations(errors: Errors, path: str, annotations: Mapping[str, str] | None) -> None:
    """Annotation keys are qualified names in any case; all together at most 256 KiB."""
    if not annotations:
        return
    size = 0
    for key in sorted(annotations):
        size += byte_length(key) + byte_length(annotations[key] or "")
        for fault in is_qualified_name(key.lower()):
            errors.append(invalid(path, key, fault))
    if size > _LARGEST_ANNOTATIONS:
        errors.append(too_long(path, "", _LARGEST_ANNOTATIONS))


def _check_prefix(errors: Errors, prefix: str, rule: NameRule) -> None:
    for fault in rule(mask_trailing_dash(prefix)):
        errors.append(invalid("metadata.generateName", prefix, fault))


def _check_namespace(errors: Errors, namespace: str, namespaced: bool) -> None:
    if not namespaced:
        if namespace:
            errors.append(forbidden("metadata.namespace", "not allowed on this type"))
    elif not namespace:
        errors.append(required("metadata.namespace"))
    else:
        check_name(errors, "metadata.namespace", namespace, is_dns_label)


def _check_common(errors: Errors, metadata: Value) -> None:
    check_labels(errors, "metadata.labels", metadata.get("labels"))
    check_annotations(errors, "metadata.annotations", metadata.get("annotations"))
    _check_owners(errors, metadata.get("ownerReferences") or [])


def _check_owners(errors: Errors, owners: list[dict[str, Any]]) -> None:
    path, controller, told = "metadata.ownerReferences", "", 0
    for owner in owners:
        version, kind = owner.get("apiVersion") or "", owner.get("kind") or ""
        if not version:
            errors.append(invalid(f"{path}.apiVersion", version, "version must not be empty"))
        for field in ("kind", "name", "uid"):
            if not owner.get(field):
                errors.append(invalid(f"{path}.{field}", owner.get(field) or "", "must not be empty"))
        if (version, kind) == ("v1", "Event"):
            errors.append(invalid(path, owner, "/v1, Kind=Event is disallowed from being an owner"))
        if owner.get("controller"):
            current = f"{kind}/{owner.get('name') or ''}"
            if controller and told < _MOST_TOLD:
                told += 1
                detail = 'Only one reference can have Controller set to true. Found "true" in references for'
                errors.append(invalid(path, owners, f"{detail} {controller} and {current}"))
            controller = controller or current


def _check_finalizers(errors: Errors, finalizers: list[str]) -> None:
    path = "metadata.finalizers"
    for finalizer in finalizers:
        check_name(errors, path, finalizer, is_qualified_name)
    if "orphan" in finalizers and "foregroundDeletion" in finalizers:
        errors.append(invalid(path, finalizers, "finalizer orphan and foregroundDeletion cannot be both set"))


def _check_finalizer_names(errors: Errors, finalizers: list[str]) -> None:
    for index, finalizer in enumerate(finalizers):
        check_kube_finalizer(errors, f"metadata.finalizers[{index}]", finalizer)


def check_kube_finalizer(errors: Errors, path: str, finalizer: str) -> None:
    """A finalizer without a domain must be one of Kubernetes' own."""
    if "/" not in finalizer and finalizer not in STANDARD_FINALIZERS:
        errors.append(invalid(path, finalizer, "name is neither a standard finalizer name nor is it fully qualified"))


def _check_managed_fields(errors: Errors, entries: list[dict[str, Any]]) -> None:
    for index, entry in enumerate(entries):
        path = f"metadata.managedFields[{index}]"
        operation = entry.get("operation") or ""
        if operation not in ("Apply", "Update"):
            if operation:
                errors.append(not_supported(f"{path}.operation", operation, ("Apply", "Update")))
            else:
                errors.append(required(f"{path}.operation", "must not be empty"))
        if (entry.get("fieldsType") or "FieldsV1") != "FieldsV1":
            errors.append(invalid(f"{path}.fieldsType", entry["fieldsType"], "must be `FieldsV1`"))
        if byte_length(entry.get("manager") or "") > _LONGEST_MANAGER:
            errors.append(too_long(f"{path}.manager", "", _LONGEST_MANAGER))
        if byte_length(entry.get("subresource") or "") > _LONGEST_SUBRESOURCE:
            errors.append(too_long(f"{path}.subresource", "", _LONGEST_SUBRESOURCE))
