"""Who works on a data directory: a lock for each part of wherry (supervisor, controller, agent).

Held as long as the part lives. Called by the mains of those parts, and by `wherry up`, `down` and `status`, which have
to find what an earlier one left behind. The lock is a flock on DATA/run/PART.lock, so it ends with its process however
that ends; the file tells the holder's pid and start time, which together name one process of this boot. Looking
takes no lock, so it never stands in the way of a part that starts. Imports the standard library only: the supervisor
lives as long as the cluster.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path

SUPERVISED_VARIABLE = "WHERRY_SUPERVISED"
"""Set for what the supervisor starts: `up` may adopt or replace it."""
_UNIT = re.compile(r"/(wherry-[^/]*\.service)(?:/|$)", re.MULTILINE)
_TEXT_BYTES = 256
_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Holder:
    """A living process that holds a part of a data directory. `started` is in clock ticks since the machine's boot."""

    part: str
    pid: int
    started: int
    supervised: bool = False

    @property
    def alive(self) -> bool:
        return start_time(self.pid) == self.started

    @property
    def argv(self) -> list[str]:
        """Its command line; empty when it is gone."""
        with contextlib.suppress(OSError):
            return [os.fsdecode(word) for word in Path(f"/proc/{self.pid}/cmdline").read_bytes().split(b"\0")[:-1]]
        return []

    @property
    def unit(self) -> str:
        """The systemd unit of wherry that it runs in, or ""."""
        with contextlib.suppress(OSError):
            match = _UNIT.search(Path(f"/proc/{self.pid}/cgroup").read_text())
            return match[1] if match else ""
        return ""

    @property
    def age(self) -> str:
        return _spoken(time.clock_gettime(time.CLOCK_BOOTTIME) - self.started / _TICKS_A_SECOND)

    def __str__(self) -> str:
        return f"{self.part} (process {self.pid}, running for {self.age})"


class Held(Exception):
    """Another process works on this data directory already; the message says who and what to do."""

    def __init__(self, data_dir: Path, part: str, holder: Holder | None) -> None:
        who = f"process {holder.pid}, running for {holder.age}" if holder else "a process that is just starting"
        unit = holder.unit if holder else ""
        end = f"systemctl stop {unit}" if unit else f"wherry down --data-dir {data_dir}"
        super().__init__(
            f"{data_dir} is in use by another {part} ({who}); stop it first ({end}), or name another --data-dir"
        )
        self.holder = holder


class Lock(io.FileIO):
    """A held part; closing it lets others have it."""

    def close(self) -> None:
        if not self.closed:
            with contextlib.suppress(OSError):
                os.pwrite(self.fileno(), b" " * _TEXT_BYTES, 0)
        super().close()


def hold(data_dir: Path, part: str) -> Lock:
    """Takes the lock of a part; it is held until the returned file is closed or the process ends.

    Raises Held when another process has it, OSError when the directory cannot be written.
    """
    path = _path(data_dir, part)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise Held(data_dir, part, holder_of(data_dir, part)) from None
        if _is_still_at(descriptor, path):
            break
        os.close(descriptor)  # `down --purge` removed the file between our open and our lock
    lock = Lock(descriptor, "r+")
    pid = os.getpid()
    supervised = os.environ.get(SUPERVISED_VARIABLE) == str(data_dir)
    told = json.dumps({"pid": pid, "started": start_time(pid), "boot": _boot(), "supervised": supervised})
    with contextlib.suppress(OSError):  # on a full disk it is held all the same; only its holder goes without a name
        os.pwrite(lock.fileno(), told.ljust(_TEXT_BYTES).encode(), 0)  # in place, which needs no room after the first
    return lock


def hold_beside(data_dir: Path, part: str) -> Lock:
    """As `hold`, for a part of which several may run on one data directory: each takes a lock of its own."""
    with contextlib.suppress(Held):
        return hold(data_dir, part)
    return hold(data_dir, f"{part}-{os.getpid()}")


def holder_of(data_dir: Path, part: str) -> Holder | None:
    """The living process that holds this part. A pid that another program got since does not count."""
    try:
        told = json.loads(_path(data_dir, part).read_text())
        holder = Holder(part, int(told["pid"]), int(told["started"]), bool(told["supervised"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return holder if told.get("boot") == _boot() and holder.alive else None


def holders(data_dir: Path) -> list[Holder]:
    """Every part that works on this data directory, in the order in which they are to be ended."""
    names = sorted(path.name.removesuffix(".lock") for path in (data_dir / "run").glob("*.lock"))
    found = [holder for name in names if (holder := holder_of(data_dir, name)) is not None]
    order = {"supervisor": 0, "agent": 1}
    return sorted(found, key=lambda holder: order.get(holder.part, 2))


def start_time(pid: int) -> int:
    """When a process started, in clock ticks since boot; 0 for one that is gone or only waits to be buried."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] in "ZX" else int(fields[19])


def _boot() -> str:
    """Tells this boot from every other: after a reboot, ids and start times may come again."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _path(data_dir: Path, part: str) -> Path:
    return data_dir / "run" / f"{part}.lock"


def _is_still_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _spoken(seconds: float) -> str:
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length:.0f} {unit}"
    return f"{max(seconds, 0):.0f} seconds"
