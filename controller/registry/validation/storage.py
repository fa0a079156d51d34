"""PersistentVolume, PersistentVolumeClaim and StorageClass.

Called by dispatch; sets uses the claim rules for its templates. Source:
k8s.io/kubernetes/pkg/apis/{core,storage}/validation.
"""

from __future__ import annotations

from typing import Any

from api.errors import forbidden, invalid, not_supported, required
from api.names import is_dns_subdomain, is_qualified_name
from api.quantity import canonical, parse_quantity
from controller.registry.validation.meta import check_metadata, check_updated_metadata
from controller.registry.validation.rules import (
    NOT_POSITIVE,
    Errors,
    Value,
    check_immutable,
    check_label_selector,
    check_name,
    check_no_backsteps,
    check_optional_choice,
)
from controller.registry.validation.scheduling import check_node_selector

_ACCESS_MODES = frozenset({"ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod"})
_RECLAIM = frozenset({"Delete", "Recycle", "Retain"})
_VOLUME_MODES = frozenset({"Block", "Filesystem"})
_BINDING_MODES = frozenset({"Immediate", "WaitForFirstConsumer"})
# Kubernetes' order, with the fields each cannot do without.
_SOURCES: dict[str, tuple[str, ...]] = {
    "hostPath": ("path",),
    "gcePersistentDisk": ("pdName",),
    "awsElasticBlockStore": ("volumeID",),
    "glusterfs": ("endpoints", "path"),
    "flocker": (),
    "nfs": ("server", "path"),
    "rbd": ("monitors", "image"),
    "quobyte": ("registry", "volume"),
    "cephfs": ("monitors",),
    "iscsi": ("targetPortal", "iqn"),
    "cinder": ("volumeID",),
    "fc": (),
    "flexVolume": ("driver",),
    "azureFile": ("secretName", "shareName"),
    "vsphereVolume": ("volumePath",),
    "photonPersistentDisk": ("pdID",),
    "portworxVolume": ("volumeID",),
    "azureDisk": ("diskName", "diskURI"),
    "scaleIO": ("gateway", "system", "volumeName"),
    "local": ("path",),
    "storageos": ("volumeName",),
    "csi": ("driver", "volumeHandle"),
}


def check_volume(errors: Errors, volume: Value) -> None:
    check_metadata(errors, volume["metadata"], is_dns_subdomain, namespaced=False)
    _check_volume_spec(errors, volume.get("spec") or {})


def check_volume_update(errors: Errors, volume: Value, old: Value) -> None:
    check_volume(errors, volume)
    spec, before = volume.get("spec") or {}, old.get("spec") or {}
    if {key: spec.get(key) for key in _SOURCES} != {key: before.get(key) for key in _SOURCES}:
        detail = "spec.persistentvolumesource is immutable after creation"
        errors.append(forbidden("spec.persistentvolumesource", detail))
    check_immutable(errors, "spec.volumeMode", spec.get("volumeMode"), before.get("volumeMode"))
    if before.get("nodeAffinity") is not None:
        check_immutable(errors, "spec.nodeAffinity", spec.get("nodeAffinity"), before["nodeAffinity"])


def check_claim(errors: Errors, claim: Value) -> None:
    check_metadata(errors, claim["metadata"], is_dns_subdomain, namespaced=True)
    check_claim_spec(errors, "spec", claim.get("spec") or {})


def check_claim_update(errors: Errors, claim: Value, old: Value) -> None:
    """A claim's spec stays, but for the volume it is bound to and, once bound, its size (which only grows)."""
    check_updated_metadata(errors, claim["metadata"], old["metadata"])
    check_claim(errors, claim)
    spec, before = dict(claim.get("spec") or {}), dict(old.get("spec") or {})
    size, old_size = _size_of(spec), _size_of(before)
    if not before.get("volumeName"):
        before["volumeName"] = spec.get("volumeName")
    if before.get("storageClassName") is None:
        before["storageClassName"] = spec.get("storageClassName")
    if (claim.get("status") or {}).get("phase") == "Bound":
        for part in (spec, before):
            part["resources"], part["volumeAttributesClassName"] = None, None
    if {k: v for k, v in spec.items() if v is not None} != {k: v for k, v in before.items() if v is not None}:
        allowed = "resources.requests and volumeAttributesClassName for bound claims"
        errors.append(forbidden("spec", f"spec is immutable after creation except {allowed}\n"))
    if size is not None and old_size is not None and size < old_size:
        detail = "field can not be less than status.capacity"
        capacity = ((old.get("status") or {}).get("capacity") or {}).get("storage", "0")
        if size <= parse_quantity(capacity):
            errors.append(forbidden("spec.resources.requests.storage", detail))
    check_immutable(errors, "volumeMode", spec.get("volumeMode"), before.get("volumeMode"))


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
    _check_access_modes(errors, f"{path}.accessModes", modes)
    size = ((spec.get("resources") or {}).get("requests") or {}).get("storage")
    if size is None:
        errors.append(required(f"{path}.resources[storage]"))
    elif parse_quantity(size) <= 0:
        errors.append(invalid(f"{path}.resources[storage]", canonical(size), NOT_POSITIVE))
    if spec.get("storageClassName"):
        check_name(errors, f"{path}.storageClassName", spec["storageClassName"], is_dns_subdomain)
    check_optional_choice(errors, f"{path}.volumeMode", spec.get("volumeMode"), _VOLUME_MODES)


def check_storage_class(errors: Errors, storage_class: Value) -> None:
    check_metadata(errors, storage_class["metadata"], is_dns_subdomain, namespaced=False)
    provisioner = storage_class.get("provisioner") or ""
    if not provisioner:
        errors.append(required("provisioner"))
    else:
        for fault in is_qualified_name(provisioner.lower()):
            errors.append(invalid("provisioner", provisioner, fault))
    for key in storage_class.get("parameters") or ():
        if not key:
            errors.append(invalid("parameters", "", "field can not be empty."))
    policy, mode = storage_class.get("reclaimPolicy"), storage_class.get("volumeBindingMode")
    check_optional_choice(errors, "reclaimPolicy", policy, frozenset({"Delete", "Retain"}))
    if mode is None:
        errors.append(required("volumeBindingMode"))
    else:
        check_optional_choice(errors, "volumeBindingMode", mode, _BINDING_MODES)


def check_storage_class_update(errors: Errors, storage_class: Value, old: Value) -> None:
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
    _check_access_modes(errors, "spec.accessModes", modes)
    if not capacity:
        errors.append(required("spec.capacity"))
    if set(capacity) != {"storage"}:
        errors.append(not_supported("spec.capacity", capacity, ("storage",)))
    for name, value in sorted(capacity.items()):
        if parse_quantity(value) <= 0:
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
    _check_volume_source(errors, spec, policy)
    if spec.get("storageClassName"):
        check_name(errors, "spec.storageClassName", spec["storageClassName"], is_dns_subdomain)
    check_optional_choice(errors, "spec.volumeMode", spec.get("volumeMode"), _VOLUME_MODES)


def _check_volume_source(errors: Errors, spec: Value, policy: str) -> None:
    kinds = [kind for kind in _SOURCES if spec.get(kind) is not None]
    if not kinds:
        errors.append(required("spec", "must specify a volume type"))
        return
    kind, source = kinds[0], spec[kinds[0]]
    for field in _SOURCES[kind]:
        if not source.get(field):
            errors.append(required(f"spec.{kind}.{field}"))
    if kind in ("hostPath", "local"):
        check_no_backsteps(errors, f"spec.{kind}.path", source.get("path") or "")
    if kind == "nfs" and not (source.get("path") or "").startswith("/"):
        errors.append(invalid("spec.nfs.path", source.get("path") or "", "must be an absolute path"))
    if kind == "local" and spec.get("nodeAffinity") is None:
        errors.append(required("spec.nodeAffinity", "Local volume requires node affinity"))
    for other in kinds[1:]:
        errors.append(forbidden(f"spec.{other}", "may not specify more than 1 volume type"))
    if kind == "hostPath" and source.get("path") == "/" and policy == "Recycle":
        detail = "may not be 'recycle' for a hostPath mount of '/'"
        errors.append(forbidden("spec.persistentVolumeReclaimPolicy", detail))


def _check_access_modes(errors: Errors, path: str, modes: list[str]) -> None:
    for mode in modes:
        if mode not in _ACCESS_MODES:
            errors.append(not_supported(path, mode, _ACCESS_MODES))
    if "ReadWriteOncePod" in modes and set(modes) & (_ACCESS_MODES - {"ReadWriteOncePod"}):
        errors.append(forbidden(path, "may not use ReadWriteOncePod with other access modes"))


def _size_of(spec: Value) -> Any:
    size = ((spec.get("resources") or {}).get("requests") or {}).get("storage")
    return parse_quantity(size) if size is not None else None
