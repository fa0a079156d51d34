"""`wherry up` and `down` on one machine, played in a network namespace of its own, so that nothing of it can stay."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from api.holding import holders
from cli.parts import remove_data
from cli.problems import Problem
from tests.cluster import eventually, free_port
from tests.images import BUSYBOX, write_busybox_image

NAMESPACE = f"wherry-up{os.getpid() % 1000}"
COMMAND_SECONDS = 150


@dataclass(frozen=True)
class Machine:
    """One server: its network namespace and the directory that `up` is given."""

    data_dir: Path
    port: int

    def run(self, *argv: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        command = ["nsenter", f"--net=/run/netns/{NAMESPACE}", *argv]
        environment = {**os.environ, "HOME": str(self.data_dir.parent)}
        environment.pop("KUBECONFIG", None)
        done = subprocess.run(
            command, capture_output=True, text=True, env=environment, timeout=COMMAND_SECONDS, check=False
        )
        assert not check or done.returncode == 0, f"{' '.join(argv)}: {done.stdout}{done.stderr}"
        return done

    def wherry(self, *argv: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        kubeconfig = ("--kubeconfig", str(self.data_dir / "admin.kubeconfig"))
        return self.run(sys.executable, "-m", "cli.main", *kubeconfig, *argv, check=check)

    def up(self) -> str:
        return self.wherry("up", "--detach", "--data-dir", str(self.data_dir), "--port", str(self.port)).stdout

    def down(self, *flags: str) -> str:
        return self.wherry("down", "--data-dir", str(self.data_dir), *flags).stdout

    def rules(self) -> str:
        """Links, addresses, routes, firewall rules and tables of the namespace."""
        looks = (("-br", "link"), ("-br", "addr"), ("route", "show", "table", "all"), ("rule",), ("-6", "rule"))
        rules = [self.run("ip", *look).stdout for look in looks]
        tables = self.run("nft", "list", "tables").stdout.splitlines()  # iptables keeps empty ones of its own
        rules += [table for table in tables if "wherry" in table]
        rules += [self.run(tool, "-S").stdout + self.run(tool, "-t", "nat", "-S").stdout for tool in ("iptables",)]
        return "".join(rules)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    subprocess.run(["ip", "netns", "add", NAMESPACE], check=True)
    subprocess.run(["ip", "-n", NAMESPACE, "link", "set", "lo", "up"], check=True)
    made = Machine(tmp_path / "machine", free_port())
    try:
        yield made
    finally:
        made.down("--purge")
        subprocess.run(["ip", "netns", "del", NAMESPACE], check=True)


def processes_of(machine: Machine) -> list[str]:
    """Command lines of this machine's processes that name the data directory or its containers' runtime."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(machine.data_dir) in words and str(os.getpid()) != entry.parent.name:
            found.append(words)
    return found


def test_a_machine_goes_up_keeps_its_data_and_goes_down_without_a_trace(machine: Machine, tmp_path: Path) -> None:
    before = machine.rules()
    told = machine.up()
    assert "is Ready" in told
    assert f"export KUBECONFIG={machine.data_dir}/admin.kubeconfig" in told
    assert (machine.data_dir / "admin.kubeconfig").stat().st_mode & 0o777 == 0o600
    assert "already running" in machine.up()
    machine.wherry("image", "load", str(write_busybox_image(tmp_path / "busybox.tar")))
    keep = ("-v", "data:/data", BUSYBOX, "--", "sh", "-c")
    machine.wherry("run", "--rm", *keep, "echo kept > /data/f")
    serve = "mkdir /w; echo a page > /w/index.html; exec httpd -f -p 80 -h /w"
    machine.wherry(
        "run", "-d", "--name", "web", "--restart", "always", "-p", "8080:80", BUSYBOX, "--", "sh", "-c", serve
    )
    fetch = ("busybox", "wget", "-qO-", "http://127.0.0.1:8080/")
    eventually(lambda: machine.run(*fetch, check=False).stdout == "a page\n", 10, "the page is served")
    ingress = ("busybox", "wget", "-qO-", "http://127.0.0.1/")
    eventually(lambda: "404" in machine.run(*ingress, check=False).stderr, 10, "the ingress answers on port 80")
    machine.down()
    assert processes_of(machine) == []
    machine.up()
    assert machine.wherry("run", "--rm", *keep, "cat /data/f").stdout == "kept\n"
    eventually(lambda: machine.run(*fetch, check=False).stdout == "a page\n", 20, "what ran before runs again")
    machine.down("--purge")
    assert not machine.data_dir.exists()
    assert processes_of(machine) == []
    assert machine.rules() == before


def test_what_keeps_a_cluster_from_starting_is_said_in_words(machine: Machine) -> None:
    missing = machine.run("env", "PATH=/nowhere", sys.executable, "-m", "cli.main", "up", "--data-dir",
                          str(machine.data_dir), check=False)  # fmt: skip
    assert missing.returncode == 1
    assert "this machine lacks: etcd-server, containerd, runc, iptables" in missing.stderr
    assert "apt-get install" in missing.stderr
    away = machine.wherry("get", "pods", check=False)
    assert away.returncode == 1
    assert "Traceback" not in away.stderr


def held(machine: Machine) -> dict[str, int]:
    """Part -> process of what works on the machine's data directory."""
    return {holder.part: holder.pid for holder in holders(machine.data_dir)}


def test_what_a_dead_supervisor_left_is_found_adopted_and_ended(machine: Machine) -> None:
    machine.up()
    before = held(machine)
    assert set(before) == {"supervisor", "controller", "agent"}
    os.kill(before["supervisor"], signal.SIGKILL)
    eventually(lambda: "supervisor" not in held(machine), 5, "the supervisor is gone")
    told = machine.wherry("status", "--data-dir", str(machine.data_dir)).stdout
    assert ["agent", str(before["agent"]), "left"] in [line.split()[:3] for line in told.splitlines()]
    assert "`wherry up` takes them over" in told
    assert "is Ready" in machine.up()
    after = held(machine)
    assert (after["controller"], after["agent"]) == (before["controller"], before["agent"])
    assert after["supervisor"] != before["supervisor"]
    second = machine.wherry("agent", "--server", f"https://127.0.0.1:{machine.port}", "--data-dir",
                            str(machine.data_dir), "--port", "10999", check=False)  # fmt: skip
    assert second.returncode == 1
    assert f"in use by another agent (process {after['agent']}, running for" in second.stderr
    os.kill(after["agent"], signal.SIGKILL)
    eventually(lambda: held(machine).get("agent") not in (None, after["agent"]), 20, "an adopted agent is restarted")
    os.kill(after["supervisor"], signal.SIGKILL)
    told = machine.down()
    assert f"Stopping controller (process {after['controller']}" in told
    assert held(machine) == {}
    assert processes_of(machine) == []


def test_a_data_directory_on_a_disk_of_its_own_is_emptied_and_what_is_mounted_below_it_kept(tmp_path: Path) -> None:
    disk, data_dir = tmp_path / "disk", tmp_path / "data"
    (disk / "run").mkdir(parents=True)
    data_dir.mkdir()
    subprocess.run(["mount", "--bind", str(disk), str(data_dir)], check=True)
    try:
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(data_dir / "run")], check=True)
        with pytest.raises(Problem, match="something is mounted at"):
            remove_data(data_dir)
        subprocess.run(["umount", str(data_dir / "run")], check=True)
        remove_data(data_dir)
        assert list(data_dir.iterdir()) == []
    finally:
        subprocess.run(["umount", "-R", str(data_dir)], check=True)


def test_up_says_at_once_whose_a_taken_port_is(machine: Machine) -> None:
    listen = "import socket, time; s = socket.create_server(('', 10250)); print('up', flush=True); time.sleep(99)"
    command = ["nsenter", f"--net=/run/netns/{NAMESPACE}", sys.executable, "-c", listen]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        refused = machine.wherry("up", "--detach", "--data-dir", str(machine.data_dir), check=False)
        other.kill()
    assert "port 10250, which the agent needs, is taken by python" in refused.stderr
    assert f"(process {other.pid})" in refused.stderr
    assert "Choose another with --agent-port" in refused.stderr
    assert not machine.data_dir.exists()
