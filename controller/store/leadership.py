"""Leadership: one holder of a name at a time, by an etcd lease."""

from __future__ import annotations

import asyncio
from types import TracebackType

from controller.store.types import Guard


class Leadership:
    lost: asyncio.Event
    guard: Guard

    async def __aenter__(self) -> Leadership:
        raise NotImplementedError

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        raise NotImplementedError
