"""Asking the servers of the node's resolv.conf: over UDP, again over TCP what was cut short, several at a time.

Called by `resolver`. Servers are asked in the file's order, those that lately did not answer last. While the first is
silent the next is asked as well (after HEDGE_SECONDS), so a dead server costs no more than that, and nothing once it
is known to be dead; it is tried again in the background. Every question has a port and an id of its own, both random;
the kernel lets only the asked server's datagrams in. RFC 1035, 5452, 7766.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from agent.network.dns import wire
from agent.network.dns.cache import Question
from agent.network.dns.wire import Malformed, Reply, Response, parse_response, render_query

HEDGE_SECONDS = 0.08
ATTEMPT_SECONDS = 2.0
GIVE_UP_SECONDS = 4.0
"""Below the 5 s after which a client asks again."""
_ROUNDS = (0.0, 0.8, 1.8)
_PROBE_SECONDS = 1.0
_LATENCY_SHARE = 0.2
MOST_ATTEMPTS = 1024
"""Sockets that are open towards upstream at a time."""
_PORT = 53


class NoAnswer(Exception):
    """No upstream server gave an answer in time, or there is none."""


@dataclass
class Server:
    """One upstream and how it has been lately."""

    address: str
    asked: int = 0
    failures: int = 0
    latency_seconds: float = 0.0
    failing: bool = False
    plain: bool = False
    """Does not understand EDNS."""
    answered_at: float = field(default=0.0)
    tried_at: float = field(default=0.0)


class Upstreams:
    """The servers in use. `tasks` is where attempts run; they end by themselves within 2 s."""

    def __init__(self, tasks: asyncio.TaskGroup) -> None:
        self.servers: list[Server] = []
        self._tasks = tasks
        self._attempts = 0

    def use(self, addresses: Iterable[str]) -> None:
        """From now on these, in this order; what is known of those that stay is kept."""
        known = {server.address: server for server in self.servers}
        self.servers = [known.get(address) or Server(address) for address in dict.fromkeys(addresses)]

    @property
    def down(self) -> bool:
        """Whether no server can be expected to answer."""
        return all(server.failing for server in self.servers)

    async def ask(self, question: Question) -> Reply:
        """The first good answer; else the last bad one (SERVFAIL, REFUSED). Raises NoAnswer within 4 s."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        running = {self._start(server, question): server for server in self._due_probes(started)}
        plan = list(self._plan(started))
        bad: Reply | None = None
        while (plan or running) and (now := loop.time()) < started + GIVE_UP_SECONDS:
            if plan and (plan[0][0] <= now or not running):
                server = plan.pop(0)[1]
                running[self._start(server, question)] = server
                continue
            until = plan[0][0] if plan else started + GIVE_UP_SECONDS
            done, _ = await asyncio.wait(running, timeout=until - now, return_when=asyncio.FIRST_COMPLETED)
            for attempt in done:
                reply, server = attempt.result(), running.pop(attempt)
                if reply is not None and reply.rcode in (wire.NOERROR, wire.NXDOMAIN):
                    return reply
                bad = reply or bad
                plan = [(when, other) for when, other in plan if other is not server]
        if bad is None:
            raise NoAnswer
        return bad

    def _plan(self, now: float) -> Iterator[tuple[float, Server]]:
        """Who is asked when, if nobody before has answered."""
        order = sorted(self.servers, key=lambda server: server.failing)
        for start in _ROUNDS:
            for place, server in enumerate(order):
                yield now + start + place * HEDGE_SECONDS, server

    def _due_probes(self, now: float) -> list[Server]:
        if self.down:
            return []
        return [each for each in self.servers if each.failing and now > each.tried_at + _PROBE_SECONDS]

    def _start(self, server: Server, question: Question) -> asyncio.Task[Reply | None]:
        return self._tasks.create_task(self._attempt(server, question))

    async def _attempt(self, server: Server, question: Question) -> Reply | None:
        """One exchange with one server; None when it failed. Keeps the server's record."""
        if self._attempts >= MOST_ATTEMPTS:
            return None
        loop = asyncio.get_running_loop()
        started = server.tried_at = loop.time()
        server.asked += 1
        self._attempts += 1
        try:
            async with asyncio.timeout(ATTEMPT_SECONDS):
                reply = await _exchange(server, question)
        except (OSError, TimeoutError, Malformed, EOFError):
            server.failures += 1
            server.failing = server.failing or server.answered_at < started
            return None
        finally:
            self._attempts -= 1
        server.answered_at = loop.time()
        server.failing = False
        server.latency_seconds += (server.answered_at - started - server.latency_seconds) * _LATENCY_SHARE
        return reply


async def _exchange(server: Server, question: Question) -> Reply:
    response = await _over_udp(server, question)
    if response.reply.rcode in (wire.FORMERR, wire.NOTIMP, wire.BADVERS) and not server.plain:
        server.plain = True
        response = await _over_udp(server, question)
        server.plain = response.reply.rcode not in (wire.FORMERR, wire.NOTIMP, wire.BADVERS)
    if response.truncated:
        response = await _over_tcp(server, question)
    return response.reply


async def _over_udp(server: Server, question: Question) -> Response:
    loop = asyncio.get_running_loop()
    number, message = _render(server, question)
    with socket.socket(_family(server.address), socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as conversation:
        conversation.connect((server.address, _PORT))
        conversation.send(message)
        while True:
            response = _matching(await loop.sock_recv(conversation, wire.EDNS_BYTES), number, question)
            if response is not None:
                return response


async def _over_tcp(server: Server, question: Question) -> Response:
    number, message = _render(server, question)
    reader, writer = await asyncio.open_connection(server.address, _PORT)
    try:
        writer.write(len(message).to_bytes(2, "big") + message)
        size = int.from_bytes(await reader.readexactly(2), "big")
        response = _matching(await reader.readexactly(size), number, question)
    finally:
        writer.close()
    if response is None:
        raise Malformed("an answer to another question")
    return response


def _render(server: Server, question: Question) -> tuple[int, bytes]:
    number = int.from_bytes(os.urandom(2), "big")
    flags = wire.CD if question.unchecked else 0
    edns = None if server.plain else (wire.UPSTREAM_BYTES, question.wants_dnssec)
    return number, render_query(number, question.name, question.type, flags | wire.AD, edns)


def _matching(data: bytes, number: int, question: Question) -> Response | None:
    """The response, if it is one to this question; a server that fails may leave the question out."""
    try:
        response = parse_response(data)
    except Malformed:
        return None
    asked = (question.name, question.type, wire.IN)
    good = response.id == number and (
        response.question == asked or (response.question is None and response.reply.rcode)
    )
    return response if good else None


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET
