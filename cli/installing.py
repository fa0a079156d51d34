"""`wherry install` and `uninstall`: what runs here runs again after a reboot, by systemd.

One command for every machine: without --server it is a whole cluster of its own (which others join), with it an agent
of another one; `--role controller` is a control plane without containers. What runs already by `wherry up` is taken
over. Units are written and enabled even where systemd does not run yet (an image that is being built): --no-start.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click

from api.holding import holder_of
from cli.machine import (
    CONTROLLER_FLAGS,
    check_machine,
    cluster_options,
    label_for_ingress,
    prepare,
    print_next_steps,
    require_root,
    wait_until_ready,
)
from cli.problems import Problem
from cli.units import DIRECTORY, UNITS, Unit, cluster_unit, part_unit

JOIN_SECONDS = 90.0
HOLD_SECONDS = 20.0
_ROLES = ("cluster", "controller", "agent")


@click.command("install")
@click.option("--role", type=click.Choice(_ROLES), help="Default agent with --server, else cluster.")
@click.option("--server", metavar="URL", help="Join this cluster: https://HOST:6443.")
@click.option("--token", envvar="WHERRY_TOKEN", help="Join token; all users of this machine see it here.")
@click.option("--token-file", metavar="FILE", help="A file that holds the join token, - for stdin.")
@click.option("--no-start", is_flag=True, help="Write and enable the unit only.")
@click.option("--units", type=click.Path(path_type=Path), default=DIRECTORY, show_default=True, help="Where units are.")
@cluster_options
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def install_command(role: str | None, units: Path, no_start: bool, data_dir: Path, **given: Any) -> None:
    """Make this machine's part of a cluster survive reboots, by systemd.

    After `--` come further options of `wherry agent` or `wherry controller`: `wherry install --server URL --
    --labels zone=a`.
    """
    require_root("wherry install")
    if not no_start and not Path("/run/systemd/system").exists():
        raise Problem(
            "systemd does not run here", "`wherry up` starts a cluster without it; --no-start writes the unit."
        )
    role = role or ("agent" if given["server"] else "cluster")
    data_dir = data_dir.resolve()
    _refuse_other_units(units, role)
    unit = {"cluster": _cluster, "controller": _controller, "agent": _agent}[role](data_dir, given)
    units.mkdir(parents=True, exist_ok=True)
    (units / unit.name).write_text(unit.render())
    click.echo(f"Wrote {units / unit.name}.")
    if no_start:
        enable_offline(units, unit.name)
        click.echo("It starts with the next boot.")
        return
    _systemctl("daemon-reload")
    _systemctl("enable", unit.name)
    _systemctl("restart", unit.name)
    {"cluster": _finish_cluster, "controller": _finish_controller, "agent": _finish_agent}[role](data_dir, given)


@click.command("uninstall")
@click.option("--units", type=click.Path(path_type=Path), default=DIRECTORY, show_default=True, help="Where units are.")
def uninstall_command(units: Path) -> None:
    """Take back what `wherry install` did; data stay, containers run on until `wherry down`."""
    require_root("wherry uninstall")
    found = [name for name in UNITS if (units / name).exists()]
    if not found:
        raise Problem(
            f"nothing of wherry is installed in {units}", "What `wherry up` started is ended by `wherry down`."
        )
    running = Path("/run/systemd/system").exists() and units == DIRECTORY
    for name in found:
        if running:
            _systemctl("disable", "--now", name)
        (units / "multi-user.target.wants" / name).unlink(missing_ok=True)
        (units / name).unlink()
        click.echo(f"Removed {units / name}.")
    if running:
        _systemctl("daemon-reload")
    click.echo("Containers run on; `wherry down` ends them, with --purge the data go, too.")


def _refuse_other_units(units: Path, role: str) -> None:
    for name in UNITS:
        if name != f"wherry-{role}.service" and (units / name).exists():
            raise Problem(f"{units / name} is there: this machine has another role", "First: wherry uninstall")


def _cluster(data_dir: Path, given: dict[str, Any]) -> Unit:
    if given["server"] or given["arguments"]:
        raise Problem("--role cluster takes neither --server nor options after --", "`wherry up --help` lists its own.")
    _end_own_supervisor(data_dir)
    prepare(data_dir, given)
    return cluster_unit(sys.executable, data_dir)


def _controller(data_dir: Path, given: dict[str, Any]) -> Unit:
    from controller.config import parse_arguments

    if given["server"]:
        raise Problem("--role controller takes no --server: it is one")
    if not given["etcd_endpoints"] and not shutil.which("etcd"):
        raise Problem("this machine lacks: etcd-server", "On Debian or Ubuntu: apt-get install etcd-server")
    arguments = ["--data-dir", str(data_dir), "--port", str(given["port"])]
    for flag in CONTROLLER_FLAGS:
        if value := given[flag]:
            arguments += [f"--{flag.replace('_', '-')}", value]
    if given.get("ingress_external_names"):
        arguments.append("--ingress-external-names")
    arguments += given["arguments"]
    parse_arguments(arguments)  # ends the process with a message for what is wrong
    return part_unit("controller", sys.executable, arguments)


def _agent(data_dir: Path, given: dict[str, Any]) -> Unit:
    from agent.config import parse_arguments, read_token
    from agent.identity import JoinRefused, parse_token

    if not (given["server"] or "").startswith("https://"):
        raise Problem("an agent needs the URL of its cluster", "Say --server https://HOST:6443.")
    check_machine({**given, "etcd_endpoints": "another machine's"})
    arguments = ["--server", given["server"], "--data-dir", str(data_dir), "--port", str(given["agent_port"])]
    flags = ("node_name", "container_runtime_endpoint", "ingress_http_port", "ingress_https_port")
    pairs = [(flag, given[flag]) for flag in flags if given[flag]]
    if given["service_cluster_ip_range"]:
        pairs.append(("service_cidr", given["service_cluster_ip_range"]))
    for flag, value in pairs:
        arguments += [f"--{flag.replace('_', '-')}", value]
    arguments += given["arguments"]
    parse_arguments(arguments)  # ends the process with a message for what is wrong
    joined = (data_dir / "pki" / "agent.pem").exists()
    try:
        token = read_token(given["token_file"]) if given["token_file"] else given["token"]
        if token:
            parse_token(token)
    except (JoinRefused, ValueError) as error:
        raise Problem(str(error), "`wherry token create` on the first machine prints one.") from error
    if token:
        _write_token(token_file(data_dir), token)
    elif not joined:
        raise Problem(
            "a new node needs a join token", "`wherry token create` on the first machine prints one: --token-file."
        )
    return part_unit("agent", sys.executable, arguments, token_file(data_dir))


def token_file(data_dir: Path) -> Path:
    return data_dir / "run" / "join.env"


def _write_token(path: Path, token: str) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(f"WHERRY_TOKEN={token}\n")


def _end_own_supervisor(data_dir: Path) -> None:
    """What `wherry up` started makes room for the unit; containers run on."""
    from cli.supervisor import end

    holder = holder_of(data_dir, "supervisor")
    if holder is not None and not holder.unit:
        click.echo(f"Taking over from the {holder}; containers run on ...")
        end(holder)


def _finish_cluster(data_dir: Path, given: dict[str, Any]) -> None:
    deadline = time.monotonic() + HOLD_SECONDS
    while (holder := holder_of(data_dir, "supervisor")) is None:
        if time.monotonic() > deadline:
            raise Problem("the unit does not start", "journalctl -u wherry-cluster says why.")
        time.sleep(0.1)
    name = wait_until_ready(data_dir, holder.pid)
    label_for_ingress(data_dir, name, serves=given["ingress"])
    print_next_steps(data_dir, name)


def _finish_controller(data_dir: Path, given: dict[str, Any]) -> None:
    click.echo(f"The control plane starts; its kubeconfig is {data_dir / 'admin.kubeconfig'}.")
    click.echo("`journalctl -u wherry-controller` shows what it says.")


def _finish_agent(data_dir: Path, given: dict[str, Any]) -> None:
    """Waits until the node has its certificate; then the token is of no more use here."""
    certificate = data_dir / "pki" / "agent.pem"
    deadline = time.monotonic() + JOIN_SECONDS
    while not certificate.exists():
        if time.monotonic() > deadline:
            raise Problem(f"not joined after {JOIN_SECONDS:.0f} s", "journalctl -u wherry-agent says why; it goes on.")
        time.sleep(0.2)
    token_file(data_dir).unlink(missing_ok=True)
    click.echo(f"Joined {given['server']}; `wherry get nodes` there shows this node.")


def enable_offline(units: Path, name: str) -> None:
    """What `systemctl enable` does, without systemd."""
    wants = units / "multi-user.target.wants"
    wants.mkdir(exist_ok=True)
    link = wants / name
    link.unlink(missing_ok=True)
    link.symlink_to(units / name)


def _systemctl(*arguments: str) -> None:
    done = subprocess.run(["systemctl", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Problem(f"systemctl {' '.join(arguments)}: {done.stderr.strip() or done.returncode}")
