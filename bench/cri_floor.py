"""What a pod's start costs below wherry: sandbox, container, start, asked of the runtime directly.

Run as root: `python -m bench.cri_floor [--pods 20] [--at-once 20] [--endpoint unix:///...]`. Without an endpoint it
makes a private containerd in a temporary directory and a pod network of its own, and leaves nothing behind. The
figures are the floor against which the agent's own pod start is judged (budgets: at most 1.1 times this, measured in
the same run).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from agent.network.cni import PodNetwork, ensure_pod_network
from agent.runtime.containerd import ensure_containerd
from agent.runtime.cri import CriRuntime
from agent.runtime.images import pieces_of
from agent.runtime.protocol import ContainerConfig, Namespaces, Runtime, SandboxConfig
from agent.runtime.teardown import stop_containerd
from tests.images import BUSYBOX, write_busybox_image

_numbers = itertools.count()


@dataclass(frozen=True)
class Timing:
    """One pod's start, in milliseconds, and the sandbox to take away."""

    sandbox_id: str
    sandbox: float
    create: float
    start: float

    @property
    def total(self) -> float:
        return self.sandbox + self.create + self.start


async def start_pod(runtime: Runtime, host_network: bool = False) -> Timing:
    """One pod with one container that sleeps."""
    number = next(_numbers)
    namespaces = Namespaces(host_network=host_network)
    config = SandboxConfig(f"floor-{number}", "bench", f"bench-{number}-{time.time_ns()}", namespaces=namespaces)
    container = ContainerConfig("main", BUSYBOX, command=("sleep", "3600"))
    began = time.perf_counter()
    sandbox_id = await runtime.run_sandbox(config)
    ran = time.perf_counter()
    container_id = await runtime.create_container(sandbox_id, container, config)
    created = time.perf_counter()
    await runtime.start_container(container_id)
    started = time.perf_counter()
    return Timing(sandbox_id, (ran - began) * 1e3, (created - ran) * 1e3, (started - created) * 1e3)


async def one_at_a_time(runtime: Runtime, pods: int, host_network: bool = False) -> list[Timing]:
    timings = []
    for _ in range(pods):
        timings.append(await start_pod(runtime, host_network))
        await runtime.remove_sandbox(timings[-1].sandbox_id)
    return timings


async def at_once(runtime: Runtime, pods: int) -> float:
    """Seconds until the last of so many pods runs, all asked for at the same moment."""
    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(start_pod(runtime)) for _ in range(pods)]
    seconds = time.perf_counter() - began
    async with asyncio.TaskGroup() as group:
        for task in tasks:
            group.create_task(runtime.remove_sandbox(task.result().sandbox_id))
    return seconds


def show(name: str, values: list[float]) -> None:
    ordered = sorted(values)
    print(f"{name:34} p50 {statistics.median(ordered):7.1f} ms   max {ordered[-1]:7.1f} ms", flush=True)


@contextlib.asynccontextmanager
async def private_runtime() -> AsyncIterator[CriRuntime]:
    with tempfile.TemporaryDirectory(prefix="wherry-floor-") as directory:
        containerd = await ensure_containerd(Path(directory))
        paths = containerd.paths
        runtime = CriRuntime(containerd.endpoint, paths.cgroup_root)
        try:
            network = PodNetwork(paths.node_id, ("10.251.0.0/24",), ("10.251.0.0/16",), paths.cni_data_dir)
            await ensure_pod_network(network, paths.cni_conf_dir)
            archive = Path(directory, "busybox.tar")
            await runtime.load_image(pieces_of(write_busybox_image(archive)))
            yield runtime
        finally:
            await runtime.close()
            await stop_containerd(Path(directory), purge=True)


async def measure(runtime: Runtime, pods: int, group: int) -> None:
    await one_at_a_time(runtime, 2)
    timings = await one_at_a_time(runtime, pods)
    show("sandbox", [timing.sandbox for timing in timings])
    show("create", [timing.create for timing in timings])
    show("start", [timing.start for timing in timings])
    show("pod, one at a time", [timing.total for timing in timings])
    hosted = await one_at_a_time(runtime, max(2, pods // 2), host_network=True)
    show("pod in the node's network", [timing.total for timing in hosted])
    print(f"{group} pods at once, all running after   {await at_once(runtime, group):.2f} s")


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pods", type=int, default=20)
    parser.add_argument("--at-once", type=int, default=20)
    parser.add_argument("--endpoint", default="")
    arguments = parser.parse_args()
    if arguments.endpoint:
        runtime = CriRuntime(arguments.endpoint)
        await measure(runtime, arguments.pods, arguments.at_once)
        await runtime.close()
        return
    async with private_runtime() as runtime:
        await measure(runtime, arguments.pods, arguments.at_once)


if __name__ == "__main__":
    asyncio.run(main())
