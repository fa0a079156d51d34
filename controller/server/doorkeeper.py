"""aiohttp's low-level server, that shows the door to who opens a connection and never finishes asking.

Used by listener.py. aiohttp itself has a limit for idle connections, none for the first request or for one whose lines
drip in. Kubernetes has 32 s for that (net/http's ReadHeaderTimeout). Invariant: a connection that has asked is ended by
its handler or by aiohttp only.
"""

from __future__ import annotations

from typing import Any

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

ASKING_SECONDS = 32.0
LOOKS = 8
"""How often it looks in that time."""


class _Handler(RequestHandler):
    __slots__ = ("asking_since",)

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.asking_since = self._loop.time()
        """When the request began that has not arrived yet; 0.0 while none is on its way."""

    def data_received(self, data: bytes) -> None:
        count = self._request_count
        super().data_received(data)
        if self._request_count != count:
            self.asking_since = 0.0
        elif not self.asking_since and self._current_request is None and not self._messages:
            self.asking_since = self._loop.time()


class Doorkeeper(web.Server):
    """`web.Server`; `asking_seconds` from its first byte a request has to be there, headers and all."""

    def __init__(self, handle: Any, *, asking_seconds: float = ASKING_SECONDS, **settings: Any) -> None:
        super().__init__(handle, **settings)
        self._asking_seconds = asking_seconds
        self._timer = self._loop.call_later(asking_seconds / LOOKS, self._look)

    def __call__(self) -> RequestHandler:
        return _Handler(self, loop=self._loop, **self._kwargs)

    def pre_shutdown(self) -> None:
        self._timer.cancel()
        super().pre_shutdown()

    def _look(self) -> None:
        too_long_ago = self._loop.time() - self._asking_seconds
        for handler in self.connections:
            if not isinstance(handler, _Handler):
                continue
            if handler._current_request is not None:
                handler.asking_since = 0.0  # it has asked: what came before its handler began was its body
            elif 0.0 < handler.asking_since < too_long_ago:
                handler.force_close()
        self._timer = self._loop.call_later(self._asking_seconds / LOOKS, self._look)
