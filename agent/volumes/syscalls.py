"""The mount calls that volumes need: tmpfs, bind mounts, and opening a path that cannot leave its root.

Called by the volumes room only. Imports the standard library. All are blocking and quick; errors are OSError.
mount(2), umount2(2), openat2(2).
"""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path
from typing import NoReturn

_MS_NOSUID, _MS_NODEV, _MS_BIND, _MS_REC = 2, 4, 4096, 16384
_MNT_DETACH = 2
_SYS_OPENAT2 = 437
_RESOLVE_BENEATH, _RESOLVE_NO_SYMLINKS, _RESOLVE_NO_MAGICLINKS = 0x08, 0x04, 0x02
_TRIES = 128

_libc = ctypes.CDLL(None, use_errno=True)


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def mount_tmpfs(target: Path, *, mode: int, size_bytes: int = 0) -> None:
    """A tmpfs whose root has `mode` from the start, at most `size_bytes` big (0: half the memory).

    Its pages are never swapped out to a disk, where the kernel knows how to (6.4).
    """
    options = f"mode={mode:o}" + (f",size={size_bytes}" if size_bytes else "")
    try:
        _mount("tmpfs", target, "tmpfs", 0, f"{options},noswap")
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        _mount("tmpfs", target, "tmpfs", 0, options)


def bind(source_descriptor: int, target: Path) -> None:
    """Makes what an open descriptor stands for (also a file) appear at `target`, which must exist and be alike."""
    _mount(f"/proc/self/fd/{source_descriptor}", target, "", _MS_BIND | _MS_REC, "")


def unmount(target: Path) -> None:
    """Takes a mount away, at once from sight and for good when nobody uses it any more."""
    if _libc.umount2(os.fsencode(target), _MNT_DETACH) != 0:
        _raise(target)


def open_beneath(root: int, path: str, flags: int = os.O_PATH, *, symlinks: bool = True) -> int:
    """Opens `path` below the directory descriptor `root`; a symlink or `..` that leads out of it is an OSError.

    With `symlinks` False every symlink on the way is one, too. The kernel judges while it walks, so nobody can swap a
    part of the path after it was looked at; when somebody tries, it says EAGAIN, and the walk begins anew.
    """
    resolve = _RESOLVE_BENEATH | _RESOLVE_NO_MAGICLINKS | (0 if symlinks else _RESOLVE_NO_SYMLINKS)
    how = _OpenHow(flags | os.O_CLOEXEC, 0, resolve)
    for _ in range(_TRIES):
        found: int = _libc.syscall(_SYS_OPENAT2, root, os.fsencode(path), ctypes.byref(how), ctypes.sizeof(how))
        if found >= 0:
            return found
        if ctypes.get_errno() != errno.EAGAIN:
            break
    return _raise(path)


def _mount(source: str, target: Path, kind: str, flags: int, options: str) -> None:
    given = os.fsencode(source), os.fsencode(target), kind.encode() or None, flags, options.encode() or None
    if _libc.mount(*given) != 0:
        _raise(target)


def _raise(path: Path | str) -> NoReturn:
    number = ctypes.get_errno()
    raise OSError(number, os.strerror(number), str(path))
