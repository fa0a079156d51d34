"""Pods: creating one, what an update may change, status, ephemeral containers, binding.

Called by dispatch. Source: k8s.io/kubernetes/pkg/apis/core/validation (ValidatePodCreate, ValidatePodUpdate ...).
"""

from __future__ import annotations

import re
from typing import Any

from api.errors import duplicate, forbidden, invalid, required
from api.names import is_dns_subdomain
from api.objects import Object, clone
from controller.registry.validation.containers import check_image_spaces
from controller.registry.validation.internal import difference
from controller.registry.validation.meta import check_metadata, check_updated_metadata
from controller.registry.validation.podspec import check_pod_spec
from controller.registry.validation.rules import (
    Errors,
    Value,
    check_descending_path,
    check_immutable,
    check_ip,
    check_qualified,
    check_subdomain,
    parse_address,
)
from controller.registry.validation.scheduling import check_tolerations

MIRROR = "kubernetes.io/config.mirror"
_APP_ARMOR = "container.apparmor.security.beta.kubernetes.io/"
_SECCOMP = "seccomp.security.alpha.kubernetes.io/pod"
_SECCOMP_PROFILES = ("runtime/default", "docker/default", "unconfined")
_DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"
_MOST_SECONDS = 2**31 - 1
_SYSTEM_CONDITIONS = frozenset({"PodScheduled", "Ready", "Initialized"})
_match_cost = re.compile(r"0|[+-]?[1-9][0-9]*").fullmatch
_UPDATABLE = ",".join(
    (
        "`spec.containers[*].image`",
        "`spec.initContainers[*].image`",
        "`spec.activeDeadlineSeconds`",
        "`spec.tolerations` (only additions to existing tolerations)",
        "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)",
    )
)


def check_pod(errors: Errors, pod: Value) -> None:
    """A pod to be created."""
    spec = pod.get("spec") or {}
    check_metadata_and_spec(errors, pod)
    if spec.get("ephemeralContainers"):
        errors.append(forbidden("spec.ephemeralContainers", "cannot be set on create"))
    if spec.get("nodeName") and spec.get("schedulingGates"):
        detail = "cannot be set until all schedulingGates have been cleared"
        errors.append(forbidden("spec.nodeName", detail))


def check_pod_update(errors: Errors, pod: Value, old: Value) -> None:
    """A running pod's spec stays: images, deadline, gates and added tolerations aside."""
    check_updated_metadata(errors, pod["metadata"], old["metadata"])
    spec, before = pod.get("spec") or {}, old.get("spec") or {}
    if spec == before:  # it was judged when it came in
        check_pod_metadata(errors, pod)
        _check_annotation_updates(errors, pod, old)
        return
    check_metadata_and_spec(errors, pod)
    _check_annotation_updates(errors, pod, old)
    for field in ("containers", "initContainers"):
        if len(spec.get(field) or ()) != len(before.get(field) or ()):
            errors.append(forbidden(f"spec.{field}", "pod updates may not add or remove containers"))
            return
        for index, container in enumerate(spec.get(field) or ()):
            if not container.get("image"):
                errors.append(required(f"spec.{field}[{index}].image"))
            check_image_spaces(errors, f"spec.{field}[{index}]", container)
    if not _check_deadline(errors, spec.get("activeDeadlineSeconds"), before.get("activeDeadlineSeconds")):
        return
    _check_added_tolerations(errors, spec.get("tolerations") or [], before.get("tolerations") or [])
    _check_deleted_gates(errors, spec.get("schedulingGates") or [], before.get("schedulingGates") or [])
    if normal(spec) != normal(before):
        _check_rest(errors, spec, before)


def check_pod_status(errors: Errors, pod: Value, old: Value) -> None:
    check_updated_metadata(errors, pod["metadata"], old["metadata"])
    _check_annotation_updates(errors, pod, old)
    status, before = pod.get("status") or {}, old.get("status") or {}
    spec = old.get("spec") or {}
    for index, condition in enumerate(status.get("conditions") or ()):
        kind = condition.get("type") or ""
        if kind not in _SYSTEM_CONDITIONS:
            check_qualified(errors, f"metadata.conditions[{index}].Type", kind)
    if (pod.get("spec") or {}).get("nodeName") != spec.get("nodeName"):
        errors.append(forbidden("status.nodeName", "may not be changed directly"))
    nominated = status.get("nominatedNodeName")
    if nominated and nominated != before.get("nominatedNodeName"):
        check_subdomain(errors, "status.nominatedNodeName", nominated)
    if before.get("qosClass"):
        check_immutable(errors, "status.qosClass", status.get("qosClass"), before.get("qosClass"))
    sidecars = {c.get("name") for c in spec.get("initContainers") or () if c.get("restartPolicy") == "Always"}
    policy = spec.get("restartPolicy") or ""
    _check_transitions(errors, "containerStatuses", status, before, (policy, set()))
    _check_transitions(errors, "initContainerStatuses", status, before, (policy, sidecars))
    _check_transitions(errors, "ephemeralContainerStatuses", status, before, ("Never", set()))
    for index, address in enumerate(status.get("podIPs") or ()):
        check_ip(errors, f"status.podIPs[{index}]", address.get("ip"))
    _check_families(errors, "status.podIPs", status.get("podIPs") or [])
    _check_host_ips(errors, status)


def check_ephemeral_update(errors: Errors, pod: Value, old: Value) -> None:
    """pods/ephemeralcontainers: containers may be added, none changed or removed."""
    check_updated_metadata(errors, pod["metadata"], old["metadata"])
    check_metadata_and_spec(errors, pod)
    _check_annotation_updates(errors, pod, old)
    if MIRROR in (old["metadata"].get("annotations") or {}):
        errors.append(forbidden("", "static pods do not support ephemeral containers"))
        return
    path = "spec.ephemeralContainers"
    by_name = {c.get("name"): c for c in (pod.get("spec") or {}).get("ephemeralContainers") or ()}
    for before in (old.get("spec") or {}).get("ephemeralContainers") or ():
        now = by_name.get(before.get("name"))
        if now is None:
            detail = f'existing ephemeral containers "{before.get("name")}" may not be removed\n'
            errors.append(forbidden(path, detail))
        elif normal(now) != normal(before):
            detail = f'existing ephemeral containers "{before.get("name")}" may not be changed\n'
            errors.append(forbidden(path, detail + difference("core.v1.EphemeralContainer", before, now)))


def check_pod_annotations(errors: Errors, path: str, annotations: Value | None, spec: Value) -> None:
    """The annotations that mean something to pods."""
    if not annotations:
        return
    if MIRROR in annotations and not spec.get("nodeName"):
        detail = "must set spec.nodeName if mirror pod annotation is set"
        errors.append(invalid(f"{path}[{MIRROR}]", annotations[MIRROR], detail))
    for name in sorted(annotations):
        _check_profile(errors, path, name, annotations[name], spec)
    cost = annotations.get(_DELETION_COST)
    if cost is not None and not (_match_cost(cost) and -(2**31) <= int(cost) < 2**31):
        errors.append(invalid(f"{path}[{_DELETION_COST}]", cost, "must be a 32bit integer"))


def _check_profile(errors: Errors, path: str, name: str, profile: str, spec: Value) -> None:
    """The annotations of a time when profiles had no fields."""
    if name == _SECCOMP or name.startswith(f"container.{_SECCOMP.removesuffix('pod')}"):
        if profile.startswith("localhost/"):
            check_descending_path(errors, f"{path}.{name}", profile.removeprefix("localhost/"))
        elif profile not in _SECCOMP_PROFILES:
            errors.append(invalid(f"{path}.{name}", profile, "must be a valid seccomp profile"))
    elif name.startswith(_APP_ARMOR):
        container = name.removeprefix(_APP_ARMOR)
        kinds = ("initContainers", "containers", "ephemeralContainers")
        if not any(each.get("name") == container for kind in kinds for each in spec.get(kind) or ()):
            errors.append(invalid(f"{path}[{name}]", container, "container not found"))
        if profile not in ("", "runtime/default", "unconfined") and not profile.startswith("localhost/"):
            errors.append(invalid(f"{path}[{name}]", profile, f'invalid AppArmor profile name: "{profile}"'))


def check_pod_metadata(errors: Errors, pod: Value) -> None:
    """All that is judged of a pod whose spec is known to be valid."""
    metadata = pod["metadata"]
    check_metadata(errors, metadata, is_dns_subdomain, namespaced=True)
    check_pod_annotations(errors, "metadata.annotations", metadata.get("annotations"), pod.get("spec") or {})


def check_metadata_and_spec(errors: Errors, pod: Value) -> None:
    """All that is judged of a pod whatever is done to it."""
    metadata, spec = pod["metadata"], pod.get("spec") or {}
    check_pod_metadata(errors, pod)
    check_pod_spec(errors, "spec", spec, pod_name=metadata.get("name") or "", is_pod=True)
    if not spec.get("serviceAccountName"):
        _check_no_tokens(errors, spec)
    for field in ("containers", "initContainers"):
        for index, container in enumerate(spec.get(field) or ()):
            check_image_spaces(errors, f"spec.{field}[{index}]", container)


def _check_no_tokens(errors: Errors, spec: Value) -> None:
    for index, volume in enumerate(spec.get("volumes") or ()):
        for place, source in enumerate((volume.get("projected") or {}).get("sources") or ()):
            if source.get("serviceAccountToken") is not None:
                path = f"spec.volumes[{index}].projected.sources[{place}].serviceAccountToken"
                errors.append(forbidden(path, "must not be specified when serviceAccountName is not set"))


def _check_annotation_updates(errors: Errors, pod: Value, old: Value) -> None:
    now = pod["metadata"].get("annotations") or {}
    before = old["metadata"].get("annotations") or {}
    if now.get(MIRROR) != before.get(MIRROR):
        verb = "remove or update" if MIRROR in before else "add"
        errors.append(forbidden(f"metadata.annotations[{MIRROR}]", f"may not {verb} mirror pod annotation"))
    for name in sorted({**before, **now}):
        if name.startswith(_APP_ARMOR) and now.get(name) != before.get(name):
            verb = "remove or update" if name in before else "add"
            errors.append(forbidden(f"metadata.annotations[{name}]", f"may not {verb} AppArmor annotations"))
    check_pod_annotations(errors, "metadata.annotations", now, pod.get("spec") or {})


def _check_deadline(errors: Errors, now: int | None, before: int | None) -> bool:
    """A deadline may be set and lowered. False: the rest need not be judged."""
    path = "spec.activeDeadlineSeconds"
    if now is None:
        if before is not None:
            errors.append(invalid(path, None, "must not update from a positive integer to nil value"))
        return True
    if not 0 <= now <= _MOST_SECONDS:
        errors.append(invalid(path, now, f"must be between 0 and {_MOST_SECONDS}, inclusive"))
        return False
    if before is not None and before < now:
        errors.append(invalid(path, now, "must be less than or equal to previous value"))
        return False
    return True


def _check_added_tolerations(errors: Errors, now: list[Value], before: list[Value]) -> None:
    timeless = [{key: value for key, value in t.items() if key != "tolerationSeconds"} for t in now]
    for toleration in before:
        if {key: value for key, value in toleration.items() if key != "tolerationSeconds"} not in timeless:
            detail = "existing toleration can not be modified except its tolerationSeconds"
            errors.append(forbidden("spec.tolerations", detail))
            return
    check_tolerations(errors, "spec.tolerations", now)


def _check_deleted_gates(errors: Errors, now: list[Value], before: list[Value]) -> None:
    known = {gate.get("name") for gate in before}
    for index, gate in enumerate(now):
        if gate.get("name") not in known:
            detail = f"only deletion is allowed, but found new scheduling gate '{gate.get('name')}'"
            errors.append(forbidden(f"spec.schedulingGates[{index}].name", detail))


def _check_rest(errors: Errors, spec: Value, before: Value) -> None:
    """What is left after taking back the permitted changes must be equal."""
    kept = clone(spec)
    for field in ("containers", "initContainers"):
        for index, container in enumerate(kept.get(field) or ()):
            container["image"] = before[field][index].get("image")
    for field in ("activeDeadlineSeconds", "schedulingGates", "tolerations"):
        _take_over(kept, before, field)
    grace = before.get("terminationGracePeriodSeconds")
    if grace is not None and grace < 0 and kept.get("terminationGracePeriodSeconds") == 1:
        kept["terminationGracePeriodSeconds"] = grace
    if before.get("schedulingGates"):
        _check_gated(errors, kept, before)
    if normal(kept) != normal(before):
        changed = difference("core.v1.PodSpec", before, kept)
        detail = f"pod updates may not change fields other than {_UPDATABLE}\n{changed}"
        errors.append(forbidden("spec", detail))


def _check_gated(errors: Errors, kept: Object, before: Value) -> None:
    """A gated pod's node selector and required node affinity may still be narrowed."""
    selector, old_selector = kept.get("nodeSelector") or {}, before.get("nodeSelector") or {}
    if any(selector.get(key) != value for key, value in old_selector.items()):
        detail = "only additions to spec.nodeSelector are allowed (no mutations or deletions)"
        errors.append(invalid("spec.nodeSelector", selector, detail))
    _take_over(kept, before, "nodeSelector")
    affinity, old_affinity = kept.get("affinity") or {}, before.get("affinity") or {}
    if affinity.get("nodeAffinity") == old_affinity.get("nodeAffinity"):
        return
    required_field = "requiredDuringSchedulingIgnoredDuringExecution"
    terms = ((affinity.get("nodeAffinity") or {}).get(required_field) or {}).get("nodeSelectorTerms") or []
    old_terms = ((old_affinity.get("nodeAffinity") or {}).get(required_field) or {}).get("nodeSelectorTerms") or []
    path = f"spec.affinity.nodeAffinity.{required_field}.nodeSelectorTerms"
    if old_terms and len(terms) != len(old_terms):
        detail = "no additions/deletions to non-empty NodeSelectorTerms list are allowed"
        errors.append(invalid(path, terms, detail))
    else:
        for index, term in enumerate(old_terms):
            for field in ("matchExpressions", "matchFields"):
                old_list = term.get(field) or []
                if (terms[index].get(field) or [])[: len(old_list)] != old_list:
                    detail = "only additions are allowed (no mutations or deletions)"
                    errors.append(invalid(f"{path}[{index}]", terms[index], detail))
    _take_over(affinity, old_affinity, "nodeAffinity")
    if affinity:
        kept["affinity"] = affinity


def _take_over(target: Object, source: Value, field: str) -> None:
    if field in source:
        target[field] = source[field]
    else:
        target.pop(field, None)


def _check_transitions(errors: Errors, field: str, status: Value, before: Value, rule: tuple[str, set[Any]]) -> None:
    """A container that ended for good does not run again."""
    policy, restartable = rule
    if policy == "Always":
        return
    running = {c.get("name") for c in status.get(field) or () if not (c.get("state") or {}).get("terminated")}
    for index, container in enumerate(before.get(field) or ()):
        ended, name = (container.get("state") or {}).get("terminated"), container.get("name")
        if not ended or name in restartable or (policy == "OnFailure" and ended.get("exitCode")):
            continue
        if name in running:
            detail = "may not be transitioned to non-terminated state"
            errors.append(forbidden(f"status.{field}[{index}].state", detail))


def _check_host_ips(errors: Errors, status: Value) -> None:
    addresses = status.get("hostIPs") or []
    if addresses and addresses[0].get("ip") != status.get("hostIP"):
        errors.append(invalid("status.hostIPs[0].ip", addresses[0].get("ip"), "must be equal to `hostIP`"))
    for index, address in enumerate(addresses):
        check_ip(errors, f"status.hostIPs[{index}]", address.get("ip"))
    _check_families(errors, "status.hostIPs", addresses)


def _check_families(errors: Errors, path: str, addresses: list[Value]) -> None:
    """Several addresses are one of each family, none twice."""
    texts = [address.get("ip") or "" for address in addresses]
    parsed = [parse_address(text) for text in texts]
    families = [address.version for address in parsed if address is not None]
    if len(families) < len(texts) or len(texts) < 2:
        return
    if len(texts) > 2 or len(set(families)) < 2:
        shown = [{"IP": text} for text in texts]
        errors.append(invalid(path, shown, "may specify no more than one IP for each IP family"))
    for index, text in enumerate(texts):
        if text in texts[:index]:
            errors.append(duplicate(f"{path}[{index}]", {"IP": text}))


def normal(value: Any) -> Any:
    """A value in which unset, null and empty lists are one, as Kubernetes compares."""
    if isinstance(value, dict):
        return {key: normal(item) for key, item in value.items() if item is not None and item != []}
    return [normal(item) for item in value] if isinstance(value, list) else value
