"""Watchers: who gets which event."""

from __future__ import annotations

from collections.abc import AsyncIterator

from controller.store.types import Event


class Watcher:
    """An async iterator of batches of events. Raises Compacted from the iterator when the reader is too slow."""

    @property
    def version(self) -> int:
        """Everything up to this version was handed out; for bookmarks."""
        raise NotImplementedError

    def __aiter__(self) -> AsyncIterator[list[Event]]:
        return self

    async def __anext__(self) -> list[Event]:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError
