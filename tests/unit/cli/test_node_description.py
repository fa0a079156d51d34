"""A node is described by what it has, what is promised of it and what is used."""

from __future__ import annotations

from typing import Any

from cli.node_description import promised, render_node


def pod(name: str, phase: str = "Running", **resources: Any) -> dict[str, Any]:
    container = {"name": "c", "image": "x", "resources": resources}
    metadata = {"name": name, "namespace": "shop", "uid": name}
    return {"metadata": metadata, "spec": {"containers": [container]}, "status": {"phase": phase}}


def test_capacity_requests_limits_usage_and_pods_are_shown() -> None:
    status = {
        "capacity": {"cpu": "2", "memory": "4Gi", "pods": "110"},
        "allocatable": {"cpu": "2", "memory": "4Gi", "pods": "110"},
        "addresses": [{"type": "InternalIP", "address": "192.0.2.1"}],
        "nodeInfo": {"containerRuntimeVersion": "containerd://1.6"},
    }
    pods = [
        pod("web", requests={"cpu": "500m", "memory": "1Gi"}, limits={"cpu": "1", "memory": "1Gi"}),
        pod("idle", limits={"memory": "512Mi"}),
        pod("ended", phase="Succeeded", requests={"cpu": "2"}),
    ]
    told = render_node({"status": status}, pods, {"cpu": "250m", "memory": "700Mi"})
    lines = [" ".join(line.split()) for line in told.splitlines()]
    assert "Addresses: 192.0.2.1 (InternalIP)" in lines
    assert "cpu 2 2 500m (25%) 1 (50%) 250m" in lines
    assert "memory 4Gi 4Gi 1.5Gi (37%) 1.5Gi (37%) 700Mi" in lines
    assert "pods 110 110 2 (1%)" in lines
    assert "Pods: 2" in lines
    assert any(line.startswith("shop web 500m 1 1Gi 1Gi") for line in lines)
    assert "ended" not in told


def test_a_node_without_pods_or_metrics_is_described_all_the_same() -> None:
    told = render_node({"status": {"capacity": {"cpu": "1"}}}, [], None)
    assert "Pods: none" in told
    assert promised([], "limits") == {}
