"""Answers one message: the cluster's names at once, others through the resolver.

Called by `listeners`. `at_once` is the fast path: a message seen before, but for its id, has its reply's bytes ready,
until the cluster changes or a TTL counts down. Replies with several addresses are kept in several orders, given out in
turn, so that clients spread. Invariant: whatever comes in, nothing is raised, and what is kept is bounded.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from math import inf
from typing import NamedTuple

from agent.network.dns import wire
from agent.network.dns.cache import Question
from agent.network.dns.resolver import Resolver
from agent.network.dns.wire import (
    HEADER_BYTES,
    Malformed,
    Query,
    Record,
    Reply,
    parse_query,
    render_error,
    render_reply,
)
from agent.network.dns.zone import TTL, Zone

READY_REPLIES = 4096
_READY_BYTES = 1500
_READY_ASKED_BYTES = 300
ORDERS = 8
WAITING = 4096
"""Clients that wait for upstream at a time; who comes on top is told to try again."""
_ALIASES = 8
_OPCODE, _NOT_OURS = 0x7800, (wire.AXFR, wire.IXFR)


@dataclass(frozen=True, slots=True)
class Pending:
    """A query that upstream has to answer: `target` is what to ask for, `aliases` the CNAMEs that lead to it."""

    query: Query
    target: bytes
    aliases: tuple[Record, ...]
    limit: int

    @property
    def question(self) -> Question:
        query = self.query
        return Question(self.target, query.type, query.wants_dnssec, bool(query.flags & wire.CD))


class _Ready(NamedTuple):
    bodies: tuple[bytes, ...]
    """Replies without their id, to be given out in turn."""
    until: float


class Responder:
    def __init__(self, zone: Zone, resolver: Resolver) -> None:
        self.rcodes = [0] * 16
        self.waiting = 0
        self.zone = zone
        self._resolver = resolver
        self._ready: dict[bytes, _Ready] = {}
        self._turn = 0
        self._time = asyncio.get_running_loop().time

    def changed(self) -> None:
        """The cluster's names may be others now."""
        self._ready.clear()

    def at_once(self, data: bytes, *, stream: bool = False) -> bytes | Pending | None:
        """The reply, or what to `finish`, or None for what deserves no reply."""
        ready = None if stream else self._ready.get(data[2:])
        if ready is not None and ready.until > self._time():
            self._turn += 1
            bodies = ready.bodies
            body = bodies[self._turn % len(bodies)]
            self.rcodes[body[1] & 15] += 1
            return data[:2] + body
        try:
            reply = self._answer(data, stream=stream)
        except Malformed:
            reply = render_error(data, wire.FORMERR)
        except Exception as error:  # a query must not take the server down
            print(f"cannot answer {data!r}: {error!r}", flush=True)
            reply = render_error(data, wire.SERVFAIL)
        return self._counted(reply) if isinstance(reply, bytes) else reply

    async def finish(self, pending: Pending) -> bytes:
        """The reply to a query that upstream has to answer; SERVFAIL after 4 s at the latest."""
        if self.waiting >= WAITING:
            return self._counted(render_reply(pending.query, Reply(wire.SERVFAIL), pending.limit))
        self.waiting += 1
        try:
            reply = await self._resolver.fetch(pending.question)
        finally:
            self.waiting -= 1
        return self._counted(render_reply(pending.query, _led_by(pending.aliases, reply), pending.limit))

    def _counted(self, reply: bytes) -> bytes:
        self.rcodes[reply[3] & 15] += 1
        return reply

    def _answer(self, data: bytes, *, stream: bool) -> bytes | Pending | None:
        if len(data) < HEADER_BYTES or data[2] & 0x80:
            return None
        if int.from_bytes(data[2:4], "big") & _OPCODE:
            return render_error(data, wire.NOTIMP)
        query = parse_query(data)
        limit = wire.STREAM_BYTES if stream else query.size
        if query.edns_version:
            return render_reply(query, Reply(wire.BADVERS), limit)
        if query.type in _NOT_OURS or query.cls != wire.IN:
            return render_reply(query, Reply(wire.REFUSED), limit)
        reply, aliases, target = self._local(query)
        if reply is None:
            return self._from_outside(data, Pending(query, target, aliases, limit), keep=not stream)
        bodies = tuple(render_reply(query, each, limit)[2:] for each in _orders(reply))
        if not stream and self.zone.known:
            self._keep(data, _Ready(bodies, inf))
        return data[:2] + bodies[0]

    def _from_outside(self, data: bytes, pending: Pending, *, keep: bool) -> bytes | Pending:
        at_hand = self._resolver.at_hand(pending.question)
        if at_hand is None:
            return pending
        reply, until = at_hand
        body = render_reply(pending.query, _led_by(pending.aliases, reply), pending.limit)
        if keep:
            self._keep(data, _Ready((body[2:],), until))
        return body

    def _keep(self, data: bytes, ready: _Ready) -> None:
        if len(data) > _READY_ASKED_BYTES or sum(map(len, ready.bodies)) > _READY_BYTES:
            return
        if len(self._ready) >= READY_REPLIES:
            self._ready.clear()
        self._ready[data[2:]] = ready

    def _local(self, query: Query) -> tuple[Reply | None, tuple[Record, ...], bytes]:
        """What the cluster's own names say: a reply, or None and the name outside at which its aliases end."""
        aliases: list[Record] = []
        name = query.name
        while (apex := self.zone.apex_of(name)) is not None:
            if not self.zone.known:
                return Reply(wire.SERVFAIL), (), name
            found = self.zone.find(name)
            alias = found.sets.get(wire.CNAME) if found is not None else None
            if alias is None or query.type in (wire.CNAME, wire.ANY) or len(aliases) >= _ALIASES:
                break
            aliases.append(Record(name, wire.CNAME, TTL, alias[0]))
            name = alias[0]
        if apex is None:
            return None, tuple(aliases), name
        if found is None:
            return Reply(wire.NXDOMAIN, wire.AA, aliases, (self.zone.soa(apex),)), (), name
        kinds = found.sets if query.type == wire.ANY else [query.type]
        answer = [*aliases, *(Record(name, kind, TTL, data) for kind in kinds for data in found.sets.get(kind, ()))]
        if len(answer) == len(aliases):
            return Reply(wire.NOERROR, wire.AA, aliases, (self.zone.soa(apex),)), (), name
        return Reply(wire.NOERROR, wire.AA, answer, (), found.extra), (), name


def _orders(reply: Reply) -> list[Reply]:
    """The reply with its records in turn at each place; just itself when there is nothing to turn."""
    answer = reply.answer
    if len(answer) < 2 or answer[0].type == wire.CNAME:
        return [reply]
    starts = range(0, len(answer), -(-len(answer) // ORDERS))
    return [
        Reply(reply.rcode, reply.flags, (*answer[at:], *answer[:at]), reply.authority, reply.additional)
        for at in starts
    ]


def _led_by(aliases: tuple[Record, ...], reply: Reply) -> Reply:
    if not aliases:
        return reply
    return Reply(reply.rcode, 0, (*aliases, *reply.answer), reply.authority, reply.additional)
