"""Where a private containerd keeps what, and the configuration it gets on this machine.

Called by `containerd`, `teardown` and whoever needs a path or the pods' cgroup. All names follow from the data
directory alone. Imports `mounts` and `pause` only.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from agent.runtime.mounts import overlay_works
from agent.runtime.pause import pause_image_name

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
