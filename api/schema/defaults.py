"""Setting every default Kubernetes sets, in place, and writing the fields Go always writes.

Called by the registry after `check`, for every write. One visitor a struct, compiled on first use: it fills what Go
cannot leave out (`resources: {}`, `status: {}`), applies the struct's rule and constants, and visits only those
children below which something may have to be set. Invariant: idempotent; only adds; about 10 us a pod.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from api.kinds import Kind
from api.objects import Object
from api.schema.default_rules import ROOT_RULES, RULES, copied
from api.schema.default_values import CONSTANTS
from api.schema.facts import Field, Type, fields_of, struct_of

Visit = Callable[[Object], None]


def default(kind: Kind, obj: Object) -> None:
    """Sets every default of `kind` that `obj` lacks, also inside pod templates; `obj` must have passed `check`."""
    struct = struct_of(kind)
    if struct is not None:
        default_struct(struct, obj)


def default_struct(struct: str, obj: Object) -> None:
    """`default` by struct id: also for parts, such as a pod template."""
    visitor(struct)(obj)
    rule = ROOT_RULES.get(struct)
    if rule is not None:
        rule(obj)


@cache
def visitor(struct: str) -> Visit:
    fields = fields_of(struct)
    plan = _Plan(
        fills=tuple((field.name, field.zero) for field in fields.values() if field.filled),
        rule=RULES.get(struct),
        constants=tuple((fields[name], value) for name, value in CONSTANTS.get(struct, {}).items()),
        children=tuple(field for field in fields.values() if _needs_visit(field.type)),
    )
    return plan.compiled()


class _Plan:
    """What to do with one struct, split into the loops that run per object."""

    def __init__(
        self,
        fills: tuple[tuple[str, Any], ...],
        rule: Visit | None,
        constants: tuple[tuple[Field, Any], ...],
        children: tuple[Field, ...],
    ) -> None:
        self.fills = tuple(row for row in fills if row[1] != {})
        self.empty_structs = tuple(name for name, zero in fills if zero == {})
        self.rule = rule
        self.pointers = tuple((field.name, value) for field, value in constants if field.pointer)
        self.others = tuple((field.name, value) for field, value in constants if not field.pointer)
        self.children = {field.name: _deferred(field.type) for field in children}

    def compiled(self) -> Visit:
        fills, empty_structs, rule = self.fills, self.empty_structs, self.rule
        pointers, others, find = self.pointers, self.others, self.children.get

        def visit(obj: Object) -> None:
            for name in empty_structs:
                if name not in obj:
                    obj[name] = {}
            for name, zero in fills:
                if name not in obj:
                    obj[name] = zero
            if rule is not None:
                rule(obj)
            for name, value in pointers:
                if obj.get(name) is None:
                    obj[name] = copied(value)
            for name, value in others:
                if not obj.get(name):
                    obj[name] = copied(value)
            for name, item in obj.items():
                child = find(name)
                if child is not None and item is not None:
                    child(item)

        return visit


def _deferred(kind: Type) -> Callable[[Any], None]:
    """Visits a value of a type, compiling its struct when the first value comes by."""
    if kind.shape == "list" and kind.element is not None:
        inner = _deferred(kind.element)

        def visit_list(items: Any) -> None:
            for item in items:
                inner(item)

        return visit_list
    if kind.shape == "map" and kind.element is not None:
        inner = _deferred(kind.element)

        def visit_map(items: Any) -> None:
            for item in items.values():
                inner(item)

        return visit_map
    compiled: list[Visit] = []

    def visit_struct(item: Any) -> None:
        if not compiled:
            compiled.append(visitor(kind.struct))
        compiled[0](item)

    return visit_struct


def _needs_visit(kind: Type) -> bool:
    while kind.element is not None:
        kind = kind.element
    return kind.shape == "struct" and _has_work(kind.struct)


@cache
def _has_work(struct: str) -> bool:
    """Something below this struct may have to be set."""
    seen: set[str] = set()
    waiting = [struct]
    while waiting:
        current = waiting.pop()
        if current in seen:
            continue
        seen.add(current)
        if current in CONSTANTS or current in RULES:
            return True
        for field in fields_of(current).values():
            if field.filled:
                return True
            kind = field.type
            while kind.element is not None:
                kind = kind.element
            if kind.shape == "struct":
                waiting.append(kind.struct)
    return False
