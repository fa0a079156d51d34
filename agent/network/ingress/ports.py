"""Whether a TCP port of this network namespace can be had, and who has it otherwise.

Called by the part before HAProxy is given a port: its own words for a taken one would end the other port, too.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from pathlib import Path

_LISTENING = "0A"


def holder_of(port: int) -> str:
    """ "" when a program may listen on the port, on all addresses; else words for who does."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("", port))
            probe.listen(1)
    except OSError as error:
        return _program(port) if error.errno == errno.EADDRINUSE else f"nobody, but cannot be had: {error.strerror}"
    return ""


def _program(port: int) -> str:
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError):
            for words in (line.split() for line in Path(table).read_text().splitlines()[1:]):
                if words[3] == _LISTENING and int(words[1].rpartition(":")[2], 16) == port:
                    inodes.add(f"socket:[{words[9]}]")
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            for entry in os.scandir(process / "fd"):
                if os.readlink(entry.path) in inodes:
                    return f"{(process / 'comm').read_text().strip()} (process {process.name})"
    return "another program"
