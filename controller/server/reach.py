"""The API server's way to pods and services: found by name, reached through the agent of the node they are on.

Used by proxy.py, and for webhooks. An API server on no node reaches no pod itself, and one that happens to run on a
node takes the same way, so that there is only one. What is on no node (endpoints somebody wrote) is dialed directly.
Rules: k8s.io/kubernetes/pkg/registry/core/{pod,service} (ResourceLocation).
"""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

from api.dialing import dial_head
from api.errors import ApiError, BadRequest, ServiceUnavailable, not_found
from api.inner_tls import secure
from api.objects import Object
from api.selectors import parse_label_selector
from api.tunnel import CONNECT_SECONDS, Side, Unanswered, connect, read_head, read_refusal, status_of
from controller.server.agents import Agents
from controller.store import Query, Store
from controller.store.types import Key

_SLICES = ("discovery.k8s.io", "endpointslices")
_SERVICE_NAME = "kubernetes.io/service-name"
_SCHEMES = ("", "http", "https")


@dataclass(frozen=True)
class Spot:
    """A listener. `node`: whose agent reaches it; "": the API server itself."""

    address: str
    port: int
    node: str = ""

    @property
    def host(self) -> str:
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


@dataclass(frozen=True)
class Security:
    """TLS to a spot: whom to believe, and what the certificate must name (or not, as the context says)."""

    context: ssl.SSLContext
    server_name: str


@dataclass(frozen=True)
class Name:
    """`[SCHEME:]NAME[:PORT]` of a proxy path."""

    scheme: str
    name: str
    port: str


def parse_name(text: str, what: str) -> Name:
    """Raises BadRequest."""
    parts = text.split(":")
    scheme, name, port = {1: ("", *parts, ""), 2: ("", *parts), 3: tuple(parts)}.get(len(parts), ("", "", ""))
    if not name or scheme not in _SCHEMES:
        raise BadRequest(f'invalid {what} request "{text}"')
    return Name(scheme, name, port)


@dataclass(frozen=True)
class Reach:
    store: Store
    agents: Agents

    def pod(self, pod: Object, name: Name) -> Spot:
        """The port that was asked for, or the first the pod declares. Raises BadRequest."""
        address = (pod.get("status") or {}).get("podIP") or ""
        _check_proxied(address)
        declared = [p["containerPort"] for c in pod["spec"]["containers"] for p in (c.get("ports") or ())[:1]]
        text = name.port or str(declared[0] if declared else 443 if name.scheme == "https" else 80)
        if not text.isdigit() or not 0 < int(text) < 65536:
            raise BadRequest(f'invalid pod request "{name.name}:{name.port}": the port must be a number')
        return Spot(address, int(text), pod["spec"].get("nodeName") or "")

    def service(self, namespace: str, name: str, port: str = "") -> Spot:
        """A ready endpoint of a Service; `port` is a name or a number, "" the port without a name. Raises NotFound,
        ServiceUnavailable."""
        record = self.store.get(Key("", "services", namespace, name))
        if record is None:
            raise not_found("", "services", name)
        wanted = port
        if port.isdigit():
            ports = record.parse()["spec"].get("ports") or ()
            named = next((one.get("name") or "" for one in ports if one["port"] == int(port)), None)
            if named is None:
                raise ServiceUnavailable(f'no service port {port} found for service "{name}"', {})
            wanted = named
        spots = list(self._endpoints(namespace, name, wanted))
        if not spots:
            shown = f"{name}:{port}" if port and not port.isdigit() else name
            raise ServiceUnavailable(f'no endpoints available for service "{shown}"', {})
        return random.choice(spots)

    def _endpoints(self, namespace: str, name: str, port: str) -> Iterator[Spot]:
        query = Query(namespace, parse_label_selector(f"{_SERVICE_NAME}={name}"))
        for record in self.store.list(_SLICES, query).records:
            one = record.parse()
            numbers = [p["port"] for p in one.get("ports") or () if (p.get("name") or "") == port and p.get("port")]
            if not numbers or one.get("addressType") == "FQDN":
                continue
            for endpoint in one.get("endpoints") or ():
                if (endpoint.get("conditions") or {}).get("ready") is not False and _may_be_proxied(endpoint):
                    address = endpoint["addresses"][0]
                    yield Spot(address, numbers[0], endpoint.get("nodeName") or self.node_at(address))

    def node_at(self, address: str) -> str:
        """The node whose pod network holds an address; "": none."""
        wanted = ip_address(address)
        for record in self.store.list(("", "nodes")).records:
            node = record.parse()
            spec = node.get("spec") or {}
            for cidr in spec.get("podCIDRs") or filter(None, (spec.get("podCIDR"),)):
                if wanted in ip_network(cidr, strict=False):
                    return record.key.name
        return ""

    async def dial(self, spot: Spot, security: Security | None = None) -> Side:
        """A connection to a spot; the caller closes its transport. Raises Unanswered."""
        side = await (self._through_agent(spot) if spot.node else connect(spot.address, spot.port))
        if security is not None:
            await _secure(side, security, spot)
        return side

    async def _through_agent(self, spot: Spot) -> Side:
        try:
            agent = self.agents.backend_of(spot.node)
        except ApiError as error:
            raise Unanswered(error.message) from error
        side = await connect(agent.host, agent.port, agent.tls, agent.server_name)
        assert side.transport is not None
        try:
            side.transport.write(dial_head(f"{agent.host}:{agent.port}", spot.address, spot.port))
            head = await read_head(side)
            if status_of(head) != 101:
                _, body, _ = await read_refusal(side, head)
                raise Unanswered(f"node {spot.node}: {body.decode('utf-8', 'replace').strip()}")
        except BaseException:
            side.transport.close()
            raise
        return side


def _check_proxied(address: str) -> None:
    """As k8s.io/kubernetes/pkg/proxy/util IsProxyableIP. Raises BadRequest."""
    try:
        found = ip_address(address)
    except ValueError:
        raise BadRequest("address not allowed") from None
    if found.is_loopback or found.is_link_local or found.is_multicast or found.is_unspecified:
        raise BadRequest("address not allowed")


def _may_be_proxied(endpoint: Object) -> bool:
    try:
        _check_proxied((endpoint.get("addresses") or [""])[0])
    except BadRequest:
        return False
    return True


async def _secure(side: Side, security: Security, spot: Spot) -> None:
    """TLS inside the connection, which may be TLS itself. Raises Unanswered."""
    assert side.transport is not None
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            side.transport = await secure(side.transport, security.context, security.server_name, side)
    except (OSError, TimeoutError) as error:
        side.transport.close()
        raise Unanswered(f"{spot.host}: {error or 'no TLS handshake in time'}") from error
    except BaseException:
        side.transport.close()
        raise
