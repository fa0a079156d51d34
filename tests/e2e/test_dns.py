"""Names as pods see them: services, pods behind headless services, aliases, the outside; with the agent dead, too."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dns.reversename import from_address

from agent.network.dns.process import find_processes
from agent.runtime.containerd import containerd_paths
from deploy.lab import Lab
from tests.cluster import Cluster, eventually, pod
from tests.e2e.lab_scene import lab_up
from tests.integration.dns.scene import Scene, Upstream, address_answer

UPSTREAM, OUTSIDE = "192.0.2.53", "198.51.100.9"
SEARCH = "default.svc.cluster.local svc.cluster.local cluster.local corp.example"
NAMES_SECONDS = 10.0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two nodes whose resolv.conf names a server that exists on each of them, in a lab of their own."""
    directory = tmp_path_factory.mktemp("dns")
    resolv = directory / "resolv.conf"
    resolv.write_text(f"nameserver {UPSTREAM}\nsearch corp.example\n")
    lab = lab_up(directory / "lab", 2, "d", agent_flags=["--resolv-conf", str(resolv)])
    servers = [Upstream(_scene(lab, node), UPSTREAM, address_answer(OUTSIDE)) for node in lab.state.nodes]
    try:
        made = Cluster(lab)
        made.ready(
            pod("first", nodeName=lab.state.nodes[0]),
            pod("second", nodeName=lab.state.nodes[1], hostname="second", subdomain="pets"),
        )
        yield made
    finally:
        for server in servers:
            server.close()
        lab.down()


def _scene(lab: Lab, node: str) -> Scene:
    return Scene(lab.directory, f"wherry-{node}")


def _node_id(lab: Lab, node: str) -> str:
    return containerd_paths(lab.node_dir(node)).node_id


def service(name: str, **spec: object) -> dict[str, object]:
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}


def lookup(cluster: Cluster, name: str, kind: str = "a", source: str = "first") -> str:
    """What busybox's nslookup prints in a pod."""
    done = cluster.run(*cluster.kubectl_command("exec", source, "--", "nslookup", f"-type={kind}", name), check=False)
    return done.stdout


def knows(cluster: Cluster, name: str, wanted: str, kind: str = "a", source: str = "first") -> None:
    eventually(
        lambda: wanted in lookup(cluster, name, kind, source).partition("\n\n")[2], NAMES_SECONDS, f"{name}: {wanted}"
    )


def test_pods_find_services_each_other_and_the_outside(cluster: Cluster) -> None:
    port = {"name": "http", "port": 80}
    cluster.apply(
        service("web", clusterIP="10.96.7.7", ports=[port]),
        service("pets", clusterIP="None", selector={"app": "second"}, ports=[port]),
        service("away", type="ExternalName", externalName="www.example.com"),
    )
    ip = cluster.get("pod", "second")["status"]["podIP"]
    for source in ("first", "second"):
        knows(cluster, "web.default.svc.cluster.local", "10.96.7.7", source=source)
    knows(cluster, "pets.default.svc.cluster.local", ip)
    knows(cluster, "second.pets.default.svc.cluster.local", ip)
    knows(cluster, "_http._tcp.pets.default.svc.cluster.local", "second.pets.default.svc.cluster.local", "srv")
    knows(cluster, "7.7.96.10.in-addr.arpa", "web.default.svc.cluster.local", "ptr")
    knows(cluster, str(from_address(ip)), "second.pets.default.svc.cluster.local", "ptr")
    knows(cluster, "kubernetes.default.svc.cluster.local", "10.96.0.1")
    knows(cluster, f"{ip.replace('.', '-')}.default.pod.cluster.local", ip)
    knows(cluster, "www.example.com", OUTSIDE)
    knows(cluster, "away.default.svc.cluster.local", OUTSIDE)
    assert "NXDOMAIN" in lookup(cluster, "no.default.svc.cluster.local")
    cluster.kubectl("delete", "service", "web")
    eventually(lambda: "10.96.7.7" not in lookup(cluster, "web.default.svc.cluster.local"), 5, "the name went")


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ({}, f"search {SEARCH}\nnameserver 10.96.0.10\noptions ndots:5"),
        ({"hostNetwork": True}, f"search corp.example\nnameserver {UPSTREAM}"),
        (
            {"hostNetwork": True, "dnsPolicy": "ClusterFirstWithHostNet"},
            f"search {SEARCH}\nnameserver 10.96.0.10\noptions ndots:5",
        ),
        ({"dnsPolicy": "Default"}, f"search corp.example\nnameserver {UPSTREAM}"),
        ({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["192.0.2.9"]}}, "nameserver 192.0.2.9"),
    ],
)
def test_resolv_conf_follows_the_pods_policy(cluster: Cluster, policy: dict[str, Any], expected: str) -> None:
    name = f"resolv-{len(json.dumps(policy))}"
    cluster.ready(pod(name, nodeName=cluster.lab.state.nodes[0], **policy))
    shown = cluster.kubectl("exec", name, "--", "cat", "/etc/resolv.conf")
    assert sorted(shown.split("\n")) == sorted(f"{expected}\n".split("\n"))
    if "10.96.0.10" in expected:
        knows(cluster, "kubernetes.default.svc.cluster.local", "10.96.0.1", source=name)
    cluster.kubectl("delete", "pod", name, "--now")


def test_names_outlive_the_agent_and_end_with_the_node(cluster: Cluster) -> None:
    lab, node = cluster.lab, cluster.lab.state.nodes[0]
    inside = _scene(lab, node)
    (pid,) = find_processes(_node_id(lab, node))
    lab.kill_agent(node)
    assert inside.addresses("kubernetes.default.svc.cluster.local") == ["10.96.0.1"]
    cluster.apply(service("later", clusterIP="10.96.7.8", ports=[{"port": 80}]))
    lab.revive(node)
    inside.until(lambda: inside.addresses("later.default.svc.cluster.local") == ["10.96.7.8"], "the agent feeds it")
    assert find_processes(_node_id(lab, node)) == [pid]
    text = cluster.run(
        *cluster.kubectl_command("get", "--raw", f"/api/v1/nodes/{node}/proxy/metrics"), check=False
    ).stdout
    assert 'wherry_dns_responses_total{rcode="NOERROR"}' in text
    lab.kill(node)
    assert find_processes(_node_id(lab, node)) == []


def test_down_leaves_nothing(cluster: Cluster, tmp_path: Path) -> None:
    ids = [_node_id(cluster.lab, node) for node in cluster.lab.state.nodes]
    cluster.lab.down()
    assert [find_processes(each) for each in ids] == [[], []]
    assert not any(Path("/run/wherry", each).exists() for each in ids)
