"""The queue of dirty keys: each key waits at most once, is worked on by at most one worker, and may be held back.

Used by the loop only; imports nothing but asyncio and the metrics. Invariants: a key added while it is being worked on
runs again afterwards; of several delays the earliest wins; a held key does not run before its hold ends.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Hashable

from controller.reconcilers.metrics import LoopMetrics


class WorkQueue:
    def __init__(self, name: str) -> None:
        self.metrics = LoopMetrics.of(name)
        self._ready: deque[Hashable] = deque()
        self._queued_at: dict[Hashable, float] = {}
        self._running: dict[Hashable, float] = {}
        """Since when each key is worked on, by time.monotonic(), for the metrics."""
        self._dirty: set[Hashable] = set()
        self._held_until: dict[Hashable, float] = {}
        self._timers: dict[Hashable, asyncio.TimerHandle] = {}
        self._waiters: deque[asyncio.Future[None]] = deque()
        self.metrics.unfinished.set_function(lambda: sum(self._ages()))
        self.metrics.longest.set_function(lambda: max(self._ages(), default=0.0))

    def __len__(self) -> int:
        return len(self._ready)

    @property
    def idle(self) -> bool:
        """Nothing waits and nothing runs (delayed keys do not count)."""
        return not self._ready and not self._running

    def add(self, key: Hashable) -> None:
        """Marks a key dirty."""
        if key in self._running:
            self._dirty.add(key)
        elif key not in self._queued_at:
            hold = self._held_until.get(key)
            if hold is not None and hold > self._now():
                self._wake_at(key, hold)
            else:
                self._push(key)

    def add_after(self, key: Hashable, seconds: float) -> None:
        """Marks a key dirty `seconds` from now; an earlier time already set stays."""
        if seconds <= 0:
            self.add(key)
        else:
            self._wake_at(key, self._now() + seconds)

    async def get(self) -> Hashable:
        """The next key; it counts as being worked on until `done`."""
        while not self._ready:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                if waiter.done() and not waiter.cancelled():
                    self._wake_one()
                raise
        key = self._ready.popleft()
        self.metrics.wait.observe(self._now() - self._queued_at.pop(key))
        self.metrics.depth.set(len(self._ready))
        self._held_until.pop(key, None)
        self._running[key] = time.monotonic()
        return key

    def done(self, key: Hashable, hold_seconds: float = 0.0) -> None:
        """Ends the work on a key; it may not run again for `hold_seconds`."""
        self._running.pop(key, None)
        if hold_seconds > 0:
            self._held_until[key] = self._now() + hold_seconds
        if key in self._dirty:
            self._dirty.discard(key)
            self.add(key)

    def forget(self, key: Hashable) -> None:
        """Drops what is remembered about a key that no longer exists."""
        self._held_until.pop(key, None)
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()

    def close(self) -> None:
        self._running.clear()
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def _push(self, key: Hashable) -> None:
        self._queued_at[key] = self._now()
        self._ready.append(key)
        self.metrics.adds.inc()
        self.metrics.depth.set(len(self._ready))
        self._wake_one()

    def _wake_one(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    def _wake_at(self, key: Hashable, when: float) -> None:
        timer = self._timers.get(key)
        if timer is not None:
            if timer.when() <= when:
                return
            timer.cancel()
        self._timers[key] = asyncio.get_running_loop().call_at(when, self._due, key)

    def _due(self, key: Hashable) -> None:
        self._timers.pop(key, None)
        self.add(key)

    def _ages(self) -> list[float]:
        """How long each key is being worked on; asked by the exposition's thread."""
        now = time.monotonic()
        return [now - since for since in list(self._running.values())]

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()
