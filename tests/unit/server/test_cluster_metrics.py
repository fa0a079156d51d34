"""The cluster's objects as Prometheus sees them."""

from __future__ import annotations

from typing import Any

import orjson

from controller.server.cluster_metrics import DEPLOYMENTS, NODES, PODS, QUOTAS, ClusterMetrics, Snapshot
from controller.store.types import Key, Record

POD = {
    "metadata": {
        "creationTimestamp": "2026-01-02T03:04:05Z",
        "ownerReferences": [{"kind": "ReplicaSet", "name": "web-1", "controller": True}],
    },
    "spec": {
        "nodeName": "n1",
        "containers": [{"name": "c", "resources": {"requests": {"cpu": "250m"}, "limits": {"memory": "1Mi"}}}],
    },
    "status": {
        "phase": "Running",
        "conditions": [{"type": "Ready", "status": "False"}],
        "containerStatuses": [
            {
                "name": "c",
                "restartCount": 3,
                "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                "lastState": {"terminated": {"reason": "OOMKilled"}},
            }
        ],
    },
}


def record(resource: tuple[str, str], name: str, obj: dict[str, Any], version: int = 1) -> Record:
    key = Key(*resource, "" if resource == NODES else "ns", name)
    phase = (obj.get("status") or {}).get("phase")
    return Record(key, version, orjson.dumps(obj), {}, {"status.phase": phase} if phase else {})


def rendered(*records: Record, detailed_pods: int = 100) -> list[str]:
    by_resource: dict[tuple[str, str], list[Record]] = {}
    for one in records:
        by_resource.setdefault((one.key.group, one.key.plural), []).append(one)
    return ClusterMetrics(detailed_pods).render(Snapshot(by_resource)).decode().splitlines()


def test_a_pod_tells_its_phase_restarts_reasons_and_requests() -> None:
    lines = rendered(record(PODS, "web-1-a", POD))
    pod = 'namespace="ns",pod="web-1-a"'
    assert f'kube_pod_status_phase{{{pod},phase="Running"}} 1' in lines
    assert f"kube_pod_created{{{pod}}} 1767323045" in lines
    assert f'kube_pod_status_ready{{{pod},condition="false"}} 1' in lines
    container = f'{pod},container="c"'
    assert f"kube_pod_container_status_restarts_total{{{container}}} 3" in lines
    assert f"kube_pod_container_status_running{{{container}}} 0" in lines
    assert f'kube_pod_container_status_waiting_reason{{{container},reason="CrashLoopBackOff"}} 1' in lines
    assert f'kube_pod_container_status_last_terminated_reason{{{container},reason="OOMKilled"}} 1' in lines
    requests = f'kube_pod_container_resource_requests{{{container},node="n1",resource="cpu",unit="core"}} 0.25'
    assert requests in lines
    assert any(line.startswith("kube_pod_info{") and 'created_by_name="web-1"' in line for line in lines)


def test_conditions_have_one_line_for_each_status() -> None:
    node = {"metadata": {}, "status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}}
    status = {"replicas": 2, "conditions": [{"type": "Available", "status": "True"}]}
    lines = rendered(record(NODES, "n1", node), record(DEPLOYMENTS, "web", {"metadata": {}, "status": status}))
    ready = 'kube_node_status_condition{node="n1",condition="Ready",status='
    assert [line.removeprefix(ready) for line in lines if line.startswith(ready)] == [
        '"true"} 0',
        '"false"} 0',
        '"unknown"} 1',
    ]
    where = 'namespace="ns",deployment="web"'
    assert f"kube_deployment_status_replicas{{{where}}} 2" in lines
    assert f'kube_deployment_status_condition{{{where},condition="Available",status="true"}} 1' in lines


def test_a_quota_tells_what_is_used_of_what() -> None:
    lines = rendered(record(QUOTAS, "q", {"status": {"hard": {"pods": "10"}, "used": {"pods": "3"}}}))
    quota = 'kube_resourcequota{namespace="ns",resourcequota="q",resource="pods",type='
    assert f'{quota}"hard"}} 10.0' in lines
    assert f'{quota}"used"}} 3.0' in lines


def test_an_object_is_read_once_for_each_version() -> None:
    metrics = ClusterMetrics()
    first = metrics.render(Snapshot({PODS: [record(PODS, "a", POD)]}))
    unreadable = Record(Key(*PODS, "ns", "a"), 1, b"never parsed", {}, {})
    assert metrics.render(Snapshot({PODS: [unreadable]})) == first


def test_too_many_pods_show_their_phases_only() -> None:
    lines = rendered(record(PODS, "a", POD), record(PODS, "b", POD), detailed_pods=1)
    assert {line.partition("{")[0] for line in lines if not line.startswith("#")} == {"kube_pod_status_phase"}
