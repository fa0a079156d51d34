"""THE control loop: every reconciler runs in this one, with the same queue, back-off, metrics and safety rules.

Called by `build.run_reconcilers` while this controller leads. Imports registry and store. The rules it keeps:
- events mark keys dirty, nothing more; what to do is decided from the cache each time anew (level triggered);
- one key is worked on by one worker at a time, different keys run concurrently;
- a key is only looked at in a cache at or past the key's own last write, and after an unknown outcome only behind a
  linearizable barrier, so no decision is made on a view older than the last decision's effects;
- actions run in order and stop at the first error; the key then backs off and starts over from observing;
- a key that is expensive to decide rests five times as long as its decision took.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import structlog

from api import kinds
from api.errors import ApiError, Conflict, ServiceUnavailable, Timeout
from controller.reconcilers.actions import Action, Executor
from controller.reconcilers.queue import WorkQueue
from controller.store import Store
from controller.store.types import Event, StoreError, UnknownOutcome

log = structlog.get_logger()

FIRST_BACKOFF_SECONDS = 0.005
LAST_BACKOFF_SECONDS = 30.0
_REST_FACTOR = 5.0
_LONGEST_REST_SECONDS = 1.0
_SHORTEST_REST_SECONDS = 0.002
_CACHE_SECONDS = 10.0
"""How long to wait for the cache to catch up before the key backs off."""

O = TypeVar("O")  # noqa: E741
Enqueue = Callable[[Hashable], None]


@dataclass(frozen=True)
class Failure:
    """Why the last attempt at a key stopped: part of what the next decision sees."""

    error: ApiError
    attempts: int = 1


@dataclass(frozen=True)
class Decision:
    """What to do now, in order; `status` is written last; `requeue_after_seconds`: look again even so."""

    actions: tuple[Action, ...] = ()
    status: Action | None = None
    requeue_after_seconds: float | None = None


NOTHING = Decision()


class Source(Protocol):
    """Where dirty keys come from."""

    def attach(self, store: Store, enqueue: Enqueue) -> Callable[[], None]:
        """Starts to report keys, first all that exist; returns how to stop. Does not block."""
        ...


@dataclass(frozen=True)
class Watch:
    """Every change of a resource, mapped to the keys it makes dirty."""

    resource: tuple[str, str]
    keys: Callable[[Event], Iterable[Hashable]]

    def attach(self, store: Store, enqueue: Enqueue) -> Callable[[], None]:
        def on_event(event: Event) -> None:
            for key in self.keys(event):
                enqueue(key)

        return store.subscribe(self.resource, on_event, existing=True)


@dataclass(frozen=True)
class WatchEveryKind:
    """Every change of every stored kind that is `wanted`, of custom kinds from when they are served."""

    keys: Callable[[Event], Iterable[Hashable]]
    wanted: Callable[[kinds.Kind], bool]

    def attach(self, store: Store, enqueue: Enqueue) -> Callable[[], None]:
        stops: dict[tuple[str, str], Callable[[], None]] = {}

        def follow() -> None:
            for kind in kinds.stored_kinds():
                if kind.resource not in stops and self.wanted(kind):
                    stops[kind.resource] = Watch(kind.resource, self.keys).attach(store, enqueue)

        follow()
        forget = kinds.when_changed(follow)

        def stop() -> None:
            forget()
            for each in stops.values():
                each()

        return stop


@dataclass(frozen=True)
class Once:
    """One key, dirty from the start: for work over everything, which then asks to be looked at again."""

    key: Hashable

    def attach(self, store: Store, enqueue: Enqueue) -> Callable[[], None]:
        del store
        enqueue(self.key)
        return lambda: None


def own_key(event: Event) -> Iterable[Hashable]:
    """(namespace, name) of the changed object itself."""
    return ((event.record.key.namespace, event.record.key.name),)


class Reconciler(Protocol[O]):
    """One controller: what it watches, what it looks at, what it decides.

    `name` is what kube-controller-manager calls it. `decide` is pure: no clock, no random, no I/O, no mutation.
    """

    @property
    def name(self) -> str: ...

    @property
    def concurrency(self) -> int: ...

    def sources(self) -> Sequence[Source]: ...

    def observe(self, key: Any, failure: Failure | None) -> O | None:
        """All that the decision reads, from one state of the cache; None if there is nothing to reconcile."""
        ...

    def decide(self, observed: O) -> Decision: ...


async def run_loop(reconciler: Reconciler[Any], store: Store, executor: Executor) -> None:
    """Reconciles until cancelled."""
    await _Loop(reconciler, store, executor).run()


class _Loop:
    def __init__(self, reconciler: Reconciler[Any], store: Store, executor: Executor) -> None:
        self._reconciler = reconciler
        self._store = store
        self._executor = executor
        self._queue = WorkQueue(reconciler.name)
        self._written: dict[Hashable, int] = {}
        self._uncertain: set[Hashable] = set()
        self._failures: dict[Hashable, Failure] = {}

    async def run(self) -> None:
        stops = [source.attach(self._store, self._queue.add) for source in self._reconciler.sources()]
        try:
            async with asyncio.TaskGroup() as tasks:
                for _ in range(self._reconciler.concurrency):
                    tasks.create_task(self._work())
        finally:
            for stop in stops:
                stop()
            self._queue.close()

    async def _work(self) -> None:
        while True:
            key = await self._queue.get()
            started = time.perf_counter()
            rest = 0.0
            try:
                rest = await self._reconcile(key)
            except (ApiError, StoreError, TimeoutError) as error:
                self._back_off(key, error)
            except Exception as error:  # a defect in one decision must not stop the others
                log.exception("reconcile_crashed", reconciler=self._reconciler.name, key=str(key))
                self._back_off(key, error)
            finally:
                self._queue.metrics.work.observe(time.perf_counter() - started)
                self._queue.done(key, rest)

    async def _reconcile(self, key: Hashable) -> float:
        """One observe, decide, apply; returns how long the key must rest."""
        await self._catch_up(key)
        started = time.perf_counter()
        observed = self._reconciler.observe(key, self._failures.get(key))
        if observed is None:
            self._forget(key)
            return 0.0
        decision = self._reconciler.decide(observed)
        thought = time.perf_counter() - started
        await self._apply(key, decision)
        self._failures.pop(key, None)
        if decision.requeue_after_seconds is not None:
            self._queue.add_after(key, decision.requeue_after_seconds)
        if thought < _SHORTEST_REST_SECONDS:
            return 0.0
        return min(_LONGEST_REST_SECONDS, thought * _REST_FACTOR)

    async def _catch_up(self, key: Hashable) -> None:
        async with asyncio.timeout(_CACHE_SECONDS):
            if key in self._uncertain:
                await self._store.current()
                self._uncertain.discard(key)
            version = self._written.get(key, 0)
            if version:
                await self._store.reached(version)
                self._written.pop(key, None)

    async def _apply(self, key: Hashable, decision: Decision) -> None:
        actions = decision.actions if decision.status is None else (*decision.actions, decision.status)
        if not actions:
            return
        for action in actions:
            version = await self._executor.perform(action)
            self._written[key] = max(self._written.get(key, 0), version)
        self._queue.metrics.actions.inc(len(actions))
        if decision.actions:
            self._queue.add(key)
        log.info("reconciled", reconciler=self._reconciler.name, key=_shown(key), actions=len(actions))

    def _back_off(self, key: Hashable, error: Exception) -> None:
        known = self._failures.get(key)
        attempts = known.attempts + 1 if known else 1
        self._failures[key] = Failure(_as_api_error(error), attempts)
        if not isinstance(error, ApiError) or isinstance(error, Timeout):
            self._uncertain.add(key)
        delay = backoff_seconds(attempts)
        self._queue.metrics.errors.inc()
        self._queue.metrics.retries.inc()
        self._queue.add_after(key, delay)
        tell = log.debug if isinstance(error, Conflict) else log.info  # lost races are everyday life
        tell("reconcile_failed", reconciler=self._reconciler.name, key=_shown(key), error=str(error), retry_in=delay)

    def _forget(self, key: Hashable) -> None:
        self._failures.pop(key, None)
        self._written.pop(key, None)
        self._queue.forget(key)


def backoff_seconds(attempts: int) -> float:
    """5 ms, doubled with each attempt, at most 30 s."""
    return min(LAST_BACKOFF_SECONDS, FIRST_BACKOFF_SECONDS * 2.0 ** min(attempts - 1, 30))


def _as_api_error(error: Exception) -> ApiError:
    if isinstance(error, ApiError):
        return error
    if isinstance(error, UnknownOutcome | TimeoutError):
        return Timeout(str(error) or "the outcome is unknown")
    return ServiceUnavailable(str(error))


def _shown(key: Hashable) -> str:
    return "/".join(part for part in key if part) if isinstance(key, tuple) else str(key)
