"""`wherry up`, `down`, `controller`, `agent`: the processes of one machine.

`up` writes down what to run, starts the supervisor (see supervisor.py) and waits until the node is Ready. Everything
it makes lives under --data-dir. `controller` and `agent` hand their flags to those programs unread.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from api.holding import holder_of
from cli.cluster import DEFAULT_DATA_DIR
from cli.problems import Problem
from cli.rootmount import root_is_a_mount, with_mounted_root

READY_SECONDS = 120.0
STOP_SECONDS = 45.0
PASS_THROUGH = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}
PROGRAMS = {
    "etcd": "etcd-server",
    "containerd": "containerd",
    "runc": "runc",
    "iptables": "iptables",
    "nft": "nftables",
    "ip": "iproute2",
}
CHROOT_WARNING = (
    "warning: / is no mount point in this chroot: containers run, but `exec` into them does not work. "
    "Better enter it by `mount --rbind DIR DIR && chroot DIR`."
)
CONTROLLER_FLAGS = (
    "etcd_endpoints",
    "service_cluster_ip_range",
    "service_node_port_range",
    "load_balancer_pool",
    "enable_admission_plugins",
)
"""Options of `up` that are the controller's."""
F = TypeVar("F", bound=Callable[..., Any])
CNI_DIRECTORIES = (Path("/opt/cni/bin"), Path("/usr/lib/cni"), Path("/usr/libexec/cni"))


_OPTIONS = (
    click.option("--data-dir", type=click.Path(path_type=Path), default=DEFAULT_DATA_DIR, show_default=True),
    click.option("--port", type=click.IntRange(1, 65535), default=6443, show_default=True, help="The API's port."),
    click.option(
        "--agent-port", type=click.IntRange(1, 65535), default=10250, show_default=True, help="Port of the agent."
    ),
    click.option("--node-name", help="Name of this node; default the host name."),
    click.option("--etcd-endpoints", help="Use this etcd (host:port, comma-separated) instead of a private one."),
    click.option("--container-runtime-endpoint", help="Use this containerd socket instead of a private one."),
    click.option("--service-cluster-ip-range", help="Addresses of Services; default 10.96.0.0/12."),
    click.option("--service-node-port-range", help="Node ports of Services; default 30000-32767."),
    click.option(
        "--load-balancer-pool", help="Addresses of load balancers (CIDR, FIRST-LAST); default those of nodes."
    ),
    click.option("--enable-admission-plugins", help="Checks that are off by default: DenyServiceExternalIPs."),
    click.option("--ingress-http-port", help="HTTP port of the ingress; default 80, 0 for none."),
    click.option("--ingress-https-port", help="HTTPS port of the ingress; default 443, 0 for none."),
    click.option("--ingress-external-names", is_flag=True, help="Let Ingresses lead to Services of type ExternalName."),
    click.option("--ingress/--no-ingress", default=True, help="Whether this node serves Ingresses; default it does."),
)


def cluster_options(command: F) -> F:
    """The options that say what a cluster on this machine is like, for `up` and `install`."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@click.command("up")
@click.option("--detach", "-d", is_flag=True, help="Return when the node is Ready; the cluster runs on.")
@cluster_options
def up_command(data_dir: Path, detach: bool, ingress: bool, **given: Any) -> None:
    """Start a whole cluster on this machine: etcd, controller, containerd, agent."""
    data_dir = data_dir.resolve()
    pid = supervisor_pid(data_dir)
    if pid:
        click.echo(f"A cluster is already running from {data_dir} (process {pid}).")
        if json.loads(_plan_file(data_dir).read_text()) != render_plan(data_dir, given):
            click.echo(
                "It keeps the options it was started with; `wherry down` and `up` again to change them.", err=True
            )
    else:
        prepare(data_dir, given)
        pid = start_supervisor(data_dir)
        label_for_ingress(data_dir, wait_until_ready(data_dir, pid), serves=ingress)
    name = wait_until_ready(data_dir, pid)
    print_next_steps(data_dir, name)
    if not detach:
        stay(data_dir, pid)


@click.command("down")
@click.option("--data-dir", type=click.Path(path_type=Path), default=DEFAULT_DATA_DIR, show_default=True)
@click.option("--purge", is_flag=True, help="Also delete the data directory with all it holds, volumes included.")
def down_command(data_dir: Path, purge: bool) -> None:
    """Stop what `up` started, containers included. Data stays unless --purge is given."""
    data_dir = data_dir.resolve()
    if not data_dir.exists():
        click.echo(f"Nothing to stop: {data_dir} does not exist.")
        return
    require_root("wherry down")
    import asyncio

    from agent.runtime.teardown import stop_containerd
    from cli.parts import everything_ended, remove_data

    with everything_ended(data_dir):
        click.echo("Stopping containers ...")
        asyncio.run(stop_containerd(data_dir, purge=purge))
        if purge:
            remove_data(data_dir)
    click.echo(f"Stopped; {data_dir} is deleted." if purge else f"Stopped; {data_dir} keeps the data.")


@click.command("status")
@click.option("--data-dir", type=click.Path(path_type=Path), default=DEFAULT_DATA_DIR, show_default=True)
def status_command(data_dir: Path) -> None:
    """Show what of a cluster runs on this machine. Exits with 3 when nothing does."""
    from cli.output import render_table
    from cli.parts import processes

    running = processes(data_dir.resolve())
    if not running:
        raise Problem(f"nothing of wherry runs from {data_dir}", "Start it with `wherry up`.", exit_code=3)
    click.echo(render_table(("PART", "PROCESS", "HOW"), running))
    if not any(part == "supervisor" for part, _pid, _how in running) and not any(
        ".service" in how for *_, how in running
    ):
        click.echo("Nothing starts these again when they end: `wherry up` takes them over, `wherry down` ends them.")


@click.command("controller", context_settings=PASS_THROUGH, add_help_option=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def controller_command(arguments: tuple[str, ...]) -> None:
    """Run the control plane alone; `wherry controller --help` lists the flags."""
    _become("controller.main", arguments)


@click.command("agent", context_settings=PASS_THROUGH, add_help_option=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def agent_command(arguments: tuple[str, ...]) -> None:
    """Run the node agent alone; `wherry agent --help` lists the flags."""
    _become("agent.main", arguments)


def _become(module: str, arguments: tuple[str, ...]) -> None:
    os.execv(sys.executable, [sys.executable, "-m", module, *arguments])


def require_root(what: str) -> None:
    if os.geteuid() != 0:
        raise Problem(f"{what} needs root: it runs containers and sets up their network", "Run it with sudo.")


def prepare(data_dir: Path, given: dict[str, Any]) -> None:
    """Writes down what to run, once nothing stands in the way. Raises Problem, naming what does."""
    from cli.parts import refuse_taken_ports, refuse_what_is_not_ours, warn_of_ingress_ports

    check_machine(given)
    refuse_what_is_not_ours(data_dir)
    refuse_taken_ports(data_dir, given["port"], given["agent_port"])
    defaults = {"ingress_http_port": 80, "ingress_https_port": 443}
    ports = {f"--{name.replace('_', '-')}": int(given[name] or default) for name, default in defaults.items()}
    warn_of_ingress_ports(data_dir, ports)
    write_plan(data_dir, given)


def check_machine(given: dict[str, Any]) -> None:
    """Everything that `up` needs is here, or one Problem names all that is missing and how to get it."""
    require_root("wherry up")
    own = {"etcd": not given["etcd_endpoints"], "containerd": not given["container_runtime_endpoint"]}
    missing = [package for name, package in PROGRAMS.items() if own.get(name, True) and not shutil.which(name)]
    if not any((directory / "ptp").exists() for directory in CNI_DIRECTORIES):
        missing.append("containernetworking-plugins")
    if missing:
        raise Problem(
            f"this machine lacks: {', '.join(missing)}",
            f"On Debian or Ubuntu: apt-get install {' '.join(missing)}   (deploy/quickstart.sh does it for you)",
        )


def write_plan(data_dir: Path, given: dict[str, Any]) -> None:
    """Writes run/cluster.json, which the supervisor reads."""
    for part in ("run", "logs"):
        (data_dir / part).mkdir(parents=True, exist_ok=True)
    data_dir.chmod(0o700)
    _plan_file(data_dir).write_text(json.dumps(render_plan(data_dir, given), indent=2) + "\n")


def render_plan(data_dir: Path, given: dict[str, Any]) -> dict[str, Any]:
    """The node's name, and the command lines that the supervisor keeps running."""
    python = [sys.executable, "-m"]
    port = given["port"]
    controller = [*python, "controller.main", "--data-dir", str(data_dir), "--port", str(port)]
    for flag in CONTROLLER_FLAGS:
        if value := given.get(flag):
            controller += [f"--{flag.replace('_', '-')}", value]
    agent = [*python, "agent.main", "--server", f"https://127.0.0.1:{port}", "--data-dir", str(data_dir)]
    agent += ["--port", str(given["agent_port"])]
    if given["service_cluster_ip_range"]:
        agent += ["--service-cidr", given["service_cluster_ip_range"]]
    for flag in ("ingress_http_port", "ingress_https_port"):
        if value := given[flag]:
            agent += [f"--{flag.replace('_', '-')}", value]
    if given.get("ingress_external_names"):
        agent.append("--ingress-external-names")
    node = (given["node_name"] or socket.gethostname()).lower()
    agent += ["--node-name", node]
    if given["container_runtime_endpoint"]:
        agent += ["--container-runtime-endpoint", given["container_runtime_endpoint"]]
    kubeconfig = str(data_dir / "admin.kubeconfig")
    token = [*python, "cli.main", "--kubeconfig", kubeconfig, "token", "create", "--ttl", "1h"]
    return {"node": node, "controller": controller, "agent": agent, "token": token}


def _plan_file(data_dir: Path) -> Path:
    return data_dir / "run" / "cluster.json"


def start_supervisor(data_dir: Path) -> int:
    command = [sys.executable, "-m", "cli.supervisor", str(data_dir)]
    if not root_is_a_mount():
        click.echo(CHROOT_WARNING, err=True)
        command = with_mounted_root(command, tempfile.mkdtemp(prefix="wherry-root-"))
    with (data_dir / "logs" / "supervisor.log").open("ab") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    return process.pid


def supervisor_pid(data_dir: Path) -> int:
    """The running supervisor of this data directory, or 0."""
    holder = holder_of(data_dir, "supervisor")
    return holder.pid if holder is not None else 0


def wait_until_ready(data_dir: Path, pid: int) -> str:
    """Waits until this machine's node is Ready, saying for what. Returns its name; raises Problem with the last log
    lines."""
    import asyncio

    name = str(json.loads(_plan_file(data_dir).read_text())["node"])
    deadline = time.monotonic() + READY_SECONDS
    told = ""
    while time.monotonic() < deadline:
        if not _is_alive(pid):
            raise Problem("the cluster stopped while starting", last_lines(data_dir))
        stage = asyncio.run(_awaited(data_dir, name))
        if not stage:
            return name
        if stage != told:
            click.echo(f"Waiting for {stage} ...")
            told = stage
        time.sleep(0.2)
    raise Problem(f"still waiting for {told} after {READY_SECONDS:.0f} s", last_lines(data_dir))


async def _awaited(data_dir: Path, node: str) -> str:
    """What `up` still waits for; "" when this machine's node is Ready.

    The agent itself is asked, too: after a restart the node's status is that of the time before for some seconds.
    """
    from api import kinds
    from api.client import Client
    from api.errors import ApiError
    from api.objects import is_ready
    from api.tls import load_kubeconfig

    try:
        target = load_kubeconfig(data_dir / "admin.kubeconfig")
        async with Client(target.server, target.credentials, timeout=5) as client:
            await client.request("GET", "/readyz")
            try:
                found = await client.get(kinds.by_resource("", "nodes"), "", node)
                await client.request("GET", f"/api/v1/nodes/{node}/proxy/healthz")
            except ApiError:
                return "the node to be Ready"
    except (OSError, ValueError, ApiError):
        return "the controller"
    return "" if is_ready(found) else "the node to be Ready"


def label_for_ingress(data_dir: Path, node: str, *, serves: bool) -> None:
    """Sets or takes away the label that lets a node serve Ingresses, which no node may do itself; a value that a person
    gave it stays."""
    import asyncio

    asyncio.run(_label_for_ingress(data_dir, node, serves=serves))


async def _label_for_ingress(data_dir: Path, node: str, *, serves: bool) -> None:
    from api import kinds
    from api.client import MERGE_PATCH, Client
    from api.ingress import NODE_LABEL
    from api.objects import labels_of
    from api.tls import load_kubeconfig

    target = load_kubeconfig(data_dir / "admin.kubeconfig")
    nodes = kinds.by_resource("", "nodes")
    async with Client(target.server, target.credentials) as client:
        present = labels_of(await client.get(nodes, "", node)).get(NODE_LABEL)
        if serves and present is None:
            await client.patch(nodes, ("", node, ""), {"metadata": {"labels": {NODE_LABEL: "true"}}}, MERGE_PATCH)
        elif not serves and present == "true":
            await client.patch(nodes, ("", node, ""), {"metadata": {"labels": {NODE_LABEL: None}}}, MERGE_PATCH)


def _is_alive(pid: int) -> bool:
    try:
        return os.waitpid(pid, os.WNOHANG) == (0, 0)
    except ChildProcessError:
        return Path(f"/proc/{pid}").exists()


def last_lines(data_dir: Path, count: int = 8) -> str:
    """The end of each log, for whoever has to find out why."""
    parts = []
    for log in sorted((data_dir / "logs").glob("*.log")):
        lines = log.read_text(errors="replace").splitlines()[-count:]
        parts.append("\n".join([f"--- {log}", *lines]))
    return "\n".join(parts)


def print_next_steps(data_dir: Path, node: str) -> None:
    kubeconfig = data_dir / "admin.kubeconfig"
    click.echo(f"Node {node} is Ready. How to go on:")
    click.echo(f"  export KUBECONFIG={kubeconfig}")
    click.echo("  wherry get pods -A          (or kubectl, helm: any Kubernetes client works)")
    click.echo("  wherry token create         a token to join further servers with `wherry agent`")
    click.echo(f"  wherry down --data-dir {data_dir}")


def stay(data_dir: Path, pid: int) -> None:
    """Foreground: until Ctrl-C, which stops controller and agent (containers run on)."""
    click.echo("Running; Ctrl-C stops controller and agent, containers run on.")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        while _is_alive(pid):
            time.sleep(0.5)
    except KeyboardInterrupt:
        stop_process(pid)
        return
    raise Problem("the cluster stopped", last_lines(data_dir))


def stop_process(pid: int) -> None:
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_SECONDS
    while _is_alive(pid):
        if time.monotonic() > deadline:
            raise Problem(f"process {pid} does not stop", f"Look at it with `ps -fp {pid}`.")
        time.sleep(0.1)
