"""The postStart hooks of one pod's containers: begun in the moment a container runs, waited for in a step of their own.

Called by the performer and the worker. Main process and hook start side by side, as on the kubelet: nothing (a look at
the container, a report) comes in between, or a busy machine would let a short main process end before its hook began.
"""

from __future__ import annotations

import asyncio

from agent.pods.termination import run_hook
from agent.probing import Outcome, Prober, Target

HOOK_SECONDS = 3600.0


class PostStartHooks:
    """At most one hook of each container name is under way. `give_up` has to be called before the worker ends."""

    def __init__(self, prober: Prober) -> None:
        self._prober = prober
        self._under_way: dict[str, asyncio.Task[Outcome]] = {}
        self._begun: dict[str, str] = {}
        """The id of the container whose hook was begun last, by name."""

    async def begin(self, target: Target) -> None:
        """Begins the hook of a container, if it has one that does not run yet; returns once it was sent."""
        name, hook = target.container["name"], (target.container.get("lifecycle") or {}).get("postStart")
        if not hook or (name in self._under_way and self.was_begun(name, target.container_id)):
            return
        self.give_up(name)
        self._begun[name] = target.container_id
        self._under_way[name] = asyncio.create_task(run_hook(self._prober, hook, target, HOOK_SECONDS))
        await asyncio.sleep(0)

    async def outcome(self, target: Target) -> Outcome:
        """How the hook of a container ends; begins it, if that was left to do. Cancelled, it gives the hook up."""
        await self.begin(target)
        name = target.container["name"]
        try:
            return await self._under_way[name]
        finally:
            self.give_up(name)

    def was_begun(self, name: str, container_id: str) -> bool:
        return self._begun.get(name) == container_id

    def give_up(self, *names: str) -> None:
        """Ends what is under way for these containers; for all, if none is named."""
        for name in names or tuple(self._under_way):
            if (task := self._under_way.pop(name, None)) is not None:
                task.cancel()
