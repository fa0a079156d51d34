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
import hashlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import structlog

from agent.runtime.errors import Unavailable
from agent.runtime.images import load_archive
from agent.runtime.mounts import overlay_works
from agent.runtime.pause import pause_image_name, write_pause_image

_log = structlog.get_logger()
_START_SECONDS = 30.0
_STOP_SECONDS = 10.0
_POLL_SECONDS = 0.02
_BACK_OFF_SECONDS = (0.1, 0.5, 1.0, 2.0, 5.0)
_LOG_LIMIT_BYTES = 10 << 20
_CAP_SYS_RESOURCE = 24
_CNI_BIN_DIRS = ("/usr/lib/cni", "/opt/cni/bin", "/usr/libexec/cni")
_RUN = Path("/run/wherry")
# Never used here; each costs start-up time, memory or a line of warnings.
_DISABLED = (
    "io.containerd.snapshotter.v1.aufs",
    "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper",
    "io.containerd.snapshotter.v1.zfs",
    "io.containerd.internal.v1.restart",
    "io.containerd.internal.v1.opt",
    "io.containerd.internal.v1.tracing",
    "io.containerd.tracing.processor.v1.otlp",
    "io.containerd.monitor.v1.cgroups",
)


@dataclass(frozen=True)
class ContainerdPaths:
    """Where a data directory's containerd keeps what. `node_id` is short, stable and unique for the directory."""

    data_dir: Path
    node_id: str

    @property
    def home(self) -> Path:
        return self.data_dir / "containerd"

    @property
    def root(self) -> Path:
        return self.home / "root"

    @property
    def config(self) -> Path:
        return self.home / "config.toml"

    @property
    def log(self) -> Path:
        return self.home / "containerd.log"

    @property
    def run(self) -> Path:
        return _RUN / self.node_id

    @property
    def state(self) -> Path:
        return self.run / "state"

    @property
    def socket(self) -> Path:
        return self.run / "containerd.sock"

    @property
    def cni_conf_dir(self) -> Path:
        return self.data_dir / "cni" / "net.d"

    @property
    def cni_data_dir(self) -> Path:
        """host-local's book of addresses: on disk, because containers survive an agent, and per data directory."""
        return self.data_dir / "cni" / "addresses"

    @property
    def cgroup_root(self) -> str:
        return f"/wherry/{self.node_id}"


def containerd_paths(data_dir: Path) -> ContainerdPaths:
    """All paths follow from the data directory alone, so a later process finds what an earlier one left."""
    resolved = data_dir.resolve()
    return ContainerdPaths(resolved, hashlib.sha256(os.fsencode(resolved)).hexdigest()[:12])


@dataclass(frozen=True)
class Machine:
    """What the configuration depends on and only a look at the machine tells."""

    snapshotter: str
    cni_bin_dir: str
    may_raise_oom_score: bool


def probe_machine(paths: ContainerdPaths) -> Machine:
    """Look at this machine (needs root)."""
    paths.root.mkdir(parents=True, exist_ok=True)
    return Machine(
        snapshotter="overlayfs" if overlay_works(paths.root) else "native",
        cni_bin_dir=cni_bin_dir(),
        may_raise_oom_score=_has_capability(_CAP_SYS_RESOURCE),
    )


def cni_bin_dir() -> str:
    """Where this machine keeps CNI plug-ins (Debian, upstream's archive, Fedora)."""
    return next((path for path in _CNI_BIN_DIRS if Path(path, "bridge").exists()), _CNI_BIN_DIRS[0])


def _has_capability(number: int) -> bool:
    lines = Path("/proc/self/status").read_text().splitlines()
    effective = next(line.split()[1] for line in lines if line.startswith("CapEff:"))
    return bool(int(effective, 16) >> number & 1)


def render_config(paths: ContainerdPaths, machine: Machine, cni_conf_dir: Path) -> str:
    """containerd's configuration, version 2.

    cgroupfs, not systemd, drives the cgroups on every machine: our pods are in a top-level tree of their own, and
    each start is spared a D-Bus round trip. Network namespaces and runc's state are below our own state directory, so
    nothing is shared with another containerd. Registries' mirrors and CAs are read from certs.d, as everywhere.
    Unpacked layers' archives are dropped: an image is stored once.
    """
    disabled = "".join(f'  "{plugin}",\n' for plugin in _DISABLED)
    restricted = "false" if machine.may_raise_oom_score else "true"
    oom_score = -999 if machine.may_raise_oom_score else 0
    return f"""# Written by wherry at every start; changes are lost.
version = 2
root = "{paths.root}"
state = "{paths.state}"
oom_score = {oom_score}
disabled_plugins = [
{disabled}]

[grpc]
  address = "{paths.socket}"
  max_recv_message_size = 33554432
  max_send_message_size = 33554432

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause_image_name()}"
  restrict_oom_score_adj = {restricted}
  netns_mounts_under_state_dir = true
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
  max_container_log_line_size = 16384
  tolerate_missing_hugetlb_controller = true

  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{machine.cni_bin_dir}"
    conf_dir = "{cni_conf_dir}"
    max_conf_num = 1

  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "{paths.home}/certs.d:/etc/containerd/certs.d"

  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "{machine.snapshotter}"
    default_runtime_name = "runc"
    discard_unpacked_layers = true

    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"

      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        BinaryName = "runc"
        Root = "{paths.state}/runc"
        SystemdCgroup = false
"""


@dataclass
class Containerd:
    """A running private containerd. `pid` changes when it had to be started again."""

    paths: ContainerdPaths
    pid: int

    @property
    def endpoint(self) -> str:
        return f"unix://{self.paths.socket}"

    async def run(self) -> None:
        """Start it again whenever it dies, with growing pauses, until cancelled (it then runs on)."""
        failures = 0
        while True:
            await _wait_until_gone(self.pid)
            pause = _BACK_OFF_SECONDS[min(failures, len(_BACK_OFF_SECONDS) - 1)]
            _log.warning("containerd died; starting it again", pid=self.pid, pause_seconds=pause)
            await asyncio.sleep(pause)
            try:
                self.pid = await _start(self.paths)
                failures = 0
            except Unavailable as fault:
                failures += 1
                _log.error("containerd does not start", error=fault.message)


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
    pid = running if running is not None and await _answers(paths, running) else await _start(paths)
    await _ensure_pause_image(paths)
    return Containerd(paths, pid)


def find_containerd(paths: ContainerdPaths) -> int | None:
    """The process id of this data directory's containerd, by its command line (a pid file may lie)."""
    wanted = [b"--config", os.fsencode(paths.config)]
    for pid, argv in command_lines():
        if os.path.basename(argv[0]) == b"containerd" and argv[1:3] == wanted:
            return pid
    return None


def command_lines() -> Iterator[tuple[int, list[bytes]]]:
    """Every process of this machine with its arguments (kernel threads and the dead have none)."""
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                argv = Path(entry.path, "cmdline").read_bytes().split(b"\0")[:-1]
                if argv:
                    yield int(entry.name), argv


async def stop_process(pid: int) -> None:
    """End a process: SIGTERM, 10 s, SIGKILL; returns when it is gone."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.kill(pid, number)
            async with asyncio.timeout(_STOP_SECONDS):
                await _wait_until_gone(pid)
            return
        except ProcessLookupError:
            return
        except TimeoutError:
            continue


async def _start(paths: ContainerdPaths) -> int:
    binary = shutil.which("containerd")
    if binary is None:
        raise Unavailable("containerd is not installed (apt install containerd runc containernetworking-plugins)")
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
    """Whether the socket takes connections before the process dies or time is up."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + _START_SECONDS
    while _alive(pid) and loop.time() < deadline:
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_unix_connection(str(paths.socket))
            writer.close()
            return True
        await asyncio.sleep(_POLL_SECONDS)
    return False


def _alive(pid: int) -> bool:
    _bury(pid)
    return Path(f"/proc/{pid}").exists()


def _bury(pid: int) -> None:
    """Take a dead child off the process table; somebody else's child is init's to bury."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


async def _wait_until_gone(pid: int) -> None:
    """Until a process, child or not, has ended; a child is buried."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(handle, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(handle)
        os.close(handle)
    _bury(pid)


async def _ensure_pause_image(paths: ContainerdPaths) -> None:
    """Import the sandbox image. Cheap when it is there already, so it is done at every start."""
    archive = paths.run / "pause.tar"
    write_pause_image(archive)
    await load_archive(paths.socket, archive)
    archive.unlink()
