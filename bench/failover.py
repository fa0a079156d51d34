"""How long a Deployment misses the pods of a server that vanished without a word.

Run as root: `python -m bench.failover [--trials 20] [--pods 30] [--nodes 3]`. Each trial cuts one node's link silently
(nothing is closed, no carrier is lost) and then kills everything on it; measured from the cut until a watcher sees the
first replacement Running elsewhere, and all. Then the node comes back, and at no moment may there be a container more.
Budget: first 5 s, all 8 s (p50, default settings). What a trial does is also a story of the e2e tests.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.lab_scene import Scene, lab_up, scene
from tests.lab_guard import guarded

FIRST_SECONDS, ALL_SECONDS = 5.0, 8.0
GIVE_UP_SECONDS = 60.0


@dataclass(frozen=True)
class Failover:
    """Seconds from the cut until: the first replacement was bound, ran, the last one was bound, all ran."""

    first_bound: float
    first: float
    all_bound: float
    all: float

    def __str__(self) -> str:
        return (
            f"first bound {self.first_bound:5.2f} s, running {self.first:5.2f} s; "
            f"all bound {self.all_bound:5.2f} s, running {self.all:5.2f} s"
        )


async def lose_node(here: Scene, victim: str, pods: int) -> Failover:
    """One trial: the link goes first, then all that runs there. Returns when as many pods run elsewhere."""
    seen = here.seen
    before = set(seen.pods)
    assert seen.on(victim), f"nothing runs on {victim}"
    cut = time.monotonic()
    here.lab.cut(victim)
    await asyncio.to_thread(here.lab.kill, victim)
    await seen.until(lambda: len(seen.running(not_on=victim)) == pods, GIVE_UP_SECONDS, f"{pods} pods run elsewhere")
    fresh = set(seen.pods) - before
    bound = sorted(seen.bound_at[uid] - cut for uid in fresh)
    running = sorted(seen.running_at[uid] - cut for uid in fresh)
    return Failover(bound[0], running[0], bound[-1], running[-1])


async def bring_back(here: Scene, victim: str, pods: int) -> None:
    """The lost node returns; nothing of before is left on it, and there are exactly as many pods as wanted."""
    here.at_most(pods)
    here.lab.join(victim)
    here.lab.revive(victim)
    await here.ready(victim)
    await here.settled(pods)


async def trials(here: Scene, count: int, pods: int) -> list[Failover]:
    found = []
    for number in range(count):
        victim = here.lab.state.nodes[number % len(here.lab.state.nodes)]
        await here.deploy(pods)
        found.append(await lose_node(here, victim, pods))
        print(f"trial {number + 1:2}: {found[-1]}; load {os.getloadavg()[0]:.1f}", flush=True)
        await bring_back(here, victim, pods)
    return found


def percentile(values: Sequence[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, round(share * (len(values) - 1)))]


def report(found: Sequence[Failover]) -> str:
    lines = []
    for name, budget in (("first", FIRST_SECONDS), ("all", ALL_SECONDS)):
        values = [getattr(one, name) for one in found]
        lines.append(
            f"{name:5} running elsewhere: p50 {statistics.median(values):.2f} s, p90 {percentile(values, 0.9):.2f} s, "
            f"worst {max(values):.2f} s (budget {budget:.0f} s p50)"
        )
    return "\n".join(lines)


async def _measure(options: argparse.Namespace, directory: Path) -> list[Failover]:
    lab = await asyncio.to_thread(lab_up, directory, options.nodes, "b")
    async with scene(lab, "web") as here:
        return await trials(here, options.trials, options.pods)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measures failover in a lab of network namespaces.")
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--pods", type=int, default=30)
    parser.add_argument("--nodes", type=int, default=3)
    options = parser.parse_args()
    scratch = Path(tempfile.mkdtemp(prefix="wherry-failover-"))
    with guarded(scratch):
        found = asyncio.run(_measure(options, scratch / "lab"))
    print(report(found))


if __name__ == "__main__":
    main()
