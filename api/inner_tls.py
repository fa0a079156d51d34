"""TLS over a connection that may itself be TLS: what lies between asyncio's transport and whoever reads and writes.

Used by the API server for what it reaches through an agent. asyncio's own `start_tls` is not made for a TLS transport
below it: a handshake that fails there ends in a TypeError of its private parts instead of an SSLError. This is the
same by public means: `ssl.MemoryBIO` and two protocols. Invariants: `secure` raises ssl.SSLError for a certificate
that is not believed; whoever does not read stops the far side, whoever writes too much is paused.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from typing import Any, cast

_READ_BYTES = 256 * 1024


async def secure(
    outer: asyncio.Transport, context: ssl.SSLContext, server_name: str, protocol: asyncio.Protocol
) -> asyncio.Transport:
    """Shakes hands as a client over `outer`; the transport that `protocol` goes on with.

    What the far side says at once is given to `protocol` already. Raises ssl.SSLError, ConnectionError; cancelling
    leaves `outer` to the caller, who closes it in every case.
    """
    layer = _Layer(outer, context, server_name, protocol)
    outer.set_protocol(layer)
    outer.resume_reading()
    layer.advance()
    await layer.ready
    return layer.transport


class _Layer(asyncio.Protocol):
    """The protocol of the outer transport: ciphertext below, plaintext above."""

    def __init__(
        self, outer: asyncio.Transport, context: ssl.SSLContext, server_name: str, protocol: asyncio.Protocol
    ) -> None:
        self.outer = outer
        self.protocol = protocol
        self.transport = _Inner(self)
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.paused = self.ended = False
        self.unsent = bytearray()
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_name)

    def data_received(self, data: bytes) -> None:
        self._incoming.write(data)
        self.advance()

    def eof_received(self) -> None:
        self._incoming.write_eof()
        self.advance()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ready.done():
            self.ready.set_exception(exc or ConnectionResetError("the connection was closed during the TLS handshake"))
            self.ready.exception()  # whoever waited may be gone
        elif not self.ready.exception():
            self.protocol.connection_lost(exc)

    def pause_writing(self) -> None:
        if self.ready.done():
            self.protocol.pause_writing()

    def resume_writing(self) -> None:
        if self.ready.done():
            self.protocol.resume_writing()

    def advance(self) -> None:
        """Whatever can go on with what has come: the handshake, then what was to be sent, then reading."""
        try:
            if not self.ready.done():
                self.tls.do_handshake()
                self.ready.set_result(None)
            self.send()
            self._read()
        except ssl.SSLWantReadError:
            pass
        except (ssl.SSLError, ssl.CertificateError) as error:
            self._fail(error)
        self._flush()

    def send(self) -> None:
        """Raises ssl.SSLWantReadError, after which what is left goes with the next bytes that come."""
        while self.unsent:
            sent = self.tls.write(self.unsent)
            del self.unsent[:sent]
        self._flush()

    def _read(self) -> None:
        while not self.paused and not self.ended:
            try:
                data = self.tls.read(_READ_BYTES)
            except ssl.SSLZeroReturnError:
                data = b""
            if not data:
                self._finish()
                return
            self.protocol.data_received(data)

    def _finish(self) -> None:
        """The far side has said its last word; as asyncio's own TLS, ours ends with it."""
        self.ended = True
        self.protocol.eof_received()
        self.transport.close()

    def _fail(self, error: ssl.SSLError) -> None:
        if not self.ready.done():
            self.ready.set_exception(error)
            self.ready.exception()  # whoever waited may be gone
            return
        self.ended = True
        self._flush()
        self.outer.abort() if not isinstance(error, ssl.SSLEOFError) else self.outer.close()

    def _flush(self) -> None:
        if (data := self._outgoing.read()) and not self.outer.is_closing():
            self.outer.write(data)

    def unwrap(self) -> None:
        """Says goodbye, without waiting for an answer."""
        with contextlib.suppress(ssl.SSLError, ValueError):
            self.tls.unwrap()
        self._flush()


class _Inner(asyncio.Transport):
    """What the protocol above holds. Abstract methods that nobody here needs stay asyncio's NotImplementedError."""

    def __init__(self, layer: _Layer) -> None:
        super().__init__()
        self._layer = layer
        self._closing = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        if name in ("ssl_object", "sslcontext"):
            return self._layer.tls if name == "ssl_object" else self._layer.tls.context
        if name == "peercert":
            return self._layer.tls.getpeercert()
        return self._layer.outer.get_extra_info(name, default)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._layer.protocol = cast(asyncio.Protocol, protocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._layer.protocol

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        if self.is_closing():
            return
        self._layer.unsent += data
        with contextlib.suppress(ssl.SSLWantReadError):
            self._layer.send()

    def can_write_eof(self) -> bool:
        return False

    def is_reading(self) -> bool:
        return not self._layer.paused

    def pause_reading(self) -> None:
        self._layer.paused = True
        self._layer.outer.pause_reading()

    def resume_reading(self) -> None:
        """What was deciphered already comes first, but not within this call: the caller may not expect it yet."""
        self._layer.paused = False
        self._layer.outer.resume_reading()
        asyncio.get_running_loop().call_soon(self._layer.advance)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._layer.outer.set_write_buffer_limits(high, low)

    def get_write_buffer_size(self) -> int:
        return len(self._layer.unsent) + self._layer.outer.get_write_buffer_size()

    def is_closing(self) -> bool:
        return self._closing or self._layer.outer.is_closing()

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            self._layer.ended = True
            self._layer.unwrap()
            self._layer.outer.close()

    def abort(self) -> None:
        self._closing = self._layer.ended = True
        self._layer.outer.abort()
