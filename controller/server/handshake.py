"""TLS of accepted connections: a client that is refused hears why, and a request costs one read.

Called by listener.py. With TLS 1.3 the server judges a client certificate when the client believes to be connected, and
asyncio throws the alert away with the connection: kubectl and agents would see "connection reset", not "certificate
expired". So asyncio's own protocol is given the time to send it, and the refusal is one line in our log.
Invariant: after a refusal nothing that arrives is kept or looked at, and the connection ends within LINGER_SECONDS.
"""

from __future__ import annotations

import asyncio
import ssl
from asyncio import sslproto
from collections.abc import Callable
from typing import Any

import structlog

LINGER_SECONDS = 1.0
"""A socket closed with unread data resets the connection, and the client never reads the alert."""
HANDSHAKE_SECONDS = 30
READ_BYTES = 64 * 1024
"""What is read at once, and each connection's buffer: asyncio's 256 KiB are more than any request but uploads."""

log = structlog.get_logger()


def accepting(
    context: Callable[[], ssl.SSLContext], make: Callable[[], asyncio.Protocol]
) -> Callable[[], asyncio.BaseProtocol]:
    """A protocol factory for `loop.create_server` (without its own `ssl`): TLS, and inside it what `make` makes."""
    loop = asyncio.get_running_loop()

    def made() -> asyncio.BaseProtocol:
        nobody_waits: Any = None
        return _Tls(loop, make(), context(), nobody_waits, server_side=True, ssl_handshake_timeout=HANDSHAKE_SECONDS)

    return made


class _Tls(sslproto.SSLProtocol):
    max_size = READ_BYTES
    _refused = False

    def _on_handshake_complete(self, handshake_exc: BaseException | None) -> None:
        if self._refused or not isinstance(handshake_exc, ssl.SSLError):
            super()._on_handshake_complete(handshake_exc)
            return
        self._refused = True
        # From now on; asked at every read, this would cost each request a microsecond.
        self.buffer_updated = self.eof_received = _unheard  # type: ignore[assignment, method-assign]
        self._process_outgoing()  # type: ignore[attr-defined] # typeshed leaves it out
        self._loop.call_later(LINGER_SECONDS, self._end, handshake_exc)
        if isinstance(handshake_exc, ssl.SSLCertVerificationError):
            peer = self._transport.get_extra_info("peername") if self._transport is not None else None
            log.info("a client's certificate was refused", reason=handshake_exc.verify_message, peer=peer and peer[0])

    def _end(self, error: ssl.SSLError) -> None:
        if self._transport is not None:
            super()._on_handshake_complete(error)

    def _do_read__copied(self) -> None:
        """As asyncio's, which reads until OpenSSL refuses, an exception a request, and need not: it can be asked."""
        tls: ssl.SSLObject = self._sslobj  # type: ignore[attr-defined]
        arrived: ssl.MemoryBIO = self._incoming  # type: ignore[attr-defined]
        pieces: list[bytes] = []
        chunk = b"?"
        try:
            while chunk := tls.read(self.max_size):
                pieces.append(chunk)
                if not arrived.pending and not tls.pending():
                    break
        except sslproto.SSLAgainErrors:  # incomplete; what is missing will come
            chunk = b"?"
        if pieces:
            self._app_protocol.data_received(  # type: ignore[attr-defined]
                pieces[0] if len(pieces) == 1 else b"".join(pieces)
            )
        if not chunk:  # close_notify
            self._call_eof_received()  # type: ignore[attr-defined]
            self._start_shutdown()


def _unheard(*_: object) -> None:
    """What a refused client still sends."""
