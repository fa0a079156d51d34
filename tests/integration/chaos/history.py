"""What clients did and what they were told: the history of one key, as the linearizability checker reads it.

Written by the chaos tests' clients, read by linearizability.py. Every write carries a tag nobody else writes: a value
names the write it came from. An operation whose outcome nobody knows stays open for ever: it may take effect at any
later moment, or never. Pure: the caller passes the times.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum


class Action(Enum):
    READ = "read"
    CREATE = "create"
    REPLACE = "replace"
    """PUT without resourceVersion: whatever is there."""
    SWAP = "swap"
    """PUT with resourceVersion: only over the value that was read (`expected`)."""
    DELETE = "delete"


class Outcome(Enum):
    DONE = "done"
    CONFLICT = "conflict"
    EXISTS = "exists"
    MISSING = "missing"
    UNKNOWN = "unknown"


@dataclass(eq=False, slots=True)
class Operation:
    """`tag`: what a write writes, what a read saw (None: nothing there). `version`: the resourceVersion that came with
    it, 0 when nobody said."""

    action: Action
    started: float
    tag: str | None = None
    expected: str | None = None
    outcome: Outcome = Outcome.UNKNOWN
    ended: float = math.inf
    version: int = 0

    def end(self, outcome: Outcome, at: float, version: int = 0) -> None:
        self.outcome, self.ended, self.version = outcome, at, version

    def __str__(self) -> str:
        about = f" over {self.expected}" if self.action is Action.SWAP else ""
        return (
            f"{self.started:.4f}..{self.ended:.4f} {self.action.value} {self.tag}{about}: "
            f"{self.outcome.value}{f' at {self.version}' if self.version else ''}"
        )


class History:
    """All operations, by key."""

    def __init__(self) -> None:
        self.operations: dict[str, list[Operation]] = {}

    def begin(self, key: str, operation: Operation) -> Operation:
        self.operations.setdefault(key, []).append(operation)
        return operation

    def withdraw(self, key: str, operation: Operation) -> None:
        """The server (or the kernel) said that it was never carried out."""
        self.operations[key].remove(operation)

    def count(self, outcome: Outcome) -> int:
        return sum(one.outcome is outcome for operations in self.operations.values() for one in operations)
