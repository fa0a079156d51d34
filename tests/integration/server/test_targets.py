"""Metrics and their targets for a program that may do nothing else."""

from __future__ import annotations

from pathlib import Path

import yaml

from tests.integration.server.conftest import Caller, Cluster

RULES = Path(__file__).parents[3] / "manifests" / "prometheus-rbac.yaml"
PATHS = {"Namespace": "/api/v1/namespaces", "ServiceAccount": "/api/v1/namespaces/monitoring/serviceaccounts"}
RBAC = "/apis/rbac.authorization.k8s.io/v1"


async def _prometheus(cluster: Cluster) -> Caller:
    """Asks with a token of the service account that manifests/prometheus-rbac.yaml makes."""
    for obj in yaml.safe_load_all(RULES.read_text()):
        path = PATHS.get(obj["kind"], f"{RBAC}/{obj['kind'].lower()}s")
        assert (await cluster.admin.post(path, obj)).status == 201
    made = await cluster.admin.post(f"{PATHS['ServiceAccount']}/prometheus/token", {"spec": {}})
    return Caller(cluster.url, cluster.anonymous.session, made.json["status"]["token"])


async def test_prometheus_reads_targets_and_metrics_and_nothing_else(cluster: Cluster) -> None:
    prometheus = await _prometheus(cluster)
    addresses = [{"type": "InternalIP", "address": "127.0.0.1"}]
    endpoint = {"kubeletEndpoint": {"Port": 1}}
    node = {"metadata": {"name": "n1"}, "status": {"addresses": addresses, "daemonEndpoints": endpoint}}
    await cluster.admin.post("/api/v1/nodes", node)
    [group] = (await prometheus.get("/wherry/v1/targets/nodes")).json
    assert group["targets"] == ["127.0.0.1:1"]
    assert (await prometheus.get("/wherry/v1/targets/pods")).json == []
    assert (await prometheus.get("/wherry/v1/targets/secrets")).status == 404
    assert (await prometheus.ask("POST", "/wherry/v1/targets/nodes", {})).status == 405
    assert (await prometheus.get("/metrics")).status == 200
    assert (await prometheus.get("/api/v1/secrets")).status == 403
    assert (await cluster.anonymous.get("/wherry/v1/targets/nodes")).status == 403


async def test_the_right_to_metrics_opens_no_other_path_of_an_agent(cluster: Cluster) -> None:
    prometheus = await _prometheus(cluster)
    agent = "/api/v1/nodes/n1/proxy"
    assert (await prometheus.get(f"{agent}/metrics")).status == 404  # allowed; there is no such node
    for path in ("/exec/ns/pod/c", "/pods", "/metrics/../pods", "/metrics%2F..%2Fpods", "", "/metricsx"):
        assert (await prometheus.get(agent + path)).status in (400, 403), path
    assert (await prometheus.ask("POST", f"{agent}/metrics", {})).status == 403
    assert (await prometheus.get(f"{agent}/metrics", Upgrade="SPDY/3.1", Connection="Upgrade")).status == 403
