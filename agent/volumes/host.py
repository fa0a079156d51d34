"""hostPath volumes: what has to be there, and what is made. Blocking.

Rules and wording: kubernetes.io/docs/concepts/storage/volumes#hostpath and the kubelet's host_path plugin.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable
from pathlib import Path

from agent.volumes.payload import VolumeFault

_CHECKS: dict[str, tuple[Callable[[int], bool], str]] = {
    "Directory": (stat.S_ISDIR, "directory"),
    "File": (stat.S_ISREG, "file"),
    "Socket": (stat.S_ISSOCK, "socket file"),
    "CharDevice": (stat.S_ISCHR, "character device"),
    "BlockDevice": (stat.S_ISBLK, "block device"),
}


def prepare_host_path(path: Path, kind: str) -> None:
    """Creates what `type` asks for and checks what is there. Raises VolumeFault, OSError."""
    if kind == "DirectoryOrCreate" and not path.exists():
        path.mkdir(parents=True, exist_ok=True, mode=0o755)
    elif kind == "FileOrCreate" and not path.exists():
        if not path.parent.is_dir():
            raise VolumeFault(f"open {path}: no such file or directory")
        # Another pod may write here: a symlink that it puts in the way is not followed.
        with contextlib.suppress(FileExistsError):
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644))
    wanted = kind.removesuffix("OrCreate")
    if not wanted:
        return
    if wanted not in _CHECKS:
        raise VolumeFault(f"{kind} is an invalid volume type")
    matches, title = _CHECKS[wanted]
    if not path.exists() or not matches(path.stat().st_mode):
        raise VolumeFault(f"hostPath type check failed: {path} is not a {title}")
