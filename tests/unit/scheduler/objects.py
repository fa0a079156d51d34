"""Small builders of nodes and pods for the scheduler's tests."""

from __future__ import annotations

from typing import Any

from api.objects import Object
from controller.scheduler.decide import Decision, decide
from controller.scheduler.demand import class_of, pending_pod
from controller.scheduler.snapshot import PlacedPod, Snapshot, node_view


def node(name: str, **options: Any) -> Object:
    """options: cpu, memory, pods, labels, taints, unschedulable, ready, extra (more allocatable resources)."""
    allocatable = {
        "cpu": options.get("cpu", "4"),
        "memory": options.get("memory", "8Gi"),
        "pods": options.get("pods", "110"),
        **options.get("extra", {}),
    }
    return {
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, **options.get("labels", {})}},
        "spec": {"taints": options.get("taints", []), "unschedulable": options.get("unschedulable", False)},
        "status": {
            "allocatable": allocatable,
            "conditions": [{"type": "Ready", "status": options.get("ready", "True")}],
            "images": options.get("images", []),
        },
    }


def pod(name: str, **options: Any) -> Object:
    """options: cpu, memory, labels, owner, host_port, spec (merged), priority, namespace, requests."""
    requests = {key: options[key] for key in ("cpu", "memory") if key in options} | options.get("requests", {})
    container: Object = {"name": "c", "image": options.get("image", "busybox"), "resources": {"requests": requests}}
    if "host_port" in options:
        container["ports"] = [{"containerPort": 80, "hostPort": options["host_port"], "protocol": "TCP"}]
    metadata: Object = {
        "name": name,
        "namespace": options.get("namespace", "default"),
        "uid": f"uid-{options.get('namespace', 'default')}-{name}",
        "labels": options.get("labels", {}),
        "creationTimestamp": "2026-01-01T00:00:00Z",
    }
    if "owner" in options:
        metadata["ownerReferences"] = [{"controller": True, "uid": options["owner"], "kind": "ReplicaSet"}]
    spec = {"containers": [container], "priority": options.get("priority", 0), **options.get("spec", {})}
    return {"metadata": metadata, "spec": spec, "status": {"phase": "Pending"}}


def snapshot_of(nodes: list[Object], placed: dict[str, list[Object]] | None = None) -> Snapshot:
    snapshot = Snapshot()
    for each in nodes:
        snapshot.set_node(node_view(each))
    for name, pods in (placed or {}).items():
        for each in pods:
            snapshot.place_pod(PlacedPod(each["metadata"]["uid"], name, class_of(each)))
    return snapshot


def schedule(snapshot: Snapshot, *pods: Object) -> Decision:
    return decide(snapshot, [pending_pod(each) for each in pods], {})


def places(decision: Decision) -> dict[str, str]:
    return {binding.pod.name: binding.node for binding in decision.bindings}


def reasons(decision: Decision) -> dict[str, str]:
    return {refusal.pod.name: refusal.message for refusal in decision.refusals}
