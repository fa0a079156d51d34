"""Volumes of a pod: one source each, sane paths and modes.

Called by podspec. What Kubernetes has and wherry cannot mount is refused elsewhere (api.schema.unimplemented); here
only its required fields are checked. Source: k8s.io/kubernetes/pkg/apis/core/validation.
"""

from __future__ import annotations

from collections.abc import Callable

from api.errors import duplicate, forbidden, invalid, required
from api.names import is_dns_label, is_dns_subdomain
from api.quantity import parse_quantity
from controller.registry.validation.claims import check_claim_spec
from controller.registry.validation.env import VOLUME_FIELDS, check_field_ref, check_resource_ref
from controller.registry.validation.internal import internal
from controller.registry.validation.meta import check_annotations
from controller.registry.validation.rules import (
    Errors,
    Value,
    check_choice,
    check_descending_path,
    check_label_selector,
    check_labels,
    check_mode,
    check_required_name,
    check_unreserved_path,
)
from controller.registry.validation.volume_sources import check_only_one, check_volume_source

Sources = dict[str, Value]
"""Valid volumes by name."""

_DUPLICATE_PATH = "conflicting duplicate paths"
_ORDER = (
    *("emptyDir", "hostPath", "gitRepo", "gcePersistentDisk", "awsElasticBlockStore", "secret", "nfs", "iscsi"),
    *("glusterfs", "flocker", "persistentVolumeClaim", "rbd", "cinder", "cephfs", "quobyte", "downwardAPI", "fc"),
    *("flexVolume", "configMap", "azureFile", "vsphereVolume", "photonPersistentDisk", "portworxVolume", "azureDisk"),
    *("storageos", "projected", "scaleIO", "csi", "ephemeral", "image"),
)
_ODD_PATHS = {"downwardAPI": "downwarAPI", "cephfs": "cephFS"}


def check_volumes(errors: Errors, path: str, volumes: list[Value], pod_name: str) -> Sources:
    """Reports what is wrong and returns the valid volumes, which mounts may name. `pod_name` may be empty."""
    created = {f"{pod_name}-{volume.get('name')}" for volume in volumes if pod_name and volume.get("ephemeral")}
    valid: Sources = {}
    for index, volume in enumerate(volumes):
        here, name = f"{path}[{index}]", volume.get("name") or ""
        found: Errors = []
        _check_source(found, here, volume, pod_name)
        check_required_name(found, f"{here}.name", name, is_dns_label)
        if name in valid:
            found.append(duplicate(f"{here}.name", name))
        if not found:
            valid[name] = volume
        errors += found
        claim = (volume.get("persistentVolumeClaim") or {}).get("claimName")
        if claim in created:
            detail = "must not reference a PVC that gets created for an ephemeral volume"
            errors.append(invalid(f"{here}.persistentVolumeClaim.claimName", claim, detail))
    return valid


def _check_source(errors: Errors, path: str, volume: Value, pod_name: str) -> None:
    kinds = [kind for kind in _ORDER if volume.get(kind) is not None]
    if not kinds:
        errors.append(required(path, "must specify a volume type"))
        return
    kind, source = kinds[0], volume[kinds[0]]
    check_volume_source(errors, path, kind, source)
    special = _SPECIAL.get(kind)
    if special is not None:
        special(errors, f"{path}.{kind}", source)
    if kind == "ephemeral" and pod_name and volume.get("name"):
        _check_claim_name(errors, path, volume["name"], f"{pod_name}-{volume['name']}")
    check_only_one(errors, path, kinds, _ODD_PATHS)


def _check_claim_name(errors: Errors, path: str, volume: str, claim: str) -> None:
    for fault in is_dns_subdomain(claim):
        errors.append(invalid(f"{path}.name", volume, f'PVC name "{claim}": {fault}'))


def _check_empty_dir(errors: Errors, path: str, source: Value) -> None:
    limit = source.get("sizeLimit")
    if limit is not None and parse_quantity(limit) < 0:
        errors.append(forbidden(f"{path}.sizeLimit", "SizeLimit field must be a valid resource quantity"))


def _check_git(errors: Errors, path: str, source: Value) -> None:
    check_descending_path(errors, f"{path}.directory", source.get("directory") or "")


def _check_ephemeral(errors: Errors, path: str, source: Value) -> None:
    """A claim made for the pod: of its metadata labels and annotations count, and nothing else may be set."""
    if (template := source.get("volumeClaimTemplate")) is None:
        return
    here, metadata = f"{path}.volumeClaimTemplate", template.get("metadata") or {}
    check_annotations(errors, f"{here}.metadata.annotations", metadata.get("annotations"))
    check_labels(errors, f"{here}.metadata.labels", metadata.get("labels"))
    for field in sorted(metadata.keys() - {"annotations", "labels"}):
        errors.append(forbidden(f"{here}.metadata.{field}", "cannot be set"))
    check_claim_spec(errors, f"{here}.spec", template.get("spec") or {})


def _check_keys(errors: Errors, path: str, source: Value) -> None:
    """`defaultMode` and `items` of ConfigMap and Secret volumes."""
    check_mode(errors, f"{path}.defaultMode", source.get("defaultMode"))
    for index, item in enumerate(source.get("items") or ()):
        _check_key(errors, f"{path}.items[{index}]", item)


def _check_key(errors: Errors, path: str, item: Value) -> None:
    for field in ("key", "path"):
        if not item.get(field):
            errors.append(required(f"{path}.{field}"))
    check_unreserved_path(errors, f"{path}.path", item.get("path") or "")
    check_mode(errors, f"{path}.mode", item.get("mode"))


def _check_downward(errors: Errors, path: str, source: Value) -> None:
    check_mode(errors, f"{path}.defaultMode", source.get("defaultMode"))
    for item in source.get("items") or ():
        _check_downward_file(errors, path, item)


def _check_downward_file(errors: Errors, path: str, item: Value) -> None:
    if not item.get("path"):
        errors.append(required(f"{path}.path"))
    check_unreserved_path(errors, f"{path}.path", item.get("path") or "")
    field, resource = item.get("fieldRef"), item.get("resourceFieldRef")
    if field is not None:
        check_field_ref(errors, f"{path}.fieldRef", field, VOLUME_FIELDS)
        if resource is not None:
            detail = "fieldRef and resourceFieldRef can not be specified simultaneously"
            errors.append(invalid(path, "resource", detail))
    elif resource is not None:
        check_resource_ref(errors, f"{path}.resourceFieldRef", resource, volume=True)
    else:
        errors.append(required(path, "one of fieldRef and resourceFieldRef is required"))
    check_mode(errors, f"{path}.mode", item.get("mode"))


def _check_projected(errors: Errors, path: str, source: Value) -> None:
    check_mode(errors, f"{path}.defaultMode", source.get("defaultMode"))
    taken: set[str] = set()
    for index, projection in enumerate(source.get("sources") or ()):
        _check_projection(errors, path, index, projection, taken)


def _check_projection(errors: Errors, path: str, index: int, projection: Value, taken: set[str]) -> None:
    here, count = f"{path}.sources[{index}]", 0
    for kind in ("secret", "configMap"):
        if (keys := projection.get(kind)) is not None:
            count += 1
            if not keys.get("name"):
                errors.append(required(f"{here}.{kind}.name"))
            for place, item in enumerate(keys.get("items") or ()):
                _check_key(errors, f"{here}.{kind}.items[{place}]", item)
                _take(errors, path, item.get("path") or "", taken, keys.get("name") or "")
    if (downward := projection.get("downwardAPI")) is not None:
        count += 1
        for item in downward.get("items") or ():
            _check_downward_file(errors, f"{here}.downwardAPI", item)
            _take(errors, path, item.get("path") or "", taken, item.get("path") or "")
    if (token := projection.get("serviceAccountToken")) is not None:
        count += 1
        _check_token(errors, f"{here}.serviceAccountToken", path, token)
    if (bundle := projection.get("clusterTrustBundle")) is not None:
        count += 1
        _check_bundle(errors, f"{here}.clusterTrustBundle", bundle)
        _take(errors, path, bundle.get("path") or "", taken, bundle.get("path") or "")
    if count > 1:
        errors.append(forbidden(here, "may not specify more than 1 volume type per source"))


def _take(errors: Errors, path: str, file: str, taken: set[str], shown: str) -> None:
    if file and file in taken:
        errors.append(invalid(path, shown, _DUPLICATE_PATH))
    taken.add(file)


def _check_token(errors: Errors, here: str, path: str, token: Value) -> None:
    seconds = token.get("expirationSeconds", 3600)
    if seconds < 600:
        detail = "may not specify a duration less than 10 minutes"
        errors.append(invalid(f"{here}.expirationSeconds", seconds, detail))
    if seconds > 1 << 32:
        detail = "may not specify a duration larger than 2^32 seconds"
        errors.append(invalid(f"{here}.expirationSeconds", seconds, detail))
    if not token.get("path"):
        errors.append(required(f"{path}.path"))
    else:
        check_unreserved_path(errors, f"{path}.path", token["path"])


def _check_bundle(errors: Errors, path: str, bundle: Value) -> None:
    name, signer = bundle.get("name"), bundle.get("signerName")
    if name is not None and signer is not None:
        errors.append(
            invalid(
                path,
                internal("core.v1.ClusterTrustBundleProjection", bundle),
                "only one of name and signerName may be used",
            )
        )
    elif name is None and signer is None:
        errors.append(required(path, "either name or signerName must be specified"))
    elif name is not None and bundle.get("labelSelector") is not None:
        detail = "labelSelector must be unset if name is specified"
        errors.append(invalid(f"{path}.labelSelector", bundle["labelSelector"], detail))
    else:
        check_label_selector(errors, f"{path}.labelSelector", bundle.get("labelSelector"))
    if not bundle.get("path"):
        errors.append(required(f"{path}.path"))
    check_unreserved_path(errors, f"{path}.path", bundle.get("path") or "")


def _check_image(errors: Errors, path: str, source: Value) -> None:
    if not source.get("reference"):
        errors.append(required(f"{path}.reference"))
    check_choice(errors, f"{path}.pullPolicy", source.get("pullPolicy"), {"Always", "IfNotPresent", "Never"})


_SPECIAL: dict[str, Callable[[Errors, str, Value], None]] = {
    "emptyDir": _check_empty_dir,
    "gitRepo": _check_git,
    "ephemeral": _check_ephemeral,
    "secret": _check_keys,
    "configMap": _check_keys,
    "downwardAPI": _check_downward,
    "projected": _check_projected,
    "image": _check_image,
}
