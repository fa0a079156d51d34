"""One look at a container: exec, HTTP, TCP or gRPC. Used by probes and by lifecycle hooks.

Every look ends within its timeout with an `Outcome`; nothing is raised but cancellation. Words are those of the
kubelet's prober, because they end up in events. See kubernetes.io/docs/concepts/workloads/pods/probes.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urljoin, urlsplit

import aiohttp

from agent.pods.configs import named_port
from agent.runtime.errors import RuntimeFault, Timeout
from agent.runtime.protocol import Runtime

Result = Literal["success", "failure", "unknown"]
MOST_OUTPUT = 10 * 1024
MOST_REDIRECTS = 10
USER_AGENT = "kube-probe/1.36"


@dataclass(frozen=True)
class Outcome:
    result: Result
    message: str = ""


@dataclass(frozen=True)
class Target:
    """What is looked at: the container (for exec and port names) and the address of its pod."""

    container_id: str
    container: Mapping[str, Any]
    address: str


class Prober:
    """Looks at containers. One per agent; `close` ends its HTTP session."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def look(self, action: Mapping[str, Any], target: Target, timeout_seconds: float) -> Outcome:
        """`action` holds one of exec, httpGet, tcpSocket, grpc (a probe or a hook)."""
        if given := action.get("exec"):
            return await self.run(target.container_id, given.get("command") or [], timeout_seconds)
        if given := action.get("httpGet"):
            return await self._http(given, target, timeout_seconds)
        if given := action.get("tcpSocket"):
            return await self._tcp(given, target, timeout_seconds)
        if given := action.get("grpc"):
            return await self._grpc(given, target, timeout_seconds)
        return Outcome("unknown", "missing probe handler")

    async def run(self, container_id: str, command: Sequence[str], timeout_seconds: float) -> Outcome:
        try:
            done = await self._runtime.exec_sync(container_id, command, timeout_seconds)
        except Timeout:
            text = f'command timed out: "{" ".join(command)}" timed out after {timeout_seconds:g}s'
            return Outcome("failure", text)
        except RuntimeFault as fault:
            return Outcome("unknown", fault.message)
        output = (done.stdout + done.stderr)[:MOST_OUTPUT].decode("utf-8", "replace")
        return Outcome("success" if done.exit_code == 0 else "failure", output)

    async def _http(self, given: Mapping[str, Any], target: Target, timeout_seconds: float) -> Outcome:
        port = named_port(target.container, given.get("port"))
        if port is None:
            return Outcome("unknown", f"couldn't find port: {given.get('port')}")
        scheme = (given.get("scheme") or "HTTP").lower()
        host = given.get("host") or target.address
        shown_host = f"[{host}]" if ":" in host else host
        path = given.get("path") or "/"
        url = f"{scheme}://{shown_host}:{port}{path if path.startswith('/') else '/' + path}"
        headers = {"User-Agent": USER_AGENT, "Accept": "*/*"}
        headers |= {entry["name"]: entry.get("value") or "" for entry in given.get("httpHeaders") or ()}
        try:
            async with asyncio.timeout(timeout_seconds):
                return await self._get(url, headers)
        except TimeoutError:
            text = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
            return Outcome("failure", f'Get "{url}": {text}')
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return Outcome("failure", f'Get "{url}": {_dial_error(error, f"{shown_host}:{port}")}')

    async def _get(self, url: str, headers: Mapping[str, str]) -> Outcome:
        host, place = urlsplit(url).hostname, url
        for _ in range(MOST_REDIRECTS):
            async with self._http_session().get(place, headers=headers, allow_redirects=False) as response:
                location = response.headers.get("Location")
                if response.status in (301, 302, 303, 307, 308) and location:
                    place = urljoin(place, location)
                    if urlsplit(place).hostname == host:
                        continue
                    return Outcome("success", "Probe terminated redirects")
                if 200 <= response.status < 400:
                    return Outcome("success")
                return Outcome("failure", f"HTTP probe failed with statuscode: {response.status}")
        return Outcome("failure", f'Get "{place}": stopped after {MOST_REDIRECTS} redirects')

    def _http_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(ssl=False, force_close=True, limit=0)
            self._session = aiohttp.ClientSession(connector=connector, auto_decompress=False)
        return self._session

    async def _tcp(self, given: Mapping[str, Any], target: Target, timeout_seconds: float) -> Outcome:
        port = named_port(target.container, given.get("port"))
        if port is None:
            return Outcome("unknown", f"couldn't find port: {given.get('port')}")
        host = given.get("host") or target.address
        try:
            async with asyncio.timeout(timeout_seconds):
                _, writer = await asyncio.open_connection(host, port)
        except TimeoutError:
            return Outcome("failure", f"dial tcp {host}:{port}: i/o timeout")
        except OSError as error:
            return Outcome("failure", _dial_error(error, f"{host}:{port}"))
        writer.close()
        return Outcome("success")

    async def _grpc(self, given: Mapping[str, Any], target: Target, timeout_seconds: float) -> Outcome:
        import grpc

        request = _health_request((given.get("service") or "").encode())
        address = f"{target.address}:{given['port']}"
        try:
            async with grpc.aio.insecure_channel(address) as channel:
                check = channel.unary_unary("/grpc.health.v1.Health/Check")
                reply: bytes = await check(request, timeout=timeout_seconds)
        except grpc.aio.AioRpcError as error:
            return Outcome("failure", f'service unhealthy or unreachable at "{address}": {error.details()}')
        serving = reply[:2] == b"\x08\x01"
        return Outcome("success") if serving else Outcome("failure", "service unhealthy (responded with NOT_SERVING)")


def _health_request(service: bytes) -> bytes:
    """A HealthCheckRequest: its only field, the name of the service, is left out when it is empty."""
    if not service:
        return b""
    length, prefix = len(service), bytearray(b"\x0a")
    while length > 0x7F:
        prefix.append(length & 0x7F | 0x80)
        length >>= 7
    return bytes(prefix) + bytes([length]) + service


def _dial_error(error: Exception, address: str) -> str:
    """An error of connecting, in Go's words."""
    cause: BaseException = getattr(error, "os_error", None) or error
    number = cause.errno if isinstance(cause, OSError) else None
    if number is None:
        return str(error) or type(error).__name__
    words = {errno.ECONNREFUSED: "connection refused", errno.EHOSTUNREACH: "no route to host"}
    if number in (errno.ECONNRESET, errno.EPIPE):
        return "read: connection reset by peer"
    text = words.get(number) or (os.strerror(number).lower() if number > 0 else str(cause))
    return f"dial tcp {address}: connect: {text}"
