"""How Kubernetes prints a part of an object in a field error: as its Go API server holds it, not as the wire has it.

Its internal structs marshal under their Go names, every field shown, `null` where nothing is set; metadata and label
selectors keep their wire names. What changed is shown as a unified diff of two such forms. Called by validators with
the struct's id in `api.schema.facts`, whose field order is Go's; the tables here are where internal types differ.
"""

from __future__ import annotations

import difflib
from typing import Any

import orjson

from api.quantity import canonical
from api.schema.facts import POINTER, Field, Type, embedded_in, fields_of, own_fields, zero_of
from controller.registry.validation.rules import Value

_CAPITALS = frozenset({"csi", "fc", "gid", "grpc", "iqn", "nfs", "rbd", "tls", "tty", "uid", "url"})
_STARTS = ("api", "aws", "ca", "cidr", "dns", "fs", "gce", "gmsa", "http", "ip", "iscsi", "os", "qos", "ssl", "tcp")
_GO_NAMES = {
    "cephfs": "CephFS",
    "chapAuthDiscovery": "DiscoveryCHAPAuth",
    "chapAuthSession": "SessionCHAPAuth",
    "diskURI": "DataDiskURI",
    "image.rbd": "RBDImage",
    "lastState": "LastTerminationState",
    "monitors.rbd": "CephMonitors",
    "pdName": "PDName",
    "pool": "RBDPool",
    "storageos": "StorageOS",
    "ttlSecondsAfterFinished": "TTLSecondsAfterFinished",
    "user.rbd": "RadosUser",
    "wwids": "WWIDs",
}
_HOST = ("hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace", "hostUsers")
"""Fields of a pod's spec that Kubernetes keeps in its security context."""
_ABSENT = {"core.v1.PodSpec": {*_HOST, "serviceAccount", "evictionResponders"}}
_NEWER = frozenset({"bindMountOptions", "defaultUser"})
"""Fields that the schema knows and the version of Kubernetes whose words these are does not."""
_MOUNTED = ("KeyToPath", "DownwardAPIVolumeFile", "TokenProjection", "BundleProjection", "CertificateProjection")
_ORDER = {
    "core.v1.PodSpec": (
        *("volumes", "initContainers", "containers", "ephemeralContainers", "restartPolicy"),
        *("terminationGracePeriodSeconds", "activeDeadlineSeconds", "dnsPolicy", "nodeSelector", "serviceAccountName"),
        *("automountServiceAccountToken", "nodeName", "securityContext", "imagePullSecrets", "hostname", "subdomain"),
        *("setHostnameAsFQDN", "affinity", "schedulerName", "tolerations", "hostAliases", "priorityClassName"),
        *("priority", "preemptionPolicy", "dnsConfig", "readinessGates", "runtimeClassName", "overhead"),
        "enableServiceLinks",
    ),
    "core.v1.PodSecurityContext": (
        *(*_HOST, "seLinuxOptions", "windowsOptions", "runAsUser", "runAsGroup", "runAsNonRoot", "supplementalGroups"),
        *("supplementalGroupsPolicy", "fsGroup", "fsGroupChangePolicy"),
    ),
    "core.v1.Volume": (
        *("name", "hostPath", "emptyDir", "gcePersistentDisk", "awsElasticBlockStore", "gitRepo", "secret", "nfs"),
        *("iscsi", "glusterfs", "persistentVolumeClaim", "rbd", "quobyte"),
    ),
    "core.v1.PersistentVolumeSource": (
        *("gcePersistentDisk", "awsElasticBlockStore", "hostPath", "glusterfs", "nfs", "rbd", "quobyte", "iscsi"),
        *("flexVolume", "cinder", "cephfs", "fc", "flocker"),
    ),
}
"""Where Go's internal struct begins otherwise than the wire's; the rest follows in the wire's order."""


def internal(struct: str, value: Value | None) -> dict[str, Any]:
    """The struct as Go's encoding/json shows the internal type: `value` is its wire form, None an empty one."""
    wire = value or {}
    if struct.startswith("meta."):
        return _wire(struct, wire)
    if struct == "core.v1.PodSpec" and wire.get("securityContext") is not None:
        wire = {**wire, "securityContext": {**wire["securityContext"], **{k: wire[k] for k in _HOST if k in wire}}}
    shown: dict[str, Any] = {}
    for each in _fields(struct):
        if each.name == "metadata":  # embedded in Go
            shown |= _wire("meta.v1.ObjectMeta", wire.get("metadata") or {})
        else:
            shown[_go_name(struct, each.name)] = _shown(each.type, wire.get(each.name), each.flags)
    return shown


def difference(struct: str, before: Value, now: Value) -> str:
    """What changed between two values of a struct, with three lines around each change."""
    old, new = (_indented(internal(struct, each)).split("\n") for each in (before, now))
    return "\n".join([*list(difflib.unified_diff(old, new, lineterm=""))[2:], ""])


def _indented(value: Any) -> str:
    """Go's MarshalIndent by one space."""
    lines = orjson.dumps(value, option=orjson.OPT_INDENT_2).decode().split("\n")
    return "\n".join(" " * ((len(line) - len(line.lstrip(" "))) // 2) + line.lstrip(" ") for line in lines)


def _fields(struct: str) -> list[Field]:
    known = fields_of(struct)
    if struct == "core.v1.PodSecurityContext":
        known = {**{name: fields_of("core.v1.PodSpec")[name] for name in _HOST}, **known}
    names = (
        [*_ORDER.get(struct, ()), *known]
        if struct in _ORDER or embedded_in(struct)
        else [each.name for each in own_fields(struct)]
    )
    absent = _ABSENT.get(struct) or ({"user"} if struct.endswith(_MOUNTED) else set())
    return [known[name] for name in dict.fromkeys(names) if name not in absent | _NEWER]


def _shown(kind: Type, value: Any, flags: int = 0) -> Any:
    if value is None:
        if flags & POINTER or kind.shape != "struct":
            return None if flags & POINTER else zero_of(kind)
        return internal(kind.struct, None)
    match kind.shape:
        case "struct":
            return internal(kind.struct, value)
        case "list" if kind.element is not None:
            return [_shown(kind.element, item) for item in value]
        case "map" if kind.element is not None:
            return {key: _shown(kind.element, value[key]) for key in sorted(value)}
        case "quantity":
            return canonical(value)
    return value


def _wire(struct: str, value: Value) -> dict[str, Any]:
    """A type of the meta group, which has one form only: in Go's order, without what is empty."""
    shown = {each.name: _shown(each.type, value[each.name]) for each in _fields(struct) if each.name in value}
    return {name: item for name, item in shown.items() if item not in (None, "", [], {})}


def _go_name(struct: str, name: str) -> str:
    known = _GO_NAMES.get(f"{name}.rbd") if "RBD" in struct else None
    if known or (known := _GO_NAMES.get(name)):
        return known
    if name in _CAPITALS:
        return name.upper()
    if name.startswith("seLinux"):
        return "SELinux" + name[7:]
    if name == "endpoints" and "Glusterfs" in struct:
        return "EndpointsName"
    for start in _STARTS:
        if name == start or (name.startswith(start) and name[len(start)].isupper()):
            return start.upper() + name[len(start) :]
    return name[:1].upper() + name[1:]
