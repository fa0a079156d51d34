"""How much of the disk a pod takes: its volumes, its logs, what its containers wrote into their own layers.

Called by the storage watch for pods that have a limit. Blocking; reads only. Invariant: nothing outside of what is
asked for is looked at: no symlink is followed and no other file system is entered.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from agent.paths import Paths
from agent.pods.spec import all_containers
from agent.pods.storage import Use, is_in_memory
from agent.trees import deep_use
from api.objects import Object, uid_of

_BLOCK_BYTES = 512
"""The unit of st_blocks, whatever the file system's own is."""


def disk_use(directory: Path) -> int:
    """The bytes that a tree takes on its disk; a file with several names counts once. What goes meanwhile counts 0."""
    total, seen = 0, set[int]()
    try:
        device = os.lstat(directory).st_dev
        for _, names, files, place in os.fwalk(directory):
            total += os.fstat(place).st_blocks * _BLOCK_BYTES
            for name in (*names, *files):
                try:
                    found = os.stat(name, dir_fd=place, follow_symlinks=False)
                except OSError:
                    continue
                if name in names and found.st_dev != device:
                    names.remove(name)
                elif name not in names and (found.st_nlink == 1 or found.st_ino not in seen):
                    seen.update((found.st_ino,) if found.st_nlink > 1 else ())
                    total += found.st_blocks * _BLOCK_BYTES
    except OSError:
        return total
    except RecursionError:
        return deep_use(directory)
    return total


def measure(paths: Paths, pod: Object, volumes: Mapping[str, Path], layers: Mapping[str, int]) -> Use:
    """What a pod takes now. `volumes` says where each of its volumes is, `layers` the bytes of each writable layer."""
    uid, logs = uid_of(pod), paths.pod_logs(pod)
    names = [container["name"] for container in all_containers(pod)]
    return Use(
        volumes={
            volume["name"]: _memory_use(volumes[volume["name"]])
            if is_in_memory(volume)
            else disk_use(volumes[volume["name"]])
            for volume in pod["spec"].get("volumes") or ()
            if "emptyDir" in volume or "configMap" in volume
        },
        containers={name: layers.get(name, 0) + disk_use(logs / name) for name in names},
        other=_size(paths.etc_hosts(uid)),
    )


def _memory_use(mount: Path) -> int:
    try:
        found = os.statvfs(mount)
    except OSError:
        return 0
    return (found.f_blocks - found.f_bfree) * found.f_frsize if os.path.ismount(mount) else 0


def _size(file: Path) -> int:
    try:
        return os.lstat(file).st_blocks * _BLOCK_BYTES
    except OSError:
        return 0
