"""Clients that ask without a pause while something happens, and what the kernel of a node holds of services.

Used by the stories about services. `looping` runs `prober.py loop`, in a pod or elsewhere.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from agent.network.model import Key, parse_service, parse_slice
from agent.network.services.choice import Site
from agent.network.services.part import services_table
from agent.network.services.render import Draw, render
from agent.network.services.table import STATIC_CHAINS
from agent.runtime.containerd import containerd_paths
from api.objects import Object
from deploy.lab import Lab

_TARGET = re.compile(r"dnat (?:ip )?to ([\d.]+:\d+)")
_CHAIN = re.compile(r"^\tchain (\S+) \{\n(.*?)^\t\}", re.MULTILINE | re.DOTALL)
END_SECONDS = 30


@dataclass(frozen=True)
class Failure:
    """A request that failed. `server`: who had answered on this connection before; "" for a new one."""

    began: float
    ended: float
    error: str
    server: str
    kept: bool


@dataclass
class Seen:
    """Filled when the clients have ended: how often who answered, what failed, the slowest answer in seconds."""

    answers: dict[str, int] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    slowest: float = 0.0

    @property
    def count(self) -> int:
        return sum(self.answers.values())


@contextmanager
def looping(command: Sequence[str], environment: Mapping[str, str] | None = None) -> Iterator[Seen]:
    """Clients ask from the start to the end of the block. `command` ends with `loop SPEC`."""
    seen, pipe = Seen(), subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "ready\n"
            yield seen
            told = json.loads(process.communicate(timeout=END_SECONDS)[0])
        finally:
            process.kill()
    seen.answers, seen.slowest = told["answers"], told["slowest"]
    seen.failures = [Failure(**each) for each in told["failures"]]


@dataclass(frozen=True)
class Rules:
    """What a table of services does: who is sent to by each chain, and what each map's keys are."""

    targets: dict[str, list[str]]
    services: set[str]
    node_ports: set[str]


def kernel_rules(lab: Lab, node: str) -> Rules:
    """Of a node's IPv4 table, as nft lists it."""
    table = services_table(containerd_paths(lab.node_dir(node)).node_id)
    text = lab.namespace_run(node, "nft", "list", "table", "ip", table).stdout
    chains = {name.strip('"'): body for name, body in _CHAIN.findall(text)}
    keys = {name: _keys(lab, node, table, name) for name in ("services", "node-ports")}
    targets = {name: _TARGET.findall(body) for name, body in chains.items() if name not in STATIC_CHAINS}
    return Rules(targets, keys["services"], keys["node-ports"])


def _keys(lab: Lab, node: str, table: str, name: str) -> set[str]:
    listed = json.loads(lab.namespace_run(node, "nft", "-j", "list", "map", "ip", table, name).stdout)["nftables"]
    elements = next(each["map"].get("elem", ()) for each in listed if "map" in each)
    return {" . ".join(str(part) for part in key["concat"]) for key, _ in elements}


def desired_rules(services: Sequence[Object], slices: Sequence[Object], site: Site) -> Rules:
    """What the table of the node `site` shall do, from the API's objects."""
    by_service: dict[Key, list[Any]] = {}
    for each in map(parse_slice, slices):
        by_service.setdefault((each.key[0], each.service), []).append(each)
    targets: dict[str, list[str]] = {}
    keys: dict[str, set[str]] = {"services": set(), "node-ports": set()}
    for service in map(parse_service, services):
        found = sorted(by_service.get(service.key, ()), key=lambda each: each.key)
        block = render(service, found, 4, site)
        for name, rules in block.chains.items():
            assert not any(isinstance(rule, Draw) for rule in rules), "more endpoints than these stories have"
            targets[name] = _TARGET.findall("\n".join(str(rule) for rule in rules))
        for name, key in block.elements:
            if name in keys:
                keys[name].add(key)
    return Rules(targets, keys["services"], keys["node-ports"])
