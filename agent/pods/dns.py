"""The pod's resolv.conf and hosts file; called when a sandbox or a container is configured.

Pure, but that it reads the node's own resolv.conf.

Rules: kubernetes.io/docs/concepts/services-networking/dns-pod-service (policies, dnsConfig, limits).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.runtime.protocol import DnsConfig
from api.objects import Object, name_of, namespace_of

MAX_SERVERS = 3
MAX_SEARCHES = 32
_RESOLVED = Path("/run/systemd/resolve/resolv.conf")
_HOSTS = """\
# Kubernetes-managed hosts file.
127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::0\tip6-localnet
fe00::0\tip6-mcastprefix
fe00::1\tip6-allnodes
fe00::2\tip6-allrouters
"""


@dataclass(frozen=True)
class Resolver:
    """How names are resolved here: the cluster's servers and domain, and what the node's own resolv.conf says.

    Without cluster servers, ClusterFirst pods ask the node's servers, with the cluster's search domains.
    """

    cluster_servers: tuple[str, ...] = ()
    domain: str = "cluster.local"
    read_node: Callable[[], DnsConfig] = DnsConfig

    @property
    def node(self) -> DnsConfig:
        """As it is now: machines change their servers while they run."""
        return self.read_node()


def read_resolv_conf(path: Path) -> DnsConfig:
    """A node's resolv.conf; nothing when it cannot be read. See `servers_file`."""
    try:
        return parse_resolv_conf(servers_file(path).read_text(errors="replace"))
    except OSError:
        return DnsConfig()


def servers_file(path: Path, behind: Path = _RESOLVED) -> Path:
    """The file with the servers that a pod can ask, too: systemd-resolved's own where `path` names only itself."""
    try:
        servers = parse_resolv_conf(path.read_text(errors="replace")).servers
        local = [ipaddress.ip_address(server.partition("%")[0]).is_loopback for server in servers]
    except (OSError, ValueError):
        return path
    return behind if local and all(local) and behind.exists() else path


def parse_resolv_conf(text: str) -> DnsConfig:
    servers: list[str] = []
    searches: Sequence[str] = ()
    options: Sequence[str] = ()
    for words in (line.split() for line in text.splitlines()):
        match words:
            case ["nameserver", address, *_]:
                servers.append(address)
            case ["search" | "domain", *names]:
                searches = names
            case ["options", *given]:
                options = given
            case _:
                continue
    return DnsConfig(tuple(servers), tuple(searches), tuple(options))


def dns_config(pod: Object, resolver: Resolver) -> DnsConfig:
    """What the pod's resolv.conf says, by its dnsPolicy and dnsConfig."""
    policy = pod["spec"].get("dnsPolicy") or "ClusterFirst"
    if policy == "ClusterFirst" and pod["spec"].get("hostNetwork"):
        policy = "Default"
    if policy == "None":
        base = DnsConfig()
    elif policy == "Default":
        base = resolver.node
    else:
        domain, node = resolver.domain, resolver.node
        searches = (f"{namespace_of(pod)}.svc.{domain}", f"svc.{domain}", domain, *node.searches)
        base = DnsConfig(resolver.cluster_servers or node.servers, searches, ("ndots:5",))
    return _merged(base, pod["spec"].get("dnsConfig") or {})


def _merged(base: DnsConfig, own: Object) -> DnsConfig:
    options = dict(option.partition(":")[::2] for option in base.options)
    options |= {option["name"]: option.get("value") or "" for option in own.get("options") or ()}
    return DnsConfig(
        tuple(dict.fromkeys((*base.servers, *(own.get("nameservers") or ()))))[:MAX_SERVERS],
        tuple(dict.fromkeys((*base.searches, *(own.get("searches") or ()))))[:MAX_SEARCHES],
        tuple(f"{name}:{value}" if value else name for name, value in options.items()),
    )


def hostname_of(pod: Object, node_hostname: str) -> str:
    """What `hostname` prints in the pod."""
    if pod["spec"].get("hostNetwork"):
        return node_hostname
    return str(pod["spec"].get("hostname") or name_of(pod)[:63].rstrip("-."))


def fqdn_of(pod: Object, domain: str) -> str:
    """`host.subdomain.namespace.svc.domain`, or "" for a pod without subdomain."""
    subdomain = pod["spec"].get("subdomain")
    return f"{hostname_of(pod, '')}.{subdomain}.{namespace_of(pod)}.svc.{domain}" if subdomain else ""


def hosts_file(pod: Object, pod_ips: Sequence[str], domain: str, node_hosts: str = "") -> str:
    """The whole /etc/hosts of the pod's containers; `node_hosts` is the node's own, for pods in its network."""
    if pod["spec"].get("hostNetwork"):
        text = "# Kubernetes-managed hosts file (host network).\n" + node_hosts
    else:
        fqdn = fqdn_of(pod, domain)
        names = [*([fqdn] if fqdn else []), hostname_of(pod, "")]
        text = _HOSTS + "".join("\t".join([address, *names]) + "\n" for address in pod_ips)
    if aliases := pod["spec"].get("hostAliases"):
        text += "\n# Entries added by HostAliases.\n"
        text += "".join("\t".join([alias["ip"], *(alias.get("hostnames") or ())]) + "\n" for alias in aliases)
    return text
