"""The agent's settings: from the command line to one frozen object.

Called by main and by the CLI (`wherry agent`, `wherry up`). Every setting is a flag here and nowhere else, but that
the token may come in the environment (WHERRY_TOKEN), where other users of the machine do not see it.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.network.dns.addresses import default_addresses
from agent.node import Taint, parse_labels, parse_taint

DEFAULT_PORT = 10250
DEFAULT_DATA_DIR = Path("/var/lib/wherry")
DEFAULT_VXLAN_ID, DEFAULT_VXLAN_PORT = 4244, 4789
_MIB = 1 << 20


@dataclass(frozen=True)
class AgentConfig:
    server: str
    data_dir: Path
    token: str = ""
    node_name: str = ""
    node_ip: str = ""
    bind_address: str = ""
    """Where the agent's server listens; "" is all addresses."""
    port: int = DEFAULT_PORT
    runtime_endpoint: str = ""
    """An existing containerd; "" runs a private one under data_dir."""
    labels: tuple[tuple[str, str], ...] = ()
    taints: tuple[Taint, ...] = ()
    cluster_dns: tuple[str, ...] = ()
    """What pods ask; () is the tenth address of `service_cidr`."""
    cluster_domain: str = "cluster.local"
    cluster_cidr: str = "10.244.0.0/16"
    service_cidr: str = "10.96.0.0/12"
    cni_conf_dir: Path | None = None
    resolv_conf: Path = Path("/etc/resolv.conf")
    ingress_ports: tuple[int, int] = (80, 443)
    """HTTP and HTTPS of the ingress; 0: not at all."""
    ingress_external_names: bool = False
    """Whether an Ingress may lead to Services of type ExternalName."""
    vxlan_id: int = DEFAULT_VXLAN_ID
    vxlan_port: int = DEFAULT_VXLAN_PORT
    log_file_bytes: int = 10 * _MIB
    log_files: int = 5
    log_budget_bytes: int = 1024 * _MIB
    seccomp_default: bool = True
    """Containers that name no seccomp profile get the runtime's."""
    protect_kernel_defaults: bool = False

    @property
    def name(self) -> str:
        return (self.node_name or socket.gethostname()).lower()

    @property
    def dns_addresses(self) -> tuple[str, ...]:
        return self.cluster_dns or default_addresses(self.service_cidr)


def parse_arguments(arguments: Sequence[str]) -> AgentConfig:
    """Reads the command line; argparse ends the process with a message for what is wrong."""
    parser = _parser()
    given = parser.parse_args(arguments)
    try:
        labels = tuple(parse_labels(given.labels).items())
        taints = tuple(parse_taint(text) for text in given.taints.split(",") if text)
        refuse_reserved(dict(labels))
        token = read_token(given.token_file) if given.token_file else given.token
    except ValueError as error:
        parser.error(str(error))
    return AgentConfig(
        server=given.server.rstrip("/"),
        data_dir=given.data_dir.resolve(),
        token=token,
        node_name=given.node_name,
        node_ip=given.node_ip,
        bind_address=given.bind_address,
        port=given.port,
        runtime_endpoint=given.container_runtime_endpoint,
        labels=labels,
        taints=taints,
        cluster_dns=tuple(part for part in given.cluster_dns.split(",") if part),
        cluster_domain=given.cluster_domain,
        cluster_cidr=given.cluster_cidr,
        service_cidr=given.service_cidr,
        cni_conf_dir=given.cni_conf_dir,
        resolv_conf=given.resolv_conf,
        ingress_external_names=given.ingress_external_names,
        ingress_ports=(given.ingress_http_port, given.ingress_https_port),
        vxlan_id=given.vxlan_id,
        vxlan_port=given.vxlan_port,
        log_file_bytes=given.log_file_mib * _MIB,
        log_files=given.log_files,
        log_budget_bytes=given.log_budget_mib * _MIB,
        seccomp_default=given.seccomp_default,
        protect_kernel_defaults=given.protect_kernel_defaults,
    )


def read_token(path: str) -> str:
    """The join token in a file, or on stdin for `-`: a command line is seen by every user. Raises ValueError."""
    try:
        text = sys.stdin.read() if path == "-" else Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"--token-file {path}: {getattr(error, 'strerror', None) or error}") from error
    if not text.strip():
        raise ValueError(f"--token-file {path} is empty: `wherry token create` prints a token")
    return text.strip()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="wherry agent", description="Runs this server's part of a wherry cluster.")
    add = parser.add_argument
    add("--server", required=True, help="URL of the controller, https://HOST:PORT")
    add(
        "--data-dir",
        default=DEFAULT_DATA_DIR,
        type=Path,
        help="where the agent keeps everything (default: %(default)s)",
    )
    token = os.environ.get("WHERRY_TOKEN", "")
    hint = "needed to join, and to join anew after the Node was deleted"
    add(
        "--token", default=token, help=f"join token (default: $WHERRY_TOKEN); {hint}; seen by all users of this machine"
    )
    add("--token-file", default="", help="a file that holds the join token, - for stdin")
    add("--node-name", default="", help="name of this node (default: the host's name)")
    add("--node-ip", default="", help="address of this node (default: the one used towards the controller)")
    add("--bind-address", default="", help="where the agent's own server listens (default: everywhere)")
    add("--port", type=int, default=DEFAULT_PORT, help="port of the agent's own server (default: %(default)s)")
    add("--container-runtime-endpoint", default="", help="unix:///path of a containerd to use (default: a private one)")
    add("--labels", default="", help="labels for the node, key=value,...")
    add("--taints", default="", help="taints for a new node, key=value:Effect,...")
    add("--cluster-dns", default="", help="DNS servers of pods (default: the services' range's tenth address)")
    add("--cluster-domain", default="cluster.local", help="DNS domain of the cluster (default: %(default)s)")
    add("--cluster-cidr", default="10.244.0.0/16", help="address range of all pods (default: %(default)s)")
    add("--service-cidr", default="10.96.0.0/12", help="address range of all services (default: %(default)s)")
    add("--cni-conf-dir", type=Path, default=None, help="a directory with a CNI configuration of your own")
    add("--resolv-conf", type=Path, default=Path("/etc/resolv.conf"), help="this node's own (default: %(default)s)")
    tunnel = "of the tunnel to nodes behind routers, the same on all nodes"
    add("--vxlan-id", type=_number(1 << 24), default=DEFAULT_VXLAN_ID, help=f"VNI {tunnel} (default: %(default)s)")
    add(
        "--vxlan-port",
        type=_number(1 << 16),
        default=DEFAULT_VXLAN_PORT,
        help=f"UDP port {tunnel} (default: %(default)s)",
    )
    http, https = "HTTP port of the ingress, if this node serves it", "HTTPS port of the ingress"
    add("--ingress-http-port", type=_port_or_none, default=80, help=f"{http} (default: %(default)s; 0: none)")
    outside = "let Ingresses lead to ExternalName services, past network policies (default: they answer 503)"
    add("--ingress-external-names", action="store_true", help=outside)
    add("--ingress-https-port", type=_port_or_none, default=443, help=f"{https} (default: %(default)s; 0: none)")
    add("--log-file-mib", type=int, default=10, help="rotate a container's log at this size (default: %(default)s)")
    add("--log-files", type=int, default=5, help="log files kept for a container (default: %(default)s)")
    add("--log-budget-mib", type=int, default=1024, help="room for all logs together (default: %(default)s)")
    seccomp = "give containers that name no seccomp profile the runtime's (default: yes)"
    add("--seccomp-default", action=argparse.BooleanOptionalAction, default=True, help=seccomp)
    kernel = "do not start when the kernel's settings are not those that Kubernetes expects (else they are told)"
    add("--protect-kernel-defaults", action="store_true", help=kernel)
    return parser


def _number(limit: int) -> Callable[[str], int]:
    """Reads a whole number above 0 and below `limit`."""

    def number(text: str) -> int:
        if not 0 < (value := int(text)) < limit:
            raise ValueError(text)
        return value

    return number


def refuse_reserved(labels: Mapping[str, str]) -> None:
    """ValueError for labels that a node may not give itself: whoever has a join token would have their rights, too."""
    for key in labels:
        if key.partition("/")[0] == "wherry" and "/" in key:
            command = f"kubectl label node NAME {key}=VALUE"
            raise ValueError(f"a node may not set the label {key} itself; an administrator does: {command}")


def _port_or_none(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65535:
        raise ValueError(text)
    return port
