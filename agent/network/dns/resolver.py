"""Names that are not the cluster's: from the cache, else from upstream, each question once at a time.

Called by `responder`. Popular replies are fetched again shortly before their time is over. When upstream fails or is
slow, a reply past its time is better than none. Invariant: no more than FLIGHTS questions are under way, and a question
that came back to us through a misdirected upstream joins its own flight and ends with it: it cannot loop.
"""

from __future__ import annotations

import asyncio

from agent.network.dns import wire
from agent.network.dns.cache import Cache, Question, shortened
from agent.network.dns.upstream import NoAnswer, Upstreams
from agent.network.dns.wire import Reply

FLIGHTS = 512
STALE_AFTER_SECONDS = 0.5
"""So long a client waits for news while an old reply is at hand."""
_FAILED = Reply(wire.SERVFAIL)


class Resolver:
    """`tasks` is where flights run: they go on when who asked has gone."""

    def __init__(self, upstreams: Upstreams, tasks: asyncio.TaskGroup, cache: Cache | None = None) -> None:
        self.upstreams = upstreams
        self.cache = cache if cache is not None else Cache()
        self.hits = self.misses = self.stale = self.refused = self.prefetches = 0
        self._tasks = tasks
        self._flights: dict[Question, asyncio.Task[Reply]] = {}
        self._time = asyncio.get_running_loop().time

    @property
    def in_flight(self) -> int:
        return len(self._flights)

    def at_hand(self, question: Question) -> tuple[Reply, float] | None:
        """A fresh reply and until when (loop time) it stays as it is; None: it has to be fetched."""
        now = self._time()
        entry = self.cache.get(question, now)
        if entry is None or not entry.fresh(now):
            return None
        self.hits += 1
        entry.hits += 1
        if entry.wants_prefetch(now) and question not in self._flights and len(self._flights) < FLIGHTS // 2:
            self.prefetches += 1
            self._fly(question)
        return entry.aged(now), min(entry.stored + int(now - entry.stored) + 1, entry.stored + entry.seconds)

    async def fetch(self, question: Question) -> Reply:
        """A reply, in the worst case SERVFAIL after 4 s."""
        self.misses += 1
        flight = self._flights.get(question)
        if flight is None:
            if len(self._flights) >= FLIGHTS:
                self.refused += 1
                return self._stale(question) or _FAILED
            flight = self._fly(question)
        if (old := self._stale(question)) is None:
            return await asyncio.shield(flight)
        patience = 0.0 if self.upstreams.down else STALE_AFTER_SECONDS
        done, _ = await asyncio.wait((flight,), timeout=patience)
        reply = flight.result() if done else None
        if reply is not None and reply.rcode in (wire.NOERROR, wire.NXDOMAIN):
            return reply
        self.stale += 1
        return old

    def _stale(self, question: Question) -> Reply | None:
        now = self._time()
        entry = self.cache.get(question, now)
        useful = entry is not None and entry.reply.rcode in (wire.NOERROR, wire.NXDOMAIN)
        return entry.aged(now) if useful and entry is not None else None

    def _fly(self, question: Question) -> asyncio.Task[Reply]:
        flight = self._tasks.create_task(self._ask(question))
        self._flights[question] = flight
        flight.add_done_callback(lambda _: self._flights.pop(question, None))
        return flight

    async def _ask(self, question: Question) -> Reply:
        try:
            reply = shortened(await self.upstreams.ask(question))
        except NoAnswer:
            reply = _FAILED
        self.cache.put(question, reply, self._time())
        return reply
