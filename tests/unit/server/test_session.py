"""Heartbeat sessions: answers pile up for nobody."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from controller.server.session import UNREAD_LIMIT_BYTES, _Session


class Unread(asyncio.Transport):
    """A connection whose other side reads nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting = 0
        self.aborted = False

    def get_write_buffer_size(self) -> int:
        return self.waiting

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.waiting += len(data)

    def abort(self) -> None:
        self.aborted = True


def services() -> Any:
    """As much of the server's as a session asks for."""
    heard = SimpleNamespace(beat=lambda node: node == "n1")
    return SimpleNamespace(heartbeats=heard, pki=SimpleNamespace(digest="d"))


def test_who_sends_beats_and_reads_no_answer_is_cut_off() -> None:
    transport, session = Unread(), _Session(services(), "n1")
    session.connection_made(transport)
    body = b'{"nonce":"' + b"x" * 4000 + b'"}'
    for _ in range(1000):
        if not transport.aborted:
            session.data_received(len(body).to_bytes(4, "big") + body)
    assert transport.aborted
    assert transport.waiting < UNREAD_LIMIT_BYTES + 2 * len(body)
