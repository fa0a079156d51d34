"""Unmodified kubectl 1.35 with StatefulSets: roll out, look back, undo, restart, scale, leave behind, take over."""

from __future__ import annotations

from typing import Any

from tests.cluster import Cluster, deployment, eventually


def stateful_set(replicas: int, **spec: Any) -> dict[str, Any]:
    whole = deployment("db", replicas)
    return {**whole, "kind": "StatefulSet", "spec": {**whole["spec"], "serviceName": "db", **spec}}


def rolled_out(cluster: Cluster, what: str) -> str:
    return cluster.kubectl("rollout", "status", what, "--timeout=60s")


def uids(cluster: Cluster) -> dict[str, str]:
    return {each["metadata"]["name"]: each["metadata"]["uid"] for each in cluster.running("app=db")}


def test_stateful_sets_roll_out_look_back_and_undo(cluster: Cluster) -> None:
    cluster.apply(stateful_set(2))
    assert "roll out complete" in rolled_out(cluster, "sts/db")
    before = uids(cluster)
    cluster.kubectl("set", "env", "sts/db", "VERSION=2")
    assert "2 new pods have been updated" in rolled_out(cluster, "sts/db")
    assert uids(cluster).keys() == before.keys() == {"db-0", "db-1"} and uids(cluster) != before
    assert "VERSION:\t2" in cluster.kubectl("rollout", "history", "sts/db", "--revision=2")
    assert "rolled back" in cluster.kubectl("rollout", "undo", "sts/db")
    rolled_out(cluster, "sts/db")
    assert "env" not in cluster.get("pod", "db-0")["spec"]["containers"][0]
    history = cluster.kubectl("rollout", "history", "sts/db").split("CHANGE-CAUSE\n")[1]
    assert [line.split()[0] for line in history.splitlines() if line.strip()] == ["2", "3"]
    assert "statefulset.apps/db restarted" in cluster.kubectl("rollout", "restart", "sts/db")
    rolled_out(cluster, "sts/db")
    assert "pausing is not supported" in cluster.refused("rollout", "pause", "sts/db")


def test_a_stateful_set_is_scaled_left_behind_and_taken_over(cluster: Cluster) -> None:
    cluster.apply(stateful_set(3, podManagementPolicy="Parallel"))
    rolled_out(cluster, "sts/db")
    assert cluster.kubectl("scale", "sts/db", "--replicas=2") == "statefulset.apps/db scaled\n"
    eventually(lambda: uids(cluster).keys() == {"db-0", "db-1"}, 20, "the last pod is gone")
    eventually(lambda: "2/2" in cluster.kubectl("get", "sts"), 20, "two of two pods are ready")
    before = uids(cluster)
    cluster.kubectl("delete", "sts", "db", "--cascade=orphan")
    assert uids(cluster) == before
    cluster.apply(stateful_set(2, podManagementPolicy="Parallel"))
    rolled_out(cluster, "sts/db")
    assert uids(cluster) == before
    cluster.kubectl("delete", "sts", "db", "--cascade=foreground")
    assert cluster.get("pods,controllerrevisions")["items"] == []
