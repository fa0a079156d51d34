"""Paths: what a request is about, and who answers it."""

from __future__ import annotations

import pytest

from controller.server import routes
from controller.server.target import Target, parse_target, verb_of


def read(path: str) -> tuple[str, str, str, str, str]:
    target = parse_target(path)
    assert target is not None
    return target.group, target.resource, target.namespace, target.name, target.subresource


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/api/v1/pods", ("", "pods", "", "", "")),
        ("/api/v1/namespaces", ("", "namespaces", "", "", "")),
        ("/api/v1/namespaces/a", ("", "namespaces", "a", "a", "")),
        ("/api/v1/namespaces/a/status", ("", "namespaces", "a", "a", "status")),
        ("/api/v1/namespaces/a/finalize", ("", "namespaces", "a", "a", "finalize")),
        ("/api/v1/namespaces/a/pods", ("", "pods", "a", "", "")),
        ("/api/v1/namespaces/a/pods/", ("", "pods", "a", "", "")),
        ("/api/v1/namespaces/a/pods/p", ("", "pods", "a", "p", "")),
        ("/api/v1/namespaces/a/pods/p/log", ("", "pods", "a", "p", "log")),
        ("/apis/apps/v1/namespaces/a/deployments/d/scale", ("apps", "deployments", "a", "d", "scale")),
        ("/api/v1/nodes/n/proxy/metrics/cadvisor", ("", "nodes", "", "n", "proxy")),
        ("/api/v1/watch/namespaces/a/pods", ("", "pods", "a", "", "")),
        ("/api/v1/namespaces/a/configmaps/x%2Fy", ("", "configmaps", "a", "x/y", "")),
    ],
)
def test_a_path_is_read_as_kubernetes_reads_it(path: str, expected: tuple[str, ...]) -> None:
    assert read(path) == expected


@pytest.mark.parametrize(
    "path", ["/", "/api", "/api/v1", "/apis", "/apis/apps", "/apis/apps/v1", "/version", "/metrics"]
)
def test_other_paths_are_no_resource(path: str) -> None:
    assert parse_target(path) is None


def test_a_proxied_path_keeps_its_rest() -> None:
    target = parse_target("/api/v1/nodes/n/proxy/metrics/cadvisor")
    assert target is not None and target.rest == "/metrics/cadvisor"


@pytest.mark.parametrize(
    ("method", "path", "verb", "served"),
    [
        ("GET", "/api/v1/namespaces/a/pods/p", "get", True),
        ("HEAD", "/api/v1/namespaces/a/pods/p", "get", True),
        ("GET", "/api/v1/pods", "list", True),
        ("POST", "/api/v1/namespaces/a/pods", "create", True),
        ("PUT", "/api/v1/namespaces/a/pods/p/status", "update", True),
        ("DELETE", "/api/v1/namespaces/a/pods", "deletecollection", True),
        ("DELETE", "/api/v1/namespaces", "deletecollection", False),
        ("POST", "/api/v1/namespaces/a/pods/p", "create", False),
        ("POST", "/api/v1/pods", "create", False),
        ("DELETE", "/api/v1/pods", "deletecollection", False),
        ("PUT", "/api/v1/namespaces/a/pods", "update", False),
        ("GET", "/api/v1/namespaces/a/pods/p/nonsense", "get", False),
        ("GET", "/api/v1/namespaces/a/pods/p/log/more", "get", False),
        ("GET", "/api/v1/namespaces/a/nodes/n", "get", False),
        ("GET", "/api/v1/pods/p", "get", False),
        ("POST", "/api/v1/namespaces/a/pods/p/binding", "create", True),
        ("GET", "/api/v1/namespaces/a/pods/p/binding", "get", False),
        ("POST", "/apis/authentication.k8s.io/v1/tokenreviews", "create", True),
        ("GET", "/apis/authentication.k8s.io/v1/tokenreviews", "list", False),
    ],
)
def test_only_what_discovery_shows_is_answered(method: str, path: str, verb: str, served: bool) -> None:
    target = parse_target(path)
    assert isinstance(target, Target)
    assert verb_of(method, target) == verb
    assert (routes.find(target, verb) is not None) is served
