"""The processes that work on a data directory, for `up`, `down`, `status`: found, shown, ended.

What counts are the locks that the parts hold (api/holding.py), so what an earlier supervisor left behind, what systemd
runs and what a person started by hand is seen alike. etcd is its controller's child and dies with it; containerd is
known by its command line.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click

from agent.trees import remove_tree
from api.holding import Held, Holder, hold, holders
from api.listeners import PortTaken, listener_on, require_free
from cli.problems import Problem
from cli.supervisor import end

PARTS = ("supervisor", "agent", "controller")
UNIT_STOP_SECONDS = 90.0


def refuse_what_is_not_ours(data_dir: Path) -> None:
    """Problem when a part runs that no supervisor started: it would be in the way, and is not for `up` to end."""
    for holder in holders(data_dir):
        if not holder.supervised:
            by = f"by systemd ({holder.unit})" if holder.unit else "on its own, not by `wherry up`"
            stop = f"systemctl disable --now {holder.unit}" if holder.unit else f"wherry down --data-dir {data_dir}"
            raise Problem(f"{data_dir} is in use: the {holder} was started {by}", f"Stop it first: {stop}")


def refuse_taken_ports(data_dir: Path, port: int, agent_port: int) -> None:
    """Problem when somebody else listens on a port that a part needs which does not run yet."""
    running = {holder.part for holder in holders(data_dir)}
    wanted = (("controller", port, "the API server", "--port"), ("agent", agent_port, "the agent", "--agent-port"))
    for part, number, what, option in wanted:
        if part in running:
            continue
        try:
            require_free(number, what)
        except PortTaken as error:
            raise Problem(str(error), f"Choose another with {option}, or end that process.") from None


def warn_of_ingress_ports(data_dir: Path, ports: dict[str, int]) -> None:
    """Says which ports of the ingress are taken: the cluster runs without them, so this is no reason to stop."""
    if any(holder.part == "agent" for holder in holders(data_dir)):
        return
    for option, port in ports.items():
        if port and (taken := listener_on(port)) is not None and taken.name != "haproxy":
            click.echo(
                f"warning: port {port} is taken by {taken}: Ingresses are not served on it ({option}).", err=True
            )


@contextlib.contextmanager
def everything_ended(data_dir: Path) -> Iterator[None]:
    """Ends every part of this data directory; inside the block none can start. Raises Problem when one does not end."""
    for holder in holders(data_dir):  # the supervisor is first: it would start again what ends before it does
        if holder.alive:
            click.echo(f"Stopping {holder} ...")
            _stop_unit(holder.unit) if holder.unit else end(holder)
    for holder in holders(data_dir):  # what the supervisor was just starting
        end(holder)
    with contextlib.ExitStack() as locks:
        try:
            for part in PARTS:
                locks.enter_context(hold(data_dir, part))
        except Held as error:
            raise Problem(f"not stopped: {error}", "Something starts it again; stop that first.") from None
        if left := [holder for holder in holders(data_dir) if holder.part not in PARTS]:
            raise Problem(f"not stopped: {', '.join(map(str, left))} does not end")
        yield


def _stop_unit(unit: str) -> None:
    done = subprocess.run(
        ["systemctl", "stop", unit], capture_output=True, text=True, timeout=UNIT_STOP_SECONDS, check=False
    )
    if done.returncode:
        raise Problem(f"systemctl stop {unit}: {done.stderr.strip()}")


def processes(data_dir: Path) -> list[tuple[str, int, str]]:
    """(part, pid, how it runs) of everything that works on this data directory, containerd and etcd included."""
    from agent.runtime.containerd_config import containerd_paths
    from agent.runtime.processes import command_lines, find_containerd

    running = holders(data_dir)
    supervised = any(holder.part == "supervisor" for holder in running)
    found = [(holder.part, holder.pid, _how(holder, supervised=supervised)) for holder in running]
    etcd = f"--data-dir={data_dir / 'etcd' / 'data'}".encode()
    found += [("etcd", pid, "child of the controller") for pid, argv in command_lines() if etcd in argv]
    if (pid := find_containerd(containerd_paths(data_dir))) is not None:
        found.append(("containerd", pid, "outlives the agent"))
    return found


def _how(holder: Holder, *, supervised: bool) -> str:
    """Who sees to it that a part runs."""
    if holder.unit:
        who = f"by systemd ({holder.unit})"
    elif holder.part == "supervisor":
        who = "by `wherry up`"
    elif holder.supervised:
        who = "kept running by the supervisor" if supervised else "left behind by a supervisor"
    else:
        who = "on its own"
    return f"{who}, for {holder.age}"


def remove_data(data_dir: Path) -> None:
    """Deletes the data directory. Problem when something still runs there: no data goes from under its feet."""
    from agent.runtime.mounts import mounts_under

    left = [f"{part} (process {pid})" for part, pid, _how in processes(data_dir) if part in ("etcd", "containerd")]
    if left:
        raise Problem(f"{data_dir} is not deleted: {', '.join(left)} still runs there")
    mounts = mounts_under(data_dir)
    if mounted := [place for place in mounts if place != data_dir]:
        raise Problem(f"{data_dir} is not deleted: something is mounted at {mounted[0]}", "Unmount it first.")
    for entry in data_dir.iterdir():
        remove_tree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
    if data_dir not in mounts:  # a disk of its own stays, empty; is_mount does not see bind mounts
        data_dir.rmdir()
