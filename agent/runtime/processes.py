"""Finding, watching and ending processes that are not necessarily our children.

Called by `containerd` and `teardown`: a containerd outlives the agent that started it. Imports `containerd_config`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

from agent.runtime.containerd_config import ContainerdPaths

_STOP_SECONDS = 10.0


def find_containerd(paths: ContainerdPaths) -> int | None:
    """The process id of this data directory's containerd, by its command line (a pid file may lie)."""
    wanted = [b"--config", os.fsencode(paths.config)]
    for pid, argv in command_lines():
        if os.path.basename(argv[0]) == b"containerd" and argv[1:3] == wanted:
            return pid
    return None


def command_lines() -> Iterator[tuple[int, list[bytes]]]:
    """Every process of this machine with its arguments (kernel threads and the dead have none)."""
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                argv = Path(entry.path, "cmdline").read_bytes().split(b"\0")[:-1]
                if argv:
                    yield int(entry.name), argv


async def stop_process(pid: int) -> None:
    """End a process: SIGTERM, 10 s, SIGKILL; returns when it is gone."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.kill(pid, number)
            async with asyncio.timeout(_STOP_SECONDS):
                await wait_until_gone(pid)
            return
        except ProcessLookupError:
            return
        except TimeoutError:
            continue


def alive(pid: int) -> bool:
    _bury(pid)
    return Path(f"/proc/{pid}").exists()


def _bury(pid: int) -> None:
    """Take a dead child off the process table; somebody else's child is init's to bury."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


async def wait_until_gone(pid: int) -> None:
    """Until a process, child or not, has ended; a child is buried."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(handle, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(handle)
        os.close(handle)
    _bury(pid)
