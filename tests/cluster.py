"""A cluster of three nodes for the stories: deploy/lab.py, the busybox image loaded, kubectl and wherry at hand.

One for the whole session, shared by tests/compat and tests/e2e; each test works in a namespace of its own. All of it is
removed at the end, also after a failure.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from deploy.lab import Lab
from tests.images import BUSYBOX, write_busybox_image

NODES = 3
COMMAND_SECONDS = 90
CLIENTS = Path(__file__).parent.parent / ".cache" / "bin"
_namespaces = itertools.count(1)


@dataclass(frozen=True)
class Cluster:
    """kubectl and wherry in one namespace of the lab. `run` raises with the command's words when it fails."""

    lab: Lab
    namespace: str = "default"

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "KUBECONFIG": str(self.lab.kubeconfig), "HOME": str(self.lab.directory)}

    def run(self, *argv: str, stdin: str | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            argv,
            input=stdin,
            capture_output=True,
            text=True,
            env=self.environment,
            timeout=COMMAND_SECONDS,
            check=False,
        )
        if check and done.returncode:
            raise AssertionError(f"{' '.join(argv)} ended with {done.returncode}: {done.stderr}{done.stdout}")
        return done

    def kubectl(self, *argv: str, stdin: str | None = None) -> str:
        return self.run(str(CLIENTS / "kubectl"), "-n", self.namespace, *argv, stdin=stdin).stdout

    def refused(self, *argv: str, stdin: str | None = None) -> str:
        """What kubectl says when it has to fail."""
        done = self.run(str(CLIENTS / "kubectl"), "-n", self.namespace, *argv, stdin=stdin, check=False)
        assert done.returncode != 0, f"kubectl {' '.join(argv)} should fail: {done.stdout}"
        return done.stderr

    def helm(self, *argv: str) -> str:
        return self.run(str(CLIENTS / "helm"), "-n", self.namespace, *argv).stdout

    def wherry(self, *argv: str, stdin: str | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "cli.main", "--kubeconfig", str(self.lab.kubeconfig), "-n", self.namespace]
        return self.run(*command, *argv, stdin=stdin, check=check)

    def get(self, *argv: str) -> Any:
        return json.loads(self.kubectl("get", *argv, "-o", "json"))

    def apply(self, *objects: Any) -> None:
        listed = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        self.kubectl("apply", "-f", "-", stdin=json.dumps(listed))

    def running(self, selector: str) -> list[Any]:
        """Pods that run and are not being deleted."""
        return [
            pod
            for pod in self.get("pods", "-l", selector)["items"]
            if pod["status"].get("phase") == "Running" and "deletionTimestamp" not in pod["metadata"]
        ]


def eventually(holds: Callable[[], Any], seconds: float, what: str) -> Any:
    """The first true value of `holds()`; fails after the deadline, saying what was awaited."""
    deadline = time.monotonic() + seconds
    while not (value := holds()):
        if time.monotonic() > deadline:
            pytest.fail(f"not within {seconds} s: {what}")
        time.sleep(0.05)
    return value


def deployment(name: str, replicas: int, command: str = "sleep infinity", **container: Any) -> dict[str, Any]:
    """A Deployment of busybox pods labelled app=NAME, with pods that stop at once."""
    spec = {"name": "c", "image": BUSYBOX, "command": ["sh", "-c", command], **container}
    template = {
        "metadata": {"labels": {"app": name}},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [spec]},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": template},
    }


def pod(name: str, command: str = "sleep infinity", **spec: Any) -> dict[str, Any]:
    container = {"name": "c", "image": BUSYBOX, "command": ["sh", "-c", command], **spec.pop("container", {})}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [container], **spec},
    }


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    assert (CLIENTS / "kubectl").exists(), "run deploy/clients.sh first: it fetches kubectl and helm"
    directory = Path(tempfile.mkdtemp(prefix="wherry-stories-"))
    built = Lab(directory, tag="t", port=free_port(), subnet=98)
    try:
        built.up(NODES)
        image = write_busybox_image(directory / "busybox.tar")
        Cluster(built).wherry("image", "load", str(image))
        yield built
    finally:
        if sys.exc_info()[0] is not None:
            for log in sorted((directory / "logs").glob("*.log")):
                print(f"--- {log.name}\n{log.read_text()[-2000:]}")
        built.down()
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def cluster(lab: Lab) -> Iterator[Cluster]:
    """The lab's cluster with a fresh namespace, deleted afterwards."""
    inside = Cluster(lab, f"story-{next(_namespaces)}")
    inside.kubectl("create", "namespace", inside.namespace)
    yield inside
    inside.kubectl("delete", "namespace", inside.namespace, "--wait=false")
