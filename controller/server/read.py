"""GET of one object and of lists: consistent by default, paged, in every shape.

Called by app.py. Reads the store's cache; bytes go out as they lie there. Invariant: without resourceVersion an answer
is at least as new as every write acknowledged before the request; all pages of a list show one version.
Rules: https://kubernetes.io/docs/reference/using-api/api-concepts/ (resource versions, chunking).
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import chain
from typing import NamedTuple

import orjson
from aiohttp import web

from api.errors import BadRequest, Gone, Timeout
from api.objects import Object
from controller.registry.views import selected, stored_query
from controller.server import shapes
from controller.server.call import Call, Services, parse_version
from controller.server.negotiation import Shape
from controller.server.options import ListOptions, list_options
from controller.server.reply import Answer, Gzip, Reply, accepts_gzip, warning_headers
from controller.store import Page, Query, Store
from controller.store.types import Compacted, Record, Unavailable

FRESH_WAIT_SECONDS = 3.0
"""How long a read waits for a version the cache has not seen (Kubernetes' blockTimeout)."""
PIECE_BYTES = 1 << 18
WHOLE_BYTES = 1 << 19
"""Lists up to this size go out in one write."""
_EXPIRED = (
    "The provided continue parameter is too old to display a consistent list result. You can start a new list without "
    "the continue parameter, or use the continue token in this response to retrieve the remainder of the results. "
    "Continuing with the provided token results in an inconsistent list - objects that were created, modified, or "
    "deleted between the time the first chunk was returned and now may show up in the list."
)


async def get_object(services: Services, call: Call) -> Answer:
    """GET of one object, also of its `status`."""
    record = await _fresh_record(services.store, call)
    if record is None:
        raise call.missing()
    form = call.form
    if form.shape is Shape.OBJECT and not form.yaml and not call.kind.is_view and not call.params:
        return Reply(200, record.raw)
    return await shapes.answer_record(call, await services.registry.shown(call.kind, record))


async def get_scale(services: Services, call: Call) -> Answer:
    record = await _fresh_record(services.store, call)
    if record is None:
        raise call.missing()
    return await shapes.answer_record(call, await services.registry.scale_of(call.kind, record), derived=True)


async def _fresh_record(store: Store, call: Call) -> Record | None:
    text = call.params.get("resourceVersion") if call.params else None
    if not text:
        return await store.read(call.key)
    version = parse_version(text)
    if version:
        await reach(store, version)
    return store.get(call.key)


async def list_objects(services: Services, call: Call) -> Answer:
    """GET of a collection."""
    options = list_options(call.params, call.kind)
    page = await shown_page(services, call, options)
    meta = list_metadata(page, options)
    form, records = call.form, page.records
    if form.shape is Shape.TABLE:
        return await shapes.reply_table(call, records, meta)
    if form.yaml or form.shape is not Shape.OBJECT or "pretty" in call.params:
        return await shapes.reply_list(call, records, meta)
    return await _reply_bytes(call, records, meta)


async def shown_page(services: Services, call: Call, options: ListOptions) -> Page:
    """The page a list asks for, as the kind shows it. What cannot be selected in the store is selected here, from as
    many pages of the store as it takes to fill one. Raises as `read_page`, and what conversion raises."""
    query = Query(labels=options.labels, fields=options.fields)
    asked, rest = stored_query(call.kind, query)
    page = await read_page(services.store, call, replace(options, labels=asked.labels, fields=asked.fields))
    found = selected(call.kind, await services.registry.shown_all(call.kind, page.records), rest)
    while rest is not None and page.remaining and page.last is not None and len(found) <= options.limit:
        token = Continue(page.version, page.last).text()
        further = replace(options, labels=None, fields=None, continue_token=token, resource_version="", match="")
        page = await read_page(services.store, call, further)
        found += selected(call.kind, await services.registry.shown_all(call.kind, page.records), rest)
    if rest is None or not options.limit:
        return replace(page, records=found)
    more = len(found) > options.limit
    return Page(found[: options.limit], page.version, int(more))


async def read_page(store: Store, call: Call, options: ListOptions) -> Page:
    """The records a list asks for, at the version it asks for. Raises BadRequest, Gone, Timeout."""
    resource = call.kind.resource
    query = Query(call.namespace, options.labels, options.fields, limit=options.limit)
    if options.continue_token:
        return await _continued(store, resource, query, options)
    version = parse_version(options.resource_version)
    if not options.resource_version:
        await store.current()
    elif version:
        await reach(store, version)
        if options.match == "Exact" or (not options.match and options.limit):
            return await _at(store, resource, version, query)
    return store.list(resource, query)


async def reach(store: Store, version: int) -> None:
    """Waits until the cache holds `version`. Raises Timeout as Kubernetes does for one too large."""
    if version <= store.version:
        return
    try:
        async with asyncio.timeout(FRESH_WAIT_SECONDS):
            await store.reached(version)
    except (TimeoutError, Unavailable) as error:
        cause = {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
        sentence = f"Timeout: Too large resource version: {version}, current: {store.version}"
        raise Timeout(sentence, {"causes": [cause], "retryAfterSeconds": 1}) from error


async def _at(store: Store, resource: tuple[str, str], version: int, query: Query) -> Page:
    try:
        return await store.list_at(resource, version, query)
    except Compacted as error:
        raise Gone(f"The resourceVersion for the provided list is too old: {version}.") from error


class Continue(NamedTuple):
    """What a continue token says: list on after `after`, at `version` (-1: whatever is current)."""

    version: int
    after: tuple[str, str]

    def text(self) -> str:
        start = f"{self.after[0]}/{self.after[1]}\0"
        body = orjson.dumps({"v": "meta.k8s.io/v1", "rv": self.version, "start": start})
        return base64.urlsafe_b64encode(body).rstrip(b"=").decode()


def parse_continue(text: str) -> Continue:
    """Raises BadRequest for what is not a token of ours."""
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadRequest("invalid continue token: continue key is not valid: illegal base64 data") from error
    try:
        body = orjson.loads(raw)
        version, start = body["rv"], body["start"]
        namespace, _, name = start.removesuffix("\0").partition("/")
        if not isinstance(version, int) or not name:
            raise ValueError("no position")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        shown = raw[:1].decode("latin-1")
        where = f"invalid character '{_escaped(shown)}' looking for beginning of value"
        raise BadRequest(f"invalid continue token: continue key is not valid: {where}") from error
    return Continue(version, (namespace, name))


def _escaped(character: str) -> str:
    return character if character.isprintable() else f"\\u{ord(character or ' '):04x}"


async def _continued(store: Store, resource: tuple[str, str], query: Query, options: ListOptions) -> Page:
    if options.resource_version not in ("", "0"):
        raise BadRequest("specifying resource version is not allowed when using continue")
    token = parse_continue(options.continue_token)
    query = replace(query, after=token.after)
    if token.version < 0:
        await store.current()
        return store.list(resource, query)
    if token.version > store.version:
        await reach(store, token.version)
    try:
        return await store.list_at(resource, token.version, query)
    except Compacted as error:
        raise _expired(Continue(-1, token.after)) from error


def _expired(token: Continue) -> Gone:
    error = Gone(_EXPIRED)
    error.metadata = {"continue": token.text()}
    return error


def list_metadata(page: Page, options: ListOptions) -> Object:
    meta: Object = {"resourceVersion": str(page.version)}
    if page.remaining and page.last is not None:
        meta["continue"] = Continue(page.version, page.last).text()
        if not options.selects:
            meta["remainingItemCount"] = page.remaining
    return meta


async def _reply_bytes(call: Call, records: list[Record], meta: Object) -> Answer:
    """A JSON list of stored bytes: one write when small, pieces when large."""
    kind = call.kind
    header = orjson.dumps({"kind": f"{kind.kind}List", "apiVersion": kind.api_version, "metadata": meta})
    head, tail = header[:-1] + b',"items":[', b"]}"
    size = len(head) + len(tail) + sum(len(record.raw) for record in records)
    items = shapes.items_of(kind, records)
    if size <= WHOLE_BYTES:
        return Reply(200, head + b",".join(items) + tail)
    gzip = Gzip() if accepts_gzip(call.request) else None
    headers = [("Content-Type", call.form.content_type), *warning_headers(call.warnings)]
    response = web.StreamResponse(headers=headers + list(gzip.headers if gzip else ()))
    await response.prepare(call.request)
    for piece in chain((head,), pieces_of(items), (tail,)):
        await response.write(await gzip.add(piece) if gzip else piece)
    await response.write_eof(gzip.end() if gzip else b"")
    return response


def pieces_of(items: Iterable[bytes]) -> Iterator[bytes]:
    """Items joined by commas, in pieces of about PIECE_BYTES."""
    pending: list[bytes] = []
    size = 0
    first = True
    for item in items:
        pending.append(item)
        size += len(item)
        if size >= PIECE_BYTES:
            yield (b"" if first else b",") + b",".join(pending)
            pending, size, first = [], 0, False
    if pending:
        yield (b"" if first else b",") + b",".join(pending)
