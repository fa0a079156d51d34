"""What a DNS process is started with, and which code it runs: by both, an agent knows whether to keep a running one.

Imported by both sides; imports the standard library only.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True)
class Settings:
    """What a process is started with; one with other settings is replaced. Lists are joined by commas."""

    domain: str
    cidrs: tuple[str, ...]
    addresses: tuple[str, ...]
    resolv_conf: Path

    def arguments(self) -> list[str]:
        return [
            *("--domain", self.domain, "--cidrs", ",".join(self.cidrs)),
            *("--addresses", ",".join(self.addresses), "--resolv-conf", str(self.resolv_conf)),
        ]


@cache
def code_version() -> str:
    """Changes with any line of this package: an agent replaces a process that runs other code."""
    sources = sorted(Path(__file__).parent.glob("*.py"))
    return f"{zlib.crc32(b''.join(path.read_bytes() for path in sources)):08x}"
