"""Files that change all at once: a directory whose visible names point through one symlink, `..data`.

    DIR/key -> ..data/key      DIR/..data -> ..2026_01_02_03_04_05.123456      DIR/..2026_.../key

A new version is written beside the old one and takes its place by renaming the symlink; a reader sees either all old or
all new files. Layout and names are the kubelet's AtomicWriter, which programs in the field rely on. Blocking.

Invariant: nothing outside the directory is read, written or removed, whatever somebody put there: every path is walked
from the directory's descriptor without following a symlink, and what is removed has a version's name.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from agent.volumes.payload import File, Payload, VolumeFault
from agent.volumes.syscalls import open_beneath

_CURRENT, _NEXT = "..data", "..data_tmp"
_VERSION = re.compile(r"\.\.\d{4}(_\d\d){5}\.\d+")
_DIRECTORY_MODE = 0o755


def write_payload(directory: Path, payload: Payload, group: int | None = None) -> bool:
    """Makes the directory show exactly `payload`; with `group` the files belong to it. Returns False if it did already.

    Raises VolumeFault for a path that leads out of the directory, OSError for the disk's troubles.
    """
    for path in payload:
        _check(path)
    root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return _write_payload(root, payload, group)
    finally:
        os.close(root)


def _write_payload(root: int, payload: Payload, group: int | None) -> bool:
    old = _version(root)
    if old and _shows(root, old, payload):
        return False
    fresh = datetime.now(UTC).strftime("..%Y_%m_%d_%H_%M_%S.%f")
    os.mkdir(fresh, dir_fd=root)
    try:
        _write_version(root, fresh, payload, group)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(_NEXT, dir_fd=root)
        os.symlink(fresh, _NEXT, dir_fd=root)
        os.rename(_NEXT, _CURRENT, src_dir_fd=root, dst_dir_fd=root)
    except OSError:
        _remove(root, fresh)  # a full disk is not filled further by each try
        raise
    _show(root, {PurePosixPath(path).parts[0] for path in payload})
    if old:
        _remove(root, old)
    return True


def give_to_group(root: int, group: int, *, readonly: bool = False) -> None:
    """fsGroup: all below an open directory is the group's, which may read (and write) it; new files inherit it."""
    bits = 0o440 if readonly else 0o660
    for _, _, files, place in os.fwalk(".", dir_fd=root):
        os.fchown(place, -1, group)
        os.fchmod(place, stat.S_IMODE(os.fstat(place).st_mode) | bits | 0o2110)
        for name in files:
            with _opened(place, name) as file:
                if file is not None:
                    os.fchown(file, -1, group)
                    os.fchmod(file, stat.S_IMODE(os.fstat(file).st_mode) | bits)


@contextlib.contextmanager
def _opened(directory: int, name: str) -> Iterator[int | None]:
    """A regular file of a directory, open for as long as it is needed; None for anything else of that name."""
    try:
        file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    except OSError:
        yield None
        return
    try:
        yield file if stat.S_ISREG(os.fstat(file).st_mode) else None
    finally:
        os.close(file)


def _check(path: str) -> None:
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts or parts[0].startswith(".."):
        raise VolumeFault(f"invalid path: {path!r} must be relative and stay inside the volume")


def _version(root: int) -> str:
    """The version that is shown; "" when there is none, or what is there was not made here."""
    try:
        name = os.readlink(_CURRENT, dir_fd=root)
    except OSError:
        return ""
    return name if _VERSION.fullmatch(name) else ""


def _shows(root: int, version: str, payload: Payload) -> bool:
    try:
        top = open_beneath(root, version, os.O_RDONLY | os.O_DIRECTORY, symlinks=False)
    except OSError:
        return False
    try:
        walk = os.fwalk(".", dir_fd=top)
        shown = {os.path.normpath(os.path.join(place, name)) for place, _, names, _ in walk for name in names}
        return shown == set(payload) and all(_content(top, path) == file.data for path, file in payload.items())
    finally:
        os.close(top)


def _content(top: int, path: str) -> bytes | None:
    try:
        descriptor = open_beneath(top, path, os.O_RDONLY | os.O_NONBLOCK, symlinks=False)
    except OSError:
        return None
    with os.fdopen(descriptor, "rb") as opened:
        return opened.read()


def _write_version(root: int, version: str, payload: Payload, group: int | None) -> None:
    top = open_beneath(root, version, os.O_RDONLY | os.O_DIRECTORY, symlinks=False)
    try:
        os.fchmod(top, _DIRECTORY_MODE)
        for path, file in payload.items():
            _write(top, path, file)
        if group is not None:
            give_to_group(top, group, readonly=True)
    finally:
        os.close(top)


def _write(top: int, path: str, file: File) -> None:
    *parents, name = PurePosixPath(path).parts
    place = os.dup(top)
    try:
        for part in parents:
            with contextlib.suppress(FileExistsError):
                os.mkdir(part, _DIRECTORY_MODE, dir_fd=place)
            child = open_beneath(place, part, os.O_RDONLY | os.O_DIRECTORY, symlinks=False)
            os.close(place)
            place = child
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(name, flags, 0o600, dir_fd=place), "wb") as opened:
            opened.write(file.data)
            os.fchmod(opened.fileno(), file.mode)
    finally:
        os.close(place)


def _show(root: int, names: set[str]) -> None:
    links = {entry.name for entry in os.scandir(root) if entry.is_symlink()}
    for name in links - names:
        if not name.startswith(".."):
            os.unlink(name, dir_fd=root)
    for name in names - links:
        os.symlink(f"{_CURRENT}/{name}", name, dir_fd=root)


def _remove(root: int, version: str) -> None:
    """rmtree walks by descriptors and refuses a symlink, so what somebody put there in its stead stays."""
    shutil.rmtree(version, ignore_errors=True, dir_fd=root)
