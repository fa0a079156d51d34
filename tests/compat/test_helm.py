"""Unmodified Helm 4.1 manages a release of the chart in charts/hello."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cluster import Cluster, eventually
from tests.images import BUSYBOX

CHART = str(Path(__file__).parents[2] / "charts" / "hello")
PATIENCE = ("--wait", "--timeout", "60s")
PODS = "app.kubernetes.io/instance=site"


def test_a_release_is_installed_upgraded_rolled_back_and_uninstalled(cluster: Cluster) -> None:
    image = ("--set", f"image={BUSYBOX}")
    assert "STATUS: deployed" in cluster.helm("install", "site", CHART, *image, *PATIENCE)
    assert len(cluster.running(PODS)) == 1
    cluster.helm("upgrade", "site", CHART, *image, "--set", "replicas=2", *PATIENCE)
    assert len(cluster.running(PODS)) == 2
    history = json.loads(cluster.helm("history", "site", "-o", "json"))
    assert [(entry["revision"], entry["status"]) for entry in history] == [(1, "superseded"), (2, "deployed")]
    cluster.helm("rollback", "site", "1", *PATIENCE)
    eventually(lambda: len(cluster.running(PODS)) == 1, 20, "the second replica is gone")
    (listed,) = json.loads(cluster.helm("list", "-o", "json"))
    assert (listed["name"], listed["revision"], listed["status"]) == ("site", "3", "deployed")
    assert "deployment.apps/site" in cluster.helm("get", "manifest", "site") or "kind: Deployment" in cluster.helm(
        "get", "manifest", "site"
    )
    assert json.loads(cluster.helm("status", "site", "-o", "json"))["info"]["status"] == "deployed"
    cluster.helm("uninstall", "site", *PATIENCE)
    eventually(lambda: not cluster.get("deployments,pods", "-l", PODS)["items"], 20, "the release's objects are gone")
    assert cluster.get("secrets", "-l", "owner=helm")["items"] == []


def test_a_failed_upgrade_is_told_and_the_old_release_serves_on(cluster: Cluster) -> None:
    cluster.helm("install", "site", CHART, "--set", f"image={BUSYBOX}", *PATIENCE)
    bad = ("upgrade", "site", CHART, "--set", "image=localhost/missing:1", "--wait", "--timeout", "3s")
    failed = cluster.run(*cluster.helm_command(*bad), check=False)
    assert failed.returncode != 0
    history = json.loads(cluster.helm("history", "site", "-o", "json"))
    assert [entry["status"] for entry in history] == ["deployed", "failed"]
    assert len(cluster.running(PODS)) == 1
    cluster.helm("rollback", "site", *PATIENCE)
    assert json.loads(cluster.helm("status", "site", "-o", "json"))["info"]["status"] == "deployed"
