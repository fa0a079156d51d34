"""The end of a private containerd: containers, shims, mounts, sockets, cgroups, and with `purge` all its data.

Called by `wherry down`, by the lab (`kill_node`) and by tests. Kills by force (who wants grace stops the pods first)
and finds everything by the data directory alone, so it also clears up after an agent, a containerd or a machine that
died: processes by cgroup and command line, mounts by path. Invariant: nothing that belongs to another data directory
is touched. Idempotent.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
from pathlib import Path

from agent.network.dns.process import kill_processes
from agent.network.ingress.proxy import kill_proxies
from agent.network.purge import purge_network
from agent.paths import Paths
from agent.runtime.cgroups import kill_cgroup, remove_cgroup
from agent.runtime.containerd_config import ContainerdPaths, cni_bin_dir, containerd_paths
from agent.runtime.mounts import unmount_under
from agent.runtime.processes import command_lines, find_containerd, stop_process
from agent.trees import remove_tree

_SHIM = b"containerd-shim-runc-v2"


async def stop_containerd(data_dir: Path, *, purge: bool = False) -> None:
    """End this data directory's containerd with all its containers; images and configuration stay unless `purge`.

    The volumes that pods had mounted are unmounted.

    With `purge` also its images, its part of the pod network and its directories go; other contents of the data
    directory are not touched. Returns when all processes are gone.
    """
    paths = containerd_paths(data_dir)
    pid = find_containerd(paths)
    if pid is not None:
        await stop_process(pid)
    await asyncio.to_thread(_clear_processes, paths)
    await asyncio.to_thread(_clear_state, paths)
    unmount_under(Paths(data_dir).pods)
    await purge_network(paths.node_id, cni_bin_dir())
    shutil.rmtree(paths.cni_data_dir, ignore_errors=True)  # no container is left to hold an address
    if purge:
        unmount_under(paths.home)
        with contextlib.suppress(OSError):
            remove_tree(paths.home)
        shutil.rmtree(paths.cni_conf_dir.parent, ignore_errors=True)


def kill_node(data_dir: Path) -> None:
    """SIGKILL containerd, its shims, containers and DNS at once, and leave what a power cut leaves: the disk.

    Mounts are gone, and so is what lay below /run; nothing else is tidied.
    """
    paths = containerd_paths(data_dir)
    pid = find_containerd(paths)
    if pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    kill_processes(paths.node_id)
    kill_proxies(paths.node_id)
    _clear_processes(paths)
    for place in (Paths(data_dir).pods, paths.home, paths.run):
        unmount_under(place)
    shutil.rmtree(paths.run, ignore_errors=True)


def _clear_processes(paths: ContainerdPaths) -> None:
    kill_cgroup(paths.cgroup_root)
    for pid in _shims(paths):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    kill_cgroup(paths.cgroup_root)  # what a shim started while it was dying


def _shims(paths: ContainerdPaths) -> list[int]:
    socket = os.fsencode(paths.socket)
    return [pid for pid, argv in command_lines() if os.path.basename(argv[0]) == _SHIM and socket in argv]


def _clear_state(paths: ContainerdPaths) -> None:
    for address in paths.state.glob("io.containerd.runtime.v2.task/*/*/address"):
        with contextlib.suppress(OSError):
            Path(address.read_text().removeprefix("unix://")).unlink()  # the dead shim's socket, outside our directory
    unmount_under(paths.run)
    shutil.rmtree(paths.run, ignore_errors=True)
    remove_cgroup(paths.cgroup_root)
    with contextlib.suppress(OSError):
        paths.run.parent.rmdir()
