"""Facts about the machine: cores, memory, disk, addresses, identity, pressure. Read from /proc, /sys and /etc.

Called by node (capacity, nodeInfo, conditions), stats and main. Blocking, quick reads; nothing here knows the API.
"""

from __future__ import annotations

import os
import platform
import socket
from dataclasses import dataclass
from pathlib import Path

_BLOCK = 512


@dataclass(frozen=True)
class Machine:
    """What does not change while the agent runs."""

    cores: int
    memory_bytes: int
    machine_id: str
    boot_id: str
    system_uuid: str
    kernel: str
    os_image: str
    architecture: str
    hostname: str


@dataclass(frozen=True)
class DiskUse:
    capacity_bytes: int
    available_bytes: int
    used_bytes: int
    inodes: int
    inodes_free: int


@dataclass(frozen=True)
class MemoryUse:
    total_bytes: int
    available_bytes: int
    working_set_bytes: int
    usage_bytes: int
    rss_bytes: int


@dataclass(frozen=True)
class NetworkUse:
    interface: str
    received_bytes: int
    sent_bytes: int
    received_errors: int
    sent_errors: int


_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm"}


def machine() -> Machine:
    return Machine(
        cores=len(os.sched_getaffinity(0)),
        memory_bytes=memory_use().total_bytes,
        machine_id=_text("/etc/machine-id") or _text("/var/lib/dbus/machine-id"),
        boot_id=boot_id(),
        system_uuid=_text("/sys/class/dmi/id/product_uuid") or _text("/etc/machine-id"),
        kernel=platform.release(),
        os_image=_os_image(),
        architecture=_ARCHITECTURES.get(platform.machine(), platform.machine()),
        hostname=socket.gethostname().lower(),
    )


def boot_id() -> str:
    """What the kernel drew when it started: another one at each boot."""
    return _text("/proc/sys/kernel/random/boot_id")


def memory_use() -> MemoryUse:
    """Of the whole machine, in the kubelet's terms: the working set is what cannot be given back at once."""
    fields = {}
    for line in Path("/proc/meminfo").read_text().splitlines():
        name, _, rest = line.partition(":")
        fields[name] = int(rest.split()[0]) * 1024
    total, available = fields["MemTotal"], fields.get("MemAvailable", fields["MemFree"])
    usage = total - fields["MemFree"]
    working_set = max(usage - fields.get("Inactive(file)", 0), 0)
    return MemoryUse(total, available, working_set, usage, fields.get("AnonPages", 0))


def disk_use(path: Path) -> DiskUse:
    found = os.statvfs(path)
    capacity, available = found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize
    return DiskUse(capacity, available, capacity - found.f_bfree * found.f_frsize, found.f_files, found.f_ffree)


def cpu_seconds() -> float:
    """CPU time that the whole machine has used since it started, idle and I/O wait not counted."""
    words = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    ticks = [int(word) for word in words[1:9]]
    return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")


def boot_time() -> float:
    for line in Path("/proc/stat").read_text().splitlines():
        if line.startswith("btime "):
            return float(line.split()[1])
    return 0.0


def process_count() -> tuple[int, int]:
    """(threads now, most possible): what PIDPressure is about."""
    now = int(Path("/proc/loadavg").read_text().split()[3].partition("/")[2])
    return now, int(_text("/proc/sys/kernel/pid_max") or "32768")


def network_use(file: Path = Path("/proc/net/dev")) -> list[NetworkUse]:
    """All interfaces but loopback and the pods' ends on the node; `file` may be another network namespace's."""
    found = []
    for line in file.read_text().splitlines()[2:]:
        name, _, rest = line.partition(":")
        fields = rest.split()
        if name.strip() != "lo" and not name.strip().startswith("veth"):
            found.append(NetworkUse(name.strip(), int(fields[0]), int(fields[8]), int(fields[2]), int(fields[10])))
    return found


def default_address(towards: str = "192.0.2.1", port: int = 9) -> str:
    """The address from which this machine would speak to another one; loopback when it has no way out."""
    try:
        family, _, _, _, address = socket.getaddrinfo(towards, port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(address)
            return str(probe.getsockname()[0])
    except OSError:
        return "127.0.0.1"


def _os_image() -> str:
    for line in _text("/etc/os-release").splitlines():
        if line.startswith("PRETTY_NAME="):
            return line.partition("=")[2].strip('"')
    return "Linux"


def _text(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
