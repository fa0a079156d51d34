"""Setting every default Kubernetes sets, in place, and writing the fields Go always writes.

Called by the registry after `check`, for every write. One visitor a struct, compiled on first use: it fills what Go
cannot leave out (`resources: {}`, `status: {}`), applies the struct's rule and constants, and visits only those
children below which something may have to be set. Invariant: idempotent; only adds; about 10 us a pod.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from api.kinds import Kind
from api.objects import Object
from api.schema.custom.type import custom_of
from api.schema.default_rules import DEFAULTED_WHOLE, ROOT_RULES, RULES, copied
from api.schema.default_values import CONSTANTS
from api.schema.facts import Type, fields_of, reaches, struct_of

Visit = Callable[[Any], None]


def default(kind: Kind, obj: Object) -> None:
    """Sets every default of `kind` that `obj` lacks, also inside pod templates; `obj` must have passed `check`."""
    struct = struct_of(kind)
    if struct is not None:
        default_struct(struct, obj)
    elif (schema := custom_of(kind)) is not None:
        schema.default(obj)


def defaults_whole(kind: Kind) -> bool:
    """Whether a default of this kind follows from another top-level field, so that parts cannot be defaulted alone."""
    return struct_of(kind) in DEFAULTED_WHOLE


def default_struct(struct: str, obj: Object) -> None:
    """`default` by struct id: also for parts, such as a pod template."""
    visitor(struct)(obj)
    rule = ROOT_RULES.get(struct)
    if rule is not None:
        rule(obj)


@cache
def visitor(struct: str) -> Visit:
    """What to do with one struct, split into the loops that run per object."""
    fields = fields_of(struct)
    constants = [(fields[name], value) for name, value in CONSTANTS.get(struct, {}).items()]
    plan = _Plan(
        empty_structs=tuple(name for name, field in fields.items() if field.filled and field.zero == {}),
        fills=tuple((name, field.zero) for name, field in fields.items() if field.filled and field.zero != {}),
        rule=RULES.get(struct),
        pointers=tuple((field.name, value) for field, value in constants if field.pointer),
        others=tuple((field.name, value) for field, value in constants if not field.pointer),
    )
    children = {name: field.type for name, field in fields.items() if _needs_visit(field.type)}
    return _with_children(plan.compiled(), {name: _deferred(kind) for name, kind in children.items()})


@dataclass(frozen=True)
class _Plan:
    """What is set in one struct's own fields; pointers are set when absent, the others also when empty."""

    empty_structs: tuple[str, ...]
    fills: tuple[tuple[str, Any], ...]
    rule: Visit | None
    pointers: tuple[tuple[str, Any], ...]
    others: tuple[tuple[str, Any], ...]

    def compiled(self) -> Visit:
        empty_structs, fills, rule = self.empty_structs, self.fills, self.rule
        pointers, others = self.pointers, self.others
        if rule is None and not pointers and not others:
            return self._filling()

        def set_own(obj: Object) -> None:
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

        return set_own

    def _filling(self) -> Visit:
        empty_structs, fills = self.empty_structs, self.fills

        def fill_own(obj: Object) -> None:
            for name, zero in fills:
                if name not in obj:
                    obj[name] = zero
            for name in empty_structs:
                if name not in obj:
                    obj[name] = {}

        return fill_own


def _with_children(set_own: Visit, children: dict[str, Visit]) -> Visit:
    if not children:
        return set_own
    find = children.get

    def visit(obj: Object) -> None:
        set_own(obj)
        for name, item in obj.items():
            child = find(name)
            if child is not None and item is not None:
                child(item)

    return visit


def _deferred(kind: Type) -> Visit:
    """Visits a value of a type, compiling its struct when the first value comes by."""
    compiled: list[Visit] = []

    def visit_one(item: Any) -> None:
        if not compiled:
            compiled.append(visitor(kind.struct))
        compiled[0](item)

    if kind.element is None:
        return visit_one
    element, in_list = kind.element, kind.shape == "list"

    def visit_many(items: Any) -> None:
        if not compiled:
            compiled.append(visitor(element.struct) if element.shape == "struct" else _deferred(element))
        visit = compiled[0]
        for item in items if in_list else items.values():
            visit(item)

    return visit_many


def _needs_visit(kind: Type) -> bool:
    while kind.element is not None:
        kind = kind.element
    return kind.shape == "struct" and _has_work(kind.struct)


@cache
def _has_work(struct: str) -> bool:
    """Something below this struct may have to be set."""
    return reaches(
        struct,
        lambda each: each in CONSTANTS or each in RULES or any(field.filled for field in fields_of(each).values()),
    )
