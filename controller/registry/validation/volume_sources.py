"""What a volume can come from, in a pod as in a PersistentVolume: each source's required fields, and their forms.

Called by volumes and storage. Sources that only a cloud or a network has are judged all the same: whoever reads the
object later relies on it. Source: k8s.io/kubernetes/pkg/apis/core/validation.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from api.errors import forbidden, invalid, not_supported, required, too_long
from api.names import is_dns_subdomain
from controller.registry.validation.rules import (
    Errors,
    Value,
    check_dns_label,
    check_name,
    check_no_backsteps,
    check_optional_choice,
    check_required_name,
)

MORE_THAN_ONE = "may not specify more than 1 volume type"
_HOST_PATH_TYPES = frozenset(
    {"", "DirectoryOrCreate", "Directory", "FileOrCreate", "File", "Socket", "CharDevice", "BlockDevice"}
)
_REQUIRED = {
    "gitRepo": ("repository",),
    "gcePersistentDisk": ("pdName",),
    "awsElasticBlockStore": ("volumeID",),
    "secret": ("secretName",),
    "nfs": ("server", "path"),
    "iscsi": ("targetPortal", "iqn"),
    "glusterfs": ("endpoints", "path"),
    "persistentVolumeClaim": ("claimName",),
    "rbd": ("monitors", "image"),
    "cinder": ("volumeID",),
    "cephfs": ("monitors",),
    "quobyte": ("volume",),
    "flexVolume": ("driver",),
    "configMap": ("name",),
    "azureFile": ("secretName", "shareName"),
    "vsphereVolume": ("volumePath",),
    "photonPersistentDisk": ("pdID",),
    "portworxVolume": ("volumeID",),
    "azureDisk": ("diskName", "diskURI"),
    "storageos": ("volumeName",),
    "scaleIO": ("gateway", "system", "volumeName"),
    "ephemeral": ("volumeClaimTemplate",),
}
_SHOWN = {"gcePersistentDisk": "persistentDisk"}
"""Where Kubernetes names another field in what it says about a source."""
_MOST = 255
_RANGE = f"must be between 0 and {_MOST}, inclusive"
_PARTITION = f"must be between 1 and {_MOST}, inclusive"
_LONGEST_DRIVER = 63
_ISCSI_FORMS = {
    "iqn": re.compile(r"iqn\.\d{4}-\d{2}\.([A-Za-z0-9\-.]+)(:[^,;*&$|\s]+)$"),
    "eui": re.compile(r"^eui.[A-Za-z0-9]{16}$"),
    "naa": re.compile(r"^naa.[A-Za-z0-9]{32}$"),
}
_CSI_SECRETS = ("controllerPublish", "controllerExpand", "nodePublish", "nodeExpand")
_PAIRS = "must be a host:port pair or multiple pairs separated by commas"


def check_volume_source(errors: Errors, path: str, kind: str, source: Value, *, persistent: bool = False) -> None:
    """`path` is that of the volume. `persistent`: of a PersistentVolume, whose secrets are in any namespace."""
    here = f"{path}.{_SHOWN.get(kind, kind)}"
    for field in _REQUIRED.get(kind, ()):
        if not source.get(field):
            errors.append(required(f"{here}.{field}"))
    special = _SPECIAL.get(kind)
    if special is not None:
        special(errors, here, source, persistent)
    if kind in ("cinder", "storageos") and (secret := source.get("secretRef")) is not None:
        for field in ("name", "namespace") if persistent else ("name",):
            if not secret.get(field):
                errors.append(required(f"{here}.secretRef.{field}"))


def _check_path(errors: Errors, path: str, source: Value, persistent: bool) -> None:
    del persistent
    if not source.get("path"):
        errors.append(required(f"{path}.path"))
        return
    check_no_backsteps(errors, f"{path}.path", source["path"])
    if path.endswith("hostPath"):
        check_optional_choice(errors, f"{path}.type", source.get("type"), _HOST_PATH_TYPES)


def _check_nfs(errors: Errors, path: str, source: Value, persistent: bool) -> None:
    del persistent
    if not (source.get("path") or "").startswith("/"):
        errors.append(invalid(f"{path}.path", source.get("path") or "", "must be an absolute path"))


def _check_partition(errors: Errors, path: str, source: Value, persistent: bool) -> None:
    del persistent
    if not 0 <= (source.get("partition") or 0) <= _MOST:
        errors.append(invalid(f"{path}.partition", source["partition"], _PARTITION))


def _check_iscsi(errors: Errors, path: str, source: Value, persistent: bool) -> None:
    starts = "must be valid format" if persistent else "must be valid format starting with iqn, eui, or naa"
    for field, shown in (("iqn", "iqn"), ("initiatorName", "initiatorname")):
        if not (name := source.get(field)):
            continue
        form = _ISCSI_FORMS.get(name[:3])
        if form is None:
            errors.append(invalid(f"{path}.{shown}", name, starts))
        elif not form.search(name):
            errors.append(invalid(f"{path}.{shown}", name, "must be valid format"))
    if not 0 <= (source.get("lun") or 0) <= _MOST:
        errors.append(invalid(f"{path}.lun", source["lun"], _RANGE))
    secret = source.get("secretRef")
    if (source.get("chapAuthDiscovery") or source.get("chapAuthSession")) and secret is None:
        errors.append(required(f"{path}.secretRef"))
    if persistent and secret is not None and not secret.get("name"):
        errors.append(required(f"{path}.secretRef.name"))


def _check_fibre_channel(errors: Errors, path: str, source: Value, persistent: bool) -> None:
    del persistent
    names, ids = source.get("targetWWNs"), source.get("wwids")
    lun: int | None = source.get("lun")
    if not names and not ids:
        errors.append(required(f"{path}.targetWWNs", "must specify either targetWWNs or wwids, but not both"))
    if names and ids:
        detail = "targetWWNs and wwids can not be specified simultaneously"
        errors.append(invalid(f"{path}.targetWWNs", names, detail))
    if names and lun is None:
        errors.append(required(f"{path}.lun", "lun is required if targetWWNs is specified"))
    elif names and lun is not None and not 0 <= lun <= _MOST:
        errors.append(invalid(f"{path}.lun", lun, _RANGE))


def _check_flocker(errors: Errors, path: str, source: Value, persistent: bool) -> None:
    del persistent
    name, uid = source.get("datasetName") or "", source.get("datasetUUID")
    if not name and not uid:
        errors.append(required(path, "one of datasetName and datasetUUID is required"))
    if name and uid:
        detail = "datasetName and datasetUUID can not be specified simultaneously"
        errors.append(invalid(path, "resource", detail))
    if "/" in name:
        errors.append(invalid(f"{path}.datasetName", name, "must not contain '/'"))


def _check_quobyte(errors: Errors, path: str, source: Value, persistent: bool) -> None:
    del persistent
    registry = source.get("registry") or ""
    if not registry:
        errors.append(required(f"{path}.registry", _PAIRS))
    elif any(not re.fullmatch(r"(\[[^\]]*\]|[^:\[\]]*):[^:]*", pair) for pair in registry.split(",")):
        errors.append(invalid(f"{path}.registry", registry, _PAIRS))


def _check_flex(errors: Errors, path: str, source: Value, persistent: bool) -> None:
    del persistent
    for key in sorted(source.get("options") or ()):
        if f".{key.partition('/')[0].lower()}".endswith((".kubernetes.io", ".k8s.io")):
            detail = "kubernetes.io and k8s.io namespaces are reserved"
            errors.append(invalid(f"{path}.options[{key}]", key, detail))


def _check_azure_disk(errors: Errors, path: str, source: Value, persistent: bool) -> None:
    del persistent
    uri, kind = source.get("diskURI") or "", source.get("kind")
    modes = frozenset({"None", "ReadOnly", "ReadWrite"})
    check_optional_choice(errors, f"{path}.cachingMode", source.get("cachingMode"), modes)
    check_optional_choice(errors, f"{path}.kind", kind, frozenset({"Shared", "Dedicated", "Managed"}))
    form = "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd"
    if kind == "Managed":
        form = "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}"
    if kind is not None and not uri.startswith("/subscriptions/" if kind == "Managed" else "https://"):
        errors.append(not_supported(f"{path}.diskURI", uri, (form,)))


def _check_azure_file(errors: Errors, path: str, source: Value, persistent: bool) -> None:
    if persistent and source.get("secretNamespace") == "":
        errors.append(required(f"{path}.secretNamespace"))


def _check_storage_os(errors: Errors, path: str, source: Value, persistent: bool) -> None:
    del persistent
    for field in ("volumeName", "volumeNamespace"):
        if source.get(field):
            check_dns_label(errors, f"{path}.{field}", source[field])


def check_driver_name(errors: Errors, path: str, name: str) -> None:
    """The name of a CSI driver."""
    if not name:
        errors.append(required(path))
    if len(name) > _LONGEST_DRIVER:
        errors.append(too_long(path, name, _LONGEST_DRIVER))
    for fault in is_dns_subdomain(name.lower()):
        errors.append(invalid(path, name, fault))


def _check_csi(errors: Errors, path: str, source: Value, persistent: bool) -> None:
    check_driver_name(errors, f"{path}.driver", source.get("driver") or "")
    if not persistent:
        if (secret := source.get("nodePublishSecretRef")) is not None:
            if not secret.get("name"):
                errors.append(required(f"{path}.nodePublishSecretRef.name"))
            else:
                check_name(errors, f"{path}.name", secret["name"], is_dns_subdomain)
        return
    if not source.get("volumeHandle"):
        errors.append(required(f"{path}.volumeHandle"))
    for use in _CSI_SECRETS:
        field = f"{use}SecretRef"
        if (secret := source.get(field)) is not None:
            check_required_name(errors, f"{path}.{field}.name", secret.get("name"), is_dns_subdomain)
            if not secret.get("namespace"):
                errors.append(required(f"{path}.{field}.namespace"))
            else:
                check_dns_label(errors, f"{path}.{field}.namespace", secret["namespace"])


def check_only_one(errors: Errors, path: str, kinds: list[str], shown: Value) -> None:
    """Reports every source beside the first."""
    errors += [forbidden(f"{path}.{shown.get(other, other)}", MORE_THAN_ONE) for other in kinds[1:]]


_SPECIAL: dict[str, Callable[[Errors, str, Value, bool], None]] = {
    "hostPath": _check_path,
    "local": _check_path,
    "nfs": _check_nfs,
    "gcePersistentDisk": _check_partition,
    "awsElasticBlockStore": _check_partition,
    "iscsi": _check_iscsi,
    "fc": _check_fibre_channel,
    "flocker": _check_flocker,
    "quobyte": _check_quobyte,
    "flexVolume": _check_flex,
    "azureDisk": _check_azure_disk,
    "azureFile": _check_azure_file,
    "storageos": _check_storage_os,
    "csi": _check_csi,
}
