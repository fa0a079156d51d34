"""Watches: the initial state if asked for, then every change, one JSON line each.

Called by app.py. Lines are encoded once for all watchers (`Event.line`) and written in one piece per wakeup. Invariant:
nothing between the initial state and the stream is lost or doubled, because both start at one version of the cache; a
bookmark never runs ahead of what was sent; a watcher that cannot follow is told 410 and ends.
Rules: https://kubernetes.io/docs/reference/using-api/api-concepts/ (efficient detection of changes), KEP-3157.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, nullcontext

import orjson
from aiohttp import web

from api import kinds
from api.errors import ApiError, Gone, InternalError, status_of
from api.turns import Turn
from controller.registry.views import stored_query
from controller.server import shapes
from controller.server.call import Call, Services, parse_version
from controller.server.negotiation import Shape
from controller.server.options import ListOptions, list_options
from controller.server.pod_address import address_lines
from controller.server.read import reach
from controller.server.reply import Answer, warning_headers
from controller.server.websocket import Lines, attended, is_websocket
from controller.store import Query, Watcher
from controller.store.types import Compacted, Event, EventType, Record

TIMEOUT_SECONDS = (1800, 3600)
"""A watch without timeoutSeconds ends after a random time between these."""
BOOKMARK_SECONDS = 60.0
INITIAL_AT_ONCE = 500
"""Objects of the initial state made events at once."""
STUCK_SECONDS = 60.0
"""So long a client may take to read one piece."""
PIECE_BYTES = 1 << 17
"""Written at once."""
_INITIAL_END = {"k8s.io/initial-events-end": "true"}


async def watch_objects(services: Services, call: Call) -> Answer:
    """GET ?watch=true. Errors before the first event are plain HTTP errors, later ones ERROR events."""
    options = list_options(call.params, call.kind, watch=True)
    since, initial = await _start(services, call, options)
    asked, rest = stored_query(call.kind, Query(call.namespace, options.labels, options.fields))
    stream = _Stream(services, call, options, rest)
    await stream.open()
    async with stream.attended():
        try:
            watcher = services.store.watch(call.kind.resource, since, asked)
        except Compacted:
            return await stream.fail(Gone(f"too old resource version: {since} ({services.store.version})"))
        try:
            if initial is not None:
                await stream.send_initial(initial, since)
            return await stream.follow(watcher)
        except Compacted:
            return await stream.fail(Gone("too old resource version: the watch could not keep up"))
        except ApiError as error:  # a conversion failed: the client lists again and is told what is wrong
            why = f"Internal error occurred: {error.message}"
            return await stream.fail(InternalError(why, {"causes": [{"message": error.message}]}))
        finally:
            watcher.close()
    return stream.answer


async def _start(services: Services, call: Call, options: ListOptions) -> tuple[int, list[Record] | None]:
    """(version to watch from, initial state or None)."""
    version = parse_version(options.resource_version, watch=True)
    wants_initial = options.initial_events if options.initial_events is not None else version == 0
    if version and not wants_initial:
        return version, None
    if not options.resource_version:
        await services.store.current()
    elif version:
        await reach(services.store, version)
    if not wants_initial:
        return services.store.version, None
    asked, _ = stored_query(call.kind, Query(call.namespace, options.labels, options.fields))
    page = services.store.list(call.kind.resource, asked)
    return page.version, page.records


class _Stream:
    """One watch's response: lines out, bookmarks, the end."""

    def __init__(self, services: Services, call: Call, options: ListOptions, rest: Query | None) -> None:
        self._registry = services.registry
        self._rest = rest
        self._derived = call.kind.is_view or call.kind.custom is not None
        self._call = call
        self._options = options
        self._loop = asyncio.get_running_loop()
        seconds = options.timeout_seconds or random.randint(*TIMEOUT_SECONDS)
        self._end = self._loop.time() + seconds
        self._bookmarked = 0
        self._due = False
        self._write_began = 0.0
        self._headings = True
        self._encode = self._encoder()
        headers = [
            ("Content-Type", "application/json"),
            ("Cache-Control", "no-cache, private"),
            *warning_headers(call.warnings),
        ]
        self._response = Lines(call.request) if is_websocket(call.request) else web.StreamResponse(headers=headers)

    def _encoder(self) -> Callable[[Iterable[Event]], Iterator[bytes]]:
        if self._call.form.shape is Shape.POD_ADDRESS:
            return address_lines
        return _lines if shapes.plain(self._call) else self._shaped_lines

    async def open(self) -> None:
        await self._response.prepare(self._call.request)

    def attended(self) -> AbstractAsyncContextManager[None]:
        """A block that ends when a client of a WebSocket leaves; others' end is a cancellation."""
        return attended(self._response.socket) if isinstance(self._response, Lines) else nullcontext()

    @property
    def answer(self) -> Answer:
        return self._response.socket if isinstance(self._response, Lines) else self._response

    async def send_initial(self, records: list[Record], version: int) -> None:
        """The state at `version` as ADDED events and, after a watch-list, the bookmark that ends it."""
        for start in range(0, len(records), INITIAL_AT_ONCE):
            batch = records[start : start + INITIAL_AT_ONCE]
            await self._write(await self._shown([Event(EventType.ADDED, record, None) for record in batch]))
        if self._options.initial_events and self._options.bookmarks:
            await self._bookmark(version, _INITIAL_END)

    async def follow(self, watcher: Watcher) -> Answer:
        """Writes batches as they come until the watch's time is over. The clock is looked at between batches only: what
        was taken from the watcher is written to its end, or the connection is lost."""
        self._set_timer(watcher)
        try:
            while (batch := watcher.take()) is not None:
                if batch:
                    await self._write(await self._shown(batch))
                if self._due:
                    self._due = False
                    if self._options.bookmarks and watcher.version > self._bookmarked:
                        await self._bookmark(watcher.version)
                if self._loop.time() >= self._end:
                    break
                if not batch:
                    await watcher.wait()
        except asyncio.CancelledError:
            self._end_at_once()
            raise
        finally:
            self._timer.cancel()
        await self._response.write_eof()
        return self.answer

    def _tick(self, watcher: Watcher) -> None:
        """Every minute, and at the end: the stream looks at the clock, and a client that does not read is given up."""
        if self._write_began and self._loop.time() - self._write_began > STUCK_SECONDS:
            self._abort()
        self._due = True
        watcher.nudge()
        self._set_timer(watcher)

    def _set_timer(self, watcher: Watcher) -> None:
        now = self._loop.time()
        at = self._end if now < self._end < now + BOOKMARK_SECONDS else now + BOOKMARK_SECONDS
        self._timer = self._loop.call_at(at, self._tick, watcher)

    async def _write(self, events: list[Event]) -> None:
        """In pieces: of a batch of 50,000 nobody else should hear for a second."""
        turn, lines, size = Turn(), [], 0
        for line in self._encode(events):
            lines.append(line)
            size += len(line)
            if size > PIECE_BYTES or turn.is_over:
                await self._send(b"".join(lines))
                await turn.breathe()
                lines, size = [], 0
        if lines:
            await self._send(b"".join(lines))

    async def _send(self, piece: bytes) -> None:
        self._write_began = self._loop.time()
        await self._response.write(piece)
        self._write_began = 0.0

    def _abort(self) -> None:
        transport = self._call.request.transport
        if transport is not None:
            transport.abort()

    async def _shown(self, events: list[Event]) -> list[Event]:
        """Events as the kind shows them now: its definition may have changed since the watch began. Raises ApiError."""
        if not self._derived:
            return events
        kind = self._call.kind
        kind = kinds.by_path(kind.group, kind.version, kind.plural) or kind
        return await self._registry.shown_events(kind, events, self._rest)

    def _end_at_once(self) -> None:
        """Shutdown: the last chunk, so that the client sees an end and no broken connection."""
        transport = self._call.request.transport
        if transport is not None and not transport.is_closing() and not isinstance(self._response, Lines):
            transport.write(b"0\r\n\r\n")

    async def fail(self, error: ApiError) -> Answer:
        """An ERROR event, and the end."""
        line = b'{"type":"ERROR","object":' + orjson.dumps(status_of(error)) + b"}\n"
        await self._response.write(line)
        await self._response.write_eof()
        return self.answer

    async def _bookmark(self, version: int, annotations: dict[str, str] | None = None) -> None:
        self._bookmarked = version
        meta = {"resourceVersion": str(version), "creationTimestamp": None}
        if annotations:
            meta["annotations"] = annotations  # type: ignore[assignment]
        kind, form = self._call.kind, self._call.form
        if form.shape is Shape.TABLE:
            obj = shapes.table(self._call, [], meta, headings=self._headings)
            self._headings = False
        elif form.shape is Shape.PARTIAL:
            obj = shapes.partial({"metadata": meta}, form.version)
        else:
            obj = {"kind": kind.kind, "apiVersion": kind.api_version, "metadata": meta}
        await self._response.write(b'{"type":"BOOKMARK","object":' + orjson.dumps(obj) + b"}\n")

    def _shaped_lines(self, events: Iterable[Event]) -> Iterator[bytes]:
        for event in events:
            body = shapes.event_object(self._call, event.record, headings=self._headings)
            self._headings = False
            yield b'{"type":"' + event.type.encode() + b'","object":' + body + b"}\n"


def _lines(events: Iterable[Event]) -> Iterator[bytes]:
    return (event.line for event in events)
