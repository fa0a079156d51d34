"""The store: every object of the cluster, kept in etcd, read from a cache that follows it.

Called by registry (writes), server and reconcilers (reads, watches). Imports the other modules of this room.
Invariants: an acknowledged write is in etcd and in this cache; versions only rise; what a watcher got is exactly what
happened, once each and in order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from api.objects import Object
from controller.store.leadership import Leadership
from controller.store.query import Page, Query
from controller.store.types import Event, Guard, Key, Record
from controller.store.watchers import Watcher


@dataclass(frozen=True)
class StoreConfig:
    """Where etcd is and how to use it."""

    endpoints: tuple[str, ...]
    """`host:port`, `https://host:port` or `unix:/path`."""
    encryption_key: bytes
    """32 bytes; seals Secrets with AES-GCM."""
    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    """Paths of the client TLS files."""
    prefix: str = "/wherry"
    request_timeout_seconds: float = 10.0
    quota_bytes: int = 8 * 1024**3
    keep_seconds: float = 600.0
    """History younger than this is never compacted, unless etcd fills up."""


class Store:
    @staticmethod
    async def open(config: StoreConfig) -> Store:
        """Connects, learns etcd's limits, fills the cache. Raises Unavailable when etcd does not answer in time."""
        raise NotImplementedError

    async def run(self) -> None:
        """Follows etcd, commits, compacts; until cancelled. Writes and watches need it running."""
        raise NotImplementedError

    async def close(self) -> None:
        raise NotImplementedError

    @property
    def version(self) -> int:
        """The cache's version: every change up to it is in."""
        raise NotImplementedError

    @property
    def healthy(self) -> bool:
        """etcd answers and the cache follows it."""
        raise NotImplementedError

    def get(self, key: Key) -> Record | None:
        raise NotImplementedError

    async def current(self) -> int:
        """Returns once the cache holds everything acknowledged before this call (linearizable); its version.
        Raises Unavailable."""
        raise NotImplementedError

    async def reached(self, version: int) -> None:
        """Returns once the cache is at least at `version`. Raises Unavailable when that takes too long."""
        raise NotImplementedError

    async def read(self, key: Key) -> Record | None:
        """The linearizable get. Raises Unavailable."""
        raise NotImplementedError

    def list(self, resource: tuple[str, str], query: Query | None = None) -> Page:
        raise NotImplementedError

    async def list_at(self, resource: tuple[str, str], version: int, query: Query | None = None) -> Page:
        """The list as it was at `version`. Raises Compacted, Unavailable."""
        raise NotImplementedError

    def watch(self, resource: tuple[str, str], since: int, query: Query | None = None) -> Watcher:
        """Every change after `since`, selectors translated (enter is ADDED, leave is DELETED). Raises Compacted when
        `since` is no longer kept."""
        raise NotImplementedError

    def subscribe(self, resource: tuple[str, str], callback: Callable[[Event], None]) -> Callable[[], None]:
        """Calls back for every event, in order, once the cache holds it. Returns what ends it."""
        raise NotImplementedError

    async def create(self, key: Key, obj: Object, guards: tuple[Guard, ...] = ()) -> Record:
        """Raises KeyExists, GuardFailed, TooLarge, Unavailable, UnknownOutcome."""
        raise NotImplementedError

    async def update(self, key: Key, obj: Object, expected: int, guards: tuple[Guard, ...] = ()) -> Record:
        """Replaces the object as it was at version `expected`. Identical content: confirmed by a compare, same version,
        no event. Raises VersionMismatch, KeyMissing, GuardFailed, TooLarge, Unavailable, UnknownOutcome."""
        raise NotImplementedError

    async def delete(self, key: Key, expected: int, guards: tuple[Guard, ...] = ()) -> Record:
        """Returns the last state carrying the deletion's version. Raises as `update`."""
        raise NotImplementedError

    def by_node(self, node: str) -> Iterable[Record]:
        """The pods bound to a node."""
        raise NotImplementedError

    def by_owner(self, uid: str) -> Iterable[Record]:
        """Every object, of any kind, with an ownerReference to this uid."""
        raise NotImplementedError

    def by_index(self, resource: tuple[str, str], index: str, value: str) -> Iterable[Record]:
        """Objects whose indexed field has this value: `spec.nodeName`, `status.phase`, `involvedObject.uid`,
        `involvedObject.name`, or `label:KEY`."""
        raise NotImplementedError

    def lead(self, name: str, identity: str, ttl_seconds: int = 5) -> Leadership:
        """`async with store.lead("controller", me) as leadership:` is entered once elected."""
        raise NotImplementedError
