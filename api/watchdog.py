"""A watchdog over an event loop: how long something held it, so that nothing else could run.

Started by controller and agent as a task; `Stalls` is a Prometheus collector. A tick that comes late says how late:
that is a stall. As much of it as the process itself computed meanwhile is its own doing (`held`); the rest is the
machine's.
Imports asyncio and prometheus_client only.
"""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left
from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Stalls(Collector):
    """Of the loop that `run` runs on. `tick_seconds`: how often it looks; a shorter stall may go unseen."""

    def __init__(self, tick_seconds: float = 0.05) -> None:
        self._tick_seconds = tick_seconds
        self._counts = [0] * (len(BUCKETS) + 1)
        self._total = 0.0
        self.longest = 0.0
        """Seconds, since the start."""
        self.held = 0.0
        """The longest the process itself was busy for while its loop stood still."""

    async def run(self) -> None:
        """Looks until cancelled."""
        loop = asyncio.get_running_loop()
        computed, due = time.process_time(), loop.time() + self._tick_seconds
        while True:
            await asyncio.sleep(self._tick_seconds)
            late, spent = loop.time() - due, time.process_time() - computed
            self._note(max(0.0, late), spent)
            computed, due = time.process_time(), loop.time() + self._tick_seconds

    def _note(self, late: float, spent: float) -> None:
        self._counts[bisect_left(BUCKETS, late)] += 1
        self._total += late
        self.longest = max(self.longest, late)
        self.held = max(self.held, min(late, spent))

    def collect(self) -> Iterator[HistogramMetricFamily | GaugeMetricFamily]:
        seen, buckets = 0, []
        for bound, count in zip((*map(str, BUCKETS), "+Inf"), self._counts, strict=True):
            seen += count
            buckets.append((bound, float(seen)))
        text = "Seconds by which the event loop came late to its watchdog."
        stalls = HistogramMetricFamily("wherry_event_loop_stall_seconds", text)
        stalls.add_metric((), buckets, self._total)
        yield stalls
        text = "The longest stall of the event loop since the start."
        yield GaugeMetricFamily("wherry_event_loop_longest_stall_seconds", text, self.longest)
        text = "Of such a stall, the most that this process computed itself."
        yield GaugeMetricFamily("wherry_event_loop_longest_held_seconds", text, self.held)
