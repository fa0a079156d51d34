"""A harness for each runtime: what a test cannot do through the protocol alone (kill a process from outside)."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pytest

from agent.network.cni import PodNetwork, default_mtu, ensure_pod_network
from agent.runtime.cgroups import processes
from agent.runtime.containerd import Containerd, ensure_containerd
from agent.runtime.cri import CriRuntime
from agent.runtime.fake import FakeRuntime
from agent.runtime.images import pieces_of
from agent.runtime.protocol import ContainerConfig, EventKind, Runtime, RuntimeEvent, SandboxConfig
from agent.runtime.teardown import stop_containerd
from tests.images import BUSYBOX, write_busybox_image

_EVENT_SECONDS = 10.0
_numbers = itertools.count(1)


class Killer(Protocol):
    def __call__(self, uid: str, needle: str, target: str) -> None:
        """Kill a process of pod `uid`: `needle` is in its command line, `target` is the container's or sandbox's id."""


@dataclass
class Harness:
    """A runtime and the ordered events it told."""

    runtime: Runtime
    killer: Killer
    heard: list[RuntimeEvent] = field(default_factory=list)
    news: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def listen(self) -> None:
        async for event in self.runtime.events():
            async with self.news:
                self.heard.append(event)
                self.news.notify_all()

    async def hear(self, kind: EventKind, subject: str = "") -> RuntimeEvent:
        """The first event of this kind about a container or sandbox, heard already or soon."""

        def found() -> RuntimeEvent | None:
            about = (e for e in self.heard if e.kind == kind and subject in ("", e.container_id, e.sandbox_id))
            return next(about, None)

        async with asyncio.timeout(_EVENT_SECONDS), self.news:
            await self.news.wait_for(lambda: found() is not None)
        event = found()
        assert event is not None
        return event

    async def sandbox(self, **fields: Any) -> tuple[str, SandboxConfig]:
        number = next(_numbers)
        config = SandboxConfig(f"pod-{number}", "default", f"uid-{os.getpid()}-{number}", **fields)
        return await self.runtime.run_sandbox(config), config

    async def start(
        self, sandbox: tuple[str, SandboxConfig], *command: str, name: str = "main", attempt: int = 0
    ) -> str:
        config = ContainerConfig(name, BUSYBOX, attempt=attempt, command=command)
        container_id = await self.runtime.create_container(sandbox[0], config, sandbox[1])
        await self.runtime.start_container(container_id)
        return container_id


def pod_processes(containerd: Containerd, uid: str) -> dict[int, str]:
    """Command lines of the processes in a pod's cgroup."""
    pids = processes(f"{containerd.paths.cgroup_root}/pod{uid}")
    return {pid: Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode() for pid in pids}


def kill_in_pod(containerd: Containerd, uid: str, needle: str) -> None:
    victims: list[int] = []
    deadline = time.monotonic() + _EVENT_SECONDS
    while not victims and time.monotonic() < deadline:  # a started process is runc for another moment
        victims = [pid for pid, line in pod_processes(containerd, uid).items() if needle in line]
    assert victims, f"no process of pod {uid} has {needle!r} in its command line"
    for pid in victims:
        os.kill(pid, signal.SIGKILL)


def pod_network(containerd: Containerd, pod_cidr: str = "") -> PodNetwork:
    """Addresses of this test process's own, because several suites may run on one machine at once."""
    block = os.getpid() % 250
    paths = containerd.paths
    pod_cidr = pod_cidr or f"10.252.{block}.0/24"
    return PodNetwork(paths.node_id, (pod_cidr,), ("10.252.0.0/16",), paths.cni_data_dir, default_mtu())


@pytest.fixture(scope="session")
def busybox(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_busybox_image(tmp_path_factory.mktemp("image") / "busybox.tar")


async def start_node(data_dir: Path, busybox: Path, pod_cidr: str = "") -> Containerd:
    """A private containerd with a pod network and the busybox image."""
    started = await ensure_containerd(data_dir)
    await ensure_pod_network(pod_network(started, pod_cidr), started.paths.cni_conf_dir)
    runtime = CriRuntime(started.endpoint, started.paths.cgroup_root)
    await runtime.load_image(pieces_of(busybox))
    await runtime.close()
    return started


@pytest.fixture(scope="session")
def containerd(tmp_path_factory: pytest.TempPathFactory, busybox: Path) -> Iterator[Containerd]:
    """One for the whole session."""
    data_dir = tmp_path_factory.mktemp("node")
    try:
        yield asyncio.run(start_node(data_dir, busybox))
    finally:
        asyncio.run(stop_containerd(data_dir, purge=True))


@pytest.fixture(params=["fake", "containerd"])
async def harness(request: pytest.FixtureRequest, containerd: Containerd) -> AsyncIterator[Harness]:
    """The same contract for both."""
    if request.param == "fake":
        fake = FakeRuntime()

        def end(uid: str, needle: str, target: str) -> None:
            if needle == "pause":
                fake.exit_sandbox(target)
            else:
                fake.exit_container(target, 137)

        made = Harness(fake, end)
    else:
        runtime = CriRuntime(containerd.endpoint, containerd.paths.cgroup_root)
        made = Harness(runtime, lambda uid, needle, target: kill_in_pod(containerd, uid, needle))
    listening = asyncio.create_task(made.listen())
    try:
        await made.hear("resync")
        yield made
    finally:
        listening.cancel()
        await asyncio.wait({listening})
        async with asyncio.TaskGroup() as group:
            for sandbox in await made.runtime.list_sandboxes():
                group.create_task(made.runtime.remove_sandbox(sandbox.id))
        await made.runtime.close()
