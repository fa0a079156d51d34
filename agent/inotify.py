"""Waiting for a directory to change, with inotify: a log line is seen when it is written, not at the next look.

Called by `logs`. Imports the standard library only. inotify(7).
"""

from __future__ import annotations

import asyncio
import ctypes
import os
from pathlib import Path
from typing import Self

_IN_MODIFY, _IN_CREATE, _IN_MOVED_TO = 0x2, 0x100, 0x80
_libc = ctypes.CDLL(None, use_errno=True)


class FileWatch:
    """Watches the files of one directory; use as a context manager on a running event loop.

    Where the kernel gives no watch (none left), `changed` just waits its time out.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._descriptor = -1
        self._event = asyncio.Event()

    def __enter__(self) -> Self:
        self._descriptor = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._descriptor >= 0:
            wanted = _IN_MODIFY | _IN_CREATE | _IN_MOVED_TO
            _libc.inotify_add_watch(self._descriptor, os.fsencode(self._directory), wanted)
            asyncio.get_running_loop().add_reader(self._descriptor, self._drain)
        return self

    def __exit__(self, *_: object) -> None:
        if self._descriptor >= 0:
            asyncio.get_running_loop().remove_reader(self._descriptor)
            os.close(self._descriptor)

    async def changed(self, seconds: float) -> None:
        """Returns after a change since the last call, or when the time is over."""
        try:
            async with asyncio.timeout(seconds):
                await self._event.wait()
        except TimeoutError:
            return
        self._event.clear()

    def _drain(self) -> None:
        try:
            os.read(self._descriptor, 65536)
        except BlockingIOError:
            return
        self._event.set()
