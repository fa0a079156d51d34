"""The agent's own branch of the cgroup trees: one cgroup a pod, a pids limit on each, killed and removed as a whole.

Called by `cri` (pods come and go) and `teardown`. containerd is told the path of a pod's cgroup and puts the containers
below it. Works with cgroup v1 (one tree a controller), v2, and both at once. Invariant: every process of every pod of a
data directory is below that directory's `root`, so killing the root's processes leaves no container. Imports only the
standard library. Kernel documentation: admin-guide/cgroup-v1, cgroup-v2.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

_MOUNTS = Path("/sys/fs/cgroup")
_KILL_SECONDS = 5.0


@lru_cache(maxsize=8)
def hierarchies(mounts: Path = _MOUNTS) -> tuple[Path, ...]:
    """The roots of all cgroup trees of this machine; looked for once, they stay while the machine runs."""
    if (mounts / "cgroup.controllers").exists():
        return (mounts,)
    found = [child for child in mounts.iterdir() if child.is_dir() and (child / "cgroup.procs").exists()]
    return tuple(sorted({child.resolve() for child in found}))


def make_pod_cgroup(parent: str, pids_limit: int) -> None:
    """Make a pod's cgroup (an absolute cgroup path) where the pids controller is, and limit its processes.

    The runtime makes it in the other trees. A machine without the pids controller has no such limit.
    """
    for tree in hierarchies():
        unified = (tree / "cgroup.subtree_control").exists()
        if not unified and tree.name != "pids":
            continue
        if unified and "pids" not in (tree / "cgroup.controllers").read_text().split():
            continue
        directory = _make_path(tree, parent, unified)
        (directory / "pids.max").write_text(str(pids_limit))


def _make_path(tree: Path, parent: str, unified: bool) -> Path:
    directory = tree
    for part in parent.strip("/").split("/"):
        if unified:
            _delegate(directory)
        directory /= part
        directory.mkdir(exist_ok=True)
    if unified:
        _delegate(directory)
    return directory


def _delegate(directory: Path) -> None:
    """cgroup v2: children get a controller only if their parent hands it on."""
    for controller in (directory / "cgroup.controllers").read_text().split():
        with contextlib.suppress(OSError):
            (directory / "cgroup.subtree_control").write_text(f"+{controller}")


def remove_cgroup(path: str) -> None:
    """Remove a cgroup with all below it from every tree; what still has processes stays."""
    for tree in hierarchies():
        for directory in _below(tree / path.strip("/")):
            with contextlib.suppress(OSError):
                directory.rmdir()


def kill_cgroup(path: str) -> None:
    """SIGKILL every process below a cgroup path, in every tree, until none is left (blocking; at most 5 s)."""
    deadline = time.monotonic() + _KILL_SECONDS
    while (pids := processes(path)) and time.monotonic() < deadline:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)


def processes(path: str) -> set[int]:
    """Ids of all processes below a cgroup path."""
    found: set[int] = set()
    for tree in hierarchies():
        for directory in _below(tree / path.strip("/")):
            with contextlib.suppress(OSError):
                found.update(map(int, (directory / "cgroup.procs").read_text().split()))
    return found - {0}


def oom_killed(path: str, mounts: Path = _MOUNTS) -> bool:
    """Whether the kernel killed something in a cgroup for want of memory (False when the cgroup is gone already)."""
    for tree in hierarchies(mounts):
        for name in ("memory.events", "memory.oom_control"):
            with contextlib.suppress(OSError):
                words = (tree / path.strip("/") / name).read_text().split()
                if "oom_kill" in words and words[words.index("oom_kill") + 1] != "0":
                    return True
    return False


def _below(directory: Path) -> Iterator[Path]:
    """A cgroup and all its descendants, children first."""
    for path, _, _ in os.walk(directory, topdown=False):
        yield Path(path)
