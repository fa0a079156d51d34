"""One pod's worker: observe, decide, perform, report, until nothing of the pod is left on this node.

One task a pod; made by the roster, fed by it with pod changes (`update`, `vanish`) and runtime news. All decisions are
in `lifecycle`, all effects in `performing`. Invariant: one step at a time; deletion interrupts what may take long
(pulls, hooks, mounts, waits) and nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any

import structlog

from agent import counters
from agent.events import NORMAL, WARNING
from agent.pods import lifecycle
from agent.pods.checkpoints import save_checkpoint
from agent.pods.lifecycle import Step, Wait, next_step
from agent.pods.memory import PodMemory
from agent.pods.observed import EVICTED, Ending, Observed
from agent.pods.observing import PodObserver
from agent.pods.pace import Pace
from agent.pods.performing import Performer
from agent.pods.phase import FINAL_PHASES
from agent.pods.probed import ProbeKeeper
from agent.pods.reporter import StatusReporter
from agent.pods.resizing import Pending, shown_sizes
from agent.pods.spec import find_container, grace_seconds, has_post_start, never_restarts
from agent.pods.status import Rejection, pod_status, rejected_status
from agent.pods.workshop import Workshop
from agent.runtime.errors import RuntimeFault, Timeout
from agent.runtime.protocol import ContainerStatus, SandboxStatus
from api import errors
from api.fencing import is_fenced
from api.objects import Object, is_deleting, name_of, namespace_of

FLUSH_SECONDS = 5.0
CONFIRM_RETRY_SECONDS = 1.0
LEAST_VANISHED_GRACE = 1
EVICTION_GRACE_SECONDS = 1
DEADLINE_EXCEEDED = "DeadlineExceeded"
DEADLINE_MESSAGE = "Pod was active on the node longer than the specified deadline"
_log = structlog.get_logger()


class PodWorker:
    """`owns` is told the ids of sandboxes and containers as they come to be, so that their news reach this worker.

    A `remembered` pod comes from a checkpoint: its status is old, so nothing is reported before the API was heard.
    """

    def __init__(
        self, shop: Workshop, pod: Object, owns: Callable[[str, PodWorker], None], *, remembered: bool = False
    ) -> None:
        self.memory = PodMemory(pod)
        self._shop = shop
        self._tell_owner = owns
        self.observer = PodObserver(shop, self.memory, self._own)
        self.performer = Performer(shop, self.memory, self.observer, self._own)
        self._reporter = StatusReporter(shop.client, pod)
        self._probes = ProbeKeeper(shop, self.memory, self._finding_changed, self.performer.tell)
        self._wake = asyncio.Event()
        self._hurry = asyncio.Event()
        self._removed = False
        self._seen_at = shop.clock()
        self._heard = not remembered
        self._rejection: Rejection | None = None
        self._final_before = _phase(pod) in FINAL_PHASES
        self._recall()
        self._judge_ending()

    @property
    def pod(self) -> Object:
        return self.memory.pod

    # What the roster tells.

    def update(self, pod: Object) -> None:
        """The API has a newer version of the pod."""
        self.memory.pod = pod
        if not self.memory.wants_resize():
            self.memory.pending = None
        self._reporter.heard(pod)
        if not self._heard:
            self._heard = True
            self.memory.held = False
            self._final_before = _phase(pod) in FINAL_PHASES
            self._recall()
        self._judge_ending()
        self._wake.set()

    def settle_size(self, pending: Pending | None) -> None:
        """What the node says to a pod that asks for other resources: None when it may have them."""
        memory = self.memory
        if pending is None:
            memory.grant()
            memory.unsaved = memory.volumes == "ready"
            self.performer.tell(NORMAL, "ResizeStarted", f"Pod resize started: {shown_sizes(self.pod)}")
        elif pending != memory.pending:
            memory.pending = pending
            self.performer.tell(WARNING, f"Resize{pending.reason}", pending.message)
        self._report()
        self._wake.set()

    def vanish(self) -> None:
        """The API has no such pod any more: end it and report nothing."""
        self._removed = True
        self.memory.confirmed = True
        self._reporter.vanished = True
        self._judge_ending()
        self._wake.set()

    def reject(self, rejection: Rejection) -> None:
        """The node cannot take the pod; it fails without being started."""
        self._rejection = rejection
        self.performer.tell(WARNING, rejection.reason, rejection.message)
        self.memory.ending = Ending(0, remove=False)

    def evict(self, message: str, *, disrupted: bool = False) -> None:
        """The node takes the pod off: it fails as Evicted, and what it wrote to the disk goes."""
        if self.memory.ending is not None:
            return
        _log.warning("pod evicted", pod=key_of(self.pod), why=message)
        self.performer.tell(WARNING, EVICTED, message)
        self.memory.ending = Ending(
            EVICTION_GRACE_SECONDS, remove=False, reason=EVICTED, message=message, disrupted=disrupted
        )
        self._hurry.set()
        self._wake.set()

    async def adopt(
        self, sandboxes: Iterable[SandboxStatus], containers: Iterable[ContainerStatus], *, volumes_stand: bool
    ) -> None:
        """What the runtime and the kernel already have of this pod (after a restart of the agent, or a boot)."""
        await self.observer.take(sandboxes, containers)
        self._recall()
        if self.memory.sandbox is not None and volumes_stand:
            self.memory.volumes = "ready"
        self._wake.set()

    def hold_if_fenced(self, *, same_boot: bool) -> None:
        """A fenced pod that is not running here any more may run elsewhere: somebody may have vouched for our end."""
        memory = self.memory
        alive = same_boot and memory.sandbox is not None and memory.sandbox.state == "ready"
        memory.held = not self._heard and not alive and is_fenced(self.pod)
        if memory.held:
            _log.info("fenced pod waits for the control plane", pod=key_of(self.pod), same_boot=same_boot)

    async def recheck(self) -> None:
        """Looks at all that is thought to be alive, one by one (a listing may be older than what was made since)."""
        for view in list(self.memory.views.values()):
            if view.current is not None and view.current.state != "exited":
                await self.container_changed(view.current.id)
        await self.sandbox_changed()

    async def container_changed(self, container_id: str) -> None:
        """Something happened to a container: look at it."""
        await self._noticed(self.observer.look_at(container_id))

    async def sandbox_changed(self) -> None:
        await self._noticed(self.observer.relist_sandboxes())

    async def _noticed(self, look: Awaitable[None]) -> None:
        try:
            await look
        except RuntimeFault as fault:
            _log.info("the runtime does not say what happened", pod=name_of(self.pod), error=fault.message)
            self.memory.doubtful = True
        self._report()
        self._wake.set()

    async def refresh_volumes(self) -> None:
        """Brings mounted ConfigMaps, Secrets and tokens up to date."""
        if self.memory.volumes != "ready" or self.memory.ending is not None:
            return
        for fault in await self._shop.volumes.refresh(self.pod, self.performer.facts()):
            text = f'MountVolume.SetUp failed for volume "{fault.volume}" : {fault.message}'
            self.performer.tell(WARNING, "FailedMount", text)

    # The loop.

    async def run(self) -> None:
        """Ends when nothing of the pod is left; cancelled, it leaves everything as it is (and running)."""
        try:
            async with asyncio.TaskGroup() as tasks:
                background = [tasks.create_task(self._reporter.run()), tasks.create_task(self._probes.run())]
                await self._until_done()
                for task in background:
                    task.cancel()
        finally:
            self.performer.hooks.give_up()

    async def _until_done(self) -> None:
        pace = Pace()
        while True:
            self._report()
            self._probes.adjust()
            now = self._shop.clock()
            step = next_step(self.pod, self.memory.observed(), now)
            if isinstance(step, lifecycle.Done):
                return
            if isinstance(step, Wait):
                pace.rest()
                await self._sleep(step.until - now)
                continue
            failed = not await self._try(step)
            if pause := pace.pause_after(step, failed=failed):
                await self._pause(pause)

    async def _try(self, step: Step) -> bool:
        """Does a step. False: it failed, which is told; what came of it is looked at before the next one."""
        try:
            await self._perform(step)
        except RuntimeFault as fault:
            self.memory.doubtful = True
            _log.warning("runtime trouble", pod=name_of(self.pod), step=type(step).__name__, error=fault.message)
            if isinstance(fault, Timeout):
                self._tell_failure(step, fault.message)
        except OSError as error:
            told = f"{error.strerror or error}: {error.filename}" if error.filename else error.strerror or str(error)
            _log.warning("disk trouble", pod=name_of(self.pod), step=type(step).__name__, error=told)
            self._tell_failure(step, told)
        else:
            return True
        return False

    def _tell_failure(self, step: Step, why: str) -> None:
        if isinstance(step, lifecycle.Terminate | lifecycle.KillContainer | lifecycle.RemoveSandbox):
            self.performer.tell(WARNING, "FailedKillPod", f"error killing pod: {why}")
        else:
            self.performer.tell(WARNING, "FailedSync", f"Error syncing pod: {why}")

    async def _pause(self, seconds: float) -> None:
        """Waits before a step is done again; only that the pod has to end cuts it short."""
        if self.memory.ending is not None:
            await asyncio.sleep(seconds)
            return
        self._hurry.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._hurry.wait()

    async def _sleep(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(None if seconds == lifecycle.FOREVER else max(seconds, 0.001)):
                await self._wake.wait()
        except TimeoutError:
            return
        self._wake.clear()

    async def _perform(self, step: Step) -> None:
        performer = self.performer
        match step:
            case lifecycle.Observe():
                await performer.observe()
                self._report()
            case lifecycle.SaveCheckpoint():
                await self._save_checkpoint()
            case lifecycle.MountVolumes():
                await self._save_checkpoint()
                await self._unless_ending(performer.mount_volumes())
            case lifecycle.RunSandbox(attempt):
                await performer.run_sandbox(attempt)
            case lifecycle.PullImage(name):
                await self._unless_ending(performer.pull_image(name))
            case lifecycle.StartContainer():
                await performer.start_container(step)
                await self.observer.read_words(step.name)
            case lifecycle.RunHook(name):
                await self._unless_ending(performer.run_hook(name))
            case lifecycle.Announce():
                performer.announce(step)
            case lifecycle.KillContainer():
                await performer.kill_container(step)
                await self.observer.read_words(step.name)
            case lifecycle.ResizeContainer(name):
                await performer.resize_container(name)
            case lifecycle.RemoveContainer(container_id):
                await performer.remove_container(container_id)
            case lifecycle.Expire():
                self._expire()
            case lifecycle.Terminate(grace):
                await self._terminate(grace)
            case lifecycle.RemoveSandbox(sandbox_id):
                await performer.remove_sandbox(sandbox_id)
            case lifecycle.ReleaseVolumes():
                await performer.release_volumes()
            case lifecycle.UnmountVolumes():
                await performer.unmount_volumes()
            case lifecycle.Confirm():
                await self._confirm()

    async def _unless_ending(self, work: Coroutine[Any, Any, None]) -> None:
        """Does work that may take long; gives it up when the pod has to end."""
        if self.memory.ending is not None:
            work.close()
            return
        task, hurry = asyncio.create_task(work), asyncio.create_task(self._hurry.wait())
        try:
            await asyncio.wait({task, hurry}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            hurry.cancel()
            if not task.done():
                task.cancel()
            await asyncio.wait({task})
        if not task.cancelled():
            task.result()

    async def _save_checkpoint(self) -> None:
        """Remembers the pod on the disk. Raises OSError."""
        self.memory.unsaved = False
        try:
            await asyncio.to_thread(save_checkpoint, self._shop.paths, self.pod)
        except OSError:
            self.memory.unsaved = self.memory.volumes == "ready"
            raise

    def _expire(self) -> None:
        self.performer.tell(NORMAL, DEADLINE_EXCEEDED, DEADLINE_MESSAGE)
        self.memory.ending = Ending(
            grace_seconds(self.pod), remove=False, reason=DEADLINE_EXCEEDED, message=DEADLINE_MESSAGE
        )

    async def _terminate(self, grace: int) -> None:
        """Stops everything; a grace period that is shortened meanwhile starts over with the shorter one."""
        while True:
            self._hurry.clear()
            stopping = asyncio.create_task(self._stop_all(grace))
            hurry = asyncio.create_task(self._hurry.wait())
            try:
                await asyncio.wait({stopping, hurry}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                hurry.cancel()
                if not stopping.done():
                    stopping.cancel()
                    await asyncio.wait({stopping})
            if not stopping.cancelled():
                return stopping.result()
            grace = min(grace, self.memory.ending.grace_seconds if self.memory.ending else grace)

    async def _stop_all(self, grace: int) -> None:
        memory, runtime = self.memory, self._shop.runtime
        self._probes.stop_judging_life()
        self.performer.hooks.give_up()
        await self.performer.stopper.stop_all(self.pod, memory.views, grace, self.performer.address())
        if memory.sandbox is not None:
            await runtime.stop_sandbox(memory.sandbox.id)
        for view in list(memory.views.values()):
            if view.current is not None and view.current.state != "exited":
                await self.observer.look_at(view.current.id)
                self._settle(view.current.name)
        await self.observer.relist_sandboxes()

    def _settle(self, name: str) -> None:
        """After its sandbox was stopped a container cannot run, whatever the runtime still thinks of it."""
        current = self.memory.view(name).current
        if current is not None and current.state in ("created", "unknown"):
            self.memory.forget_container(current.id)

    async def _confirm(self) -> None:
        """The API learns the end. Without its answer the worker tries again, later."""
        self._report()
        if not await self._reporter.flush(FLUSH_SECONDS):
            return
        if self._reporter.vanished or not is_deleting(self.pod):
            self.memory.confirmed = True
            return
        try:
            await self._reporter.confirm_deleted()
            self.memory.confirmed = True
        except errors.ApiError as error:
            _log.info("deletion not confirmed", pod=name_of(self.pod), error=error.message)
            await self._sleep(CONFIRM_RETRY_SECONDS)

    # Inside.

    def _report(self) -> None:
        if self._removed or self._final_before or not self._heard or self._is_restarting():
            return
        now, observed, before = self._shop.clock(), self.memory.observed(), self.memory.seen_pod()
        if self._rejection is not None:
            status = rejected_status(before, self._rejection, now)
        else:
            status = pod_status(before, observed, now, self._shop.host)
            if status.get("phase") == "Running" and _phase(before) in ("", "Pending"):
                counters.pod_runs(now - self._seen_at)
        self.memory.reported = status
        self._reporter.offer(status, ending=self._is_going(observed))

    def _is_going(self, observed: Observed) -> bool:
        """The pod's last containers have ended or are being stopped: its final status follows soon."""
        if self.memory.ending is not None:
            return self.memory.ending.remove
        ready = observed.sandbox is not None and observed.sandbox.state == "ready"
        return ready and lifecycle.is_finished(self.pod, observed)

    def _is_restarting(self) -> bool:
        """A container was stopped by the agent to be started again at once: its end is no news."""
        for name, view in self.memory.views.items():
            stopped = view.killed_for_restart and view.current is not None and view.current.state == "exited"
            if stopped and view.waiting is None and not never_restarts(self.pod, find_container(self.pod, name) or {}):
                return True
        return False

    def _judge_ending(self) -> None:
        """Whether, and with how much grace, the pod has to end."""
        pod, before = self.pod, self.memory.ending
        if self._removed:
            ending = Ending(max(grace_seconds(pod), LEAST_VANISHED_GRACE))
        elif is_deleting(pod):
            ending = Ending(grace_seconds(pod))
        elif _phase(pod) in FINAL_PHASES and (self._final_before or not self._is_own_end()):
            ending = Ending(grace_seconds(pod), remove=False)
        else:
            return
        if before is not None and before.remove and ending.grace_seconds >= before.grace_seconds:
            return
        if ending.remove and (before is None or not before.remove):
            self.memory.confirmed = self._removed
        self.memory.ending = ending
        self._hurry.set()

    def _is_own_end(self) -> bool:
        return self.memory.reported.get("phase") == _phase(self.pod)

    def _finding_changed(self) -> None:
        self._probes.adjust()
        self._report()
        self._wake.set()

    def _own(self, made: str) -> None:
        self._tell_owner(made, self)

    def _recall(self) -> None:
        """After a restart of the agent: containers are as ready and as started as they were, and counted on."""
        status = self.pod.get("status") or {}
        shown_running: set[str] = set()
        for section in ("initContainerStatuses", "containerStatuses"):
            for entry in status.get(section) or ():
                view = self.memory.view(entry["name"])
                if entry.get("containerID"):
                    self.memory.change(entry["name"], next_attempt=(entry.get("restartCount") or 0) + 1)
                if "running" in (entry.get("state") or {}):
                    shown_running.add(str(entry.get("containerID")).partition("://")[2])
                same = view.current is not None and str(entry.get("containerID") or "").endswith(view.current.id)
                if same and view.current is not None and view.current.state == "running":
                    started, ready = view.started or bool(entry.get("started")), view.ready or bool(entry["ready"])
                    resources = view.resources if view.resources is not None else entry.get("resources")
                    self.memory.change(entry["name"], started=started, ready=ready, resources=resources)
        if self._heard:
            self._recall_hooks(shown_running)

    def _recall_hooks(self, shown_running: set[str]) -> None:
        """A postStart hook that ended with the agent before runs again: hooks are delivered at least once.

        A container is shown as running when its hook is over, so that one that never was has a hook to run.
        """
        for name, view in list(self.memory.views.items()):
            current = view.current
            if current is None or current.state != "running" or current.id in shown_running:
                continue
            if self.performer.hooks.was_begun(name, current.id):
                continue
            if has_post_start(find_container(self.pod, name) or {}):
                self.memory.change(name, hook_pending=True)


def _phase(pod: Object) -> str:
    return (pod.get("status") or {}).get("phase") or ""


def key_of(pod: Object) -> str:
    """`namespace/name`, for logs."""
    return f"{namespace_of(pod)}/{name_of(pod)}"
