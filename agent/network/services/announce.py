"""Holds the balanced addresses of the pool that this node announces: answers ARP for them and tells the neighbours.

Called by `part`. The addresses lie on a link of their own, where the kernel answers ARP for them on every link.
They have a short lifetime which the agent renews: the node of an agent that has died lets go by itself, as another node
will have been chosen. Neighbours hear of a new holder by gratuitous ARP (RFC 5227) on the links towards the address.
IPv4 only: the kernel answers neighbour solicitations for addresses of the asked link alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import struct
from collections.abc import Iterable
from typing import Any

import orjson

from agent.network.commands import run_program
from agent.network.model import family_of

LIFETIME_SECONDS = 10
RENEW_SECONDS = 3.0
PAUSES_SECONDS = (0.0, 0.2, 0.8)
"""Before each of the gratuitous ARPs for a new address."""


def link_name(node_id: str) -> str:
    """The link that carries them; an interface's name has at most 15 bytes."""
    return f"wlb-{node_id[:8]}"


def ways_to(address: str, links: Iterable[dict[str, Any]], own: str) -> list[tuple[str, bytes]]:
    """(name, hardware address) of the links whose neighbours shall hear of an address, out of `ip -json address`.

    Those in whose subnet it lies; without any, the one that has this node's own address `own`.
    """
    near, home = [], []
    for link in links:
        hardware = bytes.fromhex(link.get("address", "").replace(":", ""))
        if link.get("link_type") != "ether" or len(hardware) != 6:
            continue
        inet = [each for each in link.get("addr_info", ()) if each.get("family") == "inet" and each["prefixlen"] < 32]
        nets = [ipaddress.ip_network(f"{each['local']}/{each['prefixlen']}", strict=False) for each in inet]
        if any(ipaddress.ip_address(address) in net for net in nets):
            near.append((link["ifname"], hardware))
        if own in [each["local"] for each in inet]:
            home.append((link["ifname"], hardware))
    return near or home


def gratuitous_arp(address: str, hardware: bytes) -> bytes:
    """An Ethernet frame that says to all: this address is at this hardware address."""
    ip = ipaddress.ip_address(address).packed
    arp = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1) + hardware + ip + bytes(6) + ip
    return b"\xff" * 6 + hardware + b"\x08\x06" + arp


class Announcer:
    """The announced addresses of one node. `run` renews and repeats; `hold` says which, and takes the others away."""

    def __init__(self, node_id: str, own: str) -> None:
        self._link = link_name(node_id)
        self._own = own
        self._held: frozenset[str] = frozenset()
        self._started = False
        self._fresh: asyncio.Queue[str] = asyncio.Queue()

    async def hold(self, wanted: frozenset[str]) -> str:
        """Hold exactly these addresses; why that does not work, or "". Idempotent."""
        usable = frozenset(address for address in wanted if family_of(address) == 4)
        if not self._started:
            self._held = await self._found()
            self._started = True
        problem = await self._renew(usable) if usable else ""
        for address in self._held - usable:
            await run_program("ip", ["address", "delete", f"{address}/32", "dev", self._link])
        for address in usable - self._held:
            self._fresh.put_nowait(address)
        self._held = frozenset() if problem else usable
        refused = ", ".join(sorted(wanted - usable))
        return problem or (f"IPv6 addresses are not announced: {refused}" if refused else "")

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep_renewing())
            group.create_task(self._tell())

    async def _keep_renewing(self) -> None:
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            if self._held:
                await self._renew(self._held)

    async def _renew(self, addresses: Iterable[str]) -> str:
        lifetime = f"valid_lft {LIFETIME_SECONDS} preferred_lft {LIFETIME_SECONDS}"
        lines = [f"address replace {address}/32 dev {self._link} {lifetime}" for address in addresses]
        outcome = await run_program("ip", ["-batch", "-"], "\n".join(lines))
        if outcome.code:
            for kind in ("dummy", "bridge"):  # a bridge without ports, where the kernel has no dummies
                await run_program("ip", ["link", "add", "name", self._link, "type", kind])
            await run_program("ip", ["link", "set", self._link, "up"])
            outcome = await run_program("ip", ["-batch", "-"], "\n".join(lines))
        return f"balanced addresses are not announced: ip: {outcome.complaint}" if outcome.code else ""

    async def _found(self) -> frozenset[str]:
        """What an earlier agent of this node left."""
        links = await _links("dev", self._link)
        return frozenset(each["local"] for link in links for each in link.get("addr_info", ()) if "label" in each)

    async def _tell(self) -> None:
        while True:
            addresses = [await self._fresh.get()]
            while not self._fresh.empty():
                addresses.append(self._fresh.get_nowait())
            links = await _links()
            for pause in PAUSES_SECONDS:
                await asyncio.sleep(pause)
                for address in self._held.intersection(addresses):
                    _broadcast(address, ways_to(address, links, self._own))


def _broadcast(address: str, ways: Iterable[tuple[str, bytes]]) -> None:
    for name, hardware in ways:
        with contextlib.suppress(OSError), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
            raw.bind((name, 0x0806))
            raw.send(gratuitous_arp(address, hardware))


async def _links(*which: str) -> list[dict[str, Any]]:
    outcome = await run_program("ip", ["-json", "address", "show", *which])
    return [] if outcome.code or not outcome.output else orjson.loads(outcome.output)
