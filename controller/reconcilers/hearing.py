"""What controllers tell each other about the heartbeats that reach them, so that who judges has heard.

Run by main beside the API server, leading or not. An agent beats at whichever controller its connection led to, the
leader alone judges. Each controller keeps one key in etcd that lives as long as it does: the nodes it hears. It is
written only when a node begins to beat there or falls quiet, never for a beat. Invariants: a node counts as quiet after
half a TTL, so that the leader's brake sees those that were cut off together before the first of them is judged; after a
stall of this process' own loop nobody is quiet before he could be heard again; a controller that is gone vouches for
nobody.
"""

from __future__ import annotations

import asyncio

import orjson
import structlog

from controller.reconcilers.liveness import STALL_SECONDS, TICK_SECONDS, Liveness, Report
from controller.store.presence import Presence

_FORGOTTEN_AFTER_TTLS = 4
_log = structlog.get_logger()


class Hearing:
    """One for each controller process. `identity` is its name among them."""

    def __init__(self, liveness: Liveness, presence: Presence, identity: str) -> None:
        self._liveness = liveness
        self._presence = presence
        self._identity = identity
        self._quiet: dict[str, float] = {}
        self._alive: frozenset[str] = frozenset()
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Tells and hears until cancelled."""
        stop = self._presence.follow(self._on_report)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._presence.announce(self._identity, self._says, self._changed))
                await self._listen()
        finally:
            stop()

    async def _listen(self) -> None:
        loop = asyncio.get_running_loop()
        fair_since = ticked = loop.time()
        while True:
            await asyncio.sleep(TICK_SECONDS)
            now = loop.time()
            if (
                now - ticked - TICK_SECONDS > STALL_SECONDS
            ):  # beats may lie unread: they are counted before the next tick
                fair_since = now
            ticked = now
            self._look(now - fair_since)

    def _look(self, fair_seconds: float) -> None:
        """Takes stock. `fair_seconds`: for how long beats could be heard."""
        silent = self._liveness.silent_seconds()
        ttl = self._liveness.ttl_seconds
        alive = frozenset(node for node, seconds in silent.items() if min(seconds, fair_seconds) < ttl / 2)
        alive -= {node for node, seconds in silent.items() if seconds >= ttl / 2 and node not in self._alive}
        if alive == self._alive:
            return
        quiet = {node: seconds for node, seconds in self._quiet.items() if node in silent and node not in alive}
        quiet |= {node: silent.get(node, 0.0) for node in self._alive - alive}
        forgotten = ttl * _FORGOTTEN_AFTER_TTLS
        self._quiet = {node: seconds for node, seconds in quiet.items() if silent.get(node, forgotten) < forgotten}
        self._alive = alive
        self._changed.set()

    def _says(self) -> str:
        quiet = {node: round(seconds, 2) for node, seconds in self._quiet.items()}
        return orjson.dumps({"alive": sorted(self._alive), "quiet": quiet}).decode()

    def _on_report(self, identity: str, says: str | None) -> None:
        if identity == self._identity:
            return
        try:
            self._liveness.hear_of(identity, None if says is None else _parsed(says))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            _log.warning(
                "what another controller says of heartbeats cannot be read", identity=identity, error=str(error)
            )


def _parsed(says: str) -> Report:
    told = orjson.loads(says)
    return Report(frozenset(told["alive"]), {node: float(seconds) for node, seconds in told["quiet"].items()})
