"""Who listens on a port of this machine (of this network namespace), read from /proc.

Called by `wherry up`, controller and agent before they start, and by the agent when a container is to publish a port.
Imports the standard library only. Names of other users' processes are seen by root alone.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_LISTEN, _UDP_UNCONNECTED = "0A", "07"


@dataclass(frozen=True)
class Listener:
    """A listening socket; `pid` is 0 and `name` "" when its process is not visible."""

    address: str
    port: int
    pid: int = 0
    name: str = ""

    def __str__(self) -> str:
        who = f"{self.name} (process {self.pid})" if self.pid else "a process of another user or container"
        return f"{who}, on {'every address' if _is_any(self.address) else self.address}"


class PortTaken(Exception):
    """A port that is needed has a listener; the message says whose it is."""

    def __init__(self, port: int, what: str, listener: Listener) -> None:
        super().__init__(f"port {port}, which {what} needs, is taken by {listener}")
        self.listener = listener


def listener_on(port: int, protocol: str = "tcp", address: str = "") -> Listener | None:
    """Who would be in the way of listening on a port at `address` ("" is every address); None: it is free."""
    for found, inode in _sockets(protocol):
        if found.port == port and _meet(found.address, address):
            pid = _owner(inode)
            return Listener(found.address, port, pid, _name(pid))
    return None


def require_free(port: int, what: str, address: str = "") -> None:
    """Raises PortTaken when somebody listens on this TCP port already."""
    if (listener := listener_on(port, address=address)) is not None:
        raise PortTaken(port, what, listener)


def _sockets(protocol: str) -> Iterator[tuple[Listener, str]]:
    state = _LISTEN if protocol == "tcp" else _UDP_UNCONNECTED
    for table in (protocol, f"{protocol}6"):
        with contextlib.suppress(OSError):
            for line in Path("/proc/self/net", table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == state:
                    host, _, port = fields[1].partition(":")
                    yield Listener(_address(host), int(port, 16)), fields[9]


def _address(text: str) -> str:
    """The kernel prints addresses as 32-bit words in the machine's byte order."""
    words = [bytes.fromhex(text[start : start + 8])[::-1] for start in range(0, len(text), 8)]
    packed = b"".join(words)
    if len(packed) == 16 and packed.startswith(b"\0" * 10 + b"\xff\xff"):
        packed = packed[12:]
    return socket.inet_ntop(socket.AF_INET if len(packed) == 4 else socket.AF_INET6, packed)


def _is_any(address: str) -> bool:
    return address in ("", "0.0.0.0", "::")


def _meet(one: str, other: str) -> bool:
    return _is_any(one) or _is_any(other) or one == other


def _owner(inode: str) -> int:
    wanted = f"socket:[{inode}]"
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if any(os.readlink(link.path) == wanted for link in os.scandir(f"{entry.path}/fd")):
                    return int(entry.name)
    return 0


def _name(pid: int) -> str:
    """The program's name; a part of wherry goes by its own, and the data directory it works on."""
    with contextlib.suppress(OSError):
        argv = [os.fsdecode(word) for word in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[:-1]]
        return _part_of_wherry(argv) or Path(f"/proc/{pid}/comm").read_text().strip()
    return ""


def _part_of_wherry(argv: list[str]) -> str:
    for part in ("controller", "agent"):
        if argv[1:3] == ["-m", f"{part}.main"]:
            place = argv[argv.index("--data-dir") + 1 :][:1] if "--data-dir" in argv else []
            return f"wherry's {part}{' of ' + place[0] if place else ''}"
    return ""
