"""Which pods belong on this node: API and runtime news in, one worker a pod out.

Called by main. At start the runtime is listed and the checkpoints are read, so that running containers are adopted and
none restarts, whether the API answers or not; once the API's list is whole, what it does not know ends and what nobody
owns is removed. What the machine ran under a name that it had before ends at once. Invariant: a pod (by uid) has at
most one worker.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable

import structlog

from agent.pods.admission import NODE_AFFINITY, NodeFacts, admit, judge_resize
from agent.pods.checkpoints import load_checkpoints
from agent.pods.configs import NODE_LABEL, POD_UID
from agent.pods.env import Source, references
from agent.pods.images import pull_secret_names
from agent.pods.orphans import remove_orphans
from agent.pods.phase import FINAL_PHASES
from agent.pods.spec import all_containers
from agent.pods.status import Rejection
from agent.pods.worker import PodWorker, key_of
from agent.pods.workshop import Workshop
from agent.runtime.errors import NotFound, RuntimeFault
from agent.runtime.protocol import ContainerStatus, RuntimeEvent, SandboxStatus
from agent.volumes.payload import needs
from api.client import Selection
from api.kinds import by_resource
from api.objects import Object, namespace_of, uid_of

PODS = by_resource("", "pods")
RELIST_SECONDS = 60.0
REFRESH_SECONDS = 60.0
ORPHANS_RETRY_SECONDS = 5.0
RETRY_SECONDS, LAST_RETRY_SECONDS = 1.0, 60.0
_log = structlog.get_logger()


class Roster:
    """All pod workers of this node. `facts` says, when asked, what the node can take (for admission).

    `former` are the names that the machine had before.
    """

    def __init__(self, shop: Workshop, facts: NodeFacts, former: Iterable[str] = ()) -> None:
        self._shop = shop
        self._facts = facts
        self._names = {shop.node.name, *former}
        self._stocked = False
        self._workers: dict[str, PodWorker] = {}
        self._owners: dict[str, PodWorker] = {}
        self._group: asyncio.TaskGroup | None = None
        self.synced = asyncio.Event()
        """The API's list of this node's pods has been seen whole."""

    def workers(self) -> list[PodWorker]:
        return list(self._workers.values())

    def find(self, namespace: str, name: str, uid: str = "") -> PodWorker | None:
        """The worker of a pod by its name; of two with one name, the one that is not ending."""
        found = [
            worker
            for worker in self._workers.values()
            if key_of(worker.pod) == f"{namespace}/{name}" and uid in ("", uid_of(worker.pod))
        ]
        return min(found, key=lambda worker: worker.memory.ending is not None, default=None)

    async def has_left(self, former: str) -> bool:
        """Whether nothing runs here any more of what this machine ran under a former name."""
        if not self._stocked or any(_node_of(worker.pod) == former for worker in self._workers.values()):
            return False
        try:
            return not await self._shop.runtime.list_sandboxes({NODE_LABEL: former})
        except RuntimeFault:
            return False

    async def run(self) -> None:
        """Runs until cancelled; containers are then left as they are."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            await self._take_stock()
            group.create_task(self._follow_pods())
            group.create_task(self._follow_runtime())
            group.create_task(self._relist())
            group.create_task(self._refresh_volumes())
            group.create_task(self._remove_orphans())

    # The API's news.

    async def _follow_pods(self) -> None:
        listed: set[str] = set()
        synced_once = False
        async for event in self._shop.client.watch(PODS, Selection(fields=f"spec.nodeName={self._shop.node.name}")):
            if event.type == "SYNCED":
                if not synced_once:
                    await self._settle(listed)
                synced_once = True
                self.synced.set()
                continue
            uid = uid_of(event.object)
            if event.type == "DELETED":
                listed.discard(uid)
                if uid in self._workers:
                    self._workers[uid].update(event.object)
                    self._workers[uid].vanish()
                continue
            listed.add(uid)
            await self._take(event.object)

    async def _take(self, pod: Object) -> None:
        """A pod that is new here, or a newer version of one that is known."""
        worker = self._workers.get(uid_of(pod))
        if worker is not None:
            worker.update(pod)
            self._settle_sizes()
            return
        worker = PodWorker(self._shop, pod, self._own)
        phase = (pod.get("status") or {}).get("phase")
        if phase not in FINAL_PHASES and worker.memory.ending is None:
            rejection = await self._judge(worker)
            if rejection is not None:
                worker.reject(rejection)
        self._start(worker)

    async def _judge(self, worker: PodWorker) -> Rejection | None:
        """Whether the node can take a new pod. A rejection is for good: labels are read anew before one for them."""
        rejection = admit(worker.pod, self._others(worker), self._facts)
        if rejection is None or rejection.reason != NODE_AFFINITY or self._facts.read_labels is None:
            return rejection
        self._facts.labels = await self._facts.read_labels()
        return admit(worker.pod, self._others(worker), self._facts)

    def _others(self, worker: PodWorker) -> list[Object]:
        """The other pods of the node that are not over, with what each was granted."""
        others = (other for other in self._workers.values() if other is not worker and not _is_over(other))
        return [other.memory.granted_pod() for other in others]

    def _settle_sizes(self) -> None:
        """Answers pods that ask for other resources, the most important ones first; what waits is asked again."""
        waiting = [worker for worker in self._workers.values() if worker.memory.wants_resize()]
        for worker in sorted(waiting, key=lambda worker: -(worker.pod["spec"].get("priority") or 0)):
            worker.settle_size(judge_resize(worker.pod, self._others(worker), self._facts))

    def _start(self, worker: PodWorker) -> None:
        assert self._group is not None
        self._workers[uid_of(worker.pod)] = worker
        self._group.create_task(self._keep(worker), name=key_of(worker.pod))

    async def _keep(self, worker: PodWorker) -> None:
        """Runs a worker to its end; one that breaks is told in the log and goes on with what it knows, ever slower."""
        pause = RETRY_SECONDS
        while True:
            try:
                await worker.run()
                break
            except Exception:
                _log.exception("pod worker broke", pod=key_of(worker.pod))
                await asyncio.sleep(pause)
                pause = min(pause * 2, LAST_RETRY_SECONDS)
        self._workers.pop(uid_of(worker.pod), None)
        self._settle_sizes()
        self._owners = {made: owner for made, owner in self._owners.items() if owner is not worker}

    def _own(self, made: str, worker: PodWorker) -> None:
        self._owners[made] = worker

    async def _settle(self, listed: set[str]) -> None:
        """After the first whole list: what the API does not know ends."""
        for uid, worker in list(self._workers.items()):
            if uid not in listed:
                _log.info("pod is gone from the API", pod=key_of(worker.pod))
                worker.vanish()

    async def _remove_orphans(self) -> None:
        """Once the API was heard, and ever after: a fault, or what a late call left behind, is for the next round."""
        await self.synced.wait()
        while True:
            left = await remove_orphans(self._shop, self._workers.keys(), self._names)
            await asyncio.sleep(ORPHANS_RETRY_SECONDS if left else RELIST_SECONDS)

    # The runtime's news.

    async def _take_stock(self) -> None:
        """Adopts what runs already. Waits until the runtime answers."""
        remembered = await asyncio.to_thread(load_checkpoints, self._shop.paths)
        self._names.update(_node_of(checkpoint.pod) for checkpoint in remembered)
        while True:
            try:
                boxes, containers = await self._inventory()
                break
            except RuntimeFault as fault:
                _log.warning("the container runtime does not answer", error=fault.message)
                await asyncio.sleep(RETRY_SECONDS)
        standing = await self._shop.volumes.standing([checkpoint.pod for checkpoint in remembered])
        for checkpoint in remembered:
            worker = PodWorker(self._shop, checkpoint.pod, self._own, remembered=True)
            uid = uid_of(checkpoint.pod)
            await worker.adopt(boxes.get(uid, ()), containers.get(uid, ()), volumes_stand=uid in standing)
            if _node_of(checkpoint.pod) == self._shop.node.name:
                worker.hold_if_fenced(same_boot=checkpoint.same_boot)
            else:
                worker.vanish()
            self._start(worker)
        self._stocked = True

    async def _inventory(self) -> tuple[dict[str, list[SandboxStatus]], dict[str, list[ContainerStatus]]]:
        """All sandboxes and containers of this node's agent, by pod uid."""
        runtime = self._shop.runtime
        boxes: dict[str, list[SandboxStatus]] = {}
        containers: dict[str, list[ContainerStatus]] = {}
        for own in ({NODE_LABEL: name} for name in sorted(self._names)):
            for box in await runtime.list_sandboxes(own):
                with contextlib.suppress(NotFound):
                    boxes.setdefault(box.uid, []).append(await runtime.sandbox_status(box.id))
            for container in await runtime.list_containers(own):
                with contextlib.suppress(NotFound):
                    status = await runtime.container_status(container.id)
                    containers.setdefault(container.labels.get(POD_UID, ""), []).append(status)
        return boxes, containers

    async def _follow_runtime(self) -> None:
        assert self._group is not None
        async for event in self._shop.runtime.events():
            self._group.create_task(self._heard(event))

    async def _heard(self, event: RuntimeEvent) -> None:
        if event.kind == "resync":
            await self._resync()
            return
        worker = self._owners.get(event.container_id) or self._owners.get(event.sandbox_id)
        if worker is None:
            return
        if event.kind == "sandbox-exited":
            await worker.sandbox_changed()
        elif event.kind == "exited":
            await worker.container_changed(event.container_id)

    async def _resync(self) -> None:
        try:
            boxes, containers = await self._inventory()
        except RuntimeFault as fault:
            _log.warning("runtime not listed", error=fault.message)
            return
        for uid, worker in list(self._workers.items()):
            if worker.observer.differs(boxes.get(uid, []), containers.get(uid, [])):
                await worker.recheck()

    async def _relist(self) -> None:
        """The safety net under the event stream."""
        while True:
            await asyncio.sleep(RELIST_SECONDS)
            await self._resync()

    async def _refresh_volumes(self) -> None:
        while True:
            await asyncio.sleep(REFRESH_SECONDS)
            workers = self.workers()
            for worker in workers:
                await worker.refresh_volumes()
            self._shop.sources.forget(set(self._workers), set(_sources_in_use(worker.pod for worker in workers)))


def _node_of(pod: Object) -> str:
    return str(pod["spec"].get("nodeName") or "")


def _is_over(worker: PodWorker) -> bool:
    return (worker.memory.reported.get("phase") or (worker.pod.get("status") or {}).get("phase")) in FINAL_PHASES


def _sources_in_use(pods: Iterable[Object]) -> Iterable[tuple[str, Source]]:
    for pod in pods:
        for volume in pod["spec"].get("volumes") or ():
            for source in needs(volume)[0]:
                yield namespace_of(pod), source
        for container in all_containers(pod):
            for source in references(container):
                yield namespace_of(pod), source
        for name in pull_secret_names(pod):
            yield namespace_of(pod), ("secret", name)
