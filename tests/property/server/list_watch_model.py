"""What lists and watches have to show of a history: a plain list of changes, replayed for every question.

A change is one acknowledged write of one object. Selectors are (label value or "", reason or ""): the objects with
that label `app` and that `reason`; "" asks nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

Seen = tuple[str, str, int]
"""(event type, name, version), as a watch shows it."""


@dataclass(frozen=True)
class State:
    name: str
    app: str
    reason: str


@dataclass(frozen=True)
class Change:
    version: int
    type: str
    state: State
    """The last one, for a deletion."""


@dataclass(frozen=True)
class Chosen:
    """Selectors, and how they stand in a query."""

    app: str = ""
    reason: str = ""

    def takes(self, state: State | None) -> bool:
        if state is None:
            return False
        return self.app in ("", state.app) and self.reason in ("", state.reason)

    @property
    def query(self) -> str:
        labels = f"&labelSelector=app%3D{self.app}" if self.app else ""
        return labels + (f"&fieldSelector=reason%3D{self.reason}" if self.reason else "")


def objects_at(changes: Iterable[Change], version: int) -> dict[str, Change]:
    """Name -> the change that made what is there at `version`."""
    found: dict[str, Change] = {}
    for change in changes:
        if change.version <= version:
            found.pop(change.state.name, None)
            if change.type != "DELETED":
                found[change.state.name] = change
    return found


def listed(changes: Iterable[Change], version: int, chosen: Chosen) -> list[tuple[str, int]]:
    """(name, version) of the objects of a list, in its order."""
    there = objects_at(changes, version)
    return [(name, there[name].version) for name in sorted(there) if chosen.takes(there[name].state)]


def events_after(changes: list[Change], version: int, chosen: Chosen) -> list[Seen]:
    """What a watch from `version` shows: entering the selection is ADDED, leaving it DELETED."""
    seen: list[Seen] = []
    there = {name: change.state for name, change in objects_at(changes, version).items()}
    for change in changes:
        if change.version <= version:
            continue
        name = change.state.name
        before, now = there.get(name), change.state if change.type != "DELETED" else None
        if now is None:
            there.pop(name, None)
        else:
            there[name] = now
        match (chosen.takes(before), chosen.takes(now)):
            case (False, True):
                seen.append(("ADDED", name, change.version))
            case (True, True):
                seen.append(("MODIFIED", name, change.version))
            case (True, False):
                seen.append(("DELETED", name, change.version))
    return seen
