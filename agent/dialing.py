"""Connections into the cluster's networks that the API server asks this node for: to webhooks, proxied pods, services.

Called by the agent's server. The API server may run where no pod can be reached. Invariant: only the controller is
served, and only addresses of pods, of services and of this node itself are dialed: never loopback, never the outside.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Any

from aiohttp import web

from agent.access import is_controller
from api import errors
from api.dialing import DIAL_HEADER, DIAL_WORD, DIALED_HEAD
from api.tunnel import connect, takeover


@dataclass(frozen=True)
class Reachable:
    """`networks`: those of pods and services. `addresses`: this node's own, where pods on its network listen."""

    networks: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()

    def __contains__(self, text: str) -> bool:
        """Raises ValueError for what is no address."""
        address = ip_address(text)
        inside = any(address in ip_network(network, strict=False) for network in self.networks)
        return inside or any(address == ip_address(own) for own in self.addresses)


NOTHING_REACHABLE = Reachable()


async def dial(
    request: web.BaseRequest, certificate: Mapping[str, Any] | None, reachable: Reachable, parts: list[str]
) -> web.StreamResponse:
    """Joins the controller with ADDRESS/PORT; returns when either has ended. Raises Forbidden, BadRequest,
    api.tunnel.Unanswered."""
    if not is_controller(certificate) or request.headers.get(DIAL_HEADER) != DIAL_WORD:
        raise errors.Forbidden("only the API server itself is connected into the cluster's networks")
    if len(parts) != 2 or not parts[1].isdigit() or not 0 < int(parts[1]) < 65536:
        raise errors.BadRequest("an address and a port are needed")
    if parts[0] not in reachable:
        raise errors.Forbidden(f"{parts[0]} is no address of a pod, of a service or of this node")
    far = await connect(parts[0], int(parts[1]))
    assert far.transport is not None
    try:
        await takeover(request, DIALED_HEAD, far)
        return web.Response()
    finally:
        far.transport.close()
