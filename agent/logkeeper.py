"""Keeps container logs small: rotates big ones, and forgets those of gone pods when the budget is used up.

Called by main as a task. Rotated files keep their text (`0.log.20260102-030405`), the newest few of a container stay.
Logs of pods that are gone stay, oldest thrown away first, until all logs together fit the budget.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import structlog

from agent.paths import Paths
from agent.runtime.errors import RuntimeFault
from agent.runtime.protocol import Runtime

ROTATE_CHECK_SECONDS = 10.0
BUDGET_CHECK_SECONDS = 60.0
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


class LogKeeper:
    """`live` lists the running containers' logs, `present` the log directories of the node's pods."""

    def __init__(self, paths: Paths, runtime: Runtime, limits: LogLimits) -> None:
        self._paths = paths
        self._runtime = runtime
        self._limits = limits

    async def rotate(self, live: Callable[[], Iterable[LiveLog]]) -> None:
        """Rotates until cancelled."""
        while True:
            await asyncio.sleep(ROTATE_CHECK_SECONDS)
            for log in list(live()):
                if _size(log.file) > self._limits.file_bytes:
                    await self._rotate_one(log)

    async def keep_budget(self, present: Callable[[], set[Path]]) -> None:
        """Throws old logs away until cancelled."""
        while True:
            await asyncio.sleep(BUDGET_CHECK_SECONDS)
            gone = await asyncio.to_thread(forget_oldest, self._paths.logs, present(), self._limits.budget_bytes)
            if gone:
                _log.info("logs of gone pods forgotten", pods=gone)

    async def _rotate_one(self, log: LiveLog) -> None:
        stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
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
        for old in sorted(log.file.parent.glob(log.file.name + ".*"))[: -(self._limits.files - 1)]:
            old.unlink(missing_ok=True)


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


def _tree_size(directory: Path) -> int:
    return sum(_size(file) for file in directory.rglob("*.log*"))


def _touched(directory: Path) -> float:
    times = [file.stat().st_mtime for file in directory.rglob("*.log*")]
    return max(times, default=0.0)
