"""What a handler gets: the services of the server and one request, already understood.

Built by app.py; every handler is `async def verb(services, call) -> Answer`. Invariant: when a handler runs, the user
is known, the request is authorized and the resource is served.
"""

from __future__ import annotations

import asyncio
import zlib
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol

from aiohttp import StreamReader, web

from api.errors import BadRequest, TooLarge, Unexplained, UnsupportedMediaType, not_found
from api.kinds import Kind
from controller.admission.types import User
from controller.pki.files import Pki
from controller.pki.tokens import TokenSigner
from controller.registry import Registry
from controller.server.agents import Agents
from controller.server.authentication import Authenticator
from controller.server.authorization import Chain
from controller.server.negotiation import Form
from controller.server.options import Params
from controller.server.rbac import Rbac
from controller.server.target import Target
from controller.store import Store
from controller.store.types import Key, Record

_ENCODINGS = ("identity", "gzip", "deflate")


class Asker(NamedTuple):
    """Who a request comes from, and as whom he acts (None: as himself)."""

    user: User
    acting_as: User | None = None


ASKER = web.RequestKey("asker", Asker)
BODY = web.RequestKey("body", bytes)
NAMED = web.RequestKey("named", dict[str, Any])
NAMES = ("namespace", "name", "uid", "resourceVersion")
"""What the audit log wants to know of a request, kept with it."""
_LONGEST_WHOLE = 1000
"""Digits, leading zeros included; Python refuses to read 4300."""
BODY_LIMIT_BYTES = 3 * 1024 * 1024


class Heartbeats(Protocol):
    """Where agents' heartbeats go (controller.reconcilers.liveness.Liveness)."""

    def beat(self, node: str) -> bool | None:
        """A heartbeat of `node` arrived; the answer says whether a grant may be given."""
        ...


class Closing(Protocol):
    """What holds connections."""

    async def close(self) -> None: ...


@dataclass
class Services:
    store: Store
    registry: Registry
    pki: Pki
    signer: TokenSigner
    authenticator: Authenticator
    authorizer: Chain
    rbac: Rbac
    heartbeats: Heartbeats
    agents: Agents
    webhooks: Closing
    shown_address: str
    """HOST:PORT for discovery documents."""
    trust_changed: asyncio.Event = field(default_factory=asyncio.Event)
    """Another CA signs, or others are believed: who publishes or signs has to begin anew."""

    def use_pki(self, pki: Pki) -> None:
        """Takes into use what changed on disk (see controller.renewal, which looks)."""
        before, self.pki = self.pki, pki
        self.agents.reload()
        self.authenticator.use_admin_token(pki.admin_token)
        self.signer.use(pki.service_account_key, pki.older_tokens)
        if pki.bundle != before.bundle:
            self.authenticator.believe(pki.ca_names)
            self.trust_changed.set()

    async def close(self) -> None:
        await self.agents.close()
        await self.webhooks.close()
        self.rbac.close()


@dataclass(slots=True)
class Call:
    request: web.BaseRequest
    user: User
    target: Target
    kind: Kind
    verb: str
    params: Params
    form: Form
    warnings: list[str] = field(default_factory=list)
    """Texts for the client, told with the answer whatever it is."""

    @property
    def key(self) -> Key:
        """Where the object of the path lies in the store."""
        group, plural = self.kind.resource
        return Key(group, plural, self.namespace, self.target.name)

    @property
    def namespace(self) -> str:
        """The namespace of the path; "" for cluster-scoped kinds (a Namespace is not in itself)."""
        return self.target.namespace if self.kind.namespaced else ""

    def named(self, name: str) -> Call:
        """The same request for an object of another name (`pods/NAME:PORT/proxy`)."""
        return replace(self, target=self.target._replace(name=name))

    def missing(self) -> Exception:
        return not_found(self.kind.group, self.kind.plural, self.target.name)


async def read_body(request: web.BaseRequest) -> bytes:
    """The whole body, unpacked. Raises TooLarge beyond 3 MiB, packed or not, as soon as it is known to be."""
    encoding = request.headers.get("Content-Encoding", "identity").lower()
    if encoding not in _ENCODINGS:
        raise UnsupportedMediaType(f"415: Content-Encoding must be one of {', '.join(_ENCODINGS)}", {})
    body = await read_as_sent(request)
    if body and encoding != "identity":
        body = _unpacked(body, encoding)
    request[BODY] = body
    return body


async def read_as_sent(request: web.BaseRequest) -> bytes:
    """The whole body as it came. Raises TooLarge, BadRequest."""
    declared = request.content_length
    if declared is not None and declared > BODY_LIMIT_BYTES:
        raise body_too_large()
    try:
        return await _read(request.content)
    except web.RequestPayloadError as error:
        raise BadRequest(f"the request body cannot be read: {error}") from error


def _unpacked(body: bytes, encoding: str) -> bytes:
    """Not aiohttp's work, which would unpack a gigabyte for who may not even send it."""
    # Some send `deflate` without zlib's header, whose first byte ends in 8.
    window = 31 if encoding == "gzip" else zlib.MAX_WBITS if body[0] & 15 == 8 else -zlib.MAX_WBITS
    unpacking = zlib.decompressobj(window)
    try:
        text = unpacking.decompress(body, BODY_LIMIT_BYTES + 1)
    except zlib.error as error:
        raise BadRequest(f"the request body cannot be read: it is no {encoding}: {error}") from error
    if len(text) > BODY_LIMIT_BYTES:
        raise body_too_large()
    if not unpacking.eof or unpacking.unused_data:
        raise BadRequest(f"the request body cannot be read: its {encoding} ends too early or too late")
    return text


async def _read(content: StreamReader) -> bytes:
    if content.is_eof():
        return content.read_nowait()
    pieces: list[bytes] = []
    size = 0
    while True:
        piece = await content.readany()
        if not piece:
            return b"".join(pieces)
        pieces.append(piece)
        size += len(piece)
        if size > BODY_LIMIT_BYTES:
            raise body_too_large()


def body_too_large() -> TooLarge:
    return TooLarge(f"Request entity too large: limit is {BODY_LIMIT_BYTES}")


def parse_version(text: str, *, watch: bool = False) -> int:
    """A resourceVersion parameter as a number; "" and "0" are 0. Raises what Kubernetes answers to others."""
    if not text:
        return 0
    whole = text.isascii() and text.isdigit()
    if whole and len(text) <= _LONGEST_WHOLE and int(text) < 1 << 64:
        return int(text)
    problem = "value out of range" if whole else "invalid syntax"
    sentence = f'resourceVersion: Invalid value: "{text}": strconv.ParseUint: parsing "{text}": {problem}'
    if watch:
        raise Unexplained(sentence)
    raise BadRequest(f"invalid resource version: {sentence}")


async def existing(services: Services, call: Call) -> Record:
    """The object of the path, as of now. Raises NotFound."""
    record = await services.store.read(call.key)
    if record is None:
        raise call.missing()
    return record
