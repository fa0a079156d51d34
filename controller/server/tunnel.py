"""Exec, attach, port-forward and upgrading proxies: a client's connection is joined with one to an agent.

Called by connect.py; the joining itself is api.tunnel's. A refusal of the agent is relayed and ends the exchange.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from aiohttp import web

from api.errors import ServiceUnavailable
from api.tunnel import Unanswered, connect, read_head, read_refusal, status_of, takeover
from controller.server.agents import Backend
from controller.server.reply import Answer, Reply, switched


@dataclass(frozen=True)
class Upgrade:
    """What to ask the backend for."""

    method: str
    path: str
    headers: Iterable[tuple[str, str]]

    def head(self, backend: Backend) -> bytes:
        host = f"[{backend.host}]" if ":" in backend.host else backend.host
        lines = [f"{self.method} {self.path} HTTP/1.1", f"Host: {host}:{backend.port}"]
        lines += [f"{name}: {value}" for name, value in self.headers]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("utf-8", "surrogateescape")


async def tunnel(request: web.BaseRequest, backend: Backend, upgrade: Upgrade) -> Answer:
    """Upgrades at the backend and joins both connections until one ends. Raises ServiceUnavailable."""
    try:
        far = await connect(backend.host, backend.port, backend.tls, backend.server_name)
        assert far.transport is not None
        try:
            far.transport.write(upgrade.head(backend))
            head = await read_head(far)
            if status_of(head) != 101:
                reply = Reply(*await read_refusal(far, head))
                reply.keep_alive = False
                return reply
            await takeover(request, head, far)
            return switched()
        finally:
            far.transport.close()
    except Unanswered as error:
        raise ServiceUnavailable(f"error dialing backend: {error}", {}) from error
