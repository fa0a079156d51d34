"""Looking at what the runtime has of one pod, and writing it into the memory.

Called by the worker (news, restarts of the agent, calls whose outcome is unknown) and by the performer. Nothing is made
or ended here, and nothing is concluded from a call that failed: what is, is looked at.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from dataclasses import replace

from agent.pods.configs import POD_UID
from agent.pods.memory import PodMemory
from agent.pods.spec import find_container
from agent.pods.words import last_words
from agent.pods.workshop import Workshop
from agent.runtime.errors import NotFound
from agent.runtime.protocol import ContainerStatus, SandboxStatus
from api.objects import uid_of


class PodObserver:
    """`owns` is told the id of everything that is found."""

    def __init__(self, shop: Workshop, memory: PodMemory, owns: Callable[[str], None]) -> None:
        self._shop = shop
        self._memory = memory
        self._owns = owns

    async def take(self, sandboxes: Iterable[SandboxStatus], containers: Iterable[ContainerStatus]) -> None:
        """All that the runtime has of the pod."""
        memory = self._memory
        spoken = [await self.with_words(status) for status in containers]
        memory.take_sandboxes(sandboxes)
        self.announce_sandbox()
        memory.take_containers(spoken)
        listed = {status.id for status in spoken}
        for view in list(memory.views.values()):
            if view.current is not None and view.current.id not in listed:
                memory.lose_container(view.current.id, self._shop.clock())
        self._own_all()

    async def observe(self) -> None:
        """Looks at everything, because the outcome of a call is unknown. Raises RuntimeFault."""
        runtime = self._shop.runtime
        boxes, containers = await self._list_sandboxes(), []
        for one in await runtime.list_containers({POD_UID: uid_of(self._memory.pod)}):
            with contextlib.suppress(NotFound):
                containers.append(await runtime.container_status(one.id))
        await self.take(boxes, containers)

    async def relist_sandboxes(self) -> None:
        """Takes stock of the pod's sandboxes, dead ones too. Raises RuntimeFault."""
        self._memory.take_sandboxes(await self._list_sandboxes())
        self.announce_sandbox()

    async def look_at(self, container_id: str) -> None:
        """Something happened to a container, or may have. Raises RuntimeFault."""
        try:
            status = await self._shop.runtime.container_status(container_id)
        except NotFound:
            self._memory.lose_container(container_id, self._shop.clock())
            return
        self._memory.take_container(await self.with_words(status))

    def differs(self, sandboxes: Iterable[SandboxStatus], containers: Iterable[ContainerStatus]) -> bool:
        """Whether a listing says something else than what is known here (the safety net under events)."""
        memory = self._memory
        known = {view.current.id: view.current.state for view in memory.views.values() if view.current is not None}
        listed = {status.id: status.state for status in containers}
        boxes = {sandbox.id: sandbox.state for sandbox in sandboxes}
        if any(listed.get(made) != state for made, state in known.items() if state != "exited" or made in listed):
            return True
        return memory.sandbox is not None and boxes.get(memory.sandbox.id) != memory.sandbox.state

    def announce_sandbox(self) -> None:
        """The node's network learns where the pod is, and prepares for its first packet meanwhile."""
        sandbox, pod = self._memory.sandbox, self._memory.pod
        if sandbox is not None and sandbox.state == "ready" and not pod["spec"].get("hostNetwork"):
            self._shop.gate.announce(pod, sandbox.ips)

    async def with_words(self, status: ContainerStatus) -> ContainerStatus:
        """An ended container with its termination message."""
        if status.state != "exited" or status.message:
            return status
        paths, pod = self._shop.paths, self._memory.pod
        file = paths.termination_log(uid_of(pod), status.name, status.attempt)
        log = paths.container_log(pod, status.name, status.attempt)
        container = find_container(pod, status.name) or {}
        return replace(status, message=await asyncio.to_thread(last_words, container, file, log, status.exit_code))

    async def read_words(self, name: str) -> None:
        """The termination message of a container that ended in the course of a step."""
        current = self._memory.view(name).current
        if current is not None and current.state == "exited" and not current.message:
            self._memory.take_container(await self.with_words(current))

    async def _list_sandboxes(self) -> list[SandboxStatus]:
        found = []
        for box in await self._shop.runtime.list_sandboxes({POD_UID: uid_of(self._memory.pod)}):
            with contextlib.suppress(NotFound):
                found.append(await self._shop.runtime.sandbox_status(box.id))
        return found

    def _own_all(self) -> None:
        memory = self._memory
        for made in (*memory.old_sandboxes, *([memory.sandbox.id] if memory.sandbox is not None else [])):
            self._owns(made)
        for view in memory.views.values():
            for status in (view.current, view.previous):
                if status is not None:
                    self._owns(status.id)
