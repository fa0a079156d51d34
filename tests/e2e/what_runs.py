"""What really runs in a lab, watched all the time: processes in the pods' cgroups, past agent, containerd and API.

A thread looks every few milliseconds, through cut links, frozen agents and killed servers, and keeps every change. A
look is two readings: what is in both ran all the time in between, so that two processes of one look ran at once.
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from agent.runtime.cgroups import hierarchies

LOOK_SECONDS = 0.05


@dataclass(frozen=True)
class Running:
    """A container's main process."""

    node: str
    uid: str
    container_id: str


Moment = tuple[float, frozenset[Running]]


class Sentry:
    """`roots`: the cgroup below which a node's pods are. `program`: the command's name that tells main from pause."""

    def __init__(self, roots: Mapping[str, str], program: str) -> None:
        self._tree = next((tree for tree in hierarchies() if tree.name == "pids"), hierarchies()[0])
        self._roots = {node: self._tree / root.strip("/") for node, root in roots.items()}
        self._program = program
        self._over = threading.Event()
        self.moments: list[Moment] = []
        self.looked_at = 0.0
        self.longest_blink = 0.0

    def watch(self) -> None:
        """Looks until `stop`."""
        self.looked_at = time.monotonic()
        while not self._over.wait(LOOK_SECONDS):
            seen = self._read() & self._read()
            now = time.monotonic()
            self.longest_blink, self.looked_at = max(self.longest_blink, now - self.looked_at), now
            if not self.moments or self.moments[-1][1] != seen:
                self.moments.append((now, seen))

    def stop(self) -> None:
        self._over.set()

    def since(self, began: float) -> Iterator[Moment]:
        """What ran at a time and every change from then on."""
        before = [moment for moment in self.moments if moment[0] <= began][-1:]
        yield from before
        yield from (moment for moment in list(self.moments) if moment[0] > began)

    def doubled(self, identity: Callable[[Running], str], began: float) -> list[str]:
        """What ran more than once at one moment, in words; `identity` says what must not."""
        found = []
        for at, seen in self.since(began):
            counts = Counter(identity(one) for one in seen)
            for what in sorted(key for key, count in counts.items() if count > 1):
                nodes = sorted(one.node for one in seen if identity(one) == what)
                found.append(f"{at - began:.2f} s: {what} on {', '.join(nodes)}")
        return found

    def most_at_once(self, began: float) -> int:
        return max((len(seen) for _, seen in self.since(began)), default=0)

    def _read(self) -> frozenset[Running]:
        found = set()
        for node, root in self._roots.items():
            for pod in _listed(root):
                for container in _listed(pod):
                    if pod.name.startswith("pod") and self._runs(container / "cgroup.procs"):
                        found.add(Running(node, pod.name.removeprefix("pod"), container.name))
        return frozenset(found)

    def _runs(self, procs: Path) -> bool:
        with suppress(OSError):
            return any(_command(pid) == self._program for pid in procs.read_text().split())
        return False


def _listed(cgroup: Path) -> list[Path]:
    """The cgroups in one; they come and go while they are listed."""
    with suppress(OSError), os.scandir(cgroup) as entries:
        return [Path(entry.path) for entry in entries if entry.is_dir()]
    return []


def _command(pid: str) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""


@contextmanager
def watched(roots: Mapping[str, str], program: str) -> Iterator[Sentry]:
    """A sentry that looks as long as the block lasts."""
    sentry = Sentry(roots, program)
    thread = threading.Thread(target=sentry.watch, name="sentry", daemon=True)
    thread.start()
    try:
        yield sentry
    finally:
        sentry.stop()
        thread.join()
