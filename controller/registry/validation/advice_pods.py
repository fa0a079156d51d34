"""What is legal but unwise in a pod beside its fields' own meaning: old annotations, files on files, ports of no host.

Called by advice. Source: k8s.io/kubernetes/pkg/api/pod/warnings.go.
"""

from __future__ import annotations

from collections.abc import Iterator

from api.schema.facts import own_fields
from controller.registry.validation.rules import Value

_SYSCTLS = 'non-functional in v1.11+; use the "sysctls" field instead'
_OLD_ANNOTATIONS = {
    "scheduler.alpha.kubernetes.io/critical-pod": 'non-functional in v1.16+; use the "priorityClassName" field instead',
    "security.alpha.kubernetes.io/sysctls": _SYSCTLS,
    "security.alpha.kubernetes.io/unsafe-sysctls": _SYSCTLS,
}
_SECCOMP_POD = "seccomp.security.alpha.kubernetes.io/pod"
_PROFILES = {
    "seccompProfile": ("container.seccomp.security.alpha.kubernetes.io/", "non-functional in v1.27+"),
    "appArmorProfile": ("container.apparmor.security.beta.kubernetes.io/", "deprecated since v1.30"),
}
_SOURCES = {"configMap": "ConfigMap", "secret": "Secret", "downwardAPI": "DownwardAPI"}
_WHOLE = {"serviceAccountToken": "ServiceAccountToken", "clusterTrustBundle": "ClusterTrustBundle"}
CONTAINERS = ("initContainers", "containers", "ephemeralContainers")


def pod_notes(path: str, metadata: Value, spec: Value) -> Iterator[str]:
    """`path`: where the pod's metadata and spec are, with a dot behind; "" for a real pod."""
    containers = [
        (f"{path}spec.{field}[{index}]", container)
        for field in CONTAINERS
        for index, container in enumerate(spec.get(field) or ())
    ]
    yield from _annotations(f"{path}metadata.annotations", metadata.get("annotations") or {}, spec, containers)
    for volume in spec.get("volumes") or ():
        yield from _files(volume.get("name") or "", volume)
    for here, container in containers:
        for index, port in enumerate(container.get("ports") or ()):
            if port.get("hostIP") and not port.get("hostPort"):
                fields = {field.name: port.get(field.name) for field in own_fields("core.v1.ContainerPort")}
                shown = " ".join(f"{name[:1].upper()}{name[1:]}:{_plain(name, fields[name])}" for name in fields)
                yield f"{here}.ports[{index}]: hostIP set without hostPort: {{{shown}}}"


def _plain(name: str, value: str | int | None) -> str | int:
    return value or (0 if name.endswith("Port") else "")


def _annotations(path: str, annotations: Value, spec: Value, containers: list[tuple[str, Value]]) -> Iterator[str]:
    for name in sorted(_OLD_ANNOTATIONS.keys() & annotations.keys()):
        yield f"{path}[{name}]: {_OLD_ANNOTATIONS[name]}"
    own = spec.get("securityContext") or {}
    if _SECCOMP_POD in annotations and own.get("seccompProfile") is None:
        yield f'{path}[{_SECCOMP_POD}]: non-functional in v1.27+; use the "seccompProfile" field instead'
    for _, container in containers:
        context = container.get("securityContext") or {}
        for field, (prefix, why) in _PROFILES.items():
            name = f"{prefix}{container.get('name')}"
            covered = context.get(field) or (field == "appArmorProfile" and own.get(field))
            if name in annotations and not covered:
                yield f'{path}[{name}]: {why}; use the "{field}" field instead'


def _files(name: str, volume: Value) -> Iterator[str]:
    """Files of one volume that would lie on or below each other."""
    for kind, shown in _SOURCES.items():
        if (source := volume.get(kind)) and source.get("items"):
            of = f" {_quoted(source.get('name') or source.get('secretName'))}" if kind != "downwardAPI" else ""
            told = f'volume "{name}" ({shown}{of}): overlapping paths'
            yield from _overlaps(_paths(source), told)
    taken: set[str] = set()
    for projection in (volume.get("projected") or {}).get("sources") or ():
        if not any(source is not None for source in projection.values()):
            yield f'volume "{name}" (Projected) has no sources provided'
            continue
        paths, what = _projected(projection)
        told = f'volume "{name}" (Projected {what}): overlapping paths'
        yield from _overlaps(paths, told)
        if paths:
            yield from _overlaps(sorted([*set(paths), *taken]), told)
        taken |= set(paths)


def _projected(projection: Value) -> tuple[list[str], str]:
    """(the paths that one source of a projection fills, what it is)."""
    for kind, shown in _SOURCES.items():
        if (source := projection.get(kind)) and source.get("items"):
            return _paths(source), shown if kind == "downwardAPI" else f"{shown} {_quoted(source.get('name'))}"
    for kind, shown in _WHOLE.items():
        if source := projection.get(kind):
            of = f" {_quoted(source.get('name') or source.get('signerName'))}" if kind == "clusterTrustBundle" else ""
            return [source.get("path") or ""], f"{shown}{of}"
    return [], ""


def _paths(source: Value) -> list[str]:
    return [item.get("path") or "" for item in source["items"]]


def _quoted(name: str | None) -> str:
    return f'"{name or ""}"'


def _overlaps(paths: list[str], told: str) -> Iterator[str]:
    seen: list[str] = []
    for path in (path.rstrip("/") for path in paths):
        for other in seen:
            if path and other and (f"{path}/".startswith(f"{other}/") or f"{other}/".startswith(f"{path}/")):
                yield f'{told}: "{path}" with "{other}"'
                break
        if path not in seen:
            seen.append(path)
