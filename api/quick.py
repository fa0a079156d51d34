"""Frozen dataclasses that are made by the thousand.

Used by what the write path makes for every request. `dataclass(frozen=True)` sets each field through
`object.__setattr__`, three times the cost of a plain assignment: 4 % of a create. Here only the type checker forbids
changes, which it does for all code of this project; equality, hash and `replace` are those of a frozen dataclass.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dataclasses import dataclass as quick_dataclass
else:
    from dataclasses import dataclass

    def quick_dataclass(*, frozen, slots=False):
        assert frozen, "what may change is an ordinary dataclass"
        return dataclass(slots=slots, unsafe_hash=True)


__all__ = ["quick_dataclass"]
