"""NetworkPolicy on this node: follows policies, namespaces and pods, and keeps the kernel's tables equal to them.

A part of `Network`, and the `Gate` of the pod workers. Pods and namespaces are followed from the first policy on, and
without policies there is no table and nothing waits. Invariants: nothing is written before all three kinds are synced:
until then the tables of an earlier agent stay and new pods wait; the first transaction replaces the whole table, later
ones say what changed, and one that fails is followed by a whole one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import structlog

from agent import counters
from agent.network.cni import apply_nft, interface_of
from agent.network.conntrack import Flow, forget_flows
from agent.network.dns.addresses import served_addresses
from agent.network.feed import Feeds
from agent.network.model import Key, PodAddress, family_of, key_of, parse_pod_address
from agent.network.policy.compiler import Compiler, Ruleset
from agent.network.policy.transactions import Table, policy_table, render_changes, render_removal, render_whole
from agent.runtime.errors import RuntimeFault
from api.objects import Object, uid_of

if TYPE_CHECKING:
    from agent.network.network import Ground

GATHER_SECONDS = 0.1
"""So long after a transaction others' changes are gathered for the next; a pod that waits to start hurries it."""
RETRY_SECONDS = (1.0, 10.0)
DNS_LABELS = {"k8s-app": "kube-dns"}
DNS_PORTS = (("dns", "UDP", 53), ("dns-tcp", "TCP", 53), ("metrics", "TCP", 9153))
_log = structlog.get_logger()


def dns_pod(addresses: Sequence[str]) -> PodAddress:
    """The node's DNS as the pod that policies know it by: k8s-app=kube-dns in kube-system."""
    key = ("kube-system", "kube-dns (of each node)")
    return PodAddress(key, "", DNS_LABELS, "", tuple(addresses), DNS_PORTS, host_network=False, ended=False)


async def forget_connections(left: Collection[str]) -> None:
    """Whoever has these addresses next shall not be reached through what was open to their last holders."""

    def is_theirs(flow: Flow) -> bool:
        return any(end[0] in left for end in (flow.source, flow.destination, flow.source_of_answers))

    try:
        await asyncio.to_thread(forget_flows, is_theirs)
    except OSError as error:
        _log.warning("connections of ended pods not forgotten", error=str(error))


@dataclass(frozen=True)
class Kernel:
    """How transactions get into the kernel and addresses out of conntrack; tests have a namespace of their own."""

    apply: Callable[[str], Awaitable[None]] = apply_nft
    forget: Callable[[Collection[str]], Awaitable[None]] = forget_connections


class PolicyPart:
    """Network policies of one node: a part of its network, and the gate of its pods."""

    name = "policy"

    def __init__(self, ground: Ground, feeds: Feeds, kernel: Kernel = Kernel()) -> None:
        self.problem = ""
        self._kernel = kernel
        self._ground = ground
        self._feeds = feeds
        self._compiler = Compiler(ground.node_name)
        dns = dns_pod(served_addresses(ground.service_cidr, ground.cluster_dns))
        self._compiler.put_pod(dns.key, dns)
        self._announced: dict[Key, PodAddress] = {}
        self._holders: dict[str, Key] = {}
        """Who has an address, by the latest announcement."""
        self._held: dict[int, Ruleset] | None = None
        """What the tables hold; None: not known."""
        self._open = False
        """No policy exists, and no table."""
        self._follows_pods = False
        self._dirty, self._urgent = asyncio.Event(), asyncio.Event()
        self._asked = self._done = 0
        self._progress = asyncio.Condition()
        feeds.policies.subscribe(self._policies_changed)

    # The pod workers' side.

    def announce(self, pod: Object, ips: tuple[str, ...]) -> None:
        record = replace(parse_pod_address(pod), node=self._ground.node_name, ips=ips, ended=False)
        if self._announced.get(record.key) == record:
            return
        rivals = {self._holders[ip] for ip in ips if ip in self._holders}
        known = self._compiler.members.pods  # newer than `local`, which may name a pod that has gone since
        rivals |= {key for key in self._compiler.local() if key in known and set(known[key].ips) & set(ips)}
        self._announced[record.key] = record
        self._holders.update(dict.fromkeys(ips, record.key))
        self._pods_changed(frozenset({record.key, *rivals}))
        self._asked += 1
        self._urgent.set()

    def withdraw(self, pod: Object) -> None:
        record = self._announced.get(key_of(pod))
        if record is None or record.uid != uid_of(pod):
            return
        del self._announced[record.key]
        self._holders = {ip: key for ip, key in self._holders.items() if key != record.key}
        self._pods_changed(frozenset({record.key}))

    async def admitted(self, pod: Object) -> None:
        if self._open:
            return
        started, wanted = time.monotonic(), self._asked
        async with self._progress:
            await self._progress.wait_for(lambda: self._open or self._done >= wanted)
        counters.policy_waited(time.monotonic() - started)

    # The feeds' side.

    def _policies_changed(self, keys: frozenset[Key]) -> None:
        for key in keys:
            self._compiler.put_policy(key, self._feeds.policies.records.get(key))
        self._open = self._open and not self._feeds.policies.records
        self._dirty.set()

    def _namespaces_changed(self, keys: frozenset[Key]) -> None:
        for _, name in keys:
            record = self._feeds.namespaces.records.get(("", name))
            self._compiler.members.put_namespace(name, None if record is None else record.labels)
        self._dirty.set()

    def _pods_changed(self, keys: frozenset[Key]) -> None:
        for key in keys:
            self._compiler.put_pod(key, self._effective(key))
        self._dirty.set()

    def _effective(self, key: Key) -> PodAddress | None:
        """What is announced here comes before what the API knows yet, but for labels; an address has one holder."""
        heard, announced = self._feeds.pods.records.get(key), self._announced.get(key)
        if announced is not None:
            same = heard is not None and heard.uid == announced.uid
            record = replace(heard, node=announced.node, ips=announced.ips) if heard and same else announced
        elif heard is not None:
            record = heard
        else:
            return None
        own = tuple(ip for ip in record.ips if self._holders.get(ip, key) == key)
        return record if own == record.ips else replace(record, ips=own)

    # The kernel's side.

    async def run(self) -> None:
        await self._feeds.policies.synced.wait()
        pause = RETRY_SECONDS[0]
        while True:
            self._dirty.clear()
            try:
                await self._step()
            except RuntimeFault as fault:
                self._held, self.problem = None, f"network policies are not in force: {fault.message}"
                _log.warning("network policies not applied", error=fault.message)
                await asyncio.sleep(pause)
                pause = min(pause * 2, RETRY_SECONDS[1])
                continue
            self.problem, pause = "", RETRY_SECONDS[0]
            await self._gather()
            await self._dirty.wait()

    async def _gather(self) -> None:
        try:
            async with asyncio.timeout(GATHER_SECONDS):
                await self._urgent.wait()
        except TimeoutError:
            return

    async def _step(self) -> None:
        """Brings the kernel up to date once, and lets those pass that waited for it."""
        if self._feeds.policies.records:
            await self._follow()
        self._urgent.clear()
        reached = self._asked
        left: set[str] = set()
        if self._feeds.policies.records:
            left = await self._update()
        elif not self._open:
            self._open, self._held = True, None
            await self._tell_waiting(reached)
            await self._kernel.apply("".join(render_removal(Table(self._table, family, ())) for family in (4, 6)))
        await self._tell_waiting(reached)
        if left:
            await self._kernel.forget(left)

    async def _tell_waiting(self, reached: int) -> None:
        async with self._progress:
            self._done = max(self._done, reached)
            self._progress.notify_all()

    async def _follow(self) -> None:
        """Policies need pods and namespaces: all of them, from now on."""
        if not self._follows_pods:
            self._follows_pods = True
            self._feeds.namespaces.subscribe(self._namespaces_changed)
            self._feeds.pods.subscribe(self._pods_changed)
        await self._feeds.namespaces.synced.wait()
        await self._feeds.pods.synced.wait()

    async def _update(self) -> set[str]:
        """Applies what the records say; returns the addresses that this node's pods have left."""
        tables = self._tables()
        desired = self._compiler.compile(tables)
        known = self._held
        if known is None or known.keys() != desired.keys():
            text = "".join(render_whole(tables[family], desired[family]) for family in tables)
        else:
            text = "".join(render_changes(tables[family], known[family], desired[family]) for family in tables)
        self._compiler.members.settle()
        if text:
            await self._kernel.apply(text)
        self._held = desired
        return {
            ip for family, old in (known or {}).items() if family in desired for ip in old.known - desired[family].known
        }

    @property
    def _table(self) -> str:
        return policy_table(self._ground.node_id)

    def _tables(self) -> dict[int, Table]:
        """One a family; of a family that this node's pods have no addresses of, it closes what they give themselves."""
        spec = self._ground.node().get("spec") or {}
        cidrs = spec.get("podCIDRs") or ([spec["podCIDR"]] if spec.get("podCIDR") else [])
        uplink = interface_of(self._ground.addresses[0]) if self._ground.addresses else ""
        return {
            family: Table(self._table, family, tuple(cidr for cidr in cidrs if family_of(cidr) == family), uplink)
            for family in (4, 6)
        }
