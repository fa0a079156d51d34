"""A containerd of the agent's own: generated configuration, own root, state and socket, never the system's.

Called by the agent's main. `ensure_containerd` starts one or adopts the one that an earlier agent started (it runs in
a session of its own and outlives the agent, so that no container restarts with it); `Containerd.run` starts it again
when it dies. What lasts is under the data directory; sockets and running state are under /run/wherry/<id of the data
directory>: a socket's path may have 107 bytes at most, and running state must not survive a reboot. Ended by
`teardown`. Facts about the machine are probed, not assumed. Configuration: containerd's docs/cri/config.md (version
2).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

import structlog

from agent.runtime import cri_calls as calls
from agent.runtime.containerd_config import ContainerdPaths, containerd_paths, probe_machine, render_config
from agent.runtime.errors import RuntimeFault, Timeout, Unavailable
from agent.runtime.images import load_archive, pieces_of
from agent.runtime.pause import write_pause_image
from agent.runtime.pb import cri_pb2
from agent.runtime.processes import alive, find_containerd, stop_process, wait_until_gone

__all__ = ["Containerd", "containerd_paths", "ensure_containerd", "find_containerd", "start_containerd"]

_log = structlog.get_logger()
_START_SECONDS = 30.0
_POLL_SECONDS = 0.02
_BACK_OFF_SECONDS = (0.1, 0.5, 1.0, 2.0, 5.0)
_LOG_LIMIT_BYTES = 10 << 20


@dataclass(frozen=True)
class Patience:
    """A containerd hangs when this many looks in a row, with a pause between, are not answered in time."""

    answer_seconds: float = 10.0
    pause_seconds: float = 10.0
    looks: int = 3


PATIENCE = Patience()


@dataclass
class Containerd:
    """A running private containerd. `pid` changes when it had to be started again."""

    paths: ContainerdPaths
    pid: int

    @property
    def endpoint(self) -> str:
        return f"unix://{self.paths.socket}"

    async def run(self, patience: Patience = PATIENCE) -> None:
        """Start it again whenever it dies, with growing pauses, until cancelled (it then runs on)."""
        failures = 0
        while True:
            await self._until_gone_or_hanging(patience)
            pause = _BACK_OFF_SECONDS[min(failures, len(_BACK_OFF_SECONDS) - 1)]
            _log.warning("containerd died; starting it again", pid=self.pid, pause_seconds=pause)
            await asyncio.sleep(pause)
            try:
                self.pid = await start_containerd(self.paths)
                failures = 0
            except Unavailable as fault:
                failures += 1
                _log.error("containerd does not start", error=fault.message)

    async def _until_gone_or_hanging(self, patience: Patience) -> None:
        """Until the process has ended; one that answers nothing is killed (containers outlive that)."""
        gone = asyncio.create_task(wait_until_gone(self.pid))
        channel = calls.CriChannel(self.endpoint)
        try:
            silent = 0
            while silent < patience.looks and not gone.done():
                silent = silent + 1 if await _hangs(channel, patience.answer_seconds) else 0
                await asyncio.wait({gone}, timeout=patience.pause_seconds)
            if not gone.done():
                _log.error("containerd answers nothing; it is killed and started again", pid=self.pid)
                os.kill(self.pid, signal.SIGKILL)
            await gone
        finally:
            gone.cancel()
            await channel.close()


async def _hangs(channel: calls.CriChannel, seconds: float) -> bool:
    """Whether a call is accepted and not answered; what refuses or is away does not hang."""
    try:
        await channel.ask(calls.STATUS, cri_pb2.StatusRequest(), seconds)
    except Timeout:
        return True
    except RuntimeFault:
        return False
    return False


async def ensure_containerd(data_dir: Path, cni_conf_dir: Path | None = None) -> Containerd:
    """A containerd for this data directory that answers and has the pause image: adopted if one runs, else started.

    A running one whose configuration is no longer what this machine and this version of wherry want is replaced; its
    containers run on. `cni_conf_dir` names a directory with a CNI configuration of the user's own. Unavailable, with
    the last lines of its log, when it does not come up within 30 s.
    """
    paths = containerd_paths(data_dir)
    conf_dir = (cni_conf_dir or paths.cni_conf_dir).resolve()
    for directory in (paths.root, paths.state, conf_dir, paths.cni_data_dir):
        directory.mkdir(parents=True, exist_ok=True)
    os.chmod(paths.run, 0o711)
    config = render_config(paths, probe_machine(paths), conf_dir)
    running = find_containerd(paths)
    if running is not None and config != _text_or_empty(paths.config):
        await stop_process(running)
        running = None
    paths.config.write_text(config)
    pid = running if running is not None and await _answers(paths, running) else await start_containerd(paths)
    await _ensure_pause_image(paths)
    return Containerd(paths, pid)


async def start_containerd(paths: ContainerdPaths) -> int:
    """A fresh containerd that answers; its pid. Called under the agent's lock on the data directory, so one that runs
    there already is none that anybody needs: it is ended first. Raises Unavailable."""
    binary = shutil.which("containerd")
    if binary is None:
        raise Unavailable("containerd is not installed (apt install containerd runc containernetworking-plugins)")
    if (hanging := find_containerd(paths)) is not None:  # it does not answer, and two must not share a directory
        await stop_process(hanging)
    pid = _spawn(binary, paths)
    if not await _answers(paths, pid):
        await stop_process(pid)
        raise Unavailable(f"containerd does not start; {paths.log} ends with: {_log_tail(paths)}")
    return pid


def _spawn(binary: str, paths: ContainerdPaths) -> int:
    log = _open_log(paths)
    try:
        process = subprocess.Popen(
            [binary, "--config", str(paths.config), "--log-level", "warn"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=_environment(),
        )
    finally:
        os.close(log)
    process.returncode = 0  # it may outlive us; whoever waits for it uses its pidfd
    return process.pid


def _environment() -> dict[str, str]:
    """The agent's own, with a PATH on which CNI plug-ins find iptables and containerd finds runc and its shim."""
    sbin = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return {**os.environ, "PATH": f"{os.environ.get('PATH', '')}:{sbin}".lstrip(":")}


def _open_log(paths: ContainerdPaths) -> int:
    if paths.log.exists() and paths.log.stat().st_size > _LOG_LIMIT_BYTES:
        paths.log.replace(paths.log.with_suffix(".log.1"))
    return os.open(paths.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)


def _log_tail(paths: ContainerdPaths) -> str:
    return " / ".join(_text_or_empty(paths.log).splitlines()[-3:])


def _text_or_empty(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except FileNotFoundError:
        return ""


async def _answers(paths: ContainerdPaths, pid: int) -> bool:
    """Whether CRI is ready before the process dies or time is up (its socket is earlier)."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + _START_SECONDS
    channel = calls.CriChannel(f"unix://{paths.socket}")
    try:
        while alive(pid) and loop.time() < deadline:
            with contextlib.suppress(RuntimeFault):
                await channel.ask(calls.STATUS, cri_pb2.StatusRequest())
                return True
            await asyncio.sleep(_POLL_SECONDS)
        return False
    finally:
        await channel.close()


async def _ensure_pause_image(paths: ContainerdPaths) -> None:
    """Import the sandbox image. Cheap when it is there already, so it is done at every start."""
    archive = paths.run / "pause.tar"
    write_pause_image(archive)
    await load_archive(paths.socket, pieces_of(archive))
    archive.unlink()
