"""Played agents over the real API: they register, heartbeat by session, run what is bound to them, and watch closely.

Used by the chaos tests. `Fleet` follows all pods with the client real agents use, so it survives what they survive: it
sees every state of every pod once, in order, and keeps the worst that ever held (`least_ready`, `most_pods`).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime

import orjson

from api import errors, kinds
from api.client import MERGE_PATCH, Client, WatchEvent
from api.objects import Object, format_time, is_deleting, name_of
from api.streams import Tunnel
from api.tls import load_kubeconfig
from tests.integration.chaos.plane import Plane

PODS = kinds.by_resource("", "pods")
NODES = kinds.by_resource("", "nodes")
DEPLOYMENTS = kinds.by_resource("apps", "deployments")
REPLICA_SETS = kinds.by_resource("apps", "replicasets")
BEAT_SECONDS = 1.0
RETRY_SECONDS = 0.1
_CAPACITY = {"cpu": "64", "memory": "256Gi", "pods": "500"}


def client_of(plane: Plane) -> Client:
    target = load_kubeconfig(plane.directory / "admin.kubeconfig")
    return Client(f"https://127.0.0.1:{plane.port}", target.credentials, timeout=10)


def condition(type: str, status: str) -> Object:
    moment = format_time(datetime.now(UTC))
    return {
        "type": type,
        "status": status,
        "reason": "Played",
        "lastTransitionTime": moment,
        "lastHeartbeatTime": moment,
    }


def is_ready(pod: Object) -> bool:
    return any(one["type"] == "Ready" and one["status"] == "True" for one in pod["status"].get("conditions") or ())


@dataclass
class Fleet:
    """`silent`: nodes that do not heartbeat now. `delay_seconds`: how long a pod takes to start, from and to."""

    client: Client
    nodes: tuple[str, ...]
    delay_seconds: tuple[float, float] = (0.05, 0.3)
    pods: dict[str, Object] = field(default_factory=dict)
    silent: set[str] = field(default_factory=set)
    granted: dict[str, int] = field(default_factory=dict)
    least_ready: int | None = None
    most_pods: int = 0
    changes: int = 0
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @asynccontextmanager
    async def playing(self) -> AsyncIterator[Fleet]:
        for node in self.nodes:
            await self.register(node)
        for node in self.nodes:
            self._spawn(self._beat(node))
        self._spawn(self._follow())
        try:
            yield self
        finally:
            tasks = tuple(self._tasks)
            for task in tasks:
                task.cancel()
            for result in await asyncio.gather(*tasks, return_exceptions=True):
                assert result is None or isinstance(result, asyncio.CancelledError | errors.ApiError), result

    def forget_the_worst(self) -> None:
        """Measures anew from the present state."""
        self.least_ready, self.most_pods = self.ready, self.present

    @property
    def ready(self) -> int:
        return sum(is_ready(pod) and not is_deleting(pod) for pod in self.pods.values())

    @property
    def present(self) -> int:
        return sum(not is_deleting(pod) and pod["status"].get("phase") != "Failed" for pod in self.pods.values())

    async def register(self, node: str) -> None:
        with suppress(errors.AlreadyExists):
            await self.client.create(NODES, {"apiVersion": "v1", "kind": "Node", "metadata": {"name": node}})
        types = ("MemoryPressure", "DiskPressure", "PIDPressure")
        conditions = [condition("Ready", "True"), *(condition(type, "False") for type in types)]
        status = {"conditions": conditions, "capacity": _CAPACITY, "allocatable": _CAPACITY}
        await self._insist("status", NODES, ("", node, "status"), {"status": status})

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _beat(self, node: str) -> None:
        nonce, path = 0, f"/wherry/v1/nodes/{node}/session"
        while True:
            try:
                tunnel = await self.client.upgrade(
                    "GET", path, {"Connection": "Upgrade", "Upgrade": "wherry-heartbeat"}
                )
                try:
                    while True:
                        nonce += 1
                        if node not in self.silent:
                            self.granted[node] = self.granted.get(node, 0) + await _exchange(tunnel, nonce)
                        await asyncio.sleep(BEAT_SECONDS)
                finally:
                    await tunnel.close()
            except (errors.ApiError, OSError, EOFError, TimeoutError):
                await asyncio.sleep(RETRY_SECONDS)

    async def _follow(self) -> None:
        async for event in self.client.watch(PODS):
            if event.type == "SYNCED":
                continue
            self._take(event)
            self.changes += 1
            self.most_pods = max(self.most_pods, self.present)
            if self.least_ready is not None:
                self.least_ready = min(self.least_ready, self.ready)

    def _take(self, event: WatchEvent) -> None:
        pod = event.object
        uid = pod["metadata"]["uid"]
        before = self.pods.get(uid)
        if event.type == "DELETED":
            self.pods.pop(uid, None)
            return
        self.pods[uid] = pod
        if pod["spec"].get("nodeName") not in self.nodes:
            return
        if is_deleting(pod) and (before is None or not is_deleting(before)):
            self._spawn(self._end(pod))
        elif before is None or "nodeName" not in before["spec"]:
            self._spawn(self._start(pod))

    async def _start(self, pod: Object) -> None:
        await asyncio.sleep(random.uniform(*self.delay_seconds))
        meta = pod["metadata"]
        conditions = [condition(type, "True") for type in ("PodScheduled", "ContainersReady", "Ready")]
        status = {"phase": "Running", "conditions": conditions}
        target = (meta["namespace"], meta["name"], "status")
        await self._insist("start", PODS, target, {"metadata": {"uid": meta["uid"]}, "status": status})

    async def _end(self, pod: Object) -> None:
        await asyncio.sleep(random.uniform(*self.delay_seconds))
        meta = pod["metadata"]
        options = {"gracePeriodSeconds": 0, "preconditions": {"uid": meta["uid"]}}
        while True:
            with suppress(errors.NotFound, errors.Conflict):
                try:
                    await self.client.delete(PODS, meta["namespace"], meta["name"], options)
                except errors.ApiError as error:
                    if not error.retryable:
                        raise
                    await asyncio.sleep(RETRY_SECONDS)
                    continue
            return

    async def _insist(self, what: str, kind: kinds.Kind, target: tuple[str, str, str], patch: Object) -> None:
        """Until it is done or the object is gone."""
        while True:
            try:
                await self.client.patch(kind, target, patch, MERGE_PATCH)
                return
            except (errors.NotFound, errors.Conflict):
                return
            except errors.ApiError as error:
                assert error.retryable, f"{what} of {target}: {error}"
                await asyncio.sleep(RETRY_SECONDS)


async def _exchange(tunnel: Tunnel, nonce: int) -> bool:
    body = orjson.dumps({"nonce": nonce})
    tunnel.writer.write(len(body).to_bytes(4, "big") + body)
    async with asyncio.timeout(3):
        length = int.from_bytes(await tunnel.reader.readexactly(4), "big")
        answer = orjson.loads(await tunnel.reader.readexactly(length))
    return bool(answer["granted"])


def deployment(replicas: int, version: str, **spec: object) -> Object:
    labels = {"app": "rolled"}
    container = {"name": "c", "image": "localhost/busybox:1", "command": ["sleep", version]}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container], "terminationGracePeriodSeconds": 1}}
    wanted = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template, **spec}
    meta = {"name": "rolled", "namespace": "default"}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": wanted}


def complete(deployment: Object, replicas: int) -> bool:
    """Whether a rollout has come to its end, as `kubectl rollout status` judges, and nothing terminates any more."""
    status = deployment.get("status") or {}
    counts = {status.get(count, 0) for count in ("replicas", "updatedReplicas", "availableReplicas")}
    current = status.get("observedGeneration") == deployment["metadata"]["generation"]
    return current and counts == {replicas} and not status.get("terminatingReplicas")


def versions(pods: dict[str, Object]) -> set[str]:
    return {pod["spec"]["containers"][0]["command"][1] for pod in pods.values()}


def names(pods: dict[str, Object]) -> set[str]:
    return {name_of(pod) for pod in pods.values()}
