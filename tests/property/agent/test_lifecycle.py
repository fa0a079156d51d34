"""next_step from any observed state: it never touches what runs for nothing, and its steps come to an end."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.pods import lifecycle as steps
from agent.pods.backoff import Entry
from agent.pods.lifecycle import Step, next_step
from agent.pods.observed import ContainerView, Ending, Observed
from agent.runtime.protocol import ContainerStatus
from api.objects import Object
from tests.unit.agent.builders import NOW, a_container, a_pod, a_sandbox, exited, status

MOST_STEPS = 200


@st.composite
def views(draw: st.DrawFn, name: str) -> ContainerView:
    state = draw(st.sampled_from(["none", "created", "running", "exited", "unknown"]))
    attempt = draw(st.integers(0, 3))
    code = draw(st.sampled_from([0, 1, 137]))
    box = draw(st.sampled_from(["box-0", "box-gone"]))
    if state == "none":
        current = None
    elif state == "exited":
        current = replace(exited(name, code, attempt, NOW - draw(st.integers(0, 400))), sandbox_id=box)
    else:
        current = replace(status(name, state, attempt), sandbox_id=box)
    previous = exited(name, 1, attempt - 1, NOW - 500) if attempt and current else None
    return ContainerView(
        current=current,
        previous=previous,
        dead=("old",) if draw(st.booleans()) else (),
        image=draw(st.sampled_from(["", "img"])),
        not_before=draw(st.sampled_from([0.0, NOW + 5])),
        hook_pending=state == "running" and draw(st.booleans()),
        started=state == "running" and draw(st.booleans()),
        must_restart="failed liveness probe" if state == "running" and draw(st.booleans()) else "",
        killed_for_restart=draw(st.booleans()),
        back_off=draw(st.sampled_from([None, Entry(10.0, NOW - 20), Entry(300.0, NOW - 1)])),
    )


@st.composite
def situations(draw: st.DrawFn) -> tuple[Object, Observed]:
    policy = draw(st.sampled_from(["Always", "OnFailure", "Never"]))
    inits = []
    for index in range(draw(st.integers(0, 2))):
        sidecar = {"restartPolicy": "Always"} if draw(st.booleans()) else {}
        inits.append(a_container(f"i{index}", **sidecar))
    mains = [a_container(f"c{index}") for index in range(draw(st.integers(1, 2)))]
    pod = a_pod(*mains, inits=tuple(inits), policy=policy)
    names = [container["name"] for container in (*inits, *mains)]
    sandbox = draw(st.sampled_from([None, a_sandbox(), a_sandbox(state="notready")]))
    ending = draw(st.sampled_from([None, None, Ending(5), Ending(0, remove=False)]))
    volumes = draw(st.sampled_from(["absent", "ready"]))
    observed = Observed(
        sandbox=sandbox,
        containers={name: draw(views(name)) for name in names},
        old_sandboxes=("older",) if draw(st.booleans()) else (),
        volumes=volumes,  # type: ignore[arg-type]
        ending=ending,
    )
    return pod, observed


def regular_inits(pod: Object) -> set[str]:
    return {c["name"] for c in pod["spec"].get("initContainers", ()) if not c.get("restartPolicy")}


class World:
    """Performs steps on the observed state: everything works, regular inits succeed, the rest runs on."""

    def __init__(self, pod: Object, observed: Observed) -> None:
        self.pod = pod
        self.seen = observed
        self.now = NOW

    def change(self, name: str, view: ContainerView) -> None:
        self.seen = replace(self.seen, containers={**self.seen.containers, name: view})

    def perform(self, step: Step) -> None:
        seen = self.seen
        match step:
            case steps.MountVolumes():
                self.seen = replace(seen, volumes="ready")
            case steps.RunSandbox(attempt):
                old = (*seen.old_sandboxes, seen.sandbox.id) if seen.sandbox else seen.old_sandboxes
                self.seen = replace(seen, sandbox=a_sandbox(attempt), old_sandboxes=old)
            case steps.PullImage(name):
                self.change(name, replace(seen.containers[name], image="img"))
            case steps.StartContainer():
                self._start(step)
            case steps.RunHook(name):
                self.change(name, replace(seen.containers[name], hook_pending=False))
            case steps.Announce():
                self.change(step.name, replace(seen.containers[step.name], waiting=step.waiting))
            case steps.KillContainer():
                self._stop(step.name)
            case steps.RemoveContainer(container_id):
                self._remove(container_id)
            case steps.Terminate():
                for name in seen.containers:
                    self._stop(name)
                box = replace(seen.sandbox, state="notready") if seen.sandbox else None
                self.seen = replace(self.seen, sandbox=box)
            case steps.RemoveSandbox(sandbox_id):
                box = None if seen.sandbox and seen.sandbox.id == sandbox_id else seen.sandbox
                left = tuple(old for old in seen.old_sandboxes if old != sandbox_id)
                self.seen = replace(seen, sandbox=box, old_sandboxes=left)
            case steps.ReleaseVolumes():
                self.seen = replace(seen, volumes="released")
            case steps.UnmountVolumes():
                self.seen = replace(seen, volumes="removed")
            case steps.Confirm():
                self.seen = replace(seen, confirmed=True)
            case steps.Wait(until):
                self.now = until

    def _start(self, step: steps.StartContainer) -> None:
        view = self.seen.containers[step.name]
        assert view.current is None or view.current.state == "exited", "started what was not over"
        assert self.seen.sandbox is not None and self.seen.sandbox.state == "ready"
        fresh: ContainerStatus = replace(
            status(step.name, attempt=step.attempt), sandbox_id=self.seen.sandbox.id, created_at=self.now
        )
        init = any(
            c["name"] == step.name and not c.get("restartPolicy") for c in self.pod["spec"].get("initContainers", ())
        )
        if init:
            fresh = replace(fresh, state="exited", exit_code=0, finished_at=self.now)
        self.change(step.name, ContainerView(current=fresh, previous=view.current, started=not init, ready=not init))

    def _stop(self, name: str) -> None:
        view = self.seen.containers[name]
        if view.current is not None and view.current.state != "exited":
            ended = replace(view.current, state="exited", exit_code=137, finished_at=self.now)
            self.change(name, replace(view, current=ended, must_restart="", hook_pending=False, started=False))

    def _remove(self, container_id: str) -> None:
        for name, view in self.seen.containers.items():
            if view.current is not None and view.current.id == container_id:
                assert view.current.state != "running", "removed what runs"
                self.change(name, replace(view, current=view.previous, previous=None))
            else:
                self.change(
                    name, replace(self.seen.containers[name], dead=tuple(d for d in view.dead if d != container_id))
                )


@settings(max_examples=400, deadline=None)
@given(situations())
def test_from_any_state_the_steps_end_in_rest(situation: tuple[Object, Observed]) -> None:
    world = World(*situation)
    for _ in range(MOST_STEPS):
        step = next_step(world.pod, world.seen, world.now)
        if isinstance(step, steps.Done) or step == steps.Wait(steps.FOREVER):
            break
        assert not isinstance(step, steps.Wait) or step.until > world.now, "a wait that is over at once"
        before = world.seen
        world.perform(step)
        assert isinstance(step, steps.Wait) or world.seen != before, f"{step} changed nothing"
    else:
        raise AssertionError(f"no rest after {MOST_STEPS} steps, last: {step}")
    assert next_step(world.pod, world.seen, world.now) == step
    if situation[1].ending is not None and situation[1].ending.remove:
        assert step == steps.Done()


@settings(max_examples=200, deadline=None)
@given(situations())
def test_what_runs_well_is_never_touched(situation: tuple[Object, Observed]) -> None:
    pod, observed = situation
    healthy = {
        name: ContainerView(current=status(name), started=True, ready=True)
        for name in observed.containers
        if name.startswith("c")
        or any(c["name"] == name and c.get("restartPolicy") for c in pod["spec"].get("initContainers", ()))
    }
    done = {name: ContainerView(current=exited(name, 0)) for name in observed.containers if name not in healthy}
    world = World(
        pod, replace(observed, containers={**healthy, **done}, sandbox=a_sandbox(), ending=None, volumes="ready")
    )
    for _ in range(MOST_STEPS):
        step = next_step(pod, world.seen, world.now)
        if step == steps.Wait(steps.FOREVER):
            return
        assert isinstance(step, steps.RemoveSandbox | steps.RemoveContainer), step
        world.perform(step)
    raise AssertionError("no rest")
