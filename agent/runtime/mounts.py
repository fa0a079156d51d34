"""The kernel's mount calls that Python lacks: what is mounted where, taking it away, trying overlayfs.

Called by `containerd` (which snapshotter works here?), `teardown` and the volumes. Imports only the standard library.
mount(2), umount2(2), proc_pid_mountinfo(5).
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

_MNT_DETACH = 2
_libc = ctypes.CDLL(None, use_errno=True)


def mounts_under(prefix: Path) -> list[Path]:
    """Mount points at or below a path, innermost first: the order in which they can be taken away."""
    wanted = str(prefix)
    points = [point for point, _ in _mounts()]
    inside = [point for point in points if point == wanted or point.startswith(wanted + "/")]
    return [Path(point) for point in reversed(inside)]


def mounted_kinds() -> dict[str, str]:
    """What is mounted now: mount point -> kind of file system (of the topmost, if several lie on each other)."""
    return dict(_mounts())


def _mounts() -> Iterator[tuple[str, str]]:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        place, _, kind = line.partition(" - ")
        yield _unescaped(place.split(" ", 5)[4]), kind.split(" ", 1)[0]


def unmount_under(prefix: Path) -> None:
    """Take away all that is mounted at or below a path, also what is still in use."""
    for point in mounts_under(prefix):
        _libc.umount2(os.fsencode(point), _MNT_DETACH)


def overlay_works(directory: Path) -> bool:
    """Whether overlayfs can have its layers in this directory (not on top of another overlay, say). Needs root."""
    probe = Path(tempfile.mkdtemp(prefix="overlay-probe-", dir=directory))
    try:
        for name in ("lower", "upper", "work", "merged"):
            (probe / name).mkdir()
        options = f"lowerdir={probe}/lower,upperdir={probe}/upper,workdir={probe}/work"
        merged = os.fsencode(probe / "merged")
        if _libc.mount(b"overlay", merged, b"overlay", 0, os.fsencode(options)) != 0:
            return False
        _libc.umount2(merged, _MNT_DETACH)
        return True
    finally:
        shutil.rmtree(probe, ignore_errors=True)


def _unescaped(field: str) -> str:
    """mountinfo writes blanks and backslashes in octal."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), field)
