"""Directories that only root and its group may enter: all that the agent keeps for its pods is below such ones.

Called by whoever makes a part of the data directory. Blocking; imports the standard library. Modes are the kubelet's.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

PRIVATE_MODE, OWN_MODE = 0o750, 0o700


def make_private(directory: Path) -> None:
    """Makes a directory, and what is missing above it, closed to other users. One that is there stays as it is."""
    if directory.is_dir():
        return
    make_private(directory.parent)
    with contextlib.suppress(FileExistsError):
        directory.mkdir(mode=PRIVATE_MODE)


def close_data_directory(root: Path, pods: Path, logs: Path) -> None:
    """Closes an agent's data directory to other users: what pods may keep there is no one else's to read.

    A directory that was there and has other things in it, too, may be everybody's (--data-dir /srv): it keeps its mode,
    and only ours in it are closed. Raises OSError.
    """
    ours = not root.exists() or pods.is_dir() or (root / "pki").is_dir() or not any(root.iterdir())
    if ours:
        close_to_others(root, OWN_MODE)
    close_to_others(pods)
    close_to_others(logs)


def close_to_others(directory: Path, mode: int = PRIVATE_MODE) -> None:
    """Makes a directory or takes the rights of other users on it away."""
    make_private(directory)
    if directory.stat().st_mode & 0o7777 != mode:
        directory.chmod(mode)
