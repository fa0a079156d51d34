"""Gives memory back that the agent freed: after a burst of pods the C library keeps it, and 110 pods come and go.

Called by main as a task. glibc's malloc_trim(3); another C library has no such call and keeps what it keeps.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc

TRIM_SECONDS = 30.0


async def keep_small() -> None:
    """Trims the heap until cancelled."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    gc.collect()
    gc.freeze()  # what the imports made stays for good: the collector need not look at it again
    while trim is not None:
        await asyncio.sleep(TRIM_SECONDS)
        gc.collect()
        trim(0)
