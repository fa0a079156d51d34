"""Which fields of an object nothing acts on yet: a warning for each, or a refusal where ignoring it would do harm.

Called by the registry for every write that is not its own. The table is `support`; here it is compiled into one
visitor a struct that descends only to where the table says something. Invariant: a field is never ignored silently.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

from api.errors import FieldError, forbidden
from api.kinds import Kind
from api.objects import Object
from api.schema.facts import Type, fields_of, reaches, struct_of
from api.schema.support import HARMLESS, IDLE_KINDS, REFUSED, WARNED


class Finding(NamedTuple):
    """One field nothing acts on; `path` is relative while the visitors return, absolute at the end."""

    path: str
    why: str
    refused: bool

    def below(self, prefix: str) -> Finding:
        joint = "" if self.path.startswith("[") else "."
        return self._replace(path=prefix + joint + self.path)


Visit = Callable[[Any], list[Finding]]


def unimplemented(kind: Kind, obj: Object) -> tuple[list[str], list[FieldError]]:
    """(warnings, refusals) for the fields of `obj` that nothing acts on; a refusal is a 422."""
    struct = struct_of(kind)
    if struct is None or not _is_concerned(struct):
        return [], []
    found = _visitor(struct)(obj)
    warnings = [
        f"{finding.path}: wherry does not act on this yet: {finding.why}" for finding in found if not finding.refused
    ]
    refusals = [forbidden(finding.path, f"not implemented yet: {finding.why}") for finding in found if finding.refused]
    return warnings, refusals


def idle(kind: Kind) -> list[str]:
    """Warnings about a whole kind, when an object of it is made."""
    key = (kind.group, kind.kind)
    return [f"wherry does not act on {kind.kind} objects yet: {IDLE_KINDS[key]}"] if key in IDLE_KINDS else []


@cache
def _visitor(struct: str) -> Visit:
    visits: dict[str, Visit] = {}
    for name, field in fields_of(struct).items():
        for table, refused in ((WARNED, False), (REFUSED, True)):
            if why := table.get(struct, {}).get(name):
                visits[name] = _flag(Finding(name, why, refused), HARMLESS.get(struct, {}).get(name, ()))
        if name not in visits and _is_concerned_type(field.type):
            visits[name] = _descend(name, _values(field.type))
    find = visits.get

    def visit(obj: Any) -> list[Finding]:
        found: list[Finding] = []
        for name, item in obj.items():
            visit_field = find(name)
            if visit_field is not None and item is not None:
                found += visit_field(item)
        return found

    return visit


def _flag(finding: Finding, harmless: tuple[Any, ...]) -> Visit:
    return lambda item: [] if item in harmless else [finding]


def _descend(name: str, visit: Visit) -> Visit:
    return lambda item: [finding.below(name) for finding in visit(item)]


def _values(kind: Type) -> Visit:
    if kind.shape == "list" and kind.element is not None:
        visit = _values(kind.element)

        def visit_items(items: Any) -> list[Finding]:
            found: list[Finding] = []
            for index, item in enumerate(items):
                for finding in visit(item):
                    found.append(finding.below(f"[{index}]"))
            return found

        return visit_items
    struct = kind.struct
    return lambda item: _visitor(struct)(item)


def _is_concerned_type(kind: Type) -> bool:
    while kind.shape == "list" and kind.element is not None:
        kind = kind.element
    return kind.shape == "struct" and _is_concerned(kind.struct)


@cache
def _is_concerned(struct: str) -> bool:
    """The table says something about this struct or one below it."""
    return reaches(struct, lambda each: each in WARNED or each in REFUSED)
