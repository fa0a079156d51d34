"""What this node's proxy shall do, out of the feeds: Ingresses and their classes, Services, slices, Secrets.

Used by the part, which runs it while the node carries the label. Ingresses and classes are followed only then; Services
and slices are the feeds that all parts share. `wake` is called when a new look may differ from the last one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.network.feed import Feed, Feeds
from agent.network.ingress.backends import Cluster, Pool, make_pool
from agent.network.ingress.certificates import Certificate, assign
from agent.network.ingress.model import Ingress, parse_ingress
from agent.network.ingress.names import Names
from agent.network.ingress.routes import Finding, Table, Target, compile_routes
from agent.network.ingress.secrets import SecretKeeper
from agent.network.model import Key, Service, Slice
from api.ingress import controller_of_class, is_ours
from api.kinds import by_resource

if TYPE_CHECKING:
    from agent.network.network import Ground

_GROUP = "networking.k8s.io"


@dataclass(frozen=True)
class Wanted:
    """One consistent look. `pems` and `names` by certificate file."""

    table: Table
    pools: Mapping[Target, Pool]
    pems: Mapping[str, bytes]
    names: Mapping[str, list[str]]
    findings: tuple[Finding, ...]


class Desired:
    """`run` follows the kinds that only ingress nodes read; `look` says what is wanted."""

    def __init__(self, ground: Ground, feeds: Feeds, wake: Callable[[], None]) -> None:
        self._ground = ground
        self._feeds = feeds
        self._closed = False
        """Whether an Ingress leads to an external name, which this node does not allow."""
        self._wake = wake
        self._ingresses = Feed(ground.client, by_resource(_GROUP, "ingresses"), parse_ingress)
        self._classes = Feed(ground.client, by_resource(_GROUP, "ingressclasses"), controller_of_class)
        self._secrets = SecretKeeper(ground.client, wake)
        self._names = Names(ground.cluster_domain, frozenset(ground.addresses), feeds.services.records, wake)
        self._served: list[Ingress] = []
        self._table = compile_routes(())
        self._stale = True
        self._backends: frozenset[Key] = frozenset()
        self._slices: dict[Key, dict[Key, Slice]] = {}
        self._service_of: dict[Key, Key] = {}
        self._subscribed = False

    async def run(self) -> None:
        own = (self._ingresses, self._classes)
        for feed in own:
            feed.synced.clear()
        if not self._subscribed:
            self._subscribed = True
            self._ingresses.subscribe(self._on_routes)
            self._classes.subscribe(self._on_routes)
            self._feeds.services.subscribe(self._on_services)
            self._feeds.slices.subscribe(self._on_slices)
        async with asyncio.TaskGroup() as group:
            for feed in own:
                group.create_task(feed.run())
            group.create_task(self._secrets.run())
            group.create_task(self._names.run())

    async def synced(self) -> None:
        for feed in (self._ingresses, self._classes, self._feeds.services, self._feeds.slices):
            await feed.synced.wait()

    async def look(self) -> Wanted | None:
        """None while a Secret cannot be asked for: what is served now is nearer to the truth."""
        if self._stale:
            self._stale = False
            controllers = {name: controller for (_, name), controller in self._classes.records.items()}
            self._served = [
                each for each in self._ingresses.records.values() if is_ours(each.wire_class(), controllers)
            ]
            self._table = compile_routes(self._served)
        secrets = frozenset((each.key[0], tls.secret) for each in self._served for tls in each.tls if tls.secret)
        if not await self._secrets.want(secrets):
            return None
        certificates = {key: found for key, found in self._secrets.known.items() if isinstance(found, Certificate)}
        names, findings = assign(self._served, self._secrets.known)
        pools = self._pools()
        if self._closed:
            findings = [*findings, *closed_names(self._served, self._feeds.services.records)]
        return Wanted(
            self._table,
            pools,
            {_file_of(key): certificates[key].pem for key in names},
            {_file_of(key): hosts for key, hosts in names.items()},
            (*self._table.findings, *findings),
        )

    def _pools(self) -> dict[Target, Pool]:
        targets = self._table.targets()
        self._backends = frozenset(target.service for target in targets)
        services = self._feeds.services.records
        known = [services[key] for key in self._backends if key in services]
        names = frozenset(each.external_name for each in known if each.type == "ExternalName")
        self._closed = bool(names) and not self._ground.ingress_external_names
        self._names.want(frozenset() if self._closed else names)
        slices = {key: tuple(self._slices.get(key, {}).values()) for key in self._backends}
        cluster = Cluster(services, slices, self._names.resolved)
        return {target: make_pool(target, cluster) for target in targets}

    def _on_routes(self, keys: frozenset[Key]) -> None:
        del keys
        self._stale = True
        self._wake()

    def _on_services(self, keys: frozenset[Key]) -> None:
        if keys & self._backends:
            self._wake()

    def _on_slices(self, keys: frozenset[Key]) -> None:
        touched = set()
        for key in keys:
            before = self._service_of.pop(key, None)
            if before is not None:
                del self._slices[before][key]
                touched.add(before)
            piece = self._feeds.slices.records.get(key)
            if piece is not None and piece.service:
                service = (piece.key[0], piece.service)
                self._service_of[key] = service
                self._slices.setdefault(service, {})[key] = piece
                touched.add(service)
        for service in touched:
            if not self._slices.get(service):
                self._slices.pop(service, None)
        if touched & self._backends:
            self._wake()


def _file_of(secret: Key) -> str:
    return f"{'_'.join(secret)}.pem"


def closed_names(served: Iterable[Ingress], services: Mapping[Key, Service]) -> Iterator[Finding]:
    """For each Ingress that leads to an ExternalName: such a name may be any pod's or machine's that policies close to
    the Ingress' namespace, and the proxy on the node is bound by none of them."""
    for ingress in served:
        for target in compile_routes([ingress]).targets():
            service = services.get(target.service)
            if service is not None and service.type == "ExternalName":
                text = f"Service {target.service[1]} is an ExternalName, to which Ingresses do not lead unless the"
                yield Finding(ingress, "ExternalNameClosed", f"{text} agent runs with --ingress-external-names")
