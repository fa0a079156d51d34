"""How many keys to ask etcd for at once: it counts keys, memory and messages count bytes.

Called by feed.py and store.py while they list. Pure. Invariant: objects like those of the last page fill PAGE_BYTES.
"""

from __future__ import annotations

from collections.abc import Sequence

from controller.store.border import Stored

PAGE_BYTES = 8 * 1024**2
FIRST_KEYS = 64
LEAST_KEYS = 8
MOST_KEYS = 2000


def keys_for_next(page: Sequence[Stored]) -> int:
    """The size of the page after this one."""
    if not page:
        return FIRST_KEYS
    each = sum(len(stored.value) for stored in page) // len(page) + 1
    return max(LEAST_KEYS, min(MOST_KEYS, PAGE_BYTES // each))
