"""Runs the few programs that set up a node's network: nft, iptables, ip, CNI plug-ins.

Called by `cni` and `purge`. Invariant: no program outlives its deadline, and a missing one is an answer, not an
accident.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agent.runtime.errors import Timeout

_COMMAND_SECONDS = 20.0
_MISSING = 127
_PACKAGES = {"nft": "nftables", "ip": "iproute2", "iptables": "iptables", "ip6tables": "iptables"}


@dataclass(frozen=True)
class Outcome:
    """`code` 127: the program is not installed."""

    code: int
    output: str
    complaint: str


async def run_program(
    program: str, arguments: Sequence[str], data: str = "", environment: Mapping[str, str] | None = None
) -> Outcome:
    """Run a program (found on PATH and in sbin) in this network namespace and wait; Timeout after 20 s."""
    binary = shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if binary is None:
        package = f" (package {_PACKAGES[program]})" if program in _PACKAGES else ""
        return Outcome(_MISSING, "", f"{program} is not installed{package}")
    process = await asyncio.create_subprocess_exec(
        *(binary, *arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **(environment or {})},
    )
    try:
        async with asyncio.timeout(_COMMAND_SECONDS):
            output, complaint = await process.communicate(data.encode())
    except TimeoutError:
        process.kill()
        await process.wait()
        raise Timeout(f"{program} took longer than {_COMMAND_SECONDS:g}s") from None
    return Outcome(process.returncode or 0, output.decode(errors="replace"), complaint.decode(errors="replace").strip())
