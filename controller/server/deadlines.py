"""Deadlines of requests, watched by one timer for all of them.

Used by app.py. `asyncio.timeout` makes a timer a request, 14 us of the 280 that creating a pod may cost; here a request
costs two dict operations and one look a second finds those that are overdue. Invariant: a request that is overdue is
cancelled once, and its frame can tell that from a client that went away.
"""

from __future__ import annotations

import asyncio
from types import TracebackType

LOOK_SECONDS = 1.0


class Deadlines:
    """`with deadlines.watch():` around what shall end in time; an overdue one is cancelled and raises TimeoutError."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._running: dict[asyncio.Task[object], float] = {}
        self._overdue: set[asyncio.Task[object]] = set()
        self._timer: asyncio.TimerHandle | None = None

    def watch(self) -> Watched:
        loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        assert task is not None, "only tasks can be cancelled"
        self._running[task] = loop.time() + self._seconds
        if self._timer is None:
            self._timer = loop.call_later(LOOK_SECONDS, self._look, loop)
        return Watched(self, task)

    def ended(self, task: asyncio.Task[object]) -> bool:
        """The request ended; whether it was cancelled for being overdue."""
        self._running.pop(task, None)
        if task not in self._overdue:
            return False
        self._overdue.discard(task)
        return True

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        for task, deadline in list(self._running.items()):
            if deadline <= now:
                del self._running[task]
                self._overdue.add(task)
                task.cancel()
        self._timer = loop.call_later(LOOK_SECONDS, self._look, loop) if self._running else None


class Watched:
    __slots__ = ("_deadlines", "_task")

    def __init__(self, deadlines: Deadlines, task: asyncio.Task[object]) -> None:
        self._deadlines = deadlines
        self._task = task

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        del trace
        overdue = self._deadlines.ended(self._task)
        if overdue and self._task.uncancel() <= 0 and kind is asyncio.CancelledError:
            raise TimeoutError("the request took too long") from error
