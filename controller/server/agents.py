"""Where a node's agent listens, and the TLS with which the controller speaks to it.

Called by connect.py, reach.py and usage.py. Invariant: whatever address a Node reports, only that node is spoken to:
its certificate has to name the node as the join handler named it (`api.trust`). We show ourselves by an identity that
agents obey and that the API server, should it be the one that is dialed, gives no rights.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field

import aiohttp

from api.errors import BadRequest, ServiceUnavailable, not_found
from api.objects import Object
from api.streams import patient_socket
from api.trust import node_host
from controller.pki.files import Pki
from controller.store import Store
from controller.store.types import Key

CONNECT_SECONDS = 10.0
DEFAULT_PORT = 10250
_PREFERRED = ("InternalIP", "Hostname", "ExternalIP", "InternalDNS", "ExternalDNS")


@dataclass(frozen=True)
class Backend:
    """A server to connect to."""

    host: str
    port: int
    tls: ssl.SSLContext | None
    server_name: str = ""
    """What its certificate has to name, instead of the address."""

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}"

    def undialed(self, why: object) -> ServiceUnavailable:
        return ServiceUnavailable(f"error dialing backend: {self.host}:{self.port}: {why}", {})


def client_context(pki: Pki) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(pki.ca_path))
    context.load_cert_chain(pki.path("agent-client.crt"), pki.path("agent-client.key"))
    return context


@dataclass
class Agents:
    """Finds agents and keeps one HTTP session to all of them."""

    store: Store
    pki: Pki
    _tls: ssl.SSLContext | None = None
    _session: aiohttp.ClientSession | None = field(default=None, repr=False)

    def backend_of(self, node: str) -> Backend:
        """The agent of a node. Raises NotFound for an unknown node, ServiceUnavailable for one without address."""
        record = self.store.get(Key("", "nodes", "", node))
        if record is None:
            raise not_found("", "nodes", node)
        if self._tls is None:
            self._tls = client_context(self.pki)
        host, port = address_of(record.parse())
        return Backend(host, port, self._tls, node_host(node))

    def backend_of_pod(self, pod: Object) -> Backend:
        """The agent of the node a pod runs on. Raises BadRequest when it is bound to none."""
        node = (pod.get("spec") or {}).get("nodeName") or ""
        if not node:
            raise BadRequest(f"pod {pod['metadata']['name']} does not have a host assigned")
        return self.backend_of(node)

    @property
    def session(self) -> aiohttp.ClientSession:
        """For requests that are answered as a whole or as a stream; upgrades go through tunnel.py."""
        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS)
            connector = aiohttp.TCPConnector(limit=0, socket_factory=patient_socket)
            self._session = aiohttp.ClientSession(connector=connector, timeout=timeout, auto_decompress=False)
        return self._session

    def reload(self) -> None:
        """The certificates on disk were renewed."""
        self._tls = None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()


def address_of(node: Object) -> tuple[str, int]:
    """(host, port) of a node's agent, by Kubernetes' order of address types. Raises ServiceUnavailable."""
    status = node.get("status") or {}
    by_type = {address.get("type"): address.get("address") for address in reversed(status.get("addresses") or [])}
    endpoint = (status.get("daemonEndpoints") or {}).get("kubeletEndpoint") or {}
    for wanted in _PREFERRED:
        if by_type.get(wanted):
            return str(by_type[wanted]), int(endpoint.get("Port") or DEFAULT_PORT)
    raise ServiceUnavailable(f"node {node['metadata']['name']} reports no address", {})
