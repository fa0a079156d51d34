"""pods/[SCHEME:]NAME[:PORT]/proxy/... and services/.../proxy/...: a request for a pod, passed on as it is.

Called by connect.py, after authorization. Every method, every body, upgrades too; what the client used to identify
itself towards the API server stays here. The answer is passed on but for what belongs to this connection, and for
redirects and the links of pages, which are led back through the proxy. Rules: k8s.io/apimachinery/pkg/util/proxy
(UpgradeAwareHandler).
"""

from __future__ import annotations

import ssl
import zlib
from collections.abc import Callable
from functools import partial
from urllib.parse import quote, urlsplit

import aiohttp
from aiohttp import web
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ClientRequest
from yarl import URL

from api.errors import ServiceUnavailable
from api.tunnel import Side, Unanswered, read_head, read_refusal, status_of, takeover
from controller.server.call import Call, Services, existing
from controller.server.proxied_html import Page
from controller.server.reach import Name, Reach, Security, Spot, parse_name
from controller.server.reply import Answer, Reply, switched

HOP_BY_HOP = frozenset(
    ("connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer", "transfer-encoding")
) | {"upgrade", "host", "content-length", "authorization"}
_CORS = frozenset(f"access-control-allow-{what}" for what in ("credentials", "headers", "methods", "origin"))
_PREFIX_PARTS = 8
"""/api/v1/namespaces/NS/pods/NAME/proxy: what follows belongs to the pod."""


async def proxy_into_cluster(services: Services, call: Call) -> Answer:
    """Raises NotFound, BadRequest, ServiceUnavailable."""
    reach, pods = Reach(services.store, services.agents), call.kind.plural == "pods"
    name = parse_name(call.target.name, "pod" if pods else "service")
    if pods:
        spot = reach.pod((await existing(services, call.named(name.name))).parse(), name)
    else:
        await services.store.current()
        spot = reach.service(call.namespace, name.name, name.port)
    path, _, query = call.request.raw_path.partition("?")
    rest = _rest_of(path)
    upgrades = "upgrade" in call.request.headers.get("Connection", "").lower() and "Upgrade" in call.request.headers
    if not rest and not upgrades and call.request.method in ("GET", "HEAD"):
        return _moved(f"{path}/" + (f"?{query}" if query else ""))
    target = (rest or "/") + (f"?{query}" if query else "")
    try:
        side = await reach.dial(spot, _security(name, spot))
        assert side.transport is not None
        try:
            if upgrades:
                return await _upgrade(call.request, side, spot, target)
            return await _relay(call.request, side, spot, target)
        finally:
            side.transport.close()
    except (Unanswered, aiohttp.ClientError, TimeoutError) as error:
        raise ServiceUnavailable(f"error trying to reach service: {error}", {}) from error


def _rest_of(path: str) -> str:
    """What follows .../proxy, as it was escaped; "" without a slash."""
    parts = path.split("/")
    return "/" + "/".join(parts[_PREFIX_PARTS:]) if len(parts) > _PREFIX_PARTS else ""


def _prefix_of(path: str) -> str:
    return "/".join(path.split("/")[:_PREFIX_PARTS])


def _moved(location: str) -> Reply:
    """A page's relative links only work below a slash."""
    return Reply(301, b"", "text/plain", headers=(("Location", location),))


def _security(name: Name, spot: Spot) -> Security | None:
    """As Kubernetes: who answers for a pod's or service's address is not asked for a certificate we know."""
    if name.scheme != "https":
        return None
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return Security(context, spot.address)


def _passed_on(request: web.BaseRequest, spot: Spot) -> list[tuple[str, str]]:
    """The client's headers, without what is between it and us; and how it came."""
    kept = [
        (name, value)
        for name, value in request.headers.items()
        if name.lower() not in HOP_BY_HOP and not name.lower().startswith(("impersonate-", "x-forwarded-"))
    ]
    peers = [request.headers.get("X-Forwarded-For", ""), request.remote or ""]
    kept.append(("X-Forwarded-For", ", ".join(filter(None, peers))))
    kept.append(("X-Forwarded-Uri", quote(request.raw_path.partition("?")[0], safe="/%:=@!$&'()*+,;~")))
    return [("Host", spot.host), *kept]


async def _upgrade(request: web.BaseRequest, side: Side, spot: Spot, target: str) -> Answer:
    """WebSocket and the like: byte for byte once the pod agreed."""
    assert side.transport is not None
    headers = [*_passed_on(request, spot), ("Connection", "Upgrade"), ("Upgrade", request.headers["Upgrade"])]
    lines = [f"{request.method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers)]
    side.transport.write(("\r\n".join(lines) + "\r\n\r\n").encode("utf-8", "surrogateescape"))
    head = await read_head(side)
    if status_of(head) != 101:
        reply = Reply(*await read_refusal(side, head))
        reply.keep_alive = False
        return reply
    await takeover(request, head, side)
    return switched()


class Dialed(aiohttp.BaseConnector):
    """Gives aiohttp the one connection that was dialed already."""

    def __init__(self, side: Side) -> None:
        super().__init__(force_close=True)
        self._side = side

    async def _create_connection(self, req: ClientRequest, *others: object) -> ResponseHandler:
        del req, others
        transport = self._side.transport
        assert transport is not None
        protocol: ResponseHandler = self._factory()
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        transport.resume_reading()
        return protocol


async def _relay(request: web.BaseRequest, side: Side, spot: Spot, target: str) -> Answer:
    headers = _passed_on(request, spot)
    data = request.content if request.can_read_body else None
    if data is not None and "Content-Length" in request.headers:
        headers.append(("Content-Length", request.headers["Content-Length"]))
    url = URL(f"http://{spot.host}{target}", encoded=True)
    jar = aiohttp.DummyCookieJar()
    async with (
        aiohttp.ClientSession(
            connector=Dialed(side), timeout=aiohttp.ClientTimeout(total=None), auto_decompress=False, cookie_jar=jar,
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
        ) as session,
        session.request(request.method, url, headers=headers, data=data, allow_redirects=False) as answer,
    ):  # fmt: skip
        return await _pass_back(request, answer, spot)


async def _pass_back(request: web.BaseRequest, answer: aiohttp.ClientResponse, spot: Spot) -> Answer:
    response = web.StreamResponse(status=answer.status, reason=answer.reason)
    asked, prefix = request.headers.get("Host", ""), _prefix_of(request.raw_path)
    lead = partial(led_back, asked_host=asked, pod_host=spot.host, prefix=prefix)
    page = _page(request, answer, lead)
    for name, value in answer.headers.items():
        if name.lower() == "location":
            value = lead(value)
        if name.lower() not in HOP_BY_HOP | _CORS:
            response.headers.add(name, value)
    length = answer.headers.get("Content-Length", "")
    if length.isdigit() and page is None:
        response.content_length = int(length)
    await response.prepare(request)
    async for piece in answer.content.iter_any():
        if page is None:
            await response.write(piece)
        else:
            await _write_page(response, page, piece)
    await response.write_eof(b"" if page is None else page.close())
    return response


def _page(request: web.BaseRequest, answer: aiohttp.ClientResponse, lead: Callable[[str], str]) -> Page | None:
    """How to lead the links of the answer; None when it is no page, or one that we cannot read."""
    headers = answer.headers
    kind, packing = headers.get("Content-Type", "").partition(";")[0].strip().lower(), headers.get("Content-Encoding")
    whole = request.method != "HEAD" and answer.status >= 200 and answer.status not in (204, 206, 304)
    if kind != "text/html" or not whole or "Location" in headers or packing not in (None, "", "identity", "gzip"):
        return None
    return Page(lead, packed=packing == "gzip")


async def _write_page(response: web.StreamResponse, page: Page, piece: bytes) -> None:
    try:
        for led in page.feed(piece):
            await response.write(led)
    except zlib.error as error:
        raise aiohttp.ClientPayloadError(f"the page cannot be unpacked: {error}") from error


def led_back(location: str, asked_host: str, pod_host: str, prefix: str) -> str:
    """A redirect or a link to the pod itself, as the client can follow it: below the proxy's path."""
    try:
        parts = urlsplit(location)
    except ValueError:
        return location
    elsewhere = parts.scheme not in ("", "http", "https") or parts.netloc not in ("", pod_host, asked_host)
    if elsewhere or not parts.path.startswith("/"):
        return location
    path = parts.path if parts.path.startswith(prefix) else prefix + parts.path
    return parts._replace(scheme="", netloc="", path=path).geturl()
