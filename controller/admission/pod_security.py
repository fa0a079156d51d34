"""Pod Security admission: a namespace's labels say which level its pods have to keep.

Called by the chain. `enforce` refuses pods; `warn` (and `enforce`, for templates that only later become pods) answers
with warnings; a namespace whose level rises is told which of its pods break it. Rules:
https://kubernetes.io/docs/concepts/security/pod-security-admission/
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from api.errors import FieldError, invalid, invalid_object
from api.objects import Object, labels_of
from controller.admission.attributes import Attributes, Operation, Reader
from controller.admission.namespaces import namespace_key
from controller.admission.pod_levels import violations

PREFIX = "pod-security.kubernetes.io/"
LEVELS = ("privileged", "baseline", "restricted")
_TEMPLATED = frozenset(
    (
        *(("apps", "deployments"), ("apps", "replicasets"), ("apps", "statefulsets"), ("apps", "daemonsets")),
        *(("batch", "jobs"), ("batch", "cronjobs"), ("", "replicationcontrollers"), ("", "podtemplates")),
    )
)
_MODES = ("enforce", "audit", "warn")
_VERSION = re.compile(r"latest|v1\.(0|[1-9][0-9]*)")
_MOST_TOLD = 10
POD_PARTS = ("ephemeralcontainers", "resize")
"""The subresources that write a pod's spec; Kubernetes' plug-in ignores all others, which connect, bind or report."""


def admit_secure(attributes: Attributes, reader: Reader) -> None:
    """Judges pods, templates and namespaces. Raises Forbidden for a pod below the enforced level, Invalid for
    a namespace whose labels name no level or version."""
    if attributes.kind.resource == ("", "namespaces"):
        _refuse_new_nonsense(attributes)
        if attributes.operation is Operation.UPDATE:
            _warn_of_present_pods(attributes, reader)
    elif attributes.is_pod or attributes.kind.resource in _TEMPLATED:
        record = reader.get(namespace_key(attributes.namespace))
        if record is not None and any(name.startswith(PREFIX) for name in record.labels):
            _admit(attributes, record.labels)


def _refuse_new_nonsense(attributes: Attributes) -> None:
    assert attributes.obj is not None
    errors = _label_errors(labels_of(attributes.obj))
    if errors and errors != _label_errors(labels_of(attributes.old or {})):
        raise invalid_object("", "Namespace", attributes.name, errors)


def _label_errors(labels: Mapping[str, str]) -> list[FieldError]:
    errors = []
    for mode in _MODES:
        level, version = f"{PREFIX}{mode}", f"{PREFIX}{mode}-version"
        if labels.get(level, LEVELS[0]) not in LEVELS:
            errors.append(invalid(f"metadata.labels[{level}]", labels[level], f"must be one of {', '.join(LEVELS)}"))
        if not _VERSION.fullmatch(labels.get(version, "latest")):
            errors.append(invalid(f"metadata.labels[{version}]", labels[version], 'must be "latest" or "v1.x"'))
    return errors


def _admit(attributes: Attributes, labels: Mapping[str, str]) -> None:
    obj = attributes.obj
    assert obj is not None
    if attributes.is_pod and attributes.operation is Operation.UPDATE and not _is_significant(obj, attributes.old):
        return
    metadata, spec = _pod_of(attributes, obj)
    if spec is None:
        return
    enforced = _level(labels, "enforce")
    if attributes.is_pod and (found := violations(enforced, metadata, spec)):
        raise attributes.forbidden(f"violates PodSecurity {_policy(labels, 'enforce')}: {', '.join(found)}")
    warned = _level(labels, "warn")
    if found := violations(warned, metadata, spec):
        text = f"would violate PodSecurity {_policy(labels, 'warn')}: {', '.join(found)}"
        if text not in attributes.request.warnings:
            attributes.request.warnings.append(text)


def _is_significant(obj: Object, old: Mapping[str, Any] | None) -> bool:
    """Whether an update may change what a pod is allowed: its spec beyond images, tolerations and sizes."""
    if old is None:
        return True
    return bool(_weighed(obj["spec"]) != _weighed(old["spec"]))


def _weighed(spec: Mapping[str, Any]) -> list[Any]:
    sections = ("initContainers", "containers", "ephemeralContainers")
    resized = ("image", "resources", "resizePolicy")
    bare = [
        [{key: value for key, value in each.items() if key not in resized} for each in spec.get(section) or ()]
        for section in sections
    ]
    return [bare, {k: v for k, v in spec.items() if k not in (*sections, "tolerations", "activeDeadlineSeconds")}]


def _pod_of(attributes: Attributes, obj: Object) -> tuple[Mapping[str, Any], Mapping[str, Any] | None]:
    """(metadata, spec) of the pod that is written or that a template makes."""
    if attributes.is_pod:
        return obj["metadata"], obj["spec"]
    where = obj if attributes.kind.plural == "podtemplates" else obj.get("spec") or {}
    if attributes.kind.plural == "cronjobs":
        where = (where.get("jobTemplate") or {}).get("spec") or {}
    template = where.get("template") or {}
    return template.get("metadata") or {}, template.get("spec")


def _level(labels: Mapping[str, str], mode: str) -> str:
    """The level of a mode; what is no level is the strictest, as in Kubernetes."""
    given = labels.get(f"{PREFIX}{mode}")
    if not given:
        return "privileged"
    return given if given in LEVELS else "restricted"


def _policy(labels: Mapping[str, str], mode: str) -> str:
    version = labels.get(f"{PREFIX}{mode}-version") or "latest"
    return f'"{_level(labels, mode)}:{version}"'


def _warn_of_present_pods(attributes: Attributes, reader: Reader) -> None:
    obj, old = attributes.obj, attributes.old or {}
    assert obj is not None
    labels = labels_of(obj)
    level, before = _level(labels, "enforce"), _level(labels_of(old), "enforce")
    if level == before or LEVELS.index(level) < LEVELS.index(before):
        return
    found: dict[str, list[str]] = {}
    for record in reader.list(("", "pods")).records:
        if record.key.namespace == attributes.name:
            pod = record.parse()
            if broken := violations(level, pod["metadata"], pod["spec"]):
                found.setdefault(", ".join(each.partition(" (")[0] for each in broken), []).append(record.key.name)
    if not found:
        return
    policy = _policy(labels, "enforce")
    warnings = attributes.request.warnings
    warnings.append(
        f'existing pods in namespace "{attributes.name}" violate the new PodSecurity enforce level {policy}'
    )
    for why, names in sorted(found.items())[:_MOST_TOLD]:
        others = f" (and {len(names) - 1} other pod{'s' if len(names) > 2 else ''})" if len(names) > 1 else ""
        warnings.append(f"{min(names)}{others}: {why}")
