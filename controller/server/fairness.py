"""Fair shares under overload: each user's requests wait in a line of their own, and the lines take turns.

Called by app.py for every request that ends by itself. While seats are free nobody waits. When a level's seats are
taken, requests queue by flow (the user; for service accounts their namespace) and the flows are served round robin, so
one client in a tight loop delays itself and nobody else; nor does one whose requests never end (a body that drips in, a
slow webhook), for some seats are always for others. A long line is refused with 429. Exempt are system:masters,
health checks and whatever stays open (watches, logs, agents' sessions). The idea is Kubernetes' API Priority and
Fairness with fixed levels: https://kubernetes.io/docs/concepts/cluster-administration/flow-control/
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from api.errors import TooManyRequests
from controller.admission.types import MASTERS_GROUP, NODES_GROUP, User

WAIT_SECONDS = 15.0
"""A quarter of a request's time, as in Kubernetes: who waited that long is refused."""
LINE_LIMIT = 200
WIDEST = 10
SHARE = 0.75
"""The part of a level's seats that one flow may take."""
OBJECTS_A_SEAT = 500
_SERVICE_ACCOUNT = "system:serviceaccount:"
_REFUSED = "too many requests, please try again later"


def width_of(objects: int) -> int:
    """How many seats a list takes: one, and one more for every 500 objects it may look at."""
    return min(WIDEST, 1 + objects // OBJECTS_A_SEAT)


def flow_of(user: User) -> str:
    """Whose line a request waits in."""
    if user.name.startswith(_SERVICE_ACCOUNT):
        return user.name.rpartition(":")[0]
    return user.name


@dataclass
class Level:
    """A share of the server. `taken`, `waiting`, `refused` are for metrics."""

    name: str
    seats: int
    taken: int = 0
    waiting: int = 0
    refused: int = 0
    _lines: dict[str, deque[tuple[asyncio.Future[None], int]]] = field(default_factory=dict)
    _held: dict[str, int] = field(default_factory=dict)
    """Seats by flow."""

    async def enter(self, flow: str, width: int) -> None:
        """Returns when the request may run; `leave` gives its seats back. Raises TooManyRequests."""
        if not self._lines and self._has_room(width) and self._may_take(flow, width):
            self._take(flow, width)
            return
        line = self._lines.setdefault(flow, deque())
        if len(line) >= LINE_LIMIT:
            self._refuse()
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        line.append((turn, width))
        self.waiting += 1
        self._seat()
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                self.leave(flow, width)  # its turn had come; the seats go on to the next
            if isinstance(error, TimeoutError):
                self._refuse()
            raise

    def leave(self, flow: str, width: int) -> None:
        """The seats are free again: the next of the next line."""
        self.taken -= width
        self._held[flow] -= width
        if not self._held[flow]:
            del self._held[flow]
        self._seat()

    def _seat(self) -> None:
        """Seats whoever can be, line by line and one of each at a time; lines that have their share are passed by."""
        seated = True
        while seated:
            seated = False
            for flow in [*self._lines]:
                turn, width = self._lines[flow][0]
                if not turn.done():
                    if not self._may_take(flow, width):
                        continue
                    if not self._has_room(width):
                        return
                    self._take(flow, width)
                    turn.set_result(None)
                seated = True
                self._move_on(flow)

    def _move_on(self, flow: str) -> None:
        """The first of a line is gone, and the line goes to the end of the lines."""
        line = self._lines.pop(flow)
        line.popleft()
        self.waiting -= 1
        if line:
            self._lines[flow] = line

    def _has_room(self, width: int) -> bool:
        return not self.taken or self.taken + width <= self.seats

    def _may_take(self, flow: str, width: int) -> bool:
        held = self._held.get(flow, 0)
        return not held or held + width <= self.seats * SHARE

    def _take(self, flow: str, width: int) -> None:
        self.taken += width
        self._held[flow] = self._held.get(flow, 0) + width

    def _refuse(self) -> None:
        self.refused += 1
        raise TooManyRequests(_REFUSED, {"retryAfterSeconds": 1})


class Fairness:
    """The levels of one server: `node` for agents, `system` for Kubernetes' own components, `workload` for the rest."""

    def __init__(self, node_seats: int = 64, system_seats: int = 32, workload_seats: int = 64) -> None:
        self.levels = (
            Level("node", node_seats),
            Level("system", system_seats),
            Level("workload", workload_seats),
        )

    def level_of(self, user: User) -> Level | None:
        """The level of a user's requests; None for who never waits."""
        if MASTERS_GROUP in user.groups:
            return None
        if NODES_GROUP in user.groups:
            return self.levels[0]
        if user.name.startswith(("system:kube-", "system:serviceaccount:kube-system:")):
            return self.levels[1]
        return self.levels[2]


@contextmanager
def leaving(level: Level, flow: str, width: int) -> Iterator[None]:
    """Gives the seats back when the block ends."""
    try:
        yield
    finally:
        level.leave(flow, width)
