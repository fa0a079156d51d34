"""Which servers the node itself asks, out of its resolv.conf, and when that changes.

Called by `main`. The file is looked at every second: it is often a link that others move, which a watch would not see.
resolv.conf(5).
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Collection
from pathlib import Path

LOOK_SECONDS = 1.0
MAX_SERVERS = 3
Stamp = tuple[int, int, int] | None


def parse_nameservers(text: str, own: Collection[str]) -> list[str]:
    """The first three servers' addresses, without our own, to which no query must return."""
    found = []
    for words in (line.split() for line in text.splitlines()):
        if len(words) > 1 and words[0] == "nameserver" and _is_address(words[1]) and words[1] not in own:
            found.append(words[1])
    return found[:MAX_SERVERS]


def _is_address(text: str) -> bool:
    try:
        socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text.partition("%")[0])
    except OSError:
        return False
    return True


async def follow(path: Path, own: Collection[str], changed: Callable[[list[str]], None]) -> None:
    """Calls `changed` with the servers at once and whenever the file has others, until cancelled.

    A file that cannot be read changes nothing: it may be just being replaced.
    """
    seen: Stamp = None
    known: list[str] | None = None
    while True:
        stamp = _stamp(path)
        if stamp is not None and stamp != seen:
            seen = stamp
            servers = parse_nameservers(_read(path), own)
            if servers != known:
                known = servers
                changed(servers)
        await asyncio.sleep(LOOK_SECONDS)


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _stamp(path: Path) -> Stamp:
    try:
        facts = os.stat(path)
    except OSError:
        return None
    return facts.st_ino, facts.st_mtime_ns, facts.st_size
