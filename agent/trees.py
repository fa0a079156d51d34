"""Directory trees that others have filled, measured and removed whatever their depth.

Called for what pods wrote: volumes, layers, logs. Python walks by recursion, and a pod that nests a thousand
directories would end whoever walks there; du and rm, which every Debian has, walk without. Blocking. Invariant: no
symlink is followed, and no other file system is entered.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

BLOCK_BYTES = 512


def remove_tree(directory: Path) -> None:
    """Deletes a tree; what somebody else removes meanwhile is removed. Raises OSError."""
    try:
        shutil.rmtree(directory, onerror=_unless_gone)
    except RecursionError:
        _run("rm", "-rf", "--one-file-system", "--", str(directory))


def deep_use(directory: Path) -> int:
    """The bytes that a tree takes on its disk; a file with several names counts once."""
    done = subprocess.run(
        ["du", "-s", "-x", f"--block-size={BLOCK_BYTES}", "--", str(directory)],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip
    count = done.stdout.partition("\t")[0]
    return int(count) * BLOCK_BYTES if count.isdigit() else 0


def _run(*command: str) -> None:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"{command[0]} failed: {done.stderr.strip()}")


def _unless_gone(_call: Any, _path: Any, caught: Any) -> None:
    if not isinstance(caught[1], FileNotFoundError):
        raise caught[1]
