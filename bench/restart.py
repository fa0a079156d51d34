"""How long a container whose process was killed is down: from the kill until a watcher sees it running again.

Run as root: `python -m bench.restart [--pods 20]`. Each pod is killed once (the second restart of a pod waits, as in
Kubernetes), one after the other on a node that does nothing else. Budget: p50 below 0.4 s (Kubernetes here 0.80 s).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import statistics
import tempfile
import time
from pathlib import Path

from agent.runtime.cgroups import processes
from agent.runtime.containerd import containerd_paths
from api.objects import Object, uid_of
from bench.failover import percentile
from tests.e2e.lab_scene import Scene, lab_up, scene
from tests.lab_guard import guarded

BUDGET_SECONDS = 0.4
GIVE_UP_SECONDS = 30.0
SETTLE_SECONDS = 0.5


def container_processes(here: Scene, pod: Object) -> list[int]:
    """The processes of a pod's first container, without its sandbox's."""
    container = pod["status"]["containerStatuses"][0]["containerID"].rpartition("/")[2]
    root = containerd_paths(here.lab.node_dir(pod["spec"]["nodeName"])).cgroup_root
    return list(processes(f"{root}/pod{uid_of(pod)}/{container}"))


async def kill_container(here: Scene, uid: str) -> float:
    """Kills a pod's container and returns the seconds until it was seen running again, restarted once."""
    victims = container_processes(here, here.seen.pods[uid])
    assert victims, "the container has no process"
    killed = time.monotonic()
    for pid in victims:
        os.kill(pid, signal.SIGKILL)
    await here.seen.until(lambda: _restarted(here.seen.pods[uid]), GIVE_UP_SECONDS, "the container runs again")
    return time.monotonic() - killed


def _restarted(pod: Object) -> bool:
    status = pod["status"]["containerStatuses"][0]
    return status["restartCount"] == 1 and "running" in status["state"]


async def restarts(here: Scene, pods: int) -> list[float]:
    await here.deploy(pods)
    found = []
    for uid in list(here.seen.pods):
        await asyncio.sleep(SETTLE_SECONDS)
        found.append(await kill_container(here, uid))
    return found


async def _measure(pods: int, directory: Path) -> list[float]:
    lab = await asyncio.to_thread(lab_up, directory, 1, "r")
    async with scene(lab, "web") as here:
        return await restarts(here, pods)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measures how soon a killed container runs again.")
    parser.add_argument("--pods", type=int, default=20)
    options = parser.parse_args()
    scratch = Path(tempfile.mkdtemp(prefix="wherry-restart-"))
    with guarded(scratch):
        found = asyncio.run(_measure(options.pods, scratch / "lab"))
    print(
        f"container killed -> seen running again: p50 {statistics.median(found) * 1e3:.0f} ms, "
        f"p90 {percentile(found, 0.9) * 1e3:.0f} ms, worst {max(found) * 1e3:.0f} ms "
        f"({len(found)} pods; budget {BUDGET_SECONDS * 1e3:.0f} ms p50)"
    )


if __name__ == "__main__":
    main()
