"""A cluster of three nodes for the stories: deploy/lab.py, the busybox image loaded, kubectl and wherry at hand.

One for the whole session, shared by tests/compat and tests/e2e; each test works in a namespace of its own. All of it is
removed at the end, also when the run is killed.
"""

from __future__ import annotations

import itertools
import json
import os
import pty
import select
import socket
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from deploy.lab import Lab
from tests.images import BUSYBOX, write_busybox_image
from tests.lab_guard import guarded

NODES = 3
COMMAND_SECONDS = 90
CLIENTS = Path(__file__).parent.parent / ".cache" / "bin"
_namespaces = itertools.count(1)


@dataclass(frozen=True)
class Terminal:
    """Our side of a command's terminal."""

    descriptor: int
    process: subprocess.Popen[bytes]

    def type(self, text: str) -> None:
        os.write(self.descriptor, text.encode())

    def read_until(self, wanted: str, seconds: float = 30.0) -> str:
        """What was shown up to and with `wanted`; fails with it after the deadline."""
        shown = ""
        deadline = time.monotonic() + seconds
        while wanted not in shown:
            if time.monotonic() > deadline:
                pytest.fail(f"the terminal shows no {wanted!r} within {seconds} s: {shown!r}")
            if select.select([self.descriptor], [], [], 0.5)[0]:
                try:
                    shown += os.read(self.descriptor, 4096).decode(errors="replace")
                except OSError:  # how a terminal says that its other side is closed
                    pytest.fail(f"the terminal closed without {wanted!r}: {shown!r}")
        return shown


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
        return self.run(*self.kubectl_command(*argv), stdin=stdin).stdout

    def refused(self, *argv: str, stdin: str | None = None) -> str:
        """What kubectl says when it has to fail."""
        done = self.run(*self.kubectl_command(*argv), stdin=stdin, check=False)
        assert done.returncode != 0, f"kubectl {' '.join(argv)} should fail: {done.stdout}"
        return done.stderr

    @contextmanager
    def started(self, *argv: str) -> Iterator[subprocess.Popen[str]]:
        """kubectl with pipes, running inside the block."""
        with self._started(self.kubectl_command(*argv)) as process:
            yield process

    @contextmanager
    def wherry_started(self, *argv: str) -> Iterator[subprocess.Popen[str]]:
        """wherry with pipes, running inside the block."""
        with self._started(self._wherry(argv)) as process:
            yield process

    @contextmanager
    def _started(self, command: list[str]) -> Iterator[subprocess.Popen[str]]:
        pipe = subprocess.PIPE
        with subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=self.environment
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    @contextmanager
    def terminal(self, *argv: str) -> Iterator[Terminal]:
        """A command on a terminal of its own, running inside the block."""
        ours, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, (30, 100))
        with subprocess.Popen(argv, stdin=theirs, stdout=theirs, stderr=theirs, env=self.environment) as process:
            os.close(theirs)
            try:
                yield Terminal(ours, process)
            finally:
                process.kill()
                os.close(ours)

    def kubectl_terminal(self, *argv: str) -> AbstractContextManager[Terminal]:
        return self.terminal(*self.kubectl_command(*argv))

    def kubectl_command(self, *argv: str) -> list[str]:
        return [str(CLIENTS / "kubectl"), "-n", self.namespace, *argv]

    def helm(self, *argv: str) -> str:
        return self.run(*self.helm_command(*argv)).stdout

    def helm_command(self, *argv: str) -> list[str]:
        return [str(CLIENTS / "helm"), "-n", self.namespace, *argv]

    def wherry(self, *argv: str, stdin: str | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.run(*self._wherry(argv), stdin=stdin, check=check)

    def wherry_terminal(self, *argv: str) -> AbstractContextManager[Terminal]:
        return self.terminal(*self._wherry(argv))

    def _wherry(self, argv: tuple[str, ...]) -> list[str]:
        command = [sys.executable, "-m", "cli.main", "--kubeconfig", str(self.lab.kubeconfig), "-n", self.namespace]
        return [*command, *argv]

    def ready(self, *pods: dict[str, Any]) -> None:
        """Applies pods and waits until they are Ready."""
        self.apply(*pods)
        names = [f"pod/{each['metadata']['name']}" for each in pods]
        self.kubectl("wait", *names, "--for=condition=Ready", "--timeout=60s")

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
    with guarded(directory):
        own = os.getpid() % 100  # runs side by side do not meet
        built = Lab(directory / "lab", tag=f"t{own}-", port=free_port(), subnet=112 + own)
        try:
            built.up(NODES)
            Cluster(built).wherry("image", "load", str(write_busybox_image(directory / "busybox.tar")))
            yield built
        finally:
            if sys.exc_info()[0] is not None:
                print(built.last_words())


def pytest_exception_interact(node: pytest.Item | pytest.Collector, report: Any) -> None:
    """A story that failed shows what the processes of its lab said last."""
    for value in getattr(node, "funcargs", {}).values():
        lab = value if isinstance(value, Lab) else getattr(value, "lab", None)
        if isinstance(lab, Lab):
            report.sections.append(("the lab's logs", lab.last_words()))
            return


@pytest.fixture
def cluster(lab: Lab) -> Iterator[Cluster]:
    """The lab's cluster with a fresh namespace, deleted afterwards."""
    inside = Cluster(lab, f"story-{next(_namespaces)}")
    inside.kubectl("create", "namespace", inside.namespace)
    yield inside
    inside.kubectl("delete", "namespace", inside.namespace, "--wait=false")
