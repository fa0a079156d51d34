"""subPath: what a volumeMount names inside its volume, opened so that nobody who writes there can swap it.

Called by `volumes`, which binds the descriptor. Blocking. Invariant: whatever a container does in the volume meanwhile,
nothing outside of it is opened, made, or given another mode: each step is from an open directory to its child, and
modes are set on descriptors. The rules (existing parts may be symlinks inside the volume, missing ones are made with
the volume's mode) are the kubelet's, kubernetes.io/docs/concepts/storage/volumes#using-subpath.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from agent.pods.env import ConfigFault, expand, unset_in
from agent.volumes.syscalls import open_beneath

_FRESH_MODE = 0
"""The mode of a directory that was made here and not yet given its own: no one else's looks like that."""
_INHERITED = stat.S_ISGID
"""What the kernel adds to that below a directory with fsGroup."""
_GIVEN = 0o777 | stat.S_ISGID


def inner_path(mount: Mapping[str, Any], values: Mapping[str, str]) -> str:
    """The path inside the volume that a volumeMount asks for; "" is all of it. Raises ConfigFault."""
    inner: str = mount.get("subPath") or ""
    if expression := mount.get("subPathExpr"):
        if missing := unset_in(expression, values):
            raise ConfigFault(f"missing value for {', '.join(missing)}")
        inner = expand(expression, values)
    if inner.startswith("/"):
        raise ConfigFault(f"error SubPath `{inner}` must not be an absolute path")
    if ".." in PurePosixPath(inner).parts:
        raise ConfigFault(f"unable to provision SubPath `{inner}`: must not contain '..'")
    return inner


def open_inner(root: Path, inner: str) -> int:
    """A descriptor of `inner` inside the volume at `root`, for the caller to close. Raises OSError."""
    parts = PurePosixPath(inner).parts
    base = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        mode = os.stat(base).st_mode & _GIVEN
        opened, kept = _longest_existing(base, parts)
    finally:
        os.close(base)
    for part in parts[kept:]:
        try:
            child = _make_child(opened, part, mode)
        finally:
            os.close(opened)
        opened = child
    return opened


def _longest_existing(base: int, parts: Sequence[str]) -> tuple[int, int]:
    """As much of the path as is there: its descriptor, and how many parts that is."""
    for kept in range(len(parts), 0, -1):
        try:
            return open_beneath(base, "/".join(parts[:kept])), kept
        except FileNotFoundError:
            continue
    return os.dup(base), 0


def _make_child(parent: int, part: str, mode: int) -> int:
    with contextlib.suppress(FileExistsError):  # somebody made it since it was looked for
        os.mkdir(part, _FRESH_MODE, dir_fd=parent)
    child = open_beneath(parent, part, os.O_RDONLY | os.O_DIRECTORY, symlinks=False)
    found = os.fstat(child)
    if found.st_uid == os.geteuid() and stat.S_IMODE(found.st_mode) & ~_INHERITED == _FRESH_MODE:
        os.fchmod(child, mode)
    return child
