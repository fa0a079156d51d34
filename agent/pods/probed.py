"""Keeps the probes of a pod's running containers going, and writes their findings into the memory.

One per worker; `adjust` is called after every change and is cheap. One task a container attempt; it ends with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Literal

from agent.events import WARNING
from agent.pods.memory import PodMemory
from agent.pods.observed import ContainerView
from agent.pods.spec import all_containers, find_container, never_restarts
from agent.pods.termination import Tell
from agent.pods.workshop import Workshop
from agent.probes import Finding, Watch, watch_life, watch_readiness
from agent.probing import Target
from api.objects import Object

Concern = Literal["life", "readiness"]
"""Startup and liveness, which may condemn a container, and readiness, which goes on while it is being stopped."""


class ProbeKeeper:
    """`changed` is called when a finding changed the memory."""

    def __init__(self, shop: Workshop, memory: PodMemory, changed: Callable[[], None], tell: Tell) -> None:
        self._shop = shop
        self._memory = memory
        self._changed = changed
        self._tell = tell
        self._running: dict[tuple[str, Concern], asyncio.Task[None]] = {}
        self._stopping: set[str] = set()
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
        wanted: dict[tuple[str, Concern], tuple[Object, ContainerView]] = {}
        for container in all_containers(self._memory.pod):
            view = self._memory.view(container["name"])
            if view.current is None or view.current.state != "running" or view.hook_pending or view.must_restart:
                continue
            if self._may_be_condemned(container, view.current.id):
                wanted[view.current.id, "life"] = (container, view)
            if container.get("readinessProbe") and view.started:
                wanted[view.current.id, "readiness"] = (container, view)
        for key in self._running.keys() - wanted.keys():
            self._running.pop(key).cancel()
        for key in wanted.keys() - self._running.keys():
            self._running[key] = self._group.create_task(self._watch(key[1], *wanted[key]))

    def _may_be_condemned(self, container: Object, container_id: str) -> bool:
        probed = container.get("startupProbe") or container.get("livenessProbe")
        return bool(probed) and self._memory.ending is None and container_id not in self._stopping

    def stop_judging_life(self) -> None:
        """All containers are being stopped: nothing condemns them any more. Who still serves is found out as before:
        endpoints of a pod that ends follow its readiness."""
        self._stopping = {view.current.id for view in self._memory.views.values() if view.current is not None}
        self.adjust()

    async def _watch(self, concern: Concern, container: Object, view: ContainerView) -> None:
        current = view.current
        assert current is not None
        address = self._address()
        name = container["name"]
        target = Target(current.id, container, address)

        def take(finding: Finding) -> None:
            self._take(name, current.id, finding)

        watch = Watch(self._shop.prober, target, current.started_at, take, view.started)
        await (watch_life(watch) if concern == "life" else watch_readiness(watch))

    def _address(self) -> str:
        sandbox = self._memory.sandbox
        return (sandbox.ip if sandbox is not None else "") or self._shop.host.addresses[0]

    def _take(self, name: str, container_id: str, finding: Finding) -> None:
        view = self._memory.view(name)
        if view.current is None or view.current.id != container_id or view.current.state != "running":
            return
        if self._memory.ending is not None and finding.outcome.result == "unknown":
            return  # it has just ended, and says no more about what it serves
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
                text = f"Container {name} failed {kind} probe"
                last = never_restarts(self._memory.pod, find_container(self._memory.pod, name) or {})
                self._memory.change(name, must_restart=text if last else f"{text}, will be restarted")
        self._changed()

    def _say(self, name: str, finding: Finding) -> None:
        title, outcome = finding.kind.capitalize(), finding.outcome
        if outcome.result == "failure":
            self._tell(WARNING, "Unhealthy", f"{title} probe failed: {outcome.message}", name)
        elif outcome.result == "unknown":
            text = f"{title} probe errored and resulted in unknown state: {outcome.message}"
            self._tell(WARNING, "Unhealthy", text, name)
