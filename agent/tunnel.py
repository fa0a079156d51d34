"""Exec, attach and port-forward: the API server's connection is joined with containerd's streaming server.

Called by the agent's server; the joining itself is api.tunnel's.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from aiohttp import web

from api.tunnel import connect, read_head, read_refusal, status_of, takeover

_END_TO_END = ("upgrade", "connection", "x-stream-protocol-version")


async def tunnel(request: web.BaseRequest, url: str) -> web.StreamResponse:
    """Joins the client of an upgrade request with the streaming URL; returns when either has ended.

    Raises api.tunnel.Unanswered before anything was sent to the client.
    """
    parts = urlsplit(url)
    far = await connect(parts.hostname or "127.0.0.1", parts.port or 80)
    assert far.transport is not None
    try:
        far.transport.write(_head(request, url))
        head = await read_head(far)
        if status_of(head) != 101:
            status, body, _content_type = await read_refusal(far, head)
            return web.Response(status=status, body=body, content_type="text/plain")
        await takeover(request, head, far)
        return web.Response()
    finally:
        far.transport.close()


def _head(request: web.BaseRequest, url: str) -> bytes:
    parts = urlsplit(url)
    path = parts.path + (f"?{parts.query}" if parts.query else "")
    lines = [f"{request.method} {path} HTTP/1.1", f"Host: {parts.netloc}", "Content-Length: 0"]
    for name, value in request.headers.items():
        if name.lower() in _END_TO_END or name.lower().startswith("sec-websocket-"):
            lines.append(f"{name}: {value}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("utf-8", "surrogateescape")
