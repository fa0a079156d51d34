"""Runs netcheck's hops from this node: `wherry netcheck` asks each agent for its share through the API server.

Used by the agent's server. The command line first has a probe made on every node (`open`), then hands each node the
probes' places (`check`), then has them ended (`close`); a probe that nobody ends goes by itself after LEASE_SECONDS.
See `round` for the hops, `probe`, and `watch` for what is looked at without being asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from agent.network.check.facts import switched_off
from agent.network.check.hops import Hop, in_order, judge_forwards
from agent.network.check.watch import Watch
from agent.network.model import parse_node
from agent.runtime.errors import Failed, RuntimeFault

if TYPE_CHECKING:
    from agent.network.check.probe import Plan, Probe
    from agent.network.network import Ground, Network

LEASE_SECONDS = 30.0
_GATE_SECONDS = 1.0


class Checker:
    """One node's. `run` watches the peers in the background and ends a forgotten probe."""

    def __init__(self, ground: Ground, network: Network) -> None:
        self._ground = ground
        self._network = network
        self._watch = Watch(ground, network)
        self._pod = {"metadata": {"name": "netcheck", "namespace": "", "uid": ground.node_id}}
        """What policies know the probe as: in no namespace, so that none selects it."""
        self._probe: Probe | None = None
        self._switched_off = ""
        """The sysctl that kept the node from forwarding before a probe was made: the plug-in switches it on."""
        self._users = 0
        self._until = 0.0
        self._opened = asyncio.Event()
        self._lock = asyncio.Lock()

    async def run(self) -> None:
        if self._ground.cni_conf_dir is not None:
            with contextlib.suppress(RuntimeFault):
                await self._plan().release()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._watch.run())
                group.create_task(self._end_forgotten())
        finally:
            await self._end()

    async def _end_forgotten(self) -> None:
        while True:
            await self._opened.wait()
            await asyncio.sleep(max(0.0, self._until - time.monotonic()))
            if time.monotonic() >= self._until:
                await self._end()

    def _plan(self) -> Plan:
        from agent.network.check.probe import Plan

        if self._ground.cni_conf_dir is None:
            raise Failed("the agent was not told with which CNI configuration pods are attached (--cni-conf-dir)")
        return Plan(self._ground.cni_conf_dir, f"netcheck-{self._ground.node_id}")

    async def open(self) -> Probe:
        """This node's probe, made if there is none; lives LEASE_SECONDS, or until all who opened it closed it.

        Raises RuntimeFault, OSError.
        """
        from agent.network.check.probe import Probe

        async with self._lock:
            if self._probe is None:
                self._switched_off = switched_off(parse_node(self._ground.node()).pod_cidrs)
                self._probe = await Probe.make(self._plan())
            self._users += 1
            self._until = time.monotonic() + LEASE_SECONDS
            self._opened.set()
            probe = self._probe
        self._network.policy.announce(self._pod, probe.addresses)
        with contextlib.suppress(TimeoutError):  # policies that cannot be applied are told as the part's problem
            async with asyncio.timeout(_GATE_SECONDS):
                await self._network.policy.admitted(self._pod)
        return probe

    async def close(self) -> None:
        """Ends the probe and takes back its address, if nobody else has it open. Idempotent."""
        self._users = max(0, self._users - 1)
        await self._end(unused=True)

    async def _end(self, *, unused: bool = False) -> None:
        """`unused`: only if nobody has it open."""
        async with self._lock:
            if unused and self._users:
                return
            probe, self._probe, self._users = self._probe, None, 0
            self._opened.clear()
            if probe is not None:
                self._network.policy.withdraw(self._pod)
                await probe.close()

    async def check(self, places: Mapping[str, Mapping[str, Any]] | None) -> list[Hop]:
        """All hops in order. `places`: which peers to check, and what their PUT replied; None: all, without probes.

        Raises ValueError for places that are none.
        """
        from agent.network.check.round import Far, Round

        records = {name: record for (_, name), record in self._network.feeds.nodes.records.items()}
        records.pop(self._ground.node_name, None)
        far = dict.fromkeys(records, Far()) if places is None else {n: Far.parse(place) for n, place in places.items()}
        attach, began = Hop("attach", self._ground.node_name, "a pod's network"), time.monotonic()
        probe = None
        try:
            probe = await self.open()
            attach = attach.after(time.monotonic() - began)
        except (RuntimeFault, OSError) as fault:
            do = "See that the CNI plug-ins are installed and that the node has a podCIDR with free addresses."
            attach = attach.failed(f"no pod can be attached to the network: {fault}", do)
        peers = {name: (records[name], place) for name, place in far.items() if name in records}
        try:
            found = await Round(self._ground, self._network, probe).run(peers)
            return in_order([attach, *judge_forwards(self._ground.node_name, self._switched_off), *found])
        finally:
            if probe is not None:
                await self.close()
