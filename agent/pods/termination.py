"""Stopping containers gracefully: preStop hook, order, SIGTERM, SIGKILL.

Called by the worker for one container (it must be replaced) or for all of a pod. The grace period is one budget for
hook, waiting and stop signal together; sidecars go after the main containers, in the reverse of their start order. See
kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle#pod-termination.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from agent.events import NORMAL, WARNING
from agent.pods.observed import ContainerView
from agent.pods.spec import find_container, init_containers, is_sidecar
from agent.probing import Outcome, Prober, Target
from agent.runtime.protocol import Runtime
from api.objects import Object

LEAST_GRACE_SECONDS = 2.0
Tell = Callable[[str, str, str, str], None]
"""(type, reason, message, container) of an event about the pod."""


@dataclass
class Stopper:
    """Stops containers of one pod. `hooked` remembers whose preStop hook ran, so that it runs once."""

    runtime: Runtime
    prober: Prober
    tell: Tell
    hooked: set[str] = field(default_factory=set)

    async def stop_one(self, pod: Object, view: ContainerView, message: str, grace: float, address: str) -> None:
        """Stops one container. Raises RuntimeFault."""
        if view.current is None:
            return
        name = view.current.name
        container = find_container(pod, name) or {"name": name}
        self.tell(NORMAL, "Killing", message or f"Stopping container {name}", name)
        left = grace - await self._pre_stop(view.current.id, container, grace, address)
        await self.runtime.stop_container(view.current.id, max(left, LEAST_GRACE_SECONDS))

    async def stop_all(
        self, pod: Object, views: Mapping[str, ContainerView], grace_seconds: float, address: str
    ) -> None:
        """Stops every container that runs, side by side, sidecars in their turn. Raises RuntimeFault."""
        running = {name: view for name, view in views.items() if view.current and view.current.state != "exited"}
        order = _turns(pod, running)
        ended = {name: asyncio.Event() for name in running}

        async def stop(name: str) -> None:
            view = running[name]
            assert view.current is not None
            container = find_container(pod, name) or {"name": name}
            began = time.monotonic()
            try:
                if view.current.id not in self.hooked:
                    self.tell(NORMAL, "Killing", f"Stopping container {name}", name)
                await self._pre_stop(view.current.id, container, grace_seconds, address)
                await _turn(order[name], ended, grace_seconds - (time.monotonic() - began))
                left = grace_seconds - (time.monotonic() - began)
                await self.runtime.stop_container(view.current.id, max(left, LEAST_GRACE_SECONDS))
            finally:
                ended[name].set()

        await asyncio.gather(*(stop(name) for name in running))

    async def _pre_stop(
        self, container_id: str, container: Mapping[str, Any], grace_seconds: float, address: str
    ) -> float:
        """Runs the hook, at most as long as the grace period; returns the seconds it took."""
        first = container_id not in self.hooked
        self.hooked.add(container_id)
        hook = (container.get("lifecycle") or {}).get("preStop")
        if not hook or grace_seconds <= 0 or not first:
            return 0.0
        began = time.monotonic()
        outcome = await run_hook(self.prober, hook, Target(container_id, container, address), grace_seconds)
        if outcome.result != "success":
            self.tell(WARNING, "FailedPreStopHook", "PreStopHook failed", str(container["name"]))
        return time.monotonic() - began


async def run_hook(prober: Prober, hook: Mapping[str, Any], target: Target, timeout_seconds: float) -> Outcome:
    """A lifecycle hook: exec, httpGet, sleep. A hook of tcpSocket is no hook and fails, as the kubelet has it."""
    if "tcpSocket" in hook:
        return Outcome("failure", "invalid handler")
    if pause := hook.get("sleep"):
        await asyncio.sleep(min(float(pause.get("seconds") or 0), timeout_seconds))
        return Outcome("success")
    return await prober.look(hook, target, timeout_seconds)


def _turns(pod: Object, running: Mapping[str, ContainerView]) -> dict[str, list[str]]:
    """For each container the ones that must have ended before it is signalled."""
    sidecars = [container["name"] for container in init_containers(pod) if is_sidecar(container)]
    mains = [name for name in running if name not in sidecars]
    turns: dict[str, list[str]] = {name: [] for name in mains}
    for index, name in enumerate(sidecars):
        if name in running:
            turns[name] = [*mains, *(later for later in sidecars[index + 1 :] if later in running)]
    return turns


async def _turn(before: list[str], ended: Mapping[str, asyncio.Event], seconds: float) -> None:
    try:
        async with asyncio.timeout(max(seconds, 0.0)):
            for name in before:
                await ended[name].wait()
    except TimeoutError:
        return
