"""A container's last words: the termination message file, or the end of its log; and what is said when the next starts.

Called when a container ended (read) and before it is created (write). Rules:
kubernetes.io/docs/tasks/debug/debug-application/determine-reason-pod-failure. Blocking, small files only.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agent.logs import last_lines
from agent.runtime.protocol import ContainerStatus
from agent.volumes.places import make_private

MOST_BYTES = 4096
MOST_LOG_BYTES = 2048
MOST_LOG_LINES = 80


def write_termination_file(file: Path) -> None:
    """An empty file that a container of any user may write."""
    make_private(file.parent)
    file.touch()
    file.chmod(0o666)


def last_words(container: Mapping[str, Any], file: Path, log: Path, exit_code: int) -> str:
    """The message of a terminated state; "" if it left none."""
    text = _head(file)
    if text or exit_code == 0 or container.get("terminationMessagePolicy") != "FallbackToLogsOnError":
        return text
    return last_lines(log, MOST_LOG_LINES, MOST_LOG_BYTES).decode("utf-8", "replace")


def started_words(before: ContainerStatus | None) -> str:
    """The message of a Started event; Kubernetes says the same each time, here it says why it was started again."""
    if before is None or before.state != "exited":
        return "Container started"
    number = before.exit_code - 128
    killed = f", {signal.Signals(number).name}" if number in signal.valid_signals() else ""
    return f"Container started again: the one before ended with exit code {before.exit_code}{killed} ({before.reason})"


def _head(file: Path) -> str:
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return ""
    with os.fdopen(descriptor, "rb") as opened:
        return opened.read(MOST_BYTES).decode("utf-8", "replace")
