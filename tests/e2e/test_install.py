"""`wherry install` makes a machine survive its reboot.

No systemd runs here: its part is played by running the unit's own command line, after `systemd-analyze verify` where
that exists, and a reboot by killing all that runs.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
from pathlib import Path

from agent.runtime.teardown import kill_node
from tests.cluster import eventually
from tests.e2e.test_up import NAMESPACE, Machine, held, machine, processes_of
from tests.images import BUSYBOX, write_busybox_image

__all__ = ["machine"]


def started(unit: Path) -> subprocess.Popen[bytes]:
    """The unit's main process, in the machine's network as init would start it."""
    (line,) = [line for line in unit.read_text().splitlines() if line.startswith("ExecStart=")]
    command = ["nsenter", f"--net=/run/netns/{NAMESPACE}", *shlex.split(line.removeprefix("ExecStart="))]
    return subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def verified(unit: Path) -> None:
    if shutil.which("systemd-analyze"):
        told = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False)
        assert unit.name not in told.stderr, told.stderr


def test_an_installed_cluster_runs_again_after_a_crash_and_after_a_reboot(machine: Machine, tmp_path: Path) -> None:
    units = tmp_path / "units"
    where = ("--units", str(units), "--no-start", "--data-dir", str(machine.data_dir))
    told = machine.wherry("install", *where, "--port", str(machine.port)).stdout
    unit = units / "wherry-cluster.service"
    assert f"Wrote {unit}" in told
    assert (units / "multi-user.target.wants" / unit.name).resolve() == unit
    verified(unit)
    first = started(unit)
    assert "is Ready" in machine.up()
    machine.wherry("image", "load", str(write_busybox_image(tmp_path / "busybox.tar")))
    machine.wherry("run", "-d", "--name", "kept", "--restart", "always", BUSYBOX, "--", "sleep", "1000")
    before = held(machine)
    os.kill(before["supervisor"], signal.SIGKILL)
    first.wait()
    second = started(unit)
    eventually(lambda: held(machine).get("supervisor") not in (None, before["supervisor"]), 10, "the unit runs again")
    assert "is Ready" in machine.up()
    assert held(machine)["agent"] == before["agent"]
    for pid in held(machine).values():
        os.kill(pid, signal.SIGKILL)
    second.wait()
    kill_node(machine.data_dir)
    third = started(unit)
    assert "is Ready" in machine.up()
    eventually(lambda: "Up " in machine.wherry("ps").stdout, 40, "what ran before the reboot runs again")
    refused = machine.wherry("install", *where[:3], "--server", "https://x:6443", check=False).stderr
    assert "this machine has another role" in refused
    machine.wherry("uninstall", "--units", str(units))
    assert list(units.rglob("*.service")) == []
    machine.down()
    third.wait(20)
    assert processes_of(machine) == []


def test_an_agent_is_installed_with_its_token_where_only_root_reads_it(machine: Machine, tmp_path: Path) -> None:
    units, token = tmp_path / "units", f"wherry1.{'0' * 64}.abcdef.0123456789abcdef"
    agent = ("install", "--units", str(units), "--no-start", "--data-dir", str(machine.data_dir), "--server")
    (tmp_path / "token").write_text(f"{token}\n")
    machine.wherry(*agent, "https://first:6443", "--token-file", str(tmp_path / "token"), "--", "--labels", "zone=a b")
    unit = units / "wherry-agent.service"
    verified(unit)
    assert token not in unit.read_text()
    assert '"zone=a b"' in unit.read_text()
    secret = machine.data_dir / "run" / "join.env"
    assert (secret.read_text(), secret.stat().st_mode & 0o777) == (f"WHERRY_TOKEN={token}\n", 0o600)
    assert f"EnvironmentFile=-{secret}" in unit.read_text()
    for wrong, words in (
        (("http://first:6443", "--token", token), "Say --server https://HOST:6443"),
        (("https://first:6443", "--token", "x"), "that is no join token"),
        (("https://first:6443", "--token", token, "--", "--lables", "x=y"), "unrecognized arguments: --lables"),
    ):
        assert words in machine.wherry(*agent, *wrong, check=False).stderr
    machine.wherry("uninstall", "--units", str(units))
    assert "nothing of wherry is installed" in machine.wherry("uninstall", "--units", str(units), check=False).stderr
