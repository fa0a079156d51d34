"""Figures of the cluster itself, as kube-state-metrics names them: pods, nodes, deployments.

Called by metrics.py: `snapshot` on the event loop (no other thread reads the cache), `render` in a thread. What an
object says beyond the cache's fields is read once per version of it. Invariant: memory stays bounded; with more pods
than DETAILED_PODS only their phases are shown. Names and labels: kubernetes/kube-state-metrics, docs/metrics.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from api.objects import Object
from api.quantity import parse_quantity
from controller.store import Store
from controller.store.types import Key, Record

PODS, NODES, DEPLOYMENTS = ("", "pods"), ("", "nodes"), ("apps", "deployments")
REPLICA_SETS, NAMESPACES, QUOTAS = ("apps", "replicasets"), ("", "namespaces"), ("", "resourcequotas")
_CONDITION_STATUSES = ("True", "False", "Unknown")
_POD_CONDITIONS = {"Ready": "kube_pod_status_ready", "PodScheduled": "kube_pod_status_scheduled"}
_UNITS = {"cpu": "core", "memory": "byte", "ephemeral-storage": "byte", "pods": "integer"}
_DEPLOYMENT_FIGURES = (
    ("kube_deployment_spec_replicas", "spec", "replicas"),
    ("kube_deployment_status_replicas", "status", "replicas"),
    ("kube_deployment_status_replicas_ready", "status", "readyReplicas"),
    ("kube_deployment_status_replicas_available", "status", "availableReplicas"),
    ("kube_deployment_status_replicas_unavailable", "status", "unavailableReplicas"),
    ("kube_deployment_status_replicas_updated", "status", "updatedReplicas"),
    ("kube_deployment_status_observed_generation", "status", "observedGeneration"),
    ("kube_deployment_metadata_generation", "metadata", "generation"),
)
_REPLICA_SET_FIGURES = (
    ("kube_replicaset_spec_replicas", "spec", "replicas"),
    ("kube_replicaset_status_replicas", "status", "replicas"),
    ("kube_replicaset_status_ready_replicas", "status", "readyReplicas"),
)

DETAILED_PODS = 5000
"""Beyond so many, series for each container would cost more memory than the pods themselves."""

Samples = Iterator[tuple[str, str]]
"""(metric name, one line of it without its name)."""


@dataclass(frozen=True)
class Snapshot:
    """Records as they are at one moment."""

    by_resource: Mapping[tuple[str, str], list[Record]]


def snapshot(store: Store) -> Snapshot:
    return Snapshot({r: store.list(r).records for r in _SAMPLES})


class ClusterMetrics:
    """Renders snapshots; keeps the lines of objects that did not change."""

    def __init__(self, detailed_pods: int = DETAILED_PODS) -> None:
        self._detailed_pods = detailed_pods
        self._lines: dict[Key, tuple[int, list[tuple[str, str]]]] = {}

    def render(self, taken: Snapshot) -> bytes:
        """The text exposition."""
        by_name: dict[str, list[str]] = {}
        fresh: dict[Key, tuple[int, list[tuple[str, str]]]] = {}
        for resource, records in taken.by_resource.items():
            if resource == PODS and len(records) > self._detailed_pods:
                by_name["kube_pod_status_phase"] = [_phase(record) for record in records]
                continue
            samples = _SAMPLES[resource]
            for record in records:
                known = self._lines.get(record.key)
                if known is None or known[0] != record.version:
                    known = (record.version, list(samples(record)))
                fresh[record.key] = known
                for name, line in known[1]:
                    by_name.setdefault(name, []).append(line)
        self._lines = fresh
        return b"".join(_family(name, lines) for name, lines in sorted(by_name.items()))


def _family(name: str, lines: Iterable[str]) -> bytes:
    kind = "counter" if name.endswith("_total") else "gauge"
    body = "".join(f"{name}{line}\n" for line in lines)
    return f"# HELP {name} See kube-state-metrics.\n# TYPE {name} {kind}\n{body}".encode()


def _labels(**labels: str) -> str:
    quoted = (f'{name}="{_escaped(value)}"' for name, value in labels.items())
    return "{" + ",".join(quoted) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _phase(record: Record) -> str:
    key = record.key
    phase = record.fields.get("status.phase") or "Unknown"
    return f'{{namespace="{key.namespace}",pod="{key.name}",phase="{phase}"}} 1'


def _pod_samples(record: Record) -> Samples:
    pod = record.parse()
    spec, status = pod.get("spec") or {}, pod.get("status") or {}
    where = {"namespace": record.key.namespace, "pod": record.key.name}
    yield "kube_pod_status_phase", _phase(record)
    node = spec.get("nodeName") or ""
    info = {"node": node, "pod_ip": status.get("podIP") or "", "host_ip": status.get("hostIP") or ""}
    yield "kube_pod_info", f"{_labels(**where, **info, **_owner(pod))} 1"
    yield from _since("kube_pod_created", where, pod["metadata"].get("creationTimestamp"))
    yield from _since("kube_pod_start_time", where, status.get("startTime"))
    if status.get("reason"):
        yield "kube_pod_status_reason", f"{_labels(**where, reason=status['reason'])} 1"
    for condition in status.get("conditions") or ():
        name = _POD_CONDITIONS.get(condition.get("type") or "")
        if name:
            shown = (condition.get("status") or "Unknown").lower()
            yield name, f"{_labels(**where, condition=shown)} 1"
    for container in status.get("containerStatuses") or ():
        yield from _container_samples(where, container)
    for container in spec.get("containers") or ():
        yield from _requests(where, node, container)


def _container_samples(where: Mapping[str, str], container: Mapping[str, Any]) -> Samples:
    own = {**where, "container": container.get("name") or ""}
    labels, state = _labels(**own), container.get("state") or {}
    image = {"image": container.get("image") or "", "container_id": container.get("containerID") or ""}
    yield "kube_pod_container_info", f"{_labels(**own, **image)} 1"
    yield "kube_pod_container_status_restarts_total", f"{labels} {container.get('restartCount') or 0}"
    yield "kube_pod_container_status_ready", f"{labels} {int(bool(container.get('ready')))}"
    for name in ("waiting", "running", "terminated"):
        yield f"kube_pod_container_status_{name}", f"{labels} {int(name in state)}"
        reason = (state.get(name) or {}).get("reason")
        if reason:
            yield f"kube_pod_container_status_{name}_reason", f"{_labels(**own, reason=reason)} 1"
    last = ((container.get("lastState") or {}).get("terminated") or {}).get("reason")
    if last:
        yield "kube_pod_container_status_last_terminated_reason", f"{_labels(**own, reason=last)} 1"


def _since(name: str, labels: Mapping[str, str], time: str | None) -> Samples:
    if time:
        yield name, f"{_labels(**labels)} {datetime.fromisoformat(time).timestamp():.0f}"


def _owner(pod: Object) -> dict[str, str]:
    for reference in pod["metadata"].get("ownerReferences") or ():
        if reference.get("controller"):
            return {"created_by_kind": reference.get("kind") or "", "created_by_name": reference.get("name") or ""}
    return {"created_by_kind": "", "created_by_name": ""}


def _requests(where: Mapping[str, str], node: str, container: Mapping[str, Any]) -> Samples:
    resources = container.get("resources") or {}
    for section in ("requests", "limits"):
        for resource, quantity in (resources.get(section) or {}).items():
            labels = _labels(**where, container=container["name"], node=node, **_unit(resource))
            yield f"kube_pod_container_resource_{section}", f"{labels} {float(parse_quantity(quantity))}"


def _unit(resource: str) -> dict[str, str]:
    return {
        "resource": resource.replace("-", "_").replace(".", "_").replace("/", "_"),
        "unit": _UNITS.get(resource, "integer"),
    }


def _node_samples(record: Record) -> Samples:
    node = record.parse()
    spec, status = node.get("spec") or {}, node.get("status") or {}
    name, info = record.key.name, status.get("nodeInfo") or {}
    shown = {
        "kernel_version": info.get("kernelVersion") or "",
        "os_image": info.get("osImage") or "",
        "container_runtime_version": info.get("containerRuntimeVersion") or "",
        "kubelet_version": info.get("kubeletVersion") or "",
    }
    yield "kube_node_info", f"{_labels(node=name, **shown)} 1"
    yield from _since("kube_node_created", {"node": name}, node["metadata"].get("creationTimestamp"))
    yield "kube_node_spec_unschedulable", f"{_labels(node=name)} {int(bool(spec.get('unschedulable')))}"
    for taint in spec.get("taints") or ():
        labels = {"key": taint.get("key") or "", "value": taint.get("value") or "", "effect": taint.get("effect") or ""}
        yield "kube_node_spec_taint", f"{_labels(node=name, **labels)} 1"
    yield from _conditions("kube_node_status_condition", {"node": name}, status)
    for section in ("capacity", "allocatable"):
        for resource, quantity in (status.get(section) or {}).items():
            labels = _unit(resource)
            yield f"kube_node_status_{section}", f"{_labels(node=name, **labels)} {float(parse_quantity(quantity))}"


def _conditions(name: str, labels: Mapping[str, str], status: Mapping[str, Any]) -> Samples:
    """Three lines a condition, one of which is 1."""
    for condition in status.get("conditions") or ():
        for possible in _CONDITION_STATUSES:
            shown = _labels(**labels, condition=condition.get("type") or "", status=possible.lower())
            yield name, f"{shown} {int(condition.get('status') == possible)}"


def _deployment_samples(record: Record) -> Samples:
    yield from _DEPLOYMENT(record)
    where = {"namespace": record.key.namespace, "deployment": record.key.name}
    yield from _conditions("kube_deployment_status_condition", where, record.parse().get("status") or {})


def _figures(label: str, figures: Iterable[tuple[str, str, str]]) -> Callable[[Record], Samples]:
    def samples(record: Record) -> Samples:
        obj = record.parse()
        labels = _labels(**{"namespace": record.key.namespace, label: record.key.name})
        for name, section, field in figures:
            yield name, f"{labels} {(obj.get(section) or {}).get(field) or 0}"

    return samples


_DEPLOYMENT = _figures("deployment", _DEPLOYMENT_FIGURES)


def _quota_samples(record: Record) -> Samples:
    where = {"namespace": record.key.namespace, "resourcequota": record.key.name}
    for section, amounts in (record.parse().get("status") or {}).items():
        if section in ("hard", "used"):
            for resource, quantity in (amounts or {}).items():
                labels = _labels(**where, resource=resource, type=section)
                yield "kube_resourcequota", f"{labels} {float(parse_quantity(quantity))}"


def _namespace_samples(record: Record) -> Samples:
    phase = record.fields.get("status.phase") or "Active"
    yield "kube_namespace_status_phase", f"{_labels(namespace=record.key.name, phase=phase)} 1"


_SAMPLES: dict[tuple[str, str], Callable[[Record], Samples]] = {
    PODS: _pod_samples,
    NODES: _node_samples,
    DEPLOYMENTS: _deployment_samples,
    REPLICA_SETS: _figures("replicaset", _REPLICA_SET_FIGURES),
    NAMESPACES: _namespace_samples,
    QUOTAS: _quota_samples,
}
