"""Making, refreshing and taking away a pod's volumes.

emptyDir (disk or memory), hostPath, configMap, secret, downwardAPI, projected; subPath. Called by the pod workers. Each
verb may be repeated: mounting what is there is success. What is mounted is read from the kernel, never remembered or
concluded from a directory's existence: a reboot leaves directories and takes mounts. Invariants: nothing of a pod
directory is deleted while anything is mounted below it, so a host's or another pod's files are never reached; of the
threads that work on one pod's directory there is one at a time, and each ends before the next begins, for a thread
cannot be cancelled.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import stat
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import structlog

from agent.paths import Paths
from agent.pods.configs import propagation_of
from agent.pods.env import ConfigFault, Source
from agent.pods.fields import Facts
from agent.pods.limits import bounding_limit
from agent.pods.storage import is_in_memory
from agent.runtime.mounts import mounted_kinds, mounts_under
from agent.runtime.protocol import Mount
from agent.sources import SourceReader
from agent.trees import remove_tree
from agent.volumes.atomic import write_payload
from agent.volumes.host import prepare_host_path
from agent.volumes.payload import PAYLOAD_KINDS, Ingredients, TokenAsk, VolumeFault, needs, payload_of
from agent.volumes.places import make_private
from agent.volumes.subpaths import inner_path, open_inner
from agent.volumes.syscalls import bind, mount_tmpfs, unmount
from api import errors
from api.objects import Object, namespace_of, uid_of
from api.quantity import bytes_of

_PLUGINS = {"configMap": "configmap", "secret": "secret", "downwardAPI": "downward-api", "projected": "projected"}
_IN_MEMORY = ("secret", "downwardAPI", "projected")
_PAYLOAD_MODE = 0o755
_EVERYBODYS_MODE = 0o777
_SHARED_MEMORY_MODE = 0o1777
"""What a tmpfs has on the kubelet: users of a pod do not remove each other's files."""
Mounted = Mapping[str, str]
"""What the kernel has mounted: mount point -> kind of file system."""
T = TypeVar("T")
_log = structlog.get_logger()


@dataclass(frozen=True)
class Fault:
    """Why one volume of a pod could not be made."""

    volume: str
    message: str


class Volumes:
    """The volumes of all pods of a node. `memory_bytes` is what pods may use together (0: unknown)."""

    def __init__(self, paths: Paths, sources: SourceReader, memory_bytes: int = 0) -> None:
        self._paths = paths
        self._sources = sources
        self._memory_bytes = memory_bytes
        self._working: dict[str, asyncio.Task[Any]] = {}

    async def mount(self, pod: Object, facts: Facts) -> list[Fault]:
        """Makes every volume of the pod; returns what went wrong (empty: all are there)."""
        ingredients, faults = await self._gather(pod, facts)
        if faults:
            return faults
        return await self._in_turn(pod, lambda: self._make_all(pod, _volumes(pod), ingredients))

    async def refresh(self, pod: Object, facts: Facts) -> list[Fault]:
        """Brings ConfigMap, Secret, downwardAPI and projected volumes up to date, each atomically.

        A pod whose volumes were taken away meanwhile is left alone.
        """
        made_of_files = [volume for volume in _volumes(pod) if any(kind in volume for kind in PAYLOAD_KINDS)]
        if not made_of_files:
            return []
        ingredients, faults = await self._gather(pod, facts)
        if faults:
            return faults

        def renew() -> list[Fault]:
            here = [volume for volume in made_of_files if self.path(pod, volume).is_dir()]
            return self._make_all(pod, here, ingredients)

        return await self._in_turn(pod, renew)

    async def unmount(self, pod: Object) -> None:
        """Takes all volumes away and forgets the pod's directory. Raises OSError when something is stuck."""
        await self._in_turn(pod, lambda: remove_pod_directory(self._paths.pod(uid_of(pod))))

    async def release(self, pod: Object) -> None:
        """Takes the volumes of a pod that is over away, with what is in them; what tells how it ended stays."""
        uid = uid_of(pod)

        def take_away() -> None:
            for directory in (self._paths.subpaths(uid), self._paths.volumes(uid)):
                remove_pod_directory(directory)

        await self._in_turn(pod, take_away)

    async def container_mounts(self, pod: Object, container: Object, values: Mapping[str, str]) -> tuple[Mount, ...]:
        """The volumeMounts of one container, subPaths resolved. Raises ConfigFault."""
        return await self._in_turn(pod, lambda: self._container_mounts(pod, container, values))

    async def standing(self, pods: Iterable[Object]) -> set[str]:
        """The uids of the pods all of whose volumes are there, mounted where they have to be."""

        def look() -> set[str]:
            mounted = mounted_kinds()
            return {uid_of(pod) for pod in pods if self._stands(pod, mounted)}

        return await asyncio.to_thread(look)

    def _stands(self, pod: Object, mounted: Mounted) -> bool:
        own = [volume for volume in _volumes(pod) if "hostPath" not in volume]
        return self._paths.pod(uid_of(pod)).is_dir() and all(
            mounted.get(str(path)) == "tmpfs" if _is_in_memory(volume) else path.is_dir()
            for volume, path in ((volume, self.path(pod, volume)) for volume in own)
        )

    async def _in_turn(self, pod: Object, work: Callable[[], T]) -> T:
        """Runs blocking work on a pod's directory when the work before it has ended, also if nobody waits for that."""
        uid = uid_of(pod)
        while (before := self._working.get(uid)) is not None:
            await asyncio.wait({before})
        task = asyncio.create_task(asyncio.to_thread(work))
        self._working[uid] = task
        task.add_done_callback(lambda done: self._ended(uid, done))
        return await asyncio.shield(task)

    def _ended(self, uid: str, task: asyncio.Task[Any]) -> None:
        del self._working[uid]
        if not task.cancelled() and (fault := task.exception()) is not None:
            _log.debug("work on a pod's directory failed", pod=uid, error=str(fault))

    async def _gather(self, pod: Object, facts: Facts) -> tuple[Ingredients, list[Fault]]:
        objects: set[Source] = set()
        asks: set[TokenAsk] = set()
        for volume in _volumes(pod):
            some_objects, some_asks = needs(volume)
            objects |= some_objects
            asks |= some_asks
        try:
            found, tokens = await asyncio.gather(
                self._sources.fetch(namespace_of(pod), objects), self._sources.tokens(pod, asks)
            )
        except errors.ApiError as error:
            return Ingredients(facts), [_first_needy(pod, error)]
        return Ingredients(facts, found, tokens), []

    def _make_all(self, pod: Object, volumes: list[Object], ingredients: Ingredients) -> list[Fault]:
        faults = []
        mounted = mounted_kinds()
        for volume in volumes:
            try:
                self._make(pod, volume, ingredients, mounted)
            except VolumeFault as fault:
                faults.append(Fault(volume["name"], fault.message))
            except OSError as error:
                faults.append(Fault(volume["name"], str(error)))
        return faults

    def _make(self, pod: Object, volume: Object, ingredients: Ingredients, mounted: Mounted) -> None:
        if "hostPath" in volume:
            prepare_host_path(Path(volume["hostPath"]["path"]), volume["hostPath"].get("type") or "")
        elif "emptyDir" in volume:
            self._make_empty(pod, volume, mounted)
        elif any(kind in volume for kind in PAYLOAD_KINDS):
            payload = payload_of(pod, volume, ingredients)
            target = self.path(pod, volume)
            if not _is_in_memory(volume):
                make_private(target)
            elif mounted.get(str(target)) != "tmpfs":
                _mount_memory(target, _PAYLOAD_MODE)
            _give(target, _PAYLOAD_MODE, _fs_group(pod), readonly=True)
            write_payload(target, payload, _fs_group(pod))
        else:
            kinds = ", ".join(sorted(volume.keys() - {"name"}))
            raise VolumeFault(f"this node cannot make volumes of kind {kinds}")

    def _make_empty(self, pod: Object, volume: Object, mounted: Mounted) -> None:
        target = self.path(pod, volume)
        if _is_in_memory(volume):
            if mounted.get(str(target)) != "tmpfs":
                _mount_memory(target, _SHARED_MEMORY_MODE, memory_size(pod, volume, self._memory_bytes))
                _give(target, _SHARED_MEMORY_MODE, _fs_group(pod))
        elif not target.is_dir():
            fresh = target.with_name(f".{target.name}.new")  # under its name it is complete, whenever we are killed
            shutil.rmtree(fresh, ignore_errors=True)
            make_private(fresh)
            _give(fresh, _EVERYBODYS_MODE, _fs_group(pod))
            fresh.rename(target)

    def path(self, pod: Object, volume: Object) -> Path:
        """Where a volume is on the node."""
        if "hostPath" in volume:
            return Path(volume["hostPath"]["path"])
        plugin = next((_PLUGINS[kind] for kind in PAYLOAD_KINDS if kind in volume), "empty-dir")
        return self._paths.volume(uid_of(pod), plugin, volume["name"])

    def _container_mounts(self, pod: Object, container: Object, values: Mapping[str, str]) -> tuple[Mount, ...]:
        by_name = {volume["name"]: volume for volume in _volumes(pod)}
        mounts = []
        for index, mount in enumerate(container.get("volumeMounts") or ()):
            volume = by_name.get(mount["name"])
            if volume is None:
                raise ConfigFault(f'cannot find volume "{mount["name"]}" to mount into container "{container["name"]}"')
            source = self.path(pod, volume)
            if inner := inner_path(mount, values):
                source = self._subpath(pod, container["name"], index, source, inner)
            readonly = bool(mount.get("readOnly")) or any(kind in volume for kind in PAYLOAD_KINDS)
            target = mount["mountPath"]
            target = target if target.startswith("/") else f"/{target}"
            mounts.append(Mount(target, str(source), readonly, propagation_of(mount)))
        return tuple(mounts)

    def _subpath(self, pod: Object, container: str, index: int, root: Path, inner: str) -> Path:
        """Binds `inner` of the volume (made if missing) where no one in the pod can swap it any more."""
        target = self._paths.subpath(uid_of(pod), container, index)
        try:
            if target.exists():
                unmount_quietly(target)
            opened = open_inner(root, inner)
            try:
                make_private(target.parent)
                if stat.S_ISDIR(os.fstat(opened).st_mode):
                    target.mkdir(exist_ok=True)
                else:
                    target.touch()
                bind(opened, target)
            finally:
                os.close(opened)
        except OSError as error:
            volume = root.name
            text = f'failed to prepare subPath for volumeMount "{volume}" of container "{container}": {error}'
            raise ConfigFault(text) from error
        return target


def memory_size(pod: Object, volume: Mapping[str, Any], node_bytes: int) -> int:
    """How big an emptyDir in memory may become: the least of its own limit, the pod's and the node's; 0: no limit."""
    own = (volume["emptyDir"] or {}).get("sizeLimit")
    bounds = (bytes_of(own) if own else 0, bounding_limit(pod, "memory"), node_bytes)
    return min((bound for bound in bounds if bound > 0), default=0)


def _is_in_memory(volume: Mapping[str, Any]) -> bool:
    return is_in_memory(volume) or any(kind in volume for kind in _IN_MEMORY)


def _mount_memory(target: Path, mode: int, size_bytes: int = 0) -> None:
    """A tmpfs in an empty place: what is below the mount point was written to the disk when it was none."""
    for point in mounts_under(target):
        unmount(point)
    if target.exists():
        shutil.rmtree(target)
    make_private(target)
    mount_tmpfs(target, mode=mode, size_bytes=size_bytes)


def _give(target: Path, mode: int, group: int | None, *, readonly: bool = False) -> None:
    """Sets the mode of a volume's own directory, and with fsGroup its group."""
    opened = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if group is None:
            os.fchmod(opened, mode)
            return
        os.fchown(opened, -1, group)
        os.fchmod(opened, mode | stat.S_ISGID | (0o050 if readonly else 0o070))
    finally:
        os.close(opened)


def unmount_quietly(target: Path) -> None:
    try:
        unmount(target)
    except OSError:
        return  # it was not mounted


def remove_pod_directory(directory: Path) -> None:
    """Unmounts all below a pod's directory, then deletes it. Raises OSError when a mount does not go away."""
    for point in mounts_under(directory):
        unmount(point)
    left = mounts_under(directory)
    if left:
        raise OSError(f"{left[0]} is still mounted")
    if directory.exists():
        remove_tree(directory)


def _volumes(pod: Object) -> list[Object]:
    found: list[Object] = pod["spec"].get("volumes") or []
    return found


def _fs_group(pod: Object) -> int | None:
    group: Any = (pod["spec"].get("securityContext") or {}).get("fsGroup")
    return None if group is None else int(group)


def _first_needy(pod: Object, error: errors.ApiError) -> Fault:
    """The volume to blame when something could not be fetched."""
    needy = [volume["name"] for volume in _volumes(pod) if any(needs(volume))]
    return Fault(needy[0] if needy else "", error.message)
