"""A namespace with a DNS part that knows a few services, for each test."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.dns.scene import Scene, opened_scene

_numbers = itertools.count(1)


def a_service(name: str, *ips: str, namespace: str = "default", **spec: Any) -> dict[str, Any]:
    given = {"type": "ClusterIP", "clusterIPs": list(ips), "clusterIP": ips[0] if ips else ""}
    return {"metadata": {"namespace": namespace, "name": name}, "spec": {**given, **spec}}


def a_slice(service: str, *addresses: str, namespace: str = "default", port: int = 8080) -> dict[str, Any]:
    return {
        "metadata": {"namespace": namespace, "name": f"{service}-1", "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": port}],
        "endpoints": [{"addresses": [each]} for each in addresses],
    }


@pytest.fixture
def empty_scene(tmp_path: Path) -> Iterator[Scene]:
    with opened_scene(tmp_path, f"dn{os.getpid()}-{next(_numbers)}") as scene:
        yield scene


@pytest.fixture
def scene(empty_scene: Scene) -> Scene:
    """The part runs, is fed, and answers for web.default and headless.default."""
    empty_scene.start_agent()
    feed(empty_scene)
    empty_scene.until(lambda: empty_scene.addresses("web.default.svc.cluster.local") == ["10.96.0.80"], "it answers")
    return empty_scene


def feed(scene: Scene) -> None:
    """Tell the scene's agent what there is."""
    services = [a_service("web", "10.96.0.80"), a_service("headless", "None")]
    scene.tell(set={"namespaces": [{"metadata": {"name": "default"}}], "services": services})
    scene.tell(set={"slices": [a_slice("headless", "10.244.0.5", "10.244.0.6")]})
    scene.tell(sync=1)
