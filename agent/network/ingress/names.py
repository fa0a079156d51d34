"""Addresses of external names: a Service of type ExternalName points to a DNS name, which may move.

Called by the part. Names are asked of the node's own resolver every 10 s; one that cannot be resolved keeps what it
had. A name of a Service of this cluster means that Service. Invariant: no name leads to the node itself (loopback,
link-local, its own addresses): whoever may write a Service must not reach what listens there only for the node.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from agent.network.ingress.backends import may_proxy_to
from agent.network.model import Key, Service, family_of

AGAIN_SECONDS = 10.0
LOOKUP_SECONDS = 5.0


@dataclass
class Names:
    """`resolved` is for reading. `services` as the feed has them."""

    domain: str
    own: frozenset[str]
    services: Mapping[Key, Service]
    changed: Callable[[], None]
    resolved: dict[str, frozenset[str]] = field(default_factory=dict)
    _wanted: frozenset[str] = frozenset()
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    def want(self, names: frozenset[str]) -> None:
        if names - self._wanted:
            self._news.set()
        self._wanted = names
        self.resolved = {name: found for name, found in self.resolved.items() if name in names}

    async def run(self) -> None:
        while True:
            self._news.clear()
            for name in self._wanted:
                await self._resolve(name)
            try:
                async with asyncio.timeout(AGAIN_SECONDS if self._wanted else None):
                    await self._news.wait()
            except TimeoutError:
                continue

    async def _resolve(self, name: str) -> None:
        found = self._of_cluster(name)
        if found is None:
            found = await _look_up(name)
        if found is None:
            return
        allowed = frozenset(address for address in found if may_proxy_to(address) and address not in self.own)
        allowed = frozenset(address for address in allowed if family_of(address) == 4) or allowed
        if allowed != self.resolved.get(name):
            self.resolved[name] = allowed
            self.changed()

    def _of_cluster(self, name: str) -> set[str] | None:
        """A cluster's Service by its name in DNS; its cluster address, which the node's kernel knows."""
        labels = name.rstrip(".").removesuffix(f".svc.{self.domain}").split(".")
        if not name.rstrip(".").endswith(f".svc.{self.domain}") or len(labels) != 2:
            return None
        service = self.services.get((labels[1], labels[0]))
        return set(service.cluster_ips) if service is not None else set()


async def _look_up(name: str) -> set[str] | None:
    """None when nobody can say."""
    try:
        async with asyncio.timeout(LOOKUP_SECONDS):
            answers = await asyncio.get_running_loop().getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, TimeoutError, UnicodeError):
        return None
    return {str(answer[4][0]) for answer in answers}
