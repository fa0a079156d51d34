"""Settings of the kernel that Kubernetes expects of a node: what differs is told, and refused if that was asked for.

Called by main at the start. The kubelet sets them unless --protect-kernel-defaults is given; wherry never does, for the
machine may have other tasks. Values and wording are the kubelet's (pkg/kubelet/cm, setupKernelTunables).
"""

from __future__ import annotations

from pathlib import Path

EXPECTED = {
    "vm/overcommit_memory": 1,
    "vm/panic_on_oom": 0,
    "kernel/panic": 10,
    "kernel/panic_on_oops": 1,
    "kernel/keys/root_maxkeys": 1_000_000,
    "kernel/keys/root_maxbytes": 25_000_000,
}


class KernelRefused(Exception):
    """The agent was told to start only with Kubernetes' settings, and the kernel has others."""


def differing(settings: Path = Path("/proc/sys")) -> dict[str, str]:
    """Name -> present value of each setting that is not what Kubernetes expects; unknown ones are left out."""
    found = {}
    for name, expected in EXPECTED.items():
        try:
            value = (settings / name).read_text().strip()
        except OSError:
            continue
        if value != str(expected):
            found[name] = value
    return found


def words(found: dict[str, str]) -> str:
    """What differs and how to mend it; "" when nothing does."""
    if not found:
        return ""
    flags = "; ".join(
        f"invalid kernel flag: {name}, expected value: {EXPECTED[name]}, actual value: {value}"
        for name, value in found.items()
    )
    commands = " ".join(f"{name.replace('/', '.')}={EXPECTED[name]}" for name in found)
    return f"{flags}. `sysctl -w {commands}` sets them until the next boot, a file in /etc/sysctl.d for good"


def check_kernel(*, protect: bool, settings: Path = Path("/proc/sys")) -> str:
    """What is to be told about the kernel's settings. Raises KernelRefused with it when `protect` is asked for."""
    told = words(differing(settings))
    if told and protect:
        raise KernelRefused(told)
    return told
