"""The node's pod network: a bridge, addresses out of the node's podCIDR, host ports, masquerading.

Called by the agent once the node knows its podCIDR (and again at every start). Writes a CNI configuration for the
plug-ins bridge, host-local, portmap and loopback, which containerd runs for each sandbox, and one nftables table. All
names carry the data directory's id, so several nodes get along on one machine, in one network namespace or several.

Masquerading is one static rule instead of the bridge plug-in's `ipMasq`, which runs iptables for every pod: packets
from this node's pods to anywhere but the cluster's own pods take the node's address. Needs `nft`, and `iptables` for
portmap. Formats: github.com/containernetworking/cni SPEC.md 1.0.0, nft(8).
"""

from __future__ import annotations

import fcntl
import ipaddress
import json
import socket
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.network.commands import run_program
from agent.runtime.errors import Failed

CONFLIST_NAME = "90-wherry.conflist"


@dataclass(frozen=True)
class PodNetwork:
    """What a node's pod network is made from. `node_id` keeps names of several nodes on one machine apart."""

    node_id: str
    pod_cidr: str
    cluster_cidr: str
    addresses_dir: Path
    mtu: int = 1500

    @property
    def name(self) -> str:
        return network_name(self.node_id)

    @property
    def bridge(self) -> str:
        return bridge_name(self.node_id)

    @property
    def table(self) -> str:
        return table_name(self.node_id)


def network_name(node_id: str) -> str:
    """The CNI network's name: libcni files its cached results under it, on a path that all nodes share."""
    return f"wherry-{node_id}"


def bridge_name(node_id: str) -> str:
    """The bridge of a node's pods; an interface's name has at most 15 bytes."""
    return f"wherry-{node_id[:8]}"


def table_name(node_id: str) -> str:
    """The nftables table of a node's pods."""
    return f"wherry_{node_id}"


def render_conflist(network: PodNetwork) -> dict[str, Any]:
    """The CNI configuration list; ValueError when a CIDR is none or podCIDR has no room for pods."""
    subnet = ipaddress.ip_network(network.pod_cidr)
    if subnet.num_addresses < 4:
        raise ValueError(f"podCIDR {network.pod_cidr} has no room for pods")
    everywhere = "::/0" if subnet.version == 6 else "0.0.0.0/0"
    bridge = {
        "type": "bridge",
        "bridge": network.bridge,
        "isGateway": True,
        "forceAddress": True,  # a node that joins anew may get another podCIDR
        "ipMasq": False,
        "hairpinMode": True,
        "mtu": network.mtu,
        "ipam": {
            "type": "host-local",
            "ranges": [[{"subnet": str(subnet)}]],
            "routes": [{"dst": everywhere}],
            "dataDir": str(network.addresses_dir),
        },
    }
    portmap = {"type": "portmap", "capabilities": {"portMappings": True}, "snat": True}
    return {"cniVersion": "0.4.0", "name": network.name, "plugins": [bridge, portmap]}


def render_masquerade(network: PodNetwork) -> str:
    """The node's nftables table, as a transaction that replaces an earlier one.

    `ct status dnat` packets of host ports are portmap's own business; the cluster's pods see each other's addresses.
    """
    family = "ip6" if ipaddress.ip_network(network.pod_cidr).version == 6 else "ip"
    return f"""add table {family} {network.table}
delete table {family} {network.table}
table {family} {network.table} {{
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    {family} saddr {network.pod_cidr} {family} daddr != {network.cluster_cidr} oifname != "{network.bridge}" masquerade
  }}
}}
"""


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
    await _allow_forwarding(network.bridge)
    _write_if_changed(own, text)
    return own


def _write_if_changed(path: Path, text: str) -> None:
    """containerd watches the directory: the file appears whole, and only when there is news."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_text() != text:
        fresh = path.with_suffix(".new")
        fresh.write_text(text)
        fresh.replace(path)


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


def forwarding_rules(bridge: str) -> list[list[str]]:
    """iptables rules that let pods' packets through where the machine forwards nothing by default.

    Docker sets the policy of FORWARD to DROP, and an accept in a table of our own cannot overrule that.
    """
    comment = ["-m", "comment", "--comment", "wherry pods", "-j", "ACCEPT"]
    return [["FORWARD", direction, bridge, *comment] for direction in ("-i", "-o")]


async def _allow_forwarding(bridge: str) -> None:
    for rule in forwarding_rules(bridge):
        if (await run_program("iptables", ["-w", "-C", *rule])).code:
            outcome = await run_program("iptables", ["-w", "-I", *rule])
            if outcome.code:
                raise Failed(f"iptables: {outcome.complaint}")


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
