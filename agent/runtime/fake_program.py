"""The few words of shell that the fake runtime's containers understand.

Called by `fake` only. Pure: a command line goes in, what it would do comes out. Knows sleep, exit, true, false, echo,
`trap "exit N" TERM`, and cat, nc, httpd and sh as programs that run until they are killed.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace

from agent.runtime.errors import Failed

_BINARIES = frozenset({"sh", "/bin/sh", "sleep", "true", "false", "echo", "cat", "httpd", "nc", "trap", "exit"})


@dataclass(frozen=True)
class Program:
    """What a command line does: runs so long (None: until killed), then exits so; SIGTERM ends it or is ignored."""

    seconds: float | None = None
    exit_code: int = 0
    stdout: bytes = b""
    term_code: int | None = None


def read_program(argv: Sequence[str]) -> Program:
    """Raises Failed for a binary that does not exist."""
    words = list(argv)
    if words[:2] in (["sh", "-c"], ["/bin/sh", "-c"]) and len(words) > 2:
        return _read_script(words[2])
    if not words or words[0] not in _BINARIES:
        name = words[0] if words else ""
        raise Failed(f'exec: "{name}": executable file not found in $PATH')
    return _read_script(" ".join(words))


def _read_script(script: str) -> Program:
    program = Program(seconds=0.0)
    for part in (piece.strip() for piece in re.split(r"[;&]+", script)):
        program = _with_command(program, shlex.split(part))
    return program


def _with_command(program: Program, words: list[str]) -> Program:
    match words:
        case ["exec", *rest]:
            return _with_command(program, rest)
        case ["sleep", seconds]:
            return replace(program, seconds=(program.seconds or 0.0) + float(seconds))
        case ["exit", code]:
            return replace(program, exit_code=int(code))
        case ["false"]:
            return replace(program, exit_code=1)
        case ["trap", action, "TERM"]:
            return replace(program, term_code=int(action.removeprefix("exit") or 0))
        case ["echo", *rest]:
            return replace(program, stdout=program.stdout + " ".join(rest).encode() + b"\n")
        case ["cat" | "httpd" | "nc" | "sh" | "/bin/sh", *_]:
            return replace(program, seconds=None)
        case _:
            return program
