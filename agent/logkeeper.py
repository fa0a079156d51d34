"""Keeps container logs small: rotates big ones, packs old ones, and forgets those of gone pods over the budget.

Called by main as a task. A container has `file_bytes` * `files` (the kubelet's 10 MiB x 5), however quickly it writes:
a log is looked at again when, at the rate at which it grew, it could be full. Of the rotated files
(`0.log.20260102-030405.123456`) the newest stays as it is, for who is reading it; older ones are packed (`.gz`). Logs
of pods that are gone stay within the same bounds, oldest thrown away first, until all logs together fit the budget.
"""

from __future__ import annotations

import asyncio
import gzip
import os
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import structlog

from agent.logs import PACKED, rotated_files
from agent.paths import Paths
from agent.runtime.errors import RuntimeFault
from agent.runtime.protocol import Runtime

CALM_SECONDS = 0.5
"""How long a log that hardly grew is not looked at."""
HASTY_SECONDS = 0.05
BUDGET_CHECK_SECONDS = 60.0
_PIECE = 256 * 1024
_log = structlog.get_logger()


@dataclass(frozen=True)
class LogLimits:
    """`file_bytes` and `files` are a container's (the kubelet's 10 MiB and 5); `budget_bytes` is for all logs."""

    file_bytes: int = 10 << 20
    files: int = 5
    budget_bytes: int = 1 << 30


@dataclass(frozen=True)
class LiveLog:
    """The log file of a running container."""

    container_id: str
    file: Path


@dataclass(frozen=True)
class _Look:
    """What was seen of a log: its size, when, and when to look again."""

    size: int
    at: float
    again_at: float


class LogKeeper:
    """`live` lists the running containers' logs, `present` the log directories of the node's pods."""

    def __init__(self, paths: Paths, runtime: Runtime, limits: LogLimits) -> None:
        self._paths = paths
        self._runtime = runtime
        self._limits = limits
        self._seen: dict[str, _Look] = {}

    async def rotate(self, live: Callable[[], Iterable[LiveLog]]) -> None:
        """Rotates until cancelled."""
        logs: list[LiveLog] = []
        listed_at = 0.0
        while True:
            now = time.monotonic()
            if now - listed_at >= CALM_SECONDS:
                logs, listed_at = list(live()), now
                self._seen = {log.container_id: self._seen[log.container_id] for log in logs if self._knows(log)}
            for log in logs:
                look = self._seen.get(log.container_id)
                if look is None or look.again_at <= now:
                    await self._look(log, look)
            times = [look.again_at for look in self._seen.values()]
            await asyncio.sleep(max(min([*times, listed_at + CALM_SECONDS]) - time.monotonic(), HASTY_SECONDS))

    def _knows(self, log: LiveLog) -> bool:
        return log.container_id in self._seen

    async def _look(self, log: LiveLog, before: _Look | None) -> None:
        size, now = _size(log.file), time.monotonic()
        rate = (size - before.size) / max(now - before.at, 0.001) if before else 0.0
        if size > self._limits.file_bytes:
            await self._rotate_one(log)
            await asyncio.to_thread(tidy, log.file, self._limits)
            size, now = 0, time.monotonic()
        self._seen[log.container_id] = _Look(size, now, now + next_look_seconds(size, rate, self._limits))

    async def keep_budget(self, present: Callable[[], set[Path]]) -> None:
        """Throws old logs away until cancelled."""
        while True:
            await asyncio.sleep(BUDGET_CHECK_SECONDS)
            await asyncio.to_thread(bound_ended, self._paths.logs, self._limits)
            gone = await asyncio.to_thread(forget_oldest, self._paths.logs, present(), self._limits.budget_bytes)
            if gone:
                _log.info("logs of gone pods forgotten", pods=gone)

    async def _rotate_one(self, log: LiveLog) -> None:
        stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S.%f")
        rotated = log.file.with_name(f"{log.file.name}.{stamp}")
        try:
            log.file.rename(rotated)
            await self._runtime.reopen_log(log.container_id)
        except OSError as error:
            _log.warning("log not rotated", file=str(log.file), error=str(error))
        except RuntimeFault as fault:
            if not log.file.exists():
                rotated.rename(log.file)
            _log.warning("log not rotated", file=str(log.file), error=fault.message)


def next_look_seconds(size: int, rate: float, limits: LogLimits) -> float:
    """When a log has to be looked at again: before it can be full, going on as it did (bytes a second). Pure."""
    if rate <= 0:
        return CALM_SECONDS
    return min(max((limits.file_bytes - size) / rate, HASTY_SECONDS), CALM_SECONDS)


def tidy(current: Path, limits: LogLimits) -> None:
    """Packs a log's rotated files but the newest, and deletes the oldest until the log keeps to its limits."""
    rotated = rotated_files(current)
    if rotated and _size(rotated[-1]) > limits.file_bytes * (limits.files - 1):
        _keep_end(rotated[-1], limits.file_bytes)
    kept = [*(_packed(file) for file in rotated[:-1]), *rotated[-1:]]
    room = limits.file_bytes * (limits.files - 1)
    while kept and (len(kept) >= limits.files or sum(map(_size, kept)) > room):
        kept.pop(0).unlink(missing_ok=True)


def _packed(file: Path) -> Path:
    """The file as .gz, made if it is none yet; as it is when that does not work (a full disk)."""
    if file.suffix == PACKED:
        return file
    made, partial = file.with_name(file.name + PACKED), file.with_name(f".{file.name}{PACKED}")
    try:
        with file.open("rb") as plain, gzip.open(partial, "wb", compresslevel=1) as packed:
            shutil.copyfileobj(plain, packed, _PIECE)
        shutil.copystat(file, partial)  # readers tell by the time what comes after what they read
        partial.rename(made)
        file.unlink()
    except OSError as error:
        partial.unlink(missing_ok=True)
        _log.warning("log not packed", file=str(file), error=str(error))
        return file
    return made


def _keep_end(file: Path, count: int) -> None:
    """What a burst wrote beyond all limits is lost but for its end, from a line's beginning."""
    partial = file.with_name(f".{file.name}")
    try:
        with file.open("rb") as whole, partial.open("wb") as kept:
            whole.seek(-count, os.SEEK_END)
            whole.readline()
            shutil.copyfileobj(whole, kept, _PIECE)
        partial.rename(file)
    except OSError as error:
        partial.unlink(missing_ok=True)
        file.unlink(missing_ok=True)
        _log.warning("log thrown away", file=str(file), error=str(error))


def bound_ended(logs: Path, limits: LogLimits) -> None:
    """The logs that nobody looks at any more, for their containers ended, in the midst of a burst perhaps."""
    quiet_since = time.time() - BUDGET_CHECK_SECONDS
    for current in logs.glob("*/*/*.log"):
        if _size(current) > 2 * limits.file_bytes and _written(current) < quiet_since:
            _keep_end(current, limits.file_bytes)
            tidy(current, limits)
    for directory in logs.glob("*/*"):
        attempts = sorted(directory.glob("*.log*"), key=_written)
        while attempts and sum(map(_size, attempts)) > 2 * limits.file_bytes * limits.files:
            attempts.pop(0).unlink(missing_ok=True)


def forget_oldest(logs: Path, present: set[Path], budget_bytes: int) -> int:
    """Deletes log directories of gone pods, the longest untouched first, until the rest fits; returns how many."""
    if not logs.is_dir():
        return 0
    sizes = {directory: _tree_size(directory) for directory in logs.iterdir() if directory.is_dir()}
    total = sum(sizes.values())
    gone = sorted(sizes.keys() - present, key=_touched)
    count = 0
    for directory in gone:
        if total <= budget_bytes:
            break
        shutil.rmtree(directory, ignore_errors=True)
        total -= sizes[directory]
        count += 1
    return count


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return 0


def _written(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except OSError:
        return 0.0


def _tree_size(directory: Path) -> int:
    return sum(_size(file) for file in directory.rglob("*.log*"))


def _touched(directory: Path) -> float:
    return max(map(_written, directory.rglob("*.log*")), default=0.0)
