"""The node's pod network: a veth a pod, addresses out of the node's podCIDR, host ports, masquerading.

Called by the agent once the node knows its podCIDR (and again at every start). Writes a CNI configuration for the
plug-ins ptp, host-local, portmap and loopback, which containerd runs for each sandbox, and one nftables table. All
names carry the data directory's id, so several nodes get along on one machine, in one network namespace or several.

Pods share no link: every packet, also one to a pod of the same node, passes the host's IP layer, where conntrack,
services and policies see it. Masquerading is static instead of the plug-in's `ipMasq`, which runs iptables for every
pod: what leaves the cluster takes the node's address; pods, services and the cluster's nodes see the pod's own.
The nodes' addresses in it are kept by `routes`. Needs `nft`, and `iptables` for portmap. Formats:
github.com/containernetworking/cni SPEC.md 1.0.0, nft(8).
"""

from __future__ import annotations

import fcntl
import ipaddress
import json
import os
import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.network.bridge import retire_bridge
from agent.network.commands import run_program
from agent.network.model import family_of
from agent.runtime.errors import Failed

_CONFIG_MODE = 0o600
CONFLIST_NAME = "90-wherry.conflist"
TUNNEL_BYTES = {4: 50, 6: 70}
"""What VXLAN puts around a packet. Pods always leave that room: no packet is lost to a smaller path."""
TUNNEL_MARK = 0x1000
"""The mark of pods' packets to nodes behind the tunnel: one bit, apart from kube-proxy's and portmap's."""
_AFTER_DNAT = -90
NFT_FAMILIES = {4: "ip", 6: "ip6"}
_EVERYWHERE = {4: "0.0.0.0/0", 6: "::/0"}
_NOBODY = {4: "0.0.0.0", 6: "::"}
"""The source of a host that has no address yet."""
_STAYS_ON_LINK = {4: ("169.254.0.0/16", "224.0.0.0/4"), 6: ("fe80::/10", "ff00::/8")}


@dataclass(frozen=True)
class PodNetwork:
    """What a node's pod network is made from. `node_id` keeps names of several nodes on one machine apart."""

    node_id: str
    pod_cidrs: tuple[str, ...]
    """One a family; the first one's family is the pods' main one."""
    cluster_cidrs: tuple[str, ...]
    """All pods of the cluster, one range a family."""
    addresses_dir: Path
    mtu: int = 1500
    service_cidrs: tuple[str, ...] = ()
    uplink: str = ""
    """The interface towards the peers: no pod's, whatever it is called."""

    @property
    def name(self) -> str:
        return network_name(self.node_id)

    @property
    def table(self) -> str:
        return table_name(self.node_id)


def network_name(node_id: str) -> str:
    """The CNI network's name: libcni files its cached results under it, on a path that all nodes share."""
    return f"wherry-{node_id}"


def table_name(node_id: str) -> str:
    """The nftables table of a node's pods; a part of the network has its own, with `_PART` added."""
    return f"wherry_{node_id}"


def render_conflist(network: PodNetwork) -> dict[str, Any]:
    """The CNI configuration list; ValueError when a CIDR is none or podCIDR has no room for pods."""
    subnets = [ipaddress.ip_network(cidr) for cidr in network.pod_cidrs]
    for subnet in subnets:
        if subnet.num_addresses < 4:
            raise ValueError(f"podCIDR {subnet} has no room for pods")
    ptp = {
        "type": "ptp",
        "ipMasq": False,
        "mtu": network.mtu,
        "ipam": {
            "type": "host-local",
            "ranges": [[{"subnet": str(subnet)}] for subnet in subnets],
            "routes": [{"dst": _EVERYWHERE[subnet.version]} for subnet in subnets],
            "dataDir": str(network.addresses_dir),
        },
    }
    portmap = {"type": "portmap", "capabilities": {"portMappings": True}, "snat": True}
    return {"cniVersion": "0.4.0", "name": network.name, "plugins": [ptp, portmap]}


def render_masquerade(network: PodNetwork) -> str:
    """The node's nftables tables, as a transaction that keeps what `routes` put into the sets of nodes.

    Multicast and link-local addresses are for the link only: a changed source would help nobody. Marked are pods'
    packets to nodes that are reached through the tunnel, but no answers from a host port, which was asked outside it.
    What comes in on a pod's link (ptp calls them veth...) from an address that is not behind this link is forged.
    """
    lines = []
    uplink = f'iifname != "{network.uplink}" ' if network.uplink else ""
    for pod_cidr in network.pod_cidrs:
        family = family_of(pod_cidr)
        nft, table = NFT_FAMILIES[family], f"{NFT_FAMILIES[family]} {network.table}"
        known = (pod_cidr, *network.cluster_cidrs, *network.service_cidrs)
        inside = [cidr for cidr in known if family_of(cidr) == family]
        apart = ", ".join(_merged([*inside, *_STAYS_ON_LINK[family]]))
        lines += [
            f"add table {table}",
            f"add set {table} nodes {{ type ipv{family}_addr; }}",
            f"add set {table} tunnelled {{ type ipv{family}_addr; }}",
            f"add chain {table} postrouting {{ type nat hook postrouting priority srcnat; policy accept; }}",
            f"add chain {table} prerouting {{ type filter hook prerouting priority {_AFTER_DNAT}; policy accept; }}",
            f"flush chain {table} postrouting",
            f"flush chain {table} prerouting",
            f"add rule {table} postrouting {nft} saddr {pod_cidr} {nft} daddr != {{ {apart} }} {nft} daddr != @nodes "
            "masquerade fully-random",
            f'add rule {table} prerouting iifname "veth*" {uplink}'
            f"{nft} saddr != {_NOBODY[family]} fib saddr . iif oif missing drop",
            f"add rule {table} prerouting ct direction reply ct status dnat return",
            f"add rule {table} prerouting {nft} saddr {pod_cidr} {nft} daddr @tunnelled "
            f"meta mark set meta mark or {TUNNEL_MARK}",
        ]
    return "\n".join(lines) + "\n"


def _merged(cidrs: Iterable[str]) -> list[str]:
    """nft refuses sets whose ranges overlap. ValueError for what is no CIDR."""
    networks: Any = [ipaddress.ip_network(cidr) for cidr in cidrs]  # of one family
    return [str(network) for network in ipaddress.collapse_addresses(networks)]


async def ensure_pod_network(network: PodNetwork, conf_dir: Path) -> Path:
    """Make the node ready for pods; returns the configuration file that containerd will use. Idempotent.

    A configuration that somebody else put into `conf_dir` is respected: ours is then not written (an earlier one of
    ours is taken away) and no masquerading is set up. Failed when nft or iptables refuses; ValueError for bad CIDRs.
    """
    own = conf_dir / CONFLIST_NAME
    if (foreign := foreign_config(conf_dir)) is not None:
        own.unlink(missing_ok=True)
        return foreign
    text = json.dumps(render_conflist(network), indent=2) + "\n"
    await apply_nft(render_masquerade(network))
    for cidr in dict.fromkeys((*network.pod_cidrs, *network.cluster_cidrs)):
        await _allow_forwarding(network.node_id, cidr)
    for family in {family_of(cidr) for cidr in network.pod_cidrs}:
        _forward_packets(family)
    await retire_bridge(network.node_id)
    _write_if_changed(own, text)
    return own


def _write_if_changed(path: Path, text: str) -> None:
    """containerd watches the directory: the file appears whole, and only when there is news."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_text() != text:
        fresh = path.with_suffix(".new")
        fresh.unlink(missing_ok=True)
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _CONFIG_MODE), "w") as opened:
            opened.write(text)
        fresh.replace(path)
    path.chmod(_CONFIG_MODE)  # one of before may be readable


def foreign_config(conf_dir: Path) -> Path | None:
    """The first CNI configuration in a directory that is not ours, in the order in which containerd reads them."""
    if not conf_dir.is_dir():
        return None
    configs = sorted(path for path in conf_dir.iterdir() if path.suffix in (".conf", ".conflist", ".json"))
    return next((path for path in configs if path.name != CONFLIST_NAME), None)


async def apply_nft(transaction: str) -> None:
    """Apply an nftables transaction in the current network namespace: all of it or nothing. Failed with nft's words."""
    outcome = await run_program("nft", ["-f", "-"], transaction)
    if outcome.code:
        raise Failed(f"nft: {outcome.complaint}")


def forwarding_comment(node_id: str) -> str:
    """By which a node's rules in iptables' FORWARD chain are known again."""
    return f"wherry pods {node_id}"


async def _allow_forwarding(node_id: str, cidr: str) -> None:
    """Let pods' packets through where the machine forwards nothing by default.

    Docker sets the policy of FORWARD to DROP, and an accept in a table of our own cannot overrule that.
    """
    program = iptables_program(family_of(cidr))
    for direction in ("-s", "-d"):
        rule = ["FORWARD", direction, cidr, "-m", "comment", "--comment", forwarding_comment(node_id), "-j", "ACCEPT"]
        if (await run_program(program, ["-w", "-C", *rule])).code:
            outcome = await run_program(program, ["-w", "-I", *rule])
            if outcome.code:
                raise Failed(f"{program}: {outcome.complaint}")


def iptables_program(family: int) -> str:
    return "ip6tables" if family == 6 else "iptables"


def _forward_packets(family: int) -> None:
    """A node forwards from the start, not only since its first pod: services lead to other nodes' pods, too."""
    switch = Path("/proc/sys/net", "ipv6/conf/all/forwarding" if family == 6 else "ipv4/ip_forward")
    if switch.read_text().strip() == "0":
        switch.write_text("1")


def pod_mtu(node_address: str) -> int:
    """The pods' MTU: what fits through every interface they use, also when VXLAN is put around it."""
    return min(default_mtu(), _mtu_of_address(node_address)) - TUNNEL_BYTES[family_of(node_address)]


def _mtu_of_address(address: str) -> int:
    """The MTU of the interface that has an address; 1500 when none has."""
    interface = interface_of(address)
    return interface_mtu(interface) if interface else 1500


def interface_of(address: str) -> str:
    """The interface that has an address; "" when none has."""
    if family_of(address) == 6:
        wanted = ipaddress.ip_address(address).packed.hex()
        rows = (line.split() for line in Path("/proc/net/if_inet6").read_text().splitlines())
        return next((row[5] for row in rows if row[0] == wanted), "")
    return next((name for _, name in socket.if_nameindex() if _ipv4_of(name) == address), "")


def _ipv4_of(interface: str) -> str:
    """An interface's first IPv4 address; "" when it has none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            reply = fcntl.ioctl(probe, 0x8915, struct.pack("16s24x", interface.encode()))  # SIOCGIFADDR
        except OSError:
            return ""
    return socket.inet_ntoa(reply[20:24])


def default_mtu() -> int:
    """The MTU of the interface that leads out of this network namespace; 1500 when nothing does."""
    for line in Path("/proc/net/route").read_text().splitlines()[1:]:
        interface, destination = line.split()[:2]
        if destination == "00000000":
            return interface_mtu(interface)
    return 1500


def interface_mtu(interface: str) -> int:
    """One interface's MTU, asked of the kernel in this network namespace (/sys may show another one's)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        reply = fcntl.ioctl(probe, 0x8921, struct.pack("16sI12x", interface.encode(), 0))  # SIOCGIFMTU
    return int(struct.unpack("16sI12x", reply)[1])
