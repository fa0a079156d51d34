"""Sizes, mounts and ports as Docker writes them and `wherry run` reads them. Raises Problem for what it cannot read."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from api.host_ports import EVERY_ADDRESS, HostPort
from api.objects import Object
from cli.problems import Problem

_SIZE = re.compile(r"(?P<number>\d+(?:\.\d+)?)(?P<unit>[bkmgt]?)i?b?", re.IGNORECASE)
_UNITS = {"": "", "b": "", "k": "Ki", "m": "Mi", "g": "Gi", "t": "Ti"}
_BYTES = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
LEAST_MEMORY_BYTES = 4 << 20
"""With less, no container starts."""
_PORT = re.compile(
    r"(?:(?P<ip>[0-9.]+):)?(?P<host>\d+):(?P<container>\d+)(?:/(?P<protocol>tcp|udp|sctp))?", re.IGNORECASE
)
_VOLUME_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?")


def memory_quantity(text: str) -> str:
    """`64m`, `1.5g`, `512M`, `256Mi`: in Docker, units of memory are powers of 1024, in either case."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise Problem(f"-m {text}: not a size", "Write a number and a unit, such as 64m or 1g (MiB and GiB).")
    unit = match["unit"].lower()
    size = float(match["number"]) * _BYTES[unit]
    if size < LEAST_MEMORY_BYTES:
        raise Problem(f"-m {text}: {size:.0f} bytes are too few to start anything", "Did you mean -m 64m?")
    return f"{match['number']}{_UNITS[unit]}" if match["number"].isdigit() else str(int(size))


@dataclass(frozen=True)
class Mounted:
    """One -v: `source` is a named volume, an absolute path of a node, or (`here`) one of this machine."""

    source: str
    target: str
    read_only: bool
    here: bool = False

    @property
    def kind(self) -> str:
        """The type of its hostPath: as Docker does, a directory of here that is missing is made."""
        return "DirectoryOrCreate" if self.here and not Path(self.source).exists() else ""

    @property
    def is_path(self) -> bool:
        return self.source.startswith("/")


def parse_mount(text: str, working_directory: Path) -> Mounted:
    """`data:/data`, `/srv:/srv:ro`, `./site:/www`."""
    source, _, rest = text.partition(":")
    target, _, mode = rest.partition(":")
    if not source or not target.startswith("/") or mode not in ("", "ro", "rw"):
        raise Problem(
            f"-v {text}: not a mount", "Write SOURCE:/PATH/INSIDE, with :ro at the end to mount it read-only."
        )
    if source.startswith("~"):
        source = str(Path(source).expanduser())
    if source in (".", "..") or source.startswith(("./", "../")):
        return Mounted(str((working_directory / source).resolve()), target, mode == "ro", here=True)
    if not source.startswith("/") and not _VOLUME_NAME.fullmatch(source):
        raise Problem(
            f"-v {text}: {source!r} is neither a path nor a volume name", f"A directory of here is ./{source}."
        )
    return Mounted(source, target, mode == "ro")


def parse_port(text: str) -> Object:
    """`8080:80`, `127.0.0.1:53:53/udp`: a port of a container, published on its node."""
    match = _PORT.fullmatch(text)
    if match is None:
        raise Problem(
            f"-p {text}: not a port to publish", "Write HOST:CONTAINER, such as 8080:80 or 127.0.0.1:53:53/udp."
        )
    for side in ("host", "container"):
        if not 0 < int(match[side]) < 65536:
            raise Problem(f"-p {text}: there is no port {match[side]}", "Ports are 1 to 65535.")
    port: Object = {"hostPort": int(match["host"]), "containerPort": int(match["container"])}
    port["protocol"] = (match["protocol"] or "tcp").upper()
    if match["ip"] and match["ip"] != EVERY_ADDRESS:
        port["hostIP"] = match["ip"]
    return port


def spoken_port(port: HostPort) -> str:
    address, protocol, number = port
    return f"{'' if address == EVERY_ADDRESS else address + ':'}{number}/{protocol.lower()}"
