"""The DNS process's side of its unix socket: who connects is told what runs here, gets the open sockets, and feeds it.

Called by `main`. Lines of JSON: `{"begin": 1}`, then `{"put": ...}` in pieces, then `{"end": 1}` replace the cluster's
whole state at once; a `put` alone changes it; `{"drain": 1}` ends the process when it has nothing under way. It
answers queries from the first `end` on, or from `{"listen": 1}`: names of the outside only, so far. It says
`{"synced": 1}` after an `end`, and its figures every few seconds. It needs nobody connected: without an agent it
answers with what it knows.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from agent.network.dns.records import service_of, slice_of
from agent.network.dns.responder import Responder
from agent.network.dns.zone import Zone

LINE_BYTES = 8 << 20
FIGURES_SECONDS = 5.0


class Control:
    """`greeting` is what an agent compares; `sockets` are handed to it; `figures` are what it shows."""

    def __init__(self, responder: Responder, new_zone: Callable[[], Zone], sockets: list[socket.socket]) -> None:
        self.listening, self.draining = asyncio.Event(), asyncio.Event()
        self._responder = responder
        self._new_zone = new_zone
        self._sockets = sockets

    def drain(self) -> None:
        """End, once nothing is under way."""
        self.draining.set()
        self.listening.set()

    async def serve(
        self, path: Path, greeting: Mapping[str, Any], figures: Callable[[], Any], tasks: asyncio.TaskGroup
    ) -> None:
        """Listen until cancelled. An earlier process's socket in the same place is replaced, not disturbed."""
        fresh = path.with_suffix(f".{os.getpid()}")
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(fresh))
            os.chmod(fresh, 0o600)
            listening.listen()
            fresh.rename(path)
            listening.setblocking(False)
            hello = json.dumps(greeting).encode() + b"\n"
            while True:
                connection, _ = await asyncio.get_running_loop().sock_accept(listening)
                with contextlib.suppress(OSError):
                    socket.send_fds(connection, [hello], [each.fileno() for each in self._sockets])
                    tasks.create_task(self._converse(connection, figures))

    async def _converse(self, connection: socket.socket, figures: Callable[[], Any]) -> None:
        reader, writer = await asyncio.open_unix_connection(sock=connection, limit=LINE_BYTES)
        telling = asyncio.ensure_future(self._tell(writer, figures))
        try:
            fresh: Zone | None = None
            while line := await reader.readline():
                fresh = self._obey(json.loads(line), fresh, writer)
        except (OSError, ValueError) as error:
            print(f"control connection: {error}", flush=True)
        finally:
            telling.cancel()
            writer.close()

    async def _tell(self, writer: asyncio.StreamWriter, figures: Callable[[], Any]) -> None:
        with contextlib.suppress(OSError):
            while True:
                writer.write(json.dumps({"figures": figures()}).encode() + b"\n")
                await writer.drain()
                await asyncio.sleep(FIGURES_SECONDS)

    def _obey(self, message: Mapping[str, Any], fresh: Zone | None, writer: asyncio.StreamWriter) -> Zone | None:
        """Do what one line says; returns the zone that is being built, if one is."""
        if "begin" in message:
            return self._new_zone()
        if "listen" in message or "end" in message:
            self.listening.set()
        if "drain" in message:
            self.drain()
        if "put" in message:
            zone = fresh if fresh is not None else self._responder.zone
            apply(zone, message["put"])
            if fresh is None:
                self._responder.changed()
        if "end" in message and fresh is not None:
            fresh.known = True
            self._responder.zone = fresh
            self._responder.changed()
            writer.write(b'{"synced": 1}\n')
            fresh = None
        return fresh


def apply(zone: Zone, change: Mapping[str, Any]) -> None:
    """Bring a change into a zone: lists of [namespace, name, value], value null for what has gone."""
    for name, exists in change.get("namespaces", ()):
        zone.put_namespace(name, exists=exists)
    for namespace, name, value in change.get("services", ()):
        zone.put_service((namespace, name), None if value is None else service_of(value))
    for namespace, name, value in change.get("slices", ()):
        zone.put_slice((namespace, name), None if value is None else slice_of(value))
