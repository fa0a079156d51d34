"""What the node measures of itself for its status, and why it is not ready: of a runtime or a disk that hangs, too.

Run by main's status loop. Nothing here waits longer than its deadline, and nothing that may hang runs on the event
loop, because the heartbeat lives there: a node whose disk or runtime hangs is alive and has to say what hangs.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from agent import hostinfo
from agent.hostinfo import DiskUse, MemoryUse
from agent.node import Readings
from agent.pods.status import wire_time
from agent.runtime.errors import RuntimeFault
from agent.runtime.protocol import ImageStatus, Runtime

DISK_SECONDS = 5.0


@dataclass(frozen=True)
class Measured:
    disk: DiskUse
    memory: MemoryUse
    processes: tuple[int, int]


def measure(directory: Path) -> Measured:
    """Of the machine and of the file system below `directory`. Blocking; may hang with the disk."""
    return Measured(hostinfo.disk_use(directory), hostinfo.memory_use(), hostinfo.process_count())


class NodeGauge:
    """`measure` reads the machine (it may hang with the disk); `network_problem` says why pods get no network."""

    def __init__(
        self,
        runtime: Runtime,
        measure: Callable[[], Measured],
        network_problem: Callable[[], str],
        patience_seconds: float = DISK_SECONDS,
    ) -> None:
        self._runtime = runtime
        self._patience_seconds = patience_seconds
        self._measure = measure
        self._network_problem = network_problem
        self._known = measure()
        self._measuring: asyncio.Task[Measured] | None = None
        self._images: list[ImageStatus] = []
        self.version = ""
        """NAME://VERSION of the runtime; "" before it was heard."""

    async def look(self, routes: str | None) -> Readings:
        """Everything, now; `routes` is passed on. Of what does not answer the numbers are the last ones."""
        problem = await self._runtime_problem() or self._network_problem()
        if not await self._have_measured():
            hangs = f"the data directory's disk did not answer in {self._patience_seconds:g} s"
            problem = f"{hangs}; {problem}" if problem else hangs
        if not problem:
            with contextlib.suppress(RuntimeFault):
                self._images = await self._runtime.list_images()
        biggest = sorted(self._images, key=lambda image: (-image.size_bytes, image.id))
        return Readings(
            now=wire_time(time.time()),
            disk=self._known.disk,
            memory=self._known.memory,
            processes=self._known.processes,
            problem=problem,
            routes=routes,
            images=tuple(((*image.digests, *image.tags), image.size_bytes) for image in biggest),
        )

    async def _runtime_problem(self) -> str:
        try:
            health = await self._runtime.health()
            if not self.version:
                found = await self._runtime.version()
                self.version = f"{found.name}://{found.version}"
        except RuntimeFault as fault:
            return f"container runtime is down: {fault.message}"
        if not health.ready:
            return f"container runtime is not ready: {health.message}"
        return "" if health.network_ready else f"container runtime network not ready: {health.message}"

    async def _have_measured(self) -> bool:
        """Measures anew; False when that hangs. There is one thread at a time, however long it hangs."""
        if self._measuring is None:
            self._measuring = asyncio.create_task(asyncio.to_thread(self._measure))
        done, _ = await asyncio.wait({self._measuring}, timeout=self._patience_seconds)
        if not done:
            return False
        finished, self._measuring = self._measuring, None
        if finished.exception() is not None:
            return False
        self._known = finished.result()
        return True
