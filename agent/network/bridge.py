"""The bridge that pods hung on before each got a link of its own: kept while it has pods, then removed.

Called by `cni` and `routes`, and by `purge`. Old and new pods reach each other meanwhile: the node answers on the
bridge for what lies behind other links (proxy ARP), and a new pod's /32 route is more specific than the bridge's.
"""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path

from agent.network.commands import run_program


def bridge_name(node_id: str) -> str:
    """The bridge of a node's pods; an interface's name has at most 15 bytes."""
    return f"wherry-{node_id[:8]}"


async def retire_bridge(node_id: str) -> bool:
    """Remove an empty bridge, or keep one with pods working; whether there is none any more. Idempotent."""
    bridge = bridge_name(node_id)
    try:
        socket.if_nametoindex(bridge)
    except OSError:
        return True
    if (await run_program("ip", ["link", "show", "master", bridge])).output.strip():
        _answer_for_all(bridge)
        return False
    for direction in ("-i", "-o"):
        rule = [direction, bridge, "-m", "comment", "--comment", "wherry pods", "-j", "ACCEPT"]
        await run_program("iptables", ["-w", "-D", "FORWARD", *rule])
    return (await run_program("ip", ["link", "delete", bridge])).code == 0


def _answer_for_all(bridge: str) -> None:
    with contextlib.suppress(OSError):
        Path(f"/proc/sys/net/ipv4/conf/{bridge}/proxy_arp").write_text("1")
