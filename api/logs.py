"""What controller and agent write to their logs: one JSON object a line, on stderr.

Called once by each process's main. An error shows its frames but never their variables, which may be secrets.
Invariant: a log that cannot be written (its disk is full) loses lines and ends nobody.
"""

from __future__ import annotations

import contextlib
import io
import logging
import sys
from typing import TYPE_CHECKING, TextIO

import structlog

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class LossyFile(io.FileIO):
    """A file whose writer never hears of a failed write."""

    def write(self, data: ReadableBuffer, /) -> int:
        """Everything, or as much as the disk takes."""
        rest = memoryview(data)
        with contextlib.suppress(OSError):
            while rest:
                rest = rest[super().write(rest) or 0 :]
        return memoryview(data).nbytes


def lossy(descriptor: int) -> TextIO:
    return io.TextIOWrapper(LossyFile(descriptor, "wb", closefd=False), "utf-8", "backslashreplace", write_through=True)


def configure_logs() -> None:
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(lossy(sys.stderr.fileno())),
    )
