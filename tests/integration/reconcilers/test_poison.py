"""An object that a part of the controller cannot take: it is left out, told and counted; everything else goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Iterable
from dataclasses import dataclass

from controller.reconcilers.loop import Decision, Failure, Source, Watch, run_loop
from controller.store import Store
from controller.store.types import Event, Key
from tests.integration.store.conftest import config_map

MAPS = ("", "configmaps")


@dataclass
class Fragile:
    """A reconciler that fails on every object called `poison`."""

    seen: asyncio.Queue[str]
    name = "fragile"
    concurrency = 1

    def sources(self) -> tuple[Source, ...]:
        return (Watch(MAPS, self._keys),)

    def _keys(self, event: Event) -> Iterable[Hashable]:
        if event.record.key.name == "poison":
            raise TypeError("what is this?")
        return (event.record.key.name,)

    def observe(self, key: str, failure: Failure | None) -> None:
        self.seen.put_nowait(key)

    def decide(self, observed: None) -> Decision:
        raise AssertionError


async def test_a_reconciler_goes_on_and_starts_beside_a_poisoned_object(store: Store) -> None:
    async def make(name: str) -> None:
        await store.create(Key(*MAPS, "default", name), config_map(name))

    for _ in range(2):
        reconciler = Fragile(asyncio.Queue())
        running = asyncio.create_task(run_loop(reconciler, store, None))  # type: ignore[arg-type]  # it never acts
        try:
            if store.get(Key(*MAPS, "default", "poison")) is None:
                await make("poison")
                await make("good")
            async with asyncio.timeout(5):
                assert await reconciler.seen.get() == "good"
            assert not running.done()
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
