"""Our standard output, whose reader may go away at any time (`wherry logs -f POD | head`). Standard library only.

Called by main before anything is printed, and by the terminal's raw writes. Invariant: a closed pipe is an OutputClosed
wherever it is met, never an OSError that looks like trouble with the server.
"""

from __future__ import annotations

import io
import os
import sys
from typing import Any

from cli.problems import OutputClosed


class _Pipe(io.FileIO):
    def write(self, data: Any) -> int:
        try:
            return super().write(data) or 0
        except BrokenPipeError:
            raise OutputClosed from None


def watch_for_closed_output() -> None:
    """Makes every write to stdout raise OutputClosed when its reader is gone."""
    interactive = sys.stdout.isatty()
    pipe = io.BufferedWriter(_Pipe(sys.stdout.fileno(), "w", closefd=False))
    sys.stdout = io.TextIOWrapper(pipe, encoding=sys.stdout.encoding, errors="replace", line_buffering=interactive)


def write_raw(descriptor: int, data: bytes | memoryview) -> None:
    """All of it, past every buffer. Raises OutputClosed."""
    rest = memoryview(data)
    try:
        while rest:
            rest = rest[os.write(descriptor, rest) :]
    except BrokenPipeError:
        raise OutputClosed from None


def discard_output() -> None:
    """What is still buffered goes nowhere, so that the end of the process says nothing."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)
