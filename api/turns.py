"""Taking turns: long work on an event loop stops every few milliseconds so that others get theirs.

Used wherever work grows with what somebody asks for: lists, tables, YAML, resumed watches, deleted collections. Pure
asyncio. Invariant: who calls `breathe` between pieces holds the loop for one slice and one piece, no longer.
"""

from __future__ import annotations

import asyncio
from time import perf_counter

SLICE_SECONDS = 0.008


class Turn:
    """One piece of long work; begins when made."""

    __slots__ = ("_began",)

    def __init__(self) -> None:
        self._began = perf_counter()

    @property
    def is_over(self) -> bool:
        return perf_counter() - self._began > SLICE_SECONDS

    async def breathe(self) -> None:
        """Lets others run if this turn was long enough; another begins afterwards."""
        if self.is_over:
            await asyncio.sleep(0)
            self._began = perf_counter()
