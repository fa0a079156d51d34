"""Who is alive: the times of the nodes' heartbeats, kept in memory, judged against the TTL.

`beat` is called by the server for every heartbeat frame that reaches this process; `hear_of` brings what other
controllers hear (hearing.py). The node-lifecycle reconciler asks `judge` and `braked` and is woken when a judgement
changes. Imports asyncio only. Invariants:
- silence is death, a closed connection is not: only the time since the last heartbeat counts;
- nobody is judged within one TTL of the start of this leader, or of the end of a stall of its event loop, because
  heartbeats that arrived meanwhile could not be counted; who was not heard at all since the start gets a second TTL,
  for an agent needs as long to find a controller that was away;
- a node that beats at another controller is alive for as long as that one vouches for it, and then gets what is left of
  its TTL; when that controller is gone, a whole one;
- while more than half of the nodes vanished within one TTL the brake holds: then more likely we are the ones cut off.
  It holds one TTL longer, because those that return do not all do so at the same moment.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

import structlog

log = structlog.get_logger()

TTL_SECONDS = 4.0
TICK_SECONDS = 0.5
STALL_SECONDS = 1.0
"""A tick that comes so much too late means that heartbeats lay unread."""


@dataclass(frozen=True)
class Judgement:
    """`silent`: the TTL has passed. `wait_seconds`: how long until that may happen."""

    silent: bool
    wait_seconds: float


@dataclass(frozen=True)
class Report:
    """What one controller hears: the nodes that beat there, and those that have just fallen quiet with the seconds that
    they had been silent then."""

    alive: frozenset[str] = frozenset()
    quiet: Mapping[str, float] = field(default_factory=dict)


class Liveness:
    """One for each controller process. `ttl_seconds` is the time of silence after which a node counts as dead."""

    def __init__(self, ttl_seconds: float = TTL_SECONDS, clock: Callable[[], float] | None = None) -> None:
        self.ttl_seconds = ttl_seconds
        self._clock = clock or _loop_time
        self._last: dict[str, float] = {}
        self._told: dict[str, float] = {}
        self._vouched: dict[str, set[str]] = {}
        self._reports: dict[str, Report] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._silent: set[str] = set()
        self._listeners: list[Callable[[str], None]] = []
        self._brake = Brake(ttl_seconds)
        self._leading = False
        self._started = 0.0
        self._fair_since = 0.0
        self._ticked = 0.0

    def beat(self, node: str) -> bool:
        """Counts a heartbeat; True if it is granted, that is, if this controller leads and so judges."""
        self._last[node] = self._clock()
        if not self._leading:
            return False
        self._rise(node)
        return True

    def ever_beat(self, node: str) -> bool:
        """Whether this process has seen, or heard of, a heartbeat of the node."""
        return node in self._last or node in self._told

    def silent_seconds(self) -> dict[str, float]:
        """How long each node has not been heard by this very process."""
        now = self._clock()
        return {node: now - last for node, last in self._last.items()}

    def hear_of(self, reporter: str, report: Report | None) -> None:
        """What another controller hears from now on; None: that controller is gone."""
        before, report = self._reports.pop(reporter, Report()), report or Report()
        if report != Report():
            self._reports[reporter] = report
        now = self._clock()
        for node in report.alive - before.alive:
            self._vouched.setdefault(node, set()).add(reporter)
            self._told[node] = now
            self._rise(node)
        for node in before.alive - report.alive:
            vouching = self._vouched[node]
            vouching.discard(reporter)
            if not vouching:
                del self._vouched[node]
                self._told[node] = now - report.quiet.get(node, 0.0)
                self._time_anew(node)

    def judge(self, node: str) -> Judgement:
        """Is a node that should heartbeat alive? From the first question on its silence is timed."""
        self._note_stall()
        wait = self._due(node) - self._clock()
        if wait <= 0:
            self._silent.add(node)
            return Judgement(True, 0.0)
        if node not in self._timers:
            self._arm(node)
        return Judgement(False, wait)

    def braked(self, nodes: Collection[str]) -> bool:
        """Whether more than half of `nodes` (those that should heartbeat) vanished within one TTL of each other, or
        did so a TTL ago.

        A node counts as vanishing from half a TTL of silence on: of those cut off together the first to run out of time
        must not be judged before the others show the same.
        """
        return self._brake.holds([self._seen(node) for node in nodes], self._clock())

    def forget(self, node: str) -> None:
        """The node was deleted."""
        self._last.pop(node, None)
        self._told.pop(node, None)
        self._silent.discard(node)
        timer = self._timers.pop(node, None)
        if timer is not None:
            timer.cancel()

    def attach(self, listener: Callable[[str], None]) -> Callable[[], None]:
        """Calls `listener(node)` whenever a judgement may have changed; returns how to stop."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    async def run(self) -> None:
        """Judges while this controller leads: from now until cancelled."""
        self._leading = True
        self._started = self._fair_since = self._ticked = self._clock()
        self._silent.clear()
        try:
            while True:
                await asyncio.sleep(TICK_SECONDS)
                self._note_stall()
                self._ticked = self._clock()
        finally:
            self._leading = False
            for timer in self._timers.values():
                timer.cancel()
            self._timers.clear()

    def _note_stall(self) -> None:
        """After a stall everybody gets a whole TTL to be heard again."""
        now = self._clock()
        late = now - self._ticked - TICK_SECONDS
        if late > STALL_SECONDS:
            log.warning("event_loop_stalled", seconds=round(late, 2))
            self._fair_since = self._ticked = now

    def _seen(self, node: str) -> float:
        if node in self._vouched:
            return self._clock()
        last = max(self._last.get(node, -math.inf), self._told.get(node, -math.inf))
        if last < self._started:  # it may still be on its way to a controller that is just back
            last = self._started + self.ttl_seconds
        return max(last, self._fair_since)

    def _due(self, node: str) -> float:
        return self._seen(node) + self.ttl_seconds

    def _rise(self, node: str) -> None:
        """The node was heard, here or elsewhere."""
        if not self._leading:
            return
        if node in self._silent:
            self._silent.discard(node)
            self._notify(node)
        if node not in self._timers:
            self._arm(node)
            self._notify(node)

    def _time_anew(self, node: str) -> None:
        if self._leading and (timer := self._timers.pop(node, None)) is not None:
            timer.cancel()
            self._arm(node)

    def _arm(self, node: str) -> None:
        """One timer a node; it looks again when it fires, so that a heartbeat costs no timer."""
        delay = max(0.0, self._due(node) - self._clock())
        self._timers[node] = asyncio.get_running_loop().call_later(delay, self._expire, node)

    def _expire(self, node: str) -> None:
        self._timers.pop(node, None)
        self._note_stall()
        if self._due(node) > self._clock():
            self._arm(node)
            return
        self._silent.add(node)
        self._notify(node)

    def _notify(self, node: str) -> None:
        for listener in self._listeners:
            listener(node)


class Brake:
    """Holds while more than half of the nodes are away, and one window longer. Has to be asked while it holds, at
    least once a window."""

    def __init__(self, window_seconds: float) -> None:
        self._window = window_seconds
        self._release_at = -math.inf

    def holds(self, last_seen: Collection[float], now: float) -> bool:
        """`last_seen`: when each of the nodes was heard last, on the clock of `now`."""
        if vanished_together(last_seen, now, self._window):
            self._release_at = now + self._window
        return now < self._release_at


def vanished_together(last_seen: Collection[float], now: float, window_seconds: float) -> bool:
    """Whether more than half of those last seen at these times have been silent for half a window, and fell silent
    within one window of each other."""
    vanished = sorted(moment for moment in last_seen if now - moment > window_seconds / 2)
    start = 0
    for end, moment in enumerate(vanished):
        while moment - vanished[start] > window_seconds:
            start += 1
        if 2 * (end - start + 1) > len(last_seen):
            return True
    return False


def _loop_time() -> float:
    return asyncio.get_running_loop().time()
