"""A place in the network like a pod's, without a pod: a network namespace with an address out of the node's podCIDR.

Made by `check` for a few seconds, by the CNI configuration that pods are attached with, and known to the policies as a
pod that none selects. It answers echoes (see `asking`). The namespace has no name: it lives by the descriptors that
this process holds, so the kernel takes it, its link and its routes away even if the agent is killed. What then stays
is the address's reservation, a small file, which `release` takes away at the next agent's start and before each use.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import socket
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import orjson

from agent.network.check.asking import MOST_BYTES, never_fragment, open_socket, reply_to
from agent.network.cni import CONFLIST_NAME, foreign_config, interface_mtu
from agent.network.commands import run_program
from agent.network.model import family_of
from agent.runtime.containerd_config import cni_bin_dir
from agent.runtime.errors import Failed

_NEW_NETWORK = 0x40000000
_INTERFACE = "eth0"
_NEEDLESS = "portmap"
"""Host ports, of which a probe has none."""
_libc = ctypes.CDLL(None, use_errno=True)
T = TypeVar("T")


class Probe:
    """`addresses` and `port` are where it answers; `mtu` is its link's. Made by `make`, ended by `close`."""

    def __init__(self, plan: Plan) -> None:
        self.addresses: tuple[str, ...] = ()
        self.port = 0
        self.mtu = 1500
        self._plan = plan
        self._namespace = _in_thread(_new_namespace)
        self._servers: list[socket.socket] = []

    @classmethod
    async def make(cls, plan: Plan) -> Probe:
        """Raises RuntimeFault, OSError: then nothing is left of it."""
        await plan.release()
        probe = cls(plan)
        try:
            probe.addresses = await plan.attach(f"/proc/{os.getpid()}/fd/{probe._namespace}")
            probe.mtu = _in_thread(lambda: probe._inside(lambda: interface_mtu(_INTERFACE)))
            probe._serve()
        except BaseException:
            await probe.close()
            raise
        return probe

    async def close(self) -> None:
        for server in self._servers:
            asyncio.get_running_loop().remove_reader(server)
            server.close()
        self._servers = []
        try:
            with contextlib.suppress(Failed):  # the namespace takes the link along; the address goes next time
                await self._plan.detach(f"/proc/{os.getpid()}/fd/{self._namespace}")
        finally:
            if self._namespace >= 0:
                os.close(self._namespace)
            self._namespace = -1

    def open_socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """A socket that speaks as a pod does, for as long as it is open."""
        return _in_thread(lambda: self._inside(lambda: open_socket(family, kind, protocol)))

    def _inside(self, work: Callable[[], T]) -> T:
        if _libc.setns(self._namespace, _NEW_NETWORK):
            raise OSError(ctypes.get_errno(), "setns")
        return work()

    def _serve(self) -> None:
        for address in self.addresses:
            server = self.open_socket(family_of(address), socket.SOCK_DGRAM)
            self._servers.append(server)
            never_fragment(server, family_of(address))
            server.bind((address, self.port))
            self.port = server.getsockname()[1]
            asyncio.get_running_loop().add_reader(server, _answer, server)


def _answer(server: socket.socket) -> None:
    with contextlib.suppress(OSError):  # also a path that is too small for the reply
        request, asker, *_ = server.recvfrom(MOST_BYTES)
        if reply := reply_to(request, asker[0]):
            server.sendto(reply, asker)


def _new_namespace() -> int:
    if _libc.unshare(_NEW_NETWORK):
        raise OSError(ctypes.get_errno(), "a network namespace cannot be made")
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def _in_thread(work: Callable[[], T]) -> T:
    """In a thread of its own, whose network namespace ends with it."""
    results: list[T] = []
    faults: list[OSError] = []

    def run() -> None:
        try:
            results.append(work())
        except OSError as error:
            faults.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if faults:
        raise faults[0]
    return results[0]


class Plan:
    """How a probe is attached: the CNI configuration in `conf_dir`, whoever wrote it. `name` is the container's id.

    Raises Failed with the plug-in's words.
    """

    def __init__(self, conf_dir: Path, name: str) -> None:
        self._conf_dir = conf_dir
        self._name = name
        self._result: Mapping[str, Any] | None = None

    async def attach(self, namespace: str) -> tuple[str, ...]:
        """Returns the addresses."""
        for plugin in self._plugins():
            self._result = await self._call("ADD", plugin, namespace)
        ips = (self._result or {}).get("ips") or ()
        return tuple(str(each["address"]).partition("/")[0] for each in ips)

    async def detach(self, namespace: str) -> None:
        for plugin in reversed(self._plugins()):
            await self._call("DEL", plugin, namespace)
        self._result = None

    async def release(self) -> None:
        """What an agent that was killed left: its address."""
        self._result = None
        for plugin in self._plugins():
            kept = Path(str((plugin.get("ipam") or {}).get("dataDir") or "/var/lib/cni/networks"), plugin["name"])
            if await asyncio.to_thread(_holds, kept, self._name):
                with contextlib.suppress(Failed):
                    await self._call("DEL", plugin, "")

    def _plugins(self) -> list[dict[str, Any]]:
        """Each with what libcni adds to it."""
        path = foreign_config(self._conf_dir) or self._conf_dir / CONFLIST_NAME
        try:
            found = orjson.loads(path.read_bytes())
        except (OSError, orjson.JSONDecodeError) as error:
            raise Failed(f"{path}: {error}") from error
        common = {"name": found.get("name"), "cniVersion": found.get("cniVersion")}
        plugins = [{**plugin, **common} for plugin in found.get("plugins") or [found]]
        return [
            {key: value for key, value in plugin.items() if key != "capabilities"}
            for plugin in plugins
            if plugin.get("type") != _NEEDLESS
        ]

    async def _call(self, command: str, plugin: dict[str, Any], namespace: str) -> Mapping[str, Any]:
        environment = {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": self._name,
            "CNI_IFNAME": _INTERFACE,
            "CNI_NETNS": namespace,
            "CNI_PATH": cni_bin_dir(),
        }
        given = {**plugin, **({"prevResult": self._result} if self._result else {})}
        outcome = await run_program(f"{cni_bin_dir()}/{plugin['type']}", [], orjson.dumps(given).decode(), environment)
        if outcome.code:
            raise Failed(f"{plugin['type']}: {_complaint(outcome.output) or outcome.complaint}")
        parsed: Mapping[str, Any] = orjson.loads(outcome.output) if outcome.output.strip() else {}
        return parsed


def _complaint(output: str) -> str:
    with contextlib.suppress(orjson.JSONDecodeError, AttributeError):
        return str(orjson.loads(output).get("msg") or "")
    return output.strip()


def _holds(directory: Path, name: str) -> bool:
    """Whether host-local keeps an address for a container. Its files are named by address and hold the id."""
    with contextlib.suppress(OSError):
        for path in directory.iterdir():
            with contextlib.suppress(OSError, UnicodeDecodeError):
                if path.name[0].isdigit() and path.read_text().split("\n")[0].strip() == name:
                    return True
    return False
