"""The HTTPS listener: TLS, aiohttp's low-level server, graceful end.

Called by main.py. Invariant: TLS 1.2 or newer only; a client certificate is asked for, never demanded, and must be of
our CA; on shutdown new requests are refused, short ones finish, watches end cleanly.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from dataclasses import dataclass

from controller.pki.files import Pki
from controller.server.app import ApiServer
from controller.server.doorkeeper import Doorkeeper
from controller.server.handshake import accepting

BACKLOG = 1024
KEEPALIVE_SECONDS = 90.0
"""As Kubernetes: whoever connects and asks once does not hold a descriptor for ever."""
MAX_HEADER_BYTES = 64 * 1024
"""Bound service-account tokens and long selectors fit."""

_protocol_log = logging.getLogger("controller.server.protocol")
"""aiohttp's own: what is no HTTP is answered with 400 and is no event for our log."""
_protocol_log.addHandler(logging.NullHandler())
_protocol_log.propagate = False


def server_context(pki: Pki) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(pki.path("apiserver.crt"), pki.path("apiserver.key"))
    context.load_verify_locations(pki.ca_path)
    context.verify_mode = ssl.CERT_OPTIONAL
    context.set_alpn_protocols(["http/1.1"])
    return context


@dataclass(frozen=True)
class Address:
    host: str
    port: int


class Listener:
    """`async with Listener(...)`: accepts from entering on; leaving waits for what is being worked on."""

    def __init__(self, app: ApiServer, context: ssl.SSLContext, address: Address, grace_seconds: float) -> None:
        self._app = app
        self._context = context
        self._address = address
        self._grace_seconds = grace_seconds
        self._server: asyncio.Server | None = None
        self._http: Doorkeeper | None = None

    def use(self, context: ssl.SSLContext) -> None:
        """For connections made from now on. A fresh context: nothing can be taken out of one that believed a CA."""
        self._context = context

    @property
    def port(self) -> int:
        """The port listened on, also when 0 was asked for."""
        assert self._server is not None, "not listening"
        return int(self._server.sockets[0].getsockname()[1])

    async def __aenter__(self) -> Listener:
        self._http = Doorkeeper(
            self._app.handle,
            access_log=None,
            logger=_protocol_log,
            keepalive_timeout=KEEPALIVE_SECONDS,
            handler_cancellation=True,
            auto_decompress=False,
            max_line_size=MAX_HEADER_BYTES,
            max_field_size=MAX_HEADER_BYTES,
        )
        self._server = await asyncio.get_running_loop().create_server(
            accepting(lambda: self._context, self._http),
            self._address.host or None,
            self._address.port,
            backlog=BACKLOG,
            reuse_address=True,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Refuses new connections, ends streams, waits for the rest; safe to call twice."""
        if self._server is None or self._http is None:
            return
        server, http = self._server, self._http
        self._server = self._http = None
        server.close()
        self._app.end_streams()
        http.pre_shutdown()
        await http.shutdown(self._grace_seconds)
        self._app.metrics.close()
