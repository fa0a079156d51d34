"""Making, refreshing and taking away a pod's volumes.

emptyDir (disk or memory), hostPath, configMap, secret, downwardAPI, projected; subPath. Called by the pod workers. Each
verb may be repeated: mounting what is there is success. Invariant: nothing of a pod directory is deleted while anything
is mounted below it, so a host's or another pod's files are never reached.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.paths import Paths
from agent.pods.configs import propagation_of
from agent.pods.env import ConfigFault, Source, expand
from agent.pods.fields import Facts
from agent.runtime.mounts import mounts_under
from agent.runtime.protocol import Mount
from agent.sources import SourceReader
from agent.volumes.atomic import give_to_group, write_payload
from agent.volumes.host import prepare_host_path
from agent.volumes.payload import PAYLOAD_KINDS, Ingredients, Payload, TokenAsk, VolumeFault, needs, payload_of
from agent.volumes.syscalls import bind, mount_tmpfs, open_beneath, unmount
from api import errors
from api.objects import Object, namespace_of, uid_of
from api.quantity import bytes_of

_PLUGINS = {"configMap": "configmap", "secret": "secret", "downwardAPI": "downward-api", "projected": "projected"}
_IN_MEMORY = ("secret", "downwardAPI", "projected")


@dataclass(frozen=True)
class Fault:
    """Why one volume of a pod could not be made."""

    volume: str
    message: str


class Volumes:
    """The volumes of all pods of a node."""

    def __init__(self, paths: Paths, sources: SourceReader) -> None:
        self._paths = paths
        self._sources = sources

    async def mount(self, pod: Object, facts: Facts) -> list[Fault]:
        """Makes every volume of the pod; returns what went wrong (empty: all are there)."""
        ingredients, faults = await self._gather(pod, facts)
        if faults:
            return faults
        return await asyncio.to_thread(self._make_all, pod, ingredients)

    async def refresh(self, pod: Object, facts: Facts) -> list[Fault]:
        """Brings ConfigMap, Secret, downwardAPI and projected volumes up to date, each atomically."""
        if not any(kind in volume for volume in _volumes(pod) for kind in PAYLOAD_KINDS):
            return []
        return await self.mount(pod, facts)

    async def unmount(self, pod: Object) -> None:
        """Takes all volumes away and forgets the pod's directory. Raises OSError when something is stuck."""
        await asyncio.to_thread(remove_pod_directory, self._paths.pod(uid_of(pod)))

    async def container_mounts(self, pod: Object, container: Object, values: Mapping[str, str]) -> tuple[Mount, ...]:
        """The volumeMounts of one container, subPaths resolved. Raises ConfigFault."""
        return await asyncio.to_thread(self._container_mounts, pod, container, values)

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

    def _make_all(self, pod: Object, ingredients: Ingredients) -> list[Fault]:
        faults = []
        for volume in _volumes(pod):
            try:
                self._make(pod, volume, ingredients)
            except VolumeFault as fault:
                faults.append(Fault(volume["name"], fault.message))
            except OSError as error:
                faults.append(Fault(volume["name"], str(error)))
        return faults

    def _make(self, pod: Object, volume: Object, ingredients: Ingredients) -> None:
        if "hostPath" in volume:
            prepare_host_path(Path(volume["hostPath"]["path"]), volume["hostPath"].get("type") or "")
        elif "emptyDir" in volume:
            self._make_empty(pod, volume)
        elif kind := next((kind for kind in PAYLOAD_KINDS if kind in volume), None):
            payload = payload_of(pod, volume, ingredients)
            self._make_payload(self.path(pod, volume), payload, _fs_group(pod), in_memory=kind in _IN_MEMORY)
        else:
            kinds = ", ".join(sorted(volume.keys() - {"name"}))
            raise VolumeFault(f"this node cannot make volumes of kind {kinds}")

    def _make_empty(self, pod: Object, volume: Object) -> None:
        target = self.path(pod, volume)
        if target.is_dir():
            return
        target.mkdir(parents=True)
        target.chmod(0o777)
        given = volume["emptyDir"] or {}
        if given.get("medium") == "Memory":
            mount_tmpfs(target, size_bytes=bytes_of(given["sizeLimit"]) if given.get("sizeLimit") else 0)
        group = _fs_group(pod)
        if group is not None:
            give_to_group(target, group)

    def _make_payload(self, target: Path, payload: Payload, group: int | None, *, in_memory: bool) -> None:
        if not target.is_dir():
            target.mkdir(parents=True)
            if in_memory:
                mount_tmpfs(target)
            target.chmod(0o777 if not in_memory else 0o1777)
            if group is not None:
                os.chown(target, -1, group)
                target.chmod(0o2777 if not in_memory else 0o3777)
        write_payload(target, payload, group)

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
            inner = mount.get("subPath") or expand(mount.get("subPathExpr") or "", values)
            if inner:
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
            opened = _open_inner(root, inner)
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
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


def _open_inner(root: Path, inner: str) -> int:
    """A descriptor of a path inside the volume; missing directories are made, with the volume's mode."""
    base = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            return open_beneath(base, inner)
        except FileNotFoundError:
            mode = os.stat(root).st_mode & 0o7777
            _make_inner(base, inner, mode)
            return open_beneath(base, inner)
    finally:
        os.close(base)


def _make_inner(base: int, inner: str, mode: int) -> None:
    parent = os.dup(base)
    try:
        for part in Path(inner).parts:
            try:
                child = open_beneath(parent, part, os.O_PATH | os.O_DIRECTORY)
            except FileNotFoundError:
                os.mkdir(part, dir_fd=parent)
                os.chmod(part, mode, dir_fd=parent)
                child = open_beneath(parent, part, os.O_PATH | os.O_DIRECTORY)
            os.close(parent)
            parent = child
    finally:
        os.close(parent)


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
        shutil.rmtree(directory)


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
