"""Queries in, replies out: UDP in batches, TCP with several queries a connection, answered as they get ready.

Called by `main`. Sockets come open; who holds them besides us (the agent) keeps queries from getting lost while a
process is replaced. Invariant: memory is bounded whatever clients do: connections, queries under way on each, and what
is written for a client that does not read. RFC 7766.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import OrderedDict
from typing import Any

from agent.network.dns import wire
from agent.network.dns.responder import WAITING, Pending, Responder

_BATCH = 32
CONNECTIONS = 512
IDLE_SECONDS = 10.0
PIPELINED = 64
"""Queries of one connection under way; more wait in the kernel."""
_UNREAD_BYTES = 256 << 10


class UdpListener:
    def __init__(self, opened: socket.socket, responder: Responder, tasks: asyncio.TaskGroup) -> None:
        opened.setblocking(False)
        self._socket = opened
        self._responder = responder
        self._tasks = tasks
        asyncio.get_running_loop().add_reader(opened, self._readable)

    def stop(self) -> None:
        asyncio.get_running_loop().remove_reader(self._socket)

    def _readable(self) -> None:
        receive, at_once = self._socket.recvfrom, self._responder.at_once
        for _ in range(_BATCH):
            try:
                data, peer = receive(wire.EDNS_BYTES)
            except OSError:  # nothing more to read, or an error that an earlier reply met
                return
            answer = at_once(data)
            if isinstance(answer, bytes):
                self._send(answer, peer)
            elif answer is not None and self._responder.waiting < WAITING:
                self._tasks.create_task(self._finish(answer, peer))

    async def _finish(self, pending: Pending, peer: Any) -> None:
        self._send(await self._responder.finish(pending), peer)

    def _send(self, reply: bytes, peer: Any) -> None:
        with contextlib.suppress(OSError):  # a client that has gone, or does not empty its queue
            self._socket.sendto(reply, peer)


class TcpListener:
    """Accepts on one socket; a client too many takes the place of the one that was silent longest."""

    def __init__(self, opened: socket.socket, responder: Responder, tasks: asyncio.TaskGroup) -> None:
        self.responder = responder
        self.tasks = tasks
        self._socket = opened
        self._server: asyncio.Server | None = None
        self._open: OrderedDict[Conversation, None] = OrderedDict()

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Conversation(self), sock=self._socket)

    def stop(self) -> None:
        """Accept no more; conversations go on until they are idle."""
        if self._server is not None:
            self._server.close()

    @property
    def conversations(self) -> int:
        return len(self._open)

    def active(self, conversation: Conversation) -> None:
        self._open[conversation] = None
        self._open.move_to_end(conversation)
        if len(self._open) > CONNECTIONS:
            next(iter(self._open)).end()

    def ended(self, conversation: Conversation) -> None:
        self._open.pop(conversation, None)


class Conversation(asyncio.Protocol):
    """One client's connection."""

    def __init__(self, listener: TcpListener) -> None:
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._unread = bytearray()
        self._under_way = 0
        self._deaf = False
        self._deadline = self._loop.call_later(IDLE_SECONDS, self.end)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.set_write_buffer_limits(_UNREAD_BYTES)
        self._listener.active(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._deadline.cancel()
        self._transport = None
        self._listener.ended(self)

    def end(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self._unread += data
        self._deadline.cancel()
        self._deadline = self._loop.call_later(IDLE_SECONDS, self.end)
        self._listener.active(self)
        self._work()

    def eof_received(self) -> bool:
        return self._under_way > 0  # who closed his side may still wait for replies; the deadline ends it

    def pause_writing(self) -> None:
        self._deaf = True

    def resume_writing(self) -> None:
        self._deaf = False
        self._work()

    def _work(self) -> None:
        """Take up the queries that are complete, as many as may be under way."""
        unread, responder = self._unread, self._listener.responder
        while self._transport is not None and self._under_way < PIPELINED and not self._deaf:
            size = int.from_bytes(unread[:2], "big")
            if len(unread) < 2 or len(unread) < 2 + size:
                self._transport.resume_reading()
                return
            message = bytes(unread[2 : 2 + size])
            del unread[: 2 + size]
            answer = responder.at_once(message, stream=True)
            if isinstance(answer, Pending):
                self._under_way += 1
                self._listener.tasks.create_task(self._finish(answer))
            elif answer is None:
                self.end()  # no DNS is spoken here
            else:
                self._write(answer)
        if self._transport is not None:
            self._transport.pause_reading()

    async def _finish(self, pending: Pending) -> None:
        reply = await self._listener.responder.finish(pending)
        self._under_way -= 1
        self._write(reply)
        self._work()

    def _write(self, reply: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(len(reply).to_bytes(2, "big") + reply)
