"""Files that change all at once: a directory whose visible names point through one symlink, `..data`.

    DIR/key -> ..data/key      DIR/..data -> ..2026_01_02_03_04_05.123456      DIR/..2026_.../key

A new version is written beside the old one and takes its place by renaming the symlink; a reader sees either all old or
all new files. Layout and names are the kubelet's AtomicWriter, which programs in the field rely on. Blocking.
"""

from __future__ import annotations

import os
import shutil
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from agent.volumes.payload import File, Payload, VolumeFault

_CURRENT, _NEXT = "..data", "..data_tmp"


def write_payload(directory: Path, payload: Payload, group: int | None = None) -> bool:
    """Makes the directory show exactly `payload`; with `group` the files belong to it. Returns False if it did already.

    Raises VolumeFault for a path that leads out of the directory, OSError for the disk's troubles.
    """
    for path in payload:
        _check(path)
    if _is_current(directory, payload):
        return False
    version = datetime.now(UTC).strftime("..%Y_%m_%d_%H_%M_%S.%f")
    fresh = directory / version
    fresh.mkdir(mode=0o755)
    fresh.chmod(0o755)
    for path, file in payload.items():
        _write(fresh, path, file)
    if group is not None:
        give_to_group(fresh, group, readonly=True)
    old = os.readlink(directory / _CURRENT) if (directory / _CURRENT).is_symlink() else ""
    (directory / _NEXT).unlink(missing_ok=True)
    os.symlink(version, directory / _NEXT)
    os.rename(directory / _NEXT, directory / _CURRENT)
    _show(directory, {PurePosixPath(path).parts[0] for path in payload})
    if old:
        shutil.rmtree(directory / old, ignore_errors=True)
    return True


def give_to_group(root: Path, group: int, *, readonly: bool = False) -> None:
    """fsGroup: all below `root` belongs to the group, which may read (and write) it; new files inherit the group."""
    bits = 0o440 if readonly else 0o660
    for place, _, files in os.walk(root):
        os.chown(place, -1, group)
        os.chmod(place, os.stat(place).st_mode & 0o7777 | bits | 0o2110)
        for name in files:
            path = os.path.join(place, name)
            if not os.path.islink(path):
                os.chown(path, -1, group)
                os.chmod(path, os.stat(path).st_mode & 0o7777 | bits)


def _check(path: str) -> None:
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts or parts[0].startswith(".."):
        raise VolumeFault(f"invalid path: {path!r} must be relative and stay inside the volume")


def _is_current(directory: Path, payload: Payload) -> bool:
    current = directory / _CURRENT
    if not current.is_symlink():
        return False
    shown = {str(path.relative_to(current)) for path in current.rglob("*") if path.is_file()}
    if shown != set(payload):
        return False
    return all((current / path).read_bytes() == file.data for path, file in payload.items())


def _write(fresh: Path, path: str, file: File) -> None:
    target = fresh / path
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
    target.write_bytes(file.data)
    target.chmod(file.mode)


def _show(directory: Path, names: set[str]) -> None:
    for entry in os.scandir(directory):
        if entry.is_symlink() and entry.name not in names and not entry.name.startswith(".."):
            os.unlink(entry.path)
    for name in names:
        if not (directory / name).is_symlink():
            os.symlink(f"{_CURRENT}/{name}", directory / name)
