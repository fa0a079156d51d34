"""How fields merge: what strategic merge patch and server-side apply ask of the schema."""

from __future__ import annotations

from dataclasses import dataclass

from api.kinds import Kind


@dataclass(frozen=True)
class Node:
    """One field's schema. `type` is object, map, array, string, integer, number, boolean or any.

    `patch_strategy` holds "merge", "retainKeys", "replace"; `list_type` is atomic, set, map or "" (then atomic for
    apply); `map_type` is atomic or "" (granular).
    """

    type: str = "any"
    patch_merge_key: str = ""
    patch_strategy: tuple[str, ...] = ()
    list_type: str = ""
    list_map_keys: tuple[str, ...] = ()
    map_type: str = ""

    def field(self, name: str) -> Node | None:
        """The schema of a field of an object, or of any value of a map; None when there is no such field."""
        del name
        return None

    @property
    def element(self) -> Node | None:
        """The schema of an array's elements or a map's values."""
        return None


def merge_schema(kind: Kind) -> Node | None:
    """The root node of `kind`, None when it has no schema of its own (custom resources)."""
    del kind
    return None
