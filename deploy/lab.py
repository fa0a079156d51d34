"""Several servers on one machine: each node is a network namespace with its own containerd, agent and data directory.

A user's tool (`deploy/lab.sh`) and the tests' harness (`Lab`). The controller runs in the machine's own namespace, the
nodes hang on a bridge. That is in a namespace of its own, too: the kernel shows bridged frames to the rules of where
the bridge is, and those of the machine (another cluster's, Docker's) would judge the nodes' traffic. A node can be
killed (agent, containerd, containers, by SIGKILL), frozen (SIGSTOP), or cut off (its bridge port drops everything, both
ways: no carrier change, no closed connection). The last nodes may be `routed`: on a second bridge and subnet, which the
others and the controller reach through a router (one more namespace) only. `down` leaves nothing behind. What the lab
started is in DIR/lab.json, so every command can be given from another shell.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from agent.runtime.teardown import kill_node, stop_containerd
from agent.trees import remove_tree

DEFAULT_DIR = Path("/var/lib/wherry-lab")
READY_SECONDS = 120.0
STOP_SECONDS = 20.0
_ROUTER = 253
"""The router's place in the nodes' subnet; in its own it is the first."""
_CLUSTER_NETWORKS = {*range(96, 112), 244}
"""N of the 10.N.0.0 that services and pods have."""
_DISABLED, _FORWARDING = "0", "3"
"""States of a bridge port (linux/if_bridge.h)."""


class LabError(Exception):
    """The lab cannot do that; the message says why."""


@dataclass
class LabState:
    """What runs, as kept in lab.json. `agents` maps a node to its agent's pid."""

    tag: str
    port: int
    subnet: str
    controller: int = 0
    agents: dict[str, int] = field(default_factory=dict)
    nodes: list[str] = field(default_factory=list)
    routed: int = 0
    machines: list[str] = field(default_factory=list)
    """Namespaces outside the cluster."""
    controller_flags: list[str] = field(default_factory=list)
    agent_flags: list[str] = field(default_factory=list)


class Lab:
    """One lab. `tag` (up to 6 letters) names its bridge and namespaces, so that several labs do not meet.

    It owns 10.SUBNET.0.0/23, or the next such network that the machine does not know yet. The last `routed` nodes are
    behind the router. The flags are given to every controller and agent that is started.
    """

    def __init__(
        self,
        directory: Path = DEFAULT_DIR,
        *,
        tag: str = "lab",
        port: int = 16443,
        subnet: int = 90,
        routed: int = 0,
        controller_flags: Sequence[str] = (),
        agent_flags: Sequence[str] = (),
    ) -> None:
        self.directory = directory
        stored = directory / "lab.json"
        if stored.exists():
            self.state = LabState(**json.loads(stored.read_text()))
        else:
            self.state = LabState(tag, port, f"10.{subnet}.0.0/24", routed=routed)
            self.state.controller_flags, self.state.agent_flags = list(controller_flags), list(agent_flags)

    @property
    def server(self) -> str:
        return f"https://{self._address(0)}:{self.state.port}"

    @property
    def kubeconfig(self) -> Path:
        return self.directory / "controller" / "admin.kubeconfig"

    @property
    def bridge(self) -> str:
        return f"wh-{self.state.tag}"

    def node_dir(self, node: str) -> Path:
        return self.directory / node

    def up(self, count: int) -> None:
        """Starts the controller and `count` nodes and waits until all are Ready. Raises LabError."""
        if self.state.controller:
            raise LabError(f"a lab is up already in {self.directory}; `lab.sh down` ends it")
        if Path("/sys/class/net", self.bridge).exists():
            raise LabError(f"another lab has the tag {self.state.tag!r}: there is a bridge {self.bridge}")
        for name in ("controller", "logs"):
            (self.directory / name).mkdir(parents=True, exist_ok=True)
        self.state.subnet = _free_subnet(self.state.subnet)
        self.state.nodes = [f"{self.state.tag}{number}" for number in range(1, count + 1)]
        self._save()  # first of all, so that `down` finds what an interrupted `up` made
        self._make_switch()
        if self.state.routed:
            self._make_router()
        self.start_controller()
        token = self._token()
        for node in self.state.nodes:
            self._make_namespace(node)
            self._start_agent(node, token)
        self.wait_ready(self.state.nodes)

    def down(self) -> None:
        """Ends everything and deletes the lab's directory. Idempotent; what another lab made is not touched."""
        if not (self.directory / "lab.json").exists():
            return
        for node in self.state.nodes:
            self._signal_agent(node, signal.SIGCONT)
        self._stop([*self.state.agents.values(), self.state.controller])
        for node in self.state.nodes:
            asyncio.run(stop_containerd(self.node_dir(node), purge=True))
            _ip("netns", "del", self._namespace(node), check=False)
        for namespace in (*self.state.machines, self._namespace(self._router)):
            _ip("netns", "del", namespace, check=False)
        _ip("link", "del", self.bridge, check=False)
        _ip("netns", "del", self._switch, check=False)
        with contextlib.suppress(OSError):
            remove_tree(self.directory)
        self.state = replace(self.state, controller=0, agents={}, nodes=[])

    def start_controller(self) -> None:
        argv = [sys.executable, "-m", "controller.main", "--data-dir", str(self.directory / "controller")]
        argv += ["--port", str(self.state.port), "--advertise-address", self._address(0)]
        argv += self.state.controller_flags
        self.state.controller = self._spawn("controller", argv)
        self._save()

    def stop_controller(self, how: signal.Signals = signal.SIGTERM) -> None:
        _send(self.state.controller, how)
        self._wait_gone([self.state.controller])

    def kill(self, node: str) -> None:
        """The server loses power: agent, containerd, shims and containers get SIGKILL at once, its mounts go."""
        self._signal_agent(node, signal.SIGKILL)
        kill_node(self.node_dir(node))
        self._wait_gone([self.state.agents.pop(node, 0)])
        self._save()

    def kill_agent(self, node: str) -> None:
        """Only the agent dies; its containers and containerd run on."""
        self._signal_agent(node, signal.SIGKILL)
        self._wait_gone([self.state.agents.pop(node, 0)])
        self._save()

    def revive(self, node: str) -> None:
        """Starts a node's agent again; it finds what is left of its containers."""
        self._start_agent(node, "")

    def _start_agent(self, node: str, token: str) -> None:
        argv = ["nsenter", f"--net=/run/netns/{self._namespace(node)}", sys.executable, "-m", "agent.main"]
        argv += ["--server", self.server, "--data-dir", str(self.node_dir(node)), "--node-name", node]
        argv += ["--node-ip", self.address(node), *self.state.agent_flags]
        self.node_dir(node).mkdir(exist_ok=True)
        self.state.agents[node] = self._spawn(node, argv, {"WHERRY_TOKEN": token})
        self._save()

    def cut(self, node: str) -> None:
        """The node's packets vanish; nothing is closed, no carrier is lost."""
        self._set_port(node, _DISABLED)

    def join(self, node: str) -> None:
        self._set_port(node, _FORWARDING)

    def _set_port(self, node: str, state: str) -> None:
        done = _run("bridge", "-n", self._switch, "link", "set", "dev", self._port(node), "state", state)
        if done.returncode:
            raise LabError(f"bridge link set {self._port(node)}: {done.stderr.strip()}")

    def freeze(self, node: str) -> None:
        self._signal_agent(node, signal.SIGSTOP)

    def thaw(self, node: str) -> None:
        self._signal_agent(node, signal.SIGCONT)

    def wait_ready(self, nodes: Iterable[str]) -> None:
        """Returns when all these nodes are Ready. Raises LabError after two minutes, naming who is not."""
        deadline = time.monotonic() + READY_SECONDS
        while missing := set(nodes) - self.ready_nodes():
            if time.monotonic() > deadline:
                raise LabError(
                    f"not Ready after {READY_SECONDS:.0f} s: {', '.join(sorted(missing))}{self.last_words()}"
                )
            time.sleep(0.1)

    def last_words(self) -> str:
        """The end of every process's log, for an error that nobody will be able to look into later."""
        logs = sorted((self.directory / "logs").glob("*.log"))
        return "".join(f"\n--- {log}\n{log.read_text(errors='replace')[-2000:]}" for log in logs)

    def ready_nodes(self) -> set[str]:
        with ThreadPoolExecutor(1) as thread:  # a loop of its own: a test may be running one already
            return thread.submit(lambda: asyncio.run(_ready_nodes(self.kubeconfig))).result()

    def namespace_run(self, node: str, *argv: str) -> subprocess.CompletedProcess[str]:
        """Runs a command on a node's network."""
        return _run("nsenter", f"--net=/run/netns/{self._namespace(node)}", *argv)

    def status(self) -> str:
        ready = self.ready_nodes() if self.state.controller else set()
        lines = [f"server {self.server}", f"export KUBECONFIG={self.kubeconfig}"]
        for node in self.state.nodes:
            shown = _run("bridge", "-n", self._switch, "-json", "link", "show", "dev", self._port(node)).stdout
            cut = '"state":"disabled"' in shown
            facts = ["Ready" if node in ready else "not Ready", *(["cut off"] if cut else [])]
            lines.append(f"{node}  {', '.join(facts)}  {self.node_dir(node)}")
        return "\n".join(lines)

    def address(self, node: str) -> str:
        return self._address(self.state.nodes.index(node) + 1, far=self.is_routed(node))

    def is_routed(self, node: str) -> bool:
        return self.state.nodes.index(node) >= len(self.state.nodes) - self.state.routed

    def _make_namespace(self, node: str) -> None:
        namespace, far = self._namespace(node), self.is_routed(node)
        _ip("netns", "add", namespace)
        _ip("-n", namespace, "link", "set", "lo", "up")
        bridge = self._far_bridge if far else self.bridge
        self._plug(namespace, ("eth0", self._port(node)), bridge, f"{self.address(node)}/24")
        _ip("-n", namespace, "route", "add", "default", "via", self._address(0, far=far))
        if self.state.routed and not far:
            _ip("-n", namespace, "route", "add", self._far_subnet, "via", self._address(_ROUTER))

    def add_machine(self, name: str, place: int) -> tuple[str, str]:
        """One more machine on the first nodes' link, which is no node; its network namespace and its address."""
        namespace, address = self._namespace(f"{self.state.tag}{name}"), self._address(place)
        self.state.machines.append(namespace)
        self._save()
        _ip("netns", "add", namespace)
        _ip("-n", namespace, "link", "set", "lo", "up")
        self._plug(namespace, ("eth0", f"{self.bridge}{name}"), self.bridge, f"{address}/24")
        return namespace, address

    def _make_switch(self) -> None:
        """The bridge, and the machine's own link to it, which has the bridge's name on this side."""
        _ip("netns", "add", self._switch)
        self._make_bridge(self.bridge)
        _ip("link", "add", self.bridge, "type", "veth", "peer", "name", f"{self.bridge}m", "netns", self._switch)
        _ip("-n", self._switch, "link", "set", f"{self.bridge}m", "master", self.bridge, "up")
        _ip("addr", "add", f"{self._address(0)}/24", "dev", self.bridge)
        _ip("link", "set", self.bridge, "up")

    def _make_bridge(self, name: str) -> None:
        _ip("-n", self._switch, "link", "add", name, "type", "bridge", "forward_delay", "0")
        _ip("-n", self._switch, "link", "set", name, "up")

    def _plug(self, namespace: str, ends: tuple[str, str], bridge: str, address: str) -> None:
        """Connects a namespace to a bridge; `ends`: how the link is called there and at the bridge."""
        interface, port = ends
        _ip("-n", self._switch, "link", "add", port, "type", "veth", "peer", "name", interface, "netns", namespace)
        _ip("-n", self._switch, "link", "set", port, "master", bridge, "up")
        _ip("-n", namespace, "link", "set", interface, "up")
        _ip("-n", namespace, "addr", "add", address, "dev", interface)

    def _make_router(self) -> None:
        """A namespace with a foot on each bridge, and the way to it for the controller."""
        namespace = self._namespace(self._router)
        _ip("netns", "add", namespace)
        self._make_bridge(self._far_bridge)
        self._plug(namespace, ("near", f"{self.bridge}ra"), self.bridge, f"{self._address(_ROUTER)}/24")
        self._plug(namespace, ("far", f"{self.bridge}rb"), self._far_bridge, f"{self._address(0, far=True)}/24")
        _ip("-n", namespace, "route", "add", "default", "via", self._address(0))
        _run("nsenter", f"--net=/run/netns/{namespace}", "sysctl", "-qw", "net.ipv4.ip_forward=1")
        _ip("route", "add", self._far_subnet, "via", self._address(_ROUTER))

    def _token(self) -> str:
        argv = [sys.executable, "-m", "cli.main", "--kubeconfig", str(self.kubeconfig), "token", "create"]
        deadline = time.monotonic() + READY_SECONDS
        while True:
            asked = subprocess.run(argv, capture_output=True, text=True, check=False)
            if asked.returncode == 0:
                return asked.stdout.strip()
            if time.monotonic() > deadline:
                raise LabError(f"the controller does not answer: {asked.stderr.strip()}; see {self.directory}/logs")
            time.sleep(0.2)

    def _spawn(self, name: str, argv: list[str], environment: dict[str, str] | None = None) -> int:
        with (self.directory / "logs" / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **(environment or {})},
                start_new_session=True,
            )
        return process.pid

    def _signal_agent(self, node: str, how: signal.Signals) -> None:
        _send(self.state.agents.get(node, 0), how)

    def _stop(self, pids: list[int]) -> None:
        for pid in pids:
            _send(pid, signal.SIGTERM)
        try:
            self._wait_gone(pids)
        except LabError:
            for pid in pids:
                _send(pid, signal.SIGKILL)
            self._wait_gone(pids)

    def _wait_gone(self, pids: list[int]) -> None:
        deadline = time.monotonic() + STOP_SECONDS
        while alive := [pid for pid in pids if pid and _is_alive(pid)]:
            if time.monotonic() > deadline:
                raise LabError(f"processes {alive} do not end")
            time.sleep(0.02)

    @property
    def _router(self) -> str:
        return f"{self.state.tag}router"

    @property
    def _switch(self) -> str:
        return self._namespace(f"{self.state.tag}switch")

    @property
    def _far_bridge(self) -> str:
        return f"{self.bridge}r"

    @property
    def _far_subnet(self) -> str:
        subnet = ipaddress.ip_network(self.state.subnet)
        return f"{subnet[0] + subnet.num_addresses}/{subnet.prefixlen}"

    def _address(self, number: int, *, far: bool = False) -> str:
        return str(ipaddress.ip_network(self._far_subnet if far else self.state.subnet)[number + 1])

    def _namespace(self, node: str) -> str:
        return f"wherry-{node}"

    def _port(self, node: str) -> str:
        return f"wh-{node}"

    def _save(self) -> None:
        (self.directory / "lab.json").write_text(json.dumps(asdict(self.state), indent=2) + "\n")


async def _ready_nodes(kubeconfig: Path) -> set[str]:
    from api import kinds
    from api.client import Client
    from api.errors import ApiError
    from api.objects import is_ready, name_of
    from api.tls import load_kubeconfig

    try:
        target = load_kubeconfig(kubeconfig)
        async with Client(target.server, target.credentials, timeout=5) as client:
            nodes = (await client.list(kinds.by_resource("", "nodes")))["items"]
    except (OSError, ApiError):
        return set()
    return {name_of(node) for node in nodes if is_ready(node)}


def _free_subnet(first: str) -> str:
    """`first`, or the next 10.N.0.0/24 whose /16 holds no address of this machine, no service and no pod."""
    links = json.loads(_run("ip", "-json", "-4", "address").stdout or "[]")
    addresses = [address["local"].split(".") for link in links for address in link["addr_info"]]
    taken = _CLUSTER_NETWORKS | {int(second) for ten, second, *_ in addresses if ten == "10"}
    start = int(first.split(".")[1])
    for number in (*range(start, 256), *range(start)):
        if number not in taken:
            return f"10.{number}.0.0/24"
    raise LabError("this machine has addresses in every network 10.N.0.0/16: no room for a lab")


def _ip(*arguments: str, check: bool = True) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise LabError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")


def _run(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, capture_output=True, text=True, check=False)


def _send(pid: int, how: signal.Signals) -> None:
    if pid:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, how)


def _is_alive(pid: int) -> bool:
    with contextlib.suppress(ChildProcessError):
        return os.waitpid(pid, os.WNOHANG) == (0, 0)
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def main() -> None:
    verbs = ("up", "down", "status", "kill", "revive", "cut", "join", "freeze", "thaw")
    usage = "run as root: lab.sh up N [--routed N] | status | down | (kill | revive | cut | join | freeze | thaw) NODE"
    words = sys.argv[1:]
    if not words or words[0] not in verbs or os.geteuid() != 0:
        sys.exit(usage)
    counts = [int(word) for word in words[1:] if word.isdigit()]
    routed = counts.pop() if "--routed" in words[:-1] and counts else 0
    lab = Lab(routed=routed)
    try:
        if words[0] == "up":
            lab.up(counts[0] if counts else 3)
        elif words[0] == "down":
            lab.down()
        elif words[0] != "status":
            if len(words) < 2 or words[1] not in lab.state.nodes:
                raise LabError(f"which node? There are: {', '.join(lab.state.nodes) or 'none; start with lab.sh up 3'}")
            getattr(lab, words[0])(words[1])
        if words[0] != "down":
            print(lab.status())
    except LabError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
