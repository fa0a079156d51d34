"""Answers load balancers that ask whether this node has an endpoint of a service, on its healthCheckNodePort.

Called by `part`. Each Service of type LoadBalancer with externalTrafficPolicy Local gets a port on every node: 200 with
local ready endpoints, 503 without. Body and headers are kube-proxy's.
Source: kubernetes.io/docs/tasks/access-application-cluster/create-external-load-balancer (caveats), KEP-3458.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass

import orjson

from agent.network.model import Key

REQUEST_SECONDS = 5.0
REQUEST_BYTES = 16_384


@dataclass(frozen=True, slots=True)
class Check:
    """What a port answers: local ready endpoints of a service."""

    service: Key
    endpoints: int


def render_answer(check: Check, healthy: bool) -> bytes:
    """The HTTP response; `healthy`: this node's rules are as they should be."""
    status = "200 OK" if check.endpoints and healthy else "503 Service Unavailable"
    namespace, name = check.service
    body = orjson.dumps(
        {
            "service": {"namespace": namespace, "name": name},
            "localEndpoints": check.endpoints,
            "serviceProxyHealthy": healthy,
        },
        option=orjson.OPT_INDENT_2,
    ).replace(b"  ", b"\t")
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nX-Content-Type-Options: nosniff\r\n"
    head += f"X-Load-Balancing-Endpoint-Weight: {check.endpoints}\r\n"
    head += f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return head.encode() + body


class HealthChecks:
    """The listening ports. `healthy` is for the caller to set."""

    def __init__(self) -> None:
        self.healthy = True
        self._checks: Mapping[int, Check] = {}
        self._servers: dict[int, asyncio.Server] = {}

    async def update(self, checks: Mapping[int, Check]) -> str:
        """Listen on exactly these ports; which of them cannot be had, and why ("" when all can). Idempotent."""
        self._checks = checks
        for port in self._servers.keys() - checks.keys():
            self._servers.pop(port).close()
        problems = []
        for port in checks.keys() - self._servers.keys():
            try:
                self._servers[port] = await asyncio.start_server(self._answer, None, port, limit=REQUEST_BYTES)
            except OSError as error:
                problems.append(f"healthCheckNodePort {port} of {'/'.join(checks[port].service)}: {error.strerror}")
        return "; ".join(problems)

    def close(self) -> None:
        for server in self._servers.values():
            server.close()
        self._servers.clear()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Whatever is asked, the answer is the same; who asks nothing is let go."""
        with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            async with asyncio.timeout(REQUEST_SECONDS):
                await reader.readuntil(b"\r\n\r\n")
                check = self._checks.get(writer.get_extra_info("sockname")[1])
                if check is not None:
                    writer.write(render_answer(check, self.healthy))
                    await writer.drain()
        writer.close()
