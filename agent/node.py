"""The Node object of this machine: registered, kept true, and read for what the cluster says (podCIDR, labels).

Called by main. `node_object` and `node_status` are pure; `NodeKeeper` sends what changed. The agent owns status and its
own labels, nothing else: taints are set at registration only. Rules: kubernetes.io/docs/reference/node.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import structlog

from agent.hostinfo import DiskUse, Machine, MemoryUse
from agent.network.model import parse_node
from api import errors
from api.client import MERGE_PATCH, STRATEGIC_PATCH, Client, Selection
from api.kinds import by_resource
from api.objects import Object, labels_of, uid_of

NODES = by_resource("", "nodes")
MOST_PODS = 110
STATUS_SECONDS = 10.0
REPORT_SECONDS = 300.0
RETRY_SECONDS = 1.0
REVOKED_SECONDS = 10.0
MOST_IMAGES = 50
LEAST_MEMORY_BYTES = 100 << 20
LEAST_DISK_SHARE = 0.05
LEAST_PIDS = 1000
KUBELET_VERSION = "v1.36.0+wherry"
_log = structlog.get_logger()


@dataclass(frozen=True)
class Taint:
    key: str
    value: str
    effect: str


@dataclass(frozen=True)
class Profile:
    """What the agent says about its node and does not measure."""

    name: str
    machine: Machine
    addresses: tuple[str, ...]
    port: int = 10250
    runtime_version: str = "containerd://unknown"
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[Taint, ...] = ()


@dataclass(frozen=True)
class Readings:
    """What the agent measured at `now` (wire time). `problem` is why the node is not ready; "" when it is."""

    now: str
    disk: DiskUse
    memory: MemoryUse
    processes: tuple[int, int]
    problem: str = ""
    routes: str | None = None
    """Why pods of other nodes are not reached; "" when they are; None when routes are somebody else's."""
    images: tuple[tuple[tuple[str, ...], int], ...] = ()
    """(names, size) of each image, biggest first."""


def own_labels(profile: Profile) -> dict[str, str]:
    machine = profile.machine
    standard = {
        "kubernetes.io/hostname": profile.name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": machine.architecture,
        "beta.kubernetes.io/os": "linux",
        "beta.kubernetes.io/arch": machine.architecture,
    }
    return {**standard, **profile.labels}


def node_object(profile: Profile) -> Object:
    """The Node as it is registered."""
    taints = [{"key": taint.key, "value": taint.value, "effect": taint.effect} for taint in profile.taints]
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": profile.name, "labels": own_labels(profile)},
        "spec": {"taints": taints} if taints else {},
    }


def capacity(profile: Profile, disk: DiskUse) -> dict[str, str]:
    return {
        "cpu": str(profile.machine.cores),
        "memory": f"{profile.machine.memory_bytes // 1024}Ki",
        "ephemeral-storage": f"{disk.capacity_bytes // 1024}Ki",
        "pods": str(MOST_PODS),
        "hugepages-1Gi": "0",
        "hugepages-2Mi": "0",
    }


def allocatable(profile: Profile, disk: DiskUse) -> dict[str, str]:
    """Capacity less what the node keeps for itself (as the kubelet's eviction thresholds do)."""
    whole = capacity(profile, disk)
    whole["memory"] = f"{(profile.machine.memory_bytes - LEAST_MEMORY_BYTES) // 1024}Ki"
    whole["ephemeral-storage"] = str(int(disk.capacity_bytes * (1 - 2 * LEAST_DISK_SHARE)))
    return whole


def node_status(profile: Profile, readings: Readings, before: Mapping[str, Any]) -> Object:
    """The status to report; `before` is the present one, whose transition times are carried on."""
    addresses = [{"type": "InternalIP", "address": address} for address in profile.addresses]
    return {
        "capacity": capacity(profile, readings.disk),
        "allocatable": allocatable(profile, readings.disk),
        "addresses": [*addresses, {"type": "Hostname", "address": profile.machine.hostname}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": profile.port}},
        "nodeInfo": _node_info(profile),
        "conditions": _conditions(readings, before),
        "images": [{"names": list(names), "sizeBytes": size} for names, size in readings.images[:MOST_IMAGES]],
    }


def _node_info(profile: Profile) -> Object:
    machine = profile.machine
    return {
        "machineID": machine.machine_id,
        "systemUUID": machine.system_uuid,
        "bootID": machine.boot_id,
        "kernelVersion": machine.kernel,
        "osImage": machine.os_image,
        "containerRuntimeVersion": profile.runtime_version,
        "kubeletVersion": KUBELET_VERSION,
        "kubeProxyVersion": "",
        "operatingSystem": "linux",
        "architecture": machine.architecture,
    }


def _conditions(readings: Readings, before: Mapping[str, Any]) -> list[Object]:
    disk, (processes, most) = readings.disk, readings.processes
    disk_short = disk.available_bytes < disk.capacity_bytes * LEAST_DISK_SHARE
    memory_short = readings.memory.available_bytes < LEAST_MEMORY_BYTES
    pids_short = most - processes < LEAST_PIDS
    table = (
        _pressure("MemoryPressure", memory_short),
        _pressure("DiskPressure", disk_short),
        _pressure("PIDPressure", pids_short),
        ("Ready", "False", "KubeletNotReady", readings.problem)
        if readings.problem
        else ("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
        *_network_unavailable(readings.routes),
    )
    known = {entry["type"]: entry for entry in before.get("conditions") or ()}
    return [_condition(row, known.get(row[0]), readings.now) for row in table]


_WORDS = {
    ("MemoryPressure", True): ("KubeletHasInsufficientMemory", "kubelet has insufficient memory available"),
    ("MemoryPressure", False): ("KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
    ("DiskPressure", True): ("KubeletHasDiskPressure", "kubelet has disk pressure"),
    ("DiskPressure", False): ("KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
    ("PIDPressure", True): ("KubeletHasInsufficientPID", "kubelet has insufficient PID available"),
    ("PIDPressure", False): ("KubeletHasSufficientPID", "kubelet has sufficient PID available"),
}


def _network_unavailable(problem: str | None) -> list[tuple[str, str, str, str]]:
    """Whoever makes the routes says whether there are any; node lifecycle makes a taint of it."""
    if problem is None:
        return []
    if problem:
        return [("NetworkUnavailable", "True", "NoRouteCreated", problem)]
    return [("NetworkUnavailable", "False", "RouteCreated", "the agent keeps the routes to other nodes")]


def _pressure(kind: str, short: bool) -> tuple[str, str, str, str]:
    reason, message = _WORDS[kind, short]
    return kind, "True" if short else "False", reason, message


def _condition(row: tuple[str, str, str, str], known: Mapping[str, Any] | None, now: str) -> Object:
    kind, status, reason, message = row
    same = known is not None and known.get("status") == status
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "lastHeartbeatTime": now,
        "lastTransitionTime": known.get("lastTransitionTime") if same and known is not None else now,
    }


def differs(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """Whether a status says more than that time has passed. Pure."""
    said = {entry["type"] for entry in after.get("conditions") or ()}  # others' conditions are not ours to judge
    return _timeless(before, said) != _timeless(after, said)


def _timeless(status: Mapping[str, Any], said: set[str]) -> dict[str, Any]:
    own = ("capacity", "allocatable", "addresses", "daemonEndpoints", "nodeInfo", "images")
    shown: dict[str, Any] = {key: status.get(key) or None for key in own}
    shown["conditions"] = {
        entry["type"]: (entry["status"], entry.get("reason"), entry.get("message"))
        for entry in status.get("conditions") or ()
        if entry["type"] in said
    }
    return shown


class NodeKeeper:
    """Registers the node and keeps its status true. `measure` reads the machine; `node` is the API's newest word."""

    def __init__(self, client: Client, profile: Profile) -> None:
        self._client = client
        self.profile = profile
        self.node: Object = {}
        self.known = asyncio.Event()
        self.changed = asyncio.Event()
        self.doubted = asyncio.Event()
        """Somebody else wrote into our status (a controller that did not hear us): time to report again."""
        self._reported: Object = {}
        self._reported_at = 0.0

    async def register(self) -> Object:
        """Makes the Node, or adopts the one of that name. Waits for a server that is away or does not believe us.

        Whoever deletes a Node revokes its certificate, and only an agent that is started with a token joins anew. Until
        then this one goes on, and ends the pods that are taken from it.
        """
        while True:
            try:
                self.node = await self._register_once()
                self.known.set()
                return self.node
            except errors.Unauthorized as error:
                _log.error("this server is no node any more: restart its agent with --token-file", error=error.message)
                await asyncio.sleep(REVOKED_SECONDS)
            except errors.ApiError as error:
                if not error.retryable:
                    raise
                _log.warning("node not registered yet", error=error.message)
                await asyncio.sleep(RETRY_SECONDS)

    async def read_labels(self) -> Mapping[str, str]:
        """The Node's labels as the API has them now; of what was last heard, if it does not answer."""
        await self.known.wait()
        try:
            return labels_of(await self._client.get(NODES, "", self.profile.name))
        except errors.ApiError as error:
            _log.warning("the node's labels were not read", error=error.message)
            return labels_of(self.node)

    async def _register_once(self) -> Object:
        try:
            return await self._client.create(NODES, node_object(self.profile))
        except errors.AlreadyExists:
            node = await self._client.get(NODES, "", self.profile.name)
        missing = {key: value for key, value in own_labels(self.profile).items() if labels_of(node).get(key) != value}
        if missing:
            change = {"metadata": {"labels": missing}}
            node = await self._client.patch(NODES, ("", self.profile.name, ""), change, MERGE_PATCH)
        return node

    async def follow(self) -> None:
        """Watches the own Node until cancelled; registers it again when somebody deleted it."""
        while True:
            try:
                await self._follow()
            except errors.Unauthorized:
                await asyncio.sleep(REVOKED_SECONDS)

    async def _follow(self) -> None:
        async for event in self._client.watch(NODES, Selection(fields=f"metadata.name={self.profile.name}")):
            if event.type == "DELETED":
                _log.warning("the node was deleted; registering again")
                await self.register()
            elif event.type != "SYNCED":
                self.node = event.object
                self.known.set()
                if self._reported and differs(self.node.get("status") or {}, self._reported):
                    self.doubted.set()
            self.changed.set()

    async def report(self, readings: Readings, monotonic: float) -> None:
        """Sends the status if it changed, or if it is time to say that it did not. Raises ApiError."""
        before = self.node.get("status") or {}
        status = node_status(self.profile, readings, before)
        if not differs(before, status) and monotonic - self._reported_at < REPORT_SECONDS:
            return
        # Addresses are replaced as a whole, or an old one would stay; conditions of others are left alone.
        body = {"status": {**status, "addresses": [{"$patch": "replace"}, *status["addresses"]]}}
        self.node = await self._client.patch(NODES, ("", self.profile.name, "status"), body, STRATEGIC_PATCH)
        self._reported, self._reported_at = status, monotonic

    @property
    def pod_cidrs(self) -> tuple[str, ...]:
        return parse_node(self.node).pod_cidrs if self.node else ()

    @property
    def uid(self) -> str:
        return uid_of(self.node)

    def with_runtime(self, version: str) -> None:
        self.profile = replace(self.profile, runtime_version=version)


def parse_taint(text: str) -> Taint:
    """`key=value:Effect` or `key:Effect`. Raises ValueError."""
    head, colon, effect = text.rpartition(":")
    key, _, value = head.partition("=")
    if not colon or not key or effect not in ("NoSchedule", "PreferNoSchedule", "NoExecute"):
        raise ValueError(f"taint {text!r} is not key[=value]:NoSchedule|PreferNoSchedule|NoExecute")
    return Taint(key, value, effect)


def parse_labels(text: str) -> dict[str, str]:
    """`a=b,c=d`. Raises ValueError."""
    labels = {}
    for part in (piece.strip() for piece in text.split(",") if piece.strip()):
        key, equals, value = part.partition("=")
        if not equals or not key:
            raise ValueError(f"label {part!r} is not key=value")
        labels[key] = value
    return labels
