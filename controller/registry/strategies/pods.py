"""Pods: phase and QoS class of a new one, what a status write may change, and how long a deleted one may take.

Rules from k8s.io/kubernetes/pkg/registry/core/pod/strategy.go and the page "Pod Quality of Service Classes".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import orjson

from api.fencing import is_fenced
from api.objects import Object
from api.quantity import parse_quantity
from controller.registry.strategies.base import Strategy, bump_generation_if, keep, keep_metadata
from controller.registry.strategies.label_keys import merge_label_keys

_QOS_RESOURCES = ("cpu", "memory")
_RESIZED = ("resources", "resizePolicy")


def prepare_create(pod: Object) -> None:
    pod["metadata"]["generation"] = 1
    merge_label_keys(pod)
    pod["status"] = {"phase": "Pending", "qosClass": qos_class(pod["spec"])}
    if pod["spec"].get("schedulingGates"):
        reason = "SchedulingGated"
        message = "Scheduling is blocked due to non-empty scheduling gates"
        pod["status"]["conditions"] = [
            {"type": "PodScheduled", "status": "False", "reason": reason, "message": message, "lastProbeTime": None}
        ]


def prepare_update(new: Object, old: Mapping[str, Any]) -> None:
    keep(new, old, "status")
    bump_generation_if(new.get("spec") != old.get("spec"), new, old)


def prepare_status(new: Object, old: Mapping[str, Any]) -> None:
    keep(new, old, "spec")
    keep_metadata(new, old, "ownerReferences")
    qos = (old.get("status") or {}).get("qosClass")
    if qos and not (new.get("status") or {}).get("qosClass"):  # another one is refused
        new.setdefault("status", {})["qosClass"] = qos


def prepare_ephemeral_containers(new: Object, old: Mapping[str, Any]) -> None:
    """pods/ephemeralcontainers writes spec.ephemeralContainers and nothing else."""
    ephemeral = (new.get("spec") or {}).get("ephemeralContainers")
    _write_spec(new, old, {**old["spec"], "ephemeralContainers": ephemeral} if ephemeral else dict(old["spec"]))


def prepare_resize(new: Object, old: Mapping[str, Any]) -> None:
    """pods/resize writes how much containers get; adding, removing or renaming some is left to validation to refuse."""
    spec = new.get("spec") or {}
    resized: Object = {}
    for field in ("containers", "initContainers"):
        containers, before = spec.get(field) or [], old["spec"].get(field) or []
        if [one.get("name") for one in containers] != [one["name"] for one in before]:
            return
        if before:
            resized[field] = [_resized(one, known) for one, known in zip(containers, before, strict=True)]
    _write_spec(new, old, {**old["spec"], **resized})


def _write_spec(new: Object, old: Mapping[str, Any], spec: Object) -> None:
    """The old pod with this spec: nothing else of `new` counts."""
    new["spec"] = spec
    keep(new, old, "status")
    new["metadata"] = {**old["metadata"], "resourceVersion": new["metadata"].get("resourceVersion", "")}
    bump_generation_if(spec != old["spec"], new, old)


def _resized(container: Mapping[str, Any], known: Mapping[str, Any]) -> Object:
    kept = {field: value for field, value in known.items() if field not in _RESIZED}
    return kept | {field: container[field] for field in _RESIZED if field in container}


def grace_seconds(pod: Mapping[str, Any], asked: int | None) -> int | None:
    """How long a pod may take to go: what was asked, else its own period; at once when nothing of it can be running.

    A pod without a node has nobody who could confirm its end, and one whose containers ended has nothing to wait for.
    A fenced pod whose own period is 0 is given a second, so that its node confirms the end: it must never run twice.
    """
    spec = pod["spec"]
    period = asked if asked is not None else spec.get("terminationGracePeriodSeconds", 0)
    if period == 0 and asked is None and is_fenced(pod):
        period = 1
    if not spec.get("nodeName"):
        period = 0
    if (pod.get("status") or {}).get("phase") in ("Failed", "Succeeded"):
        period = 0
    return 1 if period < 0 else int(period)


def _containers(spec: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield from spec.get("initContainers") or ()
    yield from spec.get("containers") or ()


def _amounts(quantities: Mapping[str, Any]) -> Object:
    found = {}
    for name in _QOS_RESOURCES:
        if name in quantities:
            amount = parse_quantity(quantities[name])
            if amount > 0:
                found[name] = amount
    return found


def qos_class(spec: Mapping[str, Any]) -> str:
    """Guaranteed: cpu and memory limits everywhere and equal requests; BestEffort: neither anywhere; else Burstable."""
    return _qos_class(orjson.dumps([container.get("resources") for container in _containers(spec)]))


@lru_cache(maxsize=1024)
def _qos_class(text: bytes) -> str:
    """Of the JSON of each container's resources: thousands of pods share few of them."""
    guaranteed, any_resource = True, False
    for resources in orjson.loads(text):
        if not resources:
            guaranteed = False
            continue
        limits = _amounts(resources.get("limits") or {})
        requests = _amounts(resources.get("requests") or {})
        any_resource = any_resource or bool(limits) or bool(requests)
        if len(limits) < len(_QOS_RESOURCES) or any(
            requests.get(name, limits[name]) != limits[name] for name in limits
        ):
            guaranteed = False
    if not any_resource:
        return "BestEffort"
    return "Guaranteed" if guaranteed else "Burstable"


STRATEGY = Strategy(
    prepare_create=prepare_create,
    prepare_update=prepare_update,
    prepare_status=prepare_status,
    grace=grace_seconds,
    returns_deleted=True,
)
