"""Keeps the probes of a pod's running containers going, and writes their findings into the memory.

One per worker; `adjust` is called after every change and is cheap. One task a container attempt; it ends with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from agent.events import WARNING
from agent.pods.memory import PodMemory
from agent.pods.observed import ContainerView
from agent.pods.spec import all_containers
from agent.pods.termination import Tell
from agent.pods.workshop import Workshop
from agent.probes import Finding, Watch, has_probes, watch_container
from agent.probing import Target
from api.objects import Object


class ProbeKeeper:
    """`changed` is called when a finding changed the memory."""

    def __init__(self, shop: Workshop, memory: PodMemory, changed: Callable[[], None], tell: Tell) -> None:
        self._shop = shop
        self._memory = memory
        self._changed = changed
        self._tell = tell
        self._running: dict[str, asyncio.Task[None]] = {}
        self._group: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        """Owns the probe tasks; ends only when cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                self.adjust()
                await asyncio.Event().wait()
        finally:
            self._group = None

    def adjust(self) -> None:
        """Starts probing what has begun to run and stops probing what no longer does."""
        if self._group is None:
            return
        wanted = {}
        for container in all_containers(self._memory.pod):
            view = self._memory.view(container["name"])
            if view.current is None or view.current.state != "running" or view.hook_pending or view.must_restart:
                continue
            if has_probes(container) and self._memory.ending is None:
                wanted[view.current.id] = (container, view)
        for container_id in self._running.keys() - wanted.keys():
            self._running.pop(container_id).cancel()
        for container_id in wanted.keys() - self._running.keys():
            self._running[container_id] = self._group.create_task(self._watch(*wanted[container_id]))

    def stop(self) -> None:
        """All containers are being stopped: nothing is looked at any more."""
        for task in self._running.values():
            task.cancel()
        self._running.clear()

    async def _watch(self, container: Object, view: ContainerView) -> None:
        current = view.current
        assert current is not None
        address = self._address()
        name = container["name"]
        target = Target(current.id, container, address)

        def take(finding: Finding) -> None:
            self._take(name, current.id, finding)

        await watch_container(Watch(self._shop.prober, target, current.started_at, take, view.started))

    def _address(self) -> str:
        sandbox = self._memory.sandbox
        return (sandbox.ip if sandbox is not None else "") or self._shop.host.addresses[0]

    def _take(self, name: str, container_id: str, finding: Finding) -> None:
        view = self._memory.view(name)
        if view.current is None or view.current.id != container_id or view.current.state != "running":
            return
        self._say(name, finding)
        if finding.verdict is None:
            return
        match finding.kind, finding.verdict:
            case "readiness", verdict:
                self._memory.change(name, ready=verdict)
            case "startup", True:
                ready = not any(c["name"] == name and c.get("readinessProbe") for c in all_containers(self._memory.pod))
                self._memory.change(name, started=True, ready=ready)
            case ("startup" | "liveness") as kind, False:
                text = f"Container {name} failed {kind} probe, will be restarted"
                self._memory.change(name, must_restart=text)
        self._changed()

    def _say(self, name: str, finding: Finding) -> None:
        title, outcome = finding.kind.capitalize(), finding.outcome
        if outcome.result == "failure":
            self._tell(WARNING, "Unhealthy", f"{title} probe failed: {outcome.message}", name)
        elif outcome.result == "unknown":
            text = f"{title} probe errored and resulted in unknown state: {outcome.message}"
            self._tell(WARNING, "Unhealthy", text, name)
