"""What crosses the border to etcd: plain data, and the errors.

Given and raised by etcd.py, used by the whole room; no gRPC here.

    EtcdError
    ├── Unreachable            no answer: it may or may not have been carried out
    ├── Refused                refused as a whole, nothing was written
    │   ├── RequestTooLarge    too many bytes or operations: split it
    │   ├── NoSpace            the quota is used up; deletes still work
    │   └── Overloaded         the same request may be sent again a little later
    ├── HistoryCompacted       that revision is no longer (or, after a restore, not yet) there
    └── LeaseLost              the lease ran out

"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class EtcdError(Exception):
    pass


class Unreachable(EtcdError):
    pass


class Refused(EtcdError):
    pass


class RequestTooLarge(Refused):
    pass


class NoSpace(Refused):
    pass


class Overloaded(Refused):
    pass


class HistoryCompacted(EtcdError):
    pass


class LeaseLost(EtcdError):
    pass


class Stored(NamedTuple):
    """A key as etcd holds it."""

    name: bytes
    value: bytes
    mod_revision: int
    create_revision: int


class Change(NamedTuple):
    """One event of the watch; `value` None is a deletion."""

    name: bytes
    value: bytes | None
    revision: int


@dataclass(frozen=True)
class WatchBatch:
    """Events in order. Unless `complete`, the last revision goes on in the next batch."""

    changes: list[Change]
    revision: int
    complete: bool


class Condition(NamedTuple):
    """A compare on a key. `result`: "=" or ">"; `target`: "mod" or "create"."""

    name: bytes
    target: str
    result: str
    revision: int


class Failure(NamedTuple):
    """What an operation whose compares did not hold found: its own key, then each condition's key."""

    own: Stored | None
    conditions: tuple[Stored | None, ...]


class CommitReply(NamedTuple):
    """One entry an operation, None for success."""

    revision: int
    failures: list[Failure | None]


@dataclass(frozen=True)
class Health:
    """What one member says of itself."""

    size_bytes: int
    used_bytes: int
    leader: int
    version: str
