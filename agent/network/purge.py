"""Takes a data directory's pod network away: links, routes, host-port rules, nftables tables, cached CNI results.

Called by `wherry down` (through `agent.runtime.teardown`), after containers and containerd are gone. Touches only what
carries this data directory's id: other nodes on the machine, Docker and the user's own rules stay. Works on the network
namespace it is called in; a lab node's namespace, once deleted, takes its links and rules along by itself.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from agent.network.bridge import bridge_name
from agent.network.cni import NFT_FAMILIES, forwarding_comment, iptables_program, network_name, table_name
from agent.network.commands import run_program
from agent.network.dns.link import link_name
from agent.network.dns.process import stop_processes
from agent.network.ingress.proxy import stop_proxies
from agent.network.routes.kernel import remove_all
from agent.network.routes.model import settings_of
from agent.network.services import announce

_RESULTS = Path("/var/lib/cni/results")
_PORTMAP_CHAINS = ("CNI-HOSTPORT-DNAT", "CNI-HOSTPORT-MASQ", "CNI-HOSTPORT-SETMARK")


async def purge_network(node_id: str, bin_dir: str) -> None:
    """Remove what the pod network of a node left in this network namespace and in libcni's cache. Idempotent."""
    await stop_processes(node_id)
    await stop_proxies(node_id)
    for cached in cached_results(node_id):
        for configuration, environment in portmap_deletions(_read_json(cached), bin_dir):
            await run_program(f"{bin_dir}/portmap", [], configuration, environment)
        for path in (cached, loopback_result(cached, node_id)):
            path.unlink(missing_ok=True)
    await _remove_empty_portmap_chains()
    for family in NFT_FAMILIES:
        await _remove_forwarding(iptables_program(family), node_id)
    await asyncio.to_thread(remove_all, settings_of(node_id))
    await _remove_tables(node_id)
    for link in (bridge_name(node_id), link_name(node_id), announce.link_name(node_id)):
        await run_program("ip", ["link", "delete", link])


def cached_results(node_id: str) -> list[Path]:
    """libcni's files about a node's sandboxes that were never deleted in an orderly way."""
    return sorted(_RESULTS.glob(f"{network_name(node_id)}-*"))


def loopback_result(cached: Path, node_id: str) -> Path:
    """The file about the same sandbox's loopback; its name says which sandbox, but not whose node."""
    sandbox_id = cached.name.removeprefix(f"{network_name(node_id)}-").rpartition("-")[0]
    return cached.with_name(f"cni-loopback-{sandbox_id}-lo")


def portmap_deletions(cached: Mapping[str, Any], bin_dir: str) -> list[tuple[str, dict[str, str]]]:
    """How to call portmap's DEL for a cached CNI result: its configuration and its environment; [] without host ports.

    libcni caches, for each sandbox, the configuration list, the capability arguments and the result, so that a deletion
    can be repeated by somebody who was not there. Format: libcni's cacheV1.
    """
    ports = (cached.get("capabilityArgs") or {}).get("portMappings")
    try:
        conflist = orjson.loads(base64.b64decode(cached.get("config") or ""))
    except (binascii.Error, orjson.JSONDecodeError):
        return []
    plugins = [plugin for plugin in conflist.get("plugins") or [] if plugin.get("type") == "portmap"]
    if not ports or not plugins:
        return []
    environment = {
        "CNI_COMMAND": "DEL",
        "CNI_CONTAINERID": str(cached.get("containerId") or ""),
        "CNI_IFNAME": str(cached.get("ifName") or "eth0"),
        "CNI_NETNS": "",
        "CNI_PATH": bin_dir,
    }
    extra = {
        "name": conflist.get("name"),
        "cniVersion": conflist.get("cniVersion"),
        "runtimeConfig": {"portMappings": ports},
        "prevResult": cached.get("result"),
    }
    return [(orjson.dumps({**plugin, **extra}).decode(), environment) for plugin in plugins]


async def _remove_forwarding(program: str, node_id: str) -> None:
    rules = (await run_program(program, ["-S", "FORWARD"])).output.splitlines()
    marks = {forwarding_comment(node_id), bridge_name(node_id)}
    for rule in (words for words in map(shlex.split, rules) if marks.intersection(words)):
        await run_program(program, ["-w", "-D", *rule[1:]])


async def _remove_tables(node_id: str) -> None:
    """Every part's table, in whatever family, also those of parts that a former version had."""
    for line in (await run_program("nft", ["list", "tables"])).output.splitlines():
        _, family, name = line.split()
        if name == table_name(node_id) or name.startswith(f"{table_name(node_id)}_"):
            await run_program("nft", ["delete", "table", family, name])


async def _remove_empty_portmap_chains() -> None:
    """portmap keeps three chains for all networks of a namespace; without any host port left they are litter."""
    for command in ("iptables", "ip6tables"):
        rules = (await run_program(command, ["-t", "nat", "-S"])).output.splitlines()
        if any(rule.startswith("-N CNI-DN-") for rule in rules):
            continue
        added = [shlex.split(rule) for rule in rules if rule.startswith("-A")]  # their comments are quoted
        for jump in (words for words in added if words[-1] in _PORTMAP_CHAINS):
            await run_program(command, ["-t", "nat", "-D", *jump[1:]])
        for chain in (chain for chain in _PORTMAP_CHAINS if f"-N {chain}" in rules):
            await run_program(command, ["-t", "nat", "-F", chain])
            await run_program(command, ["-t", "nat", "-X", chain])


def _read_json(path: Path) -> Mapping[str, Any]:
    with contextlib.suppress(OSError, orjson.JSONDecodeError):
        parsed = orjson.loads(path.read_bytes())
        if isinstance(parsed, dict):
            return parsed
    return {}
