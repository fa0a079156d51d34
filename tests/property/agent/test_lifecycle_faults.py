"""The lifecycle among faults: any step may fail, time out with or without effect, meet a full disk, or a reboot.

The world has a truth (what really runs) beside what the agent knows of it. Whatever goes wrong, no container is ever
doubled, a steady fault costs a bounded number of calls, and once the faults end the pod comes to its rest.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.pods import lifecycle as steps
from agent.pods.lifecycle import Step, next_step
from agent.pods.memory import PodMemory
from agent.pods.observed import Ending
from agent.pods.pace import LAST_PAUSE_SECONDS, Pace
from agent.runtime.protocol import ContainerStatus, SandboxStatus
from api.objects import Object
from tests.unit.agent.builders import NOW, a_container, a_pod, a_sandbox, status

Fate = Literal["done", "failed", "lost", "late", "full disk", "reboot"]
"""`failed`: not done, and told. `lost`: not done, unanswered. `late`: done, unanswered. `full disk`: not kept."""
FATES: tuple[Fate, ...] = ("done", "failed", "lost", "late", "full disk", "reboot")
MOST_STEPS = 400
WRITES = (steps.SaveCheckpoint, steps.MountVolumes)
OF_THE_RUNTIME = (
    steps.RunSandbox, steps.StartContainer, steps.KillContainer, steps.RemoveContainer, steps.Terminate,
    steps.RemoveSandbox,
)  # fmt: skip


@dataclass
class Truth:
    """What the runtime and the machine really have."""

    boxes: dict[str, SandboxStatus] = field(default_factory=dict)
    containers: dict[str, ContainerStatus] = field(default_factory=dict)
    mounted: bool = False


class World:
    """One pod's worker, its steps played against a truth that it learns of only where it looks."""

    def __init__(self, pod: Object) -> None:
        self.pod = pod
        self.truth = Truth()
        self.memory = PodMemory(pod)
        self.now = NOW
        self.pace = Pace()
        self.performed = 0

    def step(self, fate: Fate) -> Step:
        """Decides and performs once, as the worker does."""
        if fate == "reboot":
            self._reboot()
        step = next_step(self.pod, self.memory.observed(), self.now)
        if isinstance(step, steps.Done):
            return step
        if isinstance(step, steps.Wait):
            self.pace.rest()
            self.now = step.until if step.until != steps.FOREVER else self.now
            return step
        self.performed += 1
        failed = self._perform(step, fate)
        self.now += self.pace.pause_after(step, failed=failed)
        self._nothing_is_doubled()
        return step

    def _perform(self, step: Step, fate: Fate) -> bool:
        """Whether it failed."""
        if isinstance(step, WRITES):
            if fate not in ("done", "reboot"):
                return True
        elif isinstance(step, steps.Observe):
            if fate in ("failed", "lost", "late"):
                return True
        elif isinstance(step, OF_THE_RUNTIME) and fate in ("failed", "lost", "late"):
            if fate == "late":
                self._take_effect(step)
            self.memory.doubtful = True
            return True
        if not self._take_effect(step):
            self.memory.doubtful = True
            return True
        self._learn(step)
        return False

    def _take_effect(self, step: Step) -> bool:
        """Whether it could be done: the runtime refuses a second one of a name and attempt, and what has no sandbox."""
        truth = self.truth
        match step:
            case steps.RunSandbox(attempt):
                fresh = replace(a_sandbox(attempt), created_at=self.now)
                if fresh.id in truth.boxes:
                    return False
                truth.boxes[fresh.id] = fresh
            case steps.StartContainer():
                return self._start(step)
            case steps.KillContainer():
                self._stop(step.container_id)
            case steps.RemoveContainer(container_id):
                truth.containers.pop(container_id, None)
            case steps.Terminate():
                for container_id in truth.containers:
                    self._stop(container_id)
                truth.boxes = {key: replace(box, state="notready") for key, box in truth.boxes.items()}
            case steps.RemoveSandbox(sandbox_id):
                truth.boxes.pop(sandbox_id, None)
                inside = [key for key, one in truth.containers.items() if one.sandbox_id == sandbox_id]
                for container_id in inside:
                    del truth.containers[container_id]
            case steps.MountVolumes():
                truth.mounted = True
            case steps.UnmountVolumes() | steps.ReleaseVolumes():
                truth.mounted = False
        return True

    def _start(self, step: steps.StartContainer) -> bool:
        sandbox = self.memory.sandbox
        assert sandbox is not None and self.truth.mounted, "started without sandbox or volumes"
        made = status(step.name, attempt=step.attempt)
        if made.id in self.truth.containers or sandbox.id not in self.truth.boxes:
            return False
        fresh = replace(made, sandbox_id=sandbox.id, created_at=self.now, started_at=self.now)
        if step.name == "i":
            fresh = replace(fresh, state="exited", exit_code=0, reason="Completed", finished_at=self.now)
        self.truth.containers[fresh.id] = fresh
        return True

    def _stop(self, container_id: str) -> None:
        known = self.truth.containers.get(container_id)
        if known is not None and known.state != "exited":
            ended = replace(known, state="exited", exit_code=137, reason="Error", finished_at=self.now)
            self.truth.containers[container_id] = ended

    def _learn(self, step: Step) -> None:
        memory = self.memory
        match step:
            case steps.Observe():
                memory.doubtful = False
                self._look()
            case steps.MountVolumes():
                memory.volumes = "ready"
            case steps.UnmountVolumes():
                memory.volumes = "removed"
            case steps.ReleaseVolumes():
                memory.volumes = "released"
            case steps.PullImage(name):
                memory.change(name, image="img")
            case steps.Announce():
                memory.change(step.name, waiting=step.waiting)
            case steps.Confirm():
                memory.confirmed = True
            case steps.RemoveContainer(container_id):
                memory.forget_container(container_id)
            case steps.RemoveSandbox(sandbox_id):
                memory.forget_sandbox(sandbox_id)
            case _:
                self._look()

    def _look(self) -> None:
        memory = self.memory
        memory.take_sandboxes(self.truth.boxes.values())
        memory.take_containers(self.truth.containers.values())
        for view in list(memory.views.values()):
            if view.current is not None and view.current.id not in self.truth.containers:
                memory.lose_container(view.current.id, self.now)

    def _reboot(self) -> None:
        """Nothing runs any more, mounts are gone, and a new agent finds what is left."""
        for container_id in self.truth.containers:
            self._stop(container_id)
        self.truth.boxes = {key: replace(box, state="notready") for key, box in self.truth.boxes.items()}
        self.truth.mounted = False
        ending, before = self.memory.ending, self.memory.confirmed
        self.memory, self.pace = PodMemory(self.pod), Pace()
        self.memory.ending, self.memory.confirmed = ending, before
        self._look()

    def _nothing_is_doubled(self) -> None:
        alive = [one.name for one in self.truth.containers.values() if one.state == "running"]
        assert len(alive) == len(set(alive)), f"doubled: {alive}"
        assert sum(box.state == "ready" for box in self.truth.boxes.values()) <= 1, "two sandboxes are alive"


def a_world() -> World:
    return World(a_pod(a_container("c"), a_container("d"), inits=(a_container("i"),)))


def settle(world: World) -> Step:
    step: Step = steps.Wait(0)
    for _ in range(MOST_STEPS):
        step = world.step("done")
        if isinstance(step, steps.Done) or step == steps.Wait(steps.FOREVER):
            return step
    raise AssertionError(f"no rest after {MOST_STEPS} steps, last: {step}")


@settings(max_examples=400, deadline=None)
@given(st.lists(st.sampled_from(FATES), max_size=40), st.integers(0, 40))
def test_whatever_fails_nothing_is_doubled_and_the_pod_comes_to_its_rest(fates: list[Fate], deleted_after: int) -> None:
    world = a_world()
    for number, fate in enumerate(fates):
        if number == deleted_after:
            world.memory.ending = Ending(5)
        world.step(fate)
    if deleted_after < len(fates):
        assert settle(world) == steps.Done()
        assert not world.truth.boxes and not world.truth.containers and not world.truth.mounted
    else:
        assert settle(world) == steps.Wait(steps.FOREVER)
        running = {one.name for one in world.truth.containers.values() if one.state == "running"}
        assert running == {"c", "d"} and world.truth.mounted


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 12), st.sampled_from(["failed", "lost", "late", "full disk"]))
def test_a_fault_that_stays_costs_ever_fewer_calls(healthy: int, fate: Fate) -> None:
    world = a_world()
    for _ in range(healthy):
        world.step("done")
    began = world.now
    before = world.performed
    for _ in range(200):
        if world.step(fate) == steps.Wait(steps.FOREVER):
            return  # nothing is left that could fail
    waited = world.now - began
    assert world.performed - before <= 40 + 2 * waited / LAST_PAUSE_SECONDS, "a worker that spins"
