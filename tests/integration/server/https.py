"""HTTPS servers of a test's own, such as webhooks, with a certificate of the cluster's CA."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web

from controller.pki.authority import Subject
from controller.pki.files import Pki

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def https_context(pki: Pki, directory: Path, *hosts: str) -> ssl.SSLContext:
    """A server's TLS for these names and addresses; the pair is written to the directory."""
    pair = pki.authority.issue(Subject("hook", hosts=hosts))
    certificate, key = directory / "hook.crt", directory / "hook.key"
    certificate.write_bytes(pair.certificate)
    key.write_bytes(pair.key)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    return context


@asynccontextmanager
async def served(
    handlers: Mapping[str, Handler], context: ssl.SSLContext, address: str = "127.0.0.1"
) -> AsyncIterator[int]:
    """The port at which POSTs to these paths are handled, inside the block."""
    app = web.Application()
    for path, handler in handlers.items():
        app.router.add_post(path, handler)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, address, 0, ssl_context=context).start()
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()
