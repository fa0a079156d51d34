"""Looks how much of the disk the node's pods take, and evicts those that take more than they may.

When the disk is nearly full (where the node's DiskPressure begins), one pod after another goes, until there is room.
Run by main as a task. Pods without a limit cost nothing here while there is room. The look takes at most a twentieth of
one core: who has millions of files is looked at less often. Rules are in `storage`, measuring in
`agent.volumes.usage`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import structlog

from agent.hostinfo import DiskUse, disk_use
from agent.node import LEAST_DISK_SHARE
from agent.pods.configs import CONTAINER_NAME, POD_UID
from agent.pods.observed import EVICTED
from agent.pods.storage import Use, excess, first_to_go, is_critical, is_limited, shortage
from agent.pods.worker import PodWorker, key_of
from agent.pods.workshop import Workshop
from agent.runtime.errors import RuntimeFault
from agent.volumes.usage import measure
from api.objects import Object, uid_of

CHECK_SECONDS = 10.0
REST_FACTOR = 19.0
MOST_SECONDS = 30.0
"""The longest pause between two looks, however long a look took on a busy machine."""
_log = structlog.get_logger()


class StorageWatch:
    """`workers` lists the pods of the node; `disk` says how full the file system of a path is."""

    def __init__(
        self, shop: Workshop, workers: Callable[[], Iterable[PodWorker]], disk: Callable[[Path], DiskUse] = disk_use
    ) -> None:
        self._shop = shop
        self._workers = workers
        self._disk = disk

    async def run(self) -> None:
        """Looks again and again until cancelled."""
        pause = CHECK_SECONDS
        while True:
            await asyncio.sleep(pause)
            began = time.monotonic()
            try:
                await self.check()
            except (RuntimeFault, OSError) as fault:
                _log.warning("the pods' storage was not measured", error=str(fault))
            pause = min(max(CHECK_SECONDS, REST_FACTOR * (time.monotonic() - began)), MOST_SECONDS)

    async def check(self) -> None:
        """One look at the pods that have a limit; at all when the disk is nearly full. Raises RuntimeFault, OSError."""
        disk = await asyncio.to_thread(self._disk, self._shop.paths.root)
        threshold = int(disk.capacity_bytes * LEAST_DISK_SHARE)
        is_short = disk.available_bytes < threshold
        alive = [worker for worker in self._workers() if worker.memory.ending is None]
        looked_at = [worker for worker in alive if is_short or is_limited(worker.pod)]
        if not looked_at:
            return
        layers = await self._layers()
        within = []
        for worker in looked_at:
            use = await self._use(worker.pod, layers.get(uid_of(worker.pod), {}))
            message = excess(worker.pod, use)
            if message and is_critical(worker.pod):
                _log.warning("a critical pod is not evicted", pod=key_of(worker.pod), why=message)
            elif message:
                worker.evict(message)
            else:
                within.append((worker.pod, use))
        if is_short and not any(_is_leaving(worker) for worker in self._workers()):
            self._make_room(within, threshold, disk.available_bytes)

    def _make_room(self, uses: list[tuple[Object, Use]], threshold: int, available: int) -> None:
        """Evicts one pod; what that frees is seen before another one goes."""
        chosen = first_to_go(uses)
        if chosen is None:
            return
        message = shortage(*chosen, threshold, available)
        for worker in self._workers():
            if uid_of(worker.pod) == uid_of(chosen[0]):
                worker.evict(message, disrupted=True)

    async def _use(self, pod: Object, layers: Mapping[str, int]) -> Use:
        volumes = pod["spec"].get("volumes") or ()
        places = {volume["name"]: self._shop.volumes.path(pod, volume) for volume in volumes}
        return await asyncio.to_thread(measure, self._shop.paths, pod, places, layers)

    async def _layers(self) -> dict[str, dict[str, int]]:
        """Bytes in the writable layer of each running container, by pod uid and container name."""
        found: dict[str, dict[str, int]] = {}
        for stats in await self._shop.runtime.container_stats():
            name = stats.labels.get(CONTAINER_NAME, stats.name)
            found.setdefault(stats.labels.get(POD_UID, ""), {})[name] = stats.fs_used_bytes
        return found


def _is_leaving(worker: PodWorker) -> bool:
    """An evicted pod whose room is not free yet."""
    ending = worker.memory.ending
    return ending is not None and ending.reason == EVICTED and worker.memory.volumes == "ready"
