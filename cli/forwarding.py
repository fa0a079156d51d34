"""`wherry port-forward`: ports of this machine that lead into a pod, as kubectl's.

Each connection here is one SPDY connection to pods/portforward with two streams: its data, and an error that the node
tells. https://kubernetes.io/docs/tasks/access-application-cluster/port-forward-access-application-cluster/
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from cli.cluster import Cluster, on_cluster, split_target
from cli.problems import Problem

if TYPE_CHECKING:
    from api.spdy import Spdy

PROTOCOL_NAME = "portforward.k8s.io"
_CHUNK = 64 * 1024


@dataclass(frozen=True)
class Forward:
    """From a port of this machine (0: any free one) to one of the target, by number or name."""

    local: int
    remote: str


@click.command("port-forward")
@click.option("--address", default="127.0.0.1", show_default=True, help="Where to listen; 0.0.0.0 is everywhere.")
@click.argument("target")
@click.argument("ports", nargs=-1, required=True, metavar="[LOCAL:]REMOTE...")
def port_forward_command(target: str, ports: tuple[str, ...], address: str) -> None:
    """Lead ports of this machine into a pod: `wherry port-forward web 8080:80`, `service/web 8080:http`."""
    forwards = [parse_forward(text) for text in ports]
    on_cluster(lambda cluster: _forward(cluster, target, forwards, address))


def parse_forward(text: str) -> Forward:
    """`8080:80`, `80`, `:80`, `8080:http`. Raises Problem."""
    local, colon, remote = text.partition(":")
    if not colon:
        local = remote = text
    if (local and not local.isdigit()) or not remote or (remote.isdigit() and not 0 < int(remote) < 65536):
        raise Problem(f"{text}: no ports to forward", "Write LOCAL:REMOTE, such as 8080:80; `:80` takes any free one.")
    if int(local or 0) > 65535:
        raise Problem(f"{text}: there is no port {local}", "Ports are 1 to 65535.")
    return Forward(int(local or 0), remote)


async def _forward(cluster: Cluster, target: str, forwards: list[Forward], address: str) -> None:
    pod, remotes = await _resolve(cluster, target, [forward.remote for forward in forwards])
    async with contextlib.AsyncExitStack() as stack:
        servers = []
        for forward, remote in zip(forwards, remotes, strict=True):
            server = await stack.enter_async_context(await _listen(cluster, pod, address, (forward.local, remote)))
            local = server.sockets[0].getsockname()[1]
            click.echo(f"Forwarding from {address}:{local} -> {remote}")
            servers.append(server)
        await asyncio.gather(*(server.serve_forever() for server in servers))


async def _listen(cluster: Cluster, pod: str, address: str, ports: tuple[int, int]) -> asyncio.Server:
    local, remote = ports

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await _carry(cluster, (pod, remote), reader, writer)
        except Exception as error:
            from cli.problems import explain

            problem = explain(error)
            if problem is None:
                raise
            click.echo(f"error: port {remote}: {problem.text}", err=True)
        finally:
            writer.close()

    try:
        return await asyncio.start_server(serve, address, local)
    except OSError as error:
        from api.listeners import listener_on

        taken = listener_on(local, address="" if address == "0.0.0.0" else address)
        raise Problem(
            f"cannot listen on {address}:{local}: {f'taken by {taken}' if taken else error.strerror}"
        ) from error


async def _carry(
    cluster: Cluster, target: tuple[str, int], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """One connection, both ways, until the pod's side has ended."""
    from api.client import path_of
    from api.kinds import by_resource
    from api.spdy import DATA, ERROR, UPGRADE, Spdy

    pod, port = target
    path = path_of(by_resource("", "pods"), cluster.namespace, pod, "portforward")
    headers = {**UPGRADE, "X-Stream-Protocol-Version": PROTOCOL_NAME}
    tunnel = await cluster.client.upgrade("POST", path, headers)
    connection = Spdy(tunnel.reader, tunnel.writer)
    sending: asyncio.Task[None] | None = None
    try:
        for name in (ERROR, DATA):
            connection.open(name, port=str(port), requestid="0")
        connection.finish(ERROR)
        sending = asyncio.create_task(_send(connection, reader))
        async for name, data in connection.received(ends=True):
            if name == ERROR and data:
                raise Problem(data.decode(errors="replace").strip())
            if name == DATA and not data:
                return
            if name == DATA:
                writer.write(data)
                await writer.drain()
    except ConnectionError:
        return  # whoever connected here went away
    finally:
        if sending is not None:
            sending.cancel()
        tunnel.writer.transport.abort()


async def _send(connection: Spdy, reader: asyncio.StreamReader) -> None:
    from api.spdy import DATA

    with contextlib.suppress(ConnectionError):
        while data := await reader.read(_CHUNK):
            await connection.send(DATA, data)
        connection.finish(DATA)


async def _resolve(cluster: Cluster, target: str, wanted: list[str]) -> tuple[str, list[int]]:
    """A running pod of the target, and its numbers of the ports. Raises Problem, ApiError."""
    from api.kinds import by_resource
    from api.objects import name_of

    kind, names = split_target((target,) if "/" in target else ("pod", target))
    pods = by_resource("", "pods")
    found = await cluster.client.get(kind, cluster.namespace, names[0])
    if kind.kind == "Pod":
        return name_of(found), [_container_port(found, text) for text in wanted]
    selector = (found.get("spec") or {}).get("selector") or {}
    labels = selector if kind.kind == "Service" else selector.get("matchLabels") or {}
    if not labels:
        raise Problem(f"{target} selects no pods", "Name a pod, a Service or a Deployment.")
    from api.client import Selection

    listed = await cluster.client.list(
        pods, Selection(cluster.namespace, ",".join(f"{k}={v}" for k, v in labels.items()))
    )
    running = [pod for pod in listed["items"] if (pod.get("status") or {}).get("phase") == "Running"]
    if not running:
        raise Problem(f"no pod of {target} runs", f"`wherry describe {target}` says why.")
    pod = running[0]
    services = [_target_port(found, text) if kind.kind == "Service" else text for text in wanted]
    return name_of(pod), [_container_port(pod, text) for text in services]


def _target_port(service: Any, text: str) -> str:
    """What a Service's port leads to: a number or the name of a container's port."""
    for port in service["spec"].get("ports") or ():
        if text in (str(port["port"]), port.get("name")):
            return str(port.get("targetPort") or port["port"])
    raise Problem(f"service {service['metadata']['name']} has no port {text}")


def _container_port(pod: Any, text: str) -> int:
    if text.isdigit():
        return int(text)
    for container in pod["spec"]["containers"]:
        for port in container.get("ports") or ():
            if port.get("name") == text:
                return int(port["containerPort"])
    raise Problem(f"pod {pod['metadata']['name']} has no port named {text}")
