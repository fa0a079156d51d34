"""Ingress on three nodes: TLS and hosts from outside, and no lost request while pods roll, shrink and are drained.

Nor is one lost by clients in a pod that use the Service itself.
"""

from __future__ import annotations

import base64
import http.client
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.cluster import Cluster, eventually
from tests.e2e.looping import looping
from tests.e2e.service_lab import prober, python_pod
from tests.images import BUSYBOX
from tests.integration.ingress.scene import path, rule, tls_secret

PORT = 80


def deployment(replicas: int, page: str) -> dict[str, Any]:
    """A web server with a readiness probe and a preStop hook, as the README tells people to write them."""
    serve = "mkdir -p /w && echo $PAGE > /w/index.html && exec httpd -f -p 8080 -h /w"
    container = {
        "name": "web",
        "image": BUSYBOX,
        "command": ["sh", "-c", serve],
        "env": [{"name": "PAGE", "value": page}],
        "ports": [{"name": "web", "containerPort": 8080}],
        "readinessProbe": {"httpGet": {"path": "/", "port": "web"}, "periodSeconds": 1},
        "lifecycle": {"preStop": {"exec": {"command": ["sleep", "2"]}}},
    }
    spread = {"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway"}
    pod = {
        "terminationGracePeriodSeconds": 5,
        "containers": [container],
        "topologySpreadConstraints": [{**spread, "labelSelector": {"matchLabels": {"app": "web"}}}],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web"},
        "spec": {
            "replicas": replicas,
            "strategy": {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": pod},
        },
    }


SERVICE = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "web"},
    "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": "web"}]},
}


def ingress(host: str, **spec: Any) -> dict[str, Any]:
    metadata = {"name": "web"}
    given = {"rules": [rule(host, path("/"))], **spec}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": metadata, "spec": given}


def fetch(address: str, host: str) -> tuple[int, str]:
    """Status and page; 0 while nobody listens."""
    connection = http.client.HTTPConnection(address, PORT, timeout=10)
    try:
        connection.request("GET", "/", headers={"Host": host})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    except OSError as error:
        return 0, str(error)
    finally:
        connection.close()


@contextmanager
def hammered(address: str, host: str) -> Iterator[list[str]]:
    """Two strict clients, one with new connections and one that keeps its own; at the end, no request has failed."""
    answers: list[str] = []
    failures: list[str] = []
    ended = threading.Event()

    def hammer(*, keep: bool) -> None:
        connection = http.client.HTTPConnection(address, PORT, timeout=10)
        while not ended.is_set():
            try:
                connection.request("GET", "/", headers={"Host": host})
                answer = connection.getresponse()
                text = answer.read().decode().strip()
                (answers if answer.status == 200 else failures).append(text)
            except (OSError, http.client.HTTPException) as error:
                failures.append(repr(error))
                connection.close()
            if not keep:
                connection.close()

    threads = [threading.Thread(target=hammer, kwargs={"keep": keep}) for keep in (True, False)]
    for thread in threads:
        thread.start()
    try:
        yield answers
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    assert failures == []
    assert len(answers) > 100


@pytest.fixture
def address(cluster: Cluster) -> Iterator[str]:
    """The first node serves Ingresses for this test."""
    node = cluster.lab.state.nodes[0]
    cluster.kubectl("label", "node", node, "wherry/ingress=true")
    addresses = cluster.get("node", node)["status"]["addresses"]
    yield next(each["address"] for each in addresses if each["type"] == "InternalIP")
    cluster.kubectl("label", "node", node, "wherry/ingress-")


def test_no_request_is_lost_while_pods_roll_shrink_and_are_drained(cluster: Cluster, address: str) -> None:
    host = f"{cluster.namespace}.test"
    cluster.apply(deployment(3, "one"), SERVICE, ingress(host))
    cluster.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    eventually(lambda: fetch(address, host) == (200, "one\n"), 20, "the page is served")
    asker = python_pod("asker", "serve", "asker", nodeName=cluster.lab.state.nodes[0])
    cluster.ready(asker)
    loop = {"url": ["web", 80, "web"], "fresh": 2, "kept": 0, "seconds": 10.0}
    command = cluster.kubectl_command("exec", "-i", "asker", "--", *prober("loop", json.dumps(loop)))
    with looping(command, cluster.environment) as inside, hammered(address, host) as answers:
        cluster.apply(deployment(3, "two"))
        cluster.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
        cluster.kubectl("scale", "deployment/web", "--replicas=2")
        eventually(lambda: len(cluster.get("pods", "-l", "app=web")["items"]) == 2, 20, "one pod is gone")
        node = cluster.running("app=web")[0]["spec"]["nodeName"]
        try:
            cluster.kubectl("drain", node, "--ignore-daemonsets", "--force", "--pod-selector=app=web", "--timeout=60s")
        finally:
            cluster.kubectl("uncordon", node)
        time.sleep(1.0)
    print(
        f"{len(answers)} answers of the ingress, {inside.count} of the service, the slowest in {inside.slowest:.2f} s"
    )
    assert inside.failures == []
    assert {"one", "two"} == set(inside.answers)
    assert {"one", "two"} == set(answers)
    assert set(answers[-20:]) == {"two"}


def test_an_ingress_shows_its_address_and_a_certificate_that_only_the_labelled_node_may_read(
    cluster: Cluster, address: str
) -> None:
    host = f"{cluster.namespace}.test"
    secret = {"apiVersion": "v1", "kind": "Secret", **tls_secret("cert", "shown", host)}
    tls = [{"hosts": [host], "secretName": "cert"}]
    cluster.apply(secret, SERVICE, deployment(1, "page"), ingress(host, tls=tls, ingressClassName="wherry"))
    eventually(lambda: fetch(address, host) == (200, "page\n"), 30, "the page is served")
    shown = cluster.get("ingress/web")["status"]["loadBalancer"]["ingress"]
    assert shown == [{"ip": address}]
    pem = cluster.lab.directory / f"{cluster.namespace}.pem"
    pem.write_bytes(base64.b64decode(secret["data"]["tls.crt"]))
    curl = ("curl", "-s", "--cacert", str(pem), "--resolve", f"{host}:443:{address}", f"https://{host}/")
    assert cluster.run(*curl).stdout == "page\n"


def test_a_load_balancer_on_the_nodes_addresses_leaves_them_their_own_ports(cluster: Cluster) -> None:
    """It stays pending and says why, while one with another port has its addresses."""
    ports = {"ssh": 22, "later": 31999, "fine": 8085}
    spec = {"type": "LoadBalancer", "selector": {"app": "none"}}
    for name, port in ports.items():
        cluster.apply({**SERVICE, "metadata": {"name": name}, "spec": {**spec, "ports": [{"port": port}]}})

    def shown() -> dict[str, bool]:
        return {
            each["metadata"]["name"]: bool(each["status"]["loadBalancer"]) for each in cluster.get("services")["items"]
        }

    eventually(lambda: shown() == {name: name == "fine" for name in ports}, 20, "who has addresses")
    told = {
        "ssh": "port 22/TCP of the nodes is held by SSH",
        "later": "port 31999/TCP is in the range of node ports, 30000-32767",
    }
    for name, why in told.items():
        eventually(lambda name=name, why=why: why in cluster.kubectl("describe", "service", name), 20, why)  # type: ignore[misc]
