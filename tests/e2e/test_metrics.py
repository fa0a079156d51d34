"""Debian's Prometheus with our configuration: every target is up, and every panel of the dashboard has data.

Grafana cannot be installed everywhere, so its part is played here: the dashboard's JSON is read, its variables are
filled in, and Prometheus is asked each query.
"""

from __future__ import annotations

import json
import math
import ssl
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from deploy.lab import Lab
from tests.cluster import NODES, Cluster, deployment, eventually, free_port, pod

ROOT = Path(__file__).parents[2]
DATA_SECONDS = 90.0
START_SECONDS = 30.0
STOP_SECONDS = 20.0
EXPORTER_PORT = 9155
EXPORTER = f"mkdir /www && echo story_up 1 >/www/metrics && exec httpd -f -p {EXPORTER_PORT} -h /www"
ANNOTATIONS = {"prometheus.io/scrape": "true", "prometheus.io/port": str(EXPORTER_PORT)}
LIMITED = {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"cpu": "20m", "memory": "32Mi"}}
VARIABLES = {"$__rate_interval": "1m", "$node": ".*", "$namespace": ".*"}
NOTHING_IS_FINE = " or vector(0)"
"""With it a panel shows 0 where there is no trouble. The test makes trouble, so it must have data without."""


@dataclass(frozen=True)
class Prometheus:
    url: str
    config: Path
    token: str

    def ask(self, path: str, **params: str) -> Any:
        query = f"?{urllib.parse.urlencode(params)}" if params else ""
        try:
            with urllib.request.urlopen(f"{self.url}{path}{query}", timeout=START_SECONDS) as reply:
                return json.load(reply)["data"]
        except urllib.error.HTTPError as error:
            pytest.fail(f"{params}: {error.read().decode()}")

    def up(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=1):
                return True
        except OSError:
            return False

    def healthy_targets(self) -> Counter[str]:
        """How many targets of each job are up; a job with one that is not counts -1."""
        found: Counter[str] = Counter()
        for target in self.ask("/api/v1/targets", state="active")["activeTargets"]:
            job = target["scrapePool"]
            found[job] = found[job] + 1 if target["health"] == "up" and found[job] >= 0 else -1
        return found

    def complaints(self) -> list[str]:
        targets = self.ask("/api/v1/targets", state="active")["activeTargets"]
        return [f"{one['scrapeUrl']}: {one['lastError']}" for one in targets if one["lastError"]]

    def has_data(self, query: str) -> bool:
        samples = self.ask("/api/v1/query", query=query)["result"]
        return any(not math.isnan(float(sample["value"][1])) for sample in samples)


def configured(lab: Lab, directory: Path, token: str) -> Path:
    """The configuration for this lab, changed in the three places that it says itself; and scraping quickly."""
    (directory / "token").write_text(token)
    text = (ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text()
    for default, here in (
        ("/var/lib/wherry/pki/ca.crt", str(lab.directory / "controller" / "pki" / "ca.crt")),
        ("/var/lib/wherry/prometheus.token", str(directory / "token")),
        ("127.0.0.1:6443", lab.server.removeprefix("https://")),
        ("_interval: 15s", "_interval: 2s"),
        ("scrape_timeout: 10s", "scrape_timeout: 2s"),
    ):
        assert default in text
        text = text.replace(default, here)
    config = directory / "prometheus.yml"
    config.write_text(text)
    return config


@pytest.fixture
def prometheus(cluster: Cluster, tmp_path: Path) -> Iterator[Prometheus]:
    cluster.wherry("apply", "-f", str(ROOT / "manifests" / "prometheus-rbac.yaml"))
    token = cluster.wherry("token", "create", "--service-account", "monitoring/prometheus", "--ttl", "1h").stdout
    server = Prometheus(f"http://127.0.0.1:{free_port()}", configured(cluster.lab, tmp_path, token), token.strip())
    argv = ["/usr/bin/prometheus", f"--config.file={server.config}", f"--storage.tsdb.path={tmp_path}/data"]
    argv += [f"--web.listen-address={server.url.removeprefix('http://')}", "--log.level=warn"]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(argv, stdout=log, stderr=log, cwd=tmp_path)
    try:
        eventually(server.up, START_SECONDS, "Prometheus answers")
        yield server
        print("targets that were down:", server.complaints())
    finally:
        process.terminate()
        process.wait(STOP_SECONDS)
        print((tmp_path / "log").read_text()[-2000:])


def make_trouble(cluster: Cluster) -> None:
    """Load, a crash loop, a pod that fits nowhere, a quota, and a pod with metrics of its own."""
    exporter = pod("exporter", EXPORTER, hostNetwork=True)
    exporter["metadata"]["annotations"] = ANNOTATIONS
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"}, "spec": {"hard": {"pods": "20"}}}
    cluster.apply(
        quota,
        exporter,
        deployment("busy", 2, "while :; do :; done", resources=LIMITED),
        deployment("hungry", 1, resources={"requests": {"cpu": "1000"}}),
        pod("crash", "exit 1"),
        pod("nowhere", container={"image": "localhost/no-such-image:1"}),
    )


def queries() -> Iterator[tuple[str, str]]:
    """(panel and target, query) of the dashboard, its variables filled in."""
    dashboard = json.loads((ROOT / "deploy" / "grafana" / "wherry.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            query = target["expr"].replace(NOTHING_IS_FINE, "")
            for name, text in VARIABLES.items():
                query = query.replace(name, text)
            assert "$" not in query, query
            yield f"{panel['title']} {target['refId']}", query


def test_every_target_is_up_and_every_panel_has_data(cluster: Cluster, prometheus: Prometheus) -> None:
    wanted = {"apiserver": 1, "kubelet": NODES, "cadvisor": NODES}
    eventually(lambda: prometheus.healthy_targets() == wanted, START_SECONDS, f"targets are up: {wanted}")
    make_trouble(cluster)
    eventually(lambda: prometheus.healthy_targets() == {**wanted, "pods": 1}, DATA_SECONDS, "the exporter is scraped")
    assert prometheus.has_data(f'story_up{{job="pods",namespace="{cluster.namespace}",pod="exporter"}} == 1')

    open_queries = dict(queries())
    assert len(open_queries) > 80

    def all_answered() -> bool:
        for panel, query in list(open_queries.items()):
            if prometheus.has_data(query):
                del open_queries[panel]
        return not open_queries

    try:
        eventually(all_answered, DATA_SECONDS, "every panel has data")
    finally:
        assert not open_queries, open_queries


def test_prometheus_own_tool_finds_configuration_and_expositions_well_formed(
    cluster: Cluster, prometheus: Prometheus
) -> None:
    checked = cluster.run("/usr/bin/promtool", "check", "config", str(prometheus.config))
    assert "SUCCESS" in checked.stdout
    context = ssl.create_default_context(cafile=str(cluster.lab.directory / "controller" / "pki" / "ca.crt"))
    agent = f"/api/v1/nodes/{cluster.lab.state.nodes[0]}/proxy"
    for path in ("/metrics", f"{agent}/metrics", f"{agent}/metrics/cadvisor", f"{agent}/metrics/resource"):
        headers = {"Authorization": f"Bearer {prometheus.token}"}
        request = urllib.request.Request(cluster.lab.server + path, headers=headers)
        with urllib.request.urlopen(request, context=context, timeout=START_SECONDS) as reply:
            text = reply.read().decode()
        assert text.startswith("# HELP")
        checked = cluster.run("/usr/bin/promtool", "check", "metrics", stdin=text, check=False)
        assert checked.returncode in (0, 3), f"{path}: {checked.stderr}"  # 3: remarks on Kubernetes' own names
        assert "error while linting" not in checked.stderr
