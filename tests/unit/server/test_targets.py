"""What Prometheus is told to scrape."""

from __future__ import annotations

from typing import Any

import orjson

from controller.server.targets import node_groups, pod_groups
from controller.store.types import Key, Record


def record(plural: str, obj: dict[str, Any]) -> Record:
    about = obj["metadata"]
    key = Key("", plural, about.get("namespace", ""), about["name"])
    phase = (obj.get("status") or {}).get("phase")
    return Record(key, 1, orjson.dumps(obj), {}, {"status.phase": phase} if phase else {})


def pod(name: str, scrape: str = "true", phase: str = "Running", ports: tuple[int, ...] = ()) -> Record:
    container = {"name": "c", "ports": [{"containerPort": port, "name": f"p{port}"} for port in ports]}
    annotations = {"prometheus.io/scrape": scrape, "prometheus.io/path": "/m"}
    about = {"namespace": "ns", "name": name, "uid": "u", "labels": {"app.k8s.io/x": "y"}, "annotations": annotations}
    status = {"phase": phase, "podIP": "10.1.0.7", "conditions": [{"type": "Ready", "status": "True"}]}
    return record("pods", {"metadata": about, "spec": {"nodeName": "n1", "containers": [container]}, "status": status})


def test_a_node_is_its_agent_and_one_without_address_is_no_target() -> None:
    status = {
        "addresses": [{"type": "Hostname", "address": "n1"}, {"type": "InternalIP", "address": "fd00::1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": 10251}},
    }
    found = record("nodes", {"metadata": {"name": "n1", "labels": {"zone": "a"}}, "status": status})
    [group] = node_groups([found, record("nodes", {"metadata": {"name": "n2"}})])
    assert group["targets"] == ["[fd00::1]:10251"]
    assert group["labels"] == {
        "instance": "n1",
        "__meta_kubernetes_node_name": "n1",
        "__meta_kubernetes_node_address_Hostname": "n1",
        "__meta_kubernetes_node_address_InternalIP": "fd00::1",
        "__meta_kubernetes_node_label_zone": "a",
        "__meta_kubernetes_node_labelpresent_zone": "true",
    }


def test_each_port_of_an_annotated_pod_is_a_target() -> None:
    first, second = pod_groups([pod("a", ports=(80, 81))])
    assert (first["targets"], second["targets"]) == (["10.1.0.7:80"], ["10.1.0.7:81"])
    labels = second["labels"]
    assert labels["__meta_kubernetes_pod_container_port_name"] == "p81"
    assert labels["__meta_kubernetes_pod_annotation_prometheus_io_path"] == "/m"
    assert labels["__meta_kubernetes_pod_label_app_k8s_io_x"] == "y"
    assert labels["__meta_kubernetes_pod_node_name"] == "n1"
    assert labels["__meta_kubernetes_pod_ready"] == "true"


def test_a_pod_without_ports_is_a_target_without_port() -> None:
    [group] = pod_groups([pod("a")])
    assert group["targets"] == ["10.1.0.7"]


def test_pods_that_do_not_ask_or_do_not_run_are_no_targets() -> None:
    assert list(pod_groups([pod("no", scrape="false"), pod("done", phase="Succeeded", ports=(80,))])) == []
