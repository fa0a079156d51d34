"""What pods and the node use: one measurement, shown as /stats/summary here and as metrics in `cadvisor`.

`measure` asks the runtime and the kernel (cgroup v1, v2, or both; the pods' network namespaces), at most once in a few
seconds; the renderers are pure. Names and labels are cAdvisor's and the kubelet's, so that existing dashboards work.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from agent import hostinfo
from agent.pods.configs import CONTAINER_NAME, POD_NAME, POD_NAMESPACE, POD_UID
from agent.runtime.cgroups import hierarchies, processes
from agent.runtime.protocol import ContainerStats, ImageFs, Runtime
from api.objects import Object, format_time

FRESH_SECONDS = 2.0
RATE_SECONDS = 60.0
"""A rate is told over at most this long: what was measured before says nothing about now."""


@dataclass(frozen=True)
class Throttling:
    """How often and how long a container was held back by its CPU limit."""

    periods: int
    throttled_periods: int
    throttled_seconds: float


@dataclass(frozen=True)
class ContainerUse:
    """One container: whose it is, and what it uses."""

    namespace: str
    pod: str
    uid: str
    name: str
    image: str
    started_at: float
    stats: ContainerStats
    throttling: Throttling | None = None


@dataclass(frozen=True)
class Measurement:
    """Everything at one moment. `networks` is by pod uid."""

    at: float
    cpu_seconds: float
    memory: hostinfo.MemoryUse
    disk: hostinfo.DiskUse
    interfaces: tuple[hostinfo.NetworkUse, ...]
    containers: tuple[ContainerUse, ...]
    image_fs: ImageFs
    networks: Mapping[str, tuple[hostinfo.NetworkUse, ...]] = field(default_factory=dict)
    cores: Mapping[str, float] = field(default_factory=dict)
    """Cores in use since the measurement before, see `_cores`."""


class Meter:
    """Measures this node. `cgroup_root` is where the pods' cgroups are; "" leaves out what only cgroups know."""

    def __init__(self, runtime: Runtime, data_dir: Path, cgroup_root: str) -> None:
        self._runtime = runtime
        self._data_dir = data_dir
        self._cgroup_root = cgroup_root
        self._kept: Measurement | None = None
        self._lock = asyncio.Lock()

    async def measure(self, images: Mapping[str, tuple[str, float]]) -> Measurement:
        """`images` says of each container id what it runs and since when. Raises RuntimeFault."""
        async with self._lock:
            if self._kept is None or abs(time.time() - self._kept.at) > FRESH_SECONDS:
                stats = await self._runtime.container_stats()
                image_fs = await self._runtime.image_fs()
                fresh = await asyncio.to_thread(self._read, stats, image_fs, images)
                self._kept = replace(fresh, cores=_cores(self._kept, fresh))
            return self._kept

    def _read(
        self, stats: list[ContainerStats], image_fs: ImageFs, images: Mapping[str, tuple[str, float]]
    ) -> Measurement:
        uses = tuple(self._use(one, images.get(one.container_id, ("", 0.0))) for one in stats if POD_UID in one.labels)
        networks = {uid: found for uid in {use.uid for use in uses} if (found := self._network(uid))}
        return Measurement(
            at=time.time(),
            cpu_seconds=hostinfo.cpu_seconds(),
            memory=hostinfo.memory_use(),
            disk=hostinfo.disk_use(self._data_dir),
            interfaces=tuple(hostinfo.network_use()),
            containers=uses,
            image_fs=image_fs,
            networks=networks,
        )

    def _use(self, stats: ContainerStats, image: tuple[str, float]) -> ContainerUse:
        labels = stats.labels
        uid = labels.get(POD_UID, "")
        return ContainerUse(
            namespace=labels.get(POD_NAMESPACE, ""),
            pod=labels.get(POD_NAME, ""),
            uid=uid,
            name=labels.get(CONTAINER_NAME, stats.name),
            image=image[0],
            started_at=image[1],
            stats=stats,
            throttling=self._throttling(uid, stats.container_id),
        )

    def _pod_cgroup(self, uid: str) -> str:
        return f"{self._cgroup_root}/pod{uid}"

    def _throttling(self, uid: str, container_id: str) -> Throttling | None:
        if not self._cgroup_root:
            return None
        for tree in hierarchies():
            file = tree / self._pod_cgroup(uid).strip("/") / container_id / "cpu.stat"
            try:
                fields = dict(line.split() for line in file.read_text().splitlines())
            except (OSError, ValueError):
                continue
            if "nr_periods" in fields:
                return _throttling_of({name: int(value) for name, value in fields.items()})
        return None

    def _network(self, uid: str) -> tuple[hostinfo.NetworkUse, ...]:
        """The interfaces of a pod, seen through one of its processes; nothing for pods in the node's own network."""
        if not self._cgroup_root:
            return ()
        try:
            pid = min(processes(self._pod_cgroup(uid)), default=0)
            if not pid or Path(f"/proc/{pid}/ns/net").stat().st_ino == Path("/proc/self/ns/net").stat().st_ino:
                return ()
            return tuple(hostinfo.network_use(Path(f"/proc/{pid}/net/dev")))
        except OSError:
            return ()


def _cores(before: Measurement | None, now: Measurement) -> dict[str, float]:
    """Cores in use since the last measurement, by container id; "" is the node. Without what was not there then."""
    if before is None or not 0 < now.at - before.at <= RATE_SECONDS:
        return {}
    found = {"": (now.cpu_seconds - before.cpu_seconds) / (now.at - before.at)}
    known = {use.stats.container_id: use.stats for use in before.containers}
    for stats in (use.stats for use in now.containers):
        old = known.get(stats.container_id)
        if old is not None and stats.at > old.at:
            found[stats.container_id] = (stats.cpu_seconds - old.cpu_seconds) / (stats.at - old.at)
    return found


def _throttling_of(fields: Mapping[str, int]) -> Throttling:
    seconds = fields["throttled_usec"] / 1e6 if "throttled_usec" in fields else fields.get("throttled_time", 0) / 1e9
    return Throttling(fields["nr_periods"], fields.get("nr_throttled", 0), seconds)


def summary(measured: Measurement, node_name: str) -> Object:
    """The kubelet's stats/v1alpha1 Summary."""
    pods: dict[str, Object] = {}
    for use in measured.containers:
        reference = {"name": use.pod, "namespace": use.namespace, "uid": use.uid}
        pod = pods.setdefault(use.uid, {"podRef": reference, "containers": []})
        pod["containers"].append(_summary_of(use, measured.cores))
    for uid, found in measured.networks.items():
        if found:
            pods[uid]["network"] = _summary_network(measured, found)
    now = _time(measured.at)
    memory, disk = measured.memory, measured.disk
    node = {
        "nodeName": node_name,
        "startTime": _time(hostinfo.boot_time()),
        "cpu": {"time": now, "usageCoreNanoSeconds": int(measured.cpu_seconds * 1e9), **_rate(measured.cores, "")},
        "memory": {
            "time": now,
            "availableBytes": memory.available_bytes,
            "usageBytes": memory.usage_bytes,
            "workingSetBytes": memory.working_set_bytes,
            "rssBytes": memory.rss_bytes,
        },
        "fs": {
            "time": now,
            "availableBytes": disk.available_bytes,
            "capacityBytes": disk.capacity_bytes,
            "usedBytes": disk.used_bytes,
            "inodes": disk.inodes,
            "inodesFree": disk.inodes_free,
        },
        "runtime": {"imageFs": {"time": now, "usedBytes": measured.image_fs.used_bytes}},
    }
    if measured.interfaces:
        node["network"] = _summary_network(measured, measured.interfaces)
    return {"node": node, "pods": list(pods.values())}


def _rate(cores: Mapping[str, float], key: str) -> Object:
    return {"usageNanoCores": max(0, int(cores[key] * 1e9))} if key in cores else {}


def _summary_of(use: ContainerUse, cores: Mapping[str, float]) -> Object:
    stats, at = use.stats, _time(use.stats.at)
    rate = _rate(cores, stats.container_id)
    return {
        "name": use.name,
        "startTime": _time(use.started_at),
        "cpu": {"time": at, "usageCoreNanoSeconds": int(stats.cpu_seconds * 1e9), **rate},
        "memory": {
            "time": at,
            "usageBytes": stats.memory_usage_bytes,
            "workingSetBytes": stats.memory_working_set_bytes,
            "rssBytes": stats.memory_rss_bytes,
            "pageFaults": stats.page_faults,
            "majorPageFaults": stats.major_page_faults,
        },
        "rootfs": {"time": at, "usedBytes": stats.fs_used_bytes, "inodesUsed": stats.fs_inodes_used},
    }


def _summary_network(measured: Measurement, found: Iterable[hostinfo.NetworkUse]) -> Object:
    interfaces = [
        {
            "name": one.interface,
            "rxBytes": one.received_bytes,
            "txBytes": one.sent_bytes,
            "rxErrors": one.received_errors,
            "txErrors": one.sent_errors,
        }
        for one in found
    ]
    return {"time": _time(measured.at), **interfaces[0], "interfaces": interfaces}


def _time(moment: float) -> str:
    return format_time(datetime.fromtimestamp(moment, UTC))
