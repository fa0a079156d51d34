"""Delivers AdmissionReviews (and conversions) to webhooks: by URL, or to a Service through the agent of its pod's node.

Given to the admission chain and to conversions by `compose`. TLS always, with the bundle the configuration names or
the system's; connections to URLs are kept, those through an agent serve one call. Invariant: never longer than the
webhook's own timeout. Errors carry the address that was called.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import os
import ssl
from collections.abc import Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import orjson
from yarl import URL

from api.errors import ApiError
from api.objects import Object
from api.tunnel import Unanswered
from controller.admission.dynamic.hooks import Unreached
from controller.server.proxy import Dialed
from controller.server.reach import Reach, Security

MOST_SESSIONS = 64
"""Webhooks of more authorities than this get a connection a call."""
MOST_BYTES = 16 << 20
"""The largest answer: that of a conversion holds a megabyte of objects, which may have grown."""
_REFUSALS = {
    400: "the server rejected our request for an unknown reason",
    401: "the server has asked for the client to provide credentials",
    403: "the server does not allow access to the requested resource",
    404: "the server could not find the requested resource",
    405: "the server does not allow this method on the requested resource",
    409: "the server reported a conflict",
    429: "the server has received too many requests and has asked us to try again later",
    503: "the server is currently unable to handle the request",
}
"""What client-go says of an answer that is no Status; others are 500 and above, told with their text."""
_UNKNOWN = "certificate signed by unknown authority"
_CERTIFICATE_FAULTS = {10: "certificate has expired or is not yet valid", 18: _UNKNOWN, 19: _UNKNOWN, 20: _UNKNOWN}
"""By OpenSSL's code."""
_HEADERS = {"Content-Type": "application/json", "Accept": "application/json"}


@lru_cache(maxsize=64)
def _trusting(bundle: str) -> ssl.SSLContext:
    """TLS that believes the certificates of a bundle (base64 of PEM), or the system's for "". Raises Unreached."""
    try:
        pem = base64.b64decode(bundle).decode() if bundle else None
        return ssl.create_default_context(cadata=pem)
    except (ssl.SSLError, ValueError, binascii.Error) as error:
        raise Unreached(f"unable to load root certificates: {error}") from error


class WebhookClient:
    """Alive until `close`."""

    def __init__(self, reach: Reach) -> None:
        self.reach = reach
        self._sessions: dict[str, aiohttp.ClientSession] = {}

    async def close(self) -> None:
        for session in self._sessions.values():
            await session.close()

    async def call(self, client_config: Mapping[str, Any], review: Object, timeout_seconds: float) -> Any:
        """The parsed answer. Raises Unreached."""
        context = _trusting(client_config.get("caBundle") or "")
        shown = _address_of(client_config, timeout_seconds)
        url = URL(shown)
        try:
            async with asyncio.timeout(timeout_seconds):
                if client_config.get("service"):
                    connector = await self._dialed(client_config["service"], context)
                    async with _session(connector) as session:
                        return await _posted(session, url.with_scheme("http"), review)
                return await self._by_url(client_config.get("caBundle") or "", context, url, review)
        except TimeoutError:
            raise Unreached(f'Post "{shown}": context deadline exceeded') from None
        except (Unanswered, ApiError, aiohttp.ClientError, OSError, ssl.SSLError) as error:
            raise Unreached(f'Post "{shown}": {_why(error)}') from error

    async def _by_url(self, bundle: str, context: ssl.SSLContext, url: URL, review: Object) -> Any:
        session = self._sessions.get(bundle)
        if session is None:
            if len(self._sessions) >= MOST_SESSIONS:
                async with _session(aiohttp.TCPConnector(ssl=context)) as once:
                    return await _posted(once, url, review)
            session = self._sessions[bundle] = _session(aiohttp.TCPConnector(ssl=context))
        try:
            return await _posted(session, url, review)
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as error:
            if isinstance(error, aiohttp.ClientConnectorError):
                raise
            return await _posted(session, url, review)  # a kept connection had ended meanwhile

    async def _dialed(self, service: Mapping[str, Any], context: ssl.SSLContext) -> aiohttp.BaseConnector:
        name, namespace = service["name"], service["namespace"]
        spot = self.reach.service(namespace, name, str(service.get("port") or 443))
        side = await self.reach.dial(spot, Security(context, f"{name}.{namespace}.svc"))
        return Dialed(side)


def _why(error: Exception) -> str:
    """A failed connection in Go's words."""
    cause = error.certificate_error if isinstance(error, aiohttp.ClientConnectorCertificateError) else error.__cause__
    if isinstance(cause, ssl.SSLCertVerificationError | ssl.CertificateError):
        told = _CERTIFICATE_FAULTS.get(getattr(cause, "verify_code", 0)) or getattr(cause, "verify_message", str(cause))
        return f"tls: failed to verify certificate: x509: {told}"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return f"dial tcp: lookup {error.host}: no such host"
    if isinstance(error, aiohttp.ClientConnectorError) and error.os_error.errno:
        return f"dial tcp {error.host}:{error.port}: connect: {os.strerror(error.os_error.errno).lower()}"
    return str(error)


def _address_of(client_config: Mapping[str, Any], timeout_seconds: float) -> str:
    service = client_config.get("service")
    if service:
        port = service.get("port") or 443
        text = f"https://{service['name']}.{service['namespace']}.svc:{port}{service.get('path') or '/'}"
    else:
        text = client_config.get("url") or ""
        if urlsplit(text).scheme != "https":
            raise Unreached(f'webhook url "{text}" must start with https://')
    return f"{text}?timeout={timeout_seconds:g}s"  # validation lets no URL have a query of its own


def _session(connector: aiohttp.BaseConnector) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())


async def _posted(session: aiohttp.ClientSession, url: URL, review: Object) -> Any:
    async with session.post(url, data=orjson.dumps(review), headers=_HEADERS, allow_redirects=False) as answer:
        if answer.status >= 300:
            text = (await answer.content.read(1024)).decode(errors="replace").strip()
            raise Unreached(_refusal(answer.status, text))
        body = await _limited(answer)
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Unreached(f"the answer is no JSON: {error}") from error


def _refusal(status: int, text: str) -> str:
    if status in _REFUSALS:
        return _REFUSALS[status]
    if status >= 500:
        return f'an error on the server ("{text or "unknown"}") has prevented the request from succeeding'
    return f"the server responded with the status code {status} but did not return more information"


async def _limited(answer: aiohttp.ClientResponse) -> bytes:
    pieces, size = [], 0
    async for piece in answer.content.iter_any():
        size += len(piece)
        if size > MOST_BYTES:
            raise Unreached(f"the answer is larger than {MOST_BYTES} bytes")
        pieces.append(piece)
    return b"".join(pieces)
