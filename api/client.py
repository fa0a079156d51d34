"""The one HTTP client of the Kubernetes API: typed verbs, list+watch, raw streams. Used by agent and CLI.

Every reply that is not a success becomes an `api.errors.ApiError`. Trouble below HTTP has two members of that family:

    ServiceUnavailable ── Unreachable   no connection, or it broke; nothing is known about a write in flight
    Timeout                             no answer within the named time

A client belongs to one event loop; `async with Client(...)` or `close()` ends it. Imports api only.
"""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import urlsplit

import aiohttp
import orjson

from api import errors
from api.kinds import Kind
from api.objects import Object, name_of, namespace_of
from api.streams import Tunnel, keepalive_socket, open_tunnel, patient_socket
from api.tls import Credentials

MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"
JSON_PATCH = "application/json-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"

REQUEST_TIMEOUT_SECONDS = 30.0
CONNECT_TIMEOUT_SECONDS = 10.0
WATCH_SECONDS = 300
WATCH_SILENCE_SECONDS = WATCH_SECONDS + 30.0
LIST_PAGE = 500
REQUEST_CONNECTIONS = 8
"""Plain requests share so many connections: each costs a TLS handshake and 128 KiB. Streams have one each."""
UPLOADS = -1
RETRY_FIRST_SECONDS = 0.05
RETRY_LAST_SECONDS = 5.0

Params = Mapping[str, str]


class Unreachable(errors.ServiceUnavailable):
    """The server cannot be reached, or the connection broke; a write may or may not have taken effect."""


@dataclass(frozen=True)
class WatchEvent:
    """ADDED, MODIFIED or DELETED with its object; SYNCED (no object) once a list was handed over whole."""

    type: str
    object: Object = field(default_factory=dict)


@dataclass(frozen=True)
class Reply:
    """A successful reply: 2xx, its headers and whole body."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return orjson.loads(self.body)


@dataclass(frozen=True)
class Selection:
    """What a list or watch covers: a namespace ("" is all) and selectors in their text form.

    `accept` asks for the objects in another shape than their own (PartialObjectMetadata, PodAddress).
    """

    namespace: str = ""
    labels: str = ""
    fields: str = ""
    accept: str = ""

    def params(self) -> dict[str, str]:
        chosen = {"labelSelector": self.labels, "fieldSelector": self.fields}
        return {name: text for name, text in chosen.items() if text}

    def headers(self) -> dict[str, str]:
        return {"Accept": self.accept} if self.accept else {}


EVERYTHING = Selection()


def path_of(kind: Kind, namespace: str = "", name: str = "", subresource: str = "") -> str:
    """`/api/v1/namespaces/NS/pods/NAME/SUB`: the URL path of a collection, an object or a part of one."""
    parts = ["/apis", kind.group, kind.version] if kind.group else ["/api", kind.version]
    if kind.namespaced and namespace:
        parts += ["namespaces", namespace]
    parts += [kind.plural, name, subresource]
    return "/".join(part for part in parts if part)


class Client:
    """Talks to one API server. `timeout` is the total time of one plain request, in seconds."""

    def __init__(self, server: str, credentials: Credentials, timeout: float = REQUEST_TIMEOUT_SECONDS) -> None:
        self.server = server.rstrip("/")
        self.credentials = credentials
        self.on_warning: Callable[[str], None] | None = None
        """Hears what the server warns of in its answers to plain requests."""
        self._timeout = timeout
        self._tls: ssl.SSLContext | None = None
        self._sessions: dict[int, aiohttp.ClientSession] = {}
        self._being_read: set[aiohttp.ClientResponse] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes every connection; the next request would open new ones."""
        sessions, self._sessions = self._sessions, {}
        for response in self._being_read:  # aiohttp would leave their readers waiting for ever
            response.content.set_exception(aiohttp.ClientConnectionError("the client closed its connections"))
        for session in sessions.values():
            await session.close()

    async def renew(self, credentials: Credentials) -> None:
        """Goes on with other credentials (a rotated certificate); open connections end and watches resume."""
        self.credentials = credentials
        self._tls = None
        await self.close()

    async def get(self, kind: Kind, namespace: str, name: str, subresource: str = "") -> Object:
        return await self._object("GET", path_of(kind, namespace, name, subresource))

    async def list(self, kind: Kind, selection: Selection = EVERYTHING, params: Params | None = None) -> Object:
        """The whole list (all pages joined) as its `List` object."""
        path = path_of(kind, selection.namespace)
        query = {"limit": str(LIST_PAGE), **selection.params(), **(params or {})}
        headers = selection.headers()
        whole = await self._object("GET", path, query, headers=headers)
        items = whole.get("items") or []
        page = whole
        while token := (page.get("metadata") or {}).get("continue"):
            page = await self._object("GET", path, {**query, "continue": token}, headers=headers)
            items += page.get("items") or []
        whole["items"] = items
        whole["metadata"] = page.get("metadata") or {}
        return whole

    async def create(self, kind: Kind, obj: Object, subresource: str = "", params: Params | None = None) -> Object:
        """POSTs `obj` into its namespace; with a subresource, POSTs it to that part of the object it names."""
        name = name_of(obj) if subresource else ""
        path = path_of(kind, namespace_of(obj), name, subresource)
        return await self._object("POST", path, params, orjson.dumps(obj))

    async def update(self, kind: Kind, obj: Object, subresource: str = "", params: Params | None = None) -> Object:
        path = path_of(kind, namespace_of(obj), name_of(obj), subresource)
        return await self._object("PUT", path, params, orjson.dumps(obj))

    async def patch(
        self, kind: Kind, target: tuple[str, str, str], body: Any, content_type: str, params: Params | None = None
    ) -> Object:
        """Patches (namespace, name, subresource). `body` is a JSON value, or bytes sent as they are."""
        payload = body if isinstance(body, bytes) else orjson.dumps(body)
        return await self._object("PATCH", path_of(kind, *target), params, payload, {"Content-Type": content_type})

    async def delete(
        self, kind: Kind, namespace: str, name: str, options: Object | None = None, params: Params | None = None
    ) -> Object:
        """Deletes one object; `options` is a DeleteOptions body. Returns the object or the `Status` the server sent."""
        body = orjson.dumps(options) if options is not None else None
        return await self._object("DELETE", path_of(kind, namespace, name), params, body)

    async def _object(
        self, method: str, path: str, params: Params | None = None, body: bytes | None = None,
        headers: Params | None = None,
    ) -> Object:  # fmt: skip
        reply = await self.request(method, path, params, body, headers)
        parsed: Object = reply.json()
        return parsed

    async def request(
        self, method: str, path: str, params: Params | None = None, body: bytes | None = None,
        headers: Params | None = None,
    ) -> Reply:  # fmt: skip
        """One request, read whole. JSON unless `headers` say otherwise. Raises ApiError for every non-2xx reply."""
        sent = {"Accept": "application/json", **({"Content-Type": "application/json"} if body is not None else {})}
        options: dict[str, Any] = {"params": params, "data": body, "headers": {**sent, **(headers or {})}}
        with _mapped(self.server):
            session = self._connected(REQUEST_CONNECTIONS)
            async with session.request(method, self.server + path, **options) as response, self._reading(response):
                content = await response.read()
                if self.on_warning is not None:
                    for text in warnings_of(response.headers.getall("Warning", [])):
                        self.on_warning(text)
                if response.status >= 300:
                    raise _refusal(response.status, content)
                return Reply(response.status, response.headers, content)

    async def upload(
        self, path: str, body: AsyncIterable[bytes], headers: Params, silence_seconds: float | None = None
    ) -> Reply:
        """A POST whose body is sent while it is made, however long that takes; the reply is read whole.

        `silence_seconds`: how long the server may take to answer once it has all. Raises ApiError as `request` does.
        """
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_SECONDS, sock_read=silence_seconds)
        with _mapped(self.server):
            session = self._connected(UPLOADS)
            async with session.post(self.server + path, data=body, headers=headers, timeout=timeout) as response:
                content = await response.read()
                if response.status >= 300:
                    raise _refusal(response.status, content)
                return Reply(response.status, response.headers, content)

    @asynccontextmanager
    async def stream(
        self, method: str, path: str, params: Params | None = None, headers: Params | None = None,
        silence_seconds: float | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:  # fmt: skip
        """A reply whose body is read while it comes (logs, watches): iterate `response.content`.

        `silence_seconds` ends it (Timeout) when that long nothing came; None waits for ever.
        """
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_SECONDS, sock_read=silence_seconds)
        options: dict[str, Any] = {"params": params, "headers": headers, "timeout": timeout}
        with _mapped(self.server):
            session = self._connected(0)
            async with session.request(method, self.server + path, **options) as response, self._reading(response):
                if response.status >= 300:
                    raise _refusal(response.status, await response.read())
                yield response

    async def upgrade(self, method: str, path: str, headers: Params, params: Params | None = None) -> Tunnel:
        """A raw two-way connection after `101 Switching Protocols`. The caller closes it.

        Raises ApiError when the server answers anything else, Unreachable or Timeout as `request` does.
        """
        given = dict(headers)
        if self.credentials.token:
            given["Authorization"] = f"Bearer {self.credentials.token}"
        with _mapped(self.server):
            tls = self._context() if urlsplit(self.server).scheme == "https" else None
            async with asyncio.timeout(CONNECT_TIMEOUT_SECONDS):
                tunnel = await open_tunnel(method, self.server + path, given, params or {}, tls)
            if tunnel.status == 101:
                return tunnel
            async with asyncio.timeout(CONNECT_TIMEOUT_SECONDS):
                content = await tunnel.read_body()
            await tunnel.close()
            raise _refusal(tunnel.status, content)

    async def watch(
        self,
        kind: Kind,
        selection: Selection = EVERYTHING,
        since: str | None = None,
        *,
        remember_objects: bool = True,
    ) -> AsyncIterator[WatchEvent]:
        """List, then watch, for ever: every change of the selected objects, each exactly once and in order.

        With `since` (a resourceVersion) nothing is listed first. Broken connections resume where they stopped; when
        the server no longer has that version it lists again and yields the difference. Raises ApiError only for what
        waiting does not heal (403, 404 ...). What a relist finds missing is yielded as it was last seen, or, without
        `remember_objects` (which saves their memory), as its metadata's namespace, name and uid only.
        """
        follower = _Follower(self, kind, selection, since, _whole if remember_objects else _stub)
        async for event in follower.run():
            yield event

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = self.credentials.client_context()
        return self._tls

    @asynccontextmanager
    async def _reading(self, response: aiohttp.ClientResponse) -> AsyncIterator[None]:
        self._being_read.add(response)
        try:
            yield
        finally:
            self._being_read.discard(response)

    def _connected(self, limit: int) -> aiohttp.ClientSession:
        """The session with at most `limit` connections (0: as many as are asked for; UPLOADS: so, and patient ones)."""
        if limit not in self._sessions:
            tls = self._context() if self.server.startswith("https") else True
            opener = patient_socket if limit == UPLOADS else keepalive_socket
            connector = aiohttp.TCPConnector(ssl=tls, limit=max(limit, 0), keepalive_timeout=60, socket_factory=opener)
            headers = {"Accept-Encoding": "identity"}  # a thousand agents would keep the server compressing
            if self.credentials.token:
                headers["Authorization"] = f"Bearer {self.credentials.token}"
            self._sessions[limit] = aiohttp.ClientSession(
                connector=connector,
                headers=headers,
                timeout=aiohttp.ClientTimeout(total=self._timeout, sock_connect=CONNECT_TIMEOUT_SECONDS),
                read_bufsize=2**18,
            )
        return self._sessions[limit]


class _mapped:
    """Turns trouble below HTTP into the error family; one place for the whole client."""

    def __init__(self, server: str) -> None:
        self._server = server

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        task = asyncio.current_task()
        if isinstance(error, asyncio.CancelledError) and task is not None and not task.cancelling():
            raise Unreachable(f"cannot reach {self._server}: the client closed its connections") from error
        if isinstance(error, TimeoutError):
            raise errors.Timeout(f"{self._server} did not answer in time") from error
        if isinstance(error, aiohttp.ClientError | OSError | asyncio.IncompleteReadError):
            raise Unreachable(f"cannot reach {self._server}: {error or type(error).__name__}") from error


def warnings_of(headers: Iterable[str]) -> Iterator[str]:
    """The texts of `Warning: 299 - "text"` headers (RFC 7234, 5.5)."""
    for header in headers:
        code, _, rest = header.partition(" ")
        _, quote, text = rest.partition('"')
        if code == "299" and quote:
            yield text.removesuffix('"').replace('\\"', '"').replace("\\\\", "\\")


def _refusal(code: int, content: bytes) -> errors.ApiError:
    try:
        status = orjson.loads(content)
    except orjson.JSONDecodeError:
        status = None
    if not isinstance(status, dict) or status.get("kind") != "Status":
        text = content.decode("utf-8", "replace").strip()[:1000]
        status = {"message": text or f"the server answered {code}"}
    return errors.error_from_status({**status, "code": status.get("code") or code})


class _Follower:
    """The state of one `watch`: the version reached, and what was handed out, to tell the difference after a relist."""

    def __init__(
        self, client: Client, kind: Kind, selection: Selection, since: str | None, kept: Callable[[Object], Object]
    ) -> None:
        self._client = client
        self._kept = kept
        self._kind = kind
        self._selection = selection
        self._version = since
        self._known: dict[tuple[str, str], Object] = {}
        self._retry_seconds = RETRY_FIRST_SECONDS

    async def run(self) -> AsyncIterator[WatchEvent]:
        while True:
            try:
                if self._version is None:
                    for event in await self._relist():
                        yield event
                async for event in self._resume():
                    yield event
                await self._pause()
            except errors.Gone:
                self._version = None
            except errors.ApiError as error:
                if not error.retryable and not isinstance(error, errors.InternalError):
                    raise
                await self._pause()

    async def _pause(self) -> None:
        await asyncio.sleep(self._retry_seconds * random.uniform(0.5, 1.0))
        self._retry_seconds = min(self._retry_seconds * 2, RETRY_LAST_SECONDS)

    async def _relist(self) -> list[WatchEvent]:
        listed = await self._client.list(self._kind, self._selection)
        identity = {"kind": self._kind.kind, "apiVersion": self._kind.api_version}
        fresh = {_key(item): {**identity, **item} for item in listed["items"]}
        happened = []
        for key, old in self._known.items():
            if key not in fresh or _uid(fresh[key]) != _uid(old):
                happened.append(WatchEvent("DELETED", old))
        for key, item in fresh.items():
            before = self._known.get(key)
            if before is None or _uid(before) != _uid(item):
                happened.append(WatchEvent("ADDED", item))
            elif before["metadata"].get("resourceVersion") != item["metadata"].get("resourceVersion"):
                happened.append(WatchEvent("MODIFIED", item))
        self._known = {key: self._kept(item) for key, item in fresh.items()}
        self._version = str(listed["metadata"].get("resourceVersion") or "0")
        return [*happened, WatchEvent("SYNCED")]

    async def _resume(self) -> AsyncIterator[WatchEvent]:
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": self._version or "0",
            "timeoutSeconds": str(WATCH_SECONDS),
            **self._selection.params(),
        }
        path = path_of(self._kind, self._selection.namespace)
        async with self._client.stream(
            "GET", path, query, self._selection.headers(), WATCH_SILENCE_SECONDS
        ) as response:
            async for line in _lines(response.content):
                event = self._read(line)
                if event is not None:
                    yield event

    def _read(self, line: bytes) -> WatchEvent | None:
        frame = orjson.loads(line)
        change, obj = frame["type"], frame["object"]
        if change == "ERROR":
            raise errors.error_from_status(obj)
        self._retry_seconds = RETRY_FIRST_SECONDS
        self._version = obj["metadata"].get("resourceVersion") or self._version
        if change == "BOOKMARK":
            return None
        if change == "DELETED":
            self._known.pop(_key(obj), None)
        else:
            self._known[_key(obj)] = self._kept(obj)
        return WatchEvent(change, obj)


async def _lines(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Whole lines of any length (`StreamReader.readline` stops at its buffer's limit)."""
    pending: list[bytes] = []
    async for chunk in content.iter_any():
        head, newline, tail = chunk.partition(b"\n")
        pending.append(head)
        while newline:
            yield b"".join(pending)
            head, newline, tail = tail.partition(b"\n")
            pending = [head]


def _key(obj: Object) -> tuple[str, str]:
    return namespace_of(obj), name_of(obj)


def _whole(obj: Object) -> Object:
    return obj


def _stub(obj: Object) -> Object:
    """As much of an object as telling its change or end takes."""
    kept = {name: obj["metadata"].get(name) for name in ("namespace", "name", "uid", "resourceVersion")}
    return {"metadata": kept}


def _uid(obj: Object) -> str:
    return (obj.get("metadata") or {}).get("uid") or ""
