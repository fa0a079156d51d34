"""TLS of accepted connections: a client that is refused hears why.

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

log = structlog.get_logger()


def accepting(context: ssl.SSLContext, make: Callable[[], asyncio.Protocol]) -> Callable[[], asyncio.BaseProtocol]:
    """A protocol factory for `loop.create_server` (without its own `ssl`): TLS, and inside it what `make` makes."""
    loop = asyncio.get_running_loop()

    def made() -> asyncio.BaseProtocol:
        nobody_waits: Any = None
        return _Tls(loop, make(), context, nobody_waits, server_side=True, ssl_handshake_timeout=HANDSHAKE_SECONDS)

    return made


class _Tls(sslproto.SSLProtocol):
    _refused = False

    def _on_handshake_complete(self, handshake_exc: BaseException | None) -> None:
        if self._refused or not isinstance(handshake_exc, ssl.SSLError):
            super()._on_handshake_complete(handshake_exc)
            return
        self._refused = True
        self._process_outgoing()  # type: ignore[attr-defined] # typeshed leaves it out
        self._loop.call_later(LINGER_SECONDS, self._end, handshake_exc)
        if isinstance(handshake_exc, ssl.SSLCertVerificationError):
            peer = self._transport.get_extra_info("peername") if self._transport is not None else None
            log.info("a client's certificate was refused", reason=handshake_exc.verify_message, peer=peer and peer[0])

    def _end(self, error: ssl.SSLError) -> None:
        if self._transport is not None:
            super()._on_handshake_complete(error)

    def buffer_updated(self, nbytes: int) -> None:
        if not self._refused:
            super().buffer_updated(nbytes)

    def eof_received(self) -> None:
        if not self._refused:
            super().eof_received()
