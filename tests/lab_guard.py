"""Takes a lab down when the test run that made it is over, however it ended: a killed run leaves nothing behind, too.

`guarded` starts this file as a process of its own, which waits for the end of its input. Used by tests/cluster.py.

usage: python -m tests.lab_guard DIRECTORY
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from deploy.lab import Lab

DOWN_SECONDS = 120.0


@contextlib.contextmanager
def guarded(directory: Path) -> Iterator[None]:
    """The lab in `directory` is down, and the directory gone, when the block has ended or this process has."""
    command = [sys.executable, "-m", "tests.lab_guard", str(directory)]
    guard = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    try:
        yield
    finally:
        guard.communicate(timeout=DOWN_SECONDS)


def main() -> None:
    directory = Path(sys.argv[1])
    sys.stdin.read()
    Lab(directory / "lab").down()
    shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
