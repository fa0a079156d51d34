"""The memory of deleted Nodes: a claim for each deletion, kept as long as a certificate of the node could live.

Taken by the deletion's own transaction (`allocation.claims_between`), read by the server's authentication, dropped by
the repair of claims once it is of no use. Pure.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

NODES = ("", "nodes")
KEPT_DAYS = 366
"""No certificate of a node lives longer."""
_PREFIX = "revoked/"


def claim_of_deletion(node: str) -> str:
    return f"{_PREFIX}{node}/{time.time_ns() // 1_000_000}"


def revoked_at(node: str, claims: Iterable[str]) -> int:
    """When this node's name was deleted last, in milliseconds; 0: never."""
    prefix = f"{_PREFIX}{node}/"
    return max((int(name[len(prefix) :]) for name in claims if name.startswith(prefix)), default=0)


def is_remembered(claim: str, now_seconds: float) -> bool:
    """Whether a claim is such a memory and still needed."""
    if not claim.startswith(_PREFIX):
        return False
    deleted = int(claim.rpartition("/")[2]) / 1000
    return now_seconds < deleted + KEPT_DAYS * 86400
