"""Room on the private etcd's disk that others cannot fill, so that etcd outlives a disk without a free byte.

Half of it is allocated to etcd's database file itself, beyond what etcd uses: nobody else can take that. The other half
is a ballast file, given up a stage at a time: to the database when it has used half of its own, and when etcd has to
start on a full disk (its write-ahead log wants a new piece). `shortage` says why nothing may be added meanwhile: set
while the disk has less free room than a stage or the reserve is not whole, and over as soon as there is room again.
Run by server.py beside etcd; read by maintenance.py, and through the store by admission. Knows etcd's files, not etcd.
Numbers: fallocate(2) with FALLOC_FL_KEEP_SIZE; bbolt grows its file by 16 MiB at once and never shrinks it.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import os
from dataclasses import dataclass
from pathlib import Path

import structlog

from controller.store import metrics

MOST_BYTES = 256 << 20
LEAST_DISK_BYTES = 64 << 20
LOOK_SECONDS = 0.25
_SHARE = 20
_STAGES = 4
_BLOCK_BYTES = 4096
_FALLOC_FL_KEEP_SIZE = 1
_NO_FALLOCATE = (errno.EOPNOTSUPP, errno.ENOSYS)

_log = structlog.get_logger()
_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


def reserve_bytes(disk_bytes: int) -> int:
    """What is kept on a disk of this size: 5 %, 256 MiB at most, nothing where that would help nobody."""
    if disk_bytes < LEAST_DISK_BYTES:
        return 0
    return min(disk_bytes // _SHARE, MOST_BYTES) // (_STAGES * _BLOCK_BYTES) * (_STAGES * _BLOCK_BYTES)


@dataclass(frozen=True)
class Seen:
    """What a look found, in bytes. `lacking`: what the database file has too little allocated; `short`: the answer of
    the look before."""

    free: int
    ballast: int
    lacking: int
    short: bool


@dataclass(frozen=True)
class Decision:
    """`ballast`: the size it shall have; `extension`: what the database file shall get."""

    ballast: int
    extension: int
    short: bool


def decide(seen: Seen, ballast_due: int, stage: int) -> Decision:
    """Gives up a stage only for a database that has used half of its own; makes the reserve whole when that leaves a
    stage free, and takes additions again when half a stage more is free, so that it does not flutter."""
    ballast, room = seen.ballast, seen.free
    if seen.lacking > max(stage, room) and ballast:
        ballast, room = max(0, ballast - stage), room + min(stage, ballast)
    extension = min(seen.lacking, room)
    room -= extension
    missing = ballast_due - ballast
    if ballast == seen.ballast and 0 < missing <= room - stage:
        ballast, room, missing = ballast_due, room - missing, 0
    wanted = stage + stage // 2 if seen.short else stage
    return Decision(ballast, extension, missing > 0 or extension < seen.lacking or room < wanted)


class Reserve:
    """The reserve beside etcd's data below `directory`. `run()` keeps it; `shortage` is "" while there is room."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._ballast = directory / "ballast"
        self._database = directory / "data" / "member" / "snap" / "db"
        self._allocates = True
        """Whether the file system can allocate to a file beyond its end; else the ballast is all there is."""
        self._told = ""
        self.shortage = ""

    def prepare(self) -> None:
        """Makes the reserve before etcd starts, as far as there is room; on a full disk gives up a stage of it, which
        etcd may need to start. Blocks. Raises OSError."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        disk, free = self._disk()
        whole = reserve_bytes(disk)
        if not whole:
            self._tell(f"no reserve is kept for etcd: the disk of {self._directory} has less than 64 MiB")
        stage = whole // _STAGES
        held = self._held()
        if held and free < stage:
            self._resize(max(0, held - stage))
            _log.warning(
                "the disk is full; a part of the ballast makes room for etcd to start", left_bytes=self._held()
            )
        else:
            self.look()

    async def run(self) -> None:
        """Looks often, until cancelled."""
        while True:
            try:
                await asyncio.to_thread(self.look)
            except OSError as error:
                self._tell(f"the reserve for etcd cannot be kept: {error}")
            await asyncio.sleep(LOOK_SECONDS)

    def look(self) -> None:
        """Looks once and acts on it. Blocks. Raises OSError."""
        disk, free = self._disk()
        whole = reserve_bytes(disk)
        metrics.disk_free_bytes.set(free)
        if not whole:
            return
        share = whole // 2 if self._allocates else 0
        seen = Seen(free, self._held(), self._lacking(share), bool(self.shortage))
        decision = decide(seen, whole - share, whole // _STAGES)
        if decision.ballast < seen.ballast:
            _log.warning("a part of the ballast goes to etcd's database", left_bytes=decision.ballast)
            self._resize(decision.ballast)
        if decision.extension:
            self._extend(share, seen.lacking - decision.extension)
        if decision.ballast > seen.ballast:
            self._resize(decision.ballast)
        metrics.reserve_bytes.set(self._held() + share - self._lacking(share))
        metrics.reserve_touched.set(decision.short)
        self._note(decision.short, free, disk)

    def has_room_for(self, size_bytes: int) -> bool:
        """Whether a file of this size may be written without touching what is kept. Raises OSError."""
        disk, free = self._disk()
        return not self.shortage and free >= size_bytes + reserve_bytes(disk) // _STAGES

    def _note(self, short: bool, free: int, disk: int) -> None:
        if short:
            was, self.shortage = self.shortage, _sentence(self._directory, free, disk)
            if not was:
                _log.error(
                    "the disk of etcd is full; nothing is added", free_bytes=free, directory=str(self._directory)
                )
        elif self.shortage:
            self.shortage = ""
            _log.info("the disk of etcd has room again", free_bytes=free, directory=str(self._directory))

    def _tell(self, sentence: str) -> None:
        if sentence != self._told:
            self._told = sentence
            _log.warning(sentence)

    def _disk(self) -> tuple[int, int]:
        """(size, free) in bytes, as this user may use it."""
        status = os.statvfs(self._directory)
        free = status.f_bavail if os.geteuid() else status.f_bfree
        return status.f_blocks * status.f_frsize, free * status.f_frsize

    def _held(self) -> int:
        """The ballast's size, as far as it is allocated."""
        try:
            status = self._ballast.stat()
        except FileNotFoundError:
            return 0
        return min(status.st_size, status.st_blocks * 512)

    def _resize(self, size: int) -> None:
        """A disk that is full after all leaves a smaller one: the next look sees it."""
        descriptor = os.open(self._ballast, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.truncate(descriptor, min(size, os.fstat(descriptor).st_size))
            if size:
                os.posix_fallocate(descriptor, 0, size)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
        finally:
            os.close(descriptor)

    def _lacking(self, share: int) -> int:
        """How much less than its size and its share is allocated to the database file."""
        try:
            status = self._database.stat()
        except FileNotFoundError:
            return 0
        return max(0, status.st_size + share - status.st_blocks * 512) if share else 0

    def _extend(self, share: int, short_of: int) -> None:
        """Allocates to the database file what it lacks, but for the last `short_of` bytes."""
        try:
            descriptor = os.open(self._database, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        try:
            length = os.fstat(descriptor).st_size + share - short_of
            if length > 0 and _libc.fallocate(descriptor, _FALLOC_FL_KEEP_SIZE, 0, length):
                number = ctypes.get_errno()
                if number in _NO_FALLOCATE:
                    self._allocates = False
                elif number != errno.ENOSPC:
                    raise OSError(number, os.strerror(number), str(self._database))
        finally:
            os.close(descriptor)


def _sentence(directory: Path, free: int, disk: int) -> str:
    return (
        f"the disk of the control plane is full ({directory}: {free >> 20} of {disk >> 20} MiB are free), "
        "and the rest is kept for deletions and status; free space on it or enlarge it, then try again"
    )
