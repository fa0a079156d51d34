"""Looks how much of the disk the node's pods take, and evicts those that take more than they may.

Run by main as a task. Pods without a limit cost nothing here. The look takes at most a twentieth of one core: who has
millions of files is looked at less often. Rules are in `storage`, measuring in `agent.volumes.usage`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable

import structlog

from agent.pods.configs import CONTAINER_NAME, POD_UID
from agent.pods.storage import excess, is_critical, is_limited
from agent.pods.worker import PodWorker, key_of
from agent.pods.workshop import Workshop
from agent.runtime.errors import RuntimeFault
from agent.volumes.usage import measure
from api.objects import uid_of

CHECK_SECONDS = 10.0
REST_FACTOR = 19.0
_log = structlog.get_logger()


class StorageWatch:
    """`workers` lists the pods of the node."""

    def __init__(self, shop: Workshop, workers: Callable[[], Iterable[PodWorker]]) -> None:
        self._shop = shop
        self._workers = workers

    async def run(self) -> None:
        """Looks again and again until cancelled."""
        pause = CHECK_SECONDS
        while True:
            await asyncio.sleep(pause)
            began = time.monotonic()
            try:
                await self.check()
            except RuntimeFault as fault:
                _log.warning("the pods' storage was not measured", error=fault.message)
            pause = max(CHECK_SECONDS, REST_FACTOR * (time.monotonic() - began))

    async def check(self) -> None:
        """One look at every pod that has a limit. Raises RuntimeFault."""
        limited = [worker for worker in self._workers() if worker.memory.ending is None and is_limited(worker.pod)]
        if not limited:
            return
        layers = await self._layers()
        for worker in limited:
            pod = worker.pod
            places = {
                volume["name"]: self._shop.volumes.path(pod, volume) for volume in pod["spec"].get("volumes") or ()
            }
            use = await asyncio.to_thread(measure, self._shop.paths, pod, places, layers.get(uid_of(pod), {}))
            message = excess(pod, use)
            if message and is_critical(pod):
                _log.warning("a critical pod is not evicted", pod=key_of(pod), why=message)
            elif message:
                worker.evict(message)

    async def _layers(self) -> dict[str, dict[str, int]]:
        """Bytes in the writable layer of each running container, by pod uid and container name."""
        found: dict[str, dict[str, int]] = {}
        for stats in await self._shop.runtime.container_stats():
            name = stats.labels.get(CONTAINER_NAME, stats.name)
            found.setdefault(stats.labels.get(POD_UID, ""), {})[name] = stats.fs_used_bytes
        return found
