"""PersistentVolume, StorageClass and CSIStorageCapacity.

Called by dispatch. Source:
k8s.io/kubernetes/pkg/apis/{core,storage}/validation.
"""

from __future__ import annotations

import posixpath

from api.errors import duplicate, forbidden, invalid, not_supported, required, too_long
from api.names import byte_length, is_dns_subdomain, is_qualified_name
from api.quantity import canonical, parse_quantity
from controller.registry.validation.claims import VOLUME_MODES, check_access_modes
from controller.registry.validation.internal import difference
from controller.registry.validation.meta import check_metadata, check_updated_metadata
from controller.registry.validation.resources import check_quantity
from controller.registry.validation.rules import (
    NOT_POSITIVE,
    Errors,
    Value,
    check_immutable,
    check_label_selector,
    check_name,
    check_optional_choice,
    check_qualified,
    check_unique,
)
from controller.registry.validation.scheduling import check_node_selector
from controller.registry.validation.volume_sources import check_only_one, check_volume_source

_MOST_PARAMETERS, _LARGEST_PARAMETERS = 512, 256 * 1024
_RECLAIM = frozenset({"Delete", "Recycle", "Retain"})
_BINDING_MODES = frozenset({"Immediate", "WaitForFirstConsumer"})
_SOURCE = "core.v1.PersistentVolumeSource"
_ORDER = (
    *("hostPath", "gcePersistentDisk", "awsElasticBlockStore", "glusterfs", "flocker", "nfs", "rbd", "quobyte"),
    *("cephfs", "iscsi", "cinder", "fc", "flexVolume", "azureFile", "vsphereVolume", "photonPersistentDisk"),
    *("portworxVolume", "azureDisk", "scaleIO", "local", "storageos", "csi"),
)
_ODD_PATHS = {"cephfs": "cephFS"}


def check_volume(errors: Errors, volume: Value) -> None:
    check_metadata(errors, volume["metadata"], is_dns_subdomain, namespaced=False)
    _check_volume_spec(errors, volume.get("spec") or {})


def check_volume_update(errors: Errors, volume: Value, old: Value) -> None:
    for _ in range(2):  # as Kubernetes does
        check_volume(errors, volume)
    spec, before = volume.get("spec") or {}, old.get("spec") or {}
    was, now = ({kind: each[kind] for kind in _ORDER if each.get(kind) is not None} for each in (before, spec))
    secret = "controllerExpandSecretRef"
    if secret not in (was.get("csi") or {secret: None}) and "csi" in now:
        now["csi"] = {key: value for key, value in now["csi"].items() if key != secret}
    if changed := difference(_SOURCE, was, now):
        detail = f"spec.persistentvolumesource is immutable after creation\n{changed}"
        errors.append(forbidden("spec.persistentvolumesource", detail))
    check_immutable(errors, "volumeMode", spec.get("volumeMode"), before.get("volumeMode"))
    if before.get("nodeAffinity") is not None:
        check_immutable(errors, "nodeAffinity", spec.get("nodeAffinity"), before["nodeAffinity"])
    if before.get("volumeAttributesClassName") is not None and spec.get("volumeAttributesClassName") is None:
        errors.append(forbidden("spec.volumeAttributesClassName", "update from non-nil value to nil is forbidden"))


def check_capacity(errors: Errors, capacity: Value) -> None:
    check_metadata(errors, capacity["metadata"], is_dns_subdomain, namespaced=True)
    check_label_selector(errors, "nodeTopology", capacity.get("nodeTopology"))
    check_name(errors, "storageClassName", capacity.get("storageClassName") or "", is_dns_subdomain)
    if capacity.get("capacity") is not None:
        check_quantity(errors, "capacity", "storage", capacity["capacity"])


def check_capacity_update(errors: Errors, capacity: Value, old: Value) -> None:
    check_capacity(errors, capacity)
    for field in ("nodeTopology", "storageClassName"):
        check_immutable(errors, field, capacity.get(field), old.get(field))


def check_storage_class(errors: Errors, storage_class: Value) -> None:
    check_metadata(errors, storage_class["metadata"], is_dns_subdomain, namespaced=False)
    provisioner = storage_class.get("provisioner") or ""
    if not provisioner:
        errors.append(required("provisioner"))
    else:
        for fault in is_qualified_name(provisioner.lower()):
            errors.append(invalid("provisioner", provisioner, fault))
    _check_parameters(errors, storage_class.get("parameters") or {})
    policy, mode = storage_class.get("reclaimPolicy"), storage_class.get("volumeBindingMode")
    check_optional_choice(errors, "reclaimPolicy", policy, frozenset({"Delete", "Retain"}))
    if mode is None:
        errors.append(required("volumeBindingMode"))
    else:
        check_optional_choice(errors, "volumeBindingMode", mode, _BINDING_MODES)
    _check_topologies(errors, storage_class.get("allowedTopologies") or [])


def _check_topologies(errors: Errors, terms: list[Value]) -> None:
    """No two alike. Kubernetes takes an empty term for a repetition of each that could be."""
    seen: list[dict[str, set[str]]] = [{} for _ in terms]
    for index, term in enumerate(terms):
        path, chosen = f"allowedTopologies[{index}].matchLabelExpressions", dict[str, set[str]]()
        for place, expression in enumerate(term.get("matchLabelExpressions") or ()):
            here, key, values = f"{path}[{place}]", expression.get("key") or "", expression.get("values") or []
            known: set[str] = set()
            if not values:
                errors.append(required(f"{here}.values"))
            for position, value in enumerate(values):
                check_unique(errors, f"{here}.values[{position}]", value, known)
            check_qualified(errors, f"{here}.key", key)
            if key in chosen:
                errors.append(duplicate(f"{here}.key", key))
            chosen[key] = known
        errors += [duplicate(path, "") for other in seen if other == chosen]
        seen.append(chosen)


def _check_parameters(errors: Errors, parameters: Value) -> None:
    if len(parameters) > _MOST_PARAMETERS:
        errors.append(too_long("parameters", "", _MOST_PARAMETERS))
        return
    if "" in parameters:
        errors.append(invalid("parameters", "", "field can not be empty."))
    if sum(byte_length(key) + byte_length(value or "") for key, value in parameters.items()) > _LARGEST_PARAMETERS:
        errors.append(too_long("parameters", "", _LARGEST_PARAMETERS))


def check_storage_class_update(errors: Errors, storage_class: Value, old: Value) -> None:
    check_storage_class(errors, storage_class)
    check_updated_metadata(errors, storage_class["metadata"], old["metadata"])
    if (storage_class.get("parameters") or {}) != (old.get("parameters") or {}):
        errors.append(forbidden("parameters", "updates to parameters are forbidden."))
    check_immutable(errors, "provisioner", storage_class.get("provisioner"), old.get("provisioner"))
    if storage_class.get("reclaimPolicy") != old.get("reclaimPolicy"):
        errors.append(forbidden("reclaimPolicy", "updates to reclaimPolicy are forbidden."))
    check_immutable(errors, "volumeBindingMode", storage_class.get("volumeBindingMode"), old.get("volumeBindingMode"))


def _check_volume_spec(errors: Errors, spec: Value) -> None:
    modes, capacity = spec.get("accessModes") or [], spec.get("capacity") or {}
    if not modes:
        errors.append(required("spec.accessModes"))
    check_access_modes(errors, "spec.accessModes", modes)
    if not capacity:
        errors.append(required("spec.capacity"))
    if set(capacity) != {"storage"}:
        errors.append(not_supported("spec.capacity", capacity, ("storage",)))
    for name, value in sorted(capacity.items()):
        amount = parse_quantity(value)
        if amount < 0:
            errors.append(invalid(f"spec.capacity[{name}]", canonical(value), "must be a valid resource quantity"))
        if amount <= 0:
            errors.append(invalid(f"spec.capacity[{name}]", canonical(value), NOT_POSITIVE))
    policy = spec.get("persistentVolumeReclaimPolicy") or ""
    if policy and policy not in _RECLAIM:
        errors.append(not_supported("spec.persistentVolumeReclaimPolicy", policy, _RECLAIM))
    needed = (spec.get("nodeAffinity") or {}).get("required")
    if spec.get("nodeAffinity") is not None:
        if needed is None:
            errors.append(required("spec.nodeAffinity.required", "must specify required node constraints"))
        else:
            check_node_selector(errors, "spec.nodeAffinity.required", needed)
    kinds = [kind for kind in _ORDER if spec.get(kind) is not None]
    if kinds:
        check_volume_source(errors, "spec", kinds[0], spec[kinds[0]], persistent=True)
        if kinds[0] == "local" and spec.get("nodeAffinity") is None:
            errors.append(required("spec.nodeAffinity", "Local volume requires node affinity"))
        check_only_one(errors, "spec", kinds, _ODD_PATHS)
    else:
        errors.append(required("spec", "must specify a volume type"))
    if policy == "Recycle" and posixpath.normpath((spec.get("hostPath") or {}).get("path") or ".") == "/":
        detail = "may not be 'recycle' for a hostPath mount of '/'"
        errors.append(forbidden("spec.persistentVolumeReclaimPolicy", detail))
    if spec.get("storageClassName"):
        check_name(errors, "spec.storageClassName", spec["storageClassName"], is_dns_subdomain)
    check_optional_choice(errors, "spec.volumeMode", spec.get("volumeMode"), VOLUME_MODES)
    if (name := spec.get("volumeAttributesClassName")) is not None:
        if not name:
            errors.append(required("spec.volumeAttributesClassName", "an empty string is disallowed"))
        else:
            check_name(errors, "spec.volumeAttributesClassName", name, is_dns_subdomain)
        if "csi" not in kinds:
            errors.append(required("spec.csi", "has to be specified when using volumeAttributesClassName"))
