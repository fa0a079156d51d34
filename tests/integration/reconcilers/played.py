"""A played cluster for the reconcilers' tests: registry on a real etcd, the real loops, a kubelet that pretends.

`Cluster.running()` starts the reconcilers; `Kubelet` binds pods to its nodes, reports them Running and Ready, confirms
their deletion, and heartbeats. Tests describe what to wait for with `eventually`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

from api import kinds
from api.errors import ApiError
from api.objects import Object, format_time, is_deleting
from controller.admission.types import Request, User, utc_now
from controller.reconcilers.build import Settings, run_reconcilers
from controller.reconcilers.daemonset_pods import target_node
from controller.reconcilers.liveness import Liveness
from controller.registry.registry import Registry
from controller.registry.types import DeleteOptions
from controller.store import Query, Store
from controller.store.types import Event, EventType, Key

PODS = kinds.by_resource("", "pods")
NODES = kinds.by_resource("", "nodes")
NAMESPACES = kinds.by_resource("", "namespaces")
DEPLOYMENTS = kinds.by_resource("apps", "deployments")
REPLICA_SETS = kinds.by_resource("apps", "replicasets")
EVENTS = kinds.by_resource("", "events")
CONFIG_MAPS = kinds.by_resource("", "configmaps")
ACCOUNTS = kinds.by_resource("", "serviceaccounts")

TEST = Request(user=User("test", groups=("system:masters",)), field_manager="test")
PATIENCE_SECONDS = 15.0


class Cluster:
    """What a test touches: registry, store, heartbeats."""

    def __init__(self, store: Store, ttl_seconds: float = 1.0) -> None:
        self.store = store
        self.registry = Registry(store)
        self.liveness = Liveness(ttl_seconds)

    @asynccontextmanager
    async def running(self, settings: Settings | None = None) -> AsyncIterator[Cluster]:
        chosen = settings or Settings(ca_pem="CA")
        task = asyncio.create_task(run_reconcilers(self.registry, self.liveness, chosen))
        try:
            yield self
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def namespace(self, name: str) -> None:
        await self.registry.create(TEST, NAMESPACES, "", {"metadata": {"name": name}})
        await eventually(lambda: self.get(ACCOUNTS, name, "default"))

    def get(self, kind: kinds.Kind, namespace: str, name: str) -> Object | None:
        record = self.store.get(Key(*kind.resource, namespace, name))
        return record.parse() if record is not None else None

    def list(self, kind: kinds.Kind, namespace: str = "") -> list[Object]:
        return [record.parse() for record in self.store.list(kind.resource, Query(namespace=namespace)).records]

    def deployment(self, name: str = "x", namespace: str = "w") -> Object:
        found = self.get(DEPLOYMENTS, namespace, name)
        assert found is not None
        return found

    def complete(self, replicas: int, name: str = "x") -> bool:
        """Whether the rollout of a deployment has come to its end."""
        found = self.deployment(name)
        status = found.get("status") or {}
        counts = {status.get(count, 0) for count in ("replicas", "updatedReplicas", "availableReplicas")}
        current = status.get("observedGeneration") == found["metadata"]["generation"]
        return current and counts == {replicas} and not status.get("terminatingReplicas")

    async def change(self, kind: kinds.Kind, name: str, patch: Callable[[Object], None], namespace: str = "w") -> None:
        def changed(obj: Object) -> Object:
            patch(obj)
            return obj

        await self.registry.modify(TEST, kind, namespace, name, changed)

    async def delete(self, kind: kinds.Kind, name: str, namespace: str = "w", **options: Any) -> None:
        await self.registry.delete(TEST, kind, namespace, name, DeleteOptions(**options))

    def reasons(self, kind: str, namespace: str = "w") -> set[str]:
        events = self.list(EVENTS, namespace)
        return {event["reason"] for event in events if event["involvedObject"]["kind"] == kind}


def deployment(replicas: int, command: str = "one", **spec: Any) -> Object:
    template = {
        "metadata": {"labels": {"app": "x"}},
        "spec": {"containers": [{"name": "c", "image": "localhost/busybox:1", "command": ["sleep", command]}]},
    }
    selector = {"matchLabels": {"app": "x"}}
    wanted = {"replicas": replicas, "selector": selector, "template": template, **spec}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x"}, "spec": wanted}


def set_command(command: str) -> Callable[[Object], None]:
    def patch(obj: Object) -> None:
        obj["spec"]["template"]["spec"]["containers"][0]["command"] = ["sleep", command]

    return patch


class Kubelet:
    """Plays scheduler and kubelet for its nodes."""

    def __init__(
        self,
        cluster: Cluster,
        *nodes: str,
        ready: Callable[[Object], bool] = lambda pod: True,
        beats_at: Liveness | None = None,
    ) -> None:
        self._cluster = cluster
        self._liveness = beats_at or cluster.liveness
        self._nodes = nodes
        self._ready = ready
        self._turn = 0
        self._addresses = 0
        self._wake: asyncio.Queue[Key] = asyncio.Queue()
        self.dead: set[str] = set()
        self.most_pods = 0
        self.least_ready: int | None = None

    @asynccontextmanager
    async def playing(self) -> AsyncIterator[Kubelet]:
        for node in self._nodes:
            await self._register(node)
        stop = self._cluster.store.subscribe(PODS.resource, self._on_pod)
        for record in self._cluster.store.list(PODS.resource).records:
            self._wake.put_nowait(record.key)
        tasks = [asyncio.create_task(self._beat())] + [asyncio.create_task(self._work()) for _ in range(8)]
        try:
            yield self
        finally:
            stop()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def report_ready(self, node: str) -> None:
        """What an agent does when it is back."""
        conditions = [_condition("Ready", "True")]
        conditions += [_condition(type, "False") for type in ("MemoryPressure", "DiskPressure", "PIDPressure")]

        def ready(obj: Object) -> Object:
            obj["status"] = {**(obj.get("status") or {}), "conditions": conditions}
            return obj

        await self._cluster.registry.modify(TEST, NODES, "", node, ready, subresource="status")

    async def _register(self, node: str) -> None:
        body = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": node}}
        await self._cluster.registry.create(TEST, NODES, "", body)
        self._liveness.beat(node)
        await self.report_ready(node)

    async def _beat(self) -> None:
        while True:
            for node in self._nodes:
                if node not in self.dead:
                    self._liveness.beat(node)
            await asyncio.sleep(0.1)

    def _on_pod(self, event: Event) -> None:
        if event.type is not EventType.DELETED:
            self._wake.put_nowait(event.record.key)
        pods = self._cluster.store.list(PODS.resource).records
        self.most_pods = max(self.most_pods, sum(b'"deletionTimestamp"' not in record.raw for record in pods))
        if self.least_ready is not None:
            self.least_ready = min(self.least_ready, sum(_is_ready(record.parse()) for record in pods))

    async def _work(self) -> None:
        while True:
            key = await self._wake.get()
            with suppress(ApiError):
                await self._serve(key)

    async def _serve(self, key: Key) -> None:
        pod = self._cluster.get(PODS, key.namespace, key.name)
        if pod is None:
            return
        node = pod["spec"].get("nodeName")
        if node is None:
            await self._bind(pod)
        elif node in self.dead or node not in self._nodes:
            return
        elif is_deleting(pod):
            await self._cluster.delete(PODS, key.name, key.namespace, grace_seconds=0, uid=pod["metadata"]["uid"])
        elif pod["status"].get("phase") == "Pending" or _is_ready(pod) != self._ready(pod):
            await self._report(pod)

    async def _bind(self, pod: Object) -> None:
        alive = [node for node in self._nodes if node not in self.dead]
        self._turn += 1
        meta = pod["metadata"]
        chosen = target_node(pod) or alive[self._turn % len(alive)]
        await self._cluster.registry.bind(TEST, meta["namespace"], meta["name"], chosen, meta["uid"])

    def _address(self) -> str:
        self._addresses += 1
        return f"10.244.{self._addresses // 250}.{self._addresses % 250 + 2}"

    async def _report(self, pod: Object) -> None:
        ready = self._ready(pod)
        meta = pod["metadata"]

        def running(obj: Object) -> Object | None:
            if obj["metadata"]["uid"] != meta["uid"]:
                return None
            others = [one for one in obj["status"].get("conditions") or () if one["type"] != "Ready"]
            obj["status"]["phase"] = "Running"
            obj["status"].setdefault("podIPs", [{"ip": self._address()}])
            obj["status"]["conditions"] = [*others, _condition("Ready", str(ready))]
            return obj

        await self._cluster.registry.modify(TEST, PODS, meta["namespace"], meta["name"], running, subresource="status")


def _is_ready(pod: Object) -> bool:
    conditions = pod["status"].get("conditions") or ()
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions) and not is_deleting(pod)


def _condition(type: str, status: str) -> Object:
    moment = format_time(utc_now())
    return {
        "type": type,
        "status": status,
        "lastTransitionTime": moment,
        "lastHeartbeatTime": moment,
        "reason": "Played",
    }


async def eventually(check: Callable[[], Any], seconds: float = PATIENCE_SECONDS) -> Any:
    """Waits until `check` returns something true, and returns that; fails after `seconds`."""
    deadline = asyncio.get_running_loop().time() + seconds
    while True:
        result = check()
        if result:
            return result
        assert asyncio.get_running_loop().time() < deadline, "it did not happen in time"
        await asyncio.sleep(0.01)
