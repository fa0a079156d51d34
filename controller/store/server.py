"""A private etcd: one member, child of this process, reachable by this user only.

Called by controller.main when no endpoints are given, and by tests. It listens on unix sockets in a directory of
mode 0700 (clients and peers alike), so that no other local user can read a Secret or speak raft to it. The kernel
kills it when we die (PDEATHSIG), so none is left behind; one that is alive already (a second process on the same data
directory, told apart by a file lock) is adopted. Imports nothing of the store but its border to etcd.
Settings: our own compaction instead of etcd's, a raised max-txn-ops for group commits, 8 GiB quota.
https://etcd.io/docs/v3.4/op-guide/configuration/
"""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import hashlib
import os
import platform
import shutil
import signal
import stat
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import structlog

from controller.store.etcd import answers
from controller.store.reserve import Reserve

QUOTA_BYTES = 8 * 1024**3
START_SECONDS = 30.0
STOP_SECONDS = 5.0
PROBE_SECONDS = 1.0
ADOPTED_PROBE_INTERVAL_SECONDS = 1.0
BACKOFF_FIRST_SECONDS = 0.2
BACKOFF_LAST_SECONDS = 10.0
LEAST_FREE_BYTES = 8 * 1024**2
_SOCKET_PATH_LIMIT = 100
_PR_SET_PDEATHSIG = 1
_SOCKETS = ("client:1", "peer:1")

_log = structlog.get_logger()
_libc = ctypes.CDLL(None, use_errno=True)


class EtcdStartError(Exception):
    """The private etcd did not come up; the message says where its log is."""


def socket_directory(data_dir: Path) -> Path:
    """Where the sockets live: below the data directory, or in the temp directory when that path is too long."""
    wanted = data_dir.resolve() / "etcd" / "run"
    if len(str(wanted / "client:1")) <= _SOCKET_PATH_LIMIT:
        return wanted
    digest = hashlib.sha256(str(wanted).encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"wherry-etcd-{os.getuid()}-{digest}"


def endpoint_of(data_dir: Path) -> str:
    return f"unix:{socket_directory(data_dir) / 'client:1'}"


def command(data_dir: Path, *options: str) -> list[str]:
    """The command line; run it with `socket_directory(data_dir)` as working directory: etcd 3.4 wants unix URLs to
    look like host:port, and takes that for a file name."""
    return [
        "etcd",
        "--name=wherry",
        f"--data-dir={data_dir.resolve() / 'etcd' / 'data'}",
        "--listen-client-urls=unix://client:1",
        "--advertise-client-urls=unix://client:1",
        "--listen-peer-urls=unix://peer:1",
        "--initial-advertise-peer-urls=unix://peer:1",
        "--initial-cluster=wherry=unix://peer:1",
        "--auto-compaction-retention=0",
        f"--quota-backend-bytes={QUOTA_BYTES}",
        "--max-txn-ops=4096",
        "--max-request-bytes=4194304",
        "--snapshot-count=5000",
        "--heartbeat-interval=50",
        "--election-timeout=500",
        "--logger=zap",
        "--log-level=warn",
        *options,
    ]


def environment() -> dict[str, str]:
    """Ours without ETCD_* (etcd reads its options from there, too)."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ETCD")}
    if platform.machine() not in ("x86_64", "amd64"):
        kept["ETCD_UNSUPPORTED_ARCH"] = {"aarch64": "arm64"}.get(platform.machine(), platform.machine())
    return kept


def prepare_directories(data_dir: Path) -> Path:
    """Makes what etcd needs, readable by us alone, and clears away the sockets of one that was killed (etcd does not
    start over them). Returns the working directory. Raises EtcdStartError when a directory belongs to somebody else."""
    run = socket_directory(data_dir)
    for directory in (data_dir / "etcd", data_dir / "etcd" / "data", run):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = directory.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
            raise EtcdStartError(f"{directory} is not a directory of ours")
        directory.chmod(0o700)
    for socket in _SOCKETS:
        (run / socket).unlink(missing_ok=True)
    return run


def dying_with_us() -> Callable[[], None]:
    """A preexec_fn: the kernel shall kill the child when this process dies, also if it just did."""
    parent = os.getpid()

    def between_fork_and_exec() -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)

    return between_fork_and_exec


@dataclass
class EtcdEndpoint:
    """The running private etcd. `run()` supervises it until cancelled and then stops it, unless it was adopted."""

    data_dir: Path
    endpoints: tuple[str, ...]
    reserve: Reserve
    _child: asyncio.subprocess.Process | None = field(default=None, repr=False)
    _lock: BinaryIO | None = field(default=None, repr=False)

    @property
    def pid(self) -> int | None:
        """None: adopted, somebody else's child."""
        return self._child.pid if self._child else None

    async def run(self) -> None:
        """Keeps etcd and its reserve. On cancellation ends our own child and waits for it."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self.reserve.run())
                tasks.create_task(self._supervise())
        finally:
            await self.stop()

    async def _supervise(self) -> None:
        """Restarts etcd with back-off whenever it ends."""
        delay = BACKOFF_FIRST_SECONDS
        while True:
            await self._until_it_ends()
            _log.warning("the private etcd ended; starting it again", data_dir=str(self.data_dir), delay=delay)
            await asyncio.sleep(delay)
            delay = min(delay * 2, BACKOFF_LAST_SECONDS)
            try:
                await self.start()
                delay = BACKOFF_FIRST_SECONDS
            except (EtcdStartError, OSError) as error:
                _log.error("the private etcd does not start", error=str(error))

    async def start(self) -> None:
        """Adopts a living etcd on our sockets or starts one; returns when it answers. Raises EtcdStartError."""
        if self._own():
            await self._spawn()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + START_SECONDS
        while not await answers(self.endpoints, PROBE_SECONDS):
            ended = self._child is not None and self._child.returncode is not None
            if ended or loop.time() > deadline:
                await self.stop()
                raise EtcdStartError(_why_not(self.data_dir))
            await asyncio.sleep(0.05)

    def _own(self) -> bool:
        """Whether this process is the one to run etcd here: it holds a lock that ends with the process."""
        if self._lock is None:
            (self.data_dir / "etcd").mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = (self.data_dir / "etcd" / "lock").open("ab")
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.close()
                return False
            self._lock = lock
        return True

    async def _spawn(self) -> None:
        run = prepare_directories(self.data_dir)
        await asyncio.to_thread(self.reserve.prepare)
        log_path = self.data_dir / "etcd" / "etcd.log"
        with log_path.open("ab") as log:
            self._child = await asyncio.create_subprocess_exec(
                *command(self.data_dir),
                cwd=run,
                env=environment(),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=dying_with_us(),
            )

    async def stop(self) -> None:
        """Ends our own child; SIGKILL after STOP_SECONDS. etcd's write-ahead log makes either safe."""
        child, self._child = self._child, None
        if child is not None and child.returncode is None:
            await _end(child)
        if self._lock is not None:
            _clear_away(socket_directory(self.data_dir), keep=self.data_dir)
            self._lock.close()
            self._lock = None

    async def _until_it_ends(self) -> None:
        if self._child is not None:
            await self._child.wait()
            self._child = None
            return
        while await answers(self.endpoints, PROBE_SECONDS):  # noqa: ASYNC110 - another's child can only be polled
            await asyncio.sleep(ADOPTED_PROBE_INTERVAL_SECONDS)


def _clear_away(run: Path, keep: Path) -> None:
    """Removes the sockets, and their directory when it is not below the data directory."""
    for socket in _SOCKETS:
        (run / socket).unlink(missing_ok=True)
    if not run.is_relative_to(keep.resolve()):
        run.rmdir()


async def _end(child: asyncio.subprocess.Process) -> None:
    child.terminate()
    try:
        async with asyncio.timeout(STOP_SECONDS):
            await child.wait()
    except TimeoutError:
        child.kill()
        await child.wait()


def _why_not(data_dir: Path) -> str:
    """What kept etcd from starting, as far as we can see it."""
    free = shutil.disk_usage(data_dir / "etcd").free
    if free < LEAST_FREE_BYTES:
        return f"etcd did not come up: the disk of {data_dir / 'etcd'} is full ({free} bytes are left); make room on it"
    return f"etcd did not come up in {data_dir}; its last words are in {data_dir / 'etcd' / 'etcd.log'}"


async def ensure_etcd(data_dir: Path) -> EtcdEndpoint:
    """A private etcd that answers, its data below `data_dir`. The caller runs `run()` in its task group.

    Raises EtcdStartError when etcd is not installed or does not come up.
    """
    endpoint = EtcdEndpoint(data_dir, (endpoint_of(data_dir),), Reserve(data_dir / "etcd"))
    try:
        await endpoint.start()
    except FileNotFoundError as error:
        raise EtcdStartError("etcd is not installed; on Debian: apt-get install etcd-server") from error
    return endpoint
